"""Function call messages: large objects by libpq's fast path, errors, transactions, shards."""
import os
import struct
from contextlib import closing

import psycopg2
import pytest
from harness import Proxy, wait_until
from support import SYNC, Raw, bind, error_of, execute, kinds, message, one, parse, query

pytestmark = pytest.mark.core


def call(oid, *values, result=1):
    """Arguments in binary; an int is an int4, a long (given as a tuple) an int8."""
    body = struct.pack("!IHHH", oid, 1, 1, len(values))
    for value in values:
        data = struct.pack("!i", value) if isinstance(value, int) else value
        body += struct.pack("!i", -1) if data is None else struct.pack("!i", len(data)) + data
    return message(b"F", body + struct.pack("!H", result))


def result(answers):
    """The value of the FunctionCallResponse."""
    body = dict(answers)["V"]
    length, = struct.unpack("!i", body[:4])
    assert length == len(body) - 4 or (length == -1 and len(body) == 4)
    return None if length < 0 else body[4:]


@pytest.fixture(scope="module")
def number(proxy):
    """pg_proc's numbers by signature, as Postgres has them."""
    return lambda signature: proxy.value(f"SELECT '{signature}'::regprocedure::oid::int", dbname="plain")


def test_numbers_of_functions_that_pin(number):
    """The table in function_call.c."""
    for signature, oid in [("pg_advisory_lock(bigint)", 2880), ("pg_advisory_lock_shared(bigint)", 2881),
                           ("pg_try_advisory_lock(bigint)", 2882), ("pg_try_advisory_lock_shared(bigint)", 2883),
                           ("pg_advisory_lock(int,int)", 2886), ("pg_advisory_lock_shared(int,int)", 2887),
                           ("pg_try_advisory_lock(int,int)", 2888), ("pg_try_advisory_lock_shared(int,int)", 2889),
                           ("setseed(float8)", 1599), ("set_config(text,text,bool)", 2078)]:
        assert number(signature) == oid


@pytest.mark.parametrize("database", ["plain", "app"])
def test_large_objects_with_psycopg2(proxy, cluster, database):
    with closing(proxy.connect(database, autocommit=False)) as connection:
        large = connection.lobject(0, "wb")
        data = os.urandom(300_000)
        assert large.write(data) == len(data)
        large.close()
        connection.commit()
        again = connection.lobject(large.oid, "rb")
        again.seek(100_000)
        assert again.read(50_000) == data[100_000:150_000] and again.tell() == 150_000
        again.seek(0)
        assert again.read() == data
        connection.rollback()
        # It is where a table without a key is.
        assert cluster.shards[0].primary.value("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = %s",
                                               (large.oid,), dbname=database) == 1
        connection.lobject(large.oid).unlink()
        connection.commit()
        with pytest.raises(psycopg2.Error):
            connection.lobject(large.oid, "rb")
        connection.rollback()


def test_psql_imports_and_exports(proxy, tmp_path):
    data = os.urandom(100_000)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)
    oid = proxy.psql("-c", f"\\lo_import {source} 'a note'", dbname="plain").stdout.split()[-1]
    proxy.psql("-c", f"\\lo_export {oid} {copy}", dbname="plain")
    assert copy.read_bytes() == data
    proxy.psql("-c", f"\\lo_unlink {oid}", dbname="plain")


@pytest.mark.parametrize("database", ["plain", "app"])
def test_calls_and_their_errors(proxy, number, database):
    abs4, div = number("abs(int)"), number("int4div(int,int)")
    with Raw(proxy, database=database) as raw:
        answers = raw.ask(call(abs4, -7))
        assert kinds(answers) == "VZ" and result(answers) == struct.pack("!i", 7)
        assert result(raw.ask(call(abs4, None))) is None  # strict
        for wrong, state in [(call(div, 1, 0), "22012"), (call(4294967, 1), "42883"), (call(abs4, b"xyz"), "08P01"),
                             (call(abs4), "08P01"), (message(b"F", b"\0"), "08P01"), (message(b"F", b""), "08P01")]:
            answers = raw.ask(wrong)
            assert kinds(answers) == "EZ" and error_of(answers)["C"] == state, answers
        assert result(raw.ask(call(div, 7, 2))) == struct.pack("!i", 3)


def test_calls_in_transactions(proxy, number):
    abs4, div = number("abs(int)"), number("int4div(int,int)")
    with Raw(proxy, database="plain") as raw:
        raw.ask(query("BEGIN"))
        assert raw.ask(call(abs4, -7))[-1] == ("Z", b"T")
        assert raw.ask(call(div, 1, 0))[-1] == ("Z", b"E")
        answers = raw.ask(call(abs4, -7))
        assert error_of(answers)["C"] == "25P02" and answers[-1] == ("Z", b"E")
        raw.ask(query("ROLLBACK"))
        raw.ask(query("BEGIN"))
        raw.ask(query("SET pgshunt.shard = 'none such'"))  # fails here: no server knows of it
        answers = raw.ask(call(abs4, -7))
        assert error_of(answers)["C"] == "25P02" and answers[-1] == ("Z", b"E")
        assert raw.ask(query("ROLLBACK"))[-1] == ("Z", b"I")


def test_calls_in_a_pipeline(proxy, number):
    abs4 = number("abs(int)")
    with Raw(proxy, database="plain") as raw:
        raw.send(call(abs4, -1), call(abs4, -2), query("SELECT 3"), call(abs4, -4),
                 parse("", "SELECT 5"), bind("", ""), execute(), SYNC, call(abs4, -6))
        found = [raw.until_ready() for _ in range(6)]
        assert [kinds(answers) for answers in found] == ["VZ", "VZ", "TDCZ", "VZ", "12DCZ", "VZ"]
        # Behind an error everything is skipped to the Sync.
        raw.send(parse("", "SELEKT"), call(abs4, -1), SYNC, call(abs4, -8))
        assert kinds(raw.until_ready()) == "EZ"
        assert result(raw.until_ready()) == struct.pack("!i", 8)


def test_a_large_value_is_not_kept(proxy, number):
    """lo_get by the fast path: 30 MB in one message, passed on as it comes."""
    put, get = number("lo_from_bytea(oid,bytea)"), number("lo_get(oid)")
    with Raw(proxy, database="plain") as raw:
        data = os.urandom(1 << 20) * 30
        oid = result(raw.ask(call(put, 0, data)))
        assert result(raw.ask(call(get, oid))) == data
        raw.ask(query(f"SELECT lo_unlink({struct.unpack('!I', oid)[0]})"))


def test_a_lock_keeps_the_server(cluster, number):
    lock, unlock = number("pg_advisory_lock(bigint)"), number("pg_advisory_unlock(bigint)")
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 3}}) as proxy:
        with Raw(proxy, database="plain") as raw, closing(proxy.connect("plain")) as other:
            assert kinds(raw.ask(call(lock, struct.pack("!q", 4711)))) == "VZ"
            for _ in range(5):
                assert one(other, "SELECT pg_try_advisory_lock(4711)") is False
            assert result(raw.ask(call(unlock, struct.pack("!q", 4711)))) == b"\1"
        wait_until(lambda: cluster.shards[0].primary.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
                   == 0, 10.0, "locks gone")


def test_calls_wait_for_a_server(cluster, number):
    abs4 = number("abs(int)")
    plain = {"name": "plain", "shards": [dict(cluster.shard_config()[0], dbname="plain")]}
    with Proxy(cluster, databases=[plain], options={"pool": {"size": 1}}) as proxy:
        with Raw(proxy, database="plain") as holder, Raw(proxy, database="plain") as raw:
            holder.ask(query("BEGIN"), )
            holder.ask(query("SELECT 1 FROM pg_class FOR UPDATE LIMIT 0"))
            raw.send(call(abs4, -9))
            wait_until(lambda: any(row["cl_waiting"] for row in proxy.show("POOLS")), 10.0, "a client waiting")
            holder.ask(query("COMMIT"))
            assert result(raw.until_ready()) == struct.pack("!i", 9)


def test_the_console_has_no_functions(proxy):
    with Raw(proxy, database="pgshunt") as raw:
        assert error_of(raw.ask(call(1)))["C"] == "0A000"
        assert kinds(raw.ask(query("SHOW VERSION"))).endswith("Z")
