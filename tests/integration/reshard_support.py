"""What tests of resharding share: buckets told by an independent hash, jobs, and the tools that call the engine's parts."""
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time

import psycopg2

from harness.process import wait_until
from harness.proxy import binary, to_libconfig

numbers = itertools.count(1)

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


def rotate(value, bits):
    return ((value << bits) | (value >> (64 - bits))) & MASK


def xxh64(data):
    """XXH64 with seed 0, of fewer than 32 bytes: written from its specification, to tell buckets without the engine."""
    assert len(data) < 32
    hashed = (P5 + len(data)) & MASK
    while len(data) >= 8:
        lane = rotate(int.from_bytes(data[:8], "little") * P2 & MASK, 31) * P1 & MASK
        hashed = (rotate(hashed ^ lane, 27) * P1 + P4) & MASK
        data = data[8:]
    if len(data) >= 4:
        hashed = (rotate(hashed ^ (int.from_bytes(data[:4], "little") * P1 & MASK), 23) * P2 + P3) & MASK
        data = data[4:]
    for byte in data:
        hashed = rotate(hashed ^ (byte * P5 & MASK), 11) * P1 & MASK
    for shift, factor in ((33, P2), (29, P3)):
        hashed = (hashed ^ (hashed >> shift)) * factor & MASK
    return hashed ^ (hashed >> 32)


def bucket(key):
    """Of a bigint, or a text."""
    return xxh64(key.to_bytes(8, "big", signed=True) if isinstance(key, int) else key.encode()) >> 50


def in_ranges(key, *ranges):
    return any(first <= bucket(key) <= last for first, last in ranges)


def config(folder, cluster, keyspaces, weights, **more):
    shards = [{"name": f"s{i}", "dbname": cluster.dbname, "weight": weight,
               "nodes": [{"host": "127.0.0.1", "port": cluster.shards[i].primary.port}]}
              for i, weight in enumerate(weights)]
    path = folder / "pgshunt.conf"
    path.write_text('auth = { method = "trust"; };\nmonitor = { user = "postgres"; };\n' +
                    "databases = " + to_libconfig([{"name": "app", "shards": shards, "keyspaces": keyspaces, **more}]) + ";\n")
    return str(path)


def forget_everything(*nodes):
    """Servers as they were at first, for the next test: no jobs, slots, origins, tables, though what used them was killed."""
    for node in nodes:
        if not node.running():
            node.start()
        forget_jobs(node)
        for (gid,) in node.sql("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            node.sql("ROLLBACK PREPARED %s", (gid,))
        for (schema,) in node.sql("SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"):
            node.sql(f"DROP SCHEMA {schema} CASCADE")
        node.sql("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")


def forget_jobs(node):
    """Slots, origins and publications outlive the tables."""
    sessions = "pg_stat_activity WHERE application_name LIKE 'pgshunt reshard%' AND pid <> pg_backend_pid()"

    def all_gone():
        node.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        node.sql(f"SELECT pg_terminate_backend(pid) FROM {sessions}")
        return not node.value(f"SELECT (SELECT count(*) FROM pg_replication_slots WHERE active) + (SELECT count(*) FROM {sessions})")

    wait_until(all_gone, 30, "sessions gone")
    node.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT temporary")
    node.sql("SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin")
    for (name,) in node.sql("SELECT quote_ident(pubname) FROM pg_publication"):
        node.sql(f"DROP PUBLICATION {name}")


def tool(name):
    return os.path.join(os.path.dirname(binary()), "tests", "tools", name)


def ctl(config_path, *args, check=True, timeout=120):
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", config_path, "reshard", *map(str, args)],
                         capture_output=True, text=True, timeout=timeout)
    if check:
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran


def record_job(config_path, catalog, name, moves, state="created"):
    """A job's rows, as `create` leaves them. moves: (keyspace, first, last, source, target)."""
    ctl(config_path, "status", check=False)  # makes the catalog's tables
    catalog.sql("INSERT INTO pgshunt.job (name, database, kind, state, options, created_at, changed_at) "
                "VALUES (%s, 'app', 'move', %s, '{}', now(), now())", (name, state))
    for move in moves:
        catalog.sql("INSERT INTO pgshunt.job_move VALUES (%s, %s, %s, %s, %s, %s)", (name, *move))


class Copy:
    """The copy of a job alone; it waits behind its snapshots until `go`."""

    def __init__(self, config_path, job, jobs=2, rate=0, pages=8, later=1, oldest="0"):
        self.process = subprocess.Popen([tool("reshard_copy"), config_path, "app", job, *map(str, (jobs, rate, pages, later, oldest))],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.first = self.process.stdout.readline()

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self, timeout=60):
        """What it printed; its end has to be a good one."""
        out, err = self.process.communicate("\n" if self.process.stdin and not self.process.stdin.closed else None, timeout=timeout)
        assert self.process.returncode == 0, self.first + out + err
        return self.first + out

    def fail(self, timeout=60):
        out, err = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 1, self.first + out
        return err

    def kill9(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=20)


class Stream:
    """One stream of a job alone, in a process of its own."""

    def __init__(self, config_path, job, source, target, *options, patience=20):
        until = time.monotonic() + patience
        while True:  # the sessions of one that was killed live on for a moment
            self.process = subprocess.Popen([tool("reshard_stream"), config_path, "app", job, source, target, "--prepare", *options],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if self.process.stdout.readline() == "started\n":
                return
            error = self.process.communicate()[1]
            if "(passing)" not in error or time.monotonic() > until:
                raise RuntimeError(f"exit code {self.process.returncode}: {error}")
            time.sleep(0.2)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def state(self):
        return self.ask("state")

    def error(self, timeout=30):
        """Why it has failed, when it has."""
        wait_until(lambda: not self.state()["running"], timeout, "the stream to fail")
        return self.state()["error"]

    def follow(self, source, timeout=60, marker=None):
        """Waits until all that was committed on the source is applied."""
        marker = marker or f"marker {next(numbers)}"
        source.sql("SELECT pg_logical_emit_message(true, 'pgshunt', %s)", (marker,))

        def there():
            state = self.state()
            assert state["running"], state["error"]
            return state["marker"] == marker

        wait_until(there, timeout, "the marker to be applied")
        return self.state()

    def kill9(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=20)

    def stop(self):
        if self.process.poll() is None:
            out, err = self.process.communicate("stop\n", timeout=30)
            assert self.process.returncode == 0, out + err

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.kill9()
        else:
            self.stop()


def start_ctl(config_path, *args):
    return subprocess.Popen([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", config_path, "reshard", *map(str, args)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Writer(threading.Thread):
    """Runs statements on a server, each with a random key, until told to stop; goes on behind a restart."""

    def __init__(self, node, statements, keys):
        super().__init__()
        self.node, self.statements, self.keys = node, statements, keys
        self.ending, self.random, self.done = threading.Event(), random.Random(7), 0
        self.start()

    def run(self):
        while not self.ending.is_set():
            try:
                connection = self.node.connect()
                connection.autocommit = True
                with connection.cursor() as cursor:
                    while not self.ending.is_set():
                        cursor.execute(self.random.choice(self.statements), (self.random.randrange(1, self.keys),))
                        self.done += 1
                        time.sleep(0.001)
                connection.close()
            except psycopg2.Error:
                time.sleep(0.1)

    def stop(self):
        self.ending.set()
        self.join()
