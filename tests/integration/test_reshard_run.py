"""`pgshuntctl reshard run`: from a record to streams that keep both sides alike, whatever is killed on the way."""
import signal

import pytest

from harness import Cluster
from harness.process import wait_until
from reshard_support import Writer, config, ctl, forget_everything, in_ranges, record_job, start_ctl

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}
TO_S2, TO_S1 = (0, 3999), (4000, 6000)
MOVES = [("users", *TO_S2, "s0", "s2"), ("users", *TO_S1, "s0", "s1")]
ROWS = 6000


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as running:
        yield running


@pytest.fixture
def nodes(cluster):
    forget_everything(*cluster.primaries)
    for node in cluster.primaries:
        node.sql("CREATE TABLE users (body text, id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, big text)")
        node.sql("CREATE TABLE orders (id bigint, user_id bigint, amount numeric, PRIMARY KEY (user_id, id))")
    cluster.shards[0].primary.sql(f"INSERT INTO users SELECT md5(g::text), g, 0, CASE WHEN g % 10 = 0 THEN "
                                  f"(SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 200) i) END FROM generate_series(1, {ROWS}) g")
    cluster.shards[0].primary.sql(f"INSERT INTO orders SELECT g, 1 + g % {ROWS}, g FROM generate_series(1, {ROWS * 3}) g")
    return cluster.primaries


WRITES = ["UPDATE users SET n = n + 1 WHERE id = %s", "UPDATE users SET n = n + 1 WHERE id = %s", "DELETE FROM users WHERE id = %s",
          "INSERT INTO users VALUES ('new', %s, 1, repeat('x', 3000)) ON CONFLICT DO NOTHING",
          "UPDATE orders SET id = id + 100000 WHERE user_id = %s AND id < 100000"]


def same(nodes):
    """Rows of moving buckets are alike on the source and the targets, which have no others."""
    for query, key in (("SELECT id, body, n, md5(big) FROM users", 0), ("SELECT user_id, id, amount FROM orders", 0)):
        source = nodes[0].sql(query)
        for target, ranges in ((nodes[2], TO_S2), (nodes[1], TO_S1)):
            wanted = sorted((row for row in source if in_ranges(row[key], ranges)), key=repr)
            assert wanted and sorted(target.sql(query), key=repr) == wanted


def ghosts_cover(nodes):
    """No row of a moving bucket is without its key in the ghost tables of the source, and of the target that owns other buckets."""
    assert nodes[1].value("SELECT count(*) FROM users WHERE id NOT IN (SELECT key FROM pgshunt.ghost_users)") == 0
    assert nodes[1].value("SELECT count(*) FROM orders WHERE user_id NOT IN (SELECT key FROM pgshunt.ghost_users)") == 0
    known = {row[0] for row in nodes[0].sql("SELECT key FROM pgshunt.ghost_users")}
    for node in nodes[1:]:
        assert not {row[0] for row in node.sql("SELECT id FROM users UNION SELECT user_id FROM orders")} - known


def state(nodes):
    return nodes[0].value("SELECT state FROM pgshunt.job WHERE name = 'grow'")


def chunks(node):
    return node.value("SELECT to_regclass('pgshunt.chunk') IS NOT NULL") and \
        node.value("SELECT count(*) FROM pgshunt.chunk WHERE relation <> ''")


def test_until_caught_up(nodes, cluster, tmp_path):
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    record_job(path, nodes[0], "grow", MOVES)
    writer = Writer(nodes[0], WRITES, ROWS + 500)
    try:
        ctl(path, "run", "grow", "--until-caught-up")
    finally:
        writer.stop()
    assert state(nodes) == "streaming" and writer.done > 50
    ctl(path, "run", "grow", "--until-caught-up")
    same(nodes)
    ghosts_cover(nodes)
    assert nodes[0].value("SELECT count(*) FROM pgshunt.ghost WHERE job = 'grow'") == 2


@pytest.mark.parametrize("how", ["kill", "interrupt", "restart source", "restart target"])
def test_goes_on(nodes, cluster, tmp_path, how):
    """The copy is broken in its middle, with writers at work: it goes on, and nothing is lost, doubled or old."""
    path = config(tmp_path, cluster, [USERS], (1, 1, 0))
    record_job(path, nodes[0], "grow", MOVES)
    nodes[0].sql("UPDATE users SET n = n + 1 WHERE id % 3 = 0")  # so that pages have room, and rows move
    nodes[0].sql("UPDATE users SET n = n + 1 WHERE id % 3 = 1")
    process = start_ctl(path, "run", "grow", "--until-caught-up", "--rate", "700kB/s", "--jobs", "2")
    writer = Writer(nodes[0], WRITES, ROWS + 500)
    try:
        wait_until(lambda: (chunks(nodes[2]) or 0) >= 1, 60, "a chunk is copied")
        if how == "kill":
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        elif how == "interrupt":
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        elif how == "restart source":
            nodes[0].restart()
        else:
            nodes[2].restart()
        if how in ("kill", "interrupt"):
            ctl(path, "run", "grow", "--until-caught-up")
        else:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, out + err
    finally:
        writer.stop()
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert state(nodes) == "streaming"
    ctl(path, "run", "grow", "--until-caught-up")
    same(nodes)
    ghosts_cover(nodes)
