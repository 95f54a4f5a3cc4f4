"""Where in the client's own text an error is, for PREPARE and EXECUTE: what one Postgres says, though servers get other names."""
from contextlib import closing

import pytest
from harness import Cluster, Proxy
from support import Raw, error_of, query
from test_same_as_postgres import Direct

pytestmark = pytest.mark.core

SCRIPTS = [
    ["PREPARE p AS SELECT nothing"],
    ["  /* é */ PREPARE   p\n(int)  AS  SELECT $1, nothing"],
    ["PREPARE p (nosuch) AS SELECT $1"],
    ["PREPARE p (int) AS SELECT $1", "EXECUTE p ('x')"],
    ["PREPARE p (int) AS SELECT $1", "/* é */ EXECUTE\n p ( nothing + 1 ) "],
    ["PREPARE p (int, text) AS SELECT $1, $2", "EXECUTE p (1, 'ä' || nothing)"],
    ['PREPARE "ein Öl" (int) AS SELECT $1', """EXECUTE "ein Öl" ('x')"""],
    ['PREPARE "a ""name"", longer than any that a server has for the very same statement" (int) AS SELECT $1',
     """EXECUTE "a ""name"", longer than any that a server has for the very same statement" ('x')"""],
    ["PREPARE p (int) AS SELECT $1", "PREPARE q (int) AS SELECT $1 + 1", "EXECUTE p (1); EXECUTE q (nothing)"],
    ["PREPARE p (int) AS SELECT $1", "PREPARE q (int) AS SELECT $1 + 1", "EXECUTE p (nothing); EXECUTE q (1)"],
    ["PREPARE p (int) AS SELECT $1", "SELECT 1; EXECUTE p ('x'); SELECT nothing"],
    ["PREPARE p (int) AS SELECT $1", "EXPLAIN EXECUTE p ('x')"],
    ["PREPARE p (int) AS SELECT $1 AS a", "CREATE TEMP TABLE t AS EXECUTE p ('x')"],
    ["PREPARE p (int) AS SELECT 1 / $1", "EXECUTE p (0)"],
]


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0) as cluster:
        yield cluster


def last(side, script):
    for sql in script[:-1]:
        side.ask(query(sql))
    return error_of(side.ask(query(script[-1])))


def compare(cluster, proxy, database, known):
    for script in SCRIPTS:
        with closing(Raw(proxy, database=database)) as app, \
                closing(Raw(Direct(cluster.shards[0].primary), database="app")) as one:
            found, wanted = last(app, script), last(one, script)
            assert found["C"] == wanted["C"], script
            assert found["M"] == wanted["M"], script
            assert found.get("P") == wanted.get("P") or (not known and "P" not in found), (script, found, wanted)


def test_on_one_shard(cluster):
    plain = {"name": "plain", "shards": [dict(shard) for shard in cluster.shard_config()[:1]]}
    with Proxy(cluster, databases=[plain]) as proxy:
        proxy.wait_nodes()
        compare(cluster, proxy, "plain", True)


def test_on_several(cluster):
    """Where the statement is routed by its values, in their place, no position is told rather than a wrong one."""
    with Proxy(cluster) as proxy:
        proxy.wait_nodes()
        compare(cluster, proxy, "app", False)
