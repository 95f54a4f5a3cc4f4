"""Under Patroni: a switchover and the death of the primary, under load. Needs its packages (make check-patroni)."""
import glob
import os
import re
import subprocess
import threading
import time

import psycopg2
import pytest

from harness import Proxy, pg_binary, wait_until
from harness.cluster import tool_environment
from harness.patroni import PatroniCluster

pytestmark = pytest.mark.slow
CLIENTS = 32


@pytest.fixture(scope="module")
def cluster():
    with PatroniCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(databases=[{"name": "app", "shards": cluster.shard_config()}], options={"pool": {"size": 32}}) as proxy:
        proxy.wait_nodes()
        yield proxy


def primary_port(proxy):
    return next((int(row["port"]) for row in proxy.show("NODES") if str(row["primary"]) in ("t", "True")), None)


def test_switchover_under_tpcb(cluster, proxy, tmp_path):
    """patronictl switchover: the server ends the transactions that are open at that moment, all else is a pause."""
    old = cluster.leader()
    subprocess.run([pg_binary("pgbench"), "-i", "-q", "-s", "2", f"host={old.host} port={old.port} user=postgres dbname=app"],
                   check=True, env=tool_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bench = subprocess.Popen(
        [pg_binary("pgbench"), "-n", "-c", str(CLIENTS), "-j", "2", "-T", "20", "-l", "--log-prefix", str(tmp_path / "tx"),
         f"host=127.0.0.1 port={proxy.port} user=postgres dbname=app"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=tool_environment())
    try:
        time.sleep(3)
        target = next(member for member in cluster.members if member is not old and member.value(
            "SELECT pg_is_in_recovery()") and member.role() in ("replica", "sync_standby") and is_sync(old, member))
        cluster.ctl("switchover", "pgshunt", "--master", old.name, "--candidate", target.name, "--force")
        out = bench.communicate(timeout=120)[0]
    finally:
        bench.kill()
        bench.wait()
    aborted = len(re.findall(r"client \d+ (?:script \d+ )?aborted", out))
    slowest = max(int(line.split()[2]) for path in glob.glob(str(tmp_path / "tx.*")) for line in open(path)) / 1e6
    done = int(re.search(r"actually processed: (\d+)", out)[1])
    print(f"switchover: {done} transactions, {aborted} clients ended by the server, longest transaction {slowest:.2f} s")
    assert aborted <= CLIENTS
    assert all("57P01" in line or "terminating" in line or "lost the connection" in line or "administrator command" in line
               for line in out.splitlines() if "ERROR" in line or "FATAL" in line), out[-3000:]
    wait_until(lambda: primary_port(proxy) == target.port, 30.0, "the new leader is the primary")
    assert proxy.value("SELECT count(*) FROM pgbench_history") == target.value("SELECT count(*) FROM pgbench_history") >= done
    cluster.wait_healthy()


def is_sync(leader, member):
    return leader.value(f"SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' "
                        f"AND application_name = '{member.name}'") == 1


class Client(threading.Thread):
    """Writes one row after the other, each in a transaction of two statements or by itself; remembers how each ended."""

    def __init__(self, proxy, number, stop):
        super().__init__(daemon=True)
        self.proxy, self.number, self.stop = proxy, number, stop
        self.acknowledged, self.failed, self.longest, self.turn = set(), [], 0.0, 0
        self.start()

    def run(self):
        connection = None
        while not self.stop.is_set():
            self.turn += 1
            key = self.number * 1000000 + self.turn
            began = time.monotonic()
            try:
                if connection is None or connection.closed:
                    connection = self.proxy.connect()
                    connection.autocommit = self.number % 2 == 0
                cursor = connection.cursor()
                cursor.execute("INSERT INTO seen VALUES (%s)", (key,))
                if not connection.autocommit:
                    cursor.execute("INSERT INTO seen VALUES (%s)", (-key,))
                    connection.commit()
                self.acknowledged.add(key)
            except psycopg2.Error as error:
                self.failed.append((key, error.pgcode, str(error)))
                if connection is not None:  # as a pool of connections does after such an error
                    connection.close()
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.005)
        if connection is not None:
            connection.close()


class Waiter(threading.Thread):
    """Has nothing in flight when the primary dies: it is between two transactions, or has said BEGIN and no more."""

    def __init__(self, proxy, number, begun):
        super().__init__(daemon=True)
        self.key, self.begun = 1000000000 + number, begun
        self.go, self.failure, self.done = threading.Event(), None, False
        self.connection = proxy.connect()
        self.cursor = self.connection.cursor()
        self.cursor.execute("INSERT INTO seen VALUES (%s)", (self.key,))  # it has been on that primary
        if begun:
            self.cursor.execute("BEGIN")
        self.start()

    def run(self):
        self.go.wait()
        try:
            self.cursor.execute("INSERT INTO seen VALUES (%s)", (-self.key,))
            if self.begun:
                self.cursor.execute("COMMIT")
            self.done = True
        except psycopg2.Error as error:
            self.failure = error
        finally:
            self.connection.close()


def test_primary_is_killed(cluster, proxy):
    """kill -9 of the leader and its Patroni: only what was in flight on it fails; everybody else waits, nothing is lost or
    done twice."""
    old = cluster.leader()
    proxy.sql("CREATE TABLE IF NOT EXISTS seen (id bigint PRIMARY KEY)")
    stop = threading.Event()
    clients = [Client(proxy, number, stop) for number in range(1, CLIENTS + 1)]
    try:
        wait_until(lambda: all(len(each.acknowledged) >= 5 for each in clients), 60.0, "everybody writes")
        waiters = [Waiter(proxy, number, number % 2 == 0) for number in range(16)]
        old.kill9()
        for each in waiters:  # there is no primary now
            each.go.set()
        wait_until(lambda: primary_port(proxy) not in (None, old.port), 60.0, "another primary")
        before = [each.turn for each in clients]
        wait_until(lambda: all(each.turn > turn + 5 for each, turn in zip(clients, before)), 60.0, "everybody writes again")
        for each in waiters:
            each.join(60)
    finally:
        stop.set()
        for each in clients:
            each.join(60)
    assert [each.failure for each in waiters if each.failure] == [] and all(each.done for each in waiters)
    failed = [failure for each in clients for failure in each.failed]
    print(f"kill -9: {len(failed)} of {CLIENTS} clients had a transaction in flight that failed; "
          f"longest wait {max(each.longest for each in clients):.2f} s")
    assert all(len(each.failed) <= 1 for each in clients), failed
    assert all(code in ("08006", "57P01", "57P02", None) for _, code, _ in failed), failed
    leader = cluster.leader()
    rows = set(map(int, leader.value("SELECT string_agg(id::text, ',') FROM seen WHERE id > 0").split(",")))
    acknowledged = set().union(*(each.acknowledged for each in clients))
    assert acknowledged <= rows
    assert {-row[0] for row in proxy.sql("SELECT id FROM seen WHERE id < -999999999")} == {each.key for each in waiters}
    assert rows - acknowledged - {each.key for each in waiters} <= {key for key, _, _ in failed}
    old.start()
    cluster.wait_healthy()
    wait_until(lambda: {str(row["state"]) for row in proxy.show("NODES")} == {"up"}, 60.0, "all nodes up")
    assert os.path.exists(proxy.log_path) and not re.search("a second writable node", proxy.log())
