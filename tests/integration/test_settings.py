"""SET belongs to the client, whatever server its next transaction gets."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from support import fetch, one

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def narrow(cluster):
    """One server connection for all clients, so that every client meets the others' leavings."""
    with Proxy(cluster, options={"pool": {"size": 1}}) as proxy:
        yield proxy


def setting(connection, name):
    return one(connection, "SELECT current_setting(%s, true)", (name,))


def test_set_follows_the_client_and_does_not_leak(narrow):
    with closing(narrow.connect()) as first, closing(narrow.connect()) as second:
        first.cursor().execute("SET statement_timeout = '7s'")
        second.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(5):
            assert setting(first, "statement_timeout") == "7s"
            assert setting(second, "statement_timeout") == "0"
            assert setting(second, "TimeZone") == "Asia/Tokyo"
            assert setting(first, "TimeZone") != "Asia/Tokyo"
        with closing(narrow.connect()) as third:
            assert setting(third, "statement_timeout") == "0" and setting(third, "TimeZone") != "Asia/Tokyo"


def test_reset(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        client.cursor().execute("SET work_mem = '9MB'")
        assert setting(client, "work_mem") == "9MB" and setting(other, "work_mem") == "4MB"
        client.cursor().execute("RESET work_mem")
        assert setting(client, "work_mem") == "4MB"
        client.cursor().execute("SET work_mem = '8MB'")
        client.cursor().execute("RESET ALL")
        assert setting(client, "work_mem") == "4MB"
        client.cursor().execute("SET work_mem = '8MB'")
        client.cursor().execute("DISCARD ALL")
        assert setting(client, "work_mem") == "4MB"


def test_set_local_ends_with_its_transaction(narrow):
    with closing(narrow.connect()) as client:
        cursor = client.cursor()
        cursor.execute("BEGIN")
        cursor.execute("SET LOCAL work_mem = '11MB'")
        assert setting(client, "work_mem") == "11MB"
        cursor.execute("COMMIT")
        assert setting(client, "work_mem") == "4MB"


def test_rollback_undoes_set(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        cursor = client.cursor()
        cursor.execute("SET work_mem = '5MB'")
        cursor.execute("BEGIN")
        cursor.execute("SET work_mem = '12MB'")
        assert setting(client, "work_mem") == "12MB"
        cursor.execute("ROLLBACK")
        assert one(other, "SELECT 1") == 1
        assert setting(client, "work_mem") == "5MB"


def test_wrong_set_is_refused_and_not_remembered(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        with pytest.raises(psycopg2.Error):
            client.cursor().execute("SET work_mem = 'a lot'")
            fetch(client, "SELECT 1")
        client.rollback()
        assert one(other, "SELECT 1") == 1
        assert setting(client, "work_mem") == "4MB"


def test_startup_parameters(narrow):
    with closing(narrow.connect(application_name="shown", options="-c statement_timeout=3s")) as client, \
            closing(narrow.connect()) as other:
        assert setting(client, "application_name") == "shown"
        assert setting(client, "statement_timeout") == "3s"
        assert setting(other, "application_name") != "shown"
        assert setting(client, "application_name") == "shown"


def test_parameter_status_is_told(narrow):
    with closing(narrow.connect()) as client:
        client.cursor().execute("SET TimeZone = 'Asia/Tokyo'")
        fetch(client, "SELECT 1")
        assert client.get_parameter_status("TimeZone") == "Asia/Tokyo"


def test_client_encoding(narrow):
    with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
        client.set_client_encoding("LATIN1")
        for _ in range(3):
            assert one(client, "SELECT 'é'") == "é"
            assert one(other, "SELECT 'é'") == "é"


def test_search_path(cluster, narrow):
    cluster.shards[0].primary.sql("CREATE SCHEMA side; CREATE TABLE side.only_here (id int)")
    cluster.sync()
    try:
        with closing(narrow.connect()) as client, closing(narrow.connect()) as other:
            client.cursor().execute("SET search_path = side, public")
            for _ in range(3):
                assert fetch(client, "SELECT * FROM only_here") == []
                with pytest.raises(psycopg2.errors.UndefinedTable):
                    fetch(other, "SELECT * FROM only_here")
    finally:
        cluster.shards[0].primary.sql("DROP SCHEMA side CASCADE")


def test_temporary_table_stays_with_its_client(narrow):
    """What cannot move pins the server to the client; here: refused or right, never another's table."""
    with closing(narrow.connect("app")) as client:
        try:
            client.cursor().execute("CREATE TEMP TABLE mine (id int)")
        except psycopg2.Error as error:
            assert error.pgcode == "0A000" and error.diag.message_hint
            return
        client.cursor().execute("INSERT INTO mine VALUES (1)")
        assert one(client, "SELECT count(*) FROM mine") == 1
    with closing(narrow.connect()) as other:
        with pytest.raises(psycopg2.errors.UndefinedTable):
            fetch(other, "SELECT * FROM mine")


def test_pgshunt_settings(data):
    """pgshunt.key and pgshunt.shard are the proxy's own."""
    with closing(data.connect()) as client:
        client.cursor().execute("SET pgshunt.shard = 's1'")
        assert one(client, "SHOW pgshunt.shard") == "s1"
        ports = {one(client, "SELECT inet_server_port()") for _ in range(4)}
        client.cursor().execute("RESET pgshunt.shard")
        nodes = {row["port"] for row in data.show("NODES") if row["shard"] == "s1" and row["database"] == "app"}
        assert {int(port) for port in ports} <= {int(port) for port in nodes}
