/* plan_join.c: what WHERE and join conditions prove about the shards of the tables they join. */
#include "router/plan_internal.h"

/*
 * Where a condition stands. It may pin instances in the range [pin_first, pin_end); equalities of two
 * keys carry proofs from any instance into that range, and both ways inside it. Conditions of WHERE and
 * of inner joins pin all instances of their level. Those of a LEFT JOIN say nothing about the rows of
 * the left side, which stay whatever the condition is. Those of a FULL JOIN pin nothing, as both sides
 * stay; there only equalities between the sides (split at full_middle) say which rows are partners.
 */
struct place {
    const struct scope *scope;
    short pin_first, pin_end;
    short full_first, full_middle, full_end; /* all 0: no FULL JOIN */
    bool where;                              /* of WHERE: every row has to pass */
};

static bool in_pin_range(const struct place *place, int i)
{
    return i >= place->pin_first && i < place->pin_end;
}

void join_add_edge(struct planner *p, int from, int to, int level, bool forward, bool backward)
{
    if (from == to || p->instances[from].rule->keyspace != p->instances[to].rule->keyspace)
        return;
    if (p->nedges == PLAN_MAX_EDGES) {
        p->too_many = true;
        return;
    }
    p->edges[p->nedges++] = (struct edge){(short)from, (short)to, (short)level, forward, backward};
}

static void pin(struct planner *p, int i, const struct shard_set *set, const struct expr *value)
{
    struct instance *instance = &p->instances[i];
    instance->set = shards_intersect(p->arena, shardmap_shards(p->map), &instance->set, set);
    instance->keyed = true;
    if (!instance->pin)
        instance->pin = value;
}

static bool joins_sides(const struct place *place, int a, int b)
{
    int left = a < b ? a : b, right = a < b ? b : a;
    return left >= place->full_first && left < place->full_middle && right >= place->full_middle &&
           right < place->full_end;
}

/* An equality among rows that stay whatever it says is none. */
static void equate(struct planner *p, const struct place *place, int a, int b)
{
    if (!in_pin_range(place, a) && !in_pin_range(place, b) && !joins_sides(place, a, b))
        return;
    join_add_edge(p, a, b, place->scope->level, in_pin_range(place, b), in_pin_range(place, a));
}

/* ---- single conditions ---- */

bool join_is_equals(const struct expr *expr)
{
    return same_name(expr->name, "=") &&
           (!expr->qualifier || same_name(expr->qualifier, "pg_catalog"));
}

/* `a op b` with the key on the left (`turned`: on the right); false: not a comparison of order. */
static bool order_range(const struct expr *e, bool turned, struct key_range *range)
{
    const struct expr *value = e->args[turned ? 0 : 1];
    if (e->qualifier && !same_name(e->qualifier, "pg_catalog"))
        return false;
    bool less = same_name(e->name, "<") || same_name(e->name, "<=");
    if (!less && !same_name(e->name, ">") && !same_name(e->name, ">="))
        return false;
    bool strict = e->name[1] == '\0';
    range->before = strict;
    if (less != turned)
        range->high = value;
    else
        range->low = value;
    return true;
}

/* `key < value` and the like, `key BETWEEN a AND b`, of keys by range: the instance, or -1. `i` is the
 * instance whose key the left side is, or -1. */
static int range_condition(struct planner *p, const struct scope *scope, const struct expr *e,
                           int i, struct key_range *range, struct shard_set *set)
{
    *range = (struct key_range){.low = NULL};
    if (e->kind == EXPR_BETWEEN && e->nargs == 3) {
        range->low = e->args[1];
        range->high = e->args[2];
    } else {
        bool turned = i < 0;
        if (e->kind != EXPR_OP || !order_range(e, turned, range))
            return -1;
        if (turned)
            i = scope_resolve(p, scope, e->args[1]);
    }
    bool good = i >= 0 && !e->negated && keyfind_is_range(&p->instances[i]) &&
                keyfind_range(p, &p->instances[i], range, set);
    return good ? i : -1;
}

/* `(a, key) IN ((1, 2), (3, 4))`: the rows' values for the key. */
static int row_list(struct planner *p, const struct scope *scope, const struct expr *e,
                    struct shard_set *set)
{
    const struct expr *left = e->args[0];
    int i = -1, column = -1;
    while (i < 0 && ++column < left->nargs)
        i = scope_resolve(p, scope, left->args[column]);
    set->kind = SHARDS_NONE;
    for (int k = 1; i >= 0 && k < e->nargs; k++) {
        const struct expr *row = e->args[k];
        struct shard_set one;
        if (row->kind != EXPR_ROW || row->nargs != left->nargs ||
            !keyfind_equal(p, &p->instances[i], row->args[column], &one))
            return -1;
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    }
    return i;
}

/* `key = value`, `key IN (...)` or `key = ANY (...)`: the instance, and the shards it leaves; or -1. */
static int key_condition(struct planner *p, const struct scope *scope, const struct expr *e,
                         struct shard_set *set, const struct expr **value)
{
    if (e->nargs < 2)
        return -1;
    int i = scope_resolve(p, scope, e->args[0]);
    *value = e->args[1];
    if (e->kind == EXPR_IN && !e->negated && e->args[0]->kind == EXPR_ROW) {
        *value = NULL;
        return row_list(p, scope, e, set);
    }
    if (e->kind == EXPR_IN && !e->negated)
        return i >= 0 && keyfind_in(p, &p->instances[i], e, set) ? i : -1;
    if (e->kind == EXPR_ANY && join_is_equals(e))
        return i >= 0 && keyfind_any(p, &p->instances[i], e->args[1], set) ? i : -1;
    if (e->kind != EXPR_OP || !join_is_equals(e)) {
        struct key_range range;
        *value = NULL;
        return range_condition(p, scope, e, i, &range, set);
    }
    if (i < 0) {
        i = scope_resolve(p, scope, e->args[1]);
        *value = e->args[0];
    }
    return i >= 0 && keyfind_equal(p, &p->instances[i], *value, set) ? i : -1;
}

static int alternatives(struct planner *p, const struct scope *scope, const struct expr * or,
                        struct shard_set *set, const struct expr **value);

/* What one branch of an OR, itself perhaps several conditions, pins: the first instance found. */
static int branch(struct planner *p, const struct scope *scope, const struct expr *e,
                  struct shard_set *set, const struct expr **value)
{
    if (e->kind == EXPR_OR)
        return alternatives(p, scope, e, set, value);
    if (e->kind != EXPR_AND)
        return key_condition(p, scope, e, set, value);
    for (int i = 0; i < e->nargs; i++) {
        int found = branch(p, scope, e->args[i], set, value);
        if (found >= 0)
            return found;
    }
    return -1;
}

/* `key = 1 OR key = 2`: if every branch pins the same instance, the union of what they leave. */
static int alternatives(struct planner *p, const struct scope *scope, const struct expr * or,
                        struct shard_set *set, const struct expr **value)
{
    int instance = -1;
    set->kind = SHARDS_NONE;
    for (int i = 0; i < or->nargs; i++) {
        struct shard_set one;
        int found = branch(p, scope, or->args[i], &one, value);
        if (found < 0 || (i > 0 && found != instance))
            return -1;
        instance = found;
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    }
    return instance;
}

static void apply(struct planner *p, const struct place *place, const struct expr *e);

/* `(a, key) = (1, 2)` is `a = 1 AND key = 2`. */
static void apply_rows(struct planner *p, const struct place *place, const struct expr *e)
{
    const struct expr *left = e->args[0], *right = e->args[1];
    for (int i = 0; i < left->nargs; i++) {
        struct expr *args[] = {left->args[i], right->args[i]};
        struct expr pair = {.kind = EXPR_OP, .name = e->name, .args = args, .nargs = 2};
        apply(p, place, &pair);
    }
}

/* Several ranges leave the entries that all of them meet: less than what their shards have in common,
 * as a shard may have several. */
static void apply_range(struct planner *p, const struct place *place, const struct expr *e)
{
    struct key_range range;
    struct shard_set set;
    int i = range_condition(p, place->scope, e, scope_resolve(p, place->scope, e->args[0]), &range,
                            &set);
    if (i < 0 || !in_pin_range(place, i))
        return;
    struct instance *instance = &p->instances[i];
    if (!instance->end) {
        instance->first = range.first;
        instance->end = range.end;
    }
    instance->first = range.first > instance->first ? range.first : instance->first;
    instance->end = range.end < instance->end ? range.end : instance->end;
    keyfind_entries(p, instance, instance->first, instance->end, &set);
    pin(p, i, &set, NULL);
}

static void apply_condition(struct planner *p, const struct place *place, const struct expr *e)
{
    if (e->nargs >= 2 && (e->kind == EXPR_BETWEEN || (e->kind == EXPR_OP && !join_is_equals(e)))) {
        apply_range(p, place, e);
        return;
    }
    if (e->kind == EXPR_OP && e->nargs == 2 && join_is_equals(e)) {
        const struct expr *left = e->args[0], *right = e->args[1];
        if (left->kind == EXPR_ROW && right->kind == EXPR_ROW && left->nargs == right->nargs) {
            apply_rows(p, place, e);
            return;
        }
        int a = scope_resolve(p, place->scope, left), b = scope_resolve(p, place->scope, right);
        if (a >= 0 && b >= 0) {
            equate(p, place, a, b);
            return;
        }
    }
    struct shard_set set;
    const struct expr *value = NULL;
    int i = e->kind == EXPR_OR ? alternatives(p, place->scope, e, &set, &value)
                               : key_condition(p, place->scope, e, &set, &value);
    if (i < 0) {
        value = NULL;
        i = lookup_condition(p, place->scope, place->pin_first, place->pin_end, place->where, e,
                             &set);
    }
    if (i >= 0 && in_pin_range(place, i))
        pin(p, i, &set, value);
}

/* What a whole condition says about keys of several columns. */
static void apply_composite(struct planner *p, const struct place *place, const struct expr *e)
{
    const struct scope *scope = place->scope;
    for (int i = scope->first; i < scope->end; i++) {
        struct shard_set set;
        if (!p->instances[i].rule->nparts)
            continue;
        if (in_pin_range(place, i) && composite_set(p, scope, i, e, &set))
            pin(p, i, &set, NULL);
        for (int other = i + 1; other < scope->end; other++)
            if (composite_joined(p, scope, i, other, e))
                equate(p, place, i, other);
    }
}

static void apply(struct planner *p, const struct place *place, const struct expr *e)
{
    if (e->kind != EXPR_AND) {
        apply_condition(p, place, e);
        return;
    }
    for (int i = 0; i < e->nargs; i++)
        apply(p, place, e->args[i]);
}

/* ---- outer joins that are inner joins in truth ---- */

/* Without a qualifier the name may be that of a column merged by USING: either table's may be NULL. */
static bool is_only_one(const struct planner *p, const struct scope *scope,
                        const struct expr *column, int instance)
{
    for (int i = scope->first; i < scope->end && !column->qualifier; i++)
        if (i != instance && same_name(p->instances[i].rule->key, column->name))
            return false;
    return true;
}

/* Instances that a row without a value of their key cannot pass: conditions on it are never NULL. */
static uint64_t strict_instances(const struct planner *p, const struct scope *scope,
                                 const struct expr *e)
{
    uint64_t strict = 0;
    if (!e)
        return 0;
    if (e->kind == EXPR_AND) {
        for (int i = 0; i < e->nargs; i++)
            strict |= strict_instances(p, scope, e->args[i]);
        return strict;
    }
    bool equality = (e->kind == EXPR_OP || e->kind == EXPR_ANY) && join_is_equals(e);
    if ((!equality && (e->kind != EXPR_IN || e->negated)) || e->nargs < 2)
        return 0;
    for (int side = 0; side < (e->kind == EXPR_OP ? 2 : 1); side++) {
        int i = scope_resolve(p, scope, e->args[side]);
        if (i >= scope->first && is_only_one(p, scope, e->args[side], i))
            strict |= UINT64_C(1) << i;
    }
    return strict;
}

static uint64_t range_mask(int first, int end)
{
    uint64_t mask = 0;
    for (int i = first; i < end; i++)
        mask |= UINT64_C(1) << i;
    return mask;
}

static enum join_kind reduced_kind(enum join_kind kind, bool left_strict, bool right_strict)
{
    switch (kind) {
    case JOIN_KIND_INNER:
        return JOIN_KIND_INNER;
    case JOIN_KIND_LEFT:
        return right_strict ? JOIN_KIND_INNER : JOIN_KIND_LEFT;
    case JOIN_KIND_RIGHT:
        return left_strict ? JOIN_KIND_INNER : JOIN_KIND_RIGHT;
    case JOIN_KIND_FULL:
        if (left_strict)
            return right_strict ? JOIN_KIND_INNER : JOIN_KIND_LEFT;
        return right_strict ? JOIN_KIND_RIGHT : JOIN_KIND_FULL;
    }
    return kind;
}

/* ---- joins ---- */

/* Merges groups along edges [edge, end) that connect members of [first, end_instance). Instances
 * outside the range count as one member, number `outside`. */
struct groups {
    unsigned char of[PLAN_MAX_INSTANCES + 1];
};

static void merge_groups(struct groups *groups, int count, int a, int b)
{
    unsigned char from = groups->of[b], to = groups->of[a];
    for (int i = 0; i < count && from != to; i++)
        if (groups->of[i] == from)
            groups->of[i] = to;
}

/*
 * Whether all of [first, end) are connected by the edges from number `edge` on; with `anchor` also to
 * the instances outside of [first, end), which count as one.
 */
static bool connected(const struct planner *p, int first, int end, int edge, int level, bool anchor)
{
    struct groups groups;
    int outside = PLAN_MAX_INSTANCES, count = PLAN_MAX_INSTANCES + 1;
    for (int i = 0; i < count; i++)
        groups.of[i] = (unsigned char)i;
    for (; edge < p->nedges; edge++) {
        const struct edge *e = &p->edges[edge];
        if (e->level != level)
            continue;
        int a = e->from >= first && e->from < end ? e->from : outside;
        int b = e->to >= first && e->to < end ? e->to : outside;
        if ((a == outside || b == outside) && !anchor)
            continue;
        merge_groups(&groups, count, a, b);
    }
    int root = groups.of[anchor ? outside : first];
    for (int i = first; i < end; i++)
        if (groups.of[i] != root)
            return false;
    return true;
}

static void set_nullable(struct planner *p, int first, int end)
{
    for (int i = first; i < end; i++)
        p->instances[i].nullable = true;
}

struct join_ranges {
    int first, middle, end;    /* instances: left side, right side */
    int left_edge, right_edge; /* edges known when each side began */
};

/*
 * Notes when an outer join gives other rows on shards than in one database: a preserved side that is
 * whole on every shard would come out once a shard, and rows find all their partners on their own
 * shard only if the join is by key.
 */
static void check_outer(struct planner *p, enum join_kind kind, const struct join_ranges *r,
                        int level)
{
    bool left = r->middle > r->first, right = r->end > r->middle;
    if (!left && !right)
        return;
    if (kind == JOIN_KIND_FULL) {
        if (left != right)
            p->unsafe_join = "an outer join that preserves a table which is not sharded";
        else if (!connected(p, r->first, r->end, r->left_edge, level, false))
            p->unsafe_join = "an outer join that is not by key";
        return;
    }
    bool preserved = kind == JOIN_KIND_LEFT ? left : right;
    bool optional = kind == JOIN_KIND_LEFT ? right : left;
    if (!optional)
        return;
    int first = kind == JOIN_KIND_LEFT ? r->middle : r->first;
    int end = kind == JOIN_KIND_LEFT ? r->end : r->middle;
    int edge = kind == JOIN_KIND_LEFT ? r->right_edge : r->left_edge;
    if (!preserved)
        p->unsafe_join = "an outer join that preserves a table which is not sharded";
    else if (!connected(p, first, end, edge, level, true))
        p->unsafe_join = "an outer join that is not by key";
}

/* USING (key) or NATURAL: all instances left and right whose key is one of the merged columns. */
static void merged_columns(struct planner *p, const struct from_item *join,
                           const struct place *place, const struct join_ranges *r)
{
    for (int a = r->first; a < r->middle; a++)
        for (int b = r->middle; b < r->end; b++) {
            const struct instance *left = &p->instances[a], *right = &p->instances[b];
            if (composite_merged(p, join, a, b))
                equate(p, place, a, b);
            if (left->renamed || right->renamed || !*left->rule->key ||
                !same_name(left->rule->key, right->rule->key))
                continue;
            bool merged = join->natural;
            for (int i = 0; i < join->nusing; i++)
                merged |= same_name(join->using_columns[i], left->rule->key);
            if (merged)
                equate(p, place, a, b);
        }
}

static struct place join_place(const struct scope *scope, enum join_kind kind,
                               const struct join_ranges *r)
{
    struct place place = {.scope = scope, .pin_first = (short)r->first, .pin_end = (short)r->end};
    if (kind == JOIN_KIND_LEFT)
        place.pin_first = (short)r->middle;
    else if (kind == JOIN_KIND_RIGHT)
        place.pin_end = (short)r->middle;
    if (kind == JOIN_KIND_FULL) {
        place.pin_end = place.pin_first;
        place.full_first = (short)r->first;
        place.full_middle = (short)r->middle;
        place.full_end = (short)r->end;
    }
    return place;
}

/* Steps over the instances of an item whose conditions are not looked at. */
static void skip_item(const struct planner *p, const struct scope *scope,
                      const struct from_item *item, int *next)
{
    if (item->kind != FROM_JOIN)
        *next += *next < scope->end && p->instances[*next].item == item;
    if (item->left)
        skip_item(p, scope, item->left, next);
    if (item->right)
        skip_item(p, scope, item->right, next);
}

/* Walks the joins of a FROM item inside out; *next is the number of its first instance. */
static void walk_joins(struct planner *p, const struct scope *scope, const struct from_item *item,
                       uint64_t strict, int *next)
{
    if (item->kind != FROM_JOIN) {
        skip_item(p, scope, item, next);
        return;
    }
    struct join_ranges r = {.first = *next, .left_edge = p->nedges};
    walk_joins(p, scope, item->left, strict, next);
    r.middle = *next;
    r.right_edge = p->nedges;
    walk_joins(p, scope, item->right, strict, next);
    r.end = *next;
    enum join_kind kind = reduced_kind(item->join, (strict & range_mask(r.first, r.middle)) != 0,
                                       (strict & range_mask(r.middle, r.end)) != 0);
    struct place place = join_place(scope, kind, &r);
    if (item->on) {
        apply(p, &place, item->on);
        apply_composite(p, &place, item->on);
    }
    merged_columns(p, item, &place, &r);
    if (kind == JOIN_KIND_INNER)
        return;
    if (kind != JOIN_KIND_RIGHT)
        set_nullable(p, r.middle, r.end);
    if (kind != JOIN_KIND_LEFT)
        set_nullable(p, r.first, r.middle);
    check_outer(p, kind, &r, scope->level);
}

void join_conditions(struct planner *p, const struct scope *scope)
{
    const struct query *query = scope->query;
    int next = scope->first;
    uint64_t strict = 0;
    bool joins = false;
    for (int i = 0; i < query->nfrom; i++)
        joins |= query->from[i]->kind == FROM_JOIN;
    if (joins)
        strict = strict_instances(p, scope, query->where);
    if (query->relation && next < scope->end && p->instances[next].item == query->relation)
        next++;
    for (int i = 0; i < query->nfrom && joins; i++)
        walk_joins(p, scope, query->from[i], strict, &next);
    struct place place = {.scope = scope,
                          .pin_first = scope->first,
                          .pin_end = scope->end,
                          .where = query->kind == QUERY_SELECT};
    /* Source rows that match nothing still count if a MERGE inserts: its ON is as that of an outer join. */
    if (query->kind == QUERY_MERGE && query->nmerge_inserts)
        place.pin_end =
            scope->first + (scope->end > scope->first && p->instances[scope->first].target);
    if (query->where) {
        apply(p, &place, query->where);
        apply_composite(p, &place, query->where);
    }
}

/* ---- propagation ---- */

static bool narrow(struct planner *p, int from, int to)
{
    struct instance *a = &p->instances[from], *b = &p->instances[to];
    unsigned nshards = shardmap_shards(p->map);
    unsigned before = shards_count(&b->set, nshards);
    bool keyed = b->keyed, not_held = shards_not_held(&b->set);
    b->set = shards_intersect(p->arena, nshards, &b->set, &a->set);
    b->keyed |= a->keyed;
    return shards_count(&b->set, nshards) != before || b->keyed != keyed ||
           shards_not_held(&b->set) != not_held;
}

void join_propagate(struct planner *p)
{
    bool changed = p->nedges > 0;
    while (changed) {
        changed = false;
        for (int i = 0; i < p->nedges; i++) {
            const struct edge *e = &p->edges[i];
            if (e->forward)
                changed |= narrow(p, e->from, e->to);
            if (e->backward)
                changed |= narrow(p, e->to, e->from);
        }
    }
}

const char *join_not_colocated(const struct planner *p)
{
    for (int i = 0; i < p->ninstances; i++)
        if (p->instances[i].derived)
            return "a sharded table in a subquery, CTE or set operation";
    for (int i = 0; i < p->nlevels; i++) {
        const struct level *level = &p->levels[i];
        if (level->first == level->end)
            continue;
        switch (level->place) {
        case LEVEL_OTHER:
            return "a sharded table in a subquery, CTE or set operation";
        case LEVEL_SUBLINK:
            if (!connected(p, level->first, level->end, 0, i, true))
                return "a subquery over a sharded table that is not tied to the key outside";
            break;
        case LEVEL_TOP:
            if (!connected(p, level->first, level->end, 0, i, false))
                return "a join of sharded tables that is not by key";
            break;
        }
    }
    for (int i = 0; i < p->ninstances; i++)
        if (p->instances[i].renamed)
            return "a sharded table behind TABLESAMPLE, renamed columns or an alias of a join";
    return p->unsafe_join;
}
