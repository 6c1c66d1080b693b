// Links that carry the form. It stands behind `#`, which browsers do not send: a text reaches no server's log.

import { ROOT } from "./api.js";
import { byId } from "./dom.js";
import { chooseVoice } from "./picker.js";
import { FRAME_SECONDS, fillForm, isLocked, showCounts } from "./request_form.js";

const MOST_CHARACTERS = 16_000; // of the parameters, as they stand in the link
const MOST_SHOWN = 40; // characters of a value that is ignored
const FIELDS = [
  "language", "speed", "instructions", "response_format",
  "temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_new_tokens",
];
const NAMES = ["model", "voice", "text", ...FIELDS];

const form = byId("request");

let waiting = []; // what cannot be judged before the server takes a key

/** Returns a link that fills the form with a request, or null if that is too long for a link. */
export function linkTo({ input, ...fields }) {
  const parameters = String(new URLSearchParams({ ...fields, text: input }));
  return parameters.length > MOST_CHARACTERS ? null : `${ROOT.href}#${parameters}`;
}

/** Put a value into a field; returns whether it may stand there. */
function fill(field, value) {
  const before = field.value;
  field.value = value;
  const inRange = field.type !== "range" || (value && Number(value) >= field.min && Number(value) <= field.max);
  const taken = field.value !== "" && field.validity.valid && inRange;
  if (taken) field.dispatchEvent(new Event("change", { bubbles: true })); // what hangs on it follows, such as an example text
  else field.value = before;
  return taken;
}

function fillFrames(value) {
  const seconds = Number((value * FRAME_SECONDS).toFixed(2));
  return /^\d+$/.test(value) && fill(form.elements.max_new_tokens, String(seconds));
}

function take(name, value) {
  if (name === "model") return form.elements.model.value === value;
  if (name === "voice") return chooseVoice(value);
  return name === "max_new_tokens" ? fillFrames(value) : fill(form.elements[name], value);
}

/** Say what of a link was not taken. */
function tell(ignored) {
  const shown = ignored.map(([name, value]) => `${name} “${[...value].slice(0, MOST_SHOWN).join("")}”`);
  const rest = shown.length ? ` Ignored, because this server does not have it or it is out of range: ${shown.join(", ")}.` : "";
  return `The form is as the link has it.${rest}`;
}

/**
 * Fill the form from the page's address and take the parameters out of it, so that loading the page again does not undo
 * what is changed. Returns a sentence on it, or "" where the address has none.
 */
export async function openLink() {
  const parameters = [location.search, location.hash].map((part) => part.slice(1)).filter(Boolean).join("&");
  const wanted = new URLSearchParams(parameters);
  const given = NAMES.filter((name) => wanted.get(name)).map((name) => [name, wanted.get(name)]);
  const entries = given.length ? given : waiting;
  waiting = [];
  if (!entries.length) return "";
  if (given.length) {
    history.replaceState(null, "", location.pathname);
    if (parameters.length > MOST_CHARACTERS) return `The link was ignored: it has more than ${MOST_CHARACTERS} characters.`;
    await fillForm({ model: wanted.get("model"), input: wanted.get("text") || form.elements.input.value });
  }
  const ignored = entries.filter(([name, value]) => name !== "text" && !take(name, value));
  showCounts();
  if (isLocked()) waiting = ignored; // only with a key does the server tell which languages there are
  return tell(isLocked() ? [] : ignored);
}
