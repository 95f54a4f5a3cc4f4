"""Tables enter keyspaces by list, by range and by Postgres' own hash, and leave them again, under writes; a ledger judges."""
import os
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from harness import Cluster, Proxy  # noqa: E402
from harness.proxy import binary  # noqa: E402
from reshard_kills import needs_failpoints  # noqa: E402
from reshard_support import forget_everything  # noqa: E402
from test_reshard import Runner, left_over, patient, wait_state  # noqa: E402
from test_reshard_maps import TABLES, Load, judge  # noqa: E402

pytestmark = pytest.mark.slow

KEYSPACES = [
    {"name": "regions", "type": "text", "map": "list", "default": "s3",
     "lists": [{"shard": "s0", "values": ["de"]}, {"shard": "s1", "values": ["us"]}, {"shard": "s2", "values": ["at", "other"]}]},
    {"name": "times", "type": "bigint", "map": "range",
     "ranges": [{"to": "0", "shard": "s0"}, {"from": "0", "to": "1000", "shard": "s1"}, {"from": "1000", "to": "2000", "shard": "s2"},
                {"from": "2000", "shard": "s3"}]},
    {"name": "old", "type": "bigint", "hash": "postgres"},
]
# table: keyspace, column, what tells the shard of a value (of a bucket, with Postgres' hash)
KINDS = {"towns": ("regions", "region", lambda value: {"de": 0, "us": 1, "at": 2}.get(value, 3)),
         "samples": ("times", "at", lambda value: 0 if value < 0 else 1 if value < 1000 else 2 if value < 2000 else 3),
         "hashed": ("old", "id", lambda number: number // 4096)}


@pytest.fixture(scope="module")
def running():
    with Cluster(shards=4, replicas=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    forget_everything(*running.primaries)
    running.primaries[0].sql(TABLES)
    return running


@pytest.fixture
def proxies(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as one, Proxy(cluster, keyspaces=KEYSPACES) as other:
        one.wait_nodes()
        other.wait_nodes()
        yield one, other


def run_ctl(proxy, *args, **environment):
    return subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, "move-table", *patient(args)],
                          capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def ctl(proxy, *args):
    ran = run_ctl(proxy, *args)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def prepare(cluster):
    """judge() looks everywhere: the tables that stay are empty on the other shards, as any other table may be."""
    for node in cluster.primaries[1:]:
        node.sql(TABLES.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))


def move(cluster, proxies, ledger, job, wish, turns, owner):
    """`owner(table, value, switched)`"""
    one, other = proxies
    ctl(one, "create", job, *wish)
    with Runner(one, job):
        with Load(proxies, ledger) as load:
            wait_state(cluster, job, "streaming")
            load.progress()
            ctl(other, "verify", job)
        for turn in turns:
            with Load(proxies, ledger) as load:
                ctl(one, turn, job)
                load.progress()
            judge(cluster, proxies, ledger, lambda table, value, switched=turn == "switch": owner(table, value, switched), clean=False)
        with Load(proxies, ledger) as load:
            load.progress()
            ctl(other, "verify", job)
    with Load(proxies, ledger) as load:
        ctl(one, "complete", job)
        load.progress()
    judge(cluster, proxies, ledger, lambda table, value: owner(table, value, True), clean=True)
    assert left_over(cluster) == []


@pytest.mark.parametrize("table", KINDS)
def test_into_and_out(cluster, proxies, table):
    """In, back, in again; out, back, out again: no statement fails, and every acknowledged row is there once, where its map has it."""
    keyspace, column, shard_of = KINDS[table]
    prepare(cluster)
    ledger = {}
    with Load(proxies, ledger) as load:
        load.progress(400)
    turns = ("switch", "rollback", "switch")
    move(cluster, proxies, ledger, "split", ("--tables", table, "--into", keyspace, "--by", column), turns,
         lambda which, value, switched: shard_of(value) if switched and which == table else 0)
    move(cluster, proxies, ledger, "home", ("--tables", table, "--out"), turns,
         lambda which, value, switched: 0 if switched or which != table else shard_of(value))


@needs_failpoints
@pytest.mark.parametrize("table", KINDS)
def test_killed(cluster, proxies, table):
    """The engine is killed while it copies, at the guard, behind the flip and while it cleans: repeating the command is all it takes."""
    keyspace, column, shard_of = KINDS[table]
    prepare(cluster)
    one, ledger = proxies[0], {}

    def dies(step, *args):
        ran = run_ctl(one, *args, PGSHUNT_CRASH_AT=step)
        assert ran.returncode == -9, ran.stdout + ran.stderr

    with Load(proxies, ledger) as load:
        load.progress(300)
        ctl(one, "create", "split", "--tables", table, "--into", keyspace, "--by", column)
        for step in ("run_ghosts", "run_snapshots", "run_copied"):
            dies(step, "run", "split")
        with Runner(one, "split"):
            wait_state(cluster, "split", "streaming")
            load.progress()
            for verb in ("switch", "rollback"):
                for step in ("marker", "guard", "flip"):
                    dies(step, verb, "split")
                    load.progress(60)
                ctl(one, verb, "split")
                load.progress(60)
            ctl(one, "switch", "split")
        for step in ("objects_gone", "cleared", "guards_gone"):
            dies(step, "complete", "split")
        ctl(one, "complete", "split")
        load.progress()
    judge(cluster, proxies, ledger, lambda which, value: shard_of(value) if which == table else 0, clean=True)
    assert left_over(cluster) == []
