"""The group `tcp`, read off the proxy's own sockets; several listening addresses."""
import ctypes
import os
import socket
from contextlib import closing, contextmanager

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import one
from test_restart import ended, hand_over, run

PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@contextmanager
def descriptor_of(pid, fd):
    """A duplicate of another process' descriptor, as a socket; None: it is no socket, or gone."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = libc.syscall(PIDFD_GETFD, pidfd, fd, 0)
        assert copy >= 0 or ctypes.get_errno() in (9, 3), os.strerror(ctypes.get_errno())
    finally:
        os.close(pidfd)
    if copy < 0:
        yield None
        return
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        yield None
        return
    with found:
        yield found


def options(pid, peer, own=None):
    """TCP options of the process' connection to this peer (from this end); None: there is none."""
    for fd in map(int, os.listdir(f"/proc/{pid}/fd")):
        with descriptor_of(pid, fd) as found:
            try:
                if found is None or found.getpeername()[:2] != peer or own and found.getsockname()[:2] != own:
                    continue
            except OSError:
                continue
            names = {"nodelay": socket.TCP_NODELAY, "idle": socket.TCP_KEEPIDLE, "interval": socket.TCP_KEEPINTVL,
                     "count": socket.TCP_KEEPCNT, "user_timeout": socket.TCP_USER_TIMEOUT}
            values = {name: found.getsockopt(socket.IPPROTO_TCP, option) for name, option in names.items()}
            values["keepalive"] = found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return values
    return None


def client_options(proxy, host=None):
    with socket.create_connection((host or proxy.host, proxy.port), 5) as client:
        return wait_until(lambda: options(proxy.pid, client.getsockname()[:2]), 10.0, "the accepted socket")


def server_options(proxy):
    """Of the server connection that a transaction has."""
    with closing(proxy.connect(autocommit=False)) as client:
        server_end = (one(client, "SELECT host(inet_server_addr())"), one(client, "SELECT inet_server_port()"))
        return options(proxy.pid, server_end, ("127.0.0.1", one(client, "SELECT inet_client_port()")))


def system_values():
    with socket.socket() as untouched:
        return {name: untouched.getsockopt(socket.IPPROTO_TCP, option) for name, option in
                {"idle": socket.TCP_KEEPIDLE, "interval": socket.TCP_KEEPINTVL, "count": socket.TCP_KEEPCNT}.items()}


@contextmanager
def proxy_on(cluster, **settings):
    shard = [dict(shard, dbname="bench") for shard in cluster.shard_config()[:1]]
    with Proxy(cluster, databases=[{"name": "app", "shards": shard}], options=settings) as proxy:
        yield proxy


def test_clients_and_servers_get_the_options_also_after_reload_and_takeover(cluster):
    with proxy_on(cluster) as proxy:
        found = client_options(proxy)
        assert found == {"nodelay": 1, "keepalive": 1, "user_timeout": 0, **system_values()}
        assert server_options(proxy)["keepalive"] == 1

        proxy.change({"tcp": {"keepalive_idle": "45s", "keepalive_interval": "7s", "keepalive_count": 4,
                              "user_timeout": "25s"}})
        proxy.reload()
        wanted = {"nodelay": 1, "keepalive": 1, "idle": 45, "interval": 7, "count": 4, "user_timeout": 25000}
        assert client_options(proxy) == wanted
        proxy.sql("RECONNECT", dbname="pgshunt")
        assert server_options(proxy) == wanted

        proxy.change({"tcp": {"keepalive_idle": "46s"}, "workers": 3})
        ended(hand_over(proxy))
        for _ in range(4):  # on inherited sockets, by workers of which some share one
            assert client_options(proxy) == {**wanted, "idle": 46}

        proxy.change({"tcp": {"keepalive": False, "keepalive_idle": "0s", "keepalive_interval": "0s",
                              "keepalive_count": 0, "user_timeout": "0s"}})
        proxy.reload()
        assert client_options(proxy) == {"nodelay": 1, "keepalive": 0, "user_timeout": 0, **system_values()}


@needs_ipv6
def test_two_addresses_stay_over_a_restart(cluster):
    """Each of the workers has a socket at each of them; another process' are kept."""
    with proxy_on(cluster, listen={"address": "127.0.0.1, ::1"}) as proxy:
        for address in ("127.0.0.1", "::1"):
            assert proxy.value("SELECT 1", host=address) == 1
        with closing(proxy.connect(host="::1")) as six:
            assert one(six, "SELECT 1") == 1
            assert "::1" in {row["addr"] for row in proxy.show("CLIENTS")}
        ended(hand_over(proxy))
        assert "sockets=4" in proxy.log()
        for address in ("127.0.0.1", "::1"):
            assert proxy.value("SELECT 2", host=address) == 2


@needs_ipv6
def test_every_address(cluster):
    with proxy_on(cluster, listen={"address": "*"}) as proxy:
        for address in ("127.0.0.1", "127.0.0.7", "::1", "localhost"):
            assert proxy.value("SELECT 1", host=address) == 1


def test_another_address_after_a_restart(cluster):
    """Where the processes find each other by name, what is no longer wanted is given up, and what is new opened."""
    name = {"socket": f"pgshunt-test-{os.getpid()}"}
    with proxy_on(cluster, listen={"address": "127.0.0.1, 127.0.0.2"}, restart=name) as proxy:
        proxy.change({"listen": {"address": "127.0.0.1, 127.0.0.3"}})
        ended(hand_over(proxy))
        for address in ("127.0.0.1", "127.0.0.3"):
            assert proxy.value("SELECT 1", host=address) == 1
        try:
            proxy.connect(host="127.0.0.2").close()
            raise AssertionError("127.0.0.2 is still listened at")
        except psycopg2.OperationalError as error:
            assert "refused" in str(error)


def test_an_address_that_is_not_ours(cluster):
    with proxy_on(cluster) as proxy:
        proxy.stop()
        for address, problem in (("127.0.0.1, 192.0.2.1", "cannot listen on 192.0.2.1:"),
                                 ("127.0.0.1,,::1", "has nothing between its commas"),
                                 ("127.0.0.1, no.such.name.invalid", "cannot resolve")):
            proxy.change({"listen": {"address": address}})
            done = run(proxy)
            assert done.returncode == 1 and problem in done.stderr, done.stderr
