"""Hostile bytes end in a clean error and a closed connection; everybody else is served on."""
import errno
import random
import socket
import struct
import time
from contextlib import closing

import pytest

from harness import Proxy, wait_until
from support import SYNC, Raw, bind, error_of, execute, message, parse, query, startup

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def target(cluster):
    """A proxy of its own: at the end it must still run, and stop cleanly."""
    with Proxy(cluster, options={"auth": {"login_timeout": "2s"}}) as proxy:
        yield proxy
        assert proxy.running()
        assert proxy.value("SELECT 1") == 1


def send_and_wait(proxy, data, wait=True):
    """Sends bytes and reads until the proxy closes (or, for harmless ones, is silent)."""
    with proxy.socket(3.0) as raw:
        try:
            raw.sendall(data)
            if wait:
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(65536):
                    pass
        except (ConnectionResetError, BrokenPipeError):
            pass
        except OSError as error:  # of shutdown(): the proxy was quicker to close
            if error.errno != errno.ENOTCONN:
                raise


STARTS = {
    "nothing": b"",
    "one byte": b"\0",
    "zeros": bytes(64),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls hello": bytes.fromhex("160301020001000001fc0303") + bytes(200),
    "length 0": struct.pack("!II", 0, 196608),
    "length 4": struct.pack("!I", 4),
    "length 7": struct.pack("!I", 7) + b"abc",
    "negative length": struct.pack("!iI", -1, 196608),
    "huge length": struct.pack("!II", 0x7fffffff, 196608),
    "just too long": struct.pack("!II", 10001, 196608) + b"a" * 9993,
    "protocol 2": struct.pack("!II", 296, 131072) + bytes(288),
    "protocol 4": struct.pack("!II", 8, 262144),
    "no end": struct.pack("!II", 16, 196608) + b"user\0pos",
    "name without value": struct.pack("!II", 14, 196608) + b"user\0\0",
    "no user": struct.pack("!II", 9, 196608) + b"\0",
    "half a cancel": struct.pack("!II", 16, 80877102) + b"1234",
    "long cancel": struct.pack("!II", 400, 80877102) + bytes(392),
    "ssl again and again": struct.pack("!II", 8, 80877103) * 200,
    "password before startup": message(b"p", b"secret\0"),
    "user of 9000 bytes": struct.pack("!II", 9019, 196608) + b"user\0" + b"u" * 9004 + b"\0\0",
}


@pytest.mark.parametrize("name", STARTS)
def test_hostile_start(target, name):
    send_and_wait(target, STARTS[name])
    assert target.value("SELECT 1") == 1


MESSAGES = {
    "length 0": b"Q" + struct.pack("!I", 0),
    "length 3": b"Q" + struct.pack("!I", 3),
    "negative length": b"Q" + struct.pack("!i", -5),
    "two gigabytes": b"Q" + struct.pack("!I", 0x7fffffff) + b"SELECT 1",
    "unknown type": b"~" + struct.pack("!I", 4),
    "type 0": b"\0" + struct.pack("!I", 4),
    "query without end": message(b"Q", b"SELECT 1"),
    "query with zeros": message(b"Q", b"SELECT\0 1\0"),
    "not utf-8": message(b"Q", b"SELECT '\xff\xfe\xc0'\0"),
    "empty parse": message(b"P"),
    "parse with too many types": message(b"P", b"\0SELECT 1\0" + struct.pack("!H", 65535)),
    "empty bind": message(b"B"),
    "bind that lies about its count": message(b"B", b"\0\0" + struct.pack("!HH", 0, 65535)),
    "bind with a negative length": message(b"B", b"\0\0" + struct.pack("!HHiH", 0, 1, -7, 0)),
    "bind with a huge length": message(b"B", b"\0\0" + struct.pack("!HHI", 0, 1, 0x7ffffff0)),
    "empty describe": message(b"D"),
    "describe of nothing": message(b"D", b"X\0"),
    "empty execute": message(b"E"),
    "empty close": message(b"C"),
    "copy data out of turn": message(b"d", b"data") * 3,
    "copy done out of turn": message(b"c"),
    "password out of turn": message(b"p", b"secret\0"),
    "sync with a body": message(b"S", b"body"),
    "a server's message": message(b"Z", b"I"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_hostile_message(target, name):
    with Raw(target, timeout=5.0) as raw:
        try:
            raw.send(MESSAGES[name], SYNC)
            raw.socket.shutdown(socket.SHUT_WR)
            assert raw.at_end()
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert target.value("SELECT 1") == 1


def test_refusal_has_a_sqlstate(target):
    with Raw(target, timeout=5.0) as raw:
        raw.send(b"Q" + struct.pack("!i", -5))
        kind, body = raw.read()
        assert kind == "E" and b"C08P01\0" in body
        assert raw.at_end()


@pytest.mark.parametrize("seed", range(12))
def test_random_garbage(target, seed):
    """Random bytes at the start, and after a login; and a good stream with bytes flipped."""
    chance = random.Random(seed)
    for _ in range(10):
        send_and_wait(target, chance.randbytes(chance.randint(1, 5000)))
    good = startup() + query("SELECT 1") + parse("a", "SELECT $1::int") + bind("", "a", [b"1"]) + execute() + SYNC
    for _ in range(15):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        send_and_wait(target, bytes(bad))
    with Raw(target, timeout=5.0) as raw:
        try:
            raw.send(chance.randbytes(2000))
            raw.socket.shutdown(socket.SHUT_WR)
            raw.at_end()
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert target.value("SELECT 1") == 1


@pytest.mark.parametrize("cut", range(1, 90, 8))
def test_half_messages(target, cut):
    """The client leaves in the middle of a message."""
    stream = startup() + parse("", "SELECT $1::int") + bind("", "", [b"1"]) + execute() + SYNC
    send_and_wait(target, stream[:cut], wait=False)
    send_and_wait(target, stream[:cut])
    assert target.value("SELECT 1") == 1


def test_slow_login_is_ended(target):
    """A client that does not finish its login is disconnected after login_timeout."""
    sockets = [target.socket(10.0) for _ in range(20)]
    for raw in sockets:
        raw.sendall(startup()[:6])
    began = time.monotonic()
    for raw in sockets:
        try:
            while raw.recv(1000):
                pass
        except ConnectionResetError:
            pass
        raw.close()
    assert 1.0 < time.monotonic() - began < 8.0
    assert target.value("SELECT 1") == 1


def test_client_that_never_reads(cluster, target):
    """Its answers wait at the server, not in the proxy's memory."""
    with Raw(target, timeout=5.0) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        before = resident(target)
        raw.send(query("SELECT repeat('x', 100000) FROM generate_series(1, 5000)"))
        time.sleep(2.0)
        assert resident(target) - before < 64 * 1024, "half a gigabyte was asked for, 64 MB is too much"
        assert target.value("SELECT 1") == 1


def resident(proxy):
    """Resident memory in kB."""
    with open(f"/proc/{proxy.pid}/status") as status:
        return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))


def test_statement_is_not_believed_to_be_large(target):
    """A message that says it is 60 MB costs no memory before its bytes are there."""
    sockets = []
    before = resident(target)
    for _ in range(20):
        raw = Raw(target)
        raw.send(b"Q" + struct.pack("!I", 60 * 1024 * 1024) + b"SELECT 1")
        sockets.append(raw)
    time.sleep(0.5)
    assert resident(target) - before < 100 * 1024
    for raw in sockets:
        raw.close()


def test_many_connections_at_once(target):
    sockets = [target.socket() for _ in range(300)]
    for raw in sockets:
        raw.sendall(startup())
    assert target.value("SELECT 1") == 1
    for raw in sockets:
        raw.close()
    wait_until(lambda: len(target.show("CLIENTS")) < 10, 10.0, "clients gone")


def test_deeply_nested_sql(target):
    """Ten thousand brackets: the server's stack limit or ours, never a crash."""
    for sql in ("SELECT " + "(" * 10000 + "1" + ")" * 10000, "SELECT " + "1+" * 20000 + "1",
                "SELECT 1 WHERE " + "NOT " * 10000 + "true", "SELECT " + "ARRAY[" * 3000 + "1" + "]" * 3000,
                "SELECT 1" + " UNION ALL SELECT 1" * 2000):
        with Raw(target, timeout=60.0) as raw:
            answer = raw.ask(query(sql))
            assert answer[-1][0] == "Z"
            error = error_of(answer)
            assert error is None or error["C"] in ("54001", "42601", "0A000", "54000", "42846", "2202E"), error
    assert target.value("SELECT 1") == 1


def test_a_server_that_talks_nonsense(cluster):
    """Something that is no Postgres answers on a node's port: an error for the client, nothing worse."""
    import threading
    with closing(socket.create_server(("127.0.0.1", 0))) as fake:
        port = fake.getsockname()[1]
        stop = threading.Event()

        def answer():
            fake.settimeout(0.2)
            chance = random.Random(5)
            while not stop.is_set():
                try:
                    peer, _ = fake.accept()
                except (socket.timeout, OSError):
                    continue
                with closing(peer):
                    peer.settimeout(0.2)
                    try:
                        peer.recv(1000)
                        peer.sendall(chance.choice([
                            b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(100), chance.randbytes(500),
                            b"R" + struct.pack("!II", 8, 0) + b"Z" + struct.pack("!i", -1),
                            b"R" + struct.pack("!II", 8, 0) + message(b"Z", b"I") + message(b"D", b"\xff\xff"),
                            b"R" + struct.pack("!II", 8, 10), b"E" + struct.pack("!I", 4)]))
                        time.sleep(0.02)
                    except OSError:
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            nodes = [{"host": "127.0.0.1", "port": port}]
            options = {"pool": {"connect_timeout": "500ms", "query_wait_timeout": "1s"}}
            with Proxy(databases=[{"name": "app", "shards": [{"name": "s0", "dbname": "app", "nodes": nodes}]}],
                       options=options) as proxy:
                for _ in range(8):
                    with pytest.raises(Exception):
                        proxy.sql("SELECT 1")
                assert proxy.running()
        finally:
            stop.set()
            thread.join()
