"""Online restart: a new process takes over from a running one, and no client notices. Signals, systemd, pid file."""
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager

import psycopg2
import pytest

from harness import Proxy, process, wait_until
from harness.proxy import SANITIZER_ENVIRONMENT, binary
from support import Raw, error_of, fields, one, query, startup

pytestmark = pytest.mark.core


def environment(proxy):
    return {**os.environ, **SANITIZER_ENVIRONMENT, **proxy.environment}


def start_another(proxy, *args):
    with open(proxy.log_path, "ab") as log:
        return process.start([binary(), "-c", proxy.config_path, *args], signal.SIGKILL, stdout=log, stderr=log,
                             env=environment(proxy))


def hand_over(proxy):
    """Starts a successor, which the proxy is from then on; returns the process before."""
    before, said = proxy.process, len(proxy.log())
    proxy.process = start_another(proxy, "--takeover")
    wait_until(lambda: re.search(r'msg="?taken over"?( |$)', proxy.log()[said:], re.M), 30.0, "taken over")
    return before


def ended(old):
    """The old process ends by itself, and well."""
    code = old.wait(30)
    process.forget(old)
    assert code == 0


def run(proxy, *args):
    return subprocess.run([binary(), "-c", proxy.config_path, *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=50,
                          env=environment(proxy))


@contextmanager
def restartable(cluster, **options):
    shard = [dict(shard, dbname="bench") for shard in cluster.shard_config()[:1]]
    with Proxy(cluster, databases=[{"name": "app", "shards": shard}], options=options) as proxy:
        yield proxy


def test_no_connection_fails_over_three_handovers(cluster, tmp_path):
    """8 clients that connect anew for each transaction; the number of workers changes on the way."""
    script = tmp_path / "one.sql"
    script.write_text("SELECT 1;\n")
    with restartable(cluster, restart={"patience": "10s"}) as proxy:
        bench = subprocess.Popen(
            ["/usr/lib/postgresql/15/bin/pgbench", "-n", "-C", "-c", "8", "-j", "2", "-T", "12", "-f", str(script),
             proxy.dsn()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            old = []
            for workers in (3, 1, 2):
                wait_until(lambda: int(proxy.show("STATS_TOTALS")[0]["xact_count"]) >= 0, 10.0, "an answer")
                proxy.change({"workers": workers})
                old.append(hand_over(proxy))
            said = bench.communicate(timeout=50)[0]
        finally:
            bench.kill()
        assert bench.returncode == 0, said
        assert "failed transactions: 0 (" in said and "aborted" not in said, said
        assert int(re.search(r"actually processed: (\d+)", said)[1]) > 100
        for one_of_them in old:
            ended(one_of_them)
        assert proxy.value("SELECT 1") == 1


def test_transaction_goes_on_and_idle_clients_leave_in_time(cluster):
    with restartable(cluster, restart={"patience": "1s"}) as proxy:
        with closing(proxy.connect(autocommit=False)) as busy, closing(proxy.connect()) as idle:
            busy.cursor().execute("CREATE TABLE handed_over (id int)")
            assert one(idle, "SELECT 1") == 1
            old = hand_over(proxy)
            assert one(idle, "SELECT 2") == 2, "who was there may stay, for a while"

            def sent_away():
                try:
                    return one(idle, "SELECT 3") != 3
                except psycopg2.Error as error:
                    return error.pgcode == "57P01" or idle.closed
            wait_until(sent_away, 20.0, "the idle client is sent away")
            assert old.poll() is None, "a transaction keeps it"
            busy.cursor().execute("INSERT INTO handed_over VALUES (1)")
            busy.commit()
            ended(old)
            assert proxy.value("SELECT count(*) FROM handed_over") == 1
            proxy.sql("DROP TABLE handed_over")


def test_cancel_reaches_clients_of_processes_before(cluster):
    """Two handovers on: each process keeps its client."""
    with restartable(cluster) as proxy:
        clients, old = [proxy.connect()], []
        for _ in range(2):
            assert one(clients[-1], "SELECT 1") == 1
            old.append(hand_over(proxy))
            clients.append(proxy.connect())
        for client in clients:
            caught = []

            def sleep(on=client, into=caught):
                try:
                    one(on, "SELECT pg_sleep(40)")
                except psycopg2.Error as error:
                    into.append(error.pgcode)

            thread = threading.Thread(target=sleep)
            thread.start()
            sleeping = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(40)'"
            wait_until(lambda: cluster.shards[0].primary.value(sleeping) == 1 or
                       cluster.shards[0].replicas[0].value(sleeping) == 1, 10.0, "the query runs")
            client.cancel()
            thread.join(20)
            assert caught == ["57014"]
        for client in clients:
            client.close()
        for one_of_them in old:
            ended(one_of_them)


def thread_states(pid):
    """Their letters in /proc."""
    states = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat") as file:
            states.add(file.read().rsplit(")", 1)[1].split()[0])
    return states


def test_clients_who_wait_when_the_new_process_begins(cluster):
    """It serves them in the first turns of its loops, while the old one does nothing."""
    with restartable(cluster) as proxy:
        old = proxy.process
        proxy.process = start_another(proxy, "--takeover")
        proxy.wait_log('msg="taking over"')
        old.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: thread_states(old.pid) == {"T"}, 10.0, "every thread stopped")  # until then it accepts
            with ExitStack() as stack:
                waiting = [stack.enter_context(Raw(proxy, login=False)) for _ in range(12)]
                for client in waiting:
                    client.send(startup())
                for client in waiting:
                    assert client.read() == ("R", b"\0\0\0\0")
        finally:
            old.send_signal(signal.SIGCONT)
        ended(old)


def test_clients_wait_while_descriptors_are_short(cluster):
    """No loop runs hot meanwhile, which shows in the log; when there is room again they are served."""
    with restartable(cluster) as proxy:
        used = len(os.listdir(f"/proc/{proxy.pid}/fd"))
        before = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (used + 6, before[1]))
        try:
            began = time.monotonic()
            with ExitStack() as stack:
                crowd = [stack.enter_context(Raw(proxy, login=False)) for _ in range(20)]
                proxy.wait_log("cannot accept clients, who wait")
                time.sleep(0.5)
                said = proxy.log().count("cannot accept clients, who wait")
                assert said <= time.monotonic() - began + 1
                resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (used + 100, before[1]))
                for client in crowd:
                    client.send(startup())
                for client in crowd:
                    assert client.read() == ("R", b"\0\0\0\0")
        finally:
            resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, before)


def test_second_start_is_refused(cluster):
    with restartable(cluster) as proxy:
        done = run(proxy)
        assert done.returncode == 1
        assert f"another pgshunt (pid {proxy.pid}) listens on 127.0.0.1:{proxy.port}" in done.stderr
        assert "--takeover" in done.stderr
        old = hand_over(proxy)
        ended(old)
        assert f"(pid {proxy.pid})" in run(proxy).stderr, "the name has gone over with the port"


def test_several_processes_on_one_port_where_the_socket_is_off(cluster):
    with restartable(cluster, restart={"socket": "off"}, http={"port": 0}) as proxy:
        second = start_another(proxy)
        try:
            wait_until(lambda: proxy.log().count("pgshunt is ready") == 2, 20.0, "the second")
            assert proxy.value("SELECT 1") == 1
        finally:
            second.terminate()
            ended(second)
        done = run(proxy, "--takeover")
        assert done.returncode == 1 and "restart.socket" in done.stderr


@pytest.mark.parametrize("change", [{"pool": {"size": "many"}}, {"http": {"address": "192.0.2.1"}},
                                    {"pid_file": "/nonexistent/pid"}])
def test_a_new_process_that_fails_changes_nothing(cluster, change):
    with restartable(cluster) as proxy:
        with closing(proxy.connect()) as client:
            assert one(client, "SELECT 1") == 1
            good = proxy.config
            proxy.change(change)
            assert run(proxy, "--takeover").returncode == 1
            done = run(proxy, "--restart") if "pool" not in change else None
            assert done is None or done.returncode == 1 and "its log says why" in done.stderr, done
            proxy.config = good
            proxy.write_config()
            assert one(client, "SELECT 1") == 1
            assert proxy.value("SELECT 1") == 1
            ended(hand_over_after(proxy, client))


def hand_over_after(proxy, client):
    old = hand_over(proxy)
    client.close()
    return old


def test_takeover_of_nobody_is_a_start(cluster):
    with restartable(cluster) as proxy:
        proxy.stop()
        proxy.process = start_another(proxy, "--takeover")
        wait_until(lambda: proxy.log().count("pgshunt is ready") == 2, 20.0, "the start")
        assert proxy.value("SELECT 1") == 1
        assert "no running pgshunt to take over from" in proxy.log()


def test_sigterm_after_a_handover(cluster):
    """The old process can be told to hurry; the new one does not care."""
    with restartable(cluster) as proxy, closing(proxy.connect()) as idle:
        assert one(idle, "SELECT 1") == 1
        old = hand_over(proxy)
        old.terminate()
        ended(old)
        assert proxy.value("SELECT 1") == 1


def test_metrics_go_over(cluster):
    import urllib.request
    with restartable(cluster) as proxy:
        url = f"http://127.0.0.1:{proxy.http_port}/readyz"
        wait_until(lambda: reads(urllib.request, url), 10.0, "ready")
        ended(hand_over(proxy))
        wait_until(lambda: reads(urllib.request, url), 10.0, "ready again")


def test_several_addresses_for_http_go_over(cluster):
    import urllib.request
    with restartable(cluster, http={"address": "127.0.0.1, 127.0.0.2,127.0.0.1"}) as proxy:
        urls = [f"http://127.0.0.{number}:{proxy.http_port}/readyz" for number in (1, 2)]
        for _ in range(2):
            for url in urls:
                wait_until(lambda url=url: reads(urllib.request, url), 10.0, "ready")
            ended(hand_over(proxy))
        assert not reads(urllib.request, urls[0].replace("127.0.0.1", "127.0.0.3"))


@pytest.mark.parametrize("addresses,error", [("127.0.0.1,,127.0.0.2", "nothing between its commas"),
                                             ("nowhere.invalid", "of http.address: "),
                                             (",".join(f"127.0.0.{i}" for i in range(1, 10)), "more than 8 addresses")])
def test_addresses_for_http_that_are_none(cluster, addresses, error):
    with pytest.raises(Exception) as caught, restartable(cluster, http={"address": addresses}):
        pass
    assert error in str(caught.value)


def reads(request, url):
    try:
        return request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


class Supervisor:
    """systemd's end of $NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(20)

    def hear(self):
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))


@pytest.fixture()
def short_folder():
    """A socket's path may have 107 bytes: pytest's own folders are too deep."""
    with tempfile.TemporaryDirectory(prefix="pgshunt-", dir="/tmp") as folder:
        yield folder


def test_what_systemd_is_told_and_the_pid_file(cluster, short_folder):
    supervisor = Supervisor(os.path.join(short_folder, "notify"))
    shard = [dict(shard, dbname="bench") for shard in cluster.shard_config()[:1]]
    with Proxy(cluster, databases=[{"name": "app", "shards": shard}], options={"pid_file": "the.pid"},
               environment={"NOTIFY_SOCKET": supervisor.path}) as proxy:
        pid_file = os.path.join(proxy.folder, "the.pid")
        assert supervisor.hear()["READY"] == "1"
        assert open(pid_file).read() == f"{proxy.pid}\n"
        proxy.reload()
        said = supervisor.hear()
        assert said["RELOADING"] == "1" and int(said["MONOTONIC_USEC"]) > 0
        assert supervisor.hear()["READY"] == "1"

        old, first = proxy.process, proxy.pid
        done = run(proxy, "--restart")
        assert done.returncode == 0, done.stderr
        pid = int(re.search(r"pid (\d+) has taken over", done.stdout)[1])
        try:
            assert pid != first and int(supervisor.hear()["MAINPID"]) == pid
            assert supervisor.hear()["READY"] == "1"
            assert open(pid_file).read() == f"{pid}\n"
            ended(old)
            assert open(pid_file).read() == f"{pid}\n", "the old one leaves the new one's file"
            assert proxy.value("SELECT 1") == 1
        finally:
            os.kill(pid, signal.SIGTERM)
            proxy.process = None
        assert supervisor.hear()["STOPPING"] == "1"
        wait_until(lambda: not os.path.exists(pid_file), 20.0, "the file is gone")
        wait_until(lambda: not process.alive(pid), 20.0, "the new one has ended")
        proxy.check_log()


def test_sigint_disconnects_and_rolls_back(cluster):
    with restartable(cluster) as proxy:
        with Raw(proxy) as busy, Raw(proxy) as idle:
            assert error_of(busy.ask(query("BEGIN; CREATE TABLE rolled_back (id int)"))) is None
            proxy.send_signal(signal.SIGINT)
            assert proxy.wait(10) == 0
            for client in (busy, idle):
                kind, body = client.read()
                assert kind == "E" and fields(body)["C"] == "57P01"
                assert client.at_end()
        proxy.check_log()
        proxy.process = None
        with closing(cluster.shards[0].primary.connect("bench")) as direct:
            exists = "SELECT count(*) FROM pg_class WHERE relname = 'rolled_back'"
            wait_until(lambda: one(direct, exists) == 0, 10.0, "rolled back")
