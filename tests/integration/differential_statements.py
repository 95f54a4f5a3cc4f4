"""Hand-written statements for the differential test. Each must be answered, as one Postgres answers it."""

# By ORDER BY and what follows it, the order is compared where the statement ends with ORDER BY.
READS = """
SELECT * FROM users
SELECT * FROM users ORDER BY id
SELECT u.*, u.id + 1 AS next FROM users u ORDER BY u.id DESC
SELECT id, name FROM users ORDER BY name, id
SELECT id, email FROM users ORDER BY email, id
SELECT id, email FROM users ORDER BY email DESC NULLS LAST, id DESC
SELECT id, nick FROM users ORDER BY nick, id
SELECT id, nick FROM users ORDER BY nick COLLATE "C" DESC, id
SELECT id, name FROM users ORDER BY name COLLATE "de-x-icu", id
SELECT id, name FROM users ORDER BY lower(name) COLLATE "C" NULLS FIRST, id
SELECT id FROM users ORDER BY balance NULLS FIRST, id
SELECT id FROM users ORDER BY balance DESC NULLS LAST, id DESC LIMIT 17
SELECT id FROM users ORDER BY score, id OFFSET 13
SELECT id FROM users ORDER BY score DESC, born NULLS FIRST, seen, id
SELECT id FROM users ORDER BY active, id
SELECT id FROM users ORDER BY active DESC NULLS LAST, mood, id
SELECT id, mood FROM users ORDER BY mood DESC, id
SELECT id, mood FROM users ORDER BY mood::text, id LIMIT 5
SELECT id, tags FROM users ORDER BY tags, id
SELECT id, prefs FROM users ORDER BY prefs, id
SELECT id, token FROM users ORDER BY token, id
SELECT id, photo FROM users ORDER BY photo NULLS FIRST, id
SELECT id, ip FROM users ORDER BY ip, id
SELECT id, ip FROM users ORDER BY ip DESC NULLS LAST, id
SELECT id, span FROM users ORDER BY span, id
SELECT id, small, num FROM users ORDER BY small DESC, num, id
SELECT id, born, seen FROM users ORDER BY born DESC NULLS LAST, seen, id
SELECT id FROM users ORDER BY -id
SELECT name FROM users ORDER BY length(name), name, id
SELECT id % 4 AS k, id FROM users ORDER BY k DESC, 2
SELECT id AS name FROM users ORDER BY name
SELECT id FROM users ORDER BY id LIMIT NULL
SELECT id FROM users ORDER BY id LIMIT ALL OFFSET 50
SELECT id FROM users ORDER BY id OFFSET 2 ROWS FETCH NEXT ROW ONLY
SELECT id FROM users ORDER BY id FETCH FIRST 3 ROWS ONLY
SELECT * FROM (SELECT id, num FROM users ORDER BY num FETCH FIRST 6 ROWS WITH TIES) x ORDER BY id
SELECT num FROM users ORDER BY num DESC NULLS LAST OFFSET 3 FETCH FIRST 7 ROWS WITH TIES
SELECT id FROM users ORDER BY id LIMIT 0
SELECT id FROM users ORDER BY id LIMIT 5 OFFSET 1000
SELECT id FROM users ORDER BY id LIMIT 2 + 3
SELECT id FROM users ORDER BY id LIMIT (SELECT 4)
SELECT id FROM users ORDER BY id LIMIT -1
SELECT id FROM users ORDER BY id OFFSET -1
SELECT id FROM users WHERE id IN (1, 2, 3, 40, 59, 600) ORDER BY id
SELECT id FROM users WHERE id = ANY('{5,6,7,8}') ORDER BY id DESC
SELECT id FROM users WHERE id = ANY(ARRAY[5, NULL, 7]) ORDER BY id
SELECT id FROM users WHERE id = 5 OR id = 9 OR id = 30 ORDER BY id
SELECT id FROM users WHERE id = 5 OR name LIKE 'b%' ORDER BY id
SELECT id FROM users WHERE (id, name) IN ((1, 'bob0'), (2, 'Österreich0'), (3, 'x')) ORDER BY id
SELECT id FROM users WHERE id NOT IN (1, 2, 3) AND id < 9 ORDER BY id
SELECT id FROM users WHERE id = NULL
SELECT id FROM users WHERE id IS NULL
SELECT id FROM users WHERE id BETWEEN 10 AND 20 AND id = 12
SELECT id FROM users WHERE NOT (id <> 7)
SELECT id FROM users WHERE id = 7 AND id = 8
SELECT id FROM users WHERE '7' = id
SELECT id FROM users WHERE id = 7.0
SELECT id FROM users WHERE id = 7.5
SELECT id FROM users WHERE id = 3 + 4
SELECT id FROM users WHERE id::int = 7
SELECT id FROM users WHERE id = '7'::text::bigint
SELECT id FROM users WHERE id::text = '7'
SELECT id FROM users WHERE CASE WHEN id < 5 THEN true ELSE false END ORDER BY id
SELECT id FROM users WHERE country IS NOT DISTINCT FROM NULL ORDER BY id
SELECT id FROM users WHERE tags @> ARRAY['t1'] ORDER BY id
SELECT id, prefs -> 'k', prefs ->> 's' FROM users WHERE prefs @> '{"s": "x"}' ORDER BY id
SELECT id FROM users WHERE ip << '10.1.0.0/16' ORDER BY id
SELECT id FROM users WHERE name ~* '^(a|b)' ORDER BY id
SELECT id FROM users WHERE mood > 'sad' ORDER BY id
SELECT id FROM users WHERE seen > '2026-03-01+00' ORDER BY id
SELECT id, born + 1, seen AT TIME ZONE 'UTC', extract(year FROM born) FROM users ORDER BY id
SELECT id, (tags)[1], array_length(tags, 1), coalesce(country, '?'), nullif(small, 3) FROM users ORDER BY id
SELECT id, 'x' || name, format('%s-%s', id, country), left(name, 2) FROM users ORDER BY id
SELECT 1 FROM users
SELECT NULL, 'text', 1.5 FROM users LIMIT 3
SELECT FROM users
SELECT count(*) FROM (SELECT FROM users) x
SELECT "id" AS "Odd ""name" FROM users ORDER BY "Odd ""name"
SELECT id FROM public.users ORDER BY users.id
SELECT users.id FROM users ORDER BY users.name, users.id
SELECT a.b FROM users AS a (b) ORDER BY 1
TABLE empties
SELECT * FROM empties ORDER BY v
SELECT count(*), sum(v), min(t), max(t), avg(v), array_agg(v), string_agg(t, ','), bool_and(v > 0) FROM empties
SELECT v, count(*) FROM empties GROUP BY v
SELECT count(*) FROM empties GROUP BY ()
SELECT count(*) FROM empties HAVING count(*) > 0
SELECT u.id, e.v FROM users u LEFT JOIN empties e ON e.id = u.id ORDER BY u.id
SELECT u.id, e.v FROM users u LEFT JOIN empties e ON e.v = u.num ORDER BY u.id
SELECT id FROM users WHERE id > ALL (SELECT v FROM empties) ORDER BY id
SELECT id FROM users WHERE id IN (SELECT v FROM empties)
SELECT id FROM users WHERE id NOT IN (SELECT v FROM empties) ORDER BY id
SELECT id FROM users WHERE num NOT IN (SELECT small FROM users) ORDER BY id
SELECT count(*) FROM users
SELECT count(*), count(country), count(DISTINCT country), count(active) FROM users
SELECT count(*) FILTER (WHERE active), count(country) FILTER (WHERE id > 20) FROM users
SELECT 1 + count(*), count(*) * 2.5, count(*)::text, -count(*) FROM users
SELECT sum(id), sum(num), sum(small), sum(balance), sum(score), sum(span) FROM users
SELECT avg(id), avg(num), avg(small), avg(balance), avg(score), avg(span) FROM users
SELECT min(id), max(name), min(email), max(nick), min(born), max(seen), min(balance), max(score), min(mood), max(tags) FROM users
SELECT min(span), max(ip), min(small), max(num), min(country), max(country) FROM users
SELECT bool_and(active), bool_or(active), every(active), bit_and(num), bit_or(num), bit_xor(small) FROM users
SELECT stddev(num), stddev_pop(num), variance(num), var_pop(balance), stddev_samp(score) FROM users
SELECT corr(num, small), regr_slope(num, small), regr_count(num, small), covar_pop(num, small) FROM users
SELECT sum(DISTINCT num), avg(DISTINCT num), min(DISTINCT num), count(DISTINCT (country, active)) FROM users
SELECT string_agg(name, ',' ORDER BY id DESC), array_agg(id ORDER BY id), jsonb_agg(num ORDER BY id) FROM users
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY num), mode() WITHIN GROUP (ORDER BY country) FROM users
SELECT rank(5) WITHIN GROUP (ORDER BY num) FROM users
SELECT json_object_agg(id, name ORDER BY id) FROM users WHERE id < 6
SELECT sum(num) + sum(small) FROM users
SELECT sum(num) / count(*), round(avg(balance), 2), coalesce(sum(num), 0) FROM users
SELECT sum(num) FROM users WHERE false
SELECT coalesce(sum(num), -1) FROM users WHERE false
SELECT CASE WHEN count(*) > 10 THEN 'many' ELSE 'few' END FROM users
SELECT count(*) > 10 AND max(id) = 60 FROM users
SELECT max(id) - min(id) AS spread FROM users
SELECT sum(num)::numeric / nullif(count(small), 0) FROM users
SELECT country, count(*) FROM users GROUP BY country
SELECT country, count(*) FROM users GROUP BY country ORDER BY country
SELECT country, count(*) FROM users GROUP BY country ORDER BY country NULLS FIRST
SELECT country, count(*) FROM users GROUP BY country ORDER BY country DESC
SELECT country, count(*) FROM users GROUP BY country ORDER BY count(*) DESC, country
SELECT country FROM users GROUP BY country ORDER BY sum(num), country
SELECT count(*) FROM users GROUP BY country ORDER BY country
SELECT country, active, count(*), sum(num) FROM users GROUP BY 1, 2 ORDER BY 1, 2
SELECT country, active, count(*), sum(num) FROM users GROUP BY country, active
SELECT id % 5, count(*) FROM users GROUP BY id % 5 ORDER BY 1
SELECT id % 5 AS k, max(name) FROM users GROUP BY k ORDER BY k
SELECT date_trunc('month', seen) AS m, count(*), avg(num) FROM users GROUP BY m ORDER BY m
SELECT lower(name), count(*) FROM users GROUP BY lower(name) ORDER BY 1
SELECT nick, count(*) FROM users GROUP BY nick
SELECT email, count(*) FROM users GROUP BY email ORDER BY email
SELECT mood, count(*) FROM users GROUP BY mood ORDER BY mood
SELECT tags, count(*) FROM users GROUP BY tags
SELECT prefs, count(*) FROM users GROUP BY prefs
SELECT ip, count(*) FROM users GROUP BY ip
SELECT span, count(*) FROM users GROUP BY span ORDER BY span
SELECT score, count(*) FROM users GROUP BY score ORDER BY score
SELECT balance, count(*) FROM users GROUP BY balance ORDER BY balance
SELECT country, count(*) FROM users GROUP BY country HAVING count(*) > 9 ORDER BY country
SELECT country, sum(num) FROM users GROUP BY country HAVING sum(num) > 100 AND country IS NOT NULL
SELECT country FROM users GROUP BY country HAVING max(id) > 58
SELECT country, count(*) + 1 FROM users GROUP BY country
SELECT country || '!', count(*) FROM users GROUP BY country
SELECT country || '!', count(*) FROM users GROUP BY country || '!'
SELECT upper(country), avg(num)::numeric(10,3) FROM users GROUP BY upper(country) ORDER BY 1 NULLS FIRST
SELECT country, count(*), count(*) FILTER (WHERE active) AS a FROM users GROUP BY country ORDER BY a DESC, country LIMIT 3
SELECT country, active, grouping(country, active), count(*) FROM users GROUP BY ROLLUP (country, active)
SELECT country, active, count(*) FROM users GROUP BY CUBE (country, active) HAVING count(*) > 3
SELECT country, active, count(*) FROM users GROUP BY GROUPING SETS ((country), (active), ()) ORDER BY 1, 2, 3
SELECT DISTINCT country FROM users
SELECT DISTINCT country, active FROM users ORDER BY country, active
SELECT DISTINCT nick FROM users ORDER BY nick
SELECT DISTINCT score FROM users ORDER BY score DESC
SELECT DISTINCT id % 3 FROM users ORDER BY id % 3 DESC
SELECT DISTINCT prefs FROM users
SELECT DISTINCT mood FROM users ORDER BY mood
SELECT DISTINCT tags FROM users
SELECT DISTINCT ip, span FROM users
SELECT DISTINCT ON (country) country, id FROM users ORDER BY country, id DESC
SELECT DISTINCT ON (country, active) country, active, name FROM users ORDER BY country, active, id
SELECT DISTINCT count(*) FROM users GROUP BY country
SELECT count(*) FROM (SELECT DISTINCT country FROM users) x
SELECT id, row_number() OVER (ORDER BY id DESC) FROM users ORDER BY id
SELECT id, rank() OVER (PARTITION BY country ORDER BY num), sum(num) OVER (PARTITION BY country) FROM users ORDER BY id
SELECT id, lag(name) OVER w, lead(id, 2, -1) OVER w, first_value(id) OVER w FROM users WINDOW w AS (ORDER BY id) ORDER BY id
SELECT country, rank() OVER (ORDER BY count(*) DESC) FROM users GROUP BY country
SELECT id, ntile(4) OVER (ORDER BY id) FROM users ORDER BY 1 LIMIT 9
SELECT id, avg(num) OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM users ORDER BY id
SELECT id, count(*) OVER () FROM users WHERE id < 7 ORDER BY id
SELECT user_id, sum(amount) OVER (PARTITION BY user_id ORDER BY id) FROM orders
SELECT * FROM (SELECT id, row_number() OVER (PARTITION BY country ORDER BY id) AS r FROM users) x WHERE r = 1 ORDER BY id
SELECT u.id, o.id FROM users u JOIN orders o ON o.user_id = u.id ORDER BY 1, 2
SELECT u.name, o.item, i.sku FROM users u JOIN orders o ON o.user_id = u.id JOIN items i ON i.user_id = o.user_id AND i.order_id = o.id ORDER BY i.line
SELECT u.id, count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id ORDER BY 1
SELECT u.id, o.id FROM users u RIGHT JOIN orders o ON o.user_id = u.id AND u.id > 20 ORDER BY 2
SELECT u.id, o.id FROM users u FULL JOIN orders o ON o.user_id = u.id WHERE u.id IS NULL OR o.id IS NULL OR o.id < 9 ORDER BY 1, 2
SELECT u.id, o.id FROM users u FULL JOIN orders o ON o.id = u.id ORDER BY 1, 2
SELECT count(*) FROM users CROSS JOIN countries
SELECT count(*) FROM users CROSS JOIN orders
SELECT u.id, c.name FROM users u LEFT JOIN countries c ON c.code = u.country ORDER BY u.id
SELECT c.code, u.id FROM countries c LEFT JOIN users u ON u.country = c.code AND u.id < 20 ORDER BY 1, 2
SELECT c.code, count(u.id) FROM countries c LEFT JOIN users u ON u.country = c.code GROUP BY c.code ORDER BY 1
SELECT c.code, u.id FROM users u RIGHT JOIN countries c ON u.country = c.code AND u.id % 9 = 0 ORDER BY 1, 2
SELECT c.code, u.id FROM users u FULL JOIN countries c ON u.country = c.code ORDER BY 1, 2
SELECT c.name FROM countries c WHERE EXISTS (SELECT 1 FROM users u WHERE u.country = c.code) ORDER BY 1
SELECT c.name FROM countries c WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.country = c.code AND u.id > 50) ORDER BY 1
SELECT c.name, (SELECT count(*) FROM users u WHERE u.country = c.code) FROM countries c ORDER BY 1
SELECT u.id, n.body FROM users u JOIN notes n ON n.user_id = u.id ORDER BY 1, 2
SELECT n.id, u.name FROM notes n LEFT JOIN users u ON u.id = n.user_id ORDER BY 1
SELECT a.id, b.id FROM users a JOIN users b ON b.num = a.num AND a.id < b.id ORDER BY 1, 2
SELECT a.id FROM users a JOIN users b USING (id) WHERE b.active ORDER BY id
SELECT * FROM orders NATURAL JOIN (SELECT id AS user_id, country FROM users) u ORDER BY id
SELECT t.slug, count(m.nr) FROM tenants t LEFT JOIN members m ON m.slug = t.slug GROUP BY t.slug ORDER BY 1
SELECT t.slug, m.who FROM tenants t JOIN members m USING (slug) ORDER BY slug, m.nr
SELECT t.slug FROM tenants t WHERE t.slug IN ('acme1', 'acme2', 'O''Hara é', 'no') ORDER BY 1
SELECT slug, seats FROM tenants ORDER BY slug DESC
SELECT m.slug FROM members m LEFT JOIN tenants t USING (slug) WHERE t.slug IS NULL ORDER BY m.nr
SELECT d.id, e.n FROM devices d JOIN events e ON e.device = d.id ORDER BY e.n
SELECT d.label, max(e.at) FROM devices d JOIN events e ON e.device = d.id GROUP BY d.label ORDER BY 1
SELECT id FROM devices ORDER BY id
SELECT u.id, t.slug, d.label FROM users u JOIN tenants t ON t.seats = u.num JOIN devices d ON d.v = u.small ORDER BY 1, 2, 3, d.id
SELECT u.id, t.slug FROM users u, tenants t WHERE u.id = 5 AND t.slug = 'acme2'
SELECT id FROM users WHERE id IN (SELECT user_id FROM orders WHERE amount > 200) ORDER BY id
SELECT id FROM users WHERE id NOT IN (SELECT user_id FROM orders) ORDER BY id
SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id AND o.qty > 4) ORDER BY id
SELECT id FROM users u WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id) ORDER BY id
SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.id = u.id AND o.qty > 3) ORDER BY id
SELECT id, (SELECT max(amount) FROM orders o WHERE o.user_id = u.id) FROM users u ORDER BY id
SELECT id, (SELECT max(amount) FROM orders o) FROM users u ORDER BY id
SELECT id, (SELECT count(*) FROM orders o WHERE o.qty < u.small) FROM users u ORDER BY id
SELECT id, ARRAY(SELECT o.id FROM orders o WHERE o.user_id = u.id ORDER BY o.id) FROM users u ORDER BY id
SELECT id FROM users WHERE num = (SELECT max(num) FROM users) ORDER BY id
SELECT id FROM users WHERE num > ANY (SELECT seats FROM tenants) ORDER BY id
SELECT id FROM users WHERE (id, num) IN (SELECT user_id, qty FROM orders) ORDER BY id
SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM orders), (SELECT max(v) FROM devices)
SELECT EXISTS (SELECT 1 FROM users WHERE num > 25), EXISTS (SELECT 1 FROM empties)
SELECT x.c, x.n FROM (SELECT country AS c, count(*) AS n FROM users GROUP BY country) x WHERE x.n > 5 ORDER BY x.c
SELECT avg(n) FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) x
SELECT max(n) FROM (SELECT count(*) AS n FROM users GROUP BY country) x
SELECT * FROM (SELECT id FROM users ORDER BY num NULLS FIRST, id LIMIT 5) x ORDER BY id
SELECT u.id, x.n FROM users u JOIN (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) x ON x.user_id = u.id ORDER BY 1
SELECT u.id, l.id FROM users u, LATERAL (SELECT id FROM orders o WHERE o.user_id = u.id ORDER BY o.id LIMIT 2) l ORDER BY 1, 2
SELECT u.id, l.id FROM users u LEFT JOIN LATERAL (SELECT id FROM orders o WHERE o.qty = u.small ORDER BY o.id LIMIT 1) l ON true ORDER BY 1
SELECT u.id, t FROM users u, unnest(u.tags) AS t ORDER BY 1, 2
SELECT u.id, g FROM users u, generate_series(1, u.small) AS g ORDER BY 1, 2
SELECT u.id, v.x FROM users u JOIN (VALUES (1, 'a'), (2, 'b'), (9, 'c')) AS v (k, x) ON v.k = u.id ORDER BY 1
SELECT g FROM generate_series(1, 70) g WHERE g NOT IN (SELECT id FROM users) ORDER BY 1
SELECT g, u.name FROM generate_series(58, 62) g LEFT JOIN users u ON u.id = g ORDER BY 1
SELECT id FROM users UNION SELECT user_id FROM orders ORDER BY 1
SELECT country FROM users UNION SELECT code FROM countries ORDER BY 1
SELECT id FROM users UNION ALL SELECT id FROM orders ORDER BY 1
SELECT country FROM users UNION ALL SELECT NULL
SELECT country FROM users INTERSECT SELECT code FROM countries ORDER BY 1
SELECT country FROM users INTERSECT ALL SELECT country FROM users WHERE id < 30
SELECT id FROM users EXCEPT SELECT user_id FROM orders ORDER BY 1
SELECT num FROM users EXCEPT ALL SELECT qty FROM orders ORDER BY 1
(SELECT id FROM users ORDER BY id LIMIT 3) UNION ALL (SELECT id FROM users ORDER BY id DESC LIMIT 3) ORDER BY 1
SELECT num FROM users UNION SELECT balance FROM users ORDER BY 1
SELECT count(*) FROM (SELECT country FROM users UNION SELECT item FROM orders) x
WITH a AS (SELECT * FROM users WHERE active) SELECT count(*) FROM a
WITH a AS (SELECT * FROM users WHERE active), b AS (SELECT user_id, sum(amount) AS s FROM orders GROUP BY 1) SELECT a.id, b.s FROM a JOIN b ON b.user_id = a.id ORDER BY 1
WITH a AS MATERIALIZED (SELECT country, count(*) AS n FROM users GROUP BY country) SELECT * FROM a WHERE n = (SELECT max(n) FROM a)
WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT r.n, u.name FROM r JOIN users u ON u.id = r.n ORDER BY 1
WITH RECURSIVE r (id, d) AS (SELECT id, 0 FROM users WHERE id = 2 UNION ALL SELECT u.id, d + 1 FROM users u JOIN r ON u.id = r.id * 2 WHERE d < 9) SELECT * FROM r ORDER BY d
WITH k AS (SELECT 5 AS id) SELECT u.name FROM users u JOIN k USING (id)
WITH users AS (SELECT 1 AS id) SELECT * FROM users
WITH x AS (SELECT id FROM users WHERE id = 5) SELECT o.id FROM orders o JOIN x ON x.id = o.user_id ORDER BY 1
VALUES (1, 'a'), (2, NULL)
SELECT * FROM countries ORDER BY area NULLS FIRST, code
SELECT c.name, s.title FROM countries c, skus s ORDER BY 1, 2
SELECT count(*) FROM notes
SELECT n.body, c.name FROM notes n, countries c WHERE n.id = 1 ORDER BY 2
SELECT i.sku, s.title, sum(i.price * i.qty) FROM items i LEFT JOIN skus s USING (sku) GROUP BY i.sku, s.title ORDER BY 1
SELECT s.title, (SELECT sum(qty) FROM items i WHERE i.sku = s.sku) FROM skus s ORDER BY 1
SELECT id, name FROM users GROUP BY id ORDER BY id
SELECT u.id, u.name, count(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id ORDER BY u.id
SELECT u.id, u.name, rank() OVER (ORDER BY count(o.id), u.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY u.id ORDER BY u.id
SELECT u.id, u.name, count(o.id) FROM users u LEFT JOIN orders o ON o.id = u.id GROUP BY u.id ORDER BY u.id
SELECT u.*, count(*) FROM users u JOIN orders o ON o.qty = u.small GROUP BY u.id ORDER BY u.id
SELECT t.slug, t.plan, count(*) FROM tenants t JOIN members m ON m.nr = t.seats GROUP BY t.slug ORDER BY 1
SELECT o.user_id, o.id, o.item, count(*) FROM orders o JOIN items i ON i.line = o.id GROUP BY o.user_id, o.id ORDER BY 2
SELECT id, balance::money IS NULL FROM users ORDER BY id
SELECT id, num / nullif(small, 0) FROM users ORDER BY 2, 1
SELECT id, score / 3, sqrt(abs(score)), balance / 7, balance ^ 2 FROM users ORDER BY id
SELECT id, to_char(balance, 'FM9990.00'), to_char(born, 'DD.MM.YYYY'), born::timestamp FROM users ORDER BY id
SELECT id, row(id, name), (id, country) = (1, 'de') FROM users ORDER BY id
SELECT id, row_to_json(u) FROM (SELECT id, name, prefs FROM users) u ORDER BY id
SELECT id, encode(photo, 'hex'), md5(name), octet_length(photo), family(ip), host(ip) FROM users ORDER BY id
SELECT id, mood::text, mood = 'ok', enum_range(mood) IS NULL FROM users ORDER BY id
SELECT name FROM users WHERE id = 5 FOR UPDATE
SELECT id, name FROM users ORDER BY name, id FOR UPDATE
SELECT id FROM users WHERE num > 10 FOR NO KEY UPDATE NOWAIT
SELECT u.name, o.amount, o.id FROM users u JOIN orders o ON o.user_id = u.id WHERE o.qty > 2 ORDER BY o.id FOR SHARE OF o SKIP LOCKED
SELECT u.*, c.name FROM users u JOIN countries c ON c.code = u.country ORDER BY u.id FOR KEY SHARE OF u
SELECT id FROM users WHERE id IN (3, 4, 5, 6, 7) ORDER BY id DESC FOR UPDATE
SELECT 1 AS one WHERE EXISTS (SELECT FROM users WHERE id = 60)
SELECT public.users.id, users.name FROM public.users WHERE public.users.id < 5 ORDER BY users.id
SELECT DISTINCT u.country, c.name FROM users u LEFT JOIN countries c ON c.code = u.country ORDER BY 1, 2
SELECT count(*) FROM users a JOIN users b ON a.id = b.id JOIN orders o ON o.user_id = b.id JOIN items i ON i.user_id = a.id AND i.order_id = o.id
SELECT a.id FROM users a LEFT JOIN orders o ON o.user_id = a.id LEFT JOIN items i ON i.user_id = o.user_id AND i.order_id = o.id WHERE i.line IS NULL ORDER BY a.id, o.id
SELECT a.id, b.id FROM users a LEFT JOIN users b ON b.id = a.num ORDER BY a.id
SELECT coalesce(a.id, b.user_id) AS k, b.id FROM users a FULL JOIN orders b ON b.user_id = a.id ORDER BY 1, 2
SELECT id, user_id FROM orders WHERE (user_id, id) > (40, 10) ORDER BY user_id, id LIMIT 11
SELECT item, count(*), sum(qty), min(placed) FROM orders WHERE user_id IN (1, 2, 5, 9, 10, 17) GROUP BY item ORDER BY item
SELECT count(*) FROM orders TABLESAMPLE BERNOULLI (100)
SELECT id FROM ONLY users WHERE id < 5 ORDER BY id
SELECT count(*) FROM ONLY users u JOIN orders o ON o.id = u.id
""".strip().splitlines()

ERRORS = """
SELECT id / 0 FROM users
SELECT id FROM users WHERE 1 / (id - 30) = 0
SELECT nothing FROM users
SELECT id FROM nowhere
SELECT id, count(*) FROM orders
SELECT country, id FROM users GROUP BY country
SELECT id FROM users WHERE name = 5
SELECT id FROM users WHERE id = 'x'
SELECT sum(name) FROM users
SELECT id FROM users ORDER BY 7
SELECT DISTINCT id FROM users ORDER BY name
SELECT id FROM users UNION SELECT name FROM users
SELECT id FROM users u JOIN orders o ON o.user_id = u.id
SELECT (SELECT id FROM users) + 1
SELECT count(count(*)) FROM users
SELECT id FROM users WHERE count(*) > 1
SELECT id FROM users HAVING count(*) > 1
SELECT name::int FROM users
SELECT balance::int * 30000000 FROM users
SELECT id FROM users WHERE name LIKE 'a' ESCAPE 'xx'
SELECT * FROM users u, u
SELECT unknown_function(id) FROM users
SELECT id FROM users WHERE born = 'yesterdayish'
SELECT id FROM users LIMIT 'x'
SELECT max(id) OVER (ORDER BY nothing) FROM users
WITH a AS (SELECT 1) SELECT * FROM b, users
SELECT row_number() OVER () FROM users WHERE row_number() OVER () = 1
INSERT INTO users (id, name) VALUES (1, 'again')
INSERT INTO users (id, name) VALUES (901, 'a'), (902, NULL)
INSERT INTO users (id, name) VALUES (903, 'a'), (1, 'again'), (904, 'b')
INSERT INTO users (id, nothing) VALUES (905, 1)
INSERT INTO users (id, name) VALUES (906, 'a', 'b')
INSERT INTO users (id, name, small) VALUES (907, 'a', 99999)
INSERT INTO countries VALUES ('at', 'again')
UPDATE users SET nothing = 1
UPDATE users SET name = NULL
UPDATE users SET num = 1 / (id - 30)
UPDATE orders SET qty = qty / 0 WHERE user_id = 1
DELETE FROM users WHERE 1 / (id - 30) > 5
DELETE FROM users WHERE nothing
""".strip().splitlines()

# Each is run in a transaction of its own, looked at and rolled back.
WRITES = """
INSERT INTO users (id, name) VALUES (101, 'new')
INSERT INTO users (id, name) VALUES (101, 'new'), (102, 'newer'), (103, 'newest'), (104, 'x')
INSERT INTO users (name, id, balance) VALUES ('a', 105, 1.5), ('b', 106, DEFAULT), ('c', 107, NULL) RETURNING id, name, balance
INSERT INTO users (id, name) VALUES (101, 'new'), (1, 'old'), (2, 'old') ON CONFLICT DO NOTHING
INSERT INTO users (id, name) VALUES (101, 'new'), (1, 'old'), (2, 'old') ON CONFLICT (id) DO UPDATE SET name = excluded.name, num = 77
INSERT INTO users (id, name) VALUES (111, 'n'), (1, 'o'), (2, 'p') ON CONFLICT (id) DO UPDATE SET num = users.id RETURNING id, num
INSERT INTO users (id, name) VALUES (111, 'n'), (1, 'o'), (2, 'p') ON CONFLICT (id) DO UPDATE SET num = 3 WHERE users.id = 2 RETURNING id
INSERT INTO users (id, name, tags, prefs, photo, ip, span, mood) VALUES (120, 'x', '{a,b}', '{"a": 1}', '\\x00', '::1', '1 day', 'ok'), (121, 'y', ARRAY['q'], NULL, NULL, NULL, NULL, 'sad') RETURNING *
INSERT INTO users VALUES (130, 'all', NULL), (131, 'of', 'them@x')
INSERT INTO orders (id, user_id, amount) VALUES (1001, 1, 5), (1002, 2, 6), (1003, 3, 7) RETURNING *
INSERT INTO tenants VALUES ('new1', 'x', 1), ('new2', 'y', 2), ('é ß', NULL, NULL)
INSERT INTO devices VALUES ('00000000-0000-4000-9000-000000000001', 'n', 1), ('00000000-0000-4000-9000-000000000002', 'n', 2) RETURNING label, v
INSERT INTO countries VALUES ('br', 'Brazil', 8515.8), ('it', 'Italy', 301)
INSERT INTO countries VALUES ('at', 'Again', 1) ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING *
INSERT INTO notes VALUES (100, 1, 'x'), (101, NULL, 'y')
UPDATE users SET num = num + 1
UPDATE users SET num = num + 1 WHERE active RETURNING id, num
UPDATE users SET name = name || '!' WHERE id IN (1, 2, 3, 99)
UPDATE users SET name = 'x' WHERE id = 7 RETURNING *
UPDATE users SET num = 1 WHERE id > 1000
UPDATE users SET (num, small) = (5, 6) WHERE country = 'at' RETURNING id, num + small
UPDATE orders SET amount = amount * 1.1 WHERE item = 'pen'
UPDATE orders o SET qty = 9 FROM users u WHERE u.id = o.user_id AND u.country = 'de' RETURNING o.id, u.name
UPDATE users SET num = 3 WHERE id IN (SELECT user_id FROM orders WHERE qty = 2)
UPDATE users u SET num = 4 WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id)
UPDATE users SET country = c.name FROM countries c WHERE c.code = users.country
UPDATE countries SET area = area + 1
UPDATE countries SET area = 5 WHERE code IN ('at', 'de') RETURNING code, area
UPDATE notes SET body = 'x' WHERE id < 4
UPDATE tenants SET seats = 0 WHERE slug LIKE 'acme%'
DELETE FROM orders
DELETE FROM orders WHERE qty = 3 RETURNING id, user_id
DELETE FROM orders WHERE user_id IN (1, 2, 5)
DELETE FROM orders o USING users u WHERE u.id = o.user_id AND u.active
DELETE FROM users WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.user_id = users.id)
DELETE FROM users WHERE id = 7 RETURNING *
DELETE FROM users WHERE id = 7 OR id = 9
DELETE FROM events WHERE level = 'warn'
DELETE FROM countries WHERE code = 'jp' RETURNING *
DELETE FROM notes RETURNING id
TRUNCATE orders, items
INSERT INTO users (id, name) VALUES (2 + 138, 'expr'), (141, 'a' || 'b')
INSERT INTO users (id, name) VALUES ((SELECT max(id) + 1 FROM users), 'x')
INSERT INTO users (id, name) VALUES (length('abc') + 200, 'x'), (length('abcd') + 200, 'y')
INSERT INTO users (id, name) VALUES (201, (SELECT 'a')), (202, 'b')
INSERT INTO users (id, name) SELECT id + 500, name FROM users
INSERT INTO users (id, name) SELECT id, 'x' FROM users ON CONFLICT (id) DO UPDATE SET num = 5
INSERT INTO empties (id, v) SELECT user_id, max(qty) FROM orders GROUP BY user_id
INSERT INTO orders (id, user_id, amount) SELECT id + 500, user_id, amount FROM orders RETURNING id
INSERT INTO users (id, name) SELECT g, 'g' FROM generate_series(300, 320) g
INSERT INTO countries SELECT 'c' || id, 'x' FROM users
UPDATE users SET id = id + 1000 WHERE id = 5
UPDATE users SET id = 1005 WHERE id = 5 RETURNING id
UPDATE users SET id = id + 1000
UPDATE users SET id = id + 1000 WHERE id IN (5, 9, 14) RETURNING *
UPDATE users SET id = id + 1000, name = name || 'x', num = DEFAULT WHERE active RETURNING id, name
UPDATE users SET (id, num) = (id * 100, id) WHERE country = 'at'
UPDATE orders SET user_id = user_id % 7 + 1 RETURNING id, user_id
UPDATE orders o SET user_id = u.id + 1 FROM users u WHERE u.id = o.user_id AND u.id < 9
UPDATE orders SET user_id = 60, item = 'moved' WHERE user_id = 5 AND EXISTS (SELECT 1 FROM users u WHERE u.id = orders.user_id)
UPDATE tenants SET slug = slug || 'x', seats = seats + 1 RETURNING slug, seats
UPDATE devices SET id = '00000000-0000-4000-9000-000000000001' WHERE v = 5 AND label = 'dev 1'
UPDATE members SET slug = 'acme' || nr WHERE nr % 3 = 0
UPDATE users SET id = 6 WHERE id = 5
UPDATE users SET id = NULL WHERE id = 5
UPDATE users SET id = 'x' WHERE id = 5
UPDATE users SET id = name WHERE id = 5
UPDATE users SET id = id / 0 WHERE id = 5
UPDATE users SET id = 2000 WHERE id = 5000
INSERT INTO users SELECT id + 1000, name, email, nick, country, born, seen, balance, score, active, tags, prefs, token, photo, ip, span, mood, small, num FROM users RETURNING *
INSERT INTO users (id, name, born, mood) SELECT id + 2000, name, '2020-01-01', 'ok' FROM users ORDER BY id LIMIT 5 RETURNING id, born
INSERT INTO users (id, name, born) SELECT id + 2000, name, name FROM users
INSERT INTO users (id, name, small) SELECT id + 2000, name, id * 1000 FROM users
INSERT INTO users (id, name) SELECT 1, 'a' UNION ALL SELECT 99, 'b'
INSERT INTO users (id, name) SELECT id + 2000 FROM users
INSERT INTO empties (id, v) SELECT id, num FROM users RETURNING id, v
INSERT INTO empties (id, v) SELECT u.id, count(*) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id
INSERT INTO empties (id, v) SELECT id, v FROM (SELECT id, max(num) AS v FROM users GROUP BY id) x
INSERT INTO orders (id, user_id) SELECT user_id + 1000, user_id FROM orders WHERE id = 7
INSERT INTO countries SELECT code || 'x', name FROM countries
INSERT INTO countries SELECT 'n' || id, body FROM notes RETURNING *
INSERT INTO skus (sku, title) SELECT 'q' || nr, who FROM members WHERE who IS NOT NULL ON CONFLICT (sku) DO NOTHING RETURNING sku
INSERT INTO members SELECT slug || '2', seats, plan FROM tenants WHERE seats IS NOT NULL
INSERT INTO users (id, name) VALUES (901, 'a'), (902, (SELECT max(name) FROM users))
INSERT INTO users (id, name, born) VALUES (901, 'a', '2020-02-02'), (abs(-902), 'b', NULL) RETURNING id, born
WITH big AS (SELECT * FROM users WHERE id > 40) INSERT INTO empties (id, v, t) SELECT id + 1, num, name FROM big RETURNING *
WITH x AS (DELETE FROM orders WHERE user_id = 1 RETURNING *) INSERT INTO orders SELECT id, user_id + 100, amount FROM x RETURNING id, user_id
WITH x AS (DELETE FROM notes RETURNING *) INSERT INTO users (id, name) SELECT id + 100, body FROM x
UPDATE users u SET num = s.n FROM (SELECT user_id, count(*) AS n FROM orders GROUP BY user_id) s WHERE s.user_id = u.id
UPDATE users SET num = o.qty FROM orders o WHERE o.id = users.id
UPDATE users SET num = (SELECT count(*) FROM orders)
UPDATE users SET num = 5 WHERE id IN (SELECT id FROM orders WHERE qty = 1)
WITH x AS (SELECT max(id) AS m FROM users) UPDATE users SET num = 5 FROM x WHERE users.id = x.m
DELETE FROM users WHERE id IN (SELECT user_id FROM notes)
DELETE FROM orders USING notes n WHERE n.id = orders.id
DELETE FROM orders WHERE id = (SELECT max(id) FROM orders)
UPDATE users SET num = (SELECT count(*) FROM orders) RETURNING *
UPDATE users SET num = 5, name = 'x', born = '2020-01-01' WHERE id IN (SELECT id FROM orders WHERE qty = 1) RETURNING id, born
DELETE FROM users WHERE id IN (SELECT user_id FROM notes) RETURNING *
DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 7) RETURNING id, user_id
DELETE FROM orders o USING users u WHERE u.id = o.id AND u.active
DELETE FROM public.orders WHERE orders.id IN (SELECT o.id FROM public.orders o WHERE o.qty = 3)
WITH gone AS (SELECT id FROM users WHERE num > 20) DELETE FROM orders WHERE user_id IN (SELECT id FROM gone)
DELETE FROM orders WHERE EXISTS (SELECT * FROM users u WHERE u.num = orders.qty)
UPDATE tenants SET seats = (SELECT sum(qty) FROM orders), plan = plan || '!' WHERE slug IN (SELECT 'acme' || id FROM users)
UPDATE tenants t SET plan = m.who FROM members m WHERE m.nr = t.seats
UPDATE orders SET amount = amount + (SELECT avg(amount) FROM orders o2), qty = DEFAULT
UPDATE users SET small = 100000 WHERE id IN (SELECT id FROM orders)
UPDATE users SET nothing = 1 WHERE id IN (SELECT id FROM orders)
UPDATE users SET num = num / (SELECT 0 * count(*) FROM orders)
UPDATE users SET num = 1 WHERE id IN (SELECT id FROM orders WHERE qty > 100)
INSERT INTO empties (id, t) SELECT id + 1000, 'users'::regclass FROM orders
INSERT INTO empties (id, t) SELECT id + 1000, CASE WHEN qty > 2 THEN 'orders'::regclass END FROM orders WHERE qty < 4 ORDER BY id LIMIT 9
MERGE INTO users u USING orders o ON o.user_id = u.id AND o.id < 5 WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO orders o USING users u ON u.id = o.user_id WHEN MATCHED AND u.active THEN DELETE WHEN MATCHED AND o.qty > 2 THEN UPDATE SET item = coalesce(u.name, $$x$$) || o.id
MERGE INTO empties e USING users u ON u.id = e.id WHEN NOT MATCHED AND u.num > 9 THEN INSERT (v, id) VALUES (u.num, u.id) WHEN NOT MATCHED THEN INSERT (id, t) VALUES (u.id, u.name)
MERGE INTO empties AS e USING users AS u ON u.id = e.id AND u.num > 5 WHEN NOT MATCHED THEN INSERT (id, t) VALUES (id, name)
MERGE INTO members m USING tenants t ON t.slug = m.slug WHEN MATCHED AND m.nr % 2 = 0 THEN UPDATE SET who = t.plan WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (slug, nr) VALUES (t.slug, 99)
MERGE INTO users u USING countries c ON c.code = u.country AND c.area > 100 WHEN MATCHED THEN UPDATE SET balance = c.area
MERGE INTO users u USING orders o ON o.user_id = u.id WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO orders o USING users u ON u.id = o.user_id AND u.id IN (3, 4, 5) WHEN MATCHED THEN DELETE
UPDATE users SET tags = ARRAY(SELECT item FROM orders ORDER BY id LIMIT 3), prefs = (SELECT jsonb_agg(id ORDER BY id) FROM orders WHERE qty = 5)
""".strip().splitlines()

# What was refused when it was written down: it is answered rightly, or refused with a message that the page has.
PERHAPS = """
SELECT u FROM users u WHERE id < 4 ORDER BY id
INSERT INTO users VALUES (130, 'all'), (131, 'of', 'them@x')
SELECT id FROM users ORDER BY id USING >
SELECT id FROM users ORDER BY id LIMIT 4 FOR UPDATE
SELECT DISTINCT country FROM users FOR UPDATE
SELECT u.id FROM users u JOIN orders o ON o.id = u.id FOR SHARE OF u
SELECT id, ctid IS NULL, row_number() OVER (ORDER BY id) FROM users ORDER BY id
WITH orders AS (SELECT 1 AS id) SELECT u.id, count(*) OVER () FROM users u JOIN orders USING (id)
WITH users AS (SELECT * FROM users WHERE active) SELECT count(*) FROM users
INSERT INTO users (name) VALUES ('no key')
UPDATE users SET mood = (SELECT max(mood) FROM users u2)
DELETE FROM users u USING orders o WHERE o.id = u.id AND u::text <> ''
UPDATE users u SET num = 1 FROM orders o WHERE o.id = u.id RETURNING u.id, o.id
INSERT INTO users (id, name) SELECT id + 2000.4, name FROM users
INSERT INTO users (id, name) VALUES (NULL, 'x')
INSERT INTO users (id, name) VALUES (DEFAULT, 'x')
INSERT INTO notes SELECT id + 100, id, name FROM users
WITH x AS (UPDATE users SET num = 1 RETURNING id) SELECT count(*) FROM x
WITH x AS (DELETE FROM orders WHERE user_id = 1 RETURNING *) SELECT count(*) FROM x
MERGE INTO users u USING orders o ON o.id = u.id WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING (VALUES (1, 'm'), (700, 'n')) AS v (id, name) ON v.id = u.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)
UPDATE countries SET area = (SELECT count(*) FROM users)
UPDATE notes SET body = u.name FROM users u WHERE u.id = notes.user_id
DELETE FROM notes WHERE user_id IN (SELECT id FROM users WHERE active)
TRUNCATE orders, notes
DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id
""".strip().splitlines()
