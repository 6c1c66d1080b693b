// The favourite voices, by id, in this browser's storage.

import { recall, remember } from "./storage.js";

const NAME = "favourite-voices";
const MOST = 200;

function read() {
  try {
    const kept = JSON.parse(recall(NAME) ?? "[]");
    return Array.isArray(kept) ? kept : [];
  } catch (error) {
    console.info("The favourites that were kept cannot be read:", error.message);
    return [];
  }
}

let favourites = read();

export const isFavourite = (id) => favourites.includes(id);

/** Make a voice a favourite, or one no more; the oldest go where there are too many. */
export function toggleFavourite(id) {
  favourites = isFavourite(id) ? favourites.filter((other) => other !== id) : [...favourites, id].slice(-MOST);
  remember(NAME, JSON.stringify(favourites));
}
