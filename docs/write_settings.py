"""Writes `docs/settings.md` from the settings' own descriptions. Run it as `python docs/write_settings.py`.

A test writes the page again and compares.
"""

from __future__ import annotations

from pathlib import Path

from server import config

PAGE = Path(__file__).resolve().parent / "settings.md"
HEAD = """# Settings

Every setting is an environment variable, which is read once at start. An empty variable counts as not set. The log
names variables that begin with `KW_` and are no settings. `qwen3-tts --help` prints the same list, and
`python docs/write_settings.py` writes this page from the same source.

| variable | default | meaning |
|---|---|---|
"""


def write() -> str:
    """Make the page, a row for each variable."""
    rows = (f"| `{name}` | {default} | {meaning} |\n" for name, default, meaning in config.describe())
    return HEAD + "".join(row.replace("*", r"\*") for row in rows)


if __name__ == "__main__":
    PAGE.write_text(write(), "utf-8")
