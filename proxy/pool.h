/*
 * pool.h: a worker's server connections for one (database, user, node), and the clients waiting.
 *
 *   idle      servers free for use, newest first (so that extra ones age out)
 *   starting  servers connecting or logging in
 *   waiting   clients waiting for a server of this pool, first come first served
 *   active    a count: servers linked to clients
 *
 * The size limit is shared by all workers through struct budget, found by the same triple. When a
 * worker has waiters and nothing is left in the budget, it begs the other workers, who hand over an
 * idle connection; to a worker that has none at all they hand over the next one checked in.
 */
#ifndef PGSHUNT_PROXY_POOL_H
#define PGSHUNT_PROXY_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uthash.h>

#include "pgshunt/error.h"
#include "proxy/list.h"
#include "proxy/server.h"
#include "proxy/topology.h"

struct worker;
struct client;
struct credential;

struct budget {
    char *key; /* node id, database, user */
    atomic_int limit;
    atomic_int used; /* servers of all workers, starting ones included */
    UT_hash_handle hh;
};

/* What one worker has for one (database, user): a client finds its pools here. */
struct account {
    struct worker *worker;
    char *database;
    char *user;
    char *server_user;             /* whom to log in to servers as */
    struct credential *credential; /* what clients' logins gave us for the servers; the process' */
    struct pool *pools;
    UT_hash_handle hh; /* worker->accounts, by name "database\0user" in `key` */
    int key_length;
    char key[];
};

struct pool {
    struct account *account;
    struct pool *next; /* of the account */
    struct worker *worker;
    struct node *node; /* reference */
    struct budget *budget;
    struct list_node idle, starting, waiting;
    int nidle, nstarting, nwaiting, nactive;
    int beggar;   /* worker to get the next free server, -1: none */
    bool retired; /* the node has left the configuration: freed when empty */
    /* the last failed login (login_gate.h) */
    int failures;            /* in a row */
    int64_t failed_at;       /* clock_us */
    int64_t retry_at;        /* no new try before this */
    unsigned failed_version; /* of the account's credential */
    char *last_error;        /* owned; given to clients */
    char last_sqlstate[6];
    const char *last_hint; /* static; NULL: none of its own */
    bool gated;            /* wanted to start a login while too many were under way */
    /* counters for STATS, POOLS and metrics */
    uint64_t assignments;
    uint64_t wait_us;
};

/* A worker's account, created on demand. */
struct account *account_get(struct worker *worker, const char *database, const char *user);
/* The account's pool for a node, created on demand. */
struct pool *pool_get(struct account *account, struct node *node);
enum checkout { CHECKOUT_READY, CHECKOUT_WAITING };
/* READY: client's participant was attached now. WAITING: client_server_ready() or client_no_server()
 * follows. The client must not be waiting already. */
enum checkout pool_checkout(struct pool *pool, struct client *client, unsigned shard);
/* A server that has nothing more to do goes back (or to a waiting client, or to another worker). */
void pool_checkin(struct server *server);
/* Login succeeded. */
void pool_server_ready(struct server *server);
/* Login failed (before ready): waiting clients hear of it if nobody else can serve them. */
void pool_login_failed(struct server *server, const char *sqlstate, const char *message);
/* Takes a server off the lists and counts, for server_close. */
void pool_remove(struct server *server);
void pool_cancel_wait(struct client *client);
/* Once a second or so: idle and lifetime limits, waiting clients' time limit. */
void pools_tick(struct worker *worker, int64_t now);
/* After a reload: takes new limits over, retires the pools of nodes that are gone. */
void pools_reload(struct worker *worker);
void pools_close_idle(struct worker *worker);
void pools_free(struct worker *worker);

#endif
