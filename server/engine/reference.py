"""A cloned voice as the engine takes it: what a Base checkpoint's encoders have made of a recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 24_000
"""Hz of the recordings that the encoders take."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A voice to speak with: its speaker embedding and, for in-context learning (ICL), the recording and its words.

    Without `codes` and `text` the voice is the speaker embedding alone, as with `x_vector_only_mode` of the official
    `qwen-tts` package. Two references are equal only if they are one object, since arrays have no
    equality of their own.
    """

    speaker: NDArray[np.float32]
    """Speaker embedding, `[hidden]`, of the talker's hidden size; it fits no model of another size."""
    codes: NDArray[np.int64] | None = None
    """Codec codes of the recording, `[frames, groups]`; None without ICL."""
    text: str | None = None
    """What is said in the recording; None without ICL."""

    def __post_init__(self) -> None:
        """Check that codes and text come together.

        Raises:
            ValueError: one is given without the other.
        """
        if (self.codes is None) != (self.text is None):
            raise ValueError("a reference has both the codes and the text of its recording, or neither")
