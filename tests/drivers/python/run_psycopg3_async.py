"""psycopg 3 with asyncio: as the blocking one, many clients in one thread."""
import asyncio

import psycopg
from psycopg import errors as pg

from cases import (CLIENTS, DATABASE, HOST, PASSWORD, PORT, ROUNDS, SHARDED, TABLE, USER, VALUES, case, main,
                   raises_async)


def connect(database=DATABASE, autocommit=True, **more):
    options = {"password": PASSWORD, **more}
    return psycopg.AsyncConnection.connect(host=HOST, port=PORT, user=USER, dbname=database, connect_timeout=20,
                                           autocommit=autocommit, **options)


async def fetch(c, sql, values=None, binary=False):
    cursor = await c.cursor(binary=binary).execute(sql, values)
    return await cursor.fetchall() if cursor.description else cursor.rowcount


@case
async def connect_():
    async with await connect() as c:
        assert await fetch(c, "SELECT 1") == [(1,)]
    error = await raises_async(psycopg.OperationalError, connect(password="no"))
    assert "password authentication failed" in str(error)


@case
async def types():
    async with await connect() as c:
        for name, value in VALUES:
            for binary in (False, True):
                assert await fetch(c, f"SELECT %s::{name}", (value,), binary) == [(value,)], name


@case
async def prepared():
    async with await connect(prepare_threshold=2) as a, await connect(prepare_threshold=2) as b:
        for turn in range(12):
            for c in (a, b):
                await c.execute("BEGIN")
            for c, text in ((a, "a"), (b, "b")):
                assert await fetch(c, "SELECT %s::int8 * 2, %s::text", (turn, text)) == [(turn * 2, text)]
            for c in ((a, b) if turn % 2 else (b, a)):
                await c.execute("COMMIT")


@case
async def transactions():
    async with await connect(autocommit=False) as c:
        await c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, 'kept')")
        await c.commit()
        await raises_async(pg.UniqueViolation, c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, 'twice')"))
        await raises_async(pg.InFailedSqlTransaction, c.execute("SELECT 1"))
        await c.rollback()
        async with c.transaction():
            await raises_async(pg.DivisionByZero, nested(c))
            assert await fetch(c, f"DELETE FROM {TABLE}") == 1


async def nested(c):
    async with c.transaction():
        await c.execute("SELECT 1 / 0")


@case
async def batch():
    async with await connect() as c:
        async with c.pipeline():
            found = [await c.execute("SELECT %s::int8", (number,)) for number in range(100)]
        assert [await one.fetchone() for one in found] == [(number,) for number in range(100)]


@case
async def copy():
    async with await connect() as c:
        async with c.cursor().copy(f"COPY {TABLE} FROM STDIN") as copy:
            for n in range(1000):
                await copy.write_row((n, 1, f"line {n}"))
        assert await fetch(c, f"DELETE FROM {TABLE}") == 1000


@case
async def cancel():
    async with await connect() as c:
        task = asyncio.create_task(c.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.3)
        c.cancel()
        await raises_async(pg.QueryCanceled, task)
        assert await fetch(c, "SELECT 1") == [(1,)]


@case
async def errors():
    async with await connect() as c:
        error = await raises_async(pg.UndefinedTable, c.execute("SELECT * FROM missing_table"))
        assert error.sqlstate == "42P01"
        await raises_async(pg.DivisionByZero, c.execute("SELECT 1 / %s", (0,)))
        assert await fetch(c, "SELECT 1") == [(1,)]


@case
async def many():
    async def work(who):
        async with await connect(autocommit=False, prepare_threshold=3) as c:
            for turn in range(ROUNDS):
                key, body = who * 1000 + turn, f"{who} {turn}"
                await c.execute(f"INSERT INTO {TABLE} VALUES (%s, %s, %s)", (key, who, body))
                assert await fetch(c, f"SELECT body FROM {TABLE} WHERE id = %s", (key,)) == [(body,)]
                await c.commit()

    await asyncio.gather(*map(work, range(CLIENTS)))


@case
async def sharded():
    async with await connect(SHARDED, prepare_threshold=3) as c:
        for number in range(1, 21):
            assert await fetch(c, "SELECT name FROM users WHERE id = %s", (number,)) == [(f"user {number:04d}",)]
        assert await fetch(c, "SELECT count(*) FROM users") == [(200,)]


main()
