/* test_plan_session.c: what sessions, schemas and sizes change in a plan. */
#include "plan_support.h"

/* ---- sessions ---- */

struct session_case {
    const char *sql;
    struct route_session session;
    const char *plan;
};

static const struct session_case session_cases[] = {
    {"SELECT * FROM users WHERE id = 42", {.force_primary = "because"}, "s1 P"},
    {"SELECT * FROM users WHERE id = 42",
     {.in_transaction = true, .transaction_shard = -1},
     "s1 P"},
    {"SELECT * FROM users WHERE id = 42",
     {.in_transaction = true, .read_only = true, .transaction_shard = -1},
     "s1 R"},
    {"SELECT 1", {.in_transaction = true, .transaction_shard = 2}, "s2 P any"},
    {"SELECT * FROM countries", {.in_transaction = true, .transaction_shard = 2}, "s2 P any"},
    {"SELECT touch()", {.in_transaction = true, .transaction_shard = 2}, "s2 P"},
    {"SELECT nextval('s')", {.in_transaction = true, .transaction_shard = 2}, "s0 P"},
    {"SELECT nextval('s')", {.transaction_shard = -1, .sequence_shard = 2}, "s0 P"},
    {"SELECT setval('s', 1), currval('s')", {.transaction_shard = -1, .sequence_shard = 2}, "s0 P"},
    {"SELECT currval('s')", {.in_transaction = true, .transaction_shard = 2}, "s2 P"},
    {"SELECT currval('s')", {.transaction_shard = -1, .sequence_shard = 2}, "s1 P"},
    {"SELECT lastval()",
     {.in_transaction = true, .transaction_shard = 2, .sequence_shard = 1},
     "s0 P"},
    {"SELECT lastval()", {.transaction_shard = -1, .sequence_shard = 99}, "s0 P"},
    {"SELECT pg_advisory_xact_lock(1)", {.in_transaction = true, .transaction_shard = 2}, "s0 P"},
    {"SELECT * FROM pg_class", {.in_transaction = true, .transaction_shard = 2}, "s2 P"},
    {"SELECT * FROM logs", {.in_transaction = true, .transaction_shard = 2}, "s0 P"},
    {"SELECT * FROM users WHERE id = NULL",
     {.in_transaction = true, .transaction_shard = 2},
     "s2 P"},
    {"SELECT 1", {.in_transaction = true, .transaction_shard = 99}, "s0 P any"},
    {"SELECT * FROM users", {.key = "42"}, "s1 R"},
    {"SELECT * FROM users WHERE id = 2", {.key = "42"}, "s2 R"},
    {"SELECT * FROM users u JOIN orders o ON o.id = u.id", {.key = "42"}, "s1 R"},
    {"UPDATE users SET name = 'x'", {.key = "42"}, "s1 P"},
    {"INSERT INTO users (id) VALUES (1), (2)", {.key = "42"}, "write s1 s2 P"},
    {"INSERT INTO countries VALUES ('x')", {.key = "42"}, "all s0 s1 s2 P"},
    {"SELECT * FROM logs", {.key = "42"}, "s0 R"},
    {"SELECT 1", {.key = "42"}, "s0 R any"},
    {"SELECT * FROM users u JOIN logs l ON l.uid = u.id", {.key = "42"}, "0A000"},
    {"SELECT * FROM users", {.key = "x"}, "22P02"},
    {"SELECT * FROM users", {.shard = "s2"}, "s2 R"},
    {"CREATE TABLE users (id int)", {.shard = "s2"}, "s2 P"},
    {"CREATE INDEX i ON made (x)", {.temp_tables = true}, "s0 P"},
    {"DROP TABLE made", {.temp_tables = true}, "s0 P"},
    {"ALTER TABLE made ADD x int", {.temp_tables = true}, "s0 P"},
    {"ALTER TABLE public.made ADD x int", {.temp_tables = true}, "all s0 s1 s2 P"},
    {"TRUNCATE made", {.temp_tables = true}, "s0 P"},
    {"CREATE VIEW v AS SELECT * FROM made", {.temp_tables = true}, "s0 P"},
    {"CREATE TABLE more (LIKE logs)", {.temp_tables = true}, "all s0 s1 s2 P"},
    {"CREATE TABLE more AS SELECT * FROM logs", {.temp_tables = true}, "all s0 s1 s2 P"},
    {"CREATE TABLE more AS SELECT * FROM made", {.temp_tables = true}, "0A000"},
    {"CREATE TEMP TABLE more AS SELECT * FROM made", {.temp_tables = true}, "s0 P"},
    {"DROP TABLE made, logs", {.temp_tables = true}, "0A000"},
    {"DROP TABLE logs", {.temp_tables = true}, "all s0 s1 s2 P"},
    {"DROP INDEX i", {.temp_tables = true}, "all s0 s1 s2 P"},
    {"SELECT * FROM users", {.shard = "nope"}, "22023"},
    {"SELECT * FROM users", {.shard = ""}, "rows s0 s1 s2 R: append"},
    {"SELECT * FROM users /* pgshunt: shard=s1 */", {.shard = "s2"}, "s1 R"},
    {"SELECT * FROM users /* pgshunt: key=42 */", {.key = "2"}, "s1 R"},
};

static void test_sessions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof session_cases / sizeof session_cases[0]; i++) {
        const struct session_case *c = &session_cases[i];
        struct route_input input = {.statement = parse_one(c->sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .session = &c->session};
        struct plan plan;
        struct text words;
        router_plan(&input, &fix.arena, &plan);
        render(&plan, &words);
        check_sound(c->sql, &plan);
        if (strcmp(words.bytes, c->plan) != 0)
            fail_msg("case %zu: %s\n  planned:  %s\n  expected: %s", i, c->sql, words.bytes,
                     c->plan);
    }
}

/* Each row of RETURNING comes from the query that got the row of VALUES in its place. */
static void test_row_source(void **state)
{
    (void)state;
    static const uint16_t expected[] = {1, 0, 1, 2, 0};
    struct route_input input = {
        .statement =
            parse_one("INSERT INTO users (id) VALUES (1), (3), (42), (2), (3) RETURNING *"),
        .map = fix.map,
        .schema = fix.schema};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.nqueries, 3);
    assert_int_equal(plan.merge->nrows, 5);
    assert_memory_equal(plan.merge->row_source, expected, sizeof expected);
    assert_string_equal(plan.queries[1].sql, "INSERT INTO users (id) VALUES (1), (42) RETURNING *");
}

/* Rows of an unsharded table are on the first shard, the table is everywhere. */
static void test_create_as(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *others;
    } cases[] = {
        {"CREATE TABLE x AS SELECT * FROM logs",
         "CREATE TABLE x AS SELECT * FROM logs WITH NO DATA"},
        {"CREATE UNLOGGED TABLE IF NOT EXISTS x (a) AS VALUES (1), (2) WITH DATA",
         "CREATE UNLOGGED TABLE IF NOT EXISTS x(a) AS VALUES (1), (2) WITH NO DATA"},
        {"SELECT id, 1 AS one INTO x FROM logs",
         "CREATE TABLE x AS SELECT id, 1 AS one FROM logs WITH NO DATA"},
        {"SELECT id INTO x FROM logs UNION SELECT 1",
         "CREATE TABLE x AS SELECT id FROM logs UNION SELECT 1 WITH NO DATA"},
        {"CREATE MATERIALIZED VIEW x AS SELECT * FROM logs",
         "CREATE MATERIALIZED VIEW x AS SELECT * FROM logs"},
        {"EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
         "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1 WITH NO DATA"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct route_input input = {
            .statement = parse_one(cases[i].sql), .map = fix.map, .schema = fix.schema};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        if (plan.kind == PLAN_REFUSE)
            fail_msg("%s: %s", cases[i].sql, plan.error.message);
        assert_int_equal(plan.nqueries, 3);
        assert_int_equal(plan.mode, SCATTER_UTILITY);
        assert_string_equal(plan.queries[0].sql, cases[i].sql);
        assert_string_equal(plan.queries[1].sql, cases[i].others);
        assert_string_equal(plan.queries[2].sql, cases[i].others);
    }
}

struct schema_case {
    const char *sql;
    bool needed, needed_without; /* with the schema / before there is one */
};

/* What the schema does not know may have been made a moment ago. */
static const struct schema_case needs_schema_cases[] = {
    {"SELECT * FROM made", true, false},
    {"SELECT * FROM public.made", true, false},
    {"SELECT * FROM logs WHERE id IN (SELECT id FROM made)", true, false},
    {"INSERT INTO made VALUES (1)", true, false},
    {"INSERT INTO logs SELECT * FROM made", true, false},
    {"EXPLAIN SELECT * FROM made", true, false},
    {"DECLARE c CURSOR FOR SELECT * FROM made", true, false},
    {"COPY (SELECT * FROM made) TO STDOUT", true, false},
    {"COPY fresh FROM STDIN", true, true},
    {"CREATE TABLE x AS SELECT * FROM made", true, false},
    {"SELECT * INTO x FROM made", true, false},
    {"SELECT 1; SELECT * FROM made", true, false},
    {"SELECT * FROM made; SELECT * FROM users", true, false},
    {"WITH made AS (SELECT 1) SELECT * FROM made", false, false},
    {"WITH x AS (SELECT 1) SELECT * FROM made", true, false},
    {"SELECT * FROM logs", false, false},
    {"SELECT * FROM orders_2025", false, false}, /* two of the name are known */
    {"SELECT * FROM pg_class", false, false},
    {"SELECT * FROM information_schema.tables", false, false},
    {"SELECT * FROM generate_series(1, 2) AS made", false, false},
    {"SELECT * FROM active_users", false, false},
    {"SELECT 1", false, false},
    /* configured, but not there yet */
    {"SELECT * FROM fresh WHERE id = 1", false, false},
    {"INSERT INTO fresh (id) VALUES (1)", false, false},
    {"INSERT INTO fresh VALUES (1)", true, true},
    {"SELECT x FROM fresh ORDER BY x", true, true},
    {"SELECT lower(x) AS y, count(*) FROM fresh GROUP BY y", true, true},
    {"INSERT INTO users VALUES (1)", false, true},
    /* schema and utilities */
    {"CREATE TABLE made (id int)", false, false},
    {"CREATE INDEX ON made (id)", false, false},
    {"DROP TABLE made", false, false},
    {"TRUNCATE made", false, false},
    {"VACUUM made", false, false},
    {"LOCK TABLE made", false, false},
    {"COPY made FROM STDIN", false, false},
    {"PREPARE q AS SELECT * FROM made", false, false},
};

static bool needs_schema(const char *sql, const struct schema *schema, bool fresh)
{
    struct statement_list list = statement_parse(sql, &fix.arena);
    struct route_session session = {.schema_is_fresh = fresh, .transaction_shard = -1};
    struct route_input input = {.map = fix.map, .schema = schema, .session = &session};
    struct plan plan;
    router_plan_list(&list, &input, &fix.arena, &plan);
    return plan.needs_schema == SCHEMA_FRESH;
}

/* What a view is made of has to be as new as the last change at least. */
static void test_views_need_a_current_schema(void **state)
{
    static const char *const views[] = {"SELECT * FROM adults", "SELECT * FROM per_country",
                                        "UPDATE adults SET name = 'x' WHERE who = 42",
                                        "SELECT * FROM view_of_logs"};
    (void)state;
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        struct route_input input = {
            .statement = parse_one(views[i]), .map = fix.map, .schema = fix.schema};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_int_equal(plan.needs_schema, SCHEMA_CURRENT);
    }
}

/* A view that the transaction has made is not what the schema says, whatever that is. */
static void test_changed_views(void **state)
{
    static const char *const changed[] = {"fresh_view", "adults", NULL};
    struct route_session session = {
        .in_transaction = true, .schema_is_fresh = true, .changed_views = changed};
    static const char *const refused[] = {"SELECT * FROM fresh_view",
                                          "SELECT * FROM adults WHERE who = 42",
                                          "UPDATE adults SET name = 'x'"};
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct route_input input = {.statement = parse_one(refused[i]),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .session = &session};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_int_equal(plan.kind, PLAN_REFUSE);
        assert_non_null(strstr(plan.error.hint, "commit first"));
    }
}

static void test_needs_schema(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof needs_schema_cases / sizeof needs_schema_cases[0]; i++) {
        const struct schema_case *c = &needs_schema_cases[i];
        if (needs_schema(c->sql, fix.schema, false) != c->needed)
            fail_msg("%s: needs_schema is not %d", c->sql, c->needed);
        if (needs_schema(c->sql, NULL, false) != c->needed_without)
            fail_msg("%s: needs_schema without a schema is not %d", c->sql, c->needed_without);
        assert_false(needs_schema(c->sql, fix.schema, true));
    }
}

/* Keys of type text are hashed in UTF-8: in another encoding only ASCII is the same. */
static void test_foreign_encoding(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        const char *plan, *foreign;
    } cases[] = {
        {"SELECT * FROM tenants WHERE slug = '\xe4'", "s2 R", "0A000"},
        {"SELECT * FROM tenants WHERE slug IN ('a', '\xe4')", NULL, "0A000"},
        {"SELECT * FROM tenants WHERE slug = ANY ('{\xe4}')", NULL, "0A000"},
        {"SELECT * FROM tenants WHERE plan = '\xe4'", "rows s0 s1 s2 R: append",
         "rows s0 s1 s2 R: append"},
        {"INSERT INTO tenants (slug) VALUES ('\xe4')", NULL, "0A000"},
        {"INSERT INTO tenants (slug) VALUES ('a'), ('\xe4')", NULL, "0A000"},
        {"UPDATE tenants SET slug = '\xe4' WHERE slug = 'customer_a'", NULL, "0A000"},
        {"SELECT * FROM tenants WHERE slug = 'customer_a'", "s2 R", "s2 R"},
        {"SELECT * FROM users WHERE id = 42 AND name = '\xe4'", "s1 R", "s1 R"},
        {"/* pgshunt: key=\xe4 */ SELECT * FROM tenants", NULL, "0A000"},
        {"/* pgshunt: key=customer_a */ SELECT * FROM tenants", "s2 R", "s2 R"},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        bool foreign = i % 2;
        const char *expected = foreign ? cases[i / 2].foreign : cases[i / 2].plan;
        struct route_session session = {.foreign_encoding = foreign, .transaction_shard = -1};
        struct route_input input = {.statement = parse_one(cases[i / 2].sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .session = &session};
        struct plan plan;
        struct text words;
        router_plan(&input, &fix.arena, &plan);
        render(&plan, &words);
        check_sound(cases[i / 2].sql, &plan);
        if (expected && strcmp(words.bytes, expected) != 0)
            fail_msg("%s: %s, not %s", cases[i / 2].sql, words.bytes, expected);
        if (foreign && plan.kind == PLAN_REFUSE &&
            (!strstr(plan.error.message, "client_encoding") || !strstr(plan.error.hint, "UTF8")))
            fail_msg("%s: %s", cases[i / 2].sql, plan.error.message);
    }
}

static void test_foreign_params(void **state)
{
    (void)state;
    static const struct param values[] = {{"\xe4", 1, false, 0}, {"\xe4", 1, true, OID_TEXT}};
    for (int i = 0; i < 2; i++) {
        struct params params = {&values[i], 1};
        struct route_session session = {.foreign_encoding = true, .transaction_shard = -1};
        struct route_input input = {.statement = parse_one("SELECT * FROM tenants WHERE slug = $1"),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .params = &params,
                                    .session = &session};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_int_equal(plan.kind, PLAN_REFUSE);
        assert_string_equal(plan.error.sqlstate, "0A000");
        session.foreign_encoding = false;
        router_plan(&input, &fix.arena, &plan);
        assert_int_equal(plan.kind, PLAN_DIRECT);
    }
}

struct flag_case {
    const char *sql;
    bool write;
};

static void test_write_flag(void **state)
{
    (void)state;
    static const struct flag_case cases[] = {
        {"SELECT * FROM users WHERE id = 42", false},
        {"INSERT INTO users (id) VALUES (42)", true},
        {"SELECT touch()", true},
        {"SELECT * FROM users WHERE id = 42 FOR UPDATE", true},
        {"BEGIN", false},
        {"COMMIT", false},
        {"SET x.y = 1", false},
        {"LISTEN x", false},
        {"CREATE TABLE users (id int)", true},
        {"INSERT INTO countries VALUES ('x')", true},
        {"EXPLAIN INSERT INTO users (id) VALUES (42)", false},
        {"EXPLAIN ANALYZE INSERT INTO users (id) VALUES (42)", true},
        {"COPY logs FROM STDIN", true},
        {"COPY logs TO STDOUT", false},
        {"SELEC 1", true},
    };
    struct route_session in_transaction = {.in_transaction = true, .transaction_shard = -1};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct route_input input = {.statement = parse_one(cases[i].sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .session = &in_transaction};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        if (plan.write != cases[i].write)
            fail_msg("%s: write is %d", cases[i].sql, plan.write);
    }
}

/* "head item0 separator item1 ... tail" */
struct bound_case {
    const char *head, *item, *separator, *tail;
    int count;
    const char *plan;
};

static const struct bound_case bound_cases[] = {
    {"SELECT 1 FROM users u", " , logs l%d", "", " WHERE u.id = 42", 64, "54001"},
    {"SELECT 1 FROM users u", " , countries l%d", "", " WHERE u.id = 42", 63, "s1 R"},
    {"SELECT 1 FROM logs l", " , logs l%d", "", " WHERE l.id = 42", 500, "s0 R"},
    {"SELECT 1 FROM users u", " JOIN countries l%d ON true", "", " WHERE u.id = 42", 64, "54001"},
    {"", "SELECT %d FROM logs", " UNION ALL ", "", 500, "s0 R"},
    {"SELECT 1 FROM users WHERE id = 42", " AND EXISTS (SELECT %d FROM users)", "", "", 50,
     "54001"},
    {"/* pgshunt: key=42 */ SELECT 1 FROM users WHERE true", " AND EXISTS (SELECT %d FROM users)",
     "", "", 50, "s1 R"},
    {"SELECT ", "name AS a%d", ", ", " FROM users", 1664, "rows s0 s1 s2 R: append"},
    {"SELECT ", "name AS a%d", ", ", " FROM users", 1665, "54001"},
    {"SELECT name FROM users ORDER BY ", "name || %d", ", ", "", 1665, "54001"},
    {"SELECT count(*) FROM users GROUP BY ", "age + %d", ", ", "", 1665, "54001"},
    {"SELECT name FROM users WHERE id = 42 ORDER BY ", "name || %d", ", ", "", 1665, "s1 R"},
    {"SELECT * FROM users WHERE id = ANY ('{", "%d", ",", "}')", 20000, "rows s0 s1 s2 R: append"},
    {"SELECT * FROM users WHERE id = 42", " AND age <> %d", "", "", 20000, "s1 R"},
    {"SELECT * FROM users WHERE ", "id = %d", " OR ", "", 20000, "rows s0 s1 s2 R: append"},
};

/* However long the statement is, planning takes time and memory in proportion, or it is refused. */
static void test_bounds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bound_cases / sizeof bound_cases[0]; i++) {
        const struct bound_case *c = &bound_cases[i];
        struct buffer sql = {0};
        buffer_append(&sql, c->head, strlen(c->head));
        for (int k = 0; k < c->count; k++) {
            char item[64];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(item, sizeof item, c->item, k);
#pragma GCC diagnostic pop
            buffer_append(&sql, item, strlen(item));
            if (k + 1 < c->count)
                buffer_append(&sql, c->separator, strlen(c->separator));
        }
        buffer_append(&sql, c->tail, strlen(c->tail) + 1);
        struct route_input input = {
            .statement = parse_one(buffer_head(&sql)), .map = fix.map, .schema = fix.schema};
        struct arena arena;
        struct plan plan;
        struct text words;
        arena_init(&arena);
        router_plan(&input, &arena, &plan);
        render(&plan, &words);
        check_sound(c->head, &plan);
        if (strcmp(words.bytes, c->plan) != 0)
            fail_msg("case %zu: %s...\n  planned:  %s (%s)\n  expected: %s", i, c->head,
                     words.bytes, plan.reason, c->plan);
        assert_true(arena.total <= 100000 + 20 * buffer_length(&sql));
        arena_free(&arena);
        buffer_release(&sql);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions),       cmocka_unit_test(test_write_flag),
        cmocka_unit_test(test_row_source),     cmocka_unit_test(test_create_as),
        cmocka_unit_test(test_needs_schema),   cmocka_unit_test(test_views_need_a_current_schema),
        cmocka_unit_test(test_changed_views),  cmocka_unit_test(test_foreign_encoding),
        cmocka_unit_test(test_foreign_params), cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
