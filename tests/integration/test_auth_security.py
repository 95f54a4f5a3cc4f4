"""The security record of other poolers, as tests: lengths before the login, oversized SCRAM messages, who may do what
on the console, slow answers to wrong passwords. (The look-up's search_path and VALID UNTIL: test_auth_query.py;
errors without SQLSTATE: test_auth_servers.py.)"""
import struct
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from support import Raw, connect_error, fields, message, one, startup

USERS = [{"name": "app", "password": "app's"}, {"name": "boss", "password": "b", "admin": True},
         {"name": "eye", "password": "e", "stats": True}]


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, options={"auth": {"method": "scram-sha-256"}}, users=USERS) as proxy:
        yield proxy


def alive(proxy):
    with closing(proxy.connect(user="app", password="app's")) as connection:
        assert one(connection, "SELECT 1") == 1


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 10001, 0x7fffffff, 0x80000000, 0xfffffff0, 0xfffffffb, 0xffffffff])
def test_length_of_a_startup_packet(proxy, size):
    """CVE-2026-6664: a length that overflows where something is added to it."""
    with Raw(proxy, login=False) as raw:
        raw.send(struct.pack("!II", size, 196608) + b"user\0app\0\0" + b"x" * 64)
        assert raw.at_end()
    alive(proxy)


@pytest.mark.parametrize("size", [0, 3, 4, 5000, 0x7fffffff, 0x80000000, 0xfffffffa, 0xffffffff])
def test_length_of_a_password_message(proxy, size):
    with Raw(proxy, login=False) as raw:
        raw.send(startup(user="app"))
        assert raw.read()[0] == "R"
        raw.send(b"p" + struct.pack("!I", size) + b"SCRAM-SHA-256\0" + b"y" * 64)
        assert raw.at_end()
    alive(proxy)


def client_first(text=b"n,,n=,r=abcdefghijklmnop", size=None):
    return message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(text) if size is None else size & 0xffffffff) + text)


@pytest.mark.parametrize("size", [-1, 0, 1, 23, 25, 0x7fffffff, 0x80000000])
def test_length_inside_the_first_sasl_message(proxy, size):
    with Raw(proxy, login=False) as raw:
        raw.send(startup(user="app"))
        raw.read()
        raw.send(client_first(size=size))
        kind, body = raw.read()
        # -1: no initial response, which Postgres answers with an empty challenge and we refuse
        assert kind == "E" and fields(body)["C"] in ("08P01", "28P01")
        assert raw.at_end()
    alive(proxy)


@pytest.mark.parametrize("final", [
    b"c=biws,r=%s,p=" + b"A" * 900, b"c=biws,r=%s," + b"x=" + b"y" * 990 + b",p=AAAA", b"c=biws,r=%s" + b"z" * 1100,
    b"c=" + b"b" * 3000 + b",r=%s,p=AAAA", b"c=biws,r=%s,p=" + b"A" * 4000, b"\0" * 500, b"c=biws,r=%s,p=", b"",
    b"c=biws,r=%s,p=" + b"A" * 43 + b"="])
def test_last_scram_message_of_any_size(proxy, final):
    """CVE-2026-6665: the last message written into a buffer of a fixed size."""
    for user in ("app", "nobody"):
        with Raw(proxy, login=False) as raw:
            raw.send(startup(user=user))
            raw.read()
            raw.send(client_first())
            kind, body = raw.read()
            assert kind == "R"
            nonce = body[4:].split(b",")[0][2:]
            raw.send(message(b"p", final.replace(b"%s", nonce)))
            try:
                kind, body = raw.read()
                assert kind == "E" and fields(body)["C"] in ("08P01", "28P01")
            except EOFError:
                pass
            assert raw.at_end()
    alive(proxy)


@pytest.mark.parametrize("length", [1000, 1024, 1025, 4000])
def test_first_scram_message_of_any_size(proxy, length):
    with Raw(proxy, login=False) as raw:
        raw.send(startup(user="app"))
        raw.read()
        raw.send(client_first(b"n,,n=,r=" + b"a" * (length - 8)))
        kind, body = raw.read()
        assert kind == ("R" if length <= 1024 else "E")
    alive(proxy)


@pytest.mark.parametrize("method, secret", [("md5", "plain"), ("password", "plain"), ("md5", "")])
def test_password_messages(cluster, method, secret):
    """Without a NUL, with two, empty, of the greatest length, something else in its place."""
    with Proxy(cluster, options={"auth": {"method": method}, "workers": 1},
               users=[{"name": "app", "password": secret}]) as proxy:
        for body in (b"", b"\0", b"x", b"plain", b"plain\0x\0", b"x\0", b"md5" + b"0" * 32 + b"\0", b"p" * 4090 + b"\0"):
            for kind in (b"p", b"Q", b"X"):
                with Raw(proxy, login=False) as raw:
                    raw.send(startup(user="app"))
                    raw.read()
                    raw.send(message(kind, body))
                    assert raw.at_end()
        assert "password" in connect_error(proxy.dsn(user="app", password="wrong"))


# ---- the console ----

def commands(proxy):
    """All of SHOW HELP."""
    with closing(proxy.connect("pgshunt", user="boss", password="b")) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW HELP")
        return [row[0] for row in cursor.fetchall()]


def test_readers_change_nothing(proxy):
    """CVE-2026-6667: every command that is no SHOW is refused to who may only look, whatever comes to the list."""
    changing = [command for command in commands(proxy) if not command.startswith(("SHOW", "SELECT"))]
    assert {"RELOAD", "SHUTDOWN", "SHUTDOWN IMMEDIATE"} <= set(changing)
    more = ["KILL app", "KILL_CLIENT 1", "PAUSE", "PAUSE app", "RESUME", "DISABLE app", "ENABLE app", "RECONNECT",
            "WAIT_CLOSE", "SUSPEND", "HOLD app s0", "DRAIN app s0", "RELEASE app s0", "CHECK", "SET pool.size = 1", "SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN WAIT_FOR_CLIENTS"]
    for command in changing + more:
        with closing(proxy.connect("pgshunt", user="eye", password="e")) as connection, connection.cursor() as cursor:
            with pytest.raises(psycopg2.Error) as caught:
                cursor.execute(command.replace("[", "").replace("]", "").replace("<", "").replace(">", ""))
            if command in ("DISABLE", "ENABLE", "KILL_CLIENT", "HOLD", "DRAIN", "RELEASE"):  # they need to be told whom
                assert caught.value.pgcode in ("42501", "42601"), command
            elif command in changing and " " not in command:
                assert caught.value.pgcode == "42501", command
                assert "may only look" in str(caught.value) and "admin = true" in str(caught.value)
            if command in more[:14]:
                assert caught.value.pgcode == "42501", command
    alive(proxy)


def test_readers_look(proxy):
    for command in commands(proxy):
        if command.startswith("SHOW") and "name" not in command:
            with closing(proxy.connect("pgshunt", user="eye", password="e")) as connection:
                connection.cursor().execute(command.split("[")[0].split("<")[0])


def test_others_do_not_get_in(proxy):
    for database in ("pgshunt", "pgbouncer"):
        text = connect_error(proxy.dsn(database, user="app", password="app's"))
        assert "for admin users only" in text and "stats = true" in text
        assert "for admin users only" in connect_error(proxy.dsn(database, user="nobody", password="x"))


def test_extended_protocol_asks_too(proxy):
    with proxy.connect3("pgshunt", user="eye", password="e") as connection:
        with pytest.raises(Exception) as caught:
            connection.execute("RELOAD", prepare=True)
        assert caught.value.sqlstate == "42501"


# ---- guessing ----

def test_a_wrong_password_is_told_late(cluster):
    with Proxy(cluster, options={"auth": {"method": "md5", "failure_delay": "1s"}, "workers": 1}, users=USERS) as proxy:
        with Raw(proxy, login=False) as raw:
            raw.send(startup(user="app"))
            raw.read()
            began = time.monotonic()
            raw.send(message(b"p", b"md5" + b"0" * 32 + b"\0"))
            alive(proxy)  # nobody else waits
            raw.send(b"p" * 3000)  # not read any more
            kind, body = raw.read()
            assert kind == "E" and fields(body)["C"] == "28P01" and time.monotonic() - began > 0.8
            assert raw.at_end()
        with Raw(proxy, login=False) as raw:  # leaves before it is told
            raw.send(startup(user="app"))
            raw.read()
            raw.send(message(b"p", b"md5" + b"0" * 32 + b"\0"))
        alive(proxy)
