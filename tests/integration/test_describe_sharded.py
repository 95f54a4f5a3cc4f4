"""Describe of what several shards answer: the client sees the shape of its own text, not of what shards are asked."""
import pytest
from support import FLUSH, SYNC, Raw, bind, close, describe, execute, parse, query
from test_same_as_postgres import Direct

pytestmark = pytest.mark.core

REWRITTEN = [
    "SELECT id FROM users ORDER BY name",
    "SELECT name FROM users ORDER BY lower(name), id LIMIT 3",
    "SELECT avg(balance) AS mean FROM users",
    "SELECT count(*), sum(balance), min(name) FROM users",
    "SELECT country, avg(balance) FROM users GROUP BY country ORDER BY count(*), country",
    "SELECT * FROM users ORDER BY lower(name) LIMIT 2",
    "SELECT DISTINCT country FROM users",
]


def shape(body):
    """Names, types and formats of a RowDescription."""
    columns, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        columns.append((body[at:end].decode(), int.from_bytes(body[end + 7:end + 11], "big")))
        at = end + 19
    return columns


@pytest.mark.parametrize("sql", REWRITTEN)
def test_shape(data, proxy, sql):
    with Raw(proxy, database="app") as raw:
        raw.send(parse("s", sql) + describe("S", "s") + SYNC)
        told = [shape(body) for kind, body in raw.until_ready() if kind == "T"]
        raw.send(bind("", "s") + describe("P", "") + execute("") + SYNC)
        answer = raw.until_ready()
    found = [shape(body) for kind, body in answer if kind == "T"]
    rows = [body for kind, body in answer if kind == "D"]
    assert told == found and len(told) == 1, answer
    assert rows and all(int.from_bytes(row[:2], "big") == len(found[0]) for row in rows)


def formats(body):
    columns, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        end = body.index(b"\0", at)
        columns.append(int.from_bytes(body[end + 17:end + 19], "big"))
        at = end + 19
    return columns


def told(raw, count):
    """The next messages, with what a description says of columns, but for the tables' own numbers."""
    found = []
    for _ in range(count):
        kind, body = raw.read()
        found.append((kind, shape(body), formats(body)) if kind == "T" else (kind, body))
    return found


PORTALS = [
    *[(sql, (), codes) for sql in REWRITTEN for codes in ((), (1,))],
    ("SELECT id, name FROM users WHERE name > $1 ORDER BY lower(name)", (b"a",), (1, 0)),
    ("SELECT country, avg(balance) FROM users WHERE id > $1 GROUP BY country", (b"3",), (0, 1)),
    ("UPDATE users SET name = name", (), ()),
    ("UPDATE users SET name = $1 WHERE name = $1", (b"user 0001",), (1,)),
    ("EXPLAIN SELECT id FROM users", (), ()),
]


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("end", [FLUSH, SYNC])
@pytest.mark.parametrize("sql, values, codes", PORTALS)
def test_portal_before_its_execution(cluster, data, proxy, sql, values, codes, end, block):
    """A client that waits for the description before it executes gets it, and once."""
    asked = parse("", sql) + bind("p", "", list(values), results=list(codes)) + describe("P", "p")
    answers = []
    for server in (Direct(cluster.shards[0].primary), proxy):
        with Raw(server, database="app") as raw:
            if block:
                raw.send(query("BEGIN"))
                raw.until_ready()
            raw.send(asked + end)
            answers.append(told(raw, 3 + (end == SYNC)))
            if end == SYNC and not block:
                continue
            raw.send(execute("p") + SYNC)
            kinds = [kind for kind, _ in raw.until_ready()]
            assert kinds[-2:] == ["C", "Z"] and set(kinds[:-2]) <= {"D"}, kinds
            assert ("D" in kinds) == (answers[-1][2][0] == "T")
            raw.send(query("ROLLBACK"))
            raw.until_ready()
    assert answers[1] == answers[0]


def test_portal_described_again_and_again(data, proxy):
    with Raw(proxy, database="app") as raw:
        both = describe("P", "") * 2
        raw.send(parse("", "SELECT id FROM users ORDER BY lower(name) LIMIT 2") + bind("", "") + both + execute("") + SYNC)
        assert [kind for kind, _ in raw.until_ready()] == ["1", "2", "T", "T", "D", "D", "C", "Z"]
        raw.send(bind("", "") + describe("P", "") + FLUSH)
        assert [found[0] for found in told(raw, 2)] == ["2", "T"]
        raw.send(close("P", "") + SYNC)
        assert [kind for kind, _ in raw.until_ready()] == ["3", "Z"]


def test_portal_of_what_no_server_takes(cluster, data, proxy):
    asked = parse("", "SELECT nothing FROM users ORDER BY lower(name)") + bind("", "") + describe("P", "") + FLUSH + SYNC
    with Raw(proxy, database="app") as raw:
        raw.send(asked)
        answer = raw.until_ready()
        assert [kind for kind, _ in answer][-2:] == ["E", "Z"] and b"42703" in answer[-2][1]
        raw.send(query("SELECT 1"))
        assert [kind for kind, _ in raw.until_ready()] == ["T", "D", "C", "Z"]
