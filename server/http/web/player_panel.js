// The player panel: the take that plays, its waveform, its facts and its files.

import { byId, clock, make, seconds } from "./dom.js";
import { fileOf, isCaptions, save } from "./files.js";
import { Player } from "./player.js";
import { startSound } from "./sound.js";
import { markSpoken } from "./spoken.js";
import { paceOf } from "./takes.js";
import { REDRAW, Waveform } from "./waveform.js";
import { setStatus, showingErrors } from "./work.js";

const SLOWER = 1.05; // times as long as the audio, from which on a machine is called slower than speech
const canvas = byId("wave");
const seek = byId("seek");
const playButton = byId("play");
const format = byId("response_format");

export class PlayerPanel {
  take = null;
  #player;
  #wave = new Waveform(canvas);
  #files = new Map();
  #arriving = false;
  #making = false;
  #drawing = 0;
  #onstate;

  /** `onstate` is called when playing starts or ends. */
  constructor(onstate) {
    this.#onstate = onstate;
    this.#player = new Player(() => this.#changed());
    startSound(this.#player);
    playButton.addEventListener("click", () => this.toggle());
    seek.addEventListener("input", () => this.#player.seek(Number(seek.value)));
    format.addEventListener("change", () => this.#showHelp());
    byId("download").addEventListener("click", () => this.#download());
    new ResizeObserver(() => this.#changed()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#changed());
    this.#showHelp();
  }

  /** Whether audio plays, or playing waits for more samples. */
  get isPlaying() {
    return this.#player.isPlaying;
  }

  /** Whether the take has been played to its end and has begun again. */
  get repeats() {
    return this.#player.repeats;
  }

  get duration() {
    return this.#player.duration;
  }

  get samples() {
    return this.#player.samples;
  }

  /** Pause, and get the browser's leave to play later, which needs a click or a key press. */
  prepare() {
    this.#player.prepare();
  }

  /** Play a new take while its samples arrive. */
  open(take) {
    this.#begin(take, true);
    this.#player.open();
    this.showFacts();
  }

  /** Play a take that has arrived already. */
  load(take) {
    this.#begin(take, false);
    this.#player.load(take.samples);
    this.showFacts();
    this.#player.play();
  }

  push(samples) {
    this.#player.push(samples);
  }

  /** Expect more of the take. */
  more() {
    this.#arriving = true;
    this.#player.more();
  }

  /** Wait no longer for samples than until those that are there have been played. */
  rest() {
    this.#player.end(true);
  }

  /** Note that a take has ended; does nothing if another take has replaced it. */
  end(take) {
    if (take !== this.take) return;
    this.#arriving = false;
    this.#player.end();
    this.showFacts();
  }

  pause() {
    if (this.isPlaying) this.#player.pause();
  }

  /** Pause what plays, or play on. */
  toggle() {
    if (this.isPlaying) this.#player.pause();
    else if (this.duration) this.#player.play();
  }

  showFacts() {
    const { ttfa, wall, seed, whole, title, request } = this.take;
    byId("take-text").textContent = title ?? request.input;
    const facts = [
      ["First sound (TTFA)", ttfa && seconds(ttfa)],
      ["Audio", this.duration && seconds(this.duration)],
      ["Made in", wall && seconds(wall)],
      ["Seed", seed !== undefined && String(seed)],
      ["Ended", !this.#arriving && !whole && this.duration && "early"],
    ].filter(([, value]) => value);
    byId("facts").replaceChildren(
      ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
  }

  #begin(take, arriving) {
    this.take = take;
    this.#arriving = arriving;
    this.#files.clear();
    this.#wave.clear();
  }

  /** Save the take in the chosen format; a file that has been made is kept for saving it again. */
  async #download() {
    const { take } = this;
    const wanted = format.value;
    const name = `${take.stem ?? `${take.request.voice}-${take.seed ?? "typed"}`}${take.whole ? "" : "-part"}.${wanted}`;
    if (this.#files.has(wanted)) return save(this.#files.get(wanted), name);
    this.#making = true;
    await showingErrors(async () => {
      const file = await fileOf({ samples: this.samples, times: take.times }, wanted);
      if (take === this.take) this.#files.set(wanted, file);
      save(file, name);
      setStatus("Downloaded.");
    }).finally(() => (this.#making = false));
    this.#showHelp();
  }

  #showHelp() {
    const timed = this.take?.times?.length > 0;
    const untimed = isCaptions(format.value) && this.take !== null && !timed;
    byId("format-help").textContent = untimed ? "The server told no times of this take, so that it has no captions." : "";
    byId("download").disabled = !this.take || this.#arriving || this.#making || this.duration === 0 || untimed;
  }

  /** Say why nothing is heard where all that has come has been played. */
  #showWaiting() {
    const pace = this.take?.pace ?? paceOf(this.take ?? {});
    const why = pace > SLOWER ? `: this machine is ${pace.toFixed(1)} times slower than speech` : " …";
    const text = this.#player.isDry ? `Buffering${why}` : "";
    const note = byId("buffering");
    if (note.textContent !== text) note.textContent = text; // it is a live region
  }

  #changed() {
    const { state, duration, position } = this.#player;
    const going = this.isPlaying;
    playButton.disabled = duration === 0;
    playButton.setAttribute("aria-label", going ? "Pause" : "Play");
    playButton.dataset.state = going ? "pause" : "play";
    seek.disabled = duration === 0;
    seek.max = duration;
    seek.value = position;
    seek.setAttribute("aria-valuetext", `${seconds(position)} of ${seconds(duration)}`);
    canvas.dataset.state = state;
    byId("time").textContent = `${clock(position)} / ${clock(duration)}`;
    this.#wave.draw(this.samples, 0, position, this.#arriving);
    this.#showHelp();
    this.#showWaiting();
    markSpoken(state === "idle" ? null : this.take, position);
    if (going && !this.#drawing) {
      this.#drawing = setTimeout(() => {
        this.#drawing = 0;
        this.#changed();
      }, REDRAW);
    }
    this.#onstate();
  }
}
