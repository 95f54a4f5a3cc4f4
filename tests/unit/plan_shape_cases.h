/* plan_shape_cases.h: SELECTs over several shards: order, limits, groups. */
#ifndef PGSHUNT_PLAN_SHAPE_CASES_H
#define PGSHUNT_PLAN_SHAPE_CASES_H

#include "plan_cases.h"

#define SORTED "rows s0 s1 s2 R: sort by "

static const struct plan_case select_cases[] = {
    {"SELECT * FROM users ORDER BY id", SORTED "\"id\"", NULL},
    {"SELECT * FROM users u ORDER BY u.id DESC", SORTED "\"id\" DESC", NULL},
    {"SELECT id, name FROM users ORDER BY name, id DESC", SORTED "2, 1 DESC", NULL},
    {"SELECT id, name FROM users ORDER BY 2", SORTED "2", NULL},
    {"SELECT name AS n FROM users ORDER BY n NULLS FIRST", SORTED "1 NULLS FIRST", NULL},
    {"SELECT name FROM users ORDER BY name DESC NULLS LAST", SORTED "1 DESC NULLS LAST", NULL},
    {"SELECT u.name FROM users u ORDER BY name", SORTED "1", NULL},
    {"SELECT name FROM users u ORDER BY u.name", SORTED "1", NULL},
    {"SELECT lower(name) FROM users ORDER BY lower(name)", SORTED "1", NULL},
    {"SELECT lower(name) FROM users ORDER BY lower", SORTED "1", NULL},
    {"SELECT name FROM users ORDER BY age", SORTED "hidden 1",
     "SELECT name, age AS pgshunt_hidden_1 FROM users ORDER BY age"},
    {"SELECT name FROM users ORDER BY lower(name), age", SORTED "hidden 1, hidden 2",
     "SELECT name, lower(name) AS pgshunt_hidden_1, age AS pgshunt_hidden_2 FROM users ORDER BY "
     "lower(name), age"},
    {"SELECT * FROM users ORDER BY lower(name)", SORTED "hidden 1",
     "SELECT *, lower(name) AS pgshunt_hidden_1 FROM users ORDER BY lower(name)"},
    {"SELECT *, age * 2 AS twice FROM users ORDER BY twice", SORTED "\"twice\"", NULL},
    {"SELECT age, * FROM users ORDER BY 1", SORTED "1", NULL},
    {"SELECT u.* FROM users u JOIN orders o ON o.user_id = u.id ORDER BY o.total",
     SORTED "hidden 1",
     "SELECT u.*, o.total AS pgshunt_hidden_1 FROM users u JOIN orders o ON o.user_id = u.id ORDER "
     "BY "
     "o.total"},
    {"SELECT age AS name FROM users ORDER BY name", SORTED "1", NULL},
    {"SELECT name FROM users ORDER BY 3", "s0 R", NULL},
    {"SELECT name FROM users ORDER BY 0", "s0 R", NULL},
    {"SELECT id AS x, age AS x FROM users ORDER BY x", "s0 R", NULL},
    {"SELECT name FROM users ORDER BY age USING <", "gather", "USING"},
    /* collations */
    {"SELECT email FROM users ORDER BY email", SORTED "1", NULL},
    {"SELECT email, name FROM users ORDER BY email, name", "gather", "collations"},
    {"SELECT email, id FROM users ORDER BY email, id", SORTED "1, 2", NULL},
    {"SELECT nick FROM users ORDER BY nick", "gather", "collation"},
    {"SELECT nick FROM users ORDER BY lower(nick)", "gather", "collation"},
    {"SELECT nick FROM users ORDER BY nick COLLATE \"C\"", SORTED "hidden 1",
     "SELECT nick, nick COLLATE \"C\" AS pgshunt_hidden_1 FROM users ORDER BY nick COLLATE \"C\""},
    {"SELECT name FROM users ORDER BY name COLLATE \"de_DE\"", "gather", "collation"},
    /* LIMIT, OFFSET */
    {"SELECT name FROM users LIMIT 10", "rows s0 s1 s2 R: limit 10", NULL},
    {"SELECT name FROM users LIMIT 0", "rows s0 s1 s2 R: limit 0", NULL},
    {"SELECT name FROM users LIMIT ALL", "rows s0 s1 s2 R: append", NULL},
    {"SELECT name FROM users LIMIT 10 OFFSET 5", "rows s0 s1 s2 R: limit 10, offset 5",
     "SELECT name FROM users LIMIT 15"},
    {"SELECT name FROM users OFFSET 5", "rows s0 s1 s2 R: offset 5", "SELECT name FROM users"},
    {"SELECT name FROM users ORDER BY name FETCH FIRST 3 ROWS ONLY", SORTED "1, limit 3", NULL},
    {"SELECT name FROM users LIMIT 9223372036854775807 OFFSET 5",
     "rows s0 s1 s2 R: limit 9223372036854775807, offset 5",
     "SELECT name FROM users LIMIT 9223372036854775807"},
    {"SELECT name FROM users LIMIT '3'", "rows s0 s1 s2 R: limit 3", NULL},
    {"SELECT name FROM users LIMIT 3::bigint", "rows s0 s1 s2 R: limit 3", NULL},
    {"SELECT name FROM users LIMIT -1", "s0 R", NULL},
    {"SELECT name FROM users LIMIT 1 OFFSET -1", "s0 R", NULL},
    {"SELECT name FROM users LIMIT 1 + 1", "gather", "LIMIT of an expression"},
    {"SELECT name FROM users LIMIT 2.5", "gather", "LIMIT of an expression"},
    {"SELECT name FROM users LIMIT (SELECT 3)", "gather", "LIMIT of an expression"},
    {"SELECT name FROM users ORDER BY name FETCH FIRST 3 ROWS WITH TIES", "gather", "WITH TIES"},
    /* DISTINCT */
    {"SELECT DISTINCT name FROM users", "rows s0 s1 s2 R: distinct", NULL},
    {"SELECT DISTINCT name FROM users u ORDER BY u.name LIMIT 3",
     "rows s0 s1 s2 R: distinct, sort by 1, limit 3", NULL},
    {"SELECT DISTINCT name FROM users ORDER BY age", "gather", "DISTINCT"},
    {"SELECT DISTINCT ON (name) name FROM users", "gather", "DISTINCT ON"},
    /* shapes */
    {"SELECT row_number() OVER () FROM users", "gather", "window"},
    {"SELECT name FROM users FOR UPDATE", "0A000", "FOR UPDATE"},
    {"SELECT name FROM users WHERE id = 42 FOR UPDATE", "s1 P", NULL},
    {"SELECT geo(name) FROM users", "gather", "may be an aggregate"},
    {"SELECT geo(name), id FROM users", "rows s0 s1 s2 R: append", NULL},
    {"SELECT lower(name) FROM users", "rows s0 s1 s2 R: append", NULL},
    {"SELECT touch() FROM users WHERE id = 42", "s1 P", NULL},
    {"SELECT 1 FROM users", "rows s0 s1 s2 R: append", NULL},
};

#define COMBINED "rows s0 s1 s2 R: combine "

static const struct plan_case group_cases[] = {
    /* a name in GROUP BY is a column's if there is one, else that of a select list item */
    {"SELECT lower(name) AS y, count(*) FROM users GROUP BY y ORDER BY y",
     COMBINED "count 2 by 1, sort by 1", "SELECT lower(name) AS y, count(*) FROM users GROUP BY y"},
    {"SELECT date_trunc('year', note::date) AS y, count(*) FROM orders GROUP BY y ORDER BY y DESC",
     COMBINED "count 2 by 1, sort by 1 DESC",
     "SELECT date_trunc('year', note::date) AS y, count(*) FROM orders GROUP BY y"},
    {"SELECT lower(name) AS y, count(*) FROM users u WHERE EXISTS (SELECT 1 FROM orders WHERE "
     "user_id = u.id) GROUP BY y",
     COMBINED "count 2 by 1", NULL},
    {"SELECT lower(name) AS y, count(*) FROM users u JOIN countries c ON c.code = u.country GROUP "
     "BY y",
     COMBINED "count 2 by 1", NULL},
    {"SELECT lower(name) AS ctid, count(*) FROM users GROUP BY ctid", COMBINED "count 2 by 3",
     "SELECT lower(name) AS ctid, count(*), ctid AS pgshunt_hidden_1 FROM users GROUP BY ctid"},
    {"SELECT lower(name) AS age, count(*) FROM users GROUP BY age", COMBINED "count 2 by 3",
     "SELECT lower(name) AS age, count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT lower(name) AS y, count(*) FROM users u, generate_series(1, 2) AS g GROUP BY y",
     "gather", "may be a column"},
    {"SELECT count(*) FROM users", COMBINED "count 1", NULL},
    {"SELECT count(*) FROM users WHERE id = 42", "s1 R", NULL},
    {"SELECT count(age), sum(age), min(age), max(name) FROM users",
     COMBINED "count 1, sum 2, min 3, max 4", NULL},
    {"SELECT pg_catalog.count(*) FROM users", COMBINED "count 1", NULL},
    {"SELECT avg(age) FROM users", COMBINED "avg 1",
     "SELECT avg(age), pg_catalog.sum(age) AS pgshunt_hidden_1, pg_catalog.count(age) AS "
     "pgshunt_hidden_2 FROM users"},
    {"SELECT avg(age) FILTER (WHERE age > 3) FROM users", COMBINED "avg 1",
     "SELECT avg(age) FILTER (WHERE age > 3), pg_catalog.sum(age) FILTER (WHERE age > 3) AS "
     "pgshunt_hidden_1, pg_catalog.count(age) FILTER (WHERE age > 3) AS pgshunt_hidden_2 FROM "
     "users"},
    {"SELECT count(*) FILTER (WHERE age > 3) FROM users", COMBINED "count 1", NULL},
    {"SELECT 'x', 7, count(*) FROM users", COMBINED "count 3", NULL},
    {"SELECT age, count(*) FROM users GROUP BY age", COMBINED "count 2 by 1", NULL},
    {"SELECT count(*), age FROM users GROUP BY 2", COMBINED "count 1 by 2", NULL},
    {"SELECT age AS years, count(*) FROM users GROUP BY years", COMBINED "count 2 by 1", NULL},
    {"SELECT count(*) FROM users GROUP BY age", COMBINED "count 1 by 2",
     "SELECT count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT lower(name), count(*) FROM users GROUP BY lower(name)", COMBINED "count 2 by 1", NULL},
    {"SELECT lower(name) AS l, count(*) FROM users GROUP BY l", COMBINED "count 2 by 1", NULL},
    /* a column wins over a name of the select list */
    {"SELECT lower(name) AS name, count(*) FROM users GROUP BY name", COMBINED "count 2 by 3",
     "SELECT lower(name) AS name, count(*), name AS pgshunt_hidden_1 FROM users GROUP BY name"},
    {"SELECT u.country, count(*) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY country",
     COMBINED "count 2 by 1", NULL},
    {"SELECT age, count(*) FROM users GROUP BY age ORDER BY count(*) DESC, age LIMIT 3 OFFSET 1",
     COMBINED "count 2 by 1, sort by 2 DESC, 1, limit 3, offset 1",
     "SELECT age, count(*) FROM users GROUP BY age"},
    {"SELECT age, count(*) AS n FROM users GROUP BY age ORDER BY n",
     COMBINED "count 2 by 1, sort by 2", "SELECT age, count(*) AS n FROM users GROUP BY age"},
    {"SELECT age FROM users GROUP BY age", COMBINED "groups by 1", NULL},
    {"SELECT age FROM users GROUP BY age ORDER BY max(id)", COMBINED "max 2 by 1, sort by 2",
     "SELECT age, max(id) AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT age FROM users GROUP BY age ORDER BY avg(id)", COMBINED "avg 2 by 1, sort by 2",
     "SELECT age, avg(id) AS pgshunt_hidden_1, pg_catalog.sum(id) AS pgshunt_hidden_2, "
     "pg_catalog.count(id) AS pgshunt_hidden_3 FROM users GROUP BY age"},
    {"SELECT count(*) FROM users GROUP BY age ORDER BY age", COMBINED "count 1 by 2, sort by 2",
     "SELECT count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT age + 1, count(*) FROM users GROUP BY age", COMBINED "count 2 by 3",
     "SELECT age + 1, count(*), age AS pgshunt_hidden_1 FROM users GROUP BY age"},
    {"SELECT max(DISTINCT age) FROM users", COMBINED "max 1", NULL},
    {"SELECT count(*) FROM users LIMIT 1", COMBINED "count 1, limit 1",
     "SELECT count(*) FROM users"},
    {"SELECT country, count(*) FROM users LEFT JOIN countries ON code = country GROUP BY country",
     COMBINED "count 2 by 1", NULL},
    {"SELECT max(email) FROM users", COMBINED "max 1", NULL},
    {"SELECT max(email), max(name) FROM users", "gather", "collations"},
    {"SELECT max(nick) FROM users", "gather", "collation"},
    {"SELECT nick, count(*) FROM users GROUP BY nick", "gather", "collation"},
    {"SELECT email, name, count(*) FROM users GROUP BY email, name", COMBINED "count 3 by 1, 2",
     NULL},
    {"SELECT count(*) FROM users GROUP BY 5", "s0 R", NULL},
    /* not from parts */
    {"SELECT 1 + count(*) FROM users", "gather", "expression around an aggregate"},
    {"SELECT count(*)::int FROM users", "gather", "expression around an aggregate"},
    {"SELECT sum(age) / count(*) FROM users", "gather", "expression around an aggregate"},
    {"SELECT coalesce(sum(age), 0) FROM users", "gather", "expression around an aggregate"},
    {"SELECT count(DISTINCT age) FROM users", "gather", "count(DISTINCT"},
    {"SELECT avg(DISTINCT age) FROM users", "gather", "avg(DISTINCT"},
    {"SELECT string_agg(name, ',') FROM users", "gather", "string_agg"},
    {"SELECT array_agg(name ORDER BY id) FROM users", "gather", "array_agg"},
    {"SELECT bool_and(age > 3) FROM users", "gather", "bool_and"},
    {"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY age) FROM users", "gather",
     "percentile_cont"},
    {"SELECT age, geo(age) FROM users GROUP BY age", "gather", "may be an aggregate"},
    {"SELECT age, count(*) FROM users GROUP BY age HAVING count(*) > 1", "gather", "HAVING"},
    {"SELECT count(*) FROM users HAVING count(*) > 1", "gather", "HAVING"},
    {"SELECT age, count(*) FROM users GROUP BY ROLLUP (age)", "gather", "ROLLUP"},
    {"SELECT DISTINCT count(*) FROM users GROUP BY age", "gather", "DISTINCT"},
    {"SELECT * FROM users GROUP BY age", "gather", "GROUP BY"},
    {"SELECT age, count(*) OVER () FROM users GROUP BY age", "gather", "window"},
    /* groups of the key are whole on their shard */
    {"SELECT user_id, count(*) FROM orders GROUP BY user_id HAVING count(*) > 1 ORDER BY 2 DESC "
     "LIMIT 3",
     SORTED "2 DESC, limit 3", NULL},
    {"SELECT user_id, array_agg(id), 1 + count(DISTINCT id) FROM orders GROUP BY user_id",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT u.id, u.name, sum(total) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id",
     "rows s0 s1 s2 R: append", NULL},
    {"SELECT user_id FROM orders GROUP BY user_id, note ORDER BY max(total)", SORTED "hidden 1",
     "SELECT user_id, max(total) AS pgshunt_hidden_1 FROM orders GROUP BY user_id, note ORDER BY "
     "max(total)"},
    {"SELECT user_id, count(*) FROM orders GROUP BY 1 OFFSET 3", "rows s0 s1 s2 R: offset 3",
     "SELECT user_id, count(*) FROM orders GROUP BY 1"},
    {"SELECT o.user_id, array_agg(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP "
     "BY "
     "o.user_id",
     "gather", "array_agg"},
    {"SELECT u.id, array_agg(o.id) FROM users u LEFT JOIN orders o ON o.user_id = u.id GROUP BY "
     "u.id",
     "rows s0 s1 s2 R: append", NULL},
};

#endif
