"""CREATE TABLE AS and SELECT INTO of rows on several shards, for the differential test: statement, the table's name."""

CREATES = [(sql.strip(), "made") for sql in """
CREATE TABLE made AS SELECT * FROM users
CREATE TABLE made AS SELECT id, name, balance, mood, tags, prefs, span FROM users WHERE id IN (1, 2, 30, 41)
CREATE TABLE made AS SELECT * FROM users WHERE id = 5
CREATE TABLE made AS SELECT * FROM users WHERE id = 6
CREATE TABLE made AS SELECT * FROM users WHERE id = 7
CREATE TABLE made AS SELECT * FROM users WHERE false
CREATE TABLE made (a, b) AS SELECT country, count(DISTINCT name) FROM users GROUP BY country
CREATE TABLE made (a) AS SELECT id, email, nick FROM users
CREATE TABLE made AS SELECT u.id, o.amount, u.email || 'x' AS mail FROM users u JOIN orders o ON o.user_id = u.id
CREATE TABLE made AS SELECT u.id, c.name, n.body FROM users u JOIN countries c ON c.code = u.country LEFT JOIN notes n ON n.user_id = u.id
CREATE TABLE made AS SELECT sum(amount), avg(qty), max(placed), 'text' AS t, NULL AS n, 1.50::numeric(6,2) AS m FROM orders
CREATE TABLE made AS SELECT id, rank() OVER (ORDER BY balance, id) AS r FROM users
CREATE TABLE made AS SELECT id FROM users UNION SELECT id FROM orders EXCEPT SELECT 3
CREATE TABLE made AS (SELECT id FROM users ORDER BY id DESC LIMIT 7)
CREATE TABLE made AS WITH big AS (SELECT user_id, sum(qty) AS q FROM orders GROUP BY 1) SELECT * FROM big WHERE q > 3
CREATE TABLE made AS TABLE tenants
CREATE TABLE made AS SELECT * FROM users WITH DATA
CREATE TABLE made AS SELECT * FROM users WITH NO DATA
CREATE TABLE made (x, y) WITH (fillfactor = 70) AS SELECT id, num FROM users
CREATE UNLOGGED TABLE made AS SELECT device, n FROM events
CREATE TABLE IF NOT EXISTS made AS SELECT slug FROM members
CREATE TABLE public.made AS SELECT user_id % 5 AS k, count(*) FROM public.orders GROUP BY 1 HAVING count(*) > 2
CREATE TABLE made AS SELECT gen.n, u.name FROM generate_series(1, 3) gen (n), users u
SELECT * INTO made FROM users
SELECT id, name INTO TABLE made FROM users WHERE id < 20 ORDER BY id
SELECT id INTO UNLOGGED made FROM users UNION ALL SELECT user_id FROM orders
SELECT count(*), 'x' AS x INTO made FROM items
""".strip().splitlines()]

# What a server refuses: with its own words.
ERRORS = """
CREATE TABLE made AS SELECT nothing FROM users
CREATE TABLE made AS SELECT id, id FROM users
CREATE TABLE made (a, b) AS SELECT id FROM users
CREATE TABLE made AS SELECT 1 / (id - 5) FROM users
CREATE TABLE notes AS SELECT id FROM users
CREATE TABLE nowhere.made AS SELECT id FROM users
CREATE TABLE made WITH (fillfactor = 7000) AS SELECT id FROM users
CREATE TABLE made AS SELECT row(id, 1) FROM users
SELECT id, 1 / (id - 5) INTO made FROM users
""".strip().splitlines()

# Tables that the configuration has already as sharded, or of reference: by keyspace, with their keys.
SHARED = {"users": [("made", "id"), ("made_too", "user_id")], "tenants": [("made_text", "slug")], "devices": [("made_uuid", "device")],
          "staff": [("made_two", ["firm", "who"])]}
SHARED_REFERENCE = "made_everywhere"

# ... made of rows that stay on their shards, or of any others: statement, table, the columns of its key.
SHARED_CREATES = [(sql.strip(), name, key) for name, key, statements in (
    ("made", ["id"], """
CREATE TABLE made AS SELECT * FROM users
CREATE TABLE made AS SELECT id, name, balance, mood, tags, prefs, span FROM users WHERE id IN (1, 2, 30, 41)
CREATE TABLE made AS SELECT u.* FROM users u JOIN countries c ON c.code = u.country
CREATE TABLE made AS SELECT * FROM users WHERE id = 5
CREATE TABLE made AS SELECT * FROM users WHERE false
CREATE TABLE made AS SELECT num AS n, id FROM users WHERE num > 4
CREATE TABLE made (id, a) AS SELECT id, email, nick FROM users
CREATE TABLE made (a, id) AS SELECT id, num * 3 AS b FROM users WHERE num IS NOT NULL
CREATE TABLE made AS SELECT u.id, o.amount, u.email || 'x' AS mail FROM users u JOIN orders o ON o.user_id = u.id
CREATE TABLE made AS SELECT user_id AS id, count(*), sum(amount) FROM orders GROUP BY user_id
CREATE TABLE made AS SELECT u.id, o.id AS oid, c.name, n.body FROM users u JOIN orders o ON o.user_id = u.id JOIN countries c ON c.code = u.country LEFT JOIN notes n ON n.user_id = u.id
CREATE TABLE made AS SELECT id, rank() OVER (ORDER BY balance, id) AS r FROM users
CREATE TABLE made AS SELECT id, 'text' AS t, NULL AS n, 1.50::numeric(6,2) AS m, 'x'::char(5) AS c, id::regclass AS r FROM users
CREATE TABLE made AS SELECT id FROM users UNION SELECT id FROM orders EXCEPT SELECT 3
CREATE TABLE made AS (SELECT id FROM users ORDER BY id DESC LIMIT 7)
CREATE TABLE made AS WITH big AS (SELECT user_id, sum(qty) AS q FROM orders GROUP BY 1) SELECT user_id AS id, q FROM big WHERE q > 3
CREATE TABLE made (id) AS VALUES (1), (2), (7), (900000)
CREATE TABLE made AS SELECT id, user_id, body FROM notes
CREATE TABLE made AS SELECT n AS id, n % 3 AS three FROM generate_series(-20, 20) n
CREATE TABLE made AS SELECT * FROM users WITH DATA
CREATE TABLE made AS SELECT * FROM users WITH NO DATA
CREATE TABLE made (id, y) WITH (fillfactor = 70) AS SELECT id, num FROM users
CREATE TABLE made USING heap WITH (fillfactor = 60) TABLESPACE pg_default AS SELECT id, num + 1 AS m FROM users ORDER BY id LIMIT 30
CREATE UNLOGGED TABLE made AS SELECT id, num FROM users
CREATE UNLOGGED TABLE made AS SELECT qty AS id, user_id FROM orders
CREATE TABLE IF NOT EXISTS made AS SELECT id FROM users
CREATE TABLE IF NOT EXISTS made AS SELECT qty AS id, user_id FROM orders
CREATE TABLE public.made AS SELECT user_id % 5 AS id, count(*) FROM public.orders GROUP BY 1 HAVING count(*) > 2
CREATE TABLE made AS SELECT gen.n AS id, u.name FROM generate_series(1, 3) gen (n), users u
CREATE TABLE made /* pgshunt: shard by id */ AS SELECT * FROM users
SELECT * INTO made FROM users
SELECT id, name INTO TABLE made FROM users WHERE id < 20 ORDER BY id
SELECT id INTO UNLOGGED made FROM users UNION ALL SELECT user_id FROM orders
SELECT count(*) AS id, 'x' AS x INTO made FROM items
"""),
    ("made_too", ["user_id"], """
CREATE TABLE made_too AS SELECT * FROM orders
CREATE TABLE made_too AS SELECT o.*, i.line FROM orders o JOIN items i ON i.user_id = o.user_id AND i.order_id = o.id
CREATE TABLE made_too AS SELECT id AS oid, qty AS user_id FROM orders
CREATE TABLE made_too AS SELECT * FROM (SELECT user_id, max(id) AS m FROM orders GROUP BY user_id) x
CREATE TABLE made_too AS SELECT * FROM notes WHERE user_id IS NOT NULL
"""),
    ("made_text", ["slug"], """
CREATE TABLE made_text AS TABLE tenants
CREATE TABLE made_text AS SELECT slug, nr FROM members
CREATE TABLE made_text AS SELECT slug::varchar(20), seats FROM tenants
CREATE TABLE made_text AS SELECT slug::char(20), seats FROM tenants
CREATE TABLE made_text AS SELECT name AS slug, id FROM users
CREATE TABLE made_text AS SELECT code AS slug, name FROM countries
"""),
    ("made_uuid", ["device"], """
CREATE TABLE made_uuid AS SELECT device, n FROM events
CREATE TABLE made_uuid AS SELECT token AS device, id FROM users WHERE token IS NOT NULL
"""),
    ("made_two", ["firm", "who"], """
CREATE TABLE made_two AS SELECT * FROM shifts
CREATE TABLE made_two AS SELECT firm, nr AS who, name FROM staff
CREATE TABLE made_two (who, firm) AS SELECT firm, nr, pay FROM staff
CREATE TABLE made_two AS SELECT s.who, s.firm, st.name FROM shifts s JOIN staff st ON st.firm = s.firm AND st.nr = s.who
CREATE TABLE made_two AS SELECT qty AS firm, user_id AS who FROM orders
"""),
    ("made_everywhere", [], """
CREATE TABLE made_everywhere AS SELECT * FROM countries
CREATE TABLE made_everywhere AS SELECT country, count(DISTINCT name) FROM users GROUP BY country
CREATE TABLE made_everywhere AS SELECT id, mood FROM users
CREATE TABLE made_everywhere AS SELECT n, n * n AS s FROM generate_series(1, 1200) n
SELECT * INTO made_everywhere FROM notes
""")) for sql in statements.strip().splitlines()]

SHARED_ERRORS = """
CREATE TABLE made AS SELECT nothing FROM users
CREATE TABLE made AS SELECT id, id FROM users
CREATE TABLE made AS SELECT * FROM users u JOIN orders o ON o.user_id = u.id
CREATE TABLE made (id, b) AS SELECT id FROM users
CREATE TABLE made (a, b, id) AS SELECT id, qty FROM orders
CREATE TABLE made AS SELECT id, 1 / (id - 5) AS x FROM users
CREATE TABLE made AS SELECT qty AS id, 1 / (id - 50) AS x FROM orders
CREATE TABLE users AS SELECT id FROM users
CREATE TABLE nowhere.made AS SELECT id FROM users
CREATE TABLE made WITH (fillfactor = 7000) AS SELECT id FROM users
CREATE TABLE made AS SELECT id, row(id, 1) AS r FROM users
CREATE TABLE made AS SELECT qty AS id, row(id, 1) AS r FROM orders
SELECT id, 1 / (id - 5) INTO made FROM users
""".strip().splitlines()
