/* guard.c: a CHECK on a default partition that refuses nothing, and lets the server attach others without reading it. */
#include "partition/guard.h"

#include <stdio.h>
#include <string.h>

#include "partition/attempt.h"
#include "pgshunt/failpoint.h"

/* What is smaller is read within a few milliseconds. */
#define LARGE "8388608"
#define VALIDATE_MS (INT64_C(24) * 3600 * 1000)

static const char *literal(const struct guard *guard, const char *text)
{
    struct shard_work *shard = guard->shard;
    char *escaped = PQescapeLiteral(db_connection(shard->db), text, strlen(text));
    const char *kept = arena_strdup(&shard->arena, escaped ? escaped : "NULL");
    PQfreemem(escaped);
    return kept;
}

/* $1: the default partition. Whether it is large, whether we see all of its rows, and whether the functions are there. */
static const char look_sql[] =
    "SELECT c.relkind = 'r' AND pg_relation_size(c.oid) >= " LARGE
    " AND NOT row_security_active(c.oid), to_regprocedure('pgshunt.partition_stray()') IS NOT NULL"
    " FROM pg_class AS c WHERE c.oid = $1::regclass";

/* The first is no constant, though it says so: see guard.h. */
static const char functions_sql[] =
    "CREATE SCHEMA IF NOT EXISTS pgshunt; CREATE SEQUENCE IF NOT EXISTS pgshunt.partition_strays; "
    "CREATE OR REPLACE FUNCTION pgshunt.partition_lets() RETURNS boolean LANGUAGE sql IMMUTABLE "
    "AS $$SELECT pg_catalog.current_setting('pgshunt.attaching', true) IS DISTINCT FROM 'on'$$; "
    "CREATE OR REPLACE FUNCTION pgshunt.partition_stray() RETURNS boolean LANGUAGE plpgsql "
    "VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
    "$$BEGIN PERFORM nextval('pgshunt.partition_strays'); RETURN true; END$$";

static bool is_worth_it(struct guard *guard)
{
    struct shard_work *shard = guard->shard;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error, look_sql, 1, guard->rest);
    bool large = rows && PQntuples(rows) && PQgetvalue(rows, 0, 0)[0] == 't';
    bool has = large && PQgetvalue(rows, 0, 1)[0] == 't';
    PQclear(rows);
    return large && (has || db_run(shard->db, WORK_QUERY_MS, &shard->error, functions_sql, 0));
}

static const char *outside_text(const struct guard *guard, const char *from, const char *to)
{
    const char *column = guard->column;
    return arena_printf(&guard->shard->arena, "%s IS NULL OR %s < %s OR %s >= %s", column, column,
                        from, column, to);
}

/*
 * Before the CHECK is there: whoever writes a row of the range when it is counts up, and whoever has written one before has committed, for
 * adding it waits for them, and is seen when it is validated. A row that is neither would be lost from sight.
 */
static bool begin_count(struct guard *guard)
{
    struct shard_work *shard = guard->shard;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error,
                              "SELECT nextval('pgshunt.partition_strays')", 0);
    if (rows)
        snprintf(guard->count, sizeof guard->count, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows != NULL;
}

static bool add(struct guard *guard, const char *from, const char *to)
{
    struct shard_work *shard = guard->shard;
    guard->marked = true; /* it may be, even if we do not get to know */
    return attempt(shard,
                   arena_printf(&shard->arena,
                                "ALTER TABLE %s DROP CONSTRAINT IF EXISTS " GUARD_NAME
                                ", ADD CONSTRAINT " GUARD_NAME
                                " CHECK (%s OR (pgshunt.partition_lets() AND "
                                "pgshunt.partition_stray())) NOT VALID",
                                guard->rest, outside_text(guard, from, to)),
                   guard->oids);
}

/* `strictly`: a row of the range is an error. */
static bool validate(struct guard *guard, bool strictly)
{
    struct shard_work *shard = guard->shard;
    return attempt_within(shard,
                          arena_printf(&shard->arena,
                                       "SET LOCAL pgshunt.attaching = %s; ALTER TABLE %s VALIDATE "
                                       "CONSTRAINT " GUARD_NAME,
                                       strictly ? "on" : "off", guard->rest),
                          guard->oids, VALIDATE_MS);
}

void guard_begin(struct guard *guard, const char *from, const char *to)
{
    struct shard_work *shard = guard->shard;
    if (!is_worth_it(guard) || !begin_count(guard) || !add(guard, from, to))
        return;
    failpoint("partition_guarded");
    guard->clean = validate(guard, true);
    guard->on =
        guard->clean || (strcmp(shard->error.sqlstate, "23514") == 0 && validate(guard, false));
    failpoint("partition_validated");
}

const char *guard_clear_text(const struct guard *guard, const char *from, const char *to,
                             const char *move)
{
    struct arena *arena = &guard->shard->arena;
    const char *come =
        guard->clean
            ? arena_printf(arena, "(SELECT last_value FROM pgshunt.partition_strays) <> %s",
                           guard->count)
            : "true";
    const char *body = arena_printf(
        arena,
        "#variable_conflict use_column\nBEGIN IF %s THEN %sIF EXISTS (SELECT FROM %s WHERE NOT "
        "(%s)) THEN RAISE EXCEPTION 'rows "
        "of "
        "its range are in the default partition, and cannot be moved' USING ERRCODE = '23514', "
        "HINT = 'triggers or foreign keys would act on them, which only a superuser can keep them "
        "from: call this as one, or move them'; END IF; END IF; END",
        come, move, guard->rest, outside_text(guard, from, to));
    return arena_printf(arena, "DO %s; SET LOCAL pgshunt.attaching = on; ", literal(guard, body));
}

const char *guard_drop_text(const struct guard *guard)
{
    return arena_printf(&guard->shard->arena,
                        "ALTER TABLE %s DROP CONSTRAINT IF EXISTS " GUARD_NAME, guard->rest);
}

void guard_end(struct guard *guard)
{
    struct db_error error = guard->shard->error;
    if (guard->marked && db_is_open(guard->shard->db) &&
        attempt(guard->shard, guard_drop_text(guard), guard->oids))
        guard->marked = false;
    guard->shard->error = error;
}
