"""pgshuntctl failover: a planned switchover is a pause, a killed one can be run again, a forced one says what it costs."""
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from ctl_support import address, ctl, primary_of, settle, start_ctl, streaming
from harness import Cluster, Load, Proxy, pg_binary, wait_until
from harness.cluster import tool_environment
from support import one

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=1, replicas=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def own_proxy(cluster):
    with Proxy(cluster, options={"pool": {"size": 40}}) as proxy:
        proxy.wait_nodes()
        cluster.shards[0].primary.sql("CREATE TABLE counted (id int PRIMARY KEY, n int NOT NULL)")
        cluster.shards[0].primary.sql("INSERT INTO counted SELECT i, 0 FROM generate_series(1, 64) i")
        cluster.sync()
        yield proxy


@pytest.fixture
def shard(cluster):
    return cluster.shards[0]


@pytest.fixture
def proxy(own_proxy, shard):
    settle(shard, own_proxy)
    return own_proxy


def counting(connection):
    """A transaction of two statements."""
    connection.autocommit = False
    number = int(time.monotonic() * 1e6) % 64 + 1
    with connection.cursor() as cursor:
        cursor.execute("UPDATE counted SET n = n + 1 WHERE id = %s", (number,))
        cursor.execute("SELECT n FROM counted WHERE id = %s", (number,))
    connection.commit()


def total(node):
    return node.value("SELECT sum(n) FROM counted")


def test_switchover_is_a_pause(shard, proxy):
    old = shard.primary
    before = total(old)
    with Load(proxy, counting, clients=8) as load:
        load.wait_progress(100)
        ran = ctl(proxy, "failover", "s0")
        load.wait_progress(100)
    assert load.errors == []
    new = next(node for node in shard.nodes if node.port == primary_of(proxy))
    assert new is not old
    assert total(new) == before + load.done
    assert len(streaming(new)) == 1  # the other replica follows
    assert "Done." in ran.out and "pg_basebackup" in ran.out
    for step in ("hold", "drain", "fence", "catch up", "promote", "recognize", "release", "re-point", "verify"):
        assert re.search(rf"^  {step} +.*: done in \d+ ms$", ran.out, re.M), step
    with closing(old.connect()) as connection, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        connection.cursor().execute("UPDATE counted SET n = n + 1")
