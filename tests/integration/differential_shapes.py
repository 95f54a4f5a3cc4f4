"""The tables of docs/reference/sql-support.md that say what becomes of each shape of a query or change.

Every shape has statements. They are answered as by one Postgres (test_differential.py), and the page says for each
shape what EXPLAIN through the proxy says of them: in which gear, or with which of the page's messages they are refused.
"""
import re

from differential import Answer
from differential_refusals import cell, fits, listed, page, patterns
from support import query

# Shape, what else is to be said of it, and statements; none, where it takes more than these tables: other tests meet it.
SELECTS = [
    ("any `WHERE`, expressions, functions, `CASE`, scalar expressions in the select list", "", [
        "SELECT id, CASE WHEN num > 5 THEN upper(name) ELSE coalesce(country, '-') END FROM users WHERE num % 3 = 1 OR name LIKE 'A%'"]),
    ("`ORDER BY` columns, positions, aliases, expressions, what is not selected; `NULLS FIRST`", "", [
        "SELECT id, num AS n FROM users ORDER BY n NULLS FIRST, 1", "SELECT name FROM users ORDER BY length(name), id DESC"]),
    ("`ORDER BY` text in the database's libc collation or `\"C\"`", "", [
        "SELECT name FROM users ORDER BY name, id", "SELECT email FROM users ORDER BY email, id"]),
    ("`ORDER BY` a column with its own collation, several collations, an ICU collation", "", [
        "SELECT id FROM users ORDER BY nick, id", "SELECT id FROM users ORDER BY name COLLATE \"de-x-icu\", id"]),
    ("`ORDER BY ... USING`", "", ["SELECT id FROM users ORDER BY id USING >"]),
    ("`LIMIT`, `OFFSET`, `FETCH FIRST n ROWS ONLY` with numbers or parameters", "", [
        "SELECT id FROM users ORDER BY id LIMIT 5 OFFSET 3", "SELECT id FROM users ORDER BY id FETCH FIRST 3 ROWS ONLY"]),
    ("`LIMIT` or `OFFSET` of another expression", "", ["SELECT id FROM users ORDER BY id LIMIT (SELECT 4)"]),
    ("`FETCH ... WITH TIES`", "", ["SELECT num FROM users ORDER BY num FETCH FIRST 4 ROWS WITH TIES"]),
    ("`DISTINCT`", "", ["SELECT DISTINCT country FROM users ORDER BY country"]),
    ("`DISTINCT` with `ORDER BY` what is not in the select list", "", [
        "SELECT DISTINCT name::varchar(4) FROM users ORDER BY name::varchar(4)"]),
    ("`DISTINCT ON`", "", ["SELECT DISTINCT ON (country) country, id FROM users ORDER BY country, id"]),
    ("`count`, `sum`, `min`, `max`, `avg`, also with `FILTER`; `min`/`max(DISTINCT)`", "", [
        "SELECT count(*), sum(num), min(born), max(DISTINCT num), avg(balance) FILTER (WHERE num > 3) FROM users"]),
    ("`count`, `sum`, `avg` with `DISTINCT`", "", ["SELECT count(DISTINCT country) FROM users"]),
    ("other aggregates (`string_agg`, `array_agg`, `bool_and`, `stddev`, ...)", "", [
        "SELECT string_agg(name, ',' ORDER BY id), stddev(num) FROM users"]),
    ("an expression around an aggregate (`count(*) + 1`)", "", ["SELECT count(*) + 1 FROM users"]),
    ("`GROUP BY` columns, positions, expressions", "up to `limits.max_groups` groups (then 53400)", [
        "SELECT country, count(*) FROM users GROUP BY country ORDER BY 1", "SELECT num % 3, sum(num) FROM users GROUP BY 1 ORDER BY 1"]),
    ("`GROUP BY` that includes the shard key: any aggregate, `HAVING`, any expression", "", [
        "SELECT user_id, string_agg(item, ',' ORDER BY id), count(*) + 1 FROM orders GROUP BY user_id HAVING count(*) > 2 ORDER BY 1"]),
    ("`HAVING` otherwise", "", ["SELECT country FROM users GROUP BY country HAVING count(*) > 2 ORDER BY 1"]),
    ("`GROUPING SETS`, `ROLLUP`, `CUBE`", "", ["SELECT country, count(*) FROM users GROUP BY ROLLUP (country) ORDER BY 1, 2"]),
    ("`DISTINCT` with aggregates", "", ["SELECT DISTINCT count(*) FROM users"]),
    ("a function of yours that may be an aggregate", "gathered (13)", []),
    ("window functions", "", ["SELECT id, rank() OVER (ORDER BY num, id) FROM users ORDER BY id"]),
    ("join of tables of a keyspace, key equal key (inner, and outer where it is sound)", "", [
        "SELECT u.id, o.id FROM users u JOIN orders o ON o.user_id = u.id ORDER BY 1, 2",
        "SELECT u.id, o.id FROM users u LEFT JOIN orders o ON o.user_id = u.id ORDER BY 1, 2"]),
    ("join of sharded tables otherwise", "", ["SELECT u.id FROM users u JOIN orders o ON o.id = u.id ORDER BY 1"]),
    ("join with reference tables", "", ["SELECT u.id, c.name FROM users u JOIN countries c ON c.code = u.country ORDER BY 1"]),
    ("join with an unsharded table or a catalog", "", ["SELECT u.id FROM users u JOIN notes n ON n.id = u.id ORDER BY 1"]),
    ("subquery (`EXISTS`, `IN`, scalar) tied to the outer row by the key", "", [
        "SELECT id FROM users u WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = u.id AND o.qty = 3) ORDER BY id",
        "SELECT id, (SELECT count(*) FROM orders o WHERE o.user_id = u.id) FROM users u ORDER BY id"]),
    ("subquery over a sharded table otherwise", "", ["SELECT id FROM users WHERE num = (SELECT max(qty) FROM orders) ORDER BY 1"]),
    ("sharded table in a subquery in `FROM`, `LATERAL`, whose rows are of several shards", "", [
        "SELECT count(*) FROM (SELECT id FROM users ORDER BY id LIMIT 5) x"]),
    ("`WITH`", "", ["WITH x AS (SELECT id FROM users) SELECT count(*) FROM x"]),
    ("`UNION`, `INTERSECT`, `EXCEPT`", "", ["SELECT id FROM users UNION SELECT user_id FROM orders ORDER BY 1"]),
    ("`FOR UPDATE`, `FOR SHARE` and their kin, `OF`, `NOWAIT`, `SKIP LOCKED`",
     "rows are locked on every shard, until the transaction ends there; refused where it would have to be gathered", [
         "SELECT id, name FROM users ORDER BY name, id FOR UPDATE",
         "SELECT u.id, o.id FROM users u JOIN orders o ON o.user_id = u.id ORDER BY 1, 2 FOR SHARE OF o SKIP LOCKED"]),
    ("... with `LIMIT` or `OFFSET`, in a cursor: each shard would lock rows that are not given", "", [
        "SELECT id FROM users ORDER BY id LIMIT 3 FOR UPDATE"]),
    ("`TABLESAMPLE`, column aliases of a table (`t AS a (x, y)`)", "", [
        "SELECT count(*) FROM users TABLESAMPLE SYSTEM (100)", "SELECT a.x FROM users AS a (x, y) ORDER BY 1 LIMIT 3"]),
    ("views of sharded tables, also of other views", "merged or gathered, see [Views](#views)", []),
    ("a view that is not known, or was made in this transaction", "refused (23)", []),
    ("tables of [schemas](../guide/sharding.md#schemas-a-customer-on-a-shard) on several shards", "gathered (15)", []),
    ("types without a simple order in `ORDER BY`, `DISTINCT`, `GROUP BY`, `min`, `max`", "", ["SELECT DISTINCT tags FROM users ORDER BY tags"]),
    ("more than 48 mentions of sharded tables or query levels, more than 64 tables in one `FROM`", "", [
        "SELECT id FROM users WHERE " + " OR ".join(f"id IN (SELECT user_id FROM orders WHERE id = {n})" for n in range(60))]),
    ("more than 1664 items in the select list, `ORDER BY` or `GROUP BY`", "", ["SELECT " + ", ".join(["id"] * 1665) + " FROM users"]),
]

SHARD_TO_SHARD = "see [Rows from shard to shard](#rows-from-shard-to-shard)"
CHANGES = [
    ("`INSERT ... VALUES` with many rows, `ON CONFLICT`", "rows split by key", [
        "INSERT INTO users (id, name) VALUES (901, 'a'), (902, 'b'), (903, 'c')",
        "INSERT INTO users (id, name) VALUES (1, 'a'), (902, 'b'), (3, 'c') ON CONFLICT (id) DO UPDATE SET name = excluded.name"]),
    ("... `RETURNING`", "rows in the order of `VALUES`; with `ON CONFLICT DO NOTHING` or `DO UPDATE ... WHERE`, which leave rows out,"
     " those of one shard after the other", ["INSERT INTO users (id, name) VALUES (903, 'a'), (901, 'b') RETURNING id, name"]),
    ("key missing from the column list, or `DEFAULT`; `DEFAULT VALUES`; `OVERRIDING`: where the column has a default, or is identity",
     "rows split by key: the default is asked for first, see [Keys that are defaults](#keys-that-are-defaults)", []),
    ("... where it has no default; in `INSERT ... SELECT`, with `WITH`, inside `WITH`, in `EXPLAIN ANALYZE`", "", ["INSERT INTO users (name) VALUES ('x')"]),
    ("key NULL", "", ["INSERT INTO users (id, name) VALUES (NULL, 'x')"]),
    ("key an expression, a subquery; rows with subqueries, `WITH` or `LIMIT`", "a server computes the rows, " + SHARD_TO_SHARD, [
        "INSERT INTO users (id, name) VALUES ((SELECT 901), 'x')"]),
    ("... in `EXPLAIN ANALYZE`, and where a column is given as `DEFAULT`", "", [
        "EXPLAIN ANALYZE INSERT INTO users (id, name) VALUES ((SELECT 901), 'x')",
        "EXPLAIN ANALYZE INSERT INTO users (id, name) VALUES (903, (SELECT max(item) FROM orders)), (904, 'y')"]),
    ("`INSERT ... SELECT` into a sharded or reference table where the key is that of the row it comes from", "", [
        "INSERT INTO empties (id, v) SELECT id, num FROM users"]),
    ("... of anything else that a `SELECT` can be; `ON CONFLICT`, `RETURNING`", "rows go to the shards of their keys", [
        "INSERT INTO users (id, name) SELECT user_id + 1000, max(item) FROM orders WHERE item IS NOT NULL GROUP BY user_id"]),
    ("... where the `SELECT` is refused, or there are subqueries in `ON CONFLICT` or `RETURNING`", "refused (30)", []),
    ("`INSERT`, `UPDATE`, `DELETE` of an unsharded table with rows of sharded ones", "on the first shard", [
        "INSERT INTO notes SELECT id + 500, id, name FROM users WHERE id < 6", "DELETE FROM notes WHERE user_id IN (SELECT id FROM users WHERE num > 3)"]),
    ("`UPDATE`, `DELETE` without a key, `RETURNING`", "counts are added", [
        "UPDATE users SET num = num + 1 WHERE country = 'at'", "DELETE FROM orders WHERE qty = 2"]),
    ("`UPDATE ... FROM`, `DELETE ... USING` joined by key, or with reference tables", "", [
        "UPDATE users u SET num = o.qty FROM orders o WHERE o.user_id = u.id AND o.id = 5", "DELETE FROM users u USING countries c WHERE c.code = u.country AND c.area IS NULL"]),
    ("... joined otherwise, or with unsharded tables; subqueries over any tables; `WITH`", "rows are found where all that is read has been"
     " gathered, " + SHARD_TO_SHARD, [
         "DELETE FROM orders WHERE id IN (SELECT id FROM users WHERE num = 3)", "UPDATE users u SET num = n.id FROM notes n WHERE n.id = u.id"]),
    ("... with `FROM` or `USING` and `RETURNING` together, subqueries in `RETURNING`, `SET (a, b) = (SELECT ...)`, or the whole row of"
     " the table in an expression", "", [
         "UPDATE users u SET num = 1 FROM orders o WHERE o.id = u.id RETURNING o.id", "UPDATE users SET (num, small) = (SELECT count(*), 1 FROM orders)"]),
    ("... setting a column of a type that users made to a value that is read", "", ["UPDATE users SET mood = (SELECT max(mood) FROM users u2)"]),
    ("a change inside `WITH`, all of it on one shard", "", ["WITH x AS (UPDATE users SET num = 1 WHERE id = 5 RETURNING id) SELECT count(*) FROM x"]),
    ("... of its own rows on several shards, returning columns, where a `SELECT` of these would be merged without `LIMIT`, or an `INSERT`"
     " puts them elsewhere", "on each shard together, in one transaction", [
         "WITH x AS (UPDATE users SET num = 1 RETURNING id) SELECT count(*) FROM x",
         "WITH x AS (DELETE FROM orders WHERE qty = 2 RETURNING *) SELECT user_id, id FROM x ORDER BY user_id, id",
         "WITH x AS (DELETE FROM orders WHERE qty = 2 RETURNING *) INSERT INTO empties SELECT id + 1000, qty FROM x"]),
    ("... several of these; in an `UPDATE` or `DELETE`; each joined by key with what others return", "on each shard together, in one transaction", [
        "WITH x AS (DELETE FROM users WHERE num = 3 RETURNING id), y AS (DELETE FROM orders USING x WHERE user_id = x.id) SELECT count(*) FROM x",
        "WITH x AS (DELETE FROM orders WHERE qty = 2 RETURNING *) UPDATE users SET num = 1 FROM x WHERE users.id = x.user_id"]),
    ("... on several shards otherwise", "", ["WITH x AS (UPDATE users SET num = 1 RETURNING id) SELECT count(*) + 1 FROM x"]),
    ("`UPDATE` of the key, of rows on any shards", "rows whose new key is another shard's are moved, and a NOTICE says how many", [
        "UPDATE empties SET id = id + 100"]),
    ("... in `ON CONFLICT DO UPDATE`, unless to `excluded`'s or a key of the same shard", "", [
        "INSERT INTO users (id, name) VALUES (1, 'x'), (2, 'y') ON CONFLICT (id) DO UPDATE SET id = 3"]),
    ("`MERGE` where the source is joined by key, or is a reference table; rows it adds get the key of the source", "", [
        "MERGE INTO users u USING orders o ON o.user_id = u.id AND o.id = 5 WHEN MATCHED THEN UPDATE SET num = 1"]),
    ("... of `VALUES`, or a row of `SELECT`, with keys that are all of one shard", "", [
        "MERGE INTO users u USING (VALUES (5, 'x')) v (id, x) ON u.id = v.id WHEN MATCHED THEN UPDATE SET name = x WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, x)"]),
    ("... of any other table, query, `VALUES` or function, where `ON` says `key = column of the source`, and rows it adds get that", "the source's rows"
     " go to the shards of their keys", [
         "MERGE INTO users u USING orders o ON o.id = u.id WHEN MATCHED THEN UPDATE SET num = 1",
         "MERGE INTO users u USING (VALUES (1, 'm'), (700, 'n'), (701, 'o'), (702, 'p')) v (id, x) ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, x)"]),
    ("... where the source has columns of a type that users made", "", [
        "MERGE INTO users u USING (SELECT id + 1 AS id, mood FROM users) x ON u.id = x.id WHEN MATCHED THEN UPDATE SET mood = x.mood"]),
    ("... without such a key, with other keys for rows it adds, with subqueries in what it does, of a source whose columns have collations of their own", "", [
        "MERGE INTO users u USING orders o ON o.id = u.num WHEN MATCHED THEN UPDATE SET num = 1"]),
    ("a change of a reference table", "", ["UPDATE countries SET area = area + 1"]),
    ("`UPDATE`, `DELETE` of one with values that differ from shard to shard", "", ["UPDATE countries SET area = random()"]),
    ("`INSERT` into one from sharded or unsharded tables", "", ["INSERT INTO countries (code, name) SELECT 'z' || id, name FROM users WHERE id < 4"]),
    ("`INSERT` into one with values like `random()`, `now()`, and `VALUES` with such defaults, `serial` and identity columns among them",
     "on every shard: computed once, the same for all copies", []),
    ("other changes of one from unsharded tables, or together with sharded ones", "refused", []),
]

TABLES = {"select": SELECTS, "change": CHANGES}
GEARS = [("direct to", "direct"), ("scatter-merge over", "merged"), ("scatter write to", "on each shard"),
         ("same on", "on every shard"), ("rows from shard to shard", "rows between shards"), ("gather on", "gathered")]


def number_of(message):
    """Of the page's messages the one that says most of this; None: it has none."""
    found = [(len(pattern.replace("*", "")), number) for number in listed() for pattern in patterns(number)
             if fits(message, pattern)]
    return max(found)[1] if found else None


def gear(app, sql):
    """What becomes of the statement, in the page's words."""
    app.ask(query("BEGIN"))
    answer = Answer(app.ask(query(sql)))
    app.ask(query("ROLLBACK"))
    if answer.error:
        assert "H" in answer.error, (sql[:200], answer.error)
        number = number_of(answer.error["M"])
        assert number, f"the page does not have: {answer.error['M']}"
        return f"refused ({number})"
    line = Answer(app.ask(query("EXPLAIN " + sql))).rows[0][0].decode()
    for words, name in GEARS:
        if line.startswith("pgshunt: " + words):
            break
    else:
        raise AssertionError((sql, line))
    reason = re.match(r"pgshunt: gather on \w+ \((?:replica|primary): [^;]*; (.*)\)$", line)
    number = number_of(reason[1]) if reason else None
    return f"{name} ({number})" if number else name


def row(app, shape, remark, statements):
    gears = []
    for sql in statements:
        found = gear(app, sql)
        if found not in gears:
            gears.append(found)
    return f"| {cell(shape)} | {', '.join(gears)}{': ' if gears and remark else ''}{remark} |"


def mark(name):
    return f"<!-- shapes of a {name}, made by `make sql-support`: what is between these lines is overwritten -->"


END = "<!-- end of the shapes -->"


def shape_table(app, name):
    return "\n".join([mark(name), "| shape | |", "|---|---|", *(row(app, *shape) for shape in TABLES[name]), END])


def shape_table_of_page(name):
    text = page()
    begin = text.index(mark(name))
    return text[begin:text.index(END, begin) + len(END)]
