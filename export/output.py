"""The folder a conversion writes: filled under another name beside its place, and put there when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from export.checkpoint import Checkpoint
from server.manifest import MANIFEST_NAME

_FLOAT32 = 4  # bytes
_SMALL_FILES = 32 << 20  # tokenizer.json, manifest.json and the graphs without their weights, with room


class OutputError(ValueError):
    """A place where the bundle cannot be written; the message says why and what to do."""


def check_output(output: Path, *, force: bool) -> None:
    """See that `output` is free, or a bundle that `force` allows to replace.

    Raises:
        OutputError: it exists and `force` is off, or it is something else than a bundle.
    """
    if not os.path.lexists(output):
        return
    if not force:
        raise OutputError(f"{output} exists already; give --force to replace it, or another --output")
    replaceable = output.is_dir() and not output.is_symlink()
    if not replaceable or not ((output / MANIFEST_NAME).is_file() or not any(output.iterdir())):
        raise OutputError(f"{output} is not a bundle (it has no {MANIFEST_NAME}), so --force does not replace it")


def bytes_needed(checkpoint: Checkpoint) -> int:
    """Disk space for the bundle of `checkpoint` and for what its largest graph needs while it is exported."""
    talker = checkpoint.config["talker_config"]
    text_side = checkpoint.weights.parameters("talker.model.text_embedding.")
    graphs = checkpoint.weights.parameters("talker.") - text_side
    codec = checkpoint.codec_weights.parameters("decoder.")
    cloning = 0
    if checkpoint.clones:
        predictor_table = checkpoint.weights.parameters("talker.code_predictor.model.codec_embedding.")
        encoders = checkpoint.codec_weights.parameters("encoder.") + checkpoint.weights.parameters("speaker_encoder.")
        cloning = predictor_table + encoders
    largest = max(graphs - checkpoint.weights.parameters("talker.code_predictor."), codec)
    table = talker["text_vocab_size"] * talker["hidden_size"]
    needed: int = _FLOAT32 * (graphs + codec + table + cloning + largest) + _SMALL_FILES
    return needed


def check_space(output: Path, needed: int) -> None:
    """See that the disk of `output` has `needed` bytes free.

    Raises:
        OutputError: it has not.
    """
    place = next(folder for folder in output.parents if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"the conversion needs about {needed / 1e9:.1f} GB in {place}, {free / 1e9:.1f} GB are free; free some "
            "space or give another --output"
        )


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A new folder beside `output` that takes its place when the block ends, and is removed if the block fails.

    A bundle that is there already stays until the new one is whole. Folders inside it are not the bundle's (a bundle
    has files only): they move into the new one.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    folder, old = (output.with_name(f".{output.name}.{word}-{os.getpid()}") for word in ("new", "old"))
    folder.mkdir()
    try:
        yield folder
        if output.exists():
            output.rename(old)
        try:
            folder.rename(output)
        except BaseException:  # a signal too
            if old.exists():
                old.rename(output)
            raise
    finally:
        if folder.exists():
            shutil.rmtree(folder)
    if old.exists():
        for inner in [entry for entry in old.iterdir() if entry.is_dir()]:
            inner.rename(output / inner.name)
        shutil.rmtree(old)
