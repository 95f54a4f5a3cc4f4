/*
 * takeover.h: a new process takes the port over from a running one, and no client notices.
 *
 * A running daemon holds a control socket: a unix socket in the abstract namespace, named by what it listens on;
 * only its own user may talk to it. That is also how a second start finds out that there is a first.
 *
 *   new process                              running process
 *   takeover_open   --- HELLO (takeover) --->
 *                   <-- LISTENERS, with -----  descriptors of the control socket, HTTP, and clients' sockets
 *   workers, HTTP start on them; both accept
 *   takeover_ready  --- READY -------------->  closes its descriptors, accepts no more; clients may stay for
 *                   <-- RELEASED ------------  restart.patience, then finish their transactions
 *                   --- CANCEL ------------->  requests for sessions that the new process does not know
 *   (end of file)                              it has ended
 *
 * Until READY the running one has changed nothing: if the new one fails, it just goes on. A process that has taken
 * over can be taken over from before its predecessor has ended; cancel requests go down the chain.
 *
 * `pgshunt --restart` (RESTART) has the running process start its successor itself, which is what a supervisor
 * wants: the new one is in the same control group and has the same environment.
 */
#ifndef PGSHUNT_PROXY_TAKEOVER_H
#define PGSHUNT_PROXY_TAKEOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"
#include "proxy/http.h"
#include "proxy/listeners.h"

struct daemon;
struct takeover;

/* What a start finds. */
struct inheritance {
    struct listeners *listeners; /* empty: there was nobody to take over from */
    struct http_sockets http;
};

/*
 * Claims the control socket (takes it over, with all listeners, where `wanted` and somebody has it). NULL
 * and error "": control is off. NULL and an error: the start has to be given up.
 */
struct takeover *takeover_open(const struct config *config, bool wanted,
                               struct inheritance *inheritance, char *error, size_t size);
/* Everything serves: the predecessor may let go; from now on a successor may ask. */
MUST_CHECK bool takeover_ready(struct takeover *takeover, struct daemon *daemon);
/* The daemon is shutting down: whoever starts next starts anew. */
void takeover_close_listeners(struct takeover *takeover);
/* Joins the thread, frees. */
void takeover_stop(struct takeover *takeover);

/* The successor's pid, once it is ready; 0 before. */
int takeover_successor(const struct takeover *takeover);
/* False: there is no predecessor any more (or takeover is NULL). Any thread; never waits. */
bool takeover_forward_cancel(struct takeover *takeover, int32_t pid, const unsigned char *secret,
                             size_t length);

/* `pgshunt --restart`: has the running process replace itself; returns the exit code. */
int takeover_restart(const struct config *config);

#endif
