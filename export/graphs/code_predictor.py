"""The code predictor: fills codebooks 1 and up of a frame, one step a codebook.

`CodePredictorStep` is one step, exported and validated by itself. `export.graphs.frame_loop` makes it the body of a
loop, so that one call makes a whole frame and the weights exist once.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.checkpoint import Checkpoint
from export.graphs.graph import Axes, GraphConfig
from export.graphs.layers import DecoderStack, LayerSizes, cache_axes, empty_caches, rotary_tables
from export.graphs.operators import CountUp, SumBefore, TopK


def draw(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Draw one code a row by inverting the cumulative distribution over falling probabilities.

    Every value depends on the row's own larger logits only, so that rows with other parameters change nothing. A
    uniform of 0 gives the largest logit.

    Args:
        logits: `[rows, codes]`.
        temperature: `[rows]`, above 0.
        top_k: int64 `[rows]`, 1 to `codes`.
        top_p: `[rows]`, in (0, 1].
        uniform: `[rows]`, in [0, 1).
    """
    count = top_k.max().reshape(1)
    values, indices = TopK.apply(logits / temperature[:, None], count)
    rank = CountUp.apply(count)
    weights = (values - values[:, :1]).exp() * (rank <= top_k[:, None]).float()
    before = SumBefore.apply(weights)
    cumulative = before + weights
    kept = before < top_p[:, None] * cumulative[:, -1:]
    # The kept ones come first, so that the last of them reaches the largest sum. A uniform is below 1 and its product
    # with that sum below the sum, where no candidate behind them begins.
    drawn = uniform[:, None] * torch.where(kept, cumulative, 0).amax(1, keepdim=True)
    place = (before <= drawn).long().sum(1, keepdim=True) - 1
    return indices.gather(1, place)[:, 0]


class CodePredictorModel(DecoderStack):
    """Decoder stack with one embedding a predicted codebook."""

    def __init__(self, sizes: LayerSizes, codebooks: int, codes: int, embedding_size: int) -> None:
        super().__init__(sizes)
        self.codec_embedding = nn.ModuleList(nn.Embedding(codes, embedding_size) for _ in range(codebooks))


class CodePredictorStep(nn.Module):
    """One step: what it is fed, the next code, and that code's embedding.

    Shapes: `inputs_embeds` `[rows, 2, talker hidden]` at step 0 (hidden state, embedding of code 0), else
    `[rows, 1, talker hidden]`; `step` int64 scalar; parameters as `draw` takes them; `forced` int64 `[rows]`, a code to
    take instead of the drawn one, or -1; caches `[rows, kv_heads, groups, head_dim]`. Returns `code` int64 `[rows]`,
    `embedding` `[rows, talker hidden]`, `logits` `[rows, codes]`, caches.
    """

    PREFIX = "talker.code_predictor."
    """How the names of its tensors begin in the checkpoint."""

    def __init__(self, sizes: LayerSizes, groups: int, codes: int, talker_hidden_size: int) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        self.sizes, self.groups, self.codes, self.talker_hidden_size = sizes, groups, codes, talker_hidden_size
        self.model = CodePredictorModel(sizes, groups - 1, codes, talker_hidden_size)
        self.lm_head = nn.ModuleList(nn.Linear(sizes.hidden_size, codes, bias=False) for _ in range(groups - 1))
        self.small_to_mtp_projection: nn.Module = nn.Identity()
        if sizes.hidden_size != talker_hidden_size:
            self.small_to_mtp_projection = nn.Linear(talker_hidden_size, sizes.hidden_size)

    @classmethod
    def on_meta(cls, checkpoint: Checkpoint) -> Self:
        """Build the module without weights."""
        talker = checkpoint.config["talker_config"]
        config, groups = talker["code_predictor_config"], talker["num_code_groups"]
        sizes = LayerSizes.from_config(config, max_positions=groups)
        with torch.device("meta"):
            return cls(sizes, groups, config["vocab_size"], talker["hidden_size"])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """Build the module with the checkpoint's weights, in float32."""
        step = cls.on_meta(checkpoint)
        checkpoint.load_into(step, cls.PREFIX)
        return step.prepare()

    def prepare(self) -> Self:
        """Stack heads and embeddings into tables that a step number can index; to be called once weights are there."""
        cos, sin = rotary_tables(self.sizes)
        tables = {
            "cos": cos,
            "sin": sin,
            "heads": torch.stack([head.weight.T for head in self.lm_head]).detach(),
            "embeddings": torch.cat([table.weight for table in self.model.codec_embedding]).detach(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        del self.lm_head, self.model.codec_embedding
        return self.eval()

    def forward(
        self,
        inputs_embeds: Tensor,
        step: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        uniform: Tensor,
        forced: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        x = self.small_to_mtp_projection(inputs_embeds)
        total = (step + 2).int().reshape(1)
        x, delta, present = self.model(x, past, total.expand(x.size(0)) - 1, total, self.cos, self.sin)
        logits = self.model.norm((x + delta)[:, -1]) @ self.heads.index_select(0, step.reshape(1))[0]
        code = torch.where(forced < 0, draw(logits, temperature, top_k, top_p, uniform), forced)
        embedding = nn.functional.embedding(code + step * self.codes, self.embeddings)
        return code, embedding, logits, *present


class CodePredictorStepOnnxConfig(GraphConfig):
    """Declaration of one step's graph."""

    module: CodePredictorStep

    @property
    def inputs(self) -> Axes:
        return {
            "inputs_embeds": {0: "rows", 1: "new"},
            "step": {},
            **{name: {0: "rows"} for name in ("temperature", "top_k", "top_p", "uniform", "forced")},
            **cache_axes("past", self.module.sizes.num_layers),
        }

    @property
    def outputs(self) -> Axes:
        return {
            **{name: {0: "rows"} for name in ("code", "embedding", "logits")},
            **cache_axes("next", self.module.sizes.num_layers),
        }

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        rows = 2
        return {
            "inputs_embeds": torch.randn(rows, 2, self.module.talker_hidden_size),
            "step": torch.tensor(0),
            "temperature": torch.full((rows,), 0.9),
            "top_k": torch.tensor([5, 8]),
            "top_p": torch.tensor([0.9, 1.0]),
            "uniform": torch.tensor([0.3, 0.7]),
            "forced": torch.tensor([-1, 3]),
            # Full after this call: the runtime leaves the unused end of a cache undefined.
            "past": empty_caches(self.module.sizes, rows, 2),
        }
