/* sequence_plan.h: when sequences of several shards never give the same number, and what makes them so. Pure. */
#ifndef PGSHUNT_FLEET_SEQUENCE_PLAN_H
#define PGSHUNT_FLEET_SEQUENCE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

/* A sequence on one shard. */
struct sequence_state {
    bool exists;
    int64_t increment, last, min, max;
    bool called; /* `last` was given out; else it is the next */
    bool cycles;
};

enum sequence_verdict {
    SEQUENCE_GOOD,       /* interleaved already */
    SEQUENCE_ALIGN,      /* start[] says where each shard goes on */
    SEQUENCE_MISSING,    /* not on all shards */
    SEQUENCE_DESCENDING, /* these are left alone */
    SEQUENCE_CYCLES,
    SEQUENCE_FULL, /* its type or MAXVALUE has no room */
};

/*
 * Gives a number below `stride` to shards that have none (-1), or one that another shard has too: it stays with
 * the one that it was given to (own[]), the others are copies. False: there are not so many.
 */
bool sequence_numbers(int *numbers, const bool *own, int nshards, int stride);
/* Shard number `number` gives numbers that leave this rest when divided by the stride. */
int64_t sequence_rest(int number, int stride);
/* The next number that it will give, as it is. */
int64_t sequence_next(const struct sequence_state *state);
/*
 * numbers[]: each shard's own number below `stride`. `highest`: the greatest id found in a table that uses
 * the sequence. Fills start[] for SEQUENCE_ALIGN: above all that was given or found anywhere.
 */
enum sequence_verdict sequence_plan(const struct sequence_state *states, const int *numbers,
                                    int nshards, int stride, int64_t highest, int64_t *start);

#endif
