"""The convert command; as a process of its own where that makes a difference."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

import export
from export import stages
from export.convert import _loading, main
from export.graphs import validation
from export.graphs.files import with_subgraphs
from export.publish import describe_graph
from export.stages import STAGES, Conversion, Stage
from server.graphs.checking import verify_files
from server.graphs.external_data import external_data
from server.manifest import Manifest, read_manifest
from tests.checkpoints import LANGUAGES, SHAPES, SPEAKERS
from tests.hub_server import COMMIT, REPO, StandInHub
from tests.sources import ROOT

SCRIPT = Path(export.__path__[0]) / "convert.py"
PATIENCE_SECONDS = 600
"""How long a command may take before a test gives up; no test measures time."""


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Let what is started meanwhile have one core, if the system can: of its threads, all but one would only spin."""
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    if cores:
        os.sched_setaffinity(0, {random.choice(sorted(cores))})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


def convert(
    *arguments: str | Path, cwd: Path | None = None, command: tuple[str, ...] = (str(SCRIPT),), **environment: str
) -> subprocess.CompletedProcess[str]:
    with one_core():
        return subprocess.run(
            [sys.executable, *command, *map(str, arguments)],
            env=os.environ | environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed command says."""
    assert result.returncode == 1, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def made(checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle with the default output name, and what the command printed."""
    root = tmp_path_factory.mktemp("project")
    checkpoint = shutil.copytree(checkpoint_of("least"), root / "Qwen3-TTS-12Hz-0.1B-Tiny")
    printed = io.StringIO()
    with contextlib.chdir(root), contextlib.redirect_stdout(printed):
        assert main(["--model", str(checkpoint), "--precision", "fp32", "--noise"]) == 0
    assert [path.name for path in (root / "models").iterdir()] == ["qwen3_tts_0_1b_tiny_fp32"]
    return root / "models" / "qwen3_tts_0_1b_tiny_fp32", printed.getvalue()


def test_the_bundle_is_whole(made: tuple[Path, str]) -> None:
    bundle, _ = made
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert there == {*manifest.files, "manifest.json"}
    assert {"tokenizer.json", "text_embedding.npy", "codec_embedding.npy"} < there
    assert set(manifest.graphs) == {"talker", "code_predictor", "codec_decoder"}
    assert sum((bundle / name).stat().st_size for name in there) < 5_000_000


@pytest.mark.parametrize("precision", ["fp32", "int8", "w8a8", "mixed", "int4"])
def test_weights_lie_beside_the_graphs_and_nothing_else_does(bundle_of: Callable[..., Path], precision: str) -> None:
    bundle = bundle_of("short", precision)
    graphs = [graph.file for graph in read_manifest(bundle).graphs.values()]
    assert {path.name for path in bundle.glob("*_data")} == {f"{name}_data" for name in graphs}
    for name in graphs:
        assert external_data(bundle / name) == {f"{name}_data"}
        stored = onnx.load(bundle / name, load_external_data=False).graph
        inside = [len(tensor.raw_data) for graph in with_subgraphs(stored) for tensor in graph.initializer]
        assert max(inside) <= 1024
        assert (bundle / name).stat().st_size < 64e6


def test_the_manifest_tells_what_the_checkpoint_holds(made: tuple[Path, str]) -> None:
    manifest = read_manifest(made[0])
    assert (manifest.id, manifest.noise) == ("qwen3_tts_0_1b_tiny_fp32", True)
    assert "noise" in manifest.description
    assert (manifest.source.model, manifest.source.revision) == ("Qwen3-TTS-12Hz-0.1B-Tiny", None)
    assert (manifest.model_type, manifest.model_size, manifest.follows_instructions) == ("custom_voice", "0b6", False)
    dialects = {name: speaker.dialect for name, speaker in manifest.speakers.items()}
    assert dialects == dict.fromkeys(SPEAKERS) | {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}
    assert manifest.languages == {name: 64 + number for name, number in LANGUAGES.items()}
    assert (manifest.ids.codec_eos, manifest.ids.codec_pad, manifest.ids.im_end) == (166, 164, 773)
    assert (manifest.generation.max_new_tokens, manifest.generation.repetition_penalty) == (8192, 1.05)
    assert manifest.sizes.talker.head_dim == 16
    assert manifest.sizes.codec.samples_per_frame == SHAPES["least"].codec.samples_per_frame == 8
    table = np.load(made[0] / "codec_embedding.npy", mmap_mode="r")
    assert table.shape == (manifest.sizes.talker.vocab_size, manifest.sizes.talker.hidden_size)
    assert {"torch", "transformers", "optimum-onnx", "onnxruntime"} <= set(manifest.tools)


def test_the_manifest_describes_the_graphs_as_onnx_runtime_sees_them(made: tuple[Path, str]) -> None:
    bundle, _ = made
    for graph in read_manifest(bundle).graphs.values():
        session = onnxruntime.InferenceSession(bundle / graph.file, providers=["CPUExecutionProvider"])
        for ours, theirs in ((graph.inputs, session.get_inputs()), (graph.outputs, session.get_outputs())):
            assert [(t.name, list(t.shape)) for t in ours] == [(t.name, t.shape) for t in theirs]
        assert describe_graph(bundle / graph.file, graph.precision) == graph


def test_the_report_has_parity_and_sizes(made: tuple[Path, str]) -> None:
    bundle, printed = made
    parity = read_manifest(bundle).parity
    assert parity["frames"] >= 32
    assert parity["codes"] == {
        "codebook 0": {"equal": 32, "compared": 32},
        "other codebooks": {"equal": 64, "compared": 64},
    }
    for line in ("talker", "code_predictor", "codec_decoder", "other codebooks: 64 of 64", "total", str(bundle)):
        assert line in printed
    assert "Traceback" not in printed


def other_files(bundle: Path) -> dict[str, str]:
    manifest: Manifest = read_manifest(bundle)
    return {name: entry.sha256 for name, entry in manifest.files.items()}


def test_force_replaces(
    made: tuple[Path, str], checkpoint_of: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(made[0], tmp_path / "voice")
    (output / "stale.onnx").write_bytes(b"")
    options = ["--model", str(checkpoint_of("least")), "--output", str(output), "--precision", "fp32"]
    assert main(options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "exists already" in line
    assert (output / "stale.onnx").exists()
    (tmp_path / "alphabet.txt").write_text("cba ,.'\u00e9\r\n", "utf-8")
    assert main([*options, "--force", "--whole-text", "--alphabet", str(tmp_path / "alphabet.txt")]) == 0
    assert not (output / "stale.onnx").exists()
    assert read_manifest(output).id == "voice"
    assert (read_manifest(made[0]).whole_text, read_manifest(output).whole_text) == (False, True)
    assert (read_manifest(made[0]).alphabet, read_manifest(output).alphabet) == (None, " ',.abc\u00e9")
    assert other_files(output) == other_files(made[0])  # the same checkpoint gives the same bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "/no/such/folder"], "error: there is no folder /no/such/folder"),
        (["--model", "."], "error: config.json is missing in"),
        (["--alphabet", "/no/such.txt"], "error: [Errno 2] No such file or directory: '/no/such.txt'"),
        (["--alphabet", os.devnull], f"error: {os.devnull} is empty; write the characters"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    result = convert("--precision", "int3", cwd=tmp_path)
    assert result.returncode == 2
    assert "invalid choice: 'int3'" in result.stderr


@pytest.mark.parametrize("command", [(str(SCRIPT),), ("-m", "export.convert")])
def test_the_help_names_every_option(command: tuple[str, ...]) -> None:
    result = convert("--help", command=command)
    assert result.returncode == 0
    for word in (
        "--model",
        "--output",
        "--precision",
        "--revision",
        "--force",
        "--no-validate",
        "--description",
        "--alphabet",
        "--whole-text",
        "HF_ENDPOINT",
        REPO,
    ):
        assert word in result.stdout


def test_an_unknown_checkpoint_is_refused_before_its_weights_are_fetched(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint_of("least"), tmp_path / "source")
    config = (source / "config.json").read_text("utf-8")
    (source / "config.json").write_text(config.replace('"custom_voice"', '"song"'), "utf-8")
    with StandInHub(source) as hub:
        result = convert(
            cwd=tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"), HF_HUB_DISABLE_PROGRESS_BARS="1"
        )
        assert "tts_model_type 'song' is unknown; expected one of custom_voice, voice_design, base" in error_of(result)
        assert not any(name.endswith(".safetensors") for name in hub.fetched())
    assert not (tmp_path / "models").exists()


def test_a_hub_checkpoint_becomes_a_bundle(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    with StandInHub(checkpoint_of("least")) as hub:
        result = convert("--noise", cwd=tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"))
    assert result.returncode == 0, result.stderr
    manifest = read_manifest(tmp_path / "models" / "qwen3_tts_0_6b_customvoice")
    assert (manifest.source.model, manifest.source.revision) == (REPO, COMMIT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_stage_leaves_nothing(
    checkpoint_of: Callable[[str], Path],
    tmp_path: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(context: Conversion) -> None:
        (context.output / "talker.onnx").write_bytes(b"half")
        signal.raise_signal(number)

    monkeypatch.setattr(stages, "STAGES", (Stage("talker", interrupted),))
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    options = ["--model", str(checkpoint_of("least")), "--output", str(tmp_path / "models" / "voice")]
    assert main(options) == 128 + number
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1] == f"stopped by {number.name}; nothing was written"
    assert list((tmp_path / "models").iterdir()) == []
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_process_that_gets_a_signal_leaves_nothing(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    output, number = tmp_path / "models" / "voice", signal.SIGTERM
    checkpoint = checkpoint_of("least")
    with one_core():
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "--model", checkpoint, "--output", output],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(tmp_path.glob("models/.voice.new-*/talker.onnx*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number
    assert errors.strip().splitlines()[-1] == f"stopped by {number.name}; nothing was written"
    assert "Traceback" not in errors
    assert list((tmp_path / "models").iterdir()) == []


def test_a_signal_during_the_download_ends_it_at_once(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    with StandInHub(checkpoint_of("least"), stall="model.safetensors") as hub:
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "--output", tmp_path / "voice"],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert hub.stalled.wait(PATIENCE_SECONDS)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert errors.endswith("stopped; nothing was written\n")
    assert not (tmp_path / "voice").exists()


def test_a_graph_that_is_off_stops_the_conversion_unless_told_otherwise(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Here every graph is off, since no difference is allowed: float32 rounds otherwise in ONNX Runtime."""
    monkeypatch.setattr(validation, "TOLERANCE", 0.0)
    output = tmp_path / "models" / "voice"
    options = ["--model", str(checkpoint_of("least")), "--output", str(output), "--precision", "fp32"]
    assert main(options) == 1
    printed = capsys.readouterr()
    assert re.search(rf"^4/{len(STAGES)} talker +failed$", printed.out, re.M)
    (error,) = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert re.search(r"the graph talker does not compute .* differs by \d.* --no-validate converts without", error)
    assert list(output.parent.iterdir()) == []
    assert main([*options, "--no-validate", "--description", "Mine."]) == 0
    assert "note: --no-validate: no graph was compared" in capsys.readouterr().out
    manifest = read_manifest(output)
    assert manifest.description == "Mine."
    assert manifest.parity["validation"] == "off"
    assert manifest.parity["codes"]["other codebooks"] == {"equal": 64, "compared": 64}
    for errors in manifest.parity["graphs"].values():
        assert 0 < errors["relative_error"] < 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forbid it")
def test_converting_a_folder_calls_nobody_and_leaves_nothing_else(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # For the name of a file onnx has libuuid ask the kernel for the address of a network card, which takes a datagram
    # socket that sends nothing.
    script = "import sys, uuid; uuid.uuid1 = uuid.uuid4; from export.convert import main; sys.exit(main())"
    command = ("-m", "tests.no_network", "-c", script)
    options = ("--model", checkpoint_of("least"), "--output", tmp_path / "models" / "voice")
    result = convert(*options, cwd=ROOT, command=command, HOME=str(home), HF_HOME=str(home / "hub"))
    assert result.returncode == 0, result.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("options", [[], ["--precision", "fp32", "--no-validate"]], ids=" ".join)
@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("talker.model.norm.weight", float("nan")),
        ("talker.model.text_embedding.weight", float("-inf")),
        ("talker.code_predictor.model.layers.0.mlp.up_proj.weight", float("nan")),
        ("decoder.pre_transformer.norm.weight", float("inf")),
    ],
)
def test_weights_that_are_no_numbers_are_refused_before_the_work(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, options: list[str], tensor: str, value: float, capsys
) -> None:
    checkpoint = shutil.copytree(checkpoint_of("least"), tmp_path / "checkpoint")
    file = checkpoint / ("speech_tokenizer" if tensor.startswith("decoder.") else "") / "model.safetensors"
    tensors = load_file(file)
    tensors[tensor].flatten()[3] = value
    save_file(tensors, file)
    output = tmp_path / "models" / "voice"
    assert main(["--model", str(checkpoint), "--output", str(output), *options]) == 1
    printed = capsys.readouterr()
    stages_seen = re.findall(r"^\d+/\d+ .*$", printed.out, re.M)  # a library that is imported here may print too
    assert [line.split() for line in stages_seen] == [[f"1/{len(STAGES)}", "tensors", "failed"]]
    odd = f"{tensor} in {file} has 1 of {tensors[tensor].numel()} values that are no finite numbers"
    assert odd in printed.err
    assert list(output.parent.iterdir()) == []


def test_garbage_is_collected_again_once_modules_are_loaded() -> None:
    for was_on in (False, True):
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ImportError), _loading():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == was_on
