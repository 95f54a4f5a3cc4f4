"""Three shards and one Postgres with the same rows answer alike: statements by hand and from a seeded generator."""
import os
from contextlib import closing

import pytest

import differential_composite
from differential import (KEYSPACES, REFERENCE, ROWS, SCHEMA, Both, difference, ends_ordered, is_on_page,
                          page_messages, shards_and_one)
from differential_generator import Generator
from differential_refusals import (ELSEWHERE, REFUSALS, elsewhere, listed, meets, table, table_of_page, used,
                                   write_table)
from differential_shapes import CHANGES, SELECTS, TABLES, shape_table, shape_table_of_page
from differential_statements import ERRORS, PERHAPS, READS, WRITES
from support import query

pytestmark = [pytest.mark.core, pytest.mark.slow]


@pytest.fixture(scope="module")
def sides():
    with shards_and_one(KEYSPACES, REFERENCE, SCHEMA, ROWS) as sides:
        yield sides


@pytest.fixture
def both(sides):
    with closing(Both(*sides)) as both:
        yield both


def check_all(statements, check):
    """Runs all of them, and tells of all that failed."""
    wrong = []
    for sql in statements:
        try:
            check(sql)
        except AssertionError as error:
            wrong.append(str(error)[:1500])
    assert not wrong, f"{len(wrong)} of {len(statements)}:\n\n" + "\n\n".join(wrong)


def test_reads(both):
    check_all(READS + differential_composite.READS, lambda sql: both.check(sql, ends_ordered(sql)))


def test_reads_in_a_transaction(both):
    both.run("BEGIN")
    both.run("UPDATE users SET num = num + 1 WHERE id % 2 = 0")
    both.run("INSERT INTO orders (id, user_id, qty) VALUES (901, 1, 1), (902, 2, 2), (903, 3, 3)")
    check_all(READS[::3] + differential_composite.READS[::3], lambda sql: in_savepoint(both, lambda: both.check(sql, ends_ordered(sql))))
    both.run("ROLLBACK")


def in_savepoint(both, check):
    both.run("SAVEPOINT a")
    try:
        check()
    finally:
        both.run("ROLLBACK TO a")


def test_errors(both):
    check_all(ERRORS + differential_composite.ERRORS, lambda sql: both.check(sql, True))


LOOKS = ["SELECT * FROM users ORDER BY id", "SELECT * FROM orders ORDER BY user_id, id", "SELECT * FROM items ORDER BY line",
         "SELECT * FROM tenants", "SELECT * FROM devices", "SELECT * FROM events", "SELECT * FROM countries ORDER BY code",
         "SELECT * FROM notes ORDER BY id", "SELECT count(*) FROM empties", "SELECT * FROM staff ORDER BY firm, nr",
         "SELECT * FROM shifts ORDER BY firm, who, day"]


def change(both, sql, refusals=None):
    both.run("BEGIN")
    done = False
    try:
        for ask in (both.simple, both.extended):
            both.run("SAVEPOINT a")
            found, wanted = ask(sql)
            if refusals is not None and found.error and "H" in found.error and found.error["C"] in ("0A000", "23502"):
                refusals.setdefault(found.error["M"], []).append(sql)
                return
            wrong = difference(found, wanted, None)
            assert not wrong, f"{ask.__name__}: {sql}\n{wrong}"
            if not wanted.error:
                for look in LOOKS:
                    both.check(look, ends_ordered(look))
            both.run("ROLLBACK TO a")
        done = True
    finally:
        for side in (both.app, both.one):
            side.ask(*[b"Q\0\0\0\x0dROLLBACK\0"])
    return done


def test_writes(both):
    check_all(WRITES + differential_composite.WRITES, lambda sql: change(both, sql))


def test_right_or_refused(both):
    """No answer is wrong; each refusal has a hint, and its message is on the page about SQL support."""
    refusals = {}
    check_all(PERHAPS + differential_composite.PERHAPS, lambda sql: change(both, sql, refusals))
    patterns = page_messages()
    unknown = {text: found for text, found in refusals.items() if not is_on_page(text, patterns)}
    assert not unknown


# ---- the page ----

@pytest.mark.parametrize("number", sorted(REFUSALS))
def test_what_the_page_lists_is_refused_or_gathered_so(both, number):
    for sql in REFUSALS[number]:
        both.app.ask(query("BEGIN"))
        wrong = meets(both.app, number, sql)
        both.app.ask(query("ROLLBACK"))
        assert not wrong, f"{number}. {sql[:300]}\n{wrong}"


def test_the_page_is_complete():
    """Each number has a case, each case a number, and the tables lead to no other."""
    assert set(listed()) == set(REFUSALS) | set(ELSEWHERE)
    assert used() <= set(listed())
    assert not [number for number in ELSEWHERE if not elsewhere(number)]


def test_shapes(both):
    """What the page's tables of shapes go by is answered rightly, or refused."""
    def read(sql):
        both.run("BEGIN")
        both.check(sql, ends_ordered(sql), {})
        for side in (both.app, both.one):
            side.ask(query("ROLLBACK"))

    check_all([sql for _, _, statements in SELECTS for sql in statements], read)
    check_all([sql for _, _, statements in CHANGES for sql in statements], lambda sql: change(both, sql, {}))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_table_of_the_page_is_current_of_shapes(both, name):
    """`make sql-support` writes it."""
    made = shape_table(both.app, name)
    if os.environ.get("PGSHUNT_WRITE_PAGE"):
        write_table(made, shape_table_of_page(name))
    assert shape_table_of_page(name) == made


def test_the_table_of_the_page_is_current(both):
    """`make sql-support` writes it."""
    made = table(both.app)
    if os.environ.get("PGSHUNT_WRITE_PAGE"):
        write_table(made, table_of_page())
    assert table_of_page() == made


# ---- generated ----

COUNT = int(os.environ.get("PGSHUNT_DIFFERENTIAL", "300"))
SEED = int(os.environ.get("PGSHUNT_DIFFERENTIAL_SEED", "1"))


def test_generated_reads(both):
    """What one Postgres answers is answered; a refusal is on the page, and rare."""
    refusals, generator, wrong = {}, Generator(SEED), []
    for _ in range(COUNT):
        sql, ordered = generator.select()
        try:
            both.check(sql, ordered, refusals)
        except AssertionError as error:
            wrong.append(str(error)[:1500])
    assert not wrong, f"{len(wrong)} of {COUNT}:\n\n" + "\n\n".join(wrong[:30])
    patterns = page_messages()
    assert not {text: found for text, found in refusals.items() if not is_on_page(text, patterns)}
    assert sum(map(len, refusals.values())) <= COUNT / 50, refusals


def test_generated_transactions(both):
    """Random changes and looks in transactions, a few changes each, rolled back or not."""
    refusals, generator = {}, Generator(SEED + 1)
    for _ in range(COUNT // 15):
        both.run("BEGIN")
        for _ in range(generator.random.randrange(1, 4)):
            sql = generator.change()
            both.run("SAVEPOINT a")
            found, wanted = generator.pick(both.simple, both.extended)(sql)
            wrong = difference(found, wanted, None)
            assert not wrong, f"{sql}\n{wrong}"
            if wanted.error:
                both.run("ROLLBACK TO a")
        look, ordered = generator.select()
        both.check(look, ordered, refusals)
        both.check(generator.pick(*LOOKS), None)
        both.run("ROLLBACK")
    assert sum(map(len, refusals.values())) <= 2, refusals
