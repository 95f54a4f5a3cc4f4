"""Pool modes: session (the server stays with the client, is reset after it) and statement (no transaction blocks)."""
import signal
import time
from contextlib import ExitStack, closing

import psycopg
import psycopg2
import pytest

from harness import Proxy, wait_until
from support import SYNC, Raw, bind, error_of, execute, fetch, kinds, one, parse, query, refused, rows

pytestmark = pytest.mark.core


def one_node(cluster, name, dbname="plain", **settings):
    """A database of one node."""
    shard = dict(cluster.shard_config()[0], dbname=dbname)
    return {"name": name, "shards": [dict(shard, nodes=shard["nodes"][:1])], **settings}


@pytest.fixture(scope="module")
def modes(cluster):
    """Databases "own" (session), "each" (statement), "shared" (transaction), "sharded" (session, two shards)."""
    databases = [one_node(cluster, "own", pool_mode="session", pool_size=2),
                 one_node(cluster, "each", pool_mode="statement", pool_size=2),
                 one_node(cluster, "shared", pool_size=1),
                 {"name": "sharded", "pool_mode": "session", "shards": cluster.shard_config(),
                  "keyspaces": [{"name": "u", "type": "bigint", "tables": [{"name": "pool_t", "key": "id"}]}]}]
    users = [{"name": "postgres", "password": "", "admin": True},
             {"name": "app", "password": "", "pool_mode": "session", "pool_size": 1}]
    with Proxy(cluster, databases=databases, users=users, dbname="own",
               options={"pool": {"query_wait_timeout": "10s"}}) as proxy:
        proxy.wait_nodes()
        yield proxy


def pid(connection):
    return one(connection, "SELECT pg_backend_pid()")


# ---- session ----

def test_session_keeps_its_server(modes):
    """Temp tables, advisory locks, cursors WITH HOLD, LISTEN, untracked settings: as with Postgres itself."""
    with closing(modes.connect()) as connection:
        first = pid(connection)
        cursor = connection.cursor()
        cursor.execute("CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (7)")
        cursor.execute("SELECT pg_advisory_lock(4711), set_config('my.own', 'yes', false)")
        cursor.execute("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT * FROM mine; COMMIT")
        cursor.execute("PREPARE p AS SELECT a + 1 FROM mine")
        cursor.execute("LISTEN pool_news")
        assert one(connection, "FETCH 1 FROM held") == 7
        assert one(connection, "EXECUTE p") == 8
        assert one(connection, "SELECT current_setting('my.own')") == "yes"
        cursor.execute("NOTIFY pool_news, 'hello'")
        connection.poll()
        assert [note.payload for note in connection.notifies] == ["hello"]
        assert pid(connection) == first


def test_session_is_told_what_comes_between_statements(cluster, modes):
    with Raw(modes, database="own") as raw:
        raw.ask(query("LISTEN pool_between"))
        cluster.shards[0].primary.sql("NOTIFY pool_between, 'now'", dbname="plain")
        kind, body = raw.read()
        assert kind == "A" and b"pool_between\0now" in body


def test_session_listens_in_the_extended_protocol(modes):
    with Raw(modes, database="own") as raw:
        answer = raw.ask(parse("", "LISTEN pool_extended"), bind("", ""), execute(), SYNC)
        assert kinds(answer) == "12CZ"
        answer = raw.ask(query("NOTIFY pool_extended, 'mine'"))
        assert kinds(answer) == "CAZ" and rows(raw.ask(query("SELECT pg_listening_channels()"))) == [[b"pool_extended"]]
        raw.ask(parse("", "UNLISTEN *"), bind("", ""), execute(), SYNC)
        assert rows(raw.ask(query("SELECT * FROM pg_listening_channels()"))) == []


def test_session_leaves_nothing_behind(modes):
    """The server is reset and used again, not closed."""
    connection = modes.connect(user="app")
    before = pid(connection)
    cursor = connection.cursor()
    cursor.execute("CREATE TEMP TABLE left_over (a int)")
    cursor.execute("SET timezone TO 'Asia/Tokyo'; SET application_name TO 'first'")
    cursor.execute("SELECT pg_advisory_lock(4712), set_config('my.secret', 'mine', false)")
    cursor.execute("LISTEN left_news")
    cursor.execute("PREPARE left_statement AS SELECT 1")
    connection.close()
    with closing(modes.connect(user="app", options="-c statement_timeout=77s")) as connection:
        assert pid(connection) == before, "pool_size of the user is 1: it is the same server"
        assert fetch(connection, "SELECT count(*) FROM pg_class WHERE relname = 'left_over'") == [(0,)]
        assert one(connection, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert one(connection, "SELECT count(*) FROM pg_listening_channels()") == 0
        assert one(connection, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_statement'") == 0
        assert one(connection, "SELECT current_setting('my.secret', true)") in ("", None)
        assert one(connection, "SHOW timezone") != "Asia/Tokyo"
        assert one(connection, "SHOW application_name") == ""
        assert one(connection, "SHOW statement_timeout") == "77s"


def test_session_statements_prepared_by_drivers(modes):
    """Named statements of one client do not disturb the next on the same server."""
    for round_ in range(3):
        with closing(modes.connect3(user="app", prepare_threshold=0)) as connection:
            for number in range(3):
                row = connection.execute("SELECT %s::int + %s, count(*) FROM pg_prepared_statements",
                                         (number, round_)).fetchone()
                assert row[0] == number + round_ and row[1] >= 1


def test_session_that_leaves_in_a_transaction(modes):
    with Raw(modes, database="own", user="app") as raw:
        raw.ask(query("BEGIN"))
        raw.ask(query("CREATE TABLE never_there (a int)"))
    with closing(modes.connect(user="app")) as connection:
        assert one(connection, "SELECT to_regclass('never_there')") is None


def test_session_waits_for_a_session_to_end(modes):
    """With a pool of one, the second client gets its server when the first has left."""
    with closing(modes.connect(user="app")) as first, Raw(modes, database="own", user="app") as second:
        pid(first)
        second.send(query("SELECT 42"))
        wait_until(lambda: any(row["cl_waiting"] for row in modes.show("POOLS")), 10, "a waiting client")
        first.close()
        assert rows(second.until_ready()) == [[b"42"]]


def test_session_ends_with_its_server(modes, cluster):
    """State that is gone is not pretended to be there."""
    with closing(modes.connect()) as connection:
        number = pid(connection)
        cluster.shards[0].primary.sql(f"SELECT pg_terminate_backend({number})", dbname="plain")
        with pytest.raises(psycopg2.OperationalError):
            for _ in range(100):
                one(connection, "SELECT 1")
                time.sleep(0.05)


def test_session_on_several_shards(modes, cluster):
    """One server of each shard used, the primary's, for as long as the session lasts."""
    with closing(modes.connect("sharded")) as connection:
        cursor = connection.cursor()
        cursor.execute("DROP TABLE IF EXISTS pool_t")
        cursor.execute("CREATE TABLE pool_t (id bigint PRIMARY KEY, v int)")
        try:
            cursor.execute("SET application_name TO 'on all'")
            for number in range(1, 21):
                cursor.execute("INSERT INTO pool_t VALUES (%s, 1)", (number,))
            found = fetch(connection, "SELECT id FROM pool_t ORDER BY id")
            assert [row[0] for row in found] == list(range(1, 21))
            pids = {one(connection, f"SELECT pg_backend_pid() FROM pool_t WHERE id = {number}")
                    for number in range(1, 21)}
            assert len(pids) == 2
            names = {row[0] for row in fetch(connection, "SELECT current_setting('application_name') FROM pool_t")}
            assert names == {"on all"}
            cursor.execute("BEGIN")
            cursor.execute("UPDATE pool_t SET v = 2")
            cursor.execute("ROLLBACK")
            assert one(connection, "SELECT sum(v) FROM pool_t") == 20
            link = [row for row in modes.show("SERVERS") if row["database"] == "sharded" and row["state"] == "active"]
            assert len(link) == 2
        finally:
            cursor.execute("DROP TABLE pool_t")


def test_reset_query_of_ones_own(cluster):
    """What is tracked is right also when the reset is not DISCARD ALL, and without any."""
    for reset in ("SELECT pg_advisory_unlock_all()", ""):
        options = {"pool": {"mode": "session", "size": 1, "reset_query": reset}}
        with Proxy(cluster, databases=[one_node(cluster, "own")], options=options, dbname="own") as proxy:
            proxy.wait_nodes()
            pids = set()
            for zone in ("Asia/Tokyo", None, "Asia/Tokyo", "Europe/Paris"):
                with closing(proxy.connect3(prepare_threshold=0)) as connection:
                    if zone:
                        connection.execute(f"SET timezone TO '{zone}'")
                    found = connection.execute("SELECT current_setting('timezone'), pg_backend_pid()").fetchone()
                    assert (found[0] == zone) if zone else ("Asia" not in found[0])
                    pids.add(found[1])
            assert len(pids) == 1


def test_reset_that_fails_closes_the_server(cluster):
    options = {"pool": {"mode": "session", "size": 1, "reset_query": "SELECT 1/0"}}
    with Proxy(cluster, databases=[one_node(cluster, "own")], options=options, dbname="own") as proxy:
        proxy.wait_nodes()
        pids = []
        for _ in range(3):
            with closing(proxy.connect()) as connection:
                pids.append(pid(connection))
        assert len(set(pids)) >= 2


def test_sigterm_closes_idle_sessions(cluster):
    """They keep a server, but nothing is under way: shutdown does not wait for them."""
    options = {"pool": {"mode": "session"}, "shutdown_timeout": "40s"}
    with Proxy(cluster, databases=[one_node(cluster, "own")], options=options, dbname="own") as proxy:
        proxy.wait_nodes()
        idle, busy = proxy.connect(), proxy.connect()
        pid(idle)
        busy.cursor().execute("BEGIN; SELECT 1")
        process = proxy.process
        process.send_signal(signal.SIGTERM)
        with pytest.raises(psycopg2.Error):
            for _ in range(200):
                pid(idle)
                time.sleep(0.02)
        assert process.poll() is None
        busy.cursor().execute("COMMIT")
        assert process.wait(20) == 0
        proxy.process = None
        proxy.check_log()


# ---- statement ----

def test_statement_mode_refuses_transaction_blocks(modes):
    with closing(modes.connect("each")) as connection:
        for sql in ("BEGIN", "START TRANSACTION READ ONLY", "SELECT 1; BEGIN; SELECT 2"):
            with refused("0A000", "transaction blocks are not allowed"):
                connection.cursor().execute(sql)
        assert one(connection, "SELECT 1; SELECT 2") == 2
        assert one(connection, "SELECT 3") == 3
    with closing(modes.connect3("each", autocommit=False)) as connection:
        with refused("0A000", "transaction blocks are not allowed"):
            connection.execute("SELECT 1")


def test_statement_mode_in_the_extended_protocol(modes):
    with Raw(modes, database="each") as raw:
        answer = raw.ask(parse("", "BEGIN"), bind("", ""), execute(), SYNC)
        assert error_of(answer)["C"] == "0A000" and answer[-1] == ("Z", b"I")
        answer = raw.ask(parse("", "SELECT 5"), bind("", ""), execute(), SYNC)
        assert rows(answer) == [[b"5"]] and kinds(answer) == "12DCZ"


def test_statement_mode_prepared_and_settings(modes):
    """Tracked settings and named statements hold from statement to statement, on whichever server."""
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(modes.connect3("each", prepare_threshold=0))) for _ in range(5)]
        for number, connection in enumerate(connections):
            connection.execute(f"SET search_path TO path_{number}")
        for turn in range(4):
            for number, connection in enumerate(connections):
                row = connection.execute("SELECT current_setting('search_path'), %s::int", (turn,)).fetchone()
                assert row == (f"path_{number}", turn)


# ---- transaction, and overrides ----

def test_one_pool_serves_clients_with_different_settings(modes):
    """One server, eight clients; each finds its own settings, also those from the connection string."""
    wanted = [("Asia/Tokyo", "a"), ("Europe/Paris", "b"), ("UTC", "c"), ("America/Lima", "d")]
    with ExitStack() as stack:
        clients = []
        for zone, path in wanted:
            by_set = stack.enter_context(closing(modes.connect("shared")))
            by_set.cursor().execute(f"SET timezone TO '{zone}'; SET search_path TO {path}")
            by_options = stack.enter_context(closing(
                modes.connect("shared", options=f"-c timezone={zone} -c search_path={path}")))
            clients += [(by_set, zone, path), (by_options, zone, path)]
        pids = set()
        for _ in range(3):
            for connection, zone, path in clients:
                row = fetch(connection, "SELECT current_setting('timezone'), current_setting('search_path'), "
                                        "pg_backend_pid()")[0]
                assert row[:2] == (zone, path)
                pids.add(row[2])
        assert len(pids) == 1


def test_the_users_mode_counts_before_the_databases(modes):
    """User "app" has sessions in every database, of a pool of one."""
    with closing(modes.connect("each", user="app")) as connection:
        connection.cursor().execute("BEGIN; CREATE TEMP TABLE t (a int); COMMIT")
        assert one(connection, "SELECT count(*) FROM t") == 0
    modes_shown = {(row["database"], row["user"]): row["pool_mode"] for row in modes.show("POOLS")}
    assert modes_shown["each", "app"] == "session" and modes_shown["each", "postgres"] == "statement"
    assert modes_shown["shared", "postgres"] == "transaction"


def test_a_reload_changes_the_mode_for_those_who_hold_nothing(cluster):
    databases = [one_node(cluster, "own", pool_mode="session", pool_size=3)]
    with Proxy(cluster, databases=databases, dbname="own") as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as holding, closing(proxy.connect()) as fresh:
            holding.cursor().execute("CREATE TEMP TABLE kept (a int)")
            proxy.change({"databases": [one_node(cluster, "own", pool_mode="statement", pool_size=3)]})
            proxy.reload()

            def refuses():
                try:
                    fresh.cursor().execute("BEGIN")
                    fresh.cursor().execute("ROLLBACK")
                    return False
                except psycopg2.Error:
                    return True

            wait_until(refuses, 10, "the new mode")
            assert one(holding, "SELECT count(*) FROM kept") == 0
            holding.cursor().execute("BEGIN; SELECT 1; COMMIT")
