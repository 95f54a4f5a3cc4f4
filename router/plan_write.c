/* plan_write.c: UPDATE, DELETE and MERGE of sharded tables, and changes of reference tables. */
#include "router/plan_internal.h"

/* ---- the key must not change its shard ---- */

static bool is_own_key(const struct instance *target, const struct expr *value)
{
    if (value->kind != EXPR_COLUMN || !same_name(value->name, target->rule->key))
        return false;
    if (!value->qualifier)
        return true;
    const char *name = target->item->alias ? target->item->alias : target->item->name;
    return same_name(value->qualifier, name);
}

/*
 * Whether assigning `value` to the key leaves the row where it is. `shard` is where the statement runs;
 * a row that an INSERT was going to add (excluded) belongs there already.
 */
static bool stays(struct planner *p, const struct instance *target, const struct expr *value,
                  int shard)
{
    unsigned found = 0;
    if (!value)
        return false;
    if (is_own_key(target, value))
        return true;
    if (value->kind == EXPR_COLUMN && value->qualifier && same_name(value->qualifier, "excluded") &&
        same_name(value->name, target->rule->key))
        return true;
    if (shard < 0)
        return false;
    switch (keyfind_shard(p, target, value, VALUE_ASSIGNED, &found)) {
    case VALUE_KNOWN:
        plan_note_said(p, p->key_is_held);
        return found == (unsigned)shard;
    case VALUE_INVALID:
        return true; /* the server refuses it */
    case VALUE_NOWHERE:
    case VALUE_NULL:
    case VALUE_PENDING:
    case VALUE_OPAQUE:
        return false;
    }
    return false;
}

static void refuse_key_change(struct planner *p, const struct instance *target)
{
    p->moves_key = true;
    plan_refuse(
        p, "Insert the row under its new key and delete the old one, in one transaction.",
        "changing \"%s\", the shard key of table \"%s\", would move the row to another shard, "
        "which is not supported yet",
        target->rule->key, target->rule->name);
}

/* A column of a key that has several: it may be given the value that it has. */
static bool changes_part(const struct instance *target, const struct target *set)
{
    const struct table_rule *rule = target->rule;
    const char *name = target->item->alias ? target->item->alias : target->item->name;
    for (unsigned i = 0; i < rule->nparts; i++) {
        if (!same_name(rule->parts[i], set->alias))
            continue;
        const struct expr *e = set->expr;
        return !e || set->merge_insert || e->kind != EXPR_COLUMN ||
               !same_name(e->name, set->alias) ||
               (e->qualifier && !same_name(e->qualifier, name) &&
                !same_name(e->qualifier, "excluded"));
    }
    return false;
}

static void refuse_part_change(struct planner *p, const struct instance *target, const char *part)
{
    p->moves_key = true;
    plan_refuse(
        p, "Insert the row under its new key and delete the old one, in one transaction.",
        "changing \"%s\", a column of the shard key of table \"%s\", could move the row to another "
        "shard, which is not supported yet",
        part, target->rule->name);
}

/* Values that are known lead to the shard where the row is, or where MERGE's INSERT of that number adds it. */
static bool parts_stay(struct planner *p, const struct instance *target, const struct target *list,
                       int count, int insert, int shard)
{
    return shard >= 0 &&
           composite_stays(p, (int)(target - p->instances), list, count, insert, (unsigned)shard);
}

static struct scope scope_of(const struct planner *p, const struct instance *target)
{
    const struct level *level = &p->levels[target->level];
    return (struct scope){
        .query = level->query, .level = target->level, .first = level->first, .end = level->end};
}

/* A row that a MERGE adds for one of a table which is joined by key is on that one's shard. */
static bool is_source_key(struct planner *p, const struct instance *target,
                          const struct target *set)
{
    const struct scope scope = scope_of(p, target);
    if (!set->merge_insert || !set->expr)
        return false;
    int found = scope_resolve(p, &scope, set->expr);
    return found >= 0 && &p->instances[found] != target && !p->instances[found].nullable;
}

/* The same of a column of a key that has several. */
static bool is_source_part(const struct planner *p, const struct instance *target,
                           const struct target *set)
{
    const struct scope scope = scope_of(p, target);
    for (int i = scope.first; set->merge_insert && set->expr && i < scope.end; i++) {
        const struct instance *source = &p->instances[i];
        int part =
            source == target || source->nullable ? -1 : composite_part(p, &scope, set->expr, i);
        if (part >= 0 && source->rule->keyspace == target->rule->keyspace &&
            same_name(target->rule->parts[part], set->alias))
            return true;
    }
    return false;
}

static bool part_stays(struct planner *p, const struct instance *target, const struct target *set,
                       const struct target *list, int count, int shard)
{
    return !changes_part(target, set) || (shard < 0 && is_source_part(p, target, set)) ||
           parts_stay(p, target, list, count, set->merge_insert, shard);
}

static bool assignments_stay(struct planner *p, const struct instance *target,
                             const struct target *list, int count, int shard)
{
    for (int i = 0; i < count; i++) {
        if (list[i].alias && !part_stays(p, target, &list[i], list, count, shard)) {
            refuse_part_change(p, target, list[i].alias);
            return false;
        }
        if (!list[i].alias || !same_name(list[i].alias, target->rule->key))
            continue;
        if (shard < 0 && is_source_key(p, target, &list[i]))
            continue;
        if (stays(p, target, list[i].expr, shard))
            continue;
        if (p->failed)
            plan_refuse_failed(p);
        else
            refuse_key_change(p, target);
        return false;
    }
    return true;
}

static bool mentions(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

static bool inserts_name_key(const struct query *query, const struct table_rule *rule)
{
    for (unsigned k = 0; k < table_rule_nkeys(rule); k++) {
        int named = 0;
        for (int i = 0; i < query->nconflict_set; i++)
            named += query->conflict_set[i].merge_insert && query->conflict_set[i].alias &&
                     same_name(query->conflict_set[i].alias, table_rule_key(rule, k));
        if (named != query->nmerge_inserts)
            return false;
    }
    return true;
}

/* MERGE's inserts must name the key and give it a value of this shard. */
static bool merge_stays(struct planner *p, const struct query *query, const struct instance *target,
                        int shard)
{
    const char *text = p->statement->text;
    if (target->rule->class == TABLE_PINNED)
        return true; /* wherever its rows go, they stay in the schema */
    struct shard_set told;
    if (shard >= 0 && merge_rows_told(p, query, target, &told) && told.kind == SHARDS_ONE &&
        told.one == (unsigned)shard)
        return true;
    if (mentions(text, "by source") || !inserts_name_key(query, target->rule)) {
        plan_refuse_shape(p, "MERGE into sharded table \"%s\" of this form", target->rule->name);
        return false;
    }
    return assignments_stay(p, target, query->conflict_set, query->nconflict_set, shard);
}

static bool level_keeps_key(struct planner *p, const struct query *query,
                            const struct instance *target, int shard)
{
    if (target->view && !view_may_change(p, target->view, query))
        return false;
    switch (query->kind) {
    case QUERY_UPDATE:
        return assignments_stay(p, target, query->targets, query->ntargets, shard);
    case QUERY_INSERT:
        return assignments_stay(p, target, query->conflict_set, query->nconflict_set, shard);
    case QUERY_MERGE:
        return merge_stays(p, query, target, shard);
    case QUERY_SELECT:
    case QUERY_VALUES:
    case QUERY_SETOP:
    case QUERY_DELETE:
        break;
    }
    return true;
}

bool plan_keeps_key(struct planner *p, const struct query *query, int shard)
{
    (void)query;
    for (int i = 0; i < p->ninstances; i++) {
        const struct instance *instance = &p->instances[i];
        if (instance->target &&
            !level_keeps_key(p, p->levels[instance->level].query, instance, shard))
            return false;
    }
    return true;
}

/* ---- several shards ---- */

void plan_write(struct planner *p, const struct query *query)
{
    const char *name = p->instances[0].rule->name;
    const char *apart = join_not_colocated(p);
    if (query->kind == QUERY_MERGE && (apart || query->nctes || !p->instances[0].target)) {
        plan_refuse_shape(p, "MERGE into sharded table \"%s\" over several shards", name);
        return;
    }
    if (apart || query->nctes) {
        plan_refuse_shape(p, "%s over several shards with %s", p->statement->tag,
                          apart ? apart : "WITH");
        return;
    }
    if (!plan_keeps_key(p, query, -1))
        return;
    struct shard_set reach = plan_top_reach(p);
    if (query->nmerge_inserts) /* rows of the source that match nothing count, too */
        reach = (struct shard_set){.kind = SHARDS_ALL};
    plan_scatter(p, SCATTER_WRITE, &reach, NULL);
    plan_split_lists(p, query);
    plan_append_rows(p, query);
    p->plan->reason = arena_printf(p->arena, "no key of %s pins it to one shard", name);
}

/* ---- reference tables ---- */

static bool is_clock(const struct expr *expr, void *context)
{
    (void)context;
    return expr->kind == EXPR_OTHER && same_name(expr->name, "SQL VALUE FUNCTION");
}

static bool query_has_clock(const struct query *q)
{
    for (int i = 0; i < q->ntargets; i++)
        if (expr_any(q->targets[i].expr, is_clock, NULL))
            return true;
    for (int i = 0; i < q->nconflict_set; i++)
        if (expr_any(q->conflict_set[i].expr, is_clock, NULL))
            return true;
    for (int i = 0; i < q->nrows; i++)
        for (int k = 0; k < q->row_width; k++)
            if (expr_any(q->rows[i][k], is_clock, NULL))
                return true;
    return (q->where && expr_any(q->where, is_clock, NULL)) ||
           (q->source && query_has_clock(q->source));
}

/* What would make the copies differ, or NULL. */
static const char *differing_value(const struct planner *p, const struct query *query)
{
    for (int i = 0; i < p->statement->nfunctions; i++)
        if (function_differs(p, &p->statement->functions[i]))
            return p->statement->functions[i].name;
    return query_has_clock(query) ? "CURRENT_TIMESTAMP or the like" : NULL;
}

static bool is_given(const struct query *query, const char *column, int place)
{
    const struct query *values = query->source;
    bool in_rows = values && values->kind == QUERY_VALUES;
    int position = query->ntargets ? -1 : place;
    for (int i = 0; i < query->ntargets; i++)
        if (same_name(query->targets[i].alias, column))
            position = i;
    if (!values || position < 0)
        return false;
    if (!in_rows) /* what a star stands for is not counted: with it, columns have to be named */
        return query->ntargets || position < values->ntargets;
    if (position >= values->row_width)
        return false;
    for (int i = 0; i < values->nrows; i++)
        if (values->rows[i][position]->kind == EXPR_DEFAULT)
            return false;
    return true;
}

static bool set_to_default(const struct target *targets, int count, const char *column)
{
    for (int i = 0; i < count; i++)
        if (targets[i].expr && targets[i].expr->kind == EXPR_DEFAULT &&
            same_name(targets[i].alias, column))
            return true;
    return false;
}

/* A column that gets its default, where that would make the copies differ; NULL: none. */
static const char *differing_default(struct planner *p, const struct query *query)
{
    const struct from_item *item = query->relation;
    if (query->kind != QUERY_INSERT && query->kind != QUERY_UPDATE)
        return NULL;
    const struct schema_relation *relation =
        p->schema ? schema_relation(p->schema, item->schema, item->name) : NULL;
    if (!relation)
        plan_needs_schema(p, item->schema, item->name);
    for (int i = 0; relation && i < relation->ncolumns; i++) {
        const struct schema_column *column = &relation->columns[i];
        if (!column->default_differs)
            continue;
        if (query->kind == QUERY_INSERT && !is_given(query, column->name, i))
            return column->name;
        if (set_to_default(query->targets, query->ntargets, column->name) ||
            set_to_default(query->conflict_set, query->nconflict_set, column->name))
            return column->name;
    }
    return NULL;
}

void plan_refuse_default(struct planner *p, const char *column, const char *table)
{
    plan_refuse(p,
                arena_printf(p->arena,
                             "Give \"%s\" a value, as a literal or a parameter: all copies have to "
                             "be alike. A sequence is asked for one with SELECT nextval('...').",
                             column),
                "the default of \"%s\" would differ from shard to shard in a change of reference "
                "table \"%s\"",
                column, table);
}

bool plan_reference_defaults(struct planner *p, const struct query *query)
{
    const char *column = differing_default(p, query), *name = p->writes_reference->name;
    for (int i = 0; i < query->nctes && !column; i++)
        column = differing_default(p, query->ctes[i].query);
    if (column)
        plan_refuse_default(p, column, name);
    return !column;
}

void plan_reference_write(struct planner *p)
{
    const char *name = p->writes_reference->name;
    const char *differs = differing_value(p, p->statement->query);
    if (differs) {
        plan_refuse(
            p, "Give the value itself, as a literal or a parameter: all copies have to be alike.",
            "%s would differ from shard to shard in a change of reference table \"%s\"", differs,
            name);
        return;
    }
    if (!plan_reference_defaults(p, p->statement->query))
        return;
    struct shard_set all = {.kind = SHARDS_ALL};
    plan_scatter(p, SCATTER_UTILITY, &all, NULL);
    p->plan->write = true;
    p->plan->reason = arena_printf(p->arena, "change of reference table %s, on every shard", name);
}
