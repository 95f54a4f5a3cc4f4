"""A transaction's server dies while its next statement waits for something else: the statement fails, nothing waits on.
What a statement waits for may also take long."""
import os
import signal
import threading
import time
from contextlib import closing, contextmanager

import pytest

from harness import Cluster, Proxy, wait_until
from support import FLUSH, SYNC, Raw, bind, describe, error_of, execute, kinds, parse, query, rows
from test_bucket_hold import KEYSPACES as OTHER_KEYSPACES
from test_bucket_hold import MOVING, OTHERS, STAYING, Moving

pytestmark = pytest.mark.core

KEYSPACES = [dict(OTHER_KEYSPACES[0], tables=[*OTHER_KEYSPACES[0]["tables"], {"name": "late", "key": "user_id"}])]


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES, options={"workers": 1, "routing": {"failover_wait": "60s"}}) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)")
        proxy.sql("CREATE TABLE orders (id bigint, user_id bigint, PRIMARY KEY (user_id, id))")
        proxy.sql(f"INSERT INTO users VALUES ({STAYING[0]}), ({OTHERS[0]}), ({MOVING[0]})")
        yield proxy


@contextmanager
def a_shard_away(cluster, _proxy):
    cluster.shards[1].primary.stop("immediate")
    try:
        yield f"UPDATE users SET n = n + 1 WHERE id = {OTHERS[0]}"
    finally:
        cluster.shards[1].primary.start()


@contextmanager
def an_unknown_table(cluster, proxy):
    """The schema is read anew, which takes as long as the server's catalog is locked."""
    with closing(cluster.primaries[0].connect()) as connection:
        connection.autocommit = False
        connection.cursor().execute("LOCK TABLE pg_catalog.pg_policy IN ACCESS EXCLUSIVE MODE")
        proxy.sql("CREATE TABLE new_one (id int)")
        proxy.sql("DROP TABLE new_one")
        yield "SELECT * FROM nobody_knows ORDER BY 1"


@contextmanager
def a_channel(cluster, _proxy):
    """The server takes no new connections: the one that listens for all clients does not come about."""
    postmaster = cluster.primaries[0].process.pid
    os.kill(postmaster, signal.SIGSTOP)
    try:
        yield "LISTEN somewhere"
    finally:
        os.kill(postmaster, signal.SIGCONT)


@contextmanager
def moving_rows(cluster, proxy):
    moving = Moving(proxy, cluster)
    moving.wait_known()
    moving.hold()
    try:
        yield f"UPDATE users SET n = n + 1 WHERE id = {MOVING[0]}"
    finally:
        moving.release()


def asked(extended, sql):
    return (parse("", sql) + bind("", "") + describe("P", "") + execute() + SYNC) if extended else query(sql)


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("obstacle", [a_shard_away, an_unknown_table, a_channel, moving_rows])
def test_its_server_is_lost_meanwhile(cluster, proxy, obstacle, extended):
    def waits():
        return any(row["state"] == "waiting" for row in proxy.show("CLIENTS"))

    proxy.sql(f"SELECT n FROM users WHERE id = {STAYING[0]}")
    with (closing(cluster.primaries[0].connect()) as direct, direct.cursor() as cursor,
          Raw(proxy, timeout=60.0) as raw):
        with obstacle(cluster, proxy) as sql:
            raw.ask(query("BEGIN"))
            found = raw.ask(asked(extended, f"UPDATE users SET n = n + 1 WHERE id = {STAYING[0]} RETURNING pg_backend_pid()"))
            raw.send(asked(extended, sql))
            wait_until(waits, 10.0, "a client that waits")
            cursor.execute("SELECT pg_terminate_backend(%s)", (int(rows(found)[0][0]),))
            lost = raw.until_ready()
        assert error_of(lost)["C"] == "57P01"
        assert lost[-1][1] == b"E"
        assert kinds(raw.ask(query("ROLLBACK"))) == "CZ"
        wait_until(lambda: proxy.value("SELECT count(*) FROM users") == 3, 20.0, "both shards")
        assert rows(raw.ask(asked(extended, f"SELECT n FROM users WHERE id = {STAYING[0]}"))) == [[b"0"]]
        assert not waits()


def test_the_server_that_has_described_is_lost_meanwhile(cluster, proxy):
    """No transaction, but a batch: its Parse has been judged there, and its Bind waits."""
    find = ("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%is described%' "
            "AND pid <> pg_backend_pid()")
    with (closing(cluster.primaries[0].connect()) as direct, direct.cursor() as cursor,
          Raw(proxy, timeout=60.0) as raw):
        with an_unknown_table(cluster, proxy) as sql:
            raw.send(parse("a", "SELECT n /* is described */ FROM users WHERE id = $1"), describe("S", "a"), FLUSH)
            assert [raw.read()[0] for _ in range(3)] == ["1", "t", "T"]
            raw.send(parse("", sql), bind("", ""), execute(), SYNC)
            wait_until(lambda: any(row["state"] == "waiting" for row in proxy.show("CLIENTS")), 10.0, "a client that waits")
            cursor.execute(find)
            ended = cursor.fetchone()[0] + sum(node.value(find) for node in cluster.primaries[1:])
            assert ended == 1
            lost = raw.until_ready()
        assert error_of(lost)["C"] == "57P01"
        assert lost[-1][1] == b"I"
        assert rows(raw.ask(query(f"SELECT n FROM users WHERE id = {STAYING[0]}"))) == [[b"0"]]


def test_a_schema_that_takes_long_to_read_is_waited_for(cluster, proxy):
    """The table is there, and the catalog is read, but slowly."""
    found = []

    def ask():
        with Raw(proxy, timeout=60.0) as raw:
            found.append(raw.ask(query("SELECT * FROM late l JOIN late m ON l.note = m.note")))

    asks = threading.Thread(target=ask)
    with an_unknown_table(cluster, proxy):
        proxy.sql("CREATE TABLE late (user_id bigint PRIMARY KEY, note text)")
        asks.start()
        time.sleep(3)
    asks.join()
    assert kinds(found[0]) == "TCZ", error_of(found[0])
