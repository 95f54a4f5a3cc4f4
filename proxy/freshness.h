/*
 * freshness.h: what a session has written and seen of a shard, and whether a replica may serve its reads.
 *
 * A session never reads a state without its own writes (read-your-writes) nor one older than it has
 * seen (monotonic reads). Nothing is asked of a server for that: it is proven from the monitor's samples.
 * docs/internals/health-and-lag.md has the proofs.
 *
 * Moments are those of the monitor's clock: freshness_now() is the stamp of the newest sample that was
 * sent, so that a sample with a greater stamp was sent later. Reading it costs a load.
 *
 * A *stint* is the time over which the monitor's connection to a replica has held without a break: the
 * server was not started anew in it, so its replayed position has not gone back. Each has a number.
 */
#ifndef PGSHUNT_PROXY_FRESHNESS_H
#define PGSHUNT_PROXY_FRESHNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct node;
struct shard;

/* What a session knows of one shard. */
struct freshness {
    int64_t wrote_at; /* its last write was acknowledged then; 0: none */
    int64_t seen_at;  /* its last read was answered then; 0: none */
    uint32_t seen_on; /* ... by a replica in this stint; 0: by the primary, or none */
    /* Its reads go to the primary since then because no replica was known to be fresh enough, and it has
     * not written meanwhile; 0: they do not. By the worker's clock. */
    int64_t behind_since;
};

/* A place in a shard's WAL. */
struct position {
    int timeline; /* 0: none */
    uint64_t lsn;
};

/* What a replica must have replayed to serve a read. */
struct freshness_need {
    int64_t as_of;            /* all that was committed before; 0: nothing */
    int64_t seen_at;          /* ... and what was replayed until then in the stint */
    uint32_t seen_on;         /* of this number; 0: none */
    struct position position; /* ... and this */
};

extern _Atomic int64_t freshness_clock; /* use freshness_now() */

static inline int64_t freshness_now(void)
{
    return atomic_load_explicit(&freshness_clock, memory_order_seq_cst);
}

/* By the monitor's thread, right before it sends a sample: the sample's stamp, a clock_us() that no
 * other sample has. */
int64_t freshness_stamp(void);
/* By the monitor's thread: the number of a new stint, never 0. */
uint32_t freshness_new_stint(void);

/* A statement was answered, by a replica in what was its stint when the statement was sent (0: by the
 * primary). */
static inline void freshness_saw(struct freshness *freshness, uint32_t stint)
{
    freshness->seen_at = freshness_now();
    freshness->seen_on = stint;
    if (stint)
        freshness->behind_since = 0;
}

static inline bool freshness_needs_nothing(const struct freshness_need *need)
{
    return need->as_of == 0 && need->seen_on == 0 && need->position.timeline == 0;
}

/*
 * Has this replica, whose lag is known, replayed what is needed? *stint is set to the one that is proven
 * for: true holds for a server connection made before the stint's latest sample (freshness_vouches()).
 */
bool freshness_holds(const struct shard *shard, const struct node *node,
                     const struct freshness_need *need, uint32_t *stint);

/*
 * The stint of `node` that a server connection which was ready at `ready_at` is known to belong to; 0:
 * none, or no replica. `before` is what this said of the same connection last.
 */
uint32_t freshness_vouches(const struct node *node, uint32_t before, int64_t ready_at);

#endif
