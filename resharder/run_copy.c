/* run_copy.c: snapshots, the passes that they begin, and the copy under them. */
#include "resharder/run_copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/failpoint.h"
#include "resharder/apply.h"
#include "resharder/copy.h"
#include "resharder/streams.h"
#include "resharder/wal_watch.h"

#define LOOK_EVERY_MS 500
#define REFRESH_MS 30000
#define FIRST_DELAY_MS 500
#define LAST_DELAY_MS 15000

/* A source at work. */
struct run_source {
    unsigned shard;
    const char *name;
    unsigned *targets;
    int ntargets;
    struct move_tables tables;
    struct snapshot snapshot; /* pg NULL: none */
    int pass;                 /* that the snapshot has begun */
    char oldest[32];          /* xmin of the first snapshot */
    bool emptied;             /* under this snapshot: tables without a primary key */
};

struct run_copy {
    struct reshard *reshard;
    struct job *job;
    const struct reshard_run_options *options;
    struct run_source *sources;
    int nsources;
    uint64_t *positions; /* of the snapshots, by shard */
    int64_t delay_ms;    /* before the next try */
    struct wal_watch wal;
    bool refresh; /* slots are to catch up: another pass */
    int64_t refreshed_ms;
};

/* ---- passes, recorded on the targets ---- */

/* A pass's record is a chunk of no relation: low is the snapshot's position, high its xmin. */
static bool record_pass(struct run_copy *run, const struct run_source *source, const char *xmin)
{
    struct reshard *reshard = run->reshard;
    char pass[16];
    snprintf(pass, sizeof pass, "%d", source->pass);
    for (int i = 0; i < source->ntargets; i++) {
        struct db *db = reshard_primary(reshard, source->targets[i]);
        if (!db || !db_run(db, RESHARD_QUERY_MS, &reshard->error,
                           "INSERT INTO pgshunt.chunk (job, source, relation, file, pass, number,"
                           " low, high, rows, bytes) VALUES ($1, $2, '', 0, $3::int, 0, $4, $5, 0,"
                           " 0)",
                           5, run->job->name, source->name, pass, source->snapshot.lsn, xmin))
            return false;
    }
    return true;
}

/* What earlier passes have left on a target. */
static bool read_passes(struct run_copy *run, struct run_source *source, unsigned target,
                        bool *begun)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, target);
    bool there;
    if (!db || !copy_has_begun(reshard, db, source->shard, &there, &reshard->error))
        return false;
    *begun = *begun || there;
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, &reshard->error,
                              "SELECT pass, high FROM pgshunt.chunk WHERE job = $1 AND source = $2"
                              " AND relation = '' ORDER BY pass",
                              2, run->job->name, source->name);
    int count = rows ? PQntuples(rows) : 0;
    if (count && atoi(PQgetvalue(rows, 0, 0)) == 1)
        snprintf(source->oldest, sizeof source->oldest, "%s", PQgetvalue(rows, 0, 1));
    if (count && atoi(PQgetvalue(rows, count - 1, 0)) > source->pass)
        source->pass = atoi(PQgetvalue(rows, count - 1, 0));
    PQclear(rows);
    return rows != NULL;
}

/* The first, as long as nothing was copied. */
static bool next_pass(struct run_copy *run, struct run_source *source)
{
    struct reshard *reshard = run->reshard;
    bool begun = false;
    source->pass = 0;
    for (int i = 0; i < source->ntargets; i++)
        if (!read_passes(run, source, source->targets[i], &begun))
            return false;
    for (int i = 0; i < source->ntargets && !begun; i++)
        if (!copy_forget(reshard, reshard_primary(reshard, source->targets[i]), source->shard,
                         &reshard->error))
            return false;
    source->pass = begun ? source->pass + 1 : 1;
    return true;
}

/* ---- snapshots ---- */

static bool read_xmin(struct run_copy *run, const struct run_source *source, char *xmin,
                      size_t size)
{
    struct reshard *reshard = run->reshard;
    struct db *db = reshard_primary(reshard, source->shard);
    if (!db || !snapshot_enter(db, source->snapshot.name, &reshard->error))
        return false;
    /* as rows have it: without the epoch */
    PGresult *rows = db_query(db, RESHARD_QUERY_MS, &reshard->error,
                              "SELECT txid_snapshot_xmin(txid_current_snapshot()) & 4294967295", 0);
    if (rows)
        snprintf(xmin, size, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows && db_run(db, RESHARD_QUERY_MS, &reshard->error, "COMMIT", 0);
}

/* Streams begin exactly where the first snapshot is. */
static bool set_positions(struct run_copy *run, const struct run_source *source)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < source->ntargets; i++) {
        struct db *db = reshard_primary(reshard, source->targets[i]);
        if (!db ||
            !db_run(db, RESHARD_QUERY_MS, &reshard->error,
                    "SELECT pg_replication_origin_advance($1, $2::pg_lsn)", 2,
                    streams_origin(reshard, run->job, source->shard, false), source->snapshot.lsn))
            return false;
    }
    return true;
}

static bool take_snapshot(struct run_copy *run, struct run_source *source)
{
    struct reshard *reshard = run->reshard;
    char xmin[32];
    snapshot_drop(&source->snapshot);
    source->emptied = false;
    if (!next_pass(run, source) ||
        !snapshot_take(reshard, source->shard, "copy", &source->snapshot, &reshard->error) ||
        !read_xmin(run, source, xmin, sizeof xmin) ||
        !streams_remember(reshard, run->job, source->shard, source->snapshot.lsn))
        return false;
    run->positions[source->shard] = source->snapshot.position;
    if (source->pass == 1) {
        snprintf(source->oldest, sizeof source->oldest, "%s", xmin);
        return set_positions(run, source) && record_pass(run, source, xmin);
    }
    job_step(reshard, run->job, "snapshot",
             RESHARD_TEXT(reshard, "%s: one was lost, what is missing is copied as of %s",
                          source->name, source->snapshot.lsn));
    return record_pass(run, source, xmin);
}

/* What is on the targets is brought up to exactly the snapshots that a later pass copies under. */
static bool catch_up(struct run_copy *run)
{
    struct reshard *reshard = run->reshard;
    struct streams *streams = streams_start(reshard, run->job, run->positions);
    enum streams_health health = streams ? STREAMS_RUNNING : STREAMS_FAILED;
    while (health == STREAMS_RUNNING && !reshard_stopped(reshard)) {
        reshard_sleep(reshard, 10000);
        health = streams_tend(streams);
    }
    streams_stop(streams);
    return health == STREAMS_FINISHED;
}

/* Behind the snapshots: a column that is not among these has been added since, and the snapshots have its default alone. */
static bool read_tables(struct run_copy *run)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < run->nsources; i++) {
        struct db *db = reshard_primary(reshard, run->sources[i].shard);
        if (!db || !tables_read(db, &reshard->moves, &reshard->arena, &run->sources[i].tables,
                                &reshard->error))
            return false;
    }
    return true;
}

/* What cannot go on begins anew: only that. */
static bool empty_tables(struct run_copy *run)
{
    for (int i = 0; i < run->nsources; i++) {
        struct run_source *source = &run->sources[i];
        if (source->pass == 1 || source->emptied)
            continue;
        for (int t = 0; t < source->ntargets; t++)
            if (!copy_empty(run->reshard, source->shard, source->targets[t], &source->tables))
                return false;
        source->emptied = true;
    }
    return true;
}

/* The snapshots have every row that was owed behind their positions. */
static bool forget_owed(struct run_copy *run)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < run->nsources; i++)
        for (int t = 0; t < run->sources[i].ntargets; t++) {
            struct db *db = reshard_primary(reshard, run->sources[i].targets[t]);
            if (!db ||
                !apply_owed_forget(db, run->job->name, run->sources[i].name, &reshard->error))
                return false;
        }
    return true;
}

/* Snapshots of all sources: those that are still good, and new ones. */
static bool take_snapshots(struct run_copy *run)
{
    bool later = false;
    for (int i = 0; i < run->nsources; i++) {
        struct run_source *source = &run->sources[i];
        if (snapshot_is_alive(&source->snapshot))
            continue;
        if (!take_snapshot(run, source)) {
            snapshot_drop(&source->snapshot);
            return false;
        }
        later = later || source->pass > 1;
    }
    /* A snapshot that this was not done for must not be copied under. */
    if (!later || (catch_up(run) && forget_owed(run) && read_tables(run) && empty_tables(run)))
        return true;
    for (int i = 0; i < run->nsources; i++)
        snapshot_drop(&run->sources[i].snapshot);
    return false;
}

/* ---- copying ---- */

/* Tables without a primary key would be copied again from their beginning, and perhaps never to their end. */
static bool can_go_on(const struct run_copy *run)
{
    for (int i = 0; i < run->nsources; i++)
        for (int t = 0; t < run->sources[i].tables.count; t++)
            if (!run->sources[i].tables.items[t].nprimary)
                return false;
    return true;
}

/*
 * A slot stands still while rows are copied. Before it loses WAL, this pass is given up: the next one begins with what the
 * stream has to bring, and with it the slot goes on. Not again and again where that does not help.
 */
static bool slots_want_to_go_on(struct run_copy *run)
{
    enum wal_state state = wal_watch(&run->wal);
    bool lately = run->refreshed_ms && db_clock_ms() - run->refreshed_ms < REFRESH_MS;
    run->refresh = state == WAL_LOW && !lately && can_go_on(run);
    return run->refresh || state == WAL_LOST;
}

static enum copy_wish look(void *arg)
{
    struct run_copy *run = arg;
    if (!job_look(run->reshard, run->job))
        return COPY_REST;
    if (run->job->state == JOB_COPYING && !run->job->paused && slots_want_to_go_on(run))
        return COPY_LEAVE;
    return run->job->state != JOB_COPYING ? COPY_LEAVE : run->job->paused ? COPY_REST : COPY_GO;
}

static bool copy_once(struct run_copy *run)
{
    struct reshard *reshard = run->reshard;
    struct copy_options options = {.jobs = run->options->jobs,
                                   .rate = run->options->rate,
                                   .max_lag_ms = run->options->max_lag_ms,
                                   .max_load = run->options->max_load,
                                   .wish = look,
                                   .arg = run};
    struct copy_source *sources =
        arena_array(&reshard->arena, struct copy_source, run->nsources + 1);
    if (!take_snapshots(run) || !read_tables(run))
        return false;
    failpoint("run_snapshots");
    for (int i = 0; i < run->nsources; i++)
        sources[i] = (struct copy_source){.shard = run->sources[i].shard,
                                          .targets = run->sources[i].targets,
                                          .ntargets = run->sources[i].ntargets,
                                          .tables = &run->sources[i].tables,
                                          .snapshot = run->sources[i].snapshot.name,
                                          .pass = run->sources[i].pass,
                                          .oldest = run->sources[i].oldest,
                                          .emptied = run->sources[i].emptied};
    return copy_run(reshard, sources, run->nsources, &options);
}

static void refresh(struct run_copy *run)
{
    run->refresh = false;
    run->refreshed_ms = db_clock_ms();
    run->wal.looked_ms = 0;
    reshard_tell(run->reshard, RESHARD_NOTE, NULL, NULL,
                 "slots keep much WAL: what was copied is brought up to date, then copying goes on",
                 NULL);
    for (int i = 0; i < run->nsources; i++)
        snapshot_drop(&run->sources[i].snapshot);
}

/* After a while, where it makes sense. */
static bool may_try_again(struct run_copy *run)
{
    struct reshard *reshard = run->reshard;
    if (run->refresh && run->job->state == JOB_COPYING && !reshard_stopped(reshard)) {
        refresh(run);
        return true;
    }
    if (run->wal.state == WAL_LOST) {
        run->wal.looked_ms = 0;
        (void)wal_watch(&run->wal); /* its error */
        return false;
    }
    /* 22023: the server does not know the snapshot any more. */
    bool useless = strcmp(reshard->error.sqlstate, COPY_REWRITTEN) == 0 ||
                   strcmp(reshard->error.sqlstate, "22023") == 0;
    /* 42703: a column is on one side alone: DDL is under way, or somebody has to mend it. */
    bool misfit = strcmp(reshard->error.sqlstate, "42703") == 0;
    if (reshard_stopped(reshard) || run->job->state != JOB_COPYING ||
        (!useless && !misfit && !apply_is_passing(reshard->error.sqlstate)))
        return false;
    if (misfit && run->delay_ms)
        job_set_error(reshard, run->job, RESHARD_TEXT(reshard, "%s", reshard->error.text));
    run->delay_ms = run->delay_ms ? 2 * run->delay_ms : FIRST_DELAY_MS;
    if (run->delay_ms > LAST_DELAY_MS)
        run->delay_ms = LAST_DELAY_MS;
    reshard_tell(reshard, RESHARD_NOTE, NULL, NULL,
                 RESHARD_TEXT(reshard, "interrupted, goes on soon: %s", reshard->error.text), NULL);
    for (int64_t until = db_clock_ms() + run->delay_ms;
         db_clock_ms() < until && !reshard_stopped(reshard);)
        reshard_sleep(reshard, 50000);
    for (int i = 0; i < run->nsources && useless; i++)
        snapshot_drop(&run->sources[i].snapshot);
    return !reshard_stopped(reshard);
}

/* ---- who takes part ---- */

static struct run_source *source_of(struct run_copy *run, unsigned shard)
{
    struct reshard *reshard = run->reshard;
    for (int i = 0; i < run->nsources; i++)
        if (run->sources[i].shard == shard)
            return &run->sources[i];
    struct run_source *source = &run->sources[run->nsources++];
    source->shard = shard;
    source->name = shardmap_shard_name(reshard->map, shard);
    source->targets = arena_array(&reshard->arena, unsigned, shardmap_shards(reshard->map));
    return source;
}

static void find_sources(struct run_copy *run)
{
    struct reshard *reshard = run->reshard;
    int count;
    const struct link *links = moves_links(&reshard->moves, &reshard->arena, &count);
    run->sources =
        arena_array(&reshard->arena, struct run_source, shardmap_shards(reshard->map) + 1);
    run->positions = arena_array(&reshard->arena, uint64_t, shardmap_shards(reshard->map) + 1);
    for (int i = 0; i < count; i++) {
        struct run_source *source = source_of(run, links[i].source);
        source->targets[source->ntargets++] = links[i].target;
    }
}

bool run_copy(struct reshard *reshard, struct job *job, const struct reshard_run_options *options)
{
    struct run_copy run = {.reshard = reshard,
                           .job = job,
                           .options = options,
                           .wal = {.reshard = reshard, .job = job}};
    find_sources(&run);
    if (wal_watch(&run.wal) == WAL_LOST)
        return false;
    bool good;
    do
        good = copy_once(&run);
    while (!good && may_try_again(&run));
    for (int i = 0; i < run.nsources; i++)
        snapshot_drop(&run.sources[i].snapshot);
    return good;
}
