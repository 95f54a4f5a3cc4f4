/* test_reshard_plan.c: the fewest buckets move, to exact shares, and what is asked for wrongly is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "resharder/plan.h"

#define MAX_SHARDS 9

static struct shardmap *new_map(unsigned nshards, const unsigned *weights)
{
    static const char *names[MAX_SHARDS] = {"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"};
    return shardmap_new(&(struct shardmap_builder){names, weights, nshards});
}

/* Two shards own half each, of `users` and `docs`; s2 nothing. */
static struct shardmap *two_of_three(void)
{
    struct shardmap *map = new_map(3, (const unsigned[]){1, 1, 0});
    shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "docs", KEY_UUID, HASH_XXH64);
    shardmap_add_keyspace(map, "old", KEY_BIGINT, HASH_POSTGRES);
    return map;
}

/* "users 0-2730 s0>s2, ..." */
static const char *words(const struct moves *moves, struct arena *arena)
{
    const char *out = "";
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        out = arena_printf(arena, "%s%s%s %u-%u s%u>s%u", out, i ? ", " : "", move->keyspace->name,
                           move->first, move->last, move->source, move->target);
    }
    return out;
}

struct wish_case {
    struct reshard_wish wish;
    const char *moves; /* NULL: it is wrong, */
    const char *error; /* ... and this is told */
};

static const struct wish_case wishes[] = {
    {{.add = "s2", .keyspaces = "users"}, "users 5462-8191 s0>s2, users 8192-10922 s1>s2", NULL},
    {{.drain = "s1", .keyspaces = "users"}, "users 8192-16383 s1>s0", NULL},
    {{.drain = "s1", .add = "s2", .keyspaces = "docs"}, "docs 8192-16383 s1>s2", NULL},
    {{.weights = "s0=3, s1=1", .keyspaces = "users"}, "users 8192-12287 s1>s0", NULL},
    {{.weights = "s2=2", .keyspaces = "users"},
     "users 4096-8191 s0>s2, users 8192-12287 s1>s2",
     NULL},
    {{.weights = "s0=1,s1=1"}, "", NULL},
    {{.move = "0-4095:s2"}, "users 0-4095 s0>s2, docs 0-4095 s0>s2", NULL},
    {{.move = "users/8190-8193:s2,docs/7:s1"},
     "users 8190-8191 s0>s2, users 8192-8193 s1>s2, docs 7-7 s0>s1",
     NULL},
    {{.move = "0-8192:s1", .keyspaces = "users"}, "users 0-8191 s0>s1", NULL},
    {{.drain = "s1", .move = "16383:s2", .keyspaces = "users"},
     "users 8192-16382 s1>s0, users 16383-16383 s1>s2",
     NULL},
    {{.add = NULL}, NULL, "nothing is to be moved"},
    {{.add = ""}, NULL, "nothing is to be moved"},
    {{.add = "s7"}, NULL, "there is no shard \"s7\""},
    {{.add = "s2,,s1"}, NULL, "there is no shard \"\""},
    {{.drain = "s0,s1"}, NULL, "no shard with a weight is left for keyspace \"users\""},
    {{.drain = "s0", .add = "s0"}, NULL, "shard \"s0\" is to be added and drained"},
    {{.drain = "s0", .weights = "s0=1"}, NULL, "shard \"s0\" is to be drained, and has a weight"},
    {{.weights = "s0"}, NULL, "\"s0\" is no weight of a shard"},
    {{.weights = "s0=-1"}, NULL, "\"s0=-1\" is no weight of a shard"},
    {{.weights = "s0=99999999999999999999"},
     NULL,
     "\"s0=99999999999999999999\" is no weight of a shard"},
    {{.weights = "s0=1,s0=2"}, NULL, "the weight of shard \"s0\" is said twice"},
    {{.weights = "s0=0,s1=0"}, NULL, "no shard with a weight is left for keyspace \"users\""},
    {{.move = "0-4095"}, NULL, "\"0-4095\" is no move"},
    {{.move = "5-4:s1"}, NULL, "\"5-4:s1\" is no move"},
    {{.move = "0-16384:s1"}, NULL, "\"0-16384:s1\" is no move"},
    {{.move = "-1:s1"}, NULL, "\"-1:s1\" is no move"},
    {{.move = "1-:s1"}, NULL, "\"1-:s1\" is no move"},
    {{.move = ":s1"}, NULL, "\":s1\" is no move"},
    {{.move = "0:s9"}, NULL, "there is no shard \"s9\""},
    {{.move = "x/0:s1"}, NULL, "there is no keyspace \"x\""},
    {{.move = "old/0:s1"}, "old 0-0 s0>s1", NULL},
    {{.move = "old/16383:s1"}, NULL, "\"old/16383:s1\" is no move"},
    {{.drain = "s2", .keyspaces = "old"}, "old 10922-13651 s2>s1, old 13652-16382 s2>s0", NULL},
    {{.move = "docs/0:s1", .keyspaces = "users"},
     NULL,
     "keyspace \"docs\" is not among those that are to be moved"},
    {{.move = "0-9:s1,5:s2"}, NULL, "\"5:s2\": bucket 5 of users is named before"},
    {{.move = "0-9:s0"}, NULL, "\"0-9:s0\": these buckets are on shard s0 already"},
    {{.add = "s2", .keyspaces = "x"}, NULL, "there is no keyspace \"x\""},
    {{.add = "s2", .keyspaces = "old"}, "", NULL},
};

static void test_wishes(void **state)
{
    const unsigned weights[] = {1, 1, 1};
    (void)state;
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        const struct wish_case *c = &wishes[i];
        struct arena arena;
        struct moves moves = {.count = 0};
        struct db_error error = {.text = ""};
        arena_init(&arena);
        struct shardmap *map = two_of_three();
        bool ok = plan_moves(map, weights, &c->wish, &arena, &moves, &error);
        if (c->moves) {
            if (!ok)
                fail_msg("case %zu: %s", i, error.text);
            assert_string_equal(words(&moves, &arena), c->moves);
        } else {
            assert_false(ok);
            assert_string_equal(error.text, c->error);
            assert_true(error.hint[0]);
        }
        shardmap_free(map);
        arena_free(&arena);
    }
}

/* ---- values ---- */

/* tiers: "a" s0, "b" s1, others s1; times: below 100 s0, 100 to 200 s1, above s2; docs, by hash: s0 and s1. */
static struct shardmap *by_values(void)
{
    struct shardmap *map = new_map(3, (const unsigned[]){1, 1, 0});
    struct shardkey low, high;
    shardkey_of_bigint(100, &low);
    shardkey_of_bigint(200, &high);
    const struct key_entry tiers[] = {{(const unsigned char *)"a", 1, 0, 0},
                                      {(const unsigned char *)"b", 1, 1, 0}},
                           times[] = {{NULL, 0, 0, 0}, {low.bytes, 8, 1, 0}, {high.bytes, 8, 2, 0}};
    shardmap_add_keyspace(map, "tiers", KEY_TEXT, HASH_XXH64);
    shardmap_map_values(map, 0, MAP_LIST, tiers, 2, 1);
    shardmap_add_keyspace(map, "times", KEY_BIGINT, HASH_XXH64);
    shardmap_map_values(map, 1, MAP_RANGE, times, 3, SHARDMAP_NO_SHARD);
    shardmap_add_keyspace(map, "docs", KEY_UUID, HASH_XXH64);
    shardmap_add_keyspace(map, "names", KEY_TEXT, HASH_XXH64);
    shardmap_map_values(map, 3, MAP_RANGE, times, 1, SHARDMAP_NO_SHARD);
    return map;
}

/* "times [100,150) s1>s2, ..." */
static const char *value_words(const struct moves *moves, struct arena *arena)
{
    const char *out = "";
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        out = arena_printf(arena, "%s%s%s %s s%u>s%u", out, i ? ", " : "", move->keyspace->name,
                           keyspace_buckets_text(move->keyspace, move->first, move->last, arena),
                           move->source, move->target);
    }
    return out;
}

static const struct wish_case value_wishes[] = {
    {{.move = "tiers/a:s2"}, "tiers a s0>s2", NULL},
    {{.move = "a:s2", .keyspaces = "tiers"}, "tiers a s0>s2", NULL},
    {{.move = "'a':s1,DEFAULT:s2", .keyspaces = "tiers"},
     "tiers a s0>s1, tiers DEFAULT s1>s2",
     NULL},
    {{.move = "tiers/new:s2"}, "tiers new s1>s2", NULL}, /* cut from the rest */
    {{.move = "tiers/'x, y:z''s':s0 , tiers/\"o/p\":s2"},
     "tiers x, y:z's s1>s0, tiers o/p s1>s2",
     NULL},
    {{.move = "tiers/o'neil:s0,tiers/b:s0"}, "tiers b s1>s0, tiers o'neil s1>s0", NULL},
    {{.move = "tiers/new:s2,tiers/DEFAULT:s0"}, "tiers DEFAULT s1>s0, tiers new s1>s2", NULL},
    {{.drain = "s0", .keyspaces = "tiers"}, "tiers a s0>s1", NULL},
    {{.drain = "s1", .keyspaces = "tiers"}, "tiers b,DEFAULT s1>s0", NULL},
    {{.move = "times/[100,200):s0"}, "times [100,200) s1>s0", NULL},
    {{.move = "times/100-200:s0"}, "times [100,200) s1>s0", NULL},
    {{.move = "times/[120, 150 ):s0"}, "times [120,150) s1>s0", NULL},
    {{.move = "times/[120,150):s0"}, "times [120,150) s1>s0", NULL},
    {{.move = "times/-50-150:s2"}, "times [100,150) s1>s2, times [-50,100) s0>s2", NULL},
    {{.move = "times/-50--20:s2"}, "times [-50,-20) s0>s2", NULL},
    {{.move = "times/[MINVALUE,50):s1,times/[150,MAXVALUE):s0"},
     "times [MINVALUE,50) s0>s1, times [200,MAXVALUE) s2>s0, times [150,200) s1>s0",
     NULL},
    {{.move = "times/[MINVALUE,MAXVALUE):s1"},
     "times [MINVALUE,100) s0>s1, times [200,MAXVALUE) s2>s1",
     NULL},
    {{.move = "names/['a,b',\"c\"\"d\"):s2"}, "names [a,b,c\"d) s0>s2", NULL},
    {{.move = "0-9:s2"}, "docs buckets 0-9 (10) s0>s2", NULL},
    {{.move = "a:s2", .keyspaces = "tiers,times"}, NULL, "\"a:s2\": say of which keyspace it is"},
    {{.move = "times/[150,150):s0"}, NULL, "\"times/[150,150):s0\" holds no key"},
    {{.move = "times/200-100:s0"}, NULL, "\"times/200-100:s0\" holds no key"},
    {{.move = "times/[1,2:s0"}, NULL, "\"times/[1,2:s0\" is no move"},
    {{.move = "times/[1):s0"}, NULL, "\"times/[1):s0\" is no move"},
    {{.move = "times/[,2):s0"}, NULL, "\"times/[,2):s0\" is no move"},
    {{.move = "times/7:s0"}, NULL, "\"times/7:s0\" is no move"},
    {{.move = "names/a-b:s0"}, NULL, "\"names/a-b:s0\" is no move"},
    {{.move = "times/[x,y):s0"},
     NULL,
     "\"times/[x,y):s0\": \"x\" is no value of type bigint, which keyspace \"times\" has"},
    {{.move = "tiers/'a:s0"}, NULL, "\"tiers/'a:s0\" is no move"},
    {{.move = "tiers/a:s0"}, NULL, "\"tiers/a:s0\": these buckets are on shard s0 already"},
    {{.move = "tiers/new:s1"}, NULL, "\"tiers/new:s1\": these buckets are on shard s1 already"},
    {{.move = "tiers/a:s1,tiers/a:s2"}, NULL, "\"tiers/a:s2\": a of tiers is named before"},
    {{.move = "times/[0,150):s2,times/[120,130):s0"},
     NULL,
     "\"times/[120,130):s0\": [120,130) of times is named before"},
};

static void test_values(void **state)
{
    const unsigned weights[] = {1, 1, 1};
    (void)state;
    for (size_t i = 0; i < sizeof value_wishes / sizeof value_wishes[0]; i++) {
        const struct wish_case *c = &value_wishes[i];
        struct arena arena;
        struct moves moves = {.count = 0};
        struct db_error error = {.text = ""};
        arena_init(&arena);
        struct shardmap *map = by_values();
        bool ok = plan_moves(map, weights, &c->wish, &arena, &moves, &error);
        if (c->moves && !ok)
            fail_msg("case %zu: %s", i, error.text);
        if (c->moves) {
            assert_string_equal(value_words(&moves, &arena), c->moves);
        } else {
            assert_false(ok);
            assert_string_equal(error.text, c->error);
            assert_true(error.hint[0]);
        }
        shardmap_free(map);
        arena_free(&arena);
    }
}

/* A list without a default has no more values than it has. */
static void test_closed_list(void **state)
{
    struct shardmap *map = new_map(2, NULL);
    const struct key_entry entry = {(const unsigned char *)"a", 1, 0, 0};
    struct arena arena;
    struct moves moves;
    struct db_error error;
    (void)state;
    arena_init(&arena);
    shardmap_add_keyspace(map, "tiers", KEY_TEXT, HASH_XXH64);
    shardmap_map_values(map, 0, MAP_LIST, &entry, 1, SHARDMAP_NO_SHARD);
    const unsigned weights[] = {1, 1};
    assert_false(
        plan_moves(map, weights, &(struct reshard_wish){.move = "b:s1"}, &arena, &moves, &error));
    assert_non_null(strstr(error.text, "in no list of keyspace"));
    assert_false(plan_moves(map, weights, &(struct reshard_wish){.move = "DEFAULT:s1"}, &arena,
                            &moves, &error));
    assert_non_null(strstr(error.text, "has no default"));
    shardmap_free(map);
    arena_free(&arena);
}

/* ---- hot buckets ---- */

static unsigned random_below(unsigned *seed, unsigned below)
{
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % below;
}

struct hot_case {
    struct reshard_wish wish;
    struct catalog_load loads[6];
    const char *moves; /* NULL: it is wrong, */
    const char *error;
};

#define REST SHARDMAP_NO_BUCKET
static const struct hot_case hot_cases[] = {
    /* Of two hot buckets the one that levels the shards best goes. */
    {{.keyspaces = NULL},
     {{"users", 1, NULL, 1000},
      {"users", 2, NULL, 500},
      {"users", REST, "s0", 100},
      {"users", REST, "s1", 200}},
     "users 2-2 s0>s1",
     NULL},
    {{.keyspaces = NULL},
     {{"users", 1, NULL, 300},
      {"docs", 2, NULL, 300},
      {"users", REST, "s1", 100},
      {"docs", REST, "s1", 100}},
     "users 1-1 s0>s1",
     NULL},
    {{.keyspaces = "docs"},
     {{"users", 1, NULL, 300}, {"docs", 2, NULL, 300}, {"docs", REST, "s1", 100}},
     "docs 2-2 s0>s1",
     NULL},
    /* A shard that owns nothing takes nothing, unless it is to be added. */
    {{.add = "s2", .keyspaces = "users"},
     {{"users", 1, NULL, 300}, {"users", REST, "s0", 300}, {"users", REST, "s1", 300}},
     "users 1-1 s0>s2",
     NULL},
    /* One bucket that is most of everything cannot be helped. */
    {{.keyspaces = "users"}, {{"users", 1, NULL, 1000}, {"users", REST, "s1", 10}}, "", NULL},
    {{.keyspaces = "users"}, {{"users", 1, NULL, 105}, {"users", REST, "s1", 100}}, "", NULL},
    {{.keyspaces = NULL},
     {{"gone", 1, NULL, 105}, {"users", 20000, NULL, 5}},
     NULL,
     "nothing is known of which buckets are asked for"},
    {{.drain = "s1"},
     {{"users", 1, NULL, 105}},
     NULL,
     "--split-hot goes with --add and --keyspaces alone"},
};

static void test_hot(void **state)
{
    const unsigned weights[] = {1, 1, 1};
    (void)state;
    for (size_t i = 0; i < sizeof hot_cases / sizeof hot_cases[0]; i++) {
        const struct hot_case *c = &hot_cases[i];
        struct reshard_wish wish = c->wish;
        struct arena arena;
        struct moves moves = {.count = 0};
        struct db_error error = {.text = ""};
        arena_init(&arena);
        struct shardmap *map = new_map(3, (const unsigned[]){1, 1, 0});
        shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
        shardmap_add_keyspace(map, "docs", KEY_UUID, HASH_XXH64);
        wish.split_hot = true;
        wish.loads = c->loads;
        while (wish.nloads < 6 && c->loads[wish.nloads].keyspace)
            wish.nloads++;
        bool ok = plan_moves(map, weights, &wish, &arena, &moves, &error);
        if (c->moves && !ok)
            fail_msg("case %zu: %s", i, error.text);
        if (c->moves)
            assert_string_equal(words(&moves, &arena), c->moves);
        else
            assert_string_equal(error.text, c->error);
        shardmap_free(map);
        arena_free(&arena);
    }
}

/* Whatever the load: the busiest shard gets less to do, none both gives and takes, and what moves is what was said. */
static void test_hot_spreads(void **state)
{
    unsigned seed = 11;
    (void)state;
    for (int round = 0; round < 500; round++) {
        const unsigned weights[] = {1, 1, 1, 1};
        struct catalog_load loads[40];
        double before[4] = {0}, after[4];
        struct arena arena;
        struct moves moves;
        struct db_error error;
        arena_init(&arena);
        struct shardmap *map = new_map(4, weights);
        shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
        const struct keyspace *users = shardmap_keyspace(map, 0);
        unsigned most = 0, gives = 0, takes = 0;
        for (unsigned i = 0; i < 40; i++) {
            loads[i] = (struct catalog_load){"users", i * 409, NULL,
                                             1 + random_below(&seed, i % 7 ? 50 : 900)};
            before[users->bucket_shard[loads[i].bucket]] += loads[i].statements;
        }
        struct reshard_wish wish = {.split_hot = true, .loads = loads, .nloads = 40};
        assert_true(plan_moves(map, weights, &wish, &arena, &moves, &error));
        memcpy(after, before, sizeof after);
        for (int i = 0; i < moves.count; i++) {
            const struct move *move = &moves.items[i];
            assert_int_equal(move->first, move->last);
            assert_int_equal(move->first % 409, 0);
            after[move->source] -= loads[move->first / 409].statements;
            after[move->target] += loads[move->first / 409].statements;
            gives |= 1u << move->source;
            takes |= 1u << move->target;
        }
        assert_int_equal(gives & takes, 0);
        for (unsigned s = 1; s < 4; s++)
            most = before[s] > before[most] ? s : most;
        for (unsigned s = 0; s < 4; s++)
            assert_true(after[s] <= before[most]);
        assert_true(moves.count == 0 || after[most] < before[most]);
        assert_in_range(moves.count, 0, 40);
        shardmap_free(map);
        arena_free(&arena);
    }
}

/* A shard that is configured with weight 0 has no share. */
static void test_weightless(void **state)
{
    struct arena arena;
    struct moves moves;
    struct db_error error = {.text = ""};
    (void)state;
    arena_init(&arena);
    struct shardmap *map = two_of_three();
    const unsigned weights[] = {1, 1, 0};
    assert_false(
        plan_moves(map, weights, &(struct reshard_wish){.add = "s2"}, &arena, &moves, &error));
    assert_non_null(strstr(error.text, "weight 0"));
    assert_true(plan_moves(map, weights, &(struct reshard_wish){.add = "s2", .weights = "s2=1"},
                           &arena, &moves, &error));
    assert_int_equal(moves.count, 4);
    shardmap_free(map);
    arena_free(&arena);
}

/* ---- properties ---- */

/* A map that many jobs have changed. */
static struct shardmap *random_map(unsigned *seed, unsigned nshards, unsigned *weights)
{
    unsigned equal[MAX_SHARDS];
    for (unsigned s = 0; s < nshards; s++) {
        equal[s] = 1;
        weights[s] = 1 + random_below(seed, 5);
    }
    struct shardmap *map = new_map(nshards, equal);
    shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    for (unsigned i = random_below(seed, 12); i > 0; i--) {
        unsigned first = random_below(seed, SHARDKEY_BUCKETS);
        unsigned last = first + random_below(seed, SHARDKEY_BUCKETS - first);
        shardmap_set_buckets(map, 0, first, last, random_below(seed, nshards));
    }
    return map;
}

/* What each shard is to have, as a new map of these weights gives it out. */
static const unsigned *fresh_shares(const struct shardmap *fresh)
{
    return shardmap_keyspace(fresh, 0)->owned;
}

static void check_moves(const struct shardmap *map, const struct moves *moves,
                        const unsigned *shares, unsigned nshards)
{
    const struct keyspace *users = shardmap_keyspace(map, 0);
    unsigned counts[MAX_SHARDS], moved = 0, surplus = 0, next = 0;
    memcpy(counts, users->owned, sizeof *counts * nshards);
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        assert_true(move->first >= next && move->last >= move->first &&
                    move->last < SHARDKEY_BUCKETS);
        assert_int_not_equal(move->source, move->target);
        for (unsigned b = move->first; b <= move->last; b++)
            assert_int_equal(users->bucket_shard[b], move->source);
        next = move->last + 1;
        counts[move->source] -= next - move->first;
        counts[move->target] += next - move->first;
        moved += next - move->first;
        assert_true(users->owned[move->source] > shares[move->source]);
        assert_true(users->owned[move->target] < shares[move->target]);
    }
    for (unsigned s = 0; s < nshards; s++) {
        assert_int_equal(counts[s], shares[s]);
        if (users->owned[s] > shares[s])
            surplus += users->owned[s] - shares[s];
    }
    assert_int_equal(moved, surplus);
}

static void test_fewest(void **state)
{
    unsigned seed = 42, most = 0;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        unsigned nshards = 2 + random_below(&seed, MAX_SHARDS - 1), weights[MAX_SHARDS];
        struct arena arena;
        struct moves moves;
        struct db_error error = {.text = ""};
        arena_init(&arena);
        struct shardmap *map = random_map(&seed, nshards, weights);
        const char *said = "";
        for (unsigned s = 0; s < nshards; s++) {
            if (random_below(&seed, 6) == 0 && s)
                weights[s] = 0;
            said = arena_printf(&arena, "%s%ss%u=%u", said, s ? "," : "", s, weights[s]);
        }
        struct shardmap *fresh = new_map(nshards, weights);
        shardmap_add_keyspace(fresh, "users", KEY_BIGINT, HASH_XXH64);
        if (!plan_moves(map, weights, &(struct reshard_wish){.weights = said}, &arena, &moves,
                        &error))
            fail_msg("%s: %s", said, error.text);
        check_moves(map, &moves, fresh_shares(fresh), nshards);
        if ((unsigned)moves.count > most)
            most = (unsigned)moves.count;
        shardmap_free(map);
        shardmap_free(fresh);
        arena_free(&arena);
    }
    assert_in_range(most, 2, 40); /* not bucket by bucket */
}

/* Whatever is moved by value: each key is where it was, or on the target where the interval has it. */
static void test_intervals(void **state)
{
    unsigned seed = 7;
    (void)state;
    for (int round = 0; round < 400; round++) {
        const unsigned weights[] = {1, 1, 1, 1};
        struct shardmap *map = new_map(4, weights), *before = new_map(4, weights);
        struct key_entry entries[3] = {{NULL, 0, random_below(&seed, 4), 0}};
        struct shardkey keys[3], key;
        struct arena arena;
        struct moves moves;
        struct db_error error;
        arena_init(&arena);
        for (int i = 1; i < 3; i++) {
            shardkey_of_bigint(40 * i + (int)random_below(&seed, 30) - 60, &keys[i]);
            entries[i] = (struct key_entry){keys[i].bytes, 8, random_below(&seed, 4), 0};
        }
        shardmap_add_keyspace(map, "k", KEY_BIGINT, HASH_XXH64);
        shardmap_map_values(map, 0, MAP_RANGE, entries, 3, SHARDMAP_NO_SHARD);
        shardmap_add_keyspace(before, "k", KEY_BIGINT, HASH_XXH64);
        shardmap_map_values(before, 0, MAP_RANGE, entries, 3, SHARDMAP_NO_SHARD);
        int low = (int)random_below(&seed, 100) - 50, high = low + 1 + (int)random_below(&seed, 60);
        unsigned target = random_below(&seed, 4);
        const char *move = arena_printf(&arena, "%d-%d:s%u", low, high, target);
        bool ok =
            plan_moves(map, weights, &(struct reshard_wish){.move = move}, &arena, &moves, &error);
        for (int i = 0; ok && i < moves.count; i++)
            shardmap_set_buckets(map, 0, moves.items[i].first, moves.items[i].last,
                                 moves.items[i].target);
        const struct keyspace *k = shardmap_keyspace(map, 0), *was = shardmap_keyspace(before, 0);
        for (int value = -80; value < 140; value++) {
            shardkey_of_bigint(value, &key);
            unsigned owner = shardmap_shard_of(before, was, &key);
            if (value >= low && value < high)
                owner = target;
            assert_int_equal(shardmap_shard_of(map, k, &key), owner);
        }
        shardmap_free(map);
        shardmap_free(before);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wishes),      cmocka_unit_test(test_weightless),
        cmocka_unit_test(test_fewest),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_closed_list), cmocka_unit_test(test_intervals),
        cmocka_unit_test(test_hot),         cmocka_unit_test(test_hot_spreads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
