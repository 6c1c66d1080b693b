// Marks what is being said in the text, behind the field.

import { pieceAt } from "./captions.js";
import { byId, make } from "./dom.js";

const field = byId("input");
const layer = byId("spoken"); // it has the same text, unseen

let shown;

/** The index in a string of a code point, by which the server counts. */
const indexOf = (text, point) => Array.from(text).slice(0, point).join("").length;

/** Mark what is said of a take at a position, as long as the field has its text; without a take nothing is. */
export function markSpoken(take, position) {
  const said = take?.times && field.value === take.request.input ? pieceAt(take.times, position) : undefined;
  const piece = said?.end_char && said; // of what was typed nobody knows the places
  if (piece === shown) return;
  shown = piece;
  if (!piece) return layer.replaceChildren();
  const [from, to] = [piece.start_char, piece.end_char].map((point) => indexOf(field.value, point));
  const mark = make("mark", {}, field.value.slice(from, to));
  layer.replaceChildren(field.value.slice(0, from), mark, `${field.value.slice(to)} `);
  layer.scrollTop = field.scrollTop;
}
