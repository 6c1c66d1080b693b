"""The commands that end by themselves, without those that have files of their own: `say`, `models`, `bench`, `keys`."""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from server import config
from server.audio.formats import FORMATS
from server.cli.arguments import SAY_OPTIONS
from server.cli.bundles import open_bundles
from server.cli.errors import USAGE_ERROR, CommandError
from server.cli.startup import check_runtime, open_own_service
from server.config import Settings
from server.http import key_file
from server.http.key_file import KeyFileError
from server.manifest import BundleError
from server.speech.request_parsing import build
from server.text import subtitles
from server.voices import catalogue

if TYPE_CHECKING:
    from server.speech.service import SpeechService


def say(arguments: argparse.Namespace, settings: Settings) -> None:
    """Speak a text into a file."""
    output: Path = arguments.output
    audio_format = output.suffix.lower().removeprefix(".")
    if audio_format not in FORMATS:
        raise CommandError(f"{output}: the name must end in one of .{', .'.join(FORMATS)}", USAGE_ERROR)
    captions: Path | None = arguments.captions
    if captions is not None and captions.suffix.lower() not in subtitles.FORMATS:
        raise CommandError(f"{captions}: the name must end in {' or '.join(subtitles.FORMATS)}", USAGE_ERROR)
    if captions is None and arguments.timestamps:
        raise CommandError("--timestamps needs --captions, the file to write them to", USAGE_ERROR)
    for path in filter(None, (output, captions)):
        if not path.parent.is_dir():
            raise CommandError(f"{path}: there is no folder {path.parent}", USAGE_ERROR)
    asyncio.run(_say_to_file(arguments, open_own_service(settings), audio_format))


async def _say_to_file(arguments: argparse.Namespace, service: SpeechService, audio_format: str) -> None:
    from server.cli.say import say as say_to_file  # this one needs ONNX Runtime

    bundles = service.pool.bundles
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    recording = _recording(arguments.ref_audio)
    named = bundle.manifest.clones or recording is not None
    request = build(
        model=arguments.model,  # None leaves it to the service, which knows who can speak with a cloned voice
        input=arguments.text,
        voice=arguments.voice or (None if named else catalogue.default_voice(bundle.manifest)),
        ref_audio=recording,
        response_format=audio_format,
        **{name: getattr(arguments, name) for name in SAY_OPTIONS},
        timestamps=arguments.timestamps or (arguments.captions and "sentence"),
    )
    try:
        print(await say_to_file(service, request, arguments.output, arguments.captions), file=sys.stderr)
    finally:
        await service.pool.close()


def _recording(path: Path | None) -> str | None:
    return None if path is None else base64.b64encode(path.read_bytes()).decode()


def models(arguments: argparse.Namespace, settings: Settings) -> None:
    """List the bundles."""
    bundles = open_bundles(settings).all()
    if not bundles:
        raise CommandError(f"there is no model bundle in {settings.models_dir}")
    for number, bundle in enumerate(bundles):
        mark = " (default)" if number == 0 else ""
        about = (
            f"cannot be served: {bundle.problem}"
            if bundle.manifest_or_none is None
            else bundle.manifest_or_none.description
        )
        print(f"{bundle.id}{mark}\n    {about}")


def bench(arguments: argparse.Namespace, settings: Settings) -> None:
    """Measure a bundle on this machine."""
    check_runtime(settings)
    from server.bench.measure import measure  # these three need ONNX Runtime
    from server.bench.report import report
    from server.graphs.session import ProviderError

    bundles = open_bundles(settings)
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    if bundle.manifest_or_none is None:
        raise bundle.unavailable()
    try:
        measured = measure(
            bundle.folder,
            provider=settings.execution_provider,
            threads=settings.threads if arguments.threads is None else arguments.threads,
            frames=arguments.frames,
            requests=arguments.requests,
            tokens=arguments.tokens,
            progress=lambda doing: print(f"{bundle.id}: {doing}", file=sys.stderr),
        )
    except (BundleError, ProviderError) as error:
        raise CommandError(str(error)) from None
    print(report(measured))


def keys(arguments: argparse.Namespace, settings: Settings) -> None:
    """Make, list and revoke keys."""
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
