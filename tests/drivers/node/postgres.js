// postgres.js: prepares everything by default, pipelines what is sent at once, cursors, COPY streams, its own LISTEN.
"use strict";

const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const postgres = require("postgres");
const { CLIENTS, ROUNDS, assert, bytes, config, env, json, main, numbers, sleep, table, text, time, userName,
  uuid } = require("./cases");

async function withClient(work, options = {}) {
  const sql = postgres({ ...config(), max: 1, connect_timeout: 20, onnotice: () => {}, ...options });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

main({
  async connect() {
    await withClient(async (sql) => {
      assert.equal((await sql`SHOW application_name`)[0].application_name, "matrix");
    }, { connection: { application_name: "matrix" } });
    await assert.rejects(withClient((sql) => sql`SELECT 1`, { password: "wrong" }), { code: "28P01" });
  },

  async types() {
    for (const options of [{}, { prepare: false }, { fetch_types: false }]) {
      await withClient(async (sql) => {
        const found = (await sql`SELECT ${2147483647}::int AS i, ${"-9007199254740993"}::bigint AS b,
          ${"12345678901234567890.123456789"}::numeric AS n, ${text}::text AS t, ${bytes}::bytea AS x,
          ${true}::bool AS y, ${time}::timestamptz AS z, ${uuid}::uuid AS u, ${sql.json(json)}::jsonb AS j,
          ${null}::text AS nothing`)[0];
        assert.deepEqual({ ...found }, { i: 2147483647, b: "-9007199254740993", n: "12345678901234567890.123456789",
          t: text, x: bytes, y: true, z: time, u: uuid, j: json, nothing: null });
        if (options.fetch_types !== false) { // without its look-up of array types arrays are text
          assert.deepEqual((await sql`SELECT ${sql.array([1, 2, 3])}::int[] AS a`)[0].a, [1, 2, 3]);
        }
      }, options);
    }
  },

  async prepared() {
    await withClient((a) => withClient(async (b) => {
      for (let turn = 0; turn < 20; turn++) {
        const found = await Promise.all([
          a.begin(async (sql) => (await sql`SELECT 'a' || ${turn}::int AS v`)[0].v),
          b.begin(async (sql) => (await sql`SELECT 'b' || ${turn}::int AS v`)[0].v)]);
        assert.deepEqual(found, ["a" + turn, "b" + turn]);
        assert.equal((await a`SELECT ${turn}::int * 2 AS v`)[0].v, turn * 2);
      }
    }));
  },

  async transactions() {
    await withClient(async (sql) => {
      await sql.begin(async (tx) => {
        await tx`INSERT INTO ${tx(table)} VALUES (1, 1, 'kept')`;
        await assert.rejects(tx.savepoint((inner) => inner`INSERT INTO ${inner(table)} VALUES (1, 1, 'twice')`),
          { code: "23505" });
      });
      await assert.rejects(sql.begin(async (tx) => {
        await tx`UPDATE ${tx(table)} SET body = 'gone'`;
        throw new Error("undone");
      }), /undone/);
      assert.equal((await sql`SELECT body FROM ${sql(table)}`)[0].body, "kept");
      assert.equal((await sql`DELETE FROM ${sql(table)}`).count, 1);
      await sql.begin("ISOLATION LEVEL SERIALIZABLE READ ONLY", async (tx) => {
        assert.equal((await tx`SHOW transaction_isolation`)[0].transaction_isolation, "serializable");
      });
    });
  },

  async errors() {
    await withClient(async (sql) => {
      await assert.rejects(sql`SELECT * FROM missing_table`, { code: "42P01", position: "15" });
      await assert.rejects(sql`SELECT 1 / ${0}::int`, { code: "22012" });
      await assert.rejects(sql`INSERT INTO ${sql(table)} VALUES (1, 1, 'refused')`,
        { code: "23514", constraint_name: table + "_body_check" });
      assert.equal((await sql`SELECT 1 AS one`)[0].one, 1);
    });
  },

  async batch() {
    await withClient(async (sql) => {
      const found = await Promise.all(numbers(200).map((n) => sql`SELECT ${n}::int AS n`));
      assert.deepEqual(found.map(([row]) => row.n), numbers(200));
      const mixed = await Promise.allSettled([sql`SELECT 1 AS n`, sql`SELECT 1 / ${0}::int`, sql`SELECT 3 AS n`]);
      assert.deepEqual(mixed.map((one) => one.status), ["fulfilled", "rejected", "fulfilled"]);
      assert.deepEqual((await sql`SELECT 1 AS a; SELECT 2 AS b`.simple()).map(([row]) => ({ ...row })),
        [{ a: 1 }, { b: 2 }]);
    });
  },

  async copy() {
    await withClient(async (sql) => {
      const lines = numbers(3000).map((n) => `${n}\t1\tline ${n}\n`);
      await pipeline(Readable.from(lines), await sql`COPY ${sql(table)} FROM STDIN`.writable());
      // Little enough for the stream's buffer: beyond it the driver goes on no more, with Postgres itself either.
      let out = "";
      const query = sql`COPY (SELECT * FROM ${sql(table)} WHERE id < 300 ORDER BY id) TO STDOUT`;
      for await (const part of await query.readable()) {
        out += part;
      }
      assert.equal(out, lines.slice(0, 300).join(""));
      assert.equal((await sql`DELETE FROM ${sql(table)}`).count, 3000);
    });
  },

  async cursor() {
    await withClient(async (sql) => {
      const found = [];
      for await (const rows of sql`SELECT n FROM generate_series(1, ${1000}::int) AS n`.cursor(70)) {
        found.push(...rows.map((row) => row.n));
      }
      assert.deepEqual(found, numbers(1000, 1));
      await sql`SELECT n FROM generate_series(1, ${1000}::int) AS n`.cursor(10, () => sql.CLOSE);
      assert.equal((await sql`SELECT 1 AS one`)[0].one, 1);
    });
  },

  async cancel() {
    await withClient(async (sql) => {
      const running = sql`SELECT pg_sleep(30)`.execute();
      const ended = assert.rejects(running, { code: "57014" });
      await sleep(300);
      running.cancel();
      await ended;
      assert.equal((await sql`SELECT 1 AS one`)[0].one, 1);
    });
  },

  async listen() {
    await withClient(async (sql) => {
      let hear;
      const heard = new Promise((resolve) => (hear = resolve));
      const { unlisten } = await sql.listen(table, hear);
      await sql.notify(table, "hello");
      assert.equal(await heard, "hello");
      await unlisten();
    });
  },

  async many() {
    await withClient((sql) => Promise.all(numbers(CLIENTS).map(async (who) => {
      for (let turn = 0; turn < ROUNDS; turn++) {
        const [id, body] = [who * 1000 + turn, `${who} ${turn}`];
        await sql.begin(async (tx) => {
          await tx`INSERT INTO ${tx(table)} ${tx({ id, who, body })}`;
          assert.equal((await tx`SELECT body FROM ${tx(table)} WHERE id = ${id}`)[0].body, body);
        });
      }
    })), { max: CLIENTS });
  },

  async sharded() {
    await withClient(async (sql) => {
      const found = await Promise.all(numbers(20, 1).map((id) => sql`SELECT name FROM users WHERE id = ${id}`));
      assert.deepEqual(found.map(([row]) => row.name), numbers(20, 1).map(userName));
      const last = await sql`SELECT id FROM users ORDER BY id DESC LIMIT ${2}`;
      assert.deepEqual(last.map((row) => row.id), ["200", "199"]);
      await sql`INSERT INTO users ${sql([{ id: 501, name: "a" }, { id: 502, name: "b" }])}`;
      assert.equal((await sql`DELETE FROM users WHERE id > ${500}`).count, 2);
    }, { database: env("SHARDED") });
  },
});
