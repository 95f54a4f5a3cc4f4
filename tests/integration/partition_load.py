"""Clients that insert and read for long while partitions come and go: what they waited for us, and a ledger of rows."""
import contextlib
import subprocess
import tempfile
import threading
import time

import psycopg2

from ctl_support import ctl
from harness import pg_binary
from harness.cluster import tool_environment

TABLES = ["events", "rest", "beside"]
OURS = "pgshunt partition"
# The longest that anybody has been waiting so far for a lock that a session of ours has, or waits for ahead of it.
WAITED = f"""
SELECT max(extract(epoch FROM clock_timestamp() - l.waitstart)) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE NOT l.granted AND a.application_name <> '{OURS}' AND EXISTS (SELECT FROM unnest(pg_blocking_pids(l.pid)) AS b(pid)
       JOIN pg_stat_activity s ON s.pid = b.pid WHERE s.application_name = '{OURS}')"""
SCRIPTS = {
    "events": "\\set n :n + 1\nINSERT INTO events VALUES (:client_id * 10000000 + :n, '2026-02-01');\n",
    "rest": "\\set n :n + 1\n\\set day random(0, 30)\nINSERT INTO rest VALUES (:client_id * 10000000 + :n, date '2026-02-01' + :day);\n",
}


def keyspaces():
    return [{"name": "users", "type": "bigint", "tables": [{"name": name, "key": "user_id"} for name in TABLES]}]


class Load:
    """events has no default partition, rest has one, that rows of days to come are in; each day of January has ten rows."""

    def __init__(self, proxy, nodes, dbnames, clients=4, rate=None):
        self.proxy, self.nodes, self.dbnames, self.clients, self.rate = proxy, nodes, dbnames, clients, rate
        self.waited, self.read, self.errors = 0.0, 0, []
        self.stop = threading.Event()
        self.filled = 0

    def prepare(self):
        for table, default in (("events", "off"), ("rest", "on")):
            self.proxy.sql(f"CREATE TABLE {table} (user_id bigint NOT NULL, at date NOT NULL, PRIMARY KEY (user_id, at))")
            self.ctl("create", table, "--by", "at", "--every", "1day", "--ahead", "3", "--keep", "30days", "--on-expiry", "archive:attic",
                     "--default", default, "--start", "2026-01-01", "--now", "2026-01-30", code=0)
            self.proxy.sql(f"INSERT INTO {table} SELECT -g, date '2026-01-01' + g %% 30 FROM generate_series(1, 300) g".replace("%%", "%"))
            self.filled += 300

    def ctl(self, *args, code=None):
        return ctl(self.proxy, "partition", *args, code=code, timeout=600)

    # ---- clients ----

    def write(self, seconds, folder, table):
        """pgbench, whose log has what each statement took: (statements, [microseconds])."""
        with open(f"{folder}/{table}.sql", "w", encoding="ascii") as script:
            script.write(SCRIPTS[table])
        rate = ["--rate", str(self.rate // 2)] if self.rate else []
        done = subprocess.run([pg_binary("pgbench"), "-n", "-c", str(self.clients // 2), "-T", str(seconds), "-D", "n=0", "-f", f"{folder}/{table}.sql",
                               "-l", "--log-prefix", f"{folder}/{table}", *rate, "-h", self.proxy.host, "-p", str(self.proxy.port), "-U", "postgres",
                               self.proxy.dbname], text=True, capture_output=True, env=tool_environment(), timeout=seconds + 300, check=False)
        if done.returncode != 0 or "ERROR" in done.stderr:
            self.errors.append(done.stdout + done.stderr)
        took = []
        log = subprocess.run(["sh", "-c", f"cat {folder}/{table}.[0-9]*"], text=True, capture_output=True, check=True).stdout
        for line in log.splitlines():
            fields = line.split()
            took.append(int(fields[2]) - (int(fields[6]) if len(fields) > 6 else 0))
        return took

    def reader(self):
        with contextlib.closing(self.proxy.connect()) as connection:
            cursor = connection.cursor()
            while not self.stop.is_set():
                try:
                    cursor.execute("BEGIN; SELECT count(*) FROM events; SELECT count(*) FROM rest")
                    time.sleep(0.7)
                    cursor.execute("COMMIT")
                    self.read += 1
                except psycopg2.Error as error:
                    self.errors.append(error)
                    return
                time.sleep(0.1)

    def watch(self, node):
        with contextlib.closing(node.connect("postgres")) as connection:
            cursor = connection.cursor()
            while not self.stop.is_set():
                cursor.execute(WAITED)
                self.waited = max(self.waited, float(cursor.fetchone()[0] or 0))
                time.sleep(0.005)

    # ---- the run ----

    def run(self, seconds, work):
        """Clients for that long, and work() beside them; what each statement of theirs took, in microseconds."""
        took = {}
        with tempfile.TemporaryDirectory() as folder:
            others = [threading.Thread(target=self.watch, args=(node,)) for node in self.nodes] + \
                     [threading.Thread(target=self.reader)]
            writers = [threading.Thread(target=lambda table=table: took.update({table: self.write(seconds, folder, table)})) for table in SCRIPTS]
            for thread in others + writers:
                thread.start()
            try:
                work()
            finally:
                for thread in writers:
                    thread.join()
                self.stop.set()
                for thread in others:
                    thread.join()
        self.stop.clear()
        self.filled += sum(len(each) for each in took.values())
        return sorted(took["events"] + took["rest"])

    def maintain(self, until, first=31):
        """Day after day: one partition made and one archived of each table, on every shard."""
        day = first
        while time.monotonic() < until or day < first + 3:
            now = f"2026-01-{day}" if day <= 31 else f"2026-02-{day - 31:02}"
            self.ctl("maintain", "--now", now, "--tries", "5")
            if day == first + 1:
                self.proxy.sql("CREATE TABLE beside (user_id bigint NOT NULL, at date NOT NULL)")
                self.ctl("create", "beside", "--by", "at", "--every", "1day", "--now", now, code=0)
            if day == first + 2:
                self.ctl("expire", "events", "--before", "2026-01-06", "--now", now, "--tries", "5")
            day = min(day + 1, 31 + 25)
        self.last = now

    def settle(self):
        """What long reads kept from being done; nobody reads any more."""
        self.ctl("maintain", "--now", self.last, code=0)

    def rows(self):
        """All that there are, in both tables and in the archive of every shard."""
        count = self.proxy.value("SELECT count(*) FROM events") + self.proxy.value("SELECT count(*) FROM rest")
        archived = 0
        for node, dbname in self.dbnames:
            for name, in node.sql("SELECT oid::regclass::text FROM pg_class WHERE relnamespace = to_regnamespace('attic') AND relkind = 'r'", dbname=dbname):
                archived += node.value(f"SELECT count(*) FROM {name}", dbname=dbname)
        return count, archived
