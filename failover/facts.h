/*
 * facts.h: what a survey has found out about a shard's servers and the proxies, and what is made of it.
 *
 * Facts are plain values, so that the judgement (judge.c) is pure: tables of cases test it.
 */
#ifndef PGSHUNT_FAILOVER_FACTS_H
#define PGSHUNT_FAILOVER_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/failover.h"

/* One server of the shard. Texts are never NULL where nothing else is said. */
struct node_facts {
    const char *host;
    int port;
    const char *name; /* "host:port" */
    bool reachable;
    const char *why; /* it is not */
    bool alive;      /* ... but something answers there */
    int version;     /* 150004 */
    bool in_recovery;
    uint64_t system_id; /* 0: not allowed to see */
    int timeline;
    uint64_t position; /* written by a primary, received by a replica */
    uint64_t replayed;
    bool streaming;           /* its WAL receiver is connected */
    double silent_seconds;    /* since it last heard from its upstream */
    const char *upstream;     /* "host:port" it receives from; "" */
    bool paused;              /* replay */
    int64_t apply_delay_ms;   /* recovery_min_apply_delay */
    const char *conninfo;     /* NULL: not allowed to see */
    const char *slot;         /* primary_slot_name */
    const char *application;  /* the name its upstream knows it by */
    const char *sync_names;   /* synchronous_standby_names, as they will hold when it is primary */
    bool read_only;           /* default_transaction_read_only */
    bool read_only_by_system; /* ... by ALTER SYSTEM, as a failover sets it */
    bool may_see;             /* whom it receives from, and who is there */
    bool may_promote, may_alter, may_signal;
    const char *data_directory; /* "": not allowed to see */
    bool rewindable;            /* pg_rewind can work on it */
};

/* What only the primary tells. */
struct primary_facts {
    const char *manager;       /* application_name of an HA manager at work; "" */
    int watchers;              /* proxies that watch the shard */
    const char *logical_slots; /* names, that a replica has not; "" */
    int subscriptions;         /* at work */
    const char *other_run;     /* another failover of this shard is under way; "" */
    const char **sync;         /* names of its synchronous standbys now */
    int nsync;
};

struct proxy_facts {
    const char *name; /* "host:port" */
    const char *why;  /* it cannot be used; NULL: it can */
    const char *mend;
    const char *primary; /* "host:port" that it takes for the primary; "" */
    const char *up;      /* of the primary it once knew: state, "up" or "down" */
    uint64_t position;   /* last it saw written on any primary of the shard; 0: none */
    int64_t seen_ms_ago; /* ... then */
};

struct facts {
    const char *database, *shard;
    struct node_facts *nodes;
    int nnodes;
    struct primary_facts of_primary;
    struct proxy_facts *proxies;
    int nproxies;
};

/* What may be asked for, as of a failover_request. */
struct wishes {
    struct failover_address to;
    bool force, accept_data_loss, ignore_unknown_proxies, undo;
};

struct finding {
    enum failover_event_kind kind; /* FACT, NOTE, OBSTACLE */
    const char *text, *mend;
};

enum verdict_kind {
    VERDICT_REFUSED,
    VERDICT_SWITCH, /* planned: primary to candidate */
    VERDICT_FORCE,  /* the primary is dead */
    VERDICT_FINISH, /* promoted already: the candidate is the primary, the rest is to be done */
    VERDICT_UNDO,   /* make the primary writable again */
};

struct verdict {
    enum verdict_kind kind;
    int primary;   /* index into nodes; -1: none that answers */
    int candidate; /* -1: none */
    struct finding *findings;
    int count, room;
    int obstacles;
};

/* Pure. Findings live in the arena. */
void judge(const struct facts *facts, const struct wishes *wishes, struct arena *arena,
           struct verdict *verdict);
/* The node that writes may go to: not in recovery, on the highest timeline; -1: none answers. */
int facts_primary(const struct facts *facts);
/* It was the primary and another one is now. */
bool facts_is_old_primary(const struct facts *facts, int node);

#endif
