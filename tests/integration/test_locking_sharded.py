"""SELECT ... FOR UPDATE and its kin over several shards: rows stay locked, everywhere, until the transaction ends."""
from contextlib import closing

import psycopg2
import psycopg2.errors
import pytest

from support import fetch, one, refused

pytestmark = pytest.mark.core


@pytest.fixture
def holder(data):
    with closing(data.connect()) as connection:
        connection.autocommit = False
        yield connection
        connection.rollback()


@pytest.fixture
def other(data):
    with closing(data.connect()) as connection:
        yield connection


def ids(rows):
    return [row[0] for row in rows]


def test_rows_are_locked_on_every_shard(holder, other):
    """Those that were given, and no others."""
    assert ids(fetch(holder, "SELECT id FROM users WHERE id <= 10 ORDER BY id FOR UPDATE")) == list(range(1, 11))
    assert ids(fetch(other, "SELECT id FROM users WHERE id <= 15 ORDER BY id FOR UPDATE SKIP LOCKED")) == list(range(11, 16))
    for number in range(1, 11):
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            other.cursor().execute("SELECT id FROM users WHERE id = %s FOR UPDATE NOWAIT", (number,))
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        other.cursor().execute("SELECT id FROM users FOR SHARE NOWAIT")
    holder.commit()
    assert len(fetch(other, "SELECT id FROM users FOR UPDATE NOWAIT")) == 200


def test_kinds_of_locks(holder, other):
    fetch(holder, "SELECT id FROM users WHERE id < 20 FOR SHARE")
    assert len(fetch(other, "SELECT id FROM users WHERE id < 20 FOR KEY SHARE NOWAIT")) == 19
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        other.cursor().execute("SELECT id FROM users WHERE id < 20 FOR NO KEY UPDATE NOWAIT")


def test_only_the_table_that_is_named(holder, other):
    fetch(holder, "SELECT u.id FROM users u JOIN orders o ON o.user_id = u.id FOR UPDATE OF o")
    assert len(fetch(other, "SELECT id FROM users FOR UPDATE NOWAIT")) == 200
    assert fetch(other, "SELECT id FROM orders FOR UPDATE SKIP LOCKED") == []


def test_a_savepoint_gives_its_locks_back(holder, other):
    holder.cursor().execute("SAVEPOINT a")
    fetch(holder, "SELECT id FROM users FOR UPDATE")
    holder.cursor().execute("ROLLBACK TO a")
    assert len(fetch(other, "SELECT id FROM users FOR UPDATE NOWAIT")) == 200


def test_what_was_locked_can_be_changed_and_committed(holder, other):
    rows = fetch(holder, "SELECT id, balance FROM users WHERE id BETWEEN 30 AND 40 ORDER BY id FOR UPDATE")
    holder.cursor().execute("UPDATE users SET balance = balance + 1 WHERE id BETWEEN 30 AND 40")
    holder.commit()
    assert fetch(holder, "SELECT id, balance - 1 FROM users WHERE id BETWEEN 30 AND 40 ORDER BY id") == rows
    holder.cursor().execute("UPDATE users SET balance = balance - 1 WHERE id BETWEEN 30 AND 40")
    holder.commit()


def test_more_rows_than_are_given_are_never_locked(holder, other):
    for sql in ("SELECT id FROM users ORDER BY id LIMIT 3 FOR UPDATE", "SELECT id FROM users OFFSET 198 FOR SHARE",
                "DECLARE c CURSOR FOR SELECT id FROM users FOR UPDATE"):
        with refused("0A000", "FOR UPDATE or FOR SHARE"):
            holder.cursor().execute(sql)
        holder.rollback()
    assert one(other, "SELECT count(*) FROM (SELECT id FROM users WHERE id = 5 LIMIT 1 FOR UPDATE NOWAIT) x") == 1


def test_read_only(holder):
    holder.cursor().execute("SET TRANSACTION READ ONLY")
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        holder.cursor().execute("SELECT id FROM users FOR UPDATE")
