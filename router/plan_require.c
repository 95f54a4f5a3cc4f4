/* plan_require.c: fan-outs without a key, where require_key has something against them. */
#include "router/plan_internal.h"

/* A table of which no condition says the key. The rows of an INSERT have theirs. */
static const struct instance *without_key(const struct planner *p)
{
    for (int i = 0; i < p->ninstances; i++) {
        const struct instance *instance = &p->instances[i];
        const struct query *query = p->levels[instance->level].query;
        bool inserted = instance->target && query->kind == QUERY_INSERT;
        if (!instance->keyed && !instance->derived && !inserted)
            return instance;
    }
    return NULL;
}

void plan_require_key(struct planner *p)
{
    const struct route_session *session = p->input->session;
    const struct statement *outer = p->input->statement;
    if (!session || session->require_key == REQUIRE_KEY_OFF || p->plan->kind != PLAN_SCATTER ||
        p->plan->mode == SCATTER_UTILITY || p->keyed)
        return;
    const struct instance *instance = without_key(p);
    if (!instance)
        return;
    struct pg_error *keyless = arena_new(p->arena, struct pg_error);
    bool forbidden = session->require_key == REQUIRE_KEY_ERROR;
    *keyless = (struct pg_error){
        .severity = forbidden ? NULL : "WARNING",
        .sqlstate = forbidden ? "42501" : "01000",
        .message = arena_printf(p->arena, "%s on several shards without a key of table \"%s\"%s",
                                p->statement->tag, instance->rule->name,
                                forbidden ? " is not allowed: require_key is \"error\"" : ""),
        .hint = plan_key_hint(p)};
    p->plan->keyless = keyless;
    if (forbidden && (outer->kind != STMT_EXPLAIN || outer->explain_analyze))
        plan_refuse_state(p, keyless->sqlstate, keyless->hint, "%s", keyless->message);
}
