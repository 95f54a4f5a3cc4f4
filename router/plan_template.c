/* plan_template.c: plans that hold for other values of the key, too: see include/pgshunt/plan_template.h. */
#include "pgshunt/plan_template.h"

#include "router/keyfind_internal.h"

/* ---- what the planner has gone by ---- */

void template_note(struct planner *p, const struct instance *instance, const struct expr *value,
                   enum value_use use, unsigned shard)
{
    struct key_values *noted = &p->values;
    const struct template_value one = {.expr = value,
                                       .rule =
                                           instance->derived ? instance->behind : instance->rule,
                                       .assigned = use == VALUE_ASSIGNED,
                                       .blank_padded = instance->blank_padded};
    noted->several |= noted->noted > 0 && shard != noted->shard;
    noted->shard = shard;
    noted->noted++;
    for (int i = 0; i < noted->count && i < TEMPLATE_MAX_VALUES; i++) {
        const struct template_value *other = &noted->items[i];
        if (other->expr == one.expr && other->rule == one.rule && other->assigned == one.assigned &&
            other->blank_padded == one.blank_padded)
            return;
    }
    if (noted->count < TEMPLATE_MAX_VALUES)
        noted->items[noted->count] = one;
    noted->count += noted->count <= TEMPLATE_MAX_VALUES;
}

/* Values were read as keys and nothing else, and each was plainly understood. */
static bool goes_by_keys(const struct planner *p)
{
    const struct key_values *noted = &p->values;
    return noted->noted > 0 && noted->noted == noted->read && !noted->several &&
           noted->count <= TEMPLATE_MAX_VALUES && noted->shard == p->plan->shard;
}

/* A condition on a lookup's column is passed over without answers, and would count with them. */
static bool knows_lookups(const struct planner *p)
{
    return p->input->lookups && p->schema && !(p->input->session && p->input->session->temp_tables);
}

/* Nothing about the tables has to do with one shard rather than another. */
static bool treats_shards_alike(const struct planner *p)
{
    if (p->unsharded || p->catalog || p->view || p->nreplace || shardmap_has_schemas(p->map) ||
        shardmap_has_ghosts(p->map))
        return false;
    for (int i = 0; i < p->ninstances; i++) {
        const struct instance *instance = &p->instances[i];
        if (instance->derived)
            continue;
        if (instance->rule->class != TABLE_SHARDED || instance->rule->nparts || instance->view ||
            instance->looked_up || (instance->rule->lookups && !knows_lookups(p)))
            return false;
    }
    return true;
}

/* The statement's words are read for nothing but the values that are noted: not so in comments and in MERGE. */
static bool is_plain(const struct statement *statement)
{
    return statement->kind == STMT_QUERY && !statement->nhints && !statement->syntax_error &&
           statement->query->kind != QUERY_MERGE;
}

/* Whatever else may be in a plan, here it is not. */
static bool says_place_alone(const struct plan *plan, bool read)
{
    const struct plan place = {.kind = PLAN_DIRECT,
                               .node = plan->node,
                               .write = !read,
                               .shard = plan->shard,
                               .reason = plan->reason,
                               .node_reason = plan->node_reason};
    return memcmp(plan, &place, sizeof place) == 0;
}

void template_make(const struct planner *p, bool read, const char *node_reason,
                   struct plan_template *made)
{
    if (!p->by_key || p->failed || p->too_many || p->touches_held ||
        !says_place_alone(p->plan, read) || !is_plain(p->input->statement) || !goes_by_keys(p) ||
        !treats_shards_alike(p))
        return;
    made->map = shardmap_serial(p->map);
    made->read = read;
    made->node_reason = node_reason;
    made->nvalues = (uint8_t)p->values.count;
    memcpy(made->values, p->values.items, sizeof *made->values * made->nvalues);
}

/* ---- once more ---- */

/* The little of it that values are found with. */
static void little_planner(struct planner *p, const struct route_input *input, struct arena *arena)
{
    p->input = input;
    p->map = input->map;
    p->arena = arena;
    p->failed = NULL;
}

static bool find_slowly(const struct route_input *input, struct arena *arena,
                        const struct template_value *value, unsigned *shard)
{
    const struct instance instance = {.rule = value->rule, .blank_padded = value->blank_padded};
    struct value found;
    struct planner p;
    little_planner(&p, input, arena);
    keyfind_evaluate(&p, value->expr, &found);
    return keyfind_value_shard(&p, &instance, &found,
                               value->assigned ? VALUE_ASSIGNED : VALUE_COMPARED,
                               shard) == VALUE_KNOWN;
}

/* Most values are plain integers: what the general way makes of them, in fewer steps. False: not one. */
static bool plain_bigint(const struct params *params, const struct expr *expr, struct shardkey *key)
{
    if (expr->kind == EXPR_CONST && expr->const_kind == CONST_INT) {
        shardkey_of_bigint(expr->number, key);
        return true;
    }
    if (expr->kind != EXPR_PARAM || !params || expr->number < 1 || expr->number > params->count)
        return false;
    const struct param *param = &params->items[expr->number - 1];
    const struct value value = {.oid = param->type_oid,
                                .binary = param->binary,
                                .bytes = param->bytes,
                                .length = param->length > 0 ? (size_t)param->length : 0};
    return param->bytes && (is_untyped(value.oid) || is_integer_type(value.oid)) &&
           keyfind_bigint(&value, key);
}

static bool find_again(const struct route_input *input, struct arena *arena,
                       const struct template_value *value, unsigned *shard)
{
    const struct keyspace *keyspace = value->rule->keyspace;
    struct shardkey key;
    if (keyspace->type == KEY_BIGINT && plain_bigint(input->params, value->expr, &key)) {
        *shard = shardmap_shard_of(input->map, keyspace, &key);
        return *shard != SHARDMAP_NO_SHARD;
    }
    return find_slowly(input, arena, value, shard);
}

bool router_plan_again(const struct plan_template *made, const struct route_input *input,
                       struct arena *arena, struct plan *plan)
{
    const struct route_session *session = input->session;
    unsigned shard = 0, other;
    if (!made->nvalues || made->map != shardmap_serial(input->map) || shardmap_holds(input->map))
        return false;
    if (session &&
        ((session->shard && *session->shard) || (!made->read && session->route == ROUTE_REPLICA)))
        return false;
    if (!find_again(input, arena, &made->values[0], &shard))
        return false;
    for (int i = 1; i < made->nvalues; i++)
        if (!find_again(input, arena, &made->values[i], &other) || other != shard)
            return false;
    *plan = (struct plan){.kind = PLAN_DIRECT,
                          .shard = shard,
                          .write = !made->read,
                          .node = made->read ? NODE_CLASS_REPLICA : NODE_CLASS_PRIMARY,
                          .node_reason = made->node_reason,
                          .reason = "all key values on one shard"};
    if (made->read && session)
        plan_settle_node(session, NULL, plan);
    return true;
}

unsigned router_template_bucket(const struct plan_template *made, const struct route_input *input,
                                struct arena *arena, const struct keyspace **keyspace)
{
    const struct template_value *value = &made->values[0];
    const struct instance instance = {.rule = value->rule, .blank_padded = value->blank_padded};
    struct value found;
    struct shardkey key;
    struct planner p;
    if (!made->nvalues || value->rule->nparts)
        return SHARDMAP_NO_BUCKET;
    *keyspace = value->rule->keyspace;
    little_planner(&p, input, arena);
    keyfind_evaluate(&p, value->expr, &found);
    enum value_use use = value->assigned ? VALUE_ASSIGNED : VALUE_COMPARED;
    return keyfind_value_key(&p, &instance, &found, use, &key) == VALUE_KNOWN
               ? keyspace_bucket(*keyspace, &key)
               : SHARDMAP_NO_BUCKET;
}
