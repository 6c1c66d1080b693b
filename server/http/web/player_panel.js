// The player panel: the take that plays, its waveform, its facts and its files.

import { byId, clock, make, seconds } from "./dom.js";
import { Player } from "./player.js";
import { MARK, pcmFile, wavFile } from "./wav.js";
import { Waveform } from "./waveform.js";

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
  #drawing = 0;
  #onstate;

  /** `onstate` is called when playing starts or ends. */
  constructor(onstate) {
    this.#onstate = onstate;
    this.#player = new Player(() => this.#changed());
    playButton.addEventListener("click", () => this.#toggle());
    seek.addEventListener("input", () => this.#player.seek(Number(seek.value)));
    format.addEventListener("change", () => this.#showHelp());
    new ResizeObserver(() => this.#changed()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#changed());
    this.#showHelp();
  }

  /** Whether audio plays, or playing waits for more samples. */
  get isPlaying() {
    return this.#player.isPlaying;
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
  }

  /** Play a take that has arrived already. */
  load(take) {
    this.#begin(take, false);
    this.#player.load(take.samples);
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
    this.#player.end();
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

  /** Returns the take as a file, or null if the server has to make it. */
  file(wanted) {
    if (wanted === "wav") return wavFile(this.samples, { mark: MARK });
    if (wanted === "pcm") return pcmFile(this.samples);
    return this.#files.get(wanted) ?? null;
  }

  /** Keep a file that the server has made of the take, for saving it again. */
  keep(take, file, wanted) {
    if (take === this.take) this.#files.set(wanted, file);
  }

  save(file, wanted) {
    const { request, seed, whole } = this.take;
    const part = whole ? "" : "-part";
    const link = make("a", { href: URL.createObjectURL(file), download: `${request.voice}-${seed ?? "typed"}${part}.${wanted}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  showFacts() {
    const { ttfa, wall, seed, whole, sample, voice, request } = this.take;
    byId("take-text").textContent = sample ? `Sample of ${voice}` : request.input;
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
    this.showFacts();
    this.#showHelp();
  }

  #toggle() {
    if (this.isPlaying) this.#player.pause();
    else this.#player.play();
  }

  #showHelp() {
    const local = ["wav", "pcm"].includes(format.value);
    const again = this.take?.whole && !this.take.typed;
    byId("format-help").textContent = local
      ? ""
      : this.take && !again && !this.#arriving
        ? "This take can be downloaded as WAV or PCM only."
        : "The server makes this file when you download it: the same speech again, from the same seed.";
    const empty = !this.take || this.#arriving || this.duration === 0;
    byId("download").disabled = empty || (!local && !again);
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
    if (going && !this.#drawing) {
      this.#drawing = requestAnimationFrame(() => {
        this.#drawing = 0;
        this.#changed();
      });
    }
    this.#onstate();
  }
}
