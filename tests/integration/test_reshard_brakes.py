"""What the copy does for the servers it works on: it slows down where they answer late, and lets slots catch up before they lose WAL."""
import queue
import threading

import pytest

from harness import Cluster
from harness.process import wait_until
from reshard_support import config, ctl, forget_everything, in_ranges, record_job, start_ctl

pytestmark = pytest.mark.slow

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
TO_S1 = (0, 8191)
MOVES = [("users", *TO_S1, "s0", "s1")]
KEEP = 96  # MB: six segments


@pytest.fixture(scope="module")
def running():
    with Cluster(shards=2, replicas=0, settings={"max_slot_wal_keep_size": f"{KEEP}MB", "wal_keep_size": "0", "max_wal_size": "64MB", "min_wal_size": "32MB"}) as running:
        yield running


@pytest.fixture
def cluster(running):
    forget_everything(*running.primaries)
    for node in running.primaries:
        node.sql("CREATE TABLE users (id bigint PRIMARY KEY, body text)")
    return running


class Run:
    """`reshard run`, and what it says."""

    def __init__(self, path, *options):
        self.process = start_ctl(path, "run", "grow", *options)
        self.lines, self.said = queue.Queue(), []
        for pipe in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self.read, args=(pipe,), daemon=True).start()

    def read(self, pipe):
        for line in pipe:
            self.lines.put(line)

    def says(self, words):
        while not self.lines.empty():
            self.said.append(self.lines.get())
        return any(words in line for line in self.said)

    def wait(self, words, timeout=60):
        wait_until(lambda: self.says(words) or self.process.poll() is not None, timeout, words)
        assert self.says(words), "".join(self.said)

    def end(self, code=0, timeout=120):
        assert self.process.wait(timeout) == code, "".join(self.said)

    def kill9(self):
        self.process.kill()
        self.process.wait(20)


def same(source, target):
    rows = [row for row in source.sql("SELECT id, body FROM users") if in_ranges(row[0], TO_S1)]
    assert rows and sorted(target.sql("SELECT id, body FROM users")) == sorted(rows)


def fill(node, rows):
    node.sql(f"INSERT INTO users SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, {rows}) g")


def write_wal(node, segments):
    for _ in range(segments):
        node.sql("INSERT INTO users SELECT 1000000 + count(*), 'new' FROM users")
        node.sql("SELECT pg_switch_wal()")
    node.sql("CHECKPOINT")


def test_slows_down(cluster, tmp_path):
    """While transactions take long on the source, and did not before, copying slows down, says so, and goes on."""
    source, target = cluster.primaries
    fill(source, 3000)
    path = config(tmp_path, cluster, [USERS], (1, 0))
    record_job(path, source, "grow", MOVES)
    run = Run(path, "--until-caught-up", "--jobs", "1", "--rate", "300kB/s", "--max-load", "200%")
    wait_until(lambda: target.value("SELECT to_regclass('pgshunt.chunk') IS NOT NULL AND EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%')"),
               60, "the copy to begin")
    try:
        for setting in ("fsync = on", "commit_siblings = 0", "commit_delay = 100000"):
            source.sql(f"ALTER SYSTEM SET {setting}")
        source.sql("SELECT pg_reload_conf()")
        run.wait("copying slows down: a small transaction takes")
    finally:
        source.sql("ALTER SYSTEM RESET ALL")
        source.sql("SELECT pg_reload_conf()")
    run.end()
    same(source, target)


def test_lets_slots_catch_up(cluster, tmp_path):
    """Before a slot loses WAL, what was copied is brought up to date, and the rest is copied as of then."""
    source, target = cluster.primaries
    fill(source, 6000)
    path = config(tmp_path, cluster, [USERS], (1, 0))
    record_job(path, source, "grow", MOVES)
    run = Run(path, "--until-caught-up", "--jobs", "1", "--rate", "700kB/s", "--max-load", "off")
    wait_until(lambda: target.value("SELECT to_regclass('pgshunt.chunk') IS NOT NULL AND EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%')"),
               60, "the copy to begin")
    was = source.value("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'pgshunt_grow_s1'")
    write_wal(source, 5)
    run.wait("is brought up to date")
    wait_until(lambda: source.value("SELECT restart_lsn > %s FROM pg_replication_slots WHERE slot_name = 'pgshunt_grow_s1'", (was,)), 60, "the slot to go on")
    run.end()
    same(source, target)
    assert source.value("SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'") == 0


def lost_slot(cluster, tmp_path, when):
    """A slot that has lost WAL is told as soon as it is seen, with what to do; and that can be done."""
    source, target = cluster.primaries
    fill(source, 2000)
    path = config(tmp_path, cluster, [USERS], (1, 0))
    record_job(path, source, "grow", MOVES)
    if when == "streaming":
        ctl(path, "run", "grow", "--until-caught-up")
    else:
        run = Run(path, "--jobs", "1", "--rate", "20kB/s")
        wait_until(lambda: target.value("SELECT to_regclass('pgshunt.chunk') IS NOT NULL AND EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'COPY%')"),
                   60, "the copy to begin")
        run.kill9()
    write_wal(source, 9)
    assert source.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'pgshunt_grow_s1'") == "lost"
    refused = ctl(path, "run", "grow", "--until-caught-up", check=False)
    assert refused.returncode and "pgshunt_grow_s1" in refused.stdout + refused.stderr
    assert "reshard cancel grow" in refused.stdout + refused.stderr
    status = ctl(path, "status", "grow", check=False)
    assert "lost" in status.stdout + status.stderr and "reshard cancel grow" in status.stdout + status.stderr
    ctl(path, "cancel", "grow")
    assert source.value("SELECT count(*) FROM pg_replication_slots") == target.value("SELECT count(*) FROM users") == 0


def test_lost_slot(cluster, tmp_path):
    lost_slot(cluster, tmp_path, "streaming")


def without_a_primary_key(cluster, tmp_path, others):
    """A table without one begins anew where the copy was killed, and no row is there twice; where the target has rows of its own, they stay."""
    source, target = cluster.primaries
    for node in cluster.primaries:
        node.sql("CREATE TABLE bare (id bigint, body text); ALTER TABLE bare REPLICA IDENTITY FULL")
    fill(source, 1500)
    source.sql("INSERT INTO bare SELECT 1 + g % 900, repeat(md5((g % 7)::text), 30) FROM generate_series(1, 4000) g")
    space = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, {"name": "bare", "key": "id"}]}
    path = config(tmp_path, cluster, [space], (1, 1) if others else (1, 0))
    ranges = (0, 4000) if others else TO_S1
    own = []
    if others:  # by weights, the upper half is the target's
        own = [(key, "own") for key in range(5000, 5400) if in_ranges(key, (8192, 16383))]
        target.sql("INSERT INTO bare SELECT unnest(%s), 'own'", ([key for key, _ in own],))
        for table in ("users", "bare"):
            theirs = [key for key in range(1, 1501) if in_ranges(key, (8192, 16383))]
            source.sql(f"DELETE FROM {table} WHERE id = ANY (%s)", (theirs,))
    record_job(path, source, "grow", [("users", *ranges, "s0", "s1")])
    for _ in range(2):
        run = Run(path, "--jobs", "2", "--rate", "500kB/s", "--max-load", "off")
        wait_until(lambda: run.process.poll() is not None or target.value("SELECT to_regclass('pgshunt.chunk') IS NOT NULL") and
                   target.value("SELECT count(*) FROM pgshunt.chunk WHERE relation LIKE '%bare%'"), 60, "a chunk")
        run.kill9()
        source.sql("UPDATE bare SET body = 'new' WHERE id % 5 = 0; DELETE FROM bare WHERE id % 11 = 0; INSERT INTO bare SELECT g, 'more' FROM generate_series(1, 200) g")
    ctl(path, "run", "grow", "--until-caught-up")
    wanted = [row for row in source.sql("SELECT id, body FROM bare") if in_ranges(row[0], ranges)]
    assert len(wanted) > 500 and sorted(target.sql("SELECT id, body FROM bare")) == sorted(wanted + own)


def test_without_a_primary_key(cluster, tmp_path):
    without_a_primary_key(cluster, tmp_path, True)
