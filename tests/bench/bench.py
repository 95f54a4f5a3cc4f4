#!/usr/bin/python3
"""Measures pgshunt side by side with direct Postgres, a bare relay and PgBouncer, in one run.

    make bench                          everything (about 20 minutes)
    make bench-quick                    every target, protocol and workload once (about a minute)
    tests/bench/bench.py --only select-only,prepared,16 --rounds 5

The targets take turns within each round, so that what disturbs the machine disturbs all of them. The
figures are medians over the rounds. Transactions per second and latencies move with whatever else the
machine does; *proxy CPU per transaction* (time its threads were on a CPU, divided by transactions)
holds still, and the ratios to the relay and to PgBouncer are taken round by round.
"""
import argparse
import datetime
import glob
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))

import connections  # noqa: E402
from harness import Cluster, Proxy, free_port, pg_binary, process, wait_until  # noqa: E402
from harness import cluster as harness_cluster  # noqa: E402
from harness import proxy as harness_proxy  # noqa: E402

# name -> pgbench's name for it, share of latencies logged (writing each would disturb what is measured)
WORKLOADS = {"select-only": ("select-only", 0.1), "tpcb": ("tpcb-like", 1.0)}
MODES = ("simple", "extended", "prepared", "reconnect")  # the last: simple, a connection a transaction
CLIENTS = (1, 16, 128)
TARGETS = ("direct", "relay", "pgbouncer", "pgshunt")
BASELINES = ("relay", "pgbouncer")
POOL_SIZE = 20
CPU_LIMIT = 1.3  # what pgshunt may cost, as a multiple of the relay
USER = "postgres"
DATABASE = "app"


# ---- what is measured against ----

class Target:
    """Something that clients connect to. `process` is None for Postgres itself: it has no proxy CPU."""

    def __init__(self, name, port, child=None, close=None):
        self.name, self.port, self.process, self.close = name, port, child, close or (lambda: None)

    def refuses(self, mode):
        """Why this target cannot run that protocol mode, or None."""
        if self.name == "pgbouncer" and mode == "prepared":
            return "needs PgBouncer 1.21 or newer for prepared statements in transaction pooling"
        return None

    def cpu_seconds(self):
        """CPU time of all its threads so far; None if there is no proxy."""
        if self.process is None:
            return None
        if self.process.poll() is not None:
            raise RunFailed(f"{self.name} had ended by itself with {self.process.returncode}")
        return scheduled_seconds(self.process.pid) or stat_seconds(self.process.pid)


class BenchError(Exception):
    """Something that makes the whole run pointless; the message is for the person who started it."""


def scheduled_seconds(pid):
    """From schedstat, in nanoseconds where the kernel keeps it (per thread: the process' own file is
    about its first thread alone); 0.0 where it does not."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path) as file:
                total += int(file.read().split()[0])
        except (OSError, IndexError):  # a thread that just ended
            pass
    return total / 1e9


def stat_seconds(pid):
    """utime + stime, in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_program(name, argv, port, folder, user=None):
    """Starts a proxy and waits until a session through it works."""
    log_path = os.path.join(folder, f"{name}.log")
    with open(log_path, "ab") as log:
        child = process.start(argv, signal.SIGKILL, user=user, stdout=log, stderr=log, cwd="/")
    target = Target(name, port, child, close=lambda: process.end(child, signal.SIGTERM))
    try:
        wait_until(lambda: child.poll() is not None or session_works(port), 15.0, f"{name} answering")
        if child.poll() is not None:
            raise BenchError(f"{name} ended with {child.returncode}")
    except (TimeoutError, BenchError) as error:
        with open(log_path, errors="replace") as log:
            raise BenchError(f"{error}; its log:\n{log.read()[-3000:]}") from None
    return target


def session_works(port, dbname=DATABASE):
    done = subprocess.run([pg_binary("psql"), "-XAtqc", "SELECT 1", connection_string(port, dbname)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          env=harness_cluster.tool_environment(), timeout=15)
    return done.stdout.strip() == b"1"


def connection_string(port, dbname=DATABASE):
    return (f"host=127.0.0.1 port={port} user={USER} dbname={dbname} "
            "sslmode=disable gssencmode=disable connect_timeout=10")


def start_relay(server_port, folder, workers):
    binary = os.environ.get("RELAY") or os.path.join(ROOT, "build", "relay")
    if not os.path.exists(binary):
        raise BenchError(f"{binary} is missing: run `make` first")
    port = free_port()
    return start_program("relay", [binary, "--listen", str(port), "--to", f"127.0.0.1:{server_port}",
                                   "--workers", str(workers)], port, folder)


def pgbouncer_binary():
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/sbin")


def start_pgbouncer(server_port, folder):
    """PgBouncer refuses to run as root: it gets the servers' user and a folder of that user's."""
    home = os.path.join(folder, "pgbouncer")
    port = free_port()
    os.makedirs(home)
    with open(os.path.join(home, "users.txt"), "w") as users:
        users.write(f'"{USER}" ""\n')
    with open(os.path.join(home, "pgbouncer.ini"), "w") as config:
        config.write(f"[databases]\n"
                     f"{DATABASE} = host=127.0.0.1 port={server_port} dbname={DATABASE}\n"
                     f"[pgbouncer]\n"
                     f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
                     f"auth_type = trust\nauth_file = {home}/users.txt\n"
                     f"pool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 20000\n"
                     f"log_connections = 0\nlog_disconnections = 0\n")
    harness_cluster.give_to_server(home)
    return start_program("pgbouncer", [pgbouncer_binary(), os.path.join(home, "pgbouncer.ini")], port,
                         folder, user=harness_cluster.server_user())


def start_pgshunt(cluster, workers, name="pgshunt", routing=None):
    proxy = Proxy(cluster, dbname=DATABASE,
                  options={"workers": workers, "limits": {"max_clients": 20000},
                           "log": {"connections": False}, "routing": routing or {},
                           "pool": {"mode": "transaction", "size": POOL_SIZE}})
    try:
        wait_until(lambda: session_works(proxy.port), 15.0, "pgshunt answering")
    except TimeoutError as error:
        raise BenchError(f"{error}; its log:\n{proxy.log_tail()}") from None
    return Target(name, proxy.port, proxy.process, close=proxy.close)


def start_targets(wanted, cluster, folder, workers):
    """The wanted targets that are there, and why the others are not."""
    server_port = cluster.shards[0].primary.port
    targets, missing = [], {}
    for name in wanted:
        if name == "direct":
            targets.append(Target(name, server_port))
        elif name == "relay":
            targets.append(start_relay(server_port, folder, workers))
        elif name == "pgbouncer" and not pgbouncer_binary():
            missing[name] = "not installed (Debian: apt-get install pgbouncer)"
        elif name == "pgbouncer":
            targets.append(start_pgbouncer(server_port, folder))
        elif not os.path.exists(harness_proxy.binary()):
            missing[name] = f"{harness_proxy.binary()} is not built"
        else:
            targets.append(start_pgshunt(cluster, workers))
    return targets, missing


# ---- one run of pgbench ----

class Runner:
    """Runs pgbench and turns what it says into figures."""

    def __init__(self, folder, scale, duration):
        self.folder, self.scale, self.duration = folder, scale, duration

    def initialize(self, port):
        self._pgbench(["--initialize", "--quiet", "--scale", str(self.scale)], port, timeout=600)

    def warm_up(self, target):
        self._pgbench(["--no-vacuum", "--select-only", "--client", "4", "--time", "1"], target.port, 60)

    def run(self, target, workload, mode, clients):
        """One round: a dict of figures, or {"error": text}."""
        builtin, sampling_rate = WORKLOADS[workload]
        return self.run_script(target, ["--builtin", builtin], mode, clients, sampling_rate)

    def run_script(self, target, script, mode, clients, sampling_rate=1.0):
        """run(), of what pgbench's arguments `script` say."""
        logs = tempfile.mkdtemp(prefix="latency-", dir=self.folder)
        arguments = ["--no-vacuum", *script, *protocol_arguments(mode),
                     "--client", str(clients), "--jobs", str(min(clients, 2)),
                     "--time", str(self.duration), "--log", "--log-prefix", os.path.join(logs, "log"),
                     "--sampling-rate", str(sampling_rate)]
        try:
            before = target.cpu_seconds()
            output = self._pgbench(arguments, target.port, timeout=self.duration + 120)
            after = target.cpu_seconds()
            figures = self._figures(output, read_latencies(logs))
        except RunFailed as failure:
            return {"error": str(failure)}
        finally:
            shutil.rmtree(logs, ignore_errors=True)
        if before is not None:
            figures["cpu_us"] = (after - before) * 1e6 / figures["transactions"]
        return figures

    def _pgbench(self, arguments, port, timeout):
        child = process.start([pg_binary("pgbench"), *arguments, connection_string(port)], signal.SIGKILL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
                              env=harness_cluster.tool_environment())
        try:
            output, errors = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"pgbench had not ended after {timeout} s") from None
        finally:
            process.end(child, signal.SIGKILL)
        complaint = re.search(r"^.*(error|fatal|aborted).*$", errors, re.M | re.I)
        if child.returncode != 0 or complaint:
            raise RunFailed(complaint.group(0) if complaint else f"pgbench: exit {child.returncode}")
        return output

    @staticmethod
    def _figures(output, latencies):
        tps = re.search(r"^tps = ([\d.]+)", output, re.M)
        transactions = re.search(r"^number of transactions actually processed: (\d+)", output, re.M)
        failed = re.search(r"^number of failed transactions: (\d+)", output, re.M)
        if not tps or not transactions or int(transactions.group(1)) == 0:
            raise RunFailed("no transaction was processed")
        if failed and int(failed.group(1)):
            raise RunFailed(f"{failed.group(1)} transactions failed")
        figures = {"tps": float(tps.group(1)), "transactions": int(transactions.group(1)),
                   "samples": len(latencies)}
        for percent in (50, 95, 99):
            figures[f"p{percent}_ms"] = percentile(latencies, percent)
        return figures


def protocol_arguments(mode):
    return ["--protocol", "simple", "--connect"] if mode == "reconnect" else ["--protocol", mode]


class RunFailed(Exception):
    """One round went wrong; the others may still be of use."""


def read_latencies(folder):
    """Sorted, in milliseconds. A log line: client, transaction, microseconds, script, when."""
    latencies = []
    for path in glob.glob(os.path.join(folder, "log.*")):
        with open(path) as file:
            latencies += [int(line.split()[2]) / 1000.0 for line in file if line.count(" ") >= 5]
    latencies.sort()
    return latencies


def percentile(values, percent):
    """Nearest rank; None without values."""
    if not values:
        return None
    return values[min(len(values) - 1, max(0, -(-len(values) * percent // 100) - 1))]


# ---- the plan ----

def parse_only(texts):
    """--only as {dimension: set of values}; a dimension without a word is not limited."""
    known = {name: ("workload", name) for name in WORKLOADS}
    known.update({"select": ("workload", "select-only")})
    known.update({mode: ("mode", mode) for mode in MODES})
    known.update({str(count): ("clients", count) for count in CLIENTS})
    known.update({name: ("target", name) for name in TARGETS})
    known["connections"] = ("part", "connections")
    known["splitting"] = ("part", "splitting")
    chosen = {}
    for word in re.split(r"[,/\s]+", ",".join(texts)):
        if not word:
            continue
        if word not in known:
            raise BenchError(f'--only: "{word}" is none of {", ".join(sorted(known))}')
        dimension, value = known[word]
        chosen.setdefault(dimension, set()).add(value)
    return chosen


def plan_cells(only, quick):
    """(workload, mode, clients) in the order of the table. Quick leaves out most of tpcb, whose figures
    are about the disk and row locks more than about the proxy."""
    def wanted(dimension, value):
        return dimension not in only or value in only[dimension]

    cells = [(workload, mode, clients) for workload in WORKLOADS for mode in MODES for clients in CLIENTS
             if wanted("workload", workload) and wanted("mode", mode) and wanted("clients", clients)
             and (mode != "reconnect" or (workload, clients) == ("select-only", 16))]
    if set(only) == {"part"}:
        return []
    if quick and not only:
        cells = [cell for cell in cells if cell[0] == "select-only" or cell[2] == 16]
    return cells


def measure(runner, cells, targets, rounds, primary, results, note):
    """Fills results[cell][target name] with one dict of figures a round."""
    total = sum(1 for cell in cells for target in targets if not target.refuses(cell[1])) * rounds
    done = 0
    for turn in range(rounds):
        first = turn % len(targets)
        for cell in cells:
            workload, mode, clients = cell
            if workload == "tpcb":  # every round starts from tables of the same size
                tidy_tpcb(primary)
            for target in targets[first:] + targets[:first]:
                if target.refuses(mode):
                    continue
                done += 1
                note(f"[{done}/{total}] round {turn + 1}: {workload}, {mode}, {clients} clients, "
                     f"{target.name}")
                figures = runner.run(target, workload, mode, clients)
                results.setdefault(cell, {}).setdefault(target.name, []).append(figures)


def tidy_tpcb(primary):
    primary.sql("TRUNCATE pgbench_history")
    primary.sql("VACUUM pgbench_branches, pgbench_tellers, pgbench_accounts")


# ---- what came out ----

def summarize(cell, by_target, targets):
    """One row a target: medians over its good rounds, and the ratios of CPU taken round by round."""
    rows = []
    for target in targets:
        rounds = by_target.get(target.name, [])
        row = {"workload": cell[0], "mode": cell[1], "clients": cell[2], "target": target.name,
               "rounds": rounds, "errors": [each["error"] for each in rounds if "error" in each]}
        reason = target.refuses(cell[1])
        if reason:
            row["not_applicable"] = reason
        for name in ("tps", "p50_ms", "p95_ms", "p99_ms", "cpu_us"):
            row[name] = median(each.get(name) for each in rounds)
        for baseline in BASELINES:
            row[f"cpu_vs_{baseline}"] = median(map(ratio, rounds, by_target.get(baseline, [])))
        rows.append(row)
    return rows


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    if not ours.get("cpu_us") or not theirs.get("cpu_us"):
        return None
    return ours["cpu_us"] / theirs["cpu_us"]


def print_table(rows):
    header = (f"{'clients':>9}  {'target':<10}{'tps':>9}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}"
              f"{'CPU us/tx':>12}{'/ relay':>10}{'/ pgbouncer':>14}")
    group, clients = None, None
    for row in rows:
        if (row["workload"], row["mode"]) != group:
            group, clients = (row["workload"], row["mode"]), None
            print(f"\n{group[0]}, {group[1]} protocol\n{header}\n{'-' * len(header)}")
        label = "" if row["clients"] == clients else str(row["clients"])
        if label and clients is not None:
            print()
        clients = row["clients"]
        print(f"{label:>9}  {row['target']:<10}{row_text(row)}")


def row_text(row):
    if "not_applicable" in row:
        return f"{'n/a':>9}"
    if row["tps"] is None:
        return f"  {row['errors'][0] if row['errors'] else 'not run'}"[:80]
    text = f"{row['tps']:9,.0f}"
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        text += f"{number(row[name], 3):>10}"
    text += f"{number(row['cpu_us'], 1):>12}{number(row['cpu_vs_relay'], 2):>10}"
    text += f"{number(row['cpu_vs_pgbouncer'], 2):>14}"
    return text + (f"  ({len(row['errors'])} failed)" if row["errors"] else "")


def number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def print_verdict(rows, missing):
    print()
    for name, reason in missing.items():
        print(f"{name}: left out, {reason}")
    for reason in sorted({f"{row['target']}, {row['mode']} protocol: n/a, {row['not_applicable']}"
                          for row in rows if "not_applicable" in row}):
        print(reason)
    for row in rows:
        for error in row["errors"]:
            print(f"FAILED {row['workload']}, {row['mode']}, {row['clients']} clients, {row['target']}: "
                  f"{error}")
    for baseline in BASELINES:
        ratios = [(row[f"cpu_vs_{baseline}"], row) for row in rows
                  if row["target"] == "pgshunt" and row[f"cpu_vs_{baseline}"] is not None]
        if ratios:
            worst, row = max(ratios, key=lambda pair: pair[0])
            limit = f"; to be at most {CPU_LIMIT}" if baseline == "relay" else ""
            print(f"pgshunt's CPU per transaction / {baseline}'s: median {median(r for r, _ in ratios):.2f}, "
                  f"worst {worst:.2f} ({row['workload']}, {row['mode']}, {row['clients']} clients){limit}")


def machine():
    model = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cpus": len(os.sched_getaffinity(0)), "kernel": platform.release(),
            "load_at_start": os.getloadavg()[0]}


def version_of(binary):
    if not binary or not os.path.exists(binary):
        return None
    done = subprocess.run([binary, "--version"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines()[0].strip() if done.stdout else None


def describe(options):
    return {"started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {"postgres": version_of(pg_binary("postgres")),
                         "pgbouncer": version_of(pgbouncer_binary()),
                         "pgshunt": version_of(harness_proxy.binary())},
            "settings": {"duration_s": options.duration, "rounds": options.rounds, "scale": options.scale,
                         "workers": options.workers, "pool_size": POOL_SIZE, "fsync": "off"}}


def write_json(path, report):
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w") as file:
        json.dump(report, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


# ---- command line ----

def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of one second, fewer cells")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS",
                        help="limit to workloads, protocol modes, client counts, targets, 'connections' and 'splitting', for instance "
                             "select-only,prepared,16,relay,pgshunt")
    parser.add_argument("--duration", type=int, help="seconds a run lasts (5, quick: 1)")
    parser.add_argument("--rounds", type=int, help="how often every target has its turn (3, quick: 1)")
    parser.add_argument("--scale", type=int, default=10, help="pgbench scale factor")
    parser.add_argument("--workers", type=int, default=1,
                        help="threads of relay and pgshunt; PgBouncer has one")
    parser.add_argument("--json", metavar="FILE", default=os.path.join(ROOT, "build", "bench.json"),
                        help="where the figures go as JSON")
    options = parser.parse_args()
    options.duration = options.duration if options.duration is not None else 1 if options.quick else 5
    options.rounds = options.rounds if options.rounds is not None else 1 if options.quick else 3
    for name in ("duration", "rounds", "scale", "workers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def progress_printer():
    """On a terminal one line that is overwritten; otherwise a line a run, on stderr."""
    tty = sys.stderr.isatty()

    def note(text):
        sys.stderr.write(f"\r\033[K{text}" if tty else f"{text}\n")
        sys.stderr.flush()

    return note, lambda: sys.stderr.write("\r\033[K" if tty else "")


def bench(options):
    only = parse_only(options.only)
    cells = plan_cells(only, options.quick)
    wanted = [name for name in TARGETS if name in only.get("target", TARGETS)]
    note, end_notes = progress_printer()
    process.install_signal_handlers()
    folder = tempfile.mkdtemp(prefix="pgshunt-bench-")
    process.own_folder(folder)
    os.chmod(folder, 0o755)
    report = describe(options)
    results, targets, missing, interrupted = {}, [], {}, False
    note("starting Postgres and the proxies")
    cluster = Cluster(shards=1, replicas=0, dbname=DATABASE,
                      settings={"max_connections": "300", "shared_buffers": "256MB", "autovacuum": "off"})
    try:
        primary = cluster.shards[0].primary
        runner = Runner(folder, options.scale, options.duration)
        runner.initialize(primary.port)
        primary.sql("VACUUM ANALYZE")
        targets, missing = start_targets(wanted, cluster, folder, options.workers)
        for target in targets:
            runner.warm_up(target)
        measure(runner, cells, targets, options.rounds, primary, results, note)
        parts = only.get("part") or (set() if only or options.quick else {"connections", "splitting"})
        if "connections" in parts:
            report["connections"] = measure_connections(runner, targets, options.rounds, note)
        if "splitting" in parts:
            report["splitting"] = measure_splitting(runner, options, note)
    except KeyboardInterrupt:  # what there is gets shown
        interrupted = True
    finally:
        complaints = close_all(targets)
        cluster.stop()
        end_notes()
    rows = [row for cell in cells if cell in results for row in summarize(cell, results[cell], targets)]
    report.update(results=rows, missing=missing, complaints=complaints, complete=not interrupted)
    print_report(report, rows)
    write_json(options.json, report)
    print(f"figures of every round: {os.path.relpath(options.json)}")
    if interrupted:
        print("interrupted: this is what there was")
        return 130
    return 1 if complaints or any(row["errors"] for row in rows) else 0


def measure_connections(runner, targets, rounds, note):
    if not connections.allow_sockets():
        return None
    return connections.measure(targets, runner, USER, DATABASE, rounds, note)


def measure_splitting(runner, options, note):
    """What routing costs: the same reads with read/write splitting on and off, in front of a primary with a replica. The
    two proxies take turns; per protocol the CPU time of each round's transactions, and the median of the ratios."""
    figures = {}
    with Cluster(shards=1, replicas=1, dbname=DATABASE, settings={"max_connections": "300", "autovacuum": "off"}) as cluster:
        runner.initialize(cluster.shards[0].primary.port)
        cluster.sync()
        targets = []
        try:
            for name, mode in (("splitting on", "aggressive"), ("splitting off", "off")):
                targets.append(start_pgshunt(cluster, options.workers, name, {"read_write_split": mode}))
                runner.warm_up(targets[-1])
            for mode in MODES[:3]:
                rounds = {target.name: [] for target in targets}
                for turn in range(options.rounds):
                    for target in targets if turn % 2 else targets[::-1]:
                        note(f"{target.name}: {mode}, round {turn + 1}")
                        rounds[target.name].append(runner.run(target, "select-only", mode, 16))
                figures[mode] = {"rounds": rounds, "ratio": median(map(ratio, *rounds.values()))}
        finally:
            complaints = close_all(targets)
    return {"modes": figures, "complaints": complaints}


def print_splitting(splitting):
    print("\nread/write splitting on and off, select-only, 16 clients: proxy CPU us/tx, and their ratio")
    for mode, figures in splitting["modes"].items():
        on, off = (median(each.get("cpu_us") for each in rounds) for rounds in figures["rounds"].values())
        print(f"{mode:>9}  {number(on, 2):>8}{number(off, 2):>8}{number(figures['ratio'], 3):>8}")
        for name, rounds in figures["rounds"].items():
            for error in (each["error"] for each in rounds if "error" in each):
                print(f"FAILED {name}, {mode}: {error}")
    for complaint in splitting["complaints"]:
        print(f"FAILED {complaint}")


def close_all(targets):
    """Ends the proxies; what one of them has to say at its end does not cost us the figures."""
    complaints = []
    for target in targets:
        try:
            target.close()
        except (harness_proxy.ProxyFailed, OSError, subprocess.TimeoutExpired) as error:
            complaints.append(f"{target.name}, when it was to end: {error}")
    return complaints


def print_report(report, rows):
    settings, hardware = report["settings"], report["machine"]
    print(f"{report['versions']['postgres']} on {hardware['cpus']} x {hardware['cpu']}; "
          f"load {hardware['load_at_start']:.1f} at the start")
    print(f"scale {settings['scale']}, {settings['rounds']} round(s) of {settings['duration_s']} s, medians; "
          f"pools of {POOL_SIZE}, {settings['workers']} worker(s), fsync off")
    print_table(rows)
    if report.get("connections"):
        connections.print_figures(report["connections"], median)
    if report.get("splitting"):
        print_splitting(report["splitting"])
    print_verdict(rows, report["missing"])
    for complaint in report["complaints"]:
        print(f"FAILED {complaint}")


def main():
    try:
        return bench(parse_arguments())
    except (BenchError, RunFailed, harness_proxy.ProxyFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    start = time.monotonic()
    status = main()
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(status)
