"""`python train_talker.py --minutes 60 WORK`: the talker and its code predictor learn to say the texts in codes.

Matrices learn by Muon (Jordan et al. 2024), the rest by AdamW. The rate is flat and falls in the last part of the given
time; a running mean of the weights is kept beside them, and is what becomes the model. Drills (`drills.py`), where
there are any, are read beside the speech, oftener those whose words cost most when they were last read. A run goes on
from `talker.pt` if it is there; `talker.csv` gets a line every 50 steps.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from drills import HEARD
from layout import CODEBOOK_SIZE, CODEBOOKS
from schedule import Mean, Schedule
from speech_data import finished_shards, load_shard
from talker import Batch, Losses, Talker, prompt_ids
from teacher import SHARD
from tokenizer import load
from word_losses import NO_WORD, WordLosses

POSITIONS = 4000
"""Positions of a batch, padding included."""
_MOST_FRAMES = 280
_ROUND = 4000
"""Utterances of the teacher between two draws of drills."""
_WARM_UP, _HORIZON = 150, 300
_NOISE_SHARE, _LOST_SHARE = 0.03, 0.06
"""Shares of codes, and of frames, that are replaced by others in the input, because it will hold the model's errors."""


@dataclass(frozen=True)
class Example:
    """Text ids and the word of each; codes `[frames, CODEBOOKS]`, how many to learn of them, words `[frames]`.

    `spelt` is what the words are, as the frames say them: numbers of `WordLosses`, `[frames]`.
    """

    body: list[int]
    body_words: NDArray[np.int64]
    codes: NDArray[np.int16]
    learned: int
    words: NDArray[np.int64]
    spelt: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.body) + len(self.codes) + 12


def examples(
    work: Path, tokenizer: Tokenizer, known: WordLosses, texts: list[str], numbers: list[int]
) -> list[Example]:
    """All utterances of these shards that are not too long."""
    found = []
    for number in numbers:
        shard, codes = load_shard(work, number), np.load(work / f"codes-{number:03d}.npy")
        for row, text in enumerate(texts[number * SHARD : (number + 1) * SHARD]):
            start, end = shard.starts[row], shard.starts[row + 1]
            if not 2 <= end - start <= _MOST_FRAMES:
                continue
            found.append(_example(tokenizer, known, text, codes[start:end], CODEBOOKS, shard.words[start:end]))
    return found


def _example(
    tokenizer: Tokenizer,
    known: WordLosses,
    text: str,
    codes: NDArray[np.int16],
    learned: int,
    words: NDArray[np.int64],
) -> Example:
    encoded = tokenizer.encode(text)
    written = list(re.finditer(r"\S+", text))
    of_token = np.searchsorted([match.end() for match in written], [last for _, last in encoded.offsets])
    spelt = np.array([known.number(match.group()) for match in written])
    return Example(encoded.ids, of_token, codes, learned, words, np.where(words < 0, NO_WORD, spelt[words]))


def drills(work: Path, tokenizer: Tokenizer, known: WordLosses) -> list[Example]:
    """Read all that `drills.py` has written."""
    found = []
    for file in sorted(work.glob("drills-*.npz")):
        with np.load(file) as data:
            starts, codes, words = (data[name] for name in ("starts", "codes", "words"))
            for text, start, end in zip(data["texts"].tolist(), starts[:-1], starts[1:], strict=True):
                if end - start <= _MOST_FRAMES:
                    said = words[start:end].astype(np.int64)
                    found.append(_example(tokenizer, known, text, codes[start:end], HEARD, said))
    return found


def mixed(
    spoken: list[Example], drilled: list[Example], share: float, known: WordLosses, draw: np.random.Generator
) -> list[Example]:
    """A part of the speech, and as many drills as make up `share` of both, hard ones oftener."""
    part = min(len(spoken), _ROUND)
    found = [spoken[index] for index in draw.permutation(len(spoken))[:part]]
    count = min(int(part * share / (1 - share)), len(drilled))
    if count:
        hard = known.of([example.spelt for example in drilled])
        found += [drilled[index] for index in draw.choice(len(drilled), count, replace=False, p=hard / hard.sum())]
    return found


def batches(
    spoken: list[Example], drilled: list[Example], share: float, known: WordLosses, draw: np.random.Generator
) -> Iterator[list[Example]]:
    """Yield endlessly batches of like lengths in random order."""
    while True:
        found = mixed(spoken, drilled, share, known, draw)
        lengths = np.array([len(example) for example in found]) * draw.uniform(0.9, 1.1, len(found))
        groups: list[list[int]] = [[]]
        for index in np.argsort(lengths):
            longest = max(len(found[index]), *(len(found[other]) for other in groups[-1])) if groups[-1] else 0
            if longest * (len(groups[-1]) + 1) > POSITIONS:
                groups.append([])
            groups[-1].append(int(index))
        for group in draw.permutation(len(groups)):
            yield [found[index] for index in groups[group]]


def collate(group: list[Example], special: dict[str, int], role: list[int], draw: np.random.Generator) -> Batch:
    prompts = [prompt_ids(special, role, example.body, draw.random() < 0.5) for example in group]
    longest = max(len(text) for text, _ in prompts)
    most = max(len(example.codes) for example in group)
    count = len(group)
    text, codec = np.zeros((count, longest), np.int64), np.full((count, longest), -1)
    codes = np.zeros((count, most, CODEBOOKS), np.int64)
    spoken = np.zeros((count, most, longest), bool)
    for row, ((text_ids, codec_ids), example) in enumerate(zip(prompts, group, strict=True)):
        text[row, : len(text_ids)], codec[row, : len(codec_ids)] = text_ids, codec_ids
        frames = len(example.codes)
        codes[row, :frames] = example.codes
        first = len(text_ids) - 2 - len(example.body)
        same = (example.words[:, None] == example.body_words[None]) & (example.words >= 0)[:, None]
        spoken[row, :frames, first : first + len(example.body)] = same
    return Batch(*map(torch.from_numpy, (text, codec)), torch.tensor([len(text_ids) for text_ids, _ in prompts]),
                 torch.from_numpy(codes), torch.tensor([len(example.codes) for example in group]),
                 torch.tensor([example.learned for example in group]), torch.from_numpy(spoken))  # fmt: skip


def corrupted(codes: Tensor) -> Tensor:
    """Codes with some entries, and some whole frames, replaced by others."""
    wrong = torch.rand(codes.shape) < _NOISE_SHARE
    wrong |= (torch.rand(codes.shape[:2]) < _LOST_SHARE)[..., None]
    return torch.where(wrong, torch.randint(CODEBOOK_SIZE, codes.shape), codes)


def _optimizers(talker: Talker) -> list[torch.optim.Optimizer]:
    matrices = [value for name, value in talker.named_parameters() if value.ndim == 2 and ".layers." in name]
    chosen = {id(value) for value in matrices}
    others = [value for value in talker.parameters() if id(value) not in chosen]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _numbers(losses: Losses) -> NDArray[np.float64]:
    return np.array([losses.first.item(), losses.rest.item(), losses.phonemes.item(), losses.guide.item()])


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the talker.")
    parser.add_argument("--minutes", type=float, default=60, help="of the processor")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--fall-from", type=float, default=0.75, help="share of the time after which the rate falls")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.2, help="of the frames, that the code predictor learns from")
    parser.add_argument("--drills", type=float, default=0.5, help="share of the texts that are drills")
    parser.add_argument("--phonemes", type=float, default=0.3, help="weight of the middle layer's phonemes")
    parser.add_argument("--guide", type=float, default=1.0, help="weight of where one head looks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    draw = np.random.default_rng(arguments.seed)
    work: Path = arguments.work
    tokenizer, special = load(work)
    role = [special["<|im_start|>"], *tokenizer.encode("assistant\n").ids]
    texts = (work / "texts.txt").read_text("utf-8").splitlines()
    numbers = [number for number in finished_shards(work) if (work / f"codes-{number:03d}.npy").exists()]
    known = WordLosses()
    spoken, drilled = examples(work, tokenizer, known, texts, numbers[1:]), drills(work, tokenizer, known)
    held_out = examples(work, tokenizer, known, texts, numbers[:1])[:120]
    print(len(spoken), "utterances,", sum(len(example.codes) for example in spoken), "frames;", len(drilled), "drills")
    talker, shown = Talker(special), Talker(special)
    state = torch.load(work / "talker.pt") if (work / "talker.pt").exists() else {}
    if state:
        talker.load_state_dict(state["talker"])
    step, mean, optimizers = state.get("step", 0), Mean(talker, _HORIZON, state.get("mean")), _optimizers(talker)
    for optimizer, kept in zip(optimizers, state.get("optimizers", ()), strict=False):
        optimizer.load_state_dict(kept)
    tests = [collate(held_out[at : at + 20], special, role, np.random.default_rng(at)) for at in range(0, 120, 20)]
    warm_up = 0 if "optimizers" in state else _WARM_UP
    schedule, totals = Schedule(arguments.minutes, arguments.rate, warm_up, arguments.fall_from), np.zeros(4)

    def save() -> None:
        kept = {"talker": talker.state_dict(), "mean": mean.state(talker)}
        torch.save({**kept, "optimizers": [one.state_dict() for one in optimizers], "step": step}, work / "talker.tmp")
        (work / "talker.tmp").replace(work / "talker.pt")

    for group in batches(spoken, drilled, arguments.drills, known, draw):
        if (rate := schedule.next()) is None:
            break
        step += 1
        for optimizer in optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
        batch = collate(group, special, role, draw)
        with torch.autocast("cpu", torch.bfloat16):
            losses = talker(batch, corrupted(batch.codes), arguments.share, arguments.phonemes > 0)
        losses.total(arguments.guide, arguments.phonemes).backward()
        torch.nn.utils.clip_grad_norm_(talker.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        mean.update()
        known.update([example.spelt for example in group], losses.by_frame.numpy())
        totals += _numbers(losses)
        if step % 50 == 0:
            line = f"{step},{schedule.seconds:.0f}," + ",".join(
                f"{value:.3f}" for value in totals / min(schedule.steps, 50)
            )
            totals[:] = 0
            if step % 250 == 0:
                shown.load_state_dict(mean.state(talker))
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                    line += "," + ",".join(
                        f"{v:.3f}" for v in np.mean([_numbers(shown(t, t.codes, 1.0, True)) for t in tests], 0)
                    )
                save()
            print(line, flush=True)
            with (work / "talker.csv").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    save()


if __name__ == "__main__":
    main()
