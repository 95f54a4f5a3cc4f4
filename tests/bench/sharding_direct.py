"""What it costs the proxy to find a statement's shard: sharding.py's part `direct`.

A point read on a sharded table is compared with the same read on a table that is not sharded, twice:

  same servers   a proxy that has the same four servers as four databases of one shard each, every one with
                 all the rows; a quarter of the clients on each. Everything but the routing is the same: the
                 load generators, the servers, how many connections there are and from how many pools they
                 come. This is the price of routing.
  one Postgres   all clients on one server. What this differs in besides is paid to the kernel: four servers
                 are woken where one was kept busy, and their connections are used in turns four times as
                 long, so that each is found colder in the CPU's caches. Shown, because who moves from one
                 server to four sees it.
"""
import re
import signal
import subprocess

import bench
from bench import harness_cluster, median
from harness import Proxy, pg_binary, process

CLIENTS = 4  # of each of as many pgbench as there are servers
ROWS = 100000
APART = "apart"


def start_apart(cluster, options):
    """The same servers, each a database of its own: apart0, apart1, ..."""
    for primary in cluster.primaries:
        primary.sql(f"CREATE DATABASE {APART}")
        primary.sql("CREATE TABLE accounts (aid bigint PRIMARY KEY, balance int NOT NULL)", dbname=APART)
        primary.sql(f"INSERT INTO accounts SELECT n, 0 FROM generate_series(1, {ROWS}) n", dbname=APART)
        primary.sql("VACUUM ANALYZE accounts", dbname=APART)
    shards = cluster.shard_config(APART)
    return Proxy(cluster, dbname=f"{APART}0", options=options, databases=[
        {"name": f"{APART}{i}", "shards": [{**shard, "name": "s0"}]} for i, shard in enumerate(shards)])


def start_load(runner, port, database, script, mode):
    return process.start([pg_binary("pgbench"), "--no-vacuum", *script, *bench.protocol_arguments(mode),
                          "--client", str(CLIENTS), "--jobs", "1", "--time", str(runner.duration), bench.connection_string(port, database)],
                         signal.SIGKILL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         cwd=runner.folder, env=harness_cluster.tool_environment())


def transactions_of(load, timeout):
    try:
        output, errors = load.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise bench.RunFailed(f"pgbench had not ended after {timeout} s") from None
    done = re.search(r"^number of transactions actually processed: (\d+)", output, re.M)
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.M)
    if load.returncode != 0 or not done or not int(done.group(1)) or (failed and int(failed.group(1))):
        raise bench.RunFailed(errors.strip() or "pgbench: transactions failed")
    return int(done.group(1))


def cpu_us(runner, target, databases, script, mode):
    """Of the proxy, per transaction, with a pgbench on each of the databases."""
    before = target.cpu_seconds()
    loads = [start_load(runner, target.port, database, script, mode) for database in databases]
    try:
        done = sum(transactions_of(load, runner.duration + 120) for load in loads)
    finally:
        for load in loads:
            process.end(load, signal.SIGKILL)
    return (target.cpu_seconds() - before) * 1e6 / done


def measure(scene, options):
    """Lines as sharding.py has them; `options` are its proxies'."""
    cluster = scene.sharded.cluster
    apart = scene.add_target("same servers", cluster, start_apart(cluster, options))
    shards = len(cluster.primaries)
    names = [f"{APART}{i}" for i in range(shards)]
    script = scene.script("point", f"\\set aid random(1, {ROWS})\nSELECT balance FROM accounts WHERE aid = :aid;\n")
    sides = {"sharded": (scene.sharded, [bench.DATABASE] * shards), "same servers": (apart, names),
             "one Postgres": (scene.plain, [bench.DATABASE] * shards)}
    for mode in ("simple", "extended", "prepared"):
        values = scene.rounds(f"direct, {mode}", {
            name: lambda side=side, mode=mode: cpu_us(scene.runner, *side, script, mode)
            for name, side in sides.items()})
        for name, limit in (("same servers", "<= 1.05"), ("one Postgres", None)):
            ratio = median(a / b for a, b in zip(values["sharded"], values[name]))
            yield (f"direct gear, {mode}: proxy CPU vs unsharded, {name}", median(values["sharded"]), "us", ratio, limit)
