"""Times SAMEO's exported graphs beside the authors' structure in eager torch, on one thread of a CPU.

The authors' structure is written out plainly: attention as product, softmax, product; the image is repeated for each
box before the decoder, and projected for each. Both have the same weights. Figures are CPU seconds of the process, in
turns, because wall times depend on what else runs on the machine; peak memory is that of a process of its own.

    python -m amodal.bench.studies.sameo_speed --kind ti --boxes 16 --turns 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.backends.onnxruntime.graph import fastest_form, session_options


def main() -> None:
    """Prints a table in Markdown, or with --peak the peak of a process that runs one graph, in MB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kind", default="ti", help="architecture of random weights: ti, s or tiny")
    parser.add_argument("--boxes", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=None, metavar=("H", "W"))
    parser.add_argument("--peak", type=Path, help="run one graph on zeros in this process, and print its peak")
    options = parser.parse_args()
    if options.peak is not None:
        print(json.dumps(_peak(options.peak, options.boxes)))
        return
    size = tuple(options.size) if options.size else None
    with tempfile.TemporaryDirectory() as folder:
        print(_table(Path(folder) / "bundle", options.kind, size, options.boxes, options.turns))


def _table(bundle: Path, kind: str, size: tuple[int, int] | None, boxes: int, turns: int) -> str:
    import torch

    from amodal.export.bundle import export_bundle
    from amodal.export.families.sameo.checkpoint import random_checkpoint
    from amodal.export.families.sameo.plan import SameoSettings, plan_sameo

    torch.set_num_threads(1)
    checkpoint = random_checkpoint(kind).resized(size)
    export_bundle(bundle, plan_sameo(checkpoint, SameoSettings(size=size, precision="fp32", check="none")))
    network, rng = checkpoint.network(), np.random.default_rng(0)
    config = checkpoint.config
    pixels = rng.random((1, 3, config.height, config.width), np.float32)
    corners = np.sort(rng.random((boxes, 2, 2), np.float32), axis=1) * np.array(
        [config.width, config.height], np.float32
    )
    prompts, labels = (np.full((boxes, config.slots, *more), -1, np.float32) for more in ((2,), ()))
    prompts[:, :2], labels[:, :2] = corners, [2, 3]

    encoder, decoder = (_graph(bundle / "graphs" / f"{name}.onnx") for name in ("image_encoder", "mask_decoder"))
    image = encoder({"pixels": pixels})
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (checkpoint.mean, checkpoint.std))
    given = (torch.from_numpy(pixels) - mean) / std
    embedding, points, kinds = (torch.from_numpy(each) for each in (image["embedding"], prompts, labels))
    runs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "encoder": (lambda: encoder({"pixels": pixels}), lambda: authors_encoder(network, given)),
        f"a box of {boxes}": (
            lambda: decoder(image | {"prompts": prompts, "labels": labels}),
            lambda: authors_decoder(network, embedding, points, kinds),
        ),
    }
    peaks = {
        name: _peak_apart(bundle / "graphs" / f"{graph}.onnx", boxes)
        for name, graph in zip(runs, ("image_encoder", "mask_decoder"), strict=True)
    }
    lines = [
        "| part | exported, CPU s | authors' structure, CPU s | ratio | peak of its process |",
        "|---|---|---|---|---|",
    ]
    for name, pair in runs.items():
        share = 1 if name == "encoder" else boxes
        times = [[_seconds(run) / share for run in pair] for _ in range(turns + 1)][1:]
        ours, theirs = (statistics.median(turn[i] for turn in times) for i in range(2))
        lines.append(f"| {name} | {ours:.3f} | {theirs:.3f} | {ours / theirs:.2f} | {peaks[name]:.0f} MB |")
    return "\n".join(lines)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _graph(file: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    ort, options = session_options(1, optimise=True)
    session = ort.InferenceSession(str(fastest_form(file)), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _peak(file: Path, boxes: int) -> float:
    """Returns the peak resident memory of this process in MB, after two runs of a graph on zeros."""
    ort, options = session_options(1, optimise=True)
    session = ort.InferenceSession(str(fastest_form(file)), options, providers=["CPUExecutionProvider"])
    free = {"pictures": 1, "boxes": boxes}
    feeds = {i.name: np.zeros([free.get(n, n) for n in i.shape], np.float32) for i in session.get_inputs()}
    for _ in range(2):
        session.run(None, feeds)
    # Of this program alone: `ru_maxrss` of a child begins with its parent's.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1000


def _peak_apart(file: Path, boxes: int) -> float:
    command = [sys.executable, "-m", __spec__.name, "--peak", str(file), "--boxes", str(boxes)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


# The authors' structure


def authors_encoder(network: Any, pixels: Any) -> Any:
    """Encodes normalised pixels as EfficientSAM's `ImageEncoderViT` does."""
    import torch

    encoder = network.image_encoder
    with torch.no_grad():
        x = encoder.patch_embed(pixels).flatten(2).transpose(1, 2) + encoder.positions()
        for block in encoder.blocks:
            h, attention = block.norm1(x), block.attn
            batch, tokens, width = h.shape
            qkv = attention.qkv(h).reshape(batch, tokens, 3, attention.heads, width // attention.heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            shares = ((q @ k.transpose(-2, -1)) * (width // attention.heads) ** -0.5).softmax(dim=-1)
            x = x + attention.proj((shares @ v).transpose(1, 2).reshape(batch, tokens, width))
            x = x + block.mlp(block.norm2(x))
        return encoder.neck(x.transpose(1, 2).reshape(x.shape[0], -1, *encoder.config.grid))


def authors_decoder(network: Any, embedding: Any, points: Any, labels: Any) -> Any:
    """Decodes prompts [N, slots, 2] and labels [N, slots] as EfficientSAM's `MaskDecoder` does."""
    import torch

    decoder, boxes = network.mask_decoder, len(points)
    with torch.no_grad():
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(boxes, -1, -1)
        code = torch.cat([own, network.prompt_encoder(points, labels)], dim=1)
        image = embedding.repeat_interleave(boxes, dim=0).flatten(2).permute(0, 2, 1)
        places = network.prompt_encoder.dense()[None].repeat_interleave(boxes, dim=0)
        tokens = code
        for index, layer in enumerate(decoder.transformer.layers):
            tokens = tokens if index == 0 else tokens + code
            tokens = layer.norm1(tokens + _attend(layer.self_attn, tokens, tokens, tokens))
            h = _attend(layer.cross_attn_token_to_image, tokens + code, image + places, image)
            tokens = layer.norm2(tokens + h)
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            h = _attend(layer.cross_attn_image_to_token, image + places, tokens + code, tokens)
            image = layer.norm4(image + h)
        last = decoder.transformer
        h = _attend(last.final_attn_token_to_image, tokens + code, image + places, image)
        tokens = last.norm_final_attn(tokens + h)
        picture = image.transpose(1, 2).view(boxes, -1, *decoder.grid)
        for stage in decoder.final_output_upscaling_layers:
            picture = stage(picture)
        masks = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        logits = torch.stack(masks, dim=1) @ picture.flatten(2)
        return logits, decoder.iou_prediction_head(tokens[:, 0])


def _attend(attention: Any, q: Any, k: Any, v: Any) -> Any:
    q, k, v = attention.q_proj(q), attention.k_proj(k), attention.v_proj(v)
    q, k, v = (x.reshape(*x.shape[:2], attention.heads, -1).transpose(1, 2) for x in (q, k, v))
    shares = ((q @ k.transpose(2, 3)) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return attention.out_proj((shares @ v).transpose(1, 2).flatten(2))


if __name__ == "__main__":
    main()
