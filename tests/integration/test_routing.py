"""Writes go to the primary, reads to a replica; what is not proven to be a read is no read."""
import pytest

from support import explain, fetch, one

pytestmark = pytest.mark.core

READS = [
    "SELECT pg_is_in_recovery()",
    "SELECT pg_is_in_recovery() FROM notes LIMIT 1",
    "WITH n AS (SELECT * FROM notes) SELECT pg_is_in_recovery() FROM n LIMIT 1",
    "SELECT pg_is_in_recovery() FROM notes WHERE id = (SELECT min(id) FROM notes)",
    "SELECT pg_is_in_recovery() UNION ALL SELECT pg_is_in_recovery() LIMIT 1",
    "VALUES (pg_is_in_recovery())",
    "SELECT pg_is_in_recovery() /* UPDATE notes */",
    "SELECT pg_is_in_recovery() AS \"for update\"",
    "SELECT pg_is_in_recovery() WHERE 'INSERT INTO notes' <> ''",
    "SELECT pg_is_in_recovery() WHERE now() > '2000-01-01'",
]

NOT_READS = [
    "SELECT pg_is_in_recovery() FROM notes LIMIT 1 FOR UPDATE",
    "SELECT pg_is_in_recovery() FROM notes LIMIT 1 FOR SHARE",
    "SELECT r FROM (SELECT pg_is_in_recovery() AS r FROM notes LIMIT 1 FOR UPDATE) AS n",
    "WITH w AS (UPDATE notes SET body = body WHERE id = 1 RETURNING id) SELECT pg_is_in_recovery() FROM w",
    "INSERT INTO notes VALUES (1000, 'x') RETURNING pg_is_in_recovery()",
    "UPDATE notes SET body = 'y' WHERE id = 1000 RETURNING pg_is_in_recovery()",
    "DELETE FROM notes WHERE id = 1000 RETURNING pg_is_in_recovery()",
    "SELECT pg_is_in_recovery() FROM nextval('numbers')",
    "SELECT pg_is_in_recovery() FROM writes_a_row()",
    "SELECT pg_is_in_recovery() FROM (SELECT pg_advisory_xact_lock(1)) AS l",
    "SELECT pg_is_in_recovery() FROM scratch",
    "/* pgshunt: primary */ SELECT pg_is_in_recovery()",
]


@pytest.fixture(scope="module")
def plain(cluster, proxy):
    """A connection to an unsharded database with a few things to read and write."""
    connection = proxy.connect("plain")
    cursor = connection.cursor()
    for statement in (
            "CREATE TABLE notes (id int PRIMARY KEY, body text)",
            "INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 9) AS i",
            "CREATE SEQUENCE numbers",
            "CREATE UNLOGGED TABLE scratch (id int)",
            "INSERT INTO scratch VALUES (1)",
            "CREATE FUNCTION writes_a_row() RETURNS int LANGUAGE sql AS "
            "$$ INSERT INTO notes VALUES (2000, 'f') ON CONFLICT DO NOTHING; SELECT 1 $$"):
        cursor.execute(statement)
    cluster.sync()
    wait_for_reads(proxy)
    yield connection
    connection.close()
    node = cluster.shards[0].primary
    node.sql("DROP TABLE notes, scratch; DROP SEQUENCE numbers; DROP FUNCTION writes_a_row", dbname="plain")


def wait_for_reads(proxy):
    """A fresh client reads on a replica as soon as that has caught up and its tables are known."""
    from harness import wait_until
    wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM notes LIMIT 1", dbname="plain"), 10.0,
               "reads on the replica")


@pytest.mark.parametrize("sql", READS)
def test_read_goes_to_a_replica(proxy, plain, sql):
    assert proxy.value(sql, dbname="plain") is True


@pytest.mark.parametrize("sql", NOT_READS)
def test_what_is_no_read_goes_to_the_primary(proxy, plain, sql):
    assert proxy.value(sql, dbname="plain") is False


@pytest.mark.parametrize("sql", READS[:4])
def test_extended_protocol_reads_on_a_replica(proxy, plain, sql):
    with proxy.connect3("plain") as connection:
        assert connection.execute(sql).fetchone()[0] is True
        assert connection.execute("SELECT pg_is_in_recovery() FROM notes WHERE id = %s", (3,)).fetchone()[0] is True
        assert connection.execute("SELECT pg_is_in_recovery() FROM notes WHERE id = %s FOR UPDATE",
                                  (3,)).fetchone()[0] is False


def test_written_rows_are_on_the_primary_and_reach_the_replica(cluster, proxy, plain):
    fetch(plain, "INSERT INTO notes VALUES (77, 'seen') RETURNING id")
    shard = cluster.shards[0]
    assert shard.primary.value("SELECT body FROM notes WHERE id = 77", dbname="plain") == "seen"
    cluster.sync()
    assert shard.replicas[0].value("SELECT body FROM notes WHERE id = 77", dbname="plain") == "seen"


def test_read_your_writes(cluster, proxy, plain):
    """A client that wrote never reads from before its write, however late the replica is."""
    replica = cluster.shards[0].replicas[0]
    replica.pause_replay()
    try:
        with proxy.connect("plain") as connection:
            for number in range(300, 320):
                connection.cursor().execute("INSERT INTO notes VALUES (%s, 'mine')", (number,))
                assert one(connection, "SELECT count(*) FROM notes WHERE id = %s", (number,)) == 1
    finally:
        replica.resume_replay()


def test_lagging_replica_is_not_read(cluster, proxy, plain):
    """Beyond max_lag (1 s) reads go to the primary; when the replica has caught up, back to it."""
    from harness import wait_until
    replica = cluster.shards[0].replicas[0]
    replica.pause_replay()
    try:
        shard_writes = iter(range(5000, 6000))

        def on_primary():
            cluster.shards[0].primary.sql("INSERT INTO notes VALUES (%s, 'lag')", (next(shard_writes),),
                                          dbname="plain")
            return not proxy.value("SELECT pg_is_in_recovery() FROM notes LIMIT 1", dbname="plain")

        wait_until(on_primary, 15.0, "reads leaving the late replica", interval=0.1)
        late = [row for row in proxy.show("NODES") if int(row["port"]) == replica.port]
        assert late and max(int(row["lag_ms"]) for row in late) >= 1000
        assert max(int(row["lag_bytes"]) for row in late) > 0
    finally:
        replica.resume_replay()
    wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM notes LIMIT 1", dbname="plain"), 15.0,
               "reads back on the replica")


def test_idle_primary_shows_no_lag(cluster, proxy, plain):
    import time
    cluster.sync()
    time.sleep(2.5)
    lags = [int(row["lag_ms"]) for row in proxy.show("NODES")]
    assert lags and max(lags) < 1500


def test_transaction_with_a_write_stays_on_the_primary(proxy, plain):
    with proxy.connect("plain", autocommit=False) as connection:
        cursor = connection.cursor()
        cursor.execute("INSERT INTO notes VALUES (801, 't')")
        cursor.execute("SELECT pg_is_in_recovery(), count(*) FROM notes WHERE id = 801")
        assert cursor.fetchone() == (False, 1)
        connection.rollback()


def test_read_only_transaction_may_use_a_replica(proxy, plain):
    connection = proxy.connect("plain")
    cursor = connection.cursor()
    cursor.execute("BEGIN READ ONLY")
    cursor.execute("SELECT pg_is_in_recovery(), count(*) > 0 FROM notes")
    first = cursor.fetchone()
    cursor.execute("SELECT pg_is_in_recovery()")
    assert cursor.fetchone()[0] == first[0]
    with pytest.raises(Exception) as caught:
        cursor.execute("INSERT INTO notes VALUES (900, 'no')")
    assert caught.value.pgcode == "25006"
    cursor.execute("ROLLBACK")
    connection.close()


def test_explain_names_the_node_class(proxy, plain):
    assert "replica" in explain(plain, "SELECT * FROM notes WHERE id = 1")
    assert "primary" in explain(plain, "SELECT * FROM notes WHERE id = 1 FOR UPDATE")
    assert "primary" in explain(plain, "UPDATE notes SET body = 'z' WHERE id = 1")


def test_explain_analyze_of_a_write_runs_on_the_primary(proxy, plain):
    fetch(plain, "EXPLAIN ANALYZE INSERT INTO notes VALUES (950, 'analyzed')")
    assert one(plain, "SELECT count(*) FROM notes WHERE id = 950") == 1


def test_all_reads_to_the_primary_when_splitting_is_off(cluster):
    from harness import Proxy
    with Proxy(cluster, options={"routing": {"read_write_split": False}}) as proxy:
        proxy.wait_nodes()
        for _ in range(5):
            assert proxy.value("SELECT pg_is_in_recovery()") is False
