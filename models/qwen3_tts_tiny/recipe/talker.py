"""The talker while it learns: the official modules' weights behind a leaner forward, and the losses.

Beside the codes, two things are asked that the finished model does not need and that teach it where it is in the text
much sooner: one head of one layer shall attend to the word that is being said, and the hidden state of a later layer
shall know the phonemes of its frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from layout import CODEBOOK_SIZE, CODEBOOKS, CODEC_IDS, LANGUAGE_ID, SPEAKER_ID, empty_talker
from speech_codes import SLOT_OF_CODEBOOK

PHONEMES = 256
GUIDED_LAYER = 2
PHONEME_LAYER = 3
_WEIGHTS = torch.tensor([1.5, 1.5, 1.5, 1.5, 1.0, 1.0, 0.5])
"""Weights of codebooks 1 to 7 in the loss: first the sounds, then pitch and spectrum."""
_WEIGHTS /= _WEIGHTS.mean()
_IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Padded prompts and codes.

    `text` int64 `[batch, positions]`, the text side up to codec BOS; `codec` the codec side, -1 where nothing is added;
    `prompt` int64 `[batch]`, positions of each prompt; `codes` int64 `[batch, frames, CODEBOOKS]`; `frames` int64
    `[batch]`; `learned` int64 `[batch]`, how many of the codebooks are to be learned; `spoken` bool
    `[batch, frames, positions]`: the text positions of the word that a frame is in (all False where unknown).
    """

    text: Tensor
    codec: Tensor
    prompt: Tensor
    codes: Tensor
    frames: Tensor
    learned: Tensor
    spoken: Tensor


@dataclass(frozen=True)
class Losses:
    """Scalars, and `by_frame`, the part of `first` that each frame has, `[batch, frames]` and nothing to learn from."""

    first: Tensor
    rest: Tensor
    phonemes: Tensor
    guide: Tensor
    by_frame: Tensor

    def total(self, guide: float, phonemes: float) -> Tensor:
        return self.first + self.rest + phonemes * self.phonemes + guide * self.guide


def prompt_ids(
    special: dict[str, int], role: list[int], body: list[int], language: bool
) -> tuple[list[int], list[int]]:
    """Text and codec side of a CustomVoice prompt (`server/engine/prompt.py`); -1 where the latter adds nothing."""
    ids = CODEC_IDS
    if language:
        think = [ids["codec_think_id"], ids["codec_think_bos_id"], LANGUAGE_ID, ids["codec_think_eos_id"]]
    else:
        think = [ids["codec_nothink_id"], ids["codec_think_bos_id"], ids["codec_think_eos_id"]]
    think.append(SPEAKER_ID)
    pad, eos = special["<tts_pad>"], special["<tts_text_eod>"]
    text = [*role, *[pad] * len(think), special["<tts_text_bos>"], *body, eos, pad]
    codec = [*[-1] * len(role), *think, *[ids["codec_pad_id"]] * (len(body) + 2), ids["codec_bos_id"]]
    return text, codec


def _rotary(length: int, width: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(length)[:, None] / 1e6 ** (torch.arange(0, width, 2) / width)
    angles = torch.cat([angles, angles], 1)
    return angles.cos(), angles.sin()


# Each of these three is compiled into one pass over its input; autograd's own runs several, an eighth of a step.


@torch.compile(dynamic=True)
def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cosine.to(x.dtype) + torch.cat([-x[..., half:], x[..., :half]], -1) * sine.to(x.dtype)


@torch.compile(dynamic=True)
def _scaled(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), 1e-6)


@torch.compile(dynamic=True)
def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate) * up


def _norm(x: Tensor, module: nn.Module) -> Tensor:
    return _scaled(x, module.weight)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention, queries grouped by their keys; torch's own takes thrice as long on a CPU at these sizes."""
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    grouped = query.reshape(rows * groups, heads // groups * length, width) * width**-0.5
    later = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1).repeat(heads // groups, 1)
    key, value = key.reshape(rows * groups, length, width), value.reshape(rows * groups, length, width).to(query.dtype)
    scores = torch.baddbmm(later.expand(rows * groups, -1, -1), grouped, key.transpose(1, 2))
    return (scores.softmax(-1, dtype=query.dtype) @ value).reshape(rows, heads, length, width)


def _run(layer: nn.Module, hidden: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """One layer: its output, and rotated queries and keys `[batch, heads, positions, width]`."""
    attention, mlp = layer.self_attn, layer.mlp
    x = _norm(hidden, layer.input_layernorm)
    width = attention.head_dim
    query, key, value = (
        part(x).unflatten(2, (-1, width)).transpose(1, 2)
        for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = _rotated(_norm(query, attention.q_norm), *turn), _rotated(_norm(key, attention.k_norm), *turn)
    hidden = hidden + attention.o_proj(_attend(query, key, value).transpose(1, 2).flatten(2))
    x = _norm(hidden, layer.post_attention_layernorm)
    return hidden + mlp.down_proj(_gated(mlp.gate_proj(x), mlp.up_proj(x))), query, key


class Talker(nn.Module):
    """The official talker and code predictor, and the head that training alone has."""

    def __init__(self, special: dict[str, int]) -> None:
        super().__init__()
        self.official = empty_talker(special)
        self.phoneme_head = nn.Linear(self.official.config.hidden_size, len(SLOT_OF_CODEBOOK) * PHONEMES)
        self._pad = special["<tts_pad>"]

    def embed_frames(self, codes: Tensor) -> Tensor:
        """Summed embeddings of codes `[..., CODEBOOKS]`."""
        books = [self.official.model.codec_embedding, *self.official.code_predictor.model.codec_embedding]
        return sum(book(codes[..., level]) for level, book in enumerate(books))

    def forward(self, batch: Batch, heard: Tensor, chosen_share: float, with_phonemes: bool) -> Losses:
        """The losses of a batch.

        Args:
            batch: what to learn.
            heard: the codes that go in, as in `batch.codes` but for what training corrupts.
            chosen_share: of the frames, that the code predictor learns from.
            with_phonemes: whether that loss is wanted.
        """
        official = self.official
        project = official.text_projection
        text = project(official.model.text_embedding(batch.text))
        prompt = text + official.model.codec_embedding(batch.codec.clamp(min=0)) * (batch.codec >= 0)[..., None]
        frames = self.embed_frames(heard) + project(official.model.text_embedding(torch.tensor([self._pad])))
        # Each row's frames follow its own prompt, whatever the others' lengths: a gather over both, side by side.
        both = torch.cat([prompt, frames], 1)
        count, most = batch.codes.shape[:2]
        length = int((batch.prompt + batch.frames).max())
        place = torch.arange(length)[None] - batch.prompt[:, None]
        index = torch.where(place < 0, torch.arange(length)[None], batch.text.shape[1] + place.clamp(0, most - 1))
        hidden = both.gather(1, index[..., None].expand(-1, -1, both.shape[2]))
        turn = _rotary(length, official.config.head_dim)
        # The position that predicts frame t is the one before its codes go in; one more predicts the end.
        ask = (batch.prompt[:, None] - 1 + torch.arange(most + 1)).clamp(max=length - 1)
        valid = torch.arange(most + 1)[None] <= batch.frames[:, None]
        guide = phonemes = hidden.new_zeros(())
        for number, layer in enumerate(official.model.layers):
            hidden, query, key = _run(layer, hidden, turn)
            if number == GUIDED_LAYER:
                guide = self._guide(query[:, 0], key[:, 0], ask, batch)
            if with_phonemes and number == PHONEME_LAYER:
                phonemes = self._phonemes(self._pick(hidden, ask)[:, :-1], batch)
        asked = _norm(self._pick(hidden, ask), official.model.norm)[valid]
        targets = torch.cat([batch.codes[..., 0], batch.codes.new_zeros(count, 1)], 1)
        targets[torch.arange(count), batch.frames] = CODEBOOK_SIZE
        head = torch.cat(
            [official.codec_head.weight[:CODEBOOK_SIZE], official.codec_head.weight[[CODEC_IDS["codec_eos_token_id"]]]]
        )
        each = functional.cross_entropy(functional.linear(asked, head).float(), targets[valid], reduction="none")
        by_frame = each.new_zeros(valid.shape).masked_scatter(valid, each.detach())[:, :-1]
        ends = targets[valid] == CODEBOOK_SIZE
        real = torch.arange(most)[None] < batch.frames[:, None]
        learned = batch.learned[:, None].expand(-1, most)[real]
        chosen = torch.rand(len(learned)) < chosen_share
        rest = self._rest(asked[~ends][chosen], batch.codes[real][chosen], learned[chosen])
        return Losses(each.mean(), rest, phonemes, guide, by_frame)

    @staticmethod
    def _pick(hidden: Tensor, at: Tensor) -> Tensor:
        return hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[2]))

    def _guide(self, query: Tensor, key: Tensor, ask: Tensor, batch: Batch) -> Tensor:
        asking = self._pick(query, ask)[:, :-1].float()
        scores = asking @ key.float().transpose(1, 2) * query.shape[-1] ** -0.5
        later = torch.arange(key.shape[1])[None, None] > ask[:, :-1, None]
        weights = scores.masked_fill(later, -1e9).log_softmax(2)
        said = functional.pad(batch.spoken, (0, key.shape[1] - batch.spoken.shape[2]))
        known = said.any(2)
        return -weights.masked_fill(~said, -1e9).logsumexp(2)[known].mean()

    def _phonemes(self, hidden: Tensor, batch: Batch) -> Tensor:
        real = torch.arange(batch.codes.shape[1])[None] < batch.frames[:, None]
        logits = self.phoneme_head(hidden[real]).float().unflatten(1, (-1, PHONEMES))
        return functional.cross_entropy(logits.flatten(0, 1), batch.codes[real][:, : len(SLOT_OF_CODEBOOK)].flatten())

    def _rest(self, hidden: Tensor, codes: Tensor, learned: Tensor) -> Tensor:
        predictor = self.official.code_predictor
        books = [self.official.model.codec_embedding, *predictor.model.codec_embedding]
        x = torch.stack([hidden, *(books[level](codes[:, level]) for level in range(CODEBOOKS - 1))], 1)
        x = predictor.small_to_mtp_projection(x)
        turn = _rotary(CODEBOOKS, predictor.config.head_dim)
        for layer in predictor.model.layers:
            x, _, _ = _run(layer, x, turn)
        x = _norm(x, predictor.model.norm)
        heads = torch.stack([head.weight for head in predictor.lm_head])
        logits = torch.einsum("nlw,lcw->nlc", x[:, 1:], heads.to(x.dtype)).float()
        each = functional.cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten(), reduction="none")
        weights = _WEIGHTS * (torch.arange(1, CODEBOOKS)[None] < learned[:, None])
        return (each.unflatten(0, (-1, CODEBOOKS - 1)) * weights).sum() / weights.numel()
