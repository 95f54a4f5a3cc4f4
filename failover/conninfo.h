/*
 * conninfo.h: what a replica's settings say of whom it follows, and who has to confirm commits. Pure.
 */
#ifndef PGSHUNT_FAILOVER_CONNINFO_H
#define PGSHUNT_FAILOVER_CONNINFO_H

#include <stdbool.h>

#include "pgshunt/arena.h"

/*
 * primary_conninfo with another server in it: host and port replaced, hostaddr taken out, everything
 * else (user, password, TLS, application_name) kept. NULL: it cannot be understood.
 */
const char *conninfo_redirect(struct arena *arena, const char *conninfo, const char *host,
                              int port);
/* The value of one of its keywords, "" if it is not there. */
const char *conninfo_value(struct arena *arena, const char *conninfo, const char *keyword);
/* Whether it leads to this server already. */
bool conninfo_leads_to(const char *conninfo, const char *host, int port);

/* synchronous_standby_names, understood. */
struct sync_names {
    bool any;   /* ANY n: any n of them; else the first n */
    int needed; /* 0: replication is asynchronous */
    bool all;   /* "*" is among the names */
    const char **names;
    int count;
    bool bad; /* not understood */
};
struct sync_names sync_names_parse(struct arena *arena, const char *text);
bool sync_names_has(const struct sync_names *names, const char *standby);

#endif
