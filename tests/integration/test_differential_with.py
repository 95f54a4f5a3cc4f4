"""Changes in WITH over three shards: as one Postgres answers and changes, or refused."""
from contextlib import closing

import pytest
from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Answer, Both, difference, shards_and_one
from differential_with import CHANGES, REFUSED
from support import SYNC, bind, execute, kinds, parse, query
from test_differential import change

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


@pytest.mark.parametrize("sql", CHANGES)
def test_as_one_postgres(both, sql):
    assert change(both, sql)


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(both, sql):
    refusals = {}
    change(both, sql, refusals)
    assert refusals


def test_outside_of_a_block(both):
    """One transaction on all shards, also where it fails in the middle."""
    for sql in ("WITH made AS (INSERT INTO empties VALUES (901, 1), (902, 2), (903, 3), (904, 4) RETURNING *) SELECT count(*) FROM made",
                "WITH made AS (INSERT INTO empties VALUES (905, 1), (906, 2), (907, 3), (901, 4) RETURNING *) SELECT count(*) FROM made",
                "WITH gone AS (DELETE FROM empties RETURNING *) SELECT v, 1 / (v - 3) FROM gone",
                "WITH gone AS (DELETE FROM empties WHERE id = 901 RETURNING id), more AS (INSERT INTO empties VALUES (910, 1), (911, 2), (912, 3)) "
                "UPDATE users SET num = 1 / (id - 7) WHERE id < 9",
                "WITH gone AS (DELETE FROM empties RETURNING *) SELECT id, v FROM gone ORDER BY id DESC"):
        found, wanted = both.simple(sql)
        wrong = difference(found, wanted, None)
        assert not wrong, f"{sql}\n{wrong}"
        both.check("SELECT * FROM empties ORDER BY id", True)


def test_with_parameters(both):
    both.run("BEGIN")
    for sql, values in (
            ("WITH gone AS (DELETE FROM orders WHERE qty = $2 RETURNING *) SELECT count(*), $1::text FROM gone WHERE id > $3", (b"x", b"2", b"50")),
            ("WITH gone AS (DELETE FROM orders WHERE qty = $1 RETURNING *) SELECT id FROM gone ORDER BY id", (b"3",)),
            ("WITH made AS (INSERT INTO empties VALUES ($1, $3), ($2, $3), (903, $4) RETURNING *) SELECT id, v FROM made ORDER BY id",
             (b"901", b"902", b"7", b"8")),
            ("WITH gone AS (DELETE FROM items WHERE qty < $2 RETURNING *) INSERT INTO empties SELECT line + 2000, $1 FROM gone RETURNING id, v",
             (b"5", b"2")),
            ("WITH gone AS (DELETE FROM users WHERE num > $3 RETURNING id), also AS (DELETE FROM orders USING gone WHERE user_id = gone.id AND qty < $2), "
             "here AS (UPDATE items SET qty = $4 WHERE user_id = $1) SELECT id, $4::text FROM gone ORDER BY id", (b"5", b"4", b"7", b"3")),
            ("WITH gone AS (DELETE FROM users WHERE id = $2 RETURNING id) UPDATE orders SET item = $1 FROM gone WHERE user_id = gone.id "
             "AND qty < $3", (b"x", b"12", b"9"))):
        found, wanted = both.extended(sql, values)
        wrong = difference(found, wanted, None)
        assert not wrong, f"{sql}\n{wrong}"
    for look in ("empties ORDER BY id", "users ORDER BY id", "orders ORDER BY user_id, id", "items ORDER BY user_id, order_id, line"):
        both.check(f"SELECT * FROM {look}", True)
    both.run("ROLLBACK")


def test_in_parts(both):
    """Fetched in parts: the change is made once, and whole."""
    sql = "WITH gone AS (DELETE FROM orders WHERE qty = 2 RETURNING *) SELECT id FROM gone ORDER BY id"
    answers = []
    for side in (both.app, both.one):
        side.ask(query("BEGIN"))
        found = [side.ask(parse("", sql), bind("p", ""), execute("p", 3), SYNC)]
        found += [side.ask(execute("p", 4), SYNC), side.ask(query("SELECT count(*) FROM orders")), side.ask(execute("p"), SYNC)]
        answers.append([[(kind, body) for kind, body in part if kind in "DCs"] for part in found])
        assert "E" not in "".join(map(kinds, found))
        side.ask(query("ROLLBACK"))
    assert answers[0] == answers[1]


def test_explained(both):
    found = Answer(both.app.ask(query("EXPLAIN (COSTS off) WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone")))
    text = "\n".join(row[0].decode() for row in found.rows)
    assert "what gone returns is merged" in text and text.count("Delete on orders") == 3
