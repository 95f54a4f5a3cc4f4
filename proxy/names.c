/* names.c: a client's statement and portal names. */
#include "proxy/names.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "pgshunt/arena.h"

/* The unnamed ones are the most. */
static size_t length(const char *name)
{
    return *name ? strlen(name) : 0;
}

/* Shared texts count for each who holds them: a limit that nobody can get around. */
static size_t statement_cost(const struct client_statement *statement)
{
    return sizeof *statement + length(statement->name) + statement->prepared->arena.total;
}

static size_t portal_cost(const struct portal *portal)
{
    return sizeof *portal + length(portal->name) + portal->bind.cap;
}

/* The unnamed ones, which most drivers use, stand outside the hashes and share one name. */
static char no_name[] = "";

char *name_keep(const char *name)
{
    return *name ? mem_strdup(name) : no_name;
}

void name_free(char *name)
{
    if (name != no_name)
        free(name);
}

static void free_statement(struct names *names, struct client_statement *statement)
{
    names->memory -= statement_cost(statement);
    if (statement == names->unnamed)
        names->unnamed = NULL;
    else
        HASH_DEL(names->statements, statement);
    prepared_unref(names->table, statement->prepared);
    name_free(statement->name);
    free(statement);
}

static struct client_statement *find_statement(const struct names *names, const char *name)
{
    struct client_statement *statement;
    if (!*name)
        return names->unnamed;
    HASH_FIND_STR(names->statements, name, statement);
    return statement;
}

static void add_statement(struct names *names, const char *name, struct prepared *prepared)
{
    struct client_statement *statement = mem_alloc(sizeof *statement);
    statement->name = name_keep(name);
    statement->prepared = prepared;
    names->memory += statement_cost(statement);
    if (*name)
        HASH_ADD_KEYPTR(hh, names->statements, statement->name, strlen(statement->name), statement);
    else
        names->unnamed = statement;
}

void names_define(struct names *names, const char *name, struct prepared *prepared)
{
    struct client_statement *statement = find_statement(names, name);
    if (!statement) {
        add_statement(names, name, prepared);
        return;
    }
    if (statement->prepared == prepared) { /* most who parse without names parse the same again */
        prepared_unref(names->table, prepared);
        return;
    }
    names->memory -= statement_cost(statement);
    prepared_unref(names->table, statement->prepared);
    statement->prepared = prepared;
    names->memory += statement_cost(statement);
}

void names_undefine(struct names *names, const char *name)
{
    struct client_statement *statement = find_statement(names, name);
    if (statement)
        free_statement(names, statement);
}

struct prepared *names_statement(const struct names *names, const char *name)
{
    struct client_statement *statement = find_statement(names, name);
    return statement ? statement->prepared : NULL;
}

uint32_t name_hash(const char *name)
{
    return (uint32_t)XXH3_64bits(name, strlen(name)) | 1;
}

const char *names_of_statement(const struct names *names, const struct prepared *prepared,
                               uint32_t hash)
{
    const struct client_statement *statement, *next;
    HASH_ITER(hh, names->statements, statement, next)
    if (statement->prepared == prepared && (!hash || name_hash(statement->name) == hash))
        return statement->name;
    return names->unnamed && names->unnamed->prepared == prepared ? "" : NULL;
}

void names_forget_statements(struct names *names)
{
    struct client_statement *statement, *next;
    if (names->unnamed)
        free_statement(names, names->unnamed);
    HASH_ITER(hh, names->statements, statement, next)
    free_statement(names, statement);
}

struct portal *names_portal(const struct names *names, const char *name)
{
    struct portal *portal;
    if (!*name)
        return names->unnamed_portal;
    HASH_FIND_STR(names->portals, name, portal);
    return portal;
}

static void drop_settings(struct portal *portal)
{
    if (!portal->settings)
        return;
    guc_pending_free(portal->settings);
    free(portal->settings);
    portal->settings = NULL;
}

#ifdef __SANITIZE_ADDRESS__
#define SPARES_MAX 0 /* so that the use of a closed one is found */
#else
#define SPARES_MAX 64 /* as many portals as are open at one time, mostly */
#endif

static struct portal *take_spare(struct prepared_table *table)
{
    struct portal *portal = table->spare_portals;
    if (!portal)
        return mem_alloc(sizeof *portal);
    table->spare_portals = portal->next_spare;
    table->nspare_portals--;
    return portal;
}

static void give_spare(struct prepared_table *table, struct portal *portal)
{
    if (table->nspare_portals == SPARES_MAX) {
        free(portal);
        return;
    }
    portal->next_spare = table->spare_portals;
    table->spare_portals = portal;
    table->nspare_portals++;
}

void names_free_spares(struct prepared_table *table)
{
    while (table->nspare_portals)
        free(take_spare(table));
}

static void free_portal(struct names *names, struct portal *portal)
{
    names->memory -= portal_cost(portal);
    if (portal == names->unnamed_portal)
        names->unnamed_portal = NULL;
    else
        HASH_DEL(names->portals, portal);
    prepared_unref(names->table, portal->prepared);
    buffer_release(&portal->bind);
    name_free(portal->name);
    drop_settings(portal);
    give_spare(names->table, portal);
}

void names_close(struct names *names, const char *name)
{
    struct portal *portal = names_portal(names, name);
    if (portal)
        free_portal(names, portal);
}

void names_close_all(struct names *names)
{
    struct portal *portal, *next;
    if (names->unnamed_portal)
        free_portal(names, names->unnamed_portal);
    HASH_ITER(hh, names->portals, portal, next)
    free_portal(names, portal);
}

struct portal *names_open(struct names *names, const char *name, enum portal_kind kind,
                          struct prepared *prepared)
{
    struct portal *portal = names_portal(names, name);
    if (portal) {
        names->memory -= portal_cost(portal);
        prepared_unref(names->table, portal->prepared);
        buffer_release(&portal->bind);
        drop_settings(portal);
    } else {
        portal = take_spare(names->table); /* which owns nothing */
        portal->name = name_keep(name);
        if (*name)
            HASH_ADD_KEYPTR(hh, names->portals, portal->name, strlen(portal->name), portal);
        else
            names->unnamed_portal = portal;
    }
    portal->kind = kind;
    portal->prepared = prepared_ref(prepared);
    portal->describe = portal->write = portal->done = portal->rows = portal->failed = false;
    portal->shard = 0;
    portal->cursor = 0;
    names->memory += portal_cost(portal);
    return portal;
}

void names_keep_bind(struct names *names, struct portal *portal, const char *body, size_t len)
{
    names->memory -= portal_cost(portal);
    buffer_append(&portal->bind, body, len);
    names->memory += portal_cost(portal);
}
