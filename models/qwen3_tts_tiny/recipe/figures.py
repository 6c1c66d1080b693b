"""`python figures.py WORK BUNDLE`: the README's pictures: losses, and spectrograms of teacher and model."""

from __future__ import annotations

import server  # noqa: F401  (before hibari loads ONNX Runtime: it switches its telemetry off)

# isort: split
import argparse
from pathlib import Path

import librosa
import matplotlib
import numpy as np
from hibari import Hibari
from numpy.typing import NDArray

from benchmarks.quality import say, speaking

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "What time does the library open on Saturday?",
    "She paid 12 dollars for two tickets, and went home.",
)
CURVES = {
    "trunk": ("mel L1", "its change"),
    "wave": ("magnitudes", "mel L1", "fooled", "features", "judges"),
    "talker": ("codebook 0", "other codebooks", "phonemes", "attention"),
}
"""Columns of the three logs, after step and seconds."""


def losses(work: Path, picture: Path) -> None:
    curves = {name: columns for name, columns in CURVES.items() if (work / f"{name}.csv").exists()}
    figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 4), squeeze=False)
    for axis, (name, columns) in zip(axes[0], curves.items(), strict=True):
        rows = [line.split(",") for line in (work / f"{name}.csv").read_text("utf-8").splitlines()]
        for number, column in enumerate(columns, 2):
            values = [float(row[number]) for row in rows]
            if any(values):
                axis.plot([int(row[0]) for row in rows], [value or np.nan for value in values], label=column)
        if name == "talker":
            tested = [row for row in rows if len(row) > 6]
            axis.plot(
                [int(row[0]) for row in tested], [float(row[6]) for row in tested], "k.", label="codebook 0, held out"
            )
        axis.set(title=name, xlabel="step", yscale="log")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


def _draw(axis: plt.Axes, audio: NDArray[np.float32], title: str) -> None:
    mel = librosa.power_to_db(
        librosa.feature.melspectrogram(y=audio, sr=24_000, n_fft=1024, hop_length=240, n_mels=100)
    )
    axis.imshow(mel, origin="lower", aspect="auto", vmin=-60, vmax=20, extent=(0, len(audio) / 24_000, 0, 100))
    axis.set(title=title, xlabel="seconds", ylabel="mel band")


def spectrograms(bundle: Path) -> None:
    teacher = Hibari()
    figure, axes = plt.subplots(len(SENTENCES), 2, figsize=(13, 3 * len(SENTENCES)))
    with speaking(bundle, 1) as client:
        for row, text in zip(axes, SENTENCES, strict=True):
            _draw(row[0], np.asarray(teacher(text, seed=0), np.float32), f"teacher: {text}")
            if (made := say(client, text, 0)) is not None:
                _draw(row[1], made, f"model: {text}")
    figure.tight_layout()
    figure.savefig(HERE / "spectrograms.png", dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the README's pictures.")
    parser.add_argument("--losses", type=Path, default=HERE / "losses.png", help="where to draw them")
    parser.add_argument("work", type=Path)
    parser.add_argument("bundle", type=Path)
    arguments = parser.parse_args()
    losses(arguments.work, arguments.losses)
    spectrograms(arguments.bundle)
