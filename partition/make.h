/* make.h: partitions made on a shard. */
#ifndef PGSHUNT_PARTITION_MAKE_H
#define PGSHUNT_PARTITION_MAKE_H

#include "partition/aim.h"
#include "partition/look.h"

/*
 * Makes what is wanted of the parent's partitions, each in a transaction of its own: a table like the parent (or like the
 * policy's template), attached when it is ready, so that the parent is never locked against reads or writes. Rows of the default
 * partition that belong there are moved in the same transaction. Everything is told, with a dry run as what would be done.
 * `aim`: what partitions are divided by is in it. Returns how many were made. What fails is told and does not keep the others from being made.
 */
int make_partitions(struct shard_work *shard, const struct policy *policy, struct parent *parent,
                    const struct aim *aim, const struct wanted *wanted, int count);
/* Makes the default partition. False: told why. */
MUST_CHECK bool make_default(struct shard_work *shard, const struct policy *policy,
                             struct parent *parent);
/*
 * Everything that keeps partitions from being divided as the policy says, told as problems: keys without the column, values that are none
 * of its. It is tried out, and undone. False: something does.
 */
MUST_CHECK bool make_may_divide(struct shard_work *shard, const struct policy *policy,
                                const struct parent *parent);
void make_default_name(const struct policy *policy, char name[NAME_SIZE]);
/*
 * Statements that make the first partitions of a plain table, and its default one where the policy wants it, behind those that make
 * a partitioned table of it, in the same transaction: each begins with a semicolon. What cannot be made is left out, for
 * make_partitions() to tell. `*oids`: of the tables whose locks are wanted. NULL: told why.
 */
const char *make_first_text(struct shard_work *shard, const struct policy *policy,
                            struct parent *plain, const struct aim *aim,
                            const struct wanted *wanted, int count, const char **oids);
/* Tells that they were made. Returns how many. */
int make_first_told(struct shard_work *shard, const struct policy *policy, struct parent *plain,
                    const struct wanted *wanted, int count);

#endif
