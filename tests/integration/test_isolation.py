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

CLIENTS = 200
ROLES = [f"isolated_{i}" for i in range(20)]
SECONDS = float(os.environ.get("PGSHUNT_ISOLATION_SECONDS", "6"))


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
        for name, value in self.wanted().items():
            self.connection.execute(f"SET {name} = '{value}'")
        self.connection.execute(f"PREPARE mine (text) AS SELECT '{self.mine}' || $1")

    def wanted(self):
        return {"search_path": f"path_{self.number}", "TimeZone": f"<C{self.number % 24:02}>-{self.number % 12}",
                "isolated.value": self.mine, "role": ROLES[self.number % len(ROLES)]}

    def run(self):
        try:
            self.connect()
            while time.monotonic() < self.until:
                self.random.choice([self.ask, self.ask, self.settings, self.transaction, self.pipeline,
                                    self.prepared, self.temporary, self.fan_out, self.cancel, self.leave])()
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

        for name, value in self.wanted().items():
            must(self.value(f"SELECT current_setting('{name}')"), value, name)
        must(self.value("SELECT current_user::text"), self.wanted()["role"], "current_user")
        if self.random.random() < 0.3:  # away and back
            name, value = self.random.choice(list(self.wanted().items()))
            self.connection.execute(f"RESET {name}")
            if self.value(f"SELECT current_setting('{name}', true)") in (value, "client", "isolated"):
                raise Mixed(f"{name} is still {value} after RESET")
            self.connection.execute(f"SET {name} = '{value}'")

    def prepared(self):
        """The name is everybody's, the text each client's own."""
        token = str(self.random.random())
        must(self.value(f"EXECUTE mine ('{token}')"), self.mine + token, "PREPARE")
        if self.random.random() < 0.3:
            self.connection.execute("DEALLOCATE mine")
            self.connection.execute(f"PREPARE mine (text) AS SELECT '{self.mine}' || $1")
        pgconn = self.connection.pgconn
        text = f"SELECT '{self.mine}', '{self.random.randrange(3)}'"
        for result in (pgconn.prepare(b"everybodys", text.encode()), pgconn.exec_prepared(b"everybodys", [])):
            if result.error_message:
                raise Mixed(f"named statement: {result.error_message.decode()}")
        must(result.get_value(0, 0).decode(), self.mine, "named statement")
        self.connection.execute("DEALLOCATE everybodys")

    def temporary(self):
        with self.connection.transaction():
            self.connection.execute("CREATE TEMP TABLE mine (value text) ON COMMIT DROP")
            self.connection.execute("INSERT INTO pg_temp.mine VALUES (%s)", (self.mine,))
            rows = self.connection.execute("SELECT value FROM pg_temp.mine").fetchall()
        must(rows, [(self.mine,)], "temporary table")

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
        rows = self.connection.execute("SELECT id, %s::text FROM public.users WHERE id <= 20 ORDER BY id",
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


@pytest.fixture
def roles(cluster):
    for node in cluster.primaries:
        for role in ROLES:
            node.sql(f"CREATE ROLE {role}; GRANT pg_read_all_data TO {role}")
    yield
    for node in cluster.primaries:
        for role in ROLES:
            node.sql(f"DROP ROLE {role}")


@pytest.mark.core
@pytest.mark.slow
def test_clients_never_see_each_other(cluster, data, roles):
    # An error's traceback may keep a connection open in its transaction until Python collects it: it is not waited for.
    options = {"pool": {"size": 5}, "shutdown_timeout": "5s"}
    with Proxy(cluster, keyspaces=[USERS], reference=["countries"], options=options) as proxy:
        proxy.wait_nodes()
        until = time.monotonic() + SECONDS
        clients = [Client(proxy.dsn(), number, until) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(SECONDS + 40)
        assert not [client for client in clients if client.is_alive()], "a client hangs"
        assert not [(client.mine, client.failure) for client in clients if client.failure]
        assert sum(client.rounds for client in clients) > CLIENTS
        assert sum(client.cancelled for client in clients) > 0
        assert proxy.value("SELECT count(*) FROM users") > 0
