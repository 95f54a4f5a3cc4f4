/* plan_internal.h: what the parts of planning share: a wish and what comes of it. */
#ifndef PGSHUNT_RESHARDER_PLAN_INTERNAL_H
#define PGSHUNT_RESHARDER_PLAN_INTERNAL_H

#include "resharder/plan.h"

/* A bucket that leaves a busy shard. */
struct plan_hot {
    unsigned keyspace, bucket, target;
};

struct planning {
    struct shardmap *map;
    const struct reshard_wish *wish;
    struct arena *arena;
    struct db_error *error;
    unsigned nshards;
    const unsigned *configured;
    bool *added, *drained; /* by shard */
    int64_t *said;         /* weights that the wish says; -1: none */
    bool shares;           /* the wish is (also) about shares */
    bool *chosen;          /* keyspaces, by number */
    unsigned nbuckets;     /* of one keyspace, */
    uint16_t *owners;      /* ... and whose they are to be */
    struct plan_hot *hot;  /* for --split-hot */
    int nhot;
    struct move *items;
    int count, room;
};

/* Sets the error. Always false. */
bool plan_wrong(struct planning *g, const char *hint, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool plan_find_shard(struct planning *g, const char *name, unsigned *shard);
/* Digits, and nothing else up to `end`. */
bool plan_read_number(const char *text, const char *end, int64_t most, int64_t *number);
/* Values and intervals that are to move alone get buckets of their own. */
bool plan_split(struct planning *g);
/* --split-hot: finds what is to move. */
bool plan_heat(struct planning *g);
/* The moves that are asked for, of one keyspace, into `owners`. */
bool plan_apply_moves(struct planning *g, int index);

#endif
