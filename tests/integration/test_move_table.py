"""Unsharded tables enter a keyspace and leave it again while clients write; a ledger of what was acknowledged judges."""
import json
import os
import signal
import subprocess

import psycopg2
import pytest

from harness import Cluster, Proxy
from harness.proxy import binary
from reshard_support import bucket, forget_everything
from test_reshard import Load, Runner, left_over, needs_failpoints, owners, patient, rows_of, state, wait_state

pytestmark = pytest.mark.slow

KEYSPACE = {"name": "users", "type": "bigint"}
TABLES = ("CREATE TABLE users (id bigint PRIMARY KEY, balance bigint NOT NULL, note text);"
          "CREATE TABLE orders (user_id bigint REFERENCES users, number bigint, total numeric, id bigserial, "
          "PRIMARY KEY (user_id, number)); CREATE INDEX orders_total ON orders (total);"
          "CREATE VIEW balances AS SELECT id, balance FROM users;"
          "CREATE TABLE plain (id int PRIMARY KEY, note text); INSERT INTO plain VALUES (1, 'stays')")
INTO = ("--tables", "users,orders", "--into", "users", "--by", "users.id,user_id", "--prepare-schema")
OUT = ("--tables", "users,orders", "--out")


@pytest.fixture(scope="module")
def running():
    with Cluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    forget_everything(*running.primaries)
    running.primaries[0].sql(TABLES)
    return running


def proxy_of(cluster):
    return Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": cluster.shard_config()})


@pytest.fixture
def proxies(cluster):
    with proxy_of(cluster) as one, proxy_of(cluster) as other:
        one.wait_nodes()
        other.wait_nodes()
        yield one, other


def run_ctl(proxy, *args, environment=None, command="move-table", timeout=120):
    return subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, command, *patient(args)],
                          capture_output=True, text=True, timeout=timeout, env={**os.environ, **(environment or {})})


def ctl(proxy, *args, code=0, **more):
    ran = run_ctl(proxy, *args, **more)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def start(cluster, proxy, load, job, wish):
    load.progress(150)
    ctl(proxy, "create", job, *wish)
    runner = Runner(proxy, job)
    wait_state(cluster, job, "streaming")
    return runner


def judge(cluster, proxies, load, sharded):
    """Every acknowledged write is there once, and where it belongs: by its bucket, or at home."""
    users, orders = load.users(), load.orders()
    for proxy in proxies:
        assert dict(proxy.sql("SELECT id, balance FROM users")) == users
        assert dict(proxy.sql("SELECT id, balance FROM balances")) == users
        assert {(user, number): str(total) for user, number, total in proxy.sql("SELECT user_id, number, total FROM orders")} == orders
        assert proxy.value("SELECT count(*) FROM orders") == len(orders)
        assert proxy.sql("SELECT * FROM plain") == [(1, "stays")]
    owner = owners(cluster)
    for query, known in (("SELECT id FROM users", users), ("SELECT user_id, number FROM orders", orders)):
        found = rows_of(cluster, query)
        assert len(found) == len(known)
        for shard, row in found:
            assert shard == (owner[bucket(row[0])] if sharded else 0), (shard, row)
    ids = [row for _, row in rows_of(cluster, "SELECT id FROM orders")]
    assert len(ids) == len(set(ids))


def classes(cluster):
    return dict(cluster.primaries[0].sql("SELECT name, keyspace FROM pgshunt.table_rule"))


def test_into_and_out(cluster, proxies):
    """In, back, in again; out, back, out again. No statement fails, nothing is lost or doubled."""
    with Load(*proxies) as load:
        with start(cluster, proxies[0], load, "split", INTO):
            ctl(proxies[0], "verify", "split")
            for turn in ("switch", "rollback", "switch"):
                ctl(proxies[0], turn, "split")
                load.progress(150)
                ctl(proxies[0], "verify", "split")
            assert load.errors() == []
            assert classes(cluster) == {"users": "users", "orders": "users"}
        assert 'key = "user_id"' in ctl(proxies[0], "complete", "split")
        load.progress(100)
    assert load.errors() == []
    judge(cluster, proxies, load, sharded=True)
    assert left_over(cluster) == []
    more = Load(*proxies)
    for writer, before in zip(more.writers, load.writers):
        writer.users, writer.orders, writer.next_user, writer.next_order = (
            before.users, before.orders, before.next_user, before.next_order)
    with more:
        with start(cluster, proxies[1], more, "home", OUT):
            for turn in ("switch", "rollback", "switch"):
                ctl(proxies[1], turn, "home")
                more.progress(150)
                ctl(proxies[1], "verify", "home")
        ctl(proxies[1], "complete", "home")
        more.progress(100)
    assert more.errors() == []
    judge(cluster, proxies, more, sharded=False)
    assert left_over(cluster) == []
    assert classes(cluster) == {"users": None, "orders": None}


def test_cancel_leaves_nothing(cluster, proxies):
    """Of both ways: what was copied goes, what is recorded of the tables goes, and sharded tables are asked for as before."""
    home = cluster.primaries[0]
    home.sql("INSERT INTO users SELECT n, n FROM generate_series(1, 300) n; INSERT INTO orders SELECT n, 1, n FROM generate_series(1, 300) n")
    ctl(proxies[0], "create", "split", *INTO)
    ctl(proxies[0], "run", "split", "--until-caught-up")
    assert classes(cluster) == {"users": None, "orders": None}
    assert proxies[1].value("SELECT count(*) FROM users") == 300
    ctl(proxies[0], "cancel", "split")
    assert rows_of(cluster, "SELECT count(*) FROM users") == [(0, (300,)), (1, (0,)), (2, (0,))]
    assert classes(cluster) == {}
    assert left_over(cluster) == []
    ctl(proxies[0], "create", "again", *INTO)  # next to the empty tables that are there
    ctl(proxies[0], "run", "again", "--until-caught-up")
    ctl(proxies[0], "switch", "again")
    ctl(proxies[0], "complete", "again")
    ctl(proxies[0], "create", "home", *OUT)
    ctl(proxies[0], "run", "home", "--until-caught-up")
    for proxy in proxies:
        assert proxy.value("SELECT count(*), sum(balance) FROM users") == 300
    ctl(proxies[0], "cancel", "home")
    assert proxies[1].value("SELECT count(*) FROM orders") == 300
    found = [shard for shard, _ in rows_of(cluster, "SELECT id FROM users")]
    assert len(found) == 300 and set(found) == {0, 1, 2}
    assert left_over(cluster) == []


def test_next_to_tables_of_the_keyspace(cluster, proxies):
    """A table that enters a keyspace that has others: their rows of the same keys are not taken for its own."""
    home = cluster.primaries[0]
    home.sql("INSERT INTO users SELECT n, n FROM generate_series(1, 200) n;"
             "CREATE TYPE mood AS ENUM ('good', 'bad');"
             "CREATE TABLE notes (user_id int NOT NULL, id int GENERATED ALWAYS AS IDENTITY, about text, PRIMARY KEY (user_id, id))"
             " PARTITION BY RANGE (user_id);"
             "CREATE TABLE notes_low PARTITION OF notes FOR VALUES FROM (0) TO (100);"
             "CREATE TABLE notes_high PARTITION OF notes FOR VALUES FROM (100) TO (1000);"
             "CREATE INDEX notes_about ON notes (about);"
             "CREATE VIEW titles AS SELECT user_id, about FROM notes;"
             "INSERT INTO notes (user_id, about) SELECT n, 'about ' || n FROM generate_series(1, 200) n")
    ctl(proxies[0], "create", "first", "--tables", "users", "--into", "users", "--by", "id", "--prepare-schema", code=5)  # orders refer to it
    home.sql("ALTER TABLE orders DROP CONSTRAINT orders_user_id_fkey")
    for job, table, column in (("first", "users", "id"), ("second", "public.notes", "user_id")):
        ctl(proxies[0], "create", job, "--tables", table, "--into", "users", "--by", column, "--prepare-schema")
        ctl(proxies[0], "run", job, "--until-caught-up")
        if job == "second":  # while both are there in part, none is met twice
            assert proxies[0].value("SELECT count(*) FROM users") == 200
            assert proxies[0].value("SELECT count(*) FROM notes") == 200
        ctl(proxies[0], "verify", job)
        ctl(proxies[0], "switch", job)
        assert proxies[1].value("SELECT count(*) FROM users") == 200
        assert proxies[1].sql("SELECT count(*), sum(u.balance) FROM users u LEFT JOIN notes n ON n.user_id = u.id") == [(200, 20100)]
        ctl(proxies[0], "complete", job)
    for proxy in proxies:
        assert proxy.sql("SELECT count(*), sum(balance) FROM users") == [(200, 20100)]
        assert proxy.sql("SELECT count(*) FROM notes") == [(200,)]
        assert proxy.sql("SELECT about FROM titles WHERE user_id = 150") == [("about 150",)]
    owner = owners(cluster)
    for query in ("SELECT id FROM users", "SELECT user_id FROM notes"):
        found = rows_of(cluster, query)
        assert sorted(key for _, (key,) in found) == list(range(1, 201))
        assert all(owner[bucket(key)] == shard for shard, (key,) in found)
    for node in cluster.primaries:
        assert node.value("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%%(about)%%'") == 3
    for number in range(30):  # on all shards, with numbers of their own
        proxies[number % 2].sql("INSERT INTO notes (user_id, about) VALUES (%s, 'new')", (number * 7 + 1,))
    ids = [row for _, row in rows_of(cluster, "SELECT id FROM notes")]
    assert len(ids) == len(set(ids)) == 230
    assert left_over(cluster) == []


def test_late_writers(cluster, proxies):
    """What comes late does not get at the old place: a proxy that slept over the switch, a transaction from before, a session of its own."""
    one, other = proxies
    home = cluster.primaries[0]
    home.sql("INSERT INTO users SELECT n, 0 FROM generate_series(1, 50) n")
    ctl(one, "create", "split", *INTO)
    with Runner(one, "split"):
        wait_state(cluster, "split", "streaming")
        late = other.connect()
        late.cursor().execute("SELECT 1")
        other.send_signal(signal.SIGSTOP)
        try:
            ctl(one, "switch", "split")
        finally:
            other.send_signal(signal.SIGCONT)
        with late.cursor() as cursor:
            for user in range(1001, 1021):
                cursor.execute("INSERT INTO users VALUES (%s, 7, 'late')", (user,))
        owner = owners(cluster)
        assert {shard for shard, (user,) in rows_of(cluster, "SELECT id FROM users WHERE balance = 7") if owner[bucket(user)] == shard} == {0, 1, 2}
        assert one.value("SELECT count(*) FROM users WHERE note = 'late'") == 20
        with pytest.raises(psycopg2.Error) as refused:
            home.sql("UPDATE users SET balance = 0")
        assert refused.value.pgcode == "55000"
        ctl(one, "rollback", "split")
        home.sql("UPDATE users SET balance = 3 WHERE id = 1")  # it is the place again, for everybody
        late.autocommit = False
        with late.cursor() as cursor:
            cursor.execute("UPDATE users SET balance = 4 WHERE id = 2")
            said = run_ctl(one, "switch", "split", "--drain", "300ms")
            assert said.returncode == 3 and "have not ended" in said.stdout + said.stderr, said.stdout + said.stderr
            cursor.execute("UPDATE balances SET balance = 5 WHERE id = 3")
        late.commit()
        late.close()
        ctl(one, "switch", "split")
        assert [other.value("SELECT balance FROM users WHERE id = %s", (user,)) for user in (1, 2, 3)] == [3, 4, 5]
    ctl(one, "complete", "split")
    assert one.value("SELECT count(*) FROM users") == 70
    assert left_over(cluster) == []


def test_other_kinds_of_keys(cluster):
    """Keys of several columns, of text, and keyspaces by list go the same way; what is recorded outlives the catalog's absence."""
    kinds = [{"name": "pairs", "type": "bigint", "types": ["bigint", "text"]}, {"name": "names", "type": "text"},
             {"name": "regions", "type": "text", "map": "list", "default": "s2",
              "lists": [{"shard": "s0", "values": ["de"]}, {"shard": "s1", "values": ["us", "ca"]}]}]
    home = cluster.primaries[0]
    home.sql("CREATE TABLE visits (tenant bigint, person text, n int, PRIMARY KEY (tenant, person, n));"
             "INSERT INTO visits SELECT i %% 9, 'person ' || i, i FROM generate_series(1, 200) i;"
             "CREATE TABLE pages (name varchar(40) PRIMARY KEY, n int); INSERT INTO pages SELECT 'page ' || i, i FROM generate_series(1, 200) i;"
             "CREATE TABLE towns (region text, name text, PRIMARY KEY (region, name));"
             "INSERT INTO towns SELECT (ARRAY['de', 'us', 'ca', 'fr'])[i %% 4 + 1], 'town ' || i FROM generate_series(1, 200) i".replace("%%", "%"))
    with Proxy(cluster, keyspaces=kinds, database={"shards": cluster.shard_config()}) as proxy:
        proxy.wait_nodes()
        for job, table, keyspace, column in (("a", "visits", "pairs", "tenant,person"), ("b", "pages", "names", "name"),
                                             ("c", "towns", "regions", "towns.region")):
            said = ctl(proxy, "plan", "--tables", table, "--into", keyspace, "--by", column, "--prepare-schema", "--dry-run", code=2)
            assert "has no option --prepare-schema" in said
            ctl(proxy, "create", job, "--tables", table, "--into", keyspace, "--by", column, "--prepare-schema")
            ctl(proxy, "run", job, "--until-caught-up")
            ctl(proxy, "verify", job)
            ctl(proxy, "switch", job)
            assert proxy.value(f"SELECT count(*) FROM {table}") == 200
            ctl(proxy, "complete", job)
            assert f"into keyspace {keyspace}" in ctl(proxy, "status", job)
            assert {shard for shard, _ in rows_of(cluster, f"SELECT 1 FROM {table}")} == {0, 1, 2}
        assert proxy.sql("SELECT n FROM visits WHERE tenant = 5 AND person = 'person 14'") == [(14,)]
        assert proxy.sql("SELECT n FROM pages WHERE name = 'page 77'") == [(77,)]
        assert proxy.value("SELECT count(*) FROM towns WHERE region = 'fr'") == 50
        assert rows_of(cluster, "SELECT DISTINCT region FROM towns ORDER BY 1") == [(0, ("de",)), (1, ("ca",)), (1, ("us",)), (2, ("fr",))]
        shown = ctl(proxy, "show", "--json", command="map")
        assert {"table": "visits", "keyspace": "pairs", "columns": "tenant,person", "configuration": "other"} in json.loads(shown)["tables"]
    assert left_over(cluster) == []


REFUSED = [
    ("CREATE TABLE t (id int PRIMARY KEY)", "user_id", 'has no column "user_id"'),
    ("CREATE TABLE t (user_id text PRIMARY KEY)", "user_id", "is of type text"),
    ("CREATE TABLE t (id int PRIMARY KEY, user_id int); INSERT INTO t VALUES (1, NULL), (2, NULL), (3, 3)", "user_id", "is in 2 rows"),
    ("CREATE TABLE t (id int PRIMARY KEY, user_id int)", "user_id", "SET NOT NULL"),
    ("CREATE TABLE t (id int PRIMARY KEY, user_id int NOT NULL GENERATED ALWAYS AS (id + 1) STORED)", "user_id", "is generated"),
    ("CREATE TABLE t (user_id int NOT NULL)", "user_id", "no primary key"),
    ("CREATE UNLOGGED TABLE t (user_id int PRIMARY KEY)", "user_id", "unlogged"),
    ("CREATE TABLE t (user_id int PRIMARY KEY REFERENCES plain)", "user_id", "which does not move along"),
    ("CREATE TABLE t (user_id int PRIMARY KEY, up int REFERENCES t)", "user_id", "does not contain the sharding keys"),
    ("CREATE TABLE p (user_id int PRIMARY KEY) PARTITION BY RANGE (user_id); CREATE TABLE t PARTITION OF p DEFAULT", "user_id", "a partition"),
    ("CREATE VIEW t AS SELECT id AS user_id FROM plain", "user_id", "is a view"),
    ("CREATE SCHEMA more; CREATE TABLE more.t (user_id int PRIMARY KEY); CREATE TABLE t (user_id int PRIMARY KEY)", "user_id",
     "several schemas"),
    ("", "user_id", "there is no such table"),
    ("CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))", "a,b", "has 1 columns"),
]


def test_refusals(cluster, proxies):
    """What would go wrong is said, with what mends it, and nothing is made."""
    home = cluster.primaries[0]
    into = ("--tables", "t", "--into", "users")
    for number, (made, column, said) in enumerate(REFUSED):
        home.sql(f"CREATE SCHEMA room{number}; DROP SCHEMA room{number}; " + made)
        output = run_ctl(proxies[0], "create", "bad", *into, "--by", column, "--prepare-schema")
        assert output.returncode != 0 and said in output.stdout + output.stderr, (made, output.stdout + output.stderr)
        home.sql("DROP SCHEMA IF EXISTS more CASCADE; DROP VIEW IF EXISTS t" if "VIEW" in made
                 else "DROP SCHEMA IF EXISTS more CASCADE; DROP TABLE IF EXISTS t, p")
    home.sql("CREATE TABLE t (user_id int PRIMARY KEY); CREATE TABLE k (user_id int PRIMARY KEY REFERENCES t)")
    cluster.primaries[1].sql("CREATE TABLE t (user_id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    output = run_ctl(proxies[0], "create", "bad", *into, "--by", "user_id", "--prepare-schema")
    said = output.stdout + output.stderr
    assert "k, which does not move along, refers to it" in said and "the table is on the first shard alone" in said
    assert output.returncode == 5
    for wrong, why in ((("--tables", "t", "--into", "nowhere", "--by", "user_id"), "no keyspace"),
                       (("--tables", "plain", "--out"), "is in no keyspace"),
                       (("--into", "users", "--by", "id"), "--tables"),
                       (("--tables", "t", "--into", "users"), "--by"),
                       (("--add", "s1"), "no option --add")):
        output = run_ctl(proxies[0], "create", "bad", *wrong)
        assert output.returncode != 0 and why in output.stdout + output.stderr, output.stdout + output.stderr
    assert home.value("SELECT count(*) FROM pgshunt.job") == 0
    assert classes(cluster) == {}


@needs_failpoints
def test_killed(cluster, proxies):
    """Switches and rollbacks are killed, and repeated: no statement fails, nothing is lost. All steps are in tests/reshard."""
    with Load(*proxies) as load:
        with start(cluster, proxies[0], load, "split", INTO):
            for number, step in enumerate(("guard", "drain", "flip")):
                turn = ("switch", "rollback")[number % 2]
                killed = run_ctl(proxies[0], turn, "split", environment={"PGSHUNT_CRASH_AT": step})
                assert killed.returncode == -9, (turn, step, killed.stdout + killed.stderr)
                load.progress(20)
                ctl(proxies[0], turn, "split")
            load.progress(50)
            assert load.errors() == []
            assert state(cluster, "split") == "switched"
        assert run_ctl(proxies[0], "complete", "split", environment={"PGSHUNT_CRASH_AT": "cleared"}).returncode == -9
        ctl(proxies[0], "complete", "split")
        load.progress(50)
    assert load.errors() == []
    judge(cluster, proxies, load, sharded=True)
    assert left_over(cluster) == []
