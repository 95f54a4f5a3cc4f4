/*
 * node_wait.h: statements that wait for a node: during a failover nothing that was not sent fails.
 *
 * While a shard has no primary (or a read has no node at all), or the one there is refuses connections,
 * statements of which nothing was sent wait up to routing.failover_wait. They look for a node again as
 * soon as the monitor has found one.
 */
#ifndef PGSHUNT_PROXY_NODE_WAIT_H
#define PGSHUNT_PROXY_NODE_WAIT_H

#include "pgshunt/error.h"
#include "proxy/client.h"
#include "proxy/read_after.h"

/* No node of this class is to be had now. True: the client waits (state WAITING) and its session goes on
 * by itself, by looking once more; false: it has waited long enough. */
COLD bool node_wait(struct client *client, unsigned shard, enum node_class class);
/* There is one, but nothing new is sent to it (hold.h): the client waits for the end of that. */
COLD void node_wait_held(struct client *client, unsigned shard, enum node_class class,
                         struct node *node);
/* A replica may turn out to be fresh enough when it is asked once more (`sample`: this one is; NULL: any).
 * True: the client waits for that, a moment. False: it has done so. */
COLD bool node_wait_fresh(struct client *client, unsigned shard, const struct node *sample);
/* For the position of each shard's primary, asked for from now on (read_after.h). */
enum read_after_token node_wait_token(struct client *client);
/* Whether a connection that failed so may do better soon: the server is away, or comes or goes. */
bool node_wait_is_for(const char *sqlstate);
void node_wait_cancel(struct client *client); /* also when it does not wait */

#endif
