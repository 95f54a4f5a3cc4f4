/*
 * switch.h: the moment when buckets change their owner: the switch, and the rollback, which is one the other way round.
 *
 *   repair -> ready -> hold -> lock -> marker -> sequences -> guard -> flip -> follow
 *                       |-------- undone when it fails --------|        |-- completed
 *
 * docs/internals/resharding.md has the steps and what a crash leaves at each.
 */
#ifndef PGSHUNT_RESHARDER_SWITCH_H
#define PGSHUNT_RESHARDER_SWITCH_H

#include "resharder/fence.h"
#include "resharder/job.h"
#include "resharder/streams.h"

/* A shard that loses buckets. */
struct turn_source {
    unsigned shard;
    struct move_tables tables;
    struct fence *fence; /* owned */
};

/* A shard's sequences that another one has to be ahead of. */
struct turn_sequences {
    unsigned source, target;
    const char *read, *set; /* statements; NULL: none */
};

struct turn {
    struct reshard *reshard;
    struct job *job;
    int64_t max_pause_ms, drain_ms;
    bool force;
    enum job_state before, during, after;
    struct moves moves; /* from who owns the buckets to who will */
    const struct link *links;
    int nlinks;
    struct turn_source *sources;
    int nsources;
    struct turn_sequences *sequences; /* one per link */
    struct job_lock *lock;            /* where nobody runs the job: then it is us, */
    struct streams *streams;          /* ... and these are its streams */
    int64_t hold;                     /* 0: none */
    int64_t held_at;                  /* db_clock_ms() */
    bool guarded;                     /* a guard is committed somewhere */
};

/* ---- switch_fence.c: what is done while writers wait ---- */

/* Everything that can be prepared before: sessions, statements, the guard's function. */
MUST_CHECK bool turn_prepare(struct turn *turn);
/* Tables that are there and not streamed, for they were made since the job began: told as problems. True: some. */
bool turn_has_new_tables(struct turn *turn);
enum fence_result turn_lock(struct turn *turn);
/* A marker on every source, applied on every target before `until` (db_clock_ms). */
MUST_CHECK bool turn_mark(struct turn *turn, const char *marker, int64_t until);
MUST_CHECK bool turn_set_sequences(struct turn *turn);
MUST_CHECK bool turn_guard(struct turn *turn);
void turn_unlock(struct turn *turn);

/* ---- switch_hold.c: proxies keep the statements that concern what moves ---- */

MUST_CHECK bool turn_hold(struct turn *turn);
/* Until all that are alive keep them and nothing from before runs. Those that do not answer are told of and left
 * to the guard. False: reshard->error. */
MUST_CHECK bool turn_drain(struct turn *turn);
/* Waits a while for the proxies to have the new map. */
void turn_follow(struct turn *turn);

#endif
