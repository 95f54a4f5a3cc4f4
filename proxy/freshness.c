/* freshness.c: whether a replica has replayed what a session has written and seen. */
#include "proxy/freshness.h"

#include "proxy/topology.h"

_Atomic int64_t freshness_clock;

/* Stored ahead of the send: who does not see it yet has read it before the sample was on its way. */
int64_t freshness_stamp(void)
{
    int64_t now = clock_us(), latest = atomic_load(&freshness_clock);
    int64_t stamp = now > latest ? now : latest + 1;
    atomic_store(&freshness_clock, stamp);
    return stamp;
}

uint32_t freshness_new_stint(void)
{
    static atomic_uint_least32_t latest;
    uint32_t stint = atomic_fetch_add(&latest, 1) + 1;
    return stint ? stint : freshness_new_stint();
}

/*
 * Is `position` past all that could be seen in need->seen_on until need->seen_at? The replica read from
 * shows a record's effect while it still applies it, before its own position says so: hence greater, not
 * equal. Its stint is looked at last: a position read in another one may be lower.
 */
static bool is_past_seen(const struct shard *shard, const struct node *node, uint64_t position,
                         const struct freshness_need *need)
{
    for (int i = 0; i < shard->nnodes; i++) {
        const struct node *former = shard->nodes[i];
        if (atomic_load(&former->stint) != need->seen_on)
            continue;
        return atomic_load(&former->sampled_at) > need->seen_at &&
               position > atomic_load(&former->wal_position) && atomic_load(&former->lag_us) >= 0 &&
               atomic_load(&former->timeline) == atomic_load(&node->timeline) &&
               atomic_load(&former->stint) == need->seen_on;
    }
    return false;
}

/* WAL of another timeline than the token's has its content up to where it branched off, or what was
 * behind that is lost and nobody has it. */
static bool is_past_token(const struct node *node, uint64_t position, const struct position *token)
{
    return token->timeline == 0 ||
           (atomic_load(&node->timeline) >= token->timeline && position >= token->lsn);
}

static bool has_replayed(const struct shard *shard, const struct node *node, uint32_t stint,
                         const struct freshness_need *need)
{
    int64_t fresh_as_of = atomic_load(&node->fresh_as_of);
    uint64_t position = atomic_load(&node->wal_position);
    if (need->as_of != 0 && fresh_as_of <= need->as_of)
        return false;
    if (!is_past_token(node, position, &need->position))
        return false;
    return need->seen_on == 0 || need->seen_on == stint || fresh_as_of > need->seen_at ||
           is_past_seen(shard, node, position, need);
}

bool freshness_holds(const struct shard *shard, const struct node *node,
                     const struct freshness_need *need, uint32_t *stint)
{
    *stint = atomic_load(&node->stint);
    if (freshness_needs_nothing(need))
        return true;
    return *stint != 0 && has_replayed(shard, node, *stint, need) &&
           atomic_load(&node->stint) == *stint;
}

/*
 * A connection that was there before a sample of the stint was sent, and still is, is to the server that
 * answered it: a server started anew has ended all its connections.
 */
uint32_t freshness_vouches(const struct node *node, uint32_t before, int64_t ready_at)
{
    uint32_t stint = atomic_load(&node->stint);
    if (stint == before || stint == 0)
        return stint;
    return atomic_load(&node->sampled_at) > ready_at && atomic_load(&node->stint) == stint ? stint
                                                                                           : 0;
}
