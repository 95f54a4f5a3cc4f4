"""Cancel requests reach the query they mean, and only that."""
import struct
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from harness import wait_until
from support import Raw, error_of, fetch, one, query

pytestmark = pytest.mark.core


def cancel_soon(connection, delay=0.3):
    timer = threading.Timer(delay, connection.cancel)
    timer.start()
    return timer


@pytest.mark.parametrize("sql", ["SELECT pg_sleep(30)", "SELECT pg_sleep(30) FROM notes FOR UPDATE",
                                 "SELECT id, pg_sleep(5) FROM users ORDER BY id"])
def test_cancel_ends_the_query(cluster, data, sql):
    with closing(data.connect()) as connection:
        timer = cancel_soon(connection)
        began = time.monotonic()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            fetch(connection, sql)
        assert time.monotonic() - began < 4
        timer.join()
        assert one(connection, "SELECT 1") == 1
    wait_until(lambda: all(node.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE "
                                      "'%%pg_sleep%%' AND pid <> pg_backend_pid()") == 0
                           for node in cluster.nodes), 10.0, "no sleeping query left")


def test_cancel_when_nothing_runs(data):
    with closing(data.connect()) as connection:
        connection.cancel()
        time.sleep(0.2)
        assert one(connection, "SELECT 1") == 1


def test_cancel_of_a_client_waiting_for_a_server(cluster):
    from harness import Proxy
    with Proxy(cluster, options={"pool": {"size": 1}, "routing": {"read_write_split": False}}) as proxy:
        with closing(proxy.connect()) as holder, closing(proxy.connect()) as waiting:
            holder.cursor().execute("BEGIN")
            one(holder, "SELECT 1")
            timer = cancel_soon(waiting)
            with pytest.raises(psycopg2.errors.QueryCanceled):
                one(waiting, "SELECT 2")
            timer.join()
            holder.cursor().execute("COMMIT")
            assert one(waiting, "SELECT 3") == 3


def test_wrong_key_cancels_nothing(data):
    with Raw(data) as victim:
        victim.send(query("SELECT pg_sleep(1)"))
        time.sleep(0.2)
        pid, key = victim.key
        for wrong in ((pid, key ^ 1), (pid + 1, key), (0, 0)):
            with data.socket() as other:
                other.sendall(struct.pack("!IIII", 16, 80877102, *wrong))
                assert other.recv(1) == b""
        assert error_of(victim.until_ready()) is None


def test_cancel_does_not_hit_the_next_client(cluster):
    """The cancel of a query that has just ended never lands on another client's query."""
    from harness import Proxy
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        with closing(proxy.connect()) as first, closing(proxy.connect()) as second:
            for _ in range(30):
                one(first, "SELECT 1")
                thread = threading.Thread(target=first.cancel)
                thread.start()
                assert one(second, "SELECT pg_sleep(0.02) IS NOT NULL") is True
                thread.join()


def test_cancel_in_a_transaction_fails_it(data):
    with closing(data.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE users SET balance = balance WHERE id = 1")
        timer = cancel_soon(connection)
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("SELECT pg_sleep(30) FROM users WHERE id = 1")
        timer.join()
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute("SELECT 1")
        cursor.execute("ROLLBACK")
        assert one(connection, "SELECT 1") == 1
