/*
 * work.h: what the engine's functions share: a call at work, its catalog, its shards, telling.
 *
 * Shards are worked on at once, each by a thread with a session and an arena of its own; telling is under a lock. A shard that
 * cannot be reached is told, and keeps the others from nothing.
 */
#ifndef PGSHUNT_PARTITION_WORK_H
#define PGSHUNT_PARTITION_WORK_H

#include <pthread.h>

#include "pgshunt/db.h"
#include "pgshunt/error.h"
#include "pgshunt/partition.h"
#include "pgshunt/primary.h"
#include "pgshunt/shardmap.h"

#define WORK_QUERY_MS 600000

struct work {
    const struct partition_call *call;
    struct arena arena;
    const struct database_config *database;
    struct shardmap *map;  /* as the catalog has it */
    struct db *catalog;    /* the catalog shard's primary; not for threads */
    int64_t now;           /* an instant: microseconds since 2000-01-01 00:00 UTC */
    int64_t until;         /* of db_clock_ms(): when its time is up; 0: never */
    bool clocks_differ;    /* ... of which this host has another idea: nothing expires */
    struct db_error error; /* of what failed last on the catalog */

    bool *away; /* shards that could not be reached: told once, and not tried again */

    pthread_mutex_t telling; /* the members below, and the callback */
    bool changed;
    int problems, failed;
    int made, expired; /* partitions, of all shards */
};

/* Whether a shard has to have a table: of a sharded one, those that may have rows of it. */
enum place { PLACE_NONE, PLACE_MAY, PLACE_MUST };

/* One shard at work. */
struct shard_work {
    struct work *work;
    unsigned shard;
    struct db *db; /* NULL: it could not be reached */
    struct arena arena;
    struct db_error error;
    void *task; /* of the function that the threads run */
};

#define WORK_TEXT(arena, ...) arena_printf((arena), __VA_ARGS__)

/* Opens the catalog and finds out what time it is. False: told why. End it in any case. */
MUST_CHECK bool work_begin(struct work *work, const struct partition_call *call);
void work_end(struct work *work);
enum fleet_outcome work_outcome(const struct work *work);
bool work_stopped(const struct work *work);
/* Its time is up: nothing is begun any more, and what is left is told. */
bool work_late(const struct work *work);
/* Neither of both. */
bool work_goes_on(const struct work *work);
/* `ms`, or what is left of its time. */
int64_t work_limit(const struct work *work, int64_t ms);
/* `shard`: -1: none. Safe in threads. */
void work_tell(struct work *work, enum fleet_event_kind kind, int shard, const char *object,
               const char *text, const char *mend);
/* Tells an error as a failure of `what`. Always false. */
bool work_fails(struct work *work, int shard, const char *object, const char *what,
                const struct db_error *error);
/* How long our sessions wait for a lock, in milliseconds. */
int work_lock_timeout(const struct work *work);
/* A session with the shard's primary, with the engine's own settings. NULL: error. */
struct db *work_open(struct work *work, unsigned shard, struct db_error *error);
/*
 * Runs `task` for each shard in a thread of its own, with a session; shards that cannot be reached are told as failures, the first
 * time. Returns when all are done.
 */
void work_on_shards(struct work *work, void (*task)(struct shard_work *shard), void *arg);
enum place work_place(const struct work *work, const char *schema, const char *table,
                      unsigned shard);
/* One run at a time for a database; false: told who is at it, but to a scheduled run. It ends with the session. */
MUST_CHECK bool work_lock(struct work *work);
/* Whether it could be had at once; $1: the database's name. */
extern const char work_lock_sql[];
/* "name", with its quotes doubled. */
const char *work_quote(struct arena *arena, const char *name);

#endif
