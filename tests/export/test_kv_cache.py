"""The KV cache in 8 bits: what ONNX Runtime computes with it, where its scales come from, and when it is taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import export.kv_cache
from export.calibration import Spoken, spoken
from export.convert import main, parse_arguments
from export.graphs.operators import rotate
from export.kv_cache import HEADROOM, LARGEST, agreement, quantise_cache, scales_of, try_cache
from export.quantise import PRECISIONS
from export.stages import quantises
from server.graphs.bound_call import BoundCall
from server.manifest import read_manifest
from tests.closeness import assert_close
from tests.conversions import Conversion
from tests.int8_cache import silent

HEADS, KV_HEADS, HEAD_DIM, CAPACITY = 4, 2, 16, 12
CACHE = [KV_HEADS, CAPACITY, HEAD_DIM]


def attention_graph(random: np.random.Generator, angles: np.ndarray) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """One attention over a cache in 8 bits, and its scales: some too small for what comes, and one of nothing."""
    sizes = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "new", heads * HEAD_DIM])
        for name, heads in sizes.items()
    ]
    shape = ["rows", KV_HEADS, "capacity", HEAD_DIM]
    past, after = (
        [helper.make_tensor_value_info(f"{when}.0.{part}", TensorProto.FLOAT, shape) for part in ("key", "value")]
        for when in ("past", "next")
    )
    inputs += [*past, helper.make_tensor_value_info("last", TensorProto.INT32, ["rows"])]
    inputs.append(helper.make_tensor_value_info("total", TensorProto.INT32, [1]))
    tables = [numpy_helper.from_array(table(angles), name) for name, table in (("cos", np.cos), ("sin", np.sin))]
    node = helper.make_node(
        "GroupQueryAttention",
        [*(value.name for value in inputs), "cos", "sin"],
        ["attended", *(value.name for value in after)],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        do_rotary=1,
    )
    attended = helper.make_tensor_value_info("attended", TensorProto.FLOAT, ["rows", "new", HEADS * HEAD_DIM])
    graph = helper.make_graph([node], "attention", inputs, [attended, *after], tables)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    scales = [random.uniform(0.01, 0.04, (1, KV_HEADS, 1, HEAD_DIM)).astype(np.float32) for _ in range(2)]
    scales[1][..., -1] = 0
    quantise_cache(model, scales)
    onnx.checker.check_model(model)
    return model, scales


def heads_of(x: np.ndarray, heads: int) -> np.ndarray:
    """`[rows, new, heads * head_dim]` -> `[rows, heads, new, head_dim]`."""
    return x.reshape(*x.shape[:2], heads, HEAD_DIM).transpose(0, 2, 1, 3)


def rounded(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a cache holds of values `[rows, kv_heads, new, head_dim]`."""
    inverse = np.where(scale, 1 / np.where(scale, scale, 1), 1).astype(np.float32)
    return np.clip(np.rint(x * inverse), -128, 127).astype(np.int8)


def test_the_kernel_attends_to_what_the_cache_holds() -> None:
    """Rows of several lengths, a padded prompt, single positions and a slice behind them, in place."""
    random = np.random.default_rng(0)
    angles = random.uniform(0, 6, (CAPACITY, HEAD_DIM // 2)).astype(np.float32)
    model, (key_scale, value_scale) = attention_graph(random, angles)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    caches = [random.integers(-128, 128, (2, *CACHE), np.int8) for _ in range(2)]  # an old tenant's
    cos, sin = torch.from_numpy(np.cos(angles)), torch.from_numpy(np.sin(angles))

    def run(rows: slice, starts: list[int], counts: list[int], new: int) -> None:
        total = max(start + count for start, count in zip(starts, counts, strict=True))
        given = {
            name: random.normal(size=(len(starts), new, heads * HEAD_DIM)).astype(np.float32)
            for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS))
        }
        last = np.array([start + count - 1 for start, count in zip(starts, counts, strict=True)], np.int32)
        inputs = given | {"last": last, "total": np.array([total], np.int32)}
        attended, held = np.zeros((len(starts), new, HEADS * HEAD_DIM), np.float32), [cache[rows] for cache in caches]
        inputs |= dict(zip(("past.0.key", "past.0.value"), held, strict=True))
        outputs = {"attended": attended} | dict(zip(("next.0.key", "next.0.value"), held, strict=True))
        values = [
            {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in each.items()}
            for each in (inputs, outputs)
        ]
        BoundCall(session, *values).run()
        for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
            place = slice(start, start + count)
            q, k = (
                rotate(
                    torch.from_numpy(heads_of(given[name], heads)), cos[start : start + new], sin[start : start + new]
                )
                for name, heads in (("q", HEADS), ("k", KV_HEADS))
            )
            key = rounded(k.numpy(), key_scale)[row, :, :count].astype(int)
            assert np.abs(held[0][row, :, place] - key).max() <= 1, "sines are rounded otherwise"
            assert (held[0][row, :, place] == key).mean() > 0.99
            value = rounded(heads_of(given["v"], KV_HEADS), value_scale)[row, :, :count]
            np.testing.assert_array_equal(held[1][row, :, place], value)
            keys, contents = (
                (cache[row] * scale[0])[:, : start + count].repeat(HEADS // KV_HEADS, 0)
                for cache, scale in zip(held, (key_scale, value_scale), strict=True)
            )
            scores = q.numpy()[row, :, :count] @ keys.transpose(0, 2, 1) / np.sqrt(HEAD_DIM)
            hidden = np.arange(start + count)[None] > np.arange(start, start + count)[:, None]
            weights = np.exp(np.where(hidden, -np.inf, scores))
            expected = (weights / weights.sum(-1, keepdims=True)) @ contents
            assert_close(heads_of(attended, HEADS)[row, :, :count], expected)

    run(slice(0, 2), [0, 0], [5, 3], 5)
    assert {-128, 127} <= set(caches[0].ravel()), "some are clipped"
    run(slice(0, 2), [5, 3], [1, 1], 1)
    run(slice(0, 2), [6, 4], [1, 1], 1)
    run(slice(0, 1), [7], [4], 4)
    run(slice(0, 2), [11, 5], [1, 1], 1)


def of_caches(*caches: np.ndarray) -> Spoken:
    none = np.zeros((0, 0), np.float32)
    return Spoken(np.zeros((0, 0), np.int64), none, none, none, list(caches))


def test_a_scale_reaches_what_a_channel_holds_at_any_position() -> None:
    """Rotation makes of a pair of channels any vector of the same length; values stay as they are."""
    key, value = np.zeros((2, 1, 2, 4), np.float32)
    key[0, 0] = 3, 0, 4, 0
    key[0, 1] = 0, -2, 0, 0
    value[0, :, 1] = 6, -7
    ((found_keys,),), ((found_values,),) = (scale[0] for scale in scales_of([of_caches(key, value)]))
    assert_close(found_keys * LARGEST / HEADROOM, [[5, 2, 5, 2]][0])
    assert_close(found_values * LARGEST / HEADROOM, [0, 7, 0, 0])
    louder = scales_of([of_caches(key, value), of_caches(10 * key, value / 2)])
    assert_close(louder[0][0, 0, 0] * LARGEST / HEADROOM, [50, 20, 50, 20])
    assert_close(louder[1][0, 0, 0] * LARGEST / HEADROOM, [0, 7, 0, 0])


@pytest.fixture
def copied(bundle_of: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle with a float32 cache."""
    return shutil.copytree(bundle_of("short"), tmp_path / "short")


def test_what_was_said_is_said_again(copied: Path) -> None:
    manifest = read_manifest(copied)
    said = spoken(copied, manifest, silent)
    found = agreement(copied / "talker.onnx", manifest, said)
    assert (found.equal, found.compared) == (found.compared, sum(len(one.codes) for one in said))
    assert found.enough


def test_few_codes_change_and_those_are_counted(copied: Path) -> None:
    manifest = read_manifest(copied)
    said = spoken(copied, manifest, silent)
    found = try_cache(copied, manifest, said, force=True)
    assert found.compared == sum(len(one.codes) for one in said)
    assert found.enough
    coarse = [100 * scale for scale in scales_of(said)]
    model = onnx.load(bundle_talker := copied / "talker.onnx")
    for tensor, scale in zip([t for t in model.graph.initializer if t.name.endswith(".scales")], coarse, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
    onnx.save(model, bundle_talker)
    worse = agreement(bundle_talker, manifest, said)
    assert not worse.enough


def test_a_cache_that_changes_too_much_is_not_taken(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = read_manifest(copied)
    said, before = spoken(copied, manifest, silent), {path.name: path.read_bytes() for path in copied.iterdir()}
    monkeypatch.setattr(export.kv_cache, "LEAST_AGREEMENT", 1.01)
    assert not try_cache(copied, manifest, said, force=False).enough
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def options(checkpoint: Path, output: Path, *more: str) -> list[str]:
    return ["--model", str(checkpoint), "--output", str(output), "--precision", "int8", *more]


@pytest.mark.parametrize("asked", ["int8", "float32", "auto"])
def test_the_command_takes_and_reports_it(
    asked: str, checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """`auto` with a limit that nothing meets."""
    monkeypatch.setattr(export.kv_cache, "LEAST_AGREEMENT", 1.01)
    output = tmp_path / "voice"
    assert main(options(checkpoint_of("least"), output, "--kv-cache", asked)) == 0
    manifest, printed = read_manifest(output), capsys.readouterr().out
    kind = "int8" if asked == "int8" else "float32"
    assert manifest.kv_cache == kind
    assert {path.name for path in output.iterdir()} == {*manifest.files, "manifest.json"}
    assert ("note: the KV cache stays in float32" in printed) == (asked == "auto")
    if asked == "float32":
        assert "kv_cache" not in manifest.parity
        assert "KV cache:" not in printed
    else:
        kept = manifest.parity["kv_cache"]
        assert kept["type"] == kind
        assert 0.8 * kept["compared"] < kept["equal_in_int8"] <= kept["compared"]
        assert f"KV cache: {kind}; in int8 {kept['equal_in_int8']} of {kept['compared']} greedy codes" in printed


def test_by_default_it_is_int8_where_few_codes_change(conversion_of: Callable[..., Conversion]) -> None:
    manifest = read_manifest(conversion_of("short", "int8").bundle)
    kept = manifest.parity["kv_cache"]
    enough = kept["equal_in_int8"] >= export.kv_cache.LEAST_AGREEMENT * kept["compared"]
    assert manifest.kv_cache == kept["type"] == ("int8" if enough else "float32")


@pytest.mark.parametrize("precision", [one for one in PRECISIONS if quantises(one)])
def test_it_can_be_asked_for_wherever_it_is_taken(precision: str) -> None:
    assert parse_arguments(["--precision", precision, "--kv-cache", "int8"]).kv_cache == "int8"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_for_quantised_weights_alone(
    precision: str, bundle_of: Callable[..., Path], tmp_path: Path, capsys
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--model", str(tmp_path), "--precision", precision, "--kv-cache", "int8"])
    assert stopped.value.code == 2
    assert "--kv-cache int8 goes with --precision int8, w8a8, mixed, int4" in capsys.readouterr().err
    assert read_manifest(bundle_of("short", precision)).kv_cache == {"fp32": "float32", "bf16": "bfloat16"}[precision]
