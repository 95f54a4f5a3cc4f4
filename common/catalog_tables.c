/* catalog_tables.c: what is recorded of tables: which entered a keyspace or left it, whatever the configuration says. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_internal.h"

/* ---- laying them over the configuration's map ---- */

static bool no_keyspace(const struct catalog_rule *rule, struct db_error *error)
{
    catalog_refuse(error, "F0000", "");
    snprintf(error->text, sizeof error->text,
             "table \"%s\" is recorded as one of keyspace \"%s\", which the configuration does not "
             "have with a key of %d columns",
             rule->name, rule->keyspace, rule->ncolumns);
    snprintf(error->hint, sizeof error->hint,
             "Put keyspace \"%s\" into the configuration; \"pgshuntctl move-table create ... "
             "--out\" takes the table out of it.",
             rule->keyspace);
    return false;
}

/* Buckets alone can be the rows' that a table brings. */
static int keyspace_of(const struct shardmap *map, const struct catalog_rule *rule)
{
    int index = shardmap_keyspace_by_name(map, rule->keyspace);
    const struct keyspace *keyspace = index < 0 ? NULL : shardmap_keyspace(map, (unsigned)index);
    unsigned columns = keyspace && keyspace->nparts ? keyspace->nparts : 1;
    return keyspace && rule->ncolumns == (int)columns ? index : -1;
}

bool catalog_lay_tables(struct shardmap *map, const struct catalog_map *recorded,
                        struct db_error *error)
{
    for (int i = 0; i < recorded->nrules; i++) {
        const struct catalog_rule *rule = &recorded->rules[i];
        int keyspace = rule->keyspace ? keyspace_of(map, rule) : -1;
        if (rule->keyspace && keyspace < 0)
            return no_keyspace(rule, error);
        shardmap_set_table(map, rule->name, keyspace, rule->columns, (unsigned)rule->ncolumns);
    }
    return true;
}

const char *catalog_other_table(const struct database_config *database,
                                const struct catalog_map *recorded)
{
    struct shardmap *map = shardmap_of_config(database);
    const char *other = NULL;
    for (int i = 0; i < recorded->nrules && !other; i++) {
        const struct catalog_rule *rule = &recorded->rules[i];
        int keyspace = rule->keyspace ? keyspace_of(map, rule) : -1;
        if ((rule->keyspace && keyspace < 0) ||
            !shardmap_table_is(map, rule->name, keyspace, rule->columns, (unsigned)rule->ncolumns))
            other = rule->name;
    }
    shardmap_free(map);
    return other;
}

/* ---- writing ---- */

static char *columns_json(const struct catalog_rule *rule)
{
    json_t *list = json_array();
    for (int i = 0; i < rule->ncolumns; i++)
        json_array_append_new(list, json_string(rule->columns[i]));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

#define INSERT_RULE                                                                                \
    "INSERT INTO pgshunt.table_rule (database, name, keyspace, columns, job) SELECT $1, $2, $3, "  \
    "ARRAY(SELECT jsonb_array_elements_text($4::jsonb)), $5 ON CONFLICT (database, name) DO "

static bool write_rule(struct db *db, const char *database, const char *job,
                       const struct catalog_rule *rule, bool replace, bool *changed,
                       struct db_error *error)
{
    char *columns = columns_json(rule);
    PGresult *result = db_query(
        db, CATALOG_MS, error,
        replace ? INSERT_RULE "UPDATE SET keyspace = excluded.keyspace, columns = excluded.columns"
                : INSERT_RULE "NOTHING",
        5, database, rule->name, rule->keyspace, columns, job);
    free(columns);
    *changed |= result && atoi(PQcmdTuples(result)) > 0;
    PQclear(result);
    return result != NULL;
}

struct keeping {
    const char *job;
    const struct catalog_rule *rules;
    int count;
};

static bool keep(struct db *db, const char *database, const void *arg, bool *changed,
                 struct db_error *error)
{
    const struct keeping *keeping = arg;
    for (int i = 0; i < keeping->count; i++)
        if (!write_rule(db, database, keeping->job, &keeping->rules[i], false, changed, error))
            return false;
    return true;
}

bool catalog_keep_tables(struct db *db, const char *database, const char *job,
                         const struct catalog_rule *rules, int count, struct db_error *error)
{
    struct keeping keeping = {job, rules, count};
    return catalog_change(db, database, job, keep, &keeping, error);
}

struct settling {
    const char *job;
    bool forget;
};

static bool settle(struct db *db, const char *database, const void *arg, bool *changed,
                   struct db_error *error)
{
    const struct settling *settling = arg;
    PGresult *result =
        db_query(db, CATALOG_MS, error,
                 settling->forget
                     ? "DELETE FROM pgshunt.table_rule WHERE database = $1 AND job = $2"
                     : "UPDATE pgshunt.table_rule SET job = NULL WHERE database = $1 AND job = $2",
                 2, database, settling->job);
    *changed = result && settling->forget && atoi(PQcmdTuples(result)) > 0;
    PQclear(result);
    return result != NULL;
}

bool catalog_settle_tables(struct db *db, const char *database, const char *job, bool forget,
                           struct db_error *error)
{
    struct settling settling = {job, forget};
    return catalog_change(db, database, job, settle, &settling, error);
}

/* ---- the switch ---- */

static bool owners_are(struct db *db, const char *database, const struct catalog_move *owner,
                       struct db_error *error)
{
    char first[16], last[16];
    snprintf(first, sizeof first, "%u", owner->range.first);
    snprintf(last, sizeof last, "%u", owner->range.last);
    PGresult *rows = db_query(db, CATALOG_MS, error,
                              "SELECT FROM pgshunt.bucket WHERE database = $1 AND keyspace = $2 "
                              "AND last >= $3::int AND first <= $4::int AND shard <> $5",
                              5, database, owner->range.keyspace, first, last, owner->target);
    if (rows && PQntuples(rows))
        catalog_refuse(error, "40001", "the buckets have got another owner meanwhile");
    bool are = rows && !PQntuples(rows);
    PQclear(rows);
    return are;
}

static bool turn_tables(struct db *db, const char *database, const void *arg, bool *changed,
                        struct db_error *error)
{
    const struct catalog_turn *turn = arg;
    bool done = true;
    for (int i = 0; done && i < turn->nowners; i++)
        done = owners_are(db, database, &turn->owners[i], error);
    for (int i = 0; done && i < turn->nrules; i++)
        done = write_rule(db, database, turn->job, &turn->rules[i], true, changed, error);
    return done && catalog_write_ghost(db, database, turn->keyspace, turn->home, turn->job,
                                       turn->ghosts, changed, error);
}

bool catalog_flip_tables(struct db *db, const char *database, const struct catalog_turn *turn,
                         struct db_error *error)
{
    struct catalog_attempt attempt = {turn->job, turn->attempt, turn->state, turn->hold,
                                      turn->epoch};
    return catalog_finish_attempt(db, database, &attempt, turn_tables, turn, error);
}
