"""Certificates for the TLS tests, made with the openssl command, and a raw client that speaks TLS."""
import os
import shutil
import socket
import ssl
import subprocess
import tempfile

from harness import process
from harness.cluster import give_to_server
from support import Raw, startup

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def openssl(*args, **options):
    done = subprocess.run(["openssl", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, f"openssl {' '.join(args)}:\n{done.stdout}"
    return done.stdout


class Authority:
    """A certificate authority in a folder of its own; its files go when the program ends."""

    def __init__(self, name="ca"):
        self.folder = tempfile.mkdtemp(prefix="pgshunt-tls-")
        process.own_folder(self.folder)
        os.chmod(self.folder, 0o755)
        self.serial = 0
        self.key, self.certificate = self.path(f"{name}.key"), self.path(f"{name}.crt")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN=pgshunt test {name}", "-keyout", self.key, "-out", self.certificate)

    def path(self, name):
        return os.path.join(self.folder, name)

    def issue(self, common_name, names=(), name=None, rsa=False, days=20, expired=False, digest="sha256"):
        """A key and a certificate; returns their paths (certificate, key)."""
        name = name or common_name.replace(" ", "_")
        self.serial += 1
        certificate, key, request = (self.path(f"{name}.{kind}") for kind in ("crt", "key", "csr"))
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("req", "-newkey", *kind, "-nodes", "-subj", f"/CN={common_name}", "-keyout", key, "-out", request)
        extensions = self.path(f"{name}.ext")
        with open(extensions, "w") as out:
            out.write("basicConstraints = CA:FALSE\n")
            if names:
                out.write(f"subjectAltName = {','.join(names)}\n")
        if expired:
            self._issue_in_the_past(request, certificate, extensions, digest)
        else:
            openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-days", str(days),
                    "-set_serial", str(self.serial), "-extfile", extensions, "-out", certificate, f"-{digest}")
        os.chmod(key, 0o600)
        return certificate, key

    def _issue_in_the_past(self, request, certificate, extensions, digest):
        """`openssl x509` knows no start date; `openssl ca` does."""
        folder = tempfile.mkdtemp(dir=self.folder)
        conf = os.path.join(folder, "ca.conf")
        open(os.path.join(folder, "index"), "w").close()
        with open(conf, "w") as out:
            out.write(f"[ca]\ndefault_ca = d\n[d]\ndatabase = {folder}/index\nnew_certs_dir = {folder}\n"
                      f"policy = p\ndefault_md = {digest}\nrand_serial = yes\n[p]\ncommonName = supplied\n")
        openssl("ca", "-batch", "-config", conf, "-in", request, "-cert", self.certificate, "-keyfile", self.key,
                "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-extfile", extensions,
                "-notext", "-out", certificate)


def for_server(certificate, key):
    """Copies that a Postgres server may read."""
    folder = tempfile.mkdtemp(prefix="pgshunt-tls-")
    process.own_folder(folder)
    copies = [shutil.copy(path, folder) for path in (certificate, key)]
    os.chmod(copies[1], 0o600)
    os.chmod(folder, 0o755)
    give_to_server(folder)
    return copies


def context(authority=None, certificate=None, alpn=True, version=None):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if authority:
        made.load_verify_locations(authority.certificate)
        made.verify_mode = ssl.CERT_REQUIRED
    if certificate:
        made.load_cert_chain(*certificate)
    if alpn:
        made.set_alpn_protocols(["postgresql"])
    if version:
        made.minimum_version = made.maximum_version = version
    return made


class RawTLS(Raw):
    """A raw client on TLS: asked for, or direct (`direct`)."""

    def __init__(self, proxy, login=True, direct=False, using=None, session=None, sni=None, timeout=20.0,
                 **parameters):
        super().__init__(proxy, login=False, timeout=timeout)
        if not direct:
            self.socket.sendall(SSL_REQUEST)
            answer = self.socket.recv(1)
            assert answer == b"S", answer
        self.socket = (using or context()).wrap_socket(self.socket, session=session, server_hostname=sni)
        if login:
            self.send(startup(**parameters))
            messages = self.until_ready()
            self.key = next(body for kind, body in messages if kind == "K")

    @property
    def session(self):
        return self.socket.session


def closed_politely(tls):
    """Whether what follows is the peer's goodbye, or an end."""
    try:
        return tls.socket.recv(1) == b""
    except (ssl.SSLError, ConnectionResetError, socket.timeout):
        return False
