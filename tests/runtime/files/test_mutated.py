"""Mutated clips are read as they are meant, or refused, or read with a warning; nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.files.clip import read_clip

from .mutated import make_case

QUICK, ALL = 160, 5000


def outcome(root: Path, seed: int) -> str:
    """What came of a case: `right`, `refused`, `warned` or, with what was drawn, `wrong` or `traceback`."""
    root.mkdir()
    try:
        case = make_case(root, seed)
        try:
            clip = read_clip(case.files())
        except InputError:
            return "refused"
        except Exception as error:  # noqa: BLE001  # what must not happen, and is shown with its seed
            return f"traceback: seed {seed}, {case.steps}: {error!r}"
        if case.wrong(clip) <= (0.05 if case.soft else 0.0):
            return "right"
        return "warned" if clip.warnings else f"wrong: seed {seed}, {case.steps}, {case.asked}"
    finally:
        shutil.rmtree(root)


def run(root: Path, seeds: range) -> dict[str, int]:
    found: dict[str, int] = {}
    bad = []
    for seed in seeds:
        what = outcome(root / str(seed), seed)
        kind = what.partition(":")[0]
        found[kind] = found.get(kind, 0) + 1
        bad += [what] if kind in ("wrong", "traceback") else []
    assert not bad, "\n".join(bad[:20])
    return found


def test_some_mutated_clips(tmp_path: Path) -> None:
    found = run(tmp_path, range(QUICK))
    assert found["right"] > QUICK / 4, "most of the others are refused"
    assert found["refused"] > QUICK / 10


@pytest.mark.slow
def test_five_thousand_mutated_clips(tmp_path: Path) -> None:
    run(tmp_path, range(QUICK, ALL))
