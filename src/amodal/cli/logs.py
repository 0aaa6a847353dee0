"""What the package logs, on standard error."""

from __future__ import annotations

import logging

import click


class _Handler(logging.Handler):
    """Prints a record as one line, above bars that are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        try:
            click.echo(self.format(record), err=True)
        except Exception:  # noqa: BLE001 (as every handler of logging does)
            self.handleError(record)


def _log(context: click.Context, _: click.Parameter, count: int) -> None:
    """Prints records from INFO on, or all, until the outermost command ends."""
    if not count:
        return
    logger, handler = logging.getLogger("amodal"), _Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.level
    logger.setLevel(logging.INFO if count == 1 else logging.DEBUG)
    logger.addHandler(handler)

    def stop() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    context.find_root().call_on_close(stop)


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    show_default=False,
    expose_value=False,
    callback=_log,
    help="Say on standard error what is loaded, chosen and done; -vv in more detail.",
)
"""--verbose, of `amodal` and of `amodal run`."""
