"""The command line: commands, options and their help."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from server import __version__, config
from server.audio.formats import FORMATS
from server.config import Settings
from server.speech.request import SpeechRequest

Command = Callable[[argparse.Namespace, Settings], None]

MAX_BENCH_COUNT = 1024
"""The largest number of frames, tokens, requests or threads that `bench` takes."""


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BENCH_COUNT:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {MAX_BENCH_COUNT}")
    return int(text)


SAY_OPTIONS = (
    "language",
    "instructions",
    "speed",
    "text_format",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "max_new_tokens",
    "exact_frames",
    "layout",
    "trim_start",
    "ref_text",
    "x_vector_only_mode",
    "append_silence",
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

    def command(parent: Any, name: str, about: str, **options: Any) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(
            name,
            help=about,
            description=about,
            epilog=settings,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
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
        title="commands",
        metavar="serve (default) | wyoming | say | batch | voices | models | pull | push | convert | bench | keys",
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
    say.add_argument(
        "--ref-audio", type=Path, metavar="FILE", help="a recording of the voice to speak with, for Base models"
    )
    say.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="file to write captions to as well, ending in .srt or .vtt: a caption a sentence, each spoken by itself",
    )
    say.add_argument("--timestamps", help="of --captions: sentence (default), or chunk, which changes no audio")
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
    listing = command(commands, "voices", "list the voices of a model; add or remove cloned ones of KW_VOICES_DIR")
    _add_voice_actions(listing)
    bench = command(commands, "bench", "measure how fast a model is on this machine")
    bench.add_argument("--frames", type=_count, default=50, help="codec frames a request, 80 ms each (%(default)s)")
    bench.add_argument("--requests", type=_count, default=3, help="requests to measure (%(default)s)")
    bench.add_argument("--tokens", type=_count, help="tokens of the text of a request; by default a short sentence")
    bench.add_argument("--threads", type=_count, help="CPU threads; by default KW_THREADS")
    for each in (say, batch, listing, bench):
        each.add_argument("--model", help="a model from `qwen3-tts models`; by default the default model")
    command(commands, "models", "list the models")
    pull = command(commands, "pull", "fetch a ready bundle from a Hub repository into the models folder")
    pull.add_argument(
        "model",
        metavar="OWNER/NAME[@PRECISION]",
        help="the repository, and the precision: KW_PRECISION, else int8, where none is named",
    )
    pull.add_argument("--revision", help="branch, tag or commit (default: the main branch)")
    pull.add_argument("--force", action="store_true", help="fetch it even if it is there; it is replaced at the end")
    push = command(commands, "push", "publish a bundle in a Hub repository, with a model card; wants HF_TOKEN")
    push.add_argument("bundle", metavar="BUNDLE", help="a model from `qwen3-tts models`, or a folder")
    push.add_argument("repo", metavar="OWNER/NAME", help="the repository; it is made if it is not there")
    push.add_argument("--license", metavar="ID", help="of the weights, where the manifest does not name it")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    about = "convert a checkpoint to a bundle; its options are in `qwen3-tts convert --help`"
    command(commands, "convert", about, add_help=False).set_defaults(rest=[])
    keys = command(commands, "keys", "make, list and revoke the API keys of KW_API_KEYS_FILE")
    actions = keys.add_subparsers(dest="action", required=True, metavar="new LABEL | list | revoke LABEL")
    for action, about in (("new", "make a key and print it, once"), ("revoke", "take a key away")):
        actions.add_parser(action, help=about, description=about).add_argument(
            "label", help="whose key it is; logs and metrics show it"
        )
    actions.add_parser("list", help="list the labels", description="list the labels")
    return parser


def _add_voice_actions(voices: argparse.ArgumentParser) -> None:
    """Add what `voices` can do beside listing, which is also what it does where nothing is said."""
    actions = voices.add_subparsers(dest="action", metavar="list (default) | add NAME [FILE] | remove NAME")
    listing = actions.add_parser("list", help="list the voices of a model", description="list the voices of a model")
    add = actions.add_parser("add", help="clone a voice", description="clone a voice, and keep it for everybody")
    add.add_argument("name", help="what a request's `voice` will be")
    add.add_argument(
        "recording", type=Path, nargs="?", metavar="FILE", help="of 3 to 20 s of one person who speaks, in any format"
    )
    add.add_argument("--text", dest="ref_text", help="every word that is said in it, and nothing else")
    add.add_argument(
        "--x-vector-only",
        dest="x_vector_only_mode",
        action="store_true",
        help="keep the speaker embedding alone: it needs no text, and is less like the speaker",
    )
    add.add_argument("--consent", help="that the speaker agreed: yes, or a note on it, which is kept")
    add.add_argument(
        "--instructions", help="instead of FILE: have a VoiceDesign model make up a voice, and say the text"
    )
    add.add_argument("--seed", help="of the voice that is made up")
    add.add_argument("--description", help="a line on how it sounds")
    for each in (listing, add):  # what is said before the action holds as well
        each.add_argument("--model", default=argparse.SUPPRESS, help="a model from `qwen3-tts models`")
    remove = actions.add_parser(
        "remove", help="delete a cloned voice", description="delete a cloned voice, whosever it is"
    )
    remove.add_argument("name")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; of a command that hands its own on, those are in `rest`."""
    parsed, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(parsed, "rest"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    parsed.rest = rest
    return parsed
