"""pgshuntctl partition, and servers, that die while it stands at a named step; the whole matrix is in tests/reshard."""
import datetime
import os
import signal
import subprocess

import pytest

from ctl_support import command, ctl
from harness import Cluster, Proxy, wait_until
from reshard_kills import wait_stopped
from reshard_ledger import program

with open(program(), "rb") as binary_file:
    HAS_FAILPOINTS = b"PGSHUNT_CRASH_AT" in binary_file.read()
needs_failpoints = pytest.mark.skipif(not HAS_FAILPOINTS, reason="a release build has no failpoints")

CREATE_STEPS = ["partition_reshaping", "partition_reshaped", "partition_policy", "partition_making", "partition_made"]
MAINTAIN_STEPS = ["partition_looked", "partition_making", "partition_made", "partition_recorded", "partition_detached", "partition_gone",
                  "partition_struck_out", "partition_done"]
DEFAULT_STEPS = ["partition_making", "partition_made", "partition_recorded", "partition_detached", "partition_gone"]
EXPIRIES = ["drop", "detach", "archive:attic"]
TABLES = ["made", "kept", "rest"]
KEYSPACES = [{"name": "users", "type": "bigint", "tables": [{"name": name, "key": "user_id"} for name in TABLES]}]
FIRST = datetime.date(2026, 1, 10)
ROWS = 40  # of each day


def make_cluster():
    return Cluster(shards=2, replicas=0)


class Scene:
    """Tables by day that keep three days; each step is a day later."""

    def __init__(self, cluster):
        self.cluster = cluster

    def __enter__(self):
        self.proxy = Proxy(self.cluster, keyspaces=KEYSPACES, options={"partition": {"schedule": ""}})
        self.proxy.wait_nodes()
        return self

    def __exit__(self, kind, *_):
        self.proxy.__exit__(kind, None, None)

    def ctl(self, *args, **more):
        return ctl(self.proxy, "partition", *args, **more)

    def killed(self, step, victim, *args):
        """The command with somebody dying at that step: itself, or the server of a shard, which comes back."""
        if victim == "command":
            ran = self.ctl(*args, environment={"PGSHUNT_CRASH_AT": step}, code=None)
            assert ran.code == -signal.SIGKILL, (step, ran)
            return
        process = subprocess.Popen(command(self.proxy.config_path, "partition", *args), env={**os.environ, "PGSHUNT_STOP_AT": step},
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_stopped(process)
            node = self.cluster.primaries[victim]
            node.kill9()
            node.start()
            process.send_signal(signal.SIGCONT)
            process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
        self.proxy.wait_nodes()

    def until_done(self, *args):
        """Again, as whoever gave the command would; a backend of one that was killed may be at its last statement."""
        ran = []
        wait_until(lambda: ran.append(self.ctl(*args, code=None)) or ran[-1].code == 0, 60, f"{args} to be done")

    # ---- what is tried ----

    def create_survives(self, step, victim):
        self.proxy.sql("CREATE TABLE made (user_id bigint NOT NULL, at date NOT NULL, PRIMARY KEY (user_id, at))")
        create = ("create", "made", "--by", "at", "--every", "1day", "--ahead", "2", "--start", str(FIRST - datetime.timedelta(days=2)), "--now", str(FIRST))
        self.killed(step, victim, *create)
        recorded = self.cluster.primaries[0].value("SELECT to_regclass('pgshunt.partition_policy') IS NOT NULL", dbname="app") and \
            self.cluster.primaries[0].value("SELECT count(*) FROM pgshunt.partition_policy", dbname="app")
        if recorded:
            self.until_done("maintain", "made", "--now", str(FIRST))
            # What is before the present one is made last: a run makes what is to come.
            self.until_done("drop-policy", "made")
        self.until_done(*create)
        self.is_whole("made", [FIRST + datetime.timedelta(days=day) for day in range(-2, 3)])
        self.proxy.sql(f"INSERT INTO made SELECT g, '{FIRST}' FROM generate_series(1, {ROWS}) g")
        assert self.proxy.value("SELECT count(*) FROM made") == ROWS
        self.ctl("drop-policy", "made")
        self.proxy.sql("DROP TABLE made")

    def begin(self, table, expiry, default="off"):
        self.proxy.sql(f"CREATE TABLE {table} (user_id bigint NOT NULL, at date NOT NULL, body text CHECK (body <> ''), PRIMARY KEY (user_id, at))")
        self.ctl("create", table, "--by", "at", "--every", "1day", "--ahead", "2", "--keep", "3days", "--on-expiry", expiry, "--default", default,
                 "--now", str(FIRST))
        for day in range(3):
            self.fill(table, FIRST + datetime.timedelta(days=day))
        self.day = FIRST
        while self.day < FIRST + datetime.timedelta(days=3):
            self.tomorrow(table)

    def end(self, table):
        self.ctl("drop-policy", table)
        self.proxy.sql(f"DROP TABLE {table}")

    def fill(self, table, day):
        self.proxy.sql(f"INSERT INTO {table} SELECT g, '{day}', 'x' FROM generate_series(1, {ROWS}) g")

    def tomorrow(self, table, default=False):
        """One day on; with a default partition the rows of its last day are there before their partition is."""
        self.day += datetime.timedelta(days=1)
        last = self.day + datetime.timedelta(days=2)
        if default:
            self.fill(table, last)
        else:
            self.ctl("maintain", table, "--now", str(self.day))
            self.fill(table, last)

    def maintain_survives(self, table, step, victim, expiry, default=False):
        """A run a day later, which makes one partition and takes one away on each shard, is killed; the next finishes."""
        self.day += datetime.timedelta(days=1)
        days = [self.day + datetime.timedelta(days=day) for day in range(-3, 3)]
        if default:
            self.fill(table, days[-1])
        self.killed(step, victim, "maintain", table, "--now", str(self.day))
        self.until_done("maintain", table, "--now", str(self.day))
        if not default:
            self.fill(table, days[-1])
        self.is_whole(table, days)
        assert self.proxy.sql(f"SELECT at, count(*) FROM {table} GROUP BY at ORDER BY at") == [(day, ROWS) for day in days]
        gone = f"{table}_p{days[0] - datetime.timedelta(days=1):%Y%m%d}"
        where = {"drop": None, "detach": f"public.{gone}", "archive:attic": f"attic.{gone}"}[expiry]
        found = [node.value("SELECT string_agg(oid::regclass::text, ' ') FROM pg_class WHERE relname = %s", (gone,), dbname="app")
                 for node in self.cluster.primaries]
        assert found == [where and where.replace("public.", "")] * 2
        if where:
            assert sum(node.value(f"SELECT count(*) FROM {where}", dbname="app") for node in self.cluster.primaries) == ROWS
            for node in self.cluster.primaries:
                node.sql(f"DROP TABLE {where}", dbname="app")
        self.ctl("check", table, "--now", str(self.day))

    def is_whole(self, table, days):
        """The partitions of these days on every shard, and nothing that a run leaves behind."""
        for node in self.cluster.primaries:
            names = [name for name, in node.sql(
                "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass AND NOT inhdetachpending"
                " AND pg_get_expr(relpartbound, pg_class.oid) <> 'DEFAULT' ORDER BY 1", (table,), dbname="app")]
            assert names == [f"{table}_p{day:%Y%m%d}" for day in days]
            assert left_over(node, table) == []


def left_over(node, table):
    """Plain tables, constraints, records, locks: none of them is to outlive a run."""
    found = node.sql(
        "SELECT 'pending', inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending UNION ALL "
        "SELECT 'plain', relname FROM pg_class WHERE relname LIKE %(t)s || '\\_p%%' AND relkind = 'r' AND NOT relispartition"
        "  AND relnamespace = 'public'::regnamespace AND oid NOT IN (SELECT oid FROM pg_class WHERE relname < (SELECT min(relname) FROM"
        "  pg_inherits JOIN pg_class p ON p.oid = inhrelid WHERE inhparent = %(t)s::regclass)) UNION ALL "
        "SELECT 'constraint', conname FROM pg_constraint WHERE contype = 'c' AND conrelid IN (SELECT inhrelid FROM pg_inherits WHERE"
        "  inhparent = %(t)s::regclass) AND conname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid = %(t)s::regclass) UNION ALL "
        "SELECT 'lock', pid::text FROM pg_locks WHERE locktype = 'advisory' UNION ALL "
        "SELECT 'prepared', gid FROM pg_prepared_xacts", {"t": table}, dbname="app")
    if node.value("SELECT to_regclass('pgshunt.partition_leaving') IS NOT NULL", dbname="app"):
        found += node.sql("SELECT 'leaving', shown FROM pgshunt.partition_leaving", dbname="app")
    return found
