"""Resharding between Postgres of different major versions: the whole way there, back and there again, under writes."""
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "integration"))

from harness import REPO, Cluster, pg_binary  # noqa: E402
from reshard_kills import Scene  # noqa: E402
from reshard_ledger import TABLES  # noqa: E402
from versions.install import install  # noqa: E402

pytestmark = pytest.mark.slow
PAIRS = [(13, 18), (15, 17), (14, 16), (18, 13)]


@pytest.fixture(scope="module")
def programs():
    there = install(os.path.join(REPO, "build", "versions"))
    there[15] = os.path.dirname(pg_binary("postgres"))
    return there


class Two:
    """A cluster of one shard, and another of another version."""

    def __init__(self, source, target):
        self.clusters = source, target
        self.primaries = [cluster.primaries[0] for cluster in self.clusters]

    def shard_config(self):
        shards = [cluster.shard_config()[0] for cluster in self.clusters]
        for number, shard in enumerate(shards):
            shard["name"] = f"s{number}"
        return shards


class VersionScene(Scene):
    """Tables come to the target by pg_dump, where the one that is installed (15) reads the source."""

    weights = (1, 0)

    def __init__(self, cluster, dumped):
        self.dumped = dumped
        super().__init__(cluster)

    def make_tables(self):
        for node in self.cluster.primaries[:1] if self.dumped else self.cluster.primaries:
            node.sql(TABLES)

    def create(self):
        self.must("create", "job", "--move", "0-16383:s1", *(["--prepare-schema"] if self.dumped else []))


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}")
def scene(request, programs):
    source, target = request.param
    with Cluster(shards=1, replicas=0, bindir=programs[source]) as one, Cluster(shards=1, replicas=0, bindir=programs[target]) as other:
        found = [cluster.primaries[0].value("SHOW server_version_num") for cluster in (one, other)]
        assert [int(version) // 10000 for version in found] == [source, target]
        cluster = Two(one, other)
        with VersionScene(cluster, source <= 15) as scene:
            yield scene


def test_there_and_back(scene):
    """Every row moves to the other version, back, and there again: nothing is lost, and nothing of the job is left."""
    scene.create()
    scene.run()
    scene.ledger.progress()
    scene.must("verify", "job")
    for verb in ("switch", "rollback", "switch"):
        scene.repeat(verb, "job", "--max-pause", "5s")
        scene.ledger.progress()
        scene.must("verify", "job")
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    assert scene.ledger.interrupted() == []
    scene.judge()
    assert scene.cluster.primaries[0].value("SELECT count(*) FROM users") == 0
