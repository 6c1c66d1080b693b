// The favourite voices, by id, in this browser's storage.

const NAME = "favourite-voices";
const MOST = 200;

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "[]");
    return Array.isArray(kept) ? kept : [];
  } catch (error) {
    console.info("This browser keeps no favourites:", error.message);
    return [];
  }
}

let favourites = read();

export const isFavourite = (id) => favourites.includes(id);

/** Make a voice a favourite, or one no more; the oldest go where there are too many. */
export function toggleFavourite(id) {
  favourites = isFavourite(id) ? favourites.filter((other) => other !== id) : [...favourites, id].slice(-MOST);
  try {
    localStorage.setItem(NAME, JSON.stringify(favourites));
  } catch (error) {
    console.info("This browser keeps no favourites:", error.message);
  }
}
