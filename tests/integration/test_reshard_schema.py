"""`reshard create --prepare-schema`: an empty target gets what it needs from the source, indexes behind the rows."""
import json
import signal

import pytest

from harness import Cluster
from harness.process import wait_until
from reshard_kills import needs_failpoints
from reshard_support import config, ctl, forget_everything, in_ranges, start_ctl

SPACE = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, {"name": "app.orders", "key": "user_id"}]}

SCHEMA = """
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('sad', 'glad');
CREATE DOMAIN app.amount AS numeric CHECK (VALUE >= 0);
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := true; RETURN NEW; END $$;
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE notes (id int PRIMARY KEY, body text);
CREATE VIEW notes_view AS SELECT * FROM notes;
CREATE VIEW notes_view_view AS SELECT * FROM notes_view;
CREATE TABLE users (id bigint PRIMARY KEY, mail text UNIQUE, mood app.mood, country text REFERENCES countries, touched bool);
CREATE INDEX users_mood ON users (mood);
CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE VIEW glad AS SELECT * FROM users WHERE mood = 'glad';
CREATE TABLE app.orders (id bigint, user_id bigint REFERENCES users, at int, amount app.amount, PRIMARY KEY (user_id, id, at)) PARTITION BY RANGE (at);
CREATE TABLE app.orders_1 PARTITION OF app.orders FOR VALUES FROM (0) TO (50);
CREATE TABLE app."Orders 2" PARTITION OF app.orders FOR VALUES FROM (50) TO (100);
CREATE INDEX ON app.orders (amount);
INSERT INTO countries VALUES ('at', 'Austria'), ('de', E'Ger\\tmany');
INSERT INTO notes VALUES (1, 'one');
INSERT INTO users SELECT g, 'mail ' || g, (ARRAY['sad', 'glad'])[1 + g % 2]::app.mood, (ARRAY['at', 'de', NULL])[1 + g % 3] FROM generate_series(1, 2000) g;
INSERT INTO app.orders SELECT g, 1 + g % 2000, g % 100, g FROM generate_series(1, 5000) g;
"""


@pytest.fixture(scope="module")
def running():
    with Cluster(shards=2, replicas=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    forget_everything(*running.primaries)
    return running


def relations(node):
    return {row[0] for row in node.sql("SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                                       "WHERE n.nspname IN ('public', 'app')")}


def constraints(node):
    return set(node.sql("SELECT conrelid::regclass::text, conname, contype, convalidated FROM pg_constraint WHERE connamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'app'))"))


@pytest.mark.parametrize("killed", [False, True])
def test_empty_target(cluster, tmp_path, killed):
    source, target = cluster.primaries
    source.sql(SCHEMA)
    path = config(tmp_path, cluster, [SPACE], (1, 0), reference=["countries"])
    ctl(path, "create", "grow", "--move", "0-4999:s1", "--prepare-schema")
    assert "users_pkey" in relations(target) and "users_mood" not in relations(target), "indexes come behind the rows"
    if killed:
        process = start_ctl(path, "run", "grow", "--until-caught-up", "--rate", "150kB/s")
        try:
            wait_until(lambda: target.value("SELECT count(*) FROM users") > 0, 60, "rows")
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
    ctl(path, "run", "grow", "--until-caught-up")
    assert relations(target) == relations(source) - {"notes", "notes_pkey", "notes_view", "notes_view_view"}
    assert constraints(target) == constraints(source) - {("notes", "notes_pkey", "p", True)}
    assert target.sql("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'users'::regclass") == [("touch",)]
    assert target.sql("SELECT * FROM countries ORDER BY 1") == source.sql("SELECT * FROM countries ORDER BY 1")
    for query in ("SELECT id, mail, mood, country, touched FROM users", "SELECT user_id, id, at, amount FROM app.orders"):
        wanted = sorted((row for row in source.sql(query) if in_ranges(row[0], (0, 4999))), key=repr)
        assert len(wanted) > 300 and sorted(target.sql(query), key=repr) == wanted
    assert target.value("SELECT reltuples FROM pg_class WHERE oid = 'users'::regclass") > 300, "plans know how much there is"
    said = ctl(path, "verify", "grow").stdout
    assert "Both sides are the same" in said


def test_programs_end_with_it(cluster, tmp_path, monkeypatch):
    """A pg_dump does not outlive the killed command that has started it, nor what that has started itself."""
    source, _ = cluster.primaries
    source.sql(SCHEMA)
    path = config(tmp_path, cluster, [SPACE], (1, 0), reference=["countries"])
    told = tmp_path / "pid"
    dump = tmp_path / "pg_dump"
    dump.write_text(f"#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\nexec sleep 600\n")
    dump.chmod(0o755)
    monkeypatch.setenv("PGSHUNT_PG_BINDIR", str(tmp_path))
    process = start_ctl(path, "create", "grow", "--move", "0-4999:s1", "--prepare-schema")
    try:
        wait_until(told.exists, 60, "pg_dump")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    wait_until(lambda: ended(int(told.read_text())), 30, "its end")


def ended(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_cannot_be_made_is_told(cluster, tmp_path):
    source, target = cluster.primaries
    source.sql("CREATE ROLE shop; GRANT CREATE ON SCHEMA public TO shop")
    source.sql("CREATE TABLE users (id bigint PRIMARY KEY); ALTER TABLE users OWNER TO shop")
    space = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
    path = config(tmp_path, cluster, [space], (1, 0))
    ran = ctl(path, "create", "grow", "--move", "0-4999:s1", "--prepare-schema", check=False)
    assert ran.returncode == 4 and 'role "shop" does not exist' in ran.stdout + ran.stderr
    assert not relations(target), "all of it, or nothing"
    target.sql("CREATE ROLE shop; GRANT CREATE ON SCHEMA public TO shop")
    ctl(path, "create", "grow", "--move", "0-4999:s1", "--prepare-schema")
    ctl(path, "run", "grow", "--until-caught-up")
    assert target.value("SELECT tableowner FROM pg_tables WHERE tablename = 'users'") == "shop"


def test_indexes_are_told(cluster, tmp_path):
    """How far an index is that is built behind the rows is told while it is."""
    source, target = cluster.primaries
    slow = "CREATE OR REPLACE FUNCTION slow(n bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({}); RETURN n; END $$"
    source.sql(slow.format(0))
    source.sql("CREATE TABLE users (id bigint PRIMARY KEY); INSERT INTO users SELECT generate_series(1, 2000); CREATE INDEX users_slow ON users (slow(id))")
    space = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
    path = config(tmp_path, cluster, [space], (1, 0))
    ctl(path, "create", "grow", "--move", "0-8191:s1", "--prepare-schema")
    target.sql(slow.format(0.003))
    lines = [json.loads(line) for line in ctl(path, "run", "grow", "--until-caught-up", "--json").stdout.splitlines()]
    told = [line for line in lines if line.get("phase") == "index"]
    assert told and {line["target"] for line in told} == {"s1"} and all("users" in line["table"] for line in told), lines
    assert all(line["bytes"] >= 0 and not line["done"] for line in told)
    assert "users_slow" in relations(target)


KEYS = """
CREATE SCHEMA "my app";
CREATE TABLE continents (code text PRIMARY KEY);
CREATE TABLE countries (code text PRIMARY KEY, continent text CONSTRAINT "in a continent" REFERENCES continents);
CREATE TABLE users (id bigint PRIMARY KEY, mail text, country text REFERENCES countries DEFERRABLE INITIALLY DEFERRED);
CREATE UNIQUE INDEX users_mail ON users (id, mail);
CREATE TABLE "my app"."the orders" (id bigint, user_id bigint, mail text, PRIMARY KEY (user_id, id),
  CONSTRAINT "of a mail" FOREIGN KEY (user_id, mail) REFERENCES users (id, mail) MATCH FULL ON DELETE CASCADE,
  CONSTRAINT "of a user" FOREIGN KEY (user_id) REFERENCES users);
CREATE TABLE parts (user_id bigint REFERENCES users, at int, PRIMARY KEY (user_id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (50);
ALTER TABLE parts_1 ADD CONSTRAINT own FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
CREATE TABLE logins (user_id bigint, at int, PRIMARY KEY (user_id, at));
ALTER TABLE logins ADD CONSTRAINT later FOREIGN KEY (user_id) REFERENCES users NOT VALID;
CREATE TABLE of_parts (user_id bigint, at int, PRIMARY KEY (user_id, at), CONSTRAINT whole FOREIGN KEY (user_id, at) REFERENCES parts);
COMMENT ON CONSTRAINT "of a user" ON "my app"."the orders" IS 'whose';
COMMENT ON INDEX users_mail IS 'mails';
INSERT INTO continents VALUES ('eu');
INSERT INTO countries VALUES ('at', 'eu');
INSERT INTO users SELECT g, 'mail ' || g, 'at' FROM generate_series(1, 300) g;
INSERT INTO "my app"."the orders" SELECT g, g, 'mail ' || g FROM generate_series(1, 300) g;
INSERT INTO parts SELECT g, g % 50 FROM generate_series(1, 300) g;
INSERT INTO of_parts SELECT g, g % 50 FROM generate_series(1, 300) g;
"""
KEY_SPACE = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}, *({"name": name, "key": "user_id"} for name in ("my app.the orders", "parts", "logins", "of_parts"))]}
# What was said to a server, beginning with ALTER TABLE. It has a schema of its own, so nobody minds it.
RECORD = """
CREATE SCHEMA record;
CREATE TABLE record.said (n serial, text text);
CREATE FUNCTION record.it() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO record.said (text) VALUES (current_query()); END $$;
CREATE EVENT TRIGGER record ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION record.it();
"""


def foreign_keys(node):
    """With their definitions, names and comments."""
    return {name: rest for name, *rest in node.sql(
        "SELECT conname, conrelid::regclass::text, convalidated, pg_get_constraintdef(oid), obj_description(oid) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 AND connamespace <> coalesce(to_regnamespace('pgshunt'), 0)")}


def test_foreign_keys_are_validated_behind(cluster, tmp_path):
    """They are made NOT VALID, where that can be, then validated; what could not be is gone on with by the next run."""
    source, target = cluster.primaries
    source.sql(KEYS)
    path = config(tmp_path, cluster, [KEY_SPACE], (1, 0), reference=["continents", "countries"])
    ctl(path, "create", "grow", "--move", "0-8191:s1", "--prepare-schema")
    target.sql(RECORD)
    target.sql("""INSERT INTO "my app"."the orders" VALUES (7, -7, 'nobody')""")
    ran = ctl(path, "run", "grow", "--until-caught-up", check=False)
    assert ran.returncode != 0 and 'violates foreign key constraint "of a' in ran.stdout + ran.stderr
    halted = foreign_keys(target)
    assert set(halted) == set(foreign_keys(source)), "all are there"
    assert not (halted["of a mail"][1] and halted["of a user"][1])
    target.sql("""DELETE FROM "my app"."the orders" WHERE id = 7 AND user_id = -7""")
    lines = [json.loads(line) for line in ctl(path, "run", "grow", "--until-caught-up", "--json").stdout.splitlines()]
    told = [line for line in lines if line.get("kind") == "note" and "is validated" in line["text"]]
    assert told and all(line["shard"] == "s1" and line["object"] for line in told)
    assert told[-1]["text"].endswith(f"{len(told)} of {len(told)}"), told
    assert foreign_keys(target) == foreign_keys(source), "also what is not valid on the source"
    assert target.value("SELECT obj_description('users_mail'::regclass)") == "mails"
    said = [text for (text,) in target.sql("SELECT text FROM record.said WHERE text ~ 'FOREIGN KEY|VALIDATE' ORDER BY n")]
    for name in ("of a mail", "of a user", "in a continent", "users_country_fkey", "own"):
        of_it = [text for text in said if name in text]
        assert of_it[0].endswith("NOT VALID") and "VALIDATE CONSTRAINT" in of_it[-1] and len(of_it) == 2, of_it
    for name in ("parts_user_id_fkey", "whole", "later"):
        assert not [text for text in said if name in text and "VALIDATE" in text], "left to pg_restore"
    assert source.sql("SELECT count(*) FROM users") == [(300,)] and ctl(path, "verify", "grow").returncode == 0


@needs_failpoints
@pytest.mark.parametrize("step", ["run_not_valid", "run_validated"])
def test_killed_while_foreign_keys_are_made(cluster, tmp_path, monkeypatch, step):
    source, target = cluster.primaries
    source.sql(KEYS)
    path = config(tmp_path, cluster, [KEY_SPACE], (1, 0), reference=["continents", "countries"])
    ctl(path, "create", "grow", "--move", "0-8191:s1", "--prepare-schema")
    with monkeypatch.context() as patched:
        patched.setenv("PGSHUNT_CRASH_AT", step)
        ran = ctl(path, "run", "grow", "--until-caught-up", "--jobs", "1", check=False)
    assert ran.returncode == -signal.SIGKILL
    halted = foreign_keys(target)
    assert set(halted) == set(foreign_keys(source)) and not halted["users_country_fkey"][1]
    ctl(path, "run", "grow", "--until-caught-up")
    assert foreign_keys(target) == foreign_keys(source)
