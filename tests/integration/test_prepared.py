"""Named prepared statements work although the server connection changes with every transaction."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from support import SYNC, Raw, bind, error_of, execute, kinds, parse, query, rows

pytestmark = pytest.mark.core


def test_statement_survives_a_change_of_server(cluster):
    """Many clients, few server connections: each prepared statement is there wherever it is bound."""
    with Proxy(cluster, options={"pool": {"size": 2}}) as proxy:
        clients = [Raw(proxy) for _ in range(8)]
        for number, client in enumerate(clients):
            assert kinds(client.ask(parse("same_name", f"SELECT {number} + $1::int"), SYNC)) == "1Z"
        for turn in range(6):
            for client in clients:
                client.send(bind("", "same_name", [str(turn).encode()]), execute(), SYNC)
            for number, client in enumerate(clients):
                assert rows(client.until_ready()) == [[str(number + turn).encode()]]
        for client in clients:
            client.close()


def test_prepared_in_psycopg(data):
    with data.connect3(prepare_threshold=0) as connection:
        for number in range(1, 101):
            row = connection.execute("SELECT id, name FROM users WHERE id = %s", (number,)).fetchone()
            assert row == (number, f"user {number:04d}")


def test_prepared_insert_goes_where_its_value_says(cluster, data):
    with data.connect3(prepare_threshold=0) as connection:
        for number in range(6000, 6030):
            connection.execute("INSERT INTO users (id, name) VALUES (%s, %s)", (number, "prepared"))
        parts = [node.value("SELECT count(*) FROM users WHERE id >= 6000") for node in cluster.primaries]
        assert sum(parts) == 30 and all(parts)
        assert connection.execute("DELETE FROM users WHERE id >= %s", (6000,)).rowcount == 30


def test_unnamed_statements_of_two_clients_never_mix(cluster):
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        with Raw(proxy) as first, Raw(proxy) as second:
            first.ask(parse("", "SELECT 'first', $1::text"), SYNC)
            second.ask(parse("", "SELECT 'second', $1::text"), SYNC)
            for _ in range(10):
                assert rows(first.ask(bind("", "", [b"a"]), execute(), SYNC)) == [[b"first", b"a"]]
                assert rows(second.ask(bind("", "", [b"b"]), execute(), SYNC)) == [[b"second", b"b"]]


def test_sql_prepare_and_execute(proxy):
    with closing(proxy.connect("plain")) as connection:
        cursor = connection.cursor()
        cursor.execute("PREPARE adds (int, int) AS SELECT $1 + $2")
        for number in range(10):
            cursor.execute(f"EXECUTE adds ({number}, 1)")
            assert cursor.fetchone()[0] == number + 1
        cursor.execute("DEALLOCATE adds")
        with pytest.raises(psycopg2.Error) as caught:
            cursor.execute("EXECUTE adds (1, 2)")
        assert caught.value.pgcode == "26000"


def test_deallocate_and_discard_all(proxy):
    with Raw(proxy, database="plain") as raw:
        for forget in ("DEALLOCATE s", "DEALLOCATE ALL", "DISCARD ALL"):
            raw.ask(parse("s", "SELECT 1"), SYNC)
            assert kinds(raw.ask(bind("", "s"), execute(), SYNC)) == "2DCZ"
            assert error_of(raw.ask(query(forget))) is None
            assert error_of(raw.ask(bind("", "s"), execute(), SYNC))["C"] == "26000", forget


def test_statement_that_failed_to_parse_is_not_kept(proxy):
    with Raw(proxy, database="plain") as raw:
        assert error_of(raw.ask(parse("bad", "SELECT * FROM no_such_table"), SYNC))["C"] == "42P01"
        assert kinds(raw.ask(parse("bad", "SELECT 5"), bind("", "bad"), execute(), SYNC)) == "12DCZ"


def test_thousand_statements_of_one_client(proxy):
    with Raw(proxy, database="plain") as raw:
        for number in range(1000):
            raw.send(parse(f"s{number}", f"SELECT {number}, $1::int"))
        raw.ask(SYNC)
        for number in range(0, 1000, 37):
            assert rows(raw.ask(bind("", f"s{number}", [b"1"]), execute(), SYNC)) == [[str(number).encode(), b"1"]]


def test_preparing_does_not_wait_for_an_exhausted_pool(cluster):
    """A text that a server has accepted before is prepared at once: pgbench -M prepared waits for one client's
    Parse while its other clients hold all servers. The server knows it from a client that has left."""
    with Proxy(cluster, options={"pool": {"size": 1}, "workers": 1}) as proxy:
        sql = "SELECT $1::int + 1"
        with Raw(proxy) as gone:
            assert rows(gone.ask(parse("s", sql), bind("", "s", [b"1"]), execute(), SYNC)) == [[b"2"]]
        with Raw(proxy) as holder, Raw(proxy, timeout=5) as other:
            holder.ask(query("BEGIN"))
            assert kinds(holder.ask(parse("s", sql), SYNC)) == "1Z"
            assert rows(holder.ask(bind("", "s", [b"2"]), execute(), SYNC)) == [[b"3"]]
            assert kinds(other.ask(parse("s", sql), SYNC)) == "1Z"
            holder.ask(query("COMMIT"))
            assert rows(other.ask(bind("", "s", [b"3"]), execute(), SYNC)) == [[b"4"]]
