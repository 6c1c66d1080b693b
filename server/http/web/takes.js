// A take: what was asked for, and what was heard of it.

import { SAMPLE_RATE, speechStream } from "./api.js";
import { noteTime } from "./captions.js";
import { whenLoaded } from "./work.js";

/**
 * Have the server speak a request. The take gets its seed, the seconds until the first sound and until the last, the
 * seconds of audio, and the times of what is said. `onbegin` is called before the first samples, `onaudio` with each.
 */
export async function hear(take, request, signal, { onbegin, onaudio }) {
  const asked = performance.now();
  Object.assign(take, { whole: false, times: [], audio: 0 });
  const speech = await whenLoaded(() => speechStream(request, signal, (time) => noteTime(take.times, time)), signal);
  signal.throwIfAborted();
  take.seed = speech.seed;
  onbegin();
  for await (const samples of speech.parts) {
    signal.throwIfAborted();
    take.wall = (performance.now() - asked) / 1000;
    take.ttfa ??= take.wall;
    take.first ??= samples.length / SAMPLE_RATE;
    take.audio += samples.length / SAMPLE_RATE;
    onaudio(samples);
  }
  take.whole = true;
}

/** Wall seconds that a second of audio takes after the first sound; undefined where nothing has come after that. */
export const paceOf = ({ wall, ttfa, audio, first }) => (audio > first ? (wall - ttfa) / (audio - first) : undefined);
