#!/usr/bin/python3
"""`make demo`: two shards, each a primary and a streaming replica, behind pgshunt; everything shown is run.

Everything lives in a temporary folder. On a terminal the cluster stays up until Ctrl-C, so that one can
play on; else (and after Ctrl-C) every process is ended by its pid and the folder removed.
"""
import os
import shlex
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import Cluster, Proxy, ProxyFailed, pg_binary, wait_until  # noqa: E402
from harness.cluster import tool_environment  # noqa: E402
from harness.process import port_is_free  # noqa: E402
from harness.proxy import binary  # noqa: E402

USERS, ORDERS = 10_000, 50_000
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
KEYSPACES = [{"name": "users", "type": "bigint",
              "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"}]}]

SCHEMA = [
    "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, country text NOT NULL)",
    "CREATE TABLE orders (user_id bigint NOT NULL, id bigint NOT NULL, amount numeric(10,2) NOT NULL, "
    "item text NOT NULL, PRIMARY KEY (user_id, id))",
    "CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL)",
]
COUNTRIES = [("at", "Austria"), ("br", "Brazil"), ("de", "Germany"), ("jp", "Japan"), ("ke", "Kenya")]
NAMES = "Ada Bela Chidi Dora Emil Fatou Grace Hugo Ines Jun Kofi Lena Mira Noor Otto Priya".split()
ITEMS = "book lamp pen chair globe".split()


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def title(text):
    print("\n" + paint("1;36", f"== {text}"), flush=True)


def say(text):
    print(paint("2", text), flush=True)


class Shell:
    """Runs psql against the proxy and shows the command as one would type it."""

    def __init__(self, proxy):
        self.env = {**tool_environment(), "PGHOST": proxy.host, "PGPORT": str(proxy.port), "PGUSER": "postgres",
                    "PGDATABASE": "app", "PGSSLMODE": "disable", "PGGSSENCMODE": "disable", "PAGER": "",
                    "PSQLRC": os.devnull}
        settings = " ".join(f"{name}={self.env[name]}" for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"))
        print(paint("33", f"$ export {settings}"), flush=True)

    def psql(self, *args):
        print(paint("33", "$ psql " + " ".join(quoted(arg) for arg in args)), flush=True)
        self.run(*args)

    def run(self, *args):
        done = subprocess.run([pg_binary("psql"), "-v", "ON_ERROR_STOP=1", *args], stdin=subprocess.DEVNULL, env=self.env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in done.stdout.rstrip().splitlines():
            print("  " + line, flush=True)
        if done.returncode != 0:
            raise SystemExit(f"demo: psql ended with {done.returncode}")


def quoted(argument):
    """Double quotes where they will do, because SQL is full of single ones."""
    if argument and all(c.isalnum() or c in "-_./=" for c in argument):
        return argument
    return f'"{argument}"' if not set('"$`\\!') & set(argument) else shlex.quote(argument)


def write_inserts(path):
    """users and orders as multi-row INSERTs; pgshunt splits each by shard."""
    def insert(file, table, rows, count=1000):
        rows = list(rows)
        for start in range(0, len(rows), count):
            file.write(f"INSERT INTO {table} VALUES\n" + ",\n".join(rows[start:start + count]) + ";\n")

    with open(path, "w") as file:
        insert(file, "users (id, name, country)", (
            f"({i}, '{NAMES[i * 7 % len(NAMES)]} {i}', '{COUNTRIES[i * 3 % len(COUNTRIES)][0]}')"
            for i in range(1, USERS + 1)))
        insert(file, "orders (user_id, id, amount, item)", (
            f"({i * 7919 % USERS + 1}, {i}, {i * 31 % 20000 / 100:.2f}, '{ITEMS[i * 11 % len(ITEMS)]}')"
            for i in range(1, ORDERS + 1)))


def start():
    say("starting 2 shards, each a primary and a streaming replica ...")
    began = time.monotonic()
    cluster = Cluster(shards=2, replicas=1)
    proxy = Proxy(cluster, keyspaces=KEYSPACES, reference=["countries"], start=False)
    for name, wanted in (("port", 6432), ("http_port", 9632)):
        if port_is_free(wanted):
            setattr(proxy, name, wanted)
    proxy.config["listen"]["port"] = proxy.port
    proxy.config["http"]["port"] = proxy.http_port
    proxy.write_config()
    proxy.start()
    proxy.wait_nodes()
    say(f"up in {time.monotonic() - began:.1f} s, below {cluster.folder}")
    for shard in cluster.shards:
        nodes = "   ".join(f"{'primary' if node is shard.primary else 'replica'} 127.0.0.1:{node.port}"
                           for node in shard.nodes)
        say(f"  {shard.name}: {nodes}")
    say(f"  pgshunt: 127.0.0.1:{proxy.port}, metrics http://127.0.0.1:{proxy.http_port}/metrics, "
        f"configuration {proxy.config_path}")
    return cluster, proxy


def load(shell, proxy, cluster):
    title("Three tables, created on every shard")
    for statement in SCHEMA:
        shell.psql("-c", statement)
    wait_until(lambda: proxy.value("SELECT count(*) FROM orders") == 0, 10.0, "tables known to the proxy")

    title(f"{USERS:,} users and {ORDERS:,} orders through the proxy, every INSERT split by shard")
    shell.psql("-c", "INSERT INTO countries VALUES " + ", ".join(f"('{code}', '{name}')" for code, name in COUNTRIES))
    path = os.path.join(proxy.folder, "load.sql")
    write_inserts(path)
    began = time.monotonic()
    shell.psql("-q", "-f", path)
    seconds = time.monotonic() - began
    say(f"  {USERS + ORDERS:,} rows in {seconds:.1f} s")
    for shard in cluster.shards:
        users, orders, countries = shard.primary.sql(
            "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM orders), (SELECT count(*) FROM countries)")[0]
        say(f"  asked directly, {shard.name} has {users:,} users, {orders:,} orders, {countries} countries")
    cluster.sync()


def show(shell):
    title("A write goes to a primary (inet_server_port() tells which server answered)")
    shell.psql("-c", "UPDATE users SET name = 'Ada Lovelace' WHERE id = 42 RETURNING id, name, inet_server_port(), "
                     "pg_is_in_recovery() AS replica")

    title("A read goes to a replica of that shard")
    shell.psql("-c", "SELECT id, name, inet_server_port(), pg_is_in_recovery() AS replica FROM users WHERE id = 42")

    title("A point query goes to one shard")
    shell.psql("-c", "EXPLAIN SELECT item, amount FROM orders WHERE user_id = 42")

    title("No key: all shards, merged in order")
    query = "SELECT id, user_id, item, amount FROM orders ORDER BY amount DESC, id LIMIT 5"
    shell.psql("-c", "EXPLAIN " + query)
    shell.psql("-c", query)

    title("GROUP BY over all shards, with a reference table that every shard has")
    shell.psql("-c", "SELECT c.name, count(*) AS users FROM users u JOIN countries c ON c.code = u.country "
                     "GROUP BY c.name ORDER BY users DESC, c.name")
    shell.psql("-c", "SELECT item, count(*), sum(amount), min(amount), max(amount), avg(amount) FROM orders "
                     "GROUP BY item ORDER BY item")

    title("What no stream can merge: the rows it needs are brought to one server, which answers")
    query = ("SELECT country, name, spent, rank() OVER (PARTITION BY country ORDER BY spent DESC) "
             "FROM (SELECT u.country, u.name, sum(o.amount) AS spent FROM users u JOIN orders o ON o.user_id = u.id "
             "WHERE u.id <= 100 GROUP BY u.country, u.name) AS x ORDER BY 4, 1 LIMIT 5")
    shell.psql("-c", "EXPLAIN (COSTS OFF) " + query)
    shell.psql("-c", query)

    title("Who is primary, who is behind: the console, a virtual database named pgshunt")
    shell.psql("-d", "pgshunt", "-c", "SHOW NODES")


def play_on(proxy):
    line = f"psql -h {proxy.host} -p {proxy.port} -U postgres app"
    title("Play on")
    print("  " + paint("1;32", line), flush=True)
    print("  " + paint("1;32", f"psql -h {proxy.host} -p {proxy.port} -U postgres pgshunt -c 'SHOW POOLS'"), flush=True)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        say("  (no terminal: stopping everything now; on a terminal it stays up until Ctrl-C)")
        return
    say("  Ctrl-C ends it.")
    try:
        while proxy.running():
            time.sleep(0.5)
        print(proxy.log_tail(), file=sys.stderr)
    except KeyboardInterrupt:
        print()


def main():
    if not os.access(binary(), os.X_OK):
        raise SystemExit(f"demo: {binary()} is not there: run `make` first")
    began = time.monotonic()
    cluster = proxy = None
    try:
        cluster, proxy = start()
        shell = Shell(proxy)
        load(shell, proxy, cluster)
        show(shell)
        say(f"\n{time.monotonic() - began:.0f} s from start to here")
        play_on(proxy)
    except KeyboardInterrupt:
        print()
    except (ProxyFailed, TimeoutError) as error:
        raise SystemExit(f"demo: {error}" + (f"\n{proxy.log_tail()}" if proxy else ""))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if proxy is not None:
            proxy.close()
        if cluster is not None:
            cluster.stop()
        say("stopped.")


if __name__ == "__main__":
    main()
