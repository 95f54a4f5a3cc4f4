"""psycopg 3 (with its own prepared statements) and psycopg2 against the proxy, as applications use them."""
import datetime
import decimal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import psycopg2
import psycopg2.extras
import pytest
from psycopg.rows import dict_row

pytestmark = pytest.mark.core


@pytest.fixture
def client(data):
    with data.connect3() as connection:
        yield connection


def test_types_both_ways(client):
    """Text and binary, parameters and results."""
    values = (7, 2 ** 40, "text 'quoted' é", b"\0\xff", True, decimal.Decimal("12.50"), datetime.date(2026, 2, 3),
              datetime.timedelta(hours=5), [1, 2, 3], None, 1.5)
    types = "int8 int8 text bytea bool numeric date interval int8[] text float8".split()
    for binary in (False, True):
        mark = "%b" if binary else "%t"
        sql = "SELECT " + ", ".join(f"{mark}::{name}" for name in types)
        assert client.cursor(binary=binary).execute(sql, values).fetchone() == values


def test_dict_rows(client):
    cursor = client.cursor(row_factory=dict_row)
    assert cursor.execute("SELECT id, name FROM users WHERE id = %s", (5,)).fetchone() == {"id": 5, "name": "user 0005"}


def test_automatic_prepare(client):
    """After five executions psycopg prepares by itself."""
    for turn in range(20):
        assert client.execute("SELECT id FROM users WHERE id = %s", (turn + 1,)).fetchone() == (turn + 1,)
    assert client.execute("SELECT 'alive'").fetchone() == ("alive",)


def test_executemany(client):
    with client.cursor() as cursor:
        cursor.executemany("INSERT INTO users (id, name) VALUES (%s, %s)", [(7000 + i, f"many {i}") for i in range(25)])
    assert client.execute("SELECT count(*) FROM users WHERE id >= 7000").fetchone() == (25,)
    assert client.execute("DELETE FROM users WHERE id >= 7000").rowcount == 25


def test_transaction_blocks(client):
    with pytest.raises(ZeroDivisionError), client.transaction():
        client.execute("UPDATE users SET name = 'gone' WHERE id = 5")
        raise ZeroDivisionError
    assert client.execute("SELECT name FROM users WHERE id = 5").fetchone() == ("user 0005",)
    with client.transaction():
        client.execute("UPDATE users SET balance = 1 WHERE id = 5")
        with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():
            client.execute("SELECT 1/0 FROM users WHERE id = 5")
        client.execute("UPDATE users SET balance = balance + 1 WHERE id = 5")
    assert client.execute("SELECT balance FROM users WHERE id = 5").fetchone() == (2,)


def test_error_fields(client):
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        client.execute("INSERT INTO users (id, name) VALUES (5, 'again')")
    assert caught.value.diag.constraint_name == "users_pkey"


def test_server_side_cursor(data):
    with data.connect3(autocommit=False) as connection:
        with connection.cursor("reader") as cursor:
            cursor.execute("SELECT id FROM orders WHERE user_id = 5 ORDER BY id")
            assert len(cursor.fetchmany(2)) == 2 and len(cursor.fetchall()) == 3


def test_pipeline(client):
    with client.pipeline():
        cursors = [client.execute("SELECT %s::int8", (number,)) for number in range(50)]
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))


def test_cancel(data):
    import threading
    import time
    with data.connect3() as connection:
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(20)")
        timer.join()
        assert time.monotonic() - began < 5


def test_psycopg2_execute_values(data):
    with closing(data.connect()) as connection:
        cursor = connection.cursor()
        psycopg2.extras.execute_values(cursor, "INSERT INTO users (id, name) VALUES %s",
                                       [(9000 + i, "it's") for i in range(300)], page_size=300)
        cursor.execute("SELECT count(*) FROM users WHERE name = %s", ("it's",))
        assert cursor.fetchone() == (300,)
        cursor.execute("DELETE FROM users WHERE id >= 9000")
        assert cursor.rowcount == 300


def test_many_threads(data):
    def work(number):
        with data.connect3() as connection:
            for turn in range(20):
                wanted = (number * 20 + turn) % 200 + 1
                row = connection.execute("SELECT id, name FROM users WHERE id = %s", (wanted,)).fetchone()
                assert row == (wanted, f"user {wanted:04d}")
        return number

    with ThreadPoolExecutor(10) as threads:
        assert sorted(threads.map(work, range(10))) == list(range(10))
