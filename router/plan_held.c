/* plan_held.c: whether a statement is about rows of buckets that are held, because they are moving. */
#include "router/plan_internal.h"

#define MAX_DEEP 64

/*
 * What is not known to be about other buckets is about these. Queries go by what their conditions leave of each
 * table (shard_set.not_held), and by the keys that rows are given; what goes by a shard's name, and what is no
 * query, by the tables named. What only looks at the catalog, or at tables of no keyspace, never waits. Where whole
 * tables are held, everything that names one waits.
 */

static bool has_held(const struct table_rule *rule)
{
    return rule->class == TABLE_SHARDED && rule->keyspace && rule->keyspace->held;
}

void plan_note_held(struct planner *p)
{
    if (!p->touches_held)
        return;
    for (int i = 0; i < p->ninstances; i++) {
        const struct instance *instance = &p->instances[i];
        if (has_held(instance->rule) && !instance->derived && !p->said_not_held &&
            !shards_not_held(&instance->set))
            *p->touches_held = true;
    }
}

void plan_note_said(struct planner *p, bool held)
{
    if (p->touches_held && held)
        *p->touches_held = true;
}

/* A table that is held is known by its name, whatever it is; so are its partitions, and views of it. */
static bool is_held_table(const struct planner *p, const char *schema, const char *name, int depth)
{
    if (shardmap_table(p->map, schema, name)->held || depth > MAX_DEEP)
        return true;
    const struct schema_relation *relation =
        p->schema ? schema_relation_any(p->schema, schema, name) : NULL;
    if (!relation)
        return false;
    if (relation->parent && is_held_table(p, relation->parent_schema, relation->parent, depth + 1))
        return true;
    for (const struct schema_part *part = relation->kind == 'v' ? relation->parts : NULL; part;
         part = part->next)
        if (part->kind == PART_RELATION && is_held_table(p, part->schema, part->name, depth + 1))
            return true;
    return relation->kind == 'v' && !relation->resolved;
}

/* What is not understood may name one. */
static bool uses_held_table(const struct planner *p, const struct statement *statement)
{
    if (statement && statement->syntax_error)
        return true;
    for (int i = 0; statement && i < statement->nrelations; i++) {
        const struct relation_ref *ref = &statement->relations[i];
        if (is_held_table(p, plan_schema_of(p, ref->schema, ref->name), ref->name, 0))
            return true;
    }
    return false;
}

static bool names_held(const struct planner *p, const struct statement *statement)
{
    for (int i = 0; statement && i < statement->nrelations; i++) {
        const struct relation_ref *ref = &statement->relations[i];
        if (has_held(plan_rule(p, ref->schema, ref->name)))
            return true;
    }
    return false;
}

void plan_note_names(struct planner *p)
{
    if (p->touches_held && names_held(p, p->statement))
        *p->touches_held = true;
}

/* One whose tables are used as the statement stands; not what is only prepared, or declared to be made. */
static bool goes_by_names(const struct statement *statement)
{
    return statement->kind != STMT_QUERY && statement->kind != STMT_PREPARE && !statement->inner;
}

void plan_settle_held(struct planner *p, bool by_name)
{
    struct plan *plan = p->plan;
    const struct statement *statement = p->input->statement;
    bool touches = *p->touches_held;
    /* Where a change's rows are to go is seen when they are read. */
    bool moves = plan->kind == PLAN_SCATTER && plan->mode == SCATTER_CHANGE;
    if (by_name || moves || goes_by_names(statement))
        touches |= names_held(p, statement) || names_held(p, statement->inner);
    if (shardmap_held_table(p->map, 0) && statement->kind != STMT_PREPARE)
        touches |= uses_held_table(p, statement) || uses_held_table(p, statement->inner);
    plan->touches_held = touches && plan->kind != PLAN_REFUSE;
}
