// A receiver of Sluice's webhooks for Node, without dependencies: verifies each event, answers at once, drops repeats.
//
//     WEBHOOK_SECRET=whsec_... node receiver.mjs 9900
//
// It prints a line of JSON for each new event. `seen` is in memory here: a real receiver notes `webhook-id` in its
// database, in the transaction of what the event leads to, so that a repeat after a restart is one too.

import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import process from "node:process";

const TOLERANCE_SECONDS = 300;
const MOST_SEEN = 100_000;
const LARGEST = 64 * 2 ** 20;

const key = Buffer.from((process.env.WEBHOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
if (key.length < 24) {
  console.error("Set WEBHOOK_SECRET to the endpoint's signing secret, whsec_...");
  process.exit(1);
}
const seen = new Set();

// Tell whether one of the signatures is ours, in a time that says nothing of how nearly.
function isSigned(headers, body) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  if (!id || !/^\d+$/.test(timestamp ?? "")) return false;
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_SECONDS) return false;
  const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  return (headers["webhook-signature"] ?? "").split(" ").some((one) => {
    const [version, signature] = one.split(",");
    const given = Buffer.from(signature ?? "", "base64");
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
  });
}

function handle(event) {
  console.log(JSON.stringify({ type: event.type, id: event.data.id }));
}

createServer((request, response) => {
  const answer = (status) => response.writeHead(status).end();
  const chunks = [];
  let size = 0;
  request.on("data", (chunk) => {
    size += chunk.length;
    if (size > LARGEST) request.destroy();
    else chunks.push(chunk);
  });
  request.on("end", () => {
    const body = Buffer.concat(chunks); // the bytes as they came: what a parser would write again is signed differently
    if (request.method !== "POST") return answer(405);
    if (!isSigned(request.headers, body)) return answer(401);
    const id = request.headers["webhook-id"];
    if (!seen.has(id)) {
      seen.add(id);
      if (seen.size > MOST_SEEN) seen.delete(seen.values().next().value);
      setImmediate(handle, JSON.parse(body)); // after the answer
    }
    answer(204);
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
