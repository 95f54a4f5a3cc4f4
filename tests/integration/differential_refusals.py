"""What docs/reference/sql-support.md lists by number, each with a statement that meets it.

A number stands for a message. A statement of it is either refused with that message, the SQLSTATE that the page says
(0A000 where it says none) and a hint; or it is gathered, and EXPLAIN gives the message as the reason.
"""
import fnmatch
import os
import re

from differential import PAGE, Answer
from support import query

REFUSALS = {
    1: ["SELECT id FROM users ORDER BY nick", "SELECT id FROM users ORDER BY name COLLATE \"de-x-icu\""],
    2: ["SELECT id FROM users ORDER BY id USING >"],
    3: ["SELECT id FROM users ORDER BY id LIMIT (SELECT 2)"],
    4: ["SELECT num FROM users ORDER BY num FETCH FIRST 2 ROWS WITH TIES"],
    5: ["SELECT DISTINCT name::varchar(4) FROM users ORDER BY name::varchar(4)"],
    6: ["SELECT DISTINCT ON (country) country, id FROM users ORDER BY country, id"],
    7: ["SELECT sum(DISTINCT balance) FROM users"],
    8: ["SELECT string_agg(name, ',' ORDER BY id) FROM users"],
    9: ["SELECT count(*) + 1 FROM users"],
    10: ["SELECT country FROM users GROUP BY country HAVING count(*) > 2"],
    11: ["SELECT country, count(*) FROM users GROUP BY ROLLUP (country)"],
    12: ["SELECT DISTINCT count(*) FROM users"],
    14: ["SELECT rank() OVER (ORDER BY id) FROM users"],
    15: ["SELECT u.id FROM users u JOIN orders o ON o.id = u.id"],
    16: ["SELECT u.id FROM users u JOIN notes n ON n.id = u.id"],
    17: ["SELECT id FROM users WHERE num = (SELECT max(qty) FROM orders)"],
    18: ["SELECT count(*) FROM (SELECT id FROM users LIMIT 5) x"],
    19: ["WITH x AS (SELECT id FROM users) SELECT count(*) FROM x"],
    20: ["SELECT id FROM users UNION SELECT user_id FROM orders"],
    21: ["SELECT id FROM users ORDER BY id LIMIT 3 FOR UPDATE", "DECLARE c CURSOR FOR SELECT id FROM users FOR SHARE"],
    22: ["SELECT count(*) FROM users TABLESAMPLE SYSTEM (100)"],
    24: ["SELECT DISTINCT tags FROM users"],
    25: ["SELECT id FROM users WHERE " + " OR ".join(f"id IN (SELECT user_id FROM orders WHERE id = {n})" for n in range(60)),
         "SELECT " + ", ".join(["id"] * 1665) + " FROM users"],
    26: ["INSERT INTO users (name) VALUES ('x')"],
    27: ["INSERT INTO users (id, name) VALUES (NULL, 'x')"],
    28: ["EXPLAIN ANALYZE INSERT INTO users (id, name) VALUES ((SELECT 901), 'x')"],
    29: ["EXPLAIN ANALYZE INSERT INTO users (id, name) VALUES (903, (SELECT max(item) FROM orders)), (904, 'y')"],
    32: ["WITH x AS (UPDATE users SET num = 1 RETURNING id) SELECT count(*) + 1 FROM x"],
    31: ["UPDATE users u SET num = 1 FROM orders o WHERE o.id = u.id RETURNING o.id",
         "UPDATE users SET (num, small) = (SELECT count(*), 1 FROM orders)"],
    33: ["INSERT INTO users (id, name) VALUES (1, 'x'), (2, 'y') ON CONFLICT (id) DO UPDATE SET id = 3"],
    34: ["MERGE INTO users u USING orders o ON o.id = u.num WHEN MATCHED THEN UPDATE SET num = 1"],
    35: ["UPDATE countries SET area = random()"],
    36: ["TRUNCATE orders, notes"],
    37: ["ALTER TABLE orders ADD FOREIGN KEY (qty) REFERENCES notes (id)"],
    38: ["ALTER TABLE notes ADD FOREIGN KEY (user_id) REFERENCES users (id)"],
    39: ["CREATE MATERIALIZED VIEW made AS SELECT country, count(DISTINCT name) FROM users GROUP BY country"],
    64: ["ALTER TABLE orders ADD FOREIGN KEY (qty) REFERENCES users (id)"],
    40: ["COPY users FROM '/tmp/nothing'"],
    42: ["DECLARE c CURSOR WITH HOLD FOR SELECT id FROM users", "DECLARE c SCROLL CURSOR FOR SELECT id FROM users"],
    46: ["SELEC * FROM users"],
    61: ["INSERT INTO users (id, name) VALUES (903.4, 'a')"],
    71: ["UPDATE users SET mood = (SELECT max(mood) FROM users u2)"],
    73: ["MERGE INTO users u USING (SELECT id + 1 AS id, mood FROM users) x ON u.id = x.id WHEN MATCHED THEN UPDATE SET mood = x.mood"],
    51: ["CREATE TEMP VIEW mine AS SELECT * FROM users"],
    74: ["EXPLAIN CREATE TABLE empties AS SELECT * FROM users"],
    75: ["CREATE TABLE made /* pgshunt: shard by id */ AS SELECT id FROM users"],
}

# What takes more than a statement: the tests that meet it, which have its words.
ELSEWHERE = {
    13: ("../unit/plan_shape_cases.h", "may be an aggregate"),
    23: ("test_differential_views.py", "is a view of tables on several shards"),
    30: ("differential_statements.py", "INSERT INTO users (id, name) SELECT id + 2000.4, name FROM users"),
    41: ("test_copy_sharded.py", "ENCODING 'SJIS'"),
    43: ("test_fanout_cursors.py", "test_an_explanation_in_parts_is_refused"),
    47: ("../unit/plan_write_cases.h", "PREPARE q AS SELECT * FROM users"),
    48: ("../unit/test_plan_session.c", "foreign_encoding"),
    49: ("test_differential_views.py", "of a type with another number on each shard"),
    50: ("test_finding_keys.py", "require_key"),
    52: ("test_differential_views.py", "does not show the shard key of its table"),
    53: ("test_differential_views.py", "shows the shard key of its table twice"),
    54: ("test_differential_views.py", "which has row-level policies"),
    57: ("test_composite_keys.py", "a column of the shard key"),
    55: ("test_schemas.py", "test_writes_of_several_schemas"),
    62: ("test_sharded_changes.py", "inheritance children"),
    63: ("test_sharded_changes.py", "trigger"),
    72: ("test_sharded_changes.py", "40001"),
}


def page():
    with open(PAGE) as file:
        return file.read()


def listed():
    """The numbers of the page's messages: {number: (SQLSTATE, text)}."""
    found = {}
    messages = page()[page().index("## Messages"):]
    for number, text in re.findall(r"^(\d+)\. (.*(?:\n {2,}.*)*)", messages, re.M):
        state = re.match(r"([0-9A-Z]{5}): ", text)
        if "(no longer)" not in text:
            found[int(number)] = (state[1] if state else "0A000", text)
    return found


def used():
    """The numbers that the page's tables lead to."""
    tables = page()[:page().index("## Messages")]
    return {int(number) for number in re.findall(r"(?:refused|gathered|supported[^|]*) \((\d{1,2})\)", tables)}


def patterns(number):
    flat = re.sub(r"\s+", " ", listed()[number][1])
    return [re.sub(r"([\[\]?])", r"[\1]", quoted).replace("...", "*") for quoted in re.findall(r"`([^`]+)`", flat)]


def fits(text, pattern):
    """Whether it is this message: names of others stand for those on the page."""
    return fnmatch.fnmatchcase(text.lower(), re.sub(r'"[^"*]*"', '"*"', pattern).lower() + "*")


def is_said(text, number):
    return any(fits(text, pattern) for pattern in patterns(number))


def meets(app, number, sql):
    """What is wrong with the answer to the statement; None: nothing."""
    answer = Answer(app.ask(query(sql)))
    if answer.error:
        state, error = listed()[number][0], answer.error
        fine = error["C"] == state and "H" in error and is_said(error["M"], number)
        return None if fine else error
    lines = [row[0].decode() for row in Answer(app.ask(query("EXPLAIN " + sql))).rows]
    reason = re.match(r"pgshunt: gather on \w+ \((?:replica|primary): [^;]*; (.*)\)$", lines[0]) if lines else None
    return None if reason and is_said(reason[1], number) else lines[:3]


# ---- the table of the page that these make ----

BEGIN, END = "<!-- made by `make sql-support`: what is between these lines is overwritten -->", "<!-- end of what is made -->"


def cell(text):
    return text.replace("|", "\\|")


def shortened(sql):
    return sql if len(sql) <= 110 else sql[:70] + " ... " + sql[-20:]


def answer_line(app, number, sql):
    """A row of the table: the statement and what really comes of it."""
    app.ask(query("BEGIN"))
    answer = Answer(app.ask(query(sql)))
    app.ask(query("ROLLBACK"))
    app.ask(query("BEGIN"))
    lines = [] if answer.error else [row[0].decode() for row in Answer(app.ask(query("EXPLAIN " + sql))).rows]
    app.ask(query("ROLLBACK"))
    if answer.error:
        words = f"{answer.error['C']}: {answer.error['M']}"
    else:
        words = "gathered: " + re.match(r"pgshunt: gather on \w+ \((?:replica|primary): [^;]*; (.*)\)$", lines[0])[1]
    return f"| {number} | `{cell(shortened(sql))}` | {cell(words)} |"


def table(app):
    rows = [answer_line(app, number, sql) for number in sorted(REFUSALS) for sql in REFUSALS[number]]
    return "\n".join([BEGIN, "| | statement | answer |", "|---|---|---|", *rows, END])


def table_of_page():
    text = page()
    return text[text.index(BEGIN):text.index(END) + len(END)]


def write_table(made, before):
    text = page().replace(before, made)
    with open(PAGE, "w") as file:
        file.write(text)


def elsewhere(number):
    """Whether the test that the number is met by is there."""
    file, words = ELSEWHERE[number]
    with open(os.path.join(os.path.dirname(__file__), file)) as text:
        return words in text.read()
