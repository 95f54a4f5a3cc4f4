/* test_move.c: rows find the move of their bucket, from texts and binary values; names of jobs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "resharder/job.h"
#include "resharder/move.h"
#include "shardkey_vectors.h"

static const char *names[] = {"s0", "s1", "s2"};

static struct shardmap *make_map(void)
{
    static const unsigned weights[] = {1, 1, 0};
    struct shardmap_builder builder = {names, weights, 3};
    struct shardmap *map = shardmap_new(&builder);
    shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_keyspace(map, "teams", KEY_UUID, HASH_XXH64);
    shardmap_add_keyspace(map, "pages", KEY_TEXT, HASH_XXH64);
    return map;
}

static void test_find(void **state)
{
    (void)state;
    struct shardmap *map = make_map();
    const struct keyspace *users = shardmap_keyspace(map, 0), *teams = shardmap_keyspace(map, 1);
    struct move items[] = {{users, 0, 99, 0, 2},
                           {users, 8192, 8192, 1, 2},
                           {teams, 0, 99, 0, 1},
                           {users, 100, 100, 0, 2}};
    struct moves moves = {.map = map, .items = items, .count = 4};
    assert_ptr_equal(moves_find(&moves, users, 0), &items[0]);
    assert_ptr_equal(moves_find(&moves, users, 99), &items[0]);
    assert_ptr_equal(moves_find(&moves, users, 100), &items[3]);
    assert_null(moves_find(&moves, users, 101));
    assert_ptr_equal(moves_find(&moves, users, 8192), &items[1]);
    assert_ptr_equal(moves_find(&moves, teams, 5), &items[2]);
    assert_null(moves_find(&moves, teams, 8192));
    assert_true(moves_touch(&moves, users, 0, 2));
    assert_false(moves_touch(&moves, users, 2, 0));
    assert_false(moves_touch(&moves, teams, 0, 2));

    struct arena arena;
    int count;
    arena_init(&arena);
    const struct link *links = moves_links(&moves, &arena, &count);
    assert_int_equal(count, 3);
    assert_int_equal(links[0].source, 0);
    assert_int_equal(links[0].target, 2);
    assert_int_equal(links[1].source, 1);
    assert_int_equal(links[2].target, 1);

    struct shardmap *after = make_map();
    struct moves back = moves_reversed(&moves, after, &arena);
    assert_int_equal(back.count, 4);
    assert_int_equal(back.items[0].source, 2);
    assert_int_equal(back.items[0].target, 0);
    assert_ptr_equal(back.items[0].keyspace, shardmap_keyspace(after, 0));
    assert_ptr_equal(back.items[2].keyspace, shardmap_keyspace(after, 1));
    arena_free(&arena);
    shardmap_free(after);
    shardmap_free(map);
}

static size_t from_hex(const char *hex, char *out)
{
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++)
        sscanf(hex + 2 * i, "%2hhx", (unsigned char *)&out[i]);
    return length;
}

/* Every vector, as the text and as the binary value that a replication tuple has. */
static void test_buckets(void **state)
{
    (void)state;
    struct shardmap *map = make_map();
    static const uint32_t oids[] = {[KEY_BIGINT] = 20, [KEY_UUID] = 2950, [KEY_TEXT] = 25};
    for (size_t i = 0; i < sizeof shardkey_vectors / sizeof *shardkey_vectors; i++) {
        const struct shardkey_vector *vector = &shardkey_vectors[i];
        const struct keyspace *keyspace = shardmap_keyspace(map, (unsigned)vector->type);
        char binary[1024];
        unsigned bucket;
        assert_in_range(strlen(vector->canonical) / 2, 0, sizeof binary);
        struct move_value text = {vector->text, strlen(vector->text), false};
        struct move_value bytes = {binary, from_hex(vector->canonical, binary), true};
        assert_true(move_bucket(keyspace, &text, &oids[vector->type], &bucket));
        assert_int_equal(bucket, vector->bucket);
        assert_true(move_bucket(keyspace, &bytes, &oids[vector->type], &bucket));
        assert_int_equal(bucket, vector->bucket);
    }
    struct move_value null = {.bytes = NULL}, wrong = {"a", 1, false},
                      shorter = {"\0\0\1", 3, true};
    unsigned bucket;
    assert_false(move_bucket(shardmap_keyspace(map, 0), &null, oids, &bucket));
    assert_false(move_bucket(shardmap_keyspace(map, 0), &wrong, oids, &bucket));
    assert_false(move_bucket(shardmap_keyspace(map, 0), &shorter, oids, &bucket));
    shardmap_free(map);
}

static void test_names(void **state)
{
    (void)state;
    assert_true(job_name_is_valid("grow"));
    assert_true(job_name_is_valid("a"));
    assert_true(job_name_is_valid("a_2026_11"));
    assert_true(job_name_is_valid("abcdefghijklmnopqrstu"));
    assert_false(job_name_is_valid("abcdefghijklmnopqrstuv"));
    assert_false(job_name_is_valid(""));
    assert_false(job_name_is_valid("2x"));
    assert_false(job_name_is_valid("_x"));
    assert_false(job_name_is_valid("Grow"));
    assert_false(job_name_is_valid("a-b"));
    assert_false(job_name_is_valid("a'b"));
}

/* Tables that enter a keyspace move alone, and hide from statements without a key at their home only. */
static void test_tables(void **state)
{
    (void)state;
    struct shardmap *map = make_map();
    const struct keyspace *users = shardmap_keyspace(map, 0);
    const char *const column[] = {"user_id"};
    const struct catalog_rule rules[] = {{"public.orders", users->name, column, 1}};
    struct move items[] = {{users, 0, 99, 0, 2}};
    struct moves moves = {.map = map, .items = items, .count = 1};
    shardmap_set_table(map, "public.orders", 0, column, 1);
    shardmap_set_table(map, "items", 0, column, 1);
    const struct table_rule *orders = shardmap_table(map, "public", "orders"),
                            *others = shardmap_table(map, "public", "items"),
                            *none = shardmap_table(map, "public", "plain");
    assert_true(moves_table(&moves, orders));
    assert_true(moves_table(&moves, others));
    assert_false(moves_table(&moves, none));
    assert_true(moves_hide(&moves, 2));
    moves.tables = rules;
    moves.ntables = 1;
    assert_true(moves_table(&moves, orders));
    assert_false(moves_table(&moves, others));
    assert_true(moves_hide(&moves, 0));
    assert_false(moves_hide(&moves, 2));
    struct arena arena;
    arena_init(&arena);
    struct moves back = moves_reversed(&moves, map, &arena);
    assert_int_equal(back.items[0].source, 2);
    assert_true(moves_hide(&back, 0));
    assert_false(moves_table(&back, others));
    arena_free(&arena);
    shardmap_free(map);
}

/* Who has no other bucket than those that move is not asked without a key while it has ghosts. */
static void test_keys(void **state)
{
    (void)state;
    struct shardmap *map = make_map();
    const struct keyspace *users = shardmap_keyspace(map, 0);
    struct arena arena;
    arena_init(&arena);
    struct move items[3] = {0};
    int count = 0;
    for (unsigned b = 0; b < users->nbuckets && count < 2; b++)
        if (users->bucket_shard[b] == 0)
            items[count++] = (struct move){users, b, b, 0, 1};
    struct moves some = {.map = map, .items = items, .count = count};
    assert_true(moves_need_keys(&some, users, 0));
    assert_true(moves_need_keys(&some, users, 1));
    assert_false(moves_need_keys(&some, users, 2)); /* it has nothing to do with it */
    struct move *whole = arena_array(&arena, struct move, (int)users->nbuckets + 1);
    int n = 0;
    for (unsigned b = 0; b < users->nbuckets; b++)
        if (users->bucket_shard[b] == 0)
            whole[n++] = (struct move){users, b, b, 0, 1};
    struct moves all = {.map = map, .items = whole, .count = n};
    assert_false(moves_need_keys(&all, users, 0));
    assert_true(moves_need_keys(&all, users, 1));
    struct moves back = moves_reversed(&all, map, &arena);
    assert_false(moves_need_keys(&back, users, 0));
    /* All leave, and others come: it is asked before and behind the switch. */
    for (unsigned b = 0; b < users->nbuckets && n == all.count; b++)
        if (users->bucket_shard[b] == 1)
            whole[n++] = (struct move){users, b, b, 1, 0};
    all.count = n;
    assert_true(moves_need_keys(&all, users, 0));
    arena_free(&arena);
    shardmap_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),    cmocka_unit_test(test_tables), cmocka_unit_test(test_find),
        cmocka_unit_test(test_buckets), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
