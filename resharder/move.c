/* move.c: which buckets move between which shards, and which bucket a row is in. */
#include "resharder/move.h"

#include <stdlib.h>

const struct move *moves_find(const struct moves *moves, const struct keyspace *keyspace,
                              unsigned bucket)
{
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        if (move->keyspace == keyspace && bucket >= move->first && bucket <= move->last)
            return move;
    }
    return NULL;
}

static bool has_link(const struct link *links, int count, const struct move *move)
{
    for (int i = 0; i < count; i++)
        if (links[i].source == move->source && links[i].target == move->target)
            return true;
    return false;
}

const struct link *moves_links(const struct moves *moves, struct arena *arena, int *count)
{
    struct link *links = arena_array(arena, struct link, moves->count + 1);
    *count = 0;
    for (int i = 0; i < moves->count; i++)
        if (!has_link(links, *count, &moves->items[i]))
            links[(*count)++] = (struct link){moves->items[i].source, moves->items[i].target};
    return links;
}

bool moves_touch(const struct moves *moves, const struct keyspace *keyspace, unsigned source,
                 unsigned target)
{
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        if (move->keyspace == keyspace && move->source == source && move->target == target)
            return true;
    }
    return false;
}

/* Of one of the job's own names. */
static bool is_named(const struct moves *moves, const struct table_rule *rule)
{
    for (int i = 0; i < moves->ntables; i++)
        if (shardmap_rule(moves->map, moves->tables[i].name) == rule)
            return true;
    return false;
}

bool moves_table(const struct moves *moves, const struct table_rule *rule)
{
    if (rule->class != TABLE_SHARDED || (moves->tables && !is_named(moves, rule)))
        return false;
    for (int i = 0; i < moves->count; i++)
        if (moves->items[i].keyspace == rule->keyspace)
            return true;
    return false;
}

bool moves_hide(const struct moves *moves, unsigned shard)
{
    return !moves->tables || shard == moves->home;
}

/* Whether the shard owns a bucket that does not move. */
static bool keeps_some(const struct moves *moves, const struct keyspace *keyspace, unsigned shard)
{
    bool keeps = false, *moving = mem_alloc((size_t)keyspace->nbuckets + 1);
    for (int i = 0; i < moves->count; i++)
        for (unsigned b = moves->items[i].first;
             moves->items[i].keyspace == keyspace && b <= moves->items[i].last; b++)
            moving[b] = true;
    for (unsigned b = 0; b < keyspace->nbuckets && !keeps; b++)
        keeps = keyspace->bucket_shard[b] == shard && !moving[b];
    free(moving);
    return keeps;
}

bool moves_need_keys(const struct moves *moves, const struct keyspace *keyspace, unsigned shard)
{
    bool enter = false, leave = false;
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        enter = enter || (move->keyspace == keyspace && move->target == shard);
        leave = leave || (move->keyspace == keyspace && move->source == shard);
    }
    return moves_hide(moves, shard) &&
           ((enter && leave) || ((enter || leave) && keeps_some(moves, keyspace, shard)));
}

static bool read_part(enum key_type type, const struct move_value *value, uint32_t oid,
                      struct shardkey *key)
{
    if (!value->bytes)
        return false;
    if (value->binary)
        return shardkey_from_binary(type, oid, value->bytes, value->length, key);
    return shardkey_from_text(type, value->bytes, value->length, key);
}

bool move_keys(const struct keyspace *keyspace, const struct move_value *parts,
               const uint32_t *oids, struct shardkey keys[SHARDMAP_MAX_PARTS])
{
    unsigned count = keyspace->nparts ? keyspace->nparts : 1;
    for (unsigned i = 0; i < count; i++) {
        enum key_type type = keyspace->nparts ? keyspace->types[i] : keyspace->type;
        if (!read_part(type, &parts[i], oids[i], &keys[i]))
            return false;
    }
    return true;
}

unsigned move_keys_bucket(const struct keyspace *keyspace, const struct shardkey *keys)
{
    return keyspace_parts_bucket(keyspace, keys);
}

bool move_bucket(const struct keyspace *keyspace, const struct move_value *parts,
                 const uint32_t *oids, unsigned *bucket)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    if (!move_keys(keyspace, parts, oids, keys))
        return false;
    *bucket = move_keys_bucket(keyspace, keys);
    return *bucket != SHARDMAP_NO_BUCKET;
}

static const struct keyspace *same_keyspace(const struct shardmap *before,
                                            const struct keyspace *keyspace,
                                            const struct shardmap *after)
{
    for (unsigned i = 0; i < shardmap_keyspaces(before); i++)
        if (shardmap_keyspace(before, i) == keyspace)
            return shardmap_keyspace(after, i);
    return NULL;
}

struct moves moves_reversed(const struct moves *moves, const struct shardmap *after,
                            struct arena *arena)
{
    struct move *items = arena_array(arena, struct move, moves->count + 1);
    for (int i = 0; i < moves->count; i++) {
        items[i] = moves->items[i];
        items[i].keyspace = same_keyspace(moves->map, items[i].keyspace, after);
        items[i].source = moves->items[i].target;
        items[i].target = moves->items[i].source;
    }
    struct moves reversed = *moves;
    reversed.map = after;
    reversed.items = items;
    return reversed;
}
