"""TLS with servers: modes, host names, certificates, channel binding, cancel, resumption, servers that lie."""
import io
import os
import socket
import threading
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until
from support import connect_error, one
from test_tls_client import read_metrics
from tls_support import SSL_REQUEST, Authority, for_server

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
SECRET = "p4ss, wörd"


@pytest.fixture(scope="module")
def authority():
    return Authority("servers")


@pytest.fixture(scope="module")
def ssl_settings(authority):
    pair = authority.issue("localhost", ["DNS:localhost", "IP:127.0.0.1"], name="server", rsa=True)
    certificate, key = for_server(*pair)
    ca, _ = for_server(authority.certificate, authority.key)
    return {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key, "ssl_ca_file": ca}


@pytest.fixture(scope="module")
def encrypted(ssl_settings):
    """Servers with TLS that want SCRAM."""
    with Cluster(shards=2, replicas=0, auth="scram-sha-256", settings=ssl_settings) as cluster:
        cluster.create_role("app", SECRET)
        cluster.create_role("bare")
        yield cluster


USERS = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": SECRET}]


def server_tls(mode, **more):
    return {"server_tls": {"mode": mode, **more}}


def renamed(cluster, host):
    shards = cluster.shard_config()
    for shard in shards:
        for node in shard["nodes"]:
            node["host"] = host
    return [{"name": "app", "shards": shards}]


# ---- modes ----

@pytest.mark.core
@pytest.mark.parametrize("mode, host", [("disable", "localhost"), ("prefer", "127.0.0.1"), ("verify-ca", "localhost"),
                                        ("verify-full", "localhost"), ("verify-full", "127.0.0.1")])
def test_modes(encrypted, authority, mode, host):
    options = server_tls(mode, ca_file=authority.certificate)
    with Proxy(encrypted, databases=renamed(encrypted, host), options=options, users=USERS) as proxy:
        proxy.wait_nodes()
        assert proxy.value(ENCRYPTED, user="app") == (mode != "disable")
        rows = proxy.show("SERVERS")
        assert rows and all(row["tls"].startswith("TLSv1.3/") == (mode != "disable") for row in rows)
        # the connections that libpq makes for us
        for node in encrypted.primaries:
            assert node.value("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                              "WHERE application_name LIKE 'pgshunt%'") == (mode != "disable")


def test_one_shard_may_differ(encrypted, authority):
    shards = encrypted.shard_config()
    shards[1]["server_tls"] = {"mode": "verify-full", "ca_file": authority.certificate}
    with Proxy(encrypted, databases=[{"name": "one", "shards": shards[:1]}, {"name": "two", "shards": shards[1:]}],
               users=USERS) as proxy:
        assert proxy.value(ENCRYPTED, dbname="one", user="app") is False
        assert proxy.value(ENCRYPTED, dbname="two", user="app") is True


def test_certificate_of_another_host(encrypted, authority):
    """While the certificate is exchanged the monitor stays connected: it is the worker that is asked."""
    node = encrypted.shards[0].primary
    database = renamed(encrypted, "localhost")
    database[0]["shards"] = database[0]["shards"][:1]
    with Proxy(encrypted, databases=database, options={**server_tls("verify-full", ca_file=authority.certificate),
                                                       "pool": {"login_retry": "50ms"}}, users=USERS) as proxy:
        proxy.wait_nodes()
        ours = node.value("SHOW ssl_cert_file"), node.value("SHOW ssl_key_file")
        other = for_server(*authority.issue("elsewhere", ["DNS:elsewhere"]))
        try:
            node.set("ssl_key_file", other[1])
            node.set("ssl_cert_file", other[0])
            wait_until(lambda: "hostname mismatch" in connect_error_or_none(proxy), 20.0, "the other certificate")
            assert read_metrics(proxy)['tls_handshake_failures_total{side="server"}'] >= 1
            proxy.change(server_tls("verify-ca", ca_file=authority.certificate))
            proxy.reload()
            wait_until(lambda: connects(proxy), 20.0, "a login without the name")
        finally:
            node.set("ssl_cert_file", ours[0])
            node.set("ssl_key_file", ours[1])


def connect_error_or_none(proxy):
    try:
        proxy.value("SELECT 1", user="app")
        return ""
    except psycopg2.Error as error:
        return str(error)


def test_unknown_authority(encrypted):
    options = server_tls("verify-ca", ca_file=Authority("stranger").certificate)
    with Proxy(encrypted, options=options, users=USERS) as proxy:
        assert connect_error(proxy.dsn(user="app"))
        proxy.wait_log("certificate verify failed")


def test_prefer_goes_without(cluster):
    with Proxy(cluster, options=server_tls("prefer")) as proxy:
        proxy.wait_nodes()
        assert proxy.value(ENCRYPTED) is False


def test_prefer_goes_without_after_a_failed_handshake(encrypted):
    node = encrypted.shards[0].primary
    databases = [{"name": "app", "shards": encrypted.shard_config()[:1]}]
    node.set("ssl_min_protocol_version", "TLSv1.3")
    try:
        with Proxy(encrypted, databases=databases, options=server_tls("prefer", max_version="1.2"),
                   users=USERS) as proxy:
            proxy.wait_nodes()
            for _ in range(2):
                assert proxy.value(ENCRYPTED, user="app") is False
            proxy.wait_log("going on without TLS")
            with closing(proxy.connect(user="app")) as listener:
                listener.cursor().execute("LISTEN plainly")
    finally:
        node.set("ssl_min_protocol_version", "TLSv1.2")


def test_require_does_not(cluster):
    with Proxy(cluster, options=server_tls("require")) as proxy:
        assert connect_error(proxy.dsn())
        proxy.wait_log("does not support SSL")


@pytest.mark.parametrize("only", ["1.2", "1.3"])
def test_versions(encrypted, only):
    with Proxy(encrypted, options=server_tls("require", min_version=only, max_version=only), users=USERS) as proxy:
        assert proxy.value("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
                           user="app") == "TLSv" + only


# ---- logging in ----

@pytest.mark.core
def test_channel_binding_required(encrypted):
    """The proxy insists on SCRAM-SHA-256-PLUS: it works, and where the server has none, it does not."""
    options = server_tls("require", channel_binding="require")
    monitor = {"monitor": {"user": "app", "password": SECRET}}
    users = USERS + [{"name": "bare", "password": ""}]
    with Proxy(encrypted, options={**options, **monitor}, users=users) as proxy:
        assert proxy.value(ENCRYPTED, user="app") is True
        text = connect_error(proxy.dsn(user="postgres"))  # let in by trust
        assert "channel_binding is required" in text


def test_channel_binding_with_proven_keys(encrypted, ssl_settings):
    """SCRAM pass-through: no password is known, and the exchange is still bound to its connection."""
    secret = encrypted.shards[0].primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    monitor = {"monitor": {"user": "app", "password": SECRET}}
    options = {**server_tls("require", channel_binding="require"), **monitor,
               "auth": {"method": "scram-sha-256"}}
    database = [{"name": "app", "shards": encrypted.shard_config()[:1]}]
    with Proxy(encrypted, databases=database, options=options, users=[{"name": "app", "password": secret}]) as proxy:
        assert proxy.value(ENCRYPTED, user="app", password=SECRET) is True


def test_certificate_for_the_server(encrypted, authority):
    """A server that lets its user in by certificate alone."""
    certificate, key = authority.issue("certified")
    for node in encrypted.primaries:
        node.sql("CREATE ROLE certified LOGIN")
        with open(os.path.join(node.data, "pg_hba.conf"), "r+") as hba:
            rest = hba.read()
            hba.seek(0)
            hba.write("hostssl all certified 127.0.0.1/32 cert\n" + rest)
        node.set("log_disconnections", "off")
    users = USERS + [{"name": "certified", "password": ""}]
    with Proxy(encrypted, options=server_tls("require"), users=users) as proxy:
        assert "certificate" in connect_error(proxy.dsn(user="certified"))
        proxy.change(server_tls("require", cert_file=certificate, key_file=key))
        assert any("reloaded" in line for line in proxy.reload())

        def works():
            try:
                return proxy.value("SELECT current_user::text", user="certified") == "certified"
            except psycopg2.Error:
                return False
        wait_until(works, 20.0, "a login with the new certificate")


# ---- traffic ----

@pytest.mark.core
def test_big_results_and_copy_on_both_sides(encrypted, authority):
    pair = authority.issue("proxy")
    options = {**server_tls("require"), "pool": {"size": 2},
               "client_tls": {"mode": "require", "cert_file": pair[0], "key_file": pair[1]}}
    with Proxy(encrypted, options=options, users=USERS) as proxy:
        with closing(proxy.connect(user="postgres", sslmode="require")) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT repeat('x', 5000000)")
            assert cursor.fetchone()[0] == "x" * 5000000
            cursor.execute("CREATE TABLE both_sides (id int, body text)")
            source = "".join(f"{number}\t{'z' * (number % 300)}\n" for number in range(30000))
            cursor.copy_expert("COPY both_sides FROM STDIN", io.StringIO(source))
            target = io.StringIO()
            cursor.copy_expert("COPY both_sides TO STDOUT", target)
            assert sorted(target.getvalue().splitlines()) == sorted(source.splitlines())
            cursor.execute("DROP TABLE both_sides")
        with closing(proxy.connect3(user="app", sslmode="require")) as connection:
            with connection.pipeline():
                cursors = [connection.execute("SELECT repeat(%s, 10000)", (str(number % 10),))
                           for number in range(200)]
            assert [cursor.fetchone()[0][0] for cursor in cursors] == [str(number % 10) for number in range(200)]


def test_servers_move_between_workers_with_their_tls(encrypted):
    """One server connection for all: the workers hand it to each other."""
    with Proxy(encrypted, options={**server_tls("require"), "pool": {"size": 1}}, users=USERS) as proxy:
        connections = [proxy.connect(user="app") for _ in range(8)]
        for _ in range(5):
            assert all(one(connection, ENCRYPTED) for connection in connections)
        for connection in connections:
            connection.close()


class Tap:
    """Passes connections on to a server and remembers how each began."""

    def __init__(self, port):
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.begins = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.connected, args=(client,), daemon=True).start()

    def connected(self, client):
        server = socket.create_connection(("127.0.0.1", self.port))
        begin = bytearray()
        self.begins.append(begin)
        for a, b, note in ((client, server, begin), (server, client, None)):
            threading.Thread(target=self.copy, args=(a, b, note), daemon=True).start()

    @staticmethod
    def copy(source, target, note):
        try:
            while data := source.recv(65536):
                if note is not None and len(note) < 16:
                    note += data[:16]
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()


@pytest.mark.core
def test_cancel_goes_over_tls(encrypted):
    with closing(Tap(encrypted.shards[0].primary.port)) as tap:
        node = {"host": "127.0.0.1", "port": tap.listener.getsockname()[1]}
        databases = [{"name": "app", "shards": [{"name": "s0", "dbname": "app", "nodes": [node]}]}]
        with Proxy(encrypted, databases=databases, options=server_tls("require"), users=USERS) as proxy:
            with closing(proxy.connect(user="app")) as connection:
                timer = threading.Timer(0.5, connection.cancel)
                timer.start()
                with pytest.raises(psycopg2.errors.QueryCanceled):
                    connection.cursor().execute("SELECT pg_sleep(60)")
                timer.join()
                assert one(connection, ENCRYPTED) is True
        assert len(tap.begins) >= 3  # monitor, session, cancel
        for begin in tap.begins:  # one may have been begun right before the end
            assert begin and (SSL_REQUEST + b"\x16").startswith(bytes(begin[:9])), begin
        assert sum(len(begin) >= 9 for begin in tap.begins) >= 3


def test_sessions_are_resumed(encrypted, authority):
    """Postgres gives no session tickets; a pgshunt behind a pgshunt does."""
    pair = authority.issue("inner")
    inner_options = {"client_tls": {"mode": "require", "cert_file": pair[0], "key_file": pair[1]}}
    shard = [{"name": "app", "shards": encrypted.shard_config()[:1]}]
    with Proxy(encrypted, databases=shard, options=inner_options, users=USERS) as inner:
        inner.wait_log("pgshunt is ready")
        node = {"host": "127.0.0.1", "port": inner.port}
        outer_databases = [{"name": "app", "shards": [{"name": "s0", "dbname": "app", "nodes": [node]}]}]
        outer_options = {**server_tls("require"), "pool": {"size": 5}, "workers": 1}
        with Proxy(databases=outer_databases, options=outer_options, users=USERS) as outer:
            wait_until(lambda: connects(outer), 20.0, "the outer pgshunt to know its server")
            connections = [outer.connect(user="app") for _ in range(4)]
            for connection in connections:
                connection.autocommit = False
                assert one(connection, "SELECT 1") == 1
            metrics = read_metrics(outer)
            assert metrics['tls_handshakes_total{side="server"}'] >= 4
            assert metrics['tls_resumptions_total{side="server"}'] >= 1
            for connection in connections:
                connection.close()


def connects(proxy):
    try:
        return proxy.value("SELECT 1", user="app") == 1
    except psycopg2.Error:
        return False


# ---- servers that lie ----

OK = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"


class Liar(Tap):
    """A tap that can be told what to answer an SSLRequest (`answer`) and a ClientHello (`hello`) with."""
    answer = hello = None

    def __init__(self, port):
        self.heard = []
        super().__init__(port)

    def connected(self, client):
        if self.answer is None:
            super().connected(client)
            return
        try:
            client.settimeout(20)
            assert client.recv(8) == SSL_REQUEST
            client.sendall(self.answer)
            if self.answer:
                self.heard.append(client.recv(65536))
            if self.hello is not None:
                client.sendall(self.hello)
                client.recv(65536)
        except OSError:
            pass
        client.close()


@pytest.mark.core
def test_servers_that_lie(encrypted):
    """The monitor is connected before; every new connection of a worker meets the liar."""
    with closing(Liar(encrypted.shards[0].primary.port)) as liar:
        node = {"host": "127.0.0.1", "port": liar.listener.getsockname()[1]}
        databases = [{"name": "app", "shards": [{"name": "s0", "dbname": "app", "nodes": [node]}]}]
        options = {**server_tls("require"), "pool": {"login_retry": "50ms", "server_lifetime": "0s"}}
        with Proxy(databases=databases, options=options, users=USERS) as proxy:
            proxy.wait_nodes()

            def meets(answer, words, hello=None):
                liar.answer, liar.hello = answer, hello
                wait_until(lambda: words in connect_error_or_none(proxy), 20.0, words)

            meets(b"N", "does not offer TLS")
            meets(b"S" + OK, "unencrypted data behind")
            meets(b"E\0\0\0\x20SFATAL\0C28000\0Mbelieve me\0\0", "something else than yes or no")
            meets(b"", "closed the connection when it was asked for TLS")
            meets(b"S", "closed during the TLS handshake")
            meets(b"S", "handshake failure", hello=b"\x15\x03\x03\x00\x02\x02\x28")
            meets(b"S", "wrong version number", hello=b"HTTP/1.1 400 Bad Request\r\n\r\n")
            meets(b"S", "TLS with the server failed", hello=b"\x16\x03\x03\xff\xff" + bytes(70000))
            assert not any(OK in heard for heard in liar.heard)
            liar.answer = None
            wait_until(lambda: connects(proxy), 20.0, "an honest server")
            proxy.change(server_tls("prefer"))
            proxy.reload()
            encrypted.shards[0].primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                            "WHERE usename = 'app'")
            meets(b"N" + OK, "unencrypted data behind")
