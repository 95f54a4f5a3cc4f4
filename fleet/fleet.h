/*
 * fleet.h: what the engines of this folder share: connections with the primary of every shard.
 *
 *   fleet.c           connects, transactions on all shards, telling
 *   sequences.c       interleaved sequences
 *   sequence_plan.c   what is to be done to one: pure
 *   id_functions.c    what is installed on every shard
 *   reference.c       copies of reference tables: check and repair
 *   reference_rows.c  which rows of them differ
 *   drift.c           schemas compared
 *   drift_queries.c   ... what of them
 *   lookup.c          lookups: create, verify, drop
 *   lookup_shard.c    what one is made of on a shard
 *   lookup_unique.c   whether its values are unique over all shards
 */
#ifndef PGSHUNT_FLEET_FLEET_H
#define PGSHUNT_FLEET_FLEET_H

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/fleet.h"
#include "pgshunt/primary.h"
#include "pgshunt/shardmap.h"

#define FLEET_CONNECT_MS PRIMARY_CONNECT_MS
#define FLEET_QUERY_MS 600000 /* of a large table's checksums */

struct fleet_shard {
    const char *name;
    struct db *db; /* with its primary */
};

struct fleet {
    const struct fleet_request *request;
    struct arena arena;
    const struct database_config *database;
    struct shardmap *map;
    struct fleet_shard *shards;
    int nshards;
    bool changed;         /* something was done */
    int problems, failed; /* so often told */
    struct db_error error;
};

#define FLEET_TEXT(fleet, ...) arena_printf(&(fleet)->arena, __VA_ARGS__)

/* False: told why. Close it in any case. */
bool fleet_open(struct fleet *fleet, const struct fleet_request *request, const char *application);
void fleet_close(struct fleet *fleet);
/* What comes of it all, when it was looked at or done to the end. */
enum fleet_outcome fleet_outcome(const struct fleet *fleet);
void fleet_tell(struct fleet *fleet, enum fleet_event_kind kind, int shard, const char *object,
                const char *text, const char *mend);
/* Tells fleet->error as a failure. Always false. */
bool fleet_fails(struct fleet *fleet, int shard, const char *object, const char *what);
/* One statement, its text parameters behind; the caller clears the result. NULL: fleet->error. */
#define fleet_query(fleet, shard, ...)                                                             \
    db_query((fleet)->shards[shard].db, FLEET_QUERY_MS, &(fleet)->error, __VA_ARGS__)
#define fleet_run(fleet, shard, ...)                                                               \
    db_run((fleet)->shards[shard].db, FLEET_QUERY_MS, &(fleet)->error, __VA_ARGS__)
/* The same text on all shards at once. False: *shard is the one that failed. */
bool fleet_run_all(struct fleet *fleet, const char *sql, int *shard);
void fleet_rollback_all(struct fleet *fleet);
/* One field of a result, copied; NULL: an SQL NULL. */
const char *fleet_text(struct fleet *fleet, const PGresult *rows, int row, int column);
/* The only value of a query; NULL: none, or it failed (fleet->error). */
const char *fleet_value(struct fleet *fleet, int shard, const char *sql);
/* Whether it was told to stop. */
bool fleet_stopped(const struct fleet *fleet);

#endif
