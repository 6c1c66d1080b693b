// A text file, spoken paragraph after paragraph: each has its state, can be heard, and can be spoken again.

import { SAMPLE_RATE } from "./api.js";
import { byId, clock, make, seconds, sentence } from "./dom.js";
import { takeDropped } from "./drop.js";
import { fileOf, isCaptions, save } from "./files.js";
import { hear, paceOf } from "./takes.js";
import { readText } from "./text_file.js";
import { clearErrors, runAlone, setStatus, showError, showingErrors } from "./work.js";

const PAUSE = 0.6; // seconds between two paragraphs, as the server has between those of one text
const SECONDS_A_CHARACTER = 1 / 15; // of usual speech, until some has been measured
const OWN_FAULTS = ["invalid_value", "speech_failed", "broken_off"]; // after which the next paragraph may be spoken

const list = byId("paragraphs");
const format = byId("file-format");
format.append(...byId("response_format").cloneNode(true).options);
format.value = "mp3";
const go = byId("file-go");
const silence = new Int16Array(PAUSE * SAMPLE_RATE);

let file = null; // the name, the paragraphs and the text format
let queue = []; // the paragraphs that are spoken one after the other
let current = null; // the one of them that is being spoken
let making = false; // whether a file is made to be saved
let spoken = 0; // how often a paragraph of the file has been spoken
let saved = 0; // how often at the last download
let player;
let stop;
let withVoices;
let settings;

const sum = (values) => values.reduce((one, other) => one + other, 0);
const durationOf = ({ samples }) => samples.length / SAMPLE_RATE;
const withState = (state) => file.paragraphs.filter((paragraph) => paragraph.state === state);

/** Say how long what is left will take, by what was measured of this file; undefined where nothing was. */
function secondsLeft() {
  const measured = [...withState("done"), ...(current?.take.audio ? [current] : [])];
  const audio = sum(measured.map(({ take }) => take.audio));
  if (!audio) return undefined;
  const rtf = sum(measured.map(({ take }) => take.wall)) / audio;
  const wanted = queue.filter(({ state }) => state === "waiting" || state === "speaking");
  return rtf * Math.max(0, expected(wanted) - (current?.take.audio ?? 0));
}

/** Seconds of audio that paragraphs will have, by how fast this voice has spoken those that are done. */
function expected(paragraphs) {
  const done = withState("done");
  const characters = (some) => sum(some.map(({ text }) => text.length));
  const pace = done.length ? sum(done.map(({ take }) => take.audio)) / characters(done) : SECONDS_A_CHARACTER;
  return pace * characters(paragraphs);
}

const left = (value) => (value < 60 ? "less than a minute left" : `about ${Math.round(value / 60)} min left`);

function stateOf(paragraph) {
  const { state, take, problem } = paragraph;
  if (state === "done") return `Done: ${seconds(take.audio)}`;
  if (state === "failed") return `Failed: ${problem}`;
  if (state === "speaking") return take.audio ? `Being spoken: ${seconds(take.audio)}` : "Being spoken …";
  return "Waiting";
}

function showParagraph(paragraph) {
  const { row, state } = paragraph;
  row.dataset.state = state;
  row.querySelector(".state").textContent = stateOf(paragraph);
  row.querySelector("progress").hidden = state !== "speaking";
  row.querySelector("progress").value = state === "speaking" ? paragraph.take.audio / expected([paragraph]) : 0;
  row.querySelector(".play").hidden = state !== "done";
  const again = row.querySelector(".again");
  again.hidden = state === "speaking";
  again.textContent = state === "waiting" ? "Speak" : "Speak again";
  again.setAttribute("aria-label", `${again.textContent}: ${paragraph.text.slice(0, 60)}`);
}

function showFile() {
  byId("file-panel").hidden = !file;
  if (!file) return;
  const { paragraphs } = file;
  const done = withState("done");
  const audio = sum(done.map(durationOf)) + PAUSE * Math.max(0, done.length - 1);
  const remaining = current && secondsLeft();
  const facts = [`${done.length} of ${paragraphs.length} paragraphs`, clock(audio), remaining !== undefined && current && left(remaining)];
  byId("file-progress").max = expected(paragraphs);
  byId("file-progress").value = expected(done) + (current ? Math.min(current.take.audio, expected([current])) : 0);
  byId("file-facts").textContent = facts.filter(Boolean).join(" · ");
  go.textContent = current ? "Stop" : done.length ? "Go on" : "Speak the file";
  go.disabled = !current && done.length === paragraphs.length;
  byId("file-play").disabled = Boolean(current) || !done.length;
  byId("file-download").disabled = making || !done.length;
}

function makeRow(paragraph) {
  const about = paragraph.text.slice(0, 60);
  const button = (kind, label, work) => make("button", { type: "button", class: `quiet ${kind}`, "aria-label": `${label}: ${about}`, onclick: work }, label);
  paragraph.row = make("li", {},
    make("div", { class: "grow" }, make("p", { class: "take-text" }, paragraph.text), make("p", { class: "hint state" }),
      make("progress", { "aria-label": `Spoken: ${about}`, hidden: true })),
    make("div", { class: "row" },
      button("play", "Play", () => playOne(paragraph)),
      button("again", "Speak", () => withVoices(() => speakSome([paragraph], { alone: true })))));
  showParagraph(paragraph);
  return paragraph.row;
}

/** Take a file in the place of the one before. */
async function open(chosen) {
  const read = await readText(chosen);
  if (spoken > saved && !confirm(`The speech of ${byId("file-name").textContent} has not been downloaded. Drop it for ${chosen.name}?`)) return;
  stop();
  spoken = saved = 0;
  file = {
    stem: chosen.name.replace(/\.[a-z]+$/i, ""),
    text_format: read.text_format,
    paragraphs: read.paragraphs.map((text, i) => ({ number: i + 1, text, state: "waiting", take: { audio: 0 } })),
  };
  byId("file-name").textContent = chosen.name;
  list.replaceChildren(...file.paragraphs.map(makeRow));
  setStatus("");
  showFile();
  list.closest("section").scrollIntoView({ block: "nearest" }); // a file may be dropped anywhere
}

/** Scroll the list, and not the page, so far that a row is seen. */
function reveal(row) {
  const [inner, outer] = [row, list].map((element) => element.getBoundingClientRect());
  list.scrollTop += Math.min(0, inner.top - outer.top) || Math.max(0, inner.bottom - outer.bottom);
}

/** Speak one paragraph; `heard` is the take that the player has of it, alone or with others. */
async function speakOne(paragraph, heard, request, signal) {
  const before = { state: paragraph.state, take: paragraph.take };
  const take = { audio: 0 };
  const parts = [];
  Object.assign(paragraph, { state: "speaking", take });
  current = paragraph;
  const show = () => {
    showParagraph(paragraph);
    showFile();
  };
  show();
  reveal(paragraph.row);
  try {
    await hear(take, request, signal, {
      onbegin() {
        if (!heard.begun) player.open(heard);
        else if (player.take === heard) player.push(silence);
        heard.begun = true;
        if (heard.alone) heard.times = take.times;
      },
      onaudio(samples) {
        if (!parts.length) setStatus("Speaking.");
        parts.push(samples);
        heard.pace = paceOf(take);
        if (heard.alone) Object.assign(heard, { ttfa: take.ttfa, wall: take.wall, seed: take.seed });
        if (player.take === heard) {
          player.push(samples);
          player.showFacts();
        }
        show();
      },
    });
    const samples = new Int16Array(sum(parts.map(({ length }) => length)));
    parts.reduce((at, part) => (samples.set(part, at), at + part.length), 0);
    Object.assign(paragraph, { state: "done", samples });
    spoken++;
  } catch (error) {
    if (before.state === "done") Object.assign(paragraph, before);
    else if (signal.aborted) paragraph.state = "waiting";
    else Object.assign(paragraph, { state: "failed", problem: sentence(error.message) });
    throw error;
  } finally {
    if (current === paragraph) current = null;
    show();
  }
}

/** Speak paragraphs, one after the other, and play them while they come. */
function speakSome(paragraphs, { alone = false } = {}) {
  const wanted = settings();
  clearErrors();
  if (wanted.mistake) return void showError(wanted.mistake);
  const request = { ...wanted.request, text_format: file.text_format };
  const heard = { ...takeOf(alone ? paragraphs[0] : null, request), whole: false, alone };
  player.prepare();
  runAlone(async (signal) => {
    setStatus("Waiting for the first sound …");
    queue = paragraphs;
    for (const paragraph of paragraphs.filter(({ state }) => state === "failed")) {
      paragraph.state = "waiting";
      showParagraph(paragraph);
    }
    let failed = 0;
    try {
      for (const paragraph of paragraphs) {
        try {
          await speakOne(paragraph, heard, { ...request, input: paragraph.text }, signal);
        } catch (error) {
          if (signal.aborted || alone || !OWN_FAULTS.includes(error.code)) throw error;
          failed++;
        }
      }
      heard.whole = true;
    } finally {
      if (queue === paragraphs) queue = [];
      player.end(heard);
      showFile();
    }
    setStatus(failed ? `Done, but ${failed} of the paragraphs failed.` : "Done.");
  });
}

/** What the player shows of a paragraph, or of the whole file. */
function takeOf(paragraph, request) {
  const title = paragraph?.text ?? file.stem;
  return { request: { ...request, input: title }, title, stem: paragraph ? `${file.stem}-${paragraph.number}` : file.stem };
}

/** Play a paragraph, or all that is done. The file goes on being spoken meanwhile; whatever else is made would be heard in it. */
function play(paragraph, heard) {
  if (!current) stop();
  player.load({ ...takeOf(paragraph, settings().request), ...heard });
}

const playOne = (paragraph) => play(paragraph, { ...paragraph.take, samples: paragraph.samples });

/** All that is done, as one take. */
function joined() {
  const done = withState("done");
  const samples = new Int16Array(sum(done.map((paragraph) => paragraph.samples.length)) + silence.length * (done.length - 1));
  const times = [];
  let at = 0;
  for (const paragraph of done) {
    const begin = at / SAMPLE_RATE;
    const whole = { text: paragraph.text, start_time: 0, end_time: durationOf(paragraph) };
    for (const time of paragraph.take.times.length ? paragraph.take.times : [whole]) {
      times.push({ ...time, start_time: begin + time.start_time, end_time: begin + (time.end_time ?? whole.end_time) });
    }
    samples.set(paragraph.samples, at);
    at += paragraph.samples.length + silence.length;
  }
  return { samples, times, whole: done.length === file.paragraphs.length };
}

async function download() {
  const { stem } = file;
  const wanted = format.value; // another one may be chosen while the file is made
  making = true;
  showFile();
  await showingErrors(async () => {
    const take = joined();
    const had = spoken;
    if (!isCaptions(wanted)) setStatus("Making the file …");
    const made = await fileOf(take, wanted);
    if (!isCaptions(wanted)) saved = had;
    save(made, `${stem}${take.whole ? "" : "-part"}.${wanted}`);
    setStatus("Downloaded.");
  }).finally(() => (making = false));
  showFile();
}

/**
 * Start. `panel` plays, `onstop` ends what is spoken, `onvoices` runs work once the voices are there, and `readSettings`
 * returns a `request` without its text, or a `mistake` in the form.
 */
export function startParagraphs(panel, onstop, onvoices, readSettings) {
  [player, stop, withVoices, settings] = [panel, onstop, onvoices, readSettings];
  const chosen = byId("text_file");
  const take = (files) => {
    if (files.length) showingErrors(() => open(files[0]));
  };
  chosen.addEventListener("change", () => {
    take(chosen.files);
    chosen.value = ""; // so that the same file can be chosen again
  });
  takeDropped(byId("file-drop"), take);
  go.addEventListener("click", () => {
    if (current) stop();
    else withVoices(() => speakSome(file.paragraphs.filter(({ state }) => state !== "done")));
  });
  byId("file-play").addEventListener("click", () => play(null, joined()));
  byId("file-download").addEventListener("click", download);
  addEventListener("beforeunload", (event) => {
    if (spoken > saved) event.preventDefault(); // the browser asks: it may be hours of speech
  });
}
