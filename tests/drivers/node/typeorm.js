// TypeORM: entities (as schemas), relations, synchronize, query runners, streams; over node-postgres.
"use strict";

require("reflect-metadata");
const { DataSource, EntitySchema } = require("typeorm");
const { CLIENTS, ROUNDS, assert, bytes, cancel, config, env, json, main, numbers, sleep, table, text, time, userName,
  uuid } = require("./cases");

const Row = new EntitySchema({ name: "Row", tableName: table, columns: {
  id: { type: "bigint", primary: true }, who: { type: "int", nullable: true }, body: { type: "text", nullable: true } } });
const User = new EntitySchema({ name: "User", tableName: "users", columns: {
  id: { type: "bigint", primary: true }, name: { type: "text" } } });
const Author = new EntitySchema({ name: "Author", tableName: "typeorm_authors", columns: {
  id: { type: "int", primary: true, generated: true }, name: { type: "text", unique: true } },
relations: { books: { type: "one-to-many", target: "Book", inverseSide: "author", cascade: true } } });
const Book = new EntitySchema({ name: "Book", tableName: "typeorm_books", columns: {
  id: { type: "int", primary: true, generated: true }, title: { type: "text" } },
relations: { author: { type: "many-to-one", target: "Author", inverseSide: "books" } } });
const Thing = new EntitySchema({ name: "Thing", tableName: "typeorm_things", columns: {
  id: { type: "int", primary: true }, number: { type: "bigint" }, exact: { type: "numeric", precision: 30, scale: 9 },
  text: { type: "text" }, bytes: { type: "bytea" }, yes: { type: "bool" }, at: { type: "timestamptz" },
  key: { type: "uuid" }, json: { type: "jsonb" }, array: { type: "int", array: true },
  nothing: { type: "text", nullable: true } } });

// A pool of one connection: reads see what it wrote, as read-your-writes is kept for each client connection.
async function withClient(work, options = {}, entities = [Row], max = 1) {
  const { user, ...rest } = config();
  const db = new DataSource({ type: "postgres", username: user, entities, poolSize: max, installExtensions: false,
    ...rest, ...options });
  await db.initialize();
  try {
    return await work(db);
  } finally {
    await db.destroy();
  }
}

main({
  async connect() {
    await withClient(async (db) => {
      assert.deepEqual(await db.query("SHOW application_name"), [{ application_name: "matrix" }]);
    }, { applicationName: "matrix" });
    await assert.rejects(withClient(() => {}, { password: "wrong" }), { code: "28P01" });
  },

  async types() {
    await withClient(async (db) => {
      await db.synchronize();
      const given = { id: 1, number: "-9007199254740993", exact: "12345678901234567890.123456789", text, bytes, yes: true,
        at: time, key: uuid, json, array: [1, 2, 3], nothing: null };
      const things = db.getRepository(Thing);
      await things.insert(given);
      assert.deepEqual({ ...await things.findOneBy({ id: 1 }) }, given);
    }, {}, [Thing]).finally(() => withClient((db) => db.query("DROP TABLE IF EXISTS typeorm_things")));
  },

  async prepared() {
    await withClient((a) => withClient(async (b) => {
      for (let turn = 0; turn < 20; turn++) {
        const ask = (db, letter) => db.transaction(async (tx) =>
          (await tx.query(`SELECT '${letter}' || $1::int AS v`, [turn]))[0].v);
        assert.deepEqual(await Promise.all([ask(a, "a"), ask(b, "b")]), ["a" + turn, "b" + turn]);
      }
    }));
  },

  async transactions() {
    await withClient(async (db) => {
      await db.transaction(async (tx) => {
        await tx.insert(Row, { id: 1, who: 1, body: "kept" });
        await assert.rejects(tx.transaction((inner) => inner.insert(Row, { id: 1, body: "twice" })), { code: "23505" });
      });
      await assert.rejects(db.transaction(async (tx) => {
        await tx.update(Row, { id: 1 }, { body: "gone" });
        throw new Error("undone");
      }), /undone/);
      assert.equal((await db.getRepository(Row).findOneBy({ id: 1 })).body, "kept");
      assert.equal((await db.getRepository(Row).delete({ id: 1 })).affected, 1);
      await db.transaction("SERIALIZABLE", async (tx) => {
        assert.equal((await tx.query("SHOW transaction_isolation"))[0].transaction_isolation, "serializable");
      });
    });
  },

  async errors() {
    await withClient(async (db) => {
      await assert.rejects(db.query("SELECT * FROM missing_table"), { code: "42P01" });
      await assert.rejects(db.query("SELECT 1 / $1::int", [0]), { code: "22012" });
      await assert.rejects(db.getRepository(Row).insert({ id: 1, body: "refused" }), { code: "23514" });
      assert.deepEqual(await db.query("SELECT 1 AS one"), [{ one: 1 }]);
    });
  },

  async cursor() {
    await withClient(async (db) => {
      await db.getRepository(Row).insert(numbers(1000).map((id) => ({ id, who: 1, body: String(id) })));
      const found = [];
      for await (const row of await db.getRepository(Row).createQueryBuilder("r").orderBy("r.id").stream()) {
        found.push(Number(row.r_id));
      }
      assert.deepEqual(found, numbers(1000));
      await db.getRepository(Row).createQueryBuilder().delete().execute();
    });
  },

  async cancel() {
    await withClient(async (db) => {
      const runner = db.createQueryRunner();
      const client = await runner.connect();
      const ended = assert.rejects(runner.query("SELECT pg_sleep(30)"), { code: "57014" });
      await sleep(300);
      await cancel(client);
      await ended;
      assert.deepEqual(await runner.query("SELECT 1 AS one"), [{ one: 1 }]);
      await runner.release();
    });
  },

  async orm() {
    await withClient(async (db) => {
      await db.synchronize();
      try {
        const authors = db.getRepository(Author);
        for (const n of numbers(5)) {
          await authors.save({ name: "author " + n, books: [{ title: "x" }, { title: "y" }] });
        }
        const author = await authors.findOne({ where: { name: "author 3" }, relations: { books: true } });
        assert.deepEqual(author.books.map((book) => book.title).sort(), ["x", "y"]);
        const counted = await db.getRepository(Book).createQueryBuilder("b").innerJoin("b.author", "a")
          .where("a.name = :name", { name: "author 3" }).getCount();
        assert.equal(counted, 2);
        await db.synchronize(); // a second time: reads the schema back and finds nothing to do
      } finally {
        await db.query("DROP TABLE typeorm_books, typeorm_authors");
      }
    }, {}, [Author, Book]);
  },

  async many() {
    await withClient((db) => Promise.all(numbers(CLIENTS).map(async (who) => {
      for (let turn = 0; turn < ROUNDS; turn++) {
        const [id, body] = [who * 1000 + turn, `${who} ${turn}`];
        await db.transaction(async (tx) => {
          await tx.insert(Row, { id, who, body });
          assert.equal((await tx.findOneBy(Row, { id })).body, body);
        });
      }
    })), {}, [Row], CLIENTS);
  },

  async sharded() {
    await withClient(async (db) => {
      const users = db.getRepository(User);
      for (const id of numbers(20, 1)) {
        assert.equal((await users.findOneBy({ id })).name, userName(id));
      }
      const last = await users.find({ order: { id: "DESC" }, take: 2 });
      assert.deepEqual(last.map((user) => user.id), ["200", "199"]);
      await users.insert([{ id: 501, name: "a" }, { id: 502, name: "b" }]);
      assert.equal((await users.createQueryBuilder().delete().where("id > 500").execute()).affected, 2);
    }, { database: env("SHARDED") }, [User]);
  },
});
