"""Lookups of tables sharded by several columns: by another column, or by a part of the key alone, a row's shard is found."""
from contextlib import closing

import pytest

from ctl_support import ctl
from harness import Proxy, wait_until
from support import explain, fetch, one

pytestmark = pytest.mark.core

KEYSPACE = {"name": "folk", "type": "bigint", "types": ["bigint", "text"],
            "tables": [{"name": "folk", "key": ["tenant", "code"]}, {"name": "deeds", "key": ["tenant", "code"]}],
            "lookup": [{"table": "folk", "column": "email", "unique": True}, {"table": "folk", "column": "code"},
                       {"table": "deeds", "column": "id", "unique": True}]}
TABLES = {"folk": "email text, code varchar(40), tenant int, PRIMARY KEY (tenant, code)",
          "deeds": "id bigint, tenant int, code varchar(40), note text"}
ODD = ["a,b", 'c"d', "e\\f", "{g}", "", "é ü", "[\"h\"]", "i'j"]


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=[KEYSPACE]) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            for name, columns in TABLES.items():
                cursor.execute(f"CREATE TABLE {name} ({columns})")
            for number in range(60):
                code = ODD[number] if number < len(ODD) else f"c{number}"
                cursor.execute("INSERT INTO folk VALUES (%s, %s, %s)", (f"u{number}@x.org", code, number % 4))
                cursor.execute("INSERT INTO deeds VALUES (%s, %s, %s, 'x')", (1000 + number, number % 4, code))
        ctl(proxy, "lookup", "create", "app")
        proxy.sql("CREATE TABLE touched (n int)")  # the schema is read anew soon
        proxy.sql("DROP TABLE touched")
        wait_until(lambda: [row["state"] for row in proxy.show("LOOKUPS")] == ["ready"] * 3, 60.0, "lookups to be ready")
        yield proxy
        for name in ("folk.email", "folk.code", "deeds.id"):
            ctl(proxy, "lookup", "drop", "app", name)
        for node in cluster.primaries:
            node.sql("DROP TABLE folk; DROP TABLE deeds")


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        connection.cursor().execute("SET pgshunt.route = 'primary'")
        yield connection


def test_statements_go_to_the_rows_shard(app):
    for number in (*range(len(ODD)), 30, 59):
        code = ODD[number] if number < len(ODD) else f"c{number}"
        where = f"SELECT tenant, code FROM folk WHERE email = 'u{number}@x.org'"
        assert "direct to shard" in explain(app, where)
        assert fetch(app, where) == fetch(app, where) == [(number % 4, code)]
        assert fetch(app, f"SELECT f.email, d.id FROM folk f JOIN deeds d ON d.tenant = f.tenant AND d.code = f.code WHERE d.id = {1000 + number}"
                     ) == [(f"u{number}@x.org", 1000 + number)]
    assert fetch(app, "SELECT tenant FROM folk WHERE email = 'nobody'") == []


def test_changes_by_a_lookup(cluster, app):
    def change(sql):
        cursor = app.cursor()
        cursor.execute(sql)
        return cursor.statusmessage

    assert "direct to shard" in explain(app, "UPDATE deeds SET note = 'y' WHERE id = 1030")
    assert change("UPDATE deeds SET note = 'y' WHERE id = 1030") == "UPDATE 1"
    # A row that gets another key is found where it is then.
    for tenant in range(4, 12):
        assert change(f"UPDATE deeds SET tenant = {tenant} WHERE id = 1030") == "UPDATE 1"
        assert fetch(app, "SELECT tenant, note FROM deeds WHERE id = 1030") == [(tenant, "y")]
    # A part of the key alone: not unique, several tenants may have it.
    assert change("INSERT INTO folk VALUES ('other', 'c30', 50)") == "INSERT 0 1"
    assert one(app, "SELECT count(*) FROM folk WHERE code = 'c30'") == 2
    assert change("DELETE FROM folk WHERE code = 'c30' AND tenant = 50") == "DELETE 1"


def test_a_whole_key_asks_no_lookup(proxy, app):
    def asked():
        return sum(int(row[column]) for row in proxy.show("LOOKUPS") for column in ("hits", "misses") if row["lookup"] == "folk.code")

    before = asked()
    for tenant, code in ((3, "c31"), (0, "c32"), (1, "c33")):
        assert one(app, f"SELECT count(*) FROM folk WHERE code = '{code}' AND tenant = {tenant}") == 1
        assert one(app, f"SELECT count(*) FROM folk WHERE (tenant, code) = ({tenant}, '{code}')") == 1
    assert asked() == before


def test_verify_and_doubles(cluster, proxy):
    assert "All is well." in ctl(proxy, "lookup", "verify", "app").out
    row = next(row for row in proxy.show("LOOKUPS") if row["lookup"] == "folk.email")
    assert row["key"] == "tenant, code"
    proxy.sql("INSERT INTO folk VALUES ('u1@x.org', 'twice', 7)")
    ran = ctl(proxy, "lookup", "verify", "app", code=5)
    assert "'u1@x.org' is of several keys" in ran.out
    proxy.sql("DELETE FROM folk WHERE code = 'twice' AND tenant = 7")
    # A row that a move of its buckets has on two shards is one.
    home = next(node for node in cluster.primaries if node.value("SELECT count(*) FROM folk WHERE email = 'u0@x.org'") == 1)
    other = next(node for node in cluster.primaries if node is not home)
    other.sql("INSERT INTO folk VALUES ('u0@x.org', 'a,b', 0)")
    assert "All is well." in ctl(proxy, "lookup", "verify", "app").out
    other.sql("DELETE FROM folk WHERE email = 'u0@x.org'")
