"""Whatever takes part in making a replica the new shard is killed at every step: nothing is lost, doubled or left behind."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from reshard_clone import STEPS, CloneScene, make_cluster  # noqa: E402
from reshard_kills import END_STEPS, needs_failpoints  # noqa: E402

pytestmark = [pytest.mark.slow, needs_failpoints]


@pytest.fixture
def scene():
    with make_cluster() as cluster, CloneScene(cluster) as scene:
        yield scene


def bring_home(scene):
    """A job that nobody disturbs, so that all rows are where they belong."""
    scene.create()
    scene.run()
    scene.must("verify", "job")
    scene.repeat("switch", "job", "--max-pause", "5s")
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.judge()


@pytest.mark.parametrize("victim", ["engine", "proxy", "source", "target"])
def test_run(scene, victim):
    """From a created job to streams that keep both sides alike; it is cancelled then, and the clone thrown away."""
    for step in STEPS:
        print(f"==== run, {step}, {victim}")
        scene.run_survives(step, victim)
        scene.new_replica()
    bring_home(scene)


@pytest.mark.parametrize("victim", ["engine", "target"])
def test_ends(scene, victim):
    """At each step of a cancel behind the promotion, and of the completion."""
    for step in END_STEPS:
        print(f"==== cancel, {step}, {victim}")
        scene.create()
        scene.run()
        scene.end_survives("cancel", step, victim)
        scene.new_replica()
    scene.create()
    scene.run()
    scene.repeat("switch", "job", "--max-pause", "5s")
    for step in END_STEPS:
        print(f"==== complete, {step}, {victim}")
        scene.kill_at(step, victim, "complete", "job")
        if scene.state() == "completed":
            break
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.judge()


def test_server_is_gone(scene):
    """A clone that was thrown away before the job was cancelled: the source keeps nothing of it."""
    scene.create()
    scene.run()
    node = scene.cluster.shards[2].primary
    node.kill9()
    scene.repeat("cancel", "job", tries=3)
    scene.stop_runner()
    scene.forget()
    scene.new_replica()
    scene.nothing_is_left()
    bring_home(scene)
