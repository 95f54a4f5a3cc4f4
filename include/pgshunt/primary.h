/*
 * primary.h: sessions with the primary of a shard, for engines: found among its nodes, logged in as its operator.
 */
#ifndef PGSHUNT_PRIMARY_H
#define PGSHUNT_PRIMARY_H

#include "pgshunt/config.h"
#include "pgshunt/db.h"

struct primary_login {
    const struct config *config;
    const struct database_config *database;
    const char *user; /* NULL: $PGUSER, monitor.user */
    const char *application;
    const volatile sig_atomic_t *stop;
};

#define PRIMARY_CONNECT_MS 8000

/* The caller closes it. NULL: `error` says why. */
struct db *primary_open(const struct primary_login *login, const struct shard_config *shard,
                        struct db_error *error);
/* How one of the shard's nodes is connected to, for libpq calls of one's own. The strings of `target` are
 * the configuration's and the login's. */
void primary_target(const struct primary_login *login, const struct shard_config *shard,
                    const struct node_config *node, struct db_target *target);
/* Which node it is now: opens and closes a session. NULL: `error` says why. */
const struct node_config *primary_node(const struct primary_login *login,
                                       const struct shard_config *shard, struct db_error *error);

#endif
