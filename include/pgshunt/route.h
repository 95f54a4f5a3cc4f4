/*
 * route.h: what is said about where statements run: by a comment, a session, a user, a database, or for
 * the whole process; the first of these that says something counts, for each part by itself.
 *
 *   comment   SELECT ... with pgshunt: replica, region=eu, max_lag=200ms in a comment
 *   session   SET pgshunt.route = 'replica'; SET pgshunt.region = 'eu'; SET pgshunt.max_lag = '200ms'
 *   others    settings route, region, max_lag
 */
#ifndef PGSHUNT_ROUTE_H
#define PGSHUNT_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* routing.read_write_split: what may run on a replica at all. In the order of the setting's words. */
enum split_mode {
    SPLIT_OFF,          /* nothing, whoever asks for it */
    SPLIT_CONSERVATIVE, /* what declares that it only reads: READ ONLY transactions, route "replica" */
    SPLIT_AGGRESSIVE, /* and every statement outside a transaction block that is proven to be a read */
};

/* In the order of the setting's words. */
enum route {
    ROUTE_UNSAID = -1, /* as SETTING_INHERIT */
    ROUTE_AUTO,        /* reads to replicas, as far as read_write_split has it */
    ROUTE_PRIMARY,
    ROUTE_REPLICA, /* also what is not proven to be a read, unless it is known to be none */
};

#define ROUTE_WORDS "auto | primary | replica"

/* What becomes of reads while no replica answers and is within max_lag. In the order of the setting's words. */
enum no_replica { NO_REPLICA_PRIMARY, NO_REPLICA_LEAST_LAGGED, NO_REPLICA_ERROR };

#define NO_REPLICA_WORDS "primary | least_lagged | error"

enum said { NOT_SAID, SAID_OFF, SAID_ON };

struct route_wish {
    enum route route;
    const char *region; /* replicas there come first; "": none does; NULL: not said */
    int64_t max_lag_us; /* of the replica; negative: not said */
    enum said read_your_writes;
    enum said monotonic_reads;
    enum no_replica no_replica; /* of a user, a database or the process */
};

#define ROUTE_WISH_NONE ((struct route_wish){.route = ROUTE_UNSAID, .max_lag_us = -1})

/* What `over` says counts before what is there. */
void route_wish_lay_over(struct route_wish *wish, const struct route_wish *over);
/* Takes "route", "region", "max_lag", "read_your_writes" or "monotonic_reads", which `value` has to be a value of (it is pointed to). False: it
 * is not, and *allowed says what one is. */
bool route_wish_take(struct route_wish *wish, const char *name, const char *value,
                     const char **allowed);

#endif
