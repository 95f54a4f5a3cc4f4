"""What a replica refuses is asked again where it will not be refused, without the client's noticing."""
from contextlib import closing

import psycopg
import psycopg2
import psycopg2.errors
import pytest

from gate import Gate
from harness import Proxy, wait_until
from support import SYNC, Raw, bind, describe, error_of, execute, fetch, kinds, one, parse, query, rows

pytestmark = pytest.mark.core

LIES = """
CREATE TABLE misrouted (id serial, who text);
CREATE FUNCTION says_volatile(who text) RETURNS text LANGUAGE plpgsql VOLATILE AS
$$ BEGIN INSERT INTO misrouted (who) VALUES (says_volatile.who); RETURN who; END $$;
CREATE FUNCTION says_stable(who text) RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN says_volatile(who); END $$;
"""


@pytest.fixture(scope="module")
def lies(cluster):
    """Functions that write, one of them declared as if it did not, and a proxy that has seen them."""
    for shard in cluster.shards:
        for statement in LIES.split(";\n"):
            if statement.strip():
                shard.primary.sql(statement, dbname="plain")
    cluster.sync()
    databases = [{"name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]},
                 {"name": "both", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()],
                  "keyspaces": [{"name": "k", "type": "bigint", "tables": [{"name": "misrouted", "key": "id"}]}]}]
    with Proxy(cluster, databases=databases, options={"workers": 1}) as proxy:
        proxy.wait_nodes()
        wait_until(lambda: proxy.value("SELECT pg_is_in_recovery() FROM misrouted RIGHT JOIN now() ON true LIMIT 1",
                                       dbname="plain"), 10.0, "reads on the replica")
        yield proxy
    for shard in cluster.shards:
        shard.primary.sql("DROP FUNCTION says_stable, says_volatile; DROP TABLE misrouted", dbname="plain")


def misrouted(proxy):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics") as answer:
        text = answer.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith("pgshunt_misrouted_total{"))


def written(cluster, who, shard=0):
    return cluster.shards[shard].primary.value("SELECT count(*) FROM misrouted WHERE who = %s", (who,),
                                               dbname="plain")


def test_simple(cluster, lies):
    before, asked = misrouted(lies), 0
    while misrouted(lies) < before + 2:  # a client that has not written reads on the replica, if that is fresh
        asked += 1
        with closing(lies.connect("plain")) as client:
            assert one(client, "SELECT says_stable('simple')") == "simple"
            assert one(client, "SELECT count(*) FROM misrouted WHERE who = 'simple'") == asked
        assert written(cluster, "simple") == asked < 100
    lies.wait_log(r"a replica refused a statement taken for a read: repeated on the primary.*says_stable\('simple'\)")


def test_several_statements_are_one(cluster, lies):
    """All of the message is run again, not the part behind the error."""
    with closing(Raw(lies, database="plain")) as raw:
        answer = raw.ask(query("SELECT 'first'; SELECT says_stable('second'); SELECT 'third'"))
        assert rows(answer) == [[b"first"], [b"second"], [b"third"]]
        assert error_of(answer) is None
    assert written(cluster, "second") == 1


@pytest.mark.parametrize("name", ["", "named"])
def test_extended_in_one_batch(cluster, lies, name):
    with closing(Raw(lies, database="plain")) as raw:
        for turn in range(2):
            who = f"batch {name} {turn}"
            answer = raw.ask(parse(name if not turn or not name else name + "2", "SELECT says_stable($1)"),
                             bind("", name if not turn or not name else name + "2", [who.encode()]),
                             describe("P", ""), execute(), SYNC)
            assert kinds(answer) == "12TDCZ"
            assert rows(answer) == [[who.encode()]]
            assert written(cluster, who) == 1


def test_extended_prepared_before(cluster, lies):
    """The answer to Parse was out long ago."""
    with closing(Raw(lies, database="plain")) as raw:
        assert kinds(raw.ask(parse("before", "SELECT says_stable($1)"), describe("S", "before"), SYNC)) == "1tTZ"
        for who in ("one", "two"):
            answer = raw.ask(bind("", "before", [f"before {who}".encode()]), execute(), SYNC)
            assert kinds(answer) == "2DCZ"
            assert written(cluster, f"before {who}") == 1
        assert rows(raw.ask(query("SELECT 'usable'"))) == [[b"usable"]]


@pytest.fixture
def piecemeal(cluster, lies):
    """The replica is far away: the answer's first message arrives before the others."""
    gate = Gate(cluster.shards[0].nodes[1], first=5)
    primary = cluster.shard_config()[0]["nodes"][0]
    shard = {"name": "s0", "dbname": "plain", "nodes": [primary, gate.config()]}
    try:
        with Proxy(databases=[{"name": "plain", "shards": [shard]}], options={"workers": 1}) as proxy:
            proxy.wait_nodes()
            yield proxy
    finally:
        gate.close()


def test_an_answer_that_comes_in_pieces(cluster, piecemeal):
    """What is sent ahead of the error is not the client's yet when the error comes."""
    with closing(Raw(piecemeal, database="plain")) as raw:
        assert kinds(raw.ask(parse("pieces", "SELECT says_stable($1)"), describe("S", "pieces"), SYNC)) == "1tTZ"
    before, asked = misrouted(piecemeal), 0
    while misrouted(piecemeal) < before + 2:
        asked += 1
        with closing(Raw(piecemeal, database="plain")) as raw:
            raw.ask(parse("pieces", "SELECT says_stable($1)"), describe("S", "pieces"), SYNC)
            answer = raw.ask(bind("", "pieces", [f"pieces {asked}".encode()]), execute(), SYNC)
            assert kinds(answer) == "2DCZ"
            assert written(cluster, f"pieces {asked}") == 1
        assert asked < 100


def on_replica(raw):
    ask = parse("", "SELECT pg_is_in_recovery()") + bind("", "") + execute() + SYNC
    wait_until(lambda: rows(raw.ask(ask)) == [[b"t"]], 20.0, "reads on the replica")


def pipelined(proxy):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics", timeout=10) as answer:
        return int(answer.read().decode().split('pgshunt_pipelined_total{database="plain"} ')[1].split()[0])


@pytest.mark.parametrize("at", [0, 3, 7])
def test_among_batches_sent_together(cluster, lies, at):
    """One of them is refused: those before it are answered, it and those behind it are asked again."""
    with closing(Raw(lies, database="plain")) as raw:
        for turn in range(5):
            on_replica(raw)
            before, who = pipelined(lies), f"pipelined {at} {turn}"
            texts = [f"SELECT '{number}'" for number in range(8)]
            texts[at] = f"SELECT says_stable('{who}')"
            raw.send(b"".join(parse("", sql) + bind("", "") + describe("P", "") + execute() + SYNC for sql in texts))
            answers = [raw.until_ready() for _ in texts]
            expected = [b"%d" % number for number in range(8)]
            expected[at] = who.encode()
            assert [rows(answer) for answer in answers] == [[[text]] for text in expected]
            assert [kinds(answer) for answer in answers] == ["12TDCZ"] * 8
            assert written(cluster, who) == 1
            assert pipelined(lies) > before
            cluster.sync()


def test_settings_of_the_session_are_told_once(cluster, lies):
    """The replica's answer begins with what went ahead of the statement."""
    with closing(Raw(lies, database="plain")) as raw:
        raw.ask(query("SET application_name = 'told'"))
        raw.ask(query("SET TimeZone = 'Asia/Tokyo'"))
        answer = raw.ask(query("SELECT says_stable(current_setting('TimeZone'))"))
        assert rows(answer) == [[b"Asia/Tokyo"]] and error_of(answer) is None


def test_drivers(cluster, lies):
    with closing(lies.connect3("plain")) as client:
        for turn in range(7):  # prepared from the fifth time on
            assert client.execute("SELECT says_stable(%s)", (f"psycopg {turn}",)).fetchone() == (f"psycopg {turn}",)
    assert sum(written(cluster, f"psycopg {turn}") for turn in range(7)) == 7


def test_what_is_out_is_not_repeated(cluster, lies):
    """Rows have reached the client: the error does, too, and is counted all the same."""
    before = misrouted(lies)
    cluster.sync()
    with closing(lies.connect("plain")) as client, pytest.raises(psycopg2.Error) as caught:
        fetch(client, "/* pgshunt: max_lag=1h */ SELECT repeat('x', 100000), CASE WHEN i = 200 THEN says_stable('late') END "
                      "FROM generate_series(1, 200) AS i")
    assert caught.value.pgcode == "25006"
    assert written(cluster, "late") == 0 and misrouted(lies) == before + 1


def test_claims(cluster, lies):
    """A comment that vouches for a read is believed until the replica says otherwise."""
    with closing(lies.connect("plain")) as client:
        assert one(client, "SELECT says_volatile('claimed') /* pgshunt: replica */") == "claimed"
    assert written(cluster, "claimed") == 1


def test_read_only_transactions_and_sessions_mean_it(cluster, lies):
    before = misrouted(lies)
    with closing(lies.connect("plain")) as client:
        cursor = client.cursor()
        cursor.execute("BEGIN READ ONLY")
        with pytest.raises(psycopg2.Error) as caught:
            cursor.execute("SELECT says_stable('read only')")
        assert caught.value.pgcode == "25006"
        cursor.execute("ROLLBACK")
        cursor.execute("SET default_transaction_read_only = on")
        with pytest.raises(psycopg2.Error) as caught:
            cursor.execute("SELECT says_stable('read only')")
        assert caught.value.pgcode == "25006"
    assert written(cluster, "read only") == 0 and misrouted(lies) == before


def fan_out(cluster, who, run):
    """Runs it until all of it is on replicas, whose refusals are repeated on the primaries. Where a part of it ran on a
    primary, and has changed something there, another's refusal is told: nothing is ever done twice."""
    for turn in range(100):
        name = f"{who} {turn}"
        try:
            assert run(name) == name
        except (psycopg2.errors.ReadOnlySqlTransaction, psycopg.errors.ReadOnlySqlTransaction):
            assert written(cluster, name, 0) + written(cluster, name, 1) < 4
            continue
        assert written(cluster, name, 0) + written(cluster, name, 1) == 4
        return
    raise AssertionError("never on replicas alone")


def test_fan_out(cluster, lies):
    before = misrouted(lies)
    where = "FROM misrouted WHERE who IN ('a', 'b', 'c', 'd')"
    with closing(lies.connect("both")) as client:
        assert len(fetch(client, "SELECT count(*), min(says_stable('fan')) FROM misrouted")) == 1
        fetch(client, "INSERT INTO misrouted (id, who) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd') RETURNING id")
        cluster.sync()
        fan_out(cluster, "simple", lambda name: one(client, f"SELECT min(says_stable('{name}')) {where}"))
        assert one(client, "SELECT 1") == 1
    with closing(lies.connect3("both")) as client:
        fan_out(cluster, "extended",
                lambda name: client.execute(f"SELECT min(says_stable(%s)) {where}", (name,)).fetchone()[0])
    assert misrouted(lies) > before


def conflicts(replica):
    return replica.value("SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = 'plain'")


def test_recovery_conflict_is_repeated_elsewhere(cluster, lies):
    """A read that replay has cancelled runs on another node; the client does not hear of it."""
    replica, primary = cluster.shards[0].replicas[0], cluster.shards[0].primary
    before = conflicts(replica)
    replica.set("max_standby_streaming_delay", "100ms")
    try:
        lies.sql("CREATE TABLE conflicted AS SELECT 1 AS id", dbname="plain")
        cluster.sync()
        wait_until(lambda: lies.value("SELECT pg_is_in_recovery() FROM conflicted", dbname="plain"), 10.0, "the table")
        with closing(Raw(lies, database="plain")) as raw:
            raw.send(query("SELECT id, pg_is_in_recovery() FROM conflicted WHERE pg_sleep(2) IS NOT NULL"))
            wait_until(lambda: replica.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' "
                                             "AND pid <> pg_backend_pid()") > 0, 10.0, "the read under way")
            primary.sql("ALTER TABLE conflicted ADD more int", dbname="plain")
            answer = raw.until_ready()
        assert error_of(answer) is None
        assert rows(answer) == [[b"1", b"f"]]
        wait_until(lambda: conflicts(replica) > before, 10.0, "the conflict")
    finally:
        replica.set("max_standby_streaming_delay", "30s")
        primary.sql("DROP TABLE conflicted", dbname="plain")
