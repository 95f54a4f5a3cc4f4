"""HOLD, DRAIN, RELEASE and CHECK on the console: nothing new for a shard's primary, until it is over."""
import threading
import time
from contextlib import closing

import pytest

from harness import Proxy, wait_until
from support import one, refused

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster) as proxy:
        proxy.wait_nodes()
        yield proxy


@pytest.fixture(autouse=True)
def let_go(proxy):
    yield
    with closing(console(proxy)) as admin:
        for name in ("s0", "s1"):
            if held(proxy, name):
                admin.cursor().execute(f"RELEASE app {name}")


def console(proxy):
    return proxy.connect("pgshunt")


def order(proxy, command):
    with closing(console(proxy)) as admin:
        admin.cursor().execute(command)


def held(proxy, shard="s0"):
    return max(int(row["held_ms"]) for row in proxy.show("NODES") if row["shard"] == shard)


class Asking(threading.Thread):
    """One statement on a connection of its own; `answer` is what came."""

    def __init__(self, proxy, sql):
        super().__init__(daemon=True)
        self.proxy, self.sql, self.answer = proxy, sql, None
        self.start()

    def run(self):
        with closing(self.proxy.connect()) as connection:
            try:
                self.answer = one(connection, self.sql)
            except Exception as error:  # the test looks at it
                self.answer = error

    def is_held(self):
        return self.answer is None and any(row["state"] == "waiting" for row in self.proxy.show("CLIENTS"))


WRITING = "SELECT 40 + 2 FROM pg_sleep(0), txid_current()"


def test_statements_wait_for_release(proxy):
    order(proxy, "HOLD app s0 20000")
    assert 15000 < held(proxy) <= 20000
    asking = Asking(proxy, WRITING)
    wait_until(asking.is_held, 10.0, "the statement held")
    order(proxy, "RELEASE app s0")
    asking.join(10.0)
    assert asking.answer == 42
    assert held(proxy) == 0


def test_hold_ends_by_itself(proxy):
    order(proxy, "HOLD app s0 700")
    assert one_answer(proxy) == 42
    proxy.wait_log("a hold has reached its time limit")


def one_answer(proxy):
    with closing(proxy.connect()) as connection:
        return one(connection, WRITING)


def test_transactions_go_on_and_drain_waits_for_them(proxy):
    with closing(proxy.connect(autocommit=False)) as connection:
        assert one(connection, WRITING) == 42
        order(proxy, "HOLD app s0")
        draining = threading.Thread(target=order, args=(proxy, "DRAIN app s0"), daemon=True)
        draining.start()
        time.sleep(0.4)
        assert draining.is_alive()
        assert one(connection, WRITING) == 42
        assert draining.is_alive()
        connection.commit()
        draining.join(10.0)
        assert not draining.is_alive()
        asking = Asking(proxy, WRITING)
        wait_until(asking.is_held, 10.0, "the next one held")
        order(proxy, "RELEASE app s0")
        asking.join(10.0)
        assert asking.answer == 42


def test_who_waits_for_a_connection_is_held_too(cluster):
    """A connection that comes free is not given to the next client in the queue."""
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect(autocommit=False)) as connection:
            assert one(connection, WRITING) == 42
            asking = Asking(proxy, WRITING)
            wait_until(asking.is_held, 10.0, "waiting in the queue")
            order(proxy, "HOLD app s0")
            connection.commit()
            order(proxy, "DRAIN app s0")
            assert asking.is_held()
        order(proxy, "RELEASE app s0")
        asking.join(10.0)
        assert asking.answer == 42


def test_other_shards_and_cancel(proxy):
    order(proxy, "HOLD app s1")
    assert one_answer(proxy) == 42  # of the first shard
    order(proxy, "RELEASE app s1")
    order(proxy, "HOLD app s0")
    with closing(proxy.connect()) as connection:
        threading.Timer(0.5, connection.cancel).start()
        with refused("57014", hint=False):
            one(connection, WRITING)


def test_what_is_refused(proxy):
    with closing(console(proxy)) as admin:
        for command, sqlstate in (("HOLD app s9", "42704"), ("HOLD nothing s0", "3D000"), ("RELEASE app s0", "55000"),
                                  ("DRAIN app s9", "42704"), ("HOLD app", "42601")):
            with refused(sqlstate):
                admin.cursor().execute(command)
        admin.cursor().execute("DRAIN app s0")
        admin.cursor().execute("CHECK")
    assert held(proxy) == 0
