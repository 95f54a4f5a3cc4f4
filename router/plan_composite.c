/*
 * plan_composite.c: keys of several columns, (tenant_id, user_id).
 *
 * The rule of such a table has no key column that a single condition could be about; here its *parts* are
 * found one by one. Where all have a value, the values together are like that of a key: EXPR_ROW, which
 * keyfind_shard() understands. Some of them prove nothing.
 */
#include "router/plan_internal.h"

#define MAX_COMBINATIONS 256

/* What conditions say about the parts of one instance's key. */
struct parts {
    const struct expr *values[SHARDMAP_MAX_PARTS]; /* `= value`, or `IN (values)` */
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

static int value_count(const struct expr *e)
{
    return e->kind == EXPR_IN ? e->nargs - 1 : 1;
}

/* The shards of all combinations of the parts' values. False: some part has none. */
static bool combine(struct planner *p, int i, const struct parts *parts, struct shard_set *set)
{
    unsigned n = p->instances[i].rule->nparts;
    struct expr *args[SHARDMAP_MAX_PARTS];
    struct expr row = {.kind = EXPR_ROW, .args = args, .nargs = (int)n};
    int total = 1;
    for (unsigned k = 0; k < n; k++) {
        if (!parts->values[k])
            return false;
        total *= value_count(parts->values[k]);
        if (total > MAX_COMBINATIONS)
            return false;
    }
    set->kind = SHARDS_NONE;
    for (int c = 0; c < total; c++) {
        struct shard_set one;
        int rest = c;
        for (unsigned k = 0; k < n; k++) {
            const struct expr *e = parts->values[k];
            int count = value_count(e);
            args[k] = e->kind == EXPR_IN ? e->args[1 + rest % count] : (struct expr *)e;
            rest /= count;
        }
        if (!keyfind_equal(p, &p->instances[i], &row, &one))
            return false;
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    }
    return true;
}

/* Notes a value for a part, unless there is one that is understood already. */
static void note(struct planner *p, int i, int part, const struct expr *value, struct parts *parts)
{
    if (!parts->values[part] && keyfind_part_known(p, &p->instances[i], (unsigned)part, value))
        parts->values[part] = value;
}

static void note_equal(struct planner *p, const struct scope *scope, int i, const struct expr *left,
                       const struct expr *right, struct parts *parts)
{
    int part = composite_part(p, scope, left, i);
    if (part >= 0)
        note(p, i, part, right, parts);
    part = composite_part(p, scope, right, i);
    if (part >= 0)
        note(p, i, part, left, parts);
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
    } else if (e->kind == EXPR_IN && !e->negated && e->nargs > 1) {
        int part = composite_part(p, scope, e->args[0], i);
        bool known = part >= 0;
        for (int k = 1; k < e->nargs && known; k++)
            known = keyfind_part_known(p, &p->instances[i], (unsigned)part, e->args[k]);
        if (known && !parts->values[part])
            parts->values[part] = e;
    }
}

/* `(a, b) IN ((1, 2), (3, 4))`. */
static bool row_list(struct planner *p, const struct scope *scope, int i, const struct expr *e,
                     struct shard_set *set)
{
    const struct expr *left = e->args[0];
    set->kind = SHARDS_NONE;
    for (int k = 1; k < e->nargs; k++) {
        struct parts parts = {{NULL}};
        struct shard_set one;
        if (!is_row_pair(left, e->args[k]))
            return false;
        for (int c = 0; c < left->nargs; c++)
            note_equal(p, scope, i, left->args[c], e->args[k]->args[c], &parts);
        if (!combine(p, i, &parts, &one))
            return false;
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    }
    return true;
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
    if (combine(p, i, &parts, set))
        return true;
    if (e->kind == EXPR_IN && !e->negated && e->nargs > 1 && e->args[0]->kind == EXPR_ROW)
        return row_list(p, scope, i, e, set);
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

bool composite_joined(const struct planner *p, const struct scope *scope, int a, int b,
                      const struct expr *e)
{
    return of_one_keyspace(p, a, b) &&
           joined_parts(p, scope, a, b, e) == (1U << p->instances[a].rule->nparts) - 1;
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

const struct expr *composite_assigned(struct planner *p, int i, const struct target *list,
                                      int count, int insert)
{
    const struct level *level = &p->levels[p->instances[i].level];
    const struct scope scope = {.query = level->query,
                                .level = p->instances[i].level,
                                .first = level->first,
                                .end = level->end};
    const struct table_rule *rule = p->instances[i].rule;
    struct parts parts = {{NULL}};
    struct expr *row = arena_new(p->arena, struct expr);
    *row =
        (struct expr){.kind = EXPR_ROW, .args = arena_array(p->arena, struct expr *, rule->nparts)};
    if (level->query->kind == QUERY_UPDATE && level->query->where)
        note_all(p, &scope, i, level->query->where, &parts);
    for (unsigned k = 0; k < rule->nparts; k++) {
        const struct expr *value = parts.values[k];
        if (value && value->kind == EXPR_IN)
            value = value->nargs == 2 ? value->args[1] : NULL;
        for (int t = 0; t < count; t++)
            if (list[t].merge_insert == insert && list[t].alias &&
                same_name(list[t].alias, rule->parts[k]) &&
                !(list[t].expr && composite_part(p, &scope, list[t].expr, i) == (int)k))
                value = list[t].expr;
        if (!value)
            return NULL;
        row->args[row->nargs++] = (struct expr *)value;
    }
    return row;
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
