/*
 * plan_with.c: changes in WITH over several shards, and what is made of the rows they return.
 *
 *   WITH gone AS (DELETE FROM orders WHERE ... RETURNING *) SELECT count(*) FROM gone
 *   WITH gone AS (DELETE FROM users WHERE ... RETURNING id), also AS (DELETE FROM orders USING gone WHERE user_id =
 *   gone.id) UPDATE accounts SET ... FROM gone WHERE ...
 *
 * What a change returns on a shard are rows of its table there, so whatever names it is planned as if it named that
 * table; each shard then runs all parts together, and the rows are merged as those of the last one would be. Only where
 * each part is one that each shard can do by itself, and a SELECT needs nothing of other shards and can be run to its
 * end.
 */
#include "router/plan_internal.h"

struct parts {
    struct rewrite_with with;
    struct rewrite_cte ctes[REWRITE_MAX_CTES];
    struct shard_query texts[REWRITE_MAX_CTES + 1];
    struct plan plans[REWRITE_MAX_CTES + 1]; /* the last is the statement's own */
};

static bool may_be_with(const struct planner *p, const struct query *query)
{
    const struct route_session *session = p->input->session;
    unsigned in_the_way = FACT_LOCKING | FACT_INTO;
    bool fits =
        query->kind == QUERY_SELECT || query->kind == QUERY_UPDATE || query->kind == QUERY_DELETE;
    return fits && query->nctes && query->nctes <= REWRITE_MAX_CTES &&
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
        bool own = !change->nfrom ||
                   (e->qualifier &&
                    same_name(e->qualifier, change->relation->alias ? change->relation->alias
                                                                    : change->relation->name));
        if (!own || (e->kind != EXPR_STAR &&
                     (e->kind != EXPR_COLUMN || (alias && !same_name(alias, e->name)))))
            return false;
    }
    return change->nreturning > 0;
}

/* False: it is no change of a sharded table's rows. */
static bool take_cte(const struct planner *p, const struct cte *cte, struct rewrite_cte *taken)
{
    const struct query *change = cte->query;
    bool fits = change->kind == QUERY_INSERT || change->kind == QUERY_UPDATE ||
                change->kind == QUERY_DELETE;
    if (cte->recursive || cte->renamed || !fits || change->nctes)
        return false;
    const struct from_item *item = change->relation;
    const struct schema_relation *relation = plan_relation(p, item->schema, item->name);
    *taken = (struct rewrite_cte){.name = cte->name};
    if (!relation || plan_rule(p, item->schema, item->name)->class != TABLE_SHARDED ||
        (relation->kind != 'r' && relation->kind != 'p') || same_name(cte->name, relation->name))
        return false;
    if (returns_columns(change)) {
        taken->schema = relation->schema;
        taken->table = relation->name;
    }
    return taken->table || !cte->references;
}

/* What goes to one shard is a fan-out to that. */
static void take_direct(struct planner *p, const struct shard_query *part, struct plan *plan)
{
    plan->queries = arena_new(p->arena, struct shard_query);
    *plan->queries = (struct shard_query){.shard = plan->shard, .sql = part->sql};
    plan->nqueries = 1;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_WRITE;
}

/* A part as a statement of its own. False: it cannot be. */
static bool plan_part(struct planner *p, const struct shard_query *part, bool change,
                      struct plan *plan)
{
    struct statement_list list = statement_parse(part->sql, p->arena);
    *plan = (struct plan){.kind = PLAN_DIRECT, .node = NODE_CLASS_PRIMARY, .write = true};
    if (list.count != 1 || list.items[0]->kind != STMT_QUERY || !list.items[0]->query)
        return false;
    plan_inner_statement(p, list.items[0], plan_take_params(p, part), plan, false, NULL);
    if (plan->needs_schema > p->plan->needs_schema)
        p->plan->needs_schema = plan->needs_schema;
    if (change && plan->kind == PLAN_DIRECT && !plan->any_shard)
        take_direct(p, part, plan);
    for (int i = 0; plan->kind == PLAN_SCATTER && i < plan->nqueries; i++) {
        if (plan->queries[i].values)
            return false;
        plan_number_as_client(p, part, &plan->queries[i]);
    }
    return plan->kind == PLAN_SCATTER && !plan->needs_params;
}

/* All of its rows are wanted: a shard that was stopped would undo its change. */
static bool runs_to_the_end(const struct plan *last)
{
    const struct merge_spec *spec = last->merge;
    if (last->mode == SCATTER_WRITE)
        return !spec || !spec->row_source;
    return last->mode == SCATTER_ROWS && spec && spec->limit < 0 && !spec->limit_param &&
           !spec->offset && !spec->offset_param;
}

static const struct shard_query *query_of(const struct plan *plan, unsigned shard)
{
    for (int i = 0; i < plan->nqueries; i++)
        if (plan->queries[i].shard == shard)
            return &plan->queries[i];
    return NULL;
}

/* A SELECT of what a change returns and nothing else has no rows where that has none. */
static bool reads_only_changes(const struct planner *p, const struct query *query)
{
    if (query->kind != QUERY_SELECT || query->nfrom != 1 || query->from[0]->kind != FROM_TABLE ||
        query->from[0]->schema)
        return false;
    for (int i = 0; i < p->nlevels; i++)
        if (p->levels[i].place == LEVEL_SUBLINK)
            return false;
    for (int i = 0; i < query->nctes; i++)
        if (same_name(query->ctes[i].name, query->from[0]->name))
            return true;
    return false;
}

/* The parts that a shard has; the number of changes among them. */
static int parts_of(const struct parts *parts, unsigned shard, const struct shard_query **own)
{
    int changes = 0, count = parts->with.nctes;
    for (int i = 0; i <= count; i++) {
        own[i] = query_of(&parts->plans[i], shard);
        changes += i < count && own[i];
    }
    return changes;
}

/* Each shard's parts of all. False: one of them is somewhere else than the last. */
static bool join_parts(struct planner *p, const struct query *query, const struct parts *parts)
{
    unsigned nshards = shardmap_shards(p->map);
    struct shard_query *queries = arena_array(p->arena, struct shard_query, nshards);
    bool only = reads_only_changes(p, query);
    int count = 0;
    for (unsigned s = 0; s < nshards; s++) {
        const struct shard_query *own[REWRITE_MAX_CTES + 1];
        int changes = parts_of(parts, s, own);
        if (changes && !own[parts->with.nctes])
            return false;
        if (!own[parts->with.nctes] || (!changes && only))
            continue;
        if (!rewrite_with_whole(p->statement->text, &parts->with, own, p->arena, &queries[count]))
            return false;
        queries[count].shard = s;
        queries[count++].primary = true;
    }
    p->plan->queries = queries;
    p->plan->nqueries = count;
    return count > 0;
}

static bool plan_parts(struct planner *p, const struct query *query, struct parts *parts)
{
    int count = query->nctes;
    parts->with = (struct rewrite_with){parts->ctes, count};
    for (int i = 0; i < count; i++)
        if (!take_cte(p, &query->ctes[i], &parts->ctes[i]))
            return false;
    if (!rewrite_with_parts(p->statement->text, &parts->with, p->arena, parts->texts))
        return false;
    for (int i = 0; i < count; i++)
        if (!plan_part(p, &parts->texts[i], true, &parts->plans[i]) ||
            parts->plans[i].mode != SCATTER_WRITE)
            return false;
    return plan_part(p, &parts->texts[count], query->kind != QUERY_SELECT, &parts->plans[count]) &&
           runs_to_the_end(&parts->plans[count]) && join_parts(p, query, parts);
}

void plan_with(struct planner *p, const struct query *query)
{
    if (!may_be_with(p, query))
        return;
    struct parts *parts = arena_new(p->arena, struct parts);
    struct plan *plan = p->plan;
    if (!plan_parts(p, query, parts))
        return;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_WRITE;
    plan->merge = parts->plans[query->nctes].merge;
    plan->reason = query->nctes == 1
                       ? arena_printf(p->arena, "what %s returns is merged", parts->ctes[0].name)
                       : "changes of each shard's own rows";
    plan->error = (struct pg_error){0};
}
