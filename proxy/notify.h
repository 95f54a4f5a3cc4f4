/*
 * notify.h: what a supervisor is told: systemd through $NOTIFY_SOCKET, others by the pid file.
 */
#ifndef PGSHUNT_PROXY_NOTIFY_H
#define PGSHUNT_PROXY_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "pgshunt/error.h"

/* Clients are served (also after a reload). */
void notify_ready(void);
void notify_reloading(void);
/* `pid` goes on in place of this process. */
void notify_successor(pid_t pid);
void notify_stopping(void);

/* Writes our pid ("" is no file). False: `error` says why. */
MUST_CHECK bool pid_file_write(const char *path, char *error, size_t size);
/* Removes the file, unless a successor has written its own pid. */
void pid_file_remove(const char *path);

#endif
