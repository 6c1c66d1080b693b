// Builds WAV and PCM files from samples.

import { SAMPLE_RATE } from "./api.js";

/** What the server's files say of speech too, in the same words. */
export const MARK =
  "Synthetic speech, made by a machine (qwen3-tts-edge); http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

const number = (value, bytes) => Uint8Array.from({ length: bytes }, (_, i) => value >>> (8 * i));

/** A part of the file: its name, its size and its content, whose length is even. */
const chunk = (name, ...content) => [name, number(content.reduce((sum, { length }) => sum + length, 0), 4), ...content];

/** Samples as bytes: signed 16 bit, little-endian. */
function bytesOf(samples) {
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((sample, i) => view.setInt16(2 * i, sample, true));
  return new Uint8Array(view.buffer);
}

/** Returns a WAV file; `mark` is a comment in it, in ASCII. */
export function wavFile(samples, { rate = SAMPLE_RATE, mark = "" } = {}) {
  const shape = [1, 1].map((one) => number(one, 2)); // PCM, one channel
  const format = chunk("fmt ", ...shape, number(rate, 4), number(2 * rate, 4), number(2, 2), number(16, 2));
  const ended = mark.padEnd(mark.length + 2 - (mark.length % 2), "\0");
  const comment = mark ? chunk("LIST", "INFO", ...chunk("ICMT", ended)) : [];
  const parts = ["WAVE", ...format, ...comment, ...chunk("data", bytesOf(samples))];
  return new Blob(chunk("RIFF", ...parts), { type: "audio/wav" });
}

/** Returns the samples alone as a file. */
export const pcmFile = (samples) => new Blob([bytesOf(samples)], { type: "audio/pcm" });
