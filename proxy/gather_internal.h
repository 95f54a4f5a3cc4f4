/* gather_internal.h: what gather.c (the rows of a query's tables, brought to one server) and gather_reduce.c share. */
#ifndef PGSHUNT_PROXY_GATHER_INTERNAL_H
#define PGSHUNT_PROXY_GATHER_INTERNAL_H

#include "pgshunt/arena.h"
#include "proxy/gather.h"
#include "proxy/shard_query.h"

enum gather_phase {
    GATHER_ESTIMATING,
    GATHER_LISTING,
    GATHER_MAKING,
    GATHER_FILLING,
    GATHER_READY,
    GATHER_ANSWERING,
    GATHER_ENDING
};

/* A shard whose rows are brought home. */
struct source {
    struct server *server; /* NULL: lost */
    const char *shard_name;
    unsigned shard;
    int awaited;  /* ReadyForQuerys to come */
    bool running; /* asked, and some of them have not come */
    bool cancelled;
    int64_t rows, asked_at,
        us; /* given so far; when it was asked last, and how long it took in all */
};

struct gather {
    struct client *client;
    struct scatter_ask ask;
    const struct plan *plan; /* client->request.plan */
    enum gather_phase phase;
    struct server *home; /* NULL: lost */
    const char *home_name;
    int awaited;        /* ReadyForQuerys of the home to come */
    int table;          /* of the plan's: being made or filled */
    bool copying;       /* the home takes rows */
    bool block;         /* inside a transaction of the client's */
    bool cursor;        /* the answer is left in one: */
    const char *portal; /* of this portal; NULL: of DECLARE */
    int32_t max_rows;
    bool failed;
    bool told; /* the home's own error is in `out` */
    struct pg_error error;
    int64_t rows, bytes; /* of the table, of all of them: brought from elsewhere */
    int64_t home_rows;   /* of the table: the home's own */
    int64_t most_rows;
    struct reduction *reduction; /* NULL: all tables are fetched as they are, one after the other */
    struct buffer feed;          /* for the home */
    struct buffer out;           /* for the client */
    char *tag;
    struct arena arena; /* error texts */
    int running;
    int nsources;
    struct source sources[];
};

/* ---- gather.c ---- */

/* A statement for the home, in g->feed, with an answer to come. */
void gather_put_home(struct gather *g, const struct shard_query *query, enum shard_formats formats);
/* One for a source, to be sent by gather_ask_source(). */
void gather_put_source(struct gather *g, struct source *source, const struct shard_query *query,
                       enum shard_formats formats, struct buffer *out);
void gather_ask_source(struct gather *g, struct source *source, struct buffer *out);

/* ---- gather_reduce.c: semi-joins ---- */

/* Whether there is anything to decide: then g->reduction is made. */
bool reduction_make(struct gather *g);
/* Asks all servers what they expect of the tables. */
void reduction_estimate(struct gather *g);
/* A row of the home while ESTIMATING or LISTING, and of a source while ESTIMATING. */
void reduction_home_row(struct gather *g, const char *body, size_t len);
void reduction_source_row(struct gather *g, struct source *source, const char *body, size_t len);
/* The table g->table is filled. */
void reduction_fetched(struct gather *g);
/* Sets g->table to the next one. False: there is none. */
bool reduction_next(struct gather *g);
/* Asks the home for the values that it may be reduced by: false if there are none. */
bool reduction_list(struct gather *g);
/* They have come. */
void reduction_decide(struct gather *g);
/* What reads the rows of g->table on a shard, or makes the table with those of the home; the texts are the plan's own
 * where it is not reduced. False: there is no such row. */
bool reduction_source(struct gather *g, unsigned shard, struct shard_query *query);
bool reduction_create(struct gather *g, struct shard_query *query);
/* EXPLAIN: what was decided. */
void reduction_explain(struct gather *g, struct buffer *out);

#endif
