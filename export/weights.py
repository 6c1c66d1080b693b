"""Tensors of a safetensors checkpoint, whole or sharded, read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_AT_ONCE = 1 << 24
"""Values that are looked at together, so that a table of 311 million takes no memory to speak of."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be converted; the message names the file or tensor and what was expected."""


def read_json(folder: Path, name: str, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object in `folder/name`; `{}` where the file is `optional` and missing.

    Raises:
        CheckpointError: the file is missing, cannot be read, or holds something else.
    """
    path = folder / name
    if optional and not path.exists():
        return {}
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{name} is missing in {folder}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return document


class Weights:
    """All tensors below one folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.

    Raises:
        CheckpointError: a file is missing or truncated.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = {SINGLE} if (folder / SINGLE).exists() else self._shards()
        self._files = {name: self._open(folder / name) for name in sorted(files)}
        self._file_of = {tensor: name for name, file in self._files.items() for tensor in file.keys()}  # noqa: SIM118

    def _shards(self) -> set[str]:
        if not (self.folder / INDEX).exists():
            raise CheckpointError(f"{SINGLE} is missing in {self.folder} (and so is {INDEX})")
        shards = read_json(self.folder, INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise CheckpointError(f"{self.folder / INDEX} has no usable weight_map")
        return set(shards.values())

    @staticmethod
    def _open(path: Path) -> Any:
        try:
            return safe_open(path, framework="pt")
        except FileNotFoundError:
            raise CheckpointError(f"{path.name} is missing in {path.parent}") from None
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is truncated or damaged ({error}); download or copy it again") from error

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def names(self, prefix: str) -> list[str]:
        """Full names that begin with `prefix`."""
        return [name for name in self._file_of if name.startswith(prefix)]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._files[self._file_of[name]].get_slice(name).get_shape())

    def parameters(self, prefix: str) -> int:
        """Number of values in all tensors whose names begin with `prefix`."""
        return sum(prod(self.shape(name)) for name in self.names(prefix))

    def in_halves(self, prefix: str) -> bool:
        """Whether every tensor whose name begins with `prefix` is stored in float16."""
        return all(self._files[self._file_of[name]].get_slice(name).get_dtype() == "F16" for name in self.names(prefix))

    def read(self, name: str) -> Tensor:
        """The tensor in its stored dtype."""
        tensor: Tensor = self._files[self._file_of[name]].get_tensor(name)
        return tensor

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Compare names and shapes with what is there.

        Raises:
            CheckpointError: naming the first tensors that are missing or have another shape.
        """
        faults = []
        for name, shape in expected.items():
            if name not in self:
                faults.append(f"{name} {list(shape)} is missing")
            elif (found := self.shape(name)) != shape:
                faults.append(f"{name}: expected {list(shape)}, found {list(found)} in {self._file_of[name]}")
        if faults:
            more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
            raise CheckpointError(f"tensors of {self.folder} do not fit its config: {'; '.join(faults[:3])}{more}")

    def check_finite(self, name: str) -> None:
        """Read a tensor, and see that float32 has all of its values.

        Raises:
            CheckpointError: it holds NaN, or infinity once it is float32.
        """
        values = self.read(name).flatten()
        odd = 0
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE].to(torch.float32)
            if not part.sum().isfinite():  # several times as fast, and a sum of large numbers is looked at again
                odd += int((~part.isfinite()).sum())
        if odd:
            raise CheckpointError(
                f"{name} in {self.folder / self._file_of[name]} has {odd} of {len(values)} values that are no "
                "finite numbers: the weights are damaged; download or copy them again"
            )
