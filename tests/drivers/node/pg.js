// node-postgres: named queries, its pool, cursors (portals), streams, COPY streams.
"use strict";

const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const pg = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");
const copy = require("pg-copy-streams");
const { CLIENTS, ROUNDS, assert, bytes, cancel, config, env, json, main, numbers, sleep, table, text, time, userName,
  uuid } = require("./cases");

async function withClient(work, options = {}) {
  const client = new pg.Client({ ...config(), connectionTimeoutMillis: 20000, ...options });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function value(client, sql, values) {
  const { rows } = await client.query({ text: sql, values, rowMode: "array" });
  assert.equal(rows.length, 1);
  return rows[0][0];
}

main({
  async connect() {
    await withClient(async (client) => {
      assert.equal(await value(client, "SHOW application_name"), "matrix");
      assert.equal(await value(client, "SHOW statement_timeout"), "4321ms");
    }, { application_name: "matrix", statement_timeout: 4321 });
    await assert.rejects(withClient(() => {}, { password: "wrong" }), { code: "28P01" });
  },

  async types() {
    await withClient(async (client) => {
      const given = [["int", 2147483647], ["bigint", "-9007199254740993"], ["numeric", "12345678901234567890.123456789"],
        ["text", text], ["bytea", bytes], ["bool", true], ["timestamptz", time], ["uuid", uuid], ["json", json],
        ["jsonb", json], ["int[]", [1, null, 3]], ["text[]", ["a,b", 'c"d', null, ""]], ["text", null], ["int", null]];
      for (const [type, wanted] of given) {
        assert.deepEqual(await value(client, `SELECT $1::${type}`, [wanted]), wanted);
      }
      const { rows } = await client.query({ text: "SELECT 7::int4 AS n, $1::bool AS b", values: [true], binary: true });
      assert.deepEqual(rows, [{ n: 7, b: true }]);
    });
  },

  async prepared() {
    await withClient((a) => withClient(async (b) => {
      for (let turn = 0; turn < 20; turn++) {
        await Promise.all([a.query("BEGIN"), b.query("BEGIN")]);
        const found = await Promise.all([
          a.query({ name: "mine", text: "SELECT $1::int * 2 AS v", values: [turn] }),
          b.query({ name: "mine", text: "SELECT 'b' || $1::int AS v", values: [turn] })]);
        assert.deepEqual(found.map((one) => one.rows[0].v), [turn * 2, "b" + turn]);
        for (const client of turn % 2 ? [a, b] : [b, a]) {
          await client.query("COMMIT");
        }
      }
    }));
  },

  async transactions() {
    await withClient(async (client) => {
      await client.query("BEGIN");
      await client.query(`INSERT INTO ${table} VALUES ($1, 1, 'kept')`, [1]);
      await client.query("SAVEPOINT s");
      await assert.rejects(client.query(`INSERT INTO ${table} VALUES ($1, 1, 'twice')`, [1]), { code: "23505" });
      await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
      await client.query("ROLLBACK TO s");
      await client.query("COMMIT");
      await client.query(`BEGIN; UPDATE ${table} SET body = 'gone'; ROLLBACK`);
      assert.equal(await value(client, `SELECT body FROM ${table}`), "kept");
      assert.equal((await client.query(`DELETE FROM ${table}`)).rowCount, 1);
    });
  },

  async errors() {
    await withClient(async (client) => {
      await assert.rejects(client.query("SELECT * FROM missing_table"), { code: "42P01", position: "15" });
      await assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" });
      await assert.rejects(client.query(`INSERT INTO ${table} VALUES ($1, 1, 'refused')`, [1]),
        { code: "23514", constraint: table + "_body_check" });
      await assert.rejects(client.query({ name: "bad", text: "SELEC $1", values: [1] }), { code: "42601" });
      assert.equal(await value(client, "SELECT 1"), 1);
    });
  },

  // node-postgres queues queries and sends each when the one before has ended: the order must hold.
  async batch() {
    await withClient(async (client) => {
      const found = await Promise.all(numbers(100).map((number) => value(client, "SELECT $1::int", [number])));
      assert.deepEqual(found, numbers(100));
      const several = await client.query("SELECT 1 AS one; SELECT 2 AS two; SELECT 3 AS three");
      assert.deepEqual(several.map((one) => one.rows[0]), [{ one: 1 }, { two: 2 }, { three: 3 }]);
    });
  },

  async copy() {
    await withClient(async (client) => {
      const lines = numbers(3000).map((n) => `${n}\t1\tline ${n}\n`);
      await pipeline(Readable.from(lines), client.query(copy.from(`COPY ${table} FROM STDIN`)));
      let out = "";
      for await (const part of client.query(copy.to(`COPY (SELECT * FROM ${table} ORDER BY id) TO STDOUT`))) {
        out += part;
      }
      assert.equal(out, lines.join(""));
      assert.equal((await client.query(`DELETE FROM ${table}`)).rowCount, 3000);
      await assert.rejects(pipeline(Readable.from(["x\n"]), client.query(copy.from(`COPY ${table} FROM STDIN`))),
        { code: "22P02" });
      assert.equal(await value(client, "SELECT 1"), 1);
    });
  },

  async cursor() {
    await withClient(async (client) => {
      const cursor = client.query(new Cursor("SELECT n FROM generate_series(1, $1::int) AS n", [250]));
      const found = [];
      for (let rows = await cursor.read(100); rows.length > 0; rows = await cursor.read(100)) {
        found.push(...rows.map((row) => row.n));
      }
      await cursor.close();
      assert.deepEqual(found, numbers(250, 1));
      const early = client.query(new Cursor("SELECT n FROM generate_series(1, $1::int) AS n", [250]));
      assert.equal((await early.read(10)).length, 10);
      await early.close();
      const stream = client.query(new QueryStream("SELECT n FROM generate_series(1, $1::int) AS n", [1000],
        { batchSize: 70 }));
      const streamed = [];
      for await (const row of stream) {
        streamed.push(row.n);
      }
      assert.deepEqual(streamed, numbers(1000, 1));
    });
  },

  async cancel() {
    await withClient(async (client) => {
      const running = client.query("SELECT pg_sleep(30)");
      const ended = assert.rejects(running, { code: "57014" });
      await sleep(300);
      await cancel(client);
      await ended;
      assert.equal(await value(client, "SELECT 1"), 1);
    });
  },

  async listen() {
    await withClient((listener) => withClient(async (client) => {
      const heard = new Promise((resolve) => listener.on("notification", resolve));
      await listener.query(`LISTEN ${table}`);
      await client.query("SELECT pg_notify($1, 'hello')", [table]);
      assert.equal((await heard).payload, "hello");
    }));
  },

  async many() {
    const pool = new pg.Pool({ ...config(), max: CLIENTS });
    const work = async (who) => {
      const client = await pool.connect();
      for (let turn = 0; turn < ROUNDS; turn++) {
        const [id, body] = [who * 1000 + turn, `${who} ${turn}`];
        await client.query("BEGIN");
        await client.query({ name: "put", text: `INSERT INTO ${table} VALUES ($1, $2, $3)`, values: [id, who, body] });
        assert.equal(await value(client, `SELECT body FROM ${table} WHERE id = $1`, [id]), body);
        await client.query("COMMIT");
      }
      client.release();
    };
    await Promise.all(numbers(CLIENTS).map(work));
    await pool.end();
  },

  async sharded() {
    await withClient(async (client) => {
      for (let id = 1; id <= 20; id++) {
        const query = { name: "by-id", text: "SELECT name FROM users WHERE id = $1", values: [id] };
        assert.equal((await client.query(query)).rows[0].name, userName(id));
      }
      const { rows } = await client.query("SELECT id FROM users ORDER BY id DESC LIMIT $1", [2]);
      assert.deepEqual(rows, [{ id: "200" }, { id: "199" }]);
      await client.query("INSERT INTO users (id, name) VALUES ($1, 'a'), ($2, 'b')", [501, 502]);
      assert.equal((await client.query("DELETE FROM users WHERE id > $1", [500])).rowCount, 2);
    }, { database: env("SHARDED") });
  },
});
