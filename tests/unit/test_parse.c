/* test_parse.c: what statement_parse makes of SQL: trees, facts, texts, settings, hints, hostile input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "statement_dump.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Parses one statement that must be understood. */
static struct statement *parse_one(const char *sql, struct arena *arena)
{
    struct statement_list list = statement_parse(sql, arena);
    assert_int_equal(list.count, 1);
    if (list.items[0]->syntax_error)
        print_error("not understood: %s\n", sql);
    assert_false(list.items[0]->syntax_error);
    return list.items[0];
}

#include "parse_cases.h"

static void test_trees(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < COUNT(tree_cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct statement *statement = parse_one(tree_cases[i].sql, &arena);
        struct buffer out = {0};
        const struct query *query = statement->query ? statement->query : statement->inner->query;
        dump_query(&out, query);
        buffer_append(&out, "", 1);
        if (strcmp(buffer_head(&out), tree_cases[i].tree) != 0) {
            print_error("%s\n   got %s\n  want %s\n", tree_cases[i].sql, buffer_head(&out),
                        tree_cases[i].tree);
            bad++;
        }
        buffer_release(&out);
        arena_free(&arena);
    }
    assert_int_equal(bad, 0);
}

/* ---- kinds, names, values, flags ---- */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static void test_kinds(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < COUNT(kind_cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct statement *s = parse_one(kind_cases[i].sql, &arena);
        if (s->kind != kind_cases[i].kind || !same_text(s->tag, kind_cases[i].tag) ||
            !same_text(s->name, kind_cases[i].name) || !same_text(s->value, kind_cases[i].value)) {
            print_error("%s: kind %s tag %s name %s value %s\n", kind_cases[i].sql,
                        statement_kind_name(s->kind), s->tag, s->name ? s->name : "-",
                        s->value ? s->value : "-");
            bad++;
        }
        arena_free(&arena);
    }
    assert_int_equal(bad, 0);
}

static void test_transaction_options(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *options;
        bool read_only, read_write, session;
    } cases[] = {
        {"BEGIN", "", false, false, false},
        {"BEGIN READ ONLY", "READ ONLY", true, false, false},
        {"BEGIN READ ONLY, READ WRITE", "READ ONLY READ WRITE", false, true, false},
        {"START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
         "ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", true, false, false},
        {"BEGIN ISOLATION LEVEL REPEATABLE READ NOT DEFERRABLE",
         "ISOLATION LEVEL REPEATABLE READ NOT DEFERRABLE", false, false, false},
        {"SET TRANSACTION READ WRITE", "READ WRITE", false, true, false},
        {"SET LOCAL TRANSACTION READ ONLY", "READ ONLY", true, false, false},
        {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "READ ONLY", true, false, true},
        {"SET TRANSACTION SNAPSHOT 'x'", "", false, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct statement *s = parse_one(cases[i].sql, &arena);
        assert_string_equal(s->begin_options, cases[i].options);
        assert_int_equal(s->tx_read_only, cases[i].read_only);
        assert_int_equal(s->tx_read_write, cases[i].read_write);
        assert_int_equal(s->session_characteristics, cases[i].session);
        arena_free(&arena);
    }
}

static void test_flags(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    assert_true(parse_one("SET LOCAL a = 1", &arena)->is_local);
    assert_false(parse_one("SET SESSION a = 1", &arena)->is_local);
    assert_true(parse_one("COMMIT AND CHAIN", &arena)->chain);
    assert_false(parse_one("COMMIT AND NO CHAIN", &arena)->chain);
    assert_true(parse_one("ROLLBACK AND CHAIN", &arena)->chain);
    assert_true(parse_one("EXPLAIN ANALYZE SELECT 1", &arena)->explain_analyze);
    assert_true(parse_one("EXPLAIN (COSTS off, ANALYZE) SELECT 1", &arena)->explain_analyze);
    assert_true(parse_one("EXPLAIN (ANALYZE 1) SELECT 1", &arena)->explain_analyze);
    assert_true(parse_one("EXPLAIN (ANALYZE maybe) SELECT 1", &arena)->explain_analyze);
    assert_false(parse_one("EXPLAIN (ANALYZE false) SELECT 1", &arena)->explain_analyze);
    assert_false(parse_one("EXPLAIN (ANALYZE 0, VERBOSE) SELECT 1", &arena)->explain_analyze);
    assert_false(parse_one("EXPLAIN (ANALYZE, ANALYZE OFF) SELECT 1", &arena)->explain_analyze);
    assert_false(parse_one("EXPLAIN VERBOSE SELECT 1", &arena)->explain_analyze);
    assert_true(parse_one("DECLARE c CURSOR WITH HOLD FOR SELECT 1", &arena)->cursor_hold);
    assert_false(parse_one("DECLARE c CURSOR FOR SELECT 1", &arena)->cursor_hold);
    assert_true(parse_one("DECLARE c BINARY CURSOR FOR SELECT 1", &arena)->cursor_binary);
    assert_true(parse_one("DECLARE c SCROLL CURSOR FOR SELECT 1", &arena)->cursor_scroll);
    assert_false(parse_one("DECLARE c NO SCROLL CURSOR FOR SELECT 1", &arena)->cursor_scroll);
    assert_int_equal(parse_one("FETCH c", &arena)->fetch_rows, 1);
    assert_int_equal(parse_one("FETCH FORWARD 7 FROM c", &arena)->fetch_rows, 7);
    assert_int_equal(parse_one("MOVE ALL IN c", &arena)->fetch_rows, INT64_MAX);
    assert_int_equal(parse_one("FETCH -1 FROM c", &arena)->fetch_rows, -1);
    assert_int_equal(parse_one("FETCH 0 FROM c", &arena)->fetch_rows, -1);
    assert_int_equal(parse_one("FETCH RELATIVE 1 FROM c", &arena)->fetch_rows, -1);
    assert_int_equal(parse_one("FETCH FIRST FROM c", &arena)->fetch_rows, -1);
    assert_true(parse_one("CREATE TEMP TABLE t (a int)", &arena)->create_temp);
    assert_true(parse_one("CREATE TEMP TABLE t AS SELECT 1", &arena)->create_temp);
    assert_true(parse_one("SELECT 1 INTO TEMP t", &arena)->create_temp);
    assert_true(parse_one("CREATE TEMP VIEW v AS SELECT 1", &arena)->create_temp);
    assert_true(parse_one("CREATE TEMP SEQUENCE s", &arena)->create_temp);
    assert_true(parse_one("CREATE UNLOGGED TABLE t (a int)", &arena)->create_unlogged);
    assert_false(parse_one("CREATE TABLE t (a int)", &arena)->create_temp);
    assert_true(parse_one("COPY t TO STDOUT", &arena)->copy_stdio);
    assert_false(parse_one("COPY t TO '/tmp/x'", &arena)->copy_stdio);
    assert_false(parse_one("COPY t FROM PROGRAM 'x'", &arena)->copy_stdio);
    struct statement *copy = parse_one("COPY s.t (b, \"A\") FROM STDIN (FORMAT csv)", &arena);
    assert_int_equal(copy->ncopy_columns, 2);
    assert_string_equal(copy->copy_columns[0], "b");
    assert_string_equal(copy->copy_columns[1], "A");
    arena_free(&arena);
}

/* ---- facts ---- */

static void dump_facts(const struct statement *s, struct buffer *relations,
                       struct buffer *functions)
{
    for (int i = 0; i < s->nrelations; i++)
        buffer_printf(relations, "%s%s%s%s%s", i ? " " : "",
                      s->relations[i].schema ? s->relations[i].schema : "",
                      s->relations[i].schema ? "." : "", s->relations[i].name,
                      s->relations[i].written ? "!" : "");
    for (int i = 0; i < s->nfunctions; i++)
        buffer_printf(functions, "%s%s%s%s/%d", i ? " " : "",
                      s->functions[i].schema ? s->functions[i].schema : "",
                      s->functions[i].schema ? "." : "", s->functions[i].name,
                      s->functions[i].nargs);
    buffer_append(relations, "", 1);
    buffer_append(functions, "", 1);
}

static void test_facts(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < COUNT(fact_cases); i++) {
        struct arena arena;
        struct buffer relations = {0}, functions = {0};
        arena_init(&arena);
        struct statement *s = parse_one(fact_cases[i].sql, &arena);
        dump_facts(s, &relations, &functions);
        if (s->facts != fact_cases[i].facts || s->max_param != fact_cases[i].max_param ||
            strcmp(buffer_head(&relations), fact_cases[i].relations) != 0 ||
            strcmp(buffer_head(&functions), fact_cases[i].functions) != 0) {
            print_error("%s: facts %u relations \"%s\" functions \"%s\" params %d\n",
                        fact_cases[i].sql, s->facts, buffer_head(&relations),
                        buffer_head(&functions), s->max_param);
            bad++;
        }
        buffer_release(&relations);
        buffer_release(&functions);
        arena_free(&arena);
    }
    assert_int_equal(bad, 0);
}

/* Grammar newer than 15: either not understood, or everything in it is found. */
static void test_newer_grammar(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *relations, *functions;
    } cases[] = {
        {"SELECT JSON_ARRAY(SELECT f(x) FROM a)", "a", "f/1"},
        {"SELECT JSON_OBJECT('k': f(1) RETURNING jsonb), JSON_ARRAY(g(2), h(3))", "",
         "f/1 g/1 h/1"},
        {"SELECT JSON_ARRAYAGG(f(x) ORDER BY g(y)) FILTER (WHERE h(z)) FROM a", "a", "g/1 h/1 f/1"},
        {"SELECT JSON_OBJECTAGG(f(1): g(2)) OVER (ORDER BY h(3)), i(4) IS JSON OBJECT", "",
         "h/1 f/1 g/1 i/1"},
        {"SELECT JSON_VALUE(f(1), '$.a' PASSING g(2) AS x DEFAULT h(3) ON EMPTY)", "",
         "f/1 g/1 h/1"},
        {"SELECT JSON(f(1)), JSON_SCALAR(g(2)), JSON_SERIALIZE(h(3) RETURNING text)", "",
         "f/1 g/1 h/1"},
        {"SELECT * FROM JSON_TABLE(f(1), '$[*]' PASSING g(2) AS x COLUMNS (a int PATH '$.a' "
         "DEFAULT "
         "h(3) ON EMPTY, NESTED PATH '$.b' COLUMNS (c int DEFAULT i(4) ON ERROR))) t",
         "", "f/1 g/1 h/1 i/1"},
        {"MERGE INTO a USING b ON a.x = b.x WHEN NOT MATCHED BY SOURCE THEN DELETE RETURNING "
         "merge_action(), f(1)",
         "a! b", "f/1"},
        {"WITH m AS (MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE RETURNING f(1)) SELECT "
         "1",
         "a! b", "f/1"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        struct buffer relations = {0}, functions = {0};
        arena_init(&arena);
        struct statement_list list = statement_parse(cases[i].sql, &arena);
        assert_int_equal(list.count, 1);
        /* 15 takes some of these for plain calls */
        bool plain_call =
            list.items[0]->nfunctions > 0 &&
            !strncmp(list.items[0]->functions[list.items[0]->nfunctions - 1].name, "json", 4);
        if (!list.items[0]->syntax_error && !plain_call) {
            dump_facts(list.items[0], &relations, &functions);
            assert_string_equal(buffer_head(&relations), cases[i].relations);
            assert_string_equal(buffer_head(&functions), cases[i].functions);
        }
        buffer_release(&relations);
        buffer_release(&functions);
        arena_free(&arena);
    }
    struct arena arena;
    arena_init(&arena);
    struct statement_list list =
        statement_parse("SELECT 0x1F, 1_000, 0x7FFFFFFFFFFFFFFF, 0o7777777777777", &arena);
    if (!list.items[0]->syntax_error) {
        static const int64_t numbers[] = {31, 1000, INT64_MAX, 0xFFFFFFFFFLL * 8 + 7};
        for (int i = 0; i < 4; i++) {
            const struct expr *e = list.items[0]->query->targets[i].expr;
            assert_int_equal(e->kind, EXPR_CONST);
            assert_int_equal(e->const_kind, CONST_INT);
            assert_true(e->number == numbers[i]);
        }
    }
    arena_free(&arena);
}

/* ---- texts and places ---- */

static void test_several_statements(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    const char *sql = "  SELECT 1 ;;\n-- about two\n UPDATE t SET a = ';' /* in */ ; \tCOMMIT\n";
    struct statement_list list = statement_parse(sql, &arena);
    assert_int_equal(list.count, 3);
    static const char *texts[] = {"SELECT 1", "-- about two\n UPDATE t SET a = ';' /* in */",
                                  "COMMIT"};
    for (int i = 0; i < 3; i++) {
        const struct statement *s = list.items[i];
        assert_string_equal(s->text, texts[i]);
        assert_int_equal(s->length, strlen(texts[i]));
        assert_memory_equal(sql + s->location, s->text, (size_t)s->length);
    }
    assert_int_equal(statement_parse("", &arena).count, 0);
    assert_int_equal(statement_parse(" ; /* nothing */ ;; -- at all", &arena).count, 0);
    arena_free(&arena);
}

static void test_inner_texts(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *inner;
    } cases[] = {
        {"EXPLAIN SELECT 1", "SELECT 1"},
        {"explain analyze verbose select 1", "select 1"},
        {"EXPLAIN /* ( */ (COSTS off, FORMAT json) SELECT (1)", "SELECT (1)"},
        {"EXPLAIN (SELECT 1) UNION (SELECT 2)", "(SELECT 1) UNION (SELECT 2)"},
        {"EXPLAIN ((SELECT 1))", "((SELECT 1))"},
        {"EXPLAIN (WITH a AS (SELECT 1) TABLE a)", "(WITH a AS (SELECT 1) TABLE a)"},
        {"EXPLAIN (VALUES (1))", "(VALUES (1))"},
        {"EXPLAIN CREATE TABLE x AS SELECT 1", "CREATE TABLE x AS SELECT 1"},
        {"EXPLAIN EXECUTE p(1)", "EXECUTE p(1)"},
        {"PREPARE p AS SELECT 1", "SELECT 1"},
        {"PREPARE \"as\" (numeric(10, 2), text) AS SELECT $1 AS x", "SELECT $1 AS x"},
        {"DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1 FOR UPDATE", "SELECT 1 FOR UPDATE"},
        {"DECLARE \"for\" CURSOR FOR SELECT 1", "SELECT 1"},
        {"COPY (SELECT ')' , (1)) TO STDOUT", "SELECT ')' , (1)"},
        {"COPY (SELECT $$)$$, $a$ ) $$ $a$, E'\\')') TO STDOUT (FORMAT csv)",
         "SELECT $$)$$, $a$ ) $$ $a$, E'\\')'"},
        {"CREATE TABLE x AS SELECT 1 AS data", "SELECT 1 AS data"},
        {"CREATE TABLE x (a, b) USING heap WITH (fillfactor = 70) TABLESPACE y AS SELECT 1, 2 WITH "
         "NO DATA",
         "SELECT 1, 2"},
        {"CREATE TABLE x AS SELECT 1 WITH DATA", "SELECT 1"},
        {"CREATE MATERIALIZED VIEW v AS TABLE t WITH NO DATA", "TABLE t"},
        {"CREATE TABLE x AS EXECUTE p", "EXECUTE p"},
        {"SELECT 1 INTO x", "SELECT 1 INTO x"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena arena;
        arena_init(&arena);
        struct statement *s = parse_one(cases[i].sql, &arena);
        assert_non_null(s->inner);
        assert_string_equal(s->inner->text, cases[i].inner);
        assert_int_equal(s->inner->length, strlen(cases[i].inner));
        assert_memory_equal(cases[i].sql + s->inner->location, cases[i].inner,
                            strlen(cases[i].inner));
        arena_free(&arena);
    }
}

static void test_locations_are_in_the_statements_own_text(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena);
    static const char *const prefixes[] = {"",
                                           "SELECT 'x'; ",
                                           "/* \xc3\xa9 */ SELECT 1;\n\n  ",
                                           "EXPLAIN (ANALYZE) ",
                                           "PREPARE p AS ",
                                           "BEGIN; EXPLAIN "};
    for (size_t i = 0; i < COUNT(prefixes); i++) {
        char *sql = arena_printf(
            &arena, "%sSELECT abc, $1, f(2) FROM t1 WHERE key_ = 42 AND x IN (-7)", prefixes[i]);
        struct statement_list list = statement_parse(sql, &arena);
        const struct statement *s = list.items[list.count - 1];
        if (s->inner)
            s = s->inner;
        const struct query *q = s->query;
        const struct expr *equal = q->where->args[0], *in = q->where->args[1];
        assert_memory_equal(s->text + q->targets[0].expr->location, "abc", 3);
        assert_memory_equal(s->text + q->targets[1].location, "$1", 2);
        assert_memory_equal(s->text + q->targets[2].expr->location, "f(2)", 4);
        assert_memory_equal(s->text + q->from[0]->location, "t1", 2);
        assert_memory_equal(s->text + equal->location, "=", 1);
        assert_memory_equal(s->text + equal->args[1]->location, "42", 2);
        assert_memory_equal(s->text + in->args[1]->location, "-7", 2);
        assert_memory_equal(s->text + q->where_location, "key_", 4);
    }
    struct statement *none = parse_one("DELETE FROM t", &arena);
    assert_int_equal(none->query->where_location, -1);
    arena_free(&arena);
}

/* ---- hints ---- */

static void test_hints(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < COUNT(hint_cases); i++) {
        struct arena arena;
        struct buffer out = {0};
        arena_init(&arena);
        struct statement_list list = statement_parse(hint_cases[i].sql, &arena);
        const struct statement *s = list.items[list.count - 1];
        for (int k = 0; k < s->nhints; k++)
            buffer_printf(&out, "%s%s%s%s", k ? " " : "", s->hints[k].name,
                          s->hints[k].value ? "=" : "", s->hints[k].value ? s->hints[k].value : "");
        buffer_append(&out, "", 1);
        if (strcmp(buffer_head(&out), hint_cases[i].hints) != 0) {
            print_error("%s: \"%s\"\n", hint_cases[i].sql, buffer_head(&out));
            bad++;
        }
        buffer_release(&out);
        arena_free(&arena);
    }
    assert_int_equal(bad, 0);
}

/* ---- what is not understood ---- */

static void assert_not_understood(const char *sql)
{
    struct arena arena;
    arena_init(&arena);
    struct statement_list list = statement_parse(sql, &arena);
    assert_int_equal(list.count, 1);
    if (!list.items[0]->syntax_error)
        print_error("understood: %s\n", sql);
    assert_true(list.items[0]->syntax_error);
    assert_int_equal(list.items[0]->kind, STMT_OTHER);
    assert_non_null(list.items[0]->text);
    assert_non_null(list.items[0]->tag);
    assert_null(list.items[0]->query);
    arena_free(&arena);
}

static void test_syntax_errors(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "SELEC 1",
        "SELECT 'unterminated",
        "SELECT 1; SELEC 2",
        "SELECT /* open",
        "SELECT \"open",
        "SELECT $$open",
        "(",
        "SELECT $0",
        "VALUES (1), (1, 2)",
        "INSERT INTO t VALUES (1), (2, 3)",
        "SELECT 1 FROM",
        "'",
        "\\",
        "\x01",
        "1",
        "$1",
        "SELECT U&'\\zzzz'",
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_not_understood(cases[i]);
    struct arena arena;
    arena_init(&arena);
    struct statement_list list = statement_parse("  frobnicate users ; select 1 ", &arena);
    assert_string_equal(list.items[0]->text, "frobnicate users ; select 1");
    assert_string_equal(list.items[0]->tag, "FROBNICATE");
    arena_free(&arena);
}

/* before + unit * count + middle + other * count + after, parsed; the result or NULL if refused. */
static bool parse_repeated(const char *before, const char *unit, const char *middle,
                           const char *other, int count)
{
    struct buffer sql = {0};
    struct arena arena;
    arena_init(&arena);
    buffer_append(&sql, before, strlen(before));
    for (int i = 0; i < count; i++)
        buffer_append(&sql, unit, strlen(unit));
    buffer_append(&sql, middle, strlen(middle));
    for (int i = 0; i < count; i++)
        buffer_append(&sql, other, strlen(other));
    buffer_append(&sql, "", 1);
    struct statement_list list = statement_parse(buffer_head(&sql), &arena);
    assert_true(list.count >= 1);
    bool understood = !list.items[0]->syntax_error;
    buffer_release(&sql);
    arena_free(&arena);
    return understood;
}

static void *parse_hostile(void *unused)
{
    (void)unused;
    static const struct {
        const char *before, *unit, *middle, *other;
        int fine;    /* repetitions that must be understood */
        int hostile; /* repetitions that must be refused, and end no thread */
    } cases[] = {
        {"SELECT ", "(", "1", ")", 3000, 100000},
        {"SELECT 1", "+1", "", "", 1200, 1000000},
        {"SELECT 1", "||'a'", "", "", 1200, 300000},
        {"SELECT ", "NOT ", "true", "", 1200, 200000},
        {"SELECT ", "- ", "a", "", 1200, 200000},
        {"SELECT a", "::int", "", "", 1200, 100000},
        {"SELECT 1", " UNION ALL SELECT 1", "", "", 1000, 100000},
        {"SELECT * FROM a", " CROSS JOIN b", "", "", 1000, 100000},
        {"", "SELECT (", "SELECT 1", ")", 100, 100000},
        {"SELECT ", "f(", "1", ")", 1000, 100000},
        {"SELECT ", "ARRAY[", "1", "]", 1000, 100000},
        {"SELECT ", "CASE WHEN ", "a", " THEN 1 END", 500, 100000},
        {"SELECT * FROM ", "(SELECT * FROM ", "t", ") x", 400, 100000},
        {"", "WITH a AS (", "SELECT 1", ") SELECT 1", 300, 100000},
        {"", "EXPLAIN ", "SELECT 1", "", 1, 100000},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (!parse_repeated(cases[i].before, cases[i].unit, cases[i].middle, cases[i].other,
                            cases[i].fine))
            return (void *)cases[i].unit;
        if (parse_repeated(cases[i].before, cases[i].unit, cases[i].middle, cases[i].other,
                           cases[i].hostile))
            return (void *)cases[i].unit;
    }
    return NULL;
}

/* On a worker's stack: 8 MB. */
static void test_hostile_depth(void **state)
{
    (void)state;
    pthread_t thread;
    pthread_attr_t attributes;
    void *failed = NULL;
    pthread_attr_init(&attributes);
    assert_int_equal(pthread_attr_setstacksize(&attributes, 8 << 20), 0);
    assert_int_equal(pthread_create(&thread, &attributes, parse_hostile, NULL), 0);
    pthread_join(thread, &failed);
    pthread_attr_destroy(&attributes);
    if (failed)
        print_error("depth of \"%s\"\n", (const char *)failed);
    assert_null(failed);
}

/* Wide is no problem, however wide; names in sight of a query are bounded. */
static void test_width(void **state)
{
    (void)state;
    assert_true(parse_repeated("SELECT true", " AND true", "", "", 100000));
    assert_true(parse_repeated("SELECT a IN (1", ",1", ")", "", 100000));
    assert_true(parse_repeated("INSERT INTO t VALUES (1)", ",(1)", "", "", 50000));
    assert_true(parse_repeated("", "SELECT 1;", "", "", 5000));
    assert_true(parse_repeated("WITH a AS (SELECT 1)", ", a AS (SELECT 1)", " SELECT 1", "", 900));
    assert_false(
        parse_repeated("WITH a AS (SELECT 1)", ", a AS (SELECT 1)", " SELECT 1", "", 1100));
}

static void *parse_many(void *unused)
{
    (void)unused;
    static const char *const sqls[] = {"SELECT a FROM t WHERE id = 42", "SELEC", "BEGIN",
                                       "SELECT 1; SELECT 2", "SET a = 'b'"};
    struct arena arena;
    arena_init(&arena);
    for (int i = 0; i < 4000; i++) {
        arena_reset(&arena);
        struct statement_list list = statement_parse(sqls[i % 5], &arena);
        if (list.count != (i % 5 == 3 ? 2 : 1) || list.items[0]->syntax_error != (i % 5 == 1))
            return &arena_free;
    }
    arena_free(&arena);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, parse_many, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

static void test_every_kind_has_a_name(void **state)
{
    (void)state;
    for (int kind = STMT_EMPTY; kind <= STMT_OTHER; kind++)
        assert_string_not_equal(statement_kind_name((enum statement_kind)kind), "unknown");
    assert_string_equal(statement_kind_name((enum statement_kind)999), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_transaction_options),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_newer_grammar),
        cmocka_unit_test(test_several_statements),
        cmocka_unit_test(test_inner_texts),
        cmocka_unit_test(test_locations_are_in_the_statements_own_text),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_syntax_errors),
        cmocka_unit_test(test_hostile_depth),
        cmocka_unit_test(test_width),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_every_kind_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
