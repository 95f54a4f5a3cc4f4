/*
 * plan_derived.c: keys that pass through subqueries in FROM and through CTEs.
 *
 *   SELECT * FROM (SELECT * FROM orders) x WHERE x.user_id = 5
 *
 * `x` gets an instance of its own, *derived*: no table, but with a key column like one, which conditions
 * around it pin and join. An edge ties it to the instance inside whose key the column is. Inwards the edge
 * carries a proof where rows of other keys change nothing of what comes out for this one; outwards always,
 * as what comes out has the key of the row it came from.
 */
#include "router/plan_internal.h"

/* A column that is the key of an instance inside of a query. */
struct exposed {
    const struct from_item *item; /* inside: the table, or a derived one again */
    const struct table_rule *rule;
    const char *inner; /* name of the key column in `item` */
    const char *name;  /* ... and of the query's column */
    const struct target *target;
    bool blank_padded;
};

#define DERIVED_DEEP 16

static bool find_exposed(const struct planner *p, const struct query *q,
                         const struct cte_names *ctes, int depth, struct exposed *found);

static const char *visible(const struct from_item *item)
{
    return item->alias ? item->alias : item->name;
}

/* The query's column that is `key` of the item; false: none. */
static bool find_target(const struct query *q, const struct from_item *item, const char *key,
                        struct exposed *found)
{
    for (int i = 0; i < q->ntargets; i++) {
        const struct target *target = &q->targets[i];
        const struct expr *e = target->expr;
        bool ours = !e->qualifier || (visible(item) && same_name(e->qualifier, visible(item)));
        if (!ours || e->schema)
            continue;
        if (e->kind != EXPR_STAR && (e->kind != EXPR_COLUMN || !same_name(e->name, key)))
            continue;
        found->name = e->kind == EXPR_COLUMN && target->alias ? target->alias : key;
        found->target = target;
        return true;
    }
    return false;
}

/* The item itself, if it is a table, a subquery or a CTE with a key. */
static bool source_exposes(const struct planner *p, const struct from_item *item,
                           const struct cte_names *ctes, int depth, struct exposed *found)
{
    struct cte_names inside;
    const struct cte *cte = item->kind == FROM_TABLE ? scope_find_cte(ctes, item, &inside) : NULL;
    if (cte || item->kind == FROM_SUBQUERY) {
        if (cte && (cte->recursive || cte->renamed))
            return false;
        if (!find_exposed(p, cte ? cte->query : item->subquery, cte ? &inside : ctes, depth + 1,
                          found))
            return false;
        found->inner = found->name;
        return true;
    }
    if (item->kind != FROM_TABLE)
        return false;
    found->rule = plan_rule(p, item->schema, item->name);
    if (found->rule->class != TABLE_SHARDED || found->rule->nparts)
        return false;
    found->inner = found->rule->key;
    found->blank_padded = scope_blank_padded(p, found->rule, 0, item);
    return true;
}

static bool item_exposes(const struct planner *p, const struct query *q,
                         const struct from_item *item, const struct cte_names *ctes, int depth,
                         struct exposed *found)
{
    if (item->kind == FROM_JOIN)
        return !item->alias && (item_exposes(p, q, item->left, ctes, depth, found) ||
                                item_exposes(p, q, item->right, ctes, depth, found));
    if (!source_exposes(p, item, ctes, depth, found))
        return false;
    found->item = item;
    return find_target(q, item, found->inner, found);
}

static bool find_exposed(const struct planner *p, const struct query *q,
                         const struct cte_names *ctes, int depth, struct exposed *found)
{
    if (q->kind != QUERY_SELECT || q->nctes || q->grouping_sets || q->into ||
        depth > DERIVED_DEEP || ++*p->work > PLAN_MAX_WORK)
        return false;
    for (int i = 0; i < q->nfrom; i++)
        if (item_exposes(p, q, q->from[i], ctes, depth, found))
            return true;
    return false;
}

static int add_derived(struct planner *p, const struct from_item *item, int level,
                       const struct exposed *found)
{
    struct table_rule *rule = arena_new(p->arena, struct table_rule);
    *rule = *found->rule;
    rule->name = visible(item);
    rule->key = found->name;
    if (!rule->name || p->ninstances == PLAN_MAX_INSTANCES) {
        p->too_many |= rule->name != NULL;
        return -1;
    }
    p->instances[p->ninstances] = (struct instance){
        .item = item,
        .rule = rule,
        .set = {.kind = SHARDS_ALL},
        .level = level,
        .blank_padded = found->blank_padded,
        .derived = true,
        .behind = found->rule,
    };
    return p->ninstances++;
}

/* The instance inside that the column is the key of, or -1. */
static int inner_instance(const struct planner *p, const struct scope *scope,
                          const struct exposed *found)
{
    for (int i = scope->first; i < scope->end; i++) {
        const struct instance *instance = &p->instances[i];
        if (instance->item != found->item || instance->nullable || instance->renamed)
            continue;
        const struct expr *e = found->target->expr;
        return e->kind == EXPR_STAR || scope_resolve(p, scope, e) == i ? i : -1;
    }
    return -1;
}

int derived_shown_key(const struct planner *p, const struct query *q, int *target)
{
    struct exposed found = {.item = NULL};
    for (int i = 0; i < p->nlevels; i++) {
        const struct level *level = &p->levels[i];
        if (level->place != LEVEL_TOP || level->query != q)
            continue;
        struct scope scope = {q, NULL, i, level->first, level->end};
        if (!find_exposed(p, q, NULL, 0, &found))
            return -1;
        *target = (int)(found.target - q->targets);
        return inner_instance(p, &scope, &found);
    }
    return -1;
}

/* Whether rows of other keys have no part in what comes out for one key. */
static bool is_by_key(const struct planner *p, const struct scope *scope, int instance)
{
    const struct query *q = scope->query;
    if (q->limit || q->offset || q->windows || q->ndistinct_on || q->locking)
        return false;
    bool grouped = false;
    for (int i = 0; i < q->ngroup_by; i++)
        grouped |= scope_resolve(p, scope, q->group_by[i]) == instance;
    return grouped || (!q->ngroup_by && !q->having);
}

static void tie(struct planner *p, const struct scope *scope, int derived,
                const struct exposed *found, bool alone)
{
    int inner = inner_instance(p, scope, found);
    if (inner >= 0)
        join_add_edge(p, derived, inner, scope->level, alone && is_by_key(p, scope, inner), true);
}

void derived_add_subquery(struct planner *p, const struct from_item *item, int level,
                          const struct cte_names *ctes)
{
    struct exposed found = {.item = NULL};
    if (find_exposed(p, item->subquery, ctes, 0, &found))
        add_derived(p, item, level, &found);
}

void derived_tie_subquery(struct planner *p, const struct scope *inner, int derived,
                          const struct cte_names *ctes)
{
    struct exposed found = {.item = NULL};
    if (find_exposed(p, inner->query, ctes, 0, &found))
        tie(p, inner, derived, &found, true);
}

void derived_add_cte(struct planner *p, const struct from_item *item, const struct cte *cte,
                     int level, const struct cte_names *outside)
{
    struct exposed found = {.item = NULL};
    if (cte->recursive || cte->renamed || !find_exposed(p, cte->query, outside, 0, &found))
        return;
    for (int i = 0; i < p->nlevels; i++) {
        const struct level *inside = &p->levels[i];
        if (inside->query != cte->query)
            continue;
        struct scope scope = {cte->query, NULL, i, inside->first, inside->end};
        int derived = add_derived(p, item, level, &found);
        if (derived >= 0)
            tie(p, &scope, derived, &found, cte->references == 1);
        return;
    }
}
