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
#include "plan_write_cases.h"

/*
 * Three shards with a third of the buckets each. Of the keys used below, 3 lives on s0; 1 and 42 on
 * s1; 2, 4, 5 and 7 on s2.
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
            fix.schema,                                                                            \
            &(struct schema_relation){.schema = "public",                                          \
                                      .name = name_,                                               \
                                      .kind = kind_,                                               \
                                      .persistence = 'p',                                          \
                                      .columns = columns_,                                         \
                                      .ncolumns = (int)(sizeof columns_ / sizeof columns_[0])});   \
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

/* A partition of a partition of orders, and children of an unsharded and of a reference table. */
static void add_children(void)
{
    static struct schema_column columns[] = {{"user_id", OID_INT8, true, NULL},
                                             {"id", OID_INT8, true, NULL}};
    static const char *const children[][4] = {{"public", "orders_2024", "public", "orders"},
                                              {"parts", "orders_2024_01", "public", "orders_2024"},
                                              {"public", "logs_1", "public", "logs"},
                                              {"public", "countries_eu", "public", "countries"},
                                              {"a", "orders_2025", "public", "orders"},
                                              {"b", "orders_2025", "public", "orders"},
                                              {"public", "loop", "public", "loop"}};
    for (size_t i = 0; i < sizeof children / sizeof children[0]; i++)
        schema_add_relation(fix.schema, &(struct schema_relation){.schema = children[i][0],
                                                                  .name = children[i][1],
                                                                  .kind = 'r',
                                                                  .persistence = 'p',
                                                                  .columns = columns,
                                                                  .ncolumns = 2,
                                                                  .parent_schema = children[i][2],
                                                                  .parent = children[i][3]});
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
    shardmap_add_table(fix.map, "fresh", users, "id"); /* not in the schema */
    shardmap_add_table(fix.map, "countries", -1, NULL);
    fix.one = shardmap_new(&(struct shardmap_builder){names, NULL, 1});
    fix.schema = schema_new();
    schema_set_collation(fix.schema, "en_US.UTF-8", 'c');
    add_relations();
    add_children();
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

static void test_keys(void **state)
{
    (void)state;
    RUN(key_cases);
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
    return plan.needs_schema;
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
        cmocka_unit_test(test_keys),           cmocka_unit_test(test_partitions),
        cmocka_unit_test(test_joins),          cmocka_unit_test(test_subqueries),
        cmocka_unit_test(test_selects),        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_writes),         cmocka_unit_test(test_utilities),
        cmocka_unit_test(test_params),         cmocka_unit_test(test_limit_values),
        cmocka_unit_test(test_sessions),       cmocka_unit_test(test_write_flag),
        cmocka_unit_test(test_row_source),     cmocka_unit_test(test_create_as),
        cmocka_unit_test(test_needs_schema),   cmocka_unit_test(test_foreign_encoding),
        cmocka_unit_test(test_foreign_params), cmocka_unit_test(test_one_shard),
        cmocka_unit_test(test_lists),          cmocka_unit_test(test_without_schema),
        cmocka_unit_test(test_soundness),      cmocka_unit_test(test_large),
        cmocka_unit_test(test_bounds),         cmocka_unit_test(test_explain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
