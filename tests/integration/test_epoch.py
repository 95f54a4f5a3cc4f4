"""Server connections carry the number of the map (pgshunt.epoch); what a guard refuses is asked again under a newer one."""
import os
import re
import struct
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from catalog_support import catalog, epoch
from harness import Proxy, wait_until
from harness.proxy import REPO
from support import SYNC, Raw, bind, error_of, execute, one, parse, query, refused, rows

pytestmark = pytest.mark.core

KEYSPACES = [{"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}]
CARRIED = "SELECT coalesce(current_setting('pgshunt.epoch', true), '') FROM users WHERE id = 3"
WRITTEN = "UPDATE users SET n = n + 1 WHERE id = 3 RETURNING current_setting('pgshunt.epoch', true)"


def guard_function():
    """As the resharding engine makes it."""
    with open(os.path.join(REPO, "include/pgshunt/guard.h")) as header:
        text = header.read().replace("\\\n", "")
    words = dict(re.findall(r'#define (GUARD_SQLSTATE|GUARD_MESSAGE) "(.*)"', text))
    function = re.search(r"#define GUARD_FUNCTION(.*)", text).group(1)
    for name, value in words.items():
        function = function.replace(name, f'"{value}"')
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', function)).replace("\\n", "\n")


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


def guard(node, number):
    node.sql("DROP TRIGGER IF EXISTS pgshunt_guard_1 ON users")
    node.sql("CREATE TRIGGER pgshunt_guard_1 BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON users "
             f"FOR EACH STATEMENT EXECUTE FUNCTION pgshunt.guard('{number}')")


def raise_epoch(cluster):
    """A new map, with all buckets where they were."""
    node = cluster.primaries[0]
    node.sql("UPDATE pgshunt.epoch SET epoch = epoch + 1")
    node.sql("NOTIFY pgshunt_map, 'app'")
    return epoch(node)


def wait_carried(proxy, number, sql=CARRIED):
    wait_until(lambda: proxy.value(sql) == str(number), 10.0, f"epoch {number}")


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
        time.sleep(0.5)
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


@pytest.mark.parametrize("first", ["SAVEPOINT s", "SELECT n FROM users WHERE id = 3", "UPDATE users SET n = n WHERE id = 3; SELECT 1"])
def test_block_that_cannot_begin_again(proxy, cluster, source, first):
    """Something of it has run, or may be out: it is told to begin again by itself, and may."""
    n = source.value("SELECT n FROM users WHERE id = 3")
    after = epoch(cluster.primaries[0]) + 1
    guard(source, after)
    with closing(proxy.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        with refused("40001", "moved to another shard"):
            cursor.execute(first)
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
