"""Opens ONNX Runtime sessions: the one place that knows providers and session options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from server.graphs.manifest import BundleError

Provider = Literal["auto", "cpu", "cuda"]


class ProviderError(RuntimeError):
    """An execution provider that was asked for and cannot run here."""


def choose_provider(wanted: Provider) -> Literal["cpu", "cuda"]:
    """Resolve `auto`, and check that what is asked for by name is there.

    `auto` takes the CPU: the talker's caches live in host memory as yet, which CUDA kernels would copy at every frame.

    Raises:
        ProviderError: `cuda` is wanted and this ONNX Runtime has no CUDA execution provider.
    """
    cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if wanted == "cuda" and not cuda:
        raise ProviderError(
            "KW_EXECUTION_PROVIDER=cuda, but the installed ONNX Runtime has no CUDA execution provider; "
            "install the extra `cuda` instead of `cpu`, or set KW_EXECUTION_PROVIDER=cpu"
        )
    return "cuda" if wanted == "cuda" else "cpu"


def open_session(path: Path, provider: Literal["cpu", "cuda"], threads: int) -> ort.InferenceSession:
    """Open one graph.

    Args:
        path: the `.onnx` file; its weights lie beside it.
        provider: execution provider of every node that has a kernel there.
        threads: of the CPU kernels; 0 leaves the number to ONNX Runtime.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
        ProviderError: the provider does not start on this machine.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Each session has its own threads, which go on spinning for a while after a call and take the cores from the next
    # graph's: without this a frame takes up to three times as long.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    names: Sequence[str] = ["CPUExecutionProvider"]
    if provider == "cuda":
        ort.preload_dlls()  # finds the CUDA and cuDNN libraries of the extra `cuda`
        names = ["CUDAExecutionProvider", *names]
    try:
        session = ort.InferenceSession(str(path), sess_options=options, providers=names)
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise BundleError(f"{path.parent.name}: ONNX Runtime cannot load {path.name}; convert again") from error
    if session.get_providers()[0] != names[0]:  # it goes on with the CPU when a CUDA library does not load
        raise ProviderError(
            "KW_EXECUTION_PROVIDER=cuda, but CUDA does not load here (driver, CUDA 13 or cuDNN 9 missing); "
            "mend that or set KW_EXECUTION_PROVIDER=cpu"
        )
    return session
