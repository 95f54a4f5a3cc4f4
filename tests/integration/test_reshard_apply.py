"""What the stream leaves for later or does in bulk: ghost keys of the source behind the data, arrays, rows that are there already."""
import time

from harness.process import wait_until
from reshard_support import in_ranges
from test_reshard_stream import (TO_S1, cluster, everywhere, forward, ghosts, nodes, path,  # noqa: F401 (fixtures)
                                 pytestmark, same, write)  # noqa: F401

USERS = "CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0)"


def moving(keys):
    return {key for key in keys if in_ranges(key, *(TO_S1,))}


def test_keys_may_come_later(nodes, path):
    """While the source takes no keys, rows are committed on the target, but no marker is; what was killed meanwhile lacks no key."""
    source, target = nodes
    everywhere(nodes, USERS)
    with forward(path) as stream:
        source.sql("INSERT INTO users SELECT generate_series(1, 100)")
        stream.follow(source)
    stream = forward(path)
    slot = "SELECT confirmed_flush_lsn FROM pg_replication_slots"
    with source.connect() as held, held.cursor() as cursor:
        cursor.execute("LOCK TABLE pgshunt.ghost_users IN EXCLUSIVE MODE")
        for start in range(101, 401, 30):
            source.sql("INSERT INTO users SELECT generate_series(%s, %s)", (start, start + 29))
        behind = source.value("SELECT pg_current_wal_lsn()")
        wanted = moving(range(1, 401))
        wait_until(lambda: {row[0] for row in target.sql("SELECT id FROM users")} == wanted, 30, "the rows")
        assert ghosts(target) == wanted, "the target's keys come with its rows"
        assert ghosts(source) == moving(range(1, 101))
        source.sql("SELECT pg_logical_emit_message(true, 'pgshunt', 'waits')")
        time.sleep(1.5)  # a status of the slot or two
        assert stream.state()["marker"] != "waits"
        assert target.sql("SELECT count(*) FROM pgshunt.applied WHERE marker = 'waits'") == [(0,)]
        assert source.value(f"SELECT ({slot}) < %s", (behind,)), "what lacks keys comes once more"
        stream.kill9()
    with forward(path) as stream:
        state = stream.follow(source)
        assert ghosts(source) == ghosts(target) == wanted
        assert state["missed_updates"] == state["missed_deletes"] == 0
        same(nodes, "SELECT id, n FROM users")
        wait_until(lambda: source.value(f"SELECT ({slot}) > %s", (behind,)), 30, "the slot to go on")


def test_altered_since(nodes, path):
    """What comes once more for its keys may be of tables as they were before both sides were altered."""
    source, target = nodes
    everywhere(nodes, USERS)
    stream = forward(path)
    with source.connect() as held, held.cursor() as cursor:
        cursor.execute("LOCK TABLE pgshunt.ghost_users IN EXCLUSIVE MODE")
        source.sql("INSERT INTO users SELECT generate_series(1, 200)")
        wait_until(lambda: target.value("SELECT count(*) FROM users") == len(moving(range(1, 201))), 30, "the rows")
        time.sleep(0.5)
        stream.kill9()
    everywhere(nodes, "ALTER TABLE users ALTER n TYPE bigint")
    with forward(path) as stream:
        write(source, ["UPDATE users SET n = 5000000000", "INSERT INTO users VALUES (1001, 1), (1002, 2), (1003, 3), (1004, 4)"])
        stream.follow(source)
        assert ghosts(source) == ghosts(target) == moving([*range(1, 201), *range(1001, 1005)])
        same(nodes, "SELECT id, n FROM users")


def keys_of(*ranges_wanted, start=1):
    """A key for each: True, of a bucket that moves; all different."""
    keys = []
    for moves in ranges_wanted:
        keys.append(next(key for key in range(keys[-1] + 1 if keys else start, 100000) if in_ranges(key, TO_S1) == moves))
    return keys


def test_rows_not_whole_yet_outlive_the_stream(nodes, path):
    """Their long values are on the source no more, and come by later changes: also when the stream is killed between."""
    source, target = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0, big text)", "ALTER TABLE users ALTER big SET STORAGE EXTERNAL")
    stays, moved, again, stays2, gone, stays3, out, back, blocker, emptied = keys_of(False, True, True, False, True, False, True, False, True, True)
    with forward(path) as stream:
        for key in (stays, stays2, stays3, blocker):
            source.sql("INSERT INTO users VALUES (%s, 0, repeat(md5(%s::text), 500))", (key, key))
        stream.follow(source)
    # In one WAL, so that the source has none of the rows when the first changes are carried out.
    for old, new in ((stays, moved), (stays2, gone), (stays3, out)):
        source.sql("UPDATE users SET id = %s WHERE id = %s", (new, old))
    source.sql("SELECT pg_logical_emit_message(true, 'pgshunt', 'half')")
    source.sql("UPDATE users SET n = 1 WHERE id = %s", (blocker,))
    source.sql("UPDATE users SET id = %s WHERE id = %s", (again, moved))
    source.sql("DELETE FROM users WHERE id = %s", (gone,))
    source.sql("UPDATE users SET id = %s WHERE id = %s", (back, out))
    with target.connect() as held, held.cursor() as cursor:
        cursor.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (blocker,))
        stream = forward(path)
        wait_until(lambda: target.value("SELECT count(*) FROM pgshunt.applied WHERE marker = 'half'") == 1, 30, "the first half")
        assert sorted(target.sql("SELECT locator FROM pgshunt.owed")) == sorted([([str(moved)],), ([str(gone)],), ([str(out)],)])
        stream.kill9()
    with forward(path) as stream:
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert same(nodes, "SELECT id, n, md5(big), length(big) FROM users")
        assert target.value("SELECT count(*) FROM users") == 2
        assert target.sql("SELECT * FROM pgshunt.owed") == []
    # A description that is sent again in between, and a TRUNCATE.
    source.sql("UPDATE users SET id = %s WHERE id = %s", (emptied, back))
    source.sql("ALTER TABLE users SET (fillfactor = 90)")
    source.sql("TRUNCATE users")
    source.sql("INSERT INTO users VALUES (%s, 7, 'new')", (emptied,))
    with forward(path) as stream:
        source.sql("UPDATE users SET n = 8 WHERE id = %s", (emptied,))
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert target.sql("SELECT id, n, big FROM users") == [(emptied, 8, "new")]
        assert target.sql("SELECT * FROM pgshunt.owed") == []


def test_rows_of_others_need_not_fit(nodes, path):
    """Where a column may have been renamed, only rows that move stop the stream: those of others, from before, are left out as ever."""
    source, _ = nodes
    everywhere(nodes, "CREATE TABLE users (id bigint PRIMARY KEY, n int DEFAULT 0, a int)")
    with forward(path) as stream:
        source.sql("INSERT INTO users SELECT generate_series(1, 100)")
        stream.follow(source)
    stay = [key for key in range(101, 201) if key not in moving(range(101, 201))]
    write(source, [f"INSERT INTO users SELECT unnest(ARRAY{stay})", f"UPDATE users SET a = 1 WHERE id = ANY (ARRAY{stay})",
                   f"DELETE FROM users WHERE id = {stay[0]}"])
    everywhere(nodes, "ALTER TABLE users DROP a, ADD b int")
    with forward(path) as stream:
        source.sql("INSERT INTO users SELECT g, 0, g FROM generate_series(301, 400) g")
        assert stream.follow(source)["left_out"] > len(stay)
        assert len(same(nodes, "SELECT id, n, b FROM users")) > 60
    source.sql("UPDATE users SET b = 5 WHERE id < 50")
    everywhere(nodes, "ALTER TABLE users DROP b, ADD c int")
    stream = forward(path)
    assert 'column "b" of public.users is gone and "c" is new' in stream.error()
    stream.stop()


def test_row_that_is_there(nodes, path):
    """A row on the target that nobody expects stops a stream only until it is started again with care; then it gets the source's values."""
    source, target = nodes
    everywhere(nodes, USERS)
    key = next(key for key in range(1, 1000) if in_ranges(key, *(TO_S1,)))
    stream = forward(path)
    target.sql("INSERT INTO users VALUES (%s, -1)", (key,))
    source.sql("INSERT INTO users SELECT g, g FROM generate_series(1, 1000) g")
    assert "duplicate key" in stream.error()
    state = stream.state()
    assert state["sqlstate"] == "23505" and state["passing"]
    stream.stop()
    with forward(path, "--careful") as stream:
        stream.follow(source)
        assert len(same(nodes, "SELECT id, n FROM users")) > 100


def test_arrays(nodes, path):
    """Rows go in arrays, a column each, where types have them; NULLs, empty values, domains, enums and columns of arrays keep their values."""
    source, target = nodes
    everywhere(nodes, "CREATE TYPE mood AS ENUM ('sad', 'glad')", "CREATE DOMAIN short AS varchar(5) CHECK (value <> 'never')", "CREATE DOMAIN pair AS int[]",
               "CREATE TABLE users (id bigint PRIMARY KEY, m mood, s short, c char(7), v varchar(9), n numeric(12, 3), t timestamptz, b bytea, j jsonb, u uuid, o boolean,"
               " f double precision, g bigint GENERATED ALWAYS AS (id * 2) STORED)",
               "CREATE TABLE orders (id bigint, user_id bigint, tags text[], p pair, PRIMARY KEY (id, user_id))")
    with forward(path) as stream:
        write(source, ["INSERT INTO users SELECT g, CASE WHEN g % 3 > 0 THEN (ARRAY['sad', 'glad']::mood[])[g % 3] END, CASE WHEN g % 5 > 0 THEN left('abcde', g % 5) END,"
                       " CASE WHEN g % 2 = 0 THEN 'x' ELSE '' END, CASE WHEN g % 7 > 0 THEN repeat('é', g % 7) ELSE '' END, g / 7.0, now(), CASE WHEN g % 2 = 0 THEN '\\x00ff'::bytea"
                       " ELSE '' END, jsonb_build_object('a', g), md5(g::text)::uuid, g % 2 = 0, CASE g % 4 WHEN 0 THEN 'NaN' ELSE g / 3.0 END FROM generate_series(1, 1500) g",
                       "INSERT INTO orders SELECT g, g, CASE WHEN g % 3 > 0 THEN ARRAY['a', NULL, ''] END, ARRAY[[g, 2], [3, NULL]] FROM generate_series(1, 200) g",
                       "UPDATE users SET m = NULL, c = NULL, n = -n WHERE id % 4 = 0", "UPDATE users SET v = NULL WHERE id % 10 = 1",
                       "UPDATE orders SET tags = '{}' WHERE id % 2 = 0", "DELETE FROM users WHERE id % 9 = 0"])
        state = stream.follow(source)
        assert state["missed_updates"] == state["missed_deletes"] == 0
        assert len(same(nodes, "SELECT id, users::text FROM users")) > 500
        assert len(same(nodes, "SELECT user_id, orders::text FROM orders")) > 50


def test_described_again(nodes, path):
    """A table that is described again and again uses statements up; those of every transaction are there all the same."""
    source, _ = nodes
    everywhere(nodes, USERS)
    with forward(path) as stream:
        write(source, [f"ALTER TABLE users SET (fillfactor = {50 + turn % 50}); INSERT INTO users SELECT generate_series({turn * 10}, {turn * 10 + 9});"
                       f" UPDATE users SET n = n + 1 WHERE id >= {turn * 10}; DELETE FROM users WHERE id > {turn * 10 + 4}" for turn in range(400)])
        stream.follow(source)
        assert len(same(nodes, "SELECT id, n FROM users")) > 500
