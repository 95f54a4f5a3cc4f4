"""MERGE of rows that are not on their target's shards, for the differential test. Those of REFUSED are so, or right."""

CHANGES = """
MERGE INTO users u USING (VALUES (1, 'm'), (700, 'n')) AS v (id, name) ON v.id = u.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)
MERGE INTO users AS u USING (VALUES (1, 'm'), (2, 'n'), (3, NULL), (4, 'o')) v (id, name) ON u.id = v.id WHEN MATCHED AND v.name IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET name = v.name || u.name
MERGE INTO users AS u USING (VALUES (5, 'five')) v (id, name) ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)
MERGE INTO users AS u USING (VALUES (705, 'five')) v (id, name) ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)
MERGE INTO users AS u USING (SELECT 5 AS id, 'five' AS name) v ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name, id = v.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (id, name)
MERGE INTO users AS u USING (SELECT '706'::text AS id, 'five' AS name) v ON u.id = v.id::bigint WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id::bigint, v.name)
MERGE INTO users USING (VALUES (7, 1.5), (8, 2), (9, NULL)) v (nr, amount) ON id = nr WHEN MATCHED THEN UPDATE SET balance = amount / 2, score = amount / 2
MERGE INTO users USING (VALUES (7, 1), (8, 2), (9, 3.5)) v (nr, amount) ON id = nr WHEN MATCHED THEN UPDATE SET balance = amount / 2
MERGE INTO users u USING (VALUES (7, 1), (7, 2)) v (id, x) ON u.id = v.id WHEN MATCHED THEN UPDATE SET num = x
MERGE INTO empties u USING (VALUES (7, 1), (800, 2), (7, 2)) v (id, x) ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id, v) VALUES (v.id, x)
MERGE INTO users u USING (VALUES (7, 1), (NULL, 2), (12, 7)) v (id, x) ON u.id = v.id WHEN MATCHED THEN UPDATE SET (num, small) = (v.x, 3)
MERGE INTO users u USING (VALUES (7, 1), (NULL, 2), (8, 2)) v (id, x) ON u.id = v.id WHEN MATCHED THEN DELETE
MERGE INTO users u USING (VALUES (7, 1), (NULL, 2), (8, 2)) v (id, x) ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'x')
MERGE INTO users u USING (VALUES (7, 1), (8, 2), (900, 4)) v (id, x) ON u.id = v.id AND u.num > v.x WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED AND v.x > 3 THEN INSERT (id, name, num) VALUES (v.id, 'x', v.x + 1)
MERGE INTO empties USING (VALUES (7, 1, 'x'), (8, 2, 'y'), (900, 4, 'z')) v (id, x, t) ON empties.id = v.id WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.x, v.t)
MERGE INTO empties USING (VALUES (7, 1, 'x'), (8, 2, 'y'), (900, 4, 'z')) v (id, x, t) ON empties.id = v.id WHEN NOT MATCHED AND x < 3 THEN INSERT (v, id) VALUES (x, v.id) WHEN NOT MATCHED THEN INSERT VALUES (v.id, DEFAULT, t)
MERGE INTO empties e USING unnest(ARRAY[1, 2, 3, 4, 5, 6], ARRAY['a', 'b', 'c', NULL]) AS v (id, t) ON e.id = v.id WHEN NOT MATCHED THEN INSERT (id, t) VALUES (v.id, v.t)
MERGE INTO empties e USING generate_series(1, 2000) AS g ON e.id = g WHEN NOT MATCHED AND g % 2 = 0 THEN INSERT (id, v) VALUES (g, 3)
MERGE INTO empties e USING generate_series(1, 20) AS g (id) ON e.id = g.id WHEN NOT MATCHED AND g.id % 2 = 0 THEN INSERT (id, v) VALUES (g.id, 3)
MERGE INTO users u USING orders o ON o.id = u.id WHEN MATCHED THEN UPDATE SET num = o.qty, name = u.name || o.id
MERGE INTO users u USING orders ON u.id = orders.id AND orders.qty > 2 WHEN MATCHED AND u.num IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET balance = amount WHEN NOT MATCHED AND item IS NOT NULL THEN INSERT (id, name, seen) VALUES (orders.id, item, placed)
MERGE INTO empties e USING (SELECT id, qty FROM orders WHERE qty < 4) o ON e.id = o.id WHEN NOT MATCHED THEN INSERT (id, v) VALUES (o.id, o.qty)
MERGE INTO empties e USING (SELECT qty, count(*) AS n, sum(amount) AS s FROM orders WHERE qty IS NOT NULL GROUP BY qty) o ON e.id = o.qty WHEN NOT MATCHED THEN INSERT (id, v, t) VALUES (o.qty, o.n, o.s)
MERGE INTO empties e USING (SELECT qty, count(*) AS n FROM orders GROUP BY qty HAVING count(*) > 1) o ON e.id = o.qty WHEN NOT MATCHED AND o.qty IS NOT NULL THEN INSERT (id, v) VALUES (o.qty, o.n)
MERGE INTO users u USING (SELECT id, rank() OVER (ORDER BY amount, id) AS r FROM orders) o ON u.id = o.r WHEN MATCHED THEN UPDATE SET num = o.id
MERGE INTO users u USING (SELECT o.id, u.num FROM orders o JOIN users u ON u.num = o.qty AND o.id < 30 AND u.id < 10) x ON u.id = x.id WHEN MATCHED THEN UPDATE SET num = x.num
MERGE INTO users u USING (SELECT id + 1 AS id, num FROM users WHERE num > 3) x ON u.id = x.id WHEN MATCHED THEN UPDATE SET num = x.num WHEN NOT MATCHED THEN INSERT (id, name) VALUES (x.id, 'new')
MERGE INTO users u USING notes n ON n.id = u.id WHEN MATCHED THEN UPDATE SET name = n.body WHEN NOT MATCHED THEN INSERT (id, name) VALUES (n.id, coalesce(n.body, '?'))
MERGE INTO users u USING countries c ON c.area::bigint = u.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED AND c.area IS NOT NULL THEN INSERT (id, name) VALUES (c.area::bigint, c.name)
WITH x AS (SELECT id, qty FROM orders WHERE qty > 2), y AS (SELECT id, max(qty) AS q FROM x GROUP BY id) MERGE INTO users u USING y ON u.id = y.id WHEN MATCHED THEN UPDATE SET num = y.q
MERGE INTO orders o USING (VALUES (1, 1, 9), (2, 33, 8), (3, 5, NULL)) v (u, i, q) ON (o.user_id, o.id) = (v.u, v.i) WHEN MATCHED THEN UPDATE SET qty = q WHEN NOT MATCHED THEN INSERT (id, user_id, qty) VALUES (i, u, q)
MERGE INTO orders o USING (SELECT num FROM users) u ON u.num = o.user_id AND o.qty = 3 WHEN MATCHED THEN DELETE
MERGE INTO orders o USING (SELECT DISTINCT num FROM users) u ON u.num = o.user_id AND o.qty = 3 WHEN MATCHED THEN DELETE
MERGE INTO members m USING (VALUES ('acme1', 3, 'x'), ('new', 1, 'y')) v (s, n, w) ON m.slug = v.s AND m.nr = v.n WHEN MATCHED THEN UPDATE SET who = w WHEN NOT MATCHED THEN INSERT VALUES (v.s, v.n, v.w)
MERGE INTO devices d USING (VALUES ('00000000-0000-4000-8000-000000000001'::uuid, 4), ('00000000-0000-4000-8000-0000000000ff', 5)) v (id, n) ON d.id = v.id WHEN MATCHED THEN UPDATE SET v = n WHEN NOT MATCHED THEN INSERT (id, v, label) VALUES (v.id, n, 'made')
MERGE INTO staff s USING (VALUES (1, 1, 'a'), (2, 5, 'b'), (77, 78, 'c')) v (f, n, t) ON s.firm = v.f AND s.nr = v.n WHEN MATCHED THEN UPDATE SET name = v.t WHEN NOT MATCHED THEN INSERT (name, nr, firm) VALUES (v.t, v.n, v.f)
MERGE INTO staff s USING (SELECT 3 AS f, 78 AS n, 'c' AS t) v ON (s.firm, s.nr) = (v.f, v.n) WHEN MATCHED THEN UPDATE SET name = v.t WHEN NOT MATCHED THEN INSERT (name, nr, firm) VALUES (v.t, v.n, v.f)
MERGE INTO staff s USING (SELECT country, num, small FROM users) u ON s.firm = u.small AND s.nr = u.num WHEN MATCHED THEN UPDATE SET pay = u.num, nr = s.nr
MERGE INTO staff s USING shifts h ON s.firm = h.day AND s.nr = h.who AND h.firm = 3 WHEN MATCHED THEN UPDATE SET boss = h.hours
MERGE INTO users u USING (VALUES (1), (2)) v (id) ON u.id = v.id WHEN MATCHED THEN UPDATE SET num = 1 / (v.id - 2)
MERGE INTO users u USING (VALUES (1), (2)) v (id) ON u.id = v.id WHEN MATCHED THEN UPDATE SET nothing = 1
MERGE INTO users u USING (VALUES ('1'), ('2')) v (id) ON u.id = v.id WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING (VALUES (1, 2), (2, 3)) v ("a ""b", x) ON u.id = "a ""b" WHEN MATCHED THEN UPDATE SET num = x WHEN NOT MATCHED THEN INSERT (id, name) VALUES ("a ""b", 'q')
MERGE INTO users u USING (SELECT id, id, qty AS q FROM orders) o ON u.id = o.q WHEN MATCHED AND u.id < 0 THEN DELETE
MERGE INTO users u USING (SELECT id, amount, placed, item, discount, ARRAY[qty, 1] AS l, '{"a": 1}'::jsonb AS j, interval '1 day' AS i FROM orders) o ON u.id = o.id WHEN MATCHED THEN UPDATE SET balance = amount, seen = placed, name = coalesce(item, 'none'), score = discount, tags = l::text[], prefs = j, span = i
MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN UPDATE SET name = o::text
MERGE INTO users u USING orders o ON o.qty > 1 AND (u.num > 0 AND u.id = o.id) WHEN MATCHED THEN UPDATE SET num = o.qty
MERGE INTO public.users USING (VALUES (1), (2), (3)) v (id) ON public.users.id = v.id WHEN MATCHED THEN DELETE
MERGE INTO users u USING (SELECT 1 AS id UNION ALL SELECT 2) v ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = 'q'
MERGE INTO users u USING (SELECT generate_series(1, 50) AS id) v ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'q')
MERGE INTO users u USING (VALUES (901), (902), (903)) v (id) ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)
""".strip().splitlines()

REFUSED = """
MERGE INTO users u USING orders o ON o.id = u.id + 1 WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING orders o ON o.id + 1 = u.id WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING orders o ON o.id = u.id OR o.id = 3 WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING orders o ON o.id = u.num WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING orders o ON o.id = u.id WHEN MATCHED THEN UPDATE SET id = o.qty
MERGE INTO users u USING orders o ON o.id = u.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.qty, 'x')
MERGE INTO users u USING orders o ON o.id = u.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (o.id + 1, 'x')
MERGE INTO users u USING orders o ON o.id = u.id WHEN MATCHED THEN UPDATE SET num = (SELECT max(area) FROM countries)
MERGE INTO users u USING (SELECT id, mood FROM users) x ON u.id = x.id WHEN MATCHED THEN UPDATE SET name = 'x'
MERGE INTO users u USING (SELECT id + 1 AS id, mood FROM users) x ON u.id = x.id WHEN MATCHED THEN UPDATE SET mood = x.mood
MERGE INTO users u USING (SELECT id + 1 AS id, email FROM users) x ON u.id = x.id WHEN MATCHED AND x.email > u.name THEN DELETE
MERGE INTO users u USING (SELECT id, item COLLATE "C" AS item FROM orders) x ON u.id = x.id WHEN MATCHED AND x.item > u.name THEN DELETE
MERGE INTO users u USING (VALUES (1.0), (2.5)) v (id) ON u.id = v.id WHEN MATCHED THEN UPDATE SET num = 1 WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'x')
MERGE INTO orders o USING users u ON u.num = o.user_id AND o.qty = 3 WHEN MATCHED THEN DELETE
MERGE INTO tenants t USING (SELECT item::char(6) AS s FROM orders) x ON t.slug = x.s WHEN MATCHED THEN DELETE
MERGE INTO users u USING (orders o JOIN items i ON i.order_id = o.id) ON u.id = o.id WHEN MATCHED THEN UPDATE SET num = 1
MERGE INTO users u USING (SELECT id, 'users'::regclass AS r FROM orders) o ON u.id = o.id WHEN MATCHED THEN UPDATE SET name = o.r::text
MERGE INTO users u USING (SELECT id, row(qty, item) AS r FROM orders) o ON u.id = o.id WHEN MATCHED THEN UPDATE SET name = o.r::text
MERGE INTO users u USING (VALUES (1::smallint, 2), (2::smallint, 3)) v (id, x) ON v.id = u.id AND u.id = v.x WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, name) VALUES (x + 1000, 'x')
""".strip().splitlines()
