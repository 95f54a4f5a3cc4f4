"""Keys of several columns, (tenant, user): rows are where Postgres' own hash partitioning has them, and are found there."""
import io
import struct
import uuid
from contextlib import closing

import pytest

from harness import Proxy
from support import SYNC, Raw, bind, execute, explain, fetch, one, parse, refused, values

pytestmark = pytest.mark.core

ID = ["00000000-0000-4000-8000-%012x" % (n * 77777) for n in range(40)]
KEYSPACES = [
    {"name": "people", "type": "bigint", "types": ["bigint", "bigint"],
     "tables": [{"name": "people", "key": ["tenant", "id"]}, {"name": "visits", "key": ["tenant", "person"]}]},
    {"name": "parted", "type": "bigint", "types": ["bigint", "text"], "hash": "postgres",
     "tables": [{"name": "parted", "key": ["a", "b"]}]},
    {"name": "three", "type": "uuid", "types": ["uuid", "bigint", "text"], "hash": "postgres",
     "tables": [{"name": "three", "key": ["u", "n", "t"]}]},
]
TABLES = {"people": "tenant int, id bigint, name text, PRIMARY KEY (tenant, id)",
          "visits": "person bigint NOT NULL, tenant int NOT NULL, at int", "parted": "a int, b varchar(20), v int",
          "three": "u uuid, n bigint, t text"}


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            for name, columns in TABLES.items():
                cursor.execute(f"CREATE TABLE {name} ({columns})")
            cursor.execute("INSERT INTO people VALUES " + ", ".join(f"({n % 3}, {n}, 'p{n}')" for n in range(30)))
            cursor.execute("INSERT INTO visits (at, person, tenant) VALUES " + ", ".join(f"({n}, {n % 30}, {n % 3})" for n in range(60)))
        yield proxy
        for node in cluster.primaries:
            node.sql("; ".join(f"DROP TABLE IF EXISTS {name}" for name in TABLES))


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        yield connection


def run(connection, sql, params=None):
    connection.cursor().execute(sql, params)


@pytest.mark.parametrize("table, columns, rows", [
    ("parted", "a int, b varchar(20), v int", [(n * 7919 % 1000 - 300, f"t{n}" * (n % 4), n) for n in range(60)]),
    ("three", "u uuid, n bigint, t text", [(ID[n], n * 123456789123, "äö" * n) for n in range(40)]),
])
def test_rows_are_where_hash_partitions_have_them(cluster, app, table, columns, rows):
    key = "a, b" if table == "parted" else "u, n, t"
    first = cluster.primaries[0]
    first.sql(f"CREATE TABLE parts ({columns}) PARTITION BY HASH ({key}); "
              "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
              "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    try:
        for row in rows:
            run(app, f"INSERT INTO {table} VALUES (%s, %s, %s)", row)
        literal = ", ".join("(" + ", ".join(f"'{value}'" for value in row) + ")" for row in rows)
        first.sql(f"INSERT INTO parts VALUES {literal}")
        for shard, node in enumerate(cluster.primaries):
            assert sorted(node.sql(f"SELECT * FROM {table}")) == sorted(first.sql(f"SELECT * FROM parts_{shard}")), shard
    finally:
        first.sql("DROP TABLE parts")


@pytest.mark.parametrize("where, count", [
    ("tenant = 1 AND id = 4", 1), ("4 = id AND tenant = 1::int", 1), ("(tenant, id) = (1, 4)", 1), ("(id, tenant) = (4, 1)", 1),
    ("id = '4' AND name = 'p4' AND tenant = 0 + 1", 1), ("tenant = 1 AND id = 5", 0), ("(tenant = 1 AND id = 4) AND name IS NOT NULL", 1),
    ("(tenant, id) IN ((1, 4))", 1), ("tenant = 1 AND id IN (4)", 1), ("(tenant = 1 AND id = 4) OR (id = 4 AND tenant = 1)", 1),
    ("people.tenant = 1 AND people.id = 4", 1), ("(id, name, tenant) = (4, 'p4', 1)", 1),
    ("tenant = 1 AND id = ANY ('{4}')", 1), ("tenant = ANY (ARRAY[1]) AND id = 4", 1), ("id = ANY ('{}') AND tenant = 1", 0),
    ("id = ANY (ARRAY[4, NULL]::bigint[]) AND tenant = ANY ('{1,1}'::int[])", 1),
])
def test_all_columns_lead_to_one_shard(app, where, count):
    sql = f"SELECT count(*) FROM people WHERE {where}"
    assert "pgshunt: direct to shard" in explain(app, sql)
    assert one(app, sql) == count


@pytest.mark.parametrize("where, count", [
    ("tenant = 1", 10), ("id = 4", 1), ("tenant = 1 OR id = 4", 10), ("tenant = 1 AND id > 4", 8), ("(tenant, id) > (1, 4)", 18),
    ("(tenant, id) IN ((1, 4), (2, 5), (0, 0), (0, 1))", 3), ("tenant = 1 AND id IN (1, 4, 7, 10)", 4), ("NOT (tenant = 1 AND id = 4)", 29),
    ("tenant IN (0, 1, 2) AND id IN (1, 2, 3)", 3), ("(tenant = 1 AND id = 4) OR (tenant = 2 AND id = 5)", 2), ("(tenant, id) NOT IN ((1, 4))", 29),
    ("tenant = id", 3), ("(tenant = 1 AND id = 4) OR name = 'p5'", 2), ("tenant = 1 AND id = ANY ('{1,4}')", 2),
])
def test_other_conditions_find_all_rows(app, where, count):
    assert one(app, f"SELECT count(*) FROM people WHERE {where}") == count


def test_lists_are_split(app, proxy):
    """Each shard is asked for its own rows only, and a shard that has none is not asked."""
    plan = explain(app, "SELECT name FROM people WHERE (tenant, id) IN ((1, 4), (2, 5), (0, 6), (1, 7), (2, 8), (0, 9), (1, 10))")
    texts = [line for line in plan.splitlines() if "in (" in line.lower()]
    assert len(texts) == 2, plan
    for row in ("(1, 4)", "(2, 5)", "(0, 6)", "(1, 7)", "(2, 8)", "(0, 9)", "(1, 10)"):
        assert sum(row in text for text in texts) == 1, plan
    rows = fetch(app, "SELECT id FROM people WHERE (id, tenant) IN ((4, 1), (5, 2), (6, 0), (7, 1), (7, 2), (NULL, 1)) AND name <> 'p6' ORDER BY id")
    assert rows == [(4,), (5,), (7,)]
    with Raw(proxy) as raw:
        raw.ask(parse("s", "SELECT id FROM people WHERE tenant = $1 AND id = ANY ($2) ORDER BY id"), SYNC)
        array = struct.pack("!iiiii", 1, 0, 20, 3, 1) + b"".join(struct.pack("!iq", 8, n) for n in (4, 7, 5))
        for bound, formats in (([b"1", b"{4,7,5,NULL}"], []), ([struct.pack("!i", 1), array], [1])):
            answer = raw.ask(bind("", "s", bound, formats), execute(), SYNC)
            assert [values(body) for kind, body in answer if kind == "D"] == [[b"4"], [b"7"]]


def test_parameters_in_text_and_binary(proxy):
    with Raw(proxy) as raw:
        raw.ask(parse("s", "SELECT name FROM people WHERE id = $1 AND tenant = $2"), SYNC)
        for bound, formats in (([b"4", b"1"], []), ([struct.pack("!q", 4), struct.pack("!i", 1)], [1])):
            answer = raw.ask(bind("", "s", bound, formats), execute(), SYNC)
            assert [values(body) for kind, body in answer if kind == "D"] == [[b"p4"]]
        answer = raw.ask(bind("", "s", [b"4", None]), execute(), SYNC)
        assert "D" not in dict(answer) and "E" not in dict(answer)


def test_joins_on_all_columns_are_merged_and_others_gathered(proxy, app):
    both = "SELECT count(*) FROM people p JOIN visits v ON {} WHERE v.at < 40"
    assert "scatter-merge" in explain(app, both.format("p.tenant = v.tenant AND v.person = p.id"))
    assert "scatter-merge" in explain(app, both.format("(v.tenant, v.person) = (p.tenant, p.id)"))
    assert "gather" in explain(app, both.format("p.id = v.person"))
    for on in ("p.tenant = v.tenant AND v.person = p.id", "(v.tenant, v.person) = (p.tenant, p.id)", "p.id = v.person"):
        assert one(app, both.format(on)) == 40
    assert one(app, both.format("p.id = v.person AND p.tenant = v.at")) == sum(n % 3 == n for n in range(40))
    pinned = "SELECT count(*) FROM people p, visits v WHERE p.tenant = v.tenant AND v.person = p.id AND p.id = 4 AND p.tenant = 1"
    assert "direct" in explain(app, pinned) and one(app, pinned) == 2
    tenant = "SELECT count(*) FROM people p JOIN visits v ON v.person = p.id AND p.tenant = 1 AND v.tenant = {}"
    assert "scatter-merge" in explain(app, tenant.format(1)) and one(app, tenant.format("'1'")) == 20
    assert "gather" in explain(app, tenant.format(2)) and one(app, tenant.format(2)) == 0
    with closing(proxy.connect()) as other:
        other.cursor().execute("PREPARE p AS SELECT count(*) FROM people p, visits v WHERE p.tenant = $1 AND v.tenant = $1 AND v.person = p.id")
        assert one(other, "EXECUTE p(1)") == 20 and one(other, "EXECUTE p(5)") == 0
    outer = "SELECT count(*), count(v.at) FROM people p LEFT JOIN visits v ON p.tenant = v.tenant AND v.person = p.id AND v.at < 5"
    assert fetch(app, outer) == [(30, 5)]
    assert one(app, "SELECT count(*) FROM people a NATURAL JOIN people b") == 30
    assert one(app, "SELECT count(*) FROM people a JOIN people b USING (tenant)") == 300
    assert one(app, "SELECT count(*) FROM (SELECT * FROM people) p WHERE tenant = 1 AND id = 4") == 1


def test_groups(app):
    assert sorted(fetch(app, "SELECT tenant, count(*) FROM people GROUP BY tenant")) == [(0, 10), (1, 10), (2, 10)]
    both = "SELECT tenant, id, string_agg(name, ',') FROM people GROUP BY tenant, id"
    assert "groups by shard key" in explain(app, both) and len(fetch(app, both)) == 30


def test_changes(app):
    run(app, "UPDATE people SET name = 'x' WHERE tenant = 1 AND id = 4")
    assert fetch(app, "SELECT name FROM people WHERE id = 4") == [("x",)]
    run(app, "UPDATE people SET tenant = tenant, name = 'p4' WHERE (id, tenant) = (4, 1)")
    run(app, "INSERT INTO people (id, name, tenant) VALUES (100, 'a', 1), (101, 'b', 2), (102, 'c', 0), (4, 'no', 1) ON CONFLICT DO NOTHING")
    assert one(app, "SELECT count(*) FROM people WHERE id >= 100") == 3
    run(app, "DELETE FROM people WHERE tenant IN (0, 1, 2) AND id IN (100, 101, 102)")
    assert one(app, "SELECT count(*) FROM people") == 30
    run(app, "DELETE FROM visits v USING people p WHERE p.tenant = v.tenant AND p.id = v.person AND p.id > 1000")


@pytest.mark.parametrize("sql, state, words", [
    ("INSERT INTO people (tenant, name) VALUES (1, 'x')", "23502", "tenant, id"),
    ("INSERT INTO people VALUES (NULL, 7, 'x')", "23502", "null value in"),
    ("INSERT INTO people VALUES (DEFAULT, 7, 'x')", "23502", "gives no value"),
    ("INSERT INTO people VALUES (1, random() * 100, 'x')", "0A000", "of a type whose shard is not known"),
    ("EXPLAIN ANALYZE INSERT INTO people VALUES (1, (random() * 100)::int, 'x')", "0A000", "cannot be known"),
    ("UPDATE people SET tenant = DEFAULT WHERE tenant = 1 AND id = 4", "0A000", "a column of the shard key"),
    ("INSERT INTO people VALUES (1, 4, 'x') ON CONFLICT (tenant, id) DO UPDATE SET id = 8", "0A000", "a column of the shard key"),
])
def test_what_is_refused(app, sql, state, words):
    with refused(state, words):
        run(app, sql)


def test_copy_out(app):
    with closing(app.cursor()) as cursor:
        out = io.StringIO()
        cursor.copy_expert("COPY people TO STDOUT", out)
        assert len(out.getvalue().splitlines()) == 30


def test_said_keys(app):
    assert one(app, "/* pgshunt: key='1,4' */ SELECT count(*) FROM people WHERE id = 4") == 1
    with refused("22P02"):
        run(app, "/* pgshunt: key=4 */ SELECT count(*) FROM people")


def test_views(app):
    """One that shows all columns of the key is like its table; rows are where they belong when they come through it."""
    run(app, "CREATE VIEW persons AS SELECT tenant AS t, id, name FROM people")
    try:
        assert fetch(app, "SELECT t, id FROM persons ORDER BY id") == fetch(app, "SELECT tenant, id FROM people ORDER BY id")
        assert fetch(app, "SELECT name FROM persons WHERE t = 1 AND id = 4") == [("p4",)]
        for n in range(20):
            run(app, "INSERT INTO persons VALUES (%s, %s, 'x')", (n % 3, 900 + n))
            assert fetch(app, f"SELECT name FROM people WHERE tenant = {n % 3} AND id = {900 + n}") == [("x",)]
        run(app, "UPDATE persons SET name = 'y' WHERE id >= 900")
        assert one(app, "SELECT count(*) FROM people WHERE name = 'y'") == 20
        with refused("0A000", "a column of the shard key of table \"persons\""):
            run(app, "UPDATE persons SET t = t + 1 WHERE id = 900")
        run(app, "DELETE FROM persons WHERE name = 'y'")
        assert one(app, "SELECT count(*) FROM people WHERE id >= 900") == 0
    finally:
        run(app, "DROP VIEW persons")
