// The voice picker: one group of radio buttons, narrowed by a search.

import { byId, make } from "./dom.js";
import { factsOf, fits, kindOf, wordsOf } from "./voice.js";

const list = byId("voices");
const search = byId("search");
const count = byId("voice-count");

let voices = [];
let chosen = "";

function row(voice) {
  const radio = make("input", { type: "radio", name: "voice", value: voice.id, checked: voice.id === chosen });
  const text = make("span", { class: "voice-text" }, make("strong", {}, voice.name ?? voice.id));
  if (voice.name !== voice.id) text.append(" ", make("code", {}, voice.id));
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
    if (group.length) list.append(make("p", { class: "group" }, kind), ...group.map(row));
  }
  const others = voices.length - shown.length;
  count.textContent = wanted.length
    ? `${shown.filter((voice) => fits(voice, wanted)).length} of ${voices.length} voices`
    : `${shown.length} voices` + (others ? `, and ${others} names of OpenAI's and Kokoro's: search for them` : "");
}

/** Show a model's voices; the chosen one stays where the model has it. */
export function showVoices(listed) {
  voices = listed;
  if (!voices.some((voice) => voice.id === chosen)) chosen = voices[0]?.id ?? "";
  draw();
  list.querySelector(":checked")?.closest("label").scrollIntoView({ block: "nearest" });
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
