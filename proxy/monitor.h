/*
 * monitor.h: the thread that watches every node: who is primary, how far behind the replicas are, who
 * is dead; and that loads schemas. libpq in non-blocking mode on a libuv loop of its own.
 *
 * Every routing.lag_check_interval one query per node, all nodes in parallel, each with a timeout.
 * Samples of the primary's WAL position are kept with the time their query was *sent*; a replica that
 * has replayed past a sample holds everything committed before that time (node.fresh_as_of). Time lag
 * is the age of the oldest sample the replica has not reached, so an idle primary shows none. More in
 * proxy/lag.h and proxy/monitor_group.c.
 */
#ifndef PGSHUNT_PROXY_MONITOR_H
#define PGSHUNT_PROXY_MONITOR_H

#include "pgshunt/error.h"
#include "proxy/topology.h"

struct monitor;

/* Starts the thread; it takes a reference on the topology. NULL: could not start a thread. */
struct monitor *monitor_start(struct topology *topology);
/* After a reload. Thread-safe. */
void monitor_set_topology(struct monitor *monitor, struct topology *topology);
/* A worker saw a connection fail: check this node now. Thread-safe, cheap, never blocks. */
COLD void monitor_suspect(struct monitor *monitor, struct node *node);
/* A statement changed the schema: reload it soon. Thread-safe. */
void monitor_schema_changed(struct monitor *monitor, const struct database *database);
/*
 * Waits until every node was checked once and the schemas of the databases that answer were loaded (or
 * timeout_ms passed).
 */
void monitor_wait_first_round(struct monitor *monitor, int timeout_ms);
void monitor_stop(struct monitor *monitor); /* joins and frees */

#endif
