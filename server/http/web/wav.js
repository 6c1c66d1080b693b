// Builds WAV and PCM files from samples.

import { SAMPLE_RATE } from "./api.js";

const HEADER_BYTES = 44;

export function wavFile(samples) {
  const bytes = 2 * samples.length;
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + bytes));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, SAMPLE_RATE, true);
  view.setUint32(28, 2 * SAMPLE_RATE, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, bytes, true);
  samples.forEach((sample, i) => view.setInt16(HEADER_BYTES + 2 * i, sample, true));
  return new Blob([view], { type: "audio/wav" });
}

/** Returns the samples alone as a file: signed 16 bit, little-endian. */
export async function pcmFile(samples) {
  return new Blob([await wavFile(samples).slice(HEADER_BYTES).arrayBuffer()], { type: "audio/pcm" });
}
