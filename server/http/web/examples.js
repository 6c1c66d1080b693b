// The texts that are offered to begin with. One that nobody has changed follows the chosen language.

import { byId } from "./dom.js";
import { TEXTS, textLanguage } from "./texts.js";

const field = byId("input");
const language = byId("language");
const back = byId("own-text");

let spoken = []; // the languages of the model
let own = ""; // the text that an example took the place of

/** Returns which kind of example the text is, or undefined where it is somebody's own. */
function kindOfText() {
  for (const texts of Object.values(TEXTS)) {
    const found = Object.entries(texts).find(([, text]) => text === field.value);
    if (found) return found[0];
  }
}

function put(text) {
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

const exampleOf = (kind) => TEXTS[textLanguage(language.value, spoken)][kind];

function offer(kind) {
  if (field.value.trim() && !kindOfText()) own = field.value;
  put(exampleOf(kind));
  back.hidden = !own;
}

function follow() {
  const kind = kindOfText();
  if (kind && field.value !== exampleOf(kind) && !byId("live").checked) put(exampleOf(kind));
}

/** Empty the field, unless the text is somebody's own. */
export function clearExample() {
  if (kindOfText()) put("");
}

/** Note the languages that the model speaks. */
export function followLanguages(languages) {
  spoken = languages;
  follow();
}

export function startExamples() {
  for (const chip of document.querySelectorAll("[data-example]")) {
    chip.addEventListener("click", () => offer(chip.dataset.example));
  }
  back.addEventListener("click", () => {
    put(own);
    own = "";
    back.hidden = true;
    field.focus();
  });
  language.addEventListener("change", follow);
}
