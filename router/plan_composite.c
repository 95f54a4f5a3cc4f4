/*
 * plan_composite.c: keys of several columns, (tenant_id, user_id).
 *
 * The rule of such a table has no key column that a single condition could be about; here its *parts* are
 * found one by one. Where all have values, each combination of these is a key. Some of them prove nothing.
 */
#include "router/keyfind_internal.h"

#define MAX_COMBINATIONS 256

/* What conditions say about a part of one instance's key: it is one of these. */
struct part_values {
    struct part_value **items;
    int count, room; /* 0: nothing is said */
};

struct parts {
    struct part_values *of[SHARDMAP_MAX_PARTS]; /* NULL: nothing is said */
};

static bool is_composite(const struct instance *instance)
{
    return instance->rule->nparts > 0;
}

int composite_part(const struct planner *p, const struct scope *scope, const struct expr *expr,
                   int i)
{
    const struct instance *instance = &p->instances[i];
    if (expr->kind != EXPR_COLUMN || !is_composite(instance) || instance->renamed)
        return -1;
    for (unsigned k = 0; k < instance->rule->nparts; k++)
        if (same_name(instance->rule->parts[k], expr->name))
            return scope_item(p, scope->query, expr) == instance->item ? (int)k : -1;
    return -1;
}

/* ---- values ---- */

static int value_count(const struct parts *parts, unsigned part)
{
    return parts->of[part] ? parts->of[part]->count : 0;
}

/* The shards of all combinations of the parts' values. False: some part has none. */
static bool combine(struct planner *p, int i, const struct parts *parts, struct shard_set *set,
                    struct key_owners *owners)
{
    unsigned n = p->instances[i].rule->nparts;
    const struct part_value *row[SHARDMAP_MAX_PARTS];
    int total = 1;
    for (unsigned k = 0; k < n; k++) {
        total *= value_count(parts, k);
        if (total == 0 || total > MAX_COMBINATIONS)
            return false;
    }
    for (int c = 0; c < total; c++) {
        unsigned shard = 0;
        int rest = c;
        for (unsigned k = 0; k < n; k++) {
            row[k] = parts->of[k]->items[rest % parts->of[k]->count];
            rest /= parts->of[k]->count;
        }
        enum value_state state = keyfind_parts(p, &p->instances[i], row, &shard);
        p->pending |= state == VALUE_PENDING;
        if (!keyfind_add(p, state, shard, set, owners))
            return false;
    }
    return true;
}

struct noting {
    struct planner *p;
    int instance, part;
    struct part_values *values;
    const struct expr *expr;
};

static void make_room(const struct noting *n)
{
    struct part_values *values = n->values;
    if (values->count < values->room)
        return;
    int room = values->room ? 4 * values->room : 1;
    struct part_value **items = arena_array(n->p->arena, struct part_value *, room);
    if (values->count)
        memcpy(items, values->items, sizeof(struct part_value *) * (size_t)values->count);
    values->items = items;
    values->room = room;
}

/* False: it is not understood, or there are too many. */
static bool note_value(void *arg, struct value *value)
{
    const struct noting *n = arg;
    if (n->values->count == MAX_COMBINATIONS)
        return false;
    make_room(n);
    struct part_value *item = arena_new(n->p->arena, struct part_value);
    item->expr = n->expr;
    item->state = keyfind_part(n->p, &n->p->instances[n->instance], (unsigned)n->part, value,
                               VALUE_COMPARED, &item->key);
    n->values->items[n->values->count++] = item;
    return item->state != VALUE_OPAQUE;
}

static bool note_expr(struct noting *n, const struct expr *expr)
{
    struct value value;
    n->expr = expr;
    keyfind_value(n->p, expr, &value);
    return note_value(n, &value);
}

/* Elements of `part = ANY (array)`; of an array that is NULL, or not known yet, as if it were the value. */
static bool note_array(struct noting *n, const struct expr *array)
{
    enum value_state state = keyfind_elements(n->p, array, note_value, n);
    struct value value = {.state = state};
    if (state == VALUE_NULL || state == VALUE_PENDING)
        return note_value(n, &value);
    if (state == VALUE_KNOWN &&
        n->values->count == 0) { /* of an empty one, nothing is equal to any */
        value.state = VALUE_NULL;
        return note_value(n, &value);
    }
    return state == VALUE_KNOWN;
}

/* Values for a part, of `list` or the one alone, unless there are some that are understood already. */
static void note(struct planner *p, int i, int part, const struct expr *value,
                 const struct expr *list, struct parts *parts)
{
    struct noting n = {.p = p, .instance = i, .part = part};
    bool known = true;
    if (part < 0 || parts->of[part])
        return;
    n.values = arena_new(p->arena, struct part_values);
    n.values->count = n.values->room = 0;
    if (!list)
        known = note_expr(&n, value);
    else if (list->kind == EXPR_ANY)
        known = note_array(&n, list->args[1]);
    for (int k = 1; list && list->kind == EXPR_IN && k < list->nargs && known; k++)
        known = note_expr(&n, list->args[k]);
    if (known)
        parts->of[part] = n.values;
}

static void note_equal(struct planner *p, const struct scope *scope, int i, const struct expr *left,
                       const struct expr *right, struct parts *parts)
{
    note(p, i, composite_part(p, scope, left, i), right, NULL, parts);
    note(p, i, composite_part(p, scope, right, i), left, NULL, parts);
}

static bool is_row_pair(const struct expr *left, const struct expr *right)
{
    return left->kind == EXPR_ROW && right->kind == EXPR_ROW && left->nargs == right->nargs;
}

static bool is_equality(const struct expr *e)
{
    return e->kind == EXPR_OP && e->nargs == 2 && join_is_equals(e);
}

static void note_condition(struct planner *p, const struct scope *scope, int i,
                           const struct expr *e, struct parts *parts)
{
    if (is_equality(e) && is_row_pair(e->args[0], e->args[1])) {
        for (int k = 0; k < e->args[0]->nargs; k++)
            note_equal(p, scope, i, e->args[0]->args[k], e->args[1]->args[k], parts);
    } else if (is_equality(e)) {
        note_equal(p, scope, i, e->args[0], e->args[1], parts);
    } else if ((e->kind == EXPR_IN && !e->negated && e->nargs > 1) ||
               (e->kind == EXPR_ANY && e->nargs == 2 && join_is_equals(e))) {
        note(p, i, composite_part(p, scope, e->args[0], i), NULL, e, parts);
    }
}

/* `(a, b) IN ((1, 2), (3, 4))`. */
static bool row_list(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                     struct shard_set *set, struct key_owners *owners)
{
    const struct expr *left = e->args[0];
    set->kind = SHARDS_NONE;
    for (int k = 1; k < e->nargs; k++) {
        struct parts parts = {{NULL}};
        if (!is_row_pair(left, e->args[k]))
            return false;
        for (int c = 0; c < left->nargs; c++)
            note_equal(p, scope, i, left->args[c], e->args[k]->args[c], &parts);
        if (!combine(p, i, &parts, set, owners))
            return false;
    }
    return true;
}

bool composite_owners(struct planner *p, const struct scope *scope, int i, const struct expr *in,
                      struct key_owners *owners)
{
    struct shard_set set;
    *owners = (struct key_owners){.count = 0};
    return is_composite(&p->instances[i]) && in->kind == EXPR_IN && in->args[0]->kind == EXPR_ROW &&
           row_list(p, scope, i, in, &set, owners) && owners->count == in->nargs - 1;
}

static void note_all(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                     struct parts *parts)
{
    if (e->kind != EXPR_AND)
        note_condition(p, scope, i, e, parts);
    for (int k = 0; e->kind == EXPR_AND && k < e->nargs; k++)
        note_all(p, scope, i, e->args[k], parts);
}

static bool any_branch(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                       struct shard_set *set);

bool composite_set(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                   struct shard_set *set)
{
    struct parts parts = {{NULL}};
    note_all(p, scope, i, e, &parts);
    set->kind = SHARDS_NONE;
    if (combine(p, i, &parts, set, NULL))
        return true;
    if (e->kind == EXPR_IN && !e->negated && e->nargs > 1 && e->args[0]->kind == EXPR_ROW)
        return row_list(p, scope, i, e, set, NULL);
    if (e->kind == EXPR_OR)
        return any_branch(p, scope, i, e, set);
    for (int k = 0; e->kind == EXPR_AND && k < e->nargs; k++)
        if ((e->args[k]->kind == EXPR_OR || e->args[k]->kind == EXPR_IN ||
             e->args[k]->kind == EXPR_AND) &&
            composite_set(p, scope, i, e->args[k], set))
            return true;
    return false;
}

static bool any_branch(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                       struct shard_set *set)
{
    set->kind = SHARDS_NONE;
    for (int k = 0; k < e->nargs; k++) {
        struct shard_set one;
        if (!composite_set(p, scope, i, e->args[k], &one))
            return false;
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    }
    return true;
}

/* ---- joins ---- */

static unsigned equal_parts(const struct planner *p, const struct scope *scope, int a, int b,
                            const struct expr *left, const struct expr *right)
{
    int x = composite_part(p, scope, left, a), y = composite_part(p, scope, right, b);
    if (x < 0 || x != y) {
        x = composite_part(p, scope, right, a);
        y = composite_part(p, scope, left, b);
    }
    return x >= 0 && x == y ? 1U << x : 0;
}

static unsigned joined_parts(const struct planner *p, const struct scope *scope, int a, int b,
                             const struct expr *e)
{
    unsigned parts = 0;
    for (int k = 0; e->kind == EXPR_AND && k < e->nargs; k++)
        parts |= joined_parts(p, scope, a, b, e->args[k]);
    if (!is_equality(e))
        return parts;
    if (!is_row_pair(e->args[0], e->args[1]))
        return equal_parts(p, scope, a, b, e->args[0], e->args[1]);
    for (int k = 0; k < e->args[0]->nargs; k++)
        parts |= equal_parts(p, scope, a, b, e->args[0]->args[k], e->args[1]->args[k]);
    return parts;
}

static bool of_one_keyspace(const struct planner *p, int a, int b)
{
    return is_composite(&p->instances[a]) && is_composite(&p->instances[b]) &&
           p->instances[a].rule->keyspace == p->instances[b].rule->keyspace;
}

static bool is_same_value(const struct part_value *a, const struct part_value *b)
{
    if (a->state == VALUE_PENDING && b->state == VALUE_PENDING)
        return a->expr && b->expr && a->expr->kind == EXPR_PARAM && b->expr->kind == EXPR_PARAM &&
               a->expr->number == b->expr->number;
    return a->state == VALUE_KNOWN && b->state == VALUE_KNOWN && a->key.length == b->key.length &&
           (a->key.length == 0 || memcmp(a->key.bytes, b->key.bytes, a->key.length) == 0);
}

/* `a.tenant = 5 AND b.tenant = 5`. */
static unsigned parts_of_same_value(struct planner *p, const struct scope *scope, int a, int b,
                                    const struct expr *e)
{
    struct parts left = {{NULL}}, right = {{NULL}};
    unsigned same = 0;
    note_all(p, scope, a, e, &left);
    note_all(p, scope, b, e, &right);
    for (unsigned k = 0; k < p->instances[a].rule->nparts; k++)
        if (value_count(&left, k) == 1 && value_count(&right, k) == 1 &&
            is_same_value(left.of[k]->items[0], right.of[k]->items[0]))
            same |= 1U << k;
    return same;
}

bool composite_joined(struct planner *p, const struct scope *scope, int a, int b,
                      const struct expr *e)
{
    if (!of_one_keyspace(p, a, b))
        return false;
    unsigned all = (1U << p->instances[a].rule->nparts) - 1,
             joined = joined_parts(p, scope, a, b, e);
    return joined == all || (joined && (joined | parts_of_same_value(p, scope, a, b, e)) == all);
}

int composite_source(const struct planner *p, const struct scope *scope, const int *positions,
                     int with)
{
    const struct query *q = scope->query;
    for (int i = scope->first; i < scope->end; i++) {
        bool all = of_one_keyspace(p, i, with);
        for (unsigned k = 0; all && k < p->instances[i].rule->nparts; k++)
            all = composite_part(p, scope, q->targets[positions[k]].expr, i) == (int)k;
        if (all)
            return i;
    }
    return -1;
}

bool composite_merged(const struct planner *p, const struct from_item *join, int a, int b)
{
    const struct instance *left = &p->instances[a], *right = &p->instances[b];
    if (!of_one_keyspace(p, a, b) || left->renamed || right->renamed)
        return false;
    for (unsigned k = 0; k < left->rule->nparts; k++) {
        bool merged = join->natural;
        for (int i = 0; i < join->nusing; i++)
            merged |= same_name(join->using_columns[i], left->rule->parts[k]);
        if (!merged || !same_name(left->rule->parts[k], right->rule->parts[k]))
            return false;
    }
    return true;
}

bool composite_grouped(const struct planner *p, const struct scope *scope,
                       struct expr *const *group_by, int count)
{
    for (int i = scope->first; i < scope->end; i++) {
        unsigned parts = 0;
        if (!is_composite(&p->instances[i]) || p->instances[i].nullable)
            continue;
        for (int g = 0; g < count; g++) {
            int part = composite_part(p, scope, group_by[g], i);
            parts |= part >= 0 ? 1U << part : 0;
        }
        if (parts == (1U << p->instances[i].rule->nparts) - 1)
            return true;
    }
    return false;
}

/* ---- UPDATE ---- */

/* The value that is assigned to a part. False: none is, or the part itself. */
static bool find_assigned(const struct planner *p, const struct scope *scope, int i, unsigned part,
                          const struct target *list, int count, int insert,
                          const struct expr **value)
{
    const char *name = p->instances[i].rule->parts[part];
    for (int t = 0; t < count; t++) {
        *value = list[t].expr;
        if (list[t].merge_insert == insert && list[t].alias && same_name(list[t].alias, name) &&
            !(*value && composite_part(p, scope, *value, i) == (int)part))
            return true;
    }
    return false;
}

bool composite_stays(struct planner *p, int i, const struct target *list, int count, int insert,
                     unsigned shard)
{
    const struct level *level = &p->levels[p->instances[i].level];
    const struct scope scope = {.query = level->query,
                                .level = p->instances[i].level,
                                .first = level->first,
                                .end = level->end};
    struct part_value *row = arena_array(p->arena, struct part_value, SHARDMAP_MAX_PARTS);
    const struct part_value *values[SHARDMAP_MAX_PARTS];
    struct parts parts = {{NULL}};
    unsigned found = 0;
    if (level->query->kind == QUERY_UPDATE && level->query->where)
        note_all(p, &scope, i, level->query->where, &parts);
    for (unsigned k = 0; k < p->instances[i].rule->nparts; k++) {
        const struct expr *expr;
        struct value value;
        values[k] = &row[k];
        if (find_assigned(p, &scope, i, k, list, count, insert, &expr)) {
            if (!expr)
                return false;
            keyfind_value(p, expr, &value);
            row[k].state =
                keyfind_part(p, &p->instances[i], k, &value, VALUE_ASSIGNED, &row[k].key);
        } else if (value_count(&parts, k) == 1) {
            values[k] = parts.of[k]->items[0];
        } else {
            return false;
        }
    }
    enum value_state state = keyfind_parts(p, &p->instances[i], values, &found);
    if (state == VALUE_KNOWN)
        plan_note_said(p, p->key_is_held);
    return state == VALUE_INVALID || (state == VALUE_KNOWN && found == shard);
}

/* ---- INSERT ---- */

static int part_position(const struct planner *p, const struct query *query,
                         const struct instance *target, const char *part)
{
    const struct from_item *item = target->item;
    for (int i = 0; i < query->ntargets; i++)
        if (same_name(query->targets[i].alias, part))
            return i;
    const struct schema_relation *relation =
        query->ntargets ? NULL : plan_relation(p, item->schema, item->name);
    for (int i = 0; relation && i < relation->ncolumns; i++)
        if (same_name(relation->columns[i].name, part))
            return i;
    if (!query->ntargets && !relation)
        plan_needs_schema(p, item->schema, item->name);
    return -1;
}

const struct expr *composite_row(struct planner *p, const struct query *query,
                                 const struct instance *target, struct expr *const *row)
{
    const struct table_rule *rule = target->rule;
    struct expr *value = arena_new(p->arena, struct expr);
    value->kind = EXPR_ROW;
    value->args = arena_array(p->arena, struct expr *, rule->nparts);
    for (unsigned k = 0; k < rule->nparts; k++) {
        int position = part_position(p, query, target, rule->parts[k]);
        if (position < 0 || position >= query->source->row_width ||
            row[position]->kind == EXPR_DEFAULT)
            return NULL;
        value->args[value->nargs++] = row[position];
    }
    return value;
}
