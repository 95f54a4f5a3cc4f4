/* test_plan_template.c: a plan made from a template is the plan that planning anew gives, or there is none. */
#include "plan_support.h"

#include "pgshunt/shape.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The same place in the same words; the reason is the only thing that may be told in others. */
static void assert_same_plan(const char *sql, const struct plan *again, const struct plan *anew)
{
    struct text a, b;
    render(again, &a);
    render(anew, &b);
    if (strcmp(a.bytes, b.bytes) != 0 || strcmp(again->node_reason, anew->node_reason) != 0)
        fail_msg("%s\n  by template: %s (%s)\n  anew:        %s (%s)", sql, a.bytes,
                 again->node_reason, b.bytes, anew->node_reason ? anew->node_reason : "");
    struct plan same = *again;
    same.reason = anew->reason;
    same.node_reason = anew->node_reason;
    assert_memory_equal(&same, anew, sizeof same);
}

static void plan_anew(const struct route_input *input, struct plan_template *made,
                      struct plan *plan)
{
    struct route_input copy = *input;
    copy.made = made;
    router_plan(&copy, &fix.arena, plan);
}

static bool again_is_right(const char *sql, const struct plan_template *made,
                           const struct route_input *input)
{
    struct plan again, untouched, anew;
    memset(&again, 0x5a, sizeof again);
    memset(&untouched, 0x5a, sizeof untouched);
    bool good = router_plan_again(made, input, &fix.arena, &again);
    if (!good) {
        assert_memory_equal(&again, &untouched, sizeof again);
        return false;
    }
    router_plan(input, &fix.arena, &anew);
    assert_same_plan(sql, &again, &anew);
    return true;
}

/* ---- literals ---- */

/* Planned for `first`; then for `then`, whose tree is the same but for its literals. */
struct literal_case {
    const char *first, *then;
    int values; /* of the template, 0: none is made */
    bool again;
};

static const struct literal_case literal_cases[] = {
    /* each type of key */
    {"SELECT * FROM users WHERE id = 1", "SELECT * FROM users WHERE id = 3", 1, true},
    {"SELECT * FROM users WHERE id = 1", "SELECT * FROM users WHERE id = 0", 1, true},
    {"SELECT * FROM users WHERE id = -1", "SELECT * FROM users WHERE id = -999999999", 1, true},
    {"SELECT * FROM users WHERE id = 1", "SELECT * FROM users WHERE id = 007", 1, true},
    {"SELECT * FROM users WHERE id = '1'", "SELECT * FROM users WHERE id = '42'", 1, true},
    {"SELECT * FROM users WHERE id = '1'", "SELECT * FROM users WHERE id = ' -7 '", 1, true},
    {"SELECT * FROM users WHERE id = '1'", "SELECT * FROM users WHERE id = 'x'", 1, false},
    {"SELECT * FROM users WHERE id = '1'", "SELECT * FROM users WHERE id = ''", 1, false},
    {"SELECT * FROM users WHERE id = '1'", "SELECT * FROM users WHERE id = '9223372036854775807'",
     1, true},
    {"SELECT * FROM users WHERE id = '1'", "SELECT * FROM users WHERE id = '9223372036854775808'",
     1, false},
    {"SELECT * FROM users WHERE id = 'x'", NULL, 0, false},
    {"SELECT size FROM files WHERE doc = '00000000-0000-0000-0000-000000000001'",
     "SELECT size FROM files WHERE doc = '{A0EEBC999C0B4EF8BB6D6BB9BD380A11}'", 1, true},
    {"SELECT size FROM files WHERE doc = '00000000-0000-0000-0000-000000000001'",
     "SELECT size FROM files WHERE doc = '00000000-0000-0000-0000-00000000000'", 1, false},
    {"SELECT plan FROM tenants WHERE slug = 'acme'", "SELECT plan FROM tenants WHERE slug = 'b'", 1,
     true},
    {"SELECT plan FROM tenants WHERE slug = 'acme'", "SELECT plan FROM tenants WHERE slug = ''", 1,
     true},
    {"SELECT what FROM codes WHERE code = 'a'", "SELECT what FROM codes WHERE code = 'b  '", 1,
     true},
    /* casts and arithmetic */
    {"SELECT * FROM users WHERE id = '1'::bigint", "SELECT * FROM users WHERE id = '42'::bigint", 1,
     true},
    {"SELECT * FROM users WHERE id = '1'::bigint", "SELECT * FROM users WHERE id = 'x'::bigint", 1,
     false},
    {"SELECT * FROM users WHERE id = 1::int2", "SELECT * FROM users WHERE id = 32767::int2", 1,
     true},
    {"SELECT * FROM users WHERE id = 1::int2", "SELECT * FROM users WHERE id = 32768::int2", 1,
     false},
    {"SELECT * FROM users WHERE id = 40 + 2", "SELECT * FROM users WHERE id = 1 + 2", 1, true},
    {"SELECT * FROM users WHERE id = 2 * 3", "SELECT * FROM users WHERE id = 999999999 * 999999999",
     1, false},
    {"SELECT * FROM users WHERE id = 1.5", NULL, 0, false},
    {"SELECT size FROM files WHERE doc = '00000000-0000-0000-0000-000000000001'::uuid",
     "SELECT size FROM files WHERE doc = '00000000-0000-0000-0000-000000000002'::uuid", 1, true},
    {"SELECT * FROM users WHERE id = '1'::numeric", NULL, 0, false},
    {"SELECT * FROM users WHERE id = NULL", NULL, 0, false},
    /* several values */
    {"SELECT * FROM users WHERE id IN (1, 42)", "SELECT * FROM users WHERE id IN (2, 4)", 2, true},
    {"SELECT * FROM users WHERE id IN (1, 42)", "SELECT * FROM users WHERE id IN (1, 3)", 2, false},
    {"SELECT * FROM users WHERE id IN (1, 3)", NULL, 0, false},
    {"SELECT * FROM users WHERE id IN (2, 4, 5, 7)",
     "SELECT * FROM users WHERE id IN (1, 1, 1, 42)", 4, true},
    {"SELECT * FROM users WHERE id IN (2, 4, 5, 7, 2)", NULL, 0, false},
    {"SELECT * FROM users WHERE id = 1 OR id = 42", "SELECT * FROM users WHERE id = 2 OR id = 4", 2,
     true},
    {"SELECT * FROM users WHERE id = 1 AND id = 42", "SELECT * FROM users WHERE id = 1 AND id = 3",
     2, false},
    {"SELECT * FROM users WHERE id IN (2, 4, 5, 7, 2, 4, 5, 7, 2)", NULL, 0, false},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 1",
     "SELECT * FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 3", 1, true},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = 42 WHERE u.id = 1",
     "SELECT * FROM users u JOIN orders o ON o.user_id = 3 WHERE u.id = 1", 2, false},
    {"SELECT * FROM users u, countries c WHERE u.id = 1 AND c.code = 'de'",
     "SELECT * FROM users u, countries c WHERE u.id = 3 AND c.code = 'at'", 1, true},
    {"SELECT * FROM users WHERE id = 1 AND EXISTS (SELECT 1 FROM orders WHERE user_id = 1)",
     "SELECT * FROM users WHERE id = 3 AND EXISTS (SELECT 1 FROM orders WHERE user_id = 3)", 2,
     true},
    {"WITH o AS (SELECT * FROM orders WHERE user_id = 1) SELECT * FROM o",
     "WITH o AS (SELECT * FROM orders WHERE user_id = 3) SELECT * FROM o", 1, true},
    /* values that do not matter, and what does */
    {"SELECT * FROM users WHERE id = 1 AND age > 5 LIMIT 3",
     "SELECT * FROM users WHERE id = 3 AND age > 7 LIMIT 1", 1, true},
    {"SELECT * FROM users WHERE id = 1 AND name = 'x'",
     "SELECT * FROM users WHERE id = 3 AND name = 'y'", 1, true},
    {"SELECT 1, id FROM users WHERE id = 1 ORDER BY 1",
     "SELECT 2, id FROM users WHERE id = 3 ORDER BY 2", 1, true},
    {"SELECT * FROM users WHERE id = 1 FOR UPDATE", "SELECT * FROM users WHERE id = 3 FOR UPDATE",
     1, true},
    {"SELECT touch(5) FROM users WHERE id = 1", "SELECT touch(6) FROM users WHERE id = 3", 1, true},
    {"SELECT * FROM users WHERE id > 1", NULL, 0, false},
    {"SELECT * FROM logs WHERE id = 1", NULL, 0, false},
    {"SELECT * FROM countries WHERE code = 'de'", NULL, 0, false},
    {"SELECT * FROM adults WHERE who = 1", NULL, 0, false},
    {"SELECT * FROM users u, view_of_countries v WHERE u.id = 1", NULL, 0, false},
    {"SELECT * FROM fresh WHERE id = 1", "SELECT * FROM fresh WHERE id = 3", 1, true},
    /* keyspaces by range and by list */
    {"SELECT * FROM samples WHERE at = 5", "SELECT * FROM samples WHERE at = 250", 1, true},
    {"SELECT * FROM samples WHERE at BETWEEN 5 AND 6", NULL, 0, false},
    {"SELECT * FROM samples WHERE at = 5 AND at < 9", NULL, 0, false},
    {"SELECT * FROM towns WHERE region = 'de'", "SELECT * FROM towns WHERE region = 'us'", 1, true},
    {"SELECT * FROM towns WHERE region = 'de'", "SELECT * FROM towns WHERE region = 'fr'", 1,
     false},
    /* changes */
    {"UPDATE users SET name = 'x' WHERE id = 1", "UPDATE users SET name = 'y' WHERE id = 3", 1,
     true},
    {"UPDATE users SET id = 1 WHERE id = 42", "UPDATE users SET id = 2 WHERE id = 4", 2, true},
    {"UPDATE users SET id = 1 WHERE id = 42", "UPDATE users SET id = 3 WHERE id = 4", 2, false},
    {"DELETE FROM users WHERE id = 1", "DELETE FROM users WHERE id = 3", 1, true},
    {"INSERT INTO users (id, name) VALUES (1, 'x')", "INSERT INTO users (id, name) VALUES (3, 'y')",
     1, true},
    {"INSERT INTO users VALUES (1, 'x')", "INSERT INTO users VALUES (3, 'y')", 1, true},
    {"INSERT INTO users (id) VALUES (1), (42)", "INSERT INTO users (id) VALUES (2), (3)", 2, false},
    {"INSERT INTO tenants (slug) VALUES (1)", "INSERT INTO tenants (slug) VALUES (3)", 1, true},
    {"SELECT * FROM tenants WHERE slug = 1", NULL, 0, false},
    {"INSERT INTO users (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 42",
     "INSERT INTO users (id) VALUES (2) ON CONFLICT (id) DO UPDATE SET id = 3", 2, false},
    {"INSERT INTO orders (user_id, id) SELECT 1, id FROM users WHERE id = 1",
     "INSERT INTO orders (user_id, id) SELECT 3, id FROM users WHERE id = 3", 2, true},
    {"INSERT INTO logs SELECT id FROM users WHERE id = 3", NULL, 0, false},
};

/* The tree of a shape, which has to be the same one each time; it is given back by the caller. */
static struct shape *take(struct shape_table *table, const char *sql)
{
    struct shape *shape = NULL;
    for (int turn = 0; turn < 3 && !shape; turn++)
        shape = shape_take(table, sql, strlen(sql));
    if (!shape)
        fail_msg("%s\n  has no shape", sql);
    return shape;
}

/* No template: whatever the literals are. */
static void run_without(const char *sql)
{
    struct plan_template made = {.nvalues = 1};
    struct route_input input = {.statement = parse_one(sql), .map = fix.map, .schema = fix.schema};
    struct plan plan;
    plan_anew(&input, &made, &plan);
    if (made.nvalues)
        fail_msg("%s\n  values: %d", sql, made.nvalues);
}

static void run_literals(const struct literal_case *c)
{
    struct shape_table *table = shapes_create(1);
    struct route_session session = {.transaction_shard = -1};
    struct shape *shape = take(table, c->first);
    struct statement *statement = shape->list.items[0];
    struct route_input input = {
        .statement = statement, .map = fix.map, .schema = fix.schema, .session = &session};
    struct plan plan;
    plan_anew(&input, &statement->planned, &plan);
    if (statement->planned.nvalues != c->values)
        fail_msg("%s\n  values: %d", c->first, statement->planned.nvalues);
    assert_true(again_is_right(c->first, &statement->planned, &input));
    shape_give(table, shape);
    shape = take(table, c->then);
    if (shape->list.items[0] != statement)
        fail_msg("%s\n  is of another shape", c->then);
    if (again_is_right(c->then, &statement->planned, &input) != c->again)
        fail_msg("%s\n  again: %d", c->then, !c->again);
    shape_give(table, shape);
    shapes_free(table);
}

static void test_literals(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(literal_cases); i++)
        if (literal_cases[i].values) {
            run_literals(&literal_cases[i]);
        } else {
            run_without(literal_cases[i].first);
        }
}

/* ---- parameters ---- */

#define AS_TEXT(text_)                                                                             \
    {                                                                                              \
        (text_), sizeof(text_) - 1, false, 0                                                       \
    }
#define AS_TYPE(text_, oid_)                                                                       \
    {                                                                                              \
        (text_), sizeof(text_) - 1, false, (oid_)                                                  \
    }
#define AS_BINARY(bytes_, oid_)                                                                    \
    {                                                                                              \
        (bytes_), sizeof(bytes_) - 1, true, (oid_)                                                 \
    }
#define AS_NULL                                                                                    \
    {                                                                                              \
        NULL, -1, false, 0                                                                         \
    }

struct param_case {
    const char *sql;
    struct param first[2], then[2];
    int count; /* of `then`; -1: not bound */
    int values;
    bool again;
};

#define BY_ID "SELECT * FROM users WHERE id = $1"

static const struct param_case param_cases[] = {
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("3")}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT(" -42 ")}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("123456789012345678")}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("1234567890123456789")}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("0000000000000000000000042")}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("9223372036854775808")}, 1, 1, false},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("")}, 1, 1, false},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("4x")}, 1, 1, false},
    {BY_ID, {AS_TEXT("1")}, {AS_NULL}, 1, 1, false},
    {BY_ID, {AS_NULL}, {AS_TEXT("1")}, 1, 0, false},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("1")}, 0, 1, false},
    {BY_ID, {AS_TEXT("1")}, {AS_TEXT("1")}, -1, 1, false},
    {BY_ID, {AS_TEXT("1")}, {AS_BINARY("\0\0\0\0\0\0\0\52", 0)}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_BINARY("\377\377\377\377", OID_INT4)}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_BINARY("\0\52", OID_INT2)}, 1, 1, true},
    {BY_ID, {AS_TEXT("1")}, {AS_BINARY("\0\52", OID_INT8)}, 1, 1, false},
    {BY_ID, {AS_TEXT("1")}, {AS_BINARY("\0\0\52", 0)}, 1, 1, false},
    {BY_ID, {AS_TYPE("1", OID_INT8)}, {AS_TYPE("3", OID_INT8)}, 1, 1, true},
    {BY_ID, {AS_TYPE("1", OID_TEXT)}, {AS_TYPE("3", OID_TEXT)}, 1, 0, false},
    {BY_ID, {AS_TYPE("1", OID_INT8)}, {AS_TYPE("3", OID_NUMERIC)}, 1, 1, false},
    {"SELECT * FROM users WHERE id = $1::bigint", {AS_TEXT("1")}, {AS_TEXT("3")}, 1, 1, true},
    {"SELECT * FROM users WHERE id = $1::bigint", {AS_TEXT("1")}, {AS_TEXT("x")}, 1, 1, false},
    {"SELECT * FROM users WHERE id = $1::int2", {AS_TEXT("1")}, {AS_TEXT("40000")}, 1, 1, false},
    {"SELECT * FROM users WHERE id = $1 AND age = $2",
     {AS_TEXT("1"), AS_TEXT("7")},
     {AS_TEXT("3"), AS_NULL},
     2,
     1,
     true},
    {"SELECT * FROM users WHERE id IN ($1, $2)",
     {AS_TEXT("1"), AS_TEXT("42")},
     {AS_TEXT("2"), AS_TEXT("7")},
     2,
     2,
     true},
    {"SELECT * FROM users WHERE id IN ($1, $2)",
     {AS_TEXT("1"), AS_TEXT("42")},
     {AS_TEXT("1"), AS_NULL},
     2,
     2,
     false},
    {"SELECT * FROM users u JOIN orders o ON o.user_id = $1 WHERE u.id = $1",
     {AS_TEXT("1")},
     {AS_TEXT("3")},
     1,
     2,
     true},
    {"SELECT * FROM users WHERE id = ANY ($1)", {AS_TEXT("{1}")}, {AS_TEXT("{1,3}")}, 1, 0, false},
    {"SELECT * FROM users WHERE id = $1 LIMIT $2",
     {AS_TEXT("1"), AS_TEXT("1")},
     {AS_TEXT("3"), AS_TEXT("9")},
     2,
     1,
     true},
    {"SELECT size FROM files WHERE doc = $1",
     {AS_TEXT("00000000-0000-0000-0000-000000000001")},
     {AS_BINARY("0123456789abcdef", OID_UUID)},
     1,
     1,
     true},
    {"SELECT size FROM files WHERE doc = $1",
     {AS_TEXT("00000000-0000-0000-0000-000000000001")},
     {AS_BINARY("0123456789abcde", OID_UUID)},
     1,
     1,
     false},
    {"SELECT plan FROM tenants WHERE slug = $1", {AS_TEXT("a")}, {AS_TEXT("b")}, 1, 1, true},
    {"SELECT plan FROM tenants WHERE slug = $1",
     {AS_TEXT("a")},
     {AS_BINARY("b\0c", 0)},
     1,
     1,
     false},
    {"SELECT what FROM codes WHERE code = $1",
     {AS_TEXT("a")},
     {AS_TYPE("b   ", OID_BPCHAR)},
     1,
     1,
     true},
    {"INSERT INTO users (id, name) VALUES ($1, $2)",
     {AS_TEXT("1"), AS_TEXT("x")},
     {AS_TEXT("3"), AS_NULL},
     2,
     1,
     true},
    {"INSERT INTO users (id, name) VALUES ($1, $2)",
     {AS_TEXT("1"), AS_TEXT("x")},
     {AS_NULL, AS_TEXT("x")},
     2,
     1,
     false},
};

static void test_parameters(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(param_cases); i++) {
        const struct param_case *c = &param_cases[i];
        struct params first = {c->first, 2}, then = {c->then, c->count};
        struct plan_template made = {.nvalues = 0};
        struct route_input input = {
            .statement = parse_one(c->sql), .map = fix.map, .schema = fix.schema, .params = &first};
        struct plan plan;
        plan_anew(&input, &made, &plan);
        if (made.nvalues != c->values)
            fail_msg("%s (%zu)\n  values: %d", c->sql, i, made.nvalues);
        if (c->values)
            assert_true(again_is_right(c->sql, &made, &input));
        input.params = c->count < 0 ? NULL : &then;
        if (again_is_right(c->sql, &made, &input) != c->again)
            fail_msg("%s (%zu)\n  again: %d", c->sql, i, !c->again);
    }
}

/* ---- statements that leave none, whatever their values ---- */

static void test_no_template(void **state)
{
    static const char *const statements[] = {
        "/* pgshunt: key=1 */ SELECT * FROM users WHERE id = 1",
        "/* pgshunt: primary */ SELECT * FROM users WHERE id = 1",
        "EXPLAIN SELECT * FROM users WHERE id = 1",
        "DECLARE c CURSOR FOR SELECT * FROM users WHERE id = 1",
        "COPY (SELECT * FROM users WHERE id = 1) TO STDOUT",
        "CREATE TEMP TABLE t AS SELECT * FROM users WHERE id = 1",
        "MERGE INTO users u USING (VALUES (1)) v (id) ON u.id = 1 WHEN MATCHED THEN DELETE",
        "SELECT * FROM users u, logs l WHERE u.id = 3",
        "SELECT * FROM users u, pg_class c WHERE u.id = 1",
        "SELECT 1",
        "SELECT * FROM nonsense WHERE",
        "SELECT * FROM users WHERE id = (SELECT 1)",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(statements); i++) {
        struct plan_template made;
        memset(&made, 0x5a, sizeof made);
        struct route_input input = {
            .statement = parse_one(statements[i]), .map = fix.map, .schema = fix.schema};
        struct plan plan;
        plan_anew(&input, &made, &plan);
        if (made.nvalues)
            fail_msg("%s\n  values: %d", statements[i], made.nvalues);
        assert_false(again_is_right(statements[i], &made, &input));
    }
}

/* ---- what the session says ---- */

struct session_case {
    struct route_session session;
    bool read, write; /* by template? */
};

static const char *const changed[] = {"users", NULL};

static const struct session_case session_cases[] = {
    {{.transaction_shard = -1}, true, true},
    {{.transaction_shard = 0}, true, true},
    {{.in_transaction = true, .transaction_shard = 2}, true, true},
    {{.in_transaction = true, .on_primary = true, .transaction_shard = 0}, true, true},
    {{.in_transaction = true, .read_only = true, .transaction_shard = -1}, true, true},
    {{.force_primary = "because", .transaction_shard = -1}, true, true},
    {{.only_declared = true, .transaction_shard = -1}, true, true},
    {{.route = ROUTE_PRIMARY, .transaction_shard = -1}, true, true},
    {{.route = ROUTE_REPLICA, .transaction_shard = -1}, true, false},
    {{.key = "3", .transaction_shard = -1}, true, true},
    {{.key = "not one", .transaction_shard = -1}, true, true},
    {{.shard = "s0", .transaction_shard = -1}, false, false},
    {{.shard = "nowhere", .transaction_shard = -1}, false, false},
    {{.shard = "", .transaction_shard = -1}, true, true},
    {{.temp_tables = true, .transaction_shard = -1}, true, true},
    {{.require_key = REQUIRE_KEY_ERROR, .transaction_shard = -1}, true, true},
    {{.sequence_shard = 1, .transaction_shard = -1}, true, true},
    {{.schema_is_fresh = true, .transaction_shard = -1}, true, true},
    {{.schema_is_stale = true, .search_path = "x", .user = "y", .transaction_shard = -1},
     true,
     true},
    {{.foreign_encoding = true, .ascii_hides = true, .transaction_shard = -1}, true, true},
    {{.changed_views = changed, .transaction_shard = -1}, true, true},
};

static void run_session(const char *sql, const struct session_case *c, bool wanted)
{
    struct params values = {(struct param[]){AS_TEXT("42")}, 1};
    struct plan_template made = {.nvalues = 0};
    struct route_input input = {
        .statement = parse_one(sql), .map = fix.map, .schema = fix.schema, .params = &values};
    struct plan plan;
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 1);
    values.items = (struct param[]){AS_TEXT("3")};
    input.session = &c->session;
    if (again_is_right(sql, &made, &input) != wanted)
        fail_msg("%s\n  session %d", sql, (int)(c - session_cases));
    /* ... and made under what it says, it holds elsewhere: or it is not made. */
    plan_anew(&input, &made, &plan);
    input.session = NULL;
    assert_int_equal(again_is_right(sql, &made, &input), made.nvalues > 0);
}

static void test_sessions(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(session_cases); i++) {
        run_session("SELECT * FROM users WHERE id = $1", &session_cases[i], session_cases[i].read);
        run_session("UPDATE users SET age = 1 WHERE id = $1", &session_cases[i],
                    session_cases[i].write);
    }
}

/* Text in another encoding than the server's is not understood, unless it is plain ASCII. */
static void test_foreign_encoding(void **state)
{
    const char *sql = "SELECT plan FROM tenants WHERE slug = $1";
    struct route_session session = {.transaction_shard = -1, .foreign_encoding = true};
    struct params values = {(struct param[]){AS_TEXT("acme")}, 1};
    struct plan_template made = {.nvalues = 0};
    struct route_input input = {
        .statement = parse_one(sql), .map = fix.map, .schema = fix.schema, .params = &values};
    struct plan plan;
    (void)state;
    plan_anew(&input, &made, &plan);
    values.items = (struct param[]){AS_TEXT("m\xfcller")};
    assert_true(again_is_right(sql, &made, &input));
    input.session = &session;
    assert_false(again_is_right(sql, &made, &input));
    values.items = (struct param[]){AS_TEXT("mueller")};
    assert_true(again_is_right(sql, &made, &input));
}

/* ---- maps ---- */

static struct shardmap *small_map(void)
{
    static const char *names[] = {"a", "b", "c", "d"};
    struct shardmap *map = shardmap_new(&(struct shardmap_builder){names, NULL, 4});
    int users = shardmap_add_keyspace(map, "users", KEY_BIGINT, HASH_XXH64);
    shardmap_add_table(map, "users", users, "id");
    return map;
}

/* One that was made by another map is of no use, be it at the same place in memory. */
static void test_maps(void **state)
{
    const char *sql = "SELECT * FROM users WHERE id = 1";
    struct plan_template made = {.nvalues = 0};
    struct route_input input = {.statement = parse_one(sql), .map = fix.map, .schema = fix.schema};
    struct plan plan;
    (void)state;
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 1);
    struct shardmap *map = small_map();
    assert_int_not_equal(shardmap_serial(map), shardmap_serial(fix.map));
    input.map = map;
    assert_false(again_is_right(sql, &made, &input));
    plan_anew(&input, &made, &plan);
    assert_true(again_is_right(sql, &made, &input));
    input.map = fix.one; /* nothing is sharded there */
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0);
    shardmap_free(map);
}

/* While buckets are held each statement is looked at. */
static void test_held(void **state)
{
    const char *sql = "SELECT * FROM users WHERE id = 1";
    struct shardmap *map = small_map();
    struct plan_template made = {.nvalues = 0};
    struct route_input input = {.statement = parse_one(sql), .map = map, .schema = fix.schema};
    struct plan plan;
    (void)state;
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 1);
    shardmap_hold(map, 0, 0, 5);
    assert_false(again_is_right(sql, &made, &input));
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0);
    shardmap_free(map);
}

/* A table of several columns, a schema of one shard, and a column that a lookup is for. */
static void test_other_ways(void **state)
{
    static const enum key_type types[] = {KEY_BIGINT, KEY_BIGINT};
    static const char *const parts[] = {"a", "b"};
    static const struct lookup_answers none = {.count = 0};
    struct shardmap *map = small_map();
    int pairs = shardmap_add_keyspace(map, "pairs", KEY_BIGINT, HASH_XXH64);
    shardmap_set_types(map, pairs, types, 2);
    shardmap_add_table_parts(map, "pairs", pairs, parts, 2);
    shardmap_add_lookup(map, "users", "email", true);
    schema_add_function(fix.schema, "pgshunt", shardmap_lookup(map, 0)->function,
                        VOLATILITY_STABLE);
    struct plan_template made = {.nvalues = 0};
    struct route_input input = {.statement = parse_one("SELECT * FROM pairs WHERE a = 1 AND b = 2"),
                                .map = map,
                                .schema = fix.schema,
                                .lookups = &none};
    struct plan plan;
    (void)state;
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0);
    input.statement = parse_one("SELECT * FROM users WHERE id = 1 AND email = 'x'");
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0);
    input.lookups = NULL;
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0);
    input.statement = parse_one("SELECT * FROM users WHERE id = 1 AND name = 'x'");
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0); /* it cannot be told: nobody has looked */
    input.lookups = &none;
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 1);
    shardmap_add_schema(map, "acme", 1);
    plan_anew(&input, &made, &plan);
    assert_int_equal(made.nvalues, 0);
    shardmap_free(map);
}

/* What is given on by a subquery has a rule that ends with the plan: the template must not keep that. */
static void test_subqueries(void **state)
{
    static const char *const texts[] = {
        "SELECT * FROM (SELECT * FROM orders) x WHERE x.user_id = 1",
        "SELECT * FROM (SELECT user_id AS u FROM orders) x WHERE x.u = 1",
        "SELECT * FROM (SELECT * FROM (SELECT * FROM orders) x) y WHERE y.user_id = 1",
        "WITH o AS (SELECT * FROM orders) SELECT * FROM o WHERE user_id = 1",
    };
    const struct table_rule *orders = shardmap_table(fix.map, NULL, "orders");
    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct plan_template made = {.nvalues = 0};
        struct route_input input = {
            .statement = parse_one(texts[i]), .map = fix.map, .schema = fix.schema};
        struct plan plan;
        plan_anew(&input, &made, &plan);
        assert_int_equal(made.nvalues, 1);
        assert_ptr_equal(made.values[0].rule, orders);
        assert_true(again_is_right(texts[i], &made, &input));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_no_template),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_foreign_encoding),
        cmocka_unit_test(test_maps),
        cmocka_unit_test(test_held),
        cmocka_unit_test(test_subqueries),
        cmocka_unit_test(test_other_ways),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
