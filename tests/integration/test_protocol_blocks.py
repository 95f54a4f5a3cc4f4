"""Session statements, failed blocks and portals in the extended protocol: message by message as one Postgres."""
import pytest
from support import SYNC, Raw, bind, close, describe, execute, parse, query
from test_same_as_postgres import Direct, database, fill, play, run, step  # noqa: F401 (a fixture)

pytestmark = pytest.mark.core

SESSION = [
    "BEGIN", "START TRANSACTION READ ONLY", "COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a",
    "SET work_mem = '3MB'", "SET LOCAL work_mem = '3MB'", "RESET work_mem", "SHOW work_mem",
    "SET TRANSACTION READ ONLY", "DEALLOCATE s", "DEALLOCATE ALL", "DISCARD ALL", "LISTEN news", "UNLISTEN *",
    "SELECT pg_listening_channels()",
    "PREPARE q AS SELECT 1", "EXECUTE sql(1)", "", "SELECT 1", "SELECT $1::int", "SELECT nothing_there",
    "DELETE FROM t WHERE id = 600", "DELETE FROM t WHERE id = 600 RETURNING id", "NOTIFY news",
    "DECLARE c CURSOR FOR SELECT 1", "FETCH c", "CLOSE c", "LOCK TABLE t", "EXPLAIN (COSTS off, FORMAT json) SELECT 1",
    "COPY (SELECT 1) TO STDOUT", "DO $$ BEGIN END $$", "COMMIT PREPARED 'none_such' /* pgshunt: shard=s0 */"]

# How a block comes to be where it is, and what of it a server knows.
BLOCKS = {
    "outside": [],
    "deferred": [query("BEGIN")],
    "open": [query("BEGIN"), query("SELECT 1")],
    "failed on the server": [query("BEGIN"), query("SELECT 1/0")],
    "failed at once": [query("BEGIN"), parse("", "SELECT 1") + execute("none") + SYNC],
    "failed here": [query("BEGIN"), query("SELECT 1"), describe("S", "none") + SYNC],
}


def alone(sql):
    """Each message with a Sync of its own."""
    return [part + SYNC for part in (describe("S", "s"), bind("", "s"), describe("P", ""), execute(), execute())]


def one_batch(sql):
    return [parse("", sql) + describe("S", "") + bind("", "") + describe("P", "") + execute() * 2 + bind("", "s") +
            execute() + SYNC]


def prepared(sql):
    return [describe("S", "s") + bind("p", "s") + describe("P", "p") + execute("p") * 2 + SYNC, execute("p") + SYNC]


def too_many(sql):
    return [bind("", "s", [b"1", b"2"]) + execute() + SYNC, bind("p", "s", [b"1"]) + SYNC,
            bind("", "s", [], [0, 0]) + SYNC, parse("", sql) + bind("", "", [b"1", b"2", b"3"]) + execute() + SYNC]


def compare(cluster, database, proxy, sequence):  # noqa: F811
    fill(cluster, database)
    with Raw(Direct(cluster.shards[0].primary), database=database) as direct:
        expected = play(direct, sequence)
    assert not any(("silence",) in part for part in expected), f"the sequence itself hangs: {expected}"
    fill(cluster, database)
    with Raw(proxy, database=database) as raw:
        found = play(raw, sequence, expected)
    for number, (ours, theirs) in enumerate(zip(found, expected)):
        before = [bytes(part) for part in sequence[max(number - 8, 0):number]]
        assert ours == theirs, f"step {number}: {bytes(sequence[number])!r} behind {before}"


@pytest.mark.parametrize("messages", [alone, one_batch, prepared, too_many])
@pytest.mark.parametrize("block", BLOCKS)
def test_any_statement_in_any_block(cluster, database, proxy, block, messages):  # noqa: F811
    sequence = []
    for sql in SESSION:
        if block == "failed here" and sql in ("ROLLBACK TO a", "FETCH c"):
            continue  # of a savepoint and a cursor that only the server knows not to be there: it is sound yet
        sequence += [step(query("PREPARE sql AS SELECT $1::int")), step(parse("s", sql), SYNC)]
        sequence += [step(part) for part in BLOCKS[block] + messages(sql)]
        sequence += [step(query(end)) for end in ("SELECT 'state'", "ROLLBACK", "UNLISTEN *", "DISCARD ALL")]
    compare(cluster, database, proxy, sequence)


def batch(sql, name="", *values):
    return parse("", sql) + bind(name, "", values) + execute(name)


SEQUENCES = {
    # ---- what follows in the same batch ----
    "a failed block ended, and more": [
        step(query("BEGIN")), step(query("SELECT 1/0")), step(batch("ROLLBACK"), batch("SELECT 1"), SYNC),
        step(query("SELECT 2"))],
    "a failed block ended, and a new one": [step(query("BEGIN")), step(query("SELECT 1/0")),
        step(batch("COMMIT"), batch("BEGIN"), batch("SELECT 1"), SYNC),
        step(batch("INSERT INTO t VALUES (610)"), batch("COMMIT"), SYNC),
        step(query("SELECT count(*) FROM t WHERE id = 610"))],
    "back to a savepoint, and more": [step(query("BEGIN")), step(query("SAVEPOINT a")), step(query("SELECT 1/0")),
        step(batch("ROLLBACK TO a"), batch("SELECT 1"), batch("SELECT 2"), SYNC), step(query("COMMIT"))],
    "back to a savepoint, alone": [step(query("BEGIN")), step(query("SAVEPOINT a")), step(execute("none"), SYNC),
        step(batch("ROLLBACK TO a"), batch("SELECT 1"), batch("SELECT 2"), SYNC), step(query("COMMIT"))],
    "back to none": [
        step(query("BEGIN")), step(query("SELECT 1/0")), step(batch("ROLLBACK TO a"), batch("SELECT 1"), SYNC),
        step(batch("ROLLBACK TO a"), batch("SELECT 1"), SYNC), step(query("COMMIT"))],
    "a block ended, and a new one": [step(query("BEGIN")), step(query("SELECT 1")),
        step(batch("COMMIT"), batch("BEGIN"), batch("SELECT 1"), SYNC), step(query("ROLLBACK"))],
    "a deferred block ended, and a new one": [step(query("BEGIN")),
        step(batch("COMMIT"), batch("BEGIN READ ONLY"), batch("SHOW transaction_read_only"), SYNC),
        step(query("ROLLBACK"))],
    "savepoints in one batch": [
        step(batch("BEGIN"), batch("SAVEPOINT a"), batch("INSERT INTO t VALUES (611)"), batch("SAVEPOINT b"),
             batch("ROLLBACK TO a"), batch("RELEASE a"), batch("RELEASE b"), batch("COMMIT"), SYNC),
        step(query("ROLLBACK"))],
    "savepoints of a failed block": [
        step(query("BEGIN")), step(query("SELECT 1")), step(batch("SAVEPOINT a"), SYNC),
        step(batch("SELECT 1/0"), SYNC), step(batch("SAVEPOINT b"), SYNC), step(batch("RELEASE a"), SYNC),
        step(batch("ROLLBACK TO b"), SYNC), step(batch("ROLLBACK TO a"), SYNC), step(batch("RELEASE a"), SYNC),
        step(batch("ROLLBACK TO a"), SYNC), step(batch("COMMIT"), SYNC)],
    "RELEASE of none and ROLLBACK TO": [
        step(query("BEGIN")),
        step(parse("r", "RELEASE none"), describe("S", "r"), bind("r", "r"), describe("P", "r"), SYNC),
        step(execute("r"), SYNC), step(execute("r"), SYNC), step(query("ROLLBACK"))],
    # ---- portals ----
    "an unnamed portal of a Query that failed": [
        step(query("BEGIN")), step(query("SELECT 1/(g-3) FROM generate_series(1, 5) g")), step(execute(), SYNC),
        step(describe("P", ""), SYNC), step(close("P", ""), SYNC), step(execute(), SYNC), step(query("ROLLBACK")),
        step(execute(), SYNC)],
    "an unnamed portal of a Query that was none": [
        step(query("BEGIN")), step(query("SELEKT")), step(execute(), SYNC), step(describe("P", ""), SYNC),
        step(query("ROLLBACK"))],
    "an unnamed portal in a failed block": [
        step(query("BEGIN")), step(run("SELECT 1"), SYNC), step(query("SELECT 1/0")), step(execute(), SYNC),
        step(describe("P", ""), SYNC), step(bind("", ""), SYNC), step(query("ROLLBACK"))],
    "a statement of the session beside an unnamed portal": [
        step(query("BEGIN")),
        step(parse("s", "SELECT g FROM generate_series(1, 5) g"), bind("", "s"), execute("", 2), SYNC),
        step(parse("", "SAVEPOINT a"), bind("p", ""), execute("p"), SYNC), step(execute("", 2), SYNC),
        step(execute(), SYNC), step(query("COMMIT"))],
    "a statement of the session in the place of a portal": [
        step(query("BEGIN")),
        step(parse("s", "SELECT g FROM generate_series(1, 5) g"), bind("p", "s"), execute("p", 2), SYNC),
        step(parse("", "SAVEPOINT a"), bind("p", ""), execute("p"), SYNC), step(query("ROLLBACK"))],
    "portals of the session and no others": [
        step(query("BEGIN")), step(parse("", "SAVEPOINT a"), bind("p", ""), execute("p"), SYNC),
        step(close("P", "p"), parse("", "SELECT 1"), bind("p", ""), execute("p"), SYNC), step(bind("p", ""), SYNC),
        step(query("ROLLBACK"))],
    "a portal of the session twice": [
        step(query("BEGIN")), step(parse("s", "SAVEPOINT a"), bind("p", "s"), SYNC), step(bind("p", "s"), SYNC),
        step(query("ROLLBACK"))],
    "a portal run before its block has failed": [
        step(query("BEGIN")), step(query("SELECT 1")), step(parse("s", "ROLLBACK"), bind("p", "s"), SYNC),
        step(parse("t", "SAVEPOINT a"), bind("q", "t"), execute("q"), SYNC), step(query("SELECT 1/0")),
        step(execute("q"), SYNC), step(query("ROLLBACK"))],
    "LISTEN twice": [
        step(parse("s", "LISTEN news"), bind("p", "s"), execute("p"), execute("p"), SYNC), step(query("UNLISTEN *"))],
    "the channels twice": [
        step(query("LISTEN news")),
        step(run("SELECT pg_listening_channels()", name="p"), execute("p"), execute("p", 1), SYNC),
        step(query("UNLISTEN *"))],
    "PREPARE twice": [
        step(query("BEGIN")), step(batch("PREPARE q AS SELECT 1", "p"), execute("p"), SYNC), step(execute("p"), SYNC),
        step(query("ROLLBACK")), step(query("DEALLOCATE q"))],
    "formats of results of the session": [
        step(parse("", "SELECT pg_listening_channels()"), bind("", "", [], [], [0, 0]), SYNC),
        step(parse("", "BEGIN"), bind("", "", [], [], [1, 0, 1]), execute(), SYNC), step(query("ROLLBACK"))],
    "declared types of the session's": [
        step(parse("s", "BEGIN", [23, 25]), describe("S", "s"), SYNC),
        step(bind("", "s", [b"1", b"2"]), execute(), SYNC), step(bind("", "s"), SYNC), step(query("ROLLBACK"))],
    "an EXECUTE of the wrong values": [
        step(query("PREPARE q AS SELECT $1::int")),
        step(parse("u", "EXECUTE q(1)"), bind("", "u", [b"3"]), execute(), SYNC), step(query("EXECUTE q")),
        step(query("DEALLOCATE q"))],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_same_answers(cluster, database, proxy, name):  # noqa: F811
    compare(cluster, database, proxy, SEQUENCES[name])
