"""pgshuntctl partition dies at named steps: the core of the matrix that `make check-reshard` runs whole."""
import pytest

from partition_kills import CREATE_STEPS, MAINTAIN_STEPS, Scene, make_cluster, needs_failpoints

pytestmark = [pytest.mark.slow, needs_failpoints]


@pytest.fixture(scope="module")
def scene():
    with make_cluster() as cluster, Scene(cluster) as scene:
        yield scene


@pytest.mark.parametrize("step", CREATE_STEPS)
def test_create(scene, step):
    """The same command again, or the next run, finishes what was begun."""
    scene.create_survives(step, "command")


def test_maintain(scene):
    """The next run finishes; every row is there once, nothing is left behind."""
    scene.begin("kept", "drop")
    for step in MAINTAIN_STEPS:
        print(f"==== {step}")
        scene.maintain_survives("kept", step, "command", "drop")
    scene.end("kept")


def test_strays_of_the_default_partition(scene):
    scene.begin("rest", "archive:attic", "on")
    for node in scene.cluster.primaries:
        node.sql("DROP SCHEMA IF EXISTS attic CASCADE", dbname="app")
    for step in ("partition_making", "partition_made", "partition_detached"):
        scene.maintain_survives("rest", step, "command", "archive:attic", default=True)
    scene.end("rest")
