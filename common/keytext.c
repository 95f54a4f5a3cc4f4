/* keytext.c: keys as lookups have them from the shards: text, of several columns a JSON array of texts. */
#include <jansson.h>
#include <string.h>

#include "pgshunt/shardmap.h"

static bool read_parts(const struct keyspace *keyspace, const json_t *array, struct shardkey *keys)
{
    if (json_array_size(array) != keyspace->nparts)
        return false;
    for (unsigned i = 0; i < keyspace->nparts; i++) {
        const json_t *part = json_array_get(array, i);
        if (!json_is_string(part) ||
            !shardkey_from_text(keyspace->types[i], json_string_value(part),
                                json_string_length(part), &keys[i]))
            return false;
    }
    return true;
}

bool shardmap_shard_of_text(const struct shardmap *map, const struct keyspace *keyspace,
                            const char *text, unsigned *shard)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    json_t *array = NULL;
    bool good = false;
    if (!keyspace->nparts)
        good = shardkey_from_text(keyspace->type, text, strlen(text), &keys[0]);
    else if ((array = json_loads(text, 0, NULL)))
        good = read_parts(keyspace, array, keys);
    if (good)
        *shard = shardmap_shard_of_row(map, keyspace, keys); /* which may look into the array */
    json_decref(array);
    return good;
}
