/* shard_deadlock_ask.h: who waits for whom on one server. */
#ifndef PGSHUNT_PROXY_SHARD_DEADLOCK_ASK_H
#define PGSHUNT_PROXY_SHARD_DEADLOCK_ASK_H

#include <libpq-fe.h>
#include <signal.h>

struct config;

/* Rows of two pids: one that waits for a lock, one that it waits for. NULL: it could not be asked. */
PGresult *shard_deadlock_ask(const struct config *config, const char *host, int port,
                             const char *dbname, const volatile sig_atomic_t *stop);

#endif
