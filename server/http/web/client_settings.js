// What to enter into other people's programs, so that they speak with this server.

import { API } from "./api.js";
import { make } from "./dom.js";

const inContainer = new URL(API);
inContainer.hostname = "host.docker.internal";

/** By client: name of the setting, its value, and what else there is to say. */
const SETTINGS = {
  "open-webui": [
    ["Text-to-Speech Engine", "OpenAI"],
    ["API Base URL", API],
    ["API Base URL, from a container", inContainer.href],
    ["API Key", "none", "or your key"],
    ["TTS Model", "tts-1"],
    ["TTS Voice", "alloy", "or any other of the list"],
  ],
  sillytavern: [
    ["Select TTS Provider", "OpenAI Compatible"],
    ["Provider Endpoint", `${API}/audio/speech`],
    ["API Key", "", "your key, or nothing"],
    ["Model", "tts-1"],
    ["Available Voices (comma separated)", "alloy,nova,onyx,echo", "or the ids of the list above"],
  ],
};

/** Make the rows of a client's settings; each value has a button that copies it. */
export const settingsOf = (client) =>
  SETTINGS[client].map(([name, value, more = ""], at) => {
    const id = `${client}-${at}`;
    const button = make("button", { class: "quiet", "data-copy": id, "aria-label": `Copy: ${name}` }, "Copy");
    return make("tr", {},
      make("th", { scope: "row" }, name),
      make("td", {}, value ? make("code", { id }, value) : "", more && make("span", { class: "hint" }, ` ${more}`)),
      make("td", {}, value ? button : ""));
  });
