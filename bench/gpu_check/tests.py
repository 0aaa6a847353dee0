"""The tests marked `gpu`, and their outcome as JSON: `python -m amodal.bench.gpu_check.tests tests/gpu`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

_MOST = 200  # characters of a failure's first line


def outcome_of(junit: str) -> dict[str, Any]:
    """Counts and failures from pytest's JUnit file.

    Returns:
        `passed`, `failed`, `skipped`: counts. `failures`: the first line of each, by test. `reasons`: why tests were
        skipped, each once.
    """
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: dict[str, str] = {}
    reasons: dict[str, None] = {}
    for case in ET.fromstring(junit).iter("testcase"):
        trouble = [child for child in case if child.tag in ("failure", "error")]
        skipped = [child for child in case if child.tag == "skipped"]
        if trouble:
            counts["failed"] += 1
            lines = (trouble[0].get("message") or trouble[0].text or "no message").strip().splitlines()
            failures[case.get("name") or "?"] = (lines or ["no message"])[0][:_MOST]
        elif skipped:
            counts["skipped"] += 1
            reasons[skipped[0].get("message") or "no reason"] = None
        else:
            counts["passed"] += 1
    return {**counts, "failures": failures, "reasons": list(reasons)}


def main(arguments: list[str]) -> int:
    """Runs pytest; prints the outcome, and ends as it did."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={file}", *arguments]
        ended = subprocess.run(command, stdout=sys.stderr, check=False)
        if not file.exists():
            return ended.returncode or 1
        print(json.dumps(outcome_of(file.read_text())))
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
