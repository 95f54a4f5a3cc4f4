/* test_reduce.c: semi-joins of a gather: which there are, what is fetched when, and what is sent for it. */
#include "pgshunt/buffer.h"
#include "pgshunt/reduce.h"
#include "pgshunt/wire.h"
#include "plan_support.h"

static const struct gather_plan *plan_gathered(const char *sql, const struct route_session *session)
{
    static struct plan plan;
    struct statement_list list = statement_parse(sql, &fix.arena);
    struct route_input input = {
        .statement = list.items[0], .map = fix.map, .schema = fix.schema, .session = session};
    router_plan(&input, &fix.arena, &plan);
    if (plan.kind != PLAN_SCATTER || plan.mode != SCATTER_GATHER)
        fail_msg("not gathered: %s", sql);
    return plan.gather;
}

/* "orders.id<users.age; ..." */
static const char *edges_of(const struct gather_plan *gather)
{
    const char *text = "";
    for (int i = 0; i < gather->nedges; i++) {
        const struct gather_edge *edge = &gather->edges[i];
        text =
            arena_printf(&fix.arena, "%s%s%s%s.%s<%s.%s%s", text, *text ? "; " : "",
                         gather->tables[edge->table].name, edge->mention ? "'" : "", edge->column,
                         edge->source_name, edge->source_column, edge->keyspace ? " by key" : "");
    }
    return text;
}

static const struct {
    const char *sql, *edges;
} cases[] = {
    {"SELECT 1 FROM users u JOIN orders o ON o.id = u.age",
     "orders.id<users.age; users.age<orders.id"},
    {"SELECT 1 FROM users u, orders o WHERE total = 1 AND age = o.id",
     "users.age<orders.id; orders.id<users.age"},
    {"SELECT 1 FROM users u LEFT JOIN orders o ON o.id = u.age", "orders.id<users.age"},
    {"SELECT 1 FROM users u RIGHT JOIN orders o ON o.id = u.age", "users.age<orders.id"},
    {"SELECT 1 FROM users u FULL JOIN orders o ON o.id = u.age", ""},
    {"SELECT 1 FROM users u LEFT JOIN orders o ON true WHERE o.id = u.age",
     "orders.id<users.age; users.age<orders.id"},
    {"SELECT 1 FROM users u JOIN orders o ON o.id = u.age OR o.id = 3", ""},
    {"SELECT 1 FROM users u JOIN orders o ON NOT o.id = u.age", ""},
    {"SELECT 1 FROM users u JOIN orders o ON o.id > u.age", ""},
    {"SELECT 1 FROM users u JOIN orders o ON o.id OPERATOR(mine.=) u.age", ""},
    {"SELECT 1 FROM users u JOIN orders o ON o.id OPERATOR(pg_catalog.=) u.age",
     "orders.id<users.age; users.age<orders.id"},
    {"SELECT 1 FROM users u JOIN orders o ON o.total = u.age", ""}, /* numeric, int4 */
    {"SELECT 1 FROM users u JOIN orders o ON o.note = u.nick", ""}, /* collations */
    {"SELECT 1 FROM users u JOIN orders o ON o.note = u.email", ""},
    {"SELECT 1 FROM users u JOIN orders o ON o.note = u.name COLLATE \"C\"", ""},
    {"SELECT 1 FROM users u JOIN orders o ON o.note = u.name",
     "orders.note<users.name; users.name<orders.note"},
    {"SELECT 1 FROM users u JOIN tenants t ON t.slug = u.country",
     "tenants.slug<users.country by key; users.country<tenants.slug"},
    {"SELECT 1 FROM users u JOIN codes c ON c.code = u.country, orders o WHERE u.age = o.id",
     "users.age<orders.id; orders.id<users.age"},
    {"SELECT 1 FROM users a JOIN users b ON a.age = b.id", ""},
    {"SELECT 1 FROM users a JOIN orders o ON o.id = a.age JOIN users b ON b.age = o.id",
     "users'.age<orders.id; orders.id<users.age; orders.id<users.age; users.age<orders.id"},
    {"SELECT 1 FROM users u JOIN orders o USING (id)",
     "users.id<orders.id by key; orders.id<users.id"},
    {"SELECT 1 FROM users u LEFT JOIN orders o USING (id)", "orders.id<users.id"},
    {"SELECT 1 FROM (users u JOIN orders o ON o.id = u.age) AS j (x) WHERE j.x = 1",
     "orders.id<users.age; users.age<orders.id"},
    {"SELECT 1 FROM users u, LATERAL (SELECT 1 FROM orders o WHERE o.id = u.age) l", ""},
    {"SELECT 1 FROM users WHERE age IN (SELECT id FROM orders)",
     "users.age<orders.id; orders.id<users.age"},
    {"SELECT 1 FROM users WHERE age NOT IN (SELECT id FROM orders)", ""},
    {"SELECT 1 FROM users WHERE age IN (SELECT id FROM orders LIMIT 3)", "users.age<orders.id"},
    {"SELECT 1 FROM users WHERE age IN (SELECT id FROM orders UNION SELECT 3)", ""},
    {"SELECT 1 FROM users WHERE age > ANY (SELECT id FROM orders)", ""},
    {"SELECT 1 FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.id = u.age)",
     "users.age<orders.id; orders.id<users.age"},
    {"SELECT 1 FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.id = u.age)",
     "orders.id<users.age"},
    {"SELECT 1 FROM users u WHERE EXISTS (SELECT count(*) FROM orders o WHERE o.id = u.age)",
     "orders.id<users.age"},
    {"SELECT (SELECT count(*) FROM orders o WHERE o.id = u.age) FROM users u",
     "orders.id<users.age"},
    {"SELECT 1 FROM users o WHERE EXISTS (SELECT 1 FROM orders o WHERE o.id = o.age)", ""},
    {"SELECT 1 FROM users WHERE EXISTS (SELECT 1 FROM orders WHERE total = age)", ""},
    {"SELECT 1 FROM users u JOIN logs l ON l.id = u.age WHERE l.msg = 'x'", "users.age<logs.id"},
    {"WITH logs AS (SELECT 1 AS id) SELECT 1 FROM users u JOIN logs l ON l.id = u.age, orders", ""},
};

static void test_edges(void **state)
{
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *found = edges_of(plan_gathered(cases[i].sql, NULL));
        if (strcmp(found, cases[i].edges) != 0 && ++wrong)
            print_error("%s\n found %s\nwanted %s\n", cases[i].sql, found, cases[i].edges);
    }
    assert_int_equal(wrong, 0);
}

/* What the gathering server has itself: by its own conditions, and only where the query sees the same. */
static void test_local(void **state)
{
    (void)state;
    const char *sql = "SELECT 1 FROM users u JOIN logs l ON l.id = u.age WHERE l.msg = 'x'";
    const struct gather_plan *gather = plan_gathered(sql, NULL);
    assert_true(gather->steady);
    assert_int_equal(gather->edges[0].source, -1);
    assert_string_equal(gather->edges[0].rows.sql, "SELECT id FROM logs l WHERE msg = 'x'");
    gather = plan_gathered(
        sql, &(struct route_session){.in_transaction = true, .transaction_shard = -1});
    assert_int_equal(gather->nedges, 0);
    gather = plan_gathered("SELECT (SELECT count(*) FROM users u WHERE u.age = l.id) FROM logs l "
                           "WHERE l.msg = 'x'",
                           NULL);
    assert_string_equal(gather->edges[0].rows.sql, "SELECT id FROM logs l");
    gather = plan_gathered("INSERT INTO logs (id) SELECT u.id FROM users u JOIN logs l ON l.id = "
                           "u.age",
                           NULL);
    assert_int_equal(gather->nedges, 0);
    assert_false(gather->steady);
}

/* Three tables, each joined with the next. */
static void test_order(void **state)
{
    (void)state;
    struct reduce_table tables[3] = {{.expected = 50000}, {.expected = 2000}, {.expected = 100000}};
    double local[8] = {0};
    int edges[4];
    struct reduce_state r = {
        .plan = plan_gathered("SELECT 1 FROM users u, orders o, files f WHERE o.id = u.age AND "
                              "f.size = o.id AND u.country = 'x'",
                              NULL),
        .limits = {.values = 1000, .factor = 4},
        .tables = tables,
        .local = local};
    assert_true(reduce_possible(&r, 0) && reduce_possible(&r, 1) && reduce_possible(&r, 2));
    assert_int_equal(reduce_next(&r), 1);
    assert_int_equal(reduce_edges(&r, 1, edges), 0); /* nothing is there yet */
    tables[1].fetched = true;
    tables[1].rows = 300;
    assert_int_equal(reduce_next(&r), 0);
    assert_int_equal(reduce_edges(&r, 0, edges), 1);
    assert_string_equal(r.plan->edges[edges[0]].source_name, "orders");
    assert_true(reduce_pays(&r, 0, 300));
    assert_false(reduce_pays(&r, 0, 1001)); /* the limit */
    tables[0].expected = 999;
    assert_false(reduce_pays(&r, 0, 1)); /* 4 * 250 */
    assert_int_equal(reduce_edges(&r, 0, edges), 0);
    r.limits.factor = 0;
    assert_int_equal(reduce_edges(&r, 0, edges), 1);
    tables[1].rows = 20000; /* too many to look for values among */
    assert_int_equal(reduce_edges(&r, 0, edges), 0);
    tables[1].rows = 0;
    r.limits.values = 0;
    assert_int_equal(reduce_edges(&r, 0, edges), 0);
    tables[0].fetched = tables[2].fetched = true;
    assert_int_equal(reduce_next(&r), -1);
}

/* Each mention of a table must have an edge. */
static void test_mentions(void **state)
{
    (void)state;
    struct reduce_table tables[2] = {{.expected = 50000},
                                     {.expected = 3, .fetched = true, .rows = 3}};
    double local[8] = {0};
    int edges[4];
    struct reduce_state r = {
        .plan = plan_gathered("SELECT 1 FROM users a, orders o, users b WHERE o.id = a.age AND "
                              "b.id = o.id",
                              NULL),
        .limits = {.values = 1000, .factor = 4},
        .tables = tables,
        .local = local};
    assert_int_equal(reduce_edges(&r, 0, edges), 2);
    r.plan = plan_gathered("SELECT 1 FROM users a, orders o, users b WHERE o.id = a.age", NULL);
    assert_int_equal(reduce_edges(&r, 0, edges), 0);
    assert_false(reduce_possible(&r, 0));
}

static struct param int8_array(const int64_t *values, int count)
{
    struct buffer out = {0};
    wire_put32(&out, 1);
    wire_put32(&out, 0);
    wire_put32(&out, OID_INT8);
    wire_put32(&out, count);
    wire_put32(&out, 1);
    for (int i = 0; i < count; i++) {
        wire_put32(&out, 8);
        wire_put32(&out, (int32_t)(values[i] >> 32));
        wire_put32(&out, (int32_t)values[i]);
    }
    struct param array = {.bytes =
                              arena_strndup(&fix.arena, buffer_head(&out), buffer_length(&out)),
                          .length = (int)buffer_length(&out),
                          .binary = true};
    buffer_release(&out);
    return array;
}

static void test_values_of_a_shard(void **state)
{
    (void)state;
    static const int64_t values[] = {3, 1, 42, 2, 4, 5, 7};
    static const int counts[] = {1, 2, 4};
    struct param all = int8_array(values, 7);
    const struct gather_plan *gather =
        plan_gathered("SELECT 1 FROM users u JOIN orders o ON o.id = u.id", NULL);
    const struct gather_edge *by_key = &gather->edges[gather->edges[0].keyspace ? 0 : 1],
                             *other = &gather->edges[gather->edges[0].keyspace ? 1 : 0];
    assert_non_null(by_key->keyspace);
    assert_true(reduce_takes(by_key, &all, 7, &fix.arena));
    assert_false(reduce_takes(by_key, &all, 6, &fix.arena));
    for (unsigned shard = 0; shard < 3; shard++) {
        struct param own = reduce_for_shard(fix.map, by_key, &all, shard, &fix.arena);
        assert_true(reduce_takes(by_key, &own, counts[shard], &fix.arena));
        own = reduce_for_shard(fix.map, other, &all, shard, &fix.arena);
        assert_int_equal(own.length, all.length);
    }
    struct param one = int8_array(values, 1),
                 none = reduce_for_shard(fix.map, by_key, &one, 1, &fix.arena);
    assert_true(reduce_is_empty(&none));
    assert_false(reduce_is_empty(&one));
    assert_true(reduce_takes(by_key, &none, 0, &fix.arena));
    assert_true(reduce_is_empty(&none));
}

/* The client's parameters keep their numbers, the arrays come behind them. */
static void test_texts(void **state)
{
    (void)state;
    static const int64_t values[] = {3};
    static const int used[] = {2};
    struct param items[3] = {{"a", 1, false, 0}, {"b", 1, false, 0}, {"c", 1, false, 0}};
    struct params client = {items, 3};
    struct param array = int8_array(values, 1);
    const struct gather_plan *gather =
        plan_gathered("SELECT 1 FROM users u JOIN orders o ON o.id = u.id", NULL);
    const struct gather_edge *edges[] = {&gather->edges[0], &gather->edges[1]};
    struct param arrays[] = {array, array};
    struct shard_query plain = {.sql = "SELECT x WHERE y = $1", .params = used, .nparams = 1};
    struct shard_query query = reduce_query(&plain, &client, edges, arrays, 1, &fix.arena);
    assert_string_equal(query.sql, "SELECT * FROM (SELECT x WHERE y = $1) AS pgshunt_rows WHERE "
                                   "pgshunt_rows.\"id\" = ANY ($2::pg_catalog.int8[])");
    assert_int_equal(query.nparams, 2);
    assert_int_equal(query.params[0], 2);
    assert_int_equal(query.params[1], 3);
    assert_ptr_equal(query.values[2].bytes, items[2].bytes);
    assert_ptr_equal(query.values[3].bytes, array.bytes);
    plain = (struct shard_query){.sql = "SELECT x"};
    query = reduce_query(&plain, NULL, edges, arrays, 2, &fix.arena);
    assert_string_equal(query.sql,
                        "SELECT * FROM (SELECT x) AS pgshunt_rows WHERE pgshunt_rows.\"id\" = ANY "
                        "($1::pg_catalog.int8[]) OR pgshunt_rows.\"id\" = ANY "
                        "($2::pg_catalog.int8[])");
    assert_int_equal(query.nparams, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_mentions),
        cmocka_unit_test(test_values_of_a_shard),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
