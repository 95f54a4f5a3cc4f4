"""Keys of several columns: the engine is killed while it copies and while it streams."""
import os
import sys
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "integration"))

from test_reshard import Runner, ctl, left_over, wait_state  # noqa: E402
from test_reshard_composite import Load, cluster, judge, owners, proxies, running  # noqa: E402, F401 (fixtures)

pytestmark = pytest.mark.slow


def test_cancelled_and_killed(cluster, proxies):  # noqa: F811
    """The engine is killed while it copies and while it streams; then the job is given up: nothing is lost, nothing is left."""
    with Load(*proxies) as load:
        load.progress(120)
        ctl(proxies[0], "create", "grow", "--move", "0-8000:s2")
        runner = Runner(proxies[0], "grow")
        time.sleep(0.2)
        runner.kill9()
        with Runner(proxies[0], "grow") as runner:
            wait_state(cluster, "grow", "streaming")
            load.progress(50)
            runner.kill9()
        load.progress(50)
        with Runner(proxies[0], "grow"):
            ctl(proxies[0], "verify", "grow")
            ctl(proxies[0], "cancel", "grow")
        load.progress(50)
    assert load.errors() == []
    judge(cluster, proxies[0], load)
    assert set(owners(cluster).values()) == {0, 1}
    assert left_over(cluster) == []
