/*
 * control.h: what the console's commands do on a worker: databases are paused, disabled, reconnected,
 * killed, and let go again.
 *
 * Each worker has its own gates (paused, disabled by database), changed by messages that go through all
 * workers in the same order, so that they never disagree for long and the hot path needs no atomics. A
 * client of a paused database that holds no server is *held* when it asks for one: on worker->held, in
 * state WAITING (or GREETING), to go through routing again when the database is resumed, because another
 * node may be the primary by then. One that holds a server gets what it needs to end its transaction.
 */
#ifndef PGSHUNT_PROXY_CONTROL_H
#define PGSHUNT_PROXY_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "pgshunt/error.h"

struct client;
struct worker;

enum control_action {
    CONTROL_PAUSE,       /* no new transactions; servers are closed as they come free */
    CONTROL_RESUME,      /* also after KILL and SUSPEND */
    CONTROL_RECONNECT,   /* servers are closed as they come free */
    CONTROL_WAIT_CLOSE,  /* counts those that are still to be closed */
    CONTROL_DISABLE,     /* no new clients */
    CONTROL_ENABLE,      /* ... again */
    CONTROL_KILL,        /* clients and servers are closed at once, and no new transactions */
    CONTROL_KILL_CLIENT, /* one client is closed */
    CONTROL_SUSPEND,     /* clients are not read; counts who still has something to take */
    CONTROL_UNPAUSE,     /* takes one PAUSE back */
    CONTROL_UNSUSPEND,   /* ... or SUSPEND */
    CONTROL_HOLD,        /* nothing new is sent to a shard's primary (hold.h) */
    CONTROL_DRAIN,       /* counts what still runs there */
    CONTROL_RELEASE,     /* ... as before */
    CONTROL_CHECK,       /* the monitor looks at every node now */
    CONTROL_PASS_BY,     /* nothing: what was sent to the worker before has been done */
};

struct control_order {
    enum control_action action;
    const char *database;      /* "": all */
    uint32_t id;               /* KILL_CLIENT */
    const struct shard *shard; /* DRAIN */
    bool look;                 /* only counts again: what is to be changed has been */
    int busy;                  /* what has to end before the command may answer, added up */
    bool was_so;               /* before it was carried out, on some worker */
};

/* State of one database on one worker; "" stands for all of them. */
struct gate {
    char *database;
    bool paused;
    bool disabled;
    UT_hash_handle hh;
};

/* Carries the order out on this worker. */
void control_carry_out(struct worker *worker, struct control_order *order);
bool control_is_paused(const struct worker *worker, const char *database);
bool control_is_disabled(const struct worker *worker, const char *database);
/* The client has asked for a server. True: its database is paused, and it is held. */
COLD bool control_holds(struct client *client);
/* It is held no more (it leaves, or was cancelled). */
void control_release(struct client *client);
/* About once a second: who was held for longer than query_wait_timeout is told so. */
void control_tick(struct worker *worker, int64_t now);
void control_free(struct worker *worker);

#endif
