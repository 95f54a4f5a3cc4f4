"""pgshuntctl partition and the servers are killed at every named step: the next run finishes, every row is there once."""
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from partition_kills import CREATE_STEPS, DEFAULT_STEPS, EXPIRIES, MAINTAIN_STEPS, Scene, make_cluster, needs_failpoints  # noqa: E402

pytestmark = [pytest.mark.slow, needs_failpoints]
VICTIMS = ["command", 0, 1]  # 0 keeps the catalog


@pytest.fixture(scope="module")
def scene():
    with make_cluster() as cluster, Scene(cluster) as scene:
        yield scene


@pytest.mark.parametrize("victim", VICTIMS)
def test_create(scene, victim):
    for step in CREATE_STEPS:
        print(f"==== create, {step}, {victim}")
        scene.create_survives(step, victim)


@pytest.mark.parametrize("expiry", EXPIRIES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_maintain(scene, victim, expiry):
    scene.begin("kept", expiry)
    for step in MAINTAIN_STEPS:
        print(f"==== maintain, {step}, {victim}, {expiry}")
        scene.maintain_survives("kept", step, victim, expiry)
    scene.end("kept")


@pytest.mark.parametrize("expiry", EXPIRIES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_strays(scene, victim, expiry):
    scene.begin("rest", expiry, "on")
    for step in DEFAULT_STEPS:
        print(f"==== strays, {step}, {victim}, {expiry}")
        scene.maintain_survives("rest", step, victim, expiry, default=True)
    scene.end("rest")
