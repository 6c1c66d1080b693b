// Calls functions of the pages that need no page: node recording.mjs < CALLS, a JSON list of [name, ...arguments], where
// {"samples": [...]} stands for samples of 16 bits. Prints what they return as a last line of JSON, files in base64.
import { text } from "node:stream/consumers";
import * as recording from "../../server/http/web/recording.js";
import * as wav from "../../server/http/web/wav.js";

const known = { ...recording, ...wav };
const results = [];
for (const [name, ...values] of JSON.parse(await text(process.stdin))) {
  const result = known[name](...values.map((value) => (value.samples ? Int16Array.from(value.samples) : value)));
  if (result instanceof Blob) results.push(Buffer.from(await result.arrayBuffer()).toString("base64"));
  else results.push(ArrayBuffer.isView(result) ? [...result] : result);
}
console.log(JSON.stringify(results));
