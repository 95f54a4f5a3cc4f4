/* shardmap_internal.h: what the parts of the shard map share while a map is made. */
#ifndef PGSHUNT_SHARDMAP_INTERNAL_H
#define PGSHUNT_SHARDMAP_INTERNAL_H

#include "pgshunt/arena.h"
#include "pgshunt/shardmap.h"

struct keyspace *shardmap_edit(struct shardmap *map, int keyspace);
struct arena *shardmap_arena(struct shardmap *map);
/* Buckets from `from` on are shard 0's; `owned` is what bucket_shard says. */
void shardmap_count(struct shardmap *map, struct keyspace *keyspace, unsigned from);

#endif
