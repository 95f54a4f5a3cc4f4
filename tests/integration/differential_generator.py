"""Random statements over the tables of differential.py: the same seed makes the same statements."""
import random

TABLES = {  # name: (shard key or None, unique columns, numbers, texts, others)
    "users": ("id", ["id"], ["num", "small", "balance", "score", "id"], ["name", "email", "country", "nick"],
              ["born", "seen", "active", "token", "ip", "mood", "tags", "prefs", "span"]),
    "orders": ("user_id", ["user_id", "id"], ["qty", "amount", "id", "user_id", "discount"], ["item"], ["placed"]),
    "items": ("user_id", ["line"], ["qty", "price", "line", "order_id", "user_id"], ["sku"], []),
    "empties": ("id", ["id"], ["v", "id"], ["t"], []),
    "tenants": ("slug", ["slug"], ["seats"], ["slug", "plan"], []),
    "members": ("slug", ["nr"], ["nr"], ["slug", "who"], []),
    "devices": ("id", ["id"], ["v"], ["label"], ["id"]),
    "events": ("device", ["n"], ["n"], ["level"], ["at", "device"]),
    "staff": (("firm", "nr"), ["firm", "nr"], ["nr", "firm", "pay", "boss"], ["name", "country"], []),
    "shifts": (("firm", "who"), ["firm", "who", "day"], ["who", "firm", "day", "hours"], ["note"], []),
    "countries": (None, ["code"], ["area"], ["code", "name"], []),
    "skus": (None, ["sku"], ["weight"], ["sku", "title"], []),
    "notes": (None, ["id"], ["id", "user_id"], ["body"], []),
}
USUAL = ["users"] * 4 + ["orders"] * 4 + ["items"] * 2 + list(TABLES)
BY_KEY = [("users", "id", "orders", "user_id"), ("users", "id", "items", "user_id"), ("orders", "user_id", "items", "user_id"),
          ("tenants", "slug", "members", "slug"), ("devices", "id", "events", "device"), ("users", "id", "empties", "id"),
          ("staff", ("firm", "nr"), "shifts", ("firm", "who")), ("staff", ("firm", "boss"), "staff", ("firm", "nr"))]
OTHERWISE = [("users", "num", "orders", "qty"), ("users", "country", "countries", "code"), ("items", "sku", "skus", "sku"),
             ("users", "id", "notes", "user_id"), ("orders", "id", "items", "order_id"), ("users", "num", "users", "num"),
             ("tenants", "seats", "orders", "qty"), ("events", "n", "devices", "v"), ("users", "small", "skus", "weight"),
             ("staff", "nr", "shifts", "who"), ("shifts", "firm", "staff", "nr"), ("staff", "country", "countries", "code")]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def chance(self, share):
        return self.random.random() < share

    def pick(self, *choices):
        return self.random.choice(choices)

    # ---- expressions ----

    def column(self, scope, kind=None):
        alias, table = self.random.choice(scope)
        _, _, numbers, texts, others = TABLES[table]
        choices = {"number": numbers, "text": texts}.get(kind) or numbers + texts + others
        if not choices:
            return "1" if kind == "number" else "'x'"
        return f"{alias}.{self.random.choice(choices)}"

    def number(self, scope):
        a = self.column(scope, "number")
        return self.pick(a, a, f"{a} + 1", f"-{a}", f"coalesce({a}, 0)", f"{a} * 2 - {self.column(scope, 'number')}",
                         f"CASE WHEN {a} > 3 THEN 1 ELSE 0 END", f"nullif({a}, 3)", f"length({self.column(scope, 'text')})")

    def text(self, scope):
        a = self.column(scope, "text")
        return self.pick(a, a, f"lower({a})", f"{a} || '!'", f"coalesce({a}, 'none')", f"left({a}, 1)", f'{a} COLLATE "C"')

    def value(self, scope):
        return self.pick(self.number, self.text, self.column)(scope)

    def condition(self, scope, depth=0):
        number, text = self.column(scope, "number"), self.column(scope, "text")
        choice = self.random.randrange(15 if depth < 2 else 9)
        if choice == 0:
            return f"{number} {self.pick('<', '>', '<=', '>=', '=', '<>')} {self.random.randrange(60)}"
        if choice == 1:
            return f"{number} IN ({', '.join(str(self.random.randrange(30)) for _ in range(self.pick(1, 2, 5)))})"
        if choice == 2:
            return f"{number} BETWEEN {self.random.randrange(20)} AND {self.random.randrange(60)}"
        if choice == 3:
            return f"{text} {self.pick('LIKE', 'NOT LIKE', 'ILIKE')} '{self.pick('a%', '%e%', '_o%', 'acme1%', 's%')}'"
        if choice == 4:
            return f"{self.column(scope)} IS {self.pick('', 'NOT ')}NULL"
        if choice == 5:
            return f"{text} IS DISTINCT FROM '{self.pick('at', 'pen', 'pro', 's1')}'"
        if choice == 6:
            return f"{number} = ANY (ARRAY[{self.random.randrange(30)}, {self.random.randrange(60)}, NULL])"
        if choice == 7:
            return self.key_condition(scope)
        if choice == 8:
            return f"{self.number(scope)} > {self.number(scope)}"
        if choice == 9:
            return f"NOT ({self.condition(scope, depth + 1)})"
        if choice in (10, 11):
            return f"({self.condition(scope, depth + 1)} {self.pick('AND', 'OR')} {self.condition(scope, depth + 1)})"
        return self.subquery_condition(scope, depth)

    def key_condition(self, scope):
        alias, table = self.random.choice(scope)
        key = TABLES[table][0]
        if table in ("users", "orders", "items", "empties"):
            return self.pick(f"{alias}.{key} = {self.random.randrange(70)}", f"{alias}.{key} IN (1, 2, {self.random.randrange(70)})",
                             f"({alias}.{key} = 5 OR {alias}.{key} = 6)", f"{alias}.{key} = ANY ('{{3,4,5}}')")
        if table in ("tenants", "members"):
            return self.pick(f"{alias}.slug = 'acme{self.random.randrange(16)}'", f"{alias}.slug IN ('acme1', 'acme2', 'acme3')")
        if isinstance(key, tuple):
            first, second = (f"{alias}.{column}" for column in key)
            firm, nr = self.random.randrange(4), self.random.randrange(1, 41)
            return self.pick(f"({first} = {firm} AND {second} = {nr})", f"({first}, {second}) IN (({firm}, {nr}), (2, 5), (3, 7))",
                             f"({second}, {first}) = ({nr}, {firm})", f"({first} = {firm} AND {second} IN (1, 2, 3, 5, {nr}))",
                             f"({first} = {nr % 4} AND {second} = {nr} OR {first} = 2 AND {second} = 6)", f"{first} = {firm}")
        return "true"

    def equal(self, a, x, b, y):
        """Columns of the one table and the other; several where keys have several."""
        if isinstance(x, str):
            return f"{b}.{y} = {a}.{x}"
        if self.chance(0.3):
            return f"({', '.join(f'{b}.{column}' for column in y)}) = ({', '.join(f'{a}.{column}' for column in x)})"
        return " AND ".join(f"{b}.{two} = {a}.{one}" for one, two in zip(x, y))

    def subquery_condition(self, scope, depth):
        table = self.random.choice(USUAL)
        inner = [("s", table)]
        number = self.column(inner, "number")
        more = f" WHERE {self.condition(inner, depth + 2)}" if self.chance(0.5) else ""
        joined = more + (" AND " if more else " WHERE ")
        kind = self.random.randrange(4)
        if kind == 0:
            return f"{self.column(scope, 'number')} {self.pick('IN', 'NOT IN')} (SELECT {number} FROM {table} s{more})"
        if kind == 1:
            tie = self.tie(scope, table) or f"{number} = {self.column(scope, 'number')}"
            return f"{self.pick('', 'NOT ')}EXISTS (SELECT 1 FROM {table} s{joined}{tie})"
        if kind == 2:
            return f"{self.column(scope, 'number')} {self.pick('<', '>=')} (SELECT {self.pick('max', 'avg', 'min')}({number}) FROM {table} s{more})"
        return f"{self.column(scope, 'number')} > {self.pick('ANY', 'ALL')} (SELECT {number} FROM {table} s{more})"

    def tie(self, scope, table):
        for alias, outer in scope:
            for a, x, b, y in BY_KEY:
                if (a, b) == (outer, table):
                    return self.equal(alias, x, "s", y)
                if (b, a) == (outer, table):
                    return self.equal(alias, y, "s", x)
        return None

    # ---- FROM ----

    def source(self):
        """FROM's text and its scope; few enough rows."""
        kind = self.random.randrange(10)
        if kind < 5:
            table = self.random.choice(USUAL)
            return f"{table} a", [("a", table)]
        pairs = BY_KEY if kind < 8 else OTHERWISE
        one, x, other, y = self.random.choice(pairs)
        joined = self.pick("JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
        text, scope = f"{one} a {joined} {other} b ON {self.equal('a', x, 'b', y)}", [("a", one), ("b", other)]
        if self.chance(0.2):
            for first, left, second, right in BY_KEY + OTHERWISE[:3]:
                if first == other:
                    text += f" {self.pick('JOIN', 'LEFT JOIN')} {second} c ON {self.equal('b', left, 'c', right)}"
                    scope = scope + [("c", second)]
                    break
        if len(scope) == 2 and joined == "JOIN" and self.chance(0.2):
            text = f"{one} a, {other} b WHERE {self.equal('a', x, 'b', y)}"
        return text, scope

    def where(self, text, scope):
        parts = [self.condition(scope) for _ in range(self.pick(0, 0, 1, 1, 2))]
        if not parts:
            return text
        return text + (" AND " if " WHERE " in text else " WHERE ") + " AND ".join(parts)

    def direction(self):
        return self.pick("", "", " DESC", " ASC") + self.pick("", "", " NULLS FIRST", " NULLS LAST")

    def unique(self, scope):
        return [f"{alias}.{column}" for alias, table in scope for column in TABLES[table][1]]

    def limits(self):
        return self.pick("", "", " LIMIT 7", " LIMIT 3 OFFSET 2", " OFFSET 4", " FETCH FIRST 2 ROWS ONLY", " LIMIT 0")

    # ---- SELECT ----

    def select(self):
        """(text, ordered as differential.difference() takes it)"""
        return self.pick(self.rows, self.rows, self.aggregates, self.groups, self.groups, self.distinct, self.windows,
                         self.set_operation, self.cte, self.derived, self.ties, self.distinct_on, self.sublinks)()

    def rows(self):
        text, scope = self.source()
        items = [self.value(scope) for _ in range(self.random.randrange(1, 4))]
        sql = f"SELECT {', '.join(items)} FROM {self.where(text, scope)}"
        if self.chance(0.3):
            return sql, None
        keys = [self.value(scope) + self.direction() for _ in range(self.random.randrange(3))] + self.unique(scope)
        return f"{sql} ORDER BY {', '.join(keys)}{self.limits()}", True

    def aggregate(self, scope):
        number, value = self.column(scope, "number"), self.column(scope)
        text = self.pick("count(*)", f"count({value})", f"sum({number})", f"min({number})", f"max({number})", f"avg({number})",
                         f"count(DISTINCT {number})", f"min({self.column(scope, 'text')})", f"max({self.text(scope)})",
                         f"bool_or({number} > 4)", f"bit_or({number}::int)", f"array_agg({number} ORDER BY {number})",
                         f"string_agg({self.column(scope, 'text')}, ',' ORDER BY {self.column(scope, 'text')} COLLATE \"C\")",
                         f"sum({self.number(scope)})", f"stddev({number}::int)")
        if text.startswith("string_agg"):
            column = self.column(scope, "text")
            text = f"string_agg({column}, ',' ORDER BY {column} COLLATE \"C\")"
        if self.chance(0.2):
            text += f" FILTER (WHERE {self.condition(scope, 2)})"
        return self.pick(text, text, text, f"coalesce({text}, NULL)", f"({text}) IS NULL")

    def aggregates(self):
        text, scope = self.source()
        items = [self.aggregate(scope) for _ in range(self.random.randrange(1, 4))]
        having = f" HAVING count(*) > {self.random.randrange(30)}" if self.chance(0.2) else ""
        return f"SELECT {', '.join(items)} FROM {self.where(text, scope)}{having}", None

    def groups(self):
        text, scope = self.source()
        keys = list(dict.fromkeys(self.pick(self.column, self.value)(scope) for _ in range(self.pick(1, 1, 2))))
        items = keys + [self.aggregate(scope) for _ in range(self.random.randrange(1, 3))]
        by = ", ".join(keys)
        by = self.pick(by, by, by, f"ROLLUP ({by})", f"GROUPING SETS (({by}), ())")
        sql = f"SELECT {', '.join(items)} FROM {self.where(text, scope)} GROUP BY {by}"
        if self.chance(0.25):
            sql += f" HAVING {self.pick('count(*) > 1', f'max({keys[0]}) IS NOT NULL', f'{keys[0]} IS NULL OR count(*) < 9')}"
            if "max(" in sql and not self.is_extreme(keys[0]):
                sql = sql.replace(f"max({keys[0]}) IS NOT NULL", "count(*) > 2")
        if self.chance(0.5) or by.startswith(("ROLLUP", "GROUPING")):
            return sql, None
        order = [key + self.direction() for key in keys]
        return f"{sql} ORDER BY {', '.join(order)}{self.limits()}", True

    def is_extreme(self, key):
        return not any(word in key for word in ("active", "token", "prefs", ".id", ".device"))

    def distinct(self):
        text, scope = self.source()
        items = list(dict.fromkeys(self.value(scope) for _ in range(self.pick(1, 2))))
        sql = f"SELECT DISTINCT {', '.join(items)} FROM {self.where(text, scope)}"
        if self.chance(0.4):
            return sql, None
        order = ", ".join(f"{i + 1}{self.direction()}" for i in range(len(items)))
        return f"{sql} ORDER BY {order}{self.limits()}", True

    def distinct_on(self):
        text, scope = self.source()
        key = self.value(scope)
        return (f"SELECT DISTINCT ON ({key}) {key}, {self.value(scope)} FROM {self.where(text, scope)} "
                f"ORDER BY {', '.join([key + self.direction()] + self.unique(scope))}{self.limits()}"), True

    def ties(self):
        table = self.random.choice(USUAL)
        scope = [("a", table)]
        key = self.column(scope)
        return (f"SELECT {key}, {self.value(scope)} FROM {self.where(f'{table} a', scope)} ORDER BY {key}{self.direction()} "
                f"FETCH FIRST {self.pick(1, 4)} ROWS WITH TIES"), [0]

    def windows(self):
        text, scope = self.source()
        over = f"(PARTITION BY {self.value(scope)} ORDER BY {', '.join(self.unique(scope))})"
        call = self.pick("row_number()", f"sum({self.column(scope, 'number')})", f"lag({self.column(scope)})", "rank()", "count(*)")
        return (f"SELECT {self.value(scope)}, {call} OVER {over} FROM {self.where(text, scope)} "
                f"ORDER BY {', '.join(self.unique(scope))}{self.limits()}"), True

    def set_operation(self):
        parts = []
        kind = self.pick("number", "text")
        for _ in range(self.pick(2, 2, 3)):
            table = self.random.choice(USUAL)
            scope = [("a", table)]
            column = self.column(scope, kind)
            cast = "::numeric" if kind == "number" else ' COLLATE "C"'
            parts.append(f"SELECT {column}{cast} AS v FROM {self.where(f'{table} a', scope)}")
        sql = parts[0]
        for part in parts[1:]:
            sql += f" {self.pick('UNION', 'UNION ALL', 'INTERSECT', 'EXCEPT', 'EXCEPT ALL', 'INTERSECT ALL')} {part}"
        return (sql, None) if self.chance(0.4) else (f"{sql} ORDER BY 1{self.direction()}{self.limits()}", True)

    def cte(self):
        text, scope = self.source()
        inner = f"SELECT {self.column(scope, 'number')} AS n, {self.column(scope, 'text')} AS t FROM {self.where(text, scope)}"
        outer = self.pick("SELECT count(*), min(n), max(t) FROM x", "SELECT t, sum(n) FROM x GROUP BY t", "SELECT n, t FROM x WHERE n > 3",
                          "SELECT a.n, b.t FROM x a JOIN x b ON a.n = b.n AND a.n < 9", "SELECT u.id, x.t FROM users u JOIN x ON x.n = u.id",
                          "SELECT count(*) FROM orders o WHERE o.qty IN (SELECT n FROM x)")
        return f"WITH x AS {self.pick('', 'MATERIALIZED ', 'NOT MATERIALIZED ')}({inner}) {outer}", None

    def derived(self):
        text, scope = self.source()
        key = self.value(scope)
        inner = f"SELECT {key} AS k, {self.aggregate(scope)} AS v FROM {self.where(text, scope)} GROUP BY {key}"
        outer = self.pick("SELECT count(*), count(k), count(v) FROM ({}) x", "SELECT k, v FROM ({}) x WHERE k IS NOT NULL",
                          "SELECT c.code, x.k FROM countries c LEFT JOIN ({}) x ON x.k::text = c.code")
        return outer.format(inner), None

    def sublinks(self):
        table = self.random.choice(["users", "orders", "tenants"])
        scope = [("a", table)]
        inner = self.random.choice(USUAL)
        tie = self.tie(scope, inner)
        where = f" WHERE {tie}" if tie and self.chance(0.7) else ""
        item = f"(SELECT {self.pick('count(*)', 'max', 'min')}"
        column = self.column([("s", inner)], "number")
        item = item + ("" if item.endswith("(*)") else f"({column})") + f" FROM {inner} s{where})"
        return f"SELECT {', '.join(self.unique(scope))}, {item} FROM {self.where(f'{table} a', scope)}", None

    # ---- changes ----

    def change(self):
        return self.pick(self.insert, self.update, self.update, self.delete)()

    def insert(self):
        start = self.random.randrange(50, 200)
        ids = list(dict.fromkeys(self.random.randrange(start, start + 40) for _ in range(self.random.randrange(1, 7))))
        table = self.pick("users", "users", "orders", "empties", "tenants", "countries", "staff")
        if table == "staff":
            rows = [f"({n}, 'new', {n % 5})" for n in ids]
            return (f"INSERT INTO staff (nr, name, firm) VALUES {', '.join(rows)}"
                    + self.pick(" ON CONFLICT DO NOTHING", " ON CONFLICT (firm, nr) DO UPDATE SET pay = 9") + self.pick("", " RETURNING *"))
        if table == "users":
            rows = [f"({n}, 'gen {n}', {self.pick('NULL', str(n % 7))}, {self.pick('NULL', 'DEFAULT', repr('at'))})" for n in ids]
            sql = f"INSERT INTO users (id, name, num, country) VALUES {', '.join(rows)}"
            sql += self.pick("", " ON CONFLICT DO NOTHING", " ON CONFLICT (id) DO UPDATE SET num = excluded.num + 1, name = users.name || '+'",
                             " ON CONFLICT (id) DO UPDATE SET num = 1 WHERE users.id % 2 = 0")
            return sql + self.pick("", " RETURNING id", " RETURNING *", " RETURNING id, num * 2 AS twice")
        if table == "orders":
            return (f"INSERT INTO orders (user_id, id, qty) VALUES {', '.join(f'({n % 9}, {n}, {n % 4})' for n in ids)}"
                    + self.pick(" ON CONFLICT DO NOTHING", " ON CONFLICT (user_id, id) DO UPDATE SET qty = 9") + self.pick("", " RETURNING *"))
        if table == "empties":
            return f"INSERT INTO empties VALUES {', '.join(f'({n}, {n % 5}, NULL)' for n in ids)} RETURNING id, v"
        if table == "tenants":
            names = ", ".join("('acme%d', 'x', %d)" % (n % 25, n) for n in dict((n % 25, n) for n in ids).values())
            return f"INSERT INTO tenants VALUES {names} ON CONFLICT (slug) DO UPDATE SET seats = excluded.seats"
        return f"INSERT INTO countries VALUES ('g{ids[0]}', 'made', {ids[0]}) RETURNING *"

    def update(self):
        table, column = self.pick(("users", "num"), ("users", "small"), ("orders", "qty"), ("items", "qty"), ("tenants", "seats"),
                                  ("devices", "v"), ("countries", "area"), ("notes", "user_id"), ("staff", "pay"), ("shifts", "hours"))
        scope = [(table, table)]
        condition = self.simple_condition(table)
        sql = f"UPDATE {table} SET {column} = {self.pick('NULL', '5', f'{column} + 1', f'CASE WHEN {column} > 3 THEN 1 END')}"
        if self.chance(0.8):
            sql += f" WHERE {condition}"
        return sql + (f" RETURNING {', '.join(self.unique(scope))}, {column}" if self.chance(0.5) else "")

    def simple_condition(self, table):
        scope = [(table, table)]
        for _ in range(20):
            condition = self.condition(scope, 2)
            if "SELECT" not in condition:
                return condition
        return "true"

    def delete(self):
        table = self.pick("orders", "users", "items", "tenants", "events", "countries", "notes", "staff", "shifts")
        sql = f"DELETE FROM {table} WHERE {self.simple_condition(table)}"
        return sql + self.pick("", " RETURNING *")
