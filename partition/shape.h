/*
 * shape.h: a plain table rebuilt as a partitioned one of the same name, or the other way about, with all that belongs to it: defaults, identity, sequences,
 * keys, checks, foreign keys, indexes, statistics, triggers, row security, privileges, comments, publications.
 */
#ifndef PGSHUNT_PARTITION_SHAPE_H
#define PGSHUNT_PARTITION_SHAPE_H

#include "partition/look.h"

/*
 * Everything that keeps the table from becoming a partitioned one on this shard, told as problems with what mends it: rows in it,
 * keys without the column, other tables' foreign keys, views. False: something does, or could not be looked at.
 */
MUST_CHECK bool shape_check(struct shard_work *shard, const struct policy *policy,
                            const struct parent *parent);
/* One transaction's statements that do it, if the table is still empty then. NULL: the shard's error. */
const char *shape_statements(struct shard_work *shard, const struct policy *policy,
                             const struct parent *parent);
/* ... and that make a plain table of a partitioned one, with its rows. NULL: the shard's error. */
const char *shape_plain_statements(struct shard_work *shard, const struct policy *policy,
                                   const struct parent *parent);

#endif
