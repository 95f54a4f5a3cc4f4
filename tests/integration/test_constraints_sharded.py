"""Keys and foreign keys over shards: those that hold work, those that cannot are refused with a way out; tables to be sharded."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from support import fetch, one, refused

pytestmark = pytest.mark.core

KEYSPACES = [
    {"name": "users", "type": "bigint", "tables": [{"name": "fk_users", "key": "id"}, {"name": "fk_orders", "key": "user_id"},
                                                   {"name": "fk_lines", "key": "user_id"}]},
    {"name": "shops", "type": "bigint", "tables": [{"name": "fk_shops", "key": "id"}]},
]
REFERENCE = ["fk_countries", "fk_coins"]


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES, reference=REFERENCE) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE fk_countries (code text PRIMARY KEY)")
        proxy.sql("CREATE TABLE fk_users (id bigint PRIMARY KEY, country text REFERENCES fk_countries, mail text)")
        proxy.sql("CREATE TABLE fk_orders (user_id bigint REFERENCES fk_users, id bigint, parent bigint, PRIMARY KEY (user_id, id),"
                  " FOREIGN KEY (user_id, parent) REFERENCES fk_orders)")
        proxy.sql("CREATE TABLE fk_shops (id bigint PRIMARY KEY)")
        proxy.sql("CREATE TABLE fk_notes (id int PRIMARY KEY, country text REFERENCES fk_countries)")
        yield proxy
        proxy.sql("DROP TABLE IF EXISTS fk_lines, fk_items, fk_coins, fk_shops, fk_orders, fk_users, fk_notes, fk_countries CASCADE")


@pytest.fixture
def connection(proxy):
    with closing(proxy.connect()) as connection:
        yield connection
        connection.cursor().execute("DROP TABLE IF EXISTS fk_lines, fk_items, fk_coins")


def test_those_within_a_shard_hold(connection):
    cursor = connection.cursor()
    cursor.execute("INSERT INTO fk_countries VALUES ('at')")
    cursor.execute("INSERT INTO fk_users (id, country) VALUES " + ", ".join(f"({i}, 'at')" for i in range(20)))
    cursor.execute("INSERT INTO fk_orders (user_id, id) VALUES " + ", ".join(f"({i}, 1)" for i in range(20)))
    cursor.execute("INSERT INTO fk_orders (user_id, id, parent) VALUES (3, 2, 1)")
    for text in ("INSERT INTO fk_users VALUES (100, 'xx')", "INSERT INTO fk_orders VALUES (100, 1)", "INSERT INTO fk_orders VALUES (4, 2, 7)"):
        with refused("23503", hint=False):
            cursor.execute(text)
    with refused("23503", hint=False):
        cursor.execute("DELETE FROM fk_countries")


@pytest.mark.parametrize("statement", [
    "CREATE TABLE fk_lines (user_id bigint, order_id bigint, FOREIGN KEY (user_id, order_id) REFERENCES fk_orders (user_id, id))",
    "CREATE TABLE fk_lines (order_id bigint, user_id bigint, FOREIGN KEY (user_id, order_id) REFERENCES fk_orders)",
    "CREATE TABLE fk_lines (user_id bigint REFERENCES fk_users, country text REFERENCES fk_countries)",
    "CREATE TABLE fk_coins (country text REFERENCES fk_countries)",
    "CREATE TABLE fk_items (note int REFERENCES fk_notes)",
])
def test_made(connection, statement):
    connection.cursor().execute(statement)


@pytest.mark.parametrize("statement, message", [
    ("CREATE TABLE fk_lines (user_id bigint, other bigint REFERENCES fk_users)", "has to include the shard keys, \"user_id\" and \"id\""),
    ("CREATE TABLE fk_lines (user_id bigint, a bigint, b bigint, FOREIGN KEY (a, b) REFERENCES fk_orders)", "has to include the shard keys"),
    ("CREATE TABLE fk_lines (user_id bigint, a bigint, FOREIGN KEY (a, user_id) REFERENCES fk_orders (user_id, id))", "has to include the shard keys"),
    ("CREATE TABLE fk_lines (user_id bigint, id bigint UNIQUE, up bigint REFERENCES fk_lines (id))", "has to include the shard keys"),
    ("CREATE TABLE fk_lines (user_id bigint REFERENCES fk_shops)", "sharded by another keyspace"),
    ("CREATE TABLE fk_lines (user_id bigint, note int REFERENCES fk_notes)", 'cannot refer to "fk_notes", which is on shard s0 alone'),
    ("CREATE TABLE fk_coins (u bigint REFERENCES fk_users)", "a reference table, which is on every shard, cannot refer"),
    ("CREATE TABLE fk_coins (n int REFERENCES fk_notes)", 'cannot refer to "fk_notes"'),
    ("CREATE TABLE fk_items (user_id bigint REFERENCES fk_users)", "a table on shard s0 alone cannot refer to rows of sharded table"),
    ("ALTER TABLE fk_orders ADD FOREIGN KEY (id) REFERENCES fk_users (id)", "has to include the shard keys"),
    ("ALTER TABLE fk_orders ADD note int REFERENCES fk_notes", 'cannot refer to "fk_notes"'),
    ("ALTER TABLE fk_notes ADD user_id bigint, ADD CONSTRAINT u FOREIGN KEY (user_id) REFERENCES fk_users", "a table on shard s0 alone"),
])
def test_refused(cluster, connection, statement, message):
    with refused("0A000", message):
        connection.cursor().execute(statement)
    assert not [row for node in cluster.primaries for row in node.sql("SELECT 1 FROM pg_class WHERE relname IN ('fk_lines', 'fk_items', 'fk_coins')")]


def test_a_table_with_a_colocated_key_is_offered_as_sharded(connection):
    with refused("0A000") as caught:
        connection.cursor().execute("CREATE TABLE fk_items (id bigint, owner bigint REFERENCES fk_users (id))")
    hint = caught.value.diag.message_hint
    assert '{ name = "fk_items"; key = "owner"; } into keyspace "users"' in hint and "/* pgshunt: shard by owner */" in hint


def notices(connection, statement):
    connection.notices.clear()
    connection.cursor().execute(statement)
    return "".join(connection.notices)


def test_shard_by(cluster, proxy, connection):
    """What the NOTICE says is what there is to do: then its rows go by the key."""
    text = notices(connection, "CREATE TABLE fk_items /* pgshunt: shard by owner */ (id bigint PRIMARY KEY, owner bigint NOT NULL REFERENCES fk_users)")
    assert 'table "fk_items" is made on every shard; it is sharded by "owner" once the configuration says so' in text
    assert '{ name = "fk_items"; key = "owner"; } into the tables of keyspace "users" and reload' in text
    assert 'PRIMARY KEY without "owner", the shard key of table "fk_items", holds on each shard by itself' in text
    assert [node.value("SELECT to_regclass('fk_items')::text") for node in cluster.primaries] == ["fk_items"] * 2
    grown = [{**KEYSPACES[0], "tables": KEYSPACES[0]["tables"] + [{"name": "fk_items", "key": "owner"}]}, KEYSPACES[1]]
    with Proxy(cluster, keyspaces=grown, reference=REFERENCE) as other:
        other.wait_nodes()
        with closing(other.connect()) as sharded:
            sharded.cursor().execute("INSERT INTO fk_users (id) VALUES (1001), (1002), (1003), (1004), (1005), (1006)")
            sharded.cursor().execute("INSERT INTO fk_items VALUES (1, 1001), (2, 1002), (3, 1003), (4, 1004), (5, 1005), (6, 1006)")
            assert one(sharded, "SELECT count(*) FROM fk_items i JOIN fk_users u ON u.id = i.owner") == 6
            assert not notices(sharded, "ALTER TABLE fk_items ADD price int")
            sharded.cursor().execute("DROP TABLE fk_items")
    assert 'into the tables of a keyspace and reload' in notices(connection, "CREATE TABLE fk_items (v int) /* pgshunt: shard by v */")


@pytest.mark.parametrize("statement, sqlstate", [
    ("CREATE TABLE fk_lines /* pgshunt: shard by id */ (user_id bigint, id bigint)", "22023"),
    ("CREATE TABLE fk_coins /* pgshunt: shard by id */ (id bigint)", "22023"),
    ("CREATE TABLE fk_items /* pgshunt: shard by owner */ (owner bigint, n int REFERENCES fk_notes)", "0A000"),
    ("CREATE TABLE fk_items /* pgshunt: shard by owner */ (owner bigint, u bigint REFERENCES fk_users)", "0A000"),
    ("CREATE TABLE fk_items /* pgshunt: shard by */ (owner bigint)", "22023"),
    ("SELECT 1 /* pgshunt: shard by id */", "22023"),
])
def test_shard_by_in_vain(connection, statement, sqlstate):
    with refused(sqlstate):
        connection.cursor().execute(statement)


def test_unique_keys_without_the_shard_key_are_told(connection):
    assert 'UNIQUE without "id"' in notices(connection, "ALTER TABLE fk_users ADD CONSTRAINT m UNIQUE (mail)")
    assert 'UNIQUE without "id"' in notices(connection, "CREATE UNIQUE INDEX fk_m ON fk_users (lower(mail))")
    assert 'PRIMARY KEY without "user_id"' in notices(connection, "CREATE TABLE fk_lines (user_id bigint, id bigint PRIMARY KEY)")
    assert not notices(connection, "ALTER TABLE fk_users ADD CONSTRAINT n UNIQUE (mail, id)")
    assert not notices(connection, "CREATE UNIQUE INDEX fk_n ON fk_users (id, mail)")
    assert not notices(connection, "CREATE TABLE fk_items (id bigint PRIMARY KEY)")
    connection.cursor().execute("ALTER TABLE fk_users DROP CONSTRAINT m, DROP CONSTRAINT n; DROP INDEX fk_m, fk_n")
    with pytest.raises(psycopg2.errors.SyntaxError):
        connection.cursor().execute("CREATE UNIQUE INDEX ON")
    assert fetch(connection, "SELECT 1") == [(1,)]
