"""kill -9 of a replica: no client notices. kill -9 of a primary: its writes fail clearly, all else goes on."""
import os
import re
import subprocess
import tempfile
import time
from contextlib import closing

import psycopg2
import pytest

from harness.sample import USERS
from harness import Cluster, Load, Proxy, pg_binary, wait_until
from harness.cluster import tool_environment
from support import fetch, one

pytestmark = [pytest.mark.core, pytest.mark.slow]


@pytest.fixture(scope="module")
def own_cluster():
    with Cluster(shards=2, replicas=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def killable(own_cluster):
    """A proxy over two shards of three nodes, with users 1..400 and their homes. A replica that is behind, as on a busy
    machine, is read from nevertheless: a read that had to go to a primary would be lost with it."""
    options = {"pool": {"connect_timeout": "2s", "query_wait_timeout": "5s"},
               "routing": {"failover_wait": "0s", "no_replica": "least_lagged"},
               "health": {"breaker_failures": 0}}  # the same nodes go down again and again
    with Proxy(own_cluster, keyspaces=[USERS], options=options) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            connection.cursor().execute("CREATE TABLE users (id bigint PRIMARY KEY, name text, n int NOT NULL DEFAULT 0)")
            wait_until(lambda: one(connection, "SELECT count(*) FROM users") == 0, 10.0, "table known")
            connection.cursor().execute("INSERT INTO users VALUES " +
                                        ", ".join(f"({i}, 'user {i}', 0)" for i in range(1, 401)))
        own_cluster.sync()
        proxy.homes = {row[0]: index for index, node in enumerate(own_cluster.primaries)
                       for row in node.sql("SELECT id FROM users")}
        assert len(proxy.homes) == 400
        yield proxy


def state_of(proxy, node):
    return next(row["state"] for row in proxy.show("NODES") if int(row["port"]) == node.port)


def point_reads(connection):
    number = int(time.monotonic() * 1e6) % 400 + 1
    assert fetch(connection, "SELECT id, name FROM users WHERE id = %s", (number,)) == [(number, f"user {number}")]


def test_killed_replica_costs_no_client_an_error(own_cluster, killable):
    with Load(killable, point_reads, clients=8) as load:
        load.wait_progress(200)
        for replica in [shard.nodes[1] for shard in own_cluster.shards]:
            replica.kill9()
            load.wait_progress(200)
            wait_until(lambda: state_of(killable, replica) == "down", 10.0, "replica seen as down")
            replica.start()
            wait_until(lambda: state_of(killable, replica) == "up", 15.0, "replica back")
            load.wait_progress(100)
    assert load.errors == []
    assert load.done > 500


POINT = "\\set id random(1, 400)\nSELECT name FROM users WHERE id = :id;\n"
FAN_OUT = ("\\set id random(1, 400)\nSELECT count(*) FROM users WHERE n < :id;\n"
           "SELECT id, name FROM users WHERE n < :id ORDER BY id LIMIT 5;\n")
WRITE = "\\set id random(1, 400)\nUPDATE users SET n = n + 1 WHERE id = :id;\n"


# Who has seen a primary's state that no replica is known to have waits for that primary: not what is looked at.
ANY_STATE = "-c pgshunt.monotonic_reads=off -c pgshunt.read_your_writes=off"


def start_pgbench(proxy, script, mode, *args, clients=8, **dsn):
    with tempfile.NamedTemporaryFile("w", suffix=".sql", dir=proxy.folder, delete=False) as file:
        file.write(script)
    return subprocess.Popen(
        [pg_binary("pgbench"), "-n", "-M", mode, "-f", file.name, "-c", str(clients), "-j", "2", *args, proxy.dsn(**dsn)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=tool_environment())


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("script", [POINT, FAN_OUT], ids=["point", "fan-out"])
def test_pgbench_notices_no_killed_replica(own_cluster, killable, script, mode):
    """Under load one replica of each shard is killed and comes back: zero errors, in every protocol."""
    bench = start_pgbench(killable, script, mode, "-T", "5")
    try:
        for victim in (own_cluster.shards[0].nodes[1], own_cluster.shards[1].nodes[2]):
            time.sleep(0.7)
            assert bench.poll() is None
            victim.kill9()
            time.sleep(0.7)
            victim.start()
        out = bench.communicate(timeout=60)[0]
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == 0 and not re.search("error:|aborted", out), out[-3000:]
    assert "number of failed transactions: 0 " in out
    assert int(re.search(r"actually processed: (\d+)", out)[1]) > 100
    for node in own_cluster.replicas:
        wait_until(lambda: state_of(killable, node) == "up", 15.0, "replica back")


def test_read_in_flight_is_repeated_elsewhere(own_cluster, killable):
    """Every replica is killed while reads sleep on them; each read is answered all the same."""
    def slow_read(connection):
        assert one(connection, "SELECT name FROM users, pg_sleep(0.3) WHERE id = 7") == "user 7"

    home = own_cluster.shards[killable.homes[7]]
    with Load(killable, slow_read, clients=6) as load:
        load.wait_progress(12)
        for replica in home.replicas:
            replica.kill9()
        load.wait_progress(30)
        for replica in home.replicas:
            replica.start()
    assert load.errors == []
    for replica in home.replicas:
        wait_until(lambda: state_of(killable, replica) == "up", 15.0, "replica back")


def test_fan_out_survives_a_killed_replica(own_cluster, killable):
    def count(connection):
        assert one(connection, "SELECT count(*) FROM users") == 400

    victim = own_cluster.shards[0].nodes[2]
    with Load(killable, count, clients=4) as load:
        load.wait_progress(40)
        victim.kill9()
        load.wait_progress(80)
        victim.start()
    assert load.errors == []
    wait_until(lambda: state_of(killable, victim) == "up", 15.0, "replica back")


def test_killed_primary(own_cluster, killable):
    """Writes on its shard fail with a clear error; the other shard and all reads go on; a restart heals it."""
    victim = own_cluster.shards[0].primary
    dead = [number for number, home in killable.homes.items() if home == 0]
    alive = [number for number, home in killable.homes.items() if home == 1]
    turn = iter(range(10 ** 9))

    def write_alive(connection):
        number = alive[next(turn) % len(alive)]
        connection.cursor().execute("UPDATE users SET n = n + 1 WHERE id = %s", (number,))

    def read_all(connection):
        number = (dead + alive)[next(turn) % 400]
        assert one(connection, "SELECT id FROM users WHERE id = %s", (number,)) == number

    with Load(killable, write_alive, clients=3) as writes, Load(killable, read_all, clients=3) as reads:
        writes.wait_progress(30)
        reads.wait_progress(30)
        victim.kill9()
        began = time.monotonic()
        with pytest.raises(psycopg2.Error) as caught:
            killable.sql("UPDATE users SET n = n + 1 WHERE id = %s", (dead[0],))
        assert time.monotonic() - began < 12
        assert caught.value.pgcode in ("08006", "08001", "57P01", "57P03", "25006", None), caught.value.pgcode
        assert "s0" in str(caught.value) or str(victim.port) in str(caught.value), str(caught.value)
        wait_until(lambda: state_of(killable, victim) == "down", 10.0, "primary seen as down")
        writes.wait_progress(100)
        reads.wait_progress(100)
        with pytest.raises(psycopg2.Error) as caught:
            killable.sql("UPDATE users SET n = n + 1 WHERE id = %s", (dead[0],))
        assert caught.value.diag.message_hint or caught.value.pgcode
        victim.start()

        def heals():
            try:
                killable.sql("UPDATE users SET n = n + 1 WHERE id = %s", (dead[0],))
                return True
            except psycopg2.Error:
                return False

        wait_until(heals, 20.0, "writes on the restarted primary")
    assert writes.errors == []
    # Reads of the dead shard may have been on the primary only if no replica was fresh: there are two.
    assert reads.errors == []


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_with_a_killed_primary(own_cluster, killable, mode):
    """pgbench's clients that write there end with a clear error that names the shard; those of the other shard go on,
    and so do reads of both; after a restart it runs again on the same proxy."""
    victim = own_cluster.shards[0].primary
    alive = [number for number, home in killable.homes.items() if home == 1]
    ids = ", ".join(str(number) for number in alive[:20])
    other = f"UPDATE users SET n = n + 1 WHERE id = {alive[0]};\nSELECT count(*) FROM users WHERE id IN ({ids});\n" + POINT
    goes_on = start_pgbench(killable, other, mode, "-T", "5", clients=4, options=ANY_STATE)
    hit = start_pgbench(killable, WRITE, mode, "-T", "5", clients=4)
    try:
        time.sleep(1)
        victim.kill9()
        time.sleep(1)
        with pytest.raises(psycopg2.Error) as caught:
            killable.sql("UPDATE users SET n = n + 1 WHERE id = %s", (next(
                number for number, home in killable.homes.items() if home == 0),))
        assert "s0" in str(caught.value) or str(victim.port) in str(caught.value)
        assert caught.value.diag.message_hint
        assert killable.value("SELECT count(*) FROM users") == 400
        failed = hit.communicate(timeout=60)[0]
        unharmed = goes_on.communicate(timeout=60)[0]
    finally:
        for bench in (hit, goes_on):
            bench.kill()
            bench.wait()
        victim.start()
    assert hit.returncode == 2
    errors = re.findall(r"ERROR:.*", failed)
    assert errors and all(str(victim.port) in error or "s0" in error for error in errors), failed[-3000:]
    assert goes_on.returncode == 0 and "number of failed transactions: 0 " in unharmed, unharmed[-3000:]
    wait_until(lambda: state_of(killable, victim) == "up", 15.0, "primary back")
    again = start_pgbench(killable, WRITE, mode, "-t", "30")
    out = again.communicate(timeout=60)[0]
    assert again.returncode == 0, out[-3000:]


def test_promoted_replica_takes_over(own_cluster, killable):
    """Who is primary is discovered: after a promotion writes go there, without touching the proxy."""
    shard = own_cluster.shards[1]
    old, new = shard.primary, shard.nodes[1]
    number = next(number for number, home in killable.homes.items() if home == 1)
    own_cluster.sync()
    old.stop("immediate")
    shard.promote(new)

    def writes_on_new():
        try:
            return killable.value("UPDATE users SET n = n + 1 WHERE id = %s RETURNING inet_server_port()",
                                  (number,)) == new.port
        except psycopg2.Error:
            return False

    wait_until(writes_on_new, 20.0, "writes on the promoted node")
    shard.follow(old)

    def shown(node):
        return next((row["state"], row["role"]) for row in killable.show("NODES") if int(row["port"]) == node.port)

    wait_until(lambda: shown(old) == ("up", "replica"), 15.0, "old primary back as a replica")
    assert shown(new) == ("up", "primary")


def test_killed_proxy_leaves_no_transaction_open(own_cluster, killable):
    """kill -9 of the proxy: the servers roll back what was open, a new proxy serves at once."""
    connection = killable.connect()
    connection.cursor().execute("BEGIN")
    connection.cursor().execute("UPDATE users SET n = -5 WHERE id = 3")
    killable.kill9()
    killable.start()
    killable.wait_nodes()
    assert killable.value("SELECT n >= 0 FROM users WHERE id = 3") is True
    killable.sql("UPDATE users SET n = 1 WHERE id = 3")


def test_frozen_replica_is_left_alone(own_cluster, killable):
    """A server that accepts and never answers is taken out; reads go elsewhere."""
    victim = own_cluster.shards[0].nodes[1]
    victim.freeze()
    try:
        wait_until(lambda: state_of(killable, victim) == "down", 15.0, "frozen node seen as down")
        for number in range(1, 21):
            assert killable.value("SELECT id FROM users WHERE id = %s", (number,)) == number
    finally:
        victim.thaw()
    wait_until(lambda: state_of(killable, victim) == "up", 20.0, "thawed node back")
