/* id_functions.c: shard numbers, pgshunt.next_id() and pgshunt.uuid_v7() on every shard. */
#include "fleet/id_functions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/sequence_plan.h"

/* Of what is installed; another one is replaced. */
#define FUNCTIONS_VERSION "1"

/*
 * A number of 63 bits: milliseconds since 2024 (41), the shard (10), a counter (12). The counter and the
 * milliseconds are one sequence, so that no number comes twice, whatever the clock does: it is only ever
 * pushed ahead, by whoever finds it more than two milliseconds behind the clock, one at a time. While one
 * pushes it, each other session takes one number at most before it has to wait: they do not get past where it
 * is pushed to, which is 8192 numbers away at least.
 */
static const char next_id_sql[] =
    "CREATE SEQUENCE IF NOT EXISTS pgshunt.id_clock AS bigint;"
    "CREATE OR REPLACE FUNCTION pgshunt.next_id() RETURNS bigint LANGUAGE plpgsql VOLATILE"
    " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pgshunt$\n"
    "DECLARE\n"
    "  clock bigint := ((extract(epoch FROM clock_timestamp()) * 1000)::bigint - 1704067200000)"
    " << 12;\n"
    "  id bigint := nextval('pgshunt.id_clock');\n"
    "BEGIN\n"
    "  IF id < clock - 8192 THEN\n"
    "    BEGIN\n"
    "      PERFORM pg_advisory_lock(1885825908, 1768191081);\n"
    "      id := nextval('pgshunt.id_clock');\n"
    "      IF id < clock - 8192 THEN\n"
    "        id := setval('pgshunt.id_clock', clock);\n"
    "      END IF;\n"
    "      PERFORM pg_advisory_unlock(1885825908, 1768191081);\n"
    "    EXCEPTION WHEN query_canceled OR OTHERS THEN\n"
    "      PERFORM pg_advisory_unlock(1885825908, 1768191081) FROM pg_locks\n"
    "        WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted\n"
    "          AND classid = 1885825908 AND objid = 1768191081;\n"
    "      RAISE;\n"
    "    END;\n"
    "  END IF;\n"
    "  RETURN (id >> 12 << 22) | (pgshunt.shard_number()::bigint << 12) | (id & 4095);\n"
    "END $pgshunt$;"
    "COMMENT ON FUNCTION pgshunt.next_id() IS"
    " 'a number unique on all shards, in the order of time; version " FUNCTIONS_VERSION "';";

/* Of RFC 9562: 48 bits of milliseconds, the rest random. */
static const char uuid_v7_sql[] =
    "DO $pgshunt$ BEGIN IF current_setting('server_version_num')::int >= 180000 THEN"
    " CREATE OR REPLACE FUNCTION pgshunt.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE"
    " AS 'SELECT pg_catalog.uuidv7()';"
    " ELSE"
    " CREATE OR REPLACE FUNCTION pgshunt.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE"
    " AS 'SELECT pg_catalog.encode(pg_catalog.set_bit(pg_catalog.set_bit("
    "pg_catalog.overlay(pg_catalog.uuid_send(pg_catalog.gen_random_uuid()),"
    " pg_catalog.substring(pg_catalog.int8send((extract(epoch FROM pg_catalog.clock_timestamp())"
    " * 1000)::bigint), 3), 1, 6), 52, 1), 53, 1), ''hex'')::uuid';"
    " END IF; END $pgshunt$;"
    "COMMENT ON FUNCTION pgshunt.uuid_v7() IS"
    " 'a random uuid in the order of time; version " FUNCTIONS_VERSION "';";

/* ---- what is there ---- */

static const char read_sql[] =
    "SELECT to_regprocedure('pgshunt.shard_number()') IS NOT NULL,"
    " to_regprocedure('pgshunt.id_stride()') IS NOT NULL,"
    " coalesce(obj_description(to_regprocedure('pgshunt.next_id()'), 'pg_proc')"
    "  LIKE '%version " FUNCTIONS_VERSION "', false)"
    " AND coalesce(obj_description(to_regprocedure('pgshunt.uuid_v7()'), 'pg_proc')"
    "  LIKE '%version " FUNCTIONS_VERSION "', false),"
    " coalesce(obj_description(to_regprocedure('pgshunt.shard_number()'), 'pg_proc'), '')";

struct found {
    int number, stride; /* -1, 0: none */
    bool functions;
    bool own; /* the number was given to the shard of this name: it is no copy of another */
};

static int read_int(struct fleet *fleet, int shard, const char *sql, bool *good)
{
    const char *value = fleet_value(fleet, shard, sql);
    *good &= value != NULL;
    return value ? atoi(value) : 0;
}

static bool read_shard(struct fleet *fleet, int shard, struct found *found)
{
    bool good = true;
    PGresult *rows = fleet_query(fleet, shard, read_sql, 0);
    if (!rows)
        return fleet_fails(fleet, shard, NULL, "cannot read what is installed");
    bool number = PQgetvalue(rows, 0, 0)[0] == 't', stride = PQgetvalue(rows, 0, 1)[0] == 't';
    found->functions = PQgetvalue(rows, 0, 2)[0] == 't';
    found->own = strcmp(PQgetvalue(rows, 0, 3),
                        FLEET_TEXT(fleet, "of shard %s", fleet->shards[shard].name)) == 0;
    PQclear(rows);
    found->number = number ? read_int(fleet, shard, "SELECT pgshunt.shard_number()", &good) : -1;
    found->stride = stride ? read_int(fleet, shard, "SELECT pgshunt.id_stride()", &good) : 0;
    return good ? true : fleet_fails(fleet, shard, NULL, "cannot read the shard's number");
}

bool id_numbers_read(struct fleet *fleet, int stride, struct id_numbers *ids)
{
    struct found *found = arena_array(&fleet->arena, struct found, fleet->nshards);
    bool *own = arena_array(&fleet->arena, bool, fleet->nshards);
    int known = 0;
    *ids = (struct id_numbers){.numbers = arena_array(&fleet->arena, int, fleet->nshards),
                               .news = arena_array(&fleet->arena, bool, fleet->nshards),
                               .installed = true};
    for (int i = 0; i < fleet->nshards; i++) {
        if (!read_shard(fleet, i, &found[i]))
            return false;
        known = found[i].stride > known ? found[i].stride : known;
        ids->numbers[i] = found[i].number;
        own[i] = found[i].own;
    }
    ids->stride = stride ? stride : known ? known : FLEET_STRIDE;
    if (!sequence_numbers(ids->numbers, own, fleet->nshards, ids->stride)) {
        fleet_tell(fleet, FLEET_FAILED, -1, NULL,
                   FLEET_TEXT(fleet, "there are more shards than a stride of %d has room for",
                              ids->stride),
                   "sequences setup --stride with a greater one");
        return false;
    }
    for (int i = 0; i < fleet->nshards; i++) {
        ids->news[i] = ids->numbers[i] != found[i].number || !found[i].own ||
                       found[i].stride != ids->stride || !found[i].functions;
        ids->installed &= !ids->news[i];
        ids->new_stride |= found[i].stride && found[i].stride != ids->stride;
    }
    return true;
}

/* ---- installing ---- */

static const char *numbers_sql(struct fleet *fleet, int shard, const struct id_numbers *ids)
{
    char *comment = PQescapeLiteral(db_connection(fleet->shards[shard].db),
                                    FLEET_TEXT(fleet, "of shard %s", fleet->shards[shard].name),
                                    strlen(fleet->shards[shard].name) + 9);
    const char *sql = FLEET_TEXT(
        fleet,
        "BEGIN; SELECT pg_advisory_xact_lock(7741936514602251);"
        "CREATE SCHEMA IF NOT EXISTS pgshunt; GRANT USAGE ON SCHEMA pgshunt TO PUBLIC;"
        "CREATE OR REPLACE FUNCTION pgshunt.shard_number() RETURNS integer LANGUAGE sql IMMUTABLE"
        " PARALLEL SAFE AS 'SELECT %d';"
        "COMMENT ON FUNCTION pgshunt.shard_number() IS %s;"
        "CREATE OR REPLACE FUNCTION pgshunt.id_stride() RETURNS integer LANGUAGE sql IMMUTABLE"
        " PARALLEL SAFE AS 'SELECT %d';",
        ids->numbers[shard], comment ? comment : "NULL", ids->stride);
    PQfreemem(comment);
    return sql;
}

bool id_functions_install(struct fleet *fleet, const struct id_numbers *ids)
{
    for (int i = 0; i < fleet->nshards; i++) {
        if (!ids->news[i])
            continue;
        const char *what =
            FLEET_TEXT(fleet, "pgshunt.next_id(), pgshunt.uuid_v7(): shard number %d of %d",
                       ids->numbers[i], ids->stride);
        if (fleet->request->dry_run) {
            fleet_tell(fleet, FLEET_PLANNED, i, NULL, what, NULL);
            continue;
        }
        const char *sql =
            FLEET_TEXT(fleet, "%s%s%sCOMMIT", numbers_sql(fleet, i, ids), next_id_sql, uuid_v7_sql);
        if (!fleet_run(fleet, i, sql, 0)) {
            fleet_fails(fleet, i, NULL, "cannot install the functions");
            fleet_rollback_all(fleet);
            return false;
        }
        fleet_tell(fleet, FLEET_DONE, i, NULL, what, NULL);
    }
    return true;
}
