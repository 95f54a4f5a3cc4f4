"""Limits on idle clients, transactions and queries: one error each, and nothing left behind."""
import time
from contextlib import closing

import pytest

from harness import Proxy, wait_until
from support import SYNC, Raw, bind, error_of, execute, fetch, kinds, one, parse, query, rows

pytestmark = pytest.mark.core


def limited(cluster, **limits):
    """A proxy with these timeouts for user `app`; `postgres` has none."""
    users = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": "", **limits}]
    return Proxy(cluster, users=users, options={"pool": {"size": 3}})


def ended_with(client, sqlstate):
    """The only thing the client hears is this FATAL error."""
    told = client.read()
    error = error_of([told])
    assert error["S"] == "FATAL" and error["C"] == sqlstate and error["H"], error
    assert client.read_end()
    return error


class Client(Raw):
    def __init__(self, proxy, **parameters):
        super().__init__(proxy, user="app", **parameters)

    def read_end(self):
        try:
            message = self.read()
        except EOFError:
            return True
        raise AssertionError(f"more: {message}")


def backends(proxy, state):
    with closing(proxy.connect()) as connection:
        return one(connection, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state LIKE %s", [state])


def test_client_idle_timeout(cluster, data):
    with limited(cluster, client_idle_timeout="1s") as proxy, closing(proxy.connect()) as other:
        with Client(proxy) as client, Client(proxy) as never_asked:
            client.ask(query("SELECT 1"))
            ended_with(client, "57P05")
            ended_with(never_asked, "57P05")
        with Client(proxy) as busy:  # who asks for longer is not idle
            busy.ask(query("BEGIN"))
            assert kinds(busy.ask(query("SELECT pg_sleep(2.5)"))) == "TDCZ"
            time.sleep(2)
            assert kinds(busy.ask(query("COMMIT"))) == "CZ"
        assert one(other, "SELECT 1") == 1


def test_idle_transaction_timeout(cluster, data):
    with limited(cluster, idle_transaction_timeout="1s") as proxy:
        with Client(proxy) as outside, Client(proxy) as client, Client(proxy) as deferred:
            outside.ask(query("SELECT 1"))
            client.ask(query("BEGIN"), )
            client.ask(query("SELECT 1"))
            deferred.ask(query("BEGIN"))  # holds no server
            ended_with(client, "25P03")
            ended_with(deferred, "25P03")
            assert backends(proxy, "idle in transaction%") == 0
            assert kinds(outside.ask(query("SELECT 1"))) == "TDCZ"


def test_transaction_timeout(cluster, data):
    with limited(cluster, transaction_timeout="1500ms") as proxy:
        with Client(proxy) as client, Client(proxy) as idle, Client(proxy) as alone:
            idle.ask(query("SELECT 1"))
            client.ask(query("BEGIN"))
            for _ in range(3):
                client.ask(query("SELECT pg_sleep(0.2)"))
            client.send(query("SELECT pg_sleep(60)"))
            alone.send(query("SELECT pg_sleep(60)"))  # a transaction of its own
            ended_with(client, "25P04")
            ended_with(alone, "25P04")
            wait_until(lambda: backends(proxy, "active") == 0, 10, "the statements were cancelled")
            assert kinds(idle.ask(query("SELECT 1"))) == "TDCZ"


def test_query_timeout(cluster, data):
    with limited(cluster, query_timeout="1s") as proxy:
        with Client(proxy) as client:
            answer = client.ask(query("SELECT pg_sleep(60)"))
            error = error_of(answer)
            assert error["C"] == "57014" and "query_timeout" in error["M"] and error["H"]
            assert kinds(answer) == "TEZ" or kinds(answer) == "EZ"
            assert rows(client.ask(query("SELECT 7"))) == [[b"7"]]
            answer = client.ask(parse("", "SELECT pg_sleep(60)"), bind("", ""), execute(), SYNC)
            assert error_of(answer)["C"] == "57014" and kinds(answer) == "12EZ"
            client.ask(query("BEGIN"))
            assert error_of(client.ask(query("SELECT pg_sleep(60)")))["C"] == "57014"
            assert client.ask(query("SELECT 1"))[-1] == ("Z", b"E")
            assert client.ask(query("ROLLBACK"))[-1] == ("Z", b"I")
            assert kinds(client.ask(query("SELECT 1"))) == "TDCZ"


def test_query_timeout_counts_waiting(cluster, data):
    with limited(cluster, query_timeout="1s", pool_size=1) as proxy:
        with Client(proxy) as holder, Client(proxy) as waits:
            primary = "/* pgshunt: shard=s0 */ "
            holder.ask(query("BEGIN"))
            holder.ask(query(primary + "SELECT txid_current()"))
            answer = waits.ask(query(primary + "SELECT txid_current()"))
            assert error_of(answer)["C"] == "57014" and kinds(answer) == "EZ"
            assert kinds(holder.ask(query("COMMIT"))) == "CZ"
            assert kinds(waits.ask(query(primary + "SELECT txid_current()"))) == "TDCZ"


def test_a_query_that_does_not_end(cluster, data):
    """It ignores the cancel request: the connection is given up after timeouts.cancel_wait."""
    stubborn = ("DO $$ BEGIN FOR i IN 1..1000 LOOP BEGIN PERFORM pg_sleep(60); "
                "EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$")
    users = [{"name": "postgres", "password": "", "admin": True},
             {"name": "app", "password": "", "query_timeout": "500ms"}]
    with Proxy(cluster, users=users, options={"timeouts": {"cancel_wait": "1s"}}) as proxy:
        with Client(proxy) as client:
            client.send(query("/* pgshunt: shard=s0 */ " + stubborn))
            ended_with(client, "57014")
        with closing(proxy.connect()) as connection:
            fetch(connection, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                              "WHERE usename = 'app' AND query LIKE '%query_canceled%'")


def test_reload_changes_timeouts(cluster, data):
    with limited(cluster) as proxy:
        with Client(proxy) as client:
            client.ask(query("SELECT 1"))
            proxy.change({"timeouts": {"client_idle": "1s"}})
            proxy.reload()
            ended_with(client, "57P05")
