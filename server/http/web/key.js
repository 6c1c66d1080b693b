// The panel that asks for an API key.

import { hasKey, setKey, tryKey } from "./api.js";
import { byId, sentence } from "./dom.js";

const panel = byId("key-panel");
const field = byId("key");
const message = byId("key-message");
const forget = byId("forget");

/** Show the panel; if there is a reason, show it and focus the field. */
export function askForKey(reason = "") {
  panel.hidden = false;
  message.textContent = reason;
  field.setAttribute("aria-invalid", String(Boolean(reason)));
  if (reason) field.focus();
}

/** Start the panel. `onkey` is called with a sentence when the server accepts a key and when the key is forgotten. */
export function startKeys(onkey) {
  forget.hidden = !hasKey();
  byId("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    setKey(field.value.trim());
    try {
      await tryKey();
    } catch (error) {
      setKey("");
      askForKey(sentence(error.message));
      return;
    }
    const kept = setKey(field.value.trim(), byId("key-remember").checked);
    field.value = "";
    panel.hidden = true;
    forget.hidden = false;
    onkey(kept ? "The server takes the key." : "The server takes the key, but this browser cannot remember it.");
  });
  forget.addEventListener("click", () => {
    setKey("");
    forget.hidden = true;
    onkey("The key is forgotten.");
  });
}
