"""Keeps the talker's keys and values of prompts' beginnings: who speaks, in which language, by which instruction."""

from __future__ import annotations

from collections import OrderedDict

from server.engine.prefill import SLICE_POSITIONS, Prefill
from server.graphs.caches import Saved
from server.graphs.talker import Talker, TalkerOutput

CACHE_BYTES = 64 << 20
"""Bytes of all prefixes kept. A prefix of the 0.6B takes 0.23 MB a position in float32, and a quarter of that in int8:
2 MB without an instruction, about 10 MB with one."""
LARGEST_SHARE = 0.5
"""A prefix that would take more than this part of the cache is not kept: it is a long instruction, and many voices'
prefixes would have to go for it."""


class PrefixCache:
    """Prefills prompts slice by slice, reusing the prefixes met last.

    A prompt is cut at the end of its prefix and every `SLICE_POSITIONS` from the beginning of either part, whatever
    else is under way, so that it gives the same numbers each time, whether its prefix was known or not.

    Args:
        talker: whose slots are filled.
        max_bytes: of keys and values kept.
    """

    def __init__(self, talker: Talker, max_bytes: int = CACHE_BYTES) -> None:
        self._talker = talker
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Saved] = OrderedDict()

    def positions(self, prefill: Prefill) -> int:
        """Length of a prefill's next slice."""
        start = self._known(prefill)
        return self._stop(prefill, start) - start

    def advance(self, prefill: Prefill) -> TalkerOutput:
        """Put the next slice of a prompt into its slot; the output is that of the slice's last position."""
        prompt, start = prefill.job.prompt, self._known(prefill)
        if start > prefill.length:
            self._kept.move_to_end(prompt.key)
            self._talker.restore(prefill.slot, self._kept[prompt.key])
        prefill.length = self._stop(prefill, start)
        output = self._talker.prefill(prefill.slot, prompt.embeddings[start : prefill.length], past=start)
        if prefill.length == prompt.prefix and self._talker.caches_copy_fast:
            self._keep(prefill)
        return output

    def _known(self, prefill: Prefill) -> int:
        """Positions that need not be prefilled any more."""
        prompt = prefill.job.prompt
        return prompt.prefix if not prefill.length and prompt.key in self._kept else prefill.length

    def _stop(self, prefill: Prefill, start: int) -> int:
        prompt = prefill.job.prompt
        whole = start >= prompt.prefix or not self._talker.caches_copy_fast
        return min(start + SLICE_POSITIONS, len(prompt) if whole else prompt.prefix)

    def _keep(self, prefill: Prefill) -> None:
        """Keep a prefix, unless it is so long that all others would have to go for it."""
        key, size = prefill.job.prompt.key, prefill.length * _size(self._talker.save(prefill.slot, 1))
        if key in self._kept or size > self._max_bytes * LARGEST_SHARE:
            return
        while self._bytes + size > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)
        self._kept[key] = self._talker.save(prefill.slot, prefill.length)
        self._bytes += size


def _size(saved: Saved) -> int:
    return sum(array.nbytes for array in saved)
