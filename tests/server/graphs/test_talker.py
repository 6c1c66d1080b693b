"""The talker's caches: how much memory they take, and that rows can change places."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle
from server.graphs.caches import cache_bytes, cache_shape
from server.graphs.cuda.caches import DeviceCaches
from server.graphs.cuda.views import Views
from server.graphs.session import open_session
from tests.bundles import RANDOM_BUNDLE
from tests.closeness import assert_close

SLOTS = 3


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=SLOTS)


def on_a_device(bundle: OpenBundle) -> DeviceCaches:
    """The caches that CUDA gets; the host is a device too."""
    graph, sizes = bundle.manifest.graphs["talker"], bundle.manifest.sizes.talker
    session = open_session(RANDOM_BUNDLE / graph.file, "cpu", 1)
    types = ["tensor(float)"] * 2 * sizes.num_layers
    return DeviceCaches(Views(session, "cpu"), types, cache_shape(sizes, SLOTS))


def test_caches_on_a_device_save_and_restore(bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    random, talker = np.random.default_rng(1), bundle.talker
    prompt, step = (random.normal(size=(n, talker.sizes.hidden_size)).astype(np.float32) for n in (7, 1))
    talker.prefill(0, prompt)
    expected = talker.decode(0, step, np.array([7], np.int32))
    monkeypatch.setattr(talker, "_caches", on_a_device(bundle))
    talker.prefill(0, prompt)
    saved = talker.save(0, 7)
    talker.prefill(1, prompt[::-1])
    talker.restore(1, saved)
    for slot in (0, 1):
        found = talker.decode(slot, step, np.array([7], np.int32))
        assert_close(found.logits, expected.logits)


def test_memory_is_that_of_the_graphs_caches(bundle: OpenBundle) -> None:
    sizes = bundle.manifest.sizes.talker
    specs = [spec for spec in bundle.manifest.graphs["talker"].inputs if spec.name.startswith("past.")]
    assert {len(spec.shape) for spec in specs} == {4}
    positions = [prod(length for length in spec.shape if isinstance(length, int)) for spec in specs]
    item = {np.dtype(spec.dtype).itemsize for spec in specs}
    assert [cache_bytes(bundle.manifest, SLOTS)] == [
        size * SLOTS * sizes.max_positions * sum(positions) for size in item
    ]


def test_memory_of_the_real_sizes(bundle: OpenBundle) -> None:
    """0.6B: 2 * 28 layers * 8 heads * 128 numbers of 4 bytes make 224 KiB a position."""
    sizes = bundle.manifest.sizes.talker
    real = {"num_layers": 28, "num_kv_heads": 8, "head_dim": 128, "max_positions": 8192}

    def bytes_of(dtype: str, **other: int) -> int:
        talker, graph = sizes.model_copy(update=real | other), bundle.manifest.graphs["talker"]
        specs = [
            spec.model_copy(update={"dtype": dtype}) if spec.name.startswith("past.") else spec for spec in graph.inputs
        ]
        graphs = bundle.manifest.graphs | {"talker": graph.model_copy(update={"inputs": specs})}
        update = {"graphs": graphs, "sizes": bundle.manifest.sizes.model_copy(update={"talker": talker})}
        return cache_bytes(bundle.manifest.model_copy(update=update), 8)

    assert bytes_of("float32") == 8 * 8192 * 224 * 1024
    assert bytes_of("float32", head_dim=120) == bytes_of("float32"), "padded for the kernel"
    assert bytes_of("bfloat16") == bytes_of("float16") == bytes_of("float32") // 2
    assert bytes_of("int8") == bytes_of("float32") // 4


@pytest.mark.parametrize("device_caches", [False, True])
def test_rows_that_change_places_go_on_as_before(
    bundle: OpenBundle, device_caches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, talker = np.random.default_rng(0), bundle.talker
    if device_caches:
        monkeypatch.setattr(talker, "_caches", on_a_device(bundle))
    size = talker.sizes.hidden_size
    prompts = [random.normal(size=(length, size)).astype(np.float32) for length in (9, 4)]
    step = random.normal(size=(2, size)).astype(np.float32)
    for slot, prompt in enumerate(prompts):
        talker.prefill(slot, prompt)
    expected = talker.decode(0, step, np.array([9, 4], np.int32))
    for slot, prompt in enumerate(prompts):
        talker.prefill(slot, prompt)
    talker.swap(0, 1, 9)
    talker.swap(0, 2, 4)  # to a slot that is free
    found = talker.decode(1, step, np.array([9, 4], np.int32))
    assert_close(found.logits, expected.logits)
