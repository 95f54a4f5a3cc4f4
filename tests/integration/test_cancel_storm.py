"""Cancel requests by the hundred: each hits the session it means or nothing, and nobody else."""
import selectors
import socket
import struct
import threading
import time

import pytest
from harness import Proxy, wait_until
from harness.proxy import binary
from support import Raw, bind, error_of, execute, kinds, parse, query, rows
from test_protocol_versions import CancelledServer
from test_hostile_server import LOGIN

pytestmark = pytest.mark.core

VICTIMS, OTHERS = (150, 60) if "asan" in binary() else (1000, 100)


def cancel(proxy, key):
    """Sent, and not waited for."""
    other = proxy.socket(30)
    other.sendall(struct.pack("!IIII", 16, 80877102, *key))
    return other


class Session:
    """One of many connections served by one loop; asks again as soon as it was answered."""

    def __init__(self, proxy, number, victim):
        self.raw = Raw(proxy, database="plain", timeout=60.0)
        self.number, self.victim = number, victim
        self.asked = self.cancelled = self.answered = 0
        self.found = []

    def ask(self):
        self.asked += 1
        seconds = 0.01 if self.victim else 0.002
        token = f"{self.number}:{self.asked}"
        self.raw.send(parse("", f"SELECT pg_sleep({seconds}), $1::text") + bind("", "", [token.encode()]) +
                      execute() + b"S\0\0\0\4" if self.asked % 2
                      else query(f"SELECT pg_sleep({seconds}), '{token}'"))

    def answers(self):
        """Takes what has come; true when the answer is whole and right."""
        more = self.raw.socket.recv(65536)
        assert more, f"session {self.number} was closed"
        self.raw.buffer += more
        while len(self.raw.buffer) >= 5:
            length, = struct.unpack("!I", self.raw.buffer[1:5])
            if len(self.raw.buffer) < 1 + length:
                return False
            self.found.append((chr(self.raw.buffer[0]), self.raw.buffer[5:1 + length]))
            self.raw.buffer = self.raw.buffer[1 + length:]
            if self.found[-1][0] == "Z":
                self.check()
                self.found = []
                return True
        return False

    def check(self):
        error = error_of(self.found)
        if error:
            assert self.victim and error["C"] == "57014", f"session {self.number} (no victim) got {error}"
            self.cancelled += 1
        else:
            assert rows(self.found)[0][1] == f"{self.number}:{self.asked}".encode(), "somebody else's answer"
            self.answered += 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_a_storm_hits_nobody_else(cluster, workers):
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"workers": workers, "pool": {"size": 8},
                                                    "limits": {"max_clients": 5000},
                                                    "routing": {"read_write_split": False}}) as proxy:
        proxy.wait_nodes()
        sessions = [Session(proxy, number, number < VICTIMS) for number in range(VICTIMS + OTHERS)]
        victims, others = sessions[:VICTIMS], sessions[VICTIMS:]
        storm = threading.Event()
        requests = [0]

        def cancelling():
            while not storm.is_set():
                for victim in victims:
                    if storm.is_set():
                        return
                    with cancel(proxy, victim.raw.key):
                        requests[0] += 1

        threads = [threading.Thread(target=cancelling, daemon=True) for _ in range(2)]
        with selectors.DefaultSelector() as selector:
            for session in sessions:
                selector.register(session.raw.socket, selectors.EVENT_READ, session)
                session.ask()
            for thread in threads:
                thread.start()
            try:
                end = time.monotonic() + 40
                while (min(other.answered for other in others) < 4 or
                       sum(victim.cancelled for victim in victims) < VICTIMS // 2):
                    assert time.monotonic() < end, "no progress"
                    for key, _ in selector.select(1.0):
                        if key.data.answers():
                            key.data.ask()
            finally:
                storm.set()
                for thread in threads:
                    thread.join()
        for session in sessions:
            session.raw.close()
        wait_until(lambda: sum(row["sv_active_cancel"] + row["sv_being_canceled"] for row in proxy.show("POOLS")) == 0,
                   20.0, "no cancel request under way")
        assert proxy.value("SELECT 1", dbname="plain") == 1
        print(f"{requests[0]} cancel requests, {sum(victim.cancelled for victim in victims)} statements cancelled, "
              f"{sum(other.answered for other in others)} of others answered")


def test_all_shards_of_a_fan_out(cluster, data):
    """Every shard's part is cancelled, and the servers are good for others afterwards."""
    with Raw(data) as raw:
        raw.send(query("SELECT id, pg_sleep(30) FROM users ORDER BY id"))

        def sleeping():
            return [node for node in cluster.nodes
                    if node.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE "
                                  "'%%pg_sleep(30)%%' AND pid <> pg_backend_pid()", dbname="postgres")]

        wait_until(lambda: len({node.shard for node in sleeping()}) == 2, 10.0, "both shards at it")
        cancel(data, raw.key).close()
        assert error_of(raw.until_ready())["C"] == "57014"
        wait_until(lambda: not sleeping(), 10.0, "none at it")
        assert kinds(raw.ask(query("SELECT count(*) FROM users"))) == "TDCZ"


def test_many_cancels_of_one_statement(cluster):
    """They become one or two: no connection each to the server, and none is left over for what follows."""
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 1}, "workers": 2}) as proxy:
        with Raw(proxy, database="plain") as raw, Raw(proxy, database="plain") as other:
            for _ in range(5):
                raw.send(query("SELECT pg_sleep(30)"))
                time.sleep(0.1)
                askers = [cancel(proxy, raw.key) for _ in range(60)]
                assert error_of(raw.until_ready())["C"] == "57014"
                for _ in range(5):
                    answers = other.ask(query("SELECT pg_sleep(0.01)"))
                    assert kinds(answers) == "TDCZ", answers
                for asker in askers:
                    asker.close()


def test_cancels_of_an_idle_session_do_nothing(cluster):
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 1}}) as proxy:
        with Raw(proxy, database="plain") as raw:
            raw.ask(query("BEGIN"))
            raw.ask(query("CREATE TEMP TABLE mine ()"))
            for _ in range(20):
                with cancel(proxy, raw.key) as asker:
                    assert asker.recv(1) == b""
                assert raw.ask(query("SELECT pg_sleep(0.005)"))[-1] == ("Z", b"T")
            assert raw.ask(query("COMMIT"))[-1] == ("Z", b"I")


class DeafServer(CancelledServer):
    """Takes cancel requests and neither acts nor hangs up."""

    def serve(self, connection):
        first = connection.recv(65536, socket.MSG_PEEK)
        if first[4:8] == struct.pack("!I", 80877102):
            self.requests.append(connection)
            return
        super().serve(connection)


@pytest.mark.slow
def test_a_server_that_is_deaf_to_cancels(cluster):
    """The request times out; the server, which it may hit yet, is given to nobody else."""
    server = DeafServer(cluster.shards[0].primary.port)
    server.login = LOGIN
    plain = {"name": "app", "shards": [{"name": "s0", "dbname": "app",
                                       "nodes": [{"host": "127.0.0.1", "port": server.port}]}]}
    try:
        with Proxy(cluster, databases=[plain], options={"pool": {"size": 1}, "workers": 1}) as proxy:
            proxy.wait_nodes()
            with Raw(proxy) as raw:
                raw.send(query("SELECT 1"))
                assert server.asked()
                askers = [cancel(proxy, raw.key) for _ in range(30)]
                wait_until(lambda: server.requests, 10.0, "a cancel request")
                server.finish.set()
                assert raw.until_ready()[-1] == ("Z", b"I")
                server.finish.clear()
                served = next(row for row in proxy.show("SERVERS"))
                assert served["state"] == "being_canceled"
                wait_until(lambda: all(row["ptr"] != served["ptr"] for row in proxy.show("SERVERS")), 20.0,
                           "the server dropped")
                assert len(server.requests) <= 2
                for asker in askers:
                    asker.close()
    finally:
        server.close()
        for connection in server.requests:
            connection.close()
