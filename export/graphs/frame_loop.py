"""Makes one code predictor step into a whole frame: an ONNX `Loop` around the exported step.

The head of each step is picked by a tree of branches around the heads' own matrices: gathering it from a stacked table
would copy a head at every step, and ONNX Runtime can neither re-pack nor quantise a matrix that it learns at run time.

A loop, since ONNX Runtime's CPU kernels keep a re-packed copy of the weights for each node that uses them: unrolled, a
frame would hold every weight once a step. Inputs that change their length between the first step (hidden state and
code 0) and the later ones (one code) are allowed by `Loop`, so no step is spent on filling the cache.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graphs.code_predictor import CodePredictorStep
from export.graphs.graph import CONTRIB_DOMAIN, OPSET, save_graph

CODE_0_EMBEDDING = "code_0_embedding"


def frame_loop(step_path: Path, step: CodePredictorStep, code_0_embedding: np.ndarray, path: Path) -> None:
    """Write the frame graph.

    Inputs: `hidden` float32 `[rows, talker hidden]`, `code_0` int64 `[rows]`, `uniforms` float32 `[rows, groups - 1]`,
    `forced_codes` int64 `[rows, groups - 1]` (a code to take instead of the drawn one, or -1), `temperature` and
    `top_p` float32 `[rows]`, `top_k` int64 `[rows]`. Outputs: `codes` int64 `[rows, groups - 1]`, `embedding` float32
    `[rows, talker hidden]`, the sum of all codes' embeddings, and `logits` float32 `[rows, groups - 1, codes]`, for
    measurements.

    Args:
        step_path: the exported step.
        step: its module, for the sizes.
        code_0_embedding: the talker's codec embedding, float32 `[vocab_size, talker hidden]`.
        path: where to write the frame graph.
    """
    model = onnx.load(step_path)
    weights = take_constants(model.graph)
    heads = _split_heads(model.graph, weights, step.groups - 1)
    body = _loop_body(model.graph, step)
    tensors = {t.name: t for t in [*model.graph.initializer, *weights.values(), *heads]}
    _place_matrices(body, tensors)
    caches = [value.name for value in model.graph.input if value.name.startswith("past.")]
    sizes = step.sizes
    cache_shape = np.array([sizes.num_kv_heads, step.groups, sizes.cache_head_dim], np.int64)
    constants = {
        CODE_0_EMBEDDING: code_0_embedding,
        "axis_1": np.array([1], np.int64),
        "steps": np.array(step.groups - 1, np.int64),
        "always": np.array(True),
        "cache_tail": cache_shape,
    }
    nodes = [
        helper.make_node("Gather", [CODE_0_EMBEDDING, "code_0"], ["first_embedding"], axis=0),
        helper.make_node("Unsqueeze", ["hidden", "axis_1"], ["first_position"]),
        helper.make_node("Unsqueeze", ["first_embedding", "axis_1"], ["second_position"]),
        helper.make_node("Concat", ["first_position", "second_position"], ["first_inputs"], axis=1),
        helper.make_node("Shape", ["code_0"], ["rows"]),
        helper.make_node("Concat", ["rows", "cache_tail"], ["cache_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["cache_shape"], ["empty_cache"]),
        helper.make_node(
            "Loop",
            ["steps", "always", "first_inputs", "first_embedding", *["empty_cache"] * len(caches)],
            ["last_inputs", "embedding", *[f"last.{name}" for name in caches], "codes_by_step", "logits_by_step"],
            body=body,
        ),
        helper.make_node("Transpose", ["codes_by_step"], ["codes"], perm=[1, 0]),
        helper.make_node("Transpose", ["logits_by_step"], ["logits"], perm=[1, 0, 2]),
    ]
    rows, hidden = "rows", step.talker_hidden_size
    graph = helper.make_graph(
        nodes,
        "code_predictor",
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [rows, hidden]),
            helper.make_tensor_value_info("code_0", TensorProto.INT64, [rows]),
            helper.make_tensor_value_info("uniforms", TensorProto.FLOAT, [rows, step.groups - 1]),
            helper.make_tensor_value_info("forced_codes", TensorProto.INT64, [rows, step.groups - 1]),
            helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [rows]),
            helper.make_tensor_value_info("top_k", TensorProto.INT64, [rows]),
            helper.make_tensor_value_info("top_p", TensorProto.FLOAT, [rows]),
        ],
        [
            helper.make_tensor_value_info("codes", TensorProto.INT64, [rows, step.groups - 1]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [rows, hidden]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, step.groups - 1, step.codes]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    graph.initializer.extend(tensors.values())
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB_DOMAIN, 1)]
    frame = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
    save_graph(frame, path)
    onnx.checker.check_model(path)


def take_constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Take tables out of the nodes in which the exporter leaves buffers; by name, as initializers."""
    tables: dict[str, TensorProto] = {}
    kept = []
    for node in graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" else None
        if value is None or len(value.dims) < 2:
            kept.append(node)
            continue
        value.name = node.output[0]
        tables[value.name] = value
    del graph.node[:]
    graph.node.extend(kept)
    return tables


def _split_heads(graph: onnx.GraphProto, tables: dict[str, TensorProto], count: int) -> list[TensorProto]:
    """Put a tree of branches in the place of `hidden @ heads[step]`; returns the heads' matrices by themselves."""
    producers = {output: node for node in graph.node for output in node.output}
    product = producers["logits"]
    picked = producers[product.input[1]]
    stacked = producers[picked.input[0]]
    heads = [
        numpy_helper.from_array(head, f"heads.{index}")
        for index, head in enumerate(numpy_helper.to_array(tables.pop(stacked.input[0])))
    ]
    if (stacked.op_type, picked.op_type, product.op_type) != ("Gather", "Gather", "MatMul") or len(heads) != count:
        raise ValueError("the exported code predictor does not pick its heads as expected")
    place = list(graph.node).index(product)
    branches = [*_branches(product.input[0], 0, count, "logits")]
    nodes = [n for n in graph.node if n not in (product, picked, stacked)]
    del graph.node[:]
    graph.node.extend([*nodes[: place - 2], *branches, *nodes[place - 2 :]])
    return heads


def _place_matrices(graph: onnx.GraphProto, tensors: dict[str, TensorProto]) -> None:
    """Move every matrix into the subgraph that multiplies by it: elsewhere ONNX Runtime would not re-pack it.

    What is left in `tensors` is for the outer graph, of which a subgraph sees everything.
    """
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _place_matrices(attribute.g, tensors)
        if node.op_type == "MatMul" and node.input[1] in tensors:
            graph.initializer.append(tensors.pop(node.input[1]))


def _branches(hidden: str, first: int, stop: int, output: str) -> list[onnx.NodeProto]:
    """Nodes that give `hidden @ heads[step]` for `first <= step < stop`."""
    if stop - first == 1:
        return [helper.make_node("MatMul", [hidden, f"heads.{first}"], [output])]
    middle = (first + stop) // 2
    sides = [
        helper.make_graph(
            _branches(hidden, *part, f"{output}.{name}"),
            f"{output}.{name}",
            [],
            [helper.make_tensor_value_info(f"{output}.{name}", TensorProto.FLOAT, None)],
        )
        for name, part in (("low", (first, middle)), ("high", (middle, stop)))
    ]
    bound = helper.make_tensor("bound", TensorProto.INT64, [], [middle])
    return [
        helper.make_node("Constant", [], [f"{output}.bound"], value=bound),
        helper.make_node("Less", ["step", f"{output}.bound"], [f"{output}.is_low"]),
        helper.make_node("If", [f"{output}.is_low"], [output], then_branch=sides[0], else_branch=sides[1]),
    ]


def _loop_body(step: onnx.GraphProto, module: CodePredictorStep) -> onnx.GraphProto:
    """The step's nodes between the loop's names; parameters of the draw come from the graph around the loop."""
    caches = [value for value in step.input if value.name.startswith("past.")]
    nodes = [
        helper.make_node("Gather", ["uniforms", "step"], ["uniform"], axis=1),
        helper.make_node("Gather", ["forced_codes", "step"], ["forced"], axis=1),
        *step.node,
        helper.make_node("Unsqueeze", ["embedding.step", "axis_1"], ["next_inputs"]),
        helper.make_node("Add", ["embedding_sum", "embedding.step"], ["next_embedding_sum"]),
        helper.make_node("Identity", ["condition"], ["next_condition"]),
    ]
    for node in step.node:
        node.output[:] = ["embedding.step" if name == "embedding" else name for name in node.output]
        node.input[:] = ["embedding.step" if name == "embedding" else name for name in node.input]
    hidden = module.talker_hidden_size
    embedding_sum = helper.make_tensor_value_info("embedding_sum", TensorProto.FLOAT, ["rows", hidden])
    next_names = [value.name.replace("past.", "next.", 1) for value in caches]
    outputs = {value.name: value for value in step.output}
    return helper.make_graph(
        nodes,
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("inputs_embeds", TensorProto.FLOAT, ["rows", None, hidden]),
            embedding_sum,
            *caches,
        ],
        [
            helper.make_tensor_value_info("next_condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_inputs", TensorProto.FLOAT, ["rows", None, hidden]),
            helper.make_tensor_value_info("next_embedding_sum", TensorProto.FLOAT, ["rows", hidden]),
            *[outputs[name] for name in next_names],
            outputs["code"],
            outputs["logits"],
        ],
    )
