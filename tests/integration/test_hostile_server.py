"""Hostile bytes from a server end in a clean error for the client: no crash, no hang, nobody else harmed."""
import socket
import struct
import threading
from contextlib import closing

import psycopg2
import pytest
from harness import Proxy
from harness.process import free_port
from support import message

READY = message(b"Z", b"I")
LOGIN = (message(b"R", struct.pack("!I", 0)) + message(b"S", b"server_version\0" + b"15.0\0") +
         message(b"S", b"client_encoding\0UTF8\0") + message(b"K", struct.pack("!II", 4711, 42)) + READY)


def length(kind, size):
    """A message that says it has `size` bytes, and does not."""
    return kind + struct.pack("!i", size)


FATAL = message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")

# What the server answers to the first query.
ANSWERS = {
    "random bytes": bytes(range(255, 0, -1)) * 40,
    "length too small": length(b"T", 3),
    "length zero": length(b"C", 0),
    "negative length": length(b"E", -1),
    "a control message of two gigabytes": length(b"T", 0x7fffffff) + b"x" * 1000,
    "half a message, then the end": length(b"T", 500) + b"half",
    "half a row, then the end": message(b"T", b"\0\0") + length(b"D", 5000) + b"half",
    "a header cut off": b"C\0\0",
    "nothing at all": b"",
    "a strange status": message(b"Z", b"x"),
    "no status": message(b"Z", b""),
    "an error without fields": message(b"E", b""),
    "an error that does not end": message(b"E", b"SERROR\0C") ,
    "an error without SQLSTATE": message(b"E", b"SFATAL\0Mno state\0\0"),
    "an authentication request": message(b"R", struct.pack("!I", 3)),
    "a second cancel key": message(b"K", struct.pack("!II", 1, 2)),
    "ParseComplete for no Parse": message(b"1"),
    "BindComplete for no Bind": message(b"2"),
    "a tag that does not end": message(b"C", b"SELECT 1"),
    "a parameter status that does not end": message(b"S", b"TimeZone\0UTC"),
    "an unknown message": message(b"?", b"what"),
    "ready twice": message(b"C", b"SELECT 0\0") + READY + READY,
    "FATAL": FATAL,
    "rows that never end": message(b"T", b"\0\0") + message(b"D", b"\0\0") * 20000,
}

# What the server says instead of a login.
LOGINS = {
    "random bytes": bytes(range(255, 0, -1)) * 4,
    "length too small": length(b"R", 3),
    "a message of two gigabytes": length(b"R", 0x7fffffff),
    "an error without fields": message(b"E", b""),
    "an error": FATAL,
    "an unknown authentication": message(b"R", struct.pack("!I", 99)),
    "an authentication cut off": message(b"R", b"\0"),
    "md5 without a salt": message(b"R", struct.pack("!I", 5)),
    "SASL without mechanisms": message(b"R", struct.pack("!I", 10)),
    "SASL that continues before it began": message(b"R", struct.pack("!I", 11) + b"r=x,s=,i=0"),
    "SASL that ends before it began": message(b"R", struct.pack("!I", 12) + b"v=AAAA"),
    "rows": message(b"D", b"\0\0"),
    "nothing": b"",
}


class HostileServer:
    """Passes the monitor's connections to a real server and treats all others as the script says."""

    def __init__(self, real_port):
        self.real_port, self.port = real_port, free_port()
        self.login, self.answer = LOGIN, READY
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.closing = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.closing:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection:
            try:
                startup = connection.recv(65536)
                while startup[4:8] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):
                    connection.sendall(b"N")
                    startup = connection.recv(65536)
                if b"monitor" in startup:
                    self.relay(connection, startup)
                else:
                    self.play(connection)
            except OSError:
                pass

    def relay(self, connection, startup):
        with socket.create_connection(("127.0.0.1", self.real_port)) as real:
            real.sendall(startup)
            back = threading.Thread(target=self.copy, args=(real, connection), daemon=True)
            back.start()
            self.copy(connection, real)

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def play(self, connection):
        connection.sendall(self.login)
        if self.login is not LOGIN:
            return
        connection.recv(65536)
        connection.sendall(self.answer)
        connection.settimeout(1.0)
        connection.shutdown(socket.SHUT_WR)

    def close(self):
        self.closing = True
        self.listener.close()


@pytest.fixture(scope="module")
def hostile(cluster):
    with closing(HostileServer(cluster.shards[0].primary.port)) as server:
        node = {"host": "127.0.0.1", "port": server.port}
        bad = {"name": "bad", "shards": [{"name": "s0", "dbname": "app", "nodes": [node]}]}
        good = {"name": "app", "shards": cluster.shard_config()[:1]}
        with Proxy(cluster, databases=[good, bad]) as proxy:
            proxy.wait_nodes()
            proxy.hostile = server
            yield proxy


def fails(proxy, extended):
    """One statement against the hostile server: an error, or a connection that is closed; never a hang."""
    with pytest.raises(Exception) as caught:
        if extended:
            with proxy.connect3("bad") as connection:
                connection.execute("SELECT %s::int", (1,)).fetchone()
        else:
            with closing(proxy.connect("bad")) as connection:
                connection.cursor().execute("SELECT 1")
    return caught.value


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("name", ANSWERS)
def test_answers(hostile, name, extended):
    hostile.hostile.login, hostile.hostile.answer = LOGIN, ANSWERS[name]
    fails(hostile, extended)
    assert hostile.value("SELECT 1") == 1


@pytest.mark.parametrize("name", LOGINS)
def test_logins(hostile, name):
    hostile.hostile.login = LOGINS[name]
    # A user of its own: greetings and failed logins are remembered for a while.
    with pytest.raises(psycopg2.OperationalError) as caught:
        hostile.connect("bad", user=f"user{list(LOGINS).index(name)}").close()
    assert "FATAL" in str(caught.value) and "cannot connect" in str(caught.value)
    assert hostile.value("SELECT 1") == 1


ROWS = {
    "no columns": (0, message(b"D", b"\0\0")),
    "nothing but NULL": (2, message(b"D", b"\0\2" + b"\xff" * 8)),
}


@pytest.mark.parametrize("name", ROWS)
def test_catalogs(cluster, name):
    """The schema is read from a server that answers with rows of another shape: told, and no more."""
    columns, row = ROWS[name]
    described = b"".join(b"c\0" + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for _ in range(columns))
    with closing(HostileServer(cluster.shards[0].primary.port)) as server:
        server.answer = message(b"T", struct.pack("!h", columns) + described) + row + message(b"C", b"SELECT 1\0") + READY
        bad = {"name": "bad", "shards": [{"name": "s0", "dbname": "app", "nodes": [{"host": "127.0.0.1", "port": server.port}]}]}
        good = {"name": "app", "shards": cluster.shard_config()[:1]}
        with Proxy(cluster, databases=[good, bad]) as proxy:
            proxy.wait_log("cannot load the schema.*database=bad.*not one of Postgres")
            assert proxy.value("SELECT 1") == 1
