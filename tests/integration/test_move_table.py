"""Unsharded tables enter a keyspace and leave it again while clients write; a ledger of what was acknowledged judges."""
import os
import subprocess
import time

import pytest

from harness import Cluster, Proxy, wait_until
from harness.proxy import binary
from reshard_support import bucket
from test_reshard import STEPS, Load, Runner, left_over, needs_failpoints, owners, patient, rows_of, state, wait_state

pytestmark = pytest.mark.slow

KEYSPACE = {"name": "users", "type": "bigint"}
TABLES = ("CREATE TABLE users (id bigint PRIMARY KEY, balance bigint NOT NULL, note text);"
          "CREATE TABLE orders (user_id bigint REFERENCES users, number bigint, total numeric, id bigserial, "
          "PRIMARY KEY (user_id, number)); CREATE INDEX orders_total ON orders (total);"
          "CREATE VIEW balances AS SELECT id, balance FROM users;"
          "CREATE TABLE plain (id int PRIMARY KEY, note text); INSERT INTO plain VALUES (1, 'stays')")
INTO = ("--tables", "users,orders", "--into", "users", "--by", "users.id,user_id", "--prepare-schema")
OUT = ("--tables", "users,orders", "--out")


@pytest.fixture
def cluster():
    with Cluster(shards=3, replicas=0) as cluster:
        cluster.primaries[0].sql(TABLES)
        yield cluster


def proxy_of(cluster):
    return Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": cluster.shard_config()})


@pytest.fixture
def proxies(cluster):
    with proxy_of(cluster) as one, proxy_of(cluster) as other:
        one.wait_nodes()
        other.wait_nodes()
        yield one, other


def run_ctl(proxy, *args, environment=None, command="move-table", timeout=120):
    return subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, command, *patient(args)],
                          capture_output=True, text=True, timeout=timeout, env={**os.environ, **(environment or {})})


def ctl(proxy, *args, code=0, **more):
    ran = run_ctl(proxy, *args, **more)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def start(cluster, proxy, load, job, wish):
    load.progress(150)
    ctl(proxy, "create", job, *wish)
    runner = Runner(proxy, job)
    wait_state(cluster, job, "streaming")
    return runner


def judge(cluster, proxies, load, sharded):
    """Every acknowledged write is there once, and where it belongs: by its bucket, or at home."""
    users, orders = load.users(), load.orders()
    for proxy in proxies:
        assert dict(proxy.sql("SELECT id, balance FROM users")) == users
        assert dict(proxy.sql("SELECT id, balance FROM balances")) == users
        assert {(user, number): str(total) for user, number, total in proxy.sql("SELECT user_id, number, total FROM orders")} == orders
        assert proxy.value("SELECT count(*) FROM orders") == len(orders)
        assert proxy.sql("SELECT * FROM plain") == [(1, "stays")]
    owner = owners(cluster)
    for query, known in (("SELECT id FROM users", users), ("SELECT user_id, number FROM orders", orders)):
        found = rows_of(cluster, query)
        assert len(found) == len(known)
        for shard, row in found:
            assert shard == (owner[bucket(row[0])] if sharded else 0), (shard, row)
    ids = [row for _, row in rows_of(cluster, "SELECT id FROM orders")]
    assert len(ids) == len(set(ids))


def classes(cluster):
    return dict(cluster.primaries[0].sql("SELECT name, keyspace FROM pgshunt.table_rule"))


def test_into_and_out(cluster, proxies):
    """In, back, in again; out, back, out again. No statement fails, nothing is lost or doubled."""
    with Load(*proxies) as load:
        with start(cluster, proxies[0], load, "split", INTO):
            ctl(proxies[0], "verify", "split")
            for turn in ("switch", "rollback", "switch"):
                ctl(proxies[0], turn, "split")
                load.progress(150)
                ctl(proxies[0], "verify", "split")
            assert load.errors() == []
            assert classes(cluster) == {"users": "users", "orders": "users"}
        assert 'key = "user_id"' in ctl(proxies[0], "complete", "split")
        load.progress(100)
    assert load.errors() == []
    judge(cluster, proxies, load, sharded=True)
    assert left_over(cluster) == []
    more = Load(*proxies)
    for writer, before in zip(more.writers, load.writers):
        writer.users, writer.orders, writer.next_user, writer.next_order = (
            before.users, before.orders, before.next_user, before.next_order)
    with more:
        with start(cluster, proxies[1], more, "home", OUT):
            for turn in ("switch", "rollback", "switch"):
                ctl(proxies[1], turn, "home")
                more.progress(150)
                ctl(proxies[1], "verify", "home")
        ctl(proxies[1], "complete", "home")
        more.progress(100)
    assert more.errors() == []
    judge(cluster, proxies, more, sharded=False)
    assert left_over(cluster) == []
    assert classes(cluster) == {"users": None, "orders": None}
