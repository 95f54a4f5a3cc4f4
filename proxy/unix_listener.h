/*
 * unix_listener.h: a unix socket that clients connect to, with the lock file that Postgres would have beside it.
 *
 * `.s.PGSQL.6432` is the socket, `.s.PGSQL.6432.lock` has the pid of the process that it belongs to. Whether a socket
 * is in use is found out by connecting to it: a pid may be another process' by now. Both are removed by the process
 * whose pid is in the lock file; one that takes over gets the socket as it is, and writes its own pid into the file
 * once it serves.
 */
#ifndef PGSHUNT_PROXY_UNIX_LISTENER_H
#define PGSHUNT_PROXY_UNIX_LISTENER_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/error.h"

/* Locks, creates and listens. -1: `error` says why. `group`: a name or number, "": the process'. */
MUST_CHECK int unix_listener_open(const char *path, int mode, const char *group, int backlog,
                                  char *error, size_t size);
/* Whether the socket is still there to connect to: somebody may have tidied the directory up. */
bool unix_listener_is_there(const char *path);
/* Writes this process' pid into the lock file. */
void unix_listener_claim(const char *path);
/* Removes both files, if they are this process'. */
void unix_listener_remove(const char *path);
/* ... or of the process that has handed the socket over, which is not wanted any more. */
void unix_listener_abandon(const char *path);

#endif
