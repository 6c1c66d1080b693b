// Hands on what the microphone hears; it runs in the browser's thread for audio.

registerProcessor("microphone-tap", class extends AudioWorkletProcessor {
  process([[floats]]) {
    if (floats) this.port.postMessage(floats);
    return true;
  }
});
