// A recording of a voice: how it is read, how loud it is, and which part of it is used.

import { ApiError, SAMPLE_RATE } from "./api.js";

export const LEAST = 3; // seconds; less shows little of a voice
export const MOST = 20; // seconds; more adds nothing
const MOST_BYTES = 50_000_000; // of a file
const QUIET = 328; // 1 % of full scale
const MARGIN = 0.1; // seconds of quiet that stay at both ends
const BELOW_FULL = 60; // dB, at which the level begins

/** Floats between -1 and 1 as samples of 16 bits. */
export const toSamples = (floats) =>
  Int16Array.from(floats, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768))));

/** How loud samples are at most, from 0 to 1 in equal steps of loudness. */
export function levelOf(samples) {
  const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  return Math.max(0, 1 + (20 * Math.log10(peak / 32768)) / BELOW_FULL);
}

/** Move the `start` or the `end` of a part to a time; the other one follows, so that the part has an allowed length. */
export function moved({ start, end }, which, time, duration) {
  const least = Math.min(LEAST, duration);
  if (which === "start") {
    start = Math.min(Math.max(0, time), duration - least);
    end = Math.min(Math.max(end, start + least), start + MOST);
  } else {
    end = Math.max(Math.min(time, duration), least);
    start = Math.max(Math.min(start, end - least), end - MOST);
  }
  return { start, end };
}

/** Find the part without the quiet at both ends. */
export function spokenPart(samples) {
  const isLoud = (sample) => Math.abs(sample) >= QUIET;
  const duration = samples.length / SAMPLE_RATE;
  const end = Math.min(duration, (samples.findLastIndex(isLoud) + 1) / SAMPLE_RATE + MARGIN);
  return moved({ start: 0, end }, "start", samples.findIndex(isLoud) / SAMPLE_RATE - MARGIN, duration);
}

export const cut = (samples, { start, end }) =>
  samples.subarray(Math.round(start * SAMPLE_RATE), Math.round(end * SAMPLE_RATE));

/** Read mono samples of a file, in any format that the browser knows. */
export async function samplesOf(file) {
  if (file.size > MOST_BYTES) throw new ApiError(`The file is larger than ${MOST_BYTES / 1e6} MB: cut it first.`, { param: "audio_sample" });
  let audio;
  try {
    audio = await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new ApiError("The browser cannot read this file: take a WAV, MP3, M4A, Ogg or FLAC file.", { param: "audio_sample" });
  }
  const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
  return toSamples(channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length));
}
