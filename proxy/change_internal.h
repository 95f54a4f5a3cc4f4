/* change_internal.h: what change.c (the course of a change), change_rows.c (its rows) and change_create.c share. */
#ifndef PGSHUNT_PROXY_CHANGE_INTERNAL_H
#define PGSHUNT_PROXY_CHANGE_INTERNAL_H

#include "pgshunt/change.h"
#include "proxy/change.h"
#include "proxy/prepared.h"
#include "proxy/scatter_internal.h"
#include "proxy/shard_query.h"

enum change_phase {
    CHANGE_STARTED,
    CHANGE_CHECKING,
    CHANGE_MAKING,
    CHANGE_COLLECTING,
    CHANGE_FEEDING,
    CHANGE_LOOKING,
    CHANGE_DESCRIBING,
    CHANGE_READING,
    CHANGE_STAYING,
    CHANGE_INSERTING,
    CHANGE_CREATING,
    CHANGE_CLEARING,
    CHANGE_SETTLING,
    CHANGE_DONE,
};

/* One shard's; as many as the scatter has parts, in the order of the shards. */
struct change_part {
    /* rows it gives, through a portal */
    const struct shard_query *query; /* NULL: none */
    struct shard_query own;          /* ... if it is not the same for all */
    bool opened;                     /* there is a portal to be closed */
    bool done;                       /* it has no more */
    int64_t rows, bytes;             /* it has given */
    /* rows it gets: values as a Bind has them, one row after the other */
    struct buffer in;
    int nin;
    /* with change_move: what was found out about its rows */
    struct buffer stay, go; /* identities, as an array's elements */
    int64_t nstay, ngo;
    int64_t stayed;
    char reason[16]; /* why none of them may be moved; "": they may */
};

struct change {
    struct scatter *scatter;
    const struct change_plan *plan;
    enum change_phase phase;
    struct scatter_ask ask; /* the client's, with types that a server has found */
    struct prepared typed;  /* ... which are all that is used of it */
    struct params params;   /* the client's */
    struct params listed;   /* ... and the list of rows */
    struct buffer formats;  /* of the rows: count and codes, as in a Bind */
    uint32_t *column_types; /* of the rows' values; 0: the column's own */
    struct buffer names;    /* of the columns, as a list; with rows.alias */
    int ncolumns;
    int table;                      /* gathering: the one at hand */
    int64_t table_rows, most_rows;  /* ... and brought from elsewhere */
    int64_t bytes;                  /* kept here or on the gathering server, so far */
    struct buffer feed;             /* gathering: rows on their way */
    int64_t counted;                /* rows, for the tag */
    int64_t given;                  /* rows that were sent to where they belong */
    int skip;                       /* of a row's columns, those that only tell its shard */
    int key_at[SHARDMAP_MAX_PARTS]; /* ... where those of the key are */
    bool looked;                    /* creating: whether there is such a relation is known, */
    bool exists;                    /* ... and there is: nothing more is to be done */
    bool stayed;                    /* what keeps its shard is updated */
    int nparts;
    struct change_part parts[];
};

/* Sends what is in `out`, which ends with `syncs` messages that are answered by ReadyForQuery. */
void change_send(struct change *change, int index, struct buffer *out, int syncs);
void change_fail(struct change *change, const char *sqlstate, const char *message,
                 const char *hint);

/* What finishes the gathered tables, ahead of what reads them; gives how many ReadyForQuerys follow. */
int change_put_finishing(struct change *change, struct buffer *out);

/* ---- change_create.c ---- */

/* All rows are there: the table is made of them. Or it is made everywhere. */
void change_create(struct change *change);
/* A row that part `index` has answered, and its CommandComplete, while it is. */
void change_create_row(struct change *change, const char *body, size_t len);
void change_created(struct change *change, int index, const char *tag);
/* All of it was answered. True: goes on with the rows that fill the table. */
bool change_create_goes_on(struct change *change);
/* The columns of the rows that fill it. */
void change_create_columns(struct change *change, const struct wire_field *fields, int count);

/* ---- change_rows.c ---- */

/* RowDescription of the rows: how they travel. */
void change_take_columns(struct change *change, const char *body, size_t len);
/* A row that shard `from` gives: for whom it is. */
void change_take_row(struct change *change, const char *body, size_t len);
/* A value of the key. */
struct change_value {
    uint32_t type; /* 0: text that the column makes something of */
    const char *bytes;
    int32_t length; /* -1: NULL */
};

/* The shard of a key, by the values of its columns; false: failed. */
bool change_find_shard(struct change *change, const struct change_value *values, unsigned *shard);
/* Sends the rows that have come to where they belong; `last`: there will be no more. */
void change_insert(struct change *change, bool last);

#endif
