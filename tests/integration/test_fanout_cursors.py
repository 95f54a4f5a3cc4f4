"""Results of several shards taken in parts, by Execute with a row limit and by SQL cursors: as one Postgres gives them."""
import threading
from contextlib import closing

import pytest

from harness import wait_until
from support import (SYNC, Raw, bind, close, describe, error_of, execute, explain, fetch, kinds, one, parse, query, refused,
                     rows)
from test_same_as_postgres import Direct

pytestmark = pytest.mark.core

USERS = 200


@pytest.fixture(scope="module", autouse=True)
def restored(oracle):
    """The one Postgres is other modules', too."""
    cursor = oracle.cursor()
    cursor.execute("CREATE TEMP TABLE balances AS SELECT id, balance FROM users")
    yield
    cursor.execute("UPDATE users SET balance = b.balance FROM balances b WHERE b.id = users.id AND users.balance <> b.balance")
    cursor.execute("DROP TABLE balances")


QUERIES = [
    "SELECT id FROM users ORDER BY id",
    "SELECT id, name FROM users ORDER BY name DESC, id LIMIT 23 OFFSET 4",
    "SELECT id FROM users ORDER BY id LIMIT 0",
    "SELECT id FROM users WHERE false ORDER BY id",
    "SELECT name FROM users ORDER BY id",
    "SELECT DISTINCT country FROM users ORDER BY country",
    "SELECT country, count(*), avg(balance) FROM users GROUP BY country ORDER BY country",
    "SELECT count(*), sum(amount) FROM orders",
    "SELECT id, repeat('x', 20000) FROM users ORDER BY id",
    "SELECT count(DISTINCT country), max(name) FROM users",
    "SELECT id, rank() OVER (ORDER BY name, id), country FROM users ORDER BY id",
    "WITH x AS (SELECT country, count(*) AS n FROM users GROUP BY 1) SELECT u.id, x.n FROM users u JOIN x USING (country) ORDER BY 1",
    "SELECT id FROM users UNION SELECT id + 500 FROM users WHERE false ORDER BY 1",
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.id = u.id ORDER BY 1",
]


def simplified(messages):
    """What both have to agree on: kinds, rows and tags; of errors the SQLSTATE."""
    found = []
    for kind, body in messages:
        if kind == "T":
            found.append((kind, body[:2]))
        elif kind == "E":
            found.append((kind, error_of([(kind, body)])["C"]))
        elif kind in "DCZ":
            found.append((kind, body))
        elif kind not in "SN":
            found.append((kind, b""))
    return found


def same(data, cluster, *rounds):
    with Raw(Direct(cluster.shards[0].primary), database="oracle") as direct:
        expected = [simplified(direct.ask(*part)) for part in rounds]
    with Raw(data) as raw:
        for number, part in enumerate(rounds):
            assert simplified(raw.ask(*part)) == expected[number], f"round {number}"


def in_parts(sql, limits, values=(), results=()):
    return [(query("BEGIN"),), (parse("", sql), bind("p", "", values, (), results), describe("P", "p"),
                                execute("p", limits[0]), SYNC),
            *[(execute("p", limit), SYNC) for limit in limits[1:]], (query("COMMIT"),)]


@pytest.mark.parametrize("sql", QUERIES)
def test_execute_with_a_row_limit(data, cluster, oracle, sql):
    same(data, cluster, *in_parts(sql, [3, 1, 40, 7, 200, 5]))
    same(data, cluster, *in_parts(sql, [2, 0, 0]))


@pytest.mark.parametrize("results", [(), (1,), (1, 0)])
def test_values_and_formats(data, cluster, oracle, results):
    same(data, cluster, *in_parts("SELECT id, name FROM users WHERE id > $1 ORDER BY born, id", [5, 60, 500], [b"30"],
                                  results))


def test_outside_a_block(data, cluster, oracle):
    """The portal lives until Sync, as with one Postgres."""
    sql = "SELECT id FROM users ORDER BY id"
    same(data, cluster, (parse("", sql), bind("", ""), describe("P", ""), execute("", 4), SYNC), (execute("", 4), SYNC),
         (parse("", sql), bind("", ""), *[execute("", 90)] * 4, SYNC), (query("SELECT 1"),),
         (parse("", sql), bind("a", ""), bind("b", ""), execute("a", 2), execute("b", 3), execute("a", 1), SYNC))


TWICE = ["SELECT id FROM users ORDER BY id LIMIT 3", "SELECT count(*) FROM orders", "SELECT id FROM users WHERE false",
         "UPDATE users SET balance = balance + 1 WHERE id < 50 RETURNING 1", "UPDATE users SET balance = balance + 1",
         "DELETE FROM orders WHERE id < 0",
         "SELECT u.country, count(*) OVER (PARTITION BY u.country) FROM users u ORDER BY 1, 2 LIMIT 3"]


@pytest.mark.parametrize("sql", TWICE)
def test_a_portal_is_run_once(data, cluster, oracle, sql):
    """What has run to its end gives no more rows, and no change is made twice."""
    sums = query("SELECT sum(balance) FROM users")
    rounds = [(parse("", sql), bind("p", ""), describe("P", "p"), execute("p"), execute("p"), execute("p", 2), SYNC)]
    rounds += [(query("BEGIN"),), (parse("s", sql), bind("p", "s"), execute("p"), SYNC), (execute("p"), SYNC),
               (execute("p", 1), SYNC), (sums,), (query("ROLLBACK"),), (execute("p"), SYNC), (sums,)]
    rounds += [(query("BEGIN"),), (bind("p", "s"), execute("p"), SYNC), (query("SELECT 1/0"),), (execute("p"), SYNC),
               (bind("p", "s", [b"1"]), SYNC), (bind("p", "s"), SYNC), (query("ROLLBACK"),)]
    same(data, cluster, *rounds)


def test_a_change_that_returns_rows(data, cluster, oracle):
    sql = "UPDATE users SET country = country WHERE id <= 20 RETURNING 1"
    same(data, cluster, (parse("", sql), bind("", ""), execute("", 5), SYNC),
         (parse("", sql), bind("", ""), execute("", 5), execute("", 100), SYNC), *in_parts(sql, [5, 10, 10, 1]),
         (parse("", "INSERT INTO users (id, name, balance) VALUES (9001, 'a', 1), (9002, 'b', 1), (9003, 'c', 1), "
                    "(9004, 'd', 1) RETURNING id"), bind("", ""), execute("", 3), SYNC),
         (query("SELECT count(*) FROM users WHERE id > 9000"),), (query("DELETE FROM users WHERE id > 9000"),))


def test_other_statements_between_the_parts(data, cluster, oracle):
    """JDBC's way: fetch, change, fetch. What was open before the change does not see it."""
    same(data, cluster, (query("BEGIN"),),
         (parse("", "SELECT id, balance FROM users ORDER BY id"), bind("C_1", ""), execute("C_1", 10), SYNC),
         (query("UPDATE users SET balance = -1"),), (query("SELECT count(*) FROM users WHERE balance = -1"),),
         (parse("", "SELECT id FROM orders ORDER BY id DESC"), bind("C_2", ""), execute("C_2", 3), SYNC),
         (execute("C_1", 150), SYNC), (execute("C_2", 4), SYNC), (close("P", "C_1"), SYNC), (execute("C_1", 5), SYNC),
         (query("ROLLBACK"),))


def test_portals_of_one_name_in_a_loop(data, cluster):
    """Those that are gone are closed on the servers too, long before the transaction ends."""
    with Raw(data) as raw:
        raw.ask(query("BEGIN"))
        for _ in range(20):
            answer = raw.ask(parse("", "SELECT id FROM users ORDER BY id"), bind("p", ""), execute("p", 2), SYNC)
            assert kinds(answer) == "12DDsZ"
        for shard in ("s0", "s1"):
            left = raw.ask(query(f"/* pgshunt: shard={shard} */ SELECT count(*) FROM pg_cursors WHERE name LIKE 'pgshunt%'"))
            assert rows(left) == [[b"1"]]
        assert "3" in kinds(raw.ask(close("P", "p"), SYNC))
        left = raw.ask(query("/* pgshunt: shard=s0 */ SELECT count(*) FROM pg_cursors WHERE name LIKE 'pgshunt%'"))
        assert rows(left) == [[b"0"]]


def test_savepoints(data, cluster, oracle):
    sql = "SELECT id FROM users ORDER BY id"
    same(data, cluster, (query("BEGIN"),), (parse("", sql), bind("before", ""), execute("before", 2), SYNC),
         (query("SAVEPOINT a"),), (parse("", sql), bind("behind", ""), execute("behind", 2), SYNC),
         (query("DECLARE c CURSOR FOR " + sql),), (query("FETCH 2 FROM c"),), (query("ROLLBACK TO a"),),
         (execute("before", 2), SYNC), (query("FETCH 1 FROM c"),), (query("ROLLBACK TO a"),),
         (execute("behind", 2), SYNC), (query("ROLLBACK TO a"),), (execute("before", 2), SYNC),
         (query("SAVEPOINT b"),), (query("DECLARE d CURSOR FOR " + sql),), (query("RELEASE b"),),
         (query("FETCH 3 FROM d"),), (query("COMMIT"),), (query("FETCH 3 FROM d"),))


def test_errors_of_gathered_results(data, cluster, oracle):
    """They come with the part that their row is in, no earlier: there is one server to ask."""
    failing = "SELECT id, 1 / (id - 150), n FROM (SELECT id, count(*) OVER (ORDER BY id) AS n FROM users) x"
    same(data, cluster, *in_parts(failing, [5, 100, 44]), (query("SELECT 1"),))
    with Raw(data) as raw:
        raw.ask(query("BEGIN"))
        raw.ask(parse("", failing), bind("p", ""), execute("p", 149), SYNC)
        assert error_of(raw.ask(execute("p", 1), SYNC))["C"] == "22012"
        assert error_of(raw.ask(execute("p", 1), SYNC))["C"] == "25P02"


def test_errors(data, cluster, oracle):
    failing = "SELECT id, 1 / (id - 150) FROM users ORDER BY id"  # a sort has all rows, and fails, at once
    same(data, cluster, (query("SET enable_indexscan = off"),), *in_parts(failing, [5, 200, 1]), (query("SELECT 1"),),
         (parse("", failing), bind("", ""), execute("", 5), execute("", 300), execute("", 1), SYNC), (query("SELECT 1"),),
         (query("BEGIN"),), (parse("", QUERIES[0]), bind("p", ""), execute("p", 5), SYNC), (query("SELECT 1/0"),),
         (execute("p", 5), SYNC), (query("ROLLBACK"),), (execute("p", 5), SYNC))


@pytest.mark.parametrize("select", ["SELECT id, 1 / (id - 3) FROM users ORDER BY id",
                                    "SELECT id, 1 / (id - 3), count(*) OVER () FROM users ORDER BY id"])
@pytest.mark.parametrize("fetch", ["FETCH ALL FROM c", "FETCH 200 FROM c", "MOVE 200 IN c"])
def test_a_fetch_that_fails_gives_no_rows(data, cluster, oracle, select, fetch):
    """One Postgres has all of its rows before it gives the first, or says what they look like."""
    begin = [(query("BEGIN"),), (query("DECLARE c CURSOR FOR " + select),)]
    extended = (parse("", fetch), bind("", ""), describe("P", ""), execute(), SYNC)
    same(data, cluster, *begin, (query(fetch),), (query("ROLLBACK"),), *begin, extended, (query("ROLLBACK"),), *begin,
         (parse("", "SELECT 1"), bind("", ""), describe("P", ""), execute(), *extended), (query("ROLLBACK"),))


CURSOR_ROUNDS = [
    ["BEGIN", "DECLARE c CURSOR FOR SELECT id, name FROM users ORDER BY id", "FETCH 3 FROM c", "FETCH NEXT FROM c",
     "FETCH FORWARD 5 FROM c", "MOVE 20 IN c", "FETCH c", "FETCH ALL FROM c", "FETCH 1 FROM c", "CLOSE c",
     "FETCH 1 FROM c", "ROLLBACK"],
    ["BEGIN", 'DECLARE "Odd name" CURSOR WITHOUT HOLD FOR SELECT country, count(*) FROM users GROUP BY 1 ORDER BY 1',
     'FETCH FORWARD 2 FROM "Odd name"', 'MOVE FORWARD ALL IN "Odd name"', 'CLOSE "Odd name"', "COMMIT"],
    ["DECLARE c CURSOR FOR SELECT id FROM users"],
    ["BEGIN", "DECLARE c NO SCROLL CURSOR FOR SELECT id FROM users", "DECLARE c CURSOR FOR SELECT id FROM users",
     "FETCH 1 FROM c", "ROLLBACK"],
    ["BEGIN", "DECLARE c CURSOR FOR SELECT nothing FROM users", "ROLLBACK"],
    ["BEGIN", "DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id", "DECLARE d CURSOR FOR SELECT id FROM orders "
     "ORDER BY id", "FETCH 2 FROM c", "FETCH 3 FROM d", "UPDATE users SET balance = balance", "FETCH 2 FROM c", "CLOSE ALL",
     "FETCH 1 FROM d", "ROLLBACK"],
    ["BEGIN", "DECLARE c CURSOR FOR SELECT id FROM users WHERE id = 4", "FETCH 2 FROM c", "CLOSE c", "COMMIT"],
    ["BEGIN", "DECLARE c CURSOR FOR SELECT id FROM users LIMIT 0", "FETCH 2 FROM c", "COMMIT"],
    ["BEGIN", "DECLARE c CURSOR FOR SELECT id, rank() OVER (ORDER BY id DESC) FROM users ORDER BY id", "FETCH 3 FROM c",
     "SELECT count(DISTINCT country) FROM users", "DECLARE d CURSOR FOR SELECT count(DISTINCT id) FROM users", "FETCH 2 FROM c",
     "MOVE 3 IN c", "FETCH ALL FROM d", "UPDATE users SET balance = balance", "FETCH 4 FROM c", "CLOSE c", "FETCH c", "ROLLBACK"],
    ["BEGIN", "SAVEPOINT a", "DECLARE c CURSOR FOR SELECT id, count(*) OVER () FROM users ORDER BY id", "FETCH 1 FROM c",
     "RELEASE a", "SAVEPOINT b", "FETCH 2 FROM c", "DECLARE d CURSOR FOR SELECT id, count(*) OVER () FROM users ORDER BY id DESC",
     "FETCH 2 FROM d", "ROLLBACK TO b", "FETCH 2 FROM c", "SELECT sum(count(*)) OVER () FROM users", "COMMIT"],
]


@pytest.mark.parametrize("texts", CURSOR_ROUNDS)
def test_sql_cursors(data, cluster, oracle, texts):
    same(data, cluster, *[(query(sql),) for sql in texts])
    if "nothing" in str(texts):  # Postgres looks at it when it is parsed
        return
    extended = [(parse("", sql), bind("", ""), describe("P", ""), execute(), SYNC) for sql in texts]
    same(data, cluster, *extended)


def test_binary_cursor(data, cluster, oracle):
    same(data, cluster, (query("BEGIN"),), (query("DECLARE c BINARY CURSOR FOR SELECT id FROM users ORDER BY id"),),
         (query("FETCH 5 FROM c"),), (query("COMMIT"),))


@pytest.mark.parametrize("sql, state", [
    ("FETCH BACKWARD 1 FROM c", "0A000"), ("FETCH PRIOR FROM c", "0A000"), ("FETCH LAST FROM c", "0A000"),
    ("FETCH ABSOLUTE 3 FROM c", "0A000"), ("FETCH 0 FROM c", "0A000"), ("MOVE BACKWARD ALL IN c", "0A000"),
    ("FETCH 1 FROM c; SELECT 1", "0A000"),
    ("DECLARE d CURSOR WITH HOLD FOR SELECT id FROM users", "0A000"),
    ("DECLARE d SCROLL CURSOR FOR SELECT id FROM users", "0A000"),
    ("DECLARE d SCROLL CURSOR FOR SELECT count(DISTINCT country) FROM users", "0A000"),
    ("DECLARE d CURSOR WITH HOLD FOR SELECT count(DISTINCT country) FROM users", "0A000"),
    ("DECLARE d CURSOR FOR SELECT id FROM users FOR UPDATE", "0A000"),
])
def test_what_is_refused(data, sql, state):
    with closing(data.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id")
        with refused(state):
            cursor.execute(sql)
        cursor.execute("ROLLBACK")
        assert one(connection, "SELECT count(*) FROM users") == USERS


def test_explain_of_a_cursor(data):
    with closing(data.connect()) as connection:
        text = explain(connection, "DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id")
        assert "shard s0" in text and "shard s1" in text and "sort" in text


def test_an_explanation_in_parts_is_refused(data):
    with Raw(data) as raw:
        answer = raw.ask(parse("", "EXPLAIN SELECT id FROM users"), bind("", ""), execute("", 1), SYNC)
        assert error_of(answer)["C"] == "0A000" and error_of(answer)["H"]


def test_explain_of_a_gathered_cursor(data):
    with closing(data.connect()) as connection:
        text = explain(connection, "DECLARE c CURSOR FOR SELECT id, count(*) OVER () FROM users ORDER BY id")
        assert "gather on" in text and "window" in text


def test_gathered_cursors_of_a_transaction_that_writes(data):
    """The tables of a cursor do not stop a two-phase commit."""
    with closing(data.connect()) as connection:
        connection.autocommit = False
        with connection.cursor("c") as named, connection.cursor() as cursor:
            named.itersize = 10
            named.execute("SELECT id, count(*) OVER () FROM users ORDER BY id")
            first = named.fetchmany(15)
            cursor.execute("UPDATE users SET balance = balance WHERE id = %s", (first[3][0],))
            assert len(first) + len(named.fetchall()) == USERS
        connection.commit()


def test_psycopg2_named_cursor(data, oracle):
    sql = "SELECT id, name, balance FROM users ORDER BY name"
    with closing(data.connect()) as connection:
        connection.autocommit = False
        with connection.cursor("odd 'name") as cursor:
            cursor.itersize = 17
            cursor.execute(sql)
            assert list(cursor) == fetch(oracle, sql)
        connection.commit()


def test_psycopg3_server_cursor(data, cluster, oracle):
    sql = "SELECT id, name FROM users WHERE id > %s ORDER BY id"
    with data.connect3(autocommit=False) as connection:
        with connection.cursor(name="c") as cursor:
            cursor.execute(sql, (20,))
            assert [column.name for column in cursor.description] == ["id", "name"]
            assert cursor.fetchone() == fetch(oracle, sql, (20,))[0]
            assert cursor.fetchmany(30) + cursor.fetchall() == fetch(oracle, sql, (20,))[1:]
        connection.commit()
        with connection.cursor(name="c") as cursor:
            assert [row[0] for row in cursor.execute("SELECT id FROM users ORDER BY id DESC")] == list(
                range(USERS, 0, -1))


def test_a_lost_server(cluster, data):
    with Raw(data) as raw:
        raw.ask(query("BEGIN"))
        pid = rows(raw.ask(query("/* pgshunt: shard=s1 */ SELECT pg_backend_pid()")))[0][0].decode()
        raw.send(parse("", "SELECT id, pg_sleep(0.2) FROM users"), bind("p", ""), execute("p", 150), SYNC)
        with closing(cluster.shards[1].primary.connect("postgres")) as admin:
            wait_until(lambda: one(admin, "SELECT state = 'active' AND query LIKE %s FROM pg_stat_activity WHERE pid = %s",
                                   ("%pg_sleep(0.2)%", int(pid))), 20, "the part runs")
            fetch(admin, "SELECT pg_terminate_backend(%s)", (int(pid),))
        answer = raw.until_ready()
        assert error_of(answer)["C"] in ("57P01", "08006") and answer[-1] == ("Z", b"E")
        assert error_of(raw.ask(execute("p", 3), SYNC))["C"] == "25P02"
        assert kinds(raw.ask(query("ROLLBACK"))) == "CZ"
        assert rows(raw.ask(query("SELECT count(*) FROM users"))) == [[b"200"]]


def test_cancel_in_a_part(data):
    with closing(data.connect()) as connection:
        connection.autocommit = False
        cursor = connection.cursor()
        cursor.execute("DECLARE c CURSOR FOR SELECT id, pg_sleep(0.2) FROM users")
        timer = threading.Timer(1, connection.cancel)
        timer.start()
        with refused("57014", hint=False):
            cursor.execute("FETCH ALL FROM c")
        timer.join()
        connection.rollback()
        assert one(connection, "SELECT count(*) FROM users") == USERS


def test_a_client_that_leaves_in_a_part(cluster, data):
    raw = Raw(data)
    raw.ask(query("BEGIN"))
    raw.send(parse("", "SELECT id, pg_sleep(0.01) FROM users"), bind("p", ""), execute("p", 150), SYNC)
    raw.close()
    with closing(data.connect()) as connection:
        assert one(connection, "SELECT count(*) FROM users") == USERS
