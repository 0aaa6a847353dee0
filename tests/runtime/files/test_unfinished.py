"""What is said when a run that can go on stops."""

from pathlib import Path

import pytest

from amodal.runtime.errors import AmodalError, InputError, NonFiniteError
from amodal.runtime.files.unfinished import unfinished_folder


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("frame 9 is damaged."), "if the inputs stay as they are. With mended ones, begin anew with"),
        (NonFiniteError(3, 0.5), "What was finished is kept; `resume=True` goes on from there."),
    ],
)
def test_going_on_is_promised_only_for_the_same_inputs(tmp_path: Path, error: AmodalError, told: str) -> None:
    def stop(frames: str, **options: bool) -> None:
        with unfinished_folder(tmp_path / "out", {"frames": frames}, **options) as run:
            run.commit({"segment": 1}, [])
            raise error

    with pytest.raises(type(error)) as caught:
        stop("a")
    assert told in str(caught.value)
    with pytest.raises(InputError, match=r"frames` was a and is b.*begin anew with `overwrite=True`"):
        stop("b", resume=True)
    with pytest.raises(type(error)):
        stop("b", overwrite=True)


def test_nothing_is_promised_where_nothing_was_finished(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, unfinished_folder(tmp_path / "out", {}):
        raise InputError("frame 1 is damaged.")
    assert str(caught.value) == "frame 1 is damaged."
