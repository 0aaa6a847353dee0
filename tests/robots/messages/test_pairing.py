"""Messages of two topics are put together by their stamps."""

from __future__ import annotations

from amodal.robots.messages.pairing import Pairing


def test_messages_within_the_tolerance_are_a_pair_whichever_comes_first() -> None:
    pairing = Pairing(("masks", "depth"), 0.02)
    assert pairing.add("masks", 1.0, "m") is None
    assert pairing.add("depth", 1.015, "d") == (1.0, {"masks": "m", "depth": "d"})
    assert pairing.add("depth", 2.0, "d") is None
    assert pairing.add("masks", 2.01, "m") == (2.01, {"masks": "m", "depth": "d"})
    assert pairing.dropped == {"masks": 0, "depth": 0}


def test_what_is_older_than_a_pair_is_dropped_and_counted() -> None:
    pairing = Pairing(("masks", "depth"), 0.02)
    for number in range(5):
        pairing.add("masks", number / 10, number)
    assert pairing.add("depth", 0.305, "d") == (0.3, {"masks": 3, "depth": "d"})
    assert pairing.dropped == {"masks": 3, "depth": 0}
    assert pairing.add("depth", 0.4, "e") == (0.4, {"masks": 4, "depth": "e"})


def test_a_topic_alone_keeps_its_newest_eight() -> None:
    pairing = Pairing(("masks", "depth"), 0.02)
    assert all(pairing.add("masks", float(number), number) is None for number in range(20))
    assert pairing.dropped == {"masks": 12, "depth": 0}
    assert pairing.add("depth", 11.0, "d") is None
    assert pairing.add("depth", 12.0, "d") == (12.0, {"masks": 12, "depth": "d"})


def test_stamps_that_go_backwards_drop_what_waited() -> None:
    pairing = Pairing(("masks", "depth"), 0.02)
    pairing.add("masks", 100.0, "old")
    assert pairing.add("masks", 1.0, "new") is None
    assert pairing.dropped["masks"] == 1
    assert pairing.add("depth", 1.0, "d") == (1.0, {"masks": "new", "depth": "d"})
