/* test_shape.c: a tree taken by shape is the tree that parsing the text gives, whatever the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pgshunt/shape.h"
#include "statement_dump.h"

#include "parse_cases.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* All of a statement that does not depend on where things stand in the text. */
static char *describe(const struct statement *s)
{
    struct buffer out = {0};
    buffer_printf(&out, "%s %u %s [%s] %d ", statement_kind_name(s->kind), s->facts, s->tag,
                  s->text, s->length);
    for (int i = 0; i < s->nrelations; i++)
        buffer_printf(&out, "%s ", s->relations[i].name);
    for (int i = 0; i < s->nfunctions; i++)
        buffer_printf(&out, "%s/%d ", s->functions[i].name, s->functions[i].nargs);
    if (s->query)
        dump_query(&out, s->query);
    buffer_append(&out, "", 1);
    char *text = strdup(buffer_head(&out));
    buffer_release(&out);
    return text;
}

/* Takes the text's tree and holds it against a fresh one. False: the shape is not recognised (yet). */
static bool take_and_compare(struct shape_table *table, const char *sql)
{
    struct shape *shape = shape_take(table, sql, strlen(sql));
    if (!shape)
        return false;
    struct arena arena;
    arena_init(&arena);
    struct statement_list fresh = statement_parse(sql, &arena);
    assert_int_equal(fresh.count, 1);
    assert_int_equal(shape->list.count, 1);
    char *got = describe(shape->list.items[0]), *wanted = describe(fresh.items[0]);
    assert_string_equal(got, wanted);
    free(got);
    free(wanted);
    arena_free(&arena);
    shape_give(table, shape);
    return true;
}

/* Other digits and letters where there are some: often, but not always, a text of the same shape. */
static char *vary(const char *sql, int turn)
{
    char *text = strdup(sql);
    for (char *p = text; *p; p++) {
        if (*p >= '1' && *p <= '9')
            *p = (char)('1' + (*p - '1' + turn) % 9);
    }
    return text;
}

static void test_any_text_gives_its_own_tree(void **state)
{
    (void)state;
    struct shape_table *table = shapes_create(7);
    int recognised = 0;
    for (size_t i = 0; i < COUNT(tree_cases); i++) {
        for (int turn = 0; turn < 4; turn++) {
            char *text = vary(tree_cases[i].sql, turn);
            recognised += take_and_compare(table, text);
            free(text);
        }
        recognised += take_and_compare(table, tree_cases[i].sql);
    }
    assert_true(recognised > 20);
    shapes_free(table);
}

/* Three texts each: once met, twice met and kept, then taken with other literals. */
static void test_shapes_recognised(void **state)
{
    static const char *const cases[][2] = {
        {"SELECT abalance FROM pgbench_accounts WHERE aid = 1;",
         "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"},
        {"SELECT 1", "SELECT 123456789"},
        {"SELECT 'a'",
         "SELECT 'a much longer text, \xc3\xa4\xc3\xb6, with -- and /* and \"in\" it'"},
        {"SELECT ''", "SELECT 'x'"},
        {"UPDATE a SET b = b + -5 WHERE c = 1", "UPDATE a SET b = b + -6000 WHERE c = 0"},
        {"UPDATE a SET b = b - 5 WHERE c = - 1", "UPDATE a SET b = b - 0 WHERE c = - 0"},
        {"SELECT 007", "SELECT 000"},
        {"INSERT INTO t (a, b) VALUES (1, 'x'), (2, 'y') RETURNING id",
         "INSERT INTO t (a, b) VALUES (10, 'xx'), (20, '') RETURNING id"},
        {"  SELECT a FROM t WHERE b = 'x' LIMIT 5 OFFSET 10 ; ",
         "  SELECT a FROM t WHERE b = 'yy' LIMIT 50 OFFSET 1 ; "},
        {"SELECT * FROM t WHERE a IN (1,2) AND \"strange \"\"name\" = 'x'",
         "SELECT * FROM t WHERE a IN (3,44) AND \"strange \"\"name\" = 'y'"},
        {"SELECT x[1:2] FROM t WHERE d = '2020-01-01'::date AND f > 1.5",
         "SELECT x[3:4] FROM t WHERE d = '2021-01-01'::date AND f > 1.5"},
        {"SELECT 5-3, 5 - -3, 2*-1", "SELECT 4-1, 8 - -9, 3*-7"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct shape_table *table = shapes_create(i);
        assert_false(take_and_compare(table, cases[i][0]));
        assert_true(take_and_compare(table, cases[i][0]));
        assert_true(take_and_compare(table, cases[i][1]));
        assert_true(take_and_compare(table, cases[i][0]));
        shapes_free(table);
    }
}

static void test_left_to_the_parser(void **state)
{
    /* More than a text may have literals. */
    static const char many_marks[] =
        "SELECT \"\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\"";
    static const char *const cases[] = {
        "",
        ";",
        "SELECT $1",
        "SELECT 1; SELECT 2",
        "SELECT 1 -- note",
        "/* pgshunt: primary */ SELECT 1",
        "SELECT E'a'",
        "SELECT 'it''s'",
        "SELECT 'a\\b'",
        "SELECT 'a'\n'b'",
        "SELECT U&'a'",
        "SELECT $$a$$",
        "SELECT B'101'",
        "SELECT 1e5",
        "SELECT 1e-5",
        "SELECT 0x1F",
        "SELECT a::varchar(5) FROM t",
        "SELECT numeric(10, 2) '1'",
        "SET work_mem = 5",
        "BEGIN",
        "CREATE TABLE t (a varchar(5))",
        "EXPLAIN SELECT 5",
        "SELEC 5",
        "SELECT 'open",
        "SELECT \"open",
        "SELECT 1 AS \"a\x01\x02\"",
        many_marks,
        "SELECT 1 INTO t",
    };
    (void)state;
    struct shape_table *table = shapes_create(3);
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (int round = 0; round < 3; round++)
            if (take_and_compare(table, cases[i]))
                fail_msg("recognised: %s", cases[i]);
    }
    shapes_free(table);
}

/* A number too wide for the grammar's int is another kind of constant: its digits are of the shape. */
static void test_wide_numbers_are_their_own_shape(void **state)
{
    (void)state;
    struct shape_table *table = shapes_create(3);
    for (int round = 0; round < 3; round++)
        take_and_compare(table, "SELECT 5");
    assert_false(take_and_compare(table, "SELECT 5000000000"));
    assert_true(take_and_compare(table, "SELECT 5000000000"));
    assert_false(take_and_compare(table, "SELECT 6000000000"));
    shapes_free(table);
}

/* Who holds a tree keeps it as it is, however many others take one of the shape, and beyond eviction. */
static void test_trees_are_held_alone(void **state)
{
    struct shape *held[40];
    char sql[100];
    (void)state;
    struct shape_table *table = shapes_create(9);
    assert_null(shape_take(table, "SELECT 1", 8));
    for (int i = 0; i < 40; i++) {
        snprintf(sql, sizeof sql, "SELECT %d", i);
        held[i] = shape_take(table, sql, strlen(sql));
        assert_non_null(held[i]);
    }
    for (int i = 0; i < 2000; i++) {
        snprintf(sql, sizeof sql, "SELECT c%d", i / 2);
        take_and_compare(table, sql);
    }
    for (int i = 0; i < 40; i++) {
        const struct query *query = held[i]->list.items[0]->query;
        assert_int_equal(query->targets[0].expr->number, i);
        shape_give(table, held[i]);
    }
    shapes_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_text_gives_its_own_tree),
        cmocka_unit_test(test_shapes_recognised),
        cmocka_unit_test(test_left_to_the_parser),
        cmocka_unit_test(test_wide_numbers_are_their_own_shape),
        cmocka_unit_test(test_trees_are_held_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
