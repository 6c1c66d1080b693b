"""A bundle, opened: its manifest, its prompts and the three graphs that speak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.engine.encoding import ReferenceEncoder
from server.engine.primed import MOST_HELD
from server.engine.prompt import PromptBuilder
from server.engine.tokenizer import TextTokenizer
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.cuda.codec_decoder import PAST_STATES, READ_PLACE, PooledCodecDecoder
from server.graphs.cuda.memory import DeviceMemory
from server.graphs.memory import HostMemory, Memory
from server.graphs.pages import MappedTable, give_back_mapped, trim_heap, use_huge_pages
from server.graphs.session import Chosen, Session, open_session
from server.graphs.talker import Talker
from server.manifest import (
    CODEC_TABLE,
    GRAPHS,
    PREDICTOR_TABLE,
    TEXT_TABLE,
    TOKENIZER,
    BundleError,
    Manifest,
)


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
    references: ReferenceEncoder | None = None
    """None where the model clones no voices."""
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
        predictor = MappedTable(folder / PREDICTOR_TABLE) if manifest.clones else None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder.name}: an embedding table cannot be read; convert the checkpoint again") from error
    least = 1 + max(number for name, number in manifest.ids if not name.startswith("codec_"))
    talker = manifest.sizes.talker
    fits = len(text.shape) == 2 and text.shape[0] >= least and text.shape[1] == talker.hidden_size
    sizes = manifest.sizes.code_predictor
    codes = (sizes.num_code_groups - 1) * sizes.vocab_size
    fits = fits and (predictor is None or predictor.shape == (codes, talker.hidden_size))
    if not fits or codec.shape != (talker.vocab_size, talker.hidden_size):
        raise BundleError(
            f"{folder.name}: an embedding table has not the shape that its manifest asks for; "
            "convert the checkpoint again"
        )
    return PromptBuilder(manifest, TextTokenizer(folder / TOKENIZER), text, codec, max_prompt, predictor)


def open_on(
    device: Chosen, folder: Path, manifest: Manifest, *, threads: int, slots: int, max_prompt: int | None
) -> OpenBundle:
    """Open the graphs of a bundle on a device, its files having been verified.

    Args:
        device: where every node runs that has a kernel there.
        folder: `models/<model id>`.
        manifest: of the bundle, perhaps with fewer positions than its graphs have.
        threads: of the CPU kernels; 0 is one for each core that this process may use.
        slots: rows that can be under way at once.
        max_prompt: positions of a prompt; None leaves it to the row's.

    Raises:
        BundleError: a file cannot be read, or is another one than the manifest describes.
        CudaError: CUDA does not start on this machine.
        ShortageError: the host has too little free memory.
    """
    sessions = {name: open_session(folder / manifest.graphs[name].file, device, threads) for name in GRAPHS}
    _check_graphs(folder, manifest, sessions)
    memory = HostMemory() if device == "cpu" else DeviceMemory(sessions["talker"], device)
    talker = Talker(sessions["talker"], manifest.sizes, slots, memory)
    kept = MOST_HELD if manifest.clones else 0
    bundle = OpenBundle(
        manifest=manifest,
        provider=device,
        prompts=open_prompts(folder, manifest, max_prompt),
        talker=talker,
        code_predictor=CodePredictor(sessions["code_predictor"], talker.state),
        codec_decoder=codec_decoder_of(manifest, sessions["codec_decoder"], slots, memory, kept),
        references=ReferenceEncoder(folder, manifest, threads) if manifest.clones else None,
        overlaps_decoding=device == "cuda",
    )
    give_back_mapped(folder)
    trim_heap()
    if device == "cpu":
        use_huge_pages()
    return bundle


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


def codec_decoder_of(manifest: Manifest, session: Session, slots: int, memory: Memory, kept: int = 0) -> CodecDecoder:
    """The codec decoder of a bundle, whichever way its graph keeps states; see `PooledCodecDecoder` for the arguments.

    Raises:
        BundleError: the graph keeps its states in another way than this version's graphs.
    """
    inputs = {value.name for value in session.get_inputs()}
    if PAST_STATES in inputs:
        return PooledCodecDecoder(session, manifest.sizes.codec.samples_per_frame, slots, memory, kept)
    if READ_PLACE in inputs:
        raise BundleError(
            f"{manifest.id}: {manifest.graphs['codec_decoder'].file} keeps its states as another version does; "
            "convert the checkpoint again"
        )
    return CodecDecoder(session)
