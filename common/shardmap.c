/* shardmap.c: buckets to shards, and table names to how they are sharded. */
#include "pgshunt/shardmap.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "pgshunt/arena.h"
#include "shardmap_internal.h"

#define uthash_malloc(size) mem_alloc(size)
#define uthash_fatal(message) abort()
#include <uthash.h>

/* All rules for tables of one name; two schemas may hold tables of the same name. */
struct named_rules {
    const char *name; /* owned by the map's arena */
    struct table_rule *rules;
    unsigned count;
    UT_hash_handle hh;
};

struct mapped_schema {
    struct table_rule rule;
    UT_hash_handle hh; /* by rule.schema */
};

struct shardmap {
    struct arena arena; /* all strings and rules */
    const char **shard_names;
    unsigned *weights;
    unsigned nshards;
    struct keyspace **keyspaces; /* each of its own, so that pointers stay good while more come */
    unsigned nkeyspaces;
    struct named_rules *tables; /* hash by name */
    const struct lookup_rule **lookups;
    unsigned nlookups;
    struct mapped_schema *schemas;
    int64_t epoch;
    bool holds, ghosts;
    const char **held_tables; /* names */
    unsigned nheld_tables;
    uint64_t serial;
};

static _Atomic uint64_t next_serial = 1;

static const struct table_rule unsharded_rule = {.name = "", .class = TABLE_UNSHARDED};

struct shardmap *shardmap_new(const struct shardmap_builder *shards)
{
    struct shardmap *map = mem_alloc(sizeof *map);
    arena_init(&map->arena);
    map->serial = atomic_fetch_add(&next_serial, 1);
    map->nshards = shards->nshards;
    map->shard_names = arena_array(&map->arena, const char *, shards->nshards);
    map->weights = arena_array(&map->arena, unsigned, shards->nshards);
    for (unsigned i = 0; i < shards->nshards; i++) {
        map->shard_names[i] = arena_strdup(&map->arena, shards->shard_names[i]);
        map->weights[i] = shards->weights ? shards->weights[i] : 1;
    }
    return map;
}

void shardmap_free(struct shardmap *map)
{
    if (!map)
        return;
    struct named_rules *entry, *next;
    HASH_ITER(hh, map->tables, entry, next)
    {
        HASH_DEL(map->tables, entry);
        free(entry->rules);
        free(entry);
    }
    for (unsigned i = 0; i < map->nkeyspaces; i++)
        free(map->keyspaces[i]);
    free(map->keyspaces);
    free(map->lookups);
    free(map->held_tables);
    HASH_CLEAR(hh, map->schemas); /* its entries are the arena's */
    arena_free(&map->arena);
    free(map);
}

/* Weight of a shard; all alike if nobody has any. */
static uint64_t weight_of(const struct shardmap *map, unsigned shard, bool all_zero)
{
    return all_zero ? 1 : map->weights[shard];
}

/* Those of Postgres' own hash: whoever has the remainder has all its buckets, which follow each other. */
void shardmap_set_modulus(struct shardmap *map, int keyspace, unsigned modulus)
{
    struct keyspace *k = map->keyspaces[keyspace];
    k->modulus = modulus;
    k->nbuckets = SHARDKEY_BUCKETS / modulus * modulus;
    shardmap_count(map, k, 0);
}

static void share_remainders(struct shardmap *map, int keyspace)
{
    unsigned each = SHARDKEY_BUCKETS / map->nshards;
    shardmap_set_modulus(map, keyspace, map->nshards);
    for (unsigned i = 0; i < map->nshards; i++)
        shardmap_set_buckets(map, keyspace, i * each, (i + 1) * each - 1, i);
}

/*
 * Gives out the buckets by weight: each shard gets the whole part of its share, the buckets left over
 * go one each to the largest remainders (the earlier shard on a tie). Each shard's buckets are one
 * contiguous range, in the order of the shards. So the same configuration always gives the same map.
 */
static void share_buckets(const struct shardmap *map, struct keyspace *keyspace)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < map->nshards; i++)
        total += map->weights[i];
    bool all_zero = total == 0;
    if (all_zero)
        total = map->nshards;
    uint64_t *share = mem_alloc(sizeof *share * map->nshards * 2);
    uint64_t *remainder = share + map->nshards;
    unsigned left = SHARDKEY_BUCKETS;
    for (unsigned i = 0; i < map->nshards; i++) {
        uint64_t exact = SHARDKEY_BUCKETS * weight_of(map, i, all_zero);
        share[i] = exact / total;
        remainder[i] = exact % total;
        left -= (unsigned)share[i];
    }
    for (; left; left--) {
        unsigned best = 0;
        for (unsigned i = 1; i < map->nshards; i++)
            if (remainder[i] > remainder[best])
                best = i;
        share[best]++;
        remainder[best] = 0;
    }
    unsigned bucket = 0;
    unsigned *owned = (unsigned *)keyspace->owned;
    for (unsigned i = 0; i < map->nshards; i++) {
        owned[i] = (unsigned)share[i];
        for (uint64_t n = 0; n < share[i]; n++)
            keyspace->bucket_shard[bucket++] = (uint16_t)i;
    }
    free(share);
}

int shardmap_add_keyspace(struct shardmap *map, const char *name, enum key_type type,
                          enum key_hash hash)
{
    struct keyspace *keyspace = mem_alloc(sizeof *keyspace);
    keyspace->name = arena_strdup(&map->arena, name);
    keyspace->type = keyspace->types[0] = type;
    keyspace->hash = hash;
    keyspace->nparts = 0;
    keyspace->map = MAP_HASH;
    keyspace->entries = NULL;
    keyspace->nentries = 0;
    keyspace->rest = SHARDMAP_NO_BUCKET;
    keyspace->modulus = 0;
    keyspace->nbuckets = SHARDKEY_BUCKETS;
    keyspace->owned = arena_array(&map->arena, unsigned, map->nshards);
    keyspace->ghosts = NULL;
    keyspace->held = NULL;
    share_buckets(map, keyspace);
    unsigned index = map->nkeyspaces++;
    map->keyspaces = mem_realloc(map->keyspaces, sizeof *map->keyspaces * map->nkeyspaces);
    map->keyspaces[index] = keyspace;
    if (hash == HASH_POSTGRES)
        share_remainders(map, (int)index);
    return (int)index;
}

struct keyspace *shardmap_edit(struct shardmap *map, int keyspace)
{
    return map->keyspaces[keyspace];
}

struct arena *shardmap_arena(struct shardmap *map)
{
    return &map->arena;
}

void shardmap_count(struct shardmap *map, struct keyspace *keyspace, unsigned from)
{
    unsigned *owned = (unsigned *)keyspace->owned;
    for (unsigned i = from; i < keyspace->nbuckets; i++)
        keyspace->bucket_shard[i] = 0;
    memset(owned, 0, sizeof *owned * map->nshards);
    for (unsigned i = 0; i < keyspace->nbuckets; i++)
        owned[keyspace->bucket_shard[i]]++;
}

/*
 * Reads one identifier at *at: as it stands up to a dot, or in double quotes (a doubled quote is one).
 * Unquoted names are not folded: what the configuration says is the name in the catalog.
 */
static const char *take_identifier(struct arena *arena, const char **at)
{
    const char *p = *at;
    if (*p != '"') {
        size_t len = strcspn(p, ".");
        *at = p + len;
        return arena_strndup(arena, p, len);
    }
    char *out = arena_alloc(arena, strlen(p) + 1);
    size_t len = 0;
    for (p++; *p && (*p != '"' || p[1] == '"'); p++) {
        p += *p == '"';
        out[len++] = *p;
    }
    *at = *p == '"' ? p + 1 : p;
    return out;
}

static struct named_rules *find_name(const struct shardmap *map, const char *name)
{
    struct named_rules *entry;
    HASH_FIND_STR(map->tables, name, entry);
    return entry;
}

static struct table_rule *new_rule(struct shardmap *map, const char *schema, const char *name)
{
    struct named_rules *entry = find_name(map, name);
    if (!entry) {
        entry = mem_alloc(sizeof *entry);
        entry->name = name;
        HASH_ADD_KEYPTR(hh, map->tables, entry->name, strlen(entry->name), entry);
    }
    for (unsigned i = 0; i < entry->count; i++) {
        const char *other = entry->rules[i].schema;
        if (schema ? other && strcmp(schema, other) == 0 : !other)
            return &entry->rules[i]; /* said twice: the last one counts */
    }
    entry->rules = mem_realloc(entry->rules, sizeof *entry->rules * (entry->count + 1));
    return &entry->rules[entry->count++];
}

/* "schema.table", or a table of any schema (then *schema is NULL). */
static void split_name(struct arena *arena, const char *name, const char **schema,
                       const char **table)
{
    const char *at = name;
    *schema = NULL;
    *table = take_identifier(arena, &at);
    if (*at != '.')
        return;
    at++;
    *schema = *table;
    *table = take_identifier(arena, &at);
}

static struct table_rule *add_table(struct shardmap *map, const char *name, int keyspace,
                                    const char *key)
{
    const char *schema, *table;
    split_name(&map->arena, name, &schema, &table);
    bool reference = keyspace < 0 || !key;
    struct table_rule *rule = new_rule(map, schema, table);
    *rule = (struct table_rule){
        .schema = schema,
        .name = table,
        .class = reference ? TABLE_REFERENCE : TABLE_SHARDED,
        .keyspace = reference ? NULL : map->keyspaces[keyspace],
        .key = reference ? NULL : arena_strdup(&map->arena, key),
    };
    return rule;
}

void shardmap_add_table(struct shardmap *map, const char *name, int keyspace, const char *key)
{
    add_table(map, name, keyspace, key);
}

/* Whoever changes what a lookup is has to set it up anew: its function has another name then. */
static const char *function_name(struct shardmap *map, const struct lookup_rule *lookup)
{
    const char *what = arena_printf(&map->arena, "%s\n%s\n%s\n%d", lookup->table, lookup->column,
                                    lookup->key, lookup->unique);
    uint64_t hash = XXH64(what, strlen(what), 0);
    char *name = arena_printf(&map->arena, "lookup_%.16s_%.16s_%08x", lookup->table, lookup->column,
                              (unsigned)(hash >> 32));
    for (char *c = name; *c; c++)
        if (!(*c >= 'a' && *c <= 'z') && !(*c >= '0' && *c <= '9'))
            *c = '_';
    return name;
}

static const char *key_words(struct shardmap *map, const struct table_rule *rule)
{
    const char *words = table_rule_key(rule, 0);
    for (unsigned i = 1; i < rule->nparts; i++)
        words = arena_printf(&map->arena, "%s, %s", words, rule->parts[i]);
    return words;
}

void shardmap_add_lookup(struct shardmap *map, const char *table, const char *column, bool unique)
{
    const char *schema, *relation;
    split_name(&map->arena, table, &schema, &relation);
    struct table_rule *rule = new_rule(map, schema, relation);
    struct lookup_rule *lookup = arena_new(&map->arena, struct lookup_rule);
    *lookup = (struct lookup_rule){.table = arena_strdup(&map->arena, table),
                                   .schema = rule->schema,
                                   .relation = rule->name,
                                   .column = arena_strdup(&map->arena, column),
                                   .key = key_words(map, rule),
                                   .unique = unique,
                                   .next = rule->lookups};
    lookup->name = arena_printf(&map->arena, "%s.%s", table, column);
    lookup->function = function_name(map, lookup);
    rule->lookups = lookup;
    map->lookups = mem_realloc(map->lookups, sizeof *map->lookups * (map->nlookups + 1));
    map->lookups[map->nlookups++] = lookup;
}

const struct lookup_rule *shardmap_lookup(const struct shardmap *map, unsigned index)
{
    return index < map->nlookups ? map->lookups[index] : NULL;
}

void shardmap_set_types(struct shardmap *map, int keyspace, const enum key_type *types,
                        unsigned count)
{
    struct keyspace *k = map->keyspaces[keyspace];
    memcpy(k->types, types, sizeof *types * count);
    k->nparts = count;
    k->type = types[0];
}

void shardmap_add_table_parts(struct shardmap *map, const char *name, int keyspace,
                              const char *const *columns, unsigned count)
{
    const char **parts = arena_array(&map->arena, const char *, count);
    for (unsigned i = 0; i < count; i++)
        parts[i] = arena_strdup(&map->arena, columns[i]);
    struct table_rule *rule = add_table(map, name, keyspace, "");
    rule->parts = parts;
    rule->nparts = count;
}

/* Of a remainder by nbuckets, whose own remainder by the modulus is the one of the first map. */
static unsigned postgres_bucket(const struct keyspace *keyspace, unsigned remainder)
{
    unsigned modulus = keyspace->modulus;
    return remainder % modulus * (keyspace->nbuckets / modulus) + remainder / modulus;
}

unsigned keyspace_parts_bucket(const struct keyspace *keyspace, const struct shardkey *parts)
{
    if (!keyspace->nparts)
        return keyspace_bucket(keyspace, parts);
    if (keyspace->hash == HASH_POSTGRES)
        return postgres_bucket(keyspace, shardkey_parts_postgres_remainder(keyspace->types, parts,
                                                                           keyspace->nparts,
                                                                           keyspace->nbuckets));
    return shardkey_parts_bucket(keyspace->types, parts, keyspace->nparts);
}

unsigned shardmap_shard_of_parts(const struct shardmap *map, const struct keyspace *keyspace,
                                 const struct shardkey *parts)
{
    (void)map;
    return keyspace->bucket_shard[keyspace_parts_bucket(keyspace, parts)];
}

unsigned shardmap_shard_of_row(const struct shardmap *map, const struct keyspace *keyspace,
                               const struct shardkey *parts)
{
    return keyspace->nparts ? shardmap_shard_of_parts(map, keyspace, parts)
                            : shardmap_shard_of(map, keyspace, parts);
}

void shardmap_add_schema(struct shardmap *map, const char *schema, unsigned shard)
{
    struct mapped_schema *entry = arena_new(&map->arena, struct mapped_schema);
    const char *name = arena_strdup(&map->arena, schema);
    entry->rule = (struct table_rule){
        .schema = name, .name = name, .class = TABLE_PINNED, .key = "", .shard = shard};
    HASH_ADD_KEYPTR(hh, map->schemas, name, strlen(name), entry);
}

bool shardmap_has_schemas(const struct shardmap *map)
{
    return map->schemas != NULL;
}

bool shardmap_has_schemas_on(const struct shardmap *map, unsigned shard)
{
    for (const struct mapped_schema *one = map->schemas; one; one = one->hh.next)
        if (one->rule.shard == shard)
            return true;
    return false;
}

const struct table_rule *shardmap_schema(const struct shardmap *map, const char *schema)
{
    struct mapped_schema *entry = NULL;
    if (map->schemas)
        HASH_FIND_STR(map->schemas, schema, entry);
    return entry ? &entry->rule : NULL;
}

uint64_t shardmap_serial(const struct shardmap *map)
{
    return map->serial;
}

unsigned shardmap_shards(const struct shardmap *map)
{
    return map->nshards;
}

const char *shardmap_shard_name(const struct shardmap *map, unsigned shard)
{
    return shard < map->nshards ? map->shard_names[shard] : "?";
}

int shardmap_shard_by_name(const struct shardmap *map, const char *name)
{
    for (unsigned i = 0; i < map->nshards; i++)
        if (strcmp(map->shard_names[i], name) == 0)
            return (int)i;
    return -1;
}

bool shardmap_is_sharded(const struct shardmap *map)
{
    return map->nshards > 1;
}

/* Schemas where no user's table lives: a rule for "any schema" does not reach into them. */
static bool is_system_schema(const char *schema)
{
    return strncmp(schema, "pg_", 3) == 0 || strcmp(schema, "information_schema") == 0;
}

static const struct table_rule *rule_in_schema(const struct named_rules *entry, const char *schema)
{
    const struct table_rule *any = NULL;
    for (unsigned i = 0; i < entry->count; i++) {
        const struct table_rule *rule = &entry->rules[i];
        if (!rule->schema)
            any = rule;
        else if (strcmp(rule->schema, schema) == 0)
            return rule;
    }
    return any && !is_system_schema(schema) ? any : &unsharded_rule;
}

/* An unqualified name: the rule for any schema, else the one in public, else the first. */
static const struct table_rule *rule_unqualified(const struct named_rules *entry)
{
    const struct table_rule *best = &entry->rules[0];
    for (unsigned i = 0; i < entry->count; i++) {
        const struct table_rule *rule = &entry->rules[i];
        if (!rule->schema)
            return rule;
        if (strcmp(rule->schema, "public") == 0)
            best = rule;
    }
    return best;
}

const struct table_rule *shardmap_table(const struct shardmap *map, const char *schema,
                                        const char *name)
{
    const struct table_rule *pinned = schema ? shardmap_schema(map, schema) : NULL;
    const struct named_rules *entry = pinned ? NULL : find_name(map, name);
    if (!entry)
        return pinned ? pinned : &unsharded_rule;
    return schema ? rule_in_schema(entry, schema) : rule_unqualified(entry);
}

const struct keyspace *shardmap_keyspace(const struct shardmap *map, unsigned index)
{
    return index < map->nkeyspaces ? map->keyspaces[index] : NULL;
}

unsigned shardmap_keyspaces(const struct shardmap *map)
{
    return map->nkeyspaces;
}

unsigned keyspace_bucket(const struct keyspace *keyspace, const struct shardkey *key)
{
    if (keyspace->map != MAP_HASH)
        return keyspace_value_bucket(keyspace, key);
    if (keyspace->hash == HASH_POSTGRES)
        return postgres_bucket(
            keyspace, shardkey_postgres_remainder(keyspace->type, key, keyspace->nbuckets));
    return shardkey_bucket(key);
}

unsigned shardmap_shard_of(const struct shardmap *map, const struct keyspace *keyspace,
                           const struct shardkey *key)
{
    (void)map;
    unsigned bucket = keyspace_bucket(keyspace, key);
    return bucket == SHARDMAP_NO_BUCKET ? SHARDMAP_NO_SHARD : keyspace->bucket_shard[bucket];
}

unsigned shardmap_buckets_of(const struct keyspace *keyspace, unsigned shard)
{
    unsigned count = 0;
    for (unsigned i = 0; i < keyspace->nbuckets; i++)
        count += keyspace->bucket_shard[i] == shard;
    return count;
}

bool shardmap_owns(const struct keyspace *keyspace, unsigned shard)
{
    return keyspace->owned[shard] > 0;
}

int shardmap_keyspace_by_name(const struct shardmap *map, const char *name)
{
    for (unsigned i = 0; i < map->nkeyspaces; i++)
        if (strcmp(map->keyspaces[i]->name, name) == 0)
            return (int)i;
    return -1;
}

/* ---- what the catalog says ---- */

void shardmap_set_buckets(struct shardmap *map, int keyspace, unsigned first, unsigned last,
                          unsigned shard)
{
    struct keyspace *k = map->keyspaces[keyspace];
    unsigned *owned = (unsigned *)k->owned;
    for (unsigned bucket = first; bucket <= last && bucket < k->nbuckets; bucket++) {
        owned[k->bucket_shard[bucket]]--;
        owned[shard]++;
        k->bucket_shard[bucket] = (uint16_t)shard;
    }
}

void shardmap_set_ghost(struct shardmap *map, int keyspace, unsigned shard)
{
    struct keyspace *k = map->keyspaces[keyspace];
    bool *ghosts = (bool *)k->ghosts;
    if (!ghosts)
        k->ghosts = ghosts = arena_array(&map->arena, bool, map->nshards);
    ghosts[shard] = true;
    map->ghosts = true;
}

bool keyspace_has_ghosts(const struct keyspace *keyspace, unsigned shard)
{
    return keyspace->ghosts && keyspace->ghosts[shard];
}

bool shardmap_has_ghosts(const struct shardmap *map)
{
    return map->ghosts;
}

void shardmap_hold(struct shardmap *map, int keyspace, unsigned first, unsigned last)
{
    struct keyspace *k = map->keyspaces[keyspace];
    uint8_t *held = (uint8_t *)k->held;
    if (!held)
        k->held = held = arena_array(&map->arena, uint8_t, SHARDKEY_BUCKETS / 8);
    for (unsigned bucket = first; bucket <= last && bucket < SHARDKEY_BUCKETS; bucket++) {
        held[bucket / 8] |= (uint8_t)(1u << bucket % 8);
        map->holds = true;
    }
}

bool keyspace_is_held(const struct keyspace *keyspace, unsigned bucket)
{
    return keyspace->held && bucket < SHARDKEY_BUCKETS &&
           (keyspace->held[bucket / 8] >> bucket % 8 & 1);
}

bool shardmap_holds(const struct shardmap *map)
{
    return map->holds;
}

int64_t shardmap_epoch(const struct shardmap *map)
{
    return map->epoch;
}

void shardmap_set_epoch(struct shardmap *map, int64_t epoch)
{
    map->epoch = epoch;
}

/* ---- tables ---- */

static const struct table_rule *find_rule(const struct shardmap *map, const char *name,
                                          struct arena *arena)
{
    const char *schema, *table;
    split_name(arena, name, &schema, &table);
    const struct named_rules *entry = find_name(map, table);
    for (unsigned i = 0; entry && i < entry->count; i++) {
        const char *other = entry->rules[i].schema;
        if (schema ? other && strcmp(schema, other) == 0 : !other)
            return &entry->rules[i];
    }
    return NULL;
}

const struct table_rule *shardmap_rule(const struct shardmap *map, const char *name)
{
    struct arena arena;
    arena_init(&arena);
    const struct table_rule *rule = find_rule(map, name, &arena);
    arena_free(&arena);
    return rule;
}

bool shardmap_table_is(const struct shardmap *map, const char *name, int keyspace,
                       const char *const *columns, unsigned count)
{
    const struct table_rule *rule = shardmap_rule(map, name);
    if (keyspace < 0)
        return !rule || rule->class == TABLE_UNSHARDED;
    if (!rule || rule->class != TABLE_SHARDED || rule->keyspace != map->keyspaces[keyspace] ||
        count != (rule->nparts ? rule->nparts : 1))
        return false;
    for (unsigned i = 0; i < count; i++)
        if (strcmp(rule->nparts ? rule->parts[i] : rule->key, columns[i]) != 0)
            return false;
    return true;
}

static struct table_rule *unsharded_table(struct shardmap *map, const char *name)
{
    const char *schema, *table;
    split_name(&map->arena, name, &schema, &table);
    struct table_rule *rule = new_rule(map, schema, table);
    *rule = (struct table_rule){.schema = schema, .name = table, .class = TABLE_UNSHARDED};
    return rule;
}

void shardmap_set_table(struct shardmap *map, const char *name, int keyspace,
                        const char *const *columns, unsigned count)
{
    if (shardmap_table_is(map, name, keyspace, columns, count))
        return;
    if (keyspace < 0)
        unsharded_table(map, name);
    else if (map->keyspaces[keyspace]->nparts)
        shardmap_add_table_parts(map, name, keyspace, columns, count);
    else
        shardmap_add_table(map, name, keyspace, columns[0]);
}

void shardmap_hold_table(struct shardmap *map, const char *name)
{
    struct table_rule *rule = (struct table_rule *)shardmap_rule(map, name);
    if (!rule)
        rule = unsharded_table(map, name);
    rule->held = true;
    map->held_tables =
        mem_realloc(map->held_tables, sizeof *map->held_tables * (map->nheld_tables + 1));
    map->held_tables[map->nheld_tables++] = arena_strdup(&map->arena, name);
    map->holds = true;
}

const char *shardmap_held_table(const struct shardmap *map, unsigned index)
{
    return index < map->nheld_tables ? map->held_tables[index] : NULL;
}
