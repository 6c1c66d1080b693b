// Plays samples of voices where they are listed. Each is asked for once, and kept.

import { ROOT, speechStream } from "./api.js";
import { showSounding } from "./picker.js";
import { Player } from "./player.js";
import { chosenModel, readRequest } from "./request_form.js";
import { findSample, keepSample } from "./sample_cache.js";
import { followVolume } from "./sound.js";
import { SAMPLE_TEXTS, textLanguage } from "./texts.js";
import { abort, runAlone, setStatus, whenLoaded } from "./work.js";

const SAMPLE_FRAMES = 150; // codec frames of 80 ms

const player = new Player(show);
let sounding = null; // the voice that is asked for or heard
let arriving = null; // the signal of the work that asks for it
let onstart;

function show() {
  if (sounding && !player.isPlaying && player.duration > 0) sounding = null;
  showSounding(sounding?.id, player.state === "playing" ? "playing" : "waiting");
}

/** The request for a sample: by the voice's own settings, in the chosen language or the voice's own. */
function requestFor(voice) {
  const { model, language, instructions } = readRequest();
  const request = { model, voice: voice.id, seed: 1, max_new_tokens: SAMPLE_FRAMES };
  if (language) request.language = language;
  if (instructions && voice.instruction_used && !voice.speaker) request.instructions = instructions; // they make the voice
  request.input = SAMPLE_TEXTS[textLanguage(language ?? voice.language, voice.languages)];
  return request;
}

/** What a sample depends on: the server, its model and voice as they were made, and the request. */
const keyOf = (voice, request) => JSON.stringify([ROOT.href, chosenModel().created, voice.created_at, request]);

async function find(key) {
  try {
    return await findSample(key);
  } catch (error) {
    console.info("This browser keeps no samples:", error.message);
    return null;
  }
}

async function keep(key, samples) {
  try {
    await keepSample(key, samples);
  } catch (error) {
    console.info("This browser keeps no samples:", error.message);
  }
}

/** Ask for a sample and play it while it arrives; returns its samples. */
async function stream(voice, request, signal) {
  arriving = signal;
  try {
    const { parts } = await whenLoaded(() => speechStream(request, signal), signal);
    signal.throwIfAborted();
    player.open();
    for await (const part of parts) {
      signal.throwIfAborted();
      player.push(part);
    }
    signal.throwIfAborted();
  } catch (error) {
    if (arriving === signal) arriving = null;
    if (sounding === voice) stopSample();
    throw error;
  }
  arriving = null;
  player.end();
  return player.samples.slice();
}

export function stopSample() {
  if (!sounding && player.duration === 0) return;
  sounding = null;
  if (arriving && !arriving.aborted) abort(); // what comes after this would not be the whole sample
  player.pause();
  player.load(new Int16Array(0));
}

async function play(voice) {
  const request = requestFor(voice);
  const key = keyOf(voice, request);
  player.prepare();
  sounding = voice;
  show();
  const kept = await find(key);
  if (sounding !== voice) return; // another one was wanted meanwhile
  if (kept) {
    player.load(kept); // until it plays it counts as ended
    sounding = voice;
    player.play();
    return;
  }
  await runAlone(async (signal) => {
    setStatus(`Asking for a sample of ${voice.name ?? voice.id} …`);
    const samples = await stream(voice, request, signal);
    setStatus("");
    await keep(key, samples);
  });
}

/** Play a voice's sample, or stop it if it plays. */
export function toggleSample(voice) {
  const stops = sounding?.id === voice.id;
  onstart();
  if (!stops) play(voice);
}

/** Start: `onpress` is called first whenever a sample is wanted or stopped; it stops all that plays or is made. */
export function startSamples(onpress) {
  onstart = onpress;
  followVolume(player);
}
