/* test_plan.c: tables of statements and where the router sends them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/pgtypes.h"
#include "pgshunt/plan.h"

/*
 * Three shards with a third of the buckets each. Keys used below: 3, 6 and 9 live on s0; 1 and 42 on s1; 2, 4, 5 and 7 on s2.
 */

struct fixture {
    struct shardmap *map, *one;
    struct schema *schema;
    struct arena arena;
};

static struct fixture fix;

#define TABLE(name_, kind_, ...)                                                                   \
    do {                                                                                           \
        struct schema_column columns_[] = {__VA_ARGS__};                                           \
        schema_add_relation(                                                                       \
            fix.schema, &(struct schema_relation){"public", name_, kind_, 'p', columns_,           \
                                                  (int)(sizeof columns_ / sizeof columns_[0])});   \
    } while (0)

static void add_relations(void)
{
    TABLE("users", 'r', {"id", OID_INT8, true, NULL}, {"name", OID_TEXT, true, NULL},
          {"email", OID_TEXT, false, "C"}, {"nick", OID_TEXT, false, "de_DE"},
          {"age", OID_INT4, true, NULL}, {"country", OID_TEXT, true, NULL});
    TABLE("orders", 'r', {"id", OID_INT8, true, NULL}, {"user_id", OID_INT8, true, NULL},
          {"total", OID_NUMERIC, true, NULL}, {"note", OID_TEXT, true, NULL});
    TABLE("files", 'r', {"doc", OID_UUID, true, NULL}, {"size", OID_INT8, true, NULL});
    TABLE("tenants", 'r', {"slug", OID_VARCHAR, true, NULL}, {"plan", OID_TEXT, true, NULL});
    TABLE("codes", 'r', {"code", OID_BPCHAR, true, NULL}, {"what", OID_TEXT, true, NULL});
    TABLE("countries", 'r', {"code", OID_TEXT, true, NULL}, {"title", OID_TEXT, true, NULL});
    TABLE("logs", 'r', {"id", OID_INT8, true, NULL}, {"uid", OID_INT8, true, NULL},
          {"msg", OID_TEXT, true, NULL});
    TABLE("active_users", 'v', {"id", OID_INT8, true, NULL});
    TABLE("log_seq", 'S', {"last_value", OID_INT8, true, NULL});
}

static int setup(void **state)
{
    static const char *names[] = {"s0", "s1", "s2"};
    (void)state;
    arena_init(&fix.arena);
    fix.map = shardmap_new(&(struct shardmap_builder){names, NULL, 3});
    int users = shardmap_add_keyspace(fix.map, "users", KEY_BIGINT, HASH_XXH64);
    int docs = shardmap_add_keyspace(fix.map, "docs", KEY_UUID, HASH_XXH64);
    int tenants = shardmap_add_keyspace(fix.map, "tenants", KEY_TEXT, HASH_XXH64);
    shardmap_add_table(fix.map, "users", users, "id");
    shardmap_add_table(fix.map, "orders", users, "user_id");
    shardmap_add_table(fix.map, "files", docs, "doc");
    shardmap_add_table(fix.map, "tenants", tenants, "slug");
    shardmap_add_table(fix.map, "codes", tenants, "code");
    shardmap_add_table(fix.map, "countries", -1, NULL);
    fix.one = shardmap_new(&(struct shardmap_builder){names, NULL, 1});
    fix.schema = schema_new();
    schema_set_collation(fix.schema, "en_US.UTF-8", 'c');
    add_relations();
    schema_add_function(fix.schema, "pg_catalog", "lower", VOLATILITY_IMMUTABLE);
    schema_add_function(fix.schema, "public", "touch", VOLATILITY_VOLATILE);
    schema_add_function(fix.schema, "public", "geo", VOLATILITY_IMMUTABLE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shardmap_free(fix.map);
    shardmap_free(fix.one);
    schema_free(fix.schema);
    arena_free(&fix.arena);
    return 0;
}

/* ---- a plan in a few words ---- */

struct text {
    char bytes[4096];
    size_t length;
};

static void put(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text->bytes + text->length, sizeof text->bytes - text->length, format, args);
    va_end(args);
    assert_in_range(n, 0, sizeof text->bytes - text->length - 1);
    text->length += (size_t)n;
}

/* "s1 R", "s0 P any", "rows s0 s1 s2 R: sort by 1", "write s1 s2 P", "all s0 s1 s2 P", "0A000". */
static void render(const struct plan *plan, struct text *out)
{
    static const char *const modes[] = {"rows", "write", "all"};
    out->length = 0;
    put(out, "%s", "");
    if (plan->kind == PLAN_REFUSE) {
        put(out, "%s", plan->error.sqlstate);
        return;
    }
    if (plan->kind == PLAN_SCATTER)
        put(out, "%s ", modes[plan->mode]);
    else
        put(out, "s%u ", plan->shard);
    for (int i = 0; i < plan->nqueries; i++)
        put(out, "s%u ", plan->queries[i].shard);
    put(out, "%s", plan->node == NODE_CLASS_PRIMARY ? "P" : "R");
    put(out, "%s%s%s", plan->any_shard ? " any" : "", plan->needs_params ? " params" : "",
        plan->no_transaction ? " notx" : "");
    if (plan->kind != PLAN_SCATTER || !plan->merge)
        return;
    const char **lines;
    int count = router_explain(plan, fix.map, &fix.arena, &lines);
    put(out, ": %s", lines[count - 1] + strlen("  merge: "));
}

static const struct statement *parse_one(const char *sql)
{
    struct statement_list list = statement_parse(sql, &fix.arena);
    assert_int_equal(list.count, 1);
    return list.items[0];
}

/* What must hold for every plan there is. */
static void check_sound(const char *sql, const struct plan *plan)
{
    assert_non_null(plan->reason);
    if (plan->kind == PLAN_REFUSE) {
        assert_non_null(plan->error.message);
        assert_int_equal(strlen(plan->error.sqlstate), 5);
        if (!plan->error.hint)
            fail_msg("%s: refused without a hint: %s", sql, plan->error.message);
    }
    if (plan->kind == PLAN_DIRECT)
        assert_in_range(plan->shard, 0, 2);
    if (plan->kind != PLAN_SCATTER)
        return;
    assert_in_range(plan->nqueries, 1, 3);
    assert_int_equal(plan->mode == SCATTER_ROWS, plan->mode == SCATTER_ROWS && plan->merge);
    for (int i = 0; i < plan->nqueries; i++) {
        struct statement_list list = statement_parse(plan->queries[i].sql, &fix.arena);
        if (list.count != 1 || list.items[0]->syntax_error)
            fail_msg("%s: a shard gets what is no SQL: %s", sql, plan->queries[i].sql);
    }
}

/* ---- statements without parameters ---- */

struct plan_case {
    const char *sql;
    const char *plan;
    const char
        *more; /* scatter: SQL of the first shard, NULL: as it came; refused: part of the message */
};

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
        if (plan.kind == PLAN_SCATTER &&
            strcmp(plan.queries[0].sql, c->more ? c->more : input.statement->text) != 0)
            fail_msg("%s\n  sent: %s", c->sql, plan.queries[0].sql);
    }
}

#define RUN(cases) run_cases(cases, sizeof(cases) / sizeof((cases)[0]))

static const struct plan_case key_cases[] = {
    {"SELECT * FROM users WHERE id = 42", "s1 R", NULL},
    {"SELECT * FROM users WHERE 42 = id", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = '42'", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = ' +42 '", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = 42::bigint", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = '42'::int", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = '42'::text::int8", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = CAST('42' AS smallint)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = -(42)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = -42", "s1 R", NULL},
    {"SELECT * FROM users WHERE users.id = 42 AND name = 'x'", "s1 R", NULL},
    {"SELECT * FROM users WHERE (name = 'x' AND (id = 42)) AND age > 3", "s1 R", NULL},
    {"SELECT * FROM public.users WHERE public.users.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users AS u WHERE id = 42", "s1 R", NULL},
    {"TABLE users", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM \"users\" WHERE \"id\" = 42", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = 9223372036854775807", "s0 R", NULL},
    {"SELECT * FROM users WHERE id OPERATOR(pg_catalog.=) 42", "s1 R", NULL},
    /* not a proof */
    {"SELECT * FROM users WHERE id = 42 OR name = 'x'", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE NOT id = 42", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id <> 42", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id > 41 AND id < 43", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = 42.0", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = 42::numeric", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = age", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = age + 1", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE age = 42", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE (id = 42) IS NOT TRUE", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = ANY('{1,2}'::numeric[])", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id OPERATOR(public.=) 42", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id IS NOT DISTINCT FROM 42", "rows s0 s1 s2 R: append", NULL},
    /* no rows, or an error: any one shard */
    {"SELECT * FROM users WHERE id = NULL", "s0 R", NULL},
    {"SELECT * FROM users WHERE id = 'abc'", "s0 R", NULL},
    {"SELECT * FROM users WHERE id = '99999999999999999999'", "s0 R", NULL},
    {"SELECT * FROM users WHERE id = 1 AND id = 2", "s0 R", NULL},
    {"SELECT * FROM users WHERE id IN (NULL)", "s0 R", NULL},
    {"SELECT * FROM users WHERE id = ANY('{}')", "s0 R", NULL},
    /* lists */
    {"SELECT * FROM users WHERE id IN (1, 42)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id IN (42)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id IN (1, 2)", "rows s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id IN (1, 2, 3)", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id IN (1, NULL)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id IN (1, age)", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id NOT IN (1, 42)", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id IN (1, 2) AND id IN (2, 3)", "s2 R", NULL},
    {"SELECT * FROM users WHERE id = ANY(ARRAY[1, 42])", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = ANY(ARRAY[1, 2])", "rows s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = ANY('{1, 42, NULL}')", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = ANY('{\"1\",42}'::bigint[])", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = ANY('{{1},{42}}')", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id <> ANY(ARRAY[1, 42])", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = ALL(ARRAY[1])", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id = 1 OR id = 42", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = 1 OR (id = 42 AND age = 3)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id = 1 OR id = 2 OR id IN (4, 5)", "rows s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE (name, id) = ('x', 42)", "s1 R", NULL},
    {"SELECT * FROM users WHERE (id, name) <> (42, 'x')", "rows s0 s1 s2 R: append", NULL},
    /* other types of key */
    {"SELECT * FROM files WHERE doc = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "s0 R", NULL},
    {"SELECT * FROM files WHERE doc = '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'::uuid", "s0 R", NULL},
    {"SELECT * FROM files WHERE doc = 42", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM tenants WHERE slug = 'customer_a'", "s2 R", NULL},
    {"SELECT * FROM tenants WHERE slug = 'customer_a'::text", "s2 R", NULL},
    {"SELECT * FROM tenants WHERE slug = 'customer_ab'::varchar(10)", "rows s0 s1 s2 R: append",
     NULL},
    {"SELECT * FROM tenants WHERE slug = 42", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM tenants WHERE slug = 42::text", "s1 R", NULL},
    {"SELECT * FROM tenants WHERE slug = '42'", "s1 R", NULL},
    {"SELECT * FROM codes WHERE code = 'customer_a   '", "s2 R", NULL},
    {"SELECT * FROM codes WHERE code = 'customer_a'", "s2 R", NULL},
};

static void test_keys(void **state)
{
    (void)state;
    RUN(key_cases);
}

static const struct plan_case join_cases[] = {
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE o.user_id = 42", "s1 R", NULL},
    {"SELECT * FROM users u, orders o WHERE u.id = o.user_id AND user_id = 42", "s1 R", NULL},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id AND u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u, orders o WHERE u.id = 42 AND o.user_id = 1", "s1 R", NULL},
    {"SELECT * FROM users u, orders o WHERE u.id = 42 AND o.user_id = 2", "0A000", "not by key"},
    {"SELECT * FROM users u, orders o WHERE u.id = 42", "0A000", "not by key"},
    {"SELECT * FROM users u JOIN orders o ON o.id = u.id WHERE u.id = 42", "0A000", "not by key"},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u JOIN orders o ON o.user_id > u.id", "0A000", "not by key"},
    {"SELECT * FROM users a JOIN users b USING (id) WHERE id = 42", "s1 R", NULL},
    {"SELECT * FROM users a JOIN users b USING (id)", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users a NATURAL JOIN users b", "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users a JOIN users b USING (name)", "0A000", "not by key"},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id JOIN orders p ON p.user_id = "
     "o.user_id",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u JOIN files f ON f.doc = u.id", "0A000", "not by key"},
    {"SELECT * FROM users u, files f WHERE u.id = 3 AND f.doc = "
     "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
     "s0 R", NULL},
    /* outer joins */
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id", "rows s0 s1 s2 R: append",
     NULL},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE o.user_id = 42", "s1 R",
     NULL},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND u.id = 42",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = u.id AND o.user_id = 42",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = 42 WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.user_id = 42", "0A000", "not by key"},
    {"SELECT * FROM users u LEFT JOIN orders o ON o.id = u.age", "0A000", "not by key"},
    {"SELECT * FROM users u RIGHT JOIN orders o ON o.user_id = u.id WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u RIGHT JOIN orders o ON o.user_id = u.id AND o.user_id = 42",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id", "rows s0 s1 s2 R: append",
     NULL},
    {"SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u FULL JOIN orders o ON o.user_id = u.id AND u.id = 42",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u FULL JOIN orders o ON o.id = u.id", "0A000", "not by key"},
    {"SELECT * FROM users u LEFT JOIN (orders o JOIN orders p ON o.id = p.id) ON o.user_id = u.id",
     "0A000", "not by key"},
    {"SELECT * FROM users u LEFT JOIN (orders o JOIN orders p ON o.user_id = p.user_id) ON "
     "o.user_id = u.id",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u LEFT JOIN countries c ON c.code = u.country", "rows s0 s1 s2 R: append",
     NULL},
    {"SELECT * FROM countries c LEFT JOIN users u ON c.code = u.country", "0A000", "preserves"},
    {"SELECT * FROM users u RIGHT JOIN countries c ON c.code = u.country", "0A000", "preserves"},
    {"SELECT * FROM users u FULL JOIN countries c ON c.code = u.country", "0A000", "preserves"},
    {"SELECT * FROM countries c LEFT JOIN users u ON c.code = u.country WHERE u.id = 42", "s1 R",
     NULL},
    {"SELECT * FROM countries c LEFT JOIN users u ON c.code = u.country AND u.id = 42", "s1 R",
     NULL},
    {"SELECT * FROM generate_series(1, 3) g LEFT JOIN users u ON u.id = g", "0A000", "preserves"},
    {"SELECT * FROM users u, countries c, countries d WHERE u.id = 42", "s1 R", NULL},
    {"SELECT * FROM users u, generate_series(1, 2) g", "rows s0 s1 s2 R: append", NULL},
    /* tables of one shard */
    {"SELECT * FROM users u JOIN logs l ON l.uid = u.id WHERE u.id = 3", "s0 R", NULL},
    {"SELECT * FROM users u JOIN logs l ON l.uid = u.id WHERE u.id = 42", "0A000", "\"logs\""},
    {"SELECT * FROM users u JOIN logs l ON l.uid = u.id", "0A000", "\"logs\""},
    {"SELECT * FROM logs", "s0 R", NULL},
    {"SELECT * FROM logs JOIN countries ON true", "s0 R", NULL},
    {"SELECT * FROM countries", "s0 R any", NULL},
    {"SELECT * FROM pg_class", "s0 P", NULL},
    {"SELECT * FROM information_schema.tables", "s0 P", NULL},
    {"SELECT * FROM users, pg_class", "0A000", "pg_class"},
    {"SELECT * FROM active_users", "0A000", "view"},
    {"SELECT * FROM active_users a, users u WHERE u.id = 42", "0A000", "view"},
    {"SELECT 1", "s0 R any", NULL},
    {"VALUES (1), (2)", "s0 R any", NULL},
    {"SELECT touch()", "s0 P", NULL},
    {"SELECT pg_advisory_lock(42)", "s0 P", NULL},
};

static void test_joins(void **state)
{
    (void)state;
    RUN(join_cases);
}

static const struct plan_case subquery_cases[] = {
    {"SELECT * FROM (SELECT * FROM users WHERE id = 42) x", "s1 R", NULL},
    {"SELECT * FROM (SELECT * FROM users) x WHERE id = 42", "0A000", "subquery"},
    {"SELECT * FROM (SELECT * FROM countries) c, users u WHERE u.country = c.code",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u WHERE u.id = 42 AND EXISTS (SELECT 1 FROM orders o WHERE o.user_id = "
     "u.id)",
     "s1 R", NULL},
    {"SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE user_id = id)", "0A000", "tied"},
    {"SELECT * FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id AND "
     "o.id > 3)",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.total > 3)", "0A000",
     "tied"},
    {"SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id OR o.id = "
     "1)",
     "0A000", "tied"},
    {"SELECT *, (SELECT count(*) FROM orders o WHERE o.user_id = u.id) FROM users u",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT (SELECT count(*) FROM users)", "0A000", "tied"},
    {"SELECT (SELECT count(*) FROM users WHERE id = 42)", "s1 R", NULL},
    {"SELECT * FROM users WHERE id IN (SELECT user_id FROM orders WHERE total > 5)",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT * FROM users WHERE id NOT IN (SELECT user_id FROM orders)", "rows s0 s1 s2 R: append",
     NULL},
    {"SELECT * FROM users WHERE id IN (SELECT user_id FROM orders LIMIT 5)", "0A000", "tied"},
    {"SELECT * FROM users WHERE id IN (SELECT id FROM orders)", "0A000", "tied"},
    {"SELECT * FROM users WHERE id = (SELECT max(user_id) FROM orders)", "0A000", "tied"},
    {"SELECT * FROM users WHERE id = 42 AND age > (SELECT avg(age) FROM users)", "0A000", "tied"},
    {"SELECT * FROM users WHERE id = 42 AND age > (SELECT avg(age) FROM users WHERE id = 1)",
     "s1 R", NULL},
    {"SELECT * FROM users WHERE country IN (SELECT code FROM countries)", "rows s0 s1 s2 R: append",
     NULL},
    {"SELECT * FROM users WHERE country IN (SELECT msg FROM logs)", "0A000", "\"logs\""},
    {"SELECT * FROM users u LEFT JOIN LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id LIMIT "
     "1) x "
     "ON true WHERE u.id = 42",
     "s1 R", NULL},
    {"SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.id LIMIT 1) x",
     "0A000", "subquery"},
    /* a name of the inner level hides the one outside */
    {"SELECT * FROM orders o WHERE o.user_id = 42 AND EXISTS (SELECT 1 FROM logs WHERE uid = 1)",
     "0A000", "\"logs\""},
    {"SELECT * FROM users u WHERE u.id = 42 AND EXISTS (SELECT 1 FROM orders u WHERE u.user_id = "
     "2)",
     "0A000", "tied"},
    {"WITH x AS (SELECT * FROM users WHERE id = 42) SELECT * FROM x", "s1 R", NULL},
    {"WITH users AS (SELECT * FROM users WHERE id = 42) SELECT * FROM users", "s1 R", NULL},
    {"WITH users AS (SELECT 1 AS id) SELECT * FROM users", "s0 R any", NULL},
    {"WITH RECURSIVE users AS (SELECT 1 AS id UNION ALL SELECT id FROM users) SELECT * FROM users",
     "s0 R any", NULL},
    {"WITH users AS (SELECT 1 AS id) SELECT * FROM public.users", "0A000", "WITH"},
    {"WITH x AS (SELECT * FROM users) SELECT * FROM x WHERE id = 42", "0A000", "WITH"},
    {"WITH c AS (SELECT 1) SELECT * FROM users", "0A000", "WITH"},
    {"WITH c AS (SELECT 1) SELECT * FROM users WHERE id = 42", "s1 R", NULL},
    {"WITH d AS (DELETE FROM users WHERE id = 42 RETURNING *) SELECT * FROM d", "s1 P", NULL},
    {"WITH d AS (DELETE FROM users RETURNING *) SELECT * FROM d", "0A000", "WITH"},
    {"WITH i AS (INSERT INTO users (id) VALUES (42) RETURNING *) SELECT * FROM i", "s1 P", NULL},
    {"WITH i AS (INSERT INTO users (id) VALUES (1), (2) RETURNING *) SELECT * FROM i", "0A000",
     "WITH"},
    {"WITH d AS (DELETE FROM users WHERE id = 42 RETURNING *) INSERT INTO orders (user_id) VALUES "
     "(1)",
     "s1 P", NULL},
    {"SELECT id FROM users WHERE id = 42 UNION SELECT user_id FROM orders WHERE user_id = 1",
     "s1 R", NULL},
    {"SELECT id FROM users UNION ALL SELECT user_id FROM orders", "0A000", "UNION ALL"},
    {"SELECT id FROM users EXCEPT SELECT user_id FROM orders", "0A000", "EXCEPT"},
    {"SELECT * FROM users u TABLESAMPLE SYSTEM (10)", "0A000", "TABLESAMPLE"},
    {"SELECT * FROM users AS u(a, b) WHERE a = 42", "0A000", "renamed"},
    {"SELECT * FROM (users u JOIN orders o ON o.user_id = u.id) AS j WHERE j.id = 42", "0A000",
     "not by key"},
};

static void test_subqueries(void **state)
{
    (void)state;
    RUN(subquery_cases);
}

#define SORTED "rows s0 s1 s2 R: sort by "

static const struct plan_case select_cases[] = {
    {"SELECT * FROM users ORDER BY id", SORTED "\"id\"", NULL},
    {"SELECT * FROM users u ORDER BY u.id DESC", SORTED "\"id\" DESC", NULL},
    {"SELECT id, name FROM users ORDER BY name, id DESC", SORTED "2, 1 DESC", NULL},
    {"SELECT id, name FROM users ORDER BY 2", SORTED "2", NULL},
    {"SELECT name AS n FROM users ORDER BY n NULLS FIRST", SORTED "1 NULLS FIRST", NULL},
    {"SELECT name FROM users ORDER BY name DESC NULLS LAST", SORTED "1 DESC NULLS LAST", NULL},
    {"SELECT u.name FROM users u ORDER BY name", SORTED "1", NULL},
    {"SELECT name FROM users u ORDER BY u.name", SORTED "1", NULL},
    {"SELECT lower(name) FROM users ORDER BY lower(name)", SORTED "1", NULL},
    {"SELECT lower(name) FROM users ORDER BY lower", SORTED "1", NULL},
    {"SELECT name FROM users ORDER BY age", SORTED "hidden 1",
     "SELECT name, age AS pgshunt_hidden_1 FROM users ORDER BY age"},
    {"SELECT name FROM users ORDER BY lower(name), age", SORTED "hidden 1, hidden 2",
     "SELECT name, lower(name) AS pgshunt_hidden_1, age AS pgshunt_hidden_2 FROM users ORDER BY "
     "lower(name), age"},
    {"SELECT * FROM users ORDER BY lower(name)", SORTED "hidden 1",
     "SELECT *, lower(name) AS pgshunt_hidden_1 FROM users ORDER BY lower(name)"},
    {"SELECT *, age * 2 AS twice FROM users ORDER BY twice", SORTED "\"twice\"", NULL},
    {"SELECT age, * FROM users ORDER BY 1", SORTED "1", NULL},
    {"SELECT u.* FROM users u JOIN orders o ON o.user_id = u.id ORDER BY o.total",
     SORTED "hidden 1",
     "SELECT u.*, o.total AS pgshunt_hidden_1 FROM users u JOIN orders o ON o.user_id = u.id ORDER "
     "BY "
     "o.total"},
    {"SELECT age AS name FROM users ORDER BY name", SORTED "1", NULL},
    {"SELECT name FROM users ORDER BY 3", "s0 R", NULL},
    {"SELECT name FROM users ORDER BY 0", "s0 R", NULL},
    {"SELECT id AS x, age AS x FROM users ORDER BY x", "s0 R", NULL},
    {"SELECT name FROM users ORDER BY age USING <", "0A000", "USING"},
    /* collations */
    {"SELECT email FROM users ORDER BY email", SORTED "1", NULL},
    {"SELECT email, name FROM users ORDER BY email, name", "0A000", "collations"},
    {"SELECT email, id FROM users ORDER BY email, id", SORTED "1, 2", NULL},
    {"SELECT nick FROM users ORDER BY nick", "0A000", "collation"},
    {"SELECT nick FROM users ORDER BY lower(nick)", "0A000", "collation"},
    {"SELECT nick FROM users ORDER BY nick COLLATE \"C\"", SORTED "hidden 1",
     "SELECT nick, nick COLLATE \"C\" AS pgshunt_hidden_1 FROM users ORDER BY nick COLLATE \"C\""},
    {"SELECT name FROM users ORDER BY name COLLATE \"de_DE\"", "0A000", "collation"},
    /* LIMIT, OFFSET */
    {"SELECT name FROM users LIMIT 10", "rows s0 s1 s2 R: limit 10", NULL},
    {"SELECT name FROM users LIMIT 0", "rows s0 s1 s2 R: limit 0", NULL},
    {"SELECT name FROM users LIMIT ALL", "rows s0 s1 s2 R: append", NULL},
    {"SELECT name FROM users LIMIT 10 OFFSET 5", "rows s0 s1 s2 R: limit 10, offset 5",
     "SELECT name FROM users LIMIT 15"},
    {"SELECT name FROM users OFFSET 5", "rows s0 s1 s2 R: offset 5", "SELECT name FROM users"},
    {"SELECT name FROM users ORDER BY name FETCH FIRST 3 ROWS ONLY", SORTED "1, limit 3", NULL},
    {"SELECT name FROM users LIMIT 9223372036854775807 OFFSET 5",
     "rows s0 s1 s2 R: limit 9223372036854775807, offset 5",
     "SELECT name FROM users LIMIT 9223372036854775807"},
    {"SELECT name FROM users LIMIT '3'", "rows s0 s1 s2 R: limit 3", NULL},
    {"SELECT name FROM users LIMIT 3::bigint", "rows s0 s1 s2 R: limit 3", NULL},
    {"SELECT name FROM users LIMIT -1", "s0 R", NULL},
    {"SELECT name FROM users LIMIT 1 OFFSET -1", "s0 R", NULL},
    {"SELECT name FROM users LIMIT 1 + 1", "0A000", "LIMIT of an expression"},
    {"SELECT name FROM users LIMIT 2.5", "0A000", "LIMIT of an expression"},
    {"SELECT name FROM users LIMIT (SELECT 3)", "0A000", "LIMIT of an expression"},
    {"SELECT name FROM users ORDER BY name FETCH FIRST 3 ROWS WITH TIES", "0A000", "WITH TIES"},
    /* DISTINCT */
    {"SELECT DISTINCT name FROM users", "rows s0 s1 s2 R: distinct", NULL},
    {"SELECT DISTINCT name FROM users u ORDER BY u.name LIMIT 3",
     "rows s0 s1 s2 R: distinct, sort by 1, limit 3", NULL},
    {"SELECT DISTINCT name FROM users ORDER BY age", "0A000", "DISTINCT"},
    {"SELECT DISTINCT ON (name) name FROM users", "0A000", "DISTINCT ON"},
    /* shapes */
    {"SELECT row_number() OVER () FROM users", "0A000", "window"},
    {"SELECT name FROM users FOR UPDATE", "0A000", "FOR UPDATE"},
    {"SELECT name FROM users WHERE id = 42 FOR UPDATE", "s1 P", NULL},
    {"SELECT geo(name) FROM users", "0A000", "may be an aggregate"},
    {"SELECT geo(name), id FROM users", "rows s0 s1 s2 R: append", NULL},
    {"SELECT lower(name) FROM users", "rows s0 s1 s2 R: append", NULL},
    {"SELECT touch() FROM users WHERE id = 42", "s1 P", NULL},
    {"SELECT 1 FROM users", "rows s0 s1 s2 R: append", NULL},
};

static void test_selects(void **state)
{
    (void)state;
    RUN(select_cases);
}

#define COMBINED "rows s0 s1 s2 R: combine "

static const struct plan_case group_cases[] = {
    {"SELECT count(*) FROM users", COMBINED "count 1", NULL},
    {"SELECT count(*) FROM users WHERE id = 42", "s1 R", NULL},
    {"SELECT count(age), sum(age), min(age), max(name) FROM users",
     COMBINED "count 1, sum 2, min 3, max 4", NULL},
    {"SELECT pg_catalog.count(*) FROM users", COMBINED "count 1", NULL},
    {"SELECT avg(age) FROM users", COMBINED "avg 1",
     "SELECT avg(age), pg_catalog.sum(age) AS pgshunt_hidden_1, pg_catalog.count(age) AS "
     "pgshunt_hidden_2 FROM users"},
    {"SELECT avg(age) FILTER (WHERE age > 3) FROM users", COMBINED "avg 1",
     "SELECT avg(age) FILTER (WHERE age > 3), pg_catalog.sum(age) FILTER (WHERE age > 3) AS "
     "pgshunt_hidden_1, pg_catalog.count(age) FILTER (WHERE age > 3) AS pgshunt_hidden_2 FROM "
     "users"},
    {"SELECT count(*) FILTER (WHERE age > 3) FROM users", COMBINED "count 1", NULL},
    {"SELECT 'x', 7, count(*) FROM users", COMBINED "count 3", NULL},
    {"SELECT age, count(*) FROM users GROUP BY age", COMBINED "count 2 by 1", NULL},
    {"SELECT count(*), age FROM users GROUP BY 2", COMBINED "count 1 by 2", NULL},
    {"SELECT age AS years, count(*) FROM users GROUP BY years", COMBINED "count 2 by 1", NULL},
    {"SELECT count(*) FROM users GROUP BY age", COMBINED "count 1 by 2",
     "SELECT count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT lower(name), count(*) FROM users GROUP BY lower(name)", COMBINED "count 2 by 1", NULL},
    {"SELECT lower(name) AS l, count(*) FROM users GROUP BY l", COMBINED "count 2 by 1", NULL},
    /* a column wins over a name of the select list */
    {"SELECT lower(name) AS name, count(*) FROM users GROUP BY name", COMBINED "count 2 by 3",
     "SELECT lower(name) AS name, count(*), name AS pgshunt_hidden_1 FROM users GROUP BY name"},
    {"SELECT u.country, count(*) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY country",
     COMBINED "count 2 by 1", NULL},
    {"SELECT age, count(*) FROM users GROUP BY age ORDER BY count(*) DESC, age LIMIT 3 OFFSET 1",
     COMBINED "count 2 by 1, sort by 2 DESC, 1, limit 3, offset 1",
     "SELECT age, count(*) FROM users GROUP BY age"},
    {"SELECT age, count(*) AS n FROM users GROUP BY age ORDER BY n",
     COMBINED "count 2 by 1, sort by 2", "SELECT age, count(*) AS n FROM users GROUP BY age"},
    {"SELECT age FROM users GROUP BY age", COMBINED "groups by 1", NULL},
    {"SELECT age FROM users GROUP BY age ORDER BY max(id)", COMBINED "max 2 by 1, sort by 2",
     "SELECT age, max(id) AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT age FROM users GROUP BY age ORDER BY avg(id)", COMBINED "avg 2 by 1, sort by 2",
     "SELECT age, avg(id) AS pgshunt_hidden_1, pg_catalog.sum(id) AS pgshunt_hidden_2, "
     "pg_catalog.count(id) AS pgshunt_hidden_3 FROM users GROUP BY age"},
    {"SELECT count(*) FROM users GROUP BY age ORDER BY age", COMBINED "count 1 by 2, sort by 2",
     "SELECT count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT age + 1, count(*) FROM users GROUP BY age", COMBINED "count 2 by 3",
     "SELECT age + 1, count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT max(DISTINCT age) FROM users", COMBINED "max 1", NULL},
    {"SELECT count(*) FROM users LIMIT 1", COMBINED "count 1, limit 1",
     "SELECT count(*) FROM users"},
    {"SELECT country, count(*) FROM users LEFT JOIN countries ON code = country GROUP BY country",
     COMBINED "count 2 by 1", NULL},
    {"SELECT max(email) FROM users", COMBINED "max 1", NULL},
    {"SELECT max(email), max(name) FROM users", "0A000", "collations"},
    {"SELECT max(nick) FROM users", "0A000", "collation"},
    {"SELECT nick, count(*) FROM users GROUP BY nick", "0A000", "collation"},
    {"SELECT email, name, count(*) FROM users GROUP BY email, name", COMBINED "count 3 by 1, 2",
     NULL},
    {"SELECT count(*) FROM users GROUP BY 5", "s0 R", NULL},
    /* not from parts */
    {"SELECT 1 + count(*) FROM users", "0A000", "expression around an aggregate"},
    {"SELECT count(*)::int FROM users", "0A000", "expression around an aggregate"},
    {"SELECT sum(age) / count(*) FROM users", "0A000", "expression around an aggregate"},
    {"SELECT coalesce(sum(age), 0) FROM users", "0A000", "expression around an aggregate"},
    {"SELECT count(DISTINCT age) FROM users", "0A000", "count(DISTINCT"},
    {"SELECT avg(DISTINCT age) FROM users", "0A000", "avg(DISTINCT"},
    {"SELECT string_agg(name, ',') FROM users", "0A000", "string_agg"},
    {"SELECT array_agg(name ORDER BY id) FROM users", "0A000", "array_agg"},
    {"SELECT bool_and(age > 3) FROM users", "0A000", "bool_and"},
    {"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY age) FROM users", "0A000",
     "percentile_cont"},
    {"SELECT age, geo(age) FROM users GROUP BY age", "0A000", "may be an aggregate"},
    {"SELECT age, count(*) FROM users GROUP BY age HAVING count(*) > 1", "0A000", "HAVING"},
    {"SELECT count(*) FROM users HAVING count(*) > 1", "0A000", "HAVING"},
    {"SELECT age, count(*) FROM users GROUP BY ROLLUP (age)", "0A000", "ROLLUP"},
    {"SELECT DISTINCT count(*) FROM users GROUP BY age", "0A000", "DISTINCT"},
    {"SELECT * FROM users GROUP BY age", "0A000", "GROUP BY"},
    {"SELECT age, count(*) OVER () FROM users GROUP BY age", "0A000", "window"},
    /* groups of the key are whole on their shard */
    {"SELECT user_id, count(*) FROM orders GROUP BY user_id HAVING count(*) > 1 ORDER BY 2 DESC "
     "LIMIT 3",
     SORTED "2 DESC, limit 3", NULL},
    {"SELECT user_id, array_agg(id), 1 + count(DISTINCT id) FROM orders GROUP BY user_id",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT u.id, u.name, sum(total) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT user_id FROM orders GROUP BY user_id, note ORDER BY max(total)", SORTED "hidden 1",
     "SELECT user_id, max(total) AS pgshunt_hidden_1 FROM orders GROUP BY user_id, note ORDER BY "
     "max(total)"},
    {"SELECT user_id, count(*) FROM orders GROUP BY 1 OFFSET 3", "rows s0 s1 s2 R: offset 3",
     "SELECT user_id, count(*) FROM orders GROUP BY 1"},
    {"SELECT o.user_id, array_agg(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP "
     "BY "
     "o.user_id",
     "0A000", "array_agg"},
    {"SELECT u.id, array_agg(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY "
     "u.id",
     "rows s0 s1 s2 R: append", NULL},
};

static void test_groups(void **state)
{
    (void)state;
    RUN(group_cases);
}

static const struct plan_case write_cases[] = {
    {"INSERT INTO users (id, name) VALUES (42, 'x')", "s1 P", NULL},
    {"INSERT INTO users (name, id) VALUES ('x', '42')", "s1 P", NULL},
    {"INSERT INTO users VALUES (42, 'x')", "s1 P", NULL},
    {"INSERT INTO orders VALUES (1, 42)", "s1 P", NULL},
    {"INSERT INTO users (id) VALUES (1), (42)", "s1 P", NULL},
    {"INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b'), (42, 'c') RETURNING id",
     "write s1 s2 P: append",
     "INSERT INTO users (id, name) VALUES (1, 'a'), (42, 'c') RETURNING id"},
    {"INSERT INTO users (id) VALUES (1), (2) ON CONFLICT (id) DO NOTHING", "write s1 s2 P",
     "INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO NOTHING"},
    {"INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b') ON CONFLICT (id) DO UPDATE SET name = "
     "excluded.name, id = excluded.id",
     "write s1 s2 P",
     "INSERT INTO users (id, name) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = "
     "excluded.name, "
     "id = excluded.id"},
    {"INSERT INTO users (id) VALUES ('abc')", "s0 P", NULL},
    {"INSERT INTO tenants (slug) VALUES (42)", "s1 P", NULL},
    {"INSERT INTO tenants (slug) VALUES ('customer_a')", "s2 P", NULL},
    {"INSERT INTO codes (code) VALUES ('customer_a  ')", "s2 P", NULL},
    {"INSERT INTO users (id) VALUES (NULL)", "23502", "null value in \"id\""},
    {"INSERT INTO users (id) VALUES (1), (NULL)", "23502", "null value in \"id\""},
    {"INSERT INTO users (id) VALUES (DEFAULT)", "23502", "\"id\""},
    {"INSERT INTO users (name) VALUES ('x')", "23502", "\"id\""},
    {"INSERT INTO users DEFAULT VALUES", "23502", "\"id\""},
    {"INSERT INTO orders VALUES (1)", "23502", "\"user_id\""},
    {"INSERT INTO users (id) VALUES (1.5)", "0A000", "cannot be known"},
    {"INSERT INTO users (id) VALUES (1 + 1)", "0A000", "cannot be known"},
    {"INSERT INTO users (id) VALUES (nextval('s'))", "0A000", "cannot be known"},
    {"INSERT INTO users (id) SELECT 42", "s1 P", NULL},
    {"INSERT INTO users (id, name) SELECT 42, title FROM countries", "s1 P", NULL},
    {"INSERT INTO orders (user_id, id) SELECT id, 1 FROM users WHERE id = 42", "s1 P", NULL},
    {"INSERT INTO orders (user_id, id) SELECT id, 1 FROM users", "0A000", "INSERT ... SELECT"},
    {"INSERT INTO orders (user_id, id) SELECT 2, 1 FROM users WHERE id = 42", "0A000",
     "INSERT ... SELECT"},
    {"INSERT INTO orders (user_id, id) SELECT age, 1 FROM users WHERE id = 42", "0A000",
     "INSERT ... SELECT"},
    {"INSERT INTO users SELECT * FROM users WHERE id = 42", "0A000", "INSERT ... SELECT"},
    {"INSERT INTO users (id) SELECT id FROM logs", "0A000", "\"logs\""},
    {"INSERT INTO logs (id) VALUES (1)", "s0 P", NULL},
    {"INSERT INTO logs (id) SELECT id FROM users WHERE id = 3", "s0 P", NULL},
    {"INSERT INTO logs (id) SELECT id FROM users WHERE id = 42", "0A000", "\"logs\""},
    {"INSERT INTO users (id) VALUES (42) ON CONFLICT (id) DO UPDATE SET id = 1", "s1 P", NULL},
    {"INSERT INTO users (id) VALUES (42) ON CONFLICT (id) DO UPDATE SET id = 2", "0A000", "move"},
    /* UPDATE, DELETE, MERGE */
    {"UPDATE users SET name = 'x' WHERE id = 42", "s1 P", NULL},
    {"UPDATE users SET name = 'x'", "write s0 s1 s2 P", NULL},
    {"UPDATE users SET name = 'x' WHERE id IN (1, 2) RETURNING *", "write s1 s2 P: append", NULL},
    {"UPDATE users SET id = 7 WHERE id = 42", "0A000", "move"},
    {"UPDATE users SET id = 1 WHERE id = 42", "s1 P", NULL},
    {"UPDATE users SET id = id + 1 WHERE id = 42", "0A000", "move"},
    {"UPDATE users SET id = 1", "0A000", "move"},
    {"UPDATE users SET id = id", "write s0 s1 s2 P", NULL},
    {"UPDATE users SET (id, name) = (42, 'x') WHERE id = 42", "s1 P", NULL},
    {"UPDATE users SET (id, name) = (2, 'x') WHERE id = 42", "0A000", "move"},
    {"UPDATE users u SET name = o.note FROM orders o WHERE o.user_id = u.id", "write s0 s1 s2 P",
     NULL},
    {"UPDATE users u SET name = o.note FROM orders o WHERE o.user_id = u.id AND u.id = 42", "s1 P",
     NULL},
    {"UPDATE users u SET name = o.note FROM orders o WHERE o.id = u.age", "0A000", "not by key"},
    {"UPDATE users SET country = c.title FROM countries c WHERE c.code = country",
     "write s0 s1 s2 P", NULL},
    {"UPDATE users SET name = l.msg FROM logs l WHERE l.uid = users.id", "0A000", "\"logs\""},
    {"UPDATE logs SET msg = u.name FROM users u WHERE u.id = uid", "0A000", "\"logs\""},
    {"UPDATE users SET age = (SELECT max(age) FROM users)", "0A000", "tied"},
    {"UPDATE users SET age = (SELECT count(*) FROM orders o WHERE o.user_id = users.id)",
     "write s0 s1 s2 P", NULL},
    {"DELETE FROM users WHERE id = 42", "s1 P", NULL},
    {"DELETE FROM users WHERE age > 3", "write s0 s1 s2 P", NULL},
    {"DELETE FROM orders USING users u WHERE u.id = user_id AND u.age = 3", "write s0 s1 s2 P",
     NULL},
    {"DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 3)", "0A000", "tied"},
    {"WITH x AS (SELECT 1) DELETE FROM users", "0A000", "WITH"},
    {"MERGE INTO users t USING countries c ON t.id = 42 WHEN MATCHED THEN UPDATE SET name = "
     "c.title",
     "s1 P", NULL},
    {"MERGE INTO users t USING countries c ON t.id = 42 WHEN NOT MATCHED THEN INSERT (id) VALUES "
     "(1)",
     "s1 P", NULL},
    {"MERGE INTO users t USING countries c ON t.id = 42 WHEN NOT MATCHED THEN INSERT (id) VALUES "
     "(2)",
     "0A000", "move"},
    {"MERGE INTO users t USING countries c ON t.id = 42 WHEN NOT MATCHED THEN INSERT (name) VALUES "
     "('x')",
     "0A000", "MERGE"},
    {"MERGE INTO users t USING orders o ON t.id = o.user_id AND t.id = 42 WHEN MATCHED THEN DELETE",
     "0A000", "MERGE"},
    {"MERGE INTO users t USING (SELECT * FROM orders WHERE user_id = 42) o ON t.id = 42 WHEN "
     "MATCHED THEN "
     "DELETE",
     "s1 P", NULL},
    /* reference tables */
    {"INSERT INTO countries VALUES ('de', 'Germany')", "all s0 s1 s2 P", NULL},
    {"UPDATE countries SET title = 'x' WHERE code = 'de'", "all s0 s1 s2 P", NULL},
    {"DELETE FROM countries", "all s0 s1 s2 P", NULL},
    {"INSERT INTO countries SELECT code, title FROM countries", "all s0 s1 s2 P", NULL},
    {"INSERT INTO countries VALUES ('x', random()::text)", "0A000", "random"},
    {"INSERT INTO countries VALUES ('x', now()::text)", "0A000", "now"},
    {"INSERT INTO countries VALUES ('x', CURRENT_TIMESTAMP::text)", "0A000", "CURRENT_TIMESTAMP"},
    {"INSERT INTO countries VALUES ('x', touch())", "0A000", "touch"},
    {"INSERT INTO countries SELECT msg, msg FROM logs", "0A000", "\"logs\""},
    {"INSERT INTO countries SELECT name, name FROM users WHERE id = 42", "0A000", "countries"},
};

static void test_writes(void **state)
{
    (void)state;
    RUN(write_cases);
}

static const struct plan_case utility_cases[] = {
    {"CREATE TABLE users (id bigint)", "all s0 s1 s2 P", NULL},
    {"CREATE TABLE countries (code text)", "all s0 s1 s2 P", NULL},
    {"CREATE TABLE other (id bigint)", "s0 P", NULL},
    {"CREATE TEMP TABLE users (id bigint)", "s0 P", NULL},
    {"CREATE TABLE orders (user_id bigint REFERENCES users (id))", "all s0 s1 s2 P", NULL},
    {"CREATE TABLE orders (log bigint REFERENCES logs (id))", "0A000", "\"logs\""},
    {"CREATE TABLE other (user_id bigint REFERENCES users (id))", "0A000", "\"users\""},
    {"CREATE TABLE other (code text REFERENCES countries (code))", "s0 P", NULL},
    {"CREATE TABLE other (LIKE users)", "s0 P", NULL},
    {"CREATE TABLE users_p PARTITION OF users FOR VALUES FROM (1) TO (2)", "all s0 s1 s2 P", NULL},
    {"CREATE TABLE other AS SELECT * FROM users WHERE id = 3", "s0 P", NULL},
    {"CREATE TABLE other AS SELECT * FROM users WHERE id = 42", "0A000", "s1"},
    {"CREATE TABLE other AS SELECT * FROM users", "0A000", "several shards"},
    {"CREATE TABLE other AS SELECT * FROM countries", "s0 P", NULL},
    {"CREATE TABLE users AS SELECT 1", "0A000", "every shard"},
    {"SELECT * INTO other FROM users", "0A000", "several shards"},
    {"SELECT * INTO other FROM logs", "s0 P", NULL},
    {"ALTER TABLE users ADD COLUMN x int", "all s0 s1 s2 P", NULL},
    {"ALTER TABLE users ATTACH PARTITION p DEFAULT", "all s0 s1 s2 P", NULL},
    {"ALTER TABLE logs ADD COLUMN x int", "s0 P", NULL},
    {"ALTER TABLE logs ADD FOREIGN KEY (uid) REFERENCES users (id)", "0A000", "\"users\""},
    {"DROP TABLE users, orders", "all s0 s1 s2 P", NULL},
    {"DROP TABLE logs", "s0 P", NULL},
    {"DROP TABLE users, logs", "0A000", "together"},
    {"TRUNCATE users", "all s0 s1 s2 P", NULL},
    {"TRUNCATE countries, users", "all s0 s1 s2 P", NULL},
    {"TRUNCATE logs", "s0 P", NULL},
    {"TRUNCATE logs, users", "0A000", "together"},
    {"CREATE INDEX i ON users (name)", "all s0 s1 s2 P", NULL},
    {"CREATE INDEX CONCURRENTLY i ON users (name)", "all s0 s1 s2 P notx", NULL},
    {"CREATE INDEX i ON logs (msg)", "s0 P", NULL},
    {"DROP INDEX i", "all s0 s1 s2 P", NULL},
    {"DROP INDEX CONCURRENTLY i", "all s0 s1 s2 P notx", NULL},
    {"CREATE VIEW v AS SELECT * FROM users", "all s0 s1 s2 P", NULL},
    {"CREATE VIEW v AS SELECT * FROM logs", "s0 P", NULL},
    {"CREATE VIEW v AS SELECT * FROM logs, users", "0A000", "view"},
    {"DROP VIEW v", "all s0 s1 s2 P", NULL},
    {"CREATE SEQUENCE q", "all s0 s1 s2 P", NULL},
    {"GRANT SELECT ON users TO bob", "all s0 s1 s2 P", NULL},
    {"GRANT SELECT ON logs TO bob", "s0 P", NULL},
    {"GRANT USAGE ON SEQUENCE q TO bob", "all s0 s1 s2 P", NULL},
    {"GRANT USAGE ON log_seq TO bob", "all s0 s1 s2 P", NULL},
    {"CREATE EXTENSION hstore", "all s0 s1 s2 P", NULL},
    {"CREATE TYPE t AS ENUM ('a')", "all s0 s1 s2 P", NULL},
    {"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "all s0 s1 s2 P", NULL},
    {"CREATE ROLE bob", "all s0 s1 s2 P", NULL},
    {"CREATE SCHEMA app", "all s0 s1 s2 P", NULL},
    {"CREATE TRIGGER t AFTER INSERT ON users EXECUTE FUNCTION f()", "all s0 s1 s2 P", NULL},
    {"CREATE TRIGGER t AFTER INSERT ON logs EXECUTE FUNCTION f()", "s0 P", NULL},
    {"VACUUM", "all s0 s1 s2 P notx", NULL},
    {"VACUUM users", "all s0 s1 s2 P notx", NULL},
    {"VACUUM logs", "s0 P notx", NULL},
    {"ANALYZE", "all s0 s1 s2 P", NULL},
    {"LOCK TABLE logs", "s0 P", NULL},
    {"LOCK TABLE users", "0A000", "LOCK"},
    {"LOCK TABLE countries", "0A000", "LOCK"},
    {"CALL p(1)", "s0 P", NULL},
    {"CALL p((SELECT max(id) FROM users))", "0A000", "CALL"},
    {"DO 'BEGIN END'", "s0 P", NULL},
    {"COPY users FROM STDIN", "0A000", "COPY FROM"},
    {"COPY users TO STDOUT", "0A000", "COPY of"},
    {"COPY countries FROM STDIN", "0A000", "countries"},
    {"COPY countries TO STDOUT", "s0 R any", NULL},
    {"COPY logs FROM STDIN", "s0 P", NULL},
    {"COPY (SELECT * FROM users WHERE id = 42) TO STDOUT", "s1 R", NULL},
    {"COPY (SELECT * FROM users) TO STDOUT", "0A000", "COPY"},
    {"DECLARE c CURSOR FOR SELECT * FROM users WHERE id = 42", "s1 P", NULL},
    {"DECLARE c CURSOR FOR SELECT * FROM users", "0A000", "cursor"},
    {"EXPLAIN SELECT * FROM users WHERE id = 42", "s1 R", NULL},
    {"EXPLAIN SELECT name FROM users ORDER BY age", SORTED "hidden 1",
     "EXPLAIN SELECT name, age AS pgshunt_hidden_1 FROM users ORDER BY age"},
    {"EXPLAIN (ANALYZE) UPDATE users SET name = 'x'", "write s0 s1 s2 P", NULL},
    {"EXPLAIN INSERT INTO users (id) VALUES (1), (2)", "write s1 s2 P",
     "EXPLAIN INSERT INTO users (id) VALUES (1)"},
    {"EXPLAIN INSERT INTO countries VALUES ('x')", "all s0 s1 s2 P", NULL},
    {"EXPLAIN SELECT DISTINCT ON (id) * FROM users", "0A000", "DISTINCT ON"},
    {"PREPARE q AS SELECT * FROM users", "s0 P any", NULL},
    {"EXECUTE q", "s0 P any", NULL},
    {"DEALLOCATE q", "s0 P any", NULL},
    {"BEGIN", "s0 P any", NULL},
    {"COMMIT", "s0 P any", NULL},
    {"SAVEPOINT a", "s0 P any", NULL},
    {"SET x.y = 1", "s0 P any", NULL},
    {"SHOW work_mem", "s0 R any", NULL},
    {"LISTEN x", "s0 P", NULL},
    {"NOTIFY x", "s0 P", NULL},
    {"CHECKPOINT", "s0 P any", NULL},
    /* not understood */
    {"SELEC * FROM logs", "s0 P", NULL},
    {"SELEC * FROM users", "0A000", "not understood"},
    {"SELEC * FROM Public.\"users\"", "0A000", "not understood"},
    {"FROB countries", "0A000", "not understood"},
    /* hints */
    {"SELECT * FROM users /* pgshunt: shard=s2 */", "s2 R", NULL},
    {"SELECT * FROM users WHERE id = 42 /* pgshunt: shard=s2 */", "s2 R", NULL},
    {"/* pgshunt: shard=s9 */ SELECT 1", "22023", "s9"},
    {"/* pgshunt: shard=all */ SELECT 1", "22023", "all"},
    {"/* pgshunt: shard=all */ CREATE INDEX ON users_p (name)", "all s0 s1 s2 P", NULL},
    {"/* pgshunt: shard=s1 */ COPY users FROM STDIN", "s1 P", NULL},
    {"/* pgshunt: shard=s1 */ SELEC * FROM users", "s1 P", NULL},
    {"/* pgshunt: key=42 */ SELECT * FROM users", "s1 R", NULL},
    {"/* pgshunt: key=42 */ SELECT row_number() OVER () FROM users", "s1 R", NULL},
    {"/* pgshunt: key=42 */ SELECT * FROM users WHERE id = 2", "s2 R", NULL},
    {"/* pgshunt: key=42 */ SELECT * FROM users WHERE id IN (1, 2)", "rows s1 s2 R: append", NULL},
    {"/* pgshunt: key=42 */ SELECT geo(1)", "s1 R", NULL},
    {"/* pgshunt: key=42 */ INSERT INTO users (id) VALUES (2)", "s2 P", NULL},
    {"/* pgshunt: key=42 */ INSERT INTO users (name) VALUES ('x')", "s1 P", NULL},
    {"/* pgshunt: key=42 */ INSERT INTO users (id) VALUES (1), (2)", "write s1 s2 P",
     "INSERT INTO users (id) VALUES (1)"},
    {"/* pgshunt: key=42 */ INSERT INTO countries VALUES ('x')", "all s0 s1 s2 P", NULL},
    {"/* pgshunt: key=42 */ SELECT * FROM logs", "s0 R", NULL},
    {"/* pgshunt: key=42 */ UPDATE users SET id = 2", "0A000", "move"},
    {"/* pgshunt: key=42 */ LOCK TABLE users", "s1 P", NULL},
    {"/* pgshunt: key=42 */ CALL p(1)", "s1 P", NULL},
    {"/* pgshunt: key=abc */ SELECT * FROM users", "22P02", "abc"},
    {"/* pgshunt: primary */ SELECT * FROM users WHERE id = 42", "s1 P", NULL},
};

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
     "0A000",
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

/* ---- sessions ---- */

struct session_case {
    const char *sql;
    struct route_session session;
    const char *plan;
};

static const struct session_case session_cases[] = {
    {"SELECT * FROM users WHERE id = 42", {.force_primary = true}, "s1 P"},
    {"SELECT * FROM users WHERE id = 42",
     {.in_transaction = true, .transaction_shard = -1},
     "s1 P"},
    {"SELECT * FROM users WHERE id = 42",
     {.in_transaction = true, .read_only = true, .transaction_shard = -1},
     "s1 R"},
    {"SELECT 1", {.in_transaction = true, .transaction_shard = 2}, "s2 P any"},
    {"SELECT * FROM countries", {.in_transaction = true, .transaction_shard = 2}, "s2 P any"},
    {"SELECT touch()", {.in_transaction = true, .transaction_shard = 2}, "s2 P"},
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
    input.statement = parse_one("SELECT DISTINCT ON (id) * FROM users");
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(router_explain(&plan, fix.map, &fix.arena, &lines), 3);
    assert_string_equal(lines[0], "pgshunt: refused");
    assert_string_equal(lines[1],
                        "  refused: DISTINCT ON over several shards is not supported yet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),         cmocka_unit_test(test_joins),
        cmocka_unit_test(test_subqueries),   cmocka_unit_test(test_selects),
        cmocka_unit_test(test_groups),       cmocka_unit_test(test_writes),
        cmocka_unit_test(test_utilities),    cmocka_unit_test(test_params),
        cmocka_unit_test(test_limit_values), cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_write_flag),   cmocka_unit_test(test_one_shard),
        cmocka_unit_test(test_lists),        cmocka_unit_test(test_without_schema),
        cmocka_unit_test(test_soundness),    cmocka_unit_test(test_large),
        cmocka_unit_test(test_explain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
