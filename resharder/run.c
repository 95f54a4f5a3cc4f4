/* run.c: a job from `created` to `streaming`, and kept streaming: every part may be interrupted and goes on. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/catalog.h"
#include "pgshunt/failpoint.h"
#include "resharder/clean.h"
#include "resharder/clone.h"
#include "resharder/copy.h"
#include "resharder/detach.h"
#include "resharder/proxies.h"
#include "resharder/ready.h"
#include "resharder/run_copy.h"
#include "resharder/schema_copy.h"
#include "resharder/streams.h"
#include "resharder/wal_watch.h"

#define LOOK_EVERY_MS 100
#define LOOK_AT_JOB_MS 500
#define CLOSE_MS 1000
#define SERVER_REST_MS 1000
#define MISFIT_REST_MS 5000 /* between two looks whether both sides' tables are alike again */

struct run {
    struct reshard *reshard;
    struct job *job;
    const struct reshard_run_options *options;
    struct job_lock *lock;
    const struct link *links;
    int nlinks;
    struct streams *streams; /* NULL: they rest */
    bool misfit;             /* they rest because of DDL on one side ... */
    int64_t rests_until;     /* ... till then, or of a server that is away */
    bool waits;              /* they rest because another process has the job for now */
};

/* ---- before the first row ---- */

/* Proxies leave rows out on the targets from now on; what they do not know of yet must not be there. */
static bool ghosts_on(struct run *run)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < reshard->moves.count; i++) {
        const struct move *move = &reshard->moves.items[i];
        if (run->job->tables && !run->job->tables->out)
            break; /* an unsharded table is asked for at home alone */
        if (!catalog_set_ghost(reshard_catalog(reshard), reshard->request->database,
                               move->keyspace->name,
                               shardmap_shard_name(reshard->map, move->target), run->job->name,
                               true, &reshard->error))
            return false;
    }
    return true;
}

/* What the source needs, the clone has with it. */
static bool prepare_clone(struct run *run)
{
    struct reshard *reshard = run->reshard;
    unsigned source = run->links[0].source;
    failpoint("run_begun");
    if (!ready_ghosts(reshard, source) || !ready_identities(reshard, run->job, source) ||
        !ghosts_on(run) || !proxies_wait(reshard, run->job, run->options->drain_ms))
        return false;
    failpoint("run_ghosts");
    return clone_prepare(reshard, run->job) &&
           job_set_state(reshard, run->job, JOB_BIT(JOB_CREATED), JOB_COPYING);
}

static bool prepare(struct run *run)
{
    struct reshard *reshard = run->reshard;
    if (clone_is(run->job))
        return prepare_clone(run);
    failpoint("run_begun");
    for (int i = 0; i < run->nlinks; i++) {
        unsigned both[] = {run->links[i].source, run->links[i].target};
        for (int side = 0; side < 2; side++)
            if (!ready_ghosts(reshard, both[side]) ||
                !ready_identities(reshard, run->job, both[side]))
                return false;
        if (!copy_prepare(reshard_primary(reshard, both[1]), &reshard->error))
            return false;
    }
    if ((run->job->tables && !table_job_keep(reshard, run->job)) || !ghosts_on(run) ||
        !proxies_wait(reshard, run->job, run->options->drain_ms))
        return false;
    failpoint("run_ghosts");
    return streams_make(reshard, run->job, false) &&
           job_set_state(reshard, run->job, JOB_BIT(JOB_CREATED), JOB_COPYING);
}

/* status names who has it: this host and process, or the proxy that has started it. */
static struct job_lock *take_lock(struct run *run)
{
    struct reshard *reshard = run->reshard;
    struct job_lock *lock = job_lock(reshard, run->job);
    char host[64] = "?";
    gethostname(host, sizeof host - 1);
    int supervisor = run->options->supervisor;
    if (lock)
        job_lock_name(
            lock, supervisor
                      ? RESHARD_TEXT(reshard, "pgshunt reshard of proxy %d on %s", supervisor, host)
                      : RESHARD_TEXT(reshard, "pgshunt reshard run %d on %s", (int)getpid(), host));
    return lock;
}

/* ---- streaming ---- */

#define STREAMING_STATES                                                                           \
    (JOB_BIT(JOB_STREAMING) | JOB_BIT(JOB_SWITCHING) | JOB_BIT(JOB_SWITCHED) | JOB_BIT(JOB_ROLLING))

static enum reshard_outcome is_over(struct run *run)
{
    reshard_tell(run->reshard, RESHARD_NOTE, NULL, run->job->name,
                 RESHARD_TEXT(run->reshard, "the job is %s now: nothing is left to stream",
                              job_state_name(run->job->state)),
                 NULL);
    return RESHARD_DONE;
}

/* The catalog may be away for a while, and the lock with it: streams go on, unless another process has taken the job. */
static bool keeps_lock(struct run *run)
{
    struct reshard *reshard = run->reshard;
    if (run->lock && job_lock_holds(run->lock))
        return true;
    job_unlock(run->lock);
    run->lock = take_lock(run);
    return run->lock || strcmp(reshard->error.sqlstate, "55P03") != 0;
}

/* Who has the job then, a switch mostly, is done with it at some time; nobody would stream behind that if this one had ended. */
static void look_at_lock(struct run *run)
{
    struct reshard *reshard = run->reshard;
    bool waited = run->waits;
    run->waits = !keeps_lock(run);
    if (run->waits && !waited)
        reshard_tell(reshard, RESHARD_NOTE, NULL, run->job->name,
                     RESHARD_TEXT(reshard, "waits: %s", reshard->error.text), NULL);
}

/* Every half second. False: `*outcome` says how it ends. */
static bool look_at_job(struct run *run, enum reshard_outcome *outcome)
{
    struct reshard *reshard = run->reshard;
    if (!job_look(reshard, run->job) && strcmp(reshard->error.sqlstate, "02000") == 0) {
        *outcome = reshard_fails(reshard, NULL, "the job is not ours any more");
        return false;
    }
    look_at_lock(run);
    if (STREAMING_STATES & JOB_BIT(run->job->state))
        return true;
    *outcome = is_over(run);
    return false;
}

static enum reshard_outcome stands_still(struct run *run)
{
    struct reshard *reshard = run->reshard;
    job_set_error(reshard, run->job, RESHARD_TEXT(reshard, "%s", reshard->error.text));
    return reshard_fails(reshard, NULL, "the stream stands still");
}

static void stop_streams(struct run *run)
{
    streams_stop(run->streams);
    run->streams = NULL;
}

static bool begin_streams(struct run *run)
{
    if (!run->misfit)
        job_set_error(run->reshard, run->job, NULL);
    failpoint("run_streams");
    run->streams = streams_start(run->reshard, run->job, NULL);
    run->rests_until = db_clock_ms() + 3 * MISFIT_REST_MS; /* by then a misfit is found again */
    return run->streams != NULL;
}

/* Somebody has changed a table on one side alone. It is looked at again and again: nobody has to come back to say that it is mended. */
static void rest_for_misfit(struct run *run)
{
    struct reshard *reshard = run->reshard;
    if (!run->misfit) {
        job_set_error(reshard, run->job, RESHARD_TEXT(reshard, "%s", reshard->error.text));
        reshard_tell(reshard, RESHARD_PROBLEM, NULL, run->job->name,
                     RESHARD_TEXT(reshard, "the streams rest: %s", reshard->error.text),
                     RESHARD_TEXT(reshard, "%s", reshard->error.hint));
    }
    run->misfit = true;
    stop_streams(run);
    run->rests_until = db_clock_ms() + MISFIT_REST_MS;
}

/* A server that is away comes back; false: it is something else. */
static bool rest_for_server(struct run *run)
{
    struct reshard *reshard = run->reshard;
    if (!apply_is_passing(reshard->error.sqlstate))
        return false;
    reshard_tell(reshard, RESHARD_NOTE, NULL, run->job->name,
                 RESHARD_TEXT(reshard, "tried again soon: %s", reshard->error.text), NULL);
    run->rests_until = db_clock_ms() + SERVER_REST_MS;
    return true;
}

static void note_fit(struct run *run)
{
    if (!run->misfit || !run->streams || db_clock_ms() < run->rests_until)
        return;
    run->misfit = false;
    job_set_error(run->reshard, run->job, NULL);
    reshard_tell(run->reshard, RESHARD_NOTE, NULL, run->job->name,
                 "both sides' tables are alike again: it goes on", NULL);
}

/* False: nothing helps but somebody who looks. */
static bool tend_streams(struct run *run)
{
    if (run->job->paused || run->waits) {
        stop_streams(run);
        return true;
    }
    if (!run->streams && db_clock_ms() < run->rests_until)
        return true;
    if (!run->streams && !begin_streams(run))
        return rest_for_server(run);
    if (streams_tend(run->streams) != STREAMS_FAILED) {
        note_fit(run);
        return true;
    }
    if (!streams_misfit(run->streams) || run->options->until_caught_up)
        return false;
    rest_for_misfit(run);
    return true;
}

static bool is_caught_up(const struct run *run)
{
    return run->streams && run->options->until_caught_up &&
           streams_are_close(run->streams, CLOSE_MS);
}

static enum reshard_outcome stream(struct run *run)
{
    struct wal_watch wal = {.reshard = run->reshard, .job = run->job};
    enum reshard_outcome outcome = RESHARD_STOPPED;
    int64_t looked_at = 0;
    while (!reshard_stopped(run->reshard)) {
        if (db_clock_ms() - looked_at >= LOOK_AT_JOB_MS) {
            looked_at = db_clock_ms();
            if (!look_at_job(run, &outcome))
                break;
            if (wal_watch(&wal) == WAL_LOST) {
                outcome = stands_still(run);
                break;
            }
        }
        if (!tend_streams(run)) {
            outcome = stands_still(run);
            break;
        }
        if (is_caught_up(run)) {
            outcome = RESHARD_DONE;
            break;
        }
        reshard_sleep(run->reshard, LOOK_EVERY_MS * 500);
    }
    stop_streams(run);
    return outcome;
}

/* ---- the whole ---- */

static enum reshard_outcome refuse_state(struct run *run)
{
    reshard_tell(run->reshard, RESHARD_PROBLEM, NULL, run->job->name,
                 RESHARD_TEXT(run->reshard, "the job is %s: there is nothing to run",
                              job_state_name(run->job->state)),
                 NULL);
    return RESHARD_REFUSED;
}

static bool copy(struct run *run)
{
    bool done = clone_is(run->job) ? clone_run(run->reshard, run->job, run->options)
                                   : run_copy(run->reshard, run->job, run->options);
    return done && job_set_state(run->reshard, run->job, JOB_BIT(JOB_COPYING), JOB_INDEXING);
}

/* The streams back begin here: what was copied must not come back by them. */
static bool finish(struct run *run)
{
    if (!schema_copy_finish(run->reshard, run->job, run->options->jobs))
        return false;
    failpoint("run_indexed");
    if ((run->job->tables && !table_job_sequences(run->reshard, run->job)) ||
        !streams_make(run->reshard, run->job, true))
        return false;
    failpoint("run_reverse");
    return job_set_state(run->reshard, run->job, JOB_BIT(JOB_INDEXING), JOB_STREAMING);
}

/* False: `*outcome`. */
static bool reach_streaming(struct run *run, enum reshard_outcome *outcome)
{
    struct reshard *reshard = run->reshard;
    struct job *job = run->job;
    const char *failed = NULL;
    if (job->state == JOB_CREATED && !prepare(run))
        failed = "cannot prepare";
    failpoint("run_prepared");
    if (!failed && job->state == JOB_COPYING && !copy(run))
        failed = "cannot copy";
    failpoint("run_copied");
    if (!failed && job->state == JOB_INDEXING && !finish(run))
        failed = "cannot go on";
    if (!failed)
        return true;
    if (job->state >= JOB_COMPLETING)
        *outcome = is_over(run);
    else {
        if (!reshard_stopped(reshard))
            job_set_error(reshard, job, RESHARD_TEXT(reshard, "%s", reshard->error.text));
        *outcome = reshard_fails(reshard, NULL, failed);
    }
    return false;
}

static enum reshard_outcome go(struct run *run)
{
    struct reshard *reshard = run->reshard;
    enum reshard_outcome outcome;
    run->links = moves_links(&reshard->moves, &reshard->arena, &run->nlinks);
    if (!reach_streaming(run, &outcome))
        return outcome;
    return STREAMING_STATES & JOB_BIT(run->job->state) ? stream(run) : refuse_state(run);
}

static enum reshard_outcome say_plan(struct reshard *reshard, const struct job *job)
{
    static const char *const steps[] = {
        "tables of keys of rows that are on two shards are made, and proxies leave such rows out",
        "publications, slots and origins are made for streams both ways",
        "rows are copied under a snapshot",
        "changes are streamed until it is interrupted",
        NULL,
    };
    static const char *const clone_steps[] = {
        "tables of keys of rows that are on two shards are made, and proxies leave such rows out",
        "a publication and a slot are made on the source",
        "the replica is promoted when it has replayed that",
        "the catalog, prepared transactions and unsharded tables' rows are removed from it",
        "rows that do not move are deleted from it",
        "changes are streamed both ways until it is interrupted",
        NULL,
    };
    for (const char *const *step = clone_is(job) ? clone_steps : steps; *step; step++)
        reshard_tell(reshard, RESHARD_PLANNED, NULL, NULL, *step, NULL);
    return RESHARD_DONE;
}

static enum reshard_outcome lock_and_go(struct run *run)
{
    struct reshard *reshard = run->reshard;
    if (reshard->request->dry_run)
        return say_plan(reshard, run->job);
    run->lock = take_lock(run);
    if (!run->lock && strcmp(reshard->error.sqlstate, "55P03") == 0) {
        reshard_tell(reshard, RESHARD_PROBLEM, NULL, run->job->name, reshard->error.text, NULL);
        return RESHARD_REFUSED;
    }
    enum reshard_outcome outcome =
        run->lock ? go(run) : reshard_fails(reshard, NULL, "cannot lock the job");
    job_unlock(run->lock);
    return outcome;
}

enum reshard_outcome reshard_run(const struct reshard_request *request,
                                 const struct reshard_run_options *options)
{
    struct reshard reshard;
    struct job job;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &job, &outcome)) {
        struct reshard_run_options own = detach_options(&job, options);
        struct run run = {.reshard = &reshard, .job = &job, .options = &own};
        outcome = lock_and_go(&run);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}
