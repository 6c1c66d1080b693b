"""The command line: commands, options and their help."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from server import __version__, config
from server.audio.encoders import FORMATS
from server.config import Settings
from server.speech.request import SpeechRequest

Command = Callable[[argparse.Namespace, Settings], None]

MAX_BENCH_COUNT = 1024
"""The largest number of frames, requests or threads that `bench` takes."""


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BENCH_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {MAX_BENCH_COUNT}")
    return int(text)


SAY_OPTIONS = (
    "language",
    "instructions",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "max_new_tokens",
    "exact_frames",
    "layout",
)
"""Fields of a request that `say` takes as options; the request reads and checks their values."""


def make_parser(run: Mapping[str, Command]) -> argparse.ArgumentParser:
    """Make the parser; the arguments that it parses have the command's function as `run`.

    Args:
        run: the function of each command, by name.
    """
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    lines = ["settings, as environment variables:"]
    for name, default, meaning in config.describe():
        lines.append(f"  {name}")
        lines += textwrap.wrap(
            f"{meaning} Default: {default}.", width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    settings = "\n".join(lines)

    def command(parent: Any, name: str, about: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(
            name, help=about, description=about, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        made.set_defaults(run=run[name])
        return made

    parser = argparse.ArgumentParser(
        "qwen3-tts",
        description="Qwen3-TTS speech, served over an OpenAI-compatible API or written to a file.",
        epilog=settings,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qwen3-tts-edge {__version__}")
    parser.set_defaults(run=run["serve"])
    commands = parser.add_subparsers(
        title="commands", metavar="serve (default) | wyoming | say | batch | voices | models | bench | keys"
    )
    command(commands, "serve", "serve the API until stopped")
    command(commands, "wyoming", "serve Home Assistant's protocol, and nothing else, until stopped")
    say = command(commands, "say", "speak a text into a file")
    say.add_argument("text", help="what to say")
    say.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"file to write, ending in .{', .'.join(FORMATS)}",
    )
    say.add_argument("--voice", help="a voice from `qwen3-tts voices`; by default what OpenAI's alloy means")
    for name in SAY_OPTIONS:
        about = (SpeechRequest.model_fields[name].description or "").replace("%", "%%")
        say.add_argument(f"--{name.replace('_', '-')}", help=about)
    batch = command(commands, "batch", "speak many texts into a folder, side by side; goes on where it was stopped")
    batch.add_argument(
        "texts",
        type=Path,
        metavar="FILE",
        help="a .txt, a text a line, or a .jsonl, a request a line (the fields of POST /v1/audio/speech, and `id`, the "
        "file's name)",
    )
    batch.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    batch.add_argument("--format", choices=FORMATS, default="wav", help="of the files (%(default)s)")
    batch.add_argument("--voice", help="of the texts that name none")
    listing = command(commands, "voices", "list the voices of a model")
    bench = command(commands, "bench", "measure how fast a model is on this machine")
    bench.add_argument("--frames", type=_count, default=50, help="codec frames a request, 80 ms each (%(default)s)")
    bench.add_argument("--requests", type=_count, default=3, help="requests to measure (%(default)s)")
    bench.add_argument("--threads", type=_count, help="CPU threads; by default KW_THREADS")
    for each in (say, batch, listing, bench):
        each.add_argument("--model", help="a model from `qwen3-tts models`; by default the default model")
    command(commands, "models", "list the models")
    keys = command(commands, "keys", "make, list and revoke the API keys of KW_API_KEYS_FILE")
    actions = keys.add_subparsers(dest="action", required=True, metavar="new LABEL | list | revoke LABEL")
    for action, about in (("new", "make a key and print it, once"), ("revoke", "take a key away")):
        actions.add_parser(action, help=about, description=about).add_argument(
            "label", help="whose key it is; logs and metrics show it"
        )
    actions.add_parser("list", help="list the labels", description="list the labels")
    return parser
