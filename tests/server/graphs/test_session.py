"""Which execution provider computes a bundle, and what is said when CUDA cannot; ONNX Runtime's answers are rigged."""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from server.cli.startup import engine_loader
from server.config import Settings
from server.engine.provider import open_bundle
from server.graphs import session
from server.graphs.memory import HostMemory
from server.graphs.session import (
    CUDA_PROVIDER,
    CudaError,
    PassingError,
    ProviderError,
    ShortageError,
    choose_provider,
    open_session,
)
from server.manifest import BundleError, Manifest, read_manifest
from server.metrics import NoEvents
from tests.bundles import RANDOM_BUNDLE, TINY_BUNDLE

GRAPH = RANDOM_BUNDLE / "talker.onnx"
FAULTS = {
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version": "driver is missing or too old",
    "CUDA failure 100: no CUDA-capable device is detected": "driver is missing or too old",
    "Failed to allocate memory for requested buffer of size 939524096": "too little free memory",
    "CUDA error cudaErrorNoKernelImageForDevice: no kernel image is available for execution": "card is not supported",
    "libcudnn.so.9: cannot open shared object file: No such file or directory": "library does not load",
    "something else\nover two lines": "something else over two lines",
}

cpu_build = pytest.mark.skipif(session.has_cuda(), reason="this ONNX Runtime has CUDA: the CPU build is meant")


@pytest.fixture
def built_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX Runtime that says it has the CUDA execution provider."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])


@pytest.fixture
def starting(built_with_cuda: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes sessions on CUDA answer: an exception is raised, None falls back to the CPU without a word."""
    real = ort.InferenceSession

    def rig(error: Exception | None) -> None:
        def start(path: str, sess_options: Any, providers: list[Any]) -> Any:
            if providers != ["CPUExecutionProvider"] and error is not None:
                raise error
            return real(path, sess_options=sess_options, providers=["CPUExecutionProvider"])

        monkeypatch.setattr(ort, "InferenceSession", start)
        monkeypatch.setattr(ort, "preload_dlls", lambda: None)

    return rig


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The committed bundle, said to be of another precision."""

    def say(precision: str) -> Path:
        def said(folder: Path) -> Manifest:
            return read_manifest(folder).model_copy(update={"precision": precision})

        monkeypatch.setattr("server.engine.provider.read_manifest", said)
        return RANDOM_BUNDLE

    return say


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int4_bf16"])
def test_auto_takes_cuda_for_bundles_that_suit_it(built_with_cuda: None, precision: str) -> None:
    assert choose_provider("auto", precision) == "cuda"
    assert choose_provider("cuda", precision) == "cuda"
    assert choose_provider("cpu", precision) == "cpu"


@pytest.mark.parametrize("precision", ["fp32", "int8", "w8a8", "mixed", "int4"])
def test_other_bundles_are_the_cpus(built_with_cuda: None, precision: str) -> None:
    assert choose_provider("auto", precision) == "cpu"
    with pytest.raises(ProviderError, match=f"this bundle is {precision}.*--precision bf16, fp16 or int4_bf16"):
        choose_provider("cuda", precision)


@cpu_build
def test_without_cuda_in_onnx_runtime() -> None:
    assert choose_provider("auto", "fp16") == "cpu"
    with pytest.raises(ProviderError, match="no CUDA execution provider; install the extra `cuda`"):
        choose_provider("cuda", "bf16")


@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_a_session_that_does_not_start_says_why(starting: Callable[..., None], fault: str, said: str) -> None:
    starting(RuntimeError(fault))
    with pytest.raises(CudaError, match=said):
        open_session(GRAPH, "cuda", 1)


def test_a_session_that_quietly_goes_on_with_the_cpu_is_refused(starting: Callable[..., None]) -> None:
    starting(None)
    with pytest.raises(CudaError, match="driver, or a library of CUDA 13 or cuDNN 9"):
        open_session(GRAPH, "cuda", 1)


@pytest.mark.parametrize(("fault", "said"), FAULTS.items())
def test_auto_falls_back_with_one_line(
    starting: Callable[..., None],
    narrow: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
    fault: str,
    said: str,
) -> None:
    starting(RuntimeError(fault))
    with caplog.at_level(logging.INFO):
        opened = open_bundle(narrow("fp16"), provider="auto", threads=1, slots=1)
    assert opened.provider == "cpu"
    (line,) = caplog.messages
    assert said in line
    assert "\n" not in line
    with pytest.raises(ProviderError, match=f"KW_EXECUTION_PROVIDER=cuda, but .*{said}") as raised:
        open_bundle(RANDOM_BUNDLE, provider="cuda", threads=1, slots=1)
    assert "\n" not in str(raised.value)


PASSING = {
    "Failed to allocate memory for requested buffer of size 939524096": ShortageError,
    "CUDA failure 2: out of memory ; GPU=0": ShortageError,
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED": ShortageError,
    "std::bad_alloc": ShortageError,
    "CUDA failure 46: all CUDA-capable devices are busy or unavailable": PassingError,
}
LASTING = (
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
    "no kernel image is available for execution on the device",
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for GroupQueryAttention(1)",
)


@pytest.mark.parametrize(("fault", "kind"), PASSING.items())
def test_what_may_pass_is_told_from_what_stays(
    starting: Callable[..., None], narrow: Callable[[str], Path], fault: str, kind: type[Exception]
) -> None:
    """As a server's loader gives it on: only a `BundleError` is for good."""
    starting(RuntimeError(fault))
    folder = narrow("bf16")
    for provider in ("cuda", "auto"):
        load = engine_loader(Settings(execution_provider=provider, models_dir=folder.parent))
        with pytest.raises(kind) as raised:
            load(folder, NoEvents())
        assert isinstance(raised.value, MemoryError) == (kind is ShortageError)


@pytest.mark.parametrize("fault", LASTING)
def test_what_stays_is_the_bundles_fault(
    starting: Callable[..., None], narrow: Callable[[str], Path], fault: str
) -> None:
    starting(RuntimeError(fault))
    folder = narrow("bf16")
    for provider in ("cuda", "auto"):
        with pytest.raises(BundleError):
            engine_loader(Settings(execution_provider=provider, models_dir=folder.parent))(folder, NoEvents())


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_too_little_memory_of_the_host_may_pass_too(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: Any, **named: Any) -> None:
        raise fault

    monkeypatch.setattr(ort, "InferenceSession", start)
    with pytest.raises(ShortageError, match=r"too little free memory to load talker\.onnx"):
        open_session(GRAPH, "cpu", 1)


def test_what_shows_only_when_kernels_run_counts_too(
    built_with_cuda: None, narrow: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A card that is too old, say: sessions open, and the first kernel fails."""
    real = open_session
    monkeypatch.setattr("server.engine.bundle.open_session", lambda path, device, threads: real(path, "cpu", threads))
    monkeypatch.setattr("server.engine.bundle.DeviceMemory", lambda session, device: HostMemory())
    monkeypatch.setattr("server.engine.bundle.CodePredictor", _NoKernels)
    with caplog.at_level(logging.INFO), pytest.raises(ProviderError, match="this card is not supported"):
        open_bundle(narrow("fp16"), provider="cuda", threads=1, slots=1)
    assert open_bundle(RANDOM_BUNDLE, provider="auto", threads=1, slots=1).provider == "cpu"
    (line,) = caplog.messages
    assert "this card is not supported" in line


def test_bf16_needs_cuda(starting: Callable[..., None], narrow: Callable[[str], Path]) -> None:
    starting(RuntimeError("CUDA failure 100: no CUDA-capable device is detected"))
    folder = narrow("bf16")
    with pytest.raises(BundleError, match=r"is bf16, which ONNX Runtime's CPU kernels lack, and .*driver.*int8"):
        open_bundle(folder, provider="auto", threads=1, slots=1)
    with pytest.raises(
        BundleError, match="is bf16, which ONNX Runtime's CPU kernels lack, and KW_EXECUTION_PROVIDER is cpu"
    ):
        open_bundle(folder, provider="cpu", threads=1, slots=1)


def test_a_damaged_graph_is_the_bundles_fault(tmp_path: Path) -> None:
    (tmp_path / "talker.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"cannot load talker\.onnx"):
        open_session(tmp_path / "talker.onnx", "cpu", 1)


class _NoKernels:
    def __init__(self, *arguments: Any) -> None:
        pass

    def run(self, *feed: np.ndarray) -> None:
        raise RuntimeError("no kernel image is available for execution on the device")


@pytest.fixture(params=["hard", "symbolic"])
def linked(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The embedded model's code predictor, its weights a link to those of another folder, as uv installs packages."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "linked").mkdir()
    for name in ("code_predictor.onnx", "code_predictor.onnx_data"):
        kept, link = tmp_path / "cache" / name, tmp_path / "linked" / name
        shutil.copyfile(TINY_BUNDLE / name, kept)
        link.hardlink_to(kept) if request.param == "hard" else link.symlink_to(kept)
    return tmp_path / "linked" / "code_predictor.onnx"


def test_weights_that_are_links_are_copied_where_onnx_refuses_them(
    linked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    names = {value.name for value in open_session(linked, "cpu", 1).get_inputs()}
    assert names == {value.name for value in open_session(TINY_BUNDLE / linked.name, "cpu", 1).get_inputs()}
    assert not list(temporary.iterdir())


def test_links_that_cannot_be_copied_are_told_of_without_their_places(
    linked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(BundleError, match=r"are links and cannot be copied: No space left on device; set") as caught:
        open_session(linked, "cpu", 1)
    assert str(linked.parent) not in str(caught.value)


def test_a_graph_that_is_missing_is_not_taken_for_one_with_links(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load talker\.onnx"):
        open_session(tmp_path / "talker.onnx", "cpu", 1)
