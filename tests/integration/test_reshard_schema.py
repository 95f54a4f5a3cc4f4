"""`reshard create --prepare-schema`: an empty target gets what it needs from the source, indexes behind the rows."""
import json
import signal

import pytest

from harness import Cluster
from harness.process import wait_until
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
