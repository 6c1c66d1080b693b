// The line on how the server is: whether the model is in memory, who waits, how fast the last speech was made.

import { readMetrics, readReadiness } from "./api.js";
import { byId, make, sentence } from "./dom.js";
import { isLocked } from "./request_form.js";

const EVERY = 20_000; // ms between looks while the page is seen
const SOON = 1_000; // ms after something has ended or is not ready yet

const line = byId("health");
const model = byId("model");

let last = {}; // sum and count of the real-time factors, by model
let factor = {}; // the real-time factor of the last speech, by model
let timer;

/** Returns a metric's value of each model. */
function byModel(metrics, name) {
  const lines = metrics.matchAll(new RegExp(String.raw`^qwen3_tts_${name}\{model="([^"]*)"\} (\S+)$`, "gm"));
  return new Map([...lines].map(([, id, value]) => [id, Number(value)]));
}

/** Note how fast speech was made since the last look; at the first look, how fast all of it was. */
function noteFactors(metrics) {
  const counts = byModel(metrics, "real_time_factor_count");
  for (const [id, sum] of byModel(metrics, "real_time_factor_sum")) {
    const before = last[id] ?? { sum: 0, count: 0 };
    const made = counts.get(id) - before.count;
    if (made < 0) delete factor[id]; // the server has begun anew
    if (made > 0) factor[id] = (sum - before.sum) / made;
    last[id] = { sum, count: counts.get(id) };
  }
}

function show(state, ...facts) {
  const texts = facts.flatMap((fact, i) => (i ? [" · ", fact] : [fact]));
  line.replaceChildren(make("span", { class: "dot", "data-state": state }), ...texts);
}

function factsOf(metrics, id) {
  noteFactors(metrics);
  const waiting = byModel(metrics, "queue_depth").get(id);
  const facts = [`${id} is ${waiting === undefined ? "not in memory: the first request loads it" : "in memory"}`];
  if (waiting !== undefined) facts.push(`${byModel(metrics, "rows_running").get(id)} at work, ${waiting} waiting`);
  if (factor[id] !== undefined) {
    const title = "Real-time factor of the last speech: seconds of work for a second of audio. Below 1 is faster than speech.";
    facts.push(make("abbr", { title }, `RTF ${factor[id].toFixed(2)}`));
  }
  return facts;
}

/** Look, show what there is, and return how long to wait for the next look. */
async function look() {
  let ready;
  try {
    ready = await readReadiness();
  } catch (error) {
    const loading = error.code === "model_loading";
    show(loading ? "waiting" : "bad", sentence(error.message));
    return loading ? SOON : EVERY;
  }
  const version = `version ${ready.version}`;
  if (isLocked() || !model.value) {
    show("ready", `${ready.model} is ready`, version);
    return EVERY;
  }
  try {
    show("ready", ...factsOf(await readMetrics(), model.value), version);
  } catch (error) {
    console.info("The server tells nothing of its work:", error.message);
    show("ready", `${ready.model} is ready`, version);
  }
  return EVERY;
}

async function lookAgain() {
  clearTimeout(timer);
  if (document.hidden) return;
  const pause = await look();
  clearTimeout(timer);
  timer = setTimeout(lookAgain, pause);
}

/** Look soon: something has ended that is told of. */
export function lookSoon() {
  clearTimeout(timer);
  timer = setTimeout(lookAgain, SOON);
}

/** Start to look, now and then while the page is seen. */
export function startHealth() {
  document.addEventListener("visibilitychange", lookAgain);
  model.addEventListener("change", lookAgain);
  lookAgain();
}
