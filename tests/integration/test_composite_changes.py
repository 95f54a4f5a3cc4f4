"""Keys of several columns: rows that move when a part of their key changes, and rows that queries insert."""
import struct
from contextlib import closing

import pytest

from harness import Proxy
from support import SYNC, Raw, bind, execute, explain, fetch, one, parse, refused

pytestmark = pytest.mark.core

KEYSPACES = [
    {"name": "people", "type": "bigint", "types": ["bigint", "bigint"],
     "tables": [{"name": "people", "key": ["tenant", "id"]}, {"name": "visits", "key": ["tenant", "person"]},
                {"name": "parted", "key": ["tenant", "id"]}]},
    {"name": "pages", "type": "text", "types": ["text", "uuid"], "hash": "postgres", "tables": [{"name": "pages", "key": ["site", "u"]}]},
    {"name": "codes", "type": "text", "types": ["text", "text"], "tables": [{"name": "codes", "key": ["a", "b"]}]},
    {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]},
]
SCHEMA = """
CREATE TABLE people (name text DEFAULT 'none', id bigint, twice bigint GENERATED ALWAYS AS (id * 2) STORED, tenant int, n int, PRIMARY KEY (tenant, id))
CREATE TABLE visits (person bigint NOT NULL, tenant int NOT NULL, at int)
CREATE TABLE parted (tenant int, id int, k int, PRIMARY KEY (tenant, id, k)) PARTITION BY RANGE (k)
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10)
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (100)
CREATE TABLE pages (u uuid, body text, site varchar(20))
CREATE TABLE codes (a char(6), b text, v int)
CREATE TABLE users (id bigint PRIMARY KEY, tenant int)
CREATE TABLE plain (id bigint, tenant int, body text)
""".strip().splitlines()
TABLES = ["people", "visits", "parted", "pages", "codes", "users", "plain"]
U = "00000000-0000-4000-8000-%012x"


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        for sql in SCHEMA:
            proxy.sql(sql)
        yield proxy
        for node in cluster.primaries:
            node.sql("; ".join(f"DROP TABLE IF EXISTS {name}" for name in TABLES))


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("INSERT INTO people (id, tenant, name, n) VALUES " + ", ".join(f"({n}, {n % 3}, 'p{n}', {n})" for n in range(30)))
        cursor.execute("INSERT INTO visits (at, person, tenant) VALUES " + ", ".join(f"({n}, {n % 30}, {n % 3})" for n in range(60)))
        yield connection


def run(connection, sql, parameters=None):
    cursor = connection.cursor()
    cursor.execute(sql, parameters)
    return cursor.statusmessage


def everywhere(cluster, sql):
    return sorted(row for node in cluster.primaries for row in node.sql(sql))


def in_place(app, table, columns, keys):
    """Each row is found where its key leads, and nowhere else."""
    where = " AND ".join(f"{column} = %s" for column in columns)
    for key in keys:
        assert fetch(app, f"SELECT count(*) FROM {table} WHERE {where}", key) == [(1,)], key


# ---- UPDATE of parts ----

@pytest.mark.parametrize("update, tenant, id", [
    ("SET tenant = tenant + 10", lambda t, i: t + 10, lambda t, i: i),
    ("SET id = id + 100", lambda t, i: t, lambda t, i: i + 100),
    ("SET id = tenant, tenant = id", lambda t, i: i, lambda t, i: t),
    ("SET (tenant, id) = (5, n + 1)", lambda t, i: 5, lambda t, i: i + 1),
    ("SET n = n, tenant = 7", lambda t, i: 7, lambda t, i: i),
])
def test_rows_move_with_any_part(cluster, app, update, tenant, id):
    del app.notices[:]
    assert run(app, f"UPDATE people {update}") == "UPDATE 30"
    assert "of table \"people\" moved to the shard of their new key" in app.notices[-1]
    wanted = sorted((tenant(n % 3, n), id(n % 3, n), f"p{n}", n, 2 * id(n % 3, n)) for n in range(30))
    assert everywhere(cluster, "SELECT tenant, id, name, n, twice FROM people") == wanted
    in_place(app, "people", ("tenant", "id"), [row[:2] for row in wanted])


def test_one_row_and_what_it_gives_back(app):
    assert "rows of people get other keys" in explain(app, "UPDATE people SET tenant = tenant + 1 WHERE tenant = 1 AND id = 4")
    for tenant in range(3, 12):
        cursor = app.cursor()
        cursor.execute("UPDATE people p SET tenant = %s, name = DEFAULT, n = n + 1 WHERE (id, tenant) = (4, %s) RETURNING tenant, id, name, n, twice",
                       (tenant, tenant - 1 if tenant > 3 else 1))
        assert cursor.statusmessage == "UPDATE 1" and cursor.fetchall() == [(tenant, 4, "none", tenant + 2, 8)]
        in_place(app, "people", ("tenant", "id"), [(tenant, 4)])
    assert run(app, "UPDATE people SET tenant = 1 WHERE tenant = 77 AND id = 4") == "UPDATE 0"


def test_a_part_that_gets_the_value_it_has_stays(app):
    """ORMs write all columns: that is a plain UPDATE on one shard."""
    for sql in ("UPDATE people SET tenant = 1, n = 5 WHERE tenant = 1 AND id = 4", "UPDATE people SET id = 4, tenant = 1 WHERE (tenant, id) = (1, 4)",
                "UPDATE people p SET tenant = p.tenant WHERE p.tenant = 1 AND p.id = 4"):
        assert "pgshunt: direct to shard" in explain(app, sql)
        assert run(app, sql) == "UPDATE 1"
    away = next(t for t in range(2, 60) if "get other keys" in explain(app, f"UPDATE people SET tenant = {t} WHERE tenant = 1 AND id = 4"))
    assert run(app, f"UPDATE people SET tenant = {away} WHERE tenant = 1 AND id = 4") == "UPDATE 1"
    in_place(app, "people", ("tenant", "id"), [(away, 4)])


def test_parameters(proxy, app):
    with Raw(proxy) as raw:
        raw.ask(parse("s", "UPDATE people SET tenant = $1 WHERE tenant = $2 AND id = $3"), SYNC)
        for values, formats in (([b"8", b"1", b"4"], []), ([struct.pack("!i", 9), struct.pack("!i", 8), struct.pack("!q", 4)], [1])):
            answer = raw.ask(bind("", "s", values, formats), execute(), SYNC)
            assert [body for kind, body in answer if kind == "C"] == [b"UPDATE 1\0"]
    run(app, "SET pgshunt.route = 'primary'")  # it is another client's change: a replica may not have it yet
    in_place(app, "people", ("tenant", "id"), [(9, 4)])


def test_atomic_in_transactions(cluster, app):
    cursor = app.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE people SET tenant = tenant + 50")
    assert fetch(app, "SELECT count(*) FROM people WHERE tenant >= 50") == [(30,)]
    cursor.execute("SAVEPOINT s")
    cursor.execute("UPDATE people SET id = id + 500")
    cursor.execute("ROLLBACK TO s")
    in_place(app, "people", ("tenant", "id"), [(51, 4), (52, 5)])
    cursor.execute("ROLLBACK")
    assert everywhere(cluster, "SELECT min(tenant), max(tenant) FROM people")[-1][1] == 2
    with refused("23505", None, hint=False):
        run(app, "UPDATE people SET tenant = 1, id = 1")
    assert everywhere(cluster, "SELECT count(DISTINCT (tenant, id)) FROM people") and one(app, "SELECT count(*) FROM people") == 30
    assert all(node.value("SELECT count(*) FROM pg_prepared_xacts") == 0 for node in cluster.primaries)


def test_from_other_tables_of_the_keyspace(app):
    assert run(app, "UPDATE visits v SET tenant = v.tenant + 20 FROM people p WHERE p.tenant = v.tenant AND p.id = v.person AND p.n < 10") == "UPDATE 20"
    assert fetch(app, "SELECT count(*), min(person), max(person) FROM visits WHERE tenant >= 20") == [(20, 0, 9)]
    assert fetch(app, "SELECT count(*) FROM visits WHERE tenant = 21 AND person = 4") == [(2,)]


def test_partitioned_and_other_types(app):
    run(app, "INSERT INTO parted VALUES " + ", ".join(f"({n % 4}, {n}, {n})" for n in range(40)))
    assert run(app, "UPDATE parted SET tenant = tenant + 4, k = 99 - k") == "UPDATE 40"
    in_place(app, "parted", ("tenant", "id", "k"), [(n % 4 + 4, n, 99 - n) for n in range(40)])
    run(app, "INSERT INTO pages VALUES " + ", ".join(f"('{U % n}', 'b{n}', 's{n % 3}')" for n in range(20)))
    assert run(app, "UPDATE pages SET site = site || 'é'") == "UPDATE 20"
    in_place(app, "pages", ("site", "u"), [(f"s{n % 3}é", U % n) for n in range(20)])
    run(app, "INSERT INTO codes VALUES " + ", ".join(f"('a{n % 3} ', 'b{n}', {n})" for n in range(20)))
    in_place(app, "codes", ("a", "b"), [(f"a{n % 3}", f"b{n}") for n in range(20)])
    assert run(app, "UPDATE codes SET a = 'c' || v || '  '") == "UPDATE 20"
    in_place(app, "codes", ("a", "b"), [(f"c{n}   ", f"b{n}") for n in range(20)])


@pytest.mark.parametrize("sql, state, words", [
    ("UPDATE people SET tenant = NULL WHERE tenant = 1 AND id = 4", "23502", None),
    ("UPDATE people SET tenant = DEFAULT", "0A000", "a column of the shard key"),
    ("UPDATE people SET id = (random() * 1000)::int", "0A000", "a column of the shard key"),
    ("UPDATE people SET tenant = (SELECT max(at) FROM visits)", "0A000", "a column of the shard key"),
    ("INSERT INTO people (tenant, id) VALUES (1, 4), (2, 5) ON CONFLICT (tenant, id) DO UPDATE SET id = 8", "0A000", "a column of the shard key"),
    ("WITH x AS (UPDATE people SET tenant = 5 RETURNING id) SELECT count(*) FROM x", "0A000", None),
])
def test_what_is_refused(app, sql, state, words):
    with refused(state, words, hint=state == "0A000"):
        run(app, sql)
    assert fetch(app, "SELECT count(*), sum(tenant), sum(id) FROM people") == [(30, 30, 435)]


# ---- INSERT ... SELECT ----

@pytest.mark.parametrize("source, rows", [
    ("SELECT id + 1000, tenant + 1 FROM people", [(n + 1000, n % 3 + 1) for n in range(30)]),
    ("SELECT person, at + 100 FROM visits WHERE at < 20", [(n % 30, n + 100) for n in range(20)]),
    ("SELECT g + 500, g % 7 FROM generate_series(1, 1200) g", [(g + 500, g % 7) for g in range(1, 1201)]),
    ("SELECT id, 9 FROM people ORDER BY id LIMIT 10", [(n, 9) for n in range(10)]),
    ("SELECT count(*) + 700, tenant FROM people GROUP BY tenant", [(710, 0), (710, 1), (710, 2)]),
    ("SELECT id, tenant FROM plain", [(n, n + 5) for n in range(15)]),
    ("VALUES (800, (SELECT 3)), (801, 1 + 2)", [(800, 3), (801, 3)]),
    ("SELECT p.id + 2000, v.tenant FROM people p JOIN visits v ON p.id = v.person AND v.at < 10", [(n + 2000, n % 3) for n in range(10)]),
    ("SELECT 300, 4", [(300, 4)]),
])
def test_rows_of_a_query(cluster, app, source, rows):
    run(app, "INSERT INTO plain (id, tenant) VALUES " + ", ".join(f"({n}, {n + 5})" for n in range(15)))
    assert run(app, f"INSERT INTO people (id, tenant) {source}") == f"INSERT 0 {len(rows)}"
    new = [row for row in everywhere(cluster, "SELECT id, tenant, name FROM people") if row[2] == "none"]
    assert new == sorted((*row, "none") for row in rows)
    in_place(app, "people", ("id", "tenant"), rows[:40])


def test_rows_that_keep_their_key_stay_on_their_shard(app):
    same = "INSERT INTO visits (at, tenant, person) SELECT n + 1000, tenant, id FROM people"
    assert "keep their shard key" in explain(app, same) and run(app, same) == "INSERT 0 30"
    assert fetch(app, "SELECT count(*) FROM visits WHERE tenant = 1 AND person = 4") == [(3,)]
    other = "INSERT INTO visits (at, person, tenant) SELECT n + 1000, tenant, id FROM people"
    assert "rows of a query" in explain(app, other) and run(app, other) == "INSERT 0 30"
    assert fetch(app, "SELECT count(*) FROM visits WHERE tenant = 4 AND person = 1") == [(1,)]
    pinned = "INSERT INTO visits (at, tenant, person) SELECT n, tenant, id FROM people WHERE tenant = 1 AND id = 4"
    assert "pgshunt: direct" in explain(app, pinned) and run(app, pinned) == "INSERT 0 1"


def test_conflicts_and_returning(app):
    again = "INSERT INTO people (id, tenant, name) SELECT id, tenant + 0, 'again' FROM people WHERE id < 10"
    assert run(app, again + " ON CONFLICT DO NOTHING") == "INSERT 0 0"
    assert run(app, again + " ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name || people.n") == "INSERT 0 10"
    cursor = app.cursor()
    cursor.execute("INSERT INTO people (id, tenant, n) SELECT id + 50, tenant + 1, n FROM people WHERE id < 5 RETURNING tenant, id, twice")
    assert sorted(cursor.fetchall()) == sorted((n % 3 + 1, n + 50, 2 * n + 100) for n in range(5))
    assert sorted(row[0] for row in fetch(app, "SELECT name FROM people WHERE id < 10")) == sorted(f"again{n}" for n in range(10))
    with refused("23505", None, hint=False):
        run(app, "INSERT INTO people (id, tenant) SELECT id, tenant + 0 FROM people")


@pytest.mark.parametrize("sql, state, words", [
    ("INSERT INTO people (id, tenant) SELECT id, NULL::int FROM people", "23502", "tenant, id"),
    ("INSERT INTO people (id, tenant) SELECT person, nullif(at, 5) FROM visits", "23502", "tenant, id"),
    ("INSERT INTO people (id, name) SELECT at, 'x' FROM visits", "23502", "tenant, id"),
    ("INSERT INTO people (id, tenant) SELECT at + 0.5, 1 FROM visits", "0A000", "of a type whose shard is not known"),
])
def test_queries_that_give_no_key(app, sql, state, words):
    with refused(state, words):
        run(app, sql)
    assert one(app, "SELECT count(*) FROM people") == 30


# ---- what is asked for by subqueries ----

def test_rows_in_a_subquery_of_the_same_key(app):
    sql = "SELECT count(*) FROM people WHERE (tenant, id) IN (SELECT tenant, person FROM visits WHERE at < 45)"
    assert "scatter-merge" in explain(app, sql) and one(app, sql) == 30
    assert one(app, sql.replace("at < 45", "at < 5")) == 5
    turned = "SELECT count(*) FROM people WHERE (id, tenant) IN (SELECT tenant, person FROM visits)"
    assert "gather" in explain(app, turned)
    assert one(app, turned) == len({n for n in range(30) if (n, n % 3) in {(v % 3, v % 30) for v in range(60)}})
    assert one(app, "SELECT count(*) FROM people WHERE (tenant, id) NOT IN (SELECT tenant, person FROM visits WHERE at < 5)") == 25
