/* plan.c: partitions that are there laid beside those that are wanted. */
#include "partition/plan.h"

#include <stdlib.h>

static int by_range(const void *a, const void *b)
{
    const struct have *one = a, *other = b;
    if (one->is_default != other->is_default)
        return one->is_default - other->is_default;
    return (one->range.from > other->range.from) - (one->range.from < other->range.from);
}

void plan_sort(struct have *have, int count)
{
    if (count)
        qsort(have, (size_t)count, sizeof *have, by_range);
}

static int ranged(const struct have *have, int nhave)
{
    return nhave && have[nhave - 1].is_default ? nhave - 1 : nhave;
}

const struct wanted *plan_missing(const struct cell *cells, int ncells, const struct have *have,
                                  int nhave, struct arena *arena, int *count)
{
    struct wanted *wanted = arena_array(arena, struct wanted, ncells + nhave + 1);
    int ranges = ranged(have, nhave);
    *count = 0;
    for (int i = 0; i < ncells; i++) {
        int64_t from = cells[i].range.from, to = cells[i].range.to;
        for (int j = 0; j <= ranges && from < to; j++) {
            int64_t next = j < ranges && have[j].range.from < to ? have[j].range.from : to;
            if (j < ranges && have[j].range.to <= from)
                continue;
            if (from < next)
                wanted[(*count)++] = (struct wanted){
                    .range = {from, next},
                    .begin = cells[i].begin,
                    .whole = from == cells[i].range.from && next == cells[i].range.to,
                };
            from = j < ranges && have[j].range.from < to ? have[j].range.to : to;
        }
    }
    return wanted;
}

bool plan_has_expired(const struct have *have, int nhave, int which, int64_t line)
{
    return which < ranged(have, nhave) - 1 && have[which].range.to <= line &&
           have[which].range.to != BOUND_MOST;
}

const struct bound_range *plan_gaps(const struct have *have, int nhave, struct arena *arena,
                                    int *count)
{
    struct bound_range *gaps = arena_array(arena, struct bound_range, nhave + 1);
    *count = 0;
    for (int i = 1; i < ranged(have, nhave); i++)
        if (have[i - 1].range.to < have[i].range.from)
            gaps[(*count)++] = (struct bound_range){have[i - 1].range.to, have[i].range.from};
    return gaps;
}

int64_t plan_covered_to(const struct have *have, int nhave, int64_t point)
{
    for (int i = 0; i < ranged(have, nhave); i++)
        if (have[i].range.from <= point && point < have[i].range.to && !have[i].pending)
            point = have[i].range.to;
    return point;
}
