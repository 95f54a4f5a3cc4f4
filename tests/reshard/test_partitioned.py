"""Partitioned tables the whole way: a policy, rows, a shard more, a resharding under writes, maintenance on all shards."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from ctl_support import ctl, start_ctl  # noqa: E402
from harness import Cluster, Load, Proxy, wait_until  # noqa: E402

pytestmark = pytest.mark.slow
KEYSPACE = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, {"name": "events", "key": "user_id"}]}
ROWS = 3000


def ranges(node):
    return node.sql("SET TimeZone = 'UTC'; SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
                    " WHERE i.inhparent = 'events'::regclass ORDER BY 1", dbname="app")


@pytest.mark.parametrize("default, sub", [("off", "none"), ("on", "none"), ("off", "hash:id:2"), ("on", "range:1week")])
def test_a_new_shard_gets_the_partitions(default, sub):
    """Its shard is in the configuration, but has nothing: resharding makes the tables, and partitions follow the policy from then on."""
    with Cluster(shards=3, replicas=0) as cluster:
        shards = cluster.shard_config()
        with Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards[:2]}, options={"partition": {"schedule": ""}}) as proxy:
            proxy.wait_nodes()
            proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY)")
            proxy.sql("CREATE TABLE events (user_id bigint NOT NULL REFERENCES users, id bigint NOT NULL, at timestamptz NOT NULL, body text,"
                      " PRIMARY KEY (user_id, id, at))")
            proxy.sql("CREATE INDEX events_at ON events (at)")
            ctl(proxy, "partition", "create", "events", "--by", "at", "--every", "1month", "--ahead", "2", "--keep", "6months", "--on-expiry", "drop",
                "--default", default, "--sub", sub, "--start", "2025-10-01", "--now", "2026-01-10", "--timezone", "Europe/Berlin")
            proxy.sql(f"INSERT INTO users SELECT g FROM generate_series(1, {ROWS}) g")
            proxy.sql(f"INSERT INTO events SELECT g, g, '2025-10-05'::timestamptz + g % 150 * interval '1 day', 'x' FROM generate_series(1, {ROWS}) g")

            # A shard more.
            proxy.config["databases"][0]["shards"] = [*shards[:2], {**shards[2], "weight": 0}]
            proxy.write_config()
            proxy.reload()
            proxy.wait_nodes()
            written = []

            def write(connection):
                number = len(written) + ROWS + 1
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO events VALUES (%s, %s, '2026-01-15', 'new')", (1 + number % ROWS, number))
                written.append(number)
            with Load(proxy, write, clients=1, pause=0.005) as load:
                ctl(proxy, "reshard", "create", "job", "--move", "0-4095:s2,8192-12287:s2", "--prepare-schema")
                runner = start_ctl(proxy, "reshard", "run", "job")
                try:
                    wait_until(lambda: runner.poll() is not None or cluster.primaries[0].value(
                        "SELECT state FROM pgshunt.job WHERE name = 'job'", dbname="app") == "streaming", 120, "the job to stream")
                    assert runner.poll() is None, runner.communicate()[0]
                    load.wait_progress(50, 60)
                    # Partitions are made while it streams: on the new shard, too.
                    ctl(proxy, "partition", "maintain", "--now", "2026-02-10")
                    load.wait_progress(50, 60)
                    ctl(proxy, "reshard", "verify", "job")
                    wait_until(lambda: ctl(proxy, "reshard", "switch", "job", "--max-pause", "5s", code=None).code == 0, 120, "the switch")
                    load.wait_progress(50, 60)
                    wait_until(lambda: ctl(proxy, "reshard", "complete", "job", code=None).code == 0, 120, "its end")
                    runner.wait(60)
                finally:
                    runner.kill()
                    runner.communicate()
                load.wait_progress(20, 60)
            assert load.errors == []
            assert proxy.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM events") == [
                (ROWS + len(written), ROWS + len(written), sum(range(1, ROWS + 1)) + sum(written))]
            assert cluster.primaries[2].value("SELECT count(*) FROM events", dbname="app") > 0
            # All three are maintained, and alike.
            ctl(proxy, "partition", "maintain", "--now", "2026-06-10")
            found = [ranges(node) for node in cluster.primaries]
            assert found[0] == found[1] == found[2]
            trees = [node.sql("SET TimeZone = 'UTC'; SELECT relid::regclass::text, level, pg_get_expr(relpartbound, oid) FROM pg_partition_tree('events')"
                              " JOIN pg_class ON oid = relid ORDER BY 1", dbname="app") for node in cluster.primaries]
            assert trees[0] == trees[1] == trees[2] and max(level for _, level, _ in trees[0]) == (1 if sub == "none" else 2)
            assert min(name for name, bound in found[0] if bound != "DEFAULT") == "events_p20251201"
            ctl(proxy, "partition", "check", "--now", "2026-06-10")
