"""A bundle, opened: its manifest, its prompts and its three graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.engine.frames import Frames
from server.engine.holdback import RowState
from server.engine.job import Job, Sampling
from server.engine.prompt import Prompt, PromptBuilder
from server.engine.rows import Row
from server.engine.sampling import RowSampler
from server.engine.tokenizer import TextTokenizer
from server.graphs.checking import verify_once
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.cuda.codec_decoder import PooledCodecDecoder
from server.graphs.cuda.memory import DeviceMemory
from server.graphs.frame_state import RowOutput
from server.graphs.memory import HostMemory
from server.graphs.pages import MappedTable, give_back_mapped, trim_heap
from server.graphs.session import (
    CPU_LACKS,
    CUDA_PRECISIONS,
    Cause,
    Chosen,
    PassingError,
    Provider,
    Session,
    cause_of,
    choose_provider,
    open_session,
)
from server.graphs.talker import Talker
from server.manifest import (
    CODEC_TABLE,
    GRAPHS,
    TEXT_TABLE,
    TOKENIZER,
    BundleError,
    Manifest,
    read_manifest,
)

Floats = NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenBundle:
    """What speech is made with; `provider` is the execution provider in use.

    `code_predictor` works on the talker's state.
    """

    manifest: Manifest
    provider: str
    prompts: PromptBuilder
    talker: Talker
    code_predictor: CodePredictor
    codec_decoder: CodecDecoder
    overlaps_decoding: bool = False
    """Whether audio is decoded while the talker goes on: a GPU has room for both. On a CPU they would take each other's
    cores."""


def open_prompts(folder: Path, manifest: Manifest, max_prompt: int | None = None) -> PromptBuilder:
    """The prompt builder of a bundle, for prompts of at most so many positions; its tables stay on disk.

    Raises:
        BundleError: a table or the tokenizer is missing or unreadable, or a table is too small for the manifest's ids.
    """
    try:
        text, codec = (MappedTable(folder / name) for name in (TEXT_TABLE, CODEC_TABLE))
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder.name}: an embedding table cannot be read; convert the checkpoint again") from error
    least = 1 + max(number for name, number in manifest.ids if not name.startswith("codec_"))
    talker = manifest.sizes.talker
    fits = len(text.shape) == 2 and text.shape[0] >= least and text.shape[1] == talker.hidden_size
    if not fits or codec.shape != (talker.vocab_size, talker.hidden_size):
        raise BundleError(
            f"{folder.name}: an embedding table has not the shape that its manifest asks for; "
            "convert the checkpoint again"
        )
    return PromptBuilder(manifest, TextTokenizer(folder / TOKENIZER), text, codec, max_prompt)


def open_bundle(
    folder: Path,
    *,
    provider: Provider,
    threads: int,
    slots: int,
    positions: int | None = None,
    max_prompt: int | None = None,
) -> OpenBundle:
    """Verify the files of a bundle, unless they have not changed since the last time, and open it.

    Args:
        folder: `models/<model id>`.
        provider: execution provider, or `auto`.
        threads: of the CPU kernels; 0 is one for each core that this process may use.
        slots: rows that can be under way at once.
        positions: of a row, prompt and frames; a GPU takes memory for all of them. None is as many as the graph has.
        max_prompt: positions of a prompt; None leaves it to the row's.

    Raises:
        BundleError: the bundle is damaged or of another format.
        ProviderError: the provider is not to be had here, or not for this bundle.
        PassingError: as before, but another try may succeed.
    """
    manifest = read_manifest(folder)
    if positions is not None:
        manifest = _with_positions(manifest, positions)
    chosen = choose_provider(provider, manifest.precision)
    verify_once(folder, manifest)
    if chosen == "cuda":
        try:
            return _try_out(_open(folder, manifest, "cuda", threads, slots, max_prompt))
        except BundleError:
            raise
        except Exception as error:  # CUDA's and ONNX Runtime's share no base class
            _fall_back(manifest, provider, cause_of(error))
    elif manifest.precision in CPU_LACKS:
        asked = provider == "cpu"
        why = "KW_EXECUTION_PROVIDER is cpu" if asked else "the installed ONNX Runtime has no CUDA execution provider"
        raise BundleError(_without_cuda(manifest, why))
    return _open(folder, manifest, "cpu", threads, slots, max_prompt)


def _check_graphs(folder: Path, manifest: Manifest, sessions: Mapping[str, Session]) -> None:
    """See that each graph is the one that the manifest describes, since what wraps it asks for tensors by name."""
    for name, session in sessions.items():
        graph = manifest.graphs[name]
        wants = {value.name for value in session.get_inputs()} - {spec.name for spec in graph.inputs}
        lacks = {spec.name for spec in graph.outputs} - {value.name for value in session.get_outputs()}
        if wants or lacks:
            raise BundleError(
                f"{folder.name}: {graph.file} has other inputs or outputs than its manifest gives the graph {name}; "
                "convert the checkpoint again"
            )


def _with_positions(manifest: Manifest, positions: int) -> Manifest:
    talker = manifest.sizes.talker
    talker = talker.model_copy(update={"max_positions": min(positions, talker.max_positions)})
    return manifest.model_copy(update={"sizes": manifest.sizes.model_copy(update={"talker": talker})})


def _fall_back(manifest: Manifest, provider: Provider, cause: Cause) -> None:
    """Say why the CPU takes over, or that nothing can."""
    if provider == "cuda":
        raise cause.kind(
            f"KW_EXECUTION_PROVIDER=cuda, but CUDA cannot compute {manifest.id} here: {cause.meaning}; "
            "mend that or set KW_EXECUTION_PROVIDER=auto"
        )
    if manifest.precision in CPU_LACKS:
        message = _without_cuda(manifest, f"CUDA cannot compute it here: {cause.meaning}")
        raise cause.kind(message) if issubclass(cause.kind, PassingError) else BundleError(message)
    log.warning("the CPU computes %s, since CUDA cannot here: %s", manifest.id, cause.meaning)


def _without_cuda(manifest: Manifest, why: str) -> str:
    return (
        f"{manifest.id} is {manifest.precision}, which ONNX Runtime's CPU kernels lack, and {why}; "
        "convert with --precision int8 for the CPU"
    )


def _open(
    folder: Path, manifest: Manifest, device: Chosen, threads: int, slots: int, max_prompt: int | None
) -> OpenBundle:
    sessions = {name: open_session(folder / manifest.graphs[name].file, device, threads) for name in GRAPHS}
    _check_graphs(folder, manifest, sessions)
    memory = HostMemory() if device == "cpu" else DeviceMemory(sessions["talker"], device)
    talker = Talker(sessions["talker"], manifest.sizes, slots, memory)
    decoder_session = sessions["codec_decoder"]
    pooled = manifest.precision in CUDA_PRECISIONS
    bundle = OpenBundle(
        manifest=manifest,
        provider=device,
        prompts=open_prompts(folder, manifest, max_prompt),
        talker=talker,
        code_predictor=CodePredictor(sessions["code_predictor"], talker.state),
        codec_decoder=PooledCodecDecoder(decoder_session, slots, memory) if pooled else CodecDecoder(decoder_session),
        overlaps_decoding=device == "cuda",
    )
    give_back_mapped(folder)
    trim_heap()
    return bundle


def _try_out(bundle: OpenBundle) -> OpenBundle:
    """One frame of nothing, since some faults show only once kernels run."""
    silence = Prompt(np.zeros((2, bundle.manifest.sizes.talker.hidden_size), np.float32), prefix=1)
    logits, hidden = bundle.talker.prefill(0, silence.embeddings)
    greedy = Sampling(0.0, 1, 1.0, 1.0, 0.0, 1, 1.0)
    state = RowState(len(silence), RowOutput(logits[0], hidden[0]), bundle.codec_decoder.start(), None)
    row = Row(Job(silence, greedy, 0, 1), 0, state, RowSampler(greedy, 0, bundle.manifest))
    frames = Frames(bundle.talker, bundle.code_predictor, bundle.manifest.sizes, bundle.prompts.pad)
    for _, codes in frames.draw([row]):
        if codes is not None:
            bundle.codec_decoder.decode(codes[None, None], [state.codec])
    if row.error is None:
        frames.advance([row])
    if row.error is not None:
        raise row.error
    return bundle
