"""Command line, configuration errors, reload, graceful and immediate end."""
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, wait_until
from harness.proxy import binary
from support import one

pytestmark = pytest.mark.core


def run(*args):
    return subprocess.run([binary(), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=30)


def test_help_and_version():
    done = run("--help")
    assert done.returncode == 0 and "--check-config" in done.stdout and "SIGHUP" in done.stdout
    done = run("--version")
    assert done.returncode == 0 and re.search(r"pgshunt \d+\.\d+", done.stdout)
    done = run("--help-config")
    assert done.returncode == 0 and "pool.size" in done.stdout and "routing.max_lag" in done.stdout


def test_wrong_command_line():
    done = run("--no-such-option")
    assert done.returncode == 2 and "--help" in done.stderr


def test_missing_file():
    done = run("-c", "/nonexistent/pgshunt.conf")
    assert done.returncode == 1 and "/nonexistent/pgshunt.conf" in done.stderr


def test_check_config(cluster):
    with Proxy(cluster, start=False) as proxy:
        done = run("-c", proxy.config_path, "--check-config")
        assert done.returncode == 0 and "ok" in done.stdout


BAD = [
    ('listen = { port = "many"; };', 1, ["listen.port", "many"]),
    ("listen = { port = 70000; };", 1, ["70000", "65535"]),
    ("workers = 2;\npool = { size = 20; colour = 3; };", 2, ["colour"]),
    ("nonsense = 1;", 1, ["nonsense"]),
    ('routing = { max_lag = "1 fortnight"; };', 1, ["max_lag", "fortnight"]),
    ('workers = 1;\n\nauth = { method = "magic"; };', 3, ["magic", "scram-sha-256"]),
    ("workers = ;", 1, []),
    ("workers = 1;", None, ["databases"]),
]


@pytest.mark.parametrize("text, line, words", BAD)
def test_bad_configuration_is_explained(tmp_path, text, line, words):
    """File and line, what was found, what is allowed; and the daemon does not start."""
    path = tmp_path / "bad.conf"
    path.write_text(text + "\n")
    for args in (["--check-config"], []):
        done = run("-c", str(path), *args)
        assert done.returncode == 1
        assert str(path) in done.stderr
        if line is not None:
            assert f"bad.conf:{line}" in done.stderr
        for word in words:
            assert word in done.stderr


def test_missing_users_file(tmp_path):
    path = tmp_path / "pgshunt.conf"
    path.write_text('auth = { users_file = "not-there.conf"; };\n'
                    'databases = ( { name = "a"; shards = ( { name = "s0"; nodes = ( { host = "h"; } ); } ); } );\n')
    done = run("-c", str(path), "--check-config")
    assert done.returncode == 1 and "not-there.conf" in done.stderr


def test_port_in_use(cluster, proxy):
    with Proxy(cluster, start=False) as second:
        second.config["listen"]["address"] = "127.0.0.1"
        second.config["http"]["port"] = proxy.http_port
        second.write_config()
        done = run("-c", second.config_path)
        assert done.returncode != 0 and str(proxy.http_port) in done.stderr


def test_reload_takes_a_new_database_and_limit(cluster):
    with Proxy(cluster) as proxy:
        with closing(proxy.connect()) as connection:
            assert one(connection, "SELECT 1") == 1
            more = {"name": "more", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}
            proxy.change({"databases": proxy.config["databases"] + [more], "pool": {"size": 7}})
            proxy.reload()
            wait_until(lambda: works(proxy, "more"), 10.0, "new database")
            values = {row["key"]: row["value"] for row in proxy.show("CONFIG")}
            assert values["pool.size"] == "7"
            assert one(connection, "SELECT 2") == 2, "a client from before the reload goes on"


def works(proxy, dbname):
    try:
        return proxy.value("SELECT 1", dbname=dbname) == 1
    except psycopg2.Error:
        return False


def test_bad_reload_keeps_the_old_configuration(cluster):
    with Proxy(cluster) as proxy:
        with open(proxy.config_path) as file:
            good = file.read()
        proxy.write_config(good.replace("workers = 2;", "workers = 2;\nsise = 1;"))
        said = "\n".join(proxy.reload())
        assert "sise" in said or re.search("sise", proxy.log())
        assert proxy.value("SELECT 1") == 1
        proxy.write_config()
        proxy.reload()
        assert proxy.value("SELECT 1") == 1


def test_reload_of_a_removed_database_lets_no_new_client_in(cluster):
    extra = {"name": "plain", "shards": [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]}
    app = {"name": "app", "shards": cluster.shard_config()}
    with Proxy(cluster, databases=[app, extra]) as proxy:
        assert works(proxy, "plain")
        proxy.change({"databases": [app]})
        proxy.reload()
        wait_until(lambda: not works(proxy, "plain"), 10.0, "database gone")
        assert works(proxy, "app")


def test_reload_storm(cluster):
    with Proxy(cluster) as proxy:
        for _ in range(15):
            proxy.send_signal(signal.SIGHUP)
            assert proxy.value("SELECT 1") == 1


def test_sigterm_lets_a_transaction_finish(cluster):
    with Proxy(cluster, options={"shutdown_timeout": "20s"}) as proxy:
        connection = proxy.connect()
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("CREATE TABLE finishing (id int)")
        idle = proxy.connect()
        proxy.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert proxy.running(), "waits for the transaction"
        with pytest.raises(psycopg2.OperationalError):
            proxy.connect()
        with pytest.raises(psycopg2.Error):
            idle.cursor().execute("SELECT 1")
        cursor.execute("DROP TABLE finishing")
        cursor.execute("COMMIT")
        assert proxy.wait(10) == 0
        proxy.check_log()
        proxy.process = None
        with pytest.raises(psycopg2.Error):
            cursor.execute("SELECT 1")
        connection.close()


def test_sigterm_gives_up_after_the_limit(cluster):
    with Proxy(cluster, options={"shutdown_timeout": "1s"}) as proxy:
        connection = proxy.connect()
        connection.cursor().execute("BEGIN")
        one(connection, "SELECT 1")
        began = time.monotonic()
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(10) == 0
        assert 0.8 <= time.monotonic() - began < 6
        proxy.process = None


def test_sigquit_ends_at_once(cluster):
    with Proxy(cluster) as proxy:
        connection = proxy.connect()
        connection.cursor().execute("BEGIN")
        one(connection, "SELECT 1")
        began = time.monotonic()
        proxy.send_signal(signal.SIGQUIT)
        proxy.wait(5)
        assert time.monotonic() - began < 3
        proxy.check_log()
        proxy.process = None


def test_sigterm_with_a_running_query(cluster):
    with Proxy(cluster, options={"shutdown_timeout": "20s"}) as proxy:
        result = []

        def work():
            result.append(proxy.value("SELECT 42 FROM pg_sleep(1)"))

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.3)
        proxy.send_signal(signal.SIGTERM)
        thread.join()
        assert result == [42]
        assert proxy.wait(10) == 0
        proxy.process = None


def test_restart_on_the_same_port(cluster):
    with Proxy(cluster) as proxy:
        for _ in range(2):
            with closing(proxy.connect()) as connection:
                one(connection, "SELECT 1")
            proxy.stop()
            proxy.start()
        assert proxy.value("SELECT 1") == 1


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_log_format(cluster, form):
    import json
    with Proxy(cluster, options={"log": {"format": form}}) as proxy:
        proxy.value("SELECT 1")
        lines = [line for line in proxy.log().splitlines() if line]
        assert lines
        for line in lines:
            if form == "json":
                assert {"time", "level", "msg"} <= set(json.loads(line))
            else:
                assert re.match(r"time=\S+ level=\w+ .*msg=", line), line


def test_no_descriptor_is_lost(cluster):
    """Connections come and go; the process holds as many descriptors after as before."""
    with Proxy(cluster) as proxy:
        def descriptors():
            return len(os.listdir(f"/proc/{proxy.pid}/fd"))

        for _ in range(5):
            proxy.value("SELECT 1")
        before = descriptors()
        for _ in range(100):
            proxy.value("SELECT 1")
        wait_until(lambda: descriptors() <= before + 6, 5.0, "descriptors given back")
