/*
 * misroute.h: a replica that refuses what was routed to it: the safety net behind the rules.
 *
 *   25006  "cannot execute ... in a read-only transaction": what was taken for a read is none (a function
 *          said to be STABLE that writes, a claim that does not hold). It is asked again on the primary,
 *          counted and logged with its text, so that the function's declaration can be put right.
 *   40001, 40P01  the read was in the way of the replica's recovery: it is asked again on another node.
 *
 * Only outside transaction blocks, and while nothing of the answer has reached the client: then nobody
 * can tell the difference. A READ ONLY transaction's 25006 is its own, and so is that of one whose session
 * has claimed to read (route "replica").
 */
#ifndef PGSHUNT_PROXY_MISROUTE_H
#define PGSHUNT_PROXY_MISROUTE_H

#include <stdbool.h>

#include "pgshunt/error.h"

struct client;
struct server;

/* The server has answered what the client asked with this error: is it such a case? Then it is counted,
 * and logged with `text`. `whole`: nothing of the answer is out. True: the request is to be asked again,
 * and knows where not to go (session_ask_again). */
bool misroute_happened(struct client *client, struct server *server, const struct pg_error *error,
                       const char *text, bool whole);

#endif
