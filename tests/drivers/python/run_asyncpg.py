"""asyncpg: everything prepared (statement_cache_size at its default), binary both ways, portals."""
import asyncio
import io
import json

import asyncpg

from cases import (CLIENTS, DATABASE, HOST, JSON, PASSWORD, PORT, ROUNDS, SHARDED, TABLE, USER, VALUES, case, main,
                   raises_async)


async def connect(database=DATABASE, **more):
    options = {"password": PASSWORD, **more}
    return await asyncpg.connect(host=HOST, port=PORT, user=USER, database=database, timeout=20, **options)


class client:
    def __init__(self, *args, **more):
        self.opening = connect(*args, **more)

    async def __aenter__(self):
        self.connection = await self.opening
        return self.connection

    async def __aexit__(self, *_):
        await self.connection.close()


def plain(records):
    return [tuple(record) for record in records]


@case
async def connect_():
    async with client(server_settings={"application_name": "matrix", "search_path": "pg_catalog"}) as c:
        assert await c.fetchrow("SELECT current_setting('application_name'), current_setting('search_path')") == \
            ("matrix", "pg_catalog")
    await raises_async(asyncpg.InvalidPasswordError, connect(password="no"))


@case
async def types():
    async with client() as c:
        for name, value in VALUES:
            assert await c.fetchval(f"SELECT $1::{name}", value) == value, name
        for name in ("json", "jsonb"):
            assert json.loads(await c.fetchval(f"SELECT $1::{name}", json.dumps(JSON))) == JSON
            await c.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
            assert await c.fetchval(f"SELECT $1::{name}", JSON) == JSON
        # A type that asyncpg does not know is looked up in the catalogs.
        assert await c.fetchval("SELECT ROW(1, 'x')") == (1, "x")
        assert (await c.fetchval("SELECT int4range(1, $1)", 5)).upper == 5


@case
async def prepared():
    async with client() as a, client() as b:
        statements = {c: await c.prepare("SELECT $1::int * 2, $2::text") for c in (a, b)}
        for turn in range(12):
            for c in (a, b):
                await c.execute("BEGIN")
            for c, text in ((a, "a"), (b, "b")):
                assert await statements[c].fetchrow(turn, text) == (turn * 2, text)
                assert await c.fetchrow(f"SELECT '{text}', $1::int", turn) == (text, turn)
            for c in ((a, b) if turn % 2 else (b, a)):
                await c.execute("COMMIT")
        assert [p.type.name for p in statements[a].get_attributes()] == ["int4", "text"]
        await a.reset()
        assert await a.fetchval("SELECT $1::int + 1", 1) == 2
    async with client(statement_cache_size=0) as c:
        for turn in range(5):
            assert await c.fetchval("SELECT $1::int + 1", turn) == turn + 1


@case
async def transactions():
    async with client() as c:
        async with c.transaction():
            await c.execute(f"INSERT INTO {TABLE} VALUES ($1, 1, 'kept')", 1)
            await raises_async(asyncpg.UniqueViolationError, nested(c))
        assert await c.fetchval(f"SELECT body FROM {TABLE} WHERE id = 1") == "kept"
        transaction = c.transaction(isolation="serializable", readonly=True)
        await transaction.start()
        await raises_async(asyncpg.ReadOnlySQLTransactionError, c.execute(f"DELETE FROM {TABLE}"))
        await raises_async(asyncpg.InFailedSQLTransactionError, c.fetchval("SELECT 1"))
        await transaction.rollback()
        assert await c.execute(f"DELETE FROM {TABLE}") == "DELETE 1"


async def nested(c):
    async with c.transaction():
        await c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, 'twice')")


@case
async def batch():
    async with client() as c:
        await c.executemany(f"INSERT INTO {TABLE} VALUES ($1, 1, $2)", [(n, str(n)) for n in range(500)])
        assert await c.fetchval(f"SELECT count(*) FROM {TABLE}") == 500
        await raises_async(asyncpg.CheckViolationError, c.executemany(
            f"INSERT INTO {TABLE} VALUES ($1, 1, $2)", [(1000, "good"), (1001, "refused"), (1002, "good")]))
        assert await c.execute(f"DELETE FROM {TABLE}") == "DELETE 500"


@case
async def copy():
    async with client() as c:
        rows = [(n, 1, f"line {n}") for n in range(3000)]
        assert await c.copy_records_to_table(TABLE, records=rows) == "COPY 3000"
        out = io.BytesIO()
        await c.copy_from_query(f"SELECT id FROM {TABLE} WHERE id < $1 ORDER BY id", 100, output=out, format="csv")
        assert out.getvalue() == b"".join(b"%d\n" % n for n in range(100))
        assert await c.execute(f"DELETE FROM {TABLE}") == "DELETE 3000"
        await raises_async(asyncpg.CheckViolationError, c.copy_records_to_table(TABLE, records=[(1, 1, "refused")]))
        assert await c.fetchval("SELECT 1") == 1


@case
async def cursor():
    async with client() as c:
        async with c.transaction():
            found = [row["n"] async for row in c.cursor("SELECT n FROM generate_series(1, $1) AS n", 1000, prefetch=70)]
            assert found == list(range(1, 1001))
            cursor = await c.cursor("SELECT n FROM generate_series(1, 100) AS n")
            assert plain(await cursor.fetch(3)) == [(1,), (2,), (3,)]
            await cursor.forward(10)
            assert await cursor.fetchrow() == (14,)


@case
async def cancel():
    async with client() as c:
        await raises_async(asyncio.TimeoutError, c.fetch("SELECT pg_sleep(30)", timeout=0.3))
        assert await c.fetchval("SELECT 1") == 1
        task = asyncio.create_task(c.fetch("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.3)
        task.cancel()
        await raises_async(asyncio.CancelledError, task)
        assert await c.fetchval("SELECT 2") == 2


@case
async def errors():
    async with client() as c:
        error = await raises_async(asyncpg.UndefinedTableError, c.fetch("SELECT * FROM missing_table"))
        assert error.sqlstate == "42P01" and error.position == "15"
        await raises_async(asyncpg.DivisionByZeroError, c.fetch("SELECT 1 / $1::int", 0))
        error = await raises_async(asyncpg.CheckViolationError,
                                   c.execute(f"INSERT INTO {TABLE} VALUES (1, 1, $1)", "refused"))
        assert error.constraint_name == TABLE + "_body_check"
        assert await c.fetchval("SELECT 1") == 1


@case
async def listen():
    async with client() as listener, client() as c:
        heard = asyncio.get_running_loop().create_future()
        await listener.add_listener(TABLE, lambda _c, _pid, channel, payload: heard.set_result((channel, payload)))
        await c.execute("SELECT pg_notify($1, 'hello')", TABLE)
        assert await asyncio.wait_for(heard, 20) == (TABLE, "hello")


@case
async def many():
    """Through asyncpg's own pool, which resets a connection each time it is given back."""
    async def work(who):
        for turn in range(ROUNDS):
            key, body = who * 1000 + turn, f"{who} {turn}"
            async with pool.acquire() as c, c.transaction():
                await c.execute(f"INSERT INTO {TABLE} VALUES ($1, $2, $3)", key, who, body)
                assert await c.fetchval(f"SELECT body FROM {TABLE} WHERE id = $1", key) == body

    async with asyncpg.create_pool(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE,
                                   min_size=CLIENTS, max_size=CLIENTS) as pool:
        await asyncio.gather(*map(work, range(CLIENTS)))


@case
async def sharded():
    async with client(SHARDED) as c:
        for number in range(1, 21):
            assert await c.fetchval("SELECT name FROM users WHERE id = $1", number) == f"user {number:04d}"
            assert plain(await c.fetch("SELECT id FROM users ORDER BY id DESC LIMIT $1", 2)) == [(200,), (199,)]
        rows = [(n, "many") for n in range(501, 521)]
        async with c.transaction():  # executemany() is one transaction, which is refused over several shards
            await c.executemany("INSERT INTO users (id, name) VALUES ($1, $2)", rows)
        assert await c.execute("DELETE FROM users WHERE id > $1", 500) == "DELETE 20"


main()
