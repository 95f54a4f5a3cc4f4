/*
 * plan.h: what is to be made and what has expired, from what a table has and what its policy wants. Pure.
 */
#ifndef PGSHUNT_PARTITION_PLAN_H
#define PGSHUNT_PARTITION_PLAN_H

#include "partition/bound.h"
#include "pgshunt/arena.h"

/* A partition that is there. */
struct have {
    const char *schema, *name;
    const char *oid;
    struct bound_range range; /* of the default partition: nothing */
    bool is_default;
    bool pending; /* its DETACH CONCURRENTLY was interrupted */
    bool marked;  /* the default partition: a guard (guard.h) is on it */
};

/* A step of the grid, and what its partition's name is made from. */
struct cell {
    struct bound_range range;
    int64_t begin; /* local, or the number */
};

/* A piece of a cell that no partition has: all of it, but where other widths were in use before. */
struct wanted {
    struct bound_range range;
    int64_t begin;
    bool whole;
};

/* By their ranges; the default partition comes last. */
void plan_sort(struct have *have, int count);
/* What is missing of the cells, in order, in an array of `arena`. `have` is sorted. */
const struct wanted *plan_missing(const struct cell *cells, int ncells, const struct have *have,
                                  int nhave, struct arena *arena, int *count);
/*
 * Whether have[which] holds only values below `line`, and may go: the last partition of a table always stays, so does
 * the default one.
 */
bool plan_has_expired(const struct have *have, int nhave, int which, int64_t line);
/* The holes between partitions, from the first one's end to the last one's begin. */
const struct bound_range *plan_gaps(const struct have *have, int nhave, struct arena *arena,
                                    int *count);
/* Up to where values have a partition from `point` on, without a hole; `point` itself: it has none. */
int64_t plan_covered_to(const struct have *have, int nhave, int64_t point);

#endif
