"""What both long trainings share: the rate that the time left gives, and running means of weights."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor, nn


@dataclass
class Schedule:
    """A learning rate that rises for `warm_up` steps, stays, and from `fall_from` (a share of the time) on falls to 0.

    Time is the processor's, so that a run that is stopped for a while, or that shares its cores, learns as much.
    `SIGTERM` ends the run after the step that it is in.
    """

    minutes: float
    rate: float
    warm_up: int
    fall_from: float
    steps: int = 0
    _began: float = field(default_factory=time.process_time)
    _asked_to_end: bool = False

    def __post_init__(self) -> None:
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_end = True

    @property
    def seconds(self) -> float:
        """Seconds of processor time of all threads together since the run began."""
        return time.process_time() - self._began

    def next(self) -> float | None:
        """Return the rate of one more step; None if no time is left for it."""
        passed = self.seconds / (60 * self.minutes * torch.get_num_threads())
        if passed >= 1 or self._asked_to_end:
            return None
        self.steps += 1
        rise = min(1.0, self.steps / self.warm_up) if self.warm_up else 1.0
        return self.rate * rise * min(1.0, max(1 - passed, 0.01) / (1 - self.fall_from))


class Mean:
    """A running mean of a module's floating-point state: quieter than the weights that any one step left."""

    def __init__(self, module: nn.Module, horizon: int, state: dict[str, Tensor] | None = None) -> None:
        self._live = [value for value in module.state_dict().values() if value.is_floating_point()]
        self._names = [name for name, value in module.state_dict().items() if value.is_floating_point()]
        self._kept = [state[name].clone() for name in self._names] if state else [value.clone() for value in self._live]
        self._horizon, self._steps = horizon, 0

    @torch.no_grad()
    def update(self) -> None:
        """Add the state after a step. The horizon grows with the steps, so that the first states are soon forgotten."""
        self._steps += 1
        torch._foreach_lerp_(self._kept, self._live, 1 / min(self._horizon, 10 + self._steps / 4))

    def state(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's state with means in the place of values."""
        return {**module.state_dict(), **dict(zip(self._names, self._kept, strict=True))}
