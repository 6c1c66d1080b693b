// The form: it is read into the body of a request, and filled from one.

import { listModels, listVoices } from "./api.js";
import { byId, capital, make } from "./dom.js";
import { chosenVoice, showVoices } from "./picker.js";

const form = byId("request");
const NUMBERS = ["temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_new_tokens"];
const TAG = /\[(?:pause:)?(\d+(?:\.\d+)?)s\]|<break\s+time\s*=\s*(["'])\s*(\d+(?:\.\d+)?)(m?s)\s*\2\s*\/>/g;

let models = [];

const model = () => models.find(({ id }) => id === form.elements.model.value) ?? {};

/** Say how many characters the text has, and how long its pauses are. */
export function countText(text) {
  let silence = 0;
  for (const [, plain, , time, unit] of text.matchAll(TAG)) silence += plain ? +plain : time / (unit === "ms" ? 1000 : 1);
  const length = [...text].length;
  const pauses = silence ? `, ${Number(silence.toFixed(3))} s of pauses` : "";
  return `${length} character${length === 1 ? "" : "s"}${pauses}`;
}

/** Read the form into the body of a speech request; fields at their defaults are left out. */
export function readRequest() {
  const { elements } = form;
  const request = { model: elements.model.value, input: elements.input.value, voice: chosenVoice()?.id ?? "" };
  if (elements.language.value !== "auto") request.language = elements.language.value;
  if (elements.speed.value !== "1") request.speed = Number(elements.speed.value);
  const instructions = elements.instructions.value.trim();
  if (instructions && !elements.instructions.disabled) request.instructions = instructions;
  for (const name of NUMBERS) {
    if (elements[name].value !== "") request[name] = Number(elements[name].value);
  }
  return request;
}

/** Find the first field whose value cannot be sent, and why; returns null if all can be sent. */
export function findMistake(text = form.elements.input.value) {
  const { elements } = form;
  if (!text.trim()) return { param: "input", message: "Write something to say first." };
  if (!chosenVoice()) return { param: "search", message: "There is no voice to speak with." };
  for (const name of NUMBERS) {
    const field = elements[name];
    if (!field.validity.valid) return { param: name, message: `${field.labels[0].textContent}: ${field.validationMessage}` };
  }
  return null;
}

/** Fill the form from the body of a request. */
export async function fillForm(request) {
  const { elements } = form;
  if (models.some(({ id }) => id === request.model) && elements.model.value !== request.model) {
    elements.model.value = request.model;
    await showModel();
  }
  elements.input.value = request.input;
  elements.language.value = request.language ?? "auto";
  elements.speed.value = request.speed ?? 1;
  elements.instructions.value = request.instructions ?? "";
  for (const name of NUMBERS) elements[name].value = request[name] ?? "";
  showCounts();
}

export function showCounts() {
  byId("count").textContent = countText(form.elements.input.value);
  byId("speed-shown").textContent = `${Number(form.elements.speed.value)}×`;
}

/** Load the list of models; returns whether the server wants a key that this page does not have. */
export async function showModels() {
  const listed = await listModels();
  models = listed.models;
  const before = form.elements.model.value;
  form.elements.model.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  if (models.some(({ id }) => id === before)) form.elements.model.value = before;
  await showModel();
  return listed.locked;
}

/** Show what the chosen model can do, and which voices it has. */
export async function showModel() {
  const { id, description, problem, instructions, cloning, languages = ["auto"] } = model();
  byId("model-help").textContent = problem ?? description ?? "";
  const language = form.elements.language.value;
  form.elements.language.replaceChildren(...languages.map((name) => make("option", { value: name }, capital(name))));
  form.elements.language.value = languages.includes(language) ? language : "auto";
  const ignored = instructions === false;
  form.elements.instructions.disabled = ignored;
  byId("instructions-help").textContent = ignored ? "This model does not follow instructions." : "How to say it, in your own words.";
  showVoices([]); // so that an error does not leave the voices of another model
  const { voices } = await listVoices(id);
  if (id !== model().id) return;
  showVoices(voices);
  if (cloning && !voices.length) byId("voice-count").textContent = "It speaks with cloned voices only: make one under Voices.";
  if (voices.length === 1 && instructions) byId("advanced").open = true;
}
