/*
 * expire.h: partitions that go: detached, then dropped, kept, moved to another schema or exported to a file.
 *
 *   attached --(1) recorded in pgshunt.partition_leaving of its shard--> (2) detached --> (3) dropped, moved, exported (export.h), or left
 *            --> (4) struck out
 *
 * A run that was killed between these is finished by the next: what is recorded and still attached stays (its policy may be
 * another now), what is half detached or detached is finished.
 */
#ifndef PGSHUNT_PARTITION_EXPIRE_H
#define PGSHUNT_PARTITION_EXPIRE_H

#include "partition/look.h"

/* Finishes what killed runs have left on the shard: `late` what is to be exported, else all but that. Failures are told. */
void expire_leftovers(struct shard_work *shard, bool late);
/* Detachings of this parent that were interrupted, by whomever: inserts into their range fail until they are finished. */
void expire_pending(struct shard_work *shard, const struct policy *policy, struct parent *parent);
/* All partitions of the parent with values below `line` only. Returns how many have gone; the rest is told. */
int expire_partitions(struct shard_work *shard, const struct policy *policy, struct parent *parent,
                      int64_t line);

#endif
