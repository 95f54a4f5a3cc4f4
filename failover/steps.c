/*
 * steps.c: what a failover does, step by step. Each may be done twice without harm.
 *
 * Ahead of `promote` everything is taken back by steps_undo(). A step that has nothing left to do, since
 * an earlier run did it, does nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failover/run.h"

#define LOOK_EVERY_MS 5
#define CHECKPOINT_MS 60000
#define NEAR_BYTES (16 << 20) /* of WAL: what a replica replays in a moment */
#define PROMOTE_MS 60000
#define RECOGNIZE_MS 10000
#define END_SESSIONS_MS 5000

/* One value; NULL: run->error. */
static const char *ask(struct run *run, struct db *db, const char *sql, const char *parameter)
{
    PGresult *rows = db_query(db, RUN_QUERY_MS, &run->error, sql, parameter ? 1 : 0, parameter);
    const char *text = NULL;
    if (rows && PQntuples(rows))
        text = RUN_TEXT(run, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return text;
}

static bool run_sql(struct run *run, struct db *db, const char *sql)
{
    return db_run(db, RUN_QUERY_MS, &run->error, sql, 0);
}

/* ---- ahead of the hold ---- */

/* So that what follows the promotion is short. It may be long or not allowed: it is no condition. */
static bool checkpoint(struct run *run)
{
    struct db_error ignored;
    struct db_target target = {.dbname = run->shard->dbname,
                               .user = run->user,
                               .password = run->user_password,
                               .application = "pgshuntctl failover",
                               .stop = run->request->stop};
    int nodes[] = {run->verdict.primary, run->verdict.candidate};
    for (int i = 0; i < 2; i++) {
        const struct node_facts *node = &run->facts.nodes[nodes[i]];
        target.host = node->host;
        target.port = node->port;
        target.tls = config_server_tls(run->request->config, run->database->name, node->host,
                                       node->port, run->shard->dbname);
        struct db *db = db_open(&target, RUN_CONNECT_MS, &ignored);
        if (db)
            db_run(db, CHECKPOINT_MS, &ignored, "CHECKPOINT", 0);
        db_close(db);
    }
    return run_goes_on(run);
}

static const char sql_behind[] =
    "SELECT $1::numeric - (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0'::pg_lsn)";
#define SQL_WRITTEN "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"

/* Bytes the candidate has yet to replay up to `position`. */
static bool ask_behind(struct run *run, const char *position, long long *behind)
{
    const char *text = ask(run, run_candidate_db(run), sql_behind, position);
    if (text)
        *behind = strtoll(text, NULL, 10);
    return text != NULL;
}

static bool approach(struct run *run)
{
    int64_t until = db_clock_ms() + run->request->catch_up_ms;
    long long behind = 0;
    for (;;) {
        const char *position = ask(run, run_primary_db(run), SQL_WRITTEN, NULL);
        if (!position || !ask_behind(run, position, &behind) || !run_goes_on(run))
            return false;
        if (behind <= NEAR_BYTES)
            return true;
        if (db_clock_ms() > until)
            return run_fails(run,
                             RUN_TEXT(run, "%s is %lld bytes of WAL behind, and does not catch up",
                                      run_candidate(run)->name, behind),
                             "wait for less load, or give it more time with --catch-up");
        run_nap(50);
    }
}

/* ---- standing still ---- */

static int64_t hold_ms(const struct run *run)
{
    int64_t least = run->request->drain_ms + run->request->catch_up_ms + 15000;
    return least > RUN_HOLD_MS ? least : RUN_HOLD_MS;
}

static bool hold(struct run *run)
{
    if (!consoles_hold(run, hold_ms(run)))
        return false;
    run->held_at = ask(run, run_primary_db(run), "SELECT clock_timestamp()", NULL);
    return run->held_at != NULL;
}

/* Sessions of others: neither replication nor our own. */
#define OTHERS                                                                                     \
    " FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"     \
    " AND application_name <> 'pgshuntctl failover'"

static const char sql_open[] = "SELECT count(*)" OTHERS " AND xact_start <= $1::timestamptz";
static const char sql_open_list[] =
    "SELECT string_agg(format('pid %s (%s, %s, for %s s)', pid, usename, state,"
    " extract(epoch FROM clock_timestamp() - xact_start)::int), '; ')" OTHERS
    " AND xact_start <= $1::timestamptz";

static bool drained(struct run *run)
{
    const char *count = ask(run, run_primary_db(run), sql_open, run->held_at);
    return count && strcmp(count, "0") == 0;
}

/* The time is over. */
static bool still_open(struct run *run)
{
    const char *list = ask(run, run_primary_db(run), sql_open_list, run->held_at);
    if (run->request->terminate)
        return db_is_open(run_primary_db(run));
    return run_fails(run,
                     RUN_TEXT(run, "transactions are still open: %s",
                              list && *list ? list : "of proxies' clients"),
                     "end them, or give them more time with --drain, or --terminate ends them");
}

/* What the proxies have sent may not have reached the server yet: they are asked first. */
static bool drain(struct run *run)
{
    int64_t until = db_clock_ms() + run->request->drain_ms;
    bool proxies = consoles_drain(run, run->request->drain_ms);
    if (!run_goes_on(run))
        return false;
    if (!proxies && !run->request->terminate)
        return still_open(run);
    while (!drained(run)) {
        if (!db_is_open(run_primary_db(run)) || !run_goes_on(run))
            return false;
        if (db_clock_ms() > until)
            return still_open(run);
        run_nap(LOOK_EVERY_MS);
    }
    return true;
}

/* When our session sees it, every session that begins from here on does. */
static bool set_read_only(struct run *run, struct db *db, bool on)
{
    const char *sql = on ? "ALTER SYSTEM SET default_transaction_read_only = on"
                         : "ALTER SYSTEM RESET default_transaction_read_only";
    if (!run_sql(run, db, sql) || !run_sql(run, db, "SELECT pg_reload_conf()"))
        return false;
    for (int64_t until = db_clock_ms() + RUN_QUERY_MS; db_clock_ms() < until;) {
        const char *now = ask(run, db, "SHOW default_transaction_read_only", NULL);
        if (!now)
            return false;
        if (strcmp(now, on ? "on" : "off") == 0)
            return true;
        run_nap(LOOK_EVERY_MS);
    }
    return run_fails(run, "the server does not take default_transaction_read_only over",
                     "is it set on its command line, or in postgresql.conf?");
}

static bool fence(struct run *run)
{
    run->fenced = true;
    if (!set_read_only(run, run_primary_db(run), true))
        return false;
    run->fenced_at = ask(run, run_primary_db(run), "SELECT clock_timestamp()", NULL);
    return run->fenced_at != NULL;
}

static const char sql_end[] =
    "SELECT count(pg_terminate_backend(pid))" OTHERS " AND backend_start <= $1::timestamptz";
static const char sql_there[] = "SELECT count(*)" OTHERS " AND backend_start <= $1::timestamptz";

/* Sessions older than the fence could write yet. */
static bool end_sessions(struct run *run)
{
    int64_t until = db_clock_ms() + END_SESSIONS_MS;
    if (!ask(run, run_primary_db(run), sql_end, run->fenced_at))
        return false;
    for (;;) {
        const char *count = ask(run, run_primary_db(run), sql_there, run->fenced_at);
        if (!count || !run_goes_on(run))
            return false;
        if (strcmp(count, "0") == 0)
            return true;
        if (db_clock_ms() > until)
            return run_fails(run, RUN_TEXT(run, "%s sessions do not end", count),
                             "pg_stat_activity on the primary shows them");
        run_nap(LOOK_EVERY_MS);
    }
}

/* Its commit flushes all WAL ahead of it, also what commits with synchronous_commit = off have left. It
 * waits for no standby: that is done next. */
static const char sql_flush[] =
    "BEGIN READ WRITE; SET LOCAL synchronous_commit = local;"
    "SELECT pg_logical_emit_message(true, 'pgshunt', 'failover'); COMMIT";

static bool catch_up(struct run *run)
{
    int64_t until = db_clock_ms() + run->request->catch_up_ms;
    long long behind = 0;
    const char *position = NULL;
    if (run_sql(run, run_primary_db(run), sql_flush))
        position = ask(run, run_primary_db(run), SQL_WRITTEN, NULL);
    if (!position)
        return false;
    run->last_position = strtoull(position, NULL, 10);
    for (;;) {
        if (!ask_behind(run, position, &behind) || !run_goes_on(run))
            return false;
        if (behind <= 0)
            return true;
        if (db_clock_ms() > until)
            return run_fails(run,
                             RUN_TEXT(run, "%s is %lld bytes of WAL behind, and does not catch up",
                                      run_candidate(run)->name, behind),
                             "its log tells why; or give it more time with --catch-up");
        run_nap(LOOK_EVERY_MS);
    }
}

/* Has somebody else promoted one meanwhile? */
static bool nobody_promoted(struct run *run)
{
    survey_again(run);
    for (int i = 0; i < run->facts.nnodes; i++) {
        const struct node_facts *node = &run->facts.nodes[i];
        if (i != run->verdict.primary && node->reachable && !node->in_recovery &&
            !facts_is_old_primary(&run->facts, i))
            return run_fails(run, RUN_TEXT(run, "%s has been promoted meanwhile", node->name),
                             "run it again, to finish that");
    }
    return run_candidate(run)->reachable;
}

/* ---- the promotion ---- */

static bool await_promotion(struct run *run)
{
    for (int64_t until = db_clock_ms() + PROMOTE_MS; db_clock_ms() < until;) {
        const char *recovery = ask(run, run_candidate_db(run), "SELECT pg_is_in_recovery()", NULL);
        if (!recovery)
            return false;
        if (*recovery == 'f')
            return true;
        run_nap(LOOK_EVERY_MS);
    }
    return run_fails(run,
                     RUN_TEXT(run, "%s does not come out of recovery", run_candidate(run)->name),
                     "its log tells why");
}

/* What an earlier failover has set there, when it was the primary, must not make it read-only now. */
static bool make_writable(struct run *run)
{
    return !run_candidate(run)->read_only || set_read_only(run, run_candidate_db(run), false);
}

static bool promote(struct run *run)
{
    struct db *db = run_candidate_db(run);
    if (run->held && !consoles_hold(run, hold_ms(run))) /* are they all still there? */
        return false;
    if (!make_writable(run) || !nobody_promoted(run) || !run_goes_on(run))
        return false;
    run->promoted = true;
    if (!ask(run, db, "SELECT pg_promote(false)", NULL) || !await_promotion(run))
        return false;
    survey_again(run);
    return true;
}

static bool recognize(struct run *run)
{
    return consoles_await_primary(run, run_candidate(run), RECOGNIZE_MS);
}

static bool release(struct run *run)
{
    consoles_release(run);
    return true;
}

/* ---- of the other kinds ---- */

/* An interrupted failover may have promoted it and not made it writable. */
static bool writable(struct run *run)
{
    return make_writable(run);
}

static bool unfence(struct run *run)
{
    return set_read_only(run, run_primary_db(run), false);
}

/* ---- the tables ---- */

#define PROMOTE                                                                                    \
    {                                                                                              \
        "promote", "make the replica the primary", promote                                         \
    }
#define RECOGNIZE                                                                                  \
    {                                                                                              \
        "recognize", "wait until every proxy takes it for the primary", recognize                  \
    }
#define RELEASE                                                                                    \
    {                                                                                              \
        "release", "end the hold", release                                                         \
    }
#define FOLLOW                                                                                     \
    {"re-point", "let the other replicas follow the new primary", follow_point},                   \
    {                                                                                              \
        "verify", "see that they do", follow_verify                                                \
    }

static const struct step switch_steps[] = {
    {"checkpoint", "on both, so that little is left to write later", checkpoint},
    {"approach", "wait until the replica is close", approach},
    {"hold", "the proxies send nothing new to the primary", hold},
    {"drain", "let running transactions end", drain},
    {"fence", "make the old primary read-only", fence},
    {"end sessions", "... and end every session that it still has", end_sessions},
    {"catch up", "wait until the replica has replayed everything", catch_up},
    PROMOTE,
    RECOGNIZE,
    RELEASE,
    FOLLOW,
    {NULL, NULL, NULL},
};
static const struct step force_steps[] = {PROMOTE, RECOGNIZE, RELEASE, FOLLOW, {NULL, NULL, NULL}};
static const struct step finish_steps[] = {
    {"writable", "take back what keeps it read-only", writable},
    RECOGNIZE,
    RELEASE,
    FOLLOW,
    {NULL, NULL, NULL},
};
static const struct step undo_steps[] = {
    {"writable", "make the primary writable again", unfence},
    RELEASE,
    {NULL, NULL, NULL},
};

const struct step *steps_of(enum verdict_kind kind)
{
    static const struct step none[] = {{NULL, NULL, NULL}};
    switch (kind) {
    case VERDICT_SWITCH:
        return switch_steps;
    case VERDICT_FORCE:
        return force_steps;
    case VERDICT_FINISH:
        return finish_steps;
    case VERDICT_UNDO:
        return undo_steps;
    case VERDICT_REFUSED:
        break;
    }
    return none;
}

bool steps_undo(struct run *run)
{
    struct db_error why = run->error; /* of what failed: that is to be told */
    bool good = true;
    if (run->fenced) {
        good = set_read_only(run, run_primary_db(run), false);
        run_tell(run, good ? FAILOVER_UNDONE : FAILOVER_TODO, NULL,
                 RUN_TEXT(run, good ? "%s is writable again" : "%s is read-only yet",
                          run_primary(run)->name),
                 good ? NULL
                      : "pgshuntctl failover SHARD --undo, or there: ALTER SYSTEM RESET "
                        "default_transaction_read_only; SELECT pg_reload_conf();");
    }
    if (run->held) {
        consoles_release(run);
        run_tell(run, FAILOVER_UNDONE, NULL, "the proxies go on", NULL);
    }
    run->error = why;
    return good;
}
