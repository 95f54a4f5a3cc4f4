/* catalog.c: the map of buckets in Postgres: its tables, and reading it. */
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
    "CREATE TABLE IF NOT EXISTS pgshunt.keyspace (database text, keyspace text, "                  \
    "kind text NOT NULL, modulus int, PRIMARY KEY (database, keyspace)); "                         \
    "CREATE TABLE IF NOT EXISTS pgshunt.piece (database text, keyspace text, bucket int, "         \
    "value text, PRIMARY KEY (database, keyspace, bucket), "                                       \
    "CHECK (bucket BETWEEN 0 AND 16383)); "                                                        \
    "CREATE TABLE IF NOT EXISTS pgshunt.bucket_load (database text, keyspace text, bucket int, "   \
    "shard text, statements float8 NOT NULL, at timestamptz NOT NULL, "                            \
    "PRIMARY KEY (database, keyspace, bucket, shard)); "                                           \
    "CREATE TABLE IF NOT EXISTS pgshunt.ghost (database text, keyspace text, shard text, "         \
    "job text, PRIMARY KEY (database, keyspace, shard, job)); "                                    \
    "CREATE TABLE IF NOT EXISTS pgshunt.proxy (id uuid, database text, host text, pid int, "       \
    "version text, started_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL, "  \
    "patience int NOT NULL, epoch bigint NOT NULL, hold bigint NOT NULL DEFAULT 0, "               \
    "busy int NOT NULL DEFAULT 0, held int NOT NULL DEFAULT 0, PRIMARY KEY (id, database)); "      \
    "ALTER TABLE pgshunt.proxy ADD COLUMN IF NOT EXISTS oldest bigint, "                           \
    "ADD COLUMN IF NOT EXISTS oldest_who text; "                                                   \
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
    "GRANT SELECT ON pgshunt.epoch, pgshunt.bucket, pgshunt.bucket_load, pgshunt.keyspace, "       \
    "pgshunt.piece, "                                                                              \
    "pgshunt.ghost, pgshunt.proxy, pgshunt.hold, "                                                 \
    "pgshunt.hold_bucket, pgshunt.hold_table, pgshunt.table_rule, pgshunt.job, pgshunt.job_move, " \
    "pgshunt.job_step, pgshunt.job_object "                                                        \
    "TO PUBLIC;"

/* Not by IF NOT EXISTS alone, which wants the right to create even where it has nothing to do. */
static const char make_sql[] =
    "DO $pgshunt$ BEGIN PERFORM pg_advisory_xact_lock(" CATALOG_LOCK "); "
    "IF to_regnamespace('pgshunt') IS NULL THEN CREATE SCHEMA pgshunt; END IF; " TABLES
    " END $pgshunt$";

/* What there is: those of keyspaces and buckets came after the tables', these after all others; some columns came last. */
enum tables { TABLES_NONE, TABLES_OLD, TABLES_WITH_RULES, TABLES_WITH_PIECES, TABLES_ALL };

/* The last one made is there only if all are; what was made by an earlier version lacks some. */
static bool find_tables(struct db *db, enum tables *tables, struct db_error *error)
{
    PGresult *result = db_query(
        db, CATALOG_MS, error,
        "SELECT CASE WHEN pg_catalog.to_regclass('pgshunt.job_object') IS NULL OR "
        "pg_catalog.to_regclass('pgshunt.epoch') IS NULL THEN 0 WHEN "
        "pg_catalog.to_regclass('pgshunt.table_rule') IS NULL THEN 1 WHEN "
        "pg_catalog.to_regclass('pgshunt.piece') IS NULL OR "
        "pg_catalog.to_regclass('pgshunt.keyspace') IS NULL THEN 2 WHEN NOT EXISTS (SELECT "
        "FROM pg_catalog.pg_attribute WHERE attrelid = "
        "pg_catalog.to_regclass('pgshunt.proxy') AND attname = 'oldest_who') THEN 3 ELSE "
        "4 END",
        0);
    *tables = result ? (enum tables)atoi(PQgetvalue(result, 0, 0)) : TABLES_NONE;
    PQclear(result);
    return result != NULL;
}

bool catalog_prepare(struct db *db, struct db_error *error)
{
    enum tables tables;
    if (!find_tables(db, &tables, error))
        return false;
    return tables == TABLES_ALL || db_run(db, CATALOG_MS, error, make_sql, 0);
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

bool catalog_announce_schema(struct db *db, const char *database, struct db_error *error)
{
    return db_run(db, CATALOG_MS, error, "SELECT pg_notify('" CATALOG_SCHEMA_CHANNEL "', $1)", 1,
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
#define READ_PIECES                                                                                \
    "UNION ALL SELECT 'keyspace', keyspace, modulus, NULL, kind, NULL, NULL FROM "                 \
    "pgshunt.keyspace WHERE database = $1 "                                                        \
    "UNION ALL SELECT 'piece', keyspace, bucket, NULL, value, NULL, NULL FROM pgshunt.piece "      \
    "WHERE database = $1 AND $2::bigint IS DISTINCT FROM (SELECT epoch FROM pgshunt.epoch WHERE "  \
    "database = $1) "
#define IN_ORDER "ORDER BY 1, 6, 2, 3"

/* By enum tables. */
static const char *const read_sql[] = {
    NULL,
    READ_MAP IN_ORDER,
    READ_MAP READ_TABLES IN_ORDER,
    READ_MAP READ_TABLES READ_PIECES IN_ORDER,
    READ_MAP READ_TABLES READ_PIECES IN_ORDER,
};

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

static void take_piece(struct catalog_map *recorded, const PGresult *rows, int row,
                       struct arena *arena)
{
    struct catalog_range range = range_of(rows, row, arena);
    recorded->pieces[recorded->npieces++] = (struct catalog_piece){
        range.keyspace, range.first,
        PQgetisnull(rows, row, SHARD) ? NULL : arena_strdup(arena, field(rows, row, SHARD))};
}

static void take_rows(struct catalog_map *recorded, const PGresult *rows, struct arena *arena)
{
    int count = PQntuples(rows);
    recorded->kinds = arena_array(arena, struct catalog_kind, count);
    recorded->pieces = arena_array(arena, struct catalog_piece, count);
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
        else if (strcmp(kind, "keyspace") == 0)
            recorded->kinds[recorded->nkinds++] = (struct catalog_kind){
                arena_strdup(arena, field(rows, row, KEYSPACE)),
                arena_strdup(arena, field(rows, row, SHARD)), range_of(rows, row, arena).first};
        else if (strcmp(kind, "piece") == 0)
            take_piece(recorded, rows, row, arena);
        else
            take_hold(recorded, rows, row, arena);
    }
}

bool catalog_read(struct db *db, const char *database, struct arena *arena,
                  struct catalog_map *recorded, struct db_error *error)
{
    return catalog_read_newer(db, database, NULL, arena, recorded, error);
}

bool catalog_read_newer(struct db *db, const char *database, const struct catalog_map *known,
                        struct arena *arena, struct catalog_map *recorded, struct db_error *error)
{
    enum tables tables;
    char epoch[24];
    snprintf(epoch, sizeof epoch, "%lld", (long long)(known && known->epoch ? known->epoch : -1));
    *recorded = (struct catalog_map){.epoch = 0};
    if (!find_tables(db, &tables, error))
        return false;
    if (tables == TABLES_NONE)
        return true;
    PGresult *rows = db_query(db, CATALOG_MS, error, read_sql[tables],
                              tables >= TABLES_WITH_PIECES ? 2 : 1, database, epoch);
    if (rows)
        take_rows(recorded, rows, arena);
    PQclear(rows);
    if (rows && known && known->epoch && known->epoch == recorded->epoch) {
        recorded->pieces = known->pieces;
        recorded->npieces = known->npieces;
    }
    return rows != NULL;
}
