"""Keys of several columns move between shards while clients write: a ledger of what was acknowledged judges."""
import io
import random
import threading

import psycopg2
import pytest

from harness import Cluster, Proxy, wait_until
from reshard_support import forget_everything, xxh64
from test_reshard import Runner, ctl, left_over, wait_state

pytestmark = pytest.mark.slow

KEYSPACE = {"name": "accounts", "type": "bigint", "types": ["bigint", "text"],
            "tables": [{"name": "accounts", "key": ["tenant", "code"]}, {"name": "entries", "key": ["tenant", "code"]}]}
TABLES = ("CREATE TABLE accounts (code varchar(30), balance bigint NOT NULL, tenant int, PRIMARY KEY (tenant, code));"
          "CREATE TABLE entries (number bigint, tenant int, code varchar(30), total numeric, PRIMARY KEY (tenant, code, number))")
CLIENTS = 4


def bucket(tenant, code):
    """A text among several columns is hashed with its length ahead."""
    return xxh64(tenant.to_bytes(8, "big") + len(code).to_bytes(4, "big") + code.encode()) >> 50


class Writer(threading.Thread):
    """One client, a tenant of its own. `accounts` and `entries` are what it knows to be there."""

    def __init__(self, proxy, tenant):
        super().__init__(daemon=True)
        self.proxy, self.tenant = proxy, tenant
        self.accounts, self.entries = {}, {}
        self.errors, self.done, self.number = [], 0, 0
        self.random = random.Random(tenant)
        self.end = threading.Event()

    def run(self):
        connection = self.proxy.connect()
        one = [self.add, self.add, self.entry, self.entry, self.pay, self.pay, self.drop]
        wide = [self.rename, self.rename, self.all_of_the_tenant, self.look, self.copy, self.transaction, self.again]
        while not self.end.is_set():
            try:
                self.random.choice(one if self.random.random() < 0.7 else wide)(connection)
                self.done += 1
            except psycopg2.Error as error:
                self.errors.append(repr(error))
                if connection.closed:
                    connection = self.proxy.connect()
            except AssertionError as error:
                self.errors.append(str(error))
        connection.close()

    def execute(self, connection, sql, *values, rows=1):
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            assert cursor.rowcount == rows, (sql, values, cursor.rowcount, rows)

    def next(self):
        self.number += 1
        return self.number

    def pick(self):
        return self.random.choice(list(self.accounts)) if self.accounts else None

    def add(self, connection):
        if len(self.accounts) > 60:
            return
        code = f"c{self.next()}"
        self.execute(connection, "INSERT INTO accounts (tenant, code, balance) VALUES (%s, %s, 0)", self.tenant, code)
        self.accounts[code] = 0

    def entry(self, connection):
        code, number = self.pick(), self.next()
        if code is None:
            return
        self.execute(connection, "INSERT INTO entries (tenant, code, number, total) VALUES (%s, %s, %s, 1.50)", self.tenant, code, number)
        self.entries[code, number] = "1.50"

    def pay(self, connection):
        code = self.pick()
        if code is None:
            return
        self.execute(connection, "UPDATE accounts SET balance = balance + 1 WHERE code = %s AND tenant = %s", code, self.tenant)
        self.accounts[code] += 1

    def drop(self, connection):
        if not self.entries:
            return
        code, number = self.random.choice(list(self.entries))
        self.execute(connection, "DELETE FROM entries WHERE (tenant, code, number) = (%s, %s, %s)", self.tenant, code, number)
        del self.entries[code, number]

    def rename(self, connection):
        """The row gets another key, and goes to that key's shard."""
        code, new = self.pick(), f"r{self.next()}"
        if code is None:
            return
        self.execute(connection, "UPDATE accounts SET code = %s WHERE tenant = %s AND code = %s", new, self.tenant, code)
        self.accounts[new] = self.accounts.pop(code)

    def all_of_the_tenant(self, connection):
        self.execute(connection, "UPDATE accounts SET balance = balance + 2 WHERE tenant = %s", self.tenant, rows=len(self.accounts))
        for code in self.accounts:
            self.accounts[code] += 2

    def look(self, connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), coalesce(sum(balance), 0) FROM accounts WHERE tenant = %s", (self.tenant,))
            assert cursor.fetchone() == (len(self.accounts), sum(self.accounts.values()))
            cursor.execute("SELECT code, number FROM entries WHERE tenant = %s ORDER BY number", (self.tenant,))
            assert sorted(cursor.fetchall()) == sorted(self.entries)

    def copy(self, connection):
        rows = [(self.pick() or "x", self.next()) for _ in range(5)]
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY entries (code, number, total, tenant) FROM STDIN",
                               io.StringIO("".join(f"{code}\t{number}\t3\t{self.tenant}\n" for code, number in rows)))
        self.entries.update(((code, number), "3") for code, number in rows)

    def again(self, connection):
        """Rows of a query, under other keys."""
        if not self.accounts:
            return
        number = self.next()
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO entries (tenant, code, number, total) SELECT tenant, code || '+', %s, 4 FROM accounts "
                           "WHERE tenant = %s AND balance >= 0", (number, self.tenant))
            assert cursor.rowcount == len(self.accounts)
        self.entries.update(((code + "+", number), "4") for code in self.accounts)

    def transaction(self, connection):
        code, number = self.pick(), self.next()
        if code is None:
            return
        connection.autocommit = False
        try:
            self.execute(connection, "UPDATE accounts SET balance = balance + 3 WHERE tenant = %s AND code = %s", self.tenant, code)
            self.execute(connection, "INSERT INTO entries (tenant, code, number, total) VALUES (%s, %s, %s, 2)", self.tenant, code, number)
            connection.commit()
            self.accounts[code] += 3
            self.entries[code, number] = "2"
        except BaseException:
            connection.rollback()
            raise
        finally:
            if not connection.closed:
                connection.autocommit = True


class Load:
    def __init__(self, *proxies):
        self.writers = [Writer(proxies[number % len(proxies)], number + 1) for number in range(CLIENTS)]

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

    def progress(self, count, timeout=90):
        target = sum(writer.done for writer in self.writers) + count
        wait_until(lambda: sum(writer.done for writer in self.writers) >= target, timeout, f"{count} more writes")


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


@pytest.fixture
def proxies(cluster):
    shards = cluster.shard_config()
    shards[2]["weight"] = 0
    with Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards}) as one, \
            Proxy(cluster, keyspaces=[KEYSPACE], database={"shards": shards}) as other:
        one.wait_nodes()
        other.wait_nodes()
        yield one, other


def owners(cluster):
    owner = {}
    for first, last, shard in cluster.primaries[0].sql("SELECT first, last, shard FROM pgshunt.bucket WHERE keyspace = 'accounts'"):
        for number in range(first, last + 1):
            owner[number] = int(shard[1:])
    return owner


def judge(cluster, proxy, load):
    """Every acknowledged write is there once, where its bucket belongs, and nowhere else."""
    accounts = {(writer.tenant, code): balance for writer in load.writers for code, balance in writer.accounts.items()}
    entries = {(writer.tenant, *key): total for writer in load.writers for key, total in writer.entries.items()}
    assert {row[:2]: row[2] for row in proxy.sql("SELECT tenant, code, balance FROM accounts")} == accounts
    assert {row[:3]: str(row[3]) for row in proxy.sql("SELECT tenant, code, number, total FROM entries")} == entries
    owner, found = owners(cluster), {"accounts": 0, "entries": 0}
    for shard, node in enumerate(cluster.primaries):
        for table in found:
            for tenant, code in node.sql(f"SELECT tenant, code FROM {table}"):
                assert owner[bucket(tenant, code)] == shard, (table, tenant, code)
                found[table] += 1
    assert found == {"accounts": len(accounts), "entries": len(entries)}
    assert len(accounts) > 20 and len(entries) > 50


def test_grow_back_and_forth(cluster, proxies):
    """2 shards become 3: copy, switch, rollback with writes between, switch again, complete. No statement fails or is wrong."""
    ctl(proxies[0], "create", "grow", "--move", "0-4000:s2", "--move", "5000-7000:s1", code=2)  # not the last one alone
    with Load(*proxies) as load:
        load.progress(120)
        ctl(proxies[0], "create", "grow", "--move", "0-4000:s2,5000-7000:s1")
        with Runner(proxies[0], "grow"):
            wait_state(cluster, "grow", "streaming")
            load.progress(80)
            keys = "SELECT key1, key2 FROM pgshunt.ghost_accounts"
            assert all(5000 <= bucket(*key) <= 7000 for key in cluster.primaries[1].sql(keys)) and cluster.primaries[1].sql(keys)
            ctl(proxies[0], "verify", "grow")
            for turn in ("switch", "rollback", "switch"):
                ctl(proxies[0], turn, "grow")
                load.progress(80)
                ctl(proxies[0], "verify", "grow")
            assert load.errors() == []
        ctl(proxies[0], "complete", "grow")
        load.progress(60)
    assert load.errors() == []
    owner = owners(cluster)
    assert [owner[number] for number in (0, 4000, 4001, 5000, 7000, 7001)] == [2, 2, 0, 1, 1, 0]
    judge(cluster, proxies[0], load)
    assert left_over(cluster) == []
