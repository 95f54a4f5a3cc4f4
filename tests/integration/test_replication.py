"""Replication through the proxy with the real programs: base backup, WAL, logical decoding, a subscription."""
import os
import signal
import struct
import subprocess
import time
from contextlib import closing

import psycopg2
import psycopg2.extras
import pytest
from harness import Cluster, Proxy, wait_until
from harness.cluster import give_to_server, pg_binary, server_user, tool_environment
from support import Raw, error_of, kinds, message, query, startup, values

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def proxy(cluster):
    """One shard under the name "plain", two under "app"; a pool too small for anybody to share."""
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    app = {"name": "app", "shards": cluster.shard_config()}
    with Proxy(cluster, databases=[plain, app], options={"limits": {"max_replication": 4}}) as proxy:
        proxy.wait_nodes()
        yield proxy


def tool(name, *args):
    user = server_user()
    return subprocess.Popen([pg_binary(name), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, cwd="/", env=tool_environment(),
                            **({"user": user, "group": user, "extra_groups": []} if user else {}))


def conninfo(proxy, database="plain", user="postgres"):
    return (f"host={proxy.host} port={proxy.port} user={user} application_name=through "
            f"options='-c pgshunt.database={database}'")


def streaming(node, name="through"):
    return node.sql("SELECT pid FROM pg_stat_replication WHERE application_name = %s", (name,), dbname="postgres")


def writable_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for at in (tmp_path, *tmp_path.parents[:3]):
        if os.stat(at).st_uid == os.geteuid() and str(at) != "/tmp":
            os.chmod(at, 0o755)
    give_to_server(str(folder))
    return str(folder)


# ---- the startup packet ----

@pytest.mark.parametrize("value", ["true", "on", "1", "yes", "database"])
def test_a_walsender_answers(proxy, value):
    with Raw(proxy, database="plain", replication=value) as raw:
        answers = raw.ask(query("IDENTIFY_SYSTEM"))
        assert kinds(answers) == "TDCZ"
        row = values(dict(answers)["D"])
        assert row[3] == (b"plain" if value == "database" else None)
        assert kinds(raw.ask(query("SHOW server_version"))) == "TDCZ"
        if value == "database":
            assert values(dict(raw.ask(query("SELECT 40 + 2")))["D"]) == [b"42"]
        else:
            assert error_of(raw.ask(query("SELECT 1")))["C"] == "0A000"
        assert raw.parameters["server_version"].startswith("15") and raw.key


def test_no_replication_is_an_ordinary_session(proxy):
    with Raw(proxy, database="plain", replication="off") as raw:
        assert error_of(raw.ask(query("IDENTIFY_SYSTEM")))["C"] == "42601"


def test_settings_go_with_the_login(proxy):
    with Raw(proxy, database="plain", replication="database", application_name="by name", work_mem="3MB",
             options="-c lock_timeout=7s -c pgshunt.shard=s0") as raw:
        for name, value in [("work_mem", b"3MB"), ("lock_timeout", b"7s"), ("application_name", b"by name")]:
            assert values(dict(raw.ask(query(f"SHOW {name}")))["D"]) == [value]


def refusal(proxy, **parameters):
    with Raw(proxy, login=False) as raw:
        raw.send(startup(**parameters))
        found = []
        try:
            while True:
                found.append(raw.read())
        except EOFError:
            return error_of(found)


def test_what_is_refused(proxy):
    error = refusal(proxy, database="plain", replication="maybe")
    assert error["C"] == "22023" and error["H"]
    error = refusal(proxy, database="app", replication="database")
    assert error["C"] == "0A000" and "pgshunt.shard" in error["H"] and "s0, s1" in error["H"]
    error = refusal(proxy, database="app", replication="database", options="-c pgshunt.shard=s7")
    assert error["C"] == "22023" and "s0, s1" in error["H"]
    error = refusal(proxy, database="replication", replication="true")
    assert error["C"] == "3D000" and "pgshunt.database" in error["H"]
    error = refusal(proxy, database="nothing", replication="database")
    assert error["C"] == "3D000"
    error = refusal(proxy, database="pgshunt", replication="database")
    assert error["C"] == "0A000"
    error = refusal(proxy, database="plain", user="app", replication="database")  # no REPLICATION
    assert error["C"] in ("42501", "28000") and error["H"]


@pytest.mark.parametrize("shard", [0, 1])
def test_a_shard_by_name(cluster, proxy, shard):
    with Raw(proxy, database="app", replication="database", options=f"-c pgshunt.shard=s{shard}") as raw:
        port = values(dict(raw.ask(query("SELECT inet_server_port()")))["D"])[0]
        assert int(port) == cluster.shards[shard].primary.port


def test_limit_and_console(cluster, proxy):
    """Counted apart from pool.size, seen in SHOW CLIENTS and SHOW SERVERS, given back."""
    sessions = [Raw(proxy, database="plain", replication="database" if number % 2 else "true")
                for number in range(4)]
    try:
        error = refusal(proxy, database="plain", replication="database")
        assert error["C"] == "53300" and "limits.max_replication" in error["H"]
        for what in ("CLIENTS", "SERVERS"):
            shown = sorted(row["replication"] for row in proxy.show(what) if row["replication"] != "none")
            assert shown == ["logical", "logical", "physical", "physical"]
        assert all(row["sv_active"] == 0 for row in proxy.show("POOLS") if row["database"] == "plain")
        assert proxy.value("SELECT 1", dbname="plain") == 1
    finally:
        for session in sessions:
            session.close()
    wait_until(lambda: not [row for row in proxy.show("SERVERS") if row["replication"] != "none"], 10.0, "all gone")
    with Raw(proxy, database="plain", replication="database") as raw:
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"


def test_password_and_no_password(cluster):
    """The user's own proof opens the server for replication too."""
    with Cluster(shards=1, replicas=0, auth="scram-sha-256") as guarded:
        node = guarded.shards[0].primary
        guarded.create_role("copier", "secret", "LOGIN REPLICATION")
        with open(os.path.join(node.data, "pg_hba.conf"), "a") as hba:
            hba.write("host replication copier 127.0.0.1/32 scram-sha-256\n")
        node.sql("SELECT pg_reload_conf()", dbname="postgres")
        with Proxy(guarded, users=[{"name": "copier", "password": "secret"}, {"name": "postgres", "password": "x",
                                                                              "admin": True}],
                   options={"auth": {"method": "scram-sha-256"}}, start=False) as proxy:
            proxy.start()

            def connect(password):
                return psycopg2.connect(proxy.dsn("app", user="copier", password=password),
                                        connection_factory=psycopg2.extras.LogicalReplicationConnection)

            def try_connect():
                try:
                    return connect("secret")
                except psycopg2.OperationalError as error:
                    assert "primary" in str(error)

            with closing(wait_until(try_connect, 10.0, "the primary known")) as connection:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT current_user")
                    assert cursor.fetchone() == ("copier",)
            with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
                connect("wrong")


# ---- the programs ----

def test_base_backup(cluster, proxy, tmp_path):
    folder = writable_folder(tmp_path, "backup")
    run = tool("pg_basebackup", "--pgdata", folder, "--checkpoint", "fast", "--wal-method", "stream", "--no-sync",
               "--dbname", conninfo(proxy))
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    verify = tool("pg_verifybackup", folder)
    output, _ = verify.communicate(timeout=60)
    assert verify.returncode == 0, output


def test_base_backup_of_the_only_database(cluster, tmp_path):
    """pg_basebackup names the database "replication": with one database there is no doubt."""
    one = {"name": "one", "shards": [dict(cluster.shard_config()[1], dbname="plain")]}
    with Proxy(cluster, databases=[one]) as proxy:
        proxy.wait_nodes()
        folder = writable_folder(tmp_path, "tar")
        run = tool("pg_basebackup", "--pgdata", folder, "--checkpoint", "fast", "--wal-method", "none", "--no-sync",
                   "--format", "tar", "--max-rate", "1024M", "-h", proxy.host, "-p", str(proxy.port), "-U", "postgres")
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 0, output
        assert os.path.getsize(os.path.join(folder, "base.tar")) > 10_000_000


def test_receivewal(cluster, proxy, tmp_path):
    """WAL flows until Ctrl-C; the slot advances, so what is said back arrives too."""
    node = cluster.shards[0].primary
    folder = writable_folder(tmp_path, "wal")
    node.sql("SELECT pg_create_physical_replication_slot('receiver', true)", dbname="plain")
    run = tool("pg_receivewal", "--directory", folder, "--slot", "receiver", "--synchronous", "--no-loop",
               "--status-interval", "1", "--dbname", conninfo(proxy))
    try:
        wait_until(lambda: streaming(node), 20.0, "streaming")
        node.sql("CREATE TABLE IF NOT EXISTS walked AS SELECT generate_series(1, 200000) AS n", dbname="plain")
        position = node.value("SELECT pg_current_wal_flush_lsn()::text", dbname="plain")
        wait_until(lambda: node.value("SELECT restart_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = "
                                      "'receiver'", (position,), dbname="plain"), 20.0, "the slot to advance")
        assert os.listdir(folder)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=20)
        assert run.returncode == 0, output
        wait_until(lambda: not streaming(node), 10.0, "the walsender gone")
    finally:
        run.kill()
        run.wait()
        node.sql("DROP TABLE IF EXISTS walked", dbname="plain")
        wait_until(lambda: not streaming(node), 10.0, "the walsender gone")
        node.sql("SELECT pg_drop_replication_slot('receiver')", dbname="plain")


def test_recvlogical(cluster, proxy, tmp_path):
    node = cluster.shards[0].primary
    folder = writable_folder(tmp_path, "logical")
    dsn = f"host={proxy.host} port={proxy.port} user=postgres dbname=plain application_name=through"
    run = tool("pg_recvlogical", "--create-slot", "--slot", "decoded", "--plugin", "test_decoding", "--dbname", dsn)
    output, _ = run.communicate(timeout=30)
    if "test_decoding" in output and run.returncode:
        pytest.skip("no test_decoding here")
    assert run.returncode == 0, output
    try:
        node.sql("CREATE TABLE decoded (n int PRIMARY KEY, body text)", dbname="plain")
        node.sql("INSERT INTO decoded SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n", dbname="plain")
        position = node.value("SELECT pg_current_wal_lsn()::text", dbname="plain")
        run = tool("pg_recvlogical", "--start", "--slot", "decoded", "--file", os.path.join(folder, "out"), "--endpos",
                   position, "--no-loop", "--dbname", dsn)
        output, _ = run.communicate(timeout=50)
        assert run.returncode == 0, output
        with open(os.path.join(folder, "out")) as file:
            assert sum("INSERT: n[integer]" in line for line in file) == 5000
    finally:
        wait_until(lambda: not streaming(node), 10.0, "the walsender gone")
        run = tool("pg_recvlogical", "--drop-slot", "--slot", "decoded", "--dbname", dsn)
        output, _ = run.communicate(timeout=30)
        node.sql("DROP TABLE IF EXISTS decoded", dbname="plain")
        assert run.returncode == 0, output


def test_a_subscription(cluster, proxy):
    """CREATE SUBSCRIPTION with the proxy as publisher: the copy at first, then changes as they are made."""
    publisher, subscriber = cluster.shards[0].primary, cluster.shards[1].primary
    for node in (publisher, subscriber):
        node.sql("CREATE TABLE followed (n int PRIMARY KEY, body text)", dbname="plain")
    publisher.sql("INSERT INTO followed SELECT n, 'early' FROM generate_series(1, 1000) n", dbname="plain")
    publisher.sql("CREATE PUBLICATION through FOR TABLE followed", dbname="plain")
    dsn = f"host={proxy.host} port={proxy.port} user=postgres dbname=plain"
    subscriber.sql(f"CREATE SUBSCRIPTION through CONNECTION '{dsn}' PUBLICATION through", dbname="plain")
    try:
        wait_until(lambda: subscriber.value("SELECT count(*) FROM followed", dbname="plain") == 1000, 30.0, "the copy")
        publisher.sql("UPDATE followed SET body = 'late' WHERE n <= 500", dbname="plain")
        publisher.sql("DELETE FROM followed WHERE n > 900", dbname="plain")
        wait_until(lambda: subscriber.sql("SELECT body, count(*) FROM followed GROUP BY 1 ORDER BY 1", dbname="plain")
                   == [("early", 400), ("late", 500)], 30.0, "the changes")
    finally:
        subscriber.sql("DROP SUBSCRIPTION through", dbname="plain")
        publisher.sql("DROP PUBLICATION through", dbname="plain")
        for node in (publisher, subscriber):
            node.sql("DROP TABLE followed", dbname="plain")


# ---- cancel, loss, shutdown, slow readers ----

def test_cancel_and_terminate(cluster, proxy):
    node = cluster.shards[0].primary
    with Raw(proxy, database="plain", replication="database", application_name="cancelled") as raw:
        raw.send(query("SELECT pg_sleep(30)"))
        wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND "
                                      "application_name = 'cancelled'", dbname="postgres"), 10.0, "the query")
        with proxy.socket() as other:
            other.sendall(struct.pack("!IIII", 16, 80877102, *raw.key))
            assert other.recv(1) == b""
        assert error_of(raw.until_ready())["C"] == "57014"
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"
        raw.send(message(b"X"))
        assert raw.at_end()
    wait_until(lambda: not node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cancelled'",
                                      dbname="postgres"), 10.0, "the backend gone")


def test_a_client_that_vanishes_in_the_middle(cluster, proxy):
    node = cluster.shards[0].primary
    raw = Raw(proxy, database="plain", replication="database", application_name="vanished")
    raw.send(query("SELECT pg_sleep(60)"))
    wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND "
                                  "application_name = 'vanished'", dbname="postgres"), 10.0, "the query")
    raw.close()
    wait_until(lambda: not node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vanished'",
                                      dbname="postgres"), 10.0, "the backend gone")


def test_a_server_that_ends_the_session(cluster, proxy):
    node = cluster.shards[0].primary
    with Raw(proxy, database="plain", replication="database", application_name="ended") as raw:
        node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ended'",
                 dbname="postgres")
        kind, body = raw.read()
        assert kind == "E" and b"C57P01\0" in body
        assert raw.at_end()


def start_streaming(proxy, node):
    raw = Raw(proxy, database="plain", replication="true", application_name="streamed")
    position = node.value("SELECT pg_current_wal_flush_lsn()::text", dbname="postgres")
    raw.send(query(f"START_REPLICATION PHYSICAL {position}"))
    assert raw.read()[0] == "W"
    return raw


def test_shutdown_ends_streams_and_lets_others_finish(cluster):
    node = cluster.shards[0].primary
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"shutdown_timeout": "30s"}) as proxy:
        proxy.wait_nodes()
        stream = start_streaming(proxy, node)
        idle = Raw(proxy, database="plain", replication="database")
        busy = Raw(proxy, database="plain", replication="database")
        busy.send(query("SELECT pg_sleep(1)"))
        time.sleep(0.2)
        proxy.send_signal(signal.SIGTERM)
        assert kinds(busy.until_ready()) == "TDCZ"
        for raw in (stream, idle, busy):
            last = None
            try:
                while True:
                    last = raw.read()
            except EOFError:
                assert last[0] == "E" and b"C57P01\0" in last[1]
            raw.close()
        assert proxy.wait() == 0
        proxy.process = None
    wait_until(lambda: not streaming(node, "streamed"), 10.0, "the walsender gone")


def test_both_directions_at_once_and_a_slow_reader(cluster, proxy):
    """A client that reads nothing while WAL comes: its server waits, the proxy keeps little, what it says is heard."""
    node = cluster.shards[0].primary
    raw = start_streaming(proxy, node)
    before = resident(proxy)
    try:
        node.sql("CREATE TABLE slow AS SELECT n, repeat('x', 200) AS body FROM generate_series(1, 300000) n",
                 dbname="plain")
        behind = wait_until(lambda: node.sql("SELECT sent_lsn FROM pg_stat_replication WHERE application_name = "
                                             "'streamed' AND sent_lsn < pg_current_wal_lsn() - 10000000",
                                             dbname="postgres"), 20.0, "the stream held back")
        assert behind
        assert resident(proxy) - before < 40_000, "kilobytes kept of 75 MB"
        status = struct.pack("!cQQQQB", b"r", 0x1234, 0x1234, 0x1234, 0, 0)
        raw.send(message(b"d", status))
        wait_until(lambda: node.value("SELECT write_lsn FROM pg_stat_replication WHERE application_name = 'streamed'",
                                      dbname="postgres") == "0/1234", 10.0, "the status to arrive")
        target = node.value("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint", dbname="postgres")
        at = 0
        while at < target:
            kind, body = raw.read()
            assert kind == "d"
            if body[:1] == b"w":
                at = struct.unpack("!Q", body[1:9])[0] + len(body) - 25
        raw.send(message(b"c"))
        while raw.read()[0] != "c":
            pass
        assert raw.until_ready()[-1][0] == "Z"
        assert kinds(raw.ask(query("IDENTIFY_SYSTEM"))) == "TDCZ"
    finally:
        raw.close()
        node.sql("DROP TABLE IF EXISTS slow", dbname="plain")


def resident(proxy):
    with open(f"/proc/{proxy.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
