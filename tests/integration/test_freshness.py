"""Sessions never read a state older than what they have written or seen, however far behind the replicas are.

The full count of 100,000 reads: PGSHUNT_STALE_READS=100000.
"""
import os
import random
import re
import signal
import threading
import time
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until
from harness.cluster import run_tool

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
        # A replica may show a commit a moment before its primary does: that is Postgres' own doing.
        self.ahead_of_primary = 0
        self.was_on_replica = False
        self.failure, self.events = None, []  # for whoever has to find out why

    def read(self, cursor):
        cursor.execute("SELECT a.n, b.n, pg_is_in_recovery() FROM marks AS a, marks AS b "
                       f"WHERE a.id = {self.number} AND b.id = 0")
        own, common, replica = cursor.fetchone()
        self.reads += 1
        self.left -= 1
        self.on_replica += replica
        self.own_stale += own < self.own
        if own < self.own or common < self.common:
            self.events.append({"session": self.number, "read": self.reads, "replica": replica, "before": self.was_on_replica,
                                "own": (self.own, own), "common": (self.common, common)})
        if common < self.common and replica:
            self.went_back += 1
        elif common < self.common:
            self.ahead_of_primary += self.was_on_replica
            self.went_back += not self.was_on_replica
        self.was_on_replica = replica
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
    totals = {name: sum(getattr(session, name) for session in sessions)
              for name in ("reads", "on_replica", "own_stale", "went_back", "ahead_of_primary")}
    totals["events"] = sum((session.events for session in sessions), [])[:20]
    print(totals)
    failures = [session.failure for session in sessions if session.failure is not None]
    assert not failures, (failures[0], totals)
    assert totals["reads"] >= READS, totals
    return totals


@pytest.mark.slow
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


def test_a_replica_may_be_ahead_of_its_primary(delayed):
    """The one exception, and that it is Postgres' own: a commit that waits for a synchronous standby is on its replicas
    already, and not yet to be seen on the primary."""
    primary, replicas = delayed.shards[0].primary, delayed.shards[0].replicas
    count = "SELECT count(*) FROM early"
    primary.sql("CREATE TABLE early (n int)")
    replicas[0].set_apply_delay("0")
    delayed.sync()
    with Proxy(delayed) as proxy:
        wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM early RIGHT JOIN (SELECT 1) AS o ON true"), 20.0,
                   "reads on a replica")
        primary.set("synchronous_standby_names", "nobody")
        writer = threading.Thread(target=primary.sql, args=("INSERT INTO early VALUES (1)",))
        try:
            writer.start()
            wait_until(lambda: all(replica.value(count) == 1 for replica in replicas), 20.0, "the commit on the replicas")
            assert primary.value(count) == 0
            with closing(proxy.connect()) as connection, connection.cursor() as cursor:
                cursor.execute(count)
                assert cursor.fetchone()[0] == 1
                cursor.execute("/* pgshunt: primary */ " + count)
                assert cursor.fetchone()[0] == 0
        finally:
            primary.set("synchronous_standby_names", "")
            writer.join(20)
            replicas[0].set_apply_delay("150ms")
        assert primary.value(count) == 1


# ---- when no replica qualifies, by whom it is said ----


@pytest.fixture(scope="module")
def lagging():
    """One replica that applies nothing for a long time, and a proxy with a writer behind it."""
    with Cluster(shards=1, replicas=1) as cluster:
        cluster.shards[0].primary.sql("CREATE TABLE t (n int)")
        for role in "late", "strict", "patient":
            cluster.create_role(role)
        cluster.sync()
        cluster.shards[0].replicas[0].set_apply_delay("1h")
        yield cluster


def behind(cluster, proxy):
    """Writes until the proxy knows that the replica is more than the limit of 200 ms behind."""
    cluster.shards[0].primary.sql("INSERT INTO t VALUES (1)")
    replica = cluster.shards[0].replicas[0]
    wait_until(lambda: (lag_of(proxy, replica) or 0) > 1000, 20.0, "lag")


def lag_of(proxy, node):
    """Milliseconds, as SHOW NODES has it."""
    return next(row["lag_ms"] for row in proxy.show("NODES") if int(row["port"]) == node.port)


IN_RECOVERY = "SELECT pg_is_in_recovery()"


def test_when_no_replica_is_within_max_lag(lagging):
    users = [{"name": "postgres", "password": "", "admin": True},
             {"name": "late", "password": "", "no_replica": "least_lagged"},
             {"name": "strict", "password": "", "no_replica": "error"},
             {"name": "patient", "password": "", "max_lag": "1d"}]
    with Proxy(lagging, options={"routing": {"max_lag": "200ms"}}, users=users) as proxy:
        behind(lagging, proxy)
        assert proxy.value(IN_RECOVERY) is False
        with closing(proxy.connect(user="late")) as connection, connection.cursor() as cursor:
            cursor.execute(IN_RECOVERY)
            assert cursor.fetchone()[0] is True
        with closing(proxy.connect(user="patient")) as connection, connection.cursor() as cursor:
            cursor.execute(IN_RECOVERY)
            assert cursor.fetchone()[0] is True
            cursor.execute("SET pgshunt.max_lag = '100ms'")
            cursor.execute(IN_RECOVERY)
            assert cursor.fetchone()[0] is False
            cursor.execute("/* pgshunt: max_lag=2d */ " + IN_RECOVERY)
            # monotonic: it has just read on the primary
            assert cursor.fetchone()[0] is False
            cursor.execute("SET pgshunt.monotonic_reads = off")
            cursor.execute("/* pgshunt: max_lag=2d */ " + IN_RECOVERY)
            assert cursor.fetchone()[0] is True
        with closing(proxy.connect(user="strict")) as connection, connection.cursor() as cursor:
            with pytest.raises(psycopg2.Error) as refused:
                cursor.execute(IN_RECOVERY)
            assert refused.value.pgcode == "55000"
            assert "no replica of shard s0 is within max_lag" in str(refused.value)
            assert "max_lag" in refused.value.diag.message_hint
            cursor.execute("SET pgshunt.max_lag = '1d'")
            cursor.execute(IN_RECOVERY)
            assert cursor.fetchone()[0] is True
            cursor.execute("SET pgshunt.max_lag = '1ms'")
            cursor.execute("SET pgshunt.route = 'primary'")
            cursor.execute(IN_RECOVERY)
            assert cursor.fetchone()[0] is False


def test_sessions_say_it_for_themselves(lagging):
    with Proxy(lagging, options={"routing": {"max_lag": "1d"}}) as proxy:
        behind(lagging, proxy)
        connection = proxy.connect()
        with connection.cursor() as cursor:
            def where():
                cursor.execute(IN_RECOVERY)
                return "replica" if cursor.fetchone()[0] else "primary"

            cursor.execute("SHOW pgshunt.read_your_writes")
            assert cursor.fetchone()[0] == "on"
            assert where() == "replica"
            cursor.execute("INSERT INTO t VALUES (2)")
            assert where() == "primary"
            cursor.execute("SET pgshunt.read_your_writes = off")
            assert where() == "primary"  # for what it has seen there
            cursor.execute("SET pgshunt.monotonic_reads = 'off'")
            assert where() == "replica"
            cursor.execute("RESET ALL")
            assert where() == "primary"
            with pytest.raises(psycopg2.Error) as refused:
                cursor.execute("SET pgshunt.monotonic_reads = 'perhaps'")
            assert refused.value.pgcode == "22023" and "on or off" in refused.value.diag.message_hint
        connection.close()


# ---- what is shown of the lag ----


def metric(proxy, name, labels):
    """The sum of its samples that have this among their labels; None: there are none."""
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(rf'^pgshunt_{name}{{[^}}]*{re.escape(labels)}[^}}]*}} (\S+)$', text, re.M)
    return sum(map(float, found)) if found else None


def exported_lag(proxy, node):
    return metric(proxy, "node_lag_seconds", f"{node.port}\"")


def test_lag_is_shown_as_it_is(lagging):
    """Commits applied 2 s late are a lag of 2 s, give or take 20 %."""
    replica = lagging.shards[0].replicas[0]
    replica.set_apply_delay("2s")
    lagging.sync(60.0)
    with Proxy(lagging) as proxy:
        ended = threading.Event()

        def write():
            while not ended.wait(0.02):
                lagging.shards[0].primary.sql("INSERT INTO t VALUES (3)")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_until(lambda: (lag_of(proxy, replica) or 0) > 1600, 20.0, "lag")
            time.sleep(1)
            shown, exported = [], []
            for _ in range(15):
                shown.append(lag_of(proxy, replica) / 1000)
                exported.append(exported_lag(proxy, replica))
                time.sleep(0.1)
        finally:
            ended.set()
            writer.join()
        for values in (shown, exported):
            assert 1.6 <= sorted(values)[len(values) // 2] <= 2.4, (shown, exported)
        assert all(row["lag_bytes"] > 0 for row in proxy.show("NODES") if row["role"] == "replica")
        replica.set_apply_delay("0")
        wait_until(lambda: lag_of(proxy, replica) == 0, 20.0, "no lag")
        for _ in range(10):  # nothing is written: it stays so, though time goes by
            assert lag_of(proxy, replica) == 0 and exported_lag(proxy, replica) == 0
            time.sleep(0.1)
        assert lag_of(proxy, lagging.shards[0].primary) == 0


# ---- the replicas' share ----


def test_reads_are_the_replicas(delayed):
    """pgbench -S: at least 95 % of the reads go to replicas, and each of two gets a fair part."""
    primary, replicas = delayed.shards[0].primary, delayed.shards[0].replicas
    replicas[0].set_apply_delay("0")
    run_tool("pgbench", "-i", "-q", "-d", primary.dsn())
    delayed.sync()
    with Proxy(delayed) as proxy:
        proxy.wait_nodes()
        wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM pgbench_accounts LIMIT 1"), 20.0, "reads")
        def reads(role):
            return metric(proxy, "reads_total", f'role="{role}"') or 0

        before = reads("primary"), reads("replica")
        run_tool("pgbench", "-n", "-S", "-c", "8", "-T", "3", "-M", "prepared", "-d", proxy.dsn())
        on_primary, on_replicas = reads("primary") - before[0], reads("replica") - before[1]
        assert on_primary + on_replicas >= 1000
        assert on_replicas >= 0.95 * (on_primary + on_replicas), (on_primary, on_replicas)
        servers = {row["port"]: row["connect_time"] for row in proxy.show("SERVERS") if row["port"] != primary.port}
        assert {int(port) for port in servers} == {node.port for node in replicas}  # neither went without
