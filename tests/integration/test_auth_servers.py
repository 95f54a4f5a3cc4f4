"""Logins to servers: refusals reach the client in the server's words with what to do, and nobody hammers at a door."""
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy
from support import Raw, message
from test_hostile_server import LOGIN, READY, HostileServer

OPTIONS = {"auth": {"method": "trust"}, "monitor": {"user": "pgshunt", "password": "monitor's"}, "workers": 1}


@pytest.fixture(scope="module")
def guarded():
    with Cluster(shards=1, replicas=0, auth="scram-sha-256") as cluster:
        cluster.create_role("pgshunt", "monitor's", "LOGIN IN ROLE pg_monitor")
        for i in range(6):
            cluster.create_role(f"user{i}", "x")
        cluster.shards[0].primary.sql("CREATE ROLE nologin NOLOGIN PASSWORD 'x'; CREATE ROLE capped LOGIN PASSWORD 'x' "
                                      "CONNECTION LIMIT 0")
        yield cluster


def refusal(proxy, user, database=None):
    """The error's text."""
    with pytest.raises(psycopg2.OperationalError) as caught:
        proxy.connect(database, user=user).close()
    return str(caught.value)


def test_refusals_in_the_server_s_words(guarded):
    """The proxy's secret differs, the role may not log in, there is no such role: what Postgres says, and a hint."""
    users = [{"name": name, "password": "x"} for name in ("nologin", "capped", "ghost")]
    users += [{"name": "user0", "password": "wrong"}, {"name": "user1"}]
    with Proxy(guarded, options=OPTIONS, users=users) as proxy:
        text = refusal(proxy, "user0")
        assert 'password authentication failed for user "user0"' in text and "auth.users_file is not the one" in text
        text = refusal(proxy, "nologin")
        assert 'role "nologin" is not permitted to log in' in text and "HINT" in text and "LOGIN" in text
        text = refusal(proxy, "ghost")
        assert 'password authentication failed for user "ghost"' in text and "HINT" in text
        text = refusal(proxy, "capped")
        assert 'too many connections for role "capped"' in text and "pool.size" in text
        text = refusal(proxy, "user1")
        assert "neither a plain password is known" in text and "auth.query_user" in text
        assert "x" not in [word for line in proxy.log().splitlines() for word in line.split("password=")[1:]]


def test_password_of_the_database(guarded):
    database = {"user": "user0", "password": "wrong"}
    with Proxy(guarded, database=database, options=OPTIONS) as proxy:
        assert "Correct user and password of the database" in refusal(proxy, "anyone")


def test_keys_open_no_other_user(guarded):
    """With a user forced by the database, what clients have proven is not used for it."""
    secret = guarded.shards[0].primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'user1'")
    options = {**OPTIONS, "auth": {"method": "scram-sha-256"}}
    with Proxy(guarded, database={"user": "user0"}, options=options,
               users=[{"name": "user1", "password": secret}]) as proxy:
        with pytest.raises(psycopg2.OperationalError) as caught:
            proxy.connect(user="user1", password="x")
        assert "neither a plain password is known nor keys" in str(caught.value)


def test_users_log_in_by_turns(guarded):
    """pool.max_logins = 1: six accounts at once all get their connection, one login after the other."""
    users = [{"name": f"user{i}", "password": "x"} for i in range(6)]
    with Proxy(guarded, options={**OPTIONS, "pool": {"max_logins": 1}, "workers": 2}, users=users) as proxy:
        found = []

        def log_in(user):
            with closing(proxy.connect(user=user)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT current_user::text")
                found.append(cursor.fetchone()[0])

        threads = [threading.Thread(target=log_in, args=(f"user{i % 6}",)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted([f"user{i}" for i in range(6)] * 2)


# ---- a server that plays a part ----

class Door(HostileServer):
    """Counts who knocks."""
    knocks = 0

    def play(self, connection):
        self.knocks += 1
        super().play(connection)


def error(sqlstate, text):
    return message(b"E", b"SFATAL\0VFATAL\0C" + sqlstate + b"\0M" + text + b"\0\0")


@pytest.fixture(scope="module")
def watched(cluster):
    """The monitor's connections are real: it logs in as a user that the door knows by its name."""
    cluster.shards[0].primary.sql("CREATE ROLE monitor LOGIN SUPERUSER")
    yield cluster
    cluster.shards[0].primary.sql("DROP ROLE monitor")


@pytest.fixture
def door(watched):
    with closing(Door(watched.shards[0].primary.port)) as server:
        yield server


def proxy_at(door, **pool):
    shards = [{"name": "s0", "dbname": "app", "nodes": [{"host": "127.0.0.1", "port": door.port}]}]
    options = {"workers": 1, "pool": pool, "monitor": {"user": "monitor"}}
    return Proxy(databases=[{"name": "app", "shards": shards}], options=options)


def test_a_server_that_starts_up_keeps_its_clients(door):
    door.login = error(b"57P03", b"the database system is starting up")
    with proxy_at(door, login_retry="50ms", login_retry_max="100ms") as proxy:
        results = []

        def connect():
            try:
                Raw(proxy).close()
                results.append("in")
            except (AssertionError, EOFError) as caught:
                results.append(str(caught))

        threads = [threading.Thread(target=connect) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while door.knocks < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert results == []  # nobody was sent away
        door.login, door.answer = LOGIN, READY
        for thread in threads:
            thread.join()
        assert results == ["in"] * 4


def test_other_failures_are_told_at_once(door):
    door.login = error(b"53300", b"sorry, too many clients already")
    with proxy_at(door, login_retry="10s", login_retry_max="1h") as proxy:
        for _ in range(10):
            assert "sorry, too many clients already" in refusal(proxy, "postgres")
        assert door.knocks == 1


def test_pauses_grow(door):
    """Clients that come again and again make the proxy knock less and less often."""
    door.login = error(b"53300", b"sorry")
    with proxy_at(door, login_retry="50ms", login_retry_max="10s") as proxy:
        began = time.monotonic()
        while time.monotonic() - began < 1.5:
            assert "sorry" in refusal(proxy, "postgres")
        # 50, 100, 200, 400, 800 ms, a fifth less: at most seven in that time, not thirty
        assert 2 <= door.knocks <= 8 + (time.monotonic() - began > 2) * 10


def test_an_error_without_sqlstate(door):
    """CVE-2026-6666: an ErrorResponse that lacks its SQLSTATE, in the middle of a login."""
    scram = message(b"R", (10).to_bytes(4, "big") + b"SCRAM-SHA-256\0\0")
    for login in (message(b"E", b"SFATAL\0Mno state\0\0"), message(b"E", b"\0"), message(b"E", b""),
                  scram + message(b"E", b"Mno state\0\0"), message(b"E", b"C\0M\0\0"), message(b"N", b"Mnote\0\0") * 3):
        door.login = login
        with proxy_at(door) as proxy:
            assert "FATAL" in refusal(proxy, "postgres")
