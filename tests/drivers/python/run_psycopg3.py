"""psycopg 3, blocking: the extended protocol, prepared statements from the fifth execution on, pipelines."""
import datetime
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg import errors as pg
from psycopg.types.json import Json, Jsonb

from cases import (CLIENTS, DATABASE, HOST, JSON, PASSWORD, PORT, ROUNDS, SHARDED, TABLE, USER, VALUES, case, main,
                   raises)


def connect(database=DATABASE, autocommit=True, **more):
    options = {"password": PASSWORD, **more}
    return psycopg.connect(host=HOST, port=PORT, user=USER, dbname=database, connect_timeout=10,
                           autocommit=autocommit, **options)


@case
def connect_():
    with connect() as c:
        assert c.execute("SELECT 1").fetchone() == (1,)
    assert "password authentication failed" in str(raises(psycopg.OperationalError, lambda: connect(password="no")))
    with connect(options="-c statement_timeout=4321 -c search_path=pg_catalog", application_name="matrix") as c:
        assert c.execute("SELECT current_setting('statement_timeout'), current_setting('search_path'), "
                         "current_setting('application_name')").fetchone() == ("4321ms", "pg_catalog", "matrix")


@case
def types():
    with connect() as c:
        for binary in (False, True):
            mark = "%b" if binary else "%t"
            for name, value in VALUES + [("date", datetime.date(2026, 2, 3)), ("float8", 0.1)]:
                found = c.cursor(binary=binary).execute(f"SELECT {mark}::{name}", (value,)).fetchone()
                assert found == (value,), (name, found)
            for name, wrap in (("json", Json), ("jsonb", Jsonb)):
                assert c.cursor(binary=binary).execute(f"SELECT {mark}::{name}", (wrap(JSON),)).fetchone() == (JSON,)


@case
def prepared():
    """The same text with other types behind it is another statement; both clients swap servers all the time."""
    with connect(prepare_threshold=2) as a, connect(prepare_threshold=2) as b:
        for turn in range(12):
            for c in (a, b):
                c.execute("BEGIN")
            for c, text in ((a, "a"), (b, "b")):
                assert c.execute("SELECT %s::int8 * 2, %s::text", (turn, text)).fetchone() == (turn * 2, text)
                assert c.execute(f"SELECT '{text}', %s::int8", (turn,)).fetchone() == (text, turn)
            for c in ((a, b) if turn % 2 else (b, a)):
                c.execute("COMMIT")
        assert a._prepared._names, "psycopg did not prepare"
    with connect() as c:
        c.execute("SELECT %s::int8", (1,), prepare=True)
        c.execute("DEALLOCATE ALL")
        raises(pg.InvalidSqlStatementName, c.execute, "SELECT %s::int8", (1,))  # as psycopg 3.1 fails with Postgres


@case
def transactions():
    with connect(autocommit=False) as c:
        c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, 'kept')")
        c.commit()
        c.execute(f"UPDATE {TABLE} SET body = 'gone' WHERE id = 1")
        c.rollback()
        with c.transaction():
            raises(pg.UniqueViolation, nested, c)
            assert c.execute(f"SELECT body FROM {TABLE} WHERE id = 1").fetchone() == ("kept",)
        raises(pg.DivisionByZero, c.execute, "SELECT 1 / 0")
        raises(pg.InFailedSqlTransaction, c.execute, "SELECT 1")
        c.rollback()
        c.execute(f"DELETE FROM {TABLE}")
        c.commit()
        c.isolation_level, c.read_only = psycopg.IsolationLevel.SERIALIZABLE, True
        assert c.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
        raises(pg.ReadOnlySqlTransaction, c.execute, f"DELETE FROM {TABLE}")


def nested(c):
    with c.transaction():
        c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, 'twice')")


@case
def batch():
    with connect() as c:
        with c.pipeline():
            found = [c.execute("SELECT %s::int8", (number,)) for number in range(200)]
        assert [one.fetchone() for one in found] == [(number,) for number in range(200)]
        with raises_in_pipeline(c):
            c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, 'gone')")
            c.execute("SELECT 1 / %s", (0,))
            c.execute("SELECT 2")
        assert c.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (0,)
        with c.pipeline() as pipeline:
            c.execute(f"INSERT INTO {TABLE} VALUES (%s, 1, 'kept')", (1,))
            pipeline.sync()
            with c.transaction():
                c.execute(f"INSERT INTO {TABLE} VALUES (%s, 1, 'kept')", (2,))
        cursor = c.cursor()
        cursor.executemany(f"INSERT INTO {TABLE} VALUES (%s, 2, %s)", [(n, str(n)) for n in range(100, 400)])
        assert cursor.rowcount == 300
        assert c.execute(f"DELETE FROM {TABLE}").rowcount == 302


class raises_in_pipeline:
    """A pipeline that must end with a division by zero."""

    def __init__(self, connection):
        self.pipeline = connection.pipeline()

    def __enter__(self):
        return self.pipeline.__enter__()

    def __exit__(self, *error):
        raises(pg.DivisionByZero, self.pipeline.__exit__, *error)
        return True


@case
def copy():
    with connect() as c:
        with c.cursor().copy(f"COPY {TABLE} FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "int4", "text"])
            for n in range(3000):
                copy.write_row((n, 1, f"line {n}"))
        with c.cursor().copy(f"COPY (SELECT id, body FROM {TABLE} ORDER BY id) TO STDOUT") as copy:
            copy.set_types(["int8", "text"])
            assert list(copy.rows()) == [(n, f"line {n}") for n in range(3000)]
        assert c.execute(f"DELETE FROM {TABLE}").rowcount == 3000
        raises(pg.QueryCanceled, broken_copy, c)
        assert c.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (0,)


def broken_copy(c):
    with c.cursor().copy(f"COPY {TABLE} FROM STDIN") as copy:
        copy.write_row((1, 1, "never"))
        raise ZeroDivisionError


@case
def cursor():
    with connect(autocommit=False) as c:
        with c.cursor("reader") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT n FROM generate_series(1, %s) AS n", (1000,))
            assert [row[0] for row in cursor] == list(range(1, 1001))
    with connect() as c:
        assert [row[0] for row in c.cursor().stream("SELECT n FROM generate_series(1, 1000) AS n")] == \
            list(range(1, 1001))


@case
def cancel():
    with connect() as c:
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        raises(pg.QueryCanceled, c.execute, "SELECT pg_sleep(30)")
        timer.join()
        assert c.execute("SELECT 1").fetchone() == (1,)


@case
def errors():
    with connect() as c:
        error = raises(pg.UndefinedTable, c.execute, "SELECT * FROM missing_table WHERE 1 = %s", (1,))
        assert error.sqlstate == "42P01" and error.diag.statement_position == "15"
        raises(pg.DivisionByZero, c.execute, "SELECT 1 / %s", (0,))
        raises(pg.InvalidTextRepresentation, c.execute, "SELECT %s::int", ("x",))
        error = raises(pg.CheckViolation, c.execute, f"INSERT INTO {TABLE} VALUES (1, 1, %s)", ("refused",))
        assert error.diag.constraint_name == TABLE + "_body_check"
        notices = []
        c.add_notice_handler(lambda diag: notices.append(diag.message_primary))
        c.execute("DO $$BEGIN RAISE NOTICE 'noticed'; END$$")
        assert notices == ["noticed"]


@case
def listen():
    with connect() as listener, connect() as c:
        listener.execute(f"LISTEN {TABLE}")
        c.execute("SELECT pg_notify(%s, 'hello')", (TABLE,))
        found = next(listener.notifies())
        assert (found.channel, found.payload) == (TABLE, "hello")


@case
def many():
    def work(who):
        with connect(autocommit=False, prepare_threshold=3) as c:
            for turn in range(ROUNDS):
                key, body = who * 1000 + turn, f"{who} {turn}"
                c.execute(f"INSERT INTO {TABLE} VALUES (%s, %s, %s)", (key, who, body))
                assert c.execute(f"SELECT body FROM {TABLE} WHERE id = %s", (key,)).fetchone() == (body,)
                c.commit()
            assert c.execute(f"SELECT count(*) FROM {TABLE} WHERE who = %s", (who,)).fetchone() == (ROUNDS,)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))


@case
def sharded():
    with connect(SHARDED, prepare_threshold=3) as c:
        for number in range(1, 21):
            assert c.execute("SELECT name FROM users WHERE id = %s", (number,)).fetchone() == (f"user {number:04d}",)
            assert c.execute("SELECT id FROM users ORDER BY id DESC LIMIT %s", (2,)).fetchall() == [(200,), (199,)]
        with c.pipeline():
            for number in range(501, 521):
                c.execute("INSERT INTO users (id, name) VALUES (%s, 'piped')", (number,))
                if number % 5 == 0:
                    c.commit()
        assert c.execute("DELETE FROM users WHERE id > %s", (500,)).rowcount == 20


main()
