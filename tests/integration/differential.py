"""The same statements to three shards through pgshunt and to one Postgres with the same rows: what is compared, and how."""
import fnmatch
import os
import re
import socket
import struct
from contextlib import contextmanager

from harness import Cluster, Proxy
from support import SYNC, Raw, bind, close, describe, execute, fields, parse, query, values

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(REPO, "docs", "reference", "sql-support.md")
FIRST_USER_OID = 16384
FLOATS = {700, 701}

KEYSPACES = [
    {"name": "users", "type": "bigint",
     "tables": [{"name": "users", "key": "id"}, {"name": "orders", "key": "user_id"},
                {"name": "items", "key": "user_id"}, {"name": "empties", "key": "id"}]},
    {"name": "tenants", "type": "text",
     "tables": [{"name": "tenants", "key": "slug"}, {"name": "members", "key": "slug"}]},
    {"name": "devices", "type": "uuid",
     "tables": [{"name": "devices", "key": "id"}, {"name": "events", "key": "device"}]},
    {"name": "staff", "type": "bigint", "types": ["bigint", "bigint"],
     "tables": [{"name": "staff", "key": ["firm", "nr"]}, {"name": "shifts", "key": ["firm", "who"]}]},
]
REFERENCE = ["countries", "skus"]

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, email text COLLATE "C", nick text COLLATE "de-x-icu",
    country text, born date, seen timestamptz, balance numeric(12,2), score float8, active bool, tags text[],
    prefs jsonb, token uuid, photo bytea, ip inet, span interval, mood mood, small smallint, num int);
CREATE TABLE orders (id bigint NOT NULL, user_id bigint NOT NULL, amount numeric(10,2), item text, placed timestamptz,
    qty int, discount float8, PRIMARY KEY (user_id, id));
CREATE TABLE items (user_id bigint NOT NULL, order_id bigint NOT NULL, line int NOT NULL, sku text, price numeric(10,3),
    qty int, PRIMARY KEY (user_id, order_id, line));
CREATE TABLE empties (id bigint PRIMARY KEY, v int, t text);
CREATE TABLE tenants (slug text PRIMARY KEY, plan text, seats int);
CREATE TABLE members (slug text NOT NULL, nr int NOT NULL, who text, PRIMARY KEY (slug, nr));
CREATE TABLE devices (id uuid PRIMARY KEY, label text, v int);
CREATE TABLE events (device uuid NOT NULL, n int NOT NULL, at timestamptz, level text, PRIMARY KEY (device, n));
CREATE TABLE staff (name text, nr bigint NOT NULL, firm int NOT NULL, pay numeric(8,2), boss bigint, country text, PRIMARY KEY (firm, nr));
CREATE TABLE shifts (firm int NOT NULL, who bigint NOT NULL, day int NOT NULL, hours int, note text, PRIMARY KEY (firm, who, day));
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL, area numeric);
CREATE TABLE skus (sku text PRIMARY KEY, title text, weight int);
CREATE TABLE notes (id int PRIMARY KEY, user_id bigint, body text)
"""


# ---- rows: the same ones every time ----

def lit(value):
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


def unless(empty, value):
    return None if empty else value


def user(n):
    country = unless(n % 7 == 0, ["at", "de", "fr", "jp", "xx"][n % 5])
    return (n, ["Ann", "bob", "Österreich", "Zoë", "émile", "_x", "Bob", "ann"][n % 8] + str(n // 9),
            unless(n % 11 == 0, f"{'abcXYZ_-'[n % 8]}{n % 13}@x.org"), unless(n % 6 == 0, "äÄaAöOßz"[n % 8] * (1 + n % 3)),
            country, unless(n % 9 == 4, f"19{50 + n % 50}-0{1 + n % 9}-1{n % 9}"),
            unless(n % 8 == 3, f"2026-0{1 + n % 9}-05 0{n % 9}:30:00+0{n % 3}"),
            unless(n % 10 == 5, f"{n * 37 % 1000 - 200}.{n % 100:02d}"), unless(n % 5 == 2, (n * 13 % 64 - 20) / 4),
            unless(n % 3 == 0, n % 2 == 0), unless(n % 4 == 1, "{" + ",".join(f"t{i}" for i in range(n % 4)) + "}"),
            unless(n % 5 == 1, '{"k": %d, "l": [%d, null], "s": "%s"}' % (n % 6, n, "xyz"[n % 3])),
            unless(n % 6 == 2, f"00000000-0000-4000-8000-{n * 7919 % 997:012d}"), unless(n % 4 == 2, f"\\x{n % 9:02x}ff00"),
            unless(n % 4 == 3, f"10.{n % 3}.{n % 7}.{n}"), unless(n % 7 == 2, f"{n % 5} days {n % 24} hours"),
            unless(n % 9 == 0, ["sad", "ok", "happy"][n % 3]), unless(n % 8 == 6, n % 5), unless(n % 10 == 9, n * 17 % 30))


def order(n):
    return (n, 1 + n * n % 55, unless(n % 13 == 0, f"{n * 7 % 300}.5"), unless(n % 17 == 0, ["pen", "ink", "Desk", "lamp"][n % 4]),
            unless(n % 19 == 1, f"2026-0{1 + n % 9}-{10 + n % 18} 12:00:00+00"), n % 6, unless(n % 3 == 0, n % 8 / 8))


def item(n):
    return (order(1 + n % 180)[1], 1 + n % 180, n, unless(n % 12 == 0, f"s{n % 7}"), f"{n * 31 % 90}.{n % 10}25", n % 5)


def uuid(n):
    return f"{n * 2654435761 % 2**32:08x}-0000-4000-8000-00000000000{n % 10}"


ROWS = {
    "countries": [("at", "Austria", "83.9"), ("de", "Germany", "357"), ("fr", "France", None), ("jp", "Japan", "377.9")],
    "skus": [(f"s{n}", f"Thing {n}", unless(n == 3, n * 100)) for n in range(6)],
    "notes": [(n, unless(n % 4 == 0, n * 3), f"note {n}") for n in range(1, 13)],
    "users": [user(n) for n in range(1, 61)],
    "orders": [order(n) for n in range(1, 181)],
    "items": [item(n) for n in range(1, 301)],
    "tenants": [(f"acme{n}", ["free", "pro", None][n % 3], n * 7 % 20) for n in range(1, 13)] + [("O'Hara é", "pro", None)],
    "members": [(f"acme{1 + n % 15}", n, unless(n % 5 == 0, f"who{n % 6}")) for n in range(1, 41)],
    "devices": [(uuid(n), f"dev {n % 9}", unless(n % 4 == 0, n * 5 % 7)) for n in range(1, 21)],
    "staff": [(unless(n % 9 == 4, f"n{n}"), n, n % 4, unless(n % 5 == 0, f"{n * 3 % 17}.25"), unless(n % 4 == 1, n // 8 * 4 + n % 4),
               unless(n % 3 == 0, ["at", "de", "xx"][n % 3])) for n in range(1, 41)] + [("other", 5, 2, "1.00", None, "fr")],
    "shifts": [(n % 4, 1 + n % 30, n // 30, n * 5 % 9, unless(n % 4 == 0, f"s{n % 11}")) for n in range(1, 121)],
    "events": [(uuid(1 + n % 23), n, f"2026-02-{1 + n % 28} 0{n % 10}:00:00+00", ["info", "warn", None][n % 3])
               for n in range(1, 61)],
}


def inserts(rows=None):
    """Every row, in INSERTs of up to fifty."""
    for table, wanted in (rows or ROWS).items():
        for start in range(0, len(wanted), 50):
            yield (f"INSERT INTO {table} VALUES "
                   + ", ".join("(" + ", ".join(map(lit, row)) + ")" for row in wanted[start:start + 50]))


# ---- both sides ----

class Direct:
    """What Raw needs of a proxy, for a server."""

    def __init__(self, node):
        self.node = node

    def socket(self, timeout):
        return socket.create_connection((self.node.host, self.node.port), timeout)


class Answer:
    """What came back for one statement: columns (name, type, length, modifier, format), rows, tags, the error."""

    def __init__(self, messages):
        self.columns, self.rows, self.tags, self.error = None, [], [], None
        for kind, body in messages:
            if kind == "T":
                self.columns = described(body)
            elif kind == "D":
                self.rows.append(tuple(values(body)))
            elif kind == "C":
                self.tags.append(body[:-1].decode())
            elif kind == "E":
                self.error = fields(body)
        self.status = messages[-1][1].decode()
        if self.error:
            self.rows = []

    def refused(self):
        return self.error is not None and self.error["C"] in ("0A000", "54001") and "H" in self.error


def described(body):
    count, = struct.unpack("!H", body[:2])
    at, columns = 2, []
    for _ in range(count):
        end = body.index(b"\0", at)
        _, _, oid, length, modifier, form = struct.unpack("!IhIhih", body[end + 1:end + 19])
        columns.append((body[at:end].decode(), min(oid, FIRST_USER_OID), length, modifier, form))
        at = end + 19
    return columns


def number(value, form):
    """A float8 or float4 as it came, as a number."""
    if form:
        return struct.unpack("!d" if len(value) == 8 else "!f", value)[0]
    return float(value)


def rounded(answer):
    """The rows with floats of nine digits: sums of floats depend on the order of the rows."""
    floats = [i for i, column in enumerate(answer.columns or []) if column[1] in FLOATS]
    if not floats:
        return answer.rows
    return [tuple(f"{number(value, answer.columns[i][4]):.9g}" if i in floats and value is not None else value
                  for i, value in enumerate(row)) for row in answer.rows]


def order_of(rows, columns):
    return [tuple(row[i] for i in columns) for row in rows]


def difference(found, wanted, ordered):
    """What is not equal, in words; None: nothing. `ordered`: True: by every column; or the places of those that order."""
    if (found.error or {}).get("C") != (wanted.error or {}).get("C"):
        return f"errors: {found.error} instead of {wanted.error}"
    if found.columns != wanted.columns and not (found.error and wanted.error):
        return f"columns: {found.columns} instead of {wanted.columns}"
    if found.tags != wanted.tags:
        return f"tags: {found.tags} instead of {wanted.tags}"
    if found.status != wanted.status:
        return f"status {found.status} instead of {wanted.status}"
    one, other = rounded(found), rounded(wanted)
    if ordered is True:
        return None if one == other else f"rows: {one[:12]} ... instead of {other[:12]} ..."
    if sorted(one, key=repr) != sorted(other, key=repr):
        return f"rows (in any order): {sorted(one, key=repr)[:12]} ... instead of {sorted(other, key=repr)[:12]} ..."
    if ordered and order_of(one, ordered) != order_of(other, ordered):
        return f"order: {order_of(one, ordered)[:20]} instead of {order_of(other, ordered)[:20]}"
    return None


class Both:
    """A connection through the proxy and one to the server that has all rows."""

    def __init__(self, proxy, node, oracle="oracle"):
        self.app = Raw(proxy, database="app")
        self.one = Raw(Direct(node), database=oracle)

    def close(self):
        self.app.close()
        self.one.close()

    def simple(self, sql):
        self.app.send(query(sql))
        self.one.send(query(sql))
        return Answer(self.app.until_ready()), Answer(self.one.until_ready())

    def extended(self, sql, parameters=(), types=(), formats=(), results=(1,)):
        text = (parse("", sql, types) + bind("", "", parameters, formats, results) + describe("P", "") + execute("")
                + SYNC)
        self.app.send(text)
        self.one.send(text)
        return Answer(self.app.until_ready()), Answer(self.one.until_ready())

    def prepared_late(self, sql, parameters=(), types=(), name="st"):
        """As many drivers do: Parse and Describe first, Bind with the values in the next round, twice."""
        found = []
        for side in (self.app, self.one):
            first = side.ask(parse(name, sql, types), describe("S", name), SYNC)
            later = [side.ask(bind("", name, parameters), execute(""), SYNC) for _ in range(2)]
            side.ask(close("S", name), SYNC)
            found.append(([body for kind, body in first if kind == "t"], Answer(first).columns,
                          [Answer(messages) for messages in later]))
        return found

    def run(self, sql):
        """The same on both sides, which must succeed."""
        found, wanted = self.simple(sql)
        assert not wanted.error, (sql, wanted.error)
        assert not found.error, (sql, found.error)

    def check(self, sql, ordered, refusals=None):
        """Text and binary. What is refused is noted in `refusals` (None: it may not be). True: answered."""
        for ask in (self.simple, self.extended):
            found, wanted = ask(sql)
            if refusals is not None and found.refused() and not (wanted.error and wanted.error["C"] == "0A000"):
                refusals.setdefault(found.error["M"], []).append(sql)
                return False
            wrong = difference(found, wanted, ordered)
            assert not wrong, f"{ask.__name__}: {sql}\n{wrong}"
        return True


def ends_ordered(sql):
    """Whether the statement's last clauses are ORDER BY and what may follow it."""
    depth, last = 0, -1
    for match in re.finditer(r"'(?:[^']|'')*'|\(|\)|\bORDER BY\b", sql):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == "ORDER BY" and depth == 0:
            last = match.start()
    return last >= 0


@contextmanager
def shards_and_one(keyspaces, reference, script, rows, shards=3, options=None):
    """Three shards behind pgshunt with these rows, and one database with all of them: yields proxy and node."""
    with Cluster(shards=shards, replicas=0) as cluster:
        node = cluster.shards[0].primary
        cluster.create_database("oracle")
        with Proxy(cluster, keyspaces=keyspaces, reference=reference, options=options or {}) as proxy:
            proxy.wait_nodes()
            both = Both(proxy, node)
            for statement in script.split(";"):
                both.run(statement.strip())
            both.close()
            wait_known(proxy, script)
            both = Both(proxy, node)
            for statement in inserts(rows):
                both.run(statement)
            for statement in ("ANALYZE",):
                both.run(statement)
            both.close()
            yield proxy, node


def wait_known(proxy, script):
    """Until the router knows the columns of the last table."""
    from harness.process import wait_until
    tables = re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", script)

    def known():
        with Raw(proxy, database="app") as client:
            return all(not Answer(client.ask(query(f"SELECT *, count(*) OVER () FROM {table}"))).error for table in tables)

    wait_until(known, 15.0, "tables known to the proxy")


# ---- the page ----

def page_messages():
    """The messages that docs/reference/sql-support.md lists, as patterns."""
    with open(PAGE) as page:
        text = page.read()
    listed = re.sub(r"\s+", " ", text[text.index("## Messages"):])
    found = []
    for quoted in re.findall(r"`([^`]+)`", listed):
        found.append(re.sub(r"([\[\]?])", r"[\1]", quoted).replace("...", "*"))
    return found


def is_on_page(text, patterns):
    """Whether a refusal's message is one of the page's, whose ends are said once for all."""
    text = " ".join(text.split())
    ends = ["", " is not supported yet", " is not supported", " over several shards is not supported yet",
            " are not supported yet"]
    return any(fnmatch.fnmatchcase(text.lower(), (pattern + end).lower()) for pattern in patterns for end in ends)
