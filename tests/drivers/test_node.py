"""Node's `pg` against the proxy: one test for each case of node_driver.js."""
import json
import os
import subprocess

import pytest

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node_driver.js")


def node(*args, **environment):
    done = subprocess.run(["node", SCRIPT, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=100, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def results(data):
    found = node(PGSHUNT_PORT=str(data.port), PGSHUNT_USER="postgres", PGSHUNT_PASSWORD=data.password)
    return {entry["name"]: entry for entry in found}


@pytest.mark.parametrize("name", node("--list")[0])
def test_node(results, name):
    entry = results[name]
    assert entry["ok"], entry["error"]
