"""
Where the users of other sharding tools were hurt while data moved, each as a test by name. Others of that list have theirs elsewhere:
cancelling left slots behind (test_reshard: cancel_leaves_nothing), a failed switch left both sides closed, or a crash left slots and
triggers (test_reshard_kills), a target that restarts in the middle of the copy (test_reshard_run: goes_on), one table is described while
another one's rows are on their way, and a transaction that is larger than the server's memory (test_reshard_stream), keys and rights
found missing after hours (test_reshard_create), a stopped router (test_reshard: stopped_proxy_cannot_write_to_the_old_owner), a long
transaction over the switch (test_reshard: switch_gives_up_on_a_long_transaction), DDL (test_reshard_ddl).
"""
import os
import signal
import sys

import pytest

from harness import wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from reshard_kills import MOVES, Scene, make_cluster  # noqa: E402
from reshard_ledger import owners  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def scene():
    with make_cluster() as cluster, Scene(cluster) as scene:
        yield scene


def test_servers_timeouts_do_not_kill_the_copy(scene):
    """A server's own timeouts (of statements, locks, sessions idle in a transaction) killed copies that took long."""
    settings = {"idle_in_transaction_session_timeout": "200ms", "statement_timeout": "300ms", "lock_timeout": "200ms"}
    for node in scene.cluster.primaries:
        for name, value in settings.items():
            node.set(name, value)
    scene.create()
    scene.runner = scene.start("run", "job", "--rate", "150kB/s")
    wait_until(lambda: scene.state() == "streaming", 120, "the copy to be done")
    scene.repeat("verify", "job", tries=3)
    for node in scene.cluster.primaries:
        for name in settings:
            node.set(name, "0")
    scene.repeat("cancel", "job")
    scene.stop_runner()
    scene.nothing_is_left()


def test_rollback_long_after_the_switch(scene):
    """There was no way back, or one that had been lost by then: 200,000 changes later nothing is lost, and forward again neither."""
    scene.create()
    scene.run()
    scene.repeat("switch", "job", "--max-pause", "5s")
    proxy = scene.proxies[0]
    first = 2 * 10 ** 9
    for start in range(0, 40000, 4000):
        values = ", ".join(f"({first + number}, {number}, 'later')" for number in range(start, start + 4000))
        proxy.sql(f"INSERT INTO users VALUES {values}")
    for turn in range(4):
        proxy.sql(f"UPDATE users SET balance = balance + 1 WHERE id >= {first}")
    proxy.sql(f"DELETE FROM users WHERE id >= {first} AND id % 10 = 0")
    expected = {first + number: number + 4 for number in range(40000) if (first + number) % 10}
    for verb in ("rollback", "switch"):
        scene.repeat(verb, "job", "--max-pause", "5s")
        assert dict(proxy.sql(f"SELECT id, balance FROM users WHERE id >= {first}")) == expected
    scene.must("verify", "job")
    scene.repeat("rollback", "job", "--max-pause", "5s")
    scene.repeat("cancel", "job")
    scene.stop_runner()
    proxy.sql(f"DELETE FROM users WHERE id >= {first}")
    scene.nothing_is_left()
    scene.judge()


def test_two_to_three_to_two_with_a_stopped_proxy(scene):
    """Row counts were compared, with the load stopped: here two shards become three and two again under writes, one proxy asleep over each switch."""
    one, other = scene.proxies
    for name, wish, left in (("grow", MOVES, {0, 1, 2}), ("shrink", "0-4095:s0,8192-12287:s1", {0, 1})):
        scene.must("create", "job", "--move", wish)
        scene.run()
        scene.ledger.progress()
        other.send_signal(signal.SIGSTOP)
        try:
            scene.must("switch", "job", "--max-pause", "5s", "--force")  # who has left a transaction open in it loses that
        finally:
            other.send_signal(signal.SIGCONT)
        scene.ledger.progress()
        scene.must("verify", "job")
        scene.repeat("complete", "job")
        scene.stop_runner()
        scene.nothing_is_left()
        scene.forget()
        assert set(owners(scene.cluster).values()) == left, name
    scene.judge()
