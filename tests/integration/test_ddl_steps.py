"""Schema changes on all shards: atomic where Postgres allows a transaction, else shard by shard, told where it stands."""
import threading
from contextlib import closing

import psycopg
import pytest

from harness import Cluster, Proxy, wait_until
from support import fetch, one, refused

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "people", "key": "id"}]}


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=[USERS]) as proxy:
        proxy.wait_nodes()
        yield proxy


@pytest.fixture
def connection(cluster, proxy):
    """People with distinct names; on the second shard two are called alike."""
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE people (id bigint, name text)")
        cursor.execute("INSERT INTO people (id, name) VALUES " + ", ".join(f"({i}, 'n{i}')" for i in range(60)))
        second = cluster.primaries[1]
        second.sql("UPDATE people SET name = 'twin' WHERE id IN (SELECT id FROM people ORDER BY id LIMIT 2)")
        yield connection
        cursor.execute("DROP TABLE IF EXISTS people")


def indexes(cluster, name="people_name"):
    """Per shard: None: there is none; whether it is valid."""
    return [(node.sql("SELECT indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = %s", (name,)) or [[None]])[0][0]
            for node in cluster.primaries]


def told(caught):
    return caught.value.diag.message_detail, caught.value.diag.message_hint


@pytest.mark.parametrize("extended", [False, True])
def test_an_interrupted_index_is_taken_up_again(cluster, proxy, connection, extended):
    create = "CREATE UNIQUE INDEX CONCURRENTLY {} people_name ON people (name)"
    client = psycopg.connect(proxy.dsn(), autocommit=True) if extended else proxy.connect()
    with closing(client):
        run = (lambda text: client.execute(text, prepare=True)) if extended else (lambda text: client.cursor().execute(text))
        with refused("23505") as caught:
            run(create.format(""))
        detail, hint = told(caught)
        assert "Shard: s1.\nDone on: s0, s2. Not done on: s1." in detail and "IF NOT EXISTS" in hint
        assert indexes(cluster) == [True, False, True]
        with refused("23505"):
            run(create.format("IF NOT EXISTS"))
        assert indexes(cluster) == [True, False, True]
        kept = [node.value("SELECT 'people_name'::regclass::oid") for node in cluster.primaries]
        cluster.primaries[1].sql("UPDATE people SET name = 'n' || id")
        run(create.format("IF NOT EXISTS"))
        assert indexes(cluster) == [True, True, True]
        after = [node.value("SELECT 'people_name'::regclass::oid") for node in cluster.primaries]
        assert after[0] == kept[0] and after[2] == kept[2] and after[1] != kept[1]
        run(create.format("IF NOT EXISTS"))
        assert after == [node.value("SELECT 'people_name'::regclass::oid") for node in cluster.primaries]


def test_an_index_that_is_being_built_is_left_alone(cluster, connection):
    """Another session's build on one shard is INVALID until it is done: it is not taken for a leftover."""
    node = cluster.primaries[0]
    create = "CREATE INDEX CONCURRENTLY IF NOT EXISTS people_name ON people (name)"
    with closing(node.connect()) as blocker:
        blocker.autocommit = False
        blocker.cursor().execute("UPDATE people SET name = name")  # the build waits for it
        builder = threading.Thread(target=node.sql, args=("CREATE INDEX CONCURRENTLY people_name ON people (name)",))
        builder.start()
        wait_until(lambda: indexes(cluster)[0] is not None, 20, "the index begun")
        oid = node.value("SELECT 'people_name'::regclass::oid")
        with refused("55P03") as caught:  # the statement itself would wait for the build, and the build for it
            connection.cursor().execute(create)
        assert "Done on: s1, s2. Not done on: s0." in told(caught)[0]
        blocker.rollback()
        builder.join()
    connection.cursor().execute(create)
    assert indexes(cluster) == [True, True, True] and node.value("SELECT 'people_name'::regclass::oid") == oid


def test_names_in_quotes(cluster, connection):
    cursor = connection.cursor()
    cursor.execute('CREATE SCHEMA IF NOT EXISTS "a\'b\\c"; CREATE TABLE "a\'b\\c"."T""x" (v int)')
    create = 'CREATE INDEX CONCURRENTLY IF NOT EXISTS "i\'\\""x" ON "a\'b\\c"."T""x" (v)'
    cursor.execute(create)
    cluster.primaries[2].sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = (SELECT oid FROM pg_class WHERE relname = %s)", ("i'\\\"x",))
    assert indexes(cluster, "i'\\\"x") == [True, True, False]
    cursor.execute(create)
    assert indexes(cluster, "i'\\\"x") == [True, True, True]
    cursor.execute('DROP SCHEMA "a\'b\\c" CASCADE')


def test_the_others_go_on(cluster, connection):
    """VACUUM, DROP INDEX and REINDEX CONCURRENTLY: each with its own way on."""
    cursor = connection.cursor()
    cursor.execute("CREATE INDEX people_name ON people (name)")
    cluster.primaries[0].sql("DROP INDEX people_name")
    with refused("42P01") as caught:
        cursor.execute("REINDEX INDEX CONCURRENTLY people_name")
    assert "Done on: s1, s2. Not done on: s0." in told(caught)[0] and "pgshunt: shard=" in told(caught)[1]
    with refused("42704") as caught:
        cursor.execute("DROP INDEX CONCURRENTLY people_name")
    assert "Done on: s1, s2. Not done on: s0." in told(caught)[0] and "IF EXISTS" in told(caught)[1]
    assert indexes(cluster) == [None, None, None]
    cursor.execute("DROP INDEX CONCURRENTLY IF EXISTS people_name")
    cluster.primaries[2].sql("DROP TABLE people")
    with refused("42P01") as caught:
        cursor.execute("VACUUM people")
    assert "Done on: s0, s1. Not done on: s2." in told(caught)[0] and "/* pgshunt: shard=... */" in told(caught)[1]
    cluster.primaries[2].sql("CREATE TABLE people (id bigint, name text)")
    cursor.execute("VACUUM people")


def test_in_a_transaction_it_is_refused_as_by_postgres(cluster, connection):
    cursor = connection.cursor()
    cluster.primaries[0].sql("CREATE INDEX people_name ON people (name)")
    cluster.primaries[0].sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'people_name'::regclass")
    cursor.execute("BEGIN")
    with refused("25001", hint=False):
        cursor.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS people_name ON people (name)")
    cursor.execute("ROLLBACK")
    assert indexes(cluster) == [False, None, None]


def test_all_or_nothing(cluster, connection):
    """What may run in a transaction is done on all shards or on none."""
    cursor = connection.cursor()
    cursor.execute("CREATE TYPE size AS ENUM ('s', 'm')")
    cursor.execute("ALTER TYPE size ADD VALUE 'l'")
    labels = [node.value("SELECT enum_range(NULL::size)::text") for node in cluster.primaries]
    assert labels == ["{s,m,l}"] * 3
    cluster.primaries[1].sql("ALTER TYPE size ADD VALUE 'xl'; ALTER TABLE people ADD extra int")
    with refused("42710", hint=False):
        cursor.execute("ALTER TYPE size ADD VALUE 'xl'")
    with refused("42701", hint=False):
        cursor.execute("ALTER TABLE people ADD extra int")
    assert [node.value("SELECT enum_range(NULL::size)::text") for node in cluster.primaries] == ["{s,m,l}", "{s,m,l,xl}", "{s,m,l}"]
    assert [node.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'people'::regclass AND attname = 'extra'")
            for node in cluster.primaries] == [0, 1, 0]
    cursor.execute("DROP TYPE size")
    assert fetch(connection, "SELECT count(*) FROM people") == [(60,)] and one(connection, "SELECT 1") == 1
