"""No byte of one client's result, parameters or session state reaches another: many clients with values of their
own on a small pool, with cancels and disconnects at random."""
import os
import random
import threading
import time

import psycopg
import pytest
from harness import Proxy
from harness.sample import USERS

CLIENTS = 40
SECONDS = float(os.environ.get("PGSHUNT_ISOLATION_SECONDS", "8"))


class Mixed(Exception):
    """A client saw what is not its own."""


def must(seen, wanted, what):
    if seen != wanted:
        raise Mixed(f"{what}: saw {seen!r} instead of {wanted!r}")


class Client(threading.Thread):
    def __init__(self, dsn, number, until):
        super().__init__(daemon=True)
        self.dsn, self.number, self.until = dsn, number, until
        self.random = random.Random(number)
        self.mine = f"client-{number}"
        self.failure, self.rounds, self.cancelled = None, 0, 0

    def connect(self):
        self.connection = psycopg.connect(self.dsn, autocommit=True, application_name=self.mine)
        self.connection.prepare_threshold = 0 if self.number % 2 else None
        self.connection.execute(f"SET work_mem = '{1001 + 2 * self.number}kB'")

    def run(self):
        try:
            self.connect()
            while time.monotonic() < self.until:
                self.random.choice([self.ask, self.ask, self.settings, self.transaction, self.pipeline,
                                    self.fan_out, self.cancel, self.leave])()
                self.rounds += 1
        except Exception as error:  # noqa: BLE001 (the main thread reports it)
            self.failure = error

    def value(self, query, *params):
        return self.connection.execute(query, params).fetchone()[0]

    def ask(self):
        token = f"{self.mine}-{self.random.random()}"
        must(self.value("SELECT %s::text", token), token, "parameter")
        must(self.value(f"SELECT '{token}'"), token, "literal")

    def settings(self):
        must(self.value("SHOW work_mem"), f"{1001 + 2 * self.number}kB", "setting")
        must(self.value("SELECT current_setting('application_name')"), self.mine, "application_name")

    def transaction(self):
        with self.connection.transaction():
            self.connection.execute(f"SET LOCAL statement_timeout = {100_001 + 2 * self.number}")
            must(self.value("SHOW statement_timeout"), f"{100_001 + 2 * self.number}ms", "SET LOCAL")
            must(self.value("SELECT %s::int", self.number), self.number, "parameter in a transaction")
        must(self.value("SHOW statement_timeout"), "0", "setting behind the transaction")

    def pipeline(self):
        with self.connection.pipeline():
            cursors = [self.connection.execute("SELECT %s::int, %s::text", (i, self.mine)) for i in range(5)]
            rows = [cursor.fetchone() for cursor in cursors]
        must(rows, [(i, self.mine) for i in range(5)], "pipeline")

    def fan_out(self):
        rows = self.connection.execute("SELECT id, %s::text FROM users WHERE id <= 20 ORDER BY id",
                                       (self.mine,)).fetchall()
        must(rows, [(i, self.mine) for i in range(1, 21)], "fan-out")

    def cancel(self):
        timer = threading.Timer(self.random.uniform(0, 0.02), self.connection.cancel)
        timer.start()
        try:
            must(self.value("SELECT %s::text FROM (SELECT pg_sleep(0.01)) AS nap", self.mine), self.mine, "slow read")
        except psycopg.errors.QueryCanceled:
            self.cancelled += 1
        timer.join()
        try:  # a cancel that came late may hit this one of its own, never another client's
            self.value("SELECT 1")
        except psycopg.errors.QueryCanceled:
            self.cancelled += 1

    def leave(self):
        if self.random.random() < 0.5:  # in the middle of an answer
            self.connection.pgconn.send_query(b"SELECT repeat('x', 100000), pg_sleep(0.005)")
        self.connection.close()
        self.connect()


@pytest.mark.core
@pytest.mark.slow
def test_clients_never_see_each_other(cluster, data):
    with Proxy(cluster, keyspaces=[USERS], reference=["countries"], options={"pool": {"size": 5}}) as proxy:
        proxy.wait_nodes()
        until = time.monotonic() + SECONDS
        clients = [Client(proxy.dsn(), number, until) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(SECONDS + 40)
        assert not [client for client in clients if client.is_alive()], "a client hangs"
        assert not [(client.mine, client.failure) for client in clients if client.failure]
        assert sum(client.rounds for client in clients) > CLIENTS * 5
        assert sum(client.cancelled for client in clients) > 0
        assert proxy.value("SELECT count(*) FROM users") > 0
