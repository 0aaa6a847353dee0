"""Graphs whose operators are fused for the kernels in `runtime/backends/onnxruntime/kernels`, beside the plain ones.

A graph for ONNX Runtime on a CPU has a twin, `<name>.fused.onnx`, of the same weights on disk, in which groups of
operators are one of the kernels' (`kernels.cpp` there lists them). The plain graph stays what other libraries read, and
what is run where there are no kernels. Groups are found in the plain graph as it was written, so a bundle
exported before can be given its twins: `python -m amodal.export.fusing BUNDLE`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from amodal.runtime.backends.onnxruntime.kernels import DOMAIN, FUSED, fused_file
from amodal.runtime.bundle.manifest import MANIFEST_NAME, FileEntry
from amodal.runtime.bundle.reading import Bundle, read_manifest, sha256_of
from amodal.runtime.files.results import write_json

_VARIANT = "cpu"  # how graphs are written in which these groups are found

_LANES = 16  # what the kernels' widths are multiples of: the floats of their widest vector
_WIDEST = 1280  # hidden values of a feed-forward block; beyond, ONNX Runtime's packed weights are the faster
_SMALL_WEIGHTS = 2**20  # floats; a convolution's transformed weights, where a map is not larger
_SPATIAL = ([0, 2, 1, 3], [0, 2, 1, 3])  # perms that split the heads of [N, L, C], and join them again
_TEMPORAL = ([0, 2, 3, 1, 4], [0, 3, 1, 2, 4])  # of [B, T, P, C]


def can_be_fused(precision: str, variant: str | None) -> bool:
    """Whether a graph gets a twin, by its arithmetic and its variant's name; graphs for engines get none."""
    return precision == "fp32" and variant == _VARIANT


def write_fused(file: Path) -> Path | None:
    """Writes the fused twin of a graph beside it.

    Args:
        file: a graph with float32 arithmetic, its weights in the file or beside it.

    Returns:
        The twin; None if there was nothing to fuse.
    """
    graph = _Graph(onnx.load(file, load_external_data=False))
    for fuse in _FUSERS:
        fuse(graph)
    if not graph.fused:
        return None
    twin = fused_file(file)
    twin.write_bytes(graph.finished().SerializeToString())
    return twin


class _Graph:
    """A graph whose nodes are replaced while it is read.

    Attributes:
        shapes: value -> its axes; None for one that is not known.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.model = model
        self.shapes: dict[str, list[int | None]] = {
            info.name: [d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim]
            for info in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        self.constants = {i.name: i for i in model.graph.initializer}
        self.shapes.update({name: list(i.dims) for name, i in self.constants.items()})
        self.maker = {out: node for node in model.graph.node for out in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self._given = {o.name for o in model.graph.output}
        self._instead: dict[str, onnx.NodeProto] = {}

    def nodes(self, kind: str) -> Iterator[onnx.NodeProto]:
        """All nodes of a kind, as the graph was written."""
        return (n for n in self.model.graph.node if n.op_type == kind)

    def before(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node of that kind that makes a value."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type == kind else None

    def after(self, node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        """The node of that kind that alone uses a node's only result."""
        (name,) = node.output
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and users[0].op_type == kind and name not in self._given else None

    def weight(self, name: str) -> bool:
        """Whether a value is the same in every run: stored, at most in another dtype."""
        cast = self.before(name, "Cast")
        return name in self.constants or (cast is not None and cast.input[0] in self.constants)

    def shape(self, name: str) -> list[int | None]:
        """A value's axes; none where nothing is known of it."""
        return self.shapes.get(name, [])

    def value(self, name: str) -> NDArray[Any] | None:
        """A small constant's."""
        constant = self.constants.get(name)
        stored = constant is not None and constant.data_location != onnx.TensorProto.EXTERNAL
        return numpy_helper.to_array(constant) if constant is not None and stored else None

    def replace(self, node: onnx.NodeProto, kind: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Has an operator of the kernels make what a node makes; what only that needed goes at the end."""
        name = f"{node.name.rpartition('/')[0]}/{kind}_{len(self._instead)}"
        made = helper.make_node(kind, inputs, list(node.output), name=name, domain=DOMAIN, **attributes)
        self._instead[node.output[0]] = made

    @property
    def fused(self) -> int:
        """How many operators of the kernels there are."""
        return len(self._instead)

    def finished(self) -> onnx.ModelProto:
        """The graph without what was replaced, and without what only that needed."""
        graph = self.model.graph
        nodes = [self._instead.get(n.output[0], n) for n in graph.node]
        while True:
            used = {name for n in nodes for name in n.input} | self._given
            left = [n for n in nodes if used.intersection(n.output)]
            if len(left) == len(nodes):
                break
            nodes = left
        weights = [i for i in graph.initializer if i.name in used]
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(kept)
        graph.initializer.extend(weights)
        self.model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return self.model


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _group_norms(graph: _Graph) -> None:
    """Reshape, InstanceNormalization, Reshape, depthwise convolution, and SiLU where it follows."""
    for norm in graph.nodes("InstanceNormalization"):
        first, second = graph.before(norm.input[0], "Reshape"), graph.after(norm, "Reshape")
        scale = second and graph.after(second, "Conv")
        if first is None or second is None or scale is None or len(scale.input) != 3:
            continue
        weights, (ones, zeros) = scale.input[1:], (graph.value(n) for n in norm.input[1:])
        if not all(map(graph.weight, weights)) or ones is None or zeros is None or (ones != 1).any() or zeros.any():
            continue
        x = first.input[0]
        shape, back, kernel = (graph.shape(name) for name in (x, second.output[0], weights[0]))
        channels, cut = _attribute(scale, "group", 1), graph.value(first.input[1])
        if (
            len(shape) < 3
            or shape[1:] != back[1:]
            or shape[1] != channels
            or kernel != [channels, *[1] * len(back[1:])]
        ):
            continue
        if any(_attribute(scale, "pads", [])) or set(_attribute(scale, "strides", [1])) != {1}:
            continue
        if cut is None or not _cuts_groups([int(n) for n in cut], shape, len(ones)):
            continue
        last, users = scale, graph.users.get(scale.output[0], [])
        if sorted(n.op_type for n in users) == ["Mul", "Sigmoid"]:
            times, sigmoid = sorted(users, key=lambda n: n.op_type)
            last = times if set(times.input) == {scale.output[0], sigmoid.output[0]} else scale
        epsilon, silu = _attribute(norm, "epsilon", 1e-5), int(last is not scale)
        graph.replace(last, "GroupNorm", [x, *weights], epsilon=epsilon, groups=len(ones), silu=silu)


def _cuts_groups(cut: list[int], shape: Sequence[int | None], groups: int) -> bool:
    """Whether a Reshape of [N, C, ..] to `cut` makes [N, groups, rest] of it."""
    if len(cut) != 3 or cut[1] != groups:
        return False
    if cut[0] == 1:
        return shape[0] == 1 and cut[2] == -1
    known = [n for n in shape[1:] if n is not None]
    return cut[0] == -1 and len(known) == len(shape) - 1 and cut[2] * groups == math.prod(known)


def _convolutions(graph: _Graph) -> None:
    """3x3 convolutions of stride 1.

    Except where much of the 4x4 tiles would lie outside of the map, and where the transformed weights, four times what
    they were, would count: they may be 4 MB, or what the maps of one frame take.
    """
    for node in graph.nodes("Conv"):
        shape, weights = graph.shape(node.output[0]), graph.shape(node.input[1])
        plain = (
            weights[2:] == [3, 3]
            and _attribute(node, "pads") == [1, 1, 1, 1]
            and _attribute(node, "strides", [1, 1]) == [1, 1]
            and _attribute(node, "dilations", [1, 1]) == [1, 1]
            and _attribute(node, "group", 1) == 1
        )
        if not plain or len(node.input) != 3 or len(shape) != 4 or not all(map(graph.weight, node.input[1:])):
            continue
        (height, across), (out, width) = shape[2:], weights[:2]
        if out is None or width is None or height is None or across is None or out % _LANES or width % _LANES:
            continue
        tiles, most = 16 * -(-height // 4) * -(-across // 4), max(_SMALL_WEIGHTS, height * across * (out + width))
        if 4 * height * across >= 3 * tiles and 36 * out * width <= most:
            graph.replace(node, "Conv3x3", node.input)


def _feed_forwards(graph: _Graph) -> None:
    """x + feed_forward(layer_norm(x)), GEGLU's value and gate projected apart."""
    for gelu in graph.nodes("Gelu"):
        gate, times = graph.before(gelu.input[0], "Gemm"), graph.after(gelu, "Mul")
        if gate is None or times is None or _attribute(gelu, "approximate", b"none") != b"none":
            continue
        other = next(name for name in times.input if name != gelu.output[0])
        value, flat = graph.before(other, "Gemm"), graph.before(gate.input[0], "Reshape")
        norm = flat and graph.before(flat.input[0], "LayerNormalization")
        if value is None or flat is None or norm is None or value.input[0] != gate.input[0]:
            continue
        out = graph.after(graph.after(times, "Reshape") or times, "Gemm")
        back = out and graph.after(out, "Reshape")
        add = graph.after(back or out, "Add") if out is not None else None
        x = norm.input[0]
        if out is None or add is None or x not in add.input:
            continue
        inputs = [x, *norm.input[1:], *value.input[1:], *gate.input[1:], *out.input[1:]]
        shape, (width, hidden) = graph.shape(x), [*graph.shape(value.input[1]), None, None][:2]
        wanted = [[width], [width], *2 * [[width, hidden], [hidden]], [hidden, width], [width]]
        if [graph.shape(name) for name in inputs[1:]] != wanted or not all(map(graph.weight, inputs[1:])):
            continue
        if width is None or hidden is None or width % _LANES or hidden % _LANES or hidden > _WIDEST:
            continue
        rows = graph.value(flat.input[1])
        if rows is None or [*rows] != [-1, width] or len(shape) < 2 or shape[-1] != width:
            continue
        if graph.shape(add.output[0]) != shape or _attribute(norm, "axis", -1) != -1:
            continue
        if all(map(_plain_gemm, (value, gate, out))):
            graph.replace(add, "FeedForward", inputs, epsilon=_attribute(norm, "epsilon", 1e-5))


def _plain_gemm(node: onnx.NodeProto) -> bool:
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(helper.get_attribute_value(a) == usual.get(a.name) for a in node.attribute)


def _attentions(graph: _Graph) -> None:
    """Softmax attention of tokens among themselves, with the moves that split heads and join them."""
    for softmax in graph.nodes("Softmax"):
        scores, mixed = graph.before(softmax.input[0], "MatMul"), graph.after(softmax, "MatMul")
        scaled = scores and graph.before(scores.input[0], "Mul")
        keys = scores and graph.before(scores.input[1], "Transpose")
        if scores is None or mixed is None or scaled is None or keys is None:
            continue
        if _attribute(keys, "perm") != [0, 1, 3, 2] or _attribute(softmax, "axis", -1) != -1:
            continue
        scale = graph.value(scaled.input[1])
        for perms, length in ((_SPATIAL, 2), (_TEMPORAL, 3)):
            sides = [_split(graph, name, perms[0], length) for name in (scaled.input[0], keys.input[0], mixed.input[1])]
            joined = _joined(graph, mixed, perms[1], length)
            if joined is None or scale is None or scale.size != 1 or any(side is None for side in sides):
                continue
            q, k, v = (side for side in sides if side is not None)
            shape = graph.shape(q[0])
            same = all(graph.shape(name) == shape for name in (k[0], v[0], joined.output[0]))
            *cut, heads, dim = q[1]
            # Free, or the same for all by their common origin; the kernel refuses others.
            if not same or len(shape) != length + 1 or shape[1:] != [*cut[1:], heads * dim] or cut[0] != -1:
                continue
            if not q[1] == k[1] == v[1] or dim % _LANES or abs(scale.item() * dim**0.5 - 1) > 1e-6:
                continue
            graph.replace(joined, "SelfAttention", [q[0], k[0], v[0]], heads=heads)
            break


_Side = tuple[str, list[int]]


def _split(graph: _Graph, name: str, perm: list[int], length: int) -> _Side | None:
    """What was split into heads to make a value: its name, and to which shape."""
    if length == 3:  # temporal: a Reshape of batch and pixels into one axis comes last
        last = graph.before(name, "Reshape")
        if last is None:
            return None
        name = last.input[0]
    turn = graph.before(name, "Transpose")
    first = turn and graph.before(turn.input[0], "Reshape")
    if turn is None or first is None or _attribute(turn, "perm") != perm:
        return None
    shape = graph.value(first.input[1])
    if shape is None or len(shape) != length + 2:
        return None
    return first.input[0], [int(n) for n in shape]


def _joined(graph: _Graph, node: onnx.NodeProto, perm: list[int], length: int) -> onnx.NodeProto | None:
    """The node after which heads are side by side again."""
    at: onnx.NodeProto | None = node
    for kind in ("Reshape", "Transpose", "Reshape")[3 - length :]:
        at = at and graph.after(at, kind)
        if at is None or (kind == "Transpose" and _attribute(at, "perm") != perm):
            return None
    return at


def _interleaved(graph: _Graph) -> None:
    """Four maps joined and spread over space."""
    for spread in graph.nodes("DepthToSpace"):
        joined = graph.before(spread.input[0], "Concat")
        if joined is None or len(joined.input) != 4 or _attribute(joined, "axis") != 1:
            continue
        shapes = [graph.shape(name)[1:] for name in joined.input]
        alike = len(shapes[0]) == 3 and None not in shapes[0] and all(shape == shapes[0] for shape in shapes)
        if alike and _attribute(spread, "blocksize") == 2 and _attribute(spread, "mode", b"DCR") == b"DCR":
            graph.replace(spread, "Interleave", joined.input)


_FUSERS: tuple[Callable[[_Graph], None], ...] = (
    _group_norms,
    _convolutions,
    _feed_forwards,
    _attentions,
    _interleaved,
)


def file_entry(file: Path) -> FileEntry:
    """What the manifest says of a graph's file."""
    return FileEntry(path=f"{file.parent.name}/{file.name}", bytes=file.stat().st_size, sha256=sha256_of(file))


def fuse_bundle(path: Path) -> list[str]:
    """Gives the graphs of a bundle their fused twins, those that it had before replaced, and rewrites its manifest.

    As an export does: graphs for engines get none.

    Returns:
        The components that have one now.

    Raises:
        BundleError: there is no bundle, or its plain graphs are not what the manifest says.
    """
    before = read_manifest(path)
    plain = {
        key: tuple(file for file in entry.files if not file.path.endswith(FUSED))
        for key, entry in before.components.items()
    }
    entries = {key: entry.model_copy(update={"files": plain[key]}) for key, entry in before.components.items()}
    manifest = before.model_copy(update={"components": entries})
    # Without twins first: interrupted, the bundle is whole, and the same command goes on.
    write_json(path / MANIFEST_NAME, manifest.as_json())
    bundle, made = Bundle(path), []
    for key, entry in manifest.components.items():
        bundle.verify(key)
        graph = bundle.files(key)[0]
        fused_file(graph).unlink(missing_ok=True)
        if can_be_fused(entry.precision, entry.variant.get("name")) and (twin := write_fused(graph)):
            entries[key] = entry.model_copy(update={"files": (*plain[key], file_entry(twin))})
            made.append(key)
    write_json(path / MANIFEST_NAME, before.model_copy(update={"components": entries}).as_json())
    return made


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(*fuse_bundle(Path(argument)), sep="\n")
