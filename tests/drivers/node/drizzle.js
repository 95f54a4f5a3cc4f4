// Drizzle: over node-postgres and over postgres.js, prepared queries, relations, transactions with savepoints.
"use strict";

const pg = require("pg");
const postgres = require("postgres");
const { asc, desc, eq, gt, relations, sql } = require("drizzle-orm");
const overPg = require("drizzle-orm/node-postgres").drizzle;
const overPostgres = require("drizzle-orm/postgres-js").drizzle;
const { bigint, boolean, integer, jsonb, numeric, pgTable, serial, text: textColumn, timestamp,
  uuid: uuidColumn } = require("drizzle-orm/pg-core");
const { CLIENTS, ROUNDS, assert, cancel, config, env, json, main, numbers, sleep, table, text, time, userName,
  uuid } = require("./cases");

const rows = pgTable(table, { id: bigint({ mode: "number" }).primaryKey(), who: integer(), body: textColumn() });
const users = pgTable("users", { id: bigint({ mode: "number" }).primaryKey(), name: textColumn() });
const authors = pgTable("drizzle_authors", { id: serial().primaryKey(), name: textColumn() });
const books = pgTable("drizzle_books", { id: serial().primaryKey(), title: textColumn(), authorId: integer("author_id") });
const things = pgTable("drizzle_things", { id: integer(), number: bigint({ mode: "bigint" }), exact: numeric(),
  text: textColumn(), yes: boolean(), at: timestamp({ withTimezone: true }), key: uuidColumn(), json: jsonb(),
  array: integer().array(), nothing: textColumn() });
const schema = { rows, users, authors, books,
  authorsRelations: relations(authors, ({ many }) => ({ books: many(books) })),
  booksRelations: relations(books, ({ one }) => ({
    author: one(authors, { fields: [books.authorId], references: [authors.id] }) })) };

// A pool of one connection: reads see what it wrote, as read-your-writes is kept for each client connection.
async function withPg(work, options = {}) {
  const client = new pg.Pool({ ...config(), max: 1, ...options });
  try {
    return await work(overPg({ client, schema }));
  } finally {
    await client.end();
  }
}

async function withPostgres(work, options = {}) {
  const client = postgres({ ...config(), max: 1, onnotice: () => {}, ...options });
  try {
    return await work(overPostgres({ client, schema }));
  } finally {
    await client.end();
  }
}

const code = (state) => (error) => (error.cause || error).code === state;

main({
  async connect() {
    for (const withClient of [withPg, withPostgres]) {
      await withClient(async (db) => {
        const found = await db.execute(sql`SELECT 1 AS one`);
        assert.equal((found.rows ?? found)[0].one, 1);
      });
      await assert.rejects(withClient((db) => db.execute(sql`SELECT 1`), { password: "wrong" }), code("28P01"));
    }
  },

  async types() {
    await withPg((db) => db.execute(sql`CREATE TABLE drizzle_things (id int, number bigint, exact numeric, text text,
      yes bool, at timestamptz, key uuid, json jsonb, "array" int[], nothing text)`));
    const given = { id: 1, number: -9007199254740993n, exact: "12345678901234567890.123456789", text, yes: true, at: time,
      key: uuid, json, array: [1, 2, 3], nothing: null };
    for (const withClient of [withPg, withPostgres]) {
      await withClient(async (db) => {
        await db.insert(things).values(given);
        assert.deepEqual(await db.select().from(things), [given]);
        await db.delete(things);
      });
    }
    await withPg((db) => db.execute(sql`DROP TABLE drizzle_things`));
  },

  async prepared() {
    await withPg((a) => withPg(async (b) => {
      await a.insert(rows).values(numbers(20).map((id) => ({ id, who: 1, body: "row " + id })));
      const [byA, byB] = [a, b].map((db) => (tx) => tx.select().from(rows).where(eq(rows.id, sql.placeholder("id")))
        .prepare("mine"));
      for (let turn = 0; turn < 20; turn++) {
        const found = await Promise.all([
          a.transaction((tx) => byA(tx).execute({ id: turn })), b.transaction((tx) => byB(tx).execute({ id: 19 - turn }))]);
        assert.deepEqual(found.map(([row]) => row.body), ["row " + turn, "row " + (19 - turn)]);
      }
      await a.delete(rows);
    }));
  },

  async transactions() {
    for (const withClient of [withPg, withPostgres]) {
      await withClient(async (db) => {
        await db.transaction(async (tx) => {
          await tx.insert(rows).values({ id: 1, who: 1, body: "kept" });
          await assert.rejects(tx.transaction((inner) => inner.insert(rows).values({ id: 1 })), code("23505"));
        });
        await assert.rejects(db.transaction(async (tx) => {
          await tx.update(rows).set({ body: "gone" });
          tx.rollback();
        }));
        assert.equal((await db.select().from(rows))[0].body, "kept");
        assert.equal((await db.delete(rows).returning()).length, 1);
      });
    }
  },

  async errors() {
    await withPg(async (db) => {
      await assert.rejects(db.execute(sql`SELECT * FROM missing_table`), code("42P01"));
      await assert.rejects(db.execute(sql`SELECT 1 / ${0}::int`), code("22012"));
      await assert.rejects(db.insert(rows).values({ id: 1, body: "refused" }), code("23514"));
      assert.equal((await db.execute(sql`SELECT 1 AS one`)).rows[0].one, 1);
    });
  },

  async batch() {
    await withPostgres(async (db) => {
      await db.insert(rows).values(numbers(2500).map((id) => ({ id, who: 1, body: String(id) })));
      const found = await Promise.all(numbers(100).map((id) => db.select().from(rows).where(eq(rows.id, id))));
      assert.deepEqual(found.map(([row]) => row.id), numbers(100));
      assert.equal(await db.$count(rows), 2500);
      await db.delete(rows);
    });
  },

  async cancel() {
    await withPg(async (db) => {
      const client = await db.$client.connect();
      const one = overPg({ client, schema });
      const ended = assert.rejects(one.execute(sql`SELECT pg_sleep(30)`), (error) => error.cause.code === "57014");
      await sleep(300);
      await cancel(client);
      await ended;
      assert.deepEqual((await one.execute(sql`SELECT 1 AS one`)).rows, [{ one: 1 }]);
      client.release();
    });
  },

  async orm() {
    await withPg(async (db) => {
      await db.execute(sql`CREATE TABLE drizzle_authors (id serial PRIMARY KEY, name text)`);
      await db.execute(sql`CREATE TABLE drizzle_books (id serial PRIMARY KEY, title text, author_id int)`);
      const added = await db.insert(authors).values(numbers(5).map((n) => ({ name: "author " + n }))).returning();
      await db.insert(books).values(added.flatMap(({ id }) => [{ title: "x", authorId: id }, { title: "y", authorId: id }]));
      const author = await db.query.authors.findFirst({ where: eq(authors.name, "author 3"),
        with: { books: { orderBy: asc(books.title) } } });
      assert.deepEqual(author.books.map((book) => book.title), ["x", "y"]);
      const joined = await db.select().from(authors).innerJoin(books, eq(books.authorId, authors.id));
      assert.equal(joined.length, 10);
      await db.execute(sql`DROP TABLE drizzle_books, drizzle_authors`);
    });
  },

  async many() {
    await withPg((db) => Promise.all(numbers(CLIENTS).map(async (who) => {
      for (let turn = 0; turn < ROUNDS; turn++) {
        const [id, body] = [who * 1000 + turn, `${who} ${turn}`];
        await db.transaction(async (tx) => {
          await tx.insert(rows).values({ id, who, body });
          assert.equal((await tx.select().from(rows).where(eq(rows.id, id)))[0].body, body);
        });
      }
    })), { max: CLIENTS });
  },

  async sharded() {
    await withPostgres(async (db) => {
      for (const id of numbers(20, 1)) {
        assert.equal((await db.select().from(users).where(eq(users.id, id)))[0].name, userName(id));
      }
      const last = await db.select({ id: users.id }).from(users).orderBy(desc(users.id)).limit(2);
      assert.deepEqual(last, [{ id: 200 }, { id: 199 }]);
      await db.insert(users).values([{ id: 501, name: "a" }, { id: 502, name: "b" }]);
      assert.equal((await db.delete(users).where(gt(users.id, 500)).returning()).length, 2);
    }, { database: env("SHARDED") });
  },
});
