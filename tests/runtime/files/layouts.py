"""Writes masks of several objects in each layout that `read_tracks` reads, with slow encoders of its own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from amodal.runtime.files.rle import encode_rle

Masks = Mapping[str, Any]  # by id, bool [T, H, W]
HEIGHT, WIDTH, FRAMES = 7, 9, 5


def example(seed: int = 0) -> dict[str, Any]:
    """Two objects over five frames; the second is not seen in frames 1 and 2."""
    masks = np.random.default_rng(seed).random((2, FRAMES, HEIGHT, WIDTH)) > 0.6
    masks[1, 1:3] = False
    masks[:, 0, 0, 0] = True
    return {"3": masks[0], "12": masks[1]}


def slow_runs(flat: Any) -> list[int]:
    """Pixel by pixel: zeros first, then ones, and so on."""
    runs, value = [0], False
    for pixel in flat:
        if bool(pixel) != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return runs


def uncompressed(mask: Any) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": slow_runs(mask.T.ravel())}


def file_names(count: int = FRAMES) -> list[str]:
    return [f"clip/{i + 1:05d}.jpg" for i in range(count)]


def save(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def shown(masks: Masks) -> list[tuple[str, int, Any]]:
    return [(name, i, mask) for name, clip in masks.items() for i, mask in enumerate(clip) if mask.any()]


def images() -> list[dict[str, Any]]:
    return [{"id": 40 - i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(file_names())]


def coco(folder: Path, masks: Masks) -> Path:
    annotations = [
        {"id": k, "image_id": 40 - i, "category_id": 1, "track_id": int(name), "segmentation": uncompressed(mask)}
        for k, (name, i, mask) in enumerate(shown(masks))
    ]
    return save(folder / "coco.json", {"images": images(), "annotations": annotations})


def cvat_coco(folder: Path, masks: Masks) -> Path:
    annotations = [
        {
            "id": k,
            "image_id": 40 - i,
            "category_id": 1,
            "iscrowd": 1,
            "segmentation": encode_rle(mask),
            "attributes": {"occluded": False, "track_id": int(name), "keyframe": True},
        }
        for k, (name, i, mask) in enumerate(shown(masks))
    ]
    return save(folder / "instances.json", {"images": images(), "annotations": annotations, "categories": [{"id": 1}]})


def youtube_vis(folder: Path, masks: Masks) -> Path:
    videos = [{"id": 6, "height": HEIGHT, "width": WIDTH, "file_names": file_names()}]
    tracks = [
        {"id": int(name), "video_id": 6, "segmentations": [encode_rle(m) if m.any() else None for m in clip]}
        for name, clip in masks.items()
    ]
    return save(folder / "ytvis.json", {"videos": videos, "annotations": tracks})


def sav(folder: Path, masks: Masks) -> Path:
    document = {
        "video_id": "sav_000001",
        "video_frame_count": 4.0 * FRAMES - 2,
        "video_height": float(HEIGHT),
        "video_width": float(WIDTH),
        "masklet": [[encode_rle(clip[i]) for clip in masks.values()] for i in range(FRAMES)],
        "masklet_id": [int(name) for name in masks],
    }
    return save(folder / "sav_000001_manual.json", document)


def demo(folder: Path, masks: Masks) -> Path:
    frames = [
        {
            "frameIndex": i,
            "rleMaskList": [
                {"objectId": int(name), "rleMask": {**encode_rle(clip[i]), "order": "F"}}
                for name, clip in masks.items()
            ],
        }
        for i in reversed(range(FRAMES))
    ]
    return save(folder / "demo.json", frames)


def demo_folder(folder: Path, masks: Masks) -> Path:
    for i in range(FRAMES):
        held = [{"object_id": int(name), "rle_mask": encode_rle(clip[i])} for name, clip in masks.items()]
        save(folder / "demo" / f"frame_{i}.json", {"frame_index": i, "rle_mask_list": held})
    return folder / "demo"


def nested(folder: Path, masks: Masks) -> Path:
    return save(
        folder / "segments.json",
        {str(i): {name: uncompressed(clip[i]) for name, clip in masks.items()} for i in range(FRAMES)},
    )


def nested_by_object(folder: Path, masks: Masks) -> Path:
    frames = [name.split("/")[1] for name in file_names()]
    return save(
        folder / "objects.json",
        {
            name: {frame: encode_rle(mask) for frame, mask in zip(frames, clip, strict=True)}
            for name, clip in masks.items()
        },
    )


def rle_files(folder: Path, masks: Masks) -> Path:
    for i, frame in enumerate(file_names()):
        held = {name: encode_rle(clip[i]) for name, clip in masks.items()}
        save((folder / "rles" / frame.split("/")[1]).with_suffix(".json"), held)
    return folder / "rles"


def grounded(folder: Path, masks: Masks) -> Path:
    for i, frame in enumerate(file_names()):
        held = [{"class_name": name, "segmentation": encode_rle(clip[i])} for name, clip in masks.items()]
        document = {"image_path": frame, "annotations": held, "img_height": HEIGHT, "img_width": WIDTH}
        save(folder / "grounded" / f"{i}.json", document)
    return folder / "grounded"


def burst(folder: Path, masks: Masks) -> Path:
    sequence = {
        "seq_name": "walk",
        "height": HEIGHT,
        "width": WIDTH,
        "annotated_image_paths": file_names(),
        "segmentations": [
            {
                name: {"rle": encode_rle(clip[i])["counts"], "is_gt": True}
                for name, clip in masks.items()
                if clip[i].any()
            }
            for i in range(FRAMES)
        ],
    }
    return save(folder / "burst.json", {"sequences": [sequence], "split": "val"})


def mots(folder: Path, masks: Masks) -> Path:
    rows = [f"{i + 1} {name} 2 {HEIGHT} {WIDTH} {encode_rle(mask)['counts']}" for name, i, mask in shown(masks)]
    (folder / "mots.txt").write_text("\n".join(rows) + "\n")
    return folder / "mots.txt"


def png(mask: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def labelme(folder: Path, masks: Masks) -> Path:
    for i, frame in enumerate(file_names()):
        shapes = []
        for name, clip in masks.items():
            if clip[i].any():
                rows, columns = np.flatnonzero(clip[i].any(1)), np.flatnonzero(clip[i].any(0))
                top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
                box = [[float(left), float(top)], [float(right), float(bottom)]]
                cut = clip[i][top : bottom + 1, left : right + 1]
                shapes.append(
                    {"label": "thing", "group_id": int(name), "shape_type": "mask", "points": box, "mask": png(cut)}
                )
        document = {
            "version": "5.5.0",
            "shapes": shapes,
            "imagePath": "..\\" + frame.split("/")[1],
            "imageData": "AAAA",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        save(folder / "labelme" / f"x{i}.json", document)
    return folder / "labelme"


def brush(mask: Any) -> list[int]:
    """The bits of thi.ng/rle-pack, one run after the other, each as the first kind of length that is long enough."""
    values = [255 if pixel else 0 for pixel in mask.ravel() for _ in range(4)]
    kinds = [3, 4, 8, 16]
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{kind - 1:04b}" for kind in kinds)
    i = 0
    while i < len(values):
        j = i
        while j < len(values) and values[j] == values[i] and j - i < 2**16:
            j += 1
        if j - i == 4 and i + 8 <= len(values):  # values one by one are part of the format too
            bits += "0" + "00" + f"{7:03b}" + "".join(f"{value:08b}" for value in values[i : i + 8])
            i += 8
            continue
        kind = next(k for k, width in enumerate(kinds) if j - i <= 2**width)
        bits += "1" + f"{kind:02b}" + f"{j - i - 1:0{kinds[kind]}b}" + f"{values[i]:08b}"
        i = j
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def label_studio(folder: Path, masks: Masks) -> Path:
    tasks = []
    for i, frame in enumerate(file_names()):
        regions = [
            {
                "id": f"r{i}{name}",
                "type": "brushlabels",
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": brush(clip[i]), "brushlabels": [name]},
            }
            for name, clip in masks.items()
            if clip[i].any()
        ]
        picture = "/data/upload/1/0a1b2c3d-" + frame.split("/")[1]
        tasks.append({"id": i, "data": {"image": picture}, "annotations": [{"id": i, "result": regions}]})
    return save(folder / "label_studio.json", tasks)


def cvat_video(folder: Path, masks: Masks) -> Path:
    tracks = ""
    for name, clip in masks.items():
        shapes = ""
        for i, mask in enumerate(clip):
            runs = ", ".join(map(str, slow_runs(mask[1:, 2:].ravel())))
            shapes += (
                f'<mask frame="{i}" keyframe="1" outside="{int(not mask.any())}" occluded="0" rle="{runs}" left="2" '
                f'top="1" width="{WIDTH - 2}" height="{HEIGHT - 1}" z_order="0"></mask>'
            )
        tracks += f'<track id="{name}" label="car" source="manual">{shapes}</track>'
    size = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
    task = (
        f"<task><id>1</id><size>{FRAMES}</size><start_frame>0</start_frame><stop_frame>{FRAMES - 1}</stop_frame>{size}"
    )
    text = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta>{task}</task></meta>{tracks}'
    )
    (folder / "cvat.xml").write_text(text + "</annotations>")
    return folder / "cvat.xml"


def cvat_images(folder: Path, masks: Masks) -> Path:
    pictures = ""
    for i, frame in enumerate(file_names()):
        pictures += f'<image id="{i}" name="{frame}" width="{WIDTH}" height="{HEIGHT}">'
        for name, clip in masks.items():
            if clip[i].any():
                runs = ", ".join(map(str, slow_runs(clip[i].ravel())))
                pictures += (
                    f'<mask label="car" source="manual" occluded="0" rle="{runs}" left="0" top="0" width="{WIDTH}" '
                    f'height="{HEIGHT}" z_order="0" group_id="{name}"></mask>'
                )
        pictures += "</image>"
    (folder / "images.xml").write_text(f"<annotations><version>1.1</version>{pictures}</annotations>")
    return folder / "images.xml"


@dataclass(frozen=True)
class Layout:
    """A way to write masks, and what the reader must say of it."""

    write: Callable[[Path, Masks], Path]
    names: list[str] | None
    numbered: bool = False
    corner: bool = False  # whether row 0 and columns 0 and 1 are not stored


_NUMBERS = [str(i) for i in range(FRAMES)]
_PLAIN = [name.split("/")[1] for name in file_names()]
LAYOUTS = {
    "COCO": Layout(coco, file_names()),
    "CVAT's COCO": Layout(cvat_coco, file_names()),
    "YouTube-VIS": Layout(youtube_vis, file_names()),
    "SA-V": Layout(sav, ["0", "4", "8", "12", "16"], True),
    "SAM 2 demo": Layout(demo, _NUMBERS, True),
    "SAM 2 demo, by frame": Layout(demo_folder, _NUMBERS, True),
    "frame, object": Layout(nested, _NUMBERS, True),
    "object, frame": Layout(nested_by_object, _PLAIN),
    "RLE files": Layout(rle_files, [name.removesuffix(".jpg") for name in _PLAIN]),
    "Grounded-SAM-2": Layout(grounded, _PLAIN),
    "BURST": Layout(burst, file_names()),
    "MOTS": Layout(mots, ["1", "2", "3", "4", "5"]),
    "LabelMe": Layout(labelme, _PLAIN),
    "Label Studio": Layout(label_studio, _PLAIN),
    "CVAT video": Layout(cvat_video, _NUMBERS, True, corner=True),
    "CVAT images": Layout(cvat_images, file_names()),
}
