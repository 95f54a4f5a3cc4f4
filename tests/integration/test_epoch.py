"""Server connections carry the number of the map (pgshunt.epoch); what a guard refuses is asked again under a newer one."""
import struct
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from catalog_support import catalog, epoch
from epoch_support import CARRIED, KEYSPACES, WRITTEN, guard, guard_function, raise_epoch, wait_carried
from harness import Proxy, wait_until
from support import FLUSH, SYNC, Raw, bind, close, describe, error_of, execute, kinds, one, parse, query, refused, rows

pytestmark = pytest.mark.core

@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)")
        for node in cluster.primaries:
            node.sql("CREATE SCHEMA IF NOT EXISTS pgshunt")
            node.sql(guard_function())
        proxy.sql("INSERT INTO users VALUES (3)")
        yield proxy
        proxy.sql("DROP TABLE users")


@pytest.fixture
def source(proxy, cluster):
    """The shard that has the row; without guards afterwards."""
    node = cluster.primaries[0]
    wait_until(lambda: proxy.value(CARRIED) == str(epoch(node)), 10.0, "the newest map")
    yield next(one for one in cluster.primaries if one.value("SELECT count(*) FROM users WHERE id = 3"))
    for one_node in cluster.primaries:
        one_node.sql("DROP TRIGGER IF EXISTS pgshunt_guard_1 ON users")


def test_carried(proxy, cluster, source):
    now = epoch(cluster.primaries[0])
    assert proxy.value(CARRIED) == proxy.value(WRITTEN) == str(now)
    with closing(proxy.connect()) as connection:
        assert one(connection, WRITTEN) == str(now)
        after = raise_epoch(cluster)
        assert after == now + 1
        wait_carried(proxy, after)
        assert one(connection, WRITTEN) == one(connection, CARRIED) == str(after)
    with proxy.connect3() as connection:
        assert connection.execute(WRITTEN).fetchone()[0] == str(after)


@pytest.mark.parametrize("command", ["DISCARD ALL", "RESET ALL", "SET work_mem = '3MB'; RESET ALL",
                                     "BEGIN; RESET ALL; ROLLBACK", "BEGIN; RESET ALL; COMMIT"])
def test_survives_resets(proxy, cluster, source, command):
    after = raise_epoch(cluster)
    wait_carried(proxy, after)
    with closing(proxy.connect()) as connection:
        assert one(connection, WRITTEN) == str(after)
        connection.cursor().execute("SET application_name = 'x'")
        for part in command.split("; "):
            connection.cursor().execute(part)
        for _ in range(3):
            assert one(connection, WRITTEN) == str(after)


def test_of_its_own_map(proxy, cluster, source):
    """A transaction from before carries its own map's number, whoever had the connection meanwhile."""
    now = epoch(cluster.primaries[0])
    with closing(proxy.connect(autocommit=False)) as old:
        assert one(old, WRITTEN) == str(now)
        after = raise_epoch(cluster)
        with closing(proxy.connect()) as other:
            wait_until(lambda: one(other, CARRIED) == str(after), 10.0, "the new map")
        assert one(old, WRITTEN) == str(now)
        old.rollback()
        assert one(old, WRITTEN) == str(after)
        old.rollback()
        assert one(old, "SELECT 1") == 1
        old.commit()
    wait_carried(proxy, after, WRITTEN)


def test_held_counts_as_behind_the_move(proxy, cluster, source):
    node = cluster.primaries[0]
    now = epoch(node)
    with closing(proxy.connect(autocommit=False)) as connection:
        hold = catalog(node, "hold", "app", "x", 20000, "users/0-0")
        wait_until(lambda: proxy.value(WRITTEN) == str(now + 1), 10.0, "the hold")
        assert one(connection, WRITTEN) == str(now + 1)
        catalog(node, "release", hold)
        wait_until(lambda: one(connection, CARRIED) == str(now + 1) and proxy.value(CARRIED) == str(now), 10.0, "no hold")
        connection.commit()
        assert one(connection, WRITTEN) == str(now)


def test_not_the_clients(proxy, source):
    with closing(proxy.connect()) as connection:
        with pytest.raises(psycopg2.Error):
            connection.cursor().execute("SET pgshunt.epoch = 77")
    with Raw(proxy) as raw:
        raw.ask(query(WRITTEN))
        assert "pgshunt.epoch" not in raw.parameters
        found = raw.ask(query(WRITTEN))
        assert not [body for kind, body in found if kind == "S" and b"epoch" in body]


class Later(threading.Thread):
    """Raises the epoch after a moment."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.start()

    def run(self):
        time.sleep(0.2)
        raise_epoch(self.cluster)


def ask_simple(proxy):
    return proxy.value(WRITTEN)


def ask_several(proxy):
    with closing(proxy.connect()) as connection:
        return one(connection, f"SELECT n FROM users WHERE id = 3; {WRITTEN}")


def ask_prepared(proxy):
    with proxy.connect3() as connection:
        return connection.execute(WRITTEN.replace("3", "%s"), (3,), prepare=True).fetchone()[0]


def ask_long(proxy):
    return proxy.value(f"/* {'x' * 3000} */ {WRITTEN}")


@pytest.mark.parametrize("ask", [ask_simple, ask_several, ask_prepared, ask_long])
def test_refused_then_asked_again(proxy, cluster, source, ask):
    """A write under an old map waits for the newer one that the guard knows of."""
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    later = Later(cluster)
    assert ask(proxy) == str(after)
    later.join()
    assert source.value("SELECT n FROM users WHERE id = 3") == n + 1


def test_refused_for_good(proxy, cluster, source):
    """Where no newer map comes, it is told to begin again."""
    guard(source, epoch(cluster.primaries[0]) + 1)
    with closing(proxy.connect()) as connection:
        with refused("40001", "moved to another shard"):
            one(connection, WRITTEN)
        assert one(connection, CARRIED), "and the session goes on"
    raise_epoch(cluster)
    wait_carried(proxy, epoch(cluster.primaries[0]))
    assert proxy.value(WRITTEN)


def test_refused_in_a_transaction(proxy, cluster, source):
    """What has run on the old owner cannot be taken along."""
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with closing(proxy.connect(autocommit=False)) as connection:
        one(connection, CARRIED)
        with refused("40001", "moved to another shard"):
            one(connection, WRITTEN)
        connection.rollback()
        raise_epoch(cluster)
        wait_carried(proxy, after)
        assert one(connection, WRITTEN) == str(after)
        connection.commit()


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"])
def test_block_begins_again(proxy, cluster, source, begin):
    """The first statement of a block waits for the newer map, and the block begins where that says."""
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(begin)
        later = Later(cluster)
        assert one(connection, WRITTEN) == str(after)
        later.join()
        assert one(connection, "SHOW transaction_isolation") == ("repeatable read" if "REPEATABLE" in begin else "read committed")
        assert source.value("SELECT n FROM users WHERE id = 3") == n, "it is not committed"
        assert one(connection, WRITTEN) == str(after)
        cursor.execute("COMMIT")
        assert source.value("SELECT n FROM users WHERE id = 3") == n + 2
        cursor.execute("BEGIN")
        assert one(connection, WRITTEN) == str(after)
        cursor.execute("ROLLBACK")
    assert source.value("SELECT n FROM users WHERE id = 3") == n + 2


def test_block_that_cannot_begin_again(proxy, cluster, source):
    """Something of it has run: it is told to begin again by itself, and may."""
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        with refused("40001", "moved to another shard"):
            cursor.execute("SELECT n FROM users WHERE id = 3")
            cursor.execute(WRITTEN)
        with refused("25P02", hint=False):
            cursor.execute("SELECT 1")
        cursor.execute("ROLLBACK")
        raise_epoch(cluster)
        wait_carried(proxy, after)
        assert one(connection, WRITTEN) == str(after)
    assert source.value("SELECT n FROM users WHERE id = 3") == n + 1


def test_block_refused_for_good(proxy, cluster, source):
    """No newer map comes: the block has failed, as the client is told, and nothing of it is left on the server."""
    guard(source, epoch(cluster.primaries[0]) + 1)
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        with refused("40001", "moved to another shard"):
            cursor.execute(WRITTEN)
        with refused("25P02", hint=False):
            cursor.execute("SELECT 1")
        cursor.execute("COMMIT")
        assert one(connection, CARRIED), "and the session goes on"
    assert source.value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == 0
    raise_epoch(cluster)
    wait_carried(proxy, epoch(cluster.primaries[0]))


BATCHES = {
    "described": [parse("", WRITTEN), bind("", ""), describe("P", ""), execute()],
    "named portal": [parse("", WRITTEN), bind("p", ""), execute("p"), close("P", "p")],
    "pushed": [parse("", WRITTEN), bind("", ""), execute(), FLUSH],
    "in parts": [parse("", WRITTEN), bind("", ""), describe("P", ""), execute("", 1), execute("", 1)],
    "statement described": [parse("", WRITTEN), describe("S", ""), bind("", ""), execute()],
}


def begin_in_messages(raw):
    assert "Z" in kinds(raw.ask(parse("", "BEGIN"), bind("", ""), execute(), SYNC))


@pytest.mark.parametrize("name", BATCHES)
def test_block_begins_again_in_messages(proxy, cluster, source, name):
    """The first batch of a block, where it is one statement, is asked again as a whole, and answered once."""
    batch = BATCHES[name]
    with Raw(proxy) as raw:
        begin_in_messages(raw)
        expected = kinds(raw.ask(*batch, SYNC))
        raw.ask(query("ROLLBACK"))
        n = source.value("SELECT n FROM users WHERE id = 3")
        after = epoch(cluster.primaries[0]) + 1
        guard(source, after)
        raw.ask(query("BEGIN"))
        later = Later(cluster)
        found = raw.ask(*batch, SYNC)
        later.join()
        assert kinds(found) == expected and rows(found) == [[str(after).encode()]], found
        assert found[-1][1] == b"T"
        assert source.value("SELECT n FROM users WHERE id = 3") == n, "it is not committed"
        assert rows(raw.ask(query(WRITTEN))) == [[str(after).encode()]]
        raw.ask(query("COMMIT"))
        assert source.value("SELECT n FROM users WHERE id = 3") == n + 2
        assert rows(raw.ask(parse("", WRITTEN), bind("", ""), execute(), SYNC)) == [[str(after).encode()]]


def test_block_begins_again_prepared_before(proxy, cluster, source):
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    with Raw(proxy) as raw:
        raw.ask(parse("s", WRITTEN), SYNC)
        guard(source, after)
        begin_in_messages(raw)
        later = Later(cluster)
        found = raw.ask(bind("", "s"), execute(), SYNC)
        later.join()
        assert kinds(found) == "2DCZ" and rows(found) == [[str(after).encode()]], found
        assert rows(raw.ask(bind("", "s"), execute(), SYNC)) == [[str(after).encode()]]
        raw.ask(query("COMMIT"))
    assert source.value("SELECT n FROM users WHERE id = 3") == n + 2


@pytest.mark.parametrize("prepare", [False, True])
def test_block_begins_again_of_a_driver(proxy, cluster, source, prepare):
    """Prepared before: what is parsed in the block, in a batch of its own, may have begun it on a server."""
    with proxy.connect3(autocommit=False) as connection:
        connection.execute(WRITTEN.replace("3", "%s"), (3,), prepare=prepare)
        connection.commit()
        n = source.value("SELECT n FROM users WHERE id = 3")
        after = epoch(cluster.primaries[0]) + 1
        guard(source, after)
        later = Later(cluster)
        assert connection.execute(WRITTEN.replace("3", "%s"), (3,), prepare=prepare).fetchone()[0] == str(after)
        later.join()
        connection.execute("UPDATE users SET n = n + 10 WHERE id = %s", (3,), prepare=prepare)
        connection.commit()
    assert source.value("SELECT n FROM users WHERE id = 3") == n + 11


def test_batch_refused_for_good(proxy, cluster, source):
    """No newer map comes for a block whose BEGIN is in the same batch: one error, and the block has failed."""
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with Raw(proxy) as raw:
        found = raw.ask(parse("", "BEGIN"), bind("", ""), execute(), parse("", WRITTEN), bind("", ""), execute(), SYNC)
        assert error_of(found)["C"] == "40001" and kinds(found) == "12C12EZ" and found[-1] == ("Z", b"E"), found
        assert error_of(raw.ask(query("SELECT 1")))["C"] == "25P02"
        raw.ask(query("ROLLBACK"))
        raise_epoch(cluster)
        wait_carried(proxy, after)
        assert rows(raw.ask(parse("", WRITTEN), bind("", ""), execute(), SYNC)) == [[str(after).encode()]]
    assert source.value("SELECT n FROM users WHERE id = 3") == n + 1


def test_answered_in_part(proxy, cluster, source):
    """Some of the answer is out: none of it is given twice."""
    guard(source, epoch(cluster.primaries[0]) + 1)
    with Raw(proxy) as raw:
        begin_in_messages(raw)
        raw.send(parse("", WRITTEN), bind("", ""), FLUSH)
        assert [raw.read()[0] for _ in range(2)] == ["1", "2"]
        found = raw.ask(execute(), SYNC)
        assert kinds(found) == "EZ" and error_of(found)["C"] == "40001", found
    raise_epoch(cluster)


def test_batches_behind_the_first(proxy, cluster, source):
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with Raw(proxy) as raw:
        begin_in_messages(raw)
        batch = parse("", WRITTEN) + bind("", "") + execute() + SYNC
        later = Later(cluster)
        raw.send(batch, batch)
        first, second = raw.until_ready(), raw.until_ready()
        later.join()
        told = [(error_of(found) or {}).get("C") for found in (first, second)]
        assert told in ([None, None], ["40001", "25P02"]), (first, second)
        raw.ask(query("COMMIT"))
    assert source.value("SELECT n FROM users WHERE id = 3") == n + (0 if told[0] else 2)


@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_left_while_it_begins_again(proxy, cluster, source, leave):
    guard(source, epoch(cluster.primaries[0]) + 1)
    with Raw(proxy) as raw:
        begin_in_messages(raw)
        raw.send(parse("", WRITTEN), bind("", ""), execute(), SYNC, query("SELECT 1"))
        wait_until(lambda: any(row["state"] == "waiting" for row in proxy.show("CLIENTS")), 10.0, "it waiting")
        if leave == "cancel":
            with closing(proxy.socket()) as canceling:
                canceling.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
            found = raw.until_ready()
            assert kinds(found) == "12EZ" and error_of(found)["C"] == "40001", found
            assert error_of(raw.until_ready())["C"] == "25P02"
            raw.ask(query("ROLLBACK"))
            assert rows(raw.ask(query("SELECT 5"))) == [[b"5"]]
    raise_epoch(cluster)
    wait_carried(proxy, epoch(cluster.primaries[0]))
    assert source.value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'") == 0


def test_refused_on_several_shards(proxy, cluster, source):
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with closing(proxy.connect()) as connection:
        with refused("40001", "moved to another shard"):
            connection.cursor().execute("UPDATE users SET n = n + 1")
    raise_epoch(cluster)


def test_cancel_while_asked_again(proxy, cluster, source):
    guard(source, epoch(cluster.primaries[0]) + 1)
    with Raw(proxy) as raw:
        raw.send(parse("", WRITTEN), bind("", ""), execute(), SYNC)
        wait_until(lambda: any(row["state"] == "waiting" for row in proxy.show("CLIENTS")), 10.0, "it waiting")
        with closing(proxy.socket()) as canceling:
            canceling.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
        found = raw.until_ready()
        assert error_of(found)["C"] == "40001", found
        assert rows(raw.ask(query("SELECT 5"))) == [[b"5"]]
    raise_epoch(cluster)
