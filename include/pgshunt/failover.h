/*
 * failover.h: the planned switchover of a shard to one of its replicas, and the forced one when its
 * primary is dead. The engine: it prints nothing, and tells of its progress through a callback.
 *
 *   survey -> judge -> (obstacles: refused) -> steps -> report of what is left to do by hand
 *
 * The survey asks all servers and proxies, the judgement (pure) names the replica to be promoted and
 * everything that is in the way, each with what mends it. Steps are carried out only if nothing is.
 * Until the promotion a failure, or `stop`, undoes what was done; behind it there is no way back, and a
 * second run finishes what the first one left. So it may be killed at any step and run again.
 */
#ifndef PGSHUNT_FAILOVER_H
#define PGSHUNT_FAILOVER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/config.h"

/* host and port, as the user or the configuration names them */
struct failover_address {
    const char *host;
    int port;
};

enum failover_event_kind {
    FAILOVER_FACT,     /* found out: who is primary, which replica it will be */
    FAILOVER_NOTE,     /* worth knowing, in nobody's way */
    FAILOVER_OBSTACLE, /* in the way; `mend` says what to do */
    FAILOVER_PLANNED,  /* dry run: a step that would be done */
    FAILOVER_BEGIN,    /* a step begins */
    FAILOVER_DONE,     /* ... has been done; `text` may say more */
    FAILOVER_FAILED,   /* ... has failed; `text` says why, `mend` what to do */
    FAILOVER_UNDONE,   /* what a failure has taken back */
    FAILOVER_TODO,     /* left to do by hand: `mend` has the commands, a line each */
};

struct failover_event {
    enum failover_event_kind kind;
    const char *step; /* "hold", ...: BEGIN, DONE, FAILED, PLANNED; else NULL */
    const char *text;
    const char *mend; /* or NULL */
    int64_t took_ms;  /* DONE */
};

enum failover_outcome {
    FAILOVER_OUTCOME_DONE,        /* or, in a dry run: nothing is in the way */
    FAILOVER_OUTCOME_REFUSED,     /* obstacles; nothing was done */
    FAILOVER_OUTCOME_UNDONE,      /* a step failed ahead of the promotion: all is as before */
    FAILOVER_OUTCOME_UNFINISHED,  /* promoted, or not all could be undone: TODOs say what is left */
    FAILOVER_OUTCOME_INTERRUPTED, /* by `stop`; all is as before */
};

struct failover_request {
    const struct config *config;
    const char *shard;                /* "s0", or "app.s0" */
    struct failover_address to;       /* host NULL: the engine chooses */
    struct failover_address *proxies; /* none: the configuration's own listen address */
    int nproxies;
    const char *user;    /* for the servers; NULL: PGUSER, else monitor.user */
    const char *admin;   /* for the proxies' consoles; NULL: the first admin of the users file */
    int64_t drain_ms;    /* running transactions get so long to end */
    int64_t catch_up_ms; /* ... and the replica to replay the rest */
    bool terminate;      /* those that do not end in time are ended, instead of giving up */
    bool force;          /* the primary is dead */
    bool accept_data_loss;
    bool ignore_unknown_proxies; /* their clients will see errors */
    bool dry_run;
    bool undo; /* of an interrupted run: make the primary writable again, release the proxies */
    const volatile sig_atomic_t *stop;
    void (*progress)(void *arg, const struct failover_event *event);
    void *arg;
};

#define FAILOVER_DRAIN_MS 5000
#define FAILOVER_CATCH_UP_MS 10000

enum failover_outcome failover_run(const struct failover_request *request);

/* ---- a look at the cluster, for `status` ---- */

struct failover_status {
    const char *database, *shard, *host;
    int port;
    const char *role;     /* "primary", "replica", "old primary", "-" */
    const char *state;    /* "up", or why not */
    int timeline;         /* 0: unknown */
    int64_t position;     /* WAL written, or replayed; -1: unknown */
    int64_t lag_bytes;    /* behind the primary; -1: unknown */
    const char *upstream; /* where a replica receives from; "" */
    bool read_only;       /* by default: as a failover leaves an old primary */
};

/* What one proxy knows of one node; or, with an error, of nothing. */
struct failover_proxy_status {
    const char *proxy; /* "host:port" */
    const char *error; /* NULL: it answered */
    const char *database, *shard, *node, *role, *state;
    bool primary;                 /* writes go there */
    const char *lag_ms, *held_ms; /* "": unknown */
};

struct failover_status_request {
    const struct config *config;
    const char *user, *admin; /* as of a failover */
    struct failover_address *proxies;
    int nproxies;
    const volatile sig_atomic_t *stop;
    void (*node)(void *arg, const struct failover_status *status);
    void (*proxy)(void *arg, const struct failover_proxy_status *status);
    void *arg;
};
/* Asks every server and proxy. False: some did not answer, or a shard has no primary. */
bool failover_status(const struct failover_status_request *request);

#endif
