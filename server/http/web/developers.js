// The developers' page: it makes a key, and shows examples, lists and tables of this server.

import { API, ROOT, describeApi, hasKey, listModels, listVoices } from "./api.js";
import { settingsOf } from "./client_settings.js";
import { byId, copyText, make, sentence } from "./dom.js";
import { cell, endpointRows, errorRows, fieldRows, full } from "./reference.js";
import { curl, node, python } from "./snippets.js";
import { events, play, speaker } from "./stream_snippets.js";
import { factsOf, heardOf } from "./voice.js";

const KEY_BYTES = 32;
const EXAMPLES = { curl, python, node, play, speaker, events };
const TEXT = "Hello from my own machine.";
const model = byId("model");
const voice = byId("voice");

let withKey = false;

const idCell = (id) => make("th", { scope: "row" }, make("code", {}, id));

function showKey(key) {
  const line = `KW_SECRET_API_KEY="${key}"`;
  byId("key-line").textContent = line;
  byId("key-docker").textContent = `docker run --publish 3000:3000 --env ${line} qwen3-tts-edge:cpu`;
  byId("key-compose").textContent = `services:\n  server:\n    environment:\n      KW_SECRET_API_KEY: "${key}"`;
  byId("key-alone").textContent = key;
  byId("key-header").textContent = `Authorization: Bearer ${key}`;
}

function makeKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const key = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  showKey(`sk-${key}`);
  byId("make-key").textContent = "Make another key";
  byId("status").textContent = "A new key is shown below.";
}

async function copy(button) {
  const copied = await copyText(byId(button.dataset.copy));
  button.dataset.words ??= button.textContent;
  byId("status").textContent = copied ? "Copied." : "The text is selected: copy it with Ctrl and C.";
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = button.dataset.words), 2000);
}

function showExamples() {
  const chosen = { model: model.value || "tts-1", voice: voice.value || "alloy" };
  const values = { base: API, ...chosen, key: withKey, request: { ...chosen, input: TEXT }, file: "hello.mp3" };
  for (const [name, write] of Object.entries(EXAMPLES)) byId(name).textContent = write(values);
}

function modelRow({ id, description, precision, instructions, languages }) {
  const follows = instructions === undefined ? "" : instructions ? "follows them" : "ignores them";
  return make("tr", {}, idCell(id), full(description ?? ""), cell(precision ?? ""), cell(follows), cell((languages ?? []).join(", ")));
}

function voiceRow(listed) {
  const { id, name, description } = listed;
  const what = [heardOf(listed), description, factsOf(listed)].filter(Boolean).join(" · ");
  return make("tr", {}, idCell(id), cell(name ?? id), full(what));
}

async function showVoices() {
  const id = model.value;
  const { voices: listed } = await listVoices(id);
  if (id !== model.value) return;
  voice.replaceChildren(...listed.map(({ id }) => make("option", { value: id }, id)));
  byId("voices").replaceChildren(...listed.map(voiceRow));
  byId("voices-model").textContent = model.value;
  byId("no-voices").hidden = listed.length > 0;
  showExamples();
}

async function showAll() {
  const { models, locked } = await listModels();
  withKey = locked || hasKey();
  byId("key-needed").textContent = locked
    ? "This server wants its API key. Without it only the models' ids can be shown here."
    : hasKey()
      ? ""
      : "This server has no keys at present, and answers requests without this header.";
  model.replaceChildren(...models.map(({ id }) => make("option", { value: id }, id)));
  byId("models").replaceChildren(...models.map(modelRow));
  await showVoices();
}

async function showReference() {
  const api = await describeApi();
  byId("endpoints").replaceChildren(...endpointRows(api));
  byId("payload").replaceChildren(...fieldRows(api));
  byId("errors").replaceChildren(...errorRows(api));
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
byId("base-kokoro").textContent = new URL("api/v1", ROOT).href;
showKey("your-generated-key");
for (const client of ["open-webui", "sillytavern"]) byId(client).replaceChildren(...settingsOf(client));
byId("make-key").addEventListener("click", makeKey);
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-copy]");
  if (button) attempt(() => copy(button));
});
model.addEventListener("change", () => attempt(showVoices));
voice.addEventListener("change", showExamples);
showExamples();
attempt(async () => {
  await Promise.all([showAll(), showReference()]);
});
