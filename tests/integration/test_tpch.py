"""TPC-H over three shards, split by customer: all 22 queries are answered as by one Postgres."""
from contextlib import closing

import pytest

import tpch
from harness import Cluster, Proxy
from support import explain, semijoins

pytestmark = [pytest.mark.core, pytest.mark.slow]


@pytest.fixture(scope="module")
def loaded():
    tables = tpch.rows()
    with Cluster(shards=3, replicas=0) as cluster:
        cluster.create_database("oracle")
        with Proxy(cluster, keyspaces=tpch.KEYSPACES, reference=tpch.REFERENCE) as proxy:
            proxy.wait_nodes()
            with closing(proxy.connect()) as app, closing(cluster.shards[0].primary.connect("oracle")) as one:
                one.autocommit = True
                for side in (app, one):
                    for statement in tpch.SCHEMA:
                        side.cursor().execute(statement)
                    tpch.load(side, tables)
                yield app, one, cluster


@pytest.fixture(scope="module")
def reducing(loaded):
    """A proxy that leaves out rows which join nothing, however few there are."""
    _, one, cluster = loaded
    with Proxy(cluster, keyspaces=tpch.KEYSPACES, reference=tpch.REFERENCE, options={"routing": {"semi_join_factor": 0}}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as app:
            app.autocommit = True
            yield app, one


@pytest.fixture
def sides(loaded):
    return loaded[:2]


def answer(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [(column.name, column.type_code) for column in cursor.description], cursor.fetchall()


def test_rows_are_where_they_belong(sides):
    app, one = sides
    for table in ("customer", "orders", "lineitem", "part", "partsupp"):
        assert answer(app, f"SELECT count(*) FROM {table}") == answer(one, f"SELECT count(*) FROM {table}")
    assert answer(app, "SELECT count(*) FROM lineitem /* pgshunt: shard=s1 */")[1][0][0] > 1000


@pytest.mark.parametrize("number", sorted(tpch.QUERIES))
def test_query(sides, number):
    app, one = sides
    columns, rows = answer(one, tpch.QUERIES[number])
    assert rows and rows[0] != (None,), "a query that finds nothing shows nothing"
    assert answer(app, tpch.QUERIES[number]) == (columns, rows)


@pytest.mark.parametrize("number", sorted(tpch.QUERIES))
def test_query_with_semijoins(reducing, number):
    app, one = reducing
    assert answer(app, tpch.QUERIES[number]) == answer(one, tpch.QUERIES[number])


def test_semijoins_leave_rows_out(reducing):
    assert len([number for number in tpch.QUERIES if semijoins(reducing[0], tpch.QUERIES[number])[0]]) >= 8


@pytest.mark.parametrize("number", sorted(tpch.COLOCATED))
def test_query_joined_by_customer_needs_no_gathering(sides, number):
    app, one = sides
    assert "pgshunt: scatter-merge over s0, s1, s2" in explain(app, tpch.COLOCATED[number])
    assert answer(app, tpch.COLOCATED[number]) == answer(one, tpch.QUERIES[number])


def test_query_15_with_its_view(sides):
    app, one = sides
    for side in sides:
        side.cursor().execute(tpch.REVENUE)
    try:
        assert answer(app, tpch.OF_VIEW) == answer(one, tpch.OF_VIEW) == answer(one, tpch.QUERIES[15])
    finally:
        for side in sides:
            side.cursor().execute("DROP VIEW revenue0")


def test_queries_in_a_transaction_see_its_changes(sides):
    app, one = sides
    for side in sides:
        cursor = side.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE lineitem SET l_discount = 0.06 WHERE l_linenumber = 2")
        cursor.execute("DELETE FROM lineitem WHERE l_linenumber = 3")
    try:
        for number in (1, 5, 9, 15, 18):
            assert answer(app, tpch.QUERIES[number]) == answer(one, tpch.QUERIES[number])
    finally:
        for side in sides:
            side.cursor().execute("ROLLBACK")
