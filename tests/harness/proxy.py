"""A real pgshunt in front of a cluster: writes its configuration, runs it, collects its log, ends it.

    with Proxy(cluster, keyspaces=[...], reference=["countries"]) as proxy:
        proxy.sql("SELECT 1")
"""
import os
import re
import signal
import socket
import tempfile
import threading
import time

import psycopg2
import psycopg2.extensions

from . import process
from .cluster import run_psql
from .process import free_port, wait_until

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ADMIN_DATABASE = "pgshunt"
SANITIZER_REPORT = re.compile(r"^.*(ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
                              r"Assertion .* failed).*$", re.M)

SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:abort_on_error=0:exitcode=66:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=66",
    "TSAN_OPTIONS": "halt_on_error=0:exitcode=66:second_deadlock_stack=1",
}
# A library for pgshunt and pgshuntctl alone (tests/jitter); PGSHUNT_JITTER, its seed, is theirs, too.
if os.environ.get("PGSHUNT_PRELOAD"):
    SANITIZER_ENVIRONMENT.update(LD_PRELOAD=os.environ["PGSHUNT_PRELOAD"],
                                 PGSHUNT_JITTER=os.environ.get("PGSHUNT_JITTER", "1"))


def binary():
    """The pgshunt to test: $PGSHUNT, else the one that `make` built."""
    return os.environ.get("PGSHUNT") or os.path.join(REPO, "build", "pgshunt")


def to_libconfig(value, depth=0):
    """A Python value as libconfig text: dict: group, list or tuple: list, str, bool, int."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        inner = " ".join(f"{name} = {to_libconfig(item, depth + 1)};" for name, item in value.items())
        return "{ " + inner + " }"
    if isinstance(value, (list, tuple)):
        pad = "  " * (depth + 1)
        return "(" + ",".join("\n" + pad + to_libconfig(item, depth + 1) for item in value) + " )"
    raise TypeError(f"no libconfig form for {value!r}")


def merged(base, changes):
    """`base` with `changes` laid over it, group by group; a value None takes a setting away."""
    result = dict(base)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


class ProxyFailed(RuntimeError):
    """pgshunt did not start, did not end as it should, or reported a sanitizer finding."""


class Proxy:
    """
    cluster     what stands behind it; its databases are served under the name `dbname`
    keyspaces, reference, database    go into the (one) database of the configuration
    databases   replaces the whole list of databases
    options     laid over the default configuration, group by group
    users       list of {name, password, admin}; default: "postgres" and "app", trusted
    """

    def __init__(self, cluster=None, dbname="app", keyspaces=None, reference=None, database=None,
                 databases=None, options=None, users=None, start=True, environment=None):
        self.folder = tempfile.mkdtemp(prefix="pgshunt-proxy-")
        process.own_folder(self.folder)
        process.install_signal_handlers()
        self.host = "127.0.0.1"
        self.port = free_port()
        self.http_port = free_port()
        self.dbname = dbname
        self.environment = dict(environment or {})
        self.config_path = os.path.join(self.folder, "pgshunt.conf")
        self.users_path = os.path.join(self.folder, "users.conf")
        self.log_path = os.path.join(self.folder, "log")
        self.process = None
        if databases is None:
            one = {"name": dbname, "shards": cluster.shard_config()}
            if keyspaces:
                one["keyspaces"] = keyspaces
            if reference:
                one["reference"] = reference
            databases = [merged(one, database or {})]
        self.config = merged({
            "listen": {"address": self.host, "port": self.port},
            "http": {"address": self.host, "port": self.http_port},
            "workers": 2,
            "auth": {"method": "trust", "users_file": "users.conf"},
            "pool": {"size": 20},
            "monitor": {"user": "postgres"},
            "databases": databases,
        }, options or {})
        self.users = users if users is not None else [
            {"name": "postgres", "password": "", "admin": True},
            {"name": "app", "password": ""},
        ]
        self.write_config()
        if start:
            self.start()

    # ---- configuration ----

    def write_config(self, text=None):
        """Writes the configuration (or `text` in its place) and the users file."""
        if text is None:
            text = "".join(f"{name} = {to_libconfig(value)};\n" for name, value in self.config.items())
        with open(self.config_path, "w") as conf:
            conf.write(text)
        with open(self.users_path, "w") as users:
            users.write(f"users = {to_libconfig(self.users)};\n")
        os.chmod(self.users_path, 0o600)

    def change(self, options):
        """Lays `options` over the configuration and writes it (reload() makes it count)."""
        self.config = merged(self.config, options)
        self.write_config()

    # ---- life ----

    def start(self, timeout=30.0):
        env = {**os.environ, **SANITIZER_ENVIRONMENT, **self.environment}
        with open(self.log_path, "ab") as log:
            self.process = process.start([binary(), "-c", self.config_path], signal.SIGKILL,
                                         stdout=log, stderr=log, env=env)
        try:
            wait_until(self._accepts, timeout, "pgshunt accepting connections")
        except BaseException:
            self.kill9()
            raise

    def _accepts(self):
        if self.process.poll() is not None:
            raise ProxyFailed(f"pgshunt ended with {self.process.returncode}:\n{self.log_tail()}")
        try:
            socket.create_connection((self.host, self.port), 1.0).close()
            return True
        except OSError:
            return False

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=30.0):
        """Waits for the process to end by itself; returns its exit code."""
        code = self.process.wait(timeout)
        process.forget(self.process)
        return code

    def stop(self, how=signal.SIGTERM, timeout=30.0):
        """Ends pgshunt and insists on a clean end: exit code 0, no sanitizer report in the log."""
        if self.process is None:
            return
        died_before = self.process.poll()
        try:
            if died_before is None:
                self.process.send_signal(how)
                code = self.process.wait(timeout)
            else:
                code = died_before
        finally:
            process.end(self.process, signal.SIGKILL)
            self.process = None
        self.check_log()
        if died_before is not None:
            raise ProxyFailed(f"pgshunt had ended by itself with {code}:\n{self.log_tail()}")
        if code != 0:
            raise ProxyFailed(f"pgshunt ended with {code} after signal {how}:\n{self.log_tail()}")

    def kill9(self):
        if self.process is not None:
            process.end(self.process, signal.SIGKILL)
            self.process = None

    def close(self):
        """stop() and the folder goes."""
        try:
            self.stop()
        finally:
            process.remove_folder(self.folder)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.close()
            return
        try:  # a test failed: its error matters, the log helps to understand it
            print(f"---- pgshunt's log ----\n{self.log_tail(200)}")
            self.close()
        except (ProxyFailed, OSError) as error:
            print(f"---- and then ----\n{error}")

    def reload(self, timeout=10.0):
        """SIGHUP; waits until the log says how it went and returns those lines."""
        before = len(self.log())
        self.process.send_signal(signal.SIGHUP)
        return wait_until(lambda: [line for line in self.log()[before:].splitlines()
                                   if re.search(r"reload|configuration", line, re.I)],
                          timeout, "a log line about the reload")

    # ---- log ----

    def log(self):
        try:
            with open(self.log_path, errors="replace") as log:
                return log.read()
        except OSError:
            return ""

    def log_tail(self, lines=60):
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_log(self, pattern, timeout=10.0):
        """Waits for a log line that matches and returns the match."""
        return wait_until(lambda: re.search(pattern, self.log()), timeout, f"log line {pattern!r}")

    def check_log(self):
        report = SANITIZER_REPORT.search(self.log())
        if report:
            raise ProxyFailed("sanitizer report:\n" + self.log()[report.start():][:12000])

    # ---- SQL through the proxy ----

    def dsn(self, dbname=None, user="postgres", **more):
        parts = {"host": self.host, "port": self.port, "dbname": dbname or self.dbname, "user": user,
                 "connect_timeout": 10, "sslmode": "disable", "gssencmode": "disable", **more}
        return psycopg2.extensions.make_dsn(**parts)

    def connect(self, dbname=None, user="postgres", autocommit=True, **more):
        """A psycopg2 connection (simple protocol)."""
        connection = psycopg2.connect(self.dsn(dbname, user, **more))
        connection.autocommit = autocommit
        return connection

    def connect3(self, dbname=None, user="postgres", autocommit=True, **more):
        """A psycopg 3 connection (extended protocol)."""
        import psycopg
        options = {name: more.pop(name) for name in ("row_factory", "cursor_factory", "prepare_threshold")
                   if name in more}
        return psycopg.connect(self.dsn(dbname, user, **more), autocommit=autocommit, **options)

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

    def psql(self, *args, dbname=None, user="postgres", check=True, input=None):
        return run_psql(self.dsn(dbname, user), *args, check=check, input=input)

    def show(self, what):
        """SHOW on the admin console, as a list of dicts."""
        connection = self.connect(ADMIN_DATABASE)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW " + what)
                names = [column.name for column in cursor.description]
                return [dict(zip(names, row)) for row in cursor.fetchall()]
        finally:
            connection.close()

    def wait_nodes(self, timeout=20.0):
        """Waits until the monitor has seen every running node: up, with a role and a known lag."""
        def all_known():
            return all(str(row["state"]) == "up" and str(row["role"]) in ("primary", "replica")
                       and str(row.get("lag_ms")) not in ("None", "", "-1") for row in self.show("NODES"))

        wait_until(all_known, timeout, "all nodes up")

    # ---- raw bytes ----

    def socket(self, timeout=10.0):
        return socket.create_connection((self.host, self.port), timeout)


class Load(threading.Thread):
    """Runs work(connection) again and again on connections of its own until stopped; keeps every error."""

    def __init__(self, proxy, work, clients=4, pause=0.0):
        super().__init__(daemon=True)
        self.proxy, self.work, self.clients, self.pause = proxy, work, clients, pause
        self.errors = []
        self.done = 0
        self._end = threading.Event()
        self._lock = threading.Lock()

    def run(self):
        threads = [threading.Thread(target=self._client, daemon=True) for _ in range(self.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self):
        connection = None
        while not self._end.is_set():
            try:
                if connection is None or connection.closed:
                    connection = self.proxy.connect()
                self.work(connection)
                with self._lock:
                    self.done += 1
            except Exception as error:  # every kind counts
                with self._lock:
                    self.errors.append(error)
                if connection is not None and connection.closed:
                    connection = None
                time.sleep(0.05)
            if self.pause:
                time.sleep(self.pause)
        if connection is not None:
            connection.close()

    def wait_progress(self, count=20, timeout=20.0):
        """Waits until `count` more rounds were done without an error."""
        target = self.done + count
        wait_until(lambda: self.done >= target, timeout, f"{count} more rounds of load")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self.join(30.0)
