/*
 * fence.h: writers kept out of a shard's tables: a short lock, the guard that stays behind it, markers in the WAL.
 *
 *   fence_open --fence_lock--> locked --fence_guard--> guarded --fence_commit--> writers of old epochs are refused
 *                                |                        |
 *                                +------fence_close-------+--> as before
 *
 * A lock that stops writers stops autovacuum too, and waits for one at work until that is told to yield, after
 * deadlock_timeout: it is asked for with a short one where the role may set it. Nobody waits behind the request for
 * longer than FENCE_LOCK_MS: it is given up then, and made again.
 */
#ifndef PGSHUNT_RESHARDER_FENCE_H
#define PGSHUNT_RESHARDER_FENCE_H

#include "resharder/resharder.h"
#include "resharder/tables.h"

#define FENCE_LOCK_MS 50

struct fence;

/* A session of its own with the shard's primary. `tables` must outlive it. NULL: reshard->error. */
struct fence *fence_open(struct reshard *reshard, unsigned shard, const struct move_tables *tables);
void fence_close(struct fence *fence); /* NULL is ignored */
enum fence_result { FENCE_LOCKED, FENCE_BLOCKED, FENCE_FAILED };
/* Tries until `until` (db_clock_ms). BLOCKED: reshard->error says by whom; with `force` they have been terminated once. */
enum fence_result fence_lock(struct fence *fence, int64_t until, bool force);
/* Within the lock: writes of sessions whose pgshunt.epoch is less are refused as soon as it is committed. */
MUST_CHECK bool fence_guard(struct fence *fence, int64_t epoch);
MUST_CHECK bool fence_commit(struct fence *fence);

/* Writes a marker behind all that was committed on the shard before. */
MUST_CHECK bool fence_mark(struct reshard *reshard, unsigned shard, const char *marker);
/* Takes away the guards of these tables whose epoch is not above `epoch`: later ones are of somebody who has taken
 * the job over. Where a lock is not to be had soon, the rest stays: false. */
#define FENCE_ALL INT64_MAX
MUST_CHECK bool fence_lift(struct reshard *reshard, unsigned shard,
                           const struct move_tables *tables, int64_t epoch);

#endif
