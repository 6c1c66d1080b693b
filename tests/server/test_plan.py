"""What a request asks of a model: sampling at the ends of its ranges leaves a code to draw, wherever it comes from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.engine.sampling import RowSampler
from server.graphs.manifest import Manifest
from server.plan import plan
from server.profiles import Profile, ProfileSampling
from server.speech_request import build
from tests.server.fakes import manifest_of

TINY = (5e-324, 1e-300, 1e-46)
"""The first is the smallest number above 0; all are 0 as float32."""


@pytest.mark.parametrize("source", ["request", "profile", "manifest"])
@pytest.mark.parametrize(
    "sampling",
    [
        *({"top_p": value} for value in TINY),
        *({"temperature": value} for value in TINY),
        *({"temperature": value, "top_p": value} for value in TINY),
        {"temperature": 0.0, "top_p": 1e-300},
        {"top_k": 1, "repetition_penalty": 1.0},
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_least_values_draw_the_likeliest_code(source: str, sampling: dict[str, float]) -> None:
    generation: dict[str, Any] = {}
    if source == "manifest":
        generation = sampling | {f"subtalker_{k}": v for k, v in sampling.items() if k != "repetition_penalty"}
    manifest = Manifest.model_validate(manifest_of("m", generation=generation))
    request = build(model="m", input="Hello", voice="mine", **(sampling if source == "request" else {}))
    own = ProfileSampling.model_validate(sampling if source == "profile" else {})
    planned = plan(request, manifest, {"mine": Profile(speaker="ryan", sampling=own)}).delivery.sampling
    assert np.float32(planned.predictor_top_p) > 0
    logits = np.linspace(-1, 1, manifest.sizes.talker.vocab_size, dtype=np.float32)
    logits[7] = 2
    sampler = RowSampler(planned, 1, manifest)
    assert {sampler.choose(logits, sampler.uniforms()[0], may_end=False) for _ in range(20)} == {7}
