"""What matrices of talker and code predictor are multiplied by while the model speaks: what `export.gptq` looks at.

The exported graphs, still in float32, say some texts greedily, all side by side. The torch modules are then fed those
codes, each text in one go, and what arrives at their products is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.calibration import prompts_of
from export.checkpoint import Checkpoint
from export.graphs.code_predictor import CodePredictorStep
from export.graphs.layers import MLP, Attention, empty_caches
from export.graphs.talker import Talker as TorchTalker
from export.parity import REPETITION_PENALTY, Tick
from server.engine.bundle import open_prompts
from server.engine.reference import Reference
from server.graphs.code_predictor import CodePredictor
from server.graphs.frame_state import Controls, RowOutput, control_buffer
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import CODEC_TABLE, Manifest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TEXTS = (
    "Nobody had told the lighthouse keeper that the harbour was to be closed for the whole of that winter.",
    "Could you read me the second paragraph again, a little slower, and leave out everything in brackets?",
    "My sister paid 48 dollars for 12 tickets on the 9th of June, and then it rained from morning till night.",
    "First we peel the apples and cut them small. Then we add sugar, butter, and a pinch of salt, and wait.",
    "What a strange machine! It hums, it rattles, it blows out smoke, and still the kettle does not boil.",
    "The committee will publish its report next Thursday, although several members have asked for more time.",
    "He walked down to the river, sat on a flat stone, and thought about the letter that he had never sent.",
    "Please check that all doors are locked, that the lights are off, and that the alarm has been switched on.",
    "明天早上八点我们在火车站门口见面，请不要忘记带上护照和那本蓝色的书，路上可能会下雨。",
    "因为昨天晚上睡得太晚，所以他今天一整天都没有精神，连最喜欢的电影也没有看完。",
    "Der alte Kapitän erzählte am Abend von seinen Reisen, und niemand am Tisch wagte, ihn zu unterbrechen.",
    "Nous avons traversé le marché sans rien acheter, puis nous sommes rentrés à pied le long du canal.",
)
"""Of about seven seconds each. They are none of the texts that a bundle is measured with."""
FRAMES = 64
"""Codec frames of each text; what would end before goes on."""
_BETWEEN = re.compile(r"[.](?!\d)")
"""Matches what the exporter writes as a slash in the name of a module: the points that no number follows."""
EVERY = 2
"""One frame of so many is enough of the code predictor, which makes many positions of each."""


def layer_inputs(
    checkpoint: Checkpoint,
    folder: Path,
    manifest: Manifest,
    wanted: Mapping[str, Callable[[str], bool]],
    tick: Tick,
    voice: Reference | None = None,
) -> dict[str, dict[str, Tensor]]:
    """What products of talker and code predictor are fed, by graph and by the name of the product's node.

    Args:
        checkpoint: the weights.
        folder: holds the bundle's tables, and both graphs in float32.
        manifest: of these.
        wanted: by graph, tells by a node's name whether its inputs are wanted.
        tick: hears how many frames of how many have been said.
        voice: to speak with, where the model clones voices.

    Returns:
        float32 `[positions, inner]` for each.

    Raises:
        ValueError: a graph gives numbers that are not finite.
    """
    prompts = open_prompts(folder, manifest)
    said = [prompt.embeddings for prompt in prompts_of(prompts, manifest, readable_texts(manifest), voice)]
    codes = say_greedily(folder, manifest, said, prompts.pad, tick)
    talker, step = TorchTalker.from_checkpoint(checkpoint), CodePredictorStep.from_checkpoint(checkpoint)
    table = torch.from_numpy(np.load(folder / CODEC_TABLE))
    kept: dict[str, dict[str, Tensor]] = {}
    with torch.inference_mode():
        with Inputs(talker, wanted["talker"]) as inputs:
            hidden, embeddings = [], []
            for prompt, frames in zip(said, torch.from_numpy(codes), strict=True):
                embedded = _embed(step, table, frames)
                fed = torch.cat([torch.from_numpy(prompt), embedded.sum(1) + torch.from_numpy(prompts.pad)])
                hidden.append(_run(talker, fed[None])[0, len(prompt) - 1 : -1])
                embeddings.append(embedded)
        kept["talker"] = inputs.joined()
        with Inputs(step, wanted["code_predictor"]) as inputs:
            for state, embedded in zip(hidden, embeddings, strict=True):
                fed = torch.cat([state[:, None], embedded[:, :-1]], dim=1)[::EVERY]
                _run(step, step.small_to_mtp_projection(fed))
        kept["code_predictor"] = inputs.joined()
    return kept


def readable_texts(manifest: Manifest) -> Sequence[str]:
    """Those of `TEXTS` that the model can read; all of them if it can read none."""
    return [text for text in TEXTS if manifest.alphabet is None or set(text) <= set(manifest.alphabet)] or TEXTS


def say_greedily(folder: Path, manifest: Manifest, prompts: Sequence[Floats], pad: Floats, tick: Tick) -> Ints:
    """`FRAMES` frames of each prompt, all in one batch, `[prompts, frames, groups]`; end-of-speech is not drawn.

    Raises:
        ValueError: a graph gives numbers that are not finite.
    """
    longest = max(map(len, prompts)) + FRAMES
    limited = manifest.sizes.talker.model_copy(update={"max_positions": longest})
    sizes = manifest.sizes.model_copy(update={"talker": limited})
    sessions = [open_session(folder / manifest.graphs[name].file, "cpu", 0) for name in ("talker", "code_predictor")]
    rows = Talker(sessions[0], sizes, len(prompts))
    frames, state = CodePredictor(sessions[1], rows.state), rows.state
    nothing_seen = np.zeros(sizes.talker.vocab_size, np.bool_)
    for slot, prompt in enumerate(prompts):
        (logits,), (hidden,) = rows.prefill(slot, prompt)
        state.put(slot, RowOutput(logits, hidden), nothing_seen)
        state.put_text(slot, pad)
    greedy = [np.zeros(sizes.code_predictor.num_code_groups, np.float32)] * len(prompts)
    found: list[Ints] = []
    for frame in range(FRAMES):
        last = found[-1][:, 0] if found else np.full(len(prompts), -1)
        controls = [
            Controls(length=len(prompt) + frame, last_code=int(code), repetition_penalty=REPETITION_PENALTY)
            for prompt, code in zip(prompts, last, strict=True)
        ]
        codes = frames.run(0, control_buffer(controls, greedy))
        if (codes < 0).any():
            raise ValueError("talker or code predictor give numbers that are not finite: the weights are damaged")
        found.append(codes)
        rows.advance(0, len(prompts), longest - FRAMES + frame + 1)
        tick(frame + 1, FRAMES)
    return np.stack(found, axis=1)


def _embed(step: CodePredictorStep, table: Tensor, codes: Tensor) -> Tensor:
    """Embeddings of all codes of frames `[frames, groups]`: `[frames, groups, talker hidden]`."""
    embeddings: Any = step.embeddings
    later = codes[:, 1:] + torch.arange(codes.shape[1] - 1) * step.codes
    return torch.cat([table[codes[:, :1]], embeddings[later]], dim=1)


def _run(module: TorchTalker | CodePredictorStep, x: Tensor) -> Tensor:
    """What a module's stack makes of rows `[rows, positions, hidden]` from nothing, with its final norm."""
    rows, length, _ = x.shape
    total = torch.tensor([length], dtype=torch.int32)
    past = empty_caches(module.sizes, rows, length)
    hidden, delta, _ = module.model(x, past, total.expand(rows) - 1, total, module.cos, module.sin)
    normed: Tensor = module.model.norm(hidden + delta)
    return normed


class Inputs:
    """Keeps, while it is open, what products of a module are fed.

    Args:
        module: with the names of the checkpoint, of which the exporter makes those of the nodes.
        wanted: tells by a node's name whether its inputs are kept.
    """

    def __init__(self, module: nn.Module, wanted: Callable[[str], bool]) -> None:
        # What is joined into one product is traced in the module around it.
        products = {
            f"/{_BETWEEN.sub('/', name)}/MatMul": inner
            for name, inner in module.named_modules()
            if isinstance(inner, MLP | Attention | nn.Linear)
        }
        self._kept: dict[str, list[Tensor]] = {node: [] for node in products if wanted(node)}
        self._hooks = [products[node].register_forward_pre_hook(self._keeper(node)) for node in self._kept]

    def _keeper(self, node: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: self._kept[node].append(given[0].flatten(0, -2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def joined(self) -> dict[str, Tensor]:
        """What was kept, by the node's name."""
        return {node: torch.cat(parts) for node, parts in self._kept.items() if parts}
