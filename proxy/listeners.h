/*
 * listeners.h: the sockets that clients connect to, which a successor of this process may be given.
 *
 * Each worker has one of its own at each point (SO_REUSEPORT), so that the kernel spreads connections over them.
 * Sockets that come from another process may be more or fewer than the workers: each is then served by at least
 * one of them, and each worker serves every point.
 */
#ifndef PGSHUNT_PROXY_LISTENERS_H
#define PGSHUNT_PROXY_LISTENERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"
#include "proxy/listen_points.h"

#define LISTENERS_MAX 512

struct listen_socket {
    int fd;
    int point; /* sockets with the same number are at the same address; -1: not known yet */
    enum listen_tag tag;
    bool shared; /* other workers listen on it too */
    bool local;  /* a unix socket: unix_listener.h */
};

/* Owns the descriptors; workers have duplicates. */
struct listeners {
    pthread_mutex_t lock; /* tuned and closed on several threads */
    struct listen_socket sockets[LISTENERS_MAX];
    int count;
    /* Owned paths of unix sockets that were adopted and are not wanted, until listeners_claim(). */
    char *unwanted[LISTEN_POINTS_MAX];
    int nunwanted;
};

/*
 * Has sockets at all points of the configuration: those that were adopted, as far as they are wanted (others are
 * closed), and where a point has none, one for each of `workers`. False: `error` says why, and there are none.
 */
MUST_CHECK bool listeners_open(struct listeners *listeners, const struct config *config,
                               int workers, char *error, size_t size);
/* Applies the settings to the connections that will be accepted. */
void listeners_tune(struct listeners *listeners, const struct tcp_settings *settings);
/* Takes the descriptors over; closes those that are another name of a socket that is there. */
void listeners_adopt(struct listeners *listeners, const int *fds, int count);
/* This process alone serves from now on: the unix sockets' files are its own, and those of sockets that were
 * adopted in vain go. */
void listeners_claim(struct listeners *listeners);
/* Duplicates of those that worker `index` of `workers` has to serve, into `out`; returns how many. */
int listeners_share(const struct listeners *listeners, int index, int workers,
                    struct listen_socket out[LISTENERS_MAX]);
/* Closes the descriptors; the sockets live on where others have duplicates. Unix sockets' files are removed if they
 * are ours, unless they are another process' from now on (`handed_over`). */
void listeners_close(struct listeners *listeners, bool handed_over);

#endif
