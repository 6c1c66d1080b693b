"""What belongs to windows of neighbouring slots, such as tensors over their memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Windows(Generic[T]):
    """A value for each of the windows that were used last: there are quadratically many windows, and few in use.

    Args:
        most: windows that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, int], T] = OrderedDict()

    def get(
        self, start: int, stop: int, make: Callable[[], T], *, still_right: Callable[[T], bool] = lambda kept: True
    ) -> T:
        """The value of slots `start` to `stop`, made where none is kept that is `still_right`."""
        value = self._kept.pop((start, stop), None)
        if value is None or not still_right(value):
            value = make()
        self._kept[start, stop] = value
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return value

    def clear(self) -> None:
        """Keep none."""
        self._kept.clear()
