"""Protocol versions and options: what is spoken, how it is negotiated, cancel keys old and long."""
import re
import socket
import struct
import threading
import time

import pytest
from harness import Proxy, wait_until
from support import SYNC, Raw, error_of, kinds, message, query
from test_hostile_server import LOGIN, HostileServer

pytestmark = pytest.mark.core

NEWEST = 3 << 16 | 2


def packet(version, *options, database="app"):
    body = struct.pack("!I", version) + b"user\0postgres\0database\0" + database.encode() + b"\0"
    body += b"".join(option + b"\0on\0" for option in options) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def log_in(raw, version, *options):
    """The negotiation asked for (version, options) or None, and the cancel key."""
    raw.send(packet(version, *options))
    answers = raw.until_ready()
    assert kinds(answers).lstrip("v").startswith("R") and answers[-1] == ("Z", b"I"), answers
    told = dict(answers).get("v")
    if told is not None:
        newest, count = struct.unpack("!II", told[:8])
        names = told[8:].split(b"\0")[:-1]
        assert len(names) == count
        told = (newest, names)
    return told, dict(answers)["K"]


def version(major, minor):
    return major << 16 | minor


@pytest.mark.parametrize("asked, options, told, key", [
    # What Postgres 18 answers.
    (version(3, 0), (), None, 4),
    (version(3, 0), (b"_pq_.one", b"_pq_.two"), (version(3, 0), [b"_pq_.one", b"_pq_.two"]), 4),
    (version(3, 1), (), None, 4),
    (version(3, 2), (), None, 32),
    (version(3, 2), (b"_pq_.x",), (NEWEST, [b"_pq_.x"]), 32),
    (version(3, 3), (), (NEWEST, []), 32),
    (version(3, 9999), (b"_pq_.test_protocol_negotiation",), (NEWEST, [b"_pq_.test_protocol_negotiation"]), 32),
])
def test_negotiation(proxy, asked, options, told, key):
    with Raw(proxy, login=False) as raw:
        answer, secret = log_in(raw, asked, *options)
        assert answer == told
        assert len(secret) == 4 + key
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"


@pytest.mark.parametrize("asked", [version(1, 0), version(2, 0), version(4, 0), version(0, 7), version(1234, 9)])
def test_other_major_versions_are_refused_as_postgres_does(cluster, proxy, asked):
    """The same bytes, but for the range of versions that is told."""
    def refusal(connection):
        with connection:
            connection.sendall(packet(asked))
            found = b""
            while more := connection.recv(4096):
                found += more
            return found

    ours = refusal(proxy.socket())
    node = cluster.shards[0].primary
    postgres = refusal(socket.create_connection((node.host, node.port), 10))
    text = re.compile(rb"unsupported frontend protocol \d+\.\d+")
    assert text.search(ours)[0] == text.search(postgres)[0] == b"unsupported frontend protocol %d.%d" % (
        asked >> 16, asked & 0xffff)
    assert ours[:1] == postgres[:1] == b"E"
    if asked >> 16 < 3:
        assert ours == postgres.replace(b"server supports 3.0 to 3.0", b"server supports 3.0 to 3.2")
    else:
        assert b"C0A000\0" in ours and b"C0A000\0" in postgres and b"SFATAL\0" in ours


def cancel(proxy, key):
    with proxy.socket() as other:
        other.sendall(struct.pack("!II", 8 + len(key), 80877102) + key)
        assert other.recv(1) == b""


@pytest.mark.parametrize("asked", [version(3, 0), version(3, 2)])
def test_the_cancel_key_cancels_and_a_part_of_it_does_not(proxy, asked):
    with Raw(proxy, login=False) as raw:
        _, key = log_in(raw, asked)
        flipped = key[:-1] + bytes([key[-1] ^ 1])
        raw.send(query("SELECT pg_sleep(1)"))
        for wrong in (flipped, key[:-1], key + b"\0", key[:4], key[:8] if asked == NEWEST else key[:7],
                      key[:4] + bytes(32), key + bytes(300)):
            cancel(proxy, wrong)
        assert error_of(raw.until_ready()) is None
        raw.send(query("SELECT pg_sleep(30)"))
        time.sleep(0.2)
        cancel(proxy, key)
        assert error_of(raw.until_ready())["C"] == "57014"
        cancel(proxy, key)  # nothing runs
        assert kinds(raw.ask(SYNC)) == "Z"


def test_keys_are_not_alike(proxy):
    keys = set()
    for _ in range(5):
        with Raw(proxy, login=False) as raw:
            keys.add(log_in(raw, NEWEST)[1][4:])
    assert len(keys) == 5


@pytest.mark.parametrize("size", [4, 32, 256, None])
def test_cancel_keys_of_servers(cluster, size):
    """A server's key goes back to it as it came, whatever its length; a server without one does no harm."""
    key = struct.pack("!I", 4711) + bytes(range(256))[:size] if size else None
    whole = message(b"K", struct.pack("!II", 4711, 42))
    assert whole in LOGIN
    server = CancelledServer(cluster.shards[0].primary.port)
    server.login = LOGIN.replace(whole, message(b"K", key) if key else b"")
    database = {"name": "app", "shards": [{"name": "s0", "dbname": "app",
                                          "nodes": [{"host": "127.0.0.1", "port": server.port}]}]}
    try:
        with Proxy(cluster, databases=[database]) as proxy:
            proxy.wait_nodes()
            with Raw(proxy) as raw:
                raw.send(query("SELECT 1"))
                assert server.asked(), "the query reached the server"
                cancel(proxy, struct.pack("!II", *raw.key))
                if key:
                    assert server.cancelled() == struct.pack("!II", 8 + len(key), 80877102) + key
                else:
                    time.sleep(0.2)
                    assert not server.requests
                server.finish.set()
                assert raw.until_ready()[-1] == ("Z", b"I")
    finally:
        server.close()


class CancelledServer(HostileServer):
    """Answers a query when told to; keeps cancel requests."""

    def __init__(self, real_port):
        self.requests, self.queries, self.finish = [], 0, threading.Event()
        super().__init__(real_port)

    def serve(self, connection):
        first = connection.recv(65536, socket.MSG_PEEK)
        if first[4:8] == struct.pack("!I", 80877102):
            with connection:
                self.requests.append(connection.recv(65536))
            return
        super().serve(connection)

    def play(self, connection):
        connection.sendall(self.login)
        while connection.recv(65536):
            self.queries += 1
            self.finish.wait(20)
            connection.sendall(message(b"C", b"SELECT 0\0") + message(b"Z", b"I"))

    def asked(self):
        return wait_until(lambda: self.queries, 10.0, "a query")

    def cancelled(self):
        return wait_until(lambda: self.requests, 10.0, "a cancel request")[0]

    def close(self):
        self.closing = True
        self.finish.set()
        self.listener.close()
