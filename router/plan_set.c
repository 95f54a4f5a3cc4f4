/* plan_set.c: sets of shards, and how far a statement reaches. */
#include "router/plan_internal.h"

static unsigned words(unsigned nshards)
{
    return (nshards + 63) / 64;
}

bool shards_contain(const struct shard_set *set, unsigned shard)
{
    switch (set->kind) {
    case SHARDS_ALL:
        return true;
    case SHARDS_ONE:
        return set->one == shard;
    case SHARDS_SOME:
        return set->bits[shard / 64] >> (shard % 64) & 1;
    case SHARDS_NONE:
        return false;
    }
    return false;
}

unsigned shards_count(const struct shard_set *set, unsigned nshards)
{
    unsigned count = 0;
    if (set->kind == SHARDS_SOME)
        for (unsigned i = 0; i < words(nshards); i++)
            count += (unsigned)__builtin_popcountll(set->bits[i]);
    else
        count = set->kind == SHARDS_ALL ? nshards : set->kind == SHARDS_ONE;
    return count;
}

/* The shortest form of the set that `bits` describe. */
static struct shard_set from_bits(uint64_t *bits, unsigned nshards)
{
    struct shard_set set = {.kind = SHARDS_SOME, .bits = bits};
    unsigned count = shards_count(&set, nshards);
    if (count == 0)
        return (struct shard_set){.kind = SHARDS_NONE};
    if (count == nshards && nshards > 1)
        return (struct shard_set){.kind = SHARDS_ALL};
    if (count > 1)
        return set;
    unsigned one = 0;
    while (!shards_contain(&set, one))
        one++;
    return (struct shard_set){.kind = SHARDS_ONE, .one = one};
}

static void add_bits(uint64_t *bits, const struct shard_set *set, unsigned nshards)
{
    if (set->kind == SHARDS_ONE)
        bits[set->one / 64] |= UINT64_C(1) << (set->one % 64);
    else if (set->kind == SHARDS_SOME)
        for (unsigned i = 0; i < words(nshards); i++)
            bits[i] |= set->bits[i];
}

bool shards_not_held(const struct shard_set *set)
{
    return set->kind == SHARDS_NONE || set->not_held;
}

static struct shard_set unite(struct arena *arena, unsigned nshards, const struct shard_set *a,
                              const struct shard_set *b)
{
    if (a->kind == SHARDS_ALL || b->kind == SHARDS_NONE)
        return *a;
    if (b->kind == SHARDS_ALL || a->kind == SHARDS_NONE)
        return *b;
    if (a->kind == SHARDS_ONE && shards_contain(b, a->one))
        return *b;
    if (b->kind == SHARDS_ONE && shards_contain(a, b->one))
        return *a;
    uint64_t *bits = arena_array(arena, uint64_t, words(nshards));
    add_bits(bits, a, nshards);
    add_bits(bits, b, nshards);
    return from_bits(bits, nshards);
}

struct shard_set shards_union(struct arena *arena, unsigned nshards, const struct shard_set *a,
                              const struct shard_set *b)
{
    bool not_held = shards_not_held(a) && shards_not_held(b);
    struct shard_set set = unite(arena, nshards, a, b);
    set.not_held = not_held;
    return set;
}

static struct shard_set intersect(struct arena *arena, unsigned nshards, const struct shard_set *a,
                                  const struct shard_set *b)
{
    if (a->kind == SHARDS_ALL || b->kind == SHARDS_NONE)
        return *b;
    if (b->kind == SHARDS_ALL || a->kind == SHARDS_NONE)
        return *a;
    if (a->kind == SHARDS_ONE)
        return shards_contain(b, a->one) ? *a : (struct shard_set){.kind = SHARDS_NONE};
    if (b->kind == SHARDS_ONE)
        return shards_contain(a, b->one) ? *b : (struct shard_set){.kind = SHARDS_NONE};
    uint64_t *bits = arena_array(arena, uint64_t, words(nshards));
    for (unsigned i = 0; i < words(nshards); i++)
        bits[i] = a->bits[i] & b->bits[i];
    return from_bits(bits, nshards);
}

/* The rows of both: where one of the two has none of held buckets, so has what they have in common. */
struct shard_set shards_intersect(struct arena *arena, unsigned nshards, const struct shard_set *a,
                                  const struct shard_set *b)
{
    bool not_held = shards_not_held(a) || shards_not_held(b);
    struct shard_set set = intersect(arena, nshards, a, b);
    set.not_held = not_held;
    return set;
}

static struct shard_set reach_of(const struct planner *p, int first, int end)
{
    struct shard_set reach = {.kind = SHARDS_NONE};
    for (int i = first; i < end; i++)
        if (!p->instances[i].derived)
            reach = shards_union(p->arena, shardmap_shards(p->map), &reach, &p->instances[i].set);
    return reach;
}

struct shard_set plan_reach(const struct planner *p)
{
    return reach_of(p, 0, p->ninstances);
}

struct shard_set plan_top_reach(const struct planner *p)
{
    for (int i = 0; i < p->nlevels; i++)
        if (p->levels[i].place == LEVEL_TOP)
            return reach_of(p, p->levels[i].first, p->levels[i].end);
    return plan_reach(p);
}
