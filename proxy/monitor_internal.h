/*
 * monitor_internal.h: what the parts of the monitor share. Everything here runs on the monitor's
 * thread, except the fields of struct monitor that say otherwise.
 *
 *   monitor.c         the thread, its loop, and what other threads may call
 *   monitor_watch.c   one node: resolve, connect, check, retry
 *   monitor_health.c  one node: when it is taken out and when it is back
 *   monitor_group.c   one shard: who is primary, what the replicas' positions mean
 *   monitor_schema.c  when to load which database's schema
 *   monitor_conn.c    one libpq connection on the loop
 */
#ifndef PGSHUNT_PROXY_MONITOR_INTERNAL_H
#define PGSHUNT_PROXY_MONITOR_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "proxy/lag.h"
#include "proxy/monitor.h"
#include "proxy/monitor_conn.h"
#include "proxy/topology.h"

/* ---- monitor_watch.c ---- */

#define WATCH_MAX_ADDRESSES 8

enum watch_step {
    WATCH_OFF,      /* no connection; the next tick at or after retry_at starts one */
    WATCH_RESOLVE,  /* the name is being looked up, then WATCH_CONNECT */
    WATCH_CONNECT,  /* logging in, then WATCH_IDENTIFY */
    WATCH_IDENTIFY, /* control file data asked for, then WATCH_PREPARE or WATCH_CHECK */
    WATCH_PREPARE,  /* the check statement is being prepared, then WATCH_CHECK */
    WATCH_IDLE,     /* between checks */
    WATCH_CHECK,    /* a check is under way, then WATCH_IDLE */
};

struct group;

/* One node being watched. Owned by the monitor's list. */
struct watch {
    struct monitor *monitor;
    struct node *node;   /* a reference */
    struct group *group; /* the largest shard the node is listed in; owned by the monitor */
    char name[300];      /* host:port, for logs */
    enum watch_step step;
    struct monitor_conn *conn; /* owned; NULL in WATCH_OFF and WATCH_RESOLVE */
    bool prepared;             /* on this connection */
    bool first_check;          /* on this connection, still to come */
    bool recheck;              /* asked for while a check was under way */
    bool checked_once;         /* a check has come to an end, good or bad */
    bool wanted;               /* mark for the sweep after a reload */
    enum node_state verdict;   /* what the checks say; node->state is what follows from it */
    int failures;              /* checks in a row without an answer */
    int answers;               /* ... with one, while `verdict` is down */
    struct breaker breaker;
    bool fenced;         /* as group_settle() has found it; node->fenced may be ahead of it */
    int64_t answered_at; /* the last check that was answered was sent then */
    char started[40];    /* when the server was started, in its words; "": not known */
    int64_t sent_at;     /* the check under way */
    int64_t tried_at;    /* last start of a connection */
    int64_t retry_at;    /* WATCH_OFF: not before */
    int64_t identified_at;
    /* what the control file says; 0: unknown */
    uint64_t system_id;
    int control_timeline;
    uint32_t page_size;
    uint64_t segment_size;
    /* as a replica */
    bool has_position; /* `replayed` was read on this connection */
    uint64_t replayed;
    int64_t unverified_since; /* not known to follow the primary's timeline; 0: it does */
    bool foreign;             /* belongs to another cluster than the shard's primary */
    /* as a primary */
    struct lag_history history;
    int history_timeline;
    /* said once in the log, until it changes */
    bool said_lagging, said_unverified, said_fenced, said_foreign, said_refused;
    /* addresses of the name; unused for IP addresses and sockets */
    struct resolution *resolution; /* under way; owned by the loop */
    struct sockaddr_storage addresses[WATCH_MAX_ADDRESSES];
    socklen_t lengths[WATCH_MAX_ADDRESSES];
    int naddresses;
    int address;         /* index of the one in use */
    int tried_addresses; /* in this round of attempts */
    int64_t resolved_at;
    bool literal;
};

struct watch *watch_new(struct monitor *monitor, struct node *node);
void watch_free(struct watch *watch);
/* `round`: time for a check. */
void watch_tick(struct watch *watch, int64_t now, bool round);
/* Someone doubts that the node is well. */
void watch_suspect(struct watch *watch);

/* ---- monitor_health.c ---- */

/* The checks say that the node is down. */
void health_down(struct watch *watch, const char *why);
/* A check was answered, role and position are noted. `new_role`: it was not the role it had. */
void health_answered(struct watch *watch, bool new_role);
/* Time passes: of its circuit breaker. */
void health_tick(struct watch *watch, int64_t now);
/* Makes node->state what follows from its checks, its breaker, and what else the shard has. */
void health_publish(struct watch *watch);

/* ---- monitor_group.c ---- */

/* One shard's watches. */
struct group {
    struct monitor *monitor;
    const struct database *database; /* into the monitor's topology */
    const struct shard *shard;
    struct watch **watches;
    int nwatches;
    struct watch *primary; /* reachable or not; NULL: none known */
    bool established;      /* it was chosen when every node had been looked at */
    bool said_stale, said_tie;
};

void group_init(struct group *group, struct monitor *monitor, const struct database *database,
                const struct shard *shard);
void group_free(struct group *group);
/* After a node's role, state or timeline may have changed: settles who is primary, then the lag of all. */
void group_settle(struct group *group);
/* No primary that answers: whoever becomes one is to be found soon. */
bool group_is_urgent(const struct group *group);
/* After a new position of `changed`: the lag of all it concerns. */
void group_measure(struct group *group, struct watch *changed);

/* ---- monitor_schema.c ---- */

struct schema_job;

struct schema_job *schema_job_new(struct monitor *monitor, const char *name);
void schema_job_free(struct schema_job *job);
const char *schema_job_name(const struct schema_job *job);
/* The database in the topology of now. NULL: gone. */
void schema_job_set_database(struct schema_job *job, const struct database *database);
const struct database *schema_job_database(const struct schema_job *job);
void schema_job_soon(struct schema_job *job);
void schema_job_tick(struct schema_job *job, int64_t now);
/* Loaded or tried once, or not possible now. */
bool schema_job_settled(const struct schema_job *job);

/* ---- monitor.c ---- */

/* A thing other threads ask for, queued until the loop wakes up. */
struct request {
    struct request *next;
    struct node *suspect; /* a reference, or */
    char *schema;         /* the name of a database whose schema changed */
};

struct monitor {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t wake; /* the only handle other threads touch */
    uv_timer_t tick;
    int64_t round_at;          /* next round of checks */
    struct topology *topology; /* a reference */
    struct watch **watches;
    int nwatches;
    struct group *groups;
    int ngroups;
    struct schema_job **jobs;
    int njobs;
    bool closing;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    struct topology *next_topology; /* a reference, to be taken over; or NULL */
    struct request *requests;
    bool stop;
    bool round_done;
    bool finished;  /* the thread has let go of everything but this struct */
    bool abandoned; /* nobody waits any more: the thread frees the struct */
};

#endif
