/*
 * move.h: which rows a job moves: buckets of keyspaces, and from where to where.
 *
 * Pure values; shards are numbers of the shard map.
 */
#ifndef PGSHUNT_RESHARDER_MOVE_H
#define PGSHUNT_RESHARDER_MOVE_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/arena.h"
#include "pgshunt/catalog.h"
#include "pgshunt/shardmap.h"

struct move {
    const struct keyspace *keyspace; /* of the map */
    unsigned first, last;            /* buckets, both included */
    unsigned source, target;         /* shards, never the same */
};

/*
 * All moves of a job; no two have a bucket of one keyspace in common. Either the buckets move, with all tables of their
 * keyspaces, or some tables enter a keyspace or leave it: then these alone move, the map has them as tables of the
 * keyspace, and `items` says where their rows are on the other side.
 */
struct moves {
    const struct shardmap *map; /* as before the switch */
    const struct move *items;
    int count;
    const struct catalog_rule *tables; /* NULL: those of the keyspaces */
    int ntables;
    unsigned home; /* of such tables while they are unsharded */
};

/* One stream's worth: all moves between two shards. */
struct link {
    unsigned source, target;
};

/* A value of a row in either of Postgres' forms; bytes NULL: an SQL NULL. */
struct move_value {
    const char *bytes;
    size_t length;
    bool binary;
};

/* The move that has the bucket; NULL: it stays. */
const struct move *moves_find(const struct moves *moves, const struct keyspace *keyspace,
                              unsigned bucket);
/* The pairs of shards that have moves, in an array of `arena`; *count: how many. */
const struct link *moves_links(const struct moves *moves, struct arena *arena, int *count);
/* Whether any bucket of the keyspace goes from `source` to `target`. */
bool moves_touch(const struct moves *moves, const struct keyspace *keyspace, unsigned source,
                 unsigned target);
/* Whether a table with this rule of the map moves. */
bool moves_table(const struct moves *moves, const struct table_rule *rule);
/*
 * Whether rows that the job brings to (or leaves on) the shard may be met there by statements without a key, so that it
 * has their ghost keys. Of tables only their home: elsewhere they are where their buckets are, next to other tables' rows.
 */
bool moves_hide(const struct moves *moves, unsigned shard);
/*
 * Whether it needs the keys of such rows of a keyspace. Ghosts are there before the switch where buckets enter, and behind it
 * where they leave; who owns no bucket meanwhile is not asked without a key. The same before the switch and behind it.
 */
bool moves_need_keys(const struct moves *moves, const struct keyspace *keyspace, unsigned shard);
/*
 * The bucket of a row whose key's columns have these values, one for each part of the key, of the types
 * `oids` (of the columns: they decide how binary values are read). False: a part is NULL, no value of its type, or in no
 * list.
 */
MUST_CHECK bool move_bucket(const struct keyspace *keyspace, const struct move_value *parts,
                            const uint32_t *oids, unsigned *bucket);
/* The same in two steps: the canonical values (texts point into `parts`), and their bucket. */
MUST_CHECK bool move_keys(const struct keyspace *keyspace, const struct move_value *parts,
                          const uint32_t *oids, struct shardkey keys[SHARDMAP_MAX_PARTS]);
/* SHARDMAP_NO_BUCKET: none. */
unsigned move_keys_bucket(const struct keyspace *keyspace, const struct shardkey *keys);
/* The moves the other way round, of the map after the switch (for the reverse stream), in `arena`. */
struct moves moves_reversed(const struct moves *moves, const struct shardmap *after,
                            struct arena *arena);

#endif
