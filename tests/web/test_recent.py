"""The studio's recent takes: what is kept of them, for how long, and what is read of it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.server.running import RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import download, make_exactly, pcm_of, speak, text_of

FRAMES = 30
"""At most: random weights end where they like."""

AN_EARLIER_VERSION = """() => new Promise((resolve) => {
  const asked = indexedDB.open("qwen3-tts-edge", 1);
  asked.onupgradeneeded = () => asked.result.createObjectStore("takes", { keyPath: "created" });
  asked.onsuccess = () => {
    const transaction = asked.result.transaction("takes", "readwrite");
    const takes = transaction.objectStore("takes");
    const order = { input: "The oldest.", voice: "ryan" };
    takes.put({ created: 1, order, voice: "Ryan", samples: new Int16Array(24000) });
    takes.put({ created: 2, request: { input: "A newer one.", voice: "ryan" }, voice: "Ryan", seed: 3, whole: true,
      samples: Int16Array.from({ length: 48000 }, (_, i) => i % 100) });
    transaction.oncomplete = () => resolve(asked.result.close());
  };
})"""
KEEP_MANY = """async ([first, last]) => {
  const { addTake } = await import("./web/history.js");
  for (let created = first; created <= last; created++) {
    const request = { input: `Take ${created}.`, voice: "ryan" };
    await addTake({ created, request, voice: "Ryan", whole: true, samples: new Int16Array(24) });
  }
}"""
COUNT_READS = """() => {
  window.read = [];
  for (const name of ["get", "getAll"]) {
    const original = IDBObjectStore.prototype[name];
    IDBObjectStore.prototype[name] = function (...wanted) {
      window.read.push(`${name} ${this.name}`);
      return original.apply(this, wanted);
    };
  }
}"""


def test_recent_results_survive_a_reload(open_page: OpenPage, real_server: RunningServer) -> None:
    page = open_page(real_server)
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    speak(page, "The first one.", max_new_tokens=FRAMES, seed=1)
    page.locator("#voices input[value=ryan]").check()
    speak(page, "The second one.", max_new_tokens=FRAMES, seed=2, temperature=0.5)
    wav = download(page, "wav")[1]
    seconds = len(pcm_of(wav)) / 48000
    page.reload()
    rows = page.locator("#recent li")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("The second one.")
    expect(rows.first).to_contain_text(f"Ryan · {seconds:.2f} s")

    rows.first.get_by_role("button", name="Play").click()
    expect(page.locator("#wave")).to_have_attribute("data-state", "playing")
    assert download(page, "wav") == ("ryan-2.wav", wav)
    rows.first.get_by_role("button", name="Use again").click()
    expect(text_of(page)).to_have_value("The second one.")
    expect(page.locator("#voices input[value=ryan]")).to_be_checked()
    expect(page.get_by_label("Temperature")).to_have_value("0.5")

    rows.first.get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("The first one.")
    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_text("Nothing yet.")).to_be_visible()
    page.reload()
    expect(page.locator("#voices input").first).to_be_attached()
    expect(rows).to_have_count(0)


def test_takes_that_an_earlier_version_kept_are_listed_and_played(
    open_page: OpenPage, slow_server: RunningServer
) -> None:
    page = open_page(slow_server, "/developers")
    page.evaluate(AN_EARLIER_VERSION)
    page.goto(f"{slow_server.url}/")
    rows = page.locator("#recent li")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("The oldest.")
    expect(rows.first).to_contain_text("Ryan · 2.00 s")
    rows.first.get_by_role("button", name="Play").click()
    name, pcm = download(page, "pcm")
    assert (name, len(pcm), pcm[:6]) == ("ryan-3.pcm", 96_000, b"\0\0\1\0\2\0")


def test_a_list_is_drawn_without_reading_samples(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    page.evaluate(COUNT_READS)
    speak(page, "Hello.", max_new_tokens=2)
    rows = page.locator("#recent li")
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Star: ").click()
    expect(rows.get_by_role("button", name="Star: ")).to_have_attribute("aria-pressed", "true")
    assert set(page.evaluate("window.read")) == {"getAll takes"}
    rows.get_by_role("button", name="Play").click()
    expect(page.locator("#wave")).to_have_attribute("data-state", "playing")
    assert page.evaluate("window.read").count("get samples") == 1


def names(page: Page) -> list[str]:
    return page.locator("#recent .take-text").all_inner_texts()


def test_takes_have_names_and_those_with_stars_stay(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#recent-empty")).to_be_visible()
    page.evaluate(KEEP_MANY, [1, 2])
    page.reload()
    oldest = page.locator("#recent li").last
    oldest.get_by_role("button", name="Rename").click()
    field = page.get_by_role("textbox", name="Name of the take")
    expect(field).to_be_focused()
    field.fill("Not kept")
    field.press("Escape")
    expect(oldest).to_contain_text("Take 1.")
    expect(oldest.get_by_role("button", name="Rename")).to_be_focused()
    oldest.get_by_role("button", name="Rename").click()
    field.fill("The good one")
    field.press("Enter")
    expect(oldest.get_by_role("button", name="Rename: The good one")).to_be_focused()
    oldest.get_by_role("button", name="Rename").click()
    field.fill("The best one")
    text_of(page).click()  # leaving the field keeps the name
    expect(oldest).to_contain_text("The best one")
    oldest.get_by_role("button", name="Star: ").click()
    expect(oldest.get_by_role("button", name="Star: The best one")).to_be_focused()

    page.evaluate(KEEP_MANY, [3, 25])
    page.reload()
    expect(page.locator("#recent li")).to_have_count(21)
    assert names(page) == [f"Take {number}." for number in range(25, 5, -1)] + ["The best one"]
    page.get_by_role("button", name="Clear all without a star").click()
    expect(page.locator("#recent li")).to_have_count(1)
    assert names(page) == ["The best one"]
    expect(page.locator("#clear")).to_be_hidden()
    oldest.get_by_role("button", name="Delete").click()
    expect(page.locator("#recent-empty")).to_be_visible()


def test_a_take_that_is_played_again_has_its_own_facts(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    make_exactly(page)
    speak(page, "Short.", max_new_tokens=5)
    speak(page, "Longer.", max_new_tokens=10)
    expect(page.locator("#facts")).to_contain_text("Audio0.80 s")
    page.get_by_role("button", name="Play: Short.").click()
    expect(page.locator("#facts")).to_contain_text("Audio0.40 s")
    page.reload()
    page.get_by_role("button", name="Play: Longer.").click()
    expect(page.locator("#facts")).to_contain_text("Audio0.80 s")


def test_on_narrow_screens_a_button_says_its_word_once(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, viewport={"width": 600, "height": 800})
    speak(page, "Short.")
    before = page.locator("#recent button").evaluate_all(
        "all => all.map((one) => getComputedStyle(one, '::before').content)"
    )
    assert before == ["none"] * 5


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ("IDBFactory.prototype.open = () => { throw new DOMException('not here', 'SecurityError'); }", "not here."),
        (
            """IDBFactory.prototype.open = () => {
              const asked = { error: new DOMException('private', 'InvalidStateError') };
              setTimeout(() => asked.onerror());
              return asked;
            }""",
            "private.",
        ),
        (
            """const put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function (...what) {
              const asked = put.apply(this, what);
              const error = new DOMException('', 'QuotaExceededError');
              if (this.name !== 'takes') return asked;
              Object.defineProperty(this.transaction, 'error', { value: error });
              this.transaction.abort();
              return asked;
            }""",
            "QuotaExceededError.",
        ),
        ("IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }", "full."),
    ],
    ids=["forbidden", "private", "quota", "quota at once"],
)
def test_a_browser_that_keeps_no_takes_says_so_and_speaks(
    open_page: OpenPage, slow_server: RunningServer, refusal: str, why: str
) -> None:
    page = open_page(slow_server, "/developers")
    page.add_init_script(refusal)
    page.goto(f"{slow_server.url}/")
    speak(page, "Hello.", max_new_tokens=2)
    note = page.locator("#recent-empty")
    expect(note).to_have_text(f"This browser keeps no results: {why}")
    expect(page.locator("#recent li")).to_have_count(0)
    told = page.evaluate_handle("""() => {
      const texts = [];
      new MutationObserver(() => texts.push(document.querySelector("#recent-empty").textContent))
        .observe(document.querySelector("#recent-empty"), { childList: true });
      return texts;
    }""")
    speak(page, "Hello again.", max_new_tokens=2)
    assert len(download(page, "pcm")[1]) == 2 * 3840
    assert told.json_value() == []  # it is said once
    page.locator(".hear").first.click()  # a sample is not kept, and heard all the same
    expect(page.locator("#error")).to_be_empty()


def test_takes_are_kept_once_the_browser_keeps_them(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server, "/developers")
    page.add_init_script("""
      const open = IDBFactory.prototype.open;
      IDBFactory.prototype.open = () => { throw new DOMException('not yet', 'SecurityError'); };
      window.allow = () => { IDBFactory.prototype.open = open; };
    """)
    page.goto(f"{slow_server.url}/")
    expect(page.locator("#recent-empty")).to_contain_text("not yet")
    page.evaluate("allow()")
    speak(page, "Hello.", max_new_tokens=2)
    expect(page.locator("#recent li")).to_have_count(1)
    expect(page.locator("#recent-empty")).to_be_hidden()
