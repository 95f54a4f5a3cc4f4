/*
 * plan_merge.c: MERGE whose source is not where its target's rows are.
 *
 * ON has to say what each column of the target's key is equal to, in terms of the source alone: its *partner*.
 * Then a row of the source concerns one shard, that of its partners' values, provided that what it adds has the
 * same key. Where the source is VALUES, or one row of SELECT, these values may be in the text, and lead to one
 * shard; else the source's rows are read first, and each shard gets a MERGE of those that are for it.
 */
#include "router/plan_change_internal.h"

struct partners {
    struct planner *p;
    const struct query *query;
    const struct instance *target;
    unsigned nkeys;
    struct rewrite_partner at[SHARDMAP_MAX_PARTS];
    const struct expr *value[SHARDMAP_MAX_PARTS]; /* NULL: none was found */
    int condition;                                /* the one that is looked at */
};

static const char *visible_name(const struct from_item *item)
{
    return item->alias ? item->alias : item->name;
}

/* ---- partners ---- */

/* Whether the target may have a column of that name. */
static bool target_may_have(const struct partners *s, const char *name)
{
    const struct from_item *item = s->query->relation;
    const struct schema_relation *relation =
        s->p->schema ? plan_relation(s->p, item->schema, item->name) : NULL;
    return !relation || !relation->ncolumns || schema_column(relation, name);
}

static const struct from_item *source_of(const struct partners *s)
{
    const struct from_item *source = s->query->from[0];
    return source->kind == FROM_OTHER && source->left && !source->alias ? source->left : source;
}

/* A column of the source, cast or not. `alone`: where columns of the target are not to be seen. */
static bool is_of_source(const struct partners *s, const struct expr *e, bool alone)
{
    while (e->kind == EXPR_CAST)
        e = e->args[0];
    const char *name = visible_name(source_of(s));
    if (e->kind != EXPR_COLUMN || e->schema || !name)
        return false;
    return e->qualifier ? same_name(e->qualifier, name) : alone || !target_may_have(s, e->name);
}

/* The same column, cast in the same way; both are the source's. */
static bool is_same_value(const struct expr *a, const struct expr *b)
{
    for (; a->kind == EXPR_CAST && b->kind == EXPR_CAST; a = a->args[0], b = b->args[0]) {
        struct expr left = *a, right = *b;
        struct expr none = {.kind = EXPR_CONST};
        struct expr *args[] = {&none};
        left.args = right.args = args;
        if (!expr_same(&left, &right))
            return false;
    }
    return a->kind == EXPR_COLUMN && b->kind == EXPR_COLUMN && same_name(a->name, b->name);
}

/* Which column of the target's key it is; -1: none. */
static int key_part(const struct partners *s, const struct expr *e)
{
    const struct level *level = &s->p->levels[s->target->level];
    const struct scope scope = {
        .query = level->query, .level = s->target->level, .first = level->first, .end = level->end};
    int target = (int)(s->target - s->p->instances);
    if (s->target->rule->nparts)
        return composite_part(s->p, &scope, e, target);
    return scope_resolve(s->p, &scope, e) == target ? 0 : -1;
}

static void note_pair(struct partners *s, const struct expr *key, const struct expr *value,
                      int column, int side)
{
    int part = key_part(s, key);
    if (part < 0 || s->value[part] || !is_of_source(s, value, false))
        return;
    s->value[part] = value;
    s->at[part] = (struct rewrite_partner){s->condition, column, side};
}

static void note_equal(struct partners *s, const struct expr *left, const struct expr *right,
                       int column)
{
    note_pair(s, left, right, column, 1);
    note_pair(s, right, left, column, 0);
}

static void note_condition(struct partners *s, const struct expr *e)
{
    if (e->kind == EXPR_AND) {
        for (int i = 0; i < e->nargs; i++)
            note_condition(s, e->args[i]);
        return;
    }
    if (e->kind == EXPR_OP && e->nargs == 2 && join_is_equals(e)) {
        const struct expr *left = e->args[0], *right = e->args[1];
        bool rows =
            left->kind == EXPR_ROW && right->kind == EXPR_ROW && left->nargs == right->nargs;
        for (int i = 0; rows && i < left->nargs; i++)
            note_equal(s, left->args[i], right->args[i], i);
        if (!rows)
            note_equal(s, left, right, -1);
    }
    s->condition++;
}

/* False: ON does not say them all. */
static bool find_partners(struct planner *p, const struct query *query,
                          const struct instance *target, struct partners *s)
{
    *s = (struct partners){
        .p = p, .query = query, .target = target, .nkeys = table_rule_nkeys(target->rule)};
    if (!query->where || query->nfrom != 1 || query->nreturning || target->renamed ||
        target->view || strcasestr(p->statement->text, "by source"))
        return false;
    note_condition(s, query->where);
    for (unsigned k = 0; k < s->nkeys; k++)
        if (!s->value[k])
            return false;
    return true;
}

/* ---- what is assigned ---- */

/* The part of the key that the column is; -1: none. */
static int part_named(const struct partners *s, const char *name)
{
    for (unsigned k = 0; k < s->nkeys; k++)
        if (same_name(table_rule_key(s->target->rule, k), name))
            return (int)k;
    return -1;
}

static bool is_own_column(const struct partners *s, const struct expr *e, const char *name)
{
    return e->kind == EXPR_COLUMN && e->qualifier && same_name(e->name, name) && !e->schema &&
           same_name(e->qualifier, visible_name(s->target->item));
}

/* Where no columns are named, values are for the table's own in their order. NULL: not known. */
static const char *column_at(const struct partners *s, const struct target *set, int place)
{
    const struct from_item *item = s->query->relation;
    const struct schema_relation *relation =
        s->p->schema ? plan_relation(s->p, item->schema, item->name) : NULL;
    if (set->alias)
        return set->alias;
    return relation && place < relation->ncolumns ? relation->columns[place].name : NULL;
}

/* Every row that is added has its partners' key, and none that is updated gets another. */
static bool keeps_keys(const struct partners *s)
{
    const struct query *query = s->query;
    int given = 0, place = 0, insert = 0;
    for (int i = 0; i < query->nconflict_set; i++) {
        const struct target *set = &query->conflict_set[i];
        place = set->merge_insert && set->merge_insert == insert ? place + 1 : 0;
        insert = set->merge_insert;
        const char *name = column_at(s, set, place);
        int part = name ? part_named(s, name) : -1;
        if (!name || !set->expr)
            return false;
        if (part < 0)
            continue;
        if (!(is_of_source(s, set->expr, insert > 0) && is_same_value(set->expr, s->value[part])) &&
            (insert || !is_own_column(s, set->expr, name)))
            return false;
        given += insert > 0;
    }
    return given == query->nmerge_inserts * (int)s->nkeys;
}

/* ---- values that are in the text ---- */

/* The place of a column among the source's; -1: not known. */
static int source_position(const struct from_item *source, const char *name)
{
    const struct query *rows = source->subquery;
    int found = -1;
    for (int i = 0; rows->kind == QUERY_SELECT && i < rows->ntargets; i++) {
        if (rows->targets[i].expr->kind == EXPR_STAR)
            return -1;
        const char *own = i < source->ncolumns ? source->columns[i] : rows->targets[i].alias;
        if (own && same_name(own, name))
            found = found < 0 ? i : -2;
    }
    for (int i = 0; rows->kind == QUERY_VALUES && i < source->ncolumns; i++)
        if (i < rows->row_width && same_name(source->columns[i], name))
            found = found < 0 ? i : -2;
    return found;
}

/* Rows that are all there, in the text: VALUES, or one row of SELECT, perhaps with a WHERE. */
static int told_rows(const struct from_item *source)
{
    const struct query *rows = source->subquery;
    if (!rows || rows->nctes)
        return 0;
    if (rows->kind == QUERY_VALUES)
        return rows->nrows;
    return rows->kind == QUERY_SELECT && !rows->nfrom && !rows->ngroup_by && !rows->having ? 1 : 0;
}

/* What the source's row has for the column, cast as the partner is. */
static const struct expr *value_of(struct planner *p, const struct expr *partner,
                                   const struct query *rows, int row, int position)
{
    if (partner->kind != EXPR_CAST)
        return rows->kind == QUERY_VALUES ? rows->rows[row][position]
                                          : rows->targets[position].expr;
    struct expr *cast = arena_new(p->arena, struct expr);
    *cast = *partner;
    cast->args = arena_array(p->arena, struct expr *, 1);
    cast->args[0] = (struct expr *)value_of(p, partner->args[0], rows, row, position);
    return cast;
}

static const struct expr *key_of_row(const struct partners *s, int row)
{
    const struct from_item *source = s->query->from[0];
    struct expr *key = arena_new(s->p->arena, struct expr);
    *key = (struct expr){.kind = EXPR_ROW,
                         .nargs = (int)s->nkeys,
                         .args = arena_array(s->p->arena, struct expr *, s->nkeys)};
    for (unsigned k = 0; k < s->nkeys; k++) {
        const struct expr *column = s->value[k];
        while (column->kind == EXPR_CAST)
            column = column->args[0];
        int position = source_position(source, column->name);
        if (position < 0)
            return NULL;
        key->args[k] = (struct expr *)value_of(s->p, s->value[k], source->subquery, row, position);
    }
    return s->target->rule->nparts ? key : key->args[0];
}

/* The shards of all rows of the source; false: they cannot be told. */
static bool told_shards(const struct partners *s, struct shard_set *set)
{
    struct planner *p = s->p;
    int count = told_rows(s->query->from[0]);
    *set = (struct shard_set){.kind = SHARDS_NONE};
    for (int i = 0; i < count; i++) {
        unsigned shard = 0;
        const struct expr *key = key_of_row(s, i);
        if (!key)
            return false;
        enum value_state state = keyfind_shard(p, s->target, key, VALUE_ASSIGNED, &shard);
        if (state == VALUE_PENDING) {
            p->pending = true;
            continue;
        }
        if (state != VALUE_KNOWN)
            return false;
        struct shard_set one = {.kind = SHARDS_ONE, .one = shard, .not_held = !p->key_is_held};
        *set = shards_union(p->arena, shardmap_shards(p->map), set, &one);
    }
    return count > 0;
}

bool merge_rows_told(struct planner *p, const struct query *query, const struct instance *target,
                     struct shard_set *set)
{
    struct partners s;
    return target->rule->class == TABLE_SHARDED && find_partners(p, query, target, &s) &&
           keeps_keys(&s) && told_shards(&s, set);
}

/* ---- rows that are read first ---- */

/* Columns of what is read whose collation is not what a value of their type has by itself. */
static const char **find_collated(const struct making *m, int *count)
{
    const struct planner *p = m->p;
    const struct statement *statement = p->statement;
    const char **names = NULL;
    int room = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass)
            names = arena_array(p->arena, const char *, room + 1);
        *count = 0;
        for (int i = 0; i < statement->nrelations; i++) {
            const struct relation_ref *ref = &statement->relations[i];
            const struct schema_relation *relation =
                ref->written ? NULL : plan_relation(p, ref->schema, ref->name);
            for (int k = 0; relation && k < relation->ncolumns; k++)
                if (!relation->columns[k].collation_default) {
                    if (pass)
                        names[*count] = relation->columns[k].name;
                    ++*count;
                }
        }
        room = *count;
    }
    return names;
}

static bool calls_nextval(const struct statement *statement)
{
    for (int i = 0; i < statement->nfunctions; i++)
        if (same_name(statement->functions[i].name, "nextval"))
            return true;
    return false;
}

static bool is_merge(const struct making *m)
{
    const struct planner *p = m->p;
    return m->rule->class == TABLE_SHARDED &&
           (m->relation->kind == 'r' || m->relation->kind == 'p') &&
           !(p->statement->facts & FACT_MODIFYING_CTE) && !calls_nextval(p->statement);
}

static bool frame_merge(struct making *m, struct rewrite_merge *merge)
{
    struct planner *p = m->p;
    struct change_rows *rows = &m->change->rows;
    if (making_hides_target(m)) {
        merge->schema = m->relation->schema;
        if (!rewrite_merge(p->statement->text, merge, p->arena))
            return false;
    }
    rows->head = merge->head;
    rows->alias = merge->alias;
    rows->tail = merge->tail;
    if (!rows->tail.params)
        rows->tail.nparams = p->statement->max_param;
    return true;
}

static bool never_null(const struct making *m)
{
    for (unsigned k = 0; k < table_rule_nkeys(m->rule); k++) {
        const struct schema_column *column = schema_column(m->relation, table_rule_key(m->rule, k));
        if (!column || !column->primary_key)
            return false;
    }
    return true;
}

static void fill_merge(struct making *m)
{
    struct change_rows *rows = &m->change->rows;
    making_fill_rows(m, rows);
    rows->skip = (int)rows->nkeys;
    for (unsigned k = 0; k < rows->nkeys; k++)
        rows->keys[k].position = (int)k;
    rows->compared = true;
    rows->adds = m->query->nmerge_inserts > 0;
    rows->never_null = never_null(m);
    rows->in_one_statement = true;
    m->change->verb = "MERGE";
}

void change_merge(struct making *m)
{
    struct planner *p = m->p;
    int target = making_target(m);
    struct partners s;
    if (!is_merge(m) || target < 0 || !find_partners(p, m->query, &p->instances[target], &s) ||
        !keeps_keys(&s))
        return;
    struct rewrite_merge merge = {.partners = s.at, .npartners = s.nkeys};
    merge.collated = find_collated(m, &merge.ncollated);
    m->change = arena_new(p->arena, struct change_plan);
    if (!rewrite_merge(p->statement->text, &merge, p->arena) || !making_sources(m, &merge.source) ||
        !frame_merge(m, &merge))
        return;
    fill_merge(m);
    making_finish(m, m->change->sources[0].shard,
                  arena_printf(p->arena, "rows of MERGE's source into %s", m->relation->name));
    making_explain(m, m->change->sources, m->change->nsources);
}
