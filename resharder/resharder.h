/*
 * resharder.h: what the engine's functions share: a job at work, its connections, telling.
 */
#ifndef PGSHUNT_RESHARDER_RESHARDER_H
#define PGSHUNT_RESHARDER_RESHARDER_H

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/error.h"
#include "pgshunt/primary.h"
#include "pgshunt/reshard.h"
#include "pgshunt/shardmap.h"
#include "resharder/move.h"

#define RESHARD_QUERY_MS 60000

struct reshard {
    const struct reshard_request *request;
    struct arena arena;
    const struct database_config *database;
    struct shardmap *map;  /* as the catalog has it now; owned */
    struct moves moves;    /* of the job; empty where there is none */
    struct db **primaries; /* one per shard, opened when first asked for; owned */
    unsigned catalog;      /* the catalog's shard */
    bool replicas;         /* who replicates takes a shard's only node as it is: a clone's */
    struct db_error error; /* of what failed last */
};

#define RESHARD_TEXT(reshard, ...) arena_printf(&(reshard)->arena, __VA_ARGS__)

/* Opens the catalog, made and recorded where it is not there yet. False: told why. End it in any case. */
MUST_CHECK bool reshard_begin(struct reshard *reshard, const struct reshard_request *request);
void reshard_end(struct reshard *reshard);
/* The engine's session with a shard's primary: its own timeouts, keepalives, application_name. NULL: error. */
struct db *reshard_primary(struct reshard *reshard, unsigned shard);
/* ... with the catalog shard's. */
struct db *reshard_catalog(struct reshard *reshard);
/* Another one, the caller's to close (for threads, locks, markers). `stop` is the request's flag. */
struct db *reshard_open(struct reshard *reshard, unsigned shard, struct db_error *error);
/* ... with one of its nodes, whatever that is; the caller's to close. */
struct db *reshard_open_node(struct reshard *reshard, unsigned shard,
                             const struct node_config *node, struct db_error *error);
/* conninfo of the shard's primary (or its only node) for a replication connection, in the arena; NULL: error. */
bool reshard_parameters(struct reshard *reshard, unsigned shard, struct db_parameters *parameters,
                        struct db_error *error);
void reshard_tell(struct reshard *reshard, enum reshard_event_kind kind, const char *shard,
                  const char *object, const char *text, const char *mend);
/* Tells reshard->error as a failure of `what`. Always RESHARD_UNFINISHED, or RESHARD_STOPPED. */
enum reshard_outcome reshard_fails(struct reshard *reshard, const char *shard, const char *what);
bool reshard_stopped(const struct reshard *reshard);
/* Rests, for little more than 10 ms where the request is stopped. From any thread; NULL: nothing can stop it. */
void reshard_sleep(const struct reshard *reshard, int64_t us);

#endif
