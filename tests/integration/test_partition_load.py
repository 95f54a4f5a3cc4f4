"""Partitions come and go while clients insert as fast as they can and read for long on all shards; figures: make bench-partitions."""
import time

from harness import Cluster, Proxy
from partition_load import Load, keyspaces


def test_nothing_fails_and_no_row_is_lost():
    with Cluster(shards=2, replicas=0) as cluster:
        with Proxy(cluster, keyspaces=keyspaces(), options={"partition": {"schedule": ""}}) as proxy:
            proxy.wait_nodes()
            load = Load(proxy, cluster.primaries, [(node, "app") for node in cluster.primaries])
            load.prepare()
            took = load.run(8, lambda: load.maintain(time.monotonic() + 6))
            assert load.errors == [] and took and load.read
            load.settle()
            count, archived = load.rows()
            assert count + archived == load.filled and archived > 0
            for node in cluster.primaries:
                assert node.value("SELECT count(*) FROM pg_inherits WHERE inhdetachpending", dbname="app") == 0
                assert node.value("SELECT count(*) FROM pgshunt.partition_leaving", dbname="app") == 0
            load.ctl("check", "beside", "--now", load.last, code=0)
