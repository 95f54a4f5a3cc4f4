"""What goes ahead of a client's statement (settings, BEGIN) is refused, or has not been answered when a cancel comes."""
import struct
import time
from contextlib import closing

import pytest

from gate import Gate
from harness import Proxy, wait_until
from support import Raw, error_of, kinds, query, rows

pytestmark = pytest.mark.core


@pytest.mark.parametrize("begin", [[], ["BEGIN"]], ids=["alone", "in a block"])
@pytest.mark.parametrize("sql", ["SELECT count(*) FROM users", "UPDATE users SET name = name",
                                 "SELECT count(*) FROM users a JOIN users b ON a.name = b.name"], ids=["merge", "change", "gather"])
def test_a_setting_that_one_shard_refuses(cluster, data, begin, sql):
    """A fan-out is answered once, with that shard's error, and the session goes on."""
    cluster.shards[0].primary.sql("DROP ROLE IF EXISTS only_here")
    cluster.shards[0].primary.sql("CREATE ROLE only_here SUPERUSER")
    try:
        with closing(Raw(data)) as raw:
            assert kinds(raw.ask(query("SET pgshunt.shard = 's0'"))) == "CZ"
            assert error_of(raw.ask(query("SET ROLE only_here"))) is None
            raw.ask(query("RESET pgshunt.shard"))
            for number in range(3):
                for each in begin:
                    raw.ask(query(each))
                answer = raw.ask(query(sql))
                assert error_of(answer)["C"] == "22023", answer
                assert "only_here" in error_of(answer)["M"]
                if begin:
                    assert answer[-1][1] == b"E"
                    assert rows(raw.ask(query("ROLLBACK"))) == []
                assert kinds(raw.ask(query("SET pgshunt.shard = 's0'"))) == "CZ"
                assert rows(raw.ask(query(f"SELECT {number}"))) == [[b"%d" % number]]
                raw.ask(query("RESET pgshunt.shard"))
            raw.ask(query("RESET ROLE"))
            assert rows(raw.ask(query("SELECT count(*) FROM users"))) == [[b"200"]]
    finally:
        cluster.shards[0].primary.sql("DROP ROLE only_here")


def test_a_cancel_waits_for_what_goes_ahead(cluster):
    """BEGIN would be cancelled, and the statement behind it be carried out without."""
    gate = Gate(cluster.shards[0].nodes[0])
    shard = {"name": "s0", "dbname": "plain", "nodes": [gate.config()]}
    try:
        with Proxy(databases=[{"name": "plain", "shards": [shard]}], options={"workers": 1, "pool": {"size": 1}}) as proxy:
            proxy.wait_nodes()
            with closing(Raw(proxy, database="plain")) as raw, closing(Raw(proxy, database="plain")) as other:
                raw.ask(query("SET application_name = '/* gated */'"))
                other.ask(query("SELECT 1"))  # on the same server, which is set back for that
                raw.ask(query("BEGIN"))
                gate.shut()
                raw.send(query("SELECT pg_sleep(60)"))
                wait_until(gate.marked, 20, "the statement at the gate")
                with closing(proxy.socket()) as asking:
                    asking.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
                    asking.settimeout(20)
                    assert asking.recv(1) == b""  # it has been handed on
                time.sleep(0.5)
                assert not gate.cancels
                gate.let_through()
                answer = raw.until_ready()
                assert error_of(answer)["C"] == "57014" and "H" not in error_of(answer), answer
                assert gate.cancels == 1
                raw.ask(query("ROLLBACK"))
    finally:
        gate.close()
