"""The command `voices`: lists the voices of a model, and adds or removes cloned ones of the folder that keeps them.

Only `add` computes, so that only it needs ONNX Runtime.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from server import config
from server.cli.bundles import open_bundles
from server.cli.errors import USAGE_ERROR, CommandError
from server.cli.startup import open_own_service, profiles_of
from server.config import Settings
from server.voices import catalogue
from server.voices.folder import VoiceFolder
from server.voices.saved import SavedVoice

_NO_TEXT = (
    "--text is missing: every word that is said in the recording; or --x-vector-only, which needs no text and is less "
    "like the speaker",
    "--text is missing: what the voice that is made up is to say for a sample, some 10 s",
)
"""What is said where the text is missing: of a recording, and of a voice that is made up."""


def voices(arguments: argparse.Namespace, settings: Settings) -> None:
    """List, add or remove voices."""
    if arguments.action == "add":
        _add(arguments, settings)
    elif arguments.action == "remove":
        _folder(settings).remove(arguments.name, None, by_operator=True)
    else:
        _list(arguments, settings)


def _list(arguments: argparse.Namespace, settings: Settings) -> None:
    bundles = open_bundles(settings)
    bundle = bundles.resolve(arguments.model) if arguments.model else bundles.default()
    for voice in catalogue.voices_of(bundle.manifest, profiles_of(settings)):
        about = ", ".join(filter(None, (voice.description, voice.gender, voice.language)))
        if voice.alias_of and voice.stand_in:
            about = ", ".join(filter(None, (f"stand-in, speaks as {voice.alias_of}", voice.gender)))
        elif voice.alias_of:
            about = f"means {voice.alias_of}"
        print(f"{voice.id:<20} {about}".rstrip())
    kept = VoiceFolder(settings.voices_dir, settings.max_voices).all()
    for saved in kept if not arguments.model else [saved for saved in kept if saved.fits(bundle.manifest)]:
        facts = saved.facts
        whose = "everybody's" if facts.owner is None or facts.shared else "one key's"
        about = f"cloned for {facts.model}, {'designed, ' if facts.designed else ''}{whose}"
        print(f"{saved.name:<20} {', '.join(filter(None, (facts.description, about)))}")


def _folder(settings: Settings) -> VoiceFolder:
    if settings.voices_dir is None:
        raise CommandError(f"set {config.PREFIX}VOICES_DIR to the folder that keeps the voices", USAGE_ERROR)
    return VoiceFolder(settings.voices_dir, settings.max_voices, settings.max_voices_per_key)


def _add(arguments: argparse.Namespace, settings: Settings) -> None:
    _folder(settings)
    if arguments.ref_text is None and (arguments.instructions is not None or not arguments.x_vector_only_mode):
        raise CommandError(_NO_TEXT[arguments.instructions is not None], USAGE_ERROR)
    upload: bytes | None = None
    if arguments.recording is not None:
        recording: Path = arguments.recording
        if recording.stat().st_size > settings.max_reference:
            raise CommandError(f"{recording} is longer than {config.PREFIX}MAX_REFERENCE={settings.max_reference}")
        upload = recording.read_bytes()
    voice = asyncio.run(_keep(arguments, settings, upload))
    for note in voice.facts.notes:
        print(f"note: {note}")
    print(f"{voice.name}: kept, for {voice.facts.model} and models of its sizes")


async def _keep(arguments: argparse.Namespace, settings: Settings, upload: bytes | None) -> SavedVoice:
    from server.speech.keeping import Keeper, read_order  # this one needs ONNX Runtime

    fields = ("name", "consent", "ref_text", "description", "x_vector_only_mode", "model", "instructions", "seed")
    order = read_order({name: getattr(arguments, name) for name in fields})
    service = open_own_service(settings)
    try:
        keeper = Keeper(service, settings.voice_consent)
        return await keeper.keep(order, upload, None, wait=True)
    finally:
        await service.pool.close()
