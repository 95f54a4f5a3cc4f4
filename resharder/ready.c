/* ready.c: what a shard needs before its rows are streamed: tables of ghost keys, identities that tell the key. */
#include "resharder/ready.h"

#include <string.h>

#include "resharder/tables.h"

/* How it was, for when the job is over. The table's own statement wants a lock that does not wait for readers. */
static const char identity_query[] =
    "SELECT CASE c.relreplident WHEN 'd' THEN 'DEFAULT' WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN"
    " 'FULL' ELSE (SELECT format('USING INDEX %I', i.relname) FROM pg_index x JOIN pg_class i ON"
    " i.oid = x.indexrelid WHERE x.indrelid = c.oid AND x.indisreplident) END, format('%I.%I',"
    " n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE"
    " c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass) UNION SELECT $1::oid)";

static bool make_full(struct reshard *reshard, const struct job *job, unsigned shard,
                      const char *relation, const char *was)
{
    struct db *db = reshard_primary(reshard, shard);
    const char *sql = RESHARD_TEXT(
        reshard, "SET lock_timeout = '200ms'; ALTER TABLE %s REPLICA IDENTITY FULL", relation);
    if (!job_will_make(reshard, job, shard, "identity", relation, was))
        return false;
    for (int tries = 0; tries < 100 && !reshard_stopped(reshard); tries++) {
        if (db_run(db, RESHARD_QUERY_MS, &reshard->error, sql, 0))
            return db_run(db, RESHARD_QUERY_MS, &reshard->error, "RESET lock_timeout", 0);
        if (strcmp(reshard->error.sqlstate, "55P03") != 0)
            return false;
        reshard_sleep(reshard, 50000);
    }
    return false;
}

static bool widen_identity(struct reshard *reshard, const struct job *job, unsigned shard,
                           const struct move_table *table)
{
    PGresult *rows = db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error,
                              identity_query, 1, RESHARD_TEXT(reshard, "%u", table->oid));
    bool good = rows != NULL;
    for (int i = 0; good && i < PQntuples(rows); i++)
        good = strcmp(PQgetvalue(rows, i, 0), "FULL") == 0 ||
               make_full(reshard, job, shard, PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 0));
    PQclear(rows);
    return good;
}

/* Old rows in the stream must tell their sharding key, on either side. */
bool ready_identities(struct reshard *reshard, const struct job *job, unsigned shard)
{
    struct move_tables tables;
    struct db *db = reshard_primary(reshard, shard);
    if (!db || !tables_read(db, &reshard->moves, &reshard->arena, &tables, &reshard->error))
        return false;
    for (int i = 0; i < tables.count; i++)
        if (!tables.items[i].key_in_identity &&
            !widen_identity(reshard, job, shard, &tables.items[i]))
            return false;
    return true;
}

bool ready_ghosts(struct reshard *reshard, unsigned shard)
{
    if (!moves_hide(&reshard->moves, shard))
        return true;
    struct db *db = reshard_primary(reshard, shard);
    bool good = db && db_run(db, RESHARD_QUERY_MS, &reshard->error,
                             "CREATE SCHEMA IF NOT EXISTS pgshunt", 0);
    for (int i = 0; good && i < reshard->moves.count; i++) {
        const struct keyspace *keyspace = reshard->moves.items[i].keyspace;
        good = db_run(db, RESHARD_QUERY_MS, &reshard->error,
                      tables_ghost_create(keyspace, &reshard->arena), 0) &&
               db_run(db, RESHARD_QUERY_MS, &reshard->error,
                      RESHARD_TEXT(reshard, "GRANT SELECT ON %s TO PUBLIC",
                                   tables_ghost(keyspace, &reshard->arena)),
                      0) &&
               db_run(db, RESHARD_QUERY_MS, &reshard->error,
                      "GRANT USAGE ON SCHEMA pgshunt TO PUBLIC", 0);
    }
    return good;
}
