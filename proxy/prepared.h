/*
 * prepared.h: prepared statements by content.
 *
 * A prepared statement is its text and declared parameter types; its name on servers is made from a
 * hash of both, so that all clients of a worker share one, and a server connection that moves between
 * workers keeps its statements' meaning. Entries are reference counted: a client's name for one, and
 * every expected server answer that concerns one, hold a reference. Entries nobody holds are kept for
 * a while, the latest used longest: drivers send the same unnamed statement again and again, and it
 * need not be parsed each time.
 */
#ifndef PGSHUNT_PROXY_PREPARED_H
#define PGSHUNT_PROXY_PREPARED_H

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "pgshunt/arena.h"
#include "pgshunt/plan.h"
#include "pgshunt/statement.h"
#include "proxy/list.h"

struct portal;

struct prepared_key {
    uint64_t low, high; /* XXH3 128 of types and text */
};

#define PREPARED_PREFIX "pgshunt_"
#define PREPARED_NAME_SIZE 40
/* "pgshunt_" and the hash in hex: what servers know it as. */
void prepared_name(const struct prepared_key *key, char name[PREPARED_NAME_SIZE]);

struct prepared {
    struct prepared_key key;
    int references;
    char server_name[PREPARED_NAME_SIZE];
    const char *sql;
    /* Made by SQL's PREPARE: "PREPARE server_name (types) AS sql"; else NULL, and it is sent by Parse. */
    const char *prepare_sql;
    struct prepared *uses; /* `sql` is an EXECUTE of this one: reference; or NULL */
    struct prepared
        *routed; /* ... and goes where this one goes, which has its values in place; or NULL */
    uint32_t *types;
    int ntypes;
    struct arena arena; /* owns text, types and the parsed statements */
    struct statement_list statements;
    bool own;   /* transaction control and what concerns pgshunt itself: no server need parse it */
    bool plain; /* one query or none, and nothing it does is the session's business (pipeline.c) */
    struct list_node unused; /* on the table's list while nobody holds it */
    uint64_t
        accepted; /* for whom a server has parsed it without complaint (batch_judge); 0: nobody */
    uint64_t scattered; /* hash of the text that shards got at its last fan-out (scatter_named.c) */
    unsigned generation; /* how often a server found that its result has changed its shape */
    UT_hash_handle hh;
};

/* A worker's table of them. */
struct prepared_table {
    struct prepared *entries;
    struct list_node unused; /* latest used first */
    int nunused;
    /* Portals that were closed: nearly every request opens one, and the next takes its memory. */
    struct portal *spare_portals;
    int nspare_portals;
};

void prepared_table_init(struct prepared_table *table);
void prepared_table_free(struct prepared_table *table);

/* Once, before any worker starts: a random number that keeps content hashes unpredictable. */
void prepared_seed(uint64_t random);
/* The entry for this content, parsed once, with a reference for the caller. */
struct prepared *prepared_get(struct prepared_table *table, const char *sql, const uint32_t *types,
                              int ntypes);
/* The same for SQL's PREPARE: `sql` is the query, `tail` what follows the name: "(types) AS sql". */
struct prepared *prepared_get_sql(struct prepared_table *table, const char *sql, const char *tail);
/* Nobody holds it any more. */
void prepared_unused(struct prepared_table *table, struct prepared *prepared);

/* Here, for every answer awaited takes and gives some: that costs no call. */
static inline struct prepared *prepared_ref(struct prepared *prepared)
{
    prepared->references++;
    return prepared;
}
static inline void prepared_unref(struct prepared_table *table, struct prepared *prepared)
{
    if (prepared && --prepared->references <= 0)
        prepared_unused(table, prepared);
}

#endif
