"""Whatever takes part in bringing tables into a keyspace, and out of it, is killed: nothing is lost, doubled or left behind."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from reshard_kills import END_STEPS, TURN_STEPS, Scene, make_cluster, needs_failpoints  # noqa: E402
from reshard_ledger import TABLES  # noqa: E402
from reshard_support import forget_everything  # noqa: E402

pytestmark = [pytest.mark.slow, needs_failpoints]
VICTIMS = ["engine", "proxy", "source", "target"]
RUN_STEPS = ["run_begun", "run_ghosts", "run_snapshots", "run_copied", "run_reverse"]


class TableScene(Scene):
    """Tables that only s0 has, which keeps the catalog, too; their keyspace has a third of its buckets on each shard."""

    command, keyspace, weights = "move-table", {"name": "users", "type": "bigint"}, (1, 1, 1)
    shard_of = {"source": 0, "target": 2}
    givers = {"switch": (0,), "rollback": (1, 2)}

    def make_tables(self):
        self.cluster.primaries[0].sql(TABLES)

    def create(self, out=False):
        where = ["--out"] if out else ["--into", "users", "--by", "users.id,user_id", "--prepare-schema"]
        self.must("create", "job", "--tables", "users,orders", *where)

    def whole(self, verb="switch", **how):
        self.create(**how)
        self.run()
        self.repeat(verb, "job", "--max-pause", "5s")

    def rules(self):
        return self.cluster.primaries[0].sql("SELECT name, keyspace, job FROM pgshunt.table_rule ORDER BY name")

    def is_home(self):
        return [node.value("SELECT count(*) FROM users") > 0 for node in self.cluster.primaries] == [True, False, False]


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as cluster:
        yield cluster


@pytest.fixture
def scene(cluster):
    forget_everything(*cluster.primaries)
    with TableScene(cluster) as scene:
        yield scene


@pytest.mark.parametrize("victim", VICTIMS)
def test_run(scene, victim):
    """From a created job to streams; after its cancel the tables are what they were."""
    for step in RUN_STEPS:
        print(f"==== run, {step}, {victim}")
        scene.run_survives(step, victim)
        assert scene.rules() == []
    scene.whole()
    scene.must("verify", "job")
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.judge()


@pytest.mark.parametrize("victim", [*VICTIMS, "lease"])
def test_switch_and_rollback(scene, victim):
    """At each step of a switch, and of the rollback behind it."""
    scene.create()
    scene.run()
    steps = TURN_STEPS if victim != "lease" else ["drain", "marker", "guard"]
    for step in steps:
        for verb in ("switch", "rollback"):
            print(f"==== {verb}, {step}, {victim}")
            scene.turn_survives(verb, step, victim, "--max-pause", "500ms" if victim == "lease" else "5s")
    if victim in ("engine", "lease"):
        assert scene.ledger.interrupted() == [], "no client notices"
    scene.must("verify", "job")
    scene.repeat("switch", "job", "--max-pause", "5s")
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.judge()


@pytest.mark.parametrize("victim", VICTIMS)
def test_complete_both_ways(scene, victim):
    """In and out again, in turn: what has become of the tables is the same on all proxies, whoever died meanwhile."""
    for number, step in enumerate(END_STEPS):
        print(f"==== complete, {step}, {victim}, {'out' if number % 2 else 'in'}")
        scene.whole(out=bool(number % 2))
        scene.end_survives("complete", step, victim)
        keyspace = None if number % 2 else "users"
        assert scene.rules() == [("orders", keyspace, None), ("users", keyspace, None)]
        assert scene.is_home() == bool(number % 2)
    scene.whole()
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.forget()
    for step in END_STEPS:
        print(f"==== cancel, {step}, {victim}, out")
        scene.create(out=True)
        scene.run()
        scene.end_survives("cancel", step, victim)
        assert scene.rules() == [("orders", "users", None), ("users", "users", None)]
    scene.judge()
