/* slot.c: replication connections, slots with their snapshots, publications. */
#include "resharder/slot.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define CONNECT_MS 8000
#define LOOK_EVERY_MS 100
#define NO_MESSAGES 140000 /* versions below have no logical messages in a stream */

/* ---- replication connections ---- */

static bool fail(struct reshard *reshard, const char *text)
{
    reshard->error = (struct db_error){.text = ""};
    size_t used = 0;
    for (const char *p = text; *p && used + 1 < sizeof reshard->error.text; p++)
        reshard->error.text[used++] = *p == '\n' ? ' ' : *p;
    while (used && reshard->error.text[used - 1] == ' ')
        reshard->error.text[--used] = '\0';
    return false;
}

static bool wait_socket(struct reshard *reshard, PGconn *connection, short events, int64_t until)
{
    for (;;) {
        int64_t left = until - db_clock_ms();
        struct pollfd socket = {.fd = PQsocket(connection), .events = events};
        if (reshard_stopped(reshard))
            return fail(reshard, "interrupted");
        if (left <= 0)
            return fail(reshard, "no answer in time");
        if (poll(&socket, 1, (int)(left < LOOK_EVERY_MS ? left : LOOK_EVERY_MS)) > 0)
            return true;
    }
}

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

static bool log_in(struct reshard *reshard, PGconn *connection)
{
    int64_t until = db_clock_ms() + CONNECT_MS;
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED || PQstatus(connection) == CONNECTION_BAD)
            return fail(reshard, PQerrorMessage(connection));
        if (!wait_socket(reshard, connection, next == PGRES_POLLING_WRITING ? POLLOUT : POLLIN,
                         until))
            return false;
        next = PQconnectPoll(connection);
    }
    PQsetNoticeReceiver(connection, ignore_notice, NULL);
    return true;
}

/* Values travel as text where types have no common binary form: as these settings have it. */
static const char session_options[] =
    "-csearch_path=pg_catalog -cdatestyle=ISO -cintervalstyle=postgres -cextra_float_digits=3"
    " -cbytea_output=hex -clc_monetary=C -cstatement_timeout=0 -clock_timeout=0"
    " -cidle_in_transaction_session_timeout=0";

PGconn *slot_connect(struct reshard *reshard, unsigned shard)
{
    struct db_parameters parameters;
    if (!reshard_parameters(reshard, shard, &parameters, &reshard->error))
        return NULL;
    db_put(&parameters, "options", session_options);
    PGconn *connection = PQconnectStartParams(parameters.names, parameters.values, 0);
    if (!connection) {
        fail(reshard, "out of memory");
        return NULL;
    }
    if (log_in(reshard, connection))
        return connection;
    PQfinish(connection);
    return NULL;
}

static void keep_error(struct reshard *reshard, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    fail(reshard, text ? text : PQresultErrorMessage(result));
    snprintf(reshard->error.sqlstate, sizeof reshard->error.sqlstate, "%s",
             sqlstate ? sqlstate : "");
    snprintf(reshard->error.hint, sizeof reshard->error.hint, "%s", hint ? hint : "");
}

PGresult *slot_command(struct reshard *reshard, PGconn *connection, const char *command,
                       int64_t timeout_ms)
{
    int64_t until = db_clock_ms() + timeout_ms;
    if (!PQsendQuery(connection, command)) {
        fail(reshard, PQerrorMessage(connection));
        return NULL;
    }
    while (PQisBusy(connection)) {
        if (!wait_socket(reshard, connection, POLLIN, until))
            return NULL;
        if (!PQconsumeInput(connection)) {
            fail(reshard, PQerrorMessage(connection));
            return NULL;
        }
    }
    PGresult *result = PQgetResult(connection);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COPY_BOTH || status == PGRES_COMMAND_OK) {
        if (status != PGRES_COPY_BOTH)
            PQclear(PQgetResult(connection)); /* the NULL behind it */
        return result;
    }
    keep_error(reshard, result);
    PQclear(result);
    return NULL;
}

/* ---- slots ---- */

/* Who has written and not ended: the server waits for all of them, in whatever database. */
static const char blockers_query[] =
    "SELECT format('prepared transaction %s of %s, since %s', quote_literal(gid), owner,"
    "   date_trunc('second', prepared)) FROM (SELECT * FROM pg_prepared_xacts ORDER BY prepared"
    "   LIMIT 4) p UNION ALL SELECT format('process %s (%s, %s, %s), in its transaction for %s s',"
    "   pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), 'no application_name'),"
    "   coalesce(state, backend_type), coalesce(extract(epoch FROM now() - xact_start)::int::text,"
    "   '?')) FROM (SELECT * FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
    "   AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 4) a";

static void name_blockers(struct reshard *reshard, unsigned shard, const char *slot)
{
    struct db_error late = {.hint = "End them, or wait until they have ended, and run this again."};
    struct db *db = reshard_primary(reshard, shard);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, blockers_query, 0) : NULL;
    snprintf(late.text, sizeof late.text,
             "slot %s could not be made in time: transactions that have written are still open",
             slot);
    for (int i = 0; rows && i < PQntuples(rows); i++) {
        size_t used = strlen(late.text);
        snprintf(late.text + used, sizeof late.text - used, "%s%s", i ? "; " : ": ",
                 PQgetvalue(rows, i, 0));
    }
    PQclear(rows);
    reshard->error = late;
}

static void cancel(PGconn *connection)
{
    char ignored[256];
    PGcancel *request = PQgetCancel(connection);
    if (request)
        PQcancel(request, ignored, sizeof ignored);
    PQfreeCancel(request);
}

static bool take_snapshot(const PGresult *result, struct slot_snapshot *snapshot)
{
    unsigned high, low;
    if (PQntuples(result) != 1 || PQnfields(result) < 3 ||
        sscanf(PQgetvalue(result, 0, 1), "%X/%X", &high, &low) != 2)
        return false;
    snprintf(snapshot->lsn_text, sizeof snapshot->lsn_text, "%s", PQgetvalue(result, 0, 1));
    snprintf(snapshot->name, sizeof snapshot->name, "%s", PQgetvalue(result, 0, 2));
    snapshot->lsn = (uint64_t)high << 32 | low;
    return true;
}

bool slot_create(struct reshard *reshard, unsigned shard, const char *slot, int64_t timeout_ms,
                 struct slot_snapshot *snapshot)
{
    *snapshot = (struct slot_snapshot){.connection = slot_connect(reshard, shard)};
    if (!snapshot->connection)
        return false;
    int64_t until = db_clock_ms() + timeout_ms;
    PGresult *result = slot_command(
        reshard, snapshot->connection,
        RESHARD_TEXT(reshard, "CREATE_REPLICATION_SLOT \"%s\" LOGICAL pgoutput EXPORT_SNAPSHOT",
                     slot),
        timeout_ms);
    bool good = result && take_snapshot(result, snapshot);
    if (result && !good)
        fail(reshard, "the server's answer to CREATE_REPLICATION_SLOT is not understood");
    PQclear(result);
    if (good)
        return true;
    /* A slot that is not ready goes with its maker. */
    bool late = !result && !reshard_stopped(reshard) && db_clock_ms() >= until;
    cancel(snapshot->connection);
    slot_release_snapshot(snapshot);
    if (late)
        name_blockers(reshard, shard, slot);
    return false;
}

void slot_release_snapshot(struct slot_snapshot *snapshot)
{
    PQfinish(snapshot->connection);
    snapshot->connection = NULL;
}

/* ---- publications, origins, markers ---- */

bool slot_publish(struct reshard *reshard, unsigned shard, const char *publication,
                  const struct move_tables *tables)
{
    struct db *db = reshard_primary(reshard, shard);
    const char *list = "";
    if (!db)
        return false;
    for (int i = 0; i < tables->count; i++)
        list = RESHARD_TEXT(reshard, "%s%s%s", list, i ? ", " : "", tables->items[i].relation);
    if (PQserverVersion(db_connection(db)) < NO_MESSAGES) {
        if (!db_run(db, RESHARD_QUERY_MS, &reshard->error,
                    "CREATE TABLE IF NOT EXISTS pgshunt.marker (marker text PRIMARY KEY)", 0))
            return false;
        list = RESHARD_TEXT(reshard, "%s%spgshunt.marker", list, tables->count ? ", " : "");
    }
    return db_run(db, RESHARD_QUERY_MS, &reshard->error,
                  RESHARD_TEXT(reshard,
                               "CREATE PUBLICATION \"%s\" %s%s WITH (publish = 'insert, update,"
                               " delete, truncate', publish_via_partition_root = true)",
                               publication, *list ? "FOR TABLE " : "", list),
                  0);
}

bool slot_create_origin(struct reshard *reshard, unsigned shard, const char *origin)
{
    struct db *db = reshard_primary(reshard, shard);
    return db && db_run(db, RESHARD_QUERY_MS, &reshard->error,
                        "SELECT pg_replication_origin_create($1) WHERE NOT EXISTS (SELECT FROM"
                        " pg_replication_origin WHERE roname = $1)",
                        1, origin);
}

bool slot_mark(struct db *db, const char *marker, struct db_error *error)
{
    if (PQserverVersion(db_connection(db)) >= NO_MESSAGES)
        return db_run(db, RESHARD_QUERY_MS, error,
                      "SELECT pg_logical_emit_message(true, 'pgshunt', $1)", 1, marker);
    return db_run(db, RESHARD_QUERY_MS, error,
                  "INSERT INTO pgshunt.marker VALUES ($1) ON CONFLICT (marker) DO UPDATE"
                  " SET marker = EXCLUDED.marker",
                  1, marker);
}
