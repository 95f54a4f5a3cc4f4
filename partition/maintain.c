/* maintain.c: the run: look at every shard, make what is missing, then see to what has expired. */
#include "partition/maintain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/expire.h"
#include "partition/make.h"
#include "partition/schedule.h"
#include "pgshunt/failpoint.h"

/* Tables whose partitions are in memory at once. */
#define BATCH 32

static struct state *state_of(const struct maintain *maintain, int policy, unsigned shard)
{
    return &maintain->states[policy * maintain->work->database->nshards + (int)shard];
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* ---- looking ---- */

/* Why a table cannot be maintained where it has to be. */
static void tell_kind(struct shard_work *shard, const struct policy *policy,
                      const struct parent *parent)
{
    struct arena *arena = &shard->arena;
    const char *text = parent->kind == PARENT_MISSING ? "there is no such table"
                       : parent->kind == PARENT_PLAIN ? "it is not partitioned"
                                                      : parent->why;
    work_tell(shard->work, FLEET_FAILED, (int)shard->shard, policy->shown, text,
              parent->kind == PARENT_PLAIN
                  ? arena_printf(arena, "pgshuntctl partition create %s", policy->shown)
                  : arena_printf(arena,
                                 "pgshuntctl partition drop-policy %s, if it is gone for good",
                                 policy->shown));
}

/* Of one table; what is greater than the state's goes into it. `has`: there were rows. */
static bool read_greatest(struct shard_work *shard, const struct policy *policy, const char *table,
                          struct state *state, bool *has)
{
    struct arena *arena = &shard->arena;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error,
                              arena_printf(arena, "SELECT max(%s)::bigint FROM %s",
                                           work_quote(arena, policy->column), table),
                              0);
    *has = rows && !PQgetisnull(rows, 0, 0);
    if (*has) {
        int64_t point = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
        state->point = state->has_point && state->point > point ? state->point : point;
        state->has_point = true;
    }
    PQclear(rows);
    return rows != NULL;
}

/* Partitions that are asked one by one. */
#define LAST_ONES 16

/* The last partition that has rows, and the default one. False: not all could be read, or there are too many without rows. */
static bool read_last(struct shard_work *shard, const struct policy *policy,
                      const struct parent *parent, struct state *state)
{
    bool has = false;
    int asked = 0;
    struct arena *arena = &shard->arena;
    for (int i = parent->nhave - 1; i >= 0 && asked < LAST_ONES; i--) {
        const struct have *have = &parent->have[i];
        if (have->pending)
            continue;
        const char *name = arena_printf(arena, "%s.%s", work_quote(arena, have->schema),
                                        work_quote(arena, have->name));
        if (!read_greatest(shard, policy, name, state, &has))
            return false;
        if (has && !have->is_default)
            return true;
        asked++;
    }
    return asked < LAST_ONES;
}

/* The greatest id. Only the last partitions are read for it, which matters where no index begins with the column. */
static bool read_point(struct shard_work *shard, const struct policy *policy,
                       const struct parent *parent, struct state *state)
{
    bool has;
    return read_last(shard, policy, parent, state) ||
           read_greatest(shard, policy, policy->quoted, state, &has) ||
           work_fails(shard->work, (int)shard->shard, policy->shown,
                      "cannot read its greatest number", &shard->error);
}

static struct state summary(const struct parent *parent)
{
    struct state state = {.good = true, .nhave = parent->nhave};
    for (int i = 0; i < parent->nhave; i++)
        state.pending |= parent->have[i].pending;
    if (parent->nhave && parent->have[parent->nhave - 1].is_default) {
        state.has_default = true;
        state.marked = parent->have[parent->nhave - 1].marked;
        state.nhave--;
    }
    if (state.nhave) {
        state.first_from = parent->have[0].range.from;
        state.first_to = parent->have[0].range.to;
        state.last_to = parent->have[state.nhave - 1].range.to;
    }
    return state;
}

static void note_parent(struct shard_work *shard, const struct policy *policy,
                        const struct parent *parent, struct state *state)
{
    const struct maintain *maintain = shard->task;
    enum place place = work_place(shard->work, policy->schema, policy->table, shard->shard);
    if (place == PLACE_NONE || (place == PLACE_MAY && parent->kind != PARENT_GOOD))
        return;
    if (parent->kind == PARENT_GOOD && !parent->unreadable) {
        *state = summary(parent);
        if (policy->control == CONTROL_ID && !read_point(shard, policy, parent, state))
            state->good = false;
    } else if (!maintain->looking && parent->kind == PARENT_GOOD)
        work_tell(shard->work, FLEET_FAILED, (int)shard->shard, policy->shown,
                  "it has partitions whose bounds are of another kind than its policy says",
                  "pgshuntctl partition drop-policy, then adopt it anew");
    else if (!maintain->looking)
        tell_kind(shard, policy, parent);
}

/* What was not looked at before the time was up is not come to. */
static void look_task(struct shard_work *shard)
{
    const struct maintain *maintain = shard->task;
    int first;
    if (!maintain->looking)
        expire_leftovers(shard, false);
    for (first = 0; first < maintain->npolicies && work_goes_on(shard->work); first += BATCH) {
        struct parent parents[BATCH];
        int count = min_int(BATCH, maintain->npolicies - first);
        if (!look_parents(shard, maintain->policies + first, count, parents)) {
            work_fails(shard->work, (int)shard->shard, NULL, "cannot read the catalogs",
                       &shard->error);
            return;
        }
        for (int i = 0; i < count; i++)
            note_parent(shard, &maintain->policies[first + i], &parents[i],
                        state_of(maintain, first + i, shard->shard));
        arena_reset(&shard->arena);
    }
    if (first < maintain->npolicies && work_late(shard->work))
        work_tell(shard->work, FLEET_FAILED, (int)shard->shard, NULL,
                  arena_printf(&shard->arena,
                               "the time of the run is up: %d tables were not come to",
                               maintain->npolicies - first),
                  "the next run goes on with them");
}

/* ---- what is to be there ---- */

/* The greatest id of all shards; where there are no rows, the policy's start. */
static int64_t present_id(struct maintain *maintain, int policy, int64_t start)
{
    bool has = false;
    int64_t greatest = 0;
    for (int i = 0; i < maintain->work->database->nshards; i++) {
        const struct state *state = state_of(maintain, policy, (unsigned)i);
        if (state->has_point && (!has || state->point > greatest))
            greatest = state->point;
        has |= state->has_point;
    }
    return has || start == BOUND_MOST ? greatest : start;
}

/*
 * From where on partitions are to be there: from the end of those of the shard that has the fewest, so that one which was
 * away gets what the others have. A shard without any gets all of them.
 */
static int64_t begin_of(const struct maintain *maintain, int policy, int64_t start)
{
    int64_t first = BOUND_MOST, last = BOUND_MOST;
    bool empty = false;
    for (int i = 0; i < maintain->work->database->nshards; i++) {
        const struct state *state = state_of(maintain, policy, (unsigned)i);
        empty |= state->good && !state->nhave;
        if (!state->good || !state->nhave)
            continue;
        first = state->first_from < first ? state->first_from : first;
        last = state->last_to < last ? state->last_to : last;
    }
    int64_t begin = first == BOUND_MOST ? start : empty || maintain->whole ? first : last;
    if (maintain->whole && start < begin)
        begin = start;
    return begin == BOUND_LEAST ? BOUND_MOST : begin;
}

static void find_aim(struct maintain *maintain, int i)
{
    struct work *work = maintain->work;
    const struct policy *policy = &maintain->policies[i];
    int64_t start;
    maintain->aims[i] = (struct aim){.cells = NULL};
    if (aim_start(work, policy, &start) &&
        !aim_take(work, policy, present_id(maintain, i, start), begin_of(maintain, i, start),
                  &maintain->aims[i]))
        maintain->aims[i].cells = NULL;
    if (maintain->has_line)
        maintain->aims[i].line = maintain->line;
}

void maintain_look(struct maintain *maintain)
{
    struct work *work = maintain->work;
    int shards = work->database->nshards;
    maintain->states = arena_array(&work->arena, struct state, maintain->npolicies * shards);
    maintain->aims = arena_array(&work->arena, struct aim, maintain->npolicies);
    work_on_shards(work, look_task, maintain);
    for (int i = 0; i < maintain->npolicies && !work_stopped(work); i++)
        find_aim(maintain, i);
}

/* ---- doing ---- */

/* Cells that have not expired; behind the shard's last partition, unless all are to be there. */
static int cells_for(const struct maintain *maintain, const struct aim *aim,
                     const struct state *state, struct cell *cells)
{
    int count = 0;
    bool all = maintain->whole || !state->nhave;
    for (int i = 0; i < aim->ncells; i++)
        if (aim->cells[i].range.to > aim->line && (all || aim->cells[i].range.to > state->last_to))
            cells[count++] = aim->cells[i];
    return count;
}

static bool has_missing(const struct maintain *maintain, const struct aim *aim,
                        const struct state *state)
{
    return !maintain->has_line && aim->ncells &&
           (maintain->whole || !state->nhave ||
            state->last_to < aim->cells[aim->ncells - 1].range.to);
}

static void count_up(struct work *work, int *counter, int more)
{
    pthread_mutex_lock(&work->telling);
    *counter += more;
    pthread_mutex_unlock(&work->telling);
}

static bool look_one(struct shard_work *shard, const struct policy *policy, struct parent *parent)
{
    return (look_parents(shard, policy, 1, parent) && parent->kind == PARENT_GOOD) ||
           (work_stopped(shard->work) ? false
                                      : work_fails(shard->work, (int)shard->shard, policy->shown,
                                                   "cannot read its partitions", &shard->error));
}

static void make_missing(struct shard_work *shard, const struct policy *policy,
                         const struct aim *aim, const struct state *state)
{
    struct parent parent;
    struct arena *arena = &shard->arena;
    if (!look_one(shard, policy, &parent))
        return;
    int count;
    struct cell *cells = arena_array(arena, struct cell, aim->ncells + 1);
    int ncells = cells_for(shard->task, aim, state, cells);
    const struct wanted *wanted =
        plan_missing(cells, ncells, parent.have, parent.nhave, arena, &count);
    count_up(shard->work, &shard->work->made,
             make_partitions(shard, policy, &parent, aim, wanted, count));
    if (policy->has_default && !state->has_default && !shard->work->call->fleet.dry_run &&
        !make_default(shard, policy, &parent))
        return; /* told */
}

static void finish_pending(struct shard_work *shard, const struct policy *policy)
{
    struct parent parent;
    if (look_one(shard, policy, &parent))
        expire_pending(shard, policy, &parent);
}

static void expire_old(struct shard_work *shard, const struct policy *policy, const struct aim *aim)
{
    struct parent parent;
    if (look_one(shard, policy, &parent))
        count_up(shard->work, &shard->work->expired,
                 expire_partitions(shard, policy, &parent, aim->line));
}

enum step { STEP_PENDING, STEP_MAKE, STEP_EXPIRE, STEPS };

static bool has_to(const struct shard_work *shard, enum step step, int policy)
{
    const struct maintain *maintain = shard->task;
    const struct aim *aim = &maintain->aims[policy];
    const struct state *state = state_of(maintain, policy, shard->shard);
    bool wants_default = maintain->policies[policy].has_default && !state->has_default;
    if (!state->good)
        return false;
    if (step == STEP_PENDING)
        return state->pending;
    if (step == STEP_MAKE)
        return has_missing(maintain, aim, state) ||
               ((wants_default || state->marked) && !maintain->has_line);
    return (!shard->work->clocks_differ || maintain->has_line) && state->nhave && aim->cells &&
           state->first_to <= aim->line;
}

static void do_step(struct shard_work *shard, enum step step, int i)
{
    const struct maintain *maintain = shard->task;
    const struct policy *policy = &maintain->policies[i];
    if (step == STEP_PENDING)
        finish_pending(shard, policy);
    else if (step == STEP_MAKE)
        make_missing(shard, policy, &maintain->aims[i], state_of(maintain, i, shard->shard));
    else
        expire_old(shard, policy, &maintain->aims[i]);
    arena_reset(&shard->arena);
}

static void tell_left(struct shard_work *shard, const int left[STEPS])
{
    static const char *const what[STEPS] = {
        "tables have partitions whose detaching is not finished",
        "tables want for new partitions",
        "tables have partitions that have expired",
    };
    for (int step = 0; step < STEPS; step++)
        if (left[step])
            work_tell(shard->work, FLEET_FAILED, (int)shard->shard, NULL,
                      arena_printf(&shard->arena, "the time of the run is up: %d more %s",
                                   left[step], what[step]),
                      "the next run goes on with them");
}

/*
 * Everything is made before anything is taken away: what waits there keeps nothing from being made. When the time is up, what
 * is left is only counted.
 */
static void do_task(struct shard_work *shard)
{
    const struct maintain *maintain = shard->task;
    int left[STEPS] = {0};
    for (enum step step = 0; step < STEPS; step++) {
        if (step == STEP_EXPIRE && work_goes_on(shard->work))
            expire_leftovers(shard, true);
        for (int i = 0; i < maintain->npolicies && !work_stopped(shard->work); i++) {
            if (!has_to(shard, step, i))
                continue;
            if (work_late(shard->work))
                left[step]++;
            else
                do_step(shard, step, i);
        }
    }
    tell_left(shard, left);
}

void maintain_do(struct maintain *maintain)
{
    work_on_shards(maintain->work, do_task, maintain);
}

/* ---- the commands ---- */

static bool begin(struct work *work, const struct partition_call *call, struct maintain *maintain)
{
    struct policy *policies;
    *maintain = (struct maintain){.work = work};
    if (!work_begin(work, call))
        return false;
    if (!policy_read(work, &policies, &maintain->npolicies))
        return work_fails(work, -1, NULL, "cannot read the policies", &work->error);
    maintain->policies = policies;
    if (call->table && !maintain->npolicies) {
        work_tell(work, FLEET_FAILED, -1, call->table, "it has no policy",
                  "pgshuntctl partition create, or adopt");
        return false;
    }
    if (call->fleet.dry_run)
        return true;
    /* Another proxy may have made the run between our look at the schedule and our lock. */
    return work_lock(work) && (!call->schedule || schedule_is_due(work, call->schedule));
}

static const char *outcome_name(const struct work *work)
{
    return work_stopped(work) ? "stopped"
           : !work->failed    ? "done"
           : work_late(work)  ? "out of time"
                              : "failed";
}

/* The history, for people and for metrics; of the last thousand runs. */
static void record_run(struct work *work)
{
    struct db_error ignored;
    char made[16], expired[16], failed[16];
    snprintf(made, sizeof made, "%d", work->made);
    snprintf(expired, sizeof expired, "%d", work->expired);
    snprintf(failed, sizeof failed, "%d", work->failed);
    if (!db_run(
            work->catalog, WORK_QUERY_MS, &ignored,
            "WITH old AS (DELETE FROM pgshunt.partition_run WHERE database = $1 AND id <= (SELECT "
            "max(id) FROM pgshunt.partition_run) - 1000) INSERT INTO pgshunt.partition_run "
            "(database, started_at, finished_at, outcome, made, expired, failed) VALUES ($1, "
            "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()), "
            "clock_timestamp(), $2, $3, $4, $5)",
            5, work->database->name, outcome_name(work), made, expired, failed))
        work_tell(work, FLEET_NOTE, -1, NULL, "the run could not be recorded", NULL);
}

enum fleet_outcome partition_maintain(const struct partition_call *call)
{
    struct work work;
    struct maintain maintain;
    if (begin(&work, call, &maintain)) {
        maintain_look(&maintain);
        failpoint("partition_looked");
        maintain_do(&maintain);
        failpoint("partition_done");
        if (!call->fleet.dry_run && maintain.npolicies && !call->table)
            record_run(&work);
    }
    enum fleet_outcome outcome = work_outcome(&work);
    work_end(&work);
    return outcome;
}

static void expire_before(struct maintain *maintain)
{
    struct work *work = maintain->work;
    maintain_look(maintain);
    if (maintain->aims[0].cells && maintain->line > maintain->aims[0].point)
        work_tell(work, FLEET_PROBLEM, -1, maintain->policies[0].shown,
                  "--before is in the future: rows of the present would go", NULL);
    else
        maintain_do(maintain);
}

enum fleet_outcome partition_expire(const struct partition_call *call, const char *before)
{
    struct work work;
    struct maintain maintain;
    if (begin(&work, call, &maintain)) {
        maintain.has_line = true;
        if (aim_point(&work, &maintain.policies[0], before, &maintain.line))
            expire_before(&maintain);
        else
            work_tell(&work, FLEET_FAILED, -1, maintain.policies[0].shown,
                      WORK_TEXT(&work.arena, "\"%s\" is no value of its column", before),
                      maintain.policies[0].control == CONTROL_ID ? "--before 5000000"
                                                                 : "--before 2026-01-01");
    }
    enum fleet_outcome outcome = work_outcome(&work);
    work_end(&work);
    return outcome;
}
