/* shard_deadlock_ask.c: asks one server who waits for whom, as the monitor's user. */
#include "proxy/shard_deadlock_ask.h"

#include "pgshunt/db.h"
#include "proxy/monitor_internal.h"

#define CONNECT_MS 2000
#define QUERY_MS 5000

static const char waits_sql[] =
    "SELECT a.pid, b.pid FROM pg_catalog.pg_locks AS a,"
    " LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) AS b(pid)"
    " WHERE NOT a.granted";

PGresult *shard_deadlock_ask(const struct config *config, const char *host, int port,
                             const char *dbname, const volatile sig_atomic_t *stop)
{
    struct monitor_login login = monitor_login(config, "pgshunt deadlocks");
    struct db_error error;
    struct db_target target = {
        .host = host,
        .port = port,
        .dbname = dbname,
        .user = login.user,
        .password = login.password,
        .application = login.application,
        .tls = config_server_tls(config, NULL, host, port, dbname),
        .stop = stop,
    };
    struct db *db = db_open(&target, CONNECT_MS, &error);
    PGresult *rows = db ? db_query(db, QUERY_MS, &error, waits_sql, 0) : NULL;
    db_close(db);
    return rows;
}
