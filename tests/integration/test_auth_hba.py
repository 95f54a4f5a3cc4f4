"""Rules of a pg_hba.conf: the method of each client, refusals in Postgres' words, reloads."""
import os
import shutil
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from harness.process import wait_until
from support import Raw, connect_error, fields, one, startup
from tls_support import Authority

USERS = [{"name": "app", "password": "app's"}, {"name": "md5er", "password": "md5's"},
         {"name": "plain", "password": "plain's"}, {"name": "postgres", "admin": True}]

RULES = """
# TYPE  DATABASE  USER      ADDRESS        METHOD
host    all       banned    all            reject
hostssl all       nobody    all            trust
host    app       app       127.0.0.1/32   scram-sha-256
host    app       md5er     127.0.0.0 255.0.0.0   md5
host    "app"     @plains   samehost       password
host    pgshunt,app  postgres  127.0.0.1/32  trust
local   all       all                      trust
"""


class HbaProxy(Proxy):
    def __init__(self, cluster, rules=RULES, tls=None, maps=None, auth=None, environment=None):
        options = {"auth": auth or {"method": "hba", "hba_file": "pg_hba.conf"}}
        if maps:
            options["auth"]["ident_file"] = "pg_ident.conf"
        if tls:
            options["client_tls"] = tls
        super().__init__(cluster, options=options, users=USERS, start=False,
                         environment=environment)
        self.write("plains", "plain # those whose driver knows nothing better\n")
        self.write("pg_hba.conf", rules)
        self.write("pg_ident.conf", maps or "")
        self.start()

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)


def read_message(connection):
    head = connection.recv(5, socket.MSG_WAITALL)
    return head[:1], connection.recv(int.from_bytes(head[1:], "big") - 4, socket.MSG_WAITALL)


@pytest.fixture(scope="module")
def hba(cluster):
    for name in ("md5er", "plain", "other", "banned"):
        cluster.shards[0].primary.sql(f"CREATE ROLE {name} LOGIN")
    cluster.sync()
    with HbaProxy(cluster) as proxy:
        yield proxy
    for name in ("md5er", "plain", "other", "banned"):
        cluster.shards[0].primary.sql(f"DROP ROLE {name}")


def asked(proxy, **who):
    """What the first message asks for: an authentication request's code, or the error."""
    with Raw(proxy, login=False) as raw:
        raw.send(startup(**who))
        kind, body = raw.read()
        return int.from_bytes(body[:4], "big") if kind == "R" else fields(body)


@pytest.mark.core
def test_each_has_its_method(hba):
    assert asked(hba, user="app") == 10 and asked(hba, user="md5er") == 5
    assert asked(hba, user="plain") == 3 and asked(hba, user="postgres") == 0
    for user in ("app", "md5er", "plain"):
        password = f"{user.replace('md5er', 'md5')}'s"
        with closing(hba.connect(user=user, password=password)) as connection:
            assert one(connection, "SELECT current_user::text") == user
        assert "password authentication failed" in connect_error(hba.dsn(user=user, password="wrong"))


@pytest.mark.core
def test_refusals_in_the_words_of_postgres(hba):
    error = asked(hba, user="other")
    assert error["M"] == 'no pg_hba.conf entry for host "127.0.0.1", user "other", database "app", no encryption'
    assert error["C"] == "28000" and error["S"] == "FATAL" and "auth.hba_file" in error["H"]
    assert asked(hba, user="banned")["M"] == ('pg_hba.conf rejects connection for host "127.0.0.1", user "banned", '
                                              'database "app", no encryption')
    assert "no pg_hba.conf entry" in asked(hba, user="app", database="elsewhere")["M"]
    assert "no pg_hba.conf entry" in asked(hba, user="nobody")["M"]  # hostssl only
    error = asked(hba, user="app", replication="true")
    assert error["M"] == ('no pg_hba.conf entry for replication connection from host "127.0.0.1", user "app", '
                          'no encryption')


def test_a_broken_file_keeps_the_old_rules(cluster):
    with HbaProxy(cluster, "host all all all trust\n") as proxy:
        assert proxy.value("SELECT 1") == 1
        proxy.write("pg_hba.conf", "host all all all trust\nhost all all 10.0.0.300 reject\n")
        lines = "\n".join(proxy.reload())
        assert "pg_hba.conf:2: found address" in lines and "10.0.0.300" in lines and "allowed" in lines
        assert proxy.value("SELECT 1") == 1
        proxy.write("pg_hba.conf", "host pgshunt all all trust\nhost all all all reject\n")
        proxy.reload()

        def is_rejected():
            try:
                proxy.connect().close()
                return False
            except psycopg2.OperationalError as caught:
                return "pg_hba.conf rejects connection" in str(caught)

        wait_until(is_rejected, 10, "the new rules on every worker")


def test_a_broken_file_stops_the_start(cluster):
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, "local all all pam\n")
    assert 'pg_hba.conf:1: found method "pam"' in str(caught.value)
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, "local all all peer map=people\n")
    assert 'pg_hba.conf:1: found map=people, without auth.ident_file' in str(caught.value)
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, "local all all peer map=people\n", maps="others a b\n")
    assert 'pg_hba.conf:1: found map=people, of which auth.ident_file has no line' in str(caught.value)
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, "local all all peer\n", maps="people /(a b\n")
    assert 'pg_ident.conf:1: found "/(a" (unmatched (' in str(caught.value)


MAPS = """
# MAP    SYSTEM            USER
robots   robot-7           md5er
robots   /^(.*)@example$   \\1
robots   chief             all
"""


def test_patterns_and_maps(cluster, hba):
    """Certificates that stand for other users, and rules for names of a kind."""
    authority = Authority()
    certificate, key = authority.issue("localhost", names=["IP:127.0.0.1"], name="server")
    tls = {"mode": "prefer", "cert_file": certificate, "key_file": key, "ca_file": authority.certificate}
    rules = "hostssl /^a.p$ all all cert map=robots\nhostnossl all \"/^(plain|other)$\" all trust\n"
    with HbaProxy(cluster, rules, tls=tls, maps=MAPS) as proxy:
        robot, other, chief = (authority.issue(name) for name in ("robot-7", "other@example", "chief"))
        assert outcome(proxy, "md5er", robot) == "md5er"
        for user, shown in (("robot-7", robot), ("other", robot), ("md5er", other), ("md5er", None),
                            ("other@example", other)):
            assert f'certificate authentication failed for user "{user}"' in outcome(proxy, user, shown)
        assert outcome(proxy, "other", other) == "other"
        assert outcome(proxy, "plain", chief) == "plain"
        assert outcome(proxy, "plain", sslmode="disable") == "plain"
        assert "no pg_hba.conf entry" in outcome(proxy, "banned", sslmode="disable")


MEMBERS = """
host  all       +banished            all  reject
host  pgshunt   +staff               all  trust
host  samerole  "+staff",app         all  trust
host  app       postgres,+staff      all  trust
host  app       +typists             all  scram-sha-256
"""


@pytest.fixture
def roles(cluster, hba):
    primary = cluster.shards[0].primary
    primary.sql("CREATE ROLE staff; CREATE ROLE chiefs IN ROLE staff; CREATE ROLE banished; CREATE ROLE typists;"
                "CREATE ROLE typist LOGIN PASSWORD 'type''s' IN ROLE typists;"
                "CREATE ROLE \"Chief, \"\"C\"\"\" LOGIN NOINHERIT IN ROLE chiefs; CREATE ROLE root_user LOGIN SUPERUSER")
    cluster.sync()
    yield primary
    primary.sql("DROP ROLE \"Chief, \"\"C\"\"\", root_user, chiefs, staff, banished, typist, typists")
    cluster.sync()


def test_members_of_roles(cluster, roles):
    """As in Postgres: through other roles, whether or not it inherits, and superusers only where they were made members."""
    options = {"method": "hba", "hba_file": "pg_hba.conf", "query_user": "postgres", "query_cache": "0s"}
    with HbaProxy(cluster, MEMBERS, auth=options) as proxy:
        assert asked(proxy, user='Chief, "C"') == 0
        with closing(proxy.connect(user='Chief, "C"')) as connection:
            assert one(connection, "SELECT current_user::text") == 'Chief, "C"'
        for user in ("root_user", "other", "plain", "nobody_knows"):
            assert "no pg_hba.conf entry" in asked(proxy, user=user)["M"], user
        assert asked(proxy, user="postgres") == 0
        roles.sql("GRANT staff TO plain; GRANT app TO other")
        assert asked(proxy, user="plain") == 0
        assert "no pg_hba.conf entry" in asked(proxy, user="other")["M"]  # samerole, but not "+staff" nor app
        with closing(proxy.connect(user="typist", password="type's")) as connection:  # two look-ups
            assert one(connection, "SELECT current_user::text") == "typist"
        assert "password authentication failed" in connect_error(proxy.dsn(user="typist", password="wrong"))
        roles.sql("GRANT banished TO chiefs; REVOKE staff FROM plain; REVOKE app FROM other")
        assert asked(proxy, user='Chief, "C"')["M"].startswith("pg_hba.conf rejects connection")
        assert "no pg_hba.conf entry" in asked(proxy, user="plain")["M"]
        assert asked(proxy, user="app") == 0  # database app: a member of itself


def test_nobody_to_ask_about_roles(cluster, hba):
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, MEMBERS)
    assert "pg_hba.conf:2: found a rule for members of a role, without auth.query_user" in str(caught.value)
    options = {"method": "hba", "hba_file": "pg_hba.conf", "query_user": "nobody_knows"}
    with HbaProxy(cluster, MEMBERS, auth=options) as proxy:
        error = asked(proxy, user="plain")
        assert error["C"] == "08006" and error["M"].startswith('cannot check the roles of user "plain"')


ROLE_MAPS = """
robots   robot-7           +staff
robots   /^(.*)@example$   +\\1
robots   chief             md5er
robots   chief             +chiefs
"""


def test_members_of_roles_in_maps(cluster, roles):
    """As in Postgres 16: the user a certificate stands for may be any member of a role."""
    authority = Authority()
    certificate, key = authority.issue("localhost", names=["IP:127.0.0.1"], name="server")
    tls = {"mode": "prefer", "cert_file": certificate, "key_file": key, "ca_file": authority.certificate}
    options = {"method": "hba", "hba_file": "pg_hba.conf", "query_user": "postgres", "query_cache": "0s"}
    rules = "hostssl all all all cert map=robots\n"
    robot, group, chief = (authority.issue(name) for name in ("robot-7", "staff@example", "chief"))
    with HbaProxy(cluster, rules, tls=tls, maps=ROLE_MAPS, auth=options) as proxy:
        assert outcome(proxy, 'Chief, "C"', robot) == 'Chief, "C"'
        assert outcome(proxy, 'Chief, "C"', chief) == 'Chief, "C"'
        assert outcome(proxy, "md5er", chief) == "md5er"
        for user, shown in (("plain", robot), ("root_user", robot), ("typist", robot), ("plain", chief),
                            ('Chief, "C"', group), ("nobody_knows", robot)):
            assert f'certificate authentication failed for user "{user}"' in outcome(proxy, user, shown)
        roles.sql("GRANT staff TO plain")
        assert outcome(proxy, "plain", robot) == "plain"
        roles.sql("REVOKE staff FROM plain")
        assert 'certificate authentication failed for user "plain"' in outcome(proxy, "plain", robot)


def test_nobody_to_ask_about_roles_of_maps(cluster, hba):
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, "local all all peer map=robots\n", maps=ROLE_MAPS)
    assert "pg_hba.conf:1: found map=robots, which has a line for members of a role, without" in str(caught.value)


HOSTS = """
127.0.0.2 app1.shop.test
127.0.0.3 app2.shop.test
127.0.0.4 db.test
"""

# A name server of somebody who would like to be another.
LIAR = """
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t hostlen, char *service,
                socklen_t servicelen, int flags)
{
    int (*real)(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int) =
        dlsym(RTLD_NEXT, "getnameinfo");
    in_addr_t from = ((const struct sockaddr_in *)address)->sin_addr.s_addr;
    if (flags & NI_NAMEREQD && from == inet_addr("127.0.0.6"))
        return EAI_NONAME; /* without asking a real name server */
    if (!(flags & NI_NAMEREQD) || from != inet_addr("127.0.0.5"))
        return real(address, length, host, hostlen, service, servicelen, flags);
    snprintf(host, hostlen, "app1.shop.test");
    return 0;
}
"""


def test_names_of_hosts(cluster, hba):
    """The name of the client's address, which must have that address, too. 127.0.0.5 says that it is another's name."""
    folder = tempfile.mkdtemp(prefix="pgshunt-hosts-")
    hosts = os.path.join(folder, "hosts")
    with open(hosts, "w") as file:
        file.write(HOSTS + "".join(f"127.0.{n}.9 {n}.other.test\n" for n in range(40)))
    with open(os.path.join(folder, "liar.c"), "w") as file:
        file.write(LIAR)
    liar = os.path.join(folder, "liar.so")
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", liar, file.name], check=True)
    environment = {"LD_PRELOAD": f"{liar} libnss_wrapper.so", "NSS_WRAPPER_HOSTS": hosts,
                   "NSS_WRAPPER_DISABLE_DEEPBIND": "1"}
    if "asan" in os.environ.get("PGSHUNT", ""):
        environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    rules = ("host pgshunt all all trust\nhost all other .shop.test reject\nhost all all APP1.Shop.test trust\n"
             "host all all .shop.test md5\n")
    with HbaProxy(cluster, rules, environment=environment) as proxy:
        def at(address, user="app"):
            with socket.create_connection((proxy.host, proxy.port), 20, source_address=(address, 0)) as connection:
                connection.sendall(startup(user=user))
                kind, body = read_message(connection)
                return int.from_bytes(body[:4], "big") if kind == b"R" else fields(body)["M"]

        with ThreadPoolExecutor(16) as threads:  # more than are looked up at once
            found = list(threads.map(at, [f"127.0.{n}.9" for n in range(40)] + ["127.0.0.2"]))
        assert found.pop() == 0 and all(text.startswith("no pg_hba.conf entry") for text in found), found
        for _ in range(2):  # asked, then known
            assert at("127.0.0.2") == 0
            assert at("127.0.0.3") == 5
            for address in ("127.0.0.4", "127.0.0.5", "127.0.0.6"):
                assert at(address).startswith(f'no pg_hba.conf entry for host "{address}"'), address
            for address in ("127.0.0.2", "127.0.0.3"):
                assert at(address, "other").startswith("pg_hba.conf rejects connection"), address
    shutil.rmtree(folder)


def test_a_pattern_that_takes_too_long_refuses(cluster):
    """Else a name made for it would slip past the rule that rejects it."""
    with HbaProxy(cluster, "host all /^(a+)+$ all reject\nhost all all all trust\n") as proxy:
        assert asked(proxy, user="a" * 30)["M"].startswith("pg_hba.conf rejects connection")
        assert asked(proxy, user="app") == 0
        assert "takes too long" not in proxy.log()
        assert asked(proxy, user="a" * 60 + "!")["M"].startswith("pg_hba.conf rejects connection")
        assert "a pattern of auth.hba_file takes too long" in proxy.log()


def test_admins_come_in_by_rule_too(hba):
    with closing(hba.connect("pgshunt")) as connection:
        assert one(connection, "SHOW VERSION")
    assert "42501" in str(asked(hba, user="app", database="pgshunt"))


# ---- with TLS ----

TLS_RULES = """
hostnossl all    plain  all  trust
hostssl   all    app    all  scram-sha-256
hostssl   all    md5er  all  cert
hostssl   all    other  all  trust  clientcert=verify-ca
hostssl   all    banned all  trust  clientcert=verify-full
hostssl   pgshunt all   all  reject
"""


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def secured(cluster, hba, authority):
    certificate, key = authority.issue("localhost", names=["IP:127.0.0.1"], name="server")
    with HbaProxy(cluster, TLS_RULES, tls={"mode": "prefer", "cert_file": certificate, "key_file": key,
                                           "ca_file": authority.certificate}) as proxy:
        yield proxy


def outcome(proxy, user, certificate=None, **more):
    if certificate:
        more.update(sslcert=certificate[0], sslkey=certificate[1])
    try:
        with closing(proxy.connect(user=user, **{"sslmode": "require", **more})) as connection:
            return one(connection, "SELECT current_user::text")
    except psycopg2.OperationalError as caught:
        return str(caught)


def test_hostssl_and_hostnossl(secured):
    assert outcome(secured, "app", password="app's") == "app"
    assert 'user "app", database "app", no encryption' in outcome(secured, "app", password="app's", sslmode="disable")
    assert outcome(secured, "plain", sslmode="disable") == "plain"
    assert ('no pg_hba.conf entry for host "127.0.0.1", user "plain", database "app", SSL encryption'
            in outcome(secured, "plain"))
    assert 'pg_hba.conf rejects connection' in outcome(secured, "postgres", dbname="pgshunt")


def test_certificates_by_rule(secured, authority):
    md5er, banned = authority.issue("md5er"), authority.issue("banned")
    assert outcome(secured, "md5er", md5er) == "md5er"
    assert 'certificate authentication failed for user "md5er"' in outcome(secured, "md5er", banned)
    assert 'certificate authentication failed for user "md5er"' in outcome(secured, "md5er")
    assert outcome(secured, "other", banned) == "other"
    assert "connection requires a valid client certificate" in outcome(secured, "other")
    assert outcome(secured, "banned", banned) == "banned"
    assert 'certificate authentication failed for user "banned"' in outcome(secured, "banned", md5er)


def test_rules_for_certificates_need_an_authority(cluster):
    with pytest.raises(Exception) as caught:
        HbaProxy(cluster, TLS_RULES)
    assert "pg_hba.conf:4: found a rule that wants a certificate, without client_tls.ca_file" in str(caught.value)
