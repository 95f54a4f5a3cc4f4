/* shardmap_values.c: keyspaces by list and by range: values in order, and the shard of each. */
#include <stdlib.h>
#include <string.h>

#include "pgshunt/shardmap.h"

/* Integers are two's complement: with the sign turned around their bytes are in order, too. */
static int first_byte(enum key_type type, const unsigned char *bytes)
{
    return type == KEY_BIGINT ? bytes[0] ^ 0x80 : bytes[0];
}

int shardkey_compare(enum key_type type, const unsigned char *a, size_t a_length,
                     const unsigned char *b, size_t b_length)
{
    size_t common = a_length < b_length ? a_length : b_length;
    if (common) {
        int difference = first_byte(type, a) - first_byte(type, b);
        if (difference == 0)
            difference = memcmp(a, b, common);
        if (difference != 0)
            return difference;
    }
    return (a_length > b_length) - (a_length < b_length);
}

static int compare_entries(const void *left, const void *right, void *type)
{
    const struct key_entry *a = left, *b = right;
    if (!a->bytes || !b->bytes)
        return (a->bytes != NULL) - (b->bytes != NULL);
    return shardkey_compare(*(enum key_type *)type, a->bytes, a->length, b->bytes, b->length);
}

void shardmap_sort_entries(enum key_type type, struct key_entry *entries, unsigned count)
{
    if (count)
        qsort_r(entries, count, sizeof *entries, compare_entries, &type);
}

/* How many entries are not above the value. */
static unsigned entries_up_to(const struct keyspace *keyspace, const struct shardkey *key)
{
    unsigned low = 0, high = keyspace->nentries;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const struct key_entry *entry = &keyspace->entries[middle];
        if (entry->bytes && shardkey_compare(keyspace->type, entry->bytes, entry->length,
                                             key->bytes, key->length) > 0)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool entry_is(const struct keyspace *keyspace, unsigned index, const struct shardkey *key)
{
    const struct key_entry *entry = &keyspace->entries[index];
    return entry->bytes && shardkey_compare(keyspace->type, entry->bytes, entry->length, key->bytes,
                                            key->length) == 0;
}

unsigned keyspace_value_bucket(const struct keyspace *keyspace, const struct shardkey *key)
{
    unsigned after = entries_up_to(keyspace, key);
    if (keyspace->map == MAP_LIST && (after == 0 || !entry_is(keyspace, after - 1, key)))
        return keyspace->rest;
    return after ? keyspace->entries[after - 1].bucket : SHARDMAP_NO_BUCKET;
}

void keyspace_range(const struct keyspace *keyspace, const struct shardkey *low,
                    const struct shardkey *high, bool before, unsigned *first, unsigned *end)
{
    *first = low ? entries_up_to(keyspace, low) - 1 : 0;
    *end = keyspace->nentries;
    if (high)
        *end = entries_up_to(keyspace, high);
    if (high && before && *end > 0 && entry_is(keyspace, *end - 1, high))
        --*end; /* an interval that begins where the range ends */
    if (*end < *first)
        *end = *first;
}

unsigned shardmap_entries_of(const struct keyspace *keyspace, unsigned shard)
{
    unsigned count = 0;
    for (unsigned i = 0; i < keyspace->nentries; i++)
        count += keyspace->bucket_shard[keyspace->entries[i].bucket] == shard;
    return count;
}
