/* shardmap_pieces.c: keyspaces by list and range in buckets: values and intervals with numbers, and their texts. */
#include <string.h>

#include "pgshunt/buffer.h"
#include "shardmap_internal.h"

/* ---- entries ---- */

static struct key_entry *copy_entries(struct shardmap *map, const struct key_entry *entries,
                                      unsigned count, unsigned room)
{
    struct key_entry *copy = arena_array(shardmap_arena(map), struct key_entry, room + 1);
    for (unsigned i = 0; i < count; i++) {
        copy[i] = entries[i];
        if (entries[i].bytes)
            copy[i].bytes = (const unsigned char *)arena_strndup(
                shardmap_arena(map), (const char *)entries[i].bytes, entries[i].length);
    }
    return copy;
}

void shardmap_map_values(struct shardmap *map, int keyspace, enum key_map kind,
                         const struct key_entry *entries, unsigned count, unsigned rest)
{
    struct keyspace *k = shardmap_edit(map, keyspace);
    struct key_entry *copy = copy_entries(map, entries, count, count);
    bool has_rest = rest != SHARDMAP_NO_SHARD;
    shardmap_sort_entries(k->type, copy, count);
    k->map = kind;
    k->entries = copy;
    k->nentries = count;
    k->rest = has_rest ? count : SHARDMAP_NO_BUCKET;
    k->nbuckets = count + has_rest;
    shardmap_count(map, k, 0);
    for (unsigned i = 0; i < count; i++) {
        copy[i].bucket = i;
        shardmap_set_buckets(map, keyspace, i, i, copy[i].shard);
    }
    if (has_rest)
        shardmap_set_buckets(map, keyspace, count, count, rest);
}

/* No value twice; the lowest interval, and no other and no value of a list, begins below all. */
static bool are_in_order(const struct keyspace *keyspace, const struct key_entry *entries,
                         unsigned count)
{
    if (keyspace->map == MAP_RANGE ? count == 0 || entries[0].bytes : count && !entries[0].bytes)
        return false;
    for (unsigned i = 1; i < count; i++)
        if (!entries[i].bytes ||
            (entries[i - 1].bytes &&
             shardkey_compare(keyspace->type, entries[i - 1].bytes, entries[i - 1].length,
                              entries[i].bytes, entries[i].length) == 0))
            return false;
    return true;
}

bool shardmap_set_entries(struct shardmap *map, int keyspace, const struct key_entry *entries,
                          unsigned count, unsigned rest)
{
    struct keyspace *k = shardmap_edit(map, keyspace);
    unsigned nbuckets = count + (rest != SHARDMAP_NO_BUCKET);
    if (nbuckets == 0 || nbuckets > SHARDKEY_BUCKETS ||
        (rest != SHARDMAP_NO_BUCKET && rest >= nbuckets))
        return false;
    bool *met = arena_array(shardmap_arena(map), bool, nbuckets);
    if (rest != SHARDMAP_NO_BUCKET)
        met[rest] = true;
    for (unsigned i = 0; i < count; i++) {
        if (entries[i].bucket >= nbuckets || met[entries[i].bucket])
            return false;
        met[entries[i].bucket] = true;
    }
    struct key_entry *copy = copy_entries(map, entries, count, count);
    shardmap_sort_entries(k->type, copy, count);
    if (!are_in_order(k, copy, count))
        return false;
    k->entries = copy;
    k->nentries = count;
    k->rest = rest;
    k->nbuckets = nbuckets;
    shardmap_count(map, k, 0);
    return true;
}

static unsigned add_bucket(struct shardmap *map, struct keyspace *keyspace, unsigned shard)
{
    unsigned bucket = keyspace->nbuckets++;
    keyspace->bucket_shard[bucket] = (uint16_t)shard;
    shardmap_count(map, keyspace, keyspace->nbuckets);
    return bucket;
}

unsigned shardmap_split(struct shardmap *map, int keyspace, const struct shardkey *key,
                        unsigned shard)
{
    struct keyspace *k = shardmap_edit(map, keyspace);
    unsigned before = keyspace_value_bucket(k, key);
    const struct key_entry *entry = before == SHARDMAP_NO_BUCKET ? NULL : keyspace_entry(k, before);
    if (entry && entry->bytes &&
        shardkey_compare(k->type, entry->bytes, entry->length, key->bytes, key->length) == 0)
        return before;
    if (k->nbuckets >= SHARDKEY_BUCKETS)
        return SHARDMAP_NO_BUCKET;
    struct key_entry *entries = copy_entries(map, k->entries, k->nentries, k->nentries + 1);
    unsigned owner = before == SHARDMAP_NO_BUCKET ? shard : k->bucket_shard[before];
    unsigned bucket = add_bucket(map, k, owner);
    entries[k->nentries++] =
        (struct key_entry){.bytes = (const unsigned char *)arena_strndup(
                               shardmap_arena(map), (const char *)key->bytes, key->length),
                           .length = key->length,
                           .shard = owner,
                           .bucket = bucket};
    shardmap_sort_entries(k->type, entries, k->nentries);
    k->entries = entries;
    return bucket;
}

unsigned shardmap_add_rest(struct shardmap *map, int keyspace, unsigned shard)
{
    struct keyspace *k = shardmap_edit(map, keyspace);
    if (k->rest == SHARDMAP_NO_BUCKET && k->nbuckets < SHARDKEY_BUCKETS)
        k->rest = add_bucket(map, k, shard);
    return k->rest;
}

const struct key_entry *keyspace_entry(const struct keyspace *keyspace, unsigned bucket)
{
    for (unsigned i = 0; i < keyspace->nentries; i++)
        if (keyspace->entries[i].bucket == bucket)
            return &keyspace->entries[i];
    return NULL;
}

/* ---- texts ---- */

const char *keyspace_kind(const struct keyspace *keyspace)
{
    return keyspace->map == MAP_LIST         ? "list"
           : keyspace->map == MAP_RANGE      ? "range"
           : keyspace->hash == HASH_POSTGRES ? "postgres"
                                             : "hash";
}

static const char *value_text(const struct keyspace *keyspace, const struct key_entry *entry,
                              struct arena *arena)
{
    return shardkey_text(keyspace->type, entry->bytes, entry->length, arena);
}

/* From one entry to before another, which is NULL at the end of all. */
static const char *interval_text(const struct keyspace *keyspace, const struct key_entry *from,
                                 const struct key_entry *to, struct arena *arena)
{
    return arena_printf(arena, "[%s,%s)",
                        from->bytes ? value_text(keyspace, from, arena) : "MINVALUE",
                        to ? value_text(keyspace, to, arena) : "MAXVALUE");
}

/* Which buckets are meant: of a shard, or first..last. */
struct chosen {
    bool by_shard;
    unsigned shard, first, last;
};

static bool is_chosen(const struct keyspace *keyspace, const struct chosen *chosen, unsigned bucket)
{
    if (chosen->by_shard)
        return keyspace->bucket_shard[bucket] == chosen->shard;
    return bucket >= chosen->first && bucket <= chosen->last;
}

static void join(struct buffer *out, const char *more)
{
    buffer_printf(out, "%s%s", buffer_length(out) ? "," : "", more);
}

static void put_intervals(struct buffer *out, const struct keyspace *keyspace,
                          const struct chosen *chosen, struct arena *arena)
{
    unsigned count = keyspace->nentries;
    for (unsigned i = 0; i < count; i++) {
        unsigned end = i;
        while (end < count && is_chosen(keyspace, chosen, keyspace->entries[end].bucket))
            end++;
        if (end == i)
            continue;
        const struct key_entry *to = end < count ? &keyspace->entries[end] : NULL;
        join(out, interval_text(keyspace, &keyspace->entries[i], to, arena));
        i = end;
    }
}

static void put_values(struct buffer *out, const struct keyspace *keyspace,
                       const struct chosen *chosen, struct arena *arena)
{
    for (unsigned i = 0; i < keyspace->nentries; i++)
        if (is_chosen(keyspace, chosen, keyspace->entries[i].bucket))
            join(out, value_text(keyspace, &keyspace->entries[i], arena));
    if (keyspace->rest != SHARDMAP_NO_BUCKET && is_chosen(keyspace, chosen, keyspace->rest))
        join(out, "DEFAULT");
}

static void put_numbers(struct buffer *out, const struct keyspace *keyspace,
                        const struct chosen *chosen)
{
    for (unsigned i = 0, end; i < keyspace->nbuckets; i = end + 1) {
        for (end = i; end < keyspace->nbuckets && is_chosen(keyspace, chosen, end);)
            end++;
        if (end > i)
            buffer_printf(out, "%s%u-%u", buffer_length(out) ? "," : "", i, end - 1);
    }
}

static const char *chosen_text(const struct keyspace *keyspace, const struct chosen *chosen,
                               struct arena *arena)
{
    struct buffer out = {0};
    if (keyspace->map == MAP_RANGE)
        put_intervals(&out, keyspace, chosen, arena);
    else if (keyspace->map == MAP_LIST)
        put_values(&out, keyspace, chosen, arena);
    else
        put_numbers(&out, keyspace, chosen);
    const char *text = arena_strndup(arena, buffer_head(&out), buffer_length(&out));
    buffer_free_data(&out);
    return text;
}

const char *keyspace_owned_text(const struct keyspace *keyspace, unsigned shard,
                                struct arena *arena)
{
    struct chosen chosen = {.by_shard = true, .shard = shard};
    return chosen_text(keyspace, &chosen, arena);
}

const char *keyspace_buckets_text(const struct keyspace *keyspace, unsigned first, unsigned last,
                                  struct arena *arena)
{
    struct chosen chosen = {.first = first, .last = last};
    if (keyspace->map != MAP_HASH)
        return chosen_text(keyspace, &chosen, arena);
    return first == last ? arena_printf(arena, "bucket %u", first)
                         : arena_printf(arena, "buckets %u-%u (%u)", first, last, last - first + 1);
}
