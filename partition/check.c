/* check.c: what is wrong with partitions on any shard, for people and for monitoring. */
#include <stdio.h>
#include <string.h>

#include "partition/survey.h"

struct checking {
    struct work *work;
    const struct policy *policy;
    const struct found *found; /* per shard */
    const struct aim *aim;
};

static void problem(const struct checking *checking, int shard, const char *text, const char *mend)
{
    work_tell(checking->work, FLEET_PROBLEM, shard, checking->policy->shown, text, mend);
}

static const char *maintain_call(const struct checking *checking)
{
    return WORK_TEXT(&checking->work->arena, "pgshuntctl partition maintain %s",
                     checking->policy->shown);
}

static const char *range_text(const struct checking *checking, const struct bound_range *range)
{
    const char *texts[2] = {"?", "?"};
    int64_t points[2] = {range->from, range->to};
    struct work *work = checking->work;
    if (!aim_show(work, checking->policy, points, 2, texts))
        return "";
    return WORK_TEXT(&work->arena, "from %s to %s", texts[0], texts[1]);
}

static void check_ahead(const struct checking *checking, int shard, const struct found *found)
{
    const struct aim *aim = checking->aim;
    struct arena *arena = &checking->work->arena;
    int ahead = 0;
    int64_t until = plan_covered_to(found->have, found->nhave, aim->point);
    for (int i = 0; i < aim->ncells; i++)
        ahead += aim->cells[i].range.from > aim->point && aim->cells[i].range.to <= until;
    if (until == aim->point)
        problem(checking, shard, "no partition takes rows of the present", maintain_call(checking));
    else if (ahead == 0)
        problem(checking, shard, "there is no partition beyond the present one",
                maintain_call(checking));
    else if (ahead < checking->policy->ahead - 1)
        problem(checking, shard,
                arena_printf(arena, "there are %d partitions ahead, and should be %d", ahead,
                             checking->policy->ahead),
                maintain_call(checking));
}

static void check_gaps(const struct checking *checking, int shard, const struct found *found)
{
    int count;
    struct arena *arena = &checking->work->arena;
    const struct bound_range *gaps = plan_gaps(found->have, found->nhave, arena, &count);
    for (int i = 0; i < count; i++)
        problem(checking, shard,
                arena_printf(arena, "no partition takes rows %s", range_text(checking, &gaps[i])),
                "CREATE TABLE ... PARTITION OF, if rows of that time are to come");
}

/* All but one step of what has expired: a run may just be due. */
static void check_expired(const struct checking *checking, int shard, const struct found *found)
{
    int count = 0;
    for (int i = 0; i < found->nhave; i++)
        count += plan_has_expired(found->have, found->nhave, i, checking->aim->line);
    if (count > 1)
        problem(checking, shard,
                WORK_TEXT(&checking->work->arena, "%d partitions have expired and are still there",
                          count),
                maintain_call(checking));
}

static void check_details(const struct checking *checking, int shard, const struct found *found)
{
    struct arena *arena = &checking->work->arena;
    if (found->default_rows)
        problem(checking, shard,
                arena_printf(arena, "%lld%s rows are in the default partition",
                             (long long)found->default_rows,
                             found->default_rows == SURVEY_ROWS_MAX ? " or more" : ""),
                "maintain moves those that belong into partitions it makes; others have a time far "
                "from the present: look at them");
    for (int i = 0; i < found->nhave; i++)
        if (found->have[i].pending)
            problem(checking, shard,
                    arena_printf(arena,
                                 "the detaching of %s was interrupted: inserts into its "
                                 "range fail",
                                 found->have[i].name),
                    maintain_call(checking));
    if (found->bare_indexes)
        problem(
            checking, shard,
            arena_printf(arena, "%d of its indexes are not on all partitions", found->bare_indexes),
            "CREATE INDEX on the partitions that lack it, and ALTER INDEX ... ATTACH PARTITION");
    if (found->bare_parts)
        problem(checking, shard,
                arena_printf(arena,
                             "%d partitions want for some of the parts they are divided into",
                             found->bare_parts),
                "rows that belong there are refused: CREATE TABLE ... PARTITION OF the partition");
    if (found->other_privileges)
        problem(checking, shard,
                arena_printf(arena, "%d partitions grant something else than it does",
                             found->other_privileges),
                "GRANT and REVOKE on the partitions, if they are used by their own names");
}

static bool has_range(const struct found *found, const struct have *have)
{
    for (int i = 0; i < found->nhave; i++)
        if (found->have[i].is_default == have->is_default &&
            found->have[i].range.from == have->range.from &&
            found->have[i].range.to == have->range.to)
            return true;
    return false;
}

/* What the first shard that has the table has, and another has not; and the reverse. */
static void check_alike(const struct checking *checking, int first, int shard)
{
    const struct found *one = &checking->found[first], *other = &checking->found[shard];
    const char *names[2] = {NULL, NULL};
    int missing = 0, more = 0;
    for (int i = 0; i < one->nhave; i++)
        if (!has_range(other, &one->have[i]) && ++missing == 1)
            names[0] = one->have[i].name;
    for (int i = 0; i < other->nhave; i++)
        if (!has_range(one, &other->have[i]) && ++more == 1)
            names[1] = other->have[i].name;
    const char *first_name = checking->work->database->shards[first].name;
    struct arena *arena = &checking->work->arena;
    if (missing)
        problem(checking, shard,
                arena_printf(arena, "%d partitions of %s are not here, %s first", missing,
                             first_name, names[0]),
                maintain_call(checking));
    if (more)
        problem(checking, shard,
                arena_printf(arena, "%d partitions are not on %s, %s first", more, first_name,
                             names[1]),
                maintain_call(checking));
}

static bool check_kind(const struct checking *checking, int shard, const struct found *found)
{
    if (found->kind == PARENT_GOOD)
        return true;
    enum place place = work_place(checking->work, checking->policy->schema, checking->policy->table,
                                  (unsigned)shard);
    if (place == PLACE_MUST)
        problem(checking, shard,
                found->kind == PARENT_MISSING ? "there is no such table"
                : found->kind == PARENT_PLAIN ? "it is not partitioned"
                                              : found->why,
                "pgshuntctl partition drop-policy, if it is gone for good");
    return false;
}

static void check_table(const struct checking *checking)
{
    int first = -1, problems = checking->work->problems;
    for (int i = 0; i < checking->work->database->nshards; i++) {
        const struct found *found = &checking->found[i];
        if (!found->known || !check_kind(checking, i, found))
            continue;
        check_ahead(checking, i, found);
        check_gaps(checking, i, found);
        check_expired(checking, i, found);
        check_details(checking, i, found);
        if (first >= 0)
            check_alike(checking, first, i);
        first = first < 0 ? i : first;
    }
    if (checking->work->problems == problems && !checking->work->failed)
        work_tell(checking->work, FLEET_FACT, -1, checking->policy->shown, "as it should be", NULL);
}

static void check_one(void *arg, int which, const struct found *found)
{
    const struct maintain *maintain = arg;
    check_table(&(struct checking){.work = maintain->work,
                                   .policy = &maintain->policies[which],
                                   .found = found,
                                   .aim = &maintain->aims[which]});
}

static void check(struct work *work)
{
    int count;
    struct policy *policies;
    if (!policy_read(work, &policies, &count)) {
        work_fails(work, -1, NULL, "cannot read the policies", &work->error);
        return;
    }
    if (work->call->table && !count)
        work_tell(work, FLEET_FAILED, -1, work->call->table, "it has no policy",
                  "pgshuntctl partition create, or adopt");
    struct maintain maintain = {
        .work = work, .policies = policies, .npolicies = count, .looking = true};
    maintain_look(&maintain);
    survey_each(work, policies, count, SURVEY_CARE, check_one, &maintain);
}

enum fleet_outcome partition_check(const struct partition_call *call)
{
    struct work work;
    if (work_begin(&work, call))
        check(&work);
    enum fleet_outcome outcome = work_outcome(&work);
    work_end(&work);
    return outcome;
}
