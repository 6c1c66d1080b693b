// The microphone, as it is: without the browser's own noise suppression and levelling, which change a voice.

import { ApiError } from "./api.js";

const PLAIN = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const REFUSED = {
  NotAllowedError: "This page may not use the microphone: allow it in the browser, or take a file.",
  NotFoundError: "There is no microphone here: take a file.",
};

/** Listen: `onpart` is called with floats between -1 and 1. Returns their rate, and what ends it. */
export async function listen(onpart) {
  if (!navigator.mediaDevices) throw new ApiError("Browsers record on pages of this machine or over HTTPS only: take a file.");
  const context = new AudioContext();
  let stream, tap;
  const stop = () => {
    if (tap) tap.port.onmessage = null;
    stream?.getTracks().forEach((track) => track.stop());
    context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("microphone_tap.js", import.meta.url));
    stream = await navigator.mediaDevices.getUserMedia({ audio: PLAIN });
    tap = new AudioWorkletNode(context, "microphone-tap", { channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => onpart(data);
    context.createMediaStreamSource(stream).connect(tap).connect(context.destination); // it makes no sound itself
    return { rate: context.sampleRate, stop };
  } catch (error) {
    stop();
    throw new ApiError(REFUSED[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
}
