// The recent takes, in this browser's IndexedDB: what there is to know of each, and beside it its samples.

import { databaseOf } from "./storage.js";

const MAX_TAKES = 20;
const MAX_SAMPLES = 50_000_000; // about 100 MB

/** Put the samples of takes of the first version apart, where lists need not read them. */
function upgrade({ target: { result: database, transaction }, oldVersion }) {
  database.createObjectStore("samples");
  if (oldVersion < 1) return void database.createObjectStore("takes", { keyPath: "created" });
  transaction.objectStore("takes").openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    const { samples, order, ...take } = cursor.value; // the oldest takes have the request as `order`
    transaction.objectStore("samples").put(samples, take.created);
    cursor.update({ request: order, whole: true, ...take, length: samples.length });
    cursor.continue();
  };
}

const database = databaseOf("qwen3-tts-edge", 2, upgrade);

/** Do work in both stores, all of it or nothing; returns the result of the request that the work returns. */
async function inStores(mode, work) {
  const transaction = (await database()).transaction(["takes", "samples"], mode);
  const asked = work(transaction.objectStore("takes"), transaction.objectStore("samples"));
  return await new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Returns all takes without their samples, the newest first. */
export const allTakes = async () => (await inStores("readonly", (takes) => takes.getAll())).reverse();

export const samplesOf = ({ created }) => inStores("readonly", (_, samples) => samples.get(created));

/** Remove takes. */
const remove = (old) =>
  inStores("readwrite", (takes, samples) => {
    const asked = old.flatMap(({ created }) => [takes.delete(created), samples.delete(created)]);
    return asked.at(-1) ?? {};
  });

export const removeTake = (take) => remove([take]);

/** Remove all takes without a star. */
export const removeOthers = async () => await remove((await allTakes()).filter(({ starred }) => !starred));

/** Keep what is known of a take, as it is now. */
export const changeTake = (take) => inStores("readwrite", (takes) => takes.put(take));

/** Keep a take, and remove the oldest ones beyond the limits; the newest always stays, and what has a star. */
export async function addTake({ samples: heard, ...take }) {
  await inStores("readwrite", (takes, samples) => {
    samples.put(heard, take.created);
    return takes.put({ ...take, length: heard.length });
  });
  let room = MAX_SAMPLES;
  const kept = await allTakes();
  await remove(kept.filter(({ length, starred }, i) => ((room -= length) < 0 ? i > 0 : i >= MAX_TAKES) && !starred));
}
