"""`reshard run --detach`: one of the proxies runs the job, another one takes over when it dies, and none when it is over."""
import os
import re
import signal

import pytest

from harness import wait_until
from reshard_kills import Scene, make_cluster
from reshard_support import forget_everything

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as cluster:
        yield cluster


@pytest.fixture
def scene(cluster):
    forget_everything(*cluster.primaries)
    with Scene(cluster) as scene:
        yield scene


def runner(scene):
    """The proxy whose child has the job; None: nobody has it."""
    rows = scene.cluster.primaries[0].sql(
        "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' "
        "AND a.application_name LIKE 'pgshunt reshard of proxy %'")
    pids = {int(re.search(r"of proxy (\d+) on", name).group(1)) for (name,) in rows}
    assert len(pids) <= 1, "two run it"
    return next((proxy for proxy in scene.proxies if proxy.process and proxy.pid in pids), None)


def users(scene):
    """Whom the engine logs in as."""
    return {name for node in scene.cluster.primaries for (name,) in node.sql(
        "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'pgshunt reshard%'")}


def children(proxy):
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="ascii") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as line:
                if parent == proxy.pid and b"reshard\0run" in line.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


def wait_runner(scene, other_than=None, timeout=60):
    return wait_until(lambda: (lambda one: one if one is not None and one is not other_than else None)(runner(scene)), timeout,
                      "a proxy to run the job")


def test_detached_job(scene):
    """From the copy to the end without a terminal: its runner and its proxy are killed, it rests, goes on, and leaves nothing."""
    scene.create()
    assert "run by nobody" in scene.must("status", "job")
    scene.must("run", "job", "--detach", "--jobs", "2", "--rate", "300kB/s")
    first = wait_runner(scene)
    assert "left to the proxies, run by pgshunt reshard of proxy" in scene.must("status", "job")
    assert "another process runs the job" in scene.must("run", "job", code=3)
    wait_until(lambda: scene.state() == "streaming", 90, "the job to stream")

    engine = children(first)
    assert len(engine) == 1
    os.kill(engine[0], signal.SIGKILL)
    wait_until(lambda: any(pid not in engine for proxy in scene.proxies for pid in children(proxy)), 60, "it to be run again")

    first = wait_runner(scene)
    other = next(proxy for proxy in scene.proxies if proxy is not first)
    first.kill9()
    assert wait_runner(scene, other_than=first) is other
    first.start()
    scene.ledger.progress()

    scene.must("pause", "job")
    slots = "SELECT count(*) FROM pg_replication_slots WHERE active"
    wait_until(lambda: scene.cluster.primaries[0].value(slots) == 0, 60, "the streams to rest")
    scene.must("resume", "job")
    scene.repeat("verify", "job", tries=3)
    scene.repeat("switch", "job", "--max-pause", "5s")
    scene.ledger.progress()
    scene.repeat("complete", "job")
    wait_until(lambda: not any(children(proxy) for proxy in scene.proxies), 60, "the runner to end")
    scene.nothing_is_left()
    scene.judge()


def test_setting(scene):
    """Proxies that are told not to run jobs end what they run, and begin again when they may."""
    scene.create()
    for node in scene.cluster.primaries:
        node.sql("CREATE ROLE mover SUPERUSER LOGIN")
    scene.must("run", "job", "--detach", "--user", "mover")
    wait_runner(scene)
    assert users(scene) == {"mover"}
    for proxy in scene.proxies:
        proxy.change({"reshard": {"daemon": False}})
        proxy.reload()
    wait_until(lambda: runner(scene) is None and not any(children(proxy) for proxy in scene.proxies), 60, "nobody to run it")
    assert "left to the proxies, run by nobody" in scene.must("status", "job")
    scene.proxies[1].change({"reshard": {"daemon": True}})
    scene.proxies[1].reload()
    assert wait_runner(scene) is scene.proxies[1]
    assert users(scene) == {"mover"}, "whoever runs it logs in as it was said"
    wait_until(lambda: scene.state() == "streaming", 60, "the job to stream")
    scene.repeat("cancel", "job")
    wait_until(lambda: not any(children(proxy) for proxy in scene.proxies), 60, "the runner to end")
    scene.nothing_is_left()
