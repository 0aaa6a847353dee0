"""The command `amodal`."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, NoReturn

import click

from amodal import __version__
from amodal.runtime.paths import displayed

from .console import warn
from .lazy import CommandError, LazyGroup
from .logs import verbose_option

_BENCH_LIBRARIES = ("psutil", "matplotlib", "jinja2", "ijson", "faster_coco_eval")
_TERMINATED = 128 + signal.SIGTERM
_PYTHONS_SHOWWARNING = warnings.showwarning
_PACKAGE = str(Path(__file__).parents[1])
_COMMANDS = {
    "run": "Whole-object masks and RGB from frames and visible masks.",
    "live": "Whole objects in the frames of a camera, in time.",
    "batch": "Run many clips, over GPUs or a cluster; resume after a stop.",
    "eval": "Score predicted masks and RGB against the truth, beside baselines.",
    "demo": "Complete hidden objects in a drawn scene; needs no download.",
    "scenes": "Draw videos of objects that hide one another, with the truth.",
    "export": "Turn checkpoints into a bundle that runs without PyTorch.",
    "build": "Compile a bundle's graphs into engines for RTX-class GPUs.",
    "inspect": "Show a bundle's graphs, shapes, sizes and integrity.",
    "verify": "Check that a bundle computes what it should.",
    "bench": "Measure time, memory, fidelity and quality on this machine.",
    "ros2": "Run a ROS 2 node: label images and depth in, whole objects out.",
    "doctor": "Show versions, devices and backends, for a bug report.",
}


@click.group(cls=LazyGroup, package="amodal.cli", summaries=_COMMANDS)
@click.version_option(__version__, prog_name="amodal")
@verbose_option
def amodal() -> None:
    """Amodal perception without PyTorch: see the hidden parts of objects in video.

    \b
    Examples:
      amodal demo
      amodal export --segment ckpt/ --complete ckpt2/ -o bundle
      amodal run bundle --frames rgbs/ --masks masks/ -o out
      amodal build bundle --target sm86,sm89
      amodal inspect toy
      amodal doctor
    """


def main(args: list[str] | None = None) -> None:
    """Runs the command; prints an error as one line and exits with its code, 130 after Ctrl-C and 143 after SIGTERM."""
    show = warnings.showwarning
    warnings.showwarning = _show_warning if show is _PYTHONS_SHOWWARNING else show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that the locale has no letters for
    try:
        with _termination_unwinds():
            code = amodal.main(args=args, prog_name="amodal", standalone_mode=False)
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "amodal"
        _fail(f"{error.format_message()} See `{command} --help`.", error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        _fail(f"interrupted; {_left_by(error)}.", 130)
    except _Terminated as error:
        _fail(f"terminated; {_left_by(error)}.", _TERMINATED)
    except ModuleNotFoundError as error:
        if error.name not in _BENCH_LIBRARIES:
            raise
        _fail(f'this command needs {error.name}, which is not installed; run `pip install "amodal[bench]"`.', 2)
    except MemoryError as error:
        _fail(f"out of memory ({error}); `amodal run` needs less with --memory sequential.", 2)
    except OSError as error:  # a file of the bundle that cannot be read, standard output on a full disk
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}.", 2)
    else:
        sys.exit(code if isinstance(code, int) else 0)
    finally:
        warnings.showwarning = show


def _left_by(error: BaseException | None) -> str:
    """Says what is left of a run that was stopped: finished blocks of a long one, and of others nothing."""
    while error is not None:
        if getattr(error, "kept", False):
            return "what was finished is kept, --resume goes on from there"
        error = error.__cause__ or error.__context__
    return "no partial output is left"


class _Terminated(BaseException):
    """The process got SIGTERM. What only catches errors lets it pass, so that everything is cleaned up."""


@contextmanager
def _termination_unwinds() -> Iterator[None]:
    """Makes SIGTERM raise `_Terminated` in the block, unless the program around has a handler of its own."""
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends it twice, and cleaning up takes a moment
        raise _Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Prints a warning of amodal's code as one line, any other as Python does."""
    if category is UserWarning and str(where[0] if where else "").startswith(_PACKAGE):
        warn([str(message)])
    else:
        _PYTHONS_SHOWWARNING(message, category, *where, **more)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {displayed(message)}", err=True)
    sys.exit(code)
