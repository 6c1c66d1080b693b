"""The beginning of a frame's graph: code 0 is drawn where the talker's logits are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.graphs.code_predictor import draw
from export.graphs.graph import Axes, GraphConfig
from server.graphs.frame_state import NOT_FINITE, RESERVED_CODES, Controls


class FirstCode(nn.Module):
    """Draws code 0 with Hugging Face's filters in their order, and takes the controls of a frame apart.

    The repetition penalty comes first, then the codes that may not be drawn leave, then temperature, top_k and top_p.
    Of the talker's reserved codes only end-of-speech is a candidate.

    Shapes: `controls` float32 `[rows, controls + groups]` as `control_buffer` gives them, `talker_logits` float32
    `[rows, vocab_size]`, `hidden` float32 `[rows, hidden]`, `seen` bool `[rows, vocab_size]`, `forced_codes` int64
    `[rows, groups]`. Returns, in the order of `OUTPUTS`, code 0 int64 `[rows]`, `hidden` with zeros in rows that are
    not finite, `seen` with the last frame's code, lengths int32 `[rows]` with the new position, and for the later codes
    uniforms and forced codes `[rows, groups - 1]`, temperature, top_k and top_p `[rows]`.

    Args:
        vocab_size: of the talker.
        end: the code that ends speech, one of the reserved codes.
        groups: codes of a frame.
        hidden_size: of the talker.
    """

    INPUTS = ("controls", "talker_logits", "hidden", "seen", "forced_codes")
    OUTPUTS = (
        "code_0",
        "finite_hidden",
        "next_seen",
        "lengths",
        "later_uniforms",
        "later_forced",
        "temperature",
        "top_k",
        "top_p",
    )

    def __init__(self, vocab_size: int, end: int, groups: int, hidden_size: int) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        self.vocab_size, self.end, self.groups, self.hidden_size = vocab_size, end, groups, hidden_size
        self.codes = vocab_size - RESERVED_CODES

    def forward(
        self, controls: Tensor, talker_logits: Tensor, hidden: Tensor, seen: Tensor, forced_codes: Tensor
    ) -> tuple[Tensor, ...]:
        row = {name: controls[:, place] for place, name in enumerate(Controls._fields)}
        uniforms = controls[:, len(row) :]
        # 0 times a finite number is 0, and 0 times any other is NaN. Rows that are not finite go on with zeros, so that
        # no later node looks anything up by an index that is none.
        finite = ((talker_logits * 0).sum(1) + (hidden * 0).sum(1) == 0)[:, None]
        last_code = row["last_code"].long()[:, None]
        place = last_code.clamp(min=0)
        next_seen = seen.scatter(1, place, seen.gather(1, place) | (last_code >= 0))
        logits, penalty = talker_logits[:, : self.codes], row["repetition_penalty"][:, None]
        penalised = torch.where(logits < 0, logits * penalty, logits / penalty)
        end = talker_logits[:, self.end : self.end + 1].masked_fill((row["may_end"] < 0.5)[:, None], float("-inf"))
        scores = torch.cat((torch.where(next_seen[:, : self.codes], penalised, logits), end), dim=1)
        top_k = row["top_k"].long().clamp(max=self.codes + 1)
        drawn = self.draw(scores.masked_fill(~finite, 0), row["temperature"], top_k, row["top_p"], uniforms[:, 0])
        code = drawn.masked_fill(drawn == self.codes, self.end).masked_fill(~finite[:, 0], NOT_FINITE)
        forced = forced_codes[:, 0]
        return (
            torch.where(forced < 0, code, forced),
            hidden.masked_fill(~finite, 0),
            next_seen,
            (row["length"] + 1).int(),
            uniforms[:, 1:],
            forced_codes[:, 1:],
            row["predictor_temperature"],
            row["predictor_top_k"].long(),
            row["predictor_top_p"],
        )

    def draw(self, logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
        """Draw one code a row, as `export.graphs.code_predictor.draw` does."""
        return draw(logits, temperature, top_k, top_p, uniform)


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
        controls = [
            Controls(7, 3, False, 1.5, 0.9, 5, 0.9, 0.8, 4, 0.7),
            Controls(2, -1, True, 1.0, 1.3, 50, 1.0, 1.0, 1, 1.0),
        ]
        uniforms = torch.linspace(0.2, 0.8, rows * module.groups).reshape(rows, -1)
        seen = torch.zeros(rows, module.vocab_size, dtype=torch.bool)
        seen[:, 5] = True
        return {
            "controls": torch.cat((torch.tensor(controls), uniforms), dim=1),
            "talker_logits": torch.randn(rows, module.vocab_size),
            "hidden": torch.randn(rows, module.hidden_size),
            "seen": seen,
            "forced_codes": torch.full((rows, module.groups), -1),
        }
