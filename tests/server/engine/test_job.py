"""A job's queue."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.engine.job import Job, Sampling

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)


@given(capacity=st.integers(1, 20), steps=st.lists(st.one_of(st.integers(1, 8), st.none()), max_size=60))
def test_full_at_the_capacity_and_until_half_is_read(capacity: int, steps: list[int | None]) -> None:
    """A number puts so many frames, None reads a chunk."""
    job = Job(np.zeros((1, 1), np.float32), SAMPLING, 0, 100, capacity)
    reader, unread, full = iter(job), [], False
    for frames in steps:
        if frames:
            job.put(np.zeros(frames, np.float32), frames)
            unread.append(frames)
        elif unread:
            assert len(next(reader)) == unread.pop(0)
        full = sum(unread) >= capacity or (full and sum(unread) > capacity // 2)
        assert job.full == full
    job.cancel()
    assert not job.full


def test_what_no_seed_can_change_becomes_livelier() -> None:
    for greedy in (Sampling(0.0, 50, 1.0, 1.05, 0.0, 50, 1.0), Sampling(0.9, 1, 1.0, 1.05, 0.9, 1, 1.0)):
        livelier = greedy.livelier()
        assert livelier.temperature > 0
        assert livelier.top_k > 1
    for drawn in (SAMPLING, Sampling(0.0, 50, 1.0, 1.05, 0.9, 50, 1.0), Sampling(0.9, 50, 1.0, 1.05, 0.0, 50, 1.0)):
        assert drawn.livelier() is drawn


def test_audio_is_taken_back_as_long_as_nobody_has_heard_any() -> None:
    job = Job(np.zeros((1, 1), np.float32), SAMPLING, 0, 9, capacity=1)
    job.put(np.zeros(3, np.float32), 1)
    assert job.full
    assert job.take_back()
    assert not job.full
    job.put(np.ones(2, np.float32), 1)
    job.put(np.ones(2, np.float32), 1)
    reader = iter(job)
    assert len(next(reader)) == 2
    assert not job.take_back()
    job.finish()
    assert len(list(reader)) == 1, "what was there is there still"
