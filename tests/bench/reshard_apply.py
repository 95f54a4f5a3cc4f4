#!/usr/bin/env python3
"""How fast a stream applies changes, beside Postgres' own subscription on the same changes: a table, and JSON with --json FILE.

    make && python3 tests/bench/reshard_apply.py [--quick] [--json FILE]

Both start when the changes are all there, and end when the last is on the target. All rows move, so that both apply the same. The
subscription has binary values, streaming, and a slot of its own; servers have fsync off.
"""
import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.join(TESTS, "integration")]
from harness import Cluster, pg_binary  # noqa: E402
from harness.cluster import tool_environment  # noqa: E402
from harness.process import wait_until  # noqa: E402
from reshard_support import Stream, config, record_job  # noqa: E402

TABLES = {"accounts": "aid", "tellers": "aid", "branches": "aid", "history": "aid"}
SPACE = {"name": "users", "type": "bigint", "tables": [{"name": name, "key": key} for name, key in TABLES.items()]}
BRANCHES = 10

TPCB = """\\set aid random(1, {rows})
\\set tid random(1, {tellers})
\\set bid random(1, {branches})
\\set delta random(-5000, 5000)
BEGIN;
UPDATE accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE tellers SET tbalance = tbalance + :delta WHERE aid = :tid;
UPDATE branches SET bbalance = bbalance + :delta WHERE aid = :bid;
INSERT INTO history (aid, tid, bid, delta, mtime) VALUES (:aid, :tid, :bid, :delta, CURRENT_TIMESTAMP);
END;
"""


def cpu(pid):
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Run:
    def __init__(self, cluster, folder, scale):
        self.cluster, self.folder, self.rows = cluster, folder, 100000 * scale
        self.source, self.target = cluster.primaries
        self.count = 0

    def fill(self):
        """The same rows on both sides."""
        for node in (self.source, self.target):
            node.sql("DROP TABLE IF EXISTS accounts, tellers, branches, history")
            node.sql("CREATE TABLE accounts (aid bigint PRIMARY KEY, bid int, abalance int, filler char(84))")
            node.sql("CREATE TABLE tellers (aid bigint PRIMARY KEY, tbalance int, filler char(84)); "
                     "CREATE TABLE branches (aid bigint PRIMARY KEY, bbalance int, filler char(88))")
            node.sql("CREATE TABLE history (hid bigint GENERATED ALWAYS AS IDENTITY, aid bigint, tid int, bid int, delta int, mtime timestamp, "
                     "filler char(22), PRIMARY KEY (hid, aid))")
            node.sql(f"INSERT INTO accounts SELECT g, g % {BRANCHES}, 0, '' FROM generate_series(1, {self.rows}) g; "
                     f"INSERT INTO tellers SELECT g, 0, '' FROM generate_series(1, {10 * BRANCHES}) g; "
                     f"INSERT INTO branches SELECT g, 0, '' FROM generate_series(1, {BRANCHES}) g")
            node.sql("VACUUM ANALYZE")
            node.sql("CHECKPOINT")

    def pgbench(self, transactions):
        script = self.folder / "tpcb.sql"
        script.write_text(TPCB.format(rows=self.rows, tellers=10 * BRANCHES, branches=BRANCHES))
        subprocess.run([pg_binary("pgbench"), "-n", "-M", "prepared", "-c", "4", "-t", str(transactions // 4), "-f", script,
                        "-h", self.source.host, "-p", str(self.source.port), "-U", "postgres", "app"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=tool_environment())

    def change(self, workload, amount):
        """Row changes that are to be applied."""
        if workload == "pgbench":
            self.pgbench(amount)
            return 4 * amount
        with contextlib.closing(self.source.connect()) as connection, connection.cursor() as cursor:  # each statement is a transaction
            if workload == "inserts":  # of 100 rows each
                for start in range(0, amount, 100):
                    cursor.execute("INSERT INTO history (aid, tid, bid, delta, mtime) SELECT g, 1, 1, g, now() FROM generate_series(%s, %s) g",
                                   (start + 1, start + 100))
            elif workload == "large":
                cursor.execute(f"UPDATE accounts SET abalance = abalance + 1 WHERE aid <= {amount}")
        return amount

    def wait(self):
        """Until a row written last is there."""
        self.count += 1
        self.source.sql("INSERT INTO branches VALUES (%s, 0, '')", (1000 + self.count,))
        return lambda: self.target.value("SELECT count(*) FROM branches WHERE aid = %s", (1000 + self.count,)) > 0

    def check(self):
        for table in TABLES:
            query = f"SELECT count(*), sum(hashtextextended({table}::text, 0)) FROM {table}"
            assert self.source.sql(query) == self.target.sql(query), table

    def native(self, workload, amount):
        self.fill()
        self.source.sql(f"CREATE PUBLICATION bench FOR TABLE {', '.join(TABLES)}")
        self.source.sql("SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
        self.target.sql(f"CREATE SUBSCRIPTION bench CONNECTION '{self.source.dsn()}' PUBLICATION bench WITH "
                        "(connect = false, slot_name = 'bench', binary = true, streaming = true)")
        changes = self.change(workload, amount)
        there = self.wait()
        # Tables are ready without a copy: they were filled alike.
        self.target.sql("INSERT INTO pg_subscription_rel SELECT s.oid, c.oid, 'r', NULL FROM pg_subscription s, pg_class c "
                        "WHERE c.oid = ANY (%s::regclass[])", (list(TABLES),), options="-c allow_system_table_mods=on")
        began = time.monotonic()
        self.target.sql("ALTER SUBSCRIPTION bench ENABLE")
        wait_until(there, 600, "the subscription", interval=0.02)
        took = time.monotonic() - began
        used = cpu(self.target.value("SELECT pid FROM pg_stat_subscription"))
        self.check()
        self.target.sql("ALTER SUBSCRIPTION bench DISABLE")
        wait_until(lambda: not self.source.value("SELECT active FROM pg_replication_slots"), 30, "its end")
        self.target.sql("ALTER SUBSCRIPTION bench SET (slot_name = NONE)")
        self.target.sql("DROP SUBSCRIPTION bench")
        self.source.sql("SELECT pg_drop_replication_slot('bench')")
        self.source.sql("DROP PUBLICATION bench")
        return changes / took, used

    def ours(self, workload, amount):
        self.fill()
        path = config(self.folder, self.cluster, [SPACE], (1, 0))
        record_job(path, self.source, "grow", [("users", 0, 16383, "s0", "s1")], "streaming")
        Stream(path, "grow", "s0", "s1").stop()  # makes what it needs
        for node in (self.source, self.target):  # the keys of rows that are there, as the copy leaves them
            node.sql("INSERT INTO pgshunt.ghost_users SELECT aid FROM accounts")
        # The subscription's slot is made behind the rows: neither reads what filled the tables.
        for _ in range(2):
            self.source.sql("CHECKPOINT")
            self.source.sql("SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots")
        changes = self.change(workload, amount)
        there = self.wait()
        with Stream(path, "grow", "s0", "s1") as stream:  # has opened its sessions, as a subscription's worker would
            began = time.monotonic()
            wait_until(there, 600, "the stream", interval=0.02)
            took = time.monotonic() - began
            state = stream.state()
            used = cpu(stream.process.pid) + sum(cpu(pid) for pid, in self.target.sql(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgshunt reshard'"))
        assert not state["missed_updates"] and not state["missed_deletes"], state
        self.check()
        wait_until(lambda: not self.source.value("SELECT active FROM pg_replication_slots"), 30, "its end")
        self.source.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        self.source.sql("DROP PUBLICATION pgshunt_grow; DROP SCHEMA pgshunt CASCADE")
        self.target.sql("SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin")
        self.target.sql("DROP SCHEMA pgshunt CASCADE")
        return changes / took, used, state["memory"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--only", help="pgbench, inserts, large: one of them")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args()
    part = 10 if options.quick else 1
    figures = {}
    print(f"{'changes applied':<34} {'subscription':>13} {'stream':>13} {'ratio':>7} {'CPU of each, on the target':>27}")
    with Cluster(shards=2, replicas=0, settings={"max_wal_size": "8GB", "autovacuum": "off"}) as cluster, tempfile.TemporaryDirectory() as folder:
        run = Run(cluster, pathlib.Path(folder), 4 // min(part, 4))
        for workload, amount, text in (("pgbench", 40000 // part, "pgbench transactions, of 4 changes"), ("inserts", 300000 // part, "transactions of 100 inserts"),
                                       ("large", 400000 // part, "one large UPDATE")):
            if options.only and options.only != workload:
                continue
            native, native_cpu = run.native(workload, amount)
            ours, ours_cpu, memory = run.ours(workload, amount)
            figures[workload] = {"subscription_rows_per_s": native, "stream_rows_per_s": ours, "ratio": ours / native, "memory_kb": memory,
                                 "subscription_cpu_s": native_cpu, "stream_cpu_s": ours_cpu}
            print(f"{text:<34} {native:>11,.0f}/s {ours:>11,.0f}/s {ours / native:>6.2f}x {native_cpu:>8.2f} s {ours_cpu:>8.2f} s", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file, indent=1)
    return 0 if all(figure["ratio"] >= 1 for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
