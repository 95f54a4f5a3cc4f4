#!/usr/bin/python3
"""The pause that clients see when buckets change their owner, and what fails: pgbench's TPC-B-like load on keys that all move.

    tests/bench/reshard_switch.py [--turns N] [--clients N]

Two shards; everything is on one, and goes to the other and back, N times, with autovacuum at work. A turn's pause
is the longest transaction that was under way between its command's start and end; the normal one is the
same over as long a time right before it.
"""
import argparse
import glob
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from harness import Cluster, Proxy, wait_until  # noqa: E402
from harness.cluster import pg_binary  # noqa: E402

ACCOUNTS = 100_000
KEYSPACE = {"name": "bank", "type": "bigint", "tables": [{"name": name, "key": "aid"} for name in ("accounts", "history")]}
TABLES = ("CREATE TABLE accounts (aid bigint PRIMARY KEY, balance bigint NOT NULL, filler char(84));"
          "CREATE TABLE history (aid bigint, id uuid DEFAULT gen_random_uuid(), delta int, at timestamptz DEFAULT now(), PRIMARY KEY (aid, id));"
          "ALTER TABLE accounts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)")
SCRIPT = f"""\\set aid random(1, {ACCOUNTS})
\\set delta random(-5000, 5000)
BEGIN;
UPDATE accounts SET balance = balance + :delta WHERE aid = :aid;
SELECT balance FROM accounts WHERE aid = :aid;
INSERT INTO history (aid, delta) VALUES (:aid, :delta);
END;
"""


def ctl(proxy, *args):
    return [os.path.join(ROOT, "build", "pgshuntctl"), "-c", proxy.config_path, "reshard", *args]


def state(cluster):
    return cluster.primaries[0].value("SELECT state FROM pgshunt.job WHERE name = 'bench'")


def longest(transactions, begin, end):
    """Of those that were under way between two times, the longest in ms."""
    return max((latency for ended, latency in transactions if ended >= begin and ended - latency / 1000 <= end), default=0.0)


def read_log(folder):
    """(end in seconds, latency in ms) of every transaction."""
    transactions = []
    for path in glob.glob(os.path.join(folder, "log*")):
        with open(path, encoding="ascii") as log:
            for line in log:
                fields = line.split()
                if len(fields) < 6 or not line.endswith("\n"):
                    continue  # the last one: pgbench was ended
                transactions.append((int(fields[4]) + int(fields[5]) / 1e6, int(fields[2]) / 1000))
    return transactions


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--turns", type=int, default=20)
    options.add_argument("--clients", type=int, default=16)
    options = options.parse_args()
    settings = {"autovacuum_naptime": "1s", "autovacuum_vacuum_cost_delay": "0"}
    with Cluster(shards=2, replicas=0, settings=settings) as cluster, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        for node in cluster.primaries:
            node.sql(TABLES)
        shards = cluster.shard_config()
        shards[1]["weight"] = 0
        with Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards}) as proxy:
            proxy.wait_nodes()
            proxy.sql(f"INSERT INTO accounts SELECT i, 0, 'x' FROM generate_series(1, {ACCOUNTS}) i")
            script = os.path.join(folder, "script.sql")
            with open(script, "w", encoding="ascii") as out:
                out.write(SCRIPT)
            subprocess.run(ctl(proxy, "create", "bench", "--move", "0-16383:s1"), check=True)
            runner = subprocess.Popen(ctl(proxy, "run", "bench"), stdout=subprocess.DEVNULL)
            load = subprocess.Popen([pg_binary("pgbench"), "-n", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "postgres",
                                     "-c", str(options.clients), "-j", "2", "-T", "3600", "-M", "prepared", "-f", script,
                                     "-l", "--log-prefix", os.path.join(folder, "log"), "app"],
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            wait_until(lambda: state(cluster) == "streaming", 300, "the job to stream")
            turns = []
            for number in range(options.turns):
                time.sleep(2)
                verb = "rollback" if number % 2 else "switch"
                began = time.time()
                done = subprocess.run(ctl(proxy, verb, "bench"), capture_output=True, text=True, check=False)
                turns.append((began, time.time(), verb, done.returncode))
                if done.returncode:
                    print(f"{verb}: {done.stdout}{done.stderr}")
            time.sleep(1)
            load.terminate()
            said = load.communicate()[0]
            runner.terminate()
            runner.wait()
            transactions = read_log(folder)
            pauses, normal = [], []
            for began, ended, verb, code in turns:
                pauses.append(longest(transactions, began, ended))
                normal.append(longest(transactions, 2 * began - ended, began - 0.01))
                print(f"{verb:9} exit {code}  took {1000 * (ended - began):6.0f} ms  longest transaction {pauses[-1]:6.1f} ms, before {normal[-1]:6.1f} ms")
            failed = said.count("ERROR") + said.count("aborted")
            print(f"\n{len(transactions)} transactions; pause median {statistics.median(pauses):.0f} ms, worst {max(pauses):.0f} ms "
                  f"(without a switch: {statistics.median(normal):.0f}, {max(normal):.0f}); failed statements: {failed}")
            total = proxy.value("SELECT sum(balance) FROM accounts") - proxy.value("SELECT sum(delta) FROM history")
            print(f"balances against history: {'equal' if total == 0 else f'{total} apart'}")


if __name__ == "__main__":
    main()
