/* test_marks.c: what a server connection has prepared: the least recently used goes first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "proxy/marks.h"

enum { STATEMENTS = 6 };

static struct prepared statements[STATEMENTS];

static int fill(void **state)
{
    static struct marks marks;
    marks_init(&marks);
    for (int i = 0; i < STATEMENTS; i++) {
        statements[i] = (struct prepared){.key = {(uint64_t)i + 1, 7}};
        marks_add(&marks, &statements[i], 0);
    }
    *state = &marks;
    return 0;
}

static int empty(void **state)
{
    marks_clear(*state);
    return 0;
}

static uint64_t surplus(struct marks *marks, int limit)
{
    const struct mark *mark = marks_surplus(marks, limit);
    return mark ? mark->key.low : 0;
}

static void the_least_recently_used_goes(void **state)
{
    struct marks *marks = *state;
    assert_int_equal(marks->count, STATEMENTS);
    assert_int_equal(surplus(marks, STATEMENTS), 0);
    assert_int_equal(surplus(marks, STATEMENTS - 1), 1);
    marks_use(marks, &statements[0]);
    marks_use(marks, &statements[2]);
    static const uint64_t order[] = {2, 4, 5, 6, 1, 3};
    for (int i = 0; i < STATEMENTS; i++) {
        const struct prepared_key key = {order[i], 7};
        assert_int_equal(surplus(marks, 0), order[i]);
        marks_closing(marks, &key);
        marks_closed(marks, &key);
    }
    assert_int_equal(surplus(marks, 0), 0);
    assert_int_equal(marks->count, 0);
    assert_null(marks->entries);
}

static void a_close_under_way_is_not_there(void **state)
{
    struct marks *marks = *state;
    marks_closing(marks, &statements[1].key);
    assert_int_equal(marks_look(marks, &statements[1], 0), MARK_NONE);
    assert_int_equal(marks->count, STATEMENTS - 1);
    marks_closing(marks, &statements[1].key); /* twice is once */
    assert_int_equal(marks->count, STATEMENTS - 1);
    marks_use(marks, &statements[1]); /* does not bring it back */
    assert_int_equal(surplus(marks, 0), 1);
    marks_closed(marks, &statements[1].key);
    marks_closed(marks, &statements[1].key);
    assert_int_equal(marks->count, STATEMENTS - 1);
}

static void a_close_skipped_leaves_it_there(void **state)
{
    struct marks *marks = *state;
    marks_closing(marks, &statements[3].key);
    marks_kept(marks, &statements[3].key);
    assert_int_equal(marks_look(marks, &statements[3], 0), MARK_HELD);
    assert_int_equal(marks->count, STATEMENTS);
    marks_kept(marks, &statements[3].key);
    assert_int_equal(marks->count, STATEMENTS);
    marks_closed(marks, &statements[3].key); /* no Close is under way: it stays */
    assert_int_equal(marks_look(marks, &statements[3], 0), MARK_HELD);
}

static void a_close_and_a_parse_behind_it(void **state)
{
    struct marks *marks = *state;
    statements[2].generation++;
    assert_int_equal(marks_look(marks, &statements[2], 0), MARK_STALE);
    marks_closing(marks, &statements[2].key);
    marks_closed(marks, &statements[2].key);
    marks_add(marks, &statements[2], 0);
    assert_int_equal(marks_look(marks, &statements[2], 0), MARK_HELD);
    assert_int_equal(marks->count, STATEMENTS);
}

static void another_search_path_makes_it_stale(void **state)
{
    struct marks *marks = *state;
    assert_int_equal(marks_look(marks, &statements[4], 99), MARK_STALE);
    marks_add(marks, &statements[4], 99);
    assert_int_equal(marks_look(marks, &statements[4], 99), MARK_HELD);
    assert_int_equal(marks_look(marks, &statements[4], 0), MARK_STALE);
    assert_int_equal(marks->count, STATEMENTS);
}

static void what_was_never_there(void **state)
{
    struct marks *marks = *state;
    struct prepared stranger = {.key = {99, 99}};
    assert_int_equal(marks_look(marks, &stranger, 0), MARK_NONE);
    marks_use(marks, &stranger);
    marks_closing(marks, &stranger.key);
    marks_kept(marks, &stranger.key);
    marks_closed(marks, &stranger.key);
    assert_int_equal(marks->count, STATEMENTS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fill, empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_least_recently_used_goes),       TEST(a_close_under_way_is_not_there),
        TEST(a_close_skipped_leaves_it_there),    TEST(a_close_and_a_parse_behind_it),
        TEST(another_search_path_makes_it_stale), TEST(what_was_never_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
