/*
 * balance.h: which node of a shard a plan runs on.
 *
 * Writes go to the primary. Reads go to a replica that answers, whose lag is known and within the limit,
 * and that holds everything the client has written and seen; among several to the less busy of two drawn
 * by weight, or in turn. With no such replica they go where `no_replica` says.
 */
#ifndef PGSHUNT_PROXY_BALANCE_H
#define PGSHUNT_PROXY_BALANCE_H

#include <stdint.h>

#include "pgshunt/plan.h"
#include "pgshunt/route.h"
#include "proxy/freshness.h"
#include "proxy/topology.h"

struct balance_request {
    enum node_class class;
    int64_t max_lag_us;         /* largest lag of a replica to read from; negative: no limit */
    struct freshness_need need; /* what a replica must have replayed */
    enum no_replica no_replica; /* none answers and is within the limit */
    bool *refused;              /* set when `no_replica` has it fail: no node is to be waited for.
                                   May be NULL */
    bool *behind;               /* set when it is the primary for what the client has written or
                                   seen. May be NULL */
    const char *region;         /* replicas there come first; NULL or "": no preference */
    int region_spill;           /* in use per weight on each of them: then others join; 0: never */
    int64_t now_us;             /* clock_us(), for the next one only */
    int64_t slow_start_us;      /* one that was down comes back over so long; 0: at once */
    atomic_uint *turn;          /* of round robin; NULL: by how busy they are */
    const struct node *exclude; /* failed just now; not to be chosen again. May be NULL */
    uint64_t *seed;             /* state of the caller's random numbers */
    /* Server connections of the caller's in use on the node. NULL: all are idle. */
    int (*in_use)(const struct node *node, void *arg);
    void *arg;
};

/*
 * The node, or NULL. *why (which may be NULL) is set in both cases: to the reason for the choice or to
 * the text of an error. It is valid until this thread's next call.
 */
struct node *balance_choose(const struct shard *shard, const struct balance_request *request,
                            const char **why);

#endif
