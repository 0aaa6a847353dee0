from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from amodal.runtime.errors import InputError, OutputError
from amodal.runtime.files.trial import require_space, try_names


def test_names_that_can_be_written_leave_nothing(tmp_path: Path) -> None:
    try_names(tmp_path, ["a.png", "A.png", "caf\udce9.png", "x" * 251 + ".png", "...png", "com1.png"])
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"takes no file named x+\.jpg\.png \(file name too long\).*; rename the fra"):
        try_names(tmp_path, ["a.png", "x" * 250 + ".jpg.png"])
    assert list(tmp_path.iterdir()) == []


def test_names_that_differ_in_case_alone_are_refused_where_that_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: create(str(path).lower(), *rest, **more))
    with pytest.raises(InputError, match=r"two frames would be written as A\.png"):
        try_names(tmp_path, ["a.png", "b.png", "A.png"])


def test_a_name_that_the_file_system_has_no_letters_for_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=r"takes no file named caf\\xe9\.png"):
        try_names(tmp_path, ["caf\udce9.png"])


def test_room_is_compared_with_what_may_be_needed(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path, free // 2)
    with pytest.raises(OutputError, match=r"\d+ MB are free .* may take \d+ MB; make room or give .* `out`"):
        require_space(tmp_path, free * 2)
