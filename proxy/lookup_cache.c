/* lookup_cache.c: the shards where values of unique lookups were last seen; those used longest ago go first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pgshunt/arena.h"
#include "proxy/lookup_internal.h"

/* By "database/function" and the value. */
struct lookup_entry {
    struct lookup_stats *stats;
    unsigned shard;
    bool distrusted;
    UT_hash_handle hh;
    size_t length;
    char bytes[]; /* the stats' address, then the value */
};

struct lookup_stats *lookup_stats_of(struct lookups *lookups, const char *database,
                                     const struct lookup_rule *lookup)
{
    char name[200];
    struct lookup_stats *stats;
    size_t length = (size_t)snprintf(name, sizeof name, "%s/%s", database, lookup->function);
    HASH_FIND(hh, lookups->stats, name, length, stats);
    if (stats)
        return stats;
    stats = mem_alloc(sizeof *stats);
    stats->name = mem_strdup(name);
    HASH_ADD_KEYPTR(hh, lookups->stats, stats->name, length, stats);
    return stats;
}

#define VALUE_MAX 1024 /* of those that the router asks for */

static struct lookup_entry *find(struct lookups *lookups, struct lookup_stats *stats,
                                 const char *value)
{
    char bytes[sizeof stats + VALUE_MAX];
    struct lookup_entry *entry;
    size_t length = strlen(value);
    if (length > VALUE_MAX)
        return NULL;
    memcpy(bytes, &stats, sizeof stats);
    memcpy(bytes + sizeof stats, value, length);
    HASH_FIND(hh, lookups->cache, bytes, sizeof stats + length, entry);
    return entry;
}

static void drop(struct lookups *lookups, struct lookup_entry *entry)
{
    entry->stats->cached--;
    HASH_DEL(lookups->cache, entry);
    free(entry);
}

static void add(struct lookups *lookups, struct lookup_entry *entry)
{
    HASH_ADD_KEYPTR(hh, lookups->cache, entry->bytes, entry->length, entry);
}

int lookup_cache_get(struct lookups *lookups, const char *database,
                     const struct lookup_rule *lookup, const char *value, bool *guess)
{
    struct lookup_entry *entry = find(lookups, lookup_stats_of(lookups, database, lookup), value);
    if (!entry)
        return -1;
    HASH_DEL(lookups->cache, entry); /* to the end of the line */
    add(lookups, entry);
    *guess = !entry->distrusted;
    return (int)entry->shard;
}

void lookup_cache_distrust(struct lookups *lookups, const char *database,
                           const struct lookup_rule *lookup, const char *value)
{
    struct lookup_entry *entry = find(lookups, lookup_stats_of(lookups, database, lookup), value);
    if (entry)
        entry->distrusted = true;
}

/* Each worker has its share. */
static size_t most(const struct lookups *lookups)
{
    const struct worker *worker = lookups->worker;
    size_t all = (size_t)worker->topology->config->lookup_cache;
    size_t workers = (size_t)worker->daemon->nworkers;
    return (all + workers - 1) / workers;
}

void lookup_cache_put(struct lookups *lookups, const char *database,
                      const struct lookup_rule *lookup, const char *value, unsigned shard)
{
    struct lookup_stats *stats = lookup_stats_of(lookups, database, lookup);
    struct lookup_entry *entry = find(lookups, stats, value);
    size_t length = strlen(value);
    if (entry) {
        entry->shard = shard;
        return;
    }
    while (lookups->cache && HASH_COUNT(lookups->cache) >= most(lookups))
        drop(lookups, lookups->cache);
    if (!most(lookups) || length > VALUE_MAX)
        return;
    entry = mem_alloc(sizeof *entry + sizeof stats + length);
    entry->stats = stats;
    entry->shard = shard;
    entry->distrusted = false;
    entry->length = sizeof stats + length;
    memcpy(entry->bytes, &stats, sizeof stats);
    memcpy(entry->bytes + sizeof stats, value, length);
    add(lookups, entry);
    stats->cached++;
}

void lookup_cache_forget(struct lookups *lookups, const char *database,
                         const struct lookup_rule *lookup, const char *value)
{
    struct lookup_entry *entry = find(lookups, lookup_stats_of(lookups, database, lookup), value);
    if (entry)
        drop(lookups, entry);
}

void lookup_cache_free(struct lookups *lookups)
{
    while (lookups->cache)
        drop(lookups, lookups->cache);
    struct lookup_stats *stats, *next;
    HASH_ITER(hh, lookups->stats, stats, next)
    {
        HASH_DEL(lookups->stats, stats);
        free(stats->name);
        free(stats);
    }
}
