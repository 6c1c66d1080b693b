// Draws samples as bars; those of one part, such as what has been played, have another colour.

import { SAMPLE_RATE } from "./api.js";

const BAR = 3; // pixels
const GAP = 2; // pixels
const SHORTEST_SECONDS = 4; // while audio arrives, the drawing first grows to the right and then shrinks

/** Milliseconds from one drawing to the next while audio plays: in less the part that has been played hardly grows. */
export const REDRAW = 1000 / 15;

export class Waveform {
  #canvas;
  #peaks = [];
  #window = SAMPLE_RATE / 50;
  #measured = 0;
  #drawn = ""; // what the picture shows, as far as it may change

  constructor(canvas) {
    this.#canvas = canvas;
  }

  clear() {
    this.#peaks = [];
    this.#measured = 0;
    this.#drawn = "";
  }

  /** Draw samples, unless the picture would stay the same; `from` and `to` are the seconds between which the part is. */
  draw(samples, from, to, growing) {
    this.#addPeaks(samples);
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = devicePixelRatio;
    const style = getComputedStyle(this.#canvas);
    const outside = style.getPropertyValue("--wave");
    const inside = style.getPropertyValue("--accent");
    const bars = Math.floor((width + GAP) / (BAR + GAP));
    const floor = growing ? (SHORTEST_SECONDS * SAMPLE_RATE) / this.#window : 1;
    const perBar = Math.max(this.#peaks.length, floor) / bars;
    const secondsPerBar = (perBar * this.#window) / SAMPLE_RATE;
    const barsBefore = (time) => Math.min(Math.max(0, Math.ceil(time / secondsPerBar - 0.5)), bars);
    const begin = barsBefore(from);
    const end = barsBefore(to);
    const picture = [width, height, scale, outside, inside, perBar, this.#peaks.length, begin, end].join();
    if (picture === this.#drawn) return;
    this.#drawn = picture;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    for (let bar = 0; bar < bars; bar++) {
      const first = Math.floor(bar * perBar);
      const peak = Math.max(0, ...this.#peaks.slice(first, Math.max(first + 1, Math.floor((bar + 1) * perBar))));
      const tall = Math.max(BAR, peak * height);
      pen.fillStyle = begin <= bar && bar < end ? inside : outside;
      pen.beginPath();
      pen.roundRect(bar * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2);
      pen.fill();
    }
  }

  #addPeaks(samples) {
    for (; this.#measured + this.#window <= samples.length; this.#measured += this.#window) {
      let peak = 0;
      for (let i = this.#measured; i < this.#measured + this.#window; i++) peak = Math.max(peak, Math.abs(samples[i]));
      this.#peaks.push(peak / 32768);
    }
  }
}
