/* clone_run.c: a replica of the source becomes the target: replayed far enough, promoted, marked, made fit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/failpoint.h"
#include "resharder/clone.h"
#include "resharder/ready.h"
#include "resharder/slot.h"
#include "resharder/streams.h"
#include "resharder/wal_watch.h"

#define LOOK_MS 100
#define LOOK_AT_JOB_MS 500
#define SAY_MS 5000
#define PROMOTE_MS 120000
#define FIRST_DELAY_MS 500
#define LAST_DELAY_MS 15000

struct clone_run {
    struct reshard *reshard;
    struct job *job;
    const struct reshard_run_options *options;
    struct link link;
    const char *position; /* what the replica must have before it is promoted */
    struct wal_watch wal;
    int64_t looked_at, said_at, delay_ms;
};

static const char *name_of(const struct clone_run *run, unsigned shard)
{
    return shardmap_shard_name(run->reshard->map, shard);
}

/* ---- before ---- */

/*
 * Behind the slot's beginning, and behind everything that was begun before proxies knew the new shard: what they have
 * written to tables that every shard has is in the clone, or else they write it there themselves. The position is the end of a
 * record, so that a replica gets there.
 */
bool clone_prepare(struct reshard *reshard, struct job *job)
{
    struct link link = clone_link(reshard);
    if (!streams_make_sources(reshard, job))
        return false;
    failpoint("run_clone_slot");
    struct db *db = reshard_primary(reshard, link.source);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                      "SELECT pg_logical_emit_message(true, 'pgshunt clone', $1)", 1, job->name)
           : NULL;
    bool good = rows && job_will_make(reshard, job, link.target, CLONE_OBJECT, CLONE_POSITION,
                                      PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return good;
}

/* ---- whether to go on ---- */

/* False: another state, stopped, or the slot is lost: reshard->error. */
static bool goes_on(struct clone_run *run)
{
    struct reshard *reshard = run->reshard;
    if (reshard_stopped(reshard))
        return clone_fails(reshard, "57014", "interrupted", NULL);
    if (db_clock_ms() - run->looked_at < LOOK_AT_JOB_MS)
        return true;
    do {
        run->looked_at = db_clock_ms();
        if (!job_look(reshard, run->job) || wal_watch(&run->wal) == WAL_LOST)
            return false;
        if (run->job->paused)
            reshard_sleep(reshard, LOOK_AT_JOB_MS * 1000);
    } while (run->job->paused && !reshard_stopped(reshard));
    return run->job->state == JOB_COPYING ||
           clone_fails(reshard, "40001", "the job is in another state by now", NULL);
}

static void say(struct clone_run *run, const char *text)
{
    if (db_clock_ms() - run->said_at < SAY_MS)
        return;
    run->said_at = db_clock_ms();
    reshard_tell(run->reshard, RESHARD_NOTE, name_of(run, run->link.target), NULL, text, NULL);
}

/* ---- the promotion ---- */

/* 1: it has the position, and what the job has made on the source before it; 0: not yet; -1: failed. */
static int is_ready(struct clone_run *run, struct db *db)
{
    struct reshard *reshard = run->reshard;
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, &reshard->error,
                              "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false),"
                              " EXISTS (SELECT FROM pg_publication WHERE pubname = $2),"
                              " pg_last_wal_replay_lsn()",
                              2, run->position, streams_publication(reshard, run->job, false));
    int ready = rows ? 0 : -1;
    if (rows && PQgetvalue(rows, 0, 0)[0] == 't')
        ready = PQgetvalue(rows, 0, 1)[0] == 't' ? 1 : -1;
    if (rows && ready < 0)
        clone_fails(
            reshard, "55000",
            RESHARD_TEXT(
                reshard,
                "the server of %s is no replica of %s: it does not have what was made there",
                name_of(run, run->link.target), name_of(run, run->link.source)),
            RESHARD_TEXT(
                reshard,
                "pgshuntctl reshard cancel %s; make the replica anew, from the primary of %s",
                run->job->name, name_of(run, run->link.source)));
    if (!ready)
        say(run, RESHARD_TEXT(reshard, "waits until it has replayed %s; it is at %s", run->position,
                              PQgetvalue(rows, 0, 2)));
    PQclear(rows);
    return ready;
}

static bool wait_until_ready(struct clone_run *run, struct db *db)
{
    for (int ready = 0; !ready;) {
        if (!goes_on(run) || (ready = is_ready(run, db)) < 0)
            return false;
        if (!ready)
            reshard_sleep(run->reshard, LOOK_MS * 1000);
    }
    return true;
}

static bool promote(struct clone_run *run, struct db *db)
{
    struct reshard *reshard = run->reshard;
    if (!wait_until_ready(run, db) ||
        !job_will_make(reshard, run->job, run->link.target, CLONE_OBJECT, CLONE_PROMOTION, NULL))
        return false;
    failpoint("run_clone_ready");
    PGresult *rows = db_query(db, PROMOTE_MS, &reshard->error, "SELECT pg_promote(true, 100)", 0);
    bool good = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (rows && !good)
        clone_fails(reshard, "55000", "the replica was not promoted within 100 s",
                    "Look at its log, and run it again.");
    PQclear(rows);
    failpoint("run_clone_promoted");
    return good;
}

/* Somebody else may have promoted it, too. */
static bool be_primary(struct clone_run *run)
{
    struct reshard *reshard = run->reshard;
    struct db *db =
        reshard_open_node(reshard, run->link.target,
                          &reshard->database->shards[run->link.target].nodes[0], &reshard->error);
    PGresult *rows =
        db ? db_query(db, RESHARD_QUERY_MS, &reshard->error, "SELECT pg_is_in_recovery()", 0)
           : NULL;
    bool recovers = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    bool good = rows && (!recovers || promote(run, db));
    PQclear(rows);
    db_close(db);
    return good;
}

/* ---- where it begins ---- */

static bool is_other(struct clone_run *run, const char *what)
{
    struct reshard *reshard = run->reshard;
    return clone_fails(
        reshard, "55000", what,
        RESHARD_TEXT(
            reshard,
            "pgshuntctl reshard cancel %s, make the replica anew, and create the job again",
            run->job->name));
}

/* Whether the position was reached before its own timeline began, at `*began`. */
static bool check_position(struct clone_run *run, const char *began)
{
    struct reshard *reshard = run->reshard;
    PGresult *rows = db_query(reshard_catalog(reshard), RESHARD_QUERY_MS, &reshard->error,
                              "SELECT $1::pg_lsn >= $2::pg_lsn", 2, began, run->position);
    bool reached = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (rows && !reached)
        is_other(run, RESHARD_TEXT(
                          reshard,
                          "the replica was promoted at %s, before it had what was written up to %s",
                          began, run->position));
    PQclear(rows);
    return reached;
}

/* The end of its recovery; NULL: reshard->error: it is not what the job was created for. */
static const char *find_beginning(struct clone_run *run)
{
    struct reshard *reshard = run->reshard;
    const json_t *clone = json_object_get(run->job->options, "clone");
    const char *system = json_string_value(json_object_get(clone, "system"));
    unsigned timeline = (unsigned)json_integer_value(json_object_get(clone, "timeline"));
    struct clone_identity source, target;
    if (!clone_identify(reshard, run->link.source, &source) ||
        !clone_identify(reshard, run->link.target, &target))
        return NULL;
    if (source.timeline != timeline || !system || strcmp(source.system, system) != 0) {
        is_other(run, RESHARD_TEXT(reshard, "%s has failed over since the job was created",
                                   name_of(run, run->link.source)));
        return NULL;
    }
    const char *began = clone_end_of(reshard, target.history, timeline);
    if (strcmp(target.system, system) != 0 || target.timeline <= timeline || !began) {
        is_other(run, RESHARD_TEXT(reshard, "the server of %s is no promoted replica of %s",
                                   name_of(run, run->link.target), name_of(run, run->link.source)));
        return NULL;
    }
    return check_position(run, began) ? began : NULL;
}

/* ---- the mark ---- */

static const char mark_table[] =
    "CREATE TABLE IF NOT EXISTS pgshunt.clone (job text PRIMARY KEY, source text NOT NULL,"
    " target text NOT NULL, position pg_lsn NOT NULL, cleared boolean NOT NULL DEFAULT false)";

/* False: it is not known. 42P01: no clone was ever marked there; 55000: another one was. */
static bool find_mark(struct clone_run *run, bool *marked)
{
    struct db *db = clone_open(run->reshard, run->job);
    const char *state = run->reshard->error.sqlstate;
    *marked = db != NULL;
    db_close(db);
    return *marked || strcmp(state, "42P01") == 0 || strcmp(state, "55000") == 0;
}

/* Only a server that has what the job made on the source. */
static bool mark(struct clone_run *run, const char *began)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, run->link.target);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                                   "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)",
                                   1, streams_publication(reshard, run->job, false))
                        : NULL;
    bool ours = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (rows && !ours)
        is_other(run, RESHARD_TEXT(reshard, "the server of %s does not have what was made on %s",
                                   name_of(run, run->link.target), name_of(run, run->link.source)));
    PQclear(rows);
    return ours && db_run(db, RESHARD_QUERY_MS, &reshard->error, mark_table, 0) &&
           db_run(db, RESHARD_QUERY_MS, &reshard->error,
                  "INSERT INTO pgshunt.clone (job, source, target, position) VALUES ($1, $2, $3,"
                  " $4::pg_lsn) ON CONFLICT DO NOTHING",
                  4, run->job->name, name_of(run, run->link.source), name_of(run, run->link.target),
                  began);
}

/* ---- the stream's beginning ---- */

static const char *position_now(struct clone_run *run)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, run->link.source);
    PGresult *rows = db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                                   "SELECT pg_current_wal_insert_lsn()", 0)
                        : NULL;
    const char *now = rows ? RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0)) : NULL;
    PQclear(rows);
    return now;
}

/*
 * Transactions whose commit begins before `began` are on the clone, and are only looked through for keys. `consistent`: up to
 * there it may have more, of transactions that proxies have finished on both sides. The statement behind the origin's
 * position has it flushed.
 */
static bool set_beginning(struct clone_run *run, const char *began, const char *consistent)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, run->link.target);
    return db && streams_make_targets(reshard, run->job) &&
           db_run(db, RESHARD_QUERY_MS, &reshard->error,
                  "SELECT pg_replication_origin_advance($1, $2::pg_lsn)", 2,
                  streams_origin(reshard, run->job, run->link.source, false), began) &&
           db_run(db, RESHARD_QUERY_MS, &reshard->error,
                  "UPDATE pgshunt.clone SET cleared = true WHERE job = $1", 1, run->job->name) &&
           streams_remember(reshard, run->job, run->link.source, consistent);
}

/* ---- the whole ---- */

static bool make_fit(struct clone_run *run, const char *began)
{
    struct reshard *reshard = run->reshard;
    struct job *job = run->job;
    bool late;
    if (!clone_finish_prepared(reshard, job, &late))
        return false;
    const char *consistent = late ? position_now(run) : began;
    if (!consistent || !clone_reset(reshard, job) || !ready_ghosts(reshard, run->link.target))
        return false;
    failpoint("run_clone_reset");
    if (!clone_number(reshard) || !clone_clear(reshard, job, run->options))
        return false;
    failpoint("run_clone_cleared");
    return set_beginning(run, began, consistent);
}

/* Each step may be done again. */
static bool go(struct clone_run *run)
{
    struct reshard *reshard = run->reshard;
    if (!clone_recorded(reshard, run->job, CLONE_POSITION, &run->position))
        return false;
    if (!run->position)
        return clone_fails(reshard, "XX000", "the job has no position to begin at", NULL);
    if (!goes_on(run) || !be_primary(run))
        return false;
    const char *began = find_beginning(run);
    if (!began)
        return false;
    failpoint("run_clone_unmarked");
    bool marked;
    if (!find_mark(run, &marked))
        return false;
    if (!marked) {
        job_step(reshard, run->job, "promoted",
                 RESHARD_TEXT(reshard, "%s was a replica of %s up to %s",
                              name_of(run, run->link.target), name_of(run, run->link.source),
                              began));
        if (!mark(run, began))
            return false;
    }
    failpoint("run_clone_marked");
    return make_fit(run, began);
}

/* 42P01, 42703: a table or column has gone while it was looked at; what there is now is looked at next. */
static bool may_try_again(struct clone_run *run)
{
    struct reshard *reshard = run->reshard;
    const char *state = reshard->error.sqlstate;
    bool passing = apply_is_passing(state) || strcmp(state, "42P01") == 0;
    if (reshard_stopped(reshard) || run->job->state != JOB_COPYING || run->wal.state == WAL_LOST ||
        !passing)
        return false;
    run->delay_ms = run->delay_ms ? 2 * run->delay_ms : FIRST_DELAY_MS;
    if (run->delay_ms > LAST_DELAY_MS)
        run->delay_ms = LAST_DELAY_MS;
    reshard_tell(reshard, RESHARD_NOTE, NULL, NULL,
                 RESHARD_TEXT(reshard, "interrupted, goes on soon: %s", reshard->error.text), NULL);
    reshard_sleep(reshard, run->delay_ms * 1000);
    return !reshard_stopped(reshard);
}

bool clone_run(struct reshard *reshard, struct job *job, const struct reshard_run_options *options)
{
    struct clone_run run = {.reshard = reshard,
                            .job = job,
                            .options = options,
                            .link = clone_link(reshard),
                            .wal = {.reshard = reshard, .job = job}};
    bool good;
    do
        good = go(&run);
    while (!good && may_try_again(&run));
    return good;
}
