"""Runs the two graphs that take in a recording: one tells who speaks, the other writes it as codec frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FRAMES_OF_A_PART = 25
"""Codec frames of a recording that are encoded in one call: 2 s, whose activations take some 30 MB at full size, where
those of a whole minute would take a gigabyte."""


def speaker_embedding(session: ort.InferenceSession, samples: Floats) -> Floats:
    """The speaker embedding `[hidden_size]` of a recording `[samples]` at 24 kHz, by `speaker_encoder.onnx`."""
    (embedding,) = session.run(["embedding"], {"waveform": samples[None]})
    return np.asarray(embedding[0], np.float32)


def codec_codes(session: ort.InferenceSession, samples: Floats, samples_per_frame: int) -> NDArray[np.int64]:
    """The codec frames `[frames, groups]` of a recording `[samples]` at 24 kHz, by `codec_encoder.onnx`.

    A frame that the recording does not fill counts; the encoder is causal, so that the parts give what the whole would.
    """
    carried = {value.name: value.shape for value in session.get_inputs() if value.name.startswith("past.")}
    state: dict[str, Any] = {
        name: np.zeros([size if isinstance(size, int) else 0 for size in shape], np.float32)  # no positions yet
        for name, shape in carried.items()
    }
    outputs = ["codes", *("next." + name.removeprefix("past.") for name in carried)]
    step, frames = FRAMES_OF_A_PART * samples_per_frame, []
    for start in range(0, len(samples), step):
        codes, *following = session.run(outputs, {"waveform": samples[None, start : start + step], **state})
        frames.append(codes[0])
        state = dict(zip(carried, following, strict=True))
    return np.concatenate(frames)
