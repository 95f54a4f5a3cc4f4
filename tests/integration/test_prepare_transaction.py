"""Transactions that an application prepares itself: on one shard, and which shard it was."""
from contextlib import closing

import pytest
from harness import Proxy
from harness.sample import USERS
from support import SYNC, Raw, bind, error_of, execute, parse, refused

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def sharded(cluster, data):
    with Proxy(cluster, keyspaces=[USERS], reference=["countries"]) as proxy:
        proxy.wait_nodes()
        yield proxy


@pytest.fixture
def client(sharded):
    with closing(sharded.connect()) as client:
        yield client


def run(client, *statements):
    for statement in statements:
        client.cursor().execute(statement)


def prepared(cluster):
    """Where which transactions are prepared."""
    return [(index, gid) for index, shard in enumerate(cluster.shards)
            for (gid,) in shard.primary.sql("SELECT gid FROM pg_prepared_xacts ORDER BY gid")]


def test_over_several_shards(client, cluster):
    run(client, "BEGIN", "UPDATE users SET name = name")
    with refused("0A000", "several shards"):
        run(client, "PREPARE TRANSACTION 'wide'")
    run(client, "ROLLBACK")
    assert prepared(cluster) == []


def test_over_several_shards_in_a_pipeline(sharded, cluster):
    with Raw(sharded) as raw:
        answer = raw.ask(parse("", "BEGIN"), bind("", ""), execute(),
                         parse("", "UPDATE users SET name = name"), bind("", ""), execute(),
                         parse("", "PREPARE TRANSACTION 'wide'"), bind("", ""), execute(), SYNC)
        assert error_of(answer)["C"] == "0A000"
    assert prepared(cluster) == []


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("shard", [0, 1])
def test_on_one_shard(client, cluster, shard, end):
    named = f"s{shard}"
    gid = f"of {named}"
    run(client, f"SET pgshunt.shard = '{named}'", "BEGIN", "UPDATE users SET name = name",
        f"PREPARE TRANSACTION '{gid}'", "RESET pgshunt.shard")
    assert prepared(cluster) == [(shard, gid)]
    with refused("0A000", "prepared the transaction"):
        run(client, f"{end} PREPARED '{gid}'")
    run(client, f"{end} PREPARED '{gid}' /* pgshunt: shard={named} */")
    assert prepared(cluster) == []


def test_end_by_the_setting(client, cluster):
    run(client, "SET pgshunt.shard = 's1'", "BEGIN", "UPDATE users SET name = name",
        "PREPARE TRANSACTION 'said'", "ROLLBACK PREPARED 'said'")
    assert prepared(cluster) == []
