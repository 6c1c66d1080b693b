// Helpers for elements and texts of the page.

export const byId = (id) => document.getElementById(id);

/** Make an element. `class` and names with a dash become attributes, all others properties. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** Turn a server's message into a sentence: with a capital, unless it begins with a field's name, and a full stop. */
export function sentence(message) {
  const text = message.trim();
  return (/^[a-z]+_/.test(text) ? text : capital(text)) + (/[.!?]$/.test(text) ? "" : ".");
}

export const seconds = (value) => `${value.toFixed(value < 10 ? 2 : 1)} s`;

export const clock = (value) => `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")}`;

/** Copy an element's text; plain HTTP has no clipboard API, only the old command. Returns whether that worked. */
export async function copyText(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}

/** Wrap what asks for something: of calls that overlap only the last one returns what it is told, the others null. */
export function lastOf(ask) {
  let last = 0;
  return async () => {
    const mine = ++last;
    const told = await ask();
    return mine === last ? told : null;
  };
}

/** Wait for so many milliseconds, unless the signal aborts before. */
export const waited = (ms, signal) =>
  new Promise((resolve, reject) => {
    setTimeout(resolve, ms);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
