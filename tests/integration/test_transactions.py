"""Transactions: deferred BEGIN, rollback, failure, savepoints; the server is theirs until the end."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import SYNC, Raw, bind, describe, execute, fetch, kinds, one, parse, query

pytestmark = pytest.mark.core


@pytest.fixture
def client(data):
    with closing(data.connect()) as connection:
        yield connection
        connection.cursor().execute("ROLLBACK")


def test_begin_takes_no_server(cluster):
    """BEGIN is answered at once: an idle transaction that has said nothing holds no connection."""
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        with Raw(proxy) as idle:
            assert idle.ask(query("BEGIN"))[-1] == ("Z", b"T")
            assert proxy.value("SELECT 1") == 1
            assert idle.ask(query("COMMIT"))[-1] == ("Z", b"I")


def test_first_statement_decides_the_shard(cluster, client):
    cursor = client.cursor()
    for number in (1, 2, 3, 4):
        cursor.execute("BEGIN")
        cursor.execute("SELECT inet_server_port(), txid_current_if_assigned() FROM users WHERE id = %s", (number,))
        port = cursor.fetchone()[0]
        cursor.execute("UPDATE users SET balance = balance WHERE id = %s RETURNING inet_server_port()", (number,))
        written = cursor.fetchone()[0]
        assert cluster.node_at(port).shard == cluster.node_at(written).shard
        assert cluster.node_at(written) in cluster.primaries
        cursor.execute("COMMIT")


def test_rollback_undoes(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE users SET name = 'gone' WHERE id = 9")
    cursor.execute("ROLLBACK")
    assert one(client, "SELECT name FROM users WHERE id = 9") == "user 0009"


def test_commit_keeps(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE users SET country = 'zz' WHERE id = 9")
    cursor.execute("COMMIT")
    assert one(client, "SELECT country FROM users WHERE id = 9") == "zz"
    cursor.execute("UPDATE users SET country = 'de' WHERE id = 9")


def test_failed_transaction(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE users SET name = 'gone' WHERE id = 9")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        cursor.execute("SELECT 1/0 FROM users WHERE id = 9")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cursor.execute("SELECT 1")
    cursor.execute("COMMIT")
    assert cursor.statusmessage == "ROLLBACK"
    assert one(client, "SELECT name FROM users WHERE id = 9") == "user 0009"


def test_failure_of_the_first_statement(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    with pytest.raises(psycopg2.errors.UndefinedTable):
        cursor.execute("SELECT * FROM no_such_table")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cursor.execute("SELECT 1")
    cursor.execute("ROLLBACK")
    assert one(client, "SELECT 1") == 1


def test_savepoints(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE users SET balance = 1 WHERE id = 11")
    cursor.execute("SAVEPOINT one")
    cursor.execute("UPDATE users SET balance = 2 WHERE id = 11")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        cursor.execute("SELECT 1/0 FROM users WHERE id = 11")
    cursor.execute("ROLLBACK TO one")
    assert one(client, "SELECT balance FROM users WHERE id = 11") == 1
    cursor.execute("RELEASE one")
    cursor.execute("ROLLBACK")
    assert one(client, "SELECT balance FROM users WHERE id = 11") != 1


def test_savepoint_before_the_first_statement(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("SAVEPOINT early")
    cursor.execute("UPDATE users SET balance = 3 WHERE id = 11")
    cursor.execute("ROLLBACK TO SAVEPOINT early")
    cursor.execute("COMMIT")
    assert one(client, "SELECT balance FROM users WHERE id = 11") != 3


def test_isolation_level_of_begin_is_kept(client):
    cursor = client.cursor()
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("SELECT current_setting('transaction_isolation') FROM users WHERE id = 1")
    assert cursor.fetchone()[0] == "repeatable read"
    cursor.execute("COMMIT")
    cursor.execute("BEGIN")
    cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    cursor.execute("SELECT current_setting('transaction_isolation') FROM users WHERE id = 1")
    assert cursor.fetchone()[0] == "serializable"
    cursor.execute("COMMIT")


def test_begin_within_and_commit_without_warn(client):
    cursor = client.cursor()
    cursor.execute("COMMIT")
    cursor.execute("BEGIN")
    cursor.execute("BEGIN")
    cursor.execute("ROLLBACK")
    assert sum("WARNING" in notice for notice in client.notices) >= 2


def test_writing_a_second_shard_is_refused_or_atomic(cluster, client, data):
    """Never half: either both changes are there after COMMIT, or the second was refused with a hint."""
    homes = {number: next(i for i, node in enumerate(cluster.primaries)
                          if node.value("SELECT count(*) FROM users WHERE id = %s", (number,)))
             for number in range(1, 30)}
    first = next(number for number in homes if homes[number] == 0)
    second = next(number for number in homes if homes[number] == 1)
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("UPDATE users SET country = 'two' WHERE id = %s", (first,))
    try:
        cursor.execute("UPDATE users SET country = 'two' WHERE id = %s", (second,))
    except psycopg2.Error as error:
        assert error.pgcode == "0A000" and error.diag.message_hint
        cursor.execute("ROLLBACK")
        expected = 0
    else:
        cursor.execute("COMMIT")
        expected = 2
    assert one(client, "SELECT count(*) FROM users WHERE country = 'two'") == expected
    cursor.execute("UPDATE users SET country = 'at' WHERE country = 'two'")


def test_client_that_vanishes_in_a_transaction_rolls_back(cluster, data):
    with Raw(data) as raw:
        raw.ask(query("BEGIN"))
        raw.ask(query("UPDATE users SET name = 'vanished' WHERE id = 20"))
    assert data.value("SELECT name FROM users WHERE id = 20") == "user 0020"
    wait_until(lambda: sum(node.value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in trans%%'")
                           for node in cluster.primaries) == 0, 10.0, "no transaction left open")


def test_transactions_of_many_clients_keep_apart(cluster):
    """More clients than server connections; each reads back only what it wrote."""
    from concurrent.futures import ThreadPoolExecutor
    with Proxy(cluster, options={"pool": {"size": 3}}) as proxy:
        proxy.sql("CREATE TABLE apart (client int, turn int)")

        def work(number):
            with closing(proxy.connect(autocommit=False)) as connection:
                for turn in range(10):
                    cursor = connection.cursor()
                    cursor.execute("INSERT INTO apart VALUES (%s, %s)", (number, turn))
                    cursor.execute("SELECT count(*) FROM apart WHERE client = %s", (number,))
                    assert cursor.fetchone()[0] == turn + 1
                    connection.commit()
            return True

        with ThreadPoolExecutor(12) as threads:
            assert all(threads.map(work, range(12)))
        assert cluster.shards[0].primary.value("SELECT count(*) FROM apart") == 120
        proxy.sql("DROP TABLE apart")


def test_cursors_in_a_transaction(client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("DECLARE c CURSOR FOR SELECT id FROM orders WHERE user_id = 5 ORDER BY id")
    cursor.execute("FETCH 3 FROM c")
    assert len(cursor.fetchall()) == 3
    cursor.execute("CLOSE c")
    cursor.execute("COMMIT")


def test_vacuum_outside_and_refused_inside(data, client):
    cursor = client.cursor()
    cursor.execute("VACUUM notes")
    cursor.execute("BEGIN")
    with pytest.raises(psycopg2.Error) as caught:
        cursor.execute("VACUUM notes")
    assert caught.value.pgcode in ("25001", "0A000")


def test_several_statements_as_one_transaction(data):
    """A simple query of several statements is one transaction: an error undoes all of it."""
    with pytest.raises(psycopg2.Error):
        data.sql("INSERT INTO notes VALUES (700, 'a'); INSERT INTO notes VALUES (701, 'b'); SELECT 1/0")
    assert data.value("SELECT count(*) FROM notes WHERE id IN (700, 701)") == 0
    data.sql("BEGIN; INSERT INTO notes VALUES (702, 'c'); ROLLBACK")
    assert fetch(data.connect(), "SELECT count(*) FROM notes WHERE id = 702") == [(0,)]


def test_set_local_reaches_servers_that_join_later(data, client):
    cursor = client.cursor()
    cursor.execute("BEGIN")
    cursor.execute("SELECT name FROM users WHERE id = 1")
    cursor.execute("SET LOCAL work_mem = '3MB'")
    cursor.execute("SAVEPOINT s")
    cursor.execute("SET LOCAL work_mem = '5MB'")
    cursor.execute("ROLLBACK TO s")
    cursor.execute("SELECT id, current_setting('work_mem') FROM users WHERE id <= 20 ORDER BY id")
    assert {value for _, value in cursor.fetchall()} == {"3MB"}
    cursor.execute("COMMIT")
    cursor.execute("SELECT id, current_setting('work_mem') FROM users WHERE id <= 20 ORDER BY id")
    assert {value for _, value in cursor.fetchall()} == {"4MB"}


@pytest.mark.parametrize("said, setting, value", [
    ("ISOLATION LEVEL REPEATABLE READ", "transaction_isolation", "repeatable read"),
    ("ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", "transaction_deferrable", "on"),
    ("READ ONLY", "transaction_read_only", "on")])
def test_set_transaction_behind_set_local_counts_everywhere(data, client, said, setting, value):
    """SET LOCAL is on a server: what SET TRANSACTION says behind it holds for those that join, too."""
    cursor = client.cursor()
    for user in (1, 2, 3, 4, 5):
        for statement in ("BEGIN", "SET LOCAL work_mem = '3MB'", f"SET TRANSACTION {said}"):
            cursor.execute(statement)
        cursor.execute(f"SELECT current_setting('{setting}'), current_setting('work_mem') FROM users WHERE id = {user}")
        assert cursor.fetchone() == (value, "3MB")
        cursor.execute(f"SELECT DISTINCT current_setting('{setting}') FROM users WHERE id <= 20")
        assert cursor.fetchall() == [(value,)]
        cursor.execute("COMMIT")
    cursor.execute(f"UPDATE users SET name = name WHERE id <= 20 RETURNING current_setting('{setting}')")
    assert {found for found, in cursor.fetchall()} == {"read committed" if "isolation" in setting else "off"}


def test_read_only_of_a_savepoint_is_undone_with_it(client):
    cursor = client.cursor()
    for statement in ("BEGIN", "SET LOCAL work_mem = '3MB'", "SAVEPOINT s", "SET TRANSACTION READ ONLY", "ROLLBACK TO s",
                      "UPDATE users SET name = name"):
        cursor.execute(statement)
    cursor.execute("ROLLBACK")


def test_rollback_by_messages_of_a_transaction_that_failed_before_any_server(data):
    """Bind only looks at the ROLLBACK; its Execute carries it out, once."""
    with Raw(data, user="app", database="app") as raw:
        raw.send(query("BEGIN"), query("SELECT * FROM users LIMIT 5 FOR UPDATE SKIP LOCKED"))
        raw.until_ready()
        assert "E" in kinds(raw.until_ready())
        raw.send(parse("", "ROLLBACK"), bind("", ""), describe("P", ""), execute(), SYNC)
        messages = raw.until_ready()
        assert kinds(messages) == "12nCZ"
        assert messages[-2][1] == b"ROLLBACK\0" and messages[-1][1] == b"I"
