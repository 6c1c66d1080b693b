"""Makes references of recordings; the graphs for that are in memory only as long as it takes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.engine.manner import CloneError
from server.engine.reference import SAMPLE_RATE, Reference
from server.graphs.encoders import codec_codes, speaker_embedding
from server.graphs.pages import give_back_mapped, trim_heap
from server.graphs.session import Session, open_session
from server.manifest import CODEC_ENCODER, SPEAKER_ENCODER, Manifest

SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 60.0
"""Of a recording: a shorter one tells little of a voice, and a longer one would fill the prompt."""


class ReferenceEncoder:
    """The speaker encoder and the codec's encoder of a bundle that clones voices; both compute on the CPU, in float32.

    Args:
        folder: `models/<model id>`, its files having been verified.
        manifest: of the bundle.
        threads: of the CPU kernels, as for `open_session`.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        self._folder, self._manifest, self._threads = folder, manifest, threads
        self._one_at_a_time = threading.Lock()

    def encode(self, samples: NDArray[np.float32], text: str | None) -> Reference:
        """Make a reference; the arguments and errors are those of `Engine.encode_reference`."""
        samples = checked(samples)
        if text is not None and not text.strip():
            raise CloneError("the text of the recording is empty; say what is heard in it, or give none")
        with self._one_at_a_time:
            try:
                speaker = speaker_embedding(self._open(SPEAKER_ENCODER), samples)
                if text is None:
                    return Reference(speaker)
                codec = self._manifest.sizes.codec
                codes = codec_codes(self._open(CODEC_ENCODER), samples, codec.samples_per_frame)
            finally:
                give_back_mapped(self._folder)
                trim_heap()
        return Reference(speaker, codes, text)

    def _open(self, graph: str) -> Session:
        return open_session(self._folder / self._manifest.graphs[graph].file, "cpu", self._threads)


def checked(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A recording as the encoders take it.

    Raises:
        CloneError: it is not one channel of finite samples, or is too short or too long.
    """
    if samples.ndim != 1:
        raise CloneError(f"the recording has the shape {list(samples.shape)}; give one channel of samples")
    seconds = len(samples) / SAMPLE_RATE
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise CloneError(
            f"the recording is {seconds:.2f} s long; give one of {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s"
        )
    if not np.isfinite(samples).all():
        raise CloneError("the recording holds samples that are not finite numbers")
    return np.ascontiguousarray(samples, np.float32)
