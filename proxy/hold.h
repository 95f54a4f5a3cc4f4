/*
 * hold.h: nothing new is sent to a node for a while: for planned switchovers.
 *
 *   HOLD --> hold_begin(): the node and what else is the same server; then each worker hold_move_queued()
 *   DRAIN -> each worker hold_count_busy(), until none is
 *   RELEASE, another primary, or the time limit: those who wait look for a node again (node_wait.h)
 *
 * Held is the server that is the shard's primary when HOLD comes, for all databases that have it. So a
 * hold needs no end where a switchover succeeds: as soon as the monitor has found the new primary,
 * statements go there. Transactions that have begun on the node go on there.
 */
#ifndef PGSHUNT_PROXY_HOLD_H
#define PGSHUNT_PROXY_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/topology.h"

struct worker;

#define HOLD_DEFAULT_MS 30000
#define HOLD_LONGEST_MS 300000

/* clock_us() at which the node's hold ends; 0: it is not held. */
int64_t hold_until(struct node *node);
/* Until clock_us() is `until`; a longer one that is on already is cut to that. */
void hold_begin(const struct topology *topology, const struct node *node, int64_t until);
/* False: no node of the shard was held. */
bool hold_end(const struct topology *topology, const struct shard *shard);

/* ---- on each worker ---- */

/* Clients in a queue for a connection to a node that is held wait for the hold's end instead. */
void hold_move_queued(struct worker *worker);
/* Servers on nodes of the shard that are held and have something to answer or are in a transaction. */
int hold_count_busy(const struct worker *worker, const struct shard *shard);
/* About once a second: says which holds have reached their time limit. */
void hold_tick(struct worker *worker, int64_t now);

#endif
