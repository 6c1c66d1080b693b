"""Opens ONNX Runtime sessions: the one place that knows providers and session options."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import onnxruntime as ort

from server.graphs.cores import thread_count
from server.graphs.cuda.capture import GATE
from server.graphs.external_data import external_data
from server.manifest import BundleError, Precision

Session = ort.InferenceSession
Provider = Literal["auto", "cpu", "cuda"]
Chosen = Literal["cpu", "cuda"]

CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_OPTIONS = {
    "talker": {"enable_cuda_graph": "1", "use_tf32": "0"},
    "code_predictor": {"enable_cuda_graph": "1", "use_tf32": "0"},
    "codec_decoder": {"enable_cuda_graph": "1", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "1"},
}
"""Options of the CUDA execution provider by graph
(https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options)."""
CUDA_ENTRIES: dict[str, str] = {}
"""Session options for graphs on a GPU: none so far; `benchmarks.gpu --entry` tries some."""
CUDA_PRECISIONS: frozenset[Precision] = frozenset({"bf16", "fp16", "int4_bf16"})
"""Bundles of these suit the CUDA execution provider, whose attention kernel takes caches of these types alone."""
CPU_LACKS: frozenset[Precision] = frozenset({"bf16", "int4_bf16"})
"""ONNX Runtime's CPU kernels cannot multiply weights of these."""


class ProviderError(RuntimeError):
    """An execution provider that was asked for and cannot run here."""


class PassingError(ProviderError):
    """What may be gone at the next try: nothing shows that the bundle or the machine is not made for it."""


class ShortageError(PassingError, MemoryError):
    """There is too little free memory now, on the GPU or on the host."""


class Cause(NamedTuple):
    """Why CUDA or ONNX Runtime failed: in a few words, and as the kind of error that says whether it may pass."""

    meaning: str
    kind: type[ProviderError]


QUIET_CAUSE = Cause("the driver, or a library of CUDA 13 or cuDNN 9, is missing or does not load", ProviderError)
"""ONNX Runtime then goes on with the CPU and says why in its own log alone."""
NO_MEMORY = ("out of memory", "failed to allocate", "cannot allocate memory", "alloc_failed", "bad_alloc")
"""What messages of CUDA, ONNX Runtime and the C++ library hold, in lower case, where memory lacks."""
CAUSES = (
    (NO_MEMORY, Cause("the GPU has too little free memory", ShortageError)),
    (("no kernel image", "compute capability", "sm_"), Cause("this card is not supported", ProviderError)),
    (
        ("driver version", "no cuda-capable device", "failure 35", "failure 100"),
        Cause("the NVIDIA driver is missing or too old", ProviderError),
    ),
    (
        ("cannot open shared object", "libcu", ".dll"),
        Cause("a CUDA 13 or cuDNN 9 library does not load", ProviderError),
    ),
)
"""What CUDA's and ONNX Runtime's messages hold, in lower case, and what it means."""
STRUCTURAL = ("not_implemented", "invalid_graph", "invalid_protobuf")
"""ONNX Runtime's codes for graphs that it cannot run, however often it tries."""


class CudaError(ProviderError):
    """CUDA does not start or does not compute here; the message is the cause, without what to do about it."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.meaning)
        self.cause = cause


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime was built with the CUDA execution provider; that it starts is not said."""
    return CUDA_PROVIDER in ort.get_available_providers()


def check_provider(wanted: Provider) -> None:
    """Refuse at once what no bundle could run on.

    Raises:
        ProviderError: `cuda` is wanted and this ONNX Runtime has no CUDA execution provider.
    """
    if wanted == "cuda" and not has_cuda():
        raise ProviderError(
            "KW_EXECUTION_PROVIDER=cuda, but the installed ONNX Runtime has no CUDA execution provider; "
            "install the extra `cuda` instead of `cpu`, or set KW_EXECUTION_PROVIDER=cpu"
        )


def choose_provider(wanted: Provider, precision: Precision) -> Chosen:
    """What to try first for a bundle: `auto` is CUDA where ONNX Runtime has it and the bundle suits it.

    Raises:
        ProviderError: `cuda` is wanted, and there is none or the bundle does not suit it.
    """
    check_provider(wanted)
    suits = precision in CUDA_PRECISIONS
    if wanted == "cuda" and not suits:
        raise ProviderError(
            f"KW_EXECUTION_PROVIDER=cuda, but this bundle is {precision}, which CUDA would compute in part only; "
            "convert with --precision bf16, fp16 or int4_bf16, or set KW_EXECUTION_PROVIDER=cpu"
        )
    return "cuda" if wanted != "cpu" and suits and has_cuda() else "cpu"


def cause_of(error: BaseException) -> Cause:
    """What an error of CUDA or ONNX Runtime means. One that is not known may pass."""
    if isinstance(error, CudaError):
        return error.cause
    text = str(error).lower()
    for signs, cause in CAUSES:
        if any(sign in text for sign in signs):
            return cause
    meaning = " ".join(str(error).split())[:200] or type(error).__name__
    return Cause(meaning, ProviderError if any(sign in text for sign in STRUCTURAL) else PassingError)


def open_session(path: Path, provider: Chosen, threads: int, profile: Path | None = None) -> ort.InferenceSession:
    """Open one graph.

    Args:
        path: the `.onnx` file; its weights lie beside it.
        provider: execution provider of every node that has a kernel there.
        threads: of the CPU kernels; 0 is one for each core that this process may use, and no more than it has
            processors are started.
        profile: how the name begins of the file to which ONNX Runtime writes what each node took, for benchmarks; the
            session's `end_profiling` tells its whole name. None writes none.

    Raises:
        BundleError: ONNX Runtime cannot load the file.
        CudaError: CUDA does not start on this machine.
        ShortageError: the host has too little free memory.
    """
    options = ort.SessionOptions()
    # Never 0: ONNX Runtime would count the machine's cores and pin threads to them, outside an affinity mask too.
    options.intra_op_num_threads = thread_count(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    # Each session has its own threads, which go on spinning for a while after a call and take the cores from the next
    # graph's: without this a frame takes up to three times as long.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider == "cuda":
        return _open_on_cuda(path, options)
    # A plan of the tensors' places is made for every shape of the inputs, and the memory of each is one piece: no run
    # is faster for it, and what the pieces of other shapes take is not used again.
    options.enable_mem_pattern = False
    try:
        return _open_on_cpu(path, options)
    except OSError as error:
        reason = error.strerror or type(error).__name__  # the whole text has paths, which strangers may not read
        raise BundleError(
            f"{path.parent.name}: {path.name} has weights that are links and cannot be copied: {reason}; "
            "set TMPDIR to a folder with room for them, or copy the bundle without links"
        ) from error
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in NO_MEMORY):
            raise ShortageError(f"{path.parent.name}: there is too little free memory to load {path.name}") from error
        raise BundleError(f"{path.parent.name}: ONNX Runtime cannot load {path.name}; convert again") from error


def _open_on_cpu(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a graph, or a copy of it where ONNX Runtime refuses weights that are links.

    It refuses those of a loop's body in symbolic links and in files with several names. uv installs a wheel's files
    so: each is a hard link to the one in its cache.

    Raises:
        OSError: there is no room for the copy, which is removed as soon as the session has it.
    """
    try:
        return ort.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    except Exception:
        weights = [path.parent / name for name in external_data(path)] if path.is_file() else []
        if not any(each.is_symlink() or (each.exists() and each.stat().st_nlink > 1) for each in weights):
            raise
    with TemporaryDirectory(prefix="qwen3-tts-", ignore_cleanup_errors=True) as folder:
        for each in (path, *weights):
            shutil.copyfile(each, Path(folder, each.name))
        copy = str(Path(folder, path.name))
        return ort.InferenceSession(copy, sess_options=options, providers=["CPUExecutionProvider"])


def _open_on_cuda(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        ort.preload_dlls()  # finds the CUDA and cuDNN libraries of the extra `cuda`
        # cuDNN's attention is planned anew for each length of a prompt, for a tenth of a second and more.
        os.environ.setdefault("ORT_ENABLE_CUDNN_FLASH_ATTENTION", "0")
        for name, value in CUDA_ENTRIES.items():
            options.add_session_config_entry(name, value)
        providers = [(CUDA_PROVIDER, CUDA_OPTIONS.get(path.stem, {})), "CPUExecutionProvider"]
        with GATE.shared():
            session = ort.InferenceSession(str(path), sess_options=options, providers=providers)
    except Exception as error:  # as above; whether the file or CUDA is at fault, the CPU will show
        raise CudaError(cause_of(error)) from error
    if session.get_providers()[0] != CUDA_PROVIDER:
        raise CudaError(QUIET_CAUSE)
    return session
