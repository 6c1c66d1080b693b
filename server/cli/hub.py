"""The commands `pull` and `push`, and `convert`, which is the exporter's."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path

from server.cli.bundles import NONE_PUBLISHED
from server.cli.errors import USAGE_ERROR, CommandError
from server.config import Settings
from server.config.values import fetched_models_dir
from server.manifest import MANIFEST_NAME
from server.models.catalogue import find
from server.models.fetching import FetchError
from server.models.names import how_to_make, hub_bundle

PLUGINS = "qwen3_tts.commands"
"""Entry points under this group are commands; the exporter registers its own, so that nothing here imports it."""


def pull(arguments: argparse.Namespace, settings: Settings) -> None:
    """Fetch a ready bundle into the models folder."""
    try:
        wanted = hub_bundle(arguments.model, settings.precision)
    except ValueError as error:
        raise CommandError(str(error), USAGE_ERROR) from None
    if wanted is None:
        raise CommandError(
            f"{arguments.model!r} names no Hub repository of ready bundles, OWNER/NAME or OWNER/NAME@PRECISION; "
            f"{NONE_PUBLISHED}; {how_to_make(arguments.model)}",
            USAGE_ERROR,
        )
    from server.hub.pull import Pull  # this needs huggingface_hub, which takes a second to import

    fetch = Pull(wanted, fetched_models_dir(settings.models_dir), arguments.revision, bars=True)
    had_it = fetch.is_there and not arguments.force
    try:
        folder = fetch.run(again=arguments.force, tell=_tell)
    except FetchError as error:
        raise CommandError(str(error)) from None
    _tell(f"it is there already; --force fetches it again: {folder}" if had_it else f"fetched and verified: {folder}")
    print(folder.name)


def push(arguments: argparse.Namespace, settings: Settings) -> None:
    """Publish a bundle in a Hub repository."""
    folder = settings.models_dir / arguments.bundle
    if not (folder / MANIFEST_NAME).is_file():
        folder = Path(arguments.bundle).expanduser().absolute()
    if not folder.is_dir():
        there = ", ".join(bundle.id for bundle in find(settings.models_dir)) or "none"
        raise CommandError(f"{arguments.bundle!r} is no model and no folder; there are {there}", USAGE_ERROR)
    from server.hub.push import push as publish  # as above

    try:
        address = publish(folder, arguments.repo, license_id=arguments.license, private=arguments.private, tell=_tell)
    except FetchError as error:
        raise CommandError(str(error)) from None
    print(address)


def convert(arguments: argparse.Namespace, settings: Settings) -> None:
    """Run the exporter with the rest of the command line."""
    found = importlib.metadata.entry_points(group=PLUGINS, name="convert")
    if not found:
        raise CommandError("the exporter is not installed: pip install 'qwen3-tts-edge[cpu,export]'")
    sys.exit(next(iter(found)).load()(arguments.rest))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
