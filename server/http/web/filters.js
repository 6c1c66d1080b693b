// Filters of the voices, by what the server tells of them; what it does not tell, or tells of all alike, has no filter.

import { byId, capital, make } from "./dom.js";

const panel = byId("filters");
const FOLLOWS = "Follows instructions";
const VALUES = {
  gender: ({ gender }) => [gender],
  instructions: (voice) => [voice.instruction_used && FOLLOWS],
  language: ({ language, languages }) => (language ? [language] : (languages ?? [])),
  style: ({ tags }) => tags ?? [],
};
const SELECTS = { language: ["Any language", "Language of the voice"], style: ["Any style", "Style of the voice"] };

let wanted = {}; // the value of each filter that is in use
let onchange;

export const isFiltered = () => Object.keys(wanted).length > 0;

export const fitsFilters = (voice) => Object.entries(wanted).every(([name, value]) => VALUES[name](voice).includes(value));

/** Returns the values of a filter that some of the voices have, and not all. */
function valuesOf(name, voices) {
  const all = new Set(voices.flatMap(VALUES[name]).filter(Boolean));
  return [...all].filter((value) => !voices.every((voice) => VALUES[name](voice).includes(value))).sort();
}

function want(name, value) {
  if (value) wanted[name] = value;
  else delete wanted[name];
  onchange();
}

function makeChip(name, value) {
  const show = () => {
    for (const chip of panel.querySelectorAll(`[data-filter="${name}"]`)) {
      chip.setAttribute("aria-pressed", String(chip.value === wanted[name]));
    }
  };
  const press = () => {
    want(name, wanted[name] === value ? "" : value);
    show();
  };
  const pressed = String(wanted[name] === value);
  const properties = { type: "button", class: "chip", value, onclick: press, "data-filter": name, "aria-pressed": pressed };
  return make("button", properties, capital(value));
}

function makeSelect(name, values) {
  const [any, label] = SELECTS[name];
  const options = values.map((value) => make("option", { value, selected: value === wanted[name] }, capital(value).replaceAll("_", " ")));
  const select = make("select", { class: "chip", "aria-label": label }, make("option", { value: "" }, any), ...options);
  select.addEventListener("change", () => want(name, select.value));
  return select;
}

/** Offer what the voices differ in; filters that are not offered any more are not in use either. */
export function showFilters(voices) {
  const offered = Object.keys(VALUES).map((name) => [name, valuesOf(name, voices)]);
  wanted = Object.fromEntries(offered.flatMap(([name, values]) => (values.includes(wanted[name]) ? [[name, wanted[name]]] : [])));
  const parts = ([name, values]) => {
    if (!values.length) return [];
    return name in SELECTS ? [makeSelect(name, values)] : values.map((value) => makeChip(name, value));
  };
  panel.replaceChildren(...offered.flatMap(parts));
}

export function clearFilters() {
  wanted = {};
  for (const chip of panel.querySelectorAll("[aria-pressed]")) chip.setAttribute("aria-pressed", "false");
  for (const select of panel.querySelectorAll("select")) select.value = "";
}

/** Start the filters; `changed` is called when another one is in use. */
export const startFilters = (changed) => (onchange = changed);
