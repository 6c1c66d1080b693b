"""What was measured, as a Markdown table and a verdict."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median

import onnxruntime

from server.bench.measure import Measured, Rss
from server.manifest import Precision

CPU_INFO = Path("/proc/cpuinfo")
"""Names the processor; only Linux has this file."""

_FASTER: dict[Precision, str] = {
    "fp32": "an int8, mixed or int4 bundle may help",
    "int8": "a mixed or int4 bundle may help",
    "w8a8": "a mixed or int4 bundle may help",
    "mixed": "an int4 bundle may help",
    "int4": "a smaller model or a faster machine may help",
    "bf16": "a smaller model or a faster machine may help",
    "int4_bf16": "a smaller model or a faster machine may help",
    "fp16": "without a GPU an int8, mixed or int4 bundle may help",
}


def verdict(rtf: float, precision: Precision) -> str:
    """Say whether speech is made as fast as it is heard.

    Args:
        rtf: wall seconds / audio seconds.
        precision: the bundle's; it decides what else there is to try.
    """
    if rtf <= 1:
        return f"Real time on this machine: yes, {1 / rtf:.1f} times faster."
    return f"Real time on this machine: no, {rtf:.1f} times too slow; {_FASTER[precision]}."


def report(measured: Measured) -> str:
    """Write title, table and verdict."""
    manifest, requests = measured.manifest, len(measured.runs)
    title = (
        f"{manifest.id}, {manifest.precision}, {measured.provider}, {measured.threads} threads, "
        f"{requests} requests of {measured.tokens} tokens and {round(measured.frames / requests)} frames, warm; "
        f"{machine()}, ONNX Runtime {onnxruntime.__version__}"
    )
    known, new = (1e3 * median(run.first_audio for run in runs) for runs in (measured.runs, measured.new_voice))
    rows = {
        "RTF (wall / audio, below 1 is faster than real time)": f"{measured.rtf:.2f}",
        "TTFA (request to first audio), voice used before / not yet": f"{known:.0f} / {new:.0f} ms",
        "opening the bundle": f"{measured.opening:.1f} s",
        "RSS of the engine without a server, opened / after a request": _memory(measured.opened, measured.spoken),
    }
    table = ["| what | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([title, "", *table, "", verdict(measured.rtf, manifest.precision)])


def _memory(opened: Rss | None, spoken: Rss | None) -> str:
    if opened is None or spoken is None:
        return "not known on this system"
    return f"{opened.now / 1e9:.2f} / {spoken.now / 1e9:.2f} GB, at most {spoken.peak / 1e9:.2f}"


def machine() -> str:
    """Name the number of cores and the processor."""
    lines = CPU_INFO.read_text("utf-8").splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]  # arm64 has no such line
    return f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"
