/* attempt.c: statements that want strong locks, tried until they get them at once. */
#include "partition/attempt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRIES_USUAL 10
#define PAUSE_MS 100
#define PAUSE_MAX_MS 2000

bool attempt_was_locks(const struct db_error *error)
{
    return strcmp(error->sqlstate, "55P03") == 0 || strcmp(error->sqlstate, "40P01") == 0;
}

/* $1: oids. Who has locks there, the oldest transaction first; and what was prepared and forgotten. */
static const char blockers_sql[] =
    "SELECT string_agg(who, '; ') FROM (SELECT * FROM ("
    "SELECT format('pid %s (%s%s, for %s s): %s', a.pid, a.usename, coalesce(' ' || "
    "nullif(a.application_name, ''), ''), extract(epoch FROM date_trunc('second', "
    "clock_timestamp() "
    "- a.xact_start)), left(regexp_replace(a.query, '\\s+', ' ', 'g'), 80)) AS who, a.xact_start "
    "AS "
    "since FROM (SELECT DISTINCT pid FROM pg_locks WHERE relation = ANY ($1::oid[]) AND granted) l "
    "JOIN pg_stat_activity a USING (pid) WHERE a.pid <> pg_backend_pid() AND a.xact_start IS NOT "
    "NULL "
    "UNION ALL SELECT DISTINCT format('prepared transaction %L, since %s', x.gid, "
    "date_trunc('second', x.prepared)), x.prepared FROM pg_locks l JOIN pg_prepared_xacts x ON "
    "l.virtualtransaction = '-1/' || x.transaction::text WHERE l.relation = ANY ($1::oid[])) w "
    "ORDER BY since LIMIT 3) v";

static void name_blockers(struct shard_work *shard, const char *oids)
{
    struct db_error ignored;
    if (db_is_open(shard->db) && PQtransactionStatus(db_connection(shard->db)) == PQTRANS_INERROR &&
        !db_run(shard->db, WORK_QUERY_MS, &ignored, "ROLLBACK", 0))
        return;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &ignored, blockers_sql, 1, oids);
    if (rows && !PQgetisnull(rows, 0, 0)) {
        size_t length = strlen(shard->error.text);
        snprintf(shard->error.text + length, sizeof shard->error.text - length,
                 "; in the way: %.350s", PQgetvalue(rows, 0, 0));
        snprintf(shard->error.hint, sizeof shard->error.hint,
                 "it is tried again by the next run; to be done with it, end what is in the way");
    }
    PQclear(rows);
}

void attempt_blame(struct shard_work *shard, const char *oids)
{
    name_blockers(shard, oids);
}

/* Ends early where the command is stopped. */
static void rest(const struct work *work, int64_t ms)
{
    for (int64_t until = db_clock_ms() + ms; work_goes_on(work) && db_clock_ms() < until;)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* The server ends the statement when the run's time is up: the session is good for more then. Not in a failed transaction. */
static void limit_statement(struct shard_work *shard)
{
    struct db_error ignored;
    char left[32];
    const struct work *work = shard->work;
    if (!work->until || PQtransactionStatus(db_connection(shard->db)) == PQTRANS_INERROR)
        return;
    snprintf(left, sizeof left, "%lld", (long long)work_limit(work, WORK_QUERY_MS * 144LL));
    if (!db_run(shard->db, WORK_QUERY_MS, &ignored,
                "SELECT set_config('statement_timeout', $1, false)", 1, left))
        return; /* the statement itself has its client's limit */
}

static bool is_late(struct shard_work *shard)
{
    if (!work_late(shard->work))
        return false;
    shard->error = (struct db_error){.text = "the time of the run is up",
                                     .hint = "the next run goes on with it"};
    return true;
}

bool attempt(struct shard_work *shard, const char *sql, const char *oids)
{
    return attempt_within(shard, sql, oids, WORK_QUERY_MS);
}

bool attempt_within(struct shard_work *shard, const char *sql, const char *oids, int64_t ms)
{
    const struct work *work = shard->work;
    int tries = attempt_tries(work);
    int64_t pause = PAUSE_MS;
    unsigned seed = (unsigned)db_clock_ms() ^ shard->shard;
    for (int i = 1; !work_stopped(work); i++) {
        if (is_late(shard))
            return false;
        limit_statement(shard);
        if (db_run(shard->db, ms, &shard->error, sql, 0))
            return true;
        if (strcmp(shard->error.sqlstate, "57014") == 0 && is_late(shard))
            return false;
        if (!attempt_was_locks(&shard->error))
            return false;
        if (i >= tries)
            break;
        rest(work, pause / 2 + rand_r(&seed) % pause);
        pause = pause * 2 < PAUSE_MAX_MS ? pause * 2 : PAUSE_MAX_MS;
    }
    name_blockers(shard, oids);
    return false;
}

bool attempt_once(struct shard_work *shard, const char *sql, int ms)
{
    struct db_error ignored;
    char limit[32];
    snprintf(limit, sizeof limit, "%d", ms);
    if (!db_run(shard->db, WORK_QUERY_MS, &shard->error,
                "SELECT set_config('statement_timeout', $1, false)", 1, limit))
        return false;
    bool done = db_run(shard->db, WORK_QUERY_MS, &shard->error, sql, 0);
    if (db_is_open(shard->db) &&
        !db_run(shard->db, WORK_QUERY_MS, &ignored,
                "SELECT set_config('statement_timeout', '0', false)", 0) &&
        done)
        return false;
    return done;
}

void attempt_rest(const struct work *work, int times)
{
    int64_t pause = PAUSE_MS;
    for (int i = 1; i < times && pause < PAUSE_MAX_MS; i++)
        pause *= 2;
    rest(work, pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
}

int attempt_tries(const struct work *work)
{
    return work->call->tries ? work->call->tries : TRIES_USUAL;
}
