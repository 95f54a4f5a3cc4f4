"""EXPLAIN over several shards in JSON, YAML and XML: one row, one document that a parser takes, with every shard's plan."""
import json
import re
import xml.etree.ElementTree as ElementTree
from contextlib import closing

import pytest

from support import SYNC, Raw, bind, describe, execute, fetch, one, parse, query, refused, values

pytestmark = pytest.mark.core

STATEMENTS = ["SELECT * FROM users ORDER BY id LIMIT 3", "UPDATE users SET name = '<a> & \"b\"'", "DELETE FROM orders WHERE amount > 5",
              "INSERT INTO users (id, name) VALUES (901, 'a\b'), (902, 'c'), (903, 'd')", "UPDATE users SET id = id + 7000"]


@pytest.fixture
def app(data):
    with closing(data.connect()) as connection:
        yield connection


def shards_of(document):
    assert len(document) == 1 and all(isinstance(line, str) for line in document[0]["pgshunt"])
    return {shard["Shard"]: shard["Explain"] for shard in document[0]["Shards"]}


@pytest.mark.parametrize("sql", STATEMENTS)
def test_json(app, sql):
    """psycopg parses it by its type, as other drivers do."""
    rows = fetch(app, f"EXPLAIN (FORMAT JSON) {sql}")
    assert len(rows) == 1
    shards = shards_of(rows[0][0])
    assert set(shards) == {"s0", "s1"}
    assert all("Node Type" in plan[0]["Plan"] for plan in shards.values())


def test_json_of_what_was_run(app):
    shards = shards_of(one(app, "EXPLAIN (ANALYZE, FORMAT JSON, COSTS OFF) SELECT * FROM users"))
    assert sum(plan[0]["Plan"]["Actual Rows"] for plan in shards.values()) == 200
    app.autocommit = False
    one(app, "EXPLAIN (ANALYZE, FORMAT JSON) DELETE FROM orders")
    assert one(app, "SELECT count(*) FROM orders") == 0
    app.rollback()
    app.autocommit = True


def test_json_of_one_shard_and_of_a_gather(app):
    for sql in ("SELECT * FROM users WHERE id = 1", "SELECT rank() OVER (ORDER BY id) FROM users"):
        assert "Plan" in one(app, f"EXPLAIN (FORMAT JSON) {sql}")[0]


def test_through_the_extended_protocol(data):
    with Raw(data) as raw:
        for late in (False, True):
            head = (parse("e", "EXPLAIN (FORMAT JSON) SELECT * FROM users"), describe("S", "e")) if late else (
                parse("e", "EXPLAIN (FORMAT JSON) SELECT * FROM users"),)
            if late:
                raw.ask(*head, SYNC)
                head = ()
            messages = raw.ask(*head, bind("", "e"), describe("P", ""), execute(), SYNC)
            rows = [body for kind, body in messages if kind == "D"]
            assert len(rows) == 1 and set(shards_of(json.loads(values(rows[0])[0]))) == {"s0", "s1"}
            raw.ask(query("DEALLOCATE e"))


def test_xml(app):
    rows = fetch(app, "EXPLAIN (FORMAT XML) UPDATE users SET name = '<a> & \"b\"'")
    assert len(rows) == 1
    root = ElementTree.fromstring(rows[0][0])
    assert [shard.get("name") for shard in root.findall("shard")] == ["s0", "s1"]
    assert all(shard[0].tag.endswith("}explain") for shard in root.findall("shard"))
    assert any("<a> & \"b\"" in line.text for line in root.findall("line"))


def test_yaml(app):
    rows = fetch(app, "EXPLAIN (FORMAT YAML, COSTS OFF) SELECT * FROM users ORDER BY id")
    assert len(rows) == 1
    try:
        import yaml
    except ImportError:
        lines = rows[0][0].splitlines()
        assert [line for line in lines if "Shard:" in line] == ['    - Shard: "s0"', '    - Shard: "s1"']
        assert lines.count("        - Plan: ") == 2
        return
    document = yaml.safe_load(rows[0][0])
    assert [shard["Shard"] for shard in document[0]["Shards"]] == ["s0", "s1"]
    assert all("Node Type" in shard["Explain"][0]["Plan"] for shard in document[0]["Shards"])


def test_text_said_and_unsaid_is_the_same(app):
    plain = fetch(app, "EXPLAIN (COSTS OFF) SELECT * FROM users ORDER BY id")
    assert plain[0][0].startswith("pgshunt: scatter-merge")
    said = fetch(app, "EXPLAIN (FORMAT TEXT, COSTS OFF) SELECT * FROM users ORDER BY id")
    assert [(line.replace("FORMAT TEXT, ", ""),) for line, in said] == plain


def test_no_format(app):
    with refused("22023", hint=False):
        fetch(app, "EXPLAIN (FORMAT 'JSON') SELECT * FROM users WHERE id = 1")
    with refused("22023", hint=False):
        fetch(app, "EXPLAIN (FORMAT html) SELECT * FROM users")


# ---- several, and what was run ----

def shape(line):
    """Where a query is gathered, and what is sent there, is the batch's business, too."""
    return re.sub(rb"\bs[01]\b|\(.*|\d+", b"", line)


KINDS = ["SELECT name FROM users WHERE id = 1", "SELECT name FROM users WHERE id = 2", "SELECT * FROM users ORDER BY id",
         "SELECT rank() OVER (ORDER BY id) FROM users", "SELECT * FROM notes", "SELECT name FROM users WHERE id = 3"]


@pytest.mark.parametrize("block", [False, True])
def test_several_in_one_batch(data, block):
    """Each has the lines of its own plan ahead of it, as when it is alone."""
    with Raw(data) as raw:
        def asked(sql):
            return parse("", f"EXPLAIN (COSTS OFF) {sql}") + bind("", "") + describe("P", "") + execute()

        def lines(messages):
            return [values(body)[0] for kind, body in messages if kind == "D"]

        if block:
            raw.ask(query("BEGIN"))
        alone = [lines(raw.ask(asked(sql), SYNC)) for sql in KINDS]
        assert all(one_plan[0].startswith(b"pgshunt: ") for one_plan in alone)
        together = raw.ask(b"".join(map(asked, KINDS)), SYNC)
        assert [shape(line) for line in lines(together)] == [shape(line) for one_plan in alone for line in one_plan]


def test_a_gather_tells_what_came_from_where(app):
    rows = [row[0] for row in fetch(app, "EXPLAIN (ANALYZE, COSTS OFF) SELECT rank() OVER (ORDER BY id) FROM users")]
    came = [line for line in rows if line.startswith("  rows from s")]
    assert len(came) == 1 and came[0].endswith(" ms") and 0 < int(came[0].split()[3]) < 200
    assert not [row for row in fetch(app, "EXPLAIN SELECT rank() OVER (ORDER BY id) FROM users") if "rows from" in row[0]]
