"""A unique lookup is judged by the rows that their shards own, while a job has rows on two shards."""
import pytest

from ctl_support import ctl
from harness import Cluster, Proxy
from reshard_support import bucket
from test_reshard import Runner, wait_state
from test_reshard import ctl as reshard

pytestmark = pytest.mark.slow

KEYSPACE = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}],
            "lookup": [{"table": "users", "column": "email", "unique": True}]}


@pytest.fixture
def cluster():
    with Cluster(shards=3, replicas=0) as cluster:
        for node in cluster.primaries:
            node.sql("CREATE TABLE users (id bigint PRIMARY KEY, email text)")
        yield cluster


@pytest.fixture
def proxy(cluster):
    shards = cluster.shard_config()
    shards[2]["weight"] = 0
    with Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards}) as proxy:
        proxy.wait_nodes()
        yield proxy


def test_rows_on_two_shards_are_no_doubles(cluster, proxy):
    proxy.sql("INSERT INTO users SELECT g, 'u' || g FROM generate_series(1, 400) g")
    assert ctl(proxy, "lookup", "create", "app").code == 0
    reshard(proxy, "create", "grow", "--move", "0-4000:s2,5000-7000:s1")
    with Runner(proxy, "grow"):
        wait_state(cluster, "grow", "streaming")
        both = [row[0] for row in cluster.primaries[2].sql("SELECT id FROM users")]
        assert len(both) > 20 and all(bucket(key) <= 4000 for key in both)  # and on s0, too
        assert "good on all shards" in ctl(proxy, "lookup", "verify", "app").out
        # A value that really is of two keys is named, whichever of its rows are on two shards.
        moving = both[0]
        staying = next(key for key in range(1, 400) if bucket(key) > 8192)
        proxy.sql(f"UPDATE users SET email = 'u{moving}' WHERE id = {staying}")
        ran = ctl(proxy, "lookup", "verify", "app", code=None)
        assert ran.code != 0 and f"'u{moving}' is of several keys, on s0, s1" in ran.out + ran.err
        assert "of several keys" in ctl(proxy, "lookup", "verify", "app", "--repair", code=None).out  # takes it out of use
        refused = ctl(proxy, "lookup", "create", "app", code=None)
        assert refused.code != 0 and f"'u{moving}' is of several keys" in refused.out + refused.err
        proxy.sql(f"UPDATE users SET email = 'other' WHERE id = {staying}")
        assert ctl(proxy, "lookup", "create", "app").code == 0
        for turn in ("switch", "rollback"):
            reshard(proxy, turn, "grow")
            assert "good on all shards" in ctl(proxy, "lookup", "verify", "app").out
        reshard(proxy, "cancel", "grow")
    assert "good on all shards" in ctl(proxy, "lookup", "verify", "app").out
