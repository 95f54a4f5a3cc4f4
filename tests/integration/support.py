"""What several integration tests share: asserting refusals, reading a plan, talking in raw protocol messages."""
import re
import socket
import struct
from contextlib import contextmanager

import psycopg2
import pytest


@contextmanager
def refused(sqlstate, message=None, hint=True):
    """The block must fail with this SQLSTATE (a string or several); what pgshunt refuses carries a hint."""
    wanted = (sqlstate,) if isinstance(sqlstate, str) else tuple(sqlstate)
    with pytest.raises(Exception) as caught:
        yield caught
    error = caught.value
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    assert code in wanted, f"{code}: {error}"
    if message:
        assert message.lower() in str(error).lower()
    if hint:
        assert error.diag.message_hint, f"no hint: {error}"


def explain(connection, query, params=None):
    """EXPLAIN through the proxy, as one lower-case text."""
    cursor = connection.cursor()
    cursor.execute("EXPLAIN " + query, params)
    return "\n".join(str(row[0]) for row in cursor.fetchall()).lower()


def semijoins(connection, query, params=None):
    """What EXPLAIN ANALYZE says: the lines about semi-joins, and how many rows came from the other shards."""
    cursor = connection.cursor()
    cursor.execute("EXPLAIN ANALYZE " + query, params)
    lines = [row[0] for row in cursor.fetchall()]
    rows = sum(int(match[1]) for line in lines if (match := re.match(r"  rows from \w+: (\d+) in", line)))
    return [line.strip() for line in lines if line.strip().startswith("semi-join:")], rows


def fetch(connection, query, params=None):
    cursor = connection.cursor()
    cursor.execute(query, params)
    return cursor.fetchall()


def one(connection, query, params=None):
    return fetch(connection, query, params)[0][0]


def connect_error(*args, **kwargs):
    """The text of the error that connecting ends with."""
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect(*args, **kwargs).close()
    return str(caught.value)


# ---- raw protocol ----

def message(kind, body=b""):
    return kind + struct.pack("!I", len(body) + 4) + body


def startup(user="postgres", database="app", **parameters):
    body = struct.pack("!I", 196608)
    for name, value in {"user": user, "database": database, **parameters}.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


def parse(name, sql, types=()):
    return message(b"P", name.encode() + b"\0" + sql.encode() + b"\0" +
                   struct.pack(f"!H{len(types)}I", len(types), *types))


def bind(portal, statement, values=(), formats=(), results=()):
    body = portal.encode() + b"\0" + statement.encode() + b"\0"
    body += struct.pack(f"!H{len(formats)}H", len(formats), *formats)
    body += struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    body += struct.pack(f"!H{len(results)}H", len(results), *results)
    return message(b"B", body)


def describe(kind, name):
    return message(b"D", kind.encode() + name.encode() + b"\0")


def execute(portal="", rows=0):
    return message(b"E", portal.encode() + b"\0" + struct.pack("!I", rows))


def close(kind, name):
    return message(b"C", kind.encode() + name.encode() + b"\0")


SYNC = message(b"S")
FLUSH = message(b"H")
TERMINATE = message(b"X")


class Raw:
    """A client that speaks in messages."""

    def __init__(self, proxy, login=True, timeout=20.0, **parameters):
        self.socket = proxy.socket(timeout)
        self.buffer = b""
        self.parameters = {}
        self.key = None
        if login:
            self.send(startup(**parameters))
            for kind, body in self.until_ready():
                if kind == "S":
                    name, value, _ = body.split(b"\0")
                    self.parameters[name.decode()] = value.decode()
                elif kind == "K":
                    self.key = struct.unpack("!II", body)
                elif kind == "E":
                    raise AssertionError(f"login refused: {body!r}")

    def send(self, *parts):
        self.socket.sendall(b"".join(parts))

    def read(self):
        """The next message (type, body); EOFError when the proxy has closed."""
        header = self._bytes(5)
        length, = struct.unpack("!I", header[1:])
        return chr(header[0]), self._bytes(length - 4)

    def _bytes(self, count):
        while len(self.buffer) < count:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise EOFError("closed")
            self.buffer += more
        result, self.buffer = self.buffer[:count], self.buffer[count:]
        return result

    def until_ready(self):
        """All messages up to and with ReadyForQuery."""
        found = []
        while True:
            found.append(self.read())
            if found[-1][0] == "Z":
                return found

    def ask(self, *parts):
        self.send(*parts)
        return self.until_ready()

    def at_end(self):
        """Whether the proxy has closed the connection (reads and drops what it still sent)."""
        try:
            while True:
                self.read()
        except EOFError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def kinds(messages):
    return "".join(kind for kind, _ in messages)


def fields(body):
    """An ErrorResponse's or NoticeResponse's fields by letter."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def values(body):
    """A DataRow's columns (None is NULL)."""
    count, = struct.unpack("!H", body[:2])
    at, row = 2, []
    for _ in range(count):
        length, = struct.unpack("!i", body[at:at + 4])
        at += 4
        row.append(None if length < 0 else body[at:at + length])
        at += max(length, 0)
    return row


def rows(messages):
    return [values(body) for kind, body in messages if kind == "D"]


def error_of(messages):
    return next((fields(body) for kind, body in messages if kind == "E"), None)
