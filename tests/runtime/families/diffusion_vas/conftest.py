"""The default model, loaded once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import amodal


@pytest.fixture(scope="module")
def model() -> Iterator[amodal.Model]:
    with amodal.load("default") as model:
        yield model
