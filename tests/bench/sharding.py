#!/usr/bin/python3
"""Measures what sharding costs and gains: four shards behind pgshunt, beside one Postgres with all the rows.

    make bench-sharding                 everything (about five minutes)
    tests/bench/sharding.py --only direct,merge --rounds 5

Each part compares two things that take turns, round by round, and the figures are medians over the rounds.
On a machine with fewer CPUs than shards the shards share them: what many CPUs would do at once takes its turn. What that
hides is shown by lines next to it, each of which says how it was measured (CONTRIBUTING.md explains them).
"""
import argparse
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from contextlib import closing

import psycopg2

import bench
import sharding_copy
import sharding_direct
from bench import DATABASE, Target, close_all, median, number
from harness import Cluster, Proxy, process, wait_until

SHARDS = 4
ROUND_TRIP = 0.5  # ms, to a shard on a host of its own
HASHED = {"name": "accounts", "type": "bigint", "tables": [{"name": "accounts", "key": "aid"}]}
SETTINGS = {"max_connections": "200", "shared_buffers": "256MB", "autovacuum": "off", "work_mem": "64MB",
            "max_wal_size": "8GB", "max_prepared_transactions": "100", "jit": "off"}
OPTIONS = {"workers": 1, "log": {"connections": False}, "pool": {"size": bench.POOL_SIZE}}
EVENTS = """
CREATE TABLE events (user_id bigint, id bigint, score int, place int, happened timestamptz, note text);
"""
FILL = """
INSERT INTO events SELECT n, n::bigint * 7919 % {total}, n::bigint * 104729 % 1000003, n::bigint * 31 % {groups},
       '2026-01-01'::timestamptz + n::bigint * 1299709 % 31536000 * interval '1 second', 'note ' || n
  FROM generate_series({first}, {last}) AS n;
CREATE INDEX ON events (id);
CREATE INDEX ON events (user_id);
VACUUM ANALYZE events
"""


class Scene:
    """Four shards and one Postgres with the same rows, a proxy before each."""

    def __init__(self, options, note):
        self.options, self.note = options, note
        self.folder = tempfile.mkdtemp(prefix="pgshunt-bench-")
        process.own_folder(self.folder)
        os.chmod(self.folder, 0o755)
        self.runner = bench.Runner(self.folder, 1, options.duration)
        self.targets, self.clusters = [], []
        self.hop = None

    def open(self):
        self.note("starting five Postgres servers and two proxies")
        shards, single = (Cluster(shards=count, replicas=0, dbname=DATABASE, settings=SETTINGS)
                          for count in (SHARDS, 1))
        self.clusters = [shards, single]
        bounds = [i * self.options.rows for i in range(1, SHARDS)]
        ends = ["MINVALUE", *map(str, bounds), "MAXVALUE"]
        times = {"name": "events", "type": "bigint", "map": "range", "ranges": [
            {"from": ends[i], "to": ends[i + 1], "shard": f"s{i}"} for i in range(SHARDS)],
            "tables": [{"name": "events", "key": "user_id"}]}
        self.keyspaces = [HASHED, times, sharding_copy.KEYSPACE]
        self.sharded = self.start_proxy("sharded", shards, self.keyspaces)
        self.plain = self.start_proxy("one Postgres", single, None)
        self.fill(shards, single)
        return self

    def start_proxy(self, name, cluster, keyspaces, shards=None):
        database = {"name": DATABASE, "shards": shards or cluster.shard_config(), **({"keyspaces": keyspaces} if keyspaces else {})}
        return self.add_target(name, cluster, Proxy(cluster, dbname=DATABASE, databases=[database], options=OPTIONS))

    def add_target(self, name, cluster, proxy):
        target = Target(name, proxy.port, proxy.process, close=proxy.close)
        target.proxy, target.cluster = proxy, cluster
        wait_until(lambda: bench.session_works(proxy.port, proxy.dbname), 15.0, f"{name} answering")
        self.targets.append(target)
        return target

    def start_far(self):
        """A proxy before the same shards, as if each were on a host of its own: the target."""
        cluster = self.sharded.cluster
        shards = cluster.shard_config()
        pairs = []
        for node in (node for shard in shards for node in shard["nodes"]):
            port = process.free_port()
            pairs += ["--pair", f"{port}:{node['port']}"]
            node["port"] = port
        self.hop = process.start([os.path.join(bench.ROOT, "build", "hop"), "--delay", str(int(ROUND_TRIP * 500)), *pairs],
                                 signal.SIGTERM)
        return self.start_proxy("sharded, far", cluster, self.keyspaces, shards)

    def fill(self, shards, single):
        rows = self.options.rows
        for i, primary in enumerate(shards.primaries):
            self.note(f"filling shard {i}")
            self.fill_events(primary, i * rows, (i + 1) * rows - 1)
        self.note("filling one Postgres")
        self.fill_events(single.shards[0].primary, 0, SHARDS * rows - 1)
        for target in self.targets:
            self.fill_accounts(target)

    def fill_events(self, primary, first, last):
        total = SHARDS * self.options.rows
        primary.sql(EVENTS)
        for statement in FILL.format(first=first, last=last, total=total, groups=total // 4).split(";"):
            primary.sql(statement)

    def fill_accounts(self, target):
        """Through the proxy, so that each row is where the proxy looks for it."""
        with closing(target.proxy.connect()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE accounts (aid bigint PRIMARY KEY, balance int NOT NULL)")
            for first in range(1, 100001, 1000):
                values = ",".join(f"({aid},0)" for aid in range(first, first + 1000))
                cursor.execute(f"INSERT INTO accounts VALUES {values}")
        for primary in target.cluster.primaries:
            primary.sql("VACUUM ANALYZE accounts")

    def close(self):
        complaints = close_all(self.targets)
        if self.hop:
            process.end(self.hop, signal.SIGTERM)
        for cluster in self.clusters:
            cluster.stop()
        return complaints

    def script(self, name, text):
        path = os.path.join(self.folder, name + ".sql")
        with open(path, "w") as file:
            file.write(text)
        return ["--file", path]

    def rounds(self, what, measures):
        """Each of the measures (name -> function) in turn, the order reversed every other round."""
        values = {name: [] for name in measures}
        for turn in range(self.options.rounds):
            for name in list(measures)[::-1 if turn % 2 else 1]:
                self.note(f"{what}: {name}, round {turn + 1}")
                values[name].append(measures[name]())
        return values


def ratios(values):
    """Of the first to the second, round by round."""
    ours, theirs = values.values()
    return median(a / b for a, b in zip(ours, theirs))


# ---- a session that reads as fast as the socket gives ----

class Reader:
    """Sends a query and takes its answer unread: Python is not what is to be measured."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        body = struct.pack("!i", 196608) + f"user\0{bench.USER}\0database\0{DATABASE}\0\0".encode()
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self.answer()
        self.room = bytearray(1 << 20)

    def answer(self):
        """Bytes up to ReadyForQuery."""
        tail, total = b"", 0
        room = getattr(self, "room", None) or bytearray(1 << 16)
        while not (tail[-6:-1] == b"Z\0\0\0\5" and tail[-1:] in b"ITE"):
            n = self.socket.recv_into(room)
            if n == 0:
                raise bench.RunFailed("the proxy closed the connection")
            total += n
            tail = tail[-6:] + bytes(room[max(0, n - 200):n])
        if b"SERROR\0" in tail:
            raise bench.RunFailed(tail.decode(errors="replace"))
        return total

    def seconds(self, sql):
        message = sql.encode() + b"\0"
        started = time.monotonic()
        self.socket.sendall(b"Q" + struct.pack("!i", len(message) + 4) + message)
        self.answer()
        return time.monotonic() - started

    def close(self):
        self.socket.close()


def query_times(scene, what, sql, settings=()):
    """Seconds of one query over the shards and on one Postgres."""
    readers = {target.name: Reader(target.port) for target in (scene.sharded, scene.plain)}
    try:
        for reader in readers.values():
            for setting in settings:
                reader.seconds(setting)
            reader.seconds(sql)  # warm
        return scene.rounds(what, {name: lambda reader=reader: reader.seconds(sql)
                                   for name, reader in readers.items()})
    finally:
        for reader in readers.values():
            reader.close()


# ---- the parts: each yields lines of (what, value, unit, ratio, what it may be at most or at least; None: just told) ----

def measure_direct(scene):
    yield from sharding_direct.measure(scene, OPTIONS)


def p50(scene, script, mode="prepared"):
    return scene.runner.run_script(scene.sharded, script, mode, 1)["p50_ms"]


def scatter_rounds(scene, target, what):
    """Of a point query on all shards, and on each alone: figures of pgbench, round by round."""
    query = f"\\set id random(0, {SHARDS * scene.options.rows - 1})\n{{}}SELECT score FROM events WHERE id = :id;\n"
    names = {"all": scene.script("scatter", query.format(""))}
    for i in range(SHARDS):
        names[f"s{i}"] = scene.script(f"on_s{i}", query.format(f"/* pgshunt: shard=s{i} */ "))
    return scene.rounds(what, {name: lambda script=script: scene.runner.run_script(target, script, "prepared", 1)
                               for name, script in names.items()})


def against_slowest(values):
    """Milliseconds on all shards, and how many times as many as on the slowest alone."""
    p50s = {name: [figures["p50_ms"] for figures in rounds] for name, rounds in values.items()}
    slowest = [max(alone) for alone in zip(*(p50s[f"s{i}"] for i in range(SHARDS)))]
    return median(p50s["all"]), median(a / b for a, b in zip(p50s["all"], slowest))


def measure_scatter(scene):
    near = scatter_rounds(scene, scene.sharded, "scatter")
    value, ratio = against_slowest(near)
    yield (f"point query on 4 shards, all on {os.cpu_count()} CPUs: p50 vs the slowest one alone", value, "ms", ratio, "<= 1.3")
    used = [figures["cpu_us"] for figures in near["all"]]
    alone = [sum(near[f"s{i}"][turn]["cpu_us"] for i in range(SHARDS)) for turn in range(len(used))]
    yield ("... proxy CPU of it vs of the same on each of the 4 alone, summed", median(used), "us",
           median(a / b for a, b in zip(used, alone)), None)
    value, ratio = against_slowest(scatter_rounds(scene, scene.start_far(), f"scatter, {ROUND_TRIP} ms away"))
    yield (f"... each shard behind an emulated network of {ROUND_TRIP} ms round trip: p50", value, "ms", ratio, "<= 1.3")


def measure_limit(scene):
    sql = "SELECT * FROM events ORDER BY happened, user_id LIMIT 100"
    values = query_times(scene, "limit", sql)
    yield ("ORDER BY ... LIMIT 100 without an index vs one Postgres, as configured", median(values["sharded"]), "s",
           ratios(values), "<= 1.0")
    values = query_times(scene, "limit, serial", sql, ["SET max_parallel_workers_per_gather = 0"])
    yield ("... with parallel query off on both sides", median(values["sharded"]), "s", ratios(values), None)


def measure_group(scene):
    values = query_times(scene, "group", "SELECT place, count(*), sum(score) FROM events GROUP BY place")
    yield ("GROUP BY, a group for every 4 rows, vs one Postgres", median(values["sharded"]), "s",
           ratios(values), "<= 1.2")


def measure_merge(scene):
    total = SHARDS * scene.options.rows

    def rows_per_second(sql):
        reader = Reader(scene.sharded.port)
        before = scene.sharded.cpu_seconds()
        reader.seconds(sql)
        used = scene.sharded.cpu_seconds() - before
        reader.close()
        return total / used / 1e6

    values = scene.rounds("merge", {"merge": lambda: rows_per_second("SELECT id FROM events ORDER BY id")})
    yield "merge sorted by a bigint: rows per CPU second", median(values["merge"]), "M", None, ">= 3"


def measure_twophase(scene):
    """Two keys of different shards in one transaction, against the same two changes in a transaction each."""
    script = "\\set a random(1, 50000)\n\\set b random(50001, 100000)\n"
    change = "UPDATE accounts SET balance = balance + 1 WHERE aid = :{};\n"
    together = scene.script("together", script + "BEGIN;\n" + change.format("a") + change.format("b") + "COMMIT;\n")
    apart = scene.script("apart", script + "".join(
        "BEGIN;\n" + change.format(key) + "COMMIT;\n" for key in "ab"))
    values = scene.rounds("two-phase", {"together": lambda: p50(scene, together, "simple"),
                                        "apart": lambda: p50(scene, apart, "simple")})
    yield ("transaction on two shards: p50 vs two on one shard each", median(values["together"]), "ms",
           ratios(values), "<= 1.5")


def measure_copy(scene):
    figures = sharding_copy.measure(scene.sharded.cluster, scene.sharded.proxy, scene.options.copied)
    for name in figures:
        yield (f"COPY FROM of narrow rows, {name}: per proxy CPU second", figures[name]["mb_per_cpu_second"], "MB", None,
               ">= 300")


PARTS = {"direct": measure_direct, "scatter": measure_scatter, "limit": measure_limit, "merge": measure_merge,
         "group": measure_group, "twophase": measure_twophase, "copy": measure_copy}


# ---- command line ----

def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", metavar="PARTS", default=",".join(PARTS), help="which parts, by comma")
    parser.add_argument("--duration", type=int, default=5, help="seconds a run of pgbench lasts")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side has its turn")
    parser.add_argument("--rows", type=int, default=1000000, help="rows of a shard")
    parser.add_argument("--copied", type=int, default=sharding_copy.ROWS, help="rows that are copied")
    parser.add_argument("--json", metavar="FILE", default=os.path.join(bench.ROOT, "build", "bench-sharding.json"),
                        help="where the figures go as JSON")
    options = parser.parse_args()
    options.parts = [part for part in options.only.split(",") if part]
    for part in options.parts:
        if part not in PARTS:
            parser.error(f'--only: "{part}" is none of {", ".join(PARTS)}')
    return options


def print_line(line):
    what, value, unit, ratio, limit = line
    shown = f"{number(value, 2)} {unit}" if ratio is None else f"{number(ratio, 2)}x ({number(value, 2)} {unit})"
    print(f"{what:<76} {shown:>22}   {f'to be {limit}' if limit else ''}".rstrip(), flush=True)


def run(options):
    note, end_notes = bench.progress_printer()
    process.install_signal_handlers()
    lines, failures = [], []
    scene = Scene(options, note)
    try:
        scene.open()
        for part in options.parts:
            try:
                for line in PARTS[part](scene):
                    end_notes()
                    print_line(line)
                    lines.append(line)
            except (bench.RunFailed, psycopg2.Error, KeyError) as error:
                failures.append(f"{part}: {error!r}")
    finally:
        failures += scene.close()
        end_notes()
    for failure in failures:
        print(f"FAILED {failure}")
    bench.write_json(options.json, {
        "machine": bench.machine(), "rows": options.rows, "rounds": options.rounds, "failures": failures,
        "figures": [dict(zip(("what", "value", "unit", "ratio", "limit"), line)) for line in lines]})
    return 1 if failures else 0


def main():
    try:
        return run(parse_arguments())
    except (bench.BenchError, bench.RunFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
