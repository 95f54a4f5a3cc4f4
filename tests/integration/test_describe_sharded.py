"""Describe of what several shards answer: the client sees the shape of its own text, not of what shards are asked."""
import pytest
from support import SYNC, Raw, bind, describe, execute, parse

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
