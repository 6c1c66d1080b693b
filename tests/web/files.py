"""The pages' files as the tests without a browser read them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from server.http.routes.pages import PAGES, WEB

FILES = sorted(path for path in WEB.iterdir() if path.is_file())
HTML = sorted(PAGES.values())
SCRIPTS = [path.name for path in FILES if path.suffix == ".js"]
VOID = {"input", "img", "link", "meta", "br"}


@dataclass
class Element:
    """One element, its attributes, its text and the element around it."""

    tag: str
    attributes: dict[str, str | None]
    parent: Element | None
    text: str = ""

    def __getitem__(self, name: str) -> str:
        return self.attributes.get(name) or ""

    def inside(self, tag: str) -> bool:
        return self.parent is not None and (self.parent.tag == tag or self.parent.inside(tag))


@dataclass
class Page(HTMLParser):
    """Every element of a page, in its order; its text counts for all elements around it."""

    name: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []
        self.source = (WEB / self.name).read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert not self._open, f"{self.name}: <{self._open[-1].tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), self._open[-1] if self._open else None)
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"{self.name}: </{tag}> closes nothing at {self.getpos()}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]

    @property
    def ids(self) -> list[str]:
        return [element["id"] for element in self.elements if element["id"]]

    def scripts(self) -> set[str]:
        """The modules that the page loads, those that they import too."""
        found: set[str] = set()
        wanted = [element["src"].removeprefix("web/") for element in self.all("script")]
        while wanted:
            name = wanted.pop()
            if name not in found:
                found.add(name)
                wanted += imports(name)
        return found


def script(name: str) -> str:
    return (WEB / name).read_text("utf-8")


def imports(name: str) -> list[str]:
    """What a module imports; all of it lies beside it."""
    return re.findall(r'^import .* from "\./(.+)";$', script(name), re.MULTILINE)
