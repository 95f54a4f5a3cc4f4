"""What a guard refuses in a transaction is asked again under a newer map, as long as the client has heard of nothing that could differ."""
import struct
from contextlib import closing

import pytest

from catalog_support import epoch
from epoch_support import CARRIED, KEYSPACES, WRITTEN, guard, guard_function, guarded, raise_epoch, wait_carried
from harness import Proxy, wait_until
from support import FLUSH, SYNC, Raw, bind, close, describe, error_of, execute, kinds, message, one, parse, query, refused, rows

pytestmark = pytest.mark.core

ADDED = "UPDATE users SET n = n + 10 WHERE id = 3"
ELSEWHERE = "UPDATE users SET n = n + 100 WHERE id = {}"


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)")
        proxy.sql("CREATE TABLE plain (n int)")
        proxy.sql("INSERT INTO plain VALUES (0)")
        for node in cluster.primaries:
            node.sql("CREATE SCHEMA IF NOT EXISTS pgshunt")
            node.sql(guard_function())
        proxy.sql("INSERT INTO users VALUES (3)")
        yield proxy
        proxy.sql("DROP TABLE users")
        proxy.sql("DROP TABLE plain")


def has(node, key):
    return node.value(f"SELECT count(*) FROM users WHERE id = {key}")


@pytest.fixture
def source(proxy, cluster):
    """The shard that has the row; without guards afterwards."""
    node = cluster.primaries[0]
    wait_until(lambda: proxy.value(CARRIED) == str(epoch(node)), 10.0, "the newest map")
    proxy.sql("UPDATE users SET n = 0 WHERE id = 3")
    yield next(one for one in cluster.primaries if has(one, 3))
    for one_node in cluster.primaries:
        one_node.sql("DROP TRIGGER IF EXISTS pgshunt_guard_1 ON users")


def run(sql, statement="", portal=""):
    return parse(statement, sql) + bind(portal, statement) + execute(portal)


BEGIN, SAVEPOINT, SET = run("BEGIN"), run("SAVEPOINT s"), run("SET LOCAL work_mem = '3MB'")
WRITES = run(WRITTEN)

# What is asked before, what the guard meets, how it is answered, what stays of it after a COMMIT.
EXTENDED = {
    "begin with it": ([], BEGIN + WRITES, "12C12DCZ", 1),
    "begin described": ([], BEGIN + parse("", WRITTEN) + bind("", "") + describe("P", "") + execute(), "12C12TDCZ", 1),
    "begin by a name": ([], run("BEGIN", "b", "p") + parse("", WRITTEN) + describe("S", "") + bind("", "") + execute(),
                        "12C1tT2DCZ", 1),
    "begin and a savepoint": ([], BEGIN + SAVEPOINT + WRITES, "12C12C12DCZ", 1),
    "begin and a setting": ([], BEGIN + SET + WRITES, "12C12C12DCZ", 1),
    "begin to commit": ([], BEGIN + WRITES + run("COMMIT"), "12C12DC12CZ", 1),
    "begin and two": ([], BEGIN + WRITES + run(ADDED), "12C12DC12CZ", 11),
    "begin and the second": ([], BEGIN + run(CARRIED) + WRITES, "12C12DC12DCZ", 1),
    "isolation": ([], run("BEGIN ISOLATION LEVEL REPEATABLE READ") + WRITES, "12C12DCZ", 1),
    "isolation said later": ([BEGIN], run("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE") + WRITES, "12C12DCZ", 1),
    "first of two": ([BEGIN], WRITES + run(ADDED), "12DC12CZ", 11),
    "second of its batch": ([BEGIN], run(CARRIED) + WRITES, "12DC12DCZ", 1),
    "setting": ([BEGIN, SET], WRITES, "12DCZ", 1),
    "setting in its batch": ([BEGIN], SET + WRITES, "12C12DCZ", 1),
    "settings": ([BEGIN, SET, run("SET search_path = public, pg_temp")], WRITES, "12DCZ", 1),
    "savepoint": ([BEGIN, SAVEPOINT], WRITES, "12DCZ", 1),
    "savepoints among settings": ([BEGIN, SET, SAVEPOINT, run("SET LOCAL work_mem = '4MB'"), run("SAVEPOINT t")], WRITES, "12DCZ", 1),
    "one let go": ([BEGIN, SET, SAVEPOINT, run("RELEASE s")], WRITES, "12DCZ", 1),
    "described before": ([BEGIN, parse("s", WRITTEN) + describe("S", "s")], bind("", "s") + execute(), "2DCZ", 1),
    "described without a name": ([BEGIN, parse("", WRITTEN) + describe("S", "")], bind("", "") + execute(), "2DCZ", 1),
    "parsed before": ([BEGIN, parse("s", WRITTEN)], bind("", "s") + describe("P", "") + execute(), "2TDCZ", 1),
    "parsed ahead of the block": ([parse("s", WRITTEN), BEGIN], bind("", "s") + execute(), "2DCZ", 1),
    "parsed ahead, with its begin": ([parse("s", WRITTEN), run("SET work_mem = '5MB'")], BEGIN + bind("", "s") + execute(),
                                     "12C2DCZ", 1),
    "closed after use": ([parse("s", CARRIED), BEGIN], bind("", "s") + execute() + close("S", "s") + WRITES, "2DC312DCZ", 1),
    "closed and made anew": ([parse("s", CARRIED), BEGIN], bind("", "s") + execute() + close("S", "s") + run(WRITTEN, "s"),
                             "2DC312DCZ", 1),
    "unnamed used and made anew": ([parse("", CARRIED), BEGIN + parse("", CARRIED)], bind("", "") + execute() + WRITES,
                                   "2DC12DCZ", 1),
    "alone": ([], WRITES, "12DCZ", 1),
    "two alone": ([], WRITES + run(ADDED), "12DC12CZ", 11),
    "second alone": ([], run(CARRIED) + WRITES, "12DC12DCZ", 1),
    "prepared alone, other settings": ([parse("s", WRITTEN), run("SET work_mem = '5MB'")], bind("", "s") + execute(), "2DCZ", 1),
    "on all shards": ([], run("UPDATE users SET n = n + 1"), "12CZ", 1),
    "on all shards in a block": ([BEGIN], run("UPDATE users SET n = n + 1"), "12CZ", 1),
    "on all shards with its begin": ([], BEGIN + run("UPDATE users SET n = n + 1"), "12C12CZ", 1),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_batch_begins_again(proxy, cluster, source, name):
    before, batch, answers, written = EXTENDED[name]
    with Raw(proxy) as raw:
        with guarded(proxy, cluster, source) as (after, waited):
            for earlier in before:
                assert not error_of(raw.ask(earlier, SYNC))
            found = raw.ask(batch, SYNC)
            assert kinds(found) == answers, (error_of(found), found)
            assert waited, "it was never refused"
            if found[-1][1] == b"T":
                assert source.value("SELECT n FROM users WHERE id = 3") == 0, "it is not committed"
            if "REPEATABLE" in str(batch):
                assert rows(raw.ask(query("SHOW transaction_isolation"))) == [[b"repeatable read"]]
            if "SERIALIZABLE" in str(batch):
                assert rows(raw.ask(query("SHOW transaction_isolation"))) == [[b"serializable"]]
            if found[-1][1] == b"T":
                assert rows(raw.ask(run(CARRIED), SYNC)) == [[str(after).encode()]]
                assert kinds(raw.ask(query("COMMIT"))) == "CZ"
        assert source.value("SELECT n FROM users WHERE id = 3") == written
        assert kinds(raw.ask(run(CARRIED), SYNC)) == "12DCZ"


SIMPLE = {
    "begin with it": ([], f"BEGIN; {WRITTEN}", "CTDCZ", 1),
    "begin and a setting": ([], f"BEGIN; SET LOCAL work_mem = '3MB'; {WRITTEN}", "CCTDCZ", 1),
    "begin and a savepoint": ([], f"BEGIN; SAVEPOINT s; {WRITTEN}", "CCTDCZ", 1),
    "begin and two": ([], f"BEGIN; {WRITTEN}; {ADDED}", "CTDCCZ", 11),
    "begin to commit": ([], f"BEGIN; {WRITTEN}; COMMIT", "CTDCCZ", 1),
    "two alone": ([], f"{WRITTEN}; {ADDED}", "TDCCZ", 11),
    "setting": (["BEGIN", "SET LOCAL work_mem = '3MB'"], WRITTEN, "TDCZ", 1),
    "savepoint": (["BEGIN", "SAVEPOINT s"], WRITTEN, "TDCZ", 1),
    "savepoint behind a setting": (["BEGIN; SET LOCAL work_mem = '3MB'", "SAVEPOINT s"], WRITTEN, "TDCZ", 1),
    "two": (["BEGIN"], f"{ADDED}; {WRITTEN}", "CTDCZ", 11),
    "setting with it": (["BEGIN"], f"SET LOCAL work_mem = '3MB'; {WRITTEN}", "CTDCZ", 1),
    "executed": ([f"PREPARE e AS {WRITTEN}", "BEGIN"], "EXECUTE e", "TDCZ", 1),
    "on all shards": ([], "UPDATE users SET n = n + 1", "CZ", 1),
    "on all shards in a block": (["BEGIN"], "UPDATE users SET n = n + 1", "CZ", 1),
    "on all shards behind a setting": (["BEGIN", "SET LOCAL work_mem = '3MB'"], "UPDATE users SET n = n + 1", "CZ", 1),
    "chained": (["BEGIN", "SELECT 1", "COMMIT AND CHAIN"], WRITTEN, "TDCZ", 1),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_query_begins_again(proxy, cluster, source, name):
    before, sql, answers, written = SIMPLE[name]
    with Raw(proxy) as raw:
        with guarded(proxy, cluster, source) as (after, waited):
            for earlier in before:
                assert not error_of(raw.ask(query(earlier)))
            found = raw.ask(query(sql))
            assert kinds(found) == answers, (error_of(found), found)
            assert waited, "it was never refused"
            if found[-1][1] == b"T":
                assert source.value("SELECT n FROM users WHERE id = 3") == 0, "it is not committed"
                if any("work_mem" in text for text in [*before, sql]):
                    assert rows(raw.ask(query("SHOW work_mem"))) == [[b"3MB"]]
                if any("SAVEPOINT" in text for text in [*before, sql]):
                    assert kinds(raw.ask(query("RELEASE s"))) == "CZ", "the savepoint is there once"
                    raw.ask(query("SAVEPOINT s"))
                assert kinds(raw.ask(query("COMMIT"))) == "CZ"
        assert source.value("SELECT n FROM users WHERE id = 3") == written
        assert rows(raw.ask(query(CARRIED))) == [[str(after).encode()]]


def test_undone_up_to_a_savepoint(proxy, cluster, source):
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        with guarded(proxy, cluster, source) as (_, waited):
            cursor.execute("BEGIN")
            cursor.execute("SAVEPOINT s")
            assert one(connection, WRITTEN) and waited
        cursor.execute("ROLLBACK TO s")
        cursor.execute(ADDED)
        cursor.execute("COMMIT")
    assert source.value("SELECT n FROM users WHERE id = 3") == 10


def test_setting_went_to_another_shard(proxy, cluster, source):
    """The block has begun on a shard that has nothing to do with it: all of its servers are given up."""
    key = next(key for key in range(4, 200) if one_shard(proxy, key) != one_shard(proxy, 3))
    proxy.sql(f"INSERT INTO users VALUES ({key}, 0)")
    there = next(node for node in cluster.primaries if has(node, key))
    try:
        for node, wanted in ((there, key), (source, 3)):
            with closing(proxy.connect()) as connection, connection.cursor() as cursor:
                with guarded(proxy, cluster, node) as (_, waited):
                    cursor.execute("BEGIN")
                    cursor.execute("SET LOCAL work_mem = '3MB'")
                    cursor.execute(ELSEWHERE.format(wanted))
                    assert waited
                    assert one(connection, "SHOW work_mem") == "3MB"
                    cursor.execute("COMMIT")
                assert node.value(f"SELECT n FROM users WHERE id = {wanted}") == 100
                node.sql("DROP TRIGGER pgshunt_guard_1 ON users")
        for node in cluster.primaries:
            assert node.value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == 0
    finally:
        proxy.sql(f"DELETE FROM users WHERE id = {key}")


def one_shard(proxy, key):
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN SELECT n FROM users WHERE id = {key}")
        return next(row[0] for row in cursor.fetchall() if "shard" in row[0].lower())


CANNOT = {
    "has read": ([BEGIN, run(CARRIED)], WRITES),
    "has read a part": ([BEGIN, parse("", "SELECT n FROM users WHERE id = 3 UNION ALL SELECT 1") + bind("p", "") + execute("p", 1)],
                        WRITES),
    "has failed once": ([BEGIN, SAVEPOINT, run("SELECT 1/0 FROM users WHERE id = 3"), run("ROLLBACK TO s")], WRITES),
    "open portal": ([BEGIN, parse("", "SET LOCAL work_mem = '3MB'") + bind("p", "")], WRITES),
    "long": ([BEGIN], run(f"/* {'x' * 20000} */ {WRITTEN}")),
    "let go in its batch": ([BEGIN, SET, SAVEPOINT], run("RELEASE s") + WRITES),
    "pinned": ([run("CREATE TEMP TABLE mine (n int)"), BEGIN], WRITES),
    "committed before": ([], BEGIN + run("UPDATE plain SET n = n + 1") + run("COMMIT") + WRITES),
}


@pytest.mark.parametrize("name", CANNOT)
def test_cannot_begin_again(proxy, cluster, source, name):
    """What the client has heard, or has committed, is not done twice: it is told to run the transaction again."""
    before, batch = CANNOT[name]
    with Raw(proxy) as raw:
        with guarded(proxy, cluster, source) as (after, waited):
            for earlier in before:
                raw.ask(earlier, SYNC)
            found = raw.ask(batch, SYNC)
            told = error_of(found)
            if name == "pinned" and not has_pin(source):
                assert not told  # its pin is on another shard
            else:
                assert told["C"] == "40001" and kinds(found).count("E") == 1 and not waited, found
            raw.ask(query("ROLLBACK"))
        assert rows(raw.ask(WRITES, SYNC)) == [[str(after).encode()]]
        raw.ask(query("DROP TABLE IF EXISTS mine"))
    assert cluster.primaries[0].value("SELECT n FROM plain") == (1 if name == "committed before" else 0)
    proxy.sql("UPDATE plain SET n = 0")


def test_function_call_was_heard_of(proxy, cluster, source):
    """abs(-4), by its number: only the server can have answered that."""
    call = message(b"F", struct.pack("!IHHHiiH", 1397, 1, 1, 1, 4, -4, 1))
    with Raw(proxy) as raw:
        with guarded(proxy, cluster, source) as (_, waited):
            raw.ask(query("BEGIN"))
            assert kinds(raw.ask(call)) == "VZ"
            assert error_of(raw.ask(query(WRITTEN)))["C"] == "40001" and not waited
            raw.ask(query("ROLLBACK"))


def has_pin(source):
    return source.value("SELECT count(*) FROM pg_class WHERE relname = 'mine'")


@pytest.mark.parametrize("begin", ["", "BEGIN; "])
def test_committed_once(proxy, cluster, source, begin):
    """A Query that has committed something before the guard refuses is not asked twice."""
    if source is not cluster.primaries[0]:
        pytest.skip("the unsharded table is on another shard")
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        with guarded(proxy, cluster, source) as (_, waited):
            with refused("40001", "moved to another shard"):
                cursor.execute(f"{begin}UPDATE plain SET n = n + 1; COMMIT; {WRITTEN}")
            assert not waited
    assert proxy.value("SELECT n FROM plain") == 1
    proxy.sql("UPDATE plain SET n = 0")


def test_answers_of_our_own_by_a_flush(proxy, cluster, source):
    """A Flush is answered, whatever stands in front: here settings, and a statement that the server knows already."""
    with Raw(proxy) as first, Raw(proxy) as raw:
        first.ask(parse("s", CARRIED), describe("S", "s"), SYNC)
        raw.ask(run("SET work_mem = '6MB'"), SYNC)
        raw.send(parse("s", CARRIED), FLUSH)
        assert raw.read()[0] == "1"
        raw.send(describe("S", "s"), FLUSH)
        assert [raw.read()[0] for _ in range(2)] == ["t", "T"]
        raw.send(bind("", "s"), FLUSH)
        assert raw.read()[0] == "2"
        assert kinds(raw.ask(execute(), SYNC)) == "DCZ"


def test_driver_in_a_pipeline(proxy, cluster, source):
    with proxy.connect3(autocommit=False) as connection:
        with guarded(proxy, cluster, source) as (after, waited):
            with connection.pipeline():
                written = connection.execute(WRITTEN)
                connection.execute(ADDED)
                assert written.fetchone()[0] == str(after)
            assert waited
            connection.commit()
    assert source.value("SELECT n FROM users WHERE id = 3") == 11


@pytest.mark.parametrize("prepare", [False, True])
def test_driver_prepares_in_the_block(proxy, cluster, source, prepare):
    with proxy.connect3(autocommit=False) as connection:
        with guarded(proxy, cluster, source) as (after, waited):
            found = connection.execute(WRITTEN.replace("3", "%s"), (3,), prepare=prepare).fetchone()
            assert found[0] == str(after) and waited
            connection.commit()
    assert source.value("SELECT n FROM users WHERE id = 3") == 1


@pytest.fixture
def left_behind(proxy, cluster):
    """The proxy cannot say that it is there: a switch would not wait for it, and it has to count on guards."""
    home = cluster.primaries[0]
    home.sql("ALTER TABLE pgshunt.proxy RENAME TO proxy_away")
    wait_carried(proxy, raise_epoch(cluster))
    yield
    home.sql("ALTER TABLE pgshunt.proxy_away RENAME TO proxy")


READ = run("SELECT n FROM users WHERE id = 3")
BEHIND = {
    "alone": ([], [WRITES, run(ADDED), READ], ["12DCZ", "12CZ", "12DCZ"], 11),
    "a read behind it": ([], [WRITES, READ, READ], ["12DCZ", "12DCZ", "12DCZ"], 1),
    "in a block": ([BEGIN], [WRITES, run(ADDED), READ], ["12DCZ", "12CZ", "12DCZ"], 11),
    "with its begin": ([], [BEGIN, WRITES, READ, run("COMMIT")], ["12CZ", "12DCZ", "12DCZ", "12CZ"], 1),
}


@pytest.mark.parametrize("name", BEHIND)
def test_batches_behind_wait(proxy, cluster, source, left_behind, name):
    """What stands behind a refused batch has not run before it."""
    before, batches, answers, written = BEHIND[name]
    with Raw(proxy) as raw:
        with guarded(proxy, cluster, source) as (_, waited):
            for batch in before:
                assert not error_of(raw.ask(batch, SYNC))
            raw.send(*[batch + SYNC for batch in batches])
            found = [raw.until_ready() for _ in batches]
            assert [kinds(one_of) for one_of in found] == answers, found
            assert waited
            read = next(one_of for batch, one_of in reversed(list(zip(batches, found))) if batch == READ)
            assert rows(read) == [[str(written).encode()]], "it has seen what was written before"
            raw.ask(query("COMMIT"))
        assert source.value("SELECT n FROM users WHERE id = 3") == written
