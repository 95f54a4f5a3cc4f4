"""currval() and lastval() over shared servers: a client's own values or none, never another client's."""
from contextlib import closing

import psycopg
import pytest
from harness import Proxy
from support import SYNC, Raw, bind, error_of, execute, fetch, one, parse, query, refused, rows

pytestmark = pytest.mark.core

NOT_YET = "55000"


@pytest.fixture(scope="module")
def single(cluster):
    """One server connection for everybody."""
    direct = cluster.shards[0].primary
    direct.sql("""
        CREATE SEQUENCE seq_a; CREATE SEQUENCE seq_b; CREATE TABLE seq_rows (id serial, v text);
        CREATE TABLE seq_plain (v text);
        CREATE FUNCTION seq_hidden() RETURNS bigint LANGUAGE sql AS 'SELECT lastval()'""")
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        proxy.wait_nodes()
        yield proxy
    direct.sql("DROP FUNCTION seq_hidden(); DROP TABLE seq_rows, seq_plain; DROP SEQUENCE seq_a, seq_b")


@pytest.fixture
def two(single):
    with closing(single.connect()) as mine, closing(single.connect()) as other:
        yield mine, other


def server_pid(connection):
    return one(connection, "SELECT pg_backend_pid()")


def test_own_value_outside_a_transaction(two):
    mine, other = two
    value = one(mine, "SELECT nextval('seq_a')")
    assert one(mine, "SELECT currval('seq_a')") == value
    assert one(other, "SELECT 1") == 1  # a read in between takes nothing away
    assert one(mine, "SELECT lastval()") == value
    mine.cursor().execute("INSERT INTO seq_rows (v) VALUES ('x')")
    assert one(mine, "SELECT lastval()") == one(mine, "SELECT max(id) FROM seq_rows")


@pytest.mark.parametrize("ask", ["SELECT lastval()", "SELECT currval('seq_a')", "SELECT seq_hidden()",
                                 "DO $$ BEGIN PERFORM lastval(); END $$", "SELECT 1; SELECT lastval()",
                                 "INSERT INTO seq_plain SELECT lastval()"])
def test_never_the_value_of_another(two, ask):
    mine, other = two
    one(other, "SELECT nextval('seq_a')")
    with refused(NOT_YET, hint=False):
        mine.cursor().execute(ask)


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN READ WRITE"])
def test_never_in_a_transaction_either(two, begin):
    mine, other = two
    one(other, "SELECT nextval('seq_a')")
    mine.cursor().execute(begin)
    mine.cursor().execute("INSERT INTO seq_plain VALUES ('no sequence')")
    with refused(NOT_YET, hint=False):
        mine.cursor().execute("SELECT lastval()")
    mine.cursor().execute("ROLLBACK")


def test_isolation_level_set_behind_the_begin(two):
    mine, other = two
    one(other, "SELECT nextval('seq_a')")
    mine.cursor().execute("BEGIN")
    mine.cursor().execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    assert one(mine, "SHOW transaction_isolation") == "serializable"
    mine.cursor().execute("ROLLBACK")


def test_a_failed_write_counts(two):
    mine, other = two
    with refused("22P02", hint=False):
        other.cursor().execute("SELECT nextval('seq_a'), 'x'::text::int")
    with refused(NOT_YET, hint=False):
        mine.cursor().execute("SELECT lastval()")


def test_a_rolled_back_write_counts(two):
    mine, other = two
    other.cursor().execute("BEGIN; SELECT nextval('seq_a'); ROLLBACK")
    with refused(NOT_YET, hint=False):
        mine.cursor().execute("SELECT lastval()")


def test_inside_a_transaction_as_always(two):
    mine, other = two
    one(other, "SELECT nextval('seq_b')")
    mine.cursor().execute("BEGIN")
    value = one(mine, "SELECT nextval('seq_a')")
    assert one(mine, "SELECT currval('seq_a')") == one(mine, "SELECT lastval()") == value
    mine.cursor().execute("COMMIT")
    assert one(mine, "SELECT lastval()") == value


@pytest.fixture
def pair(cluster, single):
    """Two server connections, and two clients of one worker."""
    with Proxy(cluster, options={"pool": {"size": 2}, "workers": 1}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as mine, closing(proxy.connect()) as other:
            yield proxy, mine, other


@pytest.mark.parametrize("told", [False, True])
def test_an_application_that_asks_is_known(cluster, single, told):
    """Once one client has asked outside a transaction, or the configuration says so, all of that user and database find
    their values."""
    with Proxy(cluster, options={"pool": {"size": 4, "expect_last_value": told}, "workers": 1}) as proxy:
        proxy.wait_nodes()
        if not told:
            with closing(proxy.connect()) as first, refused(NOT_YET, hint=False):
                one(first, "SELECT lastval()")
        with closing(proxy.connect()) as mine, closing(proxy.connect()) as other, closing(proxy.connect()) as reader:
            for number in range(20):
                for who in (mine, other):
                    who.cursor().execute("INSERT INTO seq_rows (v) VALUES (%s)", (f"{who.fileno()} {number}",))
                    fetch(reader, "SELECT 1")
                reader.cursor().execute("UPDATE seq_plain SET v = 'x'")
                for who in (mine, other):
                    value = one(who, "SELECT currval('seq_rows_id_seq')")
                    assert one(who, "SELECT lastval()") == value
                    assert one(who, f"SELECT v FROM seq_rows WHERE id = {value}") == f"{who.fileno()} {number}"
        assert not pins(proxy)


def pins(proxy):
    return [row["pin_reason"] for row in proxy.show("CLIENTS") if row["pin_reason"]]


def test_the_retry_works(pair):
    """Who has lost its value once keeps its server from the next write on."""
    proxy, mine, other = pair
    one(mine, "SELECT nextval('seq_a')")
    one(other, "SELECT nextval('seq_a')")
    with refused(NOT_YET, hint=False):
        one(mine, "SELECT lastval()")
    value = one(mine, "SELECT nextval('seq_a')")
    one(other, "SELECT nextval('seq_a')")
    assert one(mine, "SELECT lastval()") == value
    assert pins(proxy) == ["sequence state"]
    mine.cursor().execute("DISCARD SEQUENCES")
    assert not pins(proxy)
    with refused(NOT_YET, hint=False):
        one(mine, "SELECT lastval()")


def test_the_server_with_the_value_is_found(pair):
    """The one used last, which would be next, is another one."""
    _, mine, other = pair
    other.cursor().execute("BEGIN")
    second = server_pid(other)
    value = one(mine, "SELECT nextval('seq_a')")
    other.cursor().execute("COMMIT")
    assert server_pid(mine) == second
    assert one(mine, "SELECT currval('seq_a')") == value


def test_no_old_values_of_its_own(pair):
    """What a client has got on another server since then is what it asks for."""
    _, mine, other = pair
    one(mine, "SELECT nextval('seq_a')")
    first = server_pid(mine)
    other.cursor().execute("BEGIN")
    assert server_pid(other) == first
    one(mine, "SELECT nextval('seq_a')")
    other.cursor().execute("COMMIT")
    mine.cursor().execute("BEGIN")
    assert server_pid(mine) == first
    with refused(NOT_YET, hint=False):
        one(mine, "SELECT lastval()")
    mine.cursor().execute("ROLLBACK")


def test_in_a_pipeline(single, two):
    _, other = two
    one(other, "SELECT nextval('seq_a')")
    with Raw(single) as raw:
        answer = raw.ask(parse("", "SELECT nextval('seq_b')"), bind("", ""), execute(),
                         parse("", "SELECT lastval()"), bind("", ""), execute(), SYNC)
        (value,), (last,) = rows(answer)
        assert value == last
        one(other, "SELECT nextval('seq_a')")
        answer = raw.ask(parse("", "SELECT 1"), bind("", ""), execute(),
                         parse("", "SELECT seq_hidden()"), bind("", ""), execute(), SYNC)
        assert error_of(answer)["C"] == NOT_YET
        assert rows(answer) == [[b"1"]]
        one(other, "SELECT nextval('seq_a')")
        assert error_of(raw.ask(query("SELECT lastval()")))["C"] == NOT_YET


def test_prepared_statements(single, two):
    _, other = two
    with psycopg.connect(single.dsn(), autocommit=True) as mine:
        mine.prepare_threshold = 0
        for _ in range(3):
            value = mine.execute("SELECT nextval('seq_a') WHERE %s", (True,)).fetchone()[0]
            assert mine.execute("SELECT lastval() WHERE %s", (True,)).fetchone()[0] == value
    one(other, "SELECT nextval('seq_a')")
    with psycopg.connect(single.dsn(), autocommit=True) as mine, pytest.raises(psycopg.Error) as caught:
        mine.prepare_threshold = 0
        mine.execute("SELECT lastval() WHERE %s", (True,))
    assert caught.value.sqlstate == NOT_YET


def test_session_mode_is_as_always(cluster, single):
    with Proxy(cluster, options={"pool": {"size": 1, "mode": "session"}}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as mine:
            value = one(mine, "SELECT nextval('seq_a')")
            fetch(mine, "SELECT 1")
            assert one(mine, "SELECT currval('seq_a')") == value
            other = one(mine, "SELECT nextval('seq_b')")
            assert one(mine, "SELECT lastval()") == other
            assert one(mine, "SELECT currval('seq_a')") == value
        with closing(proxy.connect()) as mine, refused(NOT_YET, hint=False):
            one(mine, "SELECT lastval()")


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"])
def test_isolation_level_behind_values_of_another(single, two, begin):
    """What takes them away takes a snapshot, which is not the transaction's."""
    _, other = two
    with Raw(single) as raw:
        one(other, "SELECT nextval('seq_a')")
        for sql in (begin, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"):
            found = raw.ask(parse("", sql), bind("", ""), execute(), SYNC)
            assert not error_of(found), found
        assert rows(raw.ask(query("SHOW transaction_isolation"))) == [[b"serializable"]]
        raw.ask(query("COMMIT"))
