"""Keyspaces by list, by range and by Postgres' own hash are moved by value under load, back and forth; jobs side by side."""
import os
import random
import subprocess
import threading

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until
from harness.proxy import binary
from test_reshard import Runner, left_over, patient, wait_state

pytestmark = pytest.mark.slow

KEYSPACES = [
    {"name": "regions", "type": "text", "map": "list", "default": "s1",
     "lists": [{"shard": "s0", "values": ["de", "at"]}, {"shard": "s1", "values": ["us"]}],
     "tables": [{"name": "towns", "key": "region"}]},
    {"name": "times", "type": "bigint", "map": "range",
     "ranges": [{"to": "1000", "shard": "s0"}, {"from": "1000", "shard": "s1"}],
     "tables": [{"name": "samples", "key": "at"}]},
    {"name": "old", "type": "bigint", "hash": "postgres", "tables": [{"name": "hashed", "key": "id"}]},
]
TABLES = ("CREATE TABLE towns (region text, id bigint, n int NOT NULL, PRIMARY KEY (region, id));"
          "CREATE TABLE samples (at bigint, id bigint, n int NOT NULL, PRIMARY KEY (at, id));"
          "CREATE TABLE hashed (id bigint PRIMARY KEY, n int NOT NULL)")
REGIONS = ["de", "at", "us", "fr", "new"]
WRITERS = 4
PG_SEED, PG_COMBINE, MASK = 8816678312871386365, 0x49A0F4DD15E5A8E3, (1 << 64) - 1


@pytest.fixture(scope="module")
def running():
    with Cluster(shards=4, replicas=0) as cluster:
        for node in cluster.primaries:
            node.sql(TABLES)
        yield cluster


@pytest.fixture
def cluster(running):
    for node in running.primaries:
        node.sql("DROP SCHEMA IF EXISTS pgshunt CASCADE; TRUNCATE towns, samples, hashed")
    return running


@pytest.fixture
def proxies(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as one, Proxy(cluster, keyspaces=KEYSPACES) as other:
        one.wait_nodes()
        other.wait_nodes()
        yield one, other


def ctl(proxy, *args, code=0, command="reshard"):
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, command,
                          *(args if code else patient(args))], capture_output=True, text=True, timeout=120)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def ctl_any(proxy, *args):
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, "reshard", *args],
                         capture_output=True, text=True, timeout=120)
    return ran.stdout + ran.stderr


class Writer(threading.Thread):
    """Writes rows of its own; `rows` is what was acknowledged: (table, key, id): n."""

    def __init__(self, proxy, number, rows):
        super().__init__(daemon=True)
        self.proxy, self.number, self.rows = proxy, number, rows
        self.random, self.errors, self.done, self.end = random.Random(number + len(rows)), [], 0, threading.Event()

    def statement(self):
        """One change, and what becomes of the row."""
        if self.rows and self.random.random() < 0.6:
            row = self.random.choice(list(self.rows))
            where = {"towns": "region = %s AND id = %s", "samples": "at = %s AND id = %s", "hashed": "%s IS NOT NULL AND id = %s"}[row[0]]
            if self.random.random() < 0.3:
                return row, None, f"DELETE FROM {row[0]} WHERE {where}", row[1:]
            return row, self.rows[row] + 1, f"UPDATE {row[0]} SET n = n + 1 WHERE {where}", row[1:]
        number = self.number + WRITERS * self.random.randrange(1 << 40)
        row = self.random.choice([("towns", self.random.choice(REGIONS), number), ("samples", self.random.randrange(-500, 2500), number),
                                  ("hashed", 0, number)])
        if row[0] == "hashed":
            return row, 1, "INSERT INTO hashed VALUES (%s, 1)", row[2:]
        return row, 1, f"INSERT INTO {row[0]} VALUES (%s, %s, 1)", row[1:]

    def run(self):
        connection = self.proxy.connect()
        connection.autocommit = True
        while not self.end.is_set():
            row, after, sql, values = self.statement()
            try:
                with connection.cursor() as cursor:
                    cursor.execute(sql, values)
                    assert cursor.rowcount == 1, (sql, values, cursor.rowcount)
            except (psycopg2.Error, AssertionError) as error:
                self.errors.append(repr(error))
                break
            self.rows[row] = after
            if after is None:
                del self.rows[row]
            self.done += 1
        connection.close()


class Load:
    """Writers at work while the block runs; what they know of lives on in the ledger."""

    def __init__(self, proxies, ledger):
        self.writers = [Writer(proxies[i % len(proxies)], i, ledger.setdefault(i, {})) for i in range(WRITERS)]

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.end.set()
        for writer in self.writers:
            writer.join(60)
        assert [error for writer in self.writers for error in writer.errors] == []

    def progress(self, count=150):
        target = sum(writer.done for writer in self.writers) + count
        wait_until(lambda: sum(writer.done for writer in self.writers) >= target or any(writer.errors for writer in self.writers), 60,
                   "writes")


def hashed_bucket(node, keys, shards):
    """Of keys, by what Postgres' own function says of them."""
    each = 16384 // shards
    buckets = {}
    for key, value in node.sql("SELECT k, hashint8extended(k, %s) FROM unnest(%s::bigint[]) k", (PG_SEED, list(keys))):
        remainder = ((value + PG_COMBINE) & MASK) % (each * shards)
        buckets[key] = remainder % shards * each + remainder // shards
    return buckets


def judge(cluster, proxies, ledger, owner_of, clean):
    """All acknowledged rows are there once, where they belong; reads without a key and of ranges see each once."""
    rows = {row: n for part in ledger.values() for row, n in part.items()}
    names = {"towns": "region, id", "samples": "at, id", "hashed": "0, id"}
    buckets = hashed_bucket(cluster.primaries[0], [row[2] for row in rows if row[0] == "hashed"], len(cluster.primaries))
    for table, columns in names.items():
        mine = {row[1:]: n for row, n in rows.items() if row[0] == table}
        for proxy in proxies:
            seen = proxy.sql(f"SELECT {columns}, n FROM {table}")
            assert len(seen) == len(mine) and {tuple(row[:2]): row[2] for row in seen} == mine, table
            assert proxy.value(f"SELECT count(*) FROM {table}") == len(mine)
        here = 0
        for shard, node in enumerate(cluster.primaries):
            for one, two, n in node.sql(f"SELECT {columns}, n FROM {table}"):
                if owner_of(table, buckets[two] if table == "hashed" else one) == shard:
                    assert mine[one, two] == n
                    here += 1
                else:
                    assert not clean, (table, one, two, shard)
        assert here == len(mine)
    times = [row for row in rows if row[0] == "samples"]
    for low, high in ((0, 999), (500, 1499), (-500, 2500), (990, 1010), (1500, 1600)):
        assert proxies[0].value(f"SELECT count(*) FROM samples WHERE at BETWEEN {low} AND {high}") == len(
            [row for row in times if low <= row[1] <= high])
    for region in REGIONS:
        assert proxies[1].value("SELECT count(*) FROM towns WHERE region = %s", (region,)) == len(
            [row for row in rows if row[:2] == ("towns", region)])
    assert proxies[1].value("SELECT count(*) FROM towns WHERE region IN ('de', 'us', 'new')") == len(
        [row for row in rows if row[0] == "towns" and row[1] in ("de", "us", "new")])


def first_owner(table, value):
    if table == "towns":
        return 0 if value in ("de", "at") else 1
    return (0 if value < 1000 else 1) if table == "samples" else value // 4096


def moved_owner(table, value):
    moved = value in ("de", "new") if table == "towns" else 500 <= value < 1500 if table == "samples" else value < 3000
    return 2 if moved else first_owner(table, value)


def test_values_intervals_and_remainders_are_moved_and_moved_back(cluster, proxies):
    one, other = proxies
    catalog, ledger = cluster.primaries[0], {}
    with Load(proxies, ledger) as load:
        load.progress(400)
        told = ctl(one, "create", "grow", "--move", "regions/de:s2,regions/new:s2,times/[500,1500):s2,old/0-2999:s2")
        assert "de to s2" in told and "[500,1000) to s2" in told and "[1000,1500) to s2" in told, told
        assert catalog.sql("SELECT value FROM pgshunt.piece WHERE keyspace = 'times' ORDER BY bucket") == [
            (None,), ("1000",), ("500",), ("1500",)]
        assert ("new",) in catalog.sql("SELECT value FROM pgshunt.piece WHERE keyspace = 'regions'")
    with Runner(one, "grow"):
        with Load(proxies, ledger) as load:
            wait_state(cluster, "grow", "streaming")
            load.progress()
            ctl(one, "verify", "grow")
        for turn, owner in (("switch", moved_owner), ("rollback", first_owner), ("switch", moved_owner)):
            with Load(proxies, ledger) as load:
                ctl(one, turn, "grow")
                load.progress()
            judge(cluster, proxies, ledger, owner, clean=False)
        with Load(proxies, ledger) as load:
            ctl(other, "verify", "grow")
    with Load(proxies, ledger) as load:
        ctl(one, "complete", "grow")
        load.progress()
    judge(cluster, proxies, ledger, moved_owner, clean=True)
    assert left_over(cluster) == []
    shown = ctl(one, "show", "app", command="map")
    assert "[500,1500)" in shown and "de,new" in shown, shown


def test_a_restarted_proxy_and_another_configuration_keep_what_was_moved(cluster, proxies):
    one, other = proxies
    ledger = {}
    with Load(proxies, ledger) as load:
        load.progress(200)
    for words in (("regions/at:s2", "regions/DEFAULT:s2"), ("times/[MINVALUE,0):s2",)):
        ctl(one, "create", "job", "--move", ",".join(words))
        with Runner(one, "job"):
            wait_state(cluster, "job", "streaming")
            ctl(one, "switch", "job")
        ctl(one, "complete", "job")
        cluster.primaries[0].sql("DELETE FROM pgshunt.job")

    def owner(table, value):
        if table == "towns":
            return {"de": 0, "at": 2, "us": 1}.get(value, 2)
        return 2 if table == "samples" and value < 0 else first_owner(table, value)

    judge(cluster, proxies, ledger, owner, clean=True)
    more = [dict(keyspace) for keyspace in KEYSPACES]
    more[0]["lists"] = [{"shard": "s0", "values": ["de", "at"]}, {"shard": "s1", "values": ["us", "fr"]}]
    more[1]["ranges"] = [{"to": "700", "shard": "s0"}, {"from": "700", "shard": "s1"}]
    with Proxy(cluster, keyspaces=more) as third:
        third.wait_nodes()
        third.wait_log("the recorded map of the buckets counts")
        judge(cluster, (third, other), ledger, owner, clean=True)
        with Load((third, one), ledger) as load:
            load.progress()
        judge(cluster, (third, other), ledger, owner, clean=True)
        assert "is on s2, not on s0" in third.log()


def test_hot_buckets_are_found_and_leave_the_busiest_shard(cluster, proxies):
    one, _ = proxies
    assert "nothing is known of which buckets are asked for" in ctl_any(one, "plan", "--split-hot")
    ctl(one, "create", "cut", "--move", "times/[0,100):s2")  # what can be told apart from the rest of its shard
    ctl(one, "cancel", "cut")
    for proxy in proxies:
        with proxy.connect() as connection, connection.cursor() as cursor:
            for key in [50, 50, 50, -5] * 300 + [1500] * 200:
                cursor.execute("SELECT n FROM samples WHERE at = %s", (key,))
        connection.close()

    def planned():
        told = ctl_any(one, "plan", "--split-hot", "--add", "s2,s3")
        return "[0,100) to s2" in told or "[0,100) to s3" in told

    wait_until(planned, 40, "the bucket to be seen")
    loads = dict(cluster.primaries[0].sql("SELECT bucket, statements FROM pgshunt.bucket_load WHERE keyspace = 'times'"))
    hottest = cluster.primaries[0].value("SELECT bucket FROM pgshunt.piece WHERE keyspace = 'times' AND value = '0'")
    assert max(loads, key=loads.get) == hottest


def test_jobs_on_one_keyspace_side_by_side(cluster, proxies):
    """They have no shard in common; each is switched, rolled back and completed while the other goes on."""
    one, other = proxies
    ledger, switched = {}, set()

    def owner(table, value):
        if table == "samples" and "a" in switched and value < 600:
            return 2
        if table == "samples" and "b" in switched and value >= 1800:
            return 3
        return first_owner(table, value)

    def turn(command, job):
        with Load(proxies, ledger) as load:
            ctl(one, command, job)
            load.progress(100)
        if command in ("switch", "rollback"):
            (switched.add if command == "switch" else switched.discard)(job)
        judge(cluster, proxies, ledger, owner, clean=False)

    with Load(proxies, ledger) as load:
        load.progress(300)
    ctl(one, "create", "a", "--move", "times/[MINVALUE,600):s2")
    refused = ctl(one, "create", "c", "--move", "times/[700,900):s3", code=5)
    assert "moves buckets of keyspace times on s0 too" in refused, refused
    ctl(other, "create", "b", "--move", "times/[1800,MAXVALUE):s3")
    with Runner(one, "a"), Runner(other, "b"):
        with Load(proxies, ledger) as load:
            wait_state(cluster, "a", "streaming")
            wait_state(cluster, "b", "streaming")
            load.progress(100)
        judge(cluster, proxies, ledger, owner, clean=False)
        for command, job in (("switch", "a"), ("switch", "b")):
            turn(command, job)
        ctl(other, "verify", "a")
        ctl(other, "verify", "b")
    turn("complete", "a")
    turn("rollback", "b")
    turn("cancel", "b")
    judge(cluster, proxies, ledger, owner, clean=True)
    assert left_over(cluster) == []
