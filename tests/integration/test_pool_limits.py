"""Sizes and limits: the fair queue over two workers, minimum, reserve, waiting told and ended, limits on server
connections with eviction, limits on clients, deadlocks over pools, connections idle for long, reloads."""
import os
import signal
import threading
import time
from contextlib import ExitStack, closing

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import Raw, connect_error, error_of, fetch, fields, kinds, one, query, refused, rows, startup

pytestmark = pytest.mark.core


def one_node(cluster, name, dbname="plain", shard=0, **settings):
    """A database of one node."""
    config = dict(cluster.shard_config()[shard], dbname=dbname)
    return {"name": name, "shards": [dict(config, nodes=config["nodes"][:1])], **settings}


def proxied(cluster, *databases, users=None, **options):
    return Proxy(cluster, databases=list(databases), dbname=databases[0]["name"], users=users, options=options)


def worker_of(connection):
    """The low byte of the cancel key's number is the worker's."""
    return connection.get_backend_pid() & 0xff


def on_each_worker(proxy, stack, count, **more):
    """`count` connections on either of two workers: two lists."""
    found = {0: [], 1: []}
    for _ in range(200):
        connection = stack.enter_context(closing(proxy.connect(**more)))
        found[worker_of(connection)].append(connection)
        if len(found[0]) >= count and len(found[1]) >= count:
            return found[0][:count], found[1][:count]
    raise AssertionError("the kernel gives all connections to one worker")


def pool(proxy, database, user="postgres"):
    return next(row for row in proxy.show("POOLS") if (row["database"], row["user"]) == (database, user))


def servers(proxy, database=None):
    """The server connections there are, idle or busy."""
    return [row for row in proxy.show("SERVERS") if database in (None, row["database"])]


def metric(proxy, name, **labels):
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics", timeout=10).read().decode()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith(f"pgshunt_{name}{{") and all(part in line for part in wanted))


class Holding:
    """A transaction that holds a server until release()."""

    def __init__(self, proxy, database, **more):
        self.connection = proxy.connect(database, **more)
        self.connection.cursor().execute("BEGIN")
        one(self.connection, "SELECT 1")

    def release(self):
        self.connection.cursor().execute("COMMIT")

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- the queue ----

def test_no_worker_starves(cluster):
    """One server connection, many clients on each of two workers: nobody waits much longer than the others."""
    with proxied(cluster, one_node(cluster, "app", pool_size=1)) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        groups = on_each_worker(proxy, stack, 4)
        # An unequal load: one worker's clients ask without a pause, the other has but one client.
        clients = groups[0] + groups[1][:1]
        until = time.monotonic() + 4
        done = {id(connection): [0, 0.0] for connection in clients}
        failures = []

        def run(connection):
            try:
                while time.monotonic() < until:
                    began = time.monotonic()
                    one(connection, "SELECT pg_sleep(0.002) IS NULL")
                    seen = done[id(connection)]
                    seen[0] += 1
                    seen[1] = max(seen[1], time.monotonic() - began)
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=run, args=(connection,)) for connection in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        counts = [count for count, _ in done.values()]
        alone = done[id(groups[1][0])]
        assert min(counts) >= 10 and alone[0] >= max(counts) / 5, counts
        assert max(longest for _, longest in done.values()) < 2.0
        assert len(servers(proxy, "app")) == 1
        assert metric(proxy, "pool_moves_total", database="app") > 0


def test_first_come_first_served(cluster):
    """The order of the queue is the order of asking."""
    with proxied(cluster, one_node(cluster, "app", pool_size=1), workers=1) as proxy:
        proxy.wait_nodes()
        with ExitStack() as stack:
            holder = stack.enter_context(Holding(proxy, "app"))
            holder.connection.cursor().execute("CREATE TABLE IF NOT EXISTS pool_order (n int, at serial)")
            waiting = []
            for number in range(6):
                raw = stack.enter_context(Raw(proxy))
                raw.send(query(f"INSERT INTO pool_order VALUES ({number})"))
                wait_until(lambda n=number: pool(proxy, "app")["cl_waiting"] == n + 1, 10, "one more waiting")
                waiting.append(raw)
            waiting.pop(2).close()  # leaves the queue at once
            wait_until(lambda: pool(proxy, "app")["cl_waiting"] == 5, 10, "the one that left is gone")
            holder.release()
            for raw in waiting:
                assert error_of(raw.until_ready()) is None
            found = fetch(holder.connection, "SELECT n FROM pool_order ORDER BY at")
            holder.connection.cursor().execute("DROP TABLE pool_order")
        assert [row[0] for row in found] == [0, 1, 3, 4, 5]


def test_who_waits_long_is_told_and_who_waits_too_long_refused(cluster):
    database = one_node(cluster, "app", pool_size=1, query_wait_notify="200ms", query_wait_timeout="1500ms")
    with proxied(cluster, database, workers=1) as proxy:
        proxy.wait_nodes()
        with Holding(proxy, "app") as holder, Raw(proxy) as raw:
            answer = raw.ask(query("SELECT 1"))
            assert kinds(answer) == "NEZ"
            notice, error = fields(answer[0][1]), error_of(answer)
            assert "still waiting" in notice["M"] and "pool.size" in notice["M"]
            assert error["C"] == "53300" and "query_wait_timeout" in error["M"] and "pool.size" in error["M"]
            holder.release()
            assert rows(raw.ask(query("SELECT 2"))) == [[b"2"]]
        assert metric(proxy, "pool_refused_total", database="app", reason="query_wait_timeout") == 1


# ---- minimum, reserve, lifetime ----

def test_minimum_is_kept_open(cluster):
    """From the start for users with a minimum of their own, for others once there was a client; after a loss again."""
    users = [{"name": "postgres", "password": "", "admin": True},
             {"name": "app", "password": "", "min_pool_size": 3}]
    database = one_node(cluster, "app", min_pool_size=2, server_idle_timeout="1s", server_lifetime="1h")
    with proxied(cluster, database, users=users) as proxy:
        proxy.wait_nodes()

        def has(user, count):
            return pool(proxy, "app", user)["sv_idle"] == count if any(
                row["user"] == user for row in proxy.show("POOLS")) else False

        wait_until(lambda: sum(row["user"] == "app" for row in servers(proxy)) == 3, 10, "the user's minimum")
        assert not any(row["user"] == "postgres" for row in servers(proxy, "app"))
        assert proxy.value("SELECT 1") == 1
        wait_until(lambda: sum(row["user"] == "postgres" for row in servers(proxy, "app")) == 2, 10, "the database's")
        time.sleep(2.2)  # longer than server_idle_timeout
        assert len(servers(proxy, "app")) == 5
        before = {row["remote_pid"] for row in servers(proxy, "app")}
        cluster.shards[0].primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                      "WHERE usename = 'app' AND datname = 'plain'")
        wait_until(lambda: sum(row["user"] == "app" and row["state"] == "idle" and row["remote_pid"] not in before
                               for row in servers(proxy)) == 3, 15, "the minimum again")
        row = next(row for row in proxy.show("DATABASES") if row["name"] == "app")
        assert (row["min_pool_size"], row["current_connections"]) == (2, 5)


def test_unused_connections_are_closed(cluster):
    """Down to none where there is no minimum; by age where there is a lifetime, not all at one moment."""
    database = one_node(cluster, "app", pool_size=6, server_idle_timeout="500ms")
    other = one_node(cluster, "old", pool_size=6, server_lifetime="3s")
    with proxied(cluster, database, other) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        for name in ("app", "old"):
            for holder in [stack.enter_context(Holding(proxy, name)) for _ in range(6)]:
                holder.release()
        assert len(servers(proxy, "old")) == 6
        wait_until(lambda: not servers(proxy, "app"), 10, "the idle timeout")
        sizes = set()

        def gone():
            sizes.add(len(servers(proxy, "old")))
            return not servers(proxy, "old")

        wait_until(gone, 15, "the lifetime")
        assert sizes - {0, 6}, "all ended at the same time"


def test_reserve_is_for_who_waits_long(cluster):
    database = one_node(cluster, "app", pool_size=1, reserve_pool_size=1, reserve_timeout="500ms",
                        query_wait_timeout="3s")
    with proxied(cluster, database, workers=1) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        first = stack.enter_context(Holding(proxy, "app"))
        began = time.monotonic()
        second = stack.enter_context(Holding(proxy, "app"))
        assert time.monotonic() - began >= 0.45
        assert len(servers(proxy, "app")) == 2
        with closing(proxy.connect()) as third, refused("53300", "query_wait_timeout"):
            one(third, "SELECT 3")
        assert metric(proxy, "pool_reserve_used_total", database="app") == 1
        row = next(row for row in proxy.show("DATABASES") if row["name"] == "app")
        assert (row["pool_size"], row["reserve_pool_size"]) == (1, 1)
        for holder in (first, second):
            holder.release()
        wait_until(lambda: len(servers(proxy, "app")) == 1, 10, "the reserve to be given back")


# ---- limits on server connections ----

LIMITS = [("total", {"limits": {"max_server_connections": 2}}, {}, "limits.max_server_connections"),
          ("node", {"limits": {"max_node_connections": 2}}, {}, "limits.max_node_connections"),
          ("user", {"limits": {"max_user_connections": 2}}, {}, "max_connections of the user")]


@pytest.mark.parametrize("name, options, settings, said", LIMITS, ids=[limit[0] for limit in LIMITS])
def test_an_idle_connection_of_another_pool_makes_room(cluster, name, options, settings, said):
    """... on the same worker or another; and where all are busy the error names the limit."""
    databases = [one_node(cluster, f"d{number}", query_wait_timeout="40s", **settings) for number in range(4)]
    databases.append(one_node(cluster, "late", query_wait_timeout="1s", **settings))
    with proxied(cluster, *databases, **options) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        for round_ in range(3):
            for number in range(4):
                assert proxy.value("SELECT %s", (number,), dbname=f"d{number}") == number
                assert len(servers(proxy)) <= 2
        for number in range(2):
            stack.enter_context(Holding(proxy, f"d{number}"))
        assert said in connect_error(proxy.dsn("late"))  # not even greeted
        assert len(servers(proxy)) == 2
        assert metric(proxy, "pool_evictions_total") > 0


def test_database_limit_counts_all_users(cluster):
    users = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": ""},
             {"name": "late", "password": "", "query_wait_timeout": "1s"}]
    database = one_node(cluster, "app", max_connections=1, query_wait_timeout="40s")
    with proxied(cluster, database, users=users) as proxy:
        proxy.wait_nodes()
        for _ in range(3):
            assert proxy.value("SELECT 1") == 1
            assert proxy.value("SELECT 2", user="app") == 2
            assert len(servers(proxy, "app")) == 1
        with Holding(proxy, "app"):
            assert "max_connections of the database" in connect_error(proxy.dsn(user="late"))
        row = next(row for row in proxy.show("DATABASES") if row["name"] == "app")
        assert row["max_connections"] == 1 and row["current_connections"] <= 1


def test_idle_connections_are_tested_for_all_who_wait(cluster):
    """One that does not answer its test keeps nobody from the others that are idle."""
    database = one_node(cluster, "app", pool_size=2, query_wait_timeout="20s")
    options = {"pool": {"server_check_delay": "100ms", "connect_timeout": "50s"}}
    with proxied(cluster, database, workers=1, **options) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        holders = [stack.enter_context(Holding(proxy, "app")) for _ in range(2)]
        pids = [one(holder.connection, "SELECT pg_backend_pid()") for holder in holders]
        for holder in holders:
            holder.release()
        wait_until(lambda: all(row["state"] == "idle" for row in servers(proxy)), 10, "both to be idle")
        os.kill(pids[1], signal.SIGSTOP)  # the one used last is used first
        try:
            time.sleep(0.3)  # longer than server_check_delay
            waiting = [stack.enter_context(Raw(proxy)) for _ in range(3)]
            for raw in waiting:
                raw.send(query("SELECT pg_backend_pid()"))
            for raw in waiting:
                assert rows(raw.until_ready()) == [[str(pids[0]).encode()]]
        finally:
            os.kill(pids[1], signal.SIGCONT)


def test_a_busy_pool_gives_room_to_one_that_waits(cluster):
    """All connections allowed belong to a pool that always has clients waiting: another pool still gets its turn."""
    databases = [one_node(cluster, "busy"), one_node(cluster, "seldom", query_wait_timeout="10s")]
    with proxied(cluster, *databases, limits={"max_server_connections": 2}) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        end = threading.Event()
        failures = []

        def load(connection):
            try:
                while not end.is_set():
                    one(connection, "SELECT pg_sleep(0.005) IS NULL")
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        connections = [stack.enter_context(closing(proxy.connect("busy"))) for _ in range(8)]
        seldom = stack.enter_context(closing(proxy.connect("seldom")))
        threads = [threading.Thread(target=load, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        try:
            for number in range(5):
                assert one(seldom, f"SELECT {number}") == number
                assert len(servers(proxy)) <= 2
        finally:
            end.set()
            for thread in threads:
                thread.join()
        assert not failures


# ---- limits on clients ----

def test_client_limits(cluster):
    users = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": "", "max_clients": 1}]
    databases = [one_node(cluster, "app", max_clients=3), one_node(cluster, "other")]
    with proxied(cluster, *databases, users=users) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect(user="app")):
            error = connect_error(proxy.dsn("other", user="app"))
            assert "max_clients of the user" in error and "users file" in error
            with closing(proxy.connect()), closing(proxy.connect()):
                error = connect_error(proxy.dsn())
                assert "max_clients of the database" in error and "limits.max_database_clients" in error
                row = next(row for row in proxy.show("DATABASES") if row["name"] == "app")
                assert (row["max_client_connections"], row["current_client_connections"]) == (3, 3)
                row = next(row for row in proxy.show("USERS") if row["name"] == "app")
                assert (row["max_user_client_connections"], row["current_client_connections"]) == (1, 1)
                assert proxy.value("SELECT 1", dbname="other") == 1

        def free_again():
            try:
                return proxy.value("SELECT 5", user="app") == 5
            except psycopg2.OperationalError:
                return False

        wait_until(free_again, 10, "the places of those who left")


# ---- deadlocks ----

def test_two_clients_that_wait_for_each_other(cluster):
    """Each holds the only connection to one shard and wants the other's: one of them is told at once."""
    database = {"name": "app", "shards": cluster.shard_config(), "pool_size": 1, "query_wait_timeout": "30s",
                "keyspaces": [{"name": "u", "type": "bigint", "tables": [{"name": "pool_d", "key": "id"}]}]}
    with proxied(cluster, database, routing={"read_write_split": False}) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        setup = stack.enter_context(closing(proxy.connect()))
        setup.cursor().execute("DROP TABLE IF EXISTS pool_d")
        setup.cursor().execute("CREATE TABLE pool_d (id bigint PRIMARY KEY, v int)")
        stack.callback(lambda: proxy.sql("DROP TABLE pool_d"))
        for number in range(1, 21):
            setup.cursor().execute("INSERT INTO pool_d VALUES (%s, 0)", (number,))
        on_shard = [[], []]
        for number in range(1, 21):
            on_shard[explain_shard(setup, number)].append(number)
        left, right = (stack.enter_context(Raw(proxy)) for _ in range(2))
        update = "UPDATE pool_d SET v = v + 1 WHERE id = {}"
        for raw, shard in ((left, 0), (right, 1)):
            raw.ask(query("BEGIN"))
            assert error_of(raw.ask(query(update.format(on_shard[shard][0])))) is None
        left.send(query(update.format(on_shard[1][0])))
        wait_until(lambda: pool(proxy, "app")["cl_waiting"] == 1, 10, "one waiting")
        error = error_of(right.ask(query(update.format(on_shard[0][0]))))
        assert error["C"] == "40P01" and "deadlock" in error["M"] and error["H"]
        right.ask(query("ROLLBACK"))
        assert error_of(left.until_ready()) is None
        left.ask(query("ROLLBACK"))
        assert metric(proxy, "pool_refused_total", database="app", reason="deadlock") == 1


def explain_shard(connection, number):
    text = "\n".join(str(row[0]) for row in fetch(connection, f"EXPLAIN SELECT * FROM pool_d WHERE id = {number}"))
    return 1 if "s1" in text else 0


# ---- idle for long, lost, reloaded ----

def test_connections_idle_for_long_are_tested(cluster):
    """A connection whose server process has stopped answering is not given to a client."""
    database = one_node(cluster, "app", pool_size=2)
    with proxied(cluster, database, pool={"server_check_delay": "300ms", "connect_timeout": "1s"}) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            before = one(connection, "SELECT pg_backend_pid()")
            time.sleep(0.5)
            assert one(connection, "SELECT pg_backend_pid()") == before
            time.sleep(0.5)
            import os
            import signal
            os.kill(before, signal.SIGSTOP)
            try:
                assert one(connection, "SELECT pg_backend_pid()") != before
            finally:
                os.kill(before, signal.SIGCONT)


def test_a_smaller_pool_takes_effect_at_once(cluster):
    with proxied(cluster, one_node(cluster, "app", pool_size=5)) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        holders = [stack.enter_context(Holding(proxy, "app")) for _ in range(5)]
        for holder in holders[:2]:
            holder.release()
        proxy.change({"databases": [one_node(cluster, "app", pool_size=1)]})
        proxy.reload()
        wait_until(lambda: len(servers(proxy, "app")) == 3, 10, "idle ones to go")
        for holder in holders[2:]:
            assert one(holder.connection, "SELECT 1") == 1
            holder.release()
        wait_until(lambda: len(servers(proxy, "app")) == 1, 10, "busy ones to go when free")
        for holder in holders:
            assert one(holder.connection, "SELECT 2") == 2
        proxy.change({"databases": [one_node(cluster, "app", pool_size=4)]})
        proxy.reload()
        wait_until(lambda: next(row for row in proxy.show("DATABASES") if row["name"] == "app")["pool_size"] == 4,
                   10, "the new size")
        for _ in range(4):
            stack.enter_context(Holding(proxy, "app"))


def test_a_shorter_lifetime_holds_for_those_that_are_there(cluster):
    with proxied(cluster, one_node(cluster, "app")) as proxy:
        proxy.wait_nodes()
        assert proxy.value("SELECT 1") == 1
        assert len(servers(proxy, "app")) == 1
        proxy.change({"databases": [one_node(cluster, "app", server_lifetime="100ms")]})
        proxy.reload()
        wait_until(lambda: not servers(proxy, "app"), 10, "the old one to go")


def test_a_database_in_use_is_removed(cluster):
    """Clients in each state: idle ones and later statements are refused, what is under way is finished."""
    keep, gone = one_node(cluster, "keep"), one_node(cluster, "gone", pool_size=3, query_wait_timeout="5s")
    with proxied(cluster, keep, gone) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        idle = stack.enter_context(Raw(proxy, database="gone"))
        idle.ask(query("SELECT 1"))
        open_ = stack.enter_context(Raw(proxy, database="gone"))
        open_.ask(query("BEGIN"))
        open_.ask(query("SELECT 2"))
        running = stack.enter_context(Raw(proxy, database="gone"))
        running.send(query("SELECT pg_sleep(1.5), 3"))
        copying = stack.enter_context(Raw(proxy, database="gone"))
        copying.ask(query("CREATE TABLE IF NOT EXISTS pool_copy (a int)"))
        copying.send(query("COPY pool_copy FROM STDIN"))
        assert copying.read()[0] == "G"
        waiting = stack.enter_context(Raw(proxy, database="gone"))
        waiting.send(query("SELECT 4"))
        wait_until(lambda: pool(proxy, "gone")["cl_waiting"] == 1, 10, "one waiting")
        proxy.change({"databases": [keep]})
        proxy.reload()
        wait_until(lambda: "gone" not in {row["name"] for row in proxy.show("DATABASES")}, 10, "the reload")
        assert "does not exist" in connect_error(proxy.dsn("gone"))
        assert rows(open_.ask(query("SELECT 5"))) == [[b"5"]]
        assert error_of(open_.ask(query("COMMIT"))) is None
        copying.send(b"d\0\0\0\x061\n", b"c\0\0\0\4")
        assert error_of(copying.until_ready()) is None
        assert rows(running.until_ready())[0][1] == b"3"
        assert rows(waiting.until_ready()) == [[b"4"]]
        idle.send(query("SELECT 6"))
        assert idle.at_end()
        wait_until(lambda: not servers(proxy, "gone"), 10, "its connections to go")
        cluster.shards[0].primary.sql("DROP TABLE pool_copy", dbname="plain")


def test_drain_with_clients_in_each_state(cluster):
    """SIGTERM: idle ones are told at once, the others finish what they do."""
    from support import SYNC, bind, execute, parse
    database = one_node(cluster, "app", pool_size=4, query_wait_timeout="20s")
    sharded = {"name": "sharded", "shards": cluster.shard_config(),
               "keyspaces": [{"name": "u", "type": "bigint", "tables": [{"name": "pool_f", "key": "id"}]}]}
    with proxied(cluster, database, sharded) as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        proxy.sql("CREATE TABLE pool_f (id bigint PRIMARY KEY)", dbname="sharded")
        proxy.sql("CREATE TABLE pool_g (a int)")
        raws = {name: stack.enter_context(Raw(proxy, database="sharded" if name == "fan" else "app"))
                for name in ("idle", "open", "running", "copy", "batch", "waiting", "fan")}
        raws["idle"].ask(query("SELECT 1"))
        raws["open"].ask(query("BEGIN"))
        raws["open"].ask(query("SELECT 2"))
        raws["running"].send(query("SELECT pg_sleep(1), 3"))
        raws["copy"].send(query("COPY pool_g FROM STDIN"))
        assert raws["copy"].read()[0] == "G"
        raws["batch"].send(parse("", "SELECT 4"), bind("", ""), execute(), b"H\0\0\0\4")
        assert [raws["batch"].read()[0] for _ in range(4)] == ["1", "2", "D", "C"]
        raws["fan"].send(query("SELECT count(*) FROM pool_f, pg_sleep(3)"))
        raws["waiting"].send(query("SELECT 5"))
        wait_until(lambda: pool(proxy, "app")["cl_waiting"] == 1, 10, "one waiting")
        sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%pg_sleep(3)%'"
        wait_until(lambda: all(node.value(sleepers) for node in cluster.primaries), 10, "the fan-out and the query under way")
        process = proxy.process
        process.send_signal(signal.SIGTERM)
        assert raws["idle"].at_end()
        raws["batch"].send(SYNC)
        assert kinds(raws["batch"].until_ready()) == "Z"
        assert rows(raws["waiting"].until_ready()) == [[b"5"]]
        assert rows(raws["running"].until_ready())[0][1] == b"3"
        assert error_of(raws["fan"].until_ready()) is None
        assert rows(raws["open"].ask(query("SELECT 6"))) == [[b"6"]]
        assert error_of(raws["open"].ask(query("COMMIT"))) is None
        raws["copy"].send(b"d\0\0\0\x061\n", b"c\0\0\0\4")
        assert error_of(raws["copy"].until_ready()) is None
        assert process.wait(20) == 0
        proxy.process = None
        proxy.check_log()
    assert cluster.shards[0].primary.value("SELECT count(*) FROM pool_g", dbname="plain") == 1
    cluster.shards[0].primary.sql("DROP TABLE pool_g", dbname="plain")
    for node in cluster.primaries:
        node.sql("DROP TABLE pool_f")


def test_drain_does_not_wait_for_clients_that_ask_nothing(cluster):
    """SIGTERM: one that only keeps a server, one that has sent part of a message, one not greeted yet."""
    database = one_node(cluster, "app", pool_size=2, query_wait_timeout="100s")
    with proxied(cluster, database, workers=1, shutdown_timeout="100s") as proxy, ExitStack() as stack:
        proxy.wait_nodes()
        part = stack.enter_context(Raw(proxy, database="app"))
        part.ask(query("SELECT 1"))
        pinned = stack.enter_context(Raw(proxy, database="app"))
        pinned.ask(query("CREATE TEMP TABLE mine (a int)"))
        part.send(query("SELECT 2")[:7])
        open_ = stack.enter_context(Raw(proxy, database="app"))
        open_.ask(query("BEGIN"))
        open_.ask(query("SELECT 3"))
        outside = stack.enter_context(Raw(proxy, login=False))
        outside.send(startup(user="postgres", database="app", DateStyle="German"))
        wait_until(lambda: pool(proxy, "app")["cl_waiting"] == 1, 10, "one waiting to be greeted")
        proxy.process.send_signal(signal.SIGTERM)
        for raw in (pinned, part, outside):
            assert error_of(iter(raw.read, None))["C"] == "57P01"
            assert raw.at_end()
        assert error_of(open_.ask(query("COMMIT"))) is None
        assert open_.at_end()
        assert proxy.process.wait(40) == 0
        proxy.process = None
        proxy.check_log()
