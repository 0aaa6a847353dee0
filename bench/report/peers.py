"""Peers in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from .. import statistics
from ..schema import Peer, Peers
from ..statistics import Ratio
from ..wording import DASH, describe_work, in_bytes, per_frame, plural, seconds
from .document import Figure, Section, Table
from .drawing import INK, Canvas, bare, label, series


def section(found: Sequence[Peers]) -> Section:
    """Every comparison with peers of a results file."""
    tables, figures, notes = [], [], []
    for m in found:
        work = describe_work(m.work)
        tables.append(_table(work, m))
        if any(peer.agreement for peer in m.peers):
            tables.append(_agreement(m))
        notes += [f"{peer.name}: {peer.description}." for peer in m.peers if peer.description]
        timed = [peer for peer in m.peers if peer.seconds]
        if timed:
            figures.append(
                Figure(
                    "The same work, side by side",
                    f"{work}. Bars are medians, dots are clips, and the ratio is to {m.peers[0].name}, with its 99 % "
                    "interval. Shorter is faster.",
                    "; ".join(f"{p.name}: {seconds(float(np.median(p.seconds)))}" for p in timed) + ".",
                    partial(_bars, m, timed),
                )
            )
    return Section(
        "peers",
        "Peers",
        "The same work, inputs and seeds, each in a process of its own, clips taken in turns; results were checked "
        "against each other before any time counted.",
        [],
        tables,
        figures,
        notes,
    )


def ratio_to_first(m: Peers, peer: Peer) -> Ratio | None:
    """A peer's time over the first one's, clip by clip; None of the first itself, or without clips."""
    return None if not m.peers or peer is m.peers[0] else statistics.paired_ratio(m.peers[0].seconds, peer.seconds)


def _ratio(ratio: Ratio | None) -> str:
    return DASH if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _table(work: str, m: Peers) -> Table:
    rows = []
    for peer in m.peers:
        summary = statistics.summarise(peer.seconds)
        rows.append(
            [
                peer.name,
                seconds(summary.median if summary else None),
                seconds(summary.iqr if summary else None),
                per_frame(summary.median, m.work) if summary else DASH,
                _ratio(ratio_to_first(m, peer)),
                seconds(peer.first),
                in_bytes(peer.host_peak),
                in_bytes(peer.device_peak),
            ]
        )
    head = ["peer", "clip, median", "interquartile range", "s/frame", "ratio", "first clip", "host peak", "GPU peak"]
    clips = plural(min((len(p.seconds) for p in m.peers), default=0), "clip")
    against = f" Ratios are to {m.peers[0].name}." if m.peers else ""
    return Table(f"{work}; {clips} each.{against}", head, rows)


def _agreement(m: Peers) -> Table:
    measures = list(dict.fromkeys(key for peer in m.peers for key in peer.agreement))
    rows = [
        [peer.name, *(f"{peer.agreement[key]:.4g}" if key in peer.agreement else DASH for key in measures)]
        for peer in m.peers
    ]
    return Table(
        f"How far results agree with those of {m.peers[0].name}.",
        ["peer", *(key.replace("_", " ") for key in measures)],
        rows,
    )


def _bars(m: Peers, peers: Sequence[Peer]) -> str:
    canvas = Canvas(0.55 + 0.62 * len(peers))
    with canvas as (_, (axes,)):
        for place, peer in enumerate(peers):
            values = np.array(peer.seconds)
            median = float(np.median(values))
            axes.barh(place, median, 0.42, color=series(place), alpha=0.55)
            heights = place + (np.arange(len(values)) * 0.618034) % 1 * 0.3 - 0.15
            axes.scatter(values, heights, s=6, color=INK, alpha=0.55, linewidths=0, zorder=3)
            ratio = ratio_to_first(m, peer)
            text = f"{peer.name}: {seconds(median)}" + (f", ratio {_ratio(ratio)}" if ratio else "")
            axes.text(0, place - 0.25, label(text, 70), va="bottom", fontsize=8.5)
        axes.set_ylim(len(peers) - 0.7, -0.62)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds per clip, measured")
        axes.grid(axis="x")
        bare(axes)
    return canvas.svg
