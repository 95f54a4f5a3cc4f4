/* run.c: a job from `created` to `streaming`, and kept streaming: every part may be interrupted and goes on. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/catalog.h"
#include "resharder/clean.h"
#include "resharder/copy.h"
#include "resharder/streams.h"

#define LOOK_EVERY_MS 100
#define LOOK_AT_JOB_MS 500
#define FOLLOW_MS 30000
#define CLOSE_MS 1000

/* One source at work. */
struct run_source {
    unsigned shard;
    unsigned *targets;
    int ntargets;
    struct move_tables tables;
    struct snapshot snapshot; /* while it copies */
    bool begun;               /* something was copied before: this is another pass */
    const char *oldest;       /* of the first snapshot */
};

struct run {
    struct reshard *reshard;
    struct job *job;
    const struct reshard_run_options *options;
    struct job_lock *lock;
    const struct link *links;
    int nlinks;
    struct run_source *sources;
    int nsources;
    uint64_t *snapshots; /* by shard: positions */
};

static void pause_ms(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

/* ---- who takes part ---- */

static struct run_source *source_of(struct run *run, unsigned shard)
{
    for (int i = 0; i < run->nsources; i++)
        if (run->sources[i].shard == shard)
            return &run->sources[i];
    struct run_source *source = &run->sources[run->nsources++];
    source->shard = shard;
    source->targets =
        arena_array(&run->reshard->arena, unsigned, shardmap_shards(run->reshard->map));
    return source;
}

static bool find_sources(struct run *run)
{
    struct reshard *reshard = run->reshard;
    run->links = moves_links(&reshard->moves, &reshard->arena, &run->nlinks);
    run->sources =
        arena_array(&reshard->arena, struct run_source, shardmap_shards(reshard->map) + 1);
    run->snapshots = arena_array(&reshard->arena, uint64_t, shardmap_shards(reshard->map) + 1);
    for (int i = 0; i < run->nlinks; i++) {
        struct run_source *source = source_of(run, run->links[i].source);
        source->targets[source->ntargets++] = run->links[i].target;
    }
    for (int i = 0; i < run->nsources; i++) {
        struct db *db = reshard_primary(reshard, run->sources[i].shard);
        if (!db || !tables_read(db, &reshard->moves, &reshard->arena, &run->sources[i].tables,
                                &reshard->error))
            return false;
    }
    return true;
}

/* ---- before the first row ---- */

/* How it was, for when the job is over. The table's own statement wants a lock that does not wait for readers. */
static const char identity_query[] =
    "SELECT CASE c.relreplident WHEN 'd' THEN 'DEFAULT' WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN"
    " 'FULL' ELSE (SELECT format('USING INDEX %I', i.relname) FROM pg_index x JOIN pg_class i ON"
    " i.oid = x.indexrelid WHERE x.indrelid = c.oid AND x.indisreplident) END, format('%I.%I',"
    " n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE"
    " c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass) UNION SELECT $1::oid)";

static bool make_full(struct run *run, unsigned shard, const char *relation, const char *was)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, shard);
    const char *sql = RESHARD_TEXT(
        reshard, "SET lock_timeout = '200ms'; ALTER TABLE %s REPLICA IDENTITY FULL", relation);
    if (!job_will_make(reshard, run->job, shard, "identity", relation, was))
        return false;
    for (int tries = 0; tries < 100 && !reshard_stopped(reshard); tries++) {
        if (db_run(db, RESHARD_QUERY_MS, &reshard->error, sql, 0))
            return db_run(db, RESHARD_QUERY_MS, &reshard->error, "RESET lock_timeout", 0);
        if (strcmp(reshard->error.sqlstate, "55P03") != 0)
            return false;
        pause_ms(50);
    }
    return false;
}

static bool widen_identity(struct run *run, unsigned shard, const struct move_table *table)
{
    struct reshard *reshard = run->reshard;
    PGresult *rows = db_query(reshard_primary(reshard, shard), RESHARD_QUERY_MS, &reshard->error,
                              identity_query, 1, RESHARD_TEXT(reshard, "%u", table->oid));
    bool good = rows != NULL;
    for (int i = 0; good && i < PQntuples(rows); i++)
        good = strcmp(PQgetvalue(rows, i, 0), "FULL") == 0 ||
               make_full(run, shard, PQgetvalue(rows, i, 1), PQgetvalue(rows, i, 0));
    PQclear(rows);
    return good;
}

/* Old rows in the stream must tell their sharding key, on either side. */
static bool widen_identities(struct run *run, unsigned shard)
{
    struct reshard *reshard = run->reshard;
    struct move_tables tables;
    struct db *db = reshard_primary(reshard, shard);
    if (!db || !tables_read(db, &reshard->moves, &reshard->arena, &tables, &reshard->error))
        return false;
    for (int i = 0; i < tables.count; i++)
        if (!tables.items[i].key_in_identity && !widen_identity(run, shard, &tables.items[i]))
            return false;
    return true;
}

static bool make_ghosts(struct run *run, unsigned shard)
{
    struct reshard *reshard = run->reshard;
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

/* Proxies leave rows out on the targets from now on; what they do not know of yet must not be there. */
static bool ghosts_on(struct run *run)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < reshard->moves.count; i++) {
        const struct move *move = &reshard->moves.items[i];
        if (!catalog_set_ghost(reshard_catalog(reshard), reshard->request->database,
                               move->keyspace->name,
                               shardmap_shard_name(reshard->map, move->target), run->job->name,
                               true, &reshard->error))
            return false;
    }
    return true;
}

/* False: not yet; reshard->error is set where it cannot be known. */
static bool all_proxies_have(struct run *run, int64_t epoch, const char **who)
{
    struct reshard *reshard = run->reshard;
    struct catalog_proxy *proxies;
    int count;
    *who = NULL;
    if (!catalog_proxies(reshard_catalog(reshard), reshard->request->database, &reshard->arena,
                         &proxies, &count, &reshard->error))
        return false;
    for (int i = 0; i < count; i++)
        if (proxies[i].epoch < epoch)
            *who = RESHARD_TEXT(reshard, "%s process %d", proxies[i].host, proxies[i].pid);
    return *who == NULL;
}

static bool wait_for_proxies(struct run *run)
{
    struct reshard *reshard = run->reshard;
    struct shardmap *map;
    if (!catalog_read_map(reshard_catalog(reshard), reshard->database, &map, &reshard->error))
        return false;
    int64_t epoch = shardmap_epoch(map);
    shardmap_free(map);
    const char *who;
    for (int64_t until = db_clock_ms() + FOLLOW_MS; !all_proxies_have(run, epoch, &who);) {
        if (!who)
            return false;
        if (db_clock_ms() >= until || reshard_stopped(reshard)) {
            reshard->error = (struct db_error){.sqlstate = "55P03"};
            snprintf(reshard->error.text, sizeof reshard->error.text,
                     "a proxy does not follow the map (%s)", who);
            return false;
        }
        pause_ms(LOOK_EVERY_MS);
    }
    return true;
}

static bool prepare(struct run *run)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < run->nlinks; i++) {
        unsigned both[] = {run->links[i].source, run->links[i].target};
        for (int side = 0; side < 2; side++)
            if (!make_ghosts(run, both[side]) || !widen_identities(run, both[side]))
                return false;
        if (!copy_prepare(reshard_primary(reshard, both[1]), &reshard->error))
            return false;
    }
    return ghosts_on(run) && wait_for_proxies(run) && streams_make(reshard, run->job, false) &&
           job_set_state(reshard, run->job, JOB_BIT(JOB_CREATED), JOB_COPYING);
}

/* ---- snapshots, as they are remembered ---- */

/* The oldest transaction of the first one; NULL: there was none yet. */
static const char *first_oldest(struct run *run, unsigned shard, bool *good)
{
    struct job_object *objects;
    int count;
    const char *name = shardmap_shard_name(run->reshard->map, shard), *found = NULL;
    *good = job_objects(run->reshard, run->job, &objects, &count);
    for (int i = 0; *good && i < count; i++)
        if (strcmp(objects[i].kind, "first_snapshot") == 0 && strcmp(objects[i].shard, name) == 0)
            found = objects[i].detail;
    return found;
}

static bool remember(struct run *run, const struct run_source *source)
{
    return streams_remember(run->reshard, run->job, source->shard, source->snapshot.lsn) &&
           job_will_make(run->reshard, run->job, source->shard, "first_snapshot", "first",
                         source->oldest);
}

/* ---- the copy ---- */

static bool has_begun(struct run *run, struct run_source *source)
{
    struct reshard *reshard = run->reshard;
    source->begun = false;
    for (int i = 0; i < source->ntargets; i++) {
        bool begun;
        struct db *db = reshard_primary(reshard, source->targets[i]);
        if (!db || !copy_has_begun(reshard, db, source->shard, &begun, &reshard->error))
            return false;
        source->begun = source->begun || begun;
    }
    return true;
}

static bool read_oldest(struct run *run, struct run_source *source)
{
    struct reshard *reshard = run->reshard;
    bool good;
    source->oldest = first_oldest(run, source->shard, &good);
    if (!good || (source->oldest && source->begun))
        return good;
    struct db *db = reshard_primary(reshard, source->shard);
    if (!db || !snapshot_enter(db, source->snapshot.name, &reshard->error))
        return false;
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, &reshard->error,
                              "SELECT txid_snapshot_xmin(txid_current_snapshot())", 0);
    if (rows)
        source->oldest = RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows && db_run(db, RESHARD_QUERY_MS, &reshard->error, "COMMIT", 0);
}

static bool take_snapshots(struct run *run)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < run->nsources; i++) {
        struct run_source *source = &run->sources[i];
        if (!has_begun(run, source) ||
            !snapshot_take(reshard, source->shard, "copy", &source->snapshot, &reshard->error) ||
            !read_oldest(run, source))
            return false;
        run->snapshots[source->shard] = source->snapshot.position;
        if (!remember(run, source))
            return false;
    }
    return true;
}

static void drop_snapshots(struct run *run)
{
    for (int i = 0; i < run->nsources; i++)
        snapshot_drop(&run->sources[i].snapshot);
}

/* A later pass copies what is missing as of a new snapshot: what is there is brought up to exactly that, first. */
static bool catch_up(struct run *run)
{
    struct reshard *reshard = run->reshard;
    bool needed = false;
    for (int i = 0; i < run->nsources; i++)
        needed = needed || run->sources[i].begun;
    if (!needed)
        return true;
    struct streams *streams = streams_start(reshard, run->job, run->snapshots);
    enum streams_health health = streams ? STREAMS_RUNNING : STREAMS_FAILED;
    while (health == STREAMS_RUNNING && !reshard_stopped(reshard)) {
        pause_ms(LOOK_EVERY_MS / 10);
        health = streams_tend(streams);
    }
    streams_stop(streams);
    return health == STREAMS_FINISHED;
}

static bool is_paused(void *arg)
{
    struct run *run = arg;
    return !job_look(run->reshard, run->job) || run->job->paused;
}

static bool copy_all(struct run *run)
{
    struct reshard *reshard = run->reshard;
    struct copy_source *sources =
        arena_array(&reshard->arena, struct copy_source, (size_t)run->nsources + 1);
    for (int i = 0; i < run->nsources; i++) {
        struct run_source *source = &run->sources[i];
        sources[i] = (struct copy_source){.shard = source->shard,
                                          .targets = source->targets,
                                          .ntargets = source->ntargets,
                                          .tables = &source->tables,
                                          .snapshot = source->snapshot.name,
                                          .pass = source->begun ? 2 : 1,
                                          .oldest = source->oldest};
    }
    struct copy_options options = {.jobs = run->options->jobs,
                                   .rate = run->options->rate,
                                   .max_lag_ms = run->options->max_lag_ms,
                                   .paused = is_paused,
                                   .arg = run};
    return copy_run(reshard, sources, run->nsources, &options);
}

static bool copy(struct run *run)
{
    bool good = take_snapshots(run) && catch_up(run) && copy_all(run);
    drop_snapshots(run);
    return good && job_set_state(run->reshard, run->job, JOB_BIT(JOB_COPYING), JOB_INDEXING);
}

/* All rows are there: what comes behind them, and the way back. */
static bool finish_targets(struct run *run)
{
    return streams_make(run->reshard, run->job, true) &&
           job_set_state(run->reshard, run->job, JOB_BIT(JOB_INDEXING), JOB_STREAMING);
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

/* Every half second. False: `*outcome` says how it ends. */
static bool look_at_job(struct run *run, enum reshard_outcome *outcome)
{
    struct reshard *reshard = run->reshard;
    if (!job_look(reshard, run->job) || !job_lock_holds(run->lock)) {
        *outcome = reshard_fails(reshard, NULL, "the catalog was lost");
        return false;
    }
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

static struct streams *begin_streams(struct run *run)
{
    job_set_error(run->reshard, run->job, NULL);
    return streams_start(run->reshard, run->job, NULL);
}

static enum reshard_outcome stream(struct run *run)
{
    struct streams *streams = NULL;
    enum reshard_outcome outcome = RESHARD_STOPPED;
    int64_t looked_at = 0;
    while (!reshard_stopped(run->reshard)) {
        if (db_clock_ms() - looked_at >= LOOK_AT_JOB_MS) {
            looked_at = db_clock_ms();
            if (!look_at_job(run, &outcome))
                break;
        }
        if (run->job->paused) {
            streams_stop(streams);
            streams = NULL;
        } else if (!streams && !(streams = begin_streams(run))) {
            outcome = stands_still(run);
            break;
        } else if (streams_tend(streams) == STREAMS_FAILED) {
            outcome = stands_still(run);
            break;
        }
        if (streams && run->options->until_caught_up && streams_are_close(streams, CLOSE_MS)) {
            outcome = RESHARD_DONE;
            break;
        }
        pause_ms(LOOK_EVERY_MS / 2);
    }
    streams_stop(streams);
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

static enum reshard_outcome go(struct run *run)
{
    struct reshard *reshard = run->reshard;
    struct job *job = run->job;
    if (!find_sources(run))
        return reshard_fails(reshard, NULL, "cannot read the tables");
    if (job->state == JOB_CREATED && !prepare(run))
        return reshard_fails(reshard, NULL, "cannot prepare");
    if (job->state == JOB_COPYING && !copy(run))
        return reshard_fails(reshard, NULL, "cannot copy");
    if (job->state == JOB_INDEXING && !finish_targets(run))
        return reshard_fails(reshard, NULL, "cannot finish the targets");
    if (!(STREAMING_STATES & JOB_BIT(job->state)))
        return refuse_state(run);
    return stream(run);
}

static enum reshard_outcome say_plan(struct reshard *reshard)
{
    static const char *const steps[] = {
        "tables of keys of rows that are on two shards are made, and proxies leave such rows out",
        "publications, slots and origins are made for streams both ways",
        "rows are copied under a snapshot",
        "changes are streamed until it is interrupted",
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        reshard_tell(reshard, RESHARD_PLANNED, NULL, NULL, steps[i], NULL);
    return RESHARD_DONE;
}

static enum reshard_outcome lock_and_go(struct run *run)
{
    struct reshard *reshard = run->reshard;
    if (reshard->request->dry_run)
        return say_plan(reshard);
    run->lock = job_lock(reshard, run->job);
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
        struct run run = {.reshard = &reshard, .job = &job, .options = options};
        outcome = lock_and_go(&run);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}
