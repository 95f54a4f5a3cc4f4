"""Running pgshuntctl against a cluster and its proxy."""
import json
import os
import subprocess

from harness.proxy import SANITIZER_ENVIRONMENT, binary
from harness import wait_until

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PG") or name == "PGSHUNT"}


def command(config_path, *args):
    program = os.path.join(os.path.dirname(binary()), "pgshuntctl")
    return [program, "-c", config_path, *args]


class Ran:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def texts(self, kind):
        return [event["text"] for event in self.json["events"] if event["kind"] == kind]

    def __repr__(self):
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def ctl(proxy, *args, code=0, environment=None, timeout=120):
    """Runs pgshuntctl with the proxy's configuration; its exit code must be `code` (None: any)."""
    done = subprocess.run(command(proxy.config_path, *args), text=True, capture_output=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, env={**ENVIRONMENT, **SANITIZER_ENVIRONMENT, **(environment or {})})
    ran = Ran(done.returncode, done.stdout, done.stderr)
    assert "Sanitizer" not in ran.err, ran
    if code is not None:
        assert ran.code == code, ran
    return ran


def start_ctl(proxy, *args, stdout=subprocess.PIPE):
    return subprocess.Popen(command(proxy.config_path, *args), text=True, stdin=subprocess.DEVNULL,
                            stdout=stdout, stderr=subprocess.STDOUT,
                            env={**ENVIRONMENT, **SANITIZER_ENVIRONMENT})


def address(node):
    return f"{node.host}:{node.port}"


def primary_of(proxy, shard="s0"):
    """The port that the proxy sends writes to."""
    return next((int(row["port"]) for row in proxy.show("NODES")
                 if row["shard"] == shard and row["primary"] in (True, "t")), None)


def settle(shard, proxy):
    """Makes whole again what a failover has left: the primary is who the servers say, old ones are rebuilt."""
    running = [node for node in shard.nodes if node.running()]
    writable = [node for node in running if not node.in_recovery()]
    shard.primary = max(writable, key=timeline)
    for node in shard.nodes:
        if node is shard.primary:
            continue
        if not node.running() or node in writable:
            shard.follow(node)
    wait_until(lambda: len(streaming(shard.primary)) == len(shard.replicas), 30.0, "replicas streaming")
    wait_until(lambda: primary_of(proxy, shard.name) == shard.primary.port, 30.0, "the proxy knows the primary")
    proxy.wait_nodes()


def timeline(node):
    return int(node.value("SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int",
                          dbname="postgres"))


def streaming(node):
    return node.sql("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'", dbname="postgres")
