// The studio: it sends the form to the server, and plays the speech while it arrives.

import { byId, seconds } from "./dom.js";
import { startExamples } from "./examples.js";
import { lookSoon, startHealth } from "./health.js";
import { askForKey, startKeys } from "./key.js";
import { openLink } from "./link.js";
import { converse, finishTyped, holdTyped, skipTyped, startLive } from "./live.js";
import { chooseVoice, chosenVoice, startVoices } from "./picker.js";
import { startParagraphs } from "./paragraphs.js";
import { PlayerPanel } from "./player_panel.js";
import { keepTake, startRecent } from "./recent.js";
import { fillForm, findMistake, readRequest, showCounts, showModel, showModels } from "./request_form.js";
import { startSamples, stopSample, toggleSample } from "./samples.js";
import { startSharing } from "./share.js";
import { startShortcuts } from "./shortcuts.js";
import { startSpeed } from "./speed.js";
import { hear } from "./takes.js";
import { startText } from "./text_field.js";
import { abort, clearErrors, isRunning, runAlone, setStatus, showError, showLoading, showingErrors, startWork } from "./work.js";

const form = byId("request");
const speakButton = byId("speak");
const player = new PlayerPanel(showButtons);

let typed; // the take of what was typed last
let coming = null; // what fills the form with models and voices, until it has done so

const isBusy = () => isRunning() || player.isPlaying;

function showButtons() {
  speakButton.textContent = isBusy() ? "Stop" : "Speak";
  if (player.isPlaying) stopSample();
}

function stop() {
  holdTyped();
  abort();
  stopSample();
  player.pause();
  showButtons();
}

/** Keep what has been heard of a take, also of one that was stopped. */
async function keep(take) {
  player.end(take); // what has arrived can be played and saved even if the stream broke off
  if (take === player.take && player.duration) await keepTake({ ...take, samples: player.samples.slice() });
}

function tellDone(take) {
  setStatus(`Done: ${seconds(player.duration)} of audio, the first sound after ${seconds(take.ttfa)}.`);
  lookSoon();
}

async function speak(request) {
  await runAlone(async (signal) => {
    const take = { request, voice: chosenVoice()?.name ?? request.voice, created: Date.now() };
    player.prepare();
    setStatus("Waiting for the first sound …");
    try {
      await hear(take, request, signal, {
        onbegin: () => player.open(take),
        onaudio(samples) {
          if (player.duration === 0) setStatus("Speaking.");
          player.push(samples);
          player.showFacts();
        },
      });
    } finally {
      await keep(take);
    }
    tellDone(take);
  });
}

/** Fill the form; errors are shown. */
function fill(work) {
  const mine = (coming = showingErrors(work).finally(() => {
    if (coming === mine) coming = null;
  }));
  return mine;
}

/** Wait until the form has its models and voices; returns whether it has them. */
async function filled() {
  let done = true;
  while (coming) done = await coming;
  return done;
}

/** Speak once the voices are there; waiting for them is stopped as speaking is. */
async function withVoices(work) {
  if (!coming) return work();
  player.prepare(); // the browser gives its leave to who presses a button, and not seconds later
  let done = false;
  await runAlone(async (signal) => {
    setStatus("Waiting for the voices …");
    const stopped = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    done = await Promise.race([filled(), stopped]);
  });
  if (done) work();
}

/** Say what is typed until it is said; what is typed while that plays goes on with it. */
function speakTyped() {
  if (coming) return void withVoices(() => form.elements.input.dispatchEvent(new Event("input", { bubbles: true })));
  const mistake = findMistake();
  clearErrors();
  if (mistake) return void showError(mistake);
  const began = performance.now();
  const request = readRequest();
  if (!typed || typed !== player.take || !player.isPlaying || player.repeats) {
    player.prepare();
    typed = { request: { ...request, input: "" }, times: [], created: Date.now(), voice: chosenVoice().name ?? request.voice };
  }
  const take = typed;
  take.whole = false;
  runAlone(async (signal) => {
    setStatus("Waiting for the first sound …");
    const heard = {
      onloading: showLoading,
      onaudio(samples) {
        take.ttfa ??= (performance.now() - began) / 1000;
        setStatus("Speaking.");
        player.push(samples);
        player.showFacts();
      },
      onunit(text) {
        if (text !== undefined) {
          Object.assign(take.times.at(-1), { text, end_time: player.duration });
          return player.rest();
        }
        if (take === player.take) player.more();
        else player.open(take);
        take.times.push({ text: "", start_time: player.duration, end_time: null });
      },
    };
    try {
      await converse(request, signal, heard);
      take.whole = true;
    } finally {
      await keep(take);
    }
    tellDone(take);
  });
}

function addTyped(text) {
  typed.request.input = (typed.request.input + text).trimStart();
  if (typed === player.take) player.more();
}

function speakForm() {
  if (finishTyped()) return;
  const mistake = findMistake();
  if (!mistake) return void speak(readRequest());
  clearErrors();
  showError(mistake);
}

const showAll = () =>
  fill(async () => {
    if (await showModels()) askForKey();
    await fillFromLink();
  });

/** Fill the form from the page's address, if it carries anything. */
async function fillFromLink() {
  const told = await openLink();
  if (!told) return;
  skipTyped();
  setStatus(told);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (isBusy()) stop();
  else withVoices(speakForm);
});
form.elements.input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) withVoices(speakForm);
});
form.addEventListener("input", showCounts);
form.elements.model.addEventListener("change", () => fill(showModel));

startWork(showButtons);
startKeys((message) => {
  setStatus(message);
  showAll().then(lookSoon);
});
startVoices(showButtons, toggleSample);
startSamples(stop);
startText();
startExamples();
startSpeed();
startSharing(filled);
addEventListener("hashchange", () => fill(fillFromLink));
startLive({
  onstart: speakTyped,
  onwords: addTyped,
  onedit() {
    stop();
    showError({ message: "You changed what had been sent, so the speech was stopped. Go on behind the mark." });
  },
});
startShortcuts({ stop, toggle: () => player.toggle() });
startParagraphs(player, stop, withVoices, () => ({ request: readRequest(), mistake: findMistake("the file's") }));
startRecent({
  onplay: (take) => {
    stop();
    clearErrors();
    player.load(take);
  },
  onreuse: (take) =>
    fill(async () => {
      await fillForm(take.request);
      chooseVoice(take.request.voice);
      skipTyped();
      form.elements.input.focus();
      setStatus("The form is as it was then.");
    }),
});
showCounts();
showAll().then(startHealth);
