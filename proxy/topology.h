/*
 * topology.h: the running cluster: databases, shards and nodes with what the monitor knows of them.
 *
 * A topology is an immutable snapshot made from one configuration; workers and the monitor hold
 * references. A node outlives topologies: a reload finds it again by (host, port, dbname), so its state
 * is never forgotten. The monitor thread alone writes a node's atomics (and workers the failure
 * counter); everybody reads them without a lock.
 */
#ifndef PGSHUNT_PROXY_TOPOLOGY_H
#define PGSHUNT_PROXY_TOPOLOGY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "pgshunt/catalog.h"
#include "pgshunt/config.h"
#include "pgshunt/schema.h"
#include "pgshunt/shardmap.h"
#include "proxy/breaker.h"
#include "proxy/tls_context.h"

enum node_role { NODE_ROLE_UNKNOWN, NODE_ROLE_PRIMARY, NODE_ROLE_REPLICA };

enum node_state {
    NODE_STATE_UNKNOWN, /* not yet seen; may be tried */
    NODE_STATE_UP,      /* checks are answered */
    NODE_STATE_DOWN,    /* taken out: checks are not answered, or its circuit breaker is open */
};

struct node {
    atomic_int references;
    int id; /* unique in the process, for logs and the console */
    char *host;
    int port;
    char *dbname;
    char *region;
    atomic_int weight; /* share of reads; a reload may change it */
    /* state, written by the monitor */
    atomic_int role;             /* enum node_role */
    atomic_int state;            /* enum node_state */
    _Atomic int64_t lag_us;      /* replay behind the primary in time; 0 on a primary; -1 unknown */
    _Atomic int64_t lag_bytes;   /* -1 unknown */
    _Atomic int64_t held_lag_us; /* what a limit is compared with, see lag_hold(); -1 unknown */
    _Atomic uint64_t wal_position; /* primary: current; replica: replayed */
    /* A replica has replayed everything the primary had at this moment (clock_us()); 0: unknown. A
     * client that wrote before it may read here. */
    _Atomic int64_t fresh_as_of;
    /* A replica while the monitor's connection to it holds (freshness.h); 0: none. Cleared before what
     * else changes with a restart, set after it. */
    _Atomic uint32_t stint;
    _Atomic int64_t sampled_at; /* stamp of the sample that told wal_position */
    _Atomic int64_t checked_at; /* clock_us() of the last answer */
    _Atomic int64_t
        up_since; /* clock_us() when it answered again, having been down; 0: never was */
    atomic_long checks_failed;    /* counters for metrics */
    atomic_long connect_failures; /* by workers: failed logins and broken connections */
    atomic_int logins;            /* under way by workers (login_gate.h) */
    atomic_int timeline;          /* highest timeline seen here; 0: unknown */
    /* A writable node that another one outranks (see shard_primary()): never written to. */
    atomic_bool fenced;
    _Atomic int64_t
        held_until; /* clock_us(): nothing new is sent to it until then (hold.h); 0: not held */
    atomic_bool read_only;       /* a primary whose sessions are read-only by default */
    _Atomic int64_t dead_since;  /* checks are not answered since; 0: they are */
    atomic_int breaker;          /* enum breaker_state */
    atomic_int breaker_failures; /* counted by it now */
    atomic_long breaker_opened;  /* how often, for metrics */
    /* what workers have met since the monitor's last look (node_health.h) */
    atomic_int refusals;
    atomic_int disk_errors;
    atomic_bool broke;
    atomic_bool proved;
    /* server connections made before are closed: once they are free, at once (node_health.h) */
    _Atomic int64_t leave_before, lost_before;
    /*
     * Where to connect. IP addresses and sockets ('/' first) are resolved from the start, names by the
     * monitor, which may change them later: read through node_address().
     */
    pthread_mutex_t address_lock; /* guards the next two */
    struct sockaddr_storage address;
    socklen_t address_length;
    atomic_bool resolved; /* there is an address */
};

struct shard {
    char *name;
    char *dbname;
    int index;
    struct node **nodes; /* the shard holds a reference on each */
    int nnodes;
    atomic_uint turn; /* of round robin */
};

/* A schema snapshot shared by reference count: see topology_schema(). */
struct schema_ref {
    atomic_int references;
    struct schema *schema;
    uint64_t version;
};

/* What is recorded of a database's map; immutable but for what is atomic, shared by reference count. */
struct recorded_map {
    atomic_int references;
    _Atomic int64_t
        counted_until; /* clock_us(): till then whoever changes the map waits for this proxy */
    struct recorded_map *base; /* reference: what `map` shares with it; NULL: nothing */
    struct arena arena;        /* has the rest of `map` */
    struct catalog_map map;
};

struct database {
    char *name;
    const struct database_config *config; /* points into topology->config */
    struct shard *shards;
    int nshards;
    struct shardmap *map;
    struct recorded_map
        *recorded; /* reference: laid over the configuration's map; NULL: nothing is */
    int64_t
        map_since; /* freshness_now() when the map got its epoch: who reads has to be past it; 0: the first */
    struct schema_slot *schema; /* shared between topologies of the same database name */
};

struct topology {
    atomic_int references;
    struct topology
        *owner; /* reference: of config and tls, where only a map has changed since; NULL: itself */
    struct config *config; /* owned */
    struct tls_setup *tls; /* reference; made of config; NULL: no TLS at all */
    struct database *databases;
    int ndatabases;
    uint64_t version; /* of the configuration */
};

/* Takes over `config` (its `tls` is for the caller to set). `old` may be NULL; nodes and schemas that stay are taken over from it. */
struct topology *topology_new(struct config *config, struct topology *old);
/* The same with another map of one database. NULL: `error` says why the map does not fit the configuration. */
struct topology *topology_with_map(struct topology *old, const char *database,
                                   struct recorded_map *recorded, struct db_error *error);
/* Whether the maps in use fit another configuration, so that topology_new() may lay them over it. */
MUST_CHECK bool topology_maps_fit(const struct topology *topology, const struct config *config,
                                  struct db_error *error);
/* With one reference, the caller's; its arena is empty. */
struct recorded_map *recorded_map_new(void);
struct recorded_map *recorded_map_ref(struct recorded_map *recorded);
void recorded_map_unref(struct recorded_map *recorded); /* NULL is ignored */
struct topology *topology_ref(struct topology *topology);
void topology_unref(struct topology *topology);
struct node *node_ref(struct node *node);
void node_unref(struct node *node);
/* Copies the address to connect to. False: the name is not resolved (yet). */
bool node_address(struct node *node, struct sockaddr_storage *address, socklen_t *length);
/* By the monitor, after resolving. */
void node_set_address(struct node *node, const struct sockaddr *address, socklen_t length);

const struct database *topology_database(const struct topology *topology, const char *name);

/* The current schema of a database with a reference of the caller's (schema_unref it), or NULL. Cheap
 * enough for once per connection or change: workers cache the pointer and compare schema_version. */
struct schema_ref *topology_schema(const struct database *database);
uint64_t topology_schema_version(const struct database *database); /* 0: none yet */
/* clock_us() at which the newest complete reading of the catalog began, whether or not it brought
 * anything new: it holds what was committed before. 0: none yet. */
int64_t topology_schema_read_at(const struct database *database);
void topology_schema_was_read(const struct database *database, int64_t began_at);
/* When a statement that changes the schema last went through this process; 0: never. */
int64_t topology_schema_changed_at(const struct database *database);
void topology_schema_changes(const struct database *database);
/* By the schema loader: replaces the snapshot; takes over `schema`. */
void topology_publish_schema(const struct database *database, struct schema *schema);
void schema_unref(struct schema_ref *ref);

/*
 * The node believed to accept writes, or NULL: one that says it is a primary and answers, on the
 * highest timeline any node of the shard (reachable or not) was ever seen on. An old primary that comes
 * back after a failover is therefore not it, even while the new one is away.
 */
struct node *shard_primary(const struct shard *shard);

const char *node_role_name(enum node_role role);
const char *node_state_name(enum node_state state);
/* CLOCK_MONOTONIC in microseconds: the one clock of everything here. */
int64_t clock_us(void);

#endif
