/*
 * server.h: one connection to a Postgres server.
 *
 *            connect()       startup, auth         ReadyForQuery
 *   (new) --> CONNECTING ---> LOGIN ----------------> IDLE <----------------.
 *                 |             |                      | checkout           | checkin: ReadyForQuery 'I'
 *                 | failure     | failure              v                    | and nothing expected
 *                 '-------------+---------> CLOSED <-- ACTIVE --------------'
 *                                             ^          |
 *                                             '----------' broken, or its client left in the middle
 *
 *   CONNECTING, LOGIN  counted in the pool's budget, on no list but the pool's `starting`
 *   IDLE               on the pool's idle list (newest first); carries no client
 *   ACTIVE             linked to one client (server->client), at a place in its participants
 *   CLOSED             conn is closing; freed in the close callback; on no list
 *
 * What the server will answer is an explicit queue of expectations (struct expect), one per message
 * sent, in order. Bookkeeping (a statement is now prepared, a setting now counts) happens when the
 * answer arrives, never when the question leaves.
 */
#ifndef PGSHUNT_PROXY_SERVER_H
#define PGSHUNT_PROXY_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/error.h"
#include "pgshunt/scram.h"
#include "proxy/conn.h"
#include "proxy/guc.h"
#include "proxy/list.h"
#include "proxy/marks.h"
#include "proxy/prepared.h"
#include "proxy/topology.h"

struct client;
struct hub;
struct pool;
struct transfer;
struct worker;

enum server_state {
    SERVER_CONNECTING,
    SERVER_LOGIN,
    SERVER_IDLE,
    SERVER_ACTIVE,
    SERVER_CLOSED,
};

enum expect_kind {
    EXPECT_QUERY,    /* a simple Query: anything up to ReadyForQuery */
    EXPECT_PARSE,    /* ParseComplete */
    EXPECT_BIND,     /* BindComplete */
    EXPECT_DESCRIBE, /* (ParameterDescription and) RowDescription or NoData */
    EXPECT_EXECUTE,  /* rows, then CommandComplete, EmptyQueryResponse or PortalSuspended */
    EXPECT_CLOSE,    /* CloseComplete; of our own: the mark of `key` goes */
    EXPECT_SYNC,     /* ReadyForQuery */
    EXPECT_LOCAL,    /* nothing from the server: our own `answer`, in its place in the order */
};

/* What few of the answers awaited have. Owned, and owns all of it. */
struct expect_more {
    struct prepared_key key;      /* CLOSE, swallowed: what is closed */
    struct guc_pending *settings; /* EXECUTE: what its calls of set_config() set */
    char *formats; /* DESCRIBE: of a portal, by its statement: its Bind's result formats, or NULL */
    struct buffer
        answer; /* LOCAL: bytes for the client; else, if any: replaces the error awaited */
};

/* One answer awaited. Owns `defines`, `more` and references on `prepared` and `older`. Every message makes
 * one: it is not to be longer than a cache line. */
struct expect {
    uint8_t kind;      /* enum expect_kind */
    bool swallow;      /* the client did not ask this: nothing of it is forwarded */
    char says;         /* LOCAL without `more`: type of a message that has no body */
    bool restores : 1; /* has closed `defines`: when it is skipped, that is `prepared` again */
    bool unnamed : 1;  /* PARSE: into the server's unnamed statement */
    bool prepares : 1; /* EXECUTE, QUERY: of SQL's PREPARE, which puts `prepared` on the server */
    bool ahead : 1;    /* SYNC: between what goes ahead of a Query and the Query */
    bool muted : 1;    /* QUERY: what went ahead of it has failed, and that error is its answer */
    bool write : 1;    /* QUERY, EXECUTE: not proven to be a read */
    bool probe : 1;    /* QUERY: of pins.c */
    uint32_t called;   /* BIND: hash of the client's name for the statement; 0: not known */
    union {
        int done; /* QUERY: statements completed */
        int kept; /* SYNC with batches behind it: bytes of its own in request.again */
    };
    struct prepared *prepared; /* PARSE: on the server under its own name once answered;
                                           EXECUTE: whose statement takes effect */
    char *defines;          /* client's name it defines (PARSE, LOCAL), undone when it is skipped */
    struct prepared *older; /* what that name was before, if it is skipped and not failed */
    const struct statement_list *list; /* QUERY: statements, for effects; EXECUTE: one */
    struct expect_more *more;          /* NULL: nothing */
};

struct server {
    struct conn conn;
    enum server_state state;
    struct worker *worker;
    struct pool *pool;
    struct list_node link; /* pool's idle or starting list */
    struct list_node all;  /* worker's list of servers */
    struct client *client; /* ACTIVE */
    unsigned shard;        /* which of the client's participants */
    uint32_t stint;        /* its node's when it was attached; 0: no replica. See freshness.h */
    uint32_t vouched;      /* ... that it is known to belong to; 0: none */
    bool judged;           /* what it holds is enough for this client's reads */
    uint32_t id;           /* for the console */
    /* protocol */
    struct buffer in;  /* an incomplete message (or its header) */
    size_t skip;       /* bytes of a message in transit, passed on by count */
    bool skip_forward; /* ... to the client, or thrown away */
    struct expect *expects;
    int expect_head, expect_count, expect_cap;
    char tx_status; /* of the last ReadyForQuery: I, T, E */
    bool copy_in;   /* in COPY FROM STDIN: the client's bytes go through */
    bool copy_rest; /* half a message of the client's was passed on to it: the rest has to follow */
    bool pinned;    /* stays with the client: `pins` says why */
    struct hub *hub; /* it listens for many clients (hub.h) and has none of its own; else NULL */
    bool probing;    /* it is being asked whether the pins still hold */
    bool resetting;  /* see server_reset() */
    uint32_t pins, new_pins,
        doubtful_pins; /* bits of enum pin_reason: all; of the transaction under
                                               way; that may have ended. See pins.h */
    bool begun;        /* BEGIN was sent for the client's transaction */
    bool wrote;        /* something that may write was sent in this transaction */
    bool gathered;     /* a gather has made temporary tables in this transaction: no PREPARE */
    bool guarded;      /* its READ ONLY begins with a savepoint, so that a gather can do without */
    bool notified;     /* NOTIFY was run in it: no PREPARE */
    bool discard;      /* close instead of reusing */
    bool kept;         /* was a session's own: reset before another client gets it */
    bool tended;       /* runs a reset or a test between two clients (pool_tend.c) */
    bool without_tls;  /* the handshake has failed, and server_tls.mode is prefer */
    bool dedicated;    /* a replication session's: its pool is its own and goes with it */
    bool epoch_is_local; /* `epoch` ends with the transaction under way */
    bool committed;      /* the last CommandComplete was a COMMIT */
    char fatal[256];     /* why it is lost: its FATAL message, or what we found */
    char fatal_sqlstate[6];
    /* session state carried */
    uint32_t
        sequence_user; /* id of the client whose sequence state it has; 0: nobody's (sequences.h) */
    struct guc_set *guc;
    int64_t epoch;               /* its pgshunt.epoch: see epoch.h */
    struct marks marks;          /* prepared statements that are there */
    int parsing;                 /* named ones among `expects` */
    int parsing_unnamed;         /* ... and unnamed ones */
    struct prepared_key unnamed; /* content of its unnamed statement; zero: none of ours */
    struct guc_set *reported;    /* parameters it reports, plain values; see reported.h */
    struct guc_set *settled;     /* ... when its last transaction ended */
    struct guc_set *defaults;    /* ... without settings of a client */
    /* login */
    struct scram_client *scram;
    uint8_t secret_source; /* enum secret_source */
    int32_t backend_pid;
    unsigned char *cancel_key; /* as long as the server made it */
    int cancel_key_length;
    int cancels;               /* cancel requests under way for it: not reusable until they end */
    bool parked;               /* wanted to be idle while cancels were under way */
    struct transfer *handover; /* on its way to another worker (pool.c) */
    /* times, clock_us */
    int64_t connected_at;
    int64_t ready_at; /* freshness_now() when it was logged in */
    int64_t idle_since;
    int64_t request_at;
    int64_t expires_at; /* lifetime end, 0: never */
};

/* Begins to connect on behalf of a pool. NULL: failed at once (out of descriptors, unresolved); the
 * pool's budget has been given back. */
struct server *server_start(struct pool *pool);
/* Ends it: out of its pool, budget given back, its client (if any) told by client_lost_server(). */
COLD void server_close(struct server *server, const char *reason);
/* As server_close, because the server has gone or said its last words: counts against its node. */
COLD void server_broke(struct server *server, const char *reason);
/* As server_close, but the client is not told: it has been already. */
COLD void server_drop(struct server *server, const char *reason);

/* Frees one that is on no event loop and in no pool's books. */
COLD void server_discard(struct server *server);

struct expect *server_expect(struct server *server, enum expect_kind kind);
struct expect_more *expect_more(struct expect *expect); /* made when it is not there */
/* LOCAL: moves what it says to `bytes`, which has been empty. */
void expect_take_answer(struct expect *expect, struct buffer *bytes);
/* DESCRIBE: see expect_more; NULL: none. */
static inline const char *expect_formats(const struct expect *expect)
{
    return expect->more ? expect->more->formats : NULL;
}
static inline struct expect *server_expected(struct server *server)
{
    return server->expect_count ? &server->expects[server->expect_head] : NULL;
}
/* The first one that is the server's to answer. */
struct expect *server_awaits(struct server *server);
static inline struct expect *server_last_expected(struct server *server)
{
    int last = (server->expect_head + server->expect_count - 1) & (server->expect_cap - 1);
    return server->expect_count ? &server->expects[last] : NULL;
}
void server_expect_release(struct server *server, struct expect *expect); /* what it owns */
void server_expect_pop(struct server *server);
/* Drops everything awaited before the next SYNC (Postgres skips to it after an error); undoes what
 * the dropped entries had announced. */
COLD void server_expect_skip(struct server *server);
COLD void server_expect_clear(struct server *server);
/* Takes back the last one: the server has said that it ignores what it was sent for. */
COLD void server_expect_unsend(struct server *server);

void server_forget_prepared(struct server *server); /* DISCARD ALL, DEALLOCATE ALL */
/*
 * It has no client any more and may carry a session's leavings: rolls back, DISCARD ALL, then to its
 * pool. It stays ACTIVE meanwhile. Closed if anything is in the way.
 */
COLD void server_reset(struct server *server);
/* While it is being reset: a ReadyForQuery came, all that is awaited has, or there was an error. */
COLD void server_reset_step(struct server *server);

const char *server_state_name(enum server_state state);

#endif
