/*
 * keyset.h: items found by the bytes of their keys: the groups and the distinct rows of a merge, millions of them.
 *
 * Open addressing with linear probing in one array of (hash, item), at most half full: a look-up costs a
 * cache miss there and one for the item, whatever the number of items. Items are only ever added.
 */
#ifndef PGSHUNT_ROUTER_KEYSET_H
#define PGSHUNT_ROUTER_KEYSET_H

#include <stddef.h>
#include <stdint.h>

/* Begins an item. The item and the bytes of its key are the caller's and outlive the set. */
struct keyset_item {
    const char *key;
    size_t length;
};

struct keyset_slot {
    uint64_t hash;
    struct keyset_item *item; /* NULL: free */
};

/* All zero: empty. */
struct keyset {
    struct keyset_slot *slots; /* owned */
    size_t capacity;           /* 0, or a power of 2 */
    size_t count;
};

/* What a key is looked for and added with. */
uint64_t keyset_hash(const char *key, size_t length);
/* Asks for the memory that keyset_find() will look at: first all of some keys' slots, then all of their items. */
void keyset_want_slot(const struct keyset *set, uint64_t hash);
void keyset_want_item(const struct keyset *set, uint64_t hash);
/* NULL: it is not there. */
struct keyset_item *keyset_find(const struct keyset *set, uint64_t hash, const char *key,
                                size_t length);
/* The item's key must not be there yet. */
void keyset_add(struct keyset *set, uint64_t hash, struct keyset_item *item);
/* Forgets all items and gives the memory back. */
void keyset_free(struct keyset *set);

#endif
