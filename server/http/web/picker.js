// The voice picker: one group of radio buttons, narrowed by a search.

import { byId, make } from "./dom.js";
import { factsOf, fits, heardOf, kindOf, wordsOf } from "./voice.js";

const list = byId("voices");
const search = byId("search");
const count = byId("voice-count");

const many = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

let voices = [];
let chosen = "";

function makeRow(voice) {
  const radio = make("input", { type: "radio", name: "voice", value: voice.id, checked: voice.id === chosen });
  const text = make("span", { class: "voice-text" }, make("strong", {}, voice.name ?? voice.id));
  if (voice.name && voice.name !== voice.id) text.append(" ", make("code", {}, voice.id));
  const facts = [heardOf(voice), factsOf(voice)].filter(Boolean).join(" · ");
  for (const line of [voice.description, facts]) {
    if (line) text.append(make("span", { class: "hint" }, line));
  }
  return make("label", { class: "voice" }, radio, text);
}

/** Make the list of stand-ins; it is folded up unless one of them is wanted. */
function makeStandIns(group, open) {
  const title = `Stand-ins (${group.length}): their own speakers are not in this model`;
  return make("details", { open }, make("summary", { class: "group" }, title), ...group.map(makeRow));
}

function draw() {
  const wanted = wordsOf(search.value);
  const shown = voices.filter(
    (voice) => voice.id === chosen || (wanted.length ? fits(voice, wanted) : kindOf(voice) !== "Other names"),
  );
  list.replaceChildren();
  for (const kind of ["Speakers", "Profiles", "Other names"]) {
    const group = shown.filter((voice) => kindOf(voice) === kind);
    if (group.length) list.append(make("p", { class: "group" }, kind), ...group.map(makeRow));
  }
  const standIns = shown.filter((voice) => voice.stand_in);
  const inUse = wanted.length > 0 || standIns.some((voice) => voice.id === chosen);
  if (standIns.length) list.append(makeStandIns(standIns, inUse));
  const row = wanted.length ? null : list.querySelector(":checked")?.parentElement;
  list.scrollTop = row ? row.offsetTop - list.clientHeight / 3 : 0; // scrollIntoView would move the page too
  const others = voices.length - shown.length;
  if (wanted.length) {
    count.textContent = `${shown.filter((voice) => fits(voice, wanted)).length} of ${voices.length} voices`;
  } else {
    const counts = [many(shown.length - standIns.length, "voice")];
    if (standIns.length) counts.push(many(standIns.length, "stand-in"));
    if (others) counts.push(`${many(others, "other name")} to search for`);
    count.textContent = counts.join(", ");
  }
}

/** Show a model's voices; the chosen voice stays chosen if the model has it. */
export function showVoices(listed) {
  voices = listed;
  if (voices.length && !chosenVoice()) chosen = voices[0].id;
  draw();
}

export const chosenVoice = () => voices.find((voice) => voice.id === chosen);

export function chooseVoice(id) {
  if (!voices.some((voice) => voice.id === id)) return;
  chosen = id;
  search.value = "";
  draw();
}

export function startVoices(onchoice) {
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  list.addEventListener("change", (event) => {
    chosen = event.target.value;
    onchoice();
  });
}
