"""The command `amodal`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import click

from amodal import __version__

from .lazy import CommandError, lazy_group

_MEASURING = ("psutil", "matplotlib", "jinja2")
_PLAIN = warnings.showwarning
_HOME = str(Path(__file__).parents[1])
_COMMANDS = {
    "run": "Whole-object masks and RGB from frames and visible masks.",
    "eval": "How good predicted masks and RGB are, beside the baselines.",
    "demo": "See hidden objects completed, in a minute, with nothing to download.",
    "scenes": "Videos of things that hide one another, with the truth of what is hidden.",
    "export": "Turn checkpoints into a bundle that runs without PyTorch.",
    "build": "Compile a bundle's graphs into engines for RTX-class GPUs, on any machine.",
    "inspect": "What is inside a bundle: graphs, shapes, sizes, integrity.",
    "verify": "Whether a bundle computes what it should, component by component.",
    "bench": "Time, memory, fidelity and quality on this machine, beside the other ways to run it.",
    "doctor": "Versions, devices and backends, ready to paste into a bug report.",
}


@click.group(
    cls=lazy_group("amodal.cli", _COMMANDS),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="amodal")
@click.pass_context
def amodal(ctx: click.Context) -> None:
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
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: list[str] | None = None) -> None:
    """Entry point: prints an error as one sentence and exits with its code; 130 after Ctrl-C."""
    show = warnings.showwarning
    warnings.showwarning = _show if show is _PLAIN else show
    try:
        code = amodal.main(args=args, prog_name="amodal", standalone_mode=False)
    except CommandError as error:
        _fail(str(error), error.exit_code)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "amodal"
        _fail(f"{error.format_message()} See `{command} --help`.", error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; nothing half-written is left.", 130)
    except ModuleNotFoundError as error:
        if error.name not in _MEASURING:
            raise
        _fail(f'this needs {error.name}, not installed here; `pip install "amodal[bench]"` brings it.', 2)
    except MemoryError as error:
        _fail(f"there is not enough memory ({error}); `amodal run` takes less with --memory sequential.", 2)
    except OSError as error:  # a file of the bundle that may not be read, standard output on a full disk
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}.", 2)
    else:
        sys.exit(code if isinstance(code, int) else 0)
    finally:
        warnings.showwarning = show


def _show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A warning of ours as one line; others as Python shows them."""
    if category is UserWarning and str(where[0] if where else "").startswith(_HOME):
        click.echo(f"Warning: {message}", err=True)
    else:
        _PLAIN(message, category, *where, **more)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)
