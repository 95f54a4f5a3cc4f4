/* plan_select.c: SELECTs that several shards answer together, and how their rows become one result. */
#include "router/plan_internal.h"

/* ---- shapes that cannot be put together ---- */

/* Why the query cannot be answered shard by shard whatever its groups are, or NULL. */
static const char *wrong_shape(const struct query *q)
{
    if (q->nctes)
        return "WITH over several shards";
    if (q->locking && (q->limit || q->offset))
        return "FOR UPDATE or FOR SHARE with LIMIT over several shards";
    if (q->windows)
        return "A window function over several shards";
    if (q->grouping_sets)
        return "GROUPING SETS, ROLLUP or CUBE over several shards";
    if (q->ndistinct_on)
        return "DISTINCT ON over several shards";
    if (q->with_ties)
        return "FETCH ... WITH TIES over several shards";
    return NULL;
}

static bool is_refused_shape(struct planner *p, const struct query *q)
{
    if (q->ntargets > PLAN_MAX_ITEMS || q->norder_by > PLAN_MAX_ITEMS ||
        q->ngroup_by > PLAN_MAX_ITEMS) {
        plan_refuse_state(p, "54001", plan_key_hint(p),
                          "a select list, ORDER BY or GROUP BY of more than %d items over several "
                          "shards",
                          PLAN_MAX_ITEMS);
        return true;
    }
    const char *apart = join_not_colocated(p);
    const char *shape = wrong_shape(q);
    if (!shape && q->locking && p->input->statement->kind == STMT_DECLARE_CURSOR)
        shape = "a cursor FOR UPDATE or FOR SHARE over several shards";
    if (shape)
        plan_refuse_shape(p, "%s", shape);
    else if (apart)
        plan_refuse_shape(p, "SELECT over several shards with %s", apart);
    return shape || apart;
}

/* ---- groups that live on one shard each ---- */

static bool is_key(const struct select_plan *s, const struct expr *expr)
{
    const struct query *q = s->query;
    if (expr->kind == EXPR_CONST && expr->const_kind == CONST_INT && expr->number >= 1 &&
        expr->number <= q->ntargets && (s->star < 0 || expr->number <= s->star))
        expr = q->targets[expr->number - 1].expr;
    int i = scope_resolve(s->p, &s->scope, expr);
    return i >= 0 && !s->p->instances[i].nullable;
}

/* Grouped by the shard key: no group has rows on two shards, and each shard's groups are final. */
static bool groups_are_local(const struct select_plan *s)
{
    for (int i = 0; i < s->query->ngroup_by; i++)
        if (is_key(s, s->query->group_by[i]))
            return true;
    return composite_grouped(s->p, &s->scope, s->query->group_by, s->query->ngroup_by);
}

static bool is_aggregated(const struct select_plan *s)
{
    const struct query *q = s->query;
    if (q->ngroup_by || q->having)
        return true;
    for (int i = 0; i < q->ntargets; i++)
        if (select_has_aggregate(s, q->targets[i].expr))
            return true;
    for (int i = 0; i < q->norder_by; i++)
        if (select_has_aggregate(s, q->order_by[i].expr))
            return true;
    return false;
}

/* ---- plain rows ---- */

/* A column that is not inside a call which may be an aggregate: without GROUP BY, proof of there being
 * no aggregates at all, for the server would refuse the mixture. */
static bool has_bare_column(const struct planner *p, const struct expr *expr)
{
    if (expr->kind == EXPR_COLUMN || expr->kind == EXPR_STAR)
        return true;
    if (expr->kind == EXPR_SUBLINK ||
        (expr->kind == EXPR_FUNC && function_class(p, expr) != FUNCTION_PLAIN))
        return false;
    for (int i = 0; i < expr->nargs; i++)
        if (has_bare_column(p, expr->args[i]))
            return true;
    return false;
}

static bool is_unsure(const struct expr *expr, void *context)
{
    if (expr->kind == EXPR_OTHER && same_name(expr->name, "EXPRESSION"))
        return true;
    return expr->kind == EXPR_FUNC && function_class(context, expr) == FUNCTION_UNSURE;
}

/* Whether some call could be an aggregate that somebody made. */
static bool may_be_aggregated(struct planner *p, const struct query *q)
{
    bool unsure = false;
    for (int i = 0; i < q->ntargets; i++) {
        if (has_bare_column(p, q->targets[i].expr))
            return false;
        unsure |= expr_any(q->targets[i].expr, is_unsure, p);
    }
    return unsure;
}

static bool select_rows(struct select_plan *s)
{
    s->spec->distinct = s->query->distinct;
    if (s->spec->distinct && !select_distinct(s))
        return false;
    return select_order(s) && select_limits(s);
}

/* ---- the plan ---- */

static void set_collation(struct select_plan *s)
{
    const struct schema *schema = s->p->schema;
    s->spec->collation_provider = 'c';
    if (s->sorts_c)
        s->spec->collate = "C";
    else if (schema && s->sorts_default) {
        s->spec->collate = schema_collate(schema);
        s->spec->collation_provider = schema_collation_provider(schema);
    }
}

static bool rewrite(struct select_plan *s, struct shard_query *out)
{
    out->sql = plan_text(s->p);
    out->params = NULL;
    if (!s->ncolumns && !s->drop_order && !s->drop_limit && !s->fold_offset)
        return true;
    struct rewrite_select change = {.columns = s->columns,
                                    .ncolumns = s->ncolumns,
                                    .drop_order = s->drop_order,
                                    .drop_limit = s->drop_limit,
                                    .fold_offset = s->fold_offset};
    return rewrite_select(out->sql, &change, s->p->arena, out);
}

static const char *scatter_reason(const struct select_plan *s, bool aggregated, bool local)
{
    if (local)
        return "groups by shard key, each on one shard";
    if (aggregated)
        return s->query->ngroup_by ? "partial groups of each shard"
                                   : "partial aggregates of each shard";
    return s->query->norder_by ? "no key pins it to one shard, sorted merge"
                               : "no key pins it to one shard";
}

static void finish(struct select_plan *s, const char *reason)
{
    struct planner *p = s->p;
    struct shard_query query = {0};
    if (s->server_judges) {
        plan_direct(p, plan_home(p), "the server will refuse it");
        return;
    }
    if (s->sorts_default && !p->schema) {
        p->plan->needs_schema = p->may_wait ? SCHEMA_FRESH : SCHEMA_ANY;
        plan_refuse_state(
            p, "57P03", "Try again in a moment.",
            "the database's collation is not known yet, so rows of several shards cannot "
            "be merged in order");
        return;
    }
    set_collation(s);
    if (!rewrite(s, &query)) {
        plan_refuse_shape(p, "this form of SELECT over several shards");
        return;
    }
    struct shard_set reach = plan_top_reach(p);
    plan_scatter(p, SCATTER_ROWS, &reach, &query);
    plan_split_lists(p, s->query);
    p->plan->merge = s->spec;
    p->plan->reason = reason;
}

static void init_select(struct select_plan *s, struct planner *p, const struct query *q)
{
    *s = (struct select_plan){.p = p, .query = q, .star = -1};
    s->scope.query = q;
    for (int i = 0; i < p->nlevels; i++)
        if (p->levels[i].place == LEVEL_TOP) {
            s->scope.level = i;
            s->scope.first = p->levels[i].first;
            s->scope.end = p->levels[i].end;
        }
    for (int i = q->ntargets - 1; i >= 0; i--)
        if (q->targets[i].expr->kind == EXPR_STAR)
            s->star = i;
    s->spec = arena_new(p->arena, struct merge_spec);
    s->spec->visible = s->star >= 0 ? -1 : q->ntargets;
    s->spec->limit = -1;
}

void plan_select(struct planner *p, const struct query *q)
{
    struct select_plan s;
    if (is_refused_shape(p, q))
        return;
    init_select(&s, p, q);
    bool aggregated = is_aggregated(&s), local = groups_are_local(&s);
    if (!aggregated && may_be_aggregated(p, q)) {
        plan_refuse_shape(p, "A function that may be an aggregate, over several shards,");
        return;
    }
    if (q->having && !local) {
        plan_refuse_shape(p, "HAVING over several shards");
        return;
    }
    bool grouped = aggregated && !local;
    bool ok = grouped ? select_group(&s) && select_limits(&s) : select_rows(&s);
    if (ok)
        finish(&s, scatter_reason(&s, aggregated, local));
}
