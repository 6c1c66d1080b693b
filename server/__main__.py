"""The command `qwen3-tts`, also `python -m server`: serve, say, voices, models, bench."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import shutil
import socket
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from server import config, log, voices
from server.audio.encoders import FORMATS
from server.bundles import Bundles, Loader, find
from server.config import Settings, SettingsError
from server.errors import ApiError
from server.graphs.manifest import BundleError
from server.speech_request import build

USAGE_ERROR = 2
FAILURE = 1
INTERRUPTED = 130
MOST = 1024
"""Of whatever `bench` counts."""


class CommandError(Exception):
    """What stops a command; the message is for its user.

    Args:
        message: one line.
        status: the exit code.
    """

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.status = status


def _check_runtime(settings: Settings) -> None:
    """See that graphs can be run. Both packages of ONNX Runtime have one import name, so that none or one is there."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise CommandError(
            "ONNX Runtime is not installed: install qwen3-tts-edge[cpu], or qwen3-tts-edge[cuda] for an NVIDIA GPU"
        )
    from server.graphs.session import ProviderError, choose_provider  # needs ONNX Runtime

    try:
        choose_provider(settings.execution_provider)
    except ProviderError as error:
        raise CommandError(str(error), USAGE_ERROR) from None


def _engine_loader(settings: Settings) -> Loader:
    """What loads engines."""
    _check_runtime(settings)
    from server.engine.worker import Engine  # this and the next need ONNX Runtime
    from server.graphs.session import ProviderError

    def load(folder: Path) -> Engine:
        try:
            return Engine.load(
                folder,
                provider=settings.execution_provider,
                threads=settings.threads,
                max_rows=settings.max_rows,
                max_queue=settings.max_queue,
            )
        except ProviderError as error:  # a reason to tell like any other why this bundle cannot be served
            raise BundleError(str(error)) from error

    return load


def _no_engine(folder: Path) -> Any:
    raise NotImplementedError("commands that only list bundles load none")


def open_bundles(settings: Settings, load: Loader) -> Bundles:
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
    return Bundles(found, settings.model, load, settings.precision)


def run_server(settings: Settings, load: Loader) -> None:
    """Serve until a signal ends it."""
    from server import app  # needs ONNX Runtime

    log.configure()
    bundles = open_bundles(settings, load)
    for name in config.unknown_variables():
        log.event("unknown_setting", variable=name)
    try:
        sock = app.listen(settings)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"cannot listen on {settings.address} port {settings.port}: {reason}") from None
    app.serve(app.create_app(settings, bundles), sock, lambda: _announce(settings, bundles, sock))
    log.event("stopped")
    if bundles.loading:
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
    bundles = open_bundles(settings, _engine_loader(settings))
    asyncio.run(_say_to_file(arguments, settings, bundles, audio_format))


async def _say_to_file(arguments: argparse.Namespace, settings: Settings, bundles: Bundles, audio_format: str) -> None:
    from server.service import SpeechService  # needs ONNX Runtime

    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    options = {name: getattr(arguments, name) for name in _SAY_OPTIONS}
    request = build(
        model=bundle.id,
        input=arguments.text,
        voice=arguments.voice or voices.default_voice(bundle.manifest),
        response_format=audio_format,
        **options,
    )
    output: Path = arguments.output
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        speech = await SpeechService(bundles, settings.max_input_chars).start(request, wait=True)
        try:
            unfinished.write_bytes(await speech.whole())
        finally:
            speech.stop()
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)
        await bundles.close()
    audio, wall = speech.audio_seconds, speech.wall_seconds
    print(
        f"{output}: {audio:.2f} s of audio made in {wall:.2f} s by {bundle.id}, voice {request.voice_name}, "
        f"seed {speech.seed}; RTF {wall / audio:.2f} (below 1 is faster than real time)",
        file=sys.stderr,
    )


def _voices(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings, _no_engine)
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    for voice in voices.voices_of(bundle.manifest):
        about = f"means {voice.alias_of}" if voice.alias_of else ", ".join(filter(None, (voice.gender, voice.language)))
        print(f"{voice.id:<16} {about}".rstrip())


def _models(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings, _no_engine).all()
    if not bundles:
        raise CommandError(f"there is no model bundle in {settings.models_dir}")
    for number, bundle in enumerate(bundles):
        mark = " (default)" if number == 0 else ""
        about = f"cannot be served: {bundle.problem}" if bundle.readable is None else bundle.readable.description
        print(f"{bundle.id}{mark}\n    {about}")


def _bench(arguments: argparse.Namespace, settings: Settings) -> None:
    _check_runtime(settings)
    from server.bench.measure import measure  # these three need ONNX Runtime
    from server.bench.report import report
    from server.graphs.session import ProviderError

    bundles = open_bundles(settings, _no_engine)
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    if bundle.readable is None:
        raise bundle.unavailable()
    try:
        measured = measure(
            bundle.folder,
            provider=settings.execution_provider,
            threads=settings.threads if arguments.threads is None else arguments.threads,
            frames=arguments.frames,
            requests=arguments.requests,
            rows=arguments.rows,
            progress=lambda doing: print(f"{bundle.id}: {doing}", file=sys.stderr),
        )
    except (BundleError, ProviderError) as error:
        raise CommandError(str(error)) from None
    print(report(measured))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {MOST}")
    return int(text)


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
    commands = parser.add_subparsers(title="commands", metavar="serve (default) | say | voices | models | bench")
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
    bench = command(commands, "bench", _bench, "measure how fast a model is on this machine")
    bench.add_argument("--frames", type=_count, default=50, help="codec frames a request, 80 ms each (%(default)s)")
    bench.add_argument("--requests", type=_count, default=3, help="requests to measure (%(default)s)")
    bench.add_argument("--rows", type=_count, nargs="+", default=[], help="also so many requests side by side: 4 8")
    bench.add_argument("--threads", type=_count, help="CPU threads; by default KW_THREADS")
    for each in (say, listing, bench):
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
