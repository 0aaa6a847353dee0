"""The report of a merge as Markdown, CSV and json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

_COUNTS = {"frames", "frames_occ", "objects", "regions"}


def as_json(report: Mapping[str, Any]) -> str:
    """The report as it is: shares, not percent."""
    return json.dumps(report, indent=1, sort_keys=True) + "\n"


def as_csv(report: Mapping[str, Any]) -> str:
    """A line per figure: data set, protocol, whose row, row, measure, value (a share or a count)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dataset", "protocol", "source", "row", "measure", "value"])
    for name, protocol in report["protocols"].items():
        for source, rows in (("measured", protocol["rows"]), ("published", protocol["published"])):
            for row, scores in rows.items():
                for measure, value in scores.items():
                    told = "" if value is None else repr(value)
                    writer.writerow([report["dataset"], name, source, row, measure, told])
    return text.getvalue()


def as_markdown(report: Mapping[str, Any]) -> str:
    """A table per protocol, in percent as papers print them; counts as they are."""
    visibility = report["visibility"]
    kept = f", of visibility {visibility[0]:g} to {visibility[1]:g}" if visibility else ""
    lines = [f"# {report['dataset']}", "", f"{report['clips_measured']} of {report['clips']} clips{kept}."]
    for protocol in report["protocols"].values():
        lines += ["", f"## {protocol['title']}", "", *_table(protocol)]
        lines += ["", protocol["notes"], "", protocol["comparison"]]
    return "\n".join(lines) + "\n"


def _table(protocol: Mapping[str, Any]) -> Iterator[str]:
    measures = list(dict.fromkeys(measure for row in protocol["rows"].values() for measure in row))
    yield "| | " + " | ".join(measures) + " |"
    yield "|---|" + "---:|" * len(measures)
    for row, scores in protocol["rows"].items():
        yield f"| {row} | " + " | ".join(_cell(scores.get(measure), measure) for measure in measures) + " |"
    for row, scores in protocol["published"].items():
        yield f"| {row} (published) | " + " | ".join(_cell(scores.get(measure), measure) for measure in measures) + " |"


def _cell(value: float | None, measure: str) -> str:
    if value is None or value == -1:
        return "-"
    return str(value) if measure in _COUNTS else f"{100 * value:.2f}"
