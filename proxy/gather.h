/*
 * gather.h: a fan-out whose rows are brought to one server, which answers the query (plan.h: gather_plan).
 *
 * A part of scatter.c's work: everything that happens to a client's fan-out arrives there and is passed
 * on here when its plan gathers.
 */
#ifndef PGSHUNT_PROXY_GATHER_H
#define PGSHUNT_PROXY_GATHER_H

#include "proxy/session.h"

struct gather;

/* Inside a block a gather is behind it. */
#define GATHER_SAVEPOINT "pgshunt_gather"

/* Starts it on servers that are attached. `ask` is copied; what it points to has to outlive the gather. */
struct gather *gather_start(struct client *client, const struct scatter_ask *ask);
/* Gives the tables names of their own, in messages without Sync, and lets go of the savepoint: a portal
 * has them. `guarded`: as server.h has it. Returns how many CommandCompletes there will be. */
int gather_put_renaming(const struct gather_plan *gather, uint32_t id, bool guarded,
                        struct buffer *out);
/* The answer is not for the client, but left in a cursor; see scatter_start_portal(). */
void gather_into_cursor(struct gather *gather, const char *portal, int32_t max_rows);
void gather_free(struct gather *gather);
/* A message of any of its servers. */
void gather_message(struct gather *gather, struct server *server, char type, const char *body,
                    size_t len);
void gather_lost(struct gather *gather, struct server *server, const char *reason);
/* A server or the client has taken what was queued for it. */
void gather_drained(struct gather *gather);
/* All that came from a server in one go was given to gather_message(). */
void gather_pump(struct gather *gather);

/* ---- rows of a COPY into one of its tables ---- */

/* What comes ahead of binary ones. */
void gather_put_header(struct buffer *out);
/* A DataRow's body as CopyData. False: it is not what it should be. */
bool gather_put_row(struct buffer *out, bool text, const char *body, size_t len);
void gather_put_end(struct buffer *out, bool text);

#endif
