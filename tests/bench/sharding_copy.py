#!/usr/bin/python3
"""What COPY FROM of a sharded table costs the proxy: bytes split per second of its CPU.

    tests/bench/sharding_copy.py [ROWS]        a cluster of its own; 10M rows unless said
    measure(cluster, proxy, rows=...)          for others: `proxy` has TABLE among a keyspace's tables

The client sends narrow rows in pieces of 8 kB, as libpq's COPY does, as fast as the proxy takes them. The
shards take them for good, into an unlogged table. CPU time is what the proxy's threads were running for,
in the kernel too: it hardly moves with whatever else the machine does.
"""
import os
import socket
import struct
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from harness import Cluster, Proxy, wait_until  # noqa: E402

TABLE = {"name": "copied", "key": "id"}
KEYSPACE = {"name": "copied_ids", "type": "bigint", "tables": [TABLE]}
CREATE = "CREATE UNLOGGED TABLE copied (id bigint NOT NULL, name text, amount int)"
ROWS = 10_000_000
BLOCK = 100_000  # rows that are made at once
PIECE = 8192

FORMATS = {"text": ("", "{n}\tname {n}\t{amount}\n"),
           "csv": (" (FORMAT csv)", "{n},name {n},{amount}\n"),
           "csv, quoted": (" (FORMAT csv)", '{n},"name, {n}",{amount}\n'),
           "binary": (" (FORMAT binary)", None)}


def cpu_seconds(pid):
    """How long all threads of the process were running; one that has ended in between is not counted."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


class Wire:
    """A client that only knows how to log in without a password, to ask and to COPY."""

    def __init__(self, proxy):
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=600)
        body = struct.pack("!i", 196608) + b"user\0postgres\0database\0app\0\0"
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self.input = self.socket.makefile("rb")
        self.until(b"Z")

    def until(self, wanted):
        """The body of the next message of that type."""
        while True:
            kind, length = struct.unpack("!ci", self.input.read(5))
            body = self.input.read(length - 4)
            if kind == b"E":
                raise RuntimeError(body.decode(errors="replace"))
            if kind == wanted:
                return body

    def query(self, sql):
        text = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(text) + 4) + text)

    def close(self):
        self.input.close()
        self.socket.close()


def binary_row(n):
    name = b"name %d" % n
    return struct.pack("!hiqi", 3, 8, n, len(name)) + name + struct.pack("!ii", 4, n % 100)


def block(line, first):
    """Rows from number `first` on."""
    numbers = range(first, first + BLOCK)
    if line is None:
        return b"".join(map(binary_row, numbers))
    return "".join(line.format(n=n, amount=n % 100) for n in numbers).encode()


def messages(data):
    return b"".join(b"d" + struct.pack("!i", len(piece) + 4) + piece
                    for piece in (data[at:at + PIECE] for at in range(0, len(data), PIECE)))


def copy(proxy, options, line, rows):
    """Bytes that were copied, the proxy's CPU seconds, seconds."""
    wire = Wire(proxy)
    blocks = [block(line, first) for first in range(1, 10 * BLOCK, BLOCK)]
    ready = [messages(data) for data in blocks]
    wire.query("COPY copied FROM STDIN" + options)
    wire.until(b"G")
    began, used, size = time.monotonic(), cpu_seconds(proxy.pid), 0
    if line is None:
        wire.socket.sendall(messages(b"PGCOPY\n\xff\r\n\0" + bytes(8)))
    for number in range(rows // BLOCK):
        wire.socket.sendall(ready[number % len(ready)])
        size += len(blocks[number % len(ready)])
    wire.socket.sendall((messages(b"\xff\xff") if line is None else b"") + b"c" + struct.pack("!i", 4))
    tag = wire.until(b"C")
    assert tag == b"COPY %d\0" % (rows // BLOCK * BLOCK), tag
    wire.until(b"Z")
    used, took = cpu_seconds(proxy.pid) - used, time.monotonic() - began
    wire.query("TRUNCATE copied")
    wire.until(b"Z")
    wire.close()
    return size, used, took


def measure(cluster, proxy, rows=ROWS):
    """{"text": {"mb_per_cpu_second": ..., "mb_per_second": ..., "rows": ...}, "csv": ...}"""
    rows = max(rows // BLOCK, 1) * BLOCK
    for shard in cluster.shards:
        shard.primary.sql("DROP TABLE IF EXISTS copied")
        shard.primary.sql(CREATE)
    wait_until(lambda: takes_copies(proxy), 60.0, "the table to be known")
    found = {}
    for name, (options, line) in FORMATS.items():
        size, used, took = copy(proxy, options, line, rows)
        found[name] = {"rows": rows, "mb_per_cpu_second": round(size / max(used, 0.01) / 1e6, 1),
                       "mb_per_second": round(size / took / 1e6, 1)}
    proxy.sql("DROP TABLE copied")
    return found


def takes_copies(proxy):
    wire = Wire(proxy)
    try:
        wire.query("COPY copied FROM STDIN")
        wire.until(b"G")
        return True
    except RuntimeError:
        return False
    finally:
        wire.close()


def main():
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with Cluster(shards=2, replicas=0) as cluster, Proxy(cluster, keyspaces=[KEYSPACE]) as proxy:
        proxy.wait_nodes()
        for name, figures in measure(cluster, proxy, rows).items():
            print(f"COPY FROM, {figures['rows']} rows, {name}: {figures['mb_per_cpu_second']} MB per CPU second "
                  f"of the proxy ({figures['mb_per_second']} MB/s)")


if __name__ == "__main__":
    main()
