/*
 * client.h: one client session.
 *
 *   accept --> STARTUP --> AUTH --> GREETING --> IDLE <----------------------------.
 *                 |                                | a statement                    |
 *                 '-> CANCELLING                   v                                |
 *                                               WAITING --server ready--> BUSY -----'
 *                                                  ^                       |  ReadyForQuery passed on,
 *                                                  '--- next participant --'  nothing more awaited
 *   any state --> CLOSED
 *
 *   STARTUP     reads SSLRequest, GSSENCRequest, CancelRequest or the startup packet
 *   AUTH        an authentication exchange; under login_timeout, as STARTUP is
 *   GREETING    waits for a first server, to learn the parameters a client is greeted with
 *   IDLE        nothing asked; may be inside a transaction (then it has participants)
 *   WAITING     in a pool's queue for a server (client->waiting), its input is held
 *   BUSY        something was sent for it and is not answered whole
 *   REPLICATING everything is passed through to a server of its own (replication.h)
 *   CANCELLING  a cancel request being delivered
 *   CLOSED      closing; freed in the close callback
 *
 * Participants are the servers attached to the client: none when idle outside a transaction (unless
 * pinned), one for what concerns one shard, several for a fan-out or a transaction over shards.
 */
#ifndef PGSHUNT_PROXY_CLIENT_H
#define PGSHUNT_PROXY_CLIENT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "pgshunt/error.h"
#include "pgshunt/plan.h"
#include "pgshunt/scram.h"
#include "proxy/conn.h"
#include "proxy/freshness.h"
#include "proxy/guc.h"
#include "proxy/list.h"
#include "proxy/listen.h"
#include "proxy/own_settings.h"
#include "proxy/peer.h"
#include "proxy/prepared.h"
#include "proxy/server.h"
#include "proxy/topology.h"
#include "proxy/worker.h"

struct client_auth;
struct scatter;
struct series;
struct extended;
struct console;
struct replication;

enum client_state {
    CLIENT_STARTUP,
    CLIENT_AUTH,
    CLIENT_GREETING,
    CLIENT_IDLE,
    CLIENT_WAITING,
    CLIENT_BUSY,
    CLIENT_REPLICATING,
    CLIENT_CANCELLING,
    CLIENT_CLOSED,
};

/* The client's transaction, as the client sees it. */
enum tx_state {
    TX_NONE,
    TX_DEFERRED, /* BEGIN was answered but not sent: no participant yet */
    TX_OPEN,     /* begun on every participant */
    TX_FAILED,   /* failed before any server knew: only ROLLBACK (or COMMIT) helps */
};

struct savepoint {
    char *name;
    int pending; /* lengths of settings, listens and own when it was made */
    int listens;
    int own;
};

/* Exists only while the client is in a transaction block. */
struct transaction {
    enum tx_state state;
    int64_t started_at;
    char *begin_sql; /* "BEGIN ISOLATION LEVEL ..." */
    bool implicit;   /* of a pipeline over several shards, which its Sync ends, or of a series */
    bool
        in_query; /* begun in the Query under way, among other statements: also one may end it there */
    bool read_only;
    bool moved; /* it was rolled back because its rows move (bucket_hold.h) */
    bool
        ran; /* the client has heard of more than its settings and savepoints: begun again it would be another */
    bool wrote;
    bool changed_schema;    /* to be announced when it commits */
    char **changed_views;   /* names of views made or changed; NULL ends them; NULL: none */
    struct own_changes own; /* of pgshunt.* settings */
    struct guc_pending
        settings; /* of the session and SET LOCAL, also for servers that join later */
    struct listen_changes listens; /* LISTEN and UNLISTEN, for its end */
    bool went_back; /* a RESET left servers without what the startup packet says: to be set again */
    struct savepoint *savepoints;
    int nsavepoints;
    struct savepoint before; /* of a request that may begin it again: what it was ahead of that */
    int before_savepoints;
    struct cursors *cursors; /* results of several shards taken in parts; NULL: none */
};

/* request.attempts of one that is not to be tried elsewhere. */
#define CLIENT_ATTEMPTS_OVER 1000

/* Waiting for a node: see node_wait.h. */
struct node_wait {
    bool waits;
    unsigned shard;
    enum node_class class;
    int64_t look_at; /* not before */
    int64_t until;   /* of the whole request; 0: it has not waited */
    /* for a sample: node_wait_fresh() */
    bool fresh_waited;  /* once in a request */
    bool token;         /* for a sample of each primary instead: node_wait_token() */
    int64_t give_up_at; /* 0: does not */
    const struct node
        *sample; /* of this node (compared only), sent after asked_at; NULL: of whichever */
    int64_t asked_at;
};

/* What the client asked and is being answered now: from first byte to ReadyForQuery. */
struct request {
    struct arena *arena; /* statements and plans; NULL while idle */
    struct statement_list statements;
    struct shape *shape; /* `statements` is its tree, borrowed from the worker's; NULL: they are the
                            arena's */
    struct plan plan;
    bool planned;
    bool writes;            /* something of it may write (sequences.h) */
    bool asks_last_value;   /* currval() or lastval() is called */
    bool may_use_sequences; /* ... or may, inside a function */
    bool may_advance;       /* a sequence: it inserts, or calls such a function */
    bool timed_out;         /* it was cancelled for timeouts.query */
    bool deadlocked;        /* ... to end a deadlock over shards */
    bool moved;             /* ... because its rows move, at waiting_since (bucket_hold.h) */
    bool stale;             /* a guard refused it: it was planned by an old map (epoch.h) */
    bool
        begins; /* its transaction has nothing on its servers that could not be had again by asking it once more */
    bool forwarded;  /* some of the answer has reached the client */
    bool retriable;  /* an autocommit read on a replica: may be repeated elsewhere */
    bool on_primary; /* a replica has refused it: no replica is asked again */
    bool incomplete; /* `again` has not all that was asked: nothing of it may be repeated */
    bool repeat;     /* at ReadyForQuery it is: a statement it uses has to be prepared anew */
    bool in_block;   /* its transaction is from before it */
    const char *sql; /* of a Query message: borrowed from the input, copied when it has to wait */
    bool sql_kept;   /* sql is in the arena */
    bool function_call;          /* sql is no text but a FunctionCall message */
    struct series *series;       /* it is run statement by statement (series.h); NULL: whole */
    struct sql_names *names;     /* PREPARE or EXECUTE of SQL (session.h); NULL: neither */
    struct guc_pending settings; /* made outside a block, by a transaction not ended yet */
    struct buffer explain;   /* pgshunt's own lines, as DataRows, ahead of the server's EXPLAIN */
    int64_t schema_asked_at; /* waits for a schema read after this; 0: does not */
    bool schema_waited;      /* ... and has done so */
    bool guess; /* it was sent where a value was last seen, and that is to be shown by its rows */
    struct lookup_request *lookups; /* values looked up for it (lookup.h); NULL: none */
    struct draw *draw;              /* what defaults have given for it (draw.h); NULL: nothing */
    struct node_wait node_wait;
    int attempts;
    bool attaching;      /* attach.c is at it: what fails now it tries elsewhere itself */
    bool elsewhere;      /* ... and shall */
    bool hold;           /* ... or shall wait until a node is there */
    struct node *avoid;  /* node that failed us in this request (not referenced: compared only) */
    struct buffer again; /* retriable: the client's bytes of this request, to be processed again */
    int64_t started_at;
};

struct client {
    struct conn conn;
    enum client_state state;
    struct worker *worker;
    struct list_node all;     /* worker->clients */
    struct list_node waiting; /* pool->waiting */
    struct pool *waiting_pool;
    unsigned waiting_shard;
    int64_t waiting_since;
    struct buffer in; /* input not consumed yet */
    /* identity */
    char *user;
    char *database_name;
    struct account *account;         /* the worker's, for its pools */
    struct worker_stats *stats;      /* the worker's, of its database; NULL before login */
    const struct database *database; /* in client->topology */
    struct topology *topology;       /* reference; exchanged between transactions */
    struct schema_ref *schema;       /* reference; exchanged when its version changed */
    uint64_t schema_version;
    int32_t cancel_pid;
    uint32_t cancel_secret; /* the key of protocol 3.0; the long one is derived from it */
    struct peer peer;
    uint32_t id;
    int64_t connected_at;
    int64_t deadline;   /* login must be done by, 0: none */
    int64_t idle_since; /* state IDLE: worker_now when it got there */
    /* login */
    struct client_auth *auth; /* owned; until the client is known */
    struct scram_server *scram;
    unsigned char salt[4];   /* md5 */
    bool scram_started;      /* client-first was taken */
    uint8_t pool_mode;       /* enum pool_mode: taken over while it holds no server */
    bool admitted;           /* counted among the clients of its account */
    bool told_waiting;       /* has got the NOTICE about waiting */
    bool holds_and_waits;    /* waits for a server while it has others (pool_deadlock.c) */
    uint8_t negotiations;    /* encryption requests answered */
    struct guc_set *startup; /* settings from the startup packet: what RESET goes back to */
    /* session */
    struct server **participants;
    int nparticipants;
    struct server *inline_participant[1];
    struct transaction *tx;
    struct guc_set *guc;   /* settings it has made, startup's included */
    struct guc_set *heard; /* parameters it was told of (ParameterStatus) */
    struct request request;
    struct scatter *scatter;         /* a fan-out under way */
    struct extended *extended;       /* prepared statements and the batch under way */
    struct console *console;         /* connected to the admin console */
    struct replication *replication; /* the startup packet asked for it */
    /* What it has written and seen: shard by shard, for a dead primary, which no replica can be measured
     * by, must not keep its reads from the shards where it has written nothing. */
    struct freshness *freshness; /* by shard; NULL: nothing */
    int64_t floor_at;            /* ... and anything on any shard up to this moment; 0: nothing */
    struct listener *listener;   /* what it LISTENs to; NULL until it does */
    uint32_t pins_told;          /* reasons a NOTICE is due for; see pins.h */
    bool pin_noticed;            /* ... and was given */
    bool lost_sequences;         /* asked for currval() in vain: see sequences.h */
    uint16_t sequence_shard;     /* of its last INSERT or nextval(), from 1; 0: none */
    uint32_t sequence_server;    /* id of the server it wrote to last */
    struct own_settings *own;    /* pgshunt.* settings; NULL until one is said */
    size_t copy_left;            /* bytes of a CopyData message still to pass on */
    bool copy_ends;              /* ... of a CopyDone or CopyFail, which ends the COPY */
    bool input_held;             /* reading is off: too much input while busy */
    bool processing;             /* in session_process: do not re-enter */
    bool held;                   /* at a paused database's gate: control.h */
    bool bucket_held;            /* waits for buckets to have moved: bucket_hold.h */
    bool terminate;              /* close once the output is drained */
    bool long_cancel_key;        /* speaks protocol 3.2 */
    UT_hash_handle hh;           /* worker->by_id, by cancel_pid */
};

/* Takes over an accepted socket. */
void client_accept(struct worker *worker, int fd, struct peer peer);
/* Whatever it waits for in WAITING, it is on no list for that any more. The state is the caller's to change. */
COLD void client_stop_waiting(struct client *client);
COLD void client_close(struct client *client, const char *reason);
/* Writes the error and closes when it is out. */
COLD void client_fatal(struct client *client, const char *sqlstate, const char *message,
                       const char *hint);
/* Closes when what was written is out. */
COLD void client_finish(struct client *client, const char *reason);
bool client_send(struct client *client, const void *bytes, size_t len);
bool client_send_buffer(struct client *client, struct buffer *bytes); /* and releases it */
/* The same of what answers its request, if there is any: that cannot be asked again from now on. */
void client_answer(struct client *client, struct buffer *bytes);
/* Ends what conn_cork() has begun, of a client that may be closed meanwhile. */
void client_uncork(struct client *client);
COLD void client_error(struct client *client, const struct pg_error *error);
/* Ends it at once, whatever it does: it is told why where that cannot fall into the middle of a message;
 * what its servers are in the middle of is cancelled. Not from within the work on its own input. */
COLD void client_kill(struct client *client, const char *sqlstate, const char *message,
                      const char *hint);

/* In session mode its servers stay with it until it leaves. */
static inline bool client_keeps_servers(const struct client *client)
{
    return client->pool_mode == POOL_SESSION;
}
struct server *client_participant(const struct client *client, unsigned shard);
void client_attach(struct client *client, struct server *server, unsigned shard);
void client_detach(struct client *client, struct server *server);

/* From the pool: the server waited for is attached; or there will be none. */
void client_server_ready(struct client *client, struct server *server);
COLD void client_no_server(struct client *client, const char *sqlstate, const char *message,
                           const char *hint);
/* The reads under way with this replica are asked again elsewhere: it has refused one of them. */
COLD void client_ask_elsewhere(struct client *client, struct server *server);
/* From server_close: an attached server died. It is detached already. */
COLD void client_lost_server(struct client *client, struct server *server, const char *reason);
/* Somebody asked to cancel what this client is doing. */
COLD void client_cancel(struct client *client);
/* ... because it takes too long (timeouts.h). */
COLD void client_cancel_late(struct client *client);
/* ... because its rows are moving (bucket_hold.h). */
COLD void client_cancel_moved(struct client *client);
#define CLIENT_LATE_MESSAGE "canceling statement due to query_timeout"
#define CLIENT_LATE_HINT                                                                           \
    "Raise timeouts.query, or query_timeout of the database or user, or make it faster."

/* It waited for something else than a server, and goes on to get one. */
void client_go_on(struct client *client);
/* Starts or stops reading it, as its state has it. */
void client_hold_input(struct client *client);
/* Reads what has arrived and lets the session work on it. */
void client_continue(struct client *client);
/* Outside transactions, and nothing asked; at most part of a message has come. */
bool client_has_asked_nothing(const struct client *client);
bool client_is_idle(const struct client *client);       /* ... not even that */
const char *client_state_name(enum client_state state); /* as SHOW CLIENTS has it */

#endif
