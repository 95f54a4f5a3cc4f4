/*
 * rewrite_reduce.c: which rows of a table a query can use only if another relation has rows with the same value.
 *
 * A row passes `m.c = s.d` in WHERE, or in ON, only if some row of s has its value. = is strict, so that holds
 * under outer joins too, wherever rows of m that do not pass are dropped: everywhere in WHERE, on both sides
 * of an inner join, on the other side of LEFT and RIGHT JOIN. s may belong to a query further out. IN and EXISTS
 * say the same of the rows around them. Whatever is not certain gives no edge: names that two things have, columns
 * of what is no table, types whose = is not known to be the same on both sides.
 */
#include "pgshunt/pgtypes.h"
#include "router/rewrite_gather_internal.h"

#include <string.h>

#define MAX_EDGES 64

/* Where names of columns are looked for: what one FROM, or one side of a join, shows. */
struct level {
    List *items;
    const struct level *outer; /* NULL: nothing further out is looked at */
    const SelectStmt *select;  /* whose FROM it is, or is in */
};

struct finder {
    struct survey *s;
    struct arena *arena;
    Node **rows;
    const struct level
        *level; /* of the expressions that are walked; NULL: queries in them stand alone */
};

struct spot {
    const struct level *level;
    const RangeVar *range;
    const struct schema_relation *relation;
    const struct schema_column *column;
};

/* Conditions, and which FROM items need not have rows that fail them. */
struct judged {
    const struct level *level; /* what names mean in them */
    const List *droppable;
};

/* ---- names ---- */

const struct schema_relation *reduce_relation(const struct survey *s, const Node *item)
{
    if (!IsA(item, RangeVar))
        return NULL;
    const RangeVar *range = (const RangeVar *)item;
    if (range->alias && range->alias->colnames)
        return NULL;
    int table = gather_find_table(s, range);
    if (table >= 0)
        return s->gather->tables[table].relation;
    if (!range->schemaname && gather_has_name(s->queries, range->relname))
        return NULL;
    const struct schema_relation *relation =
        schema_relation_only(s->gather->schema, range->schemaname, range->relname);
    return relation && (relation->kind == 'r' || relation->kind == 'p') ? relation : NULL;
}

/* What is visible of a FROM item: a join with a name shows nothing else. */
static List *add_items(Node *item, List *items)
{
    if (!IsA(item, JoinExpr) || ((JoinExpr *)item)->alias)
        return lappend(items, item);
    return add_items(((JoinExpr *)item)->rarg, add_items(((JoinExpr *)item)->larg, items));
}

static List *level_items(const SelectStmt *select)
{
    List *items = NIL;
    for (int i = 0; i < list_length(select->fromClause); i++)
        items = add_items(list_nth(select->fromClause, i), items);
    return items;
}

/* NULL: it has a name of its own making, or none. */
static const char *item_name(const Node *item)
{
    const Alias *alias = NULL;
    switch ((int)nodeTag(item)) {
    case T_RangeVar:
        return gather_visible_name((const RangeVar *)item);
    case T_JoinExpr:
        alias = ((const JoinExpr *)item)->alias;
        break;
    case T_RangeSubselect:
        alias = ((const RangeSubselect *)item)->alias;
        break;
    case T_RangeFunction:
        alias = ((const RangeFunction *)item)->alias;
        break;
    default:
        break;
    }
    return alias ? alias->aliasname : NULL;
}

enum found { FOUND_NONE, FOUND_ONE, FOUND_UNCLEAR };

static enum found find_named(const List *items, const char *name, const Node **found)
{
    enum found result = FOUND_NONE;
    for (int i = 0; i < list_length(items); i++) {
        const Node *item = list_nth(items, i);
        const char *visible = item_name(item);
        if (visible && strcmp(visible, name) != 0)
            continue;
        result = visible && result == FOUND_NONE ? FOUND_ONE : FOUND_UNCLEAR;
        *found = item;
    }
    return result;
}

/* *gathered: all of the items are tables that are gathered, with the columns that we know and no others. */
static enum found find_owner(const struct survey *s, const List *items, const char *column,
                             const Node **found, bool *gathered)
{
    enum found result = FOUND_NONE;
    *gathered = true;
    for (int i = 0; i < list_length(items); i++) {
        const Node *item = list_nth(items, i);
        const struct schema_relation *relation = reduce_relation(s, item);
        if (!relation)
            return FOUND_UNCLEAR;
        *gathered &= gather_find_table(s, (const RangeVar *)item) >= 0;
        if (!schema_column(relation, column))
            continue;
        result = result == FOUND_NONE ? FOUND_ONE : FOUND_UNCLEAR;
        *found = item;
    }
    return result;
}

const RangeVar *reduce_owner(const struct survey *s, const SelectStmt *level, const char *column)
{
    const Node *found = NULL;
    bool gathered;
    return find_owner(s, level_items(level), column, &found, &gathered) == FOUND_ONE
               ? (const RangeVar *)found
               : NULL;
}

static bool is_spot(const struct survey *s, const struct level *level, const Node *item,
                    const char *column, struct spot *spot)
{
    const struct schema_relation *relation = reduce_relation(s, item);
    *spot = (struct spot){.level = level, .relation = relation};
    if (!relation)
        return false;
    spot->range = (const RangeVar *)item;
    spot->column = schema_column(relation, column);
    return spot->column != NULL;
}

/* The innermost level that has the name decides. */
static bool resolve_bare(const struct survey *s, const struct level *level, const char *column,
                         struct spot *spot)
{
    for (; level; level = level->outer) {
        const Node *item = NULL;
        bool gathered;
        enum found found = find_owner(s, level->items, column, &item, &gathered);
        if (found == FOUND_ONE)
            return is_spot(s, level, item, column, spot);
        if (found == FOUND_UNCLEAR || !gathered)
            return false;
    }
    return false;
}

static bool resolve(const struct survey *s, const struct level *level, const Node *node,
                    struct spot *spot)
{
    if (!node || !IsA(node, ColumnRef))
        return false;
    const List *fields = ((const ColumnRef *)node)->fields;
    const Node *last = llast(fields), *first = linitial(fields);
    if (!IsA(last, String) || !IsA(first, String) || list_length(fields) > 2)
        return false;
    if (list_length(fields) == 1)
        return resolve_bare(s, level, strVal(last), spot);
    for (; level; level = level->outer) {
        const Node *item = NULL;
        enum found found = find_named(level->items, strVal(first), &item);
        if (found == FOUND_ONE)
            return is_spot(s, level, item, strVal(last), spot);
        if (found == FOUND_UNCLEAR)
            return false;
    }
    return false;
}

/* ---- edges ---- */

/* Types of one class have one = among them, of a btree operator family; 0: none that we would rely on. */
static uint32_t equality_class(uint32_t type)
{
    switch (type) {
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
        return OID_INT8;
    case OID_TEXT:
    case OID_VARCHAR:
        return OID_TEXT;
    case OID_BPCHAR:
    case OID_UUID:
    case OID_OID:
    case OID_NUMERIC:
    case OID_BYTEA:
    case OID_DATE:
    case OID_TIMESTAMP:
    case OID_TIMESTAMPTZ:
        return type;
    default:
        return 0;
    }
}

bool rewrite_equal_types(uint32_t a, uint32_t b)
{
    return equality_class(a) && equality_class(a) == equality_class(b);
}

static bool same_collation(const struct schema_column *a, const struct schema_column *b)
{
    if (a->collation_default || b->collation_default)
        return a->collation_default && b->collation_default;
    return a->collation && b->collation && strcmp(a->collation, b->collation) == 0;
}

/* Whether the item's rows may be missing where they do not match: the conditions on it are none then. */
static bool is_nullable(const Node *item, const RangeVar *range, bool *found)
{
    if (item == (const Node *)range)
        return !(*found = true);
    if (!IsA(item, JoinExpr))
        return false;
    const JoinExpr *join = (const JoinExpr *)item;
    int type = (int)join->jointype;
    bool left = is_nullable(join->larg, range, found);
    if (*found)
        return left || join->alias || type == JOIN_RIGHT || type == JOIN_FULL;
    bool right = is_nullable(join->rarg, range, found);
    return *found && (right || join->alias || type == JOIN_LEFT || type == JOIN_FULL);
}

static List *own_conditions(const struct survey *s, const struct spot *source)
{
    struct mention m = {
        .range = source->range, .relation = source->relation, .level = source->level->select};
    for (int i = 0; i < list_length(m.level->fromClause); i++) {
        Node *top = list_nth(m.level->fromClause, i);
        bool found = false, nullable = is_nullable(top, m.range, &found);
        if (found)
            return gather_conditions(s, &m, top, nullable);
    }
    return NIL;
}

/* A query inside may be asked for rows further out that are then left out: it is to fail for them no sooner. */
static bool is_further_out(const struct level *level, const struct level *than)
{
    for (than = than->outer; than; than = than->outer)
        if (than == level)
            return true;
    return false;
}

/* SELECT column FROM relation WHERE what the query says of it alone. */
static Node *source_rows(const struct survey *s, const struct spot *source, const struct spot *to)
{
    SelectStmt *select = palloc0(sizeof *select);
    ResTarget *target = palloc0(sizeof *target);
    ColumnRef *column = palloc0(sizeof *column);
    select->type = T_SelectStmt;
    target->type = T_ResTarget;
    column->type = T_ColumnRef;
    target->location = column->location = -1;
    column->fields = list_make1(makeString(pstrdup(source->column->name)));
    target->val = (Node *)column;
    select->targetList = list_make1(target);
    select->fromClause = list_make1(copyObjectImpl(source->range));
    if (!is_further_out(source->level, to->level))
        select->whereClause = gather_where(own_conditions(s, source));
    return (Node *)select;
}

static int mention_number(const struct survey *s, int table, const RangeVar *range)
{
    const List *mentions = s->demands[table].mentions;
    for (int i = 0; i < list_length(mentions); i++)
        if (list_nth(mentions, i) == (const void *)range)
            return i;
    return -1;
}

static bool is_among(const List *items, const RangeVar *range)
{
    for (int i = 0; i < list_length(items); i++)
        if (list_nth(items, i) == (const void *)range)
            return true;
    return false;
}

/* The rows of `to` that match no row of `from` are not needed. */
static void add_edge(struct finder *f, const struct spot *to, const struct spot *from)
{
    struct rewrite_gather *gather = f->s->gather;
    int table = gather_find_table(f->s, to->range);
    int source = gather_find_table(f->s, from->range);
    int mention = table < 0 ? -1 : mention_number(f->s, table, to->range);
    bool same = table == source || to->range == from->range;
    if (mention < 0 || same || gather->nedges == MAX_EDGES || gather->tables[table].identified ||
        !rewrite_equal_types(to->column->type_oid, from->column->type_oid) ||
        !same_collation(to->column, from->column))
        return;
    struct rewrite_edge *edge = &gather->edges[gather->nedges];
    *edge = (struct rewrite_edge){.table = table,
                                  .mention = mention,
                                  .column = to->column->name,
                                  .source = source,
                                  .source_name = from->relation->name,
                                  .source_column = from->column->name};
    f->rows[gather->nedges++] = source < 0 ? source_rows(f->s, from, to) : NULL;
}

static void add_equality(struct finder *f, const struct judged *judged, const Node *a,
                         const Node *b)
{
    struct spot left, right;
    if (!resolve(f->s, judged->level, a, &left) || !resolve(f->s, judged->level, b, &right))
        return;
    if (is_among(judged->droppable, left.range))
        add_edge(f, &left, &right);
    if (is_among(judged->droppable, right.range))
        add_edge(f, &right, &left);
}

/* ---- conditions ---- */

/* `=`, or OPERATOR(pg_catalog.=). */
static bool is_equals(const List *name)
{
    int parts = list_length(name);
    return parts && strcmp(strVal(llast(name)), "=") == 0 &&
           (parts == 1 || (parts == 2 && strcmp(strVal(linitial(name)), "pg_catalog") == 0));
}

/* A query that gives rows only as its FROM and WHERE do, one for each or fewer, none for none. */
static bool is_plain(const SelectStmt *select)
{
    if ((int)select->op != SETOP_NONE || select->valuesLists || select->groupClause ||
        select->havingClause || select->limitCount || select->limitOffset || select->windowClause ||
        select->lockingClause || select->withClause || select->intoClause)
        return false;
    for (int i = 0; i < list_length(select->distinctClause); i++)
        if (list_nth(select->distinctClause, i)) /* DISTINCT ON */
            return false;
    for (int i = 0; i < list_length(select->targetList); i++) {
        const Node *value = ((const ResTarget *)list_nth(select->targetList, i))->val;
        if (!value || (!IsA(value, ColumnRef) && !IsA(value, A_Const)))
            return false; /* an aggregate gives a row for none */
    }
    return true;
}

static void judge(struct finder *f, const struct judged *judged, const Node *condition);

/* The one column that a query gives. */
static bool resolve_result(struct finder *f, const struct level *inside, struct spot *spot)
{
    const List *targets = inside->select->targetList;
    return list_length(targets) == 1 &&
           resolve(f->s, inside, ((const ResTarget *)linitial(targets))->val, spot);
}

/* IN, = ANY and EXISTS: a row outside needs one inside. */
static void judge_sublink(struct finder *f, const struct judged *judged, const SubLink *link)
{
    const SelectStmt *select = (const SelectStmt *)link->subselect;
    bool any = (int)link->subLinkType == ANY_SUBLINK &&
               (link->operName == NIL || is_equals(link->operName));
    bool exists = (int)link->subLinkType == EXISTS_SUBLINK;
    if ((!any && !exists) || !select || !IsA(select, SelectStmt) || (int)select->op != SETOP_NONE)
        return;
    struct level inside = {level_items(select), judged->level, select};
    struct judged around = {&inside, judged->droppable};
    struct spot outer, inner;
    bool plain = is_plain(select);
    if (plain)
        judge(f, &around, select->whereClause);
    if (!any || !resolve(f->s, judged->level, link->testexpr, &outer) ||
        !resolve_result(f, &inside, &inner))
        return;
    if (is_among(judged->droppable, outer.range))
        add_edge(f, &outer, &inner);
    if (plain && is_among(inside.items, inner.range))
        add_edge(f, &inner, &outer);
}

/* All of it has to be true. */
static void judge(struct finder *f, const struct judged *judged, const Node *condition)
{
    if (!condition)
        return;
    if (IsA(condition, SubLink))
        judge_sublink(f, judged, (const SubLink *)condition);
    if (IsA(condition, BoolExpr) && ((const BoolExpr *)condition)->boolop == AND_EXPR) {
        const List *args = ((const BoolExpr *)condition)->args;
        for (int i = 0; i < list_length(args); i++)
            judge(f, judged, list_nth(args, i));
    }
    if (!IsA(condition, A_Expr))
        return;
    const A_Expr *e = (const A_Expr *)condition;
    if (e->kind != AEXPR_OP || !is_equals(e->name) || !e->lexpr || !e->rexpr)
        return;
    if (!IsA(e->lexpr, RowExpr) || !IsA(e->rexpr, RowExpr)) {
        add_equality(f, judged, e->lexpr, e->rexpr);
        return;
    }
    const List *left = ((const RowExpr *)e->lexpr)->args,
               *right = ((const RowExpr *)e->rexpr)->args;
    for (int i = 0; list_length(left) == list_length(right) && i < list_length(left); i++)
        add_equality(f, judged, list_nth(left, i), list_nth(right, i));
}

/* ---- levels ---- */

static bool visit(Node *node, void *context);

static void visit_on(struct finder *f, const struct level *level, Node *node)
{
    const struct level *before = f->level;
    f->level = level;
    visit(node, f);
    f->level = before;
}

static void judge_using(struct finder *f, const SelectStmt *select, const JoinExpr *join,
                        const List *droppable)
{
    struct level left = {add_items(join->larg, NIL), NULL, select},
                 right = {add_items(join->rarg, NIL), NULL, select};
    for (int i = 0; i < list_length(join->usingClause); i++) {
        const char *column = strVal(list_nth(join->usingClause, i));
        struct spot a, b;
        if (!resolve_bare(f->s, &left, column, &a) || !resolve_bare(f->s, &right, column, &b))
            continue;
        if (is_among(droppable, a.range))
            add_edge(f, &a, &b);
        if (is_among(droppable, b.range))
            add_edge(f, &b, &a);
    }
}

static void visit_from(struct finder *f, const SelectStmt *select, Node *item)
{
    if (!IsA(item, JoinExpr)) {
        visit_on(f, NULL, item);
        return;
    }
    const JoinExpr *join = (const JoinExpr *)item;
    List *left = add_items(join->larg, NIL), *right = add_items(join->rarg, NIL),
         *both = add_items(join->rarg, add_items(join->larg, NIL));
    int type = (int)join->jointype;
    struct level level = {both, NULL, select};
    struct judged judged = {&level, type == JOIN_INNER   ? both
                                    : type == JOIN_LEFT  ? right
                                    : type == JOIN_RIGHT ? left
                                                         : NIL};
    judge(f, &judged, join->quals);
    judge_using(f, select, join, judged.droppable);
    visit_on(f, NULL, join->quals);
    visit_from(f, select, join->larg);
    visit_from(f, select, join->rarg);
}

static void visit_select(struct finder *f, SelectStmt *select)
{
    struct level level = {level_items(select), f->level, select};
    struct judged judged = {&level, level.items};
    Node *const here[] = {
        (Node *)select->distinctClause, (Node *)select->targetList,   select->whereClause,
        (Node *)select->groupClause,    select->havingClause,         (Node *)select->windowClause,
        (Node *)select->sortClause,     (Node *)select->lockingClause};
    if ((int)select->op != SETOP_NONE) {
        visit((Node *)select->larg, f);
        visit((Node *)select->rarg, f);
    }
    for (int i = 0; i < list_length(select->fromClause); i++)
        visit_from(f, select, list_nth(select->fromClause, i));
    judge(f, &judged, select->whereClause);
    for (size_t i = 0; i < sizeof here / sizeof here[0]; i++)
        visit_on(f, &level, here[i]);
    visit_on(f, NULL, (Node *)select->withClause);
    visit_on(f, NULL, (Node *)select->valuesLists);
    visit_on(f, NULL, select->limitCount);
    visit_on(f, NULL, select->limitOffset);
}

static bool visit(Node *node, void *context)
{
    struct finder *f = context;
    if (!node)
        return false;
    if (IsA(node, SelectStmt)) {
        visit_select(f, (SelectStmt *)node);
        return false;
    }
    return pgtree_children(node, visit, f);
}

void reduce_find(struct survey *s, Node *statement, struct arena *arena, Node ***trees)
{
    struct finder f = {.s = s, .arena = arena};
    f.rows = palloc0(sizeof *f.rows * MAX_EDGES);
    s->gather->edges = arena_array(arena, struct rewrite_edge, MAX_EDGES);
    s->gather->nedges = 0;
    visit(statement, &f);
    *trees = f.rows;
}
