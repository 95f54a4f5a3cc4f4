"""What servers say while nobody asks: parameters that change by a reload, and their last words; and idle ones in turn."""
from contextlib import closing

import pytest
from harness import Proxy
from harness.process import wait_until
from support import Raw, fields, fetch, one, query, rows

pytestmark = pytest.mark.core

PID = "SELECT pg_backend_pid()"


@pytest.fixture(scope="module", params=["transaction", "session"])
def proxy(request, cluster):
    one_shard = [{"name": "app", "shards": cluster.shard_config()[:1]}]
    options = {"workers": 1, "pool": {"size": 4, "mode": request.param}}
    with Proxy(cluster, databases=one_shard, options=options) as started:
        started.wait_nodes()
        yield started


# ---- idle connections in turn ----

def used(cluster, options):
    """Which of three idle connections six statements run on, as numbers in the order of their first use."""
    with Proxy(cluster, options={"workers": 1, "pool": {"size": 3, **options}}) as proxy:
        proxy.wait_nodes()
        clients = [proxy.connect() for _ in range(3)]
        for client in clients:
            client.cursor().execute("BEGIN")
            one(client, "SELECT pg_backend_pid() FOR UPDATE")
        for client in clients:
            client.cursor().execute("ROLLBACK")
        with closing(proxy.connect()) as asking:
            pids = [one(asking, "SELECT pg_backend_pid() FOR UPDATE") for _ in range(6)]
        for client in clients:
            client.close()
    seen = list(dict.fromkeys(pids))
    return [seen.index(pid) for pid in pids]


def test_server_round_robin(cluster):
    assert used(cluster, {"server_round_robin": True}) == [0, 1, 2, 0, 1, 2]
    assert used(cluster, {}) == [0] * 6


# ---- parameters ----

@pytest.fixture
def reconfigured(cluster):
    """A function that sets what servers report by default; undone at the end."""
    def change(value):
        for node in (cluster.shards[0].primary, *cluster.shards[0].replicas):
            node.sql(f"ALTER SYSTEM SET timezone = '{value}'" if value else "ALTER SYSTEM RESET timezone")
            node.sql("SELECT pg_reload_conf()")

    yield change
    change(None)


def told(raw, answer, name="TimeZone"):
    """What the client knows of the parameter, by all it was told."""
    for kind, body in answer:
        if kind == "S":
            key, value, _ = body.split(b"\0")
            raw.parameters[key.decode()] = value.decode()
    return raw.parameters[name]


def test_a_reload_changes_what_is_reported(proxy, reconfigured):
    """Clients hear of it with an answer, those that have said SET do not, and new ones are greeted with it."""
    with Raw(proxy) as idle, Raw(proxy) as own:
        told(own, own.ask(query("SET timezone = 'Europe/Vienna'")))
        before = idle.parameters["TimeZone"]
        assert before not in ("Asia/Tokyo", "Europe/Vienna")
        reconfigured("Asia/Tokyo")
        wait_until(lambda: told(idle, idle.ask(query("/* pgshunt: route=primary */ SELECT 1"))) == "Asia/Tokyo", 10.0,
                   "the client to be told")
        assert rows(idle.ask(query("/* pgshunt: route=primary */ SHOW timezone"))) == [[b"Asia/Tokyo"]]
        for _ in range(3):
            assert told(own, own.ask(query("/* pgshunt: route=primary */ SHOW timezone"))) == "Europe/Vienna"
        wait_until(lambda: greeted(proxy) == "Asia/Tokyo", 10.0, "new clients to be greeted with it")
        assert told(own, own.ask(query("RESET timezone"))) in (before, "Asia/Tokyo")
        wait_until(lambda: told(own, own.ask(query("/* pgshunt: route=primary */ SELECT 1"))) == "Asia/Tokyo", 10.0,
                   "the one that has let go of its own")
        reconfigured(None)
        wait_until(lambda: told(idle, idle.ask(query("/* pgshunt: route=primary */ SELECT 1"))) == before, 10.0, "back")


def greeted(proxy):
    with Raw(proxy) as raw:
        raw.ask(query("/* pgshunt: route=primary */ SELECT 1"))
    with Raw(proxy) as raw:
        return raw.parameters["TimeZone"]


# ---- last words ----

def terminate(cluster, pid):
    primary = cluster.shards[0].primary
    primary.sql(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: not primary.sql(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"), 10.0, "the backend to go")


def test_a_server_that_ends_in_the_pool(cluster):
    """57P01 to a connection that nobody uses: no client hears of it, and the next one gets another."""
    with Proxy(cluster, options={"workers": 1, "pool": {"size": 1}}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as client, closing(proxy.connect()) as other:
            for _ in range(5):
                pid = one(client, "SELECT pg_backend_pid() FOR UPDATE")
                assert one(other, "SELECT pg_backend_pid() FOR UPDATE") == pid
                terminate(cluster, pid)
                assert one(client, "SELECT pg_backend_pid() FOR UPDATE") != pid
                assert fetch(other, "SELECT 1") == [(1,)]


HOLDING = {"in a transaction": ["BEGIN"], "in a failed transaction": ["BEGIN"],
           "with a lock": ["SELECT pg_advisory_lock(815)"]}


def pid_on_primary(raw):
    return int(rows(raw.ask(query("/* pgshunt: route=primary */ " + PID)))[0][0])


@pytest.mark.parametrize("how", HOLDING)
def test_a_server_that_ends_while_its_client_is_idle(cluster, proxy, how):
    """The session lived there: the client is told with the server's SQLSTATE at once, and disconnected."""
    with Raw(proxy) as raw:
        for sql in HOLDING[how]:
            raw.ask(query(sql))
        pid = pid_on_primary(raw)
        if "failed" in how:
            raw.ask(query("SELECT 1/0"))
        terminate(cluster, pid)
        kind, body = raw.read()
        error = fields(body)
        assert kind == "E" and error["S"] == "FATAL" and error["C"] == "57P01" and error["H"], error
        assert raw.at_end()


def test_an_idle_client_that_holds_nothing(cluster, proxy):
    """In session mode its session is gone with the server; in transaction mode nothing of it was there."""
    with Raw(proxy) as raw:
        terminate(cluster, pid_on_primary(raw))
        if proxy.config["pool"]["mode"] == "session":
            kind, body = raw.read()
            assert kind == "E" and fields(body)["C"] == "57P01"
            assert raw.at_end()
        else:
            assert rows(raw.ask(query("/* pgshunt: route=primary */ SELECT 'alive'"))) == [[b"alive"]]
