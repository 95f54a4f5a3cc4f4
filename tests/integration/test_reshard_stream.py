"""A link's stream: what is written on the source of rows that move is on the target, all of it and nothing else."""
import time
from contextlib import closing

import pytest

from harness import Cluster
from harness.process import wait_until
from reshard_support import Stream, config, in_ranges, record_job, tool

pytestmark = pytest.mark.slow

USERS = {"name": "users", "type": "bigint",
         "tables": [{"name": name, "key": key} for name, key in
                    (("users", "id"), ("orders", "user_id"), ("logs", "user_id"), ("events", "user_id"))]}
TO_S1 = (0, 8191)
MOVES = [("users", *TO_S1, "s0", "s1")]
ORDERS = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, user_id bigint, amount numeric, note text, PRIMARY KEY (id, user_id))"


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0, settings={"logical_decoding_work_mem": "64kB", "max_replication_slots": 10}) as running:
        yield running


@pytest.fixture
def nodes(cluster):
    """Both shards' primaries, without tables, slots and origins."""
    yield cluster.primaries
    for node in cluster.primaries:
        wait_until(lambda node=node: not node.value("SELECT count(*) FROM pg_replication_slots WHERE active"), 20, "slots let go of")
        node.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        node.sql("SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin")
        for name, in node.sql("SELECT pubname FROM pg_publication"):
            node.sql(f"DROP PUBLICATION {name}")
        node.sql("DROP SCHEMA IF EXISTS pgshunt CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")


@pytest.fixture
def path(nodes, cluster, tmp_path):
    path = config(tmp_path, cluster, [USERS], (3, 1))  # both have other buckets, so that both need keys
    record_job(path, nodes[0], "grow", MOVES, "streaming")
    return path


def everywhere(nodes, *statements):
    for node in nodes:
        for statement in statements:
            node.sql(statement)


def forward(path, *options, **more):
    return Stream(path, "grow", "s0", "s1", *options, **more)


def backward(path, *options, **more):
    return Stream(path, "grow", "s1", "s0", "--reverse", *options, **more)


def same(nodes, query, key=0, ranges=(TO_S1,)):
    """The target has the source's rows of the moving buckets, with all their values."""
    rows = sorted((row for row in nodes[0].sql(query) if row[key] is not None and in_ranges(row[key], *ranges)), key=repr)
    assert sorted(nodes[1].sql(query), key=repr) == rows
    return rows


def ghosts(node):
    return {row[0] for row in node.sql("SELECT key FROM pgshunt.ghost_users")}


def test_who_needs_no_keys(nodes, cluster, tmp_path):
    """A source that will have no bucket, and a target that had none, are not asked without a key while rows on them are not theirs."""
    path = config(tmp_path, cluster, [USERS], (1, 0))
    record_job(path, nodes[0], "grow", [("users", 0, 16383, "s0", "s1")], "streaming")
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, name text)")
    with forward(path) as stream:
        nodes[0].sql("INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 1000) g")
        stream.follow(nodes[0])
        assert nodes[0].sql("SELECT * FROM users ORDER BY id") == nodes[1].sql("SELECT * FROM users ORDER BY id")
        assert ghosts(nodes[0]) == ghosts(nodes[1]) == set()


def test_rows(nodes, path):
    """Inserts, updates and deletes of many transactions; rows that stay are left out; keys are in the ghost tables of both sides."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, name text, n int DEFAULT 0)", ORDERS)
    with forward(path) as stream:
        for start in range(0, 2000, 100):
            source.sql("INSERT INTO users SELECT g, 'user ' || g FROM generate_series(%s + 1, %s + 100) g", (start, start))
            source.sql("INSERT INTO orders (user_id, amount, note) SELECT g, g / 3.0, NULL FROM generate_series(%s + 1, %s + 100) g", (start, start))
        source.sql("UPDATE users SET n = id WHERE id % 3 = 0")
        source.sql("UPDATE users SET n = n + 1 WHERE id < 50")
        source.sql("DELETE FROM users WHERE id % 7 = 0")
        source.sql("UPDATE orders SET note = 'paid', amount = amount + 1 WHERE user_id % 2 = 0")
        source.sql("DELETE FROM orders WHERE user_id % 5 = 0")
        state = stream.follow(source)
        assert len(same(nodes, "SELECT id, name, n FROM users")) > 700
        assert len(same(nodes, "SELECT user_id, id, amount, note FROM orders")) > 700
        assert state["missed_updates"] == state["missed_deletes"] == 0 and state["left_out"] > 1000
        moved = {key for key in range(1, 2001) if in_ranges(key, TO_S1)}
        assert ghosts(nodes[0]) == ghosts(nodes[1]) == moved
        assert nodes[1].sql("SELECT job, source, marker FROM pgshunt.applied") == [("grow", "s0", state["marker"])]
        wait_until(lambda: 0 <= stream.state()["lag_seconds"] < 5, 20, "a known lag")
        sent = source.value("SELECT pg_current_wal_lsn()")
        wait_until(lambda: source.value("SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots", (sent,)), 20, "the slot to be freed")


TYPES = {
    "n": ("numeric", ["'NaN'", "0.000", "-123456789012345678901234567890.123456789", "1e-20"]),
    "f": ("float8", ["'-0'::float8", "'NaN'", "'Infinity'", "1e-300"]), "r": ("real", ["'-0'::real", "3.25", "'-Infinity'", "1e-40"]),
    "j": ("jsonb", ["'{\"a\": [1, 2.50, null]}'", "'\"x\"'", "'null'", "'[]'"]), "js": ("json", ["'{ \"a\" :1, \"a\":2}'", "'1'", "'{}'", "'[ ]'"]),
    "b": ("bytea", ["'\\x00ff00'", "''", "decode(repeat('ab', 4000), 'hex')", "'\\x5c27'"]),
    "ta": ("text[]", ["'{a,NULL,\"NULL\",\"\\\\\"}'", "'{}'", "'[2:3]={x,y}'", "'{{a,b},{c,d}}'"]),
    "i": ("interval", ["'1 mon -2 days 03:04:05.000006'", "'-1 year'", "'0'", "'178000000 years'"]),
    "t": ("timestamptz", ["'infinity'", "'2024-10-27 02:30:00+01'", "'4713-01-01 BC'", "'epoch'"]),
    "ts": ("timestamp", ["'-infinity'", "'2024-02-29 23:59:59.999999'", "'294276-12-31'", "'epoch'"]), "tz": ("timetz", ["'24:00:00-15:59'", "'00:00+00'", "'12:34:56.7+02'", "NULL"]),
    "d": ("date", ["'infinity'", "'2024-02-29'", "'4713-01-01 BC'", "NULL"]), "m": ("money", ["'-12.34'", "0", "'1000000'", "NULL"]),
    "ra": ("int4range", ["'[1,5)'", "'empty'", "'(,)'", "NULL"]), "nr": ("numrange", ["'(1.50,2.500]'", "'[0,0]'", "'empty'", "NULL"]),
    "ip": ("inet", ["'::1/64'", "'10.0.0.1'", "'10.0.0.0/8'", "NULL"]), "u": ("uuid", ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"] * 3 + ["NULL"]),
    "c": ("char(5)", ["'a'", "''", "'abcde'", "NULL"]), "v": ("varchar(10)", ["'é\\x'", "''", "E'tab\\t\\n'", "NULL"]), "bi": ("bit(3)", ["B'101'", "B'000'", "B'111'", "NULL"]),
    "q": ('"char"', ["'x'", "''", "'y'", "NULL"]), "x": ("xml", ["'<a b=\"1\">x</a>'", "'y'", "'<z/>'", "NULL"]), "vec": ("tsvector", ["'a:1A b:2'", "''", "'c'", "NULL"]),
    "pt": ("point", ["'(1,2)'", "'(-0,0)'", "'(1e10,1e-10)'", "NULL"]), "lsn": ("pg_lsn", ["'16/B374D848'", "'0/0'", "'FFFFFFFF/FFFFFFFF'", "NULL"]),
    "mood": ("mood", ["'sad'", "'very \"glad\"'", "'sad'", "NULL"]), "dom": ("small", ["1", "99", "-5", "NULL"]),
}
ODD = {"pair": ("pair", ["'(1,sad)'", "'(,)'", "'(-3,\"very \"\"glad\"\"\")'", "NULL"]), "moods": ("mood[]", ["'{sad,NULL}'", "'{}'", "'{\"very \\\"glad\\\"\"}'", "NULL"]),
       "cls": ("regclass", ["'users'", "'pg_class'", "0", "NULL"])}


@pytest.mark.parametrize("columns", [TYPES, {**TYPES, **ODD}], ids=["binary", "text"])
def test_types(nodes, path, columns):
    """Every type's odd values arrive to the bit: in binary form, and as text where a type's binary form has numbers of one server in it."""
    for number, node in enumerate(nodes):
        node.sql("CREATE TYPE filler AS ENUM ('x')" if number else "SELECT 1")  # so that OIDs differ
        node.sql("CREATE TYPE mood AS ENUM ('sad', 'very \"glad\"'); CREATE TYPE pair AS (a int, m mood); CREATE DOMAIN small AS int CHECK (VALUE < 100)")
        node.sql("CREATE TABLE users (id bigint PRIMARY KEY, twice bigint GENERATED ALWAYS AS (id * 2) STORED, "
                 + ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items()) + ")")
    names = ", ".join(columns)
    with forward(path) as stream:
        for row in range(4):
            values = ", ".join(values[row] for _, values in columns.values())
            nodes[0].sql(f"SET DateStyle = 'German'; SET lc_monetary = 'C'; INSERT INTO users (id, {names}) SELECT g, {values} FROM generate_series({row * 20 + 1}, {row * 20 + 20}) g")
        nodes[0].sql(f"UPDATE users u SET ({names}) = (SELECT {names} FROM users o WHERE o.id = u.id % 80 + 1) WHERE id < 60")
        stream.follow(nodes[0])
    image = "SELECT id, twice, " + ", ".join(f"{name}::text" for name in columns) + " FROM users"
    assert len(same(nodes, image)) > 20
    if columns is TYPES:
        sends = "SELECT id, " + ", ".join(f"encode(({send}({name})), 'hex')" for name, send in
                                          (("n", "numeric_send"), ("f", "float8send"), ("r", "float4send"), ("pt", "point_send"), ("i", "interval_send"))) + " FROM users"
        assert len(same(nodes, sends)) > 20


def find(wanted, start=1):
    """Keys that move (or do not), without end."""
    return (key for key in range(start, 1 << 40) if in_ranges(key, TO_S1) == wanted)


@pytest.mark.parametrize("identity", ["USING INDEX users_found", "FULL"])
def test_keys_change(nodes, path, identity):
    """An UPDATE of the sharding key that leaves the moving buckets is a DELETE there, one that enters is an INSERT, with TOASTed values that did not change."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE users (code text PRIMARY KEY, id bigint NOT NULL, big text, n int)", "CREATE UNIQUE INDEX users_found ON users (code, id)",
               "ALTER TABLE users ALTER big SET STORAGE EXTERNAL", f"ALTER TABLE users REPLICA IDENTITY {identity}")
    moving, staying = find(True), find(False)
    inside, outside = [next(moving) for _ in range(60)], [next(staying) for _ in range(60)]
    with forward(path) as stream:
        for key in inside + outside:
            source.sql("INSERT INTO users VALUES ('c' || %s, %s, repeat('x' || %s, 3000), 0)", (key, key, key))
        stream.follow(source)
        same(nodes, "SELECT id, code, big, n FROM users")
        for old, new in zip(inside[:20], [next(staying) for _ in range(20)]):  # leave
            source.sql("UPDATE users SET id = %s WHERE id = %s", (new, old))
        for old, new in zip(outside[:20], [next(moving) for _ in range(20)]):  # enter
            source.sql("UPDATE users SET id = %s, n = 1 WHERE id = %s", (new, old))
        for old, new in zip(inside[20:40], [next(moving) for _ in range(20)]):  # stay within
            source.sql("UPDATE users SET id = %s WHERE id = %s", (new, old))
        source.sql("UPDATE users SET n = n + 5")
        source.sql("UPDATE users SET code = 'new ' || code WHERE id % 2 = 0")  # another primary key
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert len(same(nodes, "SELECT id, code, big, n FROM users")) == 60
        assert ghosts(nodes[0]) >= {row[0] for row in nodes[1].sql("SELECT id FROM users")} <= ghosts(nodes[1])


def test_full_identity(nodes, path):
    """Tables without any key: one of several equal rows is changed, not all, NULLs and JSON included; partitioned ones too."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE logs (user_id bigint, at int, j json, v text, f float8)", "ALTER TABLE logs REPLICA IDENTITY FULL",
               "CREATE TABLE events (user_id bigint, at int, v text) PARTITION BY RANGE (at)", "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)",
               "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)",
               *(f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in ("events", "events_1", "events_2")))
    with forward(path) as stream:
        for _ in range(3):
            source.sql("INSERT INTO logs SELECT g, 1, '{\"a\": 1}', NULL, '-0' FROM generate_series(1, 100) g")
            source.sql("INSERT INTO events SELECT g, 3, 'x' FROM generate_series(1, 100) g")
        for table in ("logs", "events"):
            leaf = "t.tableoid = u.tableoid AND t.ctid = u.ctid"
            source.sql(f"UPDATE {table} t SET v = 'one', at = 15 FROM (SELECT DISTINCT ON (user_id) ctid, tableoid FROM {table} WHERE user_id <= 60) u WHERE {leaf}")
            source.sql(f"DELETE FROM {table} t USING (SELECT DISTINCT ON (user_id) ctid, tableoid FROM {table} WHERE user_id > 60) u WHERE {leaf}")
        source.sql("UPDATE logs SET f = 0 WHERE v = 'one'")
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert len(same(nodes, "SELECT user_id, at, j::text, v, float8send(f)::text FROM logs")) > 100
        assert len(same(nodes, "SELECT user_id, at, v, tableoid::regclass::text FROM events")) > 100


def test_partitions_and_truncate(nodes, path):
    """Rows of partitions travel as their root's, rows that move from one to another too; TRUNCATE removes what came from this source, and no others."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, name text)",
               "CREATE TABLE events (user_id bigint, at int, v text, PRIMARY KEY (user_id, at)) PARTITION BY RANGE (at)",
               "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (100)")
    source.sql("CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (200)")
    target.sql("CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (100) TO (150)")  # partitions may differ
    target.sql("CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (150) TO (200)")
    with forward(path) as stream:
        own = [key for key, _ in zip(find(False, 5000), range(20))]
        target.sql("INSERT INTO users SELECT unnest(%s), 'of other buckets'", (own,))
        source.sql("INSERT INTO events SELECT g, g % 200, 'v' || g FROM generate_series(1, 2000) g")
        source.sql("UPDATE events SET at = at + 100 WHERE at < 90 AND user_id % 2 = 0")
        source.sql("DELETE FROM events WHERE at % 10 = 0")
        source.sql("INSERT INTO users SELECT g, 'user' FROM generate_series(1, 3000) g")
        stream.follow(source)
        assert len(same(nodes, "SELECT user_id, at, v FROM events")) > 500
        assert target.value("SELECT count(*) FROM events_3") > 0
        target.sql("DELETE FROM pgshunt.ghost_users")  # nobody may need them: they say nothing of whose rows there are
        with closing(source.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN; INSERT INTO users VALUES (4000, 'before'), (4001, 'before'); TRUNCATE users, events; "
                           "INSERT INTO users SELECT g, 'after' FROM generate_series(100, 200) g; COMMIT")
        stream.follow(source)
        assert target.sql("DELETE FROM users WHERE id >= 5000 RETURNING id") == [(key,) for key in own]
        assert len(same(nodes, "SELECT id, name FROM users")) > 20
        assert target.value("SELECT count(*) FROM events") == 0


def test_unique_columns(nodes, path):
    """Values of a unique column that wander between rows arrive in an order that never collides; hot rows are the last of their versions."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, email text UNIQUE, n int DEFAULT 0)", "CREATE TABLE logs (user_id bigint PRIMARY KEY, n int)")
    moving = find(True)
    first, second = next(moving), next(moving)
    with forward(path) as stream:
        source.sql("INSERT INTO users VALUES (%s, 'a'), (%s, 'b')", (first, second))
        source.sql("INSERT INTO logs VALUES (%s, 0), (%s, 0)", (first, second))
        with closing(source.connect()) as connection, connection.cursor() as cursor:
            connection.autocommit = False
            for turn in range(100):
                cursor.execute("UPDATE users SET email = 'free' WHERE id = %s", (first,))
                cursor.execute("UPDATE users SET email = %s WHERE id = %s", ("ab"[turn % 2], second))
                cursor.execute("UPDATE users SET email = %s, n = %s WHERE id = %s", ("ba"[turn % 2], turn, first))
                cursor.execute("UPDATE logs SET n = n + 1 WHERE user_id = %s", (first,))
                cursor.execute("DELETE FROM logs WHERE user_id = %s", (second,))
                cursor.execute("INSERT INTO logs VALUES (%s, %s)", (second, turn))
                cursor.execute("UPDATE logs SET n = n * 2 WHERE user_id = %s", (second,))
                if turn % 3 == 0:
                    connection.commit()
            connection.commit()
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert len(same(nodes, "SELECT id, email, n FROM users")) == 2
        assert len(same(nodes, "SELECT user_id, n FROM logs")) == 2


def write(node, statements):
    """Some statements in one transaction, on a connection of their own."""
    with closing(node.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("COMMIT")


def test_large_transactions(nodes, path):
    """A transaction of 400,000 rows is streamed before it is committed, and arrives whole, in little memory; so does one whose subtransactions partly failed."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, name text, n int)", "CREATE TABLE logs (user_id bigint PRIMARY KEY, v text)")
    with forward(path) as stream:
        with closing(source.connect()) as other, other.cursor() as cursor:
            cursor.execute("BEGIN; INSERT INTO logs SELECT g, 'x' FROM generate_series(100001, 120000) g")  # streamed, and aborted
            write(source, ["INSERT INTO users SELECT g, 'user ' || g, 0 FROM generate_series(1, 400000) g",
                           "UPDATE users SET n = 1 WHERE id % 100 = 0", "DELETE FROM users WHERE id % 10 = 5"])
            cursor.execute("ROLLBACK")
        write(source, ["SAVEPOINT a", "INSERT INTO logs SELECT g, 'undone' FROM generate_series(1, 5000) g", "ROLLBACK TO a",  # described first in what is undone
                       "INSERT INTO logs SELECT g, 'kept' FROM generate_series(1, 5000) g", "SAVEPOINT b",
                       "UPDATE logs SET v = 'undone' WHERE user_id < 3000", "SAVEPOINT c", "DELETE FROM logs WHERE user_id > 4000", "ROLLBACK TO b",
                       "UPDATE logs SET v = 'changed' WHERE user_id > 4500"])
        state = stream.follow(source)
        assert len(same(nodes, "SELECT id, name, n FROM users")) > 150000
        assert len(same(nodes, "SELECT user_id, v FROM logs")) > 2000
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert source.value("SELECT stream_count FROM pg_stat_replication_slots") > 2, "transactions were streamed"
        assert 0 < state["memory"] < 64 * 1024 or "asan" in tool("")
        assert not [row for row in nodes[1].sql("SELECT user_id FROM logs WHERE user_id > 5000")]


def test_killed(nodes, path):
    """kill -9 in the middle of writes, again and again: nothing is lost, nothing is there twice."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)", "CREATE TABLE logs (user_id bigint, v text, PRIMARY KEY (user_id, v))",
               "CREATE TABLE events (user_id bigint, n int)", "ALTER TABLE events REPLICA IDENTITY FULL")
    source.sql("CREATE TABLE unrelated (id int)")
    for turn in range(6):
        stream = forward(path)
        for step in range(40):
            write(source, [f"INSERT INTO users SELECT g FROM generate_series({turn * 4000 + step * 100}, {turn * 4000 + step * 100 + 99}) g",
                           f"UPDATE users SET n = n + 1 WHERE id % 40 = {step}",
                           f"INSERT INTO logs SELECT g, '{turn}.{step}' FROM generate_series(1, 20) g",
                           f"INSERT INTO events SELECT g, {turn} FROM generate_series(1, 20) g",
                           f"DELETE FROM users WHERE id % 97 = {step}"])
        if turn < 5:
            time.sleep(0.1 * turn)
            stream.kill9()
    with stream:
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert len(same(nodes, "SELECT id, n FROM users")) > 5000
        assert len(same(nodes, "SELECT user_id, v FROM logs")) > 1000
        assert len(same(nodes, "SELECT user_id, n FROM events")) > 1000


def test_both_ways(nodes, path):
    """Two opposite streams: what one applies, the other leaves out; writes on either side arrive once, and a rollback of the roles changes nothing."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)")
    moving = find(True)
    keys = [next(moving) for _ in range(300)]
    with forward(path) as there, backward(path) as back:
        for start in range(0, 200, 20):
            for key in keys[start:start + 20]:
                source.sql("INSERT INTO users VALUES (%s)", (key,))
            source.sql("UPDATE users SET n = n + 1")
        write(source, [f"UPDATE users SET n = n + 1000 WHERE id = {key}" for key in keys[:150]] +
              ["INSERT INTO users SELECT g FROM generate_series(100000, 120000) g"])  # streamed
        there.follow(source)
        for key in keys[200:]:  # the buckets are the target's from here on
            target.sql("INSERT INTO users VALUES (%s, -1)", (key,))
        target.sql("UPDATE users SET n = n + 7")
        target.sql("DELETE FROM users WHERE id = %s", (keys[0],))
        came = back.follow(target)
        assert len(same(nodes, "SELECT id, n FROM users")) > 10000
        assert came["inserted"] == 100 and came["deleted"] == 1, "nothing comes back"
        assert ghosts(source) == ghosts(target) >= set(keys)
        source.sql("UPDATE users SET n = -n")
        went = there.follow(source)
        same(nodes, "SELECT id, n FROM users")
        assert went["missed_updates"] == 0 and back.follow(target)["updated"] == came["updated"]
        assert went["inserted"] == 200 + sum(in_ranges(key, TO_S1) for key in range(100000, 120001)), "nothing comes back"


def test_hold(nodes, path):
    """A stream that is held behind a marker has applied exactly what was ahead of it, until it is released."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY)")
    with forward(path) as stream:
        stream.ask("hold here")
        source.sql("INSERT INTO users SELECT generate_series(1, 100)")
        source.sql("SELECT pg_logical_emit_message(true, 'pgshunt', 'here')")
        source.sql("INSERT INTO users SELECT generate_series(101, 200)")
        wait_until(lambda: stream.state()["held"], 20, "the stream to be held")
        time.sleep(0.5)
        assert {row[0] for row in target.sql("SELECT id FROM users")} == {key for key in range(1, 101) if in_ranges(key, TO_S1)}
        stream.ask("release")
        stream.follow(source)
        assert len(same(nodes, "SELECT id FROM users")) > 80


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def test_newer_rows(nodes, path):
    """Rows copied from a later snapshot: the stream goes over them from before, to exactly that position, and they are right there and behind."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, big text, n int)", "ALTER TABLE users ALTER big SET STORAGE EXTERNAL")
    with forward(path):
        pass  # makes the slot
    moving = find(True)
    keys = [next(moving) for _ in range(60)]
    for key in keys[:40]:
        source.sql("INSERT INTO users VALUES (%s, repeat('x', 3000) || %s, 0)", (key, key))
    source.sql("UPDATE users SET n = 1")
    source.sql("UPDATE users SET id = %s WHERE id = %s", (keys[50], keys[0]))  # another primary key
    source.sql("UPDATE users SET id = %s WHERE id = %s", (keys[51], keys[50]))
    source.sql("DELETE FROM users WHERE id = ANY (%s)", (keys[1:5],))
    source.sql("INSERT INTO users VALUES (%s, repeat('y', 3000), 5)", (keys[1],))  # and here again
    position = source.value("SELECT pg_current_wal_insert_lsn()")
    for row in source.sql("SELECT id, big, n FROM users WHERE n > 1 OR id % 2 = 0"):
        target.sql("INSERT INTO users VALUES (%s, %s, %s)", row)  # a part of the rows as they are now
    source.sql("UPDATE users SET n = n + 100")
    expected = sorted((row[0], row[1], row[2] - 100) for row in source.sql("SELECT id, big, n FROM users"))
    with forward(path, "--after", position, "--until", position) as stream:
        wait_until(lambda: stream.state()["finished"], 20, "the position to be reached")
        assert stream.state()["missed_updates"] == 0 and stream.state()["applied"] <= lsn(position)
        assert sorted(target.sql("SELECT id, big, n FROM users")) == expected
    with forward(path, "--after", position) as stream:
        assert stream.follow(source)["missed_updates"] == 0
        assert len(same(nodes, "SELECT id, big, n FROM users")) == 37


def test_missed_rows(nodes, path):
    """Changes of rows that are not on the target are counted: the sides differ, and somebody has to know."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int)")
    with forward(path) as stream:
        source.sql("INSERT INTO users SELECT g, 0 FROM generate_series(1, 100) g")
        stream.follow(source)
        gone = [row[0] for row in target.sql("DELETE FROM users WHERE id < 40 RETURNING id")]
        source.sql("UPDATE users SET n = 1")
        source.sql("DELETE FROM users WHERE id < 20")
        state = stream.follow(source)
        assert state["missed_updates"] == len(gone) > 5
        assert state["missed_deletes"] == sum(key < 20 for key in gone) > 2


def test_changed_tables(nodes, path):
    """A column that both sides have got is streamed; one that is on the source alone, or of another type, stops with a problem that names it."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int)")
    with forward(path) as stream:
        source.sql("INSERT INTO users VALUES (1, 1), (2, 2), (3, 3), (4, 4)")
        stream.follow(source)  # else the rows may meet a target that has the column already
        everywhere((target, source), "ALTER TABLE users ADD added text DEFAULT 'd'")
        source.sql("INSERT INTO users VALUES (5, 5, 'e'), (6, 6, 'f'), (7, 7, 'g')")
        source.sql("UPDATE users SET added = 'h' WHERE id < 3")
        stream.follow(source)
        assert same(nodes, "SELECT id, n, added FROM users")
        source.sql("ALTER TABLE users ADD alone int")
        source.sql("INSERT INTO users SELECT g FROM generate_series(10, 20) g")
        assert 'column "alone" of public.users is on the source, but not on the target' in stream.error()
        assert not stream.state()["passing"] and "same change" in stream.state()["mend"]
    target.sql("ALTER TABLE users ADD alone int")
    with forward(path) as stream:
        stream.follow(source)
        assert same(nodes, "SELECT id, n, added, alone FROM users")
        source.sql("ALTER TABLE users ALTER n TYPE numeric(10, 2)")
        source.sql("INSERT INTO users SELECT g, 1.25 FROM generate_series(30, 40) g")
        assert 'column "n" of public.users has another type' in stream.error()
    target.sql("ALTER TABLE users ALTER n TYPE numeric(10, 2)")
    with forward(path) as stream:
        stream.follow(source)
        source.sql("ALTER TABLE users RENAME added TO renamed")
        source.sql("INSERT INTO users SELECT g FROM generate_series(50, 60) g")
        assert 'column "added" of public.users was dropped or renamed' in stream.error()
    target.sql("ALTER TABLE users RENAME added TO renamed")
    with forward(path) as stream:
        stream.follow(source)
        assert len(same(nodes, "SELECT id, n, renamed, alone FROM users")) > 15


def test_restarts_and_lost_slots(nodes, path):
    """A restarted source or target is something passing; a slot whose WAL is gone is not, and what to do is said."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)")
    for turn, node in enumerate((source, target)):
        stream = forward(path)
        source.sql("INSERT INTO users SELECT generate_series(%s + 1, %s + 500)", (500 * turn, 500 * turn))
        node.restart()
        stream.error()
        assert stream.state()["passing"] and stream.state()["lag_seconds"] == -1
        stream.stop()
    with forward(path) as stream:
        stream.follow(source)
        assert len(same(nodes, "SELECT id, n FROM users")) > 400
    with closing(source.connect()) as connection, connection.cursor() as cursor:
        source.set("max_slot_wal_keep_size", "1MB")
        source.set("wal_keep_size", "0")
        for _ in range(12):
            cursor.execute("SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1000000)), pg_switch_wal()")
        cursor.execute("CHECKPOINT")
        wait_until(lambda: source.value("SELECT wal_status FROM pg_replication_slots") == "lost", 20, "the slot to be lost")
    with pytest.raises(RuntimeError, match="pgshuntctl reshard cancel grow, then create it again"):
        forward(path)
    source.sql("ALTER SYSTEM RESET max_slot_wal_keep_size", dbname="postgres")
    source.set("wal_keep_size", "512MB")


def test_busy(nodes, path):
    """While the target cannot go on for longer than wal_sender_timeout, the source hears of the stream all the same."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int)")
    source.set("wal_sender_timeout", "3s")
    with forward(path) as stream, closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE users")
        source.sql("INSERT INTO users SELECT g, 0 FROM generate_series(1, 50000) g")
        source.sql("UPDATE users SET n = 1")
        began = time.monotonic()

        def waits():
            state = stream.state()
            assert state["running"], state["error"]
            return state["lag_bytes"] > 0 and state["lag_seconds"] > 2 and time.monotonic() - began > 5

        wait_until(waits, 60, "the lag to be told, for longer than the source would wait for somebody silent")
        cursor.execute("COMMIT")
        stream.follow(source)
        assert len(same(nodes, "SELECT id, n FROM users")) > 20000
    source.set("wal_sender_timeout", "60s")


def test_slot_waits_for_writers(nodes, path):
    """A slot cannot be made while somebody has written and not ended: who that is, is said, and nothing is left behind."""
    source = nodes[0]
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY)")
    source.sql("BEGIN; INSERT INTO users VALUES (1); PREPARE TRANSACTION 'left behind'")
    try:
        with pytest.raises(RuntimeError, match="prepared transaction 'left behind' of postgres"):
            forward(path)
        assert source.value("SELECT count(*) FROM pg_replication_slots") == 0
    finally:
        source.sql("ROLLBACK PREPARED 'left behind'")
    with closing(source.connect(application_name="writer")) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO users VALUES (1)")
        with pytest.raises(RuntimeError, match=r"process \d+ \(postgres, writer, idle in transaction\), in its transaction for \d+ s"):
            forward(path)
