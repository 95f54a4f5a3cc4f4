#!/usr/bin/env python3
"""What partitions cost: a table, and JSON with --json FILE.

    make && python3 tests/bench/partitions.py [--quick] [--only nothing|create|load] [--json FILE]

nothing  500 tables on 4 shards with 100 partitions each: `maintain` with nothing to do, its time and memory, and what a run and a
         look for metrics add to the daemon's memory
create   10,000 partitions made by `maintain`, beside psql with the same statements, all shards at once on both sides
load     clients insert through the proxy and read for long on all shards, while partitions are made, attached, detached, dropped and
         archived: what each statement had to wait, rows counted

Servers have fsync off. But for the load, the shards are databases of one server.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.join(TESTS, "integration")]
from harness import Cluster, Proxy, pg_binary  # noqa: E402
from harness.cluster import tool_environment  # noqa: E402
from harness.process import wait_until  # noqa: E402
import partition_load  # noqa: E402
from ctl_support import command, ctl  # noqa: E402

SHARDS = 4
LOCK_TIMEOUT = 0.2
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "8GB", "autovacuum": "off", "max_locks_per_transaction": "1024",
            "synchronous_commit": "off", "wal_level": "replica"}


# ---- the setting ----

def keyspace(tables):
    return {"name": "users", "type": "bigint", "tables": [{"name": table, "key": "user_id"} for table in tables]}


def shards(node, name):
    return [{"name": f"s{i}", "dbname": f"{name}{i}", "nodes": [{"host": node.host, "port": node.port}]} for i in range(SHARDS)]


def proxy_for(node, name, tables, **partition):
    database = {"name": "app", "shards": shards(node, name), "keyspaces": [keyspace(tables)]}
    return Proxy(databases=[database], options={"partition": {"schedule": "", "interval": "10min", **partition}})


def clone(node, template, name):
    for i in range(SHARDS):
        node.sql(f"CREATE DATABASE {name}{i} TEMPLATE {template} STRATEGY file_copy", dbname="postgres")


def drop(node, name):
    for i in range(SHARDS):
        node.sql(f"DROP DATABASE {name}{i} WITH (FORCE)", dbname="postgres")


# Policies are like those that `partition create` records: most by month in UTC, every tenth in another zone, every tenth by id.
KINDS = {0: ("timestamptz", "Europe/Berlin"), 1: ("id", "UTC")}

FILL = """
CREATE PROCEDURE fill(first int, last int, partitions int) LANGUAGE plpgsql AS $$
DECLARE zone text; b text; e text;
BEGIN
  FOR t IN first .. last LOOP
    zone := CASE t % 10 WHEN 0 THEN 'Europe/Berlin' ELSE 'UTC' END;
    IF t % 10 = 1 THEN
      EXECUTE format('CREATE TABLE t%s (id bigint NOT NULL, user_id bigint NOT NULL, body text) PARTITION BY RANGE (id)', t);
    ELSE
      EXECUTE format('CREATE TABLE t%s (at timestamptz NOT NULL, user_id bigint NOT NULL, body text) PARTITION BY RANGE (at)', t);
    END IF;
    FOR p IN 0 .. partitions - 1 LOOP
      IF t % 10 = 1 THEN
        b := p * 1000; e := (p + 1) * 1000;
      ELSE
        b := (date_trunc('month', now() AT TIME ZONE zone) + (p - partitions + 5) * interval '1 month') AT TIME ZONE zone;
        e := (date_trunc('month', now() AT TIME ZONE zone) + (p - partitions + 6) * interval '1 month') AT TIME ZONE zone;
      END IF;
      EXECUTE format('CREATE TABLE t%s_p%s PARTITION OF t%s FOR VALUES FROM (%L) TO (%L)', t, p, t, b, e);
    END LOOP;
    IF t % 10 = 1 THEN
      EXECUTE format('INSERT INTO t%s VALUES (%s, 1)', t, (partitions - 4) * 1000 - 1);
    END IF;
    COMMIT;
  END LOOP;
END $$"""


def build(node, tables, partitions):
    """A database `many` with all of it; two sessions at once."""
    node.sql("CREATE DATABASE many", dbname="postgres")
    node.sql(FILL, dbname="many")
    half = tables // 2
    threads = [threading.Thread(target=node.sql, args=(f"CALL fill({first}, {last}, {partitions})",), kwargs={"dbname": "many"})
               for first, last in ((1, half), (half + 1, tables))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for catalog in ("pg_class", "pg_inherits"):
        node.sql(f"VACUUM ANALYZE {catalog}", dbname="many")
    assert node.value("SELECT count(*) FROM pg_inherits", dbname="many") == tables * partitions


def record_policies(node, proxy, name, tables, kinds=KINDS):
    """One by the command, which makes the catalog; the others like it."""
    node.sql("CREATE TABLE first_of_all (at timestamptz NOT NULL)", dbname=f"{name}0")
    ctl(proxy, "partition", "create", "first_of_all", "--by", "at", "--every", "1month")
    ctl(proxy, "partition", "drop-policy", "first_of_all")
    for i in range(1, tables + 1):
        control, zone = kinds.get(i % 10, ("timestamptz", "UTC"))
        is_id = control == "id"
        node.sql("INSERT INTO pgshunt.partition_policy (database, schema_name, table_name, column_name, control, every, ahead, on_expiry,"
                 " timezone, has_default, name_format) VALUES ('app', 'public', %s, %s, %s, %s, 4, 'detach', %s, false, %s)",
                 (f"t{i}", "id" if is_id else "at", control, "1000" if is_id else "1 month", zone, "_p%i" if is_id else "_p%Y%m%d"),
                 dbname=f"{name}0")


# ---- processes ----

def memory(pid, what):
    """Bytes, of /proc: VmHWM, VmRSS."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
    return 0


def measured(proxy, *args):
    """A pgshuntctl: (seconds, most bytes resident, exit code, output)."""
    began = time.monotonic()
    process = subprocess.Popen(command(proxy.config_path, *args), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, most = [], 0
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))
    reader.start()
    while process.poll() is None:
        try:
            most = max(most, memory(process.pid, "VmHWM"))
        except OSError:
            break
        time.sleep(0.002)
    process.wait()
    took = time.monotonic() - began
    reader.join()
    return took, most, process.returncode, said[0]


def line(what, figure, limit, good):
    print(f"{what:<64} {figure:>16} {limit:>20}{'' if good else '   MISSED'}", flush=True)
    return good


# ---- nothing to do ----

def nothing(node, quick, figures):
    tables, partitions = (50, 20) if quick else (500, 100)
    names = [f"t{i}" for i in range(1, tables + 1)]
    began = time.monotonic()
    build(node, tables, partitions)
    clone(node, "many", "many")
    print(f"# {tables} tables with {partitions} partitions on {SHARDS} shards, built in {time.monotonic() - began:.0f} s", flush=True)
    good = True
    with proxy_for(node, "many", names) as proxy:
        proxy.wait_nodes()
        record_policies(node, proxy, "many", tables)
        runs = [measured(proxy, "partition", "maintain") for _ in range(4)][1:]  # the first one fills the servers' caches
        for took, _, code, said in runs:
            assert code == 0 and "made" not in said, said
        took, most = sorted(run[0] for run in runs)[1], max(run[1] for run in runs)
        good &= line("maintain with nothing to do", f"{took:.2f} s", "to be < 5 s", took < 5)
        good &= line("... pgshuntctl's memory", f"{most / 1e6:.1f} MB", "to be < 50 MB", most < 50e6)
        figures["nothing"] = {"seconds": took, "ctl_bytes": most}
        for verb in ("check", "list"):
            took, most, code, said = measured(proxy, "partition", verb)
            assert code == 0, said
            line(f"... {verb}", f"{took:.2f} s, {most / 1e6:.0f} MB", "", True)
            figures[verb] = {"seconds": took, "ctl_bytes": most}
        wait_until(lambda: proxy.value("SELECT count(*) FROM t2") == 0, 120, "the proxy to know its tables")
        time.sleep(5)
        before = memory(proxy.pid, "VmRSS")
        proxy.change({"partition": {"schedule": "* * * * *", "interval": "1s", "user": "postgres"}})
        node.sql("DELETE FROM pgshunt.partition_run", dbname="many0")
        proxy.reload()
        proxy.stop()
        proxy.start()
        proxy.wait_nodes()
        wait_until(lambda: proxy.value("SELECT count(*) FROM t2") == 0, 120, "the proxy to know its tables")
        wait_until(lambda: node.value("SELECT count(*) FROM pgshunt.partition_run", dbname="many0") > 0, 120, "a run")
        time.sleep(10)
        after = memory(proxy.pid, "VmHWM")
        good &= line("... what a run and a look add to the daemon", f"{(after - before) / 1e6:.1f} MB", "to be < 50 MB", after - before < 50e6)
        figures["nothing"]["daemon_bytes"] = after - before
    drop(node, "many")
    node.sql("DROP DATABASE many", dbname="postgres")
    return good


# ---- partitions made ----

def statements(node, dbname):
    """What made the partitions there, in messages as `maintain` sends them."""
    rows = node.sql("SELECT p.relname, c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid"
                    " JOIN pg_class p ON p.oid = inhparent WHERE p.relkind = 'p' AND p.relname <> 'first_of_all' ORDER BY 1, 3", dbname=dbname)
    like = " ".join("INCLUDING " + what for what in ("DEFAULTS", "CONSTRAINTS", "GENERATED", "STORAGE", "COMPRESSION", "STATISTICS", "COMMENTS"))
    return len(rows), "".join(f'CREATE TABLE public."{name}" (LIKE public."{table}" {like}) \\; ALTER TABLE public."{table}" ATTACH PARTITION '
                              f'public."{name}" {bound};\n' for table, name, bound in rows)


def by_psql(node, name, scripts):
    """One psql for each shard, all at once."""
    began = time.monotonic()
    running = [subprocess.Popen([pg_binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", node.dsn(f"{name}{i}"), "-f", path],
                                env=tool_environment()) for i, path in enumerate(scripts)]
    assert [process.wait() for process in running] == [0] * SHARDS
    return time.monotonic() - began


def create(node, quick, figures):
    tables, ahead, rounds = (20, 10, 1) if quick else (100, 24, 3)
    names = [f"t{i}" for i in range(1, tables + 1)]
    node.sql("CREATE DATABASE plain", dbname="postgres")
    for table in names:
        node.sql(f"CREATE TABLE {table} (user_id bigint NOT NULL, at timestamptz NOT NULL, body text, PRIMARY KEY (user_id, at)) PARTITION BY RANGE (at)",
                 dbname="plain")
    ours, theirs, count = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        scripts = [f"{folder}/{i}.sql" for i in range(SHARDS)]
        for number in range(rounds):
            clone(node, "plain", "ours")
            with proxy_for(node, "ours", names) as proxy:
                proxy.wait_nodes()
                record_policies(node, proxy, "ours", tables, kinds={})
                node.sql("UPDATE pgshunt.partition_policy SET ahead = %s", (ahead,), dbname="ours0")
                took, _, code, said = measured(proxy, "partition", "maintain")
                assert code == 0, said
                ours.append(took)
            if number == 0:
                for i, path in enumerate(scripts):
                    here, text = statements(node, f"ours{i}")
                    count += here
                    with open(path, "w", encoding="utf-8") as file:
                        file.write(text)
                assert count == SHARDS * tables * (ahead + 1), count
            drop(node, "ours")
            clone(node, "plain", "psql")
            theirs.append(by_psql(node, "psql", scripts))
            drop(node, "psql")
    node.sql("DROP DATABASE plain", dbname="postgres")
    ratio = sorted(theirs)[rounds // 2] / sorted(ours)[rounds // 2]
    line(f"{count} partitions by psql, a session for each shard", f"{count / sorted(theirs)[rounds // 2]:.0f}/s", "", True)
    figures["create"] = {"partitions": count, "ours_s": ours, "psql_s": theirs, "ratio": ratio}
    return line("... by maintain, over psql's rate", f"{ratio:.2f}", "to be >= 0.9", ratio >= 0.9)


# ---- under load ----

def load(_, quick, figures):
    seconds, rate = (10, 500) if quick else (60, 5000)
    with Cluster(shards=SHARDS, replicas=0) as cluster, \
            Proxy(cluster, keyspaces=partition_load.keyspaces(), options={"partition": {"schedule": ""}}) as proxy:
        proxy.wait_nodes()
        clients = partition_load.Load(proxy, cluster.primaries, [(node, "app") for node in cluster.primaries], clients=16, rate=rate)
        clients.prepare()
        alone = clients.run(seconds // 3, lambda: None)
        proxy.sql("TRUNCATE events")
        proxy.sql("TRUNCATE rest")
        clients.filled = 0
        took = clients.run(seconds, lambda: clients.maintain(time.monotonic() + seconds - 3))
        assert clients.errors == [], clients.errors
        clients.settle()
        count, archived = clients.rows()
    lost = clients.filled - count - archived
    figures["load"] = {"statements": len(took), "per_s": len(took) / seconds, "waited_s": clients.waited, "lost": lost,
                       "max_us": took[-1], "p999_us": took[len(took) * 999 // 1000], "alone_max_us": alone[-1],
                       "alone_p999_us": alone[len(alone) * 999 // 1000], "long_reads": clients.read}
    line("inserts beside partitions that come and go", f"{len(took) / seconds:.0f}/s", f"offered {rate}/s", True)
    for text, figure in (("without them", alone), ("with them", took)):
        line(f"... the slowest, the slowest of 1000, {text}", f"{figure[-1] / 1e3:.0f}, {figure[len(figure) * 999 // 1000] / 1e3:.1f} ms", "", True)
    good = line("... longest wait for a lock of ours", f"{clients.waited * 1000:.0f} ms", "to be <= 300 ms", clients.waited <= LOCK_TIMEOUT + 0.1)
    return line("... rows lost, statements failed", f"{lost}, 0", "to be 0, 0", lost == 0) and good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--only", choices=list(PARTS), help="one of them")
    parser.add_argument("--json", help="file for the figures")
    options = parser.parse_args()
    figures, good = {}, True
    with Cluster(shards=1, replicas=0, settings=SETTINGS) as cluster:
        for name, part in PARTS.items():
            if options.only in (None, name):
                good &= part(cluster.primaries[0], options.quick, figures)
    if options.json:
        with open(options.json, "w", encoding="ascii") as file:
            json.dump(figures, file, indent=1)
    return 0 if good else 1


PARTS = {"nothing": nothing, "create": create, "load": load}

if __name__ == "__main__":
    sys.exit(main())
