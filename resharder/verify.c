/*
 * verify.c: both sides compared at one position.
 *
 *   streams at rest -> snapshots of the owners -> streams up to exactly these -> snapshots of the followers -> streams go on
 *   -> each table read on all shards: checksums of its buckets -> rows of buckets that differ
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/failpoint.h"
#include "resharder/job.h"
#include "resharder/snapshot.h"
#include "resharder/streams.h"
#include "resharder/verify_internal.h"

#define JOBS 2
#define REST_MS 30000
#define LOOK_EVERY_MS 20
#define MEET_TRIES 10

struct verification {
    struct reshard *reshard;
    struct job job;
    struct verify verify;
    struct moves moves;         /* from owners to followers */
    bool reverse;               /* behind a switch */
    struct job_lock *lock;      /* nobody runs the job: its streams are ours */
    bool paused;                /* somebody does, and was told to rest */
    struct snapshot *snapshots; /* by place; of owners */
    struct db **holders;        /* by place; sessions that export the followers' snapshots */
    bool different;
};

static bool fails(struct verification *v, const char *text)
{
    v->reshard->error = (struct db_error){.sqlstate = "55006"};
    snprintf(v->reshard->error.text, sizeof v->reshard->error.text, "%s", text);
    return false;
}

/* ---- the streams at rest ---- */

/* Whether somebody reads from any of the job's slots. */
static bool any_reads(struct verification *v, bool *reads)
{
    struct reshard *reshard = v->reshard;
    struct job_object *objects;
    int count;
    *reads = false;
    if (!job_objects(reshard, &v->job, &objects, &count))
        return false;
    for (int i = 0; i < count; i++) {
        int shard = shardmap_shard_by_name(reshard->map, objects[i].shard);
        if (strcmp(objects[i].kind, "slot") != 0 || shard < 0)
            continue;
        struct db *db = reshard_primary(reshard, (unsigned)shard);
        PGresult *rows =
            db ? db_query(db, RESHARD_QUERY_MS, &reshard->error,
                          "SELECT FROM pg_replication_slots WHERE active AND slot_name = $1", 1,
                          objects[i].name)
               : NULL;
        if (!rows)
            return false;
        *reads = *reads || PQntuples(rows) > 0;
        PQclear(rows);
    }
    return true;
}

/* Who runs the job rests its streams while it is paused. */
static bool rest_streams(struct verification *v)
{
    struct reshard *reshard = v->reshard;
    bool reads = true;
    if (!v->lock)
        v->lock = job_lock(reshard, &v->job);
    if (!v->lock && strcmp(reshard->error.sqlstate, "55P03") != 0)
        return false;
    if (!v->lock && !v->job.paused) {
        if (!job_set_paused(reshard, &v->job, true))
            return false;
        v->paused = true;
    }
    for (int64_t until = db_clock_ms() + REST_MS; reads;
         reshard_sleep(v->reshard, LOOK_EVERY_MS * 1000)) {
        if (reshard_stopped(reshard) || !any_reads(v, &reads))
            return false;
        if (reads && db_clock_ms() >= until)
            return fails(v, "the streams do not rest: another process reads from their slots");
    }
    return true;
}

static void let_streams_go(struct verification *v)
{
    if (v->paused && !job_set_paused(v->reshard, &v->job, false))
        reshard_tell(v->reshard, RESHARD_NOTE, NULL, v->job.name, "the job is still paused",
                     RESHARD_TEXT(v->reshard, "pgshuntctl reshard resume %s", v->job.name));
    job_unlock(v->lock);
    v->paused = false;
    v->lock = NULL;
}

/* ---- where both sides stand ---- */

static bool snapshot_owners(struct verification *v, uint64_t *positions)
{
    for (int i = 0; i < v->verify.nplaces; i++) {
        struct verify_place *place = &v->verify.places[i];
        if (place->side != VERIFY_OWNER)
            continue;
        if (!snapshot_take(v->reshard, place->shard, "verify", &v->snapshots[i],
                           &v->reshard->error))
            return false;
        place->snapshot = v->snapshots[i].name;
        positions[place->shard] = v->snapshots[i].position;
    }
    return true;
}

static bool catch_up(struct verification *v, const uint64_t *positions)
{
    struct reshard *reshard = v->reshard;
    struct streams *streams = v->reverse ? streams_start_back(reshard, &v->job, positions)
                                         : streams_start(reshard, &v->job, positions);
    enum streams_health health = streams ? STREAMS_RUNNING : STREAMS_FAILED;
    while (health == STREAMS_RUNNING && !reshard_stopped(reshard)) {
        reshard_sleep(v->reshard, LOOK_EVERY_MS * 1000);
        health = streams_tend(streams);
    }
    streams_stop(streams);
    return health == STREAMS_FINISHED;
}

static bool snapshot_follower(struct verification *v, int i)
{
    struct reshard *reshard = v->reshard;
    v->holders[i] = reshard_open(reshard, v->verify.places[i].shard, &reshard->error);
    if (!v->holders[i] || !db_run(v->holders[i], RESHARD_QUERY_MS, &reshard->error,
                                  "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0))
        return false;
    PGresult *rows = db_query(v->holders[i], RESHARD_QUERY_MS, &reshard->error,
                              "SELECT pg_export_snapshot()", 0);
    if (rows)
        v->verify.places[i].snapshot = RESHARD_TEXT(reshard, "%s", PQgetvalue(rows, 0, 0));
    PQclear(rows);
    return rows != NULL;
}

/*
 * Somebody who runs the job may have been about to start its streams when they were at rest: then a follower has
 * more than its owner's snapshot, and the two must not be compared.
 */
static bool is_ahead(struct verification *v, const uint64_t *positions, bool *ahead)
{
    struct reshard *reshard = v->reshard;
    int count;
    const struct link *links = moves_links(&v->moves, &reshard->arena, &count);
    *ahead = false;
    for (int i = 0; i < count; i++) {
        struct db *db = reshard_primary(reshard, links[i].target);
        uint64_t position = positions[links[i].source];
        PGresult *rows =
            db ? db_query(
                     db, RESHARD_QUERY_MS, &reshard->error,
                     "SELECT pg_replication_origin_progress($1, true) > $2::pg_lsn", 2,
                     streams_origin(reshard, &v->job, links[i].source, v->reverse),
                     RESHARD_TEXT(reshard, "%X/%X", (unsigned)(position >> 32), (unsigned)position))
               : NULL;
        if (!rows)
            return false;
        *ahead = *ahead || PQgetvalue(rows, 0, 0)[0] == 't';
        PQclear(rows);
    }
    return true;
}

static void drop_owners(struct verification *v)
{
    for (int i = 0; i < v->verify.nplaces; i++)
        if (v->snapshots[i].pg)
            snapshot_drop(&v->snapshots[i]);
}

/* Owners' snapshots, and the followers at exactly their positions. */
static bool meet(struct verification *v)
{
    struct reshard *reshard = v->reshard;
    uint64_t *positions = arena_array(&reshard->arena, uint64_t, shardmap_shards(reshard->map) + 1);
    for (int tries = 0; tries < MEET_TRIES; tries++) {
        bool ahead;
        if (!rest_streams(v) || !snapshot_owners(v, positions))
            return false;
        failpoint("verify_snapshots");
        if (!catch_up(v, positions) || !is_ahead(v, positions, &ahead))
            return false;
        if (!ahead)
            return true;
        drop_owners(v);
    }
    return fails(v, "the streams do not rest: somebody starts them again and again");
}

static bool take_snapshots(struct verification *v)
{
    bool good = meet(v);
    for (int i = 0; good && i < v->verify.nplaces; i++)
        good = v->verify.places[i].side == VERIFY_OWNER || snapshot_follower(v, i);
    good = good && verify_open(&v->verify);
    struct db_error why = v->reshard->error;
    let_streams_go(v);
    v->reshard->error = why;
    return good;
}

/* ---- who takes part ---- */

static bool add_place(struct verification *v, unsigned shard, enum verify_side side)
{
    struct reshard *reshard = v->reshard;
    for (int i = 0; i < v->verify.nplaces; i++)
        if (v->verify.places[i].shard == shard && v->verify.places[i].side == side)
            return true;
    struct verify_place *place = &v->verify.places[v->verify.nplaces++];
    struct db *db = reshard_primary(reshard, shard);
    *place = (struct verify_place){.shard = shard,
                                   .side = side,
                                   .name = shardmap_shard_name(reshard->map, shard),
                                   .tables = arena_new(&reshard->arena, struct move_tables)};
    return db && tables_read(db, &v->moves, &reshard->arena, place->tables, &reshard->error);
}

static bool find_places(struct verification *v, int jobs)
{
    struct reshard *reshard = v->reshard;
    int count;
    const struct link *links;
    v->reverse = v->job.state == JOB_SWITCHED;
    v->moves = v->reverse ? moves_reversed(&reshard->moves, reshard->map, &reshard->arena)
                          : reshard->moves;
    links = moves_links(&v->moves, &reshard->arena, &count);
    v->verify = (struct verify){
        .reshard = reshard, .moves = &v->moves, .jobs = jobs ? jobs : JOBS, .rate = v->verify.rate};
    v->verify.places = arena_array(&reshard->arena, struct verify_place, 2 * count + 1);
    v->snapshots = arena_array(&reshard->arena, struct snapshot, 2 * count + 1);
    v->holders = arena_array(&reshard->arena, struct db *, 2 * count + 1);
    for (int i = 0; i < count; i++)
        if (!add_place(v, links[i].source, VERIFY_OWNER) ||
            !add_place(v, links[i].target, VERIFY_FOLLOWER))
            return false;
    return true;
}

/* ---- tables ---- */

static void tell_found(struct verification *v, const struct move_table *table, uint64_t rows,
                       const struct verify_found *found)
{
    struct reshard *reshard = v->reshard;
    if (!found->buckets) {
        reshard_tell(reshard, RESHARD_FACT, NULL, table->relation,
                     RESHARD_TEXT(reshard, "%llu rows are the same", (unsigned long long)rows),
                     NULL);
        job_step(reshard, &v->job, "verify_table", table->relation);
        return;
    }
    v->different = true;
    const char *unread = found->unread
                             ? RESHARD_TEXT(reshard,
                                            "; %lld more buckets differ, whose rows were not"
                                            " looked at",
                                            (long long)found->unread)
                             : "";
    reshard_tell(reshard, RESHARD_PROBLEM, NULL, table->relation,
                 RESHARD_TEXT(reshard,
                              "%lld rows are missing, %lld too many, %lld different, of %llu%s",
                              (long long)found->missing, (long long)found->extra,
                              (long long)found->different, (unsigned long long)rows, unread),
                 NULL);
}

static bool verify_table(struct verification *v, const struct move_table *table)
{
    struct verify_sums *sums = mem_alloc(sizeof *sums);
    struct verify_found found = {.buckets = 0};
    uint64_t rows = 0;
    bool same = true, good = verify_read(&v->verify, table, sums, NULL);
    for (unsigned b = 0; b < SHARDKEY_BUCKETS; b++) {
        rows += sums->side[VERIFY_OWNER][b].rows;
        same = same && verify_sum_same(sums, b);
    }
    if (good && !same)
        good = verify_rows_differ(&v->verify, table, sums, &found);
    if (good)
        tell_found(v, table, rows, &found);
    free(sums);
    return good;
}

/* Tables that an interrupted call, not long ago, has found the same. */
static const char done_query[] =
    "SELECT detail FROM pgshunt.job_step WHERE job = $1 AND step = 'verify_table'"
    " AND at > now() - interval '1 day' AND at > coalesce((SELECT max(at) FROM pgshunt.job_step"
    " WHERE job = $1 AND step IN ('verified', 'differs')), '-infinity')";

static bool is_done(const PGresult *done, const struct move_table *table)
{
    for (int i = 0; i < PQntuples(done); i++)
        if (strcmp(PQgetvalue(done, i, 0), table->relation) == 0)
            return true;
    return false;
}

/* Whether an owner before `place` has the table too. */
static bool is_known(const struct verification *v, int place, const struct move_table *table)
{
    for (int i = 0; i < place; i++)
        if (v->verify.places[i].side == VERIFY_OWNER &&
            tables_find(v->verify.places[i].tables, table->schema, table->name))
            return true;
    return false;
}

static bool verify_tables(struct verification *v)
{
    struct db *catalog = reshard_catalog(v->reshard);
    PGresult *done = catalog ? db_query(catalog, RESHARD_QUERY_MS, &v->reshard->error, done_query,
                                        1, v->job.name)
                             : NULL;
    bool good = done != NULL;
    for (int i = 0; good && i < v->verify.nplaces; i++) {
        const struct move_tables *tables = v->verify.places[i].tables;
        for (int t = 0; good && t < tables->count && v->verify.places[i].side == VERIFY_OWNER; t++)
            if (!is_known(v, i, &tables->items[t]) && !is_done(done, &tables->items[t]))
                good = verify_table(v, &tables->items[t]);
    }
    PQclear(done);
    return good;
}

/* ---- the call ---- */

static enum reshard_outcome verify_job(struct verification *v, int jobs)
{
    struct reshard *reshard = v->reshard;
    if (v->job.state != JOB_STREAMING && v->job.state != JOB_SWITCHED) {
        reshard_tell(reshard, RESHARD_PROBLEM, NULL, v->job.name,
                     RESHARD_TEXT(reshard,
                                  "the job is %s: both sides are compared while they are"
                                  " streaming or switched",
                                  job_state_name(v->job.state)),
                     RESHARD_TEXT(reshard, "pgshuntctl reshard run %s", v->job.name));
        return RESHARD_REFUSED;
    }
    if (reshard->request->dry_run) {
        reshard_tell(reshard, RESHARD_PLANNED, NULL, NULL,
                     "the streams rest for a moment, then all tables are read on both sides, as of"
                     " one position",
                     NULL);
        return RESHARD_DONE;
    }
    if (!find_places(v, jobs) || !take_snapshots(v))
        return reshard_fails(reshard, NULL, "cannot bring both sides to one position");
    if (!verify_tables(v))
        return reshard_fails(reshard, NULL, "cannot compare");
    job_step(reshard, &v->job, v->different ? "differs" : "verified", NULL);
    return v->different ? RESHARD_DIFFERENT : RESHARD_DONE;
}

static void release(struct verification *v)
{
    verify_close(&v->verify);
    drop_owners(v);
    for (int i = 0; i < v->verify.nplaces; i++)
        db_close(v->holders[i]);
    job_free(&v->job);
}

enum reshard_outcome reshard_verify(const struct reshard_request *request, int jobs, int64_t rate)
{
    struct reshard reshard;
    struct verification v = {.reshard = &reshard, .verify = {.rate = rate}};
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &v.job, &outcome)) {
        outcome = verify_job(&v, jobs);
        release(&v);
    }
    reshard_end(&reshard);
    return outcome;
}
