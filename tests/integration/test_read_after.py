"""Reads that follow another session's writes: SHOW pgshunt.position there, SET pgshunt.read_after here."""
import re
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until

ROUTING = {"routing": {"max_lag": "1d", "failover_wait": "500ms"}}
SHARDS = "s0", "s1"


@pytest.fixture(scope="module")
def cluster():
    """Two shards, each with a replica that applies nothing until it is told to."""
    with Cluster(shards=2, replicas=1) as cluster:
        for shard in cluster.shards:
            shard.primary.sql("CREATE TABLE t (n int)")
        cluster.sync()
        yield cluster


@pytest.fixture(scope="module")
def proxies(cluster):
    with Proxy(cluster, options=ROUTING) as one, Proxy(cluster, options=ROUTING) as other:
        yield one, other


@pytest.fixture
def delayed(cluster):
    for shard in cluster.shards:
        shard.replicas[0].set_apply_delay("1h")
    yield cluster
    for shard in cluster.shards:
        shard.replicas[0].set_apply_delay("0")
    cluster.sync()


def run(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def on_replica(connection, shard):
    return run(connection, f"/* pgshunt: shard={shard} */ SELECT pg_is_in_recovery()")


def rows(connection, shard):
    return run(connection, f"/* pgshunt: shard={shard} */ SELECT count(*) FROM t")


def write(connection):
    for shard in SHARDS:
        run(connection, f"/* pgshunt: shard={shard} */ INSERT INTO t VALUES (1)")


def reader(proxy, **more):
    """Each of its reads is on its own: what it has read before asks nothing of the next one."""
    wait_until(lambda: all(row["lag_ms"] is not None for row in proxy.show("NODES")), 20.0, "lags")
    connection = proxy.connect(**more)
    run(connection, "SET pgshunt.monotonic_reads = off")
    return connection


def refusal(connection, sql):
    with pytest.raises(psycopg2.Error) as refused:
        run(connection, sql)
    return refused.value


def test_a_token_holds_through_another_proxy(delayed, proxies):
    with closing(proxies[0].connect()) as writer:
        before = [rows(writer, shard) for shard in SHARDS]
        write(writer)
        token = run(writer, "SHOW pgshunt.position")
    assert re.fullmatch(r"s0:1:[0-9A-F]+/[0-9A-F]+\+s1:1:[0-9A-F]+/[0-9A-F]+", token)
    for proxy in proxies:
        with closing(reader(proxy)) as session:
            assert [on_replica(session, shard) for shard in SHARDS] == [True, True]
            assert [rows(session, shard) for shard in SHARDS] == before  # stale, as it may be
            run(session, f"SET pgshunt.read_after = '{token}'")
            assert run(session, "SHOW pgshunt.read_after") == token
            assert [on_replica(session, shard) for shard in SHARDS] == [False, False]
            assert [rows(session, shard) for shard in SHARDS] == [n + 1 for n in before]
            run(session, "RESET pgshunt.read_after")
            assert run(session, "SHOW pgshunt.read_after") == ""
            assert on_replica(session, "s1")
            run(session, "BEGIN READ ONLY")
            run(session, f"SET LOCAL pgshunt.read_after = '{token}'")
            assert not on_replica(session, "s0")
            run(session, "COMMIT")
            assert on_replica(session, "s0")
            run(session, f"/* pgshunt: read_after={token} */ BEGIN READ ONLY")
            assert not on_replica(session, "s1")
            run(session, "ROLLBACK")
            assert on_replica(session, "s1")
        with closing(reader(proxy, options=f"-c pgshunt.read_after={token}")) as session:
            assert not on_replica(session, "s0")
            run(session, "SET pgshunt.read_after = ''")
            assert on_replica(session, "s0")
            run(session, "RESET ALL")
            assert run(session, "SHOW pgshunt.read_after") == token
            assert not on_replica(session, "s0")
    # each shard by itself, and only until its replica is there
    delayed.shards[1].replicas[0].set_apply_delay("0")
    with closing(reader(proxies[1])) as session:
        run(session, f"SET pgshunt.read_after = '{token}'")
        wait_until(lambda: on_replica(session, "s1"), 20.0, "the replica of s1")
        assert rows(session, "s1") == before[1] + 1
        assert not on_replica(session, "s0")


def test_positions_grow_and_hold_at_once(cluster, proxies):
    """Token after token, each used at once: no read misses the write before it, and replicas do serve some."""
    seen = 0
    with closing(proxies[0].connect()) as writer, closing(reader(proxies[1])) as session:
        start = rows(writer, "s0")
        for number in range(1, 41):
            write(writer)
            run(session, f"SET pgshunt.read_after = '{run(writer, 'SHOW pgshunt.position')}'")
            found = run(session, "/* pgshunt: shard=s0 */ SELECT count(*) * 2 + pg_is_in_recovery()::int FROM t")
            assert found // 2 == start + number
            seen += found % 2
        wait_until(lambda: on_replica(session, "s0"), 20.0, "a read on the replica")
        assert rows(session, "s0") == start + 40


def test_through_the_extended_protocol(proxies):
    with proxies[0].connect3() as writer, closing(reader(proxies[1])) as session:
        writer.execute("/* pgshunt: shard=s0 */ INSERT INTO t VALUES (%s)", (2,))
        cursor = writer.execute("SHOW pgshunt.position", prepare=True)
        assert cursor.description[0].name == "pgshunt.position"
        run(session, f"SET pgshunt.read_after = '{cursor.fetchone()[0]}'")
        assert rows(session, "s0") == rows(writer_of(proxies[0]), "s0")
        with pytest.raises(Exception) as refused, writer.pipeline():
            writer.execute("/* pgshunt: shard=s0 */ INSERT INTO t VALUES (%s)", (3,))
            writer.execute("SHOW pgshunt.position")
        assert refused.value.sqlstate == "25001" and "Sync" in refused.value.diag.message_hint
        assert writer.execute("SHOW pgshunt.position").fetchone()[0].startswith("s0:1:")


def writer_of(proxy):
    connection = proxy.connect()
    run(connection, "SET pgshunt.route = 'primary'")
    return connection


@pytest.mark.parametrize("value, detail", [
    ("nonsense", "form"), ("s0:1:0/1", 'nothing of shard "s1"'), ("s0:1:0/1+s0:1:0/2", "twice"),
    ("s0:1:0/1+s9:1:0/1", 'no shard "s9"'), ("s0:0:0/1+s1:1:0/1", "form"), ("s0:1:0/1+s1:1:0/1+", "form"),
    ("x" * 5000 + ":1:0/1", "form"),
])
def test_what_is_no_token(proxies, value, detail):
    with closing(proxies[0].connect()) as session:
        error = refusal(session, f"SET pgshunt.read_after = '{value}'")
        assert error.pgcode == "22023" and detail in error.diag.message_detail
        assert "SHOW pgshunt.position" in error.diag.message_hint
        assert run(session, "SHOW pgshunt.read_after") == ""
    with pytest.raises(psycopg2.OperationalError, match="invalid value for parameter"):
        proxies[0].connect(options=f"-c pgshunt.read_after={value[:300]}")


def test_when_it_cannot_be_told_or_taken(delayed, proxies):
    far = "s0:1:FFFFFFFF/0+s1:1:FFFFFFFF/0"
    with closing(reader(proxies[0])) as session:
        error = refusal(session, f"SET pgshunt.position = '{far}'")
        assert error.pgcode == "55P02" and "read_after" in error.diag.message_hint
        run(session, "BEGIN")
        assert run(session, "SHOW pgshunt.position")  # nothing is written yet
        run(session, "/* pgshunt: shard=s0 */ INSERT INTO t VALUES (4)")
        error = refusal(session, "SHOW pgshunt.position")
        assert error.pgcode == "25001" and "COMMIT" in error.diag.message_hint
        run(session, "ROLLBACK")
        run(session, "BEGIN READ ONLY")
        assert on_replica(session, "s0")
        error = refusal(session, f"SET pgshunt.read_after = '{far}'")
        assert error.pgcode == "25001" and "first statement" in error.diag.message_hint
        run(session, "ROLLBACK")
        run(session, f"SET pgshunt.read_after = '{far}'")  # of a time to come
        assert not on_replica(session, "s0")


def test_no_token_without_a_primary(cluster, proxies):
    primary = cluster.shards[1].primary
    with closing(proxies[0].connect()) as session:
        primary.stop()
        try:
            error = refusal(session, "SHOW pgshunt.position")
            assert error.pgcode == "08006" and "shard s1" in str(error) and "SHOW NODES" in error.diag.message_hint
        finally:
            primary.start()
        wait_until(lambda: any(row["role"] == "primary" and row["state"] == "up" and int(row["port"]) == primary.port
                               for row in proxies[0].show("NODES")), 20.0, "the primary")
        assert run(session, "SHOW pgshunt.position").startswith("s0:")
