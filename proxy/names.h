/*
 * names.h: a client's own names: prepared statements and portals, and what they stand for.
 */
#ifndef PGSHUNT_PROXY_NAMES_H
#define PGSHUNT_PROXY_NAMES_H

#include <stdbool.h>
#include <uthash.h>

#include "pgshunt/plan.h"
#include "proxy/guc.h"
#include "proxy/prepared.h"

/* A statement name of the client's; the unnamed one has the name "". */
struct client_statement {
    char *name;
    struct prepared *prepared; /* reference */
    UT_hash_handle hh;
};

enum portal_kind {
    PORTAL_SERVER,  /* bound on the server of `shard` */
    PORTAL_LOCAL,   /* a statement of the session's own: runs at Execute */
    PORTAL_CURSOR,  /* made by DECLARE, if at all: the transaction's server knows */
    PORTAL_FETCH,   /* FETCH, MOVE, CLOSE or DECLARE about a cursor over several shards */
    PORTAL_SCATTER, /* runs on several shards at Execute, from the kept Bind message */
};

struct portal {
    char *name;
    enum portal_kind kind;
    struct prepared *prepared; /* reference */
    unsigned shard;
    bool write;
    uint32_t cursor;              /* SCATTER: the cursor that has given a part of it; 0: none */
    bool done;                    /* it has run to its end; SERVER: or will, if nothing fails */
    bool rows;                    /* ... and gives rows */
    bool failed;                  /* LOCAL: and that has failed its transaction */
    bool describe;                /* SCATTER: the client asked for the description */
    struct buffer bind;           /* SCATTER: body of the Bind message */
    struct guc_pending *settings; /* SERVER: what its calls of set_config() set; owned, or NULL */
    union {
        UT_hash_handle hh;
        struct portal *next_spare; /* closed, and kept for the next one: see prepared_table */
    };
};

/* A copy of a name; all empty ones are the same, so that nothing is allocated for them. */
char *name_keep(const char *name);
void name_free(char *name);

struct names {
    struct prepared_table *table;        /* the worker's, for references */
    size_t memory;                       /* that the statements and portals take, roughly */
    struct client_statement *statements; /* with names; a hash */
    struct client_statement *unnamed;    /* NULL: there is none */
    struct portal *portals;
    struct portal *unnamed_portal;
};

/* Takes over a reference on `prepared`; replaces an older meaning. */
void names_define(struct names *names, const char *name, struct prepared *prepared);
void names_undefine(struct names *names, const char *name);
struct prepared *names_statement(const struct names *names, const char *name); /* or NULL */
/* The name of this hash that means this; NULL: none. Looks at all of them. Hash 0: any name. */
const char *names_of_statement(const struct names *names, const struct prepared *prepared,
                               uint32_t hash);
uint32_t name_hash(const char *name); /* never 0 */
/* Replaces an older portal of the name; takes a reference on `prepared`. */
struct portal *names_open(struct names *names, const char *name, enum portal_kind kind,
                          struct prepared *prepared);
struct portal *names_portal(const struct names *names, const char *name);
/* Keeps the Bind message's body for a portal over several shards. */
void names_keep_bind(struct names *names, struct portal *portal, const char *body, size_t len);
static inline int names_count(const struct names *names)
{
    return (int)HASH_COUNT(names->statements) + (names->unnamed != NULL);
}
/* No portal is there that may still be executed. */
static inline bool names_all_done(const struct names *names)
{
    bool done = !names->unnamed_portal || names->unnamed_portal->done;
    for (const struct portal *portal = names->portals; done && portal; portal = portal->hh.next)
        done = portal->done;
    return done;
}
void names_close(struct names *names, const char *name);
void names_close_all(struct names *names);
void names_forget_statements(struct names *names);
/* At the end of a worker. */
void names_free_spares(struct prepared_table *table);

#endif
