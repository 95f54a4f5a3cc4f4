"""Three servers under Patroni with etcd, as Debian packages them, in a temporary folder."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request

import psycopg2

from . import process
from .cluster import give_to_server, server_bindir, server_user, tool_environment
from .process import free_port, wait_until

CONFIG = """
scope: pgshunt
name: {name}
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
etcd3: {{host: '127.0.0.1:{etcd}'}}
bootstrap:
  dcs:
    ttl: 6
    loop_wait: 1
    retry_timeout: 2
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters: {{max_connections: 120, shared_buffers: 32MB, fsync: 'off', wal_keep_size: 256MB}}
  initdb: [{{encoding: UTF8}}, {{locale: C.UTF-8}}]
postgresql:
  listen: '127.0.0.1:{port}'
  connect_address: '127.0.0.1:{port}'
  data_dir: '{folder}/data'
  bin_dir: '{bin}'
  pgpass: '{folder}/pgpass'
  basebackup: [{{checkpoint: fast}}]
  pg_hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']
  authentication:
    superuser: {{username: postgres, password: secret}}
    replication: {{username: replicator, password: secret}}
    rewind: {{username: postgres, password: secret}}
  parameters: {{unix_socket_directories: '{folder}'}}
"""


class Member:
    """One Patroni with its Postgres."""

    def __init__(self, cluster, number):
        self.name = f"n{number}"
        self.host, self.port, self.rest = "127.0.0.1", free_port(), free_port()
        self.folder = os.path.join(cluster.folder, self.name)
        self.config = os.path.join(self.folder, "patroni.yml")
        os.makedirs(self.folder)
        with open(self.config, "w") as file:
            file.write(CONFIG.format(name=self.name, rest=self.rest, etcd=cluster.etcd_port, port=self.port,
                                     folder=self.folder, bin=server_bindir()))
        give_to_server(self.folder)
        self.process = None

    def start(self):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = process.start([shutil.which("patroni"), self.config], signal.SIGTERM, user=server_user(),
                                         stdout=log, stderr=log, cwd="/", env=tool_environment())

    def postmaster(self):
        with open(os.path.join(self.folder, "data", "postmaster.pid")) as file:
            return int(file.readline())

    def kill9(self):
        """As if the machine had lost its power."""
        postmaster = self.postmaster()
        pids = [self.process.pid, postmaster, *process.children(postmaster)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        process.forget(self.process)
        wait_until(lambda: not any(map(process.alive, pids)), 10.0, "everything of the member gone")

    def role(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/patroni", timeout=5) as answer:
                status = json.load(answer)
        except (OSError, ValueError):
            return "away"
        return status["role"] if status.get("state") == "running" else status.get("state")

    def value(self, query, dbname="app"):
        connection = psycopg2.connect(host=self.host, port=self.port, user="postgres", dbname=dbname, connect_timeout=5)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall()[0][0] if cursor.description else None
        finally:
            connection.close()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            process.end(self.process, signal.SIGTERM, 20.0)
        try:
            os.kill(self.postmaster(), signal.SIGQUIT)
        except (OSError, ValueError):
            pass


class PatroniCluster:
    """etcd and `members` servers; one is the leader, the others replicas."""

    def __init__(self, members=3):
        self.folder = tempfile.mkdtemp(prefix="pgshunt-patroni-")
        process.own_folder(self.folder)
        process.install_signal_handlers()
        os.chmod(self.folder, 0o755)
        self.etcd_port = free_port()
        self.members = []
        try:
            self._start_etcd()
            self.members = [Member(self, number) for number in range(members)]
            self.members[0].start()
            wait_until(lambda: self.leader() is self.members[0], 90.0, "the first member is leader")
            self.members[0].value("CREATE DATABASE app", dbname="postgres")
            for member in self.members[1:]:
                member.start()
            self.wait_healthy()
        except BaseException:
            self.stop()
            raise

    def _start_etcd(self):
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{free_port()}"
        with open(os.path.join(self.folder, "etcd.log"), "ab") as log:
            self.etcd = process.start(
                [shutil.which("etcd"), "--data-dir", os.path.join(self.folder, "etcd"), "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", f"default={peer}", "--unsafe-no-fsync"],
                signal.SIGKILL, stdout=log, stderr=log, cwd="/")

    def leader(self):
        return next((member for member in self.members if member.process and member.role() in ("master", "primary")), None)

    def wait_healthy(self, timeout=120.0):
        """A leader, and everybody else follows it, one of them synchronously."""
        def healthy():
            leader = self.leader()
            try:
                return leader and leader.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == \
                    len(self.members) - 1 and \
                    leader.value("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1
            except psycopg2.Error:
                return False

        wait_until(healthy, timeout, "all members streaming", 0.2)

    def ctl(self, *args):
        """patronictl, to its end; returns what it said."""
        done = subprocess.run([shutil.which("patronictl"), "-c", self.members[0].config, *args], text=True, timeout=120,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={**tool_environment(), "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0, done.stdout
        return done.stdout

    def shard_config(self):
        return [{"name": "s0", "dbname": "app", "nodes": [{"host": at.host, "port": at.port} for at in self.members]}]

    def stop(self):
        for member in self.members:
            member.stop()
        process.end(self.etcd, signal.SIGKILL)
        process.remove_folder(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
