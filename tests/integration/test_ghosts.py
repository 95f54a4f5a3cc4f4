"""Rows that a shard has but does not own are never seen: two shards with ghosts answer as one Postgres without them."""
import io
from contextlib import closing

import pytest

from ctl_support import ctl
from differential import KEYSPACES, REFERENCE, ROWS, SCHEMA, Both, difference, ends_ordered, shards_and_one
from differential_statements import PERHAPS, READS, WRITES
from harness import Cluster, Proxy, wait_until
from support import explain, query
from test_differential import LOOKS, change, check_all

pytestmark = [pytest.mark.core, pytest.mark.slow]

def parts(key):
    return key if isinstance(key, list) else [key]


KEYS = {table["name"]: (keyspace["name"], parts(table["key"])) for keyspace in KEYSPACES for table in keyspace["tables"]}
TYPES = {keyspace["name"]: keyspace.get("types", [keyspace["type"]]) for keyspace in KEYSPACES}
# What ghosts look like, so that each of them would be noticed.
SPOILED = {"users": "name = 'GHOST', num = 999, active = true, country = 'at'", "orders": "qty = 77, amount = 77777",
           "items": "qty = 77", "tenants": "plan = 'GHOST', seats = 999", "members": "who = 'GHOST'",
           "devices": "label = 'GHOST'", "events": "level = 'GHOST'"}


def ghost_columns(key):
    return ["key"] if len(key) == 1 else [f"key{i + 1}" for i in range(len(key))]


def prepare(node):
    """The tables of ghost keys, as a job makes them."""
    node.sql("CREATE SCHEMA IF NOT EXISTS pgshunt")
    node.sql("GRANT USAGE ON SCHEMA pgshunt TO PUBLIC")
    for keyspace, kinds in TYPES.items():
        names = ghost_columns(kinds)
        columns = [f"{name} {kind}" + (' COLLATE "C"' if kind == "text" else "") for name, kind in zip(names, kinds)]
        node.sql(f"CREATE TABLE pgshunt.ghost_{keyspace} ({', '.join(columns)}, PRIMARY KEY ({', '.join(names)}))")
        node.sql(f"GRANT SELECT ON pgshunt.ghost_{keyspace} TO PUBLIC")


def haunt(source, target, keep, mark):
    """Some of the source's rows, spoiled, on the target as well: `mark` tells which keys."""
    for table, (keyspace, key) in KEYS.items():
        rows, keys = io.StringIO(), io.StringIO()
        columns = ", ".join(key)
        chosen = f"abs(hashtext(concat_ws('/', {columns}))) % {keep} = {mark}"
        with closing(source.connect()) as left, closing(target.connect()) as right:
            with left.cursor() as read, right.cursor() as write:
                same = " AND ".join(f"g.{ghost} = t.{name}" for ghost, name in zip(ghost_columns(key), key))
                owned = f"NOT EXISTS (SELECT FROM pgshunt.ghost_{keyspace} g WHERE {same})"
                read.copy_expert(f"COPY (SELECT * FROM {table} t WHERE {chosen} AND {owned}) TO STDOUT", rows)
                read.copy_expert(f"COPY (SELECT DISTINCT {columns} FROM {table} t WHERE {chosen} AND {owned}) TO STDOUT", keys)
                write.execute(f"CREATE TEMP TABLE came (LIKE {table}); CREATE TEMP TABLE keys (LIKE pgshunt.ghost_{keyspace})")
                write.copy_expert("COPY came FROM STDIN", io.StringIO(rows.getvalue()))
                write.copy_expert("COPY keys FROM STDIN", io.StringIO(keys.getvalue()))
                if table in SPOILED:
                    write.execute(f"UPDATE came SET {SPOILED[table]}")
                write.execute(f"INSERT INTO {table} SELECT * FROM came")
                write.execute(f"INSERT INTO pgshunt.ghost_{keyspace} SELECT * FROM keys ON CONFLICT DO NOTHING")
            right.commit()


def announce(proxy, nodes):
    """Shards s1 and s2 have ghosts of all keyspaces."""
    catalog = nodes[0]
    wait_until(lambda: catalog.value("SELECT to_regclass('pgshunt.ghost') IS NOT NULL"), what="the catalog's tables")
    for keyspace in TYPES:
        for shard in ("s1", "s2"):
            catalog.sql("INSERT INTO pgshunt.ghost (database, keyspace, shard, job) VALUES ('app', %s, %s, 'test')",
                        (keyspace, shard))
    catalog.sql("NOTIFY pgshunt_map, 'app'")
    with closing(proxy.connect()) as app:
        wait_until(lambda: "ghost_users" in explain(app, "SELECT name FROM users"), what="the proxy's new map")


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS) as (proxy, node):
        nodes = [shard.primary for shard in node.cluster.shards]
        for each in nodes:
            prepare(each)
        haunt(nodes[0], nodes[1], 2, 0)
        haunt(nodes[0], nodes[2], 2, 1)
        haunt(nodes[1], nodes[2], 2, 0)
        announce(proxy, nodes)
        yield proxy, node, nodes


@pytest.fixture
def both(sides):
    with closing(Both(*sides[:2])) as both:
        yield both


def counts(nodes):
    return [[node.value(f"SELECT count(*) FROM {table}") for table in KEYS] for node in nodes]


def test_there_are_ghosts(sides):
    _, _, nodes = sides
    for node in nodes[1:]:
        assert node.value("SELECT count(*) FROM users WHERE name = 'GHOST'") > 5
    assert sum(node.value("SELECT count(*) FROM users") for node in nodes) > len(ROWS["users"]) + 15


def test_reads(both):
    check_all(READS[::2], lambda sql: both.check(sql, ends_ordered(sql)))


def test_writes(both, sides):
    before = counts(sides[2])
    check_all(WRITES[::2], lambda sql: change(both, sql))
    assert counts(sides[2]) == before


def test_right_or_refused(both):
    refusals = {}
    check_all(PERHAPS, lambda sql: change(both, sql, refusals))
    assert refusals


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_named_shard_shows_what_it_owns(sides, shard):
    """All shards one after the other are all rows, once; a shard's UPDATE leaves others' rows alone."""
    proxy, _, nodes = sides
    with closing(proxy.connect()) as app, app.cursor() as run:
        run.execute(f"SET pgshunt.shard = 's{shard}'")
        run.execute("SELECT id, name FROM users")
        rows = run.fetchall()
        assert rows and not [row for row in rows if row[1] == "GHOST"]
        run.execute("BEGIN; UPDATE users SET num = -5 RETURNING id")
        assert sorted(run.fetchall()) == sorted((row[0],) for row in rows)
        run.execute("ROLLBACK")
        owned = nodes[shard].value("SELECT count(*) FROM users t WHERE NOT EXISTS "
                                   "(SELECT FROM pgshunt.ghost_users g WHERE g.key = t.id)")
        assert len(rows) == (owned if shard else nodes[0].value("SELECT count(*) FROM users"))


def test_a_said_key_shows_no_ghosts(sides):
    proxy, _, _ = sides
    for key in range(1, 30):
        names = proxy.sql(f"/* pgshunt: key={key} */ SELECT name FROM users")
        assert names and ("GHOST",) not in names


@pytest.mark.parametrize("options", ["", "(FORMAT csv, HEADER)", "(FORMAT binary)"])
def test_copy_of_a_table(both, options):
    for sql in (f"COPY users TO STDOUT {options}", f"COPY orders (id, user_id, qty) TO STDOUT {options}",
                f"COPY (SELECT id, num FROM users WHERE active) TO STDOUT {options}"):
        found = sorted(lines(both.app, sql))
        assert len(found) > 10
        assert found == sorted(lines(both.one, sql)), sql


BINARY_HEADER = b"PGCOPY\n\377\r\n\0" + bytes(8)


def lines(side, sql):
    bodies = [body.removeprefix(BINARY_HEADER) for kind, body in side.ask(query(sql)) if kind == "d"]
    return [body for body in bodies if len(body) > 2]


def test_prepared_and_cursors(both):
    found, wanted = both.extended("SELECT id, num FROM users WHERE num > $2 AND name <> $1 ORDER BY id", (b"x", b"3"))
    assert not difference(found, wanted, True)
    both.run("BEGIN")
    both.run("DECLARE c CURSOR FOR SELECT id, name FROM users ORDER BY id")
    for _ in range(4):
        found, wanted = both.simple("FETCH 7 FROM c")
        assert not difference(found, wanted, True)
    both.run("ROLLBACK")


def test_views(sides):
    """One that shows the key, and one that does not; of both it is told what they would show without ghosts."""
    proxy, node, _ = sides
    for side, database in ((proxy, {}), (node, {"dbname": "oracle"})):
        with closing(side.connect(**database)) as app:
            app.autocommit = True
            with app.cursor() as run:
                run.execute("CREATE VIEW adults AS SELECT id AS who, name FROM users WHERE num > 3")
                run.execute("CREATE VIEW names AS SELECT name, num FROM users")
    try:
        with closing(Both(proxy, node)) as both:
            for sql in ("SELECT * FROM adults ORDER BY who", "SELECT name FROM names", "SELECT count(*), max(num) FROM names",
                        "SELECT a.name, o.qty FROM adults a JOIN orders o ON o.user_id = a.who"):
                both.check(sql, ends_ordered(sql))
    finally:
        for side, database in ((proxy, {}), (node, {"dbname": "oracle"})):
            with closing(side.connect(**database)) as app:
                app.autocommit = True
                with app.cursor() as run:
                    run.execute("DROP VIEW adults, names")


def test_what_cannot_be_filtered_is_refused(sides):
    proxy, _, _ = sides
    with closing(proxy.connect()) as app, app.cursor() as run:
        run.execute("SET pgshunt.shard = 's1'")
        app.commit()
        run.execute("SET pgshunt.shard = 's1'")
        for sql in ("WITH d AS (DELETE FROM users RETURNING id) SELECT * FROM d", "DECLARE c CURSOR FOR SELECT name FROM users",
                    "CREATE TEMP TABLE x AS SELECT name FROM users"):
            with pytest.raises(Exception) as refused:
                run.execute(sql)
            assert refused.value.pgcode == "0A000" and "reshard job" in refused.value.diag.message_hint, sql
            app.rollback()
            run.execute("SET pgshunt.shard = 's1'")


# ---- lookups ----

LOOKUPS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}],
           "lookup": [{"table": "users", "column": "email", "unique": True}, {"table": "users", "column": "town"}]}


@pytest.fixture(scope="module")
def looked_up():
    """Two shards; the second has all rows of the first as ghosts, spoiled."""
    with Cluster(shards=2, replicas=0) as cluster, Proxy(cluster, keyspaces=[LOOKUPS]) as proxy:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE users (id bigint PRIMARY KEY, email text, town text, name text)")
        wait_until(lambda: proxy.sql("SELECT count(*) FROM users"), what="the table")
        proxy.sql("INSERT INTO users SELECT g, 'u' || g || '@x', 't' || g % 5, 'n' || g FROM generate_series(1, 60) g")
        ctl(proxy, "lookup", "create", "app")
        proxy.sql("CREATE TABLE another (id bigint)")  # the schema is read again at once, not when a busy machine comes to it
        with closing(proxy.connect()) as app:
            wait_until(lambda: "lookup" in explain(app, "UPDATE users SET name = name WHERE email = 'u1@x'"), what="lookups")
        nodes = [shard.primary for shard in cluster.shards]
        nodes[1].sql("GRANT USAGE ON SCHEMA pgshunt TO PUBLIC")
        nodes[1].sql("CREATE TABLE pgshunt.ghost_users (key bigint PRIMARY KEY)")
        moved = nodes[0].sql("SELECT id, email, town FROM users")
        for row in moved:
            nodes[1].sql("INSERT INTO users VALUES (%s, %s, %s, 'GHOST')", row)
            nodes[1].sql("INSERT INTO pgshunt.ghost_users VALUES (%s)", row[:1])
        nodes[0].sql("INSERT INTO pgshunt.ghost (database, keyspace, shard, job) VALUES ('app', 'users', 's1', 'test')")
        nodes[0].sql("NOTIFY pgshunt_map, 'app'")
        with closing(proxy.connect()) as app:
            wait_until(lambda: "ghost_users" in explain(app, "SELECT name FROM users"), what="the proxy's new map")
        yield proxy, nodes


def test_a_unique_lookup_finds_the_owner(looked_up):
    """Twice each: what was found first is remembered then."""
    proxy, nodes = looked_up
    with closing(proxy.connect()) as app:
        for _ in range(2):
            for key in range(1, 61):
                cursor = app.cursor()
                cursor.execute(f"SELECT id, name FROM users WHERE email = 'u{key}@x'")
                assert cursor.fetchall() == [(key, f"n{key}")]
        for key in range(1, 61):
            cursor.execute(f"UPDATE users SET town = town WHERE email = 'u{key}@x'")
            assert cursor.rowcount == 1
    assert nodes[1].value("SELECT count(*) FROM users WHERE name = 'GHOST'") == nodes[0].value("SELECT count(*) FROM users")
    with closing(proxy.connect()) as app:
        owners = [explain(app, f"UPDATE users SET town = town WHERE email = 'u{key}@x'") for key in range(1, 61)]
    assert all("write to s0, s1" not in words for words in owners)


def test_other_lookups_show_no_ghosts(looked_up):
    proxy, _ = looked_up
    for town in range(5):
        rows = proxy.sql(f"SELECT id, name FROM users WHERE town = 't{town}'")
        assert sorted(rows) == [(key, f"n{key}") for key in range(1, 61) if key % 5 == town]
        assert len(proxy.sql(f"UPDATE users SET name = name WHERE town = 't{town}' RETURNING id")) == 12


# ---- shards that own nothing ----

def test_a_shard_that_owns_nothing_is_not_asked():
    """It does not even have the tables."""
    database = {"name": "app", "keyspaces": [LOOKUPS | {"tables": [{"name": "users", "key": "id"}], "lookup": []}]}
    with Cluster(shards=3, replicas=0) as cluster:
        nodes = [shard.primary for shard in cluster.shards]
        for node in nodes[:2]:
            node.sql("CREATE TABLE users (id bigint PRIMARY KEY, email text, n int)")
        shards = [{"name": f"s{i}", "dbname": "app", "weight": int(i < 2), "nodes": [{"host": "127.0.0.1", "port": node.port}]}
                  for i, node in enumerate(nodes)]
        with Proxy(cluster, databases=[database | {"shards": shards}]) as proxy, closing(proxy.connect()) as app:
            run = app.cursor()
            rows = "".join(f"{key}\tu{key}\t{key % 3}\n" for key in range(1, 61))
            wait_until(lambda: proxy.sql("SELECT count(*) FROM users") == [(0,)], what="the tables")
            run.copy_expert("COPY users FROM STDIN", io.StringIO(rows))
            out = io.StringIO()
            run.copy_expert("COPY users TO STDOUT", out)
            assert sorted(out.getvalue().splitlines()) == sorted(rows.splitlines())
            run.execute("SELECT count(*), sum(n) FROM users")
            assert run.fetchall() == [(60, 60)]
            run.execute("UPDATE users SET n = n + 1 WHERE id % 2 = 0")
            assert run.rowcount == 30
            for text in range(6):  # where they are gathered hangs on the text
                run.execute(f"SELECT id, rank() OVER (ORDER BY id) + {text} FROM users ORDER BY id")
                assert run.fetchall() == [(key, key + text) for key in range(1, 61)]
            run.execute("INSERT INTO users SELECT id + 100, email, n FROM users")
            run.execute("UPDATE users SET id = id + 1000 WHERE id < 11")
            assert run.rowcount == 10
            run.execute("DELETE FROM users WHERE n > (SELECT min(n) FROM users)")
            assert run.rowcount > 0
            run.execute("BEGIN; DECLARE c CURSOR FOR SELECT id FROM users ORDER BY id; FETCH 3 FROM c; COMMIT")
            assert not nodes[2].value("SELECT count(*) FROM pg_class WHERE relname = 'users'")
