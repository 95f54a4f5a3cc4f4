"""Fixtures and the time limit shared by the integration and driver tests."""
import faulthandler
import os
import signal
import sys
from contextlib import closing

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import Cluster, Proxy  # noqa: E402
from harness.sample import SCHEMA, USERS, drop_tables, load, statements, wait_schema  # noqa: E402

TEST_TIMEOUT = float(os.environ.get("PGSHUNT_TEST_TIMEOUT", "60"))
faulthandler.enable()


def pytest_configure(config):
    config.addinivalue_line("markers", "core: also run on the release build (all run under sanitizers)")
    config.addinivalue_line("markers", "slow: may take five times as long as others")


class TestTookTooLong(BaseException):
    """Raised by the alarm; no `except Exception` of a test may swallow it."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """Ends a test (with its fixtures) that hangs, and shows where."""
    limit = TEST_TIMEOUT * (5 if item.get_closest_marker("slow") else 1)

    def on_alarm(_number, _frame):
        faulthandler.dump_traceback(file=sys.__stderr__)
        raise TestTookTooLong(f"{item.name}: not within {limit:g} s")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, limit)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def cluster():
    """Two shards, each a primary and a replica. Shared: tests leave its servers running."""
    with Cluster(shards=2, replicas=1) as cluster:
        cluster.create_role("app")
        cluster.create_database("plain")
        cluster.create_database("oracle")
        cluster.create_database("bench")
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    """pgshunt with the sharded database "app" and the unsharded "plain", on the shared cluster."""
    plain = {"name": "plain",
             "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}
    app = {"name": "app", "shards": cluster.shard_config(), "keyspaces": [USERS],
           "reference": ["countries"]}
    with Proxy(cluster, databases=[app, plain]) as proxy:
        proxy.wait_nodes()
        yield proxy


@pytest.fixture(scope="module")
def tables(cluster, proxy):
    """Empty users, orders (sharded), countries (reference) and notes (unsharded), created through the proxy."""
    drop_tables(cluster)
    connection = proxy.connect()
    for statement in statements(SCHEMA):
        connection.cursor().execute(statement)
    connection.close()
    cluster.sync()
    wait_schema(proxy)
    yield proxy
    drop_tables(cluster)
    cluster.sync()


@pytest.fixture(scope="module")
def data(cluster, tables):
    """200 users (1..200), 1000 orders, 4 countries and 5 notes, loaded through the proxy."""
    proxy = tables
    with closing(proxy.connect()) as connection:
        load(connection)
    cluster.sync()
    yield proxy


@pytest.fixture(scope="session")
def oracle(cluster):
    """A connection to one Postgres with the same data: what pgshunt's answers have to equal."""
    node = cluster.shards[0].primary
    with closing(node.connect("oracle")) as connection:
        connection.cursor().execute(SCHEMA)
        load(connection)
        yield connection
