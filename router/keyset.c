/* keyset.c: a hash table of items by the bytes of their keys. */
#include "router/keyset.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "pgshunt/arena.h"

#define FIRST_CAPACITY 16

uint64_t keyset_hash(const char *key, size_t length)
{
    return XXH3_64bits(key, length);
}

void keyset_want_slot(const struct keyset *set, uint64_t hash)
{
    if (set->capacity)
        __builtin_prefetch(&set->slots[hash & (set->capacity - 1)]);
}

void keyset_want_item(const struct keyset *set, uint64_t hash)
{
    if (set->capacity)
        __builtin_prefetch(set->slots[hash & (set->capacity - 1)].item);
}

struct keyset_item *keyset_find(const struct keyset *set, uint64_t hash, const char *key,
                                size_t length)
{
    if (!set->capacity)
        return NULL;
    size_t mask = set->capacity - 1;
    for (size_t at = hash & mask; set->slots[at].item; at = (at + 1) & mask) {
        struct keyset_item *item = set->slots[at].item;
        if (set->slots[at].hash == hash && item->length == length &&
            memcmp(item->key, key, length) == 0)
            return item;
    }
    return NULL;
}

static void put(struct keyset *set, struct keyset_slot slot)
{
    size_t mask = set->capacity - 1, at = slot.hash & mask;
    while (set->slots[at].item)
        at = (at + 1) & mask;
    set->slots[at] = slot;
}

static void grow(struct keyset *set)
{
    struct keyset_slot *old = set->slots;
    size_t before = set->capacity;
    set->capacity = before ? before * 2 : FIRST_CAPACITY;
    set->slots = mem_alloc(sizeof *set->slots * set->capacity);
    for (size_t i = 0; i < before; i++)
        if (old[i].item)
            put(set, old[i]);
    free(old);
}

void keyset_add(struct keyset *set, uint64_t hash, struct keyset_item *item)
{
    if (set->count * 2 >= set->capacity)
        grow(set);
    put(set, (struct keyset_slot){hash, item});
    set->count++;
}

void keyset_free(struct keyset *set)
{
    free(set->slots);
    *set = (struct keyset){0};
}
