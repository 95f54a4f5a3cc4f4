/* switch.c: the switch and the rollback, step by step, and what becomes of one that fails. */
#include "resharder/switch.h"

#include <string.h>

#include "pgshunt/catalog.h"
#include "pgshunt/failpoint.h"

#define PAUSE_MS 500 /* where nothing is said */
#define READY_MS 60000
#define READY_ENOUGH_MS 250 /* a marker that takes no longer: caught up */

/* ---- before ---- */

/* Whoever was at it before us has died, or will find out that it lost. */
static bool repair(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    struct job *job = turn->job;
    if (!job->attempt)
        return job_set_state(reshard, job, JOB_BIT(turn->during), turn->before);
    if (!catalog_abort(reshard_catalog(reshard), reshard->request->database, job->name,
                       job->attempt, job->epoch, job_state_name(turn->before), &reshard->error))
        return false;
    job_step(reshard, job, "repair", "a switch that was not finished is undone");
    return job_look(reshard, job);
}

/* The map may have a later epoch than when the command began: guards of an undone switch, another job. */
static bool read_map_again(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    struct shardmap *map;
    if (!catalog_read_map(reshard_catalog(reshard), reshard->database, &map, &reshard->error))
        return false;
    int64_t epoch = shardmap_epoch(map);
    shardmap_free(map);
    shardmap_set_epoch(reshard->map, epoch);
    return true;
}

/* Somebody has to stream: another process that runs the job, or else this one. */
static bool have_streams(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    turn->lock = job_lock(reshard, turn->job);
    if (!turn->lock)
        return strcmp(reshard->error.sqlstate, "55P03") == 0;
    turn->streams = streams_start(reshard, turn->job, NULL);
    return turn->streams != NULL;
}

/* Markers, while everybody works, until one comes through quickly: so will the one that all wait for. */
static bool be_ready(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    for (int64_t until = db_clock_ms() + READY_MS;;) {
        int64_t began = db_clock_ms();
        const char *marker = RESHARD_TEXT(reshard, "ready %lld", (long long)began);
        if (!turn_mark(turn, marker, until))
            return false;
        if (db_clock_ms() - began <= READY_ENOUGH_MS)
            return true;
    }
}

/* ---- the flip ---- */

static bool flip(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    int count = turn->moves.count;
    if (turn->job->tables)
        return table_job_flip(reshard, turn->job, turn->hold, turn->after == JOB_SWITCHED,
                              job_state_name(turn->after));
    struct catalog_move *moves =
        arena_array(&reshard->arena, struct catalog_move, (size_t)count + 1);
    for (int i = 0; i < count; i++) {
        const struct move *move = &turn->moves.items[i];
        moves[i] = (struct catalog_move){
            .range = {.keyspace = move->keyspace->name, .first = move->first, .last = move->last},
            .source = shardmap_shard_name(reshard->map, move->source),
            .target = shardmap_shard_name(reshard->map, move->target),
        };
    }
    return catalog_flip(reshard_catalog(reshard), reshard->request->database, turn->job->name,
                        turn->job->attempt, turn->hold, moves, count, turn->job->epoch,
                        job_state_name(turn->after), &reshard->error);
}

/* ---- when it fails ---- */

/* The flip may have been committed though its answer was lost: the catalog knows. Else the attempt, its epoch and
 * why it failed stay what they were: somebody else's attempt may be there by now, and is not ours to undo. */
static bool has_flipped(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    struct job *job = turn->job;
    struct db_error why = reshard->error;
    const char *attempt = job->attempt;
    int64_t epoch = job->epoch;
    if (job_look(reshard, job) && job->state == turn->after)
        return true;
    reshard->error = why;
    job->attempt = attempt;
    job->epoch = epoch;
    return false;
}

/* By whoever saw that our lease was over, a proxy or another command: they have raised the epoch, too. */
static bool was_undone(struct turn *turn, const char *attempt)
{
    const struct job *job = turn->job;
    return job_look(turn->reshard, turn->job) && job->state != turn->after &&
           (!job->attempt || strcmp(job->attempt, attempt) != 0);
}

/* Those of this attempt. Guards of a later one are somebody else's. */
static void lift_own_guards(struct turn *turn, int64_t epoch)
{
    struct reshard *reshard = turn->reshard;
    for (int i = 0; i < turn->nsources; i++)
        if (!fence_lift(reshard, turn->sources[i].shard, &turn->sources[i].tables, epoch))
            reshard_tell(reshard, RESHARD_NOTE,
                         reshard->database->shards[turn->sources[i].shard].name, NULL,
                         "its guard could not be taken away yet: it refuses writes that do not go "
                         "through pgshunt",
                         "pgshuntctl reshard gc");
}

/* All as before: the hold is released, and where guards stand, proxies get an epoch that passes them. */
static enum reshard_outcome undo(struct turn *turn, const char *step)
{
    struct reshard *reshard = turn->reshard;
    struct job *job = turn->job;
    struct db_error why = reshard->error, undone = {0};
    const char *attempt = job->attempt;
    int64_t epoch = turn->guarded ? job->epoch : 0;
    turn_unlock(turn);
    struct db *catalog = reshard_catalog(reshard);
    bool good = catalog && (catalog_abort(catalog, reshard->request->database, job->name, attempt,
                                          epoch, job_state_name(turn->before), &undone) ||
                            was_undone(turn, attempt));
    if (good && turn->guarded)
        lift_own_guards(turn, epoch);
    reshard->error = why;
    job_step(reshard, job, "gave up", RESHARD_TEXT(reshard, "at %s: %s", step, why.text));
    if (why.hint[0])
        reshard_tell(reshard, RESHARD_NOTE, NULL, NULL, why.hint, NULL);
    if (good)
        return reshard_stopped(reshard) ? RESHARD_STOPPED : RESHARD_GAVE_UP;
    reshard->error = undone;
    return reshard_fails(reshard, NULL, "cannot undo the switch");
}

/* ---- the steps ---- */

/* While writers wait, in this order; a test may kill us behind each. */
static bool lock_step(struct turn *turn)
{
    return turn_lock(turn) == FENCE_LOCKED;
}

static bool mark_step(struct turn *turn)
{
    return turn_mark(turn, turn->job->attempt, db_clock_ms() + turn->max_pause_ms);
}

static bool flip_step(struct turn *turn)
{
    return flip(turn) || has_flipped(turn);
}

static const struct step {
    const char *name;
    bool (*run)(struct turn *turn);
} steps[] = {
    {"hold", turn_hold},
    {"drain", turn_drain},
    {"lock", lock_step},
    {"marker", mark_step},
    {"sequences", turn_set_sequences},
    {"guard", turn_guard},
    {"flip", flip_step},
};

/* NULL: done; else the step that failed. */
static const char *change_owner(struct turn *turn)
{
    failpoint("attempt");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (!steps[i].run(turn))
            return steps[i].name;
        failpoint(steps[i].name);
    }
    reshard_tell(turn->reshard, RESHARD_STEP, NULL, "flip",
                 RESHARD_TEXT(turn->reshard, "epoch %lld, statements were held for %lld ms",
                              (long long)turn->job->epoch,
                              (long long)(db_clock_ms() - turn->held_at)),
                 NULL);
    return NULL;
}

static bool is_source(const struct turn *turn, unsigned shard)
{
    for (int i = 0; i < turn->nsources; i++)
        if (turn->sources[i].shard == shard)
            return true;
    return false;
}

/* Who owns the rows again, after a rollback or a switch behind one, has guards of when it lost them. Somebody may have
 * begun to turn it round again already: those guards stay. */
static void lift_old_guards(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    for (int i = 0; i < turn->nlinks; i++) {
        unsigned shard = turn->links[i].target;
        struct move_tables tables;
        struct db *db = is_source(turn, shard) ? NULL : reshard_primary(reshard, shard);
        if (db && (!tables_read(db, &turn->moves, &reshard->arena, &tables, &reshard->error) ||
                   !fence_lift(reshard, shard, &tables, turn->job->epoch)))
            reshard_tell(reshard, RESHARD_NOTE, shardmap_shard_name(reshard->map, shard), NULL,
                         "an old guard could not be taken away: until the job ends, it refuses "
                         "writes that do not go through pgshunt",
                         NULL);
    }
}

static enum reshard_outcome fails(struct turn *turn, const char *what)
{
    return reshard_fails(turn->reshard, NULL, what);
}

/* Whoever runs the job does not stream now: no marker would come. */
static enum reshard_outcome refuse_rest(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    const struct job *job = turn->job;
    reshard_tell(reshard, RESHARD_PROBLEM, NULL, job->name,
                 job->paused ? "the job is paused"
                             : RESHARD_TEXT(reshard, "the streams rest: %s", job->error),
                 job->paused ? "pgshuntctl reshard resume" : NULL);
    return RESHARD_REFUSED;
}

static enum reshard_outcome take_turn(struct turn *turn)
{
    struct reshard *reshard = turn->reshard;
    struct job *job = turn->job;
    if (!have_streams(turn))
        return fails(turn, "cannot prepare");
    if (!turn->lock && (job->paused || job->error))
        return refuse_rest(turn);
    if (!turn_prepare(turn))
        return fails(turn, "cannot prepare");
    if (turn_has_new_tables(turn))
        return RESHARD_REFUSED;
    if (!be_ready(turn)) {
        fails(turn, "not caught up");
        return reshard_stopped(reshard) ? RESHARD_STOPPED : RESHARD_GAVE_UP;
    }
    if (!read_map_again(turn) || !job_begin_attempt(reshard, job, JOB_BIT(turn->before),
                                                    turn->during, shardmap_epoch(reshard->map) + 1))
        return fails(turn, "cannot begin");
    const char *failed = change_owner(turn);
    if (failed)
        return undo(turn, failed);
    turn_unlock(turn);
    turn_follow(turn);
    lift_old_guards(turn);
    return RESHARD_DONE;
}

/* ---- beginning ---- */

static enum reshard_outcome refuse_state(struct turn *turn)
{
    reshard_tell(turn->reshard, RESHARD_PROBLEM, NULL, turn->job->name,
                 RESHARD_TEXT(turn->reshard, "the job is %s: this needs one that is %s",
                              job_state_name(turn->job->state), job_state_name(turn->before)),
                 turn->job->state < JOB_STREAMING ? "pgshuntctl reshard run" : NULL);
    return RESHARD_REFUSED;
}

static enum reshard_outcome say_plan(struct turn *turn)
{
    static const char *const words[] = {
        "proxies hold statements on the buckets that move; transactions from before end",
        "the tables of the old owners are locked against writers",
        "the new owners apply all that was written",
        "sequences of the new owners are set ahead",
        "a guard on the old owners refuses late writes",
        "the map changes; held statements go to the new owners",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        reshard_tell(turn->reshard, RESHARD_PLANNED, NULL, NULL, words[i], NULL);
    return RESHARD_DONE;
}

static enum reshard_outcome begin_turn(struct turn *turn)
{
    struct job *job = turn->job;
    if (job->state == turn->after) {
        reshard_tell(turn->reshard, RESHARD_FACT, NULL, job->name, "is where it is to be already",
                     NULL);
        turn_follow(turn);
        return RESHARD_DONE;
    }
    if (job->state == turn->during && !turn->reshard->request->dry_run && !repair(turn))
        return fails(turn, "cannot undo a switch that was not finished");
    if (job->state != turn->before)
        return refuse_state(turn);
    return turn->reshard->request->dry_run ? say_plan(turn) : take_turn(turn);
}

static enum reshard_outcome run_turn(const struct reshard_request *request,
                                     const struct reshard_switch_options *options, bool back)
{
    struct reshard reshard;
    struct job job;
    enum reshard_outcome outcome = RESHARD_UNFINISHED;
    if (reshard_begin(&reshard, request) && job_open(&reshard, &job, &outcome)) {
        int64_t pause = options->max_pause_ms ? options->max_pause_ms : PAUSE_MS;
        struct turn turn = {
            .reshard = &reshard,
            .job = &job,
            .max_pause_ms = pause,
            .drain_ms = options->drain_ms ? options->drain_ms : pause,
            .force = options->force,
            .before = back ? JOB_SWITCHED : JOB_STREAMING,
            .during = back ? JOB_ROLLING : JOB_SWITCHING,
            .after = back ? JOB_STREAMING : JOB_SWITCHED,
            .moves =
                back ? moves_reversed(&reshard.moves, reshard.map, &reshard.arena) : reshard.moves,
        };
        outcome = begin_turn(&turn);
        turn_unlock(&turn);
        streams_stop(turn.streams);
        job_unlock(turn.lock);
        job_free(&job);
    }
    reshard_end(&reshard);
    return outcome;
}

enum reshard_outcome reshard_switch(const struct reshard_request *request,
                                    const struct reshard_switch_options *options)
{
    return run_turn(request, options, false);
}

enum reshard_outcome reshard_rollback(const struct reshard_request *request,
                                      const struct reshard_switch_options *options)
{
    return run_turn(request, options, true);
}
