"""Lookups: statements that ask by another column than the key go to the shard that has it, and are never wrong."""
import random
import signal
import threading
import time
from contextlib import closing, contextmanager

import psycopg2
import psycopg2.extensions
import pytest

from ctl_support import ctl, start_ctl
from harness import Cluster, Proxy, wait_until
from support import SYNC, Raw, bind, describe, execute, explain, fetch, one, parse

pytestmark = pytest.mark.core

KEYSPACE = {
    "name": "users", "type": "bigint",
    "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}],
    "lookup": [{"table": "users", "column": "email", "unique": True}, {"table": "orders", "column": "id"},
               {"table": "users", "column": "ref"}],
}
TABLES = [
    "CREATE TABLE users (id bigint PRIMARY KEY, email text, ref uuid, visits int NOT NULL DEFAULT 0)",
    "CREATE TABLE orders (id int NOT NULL, user_id bigint NOT NULL, placed date NOT NULL, total int) "
    "PARTITION BY RANGE (placed)",
    "CREATE TABLE orders_2024 PARTITION OF orders FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
    "CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') "
    "PARTITION BY LIST (id)",
    "CREATE TABLE orders_2025_all PARTITION OF orders_2025 DEFAULT",
]
USERS = 90


def email(user):
    return f"user{user}@example.com"


def ref(user):
    return f"00000000-0000-0000-0000-{user:012d}"


@pytest.fixture(scope="module")
def three():
    with Cluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def proxy(three):
    with Proxy(three, keyspaces=[KEYSPACE]) as proxy:
        proxy.wait_nodes()
        fill(proxy)
        ctl(proxy, "lookup", "create", "app")
        wait_ready(proxy)
        yield proxy


def fill(proxy):
    with closing(proxy.connect()) as connection:
        for table in TABLES:
            fetch_none(connection, table)
        users = range(1, USERS + 1)
        fetch_none(connection, "INSERT INTO users (id, email, ref) VALUES " +
                   ", ".join(f"({user}, '{email(user)}', '{ref(user)}')" for user in users))
        fetch_none(connection, "INSERT INTO orders VALUES " +
                   ", ".join(f"({1000 + user}, {user}, '202{5 - user % 2}-05-05', {user})" for user in users))


def fetch_none(connection, sql, params=None):
    connection.cursor().execute(sql, params)


def touch_schema(proxy):
    """Makes the proxy read the schema soon."""
    proxy.sql("CREATE TABLE touched (n int)")
    proxy.sql("DROP TABLE touched")


def states(proxy):
    return {row["lookup"]: row["state"] for row in proxy.show("LOOKUPS")}


def wait_states(proxy, state, names=("users.email", "orders.id", "users.ref")):
    touch_schema(proxy)
    wait_until(lambda: all(states(proxy).get(name) == state for name in names), 20.0, f"lookups {state}")


def wait_ready(proxy, *names):
    wait_states(proxy, "ready", names or ("users.email", "orders.id", "users.ref"))


def counts(proxy, name="users.email"):
    return next({column: int(row[column]) for column in ("cached", "hits", "misses", "stale", "failed")}
                for row in proxy.show("LOOKUPS") if row["lookup"] == name)


@contextmanager
def session(proxy, **more):
    with closing(proxy.connect(**more)) as connection:
        yield connection


def shard_of(three, user):
    return next(i for i, node in enumerate(three.primaries)
                if node.sql("SELECT 1 FROM users WHERE id = %s", (user,)))


# ---- finding ----

def test_explain_tells_what_was_looked_up(proxy, three):
    with session(proxy) as client:
        for user in (1, 2, 3, 4):
            shard = f"s{shard_of(three, user)}"
            plan = explain(client, "SELECT * FROM users WHERE email = %s", (email(user),))
            assert f"pgshunt: direct to shard {shard}" in plan
            assert f"lookup users.email = '{email(user)}' -> key {user}" in plan
            plan = explain(client, f"UPDATE orders SET total = 1 WHERE id = {1000 + user}")
            assert f"lookup orders.id = '{1000 + user}' -> key {user})" in plan
        before = counts(proxy)
        again = explain(client, "SELECT * FROM users WHERE email = %s", (email(1),))
        assert "-> key 1, cached" in again
        assert counts(proxy)["hits"] == before["hits"] + 1
        assert "no row" in explain(client, "SELECT * FROM users WHERE email = 'nobody'")


SAME = [
    "SELECT id, visits FROM users WHERE email = 'user7@example.com'",
    "SELECT count(*) FROM users WHERE email = 'user7@example.com'",
    "SELECT count(*) FROM users WHERE email = 'nobody'",
    "SELECT id FROM users WHERE email IN ('user1@example.com', 'user2@example.com', 'x') ORDER BY id",
    "SELECT id FROM users WHERE ref = '00000000-0000-0000-0000-000000000009'",
    "SELECT id FROM users WHERE ref = '{00000000-0000-0000-0000-00000000000A}' OR false",
    "SELECT u.email, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE o.id = 1011",
    "SELECT rank() OVER (ORDER BY o.total), u.id FROM users u JOIN orders o ON o.user_id = u.id "
    "WHERE u.email = 'user12@example.com'",
    "WITH x AS (SELECT * FROM orders WHERE id = 1013) SELECT user_id, count(*) FROM x GROUP BY 1",
    "SELECT * FROM orders_2025 WHERE id = 1014",
    "SELECT id FROM orders WHERE id = ANY ('{1015,1016}') ORDER BY id",
]


def test_answers_are_those_of_all_shards(proxy, three):
    """What all shards say without lookups is what lookups must give."""
    with session(proxy) as client:
        with Proxy(three, keyspaces=[dict(KEYSPACE, lookup=[])]) as plain:
            plain.wait_nodes()
            for statement in SAME:
                wanted = plain.sql(statement)
                for _ in range(2):
                    assert fetch(client, statement) == wanted, statement


def test_prepared_statements_with_text_and_binary_values(proxy):
    with closing(proxy.connect3()) as client:
        for binary in (False, True):
            for user in (21, 22, 23, 21):
                cursor = client.cursor(binary=binary)
                marker = "%b" if binary else "%t"
                cursor.execute(f"SELECT id FROM users WHERE email = {marker}", (email(user),), prepare=True)
                assert cursor.fetchall() == [(user,)]
                cursor.execute(f"SELECT user_id FROM orders WHERE id = {marker}", (1000 + user,), prepare=True)
                assert cursor.fetchall() == [(user,)]
                cursor.execute(f"UPDATE users SET visits = visits + 1 WHERE email = {marker}", (email(user),))
                assert cursor.rowcount == 1
        with client.pipeline():
            cursors = [client.execute("SELECT id FROM users WHERE email = %s", (email(user),)) for user in range(1, 40)]
            assert [cursor.fetchall() for cursor in cursors] == [[(user,)] for user in range(1, 40)]


def test_prepare_and_execute(proxy):
    with session(proxy) as client:
        fetch_none(client, "PREPARE p (text) AS SELECT id FROM users WHERE email = $1")
        for user in (31, 32, 33):
            assert one(client, f"EXECUTE p ('{email(user)}')") == user


def test_changes_touch_one_shard(proxy):
    with session(proxy) as client:
        before = int(proxy.show("STATS")[0]["total_server_assignment_count"])
        cursor = client.cursor()
        cursor.execute("UPDATE users SET visits = 100 WHERE email = %s", (email(41),))
        assert cursor.rowcount == 1
        cursor.execute("DELETE FROM orders WHERE id = %s", (1041,))
        assert cursor.rowcount == 1
        cursor.execute("UPDATE users SET visits = 100 WHERE email = 'nobody'")
        assert cursor.rowcount == 0
        app = next(row for row in proxy.show("STATS") if row["database"] == "app")
        assert int(app["total_server_assignment_count"]) - before <= 3
        cursor.execute("INSERT INTO orders VALUES (1041, 41, '2024-01-02', 41)")


# ---- rows that come, go and move ----

def test_rows_written_directly_on_a_shard_are_found(proxy, three):
    with session(proxy) as client:
        for shard, node in enumerate(three.primaries):
            assert fetch(client, f"SELECT id FROM orders WHERE id = {5000 + shard}") == []
            node.sql(f"INSERT INTO orders VALUES ({5000 + shard}, 77, '2025-02-02', {shard})")
            assert fetch(client, f"SELECT total FROM orders WHERE id = {5000 + shard}") == [(shard,)]
            node.sql(f"DELETE FROM orders WHERE id = {5000 + shard}")
            assert fetch(client, f"SELECT total FROM orders WHERE id = {5000 + shard}") == []


def test_values_on_several_shards_are_all_found(proxy, three):
    """orders.id is no unique lookup: each shard is asked each time."""
    with session(proxy) as client:
        for shard, node in enumerate(three.primaries):
            node.sql(f"INSERT INTO orders VALUES (6000, {shard}, '2025-02-02', {shard})")
            assert fetch(client, "SELECT total FROM orders WHERE id = 6000 ORDER BY total") == \
                [(n,) for n in range(shard + 1)]
        cursor = client.cursor()
        cursor.execute("DELETE FROM orders WHERE id = 6000")
        assert cursor.rowcount == 3


def test_a_value_that_has_moved_is_found_where_it_is(proxy, three):
    with session(proxy) as client:
        user = 51
        home = shard_of(three, user)
        other = next(n for n in range(91, 300) if n % 3 >= 0 and elsewhere(proxy, n, home))
        assert one(client, "SELECT id FROM users WHERE email = %s", (email(user),)) == user
        before = counts(proxy)
        three.primaries[home].sql("UPDATE users SET email = 'old' WHERE id = %s", (user,))
        fetch_none(client, "INSERT INTO users (id, email) VALUES (%s, %s)", (other, email(user)))
        try:
            for _ in range(12):  # each worker has a cache of its own
                with session(proxy) as fresh:
                    assert one(fresh, "SELECT id FROM users WHERE email = %s", (email(user),)) == other
            assert counts(proxy)["stale"] >= before["stale"] + 1
        finally:
            fetch_none(client, "DELETE FROM users WHERE id = %s", (other,))
            three.primaries[home].sql("UPDATE users SET email = %s WHERE id = %s", (email(user), user))
        assert one(client, "SELECT id FROM users WHERE email = %s", (email(user),)) == user


GUESSES = [  # those whose rows show that they have the value, and those whose rows do not
    "SELECT id FROM users WHERE email = {}",
    "SELECT id, rank() OVER (ORDER BY id) FROM users WHERE email = {} ORDER BY id LIMIT 3",
    "SELECT u.id FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.email = {}",
    "SELECT max(id) FROM users WHERE email = {}",
    "SELECT id FROM users WHERE email IN ({}, 'nobody')",
    "SELECT (SELECT id FROM users WHERE email = {})",
    "SELECT max(id) FROM users WHERE email = {} GROUP BY email",
]


def test_guesses_that_were_wrong_are_nobodys_answer(proxy, three):
    """Each statement is asked where the value was, has moved from, and is not at all; simple and extended."""
    client, three_client = proxy.connect(), proxy.connect3()
    user, there = 52, shard_of(three, 52)
    other = next(n for n in range(91, 300) if elsewhere(proxy, n, there))
    fetch_none(client, "INSERT INTO users (id, email) VALUES (%s, 'other52')", (other,))
    here = shard_of(three, other)
    swap = "UPDATE users SET email = %s WHERE id = %s"

    def ask(statement):
        """The user, as each protocol tells; a worker remembers what its own clients have asked."""
        told = [fetch(client, statement.format(f"'{email(user)}'"))]
        told += [three_client.execute(statement.format("%s"), (email(user),), prepare=prepare).fetchall()
                 for prepare in (False, True)]
        assert all(rows == told[0] for rows in told), told
        return [row[0] for row in told[0] if row[0] is not None]

    try:
        for statement in GUESSES:
            for _ in range(2):
                assert ask(statement) == [user]
            three.primaries[there].sql(swap, ("old", user))
            three.primaries[here].sql(swap, (email(user), other))
            assert ask(statement) == [other]
            assert ask(statement) == [other]
            three.primaries[here].sql(swap, ("other52", other))
            assert ask(statement) == []
            three.primaries[there].sql(swap, (email(user), user))
            for _ in range(2):
                assert ask(statement) == [user]
                assert ask(statement + " AND false" if "GROUP" not in statement and "max" not in statement and
                           "(SELECT" not in statement and "ORDER" not in statement else statement) in ([], [user])
    finally:
        fetch_none(client, "DELETE FROM users WHERE id = %s", (other,))
        three.primaries[there].sql(swap, (email(user), user))
        client.close()
        three_client.close()


def test_guesses_in_pipelines(proxy, three):
    """Batches that come while a guess is under way, and such that hold several statements."""
    user, there = 53, shard_of(three, 53)
    swap = "UPDATE users SET email = %s WHERE id = 53"
    batch = [parse("", "SELECT id FROM users WHERE email = $1"), bind("", "", [email(user).encode()]), execute(), SYNC]
    with Raw(proxy, database="app") as client:
        for moved in (False, True, True, False):
            three.primaries[there].sql(swap, ("moved" if moved else email(user),))
            client.send(*batch * 5)
            rows = [[kind for kind, _ in client.until_ready()].count("D") for _ in range(5)]
            assert rows == [0 if moved else 1] * 5
            client.send(*batch[:3] * 3, SYNC)
            assert [kind for kind, _ in client.until_ready()].count("D") == (0 if moved else 3)
            client.send(batch[0], describe("S", ""), batch[1], describe("P", ""), batch[2], SYNC)
            kinds = "".join(kind for kind, _ in client.until_ready())
            assert kinds == ("1tT2TCZ" if moved else "1tT2TDCZ")


def elsewhere(proxy, user, shard):
    with session(proxy) as client:
        return f"shard s{shard} " not in explain(client, f"SELECT * FROM users WHERE id = {user}")


# ---- transactions ----

def test_own_writes_are_seen(proxy, three):
    with session(proxy, autocommit=False) as client:
        cursor = client.cursor()
        for user in (301, 302, 303, 304, 305):  # on several shards
            cursor.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (user, email(user)))
            cursor.execute("SELECT id FROM users WHERE email = %s", (email(user),))
            assert cursor.fetchall() == [(user,)]
            cursor.execute("SELECT id FROM users WHERE email = %s", (email(user - 240),))
            assert cursor.fetchall() == [(user - 240,)]
        cursor.execute("UPDATE users SET email = 'mine' WHERE email = %s", (email(61),))
        assert cursor.rowcount == 1
        cursor.execute("SELECT id FROM users WHERE email = 'mine'")
        assert cursor.fetchall() == [(61,)]
        cursor.execute("SELECT id FROM users WHERE email = %s", (email(61),))
        assert cursor.fetchall() == []
        with session(proxy) as other:
            assert fetch(other, "SELECT id FROM users WHERE email = 'mine'") == []
            assert fetch(other, "SELECT id FROM users WHERE email = %s", (email(61),)) == [(61,)]
            assert fetch(other, "SELECT id FROM users WHERE email = %s", (email(301),)) == []
        client.rollback()
        cursor.execute("SELECT id FROM users WHERE email IN ('mine', %s)", (email(61),))
        assert cursor.fetchall() == [(61,)]
        client.rollback()


def test_own_writes_in_one_message_and_in_a_pipeline(proxy):
    with session(proxy) as client:
        assert one(client, "INSERT INTO users (id, email) VALUES (311, 'same'); "
                           "SELECT id FROM users WHERE email = 'same'") == 311
        fetch_none(client, "DELETE FROM users WHERE id = 311")
    with closing(proxy.connect3()) as client:
        with client.pipeline():
            client.execute("INSERT INTO users (id, email) VALUES (%s, %s)", (312, "piped"))
            found = client.execute("SELECT id FROM users WHERE email = %s", ("piped",))
            gone = client.execute("DELETE FROM users WHERE email = %s", ("piped",))
            assert found.fetchall() == [(312,)]
            assert gone.rowcount == 1


def test_repeatable_read_sees_its_snapshot(proxy, three):
    with session(proxy, autocommit=False) as client:
        client.set_session(isolation_level="REPEATABLE READ")
        home = shard_of(three, 71)
        assert fetch(client, "SELECT id FROM users WHERE email = %s", (email(71),)) == [(71,)]
        three.primaries[home].sql("UPDATE users SET email = 'later' WHERE id = 71")
        try:
            assert fetch(client, "SELECT id FROM users WHERE email = %s", (email(71),)) == [(71,)]
        finally:
            client.rollback()
            three.primaries[home].sql("UPDATE users SET email = %s WHERE id = 71", (email(71),))


def test_a_shard_that_cannot_be_asked_costs_no_answer(proxy, three):
    """Somebody drops the function on one shard: statements go to all shards, as without the lookup."""
    function = next(row["function"] for row in proxy.show("LOOKUPS") if row["lookup"] == "orders.id")
    three.primaries[2].sql(f"DROP FUNCTION pgshunt.{function}(text[])")
    with session(proxy) as client:
        before = counts(proxy, "orders.id")
        for user in range(1, 10):
            assert one(client, f"UPDATE orders SET total = 1 WHERE id = {1000 + user} RETURNING user_id") == user
        assert counts(proxy, "orders.id")["failed"] > before["failed"]
        ran = ctl(proxy, "lookup", "verify", "app", "orders.id", code=5)
        assert "s2: orders.id: there is no function" in ran.out
        ctl(proxy, "lookup", "verify", "app", "orders.id", "--repair")
        for user in range(1, 10):
            assert one(client, f"UPDATE orders SET total = 1 WHERE id = {1000 + user} RETURNING user_id") == user
        assert "lookup orders.id" in explain(client, "DELETE FROM orders WHERE id = 1001")


# ---- under load ----

def test_concurrent_changes_through_the_proxy_and_on_shards(proxy, three):
    """Values wander from user to user, and so from shard to shard, while others ask for them: who asks is told one
    of the users that have had the value, and after the end exactly the last; nothing is lost or met twice."""
    names = [f"wanderer{n}" for n in range(6)]
    owners = {name: 400 + n for n, name in enumerate(names)}
    fixed = {email(user): user for user in range(1, 30)}
    users = list(range(400, 430))
    with session(proxy) as client:
        for user in users:
            fetch_none(client, "INSERT INTO users (id, email) VALUES (%s, %s)",
                       (user, next((name for name, owner in owners.items() if owner == user), f"none{user}")))
    homes = {user: shard_of(three, user) for user in users}
    stop, wrong = threading.Event(), []

    def wander(seed):
        """Gives its values to other users: in turn through the proxy and directly on the shards."""
        chance = random.Random(seed)
        mine, theirs = names[seed::2], users[seed::2]
        with session(proxy, autocommit=False) as client:
            while not stop.is_set():
                name = chance.choice(mine)
                old, new = owners[name], chance.choice([user for user in theirs if user not in owners.values()])
                owners[name] = new
                if chance.random() < 0.5:
                    fetch_none(client, "UPDATE users SET email = %s WHERE id = %s", (f"none{old}", old))
                    fetch_none(client, "UPDATE users SET email = %s WHERE id = %s", (name, new))
                    client.commit()
                else:
                    three.primaries[homes[old]].sql("UPDATE users SET email = %s WHERE id = %s", (f"none{old}", old))
                    three.primaries[homes[new]].sql("UPDATE users SET email = %s WHERE id = %s", (name, new))

    def ask(seed):
        chance = random.Random(100 + seed)
        with session(proxy) as client:
            while not stop.is_set():
                name = chance.choice(names)
                found = fetch(client, "SELECT id FROM users WHERE email = %s", (name,))
                if any(user not in users for user, in found):
                    wrong.append((name, found))
                name, user = chance.choice(list(fixed.items()))
                found = fetch(client, "SELECT id, email FROM users WHERE email = %s", (name,))
                if found != [(user, name)]:
                    wrong.append((name, found))

    threads = [threading.Thread(target=work, args=(seed,)) for work in (wander, ask) for seed in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(4)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:5]
    with session(proxy) as client:
        for name, owner in owners.items():
            for _ in range(3):
                assert fetch(client, "SELECT id FROM users WHERE email = %s", (name,)) == [(owner,)]
        cursor = client.cursor()
        cursor.execute("DELETE FROM users WHERE id >= 400")
        assert cursor.rowcount == len(users)


# ---- pgshuntctl lookup ----

def test_proxies_are_told(three, proxy):
    """What pgshuntctl has made or dropped is read at once by every proxy, not at the next look at the schema."""
    told = "the schema is read anew: a change was announced"
    with Proxy(three, keyspaces=[KEYSPACE]) as other:
        other.wait_nodes()
        for command in ("drop", "create"):
            before = [side.log().count(told) for side in (proxy, other)]
            ctl(proxy, "lookup", command, "app", "users.ref")
            wait_until(lambda: all(side.log().count(told) > count for side, count in zip((proxy, other), before)), 20.0,
                       "both proxies told")
            ready = command == "create"
            wait_until(lambda: all((states(side)["users.ref"] == "ready") == ready for side in (proxy, other)), 20.0,
                       "both proxies to know")
            before = proxy.log().count(told)
            ctl(proxy, "lookup", "verify", "app", "users.ref", code=None)
            assert proxy.log().count(told) == before



@pytest.fixture(scope="module")
def apart_proxy(three):
    three.create_database("apart")
    keyspace = {"name": "k", "type": "bigint", "tables": [{"name": "things", "key": "owner"}],
                "lookup": [{"table": "things", "column": "code", "unique": True}]}
    with Proxy(three, dbname="apart", databases=[
            {"name": "apart", "shards": [dict(shard, dbname="apart") for shard in three.shard_config()],
             "keyspaces": [keyspace]}]) as proxy:
        proxy.wait_nodes()
        yield proxy
    for node in three.primaries:
        node.sql("DROP DATABASE apart WITH (FORCE)", dbname="postgres")


@pytest.fixture
def apart(apart_proxy):
    """A database of its own with one table, and a lookup that is not set up yet."""
    ctl(apart_proxy, "lookup", "drop", "apart", "things.code")
    apart_proxy.sql("DROP TABLE IF EXISTS things")
    apart_proxy.sql("CREATE TABLE things (owner bigint NOT NULL, code text)")
    apart_proxy.sql("INSERT INTO things VALUES " + ", ".join(f"({n}, 'code {n}')" for n in range(300)))
    return apart_proxy


def remains(three):
    """What a lookup has left behind: indexes and functions."""
    return [row for node in three.primaries for row in node.sql(
        "SELECT relname::text FROM pg_class WHERE relname LIKE '%lookup%' "
        "UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'lookup%'", dbname="apart")]


def test_create_verify_drop(apart, three):
    with closing(apart.connect()) as client:
        assert "scatter-merge" in explain(client, "SELECT owner FROM things WHERE code = 'code 5'")
        planned = ctl(apart, "lookup", "create", "apart", "--dry-run", "--json")
        assert len(planned.texts("planned")) == 6 and planned.json["dry_run"] is True
        assert remains(three) == []
        assert ctl(apart, "lookup", "verify", "apart", code=5).out.count("PROBLEM") == 6
        made = ctl(apart, "lookup", "create", "apart", "things.code", "--json")
        assert made.texts("done").count("index built") == 3
        wait_states(apart, "ready", ["things.code"])
        assert "direct to shard" in explain(client, "SELECT owner FROM things WHERE code = 'code 5'")
        assert "is there" in ctl(apart, "lookup", "create", "apart").out
        assert "All is well." in ctl(apart, "lookup", "verify", "apart").out
        assert fetch(client, "SELECT owner FROM things WHERE code = 'code 5'") == [(5,)]
        assert "would be done" in ctl(apart, "lookup", "drop", "apart", "things.code", "--dry-run").out
        ctl(apart, "lookup", "drop", "apart", "things.code")
        assert remains(three) == []
        assert fetch(client, "SELECT owner FROM things WHERE code = 'code 5'") == [(5,)]
        wait_states(apart, "not created", ["things.code"])
        assert "scatter-merge" in explain(client, "SELECT owner FROM things WHERE code = 'code 5'")
        ctl(apart, "lookup", "drop", "apart", "things.code")


@pytest.mark.parametrize("args, message", [
    (("create",), "takes create, verify or drop, a database"),
    (("mend", "apart"), 'not "mend"'),
    (("drop", "apart"), "takes the TABLE.COLUMN"),
    (("create", "apart", "--repair"), "--repair is for verify"),
    (("verify", "apart", "--dry-run"), "no --dry-run"),
])
def test_wrong_command_lines(apart, args, message):
    assert message in ctl(apart, "lookup", *args, code=2).err


def test_what_is_not_fit_is_told(apart):
    apart.sql("ALTER TABLE things RENAME code TO other")
    assert "no column code" in ctl(apart, "lookup", "create", "apart", code=1).out
    apart.sql("ALTER TABLE things ADD code char(5)")
    ran = ctl(apart, "lookup", "create", "apart", code=1)
    assert "of type character" in ran.out and "uuid, text and varchar" in ran.out
    assert "no such lookup" in ctl(apart, "lookup", "create", "apart", "things.name", code=1).out


def test_values_on_two_shards_are_no_unique_lookup(apart, three):
    homes = [int(node.value("SELECT min(owner) FROM things", dbname="apart")) for node in three.primaries]
    three.primaries[0].sql("INSERT INTO things VALUES (%s, 'twice')", (homes[0],), dbname="apart")
    three.primaries[1].sql("INSERT INTO things VALUES (%s, 'twice')", (homes[1],), dbname="apart")
    ran = ctl(apart, "lookup", "create", "apart", code=5)
    assert "'twice' is of several keys, on s0, s1" in ran.out and "Not in use" in ran.out
    wait_states(apart, "not created", ["things.code"])
    three.primaries[0].sql("DELETE FROM things WHERE code = 'twice'", dbname="apart")
    ctl(apart, "lookup", "create", "apart")
    wait_states(apart, "ready", ["things.code"])
    three.primaries[2].sql("INSERT INTO things VALUES (%s, 'twice')", (homes[2],), dbname="apart")
    assert "on s1, s2" in ctl(apart, "lookup", "verify", "apart", code=5).out
    assert "taken out of use" in ctl(apart, "lookup", "verify", "apart", "--repair", code=5).out
    wait_states(apart, "not created", ["things.code"])
    assert len(apart.sql("SELECT owner FROM things WHERE code = 'twice'")) == 2


def test_verify_finds_damage_and_repairs_it(apart, three):
    ctl(apart, "lookup", "create", "apart")
    wait_states(apart, "ready", ["things.code"])
    index, function = remains(three)[0][0], next(row["function"] for row in apart.show("LOOKUPS"))
    damages = [f"DROP INDEX {index}",
               f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass",
               f"DROP FUNCTION pgshunt.{function}",
               f"REVOKE EXECUTE ON FUNCTION pgshunt.{function} FROM postgres; ALTER FUNCTION pgshunt.{function} SECURITY INVOKER",
               f"CREATE OR REPLACE FUNCTION pgshunt.{function}(text[]) RETURNS TABLE (n integer, key text) "
               "LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT NULL::int, NULL::text WHERE false'"]
    for shard, damage in enumerate(damages):
        three.primaries[shard % 3].sql(damage, dbname="apart")
        found = ctl(apart, "lookup", "verify", "apart", code=5)
        assert f"s{shard % 3}: things.code" in found.out and "--repair" in found.out, (damage, found)
        ctl(apart, "lookup", "verify", "apart", "--repair")
        ctl(apart, "lookup", "verify", "apart")


def test_create_that_is_killed_is_finished_by_the_next(apart, three):
    """A transaction keeps the second shard's index from being finished; pgshuntctl is killed meanwhile, at work."""
    with closing(three.primaries[1].connect("apart")) as writer:
        writer.autocommit = False
        fetch_none(writer, "UPDATE things SET code = code WHERE owner = -1")
        fetch_none(writer, "SELECT txid_current()")
        killed = start_ctl(apart, "lookup", "create", "apart")
        wait_until(lambda: three.primaries[1].sql("SELECT 1 FROM pg_index WHERE NOT indisvalid", dbname="apart"), 20.0,
                   "an unfinished index")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
        wait_states(apart, "not created", ["things.code"])
        again = start_ctl(apart, "lookup", "create", "apart")
        time.sleep(0.5)
        again.send_signal(signal.SIGKILL)
        again.wait()
        again.stdout.close()
        writer.rollback()
    ctl(apart, "lookup", "create", "apart")
    assert len([name for name, in remains(three) if name.startswith("lookup")]) == 6
    ctl(apart, "lookup", "verify", "apart")
    wait_states(apart, "ready", ["things.code"])
    assert apart.sql("SELECT owner FROM things WHERE code = 'code 77'") == [(77,)]


def test_create_killed_at_any_moment(apart, three):
    chance = random.Random(5)
    for _ in range(6):
        killed = start_ctl(apart, "lookup", "create", "apart")
        time.sleep(chance.random() * 0.15)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
        if chance.random() < 0.3:
            ctl(apart, "lookup", "drop", "apart", "things.code")
            assert remains(three) == []
    ctl(apart, "lookup", "create", "apart")
    ctl(apart, "lookup", "verify", "apart")
    ctl(apart, "lookup", "drop", "apart", "things.code")
    assert remains(three) == []
