/* plan_hot.c: which single buckets leave busy shards, so that statements are spread evenly with few moves. */
#include <string.h>

#include "resharder/plan_internal.h"

#define MOVES_MOST 64
#define EVEN 1.05  /* a shard with that much more than the average is not busy */
#define WORTH 0.01 /* of the average: a move that takes off less is not worth it */

/* A bucket that is known by itself. */
struct hot {
    unsigned keyspace, bucket, owner;
    double statements;
};

struct heat {
    struct planning *g;
    double *loads; /* by shard */
    bool *may_take;
    bool *gives, *takes; /* in this plan: no shard does both */
    struct hot *hot;
    int count;
    double average;
};

static bool add_load(struct heat *heat, const struct catalog_load *load)
{
    const struct shardmap *map = heat->g->map;
    int index = shardmap_keyspace_by_name(map, load->keyspace);
    const struct keyspace *keyspace = index < 0 ? NULL : shardmap_keyspace(map, (unsigned)index);
    int shard = load->shard ? shardmap_shard_by_name(map, load->shard) : -1;
    if (!keyspace || (load->shard ? shard < 0 : load->bucket >= keyspace->nbuckets))
        return false;
    unsigned owner = load->shard ? (unsigned)shard : keyspace->bucket_shard[load->bucket];
    heat->loads[owner] += load->statements;
    if (!load->shard && heat->g->chosen[index])
        heat->hot[heat->count++] =
            (struct hot){(unsigned)index, load->bucket, owner, load->statements};
    return true;
}

/* Who owns something, and who is to be added; their average is what is aimed at. */
static void find_takers(struct heat *heat)
{
    struct planning *g = heat->g;
    unsigned takers = 0;
    double sum = 0;
    for (unsigned s = 0; s < g->nshards; s++) {
        heat->may_take[s] = g->added[s];
        for (unsigned k = 0; k < shardmap_keyspaces(g->map); k++)
            heat->may_take[s] |= g->chosen[k] && shardmap_keyspace(g->map, k)->owned[s] > 0;
        takers += heat->may_take[s];
        sum += heat->may_take[s] ? heat->loads[s] : 0;
    }
    heat->average = takers ? sum / takers : 0;
}

/* -1: none. */
static int busiest(const struct heat *heat)
{
    int best = -1;
    for (unsigned s = 0; s < heat->g->nshards; s++)
        if (heat->may_take[s] && !heat->takes[s] &&
            (best < 0 || heat->loads[s] > heat->loads[best]))
            best = (int)s;
    return best;
}

static int idlest(const struct heat *heat)
{
    int best = -1;
    for (unsigned s = 0; s < heat->g->nshards; s++)
        if (heat->may_take[s] && !heat->gives[s] &&
            (best < 0 || heat->loads[s] < heat->loads[best]))
            best = (int)s;
    return best;
}

/* The bucket of one shard that brings it and the other nearest to each other; NULL: none is worth it. */
static struct hot *choose(const struct heat *heat, unsigned from, unsigned to)
{
    struct hot *best = NULL;
    double lowest = heat->loads[from] - WORTH * heat->average;
    for (int i = 0; i < heat->count; i++) {
        struct hot *hot = &heat->hot[i];
        double left = heat->loads[from] - hot->statements, come = heat->loads[to] + hot->statements,
               higher = left > come ? left : come;
        if (hot->owner == from && higher < lowest) {
            lowest = higher;
            best = hot;
        }
    }
    return best;
}

static void move(struct heat *heat, struct hot *hot, unsigned to)
{
    struct planning *g = heat->g;
    heat->loads[hot->owner] -= hot->statements;
    heat->loads[to] += hot->statements;
    heat->gives[hot->owner] = heat->takes[to] = true;
    g->hot[g->nhot++] = (struct plan_hot){hot->keyspace, hot->bucket, to};
    hot->owner = to;
}

static void spread(struct heat *heat)
{
    for (int moves = 0; moves < MOVES_MOST; moves++) {
        int from = busiest(heat), to = idlest(heat);
        if (from < 0 || to < 0 || from == to || heat->loads[from] <= EVEN * heat->average)
            return;
        struct hot *hot = choose(heat, (unsigned)from, (unsigned)to);
        if (!hot)
            return;
        move(heat, hot, (unsigned)to);
    }
}

static bool wished_otherwise(const struct reshard_wish *wish)
{
    return (wish->drain && *wish->drain) || (wish->weights && *wish->weights) ||
           (wish->move && *wish->move);
}

bool plan_heat(struct planning *g)
{
    unsigned known = 0;
    struct heat heat = {.g = g,
                        .loads = arena_array(g->arena, double, g->nshards),
                        .may_take = arena_array(g->arena, bool, g->nshards),
                        .gives = arena_array(g->arena, bool, g->nshards),
                        .takes = arena_array(g->arena, bool, g->nshards),
                        .hot = arena_array(g->arena, struct hot, g->wish->nloads + 1)};
    if (wished_otherwise(g->wish))
        return plan_wrong(g, "Do one after the other, each in a job of its own.",
                          "--split-hot goes with --add and --keyspaces alone");
    for (int i = 0; i < g->wish->nloads; i++)
        known += add_load(&heat, &g->wish->loads[i]);
    if (!known)
        return plan_wrong(
            g,
            "Proxies count statements that go by one key and are run again and again, and tell "
            "the catalog every few seconds: try again under load.",
            "nothing is known of which buckets are asked for");
    g->hot = arena_array(g->arena, struct plan_hot, MOVES_MOST);
    find_takers(&heat);
    spread(&heat);
    return true;
}
