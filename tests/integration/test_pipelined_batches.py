"""Batches sent to the server behind others that are not answered yet: what arrives before any answer leaves."""
import struct
import threading
import urllib.request
from contextlib import closing, contextmanager

import pytest
from gate import Gate
from harness import Proxy, wait_until
from support import (SYNC, TERMINATE, Raw, bind, close, describe, error_of, execute, kinds, parse, query, rows)

pytestmark = pytest.mark.core

READ = "SELECT $1::int /* gated */"
WRITE = "INSERT INTO gated VALUES ($1) /* gated */"


@contextmanager
def through_gates(cluster, nodes, **options):
    """A proxy that reaches the nodes of the first shard (by number) through gates."""
    gates = [Gate(cluster.shards[0].nodes[number]) for number in nodes]
    shard = {"name": "s0", "dbname": "plain", "nodes": [gate.config() for gate in gates]}
    merged = {"workers": 1, "pool": {"size": 1}, "routing": {"read_write_split": len(nodes) > 1}}
    for group, values in options.items():
        merged.setdefault(group, {}).update(values)
    try:
        with Proxy(cluster, databases=[{"name": "plain", "shards": [shard]}], options=merged) as proxy:
            proxy.wait_nodes()
            yield proxy, gates
    finally:
        for gate in gates:
            gate.close()


@pytest.fixture(scope="module")
def gated(cluster):
    with through_gates(cluster, [0]) as (proxy, (gate,)):
        proxy.sql("DROP TABLE IF EXISTS gated; CREATE TABLE gated (id int PRIMARY KEY)", dbname="plain")
        yield proxy, gate
        proxy.sql("DROP TABLE gated", dbname="plain")


@pytest.fixture(autouse=True)
def opened(request):
    yield
    if "gated" in request.fixturenames:
        request.getfixturevalue("gated")[1].let_through()


def run(sql, *values):
    return parse("", sql) + bind("", "", [b"%d" % value for value in values]) + execute() + SYNC


def prepared(name, *values):
    return bind("", name, [b"%d" % value for value in values]) + describe("P", "") + execute() + SYNC


def client(proxy):
    """A session that has used its server, so that nothing goes ahead of what follows."""
    raw = Raw(proxy, database="plain")
    assert error_of(raw.ask(parse("read", READ), SYNC)) is None
    assert error_of(raw.ask(parse("write", WRITE, [23]), SYNC)) is None
    assert error_of(raw.ask(prepared("read", 1))) is None
    return raw


def pipelined(proxy):
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics", timeout=10) as answer:
        return int(answer.read().decode().split('pgshunt_pipelined_total{database="plain"} ')[1].split()[0])


def pool(proxy):
    return next(row for row in proxy.show("POOLS") if row["database"] == "plain")


# ---- one round trip ----

@pytest.mark.parametrize("how", ["unnamed", "named"])
def test_twenty_syncs_cost_one_round_trip(gated, how):
    proxy, gate = gated
    with client(proxy) as raw:
        before = pipelined(proxy)
        gate.shut()
        raw.send(*[prepared("read", number) if how == "named" and number else run(READ, number) for number in range(20)])
        gate.wait_syncs(20)
        assert len(gate.marked()) == 1
        gate.let_through()
        for number in range(20):
            assert rows(raw.until_ready()) == [[b"%d" % number]]
        assert pipelined(proxy) - before == 19
        wait_until(lambda: int(pool(proxy)["sv_active"]) == 0, 10, "the server to be free")


def test_writes_and_reads_with_errors_between(gated):
    """Each batch is a transaction of its own: what fails costs its own batch alone."""
    proxy, gate = gated
    with client(proxy) as raw:
        proxy.sql("TRUNCATE gated", dbname="plain")
        gate.shut()
        raw.send(*[run(WRITE, number // 2) for number in range(10)], run("SELECT 1/$1::int", 0),
                 run("SELECT count(*) FROM gated"), execute("none") + SYNC, SYNC, run("SELECT 7"))
        gate.wait_syncs(12)  # a portal that is none waits for what is ahead
        gate.let_through()
        assert [kinds(raw.until_ready()) for _ in range(10)] == ["12CZ", "12EZ"] * 5
        assert error_of(raw.until_ready())["C"] == "22012"
        assert rows(raw.until_ready()) == [[b"5"]]
        assert error_of(raw.until_ready())["C"] == "34000"
        assert kinds(raw.until_ready()) == "Z"
        assert rows(raw.until_ready()) == [[b"7"]]


def test_in_a_transaction(gated):
    """Its first statement takes BEGIN along; the others go behind it, COMMIT when all of them are answered."""
    proxy, gate = gated
    with client(proxy) as raw:
        proxy.sql("TRUNCATE gated", dbname="plain")
        raw.ask(query("BEGIN"))
        gate.shut()
        raw.send(*[run(WRITE, number) for number in range(12)], *[prepared("write", number) for number in range(20, 25)],
                 query("COMMIT"))
        gate.wait_syncs(17)
        assert gate.marked()[0].messages(b"Q") == 0 or b"COMMIT" not in gate.marked()[0].seen
        gate.let_through()
        assert {raw.until_ready()[-1] for _ in range(17)} == {("Z", b"T")}
        assert raw.until_ready() == [("C", b"COMMIT\0"), ("Z", b"I")]
    assert proxy.value("SELECT count(*) FROM gated", dbname="plain") == 17


def test_a_transaction_that_fails_in_the_middle(gated):
    proxy, gate = gated
    with client(proxy) as raw:
        proxy.sql("TRUNCATE gated", dbname="plain")
        raw.ask(query("BEGIN"))
        gate.shut()
        raw.send(*[run(WRITE, number % 3) for number in range(6)], prepared("read", 1), parse("", READ) + describe("S", "") + SYNC,
                 query("COMMIT"), run("SELECT count(*) FROM gated"))
        gate.wait_syncs(8)
        gate.let_through()
        answers = [raw.until_ready() for _ in range(10)]
        assert [answer[-1][1] for answer in answers] == [b"T"] * 3 + [b"E"] * 5 + [b"I"] * 2
        assert error_of(answers[3])["C"] == "23505"
        assert [kinds(answer) for answer in answers[4:8]] == ["EZ"] * 4
        assert {error_of(answer)["C"] for answer in answers[4:8]} == {"25P02"}
        assert ("C", b"ROLLBACK\0") in answers[8]
        assert rows(answers[9]) == [[b"0"]]


def test_portals_of_a_transaction(gated):
    """Fetched in parts, each with its Sync: all parts are asked for at once."""
    proxy, gate = gated
    with client(proxy) as raw:
        raw.ask(query("BEGIN"))
        raw.ask(parse("", "SELECT generate_series(1, 7) /* gated */"), bind("p", ""), SYNC)
        gate.shut()
        raw.send(run(READ, 0), *[execute("p", 2) + SYNC] * 4, close("P", "p") + SYNC, execute("p", 2) + SYNC)
        gate.wait_syncs(6)
        gate.let_through()
        assert [kinds(raw.until_ready()) for _ in range(6)] == ["12DCZ", "DDsZ", "DDsZ", "DDsZ", "DCZ", "3Z"]
        assert error_of(raw.until_ready())["C"] == "34000"


@pytest.mark.parametrize("message, first", [(query("SELECT 5"), 1), (run("SET work_mem = '3MB'"), 1), (run("BEGIN"), 1),
                                            (parse("new", "SELECT 5") + SYNC, 1), (close("S", "read") + SYNC, 1),
                                            (run("CREATE TEMP TABLE own (a int)"), 1)])
def test_what_changes_the_session_goes_alone(gated, message, first):
    """It waits for those in front of it, and those behind wait for it."""
    proxy, gate = gated
    with client(proxy) as raw:
        gate.shut()
        raw.send(run(READ, 1), message, run(READ, 2))
        gate.wait_syncs(first)
        gate.let_through()
        for wanted in ([b"1"], None, [b"2"]):
            answer = raw.until_ready()
            assert error_of(answer) is None
            assert wanted is None or rows(answer) == [wanted]


# ---- whom it must not disturb ----

def test_who_waits_for_the_server_gets_it(cluster):
    """A pipeline does not keep the only server from a client that waits: it is sequential then."""
    with through_gates(cluster, [0]) as (proxy, (gate,)), client(proxy) as raw, \
            Raw(proxy, database="plain") as other:
        gate.shut()
        raw.send(run(READ, 1))
        gate.wait_syncs(1)
        other.send(query("SELECT 2"))
        wait_until(lambda: int(pool(proxy)["cl_waiting"]) == 1, 10, "the other client to wait")
        raw.send(*[run(READ, number) for number in range(5)])
        with closing(proxy.connect("pgshunt")):  # the loop has been round
            pass
        assert gate.syncs() == 1
        gate.let_through()
        assert rows(other.until_ready()) == [[b"2"]]
        assert [rows(raw.until_ready()) for _ in range(6)] == [[[b"1"]]] + [[[b"%d" % number]] for number in range(5)]


def test_a_client_that_leaves_in_the_middle(gated):
    proxy, gate = gated
    for last in (b"", TERMINATE):
        with client(proxy) as raw:
            gate.shut()
            raw.send(*[run(READ, number) for number in range(5)], last)
            gate.wait_syncs(5)
        gate.let_through()
        for number in range(6):  # more than the pool holds
            with client(proxy) as another:
                assert rows(another.ask(prepared("read", number))) == [[b"%d" % number]]


# ---- when something goes wrong ----

def test_the_server_is_lost_outside_of_transactions(gated):
    """Every batch that was under way gets its error and its end; nothing is carried out twice."""
    proxy, gate = gated
    with client(proxy) as raw:
        proxy.sql("TRUNCATE gated", dbname="plain")
        gate.shut()
        raw.send(*[run(WRITE, number) for number in range(6)])
        gate.wait_syncs(6)
        gate.cut()
        for _ in range(6):
            answer = raw.until_ready()
            assert kinds(answer) == "EZ" and error_of(answer)["C"] == "08006" and answer[-1][1] == b"I"
        assert rows(raw.ask(run(READ, 9))) == [[b"9"]]
    assert proxy.value("SELECT count(*) - count(DISTINCT id) FROM gated", dbname="plain") == 0


def test_the_server_ends_behind_an_answer(gated):
    """Its last words come with the answers of batches in front, which are told all the same."""
    proxy, gate = gated
    with client(proxy) as raw:
        gate.shut()
        raw.send(*[run(READ, number) for number in range(4)], run("SELECT pg_terminate_backend(pg_backend_pid())"), run(READ, 5))
        gate.wait_syncs(6)
        wait_until(lambda: len(gate.marked()) == 1, 5, "its connection")
        gate.let_through()
        assert [rows(raw.until_ready()) for _ in range(4)] == [[[b"%d" % number]] for number in range(4)]
        assert {error_of(raw.until_ready())["C"] for _ in range(2)} == {"57P01"}
        assert rows(raw.ask(run(READ, 9))) == [[b"9"]]


def test_the_server_is_lost_in_a_transaction(gated):
    proxy, gate = gated
    with client(proxy) as raw:
        raw.ask(query("BEGIN"))
        gate.shut()
        raw.send(*[run(READ, number) for number in range(4)])
        gate.wait_syncs(4)
        gate.cut()
        answers = [raw.until_ready() for _ in range(4)]
        assert [error_of(answer)["C"] for answer in answers] == ["08006"] + ["25P02"] * 3
        assert {answer[-1] for answer in answers} == {("Z", b"E")}
        assert raw.ask(query("ROLLBACK"))[-1] == ("Z", b"I")
        assert rows(raw.ask(run(READ, 9))) == [[b"9"]]


def test_a_replica_is_lost_with_reads_under_way(cluster):
    """All of them are asked again elsewhere, in their order; with the last unnamed statement of before."""
    with through_gates(cluster, [0, 1], routing={"read_your_writes": False, "max_lag": "10min"}) as (proxy, gates), \
            client(proxy) as raw:
        standby = parse("", "SELECT pg_is_in_recovery()"), bind("", ""), execute(), SYNC
        wait_until(lambda: rows(raw.ask(*standby)) == [[b"t"]], 20, "reads on the replica")
        raw.ask(run("SELECT $1::int + 100 /* gated */", 1))
        for gate in gates:
            gate.shut()
        raw.send(bind("", "", [b"8"]) + execute() + SYNC, *[run(READ, number) for number in range(8)],
                 run("SELECT 9 /* gated */"))
        wait_until(lambda: pipelined(proxy) == 9, 20, "all on their way")
        gates[0].let_through()
        gates[1].end()
        answers = [rows(raw.until_ready()) for _ in range(10)]
        assert answers == [[[b"%d" % number]] for number in (108, *range(8), 9)]


def test_reads_on_a_replica_that_are_too_much_to_keep(cluster):
    """What could not be asked again is not sent behind others."""
    with through_gates(cluster, [0, 1], routing={"read_your_writes": False, "max_lag": "10min"}) as (proxy, gates), \
            client(proxy) as raw:
        standby = parse("", "SELECT pg_is_in_recovery()"), bind("", ""), execute(), SYNC
        wait_until(lambda: rows(raw.ask(*standby)) == [[b"t"]], 20, "reads on the replica")
        for gate in gates:
            gate.shut()
        long = "SELECT $1::int /* gated */ /* " + 3000 * "x" + " */"
        raw.send(*[run(long, number) for number in range(12)])
        gates[1].wait_syncs(5)
        gates[0].let_through()
        gates[1].cut()
        assert [rows(raw.until_ready()) for _ in range(12)] == [[[b"%d" % number]] for number in range(12)]


def test_a_cancel_in_the_middle(gated):
    """It ends what the server is at; what is behind it goes on."""
    proxy, gate = gated
    with client(proxy) as raw:
        before = pipelined(proxy)
        raw.send(run(READ, 1), run("SELECT pg_sleep(100)"), run(READ, 3))
        assert rows(raw.until_ready()) == [[b"1"]]
        assert pipelined(proxy) - before == 2
        with proxy.socket(10) as cancel:
            cancel.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
            assert cancel.recv(1) == b""
        assert error_of(raw.until_ready())["C"] == "57014"
        assert rows(raw.until_ready()) == [[b"3"]]
        assert rows(raw.ask(run(READ, 4))) == [[b"4"]]


def test_a_query_timeout_in_the_middle(cluster):
    with through_gates(cluster, [0], timeouts={"query": "1s"}) as (proxy, _), client(proxy) as raw:
        raw.send(run(READ, 1), run("SELECT pg_sleep(100)"), run(READ, 3))
        assert rows(raw.until_ready()) == [[b"1"]]
        error = error_of(raw.until_ready())
        assert error["C"] == "57014" and "query_timeout" in error["M"]
        assert rows(raw.until_ready()) == [[b"3"]]


def test_answers_left_unread(gated):
    """Thousands of batches whose answers nobody reads for a while: all are answered in the end, in order."""
    proxy, gate = gated
    with client(proxy) as raw:
        raw.socket.settimeout(120)
        count = 3000
        batch = parse("", "SELECT $1::int, repeat('x', 5000)")
        text = b"".join(batch + bind("", "", [b"%d" % number]) + execute() + SYNC for number in range(count))
        writer = threading.Thread(target=raw.socket.sendall, args=(text,), daemon=True)
        writer.start()
        for number in range(count):
            assert rows(raw.until_ready())[0][0] == b"%d" % number
        writer.join(10)
        assert not writer.is_alive()
