/*
 * daemon.h: the process as a whole: start, reload, end.
 */
#ifndef PGSHUNT_PROXY_DAEMON_H
#define PGSHUNT_PROXY_DAEMON_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/config.h"
#include "pgshunt/error.h"

struct daemon;

/* Runs until a signal ends it. Takes over `config`. Returns the exit code. */
int daemon_run(struct config *config);
/*
 * Loads the configuration file again and passes it on to everyone; running transactions finish under
 * the old one. False: the file is bad, nothing has changed, and `error` says why. Any thread.
 */
MUST_CHECK bool daemon_reload(struct daemon *daemon, char *error, size_t size);
enum shutdown_mode {
    SHUTDOWN_NOW,          /* SIGQUIT */
    SHUTDOWN_TRANSACTIONS, /* SIGTERM, SIGINT: they may end, up to shutdown_timeout */
    SHUTDOWN_CLIENTS,      /* SIGUSR2: until the last client has left by itself */
};
/* Any thread; returns before it is done. */
void daemon_shutdown(struct daemon *daemon, enum shutdown_mode mode);

#endif
