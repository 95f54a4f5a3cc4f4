// Runs the cases below with node-postgres against the proxy that the environment names, and prints one line
// of JSON for each: {"name", "ok", "error"}. `node node_driver.js --list` prints the names alone.
"use strict";

const assert = require("node:assert/strict");

const cases = {
  async "simple query"(client) {
    const { rows, fields } = await client.query("SELECT 1 AS one, 'two' AS two, NULL AS three");
    assert.deepEqual(rows, [{ one: 1, two: "two", three: null }]);
    assert.deepEqual(fields.map((field) => field.name), ["one", "two", "three"]);
  },

  async "parameters in text"(client) {
    const { rows } = await client.query("SELECT id, name FROM users WHERE id = $1", [42]);
    assert.deepEqual(rows, [{ id: "42", name: "user 0042" }]);
  },

  async "parameters in binary"(client) {
    const { rows } = await client.query("SELECT id FROM users WHERE name = $1 ORDER BY id",
      [Buffer.from("user 0042")]);
    assert.equal(rows[0].id, "42");
  },

  async "named prepared statement, many times"(client) {
    for (let id = 1; id <= 60; id++) {
      const { rows } = await client.query({ name: "by-id", text: "SELECT name FROM users WHERE id = $1", values: [id] });
      assert.equal(rows[0].name, "user " + String(id).padStart(4, "0"));
    }
  },

  async "binary results"(client) {
    const { rows } = await client.query({ text: "SELECT 7::int4 AS seven, true AS yes", values: [], binary: true });
    assert.deepEqual(rows, [{ seven: 7, yes: true }]);
  },

  async "fan-out with order and limit"(client) {
    const { rows } = await client.query("SELECT id FROM users ORDER BY id DESC LIMIT $1", [5]);
    assert.deepEqual(rows.map((row) => row.id), ["200", "199", "198", "197", "196"]);
  },

  async "aggregates"(client) {
    const { rows } = await client.query("SELECT country, count(*) AS n FROM users GROUP BY country ORDER BY country");
    assert.equal(rows.reduce((sum, row) => sum + Number(row.n), 0), 200);
  },

  async "insert of several rows, update, delete"(client) {
    const inserted = await client.query(
      "INSERT INTO users (id, name) VALUES ($1, $2), ($3, $4), ($5, $6) RETURNING id", [8001, "a", 8002, "b", 8003, "c"]);
    assert.equal(inserted.rowCount, 3);
    const updated = await client.query("UPDATE users SET name = upper(name) WHERE id = $1", [8002]);
    assert.equal(updated.rowCount, 1);
    const { rows } = await client.query("SELECT name FROM users WHERE id = $1", [8002]);
    assert.equal(rows[0].name, "B");
    const deleted = await client.query("DELETE FROM users WHERE id >= $1", [8001]);
    assert.equal(deleted.rowCount, 3);
  },

  async "transaction rolled back"(client) {
    await client.query("BEGIN");
    await client.query("UPDATE users SET name = 'gone' WHERE id = $1", [3]);
    await client.query("ROLLBACK");
    const { rows } = await client.query("SELECT name FROM users WHERE id = $1", [3]);
    assert.equal(rows[0].name, "user 0003");
  },

  async "error and on"(client) {
    await assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" });
    await assert.rejects(client.query("SELECT * FROM no_such_table"), { code: "42P01" });
    const { rows } = await client.query("SELECT 1 AS one");
    assert.equal(rows[0].one, 1);
  },

  async "refusal has a hint"(client) {
    await assert.rejects(client.query("SELECT * FROM users LIMIT 5 FOR UPDATE"),
      (error) => error.code === "0A000" && error.hint.length > 0);
  },

  async "pool of clients at once"(_client, pg, config) {
    const pool = new pg.Pool({ ...config, max: 20 });
    try {
      const answers = await Promise.all(Array.from({ length: 200 }, (_, index) =>
        pool.query("SELECT id FROM users WHERE id = $1", [index + 1])));
      answers.forEach((answer, index) => assert.equal(answer.rows[0].id, String(index + 1)));
    } finally {
      await pool.end();
    }
  },

  async "application_name and settings"(_client, pg, config) {
    const own = new pg.Client({ ...config, application_name: "node test", statement_timeout: 4321 });
    await own.connect();
    try {
      const { rows } = await own.query(
        "SELECT current_setting('application_name') AS name, current_setting('statement_timeout') AS timeout");
      assert.deepEqual(rows, [{ name: "node test", timeout: "4321ms" }]);
    } finally {
      await own.end();
    }
  },

  async "large value"(client) {
    const text = "é".repeat(500000);
    const { rows } = await client.query("SELECT $1::text AS text", [text]);
    assert.equal(rows[0].text, text);
  },

  async "queries sent without waiting"(client) {
    const answers = await Promise.all([1, 2, 3, 4, 5].map((number) =>
      client.query("SELECT $1::int AS number", [number])));
    assert.deepEqual(answers.map((answer) => answer.rows[0].number), [1, 2, 3, 4, 5]);
  },
};

async function main() {
  if (process.argv.includes("--list")) {
    console.log(JSON.stringify(Object.keys(cases)));
    return;
  }
  const pg = require("pg");
  const config = {
    host: "127.0.0.1", port: Number(process.env.PGSHUNT_PORT), database: "app", user: process.env.PGSHUNT_USER,
    password: process.env.PGSHUNT_PASSWORD, connectionTimeoutMillis: 10000,
  };
  for (const [name, run] of Object.entries(cases)) {
    const client = new pg.Client(config);
    let error = null;
    try {
      await client.connect();
      await run(client, pg, config);
    } catch (caught) {
      error = String(caught.stack || caught);
    } finally {
      await client.end().catch(() => {});
    }
    console.log(JSON.stringify({ name, ok: error === null, error }));
  }
}

main();
