// The list of recent takes.

import { make, byId, seconds } from "./dom.js";
import { addTake, allTakes, removeAllTakes, removeTake } from "./history.js";
import { SAMPLE_RATE } from "./api.js";

const list = byId("recent");
const clear = byId("clear");
let actions;

function row(take) {
  const button = (text, label, work) =>
    make("button", { type: "button", class: "quiet", "aria-label": `${label}: ${take.request.input.slice(0, 60)}`, onclick: work }, text);
  const when = new Date(take.created).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  return make("li", {},
    make("div", { class: "grow" },
      make("p", { class: "take-text" }, take.request.input),
      make("p", { class: "hint" }, `${take.voice} · ${seconds(take.samples.length / SAMPLE_RATE)} · ${when}`)),
    make("div", { class: "row" },
      button("Play", "Play", () => actions.onplay(take)),
      button("Use again", "Use again", () => actions.onreuse(take)),
      button("Delete", "Delete", () => change(() => removeTake(take)))));
}

async function show() {
  const takes = await allTakes();
  list.replaceChildren(...takes.map(row));
  byId("recent-empty").hidden = takes.length > 0;
  clear.hidden = takes.length === 0;
}

async function change(work) {
  await attempt(async () => {
    await work();
    await show();
  });
  byId("recent-title").focus(); // the button that was pressed is gone
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    actions.onproblem(`This browser keeps no results: ${error.message}`);
  }
}

/** Keep a finished take and show it in the list. */
export async function keepTake(take) {
  await attempt(async () => {
    await addTake(take);
    await show();
  });
}

/** Start the list. `onplay` and `onreuse` are called with a take, `onproblem` with a sentence. */
export function startRecent(handlers) {
  actions = handlers;
  clear.addEventListener("click", () => change(removeAllTakes));
  attempt(show);
}
