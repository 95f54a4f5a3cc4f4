/* test_set_config.c: what calls of set_config() are known to set. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "proxy/set_config.h"

struct config_case {
    const char *sql;
    bool known;
    const char *changes; /* as SQL */
};

/* $1 is 'work_mem', $2 '5MB', $3 true, $4 NULL. */
static const struct config_case cases[] = {
    {"SELECT 1", true, ""},
    {"SELECT set_config('work_mem', '1MB', false)", true, "SET work_mem TO '1MB';"},
    {"SELECT set_config('Work_Mem', '1MB', true)", true, "SET LOCAL work_mem TO '1MB';"},
    {"SELECT pg_catalog.set_config('a.b', 'it''s', 'off'), 2", true, "SET \"a\".\"b\" TO 'it''s';"},
    {"SELECT set_config('a.b', 'x'::text, false), set_config('a.c', NULL, false)", true,
     "SET \"a\".\"b\" TO 'x';RESET \"a\".\"c\";"},
    {"SELECT set_config($1, $2, $3)", true, "SET LOCAL work_mem TO '5MB';"},
    {"SELECT set_config($1, $4, false)", true, "RESET work_mem;"},
    {"SELECT set_config('search_path', 'a, \"B\"', false)", true,
     "SELECT pg_catalog.set_config('search_path','a, \"B\"',false);"},
    {"SELECT set_config('a.b', 'x' || 'y', true)", true, ""}, /* ends with the transaction */
    {"SELECT set_config('a.b', 'x' || 'y', false)", false, ""},
    {"SELECT set_config('a.b', 'x', random() > 1)", false, ""},
    {"SELECT set_config($5, 'x', false)", false, ""},
    {"SELECT length(set_config('a.b', 'x', false))", false, ""},
    {"SELECT 1 WHERE set_config('a.b', 'x', false) = 'x'", false, ""},
    {"INSERT INTO t SELECT set_config('a.b', 'x', false)", false, ""},
    {"SELECT set_config(4, 5, false)", true, "SET \"4\" TO '5';"},
};

static void finds_what_is_set(void **state)
{
    const struct param items[] = {{.bytes = "work_mem", .length = 8},
                                  {.bytes = "5MB", .length = 3, .binary = true, .type_oid = 25},
                                  {.bytes = "\1", .length = 1, .binary = true, .type_oid = 16},
                                  {.bytes = NULL}};
    const struct params params = {items, 4};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        struct guc_pending changes = {0};
        struct buffer sql = {0};
        arena_init(&arena);
        struct statement_list list = statement_parse(cases[i].sql, &arena);
        assert_int_equal(list.count, 1);
        bool known = set_config_changes(list.items[0], &params, &changes);
        guc_pending_sql(&changes, 0, changes.count, &sql);
        buffer_append(&sql, "", 1);
        if (known != cases[i].known || (known && strcmp(buffer_head(&sql), cases[i].changes) != 0))
            fail_msg("%s: %s, %s", cases[i].sql, known ? "known" : "unknown", buffer_head(&sql));
        buffer_release(&sql);
        guc_pending_free(&changes);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_what_is_set)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
