// Files of what was heard: samples, and the times of what is said in them.

import { SAMPLE_RATE, encoded } from "./api.js";
import { captionFile } from "./captions.js";
import { make } from "./dom.js";
import { MARK, pcmFile, wavFile } from "./wav.js";

export const isCaptions = (format) => format === "srt" || format === "vtt";

/** Make a file; what is no WAV, PCM or captions the server encodes, from the samples. */
export async function fileOf({ samples, times = [] }, format, signal) {
  if (isCaptions(format)) return captionFile(times, format, samples.length / SAMPLE_RATE);
  if (format === "wav") return wavFile(samples, { mark: MARK });
  const bare = pcmFile(samples);
  return format === "pcm" ? bare : await encoded(bare, format, signal);
}

export function save(file, name) {
  const link = make("a", { href: URL.createObjectURL(file), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
