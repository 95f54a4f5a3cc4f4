/*
 * lag.h: how far behind a primary a replica is, from the history of the primary's WAL positions.
 *
 * Pure: the caller brings the clock. One history per primary; each sample is the time its query was
 * *sent* with two positions read by that query:
 *
 *   insert   end of all WAL reserved. Whatever was acknowledged to a client before the sample was sent
 *            ends at or before it, also with synchronous_commit = off (where the record need not be
 *            written yet). A replica that has replayed past it holds all that: freshness is exact.
 *   flushed  end of all WAL on the primary's disk, the most a replica can have. Time and byte lag are
 *            measured against it, because records nobody waits for (hint bits, pruning) may stay
 *            unflushed for seconds on an idle primary: against `insert` its replicas would seem to lag.
 *
 * A history is bounded without an end to what it remembers: samples with equal positions are one entry,
 * and when the table is full its older entries are merged so that resolution is a share of their age.
 */
#ifndef PGSHUNT_PROXY_LAG_H
#define PGSHUNT_PROXY_LAG_H

#include <stddef.h>
#include <stdint.h>

#define LAG_CAPACITY 4096

struct lag_entry {
    int64_t first; /* when the first sample with these positions was sent */
    int64_t last;  /* when the latest one was */
    uint64_t insert;
    uint64_t flushed;
};

struct lag_history {
    struct lag_entry *entries; /* LAG_CAPACITY, oldest first; both positions never fall */
    size_t count;
};

/* What a replayed position means. */
struct lag {
    int64_t lag_us;      /* -1: unknown. A lower bound if the replica is behind all history */
    int64_t lag_bytes;   /* -1: unknown */
    int64_t fresh_as_of; /* all that was committed before this moment is replayed; 0: unknown */
};

void lag_init(struct lag_history *history);
void lag_free(struct lag_history *history);
/* Forgets everything: another timeline, whose positions mean something else. */
void lag_reset(struct lag_history *history);

/* A sample not older than those before. Positions that fall (a crash lost WAL) start a new history. */
void lag_add_sample(struct lag_history *history, int64_t sent_us, uint64_t insert,
                    uint64_t flushed);
/* Unknown while there is no sample. */
struct lag lag_of(const struct lag_history *history, uint64_t replayed, int64_t now_us);

/*
 * The lag that limits are compared with, so that a replica at its limit does not come and go with every
 * sample: once over a limit it counts as over it until it is at 3/4 of it or less. `held` is what this
 * said last; either may be -1, unknown. One number does for all limits: those a replica is over are
 * always the ones below it.
 */
int64_t lag_hold(int64_t held, int64_t lag_us);

/*
 * The insert position of a primary whose last record ended exactly at a page's end points behind the
 * next page's header, where nothing is; a replica that has everything stands at the page's end. This
 * takes the header off. Sizes as pg_control_init() tells them; 0: unknown, position unchanged.
 */
uint64_t lag_skip_page_header(uint64_t insert, uint32_t page_size, uint64_t segment_size);

#endif
