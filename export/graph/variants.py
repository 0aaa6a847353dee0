"""Variants of graphs: forms that compute the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """The form of each layer of a graph where several compute the same; the manifest records it.

    Attributes:
        name: key in `VARIANTS`.
        attention: `native` is ONNX Attention (opset 23), and `tokens` the same over [N, tokens, heads * dim], whose
            heads ONNX Runtime's CUDA provider reads where they lie; `decomposed` is MatMul, Softmax in float32,
            MatMul, which compilers fuse as well.
        group_norm: `native` is GroupNormalization (opset 21), `instance` is InstanceNormalization over the groups,
            which ONNX Runtime's CPU provider has a kernel for (it unrolls the native one into fifteen nodes), and
            `layer` is LayerNormalization over them, the only one that its CUDA provider has a kernel for.
        temporal_conv: `conv2d` runs a (3, 1, 1) kernel as (3, 1) over [B, C, T, P]; `conv3d` leaves it.
        gates: `split` projects GEGLU's value and gate apart, which saves a copy of both; `merged` is one MatMul.
        qkv: `merged` projects query, key and value in one MatMul.
        upsample: `phases` convolves before doubling, `resize` after.
        time: `bias` adds a block's time embedding as the bias of the convolution before it, `added` after it.
        sizes: `read` reads free sizes off the inputs where a size is needed, `known` needs none of them: nodes that
            compute sizes would run on the CPU or be waited for, so that no CUDA graph could be recorded.
    """

    name: str
    attention: Literal["native", "tokens", "decomposed"] = "native"
    group_norm: Literal["native", "instance", "layer"] = "native"
    temporal_conv: Literal["conv2d", "conv3d"] = "conv2d"
    gates: Literal["split", "merged"] = "merged"
    qkv: Literal["split", "merged"] = "split"
    upsample: Literal["phases", "resize"] = "resize"
    time: Literal["bias", "added"] = "added"
    sizes: Literal["read", "known"] = "read"

    @property
    def opset(self) -> int:
        """The version of ONNX's operators: 23, which has Attention, but 21 for InstanceNormalization without it.

        ONNX Runtime's CUDA provider has a kernel for InstanceNormalization up to 21, so that graphs for the CPU run
        there as well; on the CPU both are the same.
        """
        return 21 if (self.group_norm, self.attention) == ("instance", "decomposed") else 23

    def as_dict(self) -> dict[str, str]:
        """Returns the form for the manifest."""
        return asdict(self)


VARIANTS = {
    v.name: v
    for v in (
        Variant("cpu", attention="decomposed", group_norm="instance", gates="split", upsample="phases"),
        Variant("engine", attention="decomposed"),
        # For ONNX Runtime on a GPU: its fused attention, and a norm that has a kernel there. In 1.31 neither
        # GroupNormalization nor, from opset 22, InstanceNormalization has one; Microsoft's own GroupNorm adds in any
        # order, so that two runs would differ.
        Variant("cuda", attention="tokens", group_norm="layer", gates="split", time="bias", sizes="known"),
        # One form changed at a time, for `amodal.bench.studies.variants` and to overrule the choice on a GPU.
        Variant("engine-attention", attention="native"),
        Variant("engine-group-norm", attention="decomposed", group_norm="instance"),
        Variant("engine-conv3d", attention="decomposed", temporal_conv="conv3d"),
        Variant("engine-gates", attention="decomposed", gates="split"),
        Variant("engine-qkv", attention="decomposed", qkv="merged"),
        Variant("engine-phases", attention="decomposed", upsample="phases"),
    )
}
