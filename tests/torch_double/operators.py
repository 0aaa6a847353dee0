"""ONNX operators in torch, one function each: those that the graphs here use, in the forms that they use.

Shapes and other whole numbers stay on the CPU, as ONNX Runtime keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.BOOL: torch.bool,
}
Attributes = Mapping[str, Any]


def attention(a: Attributes, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    parts, flat = (query, key, value), query.ndim == 3
    if flat:
        heads = (a["q_num_heads"], a["kv_num_heads"], a["kv_num_heads"])
        parts = tuple(x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in zip(parts, heads, strict=True))
    drawn = F.scaled_dot_product_attention(*parts, scale=a.get("scale"))
    return drawn.transpose(1, 2).flatten(2) if flat else drawn


def conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = weight.ndim - 2
    pads = a.get("pads", [0] * 2 * axes)
    # ONNX gives all beginnings, then all ends; torch pairs, the last axis first.
    x = F.pad(x, [n for axis in reversed(range(axes)) for n in (pads[axis], pads[axis + axes])])
    run = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    ones = [1] * axes
    return run(x, weight, bias, a.get("strides", ones), 0, a.get("dilations", ones), a.get("group", 1))


def gather(a: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    if index.ndim == 0:
        return x.select(axis, int(index))
    found = x.index_select(axis, index.flatten().to(x.device))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def gemm(a: Attributes, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    left, right = (x.T if a.get("transA") else x), (y.T if a.get("transB") else y)
    return a.get("alpha", 1.0) * (left @ right) + a.get("beta", 1.0) * z


def normalised(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    """With statistics in float32."""
    wide = x.float()
    variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    return ((wide - mean) * torch.rsqrt(variance + epsilon)).to(x.dtype)


def layer_normalization(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = list(range(a.get("axis", -1) % x.ndim, x.ndim))
    found = normalised(x, axes, a.get("epsilon", 1e-5)) * scale
    return found if bias is None else found + bias


def group_normalization(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    grouped = x.unflatten(1, (a["num_groups"], -1))
    found = normalised(grouped, list(range(2, grouped.ndim)), a.get("epsilon", 1e-5)).reshape(x.shape)
    return found * _over_channels(scale, x) + _over_channels(bias, x)


def instance_normalization(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    found = normalised(x, list(range(2, x.ndim)), a.get("epsilon", 1e-5))
    return found * _over_channels(scale, x) + _over_channels(bias, x)


def _over_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    size = a["blocksize"]
    if a.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, size)
    n, c, h, w = x.shape
    parts = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // size**2, h * size, w * size)


def reshape(a: Attributes, x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def resize(a: Attributes, x: Tensor, roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None = None) -> Tensor:
    if (a["mode"], a["coordinate_transformation_mode"], a["nearest_mode"]) != (b"nearest", b"asymmetric", b"floor"):
        raise NotImplementedError(f"Resize {dict(a)}")
    if sizes is not None:
        return F.interpolate(x, sizes.tolist()[2:], mode="nearest")
    assert scales is not None
    return F.interpolate(x, scale_factor=scales.tolist()[2:], mode="nearest")


def pad(a: Attributes, x: Tensor, pads: Tensor) -> Tensor:
    both = pads.tolist()
    return F.pad(x, [n for axis in reversed(range(x.ndim)) for n in (both[axis], both[axis + x.ndim])])


def slice_(a: Attributes, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor, steps: Tensor | None = None) -> Tensor:
    for begin, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        x = x.narrow(axis, *_range(begin, end, x.shape[axis]))
    return x


def _range(begin: int, end: int, size: int) -> tuple[int, int]:
    begin, end = (max(min(n + size if n < 0 else n, size), 0) for n in (begin, end))
    return begin, max(end - begin, 0)


def split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    if sizes is None:
        return x.tensor_split(a["num_outputs"], axis)
    return x.split(sizes.tolist(), axis)


def shape_of(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[a.get("start", 0) : a.get("end", x.ndim)], dtype=torch.int64)


def unsqueeze(a: Attributes, x: Tensor, axes: Tensor) -> Tensor:
    ndim = x.ndim + len(axes)
    for axis in sorted(n % ndim for n in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def constant_of_shape(a: Attributes, shape: Tensor) -> Tensor:
    (value,) = a["value"].tolist()
    return torch.full(shape.tolist(), value, dtype=a["value"].dtype)


def concat(a: Attributes, *parts: Tensor) -> Tensor:
    device = next((x.device for x in parts if x.is_cuda), parts[0].device)
    return torch.cat([x.to(device) for x in parts], a["axis"])


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda a, x, y: x + y,
    "Attention": attention,
    "Cast": lambda a, x: x.to(DTYPES[a["to"]]),
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "Cos": lambda a, x: x.cos(),
    "DepthToSpace": depth_to_space,
    "Div": lambda a, x, y: x // y if x.dtype == torch.int64 else x / y,
    "Exp": lambda a, x: x.exp(),
    "Expand": lambda a, x, shape: x.expand(torch.broadcast_shapes(x.shape, shape.tolist())),
    "Gather": gather,
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "Gemm": gemm,
    "GroupNormalization": group_normalization,
    "Identity": lambda a, x: x,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "Log": lambda a, x: x.log(),
    "MatMul": lambda a, x, y: x @ y,
    "Mul": lambda a, x, y: x * y,
    "Pad": pad,
    "Relu": lambda a, x: x.relu(),
    "Reshape": reshape,
    "Resize": resize,
    "Shape": shape_of,
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Sin": lambda a, x: x.sin(),
    "Slice": slice_,
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Split": split,
    "Sqrt": lambda a, x: x.sqrt(),
    "Sub": lambda a, x, y: x - y,
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Unsqueeze": unsqueeze,
}
