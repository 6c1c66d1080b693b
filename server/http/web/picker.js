// The voice picker: one group of radio buttons, narrowed by a search and by filters. Each voice can be heard and be a favourite.

import { byId, make } from "./dom.js";
import { isFavourite, toggleFavourite } from "./favourites.js";
import { clearFilters, fitsFilters, isFiltered, showFilters, startFilters } from "./filters.js";
import { factsOf, fits, heardOf, isOwn, kindOf, wordsOf } from "./voice.js";

const list = byId("voices");
const search = byId("search");
const count = byId("voice-count");

const many = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

let voices = [];
let chosen = "";
let sounding = {}; // the id of the voice whose sample is heard or waited for, and which of both

const groupOf = (voice) => (isFavourite(voice.id) ? "Favourites" : kindOf(voice));

function makeRow(voice) {
  const name = voice.name ?? voice.id;
  const place = voices.indexOf(voice);
  const facts = [heardOf(voice), factsOf(voice)].filter(Boolean).join(" · ");
  const about = make("span", { id: `about-${place}` });
  if (name !== voice.id) about.append(" ", make("code", {}, voice.id));
  for (const line of [voice.description, facts]) {
    if (line) about.append(make("span", { class: "hint" }, line));
  }
  const radio = make("input", {
    type: "radio", name: "voice", value: voice.id, checked: voice.id === chosen,
    "aria-labelledby": `name-${place}`, "aria-describedby": about.id,
  });
  const label = make("label", {}, radio, make("span", { class: "voice-text" }, make("strong", { id: `name-${place}` }, name), about));
  const tabIndex = voice.id === chosen ? 0 : -1; // Tab reaches the buttons of the chosen voice; the arrows choose another one
  const star = make("button", {
    type: "button", class: "favourite", value: voice.id, tabIndex,
    "aria-label": `Favourite: ${name}`, "aria-pressed": String(isFavourite(voice.id)),
  });
  const hear = make("button", { type: "button", class: "round hear", value: voice.id, tabIndex });
  showHear(hear, name);
  return make("div", { class: "voice", "data-name": name }, label, star, hear);
}

function showHear(button, name) {
  const state = button.value === sounding.id ? sounding.state : "";
  button.dataset.state = state ? "stop" : "play";
  button.toggleAttribute("data-waiting", state === "waiting");
  button.setAttribute("aria-label", state ? `Stop the sample of ${name}` : `Hear ${name}`);
}

function makeGroup(kind, group) {
  const title = make("p", { class: "group", id: `group-${kind.replace(" ", "-")}` }, kind);
  return make("div", { role: "group", "aria-labelledby": title.id }, title, ...group.map(makeRow));
}

/** Make the list of stand-ins; it is folded up unless one of them is wanted. */
function makeStandIns(group, open) {
  const title = `Stand-ins (${group.length}): their own speakers are not in this model`;
  const rows = make("div", { role: "group", "aria-label": "Stand-ins" }, ...group.map(makeRow));
  return make("details", { open }, make("summary", { class: "group" }, title), rows);
}

function draw() {
  const wanted = wordsOf(search.value);
  const narrowed = wanted.length > 0 || isFiltered();
  const fitting = (voice) => fits(voice, wanted) && fitsFilters(voice);
  const offered = (voice) => wanted.length > 0 || isFavourite(voice.id) || kindOf(voice) !== "Other names";
  const shown = voices.filter((voice) => voice.id === chosen || (offered(voice) && fitting(voice)));
  const groupsOf = (kind) => shown.filter((voice) => groupOf(voice) === kind);
  list.replaceChildren();
  for (const kind of ["Favourites", "Speakers", "Profiles", "Other names"]) {
    const group = groupsOf(kind);
    if (group.length) list.append(makeGroup(kind, group));
  }
  const standIns = groupsOf("Stand-ins");
  const inUse = narrowed || standIns.some((voice) => voice.id === chosen);
  if (standIns.length) list.append(makeStandIns(standIns, inUse));
  const row = narrowed ? null : list.querySelector(":checked")?.closest(".voice");
  list.scrollTop = row ? row.offsetTop - list.clientHeight / 3 : 0; // scrollIntoView would move the page too
  const others = voices.length - shown.length;
  if (narrowed) {
    count.textContent = `${shown.filter(fitting).length} of ${voices.length} voices`;
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
  showFilters(voices.filter(isOwn));
  draw();
}

export const chosenVoice = () => voices.find((voice) => voice.id === chosen);

/** Choose a voice; returns whether the model has it. */
export function chooseVoice(id) {
  if (!voices.some((voice) => voice.id === id)) return false;
  chosen = id;
  search.value = "";
  clearFilters();
  draw();
  return true;
}

/** Show whose sample is heard ("playing") or waited for ("waiting"). */
export function showSounding(id, state) {
  if (sounding.id === id && sounding.state === state) return;
  sounding = { id, state };
  for (const button of list.querySelectorAll(".hear")) showHear(button, button.parentElement.dataset.name);
}

function press(button, onhear) {
  if (button.matches(".hear")) return onhear(voices.find(({ id }) => id === button.value));
  toggleFavourite(button.value);
  const { scrollTop } = list;
  draw();
  list.scrollTop = scrollTop;
  list.querySelector(`.favourite[value="${CSS.escape(button.value)}"]`)?.focus(); // its row has another place now
}

/** Start the picker: `onchoice` is called when a voice is chosen, `onhear` with the voice whose sample is wanted. */
export function startVoices(onchoice, onhear) {
  startFilters(draw);
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") event.preventDefault();
  });
  list.addEventListener("change", (event) => {
    chosen = event.target.value;
    for (const button of list.querySelectorAll("button")) button.tabIndex = button.value === chosen ? 0 : -1;
    onchoice();
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) press(button, onhear);
  });
}
