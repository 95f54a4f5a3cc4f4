/* test_shardmap.c: buckets are shared out by weight, tables are found by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/arena.h"
#include "pgshunt/shardmap.h"
#include "shardkey_vectors.h"

#define MAX_SHARDS 8

struct weight_case {
    unsigned nshards;
    unsigned weights[MAX_SHARDS];
    unsigned buckets[MAX_SHARDS];
};

static const struct weight_case weight_cases[] = {
    {1, {1}, {16384}},
    {2, {1, 1}, {8192, 8192}},
    {3, {1, 1, 1}, {5462, 5461, 5461}},
    {4, {1, 1, 1, 1}, {4096, 4096, 4096, 4096}},
    {2, {3, 1}, {12288, 4096}},
    {3, {1, 0, 1}, {8192, 0, 8192}},
    {3, {0, 0, 0}, {5462, 5461, 5461}},
    {3, {1, 2, 4}, {2341, 4681, 9362}},
    {7, {1, 1, 1, 1, 1, 1, 1}, {2341, 2341, 2341, 2341, 2340, 2340, 2340}},
    {2, {4294967295u, 4294967295u}, {8192, 8192}},
    {3, {1, 100000, 1}, {0, 16384, 0}},
    {2, {0, 5}, {0, 16384}},
};

static const char *names[] = {"s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"};

static struct shardmap *make_map(unsigned nshards, const unsigned *weights)
{
    return shardmap_new(&(struct shardmap_builder){names, weights, nshards});
}

static void test_weights(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof weight_cases / sizeof weight_cases[0]; i++) {
        const struct weight_case *c = &weight_cases[i];
        struct shardmap *map = make_map(c->nshards, c->weights);
        assert_int_equal(shardmap_add_keyspace(map, "k", KEY_BIGINT, HASH_XXH64), 0);
        const struct keyspace *keyspace = shardmap_keyspace(map, 0);
        unsigned total = 0;
        for (unsigned s = 0; s < c->nshards; s++) {
            assert_int_equal(shardmap_buckets_of(keyspace, s), c->buckets[s]);
            total += c->buckets[s];
        }
        assert_int_equal(total, SHARDKEY_BUCKETS);
        for (unsigned b = 1; b < SHARDKEY_BUCKETS; b++) /* contiguous, in the shards' order */
            assert_true(keyspace->bucket_shard[b - 1] <= keyspace->bucket_shard[b]);
        shardmap_free(map);
    }
}

static void test_default_weights(void **state)
{
    (void)state;
    struct shardmap *map = make_map(4, NULL);
    shardmap_add_keyspace(map, "k", KEY_TEXT, HASH_XXH64);
    for (unsigned s = 0; s < 4; s++)
        assert_int_equal(shardmap_buckets_of(shardmap_keyspace(map, 0), s), 4096);
    assert_int_equal(shardmap_buckets_of(shardmap_keyspace(map, 0), 4), 0);
    shardmap_free(map);
}

static void test_shards(void **state)
{
    (void)state;
    struct shardmap *one = make_map(1, NULL), *three = make_map(3, NULL);
    assert_false(shardmap_is_sharded(one));
    assert_true(shardmap_is_sharded(three));
    assert_int_equal(shardmap_shards(three), 3);
    assert_string_equal(shardmap_shard_name(three, 2), "s2");
    assert_string_equal(shardmap_shard_name(three, 3), "?");
    assert_int_equal(shardmap_shard_by_name(three, "s1"), 1);
    assert_int_equal(shardmap_shard_by_name(three, "s3"), -1);
    assert_int_equal(shardmap_shard_by_name(three, "S1"), -1);
    assert_int_equal(shardmap_keyspaces(three), 0);
    assert_null(shardmap_keyspace(three, 0));
    shardmap_free(one);
    shardmap_free(three);
    shardmap_free(NULL);
}

/* Strings given to the builder may go away. */
static void test_copies(void **state)
{
    (void)state;
    char shard[] = "first", keyspace[] = "users", table[] = "app.orders", key[] = "user_id";
    const char *list[] = {shard};
    struct shardmap *map = shardmap_new(&(struct shardmap_builder){list, NULL, 1});
    shardmap_add_keyspace(map, keyspace, KEY_BIGINT, HASH_XXH64);
    shardmap_add_table(map, table, 0, key);
    memset(shard, 'x', sizeof shard - 1);
    memset(keyspace, 'x', sizeof keyspace - 1);
    memset(table, 'x', sizeof table - 1);
    memset(key, 'x', sizeof key - 1);
    assert_string_equal(shardmap_shard_name(map, 0), "first");
    assert_string_equal(shardmap_keyspace(map, 0)->name, "users");
    const struct table_rule *rule = shardmap_table(map, "app", "orders");
    assert_string_equal(rule->key, "user_id");
    assert_string_equal(rule->schema, "app");
    assert_string_equal(rule->name, "orders");
    shardmap_free(map);
}

struct lookup_case {
    const char *schema, *name;
    enum table_class class;
    const char *key;
};

static void test_tables(void **state)
{
    (void)state;
    struct shardmap *map = make_map(2, NULL);
    int users = shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    int other = shardmap_add_keyspace(map, "other", KEY_TEXT, HASH_POSTGRES);
    shardmap_add_table(map, "users", users, "id");
    shardmap_add_table(map, "app.orders", users, "user_id");
    shardmap_add_table(map, "crm.orders", other, "customer");
    shardmap_add_table(map, "public.events", users, "uid");
    shardmap_add_table(map, "audit.events", other, "who");
    shardmap_add_table(map, "countries", -1, NULL);
    shardmap_add_table(map, "geo.cities", -1, NULL);
    shardmap_add_table(map, "tables", users, "owner");
    shardmap_add_table(map, "\"My \"\"Schema\"\"\".\"Odd.Name\"", users, "k");
    shardmap_add_table(map, "twice", users, "old");
    shardmap_add_table(map, "twice", users, "new");
    static const struct lookup_case cases[] = {
        {NULL, "users", TABLE_SHARDED, "id"},
        {"public", "users", TABLE_SHARDED, "id"},
        {"anything", "users", TABLE_SHARDED, "id"},
        {NULL, "Users", TABLE_UNSHARDED, NULL},
        {"app", "orders", TABLE_SHARDED, "user_id"},
        {"crm", "orders", TABLE_SHARDED, "customer"},
        {"public", "orders", TABLE_UNSHARDED, NULL},
        {NULL, "orders", TABLE_SHARDED, "user_id"},
        {NULL, "events", TABLE_SHARDED, "uid"},
        {"audit", "events", TABLE_SHARDED, "who"},
        {NULL, "countries", TABLE_REFERENCE, NULL},
        {"public", "countries", TABLE_REFERENCE, NULL},
        {NULL, "cities", TABLE_REFERENCE, NULL},
        {"public", "cities", TABLE_UNSHARDED, NULL},
        {NULL, "tables", TABLE_SHARDED, "owner"},
        {"information_schema", "tables", TABLE_UNSHARDED, NULL},
        {"pg_catalog", "users", TABLE_UNSHARDED, NULL},
        {"pg_temp", "users", TABLE_UNSHARDED, NULL},
        {"My \"Schema\"", "Odd.Name", TABLE_SHARDED, "k"},
        {NULL, "twice", TABLE_SHARDED, "new"},
        {NULL, "logs", TABLE_UNSHARDED, NULL},
        {NULL, "", TABLE_UNSHARDED, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct lookup_case *c = &cases[i];
        const struct table_rule *rule = shardmap_table(map, c->schema, c->name);
        assert_non_null(rule);
        if (rule->class != c->class)
            fail_msg("%s.%s is of class %d", c->schema ? c->schema : "", c->name, rule->class);
        if (c->key)
            assert_string_equal(rule->key, c->key);
        if (c->class == TABLE_SHARDED)
            assert_non_null(rule->keyspace);
        else
            assert_null(rule->keyspace);
    }
    assert_ptr_equal(shardmap_table(map, NULL, "users")->keyspace, shardmap_keyspace(map, 0));
    assert_ptr_equal(shardmap_table(map, "crm", "orders")->keyspace, shardmap_keyspace(map, 1));
    shardmap_free(map);
}

/* Pointers to keyspaces stay good while more are added. */
static void test_many(void **state)
{
    (void)state;
    struct shardmap *map = make_map(8, NULL);
    const struct keyspace *first = NULL;
    for (int i = 0; i < 20; i++) {
        char name[64];
        snprintf(name, sizeof name, "space%d", i);
        assert_int_equal(shardmap_add_keyspace(map, name, KEY_BIGINT, HASH_XXH64), i);
        if (i == 0)
            first = shardmap_keyspace(map, 0);
        for (int t = 0; t < 50; t++) {
            snprintf(name, sizeof name, "table_%d_%d", i, t);
            shardmap_add_table(map, name, i, "id");
        }
    }
    assert_ptr_equal(shardmap_keyspace(map, 0), first);
    assert_ptr_equal(shardmap_table(map, NULL, "table_0_49")->keyspace, first);
    assert_ptr_equal(shardmap_table(map, NULL, "table_19_7")->keyspace, shardmap_keyspace(map, 19));
    shardmap_free(map);
}

static void test_shard_of(void **state)
{
    (void)state;
    struct shardmap *map = make_map(7, NULL);
    for (int type = KEY_BIGINT; type <= KEY_TEXT; type++) {
        shardmap_add_keyspace(map, "hashed", (enum key_type)type, HASH_XXH64);
        shardmap_add_keyspace(map, "postgres", (enum key_type)type, HASH_POSTGRES);
    }
    for (size_t i = 0; i < SHARDKEY_NVECTORS; i++) {
        const struct shardkey_vector *v = &shardkey_vectors[i];
        struct shardkey key;
        assert_true(shardkey_from_text(v->type, v->text, strlen(v->text), &key));
        const struct keyspace *hashed = shardmap_keyspace(map, (unsigned)v->type * 2);
        const struct keyspace *postgres = shardmap_keyspace(map, (unsigned)v->type * 2 + 1);
        assert_int_equal(shardmap_shard_of(map, hashed, &key), hashed->bucket_shard[v->bucket]);
        assert_int_equal(shardmap_shard_of(map, postgres, &key), v->pg_mod_7);
    }
    shardmap_free(map);
}

/* What the catalog says is laid over what the configuration says. */
static void test_recorded(void **state)
{
    (void)state;
    const unsigned weights[] = {1, 1, 0};
    struct shardmap *map = make_map(3, weights);
    int users = shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "others", KEY_TEXT, HASH_XXH64);
    const struct keyspace *keyspace = shardmap_keyspace(map, 0), *other = shardmap_keyspace(map, 1);
    assert_int_equal(shardmap_epoch(map), 0);
    assert_false(shardmap_owns(keyspace, 2));
    assert_int_equal(shardmap_keyspace_by_name(map, "others"), 1);
    assert_int_equal(shardmap_keyspace_by_name(map, "other"), -1);

    shardmap_set_buckets(map, users, 4000, 9000, 2);
    shardmap_set_epoch(map, 1LL << 40);
    assert_true(shardmap_epoch(map) == 1LL << 40);
    assert_true(shardmap_owns(keyspace, 2));
    assert_false(shardmap_owns(other, 2));
    for (unsigned b = 0; b < SHARDKEY_BUCKETS; b++) {
        unsigned was = other->bucket_shard[b];
        assert_int_equal(keyspace->bucket_shard[b], b >= 4000 && b <= 9000 ? 2 : was);
    }
    for (unsigned shard = 0; shard < 3; shard++) {
        unsigned count = 0;
        for (unsigned b = 0; b < SHARDKEY_BUCKETS; b++)
            count += keyspace->bucket_shard[b] == shard;
        assert_int_equal(shardmap_buckets_of(keyspace, shard), count);
    }
    shardmap_set_buckets(map, users, 0, SHARDKEY_BUCKETS + 5, 1);
    assert_int_equal(shardmap_buckets_of(keyspace, 1), SHARDKEY_BUCKETS);
    assert_false(shardmap_owns(keyspace, 0));
    shardmap_free(map);
}

static void test_ghosts_and_holds(void **state)
{
    (void)state;
    struct shardmap *map = make_map(2, NULL);
    int users = shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "others", KEY_BIGINT, HASH_XXH64);
    const struct keyspace *keyspace = shardmap_keyspace(map, 0), *other = shardmap_keyspace(map, 1);
    assert_false(keyspace_has_ghosts(keyspace, 0));
    assert_false(keyspace_is_held(keyspace, 0));
    assert_false(shardmap_holds(map));

    shardmap_set_ghost(map, users, 1);
    assert_false(keyspace_has_ghosts(keyspace, 0));
    assert_true(keyspace_has_ghosts(keyspace, 1));
    assert_false(keyspace_has_ghosts(other, 1));
    assert_false(shardmap_holds(map));

    shardmap_hold(map, users, 7, 8);
    shardmap_hold(map, users, 16383, 16383);
    assert_true(shardmap_holds(map));
    for (unsigned b = 0; b < SHARDKEY_BUCKETS; b++) {
        assert_int_equal(keyspace_is_held(keyspace, b), b == 7 || b == 8 || b == 16383);
        assert_false(keyspace_is_held(other, b));
    }
    shardmap_free(map);
}

/* Values and intervals are owned, too; Postgres' own hashing leaves nobody out. */
static void test_owners(void **state)
{
    (void)state;
    struct shardmap *map = make_map(4, NULL);
    static const unsigned char low[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    const struct key_entry listed[] = {{low, sizeof low, 2, 0}};
    const struct key_entry ranges[] = {{NULL, 0, 0, 0}, {low, sizeof low, 3, 0}};
    const bool owns[3][4] = {{false, true, true, false}, {true, false, false, true}, {1, 1, 1, 1}};
    shardmap_add_keyspace(map, "list", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "range", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "postgres", KEY_BIGINT, HASH_POSTGRES);
    shardmap_map_values(map, 0, MAP_LIST, listed, 1, 1);
    shardmap_map_values(map, 1, MAP_RANGE, ranges, 2, SHARDMAP_NO_SHARD);
    for (unsigned k = 0; k < 3; k++)
        for (unsigned shard = 0; shard < 4; shard++)
            assert_int_equal(shardmap_owns(shardmap_keyspace(map, k), shard), owns[k][shard]);
    shardmap_free(map);
}

/* Tables that entered a keyspace, or left it, since the configuration was written. */
static void test_recorded_tables(void **state)
{
    (void)state;
    struct shardmap *map = make_map(2, NULL);
    const enum key_type types[] = {KEY_BIGINT, KEY_TEXT};
    const char *const user[] = {"user_id"}, *const other[] = {"id"}, *const both[] = {"a", "b"};
    int users = shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    int pairs = shardmap_add_keyspace(map, "pairs", KEY_BIGINT, HASH_XXH64);
    shardmap_set_types(map, pairs, types, 2);
    shardmap_add_table(map, "orders", users, "user_id");
    shardmap_add_lookup(map, "orders", "id", true);
    shardmap_set_table(map, "orders", users, user, 1); /* it is that already */
    assert_non_null(shardmap_table(map, NULL, "orders")->lookups);
    assert_true(shardmap_table_is(map, "orders", users, user, 1));
    assert_false(shardmap_table_is(map, "orders", users, other, 1));
    assert_false(shardmap_table_is(map, "orders", -1, NULL, 0));
    shardmap_set_table(map, "orders", -1, NULL, 0);
    assert_int_equal(shardmap_table(map, "public", "orders")->class, TABLE_UNSHARDED);
    assert_true(shardmap_table_is(map, "orders", -1, NULL, 0));
    assert_true(shardmap_table_is(map, "public.items", -1, NULL, 0));
    shardmap_set_table(map, "public.items", pairs, both, 2);
    assert_int_equal(shardmap_table(map, "public", "items")->class, TABLE_SHARDED);
    assert_int_equal(shardmap_table(map, "public", "items")->nparts, 2);
    assert_int_equal(shardmap_table(map, "other", "items")->class, TABLE_UNSHARDED);
    assert_false(shardmap_holds(map));
    shardmap_hold_table(map, "public.items");
    shardmap_hold_table(map, "fresh");
    assert_true(shardmap_holds(map));
    assert_true(shardmap_table(map, "public", "items")->held);
    assert_int_equal(shardmap_table(map, "public", "items")->class, TABLE_SHARDED);
    assert_true(shardmap_table(map, NULL, "fresh")->held);
    assert_false(shardmap_table(map, NULL, "orders")->held);
    assert_string_equal(shardmap_held_table(map, 1), "fresh");
    assert_null(shardmap_held_table(map, 2));
    shardmap_free(map);
}

#define BIGINT(name, value)                                                                        \
    struct shardkey name;                                                                          \
    shardkey_of_bigint((value), &name)

/* The shard of each value of -20 .. 20. */
static void take_shards(const struct shardmap *map, unsigned shards[41])
{
    for (int value = -20; value <= 20; value++) {
        BIGINT(key, value);
        shards[value + 20] = shardmap_shard_of(map, shardmap_keyspace(map, 0), &key);
    }
}

/* A bucket that is cut off is whose it was; numbers stay, whatever the order of the values. */
static void test_ranges_are_split(void **state)
{
    (void)state;
    struct shardmap *map = make_map(4, NULL);
    struct arena arena;
    arena_init(&arena);
    BIGINT(ten, 10);
    BIGINT(five, 5);
    BIGINT(below, -7);
    BIGINT(four, 4);
    const struct key_entry ranges[] = {{ten.bytes, 8, 3, 0}, {NULL, 0, 1, 0}};
    shardmap_add_keyspace(map, "k", KEY_BIGINT, HASH_XXH64);
    shardmap_map_values(map, 0, MAP_RANGE, ranges, 2, SHARDMAP_NO_SHARD);
    const struct keyspace *k = shardmap_keyspace(map, 0);
    unsigned before[41], after[41];
    take_shards(map, before);
    assert_int_equal(shardmap_split(map, 0, &five, SHARDMAP_NO_SHARD), 2);
    assert_int_equal(shardmap_split(map, 0, &below, SHARDMAP_NO_SHARD), 3);
    assert_int_equal(shardmap_split(map, 0, &ten, SHARDMAP_NO_SHARD), 1);
    assert_int_equal(shardmap_split(map, 0, &five, SHARDMAP_NO_SHARD), 2);
    take_shards(map, after);
    assert_memory_equal(before, after, sizeof before);
    assert_int_equal(k->nbuckets, 4);
    assert_int_equal(shardmap_buckets_of(k, 1), 3);
    assert_int_equal(keyspace_bucket(k, &four), 3);
    assert_int_equal(keyspace_bucket(k, &five), 2);
    assert_string_equal(keyspace_owned_text(k, 1, &arena), "[MINVALUE,10)");
    assert_string_equal(keyspace_buckets_text(k, 2, 3, &arena), "[-7,10)");
    shardmap_set_buckets(map, 0, 3, 3, 2);
    assert_string_equal(keyspace_owned_text(k, 1, &arena), "[MINVALUE,-7),[5,10)");
    assert_string_equal(keyspace_owned_text(k, 2, &arena), "[-7,5)");
    assert_int_equal(shardmap_shard_of(map, k, &four), 2);
    assert_int_equal(shardmap_shard_of(map, k, &five), 1);
    arena_free(&arena);
    shardmap_free(map);
}

static void test_lists_are_split(void **state)
{
    (void)state;
    struct shardmap *map = make_map(4, NULL);
    struct arena arena;
    arena_init(&arena);
    BIGINT(one, 1);
    BIGINT(two, 2);
    BIGINT(three, 3);
    BIGINT(far, 99);
    const struct key_entry listed[] = {{two.bytes, 8, 3, 0}, {one.bytes, 8, 0, 0}};
    shardmap_add_keyspace(map, "k", KEY_BIGINT, HASH_XXH64);
    shardmap_map_values(map, 0, MAP_LIST, listed, 2, SHARDMAP_NO_SHARD);
    const struct keyspace *k = shardmap_keyspace(map, 0);
    assert_int_equal(keyspace_bucket(k, &two), 1);
    assert_int_equal(keyspace_bucket(k, &three), SHARDMAP_NO_BUCKET);
    assert_int_equal(shardmap_shard_of(map, k, &three), SHARDMAP_NO_SHARD);
    shardmap_hold(map, 0, 0, 1);
    assert_false(keyspace_is_held(k, SHARDMAP_NO_BUCKET));
    assert_int_equal(shardmap_split(map, 0, &three, 2), 2); /* nobody's so far */
    assert_int_equal(shardmap_shard_of(map, k, &three), 2);
    assert_int_equal(shardmap_add_rest(map, 0, 1), 3);
    assert_int_equal(shardmap_add_rest(map, 0, 2), 3);
    assert_int_equal(shardmap_shard_of(map, k, &far), 1);
    assert_int_equal(shardmap_split(map, 0, &far, 0), 4); /* the rest's */
    assert_int_equal(shardmap_shard_of(map, k, &far), 1);
    assert_string_equal(keyspace_owned_text(k, 1, &arena), "99,DEFAULT");
    assert_string_equal(keyspace_buckets_text(k, 0, 2, &arena), "1,2,3");
    arena_free(&arena);
    shardmap_free(map);
}

/* What is recorded has each bucket once, and each value. */
static void test_recorded_entries(void **state)
{
    (void)state;
    struct shardmap *map = make_map(2, NULL);
    BIGINT(one, 1);
    BIGINT(two, 2);
    const struct key_entry listed[] = {{one.bytes, 8, 0, 0}, {two.bytes, 8, 1, 0}};
    shardmap_add_keyspace(map, "list", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "range", KEY_BIGINT, HASH_XXH64);
    shardmap_map_values(map, 0, MAP_LIST, listed, 2, SHARDMAP_NO_SHARD);
    const struct key_entry lowest[] = {{NULL, 0, 0, 0}};
    shardmap_map_values(map, 1, MAP_RANGE, lowest, 1, SHARDMAP_NO_SHARD);
    const struct key_entry good[] = {{two.bytes, 8, 0, 2}, {one.bytes, 8, 0, 0}},
                           twice[] = {{two.bytes, 8, 0, 0}, {two.bytes, 8, 0, 1}},
                           gap[] = {{two.bytes, 8, 0, 0}, {one.bytes, 8, 0, 5}},
                           cut[] = {{one.bytes, 8, 0, 0}, {NULL, 0, 0, 1}};
    assert_true(shardmap_set_entries(map, 0, good, 2, 1));
    assert_int_equal(keyspace_bucket(shardmap_keyspace(map, 0), &two), 2);
    assert_int_equal(shardmap_keyspace(map, 0)->nbuckets, 3);
    assert_int_equal(shardmap_buckets_of(shardmap_keyspace(map, 0), 0), 3);
    assert_false(shardmap_set_entries(map, 0, good, 2, 2));
    assert_false(shardmap_set_entries(map, 0, good, 2, SHARDMAP_NO_BUCKET));
    assert_false(shardmap_set_entries(map, 0, twice, 2, SHARDMAP_NO_BUCKET));
    assert_false(shardmap_set_entries(map, 0, gap, 2, SHARDMAP_NO_BUCKET));
    assert_false(shardmap_set_entries(map, 0, cut, 2, SHARDMAP_NO_BUCKET));
    assert_true(shardmap_set_entries(map, 1, cut, 2, SHARDMAP_NO_BUCKET));
    assert_false(shardmap_set_entries(map, 1, good, 2, SHARDMAP_NO_BUCKET));
    shardmap_free(map);
}

/* However fine the buckets, they do not move a row; and each shard's follow each other. */
static void test_postgres_buckets(void **state)
{
    (void)state;
    for (unsigned nshards = 2; nshards <= 7; nshards++) {
        struct shardmap *map = make_map(nshards, NULL);
        shardmap_add_keyspace(map, "k", KEY_BIGINT, HASH_POSTGRES);
        const struct keyspace *k = shardmap_keyspace(map, 0);
        assert_int_equal(k->nbuckets % nshards, 0);
        assert_in_range(k->nbuckets, SHARDKEY_BUCKETS - nshards + 1, SHARDKEY_BUCKETS);
        for (int64_t value = -3000; value < 3000; value++) {
            BIGINT(key, value);
            unsigned bucket = keyspace_bucket(k, &key);
            unsigned remainder = shardkey_postgres_remainder(KEY_BIGINT, &key, nshards);
            assert_int_equal(shardmap_shard_of(map, k, &key), remainder);
            assert_int_equal(bucket / (k->nbuckets / nshards), remainder);
            assert_int_equal(bucket % (k->nbuckets / nshards),
                             shardkey_postgres_remainder(KEY_BIGINT, &key, k->nbuckets) / nshards);
        }
        shardmap_free(map);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),          cmocka_unit_test(test_default_weights),
        cmocka_unit_test(test_shards),           cmocka_unit_test(test_copies),
        cmocka_unit_test(test_tables),           cmocka_unit_test(test_many),
        cmocka_unit_test(test_shard_of),         cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_ghosts_and_holds), cmocka_unit_test(test_owners),
        cmocka_unit_test(test_recorded_tables),  cmocka_unit_test(test_ranges_are_split),
        cmocka_unit_test(test_lists_are_split),  cmocka_unit_test(test_recorded_entries),
        cmocka_unit_test(test_postgres_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
