/* shardmap_config.c: the shard map that a database's configuration describes. */
#include "pgshunt/shardmap.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "pgshunt/config.h"

static unsigned shard_number(const struct shardmap *map, const char *name)
{
    int shard = shardmap_shard_by_name(map, name);
    return shard < 0 ? SHARDMAP_NO_SHARD : (unsigned)shard;
}

/* The configuration was checked: every value is one of its type. */
static void put_entry(struct key_entry *entry, struct shardkey *key, enum key_type type,
                      const char *text, unsigned shard)
{
    *entry = (struct key_entry){.shard = shard};
    if (text && shardkey_from_text(type, text, strlen(text), key)) {
        entry->bytes = key->bytes;
        entry->length = key->length;
    }
}

static void map_values(struct shardmap *map, int index, const struct keyspace_config *config)
{
    unsigned count = (unsigned)config->nranges, next = 0;
    for (int i = 0; i < config->nlists; i++)
        count += (unsigned)config->lists[i].nvalues;
    struct key_entry *entries = mem_alloc(sizeof *entries * (count + 1));
    struct shardkey *keys = mem_alloc(sizeof *keys * (count + 1)); /* entries may point into them */
    for (int i = 0; i < config->nlists; i++)
        for (int j = 0; j < config->lists[i].nvalues; j++, next++)
            put_entry(&entries[next], &keys[next], config->type, config->lists[i].values[j],
                      shard_number(map, config->lists[i].shard));
    for (int i = 0; i < config->nranges; i++, next++) {
        const struct range_config *range = &config->ranges[i];
        bool lowest = strcmp(range->from, "MINVALUE") == 0;
        put_entry(&entries[next], &keys[next], config->type, lowest ? NULL : range->from,
                  shard_number(map, range->shard));
    }
    shardmap_map_values(map, index, config->map, entries, count, shard_number(map, config->rest));
    free(entries);
    free(keys);
}

static void set_types(struct shardmap *map, int index, const struct keyspace_config *keyspace)
{
    static const char *const words[] = {"bigint", "uuid", "text"};
    enum key_type types[SHARDMAP_MAX_PARTS];
    for (int i = 0; i < keyspace->ntypes && i < SHARDMAP_MAX_PARTS; i++)
        for (int type = 0; type < 3; type++)
            if (strcmp(words[type], keyspace->types[i]) == 0)
                types[i] = (enum key_type)type;
    if (keyspace->ntypes)
        shardmap_set_types(map, index, types, (unsigned)keyspace->ntypes);
}

struct shardmap *shardmap_of_config(const struct database_config *config)
{
    const char **names = mem_alloc(sizeof *names * (size_t)config->nshards);
    unsigned *weights = mem_alloc(sizeof *weights * (size_t)config->nshards);
    for (int i = 0; i < config->nshards; i++) {
        names[i] = config->shards[i].name;
        weights[i] = config->shards[i].weight > 0 ? (unsigned)config->shards[i].weight : 0;
    }
    struct shardmap_builder builder = {names, weights, (unsigned)config->nshards};
    struct shardmap *map = shardmap_new(&builder);
    free(names);
    free(weights);

    for (int k = 0; k < config->nkeyspaces; k++) {
        const struct keyspace_config *keyspace = &config->keyspaces[k];
        int index = shardmap_add_keyspace(map, keyspace->name, keyspace->type, keyspace->hash);
        if (keyspace->map != MAP_HASH)
            map_values(map, index, keyspace);
        set_types(map, index, keyspace);
        for (int t = 0; t < keyspace->ntables; t++) {
            const struct table_config *table = &keyspace->tables[t];
            if (keyspace->ntypes)
                shardmap_add_table_parts(map, table->name, index, table->keys,
                                         (unsigned)table->nkeys);
            else
                shardmap_add_table(map, table->name, index, table->key);
        }
        for (int l = 0; l < keyspace->nlookups; l++)
            shardmap_add_lookup(map, keyspace->lookups[l].table, keyspace->lookups[l].column,
                                keyspace->lookups[l].unique);
    }
    for (int r = 0; r < config->nreference; r++)
        shardmap_add_table(map, config->reference[r], -1, NULL);
    for (int s = 0; s < config->nschemas; s++) {
        int shard = shardmap_shard_by_name(map, config->schemas[s].shard);
        if (shard >= 0) /* has been checked */
            shardmap_add_schema(map, config->schemas[s].name, (unsigned)shard);
    }
    return map;
}
