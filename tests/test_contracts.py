"""Dependencies only go down: import-linter's contracts in pyproject.toml, which are the table of the design."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .places import ROOT

pytest.importorskip("importlinter")

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    """import-linter in a process of its own, since it changes sys.path and the logging."""
    command = [sys.executable, "-c", LINT, "--no-cache", "--no-logo", "--config", str(config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_no_floor_imports_what_it_may_not() -> None:
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken." in done.stdout


def test_a_broken_contract_is_noticed(tmp_path: Path) -> None:
    # What the exporter does: the same kind of contract as the runtime's, and one that cannot be kept.
    config = tmp_path / "broken.toml"
    config.write_text(
        '[tool.importlinter]\nroot_package = "amodal"\ninclude_external_packages = true\n'
        '[[tool.importlinter.contracts]]\nname = "export never sees torch"\ntype = "forbidden"\n'
        'source_modules = ["amodal.export"]\nforbidden_modules = ["torch"]\n'
    )
    done = lint(config)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "export never sees torch BROKEN" in done.stdout
