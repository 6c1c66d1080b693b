// The server's API, and the key that opens it.

/** One folder above this file: right behind a proxy that adds a prefix, too. */
export const ROOT = new URL("..", import.meta.url);
export const API = new URL("v1", ROOT).href;
export const SAMPLE_RATE = 24000;

const KEY_NAME = "api-key";

/** An answer that is not what was asked for; the message is for the person in front of the page. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

let key = "";
try {
  key = localStorage.getItem(KEY_NAME) ?? "";
} catch (error) {
  console.info("This browser keeps nothing for this page:", error.message);
}

export const hasKey = () => key !== "";

/** Use a key from now on; `remember` keeps it in this browser. Returns whether that could be done. */
export function setKey(value, remember = false) {
  key = value;
  try {
    if (remember) localStorage.setItem(KEY_NAME, value);
    else localStorage.removeItem(KEY_NAME);
    return true;
  } catch {
    return !remember;
  }
}

async function request(path, { body, signal } = {}) {
  const headers = new Headers();
  try {
    if (key) headers.set("authorization", `Bearer ${key}`);
  } catch {
    throw new ApiError("This is no API key: it holds characters that cannot be sent.", { status: 401 });
  }
  if (body) headers.set("content-type", "application/json");
  let response;
  try {
    response = await fetch(`${API}/${path}`, {
      method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const body = await response.json().catch(() => null); // a proxy's page, perhaps
  const { message, code, param } = body?.error ?? {};
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  return new ApiError(message || `The server answered ${response.status}`, { status: response.status, code, param, retryAfter });
}

/** All that a model says of itself; without a key that fits, only the ids, and `locked` is true. */
export async function listModels() {
  try {
    return { models: (await (await request("models")).json()).data, locked: false };
  } catch (error) {
    if (error.status !== 401) throw error;
    return { models: (await (await request("audio/models")).json()).models, locked: true };
  }
}

export async function listVoices(model) {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  return (await (await request(`audio/voices${query}`)).json()).voices;
}

/** Find out whether the server takes the key; an ApiError says that it does not. */
export async function tryKey() {
  await request("models");
}

/** A whole file of speech, which knows its own length. */
export async function speechFile(order, signal) {
  return await (await request("audio/speech", { body: { ...order, stream: false }, signal })).blob();
}

/** Speech while it is made: its seed, and its samples as Int16Arrays. */
export async function speechStream(order, signal) {
  const body = { ...order, response_format: "pcm", stream: true };
  const response = await request("audio/speech", { body, signal });
  return { seed: Number(response.headers.get("x-seed")), parts: samples(response.body.getReader()) };
}

async function* samples(reader) {
  let rest = new Uint8Array();
  for (;;) {
    const { done, value } = await read(reader);
    if (done) return;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    rest = bytes.slice(bytes.length & ~1);
    const view = new DataView(bytes.buffer);
    if (bytes.length > 1) yield Int16Array.from({ length: bytes.length >> 1 }, (_, i) => view.getInt16(2 * i, true));
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The speech broke off: the server ended it before its end. Its log says why.");
  }
}
