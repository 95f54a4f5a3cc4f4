"""When a node is taken out and when it is back: rise and fall, the circuit breaker, a server that hangs or whose disk is full."""
import os
import re
import shutil
import signal
import threading
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Door, Load, Proxy, wait_until
from harness import process
from harness.cluster import run_tool
from support import one

pytestmark = pytest.mark.slow

# Failures come quickly; the breaker opens and is tried again within a test's patience.
IMPATIENT = {"pool": {"login_retry": "20ms", "login_retry_max": "40ms"},
             "health": {"breaker_open": "700ms", "rise": 1}}


@pytest.fixture(scope="module")
def trio():
    """One shard of three nodes with a table t of ten rows."""
    with Cluster(shards=1, replicas=2) as cluster:
        primary = cluster.primaries[0]
        primary.sql("CREATE TABLE t (id int PRIMARY KEY, n int)")
        primary.sql("INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) AS i")
        primary.sql("CREATE FUNCTION full_disk_there() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN "
                    "IF inet_server_port() = current_setting('cluster_name')::int THEN "
                    "RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END IF; RETURN 1; END $$")
        cluster.sync()
        yield cluster


def proxy_over(nodes, options):
    """A proxy whose one shard has these nodes (or doors)."""
    shard = {"name": "s0", "dbname": "app", "nodes": [{"host": at.host, "port": at.port} for at in nodes]}
    proxy = Proxy(databases=[{"name": "app", "shards": [shard]}], options=options)
    proxy.wait_nodes()
    return proxy


def proxy_alone(at):
    """One replica and no primary to measure it by."""
    shard = {"name": "s0", "dbname": "app", "nodes": [{"host": at.host, "port": at.port}]}
    return Proxy(databases=[{"name": "app", "shards": [shard]}],
                 options={**IMPATIENT, "routing": {"failover_wait": "100ms"}})


def node_row(proxy, at):
    return next(row for row in proxy.show("NODES") if int(row["port"]) == at.port)


def wait_node(proxy, at, **wanted):
    wait_until(lambda: all(str(node_row(proxy, at)[name]) == value for name, value in wanted.items()), 20.0,
               f"{at.port}: {wanted}")


def read(connection):
    assert one(connection, "SELECT count(*) FROM t") == 10


def metric(proxy, name, at):
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return float(re.search(rf'^pgshunt_{name}\{{[^}}]*node="[^"]*:{at.port}"[^}}]*\}} (\S+)$', text, re.M)[1])


def test_breaker_takes_a_replica_out_that_lets_nobody_in(trio):
    """Its checks are answered, yet no connection can be made: after some failures it is left alone, later tried again."""
    primary, other, victim = trio.shards[0].nodes
    with Door(victim) as door, proxy_over([primary, other, door], IMPATIENT) as proxy:
        door.shut = True
        with Load(proxy, read, clients=4) as load:
            proxy.wait_log(rf'circuit breaker of a node is open.*:{door.port}', 20.0)
            load.wait_progress(50)
            # Shut out still: half-open, one failure, open again.
            wait_until(lambda: metric(proxy, "node_breaker_opened_total", door) >= 2, 20.0, "opened again")
            wait_node(proxy, door, breaker="open", state="down")
            assert metric(proxy, "node_up", door) == 0
            door.shut = False
            wait_node(proxy, door, breaker="closed", state="up")
            load.wait_progress(50)
        assert load.errors == []
        assert metric(proxy, "node_breaker", door) == 0 and metric(proxy, "node_up", door) == 1
        assert "half-open" in proxy.log()


def test_breaker_never_takes_the_last_node_out(trio):
    """A shard of one replica and nothing else: reads fail one by one, the node stays."""
    replica = trio.shards[0].nodes[1]
    with Door(replica) as door, proxy_alone(door) as proxy:
        door.shut = True
        with Load(proxy, read, clients=2, pause=0.02):
            wait_until(lambda: metric(proxy, "node_breaker_opened_total", door) >= 1, 20.0, "breaker open")
            for _ in range(10):
                assert node_row(proxy, door)["state"] == "up"


def test_breaker_of_a_primary_only_limits_logins(trio):
    """Writes wait while nobody gets in, and go on when the door opens: the primary is never taken out."""
    primary, replica, _ = trio.shards[0].nodes
    with Door(primary) as door, proxy_over([door, replica], IMPATIENT) as proxy:
        writes = [Writer(proxy, "UPDATE t SET n = n + 1 WHERE id = %s", (i,)) for i in range(1, 6)]
        door.shut = True
        with closing(proxy.connect("pgshunt")) as console:
            console.cursor().execute("RECONNECT")
        for each in writes:
            each.start()
        wait_until(lambda: metric(proxy, "node_breaker_opened_total", door) >= 1, 20.0, "breaker open")
        row = node_row(proxy, door)
        assert row["state"] == "up" and str(row["primary"]) in ("t", "True"), row
        assert all(each.is_alive() for each in writes)
        door.shut = False
        for each in writes:
            each.join(30)
        assert [each.error for each in writes] == [None] * 5
        wait_node(proxy, door, breaker="closed", state="up")
    assert primary.value("SELECT sum(n) FROM t") == 5


class Writer(threading.Thread):
    """Runs one statement, once started, on a connection of its own."""

    def __init__(self, proxy, sql, params=None):
        super().__init__(daemon=True)
        self.connection, self.sql, self.params, self.error = proxy.connect(), sql, params, None

    def run(self):
        try:
            self.connection.cursor().execute(self.sql, self.params)
        except psycopg2.Error as error:
            self.error = error
        finally:
            self.connection.close()


def test_full_disk_of_a_replica_counts(trio):
    """Statements that fail for want of disk speak against their node; reads that need no disk there are answered elsewhere."""
    primary, good, full = trio.shards[0].nodes
    full.set("cluster_name", str(full.port))
    full.restart()
    for node in (primary, good):
        assert node.value("SHOW cluster_name") == ""
    # cluster_name is not a number elsewhere: those answer with an error of another class, which counts for nobody.
    with proxy_over([primary, full], {"health": {"breaker_failures": 3}}) as proxy:
        with closing(proxy.connect()) as connection:
            def fails():
                with pytest.raises(psycopg2.Error):
                    one(connection, "SELECT full_disk_there()")
                return node_row(proxy, full)["breaker"] == "open"

            wait_until(fails, 20.0, "breaker open")
            wait_node(proxy, full, state="down")
            assert node_row(proxy, primary)["breaker"] == "closed"
            for _ in range(5):
                assert one(connection, "SELECT inet_server_port() FROM t LIMIT 1") == primary.port
    full.sql("ALTER SYSTEM RESET cluster_name", dbname="postgres")
    full.restart()


def test_disk_that_takes_no_more(trio):
    """A replica that cannot write any more stops; reads go on elsewhere, no client notices."""
    primary, other, full = trio.shards[0].nodes
    with proxy_over([primary, other, full], {}) as proxy, Load(proxy, read, clients=4) as load:
        load.wait_progress(30)
        for pid in [full.process.pid, *process.children(full.process.pid)]:
            run_tool("prlimit", f"--pid={pid}", "--fsize=65536", bindir=os.path.dirname(shutil.which("prlimit")))
        primary.sql("CREATE TABLE filler AS SELECT repeat('x', 500) AS text FROM generate_series(1, 4000)")
        wait_node(proxy, full, state="down")
        load.wait_progress(50)
        assert load.errors == []
        primary.sql("DROP TABLE filler")
    full.kill9()
    full.start()


def test_rise_and_fall(trio):
    """Taken out after `fall` checks without an answer, back after `rise` with one."""
    replica = trio.shards[0].nodes[1]
    options = {"routing": {"check_timeout": "50ms"}, "health": {"fall": 100, "rise": 100, "breaker_failures": 0}}
    with proxy_over([trio.primaries[0], replica], options) as proxy:
        replica.freeze()
        try:
            missed = int(node_row(proxy, replica)["checks_failed"]) + 5
            wait_until(lambda: int(node_row(proxy, replica)["checks_failed"]) >= missed, 20.0, "checks missed")
            assert node_row(proxy, replica)["state"] == "up"
            proxy.change({"health": {"fall": 3}})
            proxy.reload()
            wait_node(proxy, replica, state="down")
        finally:
            replica.thaw()
        proxy.change({"routing": {"check_timeout": "2s"}})
        proxy.reload()
        wait_until(lambda: int(node_row(proxy, replica)["checked_ms_ago"]) < 100, 20.0, "checks answered")
        assert node_row(proxy, replica)["state"] == "down"
        proxy.change({"health": {"rise": 2}})
        proxy.reload()
        wait_node(proxy, replica, state="up")


def test_reads_in_flight_on_a_stopped_replica(trio):
    """SIGSTOP: no connection breaks. Once the checks have given the node up, its reads are asked again elsewhere."""
    primary, other, victim = trio.shards[0].nodes

    def slow_read(connection):
        assert one(connection, "SELECT count(*) FROM t, pg_sleep(0.05)") == 10

    with proxy_over([primary, other, victim], {"routing": {"check_timeout": "500ms"}}) as proxy:
        with Load(proxy, slow_read, clients=8) as load:
            load.wait_progress(40)
            victim.freeze()
            try:
                wait_node(proxy, victim, state="down")
                load.wait_progress(100)
                wait_until(lambda: sum(int(row["sv_active"]) for row in proxy.show("NODES")
                                       if int(row["port"]) == victim.port) == 0, 20.0, "nobody waits there")
            finally:
                victim.thaw()
        assert load.errors == []
        wait_node(proxy, victim, state="up")


def test_what_cannot_be_repeated_ends_with_an_error(trio):
    """A transaction on a stopped server is not left hanging for ever."""
    primary, replica, _ = trio.shards[0].nodes
    options = {"routing": {"check_timeout": "300ms", "failover_wait": "1s"}}
    with proxy_over([primary, replica], options) as proxy, closing(proxy.connect()) as connection:
        connection.autocommit = False
        assert one(connection, "SELECT inet_server_port() FROM t LIMIT 1") == primary.port
        primary.freeze()
        try:
            with pytest.raises(psycopg2.Error) as caught:
                one(connection, "UPDATE t SET n = 0 WHERE id = 1 RETURNING n")
            assert caught.value.pgcode == "08006" and "does not answer" in str(caught.value)
        finally:
            primary.thaw()


def test_a_replica_that_lets_nobody_in(trio):
    """A stopped postmaster: who is in is served, nobody else is. Reads go elsewhere."""
    primary, other, victim = trio.shards[0].nodes
    options = {"routing": {"check_timeout": "300ms"}, "pool": {"connect_timeout": "500ms"}}
    with proxy_over([primary, other, victim], options) as proxy:
        os.kill(victim.process.pid, signal.SIGSTOP)
        try:
            with Load(proxy, read, clients=6) as load:
                wait_node(proxy, victim, state="down")
                load.wait_progress(50)
            assert load.errors == []
        finally:
            os.kill(victim.process.pid, signal.SIGCONT)
        wait_node(proxy, victim, state="up")


def test_read_only_primary_is_reported(trio):
    primary, replica, _ = trio.shards[0].nodes
    with proxy_over([primary, replica], {}) as proxy:
        primary.set("default_transaction_read_only", "on")
        try:
            wait_node(proxy, primary, read_only="True")
            proxy.wait_log("default_transaction_read_only")
            with pytest.raises(psycopg2.Error) as caught:
                proxy.sql("UPDATE t SET n = 0 WHERE id = 1")
            assert caught.value.pgcode == "25006"
        finally:
            with closing(primary.connect("postgres")) as connection:
                connection.cursor().execute("SET default_transaction_read_only = off")
                connection.cursor().execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.cursor().execute("SELECT pg_reload_conf()")
        wait_node(proxy, primary, read_only="False")
        proxy.sql("UPDATE t SET n = 0 WHERE id = 1")

