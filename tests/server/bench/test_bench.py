"""`qwen3-tts bench`: what it measures, what it says of it, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import server.bench.measure as bench
from server import __main__ as command
from server.bench.measure import Measured, Rss, measure
from server.bench.report import report, verdict
from server.bench.speak import RAMP_FRAMES, STEADY_CHUNK, Run, speak, text_of
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.manifest import Manifest, Precision
from tests.bundles import RANDOM_BUNDLE
from tests.server.fakes import manifest_of, write_bundle
from tests.server.running import ROOT, clean_environment

NOT_OF_THE_SERVER = ("onnx", "torch", "transformers", "optimum", "huggingface_hub", "export", "benchmarks", "tests")


def cells(text: str) -> dict[str, str]:
    """The rows of a report's table."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: value for name, value in lines if name != "what"}


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
def test_the_verdict_says_how_far_from_real_time_and_what_may_help(rtf: float, precision: Precision, says: str) -> None:
    assert verdict(rtf, precision) == says


def measured(**changes: object) -> Measured:
    """Two requests of two frames, with 80 ms of audio a frame."""
    run = Run(prefill=0.04, first_audio=0.08, wall=0.12, frames=2, step_seconds=[0.04, 0.04], positions=30)
    found = Measured(
        manifest=Manifest.model_validate(manifest_of("custom")),
        provider="cpu",
        threads=2,
        tokens=20,
        opening=3.0,
        opened=Rss(900_000_000, 1_000_000_000),
        spoken=Rss(1_100_000_000, 1_200_000_000),
        runs=[run, run],
        new_voice=[dataclasses.replace(run, prefill=0.06, first_audio=0.1)] * 2,
    )
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def test_the_report_says_what_was_measured() -> None:
    text = report(measured())
    assert text.startswith("custom, fp32, cpu, 2 threads, 2 requests of 20 tokens and 2 frames, warm; ")
    assert text.endswith("\n\nReal time on this machine: yes, 1.3 times faster.")
    assert cells(text) == {
        "RTF (wall / audio, below 1 is faster than real time)": "0.75",
        "TTFA (request to first audio), voice used before / not yet": "80 / 100 ms",
        "opening the bundle": "3.0 s",
        "RSS of the engine without a server, opened / after a request": "0.90 / 1.10 GB, at most 1.20",
    }
    unknown = cells(report(measured(opened=None, spoken=None)))
    assert unknown["RSS of the engine without a server, opened / after a request"] == "not known on this system"


def test_steady_frames_are_those_of_full_chunks() -> None:
    ramp, steady, rest = [9.0] * RAMP_FRAMES, [1.0] * (STEADY_CHUNK - 1) + [3.0], [9.0] * (STEADY_CHUNK - 1)
    long = Run(0, 0, 0, 0, [*ramp, *steady, *steady, *rest], 0)
    assert long.steady_seconds == pytest.approx((STEADY_CHUNK + 2) / STEADY_CHUNK)
    assert Run(0, 0, 0, 0, [1.0, 2.0, 3.0], 0).steady_seconds == 2


def test_rows_speak_side_by_side() -> None:
    bundle = open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=3)
    steps: list[int] = []
    run = speak(bundle, Synthesizer(bundle), 3, 7, rows=3, between=lambda: steps.append(1))
    assert (run.frames, len(run.step_seconds), len(steps)) == (9, 3, 3)
    assert 0 < run.prefill < run.first_audio < run.wall


def test_a_text_has_as_many_tokens_as_are_asked_for_or_a_word_more() -> None:
    bundle = open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=1)
    for tokens in (1, 15, 120):
        text = text_of(bundle.prompts, tokens)
        assert bundle.prompts.count_tokens(text) >= tokens > bundle.prompts.count_tokens(text.rpartition(" ")[0])
    run = speak(bundle, Synthesizer(bundle), 4, 0, text=text)
    prompt = bundle.prompts.build(text, speaker=next(iter(bundle.manifest.speakers)), language="auto", instruction=None)
    assert run.positions == len(prompt) > 120
    assert run.middle == run.positions + 2


def test_memory_is_noted_once_opened_and_after_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(bench, "rss", lambda: done.append("noted"))

    def watched(*given, **named) -> Run:
        done.append(given[2])
        return speak(*given, **named)

    monkeypatch.setattr(bench, "speak", watched)
    found = measure(RANDOM_BUNDLE, provider="cpu", threads=1, frames=3, requests=2)
    assert done == ["noted", 3, "noted", 1, 3, 1, 3]
    assert (found.opened, found.spoken) == (None, None)  # where the system does not tell
    assert [run.frames for run in found.runs] == [3, 3]


def test_the_command_needs_no_more_than_the_server() -> None:
    blocked = f"import sys\nfor name in {NOT_OF_THE_SERVER}: sys.modules[name] = None\n"
    options = [
        "bench",
        "--model",
        RANDOM_BUNDLE.name,
        "--frames",
        "3",
        "--tokens",
        "40",
        "--requests",
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
    assert done.stdout.startswith(
        "qwen3_tts_random, fp32, cpu, 1 threads, 2 requests of 40 tokens and 3 frames, warm; "
    )
    table = cells(done.stdout)
    assert set(table) == set(cells(report(measured())))
    rtf = float(table["RTF (wall / audio, below 1 is faster than real time)"])
    assert ("yes" if rtf <= 1 else "no") in done.stdout.splitlines()[-1]
    assert "request 2 of 2" in done.stderr


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
    "options", [["--frames", "0"], ["--tokens", "many"], ["--requests", "-1"], ["--threads", "1025"]]
)
def test_counts_are_checked(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["bench", *options])
    assert left.value.code == 2
    assert "no whole number from 1 to 1024" in capsys.readouterr().err
