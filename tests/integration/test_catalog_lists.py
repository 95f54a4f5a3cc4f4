"""The values of large lists are read again only when the map's number has changed."""
from contextlib import closing

import pytest

from harness import Cluster, Proxy, wait_until

pytestmark = pytest.mark.core

VALUES = 800
NAMES = [f"town{number}" for number in range(VALUES)]
KEYSPACE = {"name": "towns", "type": "text", "map": "list",
            "lists": [{"shard": "s0", "values": NAMES[:VALUES // 2]}, {"shard": "s1", "values": NAMES[VALUES // 2:]}],
            "tables": [{"name": "visits", "key": "town"}]}


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0) as cluster:
        for node in cluster.primaries:
            node.sql("CREATE TABLE visits (town text, n int)")
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=[KEYSPACE], options={"catalog": {"interval": "100ms"}}) as proxy:
        proxy.wait_nodes()
        wait_until(lambda: epoch(proxy) >= 1, 30, "the map to be recorded")
        yield proxy


def epoch(proxy):
    with closing(proxy.connect(dbname="pgshunt")) as console, console.cursor() as cursor:
        cursor.execute("SHOW MAPS")
        return cursor.fetchone()[1]


def reads(node):
    """How often the number was looked at, and how many values were read."""
    return node.sql("SELECT sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)) FILTER (WHERE relname = 'epoch')::int, "
                    "sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FILTER (WHERE relname = 'piece')::int "
                    "FROM pg_stat_user_tables WHERE schemaname = 'pgshunt'")[0]


def settled(node):
    """What was read until now, when that is told: sessions tell of it a second late at least."""
    looks, _ = reads(node)
    wait_until(lambda: reads(node)[0] >= looks + 10, 60, "more looks at the catalog")
    return reads(node)


def raise_epoch(node, *statements):
    with closing(node.connect()) as connection, connection.cursor() as cursor:
        for statement in (*statements, "UPDATE pgshunt.epoch SET epoch = epoch + 1", "NOTIFY pgshunt_map, 'app'"):
            cursor.execute(statement)
        connection.commit()


def shards_with(cluster, town):
    return [number for number, node in enumerate(cluster.primaries) if node.value("SELECT count(*) FROM visits WHERE town = %s", (town,))]


def test_values_are_read_once_per_map(cluster, proxy):
    node = cluster.primaries[0]
    before = settled(node)
    after = settled(node)
    assert after[0] >= before[0] + 10 and after[1] == before[1]
    number = epoch(proxy)
    raise_epoch(node)
    wait_until(lambda: epoch(proxy) > number, 30, "the new map")
    wait_until(lambda: reads(node)[1] >= after[1] + VALUES, 60, "the values to be read again")


def test_what_has_changed_counts(cluster, proxy):
    """Values that change with the number, or come by the configuration; a hold leaves them as they are."""
    node = cluster.primaries[0]
    number = epoch(proxy)
    raise_epoch(node, "UPDATE pgshunt.piece SET value = 'renamed' WHERE value = 'town799'")
    wait_until(lambda: epoch(proxy) > number, 30, "the new map")
    proxy.sql("INSERT INTO visits VALUES ('renamed', 1), ('town1', 1)")
    assert shards_with(cluster, "renamed") == [1] and shards_with(cluster, "town1") == [0]
    for _ in range(3):  # maps that share the values come and go
        node.sql("INSERT INTO pgshunt.hold (database, until) VALUES ('app', now() + interval '1 s')")
        node.sql("NOTIFY pgshunt_map, 'app'")
        wait_until(lambda: node.value("SELECT count(*) FROM pgshunt.hold") == 0 or proxy.sql("SELECT 1") == [(1,)], 30, "a look")
        node.sql("DELETE FROM pgshunt.hold")
        proxy.sql("UPDATE visits SET n = n + 1 WHERE town = 'renamed'")
    assert proxy.sql("SELECT n FROM visits WHERE town = 'renamed'") == [(4,)]
    # What the configuration has more is recorded, though nothing else has changed.
    proxy.config["databases"][0]["keyspaces"][0]["lists"][1]["values"] = [*NAMES[VALUES // 2:], "hamlet"]
    proxy.write_config()
    proxy.reload()
    wait_until(lambda: node.value("SELECT count(*) FROM pgshunt.piece WHERE value = 'hamlet'") == 1, 30, "the value")
    wait_until(lambda: epoch(proxy) == node.value("SELECT epoch FROM pgshunt.epoch"), 30, "the new map")
    proxy.sql("INSERT INTO visits VALUES ('hamlet', 1)")
    assert shards_with(cluster, "hamlet") == [1]
    assert shards_with(cluster, "renamed") == [1] and shards_with(cluster, "town1") == [0]
