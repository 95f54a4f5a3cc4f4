/* names.c: a client's statement and portal names. */
#include "proxy/names.h"

#include <stdlib.h>

#include "pgshunt/arena.h"

static void free_statement(struct names *names, struct client_statement *statement)
{
    HASH_DEL(names->statements, statement);
    prepared_unref(names->table, statement->prepared);
    free(statement->name);
    free(statement);
}

static struct client_statement *find_statement(const struct names *names, const char *name)
{
    struct client_statement *statement;
    HASH_FIND_STR(names->statements, name, statement);
    return statement;
}

void names_define(struct names *names, const char *name, struct prepared *prepared)
{
    struct client_statement *statement = find_statement(names, name);
    if (statement) {
        prepared_unref(names->table, statement->prepared);
        statement->prepared = prepared;
        return;
    }
    statement = mem_alloc(sizeof *statement);
    statement->name = mem_strdup(name);
    statement->prepared = prepared;
    HASH_ADD_KEYPTR(hh, names->statements, statement->name, strlen(statement->name), statement);
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

void names_forget_statements(struct names *names)
{
    struct client_statement *statement, *next;
    HASH_ITER(hh, names->statements, statement, next)
    free_statement(names, statement);
}

struct portal *names_portal(const struct names *names, const char *name)
{
    struct portal *portal;
    HASH_FIND_STR(names->portals, name, portal);
    return portal;
}

static void free_portal(struct names *names, struct portal *portal)
{
    HASH_DEL(names->portals, portal);
    prepared_unref(names->table, portal->prepared);
    buffer_release(&portal->bind);
    free(portal->name);
    if (portal->settings) {
        guc_pending_free(portal->settings);
        free(portal->settings);
    }
    free(portal);
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
    HASH_ITER(hh, names->portals, portal, next)
    free_portal(names, portal);
}

struct portal *names_open(struct names *names, const char *name, enum portal_kind kind,
                          struct prepared *prepared)
{
    struct portal *portal = names_portal(names, name);
    if (portal) {
        prepared_unref(names->table, portal->prepared);
        buffer_release(&portal->bind);
    } else {
        portal = mem_alloc(sizeof *portal);
        portal->name = mem_strdup(name);
        HASH_ADD_KEYPTR(hh, names->portals, portal->name, strlen(portal->name), portal);
    }
    portal->kind = kind;
    portal->prepared = prepared_ref(prepared);
    portal->describe = portal->write = false;
    portal->shard = 0;
    return portal;
}
