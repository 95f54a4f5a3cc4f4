/* test_classify.c: which statements are reads, and why the others are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "pgshunt/plan.h"
#include "router/builtin_functions.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* What a small application has: tables of every kind, and functions of its own. */
static struct schema *sample_schema(void)
{
    static const struct {
        const char *schema, *name;
        char kind, persistence;
    } relations[] = {
        {"public", "t", 'r', 'p'},
        {"public", "users", 'r', 'p'},
        {"public", "orders", 'p', 'p'},
        {"public", "totals", 'm', 'p'},
        {"public", "fast", 'r', 'u'},
        {"public", "fast_parts", 'p', 'u'},
        {"public", "v", 'v', 'p'}, /* nothing is known of what is behind it */
        {"public", "v_plain", 'v', 'p'},
        {"public", "v_nothing", 'v', 'p'},
        {"public", "v_stable", 'v', 'p'},
        {"public", "v_random", 'v', 'p'},
        {"public", "v_nextval", 'v', 'p'},
        {"public", "v_txid", 'v', 'p'},
        {"public", "v_bump", 'v', 'p'},
        {"public", "v_of_v", 'v', 'p'},
        {"public", "v_of_bump", 'v', 'p'},
        {"public", "v_of_unknown", 'v', 'p'},
        {"public", "v_fast", 'v', 'p'},
        {"public", "v_far", 'v', 'p'},
        {"public", "v_catalog", 'v', 'p'},
        {"public", "v_locks", 'v', 'p'},
        {"public", "v_dropped", 'v', 'p'},
        {"public", "v_loop", 'v', 'p'},
        {"public", "v_own_lower", 'v', 'p'},
        {"public", "guarded", 'r', 'p'},
        {"public", "guarded_by_bump", 'r', 'p'},
        {"a", "mixed_up", 'r', 'p'},
        {"b", "mixed_up", 'v', 'p'},
        {"a", "both_fine", 'r', 'p'},
        {"b", "both_fine", 'v', 'p'},
        {"public", "far", 'f', 'p'},
        {"public", "users_id_seq", 'S', 'p'},
        {"public", "users_pkey", 'i', 'p'},
        {"public", "pairs", 'c', 'p'},
        {"app", "items", 'r', 'p'},
        {"app", "t", 'r', 'u'},
        {"pg_temp_3", "scratch", 'r', 't'},
        {"a", "twice", 'r', 'p'},
        {"b", "twice", 'r', 'p'},
        {"pg_catalog", "pg_class", 'r', 'p'},
        {"information_schema", "tables", 'v', 'p'},
    };
    static const struct {
        const char *of_schema, *of;
        struct schema_part part;
    } parts[] = {
        {"public", "v_plain", {PART_RELATION, "public", "users", 0, NULL}},
        {"public", "v_plain", {PART_RELATION, "app", "items", 0, NULL}},
        {"public", "v_stable", {PART_RELATION, "public", "users", 0, NULL}},
        {"public", "v_stable", {PART_FUNCTION, "public", "price", VOLATILITY_STABLE, NULL}},
        {"public", "v_stable", {PART_FUNCTION, "pg_catalog", "int8eq", VOLATILITY_IMMUTABLE, NULL}},
        {"public", "v_random", {PART_FUNCTION, "pg_catalog", "random", VOLATILITY_VOLATILE, NULL}},
        {"public",
         "v_nextval",
         {PART_FUNCTION, "pg_catalog", "nextval", VOLATILITY_VOLATILE, NULL}},
        {"public",
         "v_txid",
         {PART_FUNCTION, "pg_catalog", "txid_current", VOLATILITY_STABLE, NULL}},
        {"public", "v_bump", {PART_FUNCTION, "public", "bump", VOLATILITY_VOLATILE, NULL}},
        {"public", "v_of_v", {PART_RELATION, "public", "v_plain", 0, NULL}},
        {"public", "v_of_v", {PART_RELATION, "public", "v_stable", 0, NULL}},
        {"public", "v_of_bump", {PART_RELATION, "public", "v_of_v", 0, NULL}},
        {"public", "v_of_bump", {PART_RELATION, "public", "v_bump", 0, NULL}},
        {"public", "v_of_unknown", {PART_RELATION, "public", "v", 0, NULL}},
        {"public", "v_fast", {PART_RELATION, "public", "fast", 0, NULL}},
        {"public", "v_far", {PART_RELATION, "public", "far", 0, NULL}},
        {"public", "v_catalog", {PART_RELATION, "pg_catalog", "pg_class", 0, NULL}},
        {"public", "v_locks", {PART_RELATION, "public", "users", 0, NULL}},
        {"public", "v_locks", {PART_LOCK, NULL, NULL, 0, NULL}},
        {"public", "v_dropped", {PART_RELATION, "", "", 0, NULL}},
        {"public", "v_loop", {PART_RELATION, "public", "v_loop", 0, NULL}},
        /* another function of this name is volatile, the view has this one */
        {"public", "v_own_lower", {PART_FUNCTION, "app", "mixed", VOLATILITY_STABLE, NULL}},
        {"public", "guarded", {PART_FUNCTION, "public", "price", VOLATILITY_STABLE, NULL}},
        {"public", "guarded_by_bump", {PART_FUNCTION, "public", "bump", VOLATILITY_VOLATILE, NULL}},
        {"b", "both_fine", {PART_RELATION, "public", "users", 0, NULL}},
    };
    static const struct {
        const char *schema, *name;
        enum volatility volatility;
    } functions[] = {
        {"pg_catalog", "lower", VOLATILITY_IMMUTABLE},
        {"pg_catalog", "now", VOLATILITY_STABLE},
        {"pg_catalog", "count", VOLATILITY_IMMUTABLE},
        {"pg_catalog", "random", VOLATILITY_VOLATILE},
        {"pg_catalog", "nextval", VOLATILITY_VOLATILE},
        {"pg_catalog", "txid_current", VOLATILITY_STABLE},
        {"pg_catalog", "timezone", VOLATILITY_IMMUTABLE},
        {"pg_catalog", "gen_random_uuid", VOLATILITY_VOLATILE},
        {"public", "gen_random_uuid", VOLATILITY_VOLATILE},
        {"public", "tax", VOLATILITY_IMMUTABLE},
        {"public", "price", VOLATILITY_STABLE},
        {"public", "bump", VOLATILITY_VOLATILE},
        {"app", "mixed", VOLATILITY_STABLE},
        {"audit", "mixed", VOLATILITY_VOLATILE},
        {"public", "upper", VOLATILITY_VOLATILE},
        {"public", "newest", VOLATILITY_UNKNOWN},
    };
    struct schema *schema = schema_new();
    for (size_t i = 0; i < COUNT(relations); i++) {
        struct schema_relation relation = {.schema = relations[i].schema,
                                           .name = relations[i].name,
                                           .kind = relations[i].kind,
                                           .persistence = relations[i].persistence};
        schema_add_relation(schema, &relation);
    }
    schema_add_part(schema, "public", "v_nothing", NULL);
    schema_add_part(schema, "nowhere", "v_nothing", NULL);
    for (size_t i = 0; i < COUNT(parts); i++)
        schema_add_part(schema, parts[i].of_schema, parts[i].of, &parts[i].part);
    for (size_t i = 0; i < COUNT(functions); i++)
        schema_add_function(schema, functions[i].schema, functions[i].name,
                            functions[i].volatility);
    return schema;
}

struct class_case {
    const char *sql;
    enum node_class class;
    const char *reason;
};

/* clang-format off */
#define READ(sql) {sql, NODE_CLASS_REPLICA, "read"}
#define REPLICA(sql, why) {sql, NODE_CLASS_REPLICA, why}
#define PRIMARY(sql, why) {sql, NODE_CLASS_PRIMARY, why}

static const struct class_case cases_with_schema[] = {
    /* plain reads */
    READ("SELECT 1"),
    READ("SELECT"),
    READ("VALUES (1), (2)"),
    READ("TABLE users"),
    READ("SELECT * FROM users WHERE id = 42"),
    READ("SELECT * FROM public.users WHERE id = $1"),
    READ("select * from ONLY users"),
    READ("SELECT * FROM users u JOIN orders o ON o.user_id = u.id LEFT JOIN totals USING (id)"),
    READ("SELECT * FROM app.items"),
    READ("SELECT * FROM items"),
    READ("SELECT * FROM a.twice"),
    READ("SELECT count(*) FROM users GROUP BY country HAVING count(*) > 3 ORDER BY 1 LIMIT 5"),
    READ("SELECT DISTINCT ON (country) * FROM users ORDER BY country"),
    READ("SELECT lower(name) FROM users"),
    READ("SELECT pg_catalog.lower(name) FROM users"),
    READ("SELECT now(), CURRENT_DATE, CURRENT_USER, LOCALTIMESTAMP"),
    READ("SELECT created AT TIME ZONE 'UTC' FROM users"),
    READ("SELECT tax(price) FROM orders"),
    READ("SELECT public.price(1)"),
    READ("SELECT app.mixed(1)"),
    READ("SELECT random()"),
    READ("SELECT pg_catalog.gen_random_uuid()"),
    READ("SELECT pg_sleep(0.1), clock_timestamp(), timeofday()"),
    READ("SELECT pg_is_in_recovery()"),
    READ("SELECT pg_backend_pid(), version(), current_setting('x'), current_database()"),
    READ("SELECT pg_size_pretty(pg_total_relation_size('users'))"),
    READ("SELECT pg_last_wal_replay_lsn()"),
    READ("SELECT txid_current_if_assigned()"),
    READ("SELECT sum(n) OVER (PARTITION BY country ORDER BY id) FROM users"),
    READ("SELECT rank() OVER w FROM users WINDOW w AS (ORDER BY id)"),
    READ("SELECT array_agg(id ORDER BY id) FILTER (WHERE id > 1) FROM users"),
    READ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM users"),
    READ("SELECT * FROM generate_series(1, 10) g, unnest(ARRAY[1, 2]) u"),
    READ("SELECT * FROM users, LATERAL (SELECT * FROM orders WHERE user_id = users.id) o"),
    READ("SELECT * FROM users TABLESAMPLE system (10)"),
    READ("WITH a AS (SELECT * FROM users), b AS (SELECT * FROM a) SELECT * FROM b"),
    READ("WITH fast AS (SELECT 1) SELECT * FROM fast"),
    READ("WITH pg_x AS (SELECT 1) SELECT * FROM pg_x"),
    READ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r LIMIT 5"),
    READ("SELECT 1 UNION SELECT id FROM users EXCEPT SELECT id FROM orders"),
    READ("SELECT (SELECT max(id) FROM users), ARRAY(SELECT id FROM orders)"),
    READ("SELECT * FROM users WHERE id IN (SELECT user_id FROM orders) AND EXISTS (SELECT FROM public.t)"),
    READ("SELECT * FROM public.t"),
    READ("SELECT * FROM twice"),
    READ("SELECT * FROM both_fine"),
    READ("SELECT CASE WHEN id > 1 THEN lower(name) ELSE coalesce(name, 'x') END FROM users"),
    READ("SELECT 'x'::text, id::int8, name LIKE 'a%', id BETWEEN 1 AND 2, id = ANY ($1) FROM users"),
    READ("SELECT '/* FOR UPDATE */ nextval(''s'')'"),
    READ("SELECT \"nextval\" FROM users"),
    READ("SELECT extract(year FROM now()), trim(both 'x' FROM name), position('a' IN name) FROM users"),
    READ("SELECT jsonb_build_object('a', 1) -> 'a', to_jsonb(users) FROM users"),
    READ("SELECT regexp_replace(name, 'a', 'b'), md5(name), length(name), abs(id) FROM users"),
    READ("SELECT to_date('2020', 'YYYY'), to_char(now(), 'YYYY'), date_trunc('day', now())"),
    READ("/* comment */ SELECT 1 -- INSERT"),
    READ("EXPLAIN SELECT * FROM users"),
    READ("EXPLAIN ANALYZE SELECT * FROM users"),
    READ("EXPLAIN (ANALYZE, BUFFERS) VALUES (1)"),
    READ("COPY users TO STDOUT"),
    READ("COPY (SELECT * FROM users) TO STDOUT (FORMAT csv)"),
    REPLICA("SHOW search_path", "show"),
    REPLICA("SHOW TIME ZONE", "show"),
    REPLICA("SHOW TRANSACTION ISOLATION LEVEL", "show"),
    REPLICA("BEGIN READ ONLY", "read only transaction"),
    REPLICA("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "read only transaction"),

    /* changes */
    PRIMARY("INSERT INTO users VALUES (1)", "write"),
    PRIMARY("INSERT INTO users SELECT * FROM users", "write"),
    PRIMARY("INSERT INTO users VALUES (1) ON CONFLICT DO NOTHING", "write"),
    PRIMARY("UPDATE users SET name = 'x'", "write"),
    PRIMARY("DELETE FROM users", "write"),
    PRIMARY("MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN DELETE", "write"),
    PRIMARY("WITH a AS (SELECT 1) UPDATE users SET id = 1", "write"),
    PRIMARY("WITH x AS (UPDATE users SET id = 1 RETURNING *) SELECT * FROM x", "modifying CTE"),
    PRIMARY("WITH x AS (INSERT INTO users VALUES (1) RETURNING id) SELECT * FROM x", "modifying CTE"),
    PRIMARY("WITH x AS (DELETE FROM users RETURNING id) TABLE x", "modifying CTE"),
    PRIMARY("WITH a AS (SELECT 1), x AS (DELETE FROM users) SELECT * FROM a", "modifying CTE"),
    PRIMARY("WITH a AS (WITH b AS (DELETE FROM users RETURNING 1) SELECT * FROM b) SELECT 1", "modifying CTE"),
    PRIMARY("SELECT * FROM (WITH b AS (DELETE FROM users RETURNING 1) SELECT * FROM b) x", "modifying CTE"),
    PRIMARY("SELECT 1 UNION (WITH b AS (DELETE FROM users RETURNING 1) SELECT * FROM b)", "modifying CTE"),
    PRIMARY("VALUES ((WITH b AS (DELETE FROM users RETURNING 1) SELECT 1))", "modifying CTE"),
    PRIMARY("SELECT * INTO copy FROM users", "creates a table"),
    PRIMARY("SELECT 1 INTO TEMP copy", "creates a table"),
    PRIMARY("SELECT 1 AS a INTO copy UNION SELECT 2", "creates a table"),
    PRIMARY("COPY users FROM STDIN", "write"),
    PRIMARY("COPY (DELETE FROM users RETURNING *) TO STDOUT", "write"),
    PRIMARY("COPY users TO '/tmp/x'", "file on the server"),
    PRIMARY("COPY users TO PROGRAM 'cat'", "file on the server"),
    PRIMARY("COPY (SELECT 1) TO '/tmp/x'", "file on the server"),
    PRIMARY("COPY (SELECT nextval('s')) TO STDOUT", "volatile function"),
    PRIMARY("COPY fast TO STDOUT", "unlogged table"),
    PRIMARY("TRUNCATE users", "write"),
    PRIMARY("EXPLAIN ANALYZE UPDATE users SET id = 1", "write"),
    PRIMARY("EXPLAIN UPDATE users SET id = 1", "write"),
    PRIMARY("EXPLAIN ANALYZE WITH x AS (DELETE FROM users RETURNING 1) SELECT * FROM x", "modifying CTE"),
    PRIMARY("EXPLAIN ANALYZE SELECT nextval('s')", "volatile function"),
    PRIMARY("EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", "creates a table"),
    PRIMARY("EXPLAIN ANALYZE EXECUTE p", "prepared statement"),
    PRIMARY("EXPLAIN (ANALYZE off) DELETE FROM users", "write"),

    /* locks */
    PRIMARY("SELECT * FROM users FOR UPDATE", "locking clause"),
    PRIMARY("SELECT * FROM users FOR NO KEY UPDATE", "locking clause"),
    PRIMARY("SELECT * FROM users FOR SHARE", "locking clause"),
    PRIMARY("SELECT * FROM users FOR KEY SHARE OF users NOWAIT", "locking clause"),
    PRIMARY("SELECT * FROM users FOR UPDATE SKIP LOCKED LIMIT 1", "locking clause"),
    PRIMARY("SELECT * FROM (SELECT * FROM users FOR UPDATE) x", "locking clause"),
    PRIMARY("WITH a AS (SELECT * FROM users FOR UPDATE) SELECT * FROM a", "locking clause"),
    PRIMARY("SELECT (SELECT id FROM users LIMIT 1 FOR UPDATE)", "locking clause"),
    PRIMARY("(SELECT * FROM users FOR UPDATE) ORDER BY 1", "locking clause"),
    PRIMARY("LOCK TABLE users IN ACCESS SHARE MODE", "lock"),

    /* functions */
    PRIMARY("SELECT nextval('s')", "volatile function"),
    PRIMARY("SELECT pg_catalog.nextval('s')", "volatile function"),
    PRIMARY("SELECT setval('s', 1)", "volatile function"),
    PRIMARY("SELECT currval('s')", "volatile function"),
    PRIMARY("SELECT lastval()", "volatile function"),
    PRIMARY("SELECT set_config('a', 'b', false)", "volatile function"),
    PRIMARY("SELECT setseed(0.5)", "volatile function"),
    PRIMARY("SELECT pg_advisory_lock(1)", "volatile function"),
    PRIMARY("SELECT pg_try_advisory_xact_lock(1)", "volatile function"),
    PRIMARY("SELECT pg_advisory_unlock_all()", "volatile function"),
    PRIMARY("SELECT lo_create(0)", "volatile function"),
    PRIMARY("SELECT lo_get(1)", "volatile function"),
    PRIMARY("SELECT loread(1, 2)", "volatile function"),
    PRIMARY("SELECT pg_notify('a', 'b')", "volatile function"),
    PRIMARY("SELECT pg_switch_wal()", "volatile function"),
    PRIMARY("SELECT pg_current_wal_lsn()", "volatile function"),
    PRIMARY("SELECT pg_export_snapshot()", "volatile function"),
    PRIMARY("SELECT pg_stat_reset()", "volatile function"),
    PRIMARY("SELECT pg_cancel_backend(1)", "volatile function"),
    PRIMARY("SELECT pg_terminate_backend(1)", "volatile function"),
    PRIMARY("SELECT pg_read_file('x')", "volatile function"),
    PRIMARY("SELECT pg_create_restore_point('x')", "volatile function"),
    PRIMARY("SELECT pg_logical_emit_message(true, 'a', 'b')", "volatile function"),
    PRIMARY("SELECT pg_promote()", "volatile function"),
    PRIMARY("SELECT query_to_xml('delete from users', true, true, '')", "volatile function"),
    PRIMARY("SELECT ts_rewrite('a'::tsquery, 'select 1')", "volatile function"),
    PRIMARY("SELECT txid_current()", "function of the primary or the session"),
    PRIMARY("SELECT pg_current_xact_id()", "function of the primary or the session"),
    PRIMARY("SELECT pg_listening_channels()", "function of the primary or the session"),
    PRIMARY("SELECT pg_my_temp_schema()", "function of the primary or the session"),
    PRIMARY("SELECT pg_replication_origin_oid('x')", "function of the primary or the session"),
    PRIMARY("SELECT pg_walfile_name('0/0')", "function of the primary or the session"),
    PRIMARY("SELECT dblink('x', 'delete from users')", "unknown function"),
    PRIMARY("SELECT uuid_generate_v4()", "unknown function"),
    PRIMARY("SELECT bump(1)", "volatile function"),
    PRIMARY("SELECT public.bump(1)", "volatile function"),
    PRIMARY("SELECT other.bump(1)", "unknown function"),
    PRIMARY("SELECT mixed(1)", "volatile function"),
    PRIMARY("SELECT audit.mixed(1)", "volatile function"),
    PRIMARY("SELECT newest(1)", "volatile function"),
    PRIMARY("SELECT upper(name) FROM users", "volatile function"),
    PRIMARY("SELECT gen_random_uuid()", "volatile function"),
    PRIMARY("SELECT public.random()", "unknown function"),
    PRIMARY("SELECT public.lower('x')", "unknown function"),
    PRIMARY("SELECT no_such_function()", "unknown function"),
    PRIMARY("SELECT \"LOWER\"('x')", "unknown function"),
    PRIMARY("SELECT * FROM users WHERE id = nextval('s')", "volatile function"),
    PRIMARY("SELECT * FROM users ORDER BY bump(id)", "volatile function"),
    PRIMARY("SELECT * FROM users GROUP BY bump(id)", "volatile function"),
    PRIMARY("SELECT count(*) FROM users HAVING bump(1)", "volatile function"),
    PRIMARY("SELECT * FROM users LIMIT bump(1)", "volatile function"),
    PRIMARY("SELECT * FROM users OFFSET (SELECT bump(1))", "volatile function"),
    PRIMARY("SELECT DISTINCT ON (bump(id)) id FROM users", "volatile function"),
    PRIMARY("SELECT * FROM bump(1)", "volatile function"),
    PRIMARY("SELECT * FROM ROWS FROM (lower('x'), bump(1)) AS x", "volatile function"),
    PRIMARY("SELECT * FROM users JOIN orders ON bump(1)", "volatile function"),
    PRIMARY("SELECT * FROM users, LATERAL bump(users.id)", "volatile function"),
    PRIMARY("SELECT * FROM users TABLESAMPLE system (bump(1))", "volatile function"),
    PRIMARY("SELECT sum(id) OVER (ORDER BY bump(id)) FROM users", "volatile function"),
    PRIMARY("SELECT sum(id) OVER w FROM users WINDOW w AS (PARTITION BY bump(1))", "volatile function"),
    PRIMARY("SELECT sum(id) FILTER (WHERE bump(id)) FROM users", "volatile function"),
    PRIMARY("SELECT array_agg(id ORDER BY bump(id)) FROM users", "volatile function"),
    PRIMARY("SELECT CASE WHEN true THEN 1 ELSE bump(1) END", "volatile function"),
    PRIMARY("SELECT coalesce(1, bump(1)), ARRAY[1]", "volatile function"),
    PRIMARY("SELECT ARRAY[ROW(bump(1))]", "volatile function"),
    PRIMARY("SELECT (a).b[bump(1)] FROM users", "volatile function"),
    PRIMARY("SELECT bump(1)::text", "volatile function"),
    PRIMARY("SELECT 1 IN (SELECT bump(1))", "volatile function"),
    PRIMARY("WITH a AS (SELECT bump(1)) SELECT 1", "volatile function"),
    PRIMARY("VALUES (1), (bump(1))", "volatile function"),
    PRIMARY("SELECT 1 UNION ALL SELECT bump(1)", "volatile function"),
    PRIMARY("SELECT lower(x => bump(1))", "volatile function"),
    PRIMARY("SELECT xmlelement(name a, bump(1))", "volatile function"),
    PRIMARY("SELECT greatest(1, bump(1)), nullif(1, 2)", "volatile function"),

    /* relations */
    PRIMARY("SELECT * FROM fast", "unlogged table"),
    PRIMARY("SELECT * FROM fast_parts", "unlogged table"),
    PRIMARY("SELECT * FROM app.t", "unlogged table"),
    PRIMARY("SELECT * FROM users WHERE id IN (SELECT id FROM fast)", "unlogged table"),
    PRIMARY("WITH a AS (SELECT * FROM fast) SELECT * FROM a", "unlogged table"),
    PRIMARY("WITH fast AS (SELECT * FROM fast) SELECT * FROM fast", "unlogged table"),
    PRIMARY("WITH fast AS (SELECT 1) SELECT * FROM public.fast", "unlogged table"),
    PRIMARY("SELECT * FROM v", "view"),
    PRIMARY("SELECT * FROM users JOIN public.v USING (id)", "view"),
    READ("SELECT * FROM v_plain"),
    READ("SELECT * FROM public.v_plain JOIN v_stable USING (id)"),
    READ("SELECT * FROM v_nothing"),
    READ("SELECT * FROM v_stable"),
    READ("SELECT * FROM v_random"),
    READ("SELECT * FROM v_of_v"),
    READ("WITH x AS (SELECT * FROM v_of_v) SELECT * FROM x"),
    READ("SELECT * FROM v_own_lower"),
    READ("COPY (TABLE v_plain) TO STDOUT"),
    READ("SELECT * FROM guarded"),
    PRIMARY("SELECT * FROM guarded_by_bump", "volatile function"),
    PRIMARY("COPY guarded_by_bump TO STDOUT", "volatile function"),
    PRIMARY("SELECT * FROM v_nextval", "volatile function"),
    PRIMARY("SELECT * FROM v_txid", "function of the primary or the session"),
    PRIMARY("SELECT * FROM v_bump", "volatile function"),
    PRIMARY("SELECT * FROM v_of_bump", "volatile function"),
    PRIMARY("SELECT 1 WHERE EXISTS (SELECT FROM v_of_bump)", "volatile function"),
    PRIMARY("SELECT * FROM v_of_unknown", "view"),
    PRIMARY("SELECT * FROM v_fast", "unlogged table"),
    PRIMARY("SELECT * FROM v_far", "foreign table"),
    PRIMARY("SELECT * FROM v_catalog", "system catalog"),
    PRIMARY("SELECT * FROM v_locks", "locking clause"),
    PRIMARY("SELECT * FROM v_dropped", "unknown relation"),
    PRIMARY("SELECT * FROM v_loop", "view"),
    PRIMARY("INSERT INTO v_plain VALUES (1)", "write"),
    PRIMARY("WITH v_plain AS (SELECT 1) SELECT * FROM v_bump, v_plain", "volatile function"),
    PRIMARY("SELECT * FROM far", "foreign table"),
    PRIMARY("SELECT last_value FROM users_id_seq", "sequence"),
    PRIMARY("SELECT * FROM users_pkey", "unknown relation"),
    PRIMARY("SELECT * FROM pairs", "unknown relation"),
    PRIMARY("SELECT * FROM scratch", "temporary table"),
    PRIMARY("SELECT * FROM pg_temp.anything", "temporary table"),
    PRIMARY("SELECT * FROM pg_temp_3.scratch", "temporary table"),
    PRIMARY("SELECT * FROM unheard_of", "unknown relation"),
    PRIMARY("SELECT * FROM nowhere.users", "unknown relation"),
    PRIMARY("SELECT * FROM t", "unlogged table"), /* app.t is */
    PRIMARY("SELECT * FROM mixed_up", "view"),
    READ("SELECT * FROM a.mixed_up"),
    PRIMARY("SELECT * FROM \"Users\"", "unknown relation"),
    PRIMARY("SELECT * FROM pg_class", "system catalog"),
    PRIMARY("SELECT * FROM pg_catalog.pg_class", "system catalog"),
    PRIMARY("SELECT * FROM pg_stat_activity", "system catalog"),
    PRIMARY("SELECT * FROM pg_toast.pg_toast_1", "system catalog"),
    PRIMARY("SELECT * FROM information_schema.tables", "system catalog"),
    PRIMARY("EXPLAIN SELECT * FROM fast", "unlogged table"),

    /* transactions, sessions and the rest */
    PRIMARY("BEGIN", "transaction control"),
    PRIMARY("BEGIN READ WRITE", "transaction control"),
    PRIMARY("START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", "serializable transaction"),
    PRIMARY("COMMIT", "transaction control"),
    PRIMARY("ROLLBACK", "transaction control"),
    PRIMARY("SAVEPOINT a", "transaction control"),
    PRIMARY("RELEASE a", "transaction control"),
    PRIMARY("ROLLBACK TO a", "transaction control"),
    PRIMARY("SET TRANSACTION READ ONLY", "transaction control"),
    PRIMARY("PREPARE TRANSACTION 'x'", "two-phase commit"),
    PRIMARY("COMMIT PREPARED 'x'", "two-phase commit"),
    PRIMARY("ROLLBACK PREPARED 'x'", "two-phase commit"),
    PRIMARY("SET a = 1", "session state"),
    PRIMARY("SET LOCAL a = 1", "session state"),
    PRIMARY("RESET a", "session state"),
    PRIMARY("RESET ALL", "session state"),
    PRIMARY("DISCARD ALL", "session state"),
    PRIMARY("LOAD 'x'", "session state"),
    PRIMARY("SHOW transaction_read_only", "setting that differs on a replica"),
    PRIMARY("SHOW in_hot_standby", "setting that differs on a replica"),
    PRIMARY("SHOW ALL", "setting that differs on a replica"),
    PRIMARY("PREPARE p AS SELECT 1", "prepared statement"),
    PRIMARY("EXECUTE p", "prepared statement"),
    PRIMARY("DEALLOCATE p", "prepared statement"),
    PRIMARY("LISTEN a", "notification"),
    PRIMARY("UNLISTEN a", "notification"),
    PRIMARY("NOTIFY a", "notification"),
    READ("DECLARE c CURSOR FOR SELECT 1"),
    READ("DECLARE c SCROLL CURSOR FOR SELECT * FROM users"),
    PRIMARY("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "cursor"),
    PRIMARY("DECLARE c CURSOR FOR SELECT * FROM users FOR UPDATE", "locking clause"),
    PRIMARY("DECLARE c CURSOR FOR SELECT bump(1)", "volatile function"),
    PRIMARY("FETCH c", "cursor"),
    PRIMARY("CLOSE c", "cursor"),
    PRIMARY("CALL p()", "procedure"),
    PRIMARY("DO 'begin end'", "procedure"),
    PRIMARY("CHECKPOINT", "maintenance"),
    PRIMARY("VACUUM", "schema change"),
    PRIMARY("ANALYZE users", "schema change"),
    PRIMARY("REINDEX TABLE users", "schema change"),
    PRIMARY("CREATE TABLE x (a int)", "creates a table"),
    PRIMARY("CREATE TABLE x AS SELECT 1", "creates a table"),
    PRIMARY("CREATE MATERIALIZED VIEW x AS SELECT 1", "creates a table"),
    PRIMARY("CREATE VIEW x AS SELECT 1", "schema change"),
    PRIMARY("CREATE INDEX CONCURRENTLY i ON users (id)", "schema change"),
    PRIMARY("ALTER TABLE users ADD x int", "schema change"),
    PRIMARY("DROP TABLE users", "schema change"),
    PRIMARY("GRANT SELECT ON users TO x", "schema change"),
    PRIMARY("REFRESH MATERIALIZED VIEW totals", "schema change"),
    PRIMARY("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'", "schema change"),
    PRIMARY("SET CONSTRAINTS ALL IMMEDIATE", "other statement"),
    PRIMARY("SELEC 1", "not understood"),
    PRIMARY("SELECT 1; SELEC 2", "not understood"),
    PRIMARY("SELECT $0", "not understood"),
};

/* Before the schema is known only what needs none of it is a read. */
static const struct class_case cases_without_schema[] = {
    READ("SELECT 1"),
    READ("SELECT now(), lower('x'), pg_is_in_recovery(), random()"),
    READ("SELECT count(*) FROM generate_series(1, 3)"),
    READ("WITH a AS (SELECT 1 AS x) SELECT max(x) FROM a"),
    READ("EXPLAIN SELECT 1"),
    REPLICA("SHOW search_path", "show"),
    PRIMARY("SELECT * FROM users", "schema not loaded"),
    PRIMARY("SELECT * FROM pg_class", "system catalog"),
    PRIMARY("SELECT * FROM pg_temp.x", "temporary table"),
    PRIMARY("SELECT tax(1)", "unknown function"),
    PRIMARY("SELECT public.lower('x')", "unknown function"),
    PRIMARY("SELECT nextval('s')", "volatile function"),
    PRIMARY("SELECT txid_current()", "function of the primary or the session"),
    PRIMARY("COPY users TO STDOUT", "schema not loaded"),
    PRIMARY("INSERT INTO users VALUES (1)", "write"),
    PRIMARY("SELECT 1 FOR UPDATE", "locking clause"),
};
/* clang-format on */

static int check(const struct class_case *cases, size_t count, const struct schema *schema)
{
    int bad = 0;
    for (size_t i = 0; i < count; i++) {
        struct arena arena;
        const char *reason = NULL;
        arena_init(&arena);
        struct statement_list list = statement_parse(cases[i].sql, &arena);
        assert_int_equal(list.count, 1);
        enum node_class class = router_classify(list.items[0], schema, &reason);
        assert_non_null(reason);
        if (class != cases[i].class || strcmp(reason, cases[i].reason) != 0) {
            print_error("%s: %s, %s\n", cases[i].sql,
                        class == NODE_CLASS_PRIMARY ? "primary" : "replica", reason);
            bad++;
        }
        arena_free(&arena);
    }
    return bad;
}

static void test_with_schema(void **state)
{
    (void)state;
    struct schema *schema = sample_schema();
    assert_true(COUNT(cases_with_schema) >= 200);
    assert_int_equal(check(cases_with_schema, COUNT(cases_with_schema), schema), 0);
    schema_free(schema);
}

static void test_without_schema(void **state)
{
    (void)state;
    assert_int_equal(check(cases_without_schema, COUNT(cases_without_schema), NULL), 0);
}

static void test_reasons_are_the_same_for_everyone(void **state)
{
    (void)state;
    struct arena arena;
    const char *first, *second;
    arena_init(&arena);
    struct statement_list list =
        statement_parse("SELECT nextval('a'); SELECT nextval('b')", &arena);
    router_classify(list.items[0], NULL, &first);
    router_classify(list.items[1], NULL, &second);
    assert_ptr_equal(first, second);
    arena_free(&arena);
}

static void test_builtin_functions(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum builtin_class class;
    } cases[] = {
        {"abbrev", BUILTIN_STABLE},       {"xpath_exists", BUILTIN_STABLE},
        {"count", BUILTIN_STABLE},        {"now", BUILTIN_STABLE},
        {"to_timestamp", BUILTIN_STABLE}, {"row_number", BUILTIN_STABLE},
        {"random", BUILTIN_HARMLESS},     {"array_sample", BUILTIN_HARMLESS},
        {"uuidv7", BUILTIN_HARMLESS},     {"timeofday", BUILTIN_HARMLESS},
        {"pg_cursor", BUILTIN_PRIMARY},   {"txid_current", BUILTIN_PRIMARY},
        {"nextval", BUILTIN_VOLATILE},    {"txid_status", BUILTIN_VOLATILE},
        {"amvalidate", BUILTIN_VOLATILE}, {"", BUILTIN_UNKNOWN},
        {"zzz", BUILTIN_UNKNOWN},         {"Count", BUILTIN_UNKNOWN},
        {"coun", BUILTIN_UNKNOWN},        {"dblink", BUILTIN_UNKNOWN},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        assert_int_equal(builtin_function(cases[i].name), cases[i].class);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_schema),
        cmocka_unit_test(test_without_schema),
        cmocka_unit_test(test_reasons_are_the_same_for_everyone),
        cmocka_unit_test(test_builtin_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
