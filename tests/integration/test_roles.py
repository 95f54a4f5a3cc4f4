"""Who is primary: promotions are found, old primaries are never written to, names may move to other addresses."""
import os
import threading
from contextlib import closing, contextmanager

import psycopg2
import pytest

from harness import Cluster, Door, Load, Proxy, wait_until
from support import SYNC, Raw, bind, execute, one, parse, query

pytestmark = pytest.mark.slow


@pytest.fixture()
def trio():
    """One shard of three nodes with an empty table t."""
    with Cluster(shards=1, replicas=2) as cluster:
        cluster.primaries[0].sql("CREATE TABLE t (id serial PRIMARY KEY, note text)")
        cluster.sync()
        yield cluster


@pytest.fixture()
def pair():
    with Cluster(shards=1, replicas=1) as cluster:
        cluster.primaries[0].sql("CREATE TABLE t (id serial PRIMARY KEY, note text)")
        cluster.sync()
        yield cluster


def row_of(proxy, node):
    return next(row for row in proxy.show("NODES") if int(row["port"]) == node.port)


def is_true(value):
    return str(value) in ("True", "t")


def count(node):
    return node.value("SELECT count(*) FROM t")


class Later(threading.Thread):
    """Runs one statement on its own connection in the background."""

    def __init__(self, proxy, sql):
        super().__init__(daemon=True)
        self.connection, self.sql, self.error = proxy.connect(), sql, None
        self.start()

    def run(self):
        try:
            self.connection.cursor().execute(self.sql)
        except psycopg2.Error as error:
            self.error = error
        finally:
            self.connection.close()


INSERT = "INSERT INTO t (note) VALUES ('x')"
@contextmanager
def in_transaction(proxy):
    """A client that is idle in a transaction that has written."""
    raw = Raw(proxy)
    raw.ask(query("BEGIN"))
    assert raw.ask(query("INSERT INTO t (note) VALUES ('lost')"))[-1] == ("Z", b"T")
    yield raw
    raw.close()


def last_words(raw):
    """The SQLSTATE of the FATAL error that ends the connection."""
    kind, body = raw.read()
    fields = dict((field[:1], field[1:]) for field in body.split(b"\0"))
    assert kind == "E" and fields[b"S"] == b"FATAL", (kind, body)
    with pytest.raises(EOFError):
        raw.read()
    return fields[b"C"].decode()


OPTIONS = {"routing": {"check_timeout": "300ms"}, "health": {"breaker_failures": 0}, "pool": {"size": 6}}


def test_stalled_primary_is_failed_over(pair):
    """The primary hangs, its replica is promoted. Transactions open there end with 57P01; what was sent and not answered is
    reported as lost, never repeated; what was not sent waits. Then the old one wakes up: nothing is written to it, not by
    a proxy started afresh either."""
    old, new = pair.shards[0].nodes
    with Proxy(pair, options=OPTIONS) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as busy, in_transaction(proxy) as idle:
            busy.autocommit = False
            busy.cursor().execute("INSERT INTO t (note) VALUES ('lost')")
            asked = Asks(busy, "INSERT INTO t (note) VALUES ('unknown')")
            with closing(proxy.connect()) as warm:
                warm.cursor().execute(INSERT)
            wait_until(lambda: count(new) == 1, 10.0, "row on the replica")
            old.freeze()
            asked.start()
            wait_until(lambda: row_of(proxy, old)["state"] == "down", 20.0, "stalled primary seen as down")
            waiting = [Later(proxy, INSERT) for _ in range(5)]
            new.promote()
            for each in waiting:
                each.join(30)
            assert [each.error for each in waiting] == [None] * 5
            asked.join(30)
            assert asked.error is not None and asked.error.pgcode == "57P01", asked.error
            assert last_words(idle) == "57P01"
        assert count(new) == 6
        old.thaw()
        wait_until(lambda: row_of(proxy, old)["state"] == "up", 20.0, "old primary back")
        assert is_true(row_of(proxy, old)["fenced"]) and is_true(row_of(proxy, new)["primary"])
        proxy.wait_log("a second writable node in a shard")
        before = count(old)
        for _ in range(20):
            proxy.sql(INSERT)
        assert count(old) == before == 1 and count(new) == 26
        proxy.kill9()
        proxy.start()
        for _ in range(20):
            proxy.sql(INSERT)
        assert count(old) == 1 and count(new) == 46
        assert is_true(row_of(proxy, old)["fenced"])
        # The new one is away: the old one is no substitute.
        proxy.change({"routing": {"failover_wait": "300ms"}})
        proxy.reload()
        with closing(proxy.connect()) as client, client.cursor() as cursor:
            new.stop("immediate")
            with pytest.raises(psycopg2.Error) as caught:
                cursor.execute(INSERT)
        assert caught.value.pgcode == "08006" and count(old) == 1


class Asks(threading.Thread):
    """Runs one statement on a connection that is there."""

    def __init__(self, connection, sql):
        super().__init__(daemon=True)
        self.connection, self.sql, self.error = connection, sql, None

    def run(self):
        try:
            self.connection.cursor().execute(self.sql)
        except psycopg2.Error as error:
            self.error = error


def test_two_of_equal_rank(trio):
    """Two replicas are promoted, each by somebody else. A proxy that saw the first as primary stays with it; one that
    comes later cannot know, and writes to neither."""
    old, first, second = trio.shards[0].nodes
    options = {**OPTIONS, "routing": {"check_timeout": "300ms", "failover_wait": "300ms"}}
    with Proxy(trio, options=options) as proxy:
        proxy.wait_nodes()
        old.stop("immediate")
        first.promote()
        wait_until(lambda: is_true(row_of(proxy, first)["primary"]), 20.0, "promotion found")
        proxy.sql(INSERT)
        second.promote()
        wait_until(lambda: is_true(row_of(proxy, second)["fenced"]), 20.0, "second one fenced")
        for _ in range(5):
            proxy.sql(INSERT)
        assert (count(first), count(second)) == (6, 0)
        proxy.reload()
        proxy.sql(INSERT)
        assert (count(first), count(second)) == (7, 0)
        proxy.kill9()
        proxy.start()
        with pytest.raises(psycopg2.Error) as caught:
            proxy.sql(INSERT)
        assert caught.value.pgcode == "08006"
        proxy.wait_log("several writable nodes on one timeline")
        assert (count(first), count(second)) == (7, 0)
        # The operator decides.
        trio.shards[0].primary = first
        second.stop("immediate")
        wait_until(lambda: is_true(row_of(proxy, first)["primary"]), 20.0, "the one that is left")
        proxy.sql(INSERT)
        assert count(first) == 8


def test_promotion_is_found_soon_with_rare_checks(pair):
    """Checks once a minute: while a shard has no primary its nodes are asked all the time."""
    old, new = pair.shards[0].nodes
    options = {"routing": {"lag_check_interval": "1min", "failover_wait": "50s"}, "health": {"down_interval": "1min"}}
    with Proxy(pair, options=options) as proxy:
        wait_until(lambda: is_true(row_of(proxy, old)["primary"]), 20.0, "primary known")
        proxy.sql(INSERT)
        wait_until(lambda: count(new) == 1, 10.0, "row on the replica")
        with closing(proxy.connect()) as connection:
            old.stop("fast")
            new.promote()
            connection.cursor().execute(INSERT)  # fails after failover_wait, before the next round
        assert count(new) == 2


def test_switchover_ends_idle_transactions_with_57p01(pair):
    """A planned switchover by hand: stop, promote. Nothing that was not in a transaction notices."""
    old, new = pair.shards[0].nodes
    with Proxy(pair, options=OPTIONS) as proxy:
        proxy.wait_nodes()
        with in_transaction(proxy) as idle:
            def insert(connection):
                connection.cursor().execute(INSERT)

            with Load(proxy, insert, clients=4, pause=0.01) as load:
                load.wait_progress(20)
                old.stop("fast")
                new.promote()
                load.wait_progress(20)
            assert last_words(idle) == "57P01"
        # In flight when the server stopped: at most one for each client, and told so; all others have waited.
        assert len(load.errors) <= 4 and all(error.pgcode in ("57P01", "08006") for error in load.errors), load.errors
        assert load.done <= count(new) <= load.done + len(load.errors)


def test_a_lost_commit_ends_the_transaction(pair):
    """The server goes while it commits: what became of it nobody knows, but the transaction is over, as after any error of
    a COMMIT."""
    node = pair.primaries[0]
    node.sql("CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$")
    node.sql("CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
             "EXECUTE FUNCTION linger()")
    with Proxy(pair, options=OPTIONS) as proxy:
        proxy.wait_nodes()
        for commit in (query("COMMIT"), parse("", "COMMIT") + bind("", "") + execute() + SYNC):
            with in_transaction(proxy) as raw:
                raw.send(commit)
                wait_until(lambda: node.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                                              "WHERE query = 'COMMIT' AND state = 'active'") == 1, 20.0, "COMMIT under way")
                answer = raw.until_ready()
                assert any(kind == "E" and b"C57P01\0" in body for kind, body in answer), answer
                assert answer[-1] == ("Z", b"I"), answer
                assert raw.ask(query("SELECT 1"))[-1] == ("Z", b"I")


def test_a_name_moves_to_another_address(pair):
    """A node by name: looked up again with time. New connections go to the new address; what is under way ends in peace."""
    old, new = pair.shards[0].nodes
    hosts = os.path.join(pair.folder, "hosts")

    def point(address):
        with open(hosts + ".new", "w") as file:
            file.write(f"{address} db.test\n")
        os.rename(hosts + ".new", hosts)

    point("127.0.0.1")
    wrapper = {"LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_HOSTS": hosts}
    if "asan" in os.environ.get("PGSHUNT", ""):
        wrapper["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        wrapper["NSS_WRAPPER_DISABLE_DEEPBIND"] = "1"  # which the sanitizers do not bear
    with Door(old, "127.0.0.1") as here, Door(new, "127.0.0.2", here.port):
        shard = {"name": "s0", "dbname": "app", "nodes": [{"host": "db.test", "port": here.port}]}
        options = {"health": {"dns_ttl": "200ms"}}
        with Proxy(databases=[{"name": "app", "shards": [shard]}], options=options, environment=wrapper) as proxy:
            proxy.wait_nodes()

            def port():
                return proxy.value("SELECT inet_server_port() FROM (SELECT pg_sleep(0)) AS s")

            assert port() == old.port
            with closing(proxy.connect()) as connection, Load(proxy, lambda c: one(c, "SELECT 1"), clients=4) as load:
                connection.autocommit = False
                connection.cursor().execute(INSERT)
                new.promote()
                load.wait_progress(20)
                point("127.0.0.2")
                proxy.wait_log("the name of a node has another address now", 20.0)
                wait_until(lambda: port() == new.port, 20.0, "writes at the new address")
                connection.cursor().execute(INSERT)
                connection.commit()
                load.wait_progress(50)
                assert load.errors == []
            assert count(old) == 2 and count(new) == 0
            proxy.sql(INSERT)
            assert count(new) == 1
            wait_until(lambda: old.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
                                         "AND pid <> pg_backend_pid()") == 0, 20.0, "nothing left at the old address")
