/* plan_group.c: aggregates and GROUP BY from the partial results of several shards. */
#include "router/plan_internal.h"

/* ---- aggregates ---- */

static bool is_aggregate(const struct expr *expr, void *context)
{
    if (expr->kind == EXPR_OTHER && same_name(expr->name, "GROUPING"))
        return true;
    return expr->kind == EXPR_FUNC && !expr->call->over &&
           function_class(context, expr) == FUNCTION_AGGREGATE;
}

/* A call that may be somebody's own aggregate, or newer syntax that may be one. */
static bool is_unsure(const struct expr *expr, void *context)
{
    if (expr->kind == EXPR_OTHER && same_name(expr->name, "EXPRESSION"))
        return true;
    return expr->kind == EXPR_FUNC && function_class(context, expr) == FUNCTION_UNSURE;
}

static bool is_sublink(const struct expr *expr, void *context)
{
    (void)context;
    return expr->kind == EXPR_SUBLINK;
}

bool select_has_aggregate(const struct select_plan *s, const struct expr *expr)
{
    return expr_any(expr, is_aggregate, s->p);
}

bool select_partial(const struct expr *expr, enum aggregate_kind *kind)
{
    static const struct {
        const char *name;
        enum aggregate_kind kind;
    } partials[] = {{"count", AGGREGATE_COUNT},
                    {"sum", AGGREGATE_SUM},
                    {"min", AGGREGATE_MIN},
                    {"max", AGGREGATE_MAX},
                    {"avg", AGGREGATE_AVG}};
    if (expr->kind != EXPR_FUNC || (expr->qualifier && !same_name(expr->qualifier, "pg_catalog")))
        return false;
    const struct call_detail *call = expr->call;
    if (call->over || call->within_group || call->variadic || call->norder_by)
        return false;
    if (expr->nargs > 1 || (expr->nargs == 0 && !call->star))
        return false;
    for (size_t i = 0; i < sizeof partials / sizeof partials[0]; i++) {
        if (!same_name(partials[i].name, expr->name))
            continue;
        *kind = partials[i].kind;
        /* Equal values on two shards are one value: only the extremes do not mind. */
        return !call->distinct || *kind == AGGREGATE_MIN || *kind == AGGREGATE_MAX;
    }
    return false;
}

/* ---- columns ---- */

static bool refuse_aggregate(struct select_plan *s, const struct expr *expr)
{
    if (expr->kind != EXPR_FUNC || function_class(s->p, expr) != FUNCTION_AGGREGATE)
        plan_refuse_shape(s->p, "an expression around an aggregate over several shards");
    else if (expr->call->distinct)
        plan_refuse_shape(s->p, "%s(DISTINCT ...) over several shards", expr->name);
    else
        plan_refuse_shape(s->p, "aggregate %s over several shards", expr->name);
    return false;
}

/* One result column: an aggregate, or a value that is the same all over its group. */
static bool group_column(struct select_plan *s, const struct expr *expr, int index, bool in_order,
                         struct merge_column *column)
{
    if (select_partial(expr, &column->aggregate)) {
        if (column->aggregate == AGGREGATE_MIN || column->aggregate == AGGREGATE_MAX)
            return select_collation(s, expr->args[0]);
        if (column->aggregate != AGGREGATE_AVG)
            return true;
        if (!select_type(s, expr->args[0], TYPE_AVERAGED))
            return false;
        int sum = select_add_column(s, in_order ? REWRITE_SORT_SUM : REWRITE_SUM, index);
        int count = select_add_column(s, in_order ? REWRITE_SORT_COUNT : REWRITE_COUNT, index);
        column->sum_column = s->spec->visible + sum;
        column->count_column = s->spec->visible + count;
        return sum >= 0 && count >= 0;
    }
    column->aggregate = AGGREGATE_NONE;
    if (select_has_aggregate(s, expr))
        return refuse_aggregate(s, expr);
    if (expr_any(expr, is_unsure, s->p)) {
        plan_refuse_shape(s->p, "a function that may be an aggregate, over several shards,");
        return false;
    }
    if (expr_any(expr, is_sublink, NULL)) {
        plan_refuse_shape(s->p,
                          "a subquery in the select list of a grouped query over several shards");
        return false;
    }
    return true;
}

static bool group_columns(struct select_plan *s)
{
    const struct query *q = s->query;
    s->spec->columns =
        arena_array(s->p->arena, struct merge_column, q->ntargets + SELECT_MAX_COLUMNS);
    s->spec->ncolumns = q->ntargets;
    for (int i = 0; i < q->ntargets; i++)
        if (!group_column(s, q->targets[i].expr, i, false, &s->spec->columns[i]))
            return false;
    return true;
}

/* ---- GROUP BY ---- */

/*
 * A plain name in GROUP BY is that of a table's column if there is one, else of a select list item.
 * -1: a column that is not in the select list; -2: refused.
 */
static int named_group(struct select_plan *s, const struct expr *expr)
{
    int same = select_same_target(s, expr);
    if (same >= 0)
        return same;
    int named = select_named_target(s, expr->name);
    if (named == -1)
        return -1;
    const struct expr *target = named >= 0 ? s->query->targets[named].expr : NULL;
    if (target && target->kind == EXPR_COLUMN && same_name(target->name, expr->name))
        return named; /* u.region AS region, or region itself */
    int column = scope_has_column(s->p, s->query, expr->name);
    if (column > 0)
        return -1;
    if (column == 0 && named >= 0)
        return named;
    if (!s->p->schema && s->p->may_wait)
        s->p->plan->needs_schema = SCHEMA_FRESH;
    plan_refuse(
        s->p, "Group by the position in the select list, or by the expression itself.",
        "GROUP BY \"%s\" over several shards: it may be a column or a name of the select list",
        expr->name);
    return -2;
}

/* Column of the shards' result that holds the group key, or -1: refused. */
static int group_key(struct select_plan *s, int index)
{
    const struct expr *expr = s->query->group_by[index];
    int column = -1;
    if (expr->kind == EXPR_CONST && expr->const_kind == CONST_INT) {
        s->server_judges |= expr->number < 1 || expr->number > s->query->ntargets;
        return s->server_judges ? 0 : (int)expr->number - 1;
    }
    if (expr->kind == EXPR_COLUMN && !expr->qualifier)
        column = named_group(s, expr);
    else
        column = select_same_target(s, expr);
    if (column == -2)
        return -1;
    if (column >= 0)
        return column;
    int hidden = select_add_column(s, REWRITE_GROUP, index);
    return hidden < 0 ? -1 : s->spec->visible + hidden;
}

static bool group_keys(struct select_plan *s)
{
    const struct query *q = s->query;
    int *keys = arena_array(s->p->arena, int, q->ngroup_by);
    for (int i = 0; i < q->ngroup_by; i++) {
        keys[i] = group_key(s, i);
        if (keys[i] < 0)
            return false;
        const struct expr *key = keys[i] < q->ntargets ? q->targets[keys[i]].expr : q->group_by[i];
        if (!select_equal(s, key))
            return false;
    }
    s->spec->group_keys = keys;
    s->spec->ngroup_keys = q->ngroup_by;
    return true;
}

/* ---- ORDER BY of groups ---- */

static int hidden_group(const struct select_plan *s, const struct expr *expr)
{
    for (int i = 0; i < s->ncolumns; i++)
        if (s->columns[i].source == REWRITE_GROUP &&
            expr_same(s->query->group_by[s->columns[i].index], expr))
            return s->spec->visible + i;
    return -1;
}

/* An aggregate, or a value of the group, that is only there to sort by. */
static int hidden_order(struct select_plan *s, int index)
{
    const struct expr *expr = s->query->order_by[index].expr;
    int hidden = select_add_column(s, REWRITE_SORT, index);
    if (hidden < 0)
        return -1;
    int column = s->spec->visible + hidden;
    struct merge_column added = {0};
    if (!group_column(s, expr, index, true, &added))
        return -1;
    /* Columns in between (sums and counts, group keys) are the same all over a group, or not shown. */
    s->spec->columns[column] = added;
    if (s->spec->ncolumns <= column)
        s->spec->ncolumns = column + 1;
    return column;
}

/* Column of the shards' result to sort the groups by, or -1: refused. */
static int group_order(struct select_plan *s, int index)
{
    const struct expr *expr = s->query->order_by[index].expr;
    if (expr->kind == EXPR_CONST && expr->const_kind == CONST_INT) {
        s->server_judges |= expr->number < 1 || expr->number > s->query->ntargets;
        return s->server_judges ? 0 : (int)expr->number - 1;
    }
    if (expr->kind == EXPR_COLUMN && !expr->qualifier) {
        int named = select_named_target(s, expr->name);
        s->server_judges |= named == -2;
        if (named != -1)
            return named < 0 ? 0 : named;
    }
    int same = select_same_target(s, expr);
    if (same < 0)
        same = hidden_group(s, expr);
    return same >= 0 ? same : hidden_order(s, index);
}

static bool group_orders(struct select_plan *s)
{
    const struct query *q = s->query;
    struct merge_spec *spec = s->spec;
    spec->sort = arena_array(s->p->arena, struct merge_sort_key, q->norder_by);
    for (int i = 0; i < q->norder_by; i++) {
        const struct sort_item *item = &q->order_by[i];
        if (item->using_op) {
            plan_refuse_shape(s->p, "ORDER BY ... USING over several shards");
            return false;
        }
        struct merge_sort_key *key = &spec->sort[spec->nsort++];
        key->descending = item->descending;
        key->nulls_first = item->nulls_first;
        key->column = group_order(s, i);
        if (key->column < 0)
            return false;
        const struct expr *sorted =
            key->column < q->ntargets ? q->targets[key->column].expr : item->expr;
        if (!select_collation(s, sorted))
            return false;
    }
    return true;
}

bool select_group(struct select_plan *s)
{
    const struct query *q = s->query;
    s->spec->group = true;
    if (s->star >= 0) {
        plan_refuse_shape(s->p, "SELECT * with GROUP BY over several shards");
        return false;
    }
    if (q->distinct) {
        plan_refuse_shape(s->p, "DISTINCT together with aggregates over several shards");
        return false;
    }
    if (!group_columns(s) || !group_keys(s) || !group_orders(s))
        return false;
    s->drop_order = q->norder_by > 0;
    s->drop_limit = q->limit || q->offset;
    return true;
}
