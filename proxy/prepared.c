/* prepared.c: the worker's table of prepared statements by content. */
#include "proxy/prepared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "proxy/listen.h"
#include "proxy/names.h"
#include "proxy/session.h"

#define UNUSED_MAX 256 /* entries kept that nobody holds */
#define UNUSED_SIZE_MAX                                                                            \
    16384 /* ... unless they are larger: values written into SQL do not repeat */

/* Drawn at start: nobody outside can make two texts meet in one entry. */
static uint64_t secret;

void prepared_seed(uint64_t random)
{
    secret = random;
}

void prepared_name(const struct prepared_key *key, char name[PREPARED_NAME_SIZE])
{
    snprintf(name, PREPARED_NAME_SIZE, PREPARED_PREFIX "%012llx%016llx",
             (unsigned long long)key->high & 0xffffffffffffULL, (unsigned long long)key->low);
}

static struct prepared_key content_key(uint64_t kind, const char *sql, const uint32_t *types,
                                       int ntypes)
{
    XXH64_hash_t seed = kind;
    if (ntypes)
        seed = XXH3_64bits_withSeed(types, sizeof *types * (size_t)ntypes, kind);
    XXH128_hash_t hash = XXH3_128bits_withSeed(sql, strlen(sql), seed);
    return (struct prepared_key){hash.low64, hash.high64};
}

static bool is_plain(const struct statement_list *list)
{
    const struct statement *statement = list->count == 1 ? list->items[0] : NULL;
    return !list->count || (statement && statement->kind == STMT_QUERY &&
                            !(statement->facts & FACT_SESSION) && !listen_is_question(statement));
}

/* Transaction control, and what concerns pgshunt itself. */
static bool is_own(const struct statement_list *list)
{
    if (list->count != 1)
        return false;
    const struct statement *statement = list->items[0];
    switch ((int)statement->kind) {
    case STMT_BEGIN:
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_PREPARE:
    case STMT_DEALLOCATE:
    case STMT_LISTEN:
    case STMT_UNLISTEN:
        return true;
    case STMT_QUERY:
        return listen_is_question(statement);
    default:
        return statement_is_own(statement);
    }
}

static struct prepared *add_entry(struct prepared_table *table, const struct prepared_key *key,
                                  const char *sql, const uint32_t *types, int ntypes)
{
    struct prepared *prepared = mem_alloc(sizeof *prepared);
    prepared->key = *key;
    arena_init(&prepared->arena);
    prepared->sql = arena_strdup(&prepared->arena, sql);
    prepared->types = arena_array(&prepared->arena, uint32_t, ntypes);
    if (ntypes)
        memcpy(prepared->types, types, sizeof *types * (size_t)ntypes);
    prepared->ntypes = ntypes;
    prepared->statements = statement_parse(prepared->sql, &prepared->arena);
    prepared->own = is_own(&prepared->statements);
    prepared->plain = is_plain(&prepared->statements);
    prepared_name(key, prepared->server_name);
    HASH_ADD(hh, table->entries, key, sizeof prepared->key, prepared);
    return prepared;
}

static struct prepared *find_entry(struct prepared_table *table, const struct prepared_key *key)
{
    struct prepared *prepared;
    HASH_FIND(hh, table->entries, key, sizeof *key, prepared);
    if (prepared && !prepared->references) {
        list_remove(&prepared->unused);
        table->nunused--;
    }
    return prepared;
}

struct prepared *prepared_get(struct prepared_table *table, const char *sql, const uint32_t *types,
                              int ntypes)
{
    struct prepared_key key = content_key(secret, sql, types, ntypes);
    struct prepared *prepared = find_entry(table, &key);
    return prepared_ref(prepared ? prepared : add_entry(table, &key, sql, types, ntypes));
}

struct prepared *prepared_get_sql(struct prepared_table *table, const char *sql, const char *tail)
{
    /* Another kind of hash: no Parse can have the same key. */
    struct prepared_key key = content_key(~secret, tail, NULL, 0);
    struct prepared *prepared = find_entry(table, &key);
    if (!prepared) {
        prepared = add_entry(table, &key, sql, NULL, 0);
        prepared->prepare_sql =
            arena_printf(&prepared->arena, "PREPARE %s %s", prepared->server_name, tail);
    }
    return prepared_ref(prepared);
}

static void free_entry(struct prepared_table *table, struct prepared *prepared)
{
    struct prepared *uses = prepared->uses, *routed = prepared->routed;
    HASH_DEL(table->entries, prepared);
    arena_free(&prepared->arena);
    free(prepared);
    prepared_unref(table, uses);
    prepared_unref(table, routed);
}

static void drop_oldest(struct prepared_table *table)
{
    struct prepared *oldest = list_entry(table->unused.prev, struct prepared, unused);
    list_remove(&oldest->unused);
    table->nunused--;
    free_entry(table, oldest);
}

void prepared_unused(struct prepared_table *table, struct prepared *prepared)
{
    if (prepared->arena.total > UNUSED_SIZE_MAX) {
        free_entry(table, prepared);
        return;
    }
    list_push_front(&table->unused, &prepared->unused);
    if (++table->nunused > UNUSED_MAX)
        drop_oldest(table);
}

void prepared_table_init(struct prepared_table *table)
{
    *table = (struct prepared_table){0};
    list_init(&table->unused);
}

void prepared_table_free(struct prepared_table *table)
{
    while (!list_empty(&table->unused))
        drop_oldest(table);
    names_free_spares(table);
}
