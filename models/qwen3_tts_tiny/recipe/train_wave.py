"""`python train_wave.py --minutes 60 WORK`: second stage of the codec: the decoder learns to turn codes into audio.

First it is asked for the magnitudes of several short-time Fourier transforms, which leaves phases open; with
`--adversarial` small discriminators over the same transforms (as in EnCodec, Defossez et al. 2022) join and sharpen it.
A run goes on from `wave.pt`, or starts from `trunk.pt`; `wave.csv` gets a line every 50 steps.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from codec import Codec
from schedule import Mean, Schedule
from speech_data import FRAME, LogMel, finished_shards, load_shard

BATCH = 6
CONTEXT, LEAD, HEARD = 20, 2, 10
"""Frames that the trunk alone sees, that the wave decoder sees too, and that are judged."""
_SIZES = (2048, 1024, 512, 256, 128)
_JUDGED = (1024, 512, 256)
_WARM_UP, _HORIZON = 100, 400
_HALVES = 4
"""Blocks that learn in bfloat16, which takes less time; it saves nothing in those of 24 kHz, which stay exact."""


class Spectrum(nn.Module):
    """Complex spectrum: audio `[batch, samples]` to `[batch, bins, frames]`, a quarter of the window apart."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self.register_buffer("_window", torch.hann_window(size))

    def forward(self, audio: Tensor) -> Tensor:
        return torch.stft(audio, self._size, self._size // 4, window=self._window, center=True, return_complex=True)


class Judge(nn.Module):
    """One discriminator over one spectrum; returns its verdict and what it saw on the way."""

    def __init__(self, size: int, width: int = 12) -> None:
        super().__init__()
        self._spectrum = Spectrum(size)
        norm = nn.utils.parametrizations.weight_norm
        self._layers = nn.ModuleList([norm(nn.Conv2d(2, width, (9, 3), stride=(2, 1), padding=(4, 1)))])
        for _ in range(3):
            self._layers.append(norm(nn.Conv2d(width, width, (9, 3), stride=(2, 1), padding=(4, 1))))
        self._out = norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = self._spectrum(audio)
        hidden = torch.view_as_real(spectrum * (spectrum.abs() + 1e-3) ** -0.7).permute(0, 3, 1, 2)
        seen = []
        for layer in self._layers:
            hidden = functional.leaky_relu(layer(hidden), 0.2)
            seen.append(hidden)
        return self._out(hidden), seen


class Distance(nn.Module):
    """How far two recordings are apart: log and linear magnitudes at several sizes, and log-mel."""

    def __init__(self) -> None:
        super().__init__()
        self._spectra = nn.ModuleList([Spectrum(size) for size in _SIZES])
        self._mels = nn.ModuleList([LogMel(1024, 240, 100), LogMel(512, 120, 64), LogMel(2048, 480, 128)])

    def forward(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        magnitudes = made.new_zeros(())
        for spectrum in self._spectra:
            one, other = spectrum(made).abs(), spectrum(wanted).abs()
            level = other.square().mean().sqrt() + 1e-3
            magnitudes = magnitudes + functional.l1_loss(one, other) / level
            magnitudes = magnitudes + functional.l1_loss(
                torch.log(one + 1e-3 * level + 1e-4), torch.log(other + 1e-3 * level + 1e-4)
            )
        mels = sum(functional.l1_loss(mel(made), mel(wanted)) for mel in self._mels)
        return magnitudes / len(_SIZES), mels / len(self._mels)


@dataclass
class Crops:
    """Random pieces of all the speech."""

    work: Path
    draw: np.random.Generator

    def __post_init__(self) -> None:
        numbers = [n for n in finished_shards(self.work) if (self.work / f"codes-{n:03d}.npy").exists()]
        self._shards = [load_shard(self.work, number) for number in numbers]
        self._codes = [np.load(self.work / f"codes-{number:03d}.npy") for number in numbers]

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Codes `[BATCH, CODEBOOKS, frames]` and audio `[BATCH, samples]` of the last `HEARD` frames."""
        codes: list[NDArray[np.int16]] = []
        audio: list[NDArray[np.float32]] = []
        length = CONTEXT + LEAD + HEARD
        while len(codes) < BATCH:
            which = int(self.draw.integers(len(self._shards)))
            start = int(self.draw.integers(self._shards[which].starts[-1] - length))
            heard = self._shards[which].crop(start + CONTEXT + LEAD, HEARD)
            if np.abs(heard).max() < 0.02:
                continue
            codes.append(self._codes[which][start : start + length].T)
            audio.append(heard)
        return torch.from_numpy(np.stack(codes).astype(np.int64)), torch.from_numpy(np.stack(audio))


def decode(codec: Codec, codes: Tensor) -> Tensor:
    """Audio of the last `HEARD` frames."""
    with torch.autocast("cpu", torch.bfloat16):
        trunk = codec.trunk(codes)
    return codec.wave(trunk[..., -4 * (LEAD + HEARD) :], _HALVES)[:, -HEARD * FRAME :]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the codec decoder.")
    parser.add_argument("--minutes", type=float, default=60, help="of the processor")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--fall-from", type=float, default=0.7, help="share of the time after which the rate falls")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adversarial", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    work: Path = arguments.work
    codec, judges = Codec(), nn.ModuleList([Judge(size) for size in _JUDGED])
    state = torch.load(work / "wave.pt") if (work / "wave.pt").exists() else {}
    codec.load_state_dict(state["codec"] if state else torch.load(work / "trunk.pt"))
    if "judges" in state:
        judges.load_state_dict(state["judges"])
    step = state.get("step", 0)
    learned = codec.learned()
    optimizer = torch.optim.AdamW(learned, arguments.rate, betas=(0.8, 0.95), weight_decay=0.0, fused=True)
    judging = torch.optim.AdamW(judges.parameters(), arguments.rate, betas=(0.8, 0.95), weight_decay=0.0, fused=True)
    distance, crops = Distance(), Crops(work, np.random.default_rng(arguments.seed + step))
    mean = Mean(codec, _HORIZON, state.get("mean"))
    if "optimizers" in state:
        for one, kept in zip((optimizer, judging), state["optimizers"], strict=True):
            one.load_state_dict(kept)
    warm_up = 0 if "optimizers" in state else _WARM_UP
    schedule, totals = Schedule(arguments.minutes, arguments.rate, warm_up, arguments.fall_from), np.zeros(5)

    def save() -> None:
        both = [optimizer.state_dict(), judging.state_dict()]
        kept = {"codec": codec.state_dict(), "mean": mean.state(codec), "judges": judges.state_dict()}
        torch.save({**kept, "optimizers": both, "step": step}, work / "wave.tmp")
        (work / "wave.tmp").replace(work / "wave.pt")

    while (rate := schedule.next()) is not None:
        step += 1
        for group in (*optimizer.param_groups, *judging.param_groups):
            group["lr"] = rate
        codes, wanted = crops()
        made = decode(codec, codes)
        magnitudes, mels = distance(made, wanted)
        loss = magnitudes + mels
        fooled = seen_alike = verdict = torch.zeros(())
        if arguments.adversarial:
            real, fake = [judge(wanted) for judge in judges], [judge(made.detach()) for judge in judges]
            verdict = sum((1 - r[0]).square().mean() + f[0].square().mean() for r, f in zip(real, fake, strict=True))
            judging.zero_grad()
            verdict.backward()
            judging.step()
            judges.requires_grad_(False)
            fake = [judge(made) for judge in judges]
            judges.requires_grad_(True)
            fooled = sum((1 - f[0]).square().mean() for f in fake) / len(judges)
            seen_alike = sum(
                functional.l1_loss(f, r.detach()) / (r.detach().abs().mean() + 1e-3)
                for one, other in zip(fake, real, strict=True)
                for f, r in zip(one[1], other[1], strict=True)
            ) / len(judges)
            loss = loss + 0.15 * fooled + 0.2 * seen_alike
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 2.0)
        optimizer.step()
        mean.update()
        totals += [magnitudes.item(), mels.item(), float(fooled), float(seen_alike), float(verdict)]
        if step % 50 == 0:
            line = f"{step},{schedule.seconds:.0f}," + ",".join(
                f"{value:.3f}" for value in totals / min(schedule.steps, 50)
            )
            totals[:] = 0
            print(line, flush=True)
            with (work / "wave.csv").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if step % 250 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
