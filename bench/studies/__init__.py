"""One-off studies behind figures in the docs."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from amodal.runtime.errors import AmodalError


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turns an `AmodalError` into click's, which prints one sentence; also a decorator of commands."""
    try:
        yield
    except AmodalError as error:
        raise click.ClickException(str(error)) from error
