// Prisma 7 with the driver adapter for node-postgres (no engine binary).
"use strict";

const { PrismaPg } = require("@prisma/adapter-pg");
const { PrismaClient, Prisma } = require("@prisma/client");
const { CLIENTS, ROUNDS, assert, bytes, config, env, json, main, numbers, table, text, time, userName,
  uuid } = require("./cases");

// A pool of one connection: reads see what it wrote, as read-your-writes is kept for each client connection.
async function withClient(work, options = {}) {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ ...config(), max: 1, ...options }) });
  try {
    return await work(prisma);
  } finally {
    await prisma.$disconnect();
  }
}

async function withTables(statements, tables, work) {
  await withClient(async (prisma) => {
    for (const statement of statements) {
      await prisma.$executeRawUnsafe(statement);
    }
    try {
      await work(prisma);
    } finally {
      await prisma.$executeRawUnsafe("DROP TABLE " + tables);
    }
  });
}

main({
  async connect() {
    await withClient(async (prisma) => {
      assert.deepEqual(await prisma.$queryRaw`SHOW application_name`, [{ application_name: "matrix" }]);
    }, { application_name: "matrix" });
    await assert.rejects(withClient((prisma) => prisma.$queryRaw`SELECT 1`, { password: "wrong" }),
      /authentication failed|28P01|credentials/i);
  },

  async types() {
    await withTables([`CREATE TABLE prisma_things (id int PRIMARY KEY, number bigint NOT NULL,
      exact numeric(30, 9) NOT NULL, text text NOT NULL, bytes bytea NOT NULL, yes bool NOT NULL,
      at timestamptz NOT NULL, key uuid NOT NULL, json jsonb NOT NULL, "array" int[], nothing text)`], "prisma_things",
    async (prisma) => {
      const given = { id: 1, number: -9007199254740993n, exact: new Prisma.Decimal("12345678901234567890.123456789"), text,
        bytes: new Uint8Array(bytes), yes: true, at: time, key: uuid, json, array: [1, 2, 3], nothing: null };
      await prisma.thing.create({ data: given });
      const found = await prisma.thing.findUnique({ where: { id: 1 } });
      assert.equal(found.exact.toString(), given.exact.toString());
      assert.deepEqual({ ...found, exact: 0, bytes: 0 }, { ...given, exact: 0, bytes: 0 });
      assert.deepEqual(Buffer.from(found.bytes), bytes);
    });
  },

  async prepared() {
    await withClient((a) => withClient(async (b) => {
      for (let turn = 0; turn < 12; turn++) {
        const found = await Promise.all([
          a.$transaction(async (tx) => (await tx.$queryRaw`SELECT 'a' || ${turn}::int AS v`)[0].v),
          b.$transaction(async (tx) => (await tx.$queryRaw`SELECT 'b' || ${turn}::int AS v`)[0].v)]);
        assert.deepEqual(found, ["a" + turn, "b" + turn]);
      }
    }));
  },

  async transactions() {
    await withClient(async (prisma) => {
      await prisma.row.create({ data: { id: 1n, who: 1, body: "kept" } });
      await assert.rejects(prisma.$transaction(async (tx) => {
        await tx.row.update({ where: { id: 1n }, data: { body: "gone" } });
        await tx.row.create({ data: { id: 1n, body: "twice" } });
      }), { code: "P2002" });
      assert.equal((await prisma.row.findUnique({ where: { id: 1n } })).body, "kept");
      await prisma.$transaction(async (tx) => {
        assert.equal((await tx.$queryRaw`SHOW transaction_isolation`)[0].transaction_isolation, "serializable");
        await tx.row.deleteMany();
      }, { isolationLevel: "Serializable" });
      assert.equal(await prisma.row.count(), 0);
    });
  },

  async errors() {
    await withClient(async (prisma) => {
      await assert.rejects(prisma.$queryRawUnsafe("SELECT * FROM missing_table"), /42P01/);
      await assert.rejects(prisma.$queryRaw`SELECT 1 / ${0}::int`, /22012/);
      await assert.rejects(prisma.row.create({ data: { id: 1n, body: "refused" } }), /23514|constraint/i);
      assert.deepEqual(await prisma.$queryRaw`SELECT 1 AS one`, [{ one: 1 }]);
    });
  },

  async batch() {
    await withClient(async (prisma) => {
      const data = numbers(2000).map((n) => ({ id: BigInt(n), who: 1, body: String(n) }));
      assert.equal((await prisma.row.createMany({ data })).count, 2000);
      const answers = await prisma.$transaction([
        prisma.row.count(), prisma.row.deleteMany({ where: { id: { gte: 1000n } } }), prisma.row.count()]);
      assert.deepEqual(answers, [2000, { count: 1000 }, 1000]);
      await prisma.row.deleteMany();
    });
  },

  // It has no cancel of its own: the server's is what ends a statement.
  async cancel() {
    await withClient(async (prisma) => {
      await assert.rejects(prisma.$transaction(async (tx) => {
        await tx.$executeRaw`SET LOCAL statement_timeout = 300`;
        await tx.$queryRaw`SELECT 1 FROM pg_sleep(30)`;
      }, { timeout: 20000 }), (error) => /57014/.test(JSON.stringify(error)));
      assert.deepEqual(await prisma.$queryRaw`SELECT 1 AS one`, [{ one: 1 }]);
    });
  },

  async orm() {
    await withTables([
      "CREATE TABLE prisma_authors (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",
      `CREATE TABLE prisma_books (id serial PRIMARY KEY, title text NOT NULL,
        "authorId" int NOT NULL REFERENCES prisma_authors)`], "prisma_books, prisma_authors", async (prisma) => {
      for (const n of numbers(5)) {
        await prisma.author.create({ data: { name: "author " + n, books: { create: [{ title: "x" }, { title: "y" }] } } });
      }
      const author = await prisma.author.findUnique({ where: { name: "author 3" }, include: { books: true } });
      assert.deepEqual(author.books.map((book) => book.title).sort(), ["x", "y"]);
      assert.equal(await prisma.book.count({ where: { author: { name: { startsWith: "author" } } } }), 10);
      const upserted = await prisma.author.upsert({ where: { name: "author 3" }, create: { name: "no" },
        update: { name: "renamed" } });
      assert.equal(upserted.name, "renamed");
      const groups = await prisma.book.groupBy({ by: ["title"], _count: true, orderBy: { title: "asc" } });
      assert.deepEqual(groups, [{ title: "x", _count: 5 }, { title: "y", _count: 5 }]);
    });
  },

  async many() {
    await withClient((prisma) => Promise.all(numbers(CLIENTS).map(async (who) => {
      for (let turn = 0; turn < ROUNDS / 2; turn++) {
        const [id, body] = [BigInt(who * 1000 + turn), `${who} ${turn}`];
        await prisma.$transaction(async (tx) => {
          await tx.row.create({ data: { id, who, body } });
          assert.equal((await tx.row.findUnique({ where: { id } })).body, body);
        }, { maxWait: 60000, timeout: 60000 });
      }
    })), { max: CLIENTS });
  },

  async sharded() {
    await withClient(async (prisma) => {
      for (const id of numbers(20, 1)) {
        assert.equal((await prisma.user.findUnique({ where: { id: BigInt(id) } })).name, userName(id));
      }
      const last = await prisma.user.findMany({ orderBy: { id: "desc" }, take: 2 });
      assert.deepEqual(last.map((user) => user.id), [200n, 199n]);
      await prisma.user.createMany({ data: [{ id: 501n, name: "a" }, { id: 502n, name: "b" }] });
      assert.equal((await prisma.user.deleteMany({ where: { id: { gt: 500n } } })).count, 2);
    }, { database: env("SHARDED") });
  },
});
