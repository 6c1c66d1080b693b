"""Prompts that are prefilled in one run, as on a GPU; the host is the device here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from server.engine import synthesizer as synthesizer_module
from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.prefill import SLICE_POSITIONS, Prefill
from server.engine.prompt import Prompt
from server.engine.synthesizer import Synthesizer, neighbours
from server.engine.worker import Engine
from tests.closeness import assert_close
from tests.server.engine.rigs import Wrapped
from tests.unrolled import on_a_device

GREEDY = Sampling(0.0, 1, 1.0, 1.05, 0.0, 1, 1.0)
SLOTS = 5


@pytest.fixture(scope="module")
def bundle(bundle_of: Callable[..., Path], unrolled_frame_of: Callable[[str], Path]) -> OpenBundle:
    return on_a_device(bundle_of("tiny"), unrolled_frame_of("tiny"), SLOTS)


def prefill(slot: int, positions: int, hidden: int = 8) -> Prefill:
    return Prefill(Job(Prompt(np.zeros((positions, hidden), np.float32), 1), GREEDY, 0, 9), slot)


@pytest.mark.parametrize(
    ("held", "groups"),
    [
        ([], []),
        ([(2, 9)], [[2]]),
        ([(3, 9), (1, 5), (2, 7)], [[1, 2, 3]]),
        ([(0, 9), (2, 9), (3, 9)], [[0], [2, 3]]),
        ([(0, 50), (1, 50), (2, 1)], [[0, 1], [2]]),  # all padded to 50 positions
        ([(0, 1), (1, 1), (2, 60)], [[0, 1], [2]]),
    ],
)
def test_neighbours_are_grouped(
    held: list[tuple[int, int]], groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesizer_module, "TOGETHER_POSITIONS", 100)
    found = neighbours([prefill(*each) for each in held])
    assert [[each.slot for each in group] for group in found] == groups


def prompts(bundle: OpenBundle) -> list[Prompt]:
    """Of unlike lengths; that in the middle takes more than one slice."""
    texts = ["Hi.", "Late again. " * 3, "So " * SLICE_POSITIONS, "No.", "We shared a taxi."]
    return [bundle.prompts.build(t, speaker="serena", language="auto", instruction=None) for t in texts]


def test_prompts_of_unlike_lengths_give_what_each_gives_alone(bundle: OpenBundle) -> None:
    synthesizer = Synthesizer(bundle)
    jobs = [Job(prompt, GREEDY, 0, 9) for prompt in prompts(bundle)]
    alone = [synthesizer.start(job, slot).state.output for slot, job in enumerate(jobs)]
    together = [Prefill(job, slot) for slot, job in enumerate(jobs)]
    for done in ([0, 1], [0, 1, 3, 4], [0, 1, 3, 4]):  # a group of neighbours each time
        synthesizer.prefill_together(together)
        assert [each.slot for each in together if not each.remaining] == done
    rows = [synthesizer.prefill(each) for each in together if not each.remaining]
    for row in rows:
        assert row is not None and row.state.output is not None
        expected = alone[row.slot]
        assert expected is not None
        assert_close(row.state.output.logits, expected.logits)
        assert_close(row.state.output.hidden, expected.hidden)


def spoken(bundle: OpenBundle, wanted: Sequence[Prompt]) -> list[np.ndarray]:
    engine = Engine(bundle, max_queue=8)
    try:
        jobs = [Job(prompt, GREEDY, 0, 12) for prompt in wanted]
        for job in jobs:
            engine.submit(job)
        return [np.concatenate(list(job)) for job in jobs]
    finally:
        engine.close()


def test_a_row_speaks_the_same_while_a_long_prompt_is_prefilled_beside_it(bundle: OpenBundle) -> None:
    """Slots that are on their way lie between those of rows, and take part in their frames."""
    wanted = prompts(bundle)
    expected = [spoken(bundle, [prompt])[0] for prompt in wanted]
    for found, one in zip(spoken(bundle, wanted), expected, strict=True):
        assert_close(found, one)


def test_where_it_fails_each_is_prefilled_alone(bundle: OpenBundle, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("no room")

    rigged = dataclasses.replace(bundle, talker=Wrapped(bundle.talker, prefill_together=fail))
    wanted = prompts(bundle)[:2]
    expected = spoken(bundle, wanted)
    for found, one in zip(spoken(rigged, wanted), expected, strict=True):
        assert_close(found, one)
    assert "since together they fail: no room" in caplog.text
