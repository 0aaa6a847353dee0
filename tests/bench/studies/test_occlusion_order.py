"""The study of the order of occlusion: what it counts, and that the order holds on scenes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from amodal.bench.running.scene_runs import FIRST_SEED
from amodal.bench.studies.occlusion_order import Scored, main, run_scene, score, tabulate
from amodal.runtime.families.paco.order import OcclusionOrder, Relation


def test_pairs_are_right_wrong_or_missed_by_what_is_hidden() -> None:
    amodal = np.zeros((4, 1, 8), np.bool_)
    for index, columns in enumerate([(0, 4), (3, 6), (5, 8), (0, 1)]):
        amodal[index, 0, slice(*columns)] = True
    modal = amodal.copy()
    modal[0, 0, [0, 3]] = False
    modal[1, 0, 5] = False
    relations = (Relation(1, 0, 0.5, 2), Relation(1, 2, 0.5, 2))
    order = OcclusionOrder(relations, (), (), np.array([2, 1, 2, 1]))
    # 1 hides 0: right; 2 hides 1: the wrong way round; 3 hides 0: missed, but in an earlier layer.
    assert score(order, modal, amodal) == Scored(1, 1, 1, 2, 4, (1, 2, 1))


def test_a_row_sums_pairs_and_means_passes() -> None:
    row = tabulate([Scored(3, 1, 0, 4, 5, (1, 4, 1)), Scored(2, 0, 2, 3, 4, (2, 2, 1))])
    assert row[:5] == (8, 1, 2, 62.5, 87.5)
    assert row.passes == (1.5, 3.0, 1.0)
    assert math.isnan(tabulate([]).accuracy)


@pytest.mark.parametrize(("blur", "noise", "least"), [(0.0, 0.0, 98), (2.0, 0.05, 90)])
def test_layers_are_right_for_nearly_all_pairs(blur: float, noise: float, least: float) -> None:
    runs = [run_scene(FIRST_SEED + index, (64, 128), blur, noise) for index in range(60)]
    row = tabulate([run for run in runs if run is not None])
    assert row.pairs >= 50
    assert row.layer_accuracy >= least
    assert row.wrong <= 0.02 * row.pairs


def test_the_command_prints_a_row_per_kind_of_depth() -> None:
    done = CliRunner().invoke(main, ["-n", "3", "--least-objects", "3"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["exact", "blurred, noisy"]
    assert len({line.count("|") for line in lines}) == 1
