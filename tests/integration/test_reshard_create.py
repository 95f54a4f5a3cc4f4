"""Planning and creating a reshard job: what moves, and that everything in the way is found at once, and mended as told."""
import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster
from harness.proxy import binary, to_libconfig

pytestmark = [pytest.mark.core, pytest.mark.slow]

KEYSPACES = [{"name": "users", "type": "bigint",
              "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]},
             {"name": "towns", "type": "text", "map": "list", "lists": [{"values": ["de"], "shard": "s0"}, {"values": ["us"], "shard": "s1"}],
              "tables": [{"name": "towns", "key": "country"}]}]
TABLES = """
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, age int CHECK (age > 0));
CREATE TABLE orders (user_id bigint REFERENCES users (id), id bigint, total int, PRIMARY KEY (user_id, id)) PARTITION BY RANGE (id);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (1000);
CREATE TABLE orders_2 PARTITION OF orders DEFAULT;
CREATE TABLE countries (code text PRIMARY KEY);
INSERT INTO countries VALUES ('de')
"""


def make_config(folder, cluster, user="postgres"):
    shards = [{"name": f"s{i}", "dbname": "app", "nodes": [{"host": "127.0.0.1", "port": shard.primary.port}]}
              for i, shard in enumerate(cluster.shards)]
    path = folder / f"{user}.conf"
    path.write_text('auth = { method = "trust"; };\nmonitor = { user = "%s"; };\n' % user + "databases = " + to_libconfig(
        [{"name": "app", "shards": shards, "keyspaces": KEYSPACES, "reference": ["countries"]}]) + ";\n")
    return str(path)


def ctl(path, *args, expect=0):
    """The events that are told, each an object; the last line, of the outcome, is left out."""
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", path, "--json", "reshard", *args],
                         capture_output=True, text=True, timeout=120)
    assert ran.returncode == expect, (args, ran.returncode, ran.stdout, ran.stderr)
    return [event for event in map(json.loads, ran.stdout.splitlines()) if "kind" in event]


def problems(events, shard=None):
    return {(event.get("shard"), event.get("object")): event for event in events
            if event.get("kind") == "problem" and shard in (None, event.get("shard"))}


def several(node, sql):
    with closing(node.connect()) as link:
        link.autocommit = True
        link.cursor().execute(sql)


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(cluster):
    """Three shards, alike; all are owners of a third."""
    for node in cluster.primaries:
        several(node, "DROP SCHEMA IF EXISTS pgshunt CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public; "
                      "GRANT ALL ON SCHEMA public TO PUBLIC;" + TABLES)


@pytest.fixture(scope="module")
def conf(cluster, tmp_path_factory):
    return make_config(tmp_path_factory.mktemp("conf"), cluster)


MOVE = ["--move", "0-99:s1"]


def plan(conf, *wish, expect=0):
    return ctl(conf, "plan", *(wish or MOVE), expect=expect)


def test_what_moves_and_how_much(conf, cluster):
    cluster.primaries[0].sql("INSERT INTO users SELECT g, 'n' FROM generate_series(1, 3000) g")
    cluster.primaries[0].sql("ANALYZE")
    events = plan(conf, "--drain", "s2")
    planned = [event["text"] for event in events if event["kind"] == "planned"]
    assert sum(int(text.split("(")[1].split(")")[0]) for text in planned) == 5461
    events = plan(conf, "--move", "0-5461:s1")
    users = [event for event in events if event.get("object") == "public.users" and event["kind"] == "fact"]
    assert "about 3000 rows" in users[0]["text"] and "100 %" in users[0]["text"]
    assert [event for event in events if event.get("object") == "in all"]
    assert not cluster.primaries[0].value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgshunt'")


@pytest.mark.parametrize("wish, words", [
    (["--add", "s9"], "no shard \"s9\""), (["--move", "0-9:s0"], "on shard s0 already"), ([], "nothing is to be moved"),
    (["--move", "towns/1:s0"], "towns"), (["--drain", "s0,s1,s2"], "no shard with a weight")])
def test_wrong_wishes(conf, wish, words):
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", conf, "reshard", "plan", *wish],
                         capture_output=True, text=True, timeout=60)
    assert ran.returncode not in (0, 5) and words in ran.stdout + ran.stderr


# What is broken on a shard, the object that is told, and whether the mend that is told is SQL that mends it there.
BROKEN = {
    "unlogged": (0, "ALTER TABLE orders DETACH PARTITION orders_1; ALTER TABLE orders_1 SET UNLOGGED; "
                    "ALTER TABLE orders ATTACH PARTITION orders_1 FOR VALUES FROM (0) TO (1000)", "public.orders_1", True),
    "no key": (0, "ALTER TABLE orders DROP CONSTRAINT orders_pkey", "public.orders", False),
    "a column too many": (0, "ALTER TABLE users ADD extra int", "public.users.extra", True),
    "a column missing": (1, "ALTER TABLE users DROP name", "public.users.name", True),
    "another type": (1, "ALTER TABLE users ALTER name TYPE varchar(5)", "public.users.name", True),
    "no NOT NULL": (1, "ALTER TABLE users ALTER name DROP NOT NULL", "public.users.name", True),
    "no constraint": (1, "ALTER TABLE users DROP CONSTRAINT users_age_check", "users_age_check of public.users", True),
    "no partition": (1, "DROP TABLE orders_2", "public.orders_2", False),
    "an extension": (0, "CREATE EXTENSION pg_trgm", "pg_trgm", True),
    "children": (0, "CREATE TABLE kids () INHERITS (users)", "public.users", True),
    "a trigger": (1, "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL_; END$$; CREATE TRIGGER t AFTER "
                     "INSERT ON users FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE users ENABLE ALWAYS TRIGGER t", "public.users",
                  True),
    "a key outwards": (0, "CREATE TABLE other (id int PRIMARY KEY); ALTER TABLE users ADD CONSTRAINT out FOREIGN KEY (age) REFERENCES "
                          "other", "public.users", False),
    "a key inwards": (0, "CREATE TABLE notes (id bigint CONSTRAINT inwards REFERENCES users)", "public.users", True),
    "empty reference": (1, "DELETE FROM countries", "countries", False),
}
MENDED = {
    "a key outwards": "ALTER TABLE users DROP CONSTRAINT out",
    "no key": "ALTER TABLE orders ADD PRIMARY KEY (user_id, id)",
    "no partition": "CREATE TABLE orders_2 PARTITION OF orders DEFAULT",
    "empty reference": "INSERT INTO countries VALUES ('de')",
}
@pytest.mark.parametrize("name", BROKEN)
def test_a_problem_is_found_and_its_mend_mends_it(conf, cluster, name):
    shard, sql, thing, exact = BROKEN[name]
    several(cluster.primaries[shard], sql)
    found = [event for event in plan(conf, expect=5) if event["kind"] == "problem"]
    assert thing in [problem["object"] for problem in found], found
    for problem in found:
        assert problem.get("mend"), problem
        if exact:
            several(cluster.primaries[int(problem["shard"][1:])], problem["mend"])
    if not exact:
        several(cluster.primaries[shard], MENDED[name])
    assert not problems(plan(conf))


def test_all_of_them_at_once(conf, cluster):
    several(cluster.primaries[0], "ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    several(cluster.primaries[1], "ALTER TABLE users DROP CONSTRAINT users_age_check; DELETE FROM countries")
    things = [key[1] for key in problems(ctl(conf, "create", "job", *MOVE, expect=5))]
    assert {"public.orders", "users_age_check of public.users", "countries"} <= set(things)
    assert not cluster.primaries[0].sql("SELECT name FROM pgshunt.job")


def test_prepared_transactions_are_named(conf, cluster):
    with closing(cluster.primaries[0].connect()) as link:
        cursor = link.cursor()
        cursor.execute("CREATE TABLE left_behind (id int); PREPARE TRANSACTION 'forgotten'")
    found = problems(plan(conf, expect=5))
    assert "COMMIT PREPARED 'forgotten'" in found[("s0", "forgotten")]["mend"]
    several(cluster.primaries[0], "ROLLBACK PREPARED 'forgotten'")
    assert not problems(plan(conf))


def test_settings(conf, cluster):
    """Servers that lack what streams take: each setting with the statement that gives it."""
    node = cluster.primaries[1]
    wanted = {"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}
    before = {name: node.value(f"SHOW {name}") for name in wanted}
    try:
        for name, value in wanted.items():
            node.sql(f"ALTER SYSTEM SET {name} = {value}")
        node.restart()
        found = problems(plan(conf, "--move", "0-9:s1,16000-16009:s1", expect=5), "s1")
        assert set(wanted) <= {key[1] for key in found}
        for name in wanted:
            several(node, found[("s1", name)]["mend"].split(";")[0])
        node.restart()
        assert not problems(plan(conf, "--move", "0-9:s1,16000-16009:s1"))
    finally:
        for name, value in before.items():
            node.sql(f"ALTER SYSTEM SET {name} = {value}")
        node.restart()


def test_rights(cluster, tmp_path):
    """A role without rights is told all it lacks; with what is told, it may do all of it."""
    for node in cluster.primaries:
        node.sql("CREATE ROLE mover LOGIN")
    cluster.primaries[1].sql("CREATE SCHEMA pgshunt")
    conf = make_config(tmp_path, cluster, "mover")
    try:
        events = [event for event in plan(conf, expect=5) if event["kind"] == "problem"]
        found = problems(events)
        assert {("s0", "mover"), ("s1", "mover"), ("s0", "public.users"), ("s1", "session_replication_role")} <= set(found)
        for event in events:
            node = cluster.primaries[int(event["shard"][1:])]
            if event["object"] == "session_replication_role":
                node.sql("GRANT SET ON PARAMETER session_replication_role TO mover")
            elif event["object"] != "replication":
                several(node, event["mend"])
        assert not problems(plan(conf))
    finally:
        for node in cluster.primaries:
            node.sql("DROP OWNED BY mover")
            node.sql("DROP ROLE mover")


def disk(events):
    (event,) = [event for event in events if event.get("object") == "disk"]
    assert event["shard"] == "s1"
    return event


def size_told(events):
    (event,) = [event for event in events if event.get("object") == "in all"]
    number, unit = event["text"].split(",")[0].split()
    return float(number) * {"bytes": 1, "kB": 1024, "MB": 1024 ** 2}[unit]


def test_bloat_does_not_move(conf, cluster):
    """What is dead or free in a table's file is not copied, and no disk is needed for it."""
    source = cluster.primaries[0]
    source.sql("INSERT INTO users SELECT g, repeat('n', 100) FROM generate_series(10001, 60000) g")
    several(source, "ANALYZE users")
    full = size_told(plan(conf))
    source.sql("DELETE FROM users WHERE id % 50 <> 0")
    for mending in ("ANALYZE users", "VACUUM users"):
        several(source, mending)
        kept = source.value("SELECT pg_relation_size('users')")
        told = size_told(plan(conf))
        assert kept > 4 * 1024 * 1024 and 0 < told < full / 10, (mending, kept, told, full)


def test_free_disk(conf, cluster, tmp_path, monkeypatch):
    """It is asked for where the role may have the server run df, too little is in the way, and what is not known is said to be so."""
    source, target = cluster.primaries[:2]
    source.sql("INSERT INTO users SELECT g, repeat('n', 100) FROM generate_series(1, 3000) g")
    told = disk(plan(conf))
    assert told["kind"] == "note" and re.search(r"; \d+ [kMGT]?B of the disk is free$|; \d+ bytes of the disk is free$", told["text"])
    for node in cluster.primaries:
        several(node, "CREATE ROLE modest LOGIN REPLICATION NOINHERIT")
    folder = tempfile.mkdtemp(dir="/tmp")
    try:
        told = disk(plan(make_config(tmp_path, cluster, "modest"), expect=5))
        assert told["kind"] == "note" and "is unknown: this role is neither a superuser" in told["text"]
        df = os.path.join(folder, "df")
        with monkeypatch.context() as patched:
            patched.setenv("PATH", folder + ":" + os.environ["PATH"])
            target.restart()
        for printed, kind, words in (("/dev/a b 9999 9999 7 100% /a b", "problem", "only 7168 bytes"), ("nonsense", "note", "is unknown: df")):
            with open(df, "w", encoding="utf-8") as script:
                script.write(f"#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on'\necho '{printed}'\n")
            os.chmod(df, 0o755)
            os.chmod(folder, 0o755)
            told = disk(ctl(conf, "create", "grow", "--move", "0-5461:s1", "--dry-run", expect=5 if kind == "problem" else 0))
            assert told["kind"] == kind and words in told["text"] and ("larger disk" in told.get("mend", "")) == (kind == "problem")
            told = disk(ctl(conf, "create", "grow", "--move", "0-5461:s1", "--dry-run", "--skip-check", "disk", expect=0))
            assert told["kind"] == "note" and words in told["text"], "it is left to who says so"
        ctl(conf, "plan", "--move", "0-5461:s1", "--skip-check", "roles", expect=2)
    finally:
        shutil.rmtree(folder)
        target.restart()
        for node in cluster.primaries:
            node.sql("DROP ROLE modest")
    assert not target.value("SELECT count(*) FROM pg_class WHERE relname = 'pgshunt_df'")


def test_rows_where_there_can_be_none(cluster, tmp_path):
    """A shard that owns nothing, but has rows; what is told empties it."""
    conf = make_config(tmp_path, cluster)
    ctl(conf, "list")
    several(cluster.primaries[0], "UPDATE pgshunt.bucket SET shard = 's1' WHERE shard = 's2'")
    several(cluster.primaries[2], "INSERT INTO users VALUES (1, 'x')")
    found = problems(plan(conf, "--add", "s2", expect=5))
    assert set(found) == {("s2", "public.users")}
    several(cluster.primaries[2], found[("s2", "public.users")]["mend"] + " CASCADE")
    assert not problems(plan(conf, "--add", "s2"))


def test_both_ways_at_once(conf, cluster):
    """A shard has one table of keys that do not count: it cannot be both for what comes and for what goes."""
    found = problems(plan(conf, "--move", "0-99:s1,6000-6099:s2", expect=5))
    assert set(found) == {("s1", "users")} and "later" in found[("s1", "users")]["mend"]
    assert not problems(plan(conf, "--move", "0-99:s1,12000-12099:s1"))


def test_create(conf, cluster):
    catalog = cluster.primaries[0]
    ctl(conf, "create", "Bad-Name", *MOVE, expect=3)
    ctl(conf, "--dry-run", "create", "grow", *MOVE)
    ctl(conf, "create", "grow", *MOVE)
    assert catalog.sql("SELECT name, state, options ->> 'move' FROM pgshunt.job") == [("grow", "created", "0-99:s1")]
    assert catalog.sql("SELECT keyspace, first, last, source, target FROM pgshunt.job_move") == [("users", 0, 99, "s0", "s1")]
    # The keyspace is moving: another job has to wait.
    found = problems(ctl(conf, "create", "more", "--move", "16000:s0", expect=5))
    assert "reshard cancel grow" in found[("s0", "grow")]["mend"]
    ctl(conf, "cancel", "grow")
    assert not problems(plan(conf))
    ran = ctl(conf, "create", "grow", *MOVE, expect=3)
    assert [event for event in ran if "already" in event.get("text", "")]


def test_jobs_of_shards_that_have_left_the_configuration(conf, cluster):
    """What is over can still be looked at, and is in nobody's way."""
    ctl(conf, "create", "grow", *MOVE)
    ctl(conf, "cancel", "grow")
    several(cluster.shards[0].primary, """
        INSERT INTO pgshunt.job (name, database, kind, state, options) VALUES ('past', 'app', 'reshard', 'completed', '{}');
        INSERT INTO pgshunt.job_move VALUES ('past', 'users', 0, 99, 's9', 's0'), ('past', 'gone', 0, 99, 's1', 's0')""")
    assert any(event["object"] == "past" and event["text"].startswith("completed") for event in ctl(conf, "status") if event["object"])
    ctl(conf, "status", "past")
    ctl(conf, "gc", "--dry-run")
    several(cluster.shards[0].primary, "UPDATE pgshunt.job SET state = 'copying' WHERE name = 'past'")
    assert "the configuration does not have all of them" in json.dumps(ctl(conf, "status", "past", expect=4))
    several(cluster.shards[0].primary, "DELETE FROM pgshunt.job WHERE name = 'past'")


def test_prepare_schema(cluster, tmp_path):
    """A target without tables gets the source's; one with some is told what it lacks."""
    conf = make_config(tmp_path, cluster)
    ctl(conf, "list")
    catalog, empty = cluster.primaries[0], cluster.primaries[2]
    several(catalog, "UPDATE pgshunt.bucket SET shard = 's1' WHERE shard = 's2'; CREATE TYPE mood AS ENUM ('sad', 'ok');"
                     "CREATE EXTENSION IF NOT EXISTS pg_trgm; CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS "
                     "'SELECT 2 * n'; ALTER TABLE users ADD mood mood, ADD two int GENERATED ALWAYS AS (twice(age)) STORED")
    several(cluster.primaries[1], "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE EXTENSION IF NOT EXISTS pg_trgm; CREATE FUNCTION "
                                  "twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n'; ALTER TABLE users ADD mood mood, "
                                  "ADD two int GENERATED ALWAYS AS (twice(age)) STORED")
    several(empty, "DROP TABLE orders, countries")
    found = problems(ctl(conf, "create", "grow", "--add", "s2", "--prepare-schema", expect=5))
    assert {("s2", "public.orders"), ("s2", "countries"), ("s2", "public.users.mood")} <= set(found)
    several(empty, "DROP TABLE users")
    events = ctl(conf, "--dry-run", "create", "grow", "--add", "s2", "--prepare-schema")
    assert [event for event in events if event["kind"] == "planned" and event.get("object") == "schema"]
    assert not empty.value("SELECT count(*) FROM pg_class WHERE relname = 'users'")
    ctl(conf, "create", "grow", "--add", "s2", "--prepare-schema")
    assert empty.sql("SELECT * FROM countries ORDER BY 1") == catalog.sql("SELECT * FROM countries ORDER BY 1") != []
    empty.sql("INSERT INTO users (id, name, age, mood) VALUES (1, 'x', 2, 'ok')")
    assert empty.sql("SELECT two, mood::text FROM users") == [(4, "ok")]
    with pytest.raises(psycopg2.errors.CheckViolation):
        empty.sql("INSERT INTO users (id, name, age) VALUES (2, 'x', -2)")
    assert catalog.sql("SELECT name FROM pgshunt.job") == [("grow",)]
