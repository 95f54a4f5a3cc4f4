/* bucket_load.c: counters of statements by bucket, made when the first of a keyspace is counted. */
#include "proxy/bucket_load.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SINGLE_MOST 256  /* buckets of a keyspace that are told alone */
#define SINGLE_PART 1000 /* ... each at least that part of all */

/* Never freed: as many as keyspaces were ever configured. */
struct counters {
    struct counters *next;
    const char *database, *keyspace;
    _Atomic uint32_t counts[SHARDKEY_BUCKETS];
};

static _Atomic(struct counters *) all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of who adds one */

static struct counters *find(const char *database, const char *keyspace)
{
    struct counters *one = atomic_load_explicit(&all, memory_order_acquire);
    while (one && (strcmp(one->keyspace, keyspace) != 0 || strcmp(one->database, database) != 0))
        one = one->next;
    return one;
}

static struct counters *make(const char *database, const char *keyspace)
{
    pthread_mutex_lock(&lock);
    struct counters *one = find(database, keyspace);
    if (!one) {
        one = mem_alloc(sizeof *one);
        one->database = mem_strdup(database);
        one->keyspace = mem_strdup(keyspace);
        one->next = atomic_load(&all);
        atomic_store_explicit(&all, one, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return one;
}

void bucket_load_note(const char *database, const char *keyspace, unsigned bucket)
{
    struct counters *counters = find(database, keyspace);
    if (!counters)
        counters = make(database, keyspace);
    if (bucket < SHARDKEY_BUCKETS)
        atomic_fetch_add_explicit(&counters->counts[bucket], 1, memory_order_relaxed);
}

static int hotter_first(const void *left, const void *right)
{
    double a = ((const struct catalog_load *)left)->statements,
           b = ((const struct catalog_load *)right)->statements;
    return (a < b) - (a > b);
}

int bucket_load_take(const char *database, const struct shardmap *map,
                     const struct keyspace *keyspace, struct arena *arena,
                     struct catalog_load **loads)
{
    struct counters *counters = find(database, keyspace->name);
    if (!counters)
        return 0;
    unsigned nshards = shardmap_shards(map);
    struct catalog_load *list =
        arena_array(arena, struct catalog_load, keyspace->nbuckets + nshards);
    double *rest = arena_array(arena, double, nshards), sum = 0;
    int count = 0, single = 0;
    for (unsigned b = 0; b < keyspace->nbuckets; b++) {
        double counted = atomic_exchange_explicit(&counters->counts[b], 0, memory_order_relaxed);
        sum += counted;
        if (counted > 0)
            list[count++] = (struct catalog_load){
                .keyspace = keyspace->name, .bucket = b, .statements = counted * LOAD_SAMPLE};
    }
    qsort(list, (size_t)count, sizeof *list, hotter_first);
    for (; single < count && single < SINGLE_MOST; single++)
        if (list[single].statements * SINGLE_PART < sum * LOAD_SAMPLE)
            break;
    for (int i = single; i < count; i++)
        rest[keyspace->bucket_shard[list[i].bucket]] += list[i].statements;
    for (unsigned s = 0; s < nshards; s++)
        if (rest[s] > 0)
            list[single++] = (struct catalog_load){.keyspace = keyspace->name,
                                                   .bucket = SHARDMAP_NO_BUCKET,
                                                   .shard = shardmap_shard_name(map, s),
                                                   .statements = rest[s]};
    *loads = list;
    return single;
}
