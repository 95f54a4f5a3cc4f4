/* snapshot.c: snapshots exported by temporary logical slots. */
#include "resharder/snapshot.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_SECONDS "10"
#define LOOK_EVERY_MS 100
#define SAY_AFTER_MS 5000

/* Who keeps the slot waiting: it begins only when all transactions of its first moment have ended. */
static const char blockers_query[] =
    "SELECT string_agg(who, '; ') FROM (SELECT 'pid ' || pid || ' (' || coalesce(usename, '?') ||"
    " ', ' || state || ' for ' || date_trunc('second', now() - xact_start) || ')' AS who"
    " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
    " UNION ALL SELECT 'prepared transaction ''' || gid || '''' FROM pg_prepared_xacts"
    " LIMIT 20) b";

static bool fails(struct db_error *error, PGconn *pg, const PGresult *result)
{
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *primary = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    *error = (struct db_error){.text = ""};
    snprintf(error->text, sizeof error->text, "%s", primary ? primary : PQerrorMessage(pg));
    snprintf(error->sqlstate, sizeof error->sqlstate, "%s", sqlstate ? sqlstate : "");
    error->text[strcspn(error->text, "\n")] = '\0';
    return false;
}

static void name_blockers(struct reshard *reshard, unsigned shard)
{
    struct db_error ignored;
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &ignored, blockers_query, 0) : NULL;
    if (rows && PQntuples(rows) && !PQgetisnull(rows, 0, 0))
        reshard_tell(reshard, RESHARD_NOTE, shardmap_shard_name(reshard->map, shard), NULL,
                     RESHARD_TEXT(reshard, "waits for transactions under way to end: %s",
                                  PQgetvalue(rows, 0, 0)),
                     NULL);
    PQclear(rows);
}

/* False: stopped, or lost. */
static bool wait_answer(struct reshard *reshard, unsigned shard, PGconn *pg, struct db_error *error)
{
    int64_t say_at = db_clock_ms() + SAY_AFTER_MS;
    while (PQisBusy(pg)) {
        struct pollfd socket = {.fd = PQsocket(pg), .events = POLLIN};
        if (reshard_stopped(reshard)) {
            *error = (struct db_error){.text = "interrupted"};
            return false;
        }
        if (poll(&socket, 1, LOOK_EVERY_MS) > 0 && !PQconsumeInput(pg))
            return fails(error, pg, NULL);
        if (db_clock_ms() > say_at) {
            name_blockers(reshard, shard);
            say_at = db_clock_ms() + 12 * SAY_AFTER_MS;
        }
    }
    return true;
}

static bool read_slot(struct snapshot *snapshot, const PGresult *row)
{
    unsigned high, low;
    snprintf(snapshot->lsn, sizeof snapshot->lsn, "%s", PQgetvalue(row, 0, 1));
    snprintf(snapshot->name, sizeof snapshot->name, "%s", PQgetvalue(row, 0, 2));
    if (sscanf(snapshot->lsn, "%X/%X", &high, &low) != 2)
        return false;
    snapshot->position = (uint64_t)high << 32 | low;
    return true;
}

static bool make_slot(struct reshard *reshard, unsigned shard, const char *label,
                      struct snapshot *snapshot, struct db_error *error)
{
    char sql[256];
    snprintf(sql, sizeof sql,
             "CREATE_REPLICATION_SLOT \"pgshunt_%s_%s_%d\" TEMPORARY LOGICAL pgoutput"
             " EXPORT_SNAPSHOT",
             reshard->request->job, label, (int)getpid());
    if (!PQsendQuery(snapshot->pg, sql))
        return fails(error, snapshot->pg, NULL);
    if (!wait_answer(reshard, shard, snapshot->pg, error))
        return false;
    PGresult *row = PQgetResult(snapshot->pg);
    bool good = row && PQresultStatus(row) == PGRES_TUPLES_OK && read_slot(snapshot, row);
    if (!good)
        fails(error, snapshot->pg, row);
    PQclear(row);
    while ((row = PQgetResult(snapshot->pg)))
        PQclear(row);
    return good;
}

bool snapshot_take(struct reshard *reshard, unsigned shard, const char *label,
                   struct snapshot *snapshot, struct db_error *error)
{
    struct db_parameters parameters;
    *snapshot = (struct snapshot){.pg = NULL};
    if (!reshard_parameters(reshard, shard, &parameters, error))
        return false;
    db_put(&parameters, "connect_timeout", CONNECT_SECONDS);
    db_put(&parameters, "options",
           "-cstatement_timeout=0 -cidle_in_transaction_session_timeout=0 -clock_timeout=0");
    snapshot->pg = PQconnectdbParams(parameters.names, parameters.values, 0);
    bool good = PQstatus(snapshot->pg) == CONNECTION_OK ? true : fails(error, snapshot->pg, NULL);
    good = good && make_slot(reshard, shard, label, snapshot, error);
    if (!good)
        snapshot_drop(snapshot);
    return good;
}

bool snapshot_is_alive(struct snapshot *snapshot)
{
    /* The server says nothing on this session unless it ends. */
    return snapshot->pg && PQconsumeInput(snapshot->pg) && PQstatus(snapshot->pg) == CONNECTION_OK;
}

void snapshot_drop(struct snapshot *snapshot)
{
    PQfinish(snapshot->pg);
    snapshot->pg = NULL;
}

bool snapshot_enter(struct db *db, const char *name, struct db_error *error)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '%s'",
             name);
    if (db_run(db, RESHARD_QUERY_MS, error, sql, 0))
        return true;
    struct db_error ignored; /* so that the session can be used on */
    bool reset = db_is_open(db) && db_run(db, RESHARD_QUERY_MS, &ignored, "ROLLBACK", 0);
    (void)reset;
    return false;
}
