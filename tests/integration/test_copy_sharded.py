"""COPY of sharded and reference tables: rows are split by key, streams are put together, as one Postgres would."""
import io
import itertools
import os
import random
import struct
import subprocess
import threading
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, pg_binary
from harness.process import wait_until
from harness.sample import drop_tables
from support import SYNC, Raw, bind, describe, error_of, execute, fetch, kinds, message, parse, query

pytestmark = pytest.mark.core

DONE = message(b"c")
TABLES = ["CREATE TABLE things (n int, slug text PRIMARY KEY, twice int GENERATED ALWAYS AS (n * 2) STORED, note text)",
          "CREATE TABLE numbers (id bigint PRIMARY KEY, body text)",
          "CREATE TABLE docs (body text, id uuid PRIMARY KEY)",
          "CREATE TABLE words (code text PRIMARY KEY, word text)",
          "CREATE TABLE plain (id int PRIMARY KEY, body text)"]
NAMES = ["things", "numbers", "docs", "words", "plain"]


@pytest.fixture(scope="module")
def shop(cluster):
    drop_tables(cluster)
    keyspaces = [{"name": "texts", "type": "text", "tables": [{"name": "things", "key": "slug"}]},
                 {"name": "ids", "type": "bigint", "tables": [{"name": "numbers", "key": "id"}]},
                 {"name": "uuids", "type": "uuid", "tables": [{"name": "docs", "key": "id"}]}]
    with Proxy(cluster, keyspaces=keyspaces, reference=["words"]) as proxy:
        proxy.wait_nodes()
        for sql in TABLES:
            proxy.sql(sql)
        with closing(proxy.connect()) as connection:
            for name in NAMES:
                wait_until(lambda name=name: copy_in(connection, f"COPY {name} FROM STDIN", "") == 0, 60.0,
                           f"the columns of {name} to be known")
        yield proxy
    drop_tables(cluster)


@pytest.fixture(scope="module")
def single(cluster):
    """The same tables on one Postgres."""
    with closing(cluster.shards[0].primary.connect("oracle")) as connection:
        connection.autocommit = True
        for sql in TABLES:
            connection.cursor().execute(sql)
        yield connection
        for name in NAMES:
            connection.cursor().execute(f"DROP TABLE {name}")


@pytest.fixture
def app(shop):
    with closing(shop.connect()) as connection:
        yield connection
        connection.rollback()
        for name in NAMES:
            connection.cursor().execute(f"DELETE FROM {name}")


def copy_in(connection, sql, data):
    """The row count, or the error's code."""
    cursor = connection.cursor()
    try:
        cursor.copy_expert(sql, io.BytesIO(data if isinstance(data, bytes) else data.encode()))
    except psycopg2.Error as error:
        return error.pgcode
    return cursor.rowcount


def copy_out(connection, sql):
    out = io.BytesIO()
    connection.cursor().copy_expert(sql, out)
    return out.getvalue()


def both(app, single, table, sql, data):
    """Into both, with one result; the rows of both are alike afterwards, and each is where its key says."""
    single.cursor().execute(f"DELETE FROM {table}")
    app.cursor().execute(f"DELETE FROM {table}")
    found, wanted = copy_in(app, sql, data), copy_in(single, sql, data)
    assert found == wanted, (sql, data[:200])
    order = "n, slug" if table == "things" else "id"
    rows = fetch(single, f"SELECT * FROM {table} ORDER BY {order}")
    assert sorted(map(str, fetch(app, f"SELECT * FROM {table}"))) == sorted(map(str, rows))
    key = "slug" if table == "things" else "id"
    for row in fetch(single, f"SELECT {key} FROM {table} LIMIT 20"):
        assert fetch(app, f"SELECT count(*) FROM {table} WHERE {key} = %s", row) == [(1,)]
    return found


# ---- every option ----

TEXT = "1\ta\tx\n2\tb\\tc\t\\N\n3\t\\142\\x6f\\q\ty\\\\\n\\N\td\\\ne\t\n5\té\tü\n"
IN_CASES = [
    ("things", "COPY things FROM STDIN", TEXT),
    ("things", "COPY things FROM STDIN", TEXT.replace("\\\n", "\\n").replace("\n", "\r\n")),
    ("things", "COPY things FROM STDIN", TEXT.replace("\\\n", "\\n").replace("\n", "\r")),
    ("things", "COPY things FROM STDIN", TEXT[:-1]),
    ("things", "COPY things FROM STDIN", TEXT + "\\.\nrubbish\n"),
    ("things", "COPY things FROM STDIN", ""),
    ("things", "COPY things (slug, n) FROM STDIN", "a\t1\nb\t\\N\nc d\t3\n"),
    ("things", "COPY things (note, slug) FROM STDIN DELIMITER '|' NULL 'nil'", "nil|x\na\\|b|c\\|d\n|\n"),
    ("things", "COPY things FROM STDIN (FORMAT text, HEADER)", "n\tslug\tnote\n1\ta\tb\n2\tc\td\n"),
    ("things", "COPY things FROM STDIN (HEADER match)", "n\tslug\tnote\n1\ta\tb\n2\tc\td\n"),
    ("things", "COPY things FROM STDIN (HEADER match)", "n\tsluggish\tnote\n1\ta\tb\n"),
    ("things", "COPY things FROM STDIN (HEADER)", "n\tslug\tnote\n"),
    ("things", "COPY things FROM STDIN WHERE n > 1", "1\ta\tb\n2\tc\td\n3\te\tf\n"),
    ("things", "COPY things FROM STDIN CSV", '1,a,x\n2,"b,""c""",\n3,"d\ne",""\n,"f\r\ng",h\n5,x"y,z"w,v\n'),
    ("things", "COPY things FROM STDIN CSV", '1,a,x\r\n2,"b\n",y\r\n3,c,\r\n'),
    ("things", "COPY things FROM STDIN CSV HEADER", 'n,"sl\nug",note\n1,a,x\n2,b,y\n'),
    ("things", "COPY things FROM STDIN CSV", '1,a,x\n2,b,y\n\\.\nrubbish\n'),
    ("things", "COPY things FROM STDIN CSV", '1,\\.,x\n2,a\\.b,\\.\n3,\\\\,z\n'),
    ("things", "COPY things FROM STDIN (FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER ';', NULL '-')",
     "1;'a\\'b;c';x\n2;'d\\\\';-\n3;'\\x';'-'\n4;e\\f;'g'\n"),
    ("things", "COPY things FROM STDIN (FORMAT csv, NULL 'x', FORCE_NOT_NULL (slug))", "1,x,x\n2,a,b\n"),
    ("things", "COPY things FROM STDIN (FORMAT csv, NULL 'x', FORCE_NULL (note))", '1,a,"x"\n2,b,x\n3,"x",y\n'),
    ("things", "COPY things FROM STDIN (FORMAT csv, FORCE_NULL (slug))", '1,a,"x"\n2,"",x\n'),
    ("things", "COPY things FROM STDIN (ENCODING 'LATIN1')", "1\ta\tx\n2\tb\ty\n"),
    ("things", "COPY things FROM STDIN CSV FREEZE", "1,a,b\n"),
    ("numbers", "COPY numbers FROM STDIN", " 1 \ta\n+2\tb\n-3\tc\n007\td\n9223372036854775807\te\n"),
    ("numbers", "COPY numbers FROM STDIN CSV", '1,a\n"2",b\n"3 ","c"\n'),
    ("docs", "COPY docs FROM STDIN", "a\t{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}\nb\ta0eebc999c0b4ef8bb6d6bb9bd380a12\n"),
    # errors
    ("things", "COPY things FROM STDIN", "1\ta\tx\n2\t\\N\ty\n"),
    ("things", "COPY things FROM STDIN CSV", "1,a,x\n2,,y\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\n2\n3\tc\tz\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\n2\tb\ty\tz\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\none\tb\ty\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\n2\ta\ty\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\r\n2\tb\ty\n3\tc\tz\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\n2\tb\ty\r3\n"),
    ("things", "COPY things FROM STDIN", "1\ta\tx\n2\tb\t\\.y\n"),
    ("things", "COPY things FROM STDIN CSV", '1,a,x\n2,"b,y\n'),
    ("things", "COPY things FROM STDIN (DELIMITER 'ab')", "1\ta\tx\n"),
    ("things", "COPY things (slug, missing) FROM STDIN", "1\ta\n"),
    ("things", "COPY things FROM STDIN (FORMAT csv, bogus)", "1,a,x\n"),
    ("numbers", "COPY numbers FROM STDIN", "1\ta\nx\tb\n"),
    ("numbers", "COPY numbers FROM STDIN", "1\ta\n9223372036854775808\tb\n"),
    ("numbers", "COPY numbers FROM STDIN", "1\ta\n\nb\n"),
    ("docs", "COPY docs FROM STDIN", "b\tnone\n"),
    ("numbers", "COPY numbers FROM STDIN BINARY", "1\ta\n"),
]
# The codes of what is refused ahead of Postgres' own judgement.
OTHER_CODES = {"22003": "22P02", "42601": "0A000"}


@pytest.mark.parametrize("number", range(len(IN_CASES)))
def test_copy_from(app, single, number):
    table, sql, data = IN_CASES[number]
    single.cursor().execute(f"DELETE FROM {table}")
    wanted = copy_in(single, sql, data)
    if wanted in OTHER_CODES:
        assert copy_in(app, sql, data) in (wanted, OTHER_CODES[wanted])
        assert fetch(app, f"SELECT count(*) FROM {table}") == [(0,)]
        return
    both(app, single, table, sql, data)


OUT_CASES = ["COPY {t} TO STDOUT", "COPY {t} TO STDOUT CSV", "COPY {t} TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
             "COPY {t} TO STDOUT (FORMAT text, HEADER, NULL 'nil', DELIMITER ';')",
             "COPY {t} TO STDOUT (FORMAT binary)",
             "COPY (SELECT * FROM {t}) TO STDOUT", "COPY (SELECT * FROM {t}) TO STDOUT (FORMAT binary)",
             "COPY (SELECT * FROM {t} ORDER BY 1, 2) TO STDOUT CSV HEADER",
             "COPY (SELECT count(*), max(slug) FROM {t}) TO STDOUT",
             "COPY (SELECT slug FROM {t} WHERE n > 10 ORDER BY n DESC LIMIT 7) TO STDOUT (FORMAT binary)",
             "COPY {t} (slug, n) TO STDOUT CSV",
             # merged, or gathered where only a server knows what is wrong with them
             "COPY (SELECT n % 7, count(*), avg(n) FROM {t} GROUP BY 1 ORDER BY 1) TO STDOUT (FORMAT csv, HEADER)",
             "COPY (SELECT DISTINCT n / 9 AS d FROM {t} ORDER BY d DESC) TO STDOUT (FORMAT binary)",
             "COPY (SELECT nullif(n, 3), note FROM {t} ORDER BY n) TO STDOUT (FORMAT csv, FORCE_QUOTE *, NULL 'nil')",
             "COPY (SELECT slug, n FROM {t} ORDER BY note DESC OFFSET 3) TO STDOUT (HEADER, DELIMITER '|')",
             "COPY (SELECT slug, n FROM {t} ORDER BY n) TO STDOUT (FORMAT csv, FORCE_QUOTE (n))",
             "COPY (SELECT slug, n FROM {t} ORDER BY n) TO STDOUT (ENCODING 'LATIN1')"]


def binary_rows(data):
    """The tuples of a binary COPY: header and trailer are there, once."""
    assert data[:19] == b"PGCOPY\n\xff\r\n\0" + bytes(8)
    at, found = 19, []
    while True:
        count, = struct.unpack_from("!h", data, at)
        start, at = at, at + 2
        if count == -1:
            assert at == len(data)
            return found
        for _ in range(count):
            length, = struct.unpack_from("!i", data, at)
            at += 4 + max(length, 0)
        found.append(data[start:at])


@pytest.mark.parametrize("rows", [0, 60])
@pytest.mark.parametrize("sql", OUT_CASES)
def test_copy_to(app, single, sql, rows):
    data = "".join(f"{n}\tslug {n}\tnote\\t{n}\\n\n" for n in range(rows))
    both(app, single, "things", "COPY things FROM STDIN", data)
    sql = sql.format(t="things")
    found, wanted = copy_out(app, sql), copy_out(single, sql)
    if "ORDER BY" in sql:
        assert found == wanted
    elif "binary" in sql:
        assert sorted(binary_rows(found)) == sorted(binary_rows(wanted))
    else:
        head = 1 if "HEADER" in sql else 0
        found, wanted = found.split(b"\n"), wanted.split(b"\n")
        assert found[:head] == wanted[:head] and sorted(found[head:]) == sorted(wanted[head:])


# ---- at random ----

ALPHABET = ["a", "b", ",", "\t", "\\", '"', "\n", "\r", "'", "\\.", "N", "é", " ", "\\N", "", "xyz"]


def random_text(rng):
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(6)))


@pytest.mark.parametrize("seed", range(12))
def test_round_trip_of_random_rows(app, single, seed):
    """What Postgres writes for wild values, in every format, is taken by the shards as by itself; and back."""
    rng = random.Random(seed)
    rows = list({random_text(rng): (rng.randrange(1000), random_text(rng)) for _ in range(60)}.items())
    single.cursor().execute("DELETE FROM things")
    single.cursor().execute("INSERT INTO things (slug, n, note) VALUES " + ", ".join(["(%s, %s, %s)"] * len(rows)),
                            [value for slug, (n, note) in rows for value in (slug, n, note)])
    options = rng.choice(["(FORMAT text)", "(FORMAT csv)", "(FORMAT binary)", "(FORMAT csv, HEADER, FORCE_QUOTE *)",
                          "(FORMAT csv, QUOTE '''', ESCAPE '\\', DELIMITER 'b')", "(FORMAT text, DELIMITER ',', HEADER)"])
    columns = rng.choice(["n, slug, note", "slug, note, n", "note, n, slug"])
    data = copy_out(single, f"COPY things ({columns}) TO STDOUT {options}")
    cursor = app.cursor()
    cursor.execute("DELETE FROM things")
    taken = options.replace(", FORCE_QUOTE *", "")
    cursor.copy_expert(f"COPY things ({columns}) FROM STDIN {taken}", io.BytesIO(data), size=rng.choice([1, 7, 8192]))
    assert cursor.rowcount == len(rows)
    stored = fetch(single, "SELECT slug, n, note FROM things")
    assert sorted(fetch(app, "SELECT slug, n, note FROM things")) == sorted(stored)
    for slug, n, _ in stored[:15]:
        assert fetch(app, "SELECT n FROM things WHERE slug = %s", (slug,)) == [(n,)]
    back = copy_out(app, f"COPY things ({columns}) TO STDOUT {options}")
    assert len(back) == len(data)
    for query in (f'SELECT {columns} FROM things ORDER BY slug COLLATE "C"', 'SELECT slug FROM things ORDER BY slug COLLATE "C"',
                  'SELECT n AS "a ""b, c\td" FROM things ORDER BY n'):
        sql = f"COPY ({query}) TO STDOUT {options}"
        assert copy_out(app, sql) == copy_out(single, sql)


@pytest.mark.parametrize("options", [
    "DELIMITER 'ab'", "DELIMITER 'a'", "FORMAT csv, DELIMITER '\"'", "QUOTE '!'", "FORMAT csv, QUOTE 'ab'",
    "FORMAT csv, ESCAPE ''", "FORCE_QUOTE *", "FORMAT csv, NULL 'a,b'", "NULL E'a\\nb'", "HEADER match", "HEADER, HEADER",
    "FORMAT binary, HEADER", "FORMAT binary, NULL 'x'", "FORMAT xml", "FREEZE", "FORCE_NULL (n)", "FORMAT csv, FORCE_NULL (n)",
    "ENCODING 'none'", "DELIMITER E'\\n'", "FORMAT csv, QUOTE E'\\n'", "FORMAT csv, QUOTE ','", "bogus", "FORMAT csv, NULL '\"'"])
def test_options_of_copy_to_that_are_wrong(app, single, options):
    """As the server says, whether it is asked or not."""
    for what in ("things", "(SELECT slug, n FROM things ORDER BY n)"):
        sql = f"COPY {what} TO STDOUT ({options})"
        found, wanted = [], []
        for connection, codes in ((app, found), (single, wanted)):
            try:
                copy_out(connection, sql)
                codes.append("fine")
            except psycopg2.Error as error:
                codes.append(error.pgcode)
        assert found == wanted or (wanted == ["42601"] and found == ["0A000"]), sql


# ---- transactions and failures ----

def count(shop, table="numbers"):
    return shop.value(f"/* pgshunt: primary */ SELECT count(*) FROM {table}")


def test_nothing_stays_of_a_copy_that_fails_on_one_shard(cluster, shop, app):
    copy_in(app, "COPY numbers FROM STDIN", "500\tthere\n")
    data = "".join(f"{n}\tx\n" for n in range(1000))
    assert copy_in(app, "COPY numbers FROM STDIN", data) == "23505"
    assert count(shop) == 1
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation) as caught:
        app.cursor().copy_expert("COPY numbers FROM STDIN", io.StringIO("1\ta\n2\tb\nthree\tc\n"))
    assert caught.value.diag.context == 'COPY numbers, line 3, column id: "three"'
    assert count(shop) == 1
    assert copy_in(app, "COPY numbers FROM STDIN", data.replace("500\tx\n", "")) == 999
    assert count(shop) == 1000


def diagnosis(connection, sql, data):
    with pytest.raises(psycopg2.Error) as caught:
        connection.cursor().copy_expert(sql, io.StringIO(data))
    found = caught.value.diag
    return found.sqlstate, found.context, found.table_name, found.column_name, found.constraint_name


@pytest.mark.parametrize("sql, data", [
    ("COPY things FROM STDIN", "".join(f"{n}\ts{n}\tx\n" for n in range(300)) + "no\tslug\tx\n"),
    ("COPY things FROM STDIN", "".join(f"{n}\ts{n}\tx\n" for n in range(300)) + "1\tslug\n3\ts\tx\n"),
    ("COPY things FROM STDIN CSV HEADER", "n,slug,note\n" + "".join(f'{n},s{n},"x\ny\nz"\n' for n in range(90))
     + 'no,slug,"x\n"\n1,a,b\n'),
    ("COPY things FROM STDIN (HEADER match)", "n,slug\n" * 5),
    ("COPY things (slug, n) FROM STDIN CSV", "".join(f"s{n},{n}\n" for n in range(50)) + "a,1,2\nb,3\n"),
    ("COPY numbers FROM STDIN", "".join(f"{n}\tx\n" for n in range(9)) + "5\ty\n" + "10\tx\n"),
], ids=map(str, range(6)))
def test_errors_name_the_line_that_the_client_sent(app, single, sql, data):
    """As one Postgres does: not the line within what the shard has got."""
    wanted = diagnosis(single, sql, data)
    assert "line" in wanted[1] and diagnosis(app, sql, data) == wanted


def test_within_a_transaction(shop, app):
    cursor = app.cursor()
    cursor.execute("BEGIN")
    cursor.copy_expert("COPY numbers FROM STDIN", io.StringIO("1\ta\n2\tb\n3\tc\n4\td\n"))
    cursor.execute("SAVEPOINT s")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        cursor.copy_expert("COPY numbers FROM STDIN", io.StringIO("7\ta\n2\tb\n"))
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cursor.execute("SELECT 1")
    cursor.execute("ROLLBACK TO s")
    assert fetch(app, "SELECT count(*) FROM numbers") == [(4,)] and count(shop) == 0
    assert sorted(copy_out(app, "COPY numbers TO STDOUT").split()) == sorted(b"1 a 2 b 3 c 4 d".split())
    cursor.execute("COMMIT")
    assert count(shop) == 4


def test_deferred_constraints_are_checked_before_any_commit(cluster, shop, app):
    shop.sql("ALTER TABLE numbers ADD CONSTRAINT once UNIQUE (id, body) DEFERRABLE INITIALLY DEFERRED")
    shop.sql("ALTER TABLE numbers DROP CONSTRAINT numbers_pkey")
    try:
        assert copy_in(app, "COPY numbers FROM STDIN", "1\ta\n2\tb\n3\tc\n4\td\n1\ta\n") == "23505"
        assert count(shop) == 0
    finally:
        shop.sql("ALTER TABLE numbers DROP CONSTRAINT once")
        shop.sql("ALTER TABLE numbers ADD PRIMARY KEY (id)")


def extended(sql):
    return parse("", sql) + bind("", "") + describe("P", "") + execute() + SYNC


def piece(data):
    return message(b"d", data)


def begun(raw):
    found = ""
    while not found.endswith("G"):
        found += raw.read()[0]
    return found


def test_extended_protocol(shop, app):
    with Raw(shop) as raw:
        raw.send(extended("COPY numbers FROM STDIN"))
        assert begun(raw) == "12nG"
        answers = raw.ask(piece(b"1\to"), piece(b"ne\n2\ttwo\n3\tx"), piece(b"\n"), DONE, SYNC)
        assert kinds(answers) == "CZ" and answers[0][1] == b"COPY 3\0"
        answers = raw.ask(extended("COPY numbers TO STDOUT"))
        assert kinds(answers) == "12nHdddcCZ" and answers[-2][1] == b"COPY 3\0"
        for limit in (0, 2):
            answers = raw.ask(parse("", "COPY (SELECT * FROM numbers ORDER BY id) TO STDOUT CSV HEADER") + bind("", "")
                              + describe("P", "") + execute("", limit) + SYNC)
            assert kinds(answers) == "12nHddddcCZ" and answers[-2][1] == b"COPY 3\0"
            assert [body for kind, body in answers if kind == "d"] == [b"id,body\n", b"1,one\n", b"2,two\n", b"3,x\n"]
        raw.send(extended("COPY numbers FROM STDIN"))
        begun(raw)
        answers = raw.ask(piece(b"x\ty\n"), piece(b"4\tz\n"), DONE, SYNC)
        assert kinds(answers) == "EZ" and b"C22P02\0" in answers[0][1]
        answers = raw.ask(query("SELECT count(*) FROM numbers"))
        assert kinds(answers) == "TDCZ" and answers[1][1].endswith(b"3")


def test_sent_ahead_and_given_up(shop, app):
    with Raw(shop) as raw:
        answers = raw.ask(query("COPY numbers FROM STDIN"), piece(b"1\ta\n2\tb\n3\tc\n"), DONE)
        assert kinds(answers) == "GCZ" and answers[1][1] == b"COPY 3\0"
        answers = raw.ask(query("COPY numbers FROM STDIN"), piece(b"4\ta\n5\t"), message(b"f", b"changed my mind\0"))
        assert kinds(answers) == "GEZ" and b"COPY from stdin failed: changed my mind" in answers[1][1]
        answers = raw.ask(query("COPY missing FROM STDIN"), piece(b"4\ta\n"), DONE)
        assert kinds(answers) == "EZ"
        assert kinds(raw.ask(query("SELECT 1"))) == "TDCZ"
    assert count(shop) == 3


def test_client_that_leaves(cluster, shop, app):
    raw = Raw(shop)
    raw.send(query("COPY numbers FROM STDIN"))
    begun(raw)
    raw.send(piece(b"1\ta\n2\tb\n3\tc\n4\td\n"), message(b"d", b"5")[:5])
    raw.socket.close()
    for node in cluster.primaries:
        wait_until(lambda node=node: node.value(
            "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^COPY numbers' AND state <> 'idle'") == 0,
            15.0, "the COPY to end")
    assert count(shop) == 0


def test_cancelled_while_a_shard_waits_for_a_lock(cluster, shop, app):
    with closing(cluster.shards[1].primary.connect("app")) as holder:
        holder.autocommit = False
        holder.cursor().execute("LOCK TABLE numbers")
        app.cursor().execute("SET statement_timeout = '300ms'")
        assert copy_in(app, "COPY numbers FROM STDIN", "".join(f"{n}\tx\n" for n in range(100))) == "57014"
        holder.rollback()
    app.cursor().execute("RESET statement_timeout")
    assert count(shop) == 0


def test_a_shard_that_is_lost_in_the_middle(cluster, shop, app):
    with Raw(shop) as raw:
        raw.send(query("COPY numbers FROM STDIN"))
        begun(raw)
        raw.send(piece(b"".join(b"%d\tx\n" % n for n in range(20000))))
        victim = cluster.shards[1].primary
        wait_until(lambda: victim.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                                        "WHERE query ~ '^COPY numbers' AND state = 'active'") == 1, 15.0, "the COPY")
        answers = raw.ask(piece(b"20001\tx\n"), DONE)
        assert kinds(answers) == "EZ" and error_of(answers)["C"] in ("57P01", "08006")
        answers = raw.ask(query("COPY numbers FROM STDIN"), piece(b"1\ta\n2\tb\n3\tc\n"), DONE)
        assert kinds(answers) == "GCZ" and answers[1][1] == b"COPY 3\0"
    assert count(shop) == 3


def test_client_that_cancels(cluster, shop, app):
    """Ctrl-C in the middle of the rows. The driver hears of it only when it has sent them all."""
    with closing(shop.connect()) as other:
        started, cancelled = threading.Event(), threading.Event()

        class Rows:
            left = 200  # reads after the cancel

            def read(self, size):
                started.set()
                self.left -= cancelled.is_set()
                return "".join(f"{n}\tx\n" for n in itertools.islice(numbers, size // 8)) if self.left else ""

        numbers = itertools.count(1)
        killer = threading.Thread(target=lambda: (started.wait(), other.cancel(), cancelled.set()))
        killer.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            other.cursor().copy_expert("COPY numbers FROM STDIN", Rows())
        killer.join()
        assert fetch(other, "/* pgshunt: primary */ SELECT count(*) FROM numbers") == [(0,)]


def test_participants_of_a_transaction(cluster, shop, app):
    """What was copied is there with the transaction's other changes, on all shards, or not at all."""
    cursor = app.cursor()
    for end, rows in (("ROLLBACK", 0), ("COMMIT", 101)):
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO numbers VALUES (1000, 'first')")
        cursor.copy_expert("COPY numbers FROM STDIN", io.StringIO("".join(f"{n}\tx\n" for n in range(100))))
        assert fetch(app, "SELECT count(*) FROM numbers") == [(101,)]
        cursor.execute(end)
        assert count(shop) == rows
    assert all(0 < node.value("SELECT count(*) FROM numbers") < 101 for node in cluster.primaries)
    assert all(node.value("SELECT count(*) FROM pg_prepared_xacts") == 0 for node in cluster.primaries)


def test_psql_and_pg_dump(cluster, shop, app, single, tmp_path):
    """What pg_dump wrote of one Postgres is restored through pgshunt, and what \\copy wrote is taken back."""
    app.cursor().execute("SET pgshunt.route = 'primary'")  # psql is another client: a replica may not have its rows yet
    single.cursor().execute("DELETE FROM things")
    single.cursor().execute(r"INSERT INTO things (n, slug, note) SELECT g, 's' || g, E'a\tb\\c' || g FROM generate_series(1, 500) g")
    for how in ([], ["--inserts", "--rows-per-insert=50"]):
        app.cursor().execute("DELETE FROM things")
        dump = subprocess.run([pg_binary("pg_dump"), "--data-only", "--table=things", *how, "-d",
                               cluster.shards[0].primary.dsn("oracle")], check=True, capture_output=True, text=True)
        shop.psql(input=dump.stdout)
        assert sorted(fetch(app, "SELECT * FROM things")) == sorted(fetch(single, "SELECT * FROM things"))
    saved = tmp_path / "things.csv"
    shop.psql("-c", f"\\copy things (n, slug, note) TO '{saved}' CSV HEADER")
    app.cursor().execute("DELETE FROM things")
    told = shop.psql("-c", f"\\copy things (n, slug, note) FROM '{saved}' CSV HEADER")
    assert told.stdout == "COPY 500\n"
    assert sorted(fetch(app, "SELECT * FROM things")) == sorted(fetch(single, "SELECT * FROM things"))


def test_memory_stays_bounded_when_a_shard_is_slow(cluster, shop, app):
    """Backpressure: what a shard does not take is not read from the client."""
    with closing(cluster.shards[1].primary.connect("app")) as holder:
        holder.autocommit = False
        holder.cursor().execute("INSERT INTO numbers SELECT g, 'held' FROM generate_series(1, 100) g")
        with Raw(shop, timeout=3.0) as raw:
            raw.send(query("COPY numbers FROM STDIN"))
            begun(raw)
            sent, rows = 0, iter(range(1, 100_000_000))
            with pytest.raises(TimeoutError):
                while sent < 200_000_000:
                    lines = b"".join(b"%d\t%s\n" % (next(rows), b"x" * 500) for _ in range(100))
                    raw.socket.sendall(piece(lines))
                    sent += len(lines)
            assert sent < 100_000_000
        holder.rollback()
    wait_until(lambda: count(shop) == 0, 15.0, "rolled back")


# ---- reference tables, refusals, clients ----

def test_reference_tables(cluster, shop, app, single):
    assert copy_in(app, "COPY words FROM STDIN CSV HEADER", "code,word\na,1\nb,\n") == 2
    for node in cluster.primaries:
        assert node.sql("SELECT code, word FROM words ORDER BY 1") == [("a", "1"), ("b", None)]
    assert copy_in(app, "COPY words FROM STDIN", "a\tagain\n") == "23505"
    assert copy_out(app, "COPY words TO STDOUT CSV") == b"a,1\nb,\n"
    data = copy_out(app, "COPY words TO STDOUT BINARY")
    app.cursor().execute("DELETE FROM words")
    assert copy_in(app, "COPY words FROM STDIN BINARY", data) == 2
    for node in cluster.primaries:
        assert node.value("SELECT count(*) FROM words") == 2


def test_defaults_that_make_copies_of_reference_tables_differ(cluster, shop, app):
    shop.sql("ALTER TABLE words ADD COLUMN id bigserial, ADD COLUMN note text DEFAULT 'same'")
    try:
        wait_until(lambda: copy_in(app, "COPY words (code, word) FROM STDIN", "") == "0A000", 15.0, "the column to be known")
        assert copy_in(app, "COPY words (code, word) FROM STDIN", "a\tb\n") == "0A000"
        assert copy_in(app, "COPY words (code, word, id) FROM STDIN", "a\tb\t1\n") == 1
        assert copy_in(app, "COPY words FROM STDIN", "b\tc\t2\tnot\n") == 1
        for node in cluster.primaries:
            assert node.sql("SELECT code, id, note FROM words ORDER BY 1") == [("a", 1, "same"), ("b", 2, "not")]
    finally:
        shop.sql("ALTER TABLE words DROP COLUMN id, DROP COLUMN note")


def test_unsharded_tables_stay_on_the_first_shard(cluster, app):
    assert copy_in(app, "COPY plain FROM STDIN", "1\ta\n2\tb\n") == 2
    assert [node.value("SELECT count(*) FROM plain") for node in cluster.primaries] == [2, 0]


@pytest.mark.parametrize("sql, code", [
    ("COPY numbers (body) FROM STDIN", "23502"),
    ("COPY numbers FROM '/tmp/nothing'", "0A000"),
    ("COPY numbers TO PROGRAM 'cat'", "0A000"),
    ("COPY numbers FROM STDIN (ENCODING 'SJIS')", "0A000"),
    ("COPY numbers FROM STDIN (some_option 5)", "0A000"),
])
def test_refused_with_a_hint(app, sql, code):
    with pytest.raises(psycopg2.Error) as caught:
        app.cursor().copy_expert(sql, io.StringIO("1\ta\n"))
    assert caught.value.pgcode == code and caught.value.diag.message_hint


def test_text_keys_in_another_encoding(shop, app):
    with closing(shop.connect()) as other:
        other.set_client_encoding("LATIN1")
        assert copy_in(other, "COPY things (slug) FROM STDIN", b"plain\n") == 1
        assert copy_in(other, "COPY things (slug) FROM STDIN", b"\xe9\n") == "0A000"
        other.cursor().execute("SET client_encoding = 'SJIS'")
        assert copy_in(other, "COPY things (slug) FROM STDIN", b"a\n") == "0A000"


def test_psycopg3(shop, app):
    with shop.connect3() as connection:
        with connection.cursor().copy("COPY numbers (id, body) FROM STDIN") as copy:
            for n in range(500):
                copy.write_row((n, f"row {n}"))
        with connection.cursor().copy("COPY numbers (id, body) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int8", "text"])
            for n in range(500, 1000):
                copy.write_row((n, f"row {n}"))
        with connection.cursor().copy("COPY numbers TO STDOUT") as copy:
            assert sorted(int(row[0]) for row in copy.rows()) == list(range(1000))
    assert count(shop) == 1000


def test_large_rows_and_large_amounts(shop, app, single):
    big = "y" * 3_000_000
    data = f"1\t{big}\n2\tsmall\n3\t{big}\\n{big}\n"
    assert both(app, single, "numbers", "COPY numbers FROM STDIN", data) == 3
    quoted = f'1,"{big}\n{big}"\n2,small\n3,"{big}"\n'
    assert both(app, single, "numbers", "COPY numbers FROM STDIN CSV", quoted) == 3
    many = "".join(f"{n}\trow number {n}\n" for n in range(100_000))
    app.cursor().execute("DELETE FROM numbers")
    assert copy_in(app, "COPY numbers FROM STDIN", many) == 100_000
    assert sorted(copy_out(app, "COPY numbers TO STDOUT").decode().split("\n")) == sorted(many.split("\n"))
