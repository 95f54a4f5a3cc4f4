"""A server that says FATAL in one breath with the answer that sets it free, while another worker waits for it."""
import socket
import threading
import time
from contextlib import ExitStack, closing

import pytest
from harness import Proxy
from harness.sample import USERS
from support import Raw, error_of, kinds, query, message
from test_hostile_server import FATAL, HostileServer

CLIENTS = 12
ROUNDS = 5


class DyingServer(HostileServer):
    """A real server that dies behind each count, a little later than the other shard has answered."""

    def play(self, connection, startup):
        with socket.create_connection(("127.0.0.1", self.real_port)) as real:
            real.sendall(startup)
            counting = threading.Event()
            threading.Thread(target=self.forward, args=(connection, real, counting), daemon=True).start()
            while data := real.recv(65536):
                dies = counting.is_set() and data.endswith(message(b"Z", b"I"))
                if dies:
                    time.sleep(0.02)
                connection.sendall(data + FATAL if dies else data)
                if dies:
                    return

    @staticmethod
    def forward(source, target, counting):
        try:
            while data := source.recv(65536):
                if b"count(" in data:
                    counting.set()
                target.sendall(data)
        except OSError:
            pass

    def serve(self, connection):
        with connection:
            try:
                startup = connection.recv(65536)
                if b"monitor" in startup:
                    self.relay(connection, startup)
                else:
                    self.play(connection, startup)
            except OSError:
                pass


@pytest.mark.core
def test_freed_and_dead_in_one_breath(cluster, data):
    """The first shard's one server is what all wait for. The fan-out's end hands the server over to the worker that waits for one; then come its last words."""
    with closing(DyingServer(cluster.shards[0].primary.port)) as dying:
        shards = [dict(shard, nodes=shard["nodes"][:1]) for shard in cluster.shard_config()[:2]]
        shards[0]["nodes"] = [{"host": "127.0.0.1", "port": dying.port}]
        options = {"workers": 2, "pool": {"size": 1}, "routing": {"failover_wait": "5s"}}
        database = {"name": "app", "shards": shards, "keyspaces": [USERS]}
        with Proxy(cluster, databases=[database], options=options) as proxy, ExitStack() as stack:
            proxy.wait_nodes()
            clients = [stack.enter_context(Raw(proxy)) for _ in range(CLIENTS)]
            answered = 0
            for _ in range(ROUNDS):
                for raw in clients:
                    raw.send(query("SELECT count(*) FROM users"))
                for raw in clients:
                    answer = raw.until_ready()
                    error = error_of(answer)
                    assert kinds(answer) == "TDCZ" or error["C"].startswith(("08", "57")), answer
                    answered += error is None
            assert answered >= CLIENTS
            assert proxy.value("SELECT 1") == 1
