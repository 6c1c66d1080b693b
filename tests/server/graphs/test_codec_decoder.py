"""How rows are decoded together; what comes out is compared with the official decoder in `tests/parity`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle
from server.graphs.codec_decoder import FRAMES_AT_ONCE, CodecDecoder
from server.graphs.session import open_session
from tests.bundles import RANDOM_BUNDLE
from tests.server.engine.rigs import Wrapped


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=1)


@pytest.mark.parametrize(
    ("rows", "frames", "expected"),
    [
        (1, 3 * FRAMES_AT_ONCE, [1]),
        (3, FRAMES_AT_ONCE, [1, 1, 1]),
        (5, FRAMES_AT_ONCE // 2, [2, 2, 1]),
        (FRAMES_AT_ONCE + 1, 1, [FRAMES_AT_ONCE, 1]),
    ],
)
def test_calls_are_small_on_the_cpu(bundle: OpenBundle, rows: int, frames: int, expected: list[int]) -> None:
    session = open_session(RANDOM_BUNDLE / bundle.manifest.graphs["codec_decoder"].file, "cpu", 1)
    calls: list[int] = []

    def run(outputs: list[str], inputs: dict[str, Any]) -> Any:
        calls.append(inputs["codes"].shape()[0])
        return session.run_with_ort_values(outputs, inputs)

    decoder = CodecDecoder(Wrapped(session, run_with_ort_values=run))
    codec = bundle.manifest.sizes.codec
    codes = np.random.default_rng(0).integers(codec.codebook_size, size=(rows, frames, codec.num_quantizers))
    _, first = decoder.decode(codes, [decoder.start()] * rows)
    calls.clear()
    together, after = decoder.decode(codes[::-1], first)
    assert calls == expected
    assert [state.position for state in after] == [2 * frames] * rows
    for row in range(rows):
        (alone,), _ = bundle.codec_decoder.decode(codes[None, rows - 1 - row], [first[row]])
        np.testing.assert_allclose(together[row], alone, rtol=0, atol=1e-5)
