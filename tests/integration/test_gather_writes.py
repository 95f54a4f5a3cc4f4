"""Changes of an unsharded table made of what several shards have: the rows come to the first shard, which carries it out."""
from contextlib import closing

import psycopg2
import pytest

from harness.sample import SCHEMA, load, statements
from support import SYNC, Raw, bind, describe, execute, explain, fetch, kinds, parse, query

pytestmark = pytest.mark.core

CHANGES = [
    "INSERT INTO notes SELECT id, name FROM users WHERE id > 100",
    "INSERT INTO notes SELECT id, name FROM users WHERE id = 101",
    "INSERT INTO notes (body, id) SELECT name, id FROM users ON CONFLICT (id) DO UPDATE SET body = excluded.body || '!'",
    "INSERT INTO notes SELECT id, name FROM users ORDER BY id DESC LIMIT 20 ON CONFLICT DO NOTHING RETURNING id, body",
    "INSERT INTO notes SELECT u.id + 1000, string_agg(o.item, ',' ORDER BY o.id) FROM users u JOIN orders o "
    "ON o.user_id = u.id GROUP BY u.id",
    "INSERT INTO notes WITH rich AS (SELECT id FROM users WHERE balance > 900) SELECT id + 2000, 'rich' FROM rich",
    "INSERT INTO notes SELECT user_id + 3000, max(item) FROM public.orders GROUP BY user_id HAVING count(*) > 1",
    "INSERT INTO notes VALUES (7001, (SELECT min(name) FROM users)), (7002, (SELECT count(*) FROM orders)::text)",
    "UPDATE notes SET body = (SELECT count(*) FROM users)::text WHERE id = 1",
    "UPDATE notes SET body = u.name FROM users u WHERE u.id = notes.id + 150",
    "UPDATE notes SET body = u.name FROM users u WHERE u.id = notes.id + 1 AND "
    "u.id <> (SELECT max(id) FROM users WHERE id < 3)",
    "UPDATE notes n SET body = (SELECT name FROM users WHERE id = n.id + 100) RETURNING n.*",
    "DELETE FROM notes WHERE id IN (SELECT user_id FROM orders WHERE item = 'ink')",
    "DELETE FROM notes USING users u WHERE u.id = notes.id AND u.country = 'at'",
    "DELETE FROM notes WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.id = notes.id AND o.item = 'pen') RETURNING id",
]


@pytest.fixture(scope="module")
def one(cluster, data):
    """A connection to one Postgres with the same data."""
    node = cluster.shards[0].primary
    node.sql("CREATE DATABASE one_gather_writes")
    with closing(node.connect("one_gather_writes")) as connection:
        for statement in statements(SCHEMA):
            connection.cursor().execute(statement)
        load(connection)
        yield connection
    node.sql("DROP DATABASE one_gather_writes WITH (FORCE)")


@pytest.fixture
def app(data):
    with closing(data.connect()) as connection:
        yield connection


def outcome(connection, sql):
    """Status, rows of RETURNING, and what the table is then; all of it undone."""
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    cursor.execute(sql)
    found = cursor.statusmessage, sorted(cursor.fetchall()) if cursor.description else None
    cursor.execute("SELECT * FROM notes ORDER BY id")
    rows = cursor.fetchall()
    cursor.execute("ROLLBACK")
    return found, rows


@pytest.mark.parametrize("sql", CHANGES)
def test_as_one_postgres(app, one, sql):
    before = fetch(app, "SELECT * FROM notes ORDER BY id")
    assert outcome(app, sql) == outcome(one, sql)
    assert fetch(app, "SELECT * FROM notes ORDER BY id") == before


def test_outside_of_a_block(cluster, app):
    """It is committed, read at once, and on the first shard alone."""
    cursor = app.cursor()
    cursor.execute("INSERT INTO notes SELECT id + 10000, name FROM users")
    assert cursor.statusmessage == "INSERT 0 200"
    assert fetch(app, "SELECT count(*) FROM notes WHERE id > 10000") == [(200,)]
    assert cluster.primaries[1].value("SELECT count(*) FROM notes") == 0
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.execute("INSERT INTO notes SELECT 20000, name FROM users")
    cursor.execute("DELETE FROM notes WHERE id - 10000 IN (SELECT id FROM users)")
    assert cursor.statusmessage == "DELETE 200"


def test_with_parameters(data):
    with data.connect3(prepare_threshold=1) as connection:
        for most in (3, 5):
            done = connection.execute("INSERT INTO notes SELECT id + 20000, %s FROM users WHERE id <= %s", ("x", most))
            assert done.statusmessage == f"INSERT 0 {most}"
            assert connection.execute("DELETE FROM notes WHERE id > 20000 AND body = %s", ("x",)).rowcount == most
        connection.rollback()
    with Raw(data, database="app") as raw:
        answer = raw.ask(parse("", "INSERT INTO notes SELECT id + 30000, name FROM users WHERE id < 4"), bind("", ""),
                         describe("P", ""), execute("", 1), SYNC)
        assert kinds(answer) == "12nCZ" and ("C", b"INSERT 0 3\0") in answer
        assert kinds(raw.ask(query("DELETE FROM notes WHERE id > 30000"))) == "CZ"


def test_explained(app):
    plan = explain(app, "INSERT INTO notes SELECT id, name FROM users")
    assert "gather on s0" in plan and "insert on notes" in plan


@pytest.mark.parametrize("sql", [
    "WITH gone AS (DELETE FROM users RETURNING id, name) INSERT INTO notes SELECT * FROM gone",
])
def test_refused(app, sql):
    with pytest.raises(psycopg2.errors.FeatureNotSupported):
        app.cursor().execute(sql)
    assert fetch(app, "SELECT count(*) FROM users") == [(200,)]
