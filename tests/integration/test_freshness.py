"""Sessions never read a state older than what they have written or seen, however far behind the replicas are.

The full count of 100,000 reads: PGSHUNT_STALE_READS=100000.
"""
import os
import random
import signal
import threading
import time

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until

READS = int(os.environ.get("PGSHUNT_STALE_READS", "4000"))
SESSIONS = 64
OFF = {"routing": {"read_your_writes": False, "monotonic_reads": False}}


@pytest.fixture(scope="module")
def delayed():
    """A primary with two replicas: one applies everything late, of the other the WAL receiver is stopped now and then."""
    with Cluster(shards=1, replicas=2) as cluster:
        primary = cluster.shards[0].primary
        primary.sql("CREATE TABLE marks (id int PRIMARY KEY, n bigint NOT NULL)")
        primary.sql("INSERT INTO marks SELECT i, 0 FROM generate_series(0, %s) AS i", (SESSIONS,))
        cluster.sync()
        cluster.shards[0].replicas[0].set_apply_delay("150ms")
        yield cluster


class Stopper(threading.Thread):
    """Stops and continues a replica's WAL receiver until it is told to end."""

    def __init__(self, node):
        super().__init__()
        self.node = node
        self.ended = threading.Event()

    def receiver(self):
        return self.node.value("SELECT pid FROM pg_stat_wal_receiver", dbname="postgres")

    def run(self):
        while not self.ended.is_set():
            pid = self.receiver()
            if pid:
                os.kill(pid, signal.SIGSTOP)
                self.ended.wait(0.3)
                os.kill(pid, signal.SIGCONT)
            self.ended.wait(0.2)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


class Counter(threading.Thread):
    """Raises the mark that all sessions look at."""

    def __init__(self, proxy, ended):
        super().__init__()
        self.proxy, self.ended = proxy, ended

    def run(self):
        connection = self.proxy.connect()
        with connection.cursor() as cursor:
            while not self.ended.is_set():
                cursor.execute("UPDATE marks SET n = n + 1 WHERE id = 0")
                time.sleep(0.002)
        connection.close()


class Session(threading.Thread):
    """Writes its own mark and reads at once; pauses at times, so that replicas get their share."""

    def __init__(self, proxy, number, reads):
        super().__init__()
        self.proxy, self.number, self.left = proxy, number, reads
        self.random = random.Random(number)
        self.own = self.common = 0
        self.reads = self.on_replica = self.own_stale = self.went_back = 0
        self.failure = None

    def read(self, cursor):
        cursor.execute("SELECT a.n, b.n, pg_is_in_recovery() FROM marks AS a, marks AS b "
                       f"WHERE a.id = {self.number} AND b.id = 0")
        own, common, replica = cursor.fetchone()
        self.reads += 1
        self.left -= 1
        self.on_replica += replica
        self.own_stale += own < self.own
        self.went_back += common < self.common
        self.common = common

    def round(self, cursor):
        cursor.execute(f"UPDATE marks SET n = n + 1 WHERE id = {self.number} RETURNING n")
        self.own = cursor.fetchone()[0]
        for _ in range(self.random.randint(1, 4)):
            self.read(cursor)
        if self.random.random() < 0.3:
            time.sleep(self.random.uniform(0, 0.5))
            for _ in range(4):
                self.read(cursor)
                time.sleep(self.random.uniform(0, 0.02))

    def run(self):
        try:
            connection = self.proxy.connect()
            with connection.cursor() as cursor:
                while self.left > 0:
                    self.round(cursor)
            connection.close()
        except Exception as error:
            self.failure = error


def run_sessions(cluster, options):
    with Proxy(cluster, options={"routing": {"max_lag": "1min", **options.get("routing", {})}}) as proxy:
        wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM marks LIMIT 1"), 20.0, "reads on a replica")
        ended = threading.Event()
        counter = Counter(proxy, ended)
        sessions = [Session(proxy, number, READS // SESSIONS + 1) for number in range(1, SESSIONS + 1)]
        with Stopper(cluster.shards[0].replicas[1]):
            counter.start()
            try:
                for session in sessions:
                    session.start()
                for session in sessions:
                    session.join()
            finally:
                ended.set()
                counter.join()
    for session in sessions:
        assert session.failure is None, session.failure
    totals = {name: sum(getattr(session, name) for session in sessions)
              for name in ("reads", "on_replica", "own_stale", "went_back")}
    print(totals)
    assert totals["reads"] >= READS
    return totals


def test_no_session_reads_the_past(delayed):
    totals = run_sessions(delayed, {})
    assert totals["own_stale"] == 0 and totals["went_back"] == 0, totals
    assert totals["on_replica"] > totals["reads"] / 50, totals  # else it was no test


def test_with_the_settings_off_they_do(delayed):
    totals = run_sessions(delayed, OFF)
    assert totals["own_stale"] > 0 and totals["went_back"] > 0, totals


def test_own_writes_alone(delayed):
    """Without monotonic reads what others wrote may go away again; what the session wrote may not."""
    totals = run_sessions(delayed, {"routing": {"monotonic_reads": False}})
    assert totals["own_stale"] == 0, totals
    assert totals["went_back"] > 0, totals
