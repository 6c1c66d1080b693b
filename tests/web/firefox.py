"""Drives the system's Firefox by WebDriver BiDi, which it speaks itself, so that no driver is needed.

Playwright sends `emulation.setMediaFeaturesOverride` to every page, which Firefox ESR does not know, and its own build
of Firefox is in no registry of packages. The protocol: https://w3c.github.io/webdriver-bidi/.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.server.running import PATIENCE_SECONDS, clean_environment, wait_until

NAMES = ("firefox-esr", "firefox")
MISSING = "there is no Firefox here; on Debian: apt-get install firefox-esr"
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.download.alwaysOpenPanel": False,
    "browser.download.folderList": 2,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}
"""Of a profile that asks nobody for anything and saves downloads at once."""
WATCH = """() => {
  window.problems = [];
  addEventListener("error", (event) => problems.push(event.message));
  addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
  addEventListener("securitypolicyviolation", (event) => problems.push(`policy: ${event.blockedURI}`));
}"""
"""Script that notes what goes wrong on a page, before any of its own scripts runs."""


def find() -> str | None:
    """The path of the system's Firefox, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Firefox:
    """One tab of a Firefox.

    Args:
        connection: the WebSocket of its WebDriver BiDi.
        downloads: the folder in which it saves.
    """

    def __init__(self, connection: ClientConnection, downloads: Path) -> None:
        self._connection, self.downloads = connection, downloads
        self._sent = 0
        self.command("session.new", capabilities={})
        self._tab: str = self.command("browsingContext.getTree")["contexts"][0]["context"]
        self.command("script.addPreloadScript", functionDeclaration=WATCH)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            RuntimeError: the browser cannot carry it out.
        """
        self._sent += 1
        self._connection.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._connection.recv(PATIENCE_SECONDS))
            if answer.get("id") == self._sent:
                if answer["type"] == "error":
                    raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self.command("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression, as far as JSON can tell it."""
        found = self.command(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self._tab},
            awaitPromise=True,
        )
        if found["type"] == "exception":
            raise RuntimeError(found["exceptionDetails"]["text"])
        return json.loads(found["result"].get("value", "null"))

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true, and return its value."""
        return wait_until(lambda: self.value(expression), expression)

    def click(self, selector: str) -> None:
        """Click on an element with the pointer, as a person does."""
        element = self._element(selector)
        self.command(
            "script.callFunction",
            functionDeclaration="(one) => one.scrollIntoView()",
            arguments=[element],
            **self._here,
        )
        steps = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": {"type": "element", "element": element}},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._act({"type": "pointer", "id": "mouse", "actions": steps})

    def write(self, selector: str, text: str) -> None:
        """Replace the text of a field by what is typed."""
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        keys = [{"type": kind, "value": letter} for letter in text for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keyboard", "actions": keys})

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a field for one."""
        self.command("input.setFiles", context=self._tab, element=self._element(selector), files=[str(path)])

    @property
    def _here(self) -> dict[str, Any]:
        return {"target": {"context": self._tab}, "awaitPromise": True}

    def _element(self, selector: str) -> dict[str, Any]:
        locator = {"type": "css", "value": selector}
        (node,) = self.command("browsingContext.locateNodes", context=self._tab, locator=locator)["nodes"]
        return {"sharedId": node["sharedId"]}

    def _act(self, device: dict[str, Any]) -> None:
        self.command("input.performActions", context=self._tab, actions=[device])


@contextmanager
def run_firefox(executable: str, scratch: Path) -> Iterator[Firefox]:
    """Run a Firefox with a profile of its own in an empty folder."""
    profile, downloads = scratch / "profile", scratch / "downloads"
    profile.mkdir()
    downloads.mkdir()
    preferences = {**PREFERENCES, "browser.download.dir": str(downloads)}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [executable, "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(profile)]
    log = scratch / "firefox.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=clean_environment(HOME=str(scratch)))
        try:
            listening = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
            found = wait_until(lambda: listening.search(log.read_text()), "Firefox listens")
            with connect(f"{found[1]}/session", max_size=None) as connection:
                firefox = Firefox(connection, downloads)
                yield firefox
                firefox.command("browser.close")
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
