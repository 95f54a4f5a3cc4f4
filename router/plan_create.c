/*
 * plan_create.c: CREATE TABLE AS and SELECT INTO whose rows are on several shards, or not on the first.
 *
 * The rows that the query needs are gathered on the first shard, where the statement itself runs, so that types and
 * rows are what a server makes of it; the other shards get the same table without rows.
 */
#include "pgshunt/change.h"
#include "router/plan_internal.h"

/* Comes last, when the statement was refused. */
static bool may_create(const struct planner *p, const struct statement *outer)
{
    const struct route_session *session = p->input->session;
    return p->input->statement == outer && p->schema && !p->view && !p->keyed && !p->too_many &&
           same_name(p->plan->error.sqlstate, "0A000") && !(session && session->temp_tables);
}

const struct statement *plan_as_create(struct planner *p, const struct statement *outer)
{
    struct shard_query text = {0};
    if (outer->inner->location > outer->location)
        return outer;
    if (outer->max_param || !rewrite_create_as(outer->text, p->arena, &text))
        return NULL;
    struct statement_list list = statement_parse(text.sql, p->arena);
    const struct statement *create = list.count == 1 ? list.items[0] : NULL;
    return create && create->kind == STMT_CREATE_TABLE_AS && create->inner &&
                   create->inner->query && create->inner->location > create->location
               ? create
               : NULL;
}

void plan_fill_create(struct planner *p, const struct statement *create,
                      const struct shard_query *query, struct shard_query *filled)
{
    const struct statement *inner = create->inner;
    int before = inner->location - create->location;
    *filled = *query;
    filled->sql = arena_printf(p->arena, "%.*s%s%s", before, create->text, query->sql,
                               create->text + before + inner->length);
}

static const struct gather_plan *gather(struct planner *p, const struct statement *inner)
{
    struct plan plan = {.kind = PLAN_DIRECT, .node = NODE_CLASS_PRIMARY, .write = true};
    plan_inner_statement(p, inner, p->input->params, &plan, true, NULL);
    if (plan.needs_schema > p->plan->needs_schema)
        p->plan->needs_schema = plan.needs_schema;
    if (plan.needs_params) {
        plan_direct(p, 0, "shard key parameter not bound yet");
        p->plan->needs_params = true;
        return NULL;
    }
    if (plan.kind == PLAN_REFUSE) {
        p->plan->error = plan.error;
        p->plan->reason = plan.reason;
    }
    bool gathered = plan.kind == PLAN_SCATTER && plan.mode == SCATTER_GATHER && plan.shard == 0;
    return gathered ? plan.gather : NULL;
}

static void take_all_shards(struct planner *p)
{
    unsigned nshards = shardmap_shards(p->map);
    struct plan *plan = p->plan;
    plan->queries = arena_array(p->arena, struct shard_query, nshards);
    plan->nqueries = 0;
    for (unsigned s = 0; s < nshards; s++)
        plan->queries[plan->nqueries++] =
            (struct shard_query){.shard = s, .sql = p->statement->text, .primary = true};
}

void plan_create_gathered(struct planner *p)
{
    const struct statement *outer = p->statement;
    const char *why = p->plan->error.message;
    if (!may_create(p, outer))
        return;
    const struct statement *create = plan_as_create(p, outer);
    const struct gather_plan *rows = create ? gather(p, create->inner) : NULL;
    if (!rows)
        return;
    struct plan *plan = p->plan;
    struct change_plan *change = arena_new(p->arena, struct change_plan);
    struct change_create *creating = arena_new(p->arena, struct change_create);
    plan_fill_create(p, create, &rows->query, &creating->filled);
    if (!outer->create_temp && !rewrite_no_data(outer->text, p->arena, &creating->without))
        return;
    change->create = creating;
    change->verb = "SELECT";
    change->text = outer->text;
    change->gather = rows;
    plan->kind = PLAN_SCATTER;
    plan->mode = SCATTER_CHANGE;
    plan->shard = 0;
    plan->merge = NULL;
    plan->change = change;
    plan->reason = arena_printf(p->arena, "its rows are gathered: %s", why);
    plan->error = (struct pg_error){0};
    take_all_shards(p);
}
