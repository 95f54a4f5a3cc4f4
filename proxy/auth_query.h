/*
 * auth_query.h: looks up users' secrets (auth.query) and roles in the servers' catalogs, on a thread and on
 * connections of its own: one per database, to its first shard, with a fixed search_path. Nothing that
 * a client says reaches such a connection but the name to look for, as a parameter. The same thread looks
 * for the names of clients' hosts.
 *
 *   worker --auth_query_find--> known? answer now
 *                               else the entry is PENDING, the client is noted as one who waits
 *   thread: connects where needed, asks, keeps the answer, and posts it to the worker of each who waits
 *
 * Clients that log in as one user at the same time share one look-up. A found secret is believed for
 * auth.query_cache (and not beyond the password's VALID UNTIL), an absent user for two seconds.
 */
#ifndef PGSHUNT_PROXY_AUTH_QUERY_H
#define PGSHUNT_PROXY_AUTH_QUERY_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/error.h"
#include "proxy/topology.h"

struct auth_query;
struct worker;

enum look_up_kind {
    LOOK_UP_SECRET,
    LOOK_UP_ROLES, /* all that the user is a member of, as struct hba_visitor has them */
    LOOK_UP_HOST, /* the name of an address: `database` is "", `user` the address; believed for health.dns_ttl */
};

enum look_up {
    LOOK_UP_FOUND,
    LOOK_UP_ABSENT,  /* no such user or host; SECRET: or one without a valid password */
    LOOK_UP_FAILED,  /* nobody could be asked */
    LOOK_UP_WAITING, /* client_auth_looked_up() follows */
};

struct looked_up {
    enum look_up outcome;
    char *secret;       /* FOUND: it, the roles, the host's name; see looked_up_release() */
    int64_t fetched_at; /* clock_us() when the answer came */
};

void looked_up_release(struct looked_up *found);

/* Starts the thread. NULL: could not. */
struct auth_query *auth_query_start(struct topology *topology);
void auth_query_stop(struct auth_query *query);
/* After a reload: all that is known is forgotten. Thread-safe, as all below. */
void auth_query_set_topology(struct auth_query *query, struct topology *topology);
/* Whether users of this database are looked up at all. `database` NULL: unknown to the configuration. */
bool auth_query_applies(const struct config *config, const struct database_config *database);
/*
 * The secret or the roles of a user. `newer_than`: an answer that came at or before this time is not good enough.
 * WAITING: the client of `worker` with this cancel pid will be told, with `ticket`.
 */
void auth_query_find(struct auth_query *query, struct worker *worker, int32_t client,
                     uint64_t ticket, enum look_up_kind kind, const char *database,
                     const char *user, int64_t newer_than, struct looked_up *found);
/* What is known of a user's secret may be wrong: the next who asks has it looked up anew. */
void auth_query_forget(struct auth_query *query, const char *database, const char *user);

#endif
