"""How a row's codes are drawn. Filters and their order are Hugging Face's, which the official package uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engine.job import Sampling
from server.manifest import Manifest

Floats = NDArray[np.float32]

MIN_FRAMES = 2
"""The official package lets no row end before two frames."""
RESERVED_CODES = 1024
"""The last codes of the talker's vocabulary are control codes; of them only end-of-speech may be drawn."""


def draw(logits: Floats, temperature: float, top_k: int, top_p: float, uniform: float) -> int:
    """Draw one code by inverting the cumulative distribution over falling probabilities.

    The same arithmetic as `export.graphs.code_predictor.draw`; a uniform of 0 is the first of the largest logits.

    Args:
        logits: `[codes]`.
        temperature: above 0.
        top_k: at least 1.
        top_p: in (0, 1].
        uniform: in [0, 1).
    """
    top_k = min(top_k, len(logits))
    least = np.partition(logits, -top_k)[-top_k]
    candidates = np.flatnonzero(logits >= least)
    order = candidates[np.argsort(-logits[candidates], kind="stable")][:top_k]
    values = logits[order] / np.float32(temperature)
    weights = np.exp(values - values[0])
    before = np.cumsum(weights) - weights
    weights = weights[before < np.float32(top_p) * weights.sum()]
    cumulative = np.cumsum(weights)
    place = np.searchsorted(cumulative, np.float32(uniform) * cumulative[-1], side="right")
    return int(order[min(int(place), int(np.count_nonzero(weights)) - 1)])


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
        vocab_size = manifest.sizes.talker.vocab_size
        self._seen = np.zeros(vocab_size, bool)
        self._banned = np.zeros(vocab_size, bool)
        self._banned[vocab_size - RESERVED_CODES :] = True
        self._banned[self._end] = False
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

    def draw_code_0(self, logits: Floats, uniform: float) -> int | None:
        """The talker's next code from `logits` `[vocab_size]`, to be accepted; None is end-of-speech."""
        code = self.choose(logits, uniform, may_end=self.may_end)
        return None if self.ends(code) else code

    def choose(self, logits: Floats, uniform: float, *, may_end: bool) -> int:
        """The code that this uniform draws from `logits` `[vocab_size]`, after penalty and filters."""
        sampling = self.sampling
        scores = logits.copy()
        seen = scores[self._seen]
        penalty = np.float32(sampling.repetition_penalty)
        scores[self._seen] = np.where(seen < 0, seen * penalty, seen / penalty)
        scores[self._banned] = -np.inf
        if not may_end:
            scores[self._end] = -np.inf
        top_k = sampling.top_k or len(scores)
        return draw(scores, sampling.temperature or 1.0, top_k, sampling.top_p, uniform)

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
