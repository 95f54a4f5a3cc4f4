"""Partitions that have expired become files: complete, compared and on the disk before anything is dropped."""
import csv
import hashlib
import io
import json
import os
import signal
import subprocess

import pytest

from ctl_support import start_ctl
from harness import wait_until
from partition_kills import needs_failpoints
from partition_support import cluster, exists, partition, proxy, run

TABLES = ("events", "halves")


def leaving(node):
    return node.value("SELECT count(*) FROM pgshunt.partition_leaving", dbname="app")


def listed(folder):
    return sorted(os.listdir(folder))


def read(folder, name):
    """A file's manifest and content, when they fit each other."""
    with open(os.path.join(folder, name + ".json"), encoding="utf-8") as text:
        manifest = json.load(text)
    path = os.path.join(folder, manifest["file"])
    with open(path, "rb") as file:
        packed = file.read()
    assert hashlib.sha256(packed).hexdigest() == manifest["file_sha256"] and len(packed) == manifest["file_bytes"]
    content = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
    assert len(content) == manifest["bytes"]
    return manifest, content


def rows_of(content):
    return list(csv.reader(io.StringIO(content.decode())))[1:]


def create(proxy, table, directory, *more):
    partition(proxy, "create", table, "--by", "at", "--every", "1month", "--ahead", "1", "--keep", "2months",
              "--on-expiry", f"export:{directory}", *more, "--now", "2026-01-10")


def test_expired_partitions_become_files_that_can_be_read_in_again(cluster, proxy, run, tmp_path):
    run("CREATE TABLE events (id bigint NOT NULL, user_id bigint NOT NULL, at timestamptz NOT NULL, body text DEFAULT 'x',"
        " size int GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (user_id, id, at))")
    run("CREATE INDEX events_body ON events (body)")
    create(proxy, "events", tmp_path)
    assert partition(proxy, "show", "events", "--json").json["tables"][0]["on_expiry"] == f"export:{tmp_path}"
    body = 'a "quoted", long\nline; \\N'
    run(f"INSERT INTO events SELECT g, g, '2026-01-05 12:00+00', CASE WHEN g % 3 = 0 THEN NULL ELSE '{body}' END FROM generate_series(1, 500) g")
    run("INSERT INTO events VALUES (1, 1, '2026-02-05', 'young')")
    planned = partition(proxy, "maintain", "events", "--now", "2026-04-01", "--dry-run", "--json").texts("planned")
    assert f"detach events_p20260101, export it to {tmp_path}, and drop it" in planned and listed(tmp_path) == []
    before = [node.sql("SELECT * FROM events_p20260101 ORDER BY id", dbname="app") for node in cluster.primaries]
    assert sum(map(len, before)) == 500
    ran = partition(proxy, "maintain", "events", "--now", "2026-04-01")
    for shard, node, rows in zip(("s0", "s1"), cluster.primaries, before):
        folder = tmp_path / shard
        assert f"{shard}: public.events: exported events_p20260101, {len(rows)} rows, to {folder}/public.events_p20260101.csv.zst, " \
               "and dropped it" in ran.out
        assert listed(folder) == ["public.events_p20260101.csv.zst", "public.events_p20260101.json"]
        manifest, content = read(folder, "public.events_p20260101")
        assert manifest["rows"] == len(rows) == len(rows_of(content))
        assert (manifest["table"], manifest["shard"], manifest["format"]) == ("public.events", shard, "csv")
        assert manifest["bound"] == "FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00')"
        assert not exists(node, "events_p20260101") and leaving(node) == 0
        # What the manifest says makes the table again, and the file fills it.
        node.sql(manifest["definition"], dbname="app")
        connection = node.connect(dbname="app")
        connection.cursor().copy_expert(f"COPY {manifest['partition']} ({manifest['columns']}) FROM STDIN (FORMAT csv, HEADER)",
                                        io.BytesIO(content))
        connection.commit()
        connection.close()
        assert node.sql("SELECT * FROM events_p20260101 ORDER BY id", dbname="app") == rows
        assert node.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'events_p20260101'", dbname="app") == 2
        node.sql("DROP TABLE events_p20260101", dbname="app")
    assert run("SELECT body FROM events") == [("young",)]
    partition(proxy, "drop-policy", "events")


def test_a_table_may_be_kept_and_a_file_of_another_table_stays(cluster, proxy, run, tmp_path):
    node = cluster.primaries[0]
    for turn in (1, 2):
        run('CREATE TABLE "a/b" (at date NOT NULL, body bytea)')
        create(proxy, '"a/b"', tmp_path, "--format", "binary", "--keep-table")
        run(f"INSERT INTO \"a/b\" VALUES ('2026-01-05', '{turn}'), ('2026-01-06', NULL)")
        ran = partition(proxy, "maintain", '"a/b"', "--now", "2026-04-01")
        assert "; the table stays" in ran.out
        assert node.value('SELECT count(*) FROM "a/b_p20260101"', dbname="app") == 2 and leaving(node) == 0
        partition(proxy, "drop-policy", '"a/b"')
        run('DROP TABLE "a/b"')
        node.sql('CREATE TABLE back (LIKE "a/b_p20260101"); DROP TABLE "a/b_p20260101"', dbname="app")
        manifest, content = read(tmp_path / "s0", "public.a%2Fb_p20260101" + ("" if turn == 1 else "_2"))
        connection = node.connect(dbname="app")
        connection.cursor().copy_expert("COPY back FROM STDIN (FORMAT binary)", io.BytesIO(content))
        connection.commit()
        connection.close()
        assert node.sql("SELECT encode(body, 'escape') FROM back ORDER BY at", dbname="app") == [(str(turn),), (None,)]
        node.sql("DROP TABLE back", dbname="app")
    assert listed(tmp_path / "s0") == ["public.a%2Fb_p20260101.binary.zst", "public.a%2Fb_p20260101.json",
                                       "public.a%2Fb_p20260101_2.binary.zst", "public.a%2Fb_p20260101_2.json"]


def test_what_cannot_be_archived_is_not_dropped(cluster, proxy, run, tmp_path):
    run("CREATE TABLE halves (user_id bigint NOT NULL, at date NOT NULL)")
    gone = tmp_path / "gone"
    create(proxy, "halves", gone)
    run("INSERT INTO halves SELECT g, '2026-01-05' FROM generate_series(1, 100) g")
    # No directory: nothing is even detached, and what is missing is made all the same.
    ran = partition(proxy, "maintain", "halves", "--now", "2026-04-01", code=4)
    assert f"cannot export, and so did not detach halves_p20260101: cannot open directory {gone}: No such file or directory" in ran.out
    assert run("SELECT count(*) FROM halves") == [(100,)] and exists(cluster.primaries[0], "halves_p20260501")
    # A place that is full once it is written to; what was detached is finished when there is room.
    gone.mkdir()
    (gone / "s0").mkdir()
    (gone / "s0" / ".public.halves_p20260101.csv.zst.tmp").symlink_to("/dev/full")
    ran = partition(proxy, "maintain", "halves", "--now", "2026-04-01", code=4)
    assert f"s0: public.halves: cannot export and drop halves_p20260101: cannot write {gone}/s0/.public.halves_p20260101.csv.zst.tmp: No space left on device" in ran.out
    node, other = cluster.primaries
    kept = node.value("SELECT count(*) FROM halves_p20260101", dbname="app")
    assert kept > 0 and leaving(node) == 1
    assert not exists(other, "halves_p20260101") and len(rows_of(read(gone / "s1", "public.halves_p20260101")[1])) == 100 - kept
    # A shard that is down keeps what it has.
    node.stop()
    try:
        assert "s0: cannot connect" in partition(proxy, "maintain", "halves", "--now", "2026-04-01", code=None).out
    finally:
        node.start()
    proxy.wait_nodes()
    partition(proxy, "maintain", "halves", "--now", "2026-04-01")
    assert len(rows_of(read(gone / "s0", "public.halves_p20260101")[1])) == kept
    assert not exists(node, "halves_p20260101") and leaving(node) == 0
    partition(proxy, "drop-policy", "halves")


def test_nobody_writes_between_the_file_and_the_drop(cluster, proxy, run, tmp_path):
    run("CREATE TABLE between (at date NOT NULL)")
    create(proxy, "between", tmp_path)
    run("INSERT INTO between VALUES ('2026-01-05'), ('2026-01-06')")
    node = cluster.primaries[0]
    # Who reads the table itself keeps the drop from being done, while the file is there.
    reader = node.connect(dbname="app")
    ran = partition(proxy, "alter", "between", "--keep-table", "--now", "2026-01-10")
    partition(proxy, "alter", "between", "--keep-table=off", "--now", "2026-01-10")
    node.sql("ALTER TABLE between DETACH PARTITION between_p20260101;"
             "INSERT INTO pgshunt.partition_leaving (oid, parent, shown, action, archive, export_format, keep_table) VALUES"
             f" ('between_p20260101'::regclass, 'between'::regclass, 'public.between', 'export', '{tmp_path}', 'csv', false)", dbname="app")
    reader.cursor().execute("BEGIN; SELECT count(*) FROM between_p20260101 /* a long look */")
    ran = partition(proxy, "maintain", "between", "--now", "2026-01-10", "--tries", "2", code=1)
    assert "cannot export and drop between_p20260101" in ran.out and "a long look" in ran.out
    folder = tmp_path / "s0"
    assert read(folder, "public.between_p20260101")[0]["rows"] == 2
    trying = start_ctl(proxy, "partition", "maintain", "between", "--now", "2026-01-10", "--tries", "1000")
    try:
        wait_until(lambda: node.value("SELECT count(*) FROM pg_locks WHERE relation = 'between_p20260101'::regclass AND granted AND "
                                      "mode = 'ShareRowExclusiveLock'", dbname="app") == 1, 60)
        with pytest.raises(Exception, match="lock timeout"):
            node.sql("SET lock_timeout = '300ms'; INSERT INTO between_p20260101 VALUES ('2026-01-07')", dbname="app")
        trying.send_signal(signal.SIGKILL)
    finally:
        trying.kill()
        trying.wait()
        trying.stdout.close()
    # Killed with the file written and the table not dropped: what comes to the table until the next run is in the file then.
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'", dbname="app") == 0, 60)
    node.sql("INSERT INTO between_p20260101 VALUES ('2026-01-07')", dbname="app")
    reader.close()
    partition(proxy, "maintain", "between", "--now", "2026-01-10")
    assert sorted(rows_of(read(folder, "public.between_p20260101")[1])) == [["2026-01-05"], ["2026-01-06"], ["2026-01-07"]]
    assert not exists(node, "between_p20260101") and leaving(node) == 0
    partition(proxy, "drop-policy", "between")


def test_an_export_that_is_killed_is_begun_anew(cluster, proxy, run, tmp_path):
    run("CREATE TABLE killed (at date NOT NULL, body text)")
    create(proxy, "killed", tmp_path)
    run("INSERT INTO killed SELECT '2026-01-05', md5(g::text) || md5((g * 7)::text) FROM generate_series(1, 60000) g")
    node, folder = cluster.primaries[0], tmp_path / "s0"
    temporary = folder / ".public.killed_p20260101.csv.zst.tmp"
    trying = start_ctl(proxy, "partition", "maintain", "killed", "--now", "2026-04-01")
    try:
        while not temporary.exists() and trying.poll() is None:
            pass
        trying.send_signal(signal.SIGKILL)
    finally:
        trying.kill()
        trying.wait()
        trying.stdout.close()
    # Either it was killed while it wrote, and all rows are in the table, or it was done already.
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'", dbname="app") == 0, 60)
    if exists(node, "killed_p20260101"):
        assert node.value("SELECT count(*) FROM killed_p20260101", dbname="app") == 60000
    partition(proxy, "maintain", "killed", "--now", "2026-04-01")
    manifest, content = read(folder, "public.killed_p20260101")
    assert manifest["rows"] == len(rows_of(content)) == 60000
    assert listed(folder) == ["public.killed_p20260101.csv.zst", "public.killed_p20260101.json"]
    assert not exists(node, "killed_p20260101") and leaving(node) == 0
    partition(proxy, "drop-policy", "killed")


@needs_failpoints
@pytest.mark.parametrize("step", ["export_copying", "export_written", "export_dropped"])
def test_a_run_that_dies_at_any_step_is_finished_by_the_next(cluster, proxy, run, tmp_path, step):
    table = step.replace("export", "dies")
    run(f"CREATE TABLE {table} (at date NOT NULL, body text)")
    create(proxy, table, tmp_path)
    run(f"INSERT INTO {table} SELECT '2026-01-05', g::text FROM generate_series(1, 100) g")
    node = cluster.primaries[0]
    ran = partition(proxy, "maintain", table, "--now", "2026-04-01", environment={"PGSHUNT_CRASH_AT": step}, code=None)
    assert ran.code == -signal.SIGKILL, ran
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'", dbname="app") == 0, 60)
    assert node.value(f"SELECT count(*) FROM {table}_p20260101", dbname="app") == 100 and leaving(node) == 1
    partition(proxy, "maintain", table, "--now", "2026-04-01")
    manifest, content = read(tmp_path / "s0", f"public.{table}_p20260101")
    assert manifest["rows"] == len(rows_of(content)) == 100 and manifest["bound"] == "FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')"
    assert listed(tmp_path / "s0") == [f"public.{table}_p20260101.csv.zst", f"public.{table}_p20260101.json"]
    assert not exists(node, f"{table}_p20260101") and leaving(node) == 0
    partition(proxy, "drop-policy", table)


def test_exports_are_asked_for_in_words_that_fit(cluster, proxy, run):
    run("CREATE TABLE words (at date NOT NULL)")
    wrong = [
        (("--on-expiry", "export:here"), "--on-expiry export: takes the whole path of a directory"),
        (("--on-expiry", "export:/tmp", "--format", "xml"), "--format takes csv or binary"),
        (("--on-expiry", "export:/tmp", "--keep-table=maybe"), "--keep-table takes on or off"),
        (("--on-expiry", "drop", "--keep-table"), "--keep-table goes with an export"),
        (("--format", "csv"), "--format is that of files"),
    ]
    for args, text in wrong:
        ran = partition(proxy, "create", "words", "--by", "at", "--every", "1month", *args, "--json", code=5)
        assert text in [event["text"] for event in ran.json["events"]], (args, ran)
