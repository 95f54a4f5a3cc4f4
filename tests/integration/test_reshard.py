"""Live data moves between shards and back while clients write; a ledger of what was acknowledged judges."""
import json
import os
import random
import signal
import subprocess
import threading
import time

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until
from harness.proxy import binary
from reshard_support import bucket, forget_everything

pytestmark = pytest.mark.slow

KEYSPACE = {"name": "users", "type": "bigint",
            "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}, {"name": "notes", "key": "user_id"}]}
TABLES = ("CREATE TABLE users (id bigint PRIMARY KEY, balance bigint NOT NULL, note text);"
          "CREATE TABLE orders (user_id bigint REFERENCES users, number bigint, total numeric, PRIMARY KEY (user_id, number))")
CLIENTS = 6

with open(os.path.join(os.path.dirname(binary()), "pgshuntctl"), "rb") as program:
    HAS_FAILPOINTS = b"PGSHUNT_CRASH_AT" in program.read()
needs_failpoints = pytest.mark.skipif(not HAS_FAILPOINTS, reason="a release build has no failpoints")


class Writer(threading.Thread):
    """One client with users of its own. `users` and `orders` are what it knows to be there."""

    def __init__(self, proxy, number):
        super().__init__(daemon=True)
        self.proxy, self.number = proxy, number
        self.users, self.orders, self.gone = {}, {}, set()
        self.errors, self.done, self.longest = [], 0, 0.0
        self.random = random.Random(number)
        self.end = threading.Event()
        self.next_user, self.next_order = number, 1

    def run(self):
        connection = self.proxy.connect()
        while not self.end.is_set():
            began = time.monotonic()
            try:
                self.random.choice([self.add_user, self.add_order, self.add_order, self.pay, self.pay,
                                    self.drop_order, self.transaction])(connection)
                self.done += 1
            except psycopg2.Error as error:
                self.errors.append(repr(error))
                if connection.closed:
                    connection = self.proxy.connect()
            self.longest = max(self.longest, time.monotonic() - began)
        connection.close()

    def execute(self, connection, sql, *values):
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            assert cursor.rowcount == 1, (sql, values, cursor.rowcount)

    def add_user(self, connection):
        user = self.next_user
        self.next_user += CLIENTS
        self.execute(connection, "INSERT INTO users VALUES (%s, 0, %s)", user, "x" * self.random.randrange(50))
        self.users[user] = 0

    def pick(self):
        return self.random.choice(list(self.users)) if self.users else None

    def add_order(self, connection):
        user = self.pick()
        if user is None:
            return
        number, self.next_order = self.next_order, self.next_order + 1
        self.execute(connection, "INSERT INTO orders VALUES (%s, %s, 1.50)", user, number)
        self.orders[user, number] = "1.50"

    def pay(self, connection):
        user = self.pick()
        if user is None:
            return
        self.execute(connection, "UPDATE users SET balance = balance + 1 WHERE id = %s", user)
        self.users[user] += 1

    def drop_order(self, connection):
        if not self.orders:
            return
        order = self.random.choice(list(self.orders))
        self.execute(connection, "DELETE FROM orders WHERE user_id = %s AND number = %s", *order)
        del self.orders[order]
        self.gone.add(order)

    def transaction(self, connection):
        user = self.pick()
        if user is None:
            return
        number, self.next_order = self.next_order, self.next_order + 1
        connection.autocommit = False
        try:
            self.execute(connection, "UPDATE users SET balance = balance + 2 WHERE id = %s", user)
            self.execute(connection, "INSERT INTO orders VALUES (%s, %s, 2)", user, number)
            connection.commit()
            self.users[user] += 2
            self.orders[user, number] = "2"
        except BaseException:
            connection.rollback()
            raise
        finally:
            if not connection.closed:
                connection.autocommit = True


class Load:
    def __init__(self, *proxies):
        self.writers = [Writer(proxies[number % len(proxies)], number) for number in range(CLIENTS)]

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.end.set()
        for writer in self.writers:
            writer.join(60)

    def errors(self):
        return [error for writer in self.writers for error in writer.errors]

    def progress(self, count=200, timeout=60):
        target = sum(writer.done for writer in self.writers) + count
        wait_until(lambda: sum(writer.done for writer in self.writers) >= target, timeout, f"{count} more writes")

    def users(self):
        return {user: balance for writer in self.writers for user, balance in writer.users.items()}

    def orders(self):
        return {order: total for writer in self.writers for order, total in writer.orders.items()}


class Runner:
    """`pgshuntctl reshard run` in the background."""

    def __init__(self, proxy, job, *more):
        self.process = subprocess.Popen([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path,
                                         "reshard", "run", job, *more],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.output = self.process.communicate(timeout=60)[0]

    def kill9(self):
        self.process.kill()
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def running():
    with Cluster(shards=3, replicas=0) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    forget_everything(*running.primaries)
    for node in running.primaries:
        node.sql(TABLES)
    return running


def proxy_of(cluster):
    shards = cluster.shard_config()
    for shard, weight in zip(shards, (1, 1, 0)):
        shard["weight"] = weight
    return Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards})


@pytest.fixture
def proxies(cluster):
    with proxy_of(cluster) as one, proxy_of(cluster) as other:
        one.wait_nodes()
        other.wait_nodes()
        yield one, other


def patient(args):
    """A loaded machine may take longer over a switch than anybody would wait for."""
    return (*args, "--max-pause", "5s") if args[0] in ("switch", "rollback") else args


def ctl(proxy, *args, code=0, timeout=120):
    args = args if code else patient(args)
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, "reshard", *args],
                         capture_output=True, text=True, timeout=timeout)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout


def state(cluster, job):
    return cluster.primaries[0].value("SELECT state FROM pgshunt.job WHERE name = %s", (job,))


def wait_state(cluster, job, wanted, timeout=60):
    wait_until(lambda: state(cluster, job) == wanted, timeout, f"job {job} to be {wanted}, it is {state(cluster, job)}")


def owners(cluster):
    """The shard of each bucket, as the catalog has it."""
    owner = {}
    for first, last, shard in cluster.primaries[0].sql("SELECT first, last, shard FROM pgshunt.bucket WHERE keyspace = 'users'"):
        for number in range(first, last + 1):
            owner[number] = int(shard[1:])
    return owner


def rows_of(cluster, query):
    """What is on which shard: [(shard, row), ...]."""
    return [(shard, row) for shard, node in enumerate(cluster.primaries) for row in node.sql(query)]


def judge(cluster, proxy, load, everywhere=True):
    """Every acknowledged write is there once, where its bucket belongs; `everywhere`: and nowhere else."""
    users, orders = load.users(), load.orders()
    assert dict(proxy.sql("SELECT id, balance FROM users")) == users
    assert {(user, number): str(total) for user, number, total in proxy.sql("SELECT user_id, number, total FROM orders")} == orders
    assert proxy.value("SELECT count(*) FROM orders") == len(orders)
    owner = owners(cluster)
    for query, key in (("SELECT id, balance FROM users", lambda row: row[0]),
                       ("SELECT user_id, number FROM orders", lambda row: row[0])):
        found = rows_of(cluster, query)
        here = [row for shard, row in found if owner[bucket(key(row))] == shard]
        assert len(here) == len(set(here)) == len(users if "balance" in query else orders)
        if everywhere:
            assert len(found) == len(here), "rows on a shard that does not own them"


def left_over(cluster):
    """What a job that is over must not leave behind."""
    found = []
    for shard, node in enumerate(cluster.primaries):
        found += [(shard, *row) for row in node.sql(
            "SELECT 'slot', slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgshunt%' UNION ALL "
            "SELECT 'publication', pubname FROM pg_publication UNION ALL "
            "SELECT 'origin', roname FROM pg_replication_origin UNION ALL "
            "SELECT 'trigger', tgname FROM pg_trigger WHERE tgname LIKE 'pgshunt%' UNION ALL "
            "SELECT 'identity', relname FROM pg_class WHERE relreplident = 'f' AND relkind = 'r' UNION ALL "
            "SELECT 'prepared', gid FROM pg_prepared_xacts")]
    found += [("ghosts", *row) for row in cluster.primaries[0].sql("SELECT keyspace, shard FROM pgshunt.ghost")]
    return found


def start(cluster, proxy, load, job="grow", wish=("--add", "s2")):
    """A job that streams, under load."""
    load.progress(300)
    ctl(proxy, "create", job, *wish)
    runner = Runner(proxy, job)
    wait_state(cluster, job, "streaming")
    return runner


def test_grow_back_and_forth(cluster, proxies):
    """2 shards become 3: copy, switch, rollback with writes between, switch again, complete. No statement fails."""
    proxies[0].change({})
    shards = proxies[0].config["databases"][0]["shards"]
    shards[2]["weight"] = 1  # what the job plans by; the recorded map counts for everything else
    proxies[0].write_config()
    with Load(*proxies) as load:
        with start(cluster, proxies[0], load):
            load.progress(300)
            ctl(proxies[0], "verify", "grow")
            for turn in ("switch", "rollback", "switch"):
                ctl(proxies[0], turn, "grow")
                load.progress(300)
                ctl(proxies[0], "verify", "grow")
            assert load.errors() == []
        ctl(proxies[0], "complete", "grow")
        load.progress(200)
    assert load.errors() == []
    assert set(owners(cluster).values()) == {0, 1, 2}
    judge(cluster, proxies[0], load)
    judge(cluster, proxies[1], load)
    assert left_over(cluster) == []


def test_cancel_leaves_nothing(cluster, proxies):
    with Load(*proxies) as load:
        with start(cluster, proxies[0], load, wish=("--move", "0-4095:s2")):
            load.progress(100)
            ctl(proxies[0], "cancel", "grow")
        load.progress(100)
    assert load.errors() == []
    judge(cluster, proxies[0], load)
    assert set(owners(cluster).values()) == {0, 1}
    assert left_over(cluster) == []
    assert state(cluster, "grow") == "cancelled"


def test_runner_killed_goes_on(cluster, proxies):
    """The engine is killed while it copies and while it streams."""
    with Load(*proxies) as load:
        load.progress(500)
        ctl(proxies[0], "create", "grow", "--move", "0-8191:s2")
        for delay in (0.05, 0.3, 0.8):
            runner = Runner(proxies[0], "grow")
            time.sleep(delay)
            runner.kill9()
        with Runner(proxies[0], "grow") as runner:
            wait_state(cluster, "grow", "streaming")
            load.progress(100)
            runner.kill9()
        load.progress(100)
        with Runner(proxies[0], "grow"):
            ctl(proxies[0], "verify", "grow")
            ctl(proxies[0], "switch", "grow")
            load.progress(100)
        ctl(proxies[0], "complete", "grow")
    assert load.errors() == []
    judge(cluster, proxies[0], load)
    assert left_over(cluster) == []


def test_stopped_proxy_cannot_write_to_the_old_owner(cluster, proxies):
    """A proxy that sleeps over the switch: what it writes then lands on the new owner, or fails."""
    one, other = proxies
    with Load(one) as load:
        with start(cluster, one, load, wish=("--move", "0-16383:s2")):
            late = other.connect()
            with late.cursor() as cursor:
                cursor.execute("SELECT 1")
            user = load.writers[0].next_user + 60000
            other.send_signal(signal.SIGSTOP)
            try:
                ctl(one, "switch", "grow")
            finally:
                other.send_signal(signal.SIGCONT)
            with late.cursor() as cursor:
                cursor.execute("INSERT INTO users VALUES (%s, 7, 'late')", (user,))
            assert cluster.primaries[2].sql("SELECT id FROM users WHERE id = %s", (user,)) == [(user,)]
            late.close()
        assert load.errors() == []


def test_direct_writer_is_refused_after_the_switch(cluster, proxies):
    with Load(*proxies) as load, start(cluster, proxies[0], load, wish=("--move", "0-16383:s2")):
        ctl(proxies[0], "switch", "grow")
        with pytest.raises(psycopg2.Error) as refused:
            cluster.primaries[0].sql("UPDATE users SET balance = 0")
        assert refused.value.pgcode == "55000"
        ctl(proxies[0], "rollback", "grow")
        assert load.errors() == []


def test_switch_gives_up_on_a_long_transaction(cluster, proxies):
    """Its transaction is let end; nothing changes, and everybody goes on."""
    with Load(*proxies) as load, start(cluster, proxies[0], load, wish=("--move", "0-16383:s2")):
        sitter = proxies[1].connect(autocommit=False)
        user = next(iter(load.users()))
        with sitter.cursor() as cursor:
            cursor.execute("UPDATE users SET note = 'sits' WHERE id = %s", (user,))
        said = ctl(proxies[0], "switch", "grow", code=3)
        assert "not ended" in said or "did not let go" in said
        sitter.rollback()
        assert state(cluster, "grow") == "streaming"
        load.progress(100)
        ctl(proxies[0], "switch", "grow")
        load.progress(100)
        sitter.close()
    assert load.errors() == []


def test_table_made_meanwhile(cluster, proxies):
    """Its rows are on no slot: a switch would lose them."""
    with Load(*proxies) as load, start(cluster, proxies[0], load, wish=("--move", "0-8191:s2")):
        proxies[0].sql("CREATE TABLE notes (user_id bigint, id bigint, PRIMARY KEY (user_id, id))")
        assert "public.notes: the table was made since the job began" in ctl(proxies[0], "switch", "grow", code=3)
        proxies[0].sql("DROP TABLE notes")
        ctl(proxies[0], "switch", "grow")
        proxies[0].sql("CREATE TABLE notes (user_id bigint, id bigint, PRIMARY KEY (user_id, id))")
        assert "public.notes" in ctl(proxies[0], "rollback", "grow", code=3)
    assert load.errors() == []


def test_keyspace_without_tables(cluster, proxies):
    for node in cluster.primaries:
        node.sql("DROP TABLE orders, users")
    ctl(proxies[0], "create", "early", "--move", "0-99:s2")
    ctl(proxies[0], "run", "early", "--until-caught-up")
    for verb in ("verify", "switch", "rollback", "switch", "complete"):
        ctl(proxies[0], verb, "early")
    assert set(owners(cluster).values()) == {0, 1, 2}
    assert left_over(cluster) == []


def test_status_and_mistakes(cluster, proxies):
    proxy = proxies[0]
    assert "there are no jobs" in ctl(proxy, "list")
    assert "there is no such job" in ctl(proxy, "switch", "nope", code=3)
    assert "s9" in ctl(proxy, "plan", "--add", "s9", code=3)
    before = [node.value("SELECT count(*) FROM pg_replication_slots") for node in cluster.primaries]
    ctl(proxy, "plan", "--move", "0-99:s2")
    assert [node.value("SELECT count(*) FROM pg_replication_slots") for node in cluster.primaries] == before
    ctl(proxy, "create", "small", "--move", "0-99:s2")
    ctl(proxy, "create", "small", "--move", "100-199:s2", code=5)
    assert "needs one that is streaming" in ctl(proxy, "switch", "small", code=3)
    said = ctl(proxy, "cancel", "small", "--dry-run")
    assert "would be done" in said and said.endswith("Nothing was changed.\n")
    assert state(cluster, "small") == "created"
    lines = [json.loads(line) for line in ctl(proxy, "status", "small", "--json").splitlines()]
    assert lines[-1]["outcome"] == "done"
    assert any("100 buckets" in line.get("text", "") or "buckets of users" in line.get("text", "") for line in lines)
    ctl(proxy, "cancel", "small")
    assert left_over(cluster) == []


def crash(proxy, step, *args):
    """The command is killed behind that step."""
    args = patient(args)
    ran = subprocess.run([os.path.join(os.path.dirname(binary()), "pgshuntctl"), "-c", proxy.config_path, "reshard", *args],
                         capture_output=True, text=True, timeout=60, env={**os.environ, "PGSHUNT_CRASH_AT": step})
    assert ran.returncode == -signal.SIGKILL, ran.stdout + ran.stderr


@needs_failpoints
def test_killed(cluster, proxies):
    """A switch and a rollback that die are undone or completed by the next; nobody notices. All steps are in tests/reshard."""
    one, other = proxies
    with Load(one, other) as load:
        ctl(one, "create", "grow", "--move", "0-8191:s2")
        crash(one, "run_copied", "run", "grow")
        with Runner(one, "grow"):
            wait_state(cluster, "grow", "streaming")
            for number, step in enumerate(("marker", "guard", "flip")):
                verb = "rollback" if number % 2 else "switch"
                crash(one, step, verb, "grow")
                load.progress(30)
                ctl(one, verb, "grow")
                load.progress(30)
            if state(cluster, "grow") != "switched":
                ctl(one, "switch", "grow")
        crash(one, "cleared", "complete", "grow")
        ctl(one, "complete", "grow")
        load.progress(50)
    assert load.errors() == []
    judge(cluster, one, load)
    assert left_over(cluster) == []


def wait_stopped(process):
    def stopped():
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "T"
    wait_until(stopped, 60, "the command to stop")


@needs_failpoints
def test_verify_while_a_runner_starts(cluster, proxies):
    """A runner whose streams begin right behind verify's look brings the target too far: that is no difference."""
    one, other = proxies
    program = os.path.join(os.path.dirname(binary()), "pgshuntctl")

    def stopping(step, *args):
        return subprocess.Popen([program, "-c", one.config_path, "reshard", *args], env={**os.environ, "PGSHUNT_STOP_AT": step},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def moved():
        node = cluster.primaries[2]
        return node.value("SELECT count(*) FROM orders") + node.value("SELECT coalesce(sum(balance), 0) FROM users")

    begun = []
    try:
        with Load(one, other) as load:
            load.progress(100)
            ctl(one, "create", "grow", "--move", "0-8191:s2")
            ctl(one, "run", "grow", "--until-caught-up")
            runner = stopping("run_streams", "run", "grow")
            begun.append(runner)
            wait_stopped(runner)
            verify = stopping("verify_snapshots", "verify", "grow")
            begun.append(verify)
            wait_stopped(verify)
            load.progress(100)
            before, deadline = moved(), time.monotonic() + 10
            runner.send_signal(signal.SIGCONT)
            # Half a second later it sees that they have to rest: on a slow machine before they have brought anything.
            while moved() == before and time.monotonic() < deadline:
                time.sleep(0.02)
            verify.send_signal(signal.SIGCONT)
            said = verify.communicate(timeout=100)[0]
            runner.send_signal(signal.SIGINT)
            runner.communicate(timeout=100)
            assert verify.returncode == 0, said
            ctl(one, "cancel", "grow")
    finally:
        for process in begun:
            process.kill()
            process.wait()
    assert load.errors() == []
    assert left_over(cluster) == []
