// The page of cloned voices: it takes a recording, lets it be trimmed and heard, and has the server keep voices.

import { ApiError, SAMPLE_RATE, deleteVoice, hasKey, keepVoice, listModels, listVoices, speechStream } from "./api.js";
import { byId, lastOf, make, seconds } from "./dom.js";
import { takeDropped } from "./drop.js";
import { askForKey, startKeys } from "./key.js";
import { listen } from "./microphone.js";
import { Player } from "./player.js";
import { LEAST, MOST, cut, levelOf, moved, samplesOf, spokenPart, toSamples } from "./recording.js";
import { wavFile } from "./wav.js";
import { REDRAW, Waveform } from "./waveform.js";
import { abort, clearErrors, isRunning, runAlone, setStatus, showError, showingErrors, startWork, whenLoaded } from "./work.js";

const TRIAL_FRAMES = 250; // codec frames of 80 ms
const LEVEL_SECONDS = 0.1; // of which the meter shows the loudest sample

const form = byId("voice");
const ends = { start: byId("start"), end: byId("end") };
const { model, name, ref_text: words, consent, sentence } = form.elements;
const player = new Player(show);
const wave = new Waveform(byId("wave"));

let samples = new Int16Array(0);
let part = { start: 0, end: 0 };
let heard = null; // what the microphone has heard, while it listens
let finishRecording; // ends the recording and takes it
let playing = ""; // what the player has: "recording" or "voice"
let keeping = false;
let drawing = 0;

const durationOf = (of, rate = SAMPLE_RATE) => of.length / rate;

/** Show everything that changes while audio comes or plays. */
function show() {
  const plays = player.isPlaying && playing;
  const duration = durationOf(samples);
  for (const [which, range] of Object.entries(ends)) {
    range.disabled = heard !== null || !samples.length;
    range.max = duration;
    range.value = part[which];
    range.setAttribute("aria-valuetext", `${seconds(part[which])} of ${seconds(duration)}`);
  }
  const play = byId("play");
  play.disabled = heard !== null || !samples.length;
  play.dataset.state = plays === "recording" ? "stop" : "play";
  play.setAttribute("aria-label", plays === "recording" ? "Stop" : "Play the part");
  byId("record").textContent = heard ? "Stop recording" : "Record";
  byId("level").hidden = heard === null;
  byId("hear").disabled = heard !== null || keeping;
  byId("hear").textContent = !byId("hear").disabled && (isRunning() || plays === "voice") ? "Stop" : "Hear the voice";
  if (heard) {
    byId("level").value = levelOf(heard.samples().subarray(-heard.rate * LEVEL_SECONDS));
    byId("time").textContent = seconds(durationOf(heard.samples(), heard.rate));
    wave.draw(heard.samples(), 0, Infinity, true);
  } else {
    const shown = seconds(part.end - part.start);
    byId("time").textContent = samples.length ? `${shown} of ${seconds(duration)}` : "";
    wave.draw(samples, part.start, plays === "recording" ? part.start + player.position : part.end, false);
  }
  if ((heard || plays) && !drawing) {
    drawing = setTimeout(() => {
      drawing = 0;
      show();
    }, REDRAW);
  }
}

function stop() {
  abort();
  player.pause();
  show();
}

/** Take a file as the recording. */
async function take(file, signal) {
  const chosen = form.elements.audio_sample;
  if (chosen.files[0] !== file) chosen.value = ""; // so that the same file can be chosen again
  setStatus("Reading the recording …");
  const read = await samplesOf(file);
  signal.throwIfAborted(); // another one may have been taken meanwhile
  if (durationOf(read) < LEAST) {
    throw new ApiError(`The recording lasts ${seconds(durationOf(read))}; ${LEAST} to ${MOST} s are needed.`, { param: "audio_sample" });
  }
  player.load(new Int16Array(0));
  samples = read;
  part = spokenPart(samples);
  wave.clear();
  setStatus("");
  show();
}

function takeFirst(files) {
  if (!files.length) return;
  stop();
  runAlone((signal) => take(files[0], signal));
}

/** Record until somebody stops it, or it is as long as it may be. */
async function record() {
  if (heard) return finishRecording();
  stop();
  await runAlone(async (signal) => {
    setStatus("The browser may ask for the microphone …");
    let all, length = 0;
    const early = []; // parts that come before the rate is known
    const push = (floats) => {
      if (!all) return early.push(floats);
      const more = toSamples(floats).subarray(0, all.length - length);
      all.set(more, length);
      length += more.length;
      if (length === all.length) finishRecording();
    };
    const microphone = await listen(push);
    if (signal.aborted) microphone.stop();
    signal.throwIfAborted();
    const ended = new Promise((resolve, reject) => {
      finishRecording = resolve;
      signal.addEventListener("abort", () => reject(signal.reason));
    });
    try {
      all = new Int16Array(MOST * microphone.rate);
      early.forEach(push);
      heard = { rate: microphone.rate, samples: () => all.subarray(0, length) };
      wave.clear();
      setStatus(`Recording. It ends by itself after ${MOST} s.`);
      show();
      await ended;
    } finally {
      microphone.stop();
      heard = null;
      wave.clear();
    }
    await take(wavFile(all.subarray(0, length), { rate: microphone.rate }), signal);
  });
}

function playPart() {
  const plays = player.isPlaying && playing === "recording";
  stop();
  if (plays) return;
  playing = "recording";
  player.load(cut(samples, part));
  player.play();
}

/** Move an end of the part; what plays of it is another part then. */
function move(which) {
  if (playing === "recording") player.load(new Int16Array(0));
  part = moved(part, which, Number(ends[which].value), durationOf(samples));
  show();
}

/** Find the first thing that is missing; returns null if all is there. */
function findMistake() {
  if (!samples.length) return { param: "audio_sample", message: "Record the voice, or choose a file, first." };
  if (!words.value.trim()) return { param: "ref_text", message: "Write every word that is said in the part." };
  if (!consent.checked) return { param: "consent", message: "Say that the speaker agrees." };
  return null;
}

/** Run work that needs a whole form, unless something is missing. */
function withForm(work) {
  const mistake = findMistake();
  clearErrors();
  if (mistake) showError(mistake);
  else work();
}

/** Speak the sentence and play it while it comes. */
function hear(voice) {
  player.prepare();
  runAlone(async (signal) => {
    setStatus("Waiting for the first sound …");
    const request = { input: sentence.value, max_new_tokens: TRIAL_FRAMES, ...(await voice()) };
    const speech = await whenLoaded(() => speechStream(request, signal), signal);
    signal.throwIfAborted();
    byId("notes").textContent = speech.notes;
    playing = "voice";
    player.open();
    try {
      for await (const some of speech.parts) {
        signal.throwIfAborted();
        if (player.duration === 0) setStatus("Speaking.");
        player.push(some);
      }
    } finally {
      player.end();
    }
    setStatus(`Done: ${seconds(player.duration)} of audio.`);
  });
}

/** The recording's part as a field of a request. */
const asAddress = (file) =>
  new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(file);
  });

const unkept = async () => ({
  model: model.value, ref_text: words.value, ref_audio: await asAddress(wavFile(cut(samples, part))),
});

async function keep() {
  if (keeping) return;
  stop();
  keeping = true;
  await runAlone(async (signal) => {
    const fields = new FormData(form);
    fields.set("audio_sample", wavFile(cut(samples, part)), "recording.wav");
    setStatus("Keeping the voice …");
    const made = await whenLoaded(() => keepVoice(fields, signal), signal);
    form.reset();
    samples = new Int16Array(0);
    part = { start: 0, end: 0 };
    player.load(samples);
    wave.clear();
    byId("notes").textContent = "";
    await showKept();
    setStatus(`The voice ${made.name} is kept. The studio has it among the voices of ${made.model}.`);
  }).finally(() => (keeping = false));
  show();
}

async function remove(voice) {
  if (!confirm(`Delete the voice ${voice.name}? Nothing brings it back.`)) return;
  stop();
  await runAlone(async () => {
    await deleteVoice(voice.name);
    await showKept();
    setStatus(`The voice ${voice.name} is deleted.`);
    byId("kept-title").focus(); // the button that was pressed is gone
  });
}

function row(voice) {
  const button = (text, work) => make("button", { type: "button", class: "quiet", "aria-label": `${text}: ${voice.name}`, onclick: work }, text);
  const facts = [
    voice.designed ? "designed" : `from ${seconds(voice.seconds)}`,
    voice.in_context ? "" : "without its words",
    voice.shared ? "for everybody" : "for this key",
    new Date(1000 * voice.created_at).toLocaleDateString([], { dateStyle: "short" }),
  ];
  const lines = [voice.description, facts.filter(Boolean).join(" · "), ...voice.notes].filter(Boolean);
  return make("li", {},
    make("div", { class: "grow" }, make("strong", {}, voice.name), ...lines.map((line) => make("p", { class: "hint" }, line))),
    make("div", { class: "row" },
      button("Hear", () => hear(() => ({ voice: voice.name }))),
      button("Delete", () => remove(voice))));
}

const listKept = lastOf(() => listVoices());

async function showKept() {
  const listed = await listKept();
  if (!listed) return;
  const { uploaded_voices: kept, keeps_voices: keeps } = listed;
  byId("kept").replaceChildren(...kept.map(row));
  byId("kept-empty").hidden = kept.length > 0;
  byId("keep").disabled = !keeps;
  byId("keeps-none").hidden = keeps;
}

const showAll = () =>
  showingErrors(async () => {
    const { models, locked } = await listModels();
    if (locked) askForKey();
    const able = models.filter(({ cloning }) => cloning);
    byId("none-clones").hidden = locked || able.length > 0;
    form.hidden = !locked && !able.length;
    byId("models").hidden = able.length < 2;
    model.replaceChildren(...able.map(({ id }) => make("option", { value: id }, id)));
    byId("sharing").hidden = !hasKey();
    await showKept();
  });

form.addEventListener("submit", (event) => {
  event.preventDefault();
  withForm(keep);
});
byId("record").addEventListener("click", record);
form.elements.audio_sample.addEventListener("change", ({ target }) => takeFirst(target.files));
byId("play").addEventListener("click", playPart);
for (const which of Object.keys(ends)) ends[which].addEventListener("input", () => move(which));
byId("hear").addEventListener("click", () => {
  if (byId("hear").textContent === "Stop") stop();
  else withForm(() => hear(unkept));
});
sentence.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault(); // which would keep the voice
  withForm(() => hear(unkept));
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
takeDropped(byId("drop"), takeFirst);
new ResizeObserver(show).observe(byId("wave"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);

startWork(show);
startKeys((message) => {
  setStatus(message);
  showAll();
});
show();
showAll();
