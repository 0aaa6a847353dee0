"""The README starts with code that runs, and this runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .places import ROOT

README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_first_code_of_the_readme_runs(tmp_path: Path) -> None:
    demo = next(line for line in blocks("sh")[0].splitlines() if line.startswith("amodal "))
    command = [sys.executable, "-c", "from amodal.cli import main; main()", *demo.split()[1:], "--steps", "6"]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "mIoU_occ" in said
    assert (tmp_path / "amodal-demo" / "sheet.png").is_file()
    ran = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ran.stdout.strip() == "(8, 120, 240) (8, 120, 240, 3)"


def test_every_amodal_command_in_the_readme_exists() -> None:
    from amodal.cli import amodal

    known = set(amodal.list_commands(None))  # type: ignore[arg-type]
    named = set(re.findall(r"amodal (\w+)", "\n".join(blocks("sh"))))
    assert named
    assert named <= known
