"""Users who are looked up in the servers' catalog, and what their logins open: no password is written anywhere."""
import os
import re
import threading
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy
from harness.process import wait_until
from harness.proxy import REPO
from support import Raw, connect_error, message, one, startup

AUTH = {"method": "scram-sha-256", "query_user": "looker", "query_password": "look's"}
MONITOR = {"user": "pgshunt", "password": "monitor's"}


@pytest.fixture(scope="module")
def guarded():
    """Postgres that takes SCRAM only; nobody's password is known to the proxy."""
    with Cluster(shards=1, replicas=1, auth="scram-sha-256") as cluster:
        node = cluster.shards[0].primary
        cluster.create_role("looker", "look's", "LOGIN SUPERUSER")
        cluster.create_role("pgshunt", "monitor's", "LOGIN IN ROLE pg_monitor")
        cluster.create_role("ann", "ann's")
        cluster.create_role("bob", "bob's")
        node.sql("CREATE ROLE locked NOLOGIN PASSWORD 'locked''s'; CREATE ROLE bare LOGIN")
        cluster.sync()
        yield cluster


def proxy_of(cluster, users=(), **changes):
    options = {"auth": {**AUTH, **changes.pop("auth", {})}, "monitor": MONITOR, **changes}
    return Proxy(cluster, options=options,
                 users=[{"name": "boss", "password": "boss's", "admin": True}, *users])


@pytest.fixture(scope="module")
def proxy(guarded):
    with proxy_of(guarded) as proxy:
        yield proxy


def whoami(proxy, user, password, **more):
    with closing(proxy.connect(user=user, password=password, **more)) as connection:
        return one(connection, "SELECT current_user::text")


def fresh_user(cluster, name, password):
    cluster.shards[0].primary.sql(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    cluster.sync()


@pytest.mark.core
def test_looked_up_user_logs_in_and_through(guarded, proxy):
    assert whoami(proxy, "ann", "ann's") == "ann"
    assert whoami(proxy, "bob", "bob's") == "bob"
    log = proxy.log()
    assert "ann's" not in log and "SCRAM-SHA-256$" not in log


def test_other_clients_and_workers_use_what_one_has_proven(guarded, proxy):
    """More connections than one worker has, at once: each opens a server connection with the same keys."""
    open_ones = [proxy.connect(user="ann", password="ann's", autocommit=False) for _ in range(8)]
    try:
        pids = set()
        for connection in open_ones:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pids.add(cursor.fetchone()[0])
        assert len(pids) == 8
        # ... also for connections opened later, when nobody logs in
        guarded.shards[0].primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'")
    finally:
        for connection in open_ones:
            connection.close()
    assert whoami(proxy, "ann", "ann's") == "ann"


def test_servers_lost_under_a_client_that_stays(guarded, proxy):
    with closing(proxy.connect(user="bob", password="bob's")) as connection:
        for node in guarded.nodes:
            node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob'")

        def works():
            try:
                return one(connection, "SELECT current_user::text") == "bob"
            except psycopg2.Error:
                return False

        wait_until(works, 20, "a statement after all servers were lost")


@pytest.mark.parametrize("user, password", [("ann", "wrong"), ("nobody", "x"), ("locked", "locked's"), ("bare", "x")])
def test_refused_alike(proxy, user, password):
    assert f'password authentication failed for user "{user}"' in connect_error(proxy.dsn(user=user, password=password))


def test_a_name_that_is_no_utf8(proxy):
    """The catalog cannot be asked for it: nobody of that name exists."""
    with Raw(proxy, login=False) as raw:
        body = b"\0\3\0\0user\0bad\xff\0database\0app\0\0"
        raw.send((len(body) + 4).to_bytes(4, "big") + body)
        kind, body = raw.read()
        assert kind == "R" and body[:4] == b"\0\0\0\x0a", (kind, body)


def test_the_same_shape_for_unknown_users(proxy):
    """Same messages, same salt each time, as for users who exist."""
    def first(user):
        with Raw(proxy, login=False) as raw:
            raw.send(startup(user=user))
            assert raw.read()[0] == "R"
            client_first = b"n,,n=,r=abcdefghijklmnopqr"
            raw.send(message(b"p", b"SCRAM-SHA-256\0" + len(client_first).to_bytes(4, "big") + client_first))
            kind, body = raw.read()
            parts = dict(part.split("=", 1) for part in body[4:].decode().split(","))
            return kind, sorted(parts), parts["i"], parts["s"]

    known, unknown, again = first("ann"), first("nobody"), first("nobody")
    assert known[:3] == unknown[:3] and unknown == again and len(known[3]) == len(unknown[3])
    assert first("somebody")[3] != unknown[3]


def test_valid_until(guarded, proxy):
    """CVE-2025-2291: an expired password opens nothing, also when it was good at the last look-up."""
    node = guarded.shards[0].primary
    node.sql("CREATE ROLE past LOGIN PASSWORD 'x' VALID UNTIL '2001-01-01'; "
             "CREATE ROLE future LOGIN PASSWORD 'x' VALID UNTIL '2101-01-01'; "
             "CREATE ROLE ever LOGIN PASSWORD 'x' VALID UNTIL 'infinity'")
    node.sql("DO $$ BEGIN EXECUTE format('CREATE ROLE soon LOGIN PASSWORD ''x'' VALID UNTIL %L', now() + '3s'); END $$")
    guarded.sync()
    try:
        assert whoami(proxy, "soon", "x") == "soon"
        assert whoami(proxy, "future", "x") == "future" and whoami(proxy, "ever", "x") == "ever"
        assert "password authentication failed" in connect_error(proxy.dsn(user="past", password="x"))
        wait_until(lambda: node.value("SELECT now() > rolvaliduntil FROM pg_authid WHERE rolname = 'soon'"), 20,
                   "the password to expire")
        # The proxy has a server connection of his and the look-up was good for a minute, but for VALID UNTIL.
        assert "password authentication failed" in connect_error(proxy.dsn(user="soon", password="x"))
    finally:
        node.sql("DROP ROLE past; DROP ROLE future; DROP ROLE ever; DROP ROLE soon")


def test_rotation(guarded, proxy):
    """A changed password: refused once at most, then what is known is looked up anew; the old one opens nothing."""
    node = guarded.shards[0].primary
    fresh_user(guarded, "rot", "first")
    try:
        assert whoami(proxy, "rot", "first") == "rot"
        node.sql("ALTER ROLE rot PASSWORD 'second'")
        guarded.sync()
        time.sleep(1.1)  # a look-up younger than a second is not repeated

        def new_one_works():
            try:
                return whoami(proxy, "rot", "second") == "rot"
            except psycopg2.OperationalError as error:
                assert "password authentication failed" in str(error)
                return False

        assert new_one_works() or new_one_works()
        assert "password authentication failed" in connect_error(proxy.dsn(user="rot", password="first"))
        # New server connections are opened with the new keys.
        node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rot'")
        wait_until(new_one_works, 20, "a login with new server connections")
    finally:
        node.sql("DROP ROLE rot")


def test_rotation_seen_by_the_server_first(guarded, proxy):
    """The old password still passes here (the look-up is cached) but not at the server: told, forgotten, asked anew."""
    node = guarded.shards[0].primary
    fresh_user(guarded, "behind", "first")
    try:
        with Proxy(guarded, options={"auth": {**AUTH, "query_cache": "1h"}, "monitor": MONITOR, "workers": 1},
                   users=[{"name": "boss", "password": "b", "admin": True}]) as one_worker:
            assert whoami(one_worker, "behind", "first") == "behind"
            node.sql("ALTER ROLE behind PASSWORD 'second'")
            guarded.sync()
            for server in guarded.nodes:
                server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'behind'")
            with pytest.raises(psycopg2.Error) as caught:
                while True:  # until the lost connections are noticed
                    whoami(one_worker, "behind", "first")
            if "28P01" in str(caught.value) or "another salt" in str(caught.value):
                assert "log in again" in str(caught.value)
            wait_until(lambda: "password authentication failed" in _outcome(one_worker, "behind", "first"), 20,
                       "the old password to be refused")
            wait_until(lambda: _outcome(one_worker, "behind", "second") == "behind", 20, "the new one to work")
    finally:
        node.sql("DROP ROLE behind")


def _outcome(proxy, user, password):
    try:
        return whoami(proxy, user, password)
    except psycopg2.Error as error:
        return str(error)


def test_rotation_with_a_users_file(guarded):
    """A stale secret in the users file: the error says what to do, and the new secret works after a reload at once."""
    node = guarded.shards[0].primary
    fresh_user(guarded, "kept", "first")

    def secret():
        return node.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'kept'")

    try:
        with Proxy(guarded, options={"auth": {"method": "scram-sha-256"}, "monitor": MONITOR},
                   users=[{"name": "kept", "password": secret()}]) as proxy:
            assert whoami(proxy, "kept", "first") == "kept"
            node.sql("ALTER ROLE kept PASSWORD 'second'")
            guarded.sync()
            for server in guarded.nodes:
                server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'kept'")
            text = wait_until(lambda: next((t for t in [_outcome(proxy, "kept", "first")] if "salt" in t), None), 20,
                              "the server to refuse the old keys")
            assert "users file needs the new rolpassword" in text
            assert "password authentication failed" in _outcome(proxy, "kept", "second")
            proxy.users = [{"name": "kept", "password": secret()}]
            proxy.write_config()
            proxy.reload()
            wait_until(lambda: _outcome(proxy, "kept", "second") == "kept", 20, "the new secret")
    finally:
        node.sql("DROP ROLE kept")


def test_several_at_once_share_a_look_up(guarded):
    """Eight clients of one user, none known yet: the catalog is asked once."""
    node = guarded.shards[0].primary
    node.sql("CREATE TABLE asked (who text); CREATE FUNCTION look(who text) RETURNS TABLE (n name, s text) "
             "LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
             "INSERT INTO public.asked VALUES (who); PERFORM pg_sleep(0.5); "
             "RETURN QUERY SELECT rolname, rolpassword FROM pg_authid WHERE rolname = who; END $$")
    guarded.sync()
    try:
        with proxy_of(guarded, auth={"query": "SELECT * FROM public.look($1)"}) as proxy:
            proxy.connect("pgshunt", user="boss", password="boss's").close()
            results = []
            threads = [threading.Thread(target=lambda: results.append(_outcome(proxy, "ann", "ann's")))
                       for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert results == ["ann"] * 8
            assert node.value("SELECT count(*) FROM asked") == 1
    finally:
        node.sql("DROP FUNCTION look; DROP TABLE asked")


def test_nothing_of_the_client_reaches_the_look_up(guarded):
    """CVE-2025-12819: search_path and other startup parameters are the client's own affair."""
    node = guarded.shards[0].primary
    node.sql("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO ann; "
             "CREATE TABLE evil.pg_authid AS SELECT 'boo'::name AS rolname, 'boo'::text AS rolpassword, "
             "true AS rolcanlogin, null::timestamptz AS rolvaliduntil; "
             "CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'")
    guarded.sync()
    query = "SELECT rolname, rolpassword || '' FROM pg_authid WHERE rolname = $1 -- unqualified"
    try:
        with proxy_of(guarded, auth={"query": query}) as proxy:
            for options in ("-c search_path=evil,pg_catalog", "-c search_path=evil -c role=postgres"):
                text = connect_error(proxy.dsn(user="boo", password="boo", options=options))
                assert "password authentication failed" in text
            with closing(proxy.connect(user="ann", password="ann's", options="-c search_path=evil,pg_catalog")) as c:
                assert one(c, "SHOW search_path") == "evil,pg_catalog"
    finally:
        node.sql("DROP SCHEMA evil CASCADE")


def test_catalog_down_is_no_wrong_password(guarded):
    with proxy_of(guarded, auth={"query_password": "stale"},
                  users=[{"name": "bob", "password": "bob's"}]) as proxy:
        with pytest.raises(psycopg2.OperationalError) as caught:
            proxy.connect(user="ann", password="ann's")
        text = str(caught.value)
        assert "look-up of users failed" in text and "HINT" in text and "password authentication failed" not in text
        assert "cannot look up users" in proxy.log()
        assert whoami(proxy, "bob", "bob's") == "bob"  # the users file needs no catalog


def test_a_query_that_fails(guarded):
    for query in ("SELECT 1 WHERE $1 = ''", "SELECT rolname, rolpassword FROM pg_authid WHERE $1 <> ''",
                  "SELECT 'postgres'::name, rolpassword FROM pg_authid WHERE rolname = $1", "nonsense $1",
                  "SELECT $1::name, 'x', 'no number'"):
        with proxy_of(guarded, auth={"query": query}, workers=1) as proxy:
            assert "look-up of users failed" in connect_error(proxy.dsn(user="ann", password="ann's")), query


def test_a_replica_answers_when_the_primary_does_not(guarded):
    primary = guarded.shards[0].primary
    with proxy_of(guarded, routing={"check_timeout": "500ms"}) as proxy:
        proxy.connect("pgshunt", user="boss", password="boss's").close()
        primary.stop()
        try:
            def gets_in():
                try:
                    return whoami(proxy, "ann", "ann's") == "ann"
                except psycopg2.OperationalError:
                    return False
            wait_until(gets_in, 30, "a login while the primary is away")
        finally:
            primary.start()


def test_a_slow_catalog_holds_nobody_else(guarded):
    """A look-up that hangs: its client gets an error in time, others log in meanwhile."""
    with proxy_of(guarded, auth={"query": "SELECT $1::name, 'x' FROM pg_sleep(30)", "query_timeout": "700ms"},
                  users=[{"name": "bob", "password": "bob's"}], workers=1) as proxy:
        result = []
        thread = threading.Thread(target=lambda: result.append(_outcome(proxy, "ann", "ann's")))
        thread.start()
        assert whoami(proxy, "bob", "bob's") == "bob"
        thread.join()
        assert "look-up of users failed" in result[0]


def test_a_reload_during_a_look_up(guarded):
    """The look-up begins again with the new configuration; its client notices nothing."""
    with proxy_of(guarded, auth={"query": "SELECT $1::name, 'x' FROM pg_sleep(30)", "query_timeout": "30s"},
                  workers=1) as proxy:
        result = []
        thread = threading.Thread(target=lambda: result.append(_outcome(proxy, "ann", "ann's")))
        thread.start()
        node = guarded.shards[0].primary
        wait_until(lambda: node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt auth' "
                                      "AND wait_event = 'PgSleep'"), 20, "the look-up")
        proxy.change({"auth": {"query": ""}})
        proxy.reload()
        thread.join()
        assert result == ["ann"]


def test_clients_that_leave_while_waiting(guarded):
    with proxy_of(guarded, auth={"query": "SELECT $1::name, 'x' FROM pg_sleep(1)"}, workers=1) as proxy:
        for _ in range(5):
            with Raw(proxy, login=False) as raw:
                raw.send(startup(user="ann"))
        with Raw(proxy, login=False) as raw:  # floods while it waits
            raw.send(startup(user="ann"), b"p" * 200_000)
            assert raw.at_end()
        assert "password authentication failed" in _outcome(proxy, "ann", "y")


def test_plain_and_md5_secrets(guarded):
    query = ("SELECT $1::name, CASE $1 WHEN 'ann' THEN 'ann''s' WHEN 'bob' THEN 'md5' || md5('bob''sbob') "
             "WHEN 'empty' THEN '' END")
    for method in ("md5", "password"):
        with proxy_of(guarded, auth={"query": query, "method": method}) as proxy:
            assert whoami(proxy, "ann", "ann's") == "ann"  # a plain password answers SCRAM too
            text = connect_error(proxy.dsn(user="bob", password="bob's"))  # md5 does not
            assert "neither a plain password is known" in text and "HINT" in text
            for user in ("ann", "bob", "empty", "null"):
                assert "password authentication failed" in connect_error(proxy.dsn(user=user, password="wrong"))


def test_clear_text_password_against_a_scram_secret(guarded):
    """Method password: what was proven opens the servers as SCRAM would."""
    with proxy_of(guarded, auth={"method": "password"}) as proxy:
        assert whoami(proxy, "ann", "ann's") == "ann"
        assert "password authentication failed" in connect_error(proxy.dsn(user="ann", password="wrong"))
        assert "password authentication failed" in connect_error(proxy.dsn(user="nobody", password="wrong"))


def test_md5_answer_is_checked_again_when_the_secret_has_changed(guarded):
    node = guarded.shards[0].primary
    node.sql("CREATE TABLE secrets (n name, s text); INSERT INTO secrets VALUES ('ann', 'old')")
    guarded.sync()
    try:
        with proxy_of(guarded, auth={"query": "SELECT n, s FROM public.secrets WHERE n = $1", "method": "md5",
                                     "query_cache": "1h"}) as proxy:
            assert "password authentication failed" in _outcome(proxy, "ann", "ann's")
            node.sql("UPDATE secrets SET s = 'ann''s'")
            guarded.sync()
            time.sleep(1.1)
            assert whoami(proxy, "ann", "ann's") == "ann"  # in the very first attempt
    finally:
        node.sql("DROP TABLE secrets")


def test_per_database_settings(guarded):
    """A database with a look-up of its own; another without any."""
    shards = guarded.shard_config()
    own = {"name": "own", "shards": guarded.shard_config(), "auth_user": "looker", "auth_password": "look's",
           "auth_dbname": "postgres"}
    with Proxy(guarded, databases=[{"name": "app", "shards": shards}, own],
               options={"auth": {"method": "scram-sha-256"}, "monitor": MONITOR}, users=[]) as proxy:
        assert whoami(proxy, "ann", "ann's", dbname="own") == "ann"
        assert "password authentication failed" in connect_error(proxy.dsn("app", user="ann", password="ann's"))


def test_console_admin_with_a_looked_up_password(guarded):
    with proxy_of(guarded, users=[{"name": "ann", "admin": True}]) as proxy:
        with closing(proxy.connect("pgshunt", user="ann", password="ann's")) as connection:
            assert one(connection, "SHOW VERSION")
        assert connect_error(proxy.dsn("pgshunt", user="bob", password="bob's"))


def test_unknown_database(guarded, proxy):
    assert '"nowhere" does not exist' in connect_error(proxy.dsn("nowhere", user="ann", password="ann's"))


def test_reload_forgets(guarded):
    node = guarded.shards[0].primary
    node.sql("CREATE TABLE secrets (n name, s text); INSERT INTO secrets VALUES ('ann', 'old')")
    guarded.sync()
    try:
        with proxy_of(guarded, auth={"query": "SELECT n, s FROM public.secrets WHERE n = $1",
                                     "query_cache": "1h"}) as proxy:
            assert "password authentication failed" in _outcome(proxy, "ann", "ann's")
            node.sql("UPDATE secrets SET s = 'ann''s'")
            guarded.sync()
            proxy.reload()
            assert whoami(proxy, "ann", "ann's") == "ann"
    finally:
        node.sql("DROP TABLE secrets")


def test_the_function_of_the_guide(guarded):
    """The SQL of docs/guide/authentication.md, run by a user without any privilege of its own."""
    node = guarded.shards[0].primary
    guide = os.path.join(REPO, "docs", "guide", "authentication.md")
    with open(guide) as text:
        sql = re.search(r"```sql\n(.*?)```", text.read(), re.S).group(1).replace("'...'", "'look''s'")
    node.sql(sql)
    node.sql("CREATE ROLE chief SUPERUSER LOGIN PASSWORD 'x'")
    guarded.sync()
    try:
        with proxy_of(guarded, auth={"query_user": "pgshunt_auth",
                                     "query": "SELECT * FROM pgshunt_auth.look_up($1)"}) as proxy:
            assert whoami(proxy, "ann", "ann's") == "ann"
            assert "password authentication failed" in connect_error(proxy.dsn(user="chief", password="x"))
            assert "password authentication failed" in connect_error(proxy.dsn(user="locked", password="locked's"))
    finally:
        node.sql("DROP SCHEMA pgshunt_auth CASCADE; DROP ROLE chief; DROP ROLE pgshunt_auth")
