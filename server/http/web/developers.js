// The developers' page: it makes a key, and shows examples and lists of this server.

import { API, hasKey, listModels, listVoices } from "./api.js";
import { byId, copyText, make, sentence } from "./dom.js";
import * as snippets from "./snippets.js";
import { factsOf, heardOf } from "./voice.js";

const KEY_BYTES = 32;
const model = byId("model");
const voice = byId("voice");

let withKey = false;

const cell = (content) => make("td", {}, content);
const idCell = (id) => make("th", { scope: "row" }, make("code", {}, id));

function makeKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const key = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  byId("key-line").textContent = `KW_SECRET_API_KEY="sk-${key}"`;
  byId("made").hidden = false;
  byId("make-key").textContent = "Make another key";
  byId("status").textContent = "A new key is shown below.";
}

async function copy(button) {
  const copied = await copyText(byId(button.dataset.copy));
  const words = button.textContent;
  byId("status").textContent = copied ? "Copied." : "The text is selected: copy it with Ctrl and C.";
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = words), 2000);
}

function showExamples() {
  const values = { base: API, model: model.value || "tts-1", voice: voice.value || "alloy", key: withKey };
  for (const [name, write] of Object.entries(snippets)) byId(name).textContent = write(values);
}

function modelRow({ id, description, precision, instructions, languages }) {
  const follows = instructions === undefined ? "" : instructions ? "follows them" : "ignores them";
  return make("tr", {}, idCell(id), cell(description ?? ""), cell(precision ?? ""), cell(follows), cell((languages ?? []).join(", ")));
}

function voiceRow(listed) {
  const { id, name, description } = listed;
  const what = [heardOf(listed), description, factsOf(listed)].filter(Boolean).join(" · ");
  return make("tr", {}, idCell(id), cell(name ?? id), cell(what));
}

async function showVoices() {
  const id = model.value;
  const { voices: listed } = await listVoices(id);
  if (id !== model.value) return;
  voice.replaceChildren(...listed.map(({ id }) => make("option", { value: id }, id)));
  byId("voices").replaceChildren(...listed.map(voiceRow));
  byId("voices-model").textContent = model.value;
  showExamples();
}

async function showAll() {
  const { models, locked } = await listModels();
  withKey = locked || hasKey();
  byId("key-needed").textContent = locked
    ? "This server wants its API key. Without it only the models' ids can be shown here."
    : "";
  model.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  byId("models").replaceChildren(...models.map(modelRow));
  await showVoices();
}

async function attempt(work) {
  try {
    byId("error").textContent = "";
    await work();
  } catch (error) {
    byId("error").textContent = sentence(error.message);
  }
}

byId("base").textContent = API;
byId("make-key").addEventListener("click", makeKey);
for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => attempt(() => copy(button)));
model.addEventListener("change", () => attempt(showVoices));
voice.addEventListener("change", showExamples);
showExamples();
attempt(showAll);
