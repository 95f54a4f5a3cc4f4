/*
 * tcp.h: what the settings of the group `tcp` do to sockets.
 *
 * Linux hands these options, and TCP_NODELAY, from a listening socket to those that are accepted from it. So they
 * are set once for all clients; a connection costs no system call for them.
 */
#ifndef PGSHUNT_PROXY_TCP_H
#define PGSHUNT_PROXY_TCP_H

#include "pgshunt/config.h"

/* A listening socket, for the connections that will be accepted; again when the settings have changed. */
void tcp_tune_listener(int fd, const struct tcp_settings *settings);
/* A new socket, about to connect. */
void tcp_tune_connection(int fd, const struct tcp_settings *settings);

#endif
