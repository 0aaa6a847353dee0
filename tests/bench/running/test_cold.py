"""A cold start that fails says why, as any other command does."""

from __future__ import annotations

import pytest

from amodal.bench.running.clips import Execution
from amodal.bench.running.cold import cold_start
from amodal.bench.running.machine import work_of
from amodal.runtime.errors import BackendError
from amodal.runtime.families import Bundle


def test_what_the_new_process_says_is_the_sentence() -> None:
    work = work_of(Bundle("default"), "segment", steps=1)
    with pytest.raises(BackendError, match=r"^backend 'nonsense' is unknown to this version; expected [^()]*\.$"):
        cold_start("default", work, Execution(backend="nonsense"))


@pytest.mark.slow
def test_parts_of_a_start_are_told_apart() -> None:
    found = cold_start("default", work_of(Bundle("default"), "segment", steps=1), Execution())
    assert set(found) == {"import", "open", "load", "first clip"}
    assert all(seconds > 0 for seconds in found.values())
