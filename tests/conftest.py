"""Fixtures and the time limit shared by the integration and driver tests."""
import faulthandler
import os
import signal
import sys
from contextlib import closing

import psycopg2
import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import Cluster, Proxy, wait_until  # noqa: E402

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


USERS = {"name": "users", "type": "bigint",
         "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}


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


SCHEMA = """
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, country text, born date,
                    balance numeric(12,2) NOT NULL DEFAULT 0);
CREATE TABLE orders (id bigint NOT NULL, user_id bigint NOT NULL, amount numeric(10,2) NOT NULL,
                     item text, placed timestamptz NOT NULL DEFAULT '2026-01-01 00:00:00+00',
                     PRIMARY KEY (user_id, id));
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, body text);
"""


def statements(script):
    return [part.strip() for part in script.split(";") if part.strip()]


def drop_tables(cluster):
    for node in cluster.primaries:
        node.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC")


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


def wait_schema(proxy):
    """Waits until the proxy's router has seen the new tables: `SELECT *` with a sort is planned then."""
    def known():
        try:
            proxy.sql("SELECT * FROM users ORDER BY name")
            return True
        except psycopg2.Error:
            return False

    wait_until(known, 10.0, "tables known to the proxy")


COUNTRIES = [("at", "Austria"), ("de", "Germany"), ("fr", "France"), ("jp", "Japan")]


def user_row(number):
    country = None if number % 7 == 0 else COUNTRIES[number % 4][0]
    return (number, f"user {number:04d}", country, f"19{50 + number % 50}-0{1 + number % 9}-11",
            f"{number * 13 % 1000}.{number % 100:02d}")


def order_row(number):
    return (number, 1 + number % 200, f"{number * 7 % 500}.50", ["pen", "ink", "desk", "lamp"][number % 4])


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


def load(connection):
    cursor = connection.cursor()

    def insert(table, columns, rows):
        one = "(" + ", ".join(["%s"] * len(rows[0])) + ")"
        for start in range(0, len(rows), 100):
            part = rows[start:start + 100]
            cursor.execute(f"INSERT INTO {table} ({columns}) VALUES " + ", ".join([one] * len(part)),
                           [value for row in part for value in row])
            assert cursor.rowcount == len(part)

    insert("users", "id, name, country, born, balance", [user_row(number) for number in range(1, 201)])
    insert("orders", "id, user_id, amount, item", [order_row(number) for number in range(1, 1001)])
    insert("countries", "code, name", COUNTRIES)
    insert("notes", "id, body", [(number, f"note {number}") for number in range(1, 6)])
