/*
 * shardmap.h: which shard owns which bucket, and which tables are split by which column.
 *
 * Immutable once built; workers share one by pointer. Strings are owned by the map. Shards are numbers
 * 0 .. nshards - 1 in the order of the configuration; shard 0 keeps the unsharded tables.
 */
#ifndef PGSHUNT_SHARDMAP_H
#define PGSHUNT_SHARDMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/error.h"
#include "pgshunt/shardkey.h"

struct shardmap;
struct database_config;

enum table_class { TABLE_UNSHARDED, TABLE_SHARDED, TABLE_REFERENCE };

struct keyspace {
    const char *name;
    enum key_type type;
    enum key_hash hash;
    uint16_t bucket_shard[SHARDKEY_BUCKETS]; /* bucket -> shard (HASH_XXH64) */
};

struct table_rule {
    const char *schema; /* NULL: any */
    const char *name;
    enum table_class class;
    const struct keyspace *keyspace; /* TABLE_SHARDED */
    const char *key;                 /* TABLE_SHARDED: the key column */
};

struct shardmap_builder {
    const char **shard_names;
    const unsigned *weights; /* share of the buckets, per shard; 0: none */
    unsigned nshards;
};

/* Starts a map; names are copied. */
struct shardmap *shardmap_new(const struct shardmap_builder *shards);
/* Adds a keyspace whose buckets are given out by weight. Returns its index. */
int shardmap_add_keyspace(struct shardmap *map, const char *name, enum key_type type,
                          enum key_hash hash);
/* `name` may be "schema.table". keyspace -1 with key NULL: a reference table. */
void shardmap_add_table(struct shardmap *map, const char *name, int keyspace, const char *key);
/* All of it as the configuration says. */
struct shardmap *shardmap_of_config(const struct database_config *config);
void shardmap_free(struct shardmap *map);

unsigned shardmap_shards(const struct shardmap *map);
const char *shardmap_shard_name(const struct shardmap *map, unsigned shard);
/* -1: no shard of that name. */
int shardmap_shard_by_name(const struct shardmap *map, const char *name);
/* True if there is anything to route by: more than one shard. */
bool shardmap_is_sharded(const struct shardmap *map);
/* Never NULL: tables that nothing is said about get a rule of class TABLE_UNSHARDED. */
const struct table_rule *shardmap_table(const struct shardmap *map, const char *schema,
                                        const char *name);
const struct keyspace *shardmap_keyspace(const struct shardmap *map, unsigned index);
unsigned shardmap_keyspaces(const struct shardmap *map);
unsigned shardmap_shard_of(const struct shardmap *map, const struct keyspace *keyspace,
                           const struct shardkey *key);
/* How many buckets of the keyspace the shard owns. */
unsigned shardmap_buckets_of(const struct keyspace *keyspace, unsigned shard);

#endif
