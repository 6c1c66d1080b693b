// The form: it is read into the body of a request, and filled from one.

import { listModels, listVoices } from "./api.js";
import { byId, capital, make, sentence } from "./dom.js";
import { followLanguages } from "./examples.js";
import { chosenVoice, showVoices } from "./picker.js";
import { showSpeed } from "./speed.js";
import { showText } from "./text_field.js";

const form = byId("request");
const NUMBERS = ["temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_new_tokens"];
/** Of a codec frame, by which the server counts `max_new_tokens`; the form has seconds. */
export const FRAME_SECONDS = 0.08;

let models = [];
let locked = false;

/** Whether the server wants a key that this page does not have. */
export const isLocked = () => locked;

export const chosenModel = () => models.find(({ id }) => id === form.elements.model.value) ?? {};

/** Returns the codec frames that fit into so many seconds, at least one. */
const framesIn = (seconds) => Math.max(1, Math.floor(seconds / FRAME_SECONDS + 1e-6));

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
  if ("max_new_tokens" in request) request.max_new_tokens = framesIn(request.max_new_tokens);
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
  if (!elements.language.value) elements.language.value = "auto"; // the model does not speak that one
  elements.speed.value = request.speed ?? 1;
  elements.instructions.value = request.instructions ?? "";
  for (const name of NUMBERS) elements[name].value = request[name] ?? "";
  if (request.max_new_tokens) elements.max_new_tokens.value = Number((request.max_new_tokens * FRAME_SECONDS).toFixed(2));
  showCounts();
}

export function showCounts() {
  showText();
  showSpeed();
}

/** Load the list of models; returns whether the server wants a key that this page does not have. */
export async function showModels() {
  const listed = await listModels();
  ({ models, locked } = listed);
  const before = form.elements.model.value;
  form.elements.model.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  if (models.some(({ id }) => id === before)) form.elements.model.value = before;
  await showModel();
  return locked;
}

/** Show what the chosen model can do, and which voices it has. */
export async function showModel() {
  const { id, description, problem, instructions, cloning, languages = ["auto"] } = chosenModel();
  const follows = instructions === undefined ? "" : instructions ? "Instructions are followed here." : "Instructions are not followed here.";
  byId("model-help").textContent = problem ?? [description && sentence(description), follows].filter(Boolean).join(" ");
  const language = form.elements.language.value;
  form.elements.language.replaceChildren(...languages.map((name) => make("option", { value: name }, capital(name))));
  form.elements.language.value = languages.includes(language) ? language : "auto";
  followLanguages(languages);
  const ignored = instructions === false;
  form.elements.instructions.disabled = ignored;
  byId("instructions-help").textContent = ignored ? "This model does not follow instructions." : "How to say it, in your own words.";
  showVoices([]); // so that an error does not leave the voices of another model
  const { voices, uploaded_voices: kept = [] } = await listVoices(id);
  if (id !== chosenModel().id) return;
  const made = new Map(kept.map((card) => [card.id, card.created_at]));
  showVoices(voices.map((voice) => ({ ...voice, created_at: made.get(voice.id) })));
  if (cloning && !voices.length) byId("voice-count").textContent = "It speaks with cloned voices only: make one under Voices.";
  if (voices.length === 1 && instructions) byId("advanced").open = true;
}
