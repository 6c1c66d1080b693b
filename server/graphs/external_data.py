"""Which files beside an ONNX graph hold its weights, read from the graph without ONNX's own library."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")
"""In ONNX's protobuf: a `StringStringEntryProto` whose key is `location`, and its value's length as a varint. Every
serialiser writes the key before the value."""


def external_data(graph: Path) -> set[str]:
    """Names of the files that a graph's tensors lie in, relative to its folder; none where it holds them all itself.

    Args:
        graph: an `.onnx` file.

    Raises:
        OSError: it cannot be read.
    """
    with graph.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:  # an empty file cannot be mapped
            return set()
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return {
                content[found.end() : found.end() + _varint(found[1])].decode("utf-8", "replace")
                for found in _LOCATION.finditer(content)
            }


def _varint(content: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content))
