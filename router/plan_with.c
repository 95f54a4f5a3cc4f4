/*
 * plan_with.c: a SELECT of what a change in its WITH returns, over several shards.
 *
 *   WITH gone AS (DELETE FROM orders WHERE ... RETURNING *) SELECT count(*) FROM gone
 *
 * What the change returns on a shard are rows of its table there, so the SELECT is planned as one of that table; each
 * shard then runs both together, and the rows are merged as those of the SELECT would be. Only where the change is one
 * that each shard can do by itself, and the SELECT needs nothing of other shards and can be run to its end.
 */
#include "router/plan_internal.h"

static bool may_be_with(const struct planner *p, const struct query *query)
{
    const struct route_session *session = p->input->session;
    unsigned in_the_way = FACT_LOCKING | FACT_INTO;
    return query->kind == QUERY_SELECT && query->nctes == 1 &&
           (p->statement->facts & FACT_MODIFYING_CTE) && !(p->statement->facts & in_the_way) &&
           p->schema && !p->view && !p->nreplace && !p->written && !p->failed && !p->keyed &&
           !p->too_many && !shardmap_has_ghosts(p->map) &&
           same_name(p->plan->error.sqlstate, "0A000") && !(session && session->temp_tables);
}

/* Its columns are those of the table, under their own names. */
static bool returns_columns(const struct query *change)
{
    for (int i = 0; i < change->nreturning; i++) {
        const struct expr *e = change->returning[i].expr;
        const char *alias = change->returning[i].alias;
        if (e->kind != EXPR_STAR &&
            (e->kind != EXPR_COLUMN || (alias && !same_name(alias, e->name))))
            return false;
    }
    return change->nreturning > 0;
}

/* The table that a change of its own rows alone is of; NULL: it is another. */
static const struct schema_relation *changed_table(const struct planner *p, const struct cte *cte)
{
    const struct query *change = cte->query;
    bool fits = change->kind == QUERY_INSERT || change->kind == QUERY_UPDATE ||
                change->kind == QUERY_DELETE;
    if (cte->recursive || cte->renamed || !fits || change->nctes || change->nfrom ||
        !returns_columns(change))
        return NULL;
    const struct from_item *item = change->relation;
    const struct schema_relation *relation = plan_relation(p, item->schema, item->name);
    bool sharded = plan_rule(p, item->schema, item->name)->class == TABLE_SHARDED;
    return sharded && relation && (relation->kind == 'r' || relation->kind == 'p') ? relation
                                                                                   : NULL;
}

/* A part as a statement of its own. False: it cannot be. */
static bool plan_part(struct planner *p, const struct shard_query *part, struct plan *plan)
{
    struct statement_list list = statement_parse(part->sql, p->arena);
    *plan = (struct plan){.kind = PLAN_DIRECT, .node = NODE_CLASS_PRIMARY, .write = true};
    if (list.count != 1 || list.items[0]->kind != STMT_QUERY || !list.items[0]->query)
        return false;
    plan_inner_statement(p, list.items[0], plan_take_params(p, part), plan, false, NULL);
    if (plan->needs_schema > p->plan->needs_schema)
        p->plan->needs_schema = plan->needs_schema;
    for (int i = 0; plan->kind == PLAN_SCATTER && i < plan->nqueries; i++) {
        if (plan->queries[i].values)
            return false;
        plan_number_as_client(p, part, &plan->queries[i]);
    }
    return plan->kind == PLAN_SCATTER && !plan->needs_params;
}

/* All of its rows are wanted: a shard that was stopped would undo its change. */
static bool runs_to_the_end(const struct plan *select)
{
    const struct merge_spec *spec = select->merge;
    return select->mode == SCATTER_ROWS && spec && spec->limit < 0 && !spec->limit_param &&
           !spec->offset && !spec->offset_param;
}

static const struct shard_query *query_of(const struct plan *plan, unsigned shard)
{
    for (int i = 0; i < plan->nqueries; i++)
        if (plan->queries[i].shard == shard)
            return &plan->queries[i];
    return NULL;
}

/* Each shard's part of both. NULL: one of them is somewhere else. */
static struct shard_query *join_parts(struct planner *p, const struct rewrite_with *with,
                                      const struct plan *change, const struct plan *select)
{
    struct shard_query *queries = arena_array(p->arena, struct shard_query, change->nqueries);
    for (int i = 0; i < change->nqueries; i++) {
        const struct shard_query *one = &change->queries[i], *other = query_of(select, one->shard);
        if (!other ||
            !rewrite_with_whole(p->statement->text, with, one, other, p->arena, &queries[i]))
            return NULL;
        queries[i].shard = one->shard;
        queries[i].primary = true;
    }
    return queries;
}

void plan_with(struct planner *p, const struct query *query)
{
    struct shard_query parts[2] = {{0}};
    struct plan change, select;
    if (!may_be_with(p, query))
        return;
    const struct schema_relation *table = changed_table(p, &query->ctes[0]);
    if (!table || same_name(query->ctes[0].name, table->name))
        return;
    struct rewrite_with with = {query->ctes[0].name, table->schema, table->name};
    if (!rewrite_with_parts(p->statement->text, &with, p->arena, &parts[0], &parts[1]) ||
        !plan_part(p, &parts[0], &change) || change.mode != SCATTER_WRITE ||
        !plan_part(p, &parts[1], &select) || !runs_to_the_end(&select))
        return;
    struct shard_query *queries = join_parts(p, &with, &change, &select);
    if (!queries)
        return;
    struct plan *plan = p->plan;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_WRITE;
    plan->queries = queries;
    plan->nqueries = change.nqueries;
    plan->merge = select.merge;
    plan->reason = arena_printf(p->arena, "what %s returns is merged", with.cte);
    plan->error = (struct pg_error){0};
}
