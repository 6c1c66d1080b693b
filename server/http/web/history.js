// The recent takes, in this browser's IndexedDB.

const MAX_TAKES = 20;
const MAX_SAMPLES = 50_000_000; // about 100 MB

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("qwen3-tts-edge", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("takes", { keyPath: "created" });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opened;
}

async function inStore(mode, work) {
  const transaction = (await database()).transaction("takes", mode);
  const asked = work(transaction.objectStore("takes"));
  return await new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Returns all takes, the newest first; older ones have the request as `order`. */
export const allTakes = async () =>
  (await inStore("readonly", (store) => store.getAll())).reverse().map(({ order, ...take }) => ({ request: order, ...take }));

export const removeTake = (take) => inStore("readwrite", (store) => store.delete(take.created));

export const removeAllTakes = () => inStore("readwrite", (store) => store.clear());

/** Keep a take, and remove the oldest ones beyond the limits; the newest always stays. */
export async function addTake(take) {
  await inStore("readwrite", (store) => store.put(take));
  let room = MAX_SAMPLES;
  const kept = await allTakes();
  const over = kept.filter((old, i) => (room -= old.samples.length) < 0 ? i > 0 : i >= MAX_TAKES);
  for (const old of over) await removeTake(old);
}
