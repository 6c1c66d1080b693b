"""The studio as a person uses it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page, Route, expect

from tests.server.running import PATIENCE_SECONDS

FRAME_SECONDS = 0.08
"""Of a codec frame; the form's length limit is in seconds."""
RECORD_PLAYING = """() => {
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  window.played.push({ when, rate: this.buffer.sampleRate, samples: this.buffer.getChannelData(0).slice() });
  return start.call(this, when);
};
}"""
"""Script that notes what is handed to the loudspeaker, and when it is to sound."""
PLAYED = """() => window.played.map(({ when, rate, samples }) => {
  const bytes = new Uint8Array(samples.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return { when, rate, samples: btoa(text) };
})"""
"""Script that tells it, the samples in base64: as numbers they would take seconds."""
COUNT_CHANGES = """([layer, letters]) => {
  const observer = new MutationObserver(() => {});
  observer.observe(document.querySelector(layer), { childList: true, characterData: true, subtree: true });
  const field = document.querySelector("#input");
  for (const letter of letters) {
    field.setRangeText(letter, field.value.length, field.value.length, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  return observer.takeRecords().length;
}"""
"""Script that types letters behind a text, and counts what is changed meanwhile in a layer behind it."""


def wait_for(page: Page, condition: str) -> None:
    """Wait until a JavaScript expression is true. The page looks: to ask it each time takes much longer."""
    page.evaluate(f"""async () => {{
      const deadline = performance.now() + {1000 * PATIENCE_SECONDS};
      while (!({condition})) {{
        if (performance.now() > deadline) throw new Error({json.dumps(f"never happened: {condition}")});
        await new Promise((resolve) => setTimeout(resolve, 20));
      }}
    }}""")


def wait_for_tables(page: Page) -> None:
    """Wait until all is there that the developers' page asks the server for, in several requests at once."""
    for table in ("endpoints", "payload", "errors", "models", "voices", "open-webui", "sillytavern"):
        expect(page.locator(f"#{table} tr").first).to_be_attached()


def text_of(page: Page) -> Locator:
    """The field for the text."""
    return page.get_by_role("textbox", name="Text", exact=True)


def use_key(page: Page, key: str) -> None:
    """Hand an API key to the page."""
    page.get_by_label("API key", exact=True).fill(key)
    page.get_by_role("button", name="Use key").click()


def record_playing(page: Page) -> None:
    """Note from now on what is played."""
    page.evaluate(RECORD_PLAYING)


def played(page: Page) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.float64]]:
    """The samples played so far, and when each part begins and ends."""
    parts: list[dict[str, Any]] = page.evaluate(PLAYED)
    assert {part["rate"] for part in parts} == {24000}
    begins = np.array([part["when"] for part in parts])
    samples = [np.frombuffer(base64.b64decode(part["samples"]), "<f4") for part in parts]
    ends = begins + np.array([len(one) for one in samples]) / 24000
    return np.round(np.concatenate(samples) * 32768).astype(np.int16), begins, ends


def write(page: Page, text: str, **settings: object) -> None:
    """Fill the form once the voices are there; settings by the name of the request's field."""
    expect(page.locator("#voices input").first).to_be_attached()
    text_of(page).fill(text)
    if settings:
        page.locator("#advanced").evaluate("details => (details.open = true)")
    for name, value in settings.items():
        if name == "max_new_tokens" and value != "":
            value = f"{float(str(value)) * FRAME_SECONDS:.2f}"
        page.locator(f"#{name}").fill(str(value))


def make_exactly(page: Page, frames: int | None = None) -> None:
    """Turn the form's most frames into exactly so many, or into `frames`, for an engine that would end elsewhere."""

    def insist(route: Route) -> None:
        order = route.request.post_data_json
        most = order.pop("max_new_tokens", None)
        order["exact_frames"] = frames or most
        route.continue_(post_data=json.dumps(order))

    page.route("**/v1/audio/speech", insist)


def speak(page: Page, text: str, **settings: object) -> None:
    """Speak and wait for the end of the stream."""
    write(page, text, **settings)
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Done: ")


def pcm_of(wav: bytes) -> bytes:
    """The samples of a WAV file of 16 bits."""
    return soundfile.read(io.BytesIO(wav), dtype="int16")[0].tobytes()


def download(page: Page, audio_format: str) -> tuple[str, bytes]:
    """Name and content of the file that the download button gives."""
    page.get_by_label("Download format").select_option(audio_format)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download", exact=True).click()
    file = waiting.value
    return file.suggested_filename, Path(file.path()).read_bytes()
