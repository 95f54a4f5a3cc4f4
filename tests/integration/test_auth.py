"""Who gets in: trust and SCRAM for clients; trust, md5 and SCRAM towards servers; clear words for the rest."""
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy
from support import connect_error, one

SECRET = "p4ss, wörd"


@pytest.fixture(scope="module", params=["scram-sha-256", "md5", "trust"])
def guarded(request):
    """A cluster that wants passwords by the given method."""
    with Cluster(shards=1, replicas=1, auth=request.param) as cluster:
        cluster.create_role("app", SECRET)
        cluster.create_role("other", "other's")
        cluster.create_role("pgshunt", "monitor's", "LOGIN IN ROLE pg_monitor")
        cluster.sync()
        yield cluster


def users(**changes):
    found = {"app": {"name": "app", "password": SECRET}, "other": {"name": "other", "password": "other's"},
             "boss": {"name": "boss", "password": "boss's", "admin": True}}
    for name, entry in changes.items():
        found[name] = {"name": name, **entry}
    return list(found.values())


OPTIONS = {"auth": {"method": "scram-sha-256"}, "monitor": {"user": "pgshunt", "password": "monitor's"}}


@pytest.fixture(scope="module")
def guard(guarded):
    with Proxy(guarded, options=OPTIONS, users=users()) as proxy:
        yield proxy


def test_scram_client_gets_in(guarded, guard):
    with closing(guard.connect(user="app", password=SECRET)) as connection:
        assert one(connection, "SELECT current_user::text") == "app"
    with closing(guard.connect(user="other", password="other's")) as connection:
        assert one(connection, "SELECT current_user::text") == "other"


def test_writes_too(guarded, guard):
    with closing(guard.connect(user="app", password=SECRET)) as connection:
        connection.cursor().execute("CREATE TABLE t (id int)")
        connection.cursor().execute("INSERT INTO t VALUES (1)")
        assert one(connection, "SELECT count(*) FROM t") == 1
        connection.cursor().execute("DROP TABLE t")


def test_wrong_password(guard):
    text = connect_error(guard.dsn(user="app", password="wrong"))
    assert 'password authentication failed for user "app"' in text


def test_no_password(guard):
    assert "password" in connect_error(guard.dsn(user="app"))


def test_unknown_user_sounds_like_a_wrong_password(guard):
    """Whether a user exists is nobody's business."""
    text = connect_error(guard.dsn(user="nobody", password="x"))
    assert 'password authentication failed for user "nobody"' in text


def test_unknown_database(guard):
    text = connect_error(guard.dsn("nowhere", user="app", password=SECRET))
    assert '"nowhere" does not exist' in text


def test_console_is_for_admins(guard):
    assert connect_error(guard.dsn("pgshunt", user="app", password=SECRET))
    with closing(guard.connect("pgshunt", user="boss", password="boss's")) as connection:
        assert one(connection, "SHOW VERSION")


@pytest.mark.core
def test_scram_secret_in_the_users_file(cluster):
    """A secret copied from pg_authid: the proxy verifies the client with it."""
    node = cluster.shards[0].primary
    node.sql("CREATE ROLE keeper LOGIN PASSWORD 'kept'")
    try:
        secret = node.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'keeper'")
        assert secret.startswith("SCRAM-SHA-256$")
        cluster.sync()
        with Proxy(cluster, options={"auth": {"method": "scram-sha-256"}},
                   users=[{"name": "keeper", "password": secret}]) as proxy:
            with closing(proxy.connect(user="keeper", password="kept")) as connection:
                assert one(connection, "SELECT current_user::text") == "keeper"
            assert "password authentication failed" in connect_error(proxy.dsn(user="keeper", password="not"))
    finally:
        node.sql("DROP OWNED BY keeper; DROP ROLE keeper")


def test_scram_pass_through():
    """With only a SCRAM secret the proxy logs in to a SCRAM server with what the client has proven."""
    with Cluster(shards=1, replicas=0, auth="scram-sha-256") as cluster:
        cluster.create_role("keeper", "kept")
        secret = cluster.shards[0].primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'keeper'")
        with Proxy(cluster, options={"auth": {"method": "scram-sha-256"}},
                   users=[{"name": "keeper", "password": secret}]) as proxy:
            with closing(proxy.connect(user="keeper", password="kept")) as connection:
                assert one(connection, "SELECT current_user::text") == "keeper"


@pytest.mark.core
def test_trust_asks_nothing(cluster, proxy):
    with closing(proxy.connect(user="app")) as connection:
        assert one(connection, "SELECT current_user::text") == "app"


def test_password_the_server_refuses(guarded):
    """The proxy's password for a user is stale: a clear error for the client, with what to do."""
    with Proxy(guarded, options=OPTIONS, users=users(app={"password": "stale"})) as proxy:
        if guarded.auth == "trust":
            assert proxy.value("SELECT 1", user="app", password="stale") == 1
        else:
            with pytest.raises(psycopg2.Error) as caught:
                proxy.sql("SELECT 1", user="app", password="stale")
            assert "password authentication failed" in str(caught.value)


def test_forced_user(guarded):
    """With `user` in the database every client logs in to the servers as that one."""
    with Proxy(guarded, database={"user": "app", "password": SECRET}, options=OPTIONS, users=users()) as proxy:
        with closing(proxy.connect(user="other", password="other's")) as connection:
            assert one(connection, "SELECT current_user::text") == "app"


def test_secrets_are_not_logged(guard):
    log = guard.log()
    assert SECRET not in log and "other's" not in log and "monitor's" not in log
