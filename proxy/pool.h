/*
 * pool.h: a worker's server connections for one (database, user, node), and the clients waiting.
 *
 *   idle      servers free for use, newest first (so that extra ones age out)
 *   starting  servers connecting or logging in
 *   tended    servers that run something between two clients: a reset, a test (pool_tend.c)
 *   waiting   clients waiting for a server of this pool, first come first served
 *   active    a count: servers linked to clients, parked or tended
 *
 * The files: pool_account.c (database, user) and their settings; pool.c checkout and checkin; pool_wait.c
 * the queue; pool_tend.c; pool_room.c the limits that several pools share; pool_move.c between workers;
 * pool_upkeep.c what happens with time; pool_deadlock.c clients that wait for each other.
 *
 * The size limit is shared by all workers through struct budget, found by the same triple. A server
 * that comes free goes to the worker whose first client has waited longest (docs/internals/pools.md).
 */
#ifndef PGSHUNT_PROXY_POOL_H
#define PGSHUNT_PROXY_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uthash.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"
#include "proxy/list.h"
#include "proxy/pool_budget.h"
#include "proxy/server.h"
#include "proxy/topology.h"

struct worker;
struct client;
struct credential;

/* What one worker has for one (database, user): a client finds its pools here. */
struct account {
    struct worker *worker;
    char *database;
    char *user;
    char *server_user;             /* whom to log in to servers as */
    struct credential *credential; /* what clients' logins gave us for the servers; the process' */
    struct pool_settings settings; /* as they hold for this user of this database */
    struct route_wish wish;        /* likewise; read_write_split is in the settings */
    struct budget *clients[2];     /* of the database, of the user */
    struct pool *pools;
    UT_hash_handle hh; /* worker->accounts, by name "database\0user" in `key` */
    int key_length;
    char key[];
};

/* Limits on server connections that pools share. */
enum pool_limit { LIMIT_TOTAL, LIMIT_NODE, LIMIT_DATABASE, LIMIT_USER, POOL_LIMITS };

struct pool {
    struct account *account;
    struct pool *next; /* of the account */
    struct worker *worker;
    struct node *node; /* reference */
    struct budget *budget;
    struct budget *limits[POOL_LIMITS];
    struct list_node idle, starting, tended, waiting;
    int nidle, nstarting, ntended, nwaiting, nactive;
    struct list_node squeezed;  /* worker->squeezed, while a limit keeps clients waiting */
    struct budget *squeezed_by; /* ... this one */
    int64_t squeezed_at;        /* it last looked for room then */
    int64_t check_delay_us;     /* idle for longer: tested before use; 0: not */
    int64_t doubted_at;         /* what was idle then is tested before use; 0: nothing is */
    struct guc_set *defaults;   /* parameters as its servers reported them last, on their own */
    bool retired;               /* the node has left the configuration: freed when empty */
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
    uint64_t wait_timeouts;
    uint64_t deadlocks;
    uint64_t evictions; /* idle servers closed to make room for other pools */
    uint64_t reserves;  /* servers started from the reserve */
    uint64_t moves;     /* servers that went to another worker */
};

/* A worker's account, created on demand. */
struct account *account_get(struct worker *worker, const char *database, const char *user);
/* One more client that has logged in. False: there are too many; `error` says by which limit. */
bool account_admit(struct account *account, struct pg_error *error);
void account_leave(struct account *account);
/* The account's pool for a node, created on demand. */
struct pool *pool_get(struct account *account, struct node *node);
/* A pool that is in nobody's books, for one connection that is not shared by turns. */
struct pool *pool_private(struct account *account, struct node *node);
void pool_private_free(struct pool *pool);
enum checkout { CHECKOUT_READY, CHECKOUT_WAITING };
/* READY: client's participant was attached now. WAITING: client_server_ready() or client_no_server()
 * follows. The client must not be waiting already. */
enum checkout pool_checkout(struct pool *pool, struct client *client, unsigned shard);
/* A server that has nothing more to do goes back (or to a waiting client, or to another worker). */
void pool_checkin(struct server *server);
/* What a tended server was running has been answered. */
COLD void pool_tended(struct server *server);
/* Login succeeded. */
void pool_server_ready(struct server *server);
/* Login failed (before ready): waiting clients hear of it if nobody else can serve them. */
COLD void pool_login_failed(struct server *server, const char *sqlstate, const char *message);
/* Takes a server off the lists and counts, for server_close. */
COLD void pool_remove(struct server *server);
void pool_cancel_wait(struct client *client);
/* Once a tick: minimum, idle and lifetime limits, waiting clients' time limit. */
void pools_tick(struct worker *worker, int64_t now);
/* At start and after a reload: makes the pools that are to be open before the first client. */
void pools_warm_up(struct worker *worker);
/* After a reload: takes new settings over, retires the pools of nodes that are gone. */
void pools_reload(struct worker *worker);
void pools_free(struct worker *worker);

#endif
