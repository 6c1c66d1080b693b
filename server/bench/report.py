"""What was measured, as a Markdown table and a verdict. Pure."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import onnxruntime

from server.bench.measure import Measured
from server.engine.synthesizer import CHUNK_RAMP
from server.manifest import Precision

CPU_INFO = Path("/proc/cpuinfo")
"""Linux alone has it."""

_FASTER: dict[Precision, str] = {
    "fp32": "an int8, mixed or int4 bundle may help",
    "int8": "a mixed or int4 bundle may help",
    "mixed": "an int4 bundle may help",
    "int4": "a smaller model or a faster machine may help",
    "bf16": "a smaller model or a faster machine may help",
    "int4_bf16": "a smaller model or a faster machine may help",
    "fp16": "without a GPU an int8, mixed or int4 bundle may help",
}


def verdict(rtf: float, precision: Precision) -> str:
    """Whether speech is made as fast as it is heard.

    Args:
        rtf: wall seconds / audio seconds.
        precision: of the bundle; decides what else there is to try.
    """
    if rtf <= 1:
        return f"Real time on this machine: yes, {1 / rtf:.1f} times faster."
    return f"Real time on this machine: no, {rtf:.1f} times too slow; {_FASTER[precision]}."


def report(measured: Measured) -> str:
    """Title, table, verdict."""
    manifest = measured.manifest
    requests = len(measured.runs)
    title = (
        f"{manifest.id}, {manifest.precision}, {measured.provider}, {measured.threads} threads, "
        f"{requests} requests of {round(_frames(measured) / requests)} frames, warm; "
        f"{machine()}, ONNX Runtime {onnxruntime.__version__}"
    )
    rows = [*_stages(measured), *_request(measured), *_floor(measured), *_together(measured), *_opening(measured)]
    table = ["| stage | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([title, "", *table, "", verdict(real_time_factor(measured), manifest.precision)])


def real_time_factor(measured: Measured) -> float:
    """Wall seconds / audio seconds of the requests of one row."""
    codec = measured.manifest.sizes.codec
    audio = _frames(measured) * codec.samples_per_frame / codec.sample_rate
    return sum(run.wall for run in measured.runs) / audio


def _frames(measured: Measured) -> int:
    return sum(run.frames for run in measured.runs)


def _stages(measured: Measured) -> Iterator[tuple[str, str]]:
    made, seconds = _frames(measured), measured.seconds
    stages = {name: 1e3 * sum(seconds[name]) / made for name in ("talker", "code predictor", "codec decoder")}
    beside = ["codec decoder"] if measured.provider == "cuda" else []  # its time is the talker's too
    known_part = sum(milliseconds for name, milliseconds in stages.items() if name not in beside)
    rest = 1e3 * sum(run.wall - run.prefill for run in measured.runs) / made - known_part
    for name, milliseconds in stages.items():
        note = f" (chunks of {CHUNK_RAMP}{', beside the talker' if beside else ''})" if name == "codec decoder" else ""
        yield name, f"{milliseconds:.1f} ms a frame{note}"
    yield "everything else", f"{rest:.1f} ms a frame"
    known, new = (median(run.prefill for run in runs) for runs in (measured.runs, measured.strange))
    yield "prefill, voice used before / not yet", f"{1e3 * known:.0f} / {1e3 * new:.0f} ms"


def _request(measured: Measured) -> Iterator[tuple[str, str]]:
    steady = median(run.steady_seconds for run in measured.runs)
    known, new = (median(run.first_audio for run in runs) for runs in (measured.runs, measured.strange))
    yield "steady frame, all stages", f"{1e3 * steady:.1f} ms"
    yield "TTFA (request to first audio), the same", f"{1e3 * known:.0f} / {1e3 * new:.0f} ms"
    yield "TTFA in steady frames", f"{known / steady:.1f} / {new / steady:.1f}"
    yield "RTF (wall / audio, below 1 is faster than real time)", f"{real_time_factor(measured):.2f}"


def _floor(measured: Measured) -> Iterator[tuple[str, str]]:
    floor = measured.floor
    if floor is None:
        why = (
            "measured on the CPU only"
            if measured.provider != "cpu"
            else "unknown, this bundle does not say what a frame reads; convert the checkpoint again"
        )
        yield "floor: merely reading the weights of a frame", why
        return
    codes = [a + b for a, b in zip(measured.seconds["talker"], measured.seconds["code predictor"], strict=False)]
    yield "weights read a frame, talker + code predictor", f"{floor.bytes_read / 1e9:.2f} GB"
    yield "read bandwidth in this run", f"{floor.bytes_read / 1e9 / floor.seconds:.1f} GB/s"
    yield "floor: that many bytes at that bandwidth", f"{1e3 * floor.seconds:.1f} ms a frame"
    yield "talker + code predictor against the floor", f"{median(codes) / floor.seconds:.2f} x"
    decoder = measured.manifest.graphs["codec_decoder"].reads
    if decoder is not None:
        yield "weights read a chunk, codec decoder", f"{decoder.total / 1e9:.2f} GB"


def _together(measured: Measured) -> Iterator[tuple[str, str]]:
    if measured.together:
        alone = median(run.frames_per_second for run in measured.runs)
        yield "1 row", f"{alone:.1f} frames a second without the prefill"
    for rows, runs in measured.together.items():
        ratio = median(
            several.frames_per_second / one.frames_per_second for one, several in zip(measured.runs, runs, strict=True)
        )
        speed = median(run.frames_per_second for run in runs)
        yield f"{rows} rows together", f"{speed:.1f} frames a second, {ratio:.2f} times one row's"


def _opening(measured: Measured) -> Iterator[tuple[str, str]]:
    yield "opening the bundle", f"{measured.opening:.1f} s"
    if measured.memory is None:
        yield "RSS", "not known on this system"
        return
    memory = measured.memory
    shown = [memory.opened, memory.one_row, *([memory.all_rows] if measured.together else [])]
    when = f"opened / after a request{' / after all rows' if measured.together else ''}"
    yield f"RSS of the engine without a server, {when}", _gigabytes(one.now for one in shown)
    yield f"peak RSS until then, {when}", _gigabytes(one.peak for one in shown)


def _gigabytes(sizes: Iterable[int]) -> str:
    return f"{' / '.join(f'{size / 1e9:.2f}' for size in sizes)} GB"


def machine() -> str:
    """Cores and processor."""
    lines = CPU_INFO.read_text("utf-8").splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]  # arm64 has no such line
    return f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"
