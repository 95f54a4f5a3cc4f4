"""CREATE TABLE AS over three shards: the table is what one Postgres makes, on the first shard; the others get it empty."""
from contextlib import closing

import psycopg2
import pytest
from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Answer, Both, difference, shards_and_one
from differential_creates import CREATES, ERRORS
from support import SYNC, bind, execute, parse, query

pytestmark = pytest.mark.core

COLUMNS = ("SELECT a.attname, format_type(a.atttypid, a.atttypmod), c.collname, a.attnotnull, r.relpersistence, r.reloptions "
           "FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid LEFT JOIN pg_collation c ON c.oid = a.attcollation "
           "WHERE a.attnum > 0 AND r.oid = 'made'::regclass ORDER BY a.attnum")


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


def same(found, wanted, about):
    wrong = difference(found, wanted, None)
    assert not wrong, f"{about}\n{wrong}"


def on(number):
    return f"/* pgshunt: shard=s{number} */ "


def columns(both, number=0):
    return Answer(both.app.ask(query(on(number) + COLUMNS))).rows


@pytest.mark.parametrize("sql, name", CREATES)
def test_it_makes_what_one_postgres_makes(both, sql, name):
    for ask in (both.simple, both.extended):
        found, wanted = ask(sql)
        same(found, wanted, sql)
        try:
            same(*both.simple(f"SELECT * FROM {name}"), sql)
            same(*both.simple(f"SELECT count(*) FROM {name}"), sql)
            wanted = Answer(both.one.ask(query(COLUMNS))).rows
            assert [columns(both, number) for number in range(3)] == [wanted] * 3
            for number in (1, 2):
                assert Answer(both.app.ask(query(f"{on(number)}SELECT count(*) FROM {name}"))).rows == [(b"0",)]
        finally:
            both.run(f"DROP TABLE {name}")


@pytest.mark.parametrize("sql", ERRORS)
def test_errors_are_the_servers_and_nothing_is_left(both, sql):
    for ask in (both.simple, both.extended):
        found, wanted = ask(sql)
        assert wanted.error and found.error, (found.error, found.tags)
        assert [found.error[name] for name in "CM"] == [wanted.error[name] for name in "CM"]
        for number in range(3):
            left = Answer(both.app.ask(query(on(number) + "SELECT count(*) FROM pg_class WHERE relname = 'made'")))
            assert left.rows == [(b"0",)], left.error


def test_if_not_exists(both):
    both.run("CREATE TABLE made AS SELECT id FROM users")
    try:
        found, wanted = both.simple("CREATE TABLE IF NOT EXISTS made AS SELECT id FROM orders")
        same(found, wanted, "IF NOT EXISTS")
        assert found.tags == ["CREATE TABLE AS"]
        same(*both.simple("SELECT * FROM made"), "what it was")
    finally:
        both.run("DROP TABLE made")


def test_in_blocks(both):
    """With the transaction's own changes; taken back with it, and with a savepoint."""
    for end in ("ROLLBACK", "COMMIT"):
        both.run("BEGIN")
        both.run("UPDATE users SET num = 1000 + id WHERE id < 30")
        both.run("SAVEPOINT a")
        same(*both.simple("CREATE TABLE made AS SELECT id, num FROM users"), "in a block")
        both.run("ROLLBACK TO a")
        same(*both.simple("CREATE TABLE made AS SELECT id, num, rank() OVER (ORDER BY num, id) FROM users"), "once more")
        same(*both.simple("SELECT * FROM made"), "its rows")
        same(*both.simple("SELECT count(DISTINCT name) FROM users"), "gathered behind it")
        same(*both.simple("INSERT INTO made SELECT id + 100, 1, 1 FROM users"), "more of them")
        same(*both.simple(end), end)
        found, wanted = both.simple("SELECT * FROM made")
        if end == "ROLLBACK":
            assert found.error["C"] == wanted.error["C"] == "42P01"
            assert all(Answer(both.app.ask(query(on(number) + "SELECT to_regclass('made')"))).rows == [(None,)]
                       for number in range(3))
        else:
            same(found, wanted, "committed")
    both.run("DROP TABLE made")
    both.run("UPDATE users SET num = num - 1000 - id WHERE num > 1000")


@pytest.mark.parametrize("sql", ["CREATE TEMP TABLE mine AS SELECT id, name FROM users",
                                 "CREATE TEMP TABLE mine AS SELECT id FROM users WITH NO DATA",
                                 "SELECT id, mood INTO TEMP mine FROM users"])
def test_temporary_tables(both, sql):
    same(*both.simple(sql), sql)
    same(*both.simple("SELECT * FROM mine"), "its rows")
    same(*both.simple("INSERT INTO mine (id) VALUES (1000)"), "written")
    same(*both.simple("SELECT * FROM mine"), "and read")
    for number in (1, 2):
        assert Answer(both.app.ask(query(on(number) + "SELECT count(*) FROM pg_class WHERE relname = 'mine'"))).rows == [(b"0",)]
    both.run("DROP TABLE mine")


def test_temporary_until_the_commit(both):
    both.run("BEGIN")
    same(*both.simple("CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT id FROM users"), "mine")
    same(*both.simple("SELECT * FROM mine"), "its rows")
    both.run("COMMIT")
    found, wanted = both.simple("SELECT * FROM mine")
    assert found.error["C"] == wanted.error["C"] == "42P01"


def test_with_parameters(both):
    for sql, values in (("CREATE TABLE made AS SELECT id, $1::text AS t FROM users WHERE id > $2", (b"x", b"10")),
                        ("CREATE TABLE made AS SELECT id, $2 AS t FROM users WHERE id = $1", (b"6", b"x")),
                        ("CREATE TABLE made AS SELECT $1::int AS a FROM users WHERE num = $2 OR name = $3", (b"1", b"7", b"bob0"))):
        same(*both.extended(sql, values), sql)
        same(*both.simple("SELECT * FROM made"), sql)
        both.run("DROP TABLE made")


def test_execute(both):
    both.run("PREPARE p (int) AS SELECT id, name FROM users WHERE id > $1")
    same(*both.simple("CREATE TABLE made AS EXECUTE p (20)"), "EXECUTE")
    same(*both.simple("SELECT * FROM made"), "its rows")
    both.run("DROP TABLE made")


def test_it_stays_out_of_a_failed_block(both):
    both.run("BEGIN")
    both.simple("SELECT 1/0")
    same(*both.simple("CREATE TABLE made AS SELECT id FROM users"), "aborted")
    both.run("ROLLBACK")


def test_a_client_that_leaves_in_the_middle(sides):
    """All or nothing: on every shard or on none."""
    proxy, _ = sides
    with closing(Both(*sides)) as both:
        for _ in range(5):
            connection = proxy.connect(dbname="app")
            cursor = connection.cursor()
            cursor.execute("SET statement_timeout = '5ms'")
            try:
                cursor.execute("CREATE TABLE made AS SELECT u.* FROM users u, orders o, items i")
            except psycopg2.Error as error:
                assert error.pgcode == "57014"
            connection.close()
            there = [Answer(both.app.ask(query(on(number) + "SELECT to_regclass('made')"))).rows for number in range(3)]
            assert there[0] == there[1] == there[2]
            both.app.ask(query("DROP TABLE IF EXISTS made"))


def test_what_is_refused(both):
    for sql in ("CREATE TABLE countries2 AS WITH a AS (DELETE FROM users RETURNING id) SELECT * FROM a",
                "CREATE MATERIALIZED VIEW made AS SELECT country, count(DISTINCT name) FROM users GROUP BY country"):
        found = Answer(both.app.ask(query(sql)))
        assert found.refused(), (sql, found.error)
    answer = both.app.ask(parse("", "SELECT id INTO made FROM users WHERE id > $1"), bind("", "", [b"1"]), execute(""), SYNC)
    assert Answer(answer).refused()


def test_a_shard_that_fails_before_others_have_begun(both):
    """It is rolled back everywhere, in whatever order the shards' answers come: the session goes on outside of any transaction."""
    for _ in range(100):
        failed = Answer(both.app.ask(query("CREATE TABLE made AS SELECT nothing FROM users")))
        assert failed.error["C"] == "42703" and failed.status == "I"
        for number in range(3):
            answer = Answer(both.app.ask(query(on(number) + "SELECT to_regclass('made')")))
            assert answer.rows == [(None,)], answer.error
