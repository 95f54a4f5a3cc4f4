"""Everything that takes part in a resharding is killed at every named step: nothing is lost, doubled or left behind."""
import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from reshard_kills import END_STEPS, RUN_STEPS, TURN_STEPS, VICTIMS, Scene, make_cluster, needs_failpoints, wait_stopped  # noqa: E402

pytestmark = [pytest.mark.slow, needs_failpoints]


@pytest.fixture
def scene():
    with make_cluster() as cluster, Scene(cluster) as scene:
        yield scene


@pytest.mark.parametrize("victim", VICTIMS)
def test_run(scene, victim):
    """At each step from a created job to streams that keep both sides alike."""
    for step in RUN_STEPS:
        print(f"==== run, {step}, {victim}")
        scene.run_survives(step, victim)
    scene.judge()


@pytest.mark.parametrize("victim", [*VICTIMS, "lease"])
def test_switch_and_rollback(scene, victim):
    """At each step of a switch, and of the rollback behind it."""
    scene.create()
    scene.run()
    steps = TURN_STEPS if victim != "lease" else [step for step in TURN_STEPS if step not in ("attempt", "flip")]
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


def test_who_comes_back_late(scene):
    """A switch sleeps over its lease and wakes up in another one's: it neither undoes that nor takes its guards away."""
    scene.create()
    scene.run()
    for verb in ("switch", "rollback"):
        late = scene.start(verb, "job", "--max-pause", "500ms", stop_at="guard")
        wait_stopped(late)
        scene.kill("lease")
        other = scene.start(verb, "job", "--max-pause", "10s", stop_at="guard")
        wait_stopped(other)
        late.send_signal(signal.SIGCONT)
        said = late.communicate(timeout=90)[0]
        assert "Gave up" in said, said
        assert scene.guards(verb) == 2 * len(scene.givers[verb]), "the other one's"
        other.send_signal(signal.SIGCONT)
        said = other.communicate(timeout=90)[0]
        assert other.returncode == 0, said
        assert scene.guards(verb) == 2 * len(scene.givers[verb])
        scene.ledger.progress()
    scene.must("verify", "job")
    scene.repeat("cancel", "job")
    scene.stop_runner()
    assert scene.ledger.interrupted() == []
    scene.nothing_is_left()
    scene.judge()


@pytest.mark.parametrize("victim", VICTIMS)
def test_complete_and_cancel(scene, victim):
    """At each step of either end."""
    for step in END_STEPS:
        print(f"==== cancel, {step}, {victim}")
        scene.create()
        scene.run()
        scene.end_survives("cancel", step, victim)
    there = {"0-4095:s2,8192-12287:s2": "0-4095:s0,8192-12287:s1"}
    moves = list(*there.items())
    for number, step in enumerate(END_STEPS):
        print(f"==== complete, {step}, {victim}")
        scene.must("create", "job", "--move", moves[number % 2])
        scene.run()
        scene.repeat("switch", "job", "--max-pause", "5s")
        scene.end_survives("complete", step, victim)
    scene.judge()
