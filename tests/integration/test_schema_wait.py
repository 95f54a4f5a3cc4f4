"""What names something changed a moment ago waits for the schema, however long that takes to read; or it is refused, never planned by the old one."""
import threading
from contextlib import closing, contextmanager

import psycopg2
import pytest
from harness import Cluster, Proxy

pytestmark = pytest.mark.core

KEYSPACES = [{"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}]
SLOW = "BEGIN; LOCK TABLE pg_catalog.pg_attrdef IN ACCESS EXCLUSIVE MODE"  # the schema's reading stands still


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0) as cluster:
        yield cluster


@contextmanager
def session(proxy):
    """Outside of any transaction."""
    with closing(proxy.connect(dbname="app")) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        yield cursor


def prepared(proxy):
    """A view that every shard answers for its own rows."""
    with session(proxy) as cursor:
        cursor.execute("DROP TABLE IF EXISTS users CASCADE")
        cursor.execute("CREATE TABLE users (id bigint PRIMARY KEY)")
        cursor.execute("INSERT INTO users SELECT generate_series(1, 40)")
        cursor.execute("CREATE VIEW seen AS SELECT id AS n FROM users")
        cursor.execute("SELECT count(*) FROM seen")
        assert cursor.fetchall() == [(40,)]


def slow(cluster):
    connection = cluster.shards[0].primary.connect("app")
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(SLOW)
    return connection, cursor


def test_it_waits_for_as_long_as_it_takes(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        prepared(proxy)
        connection, lock = slow(cluster)
        found = []

        def look():
            with session(proxy) as cursor:
                cursor.execute("SELECT n FROM seen")
                found.append(cursor.fetchall())

        try:
            with session(proxy) as cursor:
                cursor.execute("CREATE OR REPLACE VIEW seen AS SELECT count(*) AS n FROM users")
            reader = threading.Thread(target=look)
            reader.start()
            reader.join(2.5)
            assert not found
        finally:
            lock.execute("ROLLBACK")
            connection.close()
        reader.join(60)
        assert found == [[(40,)]]


@pytest.mark.parametrize("prepare", [False, True])
def test_in_vain(cluster, prepare):
    """Refused when the client's patience is over; what names nothing like that goes on, and so does the session."""
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        prepared(proxy)
    with Proxy(cluster, keyspaces=KEYSPACES, options={"pool": {"query_wait_timeout": "2s"}}) as proxy:
        proxy.wait_nodes()
        connection, lock = slow(cluster)
        try:
            with session(proxy) as cursor:
                cursor.execute("CREATE OR REPLACE VIEW seen AS SELECT count(*) AS n FROM users")
                if prepare:
                    cursor.execute("PREPARE p AS SELECT n FROM seen")
                with pytest.raises(psycopg2.Error) as raised:
                    cursor.execute("EXECUTE p" if prepare else "SELECT n FROM seen")
                assert raised.value.pgcode == "57P03" and "query_wait_timeout" in str(raised.value)
                cursor.execute("SELECT count(*) FROM users")
                assert cursor.fetchall() == [(40,)]
        finally:
            lock.execute("ROLLBACK")
            connection.close()
