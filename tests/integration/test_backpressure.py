"""However much flows, a connection keeps little: peak memory measured while the other side is slow, or large.

PGSHUNT_BULK_MB=2048 runs the amounts that are promised (default: what is quick)."""
import os
import socket
import struct
import threading
import time

import pytest
from harness import Proxy, wait_until
from harness.proxy import SANITIZER_ENVIRONMENT, binary
from support import (FLUSH, SYNC, Raw, bind, close, describe, error_of, execute, kinds, message, parse, query,
                     startup)

ASAN = "asan" in binary()
BULK_MB = int(os.environ.get("PGSHUNT_BULK_MB", "64" if ASAN else "256"))
MB = 1 << 20
# The sanitizer's allocator keeps freed memory for a while; a whole 256 MB of it, unless told otherwise.
LITTLE_QUARANTINE = {"ASAN_OPTIONS": SANITIZER_ENVIRONMENT["ASAN_OPTIONS"] + ":quarantine_size_mb=4"}
ALLOWED_KB = 80_000 if ASAN else 1024

if not ASAN:
    pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def proxy(cluster):
    """One worker, so that what is measured is one connection's; pools large enough for all."""
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"workers": 1, "pool": {"size": 60}, "routing": {"read_write_split": False}},
               environment=LITTLE_QUARANTINE) as proxy:
        proxy.wait_nodes()
        yield proxy


class Peak:
    """The most memory the proxy had resident above what it had at the start; kilobytes."""

    def __init__(self, proxy, connections=1):
        self.pid, self.connections = proxy.process.pid, connections

    def read(self, name):
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name))

    def __enter__(self):
        with open(f"/proc/{self.pid}/clear_refs", "w") as refs:
            refs.write("5")  # the peak is now
        self.before = self.read("VmRSS")
        return self

    def growth(self):
        return self.read("VmHWM") - self.before

    def __exit__(self, kind, *_):
        if kind is None:
            grown = self.growth()
            print(f"peak {grown} kB over {self.connections} connections")
            assert grown < ALLOWED_KB * (1 if ASAN else self.connections), f"grown by {grown} kB"


def warm(proxy):
    """A session whose server and buffers have been used: what follows is not the first of everything."""
    raw = Raw(proxy, database="plain", timeout=250.0)
    raw.ask(query("SELECT repeat('x', 300000)"))
    raw.ask(run("SELECT repeat('x', 300000)"), SYNC)
    return raw


def run(sql):
    return parse("", sql) + bind("", "") + describe("P", "") + execute()


def drain(raw, ready=1):
    """Reads and counts bytes up to so many ReadyForQuerys; messages are not kept."""
    total, left, header = 0, 0, b""
    view = memoryview(bytearray(MB))
    found = []
    while True:
        n = raw.socket.recv_into(view)
        assert n, "closed"
        total += n
        at = 0
        while at < n:
            step = min(left, n - at)
            if step:
                at += step
                left -= step
                continue
            take = min(5 - len(header), n - at)
            header += bytes(view[at:at + take])
            at += take
            if len(header) == 5:
                left = struct.unpack("!I", header[1:])[0] - 4
                found.append(header[:1]) if header[:1] in b"EZ" else None
                header = b""
        if found.count(b"Z") == ready and not left:
            assert b"E" not in found
            return total


# ---- much ----

@pytest.mark.slow
def test_much_copied_out(proxy):
    with warm(proxy) as raw, Peak(proxy):
        rows = BULK_MB * 1000
        raw.send(query(f"COPY (SELECT repeat('x', 1047) FROM generate_series(1, {rows})) TO STDOUT"))
        assert drain(raw) > rows * 1048


@pytest.mark.slow
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_much_selected(proxy, extended):
    sql = f"SELECT repeat('x', 1047) FROM generate_series(1, {BULK_MB // 2 * 1000})"
    with warm(proxy) as raw, Peak(proxy):
        raw.send(run(sql) + SYNC if extended else query(sql))
        assert drain(raw) > BULK_MB // 2 * MB


@pytest.mark.slow
def test_much_copied_in(proxy):
    with warm(proxy) as raw:
        raw.ask(query("CREATE TABLE IF NOT EXISTS much (body text)"))
        with Peak(proxy):
            raw.send(query("COPY much FROM STDIN WHERE false"))
            assert raw.read()[0] == "G"
            piece = message(b"d", (b"x" * 1023 + b"\n") * 64)
            for _ in range(BULK_MB * 16):
                raw.send(piece)
            raw.send(message(b"c"))
            assert kinds(raw.until_ready()) == "CZ"
        raw.ask(query("DROP TABLE much"))


@pytest.mark.slow
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_one_large_row(proxy, extended):
    """A row of a quarter of the amount (500 MB of 2 GB) in one message."""
    size = BULK_MB * MB // 4
    with warm(proxy) as raw, Peak(proxy):
        sql = f"SELECT repeat('x', {size})"
        raw.send(run(sql) + SYNC if extended else query(sql))
        assert drain(raw) > size


def test_a_large_notice(proxy):
    with warm(proxy) as raw, Peak(proxy):
        raw.send(query("DO $$ BEGIN RAISE NOTICE '%', repeat('x', 30000000); END $$"))
        assert drain(raw) > 30_000_000


# ---- slow clients ----

def waits_to_write(cluster, count=1):
    """Servers that wait for their reader."""
    node = cluster.shards[0].primary
    return lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE datname = 'plain' AND "
                              "wait_event = 'ClientWrite'", dbname="postgres") >= count


def test_a_slow_reader_stops_its_server(cluster, proxy):
    with warm(proxy) as raw, Peak(proxy):
        raw.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 60000)"))
        for _ in range(3):
            for _ in range(16):
                raw.socket.recv(65536)
            wait_until(waits_to_write(cluster), 20.0, "the server held back")
            assert proxy.value("SELECT 1", dbname="plain") == 1
        rest = b""
        while not rest.endswith(message(b"Z", b"I")):
            rest = rest[-10:] + raw.socket.recv(MB)


def test_many_slow_readers(cluster, proxy):
    """Each costs its queue, none a result."""
    readers = [warm(proxy) for _ in range(40)]
    try:
        with Peak(proxy, len(readers)):
            for raw in readers:
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                raw.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 60000)"))
            wait_until(waits_to_write(cluster, len(readers)), 40.0, "all held back")
        for raw in readers[:3]:
            drain(raw)
    finally:
        for raw in readers:
            raw.close()


def send_until_stuck(raw, unit, most=48 * MB):
    """Sends `unit` again and again without reading, until nothing is taken any more; returns how many went out."""
    block = unit * max(1, 60_000 // len(unit))
    raw.socket.setblocking(False)
    sent, stuck = 0, 0
    while sent < most and stuck < 10:
        try:
            sent += raw.socket.send(block[sent % len(unit):])
            stuck = 0
        except BlockingIOError:
            stuck += 1
            time.sleep(0.05)
    raw.socket.settimeout(60.0)
    return sent


PIPELINES = {
    "queries": query("SELECT 1"),
    "queries with long answers": query("SELECT repeat('x', 500)"),
    "empty queries": query(""),
    "Syncs": SYNC,
    "statements and Syncs": run("SELECT 1") + SYNC,
    "statements without Sync": run("SELECT 1"),
    "statements with long answers": run("SELECT repeat('x', 500)"),
    "statements with Flush": run("SELECT 1") + FLUSH,
    "Parse": parse("", "SELECT 1"),
    "Parse and Close": parse("p", "SELECT 1") + close("S", "p"),
    "Close": close("P", "none"),
    "Describe": describe("S", "known"),
    "Bind": bind("", "known"),
    "our own answers": query("SHOW pgshunt.version"),
    "our own long answers": query("SHOW pgshunt.key"),
    "our own answers in statements": run("SHOW pgshunt.key"),
    "BEGIN and COMMIT": query("BEGIN") + query("COMMIT"),
    "errors": query("SELEKT"),
    "errors and Syncs": run("SELECT 1/0") + SYNC,
    "notices": query("DO $$ BEGIN RAISE NOTICE '%', repeat('x', 500); END $$"),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_client_that_asks_and_never_reads(proxy, name):
    """It is not listened to any more, long before what it asks for fills the memory; nothing is lost when it reads."""
    unit = PIPELINES[name]
    with warm(proxy) as raw:
        raw.ask(query("SET pgshunt.key = '" + "k" * 20_000 + "'"))
        raw.ask(parse("known", "SELECT 1"), SYNC)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        with Peak(proxy):
            sent = send_until_stuck(raw, unit, MB)
        # The rest of the unit it is in, and the end of everything.
        rest = unit[sent % len(unit):] if sent % len(unit) else b""
        threading.Thread(target=raw.socket.sendall, args=(rest + SYNC + query("SELECT 'the end'"),), daemon=True).start()
        seen = b""
        while b"the end" not in seen:
            data = raw.socket.recv(MB)
            assert data, "closed"
            seen = seen[-20:] + data


def test_a_long_pipeline_that_is_read(proxy):
    """One batch of many statements: nothing of those that are done is kept until the Sync."""
    with warm(proxy) as raw:
        raw.ask(parse("known", "SELECT $1::int"), SYNC)
        with Peak(proxy):
            unit = (bind("", "known", [b"1"]) + execute()) * 1000
            count = 20 if ASAN else 100
            sender = threading.Thread(target=lambda: [raw.socket.sendall(part) for part in [unit] * count + [FLUSH]],
                                      daemon=True)
            sender.start()
            left = count * 1000
            while left:
                left -= raw.read()[0] == "C"
            sender.join()
            assert kinds(raw.ask(SYNC)) == "Z"


def test_notices_that_flood(proxy):
    with warm(proxy) as raw, Peak(proxy):
        raw.send(query("DO $$ BEGIN FOR i IN 1..40000 LOOP RAISE NOTICE '%', repeat('x', 1000); END LOOP; END $$"))
        time.sleep(0.5)
        assert drain(raw) > 40_000_000


# ---- slow servers ----

def test_a_slow_server_stops_its_client(cluster, proxy):
    """COPY IN to a server that takes its time."""
    with warm(proxy) as raw:
        raw.ask(query("CREATE TABLE slowly (body text)"))
        raw.ask(query("CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); "
                      "RETURN NULL; END $$"))
        raw.ask(query("CREATE TRIGGER slowly BEFORE INSERT ON slowly FOR EACH ROW EXECUTE FUNCTION slowly()"))
        with Peak(proxy):
            raw.send(query("COPY slowly FROM STDIN"))
            assert raw.read()[0] == "G"
            sent = send_until_stuck(raw, message(b"d", b"x" * 1000 + b"\n"), 64 * MB)
            assert sent < 64 * MB, "nobody stopped the client"
            # It can be cancelled all the same; then what was sent is dropped.
            with proxy.socket() as other:
                other.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
                assert other.recv(1) == b""
            assert error_of(raw.until_ready())["C"] == "57014"
            unit = 5 + 1001
            raw.send(b"x" * (unit - sent % unit) if sent % unit else b"", message(b"c"))
            assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"
        raw.ask(query("DROP TABLE slowly; DROP FUNCTION slowly()"))


def test_input_ahead_of_a_server_that_is_not_there_yet(cluster):
    """A client that waits for a server, and one that is being greeted, may say only so much."""
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"workers": 1, "pool": {"size": 1}},
               environment=LITTLE_QUARANTINE) as proxy:
        proxy.wait_nodes()
        with Raw(proxy, database="plain") as holder:
            holder.ask(query("BEGIN"))
            holder.ask(query("CREATE TEMP TABLE held ()"))
            with Raw(proxy, database="plain") as waiting:
                with Peak(proxy):
                    sent = send_until_stuck(waiting, query("SELECT 1"), 24 * MB)
                    assert sent < 24 * MB
            with Raw(proxy, login=False) as greeted:  # other settings: a server is asked for the greeting
                greeted.send(startup(database="plain", application_name="of its own"))
                with Peak(proxy):
                    sent = send_until_stuck(greeted, query("SELECT 1"), 24 * MB)
                    assert sent < 24 * MB
            holder.ask(query("COMMIT"))


@pytest.mark.parametrize("length", [5_000, 9_000, 70_000, 3_000_000])
def test_a_long_copy_fail(proxy, length):
    """Postgres takes up to 10,000 bytes of reason and hangs up beyond; what it says is what the client gets."""
    with warm(proxy) as raw:
        raw.ask(query("CREATE TEMP TABLE failed (body text)"))
        raw.send(query("COPY failed FROM STDIN"))
        assert raw.read()[0] == "G"
        raw.send(message(b"d", b"x\n"), message(b"f", b"y" * length + b"\0"))
        if length < 10_000:
            answers = raw.until_ready()
            assert kinds(answers) == "EZ" and "yyyy" in error_of(answers)["M"]
            assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"
        else:
            assert raw.read()[0] == "E"
            assert raw.at_end()
    assert proxy.value("SELECT 1", dbname="plain") == 1


@pytest.mark.parametrize("kind", ["S", "H", "X", "C", "D", "E"])
def test_long_messages_of_short_kinds_are_refused(proxy, kind):
    """They have no values in them: Postgres takes 10,000 bytes."""
    with Raw(proxy, database="plain") as raw:
        raw.send(kind.encode() + struct.pack("!I", 10_001))
        kind, body = raw.read()
        assert kind == "E" and b"C08P01\0" in body
        assert raw.at_end()
