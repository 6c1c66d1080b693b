// The voice picker: one group of radio buttons, narrowed by a search.

import { byId, make } from "./dom.js";
import { factsOf, fits, kindOf, wordsOf } from "./voice.js";

const list = byId("voices");
const search = byId("search");
const count = byId("voice-count");

let voices = [];
let chosen = "";

function makeRow(voice) {
  const radio = make("input", { type: "radio", name: "voice", value: voice.id, checked: voice.id === chosen });
  const text = make("span", { class: "voice-text" }, make("strong", {}, voice.name ?? voice.id));
  if (voice.name && voice.name !== voice.id) text.append(" ", make("code", {}, voice.id));
  if (voice.description) text.append(make("span", { class: "hint" }, voice.description));
  const facts = factsOf(voice);
  if (facts) text.append(make("span", { class: "hint" }, facts));
  return make("label", { class: "voice" }, radio, text);
}

function draw() {
  const wanted = wordsOf(search.value);
  const shown = voices.filter(
    (voice) => voice.id === chosen || (wanted.length ? fits(voice, wanted) : kindOf(voice) !== "Other names"),
  );
  list.replaceChildren();
  for (const kind of ["Profiles", "Speakers", "Other names"]) {
    const group = shown.filter((voice) => kindOf(voice) === kind);
    if (group.length) list.append(make("p", { class: "group" }, kind), ...group.map(makeRow));
  }
  const row = wanted.length ? null : list.querySelector(":checked")?.parentElement;
  list.scrollTop = row ? row.offsetTop - list.clientHeight / 3 : 0; // scrollIntoView would move the page too
  const found = wanted.length ? shown.filter((voice) => fits(voice, wanted)) : shown;
  const others = voices.length - shown.length;
  if (wanted.length) count.textContent = `${found.length} of ${voices.length} voices`;
  else count.textContent = `${found.length} voices` + (others ? `, and ${others} other names: search for them` : "");
}

/** Show a model's voices; the chosen one stays where the model has it. */
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
