/*
 * rewrite_ghosts.c: a statement that does not see the rows which a shard has, but does not own.
 *
 *   SELECT ... FROM t WHERE c        ->  ... WHERE c AND NOT EXISTS (SELECT 1 FROM ghosts g WHERE g.key = t.key)
 *   a LEFT JOIN b ON c               ->  a LEFT JOIN b ON c AND NOT EXISTS (... = b.key)
 *   a FULL JOIN b, USING, aliases    ->  (SELECT * FROM b WHERE NOT EXISTS (...)) AS b
 *
 * A condition leaves the FROM item what it is: a table, whose rows can be locked and have system columns. It
 * goes to the nearest place where a row that does not pass is as if it were not there: the level's WHERE, or the ON
 * of the outer join that may put NULLs in the row's place. Where there is no such place, the table becomes a subquery.
 */
#include "router/rewrite_internal.h"

#include <stdio.h>
#include <string.h>

#define GHOST_ALIAS "pgshunt_g"

struct hiding {
    struct rewrite_ghosts *ghosts;
    List *replaced; /* aliases of tables that have become subqueries */
    List *columns;  /* ColumnRefs of the statement as it was written */
    bool obstacle;
};

/* Where conditions go; NULL: nowhere, the item itself has to change. */
typedef List **place;

static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

static Node *string_node(const char *text)
{
    return (Node *)makeString(pstrdup(text));
}

/* ---- the condition ---- */

static const struct rewrite_ghost_table *find_table(const struct hiding *h, const RangeVar *range)
{
    for (int i = 0; i < h->ghosts->ntables; i++) {
        const struct rewrite_ghost_table *table = &h->ghosts->tables[i];
        bool same = strcmp(table->name, range->relname) == 0;
        if (same && !table->schema == !range->schemaname &&
            (!table->schema || strcmp(table->schema, range->schemaname) == 0))
            return table;
    }
    return NULL;
}

static Node *column(List *fields)
{
    ColumnRef *ref = new_node(sizeof *ref, T_ColumnRef);
    ref->fields = fields;
    ref->location = -1;
    return (Node *)ref;
}

/* The column as it is seen next to the item. */
static Node *own_column(const RangeVar *range, const char *name)
{
    if (range->alias)
        return column(list_make2(string_node(range->alias->aliasname), string_node(name)));
    if (range->schemaname)
        return column(list_make3(string_node(range->schemaname), string_node(range->relname),
                                 string_node(name)));
    return column(list_make2(string_node(range->relname), string_node(name)));
}

/* Keys are compared byte by byte, whatever the columns' collations are. */
static Node *in_bytes(Node *value)
{
    CollateClause *collate = new_node(sizeof *collate, T_CollateClause);
    collate->arg = value;
    collate->collname = list_make1(string_node("C"));
    collate->location = -1;
    return (Node *)collate;
}

static Node *equal_part(const struct rewrite_ghost_table *table, const RangeVar *range, unsigned i)
{
    A_Expr *op = new_node(sizeof *op, T_A_Expr);
    char number[16];
    snprintf(number, sizeof number, table->nparts > 1 ? "key%u" : "key", i + 1);
    op->kind = AEXPR_OP;
    op->name = list_make1(string_node("="));
    op->lexpr = column(list_make2(string_node(GHOST_ALIAS), string_node(number)));
    op->rexpr = own_column(range, table->parts[i]);
    if (table->types[i] == KEY_TEXT)
        op->rexpr = in_bytes(op->rexpr);
    op->location = -1;
    return (Node *)op;
}

static Node *all_of(List *conditions)
{
    if (list_length(conditions) == 1)
        return linitial(conditions);
    BoolExpr *all = new_node(sizeof *all, T_BoolExpr);
    all->boolop = AND_EXPR;
    all->args = conditions;
    all->location = -1;
    return (Node *)all;
}

static Node *one(void)
{
    A_Const *number = new_node(sizeof *number, T_A_Const);
    number->val.ival = *makeInteger(1);
    number->location = -1;
    return (Node *)number;
}

static List *result(Node *value)
{
    ResTarget *target = new_node(sizeof *target, T_ResTarget);
    target->val = value;
    target->location = -1;
    return list_make1(target);
}

static RangeVar *table_named(const char *schema, const char *name, const char *alias)
{
    RangeVar *range = new_node(sizeof *range, T_RangeVar);
    range->schemaname = pstrdup(schema);
    range->relname = pstrdup(name);
    range->inh = true;
    range->relpersistence = 'p';
    range->location = -1;
    range->alias = new_node(sizeof *range->alias, T_Alias);
    range->alias->aliasname = pstrdup(alias);
    return range;
}

/* NOT EXISTS (SELECT 1 FROM pgshunt.ghost_... WHERE ...) */
static Node *is_no_ghost(const struct rewrite_ghost_table *table, const RangeVar *range)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    SubLink *exists = new_node(sizeof *exists, T_SubLink);
    BoolExpr *not = new_node(sizeof *not, T_BoolExpr);
    List *equal = NIL;
    for (unsigned i = 0; i < table->nparts; i++)
        equal = lappend(equal, equal_part(table, range, i));
    select->targetList = result(one());
    select->fromClause = list_make1(table_named("pgshunt", table->ghosts, GHOST_ALIAS));
    select->whereClause = all_of(equal);
    exists->subLinkType = EXISTS_SUBLINK;
    exists->subselect = (Node *)select;
    exists->location = -1;
    not ->boolop = NOT_EXPR;
    not ->args = list_make1(exists);
    not ->location = -1;
    return (Node *)not ;
}

/* `condition` AND the others, as the parser would have it: no AND directly in an AND. */
static Node *with_conditions(Node *condition, List *others)
{
    if (others == NIL)
        return condition;
    if (!condition)
        return all_of(others);
    if (IsA(condition, BoolExpr) && ((BoolExpr *)condition)->boolop == AND_EXPR)
        return all_of(list_concat(list_copy(((BoolExpr *)condition)->args), others));
    return all_of(list_concat(list_make1(condition), others));
}

/* ---- FROM ---- */

static RangeVar *range_of(Node *item)
{
    if (IsA(item, RangeTableSample))
        item = ((RangeTableSample *)item)->relation;
    return IsA(item, RangeVar) ? (RangeVar *)item : NULL;
}

/* (SELECT * FROM item WHERE NOT EXISTS ...) AS what it was called. */
static Node *as_subquery(struct hiding *h, const struct rewrite_ghost_table *table, Node *item,
                         RangeVar *range)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    RangeSubselect *subselect = new_node(sizeof *subselect, T_RangeSubselect);
    Alias *alias = range->alias;
    if (!alias) {
        alias = new_node(sizeof *alias, T_Alias);
        alias->aliasname = pstrdup(range->relname);
    }
    range->alias = NULL;
    select->targetList = result(column(list_make1(new_node(sizeof(A_Star), T_A_Star))));
    select->fromClause = list_make1(item);
    select->whereClause = is_no_ghost(table, range);
    subselect->subquery = (Node *)select;
    subselect->alias = alias;
    h->replaced = lappend(h->replaced, string_node(alias->aliasname));
    return (Node *)subselect;
}

static Node *hide_item(struct hiding *h, Node *item, place outside);

static void hide_join(struct hiding *h, JoinExpr *join, place outside)
{
    int type = (int)join->jointype;
    bool has_on = !join->isNatural && join->usingClause == NIL;
    List *on = NIL;
    place inside = has_on ? &on : NULL;
    if (join->alias)
        outside = type == JOIN_INNER ? inside : NULL;
    join->larg = hide_item(h, join->larg,
                           type == JOIN_RIGHT  ? inside
                           : type == JOIN_FULL ? NULL
                                               : outside);
    join->rarg = hide_item(h, join->rarg,
                           type == JOIN_LEFT   ? inside
                           : type == JOIN_FULL ? NULL
                                               : outside);
    join->quals = with_conditions(join->quals, on);
}

static Node *hide_item(struct hiding *h, Node *item, place outside)
{
    if (IsA(item, JoinExpr)) {
        hide_join(h, (JoinExpr *)item, outside);
        return item;
    }
    RangeVar *range = range_of(item);
    const struct rewrite_ghost_table *table = range ? find_table(h, range) : NULL;
    if (!table)
        return item;
    h->ghosts->hidden++;
    if (!outside || (range->alias && range->alias->colnames))
        return as_subquery(h, table, item, range);
    *outside = lappend(*outside, is_no_ghost(table, range));
    return item;
}

static void hide_from(struct hiding *h, List *from, Node **where)
{
    List *conditions = NIL;
    for (int i = 0; i < list_length(from); i++) {
        ListCell *cell = list_nth_cell(from, i);
        lfirst(cell) = hide_item(h, lfirst(cell), &conditions);
    }
    *where = with_conditions(*where, conditions);
}

/* UPDATE and DELETE: the table that is changed, and those that are read. */
static void hide_change(struct hiding *h, RangeVar *target, List *from, Node **where)
{
    const struct rewrite_ghost_table *table = find_table(h, target);
    h->obstacle |= *where && IsA(*where, CurrentOfExpr);
    if (table) {
        h->ghosts->hidden++;
        *where = with_conditions(*where, list_make1(is_no_ghost(table, target)));
    }
    hide_from(h, from, where);
}

/* What does not match is as if it were not there: a row of the target's, too. */
static void hide_merge(struct hiding *h, MergeStmt *merge)
{
    const struct rewrite_ghost_table *table = find_table(h, merge->relation);
    merge->sourceRelation = hide_item(h, merge->sourceRelation, NULL);
    if (!table)
        return;
    h->ghosts->hidden++;
    merge->joinCondition =
        with_conditions(merge->joinCondition, list_make1(is_no_ghost(table, merge->relation)));
}

/* ---- the statement ---- */

/* Before anything is put in. */
static bool look_at(Node *node, void *context)
{
    struct hiding *h = context;
    if (!node)
        return false;
    if (IsA(node, ColumnRef)) {
        h->columns = lappend(h->columns, node);
        return false;
    }
    if (IsA(node, CommonTableExpr)) {
        RangeVar as = {.type = T_RangeVar, .relname = ((CommonTableExpr *)node)->ctename};
        h->obstacle |= find_table(h, &as) != NULL;
    }
    return pgtree_children(node, look_at, h);
}

/* Children first: what is put in is left as it is. */
static bool hide_node(Node *node, void *context)
{
    struct hiding *h = context;
    if (!node || IsA(node, RangeVar))
        return false;
    pgtree_children(node, hide_node, h);
    if (IsA(node, SelectStmt)) {
        SelectStmt *select = (SelectStmt *)node;
        hide_from(h, select->fromClause, &select->whereClause);
    } else if (IsA(node, UpdateStmt)) {
        UpdateStmt *update = (UpdateStmt *)node;
        hide_change(h, update->relation, update->fromClause, &update->whereClause);
    } else if (IsA(node, DeleteStmt)) {
        DeleteStmt *delete = (DeleteStmt *)node;
        hide_change(h, delete->relation, delete->usingClause, &delete->whereClause);
    } else if (IsA(node, MergeStmt)) {
        hide_merge(h, (MergeStmt *)node);
    }
    return false;
}

/* What a table has and a subquery does not: system columns, and rows of the table's own type. */
static bool is_of_table(const struct hiding *h, const ColumnRef *ref)
{
    static const char *const system[] = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"};
    const Node *last = llast(ref->fields);
    if (!IsA(last, String))
        return false;
    for (size_t i = 0; i < sizeof system / sizeof system[0]; i++)
        if (strcmp(system[i], strVal(last)) == 0)
            return true;
    for (int i = 0; i < list_length(h->replaced) && list_length(ref->fields) == 1; i++)
        if (strcmp(strVal(list_nth(h->replaced, i)), strVal(last)) == 0)
            return true;
    return false;
}

static bool needs_tables(const struct hiding *h)
{
    for (int i = 0; i < list_length(h->columns) && h->replaced != NIL; i++)
        if (is_of_table(h, list_nth(h->columns, i)))
            return true;
    return false;
}

bool rewrite_ghosts(const char *text, struct rewrite_ghosts *ghosts, struct arena *arena,
                    struct shard_query *out)
{
    struct rewriting r;
    struct hiding h = {.ghosts = ghosts};
    ghosts->hidden = 0;
    *out = (struct shard_query){.sql = text};
    rewrite_open(&r, text);
    if (!r.statement)
        return rewrite_abandon(&r);
    look_at(r.statement, &h);
    if (!h.obstacle)
        hide_node(r.statement, &h);
    if (h.obstacle || needs_tables(&h))
        return rewrite_abandon(&r);
    if (ghosts->hidden)
        return rewrite_close(&r, arena, out);
    rewrite_abandon(&r);
    return true;
}

/* ---- COPY ---- */

static Node *all_rows(const struct rewrite_ghosts *ghosts, const CopyStmt *copy)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    RangeVar *range = palloc0(sizeof *range);
    *range = *copy->relation;
    range->inh = ghosts->inherited; /* rows of children are not COPY's */
    for (int i = 0; i < list_length(copy->attlist); i++) {
        const char *name = strVal(list_nth(copy->attlist, i));
        select->targetList = list_concat(select->targetList, result(own_column(range, name)));
    }
    for (int i = 0; i < ghosts->ncolumns && copy->attlist == NIL; i++)
        select->targetList =
            list_concat(select->targetList, result(own_column(range, ghosts->columns[i])));
    select->fromClause = list_make1(range);
    return (Node *)select;
}

bool rewrite_ghosts_copy(const char *text, struct rewrite_ghosts *ghosts, struct arena *arena,
                         struct shard_query *out)
{
    struct rewriting r;
    struct hiding h = {.ghosts = ghosts};
    ghosts->hidden = 0;
    rewrite_open(&r, text);
    CopyStmt *copy = r.statement && IsA(r.statement, CopyStmt) ? (CopyStmt *)r.statement : NULL;
    if (!copy || !copy->relation || copy->is_from || (!copy->attlist && !ghosts->ncolumns))
        return rewrite_abandon(&r);
    copy->query = all_rows(ghosts, copy);
    copy->relation = NULL;
    copy->attlist = NIL;
    hide_node(copy->query, &h);
    if (!ghosts->hidden)
        return rewrite_abandon(&r);
    return rewrite_close(&r, arena, out);
}
