"""Unix sockets: for clients (files, locks, modes, restarts, peer), and to servers."""
import getpass
import os
import re
import socket
import stat
import struct
import subprocess
import tempfile
import threading
from contextlib import closing, contextmanager

import psycopg2
import pytest

from harness import Proxy, wait_until
from harness.cluster import run_psql
from support import connect_error, one
from test_restart import ended, hand_over, run, start_another

pytestmark = pytest.mark.core


@pytest.fixture()
def folder():
    """A socket's path may have 107 bytes: pytest's own folders are too deep."""
    with tempfile.TemporaryDirectory(prefix="pgshunt-", dir="/tmp") as folder:
        yield folder


@contextmanager
def proxy_in(cluster, folder, listen=None, shards=None, **options):
    shards = shards or [dict(shard, dbname="bench") for shard in cluster.shard_config()[:1]]
    options["listen"] = {"unix_socket_dir": folder, **(listen or {})}
    with Proxy(cluster, databases=[{"name": "app", "shards": shards}], options=options) as proxy:
        yield proxy


def path_of(proxy, folder):
    return os.path.join(folder, f".s.PGSQL.{proxy.port}")


def lock_pid(proxy, folder):
    with open(path_of(proxy, folder) + ".lock") as lock:
        return int(lock.read())


def test_clients_connect_and_the_files_go_at_the_end(cluster, folder):
    with proxy_in(cluster, folder, listen={"unix_socket_mode": "0660", "unix_socket_group": str(os.getgid())}) as proxy:
        path = path_of(proxy, folder)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660 and os.stat(path).st_gid == os.getgid()
        assert lock_pid(proxy, folder) == proxy.pid
        assert run_psql(proxy.dsn(host=folder, sslmode="prefer"), "-Atc", "SELECT 7").stdout == "7\n"
        with closing(proxy.connect(host=folder)) as client:
            assert one(client, "SELECT 1") == 1
            assert {row["addr"] for row in proxy.show("CLIENTS")} == {"unix", "127.0.0.1"}
            caught = []

            def sleep():
                try:
                    one(client, "SELECT pg_sleep(40)")
                except psycopg2.Error as error:
                    caught.append(error.pgcode)

            thread = threading.Thread(target=sleep)
            thread.start()
            wait_until(lambda: any(row["state"] == "active" and row["addr"] == "unix" for row in proxy.show("CLIENTS")),
                       10.0, "the query runs")
            wait_until(lambda: client.cancel() or thread.join(0.2) or not thread.is_alive(), 20.0, "cancelled")
            assert caught == ["57014"]
            proxy.reload()
            assert one(client, "SELECT 2") == 2
        proxy.stop()
        assert os.listdir(folder) == []


def test_tls_is_not_offered(cluster, folder):
    """... nor asked for, where it is required of others."""
    certificate, key = os.path.join(folder, "crt"), os.path.join(folder, "key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2",
                    "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL)
    os.chmod(key, 0o600)
    tls = {"mode": "require", "cert_file": certificate, "key_file": key}
    with proxy_in(cluster, folder, client_tls=tls) as proxy:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(path_of(proxy, folder))
            client.sendall(struct.pack("!II", 8, 80877103))
            assert client.recv(10) == b"N"
        assert proxy.value("SELECT 1", host=folder) == 1
        assert "TLS is required" in connect_error(proxy.dsn())


def test_what_a_killed_process_left_is_used_again(cluster, folder):
    with proxy_in(cluster, folder) as proxy:
        proxy.kill9()
        assert sorted(os.listdir(folder)) == [f".s.PGSQL.{proxy.port}", f".s.PGSQL.{proxy.port}.lock"]
        proxy.start()
        assert proxy.value("SELECT 1", host=folder) == 1 and lock_pid(proxy, folder) == proxy.pid
        proxy.kill9()
        with open(path_of(proxy, folder) + ".lock", "w") as lock:
            lock.write("1\n")  # a pid that somebody has, who does not listen
        proxy.start()
        assert proxy.value("SELECT 1", host=folder) == 1 and lock_pid(proxy, folder) == proxy.pid
        proxy.kill9()
        open(path_of(proxy, folder) + ".lock", "w").close()  # killed before it wrote
        proxy.start()
        assert proxy.value("SELECT 1", host=folder) == 1 and lock_pid(proxy, folder) == proxy.pid


def test_a_socket_in_use_is_refused(cluster, folder):
    with proxy_in(cluster, folder) as proxy:
        proxy.change({"listen": {"address": "127.0.0.2"}, "http": {"port": 0}})  # so that TCP is not in the way
        done = run(proxy)
        assert done.returncode == 1
        assert f"another process (pid {proxy.pid}) listens on {path_of(proxy, folder)}: stop it" in done.stderr
        assert proxy.value("SELECT 1", host=folder) == 1 and lock_pid(proxy, folder) == proxy.pid
        proxy.stop()
        with socket.socket(socket.AF_UNIX) as other:  # of a program that makes no lock files
            other.bind(path_of(proxy, folder))
            other.listen()
            done = run(proxy)
            assert done.returncode == 1 and "another process listens on " in done.stderr, done.stderr
            assert os.listdir(folder) == [f".s.PGSQL.{proxy.port}"]
        os.unlink(path_of(proxy, folder))
        open(path_of(proxy, folder), "w").close()
        done = run(proxy)
        assert done.returncode == 1 and "Socket operation on non-socket" in done.stderr
        assert os.listdir(folder) == [f".s.PGSQL.{proxy.port}"]


@pytest.mark.parametrize("listen, problem", [
    ({"unix_socket_dir": "run"}, "begins with a slash"),
    ({"unix_socket_dir": "/" + "x" * 100}, "more than 107 bytes"),
    ({"unix_socket_mode": "0778"}, "octal"),
    ({"unix_socket_group": "no such group"}, "(listen.unix_socket_group): there is none of this name"),
    ({"unix_socket_dir": "/nonexistent"}, "cannot create /nonexistent/.s.PGSQL."),
])
def test_bad_settings(cluster, folder, listen, problem):
    shard = cluster.shard_config()[:1]
    proxy = Proxy(cluster, databases=[{"name": "app", "shards": shard}], start=False,
                  options={"listen": {"unix_socket_dir": folder, **listen}})
    done = run(proxy)
    assert done.returncode == 1 and problem in done.stderr, done.stderr
    assert os.listdir(folder) == []
    proxy.close()


def test_no_connection_fails_over_handovers(cluster, folder, tmp_path):
    script = tmp_path / "one.sql"
    script.write_text("SELECT 1;\n")
    with proxy_in(cluster, folder, restart={"patience": "10s"}) as proxy:
        bench = subprocess.Popen(
            ["/usr/lib/postgresql/15/bin/pgbench", "-n", "-C", "-c", "8", "-j", "2", "-T", "8", "-f", str(script),
             proxy.dsn(host=folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            old = []
            for workers in (3, 1):
                wait_until(lambda: int(proxy.show("STATS_TOTALS")[0]["xact_count"]) >= 0, 10.0, "an answer")
                proxy.change({"workers": workers})
                old.append(hand_over(proxy))
                wait_until(lambda: lock_pid(proxy, folder) == proxy.pid, 10.0, "the new one's lock")
            said = bench.communicate(timeout=50)[0]
        finally:
            bench.kill()
        assert bench.returncode == 0, said
        assert "failed transactions: 0 (" in said and "aborted" not in said, said
        assert int(re.search(r"actually processed: (\d+)", said)[1]) > 100
        for one_of_them in old:
            ended(one_of_them)
        assert proxy.value("SELECT 1", host=folder) == 1
        proxy.stop()
        assert os.listdir(folder) == []


def test_a_new_process_that_fails_leaves_the_socket(cluster, folder):
    with proxy_in(cluster, folder) as proxy:
        good = proxy.config
        proxy.change({"pid_file": "/nonexistent/pid"})
        assert run(proxy, "--takeover").returncode == 1
        assert proxy.value("SELECT 1", host=folder) == 1 and lock_pid(proxy, folder) == proxy.pid
        wait_until(lambda: "has given up" in proxy.log(), 10.0, "noticed")
        proxy.config = good
        proxy.write_config()
        proxy.stop()
        assert os.listdir(folder) == []


def test_another_folder_after_a_handover(cluster, folder):
    """Also without one, and one again; what somebody has tidied away is made again."""
    other = os.path.join(folder, "other")
    os.mkdir(other)
    with proxy_in(cluster, folder) as proxy:
        proxy.change({"listen": {"unix_socket_dir": other}})
        ended(hand_over(proxy))
        wait_until(lambda: os.listdir(folder) == ["other"], 10.0, "the old files have gone")
        assert proxy.value("SELECT 1", host=other) == 1 and lock_pid(proxy, other) == proxy.pid
        os.unlink(path_of(proxy, other))
        ended(hand_over(proxy))
        assert proxy.value("SELECT 1", host=other) == 1
        wait_until(lambda: lock_pid(proxy, other) == proxy.pid, 10.0, "the lock")
        proxy.change({"listen": {"unix_socket_dir": ""}})
        ended(hand_over(proxy))
        wait_until(lambda: os.listdir(other) == [], 10.0, "the files have gone")


def test_sigterm_in_the_middle_of_a_handover(cluster, folder):
    """The old one has handed its socket over, and ends before the new one is ready: the files are left to that."""
    with proxy_in(cluster, folder) as proxy:
        before = proxy.process
        proxy.process = start_another(proxy, "--takeover")
        proxy.wait_log("a new process wants to take over")
        before.terminate()
        ended(before)
        wait_until(lambda: proxy.log().count("pgshunt is ready") == 2, 20.0, "the new one")
        assert proxy.value("SELECT 1", host=folder) == 1
        wait_until(lambda: lock_pid(proxy, folder) == proxy.pid, 10.0, "the lock")


def test_peer(cluster, folder):
    me = getpass.getuser()
    with proxy_in(cluster, folder) as proxy:
        rules = os.path.join(proxy.folder, "pg_hba.conf")
        with open(rules, "w") as hba:
            hba.write("local all all peer\nhost pgshunt all samehost trust\n")
        proxy.users.append({"name": me, "password": ""})
        proxy.change({"auth": {"method": "hba", "hba_file": "pg_hba.conf"}, "databases": [
            dict(proxy.config["databases"][0], user="postgres")]})
        assert "reloaded" in proxy.reload()[-1]
        assert proxy.value("SELECT 1", host=folder, user=me) == 1
        other = "app" if me != "app" else "postgres"
        assert f'Peer authentication failed for user "{other}"' in connect_error(proxy.dsn(host=folder, user=other))
        assert "no pg_hba.conf entry" in connect_error(proxy.dsn(user=me))


# ---- servers ----

def test_servers_over_unix_sockets(cluster, folder):
    """Queries, roles, cancel; TLS is not asked of them, whatever server_tls says."""
    nodes = [{"host": node.folder, "port": node.port} for node in cluster.shards[0].nodes]
    shards = [{"name": "s0", "dbname": "bench", "nodes": nodes}]
    with proxy_in(cluster, folder, shards=shards, server_tls={"mode": "require"}) as proxy:
        proxy.wait_nodes()
        assert {row["role"] for row in proxy.show("NODES")} == {"primary", "replica"}
        with closing(proxy.connect(autocommit=False)) as client:
            assert one(client, "SELECT inet_client_addr() IS NULL") is True
            assert {row["addr"] for row in proxy.show("SERVERS")} == {"unix"}
            client.cursor().execute("CREATE TABLE over_unix (id int)")
            client.rollback()
            caught = []

            def sleep():
                try:
                    one(client, "SELECT pg_sleep(40)")
                except psycopg2.Error as error:
                    caught.append(error.pgcode)

            thread = threading.Thread(target=sleep)
            thread.start()
            sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(40)'"
            wait_until(lambda: any(node.value(sleeping) for node in cluster.shards[0].nodes), 10.0, "the query runs")
            client.cancel()
            thread.join(20)
            assert caught == ["57014"]
            client.rollback()
            assert one(client, "SELECT 2") == 2


def test_a_servers_path_that_is_too_long(cluster, folder):
    long = "/" + "x" * 95
    shards = [{"name": "s0", "nodes": [{"host": long, "port": 5432}]}]
    proxy = Proxy(databases=[{"name": "app", "shards": shards}], start=False)
    done = run(proxy)
    assert done.returncode == 1 and f'found host = "{long}"' in done.stderr and "107 bytes" in done.stderr
    proxy.close()
