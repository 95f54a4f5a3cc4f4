"""Views are what they are made of: one of plain tables and stable functions is a read."""
from contextlib import closing

import pytest

from harness import Proxy, wait_until
from support import explain, fetch, one, refused

pytestmark = pytest.mark.core

SETUP = """
CREATE SCHEMA seen;
CREATE TABLE seen.things (id int PRIMARY KEY, n int);
INSERT INTO seen.things SELECT i, i FROM generate_series(1, 5) AS i;
CREATE UNLOGGED TABLE seen.quick (id int);
CREATE SEQUENCE seen.numbers;
CREATE FUNCTION seen.doubled(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n * 2';
CREATE FUNCTION seen.doubled(n text) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT n || n';
CREATE FUNCTION seen.noted(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT n';
CREATE OPERATOR seen.|+| (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE FUNCTION seen.noisy(a int, b int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT a + b';
CREATE OPERATOR seen.!!! (LEFTARG = int, RIGHTARG = int, FUNCTION = seen.noisy);
CREATE VIEW seen.plain AS SELECT * FROM seen.things WHERE n > 0 ORDER BY id;
CREATE VIEW seen.constant AS SELECT 42 AS id;
CREATE VIEW seen.stable AS SELECT seen.doubled(n) AS id, now() AS at, random() AS r, count(*) OVER () FROM seen.things;
CREATE VIEW seen.nested AS WITH x AS (SELECT * FROM seen.plain) SELECT * FROM x WHERE id IN (SELECT id FROM seen.stable);
CREATE VIEW seen.operator AS SELECT n OPERATOR(seen.|+|) 1 AS id FROM seen.things;
CREATE VIEW seen.":funcid 1" AS SELECT id AS ":relid 1", n AS "id" FROM seen.things AS ":opfuncid 1";
CREATE VIEW seen.volatile AS SELECT seen.noted(n) AS id FROM seen.things;
CREATE VIEW seen.other_doubled AS SELECT seen.doubled(n::text) AS id FROM seen.things;
CREATE VIEW seen.noisy_operator AS SELECT n OPERATOR(seen.!!!) 1 AS id FROM seen.things;
CREATE VIEW seen.sequence AS SELECT nextval('seen.numbers') AS id;
CREATE VIEW seen.locked AS SELECT id FROM seen.things FOR UPDATE;
CREATE VIEW seen.unlogged AS SELECT * FROM seen.quick;
CREATE VIEW seen.catalog AS SELECT oid AS id FROM pg_class;
CREATE VIEW seen.hidden AS SELECT * FROM seen.plain UNION ALL SELECT id, 1 FROM seen.volatile;
CREATE VIEW seen.in_a_sublink AS SELECT id FROM seen.things WHERE EXISTS (SELECT FROM seen.unlogged);
CREATE VIEW seen.lock_id AS SELECT pg_advisory_xact_lock(1) IS NULL AS id;
CREATE TABLE seen.guarded (id int);
ALTER TABLE seen.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY strict ON seen.guarded FOR SELECT USING (seen.noted(id) > 0);
CREATE VIEW seen.over_guarded AS SELECT * FROM seen.guarded;
CREATE TABLE seen.watched (id int);
ALTER TABLE seen.watched ENABLE ROW LEVEL SECURITY;
CREATE POLICY mild ON seen.watched FOR SELECT USING (id > 0);
"""

READS = ["plain", "constant", "stable", "nested", "operator", '":funcid 1"', "watched"]
NO_READS = {"volatile": "volatile function", "other_doubled": "volatile function",
            "noisy_operator": "volatile function", "sequence": "volatile function", "locked": "locking clause",
            "unlogged": "unlogged table", "catalog": "system catalog", "hidden": "volatile function",
            "in_a_sublink": "unlogged table", "lock_id": "volatile function", "guarded": "volatile function",
            "over_guarded": "volatile function"}


@pytest.fixture(scope="module")
def seen(cluster, proxy):
    primary = cluster.shards[0].primary
    for statement in SETUP.split(";\n"):
        if statement.strip():
            primary.sql(statement, dbname="plain")
    with closing(proxy.connect("plain")) as client:  # so that the schema is read again at once
        client.cursor().execute("CREATE TABLE seen.last (id int)")
    cluster.sync()
    wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM seen.last RIGHT JOIN now() ON true",
                                   dbname="plain"), 10.0, "the schema")
    yield proxy
    primary.sql("DROP SCHEMA seen CASCADE", dbname="plain")


@pytest.mark.parametrize("view", READS)
def test_a_view_of_reads_is_one(seen, view):
    with closing(seen.connect("plain")) as client:
        assert "(replica: read" in explain(client, f"SELECT * FROM seen.{view}")
        wait_until(lambda: one(client, f"SELECT pg_is_in_recovery() FROM seen.{view} RIGHT JOIN now() ON true LIMIT 1"),
                   10.0, "a fresh replica")
        cursor = client.cursor()
        cursor.execute("SET search_path = seen, public")
        assert "(replica: read" in explain(client, f"SELECT * FROM {view}")


@pytest.mark.parametrize("view", sorted(NO_READS))
def test_what_is_behind_a_view_counts(seen, view):
    with closing(seen.connect("plain")) as client:
        assert f"(primary: {NO_READS[view]}" in explain(client, f"SELECT * FROM seen.{view}")
        assert f"(primary: {NO_READS[view]}" in explain(client, f"SELECT 1 WHERE EXISTS (SELECT FROM seen.{view})")


def test_a_changed_view_is_seen(seen):
    with closing(seen.connect("plain")) as client:
        cursor = client.cursor()
        cursor.execute("CREATE VIEW seen.changing AS SELECT * FROM seen.things")
        wait_until(lambda: "(replica: read" in explain(client, "SELECT * FROM seen.changing"), 10.0, "the view")
        cursor.execute("CREATE OR REPLACE VIEW seen.changing AS SELECT id, seen.noted(n) AS n FROM seen.things")
        wait_until(lambda: "(primary: volatile" in explain(client, "SELECT * FROM seen.changing"), 10.0, "the change")


def test_a_temporary_view_or_table_of_that_name_is_the_sessions(seen):
    with closing(seen.connect("plain")) as client:
        cursor = client.cursor()
        cursor.execute("SET search_path = seen, public")
        cursor.execute("CREATE TEMP VIEW plain AS SELECT 'mine' AS whose")
        for _ in range(3):
            assert one(client, "SELECT whose FROM plain") == "mine"


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg3", "asyncpg"])
def test_drivers_read_through_views_on_a_replica(seen, driver):
    sql = "SELECT pg_is_in_recovery() FROM seen.nested RIGHT JOIN now() ON true LIMIT 1"
    if driver == "psycopg2":
        with closing(seen.connect("plain", autocommit=False)) as client:
            client.set_session(readonly=True)
            assert one(client, sql) is True and one(client, sql) is True
            with client.cursor("named") as cursor:
                cursor.execute("SELECT id FROM seen.plain")
                assert len(cursor.fetchall()) == 5
            client.commit()
    elif driver == "psycopg3":
        with closing(seen.connect3("plain")) as client:
            for _ in range(7):
                assert client.execute(sql).fetchone() == (True,)
            client.read_only = True
            with client.transaction():
                assert client.execute(sql).fetchone() == (True,)
    else:
        asyncio, asyncpg = pytest.importorskip("asyncio"), pytest.importorskip("asyncpg")

        async def read():
            client = await asyncpg.connect(host=seen.host, port=seen.port, user="postgres", database="plain", ssl=False)
            try:
                assert await client.fetchval(sql) is True
                assert await client.fetchval("SELECT count(*) FROM seen.plain WHERE id > $1", 0) == 5
                async with client.transaction(readonly=True):
                    assert await client.fetchval(sql) is True
                    assert [row["id"] async for row in client.cursor("SELECT id FROM seen.plain")] == [1, 2, 3, 4, 5]
            finally:
                await client.close()

        asyncio.run(read())


def test_views_in_a_sharded_database(cluster, tables):
    with closing(tables.connect()) as client:
        cursor = client.cursor()
        cursor.execute("CREATE VIEW noted AS SELECT * FROM notes")
        cursor.execute("CREATE VIEW lands AS SELECT * FROM countries")
        cursor.execute("CREATE VIEW people AS SELECT * FROM users")
        try:
            wait_until(lambda: "(replica: read" in explain(client, "SELECT * FROM noted"), 10.0, "the views")
            cluster.sync()
            assert fetch(client, "SELECT count(*) FROM noted") == fetch(client, "SELECT count(*) FROM notes")
            assert fetch(client, "SELECT count(*) FROM lands") == fetch(client, "SELECT count(*) FROM countries")
            assert "scatter" in explain(client, "SELECT * FROM users JOIN lands ON lands.code = users.country")
            assert sorted(fetch(client, "SELECT id FROM people")) == sorted(fetch(client, "SELECT id FROM users"))
            with refused("0A000", "is a view of tables on several shards"):
                cursor.execute("DELETE FROM lands")
        finally:
            cursor.execute("DROP VIEW noted, lands, people")
