/*
 * own_settings.h: pgshunt.* settings of a session: what only the proxy knows, no server is told of it.
 *
 * A setting is a row in own_settings.c. They behave as Postgres' own: SET, SET LOCAL, RESET and SHOW, also
 * in the startup packet, which RESET goes back to; what a transaction has set is undone when it is rolled
 * back, and to a savepoint. A pgshunt comment on BEGIN is SET LOCAL for that transaction.
 */
#ifndef PGSHUNT_PROXY_OWN_SETTINGS_H
#define PGSHUNT_PROXY_OWN_SETTINGS_H

#include <stdbool.h>

#include "pgshunt/arena.h"
#include "pgshunt/error.h"
#include "pgshunt/route.h"
#include "pgshunt/statement.h"
#include "proxy/guc.h"

struct client;
struct position;
struct transaction;

enum own_setting {
    OWN_KEY,
    OWN_SHARD,
    OWN_ROUTE,
    OWN_REGION,
    OWN_MAX_LAG,
    OWN_READ_YOUR_WRITES,
    OWN_MONOTONIC_READS,
    OWN_READ_AFTER,
    OWN_SETTINGS, /* how many there are */
};

/* What a session has said; most never do. */
struct own_settings {
    char *values[OWN_SETTINGS]; /* NULL: not said */
    struct route_wish wish;     /* of the values, and points into them */
    struct position *positions; /* of pgshunt.read_after, by shard; NULL: see read_after_of() */
    uint64_t positions_version; /* ... in this topology */
    struct guc_set *startup;    /* of the startup packet: what RESET goes back to */
};

/* A setting that a transaction has changed. */
struct own_change {
    enum own_setting which;
    bool local;
    char *before; /* owned; NULL: was not said */
    char *value;  /* owned; likewise. The session's from the commit on, unless it is local */
};

/* In their order; part of struct transaction. */
struct own_changes {
    struct own_change *items;
    int count;
};

/* NULL: not said. */
const char *own_setting_value(const struct client *client, enum own_setting which);
/* Where the session's statements run that do not say it: of the session, its user and database, and the
 * process. Nothing is left unsaid. Points into what the session said: good until that changes. */
void own_settings_wish(const struct client *client, struct route_wish *wish);

/* The startup packet's pgshunt.* settings become the session's, and no server's. False: one is wrong. */
bool own_settings_start(struct client *client, struct arena *arena, struct pg_error *error);
/* RESET ALL: back to what the startup packet said. */
void own_settings_reset(struct client *client);
/* What the comments of a BEGIN say holds for its transaction, which has begun. */
void own_settings_begin(struct client *client, const struct statement *statement);
/* ... if there is nothing wrong with it. */
bool own_settings_check_begin(struct client *client, const struct statement *statement,
                              struct pg_error *error);
/* Undoes the changes of the transaction behind the first `keep`. */
void own_settings_undo(struct client *client, int keep);
/* Its end: what of the changes is for the session stays if it was committed. */
void own_settings_end(struct client *client, bool committed);
void own_settings_free(struct client *client);

#endif
