"""Tensors over parts of others, in a device's memory: ONNX Runtime's Python interface knows whole tensors only."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

FLOAT32, INT32, INT64, BOOL, FLOAT16, BFLOAT16 = 1, 6, 7, 9, 10, 16
"""ONNX's numbers of these types (https://onnx.ai/onnx/api/mapping.html); NumPy has no name for the last."""


class Bits(NamedTuple):
    """An unsigned type of the same size, as ONNX and NumPy call it."""

    element_type: int
    dtype: np.dtype


_UINT16, _UINT32 = Bits(4, np.dtype(np.uint16)), Bits(12, np.dtype(np.uint32))
BITS = {FLOAT32: _UINT32, FLOAT16: _UINT16, BFLOAT16: _UINT16, _UINT16.element_type: _UINT16, 12: _UINT32}


class Views:
    """Makes tensors over the memory of others, which must outlive them.

    Args:
        session: any on that device; its bindings make tensors over addresses.
        device: where the memory is, as ONNX Runtime calls it.
    """

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self.device = device
        self._lock = threading.Lock()  # the codec decoder has a thread of its own
        self._binding, self._output = session.io_binding(), session.get_outputs()[0].name

    def over(
        self, value: ort.OrtValue, element_type: int, itemsize: int, first: int, shape: Sequence[int]
    ) -> ort.OrtValue:
        """A tensor over part of another's memory, from its item `first` on: what is bound is at once a tensor."""
        address = value.data_ptr() + first * itemsize
        with self._lock:
            self._binding.bind_output(self._output, self.device, 0, element_type, shape, address)
            (part,) = self._binding.get_outputs()
        return part
