"""A bundle, opened: its manifest, its prompts and its three graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.engine.prompt import PromptBuilder
from server.engine.tokenizer import TextTokenizer
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.manifest import BundleError, Manifest, read_manifest
from server.graphs.session import Provider, choose_provider, open_session
from server.graphs.stamp import verify_once
from server.graphs.talker import Talker

TOKENIZER, TEXT_TABLE, CODEC_TABLE = "tokenizer.json", "text_embedding.npy", "codec_embedding.npy"


@dataclass(frozen=True)
class OpenBundle:
    """What speech is made with; `provider` is the execution provider in use."""

    manifest: Manifest
    provider: str
    prompts: PromptBuilder
    talker: Talker
    code_predictor: CodePredictor
    codec_decoder: CodecDecoder


def open_prompts(folder: Path, manifest: Manifest) -> PromptBuilder:
    """The prompt builder of a bundle; its tables stay on disk, mapped into memory.

    Raises:
        BundleError: a table or the tokenizer is missing or unreadable.
    """
    try:
        text, codec = (np.load(folder / name, mmap_mode="r") for name in (TEXT_TABLE, CODEC_TABLE))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder.name}: an embedding table cannot be read; convert the checkpoint again") from error
    return PromptBuilder(manifest, TextTokenizer(folder / TOKENIZER), text, codec)


def open_bundle(folder: Path, *, provider: Provider, threads: int, slots: int) -> OpenBundle:
    """Verify the files of a bundle, unless they have not changed since the last time, and open it.

    Args:
        folder: `models/<model id>`.
        provider: execution provider, or `auto`.
        threads: of the CPU kernels; 0 leaves the number to ONNX Runtime.
        slots: rows that can be under way at once.

    Raises:
        BundleError: the bundle is damaged or of another format.
        ProviderError: the provider is not to be had here.
    """
    chosen = choose_provider(provider)
    manifest = read_manifest(folder)
    verify_once(folder, manifest)
    sessions = {name: open_session(folder / graph.file, chosen, threads) for name, graph in manifest.graphs.items()}
    return OpenBundle(
        manifest=manifest,
        provider=chosen,
        prompts=open_prompts(folder, manifest),
        talker=Talker(sessions["talker"], manifest.sizes.talker, slots),
        code_predictor=CodePredictor(sessions["code_predictor"]),
        codec_decoder=CodecDecoder(sessions["codec_decoder"]),
    )
