"""CPU twins of graphs: the same graphs with operators fused for `runtime/backends/onnxruntime/kernels`.

A graph for ONNX Runtime on a CPU has a twin, `<name>.fused.onnx`, with the same weights on disk, in which groups of
operators are replaced by the kernels' (listed in `kernels.cpp` there). Other libraries, and ONNX Runtime without the
kernels, read the plain graph. Groups are found in the plain graph as written, so that twins can be added to an older
bundle: `python -m amodal.export.fusing BUNDLE`.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from amodal.runtime.backends.onnxruntime.kernels import DOMAIN, fused_file
from amodal.runtime.bundle.manifest import MANIFEST_NAME, ComponentFile, FileRole
from amodal.runtime.bundle.reading import read_manifest, sha256_of
from amodal.runtime.families import Bundle
from amodal.runtime.files.results import write_json

_LANES = 16  # the kernels' widths are multiples of the floats of their widest vector
_WIDEST = 1280  # hidden values of a feed-forward block; beyond, ONNX Runtime's packed weights are faster
_SMALL_WEIGHTS = 2**20  # floats; a convolution's transformed weights, where a map is not larger
_SPATIAL = ([0, 2, 1, 3], [0, 2, 1, 3], 2)  # perms that split the heads of [N, L, C] and join them; axes before C
_TEMPORAL = ([0, 2, 3, 1, 4], [0, 3, 1, 2, 4], 3)  # of [B, T, P, C]


def can_be_fused(precision: str, variant: str | None) -> bool:
    """Returns whether a graph gets a twin, by its arithmetic and its variant's name."""
    return precision == "fp32" and variant == "cpu"


def write_fused(file: Path) -> Path | None:
    """Writes the fused twin of a graph beside it.

    Args:
        file: a graph with float32 arithmetic, its weights in the file or beside it.

    Returns:
        The twin; None if there was nothing to fuse.
    """
    graph = _Graph(onnx.load(file, load_external_data=False))
    for kind, fuse in _FUSERS.items():
        for node in graph.model.graph.node:
            if node.op_type == kind:
                with suppress(_NoMatchError):
                    fuse(graph, node)
    if not graph.replaced:
        return None
    twin = fused_file(file)
    twin.write_bytes(graph.finished().SerializeToString())
    return twin


class _NoMatchError(Exception):
    """The nodes around are not the group that is searched for."""


def _require(condition: bool) -> None:
    if not condition:
        raise _NoMatchError


class _Graph:
    """A graph with its shapes and edges, and the nodes that replace others in the end.

    Methods that look for a node or value raise _NoMatchError if there is none.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.model = model
        self.shapes: dict[str, list[int | None]] = defaultdict(list)  # None for free axes; empty if unknown
        for info in (*inferred.input, *inferred.value_info, *inferred.output):
            axes = info.type.tensor_type.shape.dim
            self.shapes[info.name] = [axis.dim_value if axis.HasField("dim_value") else None for axis in axes]
        self.constants = {i.name: i for i in model.graph.initializer}
        self.shapes.update({name: list(i.dims) for name, i in self.constants.items()})
        self.maker: dict[str, NodeProto] = {out: node for node in model.graph.node for out in node.output}
        self.users: dict[str, list[NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.users[name].append(node)
        self.outputs = {o.name for o in model.graph.output}
        self.replaced: dict[str, NodeProto] = {}

    def before(self, name: str, kind: str) -> NodeProto:
        """Returns the node that makes a value, if it is of that kind."""
        node: NodeProto | None = self.maker.get(name)
        if node is None or node.op_type != kind:
            raise _NoMatchError
        return node

    def after(self, node: NodeProto, kind: str) -> NodeProto:
        """Returns the only user of a node's only result, if it is of that kind."""
        (name,) = node.output
        users = self.users[name]
        _require(len(users) == 1 and users[0].op_type == kind and name not in self.outputs)
        return users[0]

    def past_reshape(self, node: NodeProto) -> NodeProto:
        """Returns the Reshape that alone uses a node's result, or the node itself."""
        with suppress(_NoMatchError):
            return self.after(node, "Reshape")
        return node

    def past_reshape_before(self, name: str) -> str:
        """Returns what a Reshape alone made into a value, or the value itself."""
        with suppress(_NoMatchError):
            reshape = self.before(name, "Reshape")
            _require(self.users[name] == self.users[name][:1])
            return str(reshape.input[0])
        return name

    def is_weight(self, name: str) -> bool:
        """Returns whether a value is a stored weight, with or without a Cast."""
        cast = self.maker.get(name)
        return name in self.constants or (
            cast is not None and cast.op_type == "Cast" and cast.input[0] in self.constants
        )

    def sizes(self, name: str, axes: slice, count: int) -> list[int]:
        """Returns `count` axes of a value, none of them free."""
        found = [n for n in self.shapes[name][axes] if n is not None]
        _require(len(found) == count)
        return found

    def value(self, name: str) -> NDArray[Any]:
        """Returns a constant that is stored in the graph."""
        constant = self.constants.get(name)
        if constant is None or constant.data_location == onnx.TensorProto.EXTERNAL:
            raise _NoMatchError
        return numpy_helper.to_array(constant)

    def replace(self, node: NodeProto, kind: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Computes a node's result with one of the kernels' operators instead."""
        name = f"{node.name.rpartition('/')[0]}/{kind}_{len(self.replaced)}"
        made = helper.make_node(kind, inputs, list(node.output), name=name, domain=DOMAIN, **attributes)
        self.replaced[node.output[0]] = made

    def finished(self) -> onnx.ModelProto:
        """Returns the graph with the replacements, and without nodes and weights that nothing uses any more."""
        graph = self.model.graph
        nodes, count = [self.replaced.get(n.output[0], n) for n in graph.node], -1
        while len(nodes) != count:
            count = len(nodes)
            used = {name for n in nodes for name in n.input} | self.outputs
            nodes = [n for n in nodes if used.intersection(n.output)]
        weights = [i for i in graph.initializer if i.name in used]
        kept = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(kept)
        graph.initializer.extend(weights)
        self.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return self.model


def _attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _fuse_group_norm(graph: _Graph, norm: NodeProto) -> None:
    """Reshape, InstanceNormalization, Reshape, depthwise convolution, and SiLU where it follows."""
    first, second = graph.before(norm.input[0], "Reshape"), graph.after(norm, "Reshape")
    scale = graph.after(second, "Conv")
    x, weights, (ones, zeros) = first.input[0], scale.input[1:], map(graph.value, norm.input[1:])
    _require(len(weights) == 2 and all(map(graph.is_weight, weights)) and bool((ones == 1).all()) and not zeros.any())
    shape, back, kernel = (graph.shapes[name] for name in (x, second.output[0], weights[0]))
    channels = _attribute(scale, "group", 1)
    _require(len(shape) > 2 and shape[1:] == back[1:] and shape[1] == channels)
    _require(kernel == [channels, *[1] * len(back[1:])])
    _require(not any(_attribute(scale, "pads", [])) and set(_attribute(scale, "strides", [1])) == {1})
    known = [n for n in shape[1:] if n is not None]
    group = math.prod(known) // len(ones) if len(known) == len(shape) - 1 else None
    target = graph.value(first.input[1]).tolist()
    _require(target == [-1, len(ones), group] or (shape[0] == 1 and target == [1, len(ones), -1]))
    last, users = scale, sorted(graph.users[scale.output[0]], key=lambda n: n.op_type)
    if [n.op_type for n in users] == ["Mul", "Sigmoid"]:
        times, sigmoid = users
        last = times if set(times.input) == {scale.output[0], sigmoid.output[0]} else scale
    epsilon, silu = _attribute(norm, "epsilon", 1e-5), int(last is not scale)
    graph.replace(last, "GroupNorm", [x, *weights], epsilon=epsilon, groups=len(ones), silu=silu)


def _fuse_convolution(graph: _Graph, node: NodeProto) -> None:
    """3x3 convolutions of stride 1.

    Not where much of the 4x4 tiles would lie outside of the map, nor where the transformed weights, four times the
    plain ones, would take more than 4 MB and more than the maps of one frame.
    """
    plain = (
        graph.shapes[node.input[1]][2:] == [3, 3]
        and _attribute(node, "pads") == [1, 1, 1, 1]
        and _attribute(node, "strides", [1, 1]) == [1, 1]
        and _attribute(node, "dilations", [1, 1]) == [1, 1]
        and _attribute(node, "group", 1) == 1
    )
    _require(plain and len(node.input) == 3 and all(map(graph.is_weight, node.input[1:])))
    height, width = graph.sizes(node.output[0], slice(2, None), 2)
    after, before = graph.sizes(node.input[1], slice(2), 2)
    tiles, most = 16 * -(-height // 4) * -(-width // 4), max(_SMALL_WEIGHTS, height * width * (after + before))
    _require(after % _LANES == before % _LANES == 0 and 4 * height * width >= 3 * tiles and 36 * after * before <= most)
    graph.replace(node, "Conv3x3", node.input)


def _fuse_feed_forward(graph: _Graph, gelu: NodeProto) -> None:
    """x + feed_forward(layer_norm(x)): an MLP, or GEGLU's value and gate projected apart."""
    _require(_attribute(gelu, "approximate", b"none") == b"none")
    first, last, value = graph.before(graph.past_reshape_before(gelu.input[0]), "Gemm"), gelu, None
    with suppress(_NoMatchError):
        last = graph.after(gelu, "Mul")
        other = next((name for name in last.input if name != gelu.output[0]), "")
        value = graph.before(other, "Gemm")
        _require(value.input[0] == first.input[0])
    _require(value is not None or last is gelu)
    flat = graph.before(first.input[0], "Reshape")
    norm = graph.before(flat.input[0], "LayerNormalization")
    out = graph.after(graph.past_reshape(last), "Gemm")
    add, x = graph.after(graph.past_reshape(out), "Add"), norm.input[0]
    _require(x in add.input)
    products = [first, out] if value is None else [value, first, out]
    inputs = [x, *norm.input[1:], *(name for gemm in products for name in gemm.input[1:])]
    width, hidden = graph.sizes(first.input[1], slice(None), 2)
    expected = [[width], [width], *(len(products) - 1) * [[width, hidden], [hidden]], [hidden, width], [width]]
    _require([graph.shapes[name] for name in inputs[1:]] == expected and all(map(graph.is_weight, inputs[1:])))
    _require(width % _LANES == hidden % _LANES == 0 and hidden <= _WIDEST)
    shape = graph.shapes[x]
    _require([*graph.value(flat.input[1])] == [-1, width] and len(shape) > 1 and shape[-1] == width)
    _require(graph.shapes[add.output[0]] == shape and _attribute(norm, "axis", -1) == -1)
    _require(all(map(_plain_gemm, products)))
    kind = "Mlp" if value is None else "FeedForward"
    graph.replace(add, kind, inputs, epsilon=_attribute(norm, "epsilon", 1e-5))


def _plain_gemm(node: NodeProto) -> bool:
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(helper.get_attribute_value(a) == usual.get(a.name) for a in node.attribute)


def _fuse_attention(graph: _Graph, softmax: NodeProto) -> None:
    """Softmax attention of tokens among themselves, with the moves that split heads and join them.

    Queries may be taken in pieces: the kernel holds no scores.
    """
    last = graph.after(softmax, "MatMul")
    query, key, value, scale = _operands(graph, last)
    with suppress(_NoMatchError):
        joined = graph.after(last, "Concat")
        _require(joined.input[0] == last.output[0])
        query, last = _whole_queries(graph, joined), joined
    for split, join, axes in (_SPATIAL, _TEMPORAL):
        with suppress(_NoMatchError):
            (q, cut), (k, cut_k), (v, cut_v) = (_before_split(graph, n, split, axes) for n in (query, key, value))
            joined, shape = _joined(graph, last, join, axes), graph.shapes[q]
            _require(all(graph.shapes[name] == shape for name in (k, v, joined.output[0])))
            *free, heads, dim = cut
            # The first axis is free, or the same for all by their common origin; the kernel refuses others.
            _require(len(shape) == axes + 1 and shape[1:] == [*free[1:], heads * dim] and free[0] == -1)
            _require(cut == cut_k == cut_v and dim % _LANES == 0 and abs(scale * dim**0.5 - 1) <= 1e-6)
            graph.replace(joined, "SelfAttention", [q, k, v], heads=heads)
            return


def _operands(graph: _Graph, mixed: NodeProto) -> tuple[str, str, str, float]:
    """Returns what an attention's last product is made of: queries, keys and values by heads, and the scale."""
    softmax = graph.before(mixed.input[0], "Softmax")
    scores = graph.before(softmax.input[0], "MatMul")
    scaled, keys = graph.before(scores.input[0], "Mul"), graph.before(scores.input[1], "Transpose")
    scale = graph.value(scaled.input[1])
    _require(_attribute(keys, "perm") == [0, 1, 3, 2] and _attribute(softmax, "axis", -1) == -1 and scale.size == 1)
    return scaled.input[0], keys.input[0], mixed.input[1], float(scale.item())


def _whole_queries(graph: _Graph, joined: NodeProto) -> str:
    """Returns the queries whose pieces, each with the same keys and values, are attended and joined again."""
    queries, *others = zip(*(_operands(graph, graph.before(name, "MatMul")) for name in joined.input), strict=True)
    _require(all(len(set(each)) == 1 for each in others))
    cut = graph.before(queries[0], "Split")
    _require(list(cut.output) == list(queries) and _attribute(cut, "axis", 0) == _attribute(joined, "axis") == 2)
    return str(cut.input[0])


def _before_split(graph: _Graph, name: str, perm: list[int], axes: int) -> tuple[str, list[int]]:
    """Returns the value that was split into heads to make another, and the shape of the split."""
    if axes == 3:  # temporal: a Reshape of batch and pixels into one axis comes last
        name = graph.before(name, "Reshape").input[0]
    turn = graph.before(name, "Transpose")
    first = graph.before(turn.input[0], "Reshape")
    shape = graph.value(first.input[1])
    _require(_attribute(turn, "perm") == perm and len(shape) == axes + 2)
    return first.input[0], [int(n) for n in shape]


def _joined(graph: _Graph, node: NodeProto, perm: list[int], axes: int) -> NodeProto:
    """Returns the node after which heads are side by side again."""
    for kind in ("Reshape", "Transpose", "Reshape")[3 - axes :]:
        node = graph.after(node, kind)
        _require(kind != "Transpose" or _attribute(node, "perm") == perm)
    return node


def _fuse_interleave(graph: _Graph, spread: NodeProto) -> None:
    """Four maps joined and spread over space."""
    joined = graph.before(spread.input[0], "Concat")
    shapes = [graph.shapes[name][1:] for name in joined.input]
    _require(len(shapes) == 4 and _attribute(joined, "axis") == 1 and shapes == 4 * shapes[:1])
    _require(len(shapes[0]) == 3 and None not in shapes[0])
    _require(_attribute(spread, "blocksize") == 2 and _attribute(spread, "mode", b"DCR") == b"DCR")
    graph.replace(spread, "Interleave", joined.input)


_FUSERS: dict[str, Callable[[_Graph, NodeProto], None]] = {
    "InstanceNormalization": _fuse_group_norm,
    "Conv": _fuse_convolution,
    "Gelu": _fuse_feed_forward,
    "Softmax": _fuse_attention,
    "DepthToSpace": _fuse_interleave,
}


def file_entry(file: Path, role: FileRole) -> ComponentFile:
    """Returns the manifest's entry for one file of a component."""
    path = f"{file.parent.name}/{file.name}"
    return ComponentFile(path=path, bytes=file.stat().st_size, sha256=sha256_of(file), role=role)


def fuse_bundle(path: Path) -> list[str]:
    """Writes the fused twins of a bundle's graphs, as an export does, replacing any it has, and updates its manifest.

    Returns:
        The components that have a twin now.

    Raises:
        BundleError: there is no bundle, or its plain graphs differ from the manifest.
    """
    before = read_manifest(path)
    entries = {
        key: entry.model_copy(update={"files": tuple(file for file in entry.files if file.role != "fused")})
        for key, entry in before.components.items()
    }
    # Without twins first: if this is interrupted, the bundle is whole, and the same command continues.
    write_json(path / MANIFEST_NAME, before.model_copy(update={"components": entries}).as_json())
    bundle, made = Bundle(path), []
    for key, entry in entries.items():
        bundle.verify(key)
        graph = bundle.files(key)[0]
        fused_file(graph).unlink(missing_ok=True)
        if can_be_fused(entry.precision, entry.variant.get("name")) and (twin := write_fused(graph)):
            entries[key] = entry.model_copy(update={"files": (*entry.files, file_entry(twin, "fused"))})
            made.append(key)
    write_json(path / MANIFEST_NAME, before.model_copy(update={"components": entries}).as_json())
    return made


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(*fuse_bundle(Path(argument)), sep="\n")
