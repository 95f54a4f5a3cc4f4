/*
 * schema_loader.h: reads a database's catalog into a struct schema, over a connection of its own on
 * the monitor's loop, row by row, so that the checks go on beside it.
 */
#ifndef PGSHUNT_PROXY_SCHEMA_LOADER_H
#define PGSHUNT_PROXY_SCHEMA_LOADER_H

#include <stdint.h>
#include <uv.h>

#include "pgshunt/schema.h"
#include "pgshunt/shardmap.h"
#include "proxy/topology.h"

struct schema_load;

/*
 * Called once, from the loop; the load is gone then. `schema` is the callee's, NULL on failure with
 * `why` (but what was added to comes back, with what was read of it). `fingerprint` is a hash of all that was read: equal means nothing the router sees has changed.
 */
typedef void schema_load_done(void *arg, struct schema *schema, uint64_t fingerprint,
                              const char *why);

/* What is read: all that the first shard has but the schemas that other shards have by the map; or, with
 * `into`, those of one shard, which are added to it: then it is the load's until `done`. The
 * definitions of views come with it where the database has shards: statements are planned through them. */
struct schema_load_what {
    const struct shardmap *map; /* stays until the load is gone */
    unsigned shard;
    struct schema *into; /* NULL: a new one */
};

struct schema_load *schema_load_start(uv_loop_t *loop, struct node *node,
                                      const struct config *config,
                                      const struct schema_load_what *what, schema_load_done *done,
                                      void *arg);
/* Ends a load without calling back. */
void schema_load_cancel(struct schema_load *load);

#endif
