/*
 * rewrite_gather.c: what a query needs of each of its tables: columns, and rows by its own conditions.
 *
 * Everything here errs on the side of more: a column is left out only if its name stands nowhere in the
 * query (and nothing means whole rows), a row only if a condition that the query itself puts on this one
 * table, where no outer join can turn a missing row into NULLs, is not true for it. Several mentions of
 * a table get the rows that any of them needs.
 */
#include "pgshunt/change.h"
#include "router/rewrite_gather_internal.h"

#include <string.h>
#include <strings.h>

/* ---- the tables ---- */

int gather_find_table(const struct survey *s, const RangeVar *range)
{
    for (int i = 0; i < s->gather->ntables; i++) {
        const struct rewrite_gather_table *table = &s->gather->tables[i];
        if (strcmp(table->relation->name, range->relname) == 0 &&
            (range->schemaname ? strcmp(table->relation->schema, range->schemaname) == 0
                               : table->unqualified))
            return i;
    }
    return -1;
}

const char *gather_visible_name(const RangeVar *range)
{
    return range->alias ? range->alias->aliasname : range->relname;
}

static void note_name(struct survey *s, const char *name)
{
    s->names = lappend(s->names, makeString(pstrdup(name)));
}

static void note_column(struct survey *s, const ColumnRef *column)
{
    for (int i = 0; i < list_length(column->fields); i++) {
        const Node *field = list_nth(column->fields, i);
        if (IsA(field, A_Star))
            s->whole_rows = true;
        else if (IsA(field, String))
            note_name(s, strVal(field));
    }
    const Node *last = llast(column->fields);
    if (IsA(last, String))
        s->bare = lappend(s->bare, makeString(pstrdup(strVal(last))));
}

/* Names of columns by their place hide which those are. */
static void note_alias(struct survey *s, const Alias *alias)
{
    if (!alias)
        return;
    s->aliases = lappend(s->aliases, makeString(pstrdup(alias->aliasname)));
    if (alias->colnames)
        s->whole_rows = true;
}

static bool names_system_column(const char *name)
{
    static const char *const names[] = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static bool obstacle(struct survey *s, const char *what)
{
    if (!s->gather->obstacle)
        s->gather->obstacle = what;
    return true; /* ends a walk */
}

/* Columns of a table that stays where it is. */
static void note_others(struct survey *s, const RangeVar *range)
{
    const struct schema_relation *relation =
        schema_relation(s->gather->schema, range->schemaname, range->relname);
    for (int i = 0; relation && i < relation->ncolumns; i++)
        s->made = lappend(s->made, makeString(pstrdup(relation->columns[i].name)));
}

static void note_range(struct survey *s, RangeVar *range)
{
    int table = gather_find_table(s, range);
    note_alias(s, range->alias);
    s->aliases = lappend(s->aliases, makeString(pstrdup(range->relname)));
    if (table < 0) {
        note_others(s, range);
        return;
    }
    s->demands[table].again |= s->demands[table].mentioned;
    s->demands[table].mentioned = true;
    s->demands[table].mentions = lappend(s->demands[table].mentions, range);
    if (range->schemaname || s->gather->tables[table].name)
        s->qualified = lappend(s->qualified, range);
    if (range->inh)
        s->demands[table].all = true;
    else
        s->demands[table].only = true;
}

/* One walk over everything. */
static bool survey_node(Node *node, void *context)
{
    struct survey *s = context;
    if (!node)
        return false;
    switch ((int)nodeTag(node)) {
    case T_ColumnRef:
        note_column(s, (ColumnRef *)node);
        return false;
    case T_SelectStmt:
        s->groups |= ((SelectStmt *)node)->groupClause != NIL;
        break;
    case T_RangeVar:
        note_range(s, (RangeVar *)node);
        return false;
    case T_String: /* A_Indirection and USING have names of columns in lists */
        note_name(s, strVal(node));
        return false;
    case T_JoinExpr: {
        JoinExpr *join = (JoinExpr *)node;
        s->whole_rows |= join->isNatural;
        note_alias(s, join->alias);
        for (int i = 0; i < list_length(join->usingClause); i++)
            note_name(s, strVal(list_nth(join->usingClause, i)));
        break;
    }
    case T_ResTarget:
        if (((ResTarget *)node)->name)
            s->made = lappend(s->made, makeString(((ResTarget *)node)->name));
        break;
    case T_RangeSubselect:
        note_alias(s, ((RangeSubselect *)node)->alias);
        break;
    case T_A_Indirection: {
        const List *path = ((A_Indirection *)node)->indirection;
        for (int i = 0; i < list_length(path); i++)
            s->whole_rows |= IsA(list_nth(path, i), A_Star);
        break;
    }
    case T_CommonTableExpr: {
        const CommonTableExpr *cte = (CommonTableExpr *)node;
        RangeVar as = {.type = T_RangeVar, .relname = cte->ctename};
        s->queries = lappend(s->queries, makeString(pstrdup(cte->ctename)));
        if (gather_find_table(s, &as) >= 0)
            return obstacle(s, "a WITH query that has the name of a table");
        break;
    }
    default:
        break;
    }
    return pgtree_children(node, survey_node, s);
}

bool gather_has_name(const List *names, const char *name)
{
    for (int i = 0; i < list_length(names); i++)
        if (strcmp(strVal(list_nth(names, i)), name) == 0)
            return true;
    return false;
}

static bool is_column(const struct survey *s, const char *name)
{
    for (int i = 0; i < s->gather->ntables; i++)
        if (schema_column(s->gather->tables[i].relation, name))
            return true;
    return false;
}

/*
 * A name of a FROM item, used like a column, is the whole row. A name that nobody knows may be a column
 * that was added a moment ago.
 */
static bool uses_whole_rows(const struct survey *s)
{
    if (s->whole_rows)
        return true;
    for (int i = 0; i < list_length(s->names); i++) {
        const char *name = strVal(list_nth(s->names, i));
        bool item = gather_has_name(s->aliases, name), column = is_column(s, name);
        if (gather_has_name(s->bare, name) ? item || (!column && !gather_has_name(s->made, name))
                                           : !column && !item && !gather_has_name(s->made, name))
            return true;
    }
    return false;
}

/* ---- conditions ---- */

/* 'now' and its kin are read by each server's own clock. */
static bool tells_time(const Node *node)
{
    static const char *const words[] = {"now", "today", "tomorrow", "yesterday"};
    const A_Const *constant = (const A_Const *)node;
    if (constant->isnull || !IsA(&constant->val.node, String))
        return false;
    const char *text = constant->val.sval.sval;
    while (*text == ' ')
        text++;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strncasecmp(text, words[i], strlen(words[i])) == 0)
            return true;
    return false;
}

static bool is_own_column(const struct mention *m, const ColumnRef *column)
{
    int fields = list_length(column->fields);
    const Node *last = llast(column->fields);
    if (!IsA(last, String) || !schema_column(m->relation, strVal(last)))
        return false;
    if (fields == 1)
        return m->unqualified || reduce_owner(m->survey, m->level, strVal(last)) == m->range;
    if (fields != 2)
        return false;
    const Node *qualifier = linitial(column->fields);
    return IsA(qualifier, String) && strcmp(strVal(qualifier), gather_visible_name(m->range)) == 0;
}

/* Walks while all is fine: true ends it. */
static bool is_foreign(Node *node, void *context)
{
    const struct mention *m = context;
    if (!node)
        return false;
    switch ((int)nodeTag(node)) {
    case T_ColumnRef:
        return !is_own_column(m, (const ColumnRef *)node);
    case T_A_Const:
        return tells_time(node);
    case T_ParamRef:
    case T_String:
        return false;
    case T_A_Expr:
        if (((A_Expr *)node)->kind == AEXPR_NULLIF)
            return true;
        break;
    case T_BoolExpr:
    case T_NullTest:
    case T_BooleanTest:
    case T_A_ArrayExpr:
    case T_List:
    case T_TypeCast:
    case T_CollateClause:
    case T_RowExpr:
    case T_CoalesceExpr:
        break;
    case T_TypeName:
        return false;
    default:
        return true;
    }
    return pgtree_children(node, is_foreign, context);
}

static bool strip_qualifier(Node *node, void *context)
{
    if (!node)
        return false;
    if (IsA(node, ColumnRef)) {
        ColumnRef *column = (ColumnRef *)node;
        column->fields = list_make1(llast(column->fields));
        return false;
    }
    return IsA(node, TypeName) ? false : pgtree_children(node, strip_qualifier, context);
}

/* Adds what of the condition concerns the mention alone. */
static List *take_conditions(struct mention *m, Node *condition, List *taken)
{
    if (!condition)
        return taken;
    if (IsA(condition, BoolExpr) && ((BoolExpr *)condition)->boolop == AND_EXPR) {
        List *args = ((BoolExpr *)condition)->args;
        for (int i = 0; i < list_length(args); i++)
            taken = take_conditions(m, list_nth(args, i), taken);
        return taken;
    }
    if (is_foreign(condition, m))
        return taken;
    Node *copy = copyObjectImpl(condition);
    strip_qualifier(copy, NULL);
    return lappend(taken, copy);
}

static bool contains(const Node *item, const RangeVar *range)
{
    if (IsA(item, JoinExpr))
        return contains(((const JoinExpr *)item)->larg, range) ||
               contains(((const JoinExpr *)item)->rarg, range);
    return item == (const Node *)range;
}

/* The conditions of inner joins on the way to the mention. */
static List *take_join_conditions(struct mention *m, Node *item, List *taken)
{
    if (!IsA(item, JoinExpr))
        return taken;
    JoinExpr *join = (JoinExpr *)item;
    if ((int)join->jointype == JOIN_INNER)
        taken = take_conditions(m, join->quals, taken);
    return take_join_conditions(m, contains(join->larg, m->range) ? join->larg : join->rarg, taken);
}

/* A column without a qualifier is certain where the level has this table alone. */
static bool stands_alone(const struct mention *m)
{
    return list_length(m->level->fromClause) == 1 &&
           linitial(m->level->fromClause) == (const void *)m->range;
}

List *gather_conditions(const struct survey *s, struct mention *m, Node *top, bool nullable)
{
    List *taken = NIL;
    m->survey = s;
    m->unqualified = stands_alone(m);
    if (nullable || (m->range->alias && m->range->alias->colnames))
        return NIL;
    taken = take_conditions(m, m->level->whereClause, taken);
    return take_join_conditions(m, top, taken);
}

static void demand_rows(struct survey *s, const SelectStmt *level, Node *item, RangeVar *range,
                        bool nullable)
{
    int table = gather_find_table(s, range);
    if (table < 0)
        return;
    struct demand *demand = &s->demands[table];
    struct mention m = {
        .range = range, .relation = s->gather->tables[table].relation, .level = level};
    List *taken = gather_conditions(s, &m, item, nullable);
    if (taken == NIL)
        demand->everything = true;
    else
        demand->alternatives = lappend(demand->alternatives, taken);
}

static void demand_item(struct survey *s, const SelectStmt *level, Node *top, Node *item,
                        bool nullable)
{
    if (IsA(item, RangeVar)) {
        demand_rows(s, level, top, (RangeVar *)item, nullable);
        return;
    }
    if (IsA(item, RangeTableSample)) {
        demand_item(s, level, top, ((RangeTableSample *)item)->relation, true);
        return;
    }
    if (!IsA(item, JoinExpr))
        return;
    JoinExpr *join = (JoinExpr *)item;
    int type = (int)join->jointype;
    bool hidden = join->alias != NULL;
    demand_item(s, level, top, join->larg,
                nullable || hidden || type == JOIN_RIGHT || type == JOIN_FULL);
    demand_item(s, level, top, join->rarg,
                nullable || hidden || type == JOIN_LEFT || type == JOIN_FULL);
}

/* FROM of an UPDATE, USING of a DELETE: all rows, whatever else is said of the same tables. */
static void demand_whole(struct survey *s, const List *from)
{
    static const SelectStmt no_level;
    for (int i = 0; i < list_length(from); i++)
        demand_item(s, &no_level, list_nth(from, i), list_nth(from, i), true);
}

/* Tables in one FROM that only their schemas tell apart, which are taken off. */
static void check_names(struct survey *s, const Node *item, List **names)
{
    if (IsA(item, JoinExpr) && !((const JoinExpr *)item)->alias) {
        check_names(s, ((const JoinExpr *)item)->larg, names);
        check_names(s, ((const JoinExpr *)item)->rarg, names);
    }
    if (!IsA(item, RangeVar))
        return;
    const RangeVar *range = (const RangeVar *)item;
    int table = gather_find_table(s, range);
    const char *name = range->relname;
    if (range->alias || table < 0 || !s->gather->tables[table].name)
        return; /* what is wrong then is wrong anywhere */
    if (gather_has_name(*names, name))
        obstacle(s, "two tables of one name in one FROM");
    *names = lappend(*names, makeString(pstrdup(name)));
}

static bool demand_node(Node *node, void *context)
{
    if (!node)
        return false;
    if (IsA(node, UpdateStmt))
        demand_whole(context, ((UpdateStmt *)node)->fromClause);
    if (IsA(node, DeleteStmt))
        demand_whole(context, ((DeleteStmt *)node)->usingClause);
    if (IsA(node, SelectStmt)) {
        SelectStmt *level = (SelectStmt *)node;
        List *names = NIL;
        for (int i = 0; i < list_length(level->fromClause); i++)
            check_names(context, list_nth(level->fromClause, i), &names);
        for (int i = 0; i < list_length(level->fromClause); i++)
            demand_item(context, level, list_nth(level->fromClause, i),
                        list_nth(level->fromClause, i), false);
    }
    return pgtree_children(node, demand_node, context);
}

/* ---- the texts ---- */

static void *new_node(size_t size, NodeTag tag)
{
    Node *node = palloc0(size);
    node->type = tag;
    return node;
}

static Node *bool_expr(BoolExprType op, List *args)
{
    if (list_length(args) == 1)
        return linitial(args);
    BoolExpr *node = new_node(sizeof *node, T_BoolExpr);
    node->boolop = op;
    node->args = args;
    node->location = -1;
    return (Node *)node;
}

static Node *demanded(const struct demand *demand)
{
    List *any = NIL;
    if (demand->everything || demand->alternatives == NIL)
        return NULL;
    for (int i = 0; i < list_length(demand->alternatives); i++)
        any = lappend(any, bool_expr(AND_EXPR, list_nth(demand->alternatives, i)));
    return bool_expr(OR_EXPR, any);
}

static bool has_whole_key(const struct rewrite_gather_table *table)
{
    bool some = false;
    for (int i = 0; i < table->relation->ncolumns; i++) {
        if (table->relation->columns[i].primary_key && !table->used[i])
            return false;
        some |= table->relation->columns[i].primary_key;
    }
    return some;
}

static void choose_columns(const struct survey *s, struct rewrite_gather_table *table, bool all)
{
    const struct schema_relation *relation = table->relation;
    bool some = false;
    table->all = all;
    for (int i = 0; i < relation->ncolumns; i++) {
        table->used[i] = all;
        for (int j = 0; j < list_length(s->names) && !table->used[i]; j++)
            table->used[i] = strcmp(strVal(list_nth(s->names, j)), relation->columns[i].name) == 0;
        some |= table->used[i];
    }
    table->keyed = s->groups && has_whole_key(table);
    if (!some && relation->ncolumns) /* a table without columns cannot be copied */
        table->used[0] = true;
}

Node *gather_where(const List *conditions)
{
    return conditions == NIL ? NULL : bool_expr(AND_EXPR, (List *)conditions);
}

/* A column, or `*`. */
static ResTarget *select_item(Node *field)
{
    ResTarget *target = new_node(sizeof *target, T_ResTarget);
    ColumnRef *column = new_node(sizeof *column, T_ColumnRef);
    column->fields = list_make1(field);
    column->location = target->location = -1;
    target->val = (Node *)column;
    return target;
}

/* Where a row is. The number of the shard is put in later. */
static List *add_identity(const struct rewrite_gather_table *table, List *targets)
{
    ResTarget *row = select_item((Node *)makeString(pstrdup("ctid"))),
              *shard = new_node(sizeof *shard, T_ResTarget);
    A_Const *number = new_node(sizeof *number, T_A_Const);
    number->val.ival = *makeInteger(-1);
    number->location = shard->location = -1;
    if (table->relation->kind == 'p')
        row->val = rewrite_partition_row(NULL);
    row->name = pstrdup(CHANGE_ROW);
    shard->val = (Node *)number;
    shard->name = pstrdup(CHANGE_SHARD);
    return lappend(lappend(targets, row), shard);
}

/* More columns than the user knows must not be seen: as a whole row, or by a star that is not the change's
 * own mention of the table. */
static bool hides_identity(struct survey *s)
{
    bool star = s->whole_rows, any = false, again = false;
    for (int i = 0; i < s->gather->ntables; i++) {
        any |= s->gather->tables[i].identified;
        again |= s->gather->tables[i].identified && s->demands[i].again;
    }
    if (!any)
        return false;
    s->made = lappend(s->made, makeString(pstrdup(CHANGE_ROW)));
    s->made = lappend(s->made, makeString(pstrdup(CHANGE_SHARD)));
    s->whole_rows = false;
    bool rows = uses_whole_rows(s);
    s->whole_rows = star;
    return (rows || (star && again)) && obstacle(s, "whole rows of a table that is changed");
}

static Node *source_select(const struct rewrite_gather_table *table, const struct demand *demand)
{
    SelectStmt *select = new_node(sizeof *select, T_SelectStmt);
    RangeVar *range = new_node(sizeof *range, T_RangeVar);
    if (table->all)
        select->targetList = list_make1(select_item(new_node(sizeof(A_Star), T_A_Star)));
    for (int i = 0; i < table->relation->ncolumns && !table->all; i++)
        if (table->used[i])
            select->targetList =
                lappend(select->targetList,
                        select_item((Node *)makeString(pstrdup(table->relation->columns[i].name))));
    if (table->identified)
        select->targetList = add_identity(table, select->targetList);
    range->schemaname = pstrdup(table->relation->schema);
    range->relname = pstrdup(table->relation->name);
    range->inh = !demand->only;
    range->relpersistence = 'p';
    range->location = -1;
    select->fromClause = list_make1(range);
    select->whereClause = demanded(demand);
    return (Node *)select;
}

/* sales.orders.id -> orders.id, for tables whose schema is taken off. */
static bool drop_schemas(Node *node, void *context)
{
    if (!node)
        return false;
    if (IsA(node, ColumnRef)) {
        ColumnRef *column = (ColumnRef *)node;
        if (list_length(column->fields) == 3)
            column->fields = list_make2(lsecond(column->fields), lthird(column->fields));
        return false;
    }
    return pgtree_children(node, drop_schemas, context);
}

static const char *quoted(struct arena *arena, const char *name)
{
    char *out = arena_alloc(arena, 2 * strlen(name) + 3), *to = out;
    *to++ = '"';
    for (; *name; name++) {
        if (*name == '"')
            *to++ = '"';
        *to++ = *name;
    }
    *to++ = '"';
    *to = '\0';
    return out;
}

/* A table's columns are what a statement needs rights for, whether it reads a row or not. */
static const char *probe(const struct rewrite_gather_table *table, struct arena *arena)
{
    const struct schema_relation *relation = table->relation;
    const char *columns = "";
    for (int i = 0; i < relation->ncolumns; i++)
        if (table->used[i])
            columns = arena_printf(arena, "%s%s%s", columns, *columns ? ", " : "",
                                   quoted(arena, relation->columns[i].name));
    return arena_printf(arena, "SELECT FROM (SELECT %s FROM %s.%s LIMIT 0) AS pgshunt_probe",
                        columns, quoted(arena, relation->schema), quoted(arena, relation->name));
}

static void take_off_schemas(struct survey *s, Node *query)
{
    for (int i = 0; i < list_length(s->qualified); i++) {
        RangeVar *range = list_nth(s->qualified, i);
        const char *name = s->gather->tables[gather_find_table(s, range)].name;
        if (name && !range->alias) {
            range->alias = new_node(sizeof *range->alias, T_Alias);
            range->alias->aliasname = range->relname;
        }
        if (name)
            range->relname = pstrdup(name);
        range->schemaname = pstrdup("pg_temp");
    }
    drop_schemas(query, NULL);
}

/* A tree, and where its text goes. */
struct text {
    Node *tree;
    struct shard_query *to;
};

static bool write_texts(struct rewriting *r, const struct text *texts, int count,
                        struct arena *arena)
{
    PgQueryProtobuf *packed = palloc0(sizeof *packed * (size_t)(count + 1));
    bool ok = true;
    for (int i = 0; i < count; i++) {
        r->statement = texts[i].tree;
        packed[i] = rewrite_pack(r);
    }
    for (int i = 0; i < count; i++) {
        r->statement = texts[i].tree;
        ((RawStmt *)linitial(r->parsed.tree))->stmt = texts[i].tree;
        ok &= rewrite_text(r, packed[i], arena, texts[i].to);
    }
    return ok;
}

static bool find_obstacles(struct survey *s)
{
    for (int i = 0; i < list_length(s->names); i++)
        if (names_system_column(strVal(list_nth(s->names, i))))
            obstacle(s, "a system column");
    for (int i = 0; i < s->gather->ntables; i++)
        if (!s->demands[i].mentioned)
            obstacle(s, "a table in such a place");
    for (int i = 0; i < s->gather->ntables; i++)
        if (s->demands[i].only && s->demands[i].all)
            obstacle(s, "a table with and without ONLY");
    return s->gather->obstacle != NULL;
}

static bool is_answered_at_home(const Node *statement)
{
    return IsA(statement, SelectStmt) || IsA(statement, InsertStmt) || IsA(statement, UpdateStmt) ||
           IsA(statement, DeleteStmt);
}

bool rewrite_gather(const char *text, struct rewrite_gather *gather, struct arena *arena,
                    struct shard_query *out)
{
    struct rewriting r;
    rewrite_open(&r, text);
    if (!r.statement || !is_answered_at_home(r.statement))
        return rewrite_abandon(&r);
    struct survey s = {.gather = gather};
    s.demands = palloc0(sizeof *s.demands * (size_t)(gather->ntables + 1));
    survey_node(r.statement, &s);
    if (find_obstacles(&s) || hides_identity(&s))
        return rewrite_abandon(&r);
    demand_node(r.statement, &s);
    if (gather->obstacle)
        return rewrite_abandon(&r);
    bool all = uses_whole_rows(&s), changes = s.qualified != NIL;
    Node **rows;
    reduce_find(&s, r.statement, arena, &rows);
    struct text *texts = palloc0(sizeof *texts * (size_t)(gather->ntables + gather->nedges + 1));
    int count = 0;
    for (int i = 0; i < gather->ntables; i++) {
        choose_columns(&s, &gather->tables[i], all);
        gather->tables[i].probe = probe(&gather->tables[i], arena);
        gather->tables[i].mentions = list_length(s.demands[i].mentions);
        texts[count++] = (struct text){source_select(&gather->tables[i], &s.demands[i]),
                                       &gather->tables[i].source};
    }
    for (int i = 0; i < gather->nedges; i++)
        if (rows[i])
            texts[count++] = (struct text){rows[i], &gather->edges[i].rows};
    *out = (struct shard_query){.sql = text};
    if (changes) {
        take_off_schemas(&s, r.statement);
        texts[count++] = (struct text){r.statement, out};
    }
    bool ok = write_texts(&r, texts, count, arena);
    rewrite_abandon(&r);
    return ok;
}
