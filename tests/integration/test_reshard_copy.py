"""Rows that move are copied: those of the moving buckets and no others, once each, whatever is killed meanwhile."""
import time

import pytest

from harness import Cluster
from harness.process import wait_until
from reshard_support import Copy, config, in_ranges, record_job, xxh64

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}
TO_S2, TO_S1 = (0, 2999), (3000, 5000)
MOVES = [("users", *TO_S2, "s0", "s2"), ("users", *TO_S1, "s0", "s1")]
ROWS = 20000


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as running:
        yield running


@pytest.fixture
def nodes(cluster):
    """The three shards' primaries, without tables."""
    for node in cluster.primaries:
        node.sql("DROP SCHEMA IF EXISTS pgshunt CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return cluster.primaries


def everywhere(nodes, *statements):
    for node in nodes:
        for statement in statements:
            node.sql(statement)


def fill_users(nodes, rows=ROWS):
    everywhere(nodes, "CREATE TABLE users (body text, id bigint PRIMARY KEY, twice bigint GENERATED ALWAYS AS (id * 2) STORED)",
               "CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, amount numeric, user_id int, PRIMARY KEY (id, user_id))")
    nodes[0].sql(f"INSERT INTO users SELECT repeat(md5(g::text), 2), g FROM generate_series(1, {rows}) g")
    nodes[0].sql(f"INSERT INTO orders (user_id, amount) SELECT 1 + g % {rows // 4}, g / 7.0 FROM generate_series(1, {rows}) g")


def ids(node, table="users", key="id"):
    return sorted(row[0] for row in node.sql(f"SELECT {key} FROM {table}"))


def expected(rows, ranges):
    return [key for key in range(1, rows + 1) if in_ranges(key, ranges)]


def same_rows(source, target, query, ranges, key=0):
    """The source's rows whose key's bucket moves are the target's, all of them, with all their values."""
    rows = sorted((row for row in source.sql(query) if in_ranges(row[key], ranges)), key=repr)
    assert sorted(target.sql(query), key=repr) == rows
    return rows


def test_buckets(nodes):
    """The tests' own hash is XXH64: vectors of the specification."""
    assert xxh64(b"") == 0xEF46DB3751D8E999 and xxh64(b"a") == 0xD24EC4F1A98C6E5B and xxh64(b"abc") == 0x44BC2CF5AD770999


def test_rows_of_moving_buckets(nodes, cluster, tmp_path):
    """Two targets of one source are served by one reading; the keys of what moves are in the ghost tables of both sides."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes)
    record_job(path, nodes[0], "grow", MOVES)
    printed = Copy(path, "grow").finish()
    assert "done" in printed
    for target, ranges in ((nodes[2], TO_S2), (nodes[1], TO_S1)):
        assert ids(target) == expected(ROWS, ranges) and len(ids(target)) > 1000
        assert same_rows(nodes[0], target, "SELECT id, body, twice FROM users", ranges)
        assert same_rows(nodes[0], target, "SELECT user_id, id, amount FROM orders", ranges)
    assert ids(nodes[1], "pgshunt.ghost_users", "key") == ids(nodes[1])
    assert not ids(nodes[2], "pgshunt.ghost_users", "key"), "it owns no bucket: nobody asks it without a key"
    assert ids(nodes[0], "pgshunt.ghost_users", "key") == sorted(ids(nodes[1]) + ids(nodes[2]))
    assert nodes[2].value("SELECT count(DISTINCT number) FROM pgshunt.chunk WHERE relation LIKE '%users%'") > 3
    assert nodes[2].value("SELECT sum(rows) FROM pgshunt.chunk") == nodes[2].value("SELECT (SELECT count(*) FROM users) + count(*) FROM orders")
    again = Copy(path, "grow").finish()
    assert "done" in again and ids(nodes[2]) == expected(ROWS, TO_S2), "nothing is copied twice"


def test_killed_and_run_again(nodes, cluster, tmp_path):
    """kill -9 in the middle: chunks that are done are not copied again, the others are, under the same map of chunks."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes)
    record_job(path, nodes[0], "grow", MOVES)
    copy = Copy(path, "grow", rate=2000000)
    copy.go()
    wait_until(lambda: nodes[2].value("SELECT to_regclass('pgshunt.chunk') IS NOT NULL") and
               nodes[2].value("SELECT count(*) FROM pgshunt.chunk") > 3, 30, "some chunks")
    copy.kill9()
    before = nodes[2].value("SELECT max(done_at) FROM pgshunt.chunk")
    done = nodes[2].value("SELECT count(*) FROM pgshunt.chunk")
    Copy(path, "grow").finish()
    for target, ranges in ((nodes[2], TO_S2), (nodes[1], TO_S1)):
        same_rows(nodes[0], target, "SELECT id, body, twice FROM users", ranges)
        same_rows(nodes[0], target, "SELECT user_id, id, amount FROM orders", ranges)
    assert ids(nodes[1], "pgshunt.ghost_users", "key") == ids(nodes[1])
    assert ids(nodes[0], "pgshunt.ghost_users", "key") == sorted(ids(nodes[1]) + ids(nodes[2]))
    assert nodes[2].value("SELECT count(*) FROM pgshunt.chunk WHERE done_at <= %s", (before,)) == done


def test_later_pass(nodes, cluster, tmp_path):
    """A snapshot that was lost: rows that have moved into chunks that are done, and those of the others, come with the next."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes)
    record_job(path, nodes[0], "grow", MOVES)
    first = Copy(path, "grow", jobs=1, rate=1000000)
    oldest = first.first.split()[2]
    first.go()
    wait_until(lambda: nodes[2].value("SELECT count(*) FROM pgshunt.chunk WHERE relation LIKE '%users%'") > 2, 30, "some chunks")
    first.kill9()
    copied = set(ids(nodes[2])) | set(ids(nodes[1]))
    missing = [key for key in range(1, ROWS + 1) if in_ranges(key, TO_S1, TO_S2) and key not in copied]
    assert missing
    # Their new versions lie where there is room: at the begin of the table too.
    nodes[0].sql("DELETE FROM users WHERE id < 500")
    nodes[0].sql("VACUUM users")
    nodes[0].sql("UPDATE users SET body = 'moved in' WHERE id = ANY (%s)", (missing[:100],))
    for node in nodes[1:]:  # what the stream would have brought, as far as rows are there
        node.sql("DELETE FROM users WHERE id < 500")
    Copy(path, "grow", later=2, oldest=oldest).finish()
    for target, ranges in ((nodes[2], TO_S2), (nodes[1], TO_S1)):
        same_rows(nodes[0], target, "SELECT id, body, twice FROM users", ranges)
        same_rows(nodes[0], target, "SELECT user_id, id, amount FROM orders", ranges)


def test_drained_source(nodes, cluster, tmp_path):
    """A source that will own nothing is not asked without a key any more: it needs no ghost keys."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes, 2000)
    record_job(path, nodes[0], "grow", [("users", 0, 8191, "s0", "s1")])
    Copy(path, "grow").finish()
    assert ids(nodes[1]) == ids(nodes[1], "pgshunt.ghost_users", "key") == expected(2000, (0, 8191))
    assert not ids(nodes[0], "pgshunt.ghost_users", "key")


def test_types(nodes, cluster, tmp_path):
    """Types whose binary form carries OIDs of one server travel as text; those of the other tables in binary."""
    space = {"name": "users", "type": "text", "tables": [{"name": name, "key": "k"} for name in ("plain", "odd", "parts")]}
    path = config(tmp_path, cluster, [space], (1, 1, 0))
    for number, node in enumerate(nodes):
        for filler in range(number):  # so that OIDs differ
            node.sql(f"CREATE TYPE filler{filler} AS ENUM ('x')")
        node.sql("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, m mood); CREATE DOMAIN small AS int CHECK (VALUE < 100)")
        node.sql("CREATE TABLE plain (k varchar PRIMARY KEY, b bytea, f float8, n numeric, t timestamptz, i interval, j jsonb, u uuid, a text[], m mood, s small, "
                 "r int4range, x xml, tz timetz, bits varbit, ip inet)")
        node.sql("CREATE TABLE odd (v pair, w mood[], c regclass, k varchar, o money, PRIMARY KEY (k))")
        node.sql("CREATE TABLE parts (k varchar, at int, big text, PRIMARY KEY (k, at)) PARTITION BY RANGE (at)")
        node.sql("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (500); "
                 "CREATE TABLE parts_2 (big text, at int NOT NULL, k varchar NOT NULL)")
        node.sql("ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (500) TO (10000)")
    nodes[0].sql(r"INSERT INTO plain SELECT 'k' || g, decode(md5(g::text), 'hex'), (ARRAY['NaN', '-0', 'Infinity', '0.1'])[1 + g % 4]::float8, "
                 r"(ARRAY['NaN', '1.50', '123456789012345678901234567890.10'])[1 + g % 3]::numeric, '2026-03-29 01:30+01'::timestamptz + g * interval '1 s', "
                 r"make_interval(g % 5, g % 7, secs => g / 3.0), jsonb_build_object('n', g, 'q', E'a\tb\n\\'), md5(g::text)::uuid, ARRAY['x', NULL, E'tab\t{}'], "
                 r"(ARRAY['sad', 'glad', NULL])[1 + g % 3]::mood, g % 100, int4range(g, g + 5), '<a/>', '12:00+02', B'101', '10.0.0.1' FROM generate_series(1, 2000) g")
    nodes[0].sql(r"INSERT INTO odd SELECT ROW(g, 'sad')::pair, ARRAY['glad', NULL]::mood[], 'pg_class', E'\\back\ttab\n' || g, g::text::money "
                 r"FROM generate_series(1, 2000) g")
    nodes[0].sql("INSERT INTO parts SELECT 'p' || g, g, CASE WHEN g % 50 = 0 THEN (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 300) i) END "
                 "FROM generate_series(1, 999) g")
    record_job(path, nodes[0], "grow", [("users", *TO_S2, "s0", "s2")])
    Copy(path, "grow").finish()
    assert len(same_rows(nodes[0], nodes[2], "SELECT k, plain::text FROM plain", TO_S2)) > 200
    assert len(same_rows(nodes[0], nodes[2], "SELECT k, odd::text FROM odd", TO_S2)) > 200
    assert len(same_rows(nodes[0], nodes[2], "SELECT k, at, big, tableoid::regclass::text FROM parts", TO_S2)) > 100
    assert nodes[2].value("SELECT count(*) FROM plain WHERE f = 0 AND float8send(f) <> float8send(-0.0::float8 * 1)") == 0


def test_row_of_many_megabytes(nodes, cluster, tmp_path):
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    everywhere(nodes, "CREATE TABLE users (body text, id bigint PRIMARY KEY)")
    nodes[0].sql("ALTER TABLE users ALTER body SET STORAGE EXTERNAL")
    big = [key for key in range(1, 200) if in_ranges(key, TO_S2)][:2]
    nodes[0].sql("INSERT INTO users SELECT repeat('0123456789abcdef', 2000000), unnest(%s::int[])", (big,))
    record_job(path, nodes[0], "grow", [("users", *TO_S2, "s0", "s2")])
    Copy(path, "grow").finish()
    assert nodes[2].sql("SELECT id, md5(body), length(body) FROM users ORDER BY 1") == nodes[0].sql("SELECT id, md5(body), length(body) FROM users ORDER BY 1")


def test_rate(nodes, cluster, tmp_path):
    """A copy held to 500 kB/s has not brought 2 MB in its first second."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes)
    record_job(path, nodes[0], "grow", MOVES)
    copy = Copy(path, "grow", rate=500000)
    began = time.monotonic()
    copy.finish()
    assert time.monotonic() - began > 3, "1.9 MB were read"


def test_failure_of_a_target(nodes, cluster, tmp_path):
    """A row that the target has already is an error that says which; nothing of that chunk is there."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes, 2000)
    key = expected(2000, TO_S2)[0]
    nodes[2].sql("INSERT INTO users (id, body) VALUES (%s, 'mine')", (key,))
    record_job(path, nodes[0], "grow", MOVES)
    copy = Copy(path, "grow")
    copy.go()
    said = copy.fail()
    assert said.startswith("23505 s2: duplicate key") and f"COPY users, line" in said
    assert nodes[2].value("SELECT count(*) FROM users WHERE body <> 'mine' AND id < 100") == 0


def test_rewritten_table(nodes, cluster, tmp_path):
    """VACUUM FULL behind the snapshot moves rows between chunks: told, and the next snapshot copies that table anew."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    fill_users(nodes)
    record_job(path, nodes[0], "grow", MOVES)
    copy = Copy(path, "grow")
    oldest = copy.first.split()[2]
    nodes[0].sql("DELETE FROM users WHERE id % 3 = 0")
    nodes[0].sql("VACUUM FULL users")
    copy.go()
    assert copy.fail().startswith("55000 s0: a table was rewritten")
    for node in nodes[1:]:  # as the stream would have done
        node.sql("DELETE FROM users WHERE id % 3 = 0")
    Copy(path, "grow", later=2, oldest=oldest).finish()
    for target, ranges in ((nodes[2], TO_S2), (nodes[1], TO_S1)):
        same_rows(nodes[0], target, "SELECT id, body, twice FROM users", ranges)
        same_rows(nodes[0], target, "SELECT user_id, id, amount FROM orders", ranges)


def test_without_a_primary_key(nodes, cluster, tmp_path):
    """Rows that cannot be told apart are copied once; another snapshot would bring some twice, and is refused."""
    space = {"name": "users", "type": "bigint", "tables": [{"name": "bare", "key": "id"}]}
    path = config(tmp_path, cluster, [space], (1, 1, 0))
    everywhere(nodes, "CREATE TABLE bare (id bigint, v int)")
    nodes[0].sql("INSERT INTO bare SELECT 1 + g % 100, 0 FROM generate_series(1, 1000) g")
    record_job(path, nodes[0], "grow", [("users", *TO_S2, "s0", "s2")])
    Copy(path, "grow").finish()
    assert nodes[2].value("SELECT count(*) FROM bare") == len([key for key in expected(100, TO_S2)]) * 10
    later = Copy(path, "grow", later=2)
    later.go()
    assert "has no primary key" in later.fail()
