"""The frame's graph: its draws are the oracle's, and what it leaves for the talker."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.bundle import OpenBundle
from server.engine.job import Sampling
from server.engine.provider import open_bundle
from server.engine.sampling import RowSampler
from server.graphs.frame_state import IDLE, NOT_FINITE, RESERVED_CODES, Controls, RowOutput, control_buffer
from tests.bundles import RANDOM_BUNDLE
from tests.closeness import assert_close
from tests.host_draw import draw_code_0

SLOTS = 3
BUNDLE: OpenBundle = open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=SLOTS)
MANIFEST = BUNDLE.manifest
VOCAB_SIZE, HIDDEN_SIZE = MANIFEST.sizes.talker.vocab_size, MANIFEST.sizes.talker.hidden_size
GROUPS, END = MANIFEST.sizes.code_predictor.num_code_groups, MANIFEST.ids.codec_eos
NONE_SEEN, NO_UNIFORMS = np.zeros(VOCAB_SIZE, bool), np.zeros(GROUPS, np.float32)


def output(seed: int, scale: float = 3.0) -> RowOutput:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=scale, size=VOCAB_SIZE).astype(np.float32)
    logits[END] += 10 * random.integers(2)
    return RowOutput(logits, random.normal(size=HIDDEN_SIZE).astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    temperature=st.one_of(st.just(0.0), st.floats(0.1, 2.0)),
    top_k=st.integers(0, 100),
    top_p=st.floats(0.05, 1.0),
    penalty=st.floats(1.0, 5.0),
    before=st.integers(0, 20),
)
def test_code_0_is_what_the_oracle_draws(
    seed: int, temperature: float, top_k: int, top_p: float, penalty: float, before: int
) -> None:
    """Beside another row; the last code that was drawn comes with the controls, all others are in the slot."""
    random = np.random.default_rng(seed)
    if not top_k:  # sums over many more codes are rounded otherwise, and an edge of top_p may lie between
        top_p = 1.0
    sampler = RowSampler(Sampling(temperature, top_k, top_p, penalty, 0.9, 50, 1.0), seed, MANIFEST)
    for code in random.integers(VOCAB_SIZE - RESERVED_CODES, size=before):
        sampler.accept(int(code))
    uniforms, seen = sampler.uniforms(), sampler.seen.copy()
    if before:
        seen[sampler.drawn[-1]] = sampler.drawn[-1] in sampler.drawn[:-1]
    controls = Controls(
        length=7,
        last_code=sampler.drawn[-1] if before else -1,
        may_end=sampler.may_end,
        repetition_penalty=penalty,
        temperature=temperature or 1.0,
        top_k=top_k or VOCAB_SIZE,
        top_p=top_p,
    )
    state, row = BUNDLE.talker.state, output(seed)
    state.put(0, output(seed + 1), NONE_SEEN)
    state.put(1, row, seen)
    other = Controls(3, temperature=0.7, top_k=40, may_end=True)
    codes = BUNDLE.code_predictor.run(0, control_buffer([other, controls], [uniforms, uniforms]))
    assert codes[1, 0] == draw_code_0(sampler, row.logits, uniforms[0], end=END)
    np.testing.assert_array_equal(state.seen.read(1, 2)[0], sampler.seen)
    assert list(state.lengths.read(0, 2)) == [4, 8]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("part", ["logits", "hidden"])
def test_a_row_that_is_not_finite_is_told_by_its_code_and_harms_no_other(part: str, value: float) -> None:
    state = BUNDLE.talker.state
    controls = control_buffer([Controls(top_k=50)] * SLOTS, [np.full(GROUPS, 0.4, np.float32)] * SLOTS)
    for slot in range(SLOTS):
        state.put(slot, output(slot), NONE_SEEN)
    expected = BUNDLE.code_predictor.run(0, controls)
    bad = state.get(1)
    getattr(bad, part)[5] = value
    state.put(1, bad, NONE_SEEN)
    found = BUNDLE.code_predictor.run(0, controls)
    assert found[1, 0] == NOT_FINITE
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


def test_the_talker_is_fed_the_codes_and_each_rows_own_text() -> None:
    state, random = BUNDLE.talker.state, np.random.default_rng(4)
    texts = random.normal(size=(SLOTS, HIDDEN_SIZE)).astype(np.float32)
    controls = control_buffer([Controls()] * SLOTS, [NO_UNIFORMS] * SLOTS)

    def fed(texts: np.ndarray) -> np.ndarray:
        for slot, text in enumerate(texts):
            state.put(slot, output(slot), NONE_SEEN)
            state.put_text(slot, text)
        BUNDLE.code_predictor.run(0, controls)
        return state.talker_inputs.read(0, SLOTS)[:, 0]

    codes_alone = fed(np.zeros_like(texts))
    assert len(np.unique(codes_alone, axis=0)) == SLOTS
    assert_close(fed(texts), codes_alone + texts)
    assert_close(fed(texts[::-1]), codes_alone + texts[::-1])


def test_an_idle_slot_between_two_rows_changes_nothing() -> None:
    state, uniforms = BUNDLE.talker.state, np.full(GROUPS, 0.6, np.float32)
    row = Controls(temperature=0.9, top_k=50, predictor_temperature=0.9, predictor_top_k=50)

    def drawn(rows: list[Controls], first: int) -> np.ndarray:
        for slot in range(SLOTS):
            state.put(slot, output(slot), NONE_SEEN)
        return BUNDLE.code_predictor.run(first, control_buffer(rows, [uniforms] * len(rows)))

    together = drawn([row, IDLE, row], 0)
    for slot in (0, 2):
        np.testing.assert_array_equal(drawn([row], slot)[0], together[slot])
