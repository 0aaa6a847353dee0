"""Published rows, as shares in [0, 1] once read; the tables below have percent, as printed.

Sources: Diffusion-VAS, CVPR 2025, tables 1 to 8; PACO's table on COCOA, for SSSD's row too; SAMEO's tables.
"""

from __future__ import annotations

_TABLES: dict[tuple[str, str], tuple[tuple[str, ...], dict[str, tuple[float, ...]]]] = {
    ("sail-vos", "diffusion-vas"): (
        ("miou", "miou_occ"),
        {
            "Modal": (67.89,),
            "Convex": (63.18, 27.54),
            "PCNet-M": (74.2, 42.52),
            "3D-UNet": (72.79, 39.54),
            "Diffusion-VAS Top-1": (77.07, 55.12),
            "Diffusion-VAS Top-3": (79.23, 59.69),
        },
    ),
    ("tao-amodal", "diffusion-vas"): (
        ("ap25", "ap50", "ap75"),
        {
            "Modal": (93.73, 82.22, 63.12),
            "3D-UNet": (94.59, 83.83, 64.33),
            "Diffusion-VAS Top-1": (97.28, 89.25, 71.99),
            "Diffusion-VAS Top-3": (98.31, 92.46, 77.48),
        },
    ),
    ("movi-b", "eoras"): (
        ("miou", "miou_occ"),
        {
            "Modal": (59.19,),
            "Convex": (64.21, 18.42),
            "EoRaS": (81.76, 49.39),
            "Diffusion-VAS Top-1": (83.51, 53.75),
            "Diffusion-VAS uncropped Top-1": (87.8, 53.69),
        },
    ),
    ("movi-d", "eoras"): (
        ("miou", "miou_occ"),
        {
            "Modal": (56.92,),
            "Convex": (60.18, 16.48),
            "EoRaS": (74.1, 38.33),
            "C2F-Seg": (71.67, 36.13),
            "Diffusion-VAS Top-1": (77.03, 44.23),
            "Diffusion-VAS uncropped Top-1": (82.97, 47.86),
        },
    ),
    ("cocoa", "sssd"): (("miou",), {"SSSD": (87.59,)}),
    ("cocoa", "paco"): (("miou",), {"PACO": (89.52,)}),
    ("cocoa-cls", "class_agnostic"): (
        ("AP", "AP50", "AP75"),
        {
            "AISFormer": (40.6, 70.5),
            "AISFormer + SAMEO": (54.3, 74.0, 59.7),
            "RTMDet + SAMEO": (55.3, 75.2),
            "ConvNeXt-V2 + SAMEO": (54.1, 73.1),
        },
    ),
    ("d2sa", "class_agnostic"): (
        ("AP", "AP50"),
        {
            "AISFormer": (66.3, 89.9),
            "AISFormer + SAMEO": (79.8, 92.7),
            "RTMDet + SAMEO": (72.7, 85.8),
            "ConvNeXt-V2 + SAMEO": (80.8, 94.0),
        },
    ),
}
IMAGES = {"cocoa": 1323, "d2sa": 3600, "tabe-51": 51}
"""Clips or images of the whole set, where a source states it."""


def published(dataset: str, rules: str) -> dict[str, dict[str, float]]:
    """The published rows of a data set under a protocol, shares in [0, 1] by measure; empty if there are none."""
    names, rows = _TABLES.get((dataset, rules), ((), {}))
    shares = {row: [round(value / 100, 6) for value in values] for row, values in rows.items()}
    return {row: dict(zip(names, values, strict=False)) for row, values in shares.items()}
