"""`python -m benchmarks.stages`: what its table says, and what it measures."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import benchmarks.stages as stages
from benchmarks.floor import FloorProbe, cache_reads, frame_reads
from benchmarks.stages import Stages, measure_stages, table
from server.bench.measure import Rss
from server.bench.speak import RAMP_FRAMES, Run, speak
from server.manifest import Manifest, WeightReads, read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.server.fakes import manifest_of


def cells(text: str) -> dict[str, str]:
    """The rows of a table, by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: value for name, value in lines if name != "stage"}


def found(**changes: object) -> Stages:
    """Two requests of two frames: 10 + 20 + 5 ms a frame, 5 ms else, 40 ms of prefill."""
    run = Run(prefill=0.04, first_audio=0.08, wall=0.12, frames=2, step_seconds=[0.04, 0.04], positions=30)
    four = Run(prefill=0.16, first_audio=0.2, wall=0.32, frames=8, step_seconds=[0.08, 0.08], positions=30)
    graph = {"file": "codec_decoder.onnx", "precision": "fp32", "reads": {"once": 420_000_000}}
    made = Stages(
        manifest=Manifest.model_validate(
            manifest_of("custom", graphs={"codec_decoder": {**graph, "inputs": [], "outputs": []}})
        ),
        seconds={
            1: {"talker": [0.01] * 4, "code predictor": [0.02] * 4, "codec decoder": [0.005] * 4},
            4: {"talker": [0.02] * 4, "code predictor": [0.03] * 4, "codec decoder": [0.02] * 4},
        },
        runs=[run, run],
        together={4: [four, four]},
        floors={1: (600_000_000, 0.02), 4: (800_000_000, 0.04)},
        memory=Rss(1_250_000_000, 1_300_000_000),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_the_table_says_what_was_measured() -> None:
    assert cells(table(found())) == {
        "talker": "10.0 ms a frame",
        "code predictor": "20.0 ms a frame",
        "codec decoder": "5.0 ms a frame (chunks of (1, 2, 4, 8))",
        "parts of the codec decoder in float32": "all",
        "everything else": "5.0 ms a frame",
        "steady frame, all stages": "40.0 ms",
        "prefill": "40 ms",
        "TTFA in steady frames": "2.0",
        "weights and KV cache read a frame, talker + code predictor": "0.60 GB",
        "read bandwidth in this run": "30.0 GB/s",
        "floor: that many bytes at that bandwidth": "20.0 ms a frame",
        "talker + code predictor against the floor": "1.50 x",
        "weights read a chunk, codec decoder": "0.42 GB",
        "1 row": "25.0 frames a second without the prefill",
        "4 rows together": "50.0 frames a second, 2.00 times one row's",
        "4 rows: read a frame, and talker + code predictor against that floor": "0.80 GB in 40.0 ms; 1.25 x",
        "RSS after all rows": "1.25 GB, at most 1.30",
    }


def test_the_table_says_how_the_codec_decoder_was_converted() -> None:
    def said(**parity: object) -> str:
        graph = {"file": "codec_decoder.onnx", "precision": "int8", "inputs": [], "outputs": []}
        manifest = Manifest.model_validate(manifest_of("custom", graphs={"codec_decoder": graph}, parity=parity))
        return cells(table(found(manifest=manifest)))["parts of the codec decoder in float32"]

    assert said(codec_decoder={"in_float32": []}) == "none"
    assert said(codec_decoder={"in_float32": ["block 3 unit 1", "block 4 unit 2"]}) == "block 3 unit 1, block 4 unit 2"
    assert "forced" in said()


def test_what_was_not_measured_is_not_claimed() -> None:
    said = cells(table(found(floors={}, together={}, memory=None)))
    assert "convert the checkpoint again" in said["floor"]
    assert not [name for name in said if "bandwidth" in name or "row" in name or "RSS" in name]


def test_the_probe_reads_what_a_frame_reads() -> None:
    reads = frame_reads(read_manifest(RANDOM_BUNDLE))
    assert reads is not None
    assert [one.passes for one in reads] == [0, 15]
    probe = FloorProbe([WeightReads(once=1600), WeightReads(once=160, looped=320, passes=15)], 2)
    assert probe.bytes_read() == 1600 + 160 + 15 * 320
    probe.run()
    assert [(rows, len(seconds)) for rows, seconds in probe.seconds.items()] == [(1, 1)]


def test_the_probe_reads_the_cache_of_every_row() -> None:
    probe = FloorProbe([WeightReads(once=1600)], 2, cache=320, rows=4)
    assert [probe.bytes_read(rows) for rows in (1, 2, 4)] == [1920, 2240, 2880]
    probe.run(4)
    assert list(probe.seconds) == [4]


def test_the_floor_counts_the_caches_behind_the_middle_of_a_run() -> None:
    measured = measure_stages(RANDOM_BUNDLE, threads=1, frames=4, requests=1, tokens=30, rows=[2])
    (run,), manifest = measured.runs, measured.manifest
    talker = manifest.sizes.talker
    assert run.positions > 30
    position = 2 * talker.num_layers * talker.num_kv_heads * talker.head_dim * np.dtype(manifest.kv_cache).itemsize
    assert cache_reads(manifest, 1) == position
    weights = sum(one.total for one in frame_reads(manifest) or [])
    cache = (run.positions + 2) * position
    assert {rows: size for rows, (size, _) in measured.floors.items()} == {1: weights + cache, 2: weights + 2 * cache}
    assert [len(measured.seconds[rows]["code predictor"]) for rows in (1, 2)] == [4, 4]


def test_an_older_bundle_is_measured_without_its_floor(tmp_path: Path) -> None:
    older = shutil.copytree(RANDOM_BUNDLE, tmp_path / "older")
    manifest = json.loads((older / "manifest.json").read_text())
    for graph in manifest["graphs"].values():
        del graph["reads"]
    (older / "manifest.json").write_text(json.dumps(manifest))
    measured = measure_stages(older, threads=1, frames=2, requests=1)
    assert not measured.floors
    assert [run.frames for run in measured.runs] == [2]


def test_memory_is_noted_after_all_rows_and_before_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(stages, "rss", lambda: done.append("noted"))
    monkeypatch.setattr(stages, "FloorProbe", lambda *given: done.append("probe") or FloorProbe(*given))

    def watched(*given, **named) -> Run:
        done.append((given[2], named.get("rows", 1)))
        return speak(*given, **named)

    monkeypatch.setattr(stages, "speak", watched)
    frames = RAMP_FRAMES + 1
    measured = measure_stages(RANDOM_BUNDLE, threads=1, frames=frames, requests=1, rows=[2])
    assert done == [(frames, 1), (frames, 2), "noted", "probe", (frames, 1), (frames, 2)]
    assert set(measured.seconds[1]) == {"talker", "code predictor", "codec decoder"}
    assert [len(runs) for runs in measured.together.values()] == [1]
