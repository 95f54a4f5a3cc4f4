/* export.c: partitions that have expired, brought to files before they are dropped. */
#include "partition/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/archive.h"
#include "partition/attempt.h"
#include "pgshunt/copyio.h"
#include "pgshunt/failpoint.h"

#define READ_MS (INT64_C(24) * 3600 * 1000) /* for a large table to be counted */

bool export_probe(struct shard_work *shard, const char *directory)
{
    const char *name = shard->work->database->shards[shard->shard].name;
    return archive_probe(directory, name, &shard->error);
}

static bool fails(struct shard_work *shard, const char *text)
{
    shard->error = (struct db_error){.text = ""};
    snprintf(shard->error.text, sizeof shard->error.text, "%s", text);
    return false;
}

/* ---- the transaction ---- */

/* Rows that policies would hide are an error, not left out. */
static const char begin_sql[] =
    "ROLLBACK; BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL row_security = off;"
    " SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL intervalstyle = postgres;"
    " SET LOCAL bytea_output = hex; SET LOCAL extra_float_digits = 1;"
    " LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE";

static bool begin(struct shard_work *shard, const struct exporting *exporting)
{
    return attempt(shard, arena_printf(&shard->arena, begin_sql, exporting->quoted),
                   exporting->oids);
}

/*
 * $1: its oid, $2: its name. Whether it is what has been detached, who it is among all tables of all servers, the columns that COPY
 * takes, and statements that make a table like it.
 */
static const char table_sql[] =
    "SELECT coalesce(to_regclass($2)::oid = $1::oid, false) AND NOT EXISTS (SELECT FROM pg_inherits"
    "  WHERE inhrelid = $1::oid),"
    " (SELECT system_identifier FROM pg_control_system()) || '/' || (SELECT oid FROM pg_database"
    "  WHERE datname = current_database()) || '/' || $1,"
    " coalesce((SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
    "  WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''), ''),"
    " format(E'CREATE TABLE %s (\\n%s\\n);', $2, (SELECT string_agg(format('    %I %s%s%s%s', "
    "attname, "
    "format_type(atttypid, atttypmod), CASE WHEN attcollation NOT IN (0, 100) THEN (SELECT format('"
    " COLLATE %I.%I', nspname, collname) FROM pg_collation AS l JOIN pg_namespace AS n ON n.oid = "
    "l.collnamespace WHERE l.oid = attcollation) ELSE '' END, CASE WHEN attgenerated <> '' THEN "
    "format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(adbin, adrelid)) WHEN adbin IS NOT "
    "NULL THEN "
    "' DEFAULT ' || pg_get_expr(adbin, adrelid) ELSE '' END, CASE WHEN attnotnull THEN ' NOT NULL' "
    "ELSE '' END), "
    "E',\\n' ORDER BY attnum) FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND "
    "adnum = attnum "
    "WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped))"
    " || coalesce((SELECT string_agg(format(E'\\nALTER TABLE %s ADD CONSTRAINT %I %s;', $2, "
    "conname, "
    "pg_get_constraintdef(oid)), '' ORDER BY contype IN ('p', 'u') DESC, conname) FROM "
    "pg_constraint "
    "WHERE conrelid = $1::oid AND contype IN ('p', 'u', 'c', 'f', 'x')), '')"
    " || coalesce((SELECT string_agg(E'\\n' || replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' "
    "ON ') || ';', '' ORDER BY "
    "indexrelid) "
    "FROM pg_index WHERE indrelid = $1::oid AND NOT EXISTS (SELECT FROM pg_constraint WHERE "
    "conindid = indexrelid AND conrelid = $1::oid)), ''),"
    " current_setting('server_version'), clock_timestamp()";

enum { IS_IT, IDENTITY, COLUMNS, DEFINITION, VERSION, AT };

static PGresult *read_table(struct shard_work *shard, const struct exporting *exporting)
{
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, table_sql, 2, exporting->oid,
                              exporting->quoted);
    if (!rows || PQgetvalue(rows, 0, IS_IT)[0] == 't')
        return rows;
    PQclear(rows);
    fails(shard, "it is attached somewhere again, or has another name by now");
    return NULL;
}

static bool count_rows(struct shard_work *shard, const char *quoted, int64_t *count)
{
    PGresult *rows = db_query(shard->db, work_limit(shard->work, READ_MS), &shard->error,
                              arena_printf(&shard->arena, "SELECT count(*) FROM %s", quoted), 0);
    if (rows)
        *count = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    PQclear(rows);
    return rows != NULL;
}

/* ---- the file ---- */

static json_t *manifest_of(const struct shard_work *shard, const struct exporting *exporting,
                           const PGresult *table)
{
    json_t *manifest = json_object();
    const struct database_config *database = shard->work->database;
    json_object_set_new(manifest, "pgshunt_archive", json_integer(1));
    json_object_set_new(manifest, "database", json_string(database->name));
    json_object_set_new(manifest, "shard", json_string(database->shards[shard->shard].name));
    json_object_set_new(manifest, "table", json_string(exporting->shown));
    json_object_set_new(manifest, "partition", json_string(exporting->quoted));
    json_object_set_new(manifest, "bound",
                        exporting->bound ? json_string(exporting->bound) : json_null());
    json_object_set_new(manifest, "format", json_string(exporting->format));
    json_object_set_new(manifest, "columns", json_string(PQgetvalue(table, 0, COLUMNS)));
    json_object_set_new(manifest, "rows", json_integer(exporting->rows));
    json_object_set_new(manifest, "definition", json_string(PQgetvalue(table, 0, DEFINITION)));
    json_object_set_new(manifest, "server_version", json_string(PQgetvalue(table, 0, VERSION)));
    json_object_set_new(manifest, "exported_at", json_string(PQgetvalue(table, 0, AT)));
    return manifest;
}

/* A piece arrives for each row, and one more: CSV's header, binary's trailer. */
static bool copy_rows(struct shard_work *shard, const char *sql, struct archive *archive,
                      int64_t *copied)
{
    char *bytes = NULL;
    int length;
    int64_t pieces = 0;
    struct copyio io = {.db = shard->db, .stop = shard->work->call->fleet.stop};
    if (!copyio_begin_out(&io, sql, &shard->error))
        return false;
    failpoint("export_copying");
    while ((length = copyio_get(&io, &bytes, &shard->error)) > 0) {
        bool put = archive_put(archive, bytes, (size_t)length, &shard->error);
        PQfreemem(bytes);
        if (!put)
            return false;
        if (work_late(shard->work))
            return fails(shard, "the time of the run is up");
        pieces++;
    }
    *copied = pieces - 1;
    return length == 0;
}

static bool write_rows(struct shard_work *shard, struct exporting *exporting, const PGresult *table,
                       struct archive *archive)
{
    int64_t copied = -1;
    struct arena *arena = &shard->arena;
    const char *sql = arena_printf(
        arena, "COPY (SELECT %s FROM %s) TO STDOUT (FORMAT %s)", PQgetvalue(table, 0, COLUMNS),
        exporting->quoted, strcmp(exporting->format, "binary") == 0 ? "binary" : "csv, HEADER");
    if (!count_rows(shard, exporting->quoted, &exporting->rows) ||
        !copy_rows(shard, sql, archive, &copied))
        return false;
    if (copied != exporting->rows)
        return fails(shard, arena_printf(arena, "it has %lld rows, but %lld were copied",
                                         (long long)exporting->rows, (long long)copied));
    json_t *manifest = manifest_of(shard, exporting, table);
    bool finished = archive_finish(archive, manifest, &shard->error);
    json_decref(manifest);
    exporting->file = arena_printf(arena, "%s/%s", archive->path, archive->file);
    return finished;
}

static bool write_file(struct shard_work *shard, struct exporting *exporting)
{
    struct archive archive;
    struct arena *arena = &shard->arena;
    PGresult *table = read_table(shard, exporting);
    if (!table)
        return false;
    bool written = archive_begin(&archive, arena, exporting->directory,
                                 shard->work->database->shards[shard->shard].name,
                                 arena_printf(arena, "%s.%s", exporting->schema, exporting->name),
                                 arena_printf(arena, "%s.zst", exporting->format),
                                 PQgetvalue(table, 0, IDENTITY), &shard->error) &&
                   write_rows(shard, exporting, table, &archive);
    archive_end(&archive);
    PQclear(table);
    return written;
}

/* ---- what becomes of the table ---- */

/* Readers of the table itself may keep it a while: the lock that keeps writers away is held on to meanwhile. */
static bool drop(struct shard_work *shard, const struct exporting *exporting)
{
    return db_run(shard->db, WORK_QUERY_MS, &shard->error, "SAVEPOINT exported", 0) &&
           attempt(shard,
                   arena_printf(&shard->arena, "ROLLBACK TO SAVEPOINT exported; DROP TABLE %s",
                                exporting->quoted),
                   exporting->oids);
}

static bool leave(struct shard_work *shard, const struct exporting *exporting)
{
    failpoint("export_written");
    if (!exporting->keep_table && !drop(shard, exporting))
        return false;
    if (!db_run(shard->db, WORK_QUERY_MS, &shard->error,
                "DELETE FROM pgshunt.partition_leaving WHERE oid = $1", 1, exporting->oid))
        return false;
    failpoint("export_dropped");
    return db_run(shard->db, WORK_QUERY_MS, &shard->error, "COMMIT", 0);
}

/* The session ends in any case, and with it what is not committed. */
bool export_partition(struct shard_work *shard, struct exporting *exporting)
{
    struct db *usual = shard->db;
    shard->db = work_open(shard->work, shard->shard, &shard->error);
    bool done = shard->db && begin(shard, exporting) && write_file(shard, exporting) &&
                leave(shard, exporting);
    db_close(shard->db);
    shard->db = usual;
    return done;
}
