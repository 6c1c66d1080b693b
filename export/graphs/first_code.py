"""The beginning of a frame for a GPU: code 0 is drawn where the talker's logits are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.graphs.code_predictor import draw_of_all
from export.graphs.graph import Axes, GraphConfig
from server.engine.sampling import RESERVED_CODES
from server.graphs.cuda.device_frame import UNFIT, Controls


class FirstCode(nn.Module):
    """Draws code 0 as `server.engine.sampling.RowSampler` does, and takes apart what goes up for a frame.

    Shapes: `controls` float32 `[rows, controls + groups]` as `control_buffer` gives them, `talker_logits` float32
    `[rows, vocab_size]`, `hidden` float32 `[rows, hidden]`, `seen` bool `[rows, vocab_size]`, `forced_codes` int64
    `[rows, groups]`. Returns, in the order of `OUTPUTS`, code 0 int64 `[rows]`, `hidden` with zeros for what is no
    number, `seen` with the last frame's code, lengths int32 `[rows]` with the new position, and for the other codes
    uniforms and forced codes `[rows, groups - 1]`, temperature, top_k and top_p `[rows]`.

    Args:
        vocab_size: of the talker.
        end: the code that ends speech.
        groups: codes of a frame.
        hidden_size: of the talker.
    """

    INPUTS = ("controls", "talker_logits", "hidden", "seen", "forced_codes")
    OUTPUTS = ("code_0", "fit_hidden", "next_seen", "lengths", "uniforms", "forced", "temperature", "top_k", "top_p")

    def __init__(self, vocab_size: int, end: int, groups: int, hidden_size: int) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        self.vocab_size, self.groups, self.hidden_size = vocab_size, groups, hidden_size
        ids = torch.arange(vocab_size)[None]
        is_end = ids == end
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("ranks", ids + 1, persistent=False)
        self.register_buffer("is_end", is_end, persistent=False)
        self.register_buffer("banned", (ids >= vocab_size - RESERVED_CODES) & ~is_end, persistent=False)

    def forward(
        self, controls: Tensor, talker_logits: Tensor, hidden: Tensor, seen: Tensor, forced_codes: Tensor
    ) -> tuple[Tensor, ...]:
        row = {name: controls[:, place] for place, name in enumerate(Controls._fields)}
        uniforms = controls[:, len(row) :]
        # 0 times a number is 0, and times anything else is no number. Rows without numbers go on with zeros, so that
        # nothing is looked up by what is no index.
        fit = ((talker_logits * 0).sum(1) + (hidden * 0).sum(1) == 0)[:, None]
        next_seen = seen | (self.ids == row["last_code"].long()[:, None])
        penalty = row["repetition_penalty"][:, None]
        penalised = torch.where(talker_logits < 0, talker_logits * penalty, talker_logits / penalty)
        scores = torch.where(next_seen, penalised, talker_logits)
        banned = self.banned | (self.is_end & (row["may_end"] < 0.5)[:, None])
        scores = scores.masked_fill(banned, float("-inf")).masked_fill(~fit, 0)
        code = draw_of_all(scores, row["temperature"], row["top_k"].long(), row["top_p"], uniforms[:, 0], self.ranks)
        forced = forced_codes[:, 0]
        code = torch.where(forced < 0, code.masked_fill(~fit[:, 0], UNFIT), forced)
        return (
            code,
            hidden.masked_fill(~fit, 0),
            next_seen,
            (row["length"] + 1).int(),
            uniforms[:, 1:],
            forced_codes[:, 1:],
            row["predictor_temperature"],
            row["predictor_top_k"].long(),
            row["predictor_top_p"],
        )


class FirstCodeOnnxConfig(GraphConfig):
    """Declaration of its graph, which becomes a part of the frame's."""

    module: FirstCode

    @property
    def inputs(self) -> Axes:
        return {name: {0: "rows"} for name in FirstCode.INPUTS}

    @property
    def outputs(self) -> Axes:
        return {name: {0: "rows"} for name in FirstCode.OUTPUTS}

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        module, rows = self.module, 2
        return {
            "controls": torch.ones(rows, len(Controls._fields) + module.groups),
            "talker_logits": torch.randn(rows, module.vocab_size),
            "hidden": torch.randn(rows, module.hidden_size),
            "seen": torch.zeros(rows, module.vocab_size, dtype=torch.bool),
            "forced_codes": torch.full((rows, module.groups), -1),
        }
