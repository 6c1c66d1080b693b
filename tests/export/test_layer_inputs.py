"""What the layers are fed while a model speaks, against what the exported graphs feed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from export.calibration import prompts_of
from export.checkpoint import Checkpoint, open_checkpoint
from export.graphs.code_predictor import CodePredictorStep
from export.graphs.files import with_subgraphs
from export.layer_inputs import EVERY, FRAMES, TEXTS, layer_inputs, readable_texts, say_greedily
from export.stages import STAGES, Conversion
from server.engine.bundle import open_prompts
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import CODEC_TABLE, Manifest, read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.closeness import assert_close

KINDS = ("self_attn/MatMul", "self_attn/o_proj/MatMul", "mlp/MatMul", "mlp/down_proj/MatMul")


@pytest.fixture(scope="module")
def folder(bundle_of: Callable[..., Path]) -> Path:
    return bundle_of("short")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


@pytest.fixture(scope="module")
def checkpoint(checkpoint_of: Callable[[str], Path]) -> Checkpoint:
    return open_checkpoint(str(checkpoint_of("short")))


@pytest.fixture(scope="module")
def found(checkpoint: Checkpoint, folder: Path, manifest: Manifest) -> dict[str, dict[str, Tensor]]:
    wanted = {"talker": lambda node: True, "code_predictor": lambda node: "/mlp/" not in node}
    return layer_inputs(checkpoint, folder, manifest, wanted, lambda done, total: None)


@pytest.fixture(scope="module")
def prompts(folder: Path, manifest: Manifest) -> list[np.ndarray]:
    return [prompt.embeddings for prompt in prompts_of(open_prompts(folder, manifest), manifest, TEXTS)]


def test_talker_inputs_are_those_of_the_graph(
    found: dict[str, dict[str, Tensor]], folder: Path, manifest: Manifest, prompts: list[np.ndarray]
) -> None:
    nodes = [f"/model/layers.{layer}/{kind}" for layer in range(manifest.sizes.talker.num_layers) for kind in KINDS]
    assert sorted(found["talker"]) == sorted(nodes)
    model = onnx.load(folder / "talker.onnx")
    sources = {node.name: node.input[0] for node in model.graph.node if node.name in nodes}
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in sources.values())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first = prompts[0]
    length = np.array([len(first)], np.int32)
    caches = {
        value.name: np.zeros((1, value.shape[1], len(first), value.shape[3]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past.")
    }
    feed = {"inputs_embeds": first[None], "lengths": length, "total_length": length, **caches}
    for name, values in zip(sources, session.run(list(sources.values()), feed), strict=True):
        assert_close(found["talker"][name][: len(first)].numpy(), values[0])


def test_the_code_predictor_is_fed_hidden_states_and_codes(
    found: dict[str, dict[str, Tensor]],
    checkpoint: Checkpoint,
    folder: Path,
    manifest: Manifest,
    prompts: list[np.ndarray],
) -> None:
    sizes = manifest.sizes.code_predictor
    said = say_greedily(folder, manifest, prompts, open_prompts(folder, manifest).pad, lambda *_: None)
    assert said.shape == (len(TEXTS), FRAMES, sizes.num_code_groups)
    kept = found["code_predictor"]
    assert sorted(kept) == sorted(
        f"/model/layers.{layer}/{kind}" for layer in range(sizes.num_layers) for kind in KINDS if "self_attn" in kind
    )
    fed = kept["/model/layers.0/self_attn/MatMul"].unflatten(0, (-1, sizes.num_code_groups))
    assert len(fed) == len(TEXTS) * FRAMES // EVERY
    step = CodePredictorStep.from_checkpoint(checkpoint)
    norm, table = step.model.layers[0].input_layernorm, torch.from_numpy(np.load(folder / CODEC_TABLE))
    for number, frame in enumerate(torch.from_numpy(said[1, ::EVERY]), FRAMES // EVERY):
        embedded = [table[frame[0]]]
        embedded += [step.embeddings[code + index * step.codes] for index, code in enumerate(frame[1:-1])]
        assert_close(fed[number, 1:].numpy(), norm(torch.stack(embedded)).numpy())
    talker = Talker(open_session(folder / "talker.onnx", "cpu", 1), manifest.sizes, 1)
    _, hidden = talker.prefill(0, prompts[1])
    assert_close(fed[FRAMES // EVERY, 0].numpy(), norm(torch.from_numpy(hidden))[0].numpy())


def test_errors_are_fed_back_in_a_checkpoint_like_the_larger_base(
    checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """It clones voices, and its code predictor, which is narrower than its talker, has a matrix in front."""
    checkpoint = open_checkpoint(str(checkpoint_of("Base 1.7B-like")))
    context = Conversion(checkpoint, tmp_path, "voice", precision="int4", validate=False)
    for stage in STAGES[: [stage.name for stage in STAGES].index("quantisation") + 1]:
        stage.run(context)
    model = onnx.load(tmp_path / "code_predictor.onnx", load_external_data=False)
    products = [node for graph in with_subgraphs(model.graph) for node in graph.node if node.op_type == "MatMulNBits"]
    bits = {node.name: next(one.i for one in node.attribute if one.name == "bits") for node in products}
    assert bits["/small_to_mtp_projection/MatMul"] == 4
    assert {stored for name, stored in bits.items() if name.startswith("/model/layers.")} == {4}


def test_texts_that_a_model_cannot_read_are_left_out_unless_those_are_all() -> None:
    """Error feedback wants inputs of some speech, whatever it is about."""
    manifest = read_manifest(RANDOM_BUNDLE)
    english = manifest.model_copy(update={"alphabet": "".join(sorted(set("".join(TEXTS[:3]))))})
    assert 3 <= len(readable_texts(english)) < len(TEXTS)
    georgian = manifest.model_copy(update={"alphabet": "\u10d0\u10d1\u10d2 ."})
    assert len(readable_texts(georgian)) == len(readable_texts(manifest)) == len(TEXTS)
