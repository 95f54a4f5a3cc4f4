"""MERGE over three shards of rows that are elsewhere: as one Postgres answers and changes, or refused."""
from contextlib import closing

import pytest
from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Answer, Both, difference, shards_and_one
from differential_merge import CHANGES, REFUSED
from support import query
from test_differential import change, check_all

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


def changed(both, sql):
    """The same, and in the table that no other look shows."""
    assert change(both, sql), "refused"
    both.run("BEGIN")
    found, wanted = both.simple(sql)
    assert not difference(found, wanted, None)
    if not wanted.error:
        both.check("SELECT * FROM empties ORDER BY id", True)
    for side in (both.app, both.one):
        side.ask(query("ROLLBACK"))


def test_as_one_postgres(both):
    check_all(CHANGES, lambda sql: changed(both, sql))


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(both, sql):
    refusals = {}
    change(both, sql, refusals)
    assert refusals


def test_outside_of_a_block(both):
    """One transaction on all shards, also where it fails in the middle."""
    for sql in ("MERGE INTO empties e USING (SELECT id, qty FROM orders) o ON e.id = o.id WHEN MATCHED THEN DELETE "
                "WHEN NOT MATCHED THEN INSERT (id, v) VALUES (o.id, o.qty)",
                "MERGE INTO empties e USING (VALUES (1, 5), (2, 0), (3, 1)) v (id, x) ON e.id = v.id WHEN MATCHED THEN UPDATE SET v = 7 / x",
                "MERGE INTO empties e USING (SELECT id + 2 AS id FROM orders) o ON e.id = o.id WHEN MATCHED THEN DELETE",
                "DELETE FROM empties"):
        found, wanted = both.simple(sql)
        wrong = difference(found, wanted, None)
        assert not wrong, f"{sql}\n{wrong}"
        both.check("SELECT * FROM empties ORDER BY id", True)


INT8, TEXT, INT8S = 20, 25, 1016


def test_with_parameters(both):
    both.run("BEGIN")
    upsert = "WHEN MATCHED THEN UPDATE SET v = $2 WHEN NOT MATCHED THEN INSERT (id, v, t) VALUES (s.id, $2 + 1, s.t)"
    for sql, values, types in (
            (f"MERGE INTO empties e USING (SELECT $1::bigint AS id, $3 AS t) s ON e.id = s.id {upsert}", (b"901", b"7", b"x"), ()),
            (f"MERGE INTO empties e USING (SELECT $1::bigint AS id, $3 AS t) s ON e.id = s.id {upsert}", (b"901", b"8", b"x"), ()),
            (f"MERGE INTO empties e USING (VALUES ($1, $3), ($4, 'y')) s (id, t) ON s.id = e.id {upsert}", (b"901", b"3", b"x", b"902"),
             (INT8, 23, TEXT, INT8)),
            (f"MERGE INTO empties e USING (VALUES ($1, $3), ($4, 'y')) s (id, t) ON s.id::bigint = e.id "
             + upsert.replace("s.id", "s.id::bigint"), (b"907", b"3", b"x", b"908"), ()),
            (f"MERGE INTO empties e USING unnest($1, $3) AS s (id, t) ON e.id = s.id {upsert}",
             (b"{1,2,3,4,901}", b"5", b"{a,b,NULL,d}"), (INT8S, 23, 1009)),
            ("MERGE INTO users u USING (SELECT id, $2::text AS t FROM orders WHERE qty = $1) o ON u.id = o.id WHEN MATCHED AND u.num > $3 "
             "THEN UPDATE SET name = t || $4", (b"2", b"t", b"1", b"!"), ())):
        found, wanted = both.extended(sql, values, types)
        wrong = difference(found, wanted, None)
        assert not wrong, f"{sql}\n{wrong}"
        assert not wanted.error, wanted.error
        found = both.prepared_late(sql, values, types)
        both.check("SELECT * FROM empties ORDER BY id", True)
    both.check("SELECT id, name FROM users ORDER BY id", True)
    both.run("ROLLBACK")


def plan_of(both, sql):
    return "\n".join(row[0].decode() for row in Answer(both.app.ask(query(f"EXPLAIN (COSTS off) {sql}"))).rows)


def test_explained(both):
    """Keys that are in the text lead to one shard; else the source is read first."""
    insert = "ON v.id = u.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'x')"
    one = plan_of(both, f"MERGE INTO users u USING (VALUES (5), (5)) v (id) {insert}")
    assert "direct to" in one and one.count("Merge on users") == 1
    assert "direct to" in plan_of(both, "MERGE INTO staff s USING (SELECT 3 AS f, 4::bigint AS n) v ON s.firm = f AND s.nr = v.n WHEN MATCHED THEN DELETE")
    several = plan_of(both, "MERGE INTO users u USING orders v ON v.id = u.id WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, 'x')")
    assert "rows from shard to shard" in several and several.count("Scan on orders") == 3
    gathered = plan_of(both, f"MERGE INTO users u USING (SELECT max(id) AS id FROM orders) v {insert}")
    assert "rows from shard to shard" in gathered and "TEMPORARY TABLE" in gathered


def test_more_rows_than_a_statement_has_parameters_for(both):
    sql = "MERGE INTO empties e USING generate_series(1, 40000) AS g (id) ON e.id = g.id WHEN NOT MATCHED THEN INSERT (id) VALUES (g.id)"
    both.run("BEGIN")
    found, wanted = both.simple(sql)
    assert not difference(found, wanted, None)
    both.check("SELECT count(*), sum(id) FROM empties", True)
    both.run("ROLLBACK")
    found = Answer(both.app.ask(query(
        "MERGE INTO empties e USING (SELECT g AS id, 1 AS a, 2 AS b, 3 AS c, 4 AS d FROM generate_series(1, 60000) g) v ON e.id = v.id "
        "WHEN NOT MATCHED THEN INSERT (id, v) VALUES (v.id, a)")))
    assert found.error["C"] == "54000" and "Leave out columns" in found.error["H"]
    both.check("SELECT count(*) FROM empties", True)
