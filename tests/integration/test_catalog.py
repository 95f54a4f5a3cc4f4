"""The map of buckets in Postgres: recorded once, held, moved only by who may, and never half."""
import os
import subprocess
import threading
import time

import pytest

from catalog_support import ATTEMPT, Refused, catalog, epoch, ghosts, job, move, owners
from harness import Cluster
from harness.process import free_port
from harness.proxy import binary, to_libconfig

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
TEAMS = {"name": "teams", "type": "text", "tables": [{"name": "teams", "key": "name"}]}
LISTED = {"name": "lands", "type": "text", "map": "list", "tables": [{"name": "lands", "key": "code"}],
          "lists": [{"shard": "s0", "values": ["at"]}], "default": "s1"}
HALF = [(0, 8191, "s0"), (8192, 16383, "s1")]


@pytest.fixture(scope="module")
def server():
    with Cluster(shards=1, replicas=0) as cluster:
        yield cluster.shards[0].primary


@pytest.fixture
def node(server):
    server.sql("DROP SCHEMA IF EXISTS pgshunt CASCADE")
    return server


def config(folder, node, keyspaces, weights=(1, 1)):
    """A configuration file whose catalog is that server; the other shards are nowhere."""
    shards = [{"name": f"s{i}", "dbname": f"app{i}", "weight": weight, "nodes": [{"host": "127.0.0.1", "port": node.port}]}
              for i, weight in enumerate(weights)]
    path = folder / "pgshunt.conf"
    path.write_text('auth = { method = "trust"; };\n' + "databases = " + to_libconfig([{"name": "app", "shards": shards, "keyspaces": keyspaces}]) + ";\n")
    return str(path)


def test_recorded_once(node, tmp_path):
    first = config(tmp_path, node, [USERS])
    catalog(node, "record", first, "app")
    assert owners(node) == HALF and epoch(node) == 1
    catalog(node, "record", config(tmp_path, node, [USERS], weights=(1, 3)), "app")
    assert owners(node) == HALF and epoch(node) == 1, "what is recorded counts"
    catalog(node, "record", config(tmp_path, node, [USERS, TEAMS], weights=(3, 1)), "app")
    assert owners(node) == HALF and epoch(node) == 2
    assert owners(node, "teams") == [(0, 12287, "s0"), (12288, 16383, "s1")]


def test_two_record_at_once(node, tmp_path):
    """Only one of two different maps is recorded, whole."""
    paths = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(config(folder, node, [USERS], weights=(1, 1 + number)))
    threads = [threading.Thread(target=catalog, args=(node, "record", path, "app")) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = owners(node)
    assert len(found) == 2 and found[0][0] == 0 and found[0][1] + 1 == found[1][0] and found[1][1] == 16383
    assert epoch(node) == 1


def test_move(node, tmp_path):
    catalog(node, "record", config(tmp_path, node, [USERS, TEAMS]), "app")
    after = move(node, "j", [("users/0-99", "s0", "s1"), ("users/8192-8200", "s1", "s0"), ("teams/5-5", "s0", "s1")])
    assert after == epoch(node) == 2
    assert owners(node) == [(0, 99, "s1"), (100, 8200, "s0"), (8201, 16383, "s1")]
    assert owners(node, "teams") == [(0, 4, "s0"), (5, 5, "s1"), (6, 8191, "s0"), (8192, 16383, "s1")]
    assert node.sql("SELECT state, epoch, attempt FROM pgshunt.job") == [("switched", 2, None)]
    assert node.value("SELECT count(*) FROM pgshunt.hold") == node.value("SELECT count(*) FROM pgshunt.hold_bucket") == 0
    assert node.sql("SELECT step, detail FROM pgshunt.job_step") == [("flip", "epoch 2")]


def test_ghosts_are_turned_round(node, tmp_path):
    catalog(node, "record", config(tmp_path, node, [USERS]), "app")
    catalog(node, "ghost", "app", "users", "s1", "j", 1)
    assert ghosts(node) == [("users", "s1", "j")] and epoch(node) == 2, "proxies tell by the epoch that they know of it"
    catalog(node, "ghost", "app", "users", "s1", "j", 1)
    assert epoch(node) == 2
    move(node, "j", [("users/0-99", "s0", "s1")])
    assert ghosts(node) == [("users", "s0", "j")]
    move(node, "j", [("users/0-99", "s1", "s0")], state="streaming")
    assert ghosts(node) == [("users", "s1", "j")]
    catalog(node, "ghost", "app", "users", "s1", "j", 0)
    assert ghosts(node) == [] and owners(node) == HALF


@pytest.mark.parametrize("what", ["attempt", "hold", "lease", "epoch", "source", "job", "database"])
def test_not_ours_any_more(node, tmp_path, what):
    """Whatever has changed since the switch began: the map is not, and nothing else is."""
    catalog(node, "record", config(tmp_path, node, [USERS]), "app")
    job(node, "j")
    hold = catalog(node, "hold", "app", "j", 900 if what == "lease" else 20000, "users/0-99")
    arguments = {"database": "app", "job": "j", "attempt": ATTEMPT, "hold": hold, "epoch": 2, "state": "switched",
                 "range": "users/0-99", "source": "s0", "target": "s1"}
    wrong = {"attempt": ATTEMPT.replace("1", "9"), "hold": int(hold) + 1, "epoch": 3, "source": "s2",
             "job": "k", "database": "other"}
    if what != "lease":
        arguments[what] = wrong[what]
    with pytest.raises(Refused, match="^40001"):
        catalog(node, "flip", *arguments.values())
    assert owners(node) == HALF and epoch(node) == 1 and ghosts(node) == []
    assert node.sql("SELECT state, attempt::text FROM pgshunt.job") == [("switching", ATTEMPT)]
    assert node.value("SELECT count(*) FROM pgshunt.hold") == 1


def test_abort(node, tmp_path):
    """The map's number passes that of the guards, with all buckets where they were; only for the attempt under way."""
    catalog(node, "record", config(tmp_path, node, [USERS]), "app")
    job(node, "j")
    hold = catalog(node, "hold", "app", "j", 20000, "users/0-99")
    with pytest.raises(Refused, match="^40001"):
        catalog(node, "abort", "app", "j", ATTEMPT.replace("1", "9"), 2, "streaming")
    assert epoch(node) == 1
    catalog(node, "abort", "app", "j", ATTEMPT, 2, "streaming")
    assert epoch(node) == 2 and owners(node) == HALF
    assert node.sql("SELECT state, attempt FROM pgshunt.job") == [("streaming", None)]
    with pytest.raises(Refused, match="^40001"):
        catalog(node, "flip", "app", "j", ATTEMPT, hold, 3, "switched", "users/0-99", "s0", "s1")


def test_partly_the_sources(node, tmp_path):
    """Buckets of which some are another shard's do not move at all."""
    catalog(node, "record", config(tmp_path, node, [USERS, TEAMS]), "app")
    with pytest.raises(Refused, match="^40001"):
        move(node, "j", [("teams/0-9", "s0", "s1"), ("users/8000-8200", "s0", "s1")])
    assert owners(node) == owners(node, "teams") == HALF


def test_lease(node, tmp_path):
    catalog(node, "prepare")
    hold = catalog(node, "hold", "app", "j", 300, "users/0-99", "teams/1-2")
    assert node.sql("SELECT keyspace, first, last FROM pgshunt.hold_bucket WHERE hold = %s ORDER BY 1", (hold,)) == [
        ("teams", 1, 2), ("users", 0, 99)]
    catalog(node, "extend", hold, 400, 1)
    assert node.value("SELECT force FROM pgshunt.hold")
    time.sleep(0.6)
    with pytest.raises(Refused, match="^40001 the hold is over"):
        catalog(node, "extend", hold, 60000, 0)
    catalog(node, "release", hold)
    catalog(node, "release", hold)
    assert node.value("SELECT count(*) FROM pgshunt.hold_bucket") == 0


def test_rights(node, tmp_path):
    """Everybody may read the map; nobody but who was let may change it, or say that a proxy holds."""
    catalog(node, "record", config(tmp_path, node, [USERS]), "app")
    node.sql("DROP ROLE IF EXISTS stranger")
    node.sql("CREATE ROLE stranger LOGIN")
    connection = node.connect(user="stranger")
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM pgshunt.bucket")
    assert cursor.fetchone()[0] == 2
    for statement in ["UPDATE pgshunt.epoch SET epoch = 9", "DELETE FROM pgshunt.bucket", "DELETE FROM pgshunt.proxy",
                      "INSERT INTO pgshunt.hold (database, until) VALUES ('app', now())"]:
        with pytest.raises(Exception, match="permission denied"):
            cursor.execute(statement)
    connection.close()


def pieces(node, keyspace):
    return node.sql("SELECT bucket, value FROM pgshunt.piece WHERE keyspace = %s ORDER BY 1", (keyspace,))


def kinds(node):
    return node.sql("SELECT keyspace, kind, modulus FROM pgshunt.keyspace ORDER BY 1")


OPEN = {key: value for key, value in LISTED.items() if key != "default"}
RANGED = {"name": "times", "type": "bigint", "map": "range", "tables": [{"name": "times", "key": "at"}],
          "ranges": [{"from": "200", "shard": "s0"}, {"to": "-100", "shard": "s0"}, {"from": "-100", "to": "200", "shard": "s1"}]}
HASHED = {"name": "old", "type": "bigint", "hash": "postgres", "tables": [{"name": "old", "key": "id"}]}
RESTED = {"name": "tiers", "type": "uuid", "map": "list", "default": "s1", "tables": [{"name": "tiers", "key": "id"}],
          "lists": [{"shard": "s0", "values": ["A0EEBC999C0B4EF8BB6D6BB9BD380A11"]}]}


def test_every_kind_of_map_is_recorded(node, tmp_path):
    catalog(node, "record", config(tmp_path, node, [USERS, LISTED, RANGED, HASHED, RESTED]), "app")
    assert kinds(node) == [("lands", "list", None), ("old", "postgres", 2), ("tiers", "list", None), ("times", "range", None),
                           ("users", "hash", None)]
    assert pieces(node, "times") == [(0, None), (1, "-100"), (2, "200")]
    assert owners(node, "times") == [(0, 0, "s0"), (1, 1, "s1"), (2, 2, "s0")]
    assert pieces(node, "tiers") == [(0, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), (1, None)]
    assert owners(node, "tiers") == [(0, 0, "s0"), (1, 1, "s1")]
    assert owners(node, "old") == [(0, 8191, "s0"), (8192, 16383, "s1")]
    assert pieces(node, "old") == pieces(node, "users") == []
    assert epoch(node) == 1


def test_values_that_come_to_a_list_are_taken_up_unless_they_have_an_owner(node, tmp_path):
    open_list = {**OPEN, "lists": [{"shard": "s0", "values": ["de"]}]}
    catalog(node, "record", config(tmp_path, node, [open_list, RESTED]), "app")
    assert pieces(node, "lands") == [(0, "de")] and epoch(node) == 1
    more = {**OPEN, "lists": [{"shard": "s1", "values": ["de", "fr"]}, {"shard": "s0", "values": ["at"]}]}
    other = {**RESTED, "lists": [{"shard": "s0", "values": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                                                            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"]}]}
    catalog(node, "record", config(tmp_path, node, [more, other]), "app")
    assert pieces(node, "lands") == [(0, "de"), (1, "at"), (2, "fr")], "numbers stay"
    assert owners(node, "lands") == [(0, 1, "s0"), (2, 2, "s1")], "what was there stays where it is"
    assert len(pieces(node, "tiers")) == 2, "rows of it may be on the default's shard"
    assert epoch(node) == 2
    catalog(node, "record", config(tmp_path, node, [{**more, "default": "s1"}, other]), "app")
    assert pieces(node, "lands")[3] == (3, None) and owners(node, "lands")[-1] == (2, 3, "s1")
    catalog(node, "record", config(tmp_path, node, [{**more, "default": "s0"}, other]), "app")
    assert owners(node, "lands")[-1] == (2, 3, "s1") and epoch(node) == 3


def test_a_keyspace_does_not_change_its_kind(node, tmp_path):
    catalog(node, "record", config(tmp_path, node, [{**HASHED, "name": "lands", "type": "text"}]), "app")
    with pytest.raises(Refused, match="recorded with a map by postgres, and the configuration says list"):
        catalog(node, "record", config(tmp_path, node, [LISTED, USERS]), "app")
    assert kinds(node) == [("lands", "postgres", 2)]


def test_tables_of_an_earlier_version_get_what_they_lack(node, tmp_path):
    path = config(tmp_path, node, [USERS])
    catalog(node, "record", path, "app")
    node.sql("DROP TABLE pgshunt.piece, pgshunt.keyspace")
    there = tmp_path / "there.conf"
    there.write_text(open(path).read().replace('"app0"', f'"{node.cluster.dbname}"'))
    shown = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", str(there), "map", "show", "app"],
                           capture_output=True, text=True, timeout=30, check=True, env={**os.environ, "PGUSER": "postgres"})
    assert "Map 1 of" in shown.stdout and "0-8191" in shown.stdout
    catalog(node, "record", config(tmp_path, node, [USERS, RANGED]), "app")
    assert kinds(node) == [("times", "range", None)] and len(pieces(node, "times")) == 3


def test_announced(node, tmp_path):
    catalog(node, "record", config(tmp_path, node, [USERS]), "app")
    listener = node.connect()
    listener.autocommit = True
    listener.cursor().execute("LISTEN pgshunt_map")
    move(node, "j", [("users/0-99", "s0", "s1")])
    listener.cursor().execute("SELECT 1")
    assert [(n.channel, n.payload) for n in listener.notifies] == [("pgshunt_map", "app")] * 2, "the hold, and the change"
    listener.close()


def test_server_is_away(server):
    with pytest.raises(Refused):
        other = type("Node", (), {"port": free_port(), "cluster": server.cluster})()
        catalog(other, "prepare")
