/* test_plan_default.c: INSERTs that leave keys to defaults: what is asked for, and what comes of the answer. */
#include "plan_support.h"

struct default_case {
    const char *sql;
    const char *first; /* the plan without values */
    const char *drawn[4];
    int count;
    const char *second; /* the plan with these, and what the first shard gets */
};

#define NUMBER "SELECT (nextval('public.ids'::regclass))::pg_catalog.int8::pg_catalog.text"
#define FULL "INSERT INTO users (id, name) "
#define UUID "00000000-0000-4000-8000-000000000001"

/* Of the keys 3 is on s0, 1 and 42 on s1, 2 and 4 on s2. */
static const struct default_case cases[] = {
    {"INSERT INTO users (name) VALUES ('a')",
     "draw s0: " NUMBER,
     {"42"},
     1,
     "write s1 P; INSERT INTO users (name, id) VALUES ('a', '42')"},
    {"INSERT INTO users (name) VALUES ($1), ($2) RETURNING id",
     "draw s0: " NUMBER " FROM pg_catalog.generate_series(1, 2)",
     {"42", "3"},
     2,
     "write s0 s1 P: rows in the order of VALUES; INSERT INTO users (name, id) VALUES ($1, '3') "
     "RETURNING id"},
    {FULL "VALUES (DEFAULT, 'a'), (2, 'b'), (DEFAULT, DEFAULT)",
     "draw s0: " NUMBER " FROM pg_catalog.generate_series(1, 2)",
     {"2", "4"},
     2,
     "write s2 P; " FULL "VALUES ('2', 'a'), (2, 'b'), ('4', DEFAULT)"},
    {"INSERT INTO users VALUES (DEFAULT, 'a') ON CONFLICT (id) DO NOTHING",
     "draw s0: " NUMBER,
     {"3"},
     1,
     "write s0 P; INSERT INTO users VALUES ('3', 'a') ON CONFLICT (id) DO NOTHING"},
    {"INSERT INTO users DEFAULT VALUES",
     "draw s0: " NUMBER,
     {"1"},
     1,
     "write s1 P; INSERT INTO users (id) VALUES ('1')"},
    {"INSERT INTO orders VALUES (1)",
     "draw s0: SELECT (17)::pg_catalog.int8::pg_catalog.text",
     {"3"},
     1,
     "write s0 P; INSERT INTO orders (id, user_id) VALUES (1, '3')"},
    {"INSERT INTO files (size) VALUES (5)",
     "draw s0: SELECT (gen_random_uuid())::pg_catalog.uuid::pg_catalog.text",
     {UUID},
     1,
     "write s0 P; INSERT INTO files (size, doc) VALUES (5, '" UUID "')"},
    {"INSERT INTO tenants (plan) VALUES ('x')",
     "draw s0: SELECT ('it''s'::character varying)::pg_catalog.text",
     {"it's"},
     1,
     "write s2 P; INSERT INTO tenants (plan, slug) VALUES ('x', 'it''s')"},
    /* null is no key */
    {"INSERT INTO users (name) VALUES ('a')", "draw s0: " NUMBER, {NULL}, 1, "23502"},
    /* an answer to something else is none */
    {"INSERT INTO users (name) VALUES ('a')",
     "draw s0: " NUMBER,
     {"1", "2"},
     2,
     "draw s0: " NUMBER},
    /* a server computes other values then */
    {"INSERT INTO users (name) VALUES ((SELECT 'x'))",
     "draw s0: " NUMBER,
     {"42"},
     1,
     "write s1 P; INSERT INTO users (name, id) VALUES ((SELECT 'x'), '42')"},
    {"EXPLAIN INSERT INTO users (name) VALUES ('a')", "s0 P", {NULL}, 0, NULL},
    {"EXPLAIN ANALYZE INSERT INTO users (name) VALUES ('a')", "23502", {NULL}, 0, NULL},
    {"INSERT INTO users (name) SELECT 'a'", "23502", {NULL}, 0, NULL},
    {"WITH x AS (SELECT 1) INSERT INTO users (name) VALUES ('a')", "23502", {NULL}, 0, NULL},
    {"INSERT INTO codes (what) VALUES ('a')", "23502", {NULL}, 0, NULL},
    {"/* pgshunt: key=42 */ INSERT INTO users (name) VALUES ('a')", "s1 P", {NULL}, 0, NULL},
    {"INSERT INTO users (id) OVERRIDING USER VALUE VALUES (1)", "s1 P", {NULL}, 0, NULL},
};

static void add_defaults(void)
{
    schema_set_default(fix.schema, "public", "users", "id", "nextval('public.ids'::regclass)", 0);
    schema_set_default(fix.schema, "public", "orders", "user_id", "17", 0);
    schema_set_default(fix.schema, "public", "files", "doc", "gen_random_uuid()", 0);
    schema_set_default(fix.schema, "public", "tenants", "slug", "'it''s'::character varying", 0);
}

static void plan_one(const char *sql, const struct drawn_values *drawn,
                     const struct route_session *session, struct plan *plan, struct text *words)
{
    struct route_input input = {.statement = parse_one(sql),
                                .map = fix.map,
                                .schema = fix.schema,
                                .drawn = drawn,
                                .session = session};
    router_plan(&input, &fix.arena, plan);
    check_sound(sql, plan);
    render(plan, words);
}

static void test_what_is_asked_for_and_sent(void **state)
{
    (void)state;
    add_defaults();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct default_case *c = &cases[i];
        struct plan plan;
        struct text words;
        plan_one(c->sql, NULL, NULL, &plan, &words);
        assert_string_equal(words.bytes, c->first);
        if (!c->count)
            continue;
        plan_one(c->sql, &(struct drawn_values){c->drawn, c->count}, NULL, &plan, &words);
        if (plan.kind == PLAN_SCATTER && plan.mode == SCATTER_WRITE)
            put(&words, "; %s", plan.queries[0].sql);
        assert_string_equal(words.bytes, c->second);
    }
}

static void test_identity_columns(void **state)
{
    struct plan plan;
    struct text words;
    const char *one = "42";
    const struct drawn_values drawn = {&one, 1};
    (void)state;
    schema_set_default(fix.schema, "public", "users", "id", "nextval('public.ids')", 'a');
    plan_one("INSERT INTO users (name) VALUES ('a')", &drawn, NULL, &plan, &words);
    assert_string_equal(plan.queries[0].sql,
                        "INSERT INTO users (name, id) OVERRIDING SYSTEM VALUE VALUES ('a', '42')");
    plan_one("INSERT INTO users (id) OVERRIDING USER VALUE VALUES (7)", NULL, NULL, &plan, &words);
    assert_int_equal(plan.mode, SCATTER_DRAW);
    plan_one("INSERT INTO users (id) OVERRIDING USER VALUE VALUES (7)", &drawn, NULL, &plan,
             &words);
    assert_string_equal(plan.queries[0].sql,
                        "INSERT INTO users (id) OVERRIDING SYSTEM VALUE VALUES ('42')");
    schema_set_default(fix.schema, "public", "users", "age", "nextval('public.ages')", 'a');
    plan_one("INSERT INTO users (id, age) OVERRIDING USER VALUE VALUES (7, 8)", NULL, NULL, &plan,
             &words);
    assert_string_equal(words.bytes, "23502");
}

/* Its own changes of the schema are not in what is known of it. */
static void test_a_transaction_that_changes_the_schema(void **state)
{
    struct plan plan;
    struct text words;
    struct route_session session = {
        .in_transaction = true, .transaction_shard = 2, .schema_changes = true};
    (void)state;
    add_defaults();
    plan_one("INSERT INTO users (name) VALUES ('a')", NULL, &session, &plan, &words);
    assert_string_equal(words.bytes, "23502");
    session.schema_changes = false;
    plan_one("INSERT INTO users (name) VALUES ('a')", NULL, &session, &plan, &words);
    assert_string_equal(words.bytes, "draw s0: " NUMBER);
    plan_one("INSERT INTO files (size) VALUES (1)", NULL, &session, &plan, &words);
    assert_int_equal(plan.queries[0].shard, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_asked_for_and_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity_columns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_transaction_that_changes_the_schema, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
