"""COPY through the proxy in an unsharded database: both protocols, failures in the middle, large amounts."""
from contextlib import closing

import psycopg2
import pytest
from harness.proxy import binary
from support import SYNC, Raw, bind, describe, execute, fetch, kinds, message, one, parse, query, rows

DONE = message(b"c")


def piece(text):
    return message(b"d", text.encode())


@pytest.fixture
def table(proxy):
    with closing(proxy.connect("plain")) as connection:
        connection.cursor().execute("DROP TABLE IF EXISTS copied; CREATE TABLE copied (a int PRIMARY KEY, b text)")
    yield "copied"
    with closing(proxy.connect("plain")) as connection:
        connection.cursor().execute("DROP TABLE copied")


def extended(sql):
    return parse("", sql) + bind("", "") + describe("P", "") + execute() + SYNC


def test_extended_copy_in_with_sync_ahead(proxy, table):
    """libpq sends Sync behind Execute; Postgres ignores it once it copies in, and wants another."""
    with Raw(proxy, database="plain") as raw:
        raw.send(extended("COPY copied FROM STDIN"))
        while raw.read()[0] != "G":
            pass
        answers = raw.ask(piece("1\tone\n2\ttwo\n"), DONE, SYNC)
        assert kinds(answers) == "CZ" and answers[0][1] == b"COPY 2\0"
        assert rows(raw.ask(query("SELECT count(*) FROM copied"))) == [[b"2"]]


def test_extended_copy_in_that_fails(proxy, table):
    with Raw(proxy, database="plain") as raw:
        raw.send(extended("COPY copied FROM STDIN"))
        while raw.read()[0] != "G":
            pass
        answers = raw.ask(piece("not a number\tx\n"), piece("2\ttwo\n"), DONE, SYNC)
        assert kinds(answers) == "EZ" and b"C22P02\0" in answers[0][1]
        assert rows(raw.ask(query("SELECT count(*) FROM copied"))) == [[b"0"]]


def test_copy_given_up_by_the_client(proxy, table):
    with Raw(proxy, database="plain") as raw:
        raw.send(query("COPY copied FROM STDIN"))
        assert raw.read()[0] == "G"
        answers = raw.ask(piece("1\tone\n"), message(b"f", b"changed my mind\0"))
        assert kinds(answers) == "EZ" and b"changed my mind" in answers[0][1]
        assert rows(raw.ask(query("SELECT count(*) FROM copied"))) == [[b"0"]]


def test_client_that_leaves_while_copying(proxy, table):
    raw = Raw(proxy, database="plain")
    raw.send(query("COPY copied FROM STDIN"))
    assert raw.read()[0] == "G"
    raw.send(piece("1\tone\n"), message(b"d", b"2\thalf")[:-3])
    raw.close()
    with closing(proxy.connect("plain")) as connection:
        assert one(connection, "SELECT count(*) FROM copied") == 0


def test_copy_within_a_transaction(proxy, table):
    with Raw(proxy, database="plain") as raw:
        raw.ask(query("BEGIN"))
        raw.send(query("COPY copied FROM STDIN"))
        assert raw.read()[0] == "G"
        assert kinds(raw.ask(piece("1\tone\n"), DONE)) == "CZ"
        raw.ask(query("ROLLBACK"))
        assert rows(raw.ask(query("SELECT count(*) FROM copied"))) == [[b"0"]]


def test_copy_out_and_a_statement_behind_it(proxy, table):
    with Raw(proxy, database="plain") as raw:
        raw.ask(query("INSERT INTO copied SELECT g, 'x' FROM generate_series(1, 1000) g"))
        answers = raw.ask(query("COPY copied TO STDOUT; SELECT 5"))
        assert kinds(answers).replace("d", "") == "HcCTDCZ"
        assert kinds(answers).count("d") == 1000
        answers = raw.ask(extended("COPY copied TO STDOUT"))
        assert kinds(answers).count("d") == 1000


def test_a_million_rows_and_little_memory(proxy, table):
    """What flows through is not kept."""
    with closing(proxy.connect("plain")) as connection, open("/dev/null", "w") as sink:
        cursor = connection.cursor()
        before = resident(proxy)
        cursor.copy_expert("COPY (SELECT g, repeat('y', 100) FROM generate_series(1, 1000000) g) TO STDOUT", sink)
        allowed = 8192 if "asan" not in binary() else 65536  # freed memory stays in its quarantine
        assert resident(proxy) - before < allowed, "kilobytes grown by a copy of 100 MB"


def resident(proxy):
    with open(f"/proc/{proxy.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
