"""pgbench runs through the proxy without an error, and sees what it would see direct."""
import random
import re
import subprocess
from contextlib import closing

import pytest

from harness.sample import drop_tables
from harness import Proxy, pg_binary, wait_until
from harness.cluster import tool_environment
from support import fetch, one

MODES = ["simple", "extended", "prepared"]
CLIENTS = [1, 16, 128]


def pgbench(dsn, *args):
    """Runs pgbench; returns its output. Fails on any error it reports."""
    done = subprocess.run([pg_binary("pgbench"), "-n", *args, dsn], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=tool_environment(), timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not re.search(r"error|aborted", done.stdout.replace("number of failed transactions: 0", ""), re.I), \
        done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def bench(cluster):
    """pgbench's own unsharded tables, behind a proxy."""
    node = cluster.shards[0].primary
    if node.value("SELECT to_regclass('pgbench_accounts') IS NULL", dbname="bench"):
        subprocess.run([pg_binary("pgbench"), "-i", "-q", "-s", "2", node.dsn("bench")], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    cluster.sync()
    shard = dict(cluster.shard_config()[0], dbname="bench")
    with Proxy(cluster, dbname="bench", databases=[{"name": "bench", "shards": [shard]}]) as proxy:
        proxy.wait_nodes()
        yield proxy


@pytest.mark.core
@pytest.mark.slow
@pytest.mark.parametrize("clients", CLIENTS)
@pytest.mark.parametrize("mode", MODES)
def test_select_only(bench, mode, clients):
    per_client = max(20, 2000 // clients)
    out = pgbench(bench.dsn(), "-S", "-M", mode, "-c", str(clients), "-j", "2", "-t", str(per_client))
    assert f"number of transactions actually processed: {clients * per_client}/" in out


@pytest.mark.core
@pytest.mark.slow
@pytest.mark.parametrize("clients", CLIENTS)
@pytest.mark.parametrize("mode", MODES)
def test_tpcb_like(cluster, bench, mode, clients):
    node = cluster.shards[0].primary
    before = node.value("SELECT count(*) FROM pgbench_history", dbname="bench")
    per_client = max(4, 400 // clients)
    pgbench(bench.dsn(), "-M", mode, "-c", str(clients), "-j", "2", "-t", str(per_client))
    done = node.value("SELECT count(*) FROM pgbench_history", dbname="bench") - before
    assert done == clients * per_client
    # pgbench's own invariant: all deltas are in all three tables.
    sums = node.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),"
                    " (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM "
                    "pgbench_history)", dbname="bench")[0]
    assert len(set(sums)) == 1, sums


@pytest.mark.core
def test_initialize_through_the_proxy(cluster, proxy):
    """pgbench -i uses DROP, CREATE, COPY, VACUUM and ALTER TABLE."""
    done = subprocess.run([pg_binary("pgbench"), "-i", "-q", "-s", "1", proxy.dsn("plain")], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=tool_environment())
    assert done.returncode == 0, done.stdout
    assert cluster.shards[0].primary.value("SELECT count(*) FROM pgbench_accounts", dbname="plain") == 100000
    pgbench(proxy.dsn("plain"), "-c", "2", "-t", "20")
    cluster.shards[0].primary.sql("DROP TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history",
                                  dbname="plain")


@pytest.fixture(scope="module")
def sharded(cluster):
    """pgbench_accounts split by aid, 20000 rows with balances of their own, loaded through the proxy."""
    drop_tables(cluster)
    keyspaces = [{"name": "accounts", "type": "bigint", "tables": [{"name": "pgbench_accounts", "key": "aid"}]}]
    with Proxy(cluster, keyspaces=keyspaces) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))")
            cursor.execute("CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88))")
            cursor.execute("INSERT INTO pgbench_branches VALUES (1, 0, NULL)")
            wait_until(lambda: one(connection, "SELECT count(*) FROM pgbench_accounts") == 0, 10.0, "table known")
            for start in range(1, 20001, 1000):
                cursor.execute("INSERT INTO pgbench_accounts (aid, bid, abalance, filler) VALUES " + ", ".join(
                    f"({aid}, 1, {balance(aid)}, '')" for aid in range(start, start + 1000)))
        cluster.sync()
        yield proxy
    drop_tables(cluster)


def balance(aid):
    return aid * 7919 % 100003 - 50000


@pytest.mark.core
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_sharded_select_only_runs(sharded, mode):
    pgbench(sharded.dsn(), "-S", "-s", "1", "-M", mode, "-c", "16", "-j", "2", "-t", "60")


@pytest.mark.core
def test_sharded_answers_are_those_of_one_server(cluster, sharded):
    """What -S asks (SELECT abalance ... WHERE aid = n) for many aids, present and absent, in every protocol."""
    shuffled = random.Random(1).sample(range(1, 20201), 1500)
    with closing(sharded.connect()) as simple, sharded.connect3() as extended, \
            sharded.connect3(prepare_threshold=0) as prepared:
        for aid in shuffled:
            wanted = [(balance(aid),)] if aid <= 20000 else []
            sql = "SELECT abalance FROM pgbench_accounts WHERE aid = "
            assert fetch(simple, sql + str(aid)) == wanted
            assert extended.execute(sql + "%s", (aid,)).fetchall() == wanted
            assert prepared.execute(sql + "%b", (aid,)).fetchall() == wanted
    assert sum(node.value("SELECT count(*) FROM pgbench_accounts") for node in cluster.primaries) == 20000
