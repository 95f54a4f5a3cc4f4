"""What several shards still do is cancelled when one has failed or enough rows have come: it hits nothing that follows."""
from contextlib import closing

import psycopg2
import pytest

pytestmark = pytest.mark.core

ROUNDS = 60


@pytest.fixture
def block(data):
    with closing(data.connect()) as connection:
        connection.autocommit = False
        yield connection.cursor()
        connection.rollback()


def fails_and_goes_on(cursor, error, *statements):
    """The last of the statements fails on one shard while the others are at work; then all shards are asked."""
    for _ in range(ROUNDS):
        cursor.execute("SAVEPOINT here")
        with pytest.raises(error):
            for sql in statements:
                cursor.execute(sql)
        cursor.execute("ROLLBACK TO here")
        cursor.execute("SELECT count(*) FROM users")
        assert cursor.fetchone()[0] == 200


def test_of_a_failed_change(block):
    rows = ", ".join(f"({i}, 'dup')" for i in range(190, 230))
    fails_and_goes_on(block, psycopg2.errors.UniqueViolation, f"INSERT INTO users (id, name) VALUES {rows}")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_of_a_failed_gather(block, number):
    """One shard's rows, or those of the home, cannot be computed."""
    fails_and_goes_on(block, psycopg2.errors.DivisionByZero,
                      f"SELECT string_agg(name, ',') FROM users WHERE 1 / (id - {number}) < 5")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_of_a_failed_cursor(block, number):
    fails_and_goes_on(block, psycopg2.errors.DivisionByZero,
                      f"DECLARE c CURSOR FOR SELECT id, repeat('x', 1000) FROM users WHERE 1 / (id - {number}) < 5 ORDER BY id",
                      "FETCH ALL FROM c")


def test_rows_that_a_limit_leaves(block):
    """The transaction goes on."""
    for _ in range(ROUNDS):
        block.execute("SELECT id FROM users LIMIT 1")
        assert len(block.fetchall()) == 1
        block.execute("SELECT count(*) FROM users")
        assert block.fetchone()[0] == 200


@pytest.mark.parametrize("slow", [1, 2, 3, 4])
def test_a_shard_that_is_late_for_a_limit(block, slow):
    block.execute(f"SELECT id FROM users WHERE id <> {slow} OR pg_sleep(0.3) IS NULL LIMIT 3")
    assert len(block.fetchall()) == 3
    block.execute("UPDATE users SET balance = balance RETURNING id")
    assert len(block.fetchall()) == 200
