/*
 * parse_query.c: one query level after another: SELECT, VALUES, set operations, INSERT, UPDATE, DELETE
 * and MERGE, with their CTEs and FROM items, into struct query.
 */
#include "router/parse_internal.h"

#include <string.h>

/* Finding a name among them is linear; more than this is nobody's query. */
#define MAX_CTES_IN_SCOPE 1000

bool parse_is_query(const Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_SelectStmt:
    case T_InsertStmt:
    case T_UpdateStmt:
    case T_DeleteStmt:
    case T_MergeStmt:
        return true;
    default:
        return false;
    }
}

/* ---- relations ---- */

/* Whether it is a reference to a CTE, which is counted then. */
static bool count_cte(const struct convert *c, const RangeVar *range)
{
    if (range->schemaname)
        return false;
    for (const struct cte_scope *scope = c->scope; scope; scope = scope->outer) {
        for (int i = 0; i < scope->visible; i++) {
            if (!strcmp(scope->ctes[i].name, range->relname)) {
                scope->ctes[i].references++;
                return true;
            }
        }
    }
    return false;
}

void parse_note_relation(struct convert *c, const char *schema, const char *name, bool written)
{
    struct statement *statement = c->statement;
    statement->relations = parse_grow(c->arena, statement->relations, statement->nrelations,
                                      sizeof *statement->relations);
    statement->relations[statement->nrelations++] =
        (struct relation_ref){.schema = schema, .name = name, .written = written};
}

void parse_note_range(struct convert *c, const RangeVar *range, bool written)
{
    parse_note_relation(c, parse_copy(c, range->schemaname), parse_copy(c, range->relname),
                        written);
}

/* ---- FROM ---- */

static struct from_item *parse_from(struct convert *c, Node *node);

static struct from_item *new_from(struct convert *c, enum from_kind kind, int location)
{
    struct from_item *item = arena_new(c->arena, struct from_item);
    item->kind = kind;
    item->location = parse_location(c, location);
    return item;
}

/* Renamed columns make the names inside mean something else: such an item is not seen through. */
static void set_alias(struct convert *c, struct from_item *item, const Alias *alias)
{
    if (!alias)
        return;
    item->alias = parse_copy(c, alias->aliasname);
    item->ncolumns = list_length(alias->colnames);
    if (!item->ncolumns)
        return;
    item->kind = FROM_OTHER;
    item->columns = arena_array(c->arena, const char *, item->ncolumns);
    for (int i = 0; i < item->ncolumns; i++)
        item->columns[i] = parse_copy(c, strVal(list_nth(alias->colnames, i)));
}

static struct from_item *from_table(struct convert *c, const RangeVar *range)
{
    struct from_item *item = new_from(c, FROM_TABLE, range->location);
    item->schema = parse_copy(c, range->schemaname);
    item->name = parse_copy(c, range->relname);
    set_alias(c, item, range->alias);
    return item;
}

static struct from_item *from_subquery(struct convert *c, const RangeSubselect *range)
{
    struct from_item *item = new_from(c, FROM_SUBQUERY, -1);
    item->lateral = range->lateral;
    c->statement->facts |= FACT_SUBQUERY;
    item->subquery = parse_query(c, range->subquery);
    set_alias(c, item, range->alias);
    return item;
}

static struct from_item *from_function(struct convert *c, const RangeFunction *range)
{
    struct from_item *item = new_from(c, FROM_FUNCTION, -1);
    item->lateral = range->lateral;
    for (int i = 0; i < list_length(range->functions); i++) {
        const List *pair = list_nth(range->functions, i); /* the call and its column definitions */
        struct expr *call = parse_expr(c, linitial(pair));
        if (i == 0)
            item->function = call;
    }
    if (item->function)
        item->location = item->function->location;
    if (range->alias) /* columns of a function have no names of their own to hide */
        item->alias = parse_copy(c, range->alias->aliasname);
    return item;
}

static enum join_kind join_kind(JoinType type)
{
    switch ((int)type) {
    case JOIN_LEFT:
        return JOIN_KIND_LEFT;
    case JOIN_RIGHT:
        return JOIN_KIND_RIGHT;
    case JOIN_FULL:
        return JOIN_KIND_FULL;
    default:
        return JOIN_KIND_INNER;
    }
}

static struct from_item *from_join(struct convert *c, const JoinExpr *join)
{
    struct from_item *item = new_from(c, FROM_JOIN, -1);
    item->join = join_kind(join->jointype);
    item->natural = join->isNatural;
    item->left = parse_from(c, join->larg);
    item->right = parse_from(c, join->rarg);
    item->on = parse_expr(c, join->quals);
    item->nusing = list_length(join->usingClause);
    if (item->nusing)
        item->using_columns = arena_array(c->arena, const char *, item->nusing);
    for (int i = 0; i < item->nusing; i++)
        item->using_columns[i] = parse_copy(c, strVal(list_nth(join->usingClause, i)));
    set_alias(c, item, join->alias);
    return item;
}

static struct from_item *from_sample(struct convert *c, const RangeTableSample *sample)
{
    struct from_item *item = new_from(c, FROM_OTHER, sample->location);
    item->left = parse_from(c, sample->relation);
    parse_discard(c, (Node *)sample->args);
    parse_discard(c, sample->repeatable);
    return item;
}

static struct from_item *convert_from(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_RangeVar:
        if (!count_cte(c, (RangeVar *)node))
            parse_note_range(c, (RangeVar *)node, false);
        return from_table(c, (RangeVar *)node);
    case T_RangeSubselect:
        return from_subquery(c, (RangeSubselect *)node);
    case T_RangeFunction:
        return from_function(c, (RangeFunction *)node);
    case T_JoinExpr:
        return from_join(c, (JoinExpr *)node);
    case T_RangeTableSample:
        return from_sample(c, (RangeTableSample *)node);
    default: { /* XMLTABLE, JSON_TABLE */
        struct from_item *item = new_from(c, FROM_OTHER, -1);
        item->function = parse_expr(c, node);
        return item;
    }
    }
}

static struct from_item *parse_from(struct convert *c, Node *node)
{
    if (!parse_enter(c))
        return new_from(c, FROM_OTHER, -1);
    struct from_item *item = convert_from(c, node);
    parse_leave(c);
    return item;
}

static void parse_from_list(struct convert *c, struct query *q, const List *list)
{
    q->nfrom = list_length(list);
    q->from = q->nfrom ? arena_array(c->arena, struct from_item *, q->nfrom) : NULL;
    for (int i = 0; i < q->nfrom; i++)
        q->from[i] = parse_from(c, list_nth(list, i));
}

/* ---- targets ---- */

/* Several columns assigned from one row: (a, b) = (1, 2), or = (SELECT ...). */
static struct expr *assigned_part(struct convert *c, const MultiAssignRef *ref)
{
    if (IsA(ref->source, RowExpr)) {
        const RowExpr *row = (const RowExpr *)ref->source;
        if (ref->colno <= list_length(row->args))
            return parse_expr(c, list_nth(row->args, ref->colno - 1));
    }
    struct expr *e = arena_new(c->arena, struct expr);
    e->kind = EXPR_OTHER;
    e->name = "COLUMN OF ROW";
    e->location = -1;
    if (ref->colno == 1) { /* the source hangs in the tree once, at the first column */
        e->args = arena_array(c->arena, struct expr *, 1);
        e->args[e->nargs++] = parse_expr(c, ref->source);
    }
    return e;
}

/* An assignment to a part of the column: SET a[1] = x, SET p.x = 1. */
static struct expr *partial_assignment(struct convert *c, struct expr *value, List *indirection)
{
    struct expr *e = arena_new(c->arena, struct expr);
    e->kind = EXPR_OTHER;
    e->name = "PART OF COLUMN";
    e->location = value ? value->location : -1;
    if (value) {
        e->args = parse_grow(c->arena, NULL, 0, sizeof *e->args);
        e->args[e->nargs++] = value;
    }
    parse_children(c, (Node *)indirection, e);
    return e;
}

static int parse_targets(struct convert *c, const List *list, struct target **out)
{
    int count = list_length(list);
    *out = count ? arena_array(c->arena, struct target, count) : NULL;
    for (int i = 0; i < count; i++) {
        const ResTarget *res = list_nth(list, i);
        struct target *target = &(*out)[i];
        target->alias = parse_copy(c, res->name);
        target->location = parse_location(c, res->location);
        if (res->val && IsA(res->val, MultiAssignRef))
            target->expr = assigned_part(c, (MultiAssignRef *)res->val);
        else
            target->expr = parse_expr(c, res->val);
        if (res->indirection)
            target->expr = partial_assignment(c, target->expr, res->indirection);
    }
    return count;
}

/* ---- WITH ---- */

static void parse_with(struct convert *c, struct query *q, const WithClause *with,
                       struct cte_scope *scope)
{
    int count = list_length(with->ctes);
    c->ctes_in_scope += count;
    if (c->ctes_in_scope > MAX_CTES_IN_SCOPE)
        c->failed = true;
    if (c->failed)
        return;
    q->ctes = arena_array(c->arena, struct cte, count);
    q->nctes = count;
    c->statement->facts |= FACT_SUBQUERY;
    for (int i = 0; i < count; i++) {
        const CommonTableExpr *from = list_nth(with->ctes, i);
        q->ctes[i].name = parse_copy(c, from->ctename);
        q->ctes[i].recursive = with->recursive;
        q->ctes[i].renamed = from->aliascolnames != NIL;
    }
    *scope = (struct cte_scope){.outer = c->scope, .ctes = q->ctes};
    c->scope = scope;
    for (int i = 0; i < count; i++) {
        const CommonTableExpr *from = list_nth(with->ctes, i);
        scope->visible = with->recursive ? count : i;
        q->ctes[i].query = parse_query(c, from->ctequery);
    }
    scope->visible = count;
}

/* ---- SELECT ---- */

static void parse_values(struct convert *c, struct query *q, const List *lists)
{
    q->kind = QUERY_VALUES;
    q->nrows = list_length(lists);
    q->rows = arena_array(c->arena, struct expr **, q->nrows);
    for (int i = 0; i < q->nrows; i++) {
        int width = parse_exprs(c, list_nth(lists, i), &q->rows[i]);
        if (i == 0)
            q->row_width = width;
        else if (width != q->row_width)
            c->failed = true; /* the server refuses it */
    }
}

static void parse_limits(struct convert *c, struct query *q, const SelectStmt *s)
{
    q->limit = parse_expr(c, s->limitCount);
    if (q->limit && q->limit->kind == EXPR_CONST && q->limit->const_kind == CONST_NULL)
        q->limit = NULL; /* LIMIT ALL */
    q->offset = parse_expr(c, s->limitOffset);
    q->with_ties = pgtree_with_ties(s);
}

static void parse_distinct(struct convert *c, struct query *q, const List *clause)
{
    if (!clause)
        return;
    if (linitial(clause) == NULL)
        q->distinct = true;
    else
        q->ndistinct_on = parse_exprs(c, clause, &q->distinct_on);
}

static void parse_group_by(struct convert *c, struct query *q, const SelectStmt *s)
{
    q->ngroup_by = parse_exprs(c, s->groupClause, &q->group_by);
    for (int i = 0; i < q->ngroup_by; i++) {
        if (IsA(list_nth(s->groupClause, i), GroupingSet))
            q->grouping_sets = true;
    }
    q->having = parse_expr(c, s->havingClause);
}

/* Leftmost known byte of an expression, subqueries not looked into. */
static int leftmost(const struct expr *e)
{
    int least = e->location;
    for (int i = 0; i < e->nargs; i++) {
        int location = e->args[i] ? leftmost(e->args[i]) : -1;
        if (location >= 0 && (least < 0 || location < least))
            least = location;
    }
    return least;
}

static void parse_where(struct convert *c, struct query *q, Node *where)
{
    q->where = parse_expr(c, where);
    q->where_location = q->where && !c->failed ? leftmost(q->where) : -1;
}

static const char *set_operation(const SelectStmt *s)
{
    switch ((int)s->op) {
    case SETOP_UNION:
        return s->all ? "UNION ALL" : "UNION";
    case SETOP_INTERSECT:
        return s->all ? "INTERSECT ALL" : "INTERSECT";
    default:
        return s->all ? "EXCEPT ALL" : "EXCEPT";
    }
}

static void parse_into(struct convert *c, struct query *q, const IntoClause *into)
{
    q->into = true;
    c->statement->facts |= FACT_INTO;
    c->statement->create_temp |= parse_is_temporary(into->rel);
    c->statement->create_unlogged |= into->rel->relpersistence == 'u';
    parse_note_range(c, into->rel, true);
}

static void parse_select_body(struct convert *c, struct query *q, const SelectStmt *s)
{
    q->kind = QUERY_SELECT;
    q->ntargets = parse_targets(c, s->targetList, &q->targets);
    parse_from_list(c, q, s->fromClause);
    parse_where(c, q, s->whereClause);
    parse_group_by(c, q, s);
    parse_distinct(c, q, s->distinctClause);
    if (s->windowClause) {
        q->windows = true;
        parse_discard(c, (Node *)s->windowClause);
    }
    if (s->intoClause)
        parse_into(c, q, s->intoClause);
}

static void parse_select(struct convert *c, struct query *q, const SelectStmt *s)
{
    if (s->op != SETOP_NONE) {
        q->kind = QUERY_SETOP;
        q->setop = set_operation(s);
        q->left = parse_query(c, (Node *)s->larg);
        q->right = parse_query(c, (Node *)s->rarg);
    } else if (s->valuesLists) {
        parse_values(c, q, s->valuesLists);
    } else {
        parse_select_body(c, q, s);
    }
    q->norder_by = parse_sort(c, s->sortClause, &q->order_by);
    parse_limits(c, q, s);
    if (s->lockingClause) {
        q->locking = true;
        c->statement->facts |= FACT_LOCKING;
    }
}

/* ---- changes ---- */

static void parse_target_table(struct convert *c, struct query *q, const RangeVar *range)
{
    q->relation = from_table(c, range);
    parse_note_range(c, range, true);
    if (c->query_depth > 1)
        c->statement->facts |= FACT_MODIFYING_CTE;
}

static void parse_on_conflict(struct convert *c, struct query *q, const OnConflictClause *conflict)
{
    q->on_conflict = true;
    q->on_conflict_update = conflict->action == ONCONFLICT_UPDATE;
    q->nconflict_set = parse_targets(c, conflict->targetList, &q->conflict_set);
    parse_discard(c, conflict->whereClause);
    if (!conflict->infer)
        return;
    parse_discard(c, conflict->infer->whereClause);
    for (int i = 0; i < list_length(conflict->infer->indexElems); i++) {
        const IndexElem *element = list_nth(conflict->infer->indexElems, i);
        parse_discard(c, element->expr);
    }
}

static void parse_insert(struct convert *c, struct query *q, const InsertStmt *s)
{
    q->kind = QUERY_INSERT;
    parse_target_table(c, q, s->relation);
    q->ntargets = parse_targets(c, s->cols, &q->targets);
    q->overriding_user = s->override == OVERRIDING_USER_VALUE;
    if (s->selectStmt)
        q->source = parse_query(c, s->selectStmt);
    if (s->onConflictClause)
        parse_on_conflict(c, q, s->onConflictClause);
    q->nreturning = parse_targets(c, s->returningList, &q->returning);
}

static void parse_update(struct convert *c, struct query *q, const UpdateStmt *s)
{
    q->kind = QUERY_UPDATE;
    parse_target_table(c, q, s->relation);
    q->ntargets = parse_targets(c, s->targetList, &q->targets);
    parse_from_list(c, q, s->fromClause);
    parse_where(c, q, s->whereClause);
    q->nreturning = parse_targets(c, s->returningList, &q->returning);
}

static void parse_delete(struct convert *c, struct query *q, const DeleteStmt *s)
{
    q->kind = QUERY_DELETE;
    parse_target_table(c, q, s->relation);
    parse_from_list(c, q, s->usingClause);
    parse_where(c, q, s->whereClause);
    q->nreturning = parse_targets(c, s->returningList, &q->returning);
}

/* What one WHEN assigns, added to the query's conflict_set. */
static void parse_merge_action(struct convert *c, struct query *q, const MergeWhenClause *when)
{
    struct target *targets;
    int count = parse_targets(c, when->targetList, &targets);
    parse_discard(c, when->condition);
    int nvalues = list_length(when->values);
    if (when->commandType == CMD_INSERT)
        q->nmerge_inserts++;
    for (int i = 0; i < count || i < nvalues; i++) {
        struct target target = {.location = -1};
        if (i < count)
            target = targets[i];
        if (i < nvalues)
            target.expr = parse_expr(c, list_nth(when->values, i));
        target.merge_insert = when->commandType == CMD_INSERT ? q->nmerge_inserts : 0;
        q->conflict_set =
            parse_grow(c->arena, q->conflict_set, q->nconflict_set, sizeof *q->conflict_set);
        q->conflict_set[q->nconflict_set++] = target;
    }
}

static void parse_merge(struct convert *c, struct query *q, const MergeStmt *s)
{
    q->kind = QUERY_MERGE;
    parse_target_table(c, q, s->relation);
    q->nfrom = 1;
    q->from = arena_array(c->arena, struct from_item *, 1);
    q->from[0] = parse_from(c, s->sourceRelation);
    parse_where(c, q, s->joinCondition);
    for (int i = 0; i < list_length(s->mergeWhenClauses); i++)
        parse_merge_action(c, q, list_nth(s->mergeWhenClauses, i));
#if PG_MAJORVERSION_NUM >= 17
    q->nreturning = parse_targets(c, s->returningList, &q->returning);
#endif
}

static const WithClause *with_clause(const Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_SelectStmt:
        return ((const SelectStmt *)node)->withClause;
    case T_InsertStmt:
        return ((const InsertStmt *)node)->withClause;
    case T_UpdateStmt:
        return ((const UpdateStmt *)node)->withClause;
    case T_DeleteStmt:
        return ((const DeleteStmt *)node)->withClause;
    default:
        return ((const MergeStmt *)node)->withClause;
    }
}

static void convert_query(struct convert *c, struct query *q, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_SelectStmt:
        parse_select(c, q, (SelectStmt *)node);
        break;
    case T_InsertStmt:
        parse_insert(c, q, (InsertStmt *)node);
        break;
    case T_UpdateStmt:
        parse_update(c, q, (UpdateStmt *)node);
        break;
    case T_DeleteStmt:
        parse_delete(c, q, (DeleteStmt *)node);
        break;
    default:
        parse_merge(c, q, (MergeStmt *)node);
        break;
    }
}

struct query *parse_query(struct convert *c, Node *node)
{
    struct query *q = arena_new(c->arena, struct query), *outer = c->query;
    const struct cte_scope *outer_scope = c->scope;
    int outer_ctes = c->ctes_in_scope;
    struct cte_scope scope;
    q->where_location = -1;
    if (!parse_enter(c))
        return q;
    if (!parse_is_query(node)) {
        c->failed = true;
        return q;
    }
    c->query = q;
    c->query_depth++;
    if (with_clause(node))
        parse_with(c, q, with_clause(node), &scope);
    convert_query(c, q, node);
    c->query_depth--;
    c->query = outer;
    c->scope = outer_scope;
    c->ctes_in_scope = outer_ctes;
    parse_leave(c);
    return q;
}
