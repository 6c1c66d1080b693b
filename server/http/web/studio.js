// The studio: from the form to speech that plays, and to files.

import { hasKey, speechFile, speechStream } from "./api.js";
import { Deck } from "./deck.js";
import { byId, seconds, sentence } from "./dom.js";
import { askForKey, startKeys } from "./key.js";
import { blame, fillOrder, findMistake, readOrder, showCounts, showModel, showModels } from "./order.js";
import { chooseVoice, chosenVoice, startVoices } from "./picker.js";
import { keepTake, startRecent } from "./recent.js";

const SAMPLE_FRAMES = 150;
const SAMPLE_TEXTS = {
  english: "Hello! This is how I sound.", chinese: "你好！这就是我的声音。", japanese: "こんにちは。これが私の声です。",
  korean: "안녕하세요. 제 목소리는 이렇습니다.", german: "Hallo! So klinge ich.", french: "Bonjour ! Voici ma voix.",
  russian: "Здравствуйте! Вот так я звучу.", portuguese: "Olá! Esta é a minha voz.", spanish: "¡Hola! Así suena mi voz.",
  italian: "Ciao! Questa è la mia voce.",
};

const form = byId("order");
const speakButton = byId("speak");
const deck = new Deck(showButtons);

let running = null; // the AbortController of the request under way

const say = (text) => (byId("status").textContent = text);

const active = () => running !== null || deck.sounding;

function showButtons() {
  speakButton.textContent = active() ? "Stop" : "Speak";
  byId("sample").disabled = !chosenVoice();
}

function complain(error) {
  say("");
  if (error.status === 401) {
    askForKey(hasKey() ? sentence(error.message) : "To speak, enter the key first.");
    return;
  }
  const again = error.status === 429 && error.retryAfter ? ` Try again in ${error.retryAfter} seconds.` : "";
  byId("error").textContent = sentence(error.message) + again;
  blame(error.param);
}

function calm() {
  byId("error").textContent = "";
  blame(null);
}

function stop() {
  running?.abort();
  running = null;
  deck.pause();
  showButtons();
}

/** Do one thing that asks the server, instead of what is under way; errors are shown, a stop is not one. */
async function run(work) {
  running?.abort();
  calm();
  const mine = (running = new AbortController());
  showButtons();
  try {
    await work(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) {
      if (running === null) say("Stopped.");
    } else if (error.status === undefined) {
      complain({ message: "The page made a mistake; the browser's console says more." });
      throw error;
    } else complain(error);
  } finally {
    if (running === mine) running = null;
    showButtons();
  }
}

/** Start a stream; while the model loads, wait and ask again. */
async function startPatiently(order, signal) {
  for (;;) {
    try {
      return await speechStream(order, signal);
    } catch (error) {
      if (error.code !== "model_loading") throw error;
      say("The model is being loaded …");
      await new Promise((resolve, reject) => {
        setTimeout(resolve, 1000 * Math.max(1, error.retryAfter));
        signal.addEventListener("abort", () => reject(signal.reason));
      });
    }
  }
}

async function speak(order, { sample = false } = {}) {
  await run(async (signal) => {
    const asked = performance.now();
    const take = { order, sample, created: Date.now(), voice: chosenVoice()?.name ?? order.voice, whole: false };
    deck.prepare();
    say(sample ? "Asking for a sample …" : "Waiting for the first sound …");
    const speech = await startPatiently(order, signal);
    signal.throwIfAborted();
    take.seed = speech.seed;
    deck.open(take);
    try {
      for await (const part of speech.parts) {
        signal.throwIfAborted();
        take.ttfa ??= (performance.now() - asked) / 1000;
        if (deck.duration === 0) say("Speaking.");
        deck.push(part);
        take.wall = (performance.now() - asked) / 1000;
        deck.showFacts();
      }
      take.whole = true;
    } finally {
      deck.end(take); // what has come may be heard and kept as WAV, whatever ended it
    }
    say(`Done: ${seconds(deck.duration)} of audio, the first sound after ${seconds(take.ttfa)}.`);
    if (!sample) await keepTake({ ...take, samples: deck.samples.slice() });
  });
}

function speakForm() {
  const mistake = findMistake();
  if (!mistake) return void speak(readOrder());
  calm();
  complain(mistake);
}

function speakSample() {
  const order = readOrder();
  const voice = chosenVoice();
  const language = order.language ?? voice.languages?.[0] ?? voice.language;
  order.input = SAMPLE_TEXTS[language?.toLowerCase()] ?? SAMPLE_TEXTS.english;
  speak({ ...order, seed: 1, max_new_tokens: SAMPLE_FRAMES }, { sample: true });
}

/** The file of the take in the deck: built here where the samples are all it needs, else made by the server again. */
async function download() {
  const format = byId("response_format").value;
  const ready = await deck.file(format);
  if (ready) return deck.save(ready, format);
  const { take } = deck;
  await run(async (signal) => {
    say(`Making the ${format.toUpperCase()} file: the same speech again, from seed ${take.seed} …`);
    const file = await speechFile({ ...take.order, seed: take.seed, response_format: format }, signal);
    deck.keep(take, file, format);
    deck.save(file, format);
    say("Downloaded.");
  });
}

function insertPause() {
  const field = form.elements.input;
  field.focus();
  field.setRangeText("[0.5s]", field.selectionStart, field.selectionEnd, "end");
  showCounts();
}

async function showing(work) {
  calm();
  try {
    await work();
  } catch (error) {
    if (error.status === undefined) throw error;
    complain(error);
  }
  showButtons();
}

const showAll = () =>
  showing(async () => {
    if (await showModels()) askForKey();
  });

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (active()) stop();
  else speakForm();
});
form.elements.input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) speakForm();
});
form.addEventListener("input", showCounts);
form.elements.model.addEventListener("change", () => showing(showModel));
byId("pause-tag").addEventListener("click", insertPause);
byId("sample").addEventListener("click", speakSample);
byId("download").addEventListener("click", download);

startKeys((message) => {
  say(message);
  showAll();
});
startVoices(showButtons);
startRecent({
  onplay: (take) => {
    stop();
    calm();
    deck.load(take);
  },
  onreuse: async (take) => {
    await fillOrder(take.order);
    chooseVoice(take.order.voice);
    form.elements.input.focus();
    say("The form is as it was then.");
  },
  onproblem: say,
});
showCounts();
showAll();
