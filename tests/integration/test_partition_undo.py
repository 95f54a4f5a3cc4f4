"""Partitioned tables become plain ones again, with all that belongs to them and every row."""
import signal

import pytest

from ctl_support import start_ctl
from harness import wait_until
from partition_kills import needs_failpoints
from partition_support import SHAPE, cluster, kind, partition, proxy, run

TABLES = ("events", "kept", "killed")
REFERENCE = ["rates"]


def has_policy(node, table):
    return node.value("SELECT count(*) FROM pgshunt.partition_policy WHERE table_name = %s", (table,), dbname="app") == 1


def test_a_table_comes_back_with_all_that_belongs_to_it(cluster, proxy, run):
    cluster.create_role("keeper")
    cluster.create_role("reader")
    run("CREATE TABLE rates (id bigint PRIMARY KEY)")
    run("CREATE TABLE kept (id bigint GENERATED ALWAYS AS IDENTITY (START 100), user_id bigint NOT NULL, number bigserial,"
        " at timestamptz NOT NULL DEFAULT now(), rate bigint REFERENCES rates, body text DEFAULT 'x' CHECK (body <> ''),"
        " size int GENERATED ALWAYS AS (length(body)) STORED, CONSTRAINT kept_key PRIMARY KEY (user_id, id, at),"
        " CONSTRAINT kept_once UNIQUE (user_id, at))")
    run("CREATE INDEX kept_body ON kept (lower(body)) WHERE body IS NOT NULL")
    for node in cluster.primaries:
        node.sql("""
            CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''touched''; END';
            CREATE TRIGGER kept_touch BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION touch();
            CREATE TRIGGER kept_off AFTER INSERT ON kept FOR EACH ROW EXECUTE FUNCTION touch();
            ALTER TABLE kept DISABLE TRIGGER kept_off;
            ALTER TABLE kept ENABLE ROW LEVEL SECURITY; ALTER TABLE kept FORCE ROW LEVEL SECURITY;
            CREATE POLICY kept_own ON kept FOR SELECT TO reader USING (user_id > 0);
            GRANT SELECT, INSERT ON kept TO reader WITH GRANT OPTION; GRANT UPDATE (body) ON kept TO reader;
            COMMENT ON TABLE kept IS 'what we keep'; COMMENT ON COLUMN kept.body IS 'the "body"';
            COMMENT ON CONSTRAINT kept_key ON kept IS 'the key'; COMMENT ON INDEX kept_body IS 'in small letters';
            CREATE STATISTICS kept_both ON user_id, rate FROM kept;
            CREATE PUBLICATION kept_out FOR TABLE kept;
            ALTER TABLE kept ALTER body SET STATISTICS 400;
            ALTER TABLE kept REPLICA IDENTITY USING INDEX kept_once;
            ALTER TABLE kept OWNER TO keeper;
            CREATE TABLE pattern (LIKE kept INCLUDING GENERATED INCLUDING CONSTRAINTS) WITH (fillfactor = 70)""", dbname="app")
    before = [node.sql(SHAPE, {"t": "kept"}, dbname="app") for node in cluster.primaries]
    partition(proxy, "create", "kept", "--by", "at", "--every", "1month", "--start", "2026-01-01", "--now", "2026-02-10", "--template", "pattern")
    run("INSERT INTO kept (user_id, at, body) SELECT g, '2026-01-01'::timestamptz + g * interval '1 hour', 'b' || g FROM generate_series(1, 1000) g")
    rows = [node.sql("SELECT * FROM kept ORDER BY id", dbname="app") for node in cluster.primaries]
    last = [node.value("SELECT last_value FROM kept_id_seq", dbname="app") for node in cluster.primaries]
    assert "would be done: s0: public.kept: make it a plain table" in partition(proxy, "undo", "kept", "--dry-run").out
    assert kind(cluster.primaries[0], "kept") == "p"
    ran = partition(proxy, "undo", "kept")
    assert "s1: public.kept: made it a plain table, with all of its rows" in ran.out and "it has no policy any more" in ran.out
    for node, shape, had, number in zip(cluster.primaries, before, rows, last):
        assert kind(node, "kept") == "r" and node.sql(SHAPE, {"t": "kept"}, dbname="app") == shape
        assert node.sql("SELECT * FROM kept ORDER BY id", dbname="app") == had
        assert node.value("SELECT nextval('kept_id_seq') > %s", (number,), dbname="app")
        assert node.value("SELECT reloptions::text FROM pg_class WHERE relname = 'kept'", dbname="app") == "{fillfactor=70}"
        assert node.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'kept\\_p%%' AND relkind IN ('r', 'p')", (), dbname="app") == 0
    # Again: nothing is left to be done. And it may become a partitioned one once more.
    assert partition(proxy, "undo", "kept", "--json").texts("done") == []
    assert "No table has a policy" in partition(proxy, "list").out


def test_what_stands_in_the_way_of_it_is_told_and_nothing_is_done(cluster, proxy, run):
    node = cluster.primaries[0]
    node.sql("""CREATE TABLE alone (id bigint, at date NOT NULL, PRIMARY KEY (id, at));
                CREATE TABLE other (id bigint, at date); CREATE TABLE much (at date NOT NULL)""", dbname="app")
    for table in ("alone", "much"):
        partition(proxy, "create", table, "--by", "at", "--every", "1month", "--now", "2026-01-10")
    node.sql("CREATE VIEW seen AS SELECT * FROM alone; ALTER TABLE other ADD FOREIGN KEY (id, at) REFERENCES alone", dbname="app")
    ran = partition(proxy, "undo", "alone", code=5)
    assert "foreign key other_id_at_fkey of public.other refers to it" in ran.out and "view public.seen depends on it" in ran.out
    assert kind(node, "alone") == "p" and has_policy(node, "alone")
    node.sql("DROP VIEW seen; DROP TABLE other", dbname="app")
    node.sql("INSERT INTO much SELECT '2026-01-05' FROM generate_series(1, 1000001)", dbname="app")
    ran = partition(proxy, "undo", "much", code=5)
    assert "it has more than 1000000 rows, and whoever reads or writes it waits until all are moved" in ran.out
    assert "--force, when that may be" in ran.out and kind(node, "much") == "p" and has_policy(node, "much")
    partition(proxy, "undo", "much", "--force")
    assert node.value("SELECT count(*) FROM much", dbname="app") == 1000001 and kind(node, "much") == "r"
    # Rows of a partition that is being detached are not seen through the table: they are not lost with it.
    node.sql("INSERT INTO alone VALUES (6, '2026-01-05'), (7, '2026-02-05')", dbname="app")
    reader = node.connect(dbname="app")
    reader.cursor().execute("BEGIN; SELECT count(*) FROM alone")
    with pytest.raises(Exception, match="statement timeout"):
        detach(node)
    ran = partition(proxy, "undo", "alone", "--tries", "2", code=1)
    assert "cannot finish the detaching of alone_p20260201" in ran.out and kind(node, "alone") == "p"
    reader.close()
    partition(proxy, "undo", "alone")
    assert node.value("SELECT count(*) FROM alone", dbname="app") == 1 and kind(node, "alone") == "r"
    assert node.value("SELECT count(*) FROM alone_p20260201", dbname="app") == 1 and not has_policy(node, "alone")
    assert "there is no such table" in partition(proxy, "undo", "nowhere", code=5).out


def detach(node):
    """Begun and given up: a reader keeps it from being finished."""
    connection = node.connect(dbname="app")
    connection.autocommit = True
    try:
        cursor = connection.cursor()
        cursor.execute("SET statement_timeout = '500ms'")
        cursor.execute("ALTER TABLE alone DETACH PARTITION alone_p20260201 CONCURRENTLY")
    finally:
        connection.close()


def test_a_shard_that_is_down_and_a_run_that_is_killed_are_made_up_for(cluster, proxy, run):
    run("CREATE TABLE events (user_id bigint NOT NULL, at date NOT NULL)")
    partition(proxy, "create", "events", "--by", "at", "--every", "1month", "--now", "2026-01-10")
    run("INSERT INTO events SELECT g, '2026-01-05' FROM generate_series(1, 500) g")
    node, other = cluster.primaries
    other.stop()
    try:
        ran = partition(proxy, "undo", "events", code=4)
        assert "s1: cannot connect to the shard's primary" in ran.out and ran.out.count("cannot connect") == 1
        assert kind(node, "events") == "r" and has_policy(node, "events")
    finally:
        other.start()
    proxy.wait_nodes()
    # The other half is killed while it waits for a reader.
    reader = other.connect(dbname="app")
    reader.cursor().execute("BEGIN; SELECT count(*) FROM events")
    trying = start_ctl(proxy, "partition", "undo", "events", "--tries", "1000")
    try:
        wait_until(lambda: other.value("SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'AccessExclusiveLock'",
                                       dbname="app") == 1, 60)
        trying.send_signal(signal.SIGKILL)
    finally:
        trying.kill()
        trying.wait()
        trying.stdout.close()
    reader.close()
    for each in cluster.primaries:
        wait_until(lambda each=each: each.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'",
                                                dbname="app") == 0, 60)
    partition(proxy, "undo", "events")
    assert (kind(node, "events"), kind(other, "events"), has_policy(node, "events")) == ("r", "r", False)
    assert run("SELECT count(*), count(DISTINCT user_id) FROM events") == [(500, 500)]


@needs_failpoints
def test_one_that_dies_between_the_table_and_its_policy_is_finished_by_the_next(cluster, proxy, run):
    run("CREATE TABLE killed (user_id bigint NOT NULL, at date NOT NULL)")
    partition(proxy, "create", "killed", "--by", "at", "--every", "1month", "--now", "2026-01-10")
    run("INSERT INTO killed SELECT g, '2026-01-05' FROM generate_series(1, 500) g")
    ran = partition(proxy, "undo", "killed", environment={"PGSHUNT_CRASH_AT": "undone"}, code=None)
    node = cluster.primaries[0]
    assert ran.code == -signal.SIGKILL and has_policy(node, "killed")
    assert "r" in [kind(each, "killed") for each in cluster.primaries]
    for each in cluster.primaries:
        wait_until(lambda each=each: each.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'",
                                                dbname="app") == 0, 60)
    partition(proxy, "undo", "killed")
    assert [kind(each, "killed") for each in cluster.primaries] == ["r", "r"] and not has_policy(node, "killed")
    assert run("SELECT count(*), count(DISTINCT user_id) FROM killed") == [(500, 500)]
