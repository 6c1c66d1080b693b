"""The official `qwen-tts` package as the oracle: greedy codes, waveforms, and its modules for per-graph tests.

The package imports torchaudio and sox for its 25 Hz tokenizer only, which no supported checkpoint uses: both are
stubbed in `sys.modules` when they are not installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2TokenizerFast

from server.graphs import cores
from tests.closeness import ROUNDING

_STUBBED = {"torchaudio": ("torchaudio.compliance", "torchaudio.compliance.kaldi"), "sox": ()}


@functools.cache
def official_package() -> ModuleType:
    """Import `qwen_tts`, with what its 25 Hz tokenizer alone needs stubbed."""
    for name, children in _STUBBED.items():
        if importlib.util.find_spec(name) is None:
            for module in (name, *children):
                stub = ModuleType(module)
                stub.__spec__ = ModuleSpec(module, None, is_package=True)
                stub.__path__ = []
                sys.modules[module] = stub
    return importlib.import_module("qwen_tts")


class Choices(NamedTuple):
    """Greedy codes and how clear each choice was.

    Attributes:
        codes: int64 `[frames, groups]`.
        margins: by how much the chosen code's score leads the next one's, as a part of its magnitude; `[frames,
            groups]`.
    """

    codes: NDArray[np.int64]
    margins: NDArray[np.float64]


class Spoken(NamedTuple):
    """A text, by whom it is spoken, and in which language, as the official package takes them."""

    text: str
    speaker: str | None
    language: str


class _Margins(LogitsProcessor):
    """Notes the lead of the best score of each row; it has to be the last processor."""

    def __init__(self) -> None:
        self.found: list[NDArray[np.float64]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        best, second = scores.topk(2).values.double().numpy().T
        self.found.append((best - second) / np.maximum(np.maximum(abs(best), abs(second)), 1e-9))
        return scores

    def of(self, codes: NDArray[np.int64], row: int = 0) -> Choices:
        """The codes `[frames, groups]` of a row with their margins.

        Each frame is scored in its order: code 0 by the talker, then the others by the code predictor.
        """
        return Choices(codes, np.array([found[row] for found in self.found[: codes.size]]).reshape(codes.shape))


class _StopAtCodes:
    """Stands in for the speech tokenizer, keeping the codes it is given and decoding nothing."""

    def __init__(self) -> None:
        self.codes: list[torch.Tensor] = []

    def decode(self, encoded: list[dict[str, torch.Tensor]]) -> tuple[list[NDArray[np.float32]], int]:
        self.codes = [item["audio_codes"] for item in encoded]
        return [], 24_000


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrices this small are faster without a thread pool, in PyTorch and in ONNX Runtime, whose threads wait in busy
    loops: two need twice the time of the processors.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch.object(cores, "usable_cores", lambda: 1):
            yield
    finally:
        torch.set_num_threads(threads)


class Official:
    """One checkpoint, loaded by the official package in float32 on the CPU, with the attention that it takes by itself.

    Attributes:
        wrapper: `Qwen3TTSModel`.
        talker: its talker, with `code_predictor` inside.
        code_predictor: predicts code groups 1 and up of a frame.
        decoder: the codec decoder, codes `[batch, groups, frames]` to audio `[batch, 1, samples]`.
    """

    def __init__(self, folder: Path) -> None:
        self.wrapper: Any = official_package().Qwen3TTSModel.from_pretrained(str(folder), dtype=torch.float32)
        # Loaded by Hub id, the package leaves the Qwen2 pre-tokenizer as it is. Loaded from a folder whose config.json
        # says transformers 4.57.3, its `fix_mistral_regex=True` puts Mistral's pre-tokenizer in its place by mistake.
        # The oracle is the published model as the Hub gives it, which is also how it was trained.
        self.wrapper.processor.tokenizer = Qwen2TokenizerFast.from_pretrained(str(folder), fix_mistral_regex=False)
        self.model: Any = self.wrapper.model.eval()
        self.talker: Any = self.model.talker
        self.code_predictor: Any = self.talker.code_predictor
        self.decoder: nn.Module = self.model.speech_tokenizer.model.decoder

    def codes(
        self,
        text: str,
        *,
        speaker: str | None = None,
        language: str = "auto",
        instruction: str | None = None,
        frames: int = 40,
        single_thread: bool = True,
        **generation: Any,
    ) -> NDArray[np.int64]:
        """Codes `[frames, groups]`, fewer frames if the model ends by itself; greedy unless `generation` says else."""
        spoken = [Spoken(text, speaker, language)]
        with one_thread() if single_thread else nullcontext():
            return self._codes(spoken, instruction, frames, **generation)[0]

    def _codes(
        self, spoken: Sequence[Spoken], instruction: str | None, frames: int, **generation: Any
    ) -> list[NDArray[np.int64]]:
        options: dict[str, Any] = {
            "text": [one.text for one in spoken],
            "language": [one.language for one in spoken],
            "instruct": [instruction or ""] * len(spoken),
            "do_sample": False,
            "subtalker_dosample": False,
            # The last token of a run gets no code groups, so that one token more than frames is asked for.
            "max_new_tokens": frames + 1,
            **generation,
        }
        with self._without_decoding() as recorder:
            if self.model.tts_model_type == "voice_design":
                self.wrapper.generate_voice_design(**options)
            else:
                self.wrapper.generate_custom_voice(speaker=[one.speaker for one in spoken], **options)
        return [codes.cpu().numpy().astype(np.int64) for codes in recorder.codes]

    def choices(self, text: str, **options: Any) -> Choices:
        """Greedy codes as `codes` gives them, with the margin of each."""
        margins = _Margins()
        with _noted(self.talker, margins), _noted(self.code_predictor, margins):
            codes = self.codes(text, **options)
        return margins.of(codes)

    def choices_together(
        self, spoken: Sequence[Spoken], *, instruction: str, frames: int, non_streaming_mode: bool
    ) -> list[Choices]:
        """Greedy codes of several texts, all in one batch, which takes hardly longer than one of them."""
        margins = _Margins()
        with one_thread(), _noted(self.talker, margins), _noted(self.code_predictor, margins):
            found = self._codes(spoken, instruction, frames, non_streaming_mode=non_streaming_mode)
        return [margins.of(codes, row) for row, codes in enumerate(found)]

    def voice(self, samples: NDArray[np.float32], text: str | None) -> Any:
        """A `VoiceClonePromptItem` of a recording `[samples]` at 24 kHz; without text it is the embedding alone."""
        with one_thread():
            (item,) = self.wrapper.create_voice_clone_prompt((samples, 24_000), text, text is None)
        return item

    def cloned(
        self, text: str, voices: Sequence[tuple[Any, str]], *, frames: int, non_streaming_mode: bool
    ) -> list[Choices]:
        """Greedy codes of a text by each voice and in its language, all in one batch."""
        margins, languages = _Margins(), [language for _, language in voices]
        with (
            self._without_decoding() as recorder,
            one_thread(),
            _noted(self.talker, margins),
            _noted(self.code_predictor, margins),
        ):
            self.wrapper.generate_voice_clone(
                [text] * len(voices),
                languages,
                voice_clone_prompt=[item for item, _ in voices],
                non_streaming_mode=non_streaming_mode,
                do_sample=False,
                subtalker_dosample=False,
                max_new_tokens=frames + 1,
            )
        found = []
        for row, (codes, (item, _)) in enumerate(zip(recorder.codes, voices, strict=True)):
            spoken = 0 if item.ref_code is None else len(item.ref_code)
            found.append(margins.of(codes[spoken:].numpy().astype(np.int64), row))
        return found

    def cloned_waveform(self, item: Any, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples of codes `[frames, groups]` behind a voice's recording, cut off as `generate_voice_clone` does."""
        if item.ref_code is None:
            return self.waveform(codes)
        both = np.concatenate((item.ref_code.numpy(), codes))
        audio = self.waveform(both)
        return audio[int(len(item.ref_code) / len(both) * len(audio)) :]

    def waveform(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples `[frames * samples_per_frame]` of codes `[frames, groups]`, 300 frames at a time as there."""
        (audio,), _ = self.model.speech_tokenizer.decode([{"audio_codes": torch.from_numpy(codes)}])
        return np.asarray(audio, np.float32)

    @contextmanager
    def _without_decoding(self) -> Iterator[_StopAtCodes]:
        speech_tokenizer, recorder = self.model.speech_tokenizer, _StopAtCodes()
        self.model.speech_tokenizer = recorder
        try:
            yield recorder
        finally:
            self.model.speech_tokenizer = speech_tokenizer


@contextmanager
def _noted(model: Any, margins: _Margins) -> Iterator[None]:
    """Let `margins` see the scores that `model.generate` chooses by."""
    processors = model._get_logits_processor
    model._get_logits_processor = lambda *given, **named: LogitsProcessorList([*processors(*given, **named), margins])
    try:
        yield
    finally:
        del model._get_logits_processor


@functools.cache
def load_official(folder: Path) -> Official:
    """Load once a folder; tests share it and must leave it as it is."""
    return Official(folder)


def assert_official(codes: NDArray[np.int64], official: Choices) -> None:
    """Check that greedy codes `[frames, groups]` are the official ones.

    Where they part, the official package must have had a tie: a lead within the rounding of float32, that another
    order of the same sums turns over. Weights of pure noise have one in some 10^5 choices. What follows a tie is
    another utterance, of which nothing is asked.
    """
    assert codes.shape == official.codes.shape
    if np.array_equal(codes, official.codes):
        return
    frame, group = (int(axis[0]) for axis in np.nonzero(codes != official.codes))
    lead = official.margins[frame, group]
    assert lead < ROUNDING, (
        f"code {group} of frame {frame} is {codes[frame, group]} instead of {official.codes[frame, group]}, "
        f"which leads by {lead:.1e} of its score"
    )


def official_waveform(folder: Path, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Samples of codes `[frames, groups]` by the official package."""
    return load_official(folder).waveform(codes)
