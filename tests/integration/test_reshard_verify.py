"""`pgshuntctl reshard verify`: both sides compared at one position: what differs is found, and named; what does not, is not."""
import signal
import time

import pytest

from harness import Cluster
from harness.process import wait_until
from reshard_support import Writer, config, ctl, in_ranges, record_job, start_ctl

SPACE = {"name": "users", "type": "bigint", "tables": [{"name": "things", "key": "id"}, {"name": "orders", "key": "user_id"},
                                                     {"name": "bare", "key": "id"}]}
TO_S1 = (0, 5000)
ROWS = 4000
BIG = "(SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 200) i)"


@pytest.fixture(scope="module")
def streaming(tmp_path_factory):
    """A job that streams, nobody runs it, and both sides are the same."""
    with Cluster(shards=2, replicas=0) as cluster:
        nodes = cluster.primaries
        for node in nodes:
            node.sql("CREATE TABLE things (id bigint PRIMARY KEY, f float8, n numeric, j jsonb, b bytea, t text, big text, "
                     "twice bigint GENERATED ALWAYS AS (id * 2) STORED)")
            node.sql("CREATE TABLE orders (id bigint, user_id bigint, item text, PRIMARY KEY (user_id, id))")
            node.sql("CREATE TABLE bare (id int, v int[]); ALTER TABLE bare REPLICA IDENTITY FULL")
        nodes[0].sql(f"INSERT INTO things SELECT g, 0, 1.5, '{{\"a\": 1}}', 'abc', CASE WHEN g % 2 = 0 THEN 'text' END, {BIG} FROM generate_series(1, {ROWS}) g")
        nodes[0].sql(f"INSERT INTO orders SELECT g, 1 + g % {ROWS}, 'pen' FROM generate_series(1, {ROWS * 2}) g")
        nodes[0].sql("INSERT INTO bare SELECT 1 + g % 500, ARRAY[g % 3] FROM generate_series(1, 2000) g")
        path = config(tmp_path_factory.mktemp("verify"), cluster, [SPACE], (1, 0))
        record_job(path, nodes[0], "grow", [("users", *TO_S1, "s0", "s1")])
        ctl(path, "run", "grow", "--until-caught-up")
        yield path, nodes


def change(node, *statements):
    """Behind the engine's back: no stream brings it anywhere, for its origin says that it came by one."""
    connection = node.connect()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_replication_origin_session_setup('pgshunt_grow_s0')")
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def moving(count):
    return [key for key in range(1, ROWS) if in_ranges(key, TO_S1)][:count]


def verify(path, *options):
    ran = ctl(path, "verify", "grow", *options, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_same(streaming):
    path, nodes = streaming
    code, said = verify(path)
    assert code == 0, said
    assert "Both sides are the same" in said and "public.things" in said


def test_rate(streaming):
    """With a limit it takes as long as that wants, and finds the same."""
    path, nodes = streaming
    bytes_read = nodes[0].value("SELECT sum(pg_column_size(t.*)) FROM things t")
    began = time.monotonic()
    code, said = verify(path, "--rate", f"{bytes_read // 4000}kB/s")
    assert code == 0, said
    assert time.monotonic() - began > 2, "four seconds' worth, of the source's alone"
    assert verify(path, "--rate", "fast")[0] == 2


@pytest.mark.parametrize("what", ["f = '-0'", "f = 'NaN'", "n = 1.50", "j = '{\"a\": 1.0}'", "b = '\\x616263'::bytea || '\\x00'", "t = NULL", "t = ''",
                                  "big = overlay(big placing 'x' from 5000)"])
def test_one_value(streaming, what):
    """One row of the target changed in one column, in the least way: found with its key, and found the same when it is put back."""
    path, nodes = streaming
    key = [key for key in moving(20) if key % 2 == 0][3]
    change(nodes[1], f"CREATE TABLE IF NOT EXISTS pgshunt.was AS SELECT * FROM things WHERE id = {key}",
           f"UPDATE things SET {what} WHERE id = {key}")
    code, said = verify(path)
    assert code == 5 and f"row ({key}) is different" in said and "0 rows are missing, 0 too many, 1 different" in said, said
    change(nodes[1], f"UPDATE things SET (f, n, j, b, t, big) = (SELECT f, n, j, b, t, big FROM pgshunt.was) WHERE id = {key}", "DROP TABLE pgshunt.was")
    code, said = verify(path)
    assert code == 0, said


def test_rows_missing_and_too_many(streaming):
    path, nodes = streaming
    gone, mine = moving(30)[5], [key for key in range(ROWS + 1, ROWS + 1000) if in_ranges(key, TO_S1)][0]
    foreign = [key for key in range(ROWS + 1, ROWS + 1000) if not in_ranges(key, TO_S1)][0]
    change(nodes[1], f"CREATE TABLE pgshunt.was AS SELECT id, f, n, j, b, t, big FROM things WHERE id = {gone}", f"DELETE FROM things WHERE id = {gone}",
           f"INSERT INTO things (id) VALUES ({mine}), ({foreign})", f"DELETE FROM orders WHERE user_id = {gone}",
           f"INSERT INTO bare SELECT * FROM bare WHERE ctid = (SELECT ctid FROM bare LIMIT 1)")
    code, said = verify(path)
    assert code == 5, said
    assert f"row ({gone}) is missing" in said and f"row ({mine}) is one too many" in said and str(foreign) not in said
    assert "1 rows are missing, 1 too many, 0 different" in said
    assert said.count(" is missing") == 3, "and its two orders"
    assert "0 rows are missing, 1 too many, 0 different" in said, "a row twice, without a key"
    change(nodes[1], "INSERT INTO things (id, f, n, j, b, t, big) SELECT * FROM pgshunt.was", f"DELETE FROM things WHERE id IN ({mine}, {foreign})",
           "DROP TABLE pgshunt.was", "DELETE FROM bare WHERE ctid = (SELECT max(ctid) FROM bare)")
    change(nodes[1], *[f"INSERT INTO orders VALUES ({number}, {gone}, 'pen')" for number, in
                       nodes[0].sql("SELECT id FROM orders WHERE user_id = %s", (gone,))])
    code, said = verify(path)
    assert code == 0, said


def test_many_rows(streaming):
    """Counts are exact, rows are named up to a limit."""
    path, nodes = streaming
    change(nodes[1], "CREATE TABLE pgshunt.was AS SELECT * FROM orders WHERE id % 2 = 0", "DELETE FROM orders WHERE id % 2 = 0")
    missing = nodes[1].value("SELECT count(*) FROM pgshunt.was")
    code, said = verify(path)
    assert code == 5 and f"{missing} rows are missing, 0 too many, 0 different" in said and said.count(" is missing") == 20, said
    change(nodes[1], "INSERT INTO orders SELECT * FROM pgshunt.was", "DROP TABLE pgshunt.was")
    assert verify(path)[0] == 0


def test_while_it_is_run_and_written(streaming):
    """The streams rest for a moment, and go on; writes meanwhile are no differences."""
    path, nodes = streaming
    runner = start_ctl(path, "run", "grow")
    writer = Writer(nodes[0], ["UPDATE things SET f = f + 1 WHERE id = %s", "DELETE FROM orders WHERE user_id = %s",
                               "INSERT INTO orders SELECT 100000 + g, %s, 'new' FROM generate_series(1, 3) g ON CONFLICT DO NOTHING",
                               "UPDATE orders SET item = 'changed' WHERE user_id = %s"], ROWS)
    try:
        wait_until(lambda: nodes[0].value("SELECT count(*) FROM pg_replication_slots WHERE active") == 1, 20, "the stream")
        for _ in range(2):
            code, said = verify(path)
            assert code == 0, said
        assert not nodes[0].value("SELECT paused FROM pgshunt.job")
        wait_until(lambda: nodes[0].value("SELECT count(*) FROM pg_replication_slots WHERE active") == 1, 20, "the stream goes on")
    finally:
        writer.stop()
        runner.send_signal(signal.SIGINT)
        runner.communicate(timeout=30)
    assert writer.done > 20


def test_refused_before_streaming(streaming):
    path, nodes = streaming
    nodes[0].sql("UPDATE pgshunt.job SET state = 'copying'")
    code, said = verify(path)
    assert code == 3 and "the job is copying" in said
    nodes[0].sql("UPDATE pgshunt.job SET state = 'streaming'")
