"""A ledger of writes that stays true when servers and proxies die: what was acknowledged, and what nobody knows."""
import os
import random
import threading
import time

import psycopg2

from harness import wait_until
from reshard_support import bucket

TABLES = ("CREATE TABLE users (id bigint PRIMARY KEY, balance bigint NOT NULL, note text);"
          "CREATE TABLE orders (user_id bigint REFERENCES users, number bigint, total numeric, PRIMARY KEY (user_id, number))")
KEYSPACE = {"name": "users", "type": "bigint",
            "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}
CLIENTS = 4
# What a client may be told when something dies: nothing, its connection or server is gone, or "again".
MAY_FAIL = ("08", "57P", "58", "53300", "40001", "25006")


class Writer(threading.Thread):
    """
    One client with users of its own. What was acknowledged is in `users` (balances) and `orders`, what was deleted
    in `gone`; a statement whose answer did not come leaves its doubt in `more` (of a balance) and `perhaps`.
    """

    def __init__(self, proxy, number):
        super().__init__(daemon=True)
        self.proxy, self.number = proxy, number
        self.users, self.more, self.orders = {}, {}, {}
        self.gone, self.perhaps, self.maybe_users = set(), {}, set()
        self.wrong, self.interrupted, self.done = [], [], 0
        self.random = random.Random(number)
        self.end = threading.Event()
        self.next_user, self.next_order = number, 1
        self.connection = None

    def run(self):
        while not self.end.is_set():
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = self.proxy.connect()
                    self.connection.autocommit = True
            except psycopg2.Error:
                time.sleep(0.05)
                continue
            try:
                self.random.choice([self.add_user, self.add_order, self.add_order, self.pay, self.pay,
                                    self.drop_order, self.transaction])()
                self.done += 1
            except psycopg2.Error as error:
                self.note(error)
            except AssertionError as error:
                self.wrong.append(repr(error))
        if self.connection:
            self.connection.close()

    def note(self, error):
        told = f"{error.pgcode}: {error}"
        good = error.pgcode is None or error.pgcode.startswith(MAY_FAIL)
        (self.interrupted if good else self.wrong).append(told)
        time.sleep(0.02)
        if not self.connection.closed:
            try:
                self.connection.rollback()
                self.connection.autocommit = True
            except psycopg2.Error:
                self.connection.close()

    def execute(self, sql, *values):
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values)
            assert cursor.rowcount == 1, (sql, values, cursor.rowcount)

    def pick(self):
        return self.random.choice(list(self.users)) if self.users else None

    def add_user(self):
        user = self.next_user
        self.next_user += CLIENTS
        self.maybe_users.add(user)
        self.execute("INSERT INTO users VALUES (%s, 0, %s)", user, "x" * self.random.randrange(50))
        self.maybe_users.discard(user)
        self.users[user] = 0

    def new_order(self):
        number, self.next_order = self.next_order, self.next_order + 1
        return number

    def add_order(self):
        user = self.pick()
        if user is None:
            return
        order = user, self.new_order()
        self.perhaps[order] = "1.50"
        self.execute("INSERT INTO orders VALUES (%s, %s, 1.50)", *order)
        self.orders[order] = self.perhaps.pop(order)

    def pay(self):
        user = self.pick()
        if user is None:
            return
        self.more[user] = self.more.get(user, 0) + 1
        self.execute("UPDATE users SET balance = balance + 1 WHERE id = %s", user)
        self.more[user] -= 1
        self.users[user] += 1

    def drop_order(self):
        if not self.orders:
            return
        order = self.random.choice(list(self.orders))
        self.perhaps[order] = self.orders.pop(order)
        self.execute("DELETE FROM orders WHERE user_id = %s AND number = %s", *order)
        del self.perhaps[order]
        self.gone.add(order)

    def transaction(self):
        user = self.pick()
        if user is None:
            return
        order = user, self.new_order()
        self.connection.autocommit = False
        self.perhaps[order] = "2"
        self.more[user] = self.more.get(user, 0) + 2
        self.execute("UPDATE users SET balance = balance + 2 WHERE id = %s", user)
        self.execute("INSERT INTO orders VALUES (%s, %s, 2)", *order)
        self.connection.commit()
        self.connection.autocommit = True
        self.more[user] -= 2
        self.users[user] += 2
        self.orders[order] = self.perhaps.pop(order)


class Ledger:
    """Clients that write through the proxies, until the block ends."""

    def __init__(self, *proxies):
        self.proxies = proxies
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

    def wrong(self):
        """What no client may be told, whatever is killed."""
        return [told for writer in self.writers for told in writer.wrong]

    def interrupted(self):
        return [told for writer in self.writers for told in writer.interrupted]

    def progress(self, count=20, timeout=60):
        """Every client gets on."""
        aims = [(writer, writer.done + count // CLIENTS) for writer in self.writers]
        wait_until(lambda: all(writer.done >= aim for writer, aim in aims), timeout,
                   f"{count} more writes, after {self.interrupted()[-3:]} {self.wrong()[-3:]}")

    def merged(self, name):
        return {key: value for writer in self.writers for key, value in getattr(writer, name).items()}

    def united(self, name):
        return {key for writer in self.writers for key in getattr(writer, name)}

    def compare(self, users, orders):
        """`users`: [(id, balance)], `orders`: [(user_id, number, total)]: what is there, against what was acknowledged."""
        assert len(users) == len({user for user, _ in users}), "users twice"
        assert len(orders) == len({order[:2] for order in orders}), "orders twice"
        sure, more, there = self.merged("users"), self.merged("more"), dict(users)
        assert set(sure) <= set(there) <= set(sure) | self.united("maybe_users")
        wrong = {user: (balance, there[user]) for user, balance in sure.items()
                 if not balance <= there[user] <= balance + more.get(user, 0)}
        assert not wrong, f"acknowledged and found balances: {wrong}"
        sure, perhaps = self.merged("orders"), self.merged("perhaps")
        there = {(user, number): str(total) for user, number, total in orders}
        missing = {order for order in sure if there.get(order) != sure[order]}
        assert not missing, f"orders that were acknowledged are not there: {sorted(missing)[:10]}"
        back = self.united("gone") & set(there)
        assert not back, f"orders that were deleted are there: {sorted(back)[:10]}"
        strange = {order for order in there if order not in sure and order not in perhaps}
        assert not strange, f"orders nobody wrote: {sorted(strange)[:10]}"

    def judge(self, cluster):
        """Every acknowledged write is there once, on the shard that owns its bucket, and no row anywhere else."""
        assert self.wrong() == []
        for proxy in self.proxies:
            self.compare(proxy.sql("SELECT id, balance FROM users"), proxy.sql("SELECT user_id, number, total FROM orders"))
        owner = owners(cluster)
        found = {table: [(shard, row) for shard, node in enumerate(cluster.primaries) for row in node.sql(query)]
                 for table, query in (("users", "SELECT id, balance FROM users"),
                                      ("orders", "SELECT user_id, number, total FROM orders"))}
        strays = [(table, shard, row) for table, rows in found.items() for shard, row in rows if owner[bucket(row[0])] != shard]
        assert not strays, f"rows on a shard that does not own them: {strays[:10]}"
        self.compare([row for _, row in found["users"]], [row for _, row in found["orders"]])


def owners(cluster):
    """The shard of each bucket, as the catalog has it."""
    return {number: int(shard[1:])
            for first, last, shard in cluster.primaries[0].sql("SELECT first, last, shard FROM pgshunt.bucket WHERE keyspace = 'users'")
            for number in range(first, last + 1)}


def left_over(cluster):
    """What a job that is over must not leave behind, on any shard and in the catalog."""
    found = []
    for shard, node in enumerate(cluster.primaries):
        found += [(shard, *row) for row in node.sql(
            "SELECT 'slot', slot_name::text FROM pg_replication_slots UNION ALL "
            "SELECT 'publication', pubname FROM pg_publication UNION ALL "
            "SELECT 'origin', roname FROM pg_replication_origin UNION ALL "
            "SELECT 'trigger', tgname FROM pg_trigger WHERE tgname LIKE 'pgshunt%' UNION ALL "
            "SELECT 'identity', relname FROM pg_class WHERE relreplident = 'f' AND relkind = 'r' UNION ALL "
            "SELECT 'prepared', gid FROM pg_prepared_xacts UNION ALL "
            "SELECT 'schema', nspname FROM pg_namespace WHERE nspname LIKE 'pgshunt\\_%' UNION ALL "
            "SELECT 'advisory lock', pid::text FROM pg_locks WHERE locktype = 'advisory' UNION ALL "
            "SELECT 'session', query FROM pg_stat_activity WHERE application_name LIKE 'pgshunt reshard%'")]
        for table in ("chunk", "applied", "ghost_users", "marker"):
            if node.value("SELECT to_regclass(%s) IS NOT NULL", (f"pgshunt.{table}",)):
                found += [(shard, table, *row) for row in node.sql(f"SELECT * FROM pgshunt.{table} LIMIT 3")]
    for table in ("ghost", "hold", "hold_bucket", "job_object"):
        found += [(table, *row) for row in cluster.primaries[0].sql(f"SELECT * FROM pgshunt.{table}")]
    return found


def seed(ledger, proxy, users=3000):
    """Rows to be copied: users of the ledger's first client that nobody writes to, each with an order."""
    writer = ledger.writers[0]
    first = 10 ** 9
    ids = range(first, first + users)
    connection = proxy.connect()
    with connection.cursor() as cursor:
        for start in range(0, users, 500):
            part = ids[start:start + 500]
            cursor.execute("INSERT INTO users VALUES " + ", ".join(f"({user}, 7, repeat('y', 200))" for user in part))
            cursor.execute("INSERT INTO orders VALUES " + ", ".join(f"({user}, 0, 3)" for user in part))
    connection.close()
    kept_users, kept_orders = {user: 7 for user in ids}, {(user, 0): "3" for user in ids}
    writer.users.update(kept_users)
    writer.orders.update(kept_orders)


def program(name="pgshuntctl"):
    from harness.proxy import binary
    return os.path.join(os.path.dirname(binary()), name)
