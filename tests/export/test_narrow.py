"""bf16 and fp16 graphs for CUDA: well formed, nothing in them that CUDA lacks, and the same codes as the CPU's graphs.

No test here has seen a GPU. What CPU kernels lack is checked by type and structure, and by the same graph in float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest

from export.graphs.cuda.narrow import check_graph
from export.graphs.cuda.pooled import CHUNK, MOST_JOINED
from server.engine.job import Job, Sampling
from server.engine.provider import open_bundle
from server.graphs.cuda.codec_decoder import NEXT_STATES, PAST_STATES
from server.graphs.session import open_session
from server.manifest import BundleError, read_manifest
from tests.checkpoints import SHAPES
from tests.export.cuda_kernels import Fault, faults
from tests.parity.test_official import speak

NARROW = ("bf16", "fp16")
GRAPHS = ("talker", "code_predictor")
CONTROL_FLOW = {"Loop", "If", "Scan"}


@pytest.fixture(params=NARROW)
def precision(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(precision: str, bundle_of: Callable[..., Path]) -> Path:
    return bundle_of("short", precision)


@pytest.mark.parametrize("graph", [*GRAPHS, "codec_decoder"])
def test_cuda_has_a_kernel_for_every_node(folder: Path, graph: str) -> None:
    model = onnx.load(folder / f"{graph}.onnx")
    check_graph(model)
    assert list(faults(model.graph)) == []
    kinds = {node.op_type for node in model.graph.node}
    assert not CONTROL_FLOW & kinds
    assert graph == "codec_decoder" or "Shape" not in kinds, "the arithmetic of shapes runs on the host"


@pytest.mark.parametrize("size", ["short", "odd"])
def test_the_codec_decoder_is_made_to_be_recorded(bundle_of: Callable[..., Path], tmp_path: Path, size: str) -> None:
    """All states lie in one buffer, which `ScatterND` writes where it lies, and no kernel is given a table from the
    host's memory, which a recording would read again."""
    path = bundle_of(size, "fp16") / "codec_decoder.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    (scatter,) = [node for node in graph.node if node.op_type == "ScatterND"]
    assert (scatter.input[0], *scatter.output) == (PAST_STATES, NEXT_STATES)
    assert [value.name for value in graph.output] == ["waveform", NEXT_STATES]
    (states,) = [value for value in graph.input if value.name.startswith("past.")]
    _, chunks, floats = (dim.dim_value for dim in states.type.tensor_type.shape.dim)
    assert chunks > 0
    assert floats == CHUNK
    read = [node for node in graph.node if PAST_STATES in node.input]
    assert [node.op_type for node in read] == ["Gather", "ScatterND"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(tmp_path / "run.onnx", load_external_data=False).graph.node
    assert max(len(node.input) for node in nodes if node.op_type == "Concat") <= MOST_JOINED
    assert max(len(node.output) for node in nodes if node.op_type == "Split") == 2, "slices became one node"


def test_the_rule_finds_what_the_cpus_graphs_hold(bundle_of: Callable[..., Path]) -> None:
    """float32 attention has no CUDA kernel, and a loop's condition is the host's."""
    for graph, kind in (("talker", "GroupQueryAttention"), ("code_predictor", "Loop")):
        model = onnx.load(bundle_of("short") / f"{graph}.onnx", load_external_data=False)
        found = list(faults(model.graph))
        assert any(isinstance(fault, Fault) and fault.why.startswith(kind) for fault in found)


@pytest.mark.parametrize("graph", GRAPHS)
def test_onnx_runtime_finds_the_types_right(folder: Path, precision: str, graph: str) -> None:
    """It infers every type before it looks for kernels: bf16 graphs fail on the CPU for want of these alone."""
    if precision == "fp16":
        open_session(folder / f"{graph}.onnx", "cpu", 1)
        return
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match="NOT_IMPLEMENTED : Could not find an implementation"):
        onnxruntime.InferenceSession(folder / f"{graph}.onnx", options, providers=["CPUExecutionProvider"])


def test_casts_come_at_the_borders_and_the_islands_alone(folder: Path, precision: str) -> None:
    """Into the talker and its hidden state; in fp16 into and out of both narrow parts of each layer."""
    layers = read_manifest(folder).sizes.talker.num_layers
    graph = onnx.load(folder / "talker.onnx", load_external_data=False).graph
    assert Counter(node.op_type for node in graph.node)["Cast"] == (2 if precision == "bf16" else 4 * layers)
    for name in GRAPHS:
        nodes = onnx.load(folder / f"{name}.onnx", load_external_data=False).graph.node
        made_by = {output: node.op_type for node in nodes for output in node.output}
        twice = [node.name for node in nodes if node.op_type == "Cast" and made_by.get(node.input[0]) == "Cast"]
        assert twice == []


def test_what_is_narrow_and_what_stays_wide(folder: Path, precision: str) -> None:
    manifest = read_manifest(folder)
    dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
    talker, predictor = manifest.graphs["talker"], manifest.graphs["code_predictor"]
    caches = {spec.dtype for spec in (*talker.inputs, *talker.outputs) if "." in spec.name}
    assert caches == {dtype}
    results = {spec.name: spec.dtype for spec in (*talker.outputs, *predictor.outputs) if "." not in spec.name}
    assert (results.pop("codes"), results.pop("lengths"), results.pop("next_seen")) == ("int64", "int32", "bool")
    assert set(results.values()) == {"float32"}
    assert {name: graph.precision for name, graph in manifest.graphs.items()} == {
        "talker": precision, "code_predictor": precision, "codec_decoder": "fp32"
    }  # fmt: skip
    model = onnx.load(folder / "talker.onnx", load_external_data=False)
    stored = {t.name: t.data_type for t in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    assert stored[made_by["logits"].input[1]] == onnx.TensorProto.FLOAT
    down = [node for node in model.graph.node if node.op_type == "MatMul" and "down_proj" in node.name]
    assert len(down) == manifest.sizes.talker.num_layers
    for node in down:
        assert (stored[node.input[1]] == onnx.TensorProto.FLOAT) == (precision == "fp16")
        gate = made_by[made_by[node.input[0]].input[0]]  # silu(gate) of silu(gate) * up
        split = made_by[gate.input[0]]
        assert (made_by[split.input[0]].op_type == "Cast") == (precision == "fp16"), "SwiGLU is wide in fp16"


def test_the_frame_holds_its_weights_once(folder: Path, bundle_of: Callable[..., Path], precision: str) -> None:
    """A joined and three other matrices a layer for all steps, and a head for each."""
    manifest = read_manifest(folder)
    sizes = manifest.sizes.code_predictor
    graph = onnx.load(folder / "code_predictor.onnx", load_external_data=False).graph
    uses = Counter(node.input[1] for node in graph.node if node.op_type == "MatMul")
    steps = sizes.num_code_groups - 1
    assert sorted(uses.values()) == [1] * steps + [steps] * 4 * sizes.num_layers
    assert {tensor.name for tensor in graph.initializer} >= set(uses)
    reads = [read_manifest(f).graphs["code_predictor"].reads for f in (folder, bundle_of("short"))]
    heads = 4 * steps * sizes.hidden_size * sizes.vocab_size
    layers, wide_layers = (read.total - heads for read in reads)
    assert layers == wide_layers // 2 if precision == "bf16" else wide_layers // 2 < layers < 0.7 * wide_layers


def test_parity_is_in_the_manifest_and_says_how_it_was_found(folder: Path, precision: str) -> None:
    parity = read_manifest(folder).parity
    # Of the largest logit; 0.0002 seen, where a wrong graph is off by about 1.
    assert parity["graphs"]["talker"]["relative_error"] < 0.005
    for counts in parity["codes"].values():
        assert counts["equal"] >= 0.9 * counts["compared"]
    assert ("arithmetic" in parity) == (precision == "bf16")


def test_a_model_with_a_projection(precision: str, bundle_of: Callable[..., Path]) -> None:
    folder = bundle_of("odd", precision)
    for graph in GRAPHS:
        assert list(faults(onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph)) == []
    for counts in read_manifest(folder).parity["codes"].values():
        assert counts["equal"] >= 0.9 * counts["compared"]


def test_int4_for_cuda(bundle_of: Callable[..., Path]) -> None:
    """Layers in 4 bits with bf16 scales, between bf16 activations; heads wide; not much further from fp32 than the
    CPU's int4, whose errors are fed back."""
    folder, shape = bundle_of("short", "int4_bf16"), SHAPES["short"]
    steps, layers = shape.code_groups - 1, {"talker": shape.talker.layers, "code_predictor": shape.predictor.layers}
    for name, uses in (("talker", 1), ("code_predictor", steps)):
        model = onnx.load(folder / f"{name}.onnx")
        check_graph(model)
        assert list(faults(model.graph)) == []
        stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        small = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
        assert sorted(Counter(node.input[1] for node in small).values()) == [uses] * 4 * layers[name]
        assert {stored[node.input[1]] for node in small} == {onnx.TensorProto.UINT8}
        assert {stored[node.input[2]] for node in small} == {onnx.TensorProto.BFLOAT16}
        bits = {attribute.i for node in small for attribute in node.attribute if attribute.name == "bits"}
        assert bits == {4}
        heads = [node.input[1] for node in model.graph.node if node.op_type == "MatMul"]
        assert [stored[head] for head in heads] == [onnx.TensorProto.FLOAT] * uses
    found, expected = (read_manifest(bundle_of("short", p)).parity for p in ("int4_bf16", "int4"))
    assert "arithmetic" in found
    for graph in GRAPHS:
        assert found["graphs"][graph]["mean_error"] < 1.8 * expected["graphs"][graph]["mean_error"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for graph in GRAPHS:
        with pytest.raises(Exception, match="NOT_IMPLEMENTED : Could not find an implementation"):
            onnxruntime.InferenceSession(folder / f"{graph}.onnx", options, providers=["CPUExecutionProvider"])
    decoder = onnx.load(folder / "codec_decoder.onnx", load_external_data=False)
    assert "QLinearConv" not in {node.op_type for node in decoder.graph.node}
    with pytest.raises(BundleError, match=r"is int4_bf16.*--precision int8"):
        open_bundle(folder, provider="cpu", threads=1, slots=1)


def test_the_rule_finds_scales_of_another_type(bundle_of: Callable[..., Path]) -> None:
    model = onnx.load(bundle_of("short", "int4_bf16") / "talker.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".scales"):
            tensor.data_type = onnx.TensorProto.FLOAT
    assert any("scales of another type" in fault.why for fault in faults(model.graph))


def test_an_fp16_bundle_speaks_on_the_cpu(bundle_of: Callable[..., Path]) -> None:
    bundle = open_bundle(bundle_of("short", "fp16"), provider="cpu", threads=1, slots=1)
    prompt = bundle.prompts.build("Hello", speaker="ryan", language="english", instruction=None)
    job = Job(prompt, Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), seed=1, max_frames=5)
    _, samples = speak(bundle, job)
    assert len(samples) == 5 * bundle.manifest.sizes.codec.samples_per_frame
    assert samples.std() > 1e-3


def test_a_bf16_bundle_says_that_it_needs_cuda(bundle_of: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match=r"is bf16.*--precision int8"):
        open_bundle(bundle_of("short", "bf16"), provider="cpu", threads=1, slots=1)


def test_a_later_step_adds_few_kernels_to_its_layers(folder: Path) -> None:
    """Each costs a GPU about as much as the smallest product, in each of a frame's steps."""
    graph = onnx.load(folder / "code_predictor.onnx", load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    kinds: Counter[str] = Counter()
    for node in graph.node:
        if {name for name in node.input if name} <= constant:
            constant |= set(node.output)
        elif node.name.endswith(".2") and "/layers." not in node.name:
            kinds[node.op_type] += 1
    views = {"Reshape", "Squeeze", "Unsqueeze"}
    assert sum(count for kind, count in kinds.items() if kind not in views) <= 23, kinds
    assert kinds["CumSum"] == 2, "within blocks and across them"
    assert "ReduceMax" not in kinds
