"""A transaction that had begun before a job sees no copied row: the copy waits for its end, and says whose it is."""
import subprocess
from contextlib import closing

import pytest

from ctl_support import command, ctl
from harness import Cluster, Proxy, wait_until

pytestmark = pytest.mark.core

KEYSPACE = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
ROWS = 400
OPTIONS = {"catalog": {"interval": "300ms"}}
COUNT = "SELECT count(*), count(DISTINCT id) FROM users"


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0) as cluster:
        for node in cluster.primaries:
            node.sql("CREATE TABLE users (id bigint PRIMARY KEY, note text)")
        yield cluster


@pytest.fixture(scope="module")
def proxies(cluster):
    with Proxy(cluster, keyspaces=[KEYSPACE], options=OPTIONS) as one, Proxy(cluster, keyspaces=[KEYSPACE], options=OPTIONS) as other:
        one.wait_nodes()
        other.wait_nodes()
        one.sql(f"INSERT INTO users SELECT id, 'n' FROM generate_series(1, {ROWS}) AS id")
        yield one, other


@pytest.fixture(scope="module")
def catalog(cluster, proxies):
    node = cluster.primaries[0]
    wait_until(lambda: node.value("SELECT to_regclass('pgshunt.proxy') IS NOT NULL") and
               node.value("SELECT count(*) FROM pgshunt.proxy WHERE oldest = epoch") == 2, 30, "both proxies to be known")
    return node


def old(catalog):
    return catalog.sql("SELECT pid, oldest_who FROM pgshunt.proxy WHERE oldest < epoch")


def ask(cursor, sql):
    cursor.execute(sql)
    return cursor.fetchall()


def test_the_copy_waits_for_transactions_from_before(cluster, proxies, catalog):
    one, other = proxies
    ctl(one, "reshard", "create", "grow", "--move", "0-8191:s1")
    moving = cluster.primaries[0].value("SELECT count(*) FROM users")
    assert 0 < moving < ROWS
    with closing(other.connect(autocommit=False, application_name="the sitter")) as sitter, sitter.cursor() as cursor:
        assert ask(cursor, COUNT) == [(ROWS, ROWS)]
        # Those that hold nothing are in nobody's way: a client between transactions, and one that has only begun.
        with closing(other.connect()) as idle, closing(other.connect()) as beginner:
            assert ask(idle.cursor(), "SELECT 1") == [(1,)]
            beginner.cursor().execute("BEGIN")
            refused = ctl(one, "reshard", "run", "grow", "--drain", "1s", "--until-caught-up", code=None)
            assert refused.code not in (0, None)
            said = refused.out + refused.err
            assert "a transaction that was begun before has not ended" in said and f"process {other.pid}," in said
            assert "the sitter" in said and "127.0.0.1" in said and "--drain" in said
            (pid, who), = old(catalog)
            assert pid == other.pid and "the sitter" in who
            assert catalog.value("SELECT state FROM pgshunt.job") == "created"
            assert "a transaction that was begun before" in ctl(one, "reshard", "status", "grow").out
        with subprocess.Popen(command(one.config_path, "reshard", "run", "grow", "--until-caught-up"), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
            wait_until(lambda: (catalog.value("SELECT error FROM pgshunt.job") or "").startswith("waits: "), 60, "run to wait")
            assert ask(cursor, COUNT) == [(ROWS, ROWS)]
            assert run.poll() is None and cluster.primaries[1].value("SELECT count(*) FROM users") == ROWS - moving
            sitter.commit()
            assert run.wait(90) == 0, run.stdout.read()
        assert old(catalog) == []
        assert cluster.primaries[1].value("SELECT count(*) FROM users") == ROWS  # they are there, and nobody sees them
        assert ask(cursor, COUNT) == [(ROWS, ROWS)]
        sitter.commit()
    assert catalog.value("SELECT error IS NULL AND state = 'streaming' FROM pgshunt.job")
    ctl(one, "reshard", "cancel", "grow")
    assert one.sql(COUNT) == [(ROWS, ROWS)]


def test_a_job_that_waits_can_be_cancelled(proxies, catalog):
    one, other = proxies
    ctl(one, "reshard", "create", "early", "--move", "0-99:s1")
    with closing(other.connect(autocommit=False)) as sitter, sitter.cursor() as cursor:
        assert ask(cursor, COUNT) == [(ROWS, ROWS)]
        with subprocess.Popen(command(one.config_path, "reshard", "run", "early"), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
            wait_until(lambda: (catalog.value("SELECT error FROM pgshunt.job WHERE name = 'early'") or "").startswith("waits: "),
                       60, "run to wait")
            ctl(one, "reshard", "cancel", "early")
            run.communicate(timeout=60)
    assert catalog.value("SELECT state FROM pgshunt.job WHERE name = 'early'") == "cancelled"
    assert catalog.value("SELECT count(*) FROM pgshunt.ghost") == 0
    assert catalog.value("SELECT count(*) FROM pg_replication_slots") == 0


def test_a_catalog_of_an_earlier_version(cluster, proxies, catalog):
    """Its table gets the columns; where that is not allowed, all else is told, and a job says what it cannot know."""
    one, other = proxies
    told = "SELECT count(*) FROM pgshunt.proxy WHERE oldest = epoch"
    catalog.sql("ALTER TABLE pgshunt.proxy DROP COLUMN oldest, DROP COLUMN oldest_who")
    wait_until(lambda: catalog.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'pgshunt.proxy'::regclass "
                                     "AND attname = 'oldest_who'") == 1 and catalog.value(told) == 2, 60, "the columns")
    for node in cluster.primaries:
        node.sql("DROP ROLE IF EXISTS watcher; CREATE ROLE watcher LOGIN; GRANT pg_monitor TO watcher")
    catalog.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgshunt TO watcher; "
                "GRANT USAGE ON ALL SEQUENCES IN SCHEMA pgshunt TO watcher")
    with Proxy(cluster, keyspaces=[KEYSPACE], options=OPTIONS | {"monitor": {"user": "watcher"}}) as guest:
        guest.wait_nodes()
        mine = f"SELECT count(*) FROM pgshunt.proxy p WHERE pid = {guest.pid}"
        wait_until(lambda: catalog.value(mine) == 1, 30, "the guest's row")
        one.stop()
        other.stop()
        catalog.sql("ALTER TABLE pgshunt.proxy DROP COLUMN oldest, DROP COLUMN oldest_who")
        seen = catalog.value("SELECT clock_timestamp()")
        wait_until(lambda: catalog.value(mine + " AND seen_at > %s", (seen,)) == 1, 30, "the guest to be heard of again")
        assert catalog.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'pgshunt.proxy'::regclass "
                             "AND attname = 'oldest'") == 0
        ctl(guest, "reshard", "create", "late", "--move", "0-99:s1", "--user", "postgres")
        refused = ctl(guest, "reshard", "run", "late", "--drain", "1s", "--user", "postgres", code=None)
        # The command has added the columns; the proxy does not look for them until a minute is over, or it connects anew.
        assert refused.code != 0 and "does not tell whether transactions from before have ended" in refused.out + refused.err
        ctl(guest, "reshard", "cancel", "late", "--user", "postgres")
