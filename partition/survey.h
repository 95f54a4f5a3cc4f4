/* survey.h: everything that all shards have of all tables with policies, for people and for monitoring. */
#ifndef PGSHUNT_PARTITION_SURVEY_H
#define PGSHUNT_PARTITION_SURVEY_H

#include "partition/maintain.h"

/* What one shard has of one table. */
struct found {
    bool known; /* the shard could be asked */
    enum parent_kind kind;
    const char *why;
    struct have *have;
    int nhave;
    int64_t *bytes; /* of each, with its indexes; 0: of SURVEY_CARE */
    double *rows;   /* as the statistics have them; -1: not known */
    int64_t default_rows;
    int bare_indexes;     /* of the parent, that a partition has no part of */
    int *parts;           /* of each: that it is divided into */
    int bare_parts;       /* partitions that are divided, and want for some of their parts */
    int other_privileges; /* partitions that grant something else than the parent */
};

/* What is looked at besides bounds and default partitions. */
enum survey_kind {
    SURVEY_CARE,  /* indexes and privileges; no sizes */
    SURVEY_ABOUT, /* sizes, as they were when the server last counted pages: cheap, however many partitions there are */
    SURVEY_EXACT, /* sizes, measured */
};

/* default_rows are counted up to here. */
#define SURVEY_ROWS_MAX 1000000

/* `found`: of table policies[which], one per shard; it and work's arena are good until `use` returns. */
typedef void survey_fn(void *arg, int which, const struct found *found);

/* Looks at all tables, some at a time, and hands each to `use`. Failures are told. */
void survey_each(struct work *work, const struct policy *policies, int count, enum survey_kind kind,
                 survey_fn *use, void *arg);

#endif
