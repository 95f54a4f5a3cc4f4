// What the Node programs share: where to connect, the values of the case "types", and running the cases.
"use strict";

const assert = require("node:assert/strict");
const { Connection } = require("pg");

const env = (name) => process.env["PGSHUNT_" + name];
const table = env("TABLE");
const CLIENTS = 50;
const ROUNDS = 20;

function config(database = env("DATABASE")) {
  return { host: env("HOST"), port: Number(env("PORT")), user: env("USER"), password: env("PASSWORD"), database };
}

function url(database = env("DATABASE")) {
  const { host, port, user, password } = config();
  return `postgresql://${user}:${encodeURIComponent(password)}@${host}:${port}/${database}`;
}

const text = "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash";
const uuid = "123e4567-e89b-12d3-a456-426614174000";
const time = new Date("2026-02-03T04:05:06.789Z");
const json = { a: [1, 2.5, null, "ä"], b: {} };
const bytes = Buffer.from([0, 1, 255, 92, 39]);

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const userName = (id) => "user " + String(id).padStart(4, "0");
const numbers = (count, from = 0) => Array.from({ length: count }, (_, index) => from + index);

// A cancel request, as node-postgres sends it for the client that is busy.
function cancel(client) {
  return new Promise((resolve, reject) => {
    const request = new Connection();
    request.on("connect", () => request.cancel(client.processID, client.secretKey));
    request.on("end", resolve);
    request.on("error", reject);
    request.connect(client.port, client.host);
  });
}

// Runs the cases in their order; each is given nothing and closes what it opens.
async function main(cases) {
  for (const [name, run] of Object.entries(cases)) {
    try {
      await run();
      console.log("ok " + name);
    } catch (error) {
      console.log(`failed ${name}: ${error.stack || error}`);
      for (let cause = error.cause; cause; cause = cause.cause) {
        console.log("because of " + (cause.stack || JSON.stringify(cause)));
      }
    }
  }
  process.exit(0); // a pool that a failed case left open would keep the program running
}

module.exports = { CLIENTS, ROUNDS, assert, bytes, cancel, config, env, json, main, numbers, sleep, table, text, time, url,
  userName, uuid };
