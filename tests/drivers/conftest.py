"""The drivers log in with SCRAM to a proxy of their own: a sharded and a plain database, pools of five servers."""
import pytest

from harness.sample import USERS
from harness import Proxy

from drivers_support import PASSWORD

POOL_SIZE = 5


@pytest.fixture(scope="module")
def proxy(cluster):
    options = {"auth": {"method": "scram-sha-256"}, "pool": {"size": POOL_SIZE}}
    users = [{"name": "postgres", "password": PASSWORD, "admin": True}]
    databases = [{"name": "app", "shards": cluster.shard_config(), "keyspaces": [USERS], "reference": ["countries"]},
                 {"name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}]
    with DriverProxy(cluster, databases=databases, options=options, users=users) as proxy:
        proxy.wait_nodes()
        yield proxy


class DriverProxy(Proxy):
    """Fills in the password."""

    password = PASSWORD

    def dsn(self, dbname=None, user="postgres", **more):
        return super().dsn(dbname, user, **{"password": PASSWORD, **more})
