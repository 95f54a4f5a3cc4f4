/*
 * bucket_hold.h: statements about buckets that are moving wait, all others go on.
 *
 *   a map that holds buckets (shardmap_hold) --worker_set_topology--> each worker
 *        who is in the middle of a statement or transaction under the map from before: goes on, is *busy*
 *        whose plan, made under the map that holds, touches one (plan.touches_held): WAITING, is *held*
 *   a map that does not hold them (moved, given up, or the lease is over): held clients are routed anew, in order of arrival
 *
 * That a transaction is from before is told by the topology its client still has: it is exchanged between
 * transactions. Whose transaction has begun and has no server yet, or is pinned to one and between transactions,
 * takes the new map with its next statement.
 */
#ifndef PGSHUNT_PROXY_BUCKET_HOLD_H
#define PGSHUNT_PROXY_BUCKET_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/error.h"

struct client;
struct pg_error;
struct worker;

struct bucket_hold_count {
    int busy; /* statements and transactions begun under a map that does not hold what the newest does */
    int held; /* clients that wait */
};
/* Adds this worker's. Once the worker has the map that holds, `busy` only falls. */
void bucket_hold_count(struct worker *worker, const char *database,
                       struct bucket_hold_count *count);
/* Ends what is busy: statements are cancelled, transactions rolled back, with 40001. That takes its time; to be
 * called again while something is. */
void bucket_hold_force(struct worker *worker, const char *database);

enum bucket_hold {
    BUCKET_HOLD_NONE,  /* it goes on, by the plan it has now */
    BUCKET_HOLD_WAITS, /* it is WAITING, and will be routed again as after a wait for the schema */
    BUCKET_HOLD_REFUSED, /* it was told */
};
/* The request's plan touches held buckets. `replan` makes it again: the client may have to take the newest map. */
COLD enum bucket_hold bucket_hold(struct client *client,
                                  void (*replan)(struct client *client, void *arg), void *arg);
void bucket_hold_cancel(struct client *client); /* it waits no longer, if it does */
/* The worker has another topology: who is held, or waits for a server under an older map, is routed again. */
void bucket_hold_map_changed(struct worker *worker);
/* It is to be asked again (request.repeat), for a guard has refused it (request.stale). True: that waits until there is a newer
 * map, for a moment at most. */
bool bucket_hold_waits_for_map(struct client *client);
/* It waits for that: it is asked again at once, for the last time. False: it does not. */
bool bucket_hold_asks_now(struct client *client);
/* About ten times a second. */
void bucket_hold_tick(struct worker *worker, int64_t now);
/* Turns the error of a statement that was cancelled by force, or refused by a guard, into one that says so. */
void bucket_hold_explain(const struct client *client, struct pg_error *error);
/* The transaction was rolled back by force: what its statements are answered until its end. False: it was not. */
bool bucket_hold_has_failed(const struct client *client, struct pg_error *error);
void bucket_hold_worker_init(struct worker *worker);

#endif
