/*
 * catalog.h: what pgshunt keeps in Postgres: the map of buckets with its epoch, holds, and the proxies that are alive.
 *
 * Tables of schema pgshunt on the catalog shard's primary; docs/internals/resharding.md has them. Each function is one
 * transaction on `db`, a session with that primary that the caller has opened; false: `error` says why and nothing
 * has changed.
 */
#ifndef PGSHUNT_CATALOG_H
#define PGSHUNT_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/config.h"
#include "pgshunt/db.h"
#include "pgshunt/shardmap.h"

/* Buckets first..last of a keyspace, both included. */
struct catalog_range {
    const char *keyspace;
    unsigned first, last;
};

/* Makes the tables where they are missing. */
MUST_CHECK bool catalog_prepare(struct db *db, struct db_error *error);

/*
 * The map of the database as it is now: the configuration's, with the buckets, ghosts, the holds whose lease has time left
 * and the epoch of the catalog laid over it. Epoch 0: nothing is recorded (or there are no tables). The caller frees it.
 */
MUST_CHECK bool catalog_read_map(struct db *db, const struct database_config *database,
                                 struct shardmap **map, struct db_error *error);
/* Writes the buckets of all keyspaces that have none there yet, as the configuration has them; epoch 1 if it was 0. */
MUST_CHECK bool catalog_record_map(struct db *db, const struct database_config *database,
                                   struct db_error *error);

/* ---- holds ---- */

/* Proxies are to keep what touches these buckets; *id: its number. */
MUST_CHECK bool catalog_hold(struct db *db, const char *database, const char *job,
                             const struct catalog_range *ranges, int count, int64_t lease_ms,
                             int64_t *id, struct db_error *error);
MUST_CHECK bool catalog_hold_extend(struct db *db, int64_t id, int64_t lease_ms, bool force,
                                    struct db_error *error);
MUST_CHECK bool catalog_release(struct db *db, int64_t id, struct db_error *error);

struct catalog_proxy {
    const char *id, *host;
    int pid;
    int64_t epoch, hold;
    int busy, held;
    double seen_seconds; /* ago */
};
/* The proxies that are alive, in `arena`. */
MUST_CHECK bool catalog_proxies(struct db *db, const char *database, struct arena *arena,
                                struct catalog_proxy **proxies, int *count, struct db_error *error);
/* What a proxy says of itself; makes or touches its row, and removes those of others that are gone. */
MUST_CHECK bool catalog_proxy_seen(struct db *db, const char *database,
                                   const struct catalog_proxy *self, struct db_error *error);

/* ---- the change of the map ---- */

/* Where buckets are to be. */
struct catalog_move {
    struct catalog_range range;
    const char *source, *target; /* shards */
};
/*
 * The switch's one transaction, for job `job` while its attempt is `attempt` and the hold has at least 1 s of its lease
 * left: the buckets go from source to target (all of them were the source's, else false), ghosts are turned round, epoch + 1
 * must be `epoch`, state `state`, the hold is deleted, and it is announced. False with SQLSTATE 40001: it was not ours any more.
 */
MUST_CHECK bool catalog_flip(struct db *db, const char *database, const char *job,
                             const char *attempt, int64_t hold, const struct catalog_move *moves,
                             int count, int64_t epoch, const char *state, struct db_error *error);
/*
 * Ends a switch that was not finished: job's attempt (if it is still `attempt`) is taken away, its state is `state`
 * again, and the epoch becomes `epoch` (of the guards) if it was less, with every bucket where it was; announced.
 */
MUST_CHECK bool catalog_abort(struct db *db, const char *database, const char *job,
                              const char *attempt, int64_t epoch, const char *state,
                              struct db_error *error);
/* A shard has ghost rows of a keyspace from now on, or none any more; announced. */
MUST_CHECK bool catalog_set_ghost(struct db *db, const char *database, const char *keyspace,
                                  const char *shard, const char *job, bool has,
                                  struct db_error *error);

#endif
