/* plan_result.c: filling in the plan: direct, scattered or refused, with reasons in words. */
#include <stdarg.h>
#include <stdio.h>

#include "router/plan_internal.h"

#define HINT_SHARD "or name a shard with a comment: /* pgshunt: shard=... */"

unsigned plan_home(const struct planner *p)
{
    const struct route_session *session = p->input->session;
    if (session && session->in_transaction && session->transaction_shard >= 0 &&
        (unsigned)session->transaction_shard < shardmap_shards(p->map))
        return (unsigned)session->transaction_shard;
    return p->path_rule ? p->path_rule->shard : 0;
}

void plan_direct(struct planner *p, unsigned shard, const char *reason)
{
    p->plan->kind = PLAN_DIRECT;
    p->plan->shard = shard;
    p->plan->reason = reason;
}

void plan_refuse_failed(struct planner *p)
{
    p->plan->kind = PLAN_REFUSE;
    p->plan->error = *p->failed;
    p->plan->reason = p->failed->message;
}

static void set_refusal(struct planner *p, const char *sqlstate, const char *hint,
                        const char *message, va_list args) __attribute__((format(printf, 4, 0)));

static void set_refusal(struct planner *p, const char *sqlstate, const char *hint,
                        const char *message, va_list args)
{
    char text[512];
    vsnprintf(text, sizeof text, message, args);
    p->plan->kind = PLAN_REFUSE;
    p->plan->queries = NULL;
    p->plan->nqueries = 0;
    p->plan->merge = NULL;
    p->plan->error = (struct pg_error){
        .sqlstate = sqlstate, .message = arena_strdup(p->arena, text), .hint = hint};
    p->plan->reason = p->plan->error.message;
}

void plan_refuse_state(struct planner *p, const char *sqlstate, const char *hint,
                       const char *message, ...)
{
    va_list args;
    va_start(args, message);
    set_refusal(p, sqlstate, hint, message, args);
    va_end(args);
}

void plan_refuse(struct planner *p, const char *hint, const char *message, ...)
{
    va_list args;
    va_start(args, message);
    set_refusal(p, "0A000", hint, message, args);
    va_end(args);
}

const char *plan_key_hint(const struct planner *p)
{
    if (!p->ninstances)
        return "Name a shard with a comment: /* pgshunt: shard=... */";
    const struct instance *instance = &p->instances[0];
    if (plan_pinned(p))
        return "Query each schema in a statement of its own.";
    const char *name = instance->item->alias ? instance->item->alias : instance->item->name;
    if (instance->rule->nparts)
        return arena_printf(p->arena,
                            "Give \"%s\" all columns of its shard key (\"%s = ...\" and so on), so "
                            "that one shard answers, " HINT_SHARD,
                            name ? name : instance->rule->name, instance->rule->parts[0]);
    if (!*instance->rule->key)
        return arena_printf(p->arena,
                            "View \"%s\" does not show a shard key: query its tables, or name a "
                            "shard with a comment: /* pgshunt: shard=... */",
                            instance->rule->name);
    for (int i = 1; i < p->ninstances; i++)
        if (p->instances[i].set.kind == SHARDS_ALL && instance->set.kind != SHARDS_ALL)
            return arena_printf(
                p->arena,
                "Give \"%s\" its shard key too (add \"%s = ...\" to its condition), so "
                "that one shard answers, " HINT_SHARD,
                p->instances[i].rule->name, p->instances[i].rule->key);
    return arena_printf(
        p->arena, "Add \"%s.%s = ...\" to the condition, so that one shard answers, " HINT_SHARD,
        name ? name : instance->rule->name, instance->rule->key);
}

void plan_refuse_shape(struct planner *p, const char *message, ...)
{
    char shape[400];
    va_list args;
    va_start(args, message);
    vsnprintf(shape, sizeof shape, message, args);
    va_end(args);
    plan_refuse(p, plan_key_hint(p), "%s is not supported yet", shape);
}

const char *plan_text(const struct planner *p)
{
    return p->written ? p->written->text : p->statement->text;
}

void plan_scatter(struct planner *p, enum scatter_mode mode, const struct shard_set *set,
                  const struct shard_query *same)
{
    struct plan *plan = p->plan;
    unsigned nshards = shardmap_shards(p->map);
    plan->kind = PLAN_SCATTER;
    plan->mode = mode;
    plan->nqueries = 0;
    plan->queries = arena_array(p->arena, struct shard_query, shards_count(set, nshards));
    for (unsigned s = 0; s < nshards; s++) {
        if (!shards_contain(set, s))
            continue;
        struct shard_query *query = &plan->queries[plan->nqueries++];
        if (same)
            *query = *same;
        else
            query->sql = plan_text(p);
        query->shard = s;
    }
    if (mode != SCATTER_UTILITY && set->kind == SHARDS_ALL)
        plan_leave_out(p, NULL);
}

void plan_append_rows(struct planner *p, const struct query *query)
{
    if (!query->nreturning)
        return;
    struct merge_spec *spec = arena_new(p->arena, struct merge_spec);
    spec->visible = -1;
    spec->limit = -1;
    p->plan->merge = spec;
}
