"""Schemas that live on one shard each: found by qualified names and by the search_path, as a server finds them."""
from contextlib import closing

import pytest

from harness import Proxy
from support import SYNC, Raw, bind, execute, explain, fetch, one, parse, query, refused

pytestmark = pytest.mark.core

SCHEMAS = [{"name": "customer_a", "shard": "s1"}, {"name": "customer_b", "shard": "s0"},
           {"name": "customer_c", "shard": "s1"}, {"name": "Odd \"name\"", "shard": "s1"}, {"name": "cara", "shard": "s1"}]
KEYSPACES = [{"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}]
NAMES = ["customer_a", "customer_b", "customer_c", 'Odd "name"', "cara"]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture(scope="module")
def proxy(cluster):
    for user in ("cara", "defaulted"):
        cluster.create_role(user)
    with Proxy(cluster, keyspaces=KEYSPACES, reference=["countries"], database={"schemas": SCHEMAS},
               users=[{"name": name, "password": "", "admin": True} for name in ("postgres", "cara", "defaulted")]) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("ALTER ROLE defaulted SET search_path = customer_c, public")
            cursor.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
            cursor.execute("CREATE TABLE countries (code text PRIMARY KEY)")
            cursor.execute("CREATE TABLE notes (id int, body text)")
            cursor.execute("CREATE TABLE orders (id int, what text)")  # unsharded, of the same name as theirs
            cursor.execute("INSERT INTO users VALUES (1, 'u1'), (2, 'u2'), (3, 'u3'), (4, 'u4')")
            cursor.execute("INSERT INTO countries VALUES ('at'), ('de')")
            cursor.execute("INSERT INTO orders VALUES (0, 'public')")
            for number, name in enumerate(NAMES):
                cursor.execute(f"CREATE SCHEMA {quoted(name)}")
                cursor.execute(f"CREATE TABLE {quoted(name)}.orders (id int PRIMARY KEY, what text, code text REFERENCES countries)")
                cursor.execute(f"INSERT INTO {quoted(name)}.orders VALUES (1, %s, 'at'), (2, %s, 'de')", (name, name))
                cursor.execute(f"GRANT ALL ON SCHEMA {quoted(name)} TO PUBLIC")
                cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {quoted(name)} TO PUBLIC")
            cursor.execute("GRANT ALL ON users, countries, notes, orders TO PUBLIC")
        yield proxy
        for node in cluster.primaries:
            for name in [*NAMES, "customer_d"]:
                node.sql(f"DROP SCHEMA IF EXISTS {quoted(name)} CASCADE")
            node.sql("DROP TABLE IF EXISTS users, countries, notes, orders; ALTER ROLE defaulted RESET search_path")


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        yield connection


def run(connection, sql):
    connection.cursor().execute(sql)


def what(connection, table="orders"):
    return one(connection, f"SELECT what FROM {table} WHERE id < 2")


def has(cluster, sql):
    """Which shards the query finds something on."""
    return [shard for shard, node in enumerate(cluster.primaries) if node.sql(sql)]


def test_schemas_are_on_their_shards_alone(cluster, proxy):
    for name, shard in (("customer_a", 1), ("customer_b", 0), ('Odd "name"', 1)):
        assert has(cluster, f"SELECT 1 FROM pg_namespace WHERE nspname = '{name}'") == [shard]
        assert has(cluster, f"SELECT 1 FROM pg_tables WHERE schemaname = '{name}'") == [shard]


def test_qualified_names(app):
    for name in NAMES:
        assert what(app, quoted(name) + ".orders") == name
    assert "direct to shard s1 (" in explain(app, "SELECT * FROM customer_a.orders") and "schema customer_a" in explain(
        app, "SELECT * FROM customer_a.orders")
    assert fetch(app, "SELECT o.what FROM customer_a.orders o JOIN countries c USING (code) JOIN customer_c.orders x ON x.id = o.id "
                 "WHERE c.code = 'at'") == [("customer_a",)]
    run(app, "UPDATE customer_b.orders SET what = what || '!' WHERE id = 2")
    assert one(app, "SELECT what FROM customer_b.orders WHERE id = 2") == "customer_b!"
    run(app, "DELETE FROM customer_b.orders WHERE id = 2")
    run(app, "INSERT INTO customer_b.orders SELECT 2, 'customer_b', 'de'")
    assert one(app, "SELECT count(*) FROM customer_b.orders") == 2
    run(app, "MERGE INTO customer_a.orders o USING (VALUES (2)) v (id) ON v.id = o.id WHEN MATCHED THEN UPDATE SET what = what "
             "WHEN NOT MATCHED THEN INSERT VALUES (3)")


def test_search_path(app):
    assert what(app) == "public"
    for path, expected in (("customer_a", "customer_a"), ("customer_b, public", "customer_b"), ("public, customer_a", "public"),
                           ("nobody, customer_c, customer_a", "customer_c"), ('"Odd ""name""", public', 'Odd "name"'),
                           ("CUSTOMER_A", "customer_a"), ("DEFAULT", "public"), ("'customer_a', 'public'", "customer_a")):
        run(app, f"SET search_path TO {path}")
        assert what(app) == expected, path
    run(app, "SET search_path TO customer_a")
    assert fetch(app, "SELECT count(*) FROM public.users") == [(4,)]
    run(app, "SELECT set_config('search_path', 'customer_b, public', false)")
    assert what(app) == "customer_b" and one(app, "SELECT count(*) FROM users") == 4
    run(app, "RESET search_path")
    assert what(app) == "public"


def test_set_local_and_rollback(app):
    run(app, "SET search_path TO customer_a, public")
    run(app, "BEGIN; SET LOCAL search_path TO customer_c")
    assert what(app) == "customer_c"
    run(app, "COMMIT")
    assert what(app) == "customer_a"
    run(app, "BEGIN")
    run(app, "SET search_path TO customer_c")
    run(app, "SAVEPOINT a")
    run(app, "SET search_path TO public")
    assert what(app) == "public"
    run(app, "ROLLBACK TO a")
    assert what(app) == "customer_c"
    run(app, "ROLLBACK")
    assert what(app) == "customer_a"
    run(app, "BEGIN; SET search_path TO customer_b; COMMIT")
    assert what(app) == "customer_b"
    run(app, "DISCARD ALL")
    assert what(app) == "public"


def test_startup_role_default_and_user(proxy):
    with closing(proxy.connect(options="-c search_path=customer_a,public")) as connection:
        assert what(connection) == "customer_a"
        run(connection, "SET search_path TO public; RESET search_path")
        assert what(connection) == "customer_a"
    with closing(proxy.connect(user="cara")) as cara:  # "$user", public
        assert what(cara) == "cara"
    with closing(proxy.connect(user="defaulted")) as defaulted:
        assert what(defaulted) == "customer_c"
    with closing(proxy.connect()) as connection:
        run(connection, "SET ROLE cara")
        assert what(connection) == "cara"
        run(connection, "BEGIN; SET search_path TO customer_a; RESET ALL")
        assert what(connection) == "cara"
        run(connection, "ROLLBACK")


def test_extended_statements(proxy):
    with Raw(proxy) as raw:
        raw.ask(query("SET search_path TO customer_a"))
        raw.ask(parse("s", "SELECT what FROM orders WHERE id = $1"), SYNC)
        assert b"customer_a" in dict(raw.ask(bind("", "s", [b"1"]), execute(), SYNC))["D"]
        raw.ask(query("SET search_path TO customer_c, public"))
        raw.ask(parse("t", "SELECT what FROM orders WHERE id = $1"), SYNC)
        assert b"customer_c" in dict(raw.ask(bind("", "t", [b"1"]), execute(), SYNC))["D"]


def test_reads_over_several_schemas_are_gathered(app):
    run(app, "CREATE TABLE customer_b.bills (id int, paid bool)")
    run(app, "INSERT INTO customer_b.bills VALUES (1, true), (2, false)")
    sql = "SELECT o.what, b.paid FROM customer_a.orders o JOIN customer_b.bills b USING (id) ORDER BY o.id"
    assert "gather" in explain(app, sql)
    assert fetch(app, sql) == [("customer_a", True), ("customer_a", False)]
    assert fetch(app, "SELECT count(*) FROM customer_a.orders o JOIN users u ON u.id = o.id") == [(2,)]
    run(app, "SET search_path TO customer_a, public")
    assert fetch(app, "SELECT what, paid FROM orders NATURAL JOIN customer_b.bills ORDER BY id LIMIT 1") == [("customer_a", True)]
    both = fetch(app, "SELECT what FROM customer_a.orders UNION SELECT what FROM customer_b.orders ORDER BY 1")
    assert both == [("customer_a",), ("customer_b",)]
    assert fetch(app, "SELECT b.what FROM orders JOIN customer_b.orders b ON b.id = orders.id ORDER BY b.id LIMIT 1") == [("customer_b",)]


def test_writes_of_several_schemas(app):
    run(app, "BEGIN; UPDATE customer_a.orders SET what = 'x'; UPDATE customer_b.orders SET what = 'x'; ROLLBACK")
    assert what(app, "customer_a.orders") == "customer_a" and what(app, "customer_b.orders") == "customer_b"
    for sql in ("INSERT INTO customer_a.orders SELECT * FROM customer_b.orders",
                "UPDATE customer_a.orders o SET what = b.what FROM customer_b.orders b WHERE b.id = o.id",
                "DELETE FROM customer_a.orders USING users u WHERE u.id = orders.id",
                "WITH gone AS (DELETE FROM customer_a.orders) DELETE FROM customer_b.orders",
                "TRUNCATE customer_a.orders, customer_b.orders", "DROP TABLE customer_a.orders, users"):
        with refused("0A000"):
            run(app, sql)
    assert one(app, "SELECT count(*) FROM customer_a.orders") == 2


DDL = """CREATE SCHEMA customer_d
CREATE TABLE t (id serial PRIMARY KEY, v int)
ALTER TABLE t ADD w text
CREATE INDEX t_v ON t (v)
CREATE VIEW seen AS SELECT * FROM t
CREATE TYPE mood AS ENUM ('sad', 'ok')
ALTER TYPE customer_d.mood ADD VALUE 'happy'
CREATE FUNCTION two() RETURNS int LANGUAGE sql AS 'SELECT 2'
CREATE SEQUENCE s
COMMENT ON TABLE t IS 'hello'
CREATE TABLE copy AS SELECT * FROM t
TRUNCATE t
VACUUM t
ANALYZE customer_d.t
DROP INDEX customer_d.t_v
DROP VIEW seen
DROP FUNCTION customer_d.two()
DROP TABLE t, copy
DROP SCHEMA customer_d CASCADE"""


def test_schema_changes_go_to_the_schemas_shard(cluster, proxy):
    with Proxy(cluster, keyspaces=KEYSPACES, database={"schemas": [*SCHEMAS, {"name": "customer_d", "shard": "s1"}]}) as other:
        other.wait_nodes()
        with closing(other.connect()) as connection:
            run(connection, "SET search_path TO customer_d, public")
            for sql in DDL.splitlines():
                run(connection, sql)
                assert has(cluster, "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace AND nspname = 'public' "
                           "WHERE relname IN ('t', 'seen', 's', 'copy')") == [], sql
                assert has(cluster, "SELECT 1 FROM pg_type WHERE typname = 'mood' UNION SELECT 1 FROM pg_proc WHERE proname = 'two' "
                           "UNION SELECT 1 FROM pg_namespace WHERE nspname = 'customer_d'") in ([1], []), sql
            assert has(cluster, "SELECT 1 FROM pg_namespace WHERE nspname = 'customer_d'") == []


def test_what_could_be_elsewhere_is_refused(app):
    run(app, "SET search_path TO customer_a, public")
    for sql in ("DROP INDEX some_index", "DROP FUNCTION f()", "ALTER TABLE customer_a.orders SET SCHEMA public"):
        with refused("0A000"):
            run(app, sql)
    with refused("42P01", hint=False):
        run(app, "SELECT * FROM nowhere")


def test_views_functions_and_copy_in_a_schema(app):
    run(app, "CREATE VIEW customer_a.v AS SELECT what FROM customer_a.orders JOIN countries USING (code)")
    assert fetch(app, "SELECT * FROM customer_a.v") == [("customer_a",), ("customer_a",)]
    run(app, "CREATE FUNCTION customer_a.n() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM customer_a.orders'")
    run(app, "SET search_path TO customer_a")
    assert one(app, "SELECT n()") == 2
    run(app, "DO 'BEGIN PERFORM 1 FROM customer_a.orders; END'")
    with closing(app.cursor()) as cursor:
        import io
        cursor.copy_expert("COPY customer_a.orders FROM STDIN", io.StringIO("7\tcopied\tat\n"))
        out = io.StringIO()
        cursor.copy_expert("COPY orders TO STDOUT", out)
        assert "copied" in out.getvalue()
    run(app, "DELETE FROM orders WHERE id = 7")
    run(app, "DROP VIEW v")
