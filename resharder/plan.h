/*
 * plan.h: which buckets move, so that a wish comes true with the fewest of them. Pure.
 *
 * Shares are given out by weight as a new map's are, exact to a bucket. What a shard has above its share goes to
 * those below theirs, in ranges as long as they come; nothing else moves. Values of lists and intervals count as they are
 * buckets, however many rows each has.
 */
#ifndef PGSHUNT_RESHARDER_PLAN_H
#define PGSHUNT_RESHARDER_PLAN_H

#include "pgshunt/arena.h"
#include "pgshunt/catalog.h"
#include "pgshunt/db.h"
#include "pgshunt/reshard.h"
#include "resharder/move.h"

/*
 * The moves that the wish takes, in `arena`, by keyspace and bucket. `weights`: of each shard, as configured. Values and
 * parts of intervals that are to move alone get buckets in `map`, which belong to whose they were.
 * False: `error` says what is wrong with the wish. A wish that is fulfilled already is no error: no moves.
 */
MUST_CHECK bool plan_moves(struct shardmap *map, const unsigned *weights,
                           const struct reshard_wish *wish, struct arena *arena,
                           struct moves *moves, struct db_error *error);

#endif
