"""TLS with clients: modes, versions, direct TLS, ALPN, certificates, channel binding, resumption, hostile peers."""
import hashlib
import io
import os
import shutil
import socket
import ssl
import struct
import threading
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, ProxyFailed, wait_until
from support import Raw, connect_error, fields, kinds, one, query, rows, startup
from tls_support import SSL_REQUEST, Authority, RawTLS, context, openssl

SECRET = "p4ss, wörd"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("localhost", ["DNS:localhost", "IP:127.0.0.1"], name="proxy", rsa=True)


def tls_options(pair, mode="prefer", **more):
    return {"client_tls": {"mode": mode, "cert_file": pair[0], "key_file": pair[1], **more}}


@pytest.fixture(scope="module")
def secure(cluster, pair):
    with Proxy(cluster, options=tls_options(pair)) as proxy:
        proxy.wait_nodes()
        yield proxy


def insecure_value(proxy, **more):
    with closing(psycopg2.connect(proxy.dsn(**more))) as connection:
        return one(connection, "SELECT 1"), connection.info.ssl_in_use


# ---- modes ----

@pytest.mark.core
@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-ca", "verify-full"])
def test_sslmodes_of_libpq(secure, authority, sslmode):
    value, encrypted = insecure_value(secure, host="localhost", sslmode=sslmode, sslrootcert=authority.certificate)
    assert value == 1
    assert encrypted == (sslmode != "allow")  # libpq tries without first


def test_plain_still_works_where_tls_is_offered(secure):
    assert insecure_value(secure, sslmode="disable") == (1, False)


def test_wrong_host_name_is_for_the_client_to_see(cluster, authority):
    pair = authority.issue("elsewhere", ["DNS:elsewhere"])
    with Proxy(cluster, options=tls_options(pair)) as proxy:
        assert "does not match" in connect_error(
            proxy.dsn(host="localhost", sslmode="verify-full", sslrootcert=authority.certificate))
        assert insecure_value(proxy, sslmode="verify-ca", sslrootcert=authority.certificate) == (1, True)


@pytest.mark.core
def test_disabled(proxy):
    assert "does not support SSL" in connect_error(proxy.dsn(sslmode="require"))
    assert insecure_value(proxy, sslmode="prefer") == (1, False)


@pytest.mark.core
def test_required(cluster, pair):
    with Proxy(cluster, options=tls_options(pair, "require")) as proxy:
        text = connect_error(proxy.dsn(sslmode="disable"))
        assert "TLS is required" in text and "sslmode=require" in text
        assert "TLS is required" in connect_error(proxy.dsn("pgshunt", sslmode="disable"))
        assert insecure_value(proxy, sslmode="require") == (1, True)
        with Raw(proxy, login=False) as raw:
            raw.send(startup())
            kind, body = raw.read()
            assert kind == "E" and fields(body)["C"] == "28000" and fields(body)["H"]


# ---- what it carries ----

def test_shown_and_counted(secure):
    with RawTLS(secure, sni="db.example.com", application_name="seen") as tls:
        cipher, version, _ = tls.socket.cipher()
        row = next(row for row in secure.show("CLIENTS") if row["application_name"] == "seen")
        assert row["tls"] == f"{version}/{cipher}"
        assert any(not row["tls"] for row in secure.show("CLIENTS"))  # the one that asks
        assert "sni=db.example.com" in secure.log()
        metrics = read_metrics(secure)
        assert metrics['tls_connections{side="client"}'] >= 1
        assert metrics['tls_handshakes_total{side="client"}'] >= 1
        expiry = [value for name, value in metrics.items() if name.startswith("tls_certificate_expiry_seconds")]
        assert len(expiry) == 1 and expiry[0] > 1.7e9


def read_metrics(proxy):
    with urllib.request.urlopen(f"http://{proxy.host}:{proxy.http_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name.removeprefix("pgshunt_")] = float(value)
    return found


@pytest.mark.core
def test_big_results_and_copy(secure, cluster):
    size = 3_000_000
    with closing(secure.connect(sslmode="require")) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT repeat('x', %s), repeat('y', 17)", (size,))
        big, small = cursor.fetchone()
        assert len(big) == size and set(big) == {"x"} and small == "y" * 17
        cursor.execute("SELECT g, md5(g::text) FROM generate_series(1, 50000) g")
        found = cursor.fetchall()
        assert len(found) == 50000
        assert all(value == hashlib.md5(str(number).encode()).hexdigest() for number, value in found[::997])
        cursor.execute("CREATE TABLE tls_copy (id int, body text)")
        try:
            source = "".join(f"{number}\t{'z' * (number % 300)}\n" for number in range(40000))
            cursor.copy_expert("COPY tls_copy FROM STDIN", io.StringIO(source))
            target = io.StringIO()
            cursor.copy_expert("COPY tls_copy TO STDOUT", target)
            assert sorted(target.getvalue().splitlines()) == sorted(source.splitlines())
        finally:
            cursor.execute("DROP TABLE tls_copy")


def test_a_slow_reader_gets_everything(secure):
    """The client reads nothing for a while: what waits for it waits in the server, then comes whole."""
    with RawTLS(secure) as tls:
        tls.send(query("SELECT repeat('a', 1000) FROM generate_series(1, 30000)"), query("SELECT 2"))
        secure.sql("SELECT pg_sleep(0.3)")
        messages = tls.until_ready()
        assert len(rows(messages)) == 30000
        assert rows(tls.until_ready()) == [[b"2"]]


def test_many_messages_in_one_record_and_one_message_in_many(secure):
    with RawTLS(secure) as tls:
        tls.send(*[query(f"SELECT {number}") for number in range(200)])
        assert [rows(tls.until_ready())[0][0] for _ in range(200)] == [str(n).encode() for n in range(200)]
        for byte in query("SELECT 'bytewise'"):
            tls.send(bytes([byte]))
        assert rows(tls.until_ready()) == [[b"bytewise"]]


def test_cancel_over_tls(secure):
    with closing(secure.connect(sslmode="require")) as connection:
        timer = threading.Timer(0.5, connection.cancel)
        timer.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            connection.cursor().execute("SELECT pg_sleep(60)")
        timer.join()


def test_cancel_request_on_tls_itself(secure):
    """libpq 17 sends it encrypted; older ones in the open."""
    with RawTLS(secure) as tls:
        tls.send(query("SELECT pg_sleep(60)"))
        for _ in range(100):
            with RawTLS(secure, login=False) as other:
                other.send(struct.pack("!II", 16, 80877102) + tls.key)
                assert other.at_end()
            tls.socket.settimeout(0.2)
            try:
                messages = tls.until_ready()
                break
            except socket.timeout:
                continue
        assert fields(next(body for kind, body in messages if kind == "E"))["C"] == "57014"


# ---- direct TLS and ALPN ----

@pytest.mark.core
def test_direct_tls(secure):
    with RawTLS(secure, direct=True) as tls:
        assert tls.socket.selected_alpn_protocol() == "postgresql"
        assert rows(tls.ask(query("SELECT 'direct'"))) == [[b"direct"]]


def test_alpn_after_an_ssl_request(secure):
    with RawTLS(secure) as tls:
        assert tls.socket.selected_alpn_protocol() == "postgresql"


def test_direct_tls_needs_alpn(secure):
    with RawTLS(secure, direct=True, login=False, using=context(alpn=False)) as tls:
        kind, body = tls.read()
        assert kind == "E" and "ALPN" in fields(body)["M"] and fields(body)["H"]
        assert tls.at_end()


@pytest.mark.parametrize("direct", [False, True])
def test_another_protocol_is_refused(secure, direct):
    other = context(alpn=False)
    other.set_alpn_protocols(["http/1.1"])
    with pytest.raises(ssl.SSLError) as caught:
        RawTLS(secure, direct=direct, using=other)
    assert "NO_APPLICATION_PROTOCOL" in str(caught.value).upper().replace(" ", "_")


@pytest.mark.core
def test_bytes_stuffed_behind_the_request(secure):
    """CVE-2021-23222 and its kind: what was sent in the open must not be taken for encrypted."""
    with Raw(secure, login=False) as raw:
        raw.send(SSL_REQUEST + startup())
        kind, body = raw.read()
        assert kind == "E" and "encryption request" in fields(body)["M"]
        assert raw.at_end()


def test_no_second_request_inside(secure):
    with RawTLS(secure, login=False) as tls:
        tls.send(SSL_REQUEST)
        kind, body = tls.read()
        assert kind == "E" and tls.at_end()


def test_gss_is_declined_first(secure):
    with Raw(secure, login=False) as raw:
        raw.send(bytes.fromhex("0000000804d21630"))
        assert raw.socket.recv(1) == b"N"
        raw.send(SSL_REQUEST)
        assert raw.socket.recv(1) == b"S"
        raw.socket = context().wrap_socket(raw.socket)
        raw.send(startup())
        assert kinds(raw.until_ready()).endswith("Z")


# ---- versions ----

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_each_version(secure, version):
    with RawTLS(secure, using=context(version=version)) as tls:
        assert tls.socket.version() == version.name.replace("_", ".")
        assert rows(tls.ask(query("SELECT 1"))) == [[b"1"]]


@pytest.mark.parametrize("only", ["1.2", "1.3"])
def test_version_limits(cluster, pair, only):
    with Proxy(cluster, options=tls_options(pair, min_version=only, max_version=only)) as proxy:
        wanted = getattr(ssl.TLSVersion, "TLSv" + only.replace(".", "_"))
        other = ssl.TLSVersion.TLSv1_3 if only == "1.2" else ssl.TLSVersion.TLSv1_2
        with RawTLS(proxy, using=context(version=wanted)) as tls:
            assert tls.socket.version() == "TLSv" + only
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            RawTLS(proxy, using=context(version=other))
        proxy.wait_log("TLS handshake with a client failed.*(version|protocol)")
        assert read_metrics(proxy)['tls_handshake_failures_total{side="client"}'] == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(secure, version):
    using = context(version=version)
    before = read_metrics(secure)['tls_resumptions_total{side="client"}']
    with RawTLS(secure, using=using) as first:
        assert not first.socket.session_reused
        session = first.session
    assert session.has_ticket
    with RawTLS(secure, using=using, session=session) as second:
        assert second.socket.session_reused
        assert rows(second.ask(query("SELECT 1"))) == [[b"1"]]
    assert read_metrics(secure)['tls_resumptions_total{side="client"}'] == before + 1


# ---- client certificates ----

@pytest.fixture(scope="module")
def checked(cluster, authority, pair):
    users = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": ""},
             {"name": "mapped", "password": "", "certificates": ["service-7", "other name"]}]
    options = {**tls_options(pair, "verify-full", ca_file=authority.certificate)}
    with Proxy(cluster, options=options, users=users) as proxy:
        yield proxy


def with_certificate(files, **more):
    return {"sslmode": "require", "sslcert": files[0], "sslkey": files[1], **more}


def test_certificate_that_names_the_user(checked, authority):
    assert insecure_value(checked, user="app", **with_certificate(authority.issue("app"))) == (1, True)
    by_mail = authority.issue("Some Body", ["email:app"], name="mail")
    assert insecure_value(checked, user="app", **with_certificate(by_mail)) == (1, True)


def test_no_certificate(checked):
    text = connect_error(checked.dsn(user="app", sslmode="require"))
    assert "valid client certificate" in text and "sslcert" in text


def test_certificate_of_someone_else(checked, authority):
    text = connect_error(checked.dsn(user="app", **with_certificate(authority.issue("postgres"))))
    assert 'certificate authentication failed for user "app"' in text
    checked.wait_log("certificate authentication failed.*names someone else")


def test_certificates_of_a_user(checked, authority, cluster):
    cluster.create_role("mapped")
    cluster.sync()
    assert insecure_value(checked, user="mapped", **with_certificate(authority.issue("service-7"))) == (1, True)
    assert "failed" in connect_error(checked.dsn(user="mapped", **with_certificate(authority.issue("mapped"))))


def test_expired_certificate(checked, authority):
    files = authority.issue("app", name="old", expired=True)
    assert connect_error(checked.dsn(user="app", **with_certificate(files)))
    checked.wait_log("certificate verify failed: certificate has expired")


def test_unknown_authority(checked):
    files = Authority("stranger").issue("app")
    assert connect_error(checked.dsn(user="app", **with_certificate(files)))
    checked.wait_log("certificate verify failed: unable to get local issuer certificate")


def test_resumed_session_keeps_its_certificate(checked, authority):
    files = authority.issue("app", name="again")
    using = context(certificate=files)
    with RawTLS(checked, using=using, user="app") as first:
        session = first.session
    with RawTLS(checked, using=using, session=session, user="app") as second:
        assert second.socket.session_reused
    with RawTLS(checked, using=using, session=session, login=False) as third:
        third.send(startup(user="postgres"))
        assert fields(third.read()[1])["C"] == "28000"


@pytest.mark.core
def test_method_cert(cluster, authority, pair):
    """No password is asked for; the console too."""
    options = {**tls_options(pair, "verify-ca", ca_file=authority.certificate), "auth": {"method": "cert"}}
    with Proxy(cluster, options=options) as proxy:
        files = authority.issue("postgres", name="admin")
        assert insecure_value(proxy, **with_certificate(files)) == (1, True)
        with closing(psycopg2.connect(proxy.dsn("pgshunt", **with_certificate(files)))) as console:
            console.autocommit = True
            assert one(console, "SHOW VERSION")
        assert "certificate authentication failed" in connect_error(proxy.dsn(user="app", **with_certificate(files)))
        assert "valid client certificate" in connect_error(proxy.dsn(sslmode="require"))


# ---- channel binding ----

@pytest.mark.core
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_channel_binding(cluster, authority, digest):
    pair = authority.issue("localhost", name=f"bound-{digest}", digest=digest)
    options = {**tls_options(pair), "auth": {"method": "scram-sha-256"}}
    with Proxy(cluster, options=options, users=[{"name": "app", "password": SECRET}]) as proxy:
        account = {"user": "app", "password": SECRET}
        for binding in ("require", "prefer", "disable"):
            assert insecure_value(proxy, sslmode="require", channel_binding=binding, **account) == (1, True)
        assert insecure_value(proxy, sslmode="disable", channel_binding="prefer", **account) == (1, False)
        assert "channel binding" in connect_error(proxy.dsn(sslmode="disable", channel_binding="require", **account))
        assert "password authentication failed" in connect_error(
            proxy.dsn(user="app", password="wrong", sslmode="require", channel_binding="require"))


def sasl(mechanism, first):
    body = mechanism + b"\0" + struct.pack("!I", len(first)) + first
    return b"p" + struct.pack("!I", len(body) + 4) + body


@pytest.mark.parametrize("mechanism, first, words", [
    (b"SCRAM-SHA-256", b"y,,n=,r=abc", "does support channel binding"),  # somebody took PLUS off the list
    (b"SCRAM-SHA-256-PLUS", b"p=tls-unique,,n=,r=abc", "tls-server-end-point"),
    (b"SCRAM-SHA-256-PLUS", b"n,,n=,r=abc", "malformed"),
    (b"SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=abc", "malformed"),
    (b"SCRAM-SHA-1", b"n,,n=,r=abc", "malformed"),
])
def test_downgrades(cluster, pair, mechanism, first, words):
    options = {**tls_options(pair), "auth": {"method": "scram-sha-256"}}
    with Proxy(cluster, options=options, users=[{"name": "app", "password": SECRET}]) as proxy:
        with RawTLS(proxy, login=False) as tls:
            tls.send(startup(user="app"))
            assert tls.read() == ("R", struct.pack("!I", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
            tls.send(sasl(mechanism, first))
            kind, body = tls.read()
            assert kind == "E" and words in fields(body)["M"]
            assert tls.at_end()


# ---- files ----

def test_reload_takes_a_new_certificate(cluster, authority):
    first = authority.issue("first", name="changing")
    with Proxy(cluster, options=tls_options(first)) as proxy:
        with RawTLS(proxy) as old:
            before = old.socket.getpeercert(True)
            authority.issue("second", name="changing")
            assert any("reloaded" in line for line in proxy.reload())

            def changed():
                with RawTLS(proxy) as new:
                    return new.socket.getpeercert(True) != before
            wait_until(changed, 10.0, "the new certificate")
            assert rows(old.ask(query("SELECT 'still here'"))) == [[b"still here"]]


def test_a_broken_certificate_leaves_the_old_one(cluster, authority):
    files = authority.issue("steady", name="steady")
    with Proxy(cluster, options=tls_options(files)) as proxy:
        with RawTLS(proxy) as tls:
            before = tls.socket.getpeercert(True)
        good = open(files[0]).read()
        with open(files[0], "w") as out:
            out.write("no certificate\n")
        lines = proxy.reload()
        assert any("reload failed" in line and files[0] in line and "no start line" in line for line in lines), lines
        with pytest.raises(psycopg2.Error) as caught:
            proxy.sql("RELOAD", dbname="pgshunt")
        assert files[0] in str(caught.value)
        with RawTLS(proxy) as tls:
            assert tls.socket.getpeercert(True) == before
        with open(files[0], "w") as out:
            out.write(good)
        assert any("reloaded" in line for line in proxy.reload())


def refused_start(cluster, options):
    with pytest.raises(ProxyFailed) as caught:
        Proxy(cluster, options=options).close()
    return str(caught.value)


def test_bad_files_refuse_the_start(cluster, authority, pair):
    certificate, key = authority.issue("other", name="other")
    assert "does not belong" in refused_start(cluster, tls_options((pair[0], key)))
    text = refused_start(cluster, tls_options((pair[0], "/nowhere/key")))
    assert "client_tls.key_file" in text and "No such file" in text
    open_key = shutil.copy(key, key + ".open")
    os.chmod(open_key, 0o644)
    assert "accessible to others" in refused_start(cluster, tls_options((certificate, open_key)))
    locked = key + ".locked"
    openssl("ec", "-in", key, "-aes128", "-passout", "pass:secret", "-out", locked)
    os.chmod(locked, 0o600)
    assert "passphrase" in refused_start(cluster, tls_options((certificate, locked)))
    assert "client_tls.ca_file" in refused_start(cluster, tls_options(pair, ca_file=key))
    assert "client_tls.ciphers" in refused_start(cluster, tls_options(pair, ciphers="NOSUCH"))


def test_expiry_is_told(cluster, authority):
    soon = authority.issue("soon", days=3)
    gone = authority.issue("gone", expired=True)
    with Proxy(cluster, options=tls_options(soon)) as proxy:
        proxy.wait_log("certificate expires soon.*days_left=[23]")
    with Proxy(cluster, options=tls_options(gone)) as proxy:
        proxy.wait_log("certificate has expired")


# ---- hostile ----

HELLO = bytes.fromhex("160301020001000001fc0303") + bytes(508)


HOSTILE = {
    "garbage": b"\x16" + b"not a handshake at all" * 20,
    "truncated hello": HELLO[:40],
    "hello of zeros": HELLO,
    "endless record": b"\x16\x03\x01\x40\x00" + bytes(16384),
    "alert": bytes.fromhex("1503010002022e"),
    "plain startup": startup(),
}


# Without the request only what begins like a handshake is one: the last two are other things then.
@pytest.mark.parametrize("asked, name", [(True, name) for name in HOSTILE] + [(False, name) for name in list(HOSTILE)[:4]])
def test_hostile_handshakes(secure, asked, name):
    with Raw(secure, login=False) as raw:
        if asked:
            raw.send(SSL_REQUEST)
            assert raw.socket.recv(1) == b"S"
        raw.send(HOSTILE[name])
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.socket.recv(65536) is not None
    assert secure.value("SELECT 1") == 1


def test_half_closed_after_the_request(secure):
    with Raw(secure, login=False) as raw:
        raw.send(SSL_REQUEST)
        assert raw.socket.recv(1) == b"S"
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.socket.recv(1) == b""


def test_a_slow_handshake_holds_nobody_and_ends(cluster, pair):
    with Proxy(cluster, options={**tls_options(pair), "auth": {"login_timeout": "1s"}, "workers": 1}) as proxy:
        with Raw(proxy, login=False) as raw:
            raw.send(SSL_REQUEST)
            assert raw.socket.recv(1) == b"S"
            raw.send(HELLO[:7])
            assert insecure_value(proxy, sslmode="require") == (1, True)  # the only worker is free
            assert raw.socket.recv(1) == b""  # login_timeout


def test_garbage_in_the_middle(secure):
    """A record nobody encrypted ends the connection: the peer is told so by an alert."""
    with RawTLS(secure) as tls:
        raw = socket.socket(fileno=os.dup(tls.socket.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.close()
        with pytest.raises((ssl.SSLError, EOFError)):
            tls.read()
    assert secure.value("SELECT 1") == 1


# ---- memory ----

def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_memory_per_idle_client(cluster, pair):
    """Idle TLS clients are cheap: no record buffers, nothing kept of the handshake."""
    count = 300
    with Proxy(cluster, options={**tls_options(pair), "workers": 1, "limits": {"max_clients": 2000}}) as proxy:
        using = context()

        def some():
            clients = [RawTLS(proxy, using=using) for _ in range(count)]
            assert rows(clients[-1].ask(query("SELECT 1")))
            return clients

        clients = some()
        before = resident_kib(proxy.pid)
        clients += some()
        each = (resident_kib(proxy.pid) - before) / count
        print(f"resident memory per idle TLS client: {each:.1f} KiB")
        for client in clients:
            client.socket.close()
        if "asan" not in os.environ.get("PGSHUNT", ""):
            assert each < 24
