"""The report as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from .report import MaskScores, Report


def render(report: Report) -> Table:
    """One line per prediction or baseline; a dash where a measure has nothing to say.

    mIoU, mIoU_occ, AP and flicker in percent, as the papers print them (the report has shares); PSNR in dB.
    """
    rows = report.rows
    table = Table(box=box.SIMPLE_HEAD, caption=_caption(report), caption_justify="left")
    table.add_column("", no_wrap=True)
    columns: list[tuple[str, Sequence[str]]] = []
    if report.mode != "strict":
        columns += _mask_columns("official", [row.official for row in rows])
    if report.mode != "official":
        columns += _mask_columns("strict", [row.strict for row in rows])
    columns += [(f"AP{n}", [_percent(getattr(row, f"ap{n}")) for row in rows]) for n in (25, 50, 75)]
    columns.append(("flicker", [_percent(row.flicker) for row in rows]))
    if any(row.psnr is not None for row in rows):
        columns.append(("PSNR\ndB", ["-" if row.psnr is None else f"{row.psnr:.2f}" for row in rows]))
    for head, _ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for row, *cells in zip(rows, *(cells for _, cells in columns), strict=True):
        table.add_row(row.name, *cells)
    return table


def _mask_columns(mode: str, scores: Sequence[MaskScores | None]) -> list[tuple[str, Sequence[str]]]:
    return [
        (f"mIoU\n{mode}", [_percent(None if s is None else s.miou) for s in scores]),
        (f"mIoU_occ\n{mode}", [_percent(None if s is None else s.miou_occ) for s in scores]),
    ]


def _caption(report: Report) -> str:
    clips = "1 clip" if len(report.clips) == 1 else f"{len(report.clips)} clips"
    frames = f"{report.frames} frames, {report.hidden_frames} of them with hidden parts"
    return f"{clips}, {frames}. mIoU, AP and flicker in percent; of flicker, less is better."


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
