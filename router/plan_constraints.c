/* plan_constraints.c: keys and foreign keys over shards: those that hold, those that cannot, and tables to be sharded. */
#include "router/plan_internal.h"

#define NOTICES_MAX 16

static bool has_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (same_name(names[i], name))
            return true;
    return false;
}

static void notice(struct planner *p, const char *message, const char *hint)
{
    struct plan *plan = p->plan;
    struct pg_error *notices = arena_array(p->arena, struct pg_error, NOTICES_MAX);
    if (plan->nnotices == NOTICES_MAX)
        return;
    for (int i = 0; i < plan->nnotices; i++)
        notices[i] = plan->notices[i];
    notices[plan->nnotices++] = (struct pg_error){
        .severity = "NOTICE", .sqlstate = "00000", .message = message, .hint = hint};
    plan->notices = notices;
}

/* The columns that decide where a table's rows are; none: it is not sharded. */
struct key_columns {
    const char *const *names;
    int count;
};

static struct key_columns key_columns(struct planner *p, const struct table_rule *rule,
                                      const char *said)
{
    if (rule->class == TABLE_SHARDED && rule->parts)
        return (struct key_columns){rule->parts, (int)rule->keyspace->nparts};
    const char *one = rule->class == TABLE_SHARDED ? rule->key : said;
    const char **names = arena_array(p->arena, const char *, 1);
    names[0] = one;
    return (struct key_columns){names, one != NULL};
}

static const char *key_words(struct planner *p, const struct key_columns *key)
{
    const char *words = "";
    for (int i = 0; i < key->count; i++)
        words = arena_printf(p->arena, "%s%s\"%s\"", words, i ? ", " : "", key->names[i]);
    return words;
}

/* ---- foreign keys ---- */

/* The columns of a table's primary key, as far as they are known. */
static int primary_key(const struct planner *p, const struct table_constraint *key,
                       const char **columns, int room)
{
    const struct statement *statement = p->statement;
    const struct schema_relation *relation =
        p->schema ? schema_relation(p->schema, key->schema, key->name) : NULL;
    int count = 0;
    for (int i = 0; relation && i < relation->ncolumns && count < room; i++)
        if (relation->columns[i].primary_key)
            columns[count++] = relation->columns[i].name;
    if (count || !same_name(statement->relations[0].name, key->name))
        return count;
    for (int i = 0; i < statement->nconstraints; i++) { /* it refers to itself */
        const struct table_constraint *own = &statement->constraints[i];
        for (int k = 0; own->kind == CONSTRAINT_PRIMARY_KEY && k < own->ncolumns && k < room; k++)
            columns[count++] = own->columns[k];
    }
    return count;
}

/* Which of its columns stands against the other table's shard key; NULL: none. `known` false: it is left to the
 * server. With a primary key of several columns their order is not known: any pair counts. */
static const char *facing_key(const struct planner *p, const struct table_constraint *key,
                              const char *wanted, const char *own, bool *known)
{
    const char *columns[32];
    int count = primary_key(p, key, columns, 32);
    *known = true;
    for (int i = 0; i < key->nothers && i < key->ncolumns; i++)
        if (same_name(key->others[i], wanted))
            return key->columns[i];
    if (key->nothers)
        return NULL;
    *known = count > 0;
    if (!has_name(columns, count, wanted))
        return NULL;
    if (count == 1 && key->ncolumns == 1)
        return key->columns[0];
    return own && has_name(key->columns, key->ncolumns, own) ? own : NULL;
}

static bool refuse_without_key(struct planner *p, const struct table_constraint *key,
                               const struct key_columns *own, const struct key_columns *other)
{
    const char *ours = key_words(p, own), *theirs = key_words(p, other);
    plan_refuse(p,
                arena_printf(p->arena,
                             "Rows that refer to each other have to be on one shard: FOREIGN KEY "
                             "(%s, ...) REFERENCES \"%s\" (%s, ...). Or do without it.",
                             ours, key->name, theirs),
                "a foreign key to sharded table \"%s\" has to include the shard keys, %s and %s",
                key->name, ours, theirs);
    return false;
}

/* Both are sharded. */
static bool check_colocated(struct planner *p, const struct table_constraint *key,
                            const struct keyspace *keyspace, const struct key_columns *own,
                            const struct table_rule *other, const struct key_columns *theirs)
{
    if (keyspace && keyspace != other->keyspace) {
        plan_refuse(p, "Put both tables into one keyspace, or do without the foreign key.",
                    "a foreign key to \"%s\", which is sharded by another keyspace, cannot be "
                    "checked",
                    key->name);
        return false;
    }
    if (own->count != theirs->count)
        return refuse_without_key(p, key, own, theirs);
    for (int i = 0; i < own->count; i++) {
        bool known;
        const char *facing = facing_key(p, key, theirs->names[i], own->names[i], &known);
        if (known && (!facing || !same_name(facing, own->names[i])))
            return refuse_without_key(p, key, own, theirs);
    }
    return true;
}

static const char *config_line(struct planner *p, const char *table, const char *column)
{
    return arena_printf(p->arena, "{ name = \"%s\"; key = \"%s\"; }", table, column);
}

/* It could be sharded by the same key: says how. */
static bool refuse_to_sharded(struct planner *p, const struct table_constraint *key,
                              const struct table_rule *other)
{
    bool known;
    const char *table = p->statement->relations[0].name,
               *facing = other->parts ? NULL : facing_key(p, key, other->key, NULL, &known);
    const char *hint = "Do without the foreign key, or shard this table by the same key.";
    if (facing)
        hint =
            arena_printf(p->arena,
                         "Shard this table too: put %s into keyspace \"%s\" of the configuration. "
                         "Or say /* pgshunt: shard by %s */ to create it ahead of that. Or do "
                         "without the foreign key.",
                         config_line(p, table, facing), other->keyspace->name, facing);
    plan_refuse(p, hint, "a table on shard %s alone cannot refer to rows of sharded table \"%s\"",
                shardmap_shard_name(p->map, 0), key->name);
    return false;
}

static bool refuse_to_unsharded(struct planner *p, const struct table_constraint *key)
{
    plan_refuse(p,
                "Make the other table a reference table, so that every shard has its rows, or do "
                "without the foreign key.",
                "a table of every shard cannot refer to \"%s\", which is on shard %s alone",
                key->name, shardmap_shard_name(p->map, 0));
    return false;
}

static bool check_foreign_key(struct planner *p, const struct table_constraint *key,
                              const struct table_rule *own)
{
    const struct table_rule *other = plan_rule(p, key->schema, key->name);
    struct key_columns columns = key_columns(p, own, p->hints->shard_by),
                       others = key_columns(p, other, NULL);
    bool self = same_name(key->name, p->statement->relations[0].name);
    if (other->class == TABLE_REFERENCE || (self && !columns.count))
        return true;
    if (self)
        return check_colocated(p, key, own->keyspace, &columns, own, &columns);
    if (other->class == TABLE_UNSHARDED)
        return columns.count || own->class == TABLE_REFERENCE ? refuse_to_unsharded(p, key) : true;
    if (columns.count)
        return check_colocated(p, key, own->keyspace, &columns, other, &others);
    if (own->class == TABLE_UNSHARDED)
        return refuse_to_sharded(p, key, other);
    plan_refuse(p, "Do without the foreign key.",
                "a reference table, which is on every shard, cannot refer to rows of sharded table "
                "\"%s\"",
                key->name);
    return false;
}

/* ---- unique keys ---- */

static void note_unique(struct planner *p, const struct table_constraint *unique,
                        const struct key_columns *key)
{
    const char *table = p->statement->relations[0].name, *words = key_words(p, key);
    bool whole = unique->ncolumns == 0 && strcasestr(p->statement->text, "using index");
    int included = 0;
    for (int i = 0; i < key->count; i++)
        included += has_name(unique->columns, unique->ncolumns, key->names[i]);
    if (whole || included == key->count)
        return;
    notice(p,
           arena_printf(p->arena,
                        "%s without %s, the shard key of table \"%s\", holds on each shard by "
                        "itself",
                        unique->kind == CONSTRAINT_UNIQUE ? "UNIQUE" : "PRIMARY KEY", words, table),
           arena_printf(p->arena,
                        "Two shards may have rows with the same value. Include %s, or give "
                        "values that are unique by themselves (pgshunt.next_id(), interleaved "
                        "sequences).",
                        words));
}

/* ---- tables that are to be sharded ---- */

/* The keyspace that a foreign key shows, else the only one there is; NULL: not known. */
static const struct keyspace *meant_keyspace(const struct planner *p, const char *column)
{
    const struct statement *statement = p->statement;
    bool known;
    for (int i = 0; i < statement->nconstraints; i++) {
        const struct table_constraint *key = &statement->constraints[i];
        const struct table_rule *other =
            key->kind == CONSTRAINT_FOREIGN_KEY ? plan_rule(p, key->schema, key->name) : NULL;
        if (other && other->class == TABLE_SHARDED && !other->parts) {
            const char *facing = facing_key(p, key, other->key, column, &known);
            if (facing && same_name(facing, column))
                return other->keyspace;
        }
    }
    return shardmap_keyspaces(p->map) == 1 ? shardmap_keyspace(p->map, 0) : NULL;
}

void plan_refuse_undeclared(struct planner *p, const char *table)
{
    const char *column = p->hints->shard_by;
    const struct keyspace *keyspace = meant_keyspace(p, column);
    plan_refuse(p,
                arena_printf(p->arena,
                             "Put %s into the tables of %s%s%s and reload, then say it again: the "
                             "table need not be there yet. Or make it WITH NO DATA.",
                             config_line(p, table, column), keyspace ? "keyspace \"" : "a keyspace",
                             keyspace ? keyspace->name : "", keyspace ? "\"" : ""),
                "%s of rows by \"%s\" into table \"%s\", which is not sharded in the "
                "configuration, is not supported",
                p->statement->tag, column, table);
}

bool plan_take_shard_by(struct planner *p, const char *table, const struct table_rule *own)
{
    const char *column = p->hints->shard_by;
    if (!column || (own->class == TABLE_SHARDED && !own->parts && same_name(own->key, column)))
        return true;
    if (own->class != TABLE_UNSHARDED) {
        plan_refuse_state(p, "22023", "Leave the comment out, or change the configuration.",
                          own->class == TABLE_SHARDED
                              ? "table \"%s\" is sharded by \"%s\" in the configuration"
                              : "table \"%s\" is a reference table in the configuration%.0s",
                          table, own->key ? own->parts ? "several columns" : own->key : "");
        return false;
    }
    const struct keyspace *keyspace = meant_keyspace(p, column);
    notice(p,
           arena_printf(p->arena,
                        "table \"%s\" is made on every shard; it is sharded by \"%s\" once the "
                        "configuration says so",
                        table, column),
           arena_printf(p->arena,
                        "Put %s into the tables of %s%s%s and reload. Until then its rows are on "
                        "shard %s alone.",
                        config_line(p, table, column), keyspace ? "keyspace \"" : "a keyspace",
                        keyspace ? keyspace->name : "", keyspace ? "\"" : "",
                        shardmap_shard_name(p->map, 0)));
    return true;
}

bool plan_constraints(struct planner *p)
{
    const struct statement *statement = p->statement;
    if (!statement->nrelations)
        return true;
    const struct table_rule *own =
        plan_rule(p, statement->relations[0].schema, statement->relations[0].name);
    for (int i = 0; i < statement->nconstraints; i++)
        if (statement->constraints[i].kind == CONSTRAINT_FOREIGN_KEY &&
            !check_foreign_key(p, &statement->constraints[i], own))
            return false;
    if (!plan_take_shard_by(p, statement->relations[0].name, own))
        return false;
    struct key_columns key = key_columns(p, own, p->hints->shard_by);
    for (int i = 0; key.count && i < statement->nconstraints; i++)
        if (statement->constraints[i].kind != CONSTRAINT_FOREIGN_KEY)
            note_unique(p, &statement->constraints[i], &key);
    return true;
}
