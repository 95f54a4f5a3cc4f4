"""Keyspaces by list, by range and by Postgres' own hash: each row is where the map says, and found there."""
import io
import uuid
from contextlib import closing

import pytest

from harness import Proxy
from support import explain, fetch, one, refused

pytestmark = pytest.mark.core

KEYSPACES = [
    {"name": "regions", "type": "text", "map": "list",
     "lists": [{"shard": "s0", "values": ["de", "at"]}, {"shard": "s1", "values": ["us"]}],
     "tables": [{"name": "towns", "key": "region"}]},
    {"name": "tiers", "type": "bigint", "map": "list", "default": "s1",
     "lists": [{"shard": "s0", "values": ["1", "2"]}],
     "tables": [{"name": "plans", "key": "tier"}]},
    {"name": "times", "type": "bigint", "map": "range",
     "ranges": [{"from": "200", "shard": "s0"}, {"to": "100", "shard": "s0"},
                {"from": "100", "to": "200", "shard": "s1"}],
     "tables": [{"name": "samples", "key": "at"}]},
    {"name": "pgint", "type": "bigint", "hash": "postgres", "tables": [{"name": "hashed_ints", "key": "k"}]},
    {"name": "pguuid", "type": "uuid", "hash": "postgres", "tables": [{"name": "hashed_uuids", "key": "k"}]},
    {"name": "pgtext", "type": "text", "hash": "postgres", "tables": [{"name": "hashed_texts", "key": "k"}]},
]
TABLES = {
    "towns": "region text, name text", "plans": "tier smallint, name text", "samples": "at bigint, value int",
    "hashed_ints": "k int, n int", "hashed_uuids": "k uuid, n int", "hashed_texts": "k varchar(100), n int",
}


@pytest.fixture(scope="module")
def app(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            for name, columns in TABLES.items():
                cursor.execute(f"CREATE TABLE {name} ({columns})")
            cursor.execute("INSERT INTO towns VALUES ('de', 'Ulm'), ('us', 'Reno'), ('at', 'Linz'), ('us', 'Waco')")
            cursor.execute("INSERT INTO plans SELECT 1, 'a'")
            cursor.execute("INSERT INTO plans VALUES (2, 'b'), (3, 'c'), (-7, 'd')")
            for at in range(0, 300, 10):
                cursor.execute("INSERT INTO samples VALUES (%s, %s)", (at, at // 10))
            yield connection
            for name in TABLES:
                cursor.execute(f"DROP TABLE IF EXISTS {name}")


def on_shards(cluster, sql):
    return [sorted(row[0] for row in node.sql(sql)) for node in cluster.primaries]


def test_rows_are_where_the_lists_say(cluster, app):
    assert on_shards(cluster, "SELECT name FROM towns") == [["Linz", "Ulm"], ["Reno", "Waco"]]
    assert on_shards(cluster, "SELECT tier FROM plans") == [[1, 2], [-7, 3]]


def test_rows_are_where_the_ranges_say(cluster, app):
    assert on_shards(cluster, "SELECT at FROM samples") == [
        [*range(0, 100, 10), *range(200, 300, 10)], [*range(100, 200, 10)]]


def test_a_value_of_no_list_is_refused_on_insert_and_found_nowhere(app):
    with refused("23514", "in no list of keyspace \"regions\""):
        app.cursor().execute("INSERT INTO towns VALUES ('fr', 'Lyon')")
    with refused("23514"):
        app.cursor().execute("INSERT INTO towns VALUES ('de', 'Bonn'), ('fr', 'Lyon')")
    assert fetch(app, "SELECT * FROM towns WHERE region = 'fr'") == []
    assert one(app, "SELECT count(*) FROM towns") == 4


def test_null_keys_are_refused(app):
    for table in ("towns", "plans", "samples", "hashed_ints"):
        with refused("23502", "null value in"):
            app.cursor().execute(f"INSERT INTO {table} VALUES (NULL, NULL)")


@pytest.mark.parametrize("where, shards, count", [
    ("at BETWEEN 100 AND 199", ["s1"], 10), ("at BETWEEN 0 AND 99", ["s0"], 10),
    ("at >= 100 AND at < 200", ["s1"], 10), ("at < 100", ["s0"], 10), ("at >= 200", ["s0"], 10),
    ("at > 150 AND 260 > at", ["s0", "s1"], 10), ("at = 150", ["s1"], 1), ("at IN (0, 250)", ["s0"], 2),
    ("at NOT BETWEEN 100 AND 199", ["s0", "s1"], 20), ("at BETWEEN 199 AND 100", None, 0),
])
def test_ranges_of_keys_ask_only_the_shards_that_have_them(app, where, shards, count):
    sql = f"SELECT count(*) FROM samples WHERE {where}"
    assert one(app, sql) == count
    if shards:
        plan = explain(app, sql)
        assert [name for name in ("s0", "s1") if f" {name}" in plan or f"{name}:" in plan] == shards, plan


def test_range_parameters(app):
    with closing(app.cursor()) as cursor:
        cursor.execute("PREPARE ranged(bigint, bigint) AS SELECT count(*) FROM samples WHERE at BETWEEN $1 AND $2")
        for low, high, count in ((0, 99, 10), (100, 150, 6), (0, 1000, 30), (90, 100, 2), (5, 4, 0)):
            cursor.execute(f"EXECUTE ranged({low}, {high})")
            assert cursor.fetchall() == [(count,)]
        cursor.execute("DEALLOCATE ranged")


def test_moving_a_row_out_of_its_list_is_not_guessed(app):
    with refused(("0A000", "23514")):
        app.cursor().execute("UPDATE towns SET region = 'fr' WHERE region = 'de'")
    app.cursor().execute("UPDATE towns SET region = 'at' WHERE name = 'Ulm' AND region = 'de'")
    assert fetch(app, "SELECT name FROM towns WHERE region = 'at' ORDER BY 1") == [("Linz",), ("Ulm",)]
    app.cursor().execute("UPDATE towns SET region = 'de' WHERE name = 'Ulm' AND region = 'at'")


@pytest.mark.parametrize("table, data, found", [
    ("towns", "de\tA\nus\tB\nat\tC\nu\\x73\tD\n", ["AC", "BD"]), ("plans", "2\tA\n3\tB\n-7\tC\n+1\tD\n", ["AD", "BC"]),
    ("samples", "99\t91\n100\t92\n199\t93\n200\t94\n-5\t95\n", ["919495", "9293"])])
def test_copy_goes_by_lists_and_ranges(cluster, app, table, data, found):
    copied = {"towns": "name", "plans": "name", "samples": "value"}[table]
    cursor = app.cursor()
    before = on_shards(cluster, f"SELECT {copied} FROM {table}")
    cursor.copy_expert(f"COPY {table} FROM STDIN", io.StringIO(data))
    after = on_shards(cluster, f"SELECT {copied} FROM {table}")
    for old, new in zip(before, after):
        for value in old:
            new.remove(value)
    assert ["".join(map(str, new)) for new in after] == found
    cursor.execute(f"DELETE FROM {table} WHERE {copied}::text = ANY (%s)", (list("ABCD") + ["91", "92", "93", "94", "95"],))
    assert on_shards(cluster, f"SELECT {copied} FROM {table}") == before


def test_copy_of_a_value_of_no_list_is_refused(app):
    with refused("23514", "in no list of keyspace \"regions\""):
        app.cursor().copy_expert("COPY towns FROM STDIN", io.StringIO("de\tBonn\nfr\tLyon\n"))
    assert one(app, "SELECT count(*) FROM towns") == 4


INTS = [0, 1, -1, 42, 1000, 2**31 - 1, -2**31] + list(range(100, 160))
UUIDS = [uuid.UUID(int=n * 0x1234567890ABCDEF1234567) for n in range(60)]
TEXTS = ["", "a", "Zürich", "x" * 100, "twelve bytes", "thirteen bytes"] + [f"key-{n}" for n in range(60)]


@pytest.mark.parametrize("table, kind, values", [
    ("hashed_ints", "smallint", [n for n in INTS if abs(n) < 32768]), ("hashed_ints", "int", INTS),
    ("hashed_ints", "bigint", INTS), ("hashed_uuids", "uuid", UUIDS), ("hashed_texts", "text", TEXTS),
    ("hashed_texts", "varchar", TEXTS)])
def test_hash_postgres_is_as_a_hash_partitioned_table(cluster, app, table, kind, values):
    """The shard of a row is the partition that Postgres itself puts it into."""
    cursor = app.cursor()
    for number, value in enumerate(values):
        cursor.execute(f"INSERT INTO {table} VALUES (%s, %s)", (str(value), number))
    node = cluster.shards[0].primary
    with closing(node.connect("oracle")) as oracle:
        oracle.autocommit = True
        real = oracle.cursor()
        real.execute(f"CREATE TABLE parts (k {kind}, n int) PARTITION BY HASH (k)")
        try:
            for remainder in (0, 1):
                real.execute(f"CREATE TABLE part_{remainder} PARTITION OF parts FOR VALUES "
                             f"WITH (MODULUS 2, REMAINDER {remainder})")
            for number, value in enumerate(values):
                real.execute("INSERT INTO parts VALUES (%s, %s)", (str(value), number))
            wanted = []
            for remainder in (0, 1):
                real.execute(f"SELECT n FROM part_{remainder} ORDER BY n")
                wanted.append([row[0] for row in real.fetchall()])
        finally:
            real.execute("DROP TABLE parts")
    assert all(wanted) and on_shards(cluster, f"SELECT n FROM {table}") == wanted
    for number, value in enumerate(values[:10]):
        assert fetch(app, f"SELECT n FROM {table} WHERE k = %s", (str(value),)) == [(number,)]
    cursor.execute(f"DELETE FROM {table}")


def test_the_console_lists_them(cluster, app):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy, closing(proxy.connect("pgshunt")) as console:
        cursor = console.cursor()
        cursor.execute("SHOW SHARDS")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row)) for row in cursor.fetchall()]
    assert [row["keyspaces"] for row in rows] == [
        "regions=list(2),tiers=list(2),times=range(2),pgint=8192,pguuid=8192,pgtext=8192",
        "regions=list(1),tiers=list(0),times=range(1),pgint=8192,pguuid=8192,pgtext=8192"]


PASSED = [
    "SELECT id FROM users WHERE id = 40 + 2",
    "SELECT x.id FROM (SELECT * FROM orders) x WHERE x.user_id = 42 ORDER BY 1",
    "SELECT n FROM (SELECT user_id AS k, count(*) AS n FROM orders GROUP BY user_id) x WHERE k = 42",
    "SELECT u.id, x.n FROM users u LEFT JOIN (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) x "
    "ON x.user_id = u.id WHERE u.id = 42",
    "WITH x AS (SELECT * FROM orders) SELECT count(*), min(id) FROM x WHERE user_id = 42",
    "WITH x AS (SELECT * FROM orders), y AS (SELECT user_id, id FROM x) SELECT count(*) FROM y WHERE user_id = 42",
    "WITH x AS (SELECT * FROM orders WHERE user_id = 42) SELECT count(*) FROM x JOIN users u ON u.id = x.user_id",
]
NOT_PASSED = [
    "SELECT count(*) FROM (SELECT * FROM orders ORDER BY id LIMIT 10) x WHERE x.user_id = 42",
    "SELECT id, r FROM (SELECT id, user_id, rank() OVER (ORDER BY id) AS r FROM orders) x WHERE user_id = 42 ORDER BY 1",
    "WITH x AS (SELECT * FROM orders) SELECT (SELECT count(*) FROM x), count(*) FROM x WHERE user_id = 42",
    "SELECT count(*) FROM users u LEFT JOIN (SELECT * FROM orders) x ON x.user_id = u.id AND x.user_id = 42",
]


@pytest.mark.parametrize("sql", PASSED + NOT_PASSED)
def test_keys_pass_through_subqueries(data, oracle, sql):
    with closing(data.connect()) as connection:
        assert fetch(connection, sql) == fetch(oracle, sql)
        assert ("direct" in explain(connection, sql)) == (sql in PASSED)
