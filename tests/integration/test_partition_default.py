"""Partitions made beside a large default one: it is not read under a lock, nobody is refused, every row is where it belongs."""
import os
import signal
import subprocess
import threading

import psycopg2
import pytest

from ctl_support import command
from harness import wait_until
from partition_kills import needs_failpoints
from partition_support import cluster, names, partition, proxy, run
from reshard_kills import wait_stopped

TABLES = ("rest", "told", "loaded", "killed")
FAR = 40000  # rows of 2099 on each shard, more than 8 MB


def begin(cluster, proxy, run, table, more=""):
    """Days with a default partition that is large on every shard."""
    run(f"CREATE TABLE {table} (user_id bigint NOT NULL, at date NOT NULL, body text, found int{more}, PRIMARY KEY (user_id, at))")
    partition(proxy, "create", table, "--by", "at", "--every", "1day", "--ahead", "2", "--default", "on", "--now", "2026-01-10")
    for node in cluster.primaries:
        node.sql(f"INSERT INTO {table} SELECT -g, '2099-01-01', repeat('x', 220) FROM generate_series(1, {FAR}) g", dbname="app")


def guards(cluster):
    return [node.value("SELECT count(*) FROM pg_constraint WHERE conname = 'pgshunt_attach'", dbname="app") for node in cluster.primaries]


def scans(node, table):
    node.sql("SELECT pg_stat_force_next_flush()", dbname="app")
    return node.value(f"SELECT seq_scan FROM pg_stat_user_tables WHERE relid = '{table}_default'::regclass", dbname="app")


def in_default(cluster, table):
    return [node.value(f"SELECT count(*) FROM {table}_default", dbname="app") for node in cluster.primaries]


def end(cluster, proxy, run, table):
    assert guards(cluster) == [0, 0]
    partition(proxy, "drop-policy", table)
    run(f"DROP TABLE {table}")


def test_it_is_read_once_and_not_under_a_lock(cluster, proxy, run):
    begin(cluster, proxy, run, "rest")
    for node in cluster.primaries:  # who has counted is gone, and so has told the server
        wait_until(lambda node=node: scans(node, "rest") is not None, 60)
    before = [scans(node, "rest") for node in cluster.primaries]
    partition(proxy, "maintain", "rest", "--now", "2026-01-13")
    assert [name for name in names(cluster.primaries[0], "rest")] == ["rest_default"] + [f"rest_p202601{day}" for day in range(10, 16)]
    # Three partitions, one look, by VALIDATE: attaching reads nothing, nor does anybody look for strays.
    for node, had in zip(cluster.primaries, before):
        wait_until(lambda node=node, had=had: scans(node, "rest") > had, 60)
        assert scans(node, "rest") == had + 1
    # Rows that are in the default one before are moved; that is all that is read besides.
    run("INSERT INTO rest SELECT g, date '2026-01-16' + (g % 2)::int, 'y', 1 FROM generate_series(1, 100) g")
    partition(proxy, "maintain", "rest", "--now", "2026-01-15")
    assert in_default(cluster, "rest") == [FAR, FAR]
    assert run("SELECT count(*) FROM rest WHERE user_id > 0 AND at IN ('2026-01-16', '2026-01-17')") == [(100,)]
    end(cluster, proxy, run, "rest")


def test_rows_that_cannot_be_moved_are_told(cluster, proxy, run):
    """A role that cannot keep triggers from acting leaves them, and the table, as they are."""
    cluster.create_role("keeper")
    begin(cluster, proxy, run, "told")
    for node in cluster.primaries:
        node.sql("""CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                    CREATE TRIGGER told_kept BEFORE DELETE ON told FOR EACH ROW EXECUTE FUNCTION keep();
                    GRANT CREATE ON SCHEMA public TO keeper; GRANT USAGE, CREATE ON SCHEMA pgshunt TO keeper;
                    GRANT ALL ON ALL TABLES IN SCHEMA pgshunt TO keeper; GRANT ALL ON ALL SEQUENCES IN SCHEMA pgshunt TO keeper;
                    ALTER TABLE told OWNER TO keeper""", dbname="app")
        for name in names(node, "told"):
            node.sql(f"ALTER TABLE {name} OWNER TO keeper", dbname="app")
    run("INSERT INTO told VALUES (1, '2026-01-13')")
    ran = partition(proxy, "maintain", "told", "--now", "2026-01-11", "--user", "keeper", code=4)
    assert "cannot make partition told_p20260113" in ran.out and "rows of its range are in the default partition" in ran.out
    assert sum(in_default(cluster, "told")) == 2 * FAR + 1 and guards(cluster) == [0, 0]
    partition(proxy, "maintain", "told", "--now", "2026-01-11")  # a superuser can
    assert sum(in_default(cluster, "told")) == 2 * FAR and run("SELECT count(*) FROM told WHERE at < '2099-01-01'") == [(1,)]
    end(cluster, proxy, run, "told")


def test_nobody_is_refused_and_no_row_is_lost(cluster, proxy, run):
    """Rows of days to come arrive all the time, through pgshunt and beside it, while their partitions are made."""
    begin(cluster, proxy, run, "loaded")
    stop, errors, written = threading.Event(), [], [0] * 4

    def write(which, connection):
        cursor, number = connection.cursor(), 0
        while not stop.is_set():
            number += 1
            try:
                cursor.execute("INSERT INTO loaded VALUES (%s, date '2026-01-10' + %s)", ((which + 1) * 1000000 + number, number % 12))
                if number % 5 == 0:  # from one day to another one
                    cursor.execute("UPDATE loaded SET at = at + 3 WHERE user_id = %s", ((which + 1) * 1000000 + number,))
                written[which] += 1
            except psycopg2.Error as error:
                errors.append(error)
        connection.close()
    connections = [proxy.connect(), proxy.connect()] + [node.connect(dbname="app") for node in cluster.primaries]
    threads = [threading.Thread(target=write, args=(i, each)) for i, each in enumerate(connections)]
    for thread in threads:
        thread.start()
    try:
        for day in range(11, 15):
            partition(proxy, "maintain", "loaded", "--now", f"2026-01-{day}", "--tries", "50")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == [] and min(written) > 0
    assert sum(node.value("SELECT count(*) FROM loaded WHERE at < '2099-01-01'", dbname="app") for node in cluster.primaries) == sum(written)
    for node in cluster.primaries:
        assert len(names(node, "loaded")) == 8
        assert node.value("SELECT count(*) FROM loaded_default WHERE at BETWEEN '2026-01-10' AND '2026-01-16'", dbname="app") == 0
    end(cluster, proxy, run, "loaded")


def stopped(cluster, proxy, step, *args):
    """The command, which waits at that step."""
    process = subprocess.Popen(command(proxy.config_path, "partition", *args), env={**os.environ, "PGSHUNT_STOP_AT": step},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_stopped(process)
    return process


@needs_failpoints
@pytest.mark.parametrize("step", ["partition_guarded", "partition_validated"])
def test_rows_that_come_in_between_are_let_in_and_moved(cluster, proxy, run, step):
    begin(cluster, proxy, run, "killed")
    maintain = ("maintain", "killed", "--now", "2026-01-12")
    process = stopped(cluster, proxy, step, *maintain)
    try:
        assert 1 in guards(cluster)
        run("INSERT INTO killed SELECT g, date '2026-01-13' + (g / 51)::int FROM generate_series(1, 100) g")
        assert max(in_default(cluster, "killed")) > FAR  # the other shard may be further
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    finally:
        process.kill()
        process.wait()
    assert in_default(cluster, "killed") == [FAR, FAR]
    assert run("SELECT at::text, count(*) FROM killed WHERE user_id > 0 GROUP BY at ORDER BY at") == [("2026-01-13", 50), ("2026-01-14", 50)]
    # Killed there: what is left refuses nothing, and the next run has done with it, even if there is nothing to be made.
    process = stopped(cluster, proxy, step, "maintain", "killed", "--now", "2026-01-13")
    process.kill()
    process.wait()
    process.stdout.close()
    for node in cluster.primaries:
        wait_until(lambda node=node: node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'", dbname="app") == 0, 60)
    assert 1 in guards(cluster)
    run("INSERT INTO killed SELECT g, '2026-01-15' FROM generate_series(101, 200) g")
    partition(proxy, "maintain", "killed", "--now", "2026-01-12")
    assert guards(cluster) == [0, 0] and max(in_default(cluster, "killed")) > FAR
    partition(proxy, "maintain", "killed", "--now", "2026-01-13")
    assert in_default(cluster, "killed") == [FAR, FAR] and run("SELECT count(*) FROM killed WHERE user_id > 0") == [(200,)]
    end(cluster, proxy, run, "killed")


@needs_failpoints
def test_a_row_that_is_not_committed_while_it_is_validated_is_found(cluster, proxy, run):
    """VALIDATE cannot see it, so it has to be counted: it came when the CHECK was there, and before anything else."""
    begin(cluster, proxy, run, "killed")
    process = stopped(cluster, proxy, "partition_guarded", "maintain", "killed", "--now", "2026-01-11", "--tries", "1000")
    try:
        which = guards(cluster).index(1)
        node = cluster.primaries[which]
        writer = node.connect(dbname="app")
        writer.cursor().execute("BEGIN; INSERT INTO killed VALUES (1, '2026-01-13')")
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: node.value("SELECT count(*) FROM pg_constraint WHERE conname = 'pgshunt_attach' AND convalidated", dbname="app") == 1, 60)
        writer.cursor().execute("COMMIT")
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    finally:
        process.kill()
        process.wait()
    assert in_default(cluster, "killed") == [FAR, FAR]
    assert node.sql("SELECT tableoid::regclass::text FROM killed WHERE user_id = 1", dbname="app") == [("killed_p20260113",)]
    end(cluster, proxy, run, "killed")


@needs_failpoints
@pytest.mark.parametrize("step", ["partition_guarded", "partition_validated"])
def test_a_server_that_dies_there_comes_back_as_it_was(cluster, proxy, run, step):
    begin(cluster, proxy, run, "killed")
    process = stopped(cluster, proxy, step, "maintain", "killed", "--now", "2026-01-12")
    try:
        which = guards(cluster).index(1)
        cluster.primaries[which].kill9()
        cluster.primaries[which].start()
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    proxy.wait_nodes()
    run("INSERT INTO killed SELECT g, date '2026-01-13' + (g / 51)::int FROM generate_series(1, 100) g")
    wait_until(lambda: partition(proxy, "maintain", "killed", "--now", "2026-01-12", code=None).code == 0, 60)
    assert in_default(cluster, "killed") == [FAR, FAR] and run("SELECT count(*) FROM killed WHERE user_id > 0") == [(100,)]
    end(cluster, proxy, run, "killed")
