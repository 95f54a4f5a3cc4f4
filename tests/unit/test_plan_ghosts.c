/* test_plan_ghosts.c: what shards are sent while they have rows that they do not own, and which are not asked. */
#include "plan_support.h"

/* s1 has rows of others' buckets, of keyspaces users and tenants. */
static int setup_ghosts(void **state)
{
    setup(state);
    shardmap_set_ghost(fix.map, shardmap_keyspace_by_name(fix.map, "users"), 1);
    shardmap_set_ghost(fix.map, shardmap_keyspace_by_name(fix.map, "tenants"), 1);
    return 0;
}

static const struct plan *plan_of(const char *sql, const struct route_session *session)
{
    struct plan *plan = arena_new(&fix.arena, struct plan);
    struct route_input input = {
        .statement = parse_one(sql), .map = fix.map, .schema = fix.schema, .session = session};
    router_plan(&input, &fix.arena, plan);
    check_sound(sql, plan);
    return plan;
}

static const struct shard_query *query_for(const struct plan *plan, unsigned shard)
{
    for (int i = 0; i < plan->nqueries; i++)
        if (plan->queries[i].shard == shard)
            return &plan->queries[i];
    return NULL;
}

static int complaints;

/* All of them at once. */
#define complain(...) (complaints++, print_error(__VA_ARGS__), print_error("\n"))

static void end(void)
{
    int count = complaints;
    complaints = 0;
    assert_int_equal(count, 0);
}

struct ghost_case {
    const char *sql;
    const char *plan;
    const char *there; /* what s1 gets; NULL: what the others get */
};

#define NO_GHOST(column)                                                                           \
    "NOT EXISTS (SELECT 1 FROM pgshunt.ghost_users pgshunt_g WHERE pgshunt_g.key = " column ")"
#define NO_TENANT(column)                                                                          \
    "NOT EXISTS (SELECT 1 FROM pgshunt.ghost_tenants pgshunt_g WHERE pgshunt_g.key = " column      \
    " COLLATE \"C\")"

static void run_cases(const struct ghost_case *cases, size_t count,
                      const struct route_session *session)
{
    for (size_t i = 0; i < count; i++) {
        const struct ghost_case *c = &cases[i];
        const struct plan *plan = plan_of(c->sql, session);
        const struct shard_query *here = query_for(plan, 0), *there = query_for(plan, 1);
        struct text words;
        render(plan, &words);
        if (strcmp(words.bytes, c->plan) != 0)
            complain("%s\n  planned:  %s (%s)\n  expected: %s", c->sql, words.bytes,
                     plan->kind == PLAN_REFUSE ? plan->error.message : plan->reason, c->plan);
        if (!there || plan->gather || plan->change)
            continue;
        check_sql(c->sql, there->sql);
        if (!c->there && (!here || strcmp(here->sql, there->sql) != 0))
            complain("%s\n  sent: %s", c->sql, there->sql);
        if (c->there && strcmp(there->sql, c->there) != 0)
            complain("%s\n  sent:     %s\n  expected: %s", c->sql, there->sql, c->there);
        if (here && strstr(here->sql, "ghost"))
            complain("%s\n  sent to s0: %s", c->sql, here->sql);
    }
}

#define RUN(cases, session) run_cases(cases, sizeof(cases) / sizeof((cases)[0]), session)

static const struct ghost_case reads[] = {
    {"SELECT * FROM users WHERE id = 42", "s1 R", NULL},
    {"SELECT name FROM users", "rows s0 s1 s2 R: append",
     "SELECT name FROM users WHERE " NO_GHOST("users.id")},
    {"SELECT count(*) FROM users u WHERE age > 3 AND name = 'x'",
     "rows s0 s1 s2 R: combine count 1",
     "SELECT count(*) FROM users u WHERE age > 3 AND name = 'x' AND " NO_GHOST("u.id")},
    {"SELECT 1 FROM public.users WHERE age > 3 OR age < 2", "rows s0 s1 s2 R: append",
     "SELECT 1 FROM public.users WHERE (age > 3 OR age < 2) AND " NO_GHOST("public.users.id")},
    {"SELECT ctid FROM ONLY users", "rows s0 s1 s2 R: append",
     "SELECT ctid FROM ONLY users WHERE " NO_GHOST("users.id")},
    {"SELECT u.name, o.note FROM users u JOIN orders o ON o.user_id = u.id",
     "rows s0 s1 s2 R: append",
     "SELECT u.name, o.note FROM users u JOIN orders o ON o.user_id = u.id WHERE " NO_GHOST(
         "u.id") " AND " NO_GHOST("o.user_id")},
    {"SELECT u.name, o.note FROM users u LEFT JOIN orders o ON o.user_id = u.id",
     "rows s0 s1 s2 R: append",
     "SELECT u.name, o.note FROM users u LEFT JOIN orders o ON o.user_id = u.id AND " NO_GHOST(
         "o.user_id") " WHERE " NO_GHOST("u.id")},
    {"SELECT u.name FROM users u FULL JOIN orders o ON o.user_id = u.id", "rows s0 s1 s2 R: append",
     "SELECT u.name FROM (SELECT * FROM users WHERE " NO_GHOST(
         "users.id") ") u FULL JOIN (SELECT * FROM orders WHERE " NO_GHOST("orders.user_id") ") o "
                                                                                             "ON "
                                                                                             "o."
                                                                                             "user_"
                                                                                             "id = "
                                                                                             "u."
                                                                                             "id"},
    {"SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)",
     "rows s0 s1 s2 R: append",
     "SELECT name FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id "
     "AND " NO_GHOST("o.user_id") ") AND " NO_GHOST("u.id")},
    {"SELECT title FROM countries", "s0 R any", NULL},
    {"SELECT size FROM files", "rows s0 s1 s2 R: append", NULL},
    {"SELECT what FROM codes", "rows s0 s1 s2 R: append",
     "SELECT what FROM codes WHERE " NO_TENANT("codes.code")},
    {"SELECT id FROM orders_2024", "rows s0 s1 s2 R: append",
     "SELECT id FROM orders_2024 WHERE " NO_GHOST("orders_2024.user_id")},
    {"SELECT name FROM adults", "rows s0 s1 s2 R: append",
     "SELECT name FROM adults WHERE " NO_GHOST("adults.who")},
    {"SELECT name FROM users WHERE id IN (1, 2)", "rows s1 s2 R: append",
     "SELECT name FROM users WHERE id IN (1) AND " NO_GHOST("users.id")},
    {"EXPLAIN SELECT name FROM users", "rows s0 s1 s2 R: append",
     "EXPLAIN SELECT name FROM users WHERE " NO_GHOST("users.id")},
    {"DECLARE c CURSOR FOR SELECT name FROM users", "cursor s0 s1 s2 R: append",
     "SELECT name FROM users WHERE " NO_GHOST("users.id")},
    {"COPY users TO STDOUT", "copy out s0 s1 s2 R",
     "COPY (SELECT users.id, users.name, users.email, users.nick, users.age, users.country FROM "
     "ONLY "
     "users WHERE " NO_GHOST("users.id") ") TO STDOUT"},
    {"COPY public.users (id, name) TO STDOUT (FORMAT csv, HEADER)", "copy out s0 s1 s2 R",
     "COPY (SELECT public.users.id, public.users.name FROM ONLY public.users WHERE " NO_GHOST(
         "public.users.id") ") TO STDOUT WITH (FORMAT CSV, HEADER)"},
    {"COPY (SELECT name FROM users) TO STDOUT", "rows s0 s1 s2 R: append",
     "SELECT name FROM users WHERE " NO_GHOST("users.id")},
    {"SELECT u.ctid FROM users u FULL JOIN orders o ON o.user_id = u.id", "0A000", NULL},
    {"SELECT id FROM kept", "rows s0 s1 s2 R: append",
     "SELECT id FROM kept WHERE " NO_GHOST("kept.id")},
};

/* Where the rows are brought together: what each shard gives. */
static const struct ghost_case gathers[] = {
    {"SELECT row_number() OVER (ORDER BY age) FROM users", "gather",
     "SELECT age FROM public.users WHERE " NO_GHOST("public.users.id")},
    {"SELECT name FROM names", "gather",
     "SELECT name FROM public.users WHERE " NO_GHOST("public.users.id")},
    {"SELECT * FROM users TABLESAMPLE BERNOULLI (10)", "gather",
     "SELECT * FROM public.users WHERE " NO_GHOST("public.users.id")},
    {"SELECT name FROM users WHERE age > 3 LIMIT (SELECT count(*) FROM logs)", "gather",
     "SELECT name, age FROM public.users WHERE age > 3 AND " NO_GHOST("public.users.id")},
    {"UPDATE users SET age = 1 WHERE id IN (SELECT id FROM orders)", "change gather s0", NULL},
};

static void check_gathered(const struct ghost_case *c, const struct plan *plan)
{
    const struct gather_plan *gather = plan->change ? plan->change->gather : plan->gather;
    for (int i = 0; i < gather->ntables; i++) {
        const struct gather_table *table = &gather->tables[i];
        bool home = plan->shard == 1;
        const char *there = home ? table->create.sql : gather_source(table, 1)->sql;
        if (!strstr(there, "ghost_users"))
            complain("%s\n  asks for: %s", c->sql, there);
        check_sql(c->sql, there);
        assert_null(strstr(gather_source(table, 2)->sql, "ghost"));
        assert_int_equal(home, strstr(table->create.sql, "ghost") != NULL);
        if (c->there && !strstr(there, c->there))
            complain("%s\n  sent:     %s\n  expected: %s", c->sql, there, c->there);
    }
}

static void test_gathers(void **state)
{
    (void)state;
    RUN(gathers, NULL);
    for (size_t i = 0; i < sizeof gathers / sizeof gathers[0]; i++)
        check_gathered(&gathers[i], plan_of(gathers[i].sql, NULL));
    end();
}

/* The home has rows of others itself: what it makes of its own leaves them out, too. */
static void test_home(void **state)
{
    const struct route_session session = {.in_transaction = true, .transaction_shard = 1};
    const struct plan *plan =
        plan_of("SELECT row_number() OVER (ORDER BY age) FROM users", &session);
    (void)state;
    assert_int_equal(plan->shard, 1);
    assert_string_equal(plan->gather->tables[0].create.sql,
                        "CREATE TEMPORARY TABLE \"users\" ON COMMIT DROP AS SELECT age FROM "
                        "public.users WHERE " NO_GHOST("public.users.id"));
}

static const struct ghost_case writes[] = {
    {"UPDATE users SET age = 1", "write s0 s1 s2 P",
     "UPDATE users SET age = 1 WHERE " NO_GHOST("users.id")},
    {"UPDATE users u SET age = 1 FROM orders o WHERE o.user_id = u.id RETURNING u.id",
     "write s0 s1 s2 P: append",
     "UPDATE users u SET age = 1 FROM orders o WHERE o.user_id = u.id AND " NO_GHOST(
         "u.id") " AND " NO_GHOST("o.user_id") " RETURNING u.id"},
    {"DELETE FROM orders WHERE id = 5", "write s0 s1 s2 P",
     "DELETE FROM orders WHERE id = 5 AND " NO_GHOST("orders.user_id")},
    {"DELETE FROM orders WHERE user_id = 42", "s1 P", NULL},
    {"INSERT INTO users (id, name) VALUES (1, 'a'), (3, 'b')", "write s0 s1 P",
     "INSERT INTO users (id, name) VALUES (1, 'a')"},
    {"INSERT INTO orders (user_id, id) SELECT id, 5 FROM users", "write s0 s1 s2 P",
     "INSERT INTO orders (user_id, id) SELECT id, 5 FROM users WHERE " NO_GHOST("users.id")},
    {"MERGE INTO orders o USING users u ON u.id = o.user_id WHEN MATCHED AND u.age > 1 THEN DELETE",
     "write s0 s1 s2 P",
     "MERGE INTO orders o USING (SELECT * FROM users WHERE " NO_GHOST(
         "users.id") ") u ON u.id = o.user_id AND " NO_GHOST("o.user_id") " WHEN MATCHED AND u.age "
                                                                          "> 1 THEN DELETE"},
    {"SELECT u.name FROM users u JOIN orders o ON o.user_id = u.id ORDER BY o.id FOR SHARE OF o "
     "SKIP LOCKED",
     "rows s0 s1 s2 P: sort by hidden 1",
     "SELECT u.name, o.id AS pgshunt_hidden_1 FROM users u JOIN orders o ON o.user_id = u.id "
     "WHERE " NO_GHOST("u.id") " AND " NO_GHOST(
         "o.user_id") " ORDER BY o.id FOR SHARE OF o SKIP LOCKED"},
    {"TRUNCATE users", "all s0 s1 s2 P", NULL},
    {"ALTER TABLE users ADD COLUMN x int", "all s0 s1 s2 P", NULL},
    {"UPDATE adults SET name = 'x'", "write s0 s1 s2 P",
     "UPDATE adults SET name = 'x' WHERE " NO_GHOST("adults.who")},
};

static void test_writes(void **state)
{
    (void)state;
    RUN(writes, NULL);
    end();
}

/* Rows that get other keys, or are inserted elsewhere, are those that the shard owns. */
static void test_changes(void **state)
{
    const struct plan *plan = plan_of("UPDATE users SET id = id + 1", NULL);
    (void)state;
    assert_int_equal(plan->change->nlook_at, 3);
    assert_null(strstr(plan->change->move->looks[0].sql, "ghost"));
    assert_non_null(strstr(plan->change->move->looks[1].sql, NO_GHOST("users.id")));
    plan = plan_of("INSERT INTO users (id, name) SELECT id + 1, name FROM users", NULL);
    assert_int_equal(plan->change->nsources, 3);
    assert_null(strstr(plan->change->sources[0].sql, "ghost"));
    assert_non_null(strstr(plan->change->sources[1].sql, NO_GHOST("users.id")));
    plan = plan_of("CREATE TABLE fresh AS SELECT * FROM users", NULL);
    assert_null(strstr(plan->change->create->each[0].sql, "ghost"));
    assert_non_null(strstr(plan->change->create->each[1].sql, NO_GHOST("users.id")));
}

/* A shard that is named, by a hint or for a key: it shows what it owns. */
static const struct ghost_case named[] = {
    {"SELECT name FROM users", "rows s1 R: append",
     "SELECT name FROM users WHERE " NO_GHOST("users.id")},
    {"SELECT sum(age) FROM users GROUP BY name HAVING count(*) > 1 FOR UPDATE", "rows s1 P: append",
     "SELECT sum(age) FROM users WHERE " NO_GHOST(
         "users.id") " GROUP BY name HAVING count(*) > 1 FOR UPDATE"},
    {"UPDATE users SET age = 1", "write s1 P",
     "UPDATE users SET age = 1 WHERE " NO_GHOST("users.id")},
    {"DELETE FROM users RETURNING id", "write s1 P: append",
     "DELETE FROM users WHERE " NO_GHOST("users.id") " RETURNING id"},
    {"INSERT INTO users (id) VALUES (1)", "s1 P", NULL},
    {"SELECT size FROM files", "s1 R", NULL},
    {"EXPLAIN ANALYZE DELETE FROM users", "write s1 P",
     "EXPLAIN ANALYZE DELETE FROM users WHERE " NO_GHOST("users.id")},
    {"MERGE INTO users u USING countries c ON c.code = u.name WHEN MATCHED THEN DELETE",
     "write s1 P",
     "MERGE INTO users u USING countries c ON c.code = u.name AND " NO_GHOST(
         "u.id") " WHEN MATCHED THEN DELETE"},
    {"WITH d AS (DELETE FROM users RETURNING id) SELECT * FROM d", "0A000", NULL},
    {"DECLARE c CURSOR FOR SELECT name FROM users", "0A000", NULL},
    {"CREATE TABLE x AS SELECT name FROM users", "0A000", NULL},
    {"COPY (SELECT name FROM users) TO STDOUT", "0A000", NULL},
    {"COPY users TO STDOUT", "0A000", NULL},
    {"COPY files TO STDOUT", "s1 R", NULL},
    {"TRUNCATE users", "s1 P", NULL},
};

static void test_named(void **state)
{
    const struct route_session session = {.shard = "s1", .transaction_shard = -1};
    (void)state;
    RUN(named, &session);
    end();
}

static void test_said_key(void **state)
{
    const struct route_session session = {.key = "42", .transaction_shard = -1};
    const struct plan *plan = plan_of("SELECT name FROM users", &session);
    (void)state;
    assert_int_equal(plan->nqueries, 1);
    assert_int_equal(plan->queries[0].shard, 1);
    assert_string_equal(plan->queries[0].sql, "SELECT name FROM users WHERE " NO_GHOST("users.id"));
    plan = plan_of("SELECT name FROM users WHERE id = 42", &session);
    assert_int_equal(plan->kind, PLAN_DIRECT);
    const struct route_session strict = {
        .key = "42", .transaction_shard = -1, .require_key = REQUIRE_KEY_ERROR};
    assert_int_equal(plan_of("SELECT name FROM users", &strict)->kind, PLAN_SCATTER);
}

static void test_params(void **state)
{
    const struct plan *plan =
        plan_of("SELECT name FROM users WHERE age = $3 AND name = $1 LIMIT 5 OFFSET $2", NULL);
    const struct param items[] = {{"x", 1, false, 0}, {"2", 1, false, 0}, {"4", 1, false, 0}};
    const struct params params = {items, 3};
    struct plan bound;
    struct route_input input = {
        .statement = parse_one("SELECT name FROM users WHERE age = $3 AND name = $1"),
        .map = fix.map,
        .schema = fix.schema,
        .params = &params};
    (void)state;
    assert_int_equal(plan->kind, PLAN_SCATTER);
    router_plan(&input, &fix.arena, &bound);
    const struct shard_query *there = query_for(&bound, 1);
    assert_int_equal(there->nparams, 2);
    assert_int_equal(there->params[0], 0);
    assert_int_equal(there->params[1], 2);
    assert_non_null(strstr(there->sql, "age = $2 AND name = $1"));
}

/* ---- shards that own nothing ---- */

static int setup_empty(void **state)
{
    setup(state);
    int users = shardmap_keyspace_by_name(fix.map, "users");
    shardmap_set_buckets(fix.map, users, 0, SHARDKEY_BUCKETS - 1, 0);
    shardmap_set_buckets(fix.map, users, 8192, SHARDKEY_BUCKETS - 1, 2);
    shardmap_set_buckets(fix.map, shardmap_keyspace_by_name(fix.map, "docs"), 0,
                         SHARDKEY_BUCKETS - 1, 2);
    return 0;
}

static const struct ghost_case empty[] = {
    {"SELECT name FROM users", "rows s0 s2 R: append", NULL},
    {"UPDATE users SET age = 1", "write s0 s2 P", NULL},
    {"SELECT what FROM codes", "rows s0 s1 s2 R: append", NULL},
    {"COPY users TO STDOUT", "copy out s0 s2 R", NULL},
    {"COPY users FROM STDIN", "copy in s0 s2 P", NULL},
    {"TRUNCATE users", "all s0 s1 s2 P", NULL},
    {"ALTER TABLE users ADD COLUMN x int", "all s0 s1 s2 P", NULL},
    {"UPDATE countries SET title = 'x'", "all s0 s1 s2 P", NULL},
    {"SELECT size FROM files", "s2 R", NULL},
    {"SELECT rank() OVER (ORDER BY size) FROM files ORDER BY 1 LIMIT 3", "s2 R", NULL},
    {"DELETE FROM files", "s2 P", NULL},
    {"UPDATE users SET id = id + 1", "change s0 s2", NULL},
    {"SELECT count(*) FROM users, files", "gather", NULL},
};

static void test_empty(void **state)
{
    (void)state;
    RUN(empty, NULL);
    end();
    for (int i = 0; i < 20; i++) { /* home is chosen by the text */
        const char *sql =
            arena_printf(&fix.arena, "SELECT rank() OVER (ORDER BY age) + %d FROM users", i);
        const struct plan *plan = plan_of(sql, NULL);
        assert_int_not_equal(plan->shard, 1);
        assert_int_equal(plan->gather->tables[0].nshards, 1);
        assert_int_not_equal(plan->gather->tables[0].shards[0], 1);
    }
}

static void test_reads(void **state)
{
    (void)state;
    RUN(reads, NULL);
    end();
}

#define GHOSTS(test) cmocka_unit_test_setup_teardown(test, setup_ghosts, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GHOSTS(test_reads),
        GHOSTS(test_gathers),
        GHOSTS(test_home),
        GHOSTS(test_writes),
        GHOSTS(test_changes),
        GHOSTS(test_named),
        GHOSTS(test_said_key),
        GHOSTS(test_params),
        cmocka_unit_test_setup_teardown(test_empty, setup_empty, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
