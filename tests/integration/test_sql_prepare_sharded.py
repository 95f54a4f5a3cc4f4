"""EXECUTE of SQL in a database of several shards: its values say where it goes."""
from contextlib import closing

import pytest
from support import SYNC, Raw, bind, error_of, execute, kinds, query, rows
from test_same_as_postgres import run

pytestmark = pytest.mark.core


def test_execute_goes_to_the_shard_of_its_value(cluster, data):
    with Raw(data) as raw:
        assert kinds(raw.ask(query("PREPARE one (bigint) AS SELECT id, name FROM users WHERE id = $1"))) == "CZ"
        for number in range(1, 21):
            assert rows(raw.ask(query(f"EXECUTE one ({number})"))) == [[b"%d" % number, b"user %04d" % number]]
            assert rows(raw.ask(run(f"EXECUTE one ({number})"), SYNC)) == [[b"%d" % number, b"user %04d" % number]]
        raw.ask(query("PREPARE many AS SELECT id FROM users WHERE id <= $1 ORDER BY id DESC LIMIT $2"))
        assert rows(raw.ask(query("EXECUTE many (9, 3)"))) == [[b"9"], [b"8"], [b"7"]]
        assert rows(raw.ask(run("EXECUTE many (8, 2)"), SYNC)) == [[b"8"], [b"7"]]
        raw.ask(query("PREPARE counted AS SELECT count(*) FROM users WHERE id <= $1"))
        assert rows(raw.ask(query("EXECUTE counted (40)"))) == [[b"40"]]
        assert rows(raw.ask(bind("", "counted", [b"30"]), execute(), SYNC)) == [[b"30"]]
        assert rows(raw.ask(bind("", "one", [b"7"]), execute(), SYNC)) == [[b"7", b"user 0007"]]
        assert error_of(raw.ask(query("EXECUTE counted (1, 2)")))["C"] == "42601"


def test_execute_writes_where_its_value_says(cluster, data):
    with closing(data.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("PREPARE adds (bigint, text) AS INSERT INTO users (id, name) VALUES ($1, $2)")
        for number in range(7000, 7020):
            cursor.execute(f"EXECUTE adds ({number}, 'it''s')")
            assert cursor.statusmessage == "INSERT 0 1"
        parts = [node.value("SELECT count(*) FROM users WHERE id >= 7000") for node in cluster.primaries]
        assert sum(parts) == 20 and all(parts)
        cursor.execute("PREPARE gone AS DELETE FROM users WHERE id >= $1")
        cursor.execute("EXECUTE gone (7000)")
        assert cursor.rowcount == 20
        cursor.execute("EXPLAIN EXECUTE gone (7000)")
        assert "shard" in "\n".join(row[0] for row in cursor.fetchall()).lower()


def test_savepoints_of_a_query_that_begins_a_transaction(data):
    """A server that joins later knows the savepoints made in the Query that had the BEGIN among others."""
    with Raw(data) as raw:
        answer = raw.ask(query("BEGIN; SELECT name FROM users WHERE id = 1; SAVEPOINT a"))
        assert kinds(answer) == "CTDCCZ" and answer[-1] == ("Z", b"T")
        for number in range(2, 8):  # on both shards
            assert error_of(raw.ask(query(f"UPDATE users SET name = 'changed' WHERE id = {number}"))) is None
        assert error_of(raw.ask(query("ROLLBACK TO a"))) is None
        assert rows(raw.ask(query("SELECT count(*) FROM users WHERE name = 'changed'"))) == [[b"0"]]
        assert error_of(raw.ask(query("RELEASE a"))) is None
        assert raw.ask(query("COMMIT"))[-1] == ("Z", b"I")
