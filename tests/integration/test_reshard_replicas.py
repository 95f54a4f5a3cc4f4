"""Replicas that are behind a change of owners are not read from: they would have rows of both shards, or of none."""
import pytest

from harness import Cluster, Proxy, wait_until
from reshard_support import bucket

KEYSPACE = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
# Nothing but the change of the map keeps these sessions off a replica that is behind.
OPTIONS = {"routing": {"max_lag": "1h", "read_your_writes": False, "monotonic_reads": False}}


@pytest.fixture
def cluster():
    with Cluster(shards=2, replicas=1) as cluster:
        yield cluster


def test_replica_behind_the_switch(cluster):
    for node in cluster.primaries:
        node.sql("CREATE TABLE users (id bigint PRIMARY KEY)")
    catalog, other = cluster.primaries
    with Proxy(cluster, keyspaces=[KEYSPACE], options=OPTIONS) as proxy:
        proxy.wait_nodes()
        moved = [number for number in range(1, 400) if bucket(number) < 4096]
        proxy.sql("INSERT INTO users SELECT i FROM generate_series(1, 399) i")
        cluster.sync()
        reader = proxy.connect()

        def count():
            with reader.cursor() as cursor:
                cursor.execute("/* pgshunt: route=replica */ SELECT count(*) FROM users")
                return cursor.fetchone()[0]

        wait_until(lambda: count() == 399, 20, "replicas that have the rows")
        replica = cluster.shards[0].replicas[0]
        replica.pause_replay()
        # As a switch does it: rows are on the target, keys are told on the source, then the map changes.
        other.sql("INSERT INTO users SELECT unnest(%s)", (moved,))
        catalog.sql("CREATE TABLE pgshunt.ghost_users (key bigint PRIMARY KEY)")
        catalog.sql("GRANT SELECT ON pgshunt.ghost_users TO PUBLIC")
        catalog.sql("INSERT INTO pgshunt.ghost_users SELECT unnest(%s)", (moved,))
        catalog.sql("UPDATE pgshunt.bucket SET first = 4096 WHERE first = 0;"
                    "INSERT INTO pgshunt.bucket VALUES ('app', 'users', 0, 4095, 's1');"
                    "INSERT INTO pgshunt.ghost VALUES ('app', 'users', 's0', 'hand');"
                    "UPDATE pgshunt.epoch SET epoch = epoch + 1; NOTIFY pgshunt_map, 'app'")
        wait_until(lambda: catalog.value("SELECT min(epoch) FROM pgshunt.proxy") == 2, 20, "the proxy to follow")
        assert [count() for _ in range(20)] == [399] * 20
        replica.resume_replay()
        cluster.sync()
        assert count() == 399
        reader.close()
