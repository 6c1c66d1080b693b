"""A row's random stream and what it has drawn. The draw itself is a part of the frame's graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engine.job import Sampling
from server.manifest import Manifest

Floats = NDArray[np.float32]

MIN_FRAMES = 2
"""The official package lets no row end before two frames."""


class RowSampler:
    """One row's random stream and the codes it has drawn.

    Args:
        sampling: the row's parameters.
        seed: of the stream; every frame takes one uniform a code from it, whatever else runs.
        manifest: sizes and end-of-speech.
    """

    def __init__(self, sampling: Sampling, seed: int, manifest: Manifest) -> None:
        self.sampling = sampling
        self._seed = seed
        self._random = np.random.Generator(np.random.Philox(seed))
        self._groups = manifest.sizes.code_predictor.num_code_groups
        self._end = manifest.ids.codec_eos
        self._seen = np.zeros(manifest.sizes.talker.vocab_size, bool)
        self.drawn: list[int] = []
        """Codes accepted so far."""

    def uniforms(self) -> Floats:
        """This frame's uniforms in [0, 1), float32 `[groups]`; zeros where the row is greedy."""
        uniforms = self._random.random(self._groups, dtype=np.float32)
        if self.sampling.temperature == 0:
            uniforms[0] = 0
        if self.sampling.predictor_temperature == 0:
            uniforms[1:] = 0
        return uniforms

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Codes that the repetition penalty holds for, `[vocab_size]`."""
        return self._seen

    @property
    def may_end(self) -> bool:
        """Whether end-of-speech may be drawn."""
        return len(self.drawn) >= MIN_FRAMES

    def ends(self, code: int) -> bool:
        """Whether a code 0 is end-of-speech."""
        return code == self._end

    def accept(self, code: int) -> None:
        """Count a code as drawn: from now on the repetition penalty holds for it."""
        self._seen[code] = True
        self.drawn.append(code)

    def go_back(self, frames: int, attempt: int) -> None:
        """Forget all codes but the first `frames`, and draw from another stream: the seed's child of that number.

        A row that was greedy draws from now on, as no stream would give it other codes.
        """
        self.sampling = self.sampling.livelier()
        del self.drawn[frames:]
        self._seen[:] = False
        self._seen[self.drawn] = True
        child = np.random.SeedSequence(self._seed, spawn_key=(attempt,))
        self._random = np.random.Generator(np.random.Philox(child))
