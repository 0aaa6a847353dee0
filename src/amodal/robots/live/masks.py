"""Where a live loop takes visible masks from: files, or a program that is asked about each frame.

The program reads requests from its standard input and answers on its standard output, one after the other. A request
is a line of JSON and the frame's bytes, `height * width * 3` of RGB:

    {"number": 7, "stamp": 12.5, "height": 480, "width": 640}

An answer is a line of JSON and a label image of the frame's size, in which 0 is no object and other values are the ids
of objects; with `"depth": true`, relative depth as float32 follows, nearer is larger. All numbers are little-endian:

    {"number": 7, "labels": "uint16", "depth": false}
"""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Mapping
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.clips.source import ClipSource
from amodal.runtime.errors import InputError

from .frames import Taken

_LONGEST_LINE = 4096
_ATTEMPTS = 3  # failures on end after which a program is given up


class Seen(NamedTuple):
    """Visible masks bool [h, w] by object, and relative depth float32 [h, w], nearer is larger; None without."""

    masks: Mapping[Any, NDArray[np.bool_]]
    depth: NDArray[Any] | None


class MaskSource(Protocol):
    """Tells what is seen of the objects in a frame."""

    failures: int
    """Frames for which there was no answer."""

    def find(self, taken: Taken) -> Seen | None:
        """Returns what is seen in a frame; None if that is not known this time."""

    def close(self) -> None:
        """Ends what was started."""


class FileMasks:
    """Masks, and depth if there is any, of the frames of files, by number."""

    failures = 0

    def __init__(self, clip: ClipSource) -> None:
        self._clip = clip

    def find(self, taken: Taken) -> Seen | None:
        """See `MaskSource`."""
        here = range(taken.number, taken.number + 1)
        masks = {one: self._clip.modal(one, here)[0] for one in self._clip.objects}
        return Seen(masks, self._clip.depth(here)[0] if self._clip.has_depth else None)

    def close(self) -> None:
        """See `MaskSource`."""


class CommandMasks:
    """A program that segments, in a process of its own; started again if it ends or does not answer.

    Args:
        command: as in a shell, without the shell's own signs.
        timeout: seconds to wait for an answer.

    Raises:
        InputError: it cannot be started.
    """

    def __init__(self, command: str, timeout: float = 10.0) -> None:
        self._words, self._timeout = _words_of(command), timeout
        self.failures = self._in_a_row = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Seen | str] = queue.Queue()
        self._start()

    def find(self, taken: Taken) -> Seen | None:
        """See `MaskSource`.

        Raises:
            InputError: the program failed three times on end.
        """
        if self._process is None:
            self._start()
        process, answers = self._process, self._answers
        assert process is not None
        request = threading.Thread(target=self._ask, args=(process, answers, taken), daemon=True)
        request.start()
        try:
            answer: Seen | str = answers.get(timeout=self._timeout)
        except queue.Empty:
            answer = f"it gave no answer within {self._timeout:g} s"
        if isinstance(answer, Seen):
            self._in_a_row = 0
            return answer
        self.close()
        self.failures += 1
        self._in_a_row += 1
        if self._in_a_row >= _ATTEMPTS:
            raise InputError(
                f"the program {self._words[0]} failed {_ATTEMPTS} times on end ({answer}); run it by itself and see "
                "what it prints, docs/live.md shows what it must read and write.",
                field="masks_from",
            )
        return None

    def close(self) -> None:
        """Ends the program: it sees the end of its input, and is killed if it goes on."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise InputError(
                f"the program {self._words[0]} cannot be started ({error.strerror}); give a command as in a shell, a "
                "folder of masks, or the path of a program.",
                field="masks_from",
            ) from error
        self._answers = queue.Queue()

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], answers: queue.Queue[Seen | str], taken: Taken) -> None:
        """Writes a request and reads its answer, in a thread: both wait as long as the program likes."""
        height, width = taken.frame.shape[:2]
        header = {"number": taken.number, "stamp": taken.stamp, "height": height, "width": width}
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(header).encode() + b"\n")
            process.stdin.write(np.ascontiguousarray(taken.frame).data)
            process.stdin.flush()
            answers.put(_read_answer(process.stdout, taken.number, (height, width)))
        except (OSError, ValueError) as error:
            # A pipe that breaks says less than how the program ended.
            code = process.poll()
            answers.put(str(error) if code is None else f"it ended with {code}")


def _words_of(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"the command {command!r} cannot be read ({error}).", field="masks_from") from error
    if not words:
        raise InputError("the command is empty; expected a program that answers masks.", field="masks_from")
    return words


def _read_answer(pipe: IO[bytes], number: int, size: tuple[int, int]) -> Seen:
    """Reads an answer; raises ValueError, in words that continue "it failed:", if it is none."""
    line = pipe.readline(_LONGEST_LINE)
    if not line:
        raise ValueError("it closed its output")
    try:
        header = json.loads(line)
        told, labels, with_depth = header["number"], header["labels"], bool(header.get("depth", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"it wrote {line[:60]!r}, expected a line such as "
            '{"number": 7, "labels": "uint16"}; what it prints for people belongs to standard error'
        ) from None
    if told != number:
        raise ValueError(f"it answered frame {told}, and was asked about {number}")
    if labels not in ("uint8", "uint16"):
        raise ValueError(f"its labels are {labels!r}, expected uint8 or uint16")
    image = _read_array(pipe, np.dtype(labels).newbyteorder("<"), size)
    depth = _read_array(pipe, np.dtype("<f4"), size) if with_depth else None
    return Seen({int(one): image == one for one in np.unique(image) if one}, depth)


def _read_array(pipe: IO[bytes], dtype: np.dtype[Any], size: tuple[int, int]) -> NDArray[Any]:
    wanted = size[0] * size[1] * dtype.itemsize
    data = pipe.read(wanted)
    if len(data) < wanted:
        raise ValueError(f"its answer ended after {len(data)} of {wanted} bytes")
    return np.frombuffer(data, dtype).reshape(size)
