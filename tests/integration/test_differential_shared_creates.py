"""CREATE TABLE AS of tables that are sharded by the configuration, or of reference: what one Postgres makes, each row on its shard."""
from contextlib import closing

import pytest
from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Answer, Both, difference, shards_and_one
from differential_creates import SHARED, SHARED_CREATES, SHARED_ERRORS, SHARED_REFERENCE
from support import SYNC, bind, describe, execute, parse, query
from test_differential_creates import COLUMNS, on, same

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def sides():
    keyspaces = [dict(space, tables=space["tables"] + [{"name": name, "key": key} for name, key in SHARED[space["name"]]])
                 for space in KEYSPACES]
    with shards_and_one(keyspaces, REFERENCE + [SHARED_REFERENCE], SCHEMA, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


def rows_on(both, number, name):
    return Answer(both.app.ask(query(f"{on(number)}SELECT * FROM {name}"))).rows


def check_places(both, name, key):
    """Each row is on one shard, where its key is found; of a reference table on all."""
    wanted = sorted(Answer(both.one.ask(query(f"SELECT * FROM {name}"))).rows, key=repr)
    parts = [rows_on(both, number, name) for number in range(3)]
    if not key:
        assert [sorted(part, key=repr) for part in parts] == [wanted] * 3
        return
    assert sorted(sum(parts, []), key=repr) == wanted
    keys = ", ".join(f"quote_literal({column})" for column in key)
    for found in sorted(set(Answer(both.one.ask(query(f"SELECT {keys} FROM {name}"))).rows), key=repr)[:12]:
        where = " AND ".join(f"{column} = {value.decode()}" for column, value in zip(key, found))
        same(*both.simple(f"SELECT * FROM {name} WHERE {where}"), where)


@pytest.mark.parametrize("sql, name, key", SHARED_CREATES)
def test_it_makes_what_one_postgres_makes(both, sql, name, key):
    for ask in (both.simple, both.extended):
        found, wanted = ask(sql)
        same(found, wanted, sql)
        try:
            same(*both.simple(f"SELECT * FROM {name}"), sql)
            wanted = Answer(both.one.ask(query(COLUMNS.replace("'made'", f"'{name}'")))).rows
            for number in range(3):
                assert Answer(both.app.ask(query(on(number) + COLUMNS.replace("'made'", f"'{name}'")))).rows == wanted
            check_places(both, name, key)
        finally:
            both.run(f"DROP TABLE {name}")


@pytest.mark.parametrize("sql", SHARED_ERRORS)
def test_errors_are_the_servers_and_nothing_is_left(both, sql):
    for ask in (both.simple, both.extended):
        found, wanted = ask(sql)
        assert wanted.error and found.error, (found.error, found.tags)
        assert [found.error[name] for name in "CM"] == [wanted.error[name] for name in "CM"]
        for number in range(3):
            left = Answer(both.app.ask(query(on(number) + "SELECT count(*) FROM pg_class WHERE relname = 'made'")))
            assert left.rows == [(b"0",)], left.error


@pytest.mark.parametrize("sql", ["CREATE TABLE IF NOT EXISTS made AS SELECT id FROM users",
                                 "CREATE TABLE IF NOT EXISTS made AS SELECT qty AS id FROM orders",
                                 "CREATE TABLE IF NOT EXISTS made AS SELECT id FROM made",
                                 "CREATE TABLE IF NOT EXISTS made AS SELECT id FROM users WITH NO DATA"])
def test_if_not_exists(both, sql):
    """What is there stays as it is, and a notice says so."""
    both.run("CREATE TABLE made AS SELECT id FROM users WHERE id < 30")
    try:
        for ask in (both.simple, both.extended):
            found, wanted = ask(sql)
            same(found, wanted, sql)
            assert found.tags == ["CREATE TABLE AS"]
        messages = both.app.ask(query(sql))
        assert [kind for kind, _ in messages] == ["N", "C", "Z"]
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
        same(*both.simple("CREATE TABLE made_too AS SELECT num AS user_id, id FROM users WHERE num > 5"), "another")
        same(*both.simple("SELECT count(DISTINCT name) FROM users"), "gathered behind it")
        same(*both.simple("SELECT id, num FROM made WHERE id = 7"), "a row of it")
        same(*both.simple(end), end)
        for name in ("made", "made_too"):
            found, wanted = both.simple(f"SELECT * FROM {name}")
            if end == "ROLLBACK":
                assert found.error["C"] == wanted.error["C"] == "42P01"
                assert all(Answer(both.app.ask(query(on(number) + f"SELECT to_regclass('{name}')"))).rows == [(None,)]
                           for number in range(3))
            else:
                same(found, wanted, "committed")
    check_places(both, "made", ["id"])
    check_places(both, "made_too", ["user_id"])
    both.run("DROP TABLE made, made_too")
    both.run("UPDATE users SET num = num - 1000 - id WHERE num > 1000")


def test_with_parameters(both):
    for sql, values in (("CREATE TABLE made AS SELECT id, $1::text AS t FROM users WHERE id > $2", (b"x", b"10")),
                        ("CREATE TABLE made AS SELECT id, $2 AS t FROM users WHERE id = $1", (b"6", b"x")),
                        ("CREATE TABLE made AS SELECT $2::int AS a, qty AS id FROM orders WHERE qty > $1", (b"2", b"7")),
                        ("CREATE TABLE made AS SELECT $1::bigint AS id, $1 + 1 AS more", (b"77",)),
                        ("CREATE TABLE made AS SELECT $1::int AS a, id FROM users WHERE num = $2 OR name = $3", (b"1", b"7", b"bob0"))):
        same(*both.extended(sql, values), sql)
        same(*both.simple("SELECT * FROM made"), sql)
        check_places(both, "made", ["id"])
        both.run("DROP TABLE made")


def test_execute(both):
    both.run("PREPARE p (int) AS SELECT id, name FROM users WHERE id > $1")
    both.run("PREPARE q (int) AS SELECT qty AS id, user_id FROM orders WHERE qty > $1")
    for name in "pq":
        for ask in (both.simple, both.extended):
            same(*ask(f"CREATE TABLE made AS EXECUTE {name} (2)"), "EXECUTE")
            same(*both.simple("SELECT * FROM made"), "its rows")
            check_places(both, "made", ["id"])
            both.run("DROP TABLE made")


def test_many_rows(both):
    """More than one INSERT has, by way of portals."""
    both.run("CREATE TABLE made AS SELECT n AS id, md5(n::text) AS t FROM generate_series(1, 20000) n")
    same(*both.simple("SELECT count(*), sum(id), max(t) FROM made"), "all of them")
    both.run("CREATE TABLE made_too AS SELECT id AS user_id, t FROM made")
    both.run("CREATE TABLE made_text AS SELECT t AS slug, id FROM made")
    same(*both.simple("SELECT count(*) FROM made_too JOIN made ON made.id = made_too.user_id"), "the same")
    same(*both.simple("SELECT count(*), sum(id) FROM made_text"), "by another key")
    both.run("DROP TABLE made, made_too, made_text")


def test_a_key_that_is_missing(both):
    """A NULL key, a list that has none, and no such column: nothing is left."""
    for sql, sqlstate in (("CREATE TABLE made AS SELECT num AS id FROM users", "23502"),
                          ("CREATE TABLE made AS SELECT num FROM users", "42703"),
                          ("CREATE TABLE made (a) AS SELECT id FROM users", "42703"),
                          ("CREATE TABLE made AS SELECT balance AS id FROM users WHERE balance IS NOT NULL", "0A000"),
                          ("CREATE TABLE made_two AS SELECT firm FROM shifts", "42703")):
        found = Answer(both.app.ask(query(sql)))
        assert found.error and found.error["C"] == sqlstate and found.error["H"], (sql, found.error)
        assert all(Answer(both.app.ask(query(on(number) + "SELECT count(*) FROM pg_class WHERE relname LIKE 'made%'"))).rows
                   == [(b"0",)] for number in range(3))


def test_the_comment(both):
    """On a table that the configuration does not have: made without rows, else refused; never against what it says."""
    found = Answer(both.app.ask(query("CREATE TABLE undeclared /* pgshunt: shard by id */ AS SELECT id FROM users")))
    assert found.refused() and '{ name = "undeclared"; key = "id"; }' in found.error["H"]
    messages = both.app.ask(query("CREATE TABLE undeclared /* pgshunt: shard by id */ AS SELECT id FROM users WITH NO DATA"))
    assert [kind for kind, _ in messages] == ["N", "C", "Z"]
    assert b"once the configuration says so" in messages[0][1]
    assert all(rows_on(both, number, "undeclared") == [] for number in range(3))
    both.app.ask(query("DROP TABLE undeclared"))
    for sql in ("CREATE TABLE made /* pgshunt: shard by num */ AS SELECT id FROM users",
                "CREATE TABLE made_everywhere /* pgshunt: shard by id */ AS SELECT id FROM users",
                "SELECT 1 /* pgshunt: shard by id */"):
        assert Answer(both.app.ask(query(sql))).error["C"] == "22023"


def test_what_is_refused(both):
    for sql in ("CREATE TABLE made AS WITH a AS (DELETE FROM users RETURNING id) SELECT * FROM a",
                "CREATE MATERIALIZED VIEW made AS SELECT id FROM users",
                "EXPLAIN CREATE TABLE made AS SELECT id FROM users",
                "/* pgshunt: key=5 */ CREATE TABLE made AS SELECT id FROM users",
                "CREATE TEMP TABLE made AS SELECT id FROM users"):
        found = Answer(both.app.ask(query(sql)))
        assert found.refused(), (sql, found.error)
    answer = both.app.ask(parse("", "SELECT id INTO made FROM users WHERE id > $1"), bind("", "", [b"1"]), execute(""), SYNC)
    assert Answer(answer).refused()


def test_described(both):
    """Parse and Describe, as drivers do: no rows to come, and the values' types."""
    text = parse("", "CREATE TABLE made AS SELECT id, $1 AS t FROM users WHERE num > $2")
    found = [side.ask(text, describe("S", ""), SYNC) for side in (both.app, both.one)]
    assert [kind for kind, _ in found[0]] == [kind for kind, _ in found[1]]
    assert found[0][1][1] == found[1][1][1]


def test_a_client_that_leaves_in_the_middle(sides):
    """All or nothing: on every shard or on none."""
    proxy, _ = sides
    with closing(Both(*sides)) as both:
        for _ in range(4):
            connection = proxy.connect(dbname="app")
            cursor = connection.cursor()
            cursor.execute("SET statement_timeout = '5ms'")
            with pytest.raises(Exception) as raised:
                cursor.execute("CREATE TABLE made AS SELECT qty AS id, CASE WHEN pg_sleep(0.01) IS NULL THEN 1 END AS w FROM orders")
            assert raised.value.pgcode == "57014"
            connection.close()
            there = [Answer(both.app.ask(query(on(number) + "SELECT to_regclass('made')"))).rows for number in range(3)]
            assert there == [[(None,)]] * 3
