/*
 * schema.c: the catalog snapshot behind the router: relations and function volatility by name.
 *
 * Four hash tables, built once and only read afterwards, so that any number of threads may look things
 * up without a lock: relations and functions, each by "schema.name" and by name alone. What an
 * unqualified name means is decided while building, so every lookup is one probe. All entries and
 * strings live in the snapshot's arena; only the tables' bucket arrays are malloc'ed (by uthash).
 */
#include "pgshunt/schema.h"

#include <string.h>

#include <xxhash.h>

#include "pgshunt/arena.h"

#define uthash_malloc(size) mem_alloc(size)
/* Looked into for every statement: uthash's own function costs several times as much. */
#define HASH_FUNCTION(key, length, hash) ((hash) = (unsigned)XXH3_64bits(key, length))
#include <uthash.h>

/* Two names of 63 bytes fit many times over; nothing longer can be in a catalog. */
#define KEY_MAX 512

struct relation_entry {
    UT_hash_handle hh;
    const struct schema_relation *relation; /* NULL by name alone: ambiguous */
    const struct schema_relation *any;      /* never NULL */
    int rank;                               /* by name alone: how strongly the name means it */
    /* what schema_suspects() tells */
    struct schema_relation *chain; /* all of them */
    bool odd;                      /* one of them is no plain table */
};

struct function_entry {
    UT_hash_handle hh;
    enum volatility volatility;
    bool outside_catalog; /* by name alone: some schema other than pg_catalog has one */
};

struct schema {
    struct arena arena;
    struct relation_entry *relations; /* key: schema, NUL, name */
    struct relation_entry *relation_names;
    struct function_entry *functions; /* key: schema, NUL, name */
    struct function_entry *function_names;
    const char *collate;
    char collation_provider;
    struct role_path *paths;
};

/* A search_path that is set for a role, or for all. */
struct role_path {
    const char *role; /* NULL: all */
    bool here;
    const char *path;
    struct role_path *next;
};

struct key {
    char bytes[KEY_MAX];
    size_t length; /* 0: too long to be in any catalog */
};

static void make_key(const char *schema_name, const char *name, struct key *key)
{
    size_t first = strlen(schema_name) + 1, second = strlen(name);
    key->length = 0;
    if (first + second > KEY_MAX)
        return;
    memcpy(key->bytes, schema_name, first);
    memcpy(key->bytes + first, name, second);
    key->length = first + second;
}

struct schema *schema_new(void)
{
    struct schema *schema = mem_alloc(sizeof *schema);
    arena_init(&schema->arena);
    schema->collate = "C";
    schema->collation_provider = 'c';
    return schema;
}

void schema_free(struct schema *schema)
{
    if (!schema)
        return;
    HASH_CLEAR(hh, schema->relations);
    HASH_CLEAR(hh, schema->relation_names);
    HASH_CLEAR(hh, schema->functions);
    HASH_CLEAR(hh, schema->function_names);
    arena_free(&schema->arena);
    free(schema);
}

static struct schema_relation *copy_relation(struct arena *arena,
                                             const struct schema_relation *from)
{
    struct schema_relation *to = arena_new(arena, struct schema_relation);
    *to = *from;
    to->schema = arena_strdup(arena, from->schema);
    to->name = arena_strdup(arena, from->name);
    if (from->parent) {
        to->parent_schema = arena_strdup(arena, from->parent_schema);
        to->parent = arena_strdup(arena, from->parent);
    }
    to->parts = NULL;
    to->resolved = to->invoker = false;
    to->definition = NULL;
    to->other = NULL;
    to->columns = arena_array(arena, struct schema_column, from->ncolumns);
    to->types = from->types ? arena_array(arena, const char *, from->ncolumns + 1) : NULL;
    for (int i = 0; i < from->ncolumns && to->types; i++)
        to->types[i] = arena_strdup(arena, from->types[i]);
    for (int i = 0; i < from->ncolumns; i++) {
        to->columns[i] = from->columns[i];
        to->columns[i].name = arena_strdup(arena, from->columns[i].name);
        if (from->columns[i].collation)
            to->columns[i].collation = arena_strdup(arena, from->columns[i].collation);
    }
    return to;
}

/* pg_catalog is searched before everything, then "public"; the other schemas are equals. */
static int schema_rank(const char *schema_name)
{
    if (!strcmp(schema_name, "pg_catalog"))
        return 3;
    return strcmp(schema_name, "public") ? 1 : 2;
}

static bool is_plain(const struct schema_relation *relation)
{
    return strchr("rpm", relation->kind) && relation->persistence == 'p';
}

static void put_relation_name(struct schema *schema, struct schema_relation *relation)
{
    int rank = schema_rank(relation->schema);
    struct relation_entry *entry;
    HASH_FIND(hh, schema->relation_names, relation->name, strlen(relation->name), entry);
    if (!entry) {
        entry = arena_new(&schema->arena, struct relation_entry);
        entry->relation = entry->any = relation;
        entry->rank = rank;
        entry->chain = relation;
        entry->odd = !is_plain(relation);
        HASH_ADD_KEYPTR(hh, schema->relation_names, relation->name, strlen(relation->name), entry);
        return;
    }
    relation->other = entry->chain;
    entry->chain = relation;
    entry->odd |= !is_plain(relation);
    bool same = entry->relation && !strcmp(entry->relation->schema, relation->schema);
    if (rank > entry->rank || same) {
        entry->relation = entry->any = relation;
        entry->rank = rank;
    } else if (rank == entry->rank) {
        entry->relation = NULL;
    }
}

void schema_add_relation(struct schema *schema, const struct schema_relation *relation)
{
    struct key key;
    make_key(relation->schema, relation->name, &key);
    if (!key.length)
        return;
    struct schema_relation *copy = copy_relation(&schema->arena, relation);
    struct relation_entry *entry;
    HASH_FIND(hh, schema->relations, key.bytes, key.length, entry);
    if (!entry) {
        entry = arena_new(&schema->arena, struct relation_entry);
        char *own = arena_strndup(&schema->arena, key.bytes, key.length);
        HASH_ADD_KEYPTR(hh, schema->relations, own, key.length, entry);
    }
    entry->relation = entry->any = entry->chain = copy;
    entry->odd = !is_plain(copy);
    put_relation_name(schema, copy);
}

static struct function_entry *put_function(struct schema *schema, struct function_entry **table,
                                           const char *key, size_t length,
                                           enum volatility volatility)
{
    struct function_entry *entry;
    HASH_FIND(hh, *table, key, length, entry);
    if (!entry) {
        entry = arena_new(&schema->arena, struct function_entry);
        char *own = arena_strndup(&schema->arena, key, length);
        HASH_ADD_KEYPTR(hh, *table, own, length, entry);
    }
    if (volatility > entry->volatility)
        entry->volatility = volatility;
    return entry;
}

void schema_add_function(struct schema *schema, const char *schema_name, const char *name,
                         enum volatility volatility)
{
    struct key key;
    make_key(schema_name, name, &key);
    if (!key.length)
        return;
    if (volatility ==
        VOLATILITY_UNKNOWN) /* nothing is proven about it, so nothing may rely on it */
        volatility = VOLATILITY_VOLATILE;
    put_function(schema, &schema->functions, key.bytes, key.length, volatility);
    struct function_entry *entry =
        put_function(schema, &schema->function_names, name, strlen(name), volatility);
    if (strcmp(schema_name, "pg_catalog") != 0)
        entry->outside_catalog = true;
}

void schema_set_collation(struct schema *schema, const char *collate, char provider)
{
    schema->collate = arena_strdup(&schema->arena, collate);
    schema->collation_provider = provider;
}

static const struct relation_entry *find_relation(const struct schema *schema,
                                                  const char *schema_name, const char *name)
{
    struct relation_entry *entry;
    if (schema_name) {
        struct key key;
        make_key(schema_name, name, &key);
        HASH_FIND(hh, schema->relations, key.bytes, key.length, entry);
    } else {
        HASH_FIND(hh, schema->relation_names, name, strlen(name), entry);
    }
    return entry;
}

const struct schema_relation *schema_suspects(const struct schema *schema, const char *schema_name,
                                              const char *name, bool *known)
{
    const struct relation_entry *entry = find_relation(schema, schema_name, name);
    *known = entry != NULL;
    return entry && entry->odd ? entry->chain : NULL;
}

void schema_add_part(struct schema *schema, const char *schema_name, const char *name,
                     const struct schema_part *part)
{
    struct relation_entry *entry =
        (struct relation_entry *)find_relation(schema, schema_name, name);
    if (!entry)
        return;
    entry->chain->resolved = true;
    if (!part)
        return;
    struct schema_part *copy = arena_new(&schema->arena, struct schema_part);
    *copy = *part;
    if (part->kind != PART_LOCK) {
        copy->schema = arena_strdup(&schema->arena, part->schema);
        copy->name = arena_strdup(&schema->arena, part->name);
    }
    copy->next = entry->chain->parts;
    entry->chain->parts = copy;
    entry->odd = true;
    entry = (struct relation_entry *)find_relation(schema, NULL, name);
    entry->odd = true;
}

void schema_set_default(struct schema *schema, const char *schema_name, const char *name,
                        const char *column, const char *sql, char identity)
{
    const struct relation_entry *entry = find_relation(schema, schema_name, name);
    for (int i = 0; entry && i < entry->chain->ncolumns; i++) {
        struct schema_column *at = &entry->chain->columns[i];
        if (strcmp(at->name, column) != 0)
            continue;
        at->default_sql = arena_strdup(&schema->arena, sql);
        at->identity = identity;
    }
}

void schema_set_definition(struct schema *schema, const char *schema_name, const char *name,
                           const char *definition, bool invoker)
{
    const struct relation_entry *entry = find_relation(schema, schema_name, name);
    if (!entry)
        return;
    entry->chain->definition = arena_strdup(&schema->arena, definition);
    entry->chain->invoker = invoker;
}

const struct schema_relation *schema_relation(const struct schema *schema, const char *schema_name,
                                              const char *name)
{
    const struct relation_entry *entry = find_relation(schema, schema_name, name);
    return entry ? entry->relation : NULL;
}

const struct schema_relation *schema_relation_any(const struct schema *schema,
                                                  const char *schema_name, const char *name)
{
    const struct relation_entry *entry = find_relation(schema, schema_name, name);
    return entry ? entry->any : NULL;
}

const struct schema_relation *schema_relation_only(const struct schema *schema,
                                                   const char *schema_name, const char *name)
{
    const struct relation_entry *entry = find_relation(schema, schema_name, name);
    return entry && (schema_name || !entry->chain->other) ? entry->relation : NULL;
}

const struct schema_column *schema_column(const struct schema_relation *relation, const char *name)
{
    for (int i = 0; i < relation->ncolumns; i++) {
        if (!strcmp(relation->columns[i].name, name))
            return &relation->columns[i];
    }
    return NULL;
}

static const struct function_entry *find_function(const struct schema *schema,
                                                  const char *schema_name, const char *name)
{
    struct function_entry *entry;
    if (schema_name) {
        struct key key;
        make_key(schema_name, name, &key);
        HASH_FIND(hh, schema->functions, key.bytes, key.length, entry);
    } else {
        HASH_FIND(hh, schema->function_names, name, strlen(name), entry);
    }
    return entry;
}

enum volatility schema_function(const struct schema *schema, const char *schema_name,
                                const char *name)
{
    const struct function_entry *entry = find_function(schema, schema_name, name);
    return entry ? entry->volatility : VOLATILITY_UNKNOWN;
}

bool schema_function_overridden(const struct schema *schema, const char *name)
{
    const struct function_entry *entry = find_function(schema, NULL, name);
    return entry && entry->outside_catalog;
}

const char *schema_collate(const struct schema *schema)
{
    return schema->collate;
}

char schema_collation_provider(const struct schema *schema)
{
    return schema->collation_provider;
}

void schema_add_search_path(struct schema *schema, const char *role, bool here, const char *path)
{
    struct role_path *one = arena_new(&schema->arena, struct role_path);
    one->role = role ? arena_strdup(&schema->arena, role) : NULL;
    one->here = here;
    one->path = arena_strdup(&schema->arena, path);
    one->next = schema->paths;
    schema->paths = one;
}

const char *schema_search_path(const struct schema *schema, const char *role)
{
    const char *path = NULL;
    int best = -1;
    for (const struct role_path *one = schema->paths; one; one = one->next) {
        int rank = 2 * (one->role != NULL) + one->here;
        if ((one->role && strcmp(one->role, role) != 0) || rank <= best)
            continue;
        best = rank;
        path = one->path;
    }
    return path;
}
