#!/usr/bin/python3
"""What applications are left while a shard is copied: transactions a second before the copy and during it, with the throttle as it is by default.

    tests/bench/reshard_foreground.py [--seconds N] [--clients N] [--rows N] [--json FILE] [--quick]

pgbench's TPC-B-like load on the keys that move, through the proxy; everything is on one machine, the targets and the engine too.
Before and during take turns: the copy is paused and resumed, so that both meet the same other load.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "bench")]

from harness import Cluster, Proxy, wait_until  # noqa: E402
from harness.cluster import pg_binary  # noqa: E402
from reshard_switch import KEYSPACE, TABLES, ctl, read_log, state  # noqa: E402

SCRIPT = """\\set aid random(1, {rows})
\\set delta random(-5000, 5000)
BEGIN;
UPDATE accounts SET balance = balance + :delta WHERE aid = :aid;
SELECT balance FROM accounts WHERE aid = :aid;
INSERT INTO history (aid, delta) VALUES (:aid, :delta);
END;
"""


def copied(cluster):
    return cluster.primaries[1].value("SELECT coalesce(sum(bytes), 0)::bigint FROM pgshunt.chunk WHERE relation <> ''")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=5, help="of each turn")
    options.add_argument("--turns", type=int, default=6)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--rows", type=int, default=6_000_000)
    options.add_argument("--quick", action="store_true", help="fewer rows and turns")
    options.add_argument("--max-load", help="as of reshard run")
    options.add_argument("--json", help="file for the figures")
    options, _ = options.parse_known_args()
    if options.quick:
        options.rows, options.turns = 1_500_000, 2
    with Cluster(shards=2, replicas=0, settings={"max_wal_size": "8GB"}) as cluster, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        for node in cluster.primaries:
            node.sql(TABLES)
        shards = cluster.shard_config()
        shards[1]["weight"] = 0
        with Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards}) as proxy:
            proxy.wait_nodes()
            cluster.primaries[0].sql(f"INSERT INTO accounts SELECT i, 0, 'x' FROM generate_series(1, {options.rows}) i; CHECKPOINT")
            script = os.path.join(folder, "script.sql")
            with open(script, "w", encoding="ascii") as out:
                out.write(SCRIPT.format(rows=options.rows))
            load = subprocess.Popen([pg_binary("pgbench"), "-n", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "postgres",
                                     "-c", str(options.clients), "-j", "2", "-T", "3600", "-M", "prepared", "-f", script,
                                     "-l", "--log-prefix", os.path.join(folder, "log"), "app"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            time.sleep(2)
            subprocess.run(ctl(proxy, "create", "bench", "--move", "0-16383:s1"), check=True, stdout=subprocess.DEVNULL)
            more = ["--max-load", options.max_load] if options.max_load else []
            runner = subprocess.Popen(ctl(proxy, "run", "bench", *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda: state(cluster) == "copying", 60, "the copy")
            spans = []
            for _ in range(options.turns):
                for verb in ("pause", "resume"):
                    subprocess.run(ctl(proxy, verb, "bench"), check=True, stdout=subprocess.DEVNULL)
                    time.sleep(1.5)  # it looks every second
                    bytes_before, began = copied(cluster), time.time()
                    time.sleep(options.seconds)
                    spans.append((verb, began, time.time(), copied(cluster) - bytes_before))
                if state(cluster) != "copying":
                    spans = spans[:-2]  # it ended in this turn
                    break
            load.terminate()
            said = load.communicate()[0]
            runner.terminate()
            runner.wait()
            transactions = read_log(folder)
            rates = {verb: [sum(1 for at, _ in transactions if begin <= at < end) / (end - begin) for what, begin, end, _ in spans if what == verb]
                     for verb in ("pause", "resume")}
            if not rates["resume"]:
                sys.exit("the copy was over before it could be measured: more --rows")
            without, during = statistics.median(rates["pause"]), statistics.median(rates["resume"])
            speed = sum(size for verb, _, _, size in spans if verb == "resume") / (options.seconds * len(rates["resume"])) / 1e6
            failed = said.count("ERROR") + said.count("aborted")
            print(f"foreground: {without:,.0f} transactions a second without the copy, {during:,.0f} during it: {during / without:.0%} "
                  f"(must be 85 %); copied {speed:.1f} MB/s; failed statements: {failed}")
            if options.json:
                with open(options.json, "w", encoding="ascii") as file:
                    json.dump({"foreground": {"without": without, "during": during, "ratio": during / without, "copy_mb_per_s": speed}}, file, indent=1)
    return 0 if during >= 0.85 * without and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
