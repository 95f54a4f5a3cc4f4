/* create.c: policies begun, changed and ended: the table is looked at everywhere before anything is done. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/attempt.h"
#include "partition/create.h"
#include "partition/make.h"
#include "partition/shape.h"
#include "pgshunt/failpoint.h"

/* ---- looking ---- */

static const char *keep_text(struct work *work, const char *text)
{
    return text ? arena_strdup(&work->arena, text) : NULL;
}

/* What outlives the shard's arena. */
static void keep_parent(struct work *work, const struct parent *found, struct parent *kept)
{
    pthread_mutex_lock(&work->telling);
    *kept = *found;
    kept->oid = keep_text(work, found->oid);
    kept->column = keep_text(work, found->column);
    kept->type = keep_text(work, found->type);
    pthread_mutex_unlock(&work->telling);
}

static void look_task(struct shard_work *shard)
{
    struct creating *creating = shard->task;
    struct parent parent;
    if (!look_parents(shard, &creating->policy, 1, &parent))
        work_fails(shard->work, (int)shard->shard, creating->policy.shown, "cannot look at it",
                   &shard->error);
    else
        keep_parent(shard->work, &parent, &creating->parents[shard->shard]);
}

static bool must_be_on(const struct creating *creating, int shard)
{
    return work_place(&creating->work, creating->policy.schema, creating->policy.table,
                      (unsigned)shard) == PLACE_MUST;
}

/* The first shard that has the table, where it has to be; -1: none. */
int creating_first(const struct creating *creating)
{
    for (int i = 0; i < creating->work.database->nshards; i++)
        if (must_be_on(creating, i) && creating->parents[i].kind != PARENT_MISSING)
            return i;
    return -1;
}

void creating_problem(struct creating *creating, int shard, const char *text, const char *mend)
{
    work_tell(&creating->work, FLEET_PROBLEM, shard, creating->policy.shown, text, mend);
}

bool creating_look(struct creating *creating)
{
    struct work *work = &creating->work;
    int failed = work->failed;
    creating->parents = arena_array(&work->arena, struct parent, work->database->nshards);
    for (int i = 0; i < work->database->nshards; i++)
        creating->parents[i].kind = PARENT_MISSING;
    work_on_shards(work, look_task, creating);
    if (work->failed > failed || work_stopped(work))
        return false;
    for (int i = 0; i < work->database->nshards; i++)
        if (must_be_on(creating, i) && creating->parents[i].kind == PARENT_MISSING)
            creating_problem(creating, i, "there is no such table",
                             "CREATE TABLE it through pgshunt first");
    return work->problems == 0;
}

/* ---- what is wrong ---- */

/* Its kind is the same on all shards, and the column fit. */
void creating_check(struct creating *creating, bool adopting)
{
    struct work *work = &creating->work;
    for (int i = 0; i < work->database->nshards; i++) {
        const struct parent *parent = &creating->parents[i];
        if (parent->kind == PARENT_OTHER)
            creating_problem(creating, i, parent->why,
                             "only tables partitioned by ranges of one column are maintained");
        else if (parent->kind == PARENT_PLAIN && adopting)
            creating_problem(creating, i, "it is not partitioned", "pgshuntctl partition create");
        else if (parent->kind == PARENT_PLAIN && !creating->policy.column)
            creating_problem(creating, i, "it is not said by which column", "--by created_at");
        else if (parent->kind == PARENT_PLAIN && !parent->column)
            creating_problem(
                creating, i,
                WORK_TEXT(&work->arena, "it has no column %s", creating->policy.column),
                "--by takes the name of a column as it is in the catalogs");
    }
}

bool creating_control(struct creating *creating)
{
    struct work *work = &creating->work;
    const struct parent *parent = &creating->parents[creating_first(creating)];
    creating->policy.column = parent->column;
    if (!control_of_type(parent->type, creating->wish->key, &creating->policy.control)) {
        creating_problem(
            creating, -1,
            WORK_TEXT(&work->arena, "column %s is of type %s%s%s", parent->column, parent->type,
                      creating->wish->key ? ", which is not --key " : "",
                      creating->wish->key ? creating->wish->key : ""),
            "partitions are by timestamptz, timestamp, date, integers (--key id, seconds, "
            "milliseconds, microseconds), uuid (version 7), or text (--key text, ulid)");
        return false;
    }
    bool text =
        creating->policy.control == CONTROL_TEXT || creating->policy.control == CONTROL_ULID;
    if (text && parent->collated)
        creating_problem(creating, -1, "its text is not ordered by its bytes",
                         WORK_TEXT(&work->arena, "ALTER TABLE %s ALTER %s TYPE text COLLATE \"C\"",
                                   creating->policy.quoted,
                                   work_quote(&work->arena, parent->column)));
    return true;
}

static bool check_template(struct shard_work *shard, struct creating *creating)
{
    const struct policy *policy = &creating->policy;
    struct arena *arena = &shard->arena;
    PGresult *rows = db_query(shard->db, WORK_QUERY_MS, &shard->error,
                              "SELECT to_regclass($1) IS NOT NULL", 1, policy->template);
    bool has = rows && PQgetvalue(rows, 0, 0)[0] == 't';
    if (!rows)
        work_fails(shard->work, (int)shard->shard, policy->shown, "cannot look for its template",
                   &shard->error);
    else if (!has)
        work_tell(shard->work, FLEET_PROBLEM, (int)shard->shard, policy->shown,
                  arena_printf(arena, "the template table %s is not there", policy->template),
                  arena_printf(arena,
                               "CREATE TABLE %s (LIKE %s) on every shard, with what "
                               "partitions are to have",
                               policy->template, policy->quoted));
    PQclear(rows);
    return has;
}

static void check_task(struct shard_work *shard)
{
    struct creating *creating = shard->task;
    const struct parent *parent = &creating->parents[shard->shard];
    if (parent->kind == PARENT_MISSING ||
        work_place(shard->work, creating->policy.schema, creating->policy.table, shard->shard) ==
            PLACE_NONE)
        return;
    if (creating->policy.template && !check_template(shard, creating))
        creating->clear = false;
    if (parent->kind == PARENT_PLAIN && !shape_check(shard, &creating->policy, parent, 0))
        creating->clear = false;
}

static void divide_task(struct shard_work *shard)
{
    struct creating *creating = shard->task;
    const struct policy *policy = &creating->policy;
    const struct parent *parent = &creating->parents[shard->shard];
    enum place place = work_place(shard->work, policy->schema, policy->table, shard->shard);
    if (place == PLACE_NONE || (parent->kind != PARENT_PLAIN && parent->kind != PARENT_GOOD))
        return;
    if (!make_may_divide(shard, policy, parent))
        creating->clear = false;
}

bool creating_may_divide(struct creating *creating)
{
    if (creating->policy.sub.kind != SUB_NONE)
        work_on_shards(&creating->work, divide_task, creating);
    return creating->clear && !work_stopped(&creating->work);
}

/* ---- what an interrupted call has left ---- */

/* One of those that the policy wants, and called as they are. */
static bool is_ours(const struct creating *creating, const struct have *have)
{
    char name[NAME_SIZE];
    const struct policy *policy = &creating->policy;
    const struct aim *aim = &creating->aim;
    if (have->is_default) {
        make_default_name(policy, name);
        return policy->has_default && strcmp(have->name, name) == 0;
    }
    for (int i = 0; i < aim->ncells; i++)
        if (aim->cells[i].range.from == have->range.from &&
            aim->cells[i].range.to == have->range.to) {
            name_of(policy->table, policy->format, &policy->every, aim->cells[i].begin, name);
            return strcmp(have->name, name) == 0;
        }
    return false;
}

static void ours_task(struct shard_work *shard)
{
    struct creating *creating = shard->task;
    struct parent parent;
    bool ours = true;
    if (creating->parents[shard->shard].kind != PARENT_GOOD)
        return;
    if (!look_parents(shard, &creating->policy, 1, &parent)) {
        work_fails(shard->work, (int)shard->shard, creating->policy.shown, "cannot look at it",
                   &shard->error);
        return;
    }
    for (int i = 0; i < parent.nhave; i++)
        ours &= is_ours(creating, &parent.have[i]);
    if (!ours || parent.unreadable)
        creating_problem(creating, (int)shard->shard, "it has partitions already",
                         "pgshuntctl partition adopt takes over what is there");
}

static bool is_kind(const struct creating *creating, enum parent_kind kind)
{
    for (int i = 0; i < creating->work.database->nshards; i++) {
        const struct parent *parent = &creating->parents[i];
        if (parent->kind == kind && must_be_on(creating, i) &&
            (kind == PARENT_PLAIN || parent->nhave))
            return true;
    }
    return false;
}

/* Partitions that are there already are to be those that an interrupted call has made; where some shard is not that far, they are. */
static void check_ours(struct creating *creating)
{
    struct maintain maintain = {.work = &creating->work,
                                .policies = &creating->policy,
                                .npolicies = 1,
                                .looking = true,
                                .whole = true};
    if (is_kind(creating, PARENT_PLAIN) || !is_kind(creating, PARENT_GOOD))
        return;
    maintain_look(&maintain);
    creating->aim = maintain.aims[0];
    work_on_shards(&creating->work, ours_task, creating);
}

/* ---- doing ---- */

/* So many partitions are made with the table: nobody can use it meanwhile, and waits for each. */
#define FIRST_MOST 8

/* The present one and those ahead, which rows may come for at once. */
static int first_wanted(const struct aim *aim, struct wanted wanted[FIRST_MOST])
{
    int count = 0;
    for (int i = 0; i < aim->ncells && count < FIRST_MOST; i++)
        if (aim->cells[i].range.to > aim->point)
            wanted[count++] = (struct wanted){aim->cells[i].range, aim->cells[i].begin, true};
    return count;
}

static void reshape_told(struct shard_work *shard, struct parent *parent,
                         const struct wanted *wanted, int count)
{
    struct creating *creating = shard->task;
    struct work *work = shard->work;
    work_tell(work, FLEET_DONE, (int)shard->shard, creating->policy.shown,
              "made it a partitioned table", NULL);
    int made = make_first_told(shard, &creating->policy, parent, wanted, count);
    pthread_mutex_lock(&work->telling);
    work->made += made;
    pthread_mutex_unlock(&work->telling);
}

static void reshape_task(struct shard_work *shard)
{
    struct creating *creating = shard->task;
    struct parent *parent = &creating->parents[shard->shard];
    const struct policy *policy = &creating->policy;
    struct wanted wanted[FIRST_MOST];
    const char *oids;
    if (parent->kind != PARENT_PLAIN ||
        work_place(shard->work, policy->schema, policy->table, shard->shard) == PLACE_NONE)
        return;
    int count = first_wanted(&creating->aim, wanted);
    const char *first =
        make_first_text(shard, policy, parent, &creating->aim, wanted, count, &oids);
    const char *shape = first ? shape_statements(shard, policy, parent) : NULL;
    failpoint("partition_reshaping");
    if (!shape || !attempt(shard, arena_printf(&shard->arena, "%s%s", shape, first), oids)) {
        if (!first)
            return; /* told */
        if (strcmp(shard->error.sqlstate, "42P07") == 0)
            snprintf(shard->error.hint, sizeof shard->error.hint,
                     "a partition is to be called that: rename or drop what has its name");
        work_fails(shard->work, (int)shard->shard, policy->shown,
                   "cannot make it a partitioned table", &shard->error);
        return;
    }
    failpoint("partition_reshaped");
    reshape_told(shard, parent, wanted, count);
}

static void plan_reshape(struct creating *creating)
{
    for (int i = 0; i < creating->work.database->nshards; i++)
        if (creating->parents[i].kind == PARENT_PLAIN && must_be_on(creating, i))
            work_tell(&creating->work, FLEET_PLANNED, i, creating->policy.shown,
                      "make it a partitioned table", NULL);
}

/* What is to be made, where the table is not one with partitions yet. False: told why it cannot be. */
static bool plan_cells(struct creating *creating)
{
    struct work *work = &creating->work;
    struct aim *aim = &creating->aim;
    int64_t start;
    if (!aim_start(work, &creating->policy, &start) ||
        !aim_take(work, &creating->policy, start == BOUND_MOST ? 0 : start, start, aim))
        return false;
    int64_t ends[2] = {aim->cells[0].range.from, aim->cells[aim->ncells - 1].range.to};
    const char *texts[2];
    if (!work->call->fleet.dry_run)
        return true;
    if (aim_show(work, &creating->policy, ends, 2, texts))
        work_tell(work, FLEET_PLANNED, -1, creating->policy.shown,
                  WORK_TEXT(&work->arena,
                            "make %d partitions from %s to %s on every shard that has it",
                            aim->ncells, texts[0], texts[1]),
                  NULL);
    return true;
}

void creating_maintain(struct creating *creating)
{
    struct maintain maintain = {.work = &creating->work,
                                .policies = &creating->policy,
                                .npolicies = 1,
                                .whole = creating->whole};
    maintain_look(&maintain);
    maintain_do(&maintain);
}

void creating_record(struct creating *creating)
{
    struct work *work = &creating->work;
    if (!policy_write(work, &creating->policy)) {
        work_fails(work, -1, creating->policy.shown, "cannot record the policy", &work->error);
        return;
    }
    failpoint("partition_policy");
    work_tell(work, FLEET_DONE, -1, creating->policy.shown, "recorded its policy", NULL);
    creating_maintain(creating);
}

static void carry_out(struct creating *creating)
{
    struct work *work = &creating->work;
    if (work->call->fleet.dry_run)
        plan_reshape(creating);
    if (!plan_cells(creating) || work->call->fleet.dry_run)
        return;
    int failed = work->failed;
    work_on_shards(work, reshape_task, creating);
    if (work_stopped(work))
        return;
    if (work->failed == failed)
        creating_record(creating);
    else /* no row may find a table without partitions; the next call makes the others partitioned */
        creating_maintain(creating);
}

/* ---- the commands ---- */

bool creating_begin(struct creating *creating, const struct partition_call *call,
                    const struct partition_wish *wish, bool wants_policy)
{
    struct policy *policies;
    int count;
    struct work *work = &creating->work;
    *creating = (struct creating){.wish = wish, .clear = true};
    if (!work_begin(work, call) || (!call->fleet.dry_run && !work_lock(work)))
        return false;
    if ((!call->fleet.dry_run && !policy_prepare(work)) || !policy_read(work, &policies, &count))
        return work_fails(work, -1, NULL, "cannot read the policies", &work->error);
    policy_name(work, call->table, &creating->policy);
    if (!call->fleet.dry_run && !policy_may_write(work, creating->policy.shown))
        return false;
    if (wants_policy && count)
        creating->policy = policies[0];
    if (wants_policy == (count > 0))
        return true;
    work_tell(work, FLEET_FAILED, -1, creating->policy.shown,
              count ? "it has a policy" : "it has no policy",
              count ? "pgshuntctl partition alter changes it, drop-policy ends it"
                    : "pgshuntctl partition create, or adopt");
    return false;
}

enum fleet_outcome creating_end(struct creating *creating)
{
    enum fleet_outcome outcome = work_outcome(&creating->work);
    work_end(&creating->work);
    return outcome;
}

enum fleet_outcome partition_create(const struct partition_call *call,
                                    const struct partition_wish *wish)
{
    struct creating creating;
    if (!creating_begin(&creating, call, wish, false))
        return creating_end(&creating);
    creating.policy.column = wish->by;
    if (!creating_look(&creating))
        return creating_end(&creating);
    creating_check(&creating, false);
    if (creating.work.problems == 0 && creating_control(&creating) &&
        policy_apply(&creating.work, wish, &creating.policy)) {
        creating.whole = true;
        work_on_shards(&creating.work, check_task, &creating);
        check_ours(&creating);
        if (creating_may_divide(&creating) && !creating.work.problems && !creating.work.failed)
            carry_out(&creating);
    }
    return creating_end(&creating);
}

enum fleet_outcome partition_alter(const struct partition_call *call,
                                   const struct partition_wish *wish)
{
    struct creating creating;
    if (creating_begin(&creating, call, wish, true) &&
        policy_apply(&creating.work, wish, &creating.policy) &&
        (!wish->sub || (creating_look(&creating) && creating_may_divide(&creating)))) {
        if (call->fleet.dry_run)
            creating_maintain(&creating);
        else
            creating_record(&creating);
    }
    return creating_end(&creating);
}

enum fleet_outcome partition_drop_policy(const struct partition_call *call)
{
    struct creating creating;
    struct work *work = &creating.work;
    if (!creating_begin(&creating, call, NULL, true))
        return creating_end(&creating);
    if (call->fleet.dry_run)
        work_tell(work, FLEET_PLANNED, -1, creating.policy.shown,
                  "forget its policy; the table stays as it is", NULL);
    else if (policy_remove(work, &creating.policy))
        work_tell(work, FLEET_DONE, -1, creating.policy.shown,
                  "it has no policy any more, and stays as it is", NULL);
    else
        work_fails(work, -1, creating.policy.shown, "cannot remove its policy", &work->error);
    return creating_end(&creating);
}
