"""What cannot move keeps its server connection, visibly, until the reason ends; then the pool has it again."""
import re
import urllib.request
from contextlib import closing

import psycopg2
import pytest
from harness import Proxy
from harness.process import wait_until
from support import SYNC, Raw, bind, execute, fetch, fields, kinds, one, parse, query

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def pair(cluster):
    """Two server connections: one to be pinned, one for everybody else."""
    with Proxy(cluster, options={"pool": {"size": 2, "pin_functions": "leaves_a_mark, side.other"}}) as proxy:
        yield proxy


def run(connection, *statements):
    for statement in statements:
        connection.cursor().execute(statement)


def reasons(proxy):
    return sorted(row["pin_reason"] for row in proxy.show("CLIENTS")
                  if row["database"] == proxy.dbname and row["pin_reason"])


def wait_free(proxy):
    wait_until(lambda: not reasons(proxy), 15, "no client pinned")


def pinned_by(proxy, reason):
    assert reasons(proxy) == [reason]
    assert [row["pin_reason"] for row in proxy.show("SERVERS") if row["pin_reason"]] == [reason]


TEMPORARY = {
    "a table": ("CREATE TEMP TABLE mine (a int)", "DROP TABLE mine"),
    "a table of the schema pg_temp": ("CREATE TABLE pg_temp.mine (a int)", "DROP TABLE pg_temp.mine"),
    "SELECT INTO": ("SELECT 1 AS a INTO TEMP mine", "DROP TABLE mine"),
    "CREATE TABLE AS": ("CREATE TEMP TABLE mine AS SELECT 1 AS a", "DROP TABLE mine"),
    "a view": ("CREATE TEMP VIEW mine AS SELECT 1 AS a", "DROP VIEW mine"),
    "a sequence": ("CREATE TEMP SEQUENCE mine", "DROP SEQUENCE mine"),
    "a function": ("CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                   "DROP FUNCTION pg_temp.mine()"),
    "a type": ("CREATE TYPE pg_temp.mine AS ENUM ('a')", "DROP TYPE pg_temp.mine"),
    "DISCARD TEMP": ("CREATE TEMP TABLE mine (a int)", "DISCARD TEMP"),
    "DISCARD ALL": ("CREATE TEMP TABLE mine (a int)", "DISCARD ALL"),
    "ON COMMIT DROP outside a block": ("CREATE TEMP TABLE mine (a int) ON COMMIT DROP", "SELECT 1"),
}


@pytest.mark.parametrize("name", TEMPORARY)
def test_temporary_objects(pair, name):
    create, drop = TEMPORARY[name]
    with closing(pair.connect()) as client:
        run(client, create)
        if "ON COMMIT" not in create:
            pinned_by(pair, "temporary table")
        run(client, drop)
        wait_free(pair)
        with closing(pair.connect()) as first, closing(pair.connect()) as second:
            run(first, "BEGIN", "SELECT 1")
            run(second, "BEGIN", "SELECT 1")  # both connections are the pool's again


def test_the_last_of_several_ends_it(pair):
    with closing(pair.connect()) as client:
        run(client, "CREATE TEMP TABLE one_of_two (a int)", "CREATE TEMP TABLE the_other (a int)",
            "DROP TABLE one_of_two")
        assert one(client, "SELECT count(*) FROM the_other") == 0
        pinned_by(pair, "temporary table")
        run(client, "SELECT pg_advisory_lock(1)", "DROP TABLE the_other")
        wait_until(lambda: reasons(pair) == ["session advisory lock"], 15, "the lock alone")
        run(client, "SELECT pg_advisory_unlock(1)")
        wait_free(pair)


def test_a_transaction_that_takes_it_back(pair):
    with closing(pair.connect()) as client:
        run(client, "BEGIN", "CREATE TEMP TABLE gone (a int)", "ROLLBACK")
        wait_free(pair)
        run(client, "BEGIN", "CREATE TEMP TABLE gone (a int) ON COMMIT DROP", "INSERT INTO gone VALUES (1)", "COMMIT")
        wait_free(pair)
        run(client, "BEGIN", "SAVEPOINT s", "CREATE TEMP TABLE gone (a int)", "ROLLBACK TO s", "COMMIT")
        wait_free(pair)
        with pytest.raises(psycopg2.Error):
            run(client, "CREATE TEMP TABLE gone (a int); SELECT 1/0")
        wait_free(pair)
        run(client, "BEGIN", "SELECT pg_advisory_lock(5)", "ROLLBACK")
        pinned_by(pair, "session advisory lock")  # Postgres keeps it, so do we
        run(client, "SELECT pg_advisory_unlock_all()")
        wait_free(pair)


LOCKS = [("pg_advisory_lock(7)", "pg_advisory_unlock(7)"),
         ("pg_advisory_lock(7, 8)", "pg_advisory_unlock(7, 8)"),
         ("pg_advisory_lock_shared(7)", "pg_advisory_unlock_shared(7)"),
         ("pg_try_advisory_lock(7)", "pg_advisory_unlock(7)"),
         ("pg_try_advisory_lock_shared(7)", "pg_advisory_unlock_shared(7)"),
         ("pg_advisory_lock(7)", "pg_advisory_unlock_all()")]


@pytest.mark.parametrize("lock, unlock", LOCKS)
def test_advisory_locks(pair, lock, unlock):
    with closing(pair.connect()) as client, closing(pair.connect3()) as other:
        run(client, f"SELECT {lock}")
        pinned_by(pair, "session advisory lock")
        run(client, "SELECT 1", "BEGIN", "SELECT 2", "COMMIT")
        held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = " \
               "(SELECT oid FROM pg_database WHERE datname = current_database())"
        assert other.execute(held).fetchone()[0] == 1
        run(client, f"SELECT {unlock}")
        assert other.execute(held).fetchone()[0] == 0
        wait_free(pair)
        run(client, "SELECT pg_advisory_lock(9)", "SELECT pg_advisory_lock(9)", "SELECT pg_advisory_unlock(9)")
        pinned_by(pair, "session advisory lock")  # it was taken twice
        run(client, "SELECT pg_advisory_unlock(9)")
        wait_free(pair)


def test_a_lock_that_was_not_got_does_not_pin_for_long(pair):
    with closing(pair.connect()) as holder, closing(pair.connect()) as client:
        run(holder, "SELECT pg_advisory_lock(11)")
        assert one(client, "SELECT pg_try_advisory_lock(11)") is False
        run(client, "SELECT pg_advisory_unlock(11)")  # warns that it has none
        wait_until(lambda: reasons(pair) == ["session advisory lock"], 15, "one pinned client")
        run(holder, "SELECT pg_advisory_unlock_all()")
        wait_free(pair)


def test_locks_of_a_transaction_do_not_pin(pair):
    with closing(pair.connect()) as client:
        run(client, "BEGIN", "SELECT pg_advisory_xact_lock(3)", "SELECT pg_try_advisory_xact_lock(4)", "COMMIT")
        assert not reasons(pair)


def test_extended_protocol(pair):
    with Raw(pair) as client:
        assert kinds(client.ask(parse("", "SELECT pg_advisory_lock($1)"), bind("", "", [b"21"]), execute(), SYNC))
        pinned_by(pair, "session advisory lock")
        client.ask(parse("", "SELECT pg_advisory_unlock($1)"), bind("", "", [b"21"]), execute(), SYNC)
        wait_free(pair)


def test_cursors_with_hold(pair):
    with closing(pair.connect()) as client:
        run(client, "BEGIN", "DECLARE stays CURSOR WITH HOLD FOR SELECT generate_series(1, 9)", "COMMIT")
        pinned_by(pair, "WITH HOLD cursor")
        assert fetch(client, "FETCH 2 FROM stays") == [(1,), (2,)]
        run(client, "CLOSE stays")
        wait_free(pair)
        run(client, "DECLARE a CURSOR WITH HOLD FOR SELECT 1", "DECLARE b CURSOR WITH HOLD FOR SELECT 1", "CLOSE a")
        pinned_by(pair, "WITH HOLD cursor")
        run(client, "CLOSE ALL")
        wait_free(pair)
        run(client, "BEGIN", "DECLARE never CURSOR WITH HOLD FOR SELECT 1", "ROLLBACK")
        wait_free(pair)


def test_setseed(pair):
    with closing(pair.connect()) as client, closing(pair.connect()) as other:
        first = []
        for _ in range(2):
            run(client, "SELECT setseed(0.25)")
            run(other, "SELECT random()")
            first.append((one(client, "SELECT random()"), one(client, "SELECT random()")))
        assert first[0] == first[1]
        pinned_by(pair, "setseed()")
        run(client, "DISCARD ALL")
        wait_free(pair)


def test_functions_by_list(pair, cluster):
    primary = cluster.shards[0].primary
    primary.sql("CREATE FUNCTION leaves_a_mark() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'; CREATE SCHEMA side; "
                "CREATE FUNCTION side.other() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 2'; "
                "CREATE FUNCTION leaves_nothing() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 3'")
    try:
        for call, pinned in (("leaves_nothing()", False), ("leaves_a_mark()", True), ("side.other()", True)):
            with closing(pair.connect()) as client:
                pid = one(client, f"SELECT pg_backend_pid() + 0 * {call}")
                assert reasons(pair) == (["function of pool.pin_functions"] if pinned else [])
            if pinned:  # nobody knows what it left: the connection is not used again
                wait_until(lambda: not primary.sql(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"), 15,
                           "the connection closed")
    finally:
        primary.sql("DROP FUNCTION leaves_a_mark(); DROP SCHEMA side CASCADE; DROP FUNCTION leaves_nothing()")


def test_who_leaves_leaves_a_clean_server(pair):
    """The connection is reset and used again."""
    with closing(pair.connect()) as client:
        run(client, "CREATE TEMP TABLE left_behind (a int)", "SET work_mem = '7MB'", "SELECT pg_advisory_lock(31)")
        pid = one(client, "SELECT pg_backend_pid()")
    wait_free(pair)

    def again():
        with closing(pair.connect()) as first, closing(pair.connect()) as second:
            run(first, "BEGIN")
            run(second, "BEGIN")
            for client in (first, second):
                assert one(client, "SELECT to_regclass('left_behind') IS NULL")
                assert one(client, "SHOW work_mem") == "4MB"
                assert one(client, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == 0
            return pid in (one(first, "SELECT pg_backend_pid()"), one(second, "SELECT pg_backend_pid()"))

    wait_until(again, 15, "the same server again")


def test_set_config_is_tracked_and_does_not_pin(pair):
    with closing(pair.connect()) as client, closing(pair.connect()) as other:
        run(client, "SELECT set_config('work_mem', '13MB', false)")
        client.cursor().execute("SELECT set_config(%s, %s, false)", ("myapp.user", "it's \\ ü"))
        assert not reasons(pair)
        for _ in range(3):
            assert one(client, "SHOW work_mem") == "13MB" and one(other, "SHOW work_mem") == "4MB"
            assert one(client, "SELECT current_setting('myapp.user')") == "it's \\ ü"
        run(client, "SELECT set_config('work_mem', (SELECT '14MB'), false)")  # computed: it cannot be known
        pinned_by(pair, "set_config()")
        assert one(client, "SHOW work_mem") == "14MB"
        run(client, "DISCARD ALL")
        wait_free(pair)
        assert one(client, "SHOW work_mem") == "4MB"


def test_set_config_with_parameters(pair):
    with Raw(pair) as client, closing(pair.connect()) as other:
        client.ask(parse("s", "SELECT set_config($1, $2, $3)"), SYNC)
        client.ask(bind("", "s", [b"work_mem", b"15MB", b"f"]), execute(), SYNC)
        assert one(other, "SHOW work_mem") == "4MB"
        assert fields_of(client, "SHOW work_mem") == b"15MB"
        client.ask(bind("", "s", [b"work_mem", b"16MB", b"t"]), execute(), SYNC)  # ended with its transaction
        assert fields_of(client, "SHOW work_mem") == b"15MB"
        client.ask(bind("", "s", [b"work_mem", b"17MB", b"f"]), bind("", "s", [b"work_mem", b"18MB", b"f"]), execute(),
                   SYNC)  # bound again before it is executed: the first is never set
        assert fields_of(client, "SHOW work_mem") == b"18MB"
        client.ask(bind("", "s", [b"work_mem", None, b"f"]), execute(), SYNC)  # NULL: the default
        assert fields_of(client, "SHOW work_mem") == b"4MB"
        assert not reasons(pair)


def fields_of(client, sql):
    return next(body[6:] for kind, body in client.ask(query(sql)) if kind == "D")


def test_a_full_pool_of_pinned_clients_makes_others_wait_visibly(cluster):
    with Proxy(cluster, options={"pool": {"size": 1, "query_wait_timeout": "1s"}}) as proxy, \
            closing(proxy.connect()) as holder, closing(proxy.connect()) as other:
        run(holder, "SELECT pg_advisory_lock(41)")
        with pytest.raises(psycopg2.Error) as caught:
            one(other, "SELECT txid_current()")  # of the primary
        assert caught.value.diag.message_hint
        run(holder, "SELECT pg_advisory_unlock(41)")
        assert one(other, "SELECT 1") == 1


def test_notice_and_metrics(cluster):
    with Proxy(cluster, options={"pool": {"pin_notice": True}}) as proxy, closing(proxy.connect()) as client:
        run(client, "CREATE TEMP TABLE noticed (a int)")
        run(client, "SELECT pg_advisory_lock(51)")
        fetch(client, "SELECT 1")
        told = [notice for notice in client.notices if "keeps its server connection" in notice]
        assert len(told) == 1 and "temporary table" in told[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics") as page:
            text = page.read().decode()
        found = dict(re.findall(r'^(pgshunt_pin\w+\{reason="(?:temporary table|LOAD)"\}) (\d+)$', text, re.M))
        assert found == {'pgshunt_pinned_clients{reason="temporary table"}': "1",
                         'pgshunt_pinned_clients{reason="LOAD"}': "0",
                         'pgshunt_pins_total{reason="temporary table"}': "1",
                         'pgshunt_pins_total{reason="LOAD"}': "0"}
