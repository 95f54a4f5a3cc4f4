"""Proxies follow the map of the buckets that is recorded in Postgres: at once, all of them, and across restarts."""
import time
import urllib.request
from contextlib import closing

import pytest

from catalog_support import catalog, epoch, ghosts, move, owners
from ctl_support import ctl
from harness import Cluster, Proxy, wait_until
from harness.proxy import ProxyFailed

USERS = {"name": "users", "type": "bigint", "tables": [{"name": "users", "key": "id"}]}
HALF = [(0, 8191, "s0"), (8192, 16383, "s1")]
KEYS = range(1, 41)
OPTIONS = {"catalog": {"interval": "300ms"}, "routing": {"failover_wait": "20s"}}


@pytest.fixture(scope="module")
def shards():
    with Cluster(shards=2, replicas=1) as cluster:
        for node in cluster.primaries:
            node.sql("CREATE TABLE users (id bigint PRIMARY KEY, name text)")
        yield cluster


@pytest.fixture
def cluster(shards):
    for node in shards.primaries:
        node.sql("DROP SCHEMA IF EXISTS pgshunt CASCADE")
        node.sql("TRUNCATE users")
    return shards


def proxy_of(cluster, weights=None, keyspaces=None, options=None, **more):
    config = [dict(shard, weight=weight) for shard, weight in zip(cluster.shard_config(), weights or [1] * 9)]
    return Proxy(cluster, keyspaces=keyspaces or [USERS], database={"shards": config}, options=options or OPTIONS, **more)


@pytest.fixture
def proxy(cluster):
    with proxy_of(cluster) as proxy:
        proxy.wait_nodes()
        yield proxy


def fill(proxy):
    proxy.sql("INSERT INTO users (id) VALUES " + ", ".join(f"({key})" for key in KEYS))


def finds_all(proxy, keys=KEYS):
    return [key for key in keys if proxy.value(f"SELECT count(*) FROM users WHERE id = {key}") != 1] == []


def on(cluster, shard):
    """The keys whose rows are there."""
    return {row[0] for row in cluster.shards[shard].primary.sql("SELECT id FROM users")}


def rows(cluster, database="app"):
    return cluster.shards[0].primary.sql("SELECT id::text, epoch, hold, busy, held FROM pgshunt.proxy "
                                         "WHERE database = %s ORDER BY started_at, id", (database,))


def wait_epoch(cluster, count, number, hold=0):
    """All proxies say that their workers use this map."""
    def all_have():
        return [row[1:3] for row in rows(cluster)] == [(number, hold)] * count
    wait_until(all_have, 20.0, f"{count} proxies with map {number}, hold {hold}: {rows(cluster)}")


def move_all(cluster, source=1, target=0):
    """All buckets of one shard to the other, rows included, as a job without traffic does. The map's epoch after it."""
    first, second = cluster.shards[source].primary, cluster.shards[target].primary
    catalog_node = cluster.shards[0].primary
    for key, text in first.sql("SELECT id, name FROM users"):
        second.sql("INSERT INTO users VALUES (%s, %s)", (key, text))
    first.sql("TRUNCATE users")
    move(catalog_node, "j", [(f"users/{a}-{b}", f"s{source}", f"s{target}") for a, b, shard in owners(catalog_node)
                             if shard == f"s{source}"])
    catalog(catalog_node, "ghost", "app", "users", f"s{source}", "j", 0)
    return epoch(catalog_node)


def test_recorded_by_who_comes_first(cluster):
    catalog_node = cluster.shards[0].primary
    with proxy_of(cluster, weights=[1, 3]) as first:
        assert owners(catalog_node) == [(0, 4095, "s0"), (4096, 16383, "s1")] and epoch(catalog_node) == 1
        first.wait_log("recorded the map of the buckets")
        wait_epoch(cluster, 1, 1)
        with proxy_of(cluster, weights=[3, 1]) as second:
            second.wait_log("the recorded map of the buckets counts")
            wait_epoch(cluster, 2, 1)
            fill(first)
            assert sorted(row[0] for row in second.sql("SELECT id FROM users WHERE id > 0")) == list(KEYS)
            assert finds_all(second)
        wait_epoch(cluster, 1, 1)
    assert rows(cluster) == [], "who ends takes its row away"


def test_a_change_is_followed_by_all(cluster, proxy):
    with proxy_of(cluster) as other:
        fill(proxy)
        assert on(cluster, 0) and on(cluster, 1)
        clients = [proxy.connect(), other.connect()]
        after = move_all(cluster)
        wait_epoch(cluster, 2, after)
        for client in clients:
            cursor = client.cursor()
            for key in KEYS:
                cursor.execute(f"SELECT count(*) FROM users WHERE id = {key}")
                assert cursor.fetchone() == (1,), key
            client.close()
        other.sql("INSERT INTO users VALUES (100001), (100002), (100003), (100004)")
    assert on(cluster, 1) == set() and len(on(cluster, 0)) == len(KEYS) + 4
    with proxy_of(cluster, weights=[1, 5]) as later:
        assert finds_all(later)


def test_a_change_while_nobody_listens(cluster, proxy):
    """Without a notification it is found by looking."""
    catalog_node = cluster.shards[0].primary
    fill(proxy)
    keys = on(cluster, 1)
    catalog_node.sql("UPDATE pgshunt.bucket SET shard = 's0'")
    catalog_node.sql("UPDATE pgshunt.epoch SET epoch = 7")
    wait_epoch(cluster, 1, 7)
    assert all(proxy.value(f"SELECT count(*) FROM users WHERE id = {key}") == 0 for key in keys)


def test_hold_is_acknowledged_and_released(cluster, proxy):
    catalog_node = cluster.shards[0].primary
    with proxy_of(cluster):
        wait_epoch(cluster, 2, 1)
        hold = int(catalog(catalog_node, "hold", "app", "j", 30000, "users/0-99"))
        wait_epoch(cluster, 2, 1, hold)
        newer = int(catalog(catalog_node, "hold", "app", "k", 30000, "users/200-300"))
        wait_epoch(cluster, 2, 1, newer)
        catalog(catalog_node, "release", newer)
        wait_epoch(cluster, 2, 1, hold)
        catalog(catalog_node, "release", hold)
        wait_epoch(cluster, 2, 1)


def test_lease(cluster, proxy):
    """A hold that nobody ends or prolongs: statements go on by themselves."""
    catalog_node = cluster.shards[0].primary
    fill(proxy)
    hold = int(catalog(catalog_node, "hold", "app", "j", 2500, "users/0-16383"))
    wait_epoch(cluster, 1, 1, hold)
    catalog(catalog_node, "extend", hold, 2500, 0)
    assert finds_all(proxy)
    wait_epoch(cluster, 1, 1)
    assert catalog_node.value("SELECT count(*) FROM pgshunt.hold") == 0, "the proxy has ended it there, too"


def test_lease_while_the_catalog_hangs(cluster, proxy):
    """The end of a lease needs nobody: the catalog's server does not answer then."""
    catalog_node = cluster.shards[0].primary
    fill(proxy)
    key = min(on(cluster, 1))
    hold = int(catalog(catalog_node, "hold", "app", "j", 3000, "users/8192-16383"))
    wait_epoch(cluster, 1, 1, hold)
    catalog_node.freeze()
    try:
        proxy.wait_log("a hold was not ended in time", timeout=20.0)
        assert proxy.value(f"SELECT count(*) FROM users WHERE id = {key}") == 1
    finally:
        catalog_node.thaw()
    proxy.wait_nodes()
    wait_epoch(cluster, 1, 1)


def test_end_while_the_catalog_hangs(cluster, proxy):
    """A server that answers nothing, not even a cancel request, does not keep pgshunt from ending."""
    catalog_node = cluster.shards[0].primary
    wait_epoch(cluster, 1, 1)
    catalog_node.freeze()
    try:
        time.sleep(1)
        proxy.stop()
    finally:
        catalog_node.thaw()


def test_ghosts(cluster, proxy):
    catalog_node = cluster.shards[0].primary
    catalog(catalog_node, "ghost", "app", "users", "s1", "j", 1)
    assert ghosts(catalog_node) == [("users", "s1", "j")]
    wait_epoch(cluster, 1, 2)
    catalog(catalog_node, "ghost", "app", "users", "s1", "j", 0)
    wait_epoch(cluster, 1, 3)


def test_gone_proxy(cluster, proxy):
    """One that is killed leaves its row, which the others take away when it is old enough."""
    wait_epoch(cluster, 1, 1)
    dead = proxy_of(cluster)
    wait_epoch(cluster, 2, 1)
    dead.kill9()
    node = cluster.shards[0].primary
    assert len(rows(cluster)) == 2
    node.sql("UPDATE pgshunt.proxy SET seen_at = seen_at - interval '1 h' WHERE pid <> %s", (proxy.pid,))
    wait_until(lambda: len(rows(cluster)) == 1, 20.0, "the row is taken away")
    dead.close()


def test_unknown_shard(cluster):
    """A map with a shard that the configuration lacks: not at the start, not by a reload, and not while it runs."""
    catalog_node = cluster.shards[0].primary
    with proxy_of(cluster) as proxy:
        fill(proxy)
        keys = on(cluster, 1)
        catalog_node.sql("UPDATE pgshunt.bucket SET shard = 's9' WHERE shard = 's1'")
        catalog_node.sql("UPDATE pgshunt.epoch SET epoch = 2")
        proxy.wait_log('names shard \\\\"s9\\\\"')
        assert finds_all(proxy, keys)
        assert [row[1] for row in rows(cluster)] == [1], "it does not say that it follows"
        with pytest.raises(ProxyFailed, match="s9"):
            proxy_of(cluster)
        catalog_node.sql("UPDATE pgshunt.bucket SET shard = 's1' WHERE shard = 's9'")
        wait_epoch(cluster, 1, 2)
        text = open(proxy.config_path).read().replace('"s1"', '"s8"')
        proxy.write_config(text)
        proxy.send_signal(1)
        proxy.wait_log("reload failed, the old configuration stays")
        assert finds_all(proxy, keys)


def test_reload_keeps_the_map(cluster, proxy):
    fill(proxy)
    after = move_all(cluster)
    wait_epoch(cluster, 1, after)
    shards = [dict(shard, weight=4) for shard in cluster.shard_config()]
    proxy.change({"pool": {"size": 7}, "databases": [{"name": "app", "shards": shards, "keyspaces": [USERS]}]})
    proxy.reload()
    assert finds_all(proxy)


def test_older_map(cluster, proxy):
    """What was restored from a backup, or lost by a failover, does not send statements back."""
    catalog_node = cluster.shards[0].primary
    fill(proxy)
    after = move_all(cluster)
    wait_epoch(cluster, 1, after)
    # As one transaction: a proxy that looks in between takes what it finds.
    catalog_node.sql("UPDATE pgshunt.bucket SET shard = 's1' WHERE first = 0; UPDATE pgshunt.epoch SET epoch = 1")
    proxy.wait_log("the catalog has an older map")
    catalog_node.sql("DROP SCHEMA pgshunt CASCADE")
    time.sleep(0.7)
    assert finds_all(proxy)


def test_rights(cluster):
    """Who may not write there serves with the configuration's map, and says what would mend it."""
    node = cluster.shards[0].primary
    for one in cluster.primaries:
        one.sql("DROP ROLE IF EXISTS looker")
        one.sql("CREATE ROLE looker LOGIN IN ROLE pg_monitor")
    with proxy_of(cluster, options=dict(OPTIONS, monitor={"user": "looker"})) as proxy:
        proxy.wait_log("the map of the buckets cannot be recorded")
        statements = [line for line in proxy.log().splitlines() if "cannot be recorded" in line][0]
        assert "CREATE TABLE IF NOT EXISTS pgshunt.bucket" in statements and 'TO \\"looker\\"' in statements
        for key in KEYS:
            proxy.sql(f"INSERT INTO users (id) VALUES ({key})")
        assert on(cluster, 0) and on(cluster, 1)
    assert node.value("SELECT to_regclass('pgshunt.bucket') IS NULL")


def test_configured(cluster):
    """The map of the configuration counts, recorded or not, where that is wanted."""
    with proxy_of(cluster, weights=[1, 0], options=dict(OPTIONS, catalog={"map": "configured"})) as proxy:
        fill(proxy)
    assert len(on(cluster, 0)) == len(KEYS)
    assert cluster.shards[0].primary.value("SELECT to_regclass('pgshunt.bucket') IS NULL")


def test_state_file(cluster, tmp_path):
    """The last map is known while the catalog shard is away."""
    options = dict(OPTIONS, catalog={"interval": "300ms", "state_file": "maps.json"}, routing={"failover_wait": "1s"})
    with proxy_of(cluster, options=options) as proxy:
        fill(proxy)
        after = move_all(cluster, source=0, target=1)
        wait_epoch(cluster, 1, after)
        proxy.stop()
        for node in cluster.shards[0].nodes:
            node.stop()
        try:
            proxy.start()
            proxy.wait_log("starting with the map of the state file")
            assert finds_all(proxy)
        finally:
            for node in cluster.shards[0].nodes:
                node.start()
        proxy.wait_log("the catalog is reached again", timeout=20.0)
        wait_epoch(cluster, 1, after)


def test_shown(cluster, proxy):
    """On the console and in the metrics."""
    catalog_node = cluster.shards[0].primary
    with proxy_of(cluster) as other:
        hold = int(catalog(catalog_node, "hold", "app", "j", 30000, "users/0-0"))
        wait_epoch(cluster, 2, 1, hold)
        found, = proxy.show("MAPS")
        assert (found["database"], int(found["epoch"]), int(found["hold"])) == ("app", 1, hold)
        assert found["catalog"] == f"127.0.0.1:{catalog_node.port}" and int(found["read_ms_ago"]) < 20000
        catalog(catalog_node, "release", hold)
        wait_epoch(cluster, 2, 1)
        wait_until(lambda: len(proxy.show("PROXIES")) == 2, 20.0, "both proxies are shown")
        rows_shown = proxy.show("PROXIES")
        assert {int(row["pid"]) for row in rows_shown} == {proxy.pid, other.pid}
        assert [int(row["pid"]) for row in rows_shown if row["self"] in (True, "t")] == [proxy.pid]
        with urllib.request.urlopen(f"http://{proxy.host}:{proxy.http_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert 'pgshunt_map_epoch{database="app"} 1\n' in text and 'pgshunt_catalog_up{database="app"} 1\n' in text
        assert 'pgshunt_map_held_clients{database="app"} 0\n' in text


def test_pgshuntctl_map(cluster, proxy):
    catalog_node = cluster.shards[0].primary
    wait_epoch(cluster, 1, 1)
    said = ctl(proxy, "map", "show", "--json").json
    assert said["epoch"] == 1 and said["holds"] == []
    assert [(row["shard"], row["buckets"], row["ranges"]) for row in said["buckets"]] == [
        ("s0", 8192, "0-8191"), ("s1", 8192, "8192-16383")]
    assert [(row["pid"], row["epoch"]) for row in said["proxies"]] == [(proxy.pid, 1)]
    move(catalog_node, "j", [("users/0-0", "s0", "s1")])
    catalog(catalog_node, "hold", "app", "k", 30000, "users/5-9")
    text = ctl(proxy, "map", "show", "app").out
    assert "Map 2 of database app" in text and "0-0,8192-16383" in text and "Holds:" in text
    assert "all keyspaces are recorded" in ctl(proxy, "map", "record").out
    catalog_node.sql("UPDATE pgshunt.bucket SET shard = 's9' WHERE first = 0")
    assert "s9" in ctl(proxy, "map", "show", code=5).err
    ctl(proxy, "map", "show", "nope", code=2)
    ctl(proxy, "map", code=2)


def test_pgshuntctl_explains_with_the_recorded_map(cluster, proxy):
    fill(proxy)
    key = min(on(cluster, 1))
    move_all(cluster)
    sql = f"SELECT * FROM users WHERE id = {key}"
    assert "s1" in ctl(proxy, "explain", sql).out and "s0" in ctl(proxy, "explain", "--recorded", sql).out


def test_pgshuntctl_records(cluster):
    """Before any proxy does."""
    proxy = proxy_of(cluster, weights=[3, 1], start=False)
    node = cluster.shards[0].primary
    assert "Nothing is recorded yet" in ctl(proxy, "map", "show").out
    assert "would record" in ctl(proxy, "map", "record", "--dry-run").out
    assert node.value("SELECT to_regclass('pgshunt.bucket') IS NULL")
    assert "recording the buckets of keyspace users" in ctl(proxy, "map", "record").out
    assert owners(node) == [(0, 12287, "s0"), (12288, 16383, "s1")]
    proxy.close()


def test_failover_of_the_catalog(cluster, proxy):
    """Last, for it leaves a shard without a replica."""
    fill(proxy)
    wait_epoch(cluster, 1, 1)
    cluster.sync()
    shard = cluster.shards[0]
    old, new = shard.primary, shard.replicas[0]
    old.kill9()
    shard.promote(new)
    wait_until(lambda: proxy.value("SELECT count(*) FROM users") == len(KEYS), 20.0, "the new primary serves")
    after = move_all(cluster)
    wait_epoch(cluster, 1, after)
    assert finds_all(proxy)
