/* ghostkeys.c: collects keys of moving rows and inserts them, many at a time, as arrays. */
#include "resharder/ghostkeys.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"
#include "pgshunt/buffer.h"
#include "pgshunt/pgtypes.h"
#include "pgshunt/wire.h"
#include "resharder/tables.h"

#define REMEMBERED 65536        /* keys; a power of two */
#define BYTES_MANY (512 * 1024) /* long texts */

/* What is waiting of one keyspace: the elements of one array for each column. */
struct waiting {
    const struct keyspace *keyspace;
    struct buffer columns[SHARDMAP_MAX_PARTS];
    unsigned ncolumns;
    int count;
    const char *statement;
};

struct ghostkeys {
    struct arena arena;
    struct waiting *waiting; /* one per keyspace of the map */
    unsigned nkeyspaces;
    XXH128_hash_t *remembered; /* by the hash's low bits; the newest stays */
};

/* ---- beginning and end ---- */

static const char *statement_of(struct arena *arena, const struct keyspace *keyspace, unsigned n)
{
    static const char *const types[] = {"bigint", "uuid", "text"};
    const char *arrays = "";
    for (unsigned i = 0; i < n; i++)
        arrays = arena_printf(arena, "%s%sunnest($%u::%s[])", arrays, i ? ", " : "", i + 1,
                              types[keyspace->nparts ? keyspace->types[i] : keyspace->type]);
    return arena_printf(arena, "INSERT INTO %s SELECT %s ON CONFLICT DO NOTHING",
                        tables_ghost(keyspace, arena), arrays);
}

struct ghostkeys *ghostkeys_new(const struct shardmap *map)
{
    struct ghostkeys *ghosts = mem_alloc(sizeof *ghosts);
    arena_init(&ghosts->arena);
    ghosts->nkeyspaces = shardmap_keyspaces(map);
    ghosts->waiting = arena_array(&ghosts->arena, struct waiting, ghosts->nkeyspaces + 1);
    ghosts->remembered = mem_alloc(REMEMBERED * sizeof *ghosts->remembered);
    for (unsigned i = 0; i < ghosts->nkeyspaces; i++) {
        struct waiting *waiting = &ghosts->waiting[i];
        waiting->keyspace = shardmap_keyspace(map, i);
        waiting->ncolumns = waiting->keyspace->nparts ? waiting->keyspace->nparts : 1;
        waiting->statement = statement_of(&ghosts->arena, waiting->keyspace, waiting->ncolumns);
    }
    return ghosts;
}

void ghostkeys_free(struct ghostkeys *ghosts)
{
    if (!ghosts)
        return;
    for (unsigned i = 0; i < ghosts->nkeyspaces; i++)
        for (unsigned j = 0; j < SHARDMAP_MAX_PARTS; j++)
            buffer_release(&ghosts->waiting[i].columns[j]);
    free(ghosts->remembered);
    arena_free(&ghosts->arena);
    free(ghosts);
}

/* ---- collecting ---- */

/* 128 bits: two keys that are taken for one another are out of the question. */
static XXH128_hash_t hash_of(unsigned keyspace, unsigned count, const struct shardkey *keys)
{
    XXH128_hash_t hash = {.low64 = keyspace, .high64 = count};
    for (unsigned i = 0; i < count; i++) {
        XXH128_hash_t next =
            XXH3_128bits_withSeed(keys[i].bytes, keys[i].length, hash.low64 ^ (hash.high64 << 1));
        hash.low64 ^= next.low64 + i;
        hash.high64 = next.high64 ^ (hash.high64 * 31);
    }
    return hash;
}

/* Whether it was there; it is now. */
static bool remember(struct ghostkeys *ghosts, XXH128_hash_t hash)
{
    XXH128_hash_t *place = &ghosts->remembered[hash.low64 & (REMEMBERED - 1)];
    bool known = XXH128_isEqual(*place, hash) != 0;
    *place = hash;
    return known;
}

void ghostkeys_add(struct ghostkeys *ghosts, const struct keyspace *keyspace,
                   const struct shardkey *keys)
{
    unsigned index = 0;
    while (index < ghosts->nkeyspaces && ghosts->waiting[index].keyspace != keyspace)
        index++;
    if (index == ghosts->nkeyspaces)
        abort(); /* moves and ghosts are of one map */
    struct waiting *waiting = &ghosts->waiting[index];
    if (remember(ghosts, hash_of(index, waiting->ncolumns, keys)))
        return;
    for (unsigned i = 0; i < waiting->ncolumns; i++) {
        wire_put32(&waiting->columns[i], (int64_t)keys[i].length);
        buffer_append(&waiting->columns[i], keys[i].bytes, keys[i].length);
    }
    waiting->count++;
}

static bool is_full(const struct waiting *waiting)
{
    if (waiting->count >= GHOSTKEYS_MANY)
        return true;
    for (unsigned i = 0; i < waiting->ncolumns; i++)
        if (buffer_length(&waiting->columns[i]) > BYTES_MANY)
            return true;
    return false;
}

bool ghostkeys_full(const struct ghostkeys *ghosts)
{
    for (unsigned i = 0; i < ghosts->nkeyspaces; i++)
        if (is_full(&ghosts->waiting[i]))
            return true;
    return false;
}

bool ghostkeys_empty(const struct ghostkeys *ghosts)
{
    for (unsigned i = 0; i < ghosts->nkeyspaces; i++)
        if (ghosts->waiting[i].count)
            return false;
    return true;
}

/* ---- sending ---- */

static uint32_t element_type(const struct keyspace *keyspace, unsigned column)
{
    static const uint32_t oids[] = {OID_INT8, OID_UUID, OID_TEXT};
    return oids[keyspace->nparts ? keyspace->types[column] : keyspace->type];
}

/* A key's elements, each with its length ahead, where the columns have them. */
struct place {
    const char *elements[SHARDMAP_MAX_PARTS];
};

static size_t element_length(const char *element)
{
    return 4 + (size_t)wire_get32(element);
}

static int compare_places(const void *a, const void *b)
{
    const char *one = ((const struct place *)a)->elements[0];
    const char *other = ((const struct place *)b)->elements[0];
    size_t n = element_length(one) - 4, m = element_length(other) - 4;
    int difference = memcmp(one + 4, other + 4, n < m ? n : m);
    return difference ? difference : (n > m) - (n < m);
}

/* The caller's to free. */
static struct place *sorted_places(const struct waiting *waiting)
{
    struct place *places = mem_alloc((size_t)waiting->count * sizeof *places);
    for (unsigned i = 0; i < waiting->ncolumns; i++) {
        const char *next = buffer_head(&waiting->columns[i]);
        for (int k = 0; k < waiting->count; k++) {
            places[k].elements[i] = next;
            next += element_length(next);
        }
    }
    qsort(places, (size_t)waiting->count, sizeof *places, compare_places);
    return places;
}

/* An array in binary form: one dimension, no NULLs, from 1. */
static void put_array(struct buffer *out, const struct waiting *waiting, const struct place *places,
                      unsigned column)
{
    wire_put32(out, 1);
    wire_put32(out, 0);
    wire_put32(out, element_type(waiting->keyspace, column));
    wire_put32(out, waiting->count);
    wire_put32(out, 1);
    buffer_reserve(out, buffer_length(&waiting->columns[column]));
    for (int k = 0; k < waiting->count; k++)
        buffer_append(out, places[k].elements[column], element_length(places[k].elements[column]));
}

static bool send_waiting(struct waiting *waiting, struct pipe *pipe)
{
    const char *values[SHARDMAP_MAX_PARTS];
    int lengths[SHARDMAP_MAX_PARTS], formats[SHARDMAP_MAX_PARTS];
    struct buffer arrays[SHARDMAP_MAX_PARTS] = {{0}};
    struct place *places = sorted_places(waiting);
    for (unsigned i = 0; i < waiting->ncolumns; i++) {
        put_array(&arrays[i], waiting, places, i);
        values[i] = buffer_head(&arrays[i]);
        lengths[i] = (int)buffer_length(&arrays[i]);
        formats[i] = 1;
    }
    for (unsigned i = 0; i < waiting->ncolumns; i++)
        buffer_clear(&waiting->columns[i]);
    waiting->count = 0;
    free(places);
    struct pipe_parameters parameters = {(int)waiting->ncolumns, values, lengths, formats};
    bool good = pipe_query(pipe, waiting->statement, &parameters, NULL);
    for (unsigned i = 0; i < waiting->ncolumns; i++)
        buffer_release(&arrays[i]);
    return good;
}

bool ghostkeys_send(struct ghostkeys *ghosts, struct pipe *pipe)
{
    for (unsigned i = 0; i < ghosts->nkeyspaces; i++)
        if (ghosts->waiting[i].count && !send_waiting(&ghosts->waiting[i], pipe))
            return false;
    return true;
}
