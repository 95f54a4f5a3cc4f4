/*
 * worker.h: one thread with its own event loop, listener, clients, pools and buffers. Workers share
 * nothing but immutable snapshots (topology) and atomics; they talk by messages (worker_post).
 */
#ifndef PGSHUNT_PROXY_WORKER_H
#define PGSHUNT_PROXY_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "pgshunt/arena.h"
#include "pgshunt/buffer.h"
#include "proxy/credentials.h"
#include "proxy/list.h"
#include "proxy/listeners.h"
#include "proxy/monitor.h"
#include "proxy/pins.h"
#include "proxy/poller.h"
#include "proxy/pool.h"
#include "proxy/prepared.h"
#include "proxy/topology.h"

struct auth_query;
struct client;
struct hub;
struct lookups;
struct worker_channel;
struct gate;
struct secret;
struct shape_table;
struct partition_keeper;
struct recovery;
struct shard_deadlocks;
struct takeover;
struct welcome;
struct worker;

#define WORKERS_MAX 128
#define IO_BUFFER_SIZE 65536

/* Work sent to a worker's thread; runs there once, then is freed by run itself. */
struct message {
    struct message *next;
    void (*run)(struct worker *worker, struct message *message);
    /* In place of run, on the sender's thread, where the worker has ended. NULL: it is just freed. */
    void (*drop)(struct message *message);
};

/* Counters of one worker, read by reports on its own thread. Times in microseconds. */
struct worker_stats {
    uint64_t queries, transactions, bytes_in, bytes_out, query_us, xact_us, wait_us;
    uint64_t assignments, client_parses, server_parses, binds, logins;
    uint64_t direct, scatter, gather, refused, reads_on_replica, reads_on_primary, retries,
        misrouted, pipelined, two_phase, in_doubt, keyless, held, stale;
    uint64_t lookup_hits, lookup_misses, lookup_stale, lookup_failed;
    uint64_t errors;
};

/* Per database name: what SHOW STATS reports. */
struct database_stats {
    char *name;
    struct worker_stats counts;
    struct worker_stats at_begin, at_end; /* of the last complete period (report_tick) */
    UT_hash_handle hh;
};

enum worker_phase {
    WORKER_RUNNING,
    WORKER_DRAINING, /* SIGTERM: no new clients; idle ones are closed, busy ones finish */
    WORKER_STOPPED,
};

struct daemon;
struct http;

/* Handshakes with one kind of peer, since the start. */
struct tls_counters {
    atomic_ullong handshakes; /* done, resumed ones included */
    atomic_ullong resumed;
    atomic_ullong failures;
};

struct worker {
    int index;
    pthread_t thread;
    uv_loop_t loop;         /* timers and the mailbox */
    struct poller poller;   /* what it waits with: sockets, and the loop among them */
    struct list_node doors; /* the sockets it listens on: doors.h */
    uv_timer_t tick;
    uv_timer_t node_timer;   /* runs while clients wait for a node */
    uv_timer_t schema_timer; /* runs while clients wait for a schema */
    uv_async_t mailbox;
    pthread_mutex_t mailbox_lock;
    struct message *mailbox_first, *mailbox_last;
    bool mailbox_closed; /* the worker has ended */
    struct daemon *daemon;
    struct topology *topology; /* this worker's reference; swapped by message on reload */
    enum worker_phase phase;
    int64_t patient_until; /* DRAINING: clients may stay, idle or not */
    int64_t drain_until;
    int64_t
        retire_at; /* RUNNING, handed over to a successor: DRAINING begins then; 0: not handed over */
    struct list_node clients;        /* all of them */
    struct list_node servers;        /* all of them */
    struct list_node node_waiting;   /* clients, see node_wait.h */
    struct list_node schema_waiting; /* clients, see schema_wait.h */
    struct list_node refused;        /* struct client_auth: to be told so after a delay */
    int nclients;
    unsigned planned_again; /* statements, by a template: some of them are counted by bucket */
    struct worker_channel *channels; /* its clients LISTEN to: see listen.c */
    uint32_t listen_tickets;
    struct list_node listen_held; /* clients, see listen_hold() */
    struct lookups *lookups;      /* shards asked for values (lookup.h); NULL until one is */
    struct hub *hubs;             /* databases that this worker listens for */
    uint64_t pins[PIN_REASONS];   /* servers pinned since start, by reason */
    struct client *by_id;         /* hash of clients by cancel pid */
    uint32_t next_client;
    uint32_t next_server;
    int64_t now;               /* see worker_now; 0: not read in this turn yet */
    uint64_t random;           /* state of a cheap generator, for balancing */
    struct account *accounts;  /* by database and user; they hold the pools */
    struct list_node squeezed; /* pools that a limit on server connections keeps waiting */
    bool asking_room;          /* the other workers are being asked to make room */
    unsigned disowned;         /* node_disowned_count() that was acted upon */
    bool warming;              /* this tick has started a connection for a pool's minimum */
    struct database_stats *stats;
    int64_t period_begin, period_end; /* clock_us of the last complete period; 0: none yet */
    struct welcome *welcomes;         /* greetings by (database, user, startup settings) */
    struct secret *secrets;           /* derived from passwords (client_login.c) */
    struct prepared_table prepared;
    struct shape_table *shapes;     /* trees of Query messages */
    struct arena *spare_arenas[16]; /* request arenas kept for reuse */
    int nspare_arenas;
    struct buffer spare_buffers[16]; /* empty ones of batches, for the next batches */
    int nspare_buffers;
    uint32_t secrets_left[64]; /* see worker_secret */
    int nsecrets_left;
    struct list_node cancels;     /* cancel requests under way */
    struct gate *gates;           /* paused and disabled databases (control.h); NULL: none */
    struct list_node held;        /* clients of paused databases */
    struct list_node bucket_held; /* clients that wait for buckets to have moved (bucket_hold.h) */
    struct list_node asks;        /* console commands that wait (console_control.c) */
    bool suspended;               /* clients are not read */
    unsigned ticks;
    char *io; /* IO_BUFFER_SIZE bytes every recv goes into */
};

/* The process: what the workers share. */
struct daemon {
    struct worker *workers;
    int nworkers;
    pthread_mutex_t start_lock; /* held until all workers are there: none works before */
    struct monitor *monitor;
    struct auth_query *auth_query;           /* looks users up */
    struct recovery *recovery;               /* finishes what two-phase commits left */
    struct partition_keeper *keeper;         /* maintains partitions; NULL: nobody does here */
    struct shard_deadlocks *shard_deadlocks; /* finds them; NULL: not started yet */
    struct catalog_watches *catalog; /* which shard has which buckets; NULL: not started yet */
    atomic_int clients;
    atomic_int replications;       /* replication sessions: limits.max_replication */
    unsigned char cancel_seed[32]; /* clients' cancel keys are made from it */
    pthread_mutex_t budgets_lock;
    struct budget *budgets; /* guarded by the lock; what is in them has its own rules */
    struct holder *holders; /* clients that hold servers and wait for more (pool_deadlock.c) */
    _Atomic int64_t squeezed_until; /* somebody may want room (pool_budget.h); 0: nobody does */
    struct credentials credentials; /* for logins to servers */
    atomic_ullong connections;      /* accepted since start */
    struct tls_counters tls_clients, tls_servers;
    int64_t started_at;
    atomic_bool draining;
    atomic_bool reload_ok; /* the last reload, or the start, was good */
    atomic_int ended;      /* workers that have ended */
    struct http *http;     /* NULL: off */
    struct listeners listeners;
    struct takeover *takeover; /* NULL: off */
    pthread_mutex_t topology_lock;
    struct topology *topology; /* the newest; guarded by the lock */
};

/* Starts the thread, on its share of daemon->listeners. False: could not; `error` says why. */
MUST_CHECK bool worker_start(struct worker *worker, struct daemon *daemon, int index, char *error,
                             size_t error_size);
void worker_post(struct worker *worker, struct message *message);
void worker_set_topology(struct worker *worker, struct topology *topology); /* takes a reference */
/* No new clients: those who are here may stay for patience_ms, then have limit_ms to end transactions. A
 * second one counts if it has less patience. */
#define PATIENCE_FOR_EVER (INT64_C(1) << 40)
void worker_drain(struct worker *worker, int64_t patience_ms, int64_t limit_ms);
/* No new clients, those who are here may stay and work for patience_ms; then as worker_drain(0, shutdown_timeout). */
void worker_retire(struct worker *worker, int64_t patience_ms);
/* Closes everything; `tell`: clients get an error first. */
void worker_stop_now(struct worker *worker, bool tell);
void worker_join(struct worker *worker);

struct arena *worker_arena_take(struct worker *worker);
void worker_arena_give(struct worker *worker, struct arena *arena);
/* Gives room to a buffer that has none; takes it back when what was in it is no longer needed. */
void worker_buffer_take(struct worker *worker, struct buffer *buffer);
void worker_buffer_give(struct worker *worker, struct buffer *buffer);
struct worker_stats *worker_stats_of(struct worker *worker, const char *database);
uint64_t worker_random(struct worker *worker);
/* 32 bits nobody can guess, from a stock that OpenSSL fills. */
uint32_t worker_secret(struct worker *worker);
/* clock_us, read once in each turn of the event loop: for statistics and idle times. What has to be
 * ordered against other threads' clocks takes clock_us() itself. */
COLD int64_t worker_read_clock(struct worker *worker);
static inline int64_t worker_now(struct worker *worker)
{
    return worker->now ? worker->now : worker_read_clock(worker);
}

/*
 * Runs `visit` once on every worker's own thread (one after another, so `arg` needs no lock), then
 * `done` on the thread of `origin`; origin NULL: `done` runs on the last worker's thread. Workers that
 * have ended are left out; where `origin` or all have, `done` runs on the thread it has come to. For
 * reports.
 */
void daemon_visit_workers(struct daemon *daemon, struct worker *origin,
                          void (*visit)(struct worker *, void *), void (*done)(void *), void *arg);
/* The newest topology with a reference of the caller's. */
struct topology *daemon_topology(struct daemon *daemon);

#endif
