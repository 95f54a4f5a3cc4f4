"""What operators see when things are not as they should be: waiting clients, dead nodes, bad reloads; the console
over the extended protocol."""
import json
import re
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy
from harness.process import wait_until
from support import Raw, bind, close, describe, execute, kinds, parse, query, refused, FLUSH, SYNC


def get(proxy, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def sample(proxy, name, **labels):
    """The value of the one sample with at least these labels, or None."""
    found = []
    for line in get(proxy, "/metrics")[1].splitlines():
        match = re.fullmatch(r"pgshunt_(\w+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name:
            has = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            if labels.items() <= has.items():
                found.append(float(match[3]))
    assert len(found) < 2, f"{name} {labels}: {found}"
    return found[0] if found else None


def pool(proxy, database="app"):
    return next(row for row in proxy.show("POOLS") if row["database"] == database)


# ---- waiting ----

def test_waiting_clients_are_seen(cluster):
    with Proxy(cluster, dbname="plain", databases=[{
            "name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}],
            options={"pool": {"size": 1}, "routing": {"read_write_split": False}}) as proxy:
        with closing(proxy.connect(autocommit=False)) as holder, closing(proxy.connect()) as waiter:
            holder.cursor().execute("SELECT 1")
            thread = threading.Thread(target=lambda: waiter.cursor().execute("SELECT 2"))
            thread.start()
            wait_until(lambda: pool(proxy, "plain")["cl_waiting"] == 1, 10, "a waiting client")
            time.sleep(1.1)
            row = pool(proxy, "plain")
            assert row["sv_active"] == 1 and row["cl_active"] == 1 and row["maxwait"] >= 1
            assert {client["state"] for client in proxy.show("CLIENTS") if client["database"] == "plain"} \
                == {"active", "waiting"}
            server = next(row for row in proxy.show("SERVERS") if row["state"] == "active")
            client = next(row for row in proxy.show("CLIENTS") if row["link"])
            assert client["link"] == server["ptr"] and server["link"] == client["ptr"]
            assert sample(proxy, "pool_waiting_clients", database="plain") == 1
            assert sample(proxy, "pool_longest_wait_seconds", database="plain") > 1
            assert sample(proxy, "clients", database="plain", state="waiting") == 1
            assert sample(proxy, "pool_size", database="plain") == 1
            holder.rollback()
            thread.join(10)
        assert sample(proxy, "wait_seconds_total", database="plain") > 1
        assert next(row for row in proxy.show("STATS") if row["database"] == "plain")["total_wait_time"] > 1e6


# ---- nodes ----

def test_ready_and_not_ready():
    with Cluster(shards=2, replicas=0) as cluster, Proxy(cluster) as proxy:
        proxy.wait_nodes()
        assert get(proxy, "/readyz") == (200, "ready\n")
        cluster.nodes[1].kill9()
        wait_until(lambda: get(proxy, "/readyz")[0] == 503, 15, "not ready")
        assert get(proxy, "/readyz")[1] == "database app: shard s1 has no primary\n"
        assert get(proxy, "/healthz")[0] == 200
        assert sample(proxy, "shard_has_primary", shard="s1") == 0
        assert sample(proxy, "node_up", shard="s1") == 0 and sample(proxy, "node_up", shard="s0") == 1
        assert {row["shard"]: row["state"] for row in proxy.show("NODES")} == {"s0": "up", "s1": "down"}
        assert {row["shard"]: row["primary"] is None for row in proxy.show("SHARDS")} == {"s0": False, "s1": True}
        status = json.loads(get(proxy, "/api/status")[1])
        assert [shard["primary"] is None for shard in status["databases"][0]["shards"]] == [False, True]


def test_ready_without_a_shard_that_owns_nothing():
    """A new shard may be a replica still, or not be there at all: nobody's statement goes to it."""
    keyspace = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
    with Cluster(shards=2, replicas=0) as cluster:
        shards = [{**shard, "weight": weight} for shard, weight in zip(cluster.shard_config(), (1, 0))]
        with Proxy(cluster, keyspaces=[keyspace], database={"shards": shards}) as proxy:
            proxy.wait_nodes()
            cluster.nodes[1].kill9()
            wait_until(lambda: sample(proxy, "shard_has_primary", shard="s1") == 0, 15, "no primary")
            assert get(proxy, "/readyz") == (200, "ready\n")
            cluster.nodes[0].kill9()
            wait_until(lambda: get(proxy, "/readyz")[0] == 503, 15, "not ready")
            assert get(proxy, "/readyz")[1] == "database app: shard s0 has no primary\n"



def test_reload_that_fails(cluster):
    with Proxy(cluster) as proxy, closing(proxy.connect("pgshunt")) as console:
        assert sample(proxy, "config_last_reload_successful") == 1
        with open(proxy.config_path) as conf:
            good = conf.read()
        proxy.write_config(good + "nonsense = 1;\n")
        with refused("F0000", "nonsense"):
            console.cursor().execute("RELOAD")
        assert sample(proxy, "config_last_reload_successful") == 0 and sample(proxy, "config_version") == 1
        proxy.change({"pool": {"size": 5}})
        console.cursor().execute("RELOAD")
        assert sample(proxy, "config_last_reload_successful") == 1 and sample(proxy, "config_version") == 2
        cursor = console.cursor()
        cursor.execute("SHOW pool.size")
        assert cursor.fetchall() == [("5",)]


def test_who_is_no_longer_admin(cluster):
    with Proxy(cluster) as proxy, closing(proxy.connect("pgshunt")) as console:
        proxy.users[0]["admin"] = False
        proxy.write_config()
        console.cursor().execute("RELOAD")

        def is_refused():  # workers take the new configuration one by one, just after the answer
            try:
                console.cursor().execute("SHOW POOLS")
            except psycopg2.Error as error:
                return error.pgcode == "42501"
            return False
        wait_until(is_refused, 5.0, "the console to notice")


def test_shutdown_command(cluster):
    with Proxy(cluster) as proxy:
        proxy.sql("SHUTDOWN", dbname="pgshunt")
        assert proxy.wait() == 0
        proxy.start()


# ---- the console's protocols ----

@pytest.fixture()
def raw(proxy):
    with Raw(proxy, database="pgshunt") as raw:
        yield raw


def test_several_commands(raw):
    assert kinds(raw.ask(query("SHOW VERSION; SHOW STATE;; SELECT 1"))) == "TDCTDDDDCTDCZ"
    assert kinds(raw.ask(query("SHOW VERSION; NONSENSE; SHOW STATE"))) == "TDCEZ"


def test_extended(raw):
    answer = raw.ask(parse("s", "SHOW VERSION"), describe("S", "s"), bind("", "s"), describe("P", ""), execute(),
                     close("S", "s"), SYNC)
    assert kinds(answer) == "1tT2TDC3Z"
    assert kinds(raw.ask(parse("", "RELOAD"), bind("", ""), describe("P", ""), execute(), SYNC)) == "12nCZ"
    assert kinds(raw.ask(parse("", ""), bind("", ""), execute(), SYNC)) == "12IZ"


def test_extended_in_a_pipeline(raw):
    """Reports of other workers are waited for, in order."""
    raw.send(parse("a", "SHOW POOLS"), parse("b", "SHOW STATE"),
             bind("", "a"), execute(), bind("", "b"), execute(), FLUSH, SYNC, query("SELECT 1"))
    assert re.fullmatch("112D*C2DDDDCZ", kinds(raw.until_ready()))
    assert kinds(raw.until_ready()) == "TDCZ"


def test_extended_row_limit(raw):
    raw.send(parse("", "SHOW STATE"), bind("p", ""), execute("p", 3), execute("p", 3), execute("p", 3), SYNC)
    assert kinds(raw.until_ready()) == "12DDDsDCCZ"


def test_extended_errors_skip_to_sync(raw):
    for messages in ([parse("", "NONSENSE"), bind("", ""), execute()],
                     [parse("", "SHOW STATE; SHOW STATE"), bind("", "")],
                     [bind("", "nothing"), execute()], [execute("nothing")], [describe("S", "nothing")],
                     [describe("P", "nothing")]):
        assert kinds(raw.ask(*messages, SYNC)) == "EZ", messages
    assert kinds(raw.ask(parse("x", "SHOW STATE"), bind("", "x", [b"1"]), execute(), SYNC)) == "1EZ"
    assert kinds(raw.ask(parse("x", "SHOW STATE"), SYNC)) == "EZ"
    assert kinds(raw.ask(query("DEALLOCATE x"))) == "CZ"
    assert kinds(raw.ask(parse("x", "SHOW STATE"), bind("", "x", results=[0, 0, 0]), SYNC)) == "1EZ"
    assert kinds(raw.ask(query("SHOW VERSION"))) == "TDCZ"


def test_hostile_messages_end_the_session(proxy):
    for body in (b"", b"x", b"\0\0", b"\0SHOW POOLS", b"\0\0\0\7"):
        for kind in b"PBDEC":
            with Raw(proxy, database="pgshunt") as raw:
                raw.send(bytes([kind]) + (len(body) + 4).to_bytes(4, "big") + body, SYNC)
                try:
                    answer = kinds(raw.until_ready())
                except EOFError:
                    answer = ""
                assert answer in ("", "EZ"), (chr(kind), body, answer)
    assert proxy.show("VERSION")


def test_clients_that_leave_in_the_middle(proxy):
    for _ in range(50):
        with Raw(proxy, database="pgshunt") as raw:
            raw.send(query("SHOW CLIENTS; SHOW SERVERS; SHOW POOLS"), parse("", "SHOW STATS"), bind("", ""),
                     execute(), SYNC)
    wait_until(lambda: len([row for row in proxy.show("CLIENTS") if row["database"] == "pgshunt"]) == 1, 10,
               "their end")


@pytest.mark.parametrize("binary", [False, True])
def test_psycopg3(proxy, binary):
    with closing(proxy.connect3("pgshunt", prepare_threshold=2)) as connection:
        cursor = connection.cursor(binary=binary)
        for _ in range(5):  # prepared from the third time on
            rows = cursor.execute("SHOW NODES").fetchall()
            assert {row[7] for row in rows} <= {"primary", "replica", "unknown"}
            totals = dict(cursor.execute("SHOW TOTALS").fetchall())
            assert totals["total_query_count"] > 0
    with closing(proxy.connect3("pgshunt", autocommit=False)) as connection:
        assert connection.execute("SHOW LISTS").fetchall()
        with pytest.raises(Exception):
            connection.execute("NONSENSE")
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_binary_is_what_text_says(proxy):
    def rows(binary):
        with closing(proxy.connect3("pgshunt")) as connection:
            return connection.cursor(binary=binary).execute("SHOW DATABASES").fetchall()

    assert [row[:12] for row in rows(True)] == [row[:12] for row in rows(False)]


def test_application_name(proxy):
    with closing(proxy.connect("pgshunt")) as console:
        console.cursor().execute("SET application_name = 'it''s me'")
        assert [row for row in proxy.show("CLIENTS") if row["application_name"] == "it's me"]


def test_a_driver_in_a_transaction(proxy):
    with closing(proxy.connect("pgbouncer", autocommit=False)) as console:
        cursor = console.cursor()
        cursor.execute("SHOW VERSION")
        assert console.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
        console.commit()
        assert console.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
