// Knex: query builder, migrations, transactions with savepoints, streams; over node-postgres.
"use strict";

const knex = require("knex");
const { CLIENTS, ROUNDS, assert, bytes, cancel, config, env, json, main, numbers, table, text, time, userName,
  uuid } = require("./cases");

// A pool of one connection: reads see what it wrote, as read-your-writes is kept for each client connection.
async function withClient(work, options = {}, max = 1) {
  const db = knex({ client: "pg", connection: { ...config(), ...options }, pool: { min: 0, max } });
  try {
    return await work(db);
  } finally {
    await db.destroy();
  }
}

async function value(db, sql, values = []) {
  return Object.values((await db.raw(sql, values)).rows[0])[0];
}

main({
  async connect() {
    await withClient(async (db) => {
      assert.equal(await value(db, "SHOW application_name"), "matrix");
    }, { application_name: "matrix" });
    await assert.rejects(withClient((db) => db.raw("SELECT 1"), { password: "wrong" }), { code: "28P01" });
  },

  async types() {
    await withClient(async (db) => {
      const given = { int: 2147483647, bigint: "-9007199254740993", numeric: "12345678901234567890.123456789", text, bytea: bytes,
        bool: true, timestamptz: time, uuid, varchar: null };
      for (const [type, wanted] of Object.entries(given)) {
        assert.deepEqual(await value(db, `SELECT ?::${type}`, [wanted]), wanted);
      }
      assert.deepEqual(await value(db, "SELECT ?::jsonb", [JSON.stringify(json)]), json);
    });
  },

  async prepared() {
    await withClient((a) => withClient(async (b) => {
      for (let turn = 0; turn < 20; turn++) {
        const found = await Promise.all([a.transaction((tx) => value(tx, "SELECT 'a' || ?::int", [turn])),
          b.transaction((tx) => value(tx, "SELECT 'b' || ?::int", [turn]))]);
        assert.deepEqual(found, ["a" + turn, "b" + turn]);
      }
    }));
  },

  async transactions() {
    await withClient(async (db) => {
      await db.transaction(async (tx) => {
        await tx(table).insert({ id: 1, who: 1, body: "kept" });
        await assert.rejects(tx.transaction((inner) => inner(table).insert({ id: 1, body: "twice" })), { code: "23505" });
      });
      await assert.rejects(db.transaction(async (tx) => {
        await tx(table).update({ body: "gone" });
        throw new Error("undone");
      }), /undone/);
      assert.equal((await db(table).first()).body, "kept");
      assert.equal(await db(table).del(), 1);
      await db.transaction(async (tx) => {
        assert.equal(await value(tx, "SHOW transaction_isolation"), "serializable");
      }, { isolationLevel: "serializable" });
    });
  },

  async errors() {
    await withClient(async (db) => {
      await assert.rejects(db("missing_table"), { code: "42P01" });
      await assert.rejects(db.raw("SELECT 1 / ?::int", [0]), { code: "22012" });
      await assert.rejects(db(table).insert({ id: 1, body: "refused" }), { constraint: table + "_body_check" });
      assert.equal(await value(db, "SELECT 1"), 1);
    });
  },

  async batch() {
    await withClient(async (db) => {
      await db.batchInsert(table, numbers(2500).map((n) => ({ id: n, who: 1, body: String(n) })), 500);
      assert.equal((await db(table).count())[0].count, "2500");
      assert.equal(await db(table).del(), 2500);
    });
  },

  async cursor() {
    await withClient(async (db) => {
      const found = [];
      for await (const row of db.raw("SELECT n FROM generate_series(1, 1000) AS n").stream({ batchSize: 70 })) {
        found.push(row.n);
      }
      assert.deepEqual(found, numbers(1000, 1));
    });
  },

  async cancel() {
    await withClient(async (db) => {
      await assert.rejects(db.transaction(async (tx) => {
        const client = await tx.client.acquireConnection();
        setTimeout(() => cancel(client), 300);
        await tx.raw("SELECT pg_sleep(30)");
      }), { code: "57014" });
      assert.equal(await value(db, "SELECT 1"), 1);
    });
  },

  async orm() {
    const migrations = [
      { name: "1", up: (db) => db.schema.createTable("knex_books", (t) => {
        t.increments();
        t.text("title").notNullable().index();
        t.jsonb("extra");
      }), down: (db) => db.schema.dropTable("knex_books") },
      { name: "2", up: (db) => db.schema.alterTable("knex_books", (t) => t.integer("pages").defaultTo(7)),
        down: (db) => db.schema.alterTable("knex_books", (t) => t.dropColumn("pages")) }];
    const source = { getMigrations: async () => migrations, getMigrationName: (one) => one.name,
      getMigration: async (one) => one };
    await withClient(async (db) => {
      await db.migrate.latest({ migrationSource: source, tableName: "knex_done" });
      const [book] = await db("knex_books").insert({ title: "one", extra: json }).returning("*");
      assert.deepEqual([book.title, book.pages, book.extra], ["one", 7, json]);
      await db("knex_books").insert({ id: book.id, title: "two" }).onConflict("id").merge();
      assert.equal((await db("knex_books").where({ id: book.id }).first()).title, "two");
      assert.equal(await db.schema.hasColumn("knex_books", "pages"), true);
      await db.migrate.rollback({ migrationSource: source, tableName: "knex_done" }, true);
      assert.equal(await db.schema.hasTable("knex_books"), false);
      await db.schema.dropTable("knex_done").dropTable("knex_done_lock");
    });
  },

  async many() {
    await withClient((db) => Promise.all(numbers(CLIENTS).map(async (who) => {
      for (let turn = 0; turn < ROUNDS; turn++) {
        const [id, body] = [who * 1000 + turn, `${who} ${turn}`];
        await db.transaction(async (tx) => {
          await tx(table).insert({ id, who, body });
          assert.equal((await tx(table).where({ id }).first()).body, body);
        });
      }
    })), {}, CLIENTS);
  },

  async sharded() {
    await withClient(async (db) => {
      for (const id of numbers(20, 1)) {
        assert.equal((await db("users").where({ id }).first()).name, userName(id));
      }
      assert.deepEqual(await db("users").orderBy("id", "desc").limit(2).pluck("id"), ["200", "199"]);
      await db("users").insert([{ id: 501, name: "a" }, { id: 502, name: "b" }]);
      assert.equal(await db("users").where("id", ">", 500).del(), 2);
    }, { database: env("SHARDED") });
  },
});
