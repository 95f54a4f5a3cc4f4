/*
 * listeners.h: the sockets that clients connect to, which a successor of this process may be given.
 *
 * Each worker has one of its own (SO_REUSEPORT), so that the kernel spreads connections over them. Sockets that
 * come from another process may be more or fewer than the workers: each is then served by at least one of them.
 */
#ifndef PGSHUNT_PROXY_LISTENERS_H
#define PGSHUNT_PROXY_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"

#define LISTENERS_MAX 128

/* Owns the descriptors; workers have duplicates. */
struct listeners {
    int fds[LISTENERS_MAX];
    int count;
};

/* Opens `count` sockets. False: `error` says why, and there are none. */
MUST_CHECK bool listeners_open(struct listeners *listeners, const struct config *config, int count,
                               char *error, size_t size);
/* Takes the descriptors over; closes those that are another name of a socket that is there. */
void listeners_adopt(struct listeners *listeners, const int *fds, int count);
/* Duplicates of those that worker `index` of `workers` has to serve, into `out`; returns how many. */
int listeners_share(const struct listeners *listeners, int index, int workers,
                    int out[LISTENERS_MAX]);
/* Closes the descriptors; the sockets live on where others have duplicates. */
void listeners_close(struct listeners *listeners);

#endif
