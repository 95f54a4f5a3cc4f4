"""COPY when something goes wrong in the middle of a message: the server, the client, the rest of it."""
import select
import socket
import struct
import time
from contextlib import closing

import pytest
from harness import Proxy, wait_until
from support import FLUSH, SYNC, Raw, bind, error_of, execute, kinds, message, one, parse, query, rows

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def proxy(cluster):
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 1}, "routing": {"read_write_split": False},
                                                    "workers": 1}) as proxy:
        proxy.wait_nodes()
        proxy.sql("DROP TABLE IF EXISTS halves; CREATE TABLE halves (a int, b text)", dbname="plain")
        yield proxy
        proxy.sql("DROP TABLE halves", dbname="plain")


def half(length=100_000):
    """The head of a CopyData message and the rest of it."""
    whole = message(b"d", b"7\t" + b"x" * (length - 3) + b"\n")
    return whole[:length // 2], whole[length // 2:]


def copy_until_error(raw, extended, first):
    """Starts a COPY and sends what fails and the head of another message; the error has come."""
    raw.send(parse("", "COPY halves FROM STDIN") + bind("", "") + execute() + FLUSH if extended
             else query("COPY halves FROM STDIN"))
    while raw.read()[0] != "G":
        pass
    raw.send(message(b"d", b"nonsense\n"), first)


@pytest.mark.parametrize("transaction", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_an_error_in_the_middle_of_a_message(proxy, extended, transaction):
    """Half of a message has gone to the server when it fails: it must get the other half, and nobody else's bytes
    for it."""
    head, rest = half()
    with Raw(proxy, database="plain") as raw, closing(proxy.connect("plain")) as other:
        if transaction:
            raw.ask(query("BEGIN"))
        copy_until_error(raw, extended, head)
        found = []
        while not found or found[-1][0] != ("E" if extended else "Z"):
            found.append(raw.read())
        assert error_of(found)["C"] == "22P02"
        raw.send(rest, message(b"d", b"8\ty\n"), message(b"c"))
        if extended:
            assert kinds(raw.ask(SYNC)) == "Z"
        if transaction:
            assert error_of(raw.ask(query("SELECT 1")))["C"] == "25P02"
            assert raw.ask(query("ROLLBACK"))[-1] == ("Z", b"I")
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"
        assert one(other, "SELECT count(*) FROM halves") == 0


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_a_client_that_leaves_with_half_a_message_sent_after_an_error(proxy, extended):
    """The only server of the pool: whoever comes next must be answered."""
    raw = Raw(proxy, database="plain")
    copy_until_error(raw, extended, half()[0])
    while raw.read()[0] != "E":
        pass
    raw.close()
    assert proxy.value("SELECT 41 + 1", dbname="plain") == 42


def test_a_client_that_pauses_with_half_a_message_sent_after_an_error(proxy):
    """It keeps the server for that long, as with Postgres itself; others wait and are served when it goes on."""
    head, rest = half()
    with Raw(proxy, database="plain") as raw, Raw(proxy, database="plain") as other:
        copy_until_error(raw, False, head)
        assert kinds(raw.until_ready()) == "EZ"
        other.send(query("SELECT 5"))
        wait_until(lambda: any(row["cl_waiting"] for row in proxy.show("POOLS")), 10.0, "the other waiting")
        raw.send(rest)
        assert rows(other.until_ready()) == [[b"5"]]
        raw.send(message(b"c"))  # of no COPY any more: ignored
        assert rows(raw.ask(query("SELECT 6"))) == [[b"6"]]


def test_a_server_lost_in_the_middle_of_a_message(cluster, proxy):
    node = cluster.shards[0].primary
    head, rest = half()
    with Raw(proxy, database="plain") as raw:
        raw.send(query("COPY halves FROM STDIN"))
        assert raw.read()[0] == "G"
        raw.send(head)
        wait_until(lambda: node.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE "
                                      "'COPY halves%' AND state = 'active'", dbname="postgres"), 10.0, "the COPY")
        answers = raw.until_ready()
        assert error_of(answers)["C"] in ("57P01", "08006")
        raw.send(rest, message(b"c"))
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"


def test_a_cancelled_copy(proxy):
    head, rest = half()
    with Raw(proxy, database="plain") as raw:
        raw.send(query("COPY halves FROM STDIN"))
        assert raw.read()[0] == "G"
        raw.send(head)
        time.sleep(0.1)
        with proxy.socket() as other:
            other.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
            assert other.recv(1) == b""
        raw.send(rest)
        while not select.select([raw.socket], [], [], 0.05)[0]:
            raw.send(message(b"d", b"8\ty\n"))  # a server that waits for bytes notices with the next row
        assert error_of(raw.until_ready())["C"] == "57014"
        raw.send(message(b"c"))
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"


@pytest.mark.parametrize("options", ["", " CSV HEADER", " BINARY"])
def test_formats_there_and_back(proxy, options):
    with Raw(proxy, database="plain") as raw:
        raw.ask(query("TRUNCATE halves"))
        raw.ask(query("INSERT INTO halves SELECT n, CASE WHEN n % 3 = 0 THEN NULL ELSE E'a\\tb\\n\"' || n END "
                      "FROM generate_series(1, 3000) n"))
        with_option = f" WITH ({', '.join('FORMAT ' + word if word != 'HEADER' else word for word in options.split())})"
        suffix = with_option if options else ""
        out = raw.ask(query(f"COPY halves TO STDOUT{suffix}"))
        assert kinds(out)[0] == "H" and kinds(out)[-3:] == "cCZ"
        data = b"".join(body for kind, body in out if kind == "d")
        raw.ask(query("CREATE TEMP TABLE again (LIKE halves)"))
        raw.send(query(f"COPY again FROM STDIN{suffix}"))
        assert raw.read()[0] == "G"
        # Messages need not end where rows do.
        for at in range(0, len(data), 777):
            raw.send(message(b"d", data[at:at + 777]))
        assert raw.ask(message(b"c"))[-2] == ("C", b"COPY 3000\0")
        assert rows(raw.ask(query("SELECT count(*) FROM (TABLE halves EXCEPT ALL TABLE again) x"))) == [[b"0"]]
        raw.ask(query("TRUNCATE halves"))


def test_several_copies_in_one_query(proxy):
    with Raw(proxy, database="plain") as raw:
        raw.send(query("COPY halves FROM STDIN; COPY halves TO STDOUT; COPY halves FROM STDIN; SELECT count(*) FROM "
                       "halves; TRUNCATE halves"))
        assert raw.read()[0] == "G"
        raw.send(message(b"d", b"1\tx\n"), message(b"c"))
        found = [raw.read()]
        while found[-1][0] != "G":
            found.append(raw.read())
        assert kinds(found) == "CHdcCG"
        raw.send(message(b"d", b"2\ty\n"), message(b"c"))
        answers = raw.until_ready()
        assert kinds(answers) == "CTDCCZ" and rows(answers) == [[b"2"]]


def test_copy_fails_in_the_middle_of_a_query(proxy):
    with Raw(proxy, database="plain") as raw:
        raw.send(query("INSERT INTO halves VALUES (1); COPY halves FROM STDIN; SELECT 3"))
        assert kinds([raw.read(), raw.read()]) == "CG"
        answers = raw.ask(message(b"d", b"2\ty\n"), message(b"f", b"enough\0"))
        assert kinds(answers) == "EZ" and "enough" in error_of(answers)["M"]
        assert rows(raw.ask(query("SELECT count(*) FROM halves"))) == [[b"0"]]


def test_bytes_one_by_one(proxy):
    with Raw(proxy, database="plain") as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = query("COPY halves FROM STDIN") + message(b"d", b"1\tone\n") + message(b"d", b"") + \
            message(b"d", b"2\ttwo\n") + message(b"c") + query("DELETE FROM halves")
        for at in range(len(stream)):
            raw.send(stream[at:at + 1])
        assert kinds(raw.until_ready()) == "GCZ"
        assert raw.until_ready()[0] == ("C", b"DELETE 2\0")
