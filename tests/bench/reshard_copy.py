"""Resharding's copy and verify beside plain tools, on two local servers.

    copy      a table's moving rows by `pgshuntctl`'s engine   vs   psql COPY ... TO STDOUT | psql COPY ... FROM STDIN
              of the same rows, binary, the same number of jobs; the target has its primary key in both
    verify    both sides of the job compared: MB of table data a second of the engine's CPU

Prints a table; --json FILE writes the numbers. Usage: reshard_copy.py [--rows N] [--jobs N] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "integration")]
os.environ.setdefault("PGSHUNT", str(ROOT / "build" / "pgshunt"))

from harness import Cluster  # noqa: E402
from harness.cluster import pg_binary  # noqa: E402
from reshard_support import config, record_job, tool  # noqa: E402

SPACE = {"name": "users", "type": "bigint", "tables": [{"name": "accounts", "key": "aid"}]}
TABLE = "CREATE TABLE accounts (aid bigint PRIMARY KEY, bid int, abalance int, filler char(84))"


def by_psql(source, target, jobs):
    """Ranges of pages, `jobs` at once, each piped from one psql into another. Seconds."""
    pages = source.value("SELECT pg_relation_size('accounts') / 8192")
    step = (pages + jobs - 1) // jobs
    began = time.monotonic()
    pipes = []
    for job in range(jobs):
        high = f" AND ctid < '({(job + 1) * step},0)'" if job + 1 < jobs else ""
        read = subprocess.Popen([pg_binary("psql"), "-X", "-d", source.dsn(), "-c",
                                 f"COPY (SELECT * FROM accounts WHERE ctid >= '({job * step},0)'{high}) TO STDOUT (FORMAT binary)"],
                                stdout=subprocess.PIPE)
        pipes.append((read, subprocess.Popen([pg_binary("psql"), "-X", "-q", "-d", target.dsn(), "-c", "COPY accounts FROM STDIN (FORMAT binary)"],
                                             stdin=read.stdout)))
        read.stdout.close()
    for read, write in pipes:
        if read.wait() or write.wait():
            raise RuntimeError("psql failed")
    return time.monotonic() - began


def run(*args, text=None):
    """Seconds, CPU seconds and the most memory (MB) of a program."""
    began = time.monotonic()
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if text:
        process.stdin.write(text)
    process.stdin.close()
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(out)
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Cluster(shards=2, replicas=0) as cluster, tempfile.TemporaryDirectory() as folder:
        source, target = cluster.primaries
        for node in (source, target):
            node.sql(TABLE)
        source.sql(f"INSERT INTO accounts SELECT g, g % 100, 0, '' FROM generate_series(1, {options.rows}) g")
        source.psql("-c", "VACUUM ANALYZE accounts")
        megabytes = source.value("SELECT pg_relation_size('accounts')") / 1e6
        path = config(pathlib.Path(folder), cluster, [SPACE], (1, 0))
        record_job(path, source, "move", [("users", 0, 16383, "s0", "s1")])
        rounds = {"psql": [], "engine": []}
        for _ in range(3):  # by turns
            target.sql("TRUNCATE accounts")
            rounds["psql"].append(by_psql(source, target, options.jobs))
            target.sql("TRUNCATE accounts; DROP SCHEMA IF EXISTS pgshunt CASCADE")
            source.sql("DROP TABLE IF EXISTS pgshunt.ghost_users")
            seconds, cpu, memory = run(tool("reshard_copy"), path, "app", "move", str(options.jobs), "0", "0", "1", "0", text="\n")
            rounds["engine"].append(seconds)
        target.sql("TRUNCATE accounts; DROP SCHEMA IF EXISTS pgshunt CASCADE")
        ctl = str(ROOT / "build" / "pgshuntctl")
        run_seconds, _, run_memory = run(ctl, "-c", path, "reshard", "run", "move", "--until-caught-up", "--jobs", str(options.jobs))
        verify_seconds, verify_cpu, verify_memory = run(ctl, "-c", path, "reshard", "verify", "move", "--jobs", str(options.jobs))
    best = {name: min(seconds) for name, seconds in rounds.items()}
    figures = {
        "rows": options.rows, "jobs": options.jobs, "table MB": round(megabytes),
        "psql MB/s": round(megabytes / best["psql"], 1), "engine MB/s": round(megabytes / best["engine"], 1),
        "engine vs psql": round(best["psql"] / best["engine"], 2), "copy memory MB": round(memory, 1), "copy CPU s": round(cpu, 2),
        "run s": round(run_seconds, 1), "run memory MB": round(run_memory, 1),
        "verify MB/s": round(2 * megabytes / verify_seconds, 1), "verify MB/s of engine CPU": round(2 * megabytes / verify_cpu, 1),
        "verify memory MB": round(verify_memory, 1),
    }
    for name, value in figures.items():
        print(f"{name:28} {value:>10}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"figures": figures, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
