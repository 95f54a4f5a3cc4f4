"""PREPARE and EXECUTE of SQL, and the names they share with the protocol: as one Postgres has them, over any server."""
from contextlib import closing

import psycopg
import pytest
from harness import Proxy
from support import SYNC, Raw, bind, close, describe, error_of, execute, kinds, parse, query, refused, rows
from test_prepared_limits import plain_proxy
from test_same_as_postgres import SETUP, Direct, answers, fill, play, run, step

pytestmark = pytest.mark.core


def batch(sql):
    return step(run(sql), SYNC)


SEQUENCES = {
    "PREPARE, EXECUTE, DEALLOCATE": [
        step(query("PREPARE p (int, text) AS SELECT $1 + 1, $2")), step(query("EXECUTE p (1, 'x')")),
        step(query("EXECUTE p (2 * 3, lower('Y'))")), step(query("DEALLOCATE p")), step(query("EXECUTE p (1, 'x')"))],
    "without types, without parameters": [
        step(query("PREPARE p AS SELECT id FROM t ORDER BY id")), step(query("EXECUTE p")),
        step(query("PREPARE q AS SELECT body FROM t WHERE id = $1")), step(query("EXECUTE q (2)")),
        step(query("DEALLOCATE ALL")), step(query("EXECUTE p")), step(query("DEALLOCATE q"))],
    "changes": [
        step(query("PREPARE i (int, text) AS INSERT INTO t VALUES ($1, $2) RETURNING id")),
        step(query("PREPARE u AS UPDATE t SET body = $2 WHERE id = $1")),
        step(query("PREPARE d (int) AS DELETE FROM t WHERE id = $1")),
        step(query("EXECUTE i (70, 'seventy')")), step(query("EXECUTE u (70, 'changed')")),
        step(query("SELECT body FROM t WHERE id = 70")), step(query("EXECUTE d (70)")), step(query("EXECUTE d (70)")),
        step(query("PREPARE v AS VALUES (1, 'a'), (2, 'b')")), step(query("EXECUTE v"))],
    "the name is taken": [
        step(query("PREPARE p AS SELECT 1")), step(query("PREPARE p AS SELECT 2")), step(query("EXECUTE p")),
        step(query("BEGIN")), step(query("PREPARE p AS SELECT 3")), step(query("SELECT 1")), step(query("ROLLBACK")),
        step(query("EXECUTE p"))],
    "no such name": [step(query("EXECUTE nobody")), step(query("DEALLOCATE nobody")), step(query("BEGIN")),
                     step(query("EXECUTE nobody (1)")), step(query("SELECT 1")), step(query("ROLLBACK"))],
    "a wrong number of values": [
        step(query("PREPARE p (int, int) AS SELECT $1, $2")), step(query("EXECUTE p (1)")), step(query("EXECUTE p")),
        step(query("EXECUTE p (1, 2, 3)")), step(query("EXECUTE p (1, 2)"))],
    "a wrong number of values among other statements": [
        step(query("PREPARE p (int, int) AS SELECT $1 AS a, $2 AS b")),
        step(query("SELECT 1; INSERT INTO t VALUES (70); EXECUTE p (1); SELECT 2")),
        step(query("SELECT count(*) FROM t WHERE id = 70")), step(query("EXECUTE p (1, 2); EXECUTE p; SELECT 2")),
        step(query("EXECUTE p; SELECT 1/0")), step(query("SELECT 1/0; EXECUTE p")),
        step(query("UPDATE t SET body = 'lost'; CREATE TABLE c AS EXECUTE p (1, 2, 3)")),
        step(query("SELECT count(*) FROM t WHERE body = 'lost'")), step(query("EXECUTE p (1); DEALLOCATE p")),
        step(query("SELECT 1; EXECUTE p (1); SELEKT")), step(query("EXECUTE p (1, 2); EXECUTE p (3, 4)"))],
    "a wrong number of values among other statements in a block": [
        step(query("PREPARE p (int, int) AS SELECT $1 AS a, $2 AS b")), step(query("BEGIN")),
        step(query("INSERT INTO t VALUES (70); EXECUTE p (1); SELECT 2")), step(query("SELECT 1; EXECUTE p (1)")),
        step(query("ROLLBACK; EXECUTE p (5, 6)")), step(query("SELECT count(*) FROM t WHERE id = 70")),
        step(query("BEGIN; INSERT INTO t VALUES (71); COMMIT; EXECUTE p (1)")),
        step(query("SELECT count(*) FROM t WHERE id = 71")),
        step(query("BEGIN; INSERT INTO t VALUES (72); EXECUTE p (1); COMMIT")), step(query("SELECT 1")),
        step(query("ROLLBACK; EXECUTE p (1); SELECT 2")), step(query("SELECT count(*) FROM t WHERE id = 72")),
        step(query("BEGIN")), step(query("SELECT 1; SAVEPOINT a; INSERT INTO t VALUES (73); EXECUTE p")),
        step(query("ROLLBACK TO a; EXECUTE p (7, 8); COMMIT; SELECT count(*) FROM t WHERE id = 73"))],
    "wrong values": [step(query("PREPARE p (int) AS SELECT $1")), step(query("EXECUTE p ('x')")),
                     step(query("EXECUTE p (1 / 0)")), step(query("EXECUTE p ('7')"))],
    "the text is judged at PREPARE": [
        step(query("PREPARE p AS SELECT * FROM nothing_there")), step(query("EXECUTE p")),
        step(query("PREPARE p AS SELEKT 1")), step(query("PREPARE p (nothing) AS SELECT $1")),
        step(query("PREPARE p AS SELECT nothing FROM t")), step(query("PREPARE p AS SELECT 1")),
        step(query("EXECUTE p"))],
    "in a transaction that rolls back": [
        step(query("BEGIN")), step(query("PREPARE p AS SELECT 'survives'")), step(query("ROLLBACK")),
        step(query("EXECUTE p")), step(query("BEGIN")), step(query("DEALLOCATE p")), step(query("ROLLBACK")),
        step(query("EXECUTE p"))],
    "in a transaction that fails": [
        step(query("BEGIN")), step(query("SELECT 1")), step(query("PREPARE p AS SELECT 'survives'")),
        step(query("SELECT 1/0")), step(query("EXECUTE p")), step(query("PREPARE q AS SELECT 1")),
        step(query("DEALLOCATE p")), step(query("DEALLOCATE ALL")), step(query("DISCARD ALL")),
        step(query("ROLLBACK")),
        step(query("EXECUTE p")), step(query("EXECUTE q"))],
    "in a block": [
        step(query("PREPARE i (int) AS INSERT INTO t VALUES ($1)")), step(query("BEGIN")),
        step(query("EXECUTE i (71)")),
        step(query("SAVEPOINT a")), step(query("EXECUTE i (71)")), step(query("ROLLBACK TO a")),
        step(query("EXECUTE i (72)")),
        step(query("COMMIT")), step(query("SELECT id FROM t WHERE id > 70 ORDER BY id"))],
    "names": [
        step(query("PREPARE MiXed AS SELECT 1")), step(query("EXECUTE mixed")), step(query('EXECUTE "MiXed"')),
        step(query('PREPARE "MiXed" AS SELECT 2')), step(query('EXECUTE "MiXed"')),
        step(query('PREPARE "a ""b"" (c" AS SELECT 3')),
        step(query('EXECUTE "a ""b"" (c"')), step(query('DEALLOCATE PREPARE "MiXed"')),
        step(query('EXECUTE "MiXed"')),
        step(query("EXECUTE /* here */ mixed -- there\n")), step(query("PREPARE prepare AS SELECT 4")),
        step(query("EXECUTE prepare")), step(query("DEALLOCATE prepare")), step(query("EXECUTE prepare"))],
    "texts with a lot in them": [
        step(query("PREPARE p (numeric(10, 2), \"char\", int[]) AS SELECT $1, $2::text, $3[1], "
                   "'$1', $$ $2 $$, \"?column?\" FROM (SELECT 5) s")),
        step(query("EXECUTE p (1.234, 'x', ARRAY[7, 8])")), step(query("EXECUTE p ((1, 2), 'x', '{3}')")),
        step(query("EXECUTE p (2, ')', ARRAY[(1), 2]) -- the end")),
        step(query("PREPARE q AS SELECT $1::int + $2::int -- $3\n, 'a' || $3")),
        step(query("EXECUTE q (1 -- one\n, 2, 'b''c')"))],
    "EXPLAIN and CREATE TABLE AS": [
        step(query("PREPARE p (int) AS SELECT id, body FROM t WHERE id <= $1 ORDER BY id")),
        step(query("EXPLAIN (COSTS off, FORMAT json) EXECUTE p (3)")),
        step(query("BEGIN")), step(query("CREATE TEMP TABLE made ON COMMIT DROP AS EXECUTE p (2)")),
        step(query("SELECT id + 0, body || '' FROM made ORDER BY id")), step(query("COMMIT")),
        step(query("EXPLAIN EXECUTE nobody (1)"))],
    "several in one Query": [
        step(query("PREPARE p (int) AS SELECT $1 + 1")), step(query("EXECUTE p (1); SELECT 5; EXECUTE p (2)")),
        step(query("EXECUTE p (1); SELECT 1/0; EXECUTE p (2)")), step(query("EXECUTE p (3)"))],
    # ---- names shared with the protocol ----
    "Parse, then EXECUTE": [
        step(parse("p", "SELECT $1::int + 1", (23,)), SYNC), step(query("EXECUTE p (4)")),
        step(query("PREPARE p AS SELECT 1")),
        step(query("DEALLOCATE p")), step(bind("", "p", [b"1"]), execute(), SYNC)],
    "PREPARE, then Bind": [
        step(query("PREPARE p (int) AS SELECT $1 + 1 AS sum")), step(bind("", "p", [b"4"]),
        describe("P", ""), execute(), SYNC),
        step(describe("S", "p"), SYNC), step(parse("p", "SELECT 1"), SYNC), step(close("S", "p"), SYNC),
        step(query("EXECUTE p (1)")), step(parse("p", "SELECT 1"), bind("", "p"), execute(), SYNC)],
    "PREPARE, then Bind in a block": [
        step(query("BEGIN")), step(query("PREPARE p (int) AS SELECT $1 + 1")),
        step(bind("c", "p", [b"4"]), execute("c"), SYNC), step(query("COMMIT"))],
    # ---- in batches ----
    "in batches": [
        batch("PREPARE p (int) AS SELECT $1 + 1 AS sum"), batch("EXECUTE p (1)"), batch("PREPARE p AS SELECT 2"),
        batch("EXECUTE p (5)"), batch("DEALLOCATE p"), batch("EXECUTE p (1)")],
    "in batches, judged": [batch("PREPARE p AS SELECT * FROM nothing_there"), batch("PREPARE p AS SELECT 1"),
    batch("EXECUTE p")],
    "in one batch": [
        step(run("PREPARE p AS SELECT 'one batch'"), run("SELECT 1"), SYNC), step(query("EXECUTE p")),
        step(run("SELECT 1"), run("PREPARE q AS SELECT 'behind another'"), run("SELECT 2"), SYNC),
        step(query("EXECUTE q"))],
    "behind an error in a batch": [
        step(run("SELECT 1/0"), run("PREPARE p AS SELECT 1"), SYNC), step(query("EXECUTE p")),
        batch("PREPARE p AS SELECT 2"),
        step(run("SELECT 1/0"), run("DEALLOCATE p"), SYNC)],
    "a wrong number of values in batches": [
        step(query("PREPARE p (int, int) AS SELECT $1, $2")), step(parse("", "EXECUTE p (1)"), SYNC),
        step(describe("S", ""), SYNC), step(bind("", ""), SYNC), step(bind("", ""), describe("P", ""), SYNC),
        step(bind("", ""), describe("P", ""), execute(), SYNC), batch("EXECUTE p (1, 2, 3)"), batch("EXECUTE p"),
        step(run("SELECT 1"), run("EXECUTE p (1)"), run("SELECT 2"), SYNC), batch("EXECUTE p (1, 2)")],
    "a wrong number of values in a block": [
        step(query("PREPARE p (int) AS SELECT id FROM t WHERE id = $1")), step(query("BEGIN")),
        step(run("EXECUTE p (1, 2)"), SYNC), step(run("EXECUTE p (1)"), SYNC), step(query("ROLLBACK")),
        batch("EXPLAIN EXECUTE p"), batch("EXECUTE p (1)")],
    "an EXECUTE that is prepared": [
        step(query("PREPARE p (int) AS SELECT $1 + 1 AS sum")), step(parse("e", "EXECUTE p (8)"),
        describe("S", "e"), SYNC),
        step(bind("", "e"), describe("P", ""), execute(), SYNC), step(bind("", "e"), execute(), SYNC)],
    # ---- DISCARD ----
    "DISCARD": [
        step(query("PREPARE p AS SELECT 1")), step(query("DISCARD PLANS")), step(query("EXECUTE p")),
        step(query("DISCARD SEQUENCES")), step(query("DISCARD TEMP")), step(query("EXECUTE p")),
        step(query("DISCARD ALL")), step(query("EXECUTE p"))],
    "DISCARD ALL and settings": [
        step(query("SET timezone = 'Asia/Tokyo'")), step(query("PREPARE p AS SHOW timezone")),
        step(query("PREPARE p AS SELECT 1")),
        step(query("DISCARD ALL")), step(query("SHOW timezone")), step(query("EXECUTE p"))],
    "DISCARD ALL in a block": [
        step(query("PREPARE p AS SELECT 1")), step(query("BEGIN")), step(query("DISCARD ALL")),
        step(query("ROLLBACK")),
        step(query("EXECUTE p"))],
    "a failure undone, and what was prepared in it": [
        step(query("BEGIN")), step(query("SAVEPOINT a")), step(query("PREPARE p AS SELECT 'still'")),
        step(query("SELECT 1/0")),
        step(query("ROLLBACK TO a")), step(query("EXECUTE p")), step(query("COMMIT"))],
}


@pytest.fixture(scope="module", params=["plain", "app"])
def database(request, cluster, proxy):
    for part in SETUP.split(";"):
        proxy.sql(part, dbname=request.param)
    cluster.sync()
    yield request.param
    proxy.sql("DROP TABLE child", dbname=request.param)
    proxy.sql("DROP TABLE t", dbname=request.param)


@pytest.mark.parametrize("name", SEQUENCES)
def test_same_answers(cluster, proxy, database, name):
    server = Direct(cluster.shards[0].primary)
    fill(cluster, database)
    with Raw(server, database=database) as raw:
        expected = play(raw, SEQUENCES[name])
    assert not any(("silence",) in part for part in expected), f"the sequence itself hangs: {expected}"
    for _ in range(2):  # the second time the servers know the statements
        fill(cluster, database)
        with Raw(proxy, database=database) as raw:
            assert play(raw, SEQUENCES[name], expected) == expected
            assert answers(raw, step(query("SELECT 'alive'")))[-1][0] == "Z"


# ---- over different servers, in transaction mode ----

def test_names_go_with_the_client_from_server_to_server(cluster):
    with Proxy(cluster, options={"pool": {"size": 2}}) as proxy:
        clients = [Raw(proxy) for _ in range(8)]
        for number, client in enumerate(clients):
            assert kinds(client.ask(query(f"PREPARE same_name (int) AS SELECT {number} + $1"))) == "CZ"
        for turn in range(6):
            for client in clients:
                client.send(query(f"EXECUTE same_name ({turn})"))
            for number, client in enumerate(clients):
                assert rows(client.until_ready()) == [[b"%d" % (number + turn)]]
        pinned = [row for row in proxy.show("CLIENTS") if row.get("pinned") not in (None, "")]
        assert not pinned
        for client in clients:
            client.close()


def test_what_one_client_forgets_others_keep(cluster):
    with plain_proxy(cluster, {"size": 1}) as proxy:
        proxy.wait_nodes()
        with Raw(proxy, database="plain") as one, Raw(proxy, database="plain") as other:
            for raw in (one, other):
                raw.ask(query("PREPARE p AS SELECT 'kept'"))
                raw.ask(parse("q", "SELECT 'kept too'"), SYNC)
            for forget in ("DEALLOCATE p", "DEALLOCATE ALL", "DISCARD ALL"):
                assert error_of(one.ask(query(forget))) is None
                assert rows(other.ask(query("EXECUTE p"))) == [[b"kept"]]
                assert rows(other.ask(bind("", "q"), execute(), SYNC)) == [[b"kept too"]]
            name = rows(other.ask(query("SELECT name FROM pg_prepared_statements LIMIT 1")))[0][0].decode()
            assert error_of(one.ask(query(f"DEALLOCATE {name}")))["C"] == "26000"
            assert error_of(one.ask(query(f"SELECT 1; DEALLOCATE {name}")))["C"] == "0A000"
            assert rows(other.ask(query("EXECUTE p"))) == [[b"kept"]]


def test_what_a_function_deallocates_is_prepared_again(cluster):
    with plain_proxy(cluster, {"size": 1}) as proxy:
        proxy.wait_nodes()
        with Raw(proxy, database="plain") as raw:
            raw.ask(query("PREPARE p AS SELECT 'again'"))
            raw.ask(parse("q", "SELECT 'again too'"), bind("", "q"), execute(), SYNC)
            assert error_of(raw.ask(query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))) is None
            assert rows(raw.ask(bind("", "q"), execute(), SYNC)) == [[b"again too"]]
            raw.ask(query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"))
            assert rows(raw.ask(query("EXECUTE p"))) == [[b"again"]]


def test_the_shape_changes_under_a_prepared_statement(cluster):
    with Proxy(cluster, options={"pool": {"size": 1}, "workers": 1}) as proxy:
        proxy.sql("DROP TABLE IF EXISTS changing")
        proxy.sql("CREATE TABLE changing (a int)")
        with Raw(proxy, database="app") as raw:
            raw.ask(query("PREPARE p AS SELECT * FROM changing"))
            assert kinds(raw.ask(query("EXECUTE p"))) == "TCZ"
            proxy.sql("ALTER TABLE changing ADD b int")
            assert kinds(raw.ask(query("EXECUTE p"))) == "TCZ"
        proxy.sql("DROP TABLE changing")


def test_prepare_with_psycopg3(proxy):
    with closing(psycopg.connect(proxy.dsn("plain"), autocommit=True)) as connection:
        connection.execute("PREPARE p (int) AS SELECT $1 * 2")
        for number in range(8):  # prepared by the driver itself from the fifth time on
            assert connection.execute("EXECUTE p (21)").fetchone() == (42,), number
        with connection.pipeline():
            cursors = [connection.execute(f"EXECUTE p ({number})") for number in range(5)]
        assert [cursor.fetchone()[0] for cursor in cursors] == [0, 2, 4, 6, 8]
        with refused("42P05", hint=False):
            connection.execute("PREPARE p AS SELECT 1")
