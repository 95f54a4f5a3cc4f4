"""COPY into tables sharded by several columns: rows go to the shard of all parts, as one Postgres would take them."""
import io
import random
import struct
import uuid
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy
from support import fetch, refused

pytestmark = pytest.mark.core

KEYSPACES = [
    {"name": "people", "type": "bigint", "types": ["bigint", "bigint"], "tables": [{"name": "people", "key": ["tenant", "id"]}]},
    {"name": "pages", "type": "text", "types": ["text", "uuid", "bigint"], "hash": "postgres",
     "tables": [{"name": "pages", "key": ["site", "u", "n"]}]},
    {"name": "codes", "type": "text", "types": ["text", "text"], "tables": [{"name": "codes", "key": ["a", "b"]}]},
]
TABLES = {
    "people": ("id bigint NOT NULL, name text, twice bigint GENERATED ALWAYS AS (id * 2) STORED, tenant int, PRIMARY KEY (tenant, id)",
               "tenant, id"),
    "pages": ("n bigint, body text, u uuid, site varchar(30)", "site, u, n"),
    "codes": ("a char(4), v int, b text", "a, b"),
}


@pytest.fixture(scope="module")
def proxy(cluster):
    with Proxy(cluster, keyspaces=KEYSPACES) as proxy:
        proxy.wait_nodes()
        with closing(proxy.connect()) as connection:
            for name, (columns, _) in TABLES.items():
                connection.cursor().execute(f"CREATE TABLE {name} ({columns})")
        yield proxy
        for node in cluster.primaries:
            node.sql("; ".join(f"DROP TABLE IF EXISTS {name}" for name in TABLES))


@pytest.fixture(scope="module")
def single(cluster):
    """The same tables on one Postgres."""
    with closing(cluster.shards[0].primary.connect("oracle")) as connection:
        connection.autocommit = True
        for name, (columns, _) in TABLES.items():
            connection.cursor().execute(f"CREATE TABLE {name} ({columns})")
        yield connection
        for name in TABLES:
            connection.cursor().execute(f"DROP TABLE {name}")


@pytest.fixture
def app(proxy):
    with closing(proxy.connect()) as connection:
        yield connection
        connection.rollback()
        for name in TABLES:
            connection.cursor().execute(f"DELETE FROM {name}")


def copy_in(connection, sql, data):
    """The row count, or the error's code."""
    cursor = connection.cursor()
    try:
        cursor.copy_expert(sql, io.BytesIO(data if isinstance(data, bytes) else data.encode()))
    except psycopg2.Error as error:
        return error.pgcode
    return cursor.rowcount


def both(app, single, sql, data):
    """Into both, with one result; the rows are alike afterwards, and each is found where its key leads."""
    table = sql.split()[1]
    single.cursor().execute(f"DELETE FROM {table}")
    app.cursor().execute(f"DELETE FROM {table}")
    found, wanted = copy_in(app, sql, data), copy_in(single, sql, data)
    assert found == wanted, (sql, data[:200])
    rows = fetch(single, f"SELECT * FROM {table}")
    assert sorted(map(str, fetch(app, f"SELECT * FROM {table}"))) == sorted(map(str, rows))
    key = TABLES[table][1]
    where = " AND ".join(f"{column} = %s" for column in key.split(", "))
    for row in fetch(single, f"SELECT DISTINCT {key} FROM {table} LIMIT 12"):
        assert fetch(app, f"SELECT count(*) FROM {table} WHERE {where}", row) == \
            fetch(single, f"SELECT count(*) FROM {table} WHERE {where}", row)
    return found


U = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a%02d"
PAGES = f"1\tx\t{U % 1}\tone\n2\t\\N\t{{{U % 2}}}\ttw\\to\n 3\ty\\\\\t{(U % 3).upper()}\t\\142\\x6f\\q\n4\td\\\ne\t{U % 4}\té\n+5\t\t{U % 1}\t\n"
CASES = [
    ("COPY people FROM STDIN", "".join(f"{n}\tp{n}\t{n % 3}\n" for n in range(60))),
    ("COPY people FROM STDIN", "1\ta\t2\r\n+2\tb\t 3\r\n-3\t\\N\t007\r\n"),
    ("COPY people FROM STDIN", "1\ta\t2\n2\tb\\\nc\t3"),
    ("COPY people (tenant, name, id) FROM STDIN", "1\ta\t7\n2\t\\N\t8\n3\tx\\ty\t9\n"),
    ("COPY people (tenant, id) FROM STDIN DELIMITER '|'", "1|2\n3|4\n"),
    ("COPY people FROM STDIN (FORMAT text, HEADER match)", "id\tname\ttenant\n1\ta\t2\n2\tb\t3\n"),
    ("COPY people FROM STDIN (HEADER match)", "id\tname\ttennant\n1\ta\t2\n"),
    ("COPY people FROM STDIN WHERE id > 1", "1\ta\t2\n2\tb\t3\n"),
    ("COPY people FROM STDIN CSV", '1,a,2\n2,"b,""c""",3\n3,"d\ne","4"\n"5",,6\n'),
    ("COPY people FROM STDIN CSV HEADER", 'id,"na\nme",tenant\n1,a,2\n2,b,3\n\\.\n'),
    ("COPY people FROM STDIN (FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER ';', NULL '-')", "1;'a\\'b;c';2\n'2';-;'3'\n"),
    ("COPY people FROM STDIN (FORMAT csv, DELIMITER '7')", "172\n173\n"),
    ("COPY people FROM STDIN (NULL '4')", "1\ta\t2\n2\t4\t3\n"),
    ("COPY pages FROM STDIN", PAGES),
    ("COPY pages FROM STDIN", PAGES.replace("\\\n", "\\n").replace("\n", "\r")),
    ("COPY pages FROM STDIN (FORMAT csv, NULL 'x', FORCE_NOT_NULL (site))", f"1,x,{U % 1},x\n2,a,{U % 2},b\n"),
    ("COPY pages FROM STDIN (FORMAT csv, FORCE_NULL (body))", f'1,"",{U % 1},"q""r,"\n2,b,{U % 2},"two\nlines"\n'),
    ("COPY codes FROM STDIN", "ab\t1\tcd\nab  \t2\tcd\nef\\t\t3\tg\\nh\n\\N\t3\tx\n"),
    ("COPY codes FROM STDIN", "ab\t1\tcd\nab  \t2\tcd\nef\\t\t3\tg\\nh\n"),
    ("COPY codes FROM STDIN CSV", '"a""b",1,"c,d"\n"x,",2,"y""z"\n'),
    # errors
    ("COPY people FROM STDIN", "1\ta\t2\n2\tb\t\\N\n"),
    ("COPY people FROM STDIN", "1\ta\t2\n\\N\tb\t3\n"),
    ("COPY people FROM STDIN CSV", "1,a,2\n2,b,\n"),
    ("COPY people FROM STDIN", "1\ta\t2\n2\tb\n3\tc\t4\n"),
    ("COPY people FROM STDIN", "1\ta\t2\n2\tb\t3\t4\n"),
    ("COPY people FROM STDIN", "1\ta\t2\n2\tb\tthree\n"),
    ("COPY people FROM STDIN", "1\ta\t2\n1\tb\t2\n"),
    ("COPY people FROM STDIN (NULL '4')", "1\ta\t2\n2\tb\t4\n"),
]


@pytest.mark.parametrize("sql, data", CASES)
def test_as_one_postgres(app, single, sql, data):
    if "\\N\t3\tx" in data or "FORCE_NULL (site" in sql:
        assert copy_in(app, sql, data) == "23502"  # NULL is refused in a key, where the table itself would take it
        return
    both(app, single, sql, data)


def tuples(rows):
    out = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
    for row in rows:
        out += struct.pack("!h", len(row))
        for value in row:
            out += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    return out + struct.pack("!h", -1)


def test_binary(app, single):
    people = [(struct.pack("!q", n * 12345678901), f"p{n}".encode(), struct.pack("!i", n % 5 - 2)) for n in range(200)]
    assert both(app, single, "COPY people FROM STDIN BINARY", tuples(people)) == 200
    pages = [(struct.pack("!q", n), None, uuid.UUID(U % (n % 50)).bytes, ("é" * (n % 4)).encode()) for n in range(100)]
    assert both(app, single, "COPY pages FROM STDIN (FORMAT binary)", tuples(pages)) == 100
    assert both(app, single, "COPY pages (site, n, u) FROM STDIN (FORMAT binary)", tuples([(p[3], p[0], p[2]) for p in pages])) == 100
    for row, state in (((people[0][0], b"x", None), "23502"), ((people[0][0] + b"more", b"x", people[0][2]), "22P03"),
                       ((people[0][0], b"x"), "22P04")):
        assert both(app, single, "COPY people FROM STDIN BINARY", tuples(people[1:3] + [row])) == state


def test_pieces_of_any_size(app, single):
    dice = random.Random(7)

    class Pieces(io.BytesIO):
        def read(self, size=-1):
            return super().read(dice.randrange(1, 40))

    sites = ["si\\\\te", "s\\tx", "é" * 5, "", "plain"]
    rows = [f"{n}\tbo\\tdy{'x' * dice.randrange(60)}\t{U % (n % 90)}\t{sites[n % 5]}\n" for n in range(2000)]
    cursor = app.cursor()
    cursor.copy_expert("COPY pages FROM STDIN", Pieces("".join(rows).encode()))
    assert cursor.rowcount == 2000
    assert fetch(app, "SELECT count(*), sum(n), count(DISTINCT (site, u, n)) FROM pages") == [(2000, sum(range(2000)), 2000)]
    single.cursor().execute("DELETE FROM pages")
    assert copy_in(single, "COPY pages FROM STDIN", "".join(rows)) == 2000
    assert sorted(fetch(app, "SELECT * FROM pages")) == sorted(fetch(single, "SELECT * FROM pages"))


def test_long_rows_leave_before_their_end(app):
    assert copy_in(app, "COPY people (tenant, id, name) FROM STDIN", f"1\t2\t{'y' * 3000000}\n2\t3\tz\n") == 2
    assert fetch(app, "SELECT length(name) FROM people WHERE id = 2 AND tenant = 1") == [(3000000,)]


@pytest.mark.parametrize("sql, data, state, words", [
    ("COPY people (id, name) FROM STDIN", "1\ta\n", "23502", 'COPY gives no value for "tenant", a column of the shard key'),
    ("COPY people (name, tenant) FROM STDIN", "a\t1\n", "23502", 'COPY gives no value for "id", a column of the shard key'),
    ("COPY people FROM STDIN", "1\ta\t\\N\n", "23502", 'null value in "tenant", a column of the shard key of table "people"'),
    ("COPY people FROM '/tmp/rows'", "", "0A000", "a file or program of the server"),
    ("COPY people FROM STDIN", "1\ta\t2\n2\tb\tx\n", "22P02", 'invalid input syntax for type bigint: "x"'),
])
def test_errors_name_the_column(app, sql, data, state, words):
    with refused(state, words):
        app.cursor().copy_expert(sql, io.StringIO(data))


def test_an_error_names_the_line_of_the_stream(app):
    data = "".join(f"{n}\tp\t{n % 7}\n" for n in range(500)) + "500\tp\tx\n"
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation) as error:
        app.cursor().copy_expert("COPY people FROM STDIN", io.StringIO(data))
    assert "COPY people, line 501, column tenant" in error.value.diag.context
    assert fetch(app, "SELECT count(*) FROM people") == [(0,)]


def test_in_a_transaction(proxy, app):
    app.cursor().execute("SET pgshunt.route = 'primary'")  # these are another client's changes: a replica may not have them yet
    with closing(proxy.connect()) as other:
        other.autocommit = False
        assert copy_in(other, "COPY people FROM STDIN", "".join(f"{n}\tp\t{n % 7}\n" for n in range(50))) == 50
        assert fetch(app, "SELECT count(*) FROM people") == [(0,)]
        other.rollback()
        assert copy_in(other, "COPY people FROM STDIN", "".join(f"{n}\tp\t{n % 7}\n" for n in range(50))) == 50
        other.commit()
    assert fetch(app, "SELECT count(*), sum(id) FROM people") == [(50, sum(range(50)))]
