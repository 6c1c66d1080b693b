"""The command `qwen3-tts`, also `python -m server`: serve, say, voices, models."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from server import config, log, voices
from server.audio.encoders import FORMATS
from server.bundles import Bundles, find
from server.config import Settings, SettingsError
from server.engine.events import EngineEvents
from server.errors import ApiError
from server.graphs.manifest import BundleError
from server.metrics import Metrics
from server.pool import EnginePool, PoolLimits
from server.speech_engine import Loader
from server.speech_request import build

USAGE_ERROR = 2
FAILURE = 1
INTERRUPTED = 130


class CommandError(Exception):
    """What stops a command; the message is for its user.

    Args:
        message: one line.
        status: the exit code.
    """

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.status = status


def _engine_loader(settings: Settings) -> Loader:
    """What loads engines. Both packages of ONNX Runtime have one import name, so that none or one of them is there."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise CommandError(
            "ONNX Runtime is not installed: install qwen3-tts-edge[cpu], or qwen3-tts-edge[cuda] for an NVIDIA GPU"
        )
    from server.engine.worker import Engine  # this and the next need ONNX Runtime
    from server.graphs.session import ProviderError, choose_provider

    try:
        choose_provider(settings.execution_provider)
    except ProviderError as error:
        raise CommandError(str(error), USAGE_ERROR) from None

    def load(folder: Path, events: EngineEvents) -> Engine:
        try:
            return Engine.load(
                folder,
                provider=settings.execution_provider,
                threads=settings.threads,
                max_rows=settings.max_rows,
                max_queue=settings.max_queue,
                events=events,
            )
        except ProviderError as error:  # a reason to tell like any other why this bundle cannot be served
            raise BundleError(str(error)) from error

    return load


def open_bundles(settings: Settings) -> Bundles:
    """The bundles of the models folder.

    Raises:
        CommandError: `KW_MODEL` is not among them; an empty folder is no error, a server may wait for its bundles.
    """
    found = find(settings.models_dir)
    ids = [bundle.id for bundle in found]
    wanted = {settings.model, f"{settings.model}_{settings.precision}"}
    if settings.model is not None and found and not wanted & set(ids):
        raise CommandError(
            f"{config.PREFIX}MODEL: no model {settings.model!r}; there are {', '.join(ids)}", USAGE_ERROR
        )
    return Bundles(found, settings.model, settings.precision)


def open_pool(settings: Settings, bundles: Bundles, load: Loader, metrics: Metrics) -> EnginePool:
    """The engines of these bundles, none of them loaded yet.

    Raises:
        CommandError: the default model cannot run in the memory of this machine.
    """
    from server import memory  # needs ONNX Runtime

    default = next(iter(bundles.all()), None)
    if default is not None and default.readable is not None:
        try:
            warning = memory.check(default.readable, settings.max_rows, memory.machine())
        except memory.MemoryShortage as error:
            raise CommandError(str(error)) from None
        if warning:
            log.event("memory", level=logging.WARNING, reason=warning)
    limits = PoolLimits(
        memory=settings.model_memory,
        idle_seconds=settings.idle_unload_seconds,
        wait_seconds=settings.load_wait_seconds,
        max_waiting=settings.max_rows + settings.max_queue,
    )
    return EnginePool(bundles, load, partial(memory.model_bytes, rows=settings.max_rows), limits, metrics)


def run_server(settings: Settings, load: Loader) -> None:
    """Serve until a signal ends it."""
    from server import app, lifecycle

    log.configure()
    bundles = open_bundles(settings)
    metrics = Metrics()
    pool = open_pool(settings, bundles, load, metrics)
    for name in config.unknown_variables():
        log.event("unknown_setting", variable=name)
    try:
        sock = lifecycle.listen(settings.address, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"cannot listen on {settings.address} port {settings.port}: {reason}") from None
    lifecycle.serve(
        app.create_app(settings, pool, metrics),
        sock,
        lambda: _announce(settings, bundles, sock),
        settings.drain_seconds,
    )
    log.event("stopped")
    if pool.at_work:
        # Ending Python beneath a thread that is still in native code may crash; there is nothing left to do.
        sys.stderr.flush()
        os._exit(0)


def _announce(settings: Settings, bundles: Bundles, sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    access = "key" if settings.requires_key else "open to all"
    if not settings.requires_key and settings.auth == "on":
        access = f"loopback only, as {config.PREFIX}SECRET_API_KEY is not set"
    log.event("listening", url=f"http://{shown}:{port}", access=access, models=len(bundles.all()))
    for problem in bundles.problems:
        log.event("model_unavailable", reason=problem)


def _serve(arguments: argparse.Namespace, settings: Settings) -> None:
    run_server(settings, _engine_loader(settings))


def _say(arguments: argparse.Namespace, settings: Settings) -> None:
    output: Path = arguments.output
    audio_format = output.suffix.lower().removeprefix(".")
    if audio_format not in FORMATS:
        raise CommandError(f"{output}: the name must end in one of .{', .'.join(FORMATS)}", USAGE_ERROR)
    if not output.parent.is_dir():
        raise CommandError(f"{output}: there is no folder {output.parent}", USAGE_ERROR)
    pool = open_pool(settings, open_bundles(settings), _engine_loader(settings), Metrics())
    asyncio.run(_say_to_file(arguments, settings, pool, audio_format))


async def _say_to_file(arguments: argparse.Namespace, settings: Settings, pool: EnginePool, audio_format: str) -> None:
    from server.say import say  # these two need ONNX Runtime
    from server.service import SpeechService

    bundle = pool.bundles.resolve(arguments.model) if arguments.model else pool.bundles.default()
    request = build(
        model=bundle.id,
        input=arguments.text,
        voice=arguments.voice or voices.default_voice(bundle.manifest),
        response_format=audio_format,
        **{name: getattr(arguments, name) for name in _SAY_OPTIONS},
    )
    try:
        print(await say(SpeechService(pool, settings.max_input_chars), request, arguments.output), file=sys.stderr)
    finally:
        await pool.close()


def _voices(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings)
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    for voice in voices.voices_of(bundle.manifest):
        about = f"means {voice.alias_of}" if voice.alias_of else ", ".join(filter(None, (voice.gender, voice.language)))
        print(f"{voice.id:<16} {about}".rstrip())


def _models(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings).all()
    if not bundles:
        raise CommandError(f"there is no model bundle in {settings.models_dir}")
    for number, bundle in enumerate(bundles):
        mark = " (default)" if number == 0 else ""
        about = f"cannot be served: {bundle.problem}" if bundle.readable is None else bundle.readable.description
        print(f"{bundle.id}{mark}\n    {about}")


_SAY_OPTIONS: dict[str, tuple[type, str]] = {
    "language": (str, "a language's name or ISO code, or auto (the default)"),
    "instructions": (str, "how to speak; for a VoiceDesign model, which voice"),
    "seed": (int, "the same seed gives the same speech; random by default"),
    "temperature": (float, "0 to 2; 0 always takes the likeliest code"),
    "top_k": (int, "draw from so many likeliest codes; 0 from all"),
    "top_p": (float, "draw from the likeliest codes of so much probability"),
    "repetition_penalty": (float, "1 to 2"),
    "max_new_tokens": (int, "codec frames at most (12.5 are one second)"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    lines = ["settings, as environment variables:"]
    for name, default, meaning in config.describe():
        lines.append(f"  {name}")
        lines += textwrap.wrap(
            f"{meaning} Default: {default}.", width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    settings = "\n".join(lines)

    def command(parent: Any, name: str, run: Callable[..., None], about: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = parent.add_parser(
            name, help=about, description=about, epilog=settings, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        made.set_defaults(run=run)
        return made

    parser = argparse.ArgumentParser(
        "qwen3-tts",
        description="Qwen3-TTS speech, served over an OpenAI-compatible API or written to a file.",
        epilog=settings,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(title="commands", metavar="serve (default) | say | voices | models")
    command(commands, "serve", _serve, "serve the API until stopped")
    say = command(commands, "say", _say, "speak a text into a file")
    say.add_argument("text", help="what to say")
    say.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"file to write, ending in .{', .'.join(FORMATS)}",
    )
    say.add_argument("--voice", help="a voice from `qwen3-tts voices`; by default what OpenAI's alloy means")
    for name, (kind, about) in _SAY_OPTIONS.items():
        say.add_argument(f"--{name.replace('_', '-')}", type=kind, help=about)
    listing = command(commands, "voices", _voices, "list the voices of a model")
    for each in (say, listing):
        each.add_argument("--model", help="a model from `qwen3-tts models`; by default the default model")
    command(commands, "models", _models, "list the models")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (failure), 2 (wrong usage or settings), 130 (Ctrl-C)."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed, config.load())
        sys.stdout.flush()
    except SettingsError as error:
        return _fail(str(error), USAGE_ERROR)
    except CommandError as error:
        return _fail(str(error), error.status)
    except ApiError as error:
        return _fail(error.message, USAGE_ERROR if error.status in (400, 404) else FAILURE)
    except BrokenPipeError:  # whoever read our output has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}", FAILURE)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _fail(message: str, status: int) -> int:
    print(f"qwen3-tts: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
