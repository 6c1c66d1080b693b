// Calls of the server's API, with the key that it wants.

import { events } from "./events.js";
import { recall, remember } from "./storage.js";

/** Where `web/` is, so that it is right behind a proxy that adds a prefix. */
export const ROOT = new URL(/.*\/(?=web\/)/.exec(import.meta.url)[0]);
export const API = new URL("v1", ROOT).href;
export const SAMPLE_RATE = 24000;

const KEY_NAME = "api-key";

/** An error that the server answered with; its message is for the person who uses the page. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

let key = recall(KEY_NAME) ?? "";

export const hasKey = () => key !== "";

/** Use a key from now on, and keep it in this browser if that `stays`. Returns false if it could not be kept. */
export function setKey(value, stays = false) {
  key = value;
  return remember(KEY_NAME, stays ? value : null);
}

async function ask(path, { body, method = body ? "POST" : "GET", signal } = {}) {
  const json = body && !(body instanceof FormData || body instanceof Blob);
  const headers = new Headers();
  try {
    if (key) headers.set("authorization", `Bearer ${key}`);
  } catch {
    throw new ApiError("This is no API key: it holds characters that cannot be sent.", { status: 401 });
  }
  if (json) headers.set("content-type", "application/json");
  let response;
  try {
    response = await fetch(`${API}/${path}`, {
      method, headers, body: json ? JSON.stringify(body) : body, signal, cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await failure(response);
  return response;
}

async function failure(response) {
  const body = await response.json().catch(() => null); // a proxy may answer with a page instead of JSON
  const { message, code, param } = body?.error ?? {};
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  return new ApiError(message || `The server answered ${response.status}`, { status: response.status, code, param, retryAfter });
}

/** List the models with what each can do; without a valid key only their ids, and `locked` is true. */
export async function listModels() {
  try {
    return { models: (await (await ask("models")).json()).data, locked: false };
  } catch (error) {
    if (error.status !== 401) throw error;
    return { models: (await (await ask("audio/models")).json()).models, locked: true };
  }
}

/** Fetch the OpenAPI document. */
export const describeApi = async () => (await ask("openapi.json")).json();

/** List the voices of a model, and those that are kept. */
export async function listVoices(model) {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  return await (await ask(`audio/voices${query}`)).json();
}

/** Have the server keep a voice; `fields` is a form with its recording. */
export const keepVoice = async (fields, signal) => (await ask("audio/voices", { body: fields, signal })).json();

export const deleteVoice = (name) => ask(`audio/voices/${encodeURIComponent(name)}`, { method: "DELETE" });

/** Ask the server whether it accepts the key; throws an ApiError if it does not. */
export async function tryKey() {
  await ask("models");
}

/** Ask whether the server is ready, which needs no key; throws an ApiError that says what it waits for. */
export const readReadiness = async () => (await ask("../readyz")).json();

/** Read the server's metrics, in Prometheus' text format. */
export const readMetrics = async () => (await ask("../metrics")).text();

/** Open a WebSocket; a page can set no header of it, so that the key is offered as a subprotocol. */
export function openSocket(path) {
  const quoted = encodeURIComponent(key).replace(/[()]/g, (sign) => `%${sign.charCodeAt().toString(16)}`);
  const offered = key ? ["speech-stream", `openai-insecure-api-key.${quoted}`] : [];
  const socket = new WebSocket(`${API}/${path}`.replace("http", "ws"), offered);
  socket.binaryType = "arraybuffer";
  return socket;
}

export const brokenOff = () =>
  new ApiError("The speech broke off: the server ended it before its end. Its log says why.", { code: "broken_off" });

/** Have the server make a file of samples, which are a Blob of type `audio/pcm`. */
export async function encoded(samples, format, signal) {
  return await (await ask(`audio/encode?response_format=${format}`, { body: samples, signal })).blob();
}

/**
 * Fetch speech while it is made; returns its samples as Int16Arrays that arrive one by one, and what else is told of it.
 * `ontime` is called with what is told of the times at which each piece of the text is said.
 */
export async function speechStream(request, signal, ontime) {
  const body = { ...request, response_format: "pcm", stream: true, stream_format: "sse" };
  if (ontime) body.timestamps = "chunk";
  const response = await ask("audio/speech", { body, signal });
  const { headers } = response;
  const notes = headers.get("x-reference-notes") ?? "";
  return { seed: Number(headers.get("x-seed")), notes, parts: parts(response.body.getReader(), ontime) };
}

async function* parts(reader, ontime) {
  try {
    for await (const { type, audio, ...time } of events(reader)) {
      if (type === "speech.audio.delta") yield samplesOf(atob(audio));
      else if (type === "speech.timestamp") ontime?.(time);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw brokenOff();
  }
}

/** Samples in the letters of a string: signed 16 bit, little-endian. */
function samplesOf(bytes) {
  return Int16Array.from({ length: bytes.length >> 1 }, (_, i) => bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8));
}
