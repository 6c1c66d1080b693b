"""`qwen3-tts bench`: what it measures, what it says of it, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import server.bench.measure as bench
from server import __main__ as command
from server.bench.floor import FloorProbe, frame_reads
from server.bench.measure import Floor, Measured, Memory, Rss, measure
from server.bench.report import report, verdict
from server.bench.speak import RAMP_FRAMES, STEADY_CHUNK, Run, speak
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.manifest import Manifest, Precision, WeightReads, read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.server.fakes import manifest_of, write_bundle
from tests.server.running import ROOT, clean_environment

NOT_OF_THE_SERVER = ("onnx", "torch", "transformers", "optimum", "huggingface_hub", "export", "benchmarks", "tests")


def cells(text: str) -> dict[str, str]:
    """The rows of a report's table."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: value for name, value in lines if name != "stage"}


@pytest.mark.parametrize(
    ("rtf", "precision", "says"),
    [
        (0.77, "int8", "Real time on this machine: yes, 1.3 times faster."),
        (1.0, "fp32", "Real time on this machine: yes, 1.0 times faster."),
        (1.5, "int8", "Real time on this machine: no, 1.5 times too slow; a mixed or int4 bundle may help."),
        (4.0, "fp32", "Real time on this machine: no, 4.0 times too slow; an int8, mixed or int4 bundle may help."),
        (
            2.0,
            "int4",
            "Real time on this machine: no, 2.0 times too slow; a smaller model or a faster machine may help.",
        ),
    ],
)
def test_the_verdict(rtf: float, precision: Precision, says: str) -> None:
    assert verdict(rtf, precision) == says


def measured(**changes: object) -> Measured:
    """Two requests of two frames: 10 + 20 + 5 ms a frame, 5 ms else, 40 ms of prefill; 80 ms of audio a frame."""
    run = Run(prefill=0.04, first_audio=0.08, wall=0.12, frames=2, step_seconds=[0.04, 0.04])
    four = Run(prefill=0.16, first_audio=0.2, wall=0.32, frames=8, step_seconds=[0.08, 0.08])
    graph = {"file": "codec_decoder.onnx", "precision": "fp32", "reads": {"once": 420_000_000}}
    found = Measured(
        manifest=Manifest.model_validate(
            manifest_of("custom", graphs={"codec_decoder": {**graph, "inputs": [], "outputs": []}})
        ),
        provider="cpu",
        threads=2,
        opening=3.0,
        memory=Memory(
            opened=Rss(900_000_000, 1_000_000_000),
            one_row=Rss(1_100_000_000, 1_200_000_000),
            all_rows=Rss(1_250_000_000, 1_300_000_000),
        ),
        seconds={
            "talker": [0.01] * 4,
            "code predictor": [0.02] * 4,
            "codec decoder": [0.005] * 4,
        },
        runs=[run, run],
        strange=[dataclasses.replace(run, prefill=0.06, first_audio=0.1)] * 2,
        together={4: [four, four]},
        floor=Floor(bytes_read=600_000_000, seconds=0.02),
    )
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def test_the_table_says_what_was_measured() -> None:
    text = report(measured())
    assert text.startswith("custom, fp32, cpu, 2 threads, 2 requests of 2 frames, warm; ")
    assert text.endswith("\n\nReal time on this machine: yes, 1.3 times faster.")
    assert cells(text) == {
        "talker": "10.0 ms a frame",
        "code predictor": "20.0 ms a frame",
        "codec decoder": "5.0 ms a frame (chunks of (1, 2, 4, 8))",
        "everything else": "5.0 ms a frame",
        "prefill, voice used before / not yet": "40 / 60 ms",
        "steady frame, all stages": "40.0 ms",
        "TTFA (request to first audio), the same": "80 / 100 ms",
        "TTFA in steady frames": "2.0 / 2.5",
        "RTF (wall / audio, below 1 is faster than real time)": "0.75",
        "weights read a frame, talker + code predictor": "0.60 GB",
        "read bandwidth in this run": "30.0 GB/s",
        "floor: that many bytes at that bandwidth": "20.0 ms a frame",
        "talker + code predictor against the floor": "1.50 x",
        "weights read a chunk, codec decoder": "0.42 GB",
        "1 row": "25.0 frames a second without the prefill",
        "4 rows together": "50.0 frames a second, 2.00 times one row's",
        "opening the bundle": "3.0 s",
        "RSS of the engine without a server, opened / after a request / after all rows": "0.90 / 1.10 / 1.25 GB",
        "peak RSS until then, opened / after a request / after all rows": "1.00 / 1.20 / 1.30 GB",
    }


def test_what_was_not_measured_is_not_claimed() -> None:
    table = cells(report(measured(floor=None, together={}, memory=None)))
    assert "convert the checkpoint again" in table["floor: merely reading the weights of a frame"]
    assert table["RSS"] == "not known on this system"
    assert not [name for name in table if "peak" in name]
    assert not [name for name in table if "bandwidth" in name or "row" in name]
    assert "CPU only" in report(measured(floor=None, provider="cuda"))


def test_a_decoder_beside_the_talker_takes_no_time_of_its_own() -> None:
    table = cells(report(measured(floor=None, provider="cuda")))
    assert table["codec decoder"] == "5.0 ms a frame (chunks of (1, 2, 4, 8), beside the talker)"
    assert table["everything else"] == "10.0 ms a frame"


def test_steady_frames_are_those_of_full_chunks() -> None:
    ramp, steady, rest = [9.0] * RAMP_FRAMES, [1.0] * (STEADY_CHUNK - 1) + [3.0], [9.0] * (STEADY_CHUNK - 1)
    long = Run(0, 0, 0, 0, [*ramp, *steady, *steady, *rest])
    assert long.steady_seconds == pytest.approx((STEADY_CHUNK + 2) / STEADY_CHUNK)
    assert Run(0, 0, 0, 0, [1.0, 2.0, 3.0]).steady_seconds == 2


def test_rows_speak_side_by_side() -> None:
    bundle = open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=3)
    steps: list[int] = []
    run = speak(bundle, Synthesizer(bundle), 3, 7, rows=3, between=lambda: steps.append(1))
    assert (run.frames, len(run.step_seconds), len(steps)) == (9, 3, 3)
    assert 0 < run.prefill < run.first_audio < run.wall


def test_the_probe_reads_what_a_frame_reads() -> None:
    reads = frame_reads(read_manifest(RANDOM_BUNDLE))
    assert reads is not None
    assert [one.passes for one in reads] == [0, 15]
    probe = FloorProbe([WeightReads(once=1600), WeightReads(once=160, looped=320, passes=15)], 2)
    assert probe.bytes_read == 1600 + 160 + 15 * 320
    probe.run()
    assert len(probe.seconds) == 1


def test_an_older_bundle_is_measured_without_its_floor(tmp_path: Path) -> None:
    older = shutil.copytree(RANDOM_BUNDLE, tmp_path / "older")
    manifest = json.loads((older / "manifest.json").read_text())
    for graph in manifest["graphs"].values():
        del graph["reads"]
    (older / "manifest.json").write_text(json.dumps(manifest))
    found = measure(older, provider="cpu", threads=1, frames=2, requests=1)
    assert found.floor is None
    assert [run.frames for run in found.runs] == [2]


def test_memory_is_noted_after_whole_requests_and_before_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(bench, "rss", lambda: done.append("noted"))
    monkeypatch.setattr(bench, "FloorProbe", lambda *given: done.append("probe") or FloorProbe(*given))

    def watched(*given, **named) -> Run:
        done.append((given[2], named.get("rows", 1)))
        return speak(*given, **named)

    monkeypatch.setattr(bench, "speak", watched)
    frames = RAMP_FRAMES + 1
    found = measure(RANDOM_BUNDLE, provider="cpu", threads=1, frames=frames, requests=1, rows=[2])
    assert done[:6] == ["noted", (frames, 1), "noted", (frames, 2), "noted", "probe"]
    assert "noted" not in done[6:]
    assert found.memory is None  # where the system does not say


def test_the_command_needs_no_more_than_the_server() -> None:
    blocked = f"import sys\nfor name in {NOT_OF_THE_SERVER}: sys.modules[name] = None\n"
    options = [
        "bench",
        "--model",
        RANDOM_BUNDLE.name,
        "--frames",
        "3",
        "--requests",
        "2",
        "--rows",
        "2",
        "--threads",
        "1",
    ]
    script = f"{blocked}from server.__main__ import main\nsys.exit(main({options}))"
    environment = clean_environment(KW_MODELS_DIR=str(RANDOM_BUNDLE.parent))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("qwen3_tts_random, fp32, cpu, 1 threads, 2 requests of 3 frames, warm; ")
    table = cells(done.stdout)
    assert set(table) == set(cells(report(measured()))) - {"4 rows together"} | {"2 rows together"}
    rtf = float(table["RTF (wall / audio, below 1 is faster than real time)"])
    assert ("yes" if rtf <= 1 else "no") in done.stdout.splitlines()[-1]
    assert "request 2 of 2, rows: 2" in done.stderr


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--model", "absent"], 2, "there is no such model; there are broken, custom"),
        (["--model", "broken"], 1, "broken: manifest.json does not fit"),
        (["--model", "custom"], 1, "custom: talker.onnx is damaged"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    options: list[str],
    status: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (write_bundle(tmp_path, "custom") / "talker.onnx").write_bytes(b"\x08" * 1000)
    (write_bundle(tmp_path, "broken") / "manifest.json").write_text("{}")
    monkeypatch.setenv("KW_MODELS_DIR", str(tmp_path))
    assert command.main(["bench", *options]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = [line for line in printed.err.splitlines() if line.startswith("qwen3-tts: ")]
    assert len(errors) == 1
    assert says in errors[0]


@pytest.mark.parametrize(
    "options", [["--rows", "0"], ["--frames", "many"], ["--requests", "-1"], ["--threads", "1025"]]
)
def test_counts_are_checked(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["bench", *options])
    assert left.value.code == 2
    assert "no whole number from 1 to 1024" in capsys.readouterr().err
