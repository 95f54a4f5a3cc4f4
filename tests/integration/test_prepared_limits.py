"""Prepared statements are bounded on servers and in the proxy, and nobody notices; what a server found out of date
is prepared anew."""
import struct
import threading
from contextlib import closing

import pytest
from harness import Proxy
from support import FLUSH, SYNC, Raw, bind, close, describe, error_of, execute, kinds, parse, query, rows

pytestmark = pytest.mark.core


def plain_proxy(cluster, pool, **options):
    plain = {"name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}
    return Proxy(cluster, databases=[plain],
                 options={"pool": pool, "workers": 1, "routing": {"read_write_split": False}, **options})


@pytest.fixture(scope="module")
def narrow(cluster):
    """One server connection, five statements on it."""
    with plain_proxy(cluster, {"size": 1, "max_prepared_statements": 5}) as proxy:
        proxy.wait_nodes()
        yield proxy


def client(proxy, **parameters):
    return Raw(proxy, database="plain", **parameters)


def on_server(raw):
    answer = raw.ask(query("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'pgshunt%'"))
    return int(rows(answer)[0][0])


def run(name, value):
    return bind("", name, [str(value).encode()]) + describe("P", "") + execute()


def test_the_least_recently_used_is_closed(narrow):
    with client(narrow) as raw:
        for number in range(30):
            assert kinds(raw.ask(parse(f"s{number}", f"SELECT {number} + $1::int"), SYNC)) == "1Z"
            assert rows(raw.ask(run(f"s{number}", 1), SYNC)) == [[b"%d" % (number + 1)]]
            assert on_server(raw) <= 5
        for number in list(range(30)) + [3, 3, 7, 3]:
            assert rows(raw.ask(run(f"s{number}", 2), SYNC)) == [[b"%d" % (number + 2)]]
        assert on_server(raw) == 5
        row = next(row for row in narrow.show("SERVERS") if row["database"] == "plain")
        assert int(row["prepared_statements"]) == 5
        row = next(row for row in narrow.show("CLIENTS") if row["database"] == "plain")
        assert int(row["prepared_statements"]) == 30


def test_one_batch_needs_more_than_fit(narrow):
    with client(narrow) as raw:
        raw.ask(*[parse(f"s{number}", f"SELECT {number}, $1::int") for number in range(12)], SYNC)
        answer = raw.ask(*[run(f"s{number}", number) for number in range(12)], SYNC)
        assert rows(answer) == [[b"%d" % number] * 2 for number in range(12)]
        answer = raw.ask(*[run(f"s{number % 7}", number) for number in range(40)], SYNC)
        assert rows(answer) == [[b"%d" % (number % 7), b"%d" % number] for number in range(40)]
        assert on_server(raw) <= 12
        raw.ask(run("s11", 1), SYNC)
        assert on_server(raw) <= 6


def test_an_open_portal_keeps_its_plan(narrow):
    with client(narrow) as raw:
        raw.ask(query("BEGIN"))
        raw.ask(parse("p", "SELECT g FROM generate_series(1, $1::int) g"), SYNC)
        raw.ask(bind("portal", "p", [b"5"]), execute("portal", 2), SYNC)
        for number in range(20):
            raw.ask(parse(f"other{number}", f"SELECT {number} + $1::int"), run(f"other{number}", 1), SYNC)
        assert rows(raw.ask(execute("portal", 2), SYNC)) == [[b"3"], [b"4"]]
        assert rows(raw.ask(execute("portal", 2), SYNC)) == [[b"5"]]
        assert rows(raw.ask(run("p", 1), SYNC)) == [[b"1"]]
        raw.ask(query("COMMIT"))


def test_a_close_behind_an_error_is_not_carried_out(narrow):
    """What stands behind an error up to Sync is skipped: also our own Closes that make room."""
    with client(narrow) as raw:
        for number in range(9):
            raw.ask(parse(f"s{number}", f"SELECT {number} * $1::int"), SYNC)
        for turn in range(12):
            answer = raw.ask(parse("", "SELECT 1/0"), bind("", ""), execute(), run(f"s{turn % 9}", 1),
                             run(f"s{(turn + 4) % 9}", 1), SYNC)
            assert error_of(answer)["C"] == "22012"
            assert rows(raw.ask(run(f"s{(turn + 4) % 9}", 1), SYNC)) == [[b"%d" % ((turn + 4) % 9)]]
        assert on_server(raw) <= 6


def test_the_client_s_close_behind_an_error(narrow):
    with client(narrow) as raw:
        raw.ask(parse("kept", "SELECT 'kept'"), SYNC)
        failing = parse("", "SELECT 1 / $1::int") + bind("", "", [b"0"]) + execute()
        assert kinds(raw.ask(failing, close("S", "kept"), SYNC))[-2:] == "EZ"
        assert rows(raw.ask(bind("", "kept"), execute(), SYNC)) == [[b"kept"]]
        assert kinds(raw.ask(failing, close("S", "kept"), parse("kept", "SELECT 'new'"), SYNC))[-2:] == "EZ"
        assert rows(raw.ask(bind("", "kept"), execute(), SYNC)) == [[b"kept"]]
        assert kinds(raw.ask(close("S", "kept"), parse("kept", "SELECT 'new'"), SYNC)) == "31Z"
        assert rows(raw.ask(bind("", "kept"), execute(), SYNC)) == [[b"new"]]


def test_fifty_clients_with_five_hundred_statements_each(cluster):
    with plain_proxy(cluster, {"size": 3, "max_prepared_statements": 20}) as proxy:
        proxy.wait_nodes()
        wrong = []

        def work(me):
            with client(proxy, timeout=120.0) as raw:
                sent = [parse(f"s{number}", f"SELECT {me}, {number} + $1::int") for number in range(500)]
                for start in range(0, 500, 50):
                    answer = raw.ask(*sent[start:start + 50], SYNC)
                    if kinds(answer) != "1" * 50 + "Z":
                        wrong.append(kinds(answer))
                for number in range(0, 500, 7):
                    answer = raw.ask(run(f"s{number}", me), SYNC)
                    if rows(answer) != [[b"%d" % me, b"%d" % (number + me)]]:
                        wrong.append((me, number, answer))

        threads = [threading.Thread(target=work, args=(me,)) for me in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, wrong[:3]
        counts = [int(row["prepared_statements"]) for row in proxy.show("SERVERS") if row["database"] == "plain"]
        assert counts and max(counts) <= 50  # what one batch brought stays until the next statement
        assert proxy.running()


# ---- limits on clients ----

def test_a_client_cannot_have_more_than_its_share(cluster):
    limits = {"limits": {"client_statements": 50, "client_statement_memory": "256kB"}}
    with plain_proxy(cluster, {"size": 1}, **limits) as proxy:
        proxy.wait_nodes()
        with client(proxy) as raw:
            for number in range(50):
                assert kinds(raw.ask(parse(f"s{number}", "SELECT 1"), SYNC)) == "1Z"
            error = error_of(raw.ask(parse("one_more", "SELECT 1"), SYNC))
            assert error["C"] == "53400" and "client_statements" in error["H"]
            raw.ask(close("S", "s0"), SYNC)
            assert kinds(raw.ask(parse("one_more", "SELECT 1"), SYNC)) == "1Z"
        with client(proxy) as raw:
            refused = None
            for number in range(40):
                refused = refused or error_of(raw.ask(parse(f"s{number}", "SELECT '" + "x" * 20000 + "'"), SYNC))
            assert refused["C"] == "53400" and "client_statement_memory" in refused["H"]
        with client(proxy) as raw:
            raw.ask(query("BEGIN"))
            raw.ask(parse("s", "SELECT 1"), SYNC)
            answer = raw.ask(*[bind(f"portal_{number}", "s") for number in range(4000)], SYNC)
            assert error_of(answer)["C"] == "53400"
            raw.ask(query("ROLLBACK"))
            assert rows(raw.ask(bind("", "s"), execute(), SYNC)) == [[b"1"]]


# ---- out of date ----

@pytest.fixture
def changing(narrow):
    narrow.sql("DROP TABLE IF EXISTS changing", dbname="plain")
    narrow.sql("CREATE TABLE changing (a int)", dbname="plain")
    narrow.sql("INSERT INTO changing VALUES (1)", dbname="plain")
    yield narrow
    narrow.sql("DROP TABLE IF EXISTS changing", dbname="plain")


def shape(answer):
    return next(struct.unpack("!H", body[:2])[0] for kind, body in answer if kind == "T")


def test_a_result_that_changed_its_shape_is_prepared_anew(changing):
    with client(changing) as raw:
        assert rows(raw.ask(parse("s", "SELECT * FROM changing"), bind("", "s"), execute(), SYNC)) == [[b"1"]]
        for number in range(2, 5):
            changing.sql(f"ALTER TABLE changing ADD b{number} int DEFAULT {number}", dbname="plain")
            answer = raw.ask(bind("", "s"), describe("P", ""), execute(), SYNC)
            assert error_of(answer) is None, error_of(answer)
            assert kinds(answer) == "2TDCZ" and shape(answer) == number
            assert rows(answer) == [[b"%d" % value for value in range(1, number + 1)]]
        changing.sql("ALTER TABLE changing DROP b4", dbname="plain")
        assert kinds(raw.ask(describe("S", "s"), SYNC)) == "tTZ"


def test_who_counts_on_an_old_description_is_told(changing):
    """Without Describe the client reads the rows by the description it had: Postgres' error is its protection."""
    with client(changing) as raw:
        raw.ask(parse("s", "SELECT * FROM changing"), describe("S", "s"), bind("", "s"), execute(), SYNC)
        changing.sql("ALTER TABLE changing ADD b int", dbname="plain")
        error = error_of(raw.ask(bind("", "s"), execute(), SYNC))
        assert error["C"] == "0A000" and "result type" in error["M"]
        assert kinds(raw.ask(describe("S", "s"), SYNC)) == "tTZ"
        assert rows(raw.ask(bind("", "s"), execute(), SYNC)) == [[b"1", None]]


def test_in_a_transaction_the_next_try_works(changing):
    with client(changing) as raw:
        raw.ask(parse("s", "SELECT * FROM changing"), bind("", "s"), describe("P", ""), execute(), SYNC)
        changing.sql("ALTER TABLE changing ADD b int DEFAULT 9", dbname="plain")
        raw.ask(query("BEGIN"))
        assert error_of(raw.ask(bind("", "s"), describe("P", ""), execute(), SYNC))["C"] == "0A000"
        raw.ask(query("ROLLBACK"))
        raw.ask(query("BEGIN"))
        assert rows(raw.ask(bind("", "s"), describe("P", ""), execute(), SYNC)) == [[b"1", b"9"]]
        raw.ask(query("COMMIT"))


def test_a_write_in_the_same_batch_is_done_once(changing):
    with client(changing) as raw:
        raw.ask(parse("s", "SELECT * FROM changing"), bind("", "s"), execute(), SYNC)
        changing.sql("ALTER TABLE changing ADD b int DEFAULT 9", dbname="plain")
        answer = raw.ask(parse("", "INSERT INTO changing VALUES (2)"), bind("", ""), execute(),
                         bind("", "s"), describe("P", ""), execute(), SYNC)
        if error_of(answer) is None:  # asked again as a whole, or nothing of it was carried out
            assert kinds(answer) == "12C2TDDCZ"
        else:
            assert error_of(answer)["C"] == "0A000"
        left = rows(raw.ask(query("SELECT count(*) FROM changing WHERE a = 2")))
        assert left == [[b"1" if error_of(answer) is None else b"0"]]


def test_other_servers_learn_of_it(cluster):
    """Found out on one server, it is prepared anew on the others without an error, also in transactions."""
    with plain_proxy(cluster, {"size": 3}) as proxy:
        proxy.wait_nodes()
        proxy.sql("DROP TABLE IF EXISTS changing", dbname="plain")
        proxy.sql("CREATE TABLE changing (a int)", dbname="plain")
        clients = [client(proxy) for _ in range(3)]
        for raw in clients:
            raw.ask(query("BEGIN"))
            raw.ask(parse("s", "SELECT * FROM changing"), bind("", "s"), execute(), SYNC)
        for raw in clients:
            raw.ask(query("COMMIT"))
        clients[0].ask(query("ALTER TABLE changing ADD b int"))
        assert kinds(clients[0].ask(bind("", "s"), describe("P", ""), execute(), SYNC)) == "2TCZ"
        for raw in clients:
            raw.ask(query("BEGIN"))
        for raw in clients:
            assert kinds(raw.ask(bind("", "s"), describe("P", ""), execute(), SYNC)) == "2TCZ"
        for raw in clients:
            raw.ask(query("COMMIT"))
            raw.close()
        proxy.sql("DROP TABLE changing", dbname="plain")


def test_the_same_text_under_another_search_path(narrow):
    """Tables of one name and different columns: the one found first by this client's search_path is meant."""
    for schema, columns in (("tenant_a", "a int"), ("tenant_b", "a int, b text")):
        narrow.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}", dbname="plain")
        narrow.sql(f"DROP TABLE IF EXISTS {schema}.things", dbname="plain")
        narrow.sql(f"CREATE TABLE {schema}.things ({columns})", dbname="plain")
    narrow.sql("INSERT INTO tenant_a.things VALUES (1)", dbname="plain")
    narrow.sql("INSERT INTO tenant_b.things VALUES (2, 'two')", dbname="plain")
    with client(narrow, search_path="tenant_a") as a, client(narrow, search_path="tenant_b") as b:
        for raw in (a, b):
            raw.ask(parse("s", "SELECT * FROM things"), SYNC)
        for _ in range(3):
            assert rows(a.ask(bind("", "s"), execute(), SYNC)) == [[b"1"]]
            assert rows(b.ask(bind("", "s"), execute(), SYNC)) == [[b"2", b"two"]]
    for schema in ("tenant_a", "tenant_b"):
        narrow.sql(f"DROP SCHEMA {schema} CASCADE", dbname="plain")


def test_an_error_for_a_text_that_was_good_elsewhere(narrow):
    """That one user's server took a text says nothing of another's, nor of the time after a change."""
    narrow.sql("CREATE TABLE IF NOT EXISTS for_a_while (a int)", dbname="plain")
    with client(narrow) as raw:
        assert kinds(raw.ask(parse("s", "SELECT * FROM for_a_while"), SYNC)) == "1Z"
        with closing(narrow.connect("plain")) as other:
            other.cursor().execute("SET search_path = pg_catalog")
            cursor = other.cursor()
            with pytest.raises(Exception) as caught:
                cursor.execute("PREPARE s AS SELECT * FROM for_a_while")
            assert caught.value.pgcode == "42P01"
        with client(narrow, search_path="pg_catalog") as other:
            assert error_of(other.ask(parse("s", "SELECT * FROM for_a_while"), SYNC))["C"] == "42P01"
        assert rows(raw.ask(bind("", "s"), execute(), SYNC)) == []
        raw.send(parse("t", "SELECT * FROM for_a_while"), describe("S", "t"), FLUSH)
        assert [raw.read()[0] for _ in range(3)] == ["1", "t", "T"]
        raw.ask(SYNC)
    narrow.sql("DROP TABLE for_a_while", dbname="plain")
