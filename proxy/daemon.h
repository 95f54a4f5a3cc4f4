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
struct recorded_map;
struct db_error;

/* Runs until a signal ends it. Takes over `config`. `takeover`: where another process listens, goes on in its
 * place (takeover.h). Returns the exit code. */
int daemon_run(struct config *config, bool takeover);
/*
 * Loads the configuration file again and passes it on to everyone; running transactions finish under
 * the old one. False: the file is bad, nothing has changed, and `error` says why. Any thread.
 */
MUST_CHECK bool daemon_reload(struct daemon *daemon, char *error, size_t size);
/*
 * All workers use this map of a database, as soon as they have taken their messages up to here. False: it does not
 * fit the configuration, and nothing has changed; `error` says why. Any thread.
 */
MUST_CHECK bool daemon_use_map(struct daemon *daemon, const char *database,
                               struct recorded_map *recorded, struct db_error *error);
enum shutdown_mode {
    SHUTDOWN_NOW,          /* SIGQUIT */
    SHUTDOWN_FAST,         /* SIGINT: clients are told so, transactions are rolled back */
    SHUTDOWN_TRANSACTIONS, /* SIGTERM: they may end, up to shutdown_timeout */
    SHUTDOWN_CLIENTS,      /* SIGUSR2: until the last client has left by itself */
    SHUTDOWN_HANDED_OVER,  /* a successor serves: restart.patience, then as SHUTDOWN_TRANSACTIONS */
};
/* Any thread; returns before it is done. */
void daemon_shutdown(struct daemon *daemon, enum shutdown_mode mode);

#endif
