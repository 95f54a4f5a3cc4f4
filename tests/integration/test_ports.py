"""Ports for those who want no rules: everything on primaries, or everything on replicas."""
from contextlib import closing

import pytest

from harness import Proxy, wait_until
from harness.process import free_port
from support import fetch, one, refused

pytestmark = pytest.mark.core

ASK = "SELECT pg_is_in_recovery()"


@pytest.fixture(scope="module")
def ports(cluster):
    shards = [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]
    databases = [{"name": "plain", "shards": shards}, {"name": "off", "shards": shards, "read_write_split": "off"},
                 {"name": "alone", "shards": [dict(shards[0], nodes=shards[0]["nodes"][:1])]}]
    listen = {"primary_port": free_port(), "replica_port": free_port()}
    with Proxy(cluster, databases=databases, options={"listen": listen, "routing": {"max_lag": "1h"}}) as proxy:
        proxy.wait_nodes()
        wait_until(lambda: proxy.value(ASK, dbname="plain"), 10.0, "reads on the replica")
        proxy.primary_port, proxy.replica_port = listen["primary_port"], listen["replica_port"]
        yield proxy


@pytest.mark.parametrize("comment", ["", "/* pgshunt: replica */", "/* pgshunt: primary */"])
def test_the_port_decides(ports, comment):
    with closing(ports.connect("plain", port=ports.primary_port)) as client:
        assert one(client, ASK + comment) is False
    with closing(ports.connect("plain", port=ports.replica_port)) as client:
        assert one(client, ASK + comment) is True
        if "primary" not in comment:
            assert one(client, "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1 " + comment) is True


def test_a_session_on_the_replica_port(ports):
    with closing(ports.connect("plain", port=ports.replica_port)) as client:
        cursor = client.cursor()
        cursor.execute("SET work_mem = '7MB'")
        cursor.execute("SET pgshunt.route = 'primary'")
        assert one(client, "SHOW work_mem") == "7MB" and one(client, "SHOW transaction_read_only") == "on"
        cursor.execute("BEGIN")
        assert one(client, ASK) is True
        cursor.execute("COMMIT")
        cursor.execute("COMMIT")
        for sql in "CREATE TABLE never (id int)", "SELECT nextval('never')", "DO 'begin end'":
            with refused("25006", "this port is for reads"):
                cursor.execute(sql)
        assert one(client, ASK) is True
    with closing(ports.connect3("off", port=ports.replica_port)) as client:
        for _ in range(7):
            assert client.execute(ASK + " WHERE %s > 0", (1,)).fetchone() == (True,)
        with client.pipeline():
            answers = [client.execute(ASK) for _ in range(3)]
            assert [answer.fetchone() for answer in answers] == [(True,)] * 3


def test_writes_on_the_primary_port(ports):
    with closing(ports.connect("plain", port=ports.primary_port)) as client:
        cursor = client.cursor()
        cursor.execute("CREATE TABLE by_port (id int)")
        cursor.execute("BEGIN READ ONLY")
        assert one(client, ASK) is False
        cursor.execute("COMMIT")
        assert fetch(client, "SELECT * FROM by_port") == []
        cursor.execute("DROP TABLE by_port")


def test_without_a_replica_the_replica_port_refuses(ports):
    with closing(ports.connect("alone", port=ports.replica_port)) as client:
        with refused("55000"):
            one(client, ASK)
