"""Changes in WITH over several shards, for the differential test. Those of REFUSED are so, or right."""

CHANGES = """
WITH gone AS (DELETE FROM orders WHERE qty = 2 RETURNING *) SELECT * FROM gone
WITH gone AS (DELETE FROM orders WHERE qty = 2 RETURNING *) SELECT count(*) FROM gone
WITH gone AS (DELETE FROM orders WHERE qty = 99 RETURNING *) SELECT count(*), sum(amount), max(placed) FROM gone
WITH gone AS (DELETE FROM orders WHERE qty > 1 RETURNING *) SELECT qty, count(*), sum(amount), avg(qty), min(item) FROM gone GROUP BY qty ORDER BY qty DESC
WITH gone AS (DELETE FROM orders WHERE user_id IN (1, 5, 10) RETURNING user_id, id) SELECT user_id, id FROM gone ORDER BY user_id, id
WITH gone AS (DELETE FROM users WHERE id > 40 RETURNING id, name, mood) SELECT name || '!' AS n, mood FROM gone ORDER BY name COLLATE "C" DESC, id
WITH changed AS (UPDATE users SET num = num + 1 WHERE country = 'at' RETURNING *) SELECT id, num FROM changed WHERE num > 5 ORDER BY num, id
WITH changed AS (UPDATE users SET name = 'x' RETURNING id) SELECT count(*) AS n FROM changed
WITH changed AS (UPDATE users SET num = 0 RETURNING *) SELECT DISTINCT country FROM changed ORDER BY country
WITH changed AS (UPDATE users SET num = 0 WHERE id < 20 RETURNING *) SELECT c.id, o.amount FROM changed c JOIN orders o ON o.user_id = c.id
WITH changed AS (UPDATE users SET num = 7 RETURNING id, num) SELECT u.id, u.num, changed.num FROM changed JOIN orders u ON u.user_id = changed.id
WITH changed AS (UPDATE users SET num = 3 RETURNING id, country) SELECT c.name, count(*) FROM changed JOIN countries c ON c.code = changed.country GROUP BY c.name ORDER BY 1
WITH made AS (INSERT INTO empties VALUES (901, 1, 'a'), (902, 2, 'b'), (903, 3, 'c'), (904, 4, NULL) RETURNING *) SELECT * FROM made ORDER BY id
WITH made AS (INSERT INTO empties VALUES (901, 1, 'a'), (902, 2, 'b'), (903, 3, 'c') ON CONFLICT (id) DO UPDATE SET v = excluded.v RETURNING id) SELECT sum(id) FROM made
WITH gone AS (DELETE FROM members RETURNING *) SELECT g.slug, g.nr, t.plan FROM gone g LEFT JOIN tenants t ON t.slug = g.slug
WITH gone AS (DELETE FROM events WHERE level = 'info' RETURNING device, n) SELECT max(n) FROM gone
WITH gone AS (DELETE FROM orders WHERE qty = 3 RETURNING *) SELECT count(*) FROM users
WITH moved AS (DELETE FROM orders WHERE qty = 1 RETURNING *) INSERT INTO items (user_id, order_id, line, qty) SELECT user_id, id, 1000 + id, qty FROM moved
WITH moved AS (DELETE FROM orders WHERE qty > 3 RETURNING user_id, id, qty) INSERT INTO empties SELECT id + 1000, qty, 'moved' FROM moved RETURNING *
WITH moved AS (DELETE FROM orders WHERE qty = 4 RETURNING *) INSERT INTO orders SELECT id + 1000, user_id, amount FROM moved RETURNING id, user_id
WITH copied AS (UPDATE users SET num = 1 WHERE id < 30 RETURNING id, name) INSERT INTO empties (id, t) SELECT id, name FROM copied ON CONFLICT (id) DO NOTHING
WITH gone AS (DELETE FROM orders WHERE amount > 1 / (qty - 3) RETURNING *) SELECT count(*) FROM gone
WITH gone AS (DELETE FROM orders WHERE nothing = 1 RETURNING *) SELECT count(*) FROM gone
WITH gone AS (DELETE FROM orders RETURNING id) SELECT amount FROM gone
WITH gone AS (DELETE FROM orders WHERE user_id IN (1, 2) RETURNING *) SELECT u.id, gone.id FROM users u LEFT JOIN gone ON gone.user_id = u.id
WITH gone AS (DELETE FROM orders WHERE user_id IN (1, 2) RETURNING *) SELECT count(*) FROM users
WITH gone AS (DELETE FROM orders WHERE user_id IN (1, 3) RETURNING *) SELECT count(*) FROM users
WITH gone AS (DELETE FROM orders WHERE user_id IN (3, 2) RETURNING *) SELECT count(*) FROM users
WITH gone AS (DELETE FROM orders WHERE user_id IN (5, 9) RETURNING *) SELECT count(*) FROM users
WITH a AS (UPDATE users SET num = 1 WHERE country = 'at' RETURNING id), b AS (DELETE FROM orders WHERE qty = 2) SELECT count(*) FROM a
WITH a AS (DELETE FROM users WHERE num > 10 RETURNING id), b AS (DELETE FROM orders USING a WHERE orders.user_id = a.id) SELECT id FROM a ORDER BY id
WITH a AS (DELETE FROM users WHERE num > 10 RETURNING id), b AS (DELETE FROM orders o USING a WHERE o.user_id = a.id RETURNING o.*), c AS (DELETE FROM items i USING b WHERE b.user_id = i.user_id AND b.id = i.order_id) SELECT user_id, count(*) FROM b GROUP BY user_id ORDER BY 1
WITH gone AS (DELETE FROM orders WHERE qty = 3 RETURNING user_id, amount) UPDATE users SET num = 77 FROM gone WHERE users.id = gone.user_id RETURNING users.id, num
WITH gone AS (DELETE FROM users WHERE num = 3 RETURNING id) DELETE FROM orders USING gone WHERE orders.user_id = gone.id
WITH gone AS (DELETE FROM users WHERE id = 3 RETURNING id), also AS (DELETE FROM users WHERE id = 4 RETURNING id) DELETE FROM orders WHERE qty = 2
WITH gone AS (DELETE FROM users WHERE id = 3 RETURNING id), also AS (DELETE FROM users WHERE id = 4 RETURNING id) SELECT count(*) FROM gone
WITH gone AS (DELETE FROM users WHERE id IN (1, 2, 3) RETURNING id), also AS (DELETE FROM orders WHERE user_id IN (1, 3) RETURNING id, user_id) SELECT g.id, a.id FROM gone g LEFT JOIN also a ON a.user_id = g.id
WITH made AS (INSERT INTO users (id, name) VALUES (901, 'a'), (902, 'b'), (903, 'c') RETURNING id), also AS (INSERT INTO orders (id, user_id) VALUES (1, 901), (1, 903)) SELECT count(*) FROM made
WITH made AS (INSERT INTO empties (id) VALUES (901), (902) RETURNING id) SELECT u.id, m.id FROM users u LEFT JOIN made m ON m.id = u.id
WITH made AS (INSERT INTO empties (id) VALUES (901) RETURNING id) SELECT count(*) FROM users
WITH a AS (UPDATE users SET num = 1), b AS (UPDATE orders SET qty = 1), c AS (DELETE FROM items) SELECT count(*) FROM tenants
WITH a AS (DELETE FROM orders WHERE qty = 2 RETURNING *), b AS (DELETE FROM members RETURNING *) SELECT count(*) FROM a
WITH a AS (DELETE FROM staff WHERE pay > 3 RETURNING firm, nr), b AS (DELETE FROM shifts s USING a WHERE s.firm = a.firm AND s.who = a.nr) SELECT count(*) FROM a
WITH gone AS (DELETE FROM orders WHERE user_id = 5 RETURNING *) SELECT count(*) FROM users
WITH a AS (DELETE FROM orders RETURNING *), b AS (DELETE FROM items RETURNING *) SELECT count(*) FROM a
WITH gone AS (DELETE FROM orders RETURNING *) UPDATE users SET num = 1 FROM gone WHERE gone.user_id = users.id
WITH gone AS (DELETE FROM orders WHERE user_id IN (5, 6) RETURNING id, user_id) SELECT count(*) FROM users u WHERE NOT EXISTS (SELECT FROM gone WHERE user_id = u.id)
WITH gone AS (DELETE FROM orders WHERE user_id IN (5, 6) RETURNING id, user_id) UPDATE users u SET num = 5 WHERE NOT EXISTS (SELECT FROM gone WHERE user_id = u.id)
WITH gone AS (DELETE FROM orders AS oo WHERE user_id = 5 RETURNING oo.id, oo.user_id) SELECT count(*), (SELECT count(*) FROM countries) AS c FROM gone
""".strip().splitlines()

REFUSED = """
WITH gone AS (DELETE FROM users RETURNING id, mood) SELECT id FROM gone ORDER BY mood
WITH gone AS (DELETE FROM orders WHERE qty = 2 RETURNING *) SELECT * FROM gone ORDER BY id LIMIT 3
WITH gone AS (DELETE FROM orders RETURNING *) SELECT item, string_agg(id::text, ',') FROM gone GROUP BY item
WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) + 1 FROM gone
WITH gone AS (DELETE FROM orders RETURNING *) SELECT id, rank() OVER (ORDER BY id) FROM gone
WITH gone AS (DELETE FROM orders RETURNING id AS item, user_id) SELECT item FROM gone ORDER BY item
WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone WHERE user_id = 5
WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone, orders
WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone JOIN users u ON u.num = gone.qty
WITH gone AS (DELETE FROM orders o USING users u WHERE u.id = o.user_id RETURNING *) SELECT count(*) FROM gone
WITH moved AS (UPDATE users SET id = id + 100 RETURNING *) SELECT count(*) FROM moved
WITH gone AS (DELETE FROM orders RETURNING *) SELECT 1
WITH gone AS (DELETE FROM users WHERE id = 3 RETURNING id), also AS (DELETE FROM users WHERE id = 4 RETURNING id) SELECT gone.id, also.id FROM gone, also
WITH a AS (UPDATE users SET num = 1 RETURNING id), b AS (UPDATE users SET num = 2 WHERE id < 0 RETURNING id) SELECT count(*) FROM a JOIN b USING (id)
WITH a AS (UPDATE users SET num = 1 RETURNING id), b AS (INSERT INTO empties (id, v) SELECT id, 5 FROM a RETURNING id) SELECT count(*) FROM b
WITH a AS (SELECT id FROM users WHERE num > 3), b AS (DELETE FROM orders USING a WHERE user_id = a.id RETURNING *) SELECT count(*) FROM b
WITH a AS (DELETE FROM orders WHERE qty = 2 RETURNING *), b AS (DELETE FROM members RETURNING *) SELECT count(*) FROM a, b
WITH a AS (DELETE FROM orders WHERE qty = 2 RETURNING qty) DELETE FROM users USING a WHERE num = a.qty
WITH a AS (DELETE FROM orders WHERE qty = 2 RETURNING *), b AS (UPDATE countries SET area = 3) SELECT count(*) FROM a
WITH a AS (DELETE FROM orders WHERE qty = 2 RETURNING *), b AS (DELETE FROM notes) SELECT count(*) FROM a
WITH a AS (DELETE FROM orders WHERE qty = 2 RETURNING *), b AS (UPDATE users SET id = id + 1000) SELECT count(*) FROM a
WITH gone AS (DELETE FROM orders WHERE qty = 2 RETURNING *), went AS (DELETE FROM empties) INSERT INTO empties (id) SELECT id FROM gone
""".strip().splitlines()
