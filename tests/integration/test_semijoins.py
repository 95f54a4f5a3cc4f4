"""Queries that are gathered: of a large table only those rows travel that join a smaller one's, and no answer differs."""
from contextlib import closing

import pytest

from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Both, ends_ordered, shards_and_one
from differential_statements import READS
from harness import Cluster, Proxy
from support import explain, fetch, semijoins

pytestmark = [pytest.mark.core, pytest.mark.slow]

ALWAYS = {"routing": {"semi_join_factor": 0}}
DEFAULTS = {"limits": {"semi_join_values": 10000}, "routing": {"semi_join_factor": 4}}


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS, options=ALWAYS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


# what is joined, by what
JOINS = [
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.qty = u.num WHERE u.id < 9 ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u, orders o WHERE o.qty = u.small AND u.name LIKE 'A%' ORDER BY 1, 2",
    "SELECT u.id, i.line FROM users u LEFT JOIN items i ON i.qty = u.small AND i.line = u.num WHERE u.id < 20 ORDER BY 1, 2",
    "SELECT u.id, i.line FROM items i RIGHT JOIN users u ON i.qty = u.small WHERE u.id < 20 ORDER BY 1, 2",
    "SELECT u.id, i.line FROM users u FULL JOIN items i ON i.qty = u.num AND i.line = u.small ORDER BY 1, 2",
    "SELECT u.id, i.qty FROM users u LEFT JOIN items i ON i.qty = u.num WHERE i.qty IS NULL ORDER BY 1, 2",
    "SELECT u.id, i.qty FROM users u LEFT JOIN items i ON i.order_id = u.id WHERE i.qty = u.small ORDER BY 1, 2",
    "SELECT u.id, o.item FROM (users u LEFT JOIN orders o ON o.id = u.num) LEFT JOIN items i ON i.order_id = o.id"
    " AND i.line = u.small ORDER BY 1, 2",
    "SELECT a.id FROM users a LEFT JOIN (orders o JOIN items i ON i.sku = o.item) ON o.qty = a.small ORDER BY 1",
    "SELECT count(*) FROM orders o JOIN items i USING (qty) WHERE o.id < 5",
    "SELECT count(*) FROM orders o LEFT JOIN items i USING (user_id, qty) WHERE o.id < 5",
    "SELECT count(*) FROM users u NATURAL JOIN orders o",
    # IN and EXISTS
    "SELECT id FROM users WHERE id IN (SELECT order_id FROM items WHERE line = 2) ORDER BY 1",
    "SELECT id FROM users WHERE num IN (SELECT qty FROM orders GROUP BY qty HAVING count(*) > 2) ORDER BY 1",
    "SELECT id FROM users WHERE num IN (SELECT qty FROM orders ORDER BY qty LIMIT 3) ORDER BY 1",
    "SELECT id FROM users WHERE num = ANY (SELECT qty FROM orders WHERE id < 9) ORDER BY 1",
    "SELECT id FROM users WHERE num NOT IN (SELECT qty FROM orders WHERE qty IS NOT NULL) ORDER BY 1",
    "SELECT id FROM users WHERE NOT (num IN (SELECT qty FROM orders WHERE id < 20)) ORDER BY 1",
    "SELECT id FROM users WHERE num IN (SELECT qty FROM orders WHERE id < 20) OR id = 3 ORDER BY 1",
    "SELECT id, num IN (SELECT qty FROM orders WHERE id < 20) FROM users ORDER BY 1",
    "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.qty = u.num AND o.item = 'pen') ORDER BY 1",
    "SELECT id FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.qty = u.num AND o.item = 'pen') ORDER BY 1",
    "SELECT id FROM users u WHERE EXISTS (SELECT count(*) FROM orders o WHERE o.qty = u.num) ORDER BY 1",
    "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.qty = u.num OFFSET 2) ORDER BY 1",
    "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.qty = u.num AND EXISTS"
    " (SELECT 1 FROM items i WHERE i.qty = o.qty AND i.line = u.small)) ORDER BY 1",
    "SELECT id, (SELECT count(*) FROM orders o WHERE o.qty = u.num) FROM users u WHERE id < 30 ORDER BY 1",
    "SELECT id, (SELECT max(o.id) FROM orders o WHERE qty = num) FROM users WHERE id < 30 ORDER BY 1",
    "SELECT id FROM users u WHERE 2 <= (SELECT count(*) FROM orders o, items i WHERE o.qty = u.num AND i.qty = o.qty) ORDER BY 1",
    "SELECT (SELECT string_agg(i.sku, ',' ORDER BY i.sku) FROM items i WHERE i.qty = o.qty) FROM orders o WHERE o.id < 12 ORDER BY 1",
    "SELECT id FROM users WHERE (num, small) = ANY (SELECT qty, id FROM orders) ORDER BY 1",
    "SELECT u.id, o.id FROM users u, orders o WHERE (u.num, u.id) = (o.qty, o.id) ORDER BY 1, 2",
    # a table named twice, names that hide others
    "SELECT a.id, b.id FROM users a JOIN users b ON a.num = b.small ORDER BY 1, 2",
    "SELECT a.id, b.id, o.id FROM users a JOIN orders o ON o.qty = a.num JOIN users b ON b.small = o.qty WHERE o.id < 7 ORDER BY 1, 2, 3",
    "SELECT o.id FROM orders o WHERE o.qty IN (SELECT num FROM users WHERE id < 9) OR o.id IN (SELECT id FROM users) ORDER BY 1",
    "SELECT o.id, x.id FROM orders o JOIN users u ON u.num = o.qty, orders x WHERE u.id < 4 AND x.qty = o.qty ORDER BY 1, 2",
    "SELECT id FROM users u WHERE num IN (SELECT qty FROM orders u WHERE u.id < 9) ORDER BY 1",
    "SELECT o.id FROM orders o, LATERAL (SELECT u.id FROM users u WHERE u.num = o.qty LIMIT 1) l WHERE o.id < 9 ORDER BY 1",
    "SELECT o.id, l.c FROM orders o LEFT JOIN LATERAL (SELECT count(*) AS c FROM users u WHERE u.num = o.qty) l ON true"
    " WHERE o.id < 9 ORDER BY 1",
    "WITH a AS (SELECT * FROM users WHERE id < 9) SELECT o.id FROM orders o JOIN a ON a.num = o.qty ORDER BY 1",
    "WITH a AS MATERIALIZED (SELECT o.id FROM orders o JOIN users u ON u.num = o.qty) SELECT count(*) FROM a",
    "WITH countries AS (SELECT 'at' AS code) SELECT u.id FROM users u JOIN countries c ON c.code = u.country, orders o"
    " WHERE o.qty = u.num ORDER BY 1",
    "SELECT j.a FROM (users u JOIN orders o ON o.qty = u.num) AS j (a) WHERE j.a < 9 ORDER BY 1",
    "SELECT u.id FROM users u CROSS JOIN orders o WHERE u.num = o.qty AND o.id BETWEEN 3 AND 5 ORDER BY 1",
    "SELECT u.id FROM users u WHERE u.num = 3 UNION SELECT o.id FROM orders o JOIN users u ON u.num = o.qty WHERE u.id = 5 ORDER BY 1",
    # types
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.id = u.small ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.qty = u.balance ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.discount = u.score WHERE u.id < 40 ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.amount = u.balance ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.item = u.email ORDER BY 1, 2",
    "SELECT u.id, t.slug FROM users u JOIN tenants t ON t.slug = u.country ORDER BY 1, 2",
    "SELECT u.id, d.v FROM users u JOIN devices d ON d.id = u.token ORDER BY 1, 2",
    "SELECT u.id, e.n FROM users u JOIN events e ON e.at = u.seen ORDER BY 1, 2",
    "SELECT u.id, o.id FROM users u JOIN orders o ON o.qty IS NOT DISTINCT FROM u.num WHERE u.id < 30 ORDER BY 1, 2",
    # keys: to each shard its own
    "SELECT u.name, i.line FROM items i JOIN users u ON u.id = i.order_id WHERE i.line = 1 ORDER BY 1, 2",
    "SELECT d.label, u.id FROM users u JOIN devices d ON d.id = u.token WHERE u.id < 20 ORDER BY 1, 2",
    "SELECT t.plan, u.id FROM users u JOIN tenants t ON t.slug = u.country WHERE u.id < 20 ORDER BY 1, 2",
    # tables that the server has
    "SELECT u.id, n.body FROM notes n JOIN users u ON u.num = n.id WHERE n.id < 9 ORDER BY 1, 2",
    "SELECT u.id, c.name FROM countries c JOIN users u ON u.country = c.code JOIN orders o ON o.qty = u.num WHERE c.name LIKE 'A%' ORDER BY 1",
    "SELECT n.id FROM notes n LEFT JOIN orders o ON o.id = n.user_id ORDER BY 1",
    "SELECT n.id FROM notes n WHERE EXISTS (SELECT 1 FROM orders o WHERE o.id = n.id AND 10 / o.qty > 0 AND o.qty > 0) ORDER BY 1",
    "SELECT i.sku FROM items i JOIN skus s ON s.sku = i.sku JOIN orders o ON o.id = i.line WHERE s.weight > 2 ORDER BY 1",
]


def test_joins(both):
    for sql in JOINS:
        both.check(sql, ends_ordered(sql))


def test_joins_in_a_transaction(both):
    both.run("BEGIN")
    both.run("UPDATE users SET num = num + 1 WHERE id % 2 = 0")
    both.run("INSERT INTO orders (id, user_id, qty) VALUES (901, 1, 1), (902, 2, 2), (903, 3, 3)")
    both.run("INSERT INTO notes VALUES (77, 3, 'x')")
    for sql in JOINS:
        both.check(sql, ends_ordered(sql))
    both.run("ROLLBACK")


def test_reads_of_the_differential_suite(both):
    for sql in READS:
        both.check(sql, ends_ordered(sql))


# ---- that it happens ----

TABLES = """
CREATE TABLE users (id bigint PRIMARY KEY, grp int, name text, hue hue);
CREATE TABLE orders (user_id bigint, id bigint, item int, note text COLLATE "de-x-icu", PRIMARY KEY (user_id, id));
CREATE TABLE items (id bigint PRIMARY KEY, label text, hue hue);
CREATE TABLE countries (code text PRIMARY KEY, size int);
CREATE TABLE notes (id int PRIMARY KEY, body text)
"""
LOADS = [
    "INSERT INTO users SELECT i, i % 50, 'user ' || i, CASE i % 2 WHEN 0 THEN 'red'::hue ELSE 'blue' END FROM generate_series(1, 2000) i",
    "INSERT INTO orders SELECT 1 + i % 2000, i, i % 3000, 'n' || i % 5 FROM generate_series(1, 20000) i",
    "INSERT INTO items SELECT i, 'label ' || i % 10, CASE i % 3 WHEN 0 THEN 'red'::hue ELSE 'green' END FROM generate_series(0, 2999) i",
    "INSERT INTO countries SELECT 'label ' || i, i FROM generate_series(0, 99) i",
    "INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 100) i",
    "ANALYZE",
]


@pytest.fixture(scope="module")
def large():
    """Twenty thousand orders, 2000 users, 3000 items, two shards and one Postgres; limits as they are by default."""
    keyspaces = [{"name": "users", "type": "bigint",
                  "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]},
                 {"name": "items", "type": "bigint", "tables": [{"name": "items", "key": "id"}]}]
    with Cluster(shards=2, replicas=0) as cluster:
        cluster.create_database("oracle")
        with Proxy(cluster, keyspaces=keyspaces, reference=["countries"]) as proxy:
            proxy.wait_nodes()
            with closing(proxy.connect()) as app, closing(cluster.shards[0].primary.connect("oracle")) as one:
                one.autocommit = app.autocommit = True
                for side in (app, one):
                    side.cursor().execute("CREATE TYPE hue AS ENUM ('red', 'green', 'blue')")
                    for statement in TABLES.split(";") + LOADS:
                        side.cursor().execute(statement)
                yield proxy, app, one


def test_rows_that_join_nothing_stay_where_they_are(large):
    _, app, one = large
    sql = ("SELECT count(*), sum(o.id) FROM items i JOIN orders o ON o.item = i.id WHERE i.label = 'label 3' AND i.id < 100")
    lines, rows = semijoins(app, sql)
    assert fetch(app, sql) == fetch(one, sql) == [(70, fetch(one, sql)[0][1])]
    assert len(lines) == 1 and "orders only where item is among 10 values of items.id" in lines[0]
    assert rows <= 70 + 10  # of twenty thousand
    assert "semi-join: orders only where item is among the values of items.id" in explain(app, sql)


def test_each_shard_gets_its_own_keys(large):
    _, app, one = large
    sql = "SELECT count(u.name) FROM notes n JOIN users u ON u.id = n.id JOIN items i ON i.id = u.grp WHERE n.id < 11"
    lines, rows = semijoins(app, sql)
    assert [line for line in lines if "users only where id is among 10 values of notes.id" in line]
    assert rows <= 20
    assert fetch(app, sql) == fetch(one, sql)
    nothing = "SELECT count(o.id) FROM notes n LEFT JOIN orders o ON o.item = n.id WHERE n.body = 'none'"
    assert semijoins(app, nothing)[1] == 0 and fetch(app, nothing) == [(0,)]


def test_one_table_after_the_other(large):
    _, app, one = large
    sql = ("SELECT count(*) FROM items i, orders o, users u WHERE i.label = 'label 3' AND i.id < 40 AND o.item = i.id"
           " AND u.id = o.user_id + 0 AND u.grp = o.item")
    lines, rows = semijoins(app, sql)
    assert len(lines) == 2 and rows < 500
    assert fetch(app, sql) == fetch(one, sql)


def test_parameters_and_cursors(large):
    proxy, app, one = large
    sql = "SELECT o.id FROM items i JOIN orders o ON o.item = i.id WHERE i.label = %s AND o.id > %s ORDER BY 1"
    params = ("label 7", 19000)
    wanted = fetch(one, sql, params)
    assert wanted
    with proxy.connect3(prepare_threshold=1) as connection:
        for _ in range(4):
            assert connection.execute(sql, params).fetchall() == wanted
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN ANALYZE " + sql, params).fetchall())
        assert "among 300 values of items.id" not in plan  # of no more than 1000 orders, that does not pay
        with connection.transaction():
            cursor = connection.cursor("c")
            cursor.execute(sql, params)
            assert cursor.fetchall() == wanted
    wide = "SELECT o.id FROM items i JOIN orders o ON o.item = i.id WHERE i.label = %s AND i.id < %s ORDER BY 1"
    with proxy.connect3(prepare_threshold=1, autocommit=False) as connection:
        connection.execute("DELETE FROM items WHERE id = 17")
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN ANALYZE " + wide, ("label 7", 200)).fetchall())
        assert "among 19 values of items.id" in plan
        found = connection.execute(wide, ("label 7", 200)).fetchall()
        connection.rollback()
    assert found == [row for row in fetch(one, wide, ("label 7", 200)) if row[0] % 3000 != 17]


@pytest.mark.parametrize("sql, why", [
    ("SELECT count(*) FROM orders o LEFT JOIN items i ON i.id = o.item AND i.id < 9", "rows without a match stay"),
    ("SELECT count(*) FROM items i FULL JOIN orders o ON o.item = i.id WHERE i.id < 9 OR i.id IS NULL", "FULL JOIN"),
    ("SELECT count(*) FROM orders o WHERE o.item NOT IN (SELECT id FROM items WHERE id < 9)", "NOT IN"),
    ("SELECT count(*) FROM orders o JOIN items i ON i.label = o.note WHERE i.id < 9", "another collation"),
    ("SELECT count(*) FROM users u JOIN items i ON i.hue = u.hue WHERE u.id < 9", "a type that users made"),
    ("SELECT count(*) FROM orders o JOIN items i ON i.id = o.item, orders x WHERE i.id < 9 AND x.id < 3", "another mention needs it"),
    ("SELECT count(*) FROM items i LEFT JOIN orders o ON true WHERE i.id < 2 AND (o.item = i.id OR o.id = 5)", "OR"),
])
def test_where_it_would_be_wrong(large, sql, why):
    _, app, one = large
    lines, _ = semijoins(app, sql)
    assert not [line for line in lines if "orders only" in line or ("items only" in line and "hue" in line)], why
    assert fetch(app, sql) == fetch(one, sql)


def test_in_a_transaction_only_what_has_come_decides(large):
    """Of what the server has itself another statement may see more; outside of one, one snapshot is for both."""
    _, app, one = large
    sql = "SELECT count(o.id) FROM notes n LEFT JOIN orders o ON o.item = n.id WHERE n.id < 5"
    assert semijoins(app, sql)[0]
    app.cursor().execute("BEGIN")
    assert not semijoins(app, sql)[0]
    assert fetch(app, sql) == fetch(one, sql)
    app.cursor().execute("ROLLBACK")


def test_values_that_the_clients_encoding_does_not_have(large):
    _, app, one = large
    sql = "SELECT count(*) FROM notes n JOIN items i ON i.label = n.body WHERE n.id > 90"
    for side in (app, one):
        side.cursor().execute("INSERT INTO notes VALUES (1000, U&'\\017E'), (1001, 'label 4')")
    assert semijoins(app, sql)[0] and fetch(app, sql) == fetch(one, sql)
    app.cursor().execute("SET client_encoding TO LATIN1")
    assert not semijoins(app, sql)[0] and fetch(app, sql) == fetch(one, sql)
    app.cursor().execute("RESET client_encoding")


def test_the_limits(large):
    proxy, app, one = large
    sql = "SELECT count(*) FROM items i JOIN orders o ON o.item = i.id WHERE i.id < 50"
    for limits, routing, happens in (({"semi_join_values": 49}, {}, False), ({"semi_join_values": 50}, {}, True),
                                     ({"semi_join_values": 0}, {"semi_join_factor": 0}, False),
                                     ({}, {"semi_join_factor": 1000}, False)):
        proxy.change({"limits": {**DEFAULTS["limits"], **limits}, "routing": {**DEFAULTS["routing"], **routing}})
        proxy.reload()
        with closing(proxy.connect()) as connection:
            assert bool(semijoins(connection, sql)[0]) == happens, (limits, routing)
            assert fetch(connection, sql) == fetch(one, sql)
    proxy.change(DEFAULTS)
    proxy.reload()
