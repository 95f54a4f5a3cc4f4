"""pgshuntctl reference: copies of reference tables are compared, differences are told row by row, and repaired."""
import signal
import threading
import time
from contextlib import closing

import pytest

from ctl_support import ctl, start_ctl
from harness import Cluster, Proxy

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
REFERENCE = ["countries", "wide", "shop.prices", "bag", "parts"]
VALUES = ["1", "NULL", "''", "'a,\"b\\c'", "'ü(1)'", "'x' || chr(10) || 'y'"]


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=[USERS], reference=REFERENCE) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE SCHEMA shop")
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, country text)")
        proxy.sql("CREATE TABLE countries (code text PRIMARY KEY, name text)")
        proxy.sql("ALTER TABLE users ADD FOREIGN KEY (country) REFERENCES countries")
        proxy.sql('CREATE TABLE wide (a int, b text, "C d" numeric, e timestamptz, f bytea, g text[], h jsonb, i float8,'
                  " n int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (a * 2) STORED, gone int, PRIMARY KEY (b, a))")
        proxy.sql("ALTER TABLE wide DROP gone")
        proxy.sql("CREATE TABLE shop.prices (id int PRIMARY KEY, price numeric)")
        proxy.sql("CREATE TABLE bag (v text, n int)")
        proxy.sql("CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)")
        proxy.sql("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)")
        yield proxy


@pytest.fixture(autouse=True)
def rows(cluster, proxy):
    """The same rows in every copy."""
    script = ["TRUNCATE users, countries, wide, shop.prices, bag, parts RESTART IDENTITY",
              "INSERT INTO countries SELECT 'c' || i, 'country ' || i FROM generate_series(1, 3000) i",
              "INSERT INTO shop.prices SELECT i, i * 1.10 FROM generate_series(1, 50) i",
              "INSERT INTO bag SELECT v, n FROM (VALUES " + ", ".join(f"({v}::text, 1)" for v in VALUES) + ") t(v, n), generate_series(1, 2)",
              "INSERT INTO parts SELECT i, 'p' FROM generate_series(1, 20) i",
              "INSERT INTO wide (a, b, \"C d\", e, f, g, h, i) VALUES (1, 'x', 1.50, '2026-03-01 12:00+02', '\\x0001ff', '[0:1]={a,NULL}', "
              "'{\"k\": [1, null]}', 0.1), (2, 'y\"),(', 'NaN', 'infinity', '', '{}', '1', '-infinity')"]
    for node in cluster.primaries:
        for text in script:
            node.sql(text)


def copies(cluster, table):
    return [node.sql(f"SELECT x::text FROM {table} AS x ORDER BY 1") for node in cluster.primaries]


def alike(cluster, table):
    first, *others = copies(cluster, table)
    return all(other == first for other in others)


def test_alike(proxy):
    ran = ctl(proxy, "reference", "check", "app")
    assert "All copies are alike." in ran.out
    for table in ("public.countries", "public.wide", "shop.prices", "public.bag", "public.parts"):
        assert f"{table}: is alike on all shards" in ran.out
    assert "users" not in ran.out and "parts_1" not in ran.out


def test_differences_are_told_and_repaired(cluster, proxy):
    s0, s1, s2 = cluster.primaries
    s1.sql("DELETE FROM countries WHERE code = 'c17'; UPDATE countries SET name = 'other' WHERE code = 'c18'")
    s2.sql("INSERT INTO countries VALUES ('zz', 'nowhere')")
    s2.sql("UPDATE wide SET f = '\\x00', \"C d\" = 1.5 WHERE a = 1; DELETE FROM wide WHERE a = 2")
    s1.sql("DELETE FROM bag WHERE v IS NULL; INSERT INTO bag VALUES ('new', 7)")
    s2.sql("UPDATE parts SET v = 'q' WHERE id IN (3, 4)")
    ran = ctl(proxy, "reference", "check", "app", code=5)
    for line in ("s1: public.countries: row (c17) is missing, s0 has it", "s1: public.countries: row (c18) is not as on s0",
                 "s2: public.countries: row (zz) is not on s0", "s2: public.wide: 1 rows missing, 0 too many, 1 not as on the source",
                 "s1: public.bag: 2 rows missing, 1 too many, 0 not as on the source", "s2: public.parts: row (3) is not as on s0",
                 "pgshuntctl reference repair app public.countries --from s0"):
        assert line in ran.out, line
    assert "shop.prices: is alike" in ran.out
    assert not alike(cluster, "countries")

    planned = ctl(proxy, "reference", "repair", "app", "--from", "s0", "--dry-run")
    assert "would be done: s2: public.countries: 0 rows missing, 1 too many" in planned.out
    assert not alike(cluster, "countries")

    before = {table: copies(cluster, table)[0] for table in ("countries", "wide", "bag", "parts")}
    ctl(proxy, "reference", "repair", "app", "--from", "s0")
    for table, rows in before.items():
        assert copies(cluster, table) == [rows] * 3, table
    assert "All copies are alike." in ctl(proxy, "reference", "check", "app").out


def test_one_table_from_another_shard(cluster, proxy):
    cluster.primaries[1].sql("UPDATE countries SET name = 'right' WHERE code = 'c1'; UPDATE shop.prices SET price = 0")
    events = ctl(proxy, "reference", "repair", "app", "countries", "--from", "s1", "--json").json
    assert events["outcome"] == "done" and {event["shard"] for event in events["events"] if event["kind"] == "done"} == {"s0", "s2"}
    assert alike(cluster, "countries") and not alike(cluster, "shop.prices")
    assert cluster.primaries[0].value("SELECT name FROM countries WHERE code = 'c1'") == "right"
    ran = ctl(proxy, "reference", "check", "app", "shop.prices", "--rows", "2", code=5)
    assert ran.out.count("is not as on s0") == 2 and "50 not as on the source" in ran.out


def test_rows_that_are_referred_to_stay(cluster, proxy):
    """A row too many that a foreign key refers to is not deleted behind its back."""
    node = cluster.primaries[1]
    node.sql("INSERT INTO countries VALUES ('zz', 'nowhere'); INSERT INTO users VALUES (1, 'zz')")
    ran = ctl(proxy, "reference", "repair", "app", "--from", "s0", code=1)
    assert "violates foreign key constraint" in ran.out
    node.sql("ALTER TABLE users DROP CONSTRAINT users_country_fkey,"
             " ADD FOREIGN KEY (country) REFERENCES countries ON DELETE CASCADE")
    ran = ctl(proxy, "reference", "repair", "app", "--from", "s0", code=1)
    assert "deleting them would change rows of public.users too" in ran.out
    assert node.value("SELECT count(*) FROM users") == 1 and node.value("SELECT count(*) FROM countries") == 3001
    ctl(proxy, "reference", "repair", "app", "--from", "s1")
    assert alike(cluster, "countries")


def test_a_trigger_that_changes_rows_is_noticed(cluster, proxy):
    node = cluster.primaries[2]
    node.sql("CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.price := -1; RETURN NEW; END';"
             " CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON shop.prices FOR EACH ROW EXECUTE FUNCTION spoil();"
             " DELETE FROM shop.prices WHERE id = 7")
    try:
        ran = ctl(proxy, "reference", "repair", "app", "--from", "s0", code=1)
        assert "a trigger may change them" in ran.out
        assert node.value("SELECT count(*) FROM shop.prices") == 49
    finally:
        node.sql("DROP FUNCTION spoil() CASCADE")


def test_other_columns(cluster, proxy):
    node = cluster.primaries[1]
    node.sql("ALTER TABLE bag ADD extra int")
    try:
        ran = ctl(proxy, "reference", "check", "app", code=5)
        assert "s1: public.bag: has other columns" in ran.out and "pgshuntctl schema diff app" in ran.out
    finally:
        node.sql("ALTER TABLE bag DROP extra")


def test_changes_under_way_are_no_differences(cluster, proxy):
    stop, failures = threading.Event(), []

    def write():
        try:
            with closing(proxy.connect()) as connection:
                for number in range(100000):
                    if stop.is_set():
                        return
                    connection.cursor().execute(f"UPDATE countries SET name = '{number}' WHERE code = 'c{number % 50}'")
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            ctl(proxy, "reference", "check", "app", "countries")
        cluster.primaries[2].sql("DELETE FROM countries WHERE code = 'c60'")
        ctl(proxy, "reference", "repair", "app", "--from", "s0")
    finally:
        stop.set()
        writer.join()
    assert not failures and alike(cluster, "countries")


def test_a_writer_that_does_not_end(cluster, proxy):
    cluster.primaries[1].sql("DELETE FROM countries WHERE code = 'c1'")
    with closing(cluster.primaries[2].connect()) as connection:
        connection.autocommit = False
        connection.cursor().execute("UPDATE countries SET name = name WHERE code = 'c2'")
        ran = ctl(proxy, "reference", "repair", "app", "--from", "s0", code=1)
        assert "s2: public.countries: cannot keep writers out" in ran.out and "lock timeout" in ran.out
    ctl(proxy, "reference", "repair", "app", "--from", "s0")


def test_killed(cluster, proxy):
    """At any moment: each copy is as before or repaired, nothing stays locked, and another run finishes it."""
    for delay in (0.02, 0.05, 0.1, 0.2):
        for node in cluster.primaries[1:]:
            node.sql("UPDATE countries SET name = 'wrong'")
        run = start_ctl(proxy, "reference", "repair", "app", "--from", "s0")
        time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        for node in cluster.primaries:
            assert int(node.value("SELECT count(*) FROM countries WHERE name = 'wrong'")) in (0, 3000)
        ctl(proxy, "reference", "repair", "app", "--from", "s0")
        assert alike(cluster, "countries")


def test_command_lines(proxy):
    assert "--from SHARD" in ctl(proxy, "reference", "repair", "app", code=2).err
    assert "are for repair" in ctl(proxy, "reference", "check", "app", "--from", "s0", code=2).err
    assert 'no shard "s9"' in ctl(proxy, "reference", "repair", "app", "--from", "s9", code=1).out
    assert "is no reference table" in ctl(proxy, "reference", "check", "app", "users", code=1).out
    assert 'no database "other"' in ctl(proxy, "reference", "check", "other", code=1).err
