"""The unnamed statement and portals of many clients on one server connection."""
import struct
import time
from contextlib import closing

import pytest
from harness import Proxy
from support import FLUSH, SYNC, Raw, bind, describe, execute, kinds, parse, query, rows


@pytest.fixture(scope="module")
def narrow(cluster):
    """One server connection for everybody."""
    plain = {"name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 1}, "workers": 1,
                                                    "routing": {"read_write_split": False}}) as proxy:
        proxy.wait_nodes()
        yield proxy


def client(proxy, **parameters):
    return Raw(proxy, database="plain", **parameters)


def test_a_query_between_parse_and_bind(narrow):
    """Postgres forgets the unnamed statement at a Query: another client's must not cost us ours."""
    with client(narrow) as one, client(narrow) as other:
        assert kinds(one.ask(parse("", "SELECT 'one'"), SYNC)) == "1Z"
        assert rows(other.ask(query("SELECT 'other'"))) == [[b"other"]]
        assert rows(one.ask(bind("", ""), execute(), SYNC)) == [[b"one"]]


def test_settings_between_parse_and_bind(narrow):
    with client(narrow) as one, client(narrow, application_name="another") as other:
        assert kinds(one.ask(parse("", "SELECT 'one'"), SYNC)) == "1Z"
        assert rows(other.ask(parse("", "SHOW application_name"), bind("", ""), execute(), SYNC)) == [[b"another"]]
        assert rows(one.ask(bind("", ""), execute(), SYNC)) == [[b"one"]]
        assert rows(one.ask(bind("", ""), execute(), SYNC)) == [[b"one"]]


def test_unnamed_statements_of_two_clients(narrow):
    with client(narrow) as one, client(narrow) as other:
        one.ask(parse("", "SELECT 1"), describe("S", ""), SYNC)
        other.ask(parse("", "SELECT 2"), describe("S", ""), SYNC)
        for _ in range(3):
            assert rows(one.ask(bind("", ""), execute(), SYNC)) == [[b"1"]]
            assert rows(other.ask(bind("", ""), execute(), SYNC)) == [[b"2"]]


def test_two_unnamed_statements_in_one_batch(narrow):
    with client(narrow) as one:
        answers = one.ask(parse("", "SELECT 1"), bind("", ""), execute(),
                          parse("", "SELECT 2"), bind("", ""), execute(), SYNC)
        assert rows(answers) == [[b"1"], [b"2"]]


def test_flush_and_describe_before_bind(narrow):
    with client(narrow) as one:
        one.send(parse("", "SELECT $1::int"), describe("S", ""), FLUSH)
        assert [one.read()[0] for _ in range(3)] == ["1", "t", "T"]
        assert rows(one.ask(bind("", "", [b"7"]), execute(), SYNC)) == [[b"7"]]


def test_a_parse_that_gets_no_server_is_not_answered(narrow):
    """Cancelled while it waits for the pool: an error, and no ParseComplete ahead of it."""
    with client(narrow) as holder, client(narrow) as one:
        holder.ask(query("BEGIN"))
        holder.ask(query("SELECT 1"))
        one.send(parse("", "SELECT 'never parsed before'"), SYNC)
        time.sleep(0.3)
        with closing(narrow.socket(5.0)) as canceller:
            canceller.sendall(struct.pack("!IIII", 16, 80877102, *one.key))
            assert canceller.recv(1) == b""
        answers = one.until_ready()
        assert kinds(answers) == "EZ" and b"C57014\0" in answers[0][1]
        holder.ask(query("ROLLBACK"))
        assert rows(one.ask(query("SELECT 2"))) == [[b"2"]]


def test_a_hundred_clients_on_two_servers(cluster):
    """Parse, Describe and Bind in rounds of their own, each on whichever server is free: nobody meets another's."""
    plain = {"name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 2}, "workers": 2,
                                                    "routing": {"read_write_split": False}}) as proxy:
        proxy.wait_nodes()
        clients = [client(proxy, timeout=120.0) for _ in range(100)]
        rounds = [
            (lambda me: (parse("", f"SELECT {me}, $1::text, pg_sleep(0.001)"), SYNC),
             lambda me, found: kinds(found) == "1Z"),
            (lambda me: (describe("S", ""), SYNC), lambda me, found: kinds(found) == "tTZ"),
            (lambda me: (bind("", "", [b"a%d" % me]), describe("P", ""), execute(), SYNC),
             lambda me, found: rows(found)[0][:2] == [b"%d" % me, b"a%d" % me]),
            (lambda me: (bind("", "", [b"b%d" % me]), execute(), SYNC),
             lambda me, found: rows(found)[0][:2] == [b"%d" % me, b"b%d" % me]),
            (lambda me: (bind("", "", [b"c%d" % me]), describe("P", ""), SYNC),
             lambda me, found: kinds(found) == "2TZ"),
        ]
        for turn in range(2):
            for ask, right in rounds:
                for me, raw in enumerate(clients):
                    raw.send(*ask(me + 1000 * turn))
                for me, raw in enumerate(clients):
                    found = raw.until_ready()
                    assert right(me + 1000 * turn, found), (me, found)
        for raw in clients:
            raw.close()
