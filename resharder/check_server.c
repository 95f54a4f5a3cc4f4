/* check_server.c: settings and rights that a job needs on a server, and what is under way there. */
#include <stdio.h>
#include <string.h>

#include "resharder/check.h"

#define SLOTS_FOR_COPYING 1 /* for the time of a snapshot */

/* ---- settings ---- */

/* $1: replication slots and senders that the job takes. */
static const char settings_query[] =
    "WITH has AS (SELECT current_setting('max_replication_slots')::int AS slots,"
    " current_setting('max_wal_senders')::int AS senders,"
    " coalesce(current_setting('max_active_replication_origins', true),"
    "   current_setting('max_replication_slots'))::int AS origins,"
    " CASE WHEN current_setting('server_version_num')::int >= 180000"
    "   THEN 'max_active_replication_origins' ELSE 'max_replication_slots' END AS origins_name,"
    " current_setting('server_version_num')::int / 10000 AS version, $1::int AS needed,"
    " (SELECT count(*) FROM pg_replication_slots) AS slots_used,"
    " (SELECT count(*) FROM pg_stat_replication) AS senders_used,"
    " (SELECT count(*) FROM pg_replication_origin) AS origins_used)"
    " SELECT 'problem', 'version', format('PostgreSQL %s: from 13 to 18 are known', version), NULL"
    " FROM has WHERE version NOT BETWEEN 13 AND 18"
    " UNION ALL SELECT 'problem', 'wal_level', format('is \"%s\": changes cannot be streamed',"
    " current_setting('wal_level')), 'ALTER SYSTEM SET wal_level = ''logical''; and restart the "
    "server'"
    " WHERE current_setting('wal_level') <> 'logical'"
    " UNION ALL SELECT 'problem', 'max_replication_slots', format('of %s slots %s are used: the "
    "job takes"
    " %s', slots, slots_used, needed), format('ALTER SYSTEM SET max_replication_slots = %s; and "
    "restart"
    " the server', slots_used + needed + 2) FROM has WHERE slots - slots_used < needed"
    " UNION ALL SELECT 'problem', 'max_wal_senders', format('of %s senders %s are used: the job "
    "takes %s',"
    " senders, senders_used, needed), format('ALTER SYSTEM SET max_wal_senders = %s; and restart "
    "the"
    " server', senders_used + needed + 2) FROM has WHERE senders - senders_used < needed"
    " UNION ALL SELECT 'problem', origins_name, format('of %s replication origins %s are used: the "
    "job"
    " takes %s', origins, origins_used, needed), format('ALTER SYSTEM SET %s = %s; and restart the"
    " server', origins_name, origins_used + needed + 2) FROM has WHERE origins - origins_used < "
    "needed"
    " UNION ALL SELECT 'note', 'max_slot_wal_keep_size', format('%s: when a slot of the job keeps "
    "more WAL,"
    " it is lost, and the job has to begin anew', current_setting('max_slot_wal_keep_size')),"
    " 'ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf(), and watch the disk'"
    " WHERE current_setting('max_slot_wal_keep_size') <> '-1'"
    " UNION ALL SELECT 'note', 'max_slot_wal_keep_size', 'is unlimited: while reshard run is not "
    "at work,"
    " its slots keep WAL until the disk is full', NULL"
    " WHERE current_setting('max_slot_wal_keep_size') = '-1'";

/* Both ways of each link have a slot, a sender and an origin. */
static int slots_needed(const struct check *check, unsigned shard)
{
    int needed = check_is_source(check, shard) ? SLOTS_FOR_COPYING : 0;
    for (int i = 0; i < check->nlinks; i++)
        needed += check->links[i].source == shard || check->links[i].target == shard;
    return needed;
}

/* ---- rights ---- */

static const char rights_query[] =
    "WITH me AS (SELECT rolname, rolsuper, rolreplication FROM pg_roles WHERE rolname = "
    "current_user)"
    " SELECT 'problem', rolname, 'this role may not replicate', format('ALTER ROLE %I REPLICATION',"
    " rolname) FROM me WHERE NOT rolsuper AND NOT rolreplication"
    " UNION ALL SELECT 'problem', rolname, 'this role may not create publications in the database, "
    "nor a"
    " schema', format('GRANT CREATE ON DATABASE %I TO %I', current_database(), rolname) FROM me"
    " WHERE NOT has_database_privilege(current_database(), 'CREATE')"
    " UNION ALL SELECT 'problem', rolname, 'this role may not create tables in schema pgshunt',"
    " format('GRANT CREATE, USAGE ON SCHEMA pgshunt TO %I', rolname) FROM me, pg_namespace n"
    " WHERE n.nspname = 'pgshunt' AND NOT has_schema_privilege(n.oid, 'CREATE, USAGE')"
    " UNION ALL SELECT 'problem', rolname, format('this role may not call %s', f),"
    " format('GRANT EXECUTE ON FUNCTION %s TO %I', f, rolname) FROM me,"
    " (VALUES ('pg_replication_origin_create(text)'), ('pg_replication_origin_drop(text)'),"
    " ('pg_replication_origin_oid(text)'), ('pg_replication_origin_session_setup(text)'),"
    " ('pg_replication_origin_session_reset()'), ('pg_replication_origin_progress(text, "
    "boolean)'),"
    " ('pg_replication_origin_xact_setup(pg_lsn, timestamp with time zone)'),"
    " ('pg_replication_origin_advance(text, pg_lsn)')) v(f)"
    " WHERE NOT has_function_privilege(f, 'EXECUTE')";

/* Whether triggers can be kept from firing is seen by trying. */
static bool check_replica_role(struct check *check, unsigned shard)
{
    struct reshard *reshard = check->reshard;
    struct db *db = reshard_primary(reshard, shard);
    struct db_error error;
    if (db_run(db, RESHARD_QUERY_MS, &error,
               "SELECT set_config('session_replication_role', 'replica', true)", 0))
        return true;
    if (strcmp(error.sqlstate, "42501") != 0) {
        reshard->error = error;
        return check_fails(check, shard, "cannot look at the rights");
    }
    check_problem(
        check, shardmap_shard_name(reshard->map, shard), "session_replication_role",
        "this role may not set it: triggers would fire for rows that are only moved",
        "GRANT SET ON PARAMETER session_replication_role TO the role (from PostgreSQL 15 on),"
        " or use a superuser");
    return true;
}

/* A connection for replication, as the streams will open it. */
static bool check_replication(struct check *check, unsigned shard)
{
    struct reshard *reshard = check->reshard;
    struct db_parameters parameters;
    if (!reshard_parameters(reshard, shard, &parameters, &reshard->error))
        return check_fails(check, shard, "cannot find the primary");
    db_put(&parameters, "connect_timeout", "8");
    PGconn *conn = PQconnectdbParams(parameters.names, parameters.values, 0);
    if (PQstatus(conn) != CONNECTION_OK) {
        char text[300];
        snprintf(text, sizeof text, "%s", PQerrorMessage(conn));
        text[strcspn(text, "\n")] = '\0';
        check_problem(check, shardmap_shard_name(reshard->map, shard), "replication",
                      RESHARD_TEXT(reshard, "cannot connect for replication: %s", text),
                      "Look at the role's REPLICATION attribute, max_wal_senders and pg_hba.conf");
    }
    PQfinish(conn);
    return true;
}

/* ---- what is under way ---- */

/* A slot is made when all that was under way has ended. Ours are ended by any proxy, within seconds. */
static const char under_way_query[] =
    "SELECT 'problem', gid, format('prepared transaction of %s since %s: no slot can be made "
    "before it has"
    " ended', owner, prepared::timestamptz(0)),"
    " CASE WHEN gid LIKE 'pgshunt:%' THEN 'a running pgshunt with this configuration ends it "
    "within"
    " seconds: look whether one is there, and at its log'"
    " ELSE format('COMMIT PREPARED %L, or ROLLBACK PREPARED %L, in database %I', gid, gid, "
    "database) END"
    " FROM pg_prepared_xacts WHERE gid NOT LIKE 'pgshunt:%'"
    " OR prepared < clock_timestamp() - interval '5 s'"
    " UNION ALL SELECT 'note', 'process ' || pid, format('%s has a transaction that began %s ago: "
    "the copy"
    " begins when it has ended', usename, date_trunc('second', clock_timestamp() - xact_start)),"
    " format('SELECT pg_terminate_backend(%s)', pid) FROM pg_stat_activity"
    " WHERE xact_start < clock_timestamp() - interval '1 min' AND backend_type = 'client backend'"
    " AND pid <> pg_backend_pid()";

bool check_server(struct check *check, unsigned shard)
{
    struct reshard *reshard = check->reshard;
    const char *needed = RESHARD_TEXT(reshard, "%d", slots_needed(check, shard));
    if (!reshard_primary(reshard, shard))
        return check_fails(check, shard, "cannot connect");
    return check_ask(check, shard, "cannot read the settings", settings_query, needed, NULL) &&
           check_ask(check, shard, "cannot read the rights", rights_query, NULL, NULL) &&
           check_replica_role(check, shard) && check_replication(check, shard) &&
           check_ask(check, shard, "cannot see what is under way", under_way_query, NULL, NULL);
}
