// The field for the text: its tags are marked, its characters and pauses counted, and pauses put in.

import { byId, make } from "./dom.js";
import { markSpoken } from "./spoken.js";
import { tagsOf } from "./tags.js";

const field = byId("input");
const layer = byId("tags"); // it lies behind the field and has the same text, unseen
const layers = document.querySelectorAll(".typed > [aria-hidden]"); // that one, and those of what is sent and said
const count = byId("count");

const LONG = 20_000; // characters, of which more are laid out anew only when nobody has typed for a while
const PAUSE = 300; // ms

let shown; // the text that all this is shown of
let waiting;

/** Say how many characters the text has, how long its pauses are, and how often its tags change the voice. */
export function countText(text, tags = tagsOf(text)) {
  const length = text.length - (text.match(/[\u{10000}-\u{10ffff}]/gu) ?? []).length;
  const silence = tags.reduce((sum, { seconds = 0 }) => sum + seconds, 0);
  const voices = tags.filter(({ voice }) => voice).length;
  const told = [`${length} character${length === 1 ? "" : "s"}`];
  if (silence) told.push(`${Number(silence.toFixed(3))} s of pauses`);
  if (voices) told.push(`${voices} change${voices === 1 ? "" : "s"} of voice`);
  return told.join(", ");
}

function mark(text, tags) {
  if (!tags.length) return layer.replaceChildren();
  let end = 0;
  const parts = [];
  for (const tag of tags) {
    const kind = tag.voice ? "voice-tag" : "pause-tag";
    parts.push(text.slice(end, tag.start), make("span", { class: kind }, text.slice(tag.start, tag.end)));
    end = tag.end;
  }
  layer.replaceChildren(...parts, `${text.slice(end)} `); // the blank lets both scroll alike behind a last new line
  layer.scrollTop = field.scrollTop;
}

/** Show what there is to say of the text, if it is another one. */
export function showText() {
  if (field.value === shown) return;
  shown = field.value;
  markSpoken(null);
  clearTimeout(waiting);
  if (shown.length <= LONG) describe();
  else waiting = setTimeout(describe, PAUSE);
}

function describe() {
  const tags = tagsOf(shown);
  count.textContent = countText(shown, tags);
  mark(shown, tags);
}

function insertPause(length) {
  field.focus();
  field.setRangeText(`[${length}s]`, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

export function startText() {
  for (const button of document.querySelectorAll("[data-pause]")) {
    button.addEventListener("click", () => insertPause(button.dataset.pause));
  }
  field.addEventListener("scroll", () => {
    for (const behind of layers) behind.scrollTop = field.scrollTop;
  });
}
