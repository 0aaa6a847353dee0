"""The README starts with code that runs, and so does the guide; this runs them, and follows every link."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .places import ROOT

README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


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


@pytest.mark.slow
def test_the_code_of_the_guide_runs(tmp_path: Path) -> None:
    [code] = blocks("python", GUIDE)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == re.findall(r"# (\(.*)", code)[-1]


@pytest.mark.parametrize("page", [README, GUIDE], ids=["README", "guide"])
def test_every_amodal_command_exists(page: Path) -> None:
    from amodal.cli import amodal

    known = set(amodal.list_commands(None))  # type: ignore[arg-type]
    named = set(re.findall(r"^amodal (\w+)", "\n".join(blocks("sh", page)), re.MULTILINE))
    assert named
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)", page.read_text("utf-8"))
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_what_needs_a_gpu_says_first_that_none_was_used() -> None:
    for page in (README, ROOT / "docs" / "gpu.md"):
        text = page.read_text("utf-8")
        warning = re.search(r"\*\*(Never run|None of this has run) on a GPU", text)
        assert warning
        commands = [text.index(word) for word in ("[rtx]", "--backend tensorrt_rtx", "--device cuda") if word in text]
        assert warning.start() < min(commands)
