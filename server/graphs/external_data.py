"""The files beside an ONNX graph that hold its weights, found in the graph without ONNX's own library."""

from __future__ import annotations

import mmap
import os
import re
import shutil
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


def copy_links(graph: Path) -> bool:
    """Put copies in the place of links to the files of a graph's weights; return whether there were any.

    ONNX's checker, to which ONNX Runtime gives every node that has a graph inside, refuses weights in symbolic links
    and in files that have several names. Tools that install packages from a cache make such files, as uv does.

    Raises:
        OSError: a file cannot be copied, or the folder cannot be written to.
    """
    paths = [graph.parent / name for name in external_data(graph)]
    linked = [path for path in paths if path.is_symlink() or (path.exists() and path.stat().st_nlink > 1)]
    for path in linked:
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            shutil.copyfile(path, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return bool(linked)


def _varint(content: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content))
