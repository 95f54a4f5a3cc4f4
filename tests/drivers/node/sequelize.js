// Sequelize 6: models, associations, sync, managed transactions; over node-postgres.
"use strict";

const { DataTypes, QueryTypes, Sequelize } = require("sequelize");
const { CLIENTS, ROUNDS, assert, bytes, cancel, config, env, json, main, numbers, table, text, time, userName,
  uuid } = require("./cases");

// A pool of one connection: reads see what it wrote, as read-your-writes is kept for each client connection.
async function withClient(work, options = {}, max = 1) {
  const { user, password, host, port, database } = { ...config(), ...options };
  const db = new Sequelize(database, user, password, { host, port, dialect: "postgres", logging: false,
    pool: { max, acquire: 60000 }, dialectOptions: { application_name: options.application_name } });
  try {
    return await work(db);
  } finally {
    await db.close();
  }
}

const select = (db, sql, replacements, more = {}) =>
  db.query(sql, { type: QueryTypes.SELECT, replacements, plain: true, ...more });

function rowModel(db) {
  return db.define("row", { id: { type: DataTypes.BIGINT, primaryKey: true }, who: DataTypes.INTEGER,
    body: DataTypes.TEXT }, { tableName: table, timestamps: false });
}

main({
  async connect() {
    await withClient(async (db) => {
      await db.authenticate();
      assert.equal((await select(db, "SHOW application_name")).application_name, "matrix");
    }, { application_name: "matrix" });
    await assert.rejects(withClient((db) => db.authenticate(), { password: "wrong" }),
      (error) => error.parent.code === "28P01");
  },

  async types() {
    await withClient(async (db) => {
      const Thing = db.define("thing", { number: DataTypes.BIGINT, exact: DataTypes.DECIMAL(30, 9),
        text: DataTypes.TEXT, bytes: DataTypes.BLOB, yes: DataTypes.BOOLEAN, at: DataTypes.DATE, key: DataTypes.UUID,
        json: DataTypes.JSONB, array: DataTypes.ARRAY(DataTypes.INTEGER), nothing: DataTypes.TEXT },
      { tableName: "sequelize_things", timestamps: false });
      await Thing.sync({ force: true });
      const given = { id: 1, number: "-9007199254740993", exact: "12345678901234567890.123456789", text, bytes, yes: true,
        at: time, key: uuid, json, array: [1, 2, 3], nothing: null };
      await Thing.create(given);
      assert.deepEqual((await Thing.findByPk(1)).get({ plain: true }), given);
      await Thing.drop();
    });
  },

  // With `bind` Sequelize sends parameters apart from the text.
  async prepared() {
    await withClient((a) => withClient(async (b) => {
      for (let turn = 0; turn < 20; turn++) {
        const ask = (db, letter) => db.transaction(async (transaction) =>
          (await select(db, `SELECT '${letter}' || $1::int AS v`, undefined, { bind: [turn], transaction })).v);
        assert.deepEqual(await Promise.all([ask(a, "a"), ask(b, "b")]), ["a" + turn, "b" + turn]);
      }
    }));
  },

  async transactions() {
    await withClient(async (db) => {
      const Row = rowModel(db);
      await db.transaction(async (transaction) => {
        await Row.create({ id: 1, who: 1, body: "kept" }, { transaction });
        await assert.rejects(db.transaction({ transaction }, (inner) =>
          Row.create({ id: 1, body: "twice" }, { transaction: inner })), { name: "SequelizeUniqueConstraintError" });
      });
      await assert.rejects(db.transaction(async (transaction) => {
        await Row.update({ body: "gone" }, { where: {}, transaction });
        throw new Error("undone");
      }), /undone/);
      assert.equal((await Row.findByPk(1)).body, "kept");
      assert.equal(await Row.destroy({ where: {} }), 1);
      await db.transaction({ isolationLevel: "SERIALIZABLE" }, async (transaction) => {
        const found = await select(db, "SHOW transaction_isolation", undefined, { transaction });
        assert.equal(found.transaction_isolation, "serializable");
      });
    });
  },

  async errors() {
    await withClient(async (db) => {
      await assert.rejects(select(db, "SELECT * FROM missing_table"), (error) => error.parent.code === "42P01");
      await assert.rejects(select(db, "SELECT 1 / ?", [0]), (error) => error.parent.code === "22012");
      await assert.rejects(rowModel(db).create({ id: 1, body: "refused" }), (error) => error.parent.code === "23514");
      assert.equal((await select(db, "SELECT 1 AS one")).one, 1);
    });
  },

  async cancel() {
    await withClient(async (db) => {
      await assert.rejects(db.transaction(async (transaction) => {
        setTimeout(() => cancel(transaction.connection), 300);
        await select(db, "SELECT pg_sleep(30)", undefined, { transaction });
      }), (error) => error.parent.code === "57014");
      assert.equal((await select(db, "SELECT 1 AS one")).one, 1);
    });
  },

  async orm() {
    await withClient(async (db) => {
      const Author = db.define("author", { name: { type: DataTypes.TEXT, unique: true } },
        { tableName: "sequelize_authors" });
      const Book = db.define("book", { title: DataTypes.TEXT }, { tableName: "sequelize_books" });
      Author.hasMany(Book);
      Book.belongsTo(Author);
      await Author.sync({ force: true });
      await Book.sync({ force: true });
      for (const n of numbers(5)) {
        await Author.create({ name: "author " + n, books: [{ title: "x" }, { title: "y" }] }, { include: Book });
      }
      const author = await Author.findOne({ where: { name: "author 3" }, include: Book });
      assert.deepEqual(author.books.map((book) => book.title).sort(), ["x", "y"]);
      const [again, made] = await Author.findOrCreate({ where: { name: "author 3" } });
      assert.deepEqual([again.id, made], [author.id, false]);
      await Author.sync({ alter: true });
      assert.equal(await Book.count({ include: { model: Author, where: { name: "author 3" } } }), 2);
      await Book.drop();
      await Author.drop();
    });
  },

  async many() {
    await withClient((db) => {
      const Row = rowModel(db);
      return Promise.all(numbers(CLIENTS).map(async (who) => {
        for (let turn = 0; turn < ROUNDS; turn++) {
          const [id, body] = [who * 1000 + turn, `${who} ${turn}`];
          await db.transaction(async (transaction) => {
            await Row.create({ id, who, body }, { transaction });
            assert.equal((await Row.findByPk(id, { transaction })).body, body);
          });
        }
      }));
    }, {}, CLIENTS);
  },

  async sharded() {
    await withClient(async (db) => {
      const User = db.define("user", { id: { type: DataTypes.BIGINT, primaryKey: true }, name: DataTypes.TEXT },
        { tableName: "users", timestamps: false });
      for (const id of numbers(20, 1)) {
        assert.equal((await User.findByPk(id)).name, userName(id));
      }
      const last = await User.findAll({ order: [["id", "DESC"]], limit: 2 });
      assert.deepEqual(last.map((user) => user.id), ["200", "199"]);
      await User.bulkCreate([{ id: 501, name: "a" }, { id: 502, name: "b" }]);
      assert.equal(await User.destroy({ where: db.literal("id > 500") }), 2);
    }, { database: env("SHARDED") });
  },
});
