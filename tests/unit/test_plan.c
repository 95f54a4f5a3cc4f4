/* test_plan.c: tables of statements and where the router sends them. */
#include "plan_support.h"
#include "plan_write_cases.h"

/* ---- statements without parameters ---- */

static void run_cases(const struct plan_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct plan_case *c = &cases[i];
        struct route_input input = {
            .statement = parse_one(c->sql), .map = fix.map, .schema = fix.schema};
        struct plan plan;
        struct text words;
        router_plan(&input, &fix.arena, &plan);
        render(&plan, &words);
        check_sound(c->sql, &plan);
        if (strcmp(words.bytes, c->plan) != 0)
            fail_msg("%s\n  planned:  %s (%s)\n  expected: %s", c->sql, words.bytes,
                     plan.kind == PLAN_REFUSE ? plan.error.message : plan.reason, c->plan);
        if (plan.kind == PLAN_REFUSE && c->more && !strstr(plan.error.message, c->more))
            fail_msg("%s\n  message:  %s\n  expected: %s", c->sql, plan.error.message, c->more);
        if (plan.kind == PLAN_SCATTER && plan.gather && c->more && !strstr(plan.reason, c->more))
            fail_msg("%s\n  because:  %s\n  expected: %s", c->sql, plan.reason, c->more);
        if (plan.kind == PLAN_SCATTER && plan.change && c->more &&
            !strstr(plan.change->nsources ? plan.change->sources[0].sql
                                          : plan.change->move->look.sql,
                    c->more))
            fail_msg("%s\n  asks for: %s\n  expected: %s", c->sql,
                     plan.change->nsources ? plan.change->sources[0].sql
                                           : plan.change->move->look.sql,
                     c->more);
        if (plan.kind == PLAN_SCATTER && !plan.gather && !plan.change &&
            strcmp(plan.queries[0].sql, c->more ? c->more : input.statement->text) != 0)
            fail_msg("%s\n  sent: %s", c->sql, plan.queries[0].sql);
    }
}

#define RUN(cases) run_cases(cases, sizeof(cases) / sizeof((cases)[0]))

static void test_keys(void **state)
{
    (void)state;
    RUN(key_cases);
    RUN(value_cases);
    RUN(passed_cases);
}

static void test_partitions(void **state)
{
    (void)state;
    RUN(partition_cases);
}

static void test_joins(void **state)
{
    (void)state;
    RUN(join_cases);
}

static void test_subqueries(void **state)
{
    (void)state;
    RUN(subquery_cases);
}

static void test_selects(void **state)
{
    (void)state;
    RUN(select_cases);
}

static void test_groups(void **state)
{
    (void)state;
    RUN(group_cases);
}

static void test_writes(void **state)
{
    (void)state;
    RUN(write_cases);
}

static void test_utilities(void **state)
{
    (void)state;
    RUN(utility_cases);
}

/* ---- parameters ---- */

struct param_case {
    const char *sql;
    struct param params[4];
    int count; /* -1: not bound yet */
    const char *plan;
    const char *first; /* SQL of the first shard, or NULL */
    const char *map;   /* its parameters, as "0 2"; NULL: unchanged */
};

#define TEXT_PARAM(text_)                                                                          \
    {                                                                                              \
        (text_), sizeof(text_) - 1, false, 0                                                       \
    }
#define BINARY_PARAM(bytes_, oid_)                                                                 \
    {                                                                                              \
        (bytes_), sizeof(bytes_) - 1, true, (oid_)                                                 \
    }

static const struct param_case param_cases[] = {
    {"SELECT * FROM users WHERE id = $1", {TEXT_PARAM("42")}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1", {{"42", 2, false, OID_INT8}}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1", {{"42", 2, false, OID_UNKNOWN}}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1",
     {BINARY_PARAM("\0\0\0\0\0\0\0\52", 0)},
     1,
     "s1 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = $1", {BINARY_PARAM("\0\0\0\52", 0)}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1", {BINARY_PARAM("\0\52", OID_INT2)}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1::int",
     {BINARY_PARAM("\0\0\0\52", 0)},
     1,
     "s1 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = $1::text::bigint", {TEXT_PARAM("42")}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1::text::bigint",
     {BINARY_PARAM("42", 0)},
     1,
     "s1 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = $1", {{NULL, -1, false, 0}}, 1, "s0 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1", {TEXT_PARAM("abc")}, 1, "s0 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = $1",
     {{"\0\1\0\0\0\0\0\0\0\52", 10, true, OID_NUMERIC}},
     1,
     "rows s0 s1 s2 R: append",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = $1", {{NULL, 0, false, 0}}, -1, "s0 R params", NULL, NULL},
    {"SELECT * FROM users WHERE id = $2", {TEXT_PARAM("42")}, 1, "s0 R params", NULL, NULL},
    {"SELECT * FROM users WHERE id IN ($1, $2)",
     {TEXT_PARAM("1"), TEXT_PARAM("42")},
     2,
     "s1 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id IN ($1, $2)",
     {TEXT_PARAM("1"), TEXT_PARAM("2")},
     2,
     "rows s1 s2 R: append",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = ANY($1)", {TEXT_PARAM("{1,42}")}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = ANY($1)", {{"{1,42}", 6, false, 1016}}, 1, "s1 R", NULL, NULL},
    {"SELECT * FROM users WHERE id = ANY($1::int[])",
     {TEXT_PARAM("{1,42}")},
     1,
     "s1 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = ANY($1)",
     {BINARY_PARAM("\0\0\0\1\0\0\0\0\0\0\0\27\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\1\0\0\0\4\0\0\0\52",
                   1007)},
     1,
     "s1 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = ANY($1)",
     {BINARY_PARAM("\0\0\0\1\0\0\0\0\0\0\0\27\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\1\0\0\0\4\0\0\0",
                   1007)},
     1,
     "rows s0 s1 s2 R: append",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = ANY($1)",
     {BINARY_PARAM("\0\0\0\0\0\0\0\0\0\0\0\27", 0)},
     1,
     "s0 R",
     NULL,
     NULL},
    {"SELECT * FROM users WHERE id = ANY($1)", {{NULL, -1, false, 0}}, 1, "s0 R", NULL, NULL},
    {"SELECT * FROM files WHERE doc = $1",
     {BINARY_PARAM("\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11", 0)},
     1,
     "s0 R",
     NULL,
     NULL},
    {"SELECT * FROM tenants WHERE slug = $1", {TEXT_PARAM("customer_a")}, 1, "s2 R", NULL, NULL},
    {"SELECT * FROM tenants WHERE slug = $1",
     {BINARY_PARAM("customer_a", OID_TEXT)},
     1,
     "s2 R",
     NULL,
     NULL},
    {"SELECT * FROM tenants WHERE slug = $1",
     {BINARY_PARAM("customer_a  ", OID_BPCHAR)},
     1,
     "s2 R",
     NULL,
     NULL},
    {"SELECT * FROM users u JOIN orders o ON u.id = o.user_id WHERE o.id = $1 AND u.id = $2",
     {TEXT_PARAM("9"), TEXT_PARAM("42")},
     2,
     "s1 R",
     NULL,
     NULL},
    {"INSERT INTO users (id, name) VALUES ($1, $2)",
     {TEXT_PARAM("42"), TEXT_PARAM("x")},
     2,
     "s1 P",
     NULL,
     NULL},
    {"INSERT INTO users (id, name) VALUES ($1, $2)",
     {{NULL, -1, false, 0}, TEXT_PARAM("x")},
     2,
     "23502",
     NULL,
     NULL},
    {"INSERT INTO users (id, name) VALUES ($1, $2)",
     {{NULL, 0, false, 0}},
     -1,
     "s0 P params",
     NULL,
     NULL},
    {"INSERT INTO users (id, name) VALUES ($1, $2), ($3, $4)",
     {TEXT_PARAM("2"), TEXT_PARAM("x"), TEXT_PARAM("1"), TEXT_PARAM("y")},
     4,
     "write s1 s2 P",
     "INSERT INTO users (id, name) VALUES ($1, $2)",
     "2 3"},
    {"INSERT INTO users (id, name) VALUES ($4, $2), ($3, $2)",
     {TEXT_PARAM("2"), TEXT_PARAM("x"), TEXT_PARAM("2"), TEXT_PARAM("1")},
     4,
     "write s1 s2 P",
     "INSERT INTO users (id, name) VALUES ($2, $1)",
     "1 3"},
    {"INSERT INTO users (id, name) VALUES ($1, '$2'), (2, $2)",
     {TEXT_PARAM("1"), TEXT_PARAM("x")},
     2,
     "write s1 s2 P",
     "INSERT INTO users (id, name) VALUES ($1, '$2')",
     "0"},
    {"UPDATE users SET id = $2 WHERE id = $1",
     {TEXT_PARAM("42"), TEXT_PARAM("1")},
     2,
     "s1 P",
     NULL,
     NULL},
    {"UPDATE users SET id = $2 WHERE id = $1",
     {TEXT_PARAM("42"), TEXT_PARAM("2")},
     2,
     "change s1",
     NULL,
     NULL},
    {"SELECT name FROM users LIMIT $1",
     {TEXT_PARAM("5")},
     1,
     "rows s0 s1 s2 R: limit $1",
     NULL,
     NULL},
    {"SELECT name FROM users LIMIT $1", {TEXT_PARAM("-5")}, 1, "s0 R", NULL, NULL},
    {"SELECT name FROM users LIMIT $1",
     {{NULL, 0, false, 0}},
     -1,
     "rows s0 s1 s2 R: limit $1",
     NULL,
     NULL},
    {"SELECT name FROM users LIMIT $2 OFFSET $1",
     {TEXT_PARAM("5"), TEXT_PARAM("7")},
     2,
     "rows s0 s1 s2 R: limit $2, offset $1",
     "SELECT name FROM users LIMIT LEAST($2::bigint::numeric + $1::bigint::numeric, "
     "9223372036854775807)::bigint",
     NULL},
    {"SELECT name FROM users WHERE age = $2 OFFSET $1",
     {TEXT_PARAM("5"), TEXT_PARAM("7")},
     2,
     "rows s0 s1 s2 R: offset $1",
     "SELECT name FROM users WHERE age = $1",
     "1"},
    {"SELECT age, count(*) FROM users WHERE name = $3 GROUP BY age LIMIT $1 OFFSET $2",
     {TEXT_PARAM("5"), TEXT_PARAM("7"), TEXT_PARAM("x")},
     3,
     "rows s0 s1 s2 R: combine count 2 by 1, limit $1, offset $2",
     "SELECT age, count(*) FROM users WHERE name = $1 GROUP BY age",
     "2"},
};

static void check_param_map(const struct param_case *c, const struct shard_query *query)
{
    struct text words = {.length = 0};
    put(&words, "%s", "");
    for (int i = 0; i < query->nparams; i++)
        put(&words, "%s%d", i ? " " : "", query->params[i]);
    assert_int_equal(query->params != NULL, c->map != NULL);
    assert_string_equal(words.bytes, c->map ? c->map : "");
}

static void test_params(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof param_cases / sizeof param_cases[0]; i++) {
        const struct param_case *c = &param_cases[i];
        struct params params = {c->params, c->count};
        struct route_input input = {.statement = parse_one(c->sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .params = c->count < 0 ? NULL : &params};
        struct plan plan;
        struct text words;
        router_plan(&input, &fix.arena, &plan);
        render(&plan, &words);
        check_sound(c->sql, &plan);
        if (strcmp(words.bytes, c->plan) != 0)
            fail_msg("case %zu: %s\n  planned:  %s (%s)\n  expected: %s", i, c->sql, words.bytes,
                     plan.reason, c->plan);
        if (plan.kind != PLAN_SCATTER)
            continue;
        assert_string_equal(plan.queries[0].sql, c->first ? c->first : c->sql);
        check_param_map(c, &plan.queries[0]);
    }
}

/* LIMIT and OFFSET values bound as parameters are in the spec as well. */
static void test_limit_values(void **state)
{
    (void)state;
    static const struct param values[] = {{"5", 1, false, 0}, {"\0\0\0\7", 4, true, OID_INT4}};
    struct params params = {values, 2};
    struct route_input input = {.statement = parse_one("SELECT name FROM users LIMIT $1 OFFSET $2"),
                                .map = fix.map,
                                .schema = fix.schema,
                                .params = &params};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.merge->limit, 5);
    assert_int_equal(plan.merge->offset, 7);
    assert_int_equal(plan.merge->limit_param, 1);
    assert_int_equal(plan.merge->offset_param, 2);
}

/* ---- one shard, several statements, no schema ---- */

static void test_one_shard(void **state)
{
    (void)state;
    static const char *statements[] = {"SELECT * FROM users", "UPDATE users SET id = 7",
                                       "SELEC * FROM users", "CREATE TABLE users (id int)",
                                       "SELECT DISTINCT ON (id) * FROM users"};
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        struct route_input input = {.statement = parse_one(statements[i]), .map = fix.one};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_int_equal(plan.kind, PLAN_DIRECT);
        assert_int_equal(plan.shard, 0);
        assert_false(plan.any_shard);
    }
}

struct list_case {
    const char *sql;
    const char *plan;
};

static const struct list_case list_cases[] = {
    {"", "s0 R any"},
    {"SELECT 1", "s0 R any"},
    {"SELECT * FROM users", "rows s0 s1 s2 R: append"},
    {"SELECT 1; SELECT 2", "s0 R any"},
    {"SELECT 1; INSERT INTO logs VALUES (1)", "s0 P"},
    {"BEGIN; INSERT INTO users (id) VALUES (42); COMMIT", "s1 P"},
    {"SELECT * FROM users WHERE id = 42; SELECT * FROM orders WHERE user_id = 1", "s1 R"},
    {"SELECT * FROM users WHERE id = 42; SELECT * FROM countries", "s1 R"},
    {"SELECT * FROM users WHERE id = 42; SELECT * FROM orders WHERE user_id = 2", "0A000"},
    {"SELECT * FROM users WHERE id = 42; SELECT * FROM logs", "0A000"},
    {"SELECT 1; SELECT * FROM users", "0A000"},
    {"SELECT 1; INSERT INTO countries VALUES ('x')", "0A000"},
    {"SELECT 1; SELECT DISTINCT ON (id) * FROM users", "0A000"},
    {"SELECT * FROM users WHERE id = 42; VACUUM logs /* pgshunt: shard=s1 */", "s1 P notx"},
};

static void test_lists(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof list_cases / sizeof list_cases[0]; i++) {
        struct statement_list list = statement_parse(list_cases[i].sql, &fix.arena);
        struct route_input input = {.map = fix.map, .schema = fix.schema};
        struct plan plan;
        struct text words;
        router_plan_list(&list, &input, &fix.arena, &plan);
        render(&plan, &words);
        check_sound(list_cases[i].sql, &plan);
        if (strcmp(words.bytes, list_cases[i].plan) != 0)
            fail_msg("%s\n  planned:  %s\n  expected: %s", list_cases[i].sql, words.bytes,
                     list_cases[i].plan);
    }
}

static const struct plan_case schemaless_cases[] = {
    {"SELECT * FROM users WHERE id = 42", "s1 R", NULL},
    {"INSERT INTO users (id) VALUES (42)", "s1 P", NULL},
    {"INSERT INTO users VALUES (42)", "0A000", "columns are not known"},
    {"SELECT name FROM users ORDER BY name", "57P03", "collation"},
    {"SELECT name FROM users ORDER BY name COLLATE \"C\"", "rows s0 s1 s2 R: sort by hidden 1",
     "SELECT name, name COLLATE \"C\" AS pgshunt_hidden_1 FROM users ORDER BY name COLLATE \"C\""},
    {"SELECT count(*) FROM users", "rows s0 s1 s2 R: combine count 1", NULL},
    {"SELECT age, count(*) FROM users GROUP BY age", "rows s0 s1 s2 R: combine count 2 by 1", NULL},
    {"SELECT age + 1 AS a, count(*) FROM users GROUP BY a", "0A000", "may be a column"},
    {"SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders WHERE user_id = u.id)",
     "rows s0 s1 s2 R: append", NULL},
};

static void test_without_schema(void **state)
{
    (void)state;
    struct schema *schema = fix.schema;
    struct plan_case c;
    fix.schema = NULL;
    for (size_t i = 0; i < sizeof schemaless_cases / sizeof schemaless_cases[0]; i++) {
        c = schemaless_cases[i];
        struct route_input input = {.statement = parse_one(c.sql), .map = fix.map};
        struct plan plan;
        struct text words;
        router_plan(&input, &fix.arena, &plan);
        render(&plan, &words);
        /* without a schema nothing is known to be a table: the node class is not what is tested */
        char *node = strstr(words.bytes, " P");
        if (node && strstr(c.plan, " R"))
            node[1] = 'R';
        if (strcmp(words.bytes, c.plan) != 0)
            fail_msg("%s\n  planned:  %s (%s)\n  expected: %s", c.sql, words.bytes, plan.reason,
                     c.plan);
    }
    fix.schema = schema;
}

static void all_without_schema(const struct plan_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct route_input input = {.statement = parse_one(cases[i].sql), .map = fix.map};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        check_sound(cases[i].sql, &plan);
    }
}

/* Every statement above gives a sound plan without a schema too. */
static void test_soundness(void **state)
{
    (void)state;
#define ALL(cases) all_without_schema(cases, sizeof(cases) / sizeof((cases)[0]))
    ALL(key_cases);
    ALL(value_cases);
    ALL(passed_cases);
    ALL(join_cases);
    ALL(subquery_cases);
    ALL(select_cases);
    ALL(group_cases);
    ALL(write_cases);
    ALL(utility_cases);
}

/* The text of a long statement is not a place to overflow: many tables, rows, nesting. */
static void test_large(void **state)
{
    (void)state;
    struct buffer sql = {0};
    struct plan plan;
    buffer_printf(&sql, "SELECT 1 FROM users u0");
    for (int i = 1; i < 200; i++)
        buffer_printf(&sql, " JOIN users u%d ON u%d.id = u%d.id", i, i, i - 1);
    buffer_append(&sql, "", 1);
    struct route_input input = {.statement = parse_one(buffer_head(&sql)), .map = fix.map};
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.kind, PLAN_REFUSE);
    buffer_clear(&sql);
    buffer_printf(&sql, "INSERT INTO users (id, name) VALUES (0, 'x')");
    for (int i = 1; i < 3000; i++)
        buffer_printf(&sql, ", (%d, 'row %d')", i, i);
    buffer_append(&sql, "", 1);
    input.statement = parse_one(buffer_head(&sql));
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.kind, PLAN_SCATTER);
    assert_int_equal(plan.nqueries, 3);
    int rows = 0;
    for (int i = 0; i < 3; i++) {
        const struct statement *part = parse_one(plan.queries[i].sql);
        rows += part->query->source->nrows;
    }
    assert_int_equal(rows, 3000);
    buffer_clear(&sql);
    buffer_printf(&sql, "SELECT * FROM users WHERE id IN (1");
    for (int i = 0; i < 5000; i++)
        buffer_printf(&sql, ", %d", i);
    buffer_append(&sql, ")", 2);
    input.statement = parse_one(buffer_head(&sql));
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.nqueries, 3);
    buffer_release(&sql);
}

static void test_explain(void **state)
{
    (void)state;
    struct route_input input = {.statement = parse_one("SELECT * FROM users WHERE id = 42"),
                                .map = fix.map,
                                .schema = fix.schema};
    struct plan plan;
    const char **lines;
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(router_explain(&plan, fix.map, &fix.arena, &lines), 1);
    assert_string_equal(lines[0], "pgshunt: direct to shard s1 (replica: read; key id = 42)");
    input.statement = parse_one("SELECT name FROM users ORDER BY name DESC LIMIT 10");
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(router_explain(&plan, fix.map, &fix.arena, &lines), 5);
    assert_string_equal(lines[0],
                        "pgshunt: scatter-merge over s0, s1, s2 (replica: read; no key pins it "
                        "to one shard, sorted merge)");
    assert_string_equal(lines[1], "  s0: SELECT name FROM users ORDER BY name DESC LIMIT 10");
    assert_string_equal(lines[4], "  merge: sort by 1 DESC, limit 10");
    assert_string_equal(plan.merge->collate, "en_US.UTF-8");
    input.statement = parse_one("SELECT DISTINCT ON (id) id FROM users WHERE age > 3 FOR UPDATE");
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(router_explain(&plan, fix.map, &fix.arena, &lines), 3);
    assert_string_equal(lines[0], "pgshunt: refused");
    assert_non_null(strstr(lines[1], "  refused: "));
    input.statement = parse_one("SELECT DISTINCT ON (id) id FROM users WHERE age > 3");
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(router_explain(&plan, fix.map, &fix.arena, &lines), 3);
    assert_non_null(strstr(lines[0], "pgshunt: gather on s"));
    assert_non_null(strstr(lines[0], "; DISTINCT ON over several shards)"));
    assert_non_null(strstr(lines[1], "  here: CREATE TEMPORARY TABLE \"users\" ON COMMIT DROP AS "
                                     "SELECT id, age FROM public.users WHERE age > 3"));
    assert_non_null(strstr(lines[2], ": SELECT id, age FROM public.users WHERE age > 3"));
}

/* Sequences, and tables that are not sharded, are on the first shard. */
static void test_gather_home(void **state)
{
    (void)state;
    static const char *const first[] = {
        "SELECT nextval('log_seq'), count(*) + 1 FROM users",
        "SELECT nextval('log_seq'), count(*) + 2 FROM users",
        "SELECT touch(), count(*) + 3 FROM users",
        "SELECT u.id FROM users u JOIN logs l ON l.id = u.age",
        "SELECT u.id FROM users u JOIN logs l ON l.uid = u.age",
        "SELECT count(*) + 4, (SELECT count(*) FROM pg_class) FROM users",
    };
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++) {
        struct route_input input = {
            .statement = parse_one(first[i]), .map = fix.map, .schema = fix.schema};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_non_null(plan.gather);
        assert_int_equal(plan.shard, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),           cmocka_unit_test(test_partitions),
        cmocka_unit_test(test_joins),          cmocka_unit_test(test_subqueries),
        cmocka_unit_test(test_selects),        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_writes),         cmocka_unit_test(test_utilities),
        cmocka_unit_test(test_params),         cmocka_unit_test(test_limit_values),
        cmocka_unit_test(test_one_shard),      cmocka_unit_test(test_lists),
        cmocka_unit_test(test_without_schema), cmocka_unit_test(test_soundness),
        cmocka_unit_test(test_large),          cmocka_unit_test(test_explain),
        cmocka_unit_test(test_gather_home),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
