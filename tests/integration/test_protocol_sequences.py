"""Byte sequences that no driver sends: answered as one Postgres answers them, message by message."""
import os
import random
import struct

import pytest
from support import (FLUSH, SYNC, TERMINATE, Raw, bind, close, describe, execute, message, parse, query)
from test_same_as_postgres import (COPY_DONE, COPY_FAIL, Direct, copy_data, database, fill, play,  # noqa: F401
                                   quiet, rounds, run, step)

pytestmark = pytest.mark.core

LONG = "n" * 2000
SERIES = "SELECT generate_series(1, 10)"

SEQUENCES = {
    # ---- max_rows ----
    "two portals in turns": [
        step(query("BEGIN")),
        step(parse("a", SERIES), parse("b", "SELECT 100 + generate_series(1, 10)"), bind("pa", "a"), bind("pb", "b"),
             execute("pa", 2), execute("pb", 3), execute("pa", 1), execute("pb", 1), SYNC),
        step(execute("pb", 2), execute("pa", 2), SYNC, execute("pa", 100), execute("pb", 100), execute("pa", 1), SYNC),
        step(query("COMMIT"))],
    "many rounds of one row": [
        step(query("BEGIN")), step(parse("", SERIES), bind("p", ""), describe("P", "p"), SYNC),
        *[step(execute("p", 1), SYNC) for _ in range(12)], step(query("ROLLBACK"))],
    "many rounds in one batch": [step(parse("", SERIES), bind("", ""), *[execute("", 1)] * 13, SYNC)],
    "a portal closed in the middle": [
        step(query("BEGIN")), step(parse("", SERIES), bind("p", ""), execute("p", 2), close("P", "p"), SYNC),
        step(execute("p", 2), SYNC), step(query("ROLLBACK"))],
    "a portal of a change, in parts": [
        step(parse("", "INSERT INTO t SELECT g FROM generate_series(200, 205) g RETURNING id"), bind("", ""),
             execute("", 2), execute("", 2), execute("", 9), SYNC)],
    "the unnamed portal replaced in the middle": [
        step(parse("", SERIES), bind("", ""), execute("", 2), bind("", ""), execute("", 2), SYNC)],
    "a negative row limit": [step(parse("", SERIES), bind("", ""), message(b"E", b"\0" + struct.pack("!i", -5)), SYNC)],
    # ---- Describe ----
    "Describe in a round of its own": [step(parse("s", "SELECT $1::int, $2"), SYNC), step(describe("S", "s"), SYNC),
                                       step(describe("S", "s"), describe("S", "s"), SYNC),
                                       step(bind("p", "s", [b"1", b"x"]), describe("P", "p"), describe("P", "p"),
                                            execute("p"), SYNC)],
    "Describe of the unnamed, in a round of its own": [
        step(parse("", "SELECT $1::int AS n, 'x'"), SYNC), step(describe("S", ""), SYNC),
        step(bind("", "", [b"4"]), describe("P", ""), SYNC), step(describe("P", ""), SYNC)],
    "Describe with Flush": [quiet(parse("", "SELECT $1::date"), describe("S", ""), FLUSH), quiet(FLUSH),
                            step(SYNC), step(bind("", "", [b"2026-01-31"]), execute(), SYNC)],
    "Describe of what has no rows": [step(parse("", "SET work_mem = '3MB'"), describe("S", ""), bind("", ""),
                                          describe("P", ""), execute(), SYNC),
                                     step(parse("", ""), describe("S", ""), bind("", ""), describe("P", ""),
                                          execute(), SYNC)],
    "Describe of a wrong kind": [quiet(message(b"D", b"X\0"))],
    "Close of a wrong kind": [quiet(message(b"C", b"X\0"))],
    # ---- Syncs ----
    "a hundred Syncs": [step(SYNC * 100)],
    "Syncs between everything": [
        step(parse("s", "SELECT $1::int"), SYNC, describe("S", "s"), SYNC, bind("", "s", [b"3"]), SYNC, execute(), SYNC,
             close("S", "s"), SYNC)],
    "Syncs between everything in a transaction": [
        step(query("BEGIN")),
        step(parse("s", "SELECT $1::int"), SYNC, bind("p", "s", [b"3"]), SYNC, execute("p"), SYNC, execute("p"), SYNC,
             close("P", "p"), SYNC, execute("p"), SYNC), step(query("ROLLBACK"))],
    "Flushes everywhere": [quiet(FLUSH, parse("", "SELECT 1"), FLUSH, FLUSH, bind("", ""), FLUSH, execute(), FLUSH),
                           step(FLUSH, SYNC, FLUSH)],
    "errors in each of many rounds": [step(*[run("SELECT 1/0") + SYNC, run("SELECT 1") + SYNC] * 20)],
    "skipped until Sync, whatever it is": [
        rounds(1, run("SELECT 1/0"), parse("x", "SELEKT"), bind("a", "none"), describe("S", "none"), execute("none", 5),
               close("S", "x"), FLUSH, query("SELECT 1"), copy_data(b"x"), COPY_DONE, COPY_FAIL, SYNC),
        step(run("SELECT 1"), SYNC)],
    "an error behind a change": [
        step(run("INSERT INTO t VALUES (210)"), run("SELECT 1/0"), run("INSERT INTO t VALUES (211)"), SYNC,
             run("SELECT count(*) FROM t WHERE id IN (210, 211)"), SYNC)],
    # ---- several statements, empty ones ----
    "empty among others": [step(query("; SELECT 1; ; SELECT 2;;")), step(query("/* one */ -- two\n")),
                           step(query(";;;"))],
    "an error at each place": [step(query("SELECT 1/0; SELECT 2; SELECT 3")), step(query("SELECT 1; SELECT 2/0; SELECT 3")),
                               step(query("SELECT 1; SELECT 2; SELECT 3/0"))],
    "a change rolled back by what follows": [
        step(query("INSERT INTO t VALUES (220); INSERT INTO t VALUES (221); SELECT 1/0")),
        step(query("SELECT count(*) FROM t WHERE id IN (220, 221)"))],
    "an empty query between": [step(run("SELECT 1"), run(""), run("SELECT 2"), SYNC)],
    # ---- names and bytes ----
    "long names": [step(parse(LONG, "SELECT 7"), bind(LONG, LONG), describe("P", LONG), execute(LONG), SYNC),
                   step(close("S", LONG), close("P", LONG), SYNC), step(bind("", LONG), SYNC)],
    "names that look like ours": [step(parse("pgshunt_abort", "SELECT 8"), bind("pgshunt_x", "pgshunt_abort"),
                                       execute("pgshunt_x"), SYNC), step(execute("pgshunt_abort"), SYNC)],
    "odd names": [step(parse(' "; DROP', "SELECT 9"), bind("'", ' "; DROP'), execute("'"), SYNC),
                  step(close("S", ' "; DROP'), SYNC)],
    "invalid UTF-8 in a query": [step(message(b"Q", b"SELECT '\xff\xfe'\0")), step(query("SELECT 1"))],
    "invalid UTF-8 in a value": [step(parse("", "SELECT $1::text"), bind("", "", [b"\xc3("]), execute(), SYNC)],
    "a NUL in a value": [step(parse("", "SELECT $1::text"), bind("", "", [b"a\0b"]), execute(), SYNC),
                         step(parse("", "SELECT $1::bytea"), bind("", "", [b"a\0b"], [1], [1]), execute(), SYNC)],
    "bytes behind the end of a query": [quiet(message(b"Q", b"SELECT 1\0SELECT 2\0"))],
    "a query without its end": [quiet(message(b"Q", b"SELECT 1"))],
    "strange formats": [step(parse("", "SELECT $1::int"), bind("", "", [b"1"], [2]), execute(), SYNC),
                        step(parse("", "SELECT $1::int"), bind("", "", [b"1"], [0, 0]), execute(), SYNC),
                        step(parse("", "SELECT $1::int"), bind("", "", [b"1"], [], [0, 1]), execute(), SYNC),
                        step(parse("", "SELECT $1::int"), bind("", "", [b"123"], [1]), execute(), SYNC)],
    "too many and too few values": [step(parse("s", "SELECT $1::int + $2::int"), bind("", "s", [b"1"]), SYNC),
                                    step(bind("", "s", [b"1", b"2", b"3"]), SYNC),
                                    step(bind("", "s", [b"1", None]), execute(), SYNC)],
    # ---- what is no message ----
    "unknown messages": [quiet(message(b"\x80", b""))],
    "an unknown message behind others": [quiet(parse("s", "SELECT 1"), message(b"\x80", b""))],
    "an unknown message behind an error": [quiet(parse("", "SELEKT"), parse("s", "SELECT 1"), message(b"\x81", b""))],
    "an unknown message behind rows": [quiet(run("SELECT 1"), message(b"\x82", b""))],
    "a syntax error, and what else is wrong": [step(parse("s", "SELEKT"), bind("", "none"), SYNC),
                                               step(parse("", "SELEKT"), execute("none"), SYNC),
                                               step(parse("s", "SELECT * FROM nothing_there"), describe("S", "none"), SYNC),
                                               step(bind("", "s"), SYNC)],
    "one text under two names in a batch": [step(parse("one", "SELECT 77"), parse("two", "SELECT 77"), bind("", "one"),
                                                 bind("p", "two"), execute("p"), SYNC)],
    "the unnamed, skipped and failed": [
        step(parse("", "SELECT 5"), SYNC), step(run("SELECT 1/0", name="x"), parse("", "SELECT 6"), SYNC),
        step(parse("", "SELECT 7"), SYNC), step(execute("none"), parse("", "SELECT 8"), SYNC),
        step(bind("", ""), execute(), SYNC), step(parse("", "SELEKT"), SYNC), step(bind("", ""), SYNC)],
    "the unnamed in a failed transaction": [
        step(query("BEGIN")), step(parse("", "SELECT 5"), SYNC), step(execute("none"), SYNC),
        step(parse("", "SELECT 6"), SYNC), step(describe("S", ""), SYNC), step(query("ROLLBACK"))],
    "nothing in a failed transaction": [
        step(parse("e", ""), SYNC), step(query("BEGIN")), step(bind("", "none"), SYNC), step(parse("", ""), SYNC),
        step(describe("S", "e"), SYNC), step(bind("", "e"), SYNC), step(query("COMMIT"))],
    "a portal in a transaction that failed without its server": [
        step(query("BEGIN")), step(parse("s", "SELECT 5"), bind("p", "s"), SYNC), step(bind("", "none"), SYNC),
        step(execute("p"), SYNC), step(query("ROLLBACK"))],
    "a password out of place": [quiet(message(b"p", b"secret\0"))],
    "Terminate in the middle of a batch": [quiet(run("INSERT INTO t VALUES (230)"), TERMINATE, SYNC)],
    "Terminate with a body": [quiet(message(b"X", b"now"))],
    "Terminate in a transaction": [step(query("BEGIN")), step(query("INSERT INTO t VALUES (231)")), quiet(TERMINATE)],
    "Terminate behind a query": [quiet(query("SELECT 1"), TERMINATE)],
    # ---- COPY ----
    "COPY data before the COPY": [rounds(1, copy_data(b"1\tx\n"), COPY_DONE, query("SELECT 1"))],
    "COPY with nothing": [rounds(1, query("COPY t FROM STDIN"), COPY_DONE), step(query("SELECT 1"))],
    "COPY in empty pieces": [rounds(1, query("COPY t FROM STDIN"), copy_data(b""), copy_data(b"30"), copy_data(b""),
                                    copy_data(b"1\ty"), copy_data(b"\n"), COPY_DONE)],
    "COPY given up at once": [rounds(1, query("COPY t FROM STDIN"), COPY_FAIL), step(query("SELECT 1"))],
    "COPY given up, extended": [quiet(parse("", "COPY t FROM STDIN"), bind("", ""), execute(), FLUSH),
                                rounds(1, copy_data(b"302\tx\n"), COPY_FAIL, SYNC), step(query("SELECT 1"))],
    "COPY fails, then the rest of it": [quiet(query("COPY t FROM STDIN")), rounds(1, copy_data(b"x\n"), copy_data(b"303\ty\n")),
                                        rounds(1, copy_data(b"304\ty\n"), COPY_FAIL, query("SELECT 1"))],
    "COPY fails, extended, then the rest of it": [
        quiet(parse("", "COPY t FROM STDIN"), bind("", ""), execute(), FLUSH), quiet(copy_data(b"x\n"), FLUSH),
        rounds(1, copy_data(b"305\ty\n"), COPY_DONE, run("SELECT 1"), SYNC), step(run("SELECT 2"), SYNC)],
    "COPY in a failed transaction": [step(query("BEGIN")), step(query("SELECT 1/0")),
                                     rounds(2, query("COPY t FROM STDIN"), copy_data(b"306\tx\n"), COPY_DONE,
                                            query("ROLLBACK"))],
    "COPY and text behind its end": [rounds(1, query("COPY t FROM STDIN"), copy_data(b"307\tx\n\\.\n308\ty\n"), COPY_DONE),
                                     step(query("SELECT count(*) FROM t WHERE id IN (307, 308)"))],
}


@pytest.mark.parametrize("more", [b"", parse("", "SELEKT")])
def test_what_was_not_synced_is_no_one_elses(cluster, database, proxy, more):  # noqa: F811
    """A client leaves with all answers read and no Sync sent: its change is undone, and nobody gets its server so."""
    fill(cluster, database)
    with Raw(proxy, database=database) as raw:
        play(raw, [quiet(run("INSERT INTO t VALUES (500)"), FLUSH), quiet(more, FLUSH)])
    with Raw(proxy, database=database) as raw:
        for _ in range(3):
            found = play(raw, [step(query("SELECT count(*) FROM t WHERE id = 500")), step(run("SELECT 1"), SYNC)])
            assert ("D", b"\0\1\0\0\0\x010") in found[0]
            assert [item[0] for item in found[1]] == ["1", "2", "T", "D", "C", "Z"]


@pytest.mark.parametrize("name", SEQUENCES)
def test_same_answers(cluster, database, proxy, name):  # noqa: F811 (the fixture)
    fill(cluster, database)
    with Raw(Direct(cluster.shards[0].primary), database=database) as direct:
        expected = play(direct, SEQUENCES[name])
    assert not any(("silence",) in part for part in expected), f"the sequence itself hangs: {expected}"
    fill(cluster, database)
    with Raw(proxy, database=database) as raw:
        assert play(raw, SEQUENCES[name], expected) == expected


def random_round(dice):
    """Messages of the extended protocol in any order, with names that may or may not exist."""
    names = ["", "a", "b"]
    texts = ["SELECT 1", SERIES, "SELECT $1::int", "SELECT 1/0", "INSERT INTO t VALUES (400) ON CONFLICT DO NOTHING",
             "SELECT count(*) FROM t", "SELECT 'x' WHERE false", ""]
    parts = []
    for _ in range(dice.randrange(1, 9)):
        name, other = dice.choice(names), dice.choice(names)
        parts.append(dice.choice([
            lambda: parse(name, dice.choice(texts)), lambda: parse(name, dice.choice(texts)),
            lambda: bind(name, other), lambda: bind(name, other, [b"5"]), lambda: execute(name, dice.choice([0, 0, 1, 3])),
            lambda: execute(name), lambda: describe("S", name), lambda: describe("P", name), lambda: close("S", name),
            lambda: close("P", name), lambda: FLUSH])())
    return step(*parts, SYNC)


SEEDS = range(int(os.environ.get("PGSHUNT_RANDOM_FROM", "0")), int(os.environ.get("PGSHUNT_RANDOM_ROUNDS", "4")))


def same_answers(cluster, database, proxy, sequence):  # noqa: F811
    fill(cluster, database)
    with Raw(Direct(cluster.shards[0].primary), database=database) as direct:
        expected = play(direct, sequence)
    fill(cluster, database)
    with Raw(proxy, database=database) as raw:
        found = play(raw, sequence, expected)
    for number, (ours, theirs) in enumerate(zip(found, expected)):
        assert ours == theirs, f"round {number}: {sequence[number]!r}"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_rounds(cluster, database, proxy, seed):  # noqa: F811
    """Forty rounds of anything, within and without a transaction: the same answers as one Postgres gives."""
    dice = random.Random(seed)
    sequence = []
    for number in range(40):
        if number % 10 == 5:
            sequence.append(step(query("BEGIN")))
        if number % 10 == 0 and number:
            sequence.append(step(query("ROLLBACK")))
        sequence.append(random_round(dice))
    same_answers(cluster, database, proxy, sequence)


def usual_round(dice):
    """What drivers send: most of it goes behind other rounds that are not answered yet."""
    name = dice.choice(["", "", "a", "b"])
    texts = ["SELECT 1", SERIES, "SELECT $1::int", "SELECT 1/$1::int", "SELECT count(*) FROM t",
             "INSERT INTO t VALUES ($1) ON CONFLICT DO NOTHING", "UPDATE t SET body = 'y' WHERE id = $1"]
    sql = dice.choice(texts)
    value = [dice.choice([b"0", b"5", b"402"])]
    values = value if "$1" in sql else []
    return dice.choice([
        lambda: run(sql, values), lambda: run(sql, values), lambda: parse("", sql) + bind("", "", values) + execute(),
        lambda: bind("", name, value) + describe("P", "") + execute(), lambda: bind("", name, value) + execute(),
        lambda: bind("", name) + execute(), lambda: parse(name, sql) + describe("S", name), lambda: parse("", sql),
        lambda: run(sql, values) + run(sql, values), lambda: execute("none") + parse("", sql),
        lambda: bind("p", name, value) + execute("p", 1) + close("P", "p"), lambda: close("S", name),
        lambda: describe("S", name)])() + SYNC


def several_rounds(dice, transactions):
    parts = []
    for _ in range(dice.randrange(2, 12)):
        if transactions and dice.random() < 0.2:
            parts.append(query(dice.choice(["BEGIN", "BEGIN", "COMMIT", "ROLLBACK"])))
        parts.append(dice.choice([random_round, usual_round, usual_round, usual_round])(dice))
    return step(*parts)


@pytest.mark.parametrize("transactions", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_rounds_sent_together(cluster, database, proxy, seed, transactions):  # noqa: F811
    """Several Syncs are on their way before the first answer is read: within and without transactions."""
    dice = random.Random(f"{seed} {transactions}")
    sequence = []
    for _ in range(12):
        sequence.append(several_rounds(dice, transactions))
    same_answers(cluster, database, proxy, sequence)
