"""Console commands that act: PAUSE and its like, over two workers, with clients at work meanwhile."""
import os
import re
import select
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import Raw, connect_error, error_of, fetch, kinds, one, query, refused

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def own(cluster):
    """A proxy whose databases may be paused and killed: `app`, and `other` with the same servers."""
    databases = [{"name": "app", "shards": cluster.shard_config()[:1]},
                 {"name": "other", "shards": cluster.shard_config()[:1]}]
    with Proxy(cluster, databases=databases, options={"pool": {"size": 4}}) as proxy:
        yield proxy


@pytest.fixture
def console(own):
    with closing(own.connect("pgshunt")) as connection:
        yield connection
        cursor = connection.cursor()
        for sql in ("RESUME", "ENABLE app"):
            try:
                cursor.execute(sql)
            except psycopg2.Error as error:
                assert error.pgcode == "55000"


def run(connection, sql):
    connection.cursor().execute(sql)


def show(connection, what, key=0):
    """Rows as dicts, by their first column (or `key`)."""
    cursor = connection.cursor()
    cursor.execute("SHOW " + what)
    names = [column.name for column in cursor.description]
    return {row[key]: dict(zip(names, row)) for row in cursor.fetchall()}


class Background:
    """Calls a function on a thread; result() has what it returned or raises what it raised."""

    def __init__(self, function, *args):
        self.answer = self.error = None
        self.thread = threading.Thread(target=self._run, args=(function, *args), daemon=True)
        self.thread.start()

    def _run(self, function, *args):
        try:
            self.answer = function(*args)
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def done(self):
        return not self.thread.is_alive()

    def result(self, timeout=30):
        self.thread.join(timeout)
        assert self.done(), "still waiting"
        if self.error:
            raise self.error
        return self.answer


def waiting(console, database="app"):
    rows = [row for row in show(console, "CLIENTS", 20).values() if row["database"] == database]
    return sum(row["state"] == "waiting" for row in rows)


def servers(console, database="app"):
    return [row for row in show(console, "SERVERS", 20).values() if row["database"] == database]


def test_pause_waits_for_transactions_and_holds_the_next(own, console):
    with closing(own.connect()) as busy, closing(own.connect()) as next_one, \
            closing(own.connect("pgshunt")) as second:
        busy.autocommit = False
        one(busy, "SELECT 1")
        pause = Background(run, console, "PAUSE app")
        wait_until(lambda: show(second, "DATABASES")["app"]["paused"] == 1, 10, "app paused")
        held = Background(one, next_one, "SELECT 2")
        wait_until(lambda: waiting(second) == 1, 10, "the client is held")
        assert not pause.done()
        assert one(busy, "SELECT 3") == 3  # a transaction goes on
        busy.commit()
        pause.result()
        assert not servers(second)  # all of its connections are closed
        assert not held.done()
        assert show(second, "POOLS")["app"]["cl_waiting"] == 1
        with closing(own.connect("other")) as other:
            assert one(other, "SELECT 4") == 4  # another database works
        assert show(second, "DATABASES")["other"]["paused"] == 0
        run(console, "RESUME app")
        assert held.result() == 2
        assert show(second, "DATABASES")["app"]["paused"] == 0


def test_pause_holds_transactions_at_their_first_statement(own, console):
    with closing(own.connect()) as client:
        run(console, "PAUSE")
        client.autocommit = False
        held = Background(one, client, "SELECT 5")
        wait_until(lambda: waiting(console) == 1, 10, "the client is held")
        run(console, "RESUME")
        assert held.result() == 5
        client.commit()


def test_pause_holds_the_extended_protocol(own, console):
    from support import SYNC, bind, execute, parse
    with Raw(own) as client:
        run(console, "PAUSE app")
        client.send(parse("", "SELECT 7"), bind("", ""), execute(), SYNC)
        wait_until(lambda: waiting(console) == 1, 10, "the client is held")
        run(console, "RESUME app")
        assert kinds(client.until_ready()) == "12DCZ"


def test_new_clients_wait_while_paused(own, console):
    run(console, "PAUSE")
    # A name that no greeting is remembered for.
    client = Background(own.connect, "app", "app")
    wait_until(lambda: waiting(console) == 1, 10, "the login is held")
    assert not client.done()
    run(console, "RESUME")
    with closing(client.result()) as connection:
        assert one(connection, "SELECT 1") == 1


def test_state_and_readyz(own, console):
    def ready():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{own.http_port}/readyz") as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def state():
        return {key: row["value"] for key, row in show(console, "STATE").items()}
    assert state()["active"] == "yes" and state()["paused"] == "no"
    run(console, "PAUSE")
    assert state()["active"] == "no" and state()["paused"] == "yes"
    status, text = ready()
    assert status == 503 and "app is paused" in text
    run(console, "RESUME")
    assert state() == {"active": "yes", "paused": "no", "suspended": "no", "draining": "no"}
    wait_until(lambda: ready()[0] == 200, 10, "ready")
    run(console, "SUSPEND")
    assert state()["suspended"] == "yes" and ready()[0] == 503
    run(console, "RESUME")


def test_cancel_takes_a_pause_back(own, console):
    with closing(own.connect()) as busy, closing(own.connect()) as other:
        busy.autocommit = False
        one(busy, "SELECT 1")
        with closing(own.connect("pgshunt")) as second:
            pause = Background(run, second, "PAUSE app")
            wait_until(lambda: show(console, "DATABASES")["app"]["paused"] == 1, 10, "app paused")
            second.cancel()
            with refused("57014", hint=False):
                pause.result()
            assert show(console, "DATABASES")["app"]["paused"] == 0
            assert one(other, "SELECT 2") == 2
            assert one(second, "SHOW VERSION")  # the console is as good as before
        busy.rollback()


def test_leaving_takes_a_pause_back(own, console):
    with closing(own.connect()) as busy, closing(own.connect()) as other:
        busy.autocommit = False
        one(busy, "SELECT 1")
        with Raw(own, database="pgshunt") as raw:
            raw.send(query("PAUSE"))
            wait_until(lambda: show(console, "DATABASES")["app"]["paused"] == 1, 10, "app paused")
            held = Background(one, other, "SELECT 2")
            wait_until(lambda: waiting(console) == 1, 10, "the client is held")
        assert held.result() == 2
        assert show(console, "DATABASES")["app"]["paused"] == 0
        busy.rollback()


def test_held_clients_may_cancel_leave_and_time_out(cluster):
    with Proxy(cluster, options={"pool": {"size": 4, "query_wait_timeout": "2s"}}) as own, \
            closing(own.connect("pgshunt")) as console, closing(own.connect()) as client, \
            Raw(own) as raw:
        run(console, "PAUSE app")
        held = Background(one, client, "SELECT 1")
        wait_until(lambda: waiting(console) == 1, 10, "the client is held")
        client.cancel()
        with refused("57014", hint=False):
            held.result()
        raw.send(query("SELECT 1"))
        wait_until(lambda: waiting(console) == 1, 10, "the client is held")
        raw.close()
        wait_until(lambda: waiting(console) == 0, 10, "it has left")
        with refused("53300", "paused"):
            one(client, "SELECT 1")
        run(console, "RESUME app")
        assert one(client, "SELECT 3") == 3


def test_kill(own, console):
    with Raw(own) as idle, Raw(own) as busy, closing(own.connect("other")) as other:
        assert kinds(idle.ask(query("SELECT 1"))) == "TDCZ"
        busy.send(query("SELECT pg_sleep(60)"))
        wait_until(lambda: any(row["state"] == "active" for row in servers(console)), 10, "it runs")
        run(console, "KILL app")
        for client in (idle, busy):
            told = [client.read()]
            assert error_of(told)["C"] == "57P01" and error_of(told)["H"]
            assert client.at_end()
        assert one(other, "SELECT 2") == 2
        assert not servers(console)
        assert show(console, "DATABASES")["app"]["paused"] == 1
        with closing(own.connect("other")) as direct:  # the statement was cancelled
            wait_until(lambda: one(direct, "SELECT count(*) FROM pg_stat_activity WHERE "
                                           "query = 'SELECT pg_sleep(60)' AND state = 'active'") == 0,
                       10, "the statement was cancelled")
        late = Background(lambda: one(own.connect(), "SELECT 3"))
        wait_until(lambda: waiting(console) == 1, 10, "the new client waits")
        run(console, "RESUME app")
        assert late.result() == 3


def test_kill_client(own, console):
    with closing(own.connect(application_name="doomed")) as doomed, closing(own.connect()) as other:
        one(doomed, "SELECT 1")
        victim = next(row["id"] for row in show(console, "CLIENTS", 20).values()
                      if row["application_name"] == "doomed")
        run(console, f"KILL_CLIENT {victim}")
        with refused(("57P01", None), hint=False):
            one(doomed, "SELECT 1")
        assert one(other, "SELECT 2") == 2
        with refused("42704"):
            run(console, f"KILL_CLIENT {victim}")
    with refused("42704"):
        run(console, "KILL_CLIENT 9999999999")
    with closing(own.connect("pgshunt", application_name="me")) as self:
        me = next(row["id"] for row in show(self, "CLIENTS", 20).values() if row["application_name"] == "me")
        with pytest.raises(psycopg2.Error):
            run(self, f"KILL_CLIENT {me}")


def test_kill_client_in_the_middle_of_a_message(own, console):
    """No error may fall into a value that is being passed on."""
    with Raw(own, application_name="slow") as client:
        client.send(query("SELECT repeat('x', 30000000)"))
        victim = next(row["id"] for row in show(console, "CLIENTS", 20).values()
                      if row["application_name"] == "slow")
        select.select([client.socket], [], [], 10)
        run(console, f"KILL_CLIENT {victim}")
        seen = []
        with pytest.raises(EOFError):
            while True:
                seen.append(client.read())
        assert kinds(seen) in ("", "T", "TE", "E")


def test_disable_and_enable(own, console):
    with closing(own.connect()) as there:
        run(console, "DISABLE app")
        assert show(console, "DATABASES")["app"]["disabled"] == 1
        assert "is disabled" in connect_error(own.dsn())
        assert one(there, "SELECT 1") == 1  # who is in may stay
        with closing(own.connect("other")) as other:
            assert one(other, "SELECT 2") == 2
        own.reload()
        assert "is disabled" in connect_error(own.dsn())
        run(console, "ENABLE app")
        with closing(own.connect()) as again:
            assert one(again, "SELECT 3") == 3
        assert show(console, "DATABASES")["app"]["disabled"] == 0


def test_reconnect_and_wait_close(own, console):
    with closing(own.connect()) as client, closing(own.connect()) as busy, \
            closing(own.connect("pgshunt")) as second:
        busy.autocommit = False
        old = one(busy, "SELECT pg_backend_pid()")
        run(console, "RECONNECT app")
        wait = Background(run, second, "WAIT_CLOSE app")
        assert one(client, "SELECT pg_backend_pid()") != old
        rows = {row["remote_pid"]: row["close_needed"] for row in servers(console)}
        assert rows[old] == 1
        assert one(busy, "SELECT pg_backend_pid()") == old
        assert not wait.done()
        busy.commit()
        wait.result()
        assert old not in {row["remote_pid"] for row in servers(console)}
        busy.rollback()
        run(console, "WAIT_CLOSE")  # nothing to wait for


def test_suspend(own, console):
    with Raw(own) as client:
        run(console, "SUSPEND")
        client.send(query("SELECT 1"))
        client.socket.settimeout(0.5)
        with pytest.raises(socket.timeout):
            client.read()
        run(console, "RESUME")
        client.socket.settimeout(20)
        assert kinds(client.until_ready()) == "TDCZ"


@pytest.mark.parametrize("sql, sqlstate", [
    ("RESUME", "55000"), ("RESUME app", "55000"), ("PAUSE nowhere", "3D000"), ("KILL nowhere", "3D000"),
    ("DISABLE nowhere", "3D000"), ("RECONNECT nowhere", "3D000"), ("DISABLE", "42601"),
    ("PAUSE app other", "42601"), ("KILL_CLIENT x", "42601"), ("PAUSE pgshunt", "3D000"),
])
def test_refused(console, sql, sqlstate):
    with refused(sqlstate):
        run(console, sql)


ACTING = ["PAUSE", "RESUME", "RECONNECT", "WAIT_CLOSE", "DISABLE app", "ENABLE app", "KILL", "KILL_CLIENT 1",
          "SUSPEND", "RELOAD", "SHUTDOWN", "SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN WAIT_FOR_CLIENTS",
          "SHUTDOWN IMMEDIATE"]


def test_every_command_needs_an_admin(cluster):
    users = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": ""},
             {"name": "former", "password": "", "admin": True}]
    with Proxy(cluster, users=users) as proxy, closing(proxy.connect("pgshunt", "former")) as former, \
            closing(proxy.connect("pgshunt")) as console:
        assert "admin" in connect_error(proxy.dsn("pgshunt", "app"))
        proxy.users = users[:2]
        proxy.write_config()
        run(console, "RELOAD")
        for sql in ACTING:
            with refused("42501"):
                run(former, sql)
        with closing(proxy.connect()) as client:
            assert one(client, "SELECT 1") == 1


def test_reload_answers_when_all_workers_have_it(cluster):
    with Proxy(cluster) as proxy, closing(proxy.connect("pgshunt")) as console:
        proxy.change({"limits": {"max_clients": 77}})
        run(console, "RELOAD")
        assert one(console, "SHOW limits.max_clients") == "77"
        proxy.write_config("workers = \"x\";\n")
        with refused("F0000", f"{proxy.config_path}:1"):
            run(console, "RELOAD")
        proxy.write_config()


def test_pause_is_latency_only(own, console, cluster):
    """pgbench over both workers, paused and resumed again and again: no error, no lost transaction."""
    script = os.path.join(own.folder, "one.sql")
    with open(script, "w") as file:
        file.write("BEGIN;\nSELECT 1;\nSELECT 2;\nEND;\n")
    bench = subprocess.Popen(
        ["/usr/lib/postgresql/15/bin/pgbench", "-n", "-f", script, "-c", "8", "-j", "2", "-T", "4", "-M", "prepared",
         "-h", own.host, "-p", str(own.port), "-U", "postgres", "app"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        pauses = 0
        while bench.poll() is None:
            run(console, "PAUSE app" if pauses % 2 else "PAUSE")
            time.sleep(0.1)
            run(console, "RESUME app" if pauses % 2 else "RESUME")
            time.sleep(0.2)
            pauses += 1
    finally:
        out, _ = bench.communicate()
    assert bench.returncode == 0, out
    assert re.search(r"number of failed transactions: 0", out) and "aborted" not in out, out
    assert pauses > 3


def test_shutdown_wait_for_clients(cluster):
    with Proxy(cluster, start=False) as proxy:
        proxy.start()
        with closing(proxy.connect("pgshunt")) as console, closing(proxy.connect()) as client:
            one(client, "SELECT 1")
            run(console, "SHUTDOWN WAIT_FOR_CLIENTS")
            wait_until(lambda: "waiting for clients" in proxy.log(), 10, "it waits")
            assert one(client, "SELECT 2") == 2
            time.sleep(0.5)
            assert one(client, "SELECT 3") == 3 and proxy.running()
        assert proxy.wait() == 0
        proxy.process = None
