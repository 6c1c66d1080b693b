"""The process of one engine of `benchmarks.peers`: `python benchmarks/peer_speakers.py '{"engine": ...}'`.

It runs in the environment of its engine, so that no function imports more than that has. A line of standard
output says that the engine is open, or what is missing; then each line of standard input asks for the text once, and a
line answers with seconds: `wall` until the last sample, `first_audio` until the first one, and `audio`, those of the
sound.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SAMPLE_RATE = 24_000

Speak = Callable[[int], tuple[float, int]]
"""Speaks with a seed; gives the clock's time of the first sound, and the number of samples."""


class Missing(Exception):
    """What an engine wants is not there."""


def ours(how: dict[str, Any]) -> Speak:
    """This project's engine, without a server."""
    from server.bench.speak import speak
    from server.engine.provider import open_bundle
    from server.engine.synthesizer import Synthesizer

    bundle = open_bundle(Path(how["bundle"]), provider="cpu", threads=how["threads"], slots=1)
    synthesizer, samples = Synthesizer(bundle), bundle.manifest.sizes.codec.samples_per_frame

    def run(seed: int) -> tuple[float, int]:
        start = time.perf_counter()
        done = speak(bundle, synthesizer, how["frames"], seed, text=how["text"])
        return start + done.first_audio, done.frames * samples

    return run


def official(how: dict[str, Any]) -> Speak:
    """The official package in float32, which gives all sound at once."""
    import torch

    from tests.oracle import Official

    torch.set_num_threads(how["threads"])
    loaded = Official(Path(how["checkpoint"]))
    speaker = next(iter(loaded.model.get_supported_speakers() or []), None)

    def run(seed: int) -> tuple[float, int]:
        torch.manual_seed(seed)
        sampling: dict[str, Any] = {"do_sample": True, "subtalker_dosample": True}
        codes = loaded.codes(how["text"], speaker=speaker, frames=how["frames"], single_thread=False, **sampling)
        samples = len(loaded.waveform(codes))
        return time.perf_counter(), samples

    return run


def vox_tts(how: dict[str, Any]) -> Speak:
    """The wheel `vox-tts`, whose own builder reads checkpoints of the official layout."""
    import vox

    checkpoint, precision = Path(how["checkpoint"]), how["precision"]
    weights = Path(sys.prefix, "weights", f"{checkpoint.name}-{precision}.tmod")
    if not weights.exists() or weights.stat().st_mtime < (checkpoint / "config.json").stat().st_mtime:
        weights.parent.mkdir(exist_ok=True)
        partial = weights.with_suffix(".partial")
        build = [sys.executable, "-P", "-m", "vox", "build", "--model", str(checkpoint), "--quant", precision]
        subprocess.run([*build, "-o", str(partial)], check=True, stdout=sys.stderr)
        partial.rename(weights)
    engine = vox.Engine(weights, device="cpu", threads=how["threads"])
    voice = engine.speaker_voice(next(iter(engine.speakers), None))

    def run(seed: int) -> tuple[float, int]:
        return heard(engine.stream(how["text"], voice, seed=seed, max_frames=how["frames"]))

    return run


def realtimetts(how: dict[str, Any]) -> Speak:
    """The wheel `realtimetts-qwen-native-cpu`; it has no converter, so that its weights have to be brought."""
    import qwentts_cpp_cpu

    talker, codec = weights_of(how, "talker.gguf", "codec.gguf")
    engine = qwentts_cpp_cpu.QwenTTS(talker, codec, cpu_threads=how["threads"])
    speaker = next(iter(engine.speaker_names()), None)

    def run(seed: int) -> tuple[float, int]:
        options = {"text": how["text"], "speaker": speaker, "seed": seed, "max_new_tokens": how["frames"]}
        return heard(chunk for chunk, _ in engine.stream(**options))

    return run


def qwen3_tts_mnn(how: dict[str, Any]) -> Speak:
    """The wheel `qwen3-tts-mnn`, for Base models and cloned voices; it does not stream, and has no converter either."""
    import qwen3_tts_mnn as package

    folder, _, voice, _ = weights_of(how, "model", "model/talker_step.mnn", "voice", "voice/meta.json")
    engine = package.Qwen3TtsMnn(str(folder), num_threads=how["threads"], language="english")
    engine.load_voice(str(voice))

    def run(seed: int) -> tuple[float, int]:
        samples = len(engine.synthesize(how["text"], how["frames"], seed=seed))
        return time.perf_counter(), samples

    return run


def heard(chunks: Iterable[Any]) -> tuple[float, int]:
    """Listen to a stream of arrays of samples; gives the clock's time of the first one, and how many samples came."""
    first, samples = 0.0, 0
    for chunk in chunks:
        first = first or time.perf_counter()
        samples += len(chunk)
    return first, samples


def weights_of(how: dict[str, Any], *names: str) -> list[Path]:
    """Files and folders that have to lie beside an engine's environment.

    Raises:
        Missing: one is not there.
    """
    found = [Path(sys.prefix, "weights", name) for name in names]
    if lacking := [str(path) for path in found if not path.exists()]:
        raise Missing(f"{', '.join(lacking)}: the wheel has nothing that makes it of {how['checkpoint']}")
    return found


ENGINES: dict[str, Callable[[dict[str, Any]], Speak]] = {
    "ours": ours,
    "official": official,
    "vox-tts": vox_tts,
    "realtimetts-qwen-native-cpu": realtimetts,
    "qwen3-tts-mnn": qwen3_tts_mnn,
}


def main() -> None:
    """Open the engine, then answer every line."""
    how = json.loads(sys.argv[1])
    # What engines print goes elsewhere: this process speaks by lines.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        speak = ENGINES[how["engine"]](how)
    except Exception as error:  # each engine has its own errors; the other side decides what one means
        print(json.dumps({"missing": f"{type(error).__name__}: {error}"}), file=answers)
        return
    print(json.dumps({"open": True}), file=answers)
    for line in sys.stdin:
        start = time.perf_counter()
        first, samples = speak(json.loads(line)["seed"])
        wall = time.perf_counter() - start
        print(json.dumps({"wall": wall, "first_audio": first - start, "audio": samples / SAMPLE_RATE}), file=answers)


if __name__ == "__main__":
    main()
