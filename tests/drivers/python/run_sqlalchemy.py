"""SQLAlchemy (core and ORM) over psycopg2, and its asyncio side over asyncpg with its own prepared statements."""
import asyncio
import datetime
import decimal
import io
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, declarative_base, relationship, selectinload

from cases import (CLIENTS, DATABASE, HOST, JSON, PASSWORD, PORT, ROUNDS, SHARDED, TABLE, USER, case, main, raises)

Base = declarative_base()


def url(driver="psycopg2", database=DATABASE, password=PASSWORD):
    return sa.engine.URL.create("postgresql+" + driver, USER, password, HOST, PORT, database)


def engine(**more):
    return sa.create_engine(url(), pool_size=1, **more)


class Row(Base):
    __tablename__ = TABLE
    id = sa.Column(sa.BigInteger, primary_key=True)
    who = sa.Column(sa.Integer)
    body = sa.Column(sa.Text)


class Author(Base):
    __tablename__ = "sa_authors"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, nullable=False, unique=True)
    books = relationship("Book", back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "sa_books"
    id = sa.Column(sa.Integer, primary_key=True)
    title = sa.Column(sa.Text)
    author_id = sa.Column(sa.ForeignKey("sa_authors.id"))
    author = relationship("Author", back_populates="books")


@case
def connect_():
    with engine(connect_args={"application_name": "matrix"}).connect() as c:
        assert c.scalar(sa.text("SHOW application_name")) == "matrix"
        assert c.dialect.server_version_info >= (13,)
    refused = sa.create_engine(url(password="wrong"))
    assert "password authentication failed" in str(raises(exc.OperationalError, refused.connect))


@case
def types():
    values = [(sa.Integer, 2147483647), (sa.BigInteger, -9007199254740993), (sa.Numeric, decimal.Decimal("1234567.891")),
              (sa.Text, "Grüße 🐘 'x' \\"), (sa.LargeBinary, b"\0\1\xff"), (sa.Boolean, True),
              (sa.DateTime(timezone=True), datetime.datetime(2026, 2, 3, 4, 5, 6, 789012, datetime.timezone.utc)),
              (pg.UUID(as_uuid=True), uuid.UUID("123e4567-e89b-12d3-a456-426614174000")), (pg.JSONB, JSON),
              (pg.ARRAY(sa.Integer), [1, None, 3]), (sa.Text, None)]
    with engine().connect() as c:
        for kind, value in values:
            found = c.scalar(sa.select(sa.cast(sa.bindparam("v", value, kind), kind)))
            assert (bytes(found) if isinstance(found, memoryview) else found) == value, kind


@case
def prepared():
    """asyncpg under SQLAlchemy prepares every statement by itself and keeps up to 100."""
    async def work():
        one = create_async_engine(url("asyncpg"), pool_size=2)
        async with one.connect() as a, one.connect() as b:
            for turn in range(12):
                for c, text in ((a, "a"), (b, "b")):
                    found = await c.execute(sa.text(f"SELECT '{text}', CAST(:n AS int)"), {"n": turn})
                    assert tuple(found.one()) == (text, turn)
                for c in ((a, b) if turn % 2 else (b, a)):
                    await c.commit()
        await one.dispose()

    asyncio.run(work())


@case
def transactions():
    rows = Row.__table__
    with engine().connect() as c:
        with c.begin():
            c.execute(rows.insert(), {"id": 1, "who": 1, "body": "kept"})
            with c.begin_nested() as nested:
                raises(exc.IntegrityError, c.execute, rows.insert(), {"id": 1, "who": 1, "body": "twice"})
                nested.rollback()
        with c.begin() as transaction:
            c.execute(rows.update().values(body="gone"))
            transaction.rollback()
        assert c.scalar(sa.select(rows.c.body)) == "kept"
        assert c.execute(rows.delete()).rowcount == 1
    with engine(isolation_level="SERIALIZABLE").connect() as c:
        assert c.scalar(sa.text("SHOW transaction_isolation")) == "serializable"


@case
def errors():
    with engine(isolation_level="AUTOCOMMIT").connect() as c:
        error = raises(exc.ProgrammingError, c.execute, sa.text("SELECT * FROM missing_table"))
        assert error.orig.pgcode == "42P01"
        error = raises(exc.DataError, c.execute, sa.text("SELECT 1 / :n"), {"n": 0})
        assert error.orig.pgcode == "22012"
        raises(exc.IntegrityError, c.execute, Row.__table__.insert(), {"id": 1, "body": "refused"})
        assert c.scalar(sa.text("SELECT 1")) == 1


@case
def batch():
    rows = [{"id": n, "who": 1, "body": str(n)} for n in range(2500)]
    one = engine(executemany_mode="values_plus_batch")
    with one.begin() as c:
        c.execute(Row.__table__.insert(), rows)
        assert c.scalar(sa.select(sa.func.count()).select_from(Row)) == 2500
        assert c.execute(sa.delete(Row)).rowcount == 2500


@case
def cursor():
    with engine().connect() as c:
        found = c.execution_options(stream_results=True, max_row_buffer=100).execute(
            sa.text("SELECT n FROM generate_series(1, 1000) AS n"))
        assert [row[0] for row in found] == list(range(1, 1001))


@case
def copy():
    """Of the driver beneath, on a connection of the engine's pool."""
    raw = engine().raw_connection()
    with raw.cursor() as cursor:
        cursor.copy_expert(f"COPY {TABLE} FROM STDIN", io.StringIO("".join(f"{n}\t1\tline {n}\n" for n in range(3000))))
        raw.commit()
        out = io.StringIO()
        cursor.copy_expert(f"COPY (SELECT id, body FROM {TABLE} ORDER BY id) TO STDOUT WITH (FORMAT csv)", out)
        assert out.getvalue() == "".join(f"{n},line {n}\n" for n in range(3000))
        cursor.execute(f"DELETE FROM {TABLE}")
        assert cursor.rowcount == 3000
    raw.commit()
    raw.close()


@case
def cancel():
    """psycopg2's cancel; and a task that is given up, for which asyncpg sends one."""
    with engine().connect() as c:
        timer = threading.Timer(0.3, c.connection.cancel)
        timer.start()
        error = raises(exc.OperationalError, c.execute, sa.text("SELECT pg_sleep(30)"))
        assert error.orig.pgcode == "57014"
        timer.join()
        c.rollback() if hasattr(c, "rollback") else None
        assert c.scalar(sa.text("SELECT 1")) == 1

    async def work():
        one = create_async_engine(url("asyncpg"), pool_size=1)
        try:
            async with one.connect() as c:
                await asyncio.wait_for(c.execute(sa.text(f"SELECT pg_sleep(30) /* {TABLE} given up */")), 0.3)
            raise AssertionError("slept to its end")
        except asyncio.TimeoutError:
            pass
        async with one.connect() as c:
            query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE :q"
                            " AND pid <> pg_backend_pid()")
            for _ in range(100):
                if not await c.scalar(query, {"q": f"SELECT pg_sleep(30) /* {TABLE} given up */"}):
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("it sleeps on")
        await one.dispose()

    asyncio.run(work())


@case
def orm():
    one = engine()
    tables = [Author.__table__, Book.__table__]
    Base.metadata.create_all(one, tables)
    try:
        with Session(one) as session:
            session.add_all(Author(name=f"author {n}", books=[Book(title=f"book {n} {m}") for m in range(3)])
                            for n in range(10))
            session.commit()
            author = session.scalars(sa.select(Author).options(selectinload(Author.books)).filter_by(
                name="author 4")).one()
            assert sorted(book.title for book in author.books) == ["book 4 0", "book 4 1", "book 4 2"]
            author.name = "renamed"
            session.delete(author.books[0])
            session.flush()
            session.rollback()
            assert session.scalar(sa.select(sa.func.count()).select_from(Book).join(Author).where(
                Author.name == "author 4")) == 3
        columns = {column["name"]: column for column in sa.inspect(one).get_columns("sa_books")}
        assert set(columns) == {"id", "title", "author_id"}
        assert sa.inspect(one).get_foreign_keys("sa_books")[0]["referred_table"] == "sa_authors"
    finally:
        Base.metadata.drop_all(one, tables)


@case
def many():
    one = sa.create_engine(url(), pool_size=CLIENTS)

    def work(who):
        for turn in range(ROUNDS):
            with Session(one) as session:
                session.add(Row(id=who * 1000 + turn, who=who, body=f"{who} {turn}"))
                session.flush()
                session.expire_all()
                assert session.get(Row, who * 1000 + turn).body == f"{who} {turn}"
                session.commit()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))


@case
def sharded():
    users = sa.table("users", sa.column("id"), sa.column("name"))
    with sa.create_engine(url(database=SHARDED), isolation_level="AUTOCOMMIT").connect() as c:
        for number in range(1, 21):
            assert c.scalar(sa.select(users.c.name).where(users.c.id == number)) == f"user {number:04d}"
        found = c.execute(sa.select(users.c.id).order_by(users.c.id.desc()).limit(2))
        assert found.scalars().all() == [200, 199]
        c.execute(users.insert().values([{"id": 501, "name": "a"}, {"id": 502, "name": "b"}]))
        assert c.execute(users.delete().where(users.c.id > 500)).rowcount == 2


main()
