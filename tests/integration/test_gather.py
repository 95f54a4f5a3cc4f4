"""Queries that no stream can merge: their rows are brought to one server, and the answer is one Postgres's."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from harness.process import wait_until
from harness.sample import USERS
from support import explain, fetch, refused

pytestmark = pytest.mark.core

ORDERED = [
    # what peers answer wrongly without an error
    "SELECT country, count(*) FROM users GROUP BY country HAVING count(*) > 20 ORDER BY country",
    "SELECT id % 7 AS k, sum(balance) FROM users GROUP BY id % 7 HAVING sum(balance) > 100 ORDER BY k",
    "SELECT 1 + count(*) FROM users",
    "SELECT count(DISTINCT country), count(DISTINCT born) FROM users",
    "SELECT DISTINCT ON (country) country, id FROM users ORDER BY country, id DESC",
    "SELECT id, row_number() OVER (PARTITION BY country ORDER BY id DESC) FROM users ORDER BY id",
    "SELECT id, sum(balance) OVER (ORDER BY id ROWS 3 PRECEDING) FROM users ORDER BY id LIMIT 30",
    "SELECT id FROM users WHERE id < 4 UNION SELECT user_id FROM orders WHERE user_id < 6 ORDER BY 1",
    "SELECT id FROM users UNION ALL SELECT user_id FROM orders ORDER BY 1 LIMIT 20 OFFSET 5",
    "SELECT id FROM users EXCEPT SELECT user_id FROM orders WHERE item = 'pen' ORDER BY id",
    "SELECT country FROM users INTERSECT SELECT code FROM countries ORDER BY 1",
    "WITH rich AS (SELECT * FROM users WHERE balance > 500) SELECT count(*), min(name) FROM rich",
    "WITH RECURSIVE t(n) AS (SELECT min(id) FROM users UNION ALL SELECT n + 1 FROM t WHERE n < 5)"
    " SELECT t.n, u.name FROM t JOIN users u ON u.id = t.n ORDER BY 1",
    "SELECT name FROM users WHERE id = (SELECT max(user_id) FROM orders WHERE item = 'ink')",
    "SELECT id FROM users WHERE balance > (SELECT avg(balance) FROM users) ORDER BY id",
    "SELECT u.id FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.id = u.id + 900) ORDER BY u.id",
    # joins other than by key
    "SELECT u.name, o.item FROM users u JOIN orders o ON o.id = u.id ORDER BY u.id LIMIT 11",
    "SELECT a.id, b.id FROM users a JOIN users b ON a.id = b.id + 1 WHERE a.id < 20 ORDER BY 1",
    "SELECT u.id, o.id FROM users u LEFT JOIN orders o ON o.id = u.id + 195 ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u LEFT JOIN orders o ON o.id = u.id + 195 WHERE o.item IS NULL ORDER BY 1",
    "SELECT u.id, n.body FROM users u JOIN notes n ON n.id = u.id ORDER BY 1",
    "SELECT u.id, n.body, c.name FROM users u JOIN notes n ON n.id = u.id"
    " LEFT JOIN countries c ON c.code = u.country ORDER BY 1",
    "SELECT x.item, x.n FROM (SELECT item, count(*) AS n FROM orders GROUP BY item) x ORDER BY x.n, x.item",
    "SELECT u.id, l.id FROM users u, LATERAL (SELECT o.id FROM orders o WHERE o.amount < u.balance"
    " ORDER BY o.id DESC LIMIT 1) l ORDER BY u.id LIMIT 9",
    "SELECT u::text FROM users u WHERE id IN (1, 2, 3) ORDER BY u.name, count(*) OVER ()",
    "SELECT row_to_json(u) ->> 'name', rank() OVER (ORDER BY u.id) FROM users u WHERE id < 6 ORDER BY 1",
    "SELECT * FROM users NATURAL JOIN (SELECT id FROM orders) o ORDER BY id LIMIT 4",
    # aggregates
    "SELECT string_agg(name, ',' ORDER BY id) FROM users WHERE id < 20",
    "SELECT array_agg(id ORDER BY id DESC) FROM users WHERE id < 9",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY balance), mode() WITHIN GROUP (ORDER BY country) FROM users",
    "SELECT country, born, count(*) FROM users WHERE id < 30 GROUP BY ROLLUP (country, born) ORDER BY 1, 2, 3",
    "SELECT stddev(balance), var_pop(balance), bool_or(balance > 10), bit_and(id) FROM users",
    "SELECT corr(id, balance::float8) IS NOT NULL FROM users",
    # places
    "SELECT id FROM users ORDER BY balance FETCH FIRST 3 ROWS WITH TIES",
    "SELECT id FROM users ORDER BY id LIMIT (SELECT count(*) FROM notes)",
    "SELECT count(*) FROM users WHERE id < 20 AND country IS DISTINCT FROM 'at' HAVING count(*) > 1",
    "SELECT public.users.name FROM public.users JOIN public.orders o ON o.id = users.id ORDER BY 1 LIMIT 3",
    "SELECT u.a, u.b FROM users AS u (a, b) WHERE u.a < 5 ORDER BY 1, row_number() OVER ()",
    "SELECT count(*) FROM users a, users b, notes",
    "SELECT relname, (SELECT count(*) FROM users) FROM pg_class WHERE relname IN ('users', 'orders')"
    " AND relpersistence = 'p' ORDER BY 1",
    "VALUES ((SELECT count(*) FROM users)), ((SELECT count(*) FROM orders)) ORDER BY 1",
    "SELECT '  a\\b' || E'\\t\\n' || name, row_number() OVER (ORDER BY id) FROM users WHERE id < 4 ORDER BY id",
]


def answer(connection, sql, params=None):
    cursor = connection.cursor()
    cursor.execute(sql, params)
    return [(column.name, column.type_code) for column in cursor.description], cursor.fetchall()


@pytest.fixture
def app(data):
    with closing(data.connect()) as connection:
        yield connection


@pytest.mark.parametrize("sql", ORDERED)
def test_answers_as_one_postgres(app, oracle, sql):
    assert answer(app, sql) == answer(oracle, sql)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("sql, params", [
    ("SELECT id, rank() OVER (ORDER BY balance) FROM users WHERE balance > %s ORDER BY 1 LIMIT %s", (100, 10)),
    ("WITH a AS (SELECT * FROM users WHERE country = %s) SELECT count(*), %s::text FROM a", ("at", "x")),
    ("SELECT u.id FROM users u JOIN orders o ON o.id = u.id WHERE o.amount > %s AND u.name LIKE %s ORDER BY 1",
     (100, "user 00%")),
    ("SELECT id FROM users WHERE id = ANY(%s) EXCEPT SELECT id FROM orders WHERE id < %s ORDER BY 1", ([1, 5, 9], 6)),
])
def test_with_parameters(cluster, data, sql, params, binary):
    import psycopg
    node = cluster.shards[0].primary
    with data.connect3(prepare_threshold=2) as connection, psycopg.connect(node.dsn("oracle")) as direct:
        for _ in range(4):
            found = connection.cursor(binary=binary).execute(sql, params)
            wanted = direct.cursor(binary=binary).execute(sql, params)
            assert [(c.name, c.type_code) for c in found.description] == [
                (c.name, c.type_code) for c in wanted.description]
            assert found.fetchall() == wanted.fetchall()


def test_only_what_is_needed_travels(app):
    plan = explain(app, "SELECT u.name, o.item FROM users u JOIN orders o ON o.id = u.id"
                        " WHERE u.country = 'at' AND o.amount > 10 AND o.amount > u.balance")
    assert "gather on" in plan and "join of sharded tables" in plan
    assert "select id, name, country, balance from public.users where country = 'at'" in plan
    assert "select id, amount, item from public.orders where amount > 10" in plan
    kept = explain(app, "SELECT u.name FROM users u LEFT JOIN orders o ON o.id = u.id"
                        " WHERE o.amount IS NULL AND u.id > 5")
    assert "from public.orders\n" in kept + "\n" and "from public.users where id > 5" in kept
    either = explain(app, "SELECT a.name FROM users a JOIN users b ON a.id = b.balance WHERE a.id > 5 AND b.born IS NULL")
    assert "where id > 5 or born is null" in either


def test_rows_of_keys_come_from_their_shards_only(data, app):
    plan = explain(app, "SELECT a.id FROM users a JOIN orders b ON a.id = b.id WHERE a.id = 3 AND b.user_id IN (3, 5, 9, 11)")
    assert "gather on" in plan
    assert plan.count("from s") <= 2


def test_explain_analyze_runs_it(app):
    rows = fetch(app, "EXPLAIN ANALYZE SELECT count(*) FROM users a JOIN users b ON a.id = b.balance")
    plan = "\n".join(row[0] for row in rows)
    assert "gather on" in plan and "actual time" in plan and "rows=200 loops" in plan


def test_own_changes_are_seen_in_a_transaction(data):
    with data.connect3(autocommit=False) as connection:
        connection.execute("INSERT INTO users (id, name, balance) VALUES (9001, 'new', 1), (9002, 'newer', 1), (9003, 'x', 1)")
        connection.execute("SAVEPOINT a")
        connection.execute("UPDATE notes SET body = 'changed' WHERE id = 1")
        sql = ("SELECT u.name, (SELECT body FROM notes WHERE id = 1), row_number() OVER (ORDER BY u.id)"
               " FROM users u WHERE u.id > 9000 ORDER BY 3")
        assert connection.execute(sql).fetchall() == [
            ("new", "changed", 1), ("newer", "changed", 2), ("x", "changed", 3)]
        assert connection.execute("SELECT count(*) FROM users HAVING count(*) > 1").fetchone() == (203,)
        connection.execute("ROLLBACK TO a")
        assert connection.execute(sql).fetchall()[0] == ("new", "note 1", 1)
        connection.rollback()
        assert connection.execute("SELECT count(*) + 0 FROM users").fetchone() == (200,)


def test_an_error_fails_the_transaction_and_a_savepoint_mends_it(data):
    import psycopg
    with data.connect3(autocommit=False) as connection:
        connection.execute("UPDATE users SET balance = balance WHERE id = 1")
        connection.execute("SAVEPOINT a")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT row_number() OVER (), 1 / (id - id) FROM users")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
        connection.execute("ROLLBACK TO a")
        assert connection.execute("SELECT count(*) + 1 FROM users").fetchone() == (201,)
        connection.commit()


def test_errors_are_the_servers(app, oracle):
    for sql in ["SELECT row_number() OVER (), nothing FROM users", "SELECT name, count(*) FROM users HAVING count(*) > 1",
                "SELECT 1 / (count(*) - count(*)) FROM users"]:
        errors = []
        for connection in (app, oracle):
            with pytest.raises(psycopg2.Error) as caught:
                connection.cursor().execute(sql)
            connection.rollback()
            errors.append((caught.value.pgcode, caught.value.diag.message_primary, caught.value.diag.statement_position))
        assert errors[0] == errors[1]


def test_syntax_errors_about_sharded_tables_are_the_grammars(app, oracle):
    for sql in ["SELEC * FROM users", "SELECT id FRM users WHERE id = 1", "SELECT * FROM orders WHERE"]:
        errors = []
        for connection in (app, oracle):
            with pytest.raises(psycopg2.Error) as caught:
                connection.cursor().execute(sql)
            connection.rollback()
            errors.append((caught.value.pgcode, caught.value.diag.message_primary, caught.value.diag.statement_position))
        assert errors[0] == errors[1]


def test_an_error_on_a_shard_names_it(app):
    with pytest.raises(psycopg2.errors.DivisionByZero) as caught:
        fetch(app, "SELECT count(*) + 1 FROM users WHERE 1 / (id - 7) >= 0 AND id > 0")
    assert fetch(app, "SELECT 1") == [(1,)]
    assert caught.value.pgcode == "22012"


def test_copy_of_a_query(app, oracle):
    import io
    sql = "COPY (SELECT u.id, rank() OVER (ORDER BY u.id DESC) FROM users u ORDER BY 1) TO STDOUT (FORMAT csv)"
    texts = []
    for connection in (app, oracle):
        out = io.StringIO()
        connection.cursor().copy_expert(sql, out)
        texts.append(out.getvalue())
    assert texts[0] == texts[1] and texts[0].count("\n") == 200


def test_types_that_users_made_travel_as_text(cluster, data):
    cluster.shards[1].primary.sql("CREATE TYPE padding AS ENUM ('a'); DROP TYPE padding", dbname="app")
    with closing(data.connect()) as connection:
        cursor = connection.cursor()
        connection.autocommit = True
        try:
            for sql in ["CREATE TYPE mood AS ENUM ('sad', 'happy')", "CREATE TYPE pair AS (a int, b text)",
                        "ALTER TABLE users ADD moods mood[], ADD twin pair, ADD odd text",
                        r"UPDATE users SET moods = '{sad,happy}', twin = (id, E'tab\t' || id), odd = E'\\x\n' WHERE id < 50"]:
                cursor.execute(sql)
            rows = fetch(connection, "SELECT id, moods::text, (twin).b, odd, rank() OVER (ORDER BY id) FROM users"
                                     " WHERE id < 52 ORDER BY id")
            assert rows[:49] == [(i, "{sad,happy}", f"tab\t{i}", "\\x\n", i) for i in range(1, 50)]
            assert rows[49] == (50, None, None, None, 50)
        finally:
            for sql in ["ALTER TABLE users DROP moods, DROP twin, DROP odd", "DROP TYPE mood", "DROP TYPE pair"]:
                cursor.execute(sql)


def test_a_limit_on_what_travels(cluster, data):
    with Proxy(cluster, keyspaces=[USERS], options={"limits": {"max_gather": "4kB"}}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            with pytest.raises(psycopg2.Error) as caught:
                fetch(connection, "SELECT o.*, row_number() OVER () FROM orders o")
            assert caught.value.pgcode == "53400"
            assert '"orders"' in caught.value.diag.message_primary and caught.value.diag.message_hint
            connection.rollback()
            assert fetch(connection, "SELECT count(*) + 1 FROM users WHERE id < 10") == [(10,)]


def test_large_rows_go_through_bounded_memory(data, app):
    rows = fetch(app, "SELECT length(x), row_number() OVER (ORDER BY id) FROM"
                      " (SELECT id, repeat(name, 20000) AS x FROM users) u ORDER BY id")
    assert rows == [(180000, i) for i in range(1, 201)]


def test_nothing_stays_behind(data, app):
    for _ in range(30):
        fetch(app, "SELECT count(*) + 1 FROM users")
    assert fetch(app, "SELECT count(*) FROM pg_class WHERE relname = 'users' AND relpersistence = 't'") == [(0,)]


BEGINS = ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN; SET TRANSACTION READ ONLY",
          "START TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY, DEFERRABLE"]


@pytest.mark.parametrize("begin", BEGINS)
def test_read_only_transactions(data, oracle, begin):
    """They gather too, and write nowhere: not before, not between, not in what is gathered, not after."""
    with closing(data.connect()) as app:
        cursor = app.cursor()
        for statement in begin.split("; "):
            cursor.execute(statement)
        for _ in range(3):
            assert fetch(app, "SELECT count(*) + 1 FROM users") == [(201,)]
            assert fetch(app, "SELECT count(*) FROM users") == [(200,)]
            assert fetch(app, "SELECT n.id, count(*) OVER () FROM notes n JOIN users u ON u.id = n.id ORDER BY 1") == fetch(
                oracle, "SELECT n.id, count(*) OVER () FROM notes n JOIN users u ON u.id = n.id ORDER BY 1")
            for shard in ("s0", "s1"):
                assert fetch(app, f"SHOW transaction_read_only /* pgshunt: shard={shard} */") == [("on",)]
        cursor.execute("DECLARE c CURSOR FOR SELECT id, count(*) OVER () FROM users ORDER BY id")
        cursor.execute("FETCH 2 FROM c")
        assert fetch(app, "SELECT count(DISTINCT country) FROM users") == fetch(oracle, "SELECT count(DISTINCT country) FROM users")
        cursor.execute("FETCH 1 FROM c")
        assert cursor.fetchall() == [(3, 200)]
        cursor.execute("SAVEPOINT a")
        for change in ("INSERT INTO notes VALUES (77, 'x')", "UPDATE users SET name = 'x'", "DELETE FROM users WHERE id = 1",
                       "SELECT nextval('ids'), count(*) OVER () FROM users /* pgshunt: shard=s0 */"):
            with refused(("25006", "42P01"), hint=False):
                cursor.execute(change)
            cursor.execute("ROLLBACK TO a")
        cursor.execute("RELEASE a")
        cursor.execute("COMMIT")
        assert fetch(app, "SELECT count(*) FROM notes WHERE id = 77") == [(0,)]


def test_what_is_gathered_in_a_read_only_transaction_writes_nothing(cluster, data):
    cluster.all_primaries("CREATE OR REPLACE FUNCTION sly(n bigint) RETURNS bigint LANGUAGE sql VOLATILE AS "
                          "'INSERT INTO notes VALUES (78) RETURNING n'")
    try:
        with closing(data.connect()) as app:
            cursor = app.cursor()
            cursor.execute("BEGIN READ ONLY")
            with refused("25006", hint=False):
                cursor.execute("SELECT sly(count(DISTINCT country)) FROM users")
            cursor.execute("COMMIT")
            assert fetch(app, "SELECT count(*) FROM notes WHERE id = 78") == [(0,)]
    finally:
        cluster.all_primaries("DROP FUNCTION sly")


def test_read_only_transactions_that_have_gone_too_far(data):
    with closing(data.connect()) as app:
        cursor = app.cursor()
        cursor.execute("BEGIN READ ONLY")
        cursor.execute("SAVEPOINT a")
        with refused("0A000") as caught:
            cursor.execute("SELECT count(*) + 1 FROM users")
        assert "READ ONLY" in caught.value.diag.message_hint
        cursor.execute("ROLLBACK")
        cursor.execute("BEGIN READ ONLY")
        cursor.execute("SELECT * FROM notes")
        assert fetch(app, "SELECT count(*) + 1 FROM users") == [(201,)]  # on another server
        cursor.execute("ROLLBACK")
        cursor.execute("BEGIN READ ONLY")
        cursor.execute("SELECT * FROM users")
        with refused("0A000"):
            cursor.execute("SELECT count(*) + 1 FROM users")
        cursor.execute("ROLLBACK")


def test_cancel_stops_all_of_it(data):
    import threading
    with closing(data.connect()) as connection:
        timer = threading.Timer(0.5, connection.cancel)
        timer.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            fetch(connection, "SELECT count(*) FROM users a, users b, users c, users d, users e WHERE a.id + b.id = c.id * d.id + e.id")
        timer.join()
        connection.rollback()
        assert fetch(connection, "SELECT count(*) + 1 FROM users") == [(201,)]
