"""Statements about tables sharded by two columns, for the differential test: as in differential_statements.py."""

READS = """
SELECT * FROM staff ORDER BY firm, nr
SELECT count(*), sum(pay), min(name), avg(nr) FROM staff
SELECT * FROM staff WHERE firm = 2 AND nr = 5
SELECT * FROM staff WHERE nr = '5' AND firm = 1 + 1
SELECT * FROM staff WHERE (firm, nr) = (2, 5)
SELECT * FROM staff WHERE (nr, firm, name) = (5, 2, 'n5')
SELECT * FROM staff WHERE (firm, nr) IN ((2, 5), (3, 6), (0, 0)) ORDER BY nr, firm
SELECT * FROM staff WHERE (firm, nr) IN ((2, 5), (2, NULL))
SELECT * FROM staff WHERE (firm, nr) NOT IN ((2, 5), (3, 6)) ORDER BY nr, firm
SELECT * FROM staff WHERE firm = 2 AND nr IN (1, 2, 5, 8) ORDER BY nr
SELECT * FROM staff WHERE firm IN (1, 2) AND nr IN (1, 2, 4, 5) ORDER BY nr, firm
SELECT * FROM staff WHERE firm = 2 AND nr = ANY (ARRAY[1, 2, 5, NULL]) ORDER BY nr
SELECT * FROM staff WHERE firm = ANY ('{1,2}') AND nr = 5 ORDER BY nr
SELECT * FROM staff WHERE (firm = 2 AND nr = 5) OR (firm = 3 AND nr = 6) ORDER BY nr
SELECT * FROM staff WHERE (firm = 2 AND nr = 5) OR nr = 6 ORDER BY nr, firm
SELECT * FROM staff WHERE firm = 2 AND (nr = 5 OR nr = 8) ORDER BY nr
SELECT * FROM staff WHERE NOT (firm = 2 AND nr = 5) ORDER BY nr, firm
SELECT * FROM staff WHERE firm = 2 ORDER BY pay DESC NULLS LAST, nr LIMIT 4
SELECT * FROM staff WHERE nr BETWEEN 3 AND 9 ORDER BY nr DESC, firm
SELECT * FROM staff WHERE (firm, nr) > (2, 20) ORDER BY firm, nr
SELECT * FROM staff WHERE firm = nr ORDER BY nr
SELECT * FROM staff WHERE firm = 2 AND nr = NULL
SELECT * FROM staff WHERE firm = 2 AND nr = 5 AND nr = 6
SELECT * FROM staff WHERE firm = 2.0 AND nr = 5
SELECT firm, count(*), sum(pay) FROM staff GROUP BY firm ORDER BY firm
SELECT firm, nr, string_agg(name, ',') FROM staff GROUP BY firm, nr ORDER BY nr, firm
SELECT DISTINCT firm FROM staff ORDER BY firm
SELECT DISTINCT firm, nr FROM staff ORDER BY nr, firm
SELECT nr, rank() OVER (PARTITION BY firm ORDER BY nr) FROM staff ORDER BY nr, firm
SELECT nr, row_number() OVER (PARTITION BY firm, nr ORDER BY day) FROM staff JOIN shifts USING (firm) WHERE who = nr ORDER BY nr, firm, day
SELECT s.name, h.day, h.hours FROM staff s JOIN shifts h ON h.firm = s.firm AND h.who = s.nr ORDER BY s.nr, s.firm, h.day
SELECT s.name, h.day FROM staff s JOIN shifts h ON (h.who, h.firm) = (s.nr, s.firm) WHERE s.firm = 2 AND h.who = 5 ORDER BY h.day
SELECT s.name, h.day FROM staff s, shifts h WHERE s.firm = 2 AND h.firm = 2 AND h.who = s.nr ORDER BY s.nr, h.day
SELECT s.name, h.day FROM staff s, shifts h WHERE s.firm = 2 AND h.firm = 3 AND h.who = s.nr ORDER BY s.nr, h.day
SELECT s.name, h.day FROM staff s JOIN shifts h ON h.who = s.nr WHERE s.firm = 2 AND h.firm = 2 ORDER BY s.nr, h.day
SELECT s.name, h.day FROM staff s JOIN shifts h ON h.who = s.nr WHERE s.firm IN (1, 2) AND h.firm IN (1, 2) ORDER BY s.nr, s.firm, h.firm, h.day
SELECT s.nr, h.day FROM staff s LEFT JOIN shifts h ON h.firm = s.firm AND h.who = s.nr AND h.hours > 4 ORDER BY s.nr, s.firm, h.day
SELECT s.nr, h.day FROM staff s FULL JOIN shifts h ON h.firm = s.firm AND h.who = s.nr ORDER BY s.nr, s.firm, h.who, h.firm, h.day
SELECT s.nr, h.day FROM staff s RIGHT JOIN shifts h ON h.firm = s.firm AND h.who = s.nr WHERE h.who = 5 AND h.firm = 2 ORDER BY s.nr, h.day
SELECT s.nr, h.day FROM staff s LEFT JOIN shifts h ON h.who = s.nr AND h.firm = 2 WHERE s.firm = 2 ORDER BY s.nr, h.day
SELECT s.nr, h.day FROM staff s JOIN shifts h ON h.who = s.nr ORDER BY s.nr, s.firm, h.firm, h.day
SELECT s.nr, b.name FROM staff s JOIN staff b ON b.firm = s.firm AND b.nr = s.boss ORDER BY s.nr, s.firm
SELECT s.nr, b.name FROM staff s LEFT JOIN staff b ON b.firm = s.firm AND b.nr = s.boss WHERE s.firm = 2 ORDER BY s.nr
SELECT s.nr, u.name FROM staff s JOIN users u ON u.id = s.nr ORDER BY s.nr, s.firm
SELECT s.nr, c.name FROM staff s JOIN countries c ON c.code = s.country ORDER BY s.nr, s.firm
SELECT count(*) FROM staff NATURAL JOIN shifts
SELECT count(*) FROM staff a JOIN staff b USING (firm, nr) WHERE a.nr < 9
SELECT count(*) FROM staff a JOIN staff b USING (firm) WHERE a.nr < 9
SELECT nr FROM staff s WHERE EXISTS (SELECT 1 FROM shifts h WHERE h.firm = s.firm AND h.who = s.nr AND h.day > 3) ORDER BY nr, firm
SELECT nr FROM staff s WHERE NOT EXISTS (SELECT 1 FROM shifts h WHERE h.firm = s.firm AND h.who = s.nr) ORDER BY nr, firm
SELECT nr FROM staff WHERE (firm, nr) IN (SELECT firm, who FROM shifts WHERE hours > 4) ORDER BY nr, firm
SELECT nr FROM staff WHERE (nr, firm) IN (SELECT firm, who FROM shifts) ORDER BY nr, firm
SELECT nr FROM staff WHERE (firm, nr) NOT IN (SELECT firm, who FROM shifts) ORDER BY nr, firm
SELECT nr FROM staff WHERE (firm, nr, 5) IN (SELECT firm, who, hours FROM shifts) ORDER BY nr, firm
SELECT nr, (SELECT count(*) FROM shifts h WHERE h.firm = s.firm AND h.who = s.nr) FROM staff s ORDER BY nr, firm
SELECT nr, (SELECT count(*) FROM shifts h WHERE h.firm = s.firm) FROM staff s ORDER BY nr, firm
SELECT x.nr, x.name FROM (SELECT * FROM staff) x WHERE x.firm = 2 AND x.nr = 5
SELECT x.f, x.n FROM (SELECT firm AS f, nr AS n FROM staff) x WHERE x.f = 2 AND x.n = 5
SELECT x.n, h.day FROM (SELECT firm AS f, nr AS n FROM staff) x JOIN shifts h ON h.firm = x.f AND h.who = x.n ORDER BY 1, 2, h.firm
WITH s AS (SELECT * FROM staff WHERE firm = 2) SELECT s.nr, h.day FROM s JOIN shifts h ON h.firm = s.firm AND h.who = s.nr ORDER BY 1, 2
WITH s AS (SELECT * FROM staff WHERE firm = 2 AND nr = 5) SELECT name FROM s
SELECT firm FROM staff UNION SELECT firm FROM shifts ORDER BY 1
SELECT nr FROM staff WHERE firm = 2 UNION ALL SELECT who FROM shifts WHERE firm = 2 ORDER BY 1
SELECT h.* FROM staff s CROSS JOIN LATERAL (SELECT * FROM shifts h WHERE h.firm = s.firm AND h.who = s.nr ORDER BY day LIMIT 1) h ORDER BY h.who, h.firm
""".strip().splitlines()

ERRORS = """
SELECT * FROM staff WHERE firm = 'x' AND nr = 5
SELECT * FROM staff WHERE firm = 2 AND nr = 99999999999999999999999
SELECT * FROM staff WHERE (firm, nr) = (2, 5, 6)
SELECT * FROM staff WHERE (firm, nothing) = (2, 5)
INSERT INTO staff (firm, nr, pay) VALUES (2, 5, 'x')
INSERT INTO staff (firm, nr) VALUES (2, 5)
INSERT INTO staff (firm, nr) VALUES (9, 1), (9, 1)
""".strip().splitlines()

WRITES = """
INSERT INTO staff (firm, nr, name) VALUES (7, 1, 'a')
INSERT INTO staff (name, nr, firm) VALUES ('a', 100, 1), ('b', 101, 2), ('c', 102, 3), ('d', 103, 4) RETURNING nr, name
INSERT INTO staff (firm, nr, name) VALUES (2, 5, 'x'), (8, 8, 'y'), (3, 6, 'z') ON CONFLICT DO NOTHING
INSERT INTO staff (firm, nr, name) VALUES (2, 5, 'x'), (8, 8, 'y'), (3, 6, 'z') ON CONFLICT (firm, nr) DO UPDATE SET name = excluded.name || staff.name RETURNING nr, name
INSERT INTO staff (firm, nr, name) VALUES (2, 5, 'x') ON CONFLICT (firm, nr) DO UPDATE SET firm = excluded.firm, pay = 1
INSERT INTO staff (firm, nr, name) SELECT firm, nr + 1000, name FROM staff
INSERT INTO staff (firm, nr, name) SELECT firm + 10, nr, name FROM staff RETURNING nr, firm
INSERT INTO staff (firm, nr, name) SELECT id, id, name FROM users
INSERT INTO staff (nr, firm) SELECT nr, firm + 20 FROM staff WHERE firm = 2 ORDER BY nr LIMIT 5
INSERT INTO shifts (firm, who, day) SELECT firm, nr, 99 FROM staff
INSERT INTO shifts (firm, who, day) SELECT nr, firm, 99 FROM staff
INSERT INTO shifts (firm, who, day) SELECT firm, who, day FROM shifts ON CONFLICT DO NOTHING
INSERT INTO shifts (firm, who, day, hours) SELECT firm, who, day, 24 FROM shifts ON CONFLICT (firm, who, day) DO UPDATE SET hours = excluded.hours + shifts.hours
INSERT INTO notes (id, body) SELECT firm * 1000 + nr, name FROM staff
UPDATE staff SET pay = 1 WHERE firm = 2 AND nr = 5
UPDATE staff SET pay = coalesce(pay, 0) + 1 WHERE firm = 2 RETURNING nr, pay
UPDATE staff SET pay = 2 WHERE (firm, nr) IN ((2, 5), (3, 6), (1, 1))
UPDATE staff SET pay = h.hours FROM shifts h WHERE h.firm = staff.firm AND h.who = staff.nr AND h.day = 3
UPDATE staff SET firm = 2, nr = 5, pay = 3 WHERE firm = 2 AND nr = 5
UPDATE staff SET firm = firm + 10
UPDATE staff SET nr = nr + 1000 WHERE firm = 2
UPDATE staff SET firm = 50, nr = 60 WHERE firm = 2 AND nr = 5 RETURNING *
UPDATE staff SET (firm, nr) = (nr + 100, firm) WHERE nr < 20
UPDATE shifts SET firm = firm + 1, hours = 0 WHERE day > 2
UPDATE shifts SET who = who + 7 WHERE firm = 2 AND who = 5
DELETE FROM staff WHERE firm = 2 AND nr = 5 RETURNING name
DELETE FROM staff WHERE firm = 2
DELETE FROM staff WHERE firm IN (1, 2, 3) AND nr IN (1, 2, 3, 4, 5, 6)
DELETE FROM shifts USING staff s WHERE s.firm = shifts.firm AND s.nr = shifts.who AND s.pay > 3
DELETE FROM shifts WHERE (firm, who) IN (SELECT firm, nr FROM staff WHERE pay > 3)
DELETE FROM shifts WHERE who IN (SELECT nr FROM staff WHERE pay > 3)
WITH gone AS (DELETE FROM shifts WHERE firm = 2 AND who = 5 RETURNING *) SELECT count(*) FROM gone
MERGE INTO shifts h USING staff s ON s.firm = h.firm AND s.nr = h.who WHEN MATCHED AND h.day > 2 THEN DELETE WHEN MATCHED THEN UPDATE SET note = s.name
MERGE INTO shifts h USING staff s ON (s.firm, s.nr) = (h.firm, h.who) WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (day, who, firm) VALUES (77, s.nr, s.firm)
MERGE INTO shifts h USING staff s ON s.firm = h.firm AND s.nr = h.who AND h.day = 2 WHEN MATCHED THEN UPDATE SET hours = 1 WHEN NOT MATCHED AND s.pay > 3 THEN INSERT (firm, who, day) VALUES (s.firm, s.nr, 2) WHEN NOT MATCHED THEN INSERT (firm, who, day, note) VALUES (s.firm, s.nr, 2, s.name)
TRUNCATE shifts
""".strip().splitlines()

# Right or refused.
PERHAPS = """
INSERT INTO staff (firm, name) VALUES (2, 'x')
INSERT INTO staff (firm, nr) VALUES (NULL, 5)
INSERT INTO staff (firm, nr) VALUES (2, DEFAULT)
INSERT INTO staff (firm, nr) SELECT firm, NULL FROM staff
INSERT INTO staff (firm, nr) VALUES (2, 5.4)
UPDATE staff SET firm = NULL WHERE firm = 2 AND nr = 5
UPDATE staff SET firm = (SELECT max(firm) + 1 FROM staff)
UPDATE staff SET nr = DEFAULT WHERE firm = 2
MERGE INTO shifts h USING staff s ON s.firm = h.firm AND s.nr = h.who WHEN NOT MATCHED THEN INSERT (day, who, firm) VALUES (77, s.firm, s.nr)
MERGE INTO shifts h USING staff s ON s.nr = h.who WHEN MATCHED THEN UPDATE SET hours = 1
MERGE INTO shifts h USING staff s ON s.firm = h.firm AND s.nr = h.who WHEN MATCHED THEN UPDATE SET firm = 5
INSERT INTO staff (firm, nr) VALUES (2, 5), (3, 6) ON CONFLICT (firm, nr) DO UPDATE SET nr = 8
UPDATE staff SET firm = 9 FROM shifts h WHERE h.firm = staff.firm AND h.who = staff.nr AND h.day = 3 RETURNING h.day
WITH x AS (UPDATE staff SET firm = firm + 1 RETURNING nr) SELECT count(*) FROM x
""".strip().splitlines()
