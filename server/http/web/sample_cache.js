// Samples of voices that have been heard, in this browser's IndexedDB; those that were heard longest ago go first.

import { databaseOf } from "./storage.js";

const STORE = "samples";
export const MOST_KEPT = 64; // each is at most 12 s of 16 bit at 24 kHz: 37 MB together

const upgrade = ({ target: { result: database } }) =>
  database.createObjectStore(STORE, { keyPath: "key" }).createIndex("heard", "heard");

const database = databaseOf("qwen3-tts-edge-samples", 1, upgrade);

/** Run work on the store, and wait until it is done. */
async function inStore(work) {
  const transaction = (await database()).transaction(STORE, "readwrite");
  const done = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
  });
  work(transaction.objectStore(STORE));
  await done;
}

/** Returns the samples that are kept under a key, or null; they count as heard now. */
export async function findSample(key) {
  let found = null;
  await inStore((store) => {
    store.get(key).onsuccess = ({ target: { result } }) => {
      if (!result) return;
      found = result.samples;
      store.put({ ...result, heard: Date.now() });
    };
  });
  return found;
}

/** Keep samples under a key. */
export async function keepSample(key, samples) {
  await inStore((store) => {
    store.put({ key, samples, heard: Date.now() });
    store.count().onsuccess = ({ target: { result: count } }) => {
      let over = count - MOST_KEPT;
      if (over <= 0) return;
      store.index("heard").openCursor().onsuccess = ({ target: { result: cursor } }) => {
        if (!cursor || over-- <= 0) return;
        cursor.delete();
        cursor.continue();
      };
    };
  });
}
