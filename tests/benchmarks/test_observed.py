"""What clients have seen, summed up."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.observed import (
    Heard,
    Part,
    Phase,
    Probe,
    Seen,
    State,
    Underruns,
    growth,
    longest_gap,
    percentile,
    table,
    underruns,
)

PARTS = st.lists(
    st.tuples(st.integers(0, 100), st.integers(1, 100)).map(lambda pair: Part(pair[0] / 8, pair[1] / 8)), min_size=1
).map(lambda parts: [Part(at, part.audio) for at, part in zip(accumulate(p.at for p in parts), parts, strict=True)])
"""Parts in order of arrival; eighths of seconds, which add up exactly."""


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], Underruns(0, 0)),
        ([Part(100, 1)], Underruns(0, 0)),  # a late start is none
        ([Part(0, 1), Part(1, 1), Part(2, 1)], Underruns(0, 0)),  # just in time
        ([Part(0, 1), Part(1.5, 1), Part(2.5, 1)], Underruns(1, 0.5)),  # what was lost once is not lost again
        ([Part(0, 1), Part(1.5, 1), Part(3, 1)], Underruns(2, 1.0)),
        ([Part(0, 3), Part(0.1, 1), Part(5, 1)], Underruns(1, 1.0)),  # what came early is still there
    ],
)
def test_underruns_of_a_player_are_counted(parts: list[Part], expected: Underruns) -> None:
    assert underruns(parts) == expected


def test_the_longest_gap_is_between_two_parts() -> None:
    assert longest_gap([]) == longest_gap([Part(3, 1)]) == 0
    assert longest_gap([Part(1, 9), Part(2, 9), Part(4.5, 9), Part(5, 9)]) == 2.5


@given(PARTS)
def test_a_player_starves_for_as_long_as_its_latest_part_is_late(parts: list[Part]) -> None:
    due = accumulate((part.audio for part in parts), initial=parts[0].at)
    assert underruns(parts).seconds == max(0, *(part.at - time for part, time in zip(parts, due, strict=False)))


@given(PARTS, st.integers(0, 80))
def test_a_player_that_waits_so_long_before_it_starts_never_starves(parts: list[Part], more: int) -> None:
    late = underruns(parts).seconds + more / 8
    first, *rest = [Part(part.at - late, part.audio) for part in parts]
    assert underruns([Part(parts[0].at, first.audio), *rest]) == Underruns(0, 0)


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (51, 6), (90, 9), (95, 10), (99, 10), (100, 10)])
def test_percentiles_of_ten(percent: float, expected: float) -> None:
    assert percentile([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert 100 * sum(value <= found for value in values) >= percent * len(values)
    assert 100 * sum(value < found for value in values) < percent * len(values)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([*range(1, 11), *[10] * 90, *[20] * 10], 2.0),  # growing at the start is warming up
        ([7] * 100, 1.0),
        ([5, 7], None),  # too few to tell
        ([None] * 100, None),
    ],
)
def test_growth_compares_the_last_tenth_with_the_second(sizes: list[int | None], expected: float | None) -> None:
    assert growth([State(float(at), size, 1, 0) for at, size in enumerate(sizes)]) == expected


def test_the_table_puts_phases_of_one_name_together() -> None:
    def heard(began: float, *parts: Part) -> Heard:
        return Heard(began, parts[-1].at, "whole", 200, parts)

    phases = [
        Phase("alone", 0, 4, [heard(0, Part(1, 2), Part(4, 2))]),
        Phase("both", 10, 12, [heard(10, Part(11, 4)), Heard(10, 10, "refused", 429)]),
        Phase("alone", 20, 24, [heard(20, Part(23, 4)), Heard(20, 21, "left"), Heard(21, 22, "failed", 500)]),
    ]
    probes = [Probe(2, 0.001), Probe(11, 0.5), Probe(15, 9), Probe(22, 0.003)]
    states = [State(1, 2_000_000_000, 1, 0), State(21, 3_000_000_000, 2, 0)]
    lines = table(phases, Seen(probes, states)).splitlines()
    cells = {name: values for name, *values in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)}
    assert cells["measured"] == ["alone", "both"]
    assert cells["requests whole / left / failed"] == ["2 / 1 / 1", "1 / 0 / 0"]
    assert cells["refused with 429 / 503"] == ["0 / 0", "1 / 0"]
    assert cells["TTFA, p50 / p95 / p99, s"] == ["1.00 / 3.00 / 3.00", "1.00 / 1.00 / 1.00"]
    assert cells["audio seconds a wall second, all callers"] == ["1.00", "2.00"]
    assert cells["aggregate RTF (wall / audio, below 1 is faster than real time)"] == ["1.00", "0.50"]
    assert cells["underruns at 1 x: requests / times / s"] == ["1 of 2 / 1 / 1.0", "0 of 1 / 0 / 0.0"]
    assert cells["/livez, p50 / p99 / worst, ms (probes)"] == ["1.0 / 3.0 / 3.0 (2)", "500.0 / 500.0 / 500.0 (1)"]
    assert cells["rows running, median"] == ["1.5", "-"]
    assert cells["server RSS first / last / highest, GB"] == ["2.000 / 3.000 / 3.000", "-"]
