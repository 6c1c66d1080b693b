"""A bundle, opened: its manifest, its prompts and its three graphs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.engine.prompt import PromptBuilder
from server.engine.tokenizer import TextTokenizer
from server.graphs.code_predictor import CodePredictor, DrawParameters
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.manifest import BundleError, Manifest, read_manifest
from server.graphs.pages import MappedTable, give_back_mapped, trim_heap
from server.graphs.session import (
    CPU_LACKS,
    Chosen,
    Provider,
    ProviderError,
    cause_of,
    choose_provider,
    open_session,
)
from server.graphs.stamp import verify_once
from server.graphs.talker import Talker

log = logging.getLogger(__name__)

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
    """The prompt builder of a bundle; its tables stay on disk.

    Raises:
        BundleError: a table or the tokenizer is missing or unreadable.
    """
    try:
        text, codec = (MappedTable(folder / name) for name in (TEXT_TABLE, CODEC_TABLE))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder.name}: an embedding table cannot be read; convert the checkpoint again") from error
    return PromptBuilder(manifest, TextTokenizer(folder / TOKENIZER), text, codec)


def open_bundle(
    folder: Path,
    *,
    provider: Provider,
    threads: int,
    slots: int,
    positions: int | None = None,
    cuda_graphs: bool = False,
) -> OpenBundle:
    """Verify the files of a bundle, unless they have not changed since the last time, and open it.

    Args:
        folder: `models/<model id>`.
        provider: execution provider, or `auto`.
        threads: of the CPU kernels; 0 leaves the number to ONNX Runtime.
        slots: rows that can be under way at once.
        positions: of a row, prompt and frames; a GPU takes memory for all of them. None is as many as the graph has.
        cuda_graphs: whether CUDA captures what a frame runs, and replays it. Off, since it has never run on a GPU.

    Raises:
        BundleError: the bundle is damaged or of another format.
        ProviderError: the provider is not to be had here, or not for this bundle.
    """
    manifest = read_manifest(folder)
    if positions is not None:
        manifest = _with_positions(manifest, positions)
    chosen = choose_provider(provider, manifest.precision)
    verify_once(folder, manifest)
    if chosen == "cuda":
        try:
            return _try_out(_open(folder, manifest, "cuda", threads, slots, cuda_graphs))
        except BundleError:
            raise
        except Exception as error:  # CUDA's and ONNX Runtime's share no base class
            _fall_back(manifest, provider, cause_of(error))
    elif manifest.precision in CPU_LACKS:
        asked = provider == "cpu"
        why = "KW_EXECUTION_PROVIDER is cpu" if asked else "the installed ONNX Runtime has no CUDA execution provider"
        raise BundleError(_without_cuda(manifest, why))
    return _open(folder, manifest, "cpu", threads, slots)


def _with_positions(manifest: Manifest, positions: int) -> Manifest:
    talker = manifest.sizes.talker
    talker = talker.model_copy(update={"max_positions": min(positions, talker.max_positions)})
    return manifest.model_copy(update={"sizes": manifest.sizes.model_copy(update={"talker": talker})})


def _fall_back(manifest: Manifest, provider: Provider, cause: str) -> None:
    """Say why the CPU takes over, or that nothing can."""
    if provider == "cuda":
        raise ProviderError(
            f"KW_EXECUTION_PROVIDER=cuda, but CUDA cannot compute {manifest.id} here: {cause}; "
            "mend that or set KW_EXECUTION_PROVIDER=auto"
        )
    if manifest.precision in CPU_LACKS:
        raise BundleError(_without_cuda(manifest, f"CUDA cannot compute it here: {cause}"))
    log.warning("the CPU computes %s, since CUDA cannot here: %s", manifest.id, cause)


def _without_cuda(manifest: Manifest, why: str) -> str:
    return (
        f"{manifest.id} is {manifest.precision}, which ONNX Runtime's CPU kernels lack, and {why}; "
        "convert with --precision int8 for the CPU"
    )


def _open(
    folder: Path, manifest: Manifest, device: Chosen, threads: int, slots: int, captured: bool = False
) -> OpenBundle:
    options = {name: {"enable_cuda_graph": "1"} for name in ("talker", "code_predictor") if captured}
    sessions = {
        name: open_session(folder / graph.file, device, threads, options.get(name))
        for name, graph in manifest.graphs.items()
    }
    bundle = OpenBundle(
        manifest=manifest,
        provider=device,
        prompts=open_prompts(folder, manifest),
        talker=Talker(sessions["talker"], manifest.sizes.talker, slots, device, captured=captured),
        code_predictor=CodePredictor(sessions["code_predictor"], device),
        codec_decoder=CodecDecoder(sessions["codec_decoder"], device),
    )
    give_back_mapped(folder)
    trim_heap()
    return bundle


def _try_out(bundle: OpenBundle) -> OpenBundle:
    """One frame of nothing, since some faults show only once kernels run."""
    sizes, one = bundle.manifest.sizes, np.ones(1, np.float32)
    silence = np.zeros((2, sizes.talker.hidden_size), np.float32)
    bundle.talker.prefill(0, silence)
    output = bundle.talker.decode(0, silence[:1], np.array([2], np.int32))
    uniforms = np.zeros((1, sizes.code_predictor.num_code_groups - 1), np.float32)
    parameters = DrawParameters(one, np.ones(1, np.int64), one)
    codes, _ = bundle.code_predictor.run(output.hidden, np.zeros(1, np.int64), uniforms, parameters)
    frame = np.concatenate((np.zeros((1, 1), np.int64), codes), axis=1)
    bundle.codec_decoder.decode(frame[:, None], [bundle.codec_decoder.start()])
    return bundle
