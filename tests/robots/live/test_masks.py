"""Programs that are asked for masks: what they answer, and what they may do wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from amodal.robots.live.frames import Taken
from amodal.robots.live.masks import CommandMasks
from amodal.runtime.errors import InputError

EXAMPLE = Path(__file__).parents[3] / "examples" / "segment_command.py"

PROGRAM = """
import json, sys, time
def answer(header, data=b""):
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\\n" + data)
    sys.stdout.buffer.flush()
while line := sys.stdin.buffer.readline():
    asked = json.loads(line)
    number, pixels = asked["number"], asked["height"] * asked["width"]
    sys.stdin.buffer.read(pixels * 3)
    {what}
"""


def taken(number: int, size: tuple[int, int] = (6, 8)) -> Taken:
    frame = np.full((*size, 3), 60, np.uint8)
    frame[2:4, 1 : 3 + number] = 250
    return Taken(number, number / 10, frame)


def program(tmp_path: Path, what: str, timeout: float = 20.0) -> CommandMasks:
    file = tmp_path / "a program.py"
    file.write_text(PROGRAM.replace("{what}", what))
    return CommandMasks(f"{sys.executable} '{file}'", timeout)


def test_the_example_answers_masks_and_depth() -> None:
    masks = CommandMasks(f"{sys.executable} {EXAMPLE}")
    for number in range(3):
        seen = masks.find(taken(number))
        expected = (taken(number).frame == 250).all(axis=2)
        np.testing.assert_array_equal(seen.masks[1], expected)
        assert list(seen.masks) == [1]
        np.testing.assert_array_equal(seen.depth, (~expected).astype(np.float32))
    masks.close()


def test_labels_of_one_byte_without_depth_are_masks_by_their_value(tmp_path: Path) -> None:
    masks = program(tmp_path, 'answer({"number": number, "labels": "uint8"}, bytes([0, 7, 9] * pixels)[:pixels])')
    seen = masks.find(taken(1))
    masks.close()
    assert seen.depth is None
    labels = np.resize([0, 7, 9], (6, 8))
    assert set(seen.masks) == {7, 9}
    for one, mask in seen.masks.items():
        np.testing.assert_array_equal(mask, labels == one)


BROKEN = {
    'answer({"number": number + 1, "labels": "uint8"})': "answered frame 1, and was asked about 0",
    'answer({"number": number, "labels": "int32"})': "labels are 'int32', expected uint8 or uint16",
    'print("ready", flush=True)': "what it prints for people belongs to standard error",
    "answer([1])": "expected a line such as",
    'answer({"number": number, "labels": "uint16"}, bytes(5)); sys.exit(3)': "5 of 96 bytes|it ended with 3",
    "sys.exit(3)": "closed its output|ended with 3",
}


@pytest.mark.parametrize(("what", "said"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_program_that_fails_three_times_on_end_is_given_up(tmp_path: Path, what: str, said: str) -> None:
    masks = program(tmp_path, what)
    assert masks.find(taken(0)) is None
    assert masks.find(taken(0)) is None
    with pytest.raises(InputError, match=rf"failed 3 times on end \(.*({said}).*\); run it by itself"):
        masks.find(taken(0))
    assert masks.failures == 3


@pytest.mark.slow
def test_a_program_that_hangs_is_started_again(tmp_path: Path) -> None:
    what = 'number == 1 and time.sleep(600)\n    answer({"number": number, "labels": "uint8"}, bytes(pixels))'
    masks = program(tmp_path, what, timeout=3.0)
    answers = [masks.find(taken(number)) for number in range(3)]
    masks.close()
    assert [answer is None for answer in answers] == [False, True, False]
    assert masks.failures == 1


@pytest.mark.parametrize(
    ("command", "said"), [("no-such-program x", "cannot be started"), ("a 'b", "cannot be read"), (" ", "is empty")]
)
def test_commands_that_cannot_run_are_refused(command: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        CommandMasks(command)
