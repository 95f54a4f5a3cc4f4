"""Keys of every type in every form find the shard that Postgres' own hash partitions would; so do hints and settings."""
import struct
import uuid
from contextlib import closing

import pytest

from harness import Proxy
from support import SYNC, Raw, bind, execute, explain, fetch, one, parse, refused, values

pytestmark = pytest.mark.core

# column type: type of the keyspace, values, binary form, other types that a literal may be cast to
TYPES = {
    "smallint": ("bigint", [0, -1, 7, 300, -32768, 32767], lambda v: struct.pack("!h", v), ["int", "bigint", "int2"]),
    "integer": ("bigint", [0, -1, 7, 70000, -2**31, 2**31 - 1], lambda v: struct.pack("!i", v), ["int4", "bigint"]),
    "bigint": ("bigint", [0, -1, 7, 5 * 10**9, -2**63, 2**63 - 1], lambda v: struct.pack("!q", v), ["int8", "bigint"]),
    "uuid": ("uuid", [str(uuid.UUID(int=n * 0x1234567890abcdef12345)) for n in (0, 1, 2, 3, 77, 991)],
             lambda v: uuid.UUID(v).bytes, ["uuid"]),
    "text": ("text", ["", "a", "it's", "Österreich", "x" * 100, "\\b"], str.encode, ["text"]),
    "varchar(120)": ("text", ["", "a", "it's", "Österreich", "x" * 100, "\\b"], str.encode, ["text"]),
}
NAMES = {kind: f"typed_{number}" for number, kind in enumerate(TYPES)}
HASHES = ["xxh64", "postgres"]


def table_of(kind, hash_name):
    return f"{NAMES[kind]}_{hash_name}"


KEYSPACES = [{"name": table_of(kind, name), "type": TYPES[kind][0], "hash": name, "tables": [{"name": table_of(kind, name), "key": "k"}]}
             for kind in TYPES for name in HASHES]
KEYSPACES.append({"name": "owners", "type": "bigint", "tables": [{"name": "owners", "key": "id"}, {"name": "pets", "key": "owner"}]})


def literal(value):
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            for kind, (_, keys, _, _) in TYPES.items():
                for name in HASHES:
                    cursor.execute(f"CREATE TABLE {table_of(kind, name)} (k {kind}, n int)")
                    for n, key in enumerate(keys):
                        cursor.execute(f"INSERT INTO {table_of(kind, name)} VALUES ({literal(key)}, {n})")
            cursor.execute("CREATE TABLE owners (id bigint PRIMARY KEY, name text); CREATE TABLE pets (owner bigint, name text, age int)")
            cursor.execute("INSERT INTO owners VALUES " + ", ".join(f"({n}, 'o{n}')" for n in range(20)))
            cursor.execute("INSERT INTO pets VALUES " + ", ".join(f"({n // 2}, 'p{n}', {n})" for n in range(40)))
        yield proxy
        for node in cluster.primaries:
            for space in KEYSPACES:
                for table in space["tables"]:
                    node.sql(f"DROP TABLE IF EXISTS {table['name']}")


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        yield connection


@pytest.mark.parametrize("kind", TYPES)
def test_rows_are_where_hash_partitions_have_them(cluster, proxy, kind):
    first, keys = cluster.primaries[0], TYPES[kind][1]
    first.sql(f"CREATE TABLE parts (k {kind}, n int) PARTITION BY HASH (k); "
              "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
              "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    try:
        for n, key in enumerate(keys):
            first.sql(f"INSERT INTO parts VALUES ({literal(key)}, {n})")
        for shard, node in enumerate(cluster.primaries):
            rows = "SELECT n FROM {} ORDER BY n"
            assert node.sql(rows.format(table_of(kind, "postgres"))) == first.sql(rows.format(f"parts_{shard}"))
    finally:
        first.sql("DROP TABLE parts")


def conditions(kind, key):
    number = isinstance(key, int)
    yield f"k = {literal(key)}"
    yield f"{literal(key)} = k"
    yield f"k = '{str(key)}'" if number else f"k IN ({literal(key)})"
    for cast in TYPES[kind][3]:
        if number and cast == "int" or cast == "bigint" or not number:
            yield f"k = '{key}'::{cast}" if number else f"k = {literal(key)}::{cast}"
            yield f"k = CAST({literal(key) if not number else repr(str(key))} AS {cast})"
    yield f"(n, k) = (n, {literal(key)})"
    yield f"k = ANY (ARRAY[{literal(key)}]::{'bigint' if number else TYPES[kind][0]}[])"
    if number and -30000 < key < 30000:
        yield f"k = {key} + 5 - 5"
        yield f"k = {key + 1} - 1"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("hash_name", HASHES)
def test_literals_and_casts(app, kind, hash_name):
    for n, key in enumerate(TYPES[kind][1]):
        for where in conditions(kind, key):
            sql = f"SELECT n FROM {table_of(kind, hash_name)} WHERE {where}"
            assert fetch(app, sql) == [(n,)], where
            assert n or "pgshunt: direct to shard" in explain(app, sql), where


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("hash_name", HASHES)
def test_parameters(proxy, kind, hash_name):
    table, (_, keys, binary, _) = table_of(kind, hash_name), TYPES[kind]
    with Raw(proxy) as raw:
        raw.ask(parse("s", f"SELECT n FROM {table} WHERE k = $1"), parse("u", f"UPDATE {table} SET n = n WHERE $1 = k"), SYNC)
        for n, key in enumerate(keys):
            for bound, formats in ((str(key).encode(), []), (binary(key), [1])):
                answer = raw.ask(bind("", "s", [bound], formats), execute(), bind("", "u", [bound], formats), execute(), SYNC)
                assert [values(body)[0] for letter, body in answer if letter == "D"] == [str(n).encode()], (key, formats)
                assert b"UPDATE 1\0" in [body for letter, body in answer if letter == "C"]


@pytest.mark.parametrize("kind", TYPES)
def test_null_keys_are_refused_and_found_nowhere(app, kind):
    for name in HASHES:
        table = table_of(kind, name)
        for sql in (f"INSERT INTO {table} VALUES (NULL, 1)", f"INSERT INTO {table} (n, k) VALUES (1, NULL::{kind})",
                    f"INSERT INTO {table} SELECT NULL, 1"):
            with refused("23502", "null value in \"k\""):
                app.cursor().execute(sql)
        assert fetch(app, f"SELECT * FROM {table} WHERE k = NULL") == []


# ---- shapes: each pins one shard, and answers right ----

SHAPES = [
    ("SELECT o.name, p.name FROM owners o JOIN LATERAL (SELECT name FROM pets WHERE owner = o.id ORDER BY age LIMIT 1) p ON true "
     "WHERE o.id = 7", [("o7", "p14")]),
    ("SELECT o.name, p.n FROM owners o, LATERAL (SELECT count(*) AS n FROM pets x WHERE x.owner = o.id) p WHERE o.id = 7", [("o7", 2)]),
    ("SELECT p.name FROM pets p WHERE (p.age, p.owner) = (14, 7)", [("p14",)]),
    ("SELECT count(*) FROM pets WHERE (owner, age) IN ((7, 14))", [(1,)]),
    ("SELECT count(*) FROM owners o JOIN pets p ON p.owner = o.id WHERE p.owner = 3 + 4", [(2,)]),
    ("SELECT count(*) FROM owners o, pets p, pets q WHERE o.id = p.owner AND q.owner = p.owner AND q.owner = '7'::int", [(4,)]),
    ("SELECT (SELECT count(*) FROM pets p WHERE p.owner = o.id) FROM owners o WHERE id = 7", [(2,)]),
    ("SELECT count(*) FROM owners WHERE id = 7 AND id IN (SELECT owner FROM pets WHERE age > 3)", [(1,)]),
    ("WITH o AS (SELECT * FROM owners) SELECT name FROM o WHERE id = 7", [("o7",)]),
    ("SELECT name FROM (SELECT id AS a, name FROM owners) x WHERE 7 = a", [("o7",)]),
    ("SELECT name FROM owners WHERE id = 7 UNION ALL SELECT name FROM pets WHERE owner = 7 ORDER BY 1", [("o7",), ("p14",), ("p15",)]),
]


@pytest.mark.parametrize("sql, rows", SHAPES)
def test_shapes_that_pin_a_key(app, sql, rows):
    assert fetch(app, sql) == rows
    assert "pgshunt: direct to shard" in explain(app, sql)


CHANGES = [
    "UPDATE pets p SET age = p.age FROM owners o WHERE o.id = p.owner AND o.id = 7",
    "UPDATE pets SET age = age WHERE (owner, age) IN ((7, 14), (7, 15))",
    "DELETE FROM pets p USING owners o WHERE o.id = p.owner AND p.owner = 7 AND o.name = 'nobody'",
    "MERGE INTO pets p USING (VALUES (7, 'p14')) v (o, n) ON p.owner = 7 AND p.owner = v.o AND p.name = v.n WHEN MATCHED THEN UPDATE SET age = age",
    "MERGE INTO pets p USING owners o ON p.owner = o.id AND p.owner = 7 AND o.id = 7 WHEN MATCHED THEN UPDATE SET age = age",
    "INSERT INTO pets SELECT owner, name, age FROM pets WHERE owner = 7 AND false",
    "WITH x AS (UPDATE pets SET age = age WHERE owner = 7 RETURNING owner) UPDATE owners SET name = name WHERE id = 7",
]


@pytest.mark.parametrize("sql", CHANGES)
def test_changes_by_a_key(app, sql):
    before = sorted(fetch(app, "SELECT * FROM pets"))
    try:
        plan = explain(app, sql)
    except Exception as error:  # an honest refusal of what may concern other shards
        assert error.pgcode == "0A000" and error.diag.message_hint and "MERGE" in sql
        return
    assert "pgshunt: direct to shard" in plan
    app.cursor().execute(sql)
    assert sorted(fetch(app, "SELECT * FROM pets")) == before


# ---- hints and settings ----

def count(app, comment=""):
    return one(app, f"{comment} SELECT count(*) FROM owners")


def test_hints(cluster, app):
    there = [node.sql("SELECT count(*) FROM owners")[0][0] for node in cluster.primaries]
    of_seven = 0 if cluster.primaries[0].sql("SELECT 1 FROM owners WHERE id = 7") else 1
    assert 0 < there[0] < 20
    for comment in ("/* pgshunt: key=7 */", "-- pgshunt: key='7'\n", "/* pgshunt: key=7 primary */", f"/* pgshunt: shard=s{of_seven} */"):
        assert count(app, comment) == there[of_seven], comment
    for comment, state in (("/* pgshunt: shard=s9 */", "22023"), ("/* pgshunt: key=x */", "22P02"), ("/* pgshunt: kee=7 */", "42704"),
                           ("/* pgshunt: key */", "22023")):
        with refused(state):
            count(app, comment)


def test_settings(cluster, proxy, app):
    there = [node.sql("SELECT count(*) FROM owners")[0][0] for node in cluster.primaries]
    of_seven = 0 if cluster.primaries[0].sql("SELECT 1 FROM owners WHERE id = 7") else 1
    run = app.cursor().execute
    run("SET pgshunt.key = '7'")
    assert one(app, "SHOW pgshunt.key") == "7" and count(app) == there[of_seven]
    assert one(app, "SELECT count(*) FROM owners WHERE id = 7 OR id = 8") == 2  # keys of its own count more
    run("RESET pgshunt.key")
    assert count(app) == 20
    run("BEGIN; SET LOCAL pgshunt.shard = 's1'")
    assert count(app) == there[1]
    run("COMMIT")
    assert count(app) == 20
    run("BEGIN; SET pgshunt.shard = 's0'; SAVEPOINT a; SET pgshunt.shard = 's1'")
    assert count(app) == there[1]
    run("ROLLBACK TO a")
    assert count(app) == there[0]
    run("ROLLBACK")
    assert count(app) == 20
    run("BEGIN; SET pgshunt.key = '7'; COMMIT")
    assert count(app) == there[of_seven]
    run("DISCARD ALL")
    assert count(app) == 20
    with refused("22023", "there is no shard"):
        run("SET pgshunt.shard = 's9'")
    run("SET pgshunt.key = 'no number'")
    with refused("22P02"):
        count(app)
    run("RESET ALL")
    assert count(app) == 20
    with closing(proxy.connect(options="-c pgshunt.shard=s1")) as other:
        assert count(other) == there[1]
        other.cursor().execute("SET pgshunt.shard = 's0'")
        assert count(other) == there[0]
        other.cursor().execute("RESET pgshunt.shard")
        assert count(other) == there[1]
