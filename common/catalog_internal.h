/* catalog_internal.h: what the catalog's parts share: transactions, and how its changes are announced. */
#ifndef PGSHUNT_CATALOG_INTERNAL_H
#define PGSHUNT_CATALOG_INTERNAL_H

#include "pgshunt/catalog.h"

#define CATALOG_MS 10000
#define CATALOG_LOCK "7741936514602252"
#define CATALOG_CHANNEL "pgshunt_map"

/* A transaction of several statements; lock waits are short. */
bool catalog_begin(struct db *db, struct db_error *error);
/* Commits it if `done`, else rolls it back: `error` stays what it was. False: it is not committed. */
bool catalog_end(struct db *db, bool done, struct db_error *error);
/* In a transaction: the map of the database has changed. */
bool catalog_announce(struct db *db, const char *database, struct db_error *error);
/* Sets the error. */
void catalog_refuse(struct db_error *error, const char *sqlstate, const char *text);
/* The owners of all buckets of one keyspace in pgshunt.bucket instead of those that are there. `owners`: the name of each bucket's shard. */
bool catalog_write_owners(struct db *db, const char *database, const char *keyspace,
                          const char *const *owners, unsigned count, struct db_error *error);

/* ---- changes of the map, one after another ---- */

/* Carried out within the transaction; *changed: the epoch has to be raised. */
typedef bool catalog_changer(struct db *db, const char *database, const void *arg, bool *changed,
                             struct db_error *error);
/* One transaction, under the map's lock: what has changed is announced, with a new epoch. */
bool catalog_change(struct db *db, const char *database, const char *job, catalog_changer *change,
                    const void *arg, struct db_error *error);
/* ... which is the last step of a job's attempt, as of catalog_flip(). */
struct catalog_attempt {
    const char *job, *attempt, *state;
    int64_t hold, epoch;
};
bool catalog_finish_attempt(struct db *db, const char *database,
                            const struct catalog_attempt *attempt, catalog_changer *change,
                            const void *arg, struct db_error *error);
/* The shard has ghost rows for the job, or none any more. */
bool catalog_write_ghost(struct db *db, const char *database, const char *keyspace,
                         const char *shard, const char *job, bool has, bool *changed,
                         struct db_error *error);

/* ---- tables ---- */

/* Lays what is recorded of tables over the map. False: it names a keyspace that is not there. */
bool catalog_lay_tables(struct shardmap *map, const struct catalog_map *recorded,
                        struct db_error *error);

#endif
