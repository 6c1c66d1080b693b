"""Which files the site consists of, for `mkdocs.yml`: the first page and whatever can be reached from it by links.

They lie in the site as they lie in the repository, so that links between pages are the same on both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
FROM_ELSEWHERE = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')


def links(page: str) -> list[str]:
    """What a page links to, pictures too, outside of its examples: `FILE`, `FILE#ANCHOR`, `#ANCHOR` or an address."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL))


def reachable(first: Path = ROOT / "README.md") -> list[Path]:
    """The first page, then every file that it or a page behind it links to, sorted, as far as the file is there."""
    found: set[Path] = set()
    waiting = [first]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        if path.suffix == ".md":
            targets = (
                link.partition("#")[0] for link in links(path.read_text("utf-8")) if not re.match("[a-z]+:", link)
            )
            waiting += [(path.parent / target).resolve() for target in targets if target]
    return [first, *sorted(found - {first})]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs with the files of `docs` and of the theme."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in reachable():
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_post_page(output: str, **_: object) -> str:
    """Called by MkDocs with each page of the site, which must load nothing from elsewhere."""
    from mkdocs.exceptions import PluginError

    if found := FROM_ELSEWHERE.search(output):
        raise PluginError(f"a page loads something from elsewhere: {found[0]}")
    return output
