"""While a shard has no primary, statements of which nothing was sent wait; then they run on the new one."""
import subprocess
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, pg_binary, wait_until
from harness.cluster import tool_environment
from support import Raw, message, one

pytestmark = pytest.mark.slow


@pytest.fixture()
def pair():
    """One shard of two nodes, with an empty table t."""
    with Cluster(shards=1, replicas=1) as cluster:
        cluster.primaries[0].sql("CREATE TABLE t (id serial PRIMARY KEY, note text)")
        cluster.sync()
        yield cluster


def proxy_with(cluster, wait):
    proxy = Proxy(cluster, options={"routing": {"failover_wait": wait}, "pool": {"size": 4}, "workers": 2})
    proxy.wait_nodes()
    return proxy


class Later(threading.Thread):
    """Runs something on a connection of its own; join() and see."""

    def __init__(self, proxy, work):
        super().__init__()
        self.connection, self.work, self.error = proxy.connect(), work, None
        self.start()

    def run(self):
        try:
            self.work(self.connection)
        except psycopg2.Error as error:
            self.error = error
        finally:
            self.connection.close()


def insert(note):
    return lambda connection: connection.cursor().execute("INSERT INTO t (note) VALUES (%s)", (note,))


def in_a_transaction(connection):
    connection.autocommit = False
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t (note) VALUES ('first')")
    cursor.execute("INSERT INTO t (note) VALUES ('second')")
    connection.commit()


def waiting(proxy):
    return sum(int(row["cl_waiting"]) for row in proxy.show("POOLS"))


def test_switchover_is_a_pause(pair):
    """The primary is stopped, its replica promoted a second later: what came in between runs on the new one."""
    old, new = pair.shards[0].nodes
    with proxy_with(pair, "30s") as proxy:
        with closing(proxy.connect()) as connection:
            insert("before")(connection)
        wait_until(lambda: new.value("SELECT count(*) FROM t") == 1, 10.0, "row on the replica")
        old.stop("fast")
        others = [Later(proxy, insert(f"waits {i}")) for i in range(6)] + [Later(proxy, in_a_transaction)]
        wait_until(lambda: waiting(proxy) == len(others), 10.0, "everybody waiting")
        time.sleep(0.5)
        assert all(each.is_alive() for each in others)
        pair.shards[0].promote(new)
        for each in others:
            each.join(30)
        assert [each.error for each in others] == [None] * len(others)
        assert new.value("SELECT count(*) FROM t") == 1 + 6 + 2


def test_prepared_statements_wait_too(pair, tmp_path):
    """pgbench in extended and prepared mode over a stop and start of the primary: only what was in flight may fail."""
    node = pair.primaries[0]
    with proxy_with(pair, "30s") as proxy:
        script = tmp_path / "insert.sql"
        script.write_text("INSERT INTO t (note) VALUES ('x');\n\\sleep 20 ms\n")
        for mode in ("extended", "prepared"):
            bench = subprocess.Popen(
                [pg_binary("pgbench"), "-n", "-M", mode, "-c", "6", "-j", "1", "-T", "6", "-f", str(script),
                 f"host=127.0.0.1 port={proxy.port} user=postgres dbname=app"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=tool_environment())
            try:
                time.sleep(1.5)
                before = node.value("SELECT count(*) FROM t")
                node.stop("fast")
                time.sleep(1)
                node.start()
                out = bench.communicate(timeout=60)[0]
            finally:
                bench.kill()
                bench.wait()
            # A statement in flight when its backend was ended has an unknown outcome: the client is told.
            assert out.count("aborted") <= 6 and "waited" not in out, out[-2000:]
            if "aborted" not in out:
                assert bench.returncode == 0
            assert node.value("SELECT count(*) FROM t") > before


def test_wait_ends_with_an_error_that_says_so(pair):
    with proxy_with(pair, "700ms") as proxy:
        pair.primaries[0].stop("immediate")
        with closing(proxy.connect()) as connection:
            with pytest.raises(psycopg2.Error) as caught:
                insert("never")(connection)
            assert caught.value.pgcode == "08006"
            assert "s0" in str(caught.value) and "failover_wait" in caught.value.diag.message_hint
            assert one(connection, "SELECT count(*) FROM t") == 0  # reads go on, on the replica
        # An open transaction ends in an orderly way as well.
        with closing(proxy.connect()) as connection:
            connection.autocommit = False
            with pytest.raises(psycopg2.Error) as caught:
                insert("never")(connection)
            assert caught.value.pgcode == "08006"
            with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
                insert("never")(connection)
            connection.rollback()


def test_cancel_and_disconnect_while_waiting(pair):
    with proxy_with(pair, "30s") as proxy:
        pair.primaries[0].stop("immediate")
        cancelled = Later(proxy, insert("cancelled"))
        gone = Raw(proxy)
        gone.send(message(b"Q", b"INSERT INTO t (note) VALUES ('gone')\0"))
        wait_until(lambda: waiting(proxy) == 2, 10.0, "two waiting")
        gone.close()
        wait_until(lambda: waiting(proxy) == 1, 10.0, "the one that left is forgotten")
        cancelled.connection.cancel()
        cancelled.join(10)
        assert cancelled.error is not None and cancelled.error.pgcode == "57014"
        pair.primaries[0].start()
        with closing(proxy.connect()) as connection:
            insert("after")(connection)
            assert one(connection, "SELECT string_agg(note, ',') FROM t") == "after"
