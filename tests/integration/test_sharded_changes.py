"""Changes that need more than each shard's own rows: rows that move with their key, and rows that queries insert."""
import struct
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import SYNC, Raw, bind, describe, execute, explain, fetch, fields, kinds, one, parse, query, refused

pytestmark = pytest.mark.core

KEYSPACES = [
    {"name": "accounts", "type": "bigint",
     "tables": [{"name": "acc", "key": "id"}, {"name": "entry", "key": "account"}, {"name": "parted", "key": "id"},
                {"name": "heir", "key": "id"}, {"name": "parent", "key": "id"}, {"name": "child", "key": "parent"},
                {"name": "firm", "key": "id"}, {"name": "archive", "key": "nr"}]},
    {"name": "regions", "type": "text", "map": "list",
     "lists": [{"shard": "s0", "values": ["de", "at"]}, {"shard": "s1", "values": ["us"]}],
     "tables": [{"name": "town", "key": "region"}]},
]
SCHEMA = """
CREATE TYPE tint AS ENUM ('red', 'green')
CREATE TABLE acc (id bigint PRIMARY KEY, nr bigint GENERATED ALWAYS AS IDENTITY, n int, name varchar(20) DEFAULT 'none',
    twice int GENERATED ALWAYS AS (n * 2) STORED, gone int, tint tint, tags text[], at timestamptz)
ALTER TABLE acc DROP COLUMN gone
CREATE TABLE entry (account bigint REFERENCES acc, nr int, note text, f float8, PRIMARY KEY (account, nr))
CREATE TABLE parted (id bigint, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k)
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10)
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (100)
CREATE TABLE heir (id bigint, v text)
CREATE TABLE heir_more (extra text) INHERITS (heir)
CREATE TABLE parent (id bigint PRIMARY KEY, v text)
CREATE TABLE child (parent bigint REFERENCES parent ON DELETE CASCADE, nr int)
CREATE TABLE firm (id bigint PRIMARY KEY, v text)
CREATE TABLE archive (nr bigint PRIMARY KEY, account bigint, note text, big numeric(12,2))
CREATE TABLE town (region text, name text)
CREATE TABLE rate (code text PRIMARY KEY, value numeric)
CREATE TABLE note (id int, body text)
CREATE SEQUENCE firm_ids
""".strip().replace("\n    ", " ").splitlines()
TABLES = ["entry", "acc", "parted", "heir_more", "heir", "child", "parent", "firm", "archive", "town", "rate", "note"]


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES, reference=["rate"]) as proxy:
        proxy.wait_nodes()
        for statement in SCHEMA:
            proxy.sql(statement)
        wait_known(proxy)
        yield proxy
        for table in TABLES:
            proxy.sql(f"DROP TABLE IF EXISTS {table}")
        proxy.sql("DROP TYPE tint")
        proxy.sql("DROP SEQUENCE firm_ids")


def wait_known(proxy):
    """Until the router knows the columns of the last table."""
    def known():
        with closing(proxy.connect()) as connection:
            try:
                return fetch(connection, "SELECT count(*), min(body) FROM note, town") == [(0, None)]
            except psycopg2.Error:
                return False
    wait_until(known, 15.0, "tables known to the proxy")


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("TRUNCATE entry, acc, parted, heir, heir_more, child, parent, firm, archive, town, rate")
        cursor.execute("TRUNCATE note")
        cursor.execute("INSERT INTO acc (id, n, tint, tags) VALUES " +
                       ", ".join(f"({i}, {i}, 'green', '{{\"a,\\\"b\",NULL}}')" for i in range(1, 21)))
        cursor.execute("INSERT INTO entry (account, nr, note) VALUES " +
                       ", ".join(f"({i % 20 + 1}, {i}, 'e{i}')" for i in range(60)))
        yield connection


def run(connection, sql, parameters=None):
    cursor = connection.cursor()
    cursor.execute(sql, parameters)
    return cursor.statusmessage


def everywhere(cluster, sql):
    """Rows of all shards, put together."""
    return sorted(row for node in cluster.primaries for row in node.sql(sql))


def in_place(connection, table, key, keys):
    """Each key is found where it is looked for."""
    return all(one(connection, f"SELECT count(*) FROM {table} WHERE {key} = {value!r}") for value in keys)


# ---- UPDATE of keys ----

def test_rows_move_with_their_key_and_the_client_is_told(cluster, app):
    before = {row[1]: row[0] for row in everywhere(cluster, "SELECT nr, id FROM acc")}
    del app.notices[:]
    assert run(app, "DELETE FROM entry") == "DELETE 60"
    assert run(app, "UPDATE acc SET id = id + 1000, n = n + 1") == "UPDATE 20"
    assert "moved to the shard of their new key" in app.notices[-1]
    found = everywhere(cluster, "SELECT id, nr, n, name, twice, tint::text, tags FROM acc")
    assert found == sorted((i + 1000, before[i], i + 1, "none", 2 * i + 2, "green", ['a,"b', None]) for i in range(1, 21))
    assert in_place(app, "acc", "id", range(1001, 1021))
    assert run(app, "UPDATE acc SET id = 1001 WHERE id = 1001") == "UPDATE 1"


def test_what_stays_is_updated_where_it_is(cluster, app):
    """Keys that stay on their shard keep the row's history: no DELETE, no INSERT."""
    for node in cluster.primaries:
        node.sql("CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                 " INSERT INTO seen VALUES (TG_OP); RETURN NULL; END$$")
        node.sql("CREATE TABLE seen (op text)")
        node.sql("CREATE TRIGGER watch AFTER INSERT OR UPDATE OR DELETE ON firm FOR EACH ROW EXECUTE FUNCTION count_up()")
    try:
        run(app, "INSERT INTO firm SELECT g, 'x' FROM generate_series(1, 40) g")
        for node in cluster.primaries:
            node.sql("TRUNCATE seen")
        run(app, "UPDATE firm SET id = id + 500")
        seen = [row[0] for row in everywhere(cluster, "SELECT op FROM seen")]
        moved = seen.count("DELETE")
        assert 0 < moved < 40 and seen.count("INSERT") == moved and seen.count("UPDATE") == 40 - moved
        assert in_place(app, "firm", "id", range(501, 541))
    finally:
        for node in cluster.primaries:
            node.sql("DROP TRIGGER watch ON firm")
            node.sql("DROP FUNCTION count_up")
            node.sql("DROP TABLE seen")


def test_returning_default_and_rows_of_columns(app):
    run(app, "DELETE FROM entry")
    cursor = app.cursor()
    cursor.execute("UPDATE acc SET (id, n) = (id + 50, n + 1), name = DEFAULT, tint = 'red' WHERE id > 12"
                   " RETURNING id, n, name, acc.twice, tint")
    assert cursor.statusmessage == "UPDATE 8"
    assert sorted(cursor.fetchall()) == [(i + 50, i + 1, "none", 2 * i + 2, "red") for i in range(13, 21)]


def test_keys_are_exchanged(cluster, app):
    """Of two shards: on one, as on one Postgres, it is a matter of luck."""
    run(app, "INSERT INTO firm SELECT g, 'f' || g FROM generate_series(1, 20) g")
    here, there = (node.value("SELECT min(id) FROM firm") for node in cluster.primaries)
    assert run(app, f"UPDATE firm SET id = {here + there} - id WHERE id IN ({here}, {there})") == "UPDATE 2"
    assert fetch(app, f"SELECT v FROM firm WHERE id IN ({here}, {there}) ORDER BY id") == [
        (f"f{max(here, there)}",), (f"f{min(here, there)}",)]


@pytest.mark.parametrize("sql, left", [
    ("UPDATE entry SET account = 1, nr = 20 WHERE account = 3 AND nr = 2", "23505"),
    ("UPDATE acc SET id = 500 WHERE id = 3", "23503"),
    ("UPDATE acc SET id = NULL WHERE id = 3", "23502"),
    ("UPDATE acc SET id = n + NULL", "23502"),
    ("UPDATE entry SET account = 999 WHERE account = 3", "23503"),
    ("UPDATE acc SET id = 'x' WHERE id = 3", "22P02"),
    ("UPDATE acc SET id = name WHERE id = 3", "42804"),
    ("UPDATE acc SET id = 10 / (n - 3) + 100", "22012"),
])
def test_a_failure_changes_nothing(cluster, app, sql, left):
    before = everywhere(cluster, "SELECT id, n FROM acc"), everywhere(cluster, "SELECT account, nr FROM entry")
    with refused(left, hint=False):
        run(app, sql)
    assert before == (everywhere(cluster, "SELECT id, n FROM acc"), everywhere(cluster, "SELECT account, nr FROM entry"))
    assert one(app, "SELECT 1") == 1


def test_children_follow_their_parents(app):
    """Rows that refer to others of the key: they go where those are."""
    run(app, "UPDATE entry SET account = account % 5 + 1")
    assert fetch(app, "SELECT account, count(*) FROM entry GROUP BY account ORDER BY account") == [(i, 12) for i in range(1, 6)]
    assert fetch(app, "SELECT count(*) FROM entry e JOIN acc a ON a.id = e.account") == [(60,)]
    run(app, "UPDATE entry e SET account = a.n + 1, note = e.note || a.n FROM acc a WHERE a.id = e.account AND a.id < 5")
    assert fetch(app, "SELECT account, count(*) FROM entry GROUP BY 1 ORDER BY 1") == [(2, 12), (3, 12), (4, 12), (5, 24)]


def test_in_a_transaction(cluster, app):
    run(app, "BEGIN")
    run(app, "INSERT INTO firm VALUES (1, 'mine')")
    run(app, "UPDATE firm SET id = 1001")
    run(app, "SAVEPOINT a")
    run(app, "UPDATE firm SET id = 1002")
    assert fetch(app, "SELECT * FROM firm") == [(1002, "mine")]
    run(app, "ROLLBACK TO a")
    assert fetch(app, "SELECT * FROM firm WHERE id = 1001") == [(1001, "mine")]
    with refused("23502"):
        run(app, "UPDATE firm SET id = NULL")
    with refused("25P02", hint=False):
        run(app, "SELECT 1")
    run(app, "ROLLBACK TO a")
    run(app, "COMMIT")
    assert everywhere(cluster, "SELECT * FROM firm") == [(1001, "mine")]


def test_with_parameters(proxy, app):
    run(app, "DELETE FROM entry")
    with proxy.connect3(prepare_threshold=1) as connection:
        for new, old in ((101, 1), (102, 2), (103, 3), (104, 4)):
            done = connection.execute("UPDATE acc SET id = %s, name = %s WHERE id = %s RETURNING id, name", (new, "p", old))
            assert done.fetchall() == [(new, "p")]
            done = connection.execute("UPDATE acc SET n = %s, id = id + %b WHERE n > %s", (new, 1, 18))
            assert done.statusmessage in ("UPDATE 2", "UPDATE 3", "UPDATE 4", "UPDATE 5")
        connection.rollback()


def test_described_before_it_is_bound(proxy, app):
    run(app, "DELETE FROM entry")
    with Raw(proxy, database="app") as raw:
        sql = "UPDATE acc SET id = $1 WHERE id = $2 RETURNING id, name"
        first = raw.ask(parse("s", sql), describe("S", "s"), SYNC)
        assert kinds(first) == "1tTZ" and [body for kind, body in first if kind == "t"] == [struct.pack("!HII", 2, 20, 20)]
        for new, old in ((201, 1), (202, 2), (203, 3)):
            answer = raw.ask(bind("", "s", (struct.pack("!q", new), struct.pack("!q", old)), (1,), (1, 0)),
                             describe("P", ""), execute(""), SYNC)
            assert kinds(answer).replace("N", "") == "2TDCZ"
            row, = [body for kind, body in answer if kind == "D"]
            assert row == struct.pack("!hiq", 2, 8, new) + struct.pack("!i", 4) + b"none"
        limited = raw.ask(bind("", "s", (b"301", b"4")), execute("", 1), SYNC)
        assert kinds(limited) == "2EZ" or kinds(limited).replace("N", "") == "2DCZ"


def test_partitions(app):
    run(app, "INSERT INTO parted SELECT g, g % 20, 'v' || g FROM generate_series(1, 60) g")
    assert run(app, "UPDATE parted SET id = id + 1000, k = (k + 10) % 20") == "UPDATE 60"
    assert fetch(app, "SELECT id, k, v FROM parted ORDER BY id") == [(g + 1000, (g + 10) % 20, f"v{g}") for g in range(1, 61)]
    assert in_place(app, "parted", "id", range(1001, 1061))


def test_lists(app):
    run(app, "INSERT INTO town VALUES ('de', 'Ulm'), ('us', 'Waco')")
    assert run(app, "UPDATE town SET region = CASE region WHEN 'de' THEN 'us' ELSE 'at' END") == "UPDATE 2"
    assert fetch(app, "SELECT name FROM town WHERE region = 'us'") == [("Ulm",)]
    with refused("23514", "in no list"):
        run(app, "UPDATE town SET region = region || 'x'")
    with refused("23514", "in no list"):
        run(app, "INSERT INTO town SELECT lower(name), name FROM town")


@pytest.mark.parametrize("setup, sql, message", [
    ("INSERT INTO parent VALUES (1), (2), (3), (4)", "UPDATE parent SET id = id + 100", "together with those of"),
    ("INSERT INTO heir VALUES (1), (2), (3), (4)", "UPDATE heir SET id = id + 100", "inheritance children"),
    ("INSERT INTO firm VALUES (1)", "UPDATE firm SET id = (random() * 1e6)::int", "would move the row"),
    ("INSERT INTO firm VALUES (1)", "WITH x AS (SELECT 1) UPDATE firm SET id = id + 100", "would move the row"),
    ("INSERT INTO firm VALUES (1)", "UPDATE firm SET id = id + 100 WHERE id < (SELECT max(id) FROM firm)", "would move the row"),
    ("INSERT INTO firm VALUES (1)",
     "INSERT INTO firm VALUES (1) ON CONFLICT (id) DO UPDATE SET id = firm.id + 1", "would move the row"),
    ("INSERT INTO acc (id) VALUES (300)", "UPDATE entry e SET account = a.id + 1 FROM acc a WHERE a.id = e.account"
     " RETURNING a.id", "would move the row"),
])
def test_what_is_refused(cluster, app, setup, sql, message):
    run(app, setup)
    before = [everywhere(cluster, f"SELECT * FROM {table}") for table in ("parent", "heir", "firm")]
    with refused("0A000", message):
        run(app, sql)
    assert before == [everywhere(cluster, f"SELECT * FROM {table}") for table in ("parent", "heir", "firm")]


# ---- rows that a query inserts ----

def test_rows_of_any_query(cluster, app):
    assert run(app, "INSERT INTO archive (nr, account, note) SELECT nr, account, note FROM entry") == "INSERT 0 60"
    assert in_place(app, "archive", "nr", range(60))
    assert fetch(app, "SELECT count(*), sum(account) FROM archive") == fetch(app, "SELECT count(*), sum(account) FROM entry")
    run(app, "DELETE FROM archive")
    cursor = app.cursor()
    cursor.execute("INSERT INTO archive SELECT row_number() OVER (ORDER BY account DESC), account, max(note), 1.005"
                   " FROM entry GROUP BY account RETURNING nr, account, big::text")
    assert cursor.statusmessage == "INSERT 0 20" and sorted(cursor.fetchall())[:2] == [(1, 20, "1.01"), (2, 19, "1.01")]


def test_rows_that_keep_their_key_stay_on_their_shard(app):
    plan = explain(app, "INSERT INTO firm SELECT id, name FROM acc WHERE n > 3")
    assert "scatter write" in plan and "keep their shard key" in plan
    assert run(app, "INSERT INTO firm SELECT id, name FROM acc WHERE n > 3 ON CONFLICT DO NOTHING") == "INSERT 0 17"
    plan = explain(app, "INSERT INTO archive SELECT nr FROM acc")
    assert "rows from shard to shard" in plan and "by key: insert into archive values ..." in plan


def test_conflicts(app):
    run(app, "INSERT INTO archive (nr, note) SELECT g, 'old' FROM generate_series(1, 10) g")
    cursor = app.cursor()
    cursor.execute("INSERT INTO archive (nr, note) SELECT id, name FROM acc ON CONFLICT (nr) DO NOTHING RETURNING nr")
    assert cursor.statusmessage == "INSERT 0 10" and sorted(cursor.fetchall()) == [(i,) for i in range(11, 21)]
    cursor.execute("INSERT INTO archive AS a (nr, note) SELECT nr % 30, 'n' FROM (SELECT DISTINCT nr % 30 AS nr FROM entry) x"
                   " ON CONFLICT (nr) DO UPDATE SET note = a.note || excluded.note WHERE a.nr > 5 RETURNING a.nr, a.note")
    assert cursor.statusmessage == f"INSERT 0 {10 + 15}"
    assert fetch(app, "SELECT note FROM archive WHERE nr IN (3, 8, 15, 25) ORDER BY nr") == [("old",), ("oldn",), ("nonen",), ("n",)]
    with refused("21000"):
        run(app, "INSERT INTO archive (nr, note) SELECT nr % 2, 'n' FROM entry ON CONFLICT (nr) DO UPDATE SET note = 'x'")
    with refused("54000", "more than it can have parameters for"):
        run(app, "INSERT INTO archive (nr, note) SELECT g, 'n' FROM generate_series(1, 80000) g"
                 " ON CONFLICT (nr) DO UPDATE SET note = 'x'")
    with refused("23505", hint=False):
        run(app, "INSERT INTO archive (nr, note) SELECT nr, 'n' FROM entry")
    assert one(app, "SELECT count(*) FROM archive") == 30


def test_many_rows(app):
    """More than one part of a portal, more than one INSERT, and wide ones."""
    assert run(app, "INSERT INTO archive (nr, note) SELECT g, repeat('x', g % 3000) FROM generate_series(1, 20000) g") == "INSERT 0 20000"
    assert fetch(app, "SELECT count(*), sum(nr), sum(length(note)) FROM archive") == [
        (20000, 200010000, sum(g % 3000 for g in range(1, 20001)))]
    assert run(app, "INSERT INTO firm SELECT nr + 1, note FROM archive ORDER BY nr DESC LIMIT 15000") == "INSERT 0 15000"
    assert run(app, "UPDATE firm SET id = -id") == "UPDATE 15000"
    assert fetch(app, "SELECT count(*), min(id), max(id), count(DISTINCT id) FROM firm") == [(15000, -20001, -5002, 15000)]
    assert in_place(app, "firm", "id", [-20001, -20000, -10001, -5002])


def test_sequences_and_values_that_a_server_computes(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO firm VALUES (nextval('firm_ids'), 'a'), (nextval('firm_ids'), 'b') RETURNING id")
    first = sorted(row[0] for row in cursor.fetchall())
    assert first[1] == first[0] + 1
    run(app, "INSERT INTO firm SELECT nextval('firm_ids'), name FROM acc")
    run(app, "BEGIN")
    run(app, "UPDATE acc SET n = 1 WHERE id IN (1, 2, 3, 4, 5)")
    run(app, "INSERT INTO firm VALUES (nextval('firm_ids'), 'z')")
    run(app, "COMMIT")
    assert fetch(app, "SELECT count(DISTINCT id), max(id) - min(id) FROM firm") == [(23, 22)]
    assert in_place(app, "firm", "id", range(first[0], first[0] + 23))


def test_in_a_transaction_with_its_own_changes(cluster, app):
    run(app, "BEGIN")
    run(app, "UPDATE acc SET n = n + 100 WHERE id < 3")
    assert run(app, "INSERT INTO archive (nr, account) SELECT n, sum(id) FROM acc GROUP BY n HAVING n > 100") == "INSERT 0 2"
    assert run(app, "INSERT INTO archive (nr, account) SELECT n + 1000, sum(id) FROM acc GROUP BY n HAVING n > 100") == "INSERT 0 2"
    assert fetch(app, "SELECT nr, account FROM archive ORDER BY nr") == [(101, 1), (102, 2), (1101, 1), (1102, 2)]
    assert fetch(app, "SELECT count(*) FROM acc") == [(20,)]
    run(app, "COMMIT")
    assert everywhere(cluster, "SELECT nr, account FROM archive") == [(101, 1), (102, 2), (1101, 1), (1102, 2)]


def test_reference_tables_get_the_rows_everywhere(cluster, app):
    cursor = app.cursor()
    cursor.execute("INSERT INTO rate SELECT 'r' || id, n / 3.0 FROM acc RETURNING code")
    assert cursor.statusmessage == "INSERT 0 20" and len(cursor.fetchall()) == 20
    run(app, "INSERT INTO note VALUES (1, 'x')")
    assert run(app, "INSERT INTO rate SELECT body, random() FROM note ON CONFLICT DO NOTHING") == "INSERT 0 1"
    copies = [sorted(node.sql("SELECT code, value FROM rate")) for node in cluster.primaries]
    assert len(copies[0]) == 21 and copies[0] == copies[1]


def test_rows_taken_from_one_shard(cluster, app):
    """A change inside WITH is made where its rows are; what it gives goes where the keys say."""
    assert run(app, "WITH gone AS (DELETE FROM entry WHERE account = 4 RETURNING *)"
                    " INSERT INTO archive (nr, account, note) SELECT nr, account, note FROM gone") == "INSERT 0 3"
    assert one(app, "SELECT count(*) FROM entry") == 57 and one(app, "SELECT count(*) FROM archive") == 3
    with refused("0A000"):
        run(app, "WITH gone AS (DELETE FROM entry RETURNING *), went AS (DELETE FROM archive RETURNING *)"
                 " INSERT INTO archive (nr) SELECT nr FROM gone")


def test_insert_with_parameters(proxy, app):
    with proxy.connect3(prepare_threshold=1) as connection:
        for start in (100, 200, 300):
            done = connection.execute("INSERT INTO archive (nr, account, note) SELECT nr + %s, %s, %s FROM entry WHERE nr < %s"
                                      " ON CONFLICT (nr) DO UPDATE SET note = %s RETURNING nr",
                                      (start, start, "a", 10, "b"))
            assert sorted(done.fetchall()) == [(start + nr,) for nr in range(10)]
        assert connection.execute("SELECT DISTINCT account, note FROM archive ORDER BY 1").fetchall() == [
            (100, "a"), (200, "a"), (300, "a")]
        connection.rollback()
    with Raw(proxy, database="app") as raw:
        sql = "INSERT INTO firm SELECT $1, name FROM acc WHERE id < 3"
        first = raw.ask(parse("s", sql), describe("S", "s"), SYNC)
        assert [body for kind, body in first if kind == "t"] == [struct.pack("!HI", 1, 20)] and kinds(first) == "1tnZ"
        answer = raw.ask(bind("", "s", (struct.pack("!q", 7),), (1,)), execute(""), SYNC)
        assert [fields(body)["C"] for kind, body in answer if kind == "E"] == ["23505"]


def test_errors_are_the_servers_own(app):
    for sql, state in (("INSERT INTO archive (nr, big) SELECT id, name FROM acc WHERE false", "42804"),
                       ("INSERT INTO archive (nr, note) SELECT id FROM acc", "42601"),
                       ("INSERT INTO acc (id, name) SELECT n + 100, repeat('x', 30) FROM acc", "22001"),
                       ("INSERT INTO acc (id, nr) SELECT n + 100, 5 FROM acc", "428C9"),
                       ("INSERT INTO archive (nr) SELECT 1 / (n - 5) FROM acc", "22012"),
                       ("INSERT INTO archive (nr) SELECT n FROM nowhere", "42P01")):
        with refused(state, hint=False):
            run(app, sql)
    assert one(app, "SELECT count(*) FROM archive") == 0
    assert run(app, "INSERT INTO acc (id, nr) OVERRIDING SYSTEM VALUE SELECT n + 100, 5 FROM acc") == "INSERT 0 20"
    with refused("0A000", "of a type whose shard is not known"):
        run(app, "INSERT INTO archive (nr) SELECT n + 0.5 FROM acc")


def test_too_many_rows(cluster, proxy, app):
    with Proxy(cluster, keyspaces=KEYSPACES, reference=["rate"], options={"limits": {"max_gather": "300B"}}) as small:
        small.wait_nodes()
        with closing(small.connect()) as connection:
            with refused("53400", "limits.max_gather"):
                run(connection, "INSERT INTO archive (nr) SELECT row_number() OVER (ORDER BY account, note) FROM entry")
            with refused("53400", "limits.max_gather"):
                run(connection, "UPDATE entry SET account = account % 5 + 1")
    assert one(app, "SELECT count(*) FROM archive") == 0


# ---- UPDATE and DELETE that read rows of other shards ----

def test_rows_of_other_shards_decide(cluster, app):
    run(app, "INSERT INTO archive (nr, account, note) SELECT nr, account, note FROM entry")
    assert run(app, "UPDATE archive a SET note = e.note || '+', big = e.nr + 0.5 FROM entry e"
                    " WHERE e.nr = a.nr AND e.account < 6") == "UPDATE 15"
    assert fetch(app, "SELECT count(*), sum(big - nr) FROM archive WHERE note LIKE '%+'") == [(15, 7.5)]
    assert run(app, "DELETE FROM archive WHERE nr IN (SELECT nr FROM archive ORDER BY nr DESC LIMIT 20)") == "DELETE 20"
    assert fetch(app, "SELECT max(nr), count(*) FROM archive") == [(39, 40)]
    assert run(app, "WITH old AS (SELECT account, max(nr) AS nr FROM entry GROUP BY account)"
                    " DELETE FROM archive USING old WHERE old.nr - 40 = archive.nr") == "DELETE 20"
    run(app, "INSERT INTO note VALUES (25, 'x'), (26, 'y')")
    assert run(app, "UPDATE archive SET note = (SELECT body FROM note WHERE id = nr) WHERE nr IN (SELECT id FROM note)") == "UPDATE 2"
    assert fetch(app, "SELECT nr, note FROM archive WHERE nr IN (25, 26) ORDER BY nr") == [(25, "x"), (26, "y")]
    assert in_place(app, "archive", "nr", range(20, 40))


def test_of_partitions(app):
    run(app, "INSERT INTO parted SELECT g, g % 20, 'v' || g FROM generate_series(1, 60) g")
    assert run(app, "UPDATE parted p SET v = v || e.note, k = (k + 10) % 20 FROM entry e WHERE e.nr = p.id") == "UPDATE 59"
    assert run(app, "DELETE FROM parted WHERE id > (SELECT avg(id) FROM parted)") == "DELETE 30"
    assert fetch(app, "SELECT id, k, v FROM parted ORDER BY id") == [(g, (g + 10) % 20, f"v{g}e{g}") for g in range(1, 31)]


def test_in_a_transaction_that_reads_and_writes_apart(cluster, app):
    run(app, "INSERT INTO archive (nr) SELECT g FROM generate_series(1, 3000) g")
    run(app, "BEGIN")
    run(app, "UPDATE entry SET note = 'mine' WHERE account IN (1, 2)")
    assert run(app, "UPDATE archive SET note = e.note FROM entry e WHERE e.nr = archive.nr AND e.note = 'mine'") == "UPDATE 5"
    assert run(app, "DELETE FROM archive WHERE nr > (SELECT count(*) FROM archive) / 2") == "DELETE 1500"
    assert fetch(app, "SELECT count(*), max(nr) FROM archive") == [(1500, 1500)]
    run(app, "SAVEPOINT s")
    assert run(app, "DELETE FROM archive WHERE nr NOT IN (SELECT nr FROM entry)") == "DELETE 1441"
    run(app, "ROLLBACK TO s")
    run(app, "COMMIT")
    assert sum(node.value("SELECT count(*) FROM archive") for node in cluster.primaries) == 1500


def test_apart_with_parameters(proxy, app):
    run(app, "INSERT INTO archive (nr) SELECT nr FROM entry")
    with proxy.connect3(prepare_threshold=1) as connection:
        for number in (1, 2, 3):
            done = connection.execute("UPDATE archive SET note = %s, account = (SELECT count(*) FROM entry WHERE nr > %s)"
                                      " WHERE nr IN (SELECT nr FROM entry WHERE account = %s) RETURNING account, note",
                                      (f"p{number}", 9, number))
            assert done.fetchall() == [(50, f"p{number}")] * 3
        connection.rollback()


def test_what_is_refused_apart(cluster, app):
    for sql, message in (
            ("DELETE FROM entry e USING acc a WHERE a.n = e.nr RETURNING e.nr, a.id", "join of sharded tables"),
            ("UPDATE acc SET tint = (SELECT max(tint) FROM acc a)", "type that users made"),
            ("UPDATE acc SET (n, name) = (SELECT count(*), 'x' FROM entry)", "subquery"),
            ("DELETE FROM archive a WHERE a::text IN (SELECT note FROM entry)", "subquery"),
            ("MERGE INTO archive a USING entry e ON a.nr > e.nr WHEN MATCHED THEN DELETE", "merge into sharded")):
        with refused("0A000", message):
            run(app, sql)


def test_a_row_that_is_kept_back(cluster, app):
    """What was found to be changed and was not: nothing is."""
    run(app, "INSERT INTO archive (nr) SELECT nr FROM entry")
    for node in cluster.primaries:
        node.sql("CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN CASE WHEN OLD.nr <> 7 THEN OLD END; END$$")
        node.sql("CREATE TRIGGER keep BEFORE DELETE ON archive FOR EACH ROW EXECUTE FUNCTION keep()")
    try:
        with refused("40001", "kept back"):
            run(app, "DELETE FROM archive WHERE nr IN (SELECT nr FROM entry)")
        with refused("27000", "kept back"):
            run(app, "UPDATE archive SET nr = nr + 1000")
        assert one(app, "SELECT count(*) FROM archive") == 60
    finally:
        for node in cluster.primaries:
            node.sql("DROP TRIGGER keep ON archive")
            node.sql("DROP FUNCTION keep")


def test_rows_of_children_are_not_taken_for_others(cluster, app):
    """Rows of two tables of a shard have the same places in them."""
    run(app, "INSERT INTO heir SELECT g, 'own' FROM generate_series(1, 10) g")
    assert run(app, "UPDATE heir SET v = 'x' || e.nr FROM entry e WHERE e.nr = heir.id AND heir.v = 'own'") == "UPDATE 10"
    for node in cluster.primaries:
        node.sql("INSERT INTO heir_more SELECT id, 'child', '' FROM ONLY heir")
    before = everywhere(cluster, "SELECT id, v FROM heir")
    with refused("40001"):
        run(app, "UPDATE heir SET v = 'y' FROM entry e WHERE e.nr = heir.id AND heir.v = 'child'")
    with refused("40001"):
        run(app, "DELETE FROM heir WHERE v = 'child' AND id IN (SELECT nr FROM entry)")
    assert before == everywhere(cluster, "SELECT id, v FROM heir")


def test_apart_explained(app):
    plan = explain(app, "UPDATE acc SET n = e.nr FROM entry e WHERE e.nr = acc.n")
    assert "rows from shard to shard" in plan and "pgshunt_row" in plan and "join of sharded tables" in plan


def test_a_sequence_of_messages(proxy, app):
    """The answers of a batch come in order, and the connection is usable behind a failure."""
    with Raw(proxy, database="app") as raw:
        answer = raw.ask(query("INSERT INTO firm SELECT n, 'x' FROM acc; UPDATE firm SET id = id + 70; SELECT count(*) FROM firm"))
        assert kinds(answer).replace("N", "") == "CCTDCZ"
        answer = raw.ask(parse("", "INSERT INTO firm SELECT id + 1000, 'y' FROM acc"), bind("", ""), execute(""),
                         parse("", "UPDATE firm SET id = NULL"), bind("", ""), execute(""), SYNC)
        assert kinds(answer) == "12C12EZ"
        assert ("D", b"\0\1\0\0\0\00220") in raw.ask(query("SELECT count(*) FROM firm"))
