// Speaks a text while it is typed. What has been sent of it is marked, because it cannot be unsaid.

import { ApiError, brokenOff, openSocket, tryKey } from "./api.js";
import { byId, waited } from "./dom.js";
import { clearExample } from "./examples.js";

const PAUSE = 2000; // ms without typing, after which what is there is all for now
const LOADING = 1000; // ms after which a server that loads the model is asked again
const BEGUN_WORD = /[^\s\p{P}\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}]*$/u; // it may still change

const field = byId("input");
const toggle = byId("live");
const mark = byId("sent");
const inClauses = new Set(); // models that cannot be given a text word by word

let sent = ""; // the beginning of the text that has been sent, or was there before
let blank = false; // whether the blank behind that has been sent too; it is not marked: phones make full stops of blanks
let tell = null; // sends the server a message, while there is a conversation
let begun = false; // whether the server has the beginning of an utterance
let unheard = 0; // utterances that the server has not said to their end
let pause;
let actions;

/** Mark what has been sent, if that is more or less than before: a long text takes time to be laid out. */
function show() {
  const marked = toggle.checked ? sent : "";
  if (mark.textContent === marked) return;
  mark.textContent = marked;
  mark.parentElement.scrollTop = field.scrollTop;
}

/** Count all that the field holds as sent. */
export function skipTyped() {
  sent = field.value;
  show();
}

/** Count as sent what is as it was; behind a change in the middle, whatever is there. */
function skipEdited() {
  if (field.selectionEnd < field.value.length) return skipTyped();
  while (!field.value.startsWith(sent)) sent = sent.slice(0, -1);
  show();
}

/** Send nothing more until somebody types. */
export const holdTyped = () => clearTimeout(pause);

/** Send the words that are whole; with `all` what there is, as an utterance. Returns whether there was something to do. */
function send(all) {
  const rest = field.value.slice(sent.length);
  const words = (all ? rest : rest.replace(BEGUN_WORD, "")).trimEnd();
  if (words && !tell) actions.onstart();
  if (!tell) return words !== "";
  if (words) {
    if (!begun) unheard++;
    begun = true;
    const text = blank ? words.trimStart() : words;
    blank = /\s/.test(rest[words.length]);
    tell("input.text", { text: blank ? `${text} ` : text });
    actions.onwords(words);
    sent += words;
  }
  const ends = all && begun;
  if (ends) tell("input.done");
  if (all) begun = false;
  show();
  return words !== "" || ends;
}

/** Send what has been typed and not been sent; returns whether there was any. */
export const finishTyped = () => toggle.checked && send(true);

function typed(event) {
  holdTyped();
  if (!toggle.checked || event.isComposing) return;
  if (!field.value.startsWith(sent)) {
    skipEdited();
    if (tell) return actions.onedit();
  }
  pause = setTimeout(send, PAUSE, true);
  send(field.value.endsWith("\n"));
  show();
}

/** Hear the server to the end of the last utterance, and forget what was told of those that it has said. */
async function hear(socket, signal, { onaudio, onunit }, told) {
  let unit = null; // what is said, while that lasts; empty where it is what is told
  let said = 0; // characters of the utterance that were units before
  const end = () => {
    if (unit === null) return;
    const done = told.findIndex(({ type }) => type === "input.done");
    const words = (done < 0 ? told : told.slice(0, done)).map(({ text }) => text).join("").slice(said);
    said += words.length;
    onunit(unit || words);
    unit = null;
  };
  const heard = new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    socket.onclose = () => reject(brokenOff());
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return onaudio(new Int16Array(data));
      const { type, message, ...details } = JSON.parse(data);
      if (type === "error") return reject(new ApiError(message, details));
      if (type === "audio.start") {
        unit = details.sentence_text;
        return onunit();
      }
      end();
      if (type !== "session.done") return;
      said = 0;
      told.splice(0, told.findIndex((message) => message.type === "input.done") + 1);
      if (--unheard === 0) resolve();
    };
  });
  try {
    await heard;
  } finally {
    end();
  }
}

/**
 * Have the server say what is typed, until it has said all of it. `onaudio` is called with samples, `onunit` where
 * what is said together begins and, with its text, where it ends, `onloading` where the model has to be loaded first. `told` is
 * what was told a server that did not take it, and `before` what had been sent before that.
 */
export async function converse(request, signal, heard, told = [], before = sent) {
  const socket = openSocket("audio/speech/stream");
  let open = false;
  const opened = new Promise((resolve) => (socket.onopen = resolve)).then(() => (open = true));
  const put = async (message) => {
    await opened;
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };
  const mine = (tell = (type, fields) => {
    told.push({ type, ...fields });
    put(told.at(-1));
  });
  const end = () => {
    socket.close();
    if (tell !== mine) return;
    holdTyped();
    tell = null;
    begun = blank = false;
    unheard = 0;
  };
  const split_granularity = inClauses.has(request.model) ? "clause" : "token";
  put({ ...request, input: undefined, type: "session.config", response_format: "pcm", stream_audio: true, split_granularity });
  told.forEach(put);
  try {
    await hear(socket, signal, heard, told);
  } catch (error) {
    socket.close(); // what is told from here on is for the next one
    if (error.param === "split_granularity" && split_granularity === "token") inClauses.add(request.model);
    else if (error.code === "model_loading") {
      heard.onloading();
      await waited(LOADING, signal);
    } else if (open || signal.aborted) throw error;
    else {
      end();
      sent = before;
      show();
      await tryKey();
      throw new ApiError("The server opened no WebSocket: it has too many, or a proxy before it lets none through.");
    }
    return await converse(request, signal, heard, told, before);
  } finally {
    end();
  }
}

/** Start: `onstart` is called when words want a conversation, `onwords` with what is sent, `onedit` if that is changed. */
export function startLive(handlers) {
  actions = handlers;
  toggle.addEventListener("change", () => {
    byId("live-help").hidden = !toggle.checked;
    holdTyped();
    if (toggle.checked) {
      clearExample(); // nobody has typed it, and it would not be said
      skipTyped();
      field.focus();
      field.setSelectionRange(sent.length, sent.length); // what is typed before that would not be said
    } else if (tell) send(true);
    show();
  });
  for (const name of ["input", "compositionend"]) field.addEventListener(name, typed);
}
