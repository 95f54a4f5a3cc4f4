"""What other sharding proxies have answered wrongly: each trap by name, against one Postgres with the same rows."""
from contextlib import closing

import pytest

from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Both, difference, shards_and_one

pytestmark = [pytest.mark.core, pytest.mark.slow]
INT8 = 20

TRAPS = {
    "HAVING": "SELECT country, count(*) FROM users GROUP BY country HAVING count(*) > 8 ORDER BY country",
    "GROUP BY an expression": "SELECT id % 4, sum(num) FROM users GROUP BY id % 4 ORDER BY id % 4",
    "ORDER BY a column not returned": "SELECT name FROM users ORDER BY num DESC NULLS LAST, id LIMIT 9",
    "GROUP BY a column not returned": "SELECT count(*) FROM users GROUP BY country ORDER BY country",
    "NULLS FIRST": "SELECT id, num FROM users ORDER BY num NULLS FIRST, id",
    "NULLS LAST": "SELECT id, num FROM users ORDER BY num DESC NULLS LAST, id",
    "window functions": "SELECT id, rank() OVER (ORDER BY num, id) FROM users ORDER BY id",
    "UNION without a key": "SELECT country FROM users UNION SELECT item FROM orders ORDER BY 1",
    "an expression around an aggregate": "SELECT 1 + count(*) FROM users",
    "IN with keys of several shards": "SELECT id FROM users WHERE id IN (1, 2, 3, 4, 5, 6, 7) ORDER BY id",
    "a subquery": "SELECT id FROM users WHERE num = (SELECT max(num) FROM users) ORDER BY id",
    "a CTE": "WITH x AS (SELECT max(num) AS m FROM users) SELECT id FROM users, x WHERE num = m ORDER BY id",
    "OFFSET": "SELECT id FROM users ORDER BY id LIMIT 5 OFFSET 20",
}


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


@pytest.mark.parametrize("name", TRAPS)
def test_answered_rightly(both, name):
    assert both.check(TRAPS[name], "ORDER BY" in TRAPS[name].split(")")[-1])


@pytest.mark.parametrize("sql, parameters, types", [
    ("SELECT id, name FROM users WHERE id = $1", (b"5",), ()),
    ("SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2 OFFSET $3", (b"5", b"4", b"2"), (INT8, INT8, INT8)),
    ("SELECT country, count(*) FROM users WHERE id < $1 GROUP BY country HAVING count(*) > $2 ORDER BY 1", (b"50", b"2"), ()),
])
def test_describe_before_bind(both, sql, parameters, types):
    app, one = both.prepared_late(sql, parameters, types)
    assert app[:2][0] == one[:2][0] and app[1] == one[1]
    for found, wanted in zip(app[2], one[2]):
        assert found.rows == wanted.rows and found.tags == wanted.tags and not found.error


def test_multi_row_insert_through_a_prepared_statement(both):
    both.run("BEGIN")
    app, one = both.prepared_late("INSERT INTO empties (id, v) VALUES ($1, 1), ($2, 2), ($3, 3), ($4, 4) ON CONFLICT DO NOTHING",
                                  (b"1", b"2", b"3", b"4"))
    assert app[0] == one[0]
    assert [answer.tags for answer in app[2]] == [answer.tags for answer in one[2]] == [["INSERT 0 4"], ["INSERT 0 0"]]
    both.check("SELECT * FROM empties ORDER BY id", True)
    both.run("ROLLBACK")


def test_prepare_with_offset(both):
    both.run("PREPARE p (int, int) AS SELECT id FROM users ORDER BY id LIMIT $1 OFFSET $2")
    for limit, offset in ((3, 0), (3, 17), (5, 58)):
        found, wanted = both.simple(f"EXECUTE p ({limit}, {offset})")
        assert not difference(found, wanted, True)
        assert len(found.rows) == min(limit, 60 - offset)


def test_commit_after_an_error_on_one_shard_keeps_nothing(both):
    both.run("BEGIN")
    both.run("INSERT INTO empties (id, v) VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)")
    for answer in both.simple("INSERT INTO empties (id, v) VALUES (3, 3)"):
        assert answer.error["C"] == "23505"
    for answer in both.simple("COMMIT"):
        assert answer.tags == ["ROLLBACK"] and answer.status == "I"
    both.check("SELECT count(*) FROM empties", None)
