"""A client that lets its answers lie stops its servers, and whatever it asked behind them goes on when it reads again."""
import array
import fcntl
import shutil
import socket
import tempfile
import termios
import time
from contextlib import closing

import pytest

from harness import Proxy
from support import Raw, error_of, kinds, query, rows

pytestmark = pytest.mark.core

KEYSPACE = {"name": "ids", "type": "bigint", "tables": [{"name": "wide", "key": "id"}]}
COUNT = 240
# What the client's socket takes is not known exactly; pgshunt stops reading a server at 64 KiB behind that.
SIZES = range(65536, 720000, 32768)


class Door:
    """Where a Raw connects: a unix socket, as the kernel keeps little of what is not read there."""

    def __init__(self, proxy, folder):
        self.path = f"{folder}/.s.PGSQL.{proxy.port}"

    def socket(self, timeout):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(self.path)
        return client


@pytest.fixture(scope="module")
def door(cluster):
    folder = tempfile.mkdtemp(prefix="pgshunt-slow-")
    options = {"workers": 1, "listen": {"unix_socket_dir": folder}, "routing": {"read_write_split": False}}
    with Proxy(cluster, keyspaces=[KEYSPACE], options=options) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE wide (id bigint PRIMARY KEY, body text)")
        with closing(proxy.connect()) as connection, connection.cursor() as cursor:
            for first in range(0, COUNT, 40):
                some = ", ".join(f"({i}, repeat('x', 8000))" for i in range(first, first + 40))
                cursor.execute("INSERT INTO wide VALUES " + some)
        yield Door(proxy, folder)
        proxy.sql("DROP TABLE wide")
    shutil.rmtree(folder)


def let_lie(raw):
    """Waits until no more comes into the client's socket, which nobody reads."""
    waiting, before, since = array.array("i", [0]), -1, time.monotonic()
    while time.monotonic() - since < 0.03:
        fcntl.ioctl(raw.socket, termios.FIONREAD, waiting)
        if waiting[0] != before:
            before, since = waiting[0], time.monotonic()
        time.sleep(0.005)


def test_a_limit_is_reached_while_the_client_does_not_read(door):
    """What the shards have beyond it is read and thrown away, however much waits for the client."""
    with Raw(door) as raw:
        for limit in range(8, 100, 4):
            raw.send(query(f"SELECT id, body FROM wide ORDER BY id LIMIT {limit}"))
            let_lie(raw)
            assert [int(row[0]) for row in rows(raw.until_ready())] == list(range(limit))


@pytest.mark.parametrize("behind, answer", [
    ("UPDATE wide SET body = body WHERE body = ''", "C"),
    ("SELECT count(*) FROM wide a JOIN wide b ON b.id = a.id + 1", "TDC"),
    ("DECLARE c CURSOR FOR SELECT id FROM wide ORDER BY id", "C"),
    ("SAVEPOINT a", "C"),
], ids=["change", "gather", "cursor", "savepoint"])
def test_what_is_asked_behind_a_long_answer(door, behind, answer):
    """The server of the long answer is read no more until the client reads; then also for what came behind it."""
    with Raw(door) as raw:
        for size in SIZES:
            raw.ask(query("BEGIN"))
            raw.ask(query("SELECT count(*) FROM wide"))
            raw.send(query(f"SELECT repeat('x', {size})"), query(behind), query("ROLLBACK"))
            let_lie(raw)
            assert len(rows(raw.until_ready())[0][0]) == size
            found = raw.until_ready()
            assert not error_of(found)
            assert kinds(found) == answer + "Z"
            assert kinds(raw.until_ready()) == "CZ"
