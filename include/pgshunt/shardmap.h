/*
 * shardmap.h: which shard owns which bucket, and which tables are split by which column.
 *
 * Every keyspace is cut into buckets, numbered from 0, each with the shard that owns it. What a bucket is:
 *
 *   MAP_HASH, HASH_XXH64     a part of the hashes, of 16384
 *   MAP_HASH, HASH_POSTGRES  keys of one remainder, by a multiple of the modulus that the first map had
 *   MAP_LIST                 a value; or all values that are not listed
 *   MAP_RANGE                an interval; together they cover all values
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

struct arena;
struct shardmap;
struct database_config;

/* PINNED: in a schema that one shard has. */
enum table_class { TABLE_UNSHARDED, TABLE_SHARDED, TABLE_REFERENCE, TABLE_PINNED };

/* Where a list has neither the value nor a shard for all others. */
#define SHARDMAP_NO_SHARD (~0u)
#define SHARDMAP_NO_BUCKET (~0u)

/* MAP_LIST: a value. MAP_RANGE: where an interval begins, that value included; it ends before the next
 * entry's value. The first begins below all values: its bytes are NULL. */
struct key_entry {
    const unsigned char *bytes; /* canonical, see shardkey.h */
    size_t length;
    unsigned shard; /* for shardmap_map_values(); who owns it is told by the bucket */
    unsigned
        bucket; /* stays the same as long as the map is recorded, wherever it is among the others */
};

/* Columns of a key. */
#define SHARDMAP_MAX_PARTS 8

struct keyspace {
    const char *name;
    enum key_type type;                      /* of the first column */
    enum key_type types[SHARDMAP_MAX_PARTS]; /* of each */
    unsigned nparts;                         /* 0: the key is one column */
    enum key_hash hash;
    enum key_map map;
    const struct key_entry *entries; /* MAP_LIST, MAP_RANGE: sorted by value */
    unsigned nentries;
    unsigned rest;                           /* MAP_LIST: bucket of all other values */
    unsigned modulus;                        /* HASH_POSTGRES: of the first map */
    unsigned nbuckets;                       /* SHARDKEY_BUCKETS at most */
    uint16_t bucket_shard[SHARDKEY_BUCKETS]; /* bucket -> shard */
    const unsigned *owned;                   /* shard -> how many buckets it has */
    const bool *ghosts;                      /* shard -> has ghost rows; NULL: none has */
    const uint8_t *held;                     /* a bit for each bucket; NULL: none is held */
};

/* A column by which the shard of a table's rows is found by asking the shards: see docs/internals/lookup.md. */
struct lookup_rule {
    const char *name;              /* "orders.id" */
    const char *table;             /* as configured */
    const char *schema, *relation; /* ... in its parts; schema NULL: any */
    const char *column;
    const char *key;      /* the table's; of several columns: "tenant, id" */
    const char *function; /* of schema pgshunt on every shard: which of some values it has */
    bool unique;          /* a value is on one shard only */
    const struct lookup_rule *next; /* of the same table */
};

struct table_rule {
    const char *schema; /* NULL: any */
    const char *name;
    enum table_class class;
    const struct keyspace *keyspace;   /* TABLE_SHARDED */
    const char *key;                   /* TABLE_SHARDED: the key column */
    const struct lookup_rule *lookups; /* TABLE_SHARDED; NULL: none */
    const char *const *parts;          /* TABLE_SHARDED by several columns: `key` is "" then */
    unsigned nparts;                   /* 0: one column */
    unsigned shard;                    /* TABLE_PINNED; `schema` is the schema, `name` too */
    bool held;                         /* statements that name the table are to wait */
};

/* The columns of a sharded table's key, one or several. */
static inline unsigned table_rule_nkeys(const struct table_rule *rule)
{
    return rule->nparts ? rule->nparts : 1;
}

static inline const char *table_rule_key(const struct table_rule *rule, unsigned part)
{
    return rule->nparts ? rule->parts[part] : rule->key;
}

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
/* Makes a keyspace one by list or range. The entries are copied, sorted, and numbered in that order; no two are equal.
 * `rest`: a shard, whose bucket is the last. */
void shardmap_map_values(struct shardmap *map, int keyspace, enum key_map kind,
                         const struct key_entry *entries, unsigned count, unsigned rest);
/* `name` may be "schema.table". keyspace -1 with key NULL: a reference table. */
void shardmap_add_table(struct shardmap *map, const char *name, int keyspace, const char *key);
/* Adds a lookup to a sharded table that was added. */
void shardmap_add_lookup(struct shardmap *map, const char *table, const char *column, bool unique);
/* The lookups of all tables, in the order they were added; NULL behind the last. */
const struct lookup_rule *shardmap_lookup(const struct shardmap *map, unsigned index);
/* The keyspace's key has several columns, of these types; its tables are added with as many. */
void shardmap_set_types(struct shardmap *map, int keyspace, const enum key_type *types,
                        unsigned count);
void shardmap_add_table_parts(struct shardmap *map, const char *name, int keyspace,
                              const char *const *columns, unsigned count);
/* SHARDMAP_NO_SHARD: none. */
unsigned shardmap_shard_of_parts(const struct shardmap *map, const struct keyspace *keyspace,
                                 const struct shardkey *parts);
/* The same of a key of one column or several. */
unsigned shardmap_shard_of_row(const struct shardmap *map, const struct keyspace *keyspace,
                               const struct shardkey *parts);
/* The shard of a key as text, of several columns: a JSON array of texts. False: it is no key. */
MUST_CHECK bool shardmap_shard_of_text(const struct shardmap *map, const struct keyspace *keyspace,
                                       const char *text, unsigned *shard);
/* Everything in the schema is on that shard. */
void shardmap_add_schema(struct shardmap *map, const char *schema, unsigned shard);
/*
 * What the catalog says of a map that is not in use yet; `keyspace` is its index. Buckets first..last, both included:
 * they belong to the shard.
 */
void shardmap_set_buckets(struct shardmap *map, int keyspace, unsigned first, unsigned last,
                          unsigned shard);
/* HASH_POSTGRES: buckets are as many as the largest multiple of the modulus allows; all of them shard 0's. */
void shardmap_set_modulus(struct shardmap *map, int keyspace, unsigned modulus);
/* MAP_LIST, MAP_RANGE: these entries, with their buckets, which are 0 .. count - 1 (or count, with one for the rest), take
 * the place of those that were there; all of them shard 0's. False: values or
 * numbers are not so. */
MUST_CHECK bool shardmap_set_entries(struct shardmap *map, int keyspace,
                                     const struct key_entry *entries, unsigned count,
                                     unsigned rest);
/*
 * MAP_LIST, MAP_RANGE: the value gets a bucket of its own, an interval is cut there. It belongs to whose it was; `shard` is
 * for a value of a list that had no shard. The bucket, SHARDMAP_NO_BUCKET: there are SHARDKEY_BUCKETS already.
 */
unsigned shardmap_split(struct shardmap *map, int keyspace, const struct shardkey *key,
                        unsigned shard);
/* MAP_LIST: values that are not listed get a bucket, if there is none. As above. */
unsigned shardmap_add_rest(struct shardmap *map, int keyspace, unsigned shard);
/* The shard has rows of buckets that it does not own: see docs/internals/resharding.md. */
void shardmap_set_ghost(struct shardmap *map, int keyspace, unsigned shard);
/* Statements that touch these buckets are to wait. */
void shardmap_hold(struct shardmap *map, int keyspace, unsigned first, unsigned last);
/*
 * The table is what the catalog says, not the configuration: rows by the keyspace's key in `columns`, or (keyspace -1)
 * unsharded. `name` as of shardmap_add_table(). What it is already stays as it is, lookups included.
 */
void shardmap_set_table(struct shardmap *map, const char *name, int keyspace,
                        const char *const *columns, unsigned count);
/* Whether it is that already. */
bool shardmap_table_is(const struct shardmap *map, const char *name, int keyspace,
                       const char *const *columns, unsigned count);
/* Statements that name the table are to wait. */
void shardmap_hold_table(struct shardmap *map, const char *name);
void shardmap_set_epoch(struct shardmap *map, int64_t epoch);
/* All of it as the configuration says. */
struct shardmap *shardmap_of_config(const struct database_config *config);
void shardmap_free(struct shardmap *map);

/* No two maps of the process have the same: what was found by one is never taken for another's. */
uint64_t shardmap_serial(const struct shardmap *map);
unsigned shardmap_shards(const struct shardmap *map);
const char *shardmap_shard_name(const struct shardmap *map, unsigned shard);
/* -1: no shard of that name. */
int shardmap_shard_by_name(const struct shardmap *map, const char *name);
/* True if there is anything to route by: more than one shard. */
bool shardmap_is_sharded(const struct shardmap *map);
/* Never NULL: tables that nothing is said about get a rule of class TABLE_UNSHARDED. */
const struct table_rule *shardmap_table(const struct shardmap *map, const char *schema,
                                        const char *name);
bool shardmap_has_schemas(const struct shardmap *map);
bool shardmap_has_schemas_on(const struct shardmap *map, unsigned shard);
/* The rule (TABLE_PINNED) for all that is in the schema, if one shard has it; NULL: it is like any. */
const struct table_rule *shardmap_schema(const struct shardmap *map, const char *schema);
const struct keyspace *shardmap_keyspace(const struct shardmap *map, unsigned index);
unsigned shardmap_keyspaces(const struct shardmap *map);
/* SHARDMAP_NO_SHARD: a list that does not have it; no such row can be anywhere. */
unsigned shardmap_shard_of(const struct shardmap *map, const struct keyspace *keyspace,
                           const struct shardkey *key);
/* The bucket of a key (of all its parts); SHARDMAP_NO_BUCKET: a list that does not have it. */
unsigned keyspace_bucket(const struct keyspace *keyspace, const struct shardkey *key);
unsigned keyspace_parts_bucket(const struct keyspace *keyspace, const struct shardkey *parts);
/* The same of MAP_LIST or MAP_RANGE. */
unsigned keyspace_value_bucket(const struct keyspace *keyspace, const struct shardkey *key);
/* MAP_LIST, MAP_RANGE: the entry that is the bucket; NULL: that of all other values. */
const struct key_entry *keyspace_entry(const struct keyspace *keyspace, unsigned bucket);
/* "hash", "postgres", "list", "range": how keys find their buckets. */
const char *keyspace_kind(const struct keyspace *keyspace);
/* The buckets first..last for people, in `arena`: "buckets 0-4095 (4096)", "de, at", "[100,200)". */
const char *keyspace_buckets_text(const struct keyspace *keyspace, unsigned first, unsigned last,
                                  struct arena *arena);
/* All of a shard's: "0-4095,8192-16383", "at,de,DEFAULT", "[MINVALUE,100),[200,300)". */
const char *keyspace_owned_text(const struct keyspace *keyspace, unsigned shard,
                                struct arena *arena);
/* MAP_RANGE: the entries [*first, *end) whose intervals hold values from `low` (NULL: all below) up to
 * `high` (NULL: all above), which is included unless `before` is set. Empty if there is none. */
void keyspace_range(const struct keyspace *keyspace, const struct shardkey *low,
                    const struct shardkey *high, bool before, unsigned *first, unsigned *end);
/* Order of two canonical values of one type: integers by value, uuids and text by their bytes. */
int shardkey_compare(enum key_type type, const unsigned char *a, size_t a_length,
                     const unsigned char *b, size_t b_length);
/* Sorts by value; entry NULL is below all. */
void shardmap_sort_entries(enum key_type type, struct key_entry *entries, unsigned count);
/* How many values or intervals of the keyspace the shard owns. */
unsigned shardmap_entries_of(const struct keyspace *keyspace, unsigned shard);
/* How many buckets of the keyspace the shard owns. */
unsigned shardmap_buckets_of(const struct keyspace *keyspace, unsigned shard);
/* Whether any row of the keyspace can be the shard's: it owns a bucket, or a value. */
bool shardmap_owns(const struct keyspace *keyspace, unsigned shard);
/* The number of the map, raised by every change; 0: it is the configuration's, nothing is recorded. */
int64_t shardmap_epoch(const struct shardmap *map);
bool keyspace_has_ghosts(const struct keyspace *keyspace, unsigned shard);
/* Any shard has ghost rows of any keyspace. */
bool shardmap_has_ghosts(const struct shardmap *map);
bool keyspace_is_held(const struct keyspace *keyspace, unsigned bucket);
/* Any bucket of any keyspace is held, or any table. */
bool shardmap_holds(const struct shardmap *map);
/* The names of the tables that are held, as they were given; NULL behind the last. */
const char *shardmap_held_table(const struct shardmap *map, unsigned index);
/* The rule said of exactly this table, of any class; NULL: nothing is. */
const struct table_rule *shardmap_rule(const struct shardmap *map, const char *name);
/* -1: no keyspace of that name. */
int shardmap_keyspace_by_name(const struct shardmap *map, const char *name);

#endif
