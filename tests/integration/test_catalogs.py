"""Catalog queries of a sharded database look as if it were one: psql's backslash commands, information_schema, ORMs and pg_dump."""
import re
from contextlib import closing

import psycopg2
import psycopg2.errors
import pytest

from harness import Cluster, Proxy
from harness.cluster import run_psql, run_tool
from support import fetch

pytestmark = pytest.mark.core

KEYSPACES = [{"name": "users", "type": "bigint",
              "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}]
SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL DEFAULT 'x');
CREATE TABLE users (id bigint PRIMARY KEY, name text, country text REFERENCES countries, mood mood, CHECK (id > 0));
CREATE TABLE orders (id bigint, user_id bigint REFERENCES users, amount numeric(10,2), PRIMARY KEY (user_id, id));
CREATE TABLE notes (id serial PRIMARY KEY, body text);
CREATE INDEX orders_amount ON orders (amount DESC);
CREATE VIEW spent AS SELECT user_id, sum(amount) AS total FROM orders GROUP BY user_id;
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
COMMENT ON TABLE users IS 'people'
"""

ASKED = {
    "information_schema.tables": "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
    "information_schema.columns": "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
                                  "WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
    "constraints": "SELECT tc.table_name, tc.constraint_type, kcu.column_name FROM information_schema.table_constraints tc "
                   "JOIN information_schema.key_column_usage kcu USING (constraint_schema, constraint_name) "
                   "WHERE tc.table_schema = 'public' ORDER BY 1, 2, 3",
    "Django": "SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END, "
              "obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
              "WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast') "
              "AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 1",
    "SQLAlchemy": "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_catalog.pg_attribute a "
                  "WHERE a.attrelid = 'users'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    "ActiveRecord": "SELECT a.attname, pg_get_expr(d.adbin, d.adrelid), c.collname FROM pg_attribute a "
                    "LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum "
                    "LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c ON a.attcollation = c.oid "
                    "WHERE a.attrelid = 'notes'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 2",
    "enums": "SELECT t.typname, e.enumlabel FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid ORDER BY 1, e.enumsortorder",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "names": "SELECT 'users'::regclass::text, to_regclass('orders')::text, to_regclass('nothing')",
}
COMMANDS = ["\\d", "\\d users", "\\d orders", "\\d spent", "\\dt", "\\di", "\\dv", "\\df", "\\dT", "\\ds", "\\d+ spent"]


@pytest.fixture(scope="module")
def sides():
    with Cluster(shards=3, replicas=0) as cluster:
        cluster.create_database("oracle")
        with Proxy(cluster, keyspaces=KEYSPACES, reference=["countries"]) as proxy:
            proxy.wait_nodes()
            node = cluster.shards[0].primary
            with closing(proxy.connect()) as app, closing(node.connect("oracle")) as one:
                one.autocommit = True
                for side in (app, one):
                    for statement in SCHEMA.split(";"):
                        side.cursor().execute(statement)
                app.cursor().execute("INSERT INTO countries VALUES ('at')")
                app.cursor().execute("INSERT INTO users SELECT i, 'u', 'at', 'ok' FROM generate_series(1, 300) AS i")
                app.cursor().execute("ANALYZE")
                yield proxy, node, app, one


@pytest.mark.parametrize("name", ASKED)
def test_introspection(sides, name):
    _, _, app, one = sides
    assert fetch(app, ASKED[name]) == fetch(one, ASKED[name])


def test_it_is_one_shard_always(sides):
    _, _, app, _ = sides
    assert len({tuple(fetch(app, "SELECT oid FROM pg_class WHERE relname = 'users'")) for _ in range(10)}) == 1
    for sql in ("SELECT id FROM users WHERE id = 1", "SELECT id FROM users WHERE id = 2", "SELECT id FROM users WHERE id = 3"):
        cursor = app.cursor()
        cursor.execute("BEGIN")
        cursor.execute(sql)
        assert fetch(app, "SELECT count(*) FROM pg_class WHERE relname = 'users'") == [(1,)]
        cursor.execute("ROLLBACK")


@pytest.mark.parametrize("command", COMMANDS)
def test_psql(sides, command):
    proxy, node, _, _ = sides
    found = run_psql(proxy.dsn("app"), "-c", command).stdout
    assert found and found == run_psql(node.dsn("oracle"), "-c", command).stdout


def test_pg_dump_of_the_schema(sides):
    proxy, node, _, _ = sides

    def dump(dsn):
        text = run_tool("pg_dump", "--schema-only", "--schema=public", "-d", dsn)
        return re.sub(r"(?m)^(--|\\(un)?restrict).*$", "", text)

    assert "CREATE TABLE public.orders" in dump(proxy.dsn("app"))
    assert dump(proxy.dsn("app")) == dump(node.dsn("oracle"))


def test_pg_dump_has_all_rows(sides):
    proxy, _, app, _ = sides
    text = run_tool("pg_dump", "--data-only", "--schema=public", "-d", proxy.dsn("app"))
    copied = re.search(r"COPY public.users [^\n]*\n(.*?)\n\\\.", text, re.S)[1].split("\n")
    assert sorted(int(line.split("\t")[0]) for line in copied) == list(range(1, 301))
    assert len(re.search(r"COPY public.countries [^\n]*\n(.*?)\n\\\.", text, re.S)[1].split("\n")) == 1


def test_sizes_and_row_counts_are_of_one_shard(sides):
    """As documented: what all shards have has to be added up."""
    _, _, app, _ = sides
    rows = [fetch(app, f"SELECT reltuples::int, pg_relation_size('users') > 0 FROM pg_class WHERE oid = 'users'::regclass "
                       f"/* pgshunt: shard=s{i} */")[0] for i in range(3)]
    assert sum(count for count, _ in rows) == 300 and all(some for _, some in rows)
    assert fetch(app, "SELECT reltuples::int FROM pg_class WHERE oid = 'users'::regclass")[0][0] == rows[0][0]


def test_lock_table(sides):
    """On every shard, until the transaction ends."""
    proxy, _, app, _ = sides
    held = "SELECT count(*) FROM pg_locks WHERE relation = 'users'::regclass AND mode = 'ShareLock' /* pgshunt: shard=s%d */"
    with closing(proxy.connect(autocommit=False)) as client:
        client.cursor().execute("LOCK TABLE users, notes IN SHARE MODE")
        assert [fetch(app, held % i) for i in range(3)] == [[(1,)]] * 3
        client.rollback()
        assert [fetch(app, held % i) for i in range(3)] == [[(0,)]] * 3
    with pytest.raises(psycopg2.errors.NoActiveSqlTransaction):
        app.cursor().execute("LOCK TABLE users")
