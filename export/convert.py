"""`qwen3-tts convert`, also `python export/convert.py`: a Qwen3-TTS checkpoint becomes an ONNX bundle."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, get_args

if __name__ == "__main__" and not __package__:
    # As a script, Python puts export/ first on the path, where its modules would pass for others of the same name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from server.manifest import DEFAULT_PRECISION, Precision
from server.models.names import bundle_id

if TYPE_CHECKING:
    from export.stages import Conversion

DEFAULT_MODEL = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"
_QUANTISED = ("int8", "w8a8", "mixed", "int4")
"""Precisions with quantised weights for the CPU, whose codes are not exact in any case."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked the conversion to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of the command; argparse exits with 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog="qwen3-tts convert",
        description="Convert a Qwen3-TTS checkpoint (CustomVoice, VoiceDesign or Base) to an ONNX bundle.",
        epilog="HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are respected.",
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="Hub id or folder of a checkpoint (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"folder to write (default: models/<model id>, then _<precision> unless that is {DEFAULT_PRECISION})",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=DEFAULT_PRECISION,
        help="of the weights; w8a8 is for many callers, mixed has MLPs in 4 bits and attention in 8, bf16, fp16 and "
        "int4_bf16 are for CUDA (default: %(default)s)",
    )
    parser.add_argument(
        "--kv-cache",
        choices=("auto", "float32", "int8"),
        default="auto",
        help="of the talker, for int8, w8a8, mixed and int4; int8 is faster at length and takes a quarter of the "
        "memory, and auto takes it where it changes few codes (default: %(default)s)",
    )
    parser.add_argument("--revision", help="branch, tag or commit on the Hub (default: the main branch)")
    parser.add_argument(
        "--noise", action="store_true", help="the weights are random: the server says so and judges no speech by them"
    )
    parser.add_argument(
        "--description", metavar="TEXT", help="what the server says of the model (default: made of the checkpoint)"
    )
    parser.add_argument(
        "--alphabet",
        type=Path,
        metavar="FILE",
        help="text file of the only characters that the model was trained on, on one line; the server writes every "
        "text with these (default: the model reads whatever people write)",
    )
    parser.add_argument(
        "--whole-text",
        action="store_true",
        help="the model was trained on no text that comes while it speaks; the server refuses to give it one",
    )
    parser.add_argument(
        "--no-validate",
        dest="validate",
        action="store_false",
        help="do not stop at a graph that computes something else than PyTorch; the report measures it all the same",
    )
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="BUNDLE",
        help="convert nothing: compare a bundle with its checkpoint",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle once the new one is whole")
    options = parser.parse_args(arguments)
    if options.kv_cache == "int8" and options.precision not in _QUANTISED:
        parser.error(f"--kv-cache int8 goes with --precision {', '.join(_QUANTISED)}, not with {options.precision}")
    return options


def convert(options: argparse.Namespace) -> None:
    """Run every stage and print the report.

    Raises:
        CheckpointError: the checkpoint cannot be had or converted.
        OutputError: the bundle cannot be written where it should go.
        OSError, ValueError: the file of `--alphabet` cannot be read.
    """
    with _loading():
        from export.checkpoint import open_checkpoint
        from export.output import bytes_needed, check_output, check_space, staged

    alphabet = _alphabet(options.alphabet)
    folder = Path(options.model).expanduser()
    name = bundle_id(folder.resolve().name if folder.is_dir() else options.model, options.precision)
    output = (options.output or Path("models", name)).expanduser().absolute()
    check_output(output, force=options.force)
    with _signals(_leave):
        checkpoint = open_checkpoint(options.model, revision=options.revision)
    check_space(output, bytes_needed(checkpoint))

    # Slow to import, and not needed to refuse a checkpoint.
    with _loading():
        from torch.jit._trace import TracerWarning

        from export.stages import STAGES, Conversion

    # The tracer warns of every length it meets; each graph is validated at other lengths than it was traced with.
    warnings.filterwarnings("ignore", category=TracerWarning)
    with _signals(_stop), staged(output) as unfinished:
        context = Conversion(
            checkpoint=checkpoint,
            output=unfinished,
            bundle_id=output.name,
            noise=options.noise,
            precision=options.precision,
            description=options.description,
            alphabet=alphabet,
            whole_text=options.whole_text,
            validate=options.validate,
            kv_cache=options.kv_cache,
        )
        for number, stage in enumerate(STAGES, 1):
            _with_progress(context, f"{number}/{len(STAGES)} {stage.name}", stage.run)
    _report(context, output)
    if options.precision in ("int4", "int4_bf16"):
        context.notes.append(
            "int4 is known to hurt the code predictor's codes; --precision mixed keeps its attention in 8 bits, bf16 "
            "all of it in bf16"
        )
    for note in context.notes:
        print(f"note: {note}")


def _alphabet(file: Path | None) -> str | None:
    """The characters of `--alphabet`, each once.

    Raises:
        OSError, ValueError: the file cannot be read, or is not UTF-8, or is empty.
    """
    if file is None:
        return None
    characters = "".join(sorted(set(file.expanduser().read_text("utf-8-sig")) - set("\r\n")))
    if not characters:
        raise ValueError(f"{file} is empty; write the characters that the model was trained on into it")
    return characters


def verify(options: argparse.Namespace) -> None:
    """Check the bundle's files and measure its parity with the checkpoint again, writing nothing.

    Raises:
        BundleError: the bundle is damaged or of another format.
        CheckpointError: the checkpoint cannot be had, or is not the one that the bundle was made of.
    """
    with _loading():
        from export.checkpoint import open_checkpoint
        from export.stages import Conversion, check_bundle
    from server.graphs.checking import verify_files
    from server.manifest import read_manifest

    folder = options.verify.expanduser().absolute()
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    context = Conversion(
        checkpoint=open_checkpoint(options.model, revision=options.revision),
        output=folder,
        bundle_id=manifest.id,
        precision=manifest.precision,
    )
    _with_progress(context, "parity", lambda context: check_bundle(context, manifest))
    _report_parity(context)


def _with_progress(context: Conversion, title: str, run: Callable[[Conversion], None]) -> None:
    from tqdm import tqdm

    started = time.monotonic()
    layout = "{desc:<20} {percentage:3.0f}% |{bar:30}| {elapsed}"
    with tqdm(desc=title, total=1, bar_format=layout, disable=None, leave=False) as bar:

        def tick(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.update(0)

        context.tick = tick
        try:
            run(context)
        except Exception:
            bar.close()
            print(f"{title:<20} failed", flush=True)
            raise
    print(f"{title:<20} {time.monotonic() - started:7.1f} s", flush=True)


def _report(context: Conversion, output: Path) -> None:
    _report_parity(context)
    sizes = {path.name: path.stat().st_size for path in sorted(output.iterdir()) if path.is_file()}
    for name, size in (*sizes.items(), ("total", sum(sizes.values()))):
        print(f"{name:<28} {size / 1e6:>10.2f} MB")
    print(f"\n{context.bundle_id}: {output}")


def _report_parity(context: Conversion) -> None:
    parity = context.parity
    print(f"\n{'against PyTorch':<20} {'of':<8} {'max error':>10} {'mean error':>11} {'max / largest':>14}")
    for name, errors in parity["graphs"].items():
        numbers = f"{errors['max_error']:>10.2e} {errors['mean_error']:>11.2e} {errors['relative_error']:>14.2e}"
        print(f"{name:<20} {errors['of']:<8} {numbers}")
    for name, codes in parity["codes"].items():
        print(f"greedy codes equal, {name}: {codes['equal']} of {codes['compared']} over {parity['frames']} frames")
    if recording := parity.get("recording"):
        print(f"codes of a recording equal: {recording['equal']} of {recording['compared']}")
    if cache := parity.get("kv_cache"):
        print(
            f"KV cache: {cache['type']}; in int8 {cache['equal_in_int8']} of {cache['compared']} greedy codes of "
            "codebook 0 equal those of float32"
        )
    if "arithmetic" in parity:
        print(f"measured in {parity['arithmetic']}")
    print()
    every = [*parity["codes"].values(), *([recording] if recording else [])]
    if context.precision == "fp32" and any(codes["equal"] < codes["compared"] for codes in every):
        print("warning: this fp32 bundle does not give PyTorch's codes everywhere; please report it\n")


@contextmanager
def _loading() -> Iterator[None]:
    """Let no garbage be looked for while modules are loaded, nor among them later: torch and what it brings along are
    many objects and none garbage, and every export of a graph collects.
    """
    loaded, was_on = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > loaded:
            gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _leave(number: int, frame: FrameType | None) -> None:
    """Before anything is written: end at once, since the Hub's download threads would otherwise be waited for."""
    os.write(2, b"stopped; nothing was written\n")
    os._exit(128 + number)


def _stop(number: int, frame: FrameType | None) -> None:
    for other in _SIGNALS:  # nothing may break into the cleaning up
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert, and return the exit status: 0 done, 1 could not, 2 wrong usage, 128 + number for a signal."""
    options = parse_arguments(arguments)
    try:
        verify(options) if options.verify else convert(options)
    except ModuleNotFoundError as error:
        print(
            f"error: {error.name} is not installed; run `make export-tools`, or without a checkout "
            "pip install 'qwen3-tts-edge[cpu,export]'",
            file=sys.stderr,
        )
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    except KeyboardInterrupt:  # while modules are imported, before the conversion listens for signals
        _leave(signal.SIGINT, None)
    except Stopped as stopped:
        print(f"stopped by {stopped}; nothing was written", file=sys.stderr)
        return 128 + stopped.number
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
