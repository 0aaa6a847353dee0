"""Names checkpoints of other networks that also segment from prompts, by their tensors."""

from __future__ import annotations

from collections.abc import Iterable

_MARKS = (  # of the first network whose mark is in a tensor's name
    ("SAM 2", ("image_encoder.trunk.", "sam_mask_decoder.", "memory_attention.", "memory_encoder.")),
    ("SAM 3", ("detector.backbone.", "tracker.sam_")),
    ("HQ-SAM", ("mask_decoder.hf_token", "mask_decoder.hf_mlp")),
    ("MobileSAM", ("image_encoder.patch_embed.seq.", "image_encoder.layers.")),
    ("EdgeSAM", ("image_encoder.token_mixer", "image_encoder.stages.", "image_encoder.fuse_stage")),
    ("SAM (ViT-B, -L or -H)", ("image_encoder.blocks.0.attn.rel_pos_h", "mask_decoder.output_upscaling.")),
    ("FastSAM or YOLO", ("model.0.conv.weight", "model.22.")),
    ("Depth Anything", ("pretrained.blocks.", "depth_head.")),
)


def other_kind(names: Iterable[str]) -> str | None:
    """Returns the network that a state's names are of, if it is known and not EfficientSAM's; None otherwise."""
    known = [str(name) for name in names]
    for network, marks in _MARKS:
        if any(name.startswith(mark) for name in known for mark in marks):
            return network
    return None
