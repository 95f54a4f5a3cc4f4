/* test_plan_held.c: which statements have to wait while buckets are held. The bucket of user 42 is, and no other. */
#include "plan_support.h"
#include "pgshunt/shardkey.h"

struct held_case {
    const char *sql;
    bool touches;
};

static const struct held_case cases[] = {
    {"SELECT * FROM users WHERE id = 42", true},
    {"SELECT * FROM users WHERE id = 1", false}, /* of the same shard */
    {"SELECT * FROM users WHERE id = 2", false},
    {"UPDATE users SET age = 1 WHERE id = 42", true},
    {"UPDATE users SET age = 1 WHERE id = 1", false},
    {"DELETE FROM orders WHERE user_id = '42'", true},
    {"DELETE FROM orders WHERE user_id = 40 + 2", true},
    {"DELETE FROM orders WHERE user_id = 40 + 3", false},
    {"INSERT INTO users (id, name) VALUES (42, 'a')", true},
    {"INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b'), (42, 'c')", true},
    {"INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')", false},
    {"INSERT INTO users (id, age) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET age = 3", false},
    {"INSERT INTO orders SELECT 1, id FROM users WHERE id = 42", true},
    {"INSERT INTO orders (id, user_id) SELECT 1, id FROM users WHERE id = 1", false},
    /* lists, also such as are on all shards */
    {"SELECT * FROM users WHERE id IN (1, 2, 3)", false},
    {"SELECT * FROM users WHERE id IN (1, 2, 3, 42)", true},
    {"SELECT * FROM users WHERE id = ANY ('{1,2,3}')", false},
    {"SELECT * FROM users WHERE id = 1 OR id = 3", false},
    {"SELECT * FROM users WHERE id = 1 OR id = 42", true},
    {"SELECT * FROM users WHERE id = 1 OR age = 3", true},
    {"SELECT * FROM users WHERE id IN (1, 42) AND id = 1", false},
    {"SELECT count(*) FROM users WHERE id IN (1, 2, 3)", false},
    /* without a key */
    {"SELECT * FROM users", true},
    {"SELECT count(*) FROM users WHERE age = 4", true},
    {"UPDATE users SET age = 1", true},
    {"DELETE FROM orders WHERE total > 5", true},
    {"SELECT * FROM users ORDER BY name LIMIT 3", true},
    {"SELECT * FROM users u JOIN orders o ON o.id = u.age", true},
    /* joins carry keys */
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 1", false},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE o.user_id = 42", true},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id IN (1, 2, 3)", false},
    {"SELECT * FROM users u, orders o WHERE u.id = 1 AND o.user_id = 2 AND u.age = o.id", false},
    {"SELECT * FROM users u, orders o WHERE u.id = 1 AND o.user_id = 42 AND u.age = o.id", true},
    {"SELECT * FROM users WHERE id = 1 AND age IN (SELECT id FROM orders)", true},
    {"SELECT * FROM users WHERE id = 1 AND age IN (SELECT id FROM orders WHERE user_id = 2)",
     false},
    {"WITH x AS (SELECT * FROM orders WHERE user_id = 42) SELECT * FROM x", true},
    {"WITH x AS (SELECT * FROM orders WHERE user_id = 1) SELECT * FROM x", false},
    {"SELECT id FROM users WHERE id = 1 UNION ALL SELECT id FROM orders WHERE user_id = 2", false},
    {"SELECT id FROM users WHERE id = 1 UNION ALL SELECT id FROM orders", true},
    {"SELECT * FROM users WHERE id = NULL", false},
    /* keys that rows are given */
    {"UPDATE users SET id = 42 WHERE id = 1", true},
    {"UPDATE users SET id = 4 WHERE id = 1", true}, /* where its rows go is seen too late */
    /* other keyspaces, other tables */
    {"SELECT * FROM tenants", false},
    {"SELECT * FROM tenants WHERE slug = '42'", false},
    {"UPDATE samples SET value = 1", false},
    {"SELECT * FROM samples WHERE at = 42", false},
    {"SELECT * FROM logs", false},
    {"UPDATE logs SET msg = '' WHERE id = 42", false},
    {"SELECT * FROM countries", false},
    {"UPDATE countries SET title = ''", false},
    {"SELECT * FROM users u JOIN countries c ON c.code = u.country WHERE u.id = 1", false},
    {"SELECT 42", false},
    {"SELECT * FROM pg_class", false},
    /* views */
    {"SELECT * FROM adults", true},
    {"SELECT * FROM adults WHERE who = 42", true},
    {"SELECT * FROM adults WHERE who = 1", false},
    {"SELECT * FROM view_of_logs", false},
    /* what is said */
    {"/* pgshunt: key=42 */ SELECT * FROM users", true},
    {"/* pgshunt: key=1 */ SELECT * FROM users", false},
    {"/* pgshunt: key=42 */ SELECT * FROM users WHERE id = 1", false},
    {"/* pgshunt: key=42 */ SELECT f()", true},
    {"/* pgshunt: key=1 */ SELECT f()", false},
    {"/* pgshunt: shard=s1 */ SELECT * FROM users WHERE id = 1", true},
    {"/* pgshunt: shard=s1 */ SELECT * FROM tenants", false},
    {"/* pgshunt: key=42 */ CALL f()", true},
    {"/* pgshunt: key=1 */ CALL f()", false},
    /* no queries, and around them */
    {"EXPLAIN SELECT * FROM users WHERE id = 42", true},
    {"EXPLAIN ANALYZE SELECT * FROM users WHERE id = 1", false},
    {"DECLARE c CURSOR FOR SELECT * FROM users WHERE id = 42", true},
    {"DECLARE c CURSOR FOR SELECT * FROM users", true},
    {"DECLARE c CURSOR FOR SELECT * FROM users WHERE id = 1", false},
    {"COPY users FROM STDIN", true},
    {"COPY users TO STDOUT", true},
    {"COPY (SELECT * FROM users WHERE id = 1) TO STDOUT", false},
    {"COPY (SELECT * FROM users WHERE id = 42) TO STDOUT", true},
    {"COPY tenants TO STDOUT", false},
    {"TRUNCATE orders", true},
    {"TRUNCATE tenants", false},
    {"LOCK TABLE users", true},
    {"VACUUM users", true},
    {"ALTER TABLE users ADD x int", true},
    {"CREATE TABLE other (id int)", false},
    {"CREATE INDEX ON orders (id)", true},
    {"BEGIN", false},
    {"COMMIT", false},
    {"SET work_mem = '1MB'", false},
    {"SHOW work_mem", false},
    {"DISCARD ALL", false},
};

static bool touches(const char *sql, const struct shardmap *map, const struct params *params)
{
    struct route_session session = {.in_transaction = true, .transaction_shard = -1};
    struct route_input input = {.statement = parse_one(sql),
                                .map = map,
                                .schema = fix.schema,
                                .params = params,
                                .session = &session};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    if (plan.kind == PLAN_REFUSE)
        fail_msg("%s\n  refused: %s", sql, plan.error.message);
    return plan.touches_held;
}

static void test_not_held(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_false(touches(cases[i].sql, fix.map, NULL));
}

static void hold_user_42(void)
{
    struct shardkey key;
    assert_true(shardkey_from_text(KEY_BIGINT, "42", 2, &key));
    unsigned bucket = shardkey_bucket(&key);
    shardmap_hold(fix.map, shardmap_keyspace_by_name(fix.map, "users"), bucket, bucket);
}

static void test_held(void **state)
{
    (void)state;
    hold_user_42();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (touches(cases[i].sql, fix.map, NULL) != cases[i].touches)
            fail_msg("%s\n  %s", cases[i].sql,
                     cases[i].touches ? "does not wait" : "waits for nothing");
}

static void test_parameters(void **state)
{
    (void)state;
    struct param held = {"42", 2, false, 0}, other = {"1", 1, false, 0};
    struct param list = {"{1,2,3}", 7, false, 0}, more = {"{1,42}", 6, false, 0};
    static const char one[] = "SELECT * FROM users WHERE id = $1";
    static const char any[] = "SELECT * FROM users WHERE id = ANY ($1::int8[])";
    hold_user_42();
    assert_true(touches(one, fix.map, &(struct params){&held, 1}));
    assert_false(touches(one, fix.map, &(struct params){&other, 1}));
    assert_false(touches(any, fix.map, &(struct params){&list, 1}));
    assert_true(touches(any, fix.map, &(struct params){&more, 1}));
    assert_true(touches("INSERT INTO orders (id, user_id) VALUES (5, $1)", fix.map,
                        &(struct params){&held, 1}));
    assert_false(touches("INSERT INTO orders (id, user_id) VALUES (5, $1)", fix.map,
                         &(struct params){&other, 1}));
}

/* Several in one message wait if one of them has to. */
static void test_list(void **state)
{
    (void)state;
    hold_user_42();
    struct route_input input = {.map = fix.map, .schema = fix.schema};
    struct plan plan;
    struct statement_list list = statement_parse(
        "SELECT * FROM users WHERE id = 1; SELECT * FROM users WHERE id = 42", &fix.arena);
    router_plan_list(&list, &input, &fix.arena, &plan);
    assert_int_equal(plan.kind, PLAN_DIRECT);
    assert_true(plan.touches_held);
    list = statement_parse("SELECT * FROM users WHERE id = 1; SELECT 42", &fix.arena);
    router_plan_list(&list, &input, &fix.arena, &plan);
    assert_false(plan.touches_held);
}

/* While whole tables are held, whatever names one waits; what is not understood may. */
static const struct held_case table_cases[] = {
    {"SELECT * FROM logs", true},
    {"SELECT * FROM logs WHERE id = 1", true},
    {"SELECT * FROM public.logs", true},
    {"INSERT INTO logs (id, msg) VALUES (1, 'a')", true},
    {"UPDATE logs SET msg = '' WHERE id = 42", true},
    {"SELECT 1 WHERE EXISTS (SELECT FROM logs)", true},
    {"WITH x AS (SELECT * FROM logs) SELECT * FROM x", true},
    {"SELECT * FROM users u JOIN logs l ON l.id = u.age WHERE u.id = 1", true},
    {"COPY logs FROM STDIN", true},
    {"COPY (SELECT * FROM logs) TO STDOUT", true},
    {"TRUNCATE logs", true},
    {"ALTER TABLE logs ADD x int", true},
    {"EXPLAIN SELECT * FROM logs", true},
    {"DECLARE c CURSOR FOR SELECT * FROM logs", true},
    {"/* pgshunt: shard=s1 */ SELECT * FROM logs", true},
    {"SELECT * FROM tenants WHERE slug = 'a'", true}, /* whatever the key is */
    {"SELECT * FROM view_of_logs", true},
    {"SELECT * FROM users WHERE id = 1 AND age IN (SELECT id FROM view_of_logs)", true},
    {"SELECT * FROM adults WHERE who = 1", false},
    {"SELECT * FROM users WHERE id = 1", false},
    {"SELECT * FROM other.logs", false},
    {"PREPARE x AS SELECT * FROM logs", false},
    {"SELECT 42", false},
    {"BEGIN", false},
    {"FROBNICATE everything", true},
};

static void test_tables(void **state)
{
    (void)state;
    shardmap_hold_table(fix.map, "public.logs");
    shardmap_hold_table(fix.map, "tenants");
    for (size_t i = 0; i < sizeof table_cases / sizeof table_cases[0]; i++)
        if (touches(table_cases[i].sql, fix.map, NULL) != table_cases[i].touches)
            fail_msg("%s\n  %s", table_cases[i].sql,
                     table_cases[i].touches ? "does not wait" : "waits for nothing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_held),   cmocka_unit_test(test_held),
        cmocka_unit_test(test_parameters), cmocka_unit_test(test_list),
        cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
