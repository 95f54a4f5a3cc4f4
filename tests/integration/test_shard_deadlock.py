"""Transactions that wait for each other on several shards: the youngest is ended, the others go on."""
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until

ACCOUNTS = {"name": "bank", "type": "bigint", "tables": [{"name": "account", "key": "id"}]}
SHARDS = 3


@pytest.fixture(scope="module")
def bank():
    with Cluster(shards=SHARDS, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(bank):
    with Proxy(bank, keyspaces=[ACCOUNTS], options={"routing": {"shard_deadlock_timeout": "300ms"}}) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE account (id bigint PRIMARY KEY, balance int)")
        proxy.sql("INSERT INTO account VALUES " + ", ".join(f"({i}, 0)" for i in range(1, 40)))
        yield proxy


@pytest.fixture
def ids(bank):
    """An account of each shard."""
    return [node.value("SELECT min(id) FROM account") for node in bank.primaries]


class Session(threading.Thread):
    """Runs the next statement of an open transaction, as long as it may take."""

    def __init__(self, connection, sql):
        super().__init__(daemon=True)
        self.connection, self.sql, self.error = connection, sql, None
        self.start()

    def run(self):
        try:
            self.connection.cursor().execute(self.sql)
        except psycopg2.Error as error:
            self.error = error


def update(number):
    return f"UPDATE account SET balance = balance + 1 WHERE id = {number}"


def begin(proxy, number):
    connection = proxy.connect(autocommit=False)
    connection.cursor().execute(update(number))
    return connection


def test_two_transactions_over_two_shards(proxy, ids):
    a, b, _ = ids
    with closing(begin(proxy, a)) as older, closing(begin(proxy, b)) as younger:
        waits = [Session(older, update(b))]
        time.sleep(0.1)
        waits.append(Session(younger, update(a)))
        waits[1].join(30)
        error = waits[1].error
        assert error.pgcode == "40P01" and "deadlock detected" in str(error)
        assert "waits on another shard" in error.diag.message_detail and error.diag.message_hint
        younger.rollback()
        waits[0].join(30)
        assert waits[0].error is None
        older.commit()
        younger.cursor().execute(update(a))  # it goes on
        younger.commit()


def test_three_in_a_circle(proxy, ids):
    sessions = [begin(proxy, number) for number in ids]
    waits = []
    for number, session in enumerate(sessions):
        waits.append(Session(session, update(ids[(number + 1) % SHARDS])))
        time.sleep(0.05)
    waits[2].join(30)
    assert waits[2].error is not None and waits[2].error.pgcode == "40P01"
    sessions[2].rollback()
    waits[1].join(30)
    sessions[1].commit()
    waits[0].join(30)
    sessions[0].commit()
    assert waits[0].error is None and waits[1].error is None
    for session in sessions:
        session.close()


def test_statements_over_all_shards(bank, proxy, ids):
    """Fan-outs in both: each has locked the rows of one shard and waits on another."""
    a, b, _ = ids
    with closing(begin(proxy, a)) as first, closing(begin(proxy, b)) as second:
        waits = [Session(first, "UPDATE account SET balance = 0"), Session(second, "UPDATE account SET balance = 0")]
        wait_until(lambda: any(wait.error for wait in waits), 30, "one is ended")
        loser = 0 if waits[0].error else 1
        assert waits[loser].error.pgcode == "40P01"
        (first, second)[loser].rollback()
        waits[1 - loser].join(30)
        assert waits[1 - loser].error is None


def test_waiting_alone_is_no_deadlock(proxy, ids):
    a, b, c = ids
    with closing(begin(proxy, a)) as holder, closing(begin(proxy, b)) as waiter, closing(begin(proxy, c)) as third:
        waiting = Session(waiter, update(a))
        also = Session(third, update(a))
        time.sleep(2)
        assert waiting.is_alive() and also.is_alive()
        holder.rollback()
        wait_until(lambda: not (waiting.is_alive() and also.is_alive()), 30, "one goes on")
        for wait, connection in sorted([(waiting, waiter), (also, third)], key=lambda pair: pair[0].is_alive()):
            wait.join(30)
            assert wait.error is None
            connection.commit()


def test_switched_off(bank, ids):
    a, b, _ = ids
    with Proxy(bank, keyspaces=[ACCOUNTS], options={"routing": {"shard_deadlock_timeout": "0s"}}) as other:
        other.wait_nodes()
        with closing(begin(other, a)) as first, closing(begin(other, b)) as second:
            waits = [Session(first, update(b)), Session(second, update(a))]
            time.sleep(2)
            assert all(wait.is_alive() for wait in waits)
            first.cancel()
            waits[0].join(30)
            assert waits[0].error.pgcode == "57014"
            first.rollback()
            waits[1].join(30)
            assert waits[1].error is None
