/* plan.c: which buckets move: shares by weight, surplus to those that lack, and moves as they were asked for. */
#include "resharder/plan_internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool plan_wrong(struct planning *g, const char *hint, const char *format, ...)
{
    va_list args;
    *g->error = (struct db_error){.sqlstate = "22023"};
    va_start(args, format);
    vsnprintf(g->error->text, sizeof g->error->text, format, args);
    va_end(args);
    snprintf(g->error->hint, sizeof g->error->hint, "%s", hint);
    return false;
}

/* ---- words ---- */

/* The next of the words that commas part, without blanks around it; NULL: no more. */
static const char *next_word(struct planning *g, const char **at)
{
    const char *from = *at;
    if (!from || !*from)
        return NULL;
    const char *end = strchr(from, ',');
    *at = end ? end + 1 : NULL;
    size_t length = end ? (size_t)(end - from) : strlen(from);
    while (length && isspace((unsigned char)*from)) {
        from++;
        length--;
    }
    while (length && isspace((unsigned char)from[length - 1]))
        length--;
    return arena_strndup(g->arena, from, length);
}

static const char *shard_names(struct planning *g)
{
    const char *names = "The shards are: ";
    for (unsigned s = 0; s < g->nshards && s < 20; s++)
        names =
            arena_printf(g->arena, "%s%s%s", names, s ? ", " : "", shardmap_shard_name(g->map, s));
    return names;
}

bool plan_find_shard(struct planning *g, const char *name, unsigned *shard)
{
    int found = shardmap_shard_by_name(g->map, name);
    if (found < 0)
        return plan_wrong(g, shard_names(g), "there is no shard \"%s\"", name);
    *shard = (unsigned)found;
    return true;
}

static bool read_shards(struct planning *g, const char *list, bool *marks)
{
    unsigned shard = 0;
    for (const char *at = list, *word; (word = next_word(g, &at));) {
        if (!plan_find_shard(g, word, &shard))
            return false;
        marks[shard] = g->shares = true;
    }
    return true;
}

/* Digits, and nothing else up to `end`. */
bool plan_read_number(const char *text, const char *end, int64_t most, int64_t *number)
{
    *number = 0;
    if (text == end)
        return false;
    for (; text < end; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        *number = *number * 10 + (*text - '0');
        if (*number > most)
            return false;
    }
    return true;
}

static bool read_weights(struct planning *g)
{
    unsigned shard = 0;
    for (const char *at = g->wish->weights, *word; (word = next_word(g, &at));) {
        const char *equals = strchr(word, '=');
        int64_t weight;
        if (!equals || !plan_read_number(equals + 1, word + strlen(word), 1000000, &weight))
            return plan_wrong(g, "Weights are written like s0=1,s1=2, from 0 to 1000000.",
                              "\"%s\" is no weight of a shard", word);
        if (!plan_find_shard(g, arena_strndup(g->arena, word, (size_t)(equals - word)), &shard))
            return false;
        if (g->said[shard] >= 0)
            return plan_wrong(g, "Say each shard once.", "the weight of shard \"%s\" is said twice",
                              shardmap_shard_name(g->map, shard));
        g->said[shard] = weight;
        g->shares = true;
    }
    return true;
}

/* ---- keyspaces ---- */

static bool choose_named(struct planning *g)
{
    for (const char *at = g->wish->keyspaces, *word; (word = next_word(g, &at));) {
        int index = shardmap_keyspace_by_name(g->map, word);
        if (index < 0)
            return plan_wrong(g, "Name one of the database's keyspaces.",
                              "there is no keyspace \"%s\"", word);
        g->chosen[index] = true;
    }
    return true;
}

static bool choose_keyspaces(struct planning *g)
{
    unsigned count = shardmap_keyspaces(g->map);
    if (g->wish->keyspaces && *g->wish->keyspaces)
        return choose_named(g);
    for (unsigned k = 0; k < count; k++)
        g->chosen[k] = true;
    return count || plan_wrong(g, "Rows are moved by their keyspace.",
                               "the database has no keyspace that could be moved");
}

/* ---- shares ---- */

/* One that owns nothing gets nothing, unless that is asked for. */
static uint64_t weight_of(const struct planning *g, const struct keyspace *keyspace, unsigned shard)
{
    if (g->said[shard] >= 0)
        return (uint64_t)g->said[shard];
    if (g->drained[shard])
        return 0;
    return g->added[shard] || keyspace->owned[shard] ? g->configured[shard] : 0;
}

/* As in shardmap.c: whole parts first, what is left over to the largest remainders. */
static bool find_shares(struct planning *g, const struct keyspace *keyspace, unsigned *shares)
{
    uint64_t total = 0, *remainders = arena_array(g->arena, uint64_t, g->nshards);
    unsigned left = keyspace->nbuckets;
    for (unsigned s = 0; s < g->nshards; s++)
        total += weight_of(g, keyspace, s);
    if (!total)
        return plan_wrong(g, "Say weights of shards that are to stay: --weights s0=1,s1=1.",
                          "no shard with a weight is left for keyspace \"%s\"", keyspace->name);
    for (unsigned s = 0; s < g->nshards; s++) {
        uint64_t exact = keyspace->nbuckets * weight_of(g, keyspace, s);
        shares[s] = (unsigned)(exact / total);
        remainders[s] = exact % total;
        left -= shares[s];
    }
    for (; left; left--) {
        unsigned best = 0;
        for (unsigned s = 1; s < g->nshards; s++)
            if (remainders[s] > remainders[best])
                best = s;
        shares[best]++;
        remainders[best] = 0;
    }
    return true;
}

/* A run of buckets of one owner, [first, first + length). */
struct run {
    unsigned first, length;
};

static struct run next_run(const struct planning *g, unsigned from)
{
    struct run run = {from, 0};
    while (from < g->nbuckets && g->owners[from] == g->owners[run.first]) {
        from++;
        run.length++;
    }
    return run;
}

/* The shard's shortest run that has as many, else its longest. */
static struct run choose_run(const struct planning *g, unsigned shard, unsigned wanted)
{
    struct run best = {0, 0};
    for (struct run run = next_run(g, 0); run.length; run = next_run(g, run.first + run.length)) {
        if (g->owners[run.first] != shard)
            continue;
        bool fits = run.length >= wanted, best_fits = best.length >= wanted;
        if (fits ? !best_fits || run.length < best.length : !best_fits && run.length > best.length)
            best = run;
    }
    return best;
}

/* From that end of a run where the new owner has the neighbour. */
static unsigned give(struct planning *g, unsigned source, unsigned target, unsigned wanted)
{
    struct run run = choose_run(g, source, wanted);
    unsigned count = run.length < wanted ? run.length : wanted;
    bool head = run.first > 0 && g->owners[run.first - 1] == target;
    unsigned first = head ? run.first : run.first + run.length - count;
    for (unsigned i = 0; i < count; i++)
        g->owners[first + i] = (uint16_t)target;
    return count;
}

static unsigned neediest(const struct planning *g, const unsigned *shares, const unsigned *counts)
{
    unsigned best = 0;
    int64_t most = 0;
    for (unsigned s = 0; s < g->nshards; s++) {
        int64_t lacks = (int64_t)shares[s] - counts[s];
        if (lacks > most) {
            most = lacks;
            best = s;
        }
    }
    return best;
}

static bool give_shares(struct planning *g, const struct keyspace *keyspace)
{
    unsigned *shares = arena_array(g->arena, unsigned, g->nshards),
             *counts = arena_array(g->arena, unsigned, g->nshards);
    if (!find_shares(g, keyspace, shares))
        return false;
    memcpy(counts, keyspace->owned, sizeof *counts * g->nshards);
    for (unsigned s = 0; s < g->nshards; s++)
        while (counts[s] > shares[s]) {
            unsigned target = neediest(g, shares, counts);
            unsigned surplus = counts[s] - shares[s], lacks = shares[target] - counts[target];
            unsigned given = give(g, s, target, surplus < lacks ? surplus : lacks);
            counts[s] -= given;
            counts[target] += given;
        }
    return true;
}

/* ---- what is different ---- */

static void add_range(struct planning *g, const struct move *move)
{
    if (g->count == g->room) {
        g->room = g->room ? 2 * g->room : 16;
        struct move *items = arena_array(g->arena, struct move, g->room);
        if (g->count)
            memcpy(items, g->items, sizeof *items * (size_t)g->count);
        g->items = items;
    }
    g->items[g->count++] = *move;
}

static void collect(struct planning *g, const struct keyspace *keyspace)
{
    struct move *last = NULL;
    for (unsigned b = 0; b < keyspace->nbuckets; b++) {
        unsigned source = keyspace->bucket_shard[b], target = g->owners[b];
        if (source == target) {
            last = NULL;
        } else if (last && last->source == source && last->target == target) {
            last->last = b;
        } else {
            add_range(g, &(struct move){keyspace, b, b, source, target});
            last = &g->items[g->count - 1];
        }
    }
}

static bool plan_keyspace(struct planning *g, int index)
{
    const struct keyspace *keyspace = shardmap_keyspace(g->map, (unsigned)index);
    g->nbuckets = keyspace->nbuckets;
    memcpy(g->owners, keyspace->bucket_shard, sizeof *g->owners * g->nbuckets);
    for (int i = 0; i < g->nhot; i++)
        if (g->hot[i].keyspace == (unsigned)index)
            g->owners[g->hot[i].bucket] = (uint16_t)g->hot[i].target;
    if ((g->shares && !g->wish->split_hot && !give_shares(g, keyspace)) ||
        !plan_apply_moves(g, index))
        return false;
    collect(g, keyspace);
    return true;
}

static bool check_shares(struct planning *g)
{
    for (unsigned s = 0; s < g->nshards; s++) {
        const char *name = shardmap_shard_name(g->map, s);
        if (g->added[s] && g->drained[s])
            return plan_wrong(g, "Say one of them.", "shard \"%s\" is to be added and drained",
                              name);
        if (g->drained[s] && g->said[s] > 0)
            return plan_wrong(g, "Say one of them.",
                              "shard \"%s\" is to be drained, and has a weight", name);
        if (g->added[s] && g->said[s] < 0 && !g->configured[s])
            return plan_wrong(
                g, arena_printf(g->arena, "Say one: --weights %s=1.", name),
                "shard \"%s\" has weight 0 in the configuration, so its share is nothing", name);
    }
    return true;
}

static bool says_nothing(const struct reshard_wish *wish)
{
    const char *const said[] = {wish->add, wish->drain, wish->weights, wish->move};
    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++)
        if (said[i] && *said[i])
            return false;
    return !wish->split_hot;
}

bool plan_moves(struct shardmap *map, const unsigned *weights, const struct reshard_wish *wish,
                struct arena *arena, struct moves *moves, struct db_error *error)
{
    unsigned nshards = shardmap_shards(map), nkeyspaces = shardmap_keyspaces(map);
    struct planning g = {.map = map,
                         .wish = wish,
                         .arena = arena,
                         .error = error,
                         .nshards = nshards,
                         .configured = weights,
                         .added = arena_array(arena, bool, nshards),
                         .drained = arena_array(arena, bool, nshards),
                         .said = arena_array(arena, int64_t, nshards),
                         .chosen = arena_array(arena, bool, nkeyspaces + 1),
                         .owners = arena_array(arena, uint16_t, SHARDKEY_BUCKETS)};
    for (unsigned s = 0; s < nshards; s++)
        g.said[s] = -1;
    if (says_nothing(wish))
        return plan_wrong(&g, "Use --add, --drain, --weights, --move or --split-hot.",
                          "nothing is to be moved");
    if (!choose_keyspaces(&g) || !read_shards(&g, wish->add, g.added) ||
        !read_shards(&g, wish->drain, g.drained) || !read_weights(&g) || !check_shares(&g) ||
        !plan_split(&g) || (wish->split_hot && !plan_heat(&g)))
        return false;
    for (unsigned k = 0; k < nkeyspaces; k++)
        if (g.chosen[k] && !plan_keyspace(&g, (int)k))
            return false;
    *moves = (struct moves){.map = map, .items = g.items, .count = g.count};
    return true;
}
