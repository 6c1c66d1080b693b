"""How much memory a model may need, and what is said where the machine has less."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnxruntime as ort
import pytest

from server import __main__ as command
from server.engine.primed import KEPT_STATES
from server.graphs.session import CUDA_PROVIDER, Provider
from server.manifest import CODEC_TABLE, TEXT_TABLE, FileEntry, Manifest
from server.metrics import EngineEvents, Metrics
from server.models import memory
from server.models.catalogue import Bundle, Bundles
from server.models.memory import Bounds, Machine, MemoryShortage
from server.models.pool import EnginePool, PoolLimits
from server.models.pool_entry import SpeechEngine
from tests.server.fakes import manifest_of, write_bundle

GB = 10**9


def manifest(files: int, head_dim: int = 128) -> Manifest:
    """The shapes of the 0.6B model, with files of so many bytes."""
    made = Manifest.model_validate(manifest_of("big"))
    talker = made.sizes.talker.model_copy(
        update={"num_layers": 28, "num_kv_heads": 8, "head_dim": head_dim, "max_positions": 8192}
    )
    sizes = made.sizes.model_copy(update={"talker": talker})
    return made.model_copy(update={"sizes": sizes, "files": {"x": FileEntry(size=files, sha256="0" * 64)}})


def test_a_model_takes_its_files_and_the_caches_of_its_rows() -> None:
    row = 2 * 28 * 8 * 8192 * 128 * 4
    assert memory.model_bytes(manifest(GB), Bounds(3)) == GB + 3 * row
    assert memory.model_bytes(manifest(GB, head_dim=120), Bounds(3)) == GB + 3 * row  # padded to a multiple of 16


def test_a_row_counts_at_the_longest_that_it_may_get() -> None:
    position = 2 * 28 * 8 * 128 * 4
    assert memory.model_bytes(manifest(GB), Bounds(3, 1024 + 2048)) == GB + 3 * 3072 * position
    assert memory.model_bytes(manifest(GB), Bounds(3, 100_000)) == GB + 3 * 8192 * position


STATE = [("past.key", (4, 71, 16)), ("past.conv", (40, 6))]
"""What a codec decoder carries from frame to frame, `[rows, ...]`."""


def base() -> Manifest:
    """A model that clones voices."""
    made = manifest_of("base", model_type="base")
    state = [{"name": name, "dtype": "float32", "shape": ["rows", *shape]} for name, shape in STATE]
    codes = {"name": "codes", "dtype": "int64", "shape": ["rows", "frames", 16]}
    made["graphs"]["codec_decoder"]["inputs"] = [codes, *state]
    sizes = {"talker.onnx": 5, "speaker_encoder.onnx": 30, "codec_encoder.onnx": 1, "codec_encoder.onnx_data": 200}
    made["files"] = {name: {"size": size, "sha256": "0" * 64} for name, size in sizes.items()}
    return Manifest.model_validate(made)


def test_cloned_voices_take_states_and_what_encoding_takes() -> None:
    state = 4 * (4 * 71 * 16 + 40 * 6)
    cloning = (KEPT_STATES + 1) * state + memory.ENCODING_BYTES
    row = 2 * 1 * 1 * 3072 * 16 * 4
    assert memory.model_bytes(base(), Bounds(2, 3072)) == 236 + 2 * row + cloning
    small = Machine(total=GB, available=cloning)
    warning = memory.check_memory(base(), Bounds(2, 3072), small)
    assert warning is not None
    assert f"{memory.human_size(cloning)} for cloned voices, and" in warning
    assert memory.check_memory(base(), Bounds(2, 3072), small._replace(available=4 * GB)) is None


def test_the_encoders_of_a_model_on_a_gpu_compute_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    made = base().model_copy(update={"precision": "bf16"})
    assert memory.model_bytes(made, Bounds(2, 3072, "cuda")) == 231 + memory.ENCODING_BYTES


def real_0_6b() -> Manifest:
    """The 0.6B in int8: 1.5 GB of files, of which 0.6 GB are the table of the text's embeddings."""
    made = manifest(0)
    table = 151_936 * 1024 * 4 + 128
    sizes = {
        "talker.onnx_data": 500_000_000,
        "code_predictor.onnx_data": 250_000_000,
        "codec_decoder.onnx": 128_000_000,
    }
    sizes |= {TEXT_TABLE: table, CODEC_TABLE: 3072 * 1024 * 4 + 128}
    entries = {name: FileEntry(size=size, sha256="0" * 64) for name, size in sizes.items()}
    return made.model_copy(update={"files": entries, "precision": "int8"})


def test_the_readmes_example_serves_the_default_model() -> None:
    """`KW_MODEL_MEMORY=6GB`, four rows, prompts of 1024 positions and 2048 frames; not so with rows of 8192."""
    assert 1.4 * GB < sum(entry.size for entry in real_0_6b().files.values()) < 1.6 * GB
    for positions, served in ((1024 + 2048, True), (None, False)):
        bundle = Bundle(Path("big"), 0, real_0_6b())
        memory_of = partial(memory.model_bytes, bounds=Bounds(4, positions))
        EnginePool(Bundles([bundle], None), load_none, memory_of, PoolLimits(memory=6 * GB), Metrics())
        assert (bundle.problem is None) == served
    assert memory.model_bytes(real_0_6b(), Bounds(4, 3072)) < 4 * GB
    assert memory.check_memory(real_0_6b(), Bounds(4, 3072), Machine(total=8 * GB, available=5 * GB)) is None


def load_none(folder: Path, events: EngineEvents) -> SpeechEngine:
    raise AssertionError("nothing is loaded here")


@pytest.mark.parametrize(
    ("provider", "precision", "cuda", "counts"),
    [
        ("auto", "bf16", True, False),
        ("cuda", "fp16", True, False),
        ("auto", "fp16", False, True),
        ("cpu", "fp16", True, True),
        ("auto", "int8", True, True),
        ("cuda", "int8", True, True),
    ],
)
def test_a_gpus_memory_is_not_this_machines(
    provider: Provider, precision: str, cuda: bool, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = [CUDA_PROVIDER] * cuda + ["CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    made = manifest(GB).model_copy(update={"precision": precision})
    bounds, small = Bounds(4, 3072, provider), Machine(total=2 * GB, available=GB)
    assert (memory.model_bytes(made, bounds) > 0) == counts
    assert (memory.check_memory(made, bounds, small) is not None) == counts


def test_what_fits_is_not_worth_a_word() -> None:
    assert memory.check_memory(manifest(GB), Bounds(2), Machine(total=16 * GB, available=5 * GB)) is None


def test_what_may_not_fit_is_told_with_figures() -> None:
    warning = memory.check_memory(manifest(GB), Bounds(4), Machine(total=16 * GB, available=5 * GB))
    assert warning is not None
    for said in (
        "8.5GB",
        "1.0GB of files, and ",
        "7.5GB of KV caches",
        "KW_MAX_ROWS=4",
        "1.9GB",
        "5.0GB",
        "lower KW_MAX_ROWS or KW_MAX_FRAMES",
    ):
        assert said in warning


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(MemoryShortage, match=r"1\.9GB for the KV cache of one row.*has 1\.0GB"):
        memory.check_memory(manifest(GB), Bounds(1), Machine(total=GB, available=GB))


def test_a_container_has_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    free = memory.machine()
    assert 0 < free.available <= free.total
    monkeypatch.setattr(memory, "memory_limit", lambda: 1_000_000)
    assert memory.machine() == Machine(1_000_000, 1_000_000)
    monkeypatch.setattr(memory, "memory_limit", lambda: 2**63 - 4096)  # what version 1 says where there is no limit
    assert memory.machine().total == free.total
    monkeypatch.setattr(memory, "memory_limit", lambda: None)
    assert memory.machine().total == free.total


def test_the_command_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "models", "custom")
    monkeypatch.setenv("KW_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(memory, "machine", lambda: Machine(1000, 1000))
    assert command.main(["serve"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if " INFO " not in line)
    assert line.startswith("qwen3-tts: custom needs 393.2KB for the KV cache of one row")
