"""A table becomes a partitioned one together with its first partitions: whoever writes to it, however they come, is never refused."""
import threading

import psycopg2

from harness import wait_until
from partition_support import alike, cluster, names, partition, proxy, run

TABLES = ("busy", "spread", "rest", "late")


def writer(connect, table, stop, errors, written, number):
    """A row and what it is in: rolled back while it is the plain table, for only an empty one is made a partitioned one."""
    connection = connect()
    connection.autocommit = False
    cursor = connection.cursor()
    while not stop.is_set():
        number += 1
        try:
            cursor.execute(f"INSERT INTO {table} (user_id, at, body) VALUES (%s, now() + %s * interval '1 day', 'x') RETURNING (SELECT relispartition FROM pg_class WHERE pg_class.oid = {table}.tableoid)",
                           (number, number % 3))
            if not cursor.fetchone()[0]:
                connection.rollback()
            else:
                connection.commit()
                written.append(number)
        except psycopg2.Error as error:
            errors.append(error)
            connection.rollback()
    connection.close()


def test_no_row_is_refused_while_the_table_becomes_a_partitioned_one(cluster, proxy, run):
    run("CREATE TABLE busy (user_id bigint NOT NULL, at timestamptz NOT NULL, body text, PRIMARY KEY (user_id, at))")
    run("CREATE INDEX ON busy (body)")
    stop, errors = threading.Event(), []
    written = [[] for _ in range(4)]
    ways = [proxy.connect, proxy.connect] + [lambda node=node: node.connect(dbname="app") for node in cluster.primaries]
    threads = [threading.Thread(target=writer, args=(way, "busy", stop, errors, written[i], (i + 1) * 1000000)) for i, way in enumerate(ways)]
    for thread in threads:
        thread.start()
    try:
        partition(proxy, "create", "busy", "--by", "at", "--every", "1day", "--ahead", "4", "--tries", "100")
        wait_until(lambda: errors or all(len(each) > 20 for each in written), 60, "everybody to write into partitions")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert sorted(number for number, in run("SELECT user_id FROM busy WHERE user_id < 3000000")) == sorted(written[0] + written[1])
    for node, own in zip(cluster.primaries, written[2:]):
        assert node.value("SELECT count(*) FROM busy WHERE user_id >= 3000000", dbname="app") == len(own)
    assert len(alike(cluster, "busy")) == 5
    partition(proxy, "check", "busy")
    partition(proxy, "drop-policy", "busy")


def test_what_is_before_and_the_default_partition_are_there_too(cluster, proxy, run):
    run("CREATE TABLE rest (user_id bigint NOT NULL, at date NOT NULL) WITH (fillfactor = 70)")
    ran = partition(proxy, "create", "rest", "--by", "at", "--every", "1day", "--ahead", "20", "--start", "2026-01-05", "--default", "on",
                    "--now", "2026-01-10", "--json")
    told = [event["text"] for event in ran.json["events"] if event.get("shard") == "s1" and event["kind"] == "done"]
    # With the table the present one and seven ahead, and the default one; then the others, each once.
    assert told[0] == "made it a partitioned table" and told[1].startswith("made rest_p20260110") and told[9] == "made the default partition rest_default"
    assert len(told) == len(set(told)) == 1 + 26 + 1
    assert [name for name, _ in alike(cluster, "rest")] == ["rest_default"] + [f"rest_p202601{day:02}" for day in range(5, 31)]
    for node in cluster.primaries:  # one like the other
        assert node.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'rest\\_p%%' AND reloptions IS NOT NULL", (), dbname="app") == 0
    partition(proxy, "check", "rest", "--now", "2026-01-10")
    partition(proxy, "drop-policy", "rest")


def test_a_call_that_was_interrupted_is_repeated_and_others_partitions_are_not_taken(cluster, proxy, run):
    run("CREATE TABLE late (user_id bigint NOT NULL, at date NOT NULL)")
    create = ("create", "late", "--by", "at", "--every", "1day", "--ahead", "2", "--start", "2026-01-05", "--now", "2026-01-10")
    partition(proxy, *create)
    full = alike(cluster, "late")
    # As a killed call may have left it: no policy, the first ones are missing on one shard, the last on the other.
    partition(proxy, "drop-policy", "late")
    cluster.primaries[0].sql("DROP TABLE late_p20260105, late_p20260106, late_p20260107", dbname="app")
    cluster.primaries[1].sql("DROP TABLE late_p20260112", dbname="app")
    partition(proxy, *create)
    assert alike(cluster, "late") == full
    partition(proxy, "drop-policy", "late")
    # What the policy does not want, or calls otherwise, is not ours.
    for other, wrong in ((("--every", "1week"), "--every"), (("--name-format", "_%Y%m%d"), "--name-format")):
        ran = partition(proxy, *create, *other, code=5)
        assert "it has partitions already" in ran.out and "adopt takes over" in ran.out, wrong
    cluster.primaries[1].sql("CREATE TABLE late_own PARTITION OF late FOR VALUES FROM ('2026-02-01') TO ('2026-02-02')", dbname="app")
    ran = partition(proxy, *create, code=5)
    assert "s1: public.late: it has partitions already" in ran.out and "s0: public.late: it has" not in ran.out
    assert "public.late" not in partition(proxy, "list").out


def test_a_partitions_name_that_is_taken_leaves_the_table_as_it_was(cluster, proxy, run):
    run("CREATE TABLE spread (user_id bigint NOT NULL, at date NOT NULL)")
    cluster.primaries[1].sql("CREATE TABLE spread_p20260111 (at date)", dbname="app")
    create = ("create", "spread", "--by", "at", "--every", "1day", "--now", "2026-01-10")
    ran = partition(proxy, *create, code=4)
    assert "s1: public.spread: cannot make it a partitioned table" in ran.out and "rename or drop what has its name" in ran.out
    assert names(cluster.primaries[1], "spread") == [] and len(names(cluster.primaries[0], "spread")) == 5
    cluster.primaries[1].sql("DROP TABLE spread_p20260111", dbname="app")
    partition(proxy, *create)
    assert len(alike(cluster, "spread")) == 5
    partition(proxy, "drop-policy", "spread")
