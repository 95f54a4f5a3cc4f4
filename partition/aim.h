/*
 * aim.h: what a table's partitions are to be at this moment: the steps of the grid that are to be there, and the line below which
 * what is there has expired.
 *
 * Computed once for all shards, so that all get the same, whatever zone tables their servers have.
 */
#ifndef PGSHUNT_PARTITION_AIM_H
#define PGSHUNT_PARTITION_AIM_H

#include "partition/plan.h"
#include "partition/policy.h"

/* No table is given more at once. */
#define AIM_CELLS_MAX 20000

struct aim {
    const struct cell *cells;
    int ncells;
    const struct cell *
        subs; /* of SUB_RANGE: narrower steps, from the first cell's beginning to the last one's end */
    int nsubs;
    int64_t point; /* the present: the moment, or the greatest id */
    int64_t line;  /* values below have expired; BOUND_LEAST: none have */
};

/*
 * `point`: of ids the greatest that there is; of times it is not used. The cells reach from the one that has `from` (a point;
 * BOUND_MOST: the present one) to policy->ahead cells beyond the present. False: told why.
 */
MUST_CHECK bool aim_take(struct work *work, const struct policy *policy, int64_t point,
                         int64_t from, struct aim *aim);
/* The policy's --start as a point; BOUND_MOST: it has none. */
MUST_CHECK bool aim_start(struct work *work, const struct policy *policy, int64_t *point);
/* A moment that a user has written ("2026-03-01", a number) as a point of this policy. */
MUST_CHECK bool aim_point(struct work *work, const struct policy *policy, const char *text,
                          int64_t *point);
/* Points as the calendar of the policy's zone has them, in place. */
MUST_CHECK bool aim_locals(struct work *work, const struct policy *policy, int64_t *points,
                           int count);
/* Points as people read them, in the policy's zone, to the second (or day, where all are whole days). texts[i] in the
 * arena. */
MUST_CHECK bool aim_show(struct work *work, const struct policy *policy, const int64_t *points,
                         int count, const char **texts);

#endif
