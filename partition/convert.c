/* convert.c: tables with rows made partitioned ones on all shards, beside those who use them; begun, gone on with, ended. */
#include "partition/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pgshunt/failpoint.h"

#define LOCK "77419367"
#define RECORD_WAIT_MS 600000

static void problem(struct convert *convert, int shard, const char *text, const char *mend)
{
    creating_problem(&convert->creating, shard, text, mend);
}

/* ---- beginning and end ---- */

/* One call at a time for a table; other commands, and maintenance, go on. */
static bool lock_table(struct convert *convert)
{
    struct work *work = &convert->creating.work;
    const char *name =
        WORK_TEXT(&work->arena, "%s %s", work->database->name, convert->creating.policy.quoted);
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              "SELECT pg_try_advisory_lock(" LOCK ", hashtext($1))", 1, name);
    bool locked = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (rows && !locked)
        work_tell(work, FLEET_FAILED, -1, convert->creating.policy.shown,
                  "another command is converting it", "wait for its end, and call this again");
    else if (!rows)
        work_fails(work, -1, convert->creating.policy.shown, "cannot lock", &work->error);
    PQclear(rows);
    return locked;
}

/* Finds the table and how far it is on every shard. `*policies`: whether it has a policy. */
static bool convert_begin(struct convert *convert, const struct partition_call *call,
                          const struct partition_wish *wish, bool *has_policy)
{
    struct creating *creating = &convert->creating;
    struct work *work = &creating->work;
    struct policy *policies;
    int count;
    creating->wish = wish;
    if (!work_begin(work, call))
        return false;
    policy_name(work, call->table, &creating->policy);
    creating->policy.column = wish ? wish->by : NULL;
    if (!call->fleet.dry_run && !lock_table(convert))
        return false;
    if ((!call->fleet.dry_run && !policy_prepare(work)) || !policy_read(work, &policies, &count))
        return work_fails(work, -1, creating->policy.shown, "cannot read the policies",
                          &work->error);
    *has_policy = count > 0;
    convert->states = arena_array(&work->arena, struct convert_state, work->database->nshards);
    memset(convert->states, 0, sizeof *convert->states * (size_t)work->database->nshards);
    if (!creating_look(creating))
        return false;
    work_on_shards(work, convert_look_task, convert);
    return !work->failed && !work->problems && !work_stopped(work);
}

static enum fleet_outcome convert_end(struct convert *convert)
{
    return creating_end(&convert->creating);
}

/* The shards that are at this step; of those that have the table. */
static int count_at(const struct convert *convert, enum convert_step least, enum convert_step most)
{
    int found = 0;
    for (int i = 0; i < convert->creating.work.database->nshards; i++)
        found += convert->states[i].step >= least && convert->states[i].step <= most &&
                 (convert->states[i].here || convert->states[i].step != CONVERT_NONE);
    return found;
}

/* ---- checks ---- */

static void check_kind(struct convert *convert, int i)
{
    const struct parent *parent = &convert->creating.parents[i];
    struct arena *arena = &convert->creating.work.arena;
    if (parent->kind == PARENT_OTHER)
        problem(convert, i, parent->why, "only plain tables are converted");
    else if (parent->kind == PARENT_GOOD && convert->states[i].step < CONVERT_SWAPPED)
        problem(convert, i, "it is partitioned already",
                "pgshuntctl partition adopt takes over what is there");
    else if (parent->kind == PARENT_PLAIN && convert->states[i].step >= CONVERT_SWAPPED)
        problem(convert, i, "the old table of a conversion before is kept still",
                "pgshuntctl partition convert --finish drops it");
    else if (!convert->creating.policy.column)
        problem(convert, i, "it is not said by which column", "--by created_at");
    else if (!parent->column)
        problem(convert, i,
                WORK_TEXT(arena, "it has no column %s", convert->creating.policy.column),
                "--by takes the name of a column as it is in the catalogs");
}

/* What was begun is only gone on with the same way. */
static void check_options(struct convert *convert, int i)
{
    const struct convert_state *state = &convert->states[i];
    if (state->step != CONVERT_NONE && strcmp(state->options, convert->options) != 0)
        problem(convert, i,
                WORK_TEXT(&convert->creating.work.arena,
                          "its conversion was begun with other options: %s", state->options),
                "say the same ones, or --cancel it first");
}

static const char *options_text(struct convert *convert, const struct partition_wish *wish)
{
    const struct policy *policy = &convert->creating.policy;
    return WORK_TEXT(
        &convert->creating.work.arena, "--by %s --every %s%s%s --timezone %s%s%s%s%s%s",
        policy->column, wish->every, wish->key ? " --key " : "", wish->key ? wish->key : "",
        policy->timezone, policy->template ? " --template " : "",
        policy->template ? policy->template : "", wish->name_format ? " --name-format " : "",
        wish->name_format ? wish->name_format : "",
        convert->how->extend_key ? " --extend-key" : "");
}

/* Moving buckets and changing the tables that they are of do not go together. */
static bool check_jobs(struct convert *convert)
{
    struct work *work = &convert->creating.work;
    PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                              "SELECT to_regclass('pgshunt.job') IS NOT NULL", 0);
    bool has = rows && PQgetvalue(rows, 0, 0)[0] == 't', asked = rows != NULL;
    PQclear(rows);
    if (has) {
        rows = db_query(work->catalog, WORK_QUERY_MS, &work->error,
                        "SELECT name, state FROM pgshunt.job WHERE database = $1 AND state NOT IN "
                        "('created', 'completed', 'cancelled')",
                        1, work->database->name);
        asked = rows != NULL;
        for (int i = 0; rows && i < PQntuples(rows); i++)
            problem(convert, -1,
                    WORK_TEXT(&work->arena, "resharding is under way: job %s is %s",
                              PQgetvalue(rows, i, 0), PQgetvalue(rows, i, 1)),
                    "complete or cancel it first");
        PQclear(rows);
    }
    return asked || work_fails(work, -1, convert->creating.policy.shown, "cannot read the catalog",
                               &work->error);
}

static bool check(struct convert *convert, const struct partition_wish *wish)
{
    struct creating *creating = &convert->creating;
    struct work *work = &creating->work;
    for (int i = 0; i < work->database->nshards; i++)
        if (convert->states[i].here)
            check_kind(convert, i);
    if (work->problems || !creating_control(creating) ||
        !policy_apply(work, wish, &creating->policy))
        return false;
    convert->options = options_text(convert, wish);
    for (int i = 0; i < work->database->nshards; i++)
        check_options(convert, i);
    if (!check_jobs(convert) || work->problems)
        return false;
    work_on_shards(work, convert_check_task, convert);
    return !work->problems && !work->failed && !work_stopped(work);
}

/* ---- from the first row to the last ---- */

static bool read_point(struct convert *convert, const PGresult *rows, int column, int64_t *point)
{
    return bound_read(convert->creating.policy.control, PQgetvalue(rows, 0, column), point) &&
           *point != BOUND_LEAST;
}

static void points_task(struct shard_work *shard)
{
    struct convert *convert = shard->task;
    struct convert_state *state = &convert->states[shard->shard];
    const struct policy *policy = &convert->creating.policy;
    const char *column = work_quote(&shard->arena, policy->column);
    if (!state->here)
        return;
    PGresult *rows = db_query(
        shard->db, CONVERT_MS, &shard->error,
        arena_printf(
            &shard->arena,
            "SELECT (SELECT %s::text FROM %s WHERE %s IS NOT NULL ORDER BY %s LIMIT 1), (SELECT "
            "%s::text FROM %s WHERE %s IS NOT NULL ORDER BY %s DESC LIMIT 1)",
            column, policy->quoted, column, column, column, policy->quoted, column, column),
        0);
    state->has_rows = rows && !PQgetisnull(rows, 0, 0);
    if (!rows)
        work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look for its first row",
                   &shard->error);
    else if (state->has_rows && (!read_point(convert, rows, 0, &state->least) ||
                                 !read_point(convert, rows, 1, &state->greatest)))
        problem(convert, (int)shard->shard,
                arena_printf(&shard->arena, "it has rows from %s to %s, which are no boundaries",
                             PQgetvalue(rows, 0, 0), PQgetvalue(rows, 0, 1)),
                "correct or delete the rows that are out of all ranges");
    PQclear(rows);
}

static void check_last(struct convert *convert)
{
    const struct aim *aim = &convert->aim;
    int64_t end = aim->cells[aim->ncells - 1].range.to;
    for (int i = 0; i < convert->creating.work.database->nshards; i++)
        if (convert->states[i].has_rows && convert->states[i].greatest >= end &&
            !convert->creating.policy.has_default)
            problem(convert, i, "it has rows beyond the last partition there would be",
                    "more --ahead, or --default on; or delete them");
}

static bool find_aim(struct convert *convert)
{
    struct work *work = &convert->creating.work;
    const struct policy *policy = &convert->creating.policy;
    int64_t from = BOUND_MOST, greatest = INT64_MIN, start;
    work_on_shards(work, points_task, convert);
    if (work->failed || work->problems || work_stopped(work) || !aim_start(work, policy, &start))
        return false;
    for (int i = 0; i < work->database->nshards; i++)
        if (convert->states[i].has_rows) {
            from = convert->states[i].least < from ? convert->states[i].least : from;
            greatest =
                convert->states[i].greatest > greatest ? convert->states[i].greatest : greatest;
        }
    if (from == BOUND_MOST) {
        from = start;
        greatest = start == BOUND_MOST ? 0 : start;
    }
    if (!aim_take(work, policy, greatest, from, &convert->aim))
        return false;
    check_last(convert);
    return !work->problems;
}

static void plan(struct convert *convert)
{
    struct work *work = &convert->creating.work;
    int64_t ends[2] = {convert->aim.cells[0].range.from,
                       convert->aim.cells[convert->aim.ncells - 1].range.to};
    const char *texts[2];
    if (aim_show(work, &convert->creating.policy, ends, 2, texts))
        work_tell(work, FLEET_PLANNED, -1, convert->creating.policy.shown,
                  WORK_TEXT(&work->arena,
                            "make %d partitions from %s to %s on every shard that has it, copy its "
                            "rows, and put the new table in its place",
                            convert->aim.ncells, texts[0], texts[1]),
                  NULL);
}

/* ---- the end ---- */

/* Maintenance may be at it at this moment. */
static bool wait_for_lock(struct work *work)
{
    int64_t until = db_clock_ms() + RECORD_WAIT_MS;
    while (!work_stopped(work)) {
        PGresult *rows = db_query(work->catalog, WORK_QUERY_MS, &work->error, work_lock_sql, 1,
                                  work->database->name);
        bool locked = rows && PQgetvalue(rows, 0, 0)[0] == 't', asked = rows != NULL;
        PQclear(rows);
        if (locked)
            return true;
        if (!asked)
            return work_fails(work, -1, NULL, "cannot lock", &work->error);
        if (db_clock_ms() > until)
            return work_lock(work); /* tells who has it */
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    return false;
}

static void record(struct convert *convert, bool has_policy)
{
    struct work *work = &convert->creating.work;
    if (!wait_for_lock(work))
        return;
    if (!has_policy)
        creating_record(&convert->creating);
    if (!work->failed)
        work_tell(work, FLEET_NOTE, -1, convert->creating.policy.shown,
                  WORK_TEXT(&work->arena,
                            "the old table is kept as it was then: pgshuntctl partition convert %s "
                            "--finish drops it",
                            convert->creating.policy.shown),
                  NULL);
}

static void carry_out(struct convert *convert, bool has_policy)
{
    struct work *work = &convert->creating.work;
    if (count_at(convert, CONVERT_NONE, CONVERT_INDEXED)) {
        if (!find_aim(convert))
            return;
        if (work->call->fleet.dry_run) {
            plan(convert);
            return;
        }
        work_on_shards(work, convert_fill_task, convert);
        if (work->failed || work->problems || work_stopped(work))
            return;
    }
    if (work->call->fleet.dry_run)
        return;
    work_on_shards(work, convert_swap_task, convert);
    if (work->failed || work_stopped(work))
        return;
    failpoint("convert_done");
    record(convert, has_policy);
}

/* ---- the commands ---- */

enum fleet_outcome partition_convert(const struct partition_call *call,
                                     const struct partition_wish *wish,
                                     const struct partition_conversion *how)
{
    struct convert convert = {.how = how};
    bool has_policy = false;
    if (!convert_begin(&convert, call, wish, &has_policy))
        return convert_end(&convert);
    bool begun = count_at(&convert, CONVERT_COPYING, CONVERT_CONVERTED) > 0;
    if (has_policy && !begun)
        problem(&convert, -1, "it has a policy already",
                "pgshuntctl partition alter changes it, drop-policy ends it");
    else if (check(&convert, wish))
        carry_out(&convert, has_policy);
    return convert_end(&convert);
}

static const struct partition_conversion no_conversion;

enum fleet_outcome partition_convert_cancel(const struct partition_call *call)
{
    struct convert convert = {.how = &no_conversion};
    struct work *work = &convert.creating.work;
    bool has_policy;
    if (!convert_begin(&convert, call, NULL, &has_policy))
        return convert_end(&convert);
    if (count_at(&convert, CONVERT_SWAPPED, CONVERT_CONVERTED))
        problem(&convert, -1,
                "it is a partitioned table already, and has rows that the old one has not",
                "pgshuntctl partition convert finishes what is left to do; --finish drops the old "
                "table");
    else if (!count_at(&convert, CONVERT_COPYING, CONVERT_INDEXED))
        problem(&convert, -1, "it is not being converted", NULL);
    else if (call->fleet.dry_run)
        work_tell(work, FLEET_PLANNED, -1, convert.creating.policy.shown,
                  "drop the new table and what logs changes", NULL);
    else
        work_on_shards(work, convert_cancel_task, &convert);
    return convert_end(&convert);
}

enum fleet_outcome partition_convert_finish(const struct partition_call *call)
{
    struct convert convert = {.how = &no_conversion};
    struct work *work = &convert.creating.work;
    bool has_policy;
    if (!convert_begin(&convert, call, NULL, &has_policy))
        return convert_end(&convert);
    int first = creating_first(&convert.creating);
    bool partitioned = first >= 0 && convert.creating.parents[first].kind == PARENT_GOOD;
    if (count_at(&convert, CONVERT_COPYING, CONVERT_SWAPPED) || (partitioned && !has_policy))
        problem(&convert, -1, "it is not converted yet", "pgshuntctl partition convert goes on");
    else if (!count_at(&convert, CONVERT_CONVERTED, CONVERT_CONVERTED))
        problem(&convert, -1, "no old table of it is kept", NULL);
    else if (call->fleet.dry_run)
        for (int i = 0; i < work->database->nshards; i++) {
            if (convert.states[i].step == CONVERT_CONVERTED)
                work_tell(work, FLEET_PLANNED, i, convert.creating.policy.shown,
                          WORK_TEXT(&work->arena, "drop %s", convert.states[i].kept), NULL);
        }
    else
        work_on_shards(work, convert_finish_task, &convert);
    return convert_end(&convert);
}
