/* balance.c: chooses the node of a shard that a plan runs on. */
#include "proxy/balance.h"

#include <stdio.h>
#include <string.h>

/* Replicas considered for one read; a shard with more uses those listed first. */
#define BALANCE_MAX_CANDIDATES 64

/* Weights of a slow start are counted in parts of the configured ones. */
#define RAMP_STEPS 64

struct candidates {
    struct node *nodes[BALANCE_MAX_CANDIDATES];
    int weights[BALANCE_MAX_CANDIDATES]; /* read once: a reload may change them meanwhile */
    int count;
    int total;                 /* of the weights */
    struct node *least_lagged; /* of those over the limit that could serve else; NULL: none */
    int64_t least_lag;
    bool ramping; /* weights are in steps */
};

/* Why replicas of the shard were passed over, for the error and for EXPLAIN. */
struct rejections {
    int replicas;
    int down;
    int lagging; /* lag over the limit or unknown */
    int behind;  /* without what the client has written or seen */
};

static _Thread_local char why_text[256];

/* splitmix64: any seed will do, also 0. */
static uint64_t next_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* May this replica serve the read? Counts why not. */
static bool replica_qualifies(const struct shard *shard, struct node *node,
                              const struct balance_request *request, struct candidates *out,
                              struct rejections *rejected)
{
    uint32_t stint;
    rejected->replicas++;
    if (node == request->exclude || atomic_load(&node->state) != NODE_STATE_UP) {
        rejected->down++;
        return false;
    }
    int64_t lag = atomic_load(&node->held_lag_us);
    bool lags = lag < 0 || (request->max_lag_us >= 0 && lag > request->max_lag_us);
    rejected->lagging += lags;
    if (lags && (lag < 0 || request->no_replica != NO_REPLICA_LEAST_LAGGED))
        return false;
    if (!freshness_holds(shard, node, &request->need, &stint)) {
        rejected->behind += !lags;
        return false;
    }
    if (lags && (!out->least_lagged || lag < out->least_lag)) {
        out->least_lagged = node;
        out->least_lag = lag;
    }
    return !lags;
}

/* Its weight in steps, less of them while it starts slowly: at least one. */
static int steps_of(const struct node *node, const struct balance_request *request, int weight)
{
    int64_t up_since = atomic_load(&node->up_since), age = request->now_us - up_since;
    if (up_since == 0 || age >= request->slow_start_us)
        return weight * RAMP_STEPS;
    int64_t steps = age <= 0 ? 0 : weight * RAMP_STEPS * age / request->slow_start_us;
    return steps > 0 ? (int)steps : 1;
}

/* Is one that was down still starting slowly? */
static bool is_ramping(const struct shard *shard, const struct balance_request *request)
{
    for (int n = 0; request->slow_start_us > 0 && n < shard->nnodes; n++) {
        int64_t up_since = atomic_load(&shard->nodes[n]->up_since);
        if (up_since != 0 && request->now_us - up_since < request->slow_start_us)
            return true;
    }
    return false;
}

static bool is_of_region(const struct node *node, const char *region)
{
    return !region || strcmp(node->region, region) == 0;
}

/* A node that never answered is a replica by all that is known. */
static bool may_be_replica(const struct node *node)
{
    int role = atomic_load(&node->role);
    return role == NODE_ROLE_REPLICA ||
           (role == NODE_ROLE_UNKNOWN && atomic_load(&node->state) == NODE_STATE_DOWN);
}

static void collect(const struct shard *shard, const struct balance_request *request,
                    const char *region, struct candidates *out, struct rejections *rejected)
{
    bool ramping = is_ramping(shard, request);
    out->count = out->total = 0; /* the arrays are long */
    out->least_lagged = NULL;
    *rejected = (struct rejections){0};
    for (int n = 0; n < shard->nnodes && out->count < BALANCE_MAX_CANDIDATES; n++) {
        struct node *node = shard->nodes[n];
        int weight = atomic_load(&node->weight);
        if (!may_be_replica(node) || weight <= 0 || !is_of_region(node, region) ||
            !replica_qualifies(shard, node, request, out, rejected))
            continue;
        out->nodes[out->count] = node;
        out->weights[out->count] = ramping ? steps_of(node, request, weight) : weight;
        out->total += out->weights[out->count++];
    }
    out->ramping = ramping;
}

/* Has each of them as much in use as makes reads go to other regions, too? */
static bool is_overloaded(const struct candidates *local, const struct balance_request *request)
{
    if (request->region_spill <= 0 || !request->in_use)
        return false;
    for (int i = 0; i < local->count; i++) {
        const struct node *node = local->nodes[i];
        if (request->in_use(node, request->arg) <
            (int64_t)request->region_spill * atomic_load(&node->weight))
            return false;
    }
    return true;
}

/* Those of the region asked for; with them, or instead, the others if they are too few or too busy. */
static void collect_for(const struct shard *shard, const struct balance_request *request,
                        struct candidates *out, struct rejections *rejected)
{
    const char *region = request->region && *request->region ? request->region : NULL;
    collect(shard, request, region, out, rejected);
    if (region && (out->count == 0 || is_overloaded(out, request)))
        collect(shard, request, NULL, out, rejected);
}

/* Draws one candidate with a chance in proportion to its weight, passing over `skip` (-1: none). */
static int draw(const struct candidates *from, int skip, uint64_t *seed)
{
    int total = from->total - (skip >= 0 ? from->weights[skip] : 0);
    int at = (int)(next_random(seed) % (uint64_t)total);
    int last = -1;
    for (int i = 0; i < from->count; i++) {
        if (i == skip)
            continue;
        last = i;
        if (at < from->weights[i])
            break;
        at -= from->weights[i];
    }
    return last;
}

/* In turn: each as often in a row as its weight says. */
static struct node *next_in_turn(const struct candidates *from, atomic_uint *turn)
{
    unsigned at = atomic_fetch_add_explicit(turn, 1, memory_order_relaxed) % (unsigned)from->total;
    int i = 0;
    while (at >= (unsigned)from->weights[i])
        at -= (unsigned)from->weights[i++];
    return from->nodes[i];
}

/* Two are drawn by weight; the one with less in use per weight wins, the first drawn on a tie. */
static struct node *pick(const struct candidates *from, const struct balance_request *request)
{
    if (from->count == 1)
        return from->nodes[0];
    if (request->turn && !from->ramping)
        return next_in_turn(from, request->turn);
    int first = draw(from, -1, request->seed);
    if (!request->in_use || request->turn)
        return from->nodes[first];
    int second = draw(from, first, request->seed);
    int64_t busy_first = request->in_use(from->nodes[first], request->arg);
    int64_t busy_second = request->in_use(from->nodes[second], request->arg);
    if (busy_second * from->weights[first] < busy_first * from->weights[second])
        return from->nodes[second];
    return from->nodes[first];
}

/* The primary, or while roles are being found out the first node that may turn out to be it. */
static struct node *usable_primary(const struct shard *shard, const struct node *exclude)
{
    struct node *primary = shard_primary(shard);
    if (primary)
        return primary == exclude ? NULL : primary;
    for (int n = 0; n < shard->nnodes; n++) {
        struct node *node = shard->nodes[n];
        if (node != exclude && atomic_load(&node->role) == NODE_ROLE_UNKNOWN &&
            atomic_load(&node->state) == NODE_STATE_UNKNOWN)
            return node;
    }
    return NULL;
}

static const char *why_not_a_replica(const struct rejections *rejected)
{
    if (rejected->behind)
        return "primary: no replica has all yet that the client has written or seen";
    if (rejected->lagging)
        return "primary: no replica is within max_lag";
    if (rejected->down)
        return "primary: no replica is reachable";
    return "primary: no replica to read from";
}

static const char *why_nothing(const struct shard *shard, const struct rejections *rejected)
{
    if (rejected && rejected->behind + rejected->lagging > 0)
        snprintf(why_text, sizeof why_text,
                 "no primary of shard %s is reachable, and no replica is fresh enough",
                 shard->name);
    else if (rejected)
        snprintf(why_text, sizeof why_text, "no node of shard %s is reachable", shard->name);
    else
        snprintf(why_text, sizeof why_text, "no primary of shard %s is reachable", shard->name);
    return why_text;
}

/* Reads that go back for the session's own sake are its share of the primary; others may be refused it. */
static bool refuses_primary(const struct balance_request *request,
                            const struct rejections *rejected)
{
    return request->no_replica == NO_REPLICA_ERROR && rejected->replicas > 0 &&
           rejected->behind == 0;
}

static struct node *refuse(const struct shard *shard, const struct balance_request *request,
                           const struct rejections *rejected, const char **why)
{
    snprintf(why_text, sizeof why_text, "no replica of shard %s is %s", shard->name,
             rejected->lagging ? "within max_lag" : "reachable");
    *why = why_text;
    if (request->refused)
        *request->refused = true;
    return NULL;
}

static struct node *choose_primary(const struct shard *shard, const struct balance_request *request,
                                   const struct rejections *rejected, const char **why)
{
    struct node *primary = usable_primary(shard, request->exclude);
    if (!primary)
        *why = why_nothing(shard, rejected);
    else
        *why = rejected ? why_not_a_replica(rejected) : "primary";
    return primary;
}

struct node *balance_choose(const struct shard *shard, const struct balance_request *request,
                            const char **why)
{
    const char *ignored;
    struct candidates candidates;
    struct rejections rejected;
    if (!why)
        why = &ignored;
    if (request->class != NODE_CLASS_REPLICA)
        return choose_primary(shard, request, NULL, why);

    collect_for(shard, request, &candidates, &rejected);
    if (candidates.count > 0) {
        *why = "replica";
        return pick(&candidates, request);
    }
    if (candidates.least_lagged && rejected.behind == 0) {
        *why = "replica: the least lagged, for none is within max_lag";
        return candidates.least_lagged;
    }
    if (request->behind)
        *request->behind = rejected.behind > 0;
    if (refuses_primary(request, &rejected))
        return refuse(shard, request, &rejected, why);
    return choose_primary(shard, request, &rejected, why);
}
