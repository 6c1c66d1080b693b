// Copies the form: as a link that fills it again, or as a program that asks for the same speech.

import { API, hasKey } from "./api.js";
import { byId, copyText } from "./dom.js";
import { isCaptions } from "./files.js";
import { linkTo } from "./link.js";
import { findMistake, isLocked, readRequest } from "./request_form.js";
import * as snippets from "./snippets.js";
import { clearErrors, setStatus, showError } from "./work.js";

const NAMES = { link: "The link", curl: "The curl command", python: "The Python program", node: "The Node program" };

const panel = byId("shared");
const shown = byId("shared-text");
const format = byId("response_format");

let filled;

function write(kind, request) {
  const response_format = isCaptions(format.value) ? "wav" : format.value;
  if (kind === "link") return linkTo(response_format === "wav" ? request : { ...request, response_format });
  const asked = { ...request, response_format };
  return snippets[kind]({ base: API, request: asked, key: isLocked() || hasKey(), file: `speech.${response_format}` });
}

async function share(kind) {
  if (!(await filled())) return;
  clearErrors();
  const mistake = findMistake();
  if (mistake) return showError(mistake);
  const text = write(kind, readRequest());
  if (text === null) return showError({ param: "input", message: "The text is too long for a link. Copy it as curl, Python or Node." });
  shown.textContent = text;
  panel.hidden = false;
  const copied = await copyText(shown);
  setStatus(copied ? `${NAMES[kind]} is copied.` : `${NAMES[kind]} is selected below: copy it with Ctrl and C.`);
}

/** Start; `whenFilled` waits for the voices, and returns whether they are there. */
export function startSharing(whenFilled) {
  filled = whenFilled;
  for (const button of document.querySelectorAll("[data-share]")) {
    button.addEventListener("click", () => share(button.dataset.share));
  }
  byId("unshare").addEventListener("click", () => (panel.hidden = true));
}
