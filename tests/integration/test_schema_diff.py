"""pgshuntctl schema diff: finds what is not alike on a shard, says which is the odd one, and what it proposes mends it."""
import pytest

from ctl_support import ctl
from harness import Cluster, Proxy

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
SCHEMA = """
CREATE ROLE reader; CREATE ROLE writer;
CREATE SCHEMA shop; CREATE EXTENSION pgcrypto;
CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN small AS int CHECK (VALUE < 100);
CREATE TABLE users (id bigserial PRIMARY KEY, name text NOT NULL DEFAULT 'x', mail text COLLATE "C", age int CHECK (age > 0),
                    made int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (age * 2) STORED);
CREATE TABLE shop."Odd ones" (id int PRIMARY KEY, user_id bigint REFERENCES users, UNIQUE (user_id, id));
CREATE TABLE logs (at date) PARTITION BY RANGE (at); CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE INDEX users_mail ON users (lower(mail)); CREATE INDEX logs_at ON logs (at);
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW names AS SELECT name FROM users; CREATE MATERIALIZED VIEW ages AS SELECT age FROM users;
CREATE RULE quiet AS ON DELETE TO shop."Odd ones" DO INSTEAD NOTHING;
ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON users FOR SELECT TO reader USING (id > 0);
GRANT SELECT ON users TO reader; GRANT USAGE ON SCHEMA shop TO PUBLIC; REVOKE EXECUTE ON FUNCTION twice FROM PUBLIC;
GRANT USAGE ON SEQUENCE users_id_seq TO writer WITH GRANT OPTION;
CREATE SEQUENCE free
"""
# What happened to one shard; what is said of it.
CHANGES = [
    ("DROP TABLE shop.\"Odd ones\"", 'table shop."Odd ones": is missing', None),
    ("CREATE TABLE extra (id int)", "table public.extra: is not on s0, s2", "DROP TABLE public.extra"),
    ("ALTER TABLE users DROP mail", "column public.users.mail: is missing; s0, s2: text COLLATE", "ALTER TABLE public.users ADD mail text"),
    ("ALTER TABLE users ADD phone text", "column public.users.phone: is not on s0, s2", "ALTER TABLE public.users DROP phone"),
    ("ALTER TABLE shop.\"Odd ones\" ALTER user_id TYPE int", 'column shop."Odd ones".user_id: integer; s0, s2: bigint',
     'ALTER TABLE shop."Odd ones" ALTER user_id TYPE bigint'),
    ("ALTER TABLE users ALTER name DROP NOT NULL", "NOT NULL of column public.users.name: is missing", "ALTER TABLE public.users ALTER name SET NOT NULL"),
    ("ALTER TABLE users ALTER name SET DEFAULT 'y'", "default of column public.users.name: 'y'::text; s0, s2: 'x'::text",
     "ALTER TABLE public.users ALTER name SET DEFAULT 'x'::text"),
    ("ALTER TABLE users DROP CONSTRAINT users_age_check", "constraint users_age_check of public.users: is missing",
     "ALTER TABLE public.users ADD CONSTRAINT users_age_check CHECK ((age > 0))"),
    ("DROP INDEX users_mail", "index public.users_mail: is missing", "CREATE INDEX users_mail ON public.users USING btree (lower(mail))"),
    ("DROP INDEX users_mail; CREATE INDEX users_mail ON users (mail)", "index public.users_mail: CREATE INDEX",
     "DROP INDEX public.users_mail; CREATE INDEX users_mail"),
    ("CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 3'", "function public.twice(integer): other; s0, s2: other",
     "CREATE OR REPLACE FUNCTION public.twice(integer)"),
    ("DROP TRIGGER touch ON users", "trigger touch of public.users: is missing", "CREATE TRIGGER touch BEFORE UPDATE ON public.users"),
    ("CREATE OR REPLACE VIEW names AS SELECT name FROM users WHERE age > 1", "view public.names: ", "CREATE OR REPLACE VIEW public.names AS"),
    ("DROP RULE quiet ON shop.\"Odd ones\"", 'rule quiet of shop."Odd ones": is missing', "CREATE RULE quiet AS"),
    ("ALTER TYPE mood ADD VALUE 'fair'", "type public.mood: enum ('good', 'bad', 'fair')", None),
    ("ALTER DOMAIN small DROP CONSTRAINT small_check", "type public.small: domain over integer; s0, s2", None),
    ("DROP EXTENSION pgcrypto", "extension pgcrypto: is missing", "CREATE EXTENSION pgcrypto VERSION"),
    ("ALTER TABLE users DISABLE ROW LEVEL SECURITY", "row security of public.users: is missing", "ALTER TABLE public.users ENABLE ROW LEVEL SECURITY"),
    ("DROP POLICY own ON users", "policy own of public.users: is missing",
     "CREATE POLICY own ON public.users AS PERMISSIVE FOR SELECT TO reader USING ((id > 0))"),
    ("REVOKE SELECT ON users FROM reader", "privilege SELECT on public.users to reader: is missing", "GRANT SELECT ON public.users TO reader"),
    ("GRANT UPDATE ON users TO writer", "privilege UPDATE on public.users to writer: is not on s0, s2", "REVOKE UPDATE ON public.users FROM writer"),
    ("REVOKE GRANT OPTION FOR USAGE ON SEQUENCE users_id_seq FROM writer", "to writer: as usual; s0, s2: with grant option",
     "GRANT USAGE ON SEQUENCE public.users_id_seq TO writer WITH GRANT OPTION"),
    ("REVOKE USAGE ON SCHEMA shop FROM PUBLIC", "privilege USAGE on SCHEMA shop to PUBLIC: is missing", "GRANT USAGE ON SCHEMA shop TO PUBLIC"),
    ("ALTER TABLE logs OWNER TO writer", "owner of public.logs: writer; s0, s2: postgres", "ALTER TABLE public.logs OWNER TO postgres"),
    ("DROP TABLE logs_1", "table public.logs_1: is missing; s0, s2: of public.logs FOR VALUES FROM", None),
    ("ALTER TABLE users SET (fillfactor = 50)", "table public.users: with fillfactor=50; s0, s2: as usual", None),
]


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=3, replicas=0) as cluster:
        for node in cluster.primaries:
            node.sql(SCHEMA)
        cluster.primaries[1].sql("CREATE DATABASE good TEMPLATE app", dbname="postgres")
        yield cluster


@pytest.fixture(scope="module")
def proxy(cluster):
    """Its configuration is all that is needed: nobody is connected to the databases."""
    with Proxy(cluster, keyspaces=[USERS], start=False) as proxy:
        yield proxy


@pytest.fixture
def odd(cluster):
    """The second shard, as the others are."""
    node = cluster.primaries[1]
    node.sql("DROP DATABASE app WITH (FORCE)", dbname="postgres")
    node.sql("CREATE DATABASE app TEMPLATE good", dbname="postgres")
    return node


def diff(proxy, code=0):
    return ctl(proxy, "schema", "diff", "app", code=code)


def problems(proxy):
    events = ctl(proxy, "schema", "diff", "app", "--json", code=None).json["events"]
    return [event for event in events if event["kind"] == "problem"]


def test_alike(proxy, odd):
    """What sequences have of their own is no drift."""
    odd.sql("ALTER SEQUENCE users_id_seq INCREMENT BY 64 RESTART 2; SELECT nextval('free')")
    ran = diff(proxy)
    assert "things compared on 3 shards" in ran.out and "All shards are alike." in ran.out


@pytest.mark.parametrize("change, said, mend", CHANGES, ids=[change[0][:40] for change in CHANGES])
def test_odd_shard(proxy, odd, change, said, mend):
    odd.sql(change)
    found = problems(proxy)
    assert any(said in f"{event['object']}: {event['text']}" for event in found), found
    assert {event["shard"] for event in found} == {"s1"}
    if mend:
        assert any(mend in event.get("mend", "") for event in found), found
        for event in found:
            odd.sql(event["mend"])
        assert not problems(proxy)


def test_invalid_index(proxy, odd):
    """It is a problem by itself, though its definition is as it should be."""
    odd.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'users_mail'::regclass")
    (found,) = problems(proxy)
    assert (found["shard"], found["object"], found["text"]) == ("s1", "index public.users_mail", "is INVALID")
    assert found["mend"] == "REINDEX INDEX CONCURRENTLY public.users_mail"


def test_without_a_majority(cluster, odd):
    """Of two shards, that which has something is believed: nothing is proposed to be dropped."""
    with Proxy(cluster, keyspaces=[USERS], database={"shards": cluster.shard_config()[:2]}, start=False) as two:
        odd.sql("CREATE TABLE extra (id int)")
        (table,) = [event for event in problems(two) if event["object"].startswith("table")]
        assert table["shard"] == "s0" and "is missing; s1" in table["text"] and "mend" not in table


def test_unreachable_shard(cluster, proxy, odd):
    odd.stop("fast")
    try:
        ran = diff(proxy, code=1)
        assert "s1: cannot connect to the shard's primary" in ran.out
    finally:
        odd.start()


def test_command_lines(proxy):
    assert "takes diff and a database" in ctl(proxy, "schema", "app", code=2).err
    assert "changes nothing" in ctl(proxy, "schema", "diff", "app", "--dry-run", code=2).err
