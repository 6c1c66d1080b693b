// What this browser keeps for the pages: values by name, and databases. It may refuse to keep anything.

/** Returns what is kept under a name, or null. */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch (error) {
    console.info("This browser keeps nothing for this page:", error.message);
    return null;
  }
}

/** Keep a value under a name, or with null nothing any more; returns whether that was possible. */
export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
    return true;
  } catch (error) {
    console.info("This browser keeps nothing for this page:", error.message);
    return value === null;
  }
}

function openDatabase(name, version, upgrade) {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open(name, version);
    asked.onupgradeneeded = upgrade;
    asked.onsuccess = () => {
      asked.result.onversionchange = () => asked.result.close(); // another tab has a newer version of this page
      resolve(asked.result);
    };
    asked.onblocked = () => reject(new Error("close the other tabs of this page, which are of an older version."));
    asked.onerror = () => reject(asked.error);
  });
}

/**
 * Returns a function that opens a database of IndexedDB once, and rejects as often as the browser refuses; `upgrade`
 * hears that it is new or of an older version.
 */
export function databaseOf(name, version, upgrade) {
  let opened = null;
  return () =>
    (opened ??= openDatabase(name, version, upgrade).catch((error) => {
      opened = null;
      throw error;
    }));
}
