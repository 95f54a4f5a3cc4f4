/* shardmap_config.c: the shard map that a database's configuration describes. */
#include "pgshunt/shardmap.h"

#include <stdlib.h>

#include "pgshunt/arena.h"
#include "pgshunt/config.h"

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
        for (int t = 0; t < keyspace->ntables; t++)
            shardmap_add_table(map, keyspace->tables[t].name, index, keyspace->tables[t].key);
    }
    for (int r = 0; r < config->nreference; r++)
        shardmap_add_table(map, config->reference[r], -1, NULL);
    return map;
}
