"""Servers and proxies that die while the engine stands at a named step; the whole matrix is in tests/reshard."""
import os
import signal
import subprocess
import time

import pytest

from harness import Cluster, Proxy, wait_until
from reshard_ledger import KEYSPACE, TABLES, Ledger, left_over, program, seed

with open(program(), "rb") as binary_file:
    HAS_FAILPOINTS = b"PGSHUNT_CRASH_AT" in binary_file.read()
needs_failpoints = pytest.mark.skipif(not HAS_FAILPOINTS, reason="a release build has no failpoints")

RUN_STEPS = ["run_begun", "run_ghosts", "run_prepared", "run_snapshots", "run_copied", "run_indexed", "run_reverse", "run_streams"]
TURN_STEPS = ["attempt", "hold", "drain", "lock", "marker", "sequences", "guard", "flip"]
END_STEPS = ["ending", "objects_gone", "cleared", "guards_gone"]
# "catalog" is a source that keeps the catalog, too; "engine" the command itself; "lease": nothing dies, but everybody has given up waiting.
VICTIMS = ["engine", "proxy", "source", "target", "catalog"]
MOVES = "0-4095:s2,8192-12287:s2"


def make_cluster():
    return Cluster(shards=3, replicas=0)


class Scene:
    """Three shards, two proxies, clients that write, and one job: buckets of s0 (the catalog, too) and s1 go to s2."""

    command, keyspace, weights, reference, options = "reshard", KEYSPACE, (1, 1, 0), None, None
    shard_of = {"catalog": 0, "source": 1, "target": 2}
    givers = {"switch": (0, 1), "rollback": (2,)}  # who owns what moves, until then

    def __init__(self, cluster):
        self.cluster = cluster
        self.runner = None
        self.make_tables()

    def make_tables(self):
        for node in self.cluster.primaries:
            node.sql(TABLES)

    def __enter__(self):
        self.proxies = [self.proxy(), self.proxy()]
        for proxy in self.proxies:
            self.wait_nodes(proxy)
        self.ledger = Ledger(*self.proxies)
        seed(self.ledger, self.proxies[0])
        self.ledger.__enter__()
        self.ledger.progress(40)
        return self

    def wait_nodes(self, proxy):
        proxy.wait_nodes()

    def proxy(self):
        shards = self.cluster.shard_config()
        for shard, weight in zip(shards, self.weights):
            shard["weight"] = weight
        return Proxy(self.cluster, keyspaces=[self.keyspace], reference=self.reference, database={"shards": shards}, options=self.options)

    def __exit__(self, kind, *_):
        self.ledger.__exit__()
        self.stop_runner()
        for proxy in self.proxies:
            proxy.__exit__(kind, None, None)

    # ---- commands ----

    def start(self, *args, stop_at=None):
        env = {**os.environ, "PGSHUNT_STOP_AT": stop_at} if stop_at else None
        return subprocess.Popen([program(), "-c", self.proxies[0].config_path, self.command, *args], env=env,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def ctl(self, *args, timeout=90):
        process = self.start(*args)
        try:
            said = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{args} does not end: {process.communicate()[0]}")
        return process.returncode, said

    def must(self, *args, code=0):
        status, said = self.ctl(*args)
        assert status == code, f"{args}: {status}: {said}"
        return said

    def repeat(self, *args, tries=12):
        """The command again and again, as whoever gave it would, until it is done."""
        told = []
        for _ in range(tries):
            status, said = self.ctl(*args)
            if status == 0:
                return
            told.append(said)
            time.sleep(0.5)
        raise AssertionError(f"{args} is not done by repeating it: " + "\n".join(told[-3:]))

    def state(self):
        return self.cluster.primaries[0].value("SELECT state FROM pgshunt.job WHERE name = 'job'")

    def run(self):
        """`run` in the background, until it streams."""
        self.runner = self.start("run", "job")
        try:
            wait_until(lambda: self.runner.poll() is not None or self.state() == "streaming", 60, "the job to stream")
            assert self.runner.poll() is None
        except BaseException:
            self.runner.kill()
            print(self.runner.communicate()[0])
            self.runner = None
            raise

    def stop_runner(self):
        if self.runner:
            if self.runner.poll() is None:
                self.runner.send_signal(signal.SIGINT)
            self.runner.communicate(timeout=60)
            self.runner = None

    # ---- deaths ----

    def kill(self, victim):
        """kill -9, and it comes back."""
        if victim == "proxy":
            self.proxies[0].kill9()
            self.proxies[0].start()
        elif victim == "lease":
            wait_until(lambda: not self.cluster.primaries[0].value("SELECT count(*) FROM pgshunt.hold"), 60, "the lease to end")
        else:
            node = self.cluster.primaries[self.shard_of[victim]]
            node.kill9()
            node.start()

    def kill_at(self, step, victim, *args):
        """The victim dies while the command stands at that step, and the command goes on: it may fail. What it said."""
        process = self.start(*args, stop_at=step)
        try:
            wait_stopped(process)
            if victim == "engine":
                process.kill()
            else:
                self.kill(victim)
            process.send_signal(signal.SIGCONT)
            if args[0] == "run":
                wait_until(lambda: process.poll() is not None or self.state() == "streaming", 60, f"run behind {step}")
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            return process.communicate(timeout=90)[0]
        except BaseException:
            process.kill()
            print(f"---- {args} ----\n{process.communicate()[0]}")
            raise

    # ---- what is tried ----

    def create(self):
        self.must("create", "job", "--move", MOVES)

    def forget(self):
        """The job's row, so that the next may have its name."""
        for table in ("job_move", "job_step", "job_object"):
            self.cluster.primaries[0].sql(f"DELETE FROM pgshunt.{table} WHERE job = 'job'")
        self.cluster.primaries[0].sql("DELETE FROM pgshunt.job")

    def run_survives(self, step, victim):
        """A job that began like this is as good as any other; it is cancelled then, and nothing of it is left."""
        self.create()
        self.kill_at(step, victim, "run", "job")
        self.run()
        self.ledger.progress()
        self.repeat("verify", "job", tries=3)
        self.repeat("cancel", "job", tries=3)
        self.stop_runner()
        self.nothing_is_left()
        self.forget()

    def turn_survives(self, verb, step, victim, *more):
        """A switch or rollback, which is repeated until it is done."""
        said = self.kill_at(step, victim, verb, "job", *more)
        if victim == "lease":
            self.has_given_up(verb, said)
        self.repeat(verb, "job", "--max-pause", "5s")
        assert self.state() == {"switch": "switched", "rollback": "streaming"}[verb]
        assert self.runner.poll() is None, "the runner is to go on: " + self.runner.communicate()[0]
        self.ledger.progress()

    def has_given_up(self, verb, said):
        """As it was before, and why is told."""
        assert "Gave up: all is as it was before" in said, said
        assert self.state() == {"switch": "streaming", "rollback": "switched"}[verb]
        why = self.cluster.primaries[0].value("SELECT detail FROM pgshunt.job_step WHERE step = 'gave up' ORDER BY at DESC LIMIT 1")
        assert why.split(": ", 1)[1].strip(), why
        assert self.guards(verb) == 0, "who owns the rows refuses nobody"

    def guards(self, verb):
        return sum(self.cluster.primaries[shard].value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pgshunt%guard%'")
                   for shard in self.givers[verb])

    def end_survives(self, verb, step, victim):
        """complete or cancel."""
        self.kill_at(step, victim, verb, "job")
        self.repeat(verb, "job")
        self.stop_runner()
        self.ledger.progress()
        self.nothing_is_left()
        self.forget()

    def nothing_is_left(self):
        try:
            wait_until(lambda: left_over(self.cluster) == [], 20, "nothing to be left")
        except TimeoutError:
            raise AssertionError(f"left over: {left_over(self.cluster)}")

    def judge(self):
        """When all is over."""
        self.ledger.__exit__()
        self.ledger.judge(self.cluster)


def wait_stopped(process):
    def stopped():
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] in "TZ"
    wait_until(stopped, 60, "the command to stop")
    assert process.poll() is None, "it ended before that step: " + process.communicate()[0]
