/* test_plan_schemas.c: schemas that live on one shard: which a name means, and where statements go. */
#include "plan_support.h"

static int setup_schemas(void **state)
{
    static struct schema_column columns[] = {{"id", OID_INT8, .collation_default = true},
                                             {"what", OID_TEXT, .collation_default = true}};
    static const char *types[] = {"bigint", "text"};
    static const char *const tables[][2] = {
        {"acme", "bills"}, {"acme", "logs"}, {"brix", "bills"}, {"zoe", "bills"}};
    setup(state);
    shardmap_add_schema(fix.map, "acme", 1);
    shardmap_add_schema(fix.map, "brix", 2);
    shardmap_add_schema(fix.map, "zoe", 1);
    shardmap_add_schema(fix.map, "first", 0);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        schema_add_relation(fix.schema, &(struct schema_relation){.schema = tables[i][0],
                                                                  .name = tables[i][1],
                                                                  .kind = 'r',
                                                                  .persistence = 'p',
                                                                  .columns = columns,
                                                                  .types = types,
                                                                  .ncolumns = 2});
    return 0;
}

struct schema_case {
    const char *path, *sql, *plan, *more;
};

static const struct schema_case cases[] = {
    /* qualified, whatever the path is */
    {NULL, "SELECT * FROM acme.bills", "s1 R", "schema acme"},
    {"public", "SELECT * FROM brix.bills b JOIN countries c ON c.code = b.what", "s2 R", NULL},
    {"public", "SELECT * FROM acme.unheard_of", "s1 P", NULL},
    {"brix", "SELECT * FROM acme.bills a JOIN zoe.bills z ON z.id = a.id", "s1 R", NULL},
    {"public", "SELECT * FROM acme.bills NATURAL JOIN zoe.logs", "s1 P", NULL},
    {"public", "SELECT * FROM acme.bills WHERE id IN (SELECT id FROM users WHERE id = 42)", "s1 R",
     NULL},
    {"public", "SELECT * FROM acme.bills JOIN users ON users.id = bills.id", "gather",
     "not by key"},
    {"public", "SELECT * FROM acme.logs JOIN brix.bills USING (id)", "gather", "not by key"},
    {"public", "SELECT * FROM acme.bills, brix.bills b", "gather", "not by key"},
    {"public", "SELECT * FROM first.x JOIN logs ON true", "s0 P", NULL},
    /* unqualified */
    {NULL, "SELECT * FROM bills", "s0 R", "unsharded"},
    {"acme, public", "SELECT * FROM bills", "s1 R", "schema acme"},
    {"brix,acme", "SELECT * FROM bills", "s2 R", "schema brix"},
    {"\"$user\", public", "SELECT * FROM bills", "s1 R", "schema zoe"},
    {"public, acme", "SELECT * FROM logs", "s0 R", "unsharded"},
    {"acme, public", "SELECT * FROM logs", "s1 R", "schema acme"},
    {"brix, public", "SELECT * FROM logs", "s0 R", "unsharded"},
    {"acme, public", "SELECT * FROM users WHERE id = 2", "s2 R", "key id"},
    {"acme, public", "SELECT * FROM countries", "s1 R any", "reference"},
    {"acme, public", "SELECT * FROM unheard_of", "s1 P", "schema acme"},
    {"acme, public", "SELECT * FROM fresh WHERE id = 3", "s0 P", "key id"},
    {"acme, public", "SELECT * FROM pg_class", "s1 P", "catalog"},
    {"\"ACME\"", "SELECT * FROM bills", "s0 R", NULL},
    {"ACME", "WITH bills AS (SELECT 1) SELECT * FROM bills", "s1 R any", "no tables"},
    {"acme", "SELECT 1", "s1 R any", NULL},
    {"acme", "this is no SQL", "s1 P", "not understood"},
    {"public", "no SQL about acme.bills", "42601", NULL},
    /* changes */
    {"acme", "INSERT INTO bills VALUES (1, 'x'), (2, 'y')", "s1 P", NULL},
    {NULL, "INSERT INTO brix.bills SELECT id, code FROM countries", "s2 P", NULL},
    {NULL, "INSERT INTO brix.bills SELECT * FROM acme.bills", "0A000", "schema \"brix\""},
    {NULL, "INSERT INTO brix.bills SELECT id, name FROM users", "0A000", "schema \"brix\""},
    {NULL, "UPDATE acme.bills SET id = 5 FROM zoe.bills z WHERE z.id = bills.id", "s1 P", NULL},
    {NULL, "UPDATE acme.bills SET id = 5 FROM brix.bills b", "0A000", "schema \"acme\""},
    {NULL, "DELETE FROM acme.bills", "s1 P", NULL},
    {NULL,
     "MERGE INTO acme.bills b USING countries c ON c.code = b.what WHEN NOT MATCHED THEN INSERT "
     "VALUES (1)",
     "s1 P", NULL},
    {"acme", "UPDATE users SET name = 'x'", "write s0 s1 s2 P", NULL},
    /* schema changes */
    {NULL, "CREATE SCHEMA acme", "s1 P", NULL},
    {NULL, "CREATE SCHEMA other", "all s0 s1 s2 P", NULL},
    {NULL, "CREATE TABLE acme.t (id int)", "s1 P", NULL},
    {NULL, "CREATE TABLE acme.t (id int REFERENCES countries, b int REFERENCES zoe.bills)", "s1 P",
     NULL},
    {NULL, "CREATE TABLE acme.t (id int REFERENCES users)", "0A000", "\"users\""},
    {NULL, "CREATE TABLE acme.t (LIKE users)", "s1 P", NULL},
    {"acme, public", "CREATE TABLE t (id int)", "s1 P", NULL},
    {"public, acme", "CREATE TABLE t (id int)", "all s0 s1 s2 P", NULL},
    {"acme, public", "CREATE TABLE public.t (id int)", "all s0 s1 s2 P", NULL},
    {"acme, public", "CREATE INDEX i ON bills (id)", "s1 P", NULL},
    {"acme, public", "CREATE INDEX i ON users (name)", "all s0 s1 s2 P", NULL},
    {"acme, public", "DROP INDEX i", "0A000", "could be in schema \"acme\""},
    {"acme, public", "DROP INDEX acme.i", "s1 P", NULL},
    {"acme, public", "ALTER TABLE logs ADD x int", "s1 P", NULL},
    {"brix, public", "ALTER TABLE logs ADD x int", "all s0 s1 s2 P", NULL},
    {NULL, "ALTER TABLE acme.bills SET SCHEMA zoe", "s1 P", NULL},
    {NULL, "ALTER TABLE acme.bills SET SCHEMA brix", "0A000", "\"brix\""},
    {NULL, "ALTER TABLE acme.bills SET SCHEMA public", "0A000", "\"public\""},
    {NULL, "DROP TABLE acme.bills, brix.bills", "0A000", "\"brix\""},
    {NULL, "DROP TABLE acme.bills, users", "0A000", "\"users\""},
    {NULL, "DROP SCHEMA acme, zoe CASCADE", "s1 P", NULL},
    {"acme", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "s1 P", NULL},
    {"acme", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "all s0 s1 s2 P",
     NULL},
    {NULL, "CREATE TYPE brix.mood AS ENUM ('a')", "s2 P", NULL},
    {"acme", "DROP TYPE mood", "0A000", "could be"},
    {NULL, "DROP TYPE mood", "all s0 s1 s2 P", NULL},
    {NULL, "GRANT ALL ON ALL TABLES IN SCHEMA acme TO me", "s1 P", NULL},
    {NULL, "GRANT USAGE ON SCHEMA acme, brix TO me", "0A000", "\"brix\""},
    {NULL, "CREATE ROLE r", "all s0 s1 s2 P", NULL},
    {"acme", "CREATE EXTENSION hstore", "all s0 s1 s2 P", NULL},
    {NULL, "CREATE VIEW acme.v AS SELECT * FROM zoe.bills, countries", "s1 P", NULL},
    {NULL, "CREATE VIEW acme.v AS SELECT * FROM users", "0A000", "\"users\""},
    {NULL, "CREATE TABLE acme.t AS SELECT * FROM zoe.bills", "s1 P", NULL},
    {NULL, "TRUNCATE acme.bills", "s1 P", NULL},
    {NULL, "VACUUM acme.bills", "s1 P notx", NULL},
    {NULL, "COPY acme.bills FROM STDIN", "s1 P", NULL},
    {NULL, "LOCK TABLE acme.bills", "s1 P", NULL},
    {NULL, "CALL acme.p(1)", "s1 P", NULL},
    {"acme", "DO 'BEGIN END'", "s1 P", NULL},
    {NULL, "EXPLAIN SELECT * FROM acme.bills", "s1 R", NULL},
};

static void test_schemas(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct schema_case *c = &cases[i];
        struct route_session session = {.search_path = c->path ? c->path : "\"$user\", public",
                                        .user = c->path ? "zoe" : "me",
                                        .transaction_shard = -1};
        struct route_input input = {.statement = parse_one(c->sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .session = &session};
        struct plan plan;
        struct text words;
        router_plan(&input, &fix.arena, &plan);
        render(&plan, &words);
        check_sound(c->sql, &plan);
        const char *said = plan.kind == PLAN_REFUSE ? plan.error.message : plan.reason;
        if (strcmp(words.bytes, c->plan) != 0 || (c->more && !strstr(said, c->more))) {
            print_error("%s: %s\n  planned:  %s (%s)\n  expected: %s (%s)\n",
                        c->path ? c->path : "", c->sql, words.bytes, said, c->plan,
                        c->more ? c->more : "");
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

/* What may have been made a moment ago is looked for before it is taken for another table. */
static void test_stale(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        bool stale, waits;
    } questions[] = {
        {"SELECT * FROM users WHERE id = 1", false, false},
        {"SELECT * FROM users WHERE id = 1", true, true},
        {"SELECT * FROM bills", true, false},
        {"SELECT * FROM unheard_of", false, true},
        {"ALTER TABLE unheard_of ADD x int", false, true},
    };
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        struct route_session session = {.search_path = "acme, public",
                                        .user = "me",
                                        .transaction_shard = -1,
                                        .schema_is_stale = questions[i].stale};
        struct route_input input = {.statement = parse_one(questions[i].sql),
                                    .map = fix.map,
                                    .schema = fix.schema,
                                    .session = &session};
        struct plan plan;
        router_plan(&input, &fix.arena, &plan);
        assert_int_equal(plan.needs_schema != 0, questions[i].waits);
    }
}

/* Role and database, and the database's own: the most special one counts. */
static void test_role_paths(void **state)
{
    (void)state;
    struct schema *schema = schema_new();
    assert_null(schema_search_path(schema, "ann"));
    schema_add_search_path(schema, NULL, true, "db");
    schema_add_search_path(schema, "ann", false, "ann");
    schema_add_search_path(schema, "bob", false, "bob");
    schema_add_search_path(schema, "bob", true, "bob here");
    assert_string_equal(schema_search_path(schema, "ann"), "ann");
    assert_string_equal(schema_search_path(schema, "bob"), "bob here");
    assert_string_equal(schema_search_path(schema, "cid"), "db");
    schema_free(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemas),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_role_paths),
    };
    return cmocka_run_group_tests(tests, setup_schemas, teardown);
}
