/* test_prepare_text.c: PREPARE and EXECUTE taken apart; values put in place of parameters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "pgshunt/prepare_text.h"

/* "name|arg|arg|tail" of the only statement of `sql`; "?" where it is not followed. */
static const char *taken_apart(const char *sql, struct arena *arena)
{
    static char text[512];
    struct prepare_text parts;
    const struct statement *statement = statement_parse(sql, arena).items[0];
    if (statement->syntax_error || !prepare_text(statement, arena, &parts))
        return "?";
    int n = snprintf(text, sizeof text, "%.*s", (int)(parts.name.end - parts.name.start),
                     statement->text + parts.name.start);
    for (int i = 0; i < parts.nargs; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "|%.*s",
                      (int)(parts.args[i].end - parts.args[i].start),
                      statement->text + parts.args[i].start);
    if (parts.query)
        snprintf(text + n, sizeof text - (size_t)n, "|:%s", parts.query);
    return text;
}

static void statements_are_taken_apart(void **state)
{
    static const char *const cases[][2] = {
        {"PREPARE p AS SELECT 1", "p|: SELECT 1"},
        {"PREPARE p(int) AS SELECT $1", "p|int|: SELECT $1"},
        {"prepare /* c */ \"A b\" (numeric(10, 2), \"char\") as\nSELECT $1",
         "\"A b\"|numeric(10, 2)| \"char\"|:\nSELECT $1"},
        {"PREPARE p (int[], timestamp (3) with time zone) AS VALUES ($1)",
         "p|int[]| timestamp (3) with time zone|: VALUES ($1)"},
        {"PREPARE \"as\" AS SELECT 1 AS \"AS\"", "\"as\"|: SELECT 1 AS \"AS\""},
        {"EXECUTE p", "p"},
        {"EXECUTE p -- (1)", "p"},
        {"EXECUTE p (1, 'a,)', ARRAY[1, 2], (3, 4), f(5, 6)) -- x",
         "p|1| 'a,)'| ARRAY[1, 2]| (3, 4)| f(5, 6)"},
        {"EXECUTE p ($$,($$, \"x,(\" /* ,( */)", "p|$$,($$| \"x,(\" /* ,( */"},
        {"DEALLOCATE p", "p"},
        {"DEALLOCATE PREPARE p", "p"},
        {"DEALLOCATE prepare", "prepare"},
        {"EXECUTE U&\"p\" (1)", "?"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena);
        assert_string_equal(taken_apart(cases[i][0], &arena), cases[i][1]);
        arena_free(&arena);
    }
}

static void values_take_the_place_of_parameters(void **state)
{
    static const char *const types[] = {"int", "text"};
    static const char *const values[] = {"1", "'$1'", "now() -- x"};
    static const char *const cases[][2] = {
        {"SELECT $1, $2, $3", "SELECT (1)::int, ('$1')::text, (now() -- x\n)"},
        {"SELECT $1+$1", "SELECT (1)::int+(1)::int"},
        {"SELECT '$1', \"$1\", $$ $1 $$, a$1 -- $1\n, /* $2 */ $2",
         "SELECT '$1', \"$1\", $$ $1 $$, a$1 -- $1\n, /* $2 */ ('$1')::text"},
        {"SELECT $4, $0, $10", "SELECT $4, $0, $10"},
        {"SELECT 1", "SELECT 1"},
        {"", ""},
        {"$", "$"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena;
        arena_init(&arena);
        assert_string_equal(prepare_substitute(cases[i][0], types, 2, values, 3, &arena),
                            cases[i][1]);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statements_are_taken_apart),
        cmocka_unit_test(values_take_the_place_of_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
