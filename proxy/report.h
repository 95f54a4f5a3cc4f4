/*
 * report.h: what the process is doing at one moment, gathered from all workers, for the console, the
 * metrics and the status page.
 *
 *   report_start --> each worker, on its own thread, adds its rows --> done(report, arg)
 *
 * Rows of one (database, user, node) are one row, summed over the workers. A report owns all its texts
 * (its arena), a reference on the topology it is read against and one on each node it names. Texts are
 * valid UTF-8 whatever clients call themselves: other bytes are written \xNN. Once done() has it,
 * nobody else touches it.
 */
#ifndef PGSHUNT_PROXY_REPORT_H
#define PGSHUNT_PROXY_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "pgshunt/arena.h"
#include "proxy/catalog_watch.h"
#include "proxy/partition_keeper.h"
#include "proxy/recovery.h"
#include "proxy/topology.h"
#include "proxy/worker.h"

enum report_part {
    REPORT_SUMS = 1 << 0,     /* accounts, pools, counters, workers */
    REPORT_CLIENTS = 1 << 1,  /* one row per client */
    REPORT_SERVERS = 1 << 2,  /* one row per server connection */
    REPORT_PREPARED = 1 << 3, /* one row per prepared statement, up to a limit */
    REPORT_LOOKUPS = 1 << 4,  /* one row per lookup of the configuration */
};

/* One (database, user): the clients that are logged in, and the pools there are for it. */
struct report_account {
    const char *database;
    const char *user;
    int idle;                /* nothing asked, no server held */
    int active;              /* asking, or in a transaction */
    int waiting;             /* for a server */
    int64_t longest_held_us; /* of those that wait because the database is paused */
    struct report_pool *pools;
    UT_hash_handle hh;
};

/* One (database, user, node): server connections and who waits for them. */
struct report_pool {
    const char *database;
    const char *user;
    struct node *node;        /* reference */
    struct report_pool *next; /* of the account */
    int limit;
    int active, idle, login; /* server connections */
    int tended;              /* being reset or tested between two clients */
    int least, reserve;      /* min_pool_size, reserve_pool_size */
    int prepared;            /* prepared statements on the servers */
    int cancels;             /* cancel requests under way */
    int being_canceled;      /* servers held back until those have ended */
    int waiting;             /* clients */
    int64_t longest_wait_us; /* of those waiting now */
    uint64_t assignments;
    uint64_t wait_us;
    uint64_t wait_timeouts, deadlocks; /* clients refused */
    uint64_t evictions, reserves, moves;
    UT_hash_handle hh;
};

/* One database: its counters. */
struct report_stats {
    const char *database;
    struct worker_stats counts; /* since start */
    struct worker_stats period; /* in the last complete period */
    UT_hash_handle hh;
};

struct report_worker {
    int index;
    int clients, servers;
    int prepared; /* statements known by content */
};

/* A row of SHOW CLIENTS or SHOW SERVERS. */
struct report_connection {
    struct report_connection *next;
    const char *user;
    const char *database;
    const char *state;
    const char *address; /* "127.0.0.1", "::1" or "unix" */
    int port;
    const char *local_address;
    int local_port;
    int64_t connected_at; /* clock_us */
    int64_t request_at;   /* 0: nothing asked yet */
    int64_t wait_us;      /* how long it has been waiting; 0: it is not */
    bool close_needed;
    const char *replication; /* none, physical, logical */
    const void *object;      /* names it, as `links` of others do; never followed */
    const void **links;
    int nlinks;
    int remote_pid;
    const char *application_name;
    const char *tls; /* "TLSv1.3/TLS_AES_256_GCM_SHA384"; "": plain */
    int prepared_statements;
    uint32_t id;
    const char *pin_reason; /* why client and server stay together, ""; see pins.h */
};

/* TLS handshakes with clients or servers, since the start. */
struct report_handshakes {
    uint64_t done; /* resumed ones included */
    uint64_t resumed;
    uint64_t failed;
};

/* A prepared statement by content. Those of servers are counted on the workers that know it. */
struct report_prepared {
    struct prepared_key key;
    const char *name;      /* what servers know it as */
    const char *statement; /* its beginning */
    int64_t references;    /* names of clients, and answers awaited */
    int servers;           /* connections that have it */
    int workers;           /* that know it */
    UT_hash_handle hh;
};

/* A lookup of a database, with what the workers have met. */
struct report_lookup {
    struct report_lookup *next;
    const char *database;
    const struct lookup_rule *lookup; /* of the report's topology */
    bool ready;                       /* it was set up, as far as the schema tells */
    int cached;
    uint64_t hits, misses, stale, failed;
};

struct report_list {
    struct report_connection *first, *last;
    int count;
};

enum report_closed { CLOSED_PAUSED = 1 << 0, CLOSED_DISABLED = 1 << 1 };

struct report {
    struct arena arena;
    unsigned parts;            /* enum report_part bits */
    struct topology *topology; /* reference */
    int64_t now;               /* clock_us when it was begun */
    int64_t wall_us;           /* the same moment since 1970 */
    int64_t started_at;        /* clock_us of the process' start */
    int64_t period_us;         /* length of the period of report_stats.period */
    bool draining;
    bool paused;           /* all databases; with REPORT_SUMS, as the next two */
    bool suspended;        /* clients are not read */
    unsigned char *closed; /* enum report_closed bits, by the topology's database */
    bool reload_ok;
    uint64_t accepted;                      /* connections since start */
    int logging_in;                         /* clients not logged in yet */
    int cancelling;                         /* connections that deliver a cancel request */
    int pinned[PIN_REASONS];                /* clients that keep a server, by reason */
    uint64_t pins[PIN_REASONS];             /* how often one was pinned since start */
    int tls_clients, tls_servers;           /* connections on TLS */
    struct report_handshakes handshakes[2]; /* clients, servers */
    struct recovery_counts recovery;
    struct catalog_watch_report *maps;   /* by the topology's database */
    struct partition_report *partitions; /* likewise */
    struct report_account *accounts;
    struct report_pool *pools;
    struct report_stats *stats;
    struct report_worker *workers;
    int nworkers;
    struct report_list clients, servers;
    struct report_prepared *prepared;
    struct report_lookup *lookups;
};

/*
 * Gathers `parts` (0: nothing but what needs no worker) and gives the report to `done`, which owns it
 * then: on the thread of `origin`, or where that is NULL on the last worker's thread. Workers that have
 * ended are left out.
 */
void report_start(struct daemon *daemon, struct worker *origin, unsigned parts,
                  void (*done)(struct report *report, void *arg), void *arg);
/* A report that no worker adds to: configuration and nodes. */
struct report *report_static(struct daemon *daemon);
void report_free(struct report *report);

/* Worker upkeep, about once a second: keeps the counters of a period's begin and end. */
void report_tick(struct worker *worker, int64_t now);
#define REPORT_PERIOD_US (60 * 1000000LL)

/* ---- rows (report_rows.c): found by their key, made on demand ---- */

/* An empty report; takes a reference on the topology. */
struct report *report_new(struct topology *topology, unsigned parts);
struct report_account *report_account(struct report *report, const char *database,
                                      const char *user);
struct report_pool *report_pool(struct report *report, const char *database, const char *user,
                                struct node *node);
struct report_stats *report_stats(struct report *report, const char *database);
struct report_connection *report_connection(struct report *report, struct report_list *list);
void report_add_counts(struct worker_stats *to, const struct worker_stats *more);
/* By name, so that two reports list the same things in the same order. */
void report_sort(struct report *report);

/* Sums over the report. */
int report_logged_in(const struct report *report);
int report_server_count(const struct report *report);
/* The shard of the database that the node serves, or NULL (it has left the configuration). */
const struct shard *report_shard_of(const struct report *report, const char *database,
                                    const struct node *node);

/* A copy of `text` in the arena with every byte that is not UTF-8 written as \xNN. */
const char *report_text(struct arena *arena, const char *text);
/* "127.0.0.1" and 5432 of a socket address; "unix" and 0 for local sockets, "" and 0 for others. */
const char *report_address(struct arena *arena, const struct sockaddr_storage *address, int *port);
/* The plain text of a setting's SQL value ('a''b', E'\\', word). */
const char *report_unquote(struct arena *arena, const char *value);

/* Adds the worker's prepared statements (report_prepared.c). */
void report_list_prepared(struct report *report, struct worker *worker);

/* ---- its forms ---- */

/* Prometheus text format 0.0.4 (metrics.c). */
void metrics_write(const struct report *report, struct buffer *out);
/* /api/status, as JSON (report_json.c). The caller frees the text. */
char *report_json(const struct report *report);
/* Why no client should be sent here, a line each, into out; true: nothing is wrong (report_json.c). */
bool report_ready(const struct report *report, struct buffer *out);

#endif
