/* test_plan_split.c: lists of keys over several shards: each shard gets its own elements. */
#include "pgshunt/buffer.h"
#include "plan_support.h"

struct split_case {
    const char *sql;
    struct param params[4];
    int count;
    const char *parts; /* "s1: SQL [value, value]; s2: ..." */
};

#define TEXT_PARAM(text_)                                                                          \
    {                                                                                              \
        (text_), sizeof(text_) - 1, false, 0                                                       \
    }
#define BINARY_PARAM(bytes_, oid_)                                                                 \
    {                                                                                              \
        (bytes_), sizeof(bytes_) - 1, true, (oid_)                                                 \
    }

#define S "SELECT * FROM users WHERE id "

static const struct split_case cases[] = {
    {S "IN (1, 2)", {{0}}, 0, "s1: " S "IN (1); s2: " S "IN (2)"},
    {S "IN (1, /* , */ 2, '42', 3::int)",
     {{0}},
     0,
     "s0: " S "IN (3::int); s1: " S "IN (1, '42'); s2: " S "IN (2)"},
    {S "IN (1, NULL, 2)", {{0}}, 0, "s1: " S "IN (1, NULL); s2: " S "IN (NULL, 2)"},
    {S "IN (1, 'x', 2)", {{0}}, 0, "s1: " S "IN (1, 'x'); s2: " S "IN ('x', 2)"},
    {"SELECT * FROM tenants WHERE slug IN ('it''s,', E'a\\',', $$cust)$$)",
     {{0}},
     0,
     "s0: SELECT * FROM tenants WHERE slug IN ($$cust)$$); s1: SELECT * FROM tenants WHERE slug IN "
     "('it''s,'); s2: SELECT * FROM tenants WHERE slug IN (E'a\\',')"},
    {S "IN (1, 2) AND age IN (1, 2)",
     {{0}},
     0,
     "s1: " S "IN (1) AND age IN (1, 2); s2: " S "IN (2) AND age IN (1, 2)"},
    /* Both may be true on s1 and s2; a list cannot be empty. */
    {S "IN (1, 2) OR id IN (42, 4)",
     {{0}},
     0,
     "s1: " S "IN (1) OR id IN (42); s2: " S "IN (2) OR id IN (4)"},
    {S "IN (1, 42) OR id = 2",
     {{0}},
     0,
     "s1: " S "IN (1, 42) OR id = 2; s2: " S "IN (1) OR id = 2"},
    {S "IN (1, 2) OR age = 5",
     {{0}},
     0,
     "s0: " S "IN (1) OR age = 5; s1: " S "IN (1) OR age = 5; s2: " S "IN (2) OR age = 5"},
    /* False and NULL are not the same here. */
    {S "IN (1, 2) AND (id IN (1, 2)) IS NOT NULL",
     {{0}},
     0,
     "s1: " S "IN (1) AND (id IN (1, 2)) IS NOT NULL; s2: " S
     "IN (2) AND (id IN (1, 2)) IS NOT NULL"},
    {S "NOT IN (1, 2)",
     {{0}},
     0,
     "s0: " S "NOT IN (1, 2); s1: " S "NOT IN (1, 2); s2: " S "NOT IN (1, 2)"},
    {S "<> ALL (ARRAY[1, 2])",
     {{0}},
     0,
     "s0: " S "<> ALL (ARRAY[1, 2]); s1: " S "<> ALL (ARRAY[1, 2]); s2: " S "<> ALL (ARRAY[1, 2])"},
    {"SELECT * FROM users WHERE NOT (id IN (1, 2))",
     {{0}},
     0,
     "s0: SELECT * FROM users WHERE NOT (id IN (1, 2)); s1: SELECT * FROM users WHERE NOT (id IN "
     "(1, "
     "2)); s2: SELECT * FROM users WHERE NOT (id IN (1, 2))"},
    {S "= ANY (ARRAY[1, 2])", {{0}}, 0, "s1: " S "= ANY (ARRAY[1]); s2: " S "= ANY (ARRAY[2])"},
    {S "= ANY (ARRAY[1, '2'])", /* '2' alone would make it text[] */
     {{0}},
     0,
     "s1: " S "= ANY (ARRAY[1, '2']); s2: " S "= ANY (ARRAY[1, '2'])"},
    {S "= ANY (ARRAY['1', '2']::int[])",
     {{0}},
     0,
     "s1: " S "= ANY (ARRAY['1']::int[]); s2: " S "= ANY (ARRAY['2']::int[])"},
    {S "= ANY ('{1, 2,NULL}')",
     {{0}},
     0,
     "s1: " S "= ANY ('{1,NULL}'); s2: " S "= ANY ('{2,NULL}')"},
    {S "= ANY ('{1, 2}'::bigint[]) ORDER BY id LIMIT 5 OFFSET 1",
     {{0}},
     0,
     "s1: " S "= ANY('{1}'::bigint[]) ORDER BY id LIMIT 6; s2: " S
     "= ANY('{2}'::bigint[]) ORDER BY id LIMIT 6"},
    {"SELECT name FROM users u JOIN orders o ON o.user_id = u.id AND o.user_id IN (1, 2)",
     {{0}},
     0,
     "s1: SELECT name FROM users u JOIN orders o ON o.user_id = u.id AND o.user_id IN (1); s2: "
     "SELECT "
     "name FROM users u JOIN orders o ON o.user_id = u.id AND o.user_id IN (2)"},
    {"UPDATE users SET age = 1 WHERE id IN (1, 2)",
     {{0}},
     0,
     "s1: UPDATE users SET age = 1 WHERE id IN (1); s2: UPDATE users SET age = 1 WHERE id IN (2)"},
    {"DELETE FROM users WHERE id IN (1, 2) RETURNING id",
     {{0}},
     0,
     "s1: DELETE FROM users WHERE id IN (1) RETURNING id; s2: DELETE FROM users WHERE id IN (2) "
     "RETURNING id"},
    /* Parameters: the text stays. */
    {S "= ANY ($1)",
     {TEXT_PARAM("{1,2,\"42\",NULL}")},
     1,
     "s1: " S "= ANY ($1) [{1,\"42\",NULL}]; s2: " S "= ANY ($1) [{2,NULL}]"},
    {S "= ANY ($1::bigint[])",
     {TEXT_PARAM("{1,2}")},
     1,
     "s1: " S "= ANY ($1::bigint[]) [{1}]; s2: " S "= ANY ($1::bigint[]) [{2}]"},
    {S "= ANY ($1)",
     {BINARY_PARAM("\0\0\0\1\0\0\0\1\0\0\0\27\0\0\0\3\0\0\0\1\0\0\0\4\0\0\0\1\0\0\0\4\0\0\0\2\xff"
                   "\xff\xff\xff",
                   1007)},
     1,
     "s1: " S "= ANY ($1) [\\1\\1\\27\\2\\1\\4\\1\\-]; s2: " S
     "= ANY ($1) [\\1\\1\\27\\2\\1\\4\\2\\-]"},
    {S "= ANY ($1) AND id = ANY ($1)",
     {TEXT_PARAM("{1,2}")},
     1,
     "s1: " S "= ANY ($1) AND id = ANY ($1) [{1}]; s2: " S "= ANY ($1) AND id = ANY ($1) [{2}]"},
    {S "= ANY ($1) AND cardinality($1) > 1", /* it is used otherwise, too */
     {TEXT_PARAM("{1,2}")},
     1,
     "s1: " S "= ANY ($1) AND cardinality($1) > 1; s2: " S "= ANY ($1) AND cardinality($1) > 1"},
    {S "= ANY ($1) OR age = $2",
     {TEXT_PARAM("{1,42}"), TEXT_PARAM("7")},
     2,
     "s0: " S "= ANY ($1) OR age = $2 [{}, 7]; s1: " S "= ANY ($1) OR age = $2; s2: " S
     "= ANY ($1) OR age = $2 [{}, 7]"},
    {S "IN ($1, $2, $3)",
     {TEXT_PARAM("1"), TEXT_PARAM("2"), TEXT_PARAM("42")},
     3,
     "s1: " S "IN ($1, $2, $3) [1, -, 42]; s2: " S "IN ($1, $2, $3) [-, 2, -]"},
    {S "IN ($1, $2, 3)", /* $1 and $2 have the type that 3 and id make together */
     {TEXT_PARAM("1"), TEXT_PARAM("2")},
     2,
     "s0: " S "IN ($1, $2, 3) [-, -]; s1: " S "IN ($1, $2, 3) [1, -]; s2: " S
     "IN ($1, $2, 3) [-, 2]"},
    {S "IN ($1, $2) AND age < $1",
     {TEXT_PARAM("1"), TEXT_PARAM("2")},
     2,
     "s1: " S "IN ($1, $2) AND age < $1 [1, -]; s2: " S "IN ($1, $2) AND age < $1"},
    {"SELECT id FROM users WHERE id = ANY ($2) LIMIT $1",
     {TEXT_PARAM("4"), TEXT_PARAM("{1,2}")},
     2,
     "s1: SELECT id FROM users WHERE id = ANY ($2) LIMIT $1 [4, {1}]; s2: SELECT id FROM "
     "users WHERE id = ANY ($2) LIMIT $1 [4, {2}]"},
};

static void put_value(struct text *out, const struct param *value)
{
    if (!value->bytes) {
        put(out, "-");
        return;
    }
    if (!value->binary) {
        put(out, "%.*s", value->length, value->bytes);
        return;
    }
    for (int i = 0; i + 4 <= value->length; i += 4) {
        const unsigned char *at = (const unsigned char *)value->bytes + i;
        put(out, at[0] ? "\\-" : "\\%o", at[3]);
    }
}

static void test_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct split_case *c = &cases[i];
        struct params params = {c->params, c->count};
        struct route_input input = {.statement = parse_one(c->sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .params = c->count ? &params : NULL};
        struct plan plan;
        struct text words = {.length = 0};
        router_plan(&input, &fix.arena, &plan);
        check_sound(c->sql, &plan);
        if (plan.kind != PLAN_SCATTER)
            fail_msg("%s: %s", c->sql, plan.reason);
        for (int k = 0; k < plan.nqueries; k++) {
            const struct shard_query *query = &plan.queries[k];
            put(&words, "%ss%u: %s", k ? "; " : "", query->shard, query->sql);
            for (int v = 0; query->values && v < c->count; v++) {
                put(&words, v ? ", " : " [");
                put_value(&words, &query->values[v]);
            }
            put(&words, query->values ? "]" : "");
        }
        if (strcmp(words.bytes, c->parts) != 0)
            fail_msg("%s\n  sent:     %s\n  expected: %s", c->sql, words.bytes, c->parts);
    }
}

/* What a hostile list may be: as many elements as there is room for, and lists without an end. */
static void test_long_list(void **state)
{
    (void)state;
    struct buffer sql = {0};
    buffer_printf(&sql, S "IN (0");
    for (int i = 1; i < 5000; i++)
        buffer_printf(&sql, ", %d", i);
    buffer_append(&sql, ")", 2);
    struct route_input input = {
        .statement = parse_one(buffer_head(&sql)), .map = fix.map, .schema = fix.schema};
    struct plan plan;
    router_plan(&input, &fix.arena, &plan);
    assert_int_equal(plan.nqueries, 3);
    int elements = 0;
    for (int i = 0; i < 3; i++)
        elements += parse_one(plan.queries[i].sql)->query->where->nargs - 1;
    assert_int_equal(elements, 5000);
    buffer_release(&sql);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_long_list),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
