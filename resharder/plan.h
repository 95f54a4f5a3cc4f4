/*
 * plan.h: which buckets move, so that a wish comes true with the fewest of them. Pure.
 *
 * Shares are given out by weight as a new map's are, exact to a bucket. What a shard has above its share goes to
 * those below theirs, in ranges as long as they come; nothing else moves.
 */
#ifndef PGSHUNT_RESHARDER_PLAN_H
#define PGSHUNT_RESHARDER_PLAN_H

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/reshard.h"
#include "resharder/move.h"

/*
 * The moves that the wish takes, in `arena`, by keyspace and bucket. `weights`: of each shard, as configured.
 * False: `error` says what is wrong with the wish. A wish that is fulfilled already is no error: no moves.
 */
MUST_CHECK bool plan_moves(const struct shardmap *map, const unsigned *weights,
                           const struct reshard_wish *wish, struct arena *arena,
                           struct moves *moves, struct db_error *error);
/* Whether buckets of the keyspace can move; NULL: they can, else why not. */
const char *plan_obstacle(const struct keyspace *keyspace);

#endif
