"""Views over three shards answer as on one Postgres: direct, merged, gathered, nested, changed, with rights and policies."""
from contextlib import closing

import psycopg2
import psycopg2.errors
import pytest

from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Both, difference, ends_ordered, shards_and_one
from support import explain, fetch, one, query, refused
from test_differential import check_all, in_savepoint

pytestmark = pytest.mark.core

VIEWS = """
CREATE VIEW people AS SELECT id, name, country AS land, active, balance, mood FROM users;
CREATE VIEW actives AS SELECT * FROM people WHERE active;
CREATE VIEW bought AS SELECT u.id AS buyer, u.name, o.id AS order_id, o.amount, o.item FROM users u
    JOIN orders o ON o.user_id = u.id;
CREATE VIEW landed AS SELECT p.id, p.name, c.name AS land FROM people p LEFT JOIN countries c ON c.code = p.land;
CREATE VIEW spent AS SELECT user_id, count(*) AS orders, sum(amount) AS total FROM orders GROUP BY user_id;
CREATE VIEW keyless AS SELECT name, balance FROM users WHERE balance > 0;
CREATE VIEW renamed (key, label) AS SELECT id, upper(name) FROM users;
CREATE VIEW only_five AS SELECT * FROM orders WHERE user_id = 5;
CREATE VIEW few AS SELECT id, name FROM users WHERE id IN (1, 2, 3, 4);
CREATE VIEW twice AS SELECT id, id AS same, num FROM users;
CREATE VIEW same_alone AS SELECT same, num FROM twice;
CREATE VIEW sorted AS SELECT id, name, country FROM users ORDER BY name DESC, id;
CREATE VIEW lands AS SELECT country, count(*) AS n, max(balance) AS most FROM users GROUP BY country;
CREATE VIEW top_five AS SELECT id, name, balance FROM users WHERE balance IS NOT NULL ORDER BY balance DESC, id LIMIT 5;
CREATE VIEW ranked AS SELECT id, country, rank() OVER (PARTITION BY country ORDER BY balance DESC NULLS LAST, id) AS place
    FROM users;
CREATE VIEW both_kinds AS SELECT id, name FROM users UNION ALL SELECT user_id, item FROM orders;
CREATE VIEW pairs AS SELECT a.id AS a, b.id AS b FROM users a JOIN users b ON a.num = b.num AND a.id < b.id;
CREATE VIEW over_top AS SELECT t.name, l.n FROM top_five t JOIN people p ON p.id = t.id JOIN lands l ON l.country = p.land;
CREATE VIEW totals AS SELECT count(*) AS n, sum(balance) AS s FROM users;
CREATE VIEW noted AS SELECT n.id, n.body, u.name FROM notes n JOIN users u ON u.id = n.user_id;
CREATE VIEW named_lands AS SELECT code, name FROM countries;
CREATE VIEW just_notes AS SELECT * FROM notes;
CREATE VIEW guests AS SELECT slug, nr, who FROM members;
CREATE VIEW crew AS SELECT pay, nr AS number, firm AS f, name AS called FROM staff;
CREATE VIEW seniors AS SELECT called, f AS firm, number AS nr FROM crew WHERE pay > 3;
CREATE VIEW small_firms AS SELECT firm, nr, name FROM staff WHERE firm < 4 WITH CHECK OPTION;
CREATE VIEW anonymous AS SELECT firm, pay, country FROM staff;
CREATE VIEW nr_twice AS SELECT firm, nr, nr AS again, name FROM staff;
CREATE VIEW nr_other AS SELECT firm, again, name FROM nr_twice;
CREATE VIEW worked AS SELECT s.firm, s.nr, s.name, h.day, h.hours FROM staff s JOIN shifts h ON h.firm = s.firm AND h.who = s.nr;
CREATE VIEW maybe_worked AS SELECT h.firm, h.who, s.name FROM staff s LEFT JOIN shifts h ON h.firm = s.firm AND h.who = s.nr;
CREATE VIEW per_person AS SELECT firm AS f, who AS w, count(*) AS days FROM shifts GROUP BY who, firm
"""

READS = [
    "SELECT * FROM people", "SELECT * FROM people WHERE id = 5", "SELECT name FROM people ORDER BY id LIMIT 5 OFFSET 2",
    "SELECT count(*) FROM people", "SELECT land, count(*), avg(balance) FROM people GROUP BY land ORDER BY land",
    "SELECT public.people.name FROM public.people WHERE public.people.id IN (3, 4, 5) ORDER BY 1",
    "SELECT p.* FROM people p ORDER BY p.id DESC", "SELECT p.x, p.y FROM people AS p (x, y) ORDER BY 1",
    "SELECT mood FROM people ORDER BY id",
    "SELECT * FROM actives WHERE id = 7", "SELECT count(*), min(name) FROM actives", "SELECT name FROM actives ORDER BY name, id",
    "SELECT * FROM bought WHERE buyer = 5 ORDER BY order_id", "SELECT * FROM bought ORDER BY buyer, order_id LIMIT 10",
    "SELECT buyer, sum(amount) FROM bought GROUP BY buyer HAVING sum(amount) > 20 ORDER BY buyer",
    "SELECT b.item, p.land FROM bought b JOIN people p ON p.id = b.buyer ORDER BY b.order_id, b.item",
    "SELECT b.item FROM bought b JOIN people p ON p.name = b.name ORDER BY b.order_id, b.item, p.id",
    "SELECT u.name, (SELECT total FROM spent s WHERE s.user_id = u.id) FROM users u ORDER BY u.id",
    "SELECT * FROM spent WHERE user_id = 3", "SELECT * FROM spent ORDER BY total DESC NULLS LAST, user_id LIMIT 4",
    "SELECT sum(orders), max(total) FROM spent", "SELECT * FROM landed ORDER BY id", "SELECT land, count(*) FROM landed GROUP BY 1 ORDER BY 1",
    "SELECT * FROM keyless ORDER BY balance, name", "SELECT sum(balance) FROM keyless",
    "SELECT k.name FROM keyless k JOIN users u ON u.name = k.name ORDER BY 1, u.id",
    "SELECT label FROM renamed WHERE key = 9", "SELECT * FROM renamed ORDER BY key",
    "SELECT r.label, o.item FROM renamed r JOIN orders o ON o.user_id = r.key ORDER BY o.id, o.item",
    "SELECT * FROM only_five ORDER BY id", "SELECT count(*) FROM only_five", "SELECT * FROM only_five WHERE user_id = 6",
    "SELECT u.name, f.item FROM users u LEFT JOIN only_five f ON f.user_id = u.id ORDER BY u.id, f.id",
    "SELECT * FROM few ORDER BY id", "SELECT count(*) FROM few s JOIN orders o ON o.user_id = s.id",
    "SELECT sum(num) FROM twice WHERE same = 4", "SELECT sum(num) FROM twice WHERE id = 4 AND same = 4",
    "SELECT t.num FROM twice t JOIN orders o ON o.user_id = t.same ORDER BY 1, o.id",
    "SELECT country, count(*) FROM sorted GROUP BY country ORDER BY 1", "SELECT id FROM sorted ORDER BY id",
    "SELECT * FROM lands ORDER BY country", "SELECT n FROM lands WHERE country = 'at'", "SELECT sum(n), count(*) FROM lands",
    "SELECT l.n, u.id FROM lands l JOIN users u ON u.country = l.country ORDER BY u.id",
    "SELECT * FROM ranked WHERE place = 1 ORDER BY id", "SELECT place FROM ranked WHERE id = 5",
    "SELECT count(*) FROM both_kinds", "SELECT * FROM both_kinds WHERE id = 5 ORDER BY name",
    "SELECT * FROM pairs ORDER BY a, b", "SELECT a.a, b.b FROM pairs a JOIN pairs b ON a.b = b.a ORDER BY 1, 2 LIMIT 20",
    "SELECT * FROM over_top ORDER BY name, n", "SELECT * FROM totals", "SELECT t.n, p.id FROM totals t, people p WHERE p.id = 5",
    "SELECT name, (SELECT n FROM totals) FROM users WHERE id = 3", "SELECT id FROM users WHERE balance = (SELECT max(most) FROM lands)",
    "SELECT * FROM noted ORDER BY id", "SELECT count(*) FROM noted WHERE name IS NOT NULL",
    "SELECT * FROM named_lands ORDER BY code", "SELECT count(*) FROM just_notes", "SELECT j.id FROM just_notes j JOIN people p ON p.id = j.user_id ORDER BY 1",
    "SELECT p.name, n.name FROM people p JOIN named_lands n ON n.code = p.land ORDER BY p.id",
    "SELECT * FROM guests ORDER BY slug, nr", "SELECT who FROM guests WHERE slug = 'acme' ORDER BY nr",
    "WITH x AS (SELECT * FROM lands) SELECT * FROM x ORDER BY country", "SELECT * FROM people UNION SELECT * FROM actives ORDER BY id",
    "SELECT EXISTS (SELECT FROM totals WHERE n > 5), id FROM people ORDER BY id LIMIT 3",
    "SELECT * FROM (SELECT * FROM lands WHERE n > 1) x JOIN (SELECT * FROM top_five) y ON true ORDER BY 1, 4",
    "SELECT id FROM people WHERE id IN (SELECT id FROM top_five) ORDER BY id",
    "SELECT count(*) FROM people p WHERE EXISTS (SELECT FROM bought b WHERE b.buyer = p.id)",
    "SELECT count(*) FROM people p WHERE NOT EXISTS (SELECT FROM bought b WHERE b.name = p.name)",
    "SELECT DISTINCT land FROM people ORDER BY land", "SELECT string_agg(name, ',' ORDER BY id) FROM people",
    "VALUES ((SELECT n FROM totals))", "TABLE totals",
    "SELECT called FROM crew WHERE f = 2 AND number = 5", "SELECT * FROM crew WHERE (number, f) IN ((5, 2), (6, 3)) ORDER BY f",
    "SELECT called FROM seniors WHERE firm = 2 ORDER BY nr", "SELECT * FROM seniors WHERE nr = 5 AND firm = 2",
    "SELECT c.called, h.day FROM crew c JOIN shifts h ON h.firm = c.f AND h.who = c.number ORDER BY 1, 2, h.firm",
    "SELECT c.called, s.firm FROM crew c LEFT JOIN seniors s ON s.firm = c.f AND s.nr = c.number ORDER BY c.number, c.f",
    "SELECT count(*) FROM small_firms NATURAL JOIN nr_twice", "SELECT * FROM anonymous ORDER BY firm, pay, country",
    "SELECT name FROM nr_twice WHERE firm = 2 AND again = 5", "SELECT name FROM nr_other WHERE firm = 2 AND again = 5",
    "SELECT * FROM worked WHERE firm = 2 AND nr = 5 ORDER BY day", "SELECT nr, sum(hours) FROM worked GROUP BY firm, nr ORDER BY nr, firm",
    "SELECT * FROM maybe_worked WHERE firm = 2 AND who = 5 ORDER BY name", "SELECT name FROM maybe_worked WHERE firm IS NULL AND who IS NULL ORDER BY name",
    "SELECT c.called, m.name FROM crew c JOIN maybe_worked m ON m.firm = c.f AND m.who = c.number ORDER BY 1, 2, c.f",
    "SELECT days FROM per_person WHERE f = 2 AND w = 5", "SELECT c.called, p.days FROM crew c JOIN per_person p ON p.f = c.f AND p.w = c.number ORDER BY c.number, c.f",
    "SELECT x.n FROM lands AS x (c, n) ORDER BY 1, c", "SELECT public.lands.n FROM public.lands ORDER BY 1, public.lands.country",
]
IN_ORDER = ["SELECT * FROM sorted", "SELECT name FROM sorted LIMIT 7", "SELECT * FROM top_five", "SELECT id FROM sorted WHERE id < 9"]

WRITES = [
    "UPDATE people SET name = 'x' WHERE id = 5", "UPDATE people SET balance = 1", "DELETE FROM actives WHERE id = 7",
    "DELETE FROM actives", "UPDATE people SET name = name || '!' WHERE land = 'at' RETURNING id",
    "INSERT INTO people (id, name, land) VALUES (901, 'new', 'at')", "INSERT INTO people VALUES (902, 'a', 'at'), (903, 'b', 'br'), (904, 'c', NULL) RETURNING id",
    "INSERT INTO guests VALUES ('acme', 77, 'me')", "UPDATE only_five SET item = 'y'", "DELETE FROM few",
    "UPDATE keyless SET balance = balance + 1", "UPDATE twice SET num = 1 WHERE id = 5",
    "INSERT INTO notes SELECT 900 + n, 1, country FROM lands WHERE country IS NOT NULL", "UPDATE just_notes SET body = 'z'",
    "DELETE FROM people p USING bought b WHERE b.buyer = p.id AND b.amount > 50",
]
# Of tables sharded by two columns.
OF_SEVERAL = [
    "INSERT INTO crew VALUES (9, 900, 2, 'new')", "INSERT INTO crew (called, f, number) VALUES ('a', 1, 901), ('b', 2, 902), ('c', 3, 903) RETURNING f, called",
    "INSERT INTO crew (number, f, called) VALUES (5, 2, 'x'), (8, 8, 'y') ON CONFLICT (f, number) DO UPDATE SET called = excluded.called",
    "INSERT INTO crew (number, f, called) VALUES (5, 2, 'x'), (8, 8, 'y') ON CONFLICT DO NOTHING",
    "INSERT INTO crew (number, f, called) SELECT number + 1000, f + 1, called FROM crew", "INSERT INTO crew SELECT pay, number + 1000, f, called FROM crew",
    "INSERT INTO crew (number, f) SELECT id, num FROM users WHERE num IS NOT NULL", "INSERT INTO seniors VALUES ('s', 4, 904), ('t', 5, 904)",
    "INSERT INTO crew (f, number) VALUES (2, NULL)" , "INSERT INTO crew (f, number) VALUES (2, 'x')", "INSERT INTO worked (firm, nr) VALUES (2, 5)",
    "INSERT INTO small_firms VALUES (3, 905, 'in')", "INSERT INTO small_firms VALUES (3, 905, 'in'), (7, 905, 'out')",
    "INSERT INTO crew (f, number) VALUES (2, 906), (2, 906)", "INSERT INTO nr_twice (firm, nr, name) VALUES (2, 907, 'one'), (3, 907, 'two')",
    "UPDATE crew SET called = 'x' WHERE f = 2 AND number = 5", "UPDATE crew SET called = called || '!' RETURNING called, f, number",
    "UPDATE crew SET called = 'y' WHERE f = 2 RETURNING number", "UPDATE crew SET f = 2, number = 5, pay = 1 WHERE number = 5 AND f = 2",
    "UPDATE crew SET f = f, pay = 2 WHERE number < 9", "UPDATE crew SET pay = 3 WHERE (f, number) IN ((2, 5), (3, 6), (1, 1))",
    "UPDATE crew SET pay = h.hours FROM shifts h WHERE h.firm = f AND h.who = number AND h.day = 3",
    "UPDATE seniors SET called = 'old' WHERE firm = 2", "UPDATE seniors SET called = 'old' WHERE firm = 2 AND nr = 8", "UPDATE anonymous SET pay = 0",
    "UPDATE anonymous SET pay = 0 WHERE firm = 2", "UPDATE nr_twice SET name = 'z' WHERE firm = 2 AND nr = 5", "UPDATE nr_twice SET name = 'z' WHERE again = 5",
    "UPDATE worked SET hours = 1 WHERE firm = 2 AND nr = 5", "UPDATE small_firms SET name = 'w'",
    "DELETE FROM crew WHERE f = 2 AND number = 5 RETURNING called", "DELETE FROM seniors WHERE firm = 2", "DELETE FROM seniors", "DELETE FROM anonymous WHERE pay > 3",
    "DELETE FROM nr_other WHERE firm = 2 AND again = 5", "DELETE FROM crew USING shifts h WHERE h.firm = f AND h.who = number AND h.hours > 4",
    "DELETE FROM crew WHERE (f, number) IN (SELECT firm, who FROM shifts WHERE hours > 4)", "WITH gone AS (DELETE FROM crew WHERE f = 2 AND number = 5 RETURNING *) SELECT called FROM gone",
    "MERGE INTO crew c USING staff s ON s.firm = c.f AND s.nr = c.number WHEN MATCHED THEN UPDATE SET pay = 1",
    "MERGE INTO staff s USING crew c ON s.firm = c.f AND s.nr = c.number WHEN MATCHED AND c.pay > 3 THEN DELETE WHEN MATCHED THEN UPDATE SET name = c.called || '2'",
    "MERGE INTO shifts h USING crew c ON c.f = h.firm AND c.number = h.who WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (day, who, firm) VALUES (77, c.number, c.f)",
]


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA + ";" + VIEWS, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


def test_reads(both):
    check_all(READS, lambda sql: both.check(sql, ends_ordered(sql)))


def test_an_ordered_view_keeps_its_order(both):
    check_all(IN_ORDER, lambda sql: both.check(sql, True))


def test_reads_in_a_transaction(both):
    both.run("BEGIN")
    both.run("UPDATE users SET balance = balance + 1 WHERE id % 2 = 0")
    check_all(READS[::4], lambda sql: in_savepoint(both, lambda: both.check(sql, ends_ordered(sql))))
    both.run("ROLLBACK")


LOOKS = ["SELECT * FROM users ORDER BY id", "SELECT * FROM orders ORDER BY user_id, id", "SELECT * FROM members", "SELECT * FROM notes ORDER BY id",
         "SELECT * FROM staff ORDER BY firm, nr", "SELECT * FROM shifts ORDER BY firm, who, day"]


def change(both, ask, sql):
    both.run("BEGIN")
    both.run("SAVEPOINT a")
    found, wanted = ask(sql)
    wrong = difference(found, wanted, None)
    if not wrong and not wanted.error:
        for look in LOOKS:
            both.check(look, ends_ordered(look))
    for side in (both.app, both.one):
        side.ask(query("ROLLBACK"))
    assert not wrong, f"{ask.__name__}: {sql}\n{wrong}"


def test_writes(both):
    check_all(WRITES, lambda sql: change(both, both.simple, sql))


def test_writes_of_tables_sharded_by_several_columns(both):
    for ask in (both.simple, both.extended):
        check_all(OF_SEVERAL, lambda sql: change(both, ask, sql))


# ---- two tables of one name ----

OTHERS = ["CREATE SCHEMA old", "CREATE TABLE old.orders (id bigint, user_id bigint, item text, PRIMARY KEY (user_id, id))",
          "INSERT INTO old.orders VALUES " + ", ".join(f"({i}, {1 + i % 20}, 'old {i % 4}')" for i in range(1, 50))]
OF_BOTH = [
    "SELECT a.item, b.item FROM orders a JOIN old.orders b ON a.id = b.id ORDER BY 1, 2, a.user_id",
    "SELECT orders.item, b.item FROM old.orders JOIN public.orders b ON orders.id = b.id ORDER BY 1, 2, b.user_id",
    "SELECT old.orders.item FROM old.orders WHERE old.orders.id IN (SELECT id FROM orders WHERE orders.qty > 1) ORDER BY 1, old.orders.id",
    "SELECT item FROM orders UNION SELECT item FROM old.orders ORDER BY 1",
    "SELECT count(DISTINCT item) FROM old.orders", "SELECT count(DISTINCT item) FROM public.orders",
    "SELECT (SELECT count(*) FROM old.orders o WHERE o.id = orders.id), id FROM orders ORDER BY id, user_id LIMIT 9",
    "WITH x AS (SELECT * FROM orders), y AS (SELECT * FROM old.orders) SELECT count(*) FROM x, y WHERE x.id = y.user_id",
]


def test_two_tables_of_one_name(sides):
    with closing(Both(*sides)) as both:
        for statement in OTHERS:
            both.run(statement)
        try:
            check_all(OF_BOTH, lambda sql: both.check(sql, ends_ordered(sql)))
            with closing(sides[0].connect()) as client, refused("0A000"):
                fetch(client, "SELECT old.orders.item, public.orders.item FROM old.orders, public.orders WHERE old.orders.id = public.orders.id")
        finally:
            both.run("DROP SCHEMA old CASCADE")


# ---- rights ----

RIGHTS = """
CREATE VIEW open_guarded AS SELECT id, v FROM empties;
CREATE VIEW own_guarded WITH (security_invoker) AS SELECT id, v FROM empties;
CREATE VIEW sum_guarded AS SELECT sum(v) AS s FROM empties;
CREATE VIEW own_sum WITH (security_invoker) AS SELECT sum(v) AS s FROM empties;
CREATE VIEW fenced WITH (security_barrier) AS SELECT id, name, country FROM users WHERE country = 'at';
INSERT INTO empties SELECT;
ALTER TABLE empties ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON empties USING (v < 10);
GRANT SELECT ON people, bought, spent, lands, few, empties, open_guarded, own_guarded, sum_guarded, own_sum, fenced TO reader;
GRANT SELECT (id) ON ranked TO reader;
GRANT UPDATE (name) ON people TO reader
"""
RIGHTS = RIGHTS.replace("INSERT INTO empties SELECT", "INSERT INTO empties VALUES " + ", ".join(f"({i}, {i})" for i in range(1, 31)))
MAY = ["SELECT * FROM people WHERE id = 5", "SELECT count(*) FROM people", "SELECT name FROM bought ORDER BY buyer, order_id",
       "SELECT * FROM spent ORDER BY user_id", "SELECT p.name FROM people p JOIN spent s ON s.orders = p.id ORDER BY p.id, s.user_id",
       "SELECT count(*) FROM users", "SELECT name FROM keyless",
       "SELECT place FROM ranked WHERE id = 5", "SELECT * FROM totals", "SELECT place FROM ranked", "SELECT id, place FROM ranked ORDER BY 1",
       "UPDATE people SET name = 'r' WHERE id = 3", "UPDATE people SET balance = 1", "DELETE FROM people",
       "SELECT sum(v) FROM open_guarded", "SELECT * FROM own_guarded ORDER BY id", "SELECT sum(v), count(*) FROM own_guarded",
       "SELECT max(v) OVER (), id FROM open_guarded ORDER BY 2", "SELECT s FROM own_sum", "SELECT * FROM fenced ORDER BY id",
       "SELECT f.name FROM fenced f JOIN people p ON p.name = f.name ORDER BY f.id, p.id", "SELECT s FROM sum_guarded WHERE false"]


@pytest.fixture(scope="module")
def reader(sides):
    proxy, node = sides
    node.cluster.create_role("reader")
    with closing(Both(proxy, node)) as both:
        for statement in RIGHTS.strip().split(";"):
            both.run(statement)
    return sides


def test_rights_are_those_of_the_views_owner(reader):
    with closing(Both(*reader)) as both:
        both.run("SET ROLE reader")
        both.run("BEGIN")
        check_all(MAY[:-1], lambda sql: in_savepoint(both, lambda: both.check(sql, ends_ordered(sql))))
        both.run("ROLLBACK")


def test_tables_behind_a_view_that_is_put_together_are_read_with_ones_own_rights(reader):
    """What is not allowed is refused, never answered with fewer rows."""
    proxy = reader[0]
    with closing(proxy.connect()) as client:
        client.cursor().execute("SET ROLE reader")
        assert one(client, "SELECT s FROM open_guarded, LATERAL (SELECT sum(v) OVER () AS s FROM open_guarded) x LIMIT 1") == 465
        with refused("0A000", "with table \"empties\" behind it, which has row-level policies"):
            fetch(client, "SELECT s FROM sum_guarded")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied for table users"):
            fetch(client, "SELECT n FROM lands")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="permission denied for view totals"):
            fetch(client, "SELECT n FROM totals")


# ---- made, changed, refused ----

def test_a_view_is_known_as_soon_as_it_is_made(sides):
    with closing(sides[0].connect()) as client, closing(sides[0].connect()) as other:
        cursor = client.cursor()
        try:
            for i in range(3):
                cursor.execute(f"CREATE OR REPLACE VIEW changing AS SELECT id, {i} AS n FROM users")
                assert one(client, "SELECT sum(n) FROM changing") == i * 60
                cursor.execute(f"CREATE OR REPLACE VIEW changing AS SELECT id, num + {i} AS n FROM users ORDER BY id DESC LIMIT 2")
                assert "gather" in explain(other, "SELECT n FROM changing")
                assert one(other, "SELECT count(*) FROM changing") == 2
        finally:
            cursor.execute("DROP VIEW IF EXISTS changing")


def test_a_view_made_in_the_transaction_is_not_guessed_at(sides):
    with closing(sides[0].connect(autocommit=False)) as client:
        cursor = client.cursor()
        cursor.execute("CREATE VIEW fresh AS SELECT * FROM users")
        cursor.execute("SAVEPOINT a")
        with refused("0A000", "is a view of tables on several shards"):
            cursor.execute("SELECT count(*) FROM fresh")
        cursor.execute("ROLLBACK TO a")
        cursor.execute("DROP VIEW people CASCADE")
        cursor.execute("CREATE VIEW people AS SELECT 1 AS id FROM users LIMIT 1")
        with refused("0A000", "is a view of tables on several shards"):
            cursor.execute("SELECT count(*) FROM people")
        client.rollback()
        assert one(client, "SELECT count(*) FROM people") == 60


def test_materialized_views(sides):
    with closing(sides[0].connect()) as client:
        cursor = client.cursor()
        cursor.execute("CREATE MATERIALIZED VIEW kept AS SELECT user_id, count(*) AS n FROM orders GROUP BY user_id")
        try:
            users, total = fetch(client, "SELECT count(DISTINCT user_id), count(*) FROM orders")[0]
            assert fetch(client, "SELECT count(*), sum(n) FROM kept") == [(users, total)]
            assert fetch(client, "SELECT n FROM kept WHERE user_id = 5") == fetch(client, "SELECT count(*) FROM orders WHERE user_id = 5")
            cursor.execute("INSERT INTO orders (id, user_id) VALUES (981, 5), (982, 6)")
            assert fetch(client, "SELECT count(*), sum(n) FROM kept") == [(users, total)]
            cursor.execute("REFRESH MATERIALIZED VIEW kept")
            assert fetch(client, "SELECT sum(n) FROM kept") == [(total + 2,)]
            with refused("0A000", "CREATE MATERIALIZED VIEW of rows of several shards together"):
                cursor.execute("CREATE MATERIALIZED VIEW whole AS SELECT count(*) AS n FROM users")
        finally:
            cursor.execute("DELETE FROM orders WHERE id IN (981, 982)")
            cursor.execute("DROP MATERIALIZED VIEW IF EXISTS kept")


def test_what_is_refused(sides):
    with closing(sides[0].connect()) as client:
        cursor = client.cursor()
        with refused("0A000", "a temporary view of rows on several shards"):
            cursor.execute("CREATE TEMP VIEW mine AS SELECT * FROM users")
        with refused("0A000", "does not show the shard key of its table"):
            cursor.execute("INSERT INTO keyless VALUES ('x', 1)")
        with refused("0A000", "shows the shard key of its table twice"):
            cursor.execute("UPDATE twice SET same = 7 WHERE id = 5")
        for sql in ("UPDATE nr_twice SET again = 7 WHERE firm = 2 AND nr = 5",
                    "INSERT INTO nr_twice (firm, nr, again) VALUES (2, 5, 6)", "UPDATE same_alone SET same = 7"):
            with refused("0A000", "shows the shard key of its table twice"):
                cursor.execute(sql)
        for sql in ("UPDATE anonymous SET firm = 7", "UPDATE anonymous SET firm = firm + 1 WHERE firm = 2",
                    "UPDATE nr_other SET again = 7"):
            with refused("0A000", "does not show all columns of the shard key of its table"):
                cursor.execute(sql)
        for sql in ("INSERT INTO anonymous VALUES (2, 5)", "INSERT INTO nr_other VALUES (2, 5)"):
            with refused("0A000", "does not show the shard key of its table"):
                cursor.execute(sql)
        for sql in ("UPDATE crew SET f = f + 1", "UPDATE crew SET f = 3, number = 6 WHERE f = 2 AND number = 5"):
            with refused("0A000", "a column of the shard key of table \"crew\", could move the row to another shard"):
                cursor.execute(sql)
        for sql in ("INSERT INTO crew (f, called) VALUES (2, 'x')", "INSERT INTO crew (f, number) OVERRIDING USER VALUE VALUES (2, 5)"):
            with refused("23502", "gives no value for \"f, number\", the shard key of table \"crew\""):
                cursor.execute(sql)
        with refused("0A000", "\"lands\" is a view of tables on several shards"):
            cursor.execute("UPDATE lands SET n = 3")
        with refused("0A000", "would move the row to another shard"):
            cursor.execute("UPDATE people SET id = 3 WHERE id = 5")
        with refused("0A000", "of a type with another number on each shard"):
            with closing(sides[0].connect3()) as other:
                other.execute("SELECT people FROM people", binary=True)


def test_explain_tells_how(sides):
    with closing(sides[0].connect()) as client:
        assert "direct to shard" in explain(client, "SELECT * FROM actives WHERE id = 7")
        assert "direct to shard" in explain(client, "SELECT place FROM only_five WHERE item = 'x'".replace("place", "id"))
        for sql in ("SELECT called FROM crew WHERE f = 2 AND number = 5", "UPDATE seniors SET called = 'x' WHERE firm = 2 AND nr = 5",
                    "INSERT INTO crew (f, number) VALUES (2, 5)"):
            assert "direct to shard" in explain(client, sql)
        assert "scatter-merge" in explain(client, "SELECT name FROM actives ORDER BY name LIMIT 3")
        assert "from public.bought" in explain(client, "SELECT b.item FROM bought b JOIN people p ON p.name = b.name")
        text = explain(client, "SELECT n FROM lands")
        assert "gather" in text and "check: select from (select \"n\" from \"public\".\"lands\" limit 0)" in text
