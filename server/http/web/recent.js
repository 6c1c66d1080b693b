// The list of recent takes.

import { SAMPLE_RATE } from "./api.js";
import { make, byId, seconds, sentence } from "./dom.js";
import { addTake, allTakes, changeTake, removeOthers, removeTake, samplesOf } from "./history.js";

const list = byId("recent");
const clear = byId("clear");
const note = byId("recent-empty");
const NONE = note.textContent;
let actions;

const titleOf = ({ name, request }) => name || request.input;
const aboutOf = (take) => titleOf(take).slice(0, 60);

const labelled = (button, take) => button.setAttribute("aria-label", `${button.dataset.label}: ${aboutOf(take)}`);

function row(take) {
  const { voice, whole, length, starred } = take;
  const button = (text, label, work, more) => {
    const made = make("button", { type: "button", class: "quiet", "data-label": label, onclick: work, ...more }, text);
    labelled(made, take);
    return made;
  };
  const when = new Date(take.created).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  const facts = [voice, seconds(length / SAMPLE_RATE), whole ? "" : "ended early", when].filter(Boolean).join(" · ");
  const star = { "aria-pressed": String(Boolean(starred)), class: "quiet star", title: "What has a star stays when older takes go" };
  const title = make("p", { class: "take-text" }, titleOf(take));
  return make("li", {},
    make("div", { class: "grow" }, title, make("p", { class: "hint" }, facts)),
    make("div", { class: "row" },
      button(starred ? "★" : "☆", "Star", () => change(() => changeTake({ ...take, starred: !starred }), `Star: ${aboutOf(take)}`), star),
      button("Play", "Play", () => attempt(async () => actions.onplay({ ...take, samples: await samplesOf(take) }))),
      button("Rename", "Rename", () => rename(take, title)),
      button("Use again", "Use again", () => actions.onreuse(take)),
      button("Delete", "Delete", () => change(() => removeTake(take)))));
}

/** Put a field in the place of a title; Enter and leaving it keep the name, Escape does not. */
function rename(take, title) {
  const field = make("input", { value: take.name ?? "", maxLength: 100, placeholder: "A name for this take", "aria-label": "Name of the take" });
  const end = (name) => {
    field.removeEventListener("blur", leave);
    take.name = name;
    title.textContent = titleOf(take);
    field.replaceWith(title);
    title.closest("li").querySelectorAll("button").forEach((button) => labelled(button, take));
    return changeTake(take);
  };
  const leave = () => attempt(() => end(field.value.trim())); // the list stays: a click in it may be under way
  field.addEventListener("blur", leave);
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault(); // Enter would speak, and Escape stop
    const name = event.key === "Enter" ? field.value.trim() : take.name;
    change(() => end(name), `Rename: ${aboutOf({ ...take, name })}`);
  });
  title.replaceWith(field);
  field.focus();
}

async function show() {
  const takes = await allTakes();
  const starred = takes.filter((take) => take.starred).length;
  list.replaceChildren(...takes.map(row));
  note.hidden = takes.length > 0;
  note.textContent = NONE;
  clear.hidden = takes.length === starred;
  clear.textContent = starred ? "Clear all without a star" : "Clear all";
}

/** Change what is kept; the button that was pressed is gone then, so that another one or the title has the focus. */
async function change(work, label) {
  await attempt(async () => {
    await work();
    await show();
  });
  const again = [...list.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === label);
  (again ?? byId("recent-title")).focus();
}

async function attempt(work) {
  try {
    await work();
  } catch (error) {
    const told = sentence(`This browser keeps no results: ${error.message || error.name}`);
    if (note.textContent !== told) note.textContent = told; // it is a live region
    note.hidden = false;
  }
}

/** Keep a take and show it in the list. */
export async function keepTake(take) {
  await attempt(async () => {
    await addTake(take);
    await show();
  });
}

/** Start the list. `onplay` is called with a take and its samples, `onreuse` with a take. */
export function startRecent(handlers) {
  actions = handlers;
  clear.addEventListener("click", () => change(removeOthers));
  attempt(show);
}
