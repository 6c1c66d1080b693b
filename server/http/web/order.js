// The form: what is to be said and how, as the API wants it.

import { listModels, listVoices } from "./api.js";
import { byId, capital, make } from "./dom.js";
import { chosenVoice, showVoices } from "./picker.js";

const form = byId("order");
const NUMBERS = ["temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_new_tokens"];
const TAG = /\[(?:pause:)?(\d+(?:\.\d+)?)s\]|<break\s+time\s*=\s*(["'])\s*(\d+(?:\.\d+)?)(m?s)\s*\2\s*\/>/g;

let models = [];

const model = () => models.find(({ id }) => id === form.elements.model.value) ?? {};

/** How the text adds up, silence tags and all. */
export function countText(text) {
  let silence = 0;
  for (const [, plain, , time, unit] of text.matchAll(TAG)) silence += plain ? +plain : time / (unit === "ms" ? 1000 : 1);
  const length = [...text].length;
  const pauses = silence ? `, ${Number(silence.toFixed(3))} s of pauses` : "";
  return `${length} character${length === 1 ? "" : "s"}${pauses}`;
}

/** The body of a request for speech; what is left at its default is left out. */
export function readOrder() {
  const { elements } = form;
  const order = { model: elements.model.value, input: elements.input.value, voice: chosenVoice()?.id ?? "" };
  if (elements.language.value !== "auto") order.language = elements.language.value;
  if (elements.speed.value !== "1") order.speed = Number(elements.speed.value);
  const instructions = elements.instructions.value.trim();
  if (instructions && !elements.instructions.disabled) order.instructions = instructions;
  for (const name of NUMBERS) {
    if (elements[name].value !== "") order[name] = Number(elements[name].value);
  }
  return order;
}

/** The first field whose value cannot be sent, and why; null where all can. */
export function findMistake() {
  const { elements } = form;
  if (!elements.input.value.trim()) return { param: "input", message: "Write something to say first." };
  if (!chosenVoice()) return { param: "search", message: "There is no voice to speak with." };
  for (const name of NUMBERS) {
    const field = elements[name];
    if (!field.validity.valid) return { param: name, message: `${field.labels[0].textContent}: ${field.validationMessage}` };
  }
  return null;
}

/** Mark the field that an error is about and go there; with null unmark all. */
export function blame(param) {
  form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  const field = param && byId(param);
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  const details = field.closest("details");
  if (details) details.open = true;
  field.focus();
}

/** Set the form as an order was. */
export async function fillOrder(order) {
  const { elements } = form;
  if (models.some(({ id }) => id === order.model) && elements.model.value !== order.model) {
    elements.model.value = order.model;
    await showModel();
  }
  elements.input.value = order.input;
  elements.language.value = order.language ?? "auto";
  elements.speed.value = order.speed ?? 1;
  elements.instructions.value = order.instructions ?? "";
  for (const name of NUMBERS) elements[name].value = order[name] ?? "";
  showCounts();
}

export function showCounts() {
  byId("count").textContent = countText(form.elements.input.value);
  byId("speed-shown").textContent = `${Number(form.elements.speed.value)}×`;
}

/** Load the models; returns whether the server wants a key that we do not have. */
export async function showModels() {
  const listed = await listModels();
  models = listed.models;
  const before = form.elements.model.value;
  form.elements.model.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  if (models.some(({ id }) => id === before)) form.elements.model.value = before;
  await showModel();
  return listed.locked;
}

/** Show what the chosen model can do, and its voices. */
export async function showModel() {
  const { id, description, problem, instructions, languages = ["auto"] } = model();
  byId("model-help").textContent = problem ?? description ?? "";
  const language = form.elements.language.value;
  form.elements.language.replaceChildren(...languages.map((name) => make("option", { value: name }, capital(name))));
  form.elements.language.value = languages.includes(language) ? language : "auto";
  const ignored = instructions === false;
  form.elements.instructions.disabled = ignored;
  byId("instructions-help").textContent = ignored ? "This model does not follow instructions." : "How to say it, in your own words.";
  showVoices([]); // an error must not leave another model's
  const voices = await listVoices(id);
  if (id !== model().id) return;
  showVoices(voices);
  if (voices.length === 1 && instructions) byId("advanced").open = true;
}
