/* look.h: partitioned tables as one shard has them. */
#ifndef PGSHUNT_PARTITION_LOOK_H
#define PGSHUNT_PARTITION_LOOK_H

#include "partition/plan.h"
#include "partition/policy.h"

enum parent_kind {
    PARENT_GOOD,    /* partitioned by ranges of one column */
    PARENT_MISSING, /* no such table */
    PARENT_PLAIN,   /* a table that is not partitioned */
    PARENT_OTHER,   /* partitioned some other way, or no table: `why` */
};

struct parent {
    enum parent_kind kind;
    const char *why; /* PARENT_OTHER */
    const char *oid;
    const char *column,
        *type; /* what it is partitioned by; PARENT_PLAIN: the policy's column, NULL if there is none */
    int width;         /* of an integer, in bytes */
    bool collated;     /* the column's text is in an order that is not that of its bytes */
    struct have *have; /* sorted */
    int nhave;
    int unreadable; /* partitions whose bounds are not of this kind of column */
};

/*
 * Fills parents[i] for policies[i], in the shard's arena. Only a policy's name, column and control are used. False: the
 * shard's error.
 */
MUST_CHECK bool look_parents(struct shard_work *shard, const struct policy *policies, int count,
                             struct parent *parents);
/* Of the good ones, as an array of SQL. */
const char *look_oids(struct arena *arena, const struct parent *parents, int count);

#endif
