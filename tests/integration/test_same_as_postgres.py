"""The same bytes to one Postgres and through pgshunt: the same messages come back, type by type and byte by byte."""
import socket
import struct

import pytest
from support import (FLUSH, SYNC, TERMINATE, Raw, bind, close, describe, execute, fields, message, parse, query)

pytestmark = pytest.mark.core

# Fields of an error that pgshunt cannot know or that tell of the server's source code.
OF_THE_SERVER = "PFLRpqW"


class Direct:
    """What Raw needs of a proxy, for a server."""

    def __init__(self, node):
        self.node = node

    def socket(self, timeout):
        return socket.create_connection((self.node.host, self.node.port), timeout)


class Quiet(bytes):
    """Bytes after which no ReadyForQuery comes: what is answered is read until nothing more comes."""


class Rounds(bytes):
    """Bytes that are answered with as many ReadyForQuerys as `count` says."""
    count = 0


def rounds(count, *parts):
    step = Rounds(b"".join(parts))
    step.count = count
    return step


def step(*parts):
    """Ends with as many ReadyForQuerys as it has Query and Sync messages."""
    text = b"".join(parts)
    count, at = 0, 0
    while at < len(text):
        count += text[at:at + 1] in (b"Q", b"S")
        at += 1 + struct.unpack("!I", text[at + 1:at + 5])[0]
    return rounds(count, text)


def quiet(*parts):
    return Quiet(b"".join(parts))


def run(sql, values=(), name="", **more):
    """Parse, Bind, Describe, Execute."""
    return parse("", sql) + bind(name, "", values, **more) + describe("P", name) + execute(name)


def copy_data(text):
    return message(b"d", text)


COPY_DONE = message(b"c")
COPY_FAIL = message(b"f", b"given up\0")

SEQUENCES = {
    # ---- Query ----
    "a query": [step(query("SELECT 1, NULL, 'x'"))],
    "an empty query": [step(query("")), step(query(" ; "))],
    "queries in one packet": [step(query("SELECT 1"), query("SELECT 2"), query(""), query("SELECT 3"))],
    "several statements": [step(query("SELECT 1; SELECT 2, 3; SELECT 4 WHERE false"))],
    "several statements, one fails": [step(query("INSERT INTO t VALUES (50); SELECT 1/0; SELECT 3")),
                                      step(query("SELECT count(*) FROM t WHERE id = 50"))],
    "several statements, the last is wrong": [step(query("SELECT 1; SELEKT 2"))],
    "an error": [step(query("SELECT 1/0"))],
    "an unknown table": [step(query("SELECT * FROM nothing_there"))],
    "a syntax error": [step(query("SELEKT 1")), step(query("SELECT 1"))],
    "a warning": [step(query("COMMIT")), step(query("ROLLBACK"))],
    "a notice": [step(query("DO $$ BEGIN RAISE NOTICE 'hear, hear'; END $$"))],
    "a change with a result": [step(query("INSERT INTO t VALUES (60) RETURNING id, id + 1")),
                               step(query("UPDATE t SET body = 'x' WHERE id = 60")),
                               step(query("DELETE FROM t WHERE id = 60 RETURNING body"))],
    "a table of its own": [step(query("CREATE TEMP TABLE own (a int)")), step(query("INSERT INTO own VALUES (1)")),
                           step(query("SELECT a + 0 FROM own")), step(query("DROP TABLE own"))],
    "EXPLAIN": [step(query("EXPLAIN (COSTS off, FORMAT json) SELECT 1"))],
    # ---- transactions ----
    "a transaction": [step(query("BEGIN")), step(query("INSERT INTO t VALUES (61)")), step(query("COMMIT")),
                      step(query("SELECT id FROM t WHERE id = 61"))],
    "an empty transaction": [step(query("BEGIN")), step(query("COMMIT")), step(query("START TRANSACTION")),
                             step(query("ABORT"))],
    "a transaction that fails": [step(query("BEGIN")), step(query("SELECT 1/0")), step(query("SELECT 1")),
                                 step(query("BEGIN")), step(query("SAVEPOINT s")), step(query("COMMIT"))],
    "a transaction that fails at once": [step(query("BEGIN")), step(query("SELEKT")), step(query("SELECT 1")),
                                         step(query("SET work_mem = '3MB'")), step(query("END"))],
    "an empty query in a failed transaction": [step(query("BEGIN")), step(query("SELECT 1/0")), step(query("")),
                                               step(query("ROLLBACK"))],
    "BEGIN twice": [step(query("BEGIN")), step(query("BEGIN")), step(query("SELECT 1")), step(query("BEGIN")),
                    step(query("COMMIT"))],
    "chains": [step(query("BEGIN ISOLATION LEVEL REPEATABLE READ")), step(query("SELECT 1")),
               step(query("COMMIT AND CHAIN")), step(query("SHOW transaction_isolation")),
               step(query("ROLLBACK AND CHAIN")), step(query("SHOW transaction_isolation")),
               step(query("ROLLBACK"))],
    "serializable by default": [step(query("SET default_transaction_isolation = serializable")),
                                step(query("SELECT count(*) FROM t")), step(run("SELECT count(*) FROM t"), SYNC)],
    "chains of nothing": [step(query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")),
                          step(query("COMMIT AND CHAIN")), step(query("SHOW transaction_isolation")),
                          step(query("SHOW transaction_read_only")), step(query("COMMIT"))],
    "a chain outside a transaction": [step(query("COMMIT AND CHAIN")), step(query("ROLLBACK AND CHAIN"))],
    "a chain after a failure": [step(query("BEGIN ISOLATION LEVEL SERIALIZABLE")), step(query("SELECT 1/0")),
                                step(query("COMMIT AND CHAIN")), step(query("SHOW transaction_isolation")),
                                step(query("COMMIT"))],
    "savepoints": [step(query("BEGIN")), step(query("SAVEPOINT a")), step(query("INSERT INTO t VALUES (62)")),
                   step(query("SAVEPOINT b")), step(query("SELECT 1/0")), step(query("ROLLBACK TO b")),
                   step(query("RELEASE a")), step(query("ROLLBACK TO b")), step(query("COMMIT"))],
    "savepoints ahead of everything": [step(query("BEGIN")), step(query("SAVEPOINT a")), step(query("SAVEPOINT b")),
                                       step(query("RELEASE b")), step(query("ROLLBACK TO b")), step(query("SELECT 1")),
                                       step(query("ROLLBACK TO a")), step(query("SELECT 2")), step(query("COMMIT"))],
    "savepoints outside a transaction": [step(query("SAVEPOINT a")), step(query("RELEASE a")),
                                         step(query("ROLLBACK TO a"))],
    "a savepoint of a strange name": [step(query("BEGIN")), step(query('SAVEPOINT "A b""c"')), step(query("SELECT 1")),
                                      step(query('ROLLBACK TO "A b""c"')), step(query("COMMIT"))],
    "BEGIN and COMMIT in one query": [step(query("BEGIN; SELECT 1; COMMIT; SELECT 2"))],
    "BEGIN at the end of a query": [step(query("SELECT 1; BEGIN")), step(query("SELECT 2")), step(query("COMMIT"))],
    "COMMIT in the middle": [step(query("INSERT INTO t VALUES (63); COMMIT; SELECT 1/0")),
                             step(query("SELECT count(*) FROM t WHERE id = 63"))],
    "BEGIN and a query behind": [step(query("BEGIN; SELECT 1/0; COMMIT")), step(query("ROLLBACK"))],
    "COMMIT of a deferred failure": [step(query("BEGIN")), step(query("INSERT INTO child VALUES (1, 999)")),
                                     step(query("COMMIT")), step(query("SELECT count(*) FROM child"))],
    "READ ONLY": [step(query("BEGIN READ ONLY")), step(query("SELECT count(*) FROM t")),
                  step(query("INSERT INTO t VALUES (64)")), step(query("COMMIT"))],
    "READ ONLY, a write first": [step(query("BEGIN READ ONLY")), step(query("INSERT INTO t VALUES (64)")),
                                 step(query("COMMIT"))],
    "SET TRANSACTION": [step(query("BEGIN")), step(query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")),
                        step(query("SHOW transaction_isolation")), step(query("SHOW transaction_read_only")),
                        step(query("COMMIT")), step(query("SHOW transaction_isolation"))],
    "SET TRANSACTION too late": [step(query("BEGIN")), step(query("SELECT count(*) FROM t")),
                                 step(query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")), step(query("COMMIT"))],
    "SET TRANSACTION outside": [step(query("SET TRANSACTION READ ONLY")), step(query("INSERT INTO t VALUES (65)"))],
    "SET TRANSACTION behind a savepoint": [step(query("BEGIN")), step(query("SAVEPOINT a")),
                                           step(query("SET TRANSACTION READ ONLY")), step(query("SELECT 1")),
                                           step(query("COMMIT"))],
    "a cursor": [step(query("BEGIN")), step(query("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id")),
                 step(query("FETCH 2 FROM c")), step(query("MOVE 1 IN c")), step(query("FETCH ALL FROM c")),
                 step(query("CLOSE c")), step(query("FETCH c")), step(query("COMMIT"))],
    "two phases": [step(query("BEGIN")), step(query("INSERT INTO t VALUES (66)")),
                   step(query("PREPARE TRANSACTION 'same_as_postgres'")),
                   step(query("ROLLBACK PREPARED 'same_as_postgres' /* pgshunt: shard=s0 */"))],
    "two phases in a failed block": [
        step(query("BEGIN")), step(query("SELECT 1/0")), step(query("PREPARE TRANSACTION 'failed_block'")),
        step(query("SELECT 1")), step(query("ROLLBACK PREPARED 'failed_block' /* pgshunt: shard=s0 */"))],
    "two phases in a block that failed at once": [
        step(query("BEGIN")), step(query("SELEKT")), step(query("PREPARE TRANSACTION 'failed_block'")),
        step(query("COMMIT"))],
    "two phases in a failed block, extended": [
        step(run("BEGIN"), SYNC), step(run("SELECT 1/0"), SYNC), step(run("PREPARE TRANSACTION 'failed_block'"), SYNC),
        step(run("SELECT 1"), SYNC)],
    "two phases outside a transaction": [step(query("PREPARE TRANSACTION 'no_block'")), step(query("SELECT 1"))],
    "two phases of nothing": [
        step(query("BEGIN")), step(query("PREPARE TRANSACTION 'same_as_postgres'")), step(query("SELECT 1")),
        step(query("ROLLBACK PREPARED 'same_as_postgres' /* pgshunt: shard=s0 */"))],
    "a savepoint that is not there": [
        step(query("BEGIN")), step(query("ROLLBACK TO nothing")), step(query("ROLLBACK TO nothing")),
        step(query("RELEASE nothing")), step(query("COMMIT"))],
    "a savepoint that is not there, after a statement": [
        step(query("BEGIN")), step(query("SELECT 1")), step(query("SAVEPOINT a")), step(query("ROLLBACK TO nothing")),
        step(query("ROLLBACK TO nothing")), step(query("ROLLBACK TO a")), step(query("RELEASE nothing")),
        step(query("ROLLBACK TO a")), step(query("COMMIT"))],
    "a savepoint that is not there, extended": [
        step(run("BEGIN"), SYNC), step(run("ROLLBACK TO nothing"), SYNC), step(run("ROLLBACK TO nothing"), SYNC),
        step(run("COMMIT"), SYNC)],
    "a savepoint that is not there, executed twice": [
        step(run("BEGIN"), SYNC), step(parse("r", "ROLLBACK TO nothing"), SYNC),
        step(bind("", "r"), execute(), SYNC), step(bind("", "r"), execute(), SYNC), step(run("COMMIT"), SYNC)],
    "a savepoint that is not there, executed twice after a statement": [
        step(run("BEGIN"), run("SAVEPOINT a"), run("SELECT 1"), SYNC), step(parse("r", "ROLLBACK TO nothing"), SYNC),
        step(bind("", "r"), execute(), SYNC), step(bind("", "r"), execute(), SYNC), step(run("ROLLBACK TO a"), SYNC),
        step(run("SELECT 1"), SYNC), step(run("COMMIT"), SYNC)],
    "a savepoint, executed twice in a portal": [
        step(run("BEGIN"), SYNC), step(parse("", "SAVEPOINT a"), bind("", ""), execute(), execute(), SYNC),
        step(run("COMMIT"), SYNC)],
    "ROLLBACK TO, a portal executed twice": [
        step(run("BEGIN"), run("SAVEPOINT a"), SYNC),
        step(parse("", "ROLLBACK TO a"), bind("", ""), execute(), execute(), SYNC), step(run("COMMIT"), SYNC)],
    "ROLLBACK TO nothing, a portal executed twice": [
        step(run("BEGIN"), run("SELECT 1"), SYNC),
        step(parse("", "ROLLBACK TO nothing"), bind("", ""), execute(), execute(), SYNC),
        step(parse("", "ROLLBACK TO nothing"), bind("", ""), execute(), execute(), SYNC), step(run("COMMIT"), SYNC)],
    "statements in a failed block, extended": [
        step(run("BEGIN"), SYNC), step(run("SELECT 1/0"), SYNC), step(run("SAVEPOINT a"), SYNC),
        step(run("RELEASE a"), SYNC), step(run("SET work_mem = '2MB'"), SYNC), step(run("SHOW work_mem"), SYNC),
        step(run("BEGIN"), SYNC), step(run("LISTEN x"), SYNC), step(run("DEALLOCATE ALL"), SYNC),
        step(run("DISCARD ALL"), SYNC), step(run("EXECUTE nothing"), SYNC), step(run("PREPARE p AS SELECT 1"), SYNC),
        step(run("FETCH c"), SYNC), step(run("CLOSE c"), SYNC), step(run("COMMIT AND CHAIN"), SYNC),
        step(run("SELECT 1"), SYNC), step(run("COMMIT"), SYNC)],
    "Describe of FETCH": [
        step(run("BEGIN"), run("DECLARE c CURSOR FOR SELECT id, body FROM t ORDER BY id"), SYNC),
        step(parse("f", "FETCH 2 FROM c"), describe("S", "f"), SYNC),
        step(bind("", "f"), describe("P", ""), execute(), SYNC),
        step(bind("", "f"), describe("P", ""), execute(), SYNC),
        step(parse("", "MOVE 1 FROM c"), describe("S", ""), bind("", ""), describe("P", ""), execute(), SYNC),
        step(parse("", "FETCH 2 FROM nothing"), describe("S", ""), SYNC), step(run("COMMIT"), SYNC)],
    "FETCH of a cursor that fails": [
        step(run("BEGIN"), run("DECLARE c CURSOR FOR SELECT 1 / (3 - id) FROM t ORDER BY id"), SYNC),
        step(query("FETCH 2 FROM c")), step(query("FETCH 2 FROM c")), step(query("COMMIT"))],
    # ---- settings ----
    "SET": [step(query("SET application_name = 'Some App'")), step(query("SHOW application_name")),
            step(query("RESET application_name")), step(query("SET datestyle = 'German, DMY'")),
            step(query("SELECT date '2026-01-31'")), step(query("RESET ALL")), step(query("SELECT date '2026-01-31'"))],
    "SET in a transaction that rolls back": [step(query("SET timezone = 'Asia/Tokyo'")), step(query("BEGIN")),
                                             step(query("SET timezone = 'Europe/Vienna'")), step(query("SELECT 1")),
                                             step(query("ROLLBACK")), step(query("SHOW timezone"))],
    "SET in a transaction that commits": [step(query("BEGIN")), step(query("SET timezone = 'Europe/Vienna'")),
                                          step(query("COMMIT")), step(query("SHOW timezone"))],
    "SET in a transaction that fails": [step(query("BEGIN")), step(query("SET work_mem = '2MB'")),
                                        step(query("SELECT 1/0")), step(query("COMMIT")), step(query("SHOW work_mem"))],
    "SET and a savepoint": [step(query("BEGIN")), step(query("SET work_mem = '2MB'")), step(query("SAVEPOINT a")),
                            step(query("SET work_mem = '3MB'")), step(query("ROLLBACK TO a")),
                            step(query("COMMIT")), step(query("SHOW work_mem"))],
    "SET LOCAL": [step(query("BEGIN")), step(query("SET LOCAL work_mem = '2MB'")), step(query("SHOW work_mem")),
                  step(query("COMMIT")), step(query("SHOW work_mem")), step(query("SET LOCAL work_mem = '2MB'"))],
    "SET behind a COMMIT in one query": [step(query("BEGIN; SET work_mem = '2MB'; COMMIT; SET work_mem = '3MB'")),
                                         step(query("SHOW work_mem"))],
    "SET and a ROLLBACK in one query": [step(query("BEGIN; SET work_mem = '2MB'; ROLLBACK")),
                                        step(query("SHOW work_mem"))],
    "SET and an error in one query": [step(query("SET work_mem = '2MB'; SELECT 1/0")), step(query("SHOW work_mem"))],
    "SET, COMMIT, SET and an error in one query": [
        step(query("SET work_mem = '2MB'; COMMIT; SET work_mem = '3MB'; SELECT 1/0")), step(query("SHOW work_mem"))],
    "SET and ROLLBACK AND CHAIN": [step(query("BEGIN")), step(query("SET work_mem = '2MB'")),
                                   step(query("ROLLBACK AND CHAIN")), step(query("SELECT 1")), step(query("COMMIT")),
                                   step(query("SHOW work_mem"))],
    "SET, then BEGIN in one query": [step(query("SET work_mem = '2MB'; BEGIN")), step(query("ROLLBACK")),
                                     step(query("SHOW work_mem"))],
    "SET of nonsense": [step(query("SET work_mem = 'much'")), step(query("SET no_such_thing = 1")),
                        step(query("SET my.own = 'x'")), step(query("SHOW my.own"))],
    "SET LOCAL and SET": [step(query("BEGIN")), step(query("SET work_mem = '2MB'")),
                          step(query("SET LOCAL work_mem = '3MB'")), step(query("SHOW work_mem")),
                          step(query("COMMIT")), step(query("SHOW work_mem"))],
    "RESET in a transaction": [step(query("SET work_mem = '2MB'")), step(query("BEGIN")), step(query("RESET work_mem")),
                               step(query("SHOW work_mem")), step(query("ROLLBACK")), step(query("SHOW work_mem"))],
    "client_encoding": [step(query("SET client_encoding = 'LATIN1'")), step(query("SELECT chr(228)")),
                        step(query("SHOW client_encoding")), step(query("RESET client_encoding")),
                        step(query("SELECT chr(228)"))],
    "search_path": [step(query("SET search_path = pg_catalog, public")), step(query("SHOW search_path")),
                    step(query("SELECT current_schemas(false)")), step(query("RESET search_path")),
                    step(query("SHOW search_path"))],
    "SET ROLE": [step(query("SET ROLE app")), step(query("SELECT current_user")), step(query("RESET ROLE")),
                 step(query("SELECT current_user")), step(query("SET SESSION AUTHORIZATION app")),
                 step(query("SELECT session_user")), step(query("RESET SESSION AUTHORIZATION")),
                 step(query("SELECT session_user"))],
    "SET ROLE NONE": [step(query("SET ROLE app")), step(query("SET ROLE NONE")), step(query("SELECT current_user"))],
    "SET TIME ZONE": [step(query("SET TIME ZONE 'UTC'")), step(query("SET TIME ZONE LOCAL")),
                      step(query("SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE")), step(query("SHOW timezone"))],
    "DISCARD ALL": [step(query("SET work_mem = '2MB'")), step(query("SET timezone = 'Asia/Tokyo'")),
                    step(query("DISCARD ALL")), step(query("SHOW work_mem")), step(query("SHOW timezone"))],
    "DISCARD ALL in a transaction": [step(query("BEGIN")), step(query("DISCARD ALL")), step(query("ROLLBACK"))],
    "DISCARD ALL and a statement": [step(parse("p", "SELECT 1"), SYNC), step(query("DISCARD ALL")),
                                    step(bind("", "p"), execute(), SYNC)],
    # ---- session state ----
    "SQL PREPARE": [step(query("PREPARE p AS SELECT $1::int + 1")), step(query("EXECUTE p(1)")),
                    step(query("DEALLOCATE p")), step(query("EXECUTE p(2)"))],
    "SQL EXECUTE with a wrong number of values": [
        step(query("PREPARE p AS SELECT $1::int + 1")), step(query("EXECUTE p(1, 2)")), step(query("EXECUTE p")),
        step(query("EXECUTE p(3)"))],
    "SQL EXECUTE of what is not there, extended": [
        step(parse("", "EXECUTE none(1)"), SYNC), step(bind("", ""), execute(), SYNC), step(run("EXECUTE none"), SYNC)],
    "DEALLOCATE": [step(parse("p", "SELECT 1"), SYNC), step(query("DEALLOCATE p")),
                   step(bind("", "p"), execute(), SYNC), step(query("DEALLOCATE p")),
                   step(query("DEALLOCATE ALL"))],
    "LISTEN": [step(query("LISTEN news")), step(query("BEGIN; SELECT 1; COMMIT")), step(query("UNLISTEN *"))],
    "NOTIFY to oneself": [
        step(query("LISTEN news")), step(query("NOTIFY news, 'one'")), step(query("SELECT pg_notify('news', 'two')")),
        step(run("NOTIFY news"), SYNC), step(run("SELECT pg_notify('news', 'three')"), run("SELECT 1"), SYNC),
        step(query("NOTIFY others")), step(query("SELECT 1; NOTIFY news, 'four'; SELECT 2")),
        step(query("UNLISTEN news")), step(query("NOTIFY news"))],
    "NOTIFY to oneself in blocks": [
        step(query("LISTEN news")), step(query("BEGIN")), step(query("NOTIFY news, 'one'")), step(query("SELECT 1")),
        step(query("COMMIT")), step(query("BEGIN")), step(query("NOTIFY news, 'two'")), step(query("ROLLBACK")),
        step(query("BEGIN")), step(query("NOTIFY news, 'three'")), step(query("NOTIFY news, 'three'")),
        step(query("NOTIFY news, 'four'")), step(query("COMMIT AND CHAIN")), step(query("COMMIT")),
        step(query("BEGIN; NOTIFY news, 'five'; COMMIT; SELECT 3")), step(query("NOTIFY news, 'six'; SELECT 1/0")),
        step(query("BEGIN")), step(run("NOTIFY news, 'seven'"), SYNC), step(run("COMMIT"), SYNC)],
    "NOTIFY to oneself, and LISTEN with it": [
        step(query("BEGIN")), step(query("LISTEN news")), step(query("NOTIFY news, 'one'")), step(query("COMMIT")),
        step(query("BEGIN")), step(query("LISTEN more")), step(query("NOTIFY more, 'no'")), step(query("ROLLBACK")),
        step(query("NOTIFY more")), step(query("BEGIN")), step(query("NOTIFY news, 'two'")), step(query("UNLISTEN *")),
        step(query("COMMIT")), step(query("NOTIFY news"))],
    "NOTIFY to oneself by a trigger": [
        step(query("CREATE FUNCTION tell() RETURNS trigger AS $$ BEGIN PERFORM pg_notify('news', NEW.id::text); "
                   "RETURN NEW; END $$ LANGUAGE plpgsql")),
        step(query("CREATE TRIGGER tell AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell()")),
        step(query("LISTEN news")), step(query("INSERT INTO t VALUES (70)")),
        step(run("INSERT INTO t VALUES (71), (72)"), SYNC), step(query("DO $$ BEGIN NOTIFY news, 'done'; END $$")),
        step(query("COPY t FROM STDIN"), copy_data(b"73\tx\n"), COPY_DONE),
        step(query("UNLISTEN *")), step(query("DROP FUNCTION tell CASCADE"))],
    "NOTIFY to oneself, a server's own LISTEN": [
        step(query("SELECT 1; LISTEN news")), step(query("NOTIFY news, 'one'")), step(query("BEGIN")),
        step(query("NOTIFY news, 'two'")), step(query("COMMIT")), step(query("UNLISTEN *"))],
    "advisory locks": [step(query("SELECT pg_advisory_lock(4711)")), step(query("SELECT pg_advisory_unlock(4711)")),
                       step(query("SELECT pg_advisory_unlock(4711)"))],
    # ---- extended ----
    "one of each": [step(parse("", "SELECT $1::int + 1 AS n"), bind("", "", [b"41"]), describe("P", ""), execute(),
                         SYNC)],
    "Sync alone": [step(SYNC), step(SYNC, SYNC, SYNC)],
    "several Syncs in one packet": [step(run("SELECT 1"), SYNC, run("SELECT 2"), SYNC, run("INSERT INTO t VALUES (70)"),
                                         SYNC, run("SELECT count(*) FROM t WHERE id = 70"), SYNC)],
    "a pipeline": [step(run("SELECT 1"), run("INSERT INTO t VALUES (71)"), run("SELECT 2"),
                        run("SELECT count(*) FROM t WHERE id = 71"), SYNC)],
    "an error in a pipeline": [step(run("INSERT INTO t VALUES (72)"), run("SELECT 1/0"), run("SELECT 3"), SYNC,
                                    run("SELECT count(*) FROM t WHERE id = 72"), SYNC)],
    "an error at Parse": [step(parse("", "SELEKT"), bind("", ""), execute(), SYNC), step(run("SELECT 1"), SYNC)],
    "an error at Bind": [step(parse("", "SELECT $1::int"), bind("", "", [b"x"]), describe("P", ""), execute(), SYNC),
                         step(parse("", "SELECT $1::int"), bind("", "", []), execute(), SYNC)],
    "an error at the first of two Syncs": [step(run("SELECT 1/0"), SYNC, run("SELECT 1"), SYNC)],
    "Parse and Describe": [step(parse("p", "SELECT id, body FROM t WHERE id = $1"), describe("S", "p"), SYNC),
                           step(bind("", "p", [b"1"]), describe("P", ""), execute(), SYNC),
                           step(describe("S", "p"), SYNC), step(close("S", "p"), SYNC), step(describe("S", "p"), SYNC)],
    "Parse alone": [step(parse("p", "SELECT 1"), SYNC), step(parse("p", "SELECT 2"), SYNC),
                    step(close("S", "p"), parse("p", "SELECT 2"), SYNC), step(bind("", "p"), execute(), SYNC)],
    "Parse of nonsense": [step(parse("p", "SELECT * FROM nothing_there"), SYNC), step(bind("", "p"), execute(), SYNC),
                          step(parse("p", "SELECT 7"), SYNC), step(bind("", "p"), execute(), SYNC)],
    "Parse that is skipped": [step(run("SELECT 1/0"), parse("p", "SELECT 1"), SYNC), step(bind("", "p"), SYNC),
                              step(parse("p", "SELECT 2"), bind("", "p"), execute(), SYNC)],
    "two statements in a Parse": [step(parse("", "SELECT 1; SELECT 2"), bind("", ""), execute(), SYNC)],
    "an empty statement": [step(run(""), SYNC), step(parse("", ";"), bind("", ""), execute(), SYNC),
                           step(parse("e", ""), describe("S", "e"), SYNC), step(bind("", "e"), execute(), SYNC)],
    "nothing that exists": [step(bind("", "none"), SYNC), step(execute("none"), SYNC), step(describe("S", "none"), SYNC),
                            step(describe("P", "none"), SYNC), step(close("S", "none"), close("P", "none"), SYNC)],
    "unnamed ones that do not exist": [step(bind("", ""), SYNC), step(execute(""), SYNC), step(describe("S", ""), SYNC),
                                       step(describe("P", ""), SYNC), step(close("S", ""), close("P", ""), SYNC)],
    "the unnamed statement stays": [step(parse("", "SELECT 5"), SYNC), step(bind("", ""), execute(), SYNC),
                                    step(bind("", ""), execute(), SYNC)],
    "the unnamed statement after a query": [step(parse("", "SELECT 5"), SYNC), step(query("SELECT 1")),
                                            step(bind("", ""), execute(), SYNC)],
    "the unnamed portal after Sync": [step(parse("", "SELECT 5"), bind("", ""), SYNC), step(execute(), SYNC)],
    "Parse, then Close of another": [step(parse("q", "SELECT 5"), SYNC),
                                     step(parse("p", "SELECT 6"), close("S", "q"), bind("", "p"), execute(), SYNC)],
    "Parse, then nothing that exists": [step(parse("p", "SELECT 6"), bind("", "none"), SYNC),
                                        step(bind("", "p"), execute(), SYNC)],
    "Parse, then BEGIN": [step(parse("p", "SELECT 6"), run("BEGIN"), bind("", "p"), execute(), SYNC)],
    "closing the unnamed statement": [step(parse("", "SELECT 5"), close("S", ""), bind("", ""), execute(), SYNC)],
    "statement closed under a portal": [step(parse("p", "SELECT 5"), bind("c", "p"), close("S", "p"), execute("c"),
                                             SYNC)],
    "a portal replaced": [step(parse("", "SELECT 5"), bind("", ""), bind("", ""), execute(), SYNC),
                          step(parse("", "SELECT 5"), bind("c", ""), bind("c", ""), execute("c"), SYNC)],
    "a portal run twice": [step(parse("", "SELECT 5"), bind("", ""), execute(), execute(), SYNC)],
    "a change run twice": [step(parse("", "INSERT INTO t VALUES (73)"), bind("", ""), execute(), execute(), SYNC)],
    "row limits": [step(parse("", "SELECT id FROM t ORDER BY id"), bind("", ""), describe("P", ""), execute("", 2),
                        execute("", 1), execute("", 0), execute("", 5), SYNC)],
    "a limit met exactly": [step(parse("", "SELECT generate_series(1, 2)"), bind("", ""), execute("", 2),
                                 execute("", 2), SYNC)],
    "row limits with Flush": [quiet(parse("", "SELECT id FROM t ORDER BY id"), bind("", ""), execute("", 1), FLUSH),
                              quiet(execute("", 1), FLUSH), step(execute("", 1), SYNC)],
    "a portal after Sync in a transaction": [
        step(query("BEGIN")), step(parse("", "SELECT id FROM t ORDER BY id"), bind("c", ""), execute("c", 1), SYNC),
        step(execute("c", 1), SYNC), step(query("SELECT 1")), step(execute("c", 1), close("P", "c"), SYNC),
        step(execute("c", 1), SYNC), step(query("ROLLBACK"))],
    "a portal after COMMIT": [
        step(query("BEGIN")), step(parse("", "SELECT id FROM t ORDER BY id"), bind("c", ""), execute("c", 1), SYNC),
        step(query("COMMIT")), step(execute("c", 1), SYNC)],
    "a portal after ROLLBACK TO": [
        step(query("BEGIN")), step(query("SAVEPOINT a")),
        step(parse("", "SELECT id FROM t ORDER BY id"), bind("c", ""), execute("c", 1), SYNC),
        step(query("ROLLBACK TO a")), step(execute("c", 1), SYNC), step(query("ROLLBACK"))],
    "FETCH of a portal": [
        step(query("BEGIN")), step(parse("", "SELECT id FROM t ORDER BY id"), bind("c", ""), SYNC),
        step(query("FETCH 2 FROM c")), step(execute("c", 1), SYNC), step(query("COMMIT"))],
    "a cursor's portal": [
        step(query("BEGIN")), step(query("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id")),
        step(describe("P", "c"), execute("c", 2), SYNC), step(close("P", "c"), SYNC), step(query("FETCH c")),
        step(query("ROLLBACK"))],
    "Flush": [quiet(parse("", "SELECT 5"), FLUSH), quiet(bind("", ""), describe("P", ""), FLUSH),
              quiet(execute(), FLUSH), quiet(FLUSH), step(SYNC)],
    "Flush and an error": [quiet(run("SELECT 1/0"), FLUSH), quiet(run("SELECT 1"), FLUSH), step(SYNC),
                           step(run("SELECT 1"), SYNC)],
    "an error in a long pipeline": [step(run("SELECT 1/0"), *[run("SELECT repeat('x', 1000)")] * 40, SYNC,
                                         run("SELECT 2"), SYNC)],
    "Flush of nothing": [quiet(FLUSH), step(SYNC), step(query("SELECT 1"))],
    "a pipeline with Flushes": [quiet(run("SELECT 1"), FLUSH), quiet(run("SELECT 2"), FLUSH), step(SYNC)],
    "binary results": [step(parse("", "SELECT 1::int8, 'x'::text, NULL::int"), bind("", "", results=[1]), execute(),
                            SYNC)],
    # ---- transactions in pipelines ----
    "BEGIN in a pipeline": [step(run("BEGIN"), run("INSERT INTO t VALUES (80)"), run("COMMIT"), SYNC),
                            step(run("SELECT count(*) FROM t WHERE id = 80"), SYNC)],
    "BEGIN over Syncs": [step(run("BEGIN"), SYNC), step(run("INSERT INTO t VALUES (81)"), SYNC),
                         step(run("ROLLBACK"), SYNC), step(run("SELECT count(*) FROM t WHERE id = 81"), SYNC)],
    "BEGIN behind a statement": [step(run("SELECT 1"), run("BEGIN"), run("SELECT 2"), SYNC), step(run("COMMIT"), SYNC)],
    "an error behind BEGIN": [step(run("BEGIN"), run("SELECT 1/0"), run("COMMIT"), SYNC), step(run("SELECT 1"), SYNC),
                              step(run("COMMIT"), SYNC)],
    "COMMIT in a pipeline": [step(run("INSERT INTO t VALUES (82)"), run("COMMIT"), run("SELECT 1/0"), SYNC),
                             step(query("SELECT count(*) FROM t WHERE id = 82"))],
    "COMMIT and more in a pipeline": [step(run("BEGIN"), run("INSERT INTO t VALUES (83)"), run("COMMIT"),
                                           run("INSERT INTO t VALUES (84)"), run("SELECT 1/0"), SYNC),
                                      step(query("SELECT id FROM t WHERE id IN (83, 84)"))],
    "savepoints in a pipeline": [step(run("BEGIN"), run("SAVEPOINT a"), run("INSERT INTO t VALUES (85)"),
                                      run("ROLLBACK TO a"), run("COMMIT"), SYNC),
                                 step(query("SELECT count(*) FROM t WHERE id = 85"))],
    "ROLLBACK TO out of a failure": [step(run("BEGIN"), run("SAVEPOINT a"), SYNC), step(run("SELECT 1/0"), SYNC),
                                     step(run("SELECT 1"), SYNC), step(run("ROLLBACK TO a"), SYNC),
                                     step(run("SELECT 1"), SYNC), step(run("COMMIT"), SYNC)],
    "two transactions in a pipeline": [step(run("BEGIN"), run("SELECT 1"), run("COMMIT"), run("BEGIN"),
                                            run("SELECT 2"), run("ROLLBACK"), SYNC)],
    "prepared BEGIN and COMMIT": [step(parse("b", "BEGIN"), parse("c", "COMMIT"), parse("s", "SELECT 1"), SYNC),
                                  step(bind("", "b"), execute(), bind("", "s"), execute(), bind("", "c"), execute(),
                                       SYNC), step(describe("S", "b"), describe("S", "c"), SYNC)],
    "SET in a pipeline": [step(run("SET timezone = 'Asia/Tokyo'"), run("SHOW timezone"), SYNC),
                          step(query("SHOW timezone"))],
    "SET and an error in a pipeline": [step(run("SET timezone = 'Asia/Tokyo'"), run("SELECT 1/0"), SYNC),
                                       step(query("SHOW timezone"))],
    "SET LOCAL in a pipeline": [step(run("SET LOCAL work_mem = '3MB'"), run("SHOW work_mem"), SYNC),
                                step(query("SHOW work_mem"))],
    "warnings in a pipeline": [step(run("COMMIT"), run("SELECT 1"), SYNC)],
    # ---- mixtures ----
    "a query behind Parse": [step(parse("", "SELECT 5"), bind("", ""), query("SELECT 6"), SYNC)],
    "a query in an open pipeline": [step(run("SELECT 5"), query("SELECT 6"), SYNC), step(query("SELECT 7"))],
    "a query in an open pipeline, then more": [step(run("SELECT 5"), query("SELECT 6"), run("SELECT 7"), SYNC)],
    "a query behind Flush": [quiet(run("SELECT 5"), FLUSH), step(query("SELECT 6")), step(query("SELECT 7"))],
    "a query in a failed pipeline": [step(run("SELECT 1/0"), SYNC, query("SELECT 6"))],
    "a query that is skipped": [rounds(1, run("SELECT 1/0"), query("SELECT 6"), SYNC), step(query("SELECT 7"))],
    "Terminate behind Sync": [step(run("SELECT 1"), SYNC, TERMINATE), quiet()],
    "Terminate in a pipeline": [quiet(parse("", "SELECT 1"), TERMINATE)],
    "an unknown message": [quiet(message(b"y", b"what"))],
    # ---- COPY ----
    "COPY TO": [step(query("COPY (SELECT id FROM t ORDER BY id) TO STDOUT")),
                step(parse("", "COPY (SELECT 1) TO STDOUT"), bind("", ""), describe("P", ""), execute(), SYNC)],
    "COPY TO in the middle": [step(query("SELECT 1; COPY (SELECT 2) TO STDOUT; SELECT 3"))],
    "COPY TO that fails": [step(query("COPY (SELECT 1 / (3 - g) FROM generate_series(1, 5) g) TO STDOUT"))],
    "COPY FROM": [quiet(query("COPY t FROM STDIN")), rounds(1, copy_data(b"100\tx\n101\t\\N\n"), COPY_DONE),
                  step(query("SELECT * FROM t WHERE id >= 100"))],
    "COPY FROM in one packet": [rounds(2, query("COPY t FROM STDIN"), copy_data(b"100\tx\n"), COPY_DONE,
                                       query("SELECT * FROM t WHERE id >= 100"))],
    "COPY FROM, extended, in one packet": [rounds(2, parse("", "COPY t FROM STDIN"), bind("", ""), execute(),
                                                  copy_data(b"100\tx\n"), COPY_DONE, SYNC,
                                                  query("SELECT * FROM t WHERE id >= 100"))],
    "COPY FROM refused, extended, in one packet": [
        rounds(2, parse("", "COPY nothing_there FROM STDIN"), bind("", ""), execute(), copy_data(b"100\tx\n"),
               COPY_DONE, SYNC, query("SELECT 1"))],
    "COPY data for no COPY": [rounds(1, run("SELECT 1"), copy_data(b"x"), COPY_DONE, run("SELECT 2"), SYNC)],
    "COPY FROM that fails": [quiet(query("COPY t FROM STDIN")), rounds(1, copy_data(b"nonsense\n"), COPY_DONE),
                             step(query("SELECT count(*) FROM t"))],
    "COPY FROM given up": [quiet(query("COPY t FROM STDIN")), rounds(1, copy_data(b"102\tx\n"), COPY_FAIL),
                           step(query("SELECT 1"))],
    "COPY FROM, extended": [quiet(parse("", "COPY t FROM STDIN"), bind("", ""), execute(), FLUSH),
                            rounds(1, copy_data(b"103\tx\n"), COPY_DONE, SYNC)],
    "COPY FROM, a Sync ahead": [quiet(parse("", "COPY t FROM STDIN"), bind("", ""), execute(), SYNC),
                                rounds(1, copy_data(b"104\tx\n"), COPY_DONE, SYNC), step(query("SELECT 1"))],
    "COPY FROM, extended, fails": [quiet(parse("", "COPY t FROM STDIN"), bind("", ""), execute(), FLUSH),
                                   rounds(1, copy_data(b"nonsense\n"), COPY_DONE, SYNC), step(query("SELECT 1"))],
    "COPY FROM in a transaction": [step(query("BEGIN")), quiet(query("COPY t FROM STDIN")),
                                   rounds(1, copy_data(b"105\tx\n"), COPY_DONE), step(query("ROLLBACK"))],
    "COPY FROM refused": [step(query("COPY nothing_there FROM STDIN")),
                          rounds(1, copy_data(b"106\tx\n"), COPY_DONE, query("SELECT 1"))],
    "COPY FROM between statements": [quiet(query("SELECT 1; COPY t FROM STDIN; SELECT 2")),
                                     rounds(1, copy_data(b"107\tx\n"), COPY_DONE)],
    "a query while copying": [quiet(query("COPY t FROM STDIN")), rounds(1, copy_data(b"108\tx\n"), query("SELECT 1")),
                              step(query("SELECT 2"))],
    "Flush and Sync while copying": [quiet(query("COPY t FROM STDIN")),
                                     rounds(1, copy_data(b"109\tx\n"), FLUSH, SYNC, copy_data(b"110\tx\n"), COPY_DONE)],
    "Terminate while copying": [quiet(query("COPY t FROM STDIN")), quiet(copy_data(b"111\tx\n"), TERMINATE)],
    "leftovers of a COPY": [rounds(1, COPY_DONE, copy_data(b"x"), COPY_FAIL, query("SELECT 1"))],
}

# In a database of several shards a pipeline is made a block, so that it can end on all of them alike: then
# Postgres does not warn of what only makes sense in one.
NO_WARNING_IN_PIPELINES = ("COMMIT in a pipeline", "SET LOCAL in a pipeline")

SETUP = """
DROP TABLE IF EXISTS child; DROP TABLE IF EXISTS t;
CREATE TABLE t (id int PRIMARY KEY, body text);
CREATE TABLE child (id int, t int REFERENCES t DEFERRABLE INITIALLY DEFERRED)
"""


def comparable(kind, body, own_pid=None):
    if kind == "A":
        return kind, struct.unpack("!I", body[:4])[0] == own_pid, body[4:]
    if kind not in "EN":
        return kind, body
    return kind, {name: text for name, text in fields(body).items() if name not in OF_THE_SERVER}


def answers(raw, part, expected=None):
    """What comes for one step; ("closed",) for the end of the connection."""
    raw.send(part)
    found, ready = [], 0
    wanted = part.count if isinstance(part, Rounds) else None
    raw.socket.settimeout(5 if expected is not None or wanted else 0.15)
    try:
        while (ready < wanted) if wanted is not None else (expected is None or len(found) < len(expected)):
            kind, body = raw.read()
            ready += kind == "Z"
            found.append(comparable(kind, body, raw.key[0]))
            if wanted is None and expected is None:
                raw.socket.settimeout(0.15)
    except EOFError:
        found.append(("closed",))
    except socket.timeout:
        if wanted is not None or expected is not None:
            found.append(("silence",))
    return found


def play(connection, sequence, expected=None):
    found = []
    for number, part in enumerate(sequence):
        before = expected[number] if expected else None
        found.append(answers(connection, part, before))
        if ("closed",) in found[-1]:
            break
    return found


@pytest.fixture(scope="module", params=["plain", "app"])
def database(request, cluster, proxy):
    """A database of one shard, and one of two: tables that are not sharded live on its first shard."""
    for part in SETUP.split(";"):
        proxy.sql(part, dbname=request.param)
    cluster.sync()
    yield request.param
    proxy.sql("DROP TABLE child", dbname=request.param)
    proxy.sql("DROP TABLE t", dbname=request.param)


def fill(cluster, database):
    cluster.shards[0].primary.sql("DELETE FROM child; DELETE FROM t; "
                                  "INSERT INTO t SELECT g, 'row ' || g FROM generate_series(1, 5) g", dbname=database)
    cluster.sync()


@pytest.mark.parametrize("name", SEQUENCES)
def test_same_answers(cluster, proxy, database, name):
    server = Direct(cluster.shards[0].primary)
    fill(cluster, database)
    with Raw(server, database=database) as raw:
        expected = play(raw, SEQUENCES[name])
    if database == "app" and name in NO_WARNING_IN_PIPELINES:
        expected = [[item for item in part if item[0] != "N"] for part in expected]
    assert not any(("silence",) in part for part in expected), f"the sequence itself hangs: {expected}"
    fill(cluster, database)
    with Raw(proxy, database=database) as raw:
        assert play(raw, SEQUENCES[name], expected) == expected
        if ("closed",) not in expected[-1]:
            assert answers(raw, step(query("SELECT 'alive'")))[-1][0] == "Z"
