"""The line on how the server is."""

from __future__ import annotations

import re

from playwright.sync_api import Route, expect

from server import __version__
from tests.server.running import KEY, RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import speak, use_key

LOOKS = re.compile(r"/(?:readyz|metrics)$")


def metrics(queue: int, count: int, seconds: float) -> str:
    return (
        f'qwen3_tts_rows_running{{model="custom"}} 2.0\nqwen3_tts_queue_depth{{model="custom"}} {queue}.0\n'
        f'qwen3_tts_real_time_factor_count{{model="custom"}} {count}.0\n'
        f'qwen3_tts_real_time_factor_sum{{model="custom"}} {seconds}\n'
    )


def test_it_tells_of_model_queue_speed_and_version(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    line = page.locator("#health")
    expect(line).to_contain_text("custom is in memory · 0 at work, 0 waiting")
    expect(line).to_contain_text(f"version {__version__}")
    page.route("**/metrics", lambda route: route.fulfill(body=metrics(3, 10, 100.0)))
    page.reload()
    expect(line).to_contain_text("custom is in memory · 2 at work, 3 waiting")
    expect(line).to_contain_text("RTF 10.00")
    page.unroute("**/metrics")
    page.route("**/metrics", lambda route: route.fulfill(body=metrics(0, 11, 100.25)))
    speak(page, "Hello", max_new_tokens=2)
    expect(line).to_contain_text("RTF 0.25")  # that of the last speech alone
    expect(line.locator("abbr")).to_have_attribute("title", re.compile("Below 1 is faster"))


def test_the_real_numbers_are_read(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    speak(page, "Hello", max_new_tokens=4)
    expect(page.locator("#health")).to_have_text(re.compile(r"custom is in memory · .* · RTF \d+\.\d\d · version "))
    page.get_by_label("Model").select_option("design")
    expect(page.locator("#health")).to_contain_text("design is ")


def test_without_a_key_it_tells_what_is_public(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server)
    line = page.locator("#health")
    expect(line).to_have_text(f"custom is ready · version {__version__}")
    with page.expect_response("**/metrics") as waiting:
        use_key(page, KEY)
    assert waiting.value.status == 200
    expect(line).to_contain_text("custom is in memory")


def test_it_looks_only_while_the_page_is_seen_and_not_often(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    expect(page.locator("#health")).to_contain_text("version")
    page.clock.install()
    page.reload()
    expect(page.locator("#health")).to_contain_text("version")
    page.clock.run_for(2000)
    asked: list[str] = []
    page.on("request", lambda request: LOOKS.search(request.url) and asked.append(request.url))

    def pass_minute() -> int:
        asked.clear()
        for _ in range(6):
            page.clock.run_for(10_000)
            page.wait_for_timeout(100)  # for the answers
        return len(asked)

    assert 1 <= pass_minute() <= 2 * 4
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert pass_minute() == 0
    page.evaluate("Object.defineProperty(document, 'hidden', { value: false, configurable: true })")
    with page.expect_request("**/readyz"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_server_that_is_not_ready_or_gone(open_page: OpenPage, slow_server: RunningServer) -> None:
    page = open_page(slow_server)
    line = page.locator("#health")
    expect(line).to_contain_text("version")

    def loading(route: Route) -> None:
        error = {"message": "the model is being loaded", "type": "server_error", "param": None, "code": "model_loading"}
        route.fulfill(status=503, json={"error": error, "message": error["message"]})

    page.route("**/readyz", loading)
    page.reload()
    expect(line).to_have_text("The model is being loaded.")
    expect(line.locator(".dot")).to_have_attribute("data-state", "waiting")
    page.unroute("**/readyz")
    expect(line).to_contain_text("version")  # it looks again soon
    page.context.set_offline(True)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(line).to_have_text("The server cannot be reached. Is it still running?")
    page.context.set_offline(False)
    page.route("**/metrics", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(line).to_have_text(f"custom is ready · version {__version__}")
