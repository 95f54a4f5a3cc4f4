"""Simple and extended protocol as Postgres answers them, message by message."""
import struct

import psycopg
import psycopg2
import pytest

from support import (FLUSH, SYNC, Raw, bind, close, describe, error_of, execute, kinds, message, one, parse, query,
                     rows, startup)

pytestmark = pytest.mark.core


def test_startup_reports_what_drivers_need(proxy):
    with Raw(proxy) as raw:
        for name in ("server_version", "client_encoding", "server_encoding", "DateStyle", "TimeZone",
                     "integer_datetimes", "standard_conforming_strings"):
            assert raw.parameters.get(name), name
        assert raw.parameters["server_version"].startswith("15")
        assert raw.key is not None


@pytest.mark.parametrize("code", [80877103, 80877104])
def test_encryption_requests_are_answered(proxy, code):
    """SSLRequest and GSSENCRequest: 'N', then the start goes on in the clear."""
    with Raw(proxy, login=False) as raw:
        raw.send(struct.pack("!II", 8, code))
        assert raw._bytes(1) == b"N"
        raw.send(startup())
        assert raw.until_ready()[-1] == ("Z", b"I")


def test_simple_query(proxy):
    with Raw(proxy) as raw:
        answer = raw.ask(query("SELECT 1 AS one, NULL, 'two'"))
        assert kinds(answer) == "TDCZ"
        assert rows(answer) == [[b"1", None, b"two"]]
        assert answer[-2] == ("C", b"SELECT 1\0") and answer[-1] == ("Z", b"I")


@pytest.mark.parametrize("sql", ["", ";", "  ", "-- nothing", "/* nothing */ ;"])
def test_empty_query(proxy, sql):
    with Raw(proxy) as raw:
        assert kinds(raw.ask(query(sql))) == "IZ"


def test_several_statements_in_one_query(proxy, tables):
    with Raw(proxy, database="plain") as raw:
        answer = raw.ask(query("SELECT 1; SELECT 2, 3; SELECT 4 WHERE false"))
        assert kinds(answer) == "TDCTDCTCZ"


def test_error_in_the_middle_of_several_statements(proxy):
    with Raw(proxy, database="plain") as raw:
        answer = raw.ask(query("SELECT 1; SELECT 1/0; SELECT 3"))
        assert kinds(answer) == "TDCTEZ" or kinds(answer) == "TDCEZ"
        assert error_of(answer)["C"] == "22012"
        assert kinds(raw.ask(query("SELECT 5"))) == "TDCZ"


def test_syntax_error_is_the_servers(proxy):
    with pytest.raises(psycopg2.errors.SyntaxError):
        proxy.sql("SELEKT 1")


def test_extended_query(proxy):
    with Raw(proxy) as raw:
        answer = raw.ask(parse("", "SELECT $1::int + 1 AS n"), bind("", "", [b"41"]), describe("P", ""),
                         execute(), SYNC)
        assert kinds(answer) == "12TDCZ" and rows(answer) == [[b"42"]]


def test_binary_parameters_and_results(proxy):
    with Raw(proxy) as raw:
        answer = raw.ask(parse("", "SELECT $1::int8 + 1", [20]), bind("", "", [struct.pack("!q", 41)], [1], [1]),
                         execute(), SYNC)
        assert rows(answer) == [[struct.pack("!q", 42)]]


def test_describe_statement(proxy):
    with Raw(proxy) as raw:
        answer = raw.ask(parse("named", "SELECT $1::int AS a, $2::text AS b"), describe("S", "named"), SYNC)
        assert kinds(answer) == "1tTZ"
        count, first, second = struct.unpack("!HII", dict(answer)["t"])
        assert (count, first, second) == (2, 23, 25)
        answer = raw.ask(bind("", "named", [b"7", b"x"]), execute(), SYNC)
        assert kinds(answer) == "2DCZ" and rows(answer) == [[b"7", b"x"]]


def test_describe_of_a_write_says_no_data(proxy, tables):
    with Raw(proxy) as raw:
        answer = raw.ask(parse("w", "UPDATE notes SET body = $1 WHERE id = $2"), describe("S", "w"), SYNC)
        assert kinds(answer) == "1tnZ"


def test_flush_without_sync(proxy):
    with Raw(proxy) as raw:
        raw.send(parse("", "SELECT 7"), bind("", ""), execute(), FLUSH)
        assert [raw.read()[0] for _ in range(4)] == ["1", "2", "D", "C"]
        assert kinds(raw.ask(SYNC)) == "Z"


def test_error_skips_to_sync(proxy):
    with Raw(proxy) as raw:
        answer = raw.ask(parse("", "SELECT 1/$1::int"), bind("", "", [b"0"]), execute(),
                         parse("", "SELECT 2"), bind("", ""), execute(), SYNC)
        assert kinds(answer).endswith("EZ") and error_of(answer)["C"] == "22012" and not rows(answer)
        assert rows(raw.ask(parse("", "SELECT 3"), bind("", ""), execute(), SYNC)) == [[b"3"]]


def test_portal_with_a_row_limit(proxy):
    with Raw(proxy, database="plain") as raw:
        raw.ask(query("BEGIN"))
        answer = raw.ask(parse("", "SELECT * FROM generate_series(1, 5)"), bind("p", ""), execute("p", 2), SYNC)
        assert kinds(answer) == "12DDsZ" and answer[-1][1] == b"T"
        assert kinds(raw.ask(execute("p", 2), SYNC)) == "DDsZ"
        assert kinds(raw.ask(execute("p", 2), SYNC)) == "DCZ"
        raw.ask(query("COMMIT"))


def test_close_statement_and_portal(proxy):
    with Raw(proxy) as raw:
        raw.ask(parse("s", "SELECT 1"), SYNC)
        assert kinds(raw.ask(close("S", "s"), SYNC)) == "3Z"
        assert kinds(raw.ask(close("S", "never there"), close("P", "nor this"), SYNC)) == "33Z"
        assert error_of(raw.ask(bind("", "s"), execute(), SYNC))["C"] == "26000"


def test_sync_alone(proxy):
    with Raw(proxy) as raw:
        assert raw.ask(SYNC) == [("Z", b"I")]


def test_unknown_statement(proxy):
    with Raw(proxy) as raw:
        assert error_of(raw.ask(bind("", "unknown"), execute(), SYNC))["C"] == "26000"
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"


def test_duplicate_statement_name(proxy):
    with Raw(proxy) as raw:
        raw.ask(parse("twice", "SELECT 1"), SYNC)
        assert error_of(raw.ask(parse("twice", "SELECT 2"), SYNC))["C"] == "42P05"


def test_two_rounds_in_one_write(proxy):
    with Raw(proxy) as raw:
        raw.send(parse("", "SELECT 1"), bind("", ""), execute(), SYNC,
                 parse("", "SELECT 2"), bind("", ""), execute(), SYNC, query("SELECT 3"))
        found = [rows(raw.until_ready()) for _ in range(3)]
        assert found == [[[b"1"]], [[b"2"]], [[b"3"]]]


def test_byte_by_byte(proxy):
    with Raw(proxy, login=False) as raw:
        stream = startup() + query("SELECT 'slowly'") + parse("", "SELECT $1::text") + bind("", "", [b"too"]) + \
            execute() + SYNC
        for at in range(len(stream)):
            raw.send(stream[at:at + 1])
        raw.until_ready()
        assert rows(raw.until_ready()) == [[b"slowly"]]
        assert rows(raw.until_ready()) == [[b"too"]]


@pytest.mark.parametrize("size", [1000, 70_000, 3_000_000])
def test_large_statements_and_values(proxy, size):
    text = "x" * size
    assert proxy.value("SELECT length(%s)", (text,)) == size
    with proxy.connect3() as connection:
        assert connection.execute("SELECT %s::text", (text,)).fetchone()[0] == text
        assert connection.execute("SELECT length(%b::bytea)", (b"\0\xff" * (size // 2),)).fetchone()[0] == size


def test_statement_beyond_the_limit_is_refused(cluster):
    from harness import Proxy
    with Proxy(cluster, options={"limits": {"max_message": "64kB"}}) as proxy:
        with pytest.raises(psycopg2.Error) as caught:
            proxy.sql("SELECT '" + "x" * 200_000 + "'")
        assert caught.value.pgcode or "closed" in str(caught.value)
        assert proxy.value("SELECT 1") == 1


def test_notices_come_through(proxy):
    connection = proxy.connect("plain")
    connection.cursor().execute("DO $$ BEGIN RAISE NOTICE 'hear %', 'me'; END $$")
    assert any("hear me" in notice for notice in connection.notices)
    connection.close()


def test_copy_in_and_out(cluster, proxy, tables):
    import io
    connection = proxy.connect("plain")
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE copied (id int, v text)")
    cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("".join(f"{i}\trow {i}\n" for i in range(5000))))
    assert one(connection, "SELECT count(*) FROM copied") == 5000
    out = io.StringIO()
    cursor.copy_expert("COPY (SELECT * FROM copied ORDER BY id LIMIT 3) TO STDOUT", out)
    assert out.getvalue() == "0\trow 0\n1\trow 1\n2\trow 2\n"
    with pytest.raises(psycopg2.Error):
        cursor.copy_expert("COPY copied FROM STDIN", io.StringIO("no number\tx\n"))
    assert one(connection, "SELECT count(*) FROM copied") == 5000
    cursor.execute("DROP TABLE copied")
    connection.close()


def test_copy_of_a_sharded_table(data):
    import io
    connection = data.connect()
    out = io.StringIO()
    connection.cursor().copy_expert("COPY users TO STDOUT", out)
    assert len(out.getvalue().splitlines()) == 200
    connection.cursor().copy_expert("COPY users (id, name) FROM STDIN", io.StringIO("9001\tcopied\n"))
    assert one(connection, "SELECT count(*) FROM users") == 201
    connection.rollback()
    connection.close()


def test_function_call_message_is_answered(proxy):
    """The old fast path: answered or refused, and the connection lives on."""
    with Raw(proxy) as raw:
        answer = raw.ask(message(b"F", struct.pack("!IHHH", 0, 0, 0, 0)))
        assert "E" in kinds(answer)
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"


def test_pipeline_mode(data):
    with data.connect3() as connection, connection.pipeline():
        cursors = [connection.execute("SELECT id, name FROM users WHERE id = %s", (number,))
                   for number in range(1, 41)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(1, 41))


def test_pipeline_with_an_error(proxy):
    with proxy.connect3("plain") as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELECT 1/0")
            connection.execute("SELECT 2")
        assert connection.execute("SELECT 3").fetchone()[0] == 3


def test_newer_protocol_minor_version_is_negotiated(proxy):
    body = struct.pack("!I", 196610) + b"user\0postgres\0database\0app\0_pq_.unknown\0on\0\0"
    with Raw(proxy, login=False) as raw:
        raw.send(struct.pack("!I", len(body) + 4) + body)
        assert raw.until_ready()[-1] == ("Z", b"I")


def test_terminate_closes(proxy):
    with Raw(proxy) as raw:
        raw.send(message(b"X"))
        assert raw.at_end()
