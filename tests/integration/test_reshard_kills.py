"""Servers and proxies die at named steps of a resharding: the core of the matrix that `make check-reshard` runs whole."""
import pytest

from reshard_kills import Scene, make_cluster, needs_failpoints

pytestmark = [pytest.mark.slow, needs_failpoints]

TURNS = [("switch", "guard", "catalog"), ("rollback", "marker", "source"), ("switch", "flip", "target")]


@pytest.fixture
def scene():
    with make_cluster() as cluster, Scene(cluster) as scene:
        yield scene


def test_core_of_the_matrix(scene):
    """After each death the command is repeated, and all is as if nothing had died."""
    scene.run_survives("run_snapshots", "source")
    scene.create()
    scene.run()
    for verb, step, victim in TURNS:
        scene.turn_survives(verb, step, victim, "--max-pause", "5s")
    scene.end_survives("complete", "objects_gone", "catalog")
    assert scene.ledger.interrupted(), "somebody must have noticed"
    scene.judge()
