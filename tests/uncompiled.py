"""librosa as plain Python.

Where it has never been imported, numba spends 20 s on compiling what stands beside the functions that are called.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numba


def _as_it_is(*called: Any, **_options: Any) -> Any:
    """A decorator that leaves a function as it is, with or without options."""
    return called[0] if called and callable(called[0]) else lambda function: function


def import_uncompiled(*names: str) -> list[ModuleType]:
    """Import modules of librosa, and what they import of it, without compiling any function.

    Args:
        names: with those of modules that would otherwise be imported when a function is called.
    """
    with patch.multiple(numba, jit=_as_it_is, guvectorize=_as_it_is, vectorize=_as_it_is, stencil=_as_it_is):
        return [importlib.import_module(name) for name in names]
