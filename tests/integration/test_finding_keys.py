"""How statements find their shards: lists of keys, split so that each shard gets its own elements."""
import struct
from contextlib import closing

import pytest

from harness import Proxy
from support import SYNC, Raw, bind, execute, explain, fetch, fields, one, parse, query, refused, values

pytestmark = pytest.mark.core

USERS = [{"name": "postgres", "password": "", "admin": True}, {"name": "app", "password": ""},
         {"name": "warned", "password": "", "require_key": "warn"},
         {"name": "strict", "password": "", "require_key": "error"}]
KEYSPACES = [
    {"name": "numbers", "type": "bigint", "tables": [{"name": "numbers", "key": "id"}]},
    {"name": "words", "type": "text", "tables": [{"name": "words", "key": "slug"}]},
]
TABLES = {"numbers": "id bigint PRIMARY KEY, v int", "words": "slug text PRIMARY KEY, v int"}


@pytest.fixture(scope="module")
def proxy(cluster):
    for user in ("warned", "strict"):
        cluster.create_role(user)
    with Proxy(cluster, keyspaces=KEYSPACES, users=USERS) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            cursor = connection.cursor()
            for name, columns in TABLES.items():
                cursor.execute(f"CREATE TABLE {name} ({columns})")
            cursor.execute("INSERT INTO numbers VALUES " + ", ".join(f"({n}, 0)" for n in range(1, 101)))
            for name in TABLES:
                cursor.execute(f"GRANT ALL ON {name} TO warned, strict")
            cursor.execute("INSERT INTO words VALUES " + ", ".join(f"('w,{n}', 0)" for n in range(1, 41)))
        yield proxy
        for node in cluster.primaries:
            node.sql("; ".join(f"DROP TABLE IF EXISTS {name}" for name in TABLES))


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        yield connection


def on_shards(cluster, sql):
    return [sorted(row[0] for row in node.sql(sql)) for node in cluster.primaries]


# ---- lists of keys ----

def numbers_in(line):
    """The numbers of the list that a shard's line of EXPLAIN has."""
    inside = line[line.index("id in (") + 7:] if "id in (" in line else line[line.index("'{") + 2:]
    return [int(word) for word in inside.replace("}", ")").split(")")[0].split(",")]


@pytest.mark.parametrize("form", ["id IN ({})", "id = ANY ('{{{}}}')", "id = ANY ('{{{}}}'::bigint[])"])
@pytest.mark.parametrize("statement", ["SELECT v FROM numbers WHERE {} ORDER BY v LIMIT 3 OFFSET 1",
                                       "UPDATE numbers SET v = 0 WHERE {}", "DELETE FROM numbers WHERE {}"])
def test_each_shard_gets_its_own_literals(cluster, app, form, statement):
    there = on_shards(cluster, "SELECT id FROM numbers")
    plan = explain(app, statement.format(form.format(", ".join(map(str, range(1, 21))))))
    for shard, ids in enumerate(there):
        line = next(line for line in plan.splitlines() if line.strip().startswith(f"s{shard}: explain"))
        assert numbers_in(line) == [number for number in ids if number <= 20]


def int8_array(*numbers):
    elements = b"".join(struct.pack("!i", -1) if n is None else struct.pack("!iq", 8, n) for n in numbers)
    return struct.pack("!iiIii", 1, None in numbers, 20, len(numbers), 1) + elements


def rows_of(messages):
    assert "E" not in [kind for kind, _ in messages], messages
    return [values(body)[0] for kind, body in messages if kind == "D"]


def tag_of(messages):
    assert "E" not in [kind for kind, _ in messages], messages
    return next(body for kind, body in messages if kind == "C").rstrip(b"\0")


WANTED = [1, 2, 3, 50, 77, 78, 79, 500]
FOUND = [str(number).encode() for number in WANTED[:-1]]


@pytest.mark.parametrize("sql, bound, formats", [
    ("id = ANY ($1)", [b"{1,2, 3 ,50,NULL,\"77\",78,79,500}"], []),
    ("id = ANY ($1)", [int8_array(1, 2, 3, None, 50, 77, 78, 79, 500)], [1]),
    ("id = ANY ($1::bigint[]) AND id = ANY ($1::bigint[])", [int8_array(*WANTED)], [1]),
    ("id = ANY ($1) AND v < cardinality($1::int[])", [b"{1,2,3,50,77,78,79,500}"], []),
    ("id IN ($1, $2, $3, $4, $5, $6, $7, $8)", [str(n).encode() for n in WANTED], []),
    ("id IN ($1, $2, $3, $4, $5, $6, 79, 500)", [struct.pack("!q", n) for n in WANTED[:-2]], [1]),
    ("id = ANY (ARRAY[$1, $2, $3, $4, $5, $6, $7, $8, NULL]::bigint[])", [str(n).encode() for n in WANTED], []),
])
def test_parameters_as_lists(app, proxy, sql, bound, formats):
    with Raw(proxy) as raw:
        raw.ask(parse("s", f"SELECT id FROM numbers WHERE {sql} ORDER BY id"),
                parse("u", f"UPDATE numbers SET v = v WHERE {sql}"), SYNC)
        for _ in range(2):  # the statement is used again
            assert rows_of(raw.ask(bind("", "s", bound, formats), execute(), SYNC)) == FOUND
        assert tag_of(raw.ask(bind("", "u", bound, formats), execute(), SYNC)) == b"UPDATE 7"


def test_an_empty_or_null_list_finds_nothing(proxy):
    with Raw(proxy) as raw:
        raw.ask(parse("s", "SELECT id FROM numbers WHERE id = ANY ($1)"), SYNC)
        for value, formats in ((b"{}", []), (None, []), (b"{NULL}", []), (int8_array(), [1]), (int8_array(None), [1])):
            assert rows_of(raw.ask(bind("", "s", [value], formats), execute(), SYNC)) == []
        assert rows_of(raw.ask(bind("", "s", [b"{7}"]), execute(), SYNC)) == [b"7"]


def test_text_keys_with_commas_and_quotes(app, proxy):
    slugs = ["w,1", "w,2", "w,3", "w,17", "it's", 'say "x"', "back\\slash", "null", "{"]
    with closing(proxy.connect3()) as three:
        three.prepare_threshold = 1
        for _ in range(3):
            found = three.execute("SELECT slug FROM words WHERE slug = ANY (%s) ORDER BY v, slug COLLATE \"C\"", (slugs,))
            assert [row[0] for row in found] == ["w,1", "w,17", "w,2", "w,3"]
    assert one(app, "SELECT count(*) FROM words WHERE slug = ANY (%s)", (slugs,)) == 4
    assert one(app, "SELECT count(*) FROM words WHERE slug IN %s", (tuple(slugs),)) == 4


@pytest.mark.parametrize("where, count", [
    ("id IN (1, 2, 3, 4) OR v = 99", 4), ("id IN (1, 2, 3, 4) OR id = 50", 5), ("id IN (1, 2) OR id IN (2, 3, 4, 5, 6)", 6),
    ("id NOT IN (1, 2, 3, 4)", 96), ("id <> ALL ('{1,2,3,4}')", 96), ("NOT id IN (1, 2, 3, 4)", 96),
    ("id NOT IN (1, NULL)", 0), ("(id IN (1, 2, 3, 4)) IS FALSE", 96), ("id IN (1, 2, 3, NULL)", 3),
    ("(id IN (1, 2, NULL)) IS NULL", 98), ("id IN (1, 2, 3, v + 4)", 4), ("id IN (1, 2, 3) AND id IN (2, 3, 4)", 2),
    ("CASE WHEN id IN (1, 2, 3) THEN v = 1 ELSE true END", 97), ("id = ANY (ARRAY[1, 2, 3, '4'])", 4),
])
def test_conditions_around_lists(app, where, count):
    assert one(app, f"SELECT count(*) FROM numbers WHERE {where}") == count


def test_lists_in_joins(app):
    sql = "SELECT a.id, b.id FROM numbers a {} JOIN numbers b ON a.id = b.id AND b.id IN (1, 2, 3) WHERE a.id < 6 ORDER BY a.id"
    assert fetch(app, sql.format("")) == [(1, 1), (2, 2), (3, 3)]
    assert fetch(app, sql.format("LEFT")) == [(1, 1), (2, 2), (3, 3), (4, None), (5, None)]


# ---- require_key ----

KEYLESS = ["SELECT count(*) FROM numbers", "SELECT v FROM numbers WHERE v = 1 ORDER BY id", "UPDATE numbers SET v = v",
           "DELETE FROM numbers WHERE v = 99 RETURNING id", "SELECT * FROM numbers ORDER BY v FETCH FIRST 1 ROW WITH TIES",
           "SELECT count(*) FROM numbers a JOIN numbers b ON a.v = b.id WHERE a.id = 1",
           "SELECT count(*) FROM numbers WHERE id NOT IN (1, 2)", "EXPLAIN ANALYZE SELECT * FROM numbers"]
KEYED = ["SELECT v FROM numbers WHERE id = 1", "SELECT count(*) FROM numbers WHERE id IN (1, 2, 3, 4, 5, 6, 7, 8)",
         "UPDATE numbers SET v = v WHERE id = ANY ('{1,2,3,4,5,6,7,8}')", "SELECT 1",
         "SELECT count(*) FROM numbers a JOIN numbers b ON a.id = b.id WHERE a.id IN (1, 2, 3, 4, 5, 6, 7, 8)",
         "INSERT INTO numbers VALUES (1, 0), (2, 0), (3, 0), (4, 0) ON CONFLICT DO NOTHING",
         "/* pgshunt: shard=s0 */ SELECT count(*) FROM numbers", "/* pgshunt: key=3 */ SELECT count(*) FROM numbers",
         "SELECT * FROM numbers WHERE id = 1 OR id = 2 OR id = 3 OR id = 4", "EXPLAIN SELECT * FROM numbers",
         "ANALYZE numbers"]


def keyless_count(proxy):
    import urllib.request
    text = urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("pgshunt_keyless_total{"))


@pytest.mark.parametrize("sql", KEYLESS)
def test_require_key_refuses_and_warns_of_what_names_no_key(proxy, sql):
    before = keyless_count(proxy)
    with closing(proxy.connect(user="strict")) as strict, refused("42501", 'require_key is "error"'):
        strict.cursor().execute(sql)
    with closing(proxy.connect(user="warned")) as warned:
        warned.cursor().execute(sql)
        assert len(warned.notices) == 1 and "WARNING:  " in warned.notices[0] and '"numbers"' in warned.notices[0]
        assert "HINT:  Add" in warned.notices[0] or "HINT:  Give" in warned.notices[0]
    assert keyless_count(proxy) == before + 2
    with closing(proxy.connect()) as free:
        free.cursor().execute(sql)
        assert not free.notices


@pytest.mark.parametrize("sql", KEYED)
def test_require_key_lets_pass_what_names_one(proxy, sql):
    for user in ("strict", "warned"):
        with closing(proxy.connect(user=user)) as connection:
            connection.cursor().execute(sql)
            assert not [notice for notice in connection.notices if "key" in notice]


def test_require_key_and_extended_statements(proxy):
    """The Parse is fine: what is refused is known at the Bind, and the transaction goes on to fail like any."""
    with Raw(proxy, user="strict") as raw:
        answer = raw.ask(parse("s", "SELECT v FROM numbers WHERE id = $1 OR $2"), bind("", "s", [b"1", b"f"]), execute(), SYNC)
        assert [fields(body)["C"] for kind, body in answer if kind == "E"] == ["42501"]
        assert rows_of(raw.ask(query("SELECT v FROM numbers WHERE id = 1"))) == [b"0"]
    with Raw(proxy, user="warned") as raw:
        answer = raw.ask(parse("", "SELECT v FROM numbers WHERE v = $1"), bind("", "", [b"1"]), execute("", 5), SYNC)
        assert [fields(body)["C"] for kind, body in answer if kind == "N"] == ["01000"] and "E" not in dict(answer)


def test_require_key_in_explain_and_in_the_log(proxy):
    with closing(proxy.connect(user="strict")) as strict:
        assert 'require_key: select on several shards without a key of table "numbers" is not allowed' in explain(
            strict, "SELECT * FROM numbers")
    proxy.wait_log('without a key of table .*user=strict.*statement="[A-Z]')
