/*
 * late_cancel.h: cancels that a fan-out sends by itself, and their ends.
 *
 * What several servers still do is stopped when one of them has failed. A cancel request that is under way then
 * may come later than the answer to what it meant, and would hit whatever its server does next for the same
 * transaction. So such a fan-out is over only when they are: each of them tells scatter_drained() at its end.
 */
#ifndef PGSHUNT_PROXY_LATE_CANCEL_H
#define PGSHUNT_PROXY_LATE_CANCEL_H

#include <stdbool.h>

struct client;
struct server;

/* What the server still does is of no use: it is cancelled, and its answers are taken up to their end. */
void late_cancel_send(struct server *server);
/* Whether one may still reach any of the client's servers. */
bool late_cancel_is_under_way(const struct client *client);

#endif
