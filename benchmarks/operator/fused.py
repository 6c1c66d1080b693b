"""Builds the library of the operator and opens a bundle's talker and code predictor with it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import helper

from export.graphs.files import with_subgraphs
from server.engine.bundle import OpenBundle
from server.graphs.code_predictor import CodePredictor
from server.graphs.talker import Talker

HERE = Path(__file__).parent
DOMAIN, OPERATOR = "qwen3_tts_edge", "DecoderStack"
KERNELS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni", "-mfma", "-mprefer-vector-width=512"],
}
"""Namespaces of `kernel.cpp`, and the instructions that each may use. Of inline functions that several files have the
linker takes the first one's: those of fewer instructions come first."""
FAST = ["-fassociative-math", "-ffinite-math-only", "-fno-math-errno", "-fno-signed-zeros", "-fno-trapping-math"]
"""What a compiler needs to be allowed in order to compute sums with vectors."""
WARNINGS = ["-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
"""GCC 12 takes the undefined vectors of its own headers for mistakes."""
LAYER = re.compile(r"/model/layers\.(\d+)/")
NORMS = ("input_layernorm", "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm")


def build(folder: Path, compiler: str = "g++") -> Path:
    """Compile the library into a folder; returns its file.

    Raises:
        subprocess.CalledProcessError: the compiler says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common = [compiler, "-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", *WARNINGS]
    objects = []
    for name, instructions in KERNELS.items():
        objects.append(str(folder / f"{name}.o"))
        source = ["-c", str(HERE / "kernel.cpp"), "-o", objects[-1]]
        subprocess.run([*common, *instructions, *FAST, f"-DKERNEL={name}", *source], check=True)
    library = folder / "decoder_stack.so"
    subprocess.run([*common, "-shared", str(HERE / "library.cpp"), *objects, "-o", str(library)], check=True)
    return library


def fuse(model: onnx.ModelProto, *, copies: bool = False, avx2: bool = False) -> None:
    """Put one node in the place of all decoder layers, in the graph or in the loop's body.

    Args:
        model: `talker.onnx` or `code_predictor.onnx` in 8 bits, without its weights.
        copies: whether the operator copies the weights into huge pages, or reads them where they are mapped.
        avx2: whether it does without AVX-512, which a processor may lack.

    Raises:
        ValueError: no layers like ours are in it.
    """
    for graph in with_subgraphs(model.graph):
        attentions = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
        if attentions:
            _fuse_layers(graph, attentions, {"copies": int(copies), "avx2": int(avx2)})
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
            return
    raise ValueError("the graph has no attention in it")


def _fuse_layers(graph: onnx.GraphProto, attentions: Sequence[onnx.NodeProto], options: dict[str, Any]) -> None:
    by_layer: list[list[onnx.NodeProto]] = [[] for _ in attentions]
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        found = LAYER.match(node.name)
        if found and node.op_type != "Constant":
            by_layer[int(found[1])].append(node)
        else:
            kept.append(node)
    last_sum = next(node for node in kept if node.name == "/model/Add")
    caches, outputs, weights = [], [last_sum.output[0]], []
    for number, (layer, attention) in enumerate(zip(by_layer, attentions, strict=True)):
        products = [node for node in layer if node.op_type == "MatMulNBits"]
        norms = [f"model.layers.{number}.{name}.weight" for name in NORMS]
        used = {name for node in layer for name in node.input}
        if len(products) != 4 or not used.issuperset(norms) or any(len(node.input) != 3 for node in products):
            raise ValueError(f"layer {number} is not a quantised one of ours")
        qkv, out, gate_up, down = (list(node.input[1:]) for node in products)
        weights += [norms[0], *qkv, *norms[1:3], *out, norms[3], *gate_up, *down]
        caches += attention.input[3:5]
        outputs += attention.output[1:3]
    first_norm = next(node for node in by_layer[0] if node.op_type == "SkipSimplifiedLayerNormalization")
    of_norm, of_attention = (
        {one.name: helper.get_attribute_value(one) for one in node.attribute} for node in (first_norm, attentions[0])
    )
    node = helper.make_node(
        OPERATOR,
        [first_norm.input[0], *attentions[0].input[5:9], *caches, *weights],
        outputs,
        domain=DOMAIN,
        layers=len(by_layer),
        heads=of_attention["num_heads"],
        kv_heads=of_attention["kv_num_heads"],
        epsilon=of_norm["epsilon"],
        scale=of_attention["scale"],
        **options,
    )
    place = kept.index(last_sum)
    del graph.node[:]
    graph.node.extend([*kept[:place], node, *kept[place + 1 :]])


def open_changed(
    path: Path, change: Callable[[onnx.ModelProto], None], threads: int, library: Path | None = None
) -> ort.InferenceSession:
    """Open one graph after a change, with the options of `server.graphs.session`; its weights stay where they are."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent.resolve()))
    options.enable_mem_pattern = False
    if library:
        options.register_custom_ops_library(str(library.resolve()))
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def with_changed(
    bundle: OpenBundle,
    folder: Path,
    change: Callable[[onnx.ModelProto], None],
    threads: int,
    library: Path | None = None,
) -> OpenBundle:
    """The bundle with talker and code predictor opened anew after a change, and with caches of their own."""
    talker_session, predictor_session = (
        open_changed(folder / bundle.manifest.graphs[name].file, change, threads, library)
        for name in ("talker", "code_predictor")
    )
    talker = Talker(talker_session, bundle.manifest.sizes, bundle.talker.slots)
    predictor = CodePredictor(predictor_session, talker.state)
    return dataclasses.replace(bundle, talker=talker, code_predictor=predictor)


def without_rounding(model: onnx.ModelProto) -> None:
    """Have the stock products multiply the same weights by activations in float32."""
    for graph in with_subgraphs(model.graph):
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level":
                    attribute.i = 0
