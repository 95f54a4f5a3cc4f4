/*
 * node_health.h: what workers tell of a node's health, for the monitor to weigh. Atomics only: cheap, from any
 * thread. Whoever has told something lets the monitor look at once (monitor_suspect()).
 */
#ifndef PGSHUNT_PROXY_NODE_HEALTH_H
#define PGSHUNT_PROXY_NODE_HEALTH_H

#include "pgshunt/error.h"
#include "proxy/topology.h"

/* A login there failed. What is the user's or the configuration's fault does not count against the node. */
void node_refused(struct node *node, const char *sqlstate);
/* An established connection ended; `sqlstate` of the server's last words, "": it said nothing. Those
 * that end together count as one. */
COLD void node_broke(struct node *node, const char *sqlstate);
/* It answered a statement with an error; of use only where it speaks of a full or failing disk. */
void node_erred(struct node *node, const char *sqlstate);
/* A login succeeded. */
void node_proved(struct node *node);

/* What speaks against a node has been told since the last call; forgets it. */
int node_take_failures(struct node *node);

/* Server connections made before now are closed once they are free: the name has moved to another address. */
void node_leave(struct node *node, int64_t before);
/* ... at once, with what is under way on them: the node is no primary any more, or was started anew. */
void node_disown(struct node *node, int64_t before);
/* Changes whenever one of the two was called for any node. */
unsigned node_disowned_count(void);

#endif
