/* test_plan_lookup.c: statements that ask by a column of a lookup: what they want to know, and where they go. */
#include "plan_support.h"

/*
 * users.email and orders.id are unique lookups, files.size is none, tenants.plan was not set up.
 * The shards have said: email 'a' and 'b' are on s1, 'c' on s2, 'd' nowhere; orders 7 on s2, 8 on s0 and s2.
 */

static const struct lookup_rule *email, *order_id, *size;

static const struct lookup_rule *add_lookup(const char *table, const char *column, bool ready)
{
    shardmap_add_lookup(fix.map, table, column, strcmp(column, "size") != 0);
    const struct lookup_rule *lookup = shardmap_table(fix.map, NULL, table)->lookups;
    assert_string_equal(lookup->column, column);
    if (ready)
        schema_add_function(fix.schema, "pgshunt", lookup->function, VOLATILITY_STABLE);
    return lookup;
}

static int set_up(void **state)
{
    setup(state);
    email = add_lookup("users", "email", true);
    order_id = add_lookup("orders", "id", true);
    size = add_lookup("files", "size", true);
    add_lookup("tenants", "plan", false);
    return 0;
}

static struct lookup_answers answers_of(const bool *here)
{
    static const bool s1[] = {false, true, false}, s2[] = {false, false, true},
                      s0s2[] = {true, false, true}, none[] = {false, false, false};
    static struct lookup_answer items[8];
    const struct lookup_answer all[] = {
        {email, "a", s1, "1", true},     {email, "b", s1, "42", false},
        {email, "c", s2, "2", false},    {email, "d", none, NULL, false},
        {order_id, "7", s2, "2", false}, {order_id, "8", s0s2, "3", false},
        {size, "100", s1, "doc", false},
    };
    memcpy(items, all, sizeof all);
    return (struct lookup_answers){items, sizeof all / sizeof all[0], here};
}

struct lookup_case {
    const char *sql;
    const char *wants; /* without answers: "users.email=a orders.id=7" */
    const char *plan;  /* with them, as render() has it */
};

static void render_wants(const struct plan *plan, struct text *out)
{
    out->length = 0;
    put(out, "%s", "");
    for (int i = 0; i < plan->nwants; i++)
        put(out, "%s%s=%s", i ? " " : "", plan->wants[i].lookup->name, plan->wants[i].value);
}

static void run(const struct lookup_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct lookup_case *c = &cases[i];
        struct lookup_answers nothing = {.count = 0}, all = answers_of(NULL);
        struct route_input input = {.statement = parse_one(c->sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .lookups = &nothing};
        struct plan plan, without, with;
        struct text words, other;
        router_plan(&input, &fix.arena, &plan);
        render_wants(&plan, &words);
        if (strcmp(words.bytes, c->wants) != 0)
            fail_msg("%s\n  wants:    %s\n  expected: %s", c->sql, words.bytes, c->wants);
        /* A plan that wants to know more is as good as one that knows of no lookups. */
        input.lookups = NULL;
        router_plan(&input, &fix.arena, &without);
        assert_int_equal(without.nwants, 0);
        render(&without, &words);
        render(&plan, &other);
        if (plan.nwants)
            assert_string_equal(words.bytes, other.bytes);
        input.lookups = &all;
        router_plan(&input, &fix.arena, &with);
        check_sound(c->sql, &with);
        render(&with, &words);
        if (strcmp(words.bytes, c->plan) != 0)
            fail_msg("%s\n  planned:  %s (%s)\n  expected: %s", c->sql, words.bytes, with.reason,
                     c->plan);
    }
}

#define RUN(cases) run(cases, sizeof(cases) / sizeof((cases)[0]))

static const struct lookup_case condition_cases[] = {
    {"SELECT * FROM users WHERE email = 'a'", "users.email=a", "s1 R"},
    {"SELECT * FROM users u WHERE 'a' = u.email AND age > 3", "users.email=a", "s1 R"},
    {"SELECT * FROM public.users WHERE public.users.email = 'a'::text", "users.email=a", "s1 R"},
    {"SELECT count(*) FROM users WHERE email = 'c'", "users.email=c", "s2 R"},
    {"SELECT * FROM users WHERE email = 'd'", "users.email=d", "s0 R"},
    {"SELECT * FROM users WHERE email IN ('a', 'b', NULL)", "users.email=a users.email=b", "s1 R"},
    {"SELECT id FROM users WHERE email IN ('a', 'c')", "users.email=a users.email=c",
     "rows s1 s2 R: append"},
    {"SELECT id FROM users WHERE email = ANY ('{a,b,a}')", "users.email=a users.email=b", "s1 R"},
    {"SELECT id FROM users WHERE email = ANY (ARRAY['c', 'd'])", "users.email=c users.email=d",
     "s2 R"},
    {"SELECT * FROM orders WHERE id = 7", "orders.id=7", "s2 R"},
    {"SELECT * FROM orders WHERE id = ' 007 '", "orders.id=7", "s2 R"},
    {"SELECT id FROM orders WHERE id = 8", "orders.id=8", "rows s0 s2 R: append"},
    {"SELECT * FROM orders WHERE (total, id) = (5, 7)", "orders.id=7", "s2 R"},
    {"SELECT * FROM orders WHERE id = 3 + 4", "orders.id=7", "s2 R"},
    {"SELECT * FROM orders_2024 WHERE id = 7", "orders.id=7", "s2 R"},
    {"SELECT * FROM parts.orders_2024_01 WHERE id = 7", "orders.id=7", "s2 R"},
    {"EXPLAIN SELECT * FROM users WHERE email = 'a'", "users.email=a", "s1 R"},
    /* the key says it all */
    {"SELECT * FROM users WHERE id = 3 AND email = 'a'", "", "s0 R"},
    {"SELECT * FROM users WHERE email = 'a' AND id = 1", "", "s1 R"},
    {"SELECT * FROM users WHERE email = NULL", "", "s0 R"},
};

static const struct lookup_case no_condition_cases[] = {
    {"SELECT id FROM users WHERE email <> 'a'", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE email NOT IN ('a')", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE lower(email) = 'a'", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE email = 'a' OR age = 3", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE email = lower('A')", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE email = 'a'::varchar(3)", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE email = 5", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM users WHERE email OPERATOR(public.=) 'a'", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM orders WHERE id = 7.0", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM orders WHERE id = 'x'", "", "rows s0 s1 s2 R: append"},
    /* not set up, or which table it is is not certain */
    {"SELECT slug FROM tenants WHERE plan = 'a'", "", "rows s0 s1 s2 R: append"},
    {"SELECT id FROM other.users WHERE email = 'a'", "", "rows s0 s1 s2 P: append"},
    {"SELECT id FROM orders_2025 WHERE id = 7", "", "rows s0 s1 s2 R: append"},
    /* another one's column */
    {"SELECT u.id FROM users u JOIN orders o ON o.user_id = u.id WHERE o.note = 'a'", "",
     "rows s0 s1 s2 R: append"},
};

static const struct lookup_case join_cases[] = {
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.email = 'a'", "users.email=a",
     "s1 R"},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE email = 'a'", "users.email=a",
     "s1 R"},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.email = 'a'",
     "users.email=a", "s1 R"},
    {"SELECT max(o.total) FROM users u, orders o WHERE o.user_id = u.id AND o.id = 7 "
     "GROUP BY u.nick HAVING count(*) > 1",
     "orders.id=7", "s2 R"},
    {"SELECT rank() OVER (ORDER BY total) FROM orders o JOIN users u ON u.id = o.user_id "
     "WHERE u.email IN ('a', 'b')",
     "users.email=a users.email=b", "s1 R"},
    /* a condition of the join says nothing of the rows that are kept */
    {"SELECT u.id FROM users u LEFT JOIN orders o ON o.user_id = u.id AND u.email = 'a'", "",
     "rows s0 s1 s2 R: append"},
    {"SELECT * FROM users WHERE id IN (SELECT user_id FROM orders WHERE id = 7)", "orders.id=7",
     "rows s0 s1 s2 R: append"},
    {"SELECT * FROM users u WHERE email = 'a' AND EXISTS (SELECT FROM orders o WHERE o.user_id = "
     "u.id AND o.total > 3)",
     "users.email=a", "s1 R"},
    {"WITH x AS (SELECT * FROM users WHERE email = 'c') SELECT * FROM x ORDER BY age",
     "users.email=c", "s2 R"},
    /* not joined by key: both are asked for, and one shard has both */
    {"SELECT * FROM users u, orders o WHERE u.email = 'c' AND o.id = 7",
     "users.email=c orders.id=7", "s2 R"},
};

static const struct lookup_case write_cases_of_lookups[] = {
    {"UPDATE users SET age = 3 WHERE email = 'a'", "users.email=a", "s1 P"},
    {"UPDATE users SET email = 'z' WHERE email = 'a' RETURNING *", "users.email=a", "s1 P"},
    {"UPDATE orders SET total = 1 WHERE id = 8", "orders.id=8", "write s0 s2 P"},
    {"DELETE FROM orders WHERE id = 7", "orders.id=7", "s2 P"},
    {"DELETE FROM orders USING users u WHERE u.id = user_id AND u.email = 'c'", "users.email=c",
     "s2 P"},
    {"SELECT * FROM users WHERE email = 'a' FOR UPDATE", "users.email=a", "s1 P"},
    /* to ask for one that is not unique pays where more than a fan-out is saved */
    {"DELETE FROM files WHERE size = 100", "files.size=100", "s1 P"},
    {"SELECT doc FROM files WHERE size = 100", "", "s1 R"},
    {"SELECT doc FROM files WHERE size = 100 FOR UPDATE", "files.size=100", "s1 P"},
    {"SELECT rank() OVER (ORDER BY size) FROM files WHERE size = 100", "files.size=100", "s1 R"},
};

static void test_conditions(void **state)
{
    (void)state;
    RUN(condition_cases);
    RUN(no_condition_cases);
}

static void test_joins(void **state)
{
    (void)state;
    RUN(join_cases);
}

static void test_writes(void **state)
{
    (void)state;
    RUN(write_cases_of_lookups);
}

static void plan_with(const char *sql, const struct params *params, const bool *here,
                      struct text *words)
{
    struct lookup_answers all = answers_of(here);
    struct route_input input = {.statement = parse_one(sql),
                                .map = fix.map,
                                .schema = fix.schema,
                                .params = params,
                                .lookups = &all};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    check_sound(sql, &plan);
    render(&plan, words);
}

static void test_params(void **state)
{
    (void)state;
    static const char seven[] = {0, 0, 0, 0, 0, 0, 0, 7};
    struct param text = {"a", 1, false, 0}, binary = {"c", 1, true, OID_TEXT},
                 number = {seven, 8, true, OID_INT8}, null = {NULL, -1, false, 0},
                 other = {"a", 1, false, OID_BPCHAR}, broken = {"\xff", 1, false, 0};
    const struct {
        const char *sql;
        struct param *param;
        const char *plan;
    } cases[] = {
        {"SELECT id FROM users WHERE email = $1", &text, "s1 R"},
        {"SELECT id FROM users WHERE email = $1", &binary, "s2 R"},
        {"SELECT id FROM orders WHERE id = $1", &number, "s2 R"},
        {"SELECT id FROM users WHERE email = $1", &null, "s0 R"},
        {"SELECT id FROM users WHERE email = $1", &other, "rows s0 s1 s2 R: append"},
        {"SELECT id FROM users WHERE email = $1", &broken, "rows s0 s1 s2 R: append"},
        {"SELECT id FROM users WHERE email = $1", NULL, "s0 R params"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct params params = {cases[i].param, 1};
        struct text words;
        plan_with(cases[i].sql, cases[i].param ? &params : NULL, NULL, &words);
        assert_string_equal(words.bytes, cases[i].plan);
    }
}

/* A transaction's own changes are seen by nobody else: its shards take part. */
static void test_own_shards(void **state)
{
    (void)state;
    const bool here[] = {true, false, false};
    struct text words;
    plan_with("SELECT id FROM users WHERE email = 'a'", NULL, here, &words);
    assert_string_equal(words.bytes, "rows s0 s1 R: append");
    plan_with("SELECT id FROM users WHERE email = 'd'", NULL, here, &words);
    assert_string_equal(words.bytes, "s0 R");
}

static void test_lists(void **state)
{
    (void)state;
    struct lookup_answers all = answers_of(NULL);
    struct statement_list list = statement_parse(
        "INSERT INTO users (id, email) VALUES (3, 'a'); SELECT * FROM users WHERE email = 'a'",
        &fix.arena);
    struct route_input input = {.map = fix.map, .schema = fix.schema, .lookups = &all};
    struct plan plan;
    router_plan_list(&list, &input, &fix.arena, &plan);
    assert_int_equal(plan.kind, PLAN_REFUSE); /* several shards: one by one, then */
    assert_int_equal(plan.nwants, 0);
}

static void test_words(void **state)
{
    (void)state;
    struct lookup_answers all = answers_of(NULL);
    struct route_input input = {.statement = parse_one("SELECT * FROM users WHERE email = 'a'"),
                                .map = fix.map,
                                .schema = fix.schema,
                                .lookups = &all};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    assert_string_equal(plan.reason, "lookup users.email = 'a' -> key 1, cached");
}

/* A value has the same place whatever else is asked; more of them than are asked for is all shards. */
static void test_shown(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        bool shows;
    } cases[] = {
        {"SELECT id FROM users WHERE email = 'a'", true},
        {"SELECT lower(email) FROM users WHERE 'a' = email AND age > 3 ORDER BY id LIMIT 3", true},
        {"SELECT u.id FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.email = 'a'",
         true},
        {"SELECT age FROM users WHERE email = 'a' GROUP BY age HAVING age > 3", false},
        {"SELECT age, count(*) FROM users WHERE email = 'a' GROUP BY age", false},
        {"SELECT count(*) FROM users WHERE email = 'a'", false},
        {"SELECT 1 + count(*) FROM users WHERE email = 'a'", false},
        {"SELECT 1 FROM users WHERE email = 'a' ORDER BY count(*)", false},
        {"SELECT geo(id) FROM users WHERE email = 'a'", false}, /* may be an aggregate */
        {"SELECT 1 FROM users WHERE email = 'a' HAVING true", false},
        {"SELECT (SELECT 1) FROM users WHERE email = 'a'", false},
        {"SELECT id FROM users WHERE email IN ('a')", false},
        {"SELECT id FROM users WHERE email = 'a' AND EXISTS (SELECT)", false},
        {"SELECT id FROM users WHERE email = 'a' AND ref = 'b'", true},
        {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id AND u.email = 'a'", false},
        {"SELECT * FROM users u, orders o WHERE u.email = 'a' AND o.id = 7", false},
        {"SELECT id FROM users WHERE email = 'a' UNION SELECT 1", false},
        {"SELECT id FROM users WHERE email = 'a' FOR UPDATE", false},
        {"SELECT touch() FROM users WHERE email = 'a'", false},
        {"UPDATE users SET age = 1 WHERE email = 'a'", false},
        {"EXPLAIN SELECT id FROM users WHERE email = 'a'", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lookup_answers nothing = {.count = 0};
        struct route_input input = {.statement = parse_one(cases[i].sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .lookups = &nothing};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_true(plan.nwants > 0);
        if (plan.shows_value != cases[i].shows)
            fail_msg("%s", cases[i].sql);
    }
}

static void test_many(void **state)
{
    (void)state;
    struct lookup_answers nothing = {.count = 0};
    struct text sql = {.length = 0};
    put(&sql, "SELECT id FROM orders WHERE id IN (0");
    for (int i = 1; i < 70; i++)
        put(&sql, ", %d", i);
    put(&sql, ")");
    struct route_input input = {.statement = parse_one(sql.bytes),
                                .map = fix.map,
                                .schema = fix.schema,
                                .lookups = &nothing};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.kind, PLAN_SCATTER);
    assert_int_equal(plan.nwants, 0);
}

static void test_names(void **state)
{
    (void)state;
    struct shardmap *map =
        shardmap_new(&(struct shardmap_builder){(const char *[]){"a", "b"}, NULL, 2});
    int users = shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_table(map, "Shop.\"A very long name of a table\"", users, "id");
    shardmap_add_lookup(map, "Shop.\"A very long name of a table\"", "\xc3\xa9mail", false);
    const struct table_rule *rule = shardmap_table(map, "Shop", "A very long name of a table");
    assert_non_null(rule->lookups);
    assert_string_equal(rule->lookups->key, "id");
    assert_int_equal(strspn(rule->lookups->function, "abcdefghijklmnopqrstuvwxyz0123456789_"),
                     strlen(rule->lookups->function));
    assert_in_range(strlen(rule->lookups->function), 10, 62);
    shardmap_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conditions), cmocka_unit_test(test_joins),
        cmocka_unit_test(test_writes),     cmocka_unit_test(test_params),
        cmocka_unit_test(test_own_shards), cmocka_unit_test(test_lists),
        cmocka_unit_test(test_words),      cmocka_unit_test(test_many),
        cmocka_unit_test(test_shown),      cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, set_up, teardown);
}
