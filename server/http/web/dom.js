// Small helpers for the document.

export const byId = (id) => document.getElementById(id);

/** Make an element: properties are set as they are, `class` and names with a dash as attributes. */
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

/** A sentence out of a server's message: a capital, unless a field's name leads, and a full stop. */
export function sentence(message) {
  const text = message.trim();
  return (/^[a-z]+_/.test(text) ? text : capital(text)) + (/[.!?]$/.test(text) ? "" : ".");
}

export const seconds = (value) => `${value.toFixed(value < 10 ? 2 : 1)} s`;

export const clock = (value) => `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")}`;

/** Copy an element's text; without the clipboard (plain HTTP on a network) select it and use the old command. */
export async function copyText(source) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(source.textContent);
    return true;
  }
  getSelection().selectAllChildren(source);
  return document.execCommand("copy");
}
