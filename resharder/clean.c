/* clean.c: jobs that end: cancelled, or completed; and what they have made, taken away. */
#include "resharder/clean.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/catalog.h"
#include "pgshunt/failpoint.h"
#include "resharder/clone.h"

#define RUNNER_MS 60000 /* a runner that is told to end has that long */
#define SLOT_MS 10000

/* ---- one thing ---- */

/* `sql`, with the name as an identifier behind. */
static bool run_named(struct db *db, struct db_error *error, const char *sql, const char *name)
{
    char whole[512];
    char *quoted = PQescapeIdentifier(db_connection(db), name, strlen(name));
    snprintf(whole, sizeof whole, "%s %s", sql, quoted);
    PQfreemem(quoted);
    return db_run(db, RESHARD_QUERY_MS, error, whole, 0);
}

bool clean_slot(struct db *db, const char *name, struct db_error *error)
{
    for (int64_t until = db_clock_ms() + SLOT_MS;;) {
        if (db_run(db, RESHARD_QUERY_MS, error,
                   "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                   " WHERE slot_name = $1 AND active_pid IS NOT NULL",
                   1, name) &&
            db_run(db, RESHARD_QUERY_MS, error,
                   "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                   " WHERE slot_name = $1",
                   1, name))
            return true;
        /* 55006: somebody reads from it (again) */
        if (strcmp(error->sqlstate, "55006") != 0 || db_clock_ms() >= until)
            return false;
        reshard_sleep(NULL, 50000);
    }
}

static bool remove_origin(struct db *db, const char *name, struct db_error *error)
{
    return db_run(db, RESHARD_QUERY_MS, error,
                  "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin"
                  " WHERE roname = $1",
                  1, name);
}

/* `name` is the table, `detail` what its replica identity was: "DEFAULT", "NOTHING", "USING INDEX x". */
static bool restore_identity(struct db *db, const struct job_object *object, struct db_error *error)
{
    char sql[512];
    snprintf(sql, sizeof sql, "ALTER TABLE IF EXISTS %s REPLICA IDENTITY %s", object->name,
             object->detail ? object->detail : "DEFAULT");
    return db_run(db, RESHARD_QUERY_MS, error, sql, 0);
}

/* Of every table of this shard that one of the job's keyspaces has. */
static bool remove_guards(struct reshard *reshard, unsigned shard)
{
    struct move_tables tables;
    struct db *db = reshard_primary(reshard, shard);
    return db && tables_read(db, &reshard->moves, &reshard->arena, &tables, &reshard->error) &&
           fence_lift(reshard, shard, &tables, FENCE_ALL);
}

bool clean_object(struct reshard *reshard, const struct job *job, const struct job_object *object)
{
    if (strcmp(object->kind, CLONE_OBJECT) == 0)
        return job_has_removed(reshard, job, object); /* a note only */
    int shard = shardmap_shard_by_name(reshard->map, object->shard);
    struct db *db = shard < 0 ? NULL : reshard_primary(reshard, (unsigned)shard);
    struct db_error *error = &reshard->error;
    bool gone = false;
    if (!db)
        return false;
    if (strcmp(object->kind, "slot") == 0)
        gone = clean_slot(db, object->name, error);
    else if (strcmp(object->kind, "publication") == 0)
        gone = run_named(db, error, "DROP PUBLICATION IF EXISTS", object->name);
    else if (strcmp(object->kind, "origin") == 0)
        gone = remove_origin(db, object->name, error);
    else if (strcmp(object->kind, "identity") == 0)
        gone = restore_identity(db, object, error);
    else if (strcmp(object->kind, "guard") == 0)
        gone = remove_guards(reshard, (unsigned)shard);
    else if (strcmp(object->kind, "snapshot") == 0 || strcmp(object->kind, "first_snapshot") == 0)
        gone = true; /* of the copy: a note only */
    else
        return true;
    return gone && job_has_removed(reshard, job, object);
}

bool clean_objects(struct reshard *reshard, const struct job *job, const char *const *kinds)
{
    struct job_object *objects;
    int count;
    if (!job_objects(reshard, job, &objects, &count))
        return false;
    for (; *kinds; kinds++)
        for (int i = 0; i < count; i++)
            if (strcmp(objects[i].kind, *kinds) == 0 && !clean_object(reshard, job, &objects[i]))
                return false;
    return true;
}

/* ---- what both ends share ---- */

/* What streams are made of: nothing runs any more that needs it. */
static const char *const stream_kinds[] = {"slot",     "publication",    "origin", "identity",
                                           "snapshot", "first_snapshot", NULL};
static const char *const clone_kinds[] = {CLONE_OBJECT, NULL};
static const char *const guard_kinds[] = {"guard", NULL};

static bool remove_streams(struct reshard *reshard, const struct job *job)
{
    failpoint("ending");
    bool good = clean_objects(reshard, job, stream_kinds);
    failpoint("objects_gone");
    return good;
}

static bool remove_fences(struct reshard *reshard, const struct job *job)
{
    bool good = clean_objects(reshard, job, guard_kinds);
    failpoint("guards_gone");
    return good;
}

/* The runner sees the job's new state and ends; then the lock is ours. */
static struct job_lock *wait_for_runner(struct reshard *reshard, const struct job *job)
{
    for (int64_t until = db_clock_ms() + RUNNER_MS;;) {
        struct job_lock *lock = job_lock(reshard, job);
        bool again = !lock && strcmp(reshard->error.sqlstate, "55P03") == 0;
        if (!again || db_clock_ms() >= until || reshard_stopped(reshard))
            return lock;
        reshard_sleep(reshard, 100000);
    }
}

/* Progress of the copy and of the streams, in the targets' own tables; markers of before 14, which nobody needs once they were read. */
static bool forget_progress(struct reshard *reshard, const struct job *job, unsigned shard)
{
    struct db *db = reshard_primary(reshard, shard);
    static const char sql[] =
        "DO $pgshunt$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['chunk', 'applied', 'owed'] "
        "LOOP"
        " IF to_regclass('pgshunt.' || t) IS NOT NULL THEN EXECUTE format('DELETE FROM pgshunt.%%I"
        " WHERE job = %%L', t, '%s'); END IF; END LOOP;"
        " IF to_regclass('pgshunt.marker') IS NOT NULL THEN DELETE FROM pgshunt.marker; END IF;"
        " END $pgshunt$";
    return db &&
           db_run(db, RESHARD_QUERY_MS, &reshard->error, RESHARD_TEXT(reshard, sql, job->name), 0);
}

static bool is_first(const struct link *links, int i, bool source)
{
    unsigned shard = source ? links[i].source : links[i].target;
    for (int j = 0; j < i; j++)
        if ((source ? links[j].source : links[j].target) == shard)
            return false;
    return true;
}

/* Whether another job that is not over has ghost rows of the keyspace there is its own row in pgshunt.ghost. */
static bool ghosts_off(struct reshard *reshard, const struct job *job, unsigned shard)
{
    for (unsigned k = 0; k < shardmap_keyspaces(reshard->map); k++)
        if (!catalog_set_ghost(reshard_catalog(reshard), reshard->request->database,
                               shardmap_keyspace(reshard->map, k)->name,
                               shardmap_shard_name(reshard->map, shard), job->name, false,
                               &reshard->error))
            return false;
    return true;
}

/*
 * Clears one side of all links of what it does not own, and the other of ghost keys that it owns. `sources`: the
 * side that is cleared.
 */
static bool clear_side(struct reshard *reshard, const struct job *job, bool sources, int64_t rate)
{
    int count;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    for (int i = 0; i < count; i++) {
        unsigned shard = sources ? links[i].source : links[i].target;
        if (is_first(links, i, sources) && (!clear_shard(reshard, &reshard->moves, shard, rate) ||
                                            !ghosts_off(reshard, job, shard)))
            return false;
    }
    for (int i = 0; i < count; i++) {
        unsigned shard = sources ? links[i].target : links[i].source;
        if (is_first(links, i, !sources) && !clear_ghost_keys(reshard, &reshard->moves, shard))
            return false;
    }
    failpoint("cleared");
    for (int i = 0; i < count; i++)
        if (!forget_progress(reshard, job, links[i].target) ||
            !forget_progress(reshard, job, links[i].source))
            return false;
    return true;
}

/* Of a cancelled clone: its rows stay, for nobody asks it. */
static bool clear_cloned(struct reshard *reshard, const struct job *job)
{
    struct link link = clone_link(reshard);
    bool promoted = clone_is_promoted(reshard);
    if (!ghosts_off(reshard, job, link.target) ||
        !clear_ghost_keys(reshard, &reshard->moves, link.source) ||
        (promoted && !clear_ghost_keys(reshard, &reshard->moves, link.target)))
        return false;
    failpoint("cleared");
    return forget_progress(reshard, job, link.source) &&
           (!promoted || forget_progress(reshard, job, link.target)) &&
           clean_objects(reshard, job, clone_kinds);
}

/* What a job that is cancelled has brought to the targets. */
static bool clear_targets(struct reshard *reshard, const struct job *job)
{
    return clone_is(job) ? clear_cloned(reshard, job) : clear_side(reshard, job, false, 0);
}

/* ---- cancel ---- */

#define BEFORE_SWITCH                                                                              \
    (JOB_BIT(JOB_CREATED) | JOB_BIT(JOB_COPYING) | JOB_BIT(JOB_INDEXING) |                         \
     JOB_BIT(JOB_STREAMING) | JOB_BIT(JOB_CANCELLING))

static enum reshard_outcome refuse(struct reshard *reshard, const struct job *job, const char *what,
                                   const char *mend)
{
    reshard_tell(
        reshard, RESHARD_PROBLEM, NULL, job->name,
        RESHARD_TEXT(reshard, "the job is %s: it cannot be %s", job_state_name(job->state), what),
        mend);
    return RESHARD_REFUSED;
}

static enum reshard_outcome cancel(struct reshard *reshard, struct job *job)
{
    if (job->state == JOB_CANCELLED)
        return RESHARD_DONE;
    if (!(BEFORE_SWITCH & JOB_BIT(job->state)))
        return refuse(reshard, job, "cancelled",
                      job->state == JOB_SWITCHED    ? "pgshuntctl reshard rollback, then cancel"
                      : job->state == JOB_SWITCHING ? "pgshuntctl reshard switch undoes it at first"
                                                    : NULL);
    if (reshard->request->dry_run) {
        reshard_tell(reshard, RESHARD_PLANNED, NULL, NULL,
                     clone_is(job) ? "slots, publications and origins are dropped; the clone is "
                                     "to be thrown away, if it was promoted"
                                   : "slots, publications and origins are dropped, then what was "
                                     "copied is deleted from the targets",
                     NULL);
        return RESHARD_DONE;
    }
    if (!job_set_state(reshard, job, BEFORE_SWITCH, JOB_CANCELLING))
        return reshard_fails(reshard, NULL, "cannot cancel");
    struct job_lock *lock = wait_for_runner(reshard, job);
    bool good = lock && (!clone_is(job) || clone_leave(reshard, job)) &&
                remove_streams(reshard, job) && remove_fences(reshard, job) &&
                clear_targets(reshard, job) && table_job_settle(reshard, job, true) &&
                job_set_state(reshard, job, JOB_BIT(JOB_CANCELLING), JOB_CANCELLED);
    job_unlock(lock);
    return good ? RESHARD_DONE : reshard_fails(reshard, NULL, "cannot clean up");
}

/* ---- complete ---- */

static bool settle_clone(struct reshard *reshard, const struct job *job)
{
    return clone_settle(reshard) && clean_objects(reshard, job, clone_kinds);
}

static enum reshard_outcome complete(struct reshard *reshard, struct job *job, int64_t rate)
{
    unsigned from = JOB_BIT(JOB_SWITCHED) | JOB_BIT(JOB_COMPLETING);
    if (job->state == JOB_COMPLETED)
        return RESHARD_DONE;
    if (!(from & JOB_BIT(job->state)))
        return refuse(reshard, job, "completed",
                      job->state == JOB_STREAMING ? "pgshuntctl reshard switch" : NULL);
    if (reshard->request->dry_run) {
        reshard_tell(reshard, RESHARD_PLANNED, NULL, NULL,
                     "the way back is closed (slots, publications and origins are dropped), then "
                     "what has moved is deleted from the old owners, and their guards go",
                     NULL);
        return RESHARD_DONE;
    }
    if (!job_set_state(reshard, job, from, JOB_COMPLETING))
        return reshard_fails(reshard, NULL, "cannot complete");
    struct job_lock *lock = wait_for_runner(reshard, job);
    bool good = lock && remove_streams(reshard, job) && clear_side(reshard, job, true, rate) &&
                remove_fences(reshard, job) && table_job_settle(reshard, job, false) &&
                (!clone_is(job) || settle_clone(reshard, job)) &&
                job_set_state(reshard, job, JOB_BIT(JOB_COMPLETING), JOB_COMPLETED);
    job_unlock(lock);
    if (good)
        table_job_advise(reshard, job);
    return good ? RESHARD_DONE : reshard_fails(reshard, NULL, "cannot clean up");
}

/* ---- calls ---- */

enum reshard_outcome reshard_cancel(const struct reshard_request *request)
{
    struct reshard reshard;
    struct job job;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &job, &outcome)) {
        outcome = cancel(&reshard, &job);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}

enum reshard_outcome reshard_complete(const struct reshard_request *request, int64_t rate)
{
    struct reshard reshard;
    struct job job;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &job, &outcome)) {
        outcome = complete(&reshard, &job, rate);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}
