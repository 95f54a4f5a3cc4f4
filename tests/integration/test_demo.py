"""`make demo` without a terminal: shows what it promises, stops everything, works twice in a row."""
import os
import re
import subprocess
import sys
import tempfile

import pytest

from harness import REPO
from harness.process import alive

pytestmark = pytest.mark.slow

PROMISED = ["CREATE TABLE users", "10,000 users", "50,000 orders", "UPDATE users", "EXPLAIN SELECT", "ORDER BY amount",
            "GROUP BY", "SHOW NODES", "psql -h 127.0.0.1 -p"]


@pytest.fixture
def folder():
    """A temporary folder that the servers' user can reach (pytest's own cannot be)."""
    with tempfile.TemporaryDirectory(prefix="pgshunt-demo-") as folder:
        os.chmod(folder, 0o755)
        yield folder


def run_demo(folder):
    done = subprocess.run([sys.executable, os.path.join(REPO, "tests", "demo", "demo.py")], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "TMPDIR": folder}, timeout=200)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_demo_twice(folder):
    for _ in range(2):
        text = run_demo(folder)
        for words in PROMISED:
            assert words in text, words
        on_shards = re.findall(r"(s\d) has ([\d,]+) users, ([\d,]+) orders, 5 countries", text)
        users = [int(found[1].replace(",", "")) for found in on_shards]
        assert len(users) == 2 and sum(users) == 10_000 and min(users) > 3000
        assert sum(int(found[2].replace(",", "")) for found in on_shards) == 50_000
        assert "stopped." in text and "\033[" not in text
        assert os.listdir(folder) == []
        assert not any(folder in command for command in commands())


def commands():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if alive(int(name)):
                    yield file.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
