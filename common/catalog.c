/* catalog.c: the map of buckets in Postgres: its tables, reading and recording it. */
#include "pgshunt/catalog.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog_internal.h"

/* ---- the tables ---- */

#define TABLES                                                                                     \
    "CREATE TABLE IF NOT EXISTS pgshunt.epoch (database text PRIMARY KEY, epoch bigint NOT NULL, " \
    "changed_at timestamptz NOT NULL DEFAULT now(), job text); "                                   \
    "CREATE TABLE IF NOT EXISTS pgshunt.bucket (database text, keyspace text, first int, "         \
    "last int NOT NULL, shard text NOT NULL, PRIMARY KEY (database, keyspace, first), "            \
    "CHECK (first BETWEEN 0 AND last AND last < 16384)); "                                         \
    "CREATE TABLE IF NOT EXISTS pgshunt.ghost (database text, keyspace text, shard text, "         \
    "job text, PRIMARY KEY (database, keyspace, shard, job)); "                                    \
    "CREATE TABLE IF NOT EXISTS pgshunt.proxy (id uuid, database text, host text, pid int, "       \
    "version text, started_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL, "  \
    "patience int NOT NULL, epoch bigint NOT NULL, hold bigint NOT NULL DEFAULT 0, "               \
    "busy int NOT NULL DEFAULT 0, held int NOT NULL DEFAULT 0, PRIMARY KEY (id, database)); "      \
    "CREATE TABLE IF NOT EXISTS pgshunt.hold (id bigserial PRIMARY KEY, database text NOT NULL, "  \
    "job text, asked_at timestamptz NOT NULL DEFAULT now(), until timestamptz NOT NULL, "          \
    "force boolean NOT NULL DEFAULT false); "                                                      \
    "CREATE TABLE IF NOT EXISTS pgshunt.hold_bucket (hold bigint NOT NULL REFERENCES "             \
    "pgshunt.hold ON DELETE CASCADE, keyspace text NOT NULL, first int NOT NULL, "                 \
    "last int NOT NULL); "                                                                         \
    "CREATE TABLE IF NOT EXISTS pgshunt.hold_table (hold bigint NOT NULL REFERENCES "              \
    "pgshunt.hold ON DELETE CASCADE, name text NOT NULL); "                                        \
    "CREATE TABLE IF NOT EXISTS pgshunt.table_rule (database text, name text, keyspace text, "     \
    "columns text[] NOT NULL, job text, PRIMARY KEY (database, name)); "                           \
    "CREATE TABLE IF NOT EXISTS pgshunt.job (name text PRIMARY KEY, database text NOT NULL, "      \
    "kind text NOT NULL, state text NOT NULL, options jsonb NOT NULL, attempt uuid, "              \
    "epoch bigint, paused boolean NOT NULL DEFAULT false, error text, "                            \
    "created_at timestamptz NOT NULL DEFAULT now(), "                                              \
    "changed_at timestamptz NOT NULL DEFAULT now()); "                                             \
    "CREATE TABLE IF NOT EXISTS pgshunt.job_move (job text NOT NULL REFERENCES pgshunt.job "       \
    "ON DELETE CASCADE, keyspace text NOT NULL, first int NOT NULL, last int NOT NULL, "           \
    "source text NOT NULL, target text NOT NULL); "                                                \
    "CREATE TABLE IF NOT EXISTS pgshunt.job_step (job text NOT NULL, "                             \
    "at timestamptz NOT NULL DEFAULT clock_timestamp(), step text NOT NULL, detail text); "        \
    "CREATE TABLE IF NOT EXISTS pgshunt.job_object (job text, shard text, kind text, name text, "  \
    "detail text, PRIMARY KEY (job, shard, kind, name)); "                                         \
    "GRANT USAGE ON SCHEMA pgshunt TO PUBLIC; "                                                    \
    "GRANT SELECT ON pgshunt.epoch, pgshunt.bucket, pgshunt.ghost, pgshunt.proxy, pgshunt.hold, "  \
    "pgshunt.hold_bucket, pgshunt.hold_table, pgshunt.table_rule, pgshunt.job, pgshunt.job_move, " \
    "pgshunt.job_step, pgshunt.job_object "                                                        \
    "TO PUBLIC;"

/* Not by IF NOT EXISTS alone, which wants the right to create even where it has nothing to do. */
static const char make_sql[] =
    "DO $pgshunt$ BEGIN PERFORM pg_advisory_xact_lock(" CATALOG_LOCK "); "
    "IF to_regnamespace('pgshunt') IS NULL THEN CREATE SCHEMA pgshunt; END IF; " TABLES
    " END $pgshunt$";

/* The last one made is there only if all are; what was made by an earlier version lacks the tables' part. */
static bool has_tables(struct db *db, bool *has, bool *has_rules, struct db_error *error)
{
    PGresult *result = db_query(db, CATALOG_MS, error,
                                "SELECT pg_catalog.to_regclass('pgshunt.job_object') IS NOT NULL "
                                "AND pg_catalog.to_regclass('pgshunt.epoch') IS NOT NULL,"
                                " pg_catalog.to_regclass('pgshunt.table_rule') IS NOT NULL",
                                0);
    *has = result && PQgetvalue(result, 0, 0)[0] == 't';
    *has_rules = *has && PQgetvalue(result, 0, 1)[0] == 't';
    PQclear(result);
    return result != NULL;
}

bool catalog_prepare(struct db *db, struct db_error *error)
{
    bool has, has_rules;
    if (!has_tables(db, &has, &has_rules, error))
        return false;
    return has_rules || db_run(db, CATALOG_MS, error, make_sql, 0);
}

const char *catalog_prepare_sql(struct arena *arena, const char *user)
{
    return arena_printf(arena,
                        "CREATE SCHEMA IF NOT EXISTS pgshunt; " TABLES
                        " GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgshunt TO "
                        "\"%s\"; GRANT USAGE ON ALL SEQUENCES IN SCHEMA pgshunt TO \"%s\";",
                        user, user);
}

/* ---- transactions ---- */

bool catalog_begin(struct db *db, struct db_error *error)
{
    return db_run(db, CATALOG_MS, error,
                  "BEGIN; SET LOCAL lock_timeout = '5s'; "
                  "SET LOCAL idle_in_transaction_session_timeout = '10s'; "
                  "SELECT set_config('synchronous_commit', 'on', true) WHERE "
                  "current_setting('synchronous_commit') = 'off'",
                  0);
}

bool catalog_end(struct db *db, bool done, struct db_error *error)
{
    struct db_error ignored;
    if (done)
        return db_run(db, CATALOG_MS, error, "COMMIT", 0);
    if (db_is_open(db) && !db_run(db, CATALOG_MS, &ignored, "ROLLBACK", 0))
        *error = ignored;
    return false;
}

bool catalog_announce(struct db *db, const char *database, struct db_error *error)
{
    return db_run(db, CATALOG_MS, error, "SELECT pg_notify('" CATALOG_CHANNEL "', $1)", 1,
                  database);
}

void catalog_refuse(struct db_error *error, const char *sqlstate, const char *text)
{
    *error = (struct db_error){.hint = ""};
    snprintf(error->text, sizeof error->text, "%s", text);
    snprintf(error->sqlstate, sizeof error->sqlstate, "%s", sqlstate);
}

/* ---- reading ---- */

/* One statement: all of it is of one moment. */
#define READ_MAP                                                                                   \
    "SELECT 'epoch', NULL, NULL, NULL, NULL, epoch, NULL FROM pgshunt.epoch WHERE database = $1 "  \
    "UNION ALL SELECT 'owner', keyspace, first, last, shard, NULL, NULL FROM pgshunt.bucket "      \
    "WHERE database = $1 "                                                                         \
    "UNION ALL SELECT DISTINCT 'ghost', keyspace, NULL::int, NULL::int, shard, NULL::bigint, "     \
    "NULL::text FROM pgshunt.ghost WHERE database = $1 "                                           \
    "UNION ALL SELECT 'hold', h.keyspace, h.first, h.last, " LEFT_MS ", o.id, o.force::text "      \
    "FROM pgshunt.hold o JOIN pgshunt.hold_bucket h ON h.hold = o.id WHERE " STANDS
#define LEFT_MS "ceil(extract(epoch FROM o.until - clock_timestamp()) * 1000)::text"
#define STANDS "o.database = $1 AND o.until > clock_timestamp() "
#define READ_TABLES                                                                                \
    "UNION ALL SELECT 'hold_table', h.name, NULL, NULL, " LEFT_MS ", o.id, o.force::text "         \
    "FROM pgshunt.hold o JOIN pgshunt.hold_table h ON h.hold = o.id WHERE " STANDS                 \
    "UNION ALL SELECT 'rule', name, NULL, NULL, keyspace, NULL, array_to_json(columns)::text "     \
    "FROM pgshunt.table_rule WHERE database = $1 "
#define IN_ORDER "ORDER BY 1, 6, 2, 3"

static const char read_sql[] = READ_MAP IN_ORDER;
static const char read_all_sql[] = READ_MAP READ_TABLES IN_ORDER;

enum { KIND, KEYSPACE, FIRST, LAST, SHARD, NUMBER, FORCE };

static const char *field(const PGresult *rows, int row, int column)
{
    return PQgetvalue(rows, row, column);
}

static struct catalog_range range_of(const PGresult *rows, int row, struct arena *arena)
{
    return (struct catalog_range){
        .keyspace = arena_strdup(arena, field(rows, row, KEYSPACE)),
        .first = (unsigned)strtoul(field(rows, row, FIRST), NULL, 10),
        .last = (unsigned)strtoul(field(rows, row, LAST), NULL, 10),
    };
}

/* Each row is one of its ranges, or tables. Kept by id. */
static struct catalog_hold *hold_of(struct catalog_map *recorded, const PGresult *rows, int row,
                                    struct arena *arena)
{
    int64_t id = strtoll(field(rows, row, NUMBER), NULL, 10);
    int at = recorded->nholds;
    while (at && recorded->holds[at - 1].id > id)
        at--;
    if (at && recorded->holds[at - 1].id == id)
        return &recorded->holds[at - 1];
    memmove(&recorded->holds[at + 1], &recorded->holds[at],
            sizeof *recorded->holds * (size_t)(recorded->nholds++ - at));
    recorded->holds[at] = (struct catalog_hold){
        .id = id,
        .left_ms = strtoll(field(rows, row, SHARD), NULL, 10),
        .force = field(rows, row, FORCE)[0] == 't',
        .ranges = arena_array(arena, struct catalog_range, PQntuples(rows) - row),
        .tables = arena_array(arena, const char *, PQntuples(rows) - row),
    };
    return &recorded->holds[at];
}

static void take_hold(struct catalog_map *recorded, const PGresult *rows, int row,
                      struct arena *arena)
{
    struct catalog_hold *hold = hold_of(recorded, rows, row, arena);
    struct catalog_range *ranges = (struct catalog_range *)hold->ranges;
    const char **tables = (const char **)hold->tables;
    if (strcmp(field(rows, row, KIND), "hold") == 0)
        ranges[hold->nranges++] = range_of(rows, row, arena);
    else
        tables[hold->ntables++] = arena_strdup(arena, field(rows, row, KEYSPACE));
}

static void take_rule(struct catalog_map *recorded, const PGresult *rows, int row,
                      struct arena *arena)
{
    json_t *list = json_loads(field(rows, row, FORCE), 0, NULL);
    size_t count = json_array_size(list);
    const char **columns = arena_array(arena, const char *, count);
    for (size_t i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        columns[i] = arena_strdup(arena, name ? name : "");
    }
    json_decref(list);
    recorded->rules[recorded->nrules++] = (struct catalog_rule){
        .name = arena_strdup(arena, field(rows, row, KEYSPACE)),
        .keyspace =
            PQgetisnull(rows, row, SHARD) ? NULL : arena_strdup(arena, field(rows, row, SHARD)),
        .columns = columns,
        .ncolumns = (int)count,
    };
}

static void take_rows(struct catalog_map *recorded, const PGresult *rows, struct arena *arena)
{
    int count = PQntuples(rows);
    recorded->owners = arena_array(arena, struct catalog_owner, count);
    recorded->ghosts = arena_array(arena, struct catalog_ghost, count);
    recorded->holds = arena_array(arena, struct catalog_hold, count);
    recorded->rules = arena_array(arena, struct catalog_rule, count);
    for (int row = 0; row < count; row++) {
        const char *kind = field(rows, row, KIND);
        if (strcmp(kind, "epoch") == 0)
            recorded->epoch = strtoll(field(rows, row, NUMBER), NULL, 10);
        else if (strcmp(kind, "owner") == 0)
            recorded->owners[recorded->nowners++] = (struct catalog_owner){
                range_of(rows, row, arena), arena_strdup(arena, field(rows, row, SHARD))};
        else if (strcmp(kind, "ghost") == 0)
            recorded->ghosts[recorded->nghosts++] =
                (struct catalog_ghost){arena_strdup(arena, field(rows, row, KEYSPACE)),
                                       arena_strdup(arena, field(rows, row, SHARD))};
        else if (strcmp(kind, "rule") == 0)
            take_rule(recorded, rows, row, arena);
        else
            take_hold(recorded, rows, row, arena);
    }
}

bool catalog_read(struct db *db, const char *database, struct arena *arena,
                  struct catalog_map *recorded, struct db_error *error)
{
    bool has, has_rules;
    *recorded = (struct catalog_map){.epoch = 0};
    if (!has_tables(db, &has, &has_rules, error))
        return false;
    const char *sql = has_rules ? read_all_sql : read_sql;
    PGresult *rows = has ? db_query(db, CATALOG_MS, error, sql, 1, database) : NULL;
    if (rows)
        take_rows(recorded, rows, arena);
    PQclear(rows);
    return !has || rows;
}

/* ---- laying it over the configuration's map ---- */

bool catalog_has_keyspace(const struct catalog_map *recorded, const char *keyspace)
{
    for (int i = 0; i < recorded->nowners; i++)
        if (strcmp(recorded->owners[i].range.keyspace, keyspace) == 0)
            return true;
    return false;
}

static bool has_buckets(const struct keyspace *keyspace)
{
    return keyspace->map == MAP_HASH && keyspace->hash == HASH_XXH64;
}

bool catalog_is_for(const struct database_config *database)
{
    for (int i = 0; i < database->nkeyspaces; i++)
        if (database->keyspaces[i].map == MAP_HASH && database->keyspaces[i].hash == HASH_XXH64)
            return database->nshards > 1;
    return false;
}

static bool no_shard(const char *keyspace, const char *shard, struct db_error *error)
{
    catalog_refuse(error, "F0000", "");
    snprintf(error->text, sizeof error->text,
             "the recorded map of keyspace \"%s\" names shard \"%s\", which the configuration does "
             "not have",
             keyspace, shard);
    snprintf(
        error->hint, sizeof error->hint,
        "Add shard \"%s\" to the configuration; \"pgshuntctl reshard\" empties a shard that is "
        "to go.",
        shard);
    return false;
}

/* The number of a keyspace of the map that has buckets; -1: none of that name, which is not this map's affair. */
static int bucket_keyspace(const struct shardmap *map, const char *name)
{
    int index = shardmap_keyspace_by_name(map, name);
    return index >= 0 && has_buckets(shardmap_keyspace(map, (unsigned)index)) ? index : -1;
}

static bool lay_owners(struct shardmap *map, const struct catalog_map *recorded,
                       struct db_error *error)
{
    unsigned *covered = mem_alloc(sizeof *covered * (shardmap_keyspaces(map) + 1));
    bool fits = true;
    for (int i = 0; fits && i < recorded->nowners; i++) {
        const struct catalog_owner *owner = &recorded->owners[i];
        int keyspace = bucket_keyspace(map, owner->range.keyspace);
        int shard = shardmap_shard_by_name(map, owner->shard);
        if (keyspace < 0)
            continue;
        if (shard < 0) {
            fits = no_shard(owner->range.keyspace, owner->shard, error);
            break;
        }
        shardmap_set_buckets(map, keyspace, owner->range.first, owner->range.last, (unsigned)shard);
        covered[keyspace] += owner->range.last - owner->range.first + 1;
    }
    for (unsigned k = 0; fits && k < shardmap_keyspaces(map); k++)
        if (covered[k] && covered[k] != SHARDKEY_BUCKETS) {
            fits = false;
            catalog_refuse(error, "F0000", "");
            snprintf(error->text, sizeof error->text,
                     "pgshunt.bucket has %u buckets of keyspace \"%s\", not %d", covered[k],
                     shardmap_keyspace(map, k)->name, SHARDKEY_BUCKETS);
        }
    free(covered);
    return fits;
}

static bool lay_ghosts(struct shardmap *map, const struct catalog_map *recorded,
                       struct db_error *error)
{
    for (int i = 0; i < recorded->nghosts; i++) {
        const struct catalog_ghost *ghost = &recorded->ghosts[i];
        int keyspace = bucket_keyspace(map, ghost->keyspace);
        int shard = shardmap_shard_by_name(map, ghost->shard);
        if (keyspace < 0)
            continue;
        if (shard < 0)
            return no_shard(ghost->keyspace, ghost->shard, error);
        shardmap_set_ghost(map, keyspace, (unsigned)shard);
    }
    return true;
}

static void lay_holds(struct shardmap *map, const struct catalog_map *recorded)
{
    for (int i = 0; i < recorded->nholds; i++)
        for (int j = 0; j < recorded->holds[i].nranges; j++) {
            const struct catalog_range *range = &recorded->holds[i].ranges[j];
            int keyspace = bucket_keyspace(map, range->keyspace);
            if (keyspace >= 0)
                shardmap_hold(map, keyspace, range->first, range->last);
        }
    for (int i = 0; i < recorded->nholds; i++)
        for (int j = 0; j < recorded->holds[i].ntables; j++)
            shardmap_hold_table(map, recorded->holds[i].tables[j]);
}

struct shardmap *catalog_lay(const struct database_config *database,
                             const struct catalog_map *recorded, struct db_error *error)
{
    struct shardmap *map = shardmap_of_config(database);
    *error = (struct db_error){.text = ""};
    if (!lay_owners(map, recorded, error) || !lay_ghosts(map, recorded, error) ||
        !catalog_lay_tables(map, recorded, error)) {
        shardmap_free(map);
        return NULL;
    }
    lay_holds(map, recorded);
    shardmap_set_epoch(map, recorded->epoch);
    return map;
}

bool catalog_read_map(struct db *db, const struct database_config *database, struct shardmap **map,
                      struct db_error *error)
{
    struct catalog_map recorded;
    struct arena arena;
    arena_init(&arena);
    *map = NULL;
    if (catalog_read(db, database->name, &arena, &recorded, error))
        *map = catalog_lay(database, &recorded, error);
    arena_free(&arena);
    return *map != NULL;
}
