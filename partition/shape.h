/*
 * shape.h: a plain table rebuilt as a partitioned one of the same name, or the other way about, with all that belongs to it: defaults, identity, sequences,
 * keys, checks, foreign keys, indexes, statistics, triggers, row security, privileges, comments, publications.
 */
#ifndef PGSHUNT_PARTITION_SHAPE_H
#define PGSHUNT_PARTITION_SHAPE_H

#include "partition/look.h"

/* The new table's name while both are there: TABLE and this, as name_of() has it. */
#define SHAPE_NEW "_pgshunt_new"

/* For shape_check(). */
#define SHAPE_FULL 1   /* rows may be in it; views, and other tables' foreign keys, are seen to */
#define SHAPE_EXTEND 2 /* its primary key gets the column */

/*
 * Everything that keeps the table from becoming a partitioned one on this shard, told as problems with what mends it: rows in it,
 * keys without the column, other tables' foreign keys, views. False: something does, or could not be looked at.
 */
MUST_CHECK bool shape_check(struct shard_work *shard, const struct policy *policy,
                            const struct parent *parent, int ways);
/* One transaction's statements that do it, if the table is still empty then. NULL: the shard's error. */
const char *shape_statements(struct shard_work *shard, const struct policy *policy,
                             const struct parent *parent);
/* ... and that make a plain table of a partitioned one, with its rows. NULL: the shard's error. */
const char *shape_plain_statements(struct shard_work *shard, const struct policy *policy,
                                   const struct parent *parent);
/*
 * Some of these statements, by the numbers of their steps, from <= step < to: 10 the new table, 11 its serial columns' sequences, 12
 * identity, 13 where that stands; 21 the name; 22 and on what only one of the two can have. NULL: the shard's error.
 */
const char *shape_steps(struct shard_work *shard, const struct policy *policy,
                        const struct parent *parent, const char *from, const char *to);

#endif
