/*
 * change.h: the plan of a change that needs more than each shard's own rows.
 *
 *   rows that a query gives, wherever it runs, are inserted on the shards that their keys name
 *   (INSERT ... SELECT, VALUES with keys that only a server can tell), or on all (reference tables);
 *   rows of MERGE's source are merged on the shards that the keys name to which ON compares the target's;
 *   rows to which an UPDATE gives keys of other shards are deleted here and inserted there;
 *   rows of an UPDATE or DELETE that reads other shards' rows, too, are found where all of these have been
 *   gathered, and changed where they are;
 *   a table is made of rows that have been gathered (CREATE TABLE AS), and without rows on the other shards; one
 *   with rows on all shards is made on each with its own, or made and then filled as by INSERT ... SELECT.
 *
 * All of it is one transaction on all shards that take part. Made by router/plan_change.c, carried out by
 * proxy/change.c.
 */
#ifndef PGSHUNT_CHANGE_H
#define PGSHUNT_CHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/plan.h"

/* A column of the shard key. */
struct change_key {
    int position;      /* among a row's values */
    bool blank_padded; /* it is char(n) */
};

/* How rows on their way are inserted, many with each statement: head VALUES (...), (...) tail; with MERGE
 * head VALUES (...), (...) alias (names) tail. */
struct change_rows {
    bool
        by_shard; /* a row begins with the number of its shard, which is not sent: head and tail are no
                    * INSERT's, and each row is one that has to be there */
    const char *table; /* for messages */
    const char *head;  /* INSERT INTO table (columns) OVERRIDING ... */
    const char *
        alias; /* not NULL: VALUES are MERGE's source, and this goes ahead of its columns' names, in
                        * parentheses, which are those that the rows have */
    int skip;  /* of a row's first values so many only tell its shard, and are not sent */
    struct shard_query tail; /* ON CONFLICT ..., RETURNING ...; its parameters come first */
    const char *key;         /* its columns, for messages; NULL: each row goes to every shard */
    const struct keyspace *keyspace;
    unsigned nkeys; /* as many in the keyspace's order */
    struct change_key keys[SHARDMAP_MAX_PARTS];
    bool ascii_keys;     /* only those are understood: another client_encoding */
    const bool *untyped; /* values that are taken for what the column is: literals, parameters */
    int nuntyped;        /* ... as many of the first columns; the others are not */
    bool
        in_one_statement; /* rows of one shard have to know of each other: ON CONFLICT DO UPDATE, MERGE */
    bool compared; /* the key is what the table's is compared with, by its type's own operator; */
    bool adds;     /* ... and rows may be added. If not, those whose key is none's are of no use */
    bool never_null; /* no server adds a row without a key */
};

/*
 * An UPDATE of keys. Its statements are told the rows by an array, which is their parameter number
 * `list`: those that keep their shard are updated there, the others deleted, giving the new row.
 */
struct change_move {
    struct shard_query
        look; /* gives each row's identity and the parts of its new key, as text; locks them */
    const struct shard_query
        *looks; /* the same for each of look_at, without what it does not own */
    struct shard_query stay;
    struct shard_query go;
    const char *checks; /* gives a row with a reason for which no row may be moved, or NULL */
    int list;           /* counted from 0: as many parameters of the client's are in front */
    uint32_t list_type;
};

/*
 * CREATE TABLE AS. Of an unsharded or temporary table: it is made with its rows where these are. Of one that has rows
 * on all shards: made on each with the rows that belong there; or without any, and then `sources` and `rows` fill it.
 */
struct change_create {
    struct shard_query filled;  /* runs on plan.shard, which has the rows */
    struct shard_query without; /* on the others; sql NULL: nothing does */
    bool everywhere;            /* it has rows on all shards: */
    const char
        *exists; /* ... IF NOT EXISTS: this tells whether it does, then `without` is all; or NULL */
    struct shard_query made; /* ... it is made by this, which fails if it does exist, */
    const struct shard_query
        *each; /* ... or with rows by this, by shard; NULL: it is filled afterwards */
    const char *const *names; /* of the table's first columns; the others' are the rows' own */
    int nnames;
    const char *const *keys; /* the columns of its key, as many as rows.nkeys */
};

struct change_plan {
    const struct change_create *
        create; /* NULL: it is no such thing; with `gather` and nothing else, unless `everywhere` */
    const char *verb; /* of the tag: "INSERT 0", ... */
    const char *text; /* the statement itself, judged first by a server, */
    unsigned judge;   /* this shard's */
    const struct gather_plan
        *gather;                    /* brought to plan.shard first, where the rows come from then */
    const struct change_move *move; /* NULL: `sources` give the rows */
    const struct shard_query *sources;
    int nsources;
    const unsigned *look_at; /* with move: shards that have rows to be changed */
    int nlook_at;
    struct change_rows rows;
    bool returning;
};

/* Columns of a gathered table that tell where its rows are. */
#define CHANGE_ROW "pgshunt_row"
#define CHANGE_SHARD "pgshunt_shard"
/* The text that gathers such a table, for one shard. */
const char *change_of_shard(const char *sql, unsigned shard, struct arena *arena);

#endif
