/*
 * plan_lookup.c: conditions on columns of lookups: `email = 'x'` leaves the shards that have such a row.
 *
 * Which these are is for others to find out: the planner is given answers, and names in p->wants what it
 * has no answer for; such a condition leaves all shards. An answer pins exactly as a key does: of the
 * table's rows only those with the value matter, and they are where the answer says.
 */
#include "pgshunt/pgtypes.h"
#include "router/plan_internal.h"

#define MAX_ANCESTORS 64

/* One condition that is being looked at. */
struct looking {
    struct planner *p;
    struct instance *instance;
    const struct lookup_rule *lookup;
    struct shard_set *set;
    bool open;   /* some value has no answer yet */
    bool strict; /* see lookup_condition() */
};

/* ---- which lookup ---- */

static const struct lookup_rule *rule_of(const struct instance *instance, const char *column)
{
    const struct lookup_rule *lookup = instance->rule->lookups;
    while (lookup && !same_name(lookup->column, column))
        lookup = lookup->next;
    return lookup;
}

/* The table that was meant when the lookup was set up, or a partition of it: another table of this name
 * may have other rows. */
static bool is_its_table(const struct planner *p, const struct instance *instance)
{
    const struct table_rule *rule = instance->rule;
    const struct schema_relation *table = schema_relation_only(p->schema, rule->schema, rule->name);
    const struct schema_relation *at =
        schema_relation_only(p->schema, instance->item->schema, instance->item->name);
    for (int depth = 0; table && at && at != table && depth < MAX_ANCESTORS; depth++)
        at = at->parent ? schema_relation_only(p->schema, at->parent_schema, at->parent) : NULL;
    return table && at == table;
}

/* It was set up, on all shards: the first is the last to be. */
static bool is_ready(const struct planner *p, const struct lookup_rule *lookup)
{
    return schema_function(p->schema, "pgshunt", lookup->function) != VOLATILITY_UNKNOWN;
}

/* An unqualified name is that of the innermost table that has such a column. */
static bool names_instance(const struct planner *p, const struct scope *scope,
                           const struct instance *instance, const struct expr *column)
{
    if (instance->renamed || instance->derived || instance->item->kind != FROM_TABLE)
        return false;
    return !column->qualifier || scope_item(p, scope->query, column) == instance->item;
}

static int find_instance(const struct planner *p, const struct scope *scope, int first, int end,
                         const struct expr *column, const struct lookup_rule **lookup)
{
    if (column->kind != EXPR_COLUMN)
        return -1;
    for (int i = first; i < end; i++) {
        const struct instance *instance = &p->instances[i];
        if (!instance->rule->lookups || !names_instance(p, scope, instance, column))
            continue;
        *lookup = rule_of(instance, column->name);
        if (*lookup && is_ready(p, *lookup) && is_its_table(p, instance))
            return i;
    }
    return -1;
}

/* ---- values ---- */

static const struct lookup_answer *find_answer(const struct planner *p,
                                               const struct lookup_rule *lookup, const char *value)
{
    const struct lookup_answers *answers = p->input->lookups;
    for (int i = 0; i < answers->count; i++)
        if (answers->items[i].lookup == lookup && same_name(answers->items[i].value, value))
            return &answers->items[i];
    return NULL;
}

static bool want(struct planner *p, const struct lookup_rule *lookup, const char *value)
{
    for (int i = 0; i < p->nwants; i++)
        if (p->wants[i].lookup == lookup && same_name(p->wants[i].value, value))
            return true;
    if (p->nwants == LOOKUP_MAX_WANTS) {
        p->wants_many = true;
        p->nwants = 0;
    }
    if (p->wants_many)
        return false;
    if (!p->wants)
        p->wants = arena_array(p->arena, struct lookup_want, LOOKUP_MAX_WANTS);
    p->wants[p->nwants++] = (struct lookup_want){lookup, value};
    return true;
}

static void explain(const struct looking *l, const struct lookup_answer *answer)
{
    struct planner *p = l->p;
    const char *key = answer->key ? arena_printf(p->arena, "key %.60s", answer->key) : "no row";
    if (!l->instance->looked_up)
        l->instance->looked_up =
            arena_printf(p->arena, "lookup %s = '%.60s' -> %s%s", l->lookup->name, answer->value,
                         key, answer->cached ? ", cached" : "");
}

static bool add_value(void *arg, enum value_state state, const char *text)
{
    struct looking *l = arg;
    struct planner *p = l->p;
    unsigned nshards = shardmap_shards(p->map);
    const bool *here = p->input->lookups->here;
    if (state == VALUE_PENDING)
        p->pending = true;
    if (state != VALUE_KNOWN)
        return state == VALUE_PENDING || state == VALUE_NULL; /* NULL equals nothing */
    const struct lookup_answer *answer = find_answer(p, l->lookup, text);
    if (!answer) {
        l->open = true;
        p->wants_loose |= !l->strict;
        return want(p, l->lookup, text);
    }
    for (unsigned s = 0; s < nshards; s++) {
        struct shard_set one = {.kind = SHARDS_ONE, .one = s};
        if (answer->shards[s] || (here && here[s]))
            *l->set = shards_union(p->arena, nshards, l->set, &one);
    }
    explain(l, answer);
    return true;
}

/* `column IN (a, b)`; what stands for a value may be any expression. */
static bool add_list(struct looking *l, const struct expr *in, uint32_t type)
{
    for (int i = 1; i < in->nargs; i++) {
        const char *text = NULL;
        enum value_state state = keyfind_literal(l->p, in->args[i], type, &text);
        if (!add_value(l, state, text))
            return false;
    }
    return true;
}

static bool add_values(struct looking *l, const struct expr *e, const struct expr *value,
                       uint32_t type)
{
    const char *text = NULL;
    if (e->kind == EXPR_IN)
        return add_list(l, e, type);
    if (e->kind == EXPR_ANY)
        return keyfind_literals(l->p, value, type, add_value, l);
    enum value_state state = keyfind_literal(l->p, value, type, &text);
    return add_value(l, state, text);
}

/* ---- conditions ---- */

static bool is_condition(const struct expr *e)
{
    if (e->nargs < 2)
        return false;
    return (e->kind == EXPR_IN && !e->negated) ||
           ((e->kind == EXPR_OP || e->kind == EXPR_ANY) && join_is_equals(e));
}

int lookup_condition(struct planner *p, const struct scope *scope, int first, int end, bool strict,
                     const struct expr *e, struct shard_set *set)
{
    const struct route_session *session = p->input->session;
    const struct lookup_rule *lookup = NULL;
    if (!p->input->lookups || !p->schema || !is_condition(e) || (session && session->temp_tables))
        return -1;
    const struct expr *value = e->args[1];
    int i = find_instance(p, scope, first, end, e->args[0], &lookup);
    if (i < 0 && e->kind == EXPR_OP) {
        i = find_instance(p, scope, first, end, e->args[1], &lookup);
        value = e->args[0];
    }
    if (i < 0)
        return -1;
    struct instance *instance = &p->instances[i];
    const struct schema_column *column = scope_column(p, instance->item, lookup->column);
    struct looking l = {.p = p,
                        .instance = instance,
                        .lookup = lookup,
                        .set = set,
                        .strict = strict && e->kind == EXPR_OP};
    set->kind = SHARDS_NONE;
    if (!column || !add_values(&l, e, value, column->type_oid))
        return -1;
    instance->keyed = true;
    return l.open ? -1 : i;
}

/* ---- what rows show ---- */

static bool makes_rows_one(const struct expr *expr, void *context)
{
    const struct planner *p = context;
    return expr->kind == EXPR_SUBLINK ||
           (expr->kind == EXPR_FUNC && function_class(p, expr) != FUNCTION_PLAIN);
}

/* Without GROUP BY an aggregate gives a row where there is none; also one in ORDER BY. */
static bool may_aggregate(const struct planner *p, const struct query *query)
{
    for (int i = 0; i < query->ntargets; i++)
        if (expr_any(query->targets[i].expr, makes_rows_one, (void *)p))
            return true;
    for (int i = 0; i < query->norder_by; i++)
        if (expr_any(query->order_by[i].expr, makes_rows_one, (void *)p))
            return true;
    for (int i = 0; i < query->ndistinct_on; i++)
        if (expr_any(query->distinct_on[i], makes_rows_one, (void *)p))
            return true;
    return query->having || query->grouping_sets;
}

bool lookup_shows_value(const struct planner *p, const struct query *query)
{
    return p->nwants == 1 && !p->wants_loose && p->nlevels == 1 &&
           p->levels[0].place == LEVEL_TOP && query->kind == QUERY_SELECT && !p->plan->write &&
           p->input->statement->kind == STMT_QUERY &&
           !(p->statement->facts & (FACT_SUBQUERY | FACT_INTO)) && !p->has_ctes &&
           !may_aggregate(p, query);
}
