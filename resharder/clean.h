/*
 * clean.h: taking away what jobs have made: rows that a shard does not own, slots, publications, origins, guards.
 *
 * All of it may be killed and repeated: what is gone already counts as taken away.
 */
#ifndef PGSHUNT_RESHARDER_CLEAN_H
#define PGSHUNT_RESHARDER_CLEAN_H

#include "resharder/fence.h"
#include "resharder/job.h"
#include "resharder/tables.h"

/* Removes one recorded thing and strikes it out. Kinds it does not know are left. False: reshard->error. */
MUST_CHECK bool clean_object(struct reshard *reshard, const struct job *job,
                             const struct job_object *object);
/* All of the job's objects of these kinds (NULL ends them), slots at first: they keep WAL. */
MUST_CHECK bool clean_objects(struct reshard *reshard, const struct job *job,
                              const char *const *kinds);
/* A slot that is read from is let go of by ending who reads. */
MUST_CHECK bool clean_slot(struct db *db, const char *name, struct db_error *error);

/* ---- clear.c ---- */

/*
 * Deletes the rows of the moves' buckets from shard `shard`, which does not own them, in small transactions: first by
 * the ghost keys, then whatever else a look at all keys finds; at last the ghost keys themselves. `rate`: WAL bytes a second, 0: no limit.
 */
MUST_CHECK bool clear_shard(struct reshard *reshard, const struct moves *moves, unsigned shard,
                            int64_t rate);
/* Deletes what has come from `source` to this table of `target`, while nothing of it counts there; ghost keys stay. */
MUST_CHECK bool clear_table(struct reshard *reshard, unsigned source, unsigned target,
                            const struct move_table *table);
/* Forgets the ghost keys of the moves' buckets there, which the shard owns. */
MUST_CHECK bool clear_ghost_keys(struct reshard *reshard, const struct moves *moves,
                                 unsigned shard);

#endif
