"""`reshard create --clone`: a physical replica becomes the new shard, and nothing is lost, doubled or left on it."""
import subprocess
import threading
import time
import urllib.error
import urllib.request

import psycopg2
import pytest

from harness import wait_until
from reshard_clone import MOVES, CloneScene, make_cluster, make_replica
from reshard_kills import needs_failpoints, wait_stopped
from reshard_ledger import owners, program
from reshard_support import bucket, config, ctl

pytestmark = pytest.mark.slow
FIRST = 2 * 10 ** 9  # users that no client of the ledger has


def ids(count, skip=0):
    """Users of s0: those of buckets that move and of others, by turns."""
    found, user = [], FIRST + skip * 1000000
    while len(found) < count:
        user += 1
        if bucket(user) < 8192 and (bucket(user) < 4096) == (len(found) % 2 == 0):
            found.append(user)
    return found


def acknowledge(scene, users, orders=()):
    """The ledger asks for them at the end."""
    scene.ledger.writers[0].users.update(dict.fromkeys(users, 0))
    scene.ledger.writers[0].orders.update({order: "1" for order in orders})


def insert(cursor, users):
    cursor.execute("INSERT INTO users SELECT unnest(%s::bigint[]), 0, 'x'; INSERT INTO orders SELECT unnest(%s::bigint[]), 0, 1", (users, users))


def add_notes(proxy, first, count):
    proxy.sql("INSERT INTO notes VALUES " + ", ".join(f"({number}, '{2025 + number % 2}-05-05', {number % 977}, 'new')"
                                                      for number in range(first, first + count)))


def judge_notes(cluster, count):
    found = [(shard, *row) for shard, node in enumerate(cluster.primaries) for row in node.sql("SELECT id, user_id, body FROM notes")]
    assert sorted(number for _, number, _, _ in found) == list(range(count))
    owner = owners(cluster)
    assert not [row for row in found if owner[bucket(row[2])] != row[0]]
    assert not [row for row in found if row[3] != ("changed" if row[1] % 3 == 0 else "new")]


class Countries(threading.Thread):
    """Changes a reference table all the time. A statement may fail, and has changed all shards or none."""

    def __init__(self, proxy):
        super().__init__(daemon=True)
        self.proxy, self.end, self.sure, self.refused = proxy, threading.Event(), set(), 0

    def run(self):
        number = 0
        connection = self.proxy.connect()
        connection.autocommit = True
        while not self.end.is_set():
            number += 1
            try:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO countries VALUES (%s, 'x')", (str(number),))
                self.sure.add(str(number))
            except psycopg2.Error:
                self.refused += 1
            time.sleep(0.01)
        connection.close()

    def judge(self, cluster):
        copies = [{code for (code,) in node.sql("SELECT code FROM countries")} for node in cluster.primaries]
        assert copies[0] == copies[1] == copies[2], [len(copy) for copy in copies]
        assert self.sure <= copies[0]


def ready(proxy):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/readyz") as page:
            return page.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def cluster():
    with make_cluster(logical_decoding_work_mem="64kB") as cluster:
        yield cluster


def number_ids(cluster, tmp_path):
    """Sequences are interleaved before there is a third shard."""
    for node in cluster.primaries:
        node.sql("CREATE SEQUENCE numbers")
    path = config(tmp_path, cluster, [CloneScene.keyspace], (1, 1))
    subprocess.run([program(), "-c", path, "sequences", "setup", "app"], check=True, capture_output=True, timeout=60)


class Impatient(CloneScene):
    """What needs the new shard's primary does not wait for it for long."""

    options = {"routing": {"failover_wait": "1s"}}


def test_whole(cluster, tmp_path):
    """Under load, with tables that every shard has changed as well, and ids that are numbered by shard."""
    number_ids(cluster, tmp_path)
    with Impatient(cluster) as scene:
        source, _, clone = cluster.primaries
        assert ready(scene.proxies[0]) == 200, "a shard that owns nothing is not waited for"
        countries = Countries(scene.proxies[0])
        countries.start()
        wait_until(lambda: countries.refused, 30, "a change that is refused while the new shard has no primary")
        assert not source.value("SELECT count(*) FROM pg_prepared_xacts")
        said = scene.must("plan", "--clone", "--move", MOVES)
        assert "Nothing is in the way" in said and "deleted from it" in said, said
        scene.create()
        add_notes(scene.proxies[0], 0, 3000)
        assert "to be promoted by run" in scene.must("status", "job")
        assert "the replica is promoted" in scene.must("run", "job", "--dry-run") and clone.in_recovery()
        scene.run()
        assert not clone.in_recovery()
        assert "promoted: s2 was a replica of s0 up to" in scene.must("status", "job")
        strays = [user for (user,) in clone.sql("SELECT id FROM users UNION SELECT user_id FROM orders") if bucket(user) >= 4096]
        assert not strays, strays[:10]
        assert clone.value("SELECT count(*) FROM settings") == 0, "unsharded tables are on s0"
        tables = {name for (name,) in clone.sql("SELECT relname FROM pg_class WHERE relnamespace = 'pgshunt'::regnamespace AND relkind = 'r'")}
        assert not tables & {"job", "bucket", "epoch", "proxy", "chunk"}, tables
        assert len({node.value("SELECT pgshunt.shard_number()") for node in cluster.primaries}) == 3
        assert len({node.value("SELECT nextval('numbers') % 64") for node in cluster.primaries}) == 3
        add_notes(scene.proxies[0], 3000, 1000)
        scene.proxies[0].sql("UPDATE notes SET body = 'changed' WHERE id % 3 = 0")
        sure = len(countries.sure)
        wait_until(lambda: len(countries.sure) > sure + 3, 30, "reference tables are changed again")
        scene.ledger.progress()
        scene.must("verify", "job")
        for verb in ("switch", "rollback", "switch"):
            scene.repeat(verb, "job", "--max-pause", "5s")
            scene.ledger.progress()
        scene.must("verify", "job")
        scene.repeat("complete", "job")
        scene.stop_runner()
        countries.end.set()
        countries.join()
        countries.judge(cluster)
        judge_notes(cluster, 4000)
        assert scene.ledger.interrupted() == [], "no client notices"
        scene.nothing_is_left()
        assert not clone.value("SELECT to_regclass('pgshunt.clone') IS NOT NULL")
        scene.judge()


@needs_failpoints
def test_in_progress_at_the_promotion(cluster):
    """What is open, prepared or just committed then is on the new shard once, or not at all where it is rolled back."""
    with CloneScene(cluster) as scene:
        source, decider, clone = cluster.primaries
        bereft = ids(10, 50)  # their orders are deleted by a transaction that is in progress
        insert(source.connect().cursor(), bereft)
        scene.create()
        process = scene.start("run", "job", stop_at="run_clone_ready")
        wait_stopped(process)
        opened, given_up = source.connect(), source.connect()
        sets = {name: ids(60, number) for number, name in enumerate(["open", "lost", "kept", "dropped", "ours", "not ours"])}
        for connection, name in ((opened, "open"), (given_up, "lost")):
            connection.autocommit = False
            insert(connection.cursor(), sets[name])
        for name in ("kept", "dropped"):
            with source.connect() as connection, connection.cursor() as cursor:
                connection.autocommit = False
                insert(cursor, sets[name])
                cursor.execute(f"PREPARE TRANSACTION '{name}'")
        # As a coordinator that has died leaves it: one is decided, one is not.
        gids = {name: f"pgshunt:00000000:app:s1:{number}:{number:016x}" for number, name in enumerate(("ours", "not ours"), 1)}
        with opened.cursor() as cursor:
            cursor.execute("DELETE FROM orders WHERE user_id = ANY (%s)", (bereft,))
        decider.sql("INSERT INTO pgshunt.decision (gid, verdict) VALUES (%s, 'committed')", (gids["ours"] + ":d",))
        for name, gid in gids.items():
            with source.connect() as connection, connection.cursor() as cursor:
                connection.autocommit = False
                insert(cursor, sets[name])
                cursor.execute(f"PREPARE TRANSACTION '{gid}:0'")
        big = ids(20000, 90)
        source.sql("INSERT INTO users SELECT unnest(%s::bigint[]), 0, repeat('z', 50)", (big,))
        process.send_signal(18)
        wait_until(lambda: not clone.in_recovery(), 60, "the promotion")
        opened.commit()
        given_up.rollback()
        source.sql("COMMIT PREPARED 'kept'")
        source.sql("ROLLBACK PREPARED 'dropped'")
        wait_until(lambda: process.poll() is not None or scene.state() == "streaming", 120, "the job to stream")
        process.send_signal(2)
        print(process.communicate(timeout=60)[0])
        scene.run()
        wait_until(lambda: not source.sql("SELECT gid FROM pg_prepared_xacts"), 60, "all to be finished")
        for name in ("open", "kept", "ours"):
            acknowledge(scene, sets[name], [(user, 0) for user in sets[name]])
        acknowledge(scene, big + bereft)
        scene.must("verify", "job")
        scene.repeat("switch", "job", "--max-pause", "5s")
        scene.repeat("complete", "job")
        scene.stop_runner()
        scene.nothing_is_left()
        scene.judge()


def refuse(path, *args):
    ran = ctl(path, "create", "job", "--clone", *args, check=False)
    assert ran.returncode == 5, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def standing():
    with make_cluster() as cluster:
        cluster.shards[0].primary.sql("CREATE TABLE users (id bigint PRIMARY KEY); CREATE TABLE orders (user_id bigint, number bigint, PRIMARY KEY (user_id, number))")
        cluster.shards[1].primary.sql("CREATE TABLE users (id bigint PRIMARY KEY); CREATE TABLE orders (user_id bigint, number bigint, PRIMARY KEY (user_id, number))")
        make_replica(cluster)
        yield cluster


def test_refusals(standing, tmp_path):
    """All that is wrong is said at once, each with what mends it; then nothing is."""
    source, other, replica = standing.primaries
    path = config(tmp_path, standing, [CloneScene.keyspace], (1, 1, 0))
    said = refuse(path, "--add", "s2", "--weights", "s2=1")
    assert "a clone of one shard takes buckets from that one alone" in said and "--move 4096-8191:s2" in said, said
    assert "2 buckets" not in said
    said = refuse(path, "--move", "8192-9000:s2")
    assert "it is another server's replica" in said and "pg_basebackup" in said, said
    source.sql("CREATE SUBSCRIPTION elsewhere CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
    source.sql("ALTER SUBSCRIPTION elsewhere ENABLE")
    replica.set("recovery_min_apply_delay", "1h")
    try:
        said = refuse(path, "--move", MOVES)
        assert "recovery_min_apply_delay" in said and "is a subscription" in said, said
    finally:
        replica.set("recovery_min_apply_delay", "0")
        source.sql("ALTER SUBSCRIPTION elsewhere DISABLE")
        source.sql("ALTER SUBSCRIPTION elsewhere SET (slot_name = NONE)")
        source.sql("DROP SUBSCRIPTION elsewhere")
    replica.pause_replay()
    assert "its replay is paused" in refuse(path, "--move", MOVES)
    replica.resume_replay()
    assert ctl(path, "create", "job", "--clone", "--prepare-schema", "--move", MOVES, check=False).returncode == 2
    ctl(path, "create", "job", "--clone", "--move", MOVES)
    ctl(path, "cancel", "job")
    assert replica.in_recovery()


def test_refusals_of_servers(standing, tmp_path):
    """One that is no replica, and one that is a node of its source as well."""
    text = open(config(tmp_path, standing, [CloneScene.keyspace], (1, 1, 0))).read()
    source, other, replica = standing.primaries
    path = tmp_path / "other.conf"

    def node(server, host="127.0.0.1"):
        return f'{{ host = "{host}"; port = {server.port}; }}'

    assert node(replica) in text and node(source) in text
    path.write_text(text.replace(node(replica), node(other, "localhost")))
    assert "is no replica" in refuse(str(path), "--move", MOVES)
    path.write_text(text.replace(node(source), node(source) + ", " + node(replica, "localhost")))
    said = refuse(str(path), "--move", MOVES)
    assert "is a node of shard s0, too" in said, said


def test_cancel(cluster):
    """Before the promotion the replica is what it was; behind it, a copy that no job takes."""
    with CloneScene(cluster) as scene:
        clone = cluster.primaries[2]
        scene.create()
        assert "a replica of s0" in scene.must("cancel", "job")
        assert clone.in_recovery()
        scene.forget()
        scene.create()
        scene.run()
        assert "to be thrown away" in scene.must("cancel", "job")
        scene.stop_runner()
        scene.nothing_is_left()
        scene.forget()
        assert clone.value("SELECT count(*) FROM users") > 0
        status, said = scene.ctl("create", "job", "--clone", "--move", MOVES)
        assert status == 5 and "is no replica" in said, said
        status, said = scene.ctl("create", "job", "--move", MOVES)
        assert status == 5 and "has rows" in said, said
        scene.ledger.progress()
        scene.new_replica()
        scene.create()
        scene.run()
        scene.repeat("switch", "job", "--max-pause", "5s")
        scene.repeat("complete", "job")
        scene.stop_runner()
        scene.nothing_is_left()
        scene.judge()
