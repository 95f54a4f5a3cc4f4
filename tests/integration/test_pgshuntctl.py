"""pgshuntctl: its command line, status, explain; as a terminal and as a pipe see it."""
import os
import pty
import signal
import subprocess

import pytest

from ctl_support import address, command, ctl
from harness import Proxy
from harness.sample import USERS

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=[USERS], reference=["countries"]) as proxy:
        proxy.wait_nodes()
        yield proxy


def test_help_and_version(proxy):
    text = ctl(proxy, "--help").out
    for name in ("explain", "failover", "reference", "schema", "sequences", "status", "--dry-run", "Exit status"):
        assert name in text
    for name in ("explain", "failover", "reference", "schema", "sequences", "status"):
        assert ctl(proxy, name, "--help").out == ctl(proxy, "help", name).out
        assert "Examples:" in ctl(proxy, name, "--help").out
    assert ctl(proxy, "--version").out.startswith("pgshuntctl ")


@pytest.mark.parametrize("args, message", [
    ((), "which command?"),
    (("nothing",), 'no command "nothing"'),
    (("failover",), "takes the name of one shard"),
    (("failover", "s0", "s1"), "takes the name of one shard"),
    (("failover", "s0", "--to", "db2"), "--to takes HOST:PORT"),
    (("failover", "s0", "--to", "db2:99999"), "--to takes HOST:PORT"),
    (("failover", "s0", "--proxy", ":6432"), "--proxy takes HOST:PORT"),
    (("failover", "s0", "--drain", "5"), "--drain takes a time"),
    (("failover", "s0", "--drain", "-5s"), "--drain takes a time"),
    (("failover", "s0", "--accept-data-loss"), "is for --force"),
    (("failover", "s0", "--undo", "--force"), "neither --force nor --to"),
    (("failover", "s0", "--nothing"), "unrecognized option"),
    (("sequences", "setup"), "setup, check or show, and a database"),
    (("sequences", "mend", "app"), 'not "mend"'),
    (("sequences", "setup", "app", "--stride", "1"), "--stride takes a number"),
    (("sequences", "check", "app", "--dry-run"), "are for setup"),
    (("status", "--dry-run"), "changes nothing"),
    (("status", "all"), 'takes no "all"'),
    (("explain",), "one text of SQL"),
])
def test_wrong_command_lines(proxy, args, message):
    ran = ctl(proxy, *args, code=2)
    assert message in ran.err and "--help" in ran.err and not ran.out


def test_bad_configuration(proxy):
    done = subprocess.run(command("/nonexistent/conf", "status"), text=True, capture_output=True)
    assert done.returncode == 1 and "/nonexistent/conf" in done.stderr and "-c FILE" in done.stderr


def test_status(cluster, proxy):
    ran = ctl(proxy, "status", "--json").json
    nodes = {row["node"]: row for row in ran["nodes"]}
    assert set(nodes) == {address(node) for node in cluster.nodes}
    for shard in cluster.shards:
        row = nodes[address(shard.primary)]
        assert (row["role"], row["state"], row["lag_bytes"], row["read_only"]) == ("primary", "up", 0, False)
        for replica in shard.replicas:
            row = nodes[address(replica)]
            assert (row["role"], row["state"], row["upstream"]) == ("replica", "streaming", address(shard.primary))
    seen = {row["node"]: row for row in ran["proxies"]}
    assert set(seen) == set(nodes)
    assert all(row["primary"] == (row["role"] == "primary") and row["held_ms"] == 0 for row in seen.values())
    lines = ctl(proxy, "status").out.splitlines()
    assert lines[0] == "As the servers say:" and lines[1].split()[:4] == ["database", "shard", "node", "role"]
    assert len({line.index(word) for line, word in zip(lines[1:3], ("role", "primary"))}) == 1  # aligned


def test_status_of_what_does_not_answer(cluster, proxy):
    ran = ctl(proxy, "status", "--json", "--proxy", "127.0.0.1:1", code=1)
    assert "refused" in ran.json["proxies"][0]["state"]
    with Proxy(cluster, users=[{"name": "boss", "password": "secret", "admin": True}],
               options={"auth": {"method": "scram-sha-256"}}) as closed:
        assert ctl(closed, "status").code == 0  # the password is the users file's
        wrong = ctl(closed, "status", "--user", "postgres", code=1, environment={"PGPASSWORD": "wrong"})
        assert "authentication failed" in wrong.out


def test_explain_asks_no_server(proxy):
    """The servers need not be there: a configuration is enough."""
    text = ctl(proxy, "explain", "SELECT * FROM users WHERE id = 42").out
    assert text.startswith("pgshunt: direct to shard s")
    plans = ctl(proxy, "explain", "--json", "-d", "app", "SELECT id FROM users; INSERT INTO users (id) VALUES (1)").json
    assert [plan["kind"] for plan in plans] == ["query", "query"]
    assert "scatter-merge" in plans[0]["plan"][0]
    refused = ctl(proxy, "explain", "INSERT INTO users (name) VALUES ('nobody')", code=3).out
    assert "refused" in refused and "hint" in refused
    assert ctl(proxy, "explain", "--shard", "s1", "SELECT 1 FROM nowhere").out.startswith("pgshunt: direct to shard s1")
    assert "no database" in ctl(proxy, "explain", "-d", "nothing", "SELECT 1", code=1).err


def test_progress_on_a_terminal(cluster, proxy):
    """Lines are written over there, and whole in a pipe; a reader that leaves ends nothing."""
    master, slave = pty.openpty()
    done = subprocess.Popen(command(proxy.config_path, "failover", "s0", "--dry-run"), stdout=slave, stderr=slave)
    assert done.wait(60) == 0
    os.close(slave)
    assert "would be done" in os.read(master, 65536).decode()
    os.close(master)
    reader, writer = os.pipe()
    os.close(reader)
    left = subprocess.Popen(command(proxy.config_path, "failover", "s0", "--dry-run"), stdout=writer)
    os.close(writer)
    assert left.wait(60) != -signal.SIGPIPE
    assert "\r" not in ctl(proxy, "failover", "s0", "--dry-run").out
