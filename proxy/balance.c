/* balance.c: chooses the node of a shard that a plan runs on. */
#include "proxy/balance.h"

#include <stdio.h>
#include <string.h>

/* Replicas considered for one read; a shard with more uses those listed first. */
#define BALANCE_MAX_CANDIDATES 64

struct candidates {
    struct node *nodes[BALANCE_MAX_CANDIDATES];
    int weights[BALANCE_MAX_CANDIDATES]; /* read once: a reload may change them meanwhile */
    int count;
    int total; /* of the weights */
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
                              const struct balance_request *request, struct rejections *rejected)
{
    rejected->replicas++;
    if (node == request->exclude || atomic_load(&node->state) != NODE_STATE_UP) {
        rejected->down++;
        return false;
    }
    int64_t lag = atomic_load(&node->held_lag_us);
    if (lag < 0 || (request->max_lag_us >= 0 && lag > request->max_lag_us)) {
        rejected->lagging++;
        return false;
    }
    uint32_t stint;
    if (!freshness_holds(shard, node, &request->need, &stint)) {
        rejected->behind++;
        return false;
    }
    return true;
}

static void collect(const struct shard *shard, const struct balance_request *request,
                    const char *region, struct candidates *out, struct rejections *rejected)
{
    out->count = out->total = 0; /* the arrays are long */
    *rejected = (struct rejections){0};
    for (int n = 0; n < shard->nnodes && out->count < BALANCE_MAX_CANDIDATES; n++) {
        struct node *node = shard->nodes[n];
        int weight = atomic_load(&node->weight);
        if (atomic_load(&node->role) != NODE_ROLE_REPLICA || weight <= 0 ||
            (region && strcmp(node->region, region) != 0))
            continue;
        if (!replica_qualifies(shard, node, request, rejected))
            continue;
        out->nodes[out->count] = node;
        out->weights[out->count++] = weight;
        out->total += weight;
    }
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

/* Two are drawn by weight; the one with less in use per weight wins, the first drawn on a tie. */
static struct node *pick(const struct candidates *from, const struct balance_request *request)
{
    if (from->count == 1)
        return from->nodes[0];
    int first = draw(from, -1, request->seed);
    if (!request->in_use)
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

struct node *balance_choose(const struct shard *shard, const struct balance_request *request,
                            const char **why)
{
    const char *ignored;
    struct candidates candidates;
    struct rejections rejected;
    if (!why)
        why = &ignored;

    if (request->class == NODE_CLASS_REPLICA) {
        const char *region = request->region && *request->region ? request->region : NULL;
        collect(shard, request, region, &candidates, &rejected);
        if (region && candidates.count == 0)
            collect(shard, request, NULL, &candidates, &rejected);
        if (candidates.count > 0) {
            *why = "replica";
            return pick(&candidates, request);
        }
    }

    bool reading = request->class == NODE_CLASS_REPLICA;
    struct node *primary = usable_primary(shard, request->exclude);
    if (!primary)
        *why = why_nothing(shard, reading ? &rejected : NULL);
    else
        *why = reading ? why_not_a_replica(&rejected) : "primary";
    return primary;
}
