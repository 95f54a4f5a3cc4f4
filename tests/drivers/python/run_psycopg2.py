"""psycopg2: libpq with the simple protocol; parameters become literals."""
import io
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import psycopg2.errors
import psycopg2.extras

from cases import (CLIENTS, DATABASE, HOST, JSON, PASSWORD, PORT, ROUNDS, SHARDED, TABLE, USER, VALUES, case, main,
                   raises)

psycopg2.extras.register_uuid()


def connect(database=DATABASE, autocommit=True, **more):
    options = {"password": PASSWORD, **more}
    connection = psycopg2.connect(host=HOST, port=PORT, user=USER, dbname=database, connect_timeout=10, **options)
    connection.autocommit = autocommit
    return closing(connection)


def fetch(connection, sql, values=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description else cursor.rowcount


@case
def connect_():  # the case "connect"
    with connect() as c:
        assert fetch(c, "SELECT 1") == [(1,)] and c.server_version >= 130000
    assert "password authentication failed" in str(raises(psycopg2.OperationalError, lambda: connect(password="no")))


@case
def types():
    with connect() as c:
        for name, value in VALUES:
            (found,), = fetch(c, f"SELECT %s::{name}", (value,))
            assert (bytes(found) if name == "bytea" else found) == value, (name, found)
        for name in ("json", "jsonb"):
            assert fetch(c, f"SELECT %s::{name}", (psycopg2.extras.Json(JSON),)) == [(JSON,)]


@case
def prepared():
    """SQL-level PREPARE, EXECUTE and DEALLOCATE are what psycopg2 users have."""
    with connect() as a, connect() as b:
        for c, text in ((a, "a"), (b, "b")):
            fetch(c, f"PREPARE matrix (int) AS SELECT $1 * 2, '{text}'")
        for turn in range(12):
            for c in (a, b):
                fetch(c, "BEGIN")
            for c, text in ((a, "a"), (b, "b")):
                assert fetch(c, "EXECUTE matrix (%s)", (turn,)) == [(turn * 2, text)]
            for c in ((a, b) if turn % 2 else (b, a)):
                fetch(c, "COMMIT")
        for c in (a, b):
            fetch(c, "DEALLOCATE matrix")
        raises(psycopg2.errors.InvalidSqlStatementName, fetch, a, "EXECUTE matrix (1)")


@case
def transactions():
    with connect(autocommit=False) as c:
        fetch(c, f"INSERT INTO {TABLE} VALUES (1, 1, 'kept')")
        c.commit()
        fetch(c, f"UPDATE {TABLE} SET body = 'gone' WHERE id = 1")
        c.rollback()
        fetch(c, "SAVEPOINT s")
        raises(psycopg2.errors.UniqueViolation, fetch, c, f"INSERT INTO {TABLE} VALUES (1, 1, 'twice')")
        raises(psycopg2.errors.InFailedSqlTransaction, fetch, c, "SELECT 1")
        fetch(c, "ROLLBACK TO SAVEPOINT s")
        assert fetch(c, f"SELECT body FROM {TABLE} WHERE id = 1") == [("kept",)]
        fetch(c, f"DELETE FROM {TABLE}")
        c.commit()
        c.set_session(isolation_level="SERIALIZABLE", readonly=True)
        assert fetch(c, "SHOW transaction_isolation") == [("serializable",)]
        raises(psycopg2.errors.ReadOnlySqlTransaction, fetch, c, f"DELETE FROM {TABLE}")
        c.rollback()


@case
def copy():
    with connect() as c, c.cursor() as cursor:
        cursor.copy_expert(f"COPY {TABLE} FROM STDIN", io.StringIO("".join(f"{n}\t1\tline {n}\n" for n in range(3000))))
        assert fetch(c, f"SELECT count(*), min(body), max(id) FROM {TABLE}") == [(3000, "line 0", 2999)]
        out = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT id, body FROM {TABLE} ORDER BY id) TO STDOUT WITH (FORMAT csv)", out)
        assert out.getvalue() == "".join(f"{n},line {n}\n" for n in range(3000))
        raises(psycopg2.errors.InvalidTextRepresentation, cursor.copy_expert, f"COPY {TABLE} FROM STDIN",
               io.StringIO("x\t1\tno\n"))
        assert fetch(c, f"DELETE FROM {TABLE}") == 3000


@case
def cursor():
    with connect(autocommit=False) as c:
        with c.cursor("reader") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT n FROM generate_series(1, 1000) AS n")
            assert [row[0] for row in cursor] == list(range(1, 1001))
        c.commit()
        with c.cursor("held", withhold=True) as cursor:
            cursor.execute("SELECT n FROM generate_series(1, 10) AS n")
            c.commit()
            assert cursor.fetchmany(4) == [(1,), (2,), (3,), (4,)]


@case
def cancel():
    with connect() as c:
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        raises(psycopg2.errors.QueryCanceled, fetch, c, "SELECT pg_sleep(30)")
        timer.join()
        assert fetch(c, "SELECT 1") == [(1,)]


@case
def errors():
    with connect() as c:
        error = raises(psycopg2.errors.UndefinedTable, fetch, c, "SELECT * FROM missing_table")
        assert error.pgcode == "42P01" and error.diag.statement_position == "15"
        raises(psycopg2.errors.DivisionByZero, fetch, c, "SELECT 1 / 0")
        error = raises(psycopg2.errors.CheckViolation, fetch, c, f"INSERT INTO {TABLE} VALUES (1, 1, 'refused')")
        assert error.diag.constraint_name == TABLE + "_body_check" and error.diag.table_name == TABLE
        assert fetch(c, "SELECT 1") == [(1,)]
        fetch(c, "DO $$BEGIN RAISE NOTICE 'noticed'; END$$")
        assert any("noticed" in notice for notice in c.notices)


@case
def listen():
    with connect() as listener, connect() as c:
        fetch(listener, f"LISTEN {TABLE}")
        fetch(c, f"SELECT pg_notify('{TABLE}', 'hello')")
        while not listener.notifies:
            assert select.select([listener], [], [], 20)[0], "no notification"
            listener.poll()
        assert listener.notifies[0].payload == "hello" and listener.notifies[0].channel == TABLE


@case
def many():
    def work(who):
        with connect(autocommit=False) as c:
            for turn in range(ROUNDS):
                fetch(c, f"INSERT INTO {TABLE} VALUES (%s, %s, %s)", (who * 1000 + turn, who, f"{who} {turn}"))
                assert fetch(c, f"SELECT body FROM {TABLE} WHERE id = %s", (who * 1000 + turn,)) == [(f"{who} {turn}",)]
                c.commit()
            assert fetch(c, f"SELECT count(*) FROM {TABLE} WHERE who = %s", (who,)) == [(ROUNDS,)]
            c.commit()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))


@case
def sharded():
    with connect(SHARDED) as c:
        for number in range(1, 21):
            assert fetch(c, "SELECT name FROM users WHERE id = %s", (number,)) == [(f"user {number:04d}",)]
        assert fetch(c, "SELECT id FROM users ORDER BY id DESC LIMIT 3") == [(200,), (199,), (198,)]
        assert fetch(c, "INSERT INTO users (id, name) VALUES (501, 'a'), (502, 'b'), (503, 'c')") == 3
        assert fetch(c, "DELETE FROM users WHERE id > 500") == 3
        assert fetch(c, "SELECT count(*) FROM users") == [(200,)]


main()
