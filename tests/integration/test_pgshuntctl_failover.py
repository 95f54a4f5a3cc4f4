"""pgshuntctl failover: a planned switchover is a pause, a killed one can be run again, a forced one says what it costs."""
import fcntl
import os
import re
import signal
import subprocess
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
        cluster.shards[0].primary.sql("CREATE ROLE watcher LOGIN IN ROLE pg_monitor; CREATE ROLE stranger LOGIN")
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


def test_pgbench_sees_no_failed_transaction(shard, proxy):
    """32 clients of TPC-B: all transactions come to their end, and the sums agree."""
    subprocess.run([pg_binary("pgbench"), "-i", "-q", "-s", "4", proxy.dsn()], check=True, capture_output=True,
                   env=tool_environment())
    bench = subprocess.Popen([pg_binary("pgbench"), "-n", "-c", "32", "-j", "2", "-T", "5", proxy.dsn()], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=tool_environment())
    try:
        time.sleep(2)
        ctl(proxy, "failover", "s0", "--drain", "20s")
        out = bench.communicate(timeout=120)[0]
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == 0 and not re.search("error:|aborted", out), out
    assert "number of failed transactions: 0 " in out
    done = int(re.search(r"actually processed: (\d+)", out)[1])
    with closing(proxy.connect()) as connection:
        assert one(connection, "SELECT count(*) FROM pgbench_history") == done
        assert one(connection, "SELECT sum(delta) FROM pgbench_history") == \
            one(connection, "SELECT sum(tbalance) FROM pgbench_tellers")


class Stalled:
    """pgshuntctl on a pipe that takes one line at a time: it stands still behind the step that was asked for."""

    def __init__(self, proxy, step, *args):
        reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
        fcntl.fcntl(writer, 1031, 4096)  # F_SETPIPE_SZ: one write fits
        self.process = start_ctl(proxy, "failover", "s0", *args, stdout=writer)
        os.close(writer)
        self.reader = reader
        self.lines = []
        self.read_to(step)

    def read_to(self, step):
        """Reads up to the line ahead of the step's: its own then fills the pipe, and it goes on up to the next."""
        while not any(line.startswith(f"  {step} ") for line in self.lines):
            line = os.read(self.reader, 4096).decode()
            assert line, f"ended ahead of {step}: {self.lines}"
            self.lines.append(line)

    def kill(self):
        """When it stands still: it waits in write(2)."""
        def waits():
            with open(f"/proc/{self.process.pid}/syscall") as call:
                return call.read().startswith("1 0x1 ")

        wait_until(waits, 30.0, "standing still")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.reader)


@pytest.mark.parametrize("step", ["approach", "hold", "drain", "fence", "end sessions", "promote", "recognize"])
def test_killed_run_can_be_run_again(shard, proxy, step):
    """kill -9, when the step behind the next one has been done and not been told of: clients wait, and the next run comes
    to the same end."""
    old, before = shard.primary, total(shard.primary)
    with Load(proxy, counting, clients=4) as load:
        load.wait_progress(20)
        stalled = Stalled(proxy, step)
        stalled.kill()
        ran = ctl(proxy, "failover", "s0")
        load.wait_progress(20)
    assert load.errors == [], ran
    new = next(node for node in shard.nodes if node.port == primary_of(proxy))
    assert new is not old, ran
    assert total(new) == before + load.done
    assert not any(int(row["held_ms"]) for row in proxy.show("NODES"))
    wait_until(lambda: len(streaming(new)) == 1, 20.0, "the other replica follows")


def test_interrupted_run_takes_everything_back(shard, proxy):
    with closing(proxy.connect(autocommit=False)) as connection:
        connection.cursor().execute("UPDATE counted SET n = n + 1 WHERE id = 1")
        running = start_ctl(proxy, "failover", "s0", "--drain", "60s")
        wait_until(lambda: any(int(row["held_ms"]) for row in proxy.show("NODES")), 20.0, "held")
        running.send_signal(signal.SIGINT)
        out = running.communicate(timeout=60)[0]
        assert running.returncode == 130, out
        assert "the proxies go on" in out and "all is as before" in out
        connection.rollback()
    assert primary_of(proxy) == shard.primary.port
    assert not any(int(row["held_ms"]) for row in proxy.show("NODES"))


def test_transaction_that_does_not_end(shard, proxy):
    """It is waited for, then all is as before; --terminate ends it instead."""
    old = shard.primary
    with closing(proxy.connect(autocommit=False)) as connection:
        connection.cursor().execute("UPDATE counted SET n = n + 1 WHERE id = 1")
        ran = ctl(proxy, "failover", "s0", "--drain", "300ms", code=1)
        assert "still open: pid " in ran.out and "--terminate" in ran.out
        assert not any(int(row["held_ms"]) for row in proxy.show("NODES"))
        one(connection, "SELECT n FROM counted WHERE id = 1")
        connection.commit()
    assert proxy.value("SHOW default_transaction_read_only") == "off"
    with closing(proxy.connect(autocommit=False)) as connection:
        connection.cursor().execute("UPDATE counted SET n = n + 1 WHERE id = 1")
        before = total(old)
        ctl(proxy, "failover", "s0", "--drain", "300ms", "--terminate")
        with pytest.raises(psycopg2.OperationalError):
            connection.commit()
    new = next(node for node in shard.nodes if node.port == primary_of(proxy))
    assert new is not old and total(new) == before


def test_undo_after_a_kill(shard, proxy):
    Stalled(proxy, "fence").kill()
    assert shard.primary.value("SHOW default_transaction_read_only") == "on"
    ctl(proxy, "failover", "s0", "--undo")
    assert shard.primary.value("SHOW default_transaction_read_only") == "off"
    with closing(proxy.connect()) as connection:
        counting(connection)
    assert primary_of(proxy) == shard.primary.port


def test_to_and_back(shard, proxy):
    """A replica that was an old primary is no longer read-only when it is promoted again."""
    target = shard.replicas[1]
    for node in shard.replicas:  # as somebody leaves it who only adds standby.signal
        node.set("default_transaction_read_only", "on")
    ran = ctl(proxy, "failover", "app.s0", "--to", address(target), "--json").json
    assert ran["outcome"] == "done" and primary_of(proxy) == target.port
    with closing(proxy.connect()) as connection:
        counting(connection)
    assert any(event["kind"] == "todo" and "pg_ctl" in event["mend"] for event in ran["events"])
    # the second run has nothing to do, and does no harm
    assert "earlier failover" in ctl(proxy, "failover", "s0").out
    assert primary_of(proxy) == target.port


def test_replica_keeps_its_slot(shard, proxy):
    """The slot that another replica uses is made on the new primary."""
    target, other = shard.replicas
    shard.primary.sql("SELECT pg_create_physical_replication_slot('kept', true)")
    other.set("primary_slot_name", "kept")
    try:
        ctl(proxy, "failover", "s0", "--to", address(target))
        wait_until(lambda: target.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'kept'") == [(True,)], 20.0,
                   "the slot in use")
    finally:
        other.set("primary_slot_name", "")
        wait_until(lambda: len(streaming(target)) == 1, 20.0, "streaming without a slot")
        wait_until(lambda: not target.value("SELECT count(*) FROM pg_replication_slots WHERE active"), 20.0, "slot free")
        target.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def obstacles(proxy, *args):
    ran = ctl(proxy, "failover", "s0", "--dry-run", "--json", *args, code=3)
    assert all(event["mend"] for event in ran.json["events"] if event["kind"] == "obstacle"), ran
    return " | ".join(ran.texts("obstacle"))


def test_what_is_in_the_way(shard, proxy):
    """All obstacles at once, each with what mends it; and nothing is done."""
    first, second = shard.replicas
    assert "not dead" in obstacles(proxy, "--force")
    assert "is no node of shard" in obstacles(proxy, "--to", "10.9.9.9:5432")
    assert "proxy 127.0.0.1:1" in obstacles(proxy, "--proxy", "127.0.0.1:1", "--proxy", f"127.0.0.1:{proxy.port}")
    assert "no right to promote" in obstacles(proxy, "--user", "watcher")
    assert "no right to see" in obstacles(proxy, "--user", "stranger")
    assert "no primary of shard s0 answers" in obstacles(proxy, "--user", "nobody")
    first.pause_replay()
    second.set_apply_delay("1h")
    shard.primary.sql("CREATE TABLE IF NOT EXISTS other (id int)")
    try:
        text = obstacles(proxy)
        assert "is paused" in text and "recovery_min_apply_delay" in text and "no replica" in text
    finally:
        first.resume_replay()
        second.set_apply_delay("0")
    first.set("synchronous_standby_names", "nobody")
    try:
        assert "commits would wait for ever" in obstacles(proxy, "--to", address(first))
    finally:
        first.set("synchronous_standby_names", "")
    ran = ctl(proxy, "failover", "s0", "--dry-run")
    assert "Nothing is in the way." in ran.out and "would be done" in ran.out
    assert "no shard" in ctl(proxy, "failover", "s7", code=3).out
    assert primary_of(proxy) == shard.primary.port


def test_forgotten_proxy_is_noticed(cluster, shard, proxy):
    with Proxy(cluster) as other:
        other.wait_nodes()
        assert "2 proxies watch this shard, but 1 is known" in obstacles(proxy)
        both = ["--proxy", f"127.0.0.1:{proxy.port}", "--proxy", f"127.0.0.1:{other.port}"]
        with Load(proxy, counting, clients=2) as one_load, Load(other, counting, clients=2) as other_load:
            one_load.wait_progress(10)
            ctl(proxy, "failover", "s0", *both)
            one_load.wait_progress(10)
            other_load.wait_progress(10)
        assert one_load.errors == [] and other_load.errors == []
        assert primary_of(proxy) == primary_of(other)


def test_only_one_at_a_time(shard, proxy):
    with closing(proxy.connect(autocommit=False)) as connection:
        connection.cursor().execute("UPDATE counted SET n = n + 1 WHERE id = 1")
        first = start_ctl(proxy, "failover", "s0", "--drain", "60s")
        wait_until(lambda: any(int(row["held_ms"]) for row in proxy.show("NODES")), 20.0, "held")
        assert "another failover" in ctl(proxy, "failover", "s0", code=3).out
        connection.commit()
    out = first.communicate(timeout=60)[0]
    assert first.returncode == 0, out


def test_forced(shard, proxy):
    """A dead primary: refused where a commit may be lost, unless told; synchronous replication proves that none is."""
    old = shard.primary
    with closing(proxy.connect()) as connection:
        counting(connection)
        assert "if it is dead for good" not in ctl(proxy, "failover", "s0", "--dry-run").out
    before = total(old)
    shard.cluster.sync()
    assert "not dead, but of no use" in obstacles(proxy, "--force", "--user", "nobody")
    old.kill9()
    assert "--force" in ctl(proxy, "failover", "s0", code=3).out
    ran = ctl(proxy, "failover", "s0", "--force", code=3)
    assert "may be lost" in ran.out and "--accept-data-loss" in ran.out
    ran = ctl(proxy, "failover", "s0", "--force", "--accept-data-loss")
    new = next(node for node in shard.nodes if node.port == primary_of(proxy))
    assert new is not old and total(new) == before
    assert len(streaming(new)) == 1
    assert "does not answer" in ran.out
    with closing(proxy.connect()) as connection:
        counting(connection)


def test_forced_with_synchronous_replication(shard, proxy):
    old = shard.primary
    for node in shard.nodes:
        node.set("synchronous_standby_names", f"ANY 1 ({', '.join(other.name for other in shard.nodes if other is not old)})")
    try:
        wait_until(lambda: old.value("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'") == 2, 10.0,
                   "synchronous")
        with closing(proxy.connect()) as connection:
            counting(connection)
        before = total(old)
        old.kill9()
        ran = ctl(proxy, "failover", "s0", "--force")
        assert "has every commit" in ran.out
        new = next(node for node in shard.nodes if node.port == primary_of(proxy))
        assert total(new) == before
    finally:
        for node in shard.nodes:
            if node.running():
                node.set("synchronous_standby_names", "")
