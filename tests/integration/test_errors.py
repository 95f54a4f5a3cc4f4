"""What goes wrong is said clearly: SQLSTATE, message, hint."""
import time
from contextlib import closing

import psycopg2
import pytest

from harness import Cluster, Proxy, free_port
from support import connect_error, fetch, one, refused

pytestmark = pytest.mark.core


def test_unknown_database(proxy):
    assert '"nowhere" does not exist' in connect_error(proxy.dsn("nowhere"))


def test_no_server_at_all():
    """Every node is down: an error within the limit, not a hang."""
    nowhere = [{"name": "app", "shards": [{"name": "s0", "dbname": "app",
                                           "nodes": [{"host": "127.0.0.1", "port": free_port()}]}]}]
    with Proxy(databases=nowhere, options={"pool": {"connect_timeout": "1s", "query_wait_timeout": "2s"}}) as proxy:
        began = time.monotonic()
        with pytest.raises(psycopg2.Error) as caught:
            proxy.sql("SELECT 1")
        assert time.monotonic() - began < 10
        code = caught.value.pgcode
        assert code in (None, "08006", "08001", "57P03", "53300"), code
        assert "s0" in str(caught.value) or "server" in str(caught.value)


def test_server_error_comes_with_all_its_fields(data):
    with pytest.raises(psycopg2.errors.UniqueViolation) as caught:
        data.sql("INSERT INTO users (id, name) VALUES (1, 'again')")
    diag = caught.value.diag
    assert diag.constraint_name == "users_pkey" and diag.table_name == "users" and "(1)" in diag.message_detail


def test_pool_exhausted(cluster):
    """No connection within query_wait_timeout: an error that says so, and the client may go on."""
    options = {"pool": {"size": 1, "query_wait_timeout": "300ms"}, "routing": {"read_write_split": False}}
    with Proxy(cluster, options=options) as proxy:
        with closing(proxy.connect()) as holder, closing(proxy.connect()) as waiting:
            holder.cursor().execute("BEGIN")
            one(holder, "SELECT 1")
            with refused(("53300", "57014", "08006", "55P03")):
                one(waiting, "SELECT 2")
            holder.cursor().execute("COMMIT")
            with closing(proxy.connect()) as later:
                assert one(later, "SELECT 3") == 3


def test_too_many_clients(cluster):
    with Proxy(cluster, options={"limits": {"max_clients": 2}}) as proxy:
        with closing(proxy.connect()), closing(proxy.connect()):
            text = connect_error(proxy.dsn())
            assert "too many" in text or "max_clients" in text
        time.sleep(0.2)
        assert proxy.value("SELECT 1") == 1


def test_backend_that_is_terminated(cluster, data):
    """57P01 from the server reaches the client as an error; the client's connection lives on or says why not."""
    with closing(data.connect()) as connection:
        connection.cursor().execute("BEGIN")
        pid = one(connection, "SELECT pg_backend_pid() FROM users WHERE id = 1 FOR UPDATE")
        home = next(node for node in cluster.primaries if node.value("SELECT count(*) FROM users WHERE id = 1"))
        home.sql("SELECT pg_terminate_backend(%s)", (pid,))
        time.sleep(0.2)
        with pytest.raises(psycopg2.Error):
            fetch(connection, "SELECT * FROM users WHERE id = 1")
    assert data.value("SELECT count(*) FROM users") == 200


def test_idle_server_connections_that_died_are_not_used(cluster, data):
    """Every pooled connection is terminated; the next statements of clients work all the same."""
    for _ in range(4):
        data.sql("SELECT count(*) FROM users")
    for node in cluster.nodes:
        node.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                 "AND backend_type = 'client backend' AND datname = 'app'")
    time.sleep(0.3)
    for _ in range(8):
        assert data.value("SELECT count(*) FROM users") == 200
        data.sql("UPDATE notes SET body = body WHERE id = 1")


def test_statement_timeout_is_the_servers(data):
    """A statement timeout of the server is the server's error, as it is."""
    with closing(data.connect()) as connection:
        connection.cursor().execute("SET statement_timeout = '100ms'")
        with pytest.raises(psycopg2.errors.QueryCanceled):
            fetch(connection, "SELECT pg_sleep(5)")
        connection.cursor().execute("RESET statement_timeout")
        assert one(connection, "SELECT 1") == 1


def test_monitor_user_that_cannot_log_in_is_logged():
    with Cluster(shards=1, replicas=0, auth="scram-sha-256") as cluster:
        with Proxy(cluster, options={"monitor": {"user": "missing"}}) as proxy:
            proxy.wait_log("missing|authentication|password", 10.0)
