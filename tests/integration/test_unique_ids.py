"""Ids unique over all shards: interleaved sequences (pgshuntctl sequences), pgshunt.next_id(), pgshunt.uuid_v7()."""
import signal
import threading
import time
import uuid
from contextlib import closing, suppress

import psycopg2
import pytest

from ctl_support import ctl, start_ctl
from harness import Cluster, Proxy
from support import explain, fetch, one, refused

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, {"name": "items", "key": "user_id"}]}


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    """Two of the three shards; the third joins later."""
    shards = cluster.shard_config()
    with Proxy(cluster, keyspaces=[USERS], reference=["countries"], database={"shards": shards[:2]}) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
        proxy.sql("CREATE TABLE items (user_id bigint, id bigserial, small serial, made int GENERATED ALWAYS AS IDENTITY, free int)")
        proxy.sql("CREATE TABLE notes (id serial PRIMARY KEY, text text)")
        proxy.sql("CREATE TABLE countries (id serial PRIMARY KEY, name text)")
        proxy.sql('CREATE SEQUENCE "Free one"; CREATE SEQUENCE used')
        proxy.sql("ALTER TABLE items ALTER free SET DEFAULT nextval('used')")
        yield proxy


def user_of(cluster, shard):
    """A key that lives there."""
    return cluster.primaries[shard].value("SELECT min(id) FROM users")


def sequence(cluster, shard, name):
    return cluster.primaries[shard].sql(f"SELECT s.seqincrement FROM pg_sequence s WHERE s.seqrelid = '{name}'::regclass")[0][0]


def add_items(proxy, count, users=range(1, 9)):
    proxy.sql("INSERT INTO items (user_id) VALUES " + ", ".join(f"({user})" for user in users for _ in range(count)))


def all_items(cluster, column, shards=(0, 1)):
    return [row[0] for shard in shards for row in cluster.primaries[shard].sql(f"SELECT {column} FROM items")]


def test_setup(cluster, proxy):
    proxy.sql("INSERT INTO users (id) VALUES " + ", ".join(f"({user})" for user in range(1, 33)))
    add_items(proxy, 5)
    assert len(set(all_items(cluster, "id"))) < 40  # each shard counts by itself
    checked = ctl(proxy, "sequences", "check", "app", code=5)
    assert "public.items_id_seq: is not interleaved" in checked.out and "pgshuntctl sequences setup app" in checked.out

    planned = ctl(proxy, "sequences", "setup", "app", "--dry-run").out
    assert "would be interleaved" in planned
    assert sequence(cluster, 0, "items_id_seq") == 1

    for node in cluster.primaries[:2]:
        node.sql("DELETE FROM items")
    cluster.primaries[1].sql(f"INSERT INTO items (user_id, id) VALUES ({user_of(cluster, 1)}, 12345)")
    done = ctl(proxy, "sequences", "setup", "app")
    for name in ("public.items_id_seq", "public.items_small_seq", "public.items_made_seq", 'public."Free one"', "public.used"):
        assert f"done: {name}: interleaved" in done.out
    assert "notes_id_seq" not in done.out and "countries_id_seq" not in done.out
    assert [sequence(cluster, shard, name) for shard in (0, 1) for name in ("items_id_seq", "used", "notes_id_seq")] \
        == [64, 64, 1] * 2
    add_items(proxy, 20)
    for column in ("id", "small", "made", "free"):
        values = all_items(cluster, column)
        assert len(set(values)) == len(values), column
    assert min(value for value in all_items(cluster, "id") if value != 12345) > 12345

    again = ctl(proxy, "sequences", "setup", "app")
    assert "done: public" not in again.out
    assert "Ids are unique" in ctl(proxy, "sequences", "check", "app").out


def test_show(proxy):
    events = ctl(proxy, "sequences", "show", "app", "--json").json["events"]
    shown = [event for event in events if event["object"] == "public.items_id_seq"]
    assert [event["shard"] for event in shown] == ["s0", "s1"]
    assert "by 64; for public.items.id" in shown[0]["text"]


def test_check_finds_ids_that_would_come_again(cluster, proxy):
    node = cluster.primaries[0]
    next_id = int(node.value("SELECT last_value + 64 FROM items_id_seq"))
    other = user_of(cluster, 1)
    cluster.primaries[1].sql(f"INSERT INTO items (user_id, id) VALUES ({other}, {next_id + 640})")
    checked = ctl(proxy, "sequences", "check", "app", code=5)
    assert f"s0: public.items_id_seq: will give ids that public.items has already on s1, up to {next_id + 640}" in checked.out
    assert f"setval('public.items_id_seq', {next_id + 640})" in checked.out
    node.sql(f"SELECT setval('public.items_id_seq', {next_id + 640})")
    ctl(proxy, "sequences", "check", "app")


def test_a_shard_that_joins_later(cluster, proxy):
    third = cluster.primaries[2]
    third.sql("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    third.sql("CREATE TABLE items (user_id bigint, id bigserial, small serial, made int GENERATED ALWAYS AS IDENTITY, free int)")
    third.sql("CREATE TABLE notes (id serial PRIMARY KEY, text text)")
    third.sql("CREATE TABLE countries (id serial PRIMARY KEY, name text)")
    third.sql('CREATE SEQUENCE "Free one"; CREATE SEQUENCE used')
    third.sql("ALTER TABLE items ALTER free SET DEFAULT nextval('used')")
    with Proxy(cluster, keyspaces=[USERS], reference=["countries"]) as grown:
        grown.wait_nodes()
        ctl(grown, "sequences", "check", "app", code=5)
        ctl(grown, "sequences", "setup", "app")
        assert [node.value("SELECT pgshunt.shard_number()") for node in cluster.primaries] == [0, 1, 2]
        for user in range(1, 33):
            third.sql(f"INSERT INTO items (user_id) VALUES ({user})")
        for column in ("id", "small", "made", "free"):
            values = all_items(cluster, column, (0, 1, 2))
            assert len(set(values)) == len(values), column
        ctl(grown, "sequences", "check", "app")
        third.sql("DELETE FROM items")


def test_setup_while_ids_are_taken(cluster, proxy):
    """Writers go on; whatever moment it comes in, no id that was given after it began comes twice."""
    for node in cluster.primaries[:2]:
        node.sql("DROP TABLE IF EXISTS busy; CREATE TABLE busy (id bigserial, at timestamptz DEFAULT clock_timestamp())")
    with Proxy(cluster, keyspaces=[{**USERS, "tables": [{"name": "busy", "key": "id"}]}],
               database={"shards": cluster.shard_config()[:2]}) as other:
        stop, failures = threading.Event(), []

        def write(node):
            try:
                with closing(node.connect()) as connection:
                    connection.autocommit = True
                    cursor = connection.cursor()
                    while not stop.is_set():
                        cursor.execute("INSERT INTO busy DEFAULT VALUES")
            except Exception as error:
                failures.append(error)

        writers = [threading.Thread(target=write, args=(node,)) for node in cluster.primaries[:2] for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            killed = start_ctl(other, "sequences", "setup", "app")
            time.sleep(0.05)
            killed.send_signal(signal.SIGKILL)
            killed.communicate()
            ctl(other, "sequences", "setup", "app")
            for node in cluster.primaries[:2]:
                node.sql("INSERT INTO busy (id, at) VALUES (-1, clock_timestamp())")
            time.sleep(0.3)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert not failures
        ctl(other, "sequences", "check", "app")
        after = [row[0] for node in cluster.primaries[:2]
                 for row in node.sql("SELECT id FROM busy WHERE at > (SELECT at FROM busy WHERE id = -1)")]
        assert len(after) > 20 and len(set(after)) == len(after)
        before = {row[0] for node in cluster.primaries[:2]
                  for row in node.sql("SELECT id FROM busy WHERE id > 0 AND at < (SELECT at FROM busy WHERE id = -1)")}
        assert not before & set(after)


def test_wait_for_the_sequence_is_bounded(cluster, proxy):
    node = cluster.primaries[1]
    node.sql("ALTER SEQUENCE items_id_seq INCREMENT BY 1")
    with closing(node.connect()) as connection:
        connection.autocommit = False
        connection.cursor().execute("SELECT nextval('items_id_seq')")
        ran = ctl(proxy, "sequences", "setup", "app", code=None)
    assert ran.code in (1, 4) and "lock timeout" in ran.out
    ctl(proxy, "sequences", "setup", "app")
    ctl(proxy, "sequences", "check", "app")


def test_next_id(cluster, proxy):
    proxy.sql("CREATE TABLE IF NOT EXISTS events (user_id bigint, id bigint DEFAULT pgshunt.next_id(), tag uuid DEFAULT pgshunt.uuid_v7())")
    begun = time.time()
    ids = [row[0] for node in cluster.primaries[:2] for row in node.sql("SELECT pgshunt.next_id() FROM generate_series(1, 5000)")]
    assert len(set(ids)) == len(ids) and ids[:5000] == sorted(ids[:5000])
    assert {value >> 12 & 1023 for value in ids[:5000]} == {0} and {value >> 12 & 1023 for value in ids[5000:]} == {1}
    assert abs((ids[0] >> 22) / 1000 + 1704067200 - begun) < 5
    time.sleep(0.01)
    later = cluster.primaries[0].value("SELECT pgshunt.next_id()")
    assert all(value < later for value in ids)


def test_next_id_of_many_sessions(cluster, proxy):
    node, found = cluster.primaries[0], []

    def take():
        found.extend(row[0] for row in node.sql("SELECT pgshunt.next_id() FROM generate_series(1, 3000)"))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12000 == len(set(found))


def test_uuid_v7(cluster, proxy):
    values = []
    for _ in range(3):
        values.append(uuid.UUID(str(cluster.primaries[0].value("SELECT pgshunt.uuid_v7()"))))
        time.sleep(0.003)
    assert values == sorted(values)
    assert {value.version for value in values} == {7} and {value.variant for value in values} == {uuid.RFC_4122}
    assert abs((values[0].int >> 80) / 1000 - time.time()) < 5


def test_nextval_without_a_table_is_the_first_shards(cluster, proxy):
    """Also in a transaction on another shard: a sequence that is not interleaved gives no number twice."""
    proxy.sql("CREATE SEQUENCE plain")
    with closing(proxy.connect()) as connection:
        values = [one(connection, "SELECT nextval('plain')")]
        for shard in (0, 1):
            connection.cursor().execute("BEGIN")
            connection.cursor().execute(f"UPDATE users SET name = 'x' WHERE id = {user_of(cluster, shard)}")
            values.append(one(connection, "SELECT nextval('plain')"))
            assert one(connection, "SELECT currval('plain')") == values[-1]
            connection.cursor().execute("ROLLBACK")
        assert values == [1, 2, 3]
        assert "sequences: first shard" in explain(connection, "SELECT nextval('plain')")


@pytest.mark.parametrize("shard", [0, 1])
def test_currval_is_of_the_shard_that_inserted(cluster, proxy, shard):
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute(f"UPDATE users SET name = 'x' WHERE id = {user_of(cluster, 1 - shard)}")
        cursor.execute(f"INSERT INTO items (user_id) VALUES ({user_of(cluster, shard)})")
        value = one(connection, "SELECT currval('items_id_seq')")
        assert value == int(cluster.primaries[shard].value("SELECT last_value FROM items_id_seq"))
        cursor.execute(f"UPDATE users SET name = 'x' WHERE id = {user_of(cluster, 1 - shard)}")
        assert one(connection, "SELECT currval('items_id_seq')") == value
        cursor.execute("ROLLBACK")


@pytest.mark.parametrize("shard", [0, 1])
def test_currval_outside_a_block(cluster, proxy, shard):
    """The first time its server may have been used by others since (55000); from then on it keeps it."""
    with closing(proxy.connect()) as connection:
        cursor = connection.cursor()
        insert = f"INSERT INTO items (user_id) VALUES ({user_of(cluster, shard)})"
        cursor.execute(insert)
        with suppress(psycopg2.errors.ObjectNotInPrerequisiteState):
            one(connection, "SELECT lastval()")
        cursor.execute(insert)
        value = int(cluster.primaries[shard].value("SELECT last_value FROM items_id_seq"))
        assert one(connection, "SELECT currval('items_id_seq')") == value


def test_a_key_cannot_be_a_default(proxy):
    with closing(proxy.connect()) as connection:
        for values in ("users (name) VALUES ('a')", "users (id, name) VALUES (DEFAULT, 'a'), (DEFAULT, 'b')"):
            with refused("23502") as caught:
                connection.cursor().execute(f"INSERT INTO {values}")
            assert "SELECT nextval" in caught.value.diag.message_hint


def test_defaults_that_would_make_copies_differ(cluster, proxy):
    proxy.sql("CREATE TABLE coins (id int GENERATED BY DEFAULT AS IDENTITY, code text DEFAULT 'x' || lower('Y'),"
              " at timestamptz DEFAULT now(), since date DEFAULT current_date, n int DEFAULT 1)")
    with Proxy(cluster, keyspaces=[USERS], reference=["coins"], database={"shards": cluster.shard_config()[:2]}) as other:
        other.wait_nodes()
        with closing(other.connect()) as connection:
            cursor = connection.cursor()
            good = "INSERT INTO coins (id, at, since) VALUES (1, '2026-01-01', '2026-01-01')"
            for column, text in [
                    ("at", "UPDATE coins SET at = DEFAULT"),
                    ("id", "INSERT INTO coins (at, since) SELECT '2026-01-01', '2026-01-01'"),
                    ("id", "WITH new AS (INSERT INTO coins (at, since) VALUES ('2026-01-01', '2026-01-01') RETURNING *) SELECT 1")]:
                with refused("0A000", f'the default of "{column}" would differ'):
                    cursor.execute(text)
            cursor.execute(good)
            cursor.execute("INSERT INTO coins VALUES (2, 'y', '2026-01-01', '2026-01-01')")
            cursor.execute("UPDATE coins SET n = DEFAULT, code = DEFAULT WHERE id = 2")
            copies = [node.sql("SELECT * FROM coins ORDER BY id") for node in cluster.primaries[:2]]
            assert copies[0] == copies[1] and len(copies[0]) == 2 and copies[0][1][1] == "xy"
            cursor.execute("DELETE FROM coins")
            for text in ("(at, since) VALUES ('2026-01-01', '2026-01-01')", "(id) VALUES (1001), (DEFAULT), (DEFAULT)",
                         "(id, since) VALUES (1002, '2026-01-01')", "VALUES (1003, 'y', '2026-01-01')", "DEFAULT VALUES"):
                cursor.execute(f"INSERT INTO coins {text} RETURNING id, at, since")
            copies = [node.sql("SELECT * FROM coins ORDER BY id") for node in cluster.primaries[:2]]
            assert copies[0] == copies[1] and len(copies[0]) == 7 and len({row[0] for row in copies[0]}) == 7
            assert all(None not in row for row in copies[0])


def test_anybody_may_take_ids(cluster, proxy):
    cluster.create_role("app")
    with closing(proxy.connect(user="app")) as connection:
        connection.autocommit = True
        assert one(connection, "SELECT pgshunt.next_id()") > 0
        assert fetch(connection, "SELECT pgshunt.uuid_v7()")
