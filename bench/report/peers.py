"""Peers in the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from .. import statistics
from ..schema import Peer, Peers
from ..statistics import Ratio
from ..wording import DASH, describe_work, in_bytes, per_frame, plural, seconds
from .document import Content, Figure, Table, tabulate
from .drawing import INK, Canvas, label, scatter_clips, series


def content(found: Sequence[Peers]) -> Content:
    """The peers section: tables, figures, notes and warnings."""
    tables, figures, notes = [], [], []
    for m in found:
        tables.append(_table(m))
        if any(peer.agreement for peer in m.peers):
            tables.append(_agreement(m))
        notes += [f"{peer.name}: {peer.description}." for peer in m.peers if peer.description]
        timed = [peer for peer in m.peers if peer.seconds]
        if timed:
            figures.append(
                Figure(
                    "The same work, side by side",
                    f"{describe_work(m.work)}. Bars are medians, dots are clips, and the ratio is to "
                    f"{m.peers[0].name}, with its 99 % interval. Shorter is faster.",
                    "; ".join(f"{p.name}: {seconds(statistics.median_of(p.seconds))}" for p in timed) + ".",
                    partial(_plot, m, timed),
                )
            )
    return tables, figures, notes, []


def ratio_to_first(m: Peers, peer: Peer) -> Ratio | None:
    """A peer's time divided by the first one's, clip by clip; None for the first peer, or without clips."""
    return None if peer is m.peers[0] else statistics.paired_ratio(m.peers[0].seconds, peer.seconds)


def _ratio(ratio: Ratio | None) -> str:
    return DASH if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _table(m: Peers) -> Table:
    rows = [
        {
            "peer": peer.name,
            "clip, median": seconds(statistics.median_of(peer.seconds)),
            "interquartile range": seconds(statistics.iqr_of(peer.seconds)),
            "s/frame": per_frame(statistics.median_of(peer.seconds), m.work),
            "ratio": _ratio(ratio_to_first(m, peer)),
            "first clip": seconds(peer.first),
            "host peak": in_bytes(peer.host_peak),
            "GPU peak": in_bytes(peer.device_peak),
        }
        for peer in m.peers
    ]
    clips = plural(min((len(p.seconds) for p in m.peers), default=0), "clip")
    base = f" Ratios are to {m.peers[0].name}." if m.peers else ""
    return tabulate(f"{describe_work(m.work)}; {clips} each.{base}", rows)


def _agreement(m: Peers) -> Table:
    measures = list(dict.fromkeys(key for peer in m.peers for key in peer.agreement))
    rows = [
        {
            "peer": peer.name,
            **{k.replace("_", " "): f"{peer.agreement[k]:.4g}" if k in peer.agreement else DASH for k in measures},
        }
        for peer in m.peers
    ]
    return tabulate(f"Agreement of the results with those of {m.peers[0].name}.", rows)


def _plot(m: Peers, peers: Sequence[Peer], canvas: Canvas) -> None:
    canvas.set_figheight(0.55 + 0.62 * len(peers))
    axes = canvas.subplots()
    for place, peer in enumerate(peers):
        median = float(np.median(peer.seconds))
        axes.barh(place, median, 0.42, color=series(place), alpha=0.55)
        scatter_clips(axes, peer.seconds, place, 0.3, s=6, color=INK, zorder=3)
        ratio = ratio_to_first(m, peer)
        text = f"{peer.name}: {seconds(median)}" + (f", ratio {_ratio(ratio)}" if ratio else "")
        axes.text(0, place - 0.25, label(text, 70), va="bottom", fontsize=8.5)
    axes.set_ylim(len(peers) - 0.7, -0.62)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds per clip, measured")
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
