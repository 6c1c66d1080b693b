"""A frame of a bf16 or fp16 bundle: two graphs that hand each other their tensors where the kernels run.

A GPU would wait for the host between talker and code predictor if the host drew code 0 or carried the embedding over.
So the code predictor's graph draws it too, by the arithmetic of `server.engine.sampling`, and leaves the talker's next
input where the talker reads it. What goes up is one buffer a frame (`Controls`, some hundred bytes a row: uniforms and
lengths change at every frame, and the rest is too small for a second buffer that goes up when rows change); what comes
back is the codes. A CPU runs the same graphs in the same way, the host's memory being its device's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.cuda.device_memory import BOOL, FLOAT32, INT32, SlotBuffer, Views
from server.graphs.cuda.static_call import NO_GRAPH, StaticCall, run_options
from server.graphs.talker import Talker, TalkerOutput
from server.manifest import Sizes

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

UNFIT = -1
"""Code 0 of a row whose logits or hidden state are not finite."""


class Controls(NamedTuple):
    """What one row tells a frame; all of it is sent as float32, in which whole numbers up to 2^24 are exact.

    `temperature` and `predictor_temperature` above 0, `top_k` from 1 on, `top_p` in (0, 1]; greedy is a uniform of 0.
    """

    length: int = 0
    """Positions in the row's slot, below the talker's most."""
    last_code: int = -1
    """Code 0 of the row's last frame, which the repetition penalty then knows; -1 is none."""
    may_end: bool = False
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 1
    top_p: float = 1.0
    predictor_temperature: float = 1.0
    predictor_top_k: int = 1
    predictor_top_p: float = 1.0


IDLE = Controls()
"""Of a slot between others that has no row in this frame: what it gives is thrown away."""


def control_buffer(controls: Sequence[Controls], uniforms: Sequence[Floats]) -> Floats:
    """What goes up for a frame: `[rows, len(Controls._fields) + groups]`, the uniforms `[groups]` of each row last."""
    return np.concatenate((np.array(controls, np.float32), np.stack(uniforms)), axis=1)


class FrameState:
    """What talker and code predictor hand each other, one row a slot.

    Args:
        session: any on the device.
        sizes: from the manifest.
        slots: rows that can be under way at once.
        device: cpu or cuda.
    """

    def __init__(self, session: ort.InferenceSession, sizes: Sizes, slots: int, device: str) -> None:
        views, talker = Views(session, device), sizes.talker
        self.logits = SlotBuffer(views, FLOAT32, (slots, talker.vocab_size))
        self.hidden = SlotBuffer(views, FLOAT32, (slots, talker.hidden_size))
        self.seen = SlotBuffer(views, BOOL, (slots, talker.vocab_size))
        """Codes 0 that the repetition penalty holds for."""
        self.inputs = SlotBuffer(views, FLOAT32, (slots, 1, talker.hidden_size))
        """What the talker is fed next."""
        self.lengths = SlotBuffer(views, INT32, (slots,))
        """Positions with that one."""

    def put(self, slot: int, output: TalkerOutput, seen: NDArray[np.bool_]) -> None:
        """Bring a row into its slot: `logits` `[vocab_size]`, `hidden` `[hidden_size]`, `seen` `[vocab_size]`."""
        self.logits.put(slot, output.logits)
        self.hidden.put(slot, output.hidden)
        self.seen.put(slot, seen)

    def get(self, slot: int) -> TalkerOutput:
        """A copy of a row's `logits` `[vocab_size]` and `hidden` `[hidden_size]`."""
        return TalkerOutput(self.logits.get(slot), self.hidden.get(slot))


class DeviceTalker(Talker):
    """A talker that also decodes from a `FrameState`.

    Args:
        session: of `talker.onnx`.
        sizes: from the manifest.
        slots: rows that can be under way at once.
        device: cpu or cuda.
        captured: whether the session captures CUDA graphs.
    """

    def __init__(
        self, session: ort.InferenceSession, sizes: Sizes, slots: int, device: str, *, captured: bool = False
    ) -> None:
        super().__init__(session, sizes.talker, slots, device)
        self._captured = captured
        self._calls: dict[tuple[int, int], StaticCall] = {}
        self.state = FrameState(session, sizes, slots, device)

    def advance(self, start: int, stop: int, longest: int) -> None:
        """Feed slots `start` to `stop` what their state holds for them, and leave their logits and hidden states there.

        Args:
            start: first slot.
            stop: behind the last one.
            longest: of the slots' lengths with the new position.
        """
        if (start, stop) not in self._calls:
            self._calls[start, stop] = self._call(start, stop)
        self._calls[start, stop].run({} if self._captured else {"total_length": np.array([longest], np.int32)})

    def _call(self, start: int, stop: int) -> StaticCall:
        """A captured graph has `total_length` as it was, which then must be the longest that there can be: it says how
        far the caches go, and `lengths` how far a row does."""
        past, following = self.caches(start, stop)
        state = self.state
        return StaticCall(
            self.session,
            self.device,
            _graph_id(start, stop, self.slots),
            kept_inputs=past
            | {"inputs_embeds": state.inputs.view(start, stop), "lengths": state.lengths.view(start, stop)},
            kept_outputs=following
            | {"logits": state.logits.view(start, stop), "hidden": state.hidden.view(start, stop)},
            on_host={"total_length": np.array([self.sizes.max_positions], np.int32)},
        )


class DevicePredictor:
    """The code predictor of a bundle for a GPU, which draws code 0 too.

    Args:
        session: of `code_predictor.onnx`.
        talker: whose state it works on.
        groups: codes of a frame.
        text_pad: text side of every position after the prompt, `[hidden_size]`.
    """

    def __init__(self, session: ort.InferenceSession, talker: DeviceTalker, groups: int, text_pad: Floats) -> None:
        self._session, self._talker, self._groups = session, talker, groups
        self._pad = ort.OrtValue.ortvalue_from_numpy(text_pad, talker.device, 0)
        self._calls: dict[tuple[int, int], StaticCall] = {}

    def run(self, start: int, controls: Floats) -> Ints:
        """Draw a frame for each of the neighbouring slots from `start` on.

        Args:
            start: first slot.
            controls: as `control_buffer` gives them, `[rows, ...]`.

        Returns:
            Codes `[rows, groups]`; code 0 may be end-of-speech or `UNFIT`.
        """
        stop = start + len(controls)
        if (start, stop) not in self._calls:
            self._calls[start, stop] = self._call(start, stop, controls)
        (codes,) = self._calls[start, stop].run({"controls": controls})
        return codes

    def _call(self, start: int, stop: int, controls: Floats) -> StaticCall:
        state, device, shape = self._talker.state, self._talker.device, (stop - start, self._groups)
        seen = state.seen.view(start, stop)
        return StaticCall(
            self._session,
            device,
            _graph_id(start, stop, self._talker.slots),
            inputs={"controls": controls},
            outputs={"codes": (shape, np.int64)},
            kept_inputs={
                "talker_logits": state.logits.view(start, stop),
                "hidden": state.hidden.view(start, stop),
                "seen": seen,
                "forced_codes": ort.OrtValue.ortvalue_from_numpy(np.full(shape, -1, np.int64), device, 0),
                "text_pad": self._pad,
            },
            kept_outputs={
                "next_seen": seen,
                "inputs_embeds": state.inputs.view(start, stop),
                "lengths": state.lengths.view(start, stop),
            },
        )


def forced_logits(session: ort.InferenceSession, hidden: Floats, codes: Ints) -> Floats:
    """Teacher forcing, for measurements, as `CodePredictor.logits` does it."""
    (rows, groups), sizes = codes.shape, {value.name: value.shape for value in session.get_inputs()}
    _, vocab_size = sizes["talker_logits"]
    feed = {
        "controls": control_buffer([IDLE] * rows, [np.zeros(groups, np.float32)] * rows),
        "talker_logits": np.zeros((rows, vocab_size), np.float32),
        "hidden": hidden,
        "seen": np.zeros((rows, vocab_size), np.bool_),
        "forced_codes": codes,
        "text_pad": np.zeros(hidden.shape[1], np.float32),
    }
    (logits,) = session.run(["logits"], feed, run_options(NO_GRAPH))
    return logits  # type: ignore[no-any-return]


def _graph_id(start: int, stop: int, slots: int) -> int:
    """One for each window of slots, above 0."""
    return 1 + start * slots + stop - 1
