// Work of a page that asks the server: one piece at a time. The page shows its status and its errors.

import { hasKey } from "./api.js";
import { byId, sentence, waited } from "./dom.js";
import { askForKey } from "./key.js";

const form = document.querySelector("form.columns");

let running = null; // the AbortController of the work under way, or null
let onchange;

/** Start; `changed` is called when work begins or ends. */
export const startWork = (changed) => (onchange = changed);

export const isRunning = () => running !== null;

export const setStatus = (text) => (byId("status").textContent = text);

export const showLoading = () => setStatus("The model is being loaded …");

/** Mark the field that an error is about and focus it; null removes all marks. */
function markField(param) {
  form.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  const field = param && byId(param);
  if (!field || field === form) return;
  field.setAttribute("aria-invalid", "true");
  const details = field.closest("details");
  if (details) details.open = true;
  field.focus();
}

export function showError(error) {
  setStatus("");
  if (error.status === 401) {
    askForKey(hasKey() ? sentence(error.message) : "Enter the key first.");
    return;
  }
  const again = error.status === 429 && error.retryAfter ? ` Try again in ${error.retryAfter} seconds.` : "";
  byId("error").textContent = sentence(error.message) + again;
  markField(error.param);
}

export function clearErrors() {
  byId("error").textContent = "";
  markField(null);
}

/** Stop the work under way. */
export function abort() {
  running?.abort();
  running = null;
}

/** Run work that asks the server, and stop what is under way. Errors are shown; stopping is not an error. */
export async function runAlone(work) {
  running?.abort();
  clearErrors();
  const mine = (running = new AbortController());
  onchange();
  try {
    await work(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) {
      if (running === null) setStatus("Stopped.");
    } else if (error.status === undefined) {
      showError({ message: "The page made a mistake; the browser's console says more." });
      throw error;
    } else showError(error);
  } finally {
    if (running === mine) running = null;
    onchange();
  }
}

/** Ask the server, and ask again while it loads the model. */
export async function whenLoaded(ask, signal) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error.code !== "model_loading") throw error;
      showLoading();
      await waited(1000 * Math.max(1, error.retryAfter), signal);
    }
  }
}

/** Run work that fills the page, and show its errors; returns whether it was done. */
export async function showingErrors(work) {
  clearErrors();
  let done = false;
  try {
    await work();
    done = true;
  } catch (error) {
    if (error.status === undefined) throw error;
    showError(error);
  }
  onchange();
  return done;
}
