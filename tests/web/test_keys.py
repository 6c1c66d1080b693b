"""The pages of a server that wants a key."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.server.running import KEY, RunningServer
from tests.web.conftest import OpenPage
from tests.web.studio import speak, text_of, use_key, write


def stored(page: Page) -> list[str]:
    values: list[str] = page.evaluate(
        "Object.values(localStorage).concat(Object.values(sessionStorage), document.cookie)"
    )
    return [value for value in values if value]


def test_the_page_asks_refuses_and_opens(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server)
    panel = page.get_by_role("region", name="This server wants an API key")
    expect(panel).to_be_visible()
    write(page, "Hello")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(panel.get_by_role("alert")).to_have_text("Enter the key first.")
    expect(page.get_by_label("API key", exact=True)).to_be_focused()

    use_key(page, "wrong")
    expect(panel.get_by_role("alert")).to_have_text("This API key is not known here.")
    use_key(page, "schlüssel €")
    expect(panel.get_by_role("alert")).to_contain_text("characters that cannot be sent")
    use_key(page, KEY)
    expect(panel).to_be_hidden()
    expect(page.locator("#status")).to_have_text("The server takes the key.")
    expect(page.locator("#model-help")).to_contain_text("Custom, for tests")
    expect(text_of(page)).to_have_value("Hello")
    speak(page, "Hello", max_new_tokens=2)

    assert stored(page) == []
    page.reload()
    expect(panel).to_be_visible()


def test_a_key_is_remembered_only_on_demand_and_can_be_forgotten(
    open_page: OpenPage, keyed_server: RunningServer
) -> None:
    page = open_page(keyed_server)
    panel = page.get_by_role("region", name="This server wants an API key")
    page.get_by_label("Remember in this browser").check()
    use_key(page, KEY)
    expect(panel).to_be_hidden()
    assert stored(page) == [KEY]
    page.reload()
    speak(page, "Hello", max_new_tokens=2)
    expect(panel).to_be_hidden()

    page.get_by_role("button", name="Forget the API key").click()
    expect(panel).to_be_visible()
    assert stored(page) == []
    expect(page.get_by_role("button", name="Forget the API key")).to_be_hidden()


def test_a_key_that_is_no_longer_known(open_page: OpenPage, keyed_server: RunningServer) -> None:
    page = open_page(keyed_server)
    page.evaluate("localStorage.setItem('api-key', 'revoked')")
    page.reload()
    panel = page.get_by_role("region", name="This server wants an API key")
    expect(panel).to_be_visible()
    write(page, "Hello")
    page.get_by_role("button", name="Speak", exact=True).click()
    expect(panel.get_by_role("alert")).to_have_text("This API key is not known here.")
