"""Runs the tests marked `gpu` and prints their outcome as JSON: `python -m amodal.bench.gpu_check.tests tests/gpu`."""

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
    """Counts passes and failures in pytest's JUnit file.

    Returns:
        `passed`, `failed`, `skipped`: counts. `failures`: the first line of each, by test. `reasons`: why tests were
        skipped, each once.
    """
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures: dict[str, str] = {}
    reasons: dict[str, None] = {}
    for case in ET.fromstring(junit).iter("testcase"):
        found = {child.tag: child for child in case}
        failure = found.get("failure", found.get("error"))
        if failure is not None:
            counts["failed"] += 1
            lines = (failure.get("message") or failure.text or "").strip().splitlines()
            failures[case.get("name") or "?"] = (lines or ["no message"])[0][:_MOST]
        elif "skipped" in found:
            counts["skipped"] += 1
            reasons[found["skipped"].get("message") or "no reason"] = None
        else:
            counts["passed"] += 1
    return {**counts, "failures": failures, "reasons": list(reasons)}


def main(arguments: list[str]) -> int:
    """Runs pytest, prints the outcome, and returns pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={file}", *arguments]
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if not file.exists():
            return code or 1
        print(json.dumps(outcome_of(file.read_text())))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
