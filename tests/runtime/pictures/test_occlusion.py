"""Which object is in front: by what is seen where whole masks overlap, else by depth."""

from __future__ import annotations

import numpy as np

from amodal.runtime.pictures.occlusion import find_order


def squares(*lefts: int) -> np.ndarray:
    masks = np.zeros((len(lefts), 8, 20), bool)
    for mask, left in zip(masks, lefts, strict=True):
        mask[2:6, left : left + 6] = True
    return masks


def test_what_is_seen_in_an_overlap_is_in_front_whatever_depth_says() -> None:
    whole = squares(0, 4, 8)
    modal = whole.copy()
    modal[0] &= ~whole[1]
    modal[1] &= ~whole[2]
    order, occluders = find_order(modal, whole, np.broadcast_to(np.linspace(1, 0, 20, dtype=np.float32), (8, 20)))
    assert order == [2, 1, 0]
    assert occluders == [[1], [2], []]


def test_where_neither_is_seen_the_nearer_is_in_front() -> None:
    whole = squares(0, 4)
    modal = whole & ~whole.all(axis=0)
    depth = np.broadcast_to(np.linspace(0, 1, 20, dtype=np.float32), (8, 20))
    assert find_order(modal, whole, depth) == ([1, 0], [[1], []])
    assert find_order(modal, whole, 1 - depth) == ([0, 1], [[], [0]])
    assert find_order(modal, whole)[1] == [[], []]


def test_objects_apart_are_ordered_by_depth_and_unseen_ones_are_last() -> None:
    whole = squares(0, 7, 14)
    modal = whole.copy()
    modal[1] = False
    depth = np.broadcast_to(np.linspace(0, 1, 20, dtype=np.float32), (8, 20))
    assert find_order(modal, whole, depth) == ([2, 0, 1], [[], [], []])
