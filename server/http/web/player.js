// Plays samples through Web Audio while they arrive. Positions are seconds of the audio.

import { SAMPLE_RATE } from "./api.js";

const LEAD_FRAMES = 0.03 * SAMPLE_RATE; // from scheduling to the first sound
const PIECE = 4 * SAMPLE_RATE; // samples that are handed to the loudspeaker at once: hours of audio take no memory twice
const AHEAD = 6 * SAMPLE_RATE; // samples, up to which more pieces are handed over
const FIRST_BUFFER = 0.16; // seconds that have to arrive before playing starts
const LONGEST_BUFFER = 4; // seconds

/** Make a context at the samples' own rate: buffers that are resampled one by one click where they meet. */
const newContext = () => new AudioContext({ sampleRate: SAMPLE_RATE });

export class Player {
  loops = false; // whether audio that has ended begins again
  repeats = false; // whether it has done so
  #context;
  #gain;
  #volume = 1;
  #samples = new Int16Array(0);
  #length = 0;
  #cursor = 0; // index of the next sample to schedule
  #nextFrame = 0; // when it will play, in samples of the context's clock
  #sources = new Set();
  #complete = true;
  #rests = false; // whether more may come, though nobody waits for it
  #shouldPlay = false;
  #buffer = FIRST_BUFFER;
  #onchange;

  /** `onchange` is called whenever `state` may have changed. */
  constructor(onchange) {
    this.#onchange = onchange;
  }

  /** Pause, and get the browser's leave to play later, which needs a click or a key press. */
  prepare() {
    const position = this.position;
    this.#shouldPlay = false;
    this.seek(position);
    this.#wake();
  }

  /** Drop all samples, and play those that will be pushed. */
  open() {
    this.load(new Int16Array(0));
    this.#complete = false;
    this.play();
  }

  /** Replace the samples by complete audio, without playing it. */
  load(samples) {
    this.#stopSources();
    this.#samples = samples;
    this.#length = samples.length;
    this.#cursor = 0;
    this.#complete = true;
    this.repeats = this.#rests = false;
    this.#shouldPlay = false;
    this.#buffer = FIRST_BUFFER;
    this.#onchange();
  }

  push(samples) {
    if (this.#length + samples.length > this.#samples.length) {
      const larger = new Int16Array(Math.max(2 * this.#samples.length, this.#length + samples.length));
      larger.set(this.samples);
      this.#samples = larger;
    }
    this.#samples.set(samples, this.#length);
    this.#length += samples.length;
    this.#schedule();
  }

  /** Note that more samples will be pushed behind those that are there; a gap that came until now is nobody's fault. */
  more() {
    this.#complete = false;
    this.#buffer = FIRST_BUFFER;
    if (this.state !== "paused") this.play();
  }

  /** Note that no more samples will be pushed; if it only `rests`, audio that has been played does not begin again. */
  end(rests = false) {
    this.#complete = true;
    this.#rests = rests;
    this.#schedule();
  }

  play() {
    if (this.#complete && this.#cursor === this.#length && !this.#sources.size) this.#cursor = 0;
    this.#shouldPlay = true;
    this.#wake();
    this.#schedule();
  }

  pause() {
    this.#shouldPlay = false;
    this.#context?.suspend();
    this.#onchange();
  }

  seek(position) {
    this.#stopSources();
    this.#cursor = Math.min(Math.max(0, Math.round(position * SAMPLE_RATE)), this.#length);
    this.#schedule();
  }

  get volume() {
    return this.#volume;
  }

  /** 0 is silence, and 1 as loud as the samples are. */
  set volume(value) {
    this.#volume = value;
    if (this.#gain) this.#gain.gain.value = value;
  }

  get samples() {
    return this.#samples.subarray(0, this.#length);
  }

  get duration() {
    return this.#length / SAMPLE_RATE;
  }

  get position() {
    const ahead = this.#sources.size ? this.#nextFrame / SAMPLE_RATE - this.#context.currentTime : 0;
    return Math.min(Math.max(0, this.#cursor / SAMPLE_RATE - Math.max(0, ahead)), this.duration);
  }

  /** Whether audio plays, or playing waits for more samples. */
  get isPlaying() {
    return ["playing", "waiting"].includes(this.state);
  }

  /** "idle", "playing", "paused", or "waiting" if the samples arrive too slowly. */
  get state() {
    if (this.#shouldPlay) return this.#sources.size ? "playing" : "waiting";
    return this.#sources.size || (this.#cursor > 0 && this.#cursor < this.#length) ? "paused" : "idle";
  }

  /** Whether all that has come has been played, and more will come. */
  get isDry() {
    return this.state === "waiting" && this.#cursor > 0 && !this.#complete;
  }

  /** Let the clock run on. */
  #wake() {
    if (!this.#context) {
      this.#context = newContext();
      this.#gain = new GainNode(this.#context, { gain: this.#volume });
      this.#gain.connect(this.#context.destination);
    }
    this.#context.resume();
  }

  #stopSources() {
    for (const source of this.#sources) {
      source.onended = null;
      source.stop();
    }
    this.#sources.clear();
  }

  /** Schedule what has arrived; after each gap, wait for twice as much as before it. */
  #schedule() {
    const starving = this.#sources.size === 0;
    if (this.#shouldPlay && this.#complete && starving && this.#cursor === this.#length) {
      if (!this.loops) {
        this.#shouldPlay = false;
        this.#context.suspend();
      } else if (!this.#rests) {
        this.#cursor = 0;
        this.repeats = true;
      }
    }
    const left = this.#length - this.#cursor;
    if (this.#shouldPlay && left > 0 && (!starving || this.#complete || left >= this.#buffer * SAMPLE_RATE)) {
      const now = this.#context.currentTime * SAMPLE_RATE;
      if (starving) this.#nextFrame = Math.ceil(now + LEAD_FRAMES);
      while (this.#cursor < this.#length && this.#nextFrame - now < AHEAD) this.#handPiece();
    }
    this.#onchange();
  }

  /** Have the next samples played behind those that have been handed over. */
  #handPiece() {
    const piece = this.#samples.subarray(this.#cursor, Math.min(this.#cursor + PIECE, this.#length));
    const audio = this.#context.createBuffer(1, piece.length, SAMPLE_RATE);
    audio.copyToChannel(Float32Array.from(piece, (sample) => sample / 32768), 0);
    const source = new AudioBufferSourceNode(this.#context, { buffer: audio });
    source.connect(this.#gain);
    source.onended = () => this.#ended(source);
    source.start(this.#nextFrame / SAMPLE_RATE);
    this.#sources.add(source);
    this.#nextFrame += piece.length;
    this.#cursor += piece.length;
  }

  #ended(source) {
    this.#sources.delete(source);
    if (!this.#sources.size && !this.#complete) this.#buffer = Math.min(2 * this.#buffer, LONGEST_BUFFER);
    this.#schedule();
  }
}
