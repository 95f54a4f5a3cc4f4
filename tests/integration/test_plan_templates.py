"""Statements planned once and used for other keys: each lands where planning anew would send it, whatever has changed since."""
import copy
import re
import struct
from contextlib import closing, contextmanager

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import SYNC, Raw, bind, execute, explain, fields, one, parse, query, refused, values

pytestmark = pytest.mark.core

IDS = range(1, 25)
WORDS = ["a", "b", "c", "d", "e", "f", "g", "h"]
UUIDS = [f"00000000-0000-0000-0000-0000000000{n:02d}" for n in range(8)]
KEYSPACES = [
    {"name": "places", "type": "bigint", "tables": [{"name": "places", "key": "id"}, {"name": "visits", "key": "place"}]},
    {"name": "words", "type": "text", "tables": [{"name": "words", "key": "word"}]},
    {"name": "docs", "type": "uuid", "tables": [{"name": "docs", "key": "doc"}]},
]
# Each shard has every key, and says who it is: so an answer tells where its statement has been.
FILL = """
CREATE TABLE places (id bigint, here int, n int DEFAULT 0);
CREATE TABLE visits (place bigint, here int);
CREATE TABLE words (word text, here int);
CREATE TABLE docs (doc uuid, here int);
INSERT INTO places SELECT g, {here} FROM generate_series(-30, 30) g;
INSERT INTO visits SELECT g, {here} FROM generate_series(-30, 30) g;
INSERT INTO words SELECT w, {here} FROM unnest('{{{words}}}'::text[]) w;
INSERT INTO docs SELECT u, {here} FROM unnest('{{{uuids}}}'::uuid[]) u;
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.places (LIKE places);
INSERT INTO elsewhere.places SELECT id, here + 10 FROM places;
"""


def fill(cluster):
    for shard in cluster.shards:
        text = FILL.format(here=shard.index, words=",".join(WORDS), uuids=",".join(UUIDS))
        for statement in text.split(";")[:-1]:
            shard.primary.sql(statement)
    for node in cluster.replicas:
        wait_until(lambda node=node: node.sql("SELECT to_regclass('elsewhere.places')")[0][0] is not None and
                   node.sql("SELECT count(*) FROM elsewhere.places")[0][0] == 61, 20.0, "replicas having the rows")


@pytest.fixture
def proxy(cluster):
    fill(cluster)
    # The tests change these.
    with Proxy(cluster, keyspaces=copy.deepcopy(KEYSPACES), options={"workers": 1, "catalog": {"interval": "300ms"}}) as proxy:
        proxy.wait_nodes()
        yield proxy
    for node in cluster.primaries:
        node.sql("DROP TABLE IF EXISTS places, visits, words, docs")
        node.sql("DROP SCHEMA elsewhere CASCADE")
    cluster.primaries[0].sql("DELETE FROM pgshunt.bucket WHERE keyspace IN ('places', 'words', 'docs')")


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        connection.autocommit = True
        yield connection


def planned(connection, table, key, value):
    """The shard that planning gives: an EXPLAIN is planned each time."""
    text = explain(connection, f"SELECT here FROM {table} WHERE {key} = '{value}'")
    found = set(re.findall(r"\bs(\d)\b", text))
    assert len(found) == 1, text
    return int(found.pop())


def shards_of(connection, table="places", key="id", wanted=IDS):
    found = {value: planned(connection, table, key, value) for value in wanted}
    assert set(found.values()) == {0, 1}
    return found


def here(connection, sql):
    cursor = connection.cursor()
    cursor.execute(sql)
    return [row[0] for row in cursor.fetchall()]


def check_simple(connection, where, sql="SELECT here FROM places WHERE id = {}", base=0):
    for _ in range(2):
        for value, shard in where.items():
            assert here(connection, sql.format(value)) == [base + shard], value


def test_literals(app):
    check_simple(app, shards_of(app))
    check_simple(app, shards_of(app), "SELECT here FROM places WHERE id = '{}'::bigint")
    check_simple(app, shards_of(app), "SELECT p.here FROM places p JOIN visits v ON v.place = p.id WHERE p.id = {}")
    check_simple(app, shards_of(app, wanted=range(-9, 0)))
    check_simple(app, shards_of(app, "words", "word", WORDS), "SELECT here FROM words WHERE word = '{}'")
    check_simple(app, shards_of(app, "docs", "doc", UUIDS), "SELECT here FROM docs WHERE doc = '{}'")


def test_literals_that_are_no_keys(app):
    where = shards_of(app)
    for value in ("x", "", "99999999999999999999"):
        check_simple(app, dict(list(where.items())[:3]), "SELECT here FROM places WHERE id = '{}'")
        with pytest.raises(psycopg2.Error) as caught:
            here(app, f"SELECT here FROM places WHERE id = '{value}'")
        assert caught.value.pgcode in ("22P02", "22003")


def test_lists(app):
    where = shards_of(app)
    same = {shard: [value for value in where if where[value] == shard][:3] for shard in (0, 1)}
    for a, b in [(same[0][0], same[0][1]), (same[1][0], same[1][1]), (same[0][0], same[1][0]), (same[1][2], same[1][1])]:
        sql = f"SELECT here FROM places WHERE id IN ({a}, {b}) ORDER BY id"
        assert here(app, sql) == [where[value] for value in sorted((a, b))]
        assert one(app, f"SELECT count(*) FROM places WHERE id = {a} AND id = {b}") == 0


def rows_of(answer):
    assert not [fields(body) for kind, body in answer if kind == "E"]
    return [int(values(body)[0]) for kind, body in answer if kind == "D"]


def forms(value):
    """The same number as text and, in every width, as binary."""
    yield [str(value).encode()], [], 0
    yield [f" {value} ".encode()], [0], 20
    yield [struct.pack("!q", value)], [1], 20
    yield [struct.pack("!i", value)], [1], 23
    yield [struct.pack("!h", value)], [1], 21


def test_parameters(app, proxy):
    where = shards_of(app, wanted=range(-5, 15))
    sql = "SELECT here FROM places WHERE id = $1"
    with Raw(proxy) as raw:
        for number in range(5):
            oid = list(forms(1))[number][2]
            raw.ask(parse(f"s{number}", sql, [oid] if oid else []), SYNC)
            for value, shard in where.items():
                bound, formats, _ = list(forms(value))[number]
                assert rows_of(raw.ask(bind("", f"s{number}", bound, formats), execute(), SYNC)) == [shard]
                unnamed = raw.ask(parse("", sql, [oid] if oid else []), bind("", "", bound, formats), execute(), SYNC)
                assert rows_of(unnamed) == [shard]
            assert rows_of(raw.ask(bind("", f"s{number}", [None]), execute(), SYNC)) == []
        answer = raw.ask(bind("", "s0", [b"x"]), execute(), SYNC)
        assert [fields(body)["C"] for kind, body in answer if kind == "E"] == ["22P02"]
        for value, shard in where.items():
            assert rows_of(raw.ask(bind("", "s0", [str(value).encode()]), execute(), SYNC)) == [shard]


def test_pipelined_parameters(app, proxy):
    """Several in one pipeline, of several shards: each at its own, in one transaction."""
    where = shards_of(app)
    with Raw(proxy) as raw:
        raw.ask(parse("s", "SELECT here FROM places WHERE id = $1"), SYNC)
        for _ in range(3):
            answer = raw.ask(*(part for value in IDS for part in (bind("", "s", [str(value).encode()]), execute())), SYNC)
            assert rows_of(answer) == [where[value] for value in IDS]


def test_transactions(app, proxy):
    where = shards_of(app)
    check_simple(app, where)
    app.autocommit = False
    check_simple(app, where)
    app.cursor().execute("UPDATE places SET n = n + 1 WHERE id = 1")
    app.cursor().execute("UPDATE places SET n = n + 1 WHERE id = 2")
    check_simple(app, where)
    app.commit()
    app.cursor().execute("SET TRANSACTION READ ONLY")
    check_simple(app, where)
    app.rollback()


def test_writes(app, cluster):
    where = shards_of(app)
    cursor = app.cursor()
    for turn in range(2):
        for value, shard in where.items():
            cursor.execute(f"INSERT INTO visits (place, here) VALUES ({value}, {100 + turn})")
            cursor.execute(f"UPDATE places SET n = n + 1 WHERE id = {value}")
            cursor.execute(f"DELETE FROM visits WHERE place = {value} AND here < 100")
    for shard, node in enumerate(cluster.primaries):
        own = sorted(value for value in where if where[value] == shard)
        assert node.sql("SELECT id, n FROM places WHERE n > 0 ORDER BY id") == [(value, 2) for value in own]
        assert sorted(node.sql("SELECT place FROM visits WHERE here >= 100")) == sorted([(value,) for value in own] * 2)
        gone = [row[0] for row in node.sql("SELECT g FROM generate_series(1, 24) g WHERE NOT EXISTS "
                                           "(SELECT 1 FROM visits WHERE place = g AND here < 100) ORDER BY g")]
        assert gone == own


def test_what_the_session_says(app):
    where = shards_of(app)
    cursor = app.cursor()
    check_simple(app, where)
    for setting in ("pgshunt.key = '1'", "pgshunt.key = '2'", "pgshunt.route = 'primary'", "pgshunt.route = 'replica'",
                    "client_encoding = 'LATIN1'", "search_path = public"):
        cursor.execute("SET " + setting)
        check_simple(app, where)
        cursor.execute("RESET " + setting.split(" =")[0])
    for name, shard in (("s1", 1), ("s0", 0)):
        cursor.execute(f"SET pgshunt.shard = '{name}'")
        check_simple(app, dict.fromkeys(IDS, shard))
        cursor.execute("RESET pgshunt.shard")
        check_simple(app, where)
    cursor.execute("SET search_path = elsewhere")
    check_simple(app, where, base=10)
    cursor.execute("RESET search_path")
    check_simple(app, where)


def test_text_in_another_encoding(app, proxy):
    """A key that is not plain ASCII is refused in LATIN1, also where it was understood in UTF8 just before."""
    word = "m\u00fcller"
    sql = f"SELECT here FROM words WHERE word = '{word}'"
    plain = shards_of(app, "words", "word", WORDS)
    app.cursor().execute(f"INSERT INTO words VALUES ('{word}', 7)")
    with closing(proxy.connect()) as latin:
        latin.autocommit = True
        latin.cursor().execute("SET client_encoding = 'LATIN1'")
        for _ in range(3):
            check_simple(app, plain, "SELECT here FROM words WHERE word = '{}'")
            assert here(app, sql) == [7]
            check_simple(latin, plain, "SELECT here FROM words WHERE word = '{}'")
            with refused("0A000", "client_encoding"):
                here(latin, sql)


def test_a_table_made_anew_with_its_key_elsewhere(app, cluster):
    """The key of an INSERT without a column list is where the table has it now."""
    where = shards_of(app)
    cursor = app.cursor()
    for columns in ("place bigint, here int", "here int, place bigint"):
        cursor.execute("DROP TABLE visits")
        cursor.execute(f"CREATE TABLE visits ({columns})")
        first = columns.startswith("place")
        wait_until(lambda: "key place = 23" in explain(app, "INSERT INTO visits VALUES " + ("(23, 0)" if first else "(0, 23)")),
                   20.0, "the new table being known")
        for value in IDS:
            other = IDS[-1] + 1 - value
            cursor.execute(f"INSERT INTO visits VALUES ({value}, {other})" if first else
                           f"INSERT INTO visits VALUES ({other}, {value})")
        for shard, node in enumerate(cluster.primaries):
            assert [row[0] for row in node.sql("SELECT place FROM visits ORDER BY 1")] == [
                value for value in IDS if where[value] == shard]


def test_a_key_column_of_another_type(app):
    """Blanks at the end count in text, and not in char(n)."""
    sql = "SELECT here FROM words WHERE word = '{}'"
    plain, padded = shards_of(app, "words", "word", WORDS), {word: word + "   " for word in WORDS}
    for word in WORDS:
        assert here(app, sql.format(padded[word])) == []
    app.cursor().execute("ALTER TABLE words ALTER word TYPE char(8)")
    wait_until(lambda: all(planned(app, "words", "word", padded[word]) == plain[word] for word in WORDS), 20.0,
               "the new type being known")
    for word in WORDS:
        assert here(app, sql.format(padded[word])) == [plain[word]]


@contextmanager
def all_ways(app, proxy):
    """Yields a check that the same texts and the same prepared statement go where `where` says."""
    sql = "SELECT here FROM places WHERE id = $1"
    with Raw(proxy) as raw:
        raw.ask(parse("s", sql), SYNC)

        def check(where):
            check_simple(app, where)
            for value, shard in where.items():
                assert rows_of(raw.ask(bind("", "s", [str(value).encode()]), execute(), SYNC)) == [shard]
                assert rows_of(raw.ask(query(f"SELECT here FROM places WHERE id = {value}"))) == [shard]
        yield check


def test_another_map(app, proxy, cluster):
    """Buckets that have changed shards, as the catalog says."""
    before = shards_of(app)
    catalog = cluster.primaries[0]
    with all_ways(app, proxy) as check:
        check(before)
        catalog.sql("UPDATE pgshunt.bucket SET shard = CASE shard WHEN 's0' THEN 's1' ELSE 's0' END WHERE keyspace = 'places'")
        catalog.sql("UPDATE pgshunt.epoch SET epoch = epoch + 1")
        wait_until(lambda: shards_of(app) != before, 20.0, "the new map")
        check({value: 1 - shard for value, shard in before.items()})


def test_another_configuration(app, proxy):
    """After a reload with another kind of keyspace, and with another column as the key."""
    table = proxy.config["databases"][0]["keyspaces"][0]
    with all_ways(app, proxy) as check:
        check(shards_of(app))
        table.update(name="ranges", map="range", ranges=[{"to": "9", "shard": "s1"}, {"from": "9", "shard": "s0"}])
        proxy.write_config()
        assert not [line for line in proxy.reload() if "ERROR" in line.upper()]
        ranges = {value: int(value < 9) for value in IDS}
        wait_until(lambda: shards_of(app) == ranges, 20.0, "the new keyspace")
        check(ranges)
        table["tables"][0]["key"] = "n"  # the id says nothing any more
        proxy.write_config()
        assert not [line for line in proxy.reload() if "ERROR" in line.upper()]
        wait_until(lambda: len(here(app, "SELECT here FROM places WHERE id = 1")) == 2, 20.0, "the new key")
        with Raw(proxy) as raw:
            raw.ask(parse("s", "SELECT here FROM places WHERE id = $1"), SYNC)
            for value in IDS:
                assert sorted(rows_of(raw.ask(bind("", "s", [str(value).encode()]), execute(), SYNC))) == [0, 1]
                assert sorted(here(app, f"SELECT here FROM places WHERE id = {value}")) == [0, 1]
