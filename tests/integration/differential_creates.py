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
