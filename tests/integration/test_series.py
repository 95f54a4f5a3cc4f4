"""Several statements in one Query message, on whatever shards: the messages of one Postgres come back."""
import socket
from contextlib import closing

import pytest

from harness.process import wait_until
from harness.sample import SCHEMA, statements
from support import Raw, error_of, fields, kinds, query

pytestmark = pytest.mark.core

# By the shard key 1 and 2, 3 and 4 ... are on both shards; notes is on the first, countries on each.
INSERTS = "; ".join(f"INSERT INTO users (id, name) VALUES ({number}, 'n{number}')" for number in range(1, 9))
TWO_ORDERS = "; ".join(f"INSERT INTO orders (id, user_id, amount, item) VALUES ({number}, {user}, 1, 'pen')"
                       for number, user in ((1, 1), (2, 1), (3, 2), (4, 3), (5, 4)))
SAME = {
    "inserts": [INSERTS, "SELECT id, name FROM users ORDER BY id"],
    "reads": [INSERTS, "SELECT name FROM users WHERE id = 1; SELECT name FROM users WHERE id = 2; "
                       "SELECT count(*) FROM users; SELECT 1 WHERE false; SELECT name FROM users WHERE id = 3"],
    "fan-outs": [INSERTS, "UPDATE users SET country = 'de'; UPDATE users SET country = 'at' WHERE id = 1; "
                          "SELECT country, count(*) FROM users GROUP BY country ORDER BY country; DELETE FROM users"],
    "what needs gathering": [INSERTS + "; SELECT string_agg(name, ',' ORDER BY id) FROM users; DELETE FROM users",
                             "SELECT count(*) FROM users"],
    "an error undoes all": [INSERTS + "; SELECT 1/0; SELECT 2", "SELECT count(*) FROM users"],
    "an error of a server that is not the last one": [INSERTS + "; INSERT INTO users (id) VALUES (20); SELECT 2",
                                                      "SELECT count(*) FROM users"],
    "an error's position": [INSERTS + "; SELECT 'ä', nothing FROM notes; SELECT 1"],
    "a syntax error": [INSERTS + "; SELEKT 1", "SELECT count(*) FROM users"],
    "a block": ["BEGIN; " + INSERTS + "; COMMIT", "SELECT count(*) FROM users"],
    "a block rolled back": ["BEGIN; " + INSERTS + "; ROLLBACK", "SELECT count(*) FROM users"],
    "a block left open": ["BEGIN; " + INSERTS, "SELECT count(*) FROM users", "ROLLBACK",
                          "SELECT count(*) FROM users"],
    "a block that fails": ["BEGIN; " + INSERTS + "; SELECT 1/0; SELECT 1", "SELECT 1", "ROLLBACK",
                           "SELECT count(*) FROM users"],
    "a block around it": ["BEGIN", INSERTS, INSERTS, "COMMIT", "SELECT count(*) FROM users"],
    "a block begun late": [INSERTS + "; BEGIN; UPDATE users SET name = 'x'", "ROLLBACK",
                           "SELECT count(*) FROM users"],
    "a block begun late, committed": [INSERTS + "; BEGIN; UPDATE users SET name = 'x'; COMMIT; SELECT 1",
                                      "SELECT count(*) FROM users WHERE name = 'x'"],
    "a block committed, an error behind": ["BEGIN; " + INSERTS + "; COMMIT; DELETE FROM users; SELECT 1/0",
                                           "SELECT count(*) FROM users"],
    "COMMIT without a block": [INSERTS + "; COMMIT; DELETE FROM users; SELECT 1/0", "SELECT count(*) FROM users"],
    "ROLLBACK without a block": [INSERTS + "; ROLLBACK; SELECT count(*) FROM users; " + INSERTS,
                                 "SELECT count(*) FROM users"],
    "COMMIT first": ["COMMIT; " + INSERTS + "; ROLLBACK; ROLLBACK", "SELECT count(*) FROM users"],
    "chains without a block": [INSERTS + "; COMMIT AND CHAIN; SELECT 1", "SELECT count(*) FROM users",
                               INSERTS + "; ROLLBACK AND CHAIN"],
    "chains": ["BEGIN; " + INSERTS + "; COMMIT AND CHAIN; DELETE FROM users; ROLLBACK AND CHAIN; "
               "SELECT count(*) FROM users; COMMIT"],
    "BEGIN twice": ["BEGIN; " + INSERTS + "; BEGIN; COMMIT; SELECT count(*) FROM users"],
    "savepoints": ["BEGIN; " + INSERTS + "; SAVEPOINT a; DELETE FROM users; ROLLBACK TO a; "
                   "SELECT count(*) FROM users; RELEASE a; COMMIT"],
    "savepoints without a block": [INSERTS + "; SAVEPOINT a; SELECT 1", INSERTS + "; RELEASE a",
                                   INSERTS + "; ROLLBACK TO a", "SELECT count(*) FROM users"],
    "COMMIT of a transaction over shards, with other statements": [
        "BEGIN", INSERTS, "UPDATE users SET name = 'y' WHERE id = 1; COMMIT", "SELECT count(*) FROM users"],
    "back to a savepoint, with other statements": [
        "BEGIN", "SAVEPOINT a", INSERTS, "SELECT 1; ROLLBACK TO a", "SELECT count(*) FROM users", "COMMIT"],
    "serializable": ["BEGIN ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; " + INSERTS + "; COMMIT"],
    "read only": [INSERTS, "BEGIN READ ONLY; SELECT count(*) FROM users; SELECT name FROM users WHERE id = 1; COMMIT; "
                           "UPDATE users SET name = 'z'; SELECT count(*) FROM users WHERE name = 'z'"],
    "a change in a read-only block": ["BEGIN READ ONLY; SELECT 1; " + INSERTS, "ROLLBACK"],
    "settings": ["SET work_mem = '3MB'; " + INSERTS + "; SHOW work_mem; SELECT 1/0", "SHOW work_mem",
                 "SET work_mem = '3MB'; DELETE FROM users", "SHOW work_mem"],
    "settings of the transaction": ["SET LOCAL work_mem = '3MB'; " + INSERTS + "; SHOW work_mem", "SHOW work_mem"],
    "a table made and filled": ["CREATE TABLE made (a int); INSERT INTO made VALUES (1); SELECT * FROM made; "
                                "DROP TABLE made"],
    "a migration that fails": ["ALTER TABLE users ADD COLUMN more int; " + INSERTS + "; SELECT more FROM nowhere",
                               "SELECT count(*) FROM pg_attribute WHERE attname = 'more' "
                               "AND attrelid = 'users'::regclass"],
    "VACUUM among others": [INSERTS + "; VACUUM users", "SELECT count(*) FROM users"],
    "a deferred check that fails": [
        "ALTER TABLE orders ADD CONSTRAINT u UNIQUE (user_id, item) DEFERRABLE INITIALLY DEFERRED; SELECT 1",
        "BEGIN; " + TWO_ORDERS + "; COMMIT; SELECT 2", "SELECT count(*) FROM orders",
        "ALTER TABLE orders DROP CONSTRAINT u; SELECT 1"],
    "COPY TO": [INSERTS + "; COPY notes TO STDOUT; SELECT count(*) FROM users"],
    "a change of every copy": ["INSERT INTO countries VALUES ('it', 'Italy'); " + INSERTS +
                               "; SELECT count(*) FROM countries"],
    "prepared statements without aliases": [
        INSERTS, "PREPARE p (int) AS SELECT $1", "PREPARE q AS SELECT $1::text, id, $2 + 1, count(*) FROM users WHERE id < $2 GROUP BY id ORDER BY id",
        "EXECUTE p (1); EXECUTE p (2)", "EXECUTE q ('x', 4)", "EXECUTE p (3); EXECUTE q ('x', 4); SELECT 5; EXECUTE p (6)",
        "EXECUTE p (1); EXECUTE p (1, 2); EXECUTE p (3)",
        "PREPARE r AS SELECT $1::int; EXECUTE r (1); EXECUTE p (2)", "EXECUTE p (4); EXECUTE nobody (5)", "EXECUTE p (1); DEALLOCATE p; EXECUTE p (2)"],
    "prepared statements that change rows": [
        INSERTS, "PREPARE w AS UPDATE users SET name = $2 WHERE id = $1 RETURNING $2", "PREPARE d AS DELETE FROM users WHERE id = $1",
        "EXECUTE w (1, 'a'); EXECUTE w (2, 'b'); EXECUTE d (3)", "EXECUTE d (4); EXECUTE d (5); SELECT 1/0", "EXECUTE d (6); EXECUTE d (1 / 0)",
        "BEGIN; EXECUTE d (7); EXECUTE w (8, 'c'); ROLLBACK", "BEGIN", "EXECUTE d (7); SAVEPOINT a; EXECUTE d (8); ROLLBACK TO a", "COMMIT",
        "SELECT id, name FROM users ORDER BY id"],
    "RETURNING": [INSERTS, "UPDATE users SET name = 'w' WHERE id = 3 RETURNING id; "
                           "DELETE FROM users WHERE id = 4 RETURNING name; DELETE FROM users WHERE id = 99"],
}


class Direct:
    """What Raw needs of a proxy, for a server."""

    def __init__(self, node):
        self.node = node

    def socket(self, timeout):
        return socket.create_connection((self.node.host, self.node.port), timeout)


def comparable(messages):
    """Without what pgshunt cannot know: of errors what a client acts on."""
    found = []
    for kind, body in messages:
        if kind == "T":
            found.append((kind, len(body)))
        elif kind in "EN":
            found.append((kind, {name: text for name, text in fields(body).items() if name in "SCMP"}))
        elif kind != "S":
            found.append((kind, body))
    return found


@pytest.fixture(scope="module")
def databases(cluster, tables):
    """The same empty tables in one Postgres and over two shards."""
    node = cluster.shards[0].primary
    node.sql("CREATE DATABASE one_series")
    with closing(node.connect("one_series")) as connection:
        for statement in statements(SCHEMA):
            connection.cursor().execute(statement)
    yield Direct(node), tables
    node.sql("DROP DATABASE one_series WITH (FORCE)")


def empty(connectable, database):
    with Raw(connectable, database=database) as raw:
        for sql in ("DELETE FROM users", "DELETE FROM countries", "DELETE FROM notes"):
            assert "E" not in kinds(raw.ask(query(sql)))


@pytest.mark.parametrize("name", SAME)
def test_same_answers(databases, name):
    server, proxy = databases
    empty(server, "one_series")
    empty(proxy, "app")
    with Raw(server, database="one_series") as raw:
        expected = [comparable(raw.ask(query(sql))) for sql in SAME[name]]
    with Raw(proxy, database="app") as raw:
        for number, sql in enumerate(SAME[name]):
            assert comparable(raw.ask(query(sql))) == expected[number], sql


def test_a_key_said_in_the_message_counts_for_what_follows(cluster, databases):
    _, proxy = databases
    empty(proxy, "app")
    with Raw(proxy, database="app") as raw:
        raw.ask(query(INSERTS))
        counts = []
        for shard in ("s0", "s1"):
            answer = raw.ask(query(f"SET pgshunt.shard = '{shard}'; SELECT count(*) FROM users; RESET pgshunt.shard; "
                                   "SELECT count(*) FROM users"))
            assert kinds(answer) == "CTDCCTDCZ"
            numbers = [body[6:] for kind, body in answer if kind == "D"]
            assert numbers[1] == b"8"
            counts.append(int(numbers[0]))
        assert sum(counts) == 8 and all(counts)
        failed = raw.ask(query("SET pgshunt.shard = 's1'; SELECT 1/0"))
        assert kinds(failed) == "CEZ"
        assert [body for kind, body in raw.ask(query("SHOW pgshunt.shard")) if kind == "D"][0][6:] != b"s1"


def test_a_deferred_check_at_the_end(databases):
    """The error comes behind the last statement's answer, and nothing of the message stays."""
    _, proxy = databases
    with Raw(proxy, database="app") as raw:
        raw.ask(query("ALTER TABLE orders ADD CONSTRAINT u UNIQUE (user_id, item) DEFERRABLE INITIALLY DEFERRED"))
        answer = raw.ask(query(TWO_ORDERS))
        assert kinds(answer) == "CCCCCEZ" and error_of(answer)["C"] == "23505" and answer[-1] == ("Z", b"I")
        raw.ask(query("ALTER TABLE orders DROP CONSTRAINT u"))
        assert raw.ask(query("SELECT count(*) FROM orders"))[1][1].endswith(b"0")


def test_modes_of_a_block_begun_late_are_refused(databases):
    _, proxy = databases
    empty(proxy, "app")
    with Raw(proxy, database="app") as raw:
        answer = raw.ask(query(INSERTS + "; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1"))
        assert error_of(answer)["C"] == "25001" and answer[-1] == ("Z", b"I")
        assert raw.ask(query("SELECT count(*) FROM users"))[1][1].endswith(b"0")


def test_prepared_statements_in_the_message(databases):
    _, proxy = databases
    empty(proxy, "app")
    with Raw(proxy, database="app") as raw:
        raw.ask(query(INSERTS))
        answer = raw.ask(query("PREPARE p (int) AS SELECT name FROM users WHERE id = $1; EXECUTE p (1); EXECUTE p (2); "
                               "EXECUTE p (3); EXECUTE p (4)"))
        assert kinds(answer) == "C" + "TDC" * 4 + "Z"
        assert [body[6:] for kind, body in answer if kind == "D"] == [b"n1", b"n2", b"n3", b"n4"]
        assert kinds(raw.ask(query("EXECUTE p (5); EXECUTE p (6); EXECUTE p (7)"))) == "TDC" * 3 + "Z"


def test_a_thousand_statements(databases):
    _, proxy = databases
    empty(proxy, "app")
    with Raw(proxy, database="app") as raw:
        answer = raw.ask(query("; ".join(["SET pgshunt.key = '1'"] * 3000) + "; RESET pgshunt.key; " + "; ".join(
            f"INSERT INTO users (id, name) VALUES ({number}, 'n')" for number in range(1000))))
        assert kinds(answer) == "C" * 4001 + "Z"
        assert raw.ask(query("SELECT count(*) FROM users"))[1][1].endswith(b"1000")


def test_a_server_lost_in_the_middle(cluster, databases):
    """Nothing of it stays, the client is told, and the session goes on."""
    _, proxy = databases
    empty(proxy, "app")
    node = cluster.primaries[1]
    kill = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'")
    with Raw(proxy, database="app") as raw:
        raw.send(query(INSERTS + "; SELECT pg_sleep(30) FROM users WHERE id IN (1, 2, 3, 4); SELECT 1"))
        wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), 10,
                   "the sleep")
        node.sql(kill)
        answer = raw.until_ready()
        assert "E" in kinds(answer) and answer[-1] == ("Z", b"I")
        assert raw.ask(query("SELECT count(*) FROM users"))[1][1].endswith(b"0")
