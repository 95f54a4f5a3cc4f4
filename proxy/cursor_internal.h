/* cursor_internal.h: a cursor over several shards, for the files that make it, carry it out and end it. */
#ifndef PGSHUNT_PROXY_CURSOR_INTERNAL_H
#define PGSHUNT_PROXY_CURSOR_INTERNAL_H

#include "pgshunt/arena.h"
#include "pgshunt/merge.h"
#include "proxy/cursor.h"

#define CURSOR_ALL_ROWS (-1)

enum cursor_op { OP_DECLARE, OP_EXECUTE, OP_FETCH, OP_MOVE, OP_CLOSE };

struct cursor_part {
    unsigned shard;
    const char *shard_name;
    bool open;      /* the server has its portal */
    bool done;      /* all its rows have come */
    bool awaited;   /* a ReadyForQuery is to come */
    bool cancelled; /* asked to stop: its error is ours and means nothing */
    int skip;       /* CommandCompletes to come that are not the portal's */
    int64_t rows, bytes;
};

/* What it is doing; all zero while it is parked. */
struct cursor_run {
    enum cursor_op op;
    bool silent, describe;
    bool ended;  /* there are no more rows */
    bool partly; /* some of it has gone out */
    size_t from; /* where in `out` its own answer begins */
    bool failed;
    int awaited;
    int64_t wanted; /* CURSOR_ALL_ROWS, or as many */
    int64_t sent;
    struct buffer out;
    struct pg_error error;
};

struct cursor {
    struct cursor *next;
    struct client *client;
    uint32_t id;
    const char *name;        /* the client's, of the cursor or the portal */
    const char *server_name; /* of the portals on the servers */
    bool sql;                /* made by DECLARE */
    bool binary;
    bool dead; /* nothing can be had of it any more */
    int depth; /* savepoints there were when it was made */
    bool write;
    const struct statement *completes; /* while it is opened: what its first answer completes */
    char *verb;                        /* of the shards' tags: SELECT, INSERT 0, ... */
    struct merge_spec spec;
    struct merge *merge;
    struct buffer description; /* its RowDescription */
    struct arena arena;
    struct cursor_run run;
    int nparts;
    struct cursor_part parts[];
};

struct cursors {
    struct cursor *first;
    uint32_t made;
};

/* ---- cursor_life.c ---- */

/* For the plan of client->request. `sql`: made by DECLARE, not a portal. */
struct cursor *cursor_new(struct client *client, const char *name, bool sql);
/* Nothing can be had of it any more; its portals are closed on occasion. */
void cursor_drop_rows(struct cursor *c);
/* Puts the closing of portals of cursors that are gone, which the shard still has. */
void cursors_close_dead(struct cursors *cursors, unsigned shard, struct buffer *out);
/* Frees those that no server and no name of the client's knows any more. */
void cursors_forget_dead(struct cursors *cursors);

/* ---- cursor.c ---- */

/* An Execute for as many rows as are wanted of the part. */
void cursor_put_execute(const struct cursor *c, const struct cursor_part *part, struct buffer *out);
/* `more` goes to the part's server, behind what has to go ahead of it. */
void cursor_send_part(struct cursor *c, struct cursor_part *part, struct server *server,
                      const struct buffer *more);
/* Goes on as far as rows are here and the client takes them; it may be finished, and gone, then. */
void cursor_advance(struct cursor *c);

#endif
