"""Chooses where a bundle is computed and opens it there; where CUDA fails, the CPU takes over or an error says why."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from server.engine.bundle import OpenBundle, open_on
from server.engine.frames import Frames
from server.engine.holdback import RowState
from server.engine.job import Job, Sampling
from server.engine.prompt import Prompt
from server.engine.rows import Row
from server.engine.sampling import RowSampler
from server.graphs.checking import verify_once
from server.graphs.cuda.capture import without_recording
from server.graphs.frame_state import RowOutput
from server.graphs.garbage import collect_garbage
from server.graphs.session import CPU_LACKS, Cause, PassingError, Provider, cause_of, choose_provider
from server.manifest import BundleError, Manifest, read_manifest

log = logging.getLogger(__name__)


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
            with without_recording():  # recordings belong to a thread, and this one makes no speech
                return _tried_out(
                    open_on("cuda", folder, manifest, threads=threads, slots=slots, max_prompt=max_prompt)
                )
        except BundleError:
            raise
        except Exception as error:  # CUDA's and ONNX Runtime's share no base class
            fall_back(manifest, provider, cause_of(error))
        collect_garbage()  # a row and its error may hold each other, and so the GPU's memory
    elif manifest.precision in CPU_LACKS:
        asked = provider == "cpu"
        why = "KW_EXECUTION_PROVIDER is cpu" if asked else "the installed ONNX Runtime has no CUDA execution provider"
        raise BundleError(_without_cuda(manifest, why))
    return open_on("cpu", folder, manifest, threads=threads, slots=slots, max_prompt=max_prompt)


def _with_positions(manifest: Manifest, positions: int) -> Manifest:
    talker = manifest.sizes.talker
    talker = talker.model_copy(update={"max_positions": min(positions, talker.max_positions)})
    return manifest.model_copy(update={"sizes": manifest.sizes.model_copy(update={"talker": talker})})


def fall_back(manifest: Manifest, provider: Provider, cause: Cause) -> None:
    """Say why the CPU takes over from CUDA, or that nothing can.

    Args:
        manifest: of the bundle.
        provider: that was asked for.
        cause: why CUDA cannot compute it.

    Raises:
        BundleError: the CPU cannot compute it either.
        ProviderError: CUDA is asked for.
        PassingError: as before, but another try may succeed.
    """
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


def _tried_out(bundle: OpenBundle) -> OpenBundle:
    """The bundle after one frame of silence, since some faults show only once kernels run."""
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
