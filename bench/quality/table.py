"""The report as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from .report import Report


def render(report: Report) -> Table:
    """One line per prediction or baseline; a dash where a measure does not apply.

    mIoU, mIoU_occ, AP and flicker in percent, as papers print them (the report has shares); PSNR in dB.
    """
    rows, columns = report.rows, {}
    for mode in ("official", "strict"):
        if report.mode in (mode, "both"):
            scores = [getattr(row, mode) for row in rows]
            columns[f"mIoU\n{mode}"] = [_percent(s and s.miou) for s in scores]
            columns[f"mIoU_occ\n{mode}"] = [_percent(s and s.miou_occ) for s in scores]
    for name in ("AP25", "AP50", "AP75", "flicker"):
        columns[name] = [_percent(getattr(row, name.lower())) for row in rows]
    if any(row.psnr is not None for row in rows):
        columns["PSNR\ndB"] = ["-" if row.psnr is None else f"{row.psnr:.2f}" for row in rows]
    clips = "1 clip" if len(report.clips) == 1 else f"{len(report.clips)} clips"
    frames = f"{report.frames} frames, {report.hidden_frames} of them with hidden parts"
    caption = f"{clips}, {frames}. mIoU, AP and flicker in percent; less flicker is better."
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("", no_wrap=True)
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for row, *cells in zip(rows, *columns.values(), strict=True):
        table.add_row(row.name, *cells)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
