"""The examples of the pages: every fenced block, and who runs it.

Commands that a test can run are run as they stand: by `tests/server/http/test_examples.py` those that name the server's
address, by `tests/test_examples.py` the others. What neither can run is named in `NOT_RUN`, each with its reason, so
that a new example is either run or explained.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.sources import ROOT

ADDRESS = "127.0.0.1:3000"

INSTALLATION = "installs packages: tests/server/test_install.py does so from a wheel, tests/newcomer.py from a clone"
SERVE = "an installation of its own: tests/newcomer.py runs `make serve`, the tests of tests/server run the settings"
REAL_WEIGHTS = "real weights, gigabytes from the Hub: tests/export and tests/server/hub do it with small ones"
CONTAINER = "a container engine: benchmarks/image.py builds the image and runs it without one"
RAY = "Ray, which weighs a gigabyte: `make test-ray` runs it"
TRAINING = "hours of training"

NOT_RUN = {
    r"make test$": "the tests themselves",
    r"make (check(-deploy)?|docs)$": "the checks themselves: .ci/run runs them, and deploy/check.sh builds the site",
    r"make export-tools$": "gigabytes of packages: `make tools`, with which .ci/run begins, installs the same ones",
    r"(KW_\w+=\S+ )?make serve$": SERVE,
    r"(pip|uvx|\.venv/bin/pip) ": INSTALLATION,
    r"TTS_OPENAI_URL=": "wyoming-openai: `make test-clients` runs it",
    r"\.venv/bin/qwen3-tts convert": REAL_WEIGHTS,
    r"\.venv/bin/qwen3-tts bench --model qwen3_tts_0_6b": REAL_WEIGHTS,
    r"qwen3-tts (push|pull) ": REAL_WEIGHTS,
    r"KW_PULL=on ": REAL_WEIGHTS,
    r"docker ": CONTAINER,
    r"kubectl ": "a cluster: deploy/check.sh compares the manifests with its schemas",
    r"(ray|serve|python deploy/ray/batch\.py) ": RAY,
    r"\.venv/bin/python -m benchmarks\.stages ": "minutes: tests/benchmarks/test_stages.py runs it on a small model",
    r"\.venv/bin/python -m benchmarks\.gpu": "a GPU, or minutes: tests/benchmarks/test_gpu.py rehearses it",
    r"(\.venv/bin/python -m benchmarks\.skeleton|benchmarks/gpu_session\.sh) ": "a full-size bundle, and a GPU: "
    "tests/benchmarks/test_skeleton.py rehearses both",
    r"apt-get download ": TRAINING,
    r"export ROOT=": TRAINING,
    r"python (\w+|\$ROOT/export/convert)\.py ": TRAINING,
    r"curl \S+/v1/audio/voices -F name=sailor": "a VoiceDesign model whose speech ends by itself: "
    "tests/server/http/test_voices.py sends these fields to a fake one",
}
"""How the commands begin that no test runs (regular expressions), and why."""


@dataclass(frozen=True)
class Example:
    """A fenced block of a page, which is named by its path in the repository."""

    page: str
    language: str
    code: str

    def commands(self) -> list[str]:
        """Those of a shell's example, each with all of its lines, without comments behind them."""
        found: list[str] = []
        waiting = ""
        for line in self.code.splitlines(keepends=True):
            waiting += line
            try:
                words = shlex.split(waiting, comments=True)
            except ValueError:  # a quotation goes on in the next line
                continue
            if waiting.rstrip().endswith(("\\", "|")):
                continue
            if words:
                found.append(re.sub(r"\s+# .*$", "", waiting.strip()))
            waiting = ""
        if waiting:
            raise AssertionError(f"{self.page}: an example ends within a command: {waiting}")
        return found

    def runnable(self) -> list[str]:
        """The commands that a test can run."""
        return [command for command in self.commands() if reason_not_to_run(command) is None]


def reason_not_to_run(command: str) -> str | None:
    """Why no test runs this command; None where one does."""
    return next((reason for begins, reason in NOT_RUN.items() if re.match(begins, command)), None)


def pages(root: Path = ROOT) -> list[Path]:
    """Every page of Markdown that is somebody's to read."""
    patterns = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "deploy/**/*.md", "models/**/*.md", ".github/**/*.md")
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def examples(root: Path = ROOT) -> list[Example]:
    """All fenced blocks of all pages, in their order."""
    return [
        Example(path.relative_to(root).as_posix(), language, code)
        for path in pages(root)
        for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    ]
