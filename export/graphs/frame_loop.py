"""The code predictor's steps for the CPU: an ONNX `Loop` around the exported step.

The head of each step is picked by a tree of branches around the heads' own matrices: gathering it from a stacked table
would copy a head at every step, and ONNX Runtime can neither re-pack nor quantise a matrix that it learns at run time.

It is a loop, since ONNX Runtime's CPU kernels keep a re-packed copy of the weights for each node that uses them:
unrolled, a frame would hold every weight once a step. `Loop` allows inputs that change their length between the first
step (hidden state and code 0) and the later ones (one code), so that no step is spent on filling the cache.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graphs.code_predictor import CodePredictorStep
from export.graphs.frame import CODE_0_EMBEDDING, Steps, take_constants


def frame_loop(step_path: Path, step: CodePredictorStep, code_0_embedding: np.ndarray) -> Steps:
    """The steps of a frame as a loop.

    Args:
        step_path: the exported step.
        step: its module, for the sizes.
        code_0_embedding: the talker's codec embedding, float32 `[vocab_size, talker hidden]`.
    """
    exported = onnx.load(step_path).graph
    weights = take_constants(exported)
    heads = _split_heads(exported, weights, step.groups - 1)
    prepared = _take_unchanging(exported)
    body = _loop_body(exported, step)
    tensors = {t.name: t for t in [*exported.initializer, *weights.values(), *heads]}
    _place_matrices(body, tensors)
    caches = [value.name for value in exported.input if value.name.startswith("past.")]
    sizes = step.sizes
    constants = {
        CODE_0_EMBEDDING: code_0_embedding,
        "axis_1": np.array([1], np.int64),
        "steps": np.array(step.groups - 1, np.int64),
        "always": np.array(True),
        "cache_tail": np.array([sizes.num_kv_heads, step.groups, sizes.cache_head_dim], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["finite_hidden", "axis_1"], ["first_position"]),
        node("Unsqueeze", ["first_embedding", "axis_1"], ["second_position"]),
        node("Concat", ["first_position", "second_position"], ["first_inputs"], axis=1),
        node("Shape", ["code_0"], ["rows"]),
        node("Concat", ["rows", "cache_tail"], ["cache_shape"], axis=0),
        node("ConstantOfShape", ["cache_shape"], ["empty_cache"]),
        *prepared,
        node(
            "Loop",
            ["steps", "always", "first_inputs", "first_embedding", *["empty_cache"] * len(caches)],
            ["last_inputs", "embedding", *[f"last.{name}" for name in caches], "codes_by_step", "logits_by_step"],
            body=body,
        ),
        node("Transpose", ["codes_by_step"], ["later_codes"], perm=[1, 0]),
        node("Transpose", ["logits_by_step"], ["logits"], perm=[1, 0, 2]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return Steps(nodes, [*stored, *tensors.values()])


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


def _take_unchanging(step: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Take the nodes out of a step that give the same in each: what the draw makes of its parameters."""
    constants = {node.output[0]: node for node in step.node if node.op_type == "Constant"}
    known, taken, moved = {"temperature", "top_k", "top_p"}, [], {}
    for node in step.node:
        if known & {*node.input} and {*node.input} <= known | {*constants}:
            known |= {*node.output}
            taken.append(node)
    kept = [node for node in step.node if node not in taken]
    used = {name for node in kept for name in node.input}
    for node in taken:
        for name in (name for name in node.input if name in constants):
            moved[name] = helper.make_node("Constant", [], [f"{name}.once"], value=constants[name].attribute[0].t)
        node.input[:] = [f"{name}.once" if name in moved else name for name in node.input]
    del step.node[:]
    step.node.extend(node for node in kept if node.output[0] in used or node.output[0] not in moved)
    return [*moved.values(), *taken]


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
    """The step's nodes between the loop's names; parameters of the draw come from the frame's graph around the loop."""
    caches = [value for value in step.input if value.name.startswith("past.")]
    nodes = [
        helper.make_node("Gather", ["later_uniforms", "step"], ["uniform"], axis=1),
        helper.make_node("Gather", ["later_forced", "step"], ["forced"], axis=1),
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
