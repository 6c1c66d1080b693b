"""The command `qwen3-tts`, also `python -m server`: serve, say, voices, models, bench, keys."""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from server import __version__, config, key_file, listening, log, voices
from server.addresses import NO_ORIGIN
from server.arguments import SAY_OPTIONS, Command, make_parser
from server.audio.encoders import FORMATS
from server.bundles import Bundles
from server.config import Settings, SettingsError
from server.errors import ApiError
from server.graphs.manifest import BundleError
from server.key_file import KeyFileError
from server.metrics import Metrics
from server.opening import (
    FAILURE,
    USAGE_ERROR,
    CommandError,
    check_runtime,
    engine_loader,
    lexicon_of_settings,
    open_bundles,
    open_pool,
    profiles_of,
)
from server.pool import EnginePool
from server.profiles import Profile
from server.speech_engine import Loader
from server.speech_request import build

INTERRUPTED = 130


def run_server(settings: Settings, load: Loader) -> None:
    """Serve until a signal ends it."""
    from server import app, heap, lifecycle

    heap.bound()
    log.configure()
    bundles, profiles, lexicon = open_bundles(settings), profiles_of(settings), lexicon_of_settings(settings)
    log.event("starting", version=__version__)
    metrics = Metrics()
    pool = open_pool(settings, bundles, load, metrics)
    for name in config.unknown_variables():
        level = logging.WARNING if config.may_hold_a_secret(name) else logging.INFO
        log.event("unknown_setting", level=level, variable=name)
    if NO_ORIGIN in settings.cors_origins:
        reason = "sandboxed frames of every page have the origin null; all of them may call the API"
        log.event("cors_origin_null", level=logging.WARNING, reason=reason)
    try:
        served = app.create_app(settings, pool, profiles, metrics, lexicon)
    except KeyFileError as error:
        raise CommandError(f"{config.PREFIX}API_KEYS_FILE: {error}", USAGE_ERROR) from None
    try:
        sockets = listening.listen(settings.address, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"cannot listen on {settings.address} port {settings.port}: {reason}") from None
    lifecycle.serve(
        served,
        sockets,
        lambda: _announce(settings, bundles, profiles, sockets),
        settings.drain_seconds,
        settings.drain_delay_seconds,
    )
    log.event("stopped")
    if pool.at_work:
        # Ending Python beneath a thread that is still in native code may crash; there is nothing left to do.
        sys.stderr.flush()
        os._exit(0)


def _announce(
    settings: Settings, bundles: Bundles, profiles: Mapping[str, Profile], sockets: Sequence[socket.socket]
) -> None:
    url, *others = map(listening.url_of, sockets)
    access = "key" if settings.requires_key else "open to all"
    if not settings.requires_key and settings.auth == "on":
        access = f"loopback only, as there is no key in {config.PREFIX}SECRET_API_KEY or {config.PREFIX}API_KEYS_FILE"
    log.event("listening", url=url, also=" ".join(others) or None, access=access, models=len(bundles.all()))
    for problem in bundles.problems:
        log.event("model_unavailable", level=logging.WARNING, reason=problem)
    for bundle in bundles.all():
        if bundle.readable and (missing := voices.left_out(bundle.readable, profiles)):
            told = ", ".join(f"{voice} needs the speaker {speaker}" for voice, speaker in missing.items())
            log.event("voices_left_out", level=logging.WARNING, model=bundle.id, reason=told)


def _serve(arguments: argparse.Namespace, settings: Settings) -> None:
    run_server(settings, engine_loader(settings))


def _say(arguments: argparse.Namespace, settings: Settings) -> None:
    output: Path = arguments.output
    audio_format = output.suffix.lower().removeprefix(".")
    if audio_format not in FORMATS:
        raise CommandError(f"{output}: the name must end in one of .{', .'.join(FORMATS)}", USAGE_ERROR)
    if not output.parent.is_dir():
        raise CommandError(f"{output}: there is no folder {output.parent}", USAGE_ERROR)
    pool = open_pool(settings, open_bundles(settings), engine_loader(settings), Metrics())
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
        **{name: getattr(arguments, name) for name in SAY_OPTIONS},
    )
    profiles, lexicon = profiles_of(settings), lexicon_of_settings(settings)
    service = SpeechService(pool, profiles, settings.max_input_chars, lexicon)
    try:
        print(await say(service, request, arguments.output), file=sys.stderr)
    finally:
        await pool.close()


def _voices(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings)
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    for voice in voices.voices_of(bundle.manifest, profiles_of(settings)):
        about = ", ".join(filter(None, (voice.description, voice.gender, voice.language)))
        if voice.alias_of:
            about = f"stand-in, speaks as {voice.alias_of}" if voice.stand_in else f"means {voice.alias_of}"
        print(f"{voice.id:<20} {about}".rstrip())


def _models(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings).all()
    if not bundles:
        raise CommandError(f"there is no model bundle in {settings.models_dir}")
    for number, bundle in enumerate(bundles):
        mark = " (default)" if number == 0 else ""
        about = f"cannot be served: {bundle.problem}" if bundle.readable is None else bundle.readable.description
        print(f"{bundle.id}{mark}\n    {about}")


def _bench(arguments: argparse.Namespace, settings: Settings) -> None:
    check_runtime(settings)
    from server.bench.measure import measure  # these three need ONNX Runtime
    from server.bench.report import report
    from server.graphs.session import ProviderError

    bundles = open_bundles(settings)
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


def _keys(arguments: argparse.Namespace, settings: Settings) -> None:
    path = settings.api_keys_file
    if path is None:
        raise CommandError(f"set {config.PREFIX}API_KEYS_FILE to the file that holds the keys", USAGE_ERROR)
    try:
        if arguments.action == "new":
            print(key_file.add(path, arguments.label))
            print("this is the only time the key is shown; the file holds its hash", file=sys.stderr)
        elif arguments.action == "revoke":
            key_file.revoke(path, arguments.label)
        else:
            for label in key_file.read(path):
                print(label)
    except KeyFileError as error:
        raise CommandError(str(error)) from None


_COMMANDS: dict[str, Command] = {
    "serve": _serve,
    "say": _say,
    "voices": _voices,
    "models": _models,
    "bench": _bench,
    "keys": _keys,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 (failure), 2 (wrong usage or settings), 130 (Ctrl-C)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what Windows writes into a pipe or file knows few letters
    parsed = make_parser(_COMMANDS).parse_args(arguments)
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
