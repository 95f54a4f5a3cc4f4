"""A cluster of real Postgres servers: N shards, each a primary with streaming replicas, in a temporary folder.

    with Cluster(shards=2, replicas=1) as cluster:
        cluster.shards[0].primary.sql("SELECT 1")

Servers run as user "postgres" when the harness runs as root (Postgres refuses root). Everything is ended
by pid and removed when the `with` block or the program ends.
"""
import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg2
import psycopg2.extensions

from . import process
from .process import free_port, wait_until

SUPERUSER = "postgres"  # always let in without a password, for the harness itself

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "..",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "250",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_prepared_transactions": "64",
    "wal_keep_size": "512MB",
    "max_wal_size": "2GB",
    "hot_standby": "on",
    "max_standby_streaming_delay": "2s",
    "wal_retrieve_retry_interval": "200ms",
    "wal_receiver_status_interval": "1s",
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_min_messages": "log",
    "cluster_name": "",
}


def pg_bindir():
    """Where the server programs are (Debian keeps them out of PATH)."""
    folder = os.environ.get("PG_BINDIR")
    if not folder:
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"),
                       key=lambda path: int(path.split("/")[4]))
        found = [path for path in found if "/15/" in path] or found
        if not found:
            raise RuntimeError("no Postgres server found under /usr/lib/postgresql: run `make deps`, "
                               "or set PG_BINDIR")
        folder = os.path.dirname(found[-1])
    return folder


def pg_binary(name):
    return os.path.join(pg_bindir(), name)


def server_bindir():
    """Where the clusters' servers come from: $PGSHUNT_SERVER_BINDIR (another major version), else pg_bindir()."""
    return os.environ.get("PGSHUNT_SERVER_BINDIR") or pg_bindir()


def server_user():
    """The system user that servers run as: None means as we are."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        raise RuntimeError('running as root needs a system user "postgres" (package postgresql-15)')
    return "postgres"


def run_tool(name, *args, bindir=None):
    """Runs a Postgres program as the servers' user; its output is shown when it fails."""
    user = server_user()
    options = {"user": user, "group": user, "extra_groups": []} if user else {}
    done = subprocess.run([os.path.join(bindir or pg_bindir(), name), *args], stdin=subprocess.DEVNULL, text=True, cwd="/",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=tool_environment(),
                          **options)
    if done.returncode != 0:
        raise RuntimeError(f"{name} {' '.join(args)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def tool_environment():
    """The environment without what would change Postgres programs' behaviour."""
    env = {name: value for name, value in os.environ.items()
           if not name.startswith("PG") and not name.startswith("LC_") and name != "LANGUAGE"}
    env["LANG"] = "C.UTF-8"
    return env


_templates = {}  # (programs, locale) -> data folder made by initdb, copied for every primary


def template(bindir, locale):
    if (bindir, locale) not in _templates:
        folder = tempfile.mkdtemp(prefix="pgshunt-template-")
        process.own_folder(folder)
        give_to_server(folder)
        data = os.path.join(folder, "data")
        run_tool("initdb", "--pgdata", data, "--username", SUPERUSER, "--auth", "trust", "--no-sync",
                 "--encoding", "UTF8", "--locale", locale, bindir=bindir)
        _templates[bindir, locale] = data
    return _templates[bindir, locale]


def give_to_server(path):
    user = server_user()
    if user:
        entry = pwd.getpwnam(user)
        for folder, _, files in os.walk(path):
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            for name in files:
                os.chown(os.path.join(folder, name), entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def copy_live(source, target, ignore):
    """Copies a folder whose files may go away meanwhile."""
    def copy(path, to):
        try:
            shutil.copy2(path, to)
        except FileNotFoundError:
            pass

    shutil.copytree(source, target, symlinks=True, ignore=ignore, copy_function=copy)


class Node:
    """One Postgres server. `shard` and `number` say which; number 0 is the first primary."""

    def __init__(self, cluster, shard, number):
        self.cluster = cluster
        self.shard = shard
        self.number = number
        self.name = f"s{shard}n{number}"
        self.host = "127.0.0.1"
        self.port = free_port()
        self.folder = os.path.join(cluster.folder, self.name)
        self.data = os.path.join(self.folder, "data")
        self.log_path = os.path.join(self.folder, "log")
        self.process = None

    def __repr__(self):
        return f"<node {self.name} port {self.port}>"

    # ---- life ----

    def make_primary(self):
        os.makedirs(self.folder)
        shutil.copytree(template(self.cluster.bindir, self.cluster.locale), self.data, symlinks=True)
        with open(os.path.join(self.data, "postgresql.conf"), "a") as conf:
            for name, value in {**SETTINGS, **self.cluster.settings}.items():
                conf.write(f"{name} = '{value}'\n")
        with open(os.path.join(self.data, "pg_hba.conf"), "w") as hba:
            hba.write(f"local all        all trust\n"
                      f"host all         {SUPERUSER} 127.0.0.1/32 trust\n"
                      f"host replication {SUPERUSER} 127.0.0.1/32 trust\n"
                      f"host all         all         127.0.0.1/32 {self.cluster.auth}\n")
        give_to_server(self.folder)
        os.chmod(self.data, 0o700)

    def make_replica(self, primary):
        os.makedirs(self.folder)
        give_to_server(self.folder)
        if not os.path.exists(os.path.join(self.cluster.bindir, "pg_basebackup")):
            self.copy_primary(primary)
            return
        run_tool("pg_basebackup", "--pgdata", self.data, "--write-recovery-conf", "--checkpoint", "fast",
                 "--wal-method", "stream", "--no-sync", "--dbname",
                 f"host={primary.host} port={primary.port} user={SUPERUSER} application_name={self.name}")

    def copy_primary(self, primary):
        """What pg_basebackup does, for servers that come without it: a copy between backup start and stop."""
        new = primary.value("SHOW server_version_num", dbname="postgres") >= "150000"
        start, stop = (("pg_backup_start('copy', true)", "pg_backup_stop(false)") if new else
                       ("pg_start_backup('copy', true, false)", "pg_stop_backup(false, false)"))
        connection = primary.connect("postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT {start}")
                leave_out = shutil.ignore_patterns("postmaster.pid", "postmaster.opts", "pg_replslot", "pgsql_tmp*")
                copy_live(primary.data, self.data, leave_out)
                os.makedirs(os.path.join(self.data, "pg_replslot"), exist_ok=True)
                cursor.execute(f"SELECT labelfile FROM {stop}")
                with open(os.path.join(self.data, "backup_label"), "w") as label:
                    label.write(cursor.fetchone()[0])
        finally:
            connection.close()
        open(os.path.join(self.data, "standby.signal"), "w").close()
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a") as conf:
            conf.write(f"primary_conninfo = 'host={primary.host} port={primary.port} user={SUPERUSER} "
                       f"application_name={self.name}'\n")
        give_to_server(self.folder)
        os.chmod(self.data, 0o700)

    def launch(self):
        """Starts the server without waiting for it."""
        assert not self.running(), f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self.process = process.start(
                [os.path.join(self.cluster.bindir, "postgres"), "-D", self.data, "-p", str(self.port)], signal.SIGQUIT,
                user=server_user(), stdout=log, stderr=log, cwd="/", env=tool_environment())

    def wait_ready(self, timeout=60.0):
        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                self.sql("SELECT 1", dbname="postgres")
                return True
            except psycopg2.OperationalError:
                return False

        wait_until(ready, timeout, f"{self.name} accepting connections")

    def start(self):
        self.launch()
        self.wait_ready()

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, mode="fast"):
        """Shuts the server down: "smart", "fast" or "immediate"."""
        if self.process is not None:
            how = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
            process.end(self.process, how, 30.0)
            self.process = None

    def restart(self):
        self.stop()
        self.start()

    def kill9(self):
        """Kills the postmaster and every process of it, as a crash of the machine would."""
        if self.process is not None:
            pids = process.children(self.process.pid)
            process.end(self.process, signal.SIGKILL)
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            wait_until(lambda: not any(map(process.alive, pids)), 10.0, f"processes of {self.name} gone")
            self.process = None

    def freeze(self):
        """Stops the server without ending it (it accepts connections but answers nothing)."""
        for pid in [self.process.pid, *process.children(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):  # a backend that has just ended
                os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in [*process.children(self.process.pid), self.process.pid]:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def promote(self):
        run_tool("pg_ctl", "promote", "--pgdata", self.data, "--wait", bindir=self.cluster.bindir)

    def log_tail(self, lines=40):
        try:
            with open(self.log_path, errors="replace") as log:
                return "".join(log.readlines()[-lines:])
        except OSError:
            return ""

    # ---- SQL, direct to this server ----

    def dsn(self, dbname=None, user=SUPERUSER, **more):
        parts = {"host": self.host, "port": self.port, "dbname": dbname or self.cluster.dbname,
                 "user": user, "connect_timeout": 10, **more}
        return psycopg2.extensions.make_dsn(**parts)

    def connect(self, dbname=None, user=SUPERUSER, **more):
        connection = psycopg2.connect(self.dsn(dbname, user, **more))
        connection.autocommit = True
        return connection

    def sql(self, query, params=None, dbname=None, **more):
        """Runs SQL on a connection of its own; returns the rows, or None if there are none."""
        connection = self.connect(dbname, **more)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, params)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def value(self, query, params=None, dbname=None, **more):
        return self.sql(query, params, dbname, **more)[0][0]

    def psql(self, *args, dbname=None, check=True):
        return run_psql(self.dsn(dbname), *args, check=check)

    def in_recovery(self):
        return self.value("SELECT pg_is_in_recovery()", dbname="postgres")

    # ---- replication ----

    def pause_replay(self):
        self.sql("SELECT pg_wal_replay_pause()", dbname="postgres")
        paused = "pg_get_wal_replay_pause_state() = 'paused'"
        if self.value("SHOW server_version_num", dbname="postgres") < "140000":
            paused = "pg_is_wal_replay_paused()"  # only what was asked for
        wait_until(lambda: self.value(f"SELECT {paused}", dbname="postgres"), 10.0, f"replay of {self.name} paused")

    def resume_replay(self):
        self.sql("SELECT pg_wal_replay_resume()", dbname="postgres")

    def set_apply_delay(self, delay):
        self.set("recovery_min_apply_delay", delay)

    def set(self, name, value):
        """ALTER SYSTEM and reload; waits until new sessions see it."""
        loaded = self.value("SELECT pg_conf_load_time()", dbname="postgres")
        self.sql(f"ALTER SYSTEM SET {name} = %s", (value,), dbname="postgres")
        self.sql("SELECT pg_reload_conf()", dbname="postgres")
        wait_until(lambda: self.value("SELECT pg_conf_load_time()", dbname="postgres") > loaded, 10.0,
                   f"{name} = {value} on {self.name}")


class Shard:
    """One shard's nodes. `primary` is asked of the servers when it may have changed."""

    def __init__(self, cluster, index, nodes):
        self.cluster = cluster
        self.index = index
        self.name = f"s{index}"
        self.nodes = nodes
        self.primary = nodes[0]

    @property
    def replicas(self):
        return [node for node in self.nodes if node is not self.primary]

    def promote(self, node):
        """Makes `node` the primary (the old one must have been stopped); other replicas follow it."""
        node.promote()
        self.primary = node
        for other in self.replicas:
            if other.running():
                other.set("primary_conninfo", node.dsn("postgres", application_name=other.name))

    def follow(self, node):
        """Rebuilds `node` as a replica of the current primary."""
        node.stop()
        shutil.rmtree(node.folder)
        node.make_replica(self.primary)
        node.start()


class Cluster:
    def __init__(self, shards=2, replicas=1, auth="trust", locale="C.UTF-8", dbname="app", databases=None,
                 settings=None, start=True, bindir=None):
        self.bindir = bindir or server_bindir()
        self.locale = locale
        self.auth = auth
        self.dbname = dbname
        self.settings = dict(settings or {})
        if auth == "md5":
            self.settings.setdefault("password_encryption", "md5")
        self.folder = tempfile.mkdtemp(prefix="pgshunt-cluster-")
        process.own_folder(self.folder)
        process.install_signal_handlers()
        os.chmod(self.folder, 0o755)
        self.shards = [Shard(self, index, [Node(self, index, number) for number in range(1 + replicas)])
                       for index in range(shards)]
        if start:
            try:
                self.start(databases or [dbname])
            except BaseException:
                self.stop()
                raise

    @property
    def nodes(self):
        return [node for shard in self.shards for node in shard.nodes]

    @property
    def primaries(self):
        return [shard.primary for shard in self.shards]

    @property
    def replicas(self):
        return [node for shard in self.shards for node in shard.replicas]

    def node_at(self, port):
        """The node that listens on `port` (what inet_server_port() says)."""
        return next(node for node in self.nodes if node.port == port)

    def start(self, databases):
        for node in self.primaries:
            node.make_primary()
            node.launch()
        for node in self.primaries:
            node.wait_ready()
            for name in databases:
                node.sql(f'CREATE DATABASE "{name}"', dbname="postgres")
        for shard in self.shards:
            for node in shard.replicas:
                node.make_replica(shard.primary)
                node.launch()
        for node in self.replicas:
            node.wait_ready()
        wait_until(lambda: all(shard.primary.value("SELECT count(*) FROM pg_stat_replication WHERE state = "
                                                   "'streaming'", dbname="postgres") == len(shard.replicas)
                               for shard in self.shards), 30.0, "replicas streaming")

    def stop(self):
        """Ends every server at once (nothing here is worth a checkpoint) and removes the folder."""
        for node in self.nodes:
            if node.running():
                node.thaw()
                node.process.send_signal(signal.SIGQUIT)
        for node in self.nodes:
            node.stop("immediate")
        process.remove_folder(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def all_primaries(self, query, params=None, dbname=None):
        """Runs SQL on every primary; returns the results in shard order."""
        return [node.sql(query, params, dbname) for node in self.primaries]

    def create_role(self, name, password=None, options="LOGIN"):
        for node in self.primaries:
            node.sql(f'CREATE ROLE "{name}" {options}', dbname="postgres")
            if password is not None:
                node.sql(f'ALTER ROLE "{name}" PASSWORD %s', (password,), dbname="postgres")
            for row in node.sql("SELECT datname FROM pg_database WHERE NOT datistemplate", dbname="postgres"):
                node.sql(f'GRANT ALL ON DATABASE "{row[0]}" TO "{name}"', dbname="postgres")
                node.sql(f'GRANT ALL ON SCHEMA public TO "{name}"', dbname=row[0])

    def create_database(self, name):
        for node in self.primaries:
            node.sql(f'CREATE DATABASE "{name}"', dbname="postgres")
        self.sync()

    def sync(self, timeout=20.0):
        """Waits until every running replica has replayed all that its primary has written by now."""
        for shard in self.shards:
            position = shard.primary.value("SELECT pg_current_wal_lsn()", dbname="postgres")
            for node in shard.replicas:
                if node.running():
                    wait_until(lambda: node.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (position,),
                                                  dbname="postgres"), timeout, f"{node.name} in sync")

    def shard_config(self, dbname=None):
        """The `shards` list of a database for pgshunt's configuration."""
        return [{"name": shard.name, "dbname": dbname or self.dbname,
                 "nodes": [{"host": node.host, "port": node.port} for node in shard.nodes]}
                for shard in self.shards]


def run_psql(dsn, *args, check=True, input=None, timeout=120):
    """Runs psql quietly without reading ~/.psqlrc; returns the CompletedProcess (text)."""
    done = subprocess.run([pg_binary("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", dsn, *args], text=True, input=input,
                          stdin=subprocess.DEVNULL if input is None else None,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=tool_environment(),
                          timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"psql {' '.join(args)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done
