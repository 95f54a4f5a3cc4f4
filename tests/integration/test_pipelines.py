"""Pipelines, chains and cursors where pgshunt has more to do than one Postgres."""
import socket
from contextlib import closing

import psycopg
import pytest
from support import SYNC, Raw, bind, close, error_of, execute, kinds, parse, query, rows

pytestmark = pytest.mark.core


def run(sql, values=()):
    return parse("", sql) + bind("", "", values) + execute()


def test_a_pipeline_that_begins_with_a_read_may_write(data):
    """It is one transaction: also its first statement must be on the primary."""
    for _ in range(10):
        with Raw(data) as raw:
            answer = raw.ask(run("SELECT 1"), run("INSERT INTO notes VALUES (900, 'x')"),
                             run("DELETE FROM notes WHERE id = 900"), SYNC)
            assert kinds(answer) == "12DC12C12CZ"


def test_a_query_in_a_pipeline_that_writes_is_refused(data):
    with Raw(data) as raw:
        raw.send(run("INSERT INTO notes VALUES (901, 'x')"), query("SELECT 1"))
        found = []
        with pytest.raises(EOFError):
            while True:
                found.append(raw.read())
        error = error_of(found)
        assert error["C"] == "0A000" and error["S"] == "FATAL" and error["H"]
    assert data.sql("SELECT count(*) FROM notes WHERE id = 901") == [(0,)]


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK"])
def test_a_chain_over_two_shards(data, how):
    with Raw(data) as raw:
        raw.ask(query("BEGIN ISOLATION LEVEL REPEATABLE READ"))
        assert error_of(raw.ask(query("SELECT count(*) FROM users"))) is None
        assert raw.ask(query(how + " AND CHAIN"))[-2:] == [("C", how.encode() + b"\0"), ("Z", b"T")]
        for number in range(1, 9):  # on both shards
            answer = raw.ask(query(f"SELECT id, current_setting('transaction_isolation') FROM users WHERE id = {number}"))
            assert rows(answer) == [[b"%d" % number, b"repeatable read"]] and answer[-1] == ("Z", b"T")
        assert raw.ask(query("COMMIT"))[-1] == ("Z", b"I")


def test_a_setting_in_a_transaction_over_two_shards_is_reported(data):
    with Raw(data) as raw:
        raw.ask(query("BEGIN"))
        raw.ask(query("SELECT count(*) FROM users"))
        answer = raw.ask(query("SET timezone = 'Asia/Tokyo'"))
        assert [body for kind, body in answer if kind == "S"] == [b"TimeZone\0Asia/Tokyo\0"]
        raw.ask(query("COMMIT"))
        assert rows(raw.ask(query("SHOW timezone"))) == [[b"Asia/Tokyo"]]


def test_a_drivers_server_side_cursor(data):
    """psycopg asks for the description of the portal that DECLARE made."""
    with closing(psycopg.connect(data.dsn())) as connection:
        with connection.cursor("some_cursor") as cursor:
            cursor.execute("SELECT id FROM notes ORDER BY id")
            assert cursor.fetchmany(2) == [(1,), (2,)]
            assert cursor.fetchone() == (3,)


def test_a_client_that_does_not_read_is_not_listened_to(proxy):
    """Answers of pgshunt's own must not fill its memory."""
    with Raw(proxy) as raw:
        raw.socket.setblocking(False)
        chunk, sent = close("S", "x") * 10000, 0
        raw.socket.settimeout(1)
        with pytest.raises(socket.timeout):
            while sent < 100_000_000:
                sent += raw.socket.send(chunk)
        assert sent < 60_000_000
    assert proxy.sql("SELECT 1") == [(1,)]
