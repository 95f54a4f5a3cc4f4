/* test_guc.c: session settings: what makes one set of them into another, and transactions' own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "proxy/guc.h"

static void expect_difference(const struct guc_set *from, const struct guc_set *to,
                              const char *expected)
{
    struct buffer sql = {0};
    guc_difference(from, to, &sql);
    buffer_append(&sql, "", 1);
    assert_string_equal(buffer_head(&sql), expected);
    buffer_release(&sql);
}

static void difference_sets_and_resets(void **state)
{
    struct guc_set *a = NULL, *b = NULL;
    (void)state;
    guc_set_put(&a, "timezone", "'UTC'");
    guc_set_put(&a, "work_mem", "'4MB'");
    guc_set_put(&b, "work_mem", "'8MB'");
    guc_set_put(&b, "role", "'app'");
    expect_difference(a, a, "");
    expect_difference(a, b, "RESET timezone;SET work_mem TO '8MB';SET role TO 'app';");
    guc_set_release(&a);
    guc_set_release(&b);
}

static void equal_sets_have_equal_hashes(void **state)
{
    struct guc_set *a = NULL, *b = NULL;
    (void)state;
    guc_set_put(&a, "x", "1");
    guc_set_put(&a, "y", "2");
    guc_set_put(&b, "y", "2");
    assert_false(a == b);
    guc_set_put(&b, "x", "3");
    assert_false(a == b);
    guc_set_put(&b, "x", "1");
    assert_true(a == b);
    guc_set_put(&a, "x", NULL);
    guc_set_put(&a, "y", NULL);
    assert_null(a);
    guc_set_release(&a);
    guc_set_release(&b);
}

static void startup_text_is_quoted(void **state)
{
    struct guc_set *set = NULL, *none = NULL;
    (void)state;
    guc_set_put_text(&set, "application_name", "it's; DROP TABLE x");
    expect_difference(none, set, "SET application_name TO 'it''s; DROP TABLE x';");
    guc_set_release(&set);
    guc_set_put_text(&set, "datestyle", "back\\slash'");
    expect_difference(none, set, "SET datestyle TO  E'back\\\\slash''';");
    guc_set_release(&set);
    guc_set_put_text(&set, "search_path", "a, b");
    expect_difference(none, set, "SELECT pg_catalog.set_config('search_path','a, b',false);");
    guc_set_release(&set);
    guc_set_put_text(&set, "My\"Odd", "1");
    expect_difference(none, set, "SET \"My\"\"Odd\" TO '1';");
    guc_set_release(&set);
}

static void pending_settings_follow_the_transaction(void **state)
{
    struct guc_set *set = NULL;
    struct guc_pending pending = {0};
    (void)state;
    guc_set_put(&set, "a", "1");
    guc_pending_add(&pending, false, "a", "2");
    guc_pending_add(&pending, false, "b", "3");
    guc_pending_add(&pending, false, "c", "4");
    guc_pending_truncate(&pending, 2); /* rolled back to a savepoint */
    guc_pending_apply(&pending, NULL, &set);
    assert_string_equal(guc_set_get(set, "a"), "2");
    assert_string_equal(guc_set_get(set, "b"), "3");
    assert_null(guc_set_get(set, "c"));
    guc_pending_add_kind(&pending, GUC_RESET_ALL);
    guc_pending_apply(&pending, NULL, &set);
    assert_null(set);
    guc_pending_free(&pending);
    guc_set_release(&set);
}

static void copies_are_independent(void **state)
{
    struct guc_set *a = NULL, *b = NULL;
    (void)state;
    for (int i = 0; i < 40; i++) {
        char name[8] = {'n', (char)('a' + i % 26), (char)('a' + i / 26), 0};
        guc_set_put(&a, name, "1");
    }
    guc_set_assign(&b, a);
    assert_true(a == b);
    guc_set_release(&a);
    assert_int_equal(b->count, 40);
    expect_difference(b, b, "");
    guc_set_release(&a);
    guc_set_release(&b);
}

static void roles_come_last_and_are_left_first(void **state)
{
    struct guc_set *a = NULL, *b = NULL;
    struct guc_pending pending = {0};
    (void)state;
    guc_set_put(&a, "role", "'r'");
    guc_set_put(&a, "session_authorization", "'s'");
    expect_difference(NULL, a, "SET session_authorization TO 's';SET role TO 'r';");
    expect_difference(a, NULL, "RESET SESSION AUTHORIZATION;");
    guc_set_assign(&b, a);
    guc_set_put(&b, "work_mem", "1");
    expect_difference(
        a, b,
        "RESET SESSION AUTHORIZATION;SET work_mem TO 1;SET session_authorization TO 's';"
        "SET role TO 'r';");
    guc_set_put(&b, "session_authorization", NULL);
    guc_set_put(&b, "work_mem", NULL);
    expect_difference(b, a, "RESET ROLE;SET session_authorization TO 's';SET role TO 'r';");
    guc_pending_add(&pending, false, "session_authorization", "'t'"); /* forgets the role */
    guc_pending_add_kind(&pending, GUC_RESET_ALL);                    /* leaves both alone */
    guc_pending_apply(&pending, NULL, &a);
    expect_difference(NULL, a, "SET session_authorization TO 't';");
    guc_pending_free(&pending);
    guc_set_release(&a);
    guc_set_release(&b);
}

static void local_changes_end_with_the_transaction(void **state)
{
    struct guc_set *startup = NULL, *set = NULL;
    struct guc_pending pending = {0};
    struct buffer sql = {0};
    (void)state;
    guc_set_put(&startup, "a", "0");
    guc_pending_add(&pending, true, "a", "1");
    guc_pending_add(&pending, false, "a", "2");
    guc_pending_add(&pending, true, "b", NULL);
    guc_pending_add(&pending, false, "transaction_read_only", "'on'");
    guc_pending_sql(&pending, 0, pending.count, &sql);
    buffer_append(&sql, "", 1);
    assert_string_equal(buffer_head(&sql), "SET LOCAL a TO 1;SET a TO 2;SET LOCAL b TO DEFAULT;"
                                           "SET LOCAL transaction_read_only TO 'on';");
    guc_pending_apply(&pending, startup, &set);
    expect_difference(NULL, set, "SET a TO 2;");
    guc_pending_add(&pending, false, "a", NULL);
    guc_pending_apply(&pending, startup, &set);
    assert_true(set == startup);
    guc_pending_free(&pending);
    buffer_release(&sql);
    guc_set_release(&set);
    guc_set_release(&startup);
}

static void nothing_is_left(void **state)
{
    (void)state;
    assert_int_equal(guc_sets_alive(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(difference_sets_and_resets),
        cmocka_unit_test(equal_sets_have_equal_hashes),
        cmocka_unit_test(startup_text_is_quoted),
        cmocka_unit_test(pending_settings_follow_the_transaction),
        cmocka_unit_test(copies_are_independent),
        cmocka_unit_test(roles_come_last_and_are_left_first),
        cmocka_unit_test(local_changes_end_with_the_transaction),
        cmocka_unit_test(nothing_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
