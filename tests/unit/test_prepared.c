/* test_prepared.c: prepared statements by content: one entry for one content, kept for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/names.h"
#include "proxy/prepared.h"

static const uint32_t int4[] = {23}, int8[] = {20};

static void one_content_is_one_entry(void **state)
{
    struct prepared_table table;
    (void)state;
    prepared_table_init(&table);
    struct prepared *a = prepared_get(&table, "SELECT $1", int4, 1);
    struct prepared *b = prepared_get(&table, "SELECT $1", int4, 1);
    struct prepared *other_type = prepared_get(&table, "SELECT $1", int8, 1);
    struct prepared *no_type = prepared_get(&table, "SELECT $1", NULL, 0);
    struct prepared *other_text = prepared_get(&table, "SELECT $1 ", int4, 1);
    assert_ptr_equal(a, b);
    assert_int_equal(a->references, 2);
    assert_ptr_not_equal(a, other_type);
    assert_ptr_not_equal(a, no_type);
    assert_ptr_not_equal(a, other_text);
    assert_string_not_equal(a->server_name, other_type->server_name);
    assert_int_equal(strlen(a->server_name), strlen(other_text->server_name));
    assert_int_equal(a->statements.count, 1);
    prepared_unref(&table, a);
    prepared_unref(&table, b);
    prepared_unref(&table, other_type);
    prepared_unref(&table, no_type);
    prepared_unref(&table, other_text);
    prepared_table_free(&table);
    assert_null(table.entries);
}

static void what_nobody_holds_is_found_again(void **state)
{
    struct prepared_table table;
    (void)state;
    prepared_table_init(&table);
    struct prepared *a = prepared_get(&table, "SELECT 1", NULL, 0);
    a->accepted = 42;
    prepared_unref(&table, a);
    assert_int_equal(table.nunused, 1);
    struct prepared *again = prepared_get(&table, "SELECT 1", NULL, 0);
    assert_ptr_equal(a, again);
    assert_int_equal(again->accepted, 42);
    assert_int_equal(table.nunused, 0);
    prepared_unref(&table, again);
    prepared_table_free(&table);
}

static void unused_entries_are_bounded(void **state)
{
    struct prepared_table table;
    struct prepared *held;
    (void)state;
    prepared_table_init(&table);
    held = prepared_get(&table, "SELECT 'held'", NULL, 0);
    for (int i = 0; i < 3000; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "SELECT %d", i);
        prepared_unref(&table, prepared_get(&table, sql, NULL, 0));
    }
    assert_true(table.nunused > 0 && table.nunused <= 1000);
    assert_int_equal(HASH_COUNT(table.entries), table.nunused + 1);
    prepared_unref(&table, held);
    prepared_table_free(&table);
}

static void large_entries_are_not_kept(void **state)
{
    struct prepared_table table;
    char *sql = malloc(200000);
    (void)state;
    prepared_table_init(&table);
    strcpy(sql, "SELECT '");
    memset(sql + 8, 'x', 199980);
    strcpy(sql + 8 + 199980, "'");
    prepared_unref(&table, prepared_get(&table, sql, NULL, 0));
    assert_int_equal(table.nunused, 0);
    assert_null(table.entries);
    free(sql);
    prepared_table_free(&table);
}

static void names_hold_what_they_stand_for(void **state)
{
    struct prepared_table table;
    struct names names = {.table = &table};
    (void)state;
    prepared_table_init(&table);
    struct prepared *one = prepared_get(&table, "SELECT 1", NULL, 0);
    names_define(&names, "s", one);
    assert_ptr_equal(names_statement(&names, "s"), one);
    names_define(&names, "s", prepared_get(&table, "SELECT 2", NULL, 0));
    assert_int_equal(one->references, 0);
    assert_string_equal(names_statement(&names, "s")->sql, "SELECT 2");
    struct portal *portal = names_open(&names, "p", PORTAL_SERVER, names_statement(&names, "s"));
    names_undefine(&names, "s");
    assert_null(names_statement(&names, "s"));
    assert_string_equal(portal->prepared->sql, "SELECT 2");
    assert_ptr_equal(names_portal(&names, "p"), portal);
    names_close_all(&names);
    assert_null(names_portal(&names, "p"));
    assert_int_equal(table.nunused, 2);
    prepared_table_free(&table);
}

/* Whether all is freed shows under ASan. */
static void portals_bound_again_drop_their_settings(void **state)
{
    struct prepared_table table;
    struct names names = {.table = &table};
    (void)state;
    prepared_table_init(&table);
    names_define(&names, "s", prepared_get(&table, "SELECT set_config('a', 'b', false)", NULL, 0));
    struct prepared *prepared = names_statement(&names, "s");
    struct portal *portal = names_open(&names, "", PORTAL_SERVER, prepared);
    portal->settings = mem_alloc(sizeof *portal->settings);
    assert_ptr_equal(names_open(&names, "", PORTAL_LOCAL, prepared), portal);
    assert_null(portal->settings);
    portal->settings = mem_alloc(sizeof *portal->settings);
    names_close_all(&names);
    names_forget_statements(&names);
    prepared_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_content_is_one_entry),
        cmocka_unit_test(what_nobody_holds_is_found_again),
        cmocka_unit_test(unused_entries_are_bounded),
        cmocka_unit_test(large_entries_are_not_kept),
        cmocka_unit_test(names_hold_what_they_stand_for),
        cmocka_unit_test(portals_bound_again_drop_their_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
